//! Codecs: state machines that turn bytes into frames and back, without I/O, without a clock, without a runtime.
//!
//! May use `scan`, `buffer`, `frame`, `error`, `limits`; nothing above.
//!
//! # The contract
//!
//! The caller owns the bytes. It keeps what it has read in one contiguous buffer and hands the unread part, `src`, to
//! [`Decode::decode`] each time more has come:
//!
//! ```text
//!          consumed before │ src: handed to decode                    │ room for the next read
//!  ────────────────────────┼──────────┬─────────────┬─────────┬───────┼────────────────────────
//!                          │ head     │ payload     │ tail    │ more  │
//!                          0          start         end       consumed
//! ```
//!
//! - The answer names the payload as a range of `src` and how many bytes are done with. The caller drops those bytes
//!   from the front (after it is done with the payload) and calls again until the answer is [`Step::Incomplete`].
//! - Between two calls `src` may only shrink at the front by `consumed` and grow at the back. The codec remembers, as
//!   an offset, how far it has looked, so nothing is scanned twice however the bytes are cut.
//! - A codec may rewrite the bytes of `src` that belong to the frame (unmasking, joining fragments); it never looks
//!   outside `src` and never keeps payload bytes of its own.
//! - State is integers and small fixed buffers. Nothing is allocated on a declared length.
//!
//! Verbs: `decode`, `encode`; `handle_*` brings an event in, `poll_*` takes something out (replies and deadlines of
//! codecs that have any).
//!
//! Each codec here also implements tokio-util's `Decoder` and `Encoder` (feature `tokio-util`).

use std::{io::IoSlice, ops::Range, time::Duration};

use crate::{
    Frame,
    error::{Fault, Rejection, Violation},
};

/// The limits on size that every codec has, as setters of both halves.
macro_rules! limited {
    ($codec:ty) => {
        impl $codec {
            /// Sets the largest payload, in bytes, received and sent. Default:
            /// [`MAX_MESSAGE_SIZE`]($crate::limits::MAX_MESSAGE_SIZE).
            #[must_use]
            pub fn max_size(self, bytes: usize) -> Self {
                self.max_decode_size(bytes).max_encode_size(bytes)
            }

            /// Sets the largest payload that is received, in bytes.
            #[must_use]
            pub fn max_decode_size(mut self, bytes: usize) -> Self {
                self.decoder.max_size = bytes;
                self
            }

            /// Sets the largest payload that is sent, in bytes.
            #[must_use]
            pub fn max_encode_size(mut self, bytes: usize) -> Self {
                self.encoder.max_size = bytes;
                self
            }
        }
    };
}
use limited;

/// Makes a codec a decoder and an encoder itself, by handing on to its two halves.
macro_rules! delegate {
    ($codec:ty) => {
        impl $crate::codec::Decode for $codec {
            #[inline]
            fn decode(&mut self, src: &mut [u8]) -> Result<$crate::codec::Step, $crate::error::Violation> {
                self.decoder.decode(src)
            }

            fn decode_eof(
                &mut self,
                src: &mut [u8],
            ) -> Result<$crate::codec::Step, $crate::error::Violation> {
                self.decoder.decode_eof(src)
            }

            fn produced(&mut self) -> &mut [u8] {
                self.decoder.produced()
            }

            fn take_produced(&mut self) -> $crate::Frame {
                self.decoder.take_produced()
            }

            fn poll_reply(&mut self) -> Option<$crate::codec::Reply> {
                self.decoder.poll_reply()
            }

            fn kind(&self) -> $crate::codec::Kind {
                $crate::codec::Decode::kind(&self.decoder)
            }

            fn is_mid_message(&self) -> bool {
                self.decoder.is_mid_message()
            }

            fn unfinished(&self, src: &[u8]) -> std::ops::Range<usize> {
                self.decoder.unfinished(src)
            }

            fn excerpt(&self) -> Option<$crate::codec::Excerpt<'_>> {
                self.decoder.excerpt()
            }

            fn idle_interval(&self) -> Option<std::time::Duration> {
                self.decoder.idle_interval()
            }

            fn handle_idle(&mut self) -> Result<(), $crate::error::Violation> {
                self.decoder.handle_idle()
            }
        }

        impl $crate::codec::Encode for $codec {
            fn overhead(&self) -> usize {
                self.encoder.overhead()
            }

            #[inline]
            fn encode(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<usize, $crate::error::Rejection> {
                self.encoder.encode(payload, dst)
            }

            #[inline]
            fn room(&self, size: usize) -> usize {
                self.encoder.room(size)
            }

            fn set_kind(&mut self, kind: $crate::codec::Kind) {
                $crate::codec::Encode::set_kind(&mut self.encoder, kind);
            }

            fn goodbye(&mut self) -> Option<$crate::codec::Reply> {
                self.encoder.goodbye()
            }

            fn takes_leave(&self) -> bool {
                self.encoder.takes_leave()
            }

            fn wrap(
                &mut self,
                parts: &[std::io::IoSlice<'_>],
            ) -> Result<Option<$crate::codec::Wrap>, $crate::error::Rejection> {
                self.encoder.wrap(parts)
            }
        }
    };
}
use delegate;

mod content_length;
mod excerpt;
#[cfg(feature = "json")]
mod json;
mod length_prefix;
mod newline;
mod sse;
#[cfg(feature = "tokio-util")]
mod tokio_util;
#[cfg(feature = "json")]
mod validated;
#[cfg(feature = "websocket")]
pub mod websocket;
mod whole;

pub use content_length::{ContentLength, ContentLengthDecoder, ContentLengthEncoder};
pub use excerpt::Excerpt;
#[cfg(feature = "json")]
pub use json::{JsonValues, JsonValuesDecoder, JsonValuesEncoder};
pub use length_prefix::{Endian, LengthPrefix, LengthPrefixDecoder, LengthPrefixEncoder};
pub use newline::{Embedded, Newline, NewlineDecoder, NewlineEncoder, Unterminated};
pub use sse::{Event, Sse, SseDecoder, SseEncoder};
#[cfg(feature = "json")]
pub use validated::{Validated, ValidatedDecoder};
#[cfg(feature = "websocket")]
pub use websocket::{WebSocket, WebSocketDecoder, WebSocketEncoder};
pub use whole::{Whole, WholeDecoder, WholeEncoder};

/// One answer of a decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A frame is complete: its payload is `src[payload]`; `src[..consumed]` is done with.
    Frame {
        /// Where the payload lies in `src`.
        payload: Range<usize>,
        /// Bytes of `src`, from its start, that belong to this frame or stood before it. At least `payload.end`.
        consumed: usize,
    },
    /// No complete frame is there, not even behind what is done with. `src[..consumed]` is done with; the rest waits
    /// for more bytes.
    Incomplete {
        /// Bytes of `src`, from its start, that are not needed any more.
        consumed: usize,
        /// How many bytes the unfinished frame needs in all, counted from the first byte that is still needed;
        /// 0 when that is not known. A hint for sizing reads, never a reason to allocate before bytes have come.
        needed: usize,
    },
    /// One message was bad and is left out; `src[..consumed]` is done with and the stream goes on.
    Fault {
        /// What was wrong.
        fault: Fault,
        /// Bytes of `src`, from its start, that are done with.
        consumed: usize,
    },
    /// A frame is complete, and its payload lies with the decoder, because it had to be inflated:
    /// [`Decode::produced`] lends it until the next call.
    Produced {
        /// Bytes of `src`, from its start, that are done with.
        consumed: usize,
    },
    /// Something that is no message was taken in; [`Decode::poll_reply`] may have an answer to it. The next call goes
    /// on behind it.
    Event {
        /// Bytes of `src`, from its start, that are done with.
        consumed: usize,
    },
    /// The peer has ended the stream by the framing's own means; whatever follows is not looked at.
    /// [`Decode::poll_reply`] may have a last answer.
    End {
        /// Bytes of `src`, from its start, that are done with.
        consumed: usize,
    },
}

impl Step {
    /// The same answer about bytes that stand `by` further back, after others that are done with.
    fn behind(self, by: usize) -> Self {
        match self {
            Self::Frame { payload, consumed } => {
                Self::Frame { payload: payload.start + by..payload.end + by, consumed: consumed + by }
            }
            Self::Incomplete { consumed, needed } => Self::Incomplete { consumed: consumed + by, needed },
            Self::Fault { fault, consumed } => Self::Fault { fault, consumed: consumed + by },
            Self::Produced { consumed } => Self::Produced { consumed: consumed + by },
            Self::Event { consumed } => Self::Event { consumed: consumed + by },
            Self::End { consumed } => Self::End { consumed: consumed + by },
        }
    }
}

/// What a codec has to say to the peer by itself: a pong, a ping, a close. Complete bytes of the wire.
///
/// A link keeps one of them until it is written: a later one takes the place of one that has not left, so a peer that
/// asks without reading costs no memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    bytes: [u8; Self::MAX],
    len: u8,
    last: bool,
}

impl Reply {
    /// The most bytes of a reply: a WebSocket control frame with its mask.
    pub const MAX: usize = 131;

    /// A reply of `bytes` (at most [`MAX`](Self::MAX); what is beyond is cut). After one that is the `last`, nothing
    /// more is written.
    #[must_use]
    pub fn new(bytes: &[u8], last: bool) -> Self {
        debug_assert!(bytes.len() <= Self::MAX);
        let mut to = [0; Self::MAX];
        let mut len = 0;
        for (to, from) in to.iter_mut().zip(bytes) {
            *to = *from;
            len += 1;
        }
        Self { bytes: to, len, last }
    }

    /// The bytes to write.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Whether nothing may be written after it.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.last
    }
}

/// What a message says that its payload is, where the framing can say so (WebSocket, RFC 6455 §5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Kind {
    /// UTF-8.
    #[default]
    Text,
    /// Any bytes.
    Binary,
}

/// Bytes into frames.
pub trait Decode {
    /// Looks for the next frame in `src`, the unread bytes. See the [module](self) for the contract.
    ///
    /// # Errors
    /// A [`Violation`] when boundaries are lost for good. Later calls return it again.
    fn decode(&mut self, src: &mut [u8]) -> Result<Step, Violation>;

    /// The stream has ended and `src` is all that is left: like [`decode`](Self::decode), to be called until the answer
    /// is [`Step::Incomplete`], which then means: nothing is left. A message cut off by the end is delivered or is a
    /// fault, by the codec's policy; it is never dropped in silence.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    fn decode_eof(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        match self.decode(src)? {
            Step::Incomplete { consumed, .. } if src.len() > consumed => Ok(Step::Fault {
                fault: Fault::Truncated { size: src.len() - consumed },
                consumed: src.len(),
            }),
            step => Ok(step),
        }
    }

    /// The payload of the frame that the last call answered with [`Step::Produced`]; empty otherwise.
    fn produced(&mut self) -> &mut [u8] {
        &mut []
    }

    /// As [`produced`](Self::produced), owned; the decoder keeps nothing of it.
    fn take_produced(&mut self) -> Frame {
        Frame::copy_from_slice(self.produced())
    }

    /// Takes out what has to be said to the peer: asked for after [`Step::Event`], [`Step::End`], a violation and
    /// [`handle_idle`](Self::handle_idle).
    fn poll_reply(&mut self) -> Option<Reply> {
        None
    }

    /// What the last message said that its payload is.
    #[inline]
    fn kind(&self) -> Kind {
        Kind::Text
    }

    /// Whether part of a message has been taken in of which nothing is left in `src` (it is being skipped, or the
    /// decoder has it): the message is unfinished though no byte of it waits.
    fn is_mid_message(&self) -> bool {
        false
    }

    /// Where in `src` the bytes lie that have come of an unfinished message's payload: asked for after
    /// [`Step::Incomplete`], with what is left of `src` once its `consumed` is gone. The bytes of one message are the same
    /// each time, and more. Empty where there are none, or none that stay as they are.
    fn unfinished(&self, src: &[u8]) -> Range<usize> {
        let _nothing_by_default = src;
        0..0
    }

    /// What the decoder has kept of the message that it told of last with [`Fault::TooLarge`]. `None` where it keeps
    /// nothing.
    fn excerpt(&self) -> Option<Excerpt<'_>> {
        None
    }

    /// After how long a silence of the peer [`handle_idle`](Self::handle_idle) wants to be called, again and again
    /// while it lasts. `None`: never. Asked once, when the link is made.
    fn idle_interval(&self) -> Option<Duration> {
        None
    }

    /// The peer has been silent for another [`idle_interval`](Self::idle_interval).
    ///
    /// # Errors
    /// A [`Violation`] when the peer is given up.
    fn handle_idle(&mut self) -> Result<(), Violation> {
        Ok(())
    }
}

/// The most bytes a codec writes before a payload that goes out untouched.
pub const MAX_HEAD: usize = 46;

/// What stands around a payload that goes out untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrap {
    head: [u8; MAX_HEAD],
    head_len: u8,
    mask: Option<[u8; 4]>,
    tail: &'static [u8],
}

impl Wrap {
    /// A wrap with `head` (at most [`MAX_HEAD`] bytes; what is beyond is cut) before and `tail` after the payload.
    #[must_use]
    #[inline]
    pub fn new(head: &[u8], tail: &'static [u8]) -> Self {
        debug_assert!(head.len() <= MAX_HEAD);
        let len = head.len().min(MAX_HEAD);
        let mut bytes = [0; MAX_HEAD];
        if let (Some(to), Some(from)) = (bytes.get_mut(..len), head.get(..len)) {
            to.copy_from_slice(from);
        }
        Self { head: bytes, head_len: len as u8, mask: None, tail }
    }

    /// A wrap whose head is what `write` puts to the start of its argument, as many bytes as it returns; nothing after the
    /// payload, which goes out under `mask`.
    #[cfg(feature = "websocket")]
    #[inline]
    pub(crate) fn with_head(mask: Option<[u8; 4]>, write: impl FnOnce(&mut [u8; MAX_HEAD]) -> usize) -> Self {
        let mut head = [0; MAX_HEAD];
        let head_len = write(&mut head) as u8;
        Self { head, head_len, mask, tail: &[] }
    }

    /// As it is, but that the payload goes out under a mask: each of its bytes xor those of `key`, again and again
    /// (RFC 6455 §5.3).
    #[must_use]
    pub fn masked(self, key: [u8; 4]) -> Self {
        Self { mask: Some(key), ..self }
    }

    /// The mask that is laid over the payload, if any.
    #[must_use]
    pub fn mask(&self) -> Option<[u8; 4]> {
        self.mask
    }

    /// The bytes before the payload.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        self.head.get(..usize::from(self.head_len)).unwrap_or_default()
    }

    /// The bytes after the payload.
    #[must_use]
    pub fn tail(&self) -> &'static [u8] {
        self.tail
    }
}

/// Writes `head` and `payload` to the start of `dst`; returns their length together.
#[inline]
fn join(head: &[u8], payload: &[u8], dst: &mut [u8]) -> usize {
    let end = head.len() + payload.len();
    debug_assert!(end <= dst.len());
    if let Some((to_head, rest)) = dst.split_at_mut_checked(head.len())
        && let Some(to_payload) = rest.get_mut(..payload.len())
    {
        to_head.copy_from_slice(head);
        to_payload.copy_from_slice(payload);
    }
    end
}

/// Frames into bytes.
pub trait Encode {
    /// The most bytes this codec adds to any payload.
    fn overhead(&self) -> usize;

    /// Writes one frame with `payload` to the start of `dst` and returns its length. `dst` has at least
    /// [`room`](Self::room)`(payload.len())` bytes; what it holds beyond the frame afterwards is of no meaning.
    ///
    /// # Errors
    /// A [`Rejection`] when the payload cannot be sent; nothing of `dst` is then of meaning and the encoder's state is
    /// as before.
    fn encode(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<usize, Rejection>;

    /// The most bytes a payload of `size` bytes takes as a frame: what `dst` of [`encode`](Self::encode) has to have.
    #[inline]
    fn room(&self, size: usize) -> usize {
        size.saturating_add(self.overhead())
    }

    /// Sends messages as `kind` from the next one on, where the framing can say so.
    #[inline]
    fn set_kind(&mut self, kind: Kind) {
        let _no_such_thing_by_default = kind;
    }

    /// The last thing to say before the writer is shut down. After it, the peer's own is waited for.
    fn goodbye(&mut self) -> Option<Reply> {
        None
    }

    /// Whether there is a [`goodbye`](Self::goodbye), upon which the peer ends its direction too.
    fn takes_leave(&self) -> bool {
        false
    }

    /// What stands around a payload, given in `parts`, that is then written untouched; `None` when this codec has to
    /// change the payload's bytes, so that only [`encode`](Self::encode) will do.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    fn wrap(&mut self, parts: &[IoSlice<'_>]) -> Result<Option<Wrap>, Rejection>;
}

/// Both directions of a framing, which can be taken apart for the two halves of a link.
pub trait Codec {
    /// The receiving direction.
    type Decoder: Decode;
    /// The sending direction.
    type Encoder: Encode;

    /// Takes the two directions apart.
    fn split(self) -> (Self::Decoder, Self::Encoder);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything a decoder makes of `bytes` when they come in pieces of `piece` bytes.
    pub(super) fn run(decoder: &mut impl Decode, bytes: &[u8], piece: usize) -> Vec<Result<Vec<u8>, Fault>> {
        let mut results = Vec::new();
        let mut buffer: Vec<u8> = Vec::new();
        let mut pieces = bytes.chunks(piece.min(bytes.len()).max(1));
        let mut ended = false;
        loop {
            let step = if ended { decoder.decode_eof(&mut buffer) } else { decoder.decode(&mut buffer) };
            let consumed = match step.expect("no violation") {
                Step::Frame { payload, consumed } => {
                    results.push(Ok(buffer[payload].to_vec()));
                    consumed
                }
                Step::Fault { fault, consumed } => {
                    results.push(Err(fault));
                    consumed
                }
                Step::Produced { consumed } => {
                    results.push(Ok(decoder.produced().to_vec()));
                    consumed
                }
                Step::Event { consumed } => consumed,
                Step::End { .. } => return results,
                Step::Incomplete { consumed, .. } if consumed > 0 => consumed,
                Step::Incomplete { .. } if ended => return results,
                Step::Incomplete { .. } => {
                    match pieces.next() {
                        Some(piece) => buffer.extend_from_slice(piece),
                        None => ended = true,
                    }
                    0
                }
            };
            buffer.drain(..consumed);
        }
    }
}
