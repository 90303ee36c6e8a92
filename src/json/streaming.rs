//! Messages out of a stream of JSON, one by one, each looked at as JSON-RPC 2.0: [`StreamingParser`] from bytes and
//! readers, `StreamingTransport` (feature `link`) on any transport.
//!
//! Uses `codec` for boundaries and, with the feature `link`, `transport`.

mod message;
mod parser;
mod stats;
#[cfg(feature = "link")]
mod transport;

use std::io;

pub use message::ParsedMessage;
pub use parser::StreamingParser;
pub use stats::{BufferStats, StreamingStats};
#[cfg(feature = "link")]
pub use transport::StreamingTransport;

use super::{Envelope, EnvelopeError, Kind, keys::Keys};
use crate::{
    Frame,
    error::{Fault, JsonReason},
    limits::MAX_MESSAGE_SIZE,
    scan::json::Invalid,
};

/// How a [`StreamingParser`] or a `StreamingTransport` reads.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StreamingConfig {
    /// Largest message, in bytes. Default: [`MAX_MESSAGE_SIZE`]. A larger one is skipped to its end without being held.
    pub max_message_size: usize,
    /// Room that a read is given at least, in bytes. Default: 8 KiB.
    pub read_buffer_size: usize,
    /// Whether a message has to be JSON to its last byte, have the shape of JSON-RPC 2.0 (`"jsonrpc":"2.0"`, never result
    /// with error, an id that is a string, an integer or null, params that are an object or an array, an error that is an
    /// object, no empty batch) and no name twice in any object. Default: true. Without, only structure is looked at, and
    /// what is no JSON-RPC comes out as of type "other".
    pub strict_validation: bool,
}

impl Default for StreamingConfig {
    fn default() -> Self {
        Self { max_message_size: MAX_MESSAGE_SIZE, read_buffer_size: 8 * 1024, strict_validation: true }
    }
}

impl StreamingConfig {
    /// Sets the largest message, in bytes.
    #[must_use]
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }

    /// Sets the room of a read, in bytes.
    #[must_use]
    pub fn read_buffer_size(mut self, bytes: usize) -> Self {
        self.read_buffer_size = bytes;
        self
    }

    /// Sets whether messages are validated.
    #[must_use]
    pub fn strict_validation(mut self, strict: bool) -> Self {
        self.strict_validation = strict;
        self
    }
}

/// Why there is no message. After any but [`IoError`](Self::IoError) the next call goes on behind the bad one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamingError {
    /// It is not JSON.
    #[error(transparent)]
    JsonError(#[from] Invalid),
    /// It is JSON but no message of JSON-RPC 2.0.
    #[error("not a message of JSON-RPC 2.0")]
    NotJsonRpc,
    /// A name stands twice in an object.
    #[error("the name at byte {at} stands twice")]
    DuplicateKey {
        /// Offset in the message, in bytes, of the second one or its value.
        at: usize,
    },
    /// It is larger than the limit. It was skipped to its end.
    #[error("message of {size} bytes exceeds the limit of {max_size} bytes")]
    BufferOverflow {
        /// The limit in bytes.
        max_size: usize,
        /// Bytes of the message.
        size: u64,
    },
    /// The bytes ended inside a message.
    #[error("the bytes ended inside a message, {size} bytes of it had come")]
    IncompleteMessage {
        /// Bytes of it that had come.
        size: usize,
    },
    /// Bytes that belong to no message were skipped.
    #[error("{size} bytes that belong to no message were skipped")]
    Noise {
        /// How many.
        size: usize,
    },
    /// The reader failed, or ended between two messages ([`UnexpectedEof`](io::ErrorKind::UnexpectedEof)).
    #[error(transparent)]
    IoError(#[from] io::Error),
}

impl StreamingError {
    /// What it is as a fault of one message.
    #[cfg(feature = "link")]
    fn fault(self, size: usize) -> Fault {
        match self {
            Self::JsonError(Invalid { at, reason }) => Fault::InvalidJson { at, reason },
            Self::DuplicateKey { at } => Fault::InvalidJson { at: at as u64, reason: JsonReason::Duplicate },
            Self::BufferOverflow { max_size, size } => Fault::TooLarge { size, limit: max_size },
            Self::IncompleteMessage { size } => Fault::Truncated { size },
            Self::NotJsonRpc | Self::IoError(_) => {
                Fault::InvalidJson { at: 0, reason: JsonReason::NotJsonRpc }
            }
            Self::Noise { .. } => Fault::Noise { size },
        }
    }
}

impl From<EnvelopeError> for StreamingError {
    fn from(error: EnvelopeError) -> Self {
        match error {
            EnvelopeError::Invalid(invalid) => Self::JsonError(invalid),
            EnvelopeError::DuplicateKey { at } => Self::DuplicateKey { at },
        }
    }
}

impl From<Fault> for StreamingError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TooLarge { size, limit } => Self::BufferOverflow { max_size: limit, size },
            Fault::InvalidUtf8 { valid_up_to, .. } => {
                Self::JsonError(Invalid { at: valid_up_to as u64, reason: JsonReason::Utf8 })
            }
            Fault::Truncated { size } => Self::IncompleteMessage { size },
            Fault::Noise { size } => Self::Noise { size },
            Fault::InvalidJson { at, reason } => Self::JsonError(Invalid { at, reason }),
        }
    }
}

/// Whether it is a single message whose parts are what JSON-RPC 2.0 has them be (§4.2, §5.1).
fn is_message(envelope: &Envelope<'_>) -> bool {
    match envelope.kind() {
        Kind::Request | Kind::Notification => {
            envelope.params().is_none_or(|params| matches!(params, [b'{' | b'[', ..]))
        }
        Kind::Response => true,
        Kind::Error => matches!(envelope.error(), Some([b'{', ..])),
        Kind::Batch | Kind::Other => false,
    }
}

/// Looks at whole messages.
#[derive(Debug)]
struct Check {
    strict: bool,
    max_size: usize,
    keys: Keys,
}

impl Check {
    fn new(config: &StreamingConfig) -> Self {
        let StreamingConfig { max_message_size, strict_validation, .. } = *config;
        Self { strict: strict_validation, max_size: max_message_size, keys: Keys::default() }
    }

    /// The envelope of a message that is good.
    fn envelope<'a>(&mut self, message: &'a [u8]) -> Result<Envelope<'a>, StreamingError> {
        let size = message.len();
        if size > self.max_size {
            return Err(StreamingError::BufferOverflow { max_size: self.max_size, size: size as u64 });
        }
        if !self.strict {
            return Ok(Envelope::peek(message)?);
        }
        let envelope = Envelope::strict(message)?;
        if let Some(at) = self.keys.duplicate(message) {
            return Err(StreamingError::DuplicateKey { at });
        }
        let is_shaped = match envelope.kind() {
            Kind::Batch => {
                let mut elements = envelope.elements().peekable();
                elements.peek().is_some()
                    && elements.all(|element| element.is_ok_and(|element| is_message(&element)))
            }
            _ => is_message(&envelope),
        };
        if is_shaped { Ok(envelope) } else { Err(StreamingError::NotJsonRpc) }
    }

    fn message(&mut self, frame: Frame) -> Result<ParsedMessage, StreamingError> {
        if frame.iter().all(u8::is_ascii_whitespace) {
            return Err(StreamingError::IncompleteMessage { size: frame.len() });
        }
        let seen = message::Seen::new(&self.envelope(&frame)?);
        Ok(ParsedMessage::new(frame, seen))
    }
}
