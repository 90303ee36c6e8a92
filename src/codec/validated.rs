//! [`Validated`]: any codec whose messages have to be JSON.
//!
//! Uses `scan::json`.

use std::{io::IoSlice, ops::Range, time::Duration};

use super::{Codec, Decode, Encode, Excerpt, Kind, Reply, Step, Wrap};
use crate::{
    Frame,
    error::{Fault, Rejection, Violation},
    scan::json::{Invalid, Validator},
};

/// A codec whose received messages are proved to be JSON (RFC 8259) and UTF-8 while they come: one that is not is a
/// [`Fault::InvalidJson`] with the offset of the first bad byte, told of as soon as that byte is there, be the message as
/// large as it may; the rest of it is taken in and left out. What is sent is not looked at, nor are messages that say they
/// are binary.
///
/// Server-sent events and compressed messages are judged once they are whole; messages that a WebSocket delivers in
/// [parts](super::WebSocket::parts) cannot be judged, as a part is no JSON. For [`JsonValues`](super::JsonValues) use
/// [`JsonValues::validate`](super::JsonValues::validate), which does not hold what it leaves out.
///
/// ```
/// use framewire::{
///     codec::{Codec, Decode, Newline, Step, Validated},
///     error::{Fault, JsonReason},
/// };
///
/// let (mut decoder, _) = Validated::new(Newline::new()).split();
/// let step = decoder.decode(&mut br#"{"a": tru, "b": ["#.to_vec())?;
/// let fault = Fault::InvalidJson { at: 9, reason: JsonReason::Unexpected };
/// assert_eq!(step, Step::Fault { fault, consumed: 0 });
/// # Ok::<(), framewire::error::Violation>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Validated<C> {
    inner: C,
}

impl<C> Validated<C> {
    /// Puts validation on `codec`.
    #[must_use]
    pub fn new(codec: C) -> Self {
        Self { inner: codec }
    }
}

impl<C: Codec> Codec for Validated<C> {
    type Decoder = ValidatedDecoder<C::Decoder>;
    type Encoder = C::Encoder;

    fn split(self) -> (Self::Decoder, Self::Encoder) {
        let (decoder, encoder) = self.inner.split();
        (ValidatedDecoder::new(decoder), encoder)
    }
}

impl<C: Encode> Encode for Validated<C> {
    fn overhead(&self) -> usize {
        self.inner.overhead()
    }

    fn encode(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<usize, Rejection> {
        self.inner.encode(payload, dst)
    }

    fn room(&self, size: usize) -> usize {
        self.inner.room(size)
    }

    fn set_kind(&mut self, kind: Kind) {
        self.inner.set_kind(kind);
    }

    fn goodbye(&mut self) -> Option<Reply> {
        self.inner.goodbye()
    }

    fn takes_leave(&self) -> bool {
        self.inner.takes_leave()
    }

    fn wrap(&mut self, parts: &[IoSlice<'_>]) -> Result<Option<Wrap>, Rejection> {
        self.inner.wrap(parts)
    }
}

/// The receiving direction of [`Validated`].
#[derive(Debug, Clone)]
pub struct ValidatedDecoder<D> {
    inner: D,
    validator: Validator,
    /// Bytes of the unfinished message's payload that were looked at.
    checked: usize,
    /// The unfinished message is bad, and a fault has told of it.
    told: bool,
}

impl<D: Decode> ValidatedDecoder<D> {
    /// Puts validation on `decoder`.
    #[must_use]
    pub fn new(decoder: D) -> Self {
        Self { inner: decoder, validator: Validator::new(), checked: 0, told: false }
    }

    /// The decoder below.
    #[must_use]
    pub fn get_ref(&self) -> &D {
        &self.inner
    }

    /// The message is over. Whether a fault has told of it.
    #[inline]
    fn end(&mut self) -> bool {
        if self.checked > 0 {
            self.validator.reset();
            self.checked = 0;
        }
        std::mem::take(&mut self.told)
    }

    /// Whether `bytes` are the rest of a JSON text.
    fn judge(&mut self, bytes: &[u8]) -> Result<(), Invalid> {
        self.checked = usize::MAX;
        self.validator.feed(bytes)?;
        self.validator.finish()
    }

    fn look(&mut self, step: Step, src: &[u8]) -> Step {
        match step {
            Step::Frame { payload, consumed } => {
                let is_text = self.inner.kind() == Kind::Text;
                let Range { start, end } = payload.clone();
                let rest = src.get(start.saturating_add(self.checked)..end).unwrap_or_default();
                let judged = if is_text && !self.told { self.judge(rest) } else { Ok(()) };
                self.close(judged, consumed, Step::Frame { payload, consumed })
            }
            Step::Produced { consumed } => {
                let is_text = self.inner.kind() == Kind::Text;
                self.end();
                let judged = if is_text {
                    self.checked = usize::MAX;
                    self.validator.feed(self.inner.produced()).and_then(|()| self.validator.finish())
                } else {
                    Ok(())
                };
                self.close(judged, consumed, Step::Produced { consumed })
            }
            // Of a message that was told of already, nothing is told again.
            Step::Fault { consumed, .. } if self.end() => Step::Event { consumed },
            Step::Incomplete { consumed, .. } if !self.told && self.inner.kind() == Kind::Text => {
                let src = src.get(consumed..).unwrap_or_default();
                let Range { start, end } = self.inner.unfinished(src);
                let rest = src.get(start.saturating_add(self.checked)..end).unwrap_or_default();
                if rest.is_empty() {
                    return step;
                }
                self.checked += rest.len();
                match self.validator.feed(rest) {
                    Ok(()) => step,
                    Err(Invalid { at, reason }) => {
                        self.told = true;
                        Step::Fault { fault: Fault::InvalidJson { at, reason }, consumed }
                    }
                }
            }
            step => step,
        }
    }

    /// A message has ended.
    #[inline]
    fn close(&mut self, judged: Result<(), Invalid>, consumed: usize, step: Step) -> Step {
        match judged {
            _ if self.end() => Step::Event { consumed },
            Ok(()) => step,
            Err(Invalid { at, reason }) => Step::Fault { fault: Fault::InvalidJson { at, reason }, consumed },
        }
    }
}

impl<D: Decode> Decode for ValidatedDecoder<D> {
    fn decode(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        let step = self.inner.decode(src)?;
        Ok(self.look(step, src))
    }

    fn decode_eof(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        let step = self.inner.decode_eof(src)?;
        Ok(self.look(step, src))
    }

    fn produced(&mut self) -> &mut [u8] {
        self.inner.produced()
    }

    fn take_produced(&mut self) -> Frame {
        self.inner.take_produced()
    }

    fn poll_reply(&mut self) -> Option<Reply> {
        self.inner.poll_reply()
    }

    fn kind(&self) -> Kind {
        self.inner.kind()
    }

    fn is_mid_message(&self) -> bool {
        self.inner.is_mid_message()
    }

    fn unfinished(&self, src: &[u8]) -> Range<usize> {
        self.inner.unfinished(src)
    }

    fn excerpt(&self) -> Option<Excerpt<'_>> {
        self.inner.excerpt()
    }

    fn idle_interval(&self) -> Option<Duration> {
        self.inner.idle_interval()
    }

    fn handle_idle(&mut self) -> Result<(), Violation> {
        self.inner.handle_idle()
    }
}
