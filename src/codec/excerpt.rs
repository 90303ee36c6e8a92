//! [`Excerpt`]: what is left of a message that was dropped for its size.

/// Bytes that are kept of the beginning and of the end.
const HEAD: usize = 512;
const TAIL: usize = 256;

/// The beginning and the end of a message that was too large to be taken, for who has to find out whose it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Excerpt<'a> {
    /// Its first bytes, up to half a KiB.
    pub head: &'a [u8],
    /// Its last bytes, up to a quarter of a KiB. The two never overlap.
    pub tail: &'a [u8],
}

/// Keeps both ends of what goes by.
#[derive(Debug, Clone)]
pub(super) struct Ends {
    head: [u8; HEAD],
    head_len: usize,
    tail: [u8; TAIL],
    tail_len: usize,
}

impl Default for Ends {
    fn default() -> Self {
        Self { head: [0; HEAD], head_len: 0, tail: [0; TAIL], tail_len: 0 }
    }
}

impl Ends {
    /// A message begins.
    pub(super) fn reset(&mut self) {
        (self.head_len, self.tail_len) = (0, 0);
    }

    /// More of the message. Costs no more than the bytes that are kept, however much comes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let room = self.head.get_mut(self.head_len..).unwrap_or_default();
        let (first, rest) = bytes.split_at(room.len().min(bytes.len()));
        room.iter_mut().zip(first).for_each(|(to, byte)| *to = *byte);
        self.head_len += first.len();
        let last = rest.get(rest.len().saturating_sub(TAIL)..).unwrap_or_default();
        // What is pushed out at the front.
        let gone = (self.tail_len + last.len()).saturating_sub(TAIL);
        self.tail.copy_within(gone..self.tail_len.max(gone), 0);
        self.tail_len = self.tail_len.saturating_sub(gone);
        let room = self.tail.get_mut(self.tail_len..).unwrap_or_default();
        room.iter_mut().zip(last).for_each(|(to, byte)| *to = *byte);
        self.tail_len += last.len();
    }

    pub(super) fn excerpt(&self) -> Excerpt<'_> {
        Excerpt {
            head: self.head.get(..self.head_len).unwrap_or_default(),
            tail: self.tail.get(..self.tail_len).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_however_it_is_cut() {
        let bytes: Vec<u8> = (0..2000_u32).map(|n| (n % 251) as u8).collect();
        for size in [0, 1, HEAD, HEAD + 1, HEAD + TAIL, HEAD + TAIL + 1, 2000] {
            for cut in [1, 7, TAIL - 1, TAIL, TAIL + 1, HEAD, 2000] {
                let (message, mut ends) = (&bytes[..size], Ends::default());
                ends.feed(b"of another message");
                ends.reset();
                message.chunks(cut).for_each(|piece| ends.feed(piece));
                let Excerpt { head, tail } = ends.excerpt();
                let (first, rest) = message.split_at(HEAD.min(size));
                assert_eq!(head, first, "{size} {cut}");
                assert_eq!(tail, &rest[rest.len().saturating_sub(TAIL)..], "{size} {cut}");
            }
        }
    }
}
