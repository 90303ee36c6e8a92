//! Masks by NEON, which every 64-bit ARM has.
//!
//! `target_feature` stands on each helper for the same reason as in `x86`.

use std::arch::aarch64::{
    uint8x16_t, vandq_u8, vceqq_u8, vcgeq_u8, vcltq_u8, vdupq_n_u8, vgetq_lane_u64, vld1q_u8, vorrq_u8,
    vpaddq_u8, vreinterpretq_u64_u8, vtstq_u8,
};

use super::block::{Brackets, Grammar, Lanes, Quoting, SIZE};

/// NEON alone.
pub(super) struct Neon;

type Bytes = [uint8x16_t; 4];

/// The bit of each byte of eight.
const BITS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];

/// Bit 5, which `[` and `]` lack of `{` and `}`.
const CASE: u8 = 0x20;

#[inline]
#[target_feature(enable = "neon")]
fn load(block: &[u8; SIZE]) -> Bytes {
    let (quarters, _) = block.as_chunks::<16>();
    let mut bytes = [vdupq_n_u8(0); 4];
    for (to, from) in bytes.iter_mut().zip(quarters) {
        // SAFETY: sixteen bytes that may be read; the load needs no alignment.
        *to = unsafe { vld1q_u8(from.as_ptr()) };
    }
    bytes
}

/// One bit a byte, of bytes that are all ones or zero.
#[inline]
#[target_feature(enable = "neon")]
fn bits(bytes: Bytes) -> u64 {
    // SAFETY: sixteen bytes that may be read.
    let weights = unsafe { vld1q_u8(BITS.as_ptr()) };
    // Each sum joins the bits of neighbours; after three of them eight bytes are one.
    let [a, b, c, d] = bytes.map(|bytes| vandq_u8(bytes, weights));
    let halves = vpaddq_u8(vpaddq_u8(a, b), vpaddq_u8(c, d));
    vgetq_lane_u64::<0>(vreinterpretq_u64_u8(vpaddq_u8(halves, halves)))
}

#[inline]
#[target_feature(enable = "neon")]
fn equal(bytes: Bytes, byte: u8) -> Bytes {
    let byte = vdupq_n_u8(byte);
    bytes.map(|bytes| vceqq_u8(bytes, byte))
}

#[inline]
#[target_feature(enable = "neon")]
fn or([a, b, c, d]: Bytes, [e, f, g, h]: Bytes) -> Bytes {
    [vorrq_u8(a, e), vorrq_u8(b, f), vorrq_u8(c, g), vorrq_u8(d, h)]
}

#[inline]
#[target_feature(enable = "neon")]
fn any_bracket(bytes: Bytes) -> Bytes {
    let braces = or(bytes, [vdupq_n_u8(CASE); 4]);
    or(equal(braces, b'{'), equal(braces, b'}'))
}

#[inline]
#[target_feature(enable = "neon")]
fn blanks(bytes: Bytes) -> u64 {
    bits(or(or(equal(bytes, b' '), equal(bytes, b'\n')), or(equal(bytes, b'\r'), equal(bytes, b'\t'))))
}

impl Lanes for Neon {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn quoting(block: &[u8; SIZE]) -> Quoting {
        let bytes = load(block);
        Quoting { quotes: bits(equal(bytes, b'"')), backslashes: bits(equal(bytes, b'\\')) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn any_bracket(block: &[u8; SIZE]) -> u64 {
        bits(any_bracket(load(block)))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn brackets(block: &[u8; SIZE]) -> Brackets {
        let bytes = load(block);
        let case = vdupq_n_u8(CASE);
        let braces = or(bytes, [case; 4]);
        Brackets {
            openers: bits(equal(braces, b'{')),
            closers: bits(equal(braces, b'}')),
            objects: bits(bytes.map(|bytes| vtstq_u8(bytes, case))),
        }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn grammar(block: &[u8; SIZE]) -> Grammar {
        let bytes = load(block);
        Grammar {
            quotes: bits(equal(bytes, b'"')),
            backslashes: bits(equal(bytes, b'\\')),
            operators: bits(or(any_bracket(bytes), or(equal(bytes, b':'), equal(bytes, b',')))),
            blanks: blanks(bytes),
            controls: bits(bytes.map(|bytes| vcltq_u8(bytes, vdupq_n_u8(0x20)))),
            high: bits(bytes.map(|bytes| vcgeq_u8(bytes, vdupq_n_u8(0x80)))),
        }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn colons(block: &[u8; SIZE]) -> u64 {
        bits(equal(load(block), b':'))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn blanks(block: &[u8; SIZE]) -> u64 {
        blanks(load(block))
    }

    #[inline]
    unsafe fn parity(bits: u64) -> u64 {
        super::swar::parity(bits)
    }
}
