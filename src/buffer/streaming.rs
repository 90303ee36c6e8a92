//! [`StreamingBuffer`]: bytes in, delimited messages out, for those who have AIRS's type. Links use windows and codecs.

use memchr::memchr;

use crate::transport::TransportError;

/// Gathers bytes and gives out the messages between delimiters.
///
/// `capacity` bounds the bytes that have not been taken out. Messages that were taken out do not count, and a refused
/// [`extend`](Self::extend) loses nothing. Work is linear in the bytes: none is looked at twice, and bytes are moved to
/// the front only when more have been taken out than have to be moved; memory stays within twice the capacity.
#[derive(Debug)]
pub struct StreamingBuffer {
    bytes: Vec<u8>,
    /// INVARIANT: `start <= scanned <= bytes.len()`; no delimiter lies in `start..scanned`.
    start: usize,
    scanned: usize,
    capacity: usize,
    delimiter: u8,
}

impl StreamingBuffer {
    /// A buffer for at most `capacity` bytes, delimiters included, of messages that end with `delimiter`. Allocates
    /// nothing before bytes come.
    #[must_use]
    pub const fn new(capacity: usize, delimiter: u8) -> Self {
        Self { bytes: Vec::new(), start: 0, scanned: 0, capacity, delimiter }
    }

    /// Appends `data`.
    ///
    /// # Errors
    /// [`BufferOverflow`](TransportError::BufferOverflow) when more than the capacity would be pending. Nothing is then
    /// appended and nothing lost: take messages out and append again.
    pub fn extend(&mut self, data: &[u8]) -> Result<(), TransportError> {
        let pending = self.pending_bytes();
        if data.len() > self.capacity.saturating_sub(pending) {
            return Err(TransportError::buffer_overflow(format!(
                "{pending} bytes are pending and {} more exceed the capacity of {}",
                data.len(),
                self.capacity
            )));
        }
        let is_full = self.bytes.capacity() - self.bytes.len() < data.len();
        if is_full && self.start >= pending {
            self.bytes.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        let needed = self.bytes.len() + data.len();
        if needed > self.bytes.capacity() {
            // Doubled, as vectors are, but not beyond what is ever needed.
            let most = self.capacity.saturating_mul(2);
            let room = self.bytes.capacity().saturating_mul(2).min(most).max(needed);
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    /// The next message, lent, without its delimiter (nor, for the delimiter `\n`, a `\r` before it).
    pub fn next_message(&mut self) -> Option<&[u8]> {
        let found = memchr(self.delimiter, self.bytes.get(self.scanned..)?);
        let Some(end) = found.map(|at| self.scanned + at) else {
            self.scanned = self.bytes.len();
            return None;
        };
        let start = self.start;
        self.start = end + 1;
        self.scanned = self.start;
        let message = self.bytes.get(start..end)?;
        Some(if self.delimiter == b'\n' { message.strip_suffix(b"\r").unwrap_or(message) } else { message })
    }

    /// The next message as a vector of its own; else as [`next_message`](Self::next_message).
    pub fn extract_message(&mut self) -> Option<Vec<u8>> {
        self.next_message().map(<[u8]>::to_vec)
    }

    /// What is left when the stream has ended: the last message, which no delimiter ended. `None` when nothing is left.
    /// To be called after the last message has been taken out.
    pub fn extract_rest(&mut self) -> Option<Vec<u8>> {
        let rest = self.bytes.get(self.start..).filter(|rest| !rest.is_empty())?.to_vec();
        self.clear();
        Some(rest)
    }

    /// Whether bytes are pending.
    #[must_use]
    pub fn has_pending_data(&self) -> bool {
        self.pending_bytes() > 0
    }

    /// Bytes that were appended and not taken out.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Drops all bytes.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
        self.scanned = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vector that doubles by itself went beyond.
    #[test]
    fn memory_stays_within_twice_the_capacity() {
        for capacity in [1, 10, 1000] {
            // All lengths in turn, so that every rest meets every length.
            for step in 1..=capacity {
                let mut buffer = StreamingBuffer::new(capacity, b'\n');
                for round in 0..50 {
                    let size = 1 + (round * step) % capacity;
                    let message = [&vec![b'x'; size - 1][..], b"\n"].concat();
                    while buffer.extend(&message).is_err() {
                        assert!(buffer.next_message().is_some());
                    }
                    assert!(buffer.bytes.capacity() <= 2 * capacity, "{}", buffer.bytes.capacity());
                }
            }
        }
    }
}
