//! Length-prefix framing: each payload behind its length.
//!
//! ```text
//!  ◀── offset ──▶◀── width ──▶
//! ┌──────────────┬────────────┬───────────────┐
//! │ kept at zero │ length     │ payload       │     fixed width: 1 to 8 bytes, big or little endian
//! └──────────────┴────────────┴───────────────┘
//!  length = payload bytes (+ all bytes before the payload, with `counts_head`) + adjustment
//!
//! ┌────────────┬───────────────┐
//! │ LEB128     │ payload       │                   seven bits a byte, low first, high bit set on all but the last
//! └────────────┴───────────────┘
//! ```
//!
//! The default is four bytes, big endian, counting the payload alone. A length over the limit is told of before a byte
//! is kept for it; its payload is then skipped as it comes.

use std::{io::IoSlice, ops::Range};

use super::{Codec, Decode, Encode, Step, Wrap};
use crate::{
    error::{Fault, Rejection, Violation},
    limits::MAX_MESSAGE_SIZE,
};

/// Bytes of the longest LEB128 number of 64 bits.
const MAX_LEB128: usize = 10;

/// Most bytes that may stand before the length field.
const MAX_OFFSET: usize = 32;

/// Byte order of a length field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Endian {
    /// Most significant byte first: network order.
    #[default]
    Big,
    /// Least significant byte first.
    Little,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Fixed { width: usize, endian: Endian },
    Leb128,
}

/// How lengths are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    field: Field,
    offset: usize,
    counts_head: bool,
    adjustment: i64,
    /// Four bytes, big endian, payload alone.
    plain: bool,
}

impl Default for Layout {
    fn default() -> Self {
        let field = Field::Fixed { width: 4, endian: Endian::Big };
        Self { field, offset: 0, counts_head: false, adjustment: 0, plain: true }
    }
}

/// What a head says.
enum Head {
    /// Bytes of the head, payload size.
    Whole(usize, u64),
    /// More bytes are needed: at least so many in all.
    Part(usize),
}

impl Layout {
    fn is_plain(&self) -> bool {
        *self == Self { plain: self.plain, ..Self::default() }
    }

    fn read(&self, src: &[u8]) -> Result<Head, Violation> {
        let Some(bytes) = src.get(self.offset..) else { return Ok(Head::Part(self.offset + 1)) };
        let (width, length) = match self.field {
            Field::Fixed { width, endian } => {
                let Some(field) = bytes.get(..width) else { return Ok(Head::Part(self.offset + width)) };
                let fold = |number: u64, &byte: &u8| (number << 8) | u64::from(byte);
                let length = match endian {
                    Endian::Big => field.iter().fold(0, fold),
                    Endian::Little => field.iter().rev().fold(0, fold),
                };
                (width, length)
            }
            Field::Leb128 => match read_leb128(bytes)? {
                Some(read) => read,
                None => return Ok(Head::Part(self.offset + bytes.len() + 1)),
            },
        };
        let head = self.offset + width;
        let counted = i128::from(self.adjustment) + if self.counts_head { head as i128 } else { 0 };
        let size = i128::from(length) - counted;
        let size = u64::try_from(size).map_err(|_| Violation::BadLength {
            reason: "shorter than what it has to count, or beyond 64 bits",
        })?;
        Ok(Head::Whole(head, size))
    }

    /// Writes the head for `size` payload bytes to `dst`, which has room for the longest; returns its length.
    fn write(&self, size: usize, dst: &mut [u8; super::MAX_HEAD]) -> Result<usize, Rejection> {
        let refused = |width| Rejection::LengthField { size, width };
        match self.field {
            Field::Fixed { width, endian } => {
                let head = self.offset + width;
                let length = self.length(size, head).ok_or(refused(width))?;
                if width < 8 && length >> (8 * width) != 0 {
                    return Err(refused(width));
                }
                let bytes = match endian {
                    Endian::Big => length << (64 - 8 * width),
                    Endian::Little => length.swap_bytes(),
                };
                let field = dst.iter_mut().skip(self.offset);
                for (to, from) in field.zip(bytes.to_be_bytes().iter().take(width)) {
                    *to = *from;
                }
                Ok(head)
            }
            Field::Leb128 => {
                // The number may count its own head, whose length depends on it: take the shortest that fits.
                for width in 1..=MAX_LEB128 {
                    let head = self.offset + width;
                    let mut length = self.length(size, head).ok_or(refused(MAX_LEB128))?;
                    if width < MAX_LEB128 && length >> (7 * width) != 0 {
                        continue;
                    }
                    for (index, to) in dst.iter_mut().skip(self.offset).take(width).enumerate() {
                        let more = if index + 1 < width { 0x80 } else { 0 };
                        *to = (length & 0x7f) as u8 | more;
                        length >>= 7;
                    }
                    return Ok(head);
                }
                Err(refused(MAX_LEB128))
            }
        }
    }

    fn length(&self, size: usize, head: usize) -> Option<u64> {
        let counted = i128::from(self.adjustment) + if self.counts_head { head as i128 } else { 0 };
        u64::try_from(size as i128 + counted).ok()
    }

    fn longest_head(&self) -> usize {
        self.offset
            + match self.field {
                Field::Fixed { width, .. } => width,
                Field::Leb128 => MAX_LEB128,
            }
    }
}

/// Width and value of the number that `bytes` begin with; `None` when its end is not there.
fn read_leb128(bytes: &[u8]) -> Result<Option<(usize, u64)>, Violation> {
    let mut number = 0_u64;
    for (index, &byte) in bytes.iter().take(MAX_LEB128).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if index == MAX_LEB128 - 1 && byte > 1 {
            return Err(Violation::BadLength { reason: "LEB128 number beyond 64 bits" });
        }
        number |= bits << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                // Two ways to write one length are one too many for a gateway.
                return Err(Violation::BadLength { reason: "LEB128 number longer than it need be" });
            }
            return Ok(Some((index + 1, number)));
        }
    }
    Ok(None)
}

/// Length-prefix framing, both directions, with limits of 16 MiB.
#[derive(Debug, Clone, Default)]
pub struct LengthPrefix {
    decoder: LengthPrefixDecoder,
    encoder: LengthPrefixEncoder,
}

impl LengthPrefix {
    /// Four bytes, big endian, counting the payload alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn layout(mut self, change: impl FnOnce(&mut Layout)) -> Self {
        let mut layout = self.decoder.layout;
        change(&mut layout);
        layout.plain = layout.is_plain();
        self.decoder.layout = layout;
        self.encoder.layout = layout;
        self
    }

    /// A length field of `width` bytes, from 1 to 8; anything else is taken to the nearest of them.
    #[must_use]
    pub fn width(self, width: usize) -> Self {
        self.layout(|layout| {
            let endian = if let Field::Fixed { endian, .. } = layout.field { endian } else { Endian::Big };
            layout.field = Field::Fixed { width: width.clamp(1, 8), endian };
        })
    }

    /// The byte order of a fixed-width length field.
    #[must_use]
    pub fn endian(self, endian: Endian) -> Self {
        self.layout(|layout| {
            let width = if let Field::Fixed { width, .. } = layout.field { width } else { 4 };
            layout.field = Field::Fixed { width, endian };
        })
    }

    /// The length as an unsigned LEB128 number of at most ten bytes.
    #[must_use]
    pub fn leb128(self) -> Self {
        self.layout(|layout| layout.field = Field::Leb128)
    }

    /// `bytes` bytes (32 at the most) stand before the length field. They are written as zeros and not looked at.
    #[must_use]
    pub fn offset(self, bytes: usize) -> Self {
        self.layout(|layout| layout.offset = bytes.min(MAX_OFFSET))
    }

    /// Whether the length counts all bytes before the payload too.
    #[must_use]
    pub fn counts_head(self, counts: bool) -> Self {
        self.layout(|layout| layout.counts_head = counts)
    }

    /// The length on the wire is this much more than what it counts.
    #[must_use]
    pub fn adjustment(self, more: i64) -> Self {
        self.layout(|layout| layout.adjustment = more)
    }
}

impl Codec for LengthPrefix {
    type Decoder = LengthPrefixDecoder;
    type Encoder = LengthPrefixEncoder;

    fn split(self) -> (LengthPrefixDecoder, LengthPrefixEncoder) {
        (self.decoder, self.encoder)
    }
}

super::limited!(LengthPrefix);
super::delegate!(LengthPrefix);

/// Length-prefixed bytes into frames.
#[derive(Debug, Clone)]
pub struct LengthPrefixDecoder {
    layout: Layout,
    max_size: usize,
    /// Bytes of an over-long payload still to be skipped.
    skip: u64,
    broken: Option<Violation>,
}

impl Default for LengthPrefixDecoder {
    fn default() -> Self {
        Self { layout: Layout::default(), max_size: MAX_MESSAGE_SIZE, skip: 0, broken: None }
    }
}

impl Decode for LengthPrefixDecoder {
    #[inline]
    fn decode(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        if self.layout.plain
            && self.skip == 0
            && let Some(&[a, b, c, d]) = src.first_chunk::<4>()
        {
            let size = u32::from_be_bytes([a, b, c, d]) as usize;
            if size <= self.max_size {
                let end = size.saturating_add(4);
                return Ok(if end <= src.len() {
                    Step::Frame { payload: 4..end, consumed: end }
                } else {
                    Step::Incomplete { consumed: 0, needed: end }
                });
            }
        }
        self.decode_any(src)
    }

    fn is_mid_message(&self) -> bool {
        self.skip > 0
    }

    fn unfinished(&self, src: &[u8]) -> Range<usize> {
        match self.layout.read(src) {
            Ok(Head::Whole(head, _)) if self.skip == 0 => head..src.len(),
            _ => 0..0,
        }
    }

    fn decode_eof(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        match self.decode(src)? {
            // A payload that was being skipped has been told of already.
            Step::Incomplete { consumed, .. } if consumed < src.len() => {
                let size = src.len() - consumed;
                Ok(Step::Fault { fault: Fault::Truncated { size }, consumed: src.len() })
            }
            step => Ok(step),
        }
    }
}

impl LengthPrefixDecoder {
    /// Everything but the plain case.
    fn decode_any(&mut self, src: &[u8]) -> Result<Step, Violation> {
        if let Some(violation) = &self.broken {
            return Err(violation.clone());
        }
        if self.skip > 0 {
            let skipped = self.skip.min(src.len() as u64);
            self.skip -= skipped;
            let rest = src.get(skipped as usize..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(Step::Incomplete { consumed: src.len(), needed: 0 });
            }
            return Ok(self.decode_next(rest)?.behind(skipped as usize));
        }
        self.decode_next(src)
    }

    fn decode_next(&mut self, src: &[u8]) -> Result<Step, Violation> {
        let (head, size) = match self.layout.read(src) {
            Ok(Head::Whole(head, size)) => (head, size),
            Ok(Head::Part(needed)) => return Ok(Step::Incomplete { consumed: 0, needed }),
            Err(violation) => {
                self.broken = Some(violation.clone());
                return Err(violation);
            }
        };
        if size > self.max_size as u64 {
            self.skip = size;
            let fault = Fault::TooLarge { size, limit: self.max_size };
            return Ok(Step::Fault { fault, consumed: head });
        }
        // Not above `max_size`, so it fits.
        let end = head.saturating_add(size as usize);
        Ok(if end <= src.len() {
            Step::Frame { payload: head..end, consumed: end }
        } else {
            Step::Incomplete { consumed: 0, needed: end }
        })
    }
}

/// Frames into length-prefixed bytes.
#[derive(Debug, Clone)]
pub struct LengthPrefixEncoder {
    layout: Layout,
    max_size: usize,
}

impl Default for LengthPrefixEncoder {
    fn default() -> Self {
        Self { layout: Layout::default(), max_size: MAX_MESSAGE_SIZE }
    }
}

impl Encode for LengthPrefixEncoder {
    fn overhead(&self) -> usize {
        self.layout.longest_head()
    }

    #[inline]
    fn encode(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<usize, Rejection> {
        let size = payload.len();
        if size > self.max_size {
            return Err(Rejection::TooLarge { size, limit: self.max_size });
        }
        if self.layout.plain
            && let Ok(length) = u32::try_from(size)
            && let Some((head, rest)) = dst.split_first_chunk_mut::<4>()
            && let Some(rest) = rest.get_mut(..size)
        {
            *head = length.to_be_bytes();
            rest.copy_from_slice(payload);
            return Ok(size + 4);
        }
        self.encode_any(payload, dst)
    }

    fn wrap(&mut self, parts: &[IoSlice<'_>]) -> Result<Option<Wrap>, Rejection> {
        let size = parts.iter().map(|part| part.len()).sum();
        if size > self.max_size {
            return Err(Rejection::TooLarge { size, limit: self.max_size });
        }
        let mut head = [0; super::MAX_HEAD];
        let len = self.layout.write(size, &mut head)?;
        Ok(Some(Wrap::new(head.get(..len).unwrap_or_default(), &[])))
    }
}

impl LengthPrefixEncoder {
    /// Any layout.
    fn encode_any(&self, payload: &[u8], dst: &mut [u8]) -> Result<usize, Rejection> {
        let mut head = [0; super::MAX_HEAD];
        let len = self.layout.write(payload.len(), &mut head)?;
        Ok(super::join(head.get(..len).unwrap_or_default(), payload, dst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::run;

    fn layouts() -> Vec<LengthPrefix> {
        let mut all = vec![LengthPrefix::new().leb128(), LengthPrefix::new().leb128().counts_head(true)];
        for width in 1..=8 {
            for endian in [Endian::Big, Endian::Little] {
                let codec = LengthPrefix::new().width(width).endian(endian);
                all.push(codec.clone().offset(3).counts_head(true));
                all.push(codec.clone().adjustment(5));
                all.push(codec.clone().adjustment(-1).counts_head(true));
                all.push(codec);
            }
        }
        all
    }

    fn encoded(codec: &LengthPrefix, payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut encoder = codec.encoder.clone();
        let mut bytes = Vec::new();
        for payload in payloads {
            let mut dst = vec![0; payload.len() + encoder.overhead()];
            let written = encoder.encode(payload, &mut dst).expect("fits");
            let wrap = encoder.wrap(&[IoSlice::new(payload)]).expect("fits").expect("untouched");
            assert_eq!(dst[..written], [wrap.head(), payload, wrap.tail()].concat());
            bytes.extend_from_slice(&dst[..written]);
        }
        bytes
    }

    #[test]
    fn every_layout_comes_back_however_it_is_cut() {
        let payloads = [vec![], vec![1], vec![2; 100], vec![3; 127], vec![4; 128], vec![5; 200]];
        for codec in layouts() {
            let bytes = encoded(&codec, &payloads);
            for piece in [1, 2, 3, 5, 64, usize::MAX] {
                let back: Vec<_> = run(&mut codec.decoder.clone(), &bytes, piece);
                assert_eq!(back, payloads.iter().cloned().map(Ok).collect::<Vec<_>>(), "{codec:?} {piece}");
            }
        }
    }

    #[test]
    fn the_default_is_four_bytes_in_network_order() {
        assert_eq!(encoded(&LengthPrefix::new(), &[vec![b'a'; 3]]), b"\0\0\0\x03aaa");
    }

    #[test]
    fn a_length_over_the_limit_is_told_of_at_once_and_skipped() {
        let codec = LengthPrefix::new().max_decode_size(4);
        let bytes = encoded(&codec, &[vec![1; 4], vec![2; 5], vec![3; 3]]);
        let fault = Fault::TooLarge { size: 5, limit: 4 };
        for piece in [1, 2, 7, usize::MAX] {
            let back = run(&mut codec.decoder.clone(), &bytes, piece);
            assert_eq!(back, [Ok(vec![1; 4]), Err(fault.clone()), Ok(vec![3; 3])]);
        }
        let mut decoder = codec.decoder;
        let step = decoder.decode(&mut [0xff; 4]).unwrap();
        assert_eq!(
            step,
            Step::Fault { fault: Fault::TooLarge { size: u32::MAX.into(), limit: 4 }, consumed: 4 }
        );
    }

    #[test]
    fn a_frame_behind_a_skipped_one_does_not_wait() {
        let mut decoder = LengthPrefix::new().max_decode_size(4).decoder;
        let mut bytes = *b"\0\0\0\x05abcde\0\0\0\x01f\0";
        assert!(matches!(decoder.decode(&mut bytes), Ok(Step::Fault { consumed: 4, .. })));
        assert_eq!(decoder.decode(&mut bytes[4..6]), Ok(Step::Incomplete { consumed: 2, needed: 0 }));
        assert_eq!(decoder.decode(&mut bytes[6..]), Ok(Step::Frame { payload: 7..8, consumed: 8 }));
        assert_eq!(decoder.decode(&mut bytes[14..]), Ok(Step::Incomplete { consumed: 0, needed: 4 }));
    }

    #[test]
    fn a_skipped_payload_that_the_end_cuts_off_is_told_of_once() {
        let codec = LengthPrefix::new().max_size(4);
        for piece in 1..7 {
            let fault = Fault::TooLarge { size: 5, limit: 4 };
            assert_eq!(run(&mut codec.decoder.clone(), b"\0\0\0\x05abc", piece), [Err(fault)]);
        }
    }

    #[test]
    fn impossible_lengths_end_the_stream() {
        let mut decoder = LengthPrefix::new().counts_head(true).decoder;
        assert!(matches!(decoder.decode(&mut [0, 0, 0, 3]), Err(Violation::BadLength { .. })));
        assert!(decoder.decode(&mut [0, 0, 0, 9, 0, 0, 0, 0, 0]).is_err(), "and stays ended");
        for bad in [&mut [0x80, 0x00][..], &mut [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]]
        {
            assert!(LengthPrefix::new().leb128().decoder.decode(bad).is_err());
        }
    }

    #[test]
    fn what_does_not_fit_the_field_is_refused() {
        let mut encoder = LengthPrefix::new().width(1).encoder;
        assert_eq!(
            encoder.encode(&[0; 256], &mut [0; 300]),
            Err(Rejection::LengthField { size: 256, width: 1 })
        );
        assert!(encoder.encode(&[0; 255], &mut [0; 300]).is_ok());
        let mut encoder = LengthPrefix::new().max_encode_size(2).encoder;
        assert_eq!(encoder.encode(&[0; 3], &mut [0; 9]), Err(Rejection::TooLarge { size: 3, limit: 2 }));
    }

    #[test]
    fn the_end_inside_a_message_is_a_fault() {
        for cut in 1..7 {
            let back = run(&mut LengthPrefix::new().decoder, &b"\0\0\0\x03aaa"[..cut], 2);
            assert_eq!(back, [Err(Fault::Truncated { size: cut })]);
        }
    }
}
