//! Deflate data (RFC 1951) inflated as plainly as can be, bit by bit, as an oracle for permessage-deflate (RFC 7692).
#![allow(dead_code, unreachable_pub)]

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// The data break a rule.
    Data,
    /// The data end inside a block, or not where the message says.
    CutOff,
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Result<u32, Bad> {
        let byte = self.bytes.get(self.at / 8).ok_or(Bad::CutOff)?;
        let bit = byte >> (self.at % 8) & 1;
        self.at += 1;
        Ok(u32::from(bit))
    }

    fn bits(&mut self, count: u32) -> Result<u32, Bad> {
        (0..count).try_fold(0, |sum, at| Ok(sum | self.bit()? << at))
    }
}

/// How many codes there are of each length, and the symbols in the order of their codes.
struct Huffman {
    counts: [u16; 16],
    symbols: Vec<u16>,
}

impl Huffman {
    /// Also tells how many codes are left unused; `None` when there are too many.
    fn new(lengths: &[u8]) -> Option<(Self, i32)> {
        let mut counts = [0u16; 16];
        for length in lengths {
            counts[usize::from(*length)] += 1;
        }
        let mut left = 1i32;
        for count in &counts[1..] {
            left = left * 2 - i32::from(*count);
            if left < 0 {
                return None;
            }
        }
        let mut symbols: Vec<u16> =
            (0..lengths.len() as u16).filter(|symbol| lengths[usize::from(*symbol)] > 0).collect();
        symbols.sort_by_key(|symbol| lengths[usize::from(*symbol)]);
        Some((Self { counts, symbols }, left))
    }

    fn symbol(&self, bits: &mut Bits<'_>) -> Result<u16, Bad> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in &self.counts[1..] {
            code |= bits.bit()? as i32;
            let count = i32::from(*count);
            if code - count < first {
                return Ok(self.symbols[(index + code - first) as usize]);
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err(Bad::Data)
    }
}

const LENGTHS: [(u16, u32); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];

/// The peer's whole stream of messages.
pub struct Stream {
    takeover: bool,
    window: usize,
    /// What came before, back to where the stream began.
    history: Vec<u8>,
}

impl Stream {
    pub fn new(bits: u8, takeover: bool) -> Self {
        Self { takeover, window: 1 << bits.max(9), history: Vec::new() }
    }

    /// The message that `payload`, without its tail, stands for; no more than `limit` bytes of it are made.
    pub fn message(&mut self, payload: &[u8], limit: usize) -> Result<Vec<u8>, Bad> {
        if payload.is_empty() {
            return Err(Bad::CutOff);
        }
        let whole = [payload, &[0, 0, 0xff, 0xff]].concat();
        let mut start = self.history.len();
        let mut bits = Bits { bytes: &whole, at: 0 };
        let mut message = Vec::new();
        loop {
            let used = bits.at.div_ceil(8);
            if bits.at > 0 && used >= whole.len() {
                break;
            }
            let last = bits.bit()? == 1;
            self.block(&mut bits, limit.saturating_add(start))?;
            message.truncate(0);
            message.extend_from_slice(&self.history[start..]);
            if message.len() > limit {
                return Ok(message);
            }
            if last {
                bits.at = bits.at.next_multiple_of(8);
                // What follows looks back on this message and no further.
                self.history.drain(..start);
                start = 0;
                if !self.takeover {
                    self.history.clear();
                    let rest = &whole[bits.at / 8..];
                    if rest.len() > 4 {
                        // Not told apart further by this oracle.
                        return Err(Bad::CutOff);
                    }
                }
                if bits.at / 8 == payload.len() {
                    break;
                }
            }
        }
        if !self.takeover {
            self.history.clear();
        }
        Ok(message)
    }

    fn block(&mut self, bits: &mut Bits<'_>, limit: usize) -> Result<(), Bad> {
        match bits.bits(2)? {
            0 => {
                bits.at = bits.at.next_multiple_of(8);
                let (size, check) = (bits.bits(16)?, bits.bits(16)?);
                if size != !check & 0xffff {
                    return Err(Bad::Data);
                }
                for _ in 0..size {
                    let byte = bits.bits(8)? as u8;
                    self.history.push(byte);
                }
                Ok(())
            }
            1 => {
                let lengths: Vec<u8> =
                    [(8, 144), (9, 112), (7, 24), (8, 8)].iter().flat_map(|(l, n)| vec![*l; *n]).collect();
                let (literals, _) = Huffman::new(&lengths).unwrap();
                let (distances, _) = Huffman::new(&[5; 30]).unwrap();
                self.codes(bits, &literals, &distances, limit)
            }
            2 => {
                let literals = bits.bits(5)? as usize + 257;
                let distances = bits.bits(5)? as usize + 1;
                let codes = bits.bits(4)? as usize + 4;
                if literals > 286 || distances > 30 {
                    return Err(Bad::Data);
                }
                let mut lengths = [0u8; 19];
                let order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
                for index in &order[..codes] {
                    lengths[*index] = bits.bits(3)? as u8;
                }
                let (code, left) = Huffman::new(&lengths).ok_or(Bad::Data)?;
                if left != 0 {
                    return Err(Bad::Data);
                }
                let mut all = Vec::new();
                while all.len() < literals + distances {
                    let (length, times) = match code.symbol(bits)? {
                        16 => (*all.last().ok_or(Bad::Data)?, 3 + bits.bits(2)?),
                        17 => (0, 3 + bits.bits(3)?),
                        18 => (0, 11 + bits.bits(7)?),
                        length => (length as u8, 1),
                    };
                    all.extend((0..times).map(|_| length));
                }
                if all.len() > literals + distances || all[256] == 0 {
                    return Err(Bad::Data);
                }
                let (of_literals, of_distances) = all.split_at(literals);
                let used = |lengths: &[u8]| lengths.iter().filter(|length| **length > 0).count();
                let (literal, left) = Huffman::new(of_literals).ok_or(Bad::Data)?;
                if left != 0 && (used(of_literals) != 1 || literal.counts[1] != 1) {
                    return Err(Bad::Data);
                }
                let (distance, left) = Huffman::new(of_distances).ok_or(Bad::Data)?;
                if left != 0 && used(of_distances) != usize::from(distance.counts[1]) {
                    return Err(Bad::Data);
                }
                self.codes(bits, &literal, &distance, limit)
            }
            _ => Err(Bad::Data),
        }
    }

    fn codes(
        &mut self,
        bits: &mut Bits<'_>,
        literals: &Huffman,
        distances: &Huffman,
        limit: usize,
    ) -> Result<(), Bad> {
        loop {
            if self.history.len() > limit {
                return Ok(());
            }
            let symbol = literals.symbol(bits)?;
            match symbol {
                0..256 => self.history.push(symbol as u8),
                256 => return Ok(()),
                _ => {
                    let (base, extra) = *LENGTHS.get(usize::from(symbol) - 257).ok_or(Bad::Data)?;
                    let length = usize::from(base) + bits.bits(extra)? as usize;
                    let symbol = u32::from(distances.symbol(bits)?);
                    if symbol >= 30 {
                        return Err(Bad::Data);
                    }
                    let extra = (symbol / 2).saturating_sub(1);
                    let base = if symbol < 4 { symbol + 1 } else { 1 + ((2 + symbol % 2) << extra) };
                    let distance = (base + bits.bits(extra)?) as usize;
                    if distance > self.history.len().min(self.window) {
                        return Err(Bad::Data);
                    }
                    for _ in 0..length {
                        self.history.push(self.history[self.history.len() - distance]);
                    }
                }
            }
        }
    }
}
