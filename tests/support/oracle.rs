//! Codecs once more, as simple as can be: the whole stream at once, no state, no thought of speed. And a driver that
//! holds a decoder to the letter of its contract. Use it as `#[path = "support/oracle.rs"] mod oracle;`.
#![allow(dead_code, unreachable_pub)]

use framewire::{
    codec::{Decode, Endian, Step, Unterminated},
    error::{Fault, Violation},
};

/// What came out of a stream, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Frame(Vec<u8>),
    Fault(Fault),
    /// The end, by a violation of this kind.
    BadHeader,
    HeadTooLarge,
    BadLength,
}

impl Outcome {
    fn violation(violation: &Violation) -> Self {
        match violation {
            Violation::BadHeader { .. } => Self::BadHeader,
            Violation::HeadTooLarge { .. } => Self::HeadTooLarge,
            Violation::BadLength { .. } => Self::BadLength,
            other => panic!("not a codec's: {other}"),
        }
    }
}

/// What a decoder made of a stream, and the most bytes that had to be kept for it between two reads.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    pub outcomes: Vec<Outcome>,
    pub kept: usize,
}

/// Decodes a stream that comes in `pieces`. After `Incomplete` the decoder is not asked again until there are more
/// bytes; after a violation it is asked once more, to see that it stays with it.
pub fn run<'a>(decoder: &mut dyn Decode, pieces: impl IntoIterator<Item = &'a [u8]>) -> Run {
    let (mut outcomes, mut kept) = (Vec::new(), 0);
    let mut buffer: Vec<u8> = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        if drain(decoder, &mut buffer, &mut outcomes, false) {
            return Run { outcomes, kept };
        }
        kept = kept.max(buffer.len());
    }
    if !drain(decoder, &mut buffer, &mut outcomes, true) {
        assert!(buffer.is_empty(), "left over at the end: {buffer:?}");
    }
    Run { outcomes, kept }
}

/// Takes out what is there; true when the stream is broken.
fn drain(decoder: &mut dyn Decode, buffer: &mut Vec<u8>, outcomes: &mut Vec<Outcome>, ended: bool) -> bool {
    loop {
        let step = if ended { decoder.decode_eof(buffer) } else { decoder.decode(buffer) };
        match step {
            Ok(Step::Frame { payload, consumed }) => {
                assert!(payload.end <= consumed);
                outcomes.push(Outcome::Frame(buffer[payload].to_vec()));
                buffer.drain(..consumed);
            }
            Ok(Step::Fault { fault, consumed }) => {
                outcomes.push(Outcome::Fault(fault));
                buffer.drain(..consumed);
            }
            Ok(Step::Produced { consumed }) => {
                outcomes.push(Outcome::Frame(decoder.produced().to_vec()));
                buffer.drain(..consumed);
            }
            Ok(Step::Event { consumed }) => drop(buffer.drain(..consumed)),
            Ok(Step::End { .. }) => return true,
            Ok(Step::Incomplete { consumed, needed }) => {
                buffer.drain(..consumed);
                assert!(needed == 0 || needed > buffer.len(), "{needed} needed, {} there", buffer.len());
                return false;
            }
            Err(violation) => {
                assert_eq!(decoder.decode(buffer), Err(violation.clone()), "it stays broken");
                outcomes.push(Outcome::violation(&violation));
                return true;
            }
        }
    }
}

/// The pieces of `bytes` when it is cut after each of `sizes` bytes, over and over.
pub fn cut<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut sizes = sizes.iter().cycle();
    while !bytes.is_empty() {
        let (piece, rest) =
            bytes.split_at(sizes.next().map_or(bytes.len(), |&size| size.clamp(1, bytes.len())));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// Newline framing.
pub fn lines(bytes: &[u8], limit: usize, utf8: bool, policy: Unterminated) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    let last = lines.len() - 1;
    if let Some(rest) = lines[0].strip_prefix(b"\xef\xbb\xbf") {
        lines[0] = rest;
    }
    for (index, line) in lines.into_iter().enumerate() {
        let payload = line.strip_suffix(b"\r").unwrap_or(line);
        let size = payload.len();
        outcomes.push(if size == 0 {
            continue;
        } else if size > limit {
            Outcome::Fault(Fault::TooLarge { size: size as u64, limit })
        } else if index == last && policy == Unterminated::Fault {
            let mark = if index == 0 { bytes.len() - line.len() } else { 0 };
            Outcome::Fault(Fault::Truncated { size: line.len() + mark })
        } else {
            match std::str::from_utf8(payload) {
                Err(error) if utf8 => {
                    Outcome::Fault(Fault::InvalidUtf8 { size, valid_up_to: error.valid_up_to() })
                }
                _ => Outcome::Frame(payload.to_vec()),
            }
        });
    }
    outcomes
}

/// How a length prefix is written. No width: LEB128.
#[derive(Debug, Clone, Copy)]
pub struct Prefix {
    pub width: Option<usize>,
    pub endian: Endian,
    pub offset: usize,
    pub counts_head: bool,
    pub adjustment: i64,
}

impl Prefix {
    /// Bytes of the head and the number in it. `None`: cut off.
    fn head(&self, bytes: &[u8]) -> Result<Option<(usize, u64)>, Outcome> {
        let Some(bytes) = bytes.get(self.offset..) else { return Ok(None) };
        if let Some(width) = self.width {
            let Some(field) = bytes.get(..width) else { return Ok(None) };
            let mut field = field.to_vec();
            if self.endian == Endian::Big {
                field.reverse();
            }
            field.resize(8, 0);
            let number = u64::from_le_bytes(field.try_into().unwrap());
            return Ok(Some((self.offset + width, number)));
        }
        let Some(last) = bytes.iter().take(10).position(|byte| byte & 0x80 == 0) else {
            return if bytes.len() < 10 { Ok(None) } else { Err(Outcome::BadLength) };
        };
        let number =
            bytes[..=last].iter().rev().fold(0_u128, |number, byte| (number << 7) | u128::from(byte & 0x7f));
        let minimal = last == 0 || bytes[last] != 0;
        match u64::try_from(number) {
            Ok(number) if minimal => Ok(Some((self.offset + last + 1, number))),
            _ => Err(Outcome::BadLength),
        }
    }
}

/// Length-prefix framing.
pub fn prefixed(mut bytes: &[u8], limit: usize, prefix: Prefix) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    while !bytes.is_empty() {
        let (head, number) = match prefix.head(bytes) {
            Ok(Some(read)) => read,
            Ok(None) => {
                outcomes.push(Outcome::Fault(Fault::Truncated { size: bytes.len() }));
                break;
            }
            Err(violation) => {
                outcomes.push(violation);
                break;
            }
        };
        let counted = if prefix.counts_head { head as i128 } else { 0 } + i128::from(prefix.adjustment);
        let Ok(size) = u64::try_from(i128::from(number) - counted) else {
            outcomes.push(Outcome::BadLength);
            break;
        };
        let rest = &bytes[head..];
        if size > limit as u64 {
            outcomes.push(Outcome::Fault(Fault::TooLarge { size, limit }));
            bytes = &rest[usize::try_from(size).unwrap_or(usize::MAX).min(rest.len())..];
        } else if size as usize > rest.len() {
            outcomes.push(Outcome::Fault(Fault::Truncated { size: bytes.len() }));
            break;
        } else {
            outcomes.push(Outcome::Frame(rest[..size as usize].to_vec()));
            bytes = &rest[size as usize..];
        }
    }
    outcomes
}

/// Content-Length framing.
pub fn headed(mut bytes: &[u8], limit: usize, max_head: usize) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    while !bytes.is_empty() {
        let (head, size) = match head(bytes, max_head) {
            Ok(Some(read)) => read,
            Ok(None) => {
                outcomes.push(Outcome::Fault(Fault::Truncated { size: bytes.len() }));
                break;
            }
            Err(violation) => {
                outcomes.push(violation);
                break;
            }
        };
        let rest = &bytes[head..];
        if size > limit as u64 {
            outcomes.push(Outcome::Fault(Fault::TooLarge { size, limit }));
            bytes = &rest[usize::try_from(size).unwrap_or(usize::MAX).min(rest.len())..];
        } else if size as usize > rest.len() {
            outcomes.push(Outcome::Fault(Fault::Truncated { size: bytes.len() }));
            break;
        } else {
            outcomes.push(Outcome::Frame(rest[..size as usize].to_vec()));
            bytes = &rest[size as usize..];
        }
    }
    outcomes
}

fn head(bytes: &[u8], max_head: usize) -> Result<Option<(usize, u64)>, Outcome> {
    let (mut read, mut length) = (0, None);
    for line in bytes[..bytes.len().min(max_head)].split_inclusive(|&byte| byte == b'\n') {
        if !line.ends_with(b"\n") {
            break;
        }
        read += line.len();
        let line = line.strip_suffix(b"\r\n").ok_or(Outcome::BadHeader)?;
        if line.is_empty() {
            return length.map(|length| Some((read, length))).ok_or(Outcome::BadHeader);
        }
        // Every byte stands for the character of its number.
        let line: String = line.iter().map(|&byte| char::from(byte)).collect();
        let (name, value) = line.split_once(':').ok_or(Outcome::BadHeader)?;
        let is_token = |c: char| c.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]{}".contains(c);
        if name.is_empty()
            || !name.chars().all(is_token)
            || line.chars().any(|c| c.is_ascii_control() && c != '\t')
            || name.to_lowercase() == "transfer-encoding"
        {
            return Err(Outcome::BadHeader);
        }
        if name.to_lowercase() == "content-length" {
            let value = value.trim_matches([' ', '\t']);
            let number: u64 = value.parse().map_err(|_| Outcome::BadHeader)?;
            if number.to_string() != value || value.len() > 18 || length.is_some_and(|known| known != number)
            {
                return Err(Outcome::BadHeader);
            }
            length = Some(number);
        }
    }
    if bytes.len() >= max_head { Err(Outcome::HeadTooLarge) } else { Ok(None) }
}
