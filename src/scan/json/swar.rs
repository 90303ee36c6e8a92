//! Masks by plain 64-bit arithmetic, eight bytes at a time: for every machine, and the yardstick of the others.

use super::block::{Brackets, Grammar, Lanes, Quoting, SIZE};

/// Eight bytes in a plain register.
pub(super) struct Swar;

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const LOW: u64 = u64::from_ne_bytes([0x7f; 8]);

/// The high bit of each byte of `word` that is zero. Exact: no carry crosses bytes.
#[inline]
fn zeros(word: u64) -> u64 {
    !(((word & LOW) + LOW) | word | LOW)
}

#[inline]
fn equal(word: u64, byte: u8) -> u64 {
    zeros(word ^ (ONES * byte as u64))
}

/// The high bits of the bytes as eight bits next to each other.
#[inline]
fn gather(high: u64) -> u64 {
    (high >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// One bit a byte, of what `find` marks by high bits.
#[inline]
fn bits(block: &[u8; SIZE], find: impl Fn(u64) -> u64) -> u64 {
    let (words, _) = block.as_chunks::<8>();
    words.iter().rev().fold(0, |bits, word| (bits << 8) | gather(find(u64::from_le_bytes(*word))))
}

#[inline]
fn is_bracket(word: u64) -> u64 {
    let braces = word | (ONES * 0x20);
    equal(braces, b'{') | equal(braces, b'}')
}

#[inline]
fn is_blank(word: u64) -> u64 {
    equal(word, b' ') | equal(word, b'\t') | equal(word, b'\n') | equal(word, b'\r')
}

/// Bit n of the answer is the parity of bits 0 to n.
#[inline]
pub(super) fn parity(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

impl Lanes for Swar {
    #[inline]
    unsafe fn quoting(block: &[u8; SIZE]) -> Quoting {
        Quoting {
            quotes: bits(block, |word| equal(word, b'"')),
            backslashes: bits(block, |word| equal(word, b'\\')),
        }
    }

    #[inline]
    unsafe fn any_bracket(block: &[u8; SIZE]) -> u64 {
        bits(block, is_bracket)
    }

    #[inline]
    unsafe fn brackets(block: &[u8; SIZE]) -> Brackets {
        Brackets {
            openers: bits(block, |word| equal(word | (ONES * 0x20), b'{')),
            closers: bits(block, |word| equal(word | (ONES * 0x20), b'}')),
            objects: bits(block, |word| (word << 2) & !LOW),
        }
    }

    #[inline]
    unsafe fn grammar(block: &[u8; SIZE]) -> Grammar {
        Grammar {
            quotes: bits(block, |word| equal(word, b'"')),
            backslashes: bits(block, |word| equal(word, b'\\')),
            operators: bits(block, |word| is_bracket(word) | equal(word, b':') | equal(word, b',')),
            blanks: bits(block, is_blank),
            controls: bits(block, |word| zeros(word & (ONES * 0xe0))),
            high: bits(block, |word| word & !LOW),
        }
    }

    #[inline]
    unsafe fn colons(block: &[u8; SIZE]) -> u64 {
        bits(block, |word| equal(word, b':'))
    }

    #[inline]
    unsafe fn blanks(block: &[u8; SIZE]) -> u64 {
        bits(block, is_blank)
    }

    #[inline]
    unsafe fn parity(bits: u64) -> u64 {
        parity(bits)
    }
}
