//! What a buffer manager counts: [`BufferMetrics`], live, and [`ZeroCopyMetrics`], a snapshot. Names are AIRS's.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::pool::SharedPool;

/// Live figures of a buffer manager; clones share them.
///
/// Hits and misses count buffers and the blocks of windows alike. The two fields that hold them are brought up to date
/// by [`BufferManager::metrics`](super::BufferManager::metrics) and by [`refresh`](Self::refresh): an acquire that
/// touches no shared counter is what makes it fast.
#[derive(Clone)]
pub struct BufferMetrics {
    /// Acquires served from idle buffers, as of the last [`refresh`](Self::refresh).
    pub buffer_hits: Arc<AtomicUsize>,
    /// Acquires that had to allocate, as of the last [`refresh`](Self::refresh).
    pub buffer_misses: Arc<AtomicUsize>,
    /// Sends recorded as copied nowhere. Live.
    pub zero_copy_sends: Arc<AtomicUsize>,
    /// Receives recorded as copied nowhere. Live.
    pub zero_copy_receives: Arc<AtomicUsize>,
    bytes: Arc<AtomicU64>,
    violations: Arc<AtomicU64>,
    pool: SharedPool,
}

impl BufferMetrics {
    pub(super) fn new(pool: SharedPool) -> Self {
        Self {
            buffer_hits: Arc::default(),
            buffer_misses: Arc::default(),
            zero_copy_sends: Arc::default(),
            zero_copy_receives: Arc::default(),
            bytes: Arc::default(),
            violations: Arc::default(),
            pool,
        }
    }

    /// Brings [`buffer_hits`](Self::buffer_hits) and [`buffer_misses`](Self::buffer_misses) up to date.
    pub fn refresh(&self) {
        let misses = self.misses();
        let hits = self.acquired().saturating_sub(misses);
        self.buffer_hits.store(usize::try_from(hits).unwrap_or(usize::MAX), Ordering::Relaxed);
        self.buffer_misses.store(usize::try_from(misses).unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// Adds to [`total_bytes_processed`](Self::total_bytes_processed).
    pub fn record_bytes_processed(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts a send of `bytes` that copied nothing.
    pub fn record_zero_copy_send(&self, bytes: usize) {
        self.zero_copy_sends.fetch_add(1, Ordering::Relaxed);
        self.record_bytes_processed(bytes);
    }

    /// Counts a receive of `bytes` that copied nothing.
    pub fn record_zero_copy_receive(&self, bytes: usize) {
        self.zero_copy_receives.fetch_add(1, Ordering::Relaxed);
        self.record_bytes_processed(bytes);
    }

    pub(super) fn record_size_violation(&self) {
        self.violations.fetch_add(1, Ordering::Relaxed);
    }

    /// The part of all acquires that got a buffer, from 0 to 1; 0 when there was none. Those that failed are timed-out
    /// waits, `try_` forms that found none, and requests to a closed pool or for more than the pool may hold.
    #[must_use]
    pub fn acquisition_success_rate(&self) -> f64 {
        let acquired = self.acquired();
        let attempts = acquired + self.timeouts() + self.refusals();
        if attempts == 0 { 0.0 } else { acquired as f64 / attempts as f64 }
    }

    /// Bytes recorded.
    #[must_use]
    pub fn total_bytes_processed(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Messages that were too large.
    #[must_use]
    pub fn size_violations(&self) -> u64 {
        self.violations.load(Ordering::Relaxed)
    }

    /// Buffers and blocks handed out.
    #[must_use]
    pub fn acquired(&self) -> u64 {
        self.pool.taken()
    }

    /// Of those, how many had to be allocated.
    #[must_use]
    pub fn misses(&self) -> u64 {
        self.pool.count_of(|counts| &counts.misses)
    }

    /// Acquires that had to wait, however it ended.
    #[must_use]
    pub fn waits(&self) -> u64 {
        self.pool.count_of(|counts| &counts.waits)
    }

    /// Waits that took too long.
    #[must_use]
    pub fn timeouts(&self) -> u64 {
        self.pool.count_of(|counts| &counts.timeouts)
    }

    /// Acquires that got nothing without waiting in vain.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.pool.count_of(|counts| &counts.refusals)
    }

    /// Bytes on loan now, headers and padding included.
    #[must_use]
    pub fn lent_bytes(&self) -> usize {
        self.pool.lent()
    }

    /// Bytes that lie idle now.
    #[must_use]
    pub fn pooled_bytes(&self) -> usize {
        self.pool.idle()
    }

    /// All bytes taken from the system: what is lent and what lies idle.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.pool.allocated()
    }

    pub(super) fn zero_copy(&self) -> ZeroCopyMetrics {
        self.refresh();
        let load = |counter: &AtomicUsize| counter.load(Ordering::Relaxed) as u64;
        let (sends, receives) = (load(&self.zero_copy_sends), load(&self.zero_copy_receives));
        let config = &self.pool.config;
        let room = sends as f64 * config.write_buffer_capacity as f64
            + receives as f64 * config.read_buffer_capacity as f64;
        let bytes = self.total_bytes_processed();
        let (current_pool_size, max_pool_size) = self.pool.idle_vecs();
        ZeroCopyMetrics {
            buffer_pool_hits: load(&self.buffer_hits),
            buffer_pool_misses: load(&self.buffer_misses),
            total_bytes_processed: bytes,
            zero_copy_sends: sends,
            zero_copy_receives: receives,
            average_buffer_utilization: if room > 0.0 { (bytes as f64 / room).min(1.0) } else { 0.0 },
            current_pool_size,
            max_pool_size,
        }
    }
}

impl fmt::Debug for BufferMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferMetrics")
            .field("acquired", &self.acquired())
            .field("misses", &self.misses())
            .field("waits", &self.waits())
            .field("timeouts", &self.timeouts())
            .field("lent_bytes", &self.lent_bytes())
            .field("pooled_bytes", &self.pooled_bytes())
            .finish_non_exhaustive()
    }
}

/// Figures of zero-copy transfer at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ZeroCopyMetrics {
    /// Acquires served from idle buffers.
    pub buffer_pool_hits: u64,
    /// Acquires that had to allocate.
    pub buffer_pool_misses: u64,
    /// Bytes recorded.
    pub total_bytes_processed: u64,
    /// Sends that copied nothing.
    pub zero_copy_sends: u64,
    /// Receives that copied nothing.
    pub zero_copy_receives: u64,
    /// Bytes recorded as a part of the room that the recorded sends and receives had in their buffers, from 0 to 1.
    pub average_buffer_utilization: f64,
    /// Idle read and write buffers.
    pub current_pool_size: usize,
    /// The most of them there may be.
    pub max_pool_size: usize,
}

impl ZeroCopyMetrics {
    /// Hits as a part of all acquires, from 0 to 1; 0 when there was none.
    #[must_use]
    pub fn buffer_pool_hit_ratio(&self) -> f64 {
        let all = self.buffer_pool_hits + self.buffer_pool_misses;
        if all == 0 { 0.0 } else { self.buffer_pool_hits as f64 / all as f64 }
    }

    /// Idle buffers in percent of the most there may be; 0 when there may be none.
    #[must_use]
    pub fn pool_utilization(&self) -> f64 {
        if self.max_pool_size == 0 {
            0.0
        } else {
            self.current_pool_size as f64 * 100.0 / self.max_pool_size as f64
        }
    }

    /// Whether at least eight of ten acquires allocate nothing.
    #[must_use]
    pub fn is_pool_efficient(&self) -> bool {
        self.buffer_pool_hit_ratio() >= 0.8
    }
}
