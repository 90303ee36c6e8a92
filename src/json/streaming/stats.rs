//! What was parsed, and what is held for it.

/// What a `StreamingTransport` or a caller has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StreamingStats {
    /// Messages parsed.
    pub messages_parsed: u64,
    /// Messages refused.
    pub parse_errors: u64,
    /// Batches.
    pub batch_operations: u64,
    /// Bytes of the messages parsed.
    pub bytes_processed: u64,
    /// Their mean size in bytes; 0 while there is none.
    pub avg_message_size: f64,
}

impl StreamingStats {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The part of all messages that was parsed, from 0 to 1; 1 while there is none.
    #[must_use]
    pub fn success_rate(&self) -> f64 {
        let all = self.messages_parsed + self.parse_errors;
        if all == 0 { 1.0 } else { self.messages_parsed as f64 / all as f64 }
    }

    /// Counts a message of `bytes`.
    pub fn record_success(&mut self, bytes: usize) {
        self.messages_parsed += 1;
        self.bytes_processed += bytes as u64;
        self.average();
    }

    /// Counts a message that was refused.
    pub fn record_error(&mut self) {
        self.parse_errors += 1;
    }

    /// Counts a batch of `messages`, whose bytes are counted elsewhere.
    pub fn record_batch(&mut self, messages: usize) {
        self.batch_operations += 1;
        self.messages_parsed += messages as u64;
        self.average();
    }

    fn average(&mut self) {
        if self.messages_parsed > 0 {
            self.avg_message_size = self.bytes_processed as f64 / self.messages_parsed as f64;
        }
    }
}

/// What a [`StreamingParser`](super::StreamingParser) holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BufferStats {
    /// Bytes allocated.
    pub capacity: usize,
    /// Bytes that wait to be parsed.
    pub used: usize,
    /// The largest message, in bytes.
    pub max_size: usize,
}

impl BufferStats {
    pub(super) fn new(capacity: usize, used: usize, max_size: usize) -> Self {
        Self { capacity, used, max_size }
    }

    /// The part of what is allocated that is used, from 0 to 1.
    #[must_use]
    pub fn utilization(&self) -> f64 {
        if self.capacity == 0 { 0.0 } else { self.used as f64 / self.capacity as f64 }
    }
}
