//! WebSocket's mask (RFC 6455 §5.3): four bytes laid over the payload again and again, and what is learnt about the
//! payload in the same pass: whether all of it is ASCII, so that nothing is left to do for UTF-8.
//!
//! Small payloads go eight bytes at a time, in place of the caller; larger ones with the widest vectors of the machine.
//! `codec::websocket` uses it.

#![allow(unsafe_code)]

/// Payloads of at least this size, in bytes, are worth the question which vectors the machine has.
const WIDE: usize = 256;

const HIGH: u64 = 0x8080_8080_8080_8080;

/// The key as it lies over eight bytes.
#[inline]
fn widen(key: [u8; 4]) -> u64 {
    let half = u64::from(u32::from_ne_bytes(key));
    half << 32 | half
}

/// Takes the mask off `blocks`. Of what is returned only the high bits of bytes are of meaning: some are set unless all is
/// ASCII.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn unmask_small_blocks(blocks: &mut [[u8; 16]], wide: u64) -> u64 {
    use std::arch::x86_64::{
        _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi64x, _mm_setzero_si128,
        _mm_storeu_si128, _mm_xor_si128,
    };
    // SAFETY: every x86-64 has SSE2; each block is 16 bytes to read and to write, at any address.
    let high = unsafe {
        let key = _mm_set1_epi64x(wide as i64);
        let mut seen = _mm_setzero_si128();
        for block in blocks {
            let at = block.as_mut_ptr().cast();
            let plain = _mm_xor_si128(_mm_loadu_si128(at), key);
            _mm_storeu_si128(at, plain);
            seen = _mm_or_si128(seen, plain);
        }
        _mm_movemask_epi8(seen)
    };
    if high == 0 { 0 } else { HIGH }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn unmask_small_blocks(blocks: &mut [[u8; 16]], wide: u64) -> u64 {
    let mut seen = 0;
    for word in blocks.as_flattened_mut().as_chunks_mut::<8>().0 {
        let plain = u64::from_ne_bytes(*word) ^ wide;
        *word = plain.to_ne_bytes();
        seen |= plain;
    }
    seen
}

/// Copies `from` to `to`, masked.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn copy_block(from: &[u8; 16], to: &mut [u8; 16], wide: u64) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm_set1_epi64x, _mm_storeu_si128, _mm_xor_si128};
    // SAFETY: every x86-64 has SSE2; both blocks are 16 bytes, at any address.
    unsafe {
        let plain = _mm_loadu_si128(from.as_ptr().cast());
        _mm_storeu_si128(to.as_mut_ptr().cast(), _mm_xor_si128(plain, _mm_set1_epi64x(wide as i64)));
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn copy_block(from: &[u8; 16], to: &mut [u8; 16], wide: u64) {
    let (words, _) = from.as_chunks::<8>();
    let (to_words, _) = to.as_chunks_mut::<8>();
    for (to, from) in to_words.iter_mut().zip(words) {
        *to = (u64::from_ne_bytes(*from) ^ wide).to_ne_bytes();
    }
}

/// The key for what stands `by` bytes further on.
#[must_use]
#[inline]
pub fn rotate(key: [u8; 4], by: usize) -> [u8; 4] {
    u32::from_le_bytes(key).rotate_right(8 * (by % 4) as u32).to_le_bytes()
}

/// Takes the mask off `bytes` (or lays it on) and tells whether the result is all ASCII.
#[must_use]
#[inline]
pub fn unmask(bytes: &mut [u8], key: [u8; 4]) -> bool {
    if bytes.len() >= WIDE { unmask_wide(bytes, key) } else { unmask_words(bytes, key) }
}

/// Whether `bytes` are all ASCII.
#[must_use]
#[inline]
pub fn is_ascii(bytes: &[u8]) -> bool {
    if bytes.len() >= WIDE {
        return ascii_wide(bytes);
    }
    // The last block, or word, overlaps the one before it.
    if let Some(last) = bytes.last_chunk::<16>() {
        return ascii_small_blocks(bytes.as_chunks::<16>().0, last);
    }
    let (words, rest) = bytes.as_chunks::<8>();
    let Some(last) = bytes.last_chunk::<8>() else {
        return rest.iter().fold(0, |seen, byte| seen | byte) < 0x80;
    };
    let seen = words.iter().fold(u64::from_ne_bytes(*last), |seen, word| seen | u64::from_ne_bytes(*word));
    seen & HIGH == 0
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn ascii_small_blocks(blocks: &[[u8; 16]], last: &[u8; 16]) -> bool {
    use std::arch::x86_64::{_mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128};
    // SAFETY: every x86-64 has SSE2; each block is 16 bytes to read, at any address.
    unsafe {
        let load = |block: &[u8; 16]| _mm_loadu_si128(block.as_ptr().cast());
        let seen = blocks.iter().fold(load(last), |seen, block| _mm_or_si128(seen, load(block)));
        _mm_movemask_epi8(seen) == 0
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn ascii_small_blocks(blocks: &[[u8; 16]], last: &[u8; 16]) -> bool {
    let words = blocks.as_flattened().as_chunks::<8>().0.iter().chain(last.as_chunks::<8>().0);
    words.fold(0, |seen, word| seen | u64::from_ne_bytes(*word)) & HIGH == 0
}

#[inline(never)]
fn ascii_wide(bytes: &[u8]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the machine has AVX2.
        return unsafe { ascii_avx2(bytes) };
    }
    ascii_blocks(bytes)
}

/// [`ascii_blocks`] with each load, but for the first and the last, within a line of the cache. There have to be 128 bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn ascii_avx2(bytes: &[u8]) -> bool {
    use std::arch::x86_64::{_mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256};
    const SIZE: usize = 32;
    let len = bytes.len();
    assert!(len >= 4 * SIZE);
    let start = bytes.as_ptr();
    // SAFETY: each access is to 32 bytes from `at` on with `at + 32 <= len`, which is so for the first and the last because
    // `len` is at least four times that, and for the others by the condition of their loop. None needs alignment.
    unsafe {
        let four = |at: usize| {
            let [a, b, c, d] =
                [0, SIZE, 2 * SIZE, 3 * SIZE].map(|by| _mm256_loadu_si256(start.add(at + by).cast()));
            _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d))
        };
        let mut seen = _mm256_or_si256(_mm256_loadu_si256(start.cast()), four(len - 4 * SIZE));
        let mut at = SIZE - start.addr() % SIZE;
        while at + 4 * SIZE <= len {
            seen = _mm256_or_si256(seen, four(at));
            at += 4 * SIZE;
        }
        _mm256_movemask_epi8(seen) == 0
    }
}

/// As [`unmask_blocks`], without a mask.
#[inline(always)]
fn ascii_blocks(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<128>();
    let mut seen = [0u64; 16];
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (word, seen) in words.iter().zip(&mut seen) {
            *seen |= u64::from_ne_bytes(*word);
        }
    }
    let seen = seen.iter().fold(0, |all, seen| all | seen);
    let tail = rest.iter().fold(0, |seen, byte| seen | byte);
    seen & HIGH == 0 && tail < 0x80
}

#[inline]
fn unmask_words(bytes: &mut [u8], key: [u8; 4]) -> bool {
    let wide = widen(key);
    let (blocks, rest) = bytes.as_chunks_mut::<16>();
    let mut seen = unmask_small_blocks(blocks, wide);
    let (words, rest) = rest.as_chunks_mut::<8>();
    for word in words {
        let plain = u64::from_ne_bytes(*word) ^ wide;
        *word = plain.to_ne_bytes();
        seen |= plain;
    }
    // Whole words come first, so the rest begins with the first byte of the key.
    let left = rest.len();
    if left == 0 {
        return seen & HIGH == 0;
    }
    if let Some(last) = bytes.last_chunk_mut::<8>() {
        // The last word, of which all but the rest is plain already.
        let wide = u64::from_le(wide).rotate_right(8 * left as u32) & (u64::MAX << (64 - 8 * left));
        let plain = u64::from_le_bytes(*last) ^ wide;
        *last = plain.to_le_bytes();
        return (seen | plain) & HIGH == 0;
    }
    let mut tail = 0;
    for (byte, key) in bytes.iter_mut().zip(wide.to_ne_bytes()) {
        *byte ^= key;
        tail |= *byte;
    }
    tail < 0x80
}

#[inline(never)]
fn unmask_wide(bytes: &mut [u8], key: [u8; 4]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the machine has AVX2.
        return unsafe { unmask_avx2(bytes, key) };
    }
    unmask_blocks(bytes, key)
}

/// [`unmask_blocks`] with each store where no line of the cache ends within: one that spans two lines costs two. The first
/// bytes and the last, which do not lie so, are worked out before any is stored, and stored after all others, with which
/// they share some. There have to be 128.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn unmask_avx2(bytes: &mut [u8], key: [u8; 4]) -> bool {
    use std::arch::x86_64::{
        _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi32, _mm256_storeu_si256,
        _mm256_xor_si256,
    };
    const SIZE: usize = 32;
    let len = bytes.len();
    assert!(len >= 4 * SIZE);
    let start = bytes.as_mut_ptr();
    let lies = |by: usize| _mm256_set1_epi32(i32::from_ne_bytes(rotate(key, by)));
    // SAFETY: each access is to 32 bytes from `at` on with `at + 32 <= len`, which is so for the first and the last because
    // `len` is at least four times that, and for the others by the condition of their loop. None needs alignment.
    unsafe {
        let plain = |at: usize, key| _mm256_xor_si256(_mm256_loadu_si256(start.add(at).cast()), key);
        let store = |at: usize, bytes| _mm256_storeu_si256(start.add(at).cast(), bytes);
        let first = plain(0, lies(0));
        let key = lies(len);
        let last = [4, 3, 2, 1].map(|back| plain(len - back * SIZE, key));
        let mut seen = last.into_iter().fold(first, |seen, bytes| _mm256_or_si256(seen, bytes));
        let mut at = SIZE - start.addr() % SIZE;
        let key = lies(at);
        while at + 4 * SIZE <= len {
            let bytes = [0, SIZE, 2 * SIZE, 3 * SIZE].map(|by| {
                let bytes = plain(at + by, key);
                store(at + by, bytes);
                bytes
            });
            let [a, b, c, d] = bytes;
            seen = _mm256_or_si256(seen, _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d)));
            at += 4 * SIZE;
        }
        store(0, first);
        for (back, bytes) in [4, 3, 2, 1].into_iter().zip(last) {
            store(len - back * SIZE, bytes);
        }
        _mm256_movemask_epi8(seen) == 0
    }
}

/// 128 bytes at a time, in a form that compilers make vectors of.
#[inline(always)]
fn unmask_blocks(bytes: &mut [u8], key: [u8; 4]) -> bool {
    let wide = widen(key);
    let (blocks, rest) = bytes.as_chunks_mut::<128>();
    let mut seen = [0u64; 16];
    for block in blocks {
        let (words, _) = block.as_chunks_mut::<8>();
        for (word, seen) in words.iter_mut().zip(&mut seen) {
            let plain = u64::from_ne_bytes(*word) ^ wide;
            *word = plain.to_ne_bytes();
            *seen |= plain;
        }
    }
    let seen = seen.iter().fold(0, |all, seen| all | seen);
    unmask_words(rest, key) & (seen & HIGH == 0)
}

/// Copies `from` to the start of `to`, masked. `to` must be at least as long.
///
/// # Panics
/// When `to` is shorter than `from`.
#[inline]
pub fn mask_copy(from: &[u8], to: &mut [u8], key: [u8; 4]) {
    let (to, _) = to.split_at_mut(from.len());
    if from.len() >= WIDE { copy_wide(from, to, key) } else { copy_words(from, to, key) }
}

#[inline]
fn copy_words(from: &[u8], to: &mut [u8], key: [u8; 4]) {
    let (to, _) = to.split_at_mut(from.len());
    let wide = widen(key);
    let (blocks, rest) = from.as_chunks::<16>();
    let (to_blocks, to_rest) = to.as_chunks_mut::<16>();
    for (to, from) in to_blocks.iter_mut().zip(blocks) {
        copy_block(from, to, wide);
    }
    let (words, rest) = rest.as_chunks::<8>();
    let (to_words, _) = to_rest.as_chunks_mut::<8>();
    for (to, from) in to_words.iter_mut().zip(words) {
        *to = (u64::from_ne_bytes(*from) ^ wide).to_ne_bytes();
    }
    if rest.is_empty() {
        return;
    }
    let left = rest.len();
    if let (Some(from), Some(to)) = (from.last_chunk::<8>(), to.last_chunk_mut::<8>()) {
        // The last word, part of which is written a second time.
        let wide = u64::from_le(wide).rotate_right(8 * left as u32);
        *to = (u64::from_le_bytes(*from) ^ wide).to_le_bytes();
        return;
    }
    for ((to, from), key) in to.iter_mut().zip(from).zip(wide.to_ne_bytes()) {
        *to = from ^ key;
    }
}

#[inline(never)]
fn copy_wide(from: &[u8], to: &mut [u8], key: [u8; 4]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the machine has AVX2.
        return unsafe { copy_avx2(from, to, key) };
    }
    copy_blocks(from, to, key);
}

/// [`copy_blocks`] with each store, but for the first and the last, within a line of the cache: see [`unmask_avx2`]. What
/// these two share with the others is stored twice. There have to be 128 bytes, and as many at `to`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn copy_avx2(from: &[u8], to: &mut [u8], key: [u8; 4]) {
    use std::arch::x86_64::{_mm256_loadu_si256, _mm256_set1_epi32, _mm256_storeu_si256, _mm256_xor_si256};
    const SIZE: usize = 32;
    let len = from.len();
    assert!(len >= 4 * SIZE && to.len() >= len);
    let (start, to) = (from.as_ptr(), to.as_mut_ptr());
    let lies = |by: usize| _mm256_set1_epi32(i32::from_ne_bytes(rotate(key, by)));
    // SAFETY: each access is to 32 bytes from `at` on with `at + 32 <= len`, which is so for the first and the last because
    // `len` is at least four times that, and for the others by the condition of their loop. `to` has as many bytes and no
    // other has a way to them. None needs alignment.
    unsafe {
        let four = |at: usize, key| {
            for at in [at, at + SIZE, at + 2 * SIZE, at + 3 * SIZE] {
                let bytes = _mm256_loadu_si256(start.add(at).cast());
                _mm256_storeu_si256(to.add(at).cast(), _mm256_xor_si256(bytes, key));
            }
        };
        let first = _mm256_loadu_si256(start.cast());
        _mm256_storeu_si256(to.cast(), _mm256_xor_si256(first, lies(0)));
        let mut at = SIZE - to.addr() % SIZE;
        let plain = lies(at);
        while at + 4 * SIZE <= len {
            four(at, plain);
            at += 4 * SIZE;
        }
        four(len - 4 * SIZE, lies(len));
    }
}

#[inline(always)]
fn copy_blocks(from: &[u8], to: &mut [u8], key: [u8; 4]) {
    let wide = widen(key);
    let (blocks, rest) = from.as_chunks::<128>();
    let (to_blocks, to_rest) = to.as_chunks_mut::<128>();
    for (to, from) in to_blocks.iter_mut().zip(blocks) {
        let (words, _) = from.as_chunks::<8>();
        let (to_words, _) = to.as_chunks_mut::<8>();
        for (to, from) in to_words.iter_mut().zip(words) {
            *to = (u64::from_ne_bytes(*from) ^ wide).to_ne_bytes();
        }
    }
    copy_words(rest, to_rest, key);
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn naive(bytes: &[u8], key: [u8; 4]) -> Vec<u8> {
        bytes.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect()
    }

    /// Every length around each block size, at every place in a word, in a block that ends where the bytes end, so that
    /// the address sanitizer sees a step outside.
    #[test]
    fn the_mask_is_what_the_rfc_says() {
        for len in (0..140).chain([WIDE - 1, WIDE, WIDE + 1, 300, 383, 384, 385, 1000, 4096, 4099]) {
            for start in (0..9).chain([15, 16, 17, 30, 31, 32]) {
                for key in [KEY, [0; 4], rotate(KEY, 1), [0x80, 0, 0, 0]] {
                    let plain: Vec<u8> = (0..len).map(|at| (at * 7 % 128) as u8).collect();
                    let masked = naive(&plain, key);
                    let mut bytes = vec![0xaa; start];
                    bytes.extend_from_slice(&masked);
                    let mut bytes = bytes.into_boxed_slice();
                    assert!(unmask(&mut bytes[start..], key), "{len} {start}");
                    assert_eq!(bytes[start..], plain[..]);
                    assert!(bytes[..start].iter().all(|&byte| byte == 0xaa));
                    assert!(is_ascii(&bytes[start..]));
                    let mut copy = vec![0x55; len + 1].into_boxed_slice();
                    mask_copy(&bytes[start..], &mut copy, key);
                    assert_eq!(copy[..len], masked[..]);
                    assert_eq!(copy[len], 0x55);
                }
            }
        }
    }

    #[test]
    fn one_byte_that_is_not_ascii_is_seen_wherever_it_stands() {
        for len in [1, 7, 8, 9, 31, 64, 129, 255, 256, 257, 300, 511] {
            for at in 0..len {
                let mut bytes = vec![b'a'; len];
                bytes[at] = 0x80;
                assert!(!is_ascii(&bytes));
                let mut masked = naive(&bytes, KEY);
                assert!(!unmask(&mut masked, KEY), "{at} of {len}");
                assert_eq!(masked, bytes);
            }
        }
    }

    #[test]
    fn a_rotated_key_goes_on_where_the_last_one_stopped() {
        let plain = vec![b'x'; 100];
        for cut in 0..100 {
            let mut masked = naive(&plain, KEY);
            let (one, two) = masked.split_at_mut(cut);
            assert!(unmask(one, KEY) & unmask(two, rotate(KEY, cut)));
            assert_eq!(masked, plain);
        }
    }
}
