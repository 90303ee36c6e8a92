//! JSON values one after the other, with or without something between: message boundaries by structure alone.
//!
//! ```text
//!  {"id":1} {"id":2}{"id":3} LF  [ ... ]  42 LF  "text"  RS {"id":4} LF
//!  ───┬────  ───┬──────┬───       ──┬──   ─┬     ───┬──      ────┬───     one frame each
//! ```
//!
//! - A frame is one object, array or string, which ends itself, or a number, `true`, `false` or `null`, which ends with
//!   a blank, an RS or the stream.
//! - Between values stand blanks (space, tab, LF, CR) and RS (0x1E, JSON text sequences, RFC 7464 §2.2) in any number,
//!   or nothing. A UTF-8 byte order mark at the very start of the stream is dropped.
//! - Brackets have to match, and no more than [`MAX_JSON_DEPTH`](crate::limits::MAX_JSON_DEPTH) containers may be open at
//!   a time. What else stands in a value is not looked at, unless
//!   [`validate`](JsonValues::validate) asks for it.
//! - A value over the limit is skipped as it comes, in bounded memory, and told of once, with its size, at its end.
//! - An object, array or string behind an RS that is not at its end before the next RS was cut short (RFC 7464 §2.3): a
//!   [`Fault::Truncated`] with its size, and a new value begins. In JSON no RS can stand, not even within a string.
//!
//! # Resynchronisation
//!
//! Anything else is noise: a fault, once, with its size. Noise ends behind an RS, or before the next `{` or `[` that
//! cannot be nested in something broken: one before which, blanks left out, stands none of `:` `,` `{` `[`. So a stray
//! bracket or a line of a log loses nothing of what follows, and no part of a broken message is taken for a message.
//! After a value with brackets that do not match the fault comes at once, and what follows of it is left out by the same
//! rule without another.

mod encoder;

use std::ops::Range;

pub use self::encoder::JsonValuesEncoder;
use super::{Codec, Decode, Step};
use crate::{
    error::{Fault, JsonReason, Violation},
    limits::MAX_MESSAGE_SIZE,
    scan::json::{Container, Scalar, Structure, Validator, string_end},
};

/// RFC 7464's record separator.
const RS: u8 = 0x1e;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// JSON values one after the other, both directions, with limits of 16 MiB.
#[derive(Debug, Clone, Default)]
pub struct JsonValues {
    decoder: JsonValuesDecoder,
    encoder: JsonValuesEncoder,
}

impl JsonValues {
    /// JSON values with the default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a received value has to be JSON and UTF-8 throughout. Off by default. A value that is not is a
    /// [`Fault::InvalidJson`] as soon as the byte has come that makes it so, however much of it is still to come; the
    /// rest of it is skipped.
    #[must_use]
    pub fn validate(mut self, validate: bool) -> Self {
        self.decoder.validator = validate.then(Box::default);
        self
    }

    /// Whether an RS is sent before each value, as JSON text sequences have it (RFC 7464 §2.2). Off by default. Received
    /// are both.
    #[must_use]
    pub fn record_separators(mut self, send: bool) -> Self {
        self.encoder.record_separators = send;
        self
    }
}

impl Codec for JsonValues {
    type Decoder = JsonValuesDecoder;
    type Encoder = JsonValuesEncoder;

    fn split(self) -> (JsonValuesDecoder, JsonValuesEncoder) {
        (self.decoder, self.encoder)
    }
}

super::limited!(JsonValues);
super::delegate!(JsonValues);

/// What stands at the first byte that is not done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Between,
    Container,
    String,
    Scalar(Scalar),
    Noise,
}

/// A byte order mark at the start of the stream.
enum Mark {
    None,
    Dropped,
    /// More bytes have to show whether it is one.
    Cut,
}

/// Bytes into JSON values.
///
/// ```text
///            ┌─────── its end ────────┐   ┌──────── an RS, the start of a container ────────┐
///            ▼                        │   ▼                                                 │
///  ──── Between ── a value begins ─▶ Container, String, Scalar ── brackets mismatch ─▶ Noise (told)
///            └──── anything else ──────────────────────────────────────────────────▶ Noise (to be told)
/// ```
#[derive(Debug, Clone)]
pub struct JsonValuesDecoder {
    max_size: usize,
    mode: Mode,
    /// Index behind the last byte of a string or scalar that was looked at.
    seen: usize,
    /// The next byte of a string is escaped.
    escaped: bool,
    /// An RS has come since the last value.
    mark: bool,
    /// The value that is under way, or was the last, stands behind an RS: the next one ends it.
    record: bool,
    /// Index behind the last byte of such a value that was searched for an RS.
    searched: usize,
    /// Nothing of the cases that are seldom is under way or asked for.
    plain: bool,
    /// Nothing has come yet, so a byte order mark may.
    at_start: bool,
    /// The noise belongs to a message of which a fault has told.
    told: bool,
    /// The last byte of noise that is no blank.
    last: u8,
    /// Bytes of an over-long value that were skipped, or bytes of noise.
    skipped: u64,
    structure: Structure,
    /// Boxed, as few ask for it and it is larger than all the rest.
    validator: Option<Box<Validator>>,
    /// Index behind the last byte that was validated.
    validated: usize,
    /// What is wrong with the value that is being skipped was told.
    invalid: bool,
}

impl Default for JsonValuesDecoder {
    fn default() -> Self {
        Self {
            max_size: MAX_MESSAGE_SIZE,
            mode: Mode::Between,
            seen: 0,
            escaped: false,
            mark: false,
            record: false,
            searched: 0,
            plain: false,
            at_start: true,
            told: false,
            last: 0,
            skipped: 0,
            structure: Structure::new(),
            validator: None,
            validated: 0,
            invalid: false,
        }
    }
}

impl Decode for JsonValuesDecoder {
    #[inline]
    fn decode(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        // The plain case: an object or array that is not too large, whole or still to come.
        let mut found = None;
        if self.plain && (self.mode == Mode::Container || self.begins(src)) {
            match self.structure.close(src) {
                Container::Closed { end } if end <= self.max_size => {
                    let consumed = end + usize::from(src.get(end) == Some(&b'\n'));
                    self.structure.advance(consumed);
                    self.mode = Mode::Between;
                    return Ok(Step::Frame { payload: 0..end, consumed });
                }
                Container::Open if src.len() <= self.max_size => {
                    return Ok(Step::Incomplete { consumed: 0, needed: 0 });
                }
                other => found = Some(other),
            }
        }
        let step = self.look(src, found);
        self.plain = !self.at_start
            && self.skipped == 0
            && !self.invalid
            && self.validator.is_none()
            && !self.mark
            && !self.record;
        let (Step::Frame { consumed, .. }
        | Step::Incomplete { consumed, .. }
        | Step::Fault { consumed, .. }
        | Step::Produced { consumed }
        | Step::Event { consumed }
        | Step::End { consumed }) = step;
        self.structure.advance(consumed);
        self.seen = self.seen.saturating_sub(consumed);
        self.searched = self.searched.saturating_sub(consumed);
        self.validated = self.validated.saturating_sub(consumed);
        Ok(step)
    }

    fn decode_eof(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        let step = self.decode(src)?;
        let Step::Incomplete { consumed, .. } = step else { return Ok(step) };
        let size = src.len() - consumed;
        let all = src.len();
        let mode = std::mem::replace(&mut self.mode, Mode::Between);
        let skipped = std::mem::take(&mut self.skipped);
        let told = std::mem::take(&mut self.invalid) | std::mem::take(&mut self.told);
        self.structure.reset(0);
        self.seen = 0;
        Ok(match mode {
            // Half a byte order mark.
            Mode::Between if size > 0 => Step::Fault { fault: Fault::Noise { size }, consumed: all },
            Mode::Between => Step::Incomplete { consumed: all, needed: 0 },
            _ if told => Step::Incomplete { consumed: all, needed: 0 },
            Mode::Noise => {
                let size = usize::try_from(skipped).unwrap_or(usize::MAX).saturating_add(size);
                Step::Fault { fault: Fault::Noise { size }, consumed: all }
            }
            _ if skipped > 0 || size > self.max_size => {
                let fault = Fault::TooLarge { size: skipped + size as u64, limit: self.max_size };
                Step::Fault { fault, consumed: all }
            }
            Mode::Scalar(scalar) if scalar.is_complete() => {
                Step::Frame { payload: consumed..all, consumed: all }
            }
            _ => Step::Fault { fault: Fault::Truncated { size }, consumed: all },
        })
    }

    fn is_mid_message(&self) -> bool {
        self.skipped > 0 && self.mode != Mode::Noise
    }

    fn unfinished(&self, src: &[u8]) -> Range<usize> {
        match self.mode {
            Mode::Container | Mode::String | Mode::Scalar(_) if self.skipped == 0 && !self.invalid => {
                0..src.len()
            }
            _ => 0..0,
        }
    }
}

impl JsonValuesDecoder {
    /// The limit on payloads, in bytes.
    #[must_use]
    pub fn max_size(&self) -> usize {
        self.max_size
    }

    /// Whether a container stands at the start of `src`; then it is begun.
    #[inline(always)]
    fn begins(&mut self, src: &[u8]) -> bool {
        let begins = self.mode == Mode::Between && matches!(src.first(), Some(b'{' | b'['));
        if begins {
            self.structure.begin(0);
            self.mode = Mode::Container;
        }
        begins
    }

    /// Everything but the plain case. `found` is what the scanner found for the container at the start of `src`.
    #[inline(never)]
    fn look(&mut self, src: &[u8], mut found: Option<Container>) -> Step {
        let mut from = 0;
        // Each round takes something off `src` or returns.
        loop {
            let cut = self.next_record(src);
            // What may be of the value that is under way.
            let own = cut.and_then(|cut| src.get(..cut)).unwrap_or(src);
            let end = match self.mode {
                Mode::Between => {
                    let rest = src.get(from..).unwrap_or_default();
                    let blanks = rest.iter().position(|byte| !is_between(*byte));
                    self.mark |=
                        rest.get(..blanks.unwrap_or(rest.len())).is_some_and(|all| all.contains(&RS));
                    match blanks {
                        Some(blanks) => from += blanks,
                        None => return Step::Incomplete { consumed: src.len(), needed: 0 },
                    }
                    if self.at_start {
                        match self.byte_order_mark(src.get(from..).unwrap_or_default()) {
                            Mark::None => {}
                            Mark::Dropped => {
                                from += BOM.len();
                                continue;
                            }
                            Mark::Cut => return Step::Incomplete { consumed: from, needed: 0 },
                        }
                    }
                    self.begin(src, from);
                    continue;
                }
                Mode::Container => match found.take().unwrap_or_else(|| self.structure.close(own)) {
                    Container::Open => None,
                    // The scanner may have been further already.
                    Container::Closed { end: at }
                    | Container::Mismatched { at }
                    | Container::TooDeep { at }
                        if cut.is_some_and(|cut| at > cut) =>
                    {
                        None
                    }
                    Container::Closed { end } => Some(end),
                    Container::Mismatched { at } => return self.broken(from, at, JsonReason::Unexpected),
                    Container::TooDeep { at } => return self.broken(from, at, JsonReason::TooDeep),
                },
                Mode::String => self.string_end(own),
                Mode::Scalar(scalar) => match self.scalar_end(src, scalar) {
                    Ok(end) => end,
                    Err(()) => {
                        self.make_noise();
                        continue;
                    }
                },
                Mode::Noise => match self.noise_end(src, from) {
                    Some(end) => {
                        self.mode = Mode::Between;
                        self.mark = end.checked_sub(1).and_then(|last| src.get(last)) == Some(&RS);
                        self.structure.reset(end);
                        let size = std::mem::take(&mut self.skipped) + (end - from) as u64;
                        if !std::mem::take(&mut self.told) {
                            let size = usize::try_from(size).unwrap_or(usize::MAX);
                            return Step::Fault { fault: Fault::Noise { size }, consumed: end };
                        }
                        from = end;
                        continue;
                    }
                    None => {
                        self.skipped += (src.len() - from) as u64;
                        return Step::Incomplete { consumed: src.len(), needed: 0 };
                    }
                },
            };
            if self.validator.is_some()
                && let Some(fault) = self.validate(own, from, end)
            {
                if end.is_some() {
                    self.finish();
                }
                return Step::Fault { fault, consumed: end.unwrap_or(own.len()) };
            }
            let Some(end) = end else {
                let Some(cut) = cut else { return self.unfinished(src, from) };
                match self.truncated(from, cut) {
                    Some(fault) => return Step::Fault { fault, consumed: cut },
                    None => {
                        from = cut;
                        continue;
                    }
                }
            };
            if self.skipped > 0 || end - from > self.max_size {
                let size = self.skipped + (end - from) as u64;
                let told = self.invalid;
                self.finish();
                if told {
                    from = end;
                    continue;
                }
                let fault = Fault::TooLarge { size, limit: self.max_size };
                return Step::Fault { fault, consumed: end };
            }
            self.mode = Mode::Between;
            // What mostly stands between, at once.
            let consumed = end + usize::from(src.get(end) == Some(&b'\n'));
            return Step::Frame { payload: from..end, consumed };
        }
    }

    /// Where the RS stands that ends the object, array or string that is under way, whether that is at its end or not.
    #[inline]
    fn next_record(&mut self, src: &[u8]) -> Option<usize> {
        if !self.record || !matches!(self.mode, Mode::Container | Mode::String) {
            return None;
        }
        let found = memchr::memchr(RS, src.get(self.searched..).unwrap_or_default());
        if found.is_none() {
            self.searched = src.len();
        }
        found.map(|at| self.searched + at)
    }

    /// The value that begins at `from` was cut short by the RS at `cut`. `None` when it was told of before.
    #[cold]
    fn truncated(&mut self, from: usize, cut: usize) -> Option<Fault> {
        let (size, skipped, told) = (cut - from, self.skipped, self.invalid);
        self.finish();
        self.structure.reset(cut);
        if told {
            return None;
        }
        if skipped > 0 || size > self.max_size {
            return Some(Fault::TooLarge { size: skipped + size as u64, limit: self.max_size });
        }
        Some(Fault::Truncated { size })
    }

    /// Something begins at `from`.
    #[inline]
    fn begin(&mut self, src: &[u8], from: usize) {
        self.at_start = false;
        self.record = std::mem::take(&mut self.mark);
        self.searched = from;
        self.seen = from + 1;
        self.validated = from;
        if let Some(validator) = &mut self.validator {
            validator.reset();
        }
        match src.get(from) {
            Some(b'{' | b'[') => {
                self.structure.begin(from);
                self.mode = Mode::Container;
            }
            Some(b'"') => {
                self.escaped = false;
                self.mode = Mode::String;
            }
            byte => match byte.and_then(|byte| Scalar::start(*byte)) {
                Some(scalar) => self.mode = Mode::Scalar(scalar),
                None => self.make_noise(),
            },
        }
    }

    #[cold]
    fn byte_order_mark(&mut self, rest: &[u8]) -> Mark {
        if rest.len() < BOM.len() && BOM.starts_with(rest) {
            return Mark::Cut;
        }
        self.at_start = false;
        if rest.starts_with(BOM) { Mark::Dropped } else { Mark::None }
    }

    fn string_end(&mut self, src: &[u8]) -> Option<usize> {
        let rest = src.get(self.seen..).unwrap_or_default();
        let found = string_end(self.structure.backend(), rest, &mut self.escaped);
        let end = found.map(|at| self.seen + at + 1);
        self.seen = end.unwrap_or(src.len());
        self.leave_structure(end)
    }

    /// The end of a number or word. An error when it is none or nothing ends it.
    fn scalar_end(&mut self, src: &[u8], mut scalar: Scalar) -> Result<Option<usize>, ()> {
        let rest = src.get(self.seen..).unwrap_or_default();
        let Err(at) = scalar.feed(rest) else {
            self.seen = src.len();
            self.mode = Mode::Scalar(scalar);
            return Ok(None);
        };
        let end = self.seen + at;
        if !scalar.is_complete() || !src.get(end).is_some_and(|byte| is_between(*byte)) {
            return Err(());
        }
        self.seen = end;
        Ok(self.leave_structure(Some(end)))
    }

    /// A value that was read without the scanner ends: where the scanner has not been, it begins anew.
    fn leave_structure(&mut self, end: Option<usize>) -> Option<usize> {
        if let Some(end) = end
            && end > self.structure.scanned()
        {
            self.structure.reset(end);
        }
        end
    }

    fn make_noise(&mut self) {
        self.mode = Mode::Noise;
        self.told = std::mem::take(&mut self.invalid);
        self.last = 0;
    }

    /// Where noise that begins at `from` ends. Its first byte, if nothing of it was left out before, is no start.
    fn noise_end(&mut self, src: &[u8], from: usize) -> Option<usize> {
        let mut looked = from;
        let bytes = |range| src.get(range).unwrap_or_default();
        while let Some(found) = memchr::memchr3(b'{', b'[', RS, src.get(looked..).unwrap_or_default()) {
            let at = looked + found;
            if src.get(at) == Some(&RS) {
                return Some(at + 1);
            }
            let before = bytes(looked..at).iter().rfind(|byte| !is_between(**byte));
            let before = before.copied().unwrap_or(self.last);
            if !matches!(before, b':' | b',' | b'{' | b'[') {
                return Some(at);
            }
            self.last = b'{';
            looked = at + 1;
        }
        if let Some(last) = bytes(looked..src.len()).iter().rfind(|byte| !is_between(**byte)) {
            self.last = *last;
        }
        None
    }

    /// The value that begins at `from` has a bracket at `at` that it cannot have.
    #[cold]
    fn broken(&mut self, from: usize, at: usize, reason: JsonReason) -> Step {
        let fault = Fault::InvalidJson { at: self.skipped + (at - from) as u64, reason };
        let told = std::mem::take(&mut self.invalid);
        self.finish();
        self.mode = Mode::Noise;
        self.told = true;
        // A bracket that would open one more is of no message.
        self.last = if reason == JsonReason::TooDeep { b'{' } else { 0 };
        if told {
            Step::Incomplete { consumed: at + 1, needed: 0 }
        } else {
            Step::Fault { fault, consumed: at + 1 }
        }
    }

    /// The value is over.
    fn finish(&mut self) {
        self.mode = Mode::Between;
        self.skipped = 0;
        self.invalid = false;
    }

    /// The value that begins at `from` goes on behind `src`.
    #[inline]
    fn unfinished(&mut self, src: &[u8], from: usize) -> Step {
        let size = src.len() - from;
        if self.skipped > 0 || self.invalid || size > self.max_size {
            self.skipped += size as u64;
            return Step::Incomplete { consumed: src.len(), needed: 0 };
        }
        Step::Incomplete { consumed: from, needed: 0 }
    }

    /// Validates what has come of the value that begins at `from`. A fault of which nothing was told yet.
    fn validate(&mut self, src: &[u8], from: usize, end: Option<usize>) -> Option<Fault> {
        let validator = self.validator.as_mut()?;
        let part = src.get(self.validated..end.unwrap_or(src.len())).unwrap_or_default();
        self.validated += part.len();
        let result = if self.invalid { Ok(()) } else { validator.feed(part) };
        let invalid = result.err()?;
        self.invalid = true;
        self.skipped += (src.len() - from) as u64;
        Some(Fault::InvalidJson { at: invalid.at, reason: invalid.reason })
    }
}

#[inline]
fn is_between(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | RS)
}
