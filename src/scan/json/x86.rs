//! Masks by AVX2 with carry-less multiplication, and by SSE2, which every x86-64 has.
//!
//! `target_feature` stands on each helper, not only on the loops: without it the helper would be compiled for the
//! baseline, pass its vectors through memory, and be several times slower than SSE2.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_clmulepi64_si128, _mm_cmpeq_epi8, _mm_cvtsi128_si64, _mm_loadu_si128, _mm_min_epu8,
    _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8, _mm_slli_epi16, _mm256_cmpeq_epi8,
    _mm256_loadu_si256, _mm256_min_epu8, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8,
    _mm256_setr_epi8, _mm256_shuffle_epi8, _mm256_slli_epi16, _pext_u64,
};

use super::{
    Structure,
    block::{Brackets, Grammar, Lanes, Quoting, SIZE},
    kernel,
};

/// AVX2 and PCLMULQDQ, BMI1, BMI2, LZCNT, POPCNT.
pub(super) struct Avx2;

type Wide = (__m256i, __m256i);

#[inline]
#[target_feature(enable = "avx2")]
fn wide(block: &[u8; SIZE]) -> Wide {
    let (halves, _) = block.as_chunks::<32>();
    let [low, high] = halves else { return (_mm256_set1_epi8(0), _mm256_set1_epi8(0)) };
    // SAFETY: each is 32 bytes that may be read; the loads need no alignment.
    unsafe { (_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast())) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn wide_bits((low, high): Wide) -> u64 {
    u64::from(_mm256_movemask_epi8(low) as u32) | (u64::from(_mm256_movemask_epi8(high) as u32) << 32)
}

#[inline]
#[target_feature(enable = "avx2")]
fn wide_equal((low, high): Wide, byte: u8) -> Wide {
    let byte = _mm256_set1_epi8(byte as i8);
    (_mm256_cmpeq_epi8(low, byte), _mm256_cmpeq_epi8(high, byte))
}

#[inline]
#[target_feature(enable = "avx2")]
fn wide_or(one: Wide, other: Wide) -> Wide {
    (_mm256_or_si256(one.0, other.0), _mm256_or_si256(one.1, other.1))
}

/// For each byte: whether the entry of `table` that its low four bits name equals `key`'s byte.
#[inline]
#[target_feature(enable = "avx2")]
fn wide_look_up(bytes: Wide, table: __m256i, key: Wide) -> u64 {
    wide_bits((
        _mm256_cmpeq_epi8(_mm256_shuffle_epi8(table, bytes.0), key.0),
        _mm256_cmpeq_epi8(_mm256_shuffle_epi8(table, bytes.1), key.1),
    ))
}

#[inline]
#[target_feature(enable = "avx2")]
fn twice(table: [u8; 16]) -> __m256i {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = table.map(|byte| byte as i8);
    _mm256_setr_epi8(
        a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p,
    )
}

/// At the index of its low four bits each blank; elsewhere a byte that does not have this index as its low bits.
const BLANKS: [u8; 16] = [b' ', 0, 0, 0, 0, 0, 0, 0, 0, b'\t', b'\n', 0, 0, b'\r', 0, 0];

/// The same for `: { , }`, with a byte at index 0 that nothing with bit 5 set equals.
const OPERATORS: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b':', b'{', b',', b'}', 0, 0];

/// Bit 5, which `[` and `]` lack of `{` and `}`.
const CASE: u8 = 0x20;

impl Lanes for Avx2 {
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn quoting(block: &[u8; SIZE]) -> Quoting {
        let bytes = wide(block);
        Quoting {
            quotes: wide_bits(wide_equal(bytes, b'"')),
            backslashes: wide_bits(wide_equal(bytes, b'\\')),
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn any_bracket(block: &[u8; SIZE]) -> u64 {
        let bytes = wide(block);
        let case = _mm256_set1_epi8(CASE as i8);
        let braces = wide_or(bytes, (case, case));
        wide_bits(wide_or(wide_equal(braces, b'{'), wide_equal(braces, b'}')))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn brackets(block: &[u8; SIZE]) -> Brackets {
        let bytes = wide(block);
        let case = _mm256_set1_epi8(CASE as i8);
        let braces = wide_or(bytes, (case, case));
        Brackets {
            openers: wide_bits(wide_equal(braces, b'{')),
            closers: wide_bits(wide_equal(braces, b'}')),
            // The highest bit of a byte is what becomes a bit of the mask.
            objects: wide_bits((_mm256_slli_epi16::<2>(bytes.0), _mm256_slli_epi16::<2>(bytes.1))),
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn grammar(block: &[u8; SIZE]) -> Grammar {
        let bytes = wide(block);
        let case = _mm256_set1_epi8(CASE as i8);
        let braces = wide_or(bytes, (case, case));
        let last = _mm256_set1_epi8(0x1f);
        let below = (_mm256_min_epu8(bytes.0, last), _mm256_min_epu8(bytes.1, last));
        Grammar {
            quotes: wide_bits(wide_equal(bytes, b'"')),
            backslashes: wide_bits(wide_equal(bytes, b'\\')),
            operators: wide_look_up(bytes, twice(OPERATORS), braces),
            // A NUL would equal the entry at 0 were it not a space.
            blanks: wide_look_up(bytes, twice(BLANKS), bytes),
            controls: wide_bits((_mm256_cmpeq_epi8(below.0, bytes.0), _mm256_cmpeq_epi8(below.1, bytes.1))),
            high: wide_bits(bytes),
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn colons(block: &[u8; SIZE]) -> u64 {
        wide_bits(wide_equal(wide(block), b':'))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn blanks(block: &[u8; SIZE]) -> u64 {
        let bytes = wide(block);
        wide_look_up(bytes, twice(BLANKS), bytes)
    }

    #[inline]
    #[target_feature(enable = "pclmulqdq")]
    unsafe fn parity(bits: u64) -> u64 {
        let product = _mm_clmulepi64_si128::<0>(_mm_set_epi64x(0, bits as i64), _mm_set1_epi8(-1));
        _mm_cvtsi128_si64(product) as u64
    }

    #[inline(never)]
    #[target_feature(enable = "avx2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn run_ahead(structure: &mut Structure, bytes: &[u8]) -> Option<()> {
        // SAFETY: this function has the instructions.
        unsafe { kernel::run_ahead::<Self>(structure, bytes) }
    }

    const COMPRESSES: bool = true;

    #[inline]
    #[target_feature(enable = "bmi2")]
    unsafe fn compress(bits: u64, mask: u64) -> u64 {
        _pext_u64(bits, mask)
    }
}

/// SSE2 alone.
pub(super) struct Sse2;

type Narrow = [__m128i; 4];

#[inline]
#[target_feature(enable = "sse2")]
fn narrow(block: &[u8; SIZE]) -> Narrow {
    let (quarters, _) = block.as_chunks::<16>();
    let mut bytes = [_mm_set1_epi8(0); 4];
    for (to, from) in bytes.iter_mut().zip(quarters) {
        // SAFETY: sixteen bytes that may be read; the load needs no alignment.
        *to = unsafe { _mm_loadu_si128(from.as_ptr().cast()) };
    }
    bytes
}

#[inline]
#[target_feature(enable = "sse2")]
fn narrow_bits([a, b, c, d]: Narrow) -> u64 {
    let low = (_mm_movemask_epi8(a) as u32 & 0xffff) | ((_mm_movemask_epi8(b) as u32) << 16);
    let high = (_mm_movemask_epi8(c) as u32 & 0xffff) | ((_mm_movemask_epi8(d) as u32) << 16);
    u64::from(low) | (u64::from(high) << 32)
}

#[inline]
#[target_feature(enable = "sse2")]
fn narrow_equal([a, b, c, d]: Narrow, byte: u8) -> Narrow {
    let byte = _mm_set1_epi8(byte as i8);
    [_mm_cmpeq_epi8(a, byte), _mm_cmpeq_epi8(b, byte), _mm_cmpeq_epi8(c, byte), _mm_cmpeq_epi8(d, byte)]
}

#[inline]
#[target_feature(enable = "sse2")]
fn narrow_or([a, b, c, d]: Narrow, [e, f, g, h]: Narrow) -> Narrow {
    [_mm_or_si128(a, e), _mm_or_si128(b, f), _mm_or_si128(c, g), _mm_or_si128(d, h)]
}

#[inline]
#[target_feature(enable = "sse2")]
fn narrow_brackets(bytes: Narrow) -> Narrow {
    let braces = narrow_or(bytes, [_mm_set1_epi8(CASE as i8); 4]);
    narrow_or(narrow_equal(braces, b'{'), narrow_equal(braces, b'}'))
}

#[inline]
#[target_feature(enable = "sse2")]
fn narrow_blanks(bytes: Narrow) -> u64 {
    narrow_bits(narrow_or(
        narrow_or(narrow_equal(bytes, b' '), narrow_equal(bytes, b'\n')),
        narrow_or(narrow_equal(bytes, b'\r'), narrow_equal(bytes, b'\t')),
    ))
}

impl Lanes for Sse2 {
    #[inline]
    #[target_feature(enable = "sse2")]
    unsafe fn quoting(block: &[u8; SIZE]) -> Quoting {
        let bytes = narrow(block);
        Quoting {
            quotes: narrow_bits(narrow_equal(bytes, b'"')),
            backslashes: narrow_bits(narrow_equal(bytes, b'\\')),
        }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    unsafe fn any_bracket(block: &[u8; SIZE]) -> u64 {
        narrow_bits(narrow_brackets(narrow(block)))
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    unsafe fn brackets(block: &[u8; SIZE]) -> Brackets {
        let bytes = narrow(block);
        let braces = narrow_or(bytes, [_mm_set1_epi8(CASE as i8); 4]);
        Brackets {
            openers: narrow_bits(narrow_equal(braces, b'{')),
            closers: narrow_bits(narrow_equal(braces, b'}')),
            objects: narrow_bits(bytes.map(|bytes| _mm_slli_epi16::<2>(bytes))),
        }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    unsafe fn grammar(block: &[u8; SIZE]) -> Grammar {
        let bytes = narrow(block);
        let [a, b, c, d] = bytes;
        let last = _mm_set1_epi8(0x1f);
        Grammar {
            quotes: narrow_bits(narrow_equal(bytes, b'"')),
            backslashes: narrow_bits(narrow_equal(bytes, b'\\')),
            operators: narrow_bits(narrow_or(
                narrow_brackets(bytes),
                narrow_or(narrow_equal(bytes, b':'), narrow_equal(bytes, b',')),
            )),
            blanks: narrow_blanks(bytes),
            controls: narrow_bits([
                _mm_cmpeq_epi8(_mm_min_epu8(a, last), a),
                _mm_cmpeq_epi8(_mm_min_epu8(b, last), b),
                _mm_cmpeq_epi8(_mm_min_epu8(c, last), c),
                _mm_cmpeq_epi8(_mm_min_epu8(d, last), d),
            ]),
            high: narrow_bits(bytes),
        }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    unsafe fn colons(block: &[u8; SIZE]) -> u64 {
        narrow_bits(narrow_equal(narrow(block), b':'))
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    unsafe fn blanks(block: &[u8; SIZE]) -> u64 {
        narrow_blanks(narrow(block))
    }

    #[inline]
    unsafe fn parity(bits: u64) -> u64 {
        super::swar::parity(bits)
    }
}
