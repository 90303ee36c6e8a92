//! Errors: who is at fault (caller, peer, I/O), how big it was, and whether the stream can go on.
//!
//! Uses std only. Everything above may use it.

use std::{io, time::Duration};

/// Who caused an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The program that uses this crate: it can correct its call.
    Caller,
    /// The other end of the connection: it sent what it must not.
    Peer,
    /// The operating system or the connection.
    Io,
}

/// Something wrong with one message, after which the stream goes on with the next.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The message was larger than the decode limit. It was dropped without being held in memory.
    #[error("message of {size} bytes exceeds the limit of {limit} bytes and was dropped")]
    TooLarge {
        /// Payload size in bytes: as declared, or as counted while skipping.
        size: u64,
        /// The limit in bytes.
        limit: usize,
    },
    /// The payload is not UTF-8 and the codec was told to check. The message was dropped.
    #[error("message of {size} bytes is not UTF-8 from byte {valid_up_to} on and was dropped")]
    InvalidUtf8 {
        /// Payload size in bytes.
        size: usize,
        /// Bytes before the first invalid one.
        valid_up_to: usize,
    },
    /// The stream ended inside a message. What had come of it was dropped.
    #[error("the stream ended inside a message, {size} bytes were dropped")]
    Truncated {
        /// Bytes of the unfinished message, framing included.
        size: usize,
    },
    /// Bytes that belong to no message were skipped.
    #[error("{size} bytes that belong to no message were skipped")]
    Noise {
        /// Bytes skipped.
        size: usize,
    },
    /// The message is not JSON, and the framing or the caller asked that it be. It was dropped.
    #[error("message is not JSON at byte {at}: {reason}")]
    InvalidJson {
        /// Offset in the message, in bytes.
        at: u64,
        /// What is wrong there.
        reason: JsonReason,
    },
}

/// Why bytes are not JSON (RFC 8259).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum JsonReason {
    /// A byte that cannot stand there: a comma too many, a bracket of the other kind, a word that is none.
    #[error("unexpected byte")]
    Unexpected,
    /// An unescaped control character in a string.
    #[error("control character in a string")]
    Control,
    /// A backslash with something behind it that it does not escape.
    #[error("bad escape")]
    Escape,
    /// Not UTF-8 from there on.
    #[error("not UTF-8")]
    Utf8,
    /// A container too many is open ([`MAX_JSON_DEPTH`](crate::limits::MAX_JSON_DEPTH)).
    #[error("nested too deeply")]
    TooDeep,
    /// The end came too early.
    #[error("ends too early")]
    Incomplete,
    /// A name that stands twice in an object.
    #[error("a name stands twice")]
    Duplicate,
    /// JSON, but no message of JSON-RPC 2.0.
    #[error("not JSON-RPC 2.0")]
    NotJsonRpc,
}

/// A breach of the framing after which message boundaries are lost: the connection has to end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A header line that the framing does not allow.
    #[error("bad header: {reason}")]
    BadHeader {
        /// What is wrong, a fixed text without peer bytes.
        reason: &'static str,
    },
    /// The head of a message is larger than its limit.
    #[error("message head exceeds the limit of {limit} bytes")]
    HeadTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// A declared length that no message can have (overflow, negative after adjustment).
    #[error("impossible message length: {reason}")]
    BadLength {
        /// What is wrong.
        reason: &'static str,
    },
    /// A rule of the protocol was broken.
    #[error("{rule} ({section}), close code {code}")]
    Protocol {
        /// What was wrong, a fixed text without peer bytes.
        rule: &'static str,
        /// Where the rule stands, such as `RFC 6455 §5.2`.
        section: &'static str,
        /// The close code that goes out to the peer (RFC 6455 §7.4.1); 1006 when nothing does.
        code: u16,
    },
    /// More faults in a row than the link accepts.
    #[error("{count} faulty messages in a row")]
    TooManyFaults {
        /// How many.
        count: u32,
    },
}

/// A message that cannot be sent as it is. Nothing of it was written; the stream is untouched.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The payload is larger than the encode limit.
    #[error("message of {size} bytes exceeds the send limit of {limit} bytes")]
    TooLarge {
        /// Payload size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The payload holds the delimiter, so the receiver would see two messages.
    #[error("message holds a newline at byte {at}")]
    EmbeddedDelimiter {
        /// Offset of the delimiter in the payload.
        at: usize,
    },
    /// The first payload begins with a byte order mark, which the receiver would drop. JSON has none (RFC 8259 §8.1).
    #[error("the first message begins with a byte order mark, which the receiver would drop")]
    ByteOrderMark,
    /// The payload is to go out as text and is not UTF-8.
    #[error("message is not UTF-8 from byte {valid_up_to} on and cannot be sent as text")]
    InvalidUtf8 {
        /// Bytes before the first invalid one.
        valid_up_to: usize,
    },
    /// The framing cannot carry an empty payload (a blank line is no message).
    #[error("this framing cannot carry an empty message")]
    Empty,
    /// The framing carries one JSON value a message, and the payload is none, is not whole or is more than one.
    #[error("message is not exactly one JSON value, from byte {at} on")]
    NotOneValue {
        /// Offset in the payload of the first byte that is no part of one value; its length when it is not whole.
        at: usize,
    },
    /// The length does not fit into the length field.
    #[error("message of {size} bytes does not fit into a length field of {width} bytes")]
    LengthField {
        /// Payload size in bytes.
        size: usize,
        /// Width of the field in bytes.
        width: usize,
    },
}

/// How a stream came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum End {
    /// This side closed it.
    #[error("closed by this side")]
    Closed,
    /// The peer ended it between two messages.
    #[error("ended by the peer")]
    Eof,
    /// The connection was cut: reset, broken pipe, aborted.
    #[error("cut off by the peer or the system")]
    Reset,
}

/// Which deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Deadline {
    /// Nothing was received for too long.
    Idle,
    /// One message took too long from its first byte to its last (slow-loris).
    Frame,
    /// Queued bytes did not leave in time.
    Write,
    /// The close did not finish in time.
    Close,
    /// The connect did not finish in time.
    Connect,
    /// No buffer came free in time.
    Buffer,
}

/// Any error of a [`Link`](crate::Link) or of what stands below it.
// A tag of a whole word: with a tag of one byte, a `Result` of this is moved in pieces that straddle what was just
// written, and every message pays for a failed store-forwarding (measured: 5 ns of 17).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[repr(usize)]
pub enum Error {
    /// The stream is over.
    #[error("connection {0}")]
    Ended(End),
    /// The peer sent one bad message; the stream goes on.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The peer broke the framing; the stream cannot go on.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The caller's message cannot be sent; the stream is untouched.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// A deadline passed.
    #[error("{deadline:?} deadline of {after:?} passed")]
    TimedOut {
        /// Which.
        deadline: Deadline,
        /// How long it was.
        after: Duration,
    },
    /// The operating system said no.
    #[error(transparent)]
    Io(io::Error),
}

impl Error {
    /// Whether the connection is of no further use. After an error that is not fatal the next call goes on with the
    /// next message, nothing else lost.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Fault(_) | Self::Rejected(_) => false,
            Self::TimedOut { deadline, .. } => !matches!(deadline, Deadline::Buffer),
            Self::Ended(_) | Self::Violation(_) | Self::Io(_) => true,
        }
    }

    /// Who is at fault.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self {
            Self::Ended(End::Closed) | Self::Rejected(_) => Origin::Caller,
            Self::Ended(End::Eof) | Self::Fault(_) | Self::Violation(_) => Origin::Peer,
            Self::TimedOut { deadline: Deadline::Buffer, .. } => Origin::Caller,
            Self::TimedOut { deadline: Deadline::Idle | Deadline::Frame | Deadline::Write, .. } => {
                Origin::Peer
            }
            Self::Ended(End::Reset) | Self::TimedOut { .. } | Self::Io(_) => Origin::Io,
        }
    }

    /// Whether this is the clean end of the stream: the peer ended it between two messages, or this side closed it.
    #[must_use]
    pub fn is_clean_end(&self) -> bool {
        matches!(self, Self::Ended(End::Closed | End::Eof))
    }
}

impl From<io::Error> for Error {
    /// A cut connection becomes [`End::Reset`], anything else stays an I/O error.
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, WriteZero};
        match error.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | WriteZero => {
                Self::Ended(End::Reset)
            }
            _ => Self::Io(error),
        }
    }
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
