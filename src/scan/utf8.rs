//! UTF-8 checked as it comes: in pieces cut anywhere, failing at the first byte that cannot be right.
//!
//! Uses `simdutf8`. `codec::websocket` uses it (RFC 6455 §8.1).

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
        let (whole, cut) = bytes.split_at(bytes.len() - cut_off(bytes));
        if simdutf8::basic::from_utf8(whole).is_err() {
            return false;
        }
        for (slot, byte) in self.carry.iter_mut().zip(cut) {
            *slot = *byte;
            self.len += 1;
        }
        // The start of a character may be wrong already.
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
}
