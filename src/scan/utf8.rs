//! UTF-8 checked as it comes: in pieces cut anywhere, failing at the first byte that cannot be right.
//!
//! Uses `text` where there is AVX2, and `simdutf8`. `codec::websocket` uses it (RFC 6455 §8.1).

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use super::text;
use super::unmask;

/// Bytes that are unmasked and checked in one go, so that the second look finds them in the first-level cache.
const STRIDE: usize = 4096;

/// How far a text has been checked: the bytes of a character that is not whole yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Utf8 {
    carry: [u8; 4],
    len: u8,
}

impl Utf8 {
    /// Checks the next `bytes`; `ascii` says that they are known to be ASCII. False as soon as the text cannot be UTF-8
    /// whatever follows.
    #[must_use]
    #[inline]
    pub fn push(&mut self, bytes: &[u8], ascii: bool) -> bool {
        if ascii && (self.len == 0 || bytes.is_empty()) { true } else { self.push_any(bytes) }
    }

    /// Whether the text may end here, not inside a character.
    #[must_use]
    #[inline]
    pub fn is_whole(&self) -> bool {
        self.len == 0
    }

    /// Takes the mask off the next `bytes` and checks them. False as [`push`](Self::push) is; the mask is off all the same.
    #[must_use]
    #[inline]
    pub fn unmask(&mut self, bytes: &mut [u8], key: [u8; 4]) -> bool {
        #[cfg(target_arch = "x86_64")]
        if bytes.len() >= text::LEAST && std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the machine has AVX2.
            return unsafe { text::unmask(self.before(), bytes, key) } && self.cut(bytes);
        }
        self.unmask_portable(bytes, key)
    }

    #[inline(never)]
    fn unmask_portable(&mut self, bytes: &mut [u8], key: [u8; 4]) -> bool {
        bytes.chunks_mut(STRIDE).fold(true, |good, bytes| {
            // The stride is a multiple of the key's size, so each begins with the key's first byte.
            let ascii = unmask(bytes, key);
            good && self.push(bytes, ascii)
        })
    }

    #[inline(never)]
    fn push_any(&mut self, mut bytes: &[u8]) -> bool {
        // The character that was cut, byte by byte: at most three of them.
        while self.len > 0 {
            let Some((&byte, rest)) = bytes.split_first() else { return true };
            bytes = rest;
            let Some(slot) = self.carry.get_mut(usize::from(self.len)) else { return false };
            *slot = byte;
            self.len += 1;
            match std::str::from_utf8(self.carried()) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return false,
            }
        }
        let (whole, _) = bytes.split_at(bytes.len() - cut_off(bytes));
        simdutf8::basic::from_utf8(whole).is_ok() && self.cut(bytes)
    }

    /// What has come of a character that is not whole, behind zeros.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn before(&self) -> [u8; 3] {
        let [first, second, third, _] = self.carry;
        match self.len {
            0 => [0; 3],
            1 => [0, 0, first],
            2 => [0, first, second],
            _ => [first, second, third],
        }
    }

    /// Keeps what `bytes` end with of a character that is not whole; false when it is wrong already.
    #[inline]
    fn cut(&mut self, bytes: &[u8]) -> bool {
        self.len = 0;
        bytes.last().is_none_or(|&byte| byte < 0x80) || self.keep_cut(bytes)
    }

    #[inline(never)]
    fn keep_cut(&mut self, bytes: &[u8]) -> bool {
        let (_, cut) = bytes.split_at(bytes.len() - cut_off(bytes));
        for (slot, byte) in self.carry.iter_mut().zip(cut) {
            *slot = *byte;
            self.len += 1;
        }
        self.len == 0 || std::str::from_utf8(self.carried()).is_err_and(|error| error.error_len().is_none())
    }

    fn carried(&self) -> &[u8] {
        self.carry.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// How many bytes at the end are the start of a character that is not whole.
fn cut_off(bytes: &[u8]) -> usize {
    for (back, &byte) in (1..=3).zip(bytes.iter().rev()) {
        let size = match byte {
            0x00..=0x7f => return 0,
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            _ => 4,
        };
        return if size > back { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the standard library says of all of it: the length at which it is known to be wrong.
    fn wrong_from(bytes: &[u8]) -> Option<usize> {
        (0..=bytes.len())
            .find(|&end| std::str::from_utf8(&bytes[..end]).is_err_and(|error| error.error_len().is_some()))
    }

    fn check(bytes: &[u8]) {
        let wrong = wrong_from(bytes);
        for one in 0..=bytes.len() {
            for two in one..=bytes.len() {
                let mut state = Utf8::default();
                let mut end = 0;
                let mut good = true;
                for piece in [&bytes[..one], &bytes[one..two], &bytes[two..]] {
                    end += piece.len();
                    good = good && state.push(piece, piece.is_ascii());
                    assert_eq!(good, wrong.is_none_or(|wrong| end < wrong), "{bytes:02x?} {one} {two}");
                }
                assert_eq!(good && state.is_whole(), std::str::from_utf8(bytes).is_ok(), "{bytes:02x?}");
            }
        }
    }

    #[test]
    fn pieces_are_as_good_as_the_whole_and_fail_at_the_same_byte() {
        let texts: [&[u8]; 16] = [
            b"",
            b"abc",
            "a\u{e9}\u{20ac}\u{1f600}z".as_bytes(),
            "\u{10ffff}\u{d7ff}\u{e000}".as_bytes(),
            b"\xc0\x80",
            b"a\xc1\xbf",
            b"\xe0\x80\x80",
            b"\xe0\x9f\xbfx",
            b"\xed\xa0\x80",
            b"\xf0\x8f\xbf\xbf",
            b"\xf4\x90\x80\x80",
            b"\xf5\x80\x80\x80",
            b"ab\x80",
            b"\xe2\x82",
            b"\xe2\x82a",
            b"\xff",
        ];
        for text in texts {
            check(text);
        }
        // Every pair of bytes after a lead of each kind.
        for lead in [0xc2u8, 0xe0, 0xe1, 0xed, 0xf0, 0xf4] {
            for next in 0..=u8::MAX {
                check(&[lead, next, 0x80, b'a']);
            }
        }
    }

    /// Pieces that are long enough for vectors, cut anywhere, right and wrong, with the mask and without.
    #[test]
    fn long_pieces_are_as_good_as_the_whole_and_fail_in_the_same_piece() {
        let line = "gr\u{fc}\u{df}e \u{4f60}\u{597d} \u{1f600} and so on, ";
        let plain = line.repeat(12).into_bytes();
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let faults = [
            None,
            Some((7, b'a')),
            Some((170, 0xc0)),
            Some((200, 0x80)),
            Some((250, 0xf5)),
            Some((251, 0xed)),
        ];
        for fault in faults {
            let mut bytes = plain.clone();
            if let Some((at, byte)) = fault {
                bytes[at] = byte;
            }
            let wrong = wrong_from(&bytes);
            for one in (0..bytes.len()).filter(|at| at % 7 == 0 || (128..180).contains(at)) {
                for two in
                    [one, one + 1, one + 2, one + 128, one + 131, bytes.len()].map(|at| at.min(bytes.len()))
                {
                    for masked in [false, true] {
                        let mut state = Utf8::default();
                        let mut end = 0;
                        let mut good = true;
                        for piece in [&bytes[..one], &bytes[one..two], &bytes[two..]] {
                            let now = if masked {
                                let mut hidden: Vec<u8> = piece
                                    .iter()
                                    .zip(key.iter().cycle())
                                    .map(|(byte, key)| byte ^ key)
                                    .collect();
                                let good = state.unmask(&mut hidden, key);
                                assert_eq!(hidden, piece);
                                good
                            } else {
                                state.push(piece, piece.is_ascii())
                            };
                            good = good && now;
                            end += piece.len();
                            assert_eq!(good, wrong.is_none_or(|wrong| end < wrong), "{fault:?} {one} {two}");
                        }
                        assert_eq!(good && state.is_whole(), std::str::from_utf8(&bytes).is_ok());
                    }
                }
            }
        }
    }
}
