//! [`TransportError`]: the one error of the transport traits and of the buffer manager, in AIRS's shape.
//!
//! Uses `error` and std only, so that `buffer` may use it without a runtime in the dependency tree.

use std::io;

use crate::error::{End, Error, Fault, Origin, Rejection};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong with a transport or with a buffer of its pool.
///
/// Names and constructors are those of AIRS. [`Error`], which a link returns, is finer; `From<Error>` maps
/// it here without losing sizes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The operating system said no.
    #[error("transport I/O error: {0}")]
    Io(#[source] io::Error),
    /// The transport, the connection or the pool is closed.
    #[error("transport closed")]
    Closed,
    /// No further connection is admitted.
    #[error("connection limit reached: {details}")]
    ConnectionLimit {
        /// Which limit.
        details: String,
    },
    /// There is no such connection, or it is not in a state to be used.
    #[error("invalid connection: {details}")]
    InvalidConnection {
        /// What is wrong with it.
        details: String,
    },
    /// The session is unknown, expired or misused.
    #[error("session error: {details}")]
    SessionError {
        /// What happened.
        details: String,
    },
    /// A message or a setting has a shape that is not allowed.
    #[error("invalid message format: {message}")]
    Format {
        /// What is wrong.
        message: String,
    },
    /// Something took too long.
    #[error("timed out after {duration_ms} ms")]
    Timeout {
        /// How long was waited, in milliseconds.
        duration_ms: u64,
    },
    /// A buffer, or the pool of all buffers, has no room for it.
    #[error("buffer overflow: {details}")]
    BufferOverflow {
        /// Which sizes met.
        details: String,
    },
    /// The message is larger than a limit.
    #[error("message of {size} bytes exceeds the limit of {max_size} bytes")]
    MessageTooLarge {
        /// Payload size in bytes.
        size: usize,
        /// The limit in bytes.
        max_size: usize,
    },
    /// The stream ended inside a message.
    #[error("the stream ended inside a message")]
    IncompleteMessage,
    /// What came could not be parsed.
    #[error("parse error: {source}")]
    ParseError {
        /// The parser's error.
        source: BoxError,
    },
    /// What was to be sent could not be serialised.
    #[error("serialization error: {source}")]
    SerializationError {
        /// The serialiser's error.
        source: BoxError,
    },
    /// Anything else.
    #[error("transport error: {details}")]
    Other {
        /// What happened.
        details: String,
    },
}

impl TransportError {
    /// An [`Io`](Self::Io) error.
    #[must_use]
    pub fn io(error: impl Into<io::Error>) -> Self {
        Self::Io(error.into())
    }

    /// [`Closed`](Self::Closed).
    #[must_use]
    pub const fn closed() -> Self {
        Self::Closed
    }

    /// [`Closed`](Self::Closed), under the name that AIRS's guide uses.
    #[must_use]
    pub const fn connection_closed() -> Self {
        Self::Closed
    }

    /// A [`ConnectionLimit`](Self::ConnectionLimit).
    #[must_use]
    pub fn connection_limit(details: impl Into<String>) -> Self {
        Self::ConnectionLimit { details: details.into() }
    }

    /// An [`InvalidConnection`](Self::InvalidConnection).
    #[must_use]
    pub fn invalid_connection(details: impl Into<String>) -> Self {
        Self::InvalidConnection { details: details.into() }
    }

    /// A [`SessionError`](Self::SessionError).
    #[must_use]
    pub fn session_error(details: impl Into<String>) -> Self {
        Self::SessionError { details: details.into() }
    }

    /// A [`Format`](Self::Format) error.
    #[must_use]
    pub fn format(message: impl Into<String>) -> Self {
        Self::Format { message: message.into() }
    }

    /// A [`Timeout`](Self::Timeout) after `duration_ms` milliseconds.
    #[must_use]
    pub const fn timeout(duration_ms: u64) -> Self {
        Self::Timeout { duration_ms }
    }

    /// A [`BufferOverflow`](Self::BufferOverflow).
    #[must_use]
    pub fn buffer_overflow(details: impl Into<String>) -> Self {
        Self::BufferOverflow { details: details.into() }
    }

    /// [`MessageTooLarge`](Self::MessageTooLarge): `size` against `max_size`, in bytes.
    #[must_use]
    pub const fn message_too_large(size: usize, max_size: usize) -> Self {
        Self::MessageTooLarge { size, max_size }
    }

    /// [`IncompleteMessage`](Self::IncompleteMessage).
    #[must_use]
    pub const fn incomplete_message() -> Self {
        Self::IncompleteMessage
    }

    /// A [`ParseError`](Self::ParseError).
    #[must_use]
    pub fn parse_error(source: impl Into<BoxError>) -> Self {
        Self::ParseError { source: source.into() }
    }

    /// A [`SerializationError`](Self::SerializationError).
    #[must_use]
    pub fn serialization_error(source: impl Into<BoxError>) -> Self {
        Self::SerializationError { source: source.into() }
    }

    /// [`Other`](Self::Other).
    #[must_use]
    pub fn other(details: impl Into<String>) -> Self {
        Self::Other { details: details.into() }
    }

    /// Whether the transport is of no further use. After an error that is not fatal the next call goes on.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        match self {
            Self::Format { .. }
            | Self::Timeout { .. }
            | Self::BufferOverflow { .. }
            | Self::MessageTooLarge { .. }
            | Self::IncompleteMessage
            | Self::ParseError { .. }
            | Self::SerializationError { .. }
            | Self::ConnectionLimit { .. } => false,
            Self::Io(_)
            | Self::Closed
            | Self::InvalidConnection { .. }
            | Self::SessionError { .. }
            | Self::Other { .. } => true,
        }
    }

    /// Who is at fault.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        match self {
            Self::Io(_) => Origin::Io,
            Self::MessageTooLarge { .. }
            | Self::IncompleteMessage
            | Self::ParseError { .. }
            | Self::SessionError { .. } => Origin::Peer,
            Self::Closed
            | Self::ConnectionLimit { .. }
            | Self::InvalidConnection { .. }
            | Self::Format { .. }
            | Self::Timeout { .. }
            | Self::BufferOverflow { .. }
            | Self::SerializationError { .. }
            | Self::Other { .. } => Origin::Caller,
        }
    }
}

impl From<io::Error> for TransportError {
    /// Keeps the error as it is; a cut connection stays distinguishable by its kind.
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Error> for TransportError {
    fn from(error: Error) -> Self {
        match error {
            Error::Ended(End::Reset) => Self::Io(io::ErrorKind::ConnectionReset.into()),
            Error::Ended(End::Closed | End::Eof) => Self::Closed,
            Error::Fault(Fault::TooLarge { size, limit }) => {
                Self::MessageTooLarge { size: usize::try_from(size).unwrap_or(usize::MAX), max_size: limit }
            }
            Error::Fault(Fault::Truncated { .. }) => Self::IncompleteMessage,
            Error::Fault(
                fault @ (Fault::InvalidUtf8 { .. } | Fault::Noise { .. } | Fault::InvalidJson { .. }),
            ) => Self::parse_error(fault),
            Error::Violation(violation) => Self::invalid_connection(violation.to_string()),
            Error::Rejected(Rejection::TooLarge { size, limit }) => {
                Self::BufferOverflow { details: format!("Message size {size} exceeds limit {limit}") }
            }
            Error::Rejected(rejection) => Self::format(rejection.to_string()),
            Error::TimedOut { after, .. } => {
                Self::Timeout { duration_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX) }
            }
            // One of these, carried through an I/O error, comes out as it went in.
            Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<Self>()) => {
                match error.into_inner().map(|inner| inner.downcast::<Self>()) {
                    Some(Ok(inner)) => *inner,
                    _ => Self::Closed,
                }
            }
            Error::Io(error) => Self::Io(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Deadline;

    #[test]
    fn is_an_error_that_may_cross_threads() {
        fn check<T: std::error::Error + Send + Sync + 'static>() {}
        check::<TransportError>();
    }

    #[test]
    fn constructors_make_their_variants() {
        assert!(matches!(TransportError::io(io::ErrorKind::Other), TransportError::Io(_)));
        assert!(matches!(TransportError::io(io::Error::other("x")), TransportError::Io(_)));
        assert!(matches!(TransportError::closed(), TransportError::Closed));
        assert!(matches!(TransportError::connection_closed(), TransportError::Closed));
        assert_eq!(TransportError::timeout(30).to_string(), "timed out after 30 ms");
        assert_eq!(
            TransportError::message_too_large(3, 2).to_string(),
            "message of 3 bytes exceeds the limit of 2 bytes"
        );
        assert!(TransportError::format("x".to_owned()).to_string().ends_with(": x"));
        assert!(matches!(TransportError::parse_error("x"), TransportError::ParseError { .. }));
    }

    #[test]
    fn keeps_sizes_and_times_of_the_finer_error() {
        let size = Error::from(Fault::TooLarge { size: 9, limit: 8 });
        assert!(matches!(size.into(), TransportError::MessageTooLarge { size: 9, max_size: 8 }));
        let time = Error::TimedOut { deadline: Deadline::Idle, after: Duration::from_millis(7) };
        assert!(matches!(time.into(), TransportError::Timeout { duration_ms: 7 }));
        assert!(matches!(Error::Ended(End::Eof).into(), TransportError::Closed));
        assert!(matches!(Error::Ended(End::Reset).into(), TransportError::Io(_)));
        assert!(matches!(
            Error::Fault(Fault::Truncated { size: 1 }).into(),
            TransportError::IncompleteMessage
        ));
    }

    #[test]
    fn only_faults_of_one_message_leave_the_transport_usable() {
        assert!(!TransportError::incomplete_message().is_fatal());
        assert!(!TransportError::timeout(1).is_fatal());
        assert!(TransportError::Closed.is_fatal());
        assert_eq!(TransportError::io(io::ErrorKind::Other).origin(), Origin::Io);
        assert_eq!(TransportError::message_too_large(2, 1).origin(), Origin::Peer);
        assert_eq!(TransportError::format("x").origin(), Origin::Caller);
    }
}
