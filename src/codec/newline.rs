//! Newline framing: one message per line, as the Model Context Protocol's stdio transport has it (all revisions; the
//! specification recommends it for Unix sockets and TCP too).
//!
//! ```text
//!  [BOM] payload LF      payload CR LF      LF (blank, skipped)      payload <end of stream>
//!  ^ only at the start of the stream
//! ```
//!
//! - A line ends with LF. One CR right before the LF belongs to the line's end; any other CR is payload.
//! - A UTF-8 byte order mark at the very start of the stream is dropped.
//! - Blank lines are no messages; they are skipped.
//! - A line over the limit is skipped as it comes, in bounded memory, and told of once, with its size, at its end.
//!
//! The encoder sends only what comes back as it was: a payload that holds an LF, ends in CR, or stands first and begins
//! with a byte order mark (which JSON must not have, RFC 8259 §8.1) is refused, and so is an empty one.

use std::{io::IoSlice, ops::Range};

use super::{Codec, Decode, Encode, Excerpt, Step, Wrap, excerpt::Ends};
use crate::{
    error::{Fault, Rejection, Violation},
    limits::MAX_MESSAGE_SIZE,
    scan,
};

const BOM: &[u8] = b"\xef\xbb\xbf";

/// What becomes of a last line that the end of the stream cuts off before its newline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Unterminated {
    /// It is delivered as a message: programs that end their output without a newline are common.
    #[default]
    Deliver,
    /// It is a [`Fault::Truncated`]: for peers of whom it is known that they always finish their lines.
    Fault,
}

/// What becomes of a payload that holds a newline and so would be two lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Embedded {
    /// It is refused.
    #[default]
    Refuse,
    /// In a JSON payload, CR and LF between tokens become blanks, which JSON does not tell apart. Within a string they
    /// are no JSON; the payload is then refused.
    Blank,
}

/// Newline framing, both directions, with limits of 16 MiB.
#[derive(Debug, Clone, Default)]
pub struct Newline {
    decoder: NewlineDecoder,
    encoder: NewlineEncoder,
}

impl Newline {
    /// Newline framing with the default limits and policies.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a received payload has to be UTF-8. Off by default: a parser behind will check it anyway.
    #[must_use]
    pub fn check_utf8(mut self, check: bool) -> Self {
        self.decoder.check_utf8 = check;
        self
    }

    /// What becomes of a last line without a newline.
    #[must_use]
    pub fn unterminated(mut self, policy: Unterminated) -> Self {
        self.decoder.unterminated = policy;
        self
    }

    /// What becomes of a payload that holds a newline.
    #[must_use]
    pub fn embedded(mut self, policy: Embedded) -> Self {
        self.encoder.embedded = policy;
        self
    }
}

impl Codec for Newline {
    type Decoder = NewlineDecoder;
    type Encoder = NewlineEncoder;

    fn split(self) -> (NewlineDecoder, NewlineEncoder) {
        (self.decoder, self.encoder)
    }
}

super::limited!(Newline);
super::delegate!(Newline);

/// Lines into frames.
///
/// ```text
///            ┌────────── line too long, no newline yet ──────────┐
///            │                                                   ▼
///  ── Line(scanned) ◀───────── newline: one fault ───────── Skipping(bytes)
/// ```
#[derive(Debug, Clone)]
pub struct NewlineDecoder {
    max_size: usize,
    check_utf8: bool,
    unterminated: Unterminated,
    /// The last line was longer than what is searched in place.
    long: bool,
    /// Nothing has been delivered yet, so a byte order mark may still come.
    at_start: bool,
    /// Bytes of `src` that are known to hold no newline.
    scanned: usize,
    /// Bytes of an over-long line that were skipped; 0 when none is being skipped.
    skipped: u64,
    /// The last of them was a CR, which belongs to the line's end if a newline comes next.
    skipped_cr: bool,
    /// Both ends of the last line that was too long, once there was one.
    ends: Option<Box<Ends>>,
}

impl Default for NewlineDecoder {
    fn default() -> Self {
        Self {
            max_size: MAX_MESSAGE_SIZE,
            check_utf8: false,
            unterminated: Unterminated::default(),
            long: false,
            at_start: true,
            scanned: 0,
            skipped: 0,
            skipped_cr: false,
            ends: None,
        }
    }
}

impl Decode for NewlineDecoder {
    #[inline]
    fn decode(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        // The plain case: a line that is not the first, within the limit, not blank, whole or still to come.
        if self.skipped == 0 && !self.at_start && !self.check_utf8 {
            let rest = src.get(self.scanned..).unwrap_or_default();
            // Lines come in kinds: after a long one the next is looked for as a long one.
            let found = if self.long { scan::find_far_newline(rest) } else { scan::find_newline(rest) };
            match found {
                Some(found) => {
                    let newline = self.scanned + found;
                    self.long = newline > scan::NEAR;
                    let has_cr = src.get(newline.wrapping_sub(1)) == Some(&b'\r');
                    let end = newline - usize::from(has_cr);
                    if end.wrapping_sub(1) < self.max_size {
                        self.scanned = 0;
                        return Ok(Step::Frame { payload: 0..end, consumed: newline + 1 });
                    }
                }
                None if src.len() <= self.max_size => {
                    self.scanned = src.len();
                    return Ok(Step::Incomplete { consumed: 0, needed: 0 });
                }
                None => {}
            }
        }
        Ok(self.decode_any(src))
    }

    fn is_mid_message(&self) -> bool {
        self.skipped > 0
    }

    fn excerpt(&self) -> Option<Excerpt<'_>> {
        self.ends.as_ref().map(|ends| ends.excerpt())
    }

    fn unfinished(&self, src: &[u8]) -> Range<usize> {
        if self.skipped > 0 || (self.at_start && BOM.starts_with(src)) {
            return 0..0;
        }
        // A CR may belong to the line's end.
        self.bom(src)..src.len() - usize::from(src.last() == Some(&b'\r'))
    }

    fn decode_eof(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        let step = self.decode(src)?;
        let Step::Incomplete { consumed, .. } = step else { return Ok(step) };
        if self.skipped > 0 {
            // The line that was being skipped ends with the stream.
            let size = std::mem::take(&mut self.skipped) - u64::from(self.skipped_cr);
            return Ok(Step::Fault { fault: Fault::TooLarge { size, limit: self.max_size }, consumed });
        }
        // What is left holds no newline. A CR at the very end is the half of a CR LF.
        let line = src.get(consumed..).unwrap_or_default();
        let start = consumed + self.bom(line);
        let end = src.len() - usize::from(line.last() == Some(&b'\r'));
        self.scanned = 0;
        if start >= end {
            return Ok(Step::Incomplete { consumed: src.len(), needed: 0 });
        }
        self.at_start = false;
        if self.unterminated == Unterminated::Fault && end - start <= self.max_size {
            let fault = Fault::Truncated { size: src.len() - consumed };
            return Ok(Step::Fault { fault, consumed: src.len() });
        }
        Ok(self.deliver(src, start, end, src.len()))
    }
}

impl NewlineDecoder {
    /// The limit on payloads, in bytes.
    #[must_use]
    pub fn max_size(&self) -> usize {
        self.max_size
    }

    /// Everything but the plain case.
    #[cold]
    fn decode_any(&mut self, src: &[u8]) -> Step {
        let mut start = 0;
        // Ends with `src` at the latest: each round takes a line off it.
        loop {
            let line = src.get(start..).unwrap_or_default();
            let bom = self.bom(line);
            let Some(found) = scan::find_newline(line.get(self.scanned..).unwrap_or_default()) else {
                return self.unfinished(start, bom, line);
            };
            let newline = self.scanned + found;
            self.scanned = 0;
            let consumed = start + newline + 1;
            let has_cr = newline > 0 && line.get(newline - 1) == Some(&b'\r');
            if self.skipped > 0 {
                let has_cr = has_cr || (newline == 0 && self.skipped_cr);
                let size = std::mem::take(&mut self.skipped) + newline as u64 - u64::from(has_cr);
                self.keep(line.get(..newline).unwrap_or_default());
                return Step::Fault { fault: Fault::TooLarge { size, limit: self.max_size }, consumed };
            }
            let end = newline - usize::from(has_cr);
            self.at_start = false;
            if end > bom {
                return self.deliver(src, start + bom, start + end, consumed);
            }
            start = consumed;
        }
    }

    /// Keeps the ends of more of a line that is too long.
    fn keep(&mut self, bytes: &[u8]) {
        self.ends.get_or_insert_default().feed(bytes);
    }

    fn keep_anew(&mut self, bytes: &[u8]) {
        self.ends.get_or_insert_default().reset();
        self.keep(bytes);
    }

    fn deliver(&mut self, src: &[u8], start: usize, end: usize, consumed: usize) -> Step {
        let size = end - start;
        if size > self.max_size {
            self.keep_anew(src.get(start..end).unwrap_or_default());
            let fault = Fault::TooLarge { size: size as u64, limit: self.max_size };
            return Step::Fault { fault, consumed };
        }
        if self.check_utf8 {
            let payload = src.get(start..end).unwrap_or_default();
            if let Err(error) = simdutf8::compat::from_utf8(payload) {
                let fault = Fault::InvalidUtf8 { size, valid_up_to: error.valid_up_to() };
                return Step::Fault { fault, consumed };
            }
        }
        Step::Frame { payload: start..end, consumed }
    }

    /// No newline in the rest of `src`, which begins at `start`.
    fn unfinished(&mut self, start: usize, bom: usize, line: &[u8]) -> Step {
        if self.skipped > 0 {
            self.skipped += line.len() as u64;
            self.skipped_cr = line.last().map_or(self.skipped_cr, |&byte| byte == b'\r');
            self.keep(line);
            self.scanned = 0;
            return Step::Incomplete { consumed: start + line.len(), needed: 0 };
        }
        // One more byte may still be the CR of the line's end, and the first three a byte order mark.
        let may_be_bom = self.at_start && BOM.starts_with(line);
        if !may_be_bom && line.len() - bom > self.max_size.saturating_add(1) {
            self.skipped = (line.len() - bom) as u64;
            self.keep_anew(line.get(bom..).unwrap_or_default());
            self.skipped_cr = line.last() == Some(&b'\r');
            self.at_start = false;
            self.scanned = 0;
            return Step::Incomplete { consumed: start + line.len(), needed: 0 };
        }
        // Once it is clear that no mark stands at the start, what is still to come of the line is looked at the plain way.
        self.at_start &= may_be_bom || bom > 0;
        self.scanned = line.len();
        Step::Incomplete { consumed: start, needed: 0 }
    }

    /// Length of the byte order mark that `line` begins with, if it may have one.
    fn bom(&self, line: &[u8]) -> usize {
        if self.at_start && line.starts_with(BOM) { BOM.len() } else { 0 }
    }
}

/// Frames into lines.
#[derive(Debug, Clone)]
pub struct NewlineEncoder {
    max_size: usize,
    embedded: Embedded,
    /// Nothing has been sent yet, so the receiver would take a byte order mark for its own.
    at_start: bool,
}

impl Default for NewlineEncoder {
    fn default() -> Self {
        Self { max_size: MAX_MESSAGE_SIZE, embedded: Embedded::default(), at_start: true }
    }
}

impl Encode for NewlineEncoder {
    fn overhead(&self) -> usize {
        1
    }

    #[inline]
    fn encode(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<usize, Rejection> {
        let size = payload.len();
        if size > self.max_size || self.at_start {
            self.check_first(size, payload.get(..BOM.len()))?;
        }
        // A CR at the end would be taken for half of the line's end.
        let Some(last) = payload.last() else { return Err(Rejection::Empty) };
        if !scan::copy_line(payload, dst) | (*last == b'\r') {
            self.embedded(payload, dst)?;
        }
        if let Some(end) = dst.get_mut(size) {
            *end = b'\n';
        }
        self.at_start = false;
        Ok(size + 1)
    }

    fn wrap(&mut self, parts: &[IoSlice<'_>]) -> Result<Option<Wrap>, Rejection> {
        let size = parts.iter().map(|part| part.len()).sum();
        let mut first = parts.iter().flat_map(|part| part.iter());
        let first: [Option<&u8>; BOM.len()] = std::array::from_fn(|_| first.next());
        let first = first.map(|byte| byte.copied().unwrap_or_default());
        self.check_first(size, Some(&first))?;
        let Some(&last) = parts.iter().rev().find_map(|part| part.last()) else {
            return Err(Rejection::Empty);
        };
        let mut before = 0;
        let newline = parts.iter().find_map(|part| {
            let found = scan::find_newline(part).map(|at| before + at);
            before += part.len();
            found
        });
        match newline.or((last == b'\r').then(|| size - 1)) {
            Some(at) if self.embedded == Embedded::Refuse => Err(Rejection::EmbeddedDelimiter { at }),
            Some(_) => Ok(None),
            None => {
                self.at_start = false;
                Ok(Some(Wrap::new(&[], b"\n")))
            }
        }
    }
}

impl NewlineEncoder {
    /// The checks that fail seldom or matter once.
    #[cold]
    fn check_first(&self, size: usize, first: Option<&[u8]>) -> Result<(), Rejection> {
        if size > self.max_size {
            return Err(Rejection::TooLarge { size, limit: self.max_size });
        }
        if self.at_start && first == Some(BOM) {
            return Err(Rejection::ByteOrderMark);
        }
        Ok(())
    }

    /// The payload holds an LF or ends with CR: refuses it, or writes it with blanks instead of line breaks between
    /// tokens.
    #[cold]
    fn embedded(&self, payload: &[u8], dst: &mut [u8]) -> Result<(), Rejection> {
        if self.embedded == Embedded::Refuse {
            let at = scan::find_newline(payload).unwrap_or(payload.len().saturating_sub(1));
            return Err(Rejection::EmbeddedDelimiter { at });
        }
        let (mut in_string, mut escaped) = (false, false);
        for (at, (to, &byte)) in dst.iter_mut().zip(payload).enumerate() {
            *to = byte;
            match byte {
                b'\n' | b'\r' if in_string => return Err(Rejection::EmbeddedDelimiter { at }),
                b'\n' | b'\r' => *to = b' ',
                b'"' if !escaped => in_string = !in_string,
                _ => {}
            }
            escaped = in_string && byte == b'\\' && !escaped;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All frames and faults of `bytes`, handed over in pieces of `piece` bytes.
    fn run(codec: Newline, bytes: &[u8], piece: usize) -> Vec<Result<Vec<u8>, Fault>> {
        let (mut decoder, _) = codec.split();
        crate::codec::tests::run(&mut decoder, bytes, piece)
    }

    fn texts(codec: Newline, bytes: &[u8]) -> Vec<String> {
        let whole = run(codec.clone(), bytes, usize::MAX);
        for piece in 1..bytes.len().min(9) {
            assert_eq!(run(codec.clone(), bytes, piece), whole, "in pieces of {piece}");
        }
        whole
            .into_iter()
            .map(|step| match step {
                Ok(payload) => String::from_utf8_lossy(&payload).into_owned(),
                Err(fault) => format!("{fault:?}"),
            })
            .collect()
    }

    #[test]
    fn lines_end_with_lf_or_crlf_and_keep_every_other_cr() {
        assert_eq!(texts(Newline::new(), b"a\nb\r\nc\rd\r\r\n\re\n"), ["a", "b", "c\rd\r", "\re"]);
    }

    #[test]
    fn blank_lines_are_skipped_and_a_mark_at_the_start_is_dropped() {
        assert_eq!(texts(Newline::new(), b"\xef\xbb\xbf\n\r\n\na\n\n\xef\xbb\xbfb\n"), ["a", "\u{feff}b"]);
        assert_eq!(texts(Newline::new(), b"\xef\xbb\xbfa\n"), ["a"]);
        assert_eq!(texts(Newline::new(), b"\xef\xbb"), ["\u{fffd}"]);
        let many = [&b"\n".repeat(10_000)[..], b"a\nb"].concat();
        assert_eq!(run(Newline::new(), &many, usize::MAX), [Ok(b"a".to_vec()), Ok(b"b".to_vec())]);
        let mut decoder = Newline::new().decoder;
        let step = Step::Frame { payload: 10_000..10_001, consumed: 10_002 };
        assert_eq!(
            decoder.decode(&mut many.clone()),
            Ok(step.clone()),
            "nothing is left waiting behind them"
        );
        assert_eq!(Newline::new().decoder.decode_eof(&mut many.clone()), Ok(step));
    }

    #[test]
    fn a_line_over_the_limit_is_one_fault_with_its_size() {
        let limit = Newline::new().max_size(4);
        assert_eq!(texts(limit.clone(), b"1234\n1234\r\n"), ["1234", "1234"]);
        let fault = |size: u64| format!("{:?}", Fault::TooLarge { size, limit: 4 });
        assert_eq!(texts(limit.clone(), b"12345\nab\n"), [fault(5), "ab".into()]);
        assert_eq!(texts(limit.clone(), b"123456789\nab\n"), [fault(9), "ab".into()]);
        assert_eq!(texts(limit.clone(), b"\xef\xbb\xbf1234\n"), ["1234"]);
        assert_eq!(texts(limit.clone(), b"123456789\r\nab\r\n"), [fault(9), "ab".into()]);
        assert_eq!(texts(limit.clone(), b"123456789\r"), [fault(9)]);
        assert_eq!(texts(limit, b"123456789"), [fault(9)]);
    }

    #[test]
    fn both_ends_of_a_line_over_the_limit_are_kept() {
        let long = format!("{{\"id\":1,{}\"end\"}}", "x".repeat(5000));
        let second = format!("b{}c", "y".repeat(2000));
        for cut in [1, 3, 999, 4000, 1 << 16] {
            let (mut decoder, _) = Newline::new().max_size(1000).split();
            assert_eq!(decoder.excerpt(), None);
            let stream = format!("\u{feff}{long}\r\nok\n{second}");
            let (mut src, mut found) = (Vec::new(), Vec::new());
            let mut pieces = stream.as_bytes().chunks(cut);
            let mut over = false;
            while !over {
                match pieces.next() {
                    Some(piece) => src.extend_from_slice(piece),
                    None => over = true,
                }
                loop {
                    let step = if over { decoder.decode_eof(&mut src) } else { decoder.decode(&mut src) };
                    let (consumed, fault) = match step.unwrap() {
                        Step::Incomplete { consumed, .. } => {
                            src.drain(..consumed);
                            break;
                        }
                        Step::Fault { fault, consumed } => (consumed, Some(fault)),
                        Step::Frame { consumed, .. } => (consumed, None),
                        step => panic!("{step:?}"),
                    };
                    src.drain(..consumed);
                    if fault.is_some() {
                        let kept = decoder.excerpt().unwrap();
                        found.push((kept.head.to_vec(), kept.tail.to_vec()));
                    }
                }
            }
            let [(head, tail), (other, behind)] = &found[..] else { panic!("{found:?}") };
            assert!(long.as_bytes().starts_with(head) && head.len() == 512, "{cut}");
            assert!(tail.trim_ascii_end().ends_with(b"\"end\"}"), "{cut}");
            assert!(second.as_bytes().starts_with(other) && other.len() == 512, "{cut}");
            assert!(second.as_bytes().ends_with(behind) && behind.len() == 256, "{cut}");
        }
    }

    #[test]
    fn the_last_line_is_delivered_or_a_fault_never_lost() {
        assert_eq!(texts(Newline::new(), b"a\nb"), ["a", "b"]);
        assert_eq!(texts(Newline::new(), b"a\nb\r"), ["a", "b"]);
        assert_eq!(texts(Newline::new(), b"a\n\r"), ["a"]);
        let strict = Newline::new().unterminated(Unterminated::Fault);
        assert_eq!(
            texts(strict.clone(), b"a\nb"),
            ["a".to_owned(), format!("{:?}", Fault::Truncated { size: 1 })]
        );
        assert_eq!(texts(strict, b"a\n\r"), ["a"], "half a blank line is no message");
    }

    #[test]
    fn utf8_is_judged_only_when_asked() {
        let fault = format!("{:?}", Fault::InvalidUtf8 { size: 3, valid_up_to: 1 });
        assert_eq!(texts(Newline::new().check_utf8(true), b"a\xffb\nc\n"), [fault, "c".into()]);
        assert_eq!(run(Newline::new(), b"a\xffb\n", 99), [Ok(b"a\xffb".to_vec())]);
    }

    fn encoded(codec: Newline, payload: &[u8]) -> Result<Vec<u8>, Rejection> {
        let (_, mut encoder) = codec.split();
        let mut dst = vec![0; payload.len() + encoder.overhead()];
        let written = encoder.encode(payload, &mut dst)?;
        dst.truncate(written);
        Ok(dst)
    }

    #[test]
    fn a_payload_that_would_not_come_back_is_refused() {
        assert_eq!(encoded(Newline::new(), b"{}").unwrap(), b"{}\n");
        assert_eq!(encoded(Newline::new(), b"a\nb"), Err(Rejection::EmbeddedDelimiter { at: 1 }));
        assert_eq!(encoded(Newline::new(), b"a\r"), Err(Rejection::EmbeddedDelimiter { at: 1 }));
        assert_eq!(encoded(Newline::new(), b""), Err(Rejection::Empty));
        assert_eq!(
            encoded(Newline::new().max_size(2), b"abc"),
            Err(Rejection::TooLarge { size: 3, limit: 2 })
        );
    }

    #[test]
    fn a_mark_that_the_receiver_would_drop_is_refused() {
        let mut encoder = Newline::new().encoder;
        let marked = b"\xef\xbb\xbfa";
        assert_eq!(encoder.encode(marked, &mut [0; 9]), Err(Rejection::ByteOrderMark));
        let parts = [IoSlice::new(&marked[..1]), IoSlice::new(b""), IoSlice::new(&marked[1..])];
        assert_eq!(encoder.wrap(&parts), Err(Rejection::ByteOrderMark));
        assert_eq!(encoder.encode(b"a", &mut [0; 9]), Ok(2));
        assert_eq!(encoder.encode(marked, &mut [0; 9]), Ok(5));
        assert!(encoder.wrap(&parts).is_ok());
    }

    #[test]
    fn both_ways_of_writing_agree() {
        let refused = |at| Err(Rejection::EmbeddedDelimiter { at });
        let mut encoder = Newline::new().encoder;
        let mut wrap = |parts: &[&[u8]]| {
            let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
            encoder.wrap(&parts).map(|wrap| wrap.map(|wrap| (wrap.head().to_vec(), wrap.tail())))
        };
        assert_eq!(wrap(&[b"ab", b"c"]), Ok(Some((vec![], &b"\n"[..]))));
        assert_eq!(wrap(&[b"ab", b"c\nd"]), refused(3));
        assert_eq!(wrap(&[b"ab", b"c\r", b""]), refused(3));
        assert_eq!(wrap(&[b"", b""]), Err(Rejection::Empty));
        assert_eq!(wrap(&[]), Err(Rejection::Empty));
        let mut encoder = Newline::new().max_size(2).embedded(Embedded::Blank).encoder;
        assert_eq!(encoder.wrap(&[IoSlice::new(b"a\r")]), Ok(None));
        assert_eq!(encoder.wrap(&[IoSlice::new(b"abc")]), Err(Rejection::TooLarge { size: 3, limit: 2 }));
    }

    #[test]
    fn line_breaks_between_tokens_become_blanks_on_request() {
        let blank = Newline::new().embedded(Embedded::Blank);
        assert_eq!(encoded(blank.clone(), b"{\r\n \"a\\\"\": 1\n}").unwrap(), b"{   \"a\\\"\": 1 }\n");
        assert_eq!(encoded(blank.clone(), b"{}\r").unwrap(), b"{} \n");
        assert_eq!(encoded(blank, b"{\"a\n\"}"), Err(Rejection::EmbeddedDelimiter { at: 3 }));
    }
}
