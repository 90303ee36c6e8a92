//! WebSocket (RFC 6455), both roles, after the opening handshake: messages in frames, as a state machine over bytes.
//!
//! Uses `scan`, `frame`, `error`, `limits`; nothing above.
//!
//! ```text
//!   0               1               2
//!   7 6 5 4 3 2 1 0 7 6 5 4 3 2 1 0
//!  ├─┬─┬─┬─┬───────┼─┬─────────────┼───────────┬──────────────────┬─────────┤
//!  │F│R│R│R│ opcode│M│ length, 7   │ length    │ mask key, 4      │ payload │
//!  │I│S│S│S│       │A│ 126: 2 more │ big-endian│ only from client │         │
//!  │N│V│V│V│       │S│ 127: 8 more │           │ to server        │         │
//!  │ │1│2│3│       │K│             │           │                  │         │
//!  └─┴─┴─┴─┴───────┴─┴─────────────┴───────────┴──────────────────┴─────────┘
//! ```
//!
//! - A whole message in one frame that is here is unmasked where it lies and lent: one look at the head, one pass over
//!   the payload. Everything else is in cold functions.
//! - A frame that comes in pieces is unmasked and checked as it comes; no byte is looked at twice. Fragments are joined
//!   where they lie: each payload moves down over the heads between, once.
//! - A ping is answered with one pong, the latest; a close is echoed; a breach of a rule is an
//!   [`Error::Violation`](crate::Error::Violation) that names its section, and the right Close frame goes out.
//! - Text is UTF-8, checked as it comes (§8.1). Whether a message was text tells [`Decode::kind`](super::Decode::kind).
//!
//! Masks come from a generator that the operating system's random numbers seed (§10.3).

mod close;
mod decoder;
#[cfg(feature = "deflate")]
mod deflate;
mod encoder;
pub mod handshake;
mod head;
mod key;

use std::time::Duration;

pub use close::CloseReason;
pub use decoder::WebSocketDecoder;
pub use encoder::WebSocketEncoder;

pub use super::Kind;
use super::{Codec, Encode};

/// Which end of the connection a codec is. Clients mask what they send, servers do not (RFC 6455 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Sent the opening handshake.
    Client,
    /// Answered it.
    Server,
}

/// WebSocket framing.
///
/// ```
/// use framewire::codec::{Decode, Encode, Step, WebSocket};
///
/// let mut server = WebSocket::server();
/// // RFC 6455 §5.7: a single-frame masked text message that contains "Hello".
/// let mut src = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
/// assert_eq!(server.decode(&mut src), Ok(Step::Frame { payload: 6..11, consumed: 11 }));
/// assert_eq!(&src[6..], b"Hello");
///
/// let mut dst = [0; 20];
/// let len = server.encode(b"Hello", &mut dst).unwrap();
/// assert_eq!(&dst[..len], b"\x81\x05Hello");
/// ```
#[derive(Debug, Clone)]
pub struct WebSocket {
    decoder: WebSocketDecoder,
    encoder: WebSocketEncoder,
}

super::delegate!(WebSocket);

impl WebSocket {
    /// A codec for `role`, with the limits of [`limits`](crate::limits).
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self { decoder: WebSocketDecoder::new(role), encoder: WebSocketEncoder::new(role) }
    }

    /// The server's end.
    #[must_use]
    pub fn server() -> Self {
        Self::new(Role::Server)
    }

    /// The client's end.
    #[must_use]
    pub fn client() -> Self {
        Self::new(Role::Client)
    }

    /// Sets the largest message, in bytes of payload, received and sent. Default: 16 MiB.
    #[must_use]
    pub fn max_size(mut self, bytes: usize) -> Self {
        self.decoder.set_max_size(bytes);
        self.encoder.set_max_size(bytes);
        self
    }

    /// Sets the largest message that is received, in bytes of payload.
    #[must_use]
    pub fn max_decode_size(mut self, bytes: usize) -> Self {
        self.decoder.set_max_size(bytes);
        self
    }

    /// Sets the largest message that is sent, in bytes of payload.
    #[must_use]
    pub fn max_encode_size(mut self, bytes: usize) -> Self {
        self.encoder.set_max_size(bytes);
        self
    }

    /// Sets the largest payload of a single frame that is received, in bytes. Default: no less than a message.
    #[must_use]
    pub fn max_frame_size(mut self, bytes: usize) -> Self {
        self.decoder.set_max_frame_size(bytes);
        self
    }

    /// Sets how many frames one message may come in. Default: [`MAX_FRAGMENTS`](crate::limits::MAX_FRAGMENTS).
    #[must_use]
    pub fn max_fragments(mut self, count: usize) -> Self {
        self.decoder.set_max_fragments(count);
        self
    }

    /// Sets how many control frames may come in a row. Default:
    /// [`MAX_CONTROL_FRAMES`](crate::limits::MAX_CONTROL_FRAMES).
    #[must_use]
    pub fn max_control_frames(mut self, count: usize) -> Self {
        self.decoder.set_max_control_frames(count);
        self
    }

    /// Sets the silence of the peer after which it is sent a ping; `None`: never. Default: 30 s. A peer that leaves two
    /// unanswered is given up with a Close frame.
    ///
    /// # Panics
    /// Not here; but with a time a link panics when it waits for a message on a tokio runtime whose timer is not enabled.
    #[must_use]
    pub fn keep_alive(mut self, after: Option<Duration>) -> Self {
        self.decoder.set_keep_alive(after);
        self
    }

    /// Delivers each message in parts, as they come, instead of whole: one that is larger than memory passes through.
    /// [`WebSocketDecoder::is_final`] tells the last part. The limit on messages then holds for no message, the one on
    /// frames still does.
    #[must_use]
    pub fn parts(mut self, parts: bool) -> Self {
        self.decoder.set_parts(parts);
        self
    }

    /// Refuses to send as text what is not UTF-8 ([`Rejection::InvalidUtf8`](crate::error::Rejection::InvalidUtf8)).
    /// Off by default: who sends JSON has made it.
    #[must_use]
    pub fn check_sent_text(mut self, check: bool) -> Self {
        self.encoder.set_check_text(check);
        self
    }

    /// Sets what the Close frame says when this end closes. Default: 1000, without a text.
    #[must_use]
    pub fn close_reason(mut self, reason: CloseReason) -> Self {
        self.encoder.set_close_reason(reason);
        self
    }

    /// Compresses messages, and takes compressed ones, as was agreed on in the opening handshake (RFC 7692).
    ///
    /// Nothing is allocated until the first such message. From then on a connection holds at most 80 KiB to inflate (of
    /// them 32 KiB of output) and 376 KiB to deflate, besides the message itself; a window of 9 bits makes that 252 KiB.
    /// Without context takeover the same is held, and each message begins anew. Messages that are sent in fragments,
    /// or for which a window of 8 bits was agreed on (zlib has none) go out uncompressed.
    ///
    /// A clone of a codec begins with empty windows: clone it before it is used.
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn deflate(mut self, params: handshake::DeflateParams) -> Self {
        self.decoder.set_deflate(params);
        self.encoder.set_deflate(params);
        self
    }

    /// Sets how hard it is tried to make messages small, from 1, the fastest, to 9. Default: 1. To be called after
    /// [`deflate`](Self::deflate).
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn deflate_level(mut self, level: u32) -> Self {
        self.encoder.set_deflate_level(level);
        self
    }

    /// Sets the size, in bytes, from which on messages are compressed. Default:
    /// [`DEFLATE_THRESHOLD`](crate::limits::DEFLATE_THRESHOLD). To be called after [`deflate`](Self::deflate).
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn deflate_threshold(mut self, bytes: usize) -> Self {
        self.encoder.set_deflate_threshold(bytes);
        self
    }

    /// Sets how many times its compressed size a received message may be, once it is larger than
    /// [`FREE_INFLATE_SIZE`](crate::limits::FREE_INFLATE_SIZE). Default:
    /// [`MAX_INFLATE_RATIO`](crate::limits::MAX_INFLATE_RATIO). Inflating stops there, with close code 1009, as it does
    /// at the limit on messages. It does not hold for messages in parts. To be called after [`deflate`](Self::deflate).
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn max_inflate_ratio(mut self, ratio: usize) -> Self {
        self.decoder.set_max_inflate_ratio(ratio);
        self
    }

    /// Sends messages as `kind` until told otherwise ([`Encode::set_kind`]). Default: text.
    #[must_use]
    pub fn send_as(mut self, kind: Kind) -> Self {
        self.encoder.set_kind(kind);
        self
    }
}

impl Codec for WebSocket {
    type Decoder = WebSocketDecoder;
    type Encoder = WebSocketEncoder;

    fn split(self) -> (WebSocketDecoder, WebSocketEncoder) {
        (self.decoder, self.encoder)
    }
}
