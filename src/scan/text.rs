//! UTF-8 checked while a mask is taken off, 64 bytes at a time with AVX2.
//!
//! After Keiser and Lemire, "Validating UTF-8 In Less Than One Instruction Per Byte" (2021). Each fault that two bytes next
//! to each other can have is a product of three sets: the high half of the first byte, its low half, the high half of the
//! second. So each fault is one bit, three tables of sixteen entries tell which faults a half rules out or leaves, and a
//! bit that is left by all three is a fault. Whether a third or fourth byte has to stand here is seen from the bytes two
//! and three before.
//!
//! ```text
//!  bytes    e2 82 ac 82
//!  here           ^        two continuations, 82 and ac; a lead of three or more stands two before: right
//!  here              ^     ac and 82: no lead of three or more two before, none of four three before: wrong
//! ```
//!
//! It is the number of operations on vectors that decides, 20 for each 32 bytes with the mask: each byte's own table
//! entries are shifted rather than looked up again for the byte after it, and the order of the faults' bits saves one more.
//!
//! `utf8` uses it.

use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_add_epi8, _mm256_alignr_epi8, _mm256_and_si256, _mm256_andnot_si256,
    _mm256_broadcastsi128_si256, _mm256_cmpgt_epi8, _mm256_loadu_si256, _mm256_movemask_epi8,
    _mm256_or_si256, _mm256_permute2x128_si256, _mm256_set_epi64x, _mm256_set1_epi8, _mm256_set1_epi32,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi16, _mm256_storeu_si256, _mm256_testz_si256,
    _mm256_xor_si256,
};

use super::mask::rotate;

/// Bytes of a vector.
const SIZE: usize = 32;

/// Bytes that are looked at between two branches.
const STEP: usize = 2 * SIZE;

/// The same, for as long as there is only ASCII.
const STRIDE: usize = 4 * SIZE;

/// The fewest bytes that are taken here.
pub(super) const LEAST: usize = 128;

/// From this size on, in bytes, it is worth a step to store where no line of the cache ends within.
const ALIGNED: usize = 4096;

// Faults of a pair of bytes.
/// A continuation after a continuation: no fault where a character needs a third or fourth byte. The lowest bit, so that
/// it and the -1 of a comparison make nothing.
const TWO_CONTINUATIONS: u8 = 1;
/// A lead, and no continuation.
const SHORT: u8 = 1 << 1;
/// ASCII, then a continuation.
const LONG: u8 = 1 << 2;
/// `c0` and `c1`.
const OVERLONG_2: u8 = 1 << 3;
/// `e0`, then less than `a0`.
const OVERLONG_3: u8 = 1 << 4;
/// `ed`, then `a0` or more.
const SURROGATE: u8 = 1 << 5;
/// `f4`, then `90` or more; `f5` and more, then any but `80` to `8f`.
const LARGE: u8 = 1 << 6;
/// `f0`, then less than `90`; `f5` and more, then `80` to `8f`.
const OVERLONG_4: u8 = 1 << 7;

/// By the high half of the first byte, with its highest bit turned over: the faults that it rules out.
const FIRST_HIGH: [u8; 16] = {
    let ascii = !LONG;
    let more = !TWO_CONTINUATIONS;
    let [two, three, four] = [!SHORT, !(SHORT | OVERLONG_3 | SURROGATE), !(SHORT | LARGE | OVERLONG_4)];
    let overlong = !(SHORT | OVERLONG_2);
    [
        more, more, more, more, overlong, two, three, four, //
        ascii, ascii, ascii, ascii, ascii, ascii, ascii, ascii,
    ]
};

/// By the low half of the first byte, if that is not ASCII: the faults that it rules out.
const FIRST_LOW: [u8; 16] = {
    let any = TWO_CONTINUATIONS | SHORT | LONG;
    let [zero, one] = [!(any | OVERLONG_2 | OVERLONG_3 | OVERLONG_4), !(any | OVERLONG_2)];
    let [four, five, d] =
        [!(any | LARGE), !(any | LARGE | OVERLONG_4), !(any | LARGE | OVERLONG_4 | SURROGATE)];
    [zero, one, !any, !any, four, five, five, five, five, five, five, five, five, d, five, five]
};

/// By the high half of the second byte, with its highest bit turned over: the faults that are left.
const SECOND_HIGH: [u8; 16] = {
    let any = TWO_CONTINUATIONS | LONG | OVERLONG_2;
    let [eight, nine, rest] =
        [any | OVERLONG_3 | OVERLONG_4, any | OVERLONG_3 | LARGE, any | SURROGATE | LARGE];
    [
        eight, nine, rest, rest, SHORT, SHORT, SHORT, SHORT, //
        SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT,
    ]
};

#[inline]
#[target_feature(enable = "avx2")]
fn table(entries: &[u8; 16]) -> __m256i {
    // SAFETY: sixteen bytes that may be read; the load needs no alignment.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(entries.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn all(byte: u8) -> __m256i {
    _mm256_set1_epi8(byte as i8)
}

/// The high half of each byte.
#[inline]
#[target_feature(enable = "avx2")]
fn high_half(bytes: __m256i) -> __m256i {
    _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), all(0x0f))
}

/// A vector that has been looked at, as far as the next one needs it.
#[derive(Clone, Copy)]
struct Looked {
    /// The bytes, with their highest bits turned over.
    bytes: __m256i,
    /// The faults that each rules out in a pair with the next.
    ruled_out: __m256i,
}

impl Looked {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn at(bytes: __m256i) -> Self {
        // So a byte that is not ASCII is an index by its low half; ASCII, with the bit, finds zero.
        let bytes = _mm256_xor_si256(bytes, all(0x80));
        let by_high = _mm256_shuffle_epi8(table(&FIRST_HIGH), high_half(bytes));
        let by_low = _mm256_shuffle_epi8(table(&FIRST_LOW), bytes);
        Self { bytes, ruled_out: _mm256_or_si256(by_high, by_low) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn at_ascii() -> Self {
        Self { bytes: all(0x80), ruled_out: all(!LONG) }
    }
}

/// How a text stands.
struct Check {
    last: Looked,
    wrong: __m256i,
}

impl Check {
    /// Nothing looked at but three bytes.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn after([first, second, third]: [u8; 3]) -> Self {
        let bytes = _mm256_set1_epi32(i32::from_le_bytes([0, first, second, third]));
        Self { last: Looked::at(bytes), wrong: _mm256_setzero_si256() }
    }

    /// Looks at the next two vectors; whether they are ASCII.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn step(&mut self, low: __m256i, high: __m256i) -> bool {
        if _mm256_movemask_epi8(_mm256_or_si256(low, high)) != 0 {
            self.look(low);
            self.look(high);
            return false;
        }
        // The last three bytes before: a lead of four, of three or more, of two or more.
        let any = i64::from_ne_bytes([0x7f; 8]);
        let most = _mm256_set_epi64x(0x3f5f_6f7f_7f7f_7f7f, any, any, any);
        self.wrong = _mm256_or_si256(self.wrong, _mm256_cmpgt_epi8(self.last.bytes, most));
        self.last = Looked::at_ascii();
        true
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn look(&mut self, bytes: __m256i) {
        let now = Looked::at(bytes);
        let shifted = _mm256_permute2x128_si256::<0x21>(self.last.ruled_out, now.ruled_out);
        let ruled_out = _mm256_alignr_epi8::<15>(now.ruled_out, shifted);
        let left = _mm256_shuffle_epi8(table(&SECOND_HIGH), high_half(now.bytes));
        let pair = _mm256_andnot_si256(ruled_out, left);
        let shifted = _mm256_permute2x128_si256::<0x21>(self.last.bytes, now.bytes);
        let must = _mm256_or_si256(
            _mm256_cmpgt_epi8(_mm256_alignr_epi8::<14>(now.bytes, shifted), all(0xe0 - 1 - 0x80)),
            _mm256_cmpgt_epi8(_mm256_alignr_epi8::<13>(now.bytes, shifted), all(0xf0 - 1 - 0x80)),
        );
        // -1 where there must be two continuations, which is 1: together they are nothing, each alone is something.
        self.wrong = _mm256_or_si256(self.wrong, _mm256_add_epi8(pair, must));
        self.last = now;
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn is_good(&self) -> bool {
        _mm256_testz_si256(self.wrong, self.wrong) == 1
    }
}

/// Takes the mask off `bytes`, of which there are at least [`LEAST`], and tells whether they can be UTF-8 when `before`, the
/// start of a character behind zeros, stands before them, whatever stands behind. Of the last byte alone nothing is said.
#[target_feature(enable = "avx2")]
pub(super) fn unmask(before: [u8; 3], bytes: &mut [u8], key: [u8; 4]) -> bool {
    let len = bytes.len();
    assert!(len >= LEAST);
    let start = bytes.as_mut_ptr();
    let lies = |by: usize| _mm256_set1_epi32(i32::from_ne_bytes(rotate(key, by)));
    // SAFETY: it is called with 32 bytes or more behind `at`, as the conditions below and the one above say; the load needs
    // no alignment.
    let plain = |at: usize, key| unsafe { _mm256_xor_si256(_mm256_loadu_si256(start.add(at).cast()), key) };
    // SAFETY: as above; nor does the store.
    let store = |at: usize, bytes| unsafe { _mm256_storeu_si256(start.add(at).cast(), bytes) };

    let mut check = Check::after(before);
    let mut is_ascii = before == [0; 3];
    let (mut at, mut first) = (0, None);
    if len >= ALIGNED {
        // Worked out before the bytes that it shares with the next step are stored, and stored after them.
        let key = lies(0);
        let step = [plain(0, key), plain(SIZE, key)];
        first = Some(step);
        is_ascii = check.step(step[0], step[1]);
        at = STEP - start.addr() % SIZE;
        if !is_ascii {
            check.last = Looked::at(plain(at - SIZE, lies(at)));
        }
    }
    let key = lies(at);
    // What is left by whole steps, with some of what is before it; worked out early for the same reason.
    let last = (!(len - at).is_multiple_of(STEP)).then(|| {
        let key = lies(len);
        [plain(len - STEP - SIZE, key), plain(len - STEP, key), plain(len - SIZE, key)]
    });
    while is_ascii && at + STRIDE <= len {
        let [a, b, c, d] = [0, 1, 2, 3].map(|index| plain(at + index * SIZE, key));
        let seen = _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d));
        is_ascii = _mm256_movemask_epi8(seen) == 0;
        if is_ascii {
            for (index, bytes) in [a, b, c, d].into_iter().enumerate() {
                store(at + index * SIZE, bytes);
            }
            at += STRIDE;
        }
    }
    while at + STEP <= len {
        let (low, high) = (plain(at, key), plain(at + SIZE, key));
        store(at, low);
        store(at + SIZE, high);
        check.step(low, high);
        at += STEP;
    }
    if let Some([before, low, high]) = last {
        check.last = Looked::at(before);
        check.step(low, high);
        store(len - STEP, low);
        store(len - SIZE, high);
    }
    if let Some([low, high]) = first {
        store(0, low);
        store(SIZE, high);
    }
    check.is_good()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said with the mask in one of its four places.
    fn ours(before: [u8; 3], bytes: &[u8], by: usize) -> bool {
        let key = rotate([0x37, 0xfa, 0x21, 0x3d], by);
        let mut masked: Box<[u8]> =
            bytes.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        // SAFETY: the callers have asked for AVX2.
        let good = unsafe { unmask(before, &mut masked, key) };
        assert_eq!(*masked, *bytes);
        good
    }

    /// What the standard library says: whether some bytes to come can make text of it.
    fn oracle(before: [u8; 3], bytes: &[u8]) -> bool {
        let all = [&before[..], bytes].concat();
        match std::str::from_utf8(&all) {
            Ok(_) => true,
            Err(error) => {
                // `c0` and the like are found with the byte after them, here; at the end, by the caller.
                let lead_at_the_end = matches!(all[error.valid_up_to()..], [0xc0..=0xff]);
                error.error_len().is_none() || lead_at_the_end
            }
        }
    }

    /// Text that is right, a character of each length by turns, in which what is put at any place is near other leads.
    fn text(len: usize, start: usize) -> Vec<u8> {
        let mut text: Vec<u8> =
            "a\u{e9}\u{20ac}\u{1f600}zz\u{10ffff}\u{7ff}\u{800}\u{ffff}\u{10000}\u{d7ff}\u{e000}b"
                .bytes()
                .cycle()
                .skip(start)
                .skip_while(|byte| (0x80..0xc0).contains(byte))
                .take(len)
                .collect();
        // A character that is cut would be wrong in the middle.
        while std::str::from_utf8(&text).is_err() {
            text.pop();
        }
        text.resize(len, b'.');
        text
    }

    const PIECES: [&[u8]; 40] = [
        // lone continuations, one too many, too long
        b"\x80",
        b"\xbf",
        b"a\x80",
        b"\xc3\xa9\x80",
        b"\xe2\x82\xac\x80",
        b"\xf0\x9f\x98\x80\x80",
        b"\x80\x80\x80\x80",
        // truncated
        b"\xc3",
        b"\xc3a",
        b"\xe2\x82",
        b"\xe2\x82a",
        b"\xe2a",
        b"\xf0\x9f\x98",
        b"\xf0\x9f\x98a",
        b"\xf0\x9fa",
        b"\xf0a",
        b"\xe2\xe2\x82\xac",
        b"\xe2\x82\xe2\x82\xac",
        b"\xf0\x9f\x98\xf0\x9f\x98\x80",
        b"\xc3\xc3\xa9",
        // overlong
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xe0\x9f\xbf",
        b"\xf0\x80\x80\x80",
        b"\xf0\x8f\xbf\xbf",
        // surrogates
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xed\x9f\xbf",
        b"\xee\x80\x80",
        // above U+10FFFF
        b"\xf4\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf4\xbf\xbf\xbf",
        b"\xf5\x80\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfe",
        b"\xff",
        b"\xff\xff\xff\xff",
        // right
        b"\xc2\x80",
        b"\xf0\x90\x80\x80",
    ];

    fn has_avx2() -> bool {
        std::arch::is_x86_feature_detected!("avx2")
    }

    /// Each kind of fault at each place of several steps, at the ends and across them, among ASCII and among text that
    /// itself ends anywhere; in a block of memory of just that size, so that the address sanitizer sees a step outside.
    #[test]
    fn each_fault_is_found_wherever_it_stands_and_nothing_else_is() {
        if !has_avx2() {
            return;
        }
        for len in [LEAST, LEAST + 31, LEAST + 33, 3 * STEP + 2] {
            for base in [vec![b'x'; len], text(len, 0), text(len, 5)] {
                assert!(ours([0; 3], &base, 0));
                for piece in PIECES {
                    for at in 0..len {
                        let mut bytes = base.clone().into_boxed_slice();
                        for (to, from) in bytes[at..].iter_mut().zip(piece) {
                            *to = *from;
                        }
                        let good = oracle([0; 3], &bytes);
                        assert_eq!(ours([0; 3], &bytes, at), good, "{piece:02x?} at {at} of {len}");
                    }
                }
            }
        }
    }

    /// The same beyond the size from which on what lies aligned comes between the first and the last.
    #[test]
    fn long_text_is_judged_the_same_wherever_it_lies() {
        if !has_avx2() {
            return;
        }
        for start in 0..SIZE {
            for len in [ALIGNED, ALIGNED + 1, ALIGNED + 95] {
                for base in [vec![b'x'; start + len], text(start + len, 3)] {
                    let base =
                        if base[start] < 0x80 { base } else { [vec![b'x'; start], text(len, 3)].concat() };
                    let ends = [0, 1, 30, 31, 32, 33, 62, 63, 64, 65, 66, 95, 96, 127, 128, 192, 1000];
                    for at in ends.into_iter().flat_map(|at| [at, len - 1 - at]) {
                        let mut bytes = base.clone();
                        bytes[start + at] ^= 0x80;
                        let good = oracle([0; 3], &bytes[start..]);
                        let mut masked = bytes.clone();
                        let mut mask = [1u8, 2, 3, 0x84].iter().cycle();
                        masked[start..].iter_mut().for_each(|byte| *byte ^= mask.next().unwrap());
                        // SAFETY: AVX2 has been asked for.
                        assert_eq!(unsafe { unmask([0; 3], &mut masked[start..], [1, 2, 3, 0x84]) }, good);
                        assert_eq!(masked, bytes);
                    }
                }
            }
        }
    }

    /// Pairs and what follows them, in the middle and at the start behind what a piece before has left.
    #[test]
    fn each_pair_of_bytes_is_judged_as_the_standard_library_does() {
        if !has_avx2() {
            return;
        }
        let mut bytes = vec![b'x'; LEAST];
        for first in 0x80..=u8::MAX {
            for second in 0..=u8::MAX {
                let is_edge = first >= 0xc0 && matches!(second & 0xf, 0 | 0xf);
                let places: &[usize] = if is_edge { &[0, 30, 31, 40, 62, 63, LEAST - 4] } else { &[40] };
                for rest in [*b"xx", *b"\x80x", *b"\x80\x80", *b"\xbf\xbf"] {
                    for &at in places {
                        bytes[at..at + 4].copy_from_slice(&[first, second, rest[0], rest[1]]);
                        let good = oracle([0; 3], &bytes);
                        assert_eq!(ours([0; 3], &bytes, at), good, "{:02x?} {at}", &bytes[at..at + 4]);
                        bytes[at..at + 4].copy_from_slice(b"xxxx");
                    }
                    let starts: [[u8; 3]; 3] = [[0, 0, first], [0, first, second], [first, second, rest[0]]];
                    for before in starts {
                        let cut = before.iter().position(|&byte| byte != 0).unwrap_or(3);
                        let unfinished = std::str::from_utf8(&before[cut..])
                            .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none());
                        if !unfinished || !is_edge {
                            continue;
                        }
                        for next in [*b"xxx", *b"\x80xx", *b"\x80\x80x", *b"\x80\x80\x80", *b"\xbf\xc3\xa9"] {
                            bytes[..3].copy_from_slice(&next);
                            assert_eq!(
                                ours(before, &bytes, 1),
                                oracle(before, &bytes),
                                "{before:02x?} {next:02x?}"
                            );
                        }
                        bytes[..3].copy_from_slice(b"xxx");
                    }
                }
            }
        }
    }
}
