//! Content-Length framing, as the Language Server Protocol has it (base protocol, LSP 3.17) and older MCP
//! implementations use it over stdio.
//!
//! ```text
//!  Content-Length: 17 CR LF
//!  Content-Type: application/vscode-jsonrpc; charset=utf-8 CR LF     (optional, not looked at)
//!  CR LF
//!  payload of 17 bytes
//! ```
//!
//! A gateway between framings must not read a length that another reader would read otherwise (RFC 9112 §6.3,
//! RUSTSEC-2021-0078, -0079, -0081), so whatever could be read in two ways ends the stream: anything but digits in a length
//! (a sign, blanks inside, a list), a number with a leading zero or beyond 18 digits, two lengths that do not agree,
//! a missing length, a line that ends with LF alone, a NUL or a lone CR, a folded line, a blank before the colon,
//! `Transfer-Encoding`. Names are compared without regard to case; other headers are let through unread.

use std::{io::IoSlice, ops::Range};

use super::{Codec, Decode, Encode, Step, Wrap};
use crate::{
    error::{Fault, Rejection, Violation},
    limits::{MAX_HEAD_SIZE, MAX_MESSAGE_SIZE},
    scan,
};

const NAME: &[u8] = b"Content-Length";

/// How nearly every head begins.
const START_OF_HEAD: &[u8; 16] = b"Content-Length: ";

/// And ends.
const END_OF_HEAD: &[u8; 4] = b"\r\n\r\n";

/// Digits of the longest length that is read. Nineteen could overflow.
const MAX_DIGITS: usize = 18;

/// Content-Length framing, both directions, with limits of 16 MiB per payload and 4 KiB per head.
#[derive(Debug, Clone, Default)]
pub struct ContentLength {
    decoder: ContentLengthDecoder,
    encoder: ContentLengthEncoder,
}

impl ContentLength {
    /// Content-Length framing with the default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits received heads, up to and including the blank line, to `bytes`.
    #[must_use]
    pub fn max_head_size(mut self, bytes: usize) -> Self {
        self.decoder.max_head = bytes;
        self
    }
}

impl Codec for ContentLength {
    type Decoder = ContentLengthDecoder;
    type Encoder = ContentLengthEncoder;

    fn split(self) -> (ContentLengthDecoder, ContentLengthEncoder) {
        (self.decoder, self.encoder)
    }
}

super::limited!(ContentLength);
super::delegate!(ContentLength);

/// Heads and payloads into frames.
///
/// ```text
///   Head(line, scanned) ──blank line, size ≤ limit──▶ Payload(head, size) ──all here──▶ Head
///        │                                                            
///        └──────────────blank line, size > limit──▶ Skip(left) ──all skipped──▶ Head
/// ```
#[derive(Debug, Clone)]
pub struct ContentLengthDecoder {
    max_size: usize,
    max_head: usize,
    state: State,
    broken: Option<Violation>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Head {
        /// Where the line that is being read begins.
        line: usize,
        /// Bytes of `src` that are known to hold no further line end.
        scanned: usize,
        /// The length that was read.
        length: Option<u64>,
    },
    Payload {
        head: usize,
        end: usize,
    },
    Skip {
        left: u64,
    },
}

const START: State = State::Head { line: 0, scanned: 0, length: None };

impl Default for ContentLengthDecoder {
    fn default() -> Self {
        Self { max_size: MAX_MESSAGE_SIZE, max_head: MAX_HEAD_SIZE, state: START, broken: None }
    }
}

impl Decode for ContentLengthDecoder {
    #[inline]
    fn decode(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        // A payload that comes in pieces.
        if let State::Payload { end, .. } = self.state
            && end > src.len()
        {
            return Ok(Step::Incomplete { consumed: 0, needed: end });
        }
        self.decode_any(src)
    }

    fn is_mid_message(&self) -> bool {
        matches!(self.state, State::Skip { .. })
    }

    fn unfinished(&self, src: &[u8]) -> Range<usize> {
        match self.state {
            State::Payload { head, .. } => head..src.len(),
            _ => 0..0,
        }
    }

    fn decode_eof(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        match self.decode(src)? {
            // A payload that was being skipped has been told of already.
            Step::Incomplete { consumed, .. } if consumed < src.len() => {
                self.state = START;
                let size = src.len() - consumed;
                Ok(Step::Fault { fault: Fault::Truncated { size }, consumed: src.len() })
            }
            step => Ok(step),
        }
    }
}

impl ContentLengthDecoder {
    fn decode_any(&mut self, src: &[u8]) -> Result<Step, Violation> {
        if let Some(violation) = &self.broken {
            return Err(violation.clone());
        }
        let step = self.step(src);
        if let Err(violation) = &step {
            self.broken = Some(violation.clone());
        }
        step
    }

    fn step(&mut self, src: &[u8]) -> Result<Step, Violation> {
        loop {
            match self.state {
                State::Head { .. } => {
                    if let Some(step) = self.head(src)? {
                        return Ok(step);
                    }
                }
                State::Payload { head, end } => {
                    if end > src.len() {
                        return Ok(Step::Incomplete { consumed: 0, needed: end });
                    }
                    self.state = START;
                    return Ok(Step::Frame { payload: head..end, consumed: end });
                }
                State::Skip { left } => {
                    let skipped = left.min(src.len() as u64);
                    let left = left - skipped;
                    if left > 0 {
                        self.state = State::Skip { left };
                        return Ok(Step::Incomplete { consumed: src.len(), needed: 0 });
                    }
                    self.state = START;
                    // One level deep: what comes next is no skipping.
                    let rest = src.get(skipped as usize..).unwrap_or_default();
                    return Ok(self.step(rest)?.behind(skipped as usize));
                }
            }
        }
    }

    /// Reads the lines of the head that are here. `None`: the head is whole and the payload comes next.
    fn head(&mut self, src: &[u8]) -> Result<Option<Step>, Violation> {
        let State::Head { mut line, mut scanned, mut length } = self.state else { return Ok(None) };
        if scanned == 0
            && let Some((head, size)) = plain_head(src)
            && head <= self.max_head
        {
            return Ok(self.payload(head, size));
        }
        loop {
            let within = src.get(..self.max_head.min(src.len())).unwrap_or_default();
            let Some(found) = scan::find_newline(within.get(scanned..).unwrap_or_default()) else {
                if !src.is_empty() && src.len() >= self.max_head {
                    return Err(Violation::HeadTooLarge { limit: self.max_head });
                }
                self.state = State::Head { line, scanned: src.len(), length };
                return Ok(Some(Step::Incomplete { consumed: 0, needed: 0 }));
            };
            let newline = scanned + found;
            let text = src.get(line..newline).unwrap_or_default();
            let Some((b'\r', text)) = text.split_last() else {
                return Err(Violation::BadHeader { reason: "a line ends with LF alone" });
            };
            (line, scanned) = (newline + 1, newline + 1);
            if !text.is_empty() {
                length = read_header(text, length)?;
                continue;
            }
            let Some(size) = length else {
                return Err(Violation::BadHeader { reason: "no Content-Length" });
            };
            return Ok(self.payload(line, size));
        }
    }

    /// A head of `head` bytes has announced a payload of `size`.
    #[inline]
    fn payload(&mut self, head: usize, size: u64) -> Option<Step> {
        if size > self.max_size as u64 {
            self.state = State::Skip { left: size };
            let fault = Fault::TooLarge { size, limit: self.max_size };
            return Some(Step::Fault { fault, consumed: head });
        }
        // Not above `max_size`, so it fits.
        self.state = State::Payload { head, end: head.saturating_add(size as usize) };
        None
    }
}

/// Length of the head that `src` begins with, and what it says, if it is `Content-Length: <digits>` alone and all here.
/// Nothing that [`read_header`] would refuse is let through.
#[inline]
fn plain_head(src: &[u8]) -> Option<(usize, u64)> {
    let (start, rest) = src.split_first_chunk()?;
    if start != START_OF_HEAD {
        return None;
    }
    let mut size = 0_u64;
    let mut digits = 0;
    for &byte in rest.iter().take(MAX_DIGITS) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        size = size * 10 + u64::from(digit);
        digits += 1;
    }
    let zero_first = rest.first() == Some(&b'0') && digits > 1;
    let ends = rest.get(digits..)?.first_chunk() == Some(END_OF_HEAD);
    (digits > 0 && !zero_first && ends).then_some((START_OF_HEAD.len() + digits + END_OF_HEAD.len(), size))
}

/// Reads one header line; returns the length that is known after it.
fn read_header(line: &[u8], known: Option<u64>) -> Result<Option<u64>, Violation> {
    let bad = |reason| Err(Violation::BadHeader { reason });
    if line.iter().any(|&byte| byte < b' ' && byte != b'\t' || byte == 0x7f) {
        return bad("a control character");
    }
    let Some(colon) = line.iter().position(|&byte| byte == b':') else {
        return bad("a line without a colon");
    };
    let (name, value) = line.split_at(colon);
    if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
        // A blank before the colon, a folded line, or a name that is none.
        return bad("a name that is no token");
    }
    if name.eq_ignore_ascii_case(b"Transfer-Encoding") {
        return bad("Transfer-Encoding");
    }
    if !name.eq_ignore_ascii_case(NAME) {
        return Ok(known);
    }
    let value = value.get(1..).unwrap_or_default();
    let digits = value.trim_ascii();
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return bad("a Content-Length that is no number of at most 18 digits");
    }
    if digits.len() > 1 && digits.first() == Some(&b'0') {
        return bad("a Content-Length with a leading zero");
    }
    let size = digits.iter().fold(0_u64, |size, &digit| size * 10 + u64::from(digit - b'0'));
    if known.is_some_and(|known| known != size) {
        return bad("two Content-Lengths that do not agree");
    }
    Ok(Some(size))
}

/// Whether a byte may stand in a header's name (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Frames into heads and payloads.
#[derive(Debug, Clone)]
pub struct ContentLengthEncoder {
    max_size: usize,
}

impl Default for ContentLengthEncoder {
    fn default() -> Self {
        Self { max_size: MAX_MESSAGE_SIZE }
    }
}

impl ContentLengthEncoder {
    /// The head for a payload of `size` bytes, and its length.
    fn head(&self, size: usize) -> Result<([u8; super::MAX_HEAD], usize), Rejection> {
        if size > self.max_size {
            return Err(Rejection::TooLarge { size, limit: self.max_size });
        }
        let count = size.checked_ilog10().unwrap_or(0) as usize + 1;
        let mut head = [0; super::MAX_HEAD];
        let len = START_OF_HEAD.len() + count + END_OF_HEAD.len();
        if let Some((start, rest)) = head.split_first_chunk_mut()
            && let Some((digits, end)) = rest.split_at_mut_checked(count)
            && let Some(end) = end.first_chunk_mut()
        {
            (*start, *end) = (*START_OF_HEAD, *END_OF_HEAD);
            let mut left = size;
            for digit in digits.iter_mut().rev() {
                *digit = b'0' + (left % 10) as u8;
                left /= 10;
            }
        }
        Ok((head, len))
    }
}

impl Encode for ContentLengthEncoder {
    fn overhead(&self) -> usize {
        START_OF_HEAD.len() + 20 + END_OF_HEAD.len()
    }

    fn encode(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<usize, Rejection> {
        let (head, len) = self.head(payload.len())?;
        Ok(super::join(head.get(..len).unwrap_or_default(), payload, dst))
    }

    fn wrap(&mut self, parts: &[IoSlice<'_>]) -> Result<Option<Wrap>, Rejection> {
        let (head, len) = self.head(parts.iter().map(|part| part.len()).sum())?;
        Ok(Some(Wrap::new(head.get(..len).unwrap_or_default(), &[])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::run;

    fn decoded(bytes: &[u8]) -> Vec<Result<Vec<u8>, Fault>> {
        let whole = run(&mut ContentLength::new().max_size(64).decoder, bytes, usize::MAX);
        for piece in 1..bytes.len().min(40) {
            assert_eq!(run(&mut ContentLength::new().max_size(64).decoder, bytes, piece), whole, "{piece}");
        }
        whole
    }

    #[test]
    fn heads_of_the_protocol_are_read() {
        let ok = |payload: &[u8]| Ok(payload.to_vec());
        assert_eq!(decoded(b"Content-Length: 2\r\n\r\n{}"), [ok(b"{}")]);
        assert_eq!(
            decoded(b"content-length:2\r\nContent-Type: x; charset=utf-8\r\n\r\n{}Content-Length: 0\r\n\r\n"),
            [ok(b"{}"), ok(b"")]
        );
        assert_eq!(
            decoded(b"X-Other: \xe9\r\nContent-Length:\t3 \r\nContent-Length: 3\r\n\r\nabc"),
            [ok(b"abc")]
        );
    }

    #[test]
    fn whatever_can_be_read_in_two_ways_ends_the_stream() {
        for head in [
            "Content-Length: +2\r\n\r\n",
            "Content-Length: -2\r\n\r\n",
            "Content-Length: 2 2\r\n\r\n",
            "Content-Length: 2, 2\r\n\r\n",
            "Content-Length: 0x2\r\n\r\n",
            "Content-Length: 02\r\n\r\n",
            "Content-Length: \r\n\r\n",
            "Content-Length: 2.0\r\n\r\n",
            "Content-Length: 9999999999999999999\r\n\r\n",
            "Content-Length: 2\r\nContent-Length: 3\r\n\r\n",
            "Content-Length : 2\r\n\r\n",
            "Content-Length: 2\n\n",
            "Content-Length: 2\r\n\n",
            "Content-Length: 2\r\n 3\r\n\r\n",
            "Content-Length: 2\r\nX: a\0b\r\n\r\n",
            "Content-Length: 2\r\nX: a\rb\r\n\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
            "X: y\r\n\r\n",
            "\r\n",
            ": 2\r\n\r\n",
            "no colon\r\n\r\n",
        ] {
            for piece in 1..=head.len() {
                let mut decoder = ContentLength::new().decoder;
                let mut buffer = Vec::new();
                let ended = head.as_bytes().chunks(piece).any(|piece| {
                    buffer.extend_from_slice(piece);
                    decoder.decode(&mut buffer).is_err()
                });
                assert!(ended, "{head:?} in pieces of {piece}");
                assert!(decoder.decode(&mut buffer).is_err(), "and stays ended");
            }
        }
    }

    #[test]
    fn a_head_is_bounded() {
        let mut decoder = ContentLength::new().max_head_size(30).decoder;
        let mut src = b"Content-Length: 2\r\nX: 12345\r\n\r\n{}".to_vec();
        assert_eq!(src.len(), 33);
        assert!(matches!(decoder.decode(&mut src), Err(Violation::HeadTooLarge { limit: 30 })));
        let mut decoder = ContentLength::new().max_head_size(31).decoder;
        assert!(matches!(decoder.decode(&mut src), Ok(Step::Frame { .. })));
    }

    #[test]
    fn a_payload_over_the_limit_is_one_fault() {
        let mut bytes = b"Content-Length: 65\r\n\r\n".to_vec();
        bytes.extend_from_slice(&[b'x'; 65]);
        bytes.extend_from_slice(b"Content-Length: 1\r\n\r\ny");
        assert_eq!(decoded(&bytes), [Err(Fault::TooLarge { size: 65, limit: 64 }), Ok(b"y".to_vec())]);
    }

    #[test]
    fn a_frame_behind_a_skipped_one_does_not_wait() {
        let mut decoder = ContentLength::new().max_size(2).decoder;
        let mut bytes = *b"Content-Length: 3\r\n\r\nabcContent-Length: 1\r\n\r\nd";
        assert!(matches!(decoder.decode(&mut bytes), Ok(Step::Fault { consumed: 21, .. })));
        assert_eq!(decoder.decode(&mut bytes[21..22]), Ok(Step::Incomplete { consumed: 1, needed: 0 }));
        assert_eq!(decoder.decode(&mut bytes[22..]), Ok(Step::Frame { payload: 23..24, consumed: 24 }));
    }

    #[test]
    fn the_end_inside_a_message_is_a_fault() {
        let whole = b"Content-Length: 2\r\n\r\n{}";
        for cut in 1..whole.len() {
            assert_eq!(decoded(&whole[..cut]), [Err(Fault::Truncated { size: cut })]);
        }
    }

    #[test]
    fn both_ways_of_writing_agree() {
        let mut encoder = ContentLength::new().encoder;
        for size in [0, 1, 9, 10, 33, 99, 100, 12_345] {
            let payload = vec![b'x'; size];
            let mut dst = vec![0; size + encoder.overhead()];
            let written = encoder.encode(&payload, &mut dst).unwrap();
            let head = format!("Content-Length: {size}\r\n\r\n");
            assert_eq!(dst[..written], [head.as_bytes(), &payload].concat());
            let wrap = encoder.wrap(&[IoSlice::new(&payload)]).unwrap().unwrap();
            assert_eq!(wrap.head(), head.as_bytes());
        }
    }
}
