//! [`BufferConfig`]: what a buffer manager lends, how much of it, and how long one waits.

use crate::limits::{ACQUIRE_TIMEOUT, MAX_MESSAGE_SIZE, MAX_READ_WINDOW, POOL_MAX_BYTES};

/// Settings of a [`BufferManager`](super::BufferManager).
///
/// A plain struct, to be written as AIRS's users do: `BufferConfig { pool_size: 20, ..Default::default() }`. That form
/// is impossible with `#[non_exhaustive]`, so a new field is a breaking change; that is the price.
#[derive(Debug, Clone, PartialEq)]
pub struct BufferConfig {
    /// Capacity of a read buffer in bytes. Default 64 KiB.
    pub read_buffer_capacity: usize,
    /// Capacity of a write buffer in bytes. Default 64 KiB.
    pub write_buffer_capacity: usize,
    /// Largest message, in bytes, that [`validate_message_size`](super::BufferManager::validate_message_size) lets
    /// pass. Default 16 MiB.
    pub max_message_size: usize,
    /// The most *idle* read buffers, and the most idle write buffers, that are kept. What is lent is bounded by
    /// [`max_bytes`](Self::max_bytes). Default 10.
    pub pool_size: usize,
    /// How long an acquire waits for a buffer, in milliseconds, before it fails with a timeout. Default 100.
    pub acquire_timeout_ms: u64,
    /// The part of [`max_bytes`](Self::max_bytes) that may be lent before asynchronous acquires wait, from 0 to 1.
    /// What stands between it and 1 is the reserve for work that is under way (the `try_` forms). Below the smallest
    /// buffer it means: one at a time. Default 0.8.
    pub backpressure_threshold: f64,
    /// Hard cap, in bytes, on everything this manager has allocated: lent and idle, read and write buffers and the
    /// blocks of windows and frames, their headers and padding included. Default 256 MiB.
    pub max_bytes: usize,
    /// Whether transports may hand out bytes without copying. Default true.
    pub enable_zero_copy: bool,
}

impl Default for BufferConfig {
    fn default() -> Self {
        Self {
            read_buffer_capacity: MAX_READ_WINDOW,
            write_buffer_capacity: MAX_READ_WINDOW,
            max_message_size: MAX_MESSAGE_SIZE,
            pool_size: 10,
            acquire_timeout_ms: u64::try_from(ACQUIRE_TIMEOUT.as_millis()).unwrap_or(u64::MAX),
            backpressure_threshold: 0.8,
            max_bytes: POOL_MAX_BYTES,
            enable_zero_copy: true,
        }
    }
}

impl BufferConfig {
    /// Lent bytes from which on asynchronous acquires wait. At least 1: with nothing lent, one buffer is always given.
    pub(super) fn threshold(&self) -> usize {
        let part = if self.backpressure_threshold.is_nan() {
            1.0
        } else {
            self.backpressure_threshold.clamp(0.0, 1.0)
        };
        ((self.max_bytes as f64 * part) as usize).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_seeds() {
        let config = BufferConfig { max_bytes: 1000, ..Default::default() };
        assert_eq!(config.read_buffer_capacity, 64 * 1024);
        assert_eq!(config.write_buffer_capacity, 64 * 1024);
        assert_eq!(config.max_message_size, 16 * 1024 * 1024);
        assert_eq!((config.pool_size, config.acquire_timeout_ms), (10, 100));
        assert_eq!(config.threshold(), 800);
    }

    #[test]
    fn any_threshold_leaves_room_for_one() {
        for part in [f64::NEG_INFINITY, -1.0, 0.0] {
            assert_eq!(BufferConfig { backpressure_threshold: part, ..Default::default() }.threshold(), 1);
        }
        for part in [1.0, 7.0, f64::INFINITY, f64::NAN] {
            let config = BufferConfig { backpressure_threshold: part, ..Default::default() };
            assert_eq!(config.threshold(), config.max_bytes);
        }
    }
}
