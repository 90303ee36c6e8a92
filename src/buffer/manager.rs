//! [`BufferManager`]: the handle by which everyone gets their buffers.

use std::{
    fmt,
    task::{Context, Poll},
};

use bytes::BytesMut;

use super::{
    AcquiredBuffer, BufferConfig, BufferMetrics, PooledBuffer, Waiter, Window, ZeroCopyMetrics,
    pool::{Kind, Pool},
    sync::Arc,
};
use crate::transport::TransportError;

/// A capped, lock-free pool of buffers, sorted by size. Clones are handles of the same pool.
///
/// It lends [`PooledBuffer`]s (vectors, AIRS's kind) and [`Window`]s (blocks from which frames are cut without
/// copying); all come back when dropped, from any thread. Lent and idle bytes together never exceed
/// [`max_bytes`](BufferConfig::max_bytes).
///
/// | form | when nothing is free |
/// |---|---|
/// | `try_*` | goes up to the cap, then gives nothing |
/// | `acquire_*`, `window`, `poll_*` | wait already at [`backpressure_threshold`](BufferConfig::backpressure_threshold), in the order in which they came, until enough has been *given back* |
///
/// While anybody waits, newcomers stand in line, `try_*` included.
///
/// Idle bytes shrink by themselves with use: every so many acquires one size class is looked at and what it did not
/// need since the last time is freed. There is no background thread, so a pool that nobody uses keeps what it has;
/// [`trim`](Self::trim) frees that.
///
/// When the last handle drops, idle buffers are freed at once and lent ones when they come back.
#[derive(Clone)]
pub struct BufferManager {
    handle: Arc<Handle>,
}

/// Closes the pool with the last manager; the pool itself lives on in what it has lent.
pub(super) struct Handle {
    pool: Arc<Pool>,
    metrics: BufferMetrics,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.pool.close();
    }
}

impl BufferManager {
    /// A manager with a pool of its own. Nothing is allocated for buffers before one is asked for.
    #[must_use]
    pub fn new(config: BufferConfig) -> Self {
        let pool = Arc::new(Pool::new(config));
        let metrics = BufferMetrics::new(Arc::clone(&pool));
        Self { handle: Arc::new(Handle { pool, metrics }) }
    }

    /// The manager that links use when they are given none: one for the process, with the default settings.
    pub fn shared() -> &'static Self {
        static SHARED: std::sync::OnceLock<BufferManager> = std::sync::OnceLock::new();
        SHARED.get_or_init(|| Self::new(BufferConfig::default()))
    }

    #[inline]
    fn pool(&self) -> &Arc<Pool> {
        &self.handle.pool
    }

    /// Whether this is the process's shared manager.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Arc::ptr_eq(&self.handle, &Self::shared().handle)
    }

    /// A window of at least `capacity` bytes, without waiting; `None` when the cap is reached or somebody waits.
    /// Beyond the largest size class (64 MiB) the block is made to measure and freed when it comes back.
    #[must_use]
    #[inline]
    pub fn try_window(&self, capacity: usize) -> Option<Window> {
        let block = Pool::try_block(self.pool(), capacity);
        if block.is_none() {
            self.pool().count_refusal();
        }
        Window::new(block?).ok()
    }

    /// A window of at least `capacity` bytes on a block that is in the pool already: allocates nothing.
    #[must_use]
    pub fn try_pooled_window(&self, capacity: usize) -> Option<Window> {
        Window::new(self.pool().idle_block(capacity)?).ok()
    }

    /// A window of at least `capacity` bytes, as soon as there is room. Has no deadline of its own.
    ///
    /// # Errors
    /// [`Closed`](TransportError::Closed) when the manager is, [`BufferOverflow`](TransportError::BufferOverflow) when
    /// the whole pool may not hold so many bytes or too many tasks wait.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue and nothing else.
    pub async fn window(&self, capacity: usize) -> Result<Window, TransportError> {
        let mut waiter = Waiter::new();
        std::future::poll_fn(|cx| self.poll_window(cx, &mut waiter, capacity)).await
    }

    /// [`window`](Self::window) to be polled by hand; `waiter` keeps the place in the queue between polls and is free
    /// again once this is ready.
    ///
    /// # Errors
    /// As [`window`](Self::window).
    pub fn poll_window(
        &self,
        cx: &Context<'_>,
        waiter: &mut Waiter,
        capacity: usize,
    ) -> Poll<Result<Window, TransportError>> {
        Pool::poll_block(self.pool(), cx, waiter, capacity).map(|block| {
            Window::new(block?).map_err(|_| TransportError::other("a pooled block is still in use"))
        })
    }

    /// A read buffer, empty, of [`read_buffer_capacity`](BufferConfig::read_buffer_capacity); waits for one at most
    /// [`acquire_timeout_ms`](BufferConfig::acquire_timeout_ms). Only when it waits does it need tokio's clock.
    ///
    /// # Errors
    /// [`Timeout`](TransportError::Timeout) when none came free in time, else as [`window`](Self::window).
    ///
    /// # Panics
    /// When it has to wait outside a tokio runtime, or in one without a clock.
    ///
    /// # Cancel safety
    /// As [`window`](Self::window).
    #[cfg(feature = "link")]
    pub async fn acquire_read_buffer(&self) -> Result<PooledBuffer, TransportError> {
        self.acquire(Kind::Read).await
    }

    /// A write buffer, empty, of [`write_buffer_capacity`](BufferConfig::write_buffer_capacity); else as
    /// [`acquire_read_buffer`](Self::acquire_read_buffer).
    ///
    /// # Errors
    /// As [`acquire_read_buffer`](Self::acquire_read_buffer).
    ///
    /// # Cancel safety
    /// As [`window`](Self::window).
    #[cfg(feature = "link")]
    pub async fn acquire_write_buffer(&self) -> Result<PooledBuffer, TransportError> {
        self.acquire(Kind::Write).await
    }

    /// An empty `BytesMut` of [`read_buffer_capacity`](BufferConfig::read_buffer_capacity) that comes back when it is
    /// dropped; waits as [`acquire_read_buffer`](Self::acquire_read_buffer).
    ///
    /// # Errors
    /// As [`acquire_read_buffer`](Self::acquire_read_buffer).
    ///
    /// # Cancel safety
    /// As [`window`](Self::window).
    #[cfg(feature = "link")]
    pub async fn acquire_buffer(&self) -> Result<AcquiredBuffer, TransportError> {
        let mut waiter = Waiter::new();
        let bytes = self.in_time(|cx| Pool::poll_acquired(self.pool(), cx, &mut waiter)).await?;
        Ok(self.acquired(bytes))
    }

    /// An empty `BytesMut` as `acquire_buffer` gives it, without waiting; `None` when the cap is
    /// reached or somebody waits.
    #[must_use]
    pub fn try_acquire_buffer(&self) -> Option<AcquiredBuffer> {
        let bytes = self.pool().try_acquired();
        if bytes.is_none() {
            self.pool().count_refusal();
        }
        Some(self.acquired(bytes?))
    }

    fn acquired(&self, bytes: BytesMut) -> AcquiredBuffer {
        AcquiredBuffer::new(bytes, self.config().read_buffer_capacity, Arc::clone(self.pool()))
    }

    #[cfg(feature = "link")]
    async fn acquire(&self, kind: Kind) -> Result<PooledBuffer, TransportError> {
        let mut waiter = Waiter::new();
        self.in_time(|cx| self.poll_acquire(cx, &mut waiter, kind)).await
    }

    /// Polls until there is something, as long as one waits for a buffer.
    #[cfg(feature = "link")]
    async fn in_time<T>(
        &self,
        poll: impl FnMut(&mut Context<'_>) -> Poll<Result<T, TransportError>> + Unpin,
    ) -> Result<T, TransportError> {
        let mut wait = std::future::poll_fn(poll);
        // The clock is read only when there is something to wait for.
        let first = std::future::poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut wait).poll(cx))).await;
        if let Poll::Ready(result) = first {
            return result;
        }
        let duration_ms = self.config().acquire_timeout_ms;
        match tokio::time::timeout(std::time::Duration::from_millis(duration_ms), wait).await {
            Ok(result) => result,
            Err(_) => {
                self.pool().count_timeout();
                Err(TransportError::Timeout { duration_ms })
            }
        }
    }

    /// A read buffer without waiting; `None` when the cap is reached or somebody waits.
    #[must_use]
    #[inline]
    pub fn try_acquire_read_buffer(&self) -> Option<PooledBuffer> {
        self.try_acquire(Kind::Read)
    }

    /// A write buffer without waiting; `None` when the cap is reached or somebody waits.
    #[must_use]
    #[inline]
    pub fn try_acquire_write_buffer(&self) -> Option<PooledBuffer> {
        self.try_acquire(Kind::Write)
    }

    #[inline]
    fn try_acquire(&self, kind: Kind) -> Option<PooledBuffer> {
        let stock = Pool::try_vec(self.pool(), kind);
        if stock.is_none() {
            self.pool().count_refusal();
        }
        stock.map(PooledBuffer::new)
    }

    /// Polls for a read buffer by hand, without a deadline; see [`poll_window`](Self::poll_window).
    ///
    /// # Errors
    /// As [`window`](Self::window).
    pub fn poll_read_buffer(
        &self,
        cx: &Context<'_>,
        waiter: &mut Waiter,
    ) -> Poll<Result<PooledBuffer, TransportError>> {
        self.poll_acquire(cx, waiter, Kind::Read)
    }

    /// Polls for a write buffer by hand, without a deadline; see [`poll_window`](Self::poll_window).
    ///
    /// # Errors
    /// As [`window`](Self::window).
    pub fn poll_write_buffer(
        &self,
        cx: &Context<'_>,
        waiter: &mut Waiter,
    ) -> Poll<Result<PooledBuffer, TransportError>> {
        self.poll_acquire(cx, waiter, Kind::Write)
    }

    fn poll_acquire(
        &self,
        cx: &Context<'_>,
        waiter: &mut Waiter,
        kind: Kind,
    ) -> Poll<Result<PooledBuffer, TransportError>> {
        Pool::poll_vec(self.pool(), cx, waiter, kind).map(|stock| Ok(PooledBuffer::new(stock?)))
    }

    /// Checks a message's size, in bytes, against [`max_message_size`](BufferConfig::max_message_size), which itself is
    /// allowed, and counts a violation.
    ///
    /// # Errors
    /// [`BufferOverflow`](TransportError::BufferOverflow) when it is larger.
    pub fn validate_message_size(&self, size: usize) -> Result<(), TransportError> {
        let maximum = self.config().max_message_size;
        if size <= maximum {
            return Ok(());
        }
        self.handle.metrics.record_size_violation();
        Err(TransportError::buffer_overflow(format!("Message size {size} exceeds maximum {maximum}")))
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &BufferConfig {
        &self.pool().config
    }

    /// Whether transports may hand out bytes without copying.
    #[must_use]
    pub fn is_zero_copy_enabled(&self) -> bool {
        self.config().enable_zero_copy
    }

    /// The live figures.
    #[must_use]
    pub fn metrics(&self) -> BufferMetrics {
        self.handle.metrics.refresh();
        self.handle.metrics.clone()
    }

    /// Figures of zero-copy transfer now.
    #[must_use]
    pub fn get_zero_copy_metrics(&self) -> ZeroCopyMetrics {
        self.handle.metrics.zero_copy()
    }

    /// Counts a send of `bytes` that copied nothing. Asynchronous in name only, as AIRS has it.
    ///
    /// # Cancel safety
    /// Never waits.
    pub async fn record_zero_copy_send(&self, bytes: usize) {
        self.handle.metrics.record_zero_copy_send(bytes);
    }

    /// Counts a receive of `bytes` that copied nothing. Asynchronous in name only, as AIRS has it.
    ///
    /// # Cancel safety
    /// Never waits.
    pub async fn record_zero_copy_receive(&self, bytes: usize) {
        self.handle.metrics.record_zero_copy_receive(bytes);
    }

    /// Frees all idle buffers now.
    pub fn trim(&self) {
        self.pool().trim();
    }

    /// Lends nothing any more: those who wait and those who come get [`Closed`](TransportError::Closed). What is lent
    /// stays valid and is freed when it comes back. Happens by itself when the last handle drops.
    pub fn close(&self) {
        self.pool().close();
    }
}

impl Default for BufferManager {
    fn default() -> Self {
        Self::new(BufferConfig::default())
    }
}

impl fmt::Debug for BufferManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferManager").field("pool", self.pool()).finish_non_exhaustive()
    }
}
