//! The line break: found in bytes, and looked for while a payload is copied.
//!
//! Messages of MCP are mostly a few hundred bytes, where a call into a routine made for large inputs costs more than
//! its work. So the first bytes are looked at in place, sixteen at a time on x86-64 (every such processor has SSE2) and
//! eight at a time elsewhere; what is longer goes to `memchr`, which picks the widest vectors of the machine. A branch
//! comes only after every 64 bytes: at 300 B that is 14 ns instead of 17, and no more at 100 B (`memchr` alone: 10).

/// Bytes that are looked at in place before `memchr` is called.
pub(crate) const NEAR: usize = 128;

/// Bytes that are looked at between two branches.
const GROUP: usize = 64;

/// Fewer bytes than this are looked at one by one.
const TRICKLE: usize = 8;

/// Payloads above this size, in bytes, are copied and searched one after the other: each is faster by itself then.
const FUSED: usize = 1024;

const NEWLINE: u8 = b'\n';

/// Offset of the first `\n` in `bytes`.
#[must_use]
#[inline]
pub fn find_newline(bytes: &[u8]) -> Option<usize> {
    let (groups, _) = bytes.as_chunks::<{ GROUP }>();
    let mut seen = 0;
    for group in groups.iter().take(NEAR / GROUP) {
        if let Some(at) = block::find(group) {
            return Some(seen + at);
        }
        seen += GROUP;
    }
    far(bytes, seen)
}

/// [`find_newline`] for bytes of which it is known that the line break is not near: without looking there first.
#[must_use]
#[inline]
pub fn find_far_newline(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(NEWLINE, bytes)
}

/// The first `\n` from `seen` on.
#[inline(never)]
fn far(bytes: &[u8], seen: usize) -> Option<usize> {
    let rest = bytes.get(seen..)?;
    // A trickle: the call would cost more than the bytes.
    let found = if rest.len() < TRICKLE {
        rest.iter().position(|&byte| byte == NEWLINE)
    } else {
        memchr::memchr(NEWLINE, rest)
    };
    found.map(|at| seen + at)
}

/// Copies `from` to the start of `to` and tells whether it holds no `\n`. `to` must be at least as long.
///
/// # Panics
/// When `to` is shorter than `from`.
#[must_use]
#[inline]
pub fn copy_line(from: &[u8], to: &mut [u8]) -> bool {
    let (to, _) = to.split_at_mut(from.len());
    if from.len() > FUSED {
        to.copy_from_slice(from);
        return find_newline(from).is_none();
    }
    let (Some(last_from), Some(last_to)) = (from.last_chunk(), to.last_chunk_mut()) else {
        return copy_short(from, to);
    };
    // Whole blocks from the start; the last one overlaps the one before it, so that no odd bytes are left.
    let mut seen = block::copy(last_from, last_to);
    let (from, _) = from.as_chunks::<{ block::SIZE }>();
    let (to, _) = to.as_chunks_mut::<{ block::SIZE }>();
    for (from, to) in from.iter().zip(to) {
        seen = block::or(seen, block::copy(from, to));
    }
    !block::any(seen)
}

/// [`copy_line`] of less than a block.
#[inline]
fn copy_short(from: &[u8], to: &mut [u8]) -> bool {
    let mut clean = true;
    for (from, to) in from.iter().zip(to) {
        *to = *from;
        clean &= *from != NEWLINE;
    }
    clean
}

/// Sixteen bytes at a time with SSE2.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
mod block {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
        _mm_storeu_si128,
    };

    use super::{GROUP, NEWLINE};

    pub(super) const SIZE: usize = 16;

    #[inline]
    fn load(block: &[u8; SIZE]) -> __m128i {
        // SAFETY: sixteen bytes that may be read; the load needs no alignment; SSE2 is there (see the `cfg`).
        unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
    }

    #[inline]
    fn newlines(bytes: __m128i) -> __m128i {
        // SAFETY: SSE2 is there (see the `cfg`); works on registers alone.
        unsafe { _mm_cmpeq_epi8(bytes, _mm_set1_epi8(NEWLINE as i8)) }
    }

    #[inline]
    fn bits(found: __m128i) -> u64 {
        // SAFETY: SSE2 is there (see the `cfg`); works on registers alone.
        u64::from((unsafe { _mm_movemask_epi8(found) }) as u16)
    }

    #[inline]
    pub(super) fn find(group: &[u8; GROUP]) -> Option<usize> {
        let (blocks, _) = group.as_chunks::<SIZE>();
        let found = blocks.iter().rev().fold(0, |found, block| (found << SIZE) | bits(newlines(load(block))));
        (found != 0).then(|| found.trailing_zeros() as usize)
    }

    /// Copies and marks the newlines.
    #[inline]
    pub(super) fn copy(from: &[u8; SIZE], to: &mut [u8; SIZE]) -> __m128i {
        let bytes = load(from);
        // SAFETY: sixteen bytes that may be written; the store needs no alignment; SSE2 is there (see the `cfg`).
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), bytes) };
        newlines(bytes)
    }

    #[inline]
    pub(super) fn or(one: __m128i, other: __m128i) -> __m128i {
        // SAFETY: SSE2 is there (see the `cfg`); works on registers alone.
        unsafe { _mm_or_si128(one, other) }
    }

    #[inline]
    pub(super) fn any(found: __m128i) -> bool {
        bits(found) != 0
    }
}

/// Eight bytes at a time in a plain register.
#[cfg(any(test, not(all(target_arch = "x86_64", target_feature = "sse2"))))]
mod swar {
    use super::{GROUP, NEWLINE};

    pub(super) const SIZE: usize = 8;

    const ONES: u64 = u64::from_ne_bytes([1; SIZE]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; SIZE]);

    /// The high bit of each byte that is a newline. Bytes above the first newline may be marked wrongly.
    #[inline]
    fn newlines(bytes: u64) -> u64 {
        let zero_where_newline = bytes ^ (ONES * NEWLINE as u64);
        zero_where_newline.wrapping_sub(ONES) & !zero_where_newline & HIGH
    }

    #[inline]
    pub(super) fn find(group: &[u8; GROUP]) -> Option<usize> {
        let (blocks, _) = group.as_chunks::<SIZE>();
        blocks.iter().enumerate().find_map(|(index, block)| {
            let found = newlines(u64::from_le_bytes(*block));
            (found != 0).then(|| index * SIZE + found.trailing_zeros() as usize / 8)
        })
    }

    /// Copies and marks the newlines.
    #[inline]
    pub(super) fn copy(from: &[u8; SIZE], to: &mut [u8; SIZE]) -> u64 {
        *to = *from;
        newlines(u64::from_le_bytes(*from))
    }

    #[inline]
    pub(super) fn or(one: u64, other: u64) -> u64 {
        one | other
    }

    #[inline]
    pub(super) fn any(found: u64) -> bool {
        found != 0
    }
}
#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
use swar as block;

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(bytes: &[u8]) -> Option<usize> {
        bytes.iter().position(|&byte| byte == NEWLINE)
    }

    /// Every length around the block and the thresholds, with a newline at every place and at none.
    #[test]
    fn the_newline_is_found_wherever_it_is() {
        for len in (0..300).chain([FUSED - 1, FUSED, FUSED + 1, FUSED + 200]) {
            // 0x0b and 0x8a differ from a newline in one bit.
            let plain: Vec<u8> = (0..len).map(|at| [0x0b, 0x8a, 0, 0xff, b'{'][at % 5]).collect();
            for at in (0..=len).filter(|at| len < 300 || at % 17 < 2 || len - at < 20) {
                let mut bytes = plain.clone();
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = NEWLINE;
                }
                if let Some(byte) = bytes.get_mut(at + 3) {
                    *byte = NEWLINE;
                }
                assert_eq!(find_newline(&bytes), naive(&bytes), "{at} of {len}");
                let mut copy = vec![1; len + 3];
                assert_eq!(copy_line(&bytes, &mut copy), naive(&bytes).is_none(), "{at} of {len}");
                assert_eq!(copy[..len], bytes);
                assert_eq!(copy[len..], [1; 3]);
            }
        }
    }

    #[test]
    fn both_ways_of_looking_agree() {
        for fill in 0..=u8::MAX {
            for at in 0..=GROUP {
                let mut bytes = [fill; GROUP];
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = NEWLINE;
                }
                assert_eq!(swar::find(&bytes), naive(&bytes));
                assert_eq!(block::find(&bytes), naive(&bytes));
                let mut copy = [0; swar::SIZE];
                let first = bytes.first_chunk().unwrap();
                let found = swar::or(0, swar::copy(first, &mut copy));
                assert_eq!((swar::any(found), &copy), (naive(first).is_some(), first));
            }
        }
    }

    #[test]
    #[should_panic]
    fn a_destination_that_is_too_short_is_a_bug_of_the_caller() {
        let _ = copy_line(&[0; 20], &mut [0; 19]);
    }
}
