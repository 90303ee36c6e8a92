//! [`Pool`]: the books and the shelves behind a buffer manager: who may have how many bytes, and where idle ones lie.
//!
//! `allocated` counts every byte taken from the system. It is changed only when memory is allocated or freed, never
//! when an idle item is lent or comes back; what is lent is derived from it and from what lies on the shelves. So the
//! common path of an acquire and its release is three atomic read-modify-writes: take, count, put.
//!
//! # How a release and a waiter cannot miss each other
//!
//! A waiter first stands in the queue (`sleeping` goes up) and puts the gates of all slots down; then it tries once
//! more. A release on the common path either put its item before the gate of that slot came down, so that the second
//! try sees it, or finds the gate and takes the slow path; a release on the slow path first puts the item or takes it
//! off `allocated` and then reads `sleeping`, all sequentially consistent. Closing works the same way.
//!
//! # Who keeps the pool alive
//!
//! Each item, lent or idle, has an `Arc` of its pool. A pool that is closed keeps no idle items; so it goes when the
//! last lent one has come back.

#![allow(unsafe_code)]

use std::{
    fmt,
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;

use super::{
    block::Block,
    config::BufferConfig,
    pooled::Stock,
    shelf::{Shelf, Shelved},
    sync::{self, Arc, AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, Queue},
    wait::{MAX_WAITERS, WaitList, Waiter},
};
use crate::transport::TransportError;

/// Sizes of blocks in bytes and how many of each may lie idle. From 1 MiB up with 64 KiB of slack, so that a message
/// of a round size fits with its head and tail.
#[cfg(not(loom))]
const CLASSES: [(usize, usize); 8] = [
    (4 << 10, 256),
    (16 << 10, 256),
    (64 << 10, 128),
    (256 << 10, 64),
    ((1 << 20) + (64 << 10), 64),
    ((4 << 20) + (64 << 10), 8),
    ((16 << 20) + (64 << 10), 4),
    ((64 << 20) + (64 << 10), 1),
];
#[cfg(loom)]
const CLASSES: [(usize, usize); 1] = [(64, 4)];

/// The class of blocks that are made to measure: freed when they come back.
const OVERSIZE: u8 = u8::MAX;

/// `BytesMut`s that are kept idle at the most; they are lent one per transport at a time.
const IDLE_ACQUIRED: usize = 16;

/// A lane sweeps one shelf in so many of its acquires.
const SWEEP_EVERY: u64 = 128;

/// What a pool lends.
pub(super) trait Pooled: Shelved {
    fn home(&self) -> Option<&Arc<Pool>>;
    fn shelf(pool: &Pool, class: u8) -> Option<&Shelf<Self>>;
    fn class(&self) -> u8;
    /// Bytes it takes from the system, as the pool's books have it.
    fn footprint(&self) -> usize;
    /// Whether it may be lent again as it is.
    fn is_fit(&self) -> bool;
    /// Gives the memory back to the system.
    fn destroy(self);
}

/// Which kind of Vec buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Read = 0,
    Write = 1,
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// Asks once: up to the cap, and not past those who wait.
    Try,
    /// Will wait: up to the threshold, and not past those who wait.
    New,
    /// Has waited and it is its turn.
    Served,
}

/// Counters that only the slow path touches.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// `BytesMut`s handed out; what lies on shelves is counted there.
    pub(super) acquired: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) refusals: AtomicU64,
    pub(super) waits: AtomicU64,
    pub(super) timeouts: AtomicU64,
}

/// Read by every asynchronous acquire, written rarely: on a cache line of its own.
#[repr(align(128))]
struct Books {
    /// Bytes taken from the system. INVARIANT: at most `max_bytes`, but for what users let `PooledBuffer`s grow by.
    allocated: AtomicUsize,
    /// Waiters that have not been woken.
    sleeping: AtomicUsize,
    closed: AtomicBool,
}

/// A pool as those who use it hold it.
pub(super) type SharedPool = Arc<Pool>;

pub(crate) struct Pool {
    blocks: [Shelf<Block>; CLASSES.len()],
    vecs: [Shelf<Box<Stock>>; 2],
    /// Idle `BytesMut`s, each of the read buffers' capacity.
    acquired: Queue<BytesMut>,
    books: Books,
    threshold: usize,
    /// Which shelf is swept next.
    hand: AtomicUsize,
    waiters: Mutex<WaitList>,
    counts: Counts,
    pub(super) config: BufferConfig,
}

impl Pool {
    pub(super) fn new(config: BufferConfig) -> Self {
        let lanes = sync::lanes();
        Self {
            blocks: CLASSES.map(|(_, bound)| Shelf::new(bound, lanes)),
            vecs: std::array::from_fn(|_| Shelf::new(config.pool_size, lanes)),
            acquired: Queue::new(IDLE_ACQUIRED),
            books: Books {
                allocated: AtomicUsize::new(0),
                sleeping: AtomicUsize::new(0),
                closed: AtomicBool::new(false),
            },
            threshold: config.threshold(),
            hand: AtomicUsize::new(0),
            waiters: Mutex::new(WaitList::default()),
            counts: Counts::default(),
            config,
        }
    }

    pub(super) fn block_shelf(&self, class: u8) -> Option<&Shelf<Block>> {
        self.blocks.get(usize::from(class))
    }

    pub(super) fn vec_shelf(&self, class: u8) -> Option<&Shelf<Box<Stock>>> {
        self.vecs.get(usize::from(class))
    }

    // ---- taking ----

    /// The class and the size of a block for `capacity` bytes.
    #[inline]
    fn class_of(capacity: usize) -> (u8, usize) {
        CLASSES
            .iter()
            .position(|&(size, _)| size >= capacity)
            .and_then(|class| Some((class as u8, CLASSES.get(class)?.0)))
            .unwrap_or((OVERSIZE, capacity))
    }

    #[inline]
    pub(super) fn try_block(this: &Arc<Self>, capacity: usize) -> Option<Block> {
        let (class, size) = Self::class_of(capacity);
        this.take(class, Entry::Try).or_else(|| Self::make_block(this, class, size, Entry::Try))
    }

    /// An idle block, if there is one and nobody waits. Not finding any is no refusal.
    pub(super) fn idle_block(&self, capacity: usize) -> Option<Block> {
        let (class, _) = Self::class_of(capacity);
        self.take(class, Entry::Try).or_else(|| {
            let shelf = self.block_shelf(class)?;
            if self.is_closed() || self.books.sleeping.load(Ordering::SeqCst) > 0 {
                return None;
            }
            let block = shelf.take_anywhere()?;
            self.count(shelf, sync::thread_number());
            Some(block)
        })
    }

    /// Waits for a block; see [`poll_take`](Self::poll_take).
    pub(super) fn poll_block(
        this: &Arc<Self>,
        cx: &Context<'_>,
        waiter: &mut Waiter,
        capacity: usize,
    ) -> Poll<Result<Block, TransportError>> {
        let (class, size) = Self::class_of(capacity);
        if !waiter.is_waiting()
            && let Some(block) = this.take(class, Entry::New)
        {
            return Poll::Ready(Ok(block));
        }
        Self::poll_take(this, cx, waiter, Block::footprint_of(size), |entry| {
            Self::make_block(this, class, size, entry)
        })
    }

    #[inline]
    pub(super) fn try_vec(this: &Arc<Self>, kind: Kind) -> Option<Box<Stock>> {
        this.take(kind as u8, Entry::Try).or_else(|| Self::make_vec(this, kind, Entry::Try))
    }

    #[inline]
    pub(super) fn poll_vec(
        this: &Arc<Self>,
        cx: &Context<'_>,
        waiter: &mut Waiter,
        kind: Kind,
    ) -> Poll<Result<Box<Stock>, TransportError>> {
        if !waiter.is_waiting()
            && let Some(stock) = this.take(kind as u8, Entry::New)
        {
            return Poll::Ready(Ok(stock));
        }
        Self::poll_take(this, cx, waiter, this.capacity_of(kind), |entry| Self::make_vec(this, kind, entry))
    }

    /// A `BytesMut` of the read buffers' capacity, which [`shelve`](Self::shelve) takes back.
    pub(super) fn try_acquired(&self) -> Option<BytesMut> {
        self.make_acquired(Entry::Try)
    }

    /// Waits for one; see [`poll_take`](Self::poll_take).
    #[cfg(feature = "link")]
    pub(super) fn poll_acquired(
        this: &Arc<Self>,
        cx: &Context<'_>,
        waiter: &mut Waiter,
    ) -> Poll<Result<BytesMut, TransportError>> {
        Self::poll_take(this, cx, waiter, this.capacity_of(Kind::Read), |entry| this.make_acquired(entry))
    }

    fn make_acquired(&self, entry: Entry) -> Option<BytesMut> {
        if !self.may_take(entry) {
            return None;
        }
        let bytes = match self.acquired.pop() {
            Some(bytes) => bytes,
            None => {
                let capacity = self.capacity_of(Kind::Read);
                if !self.charge(capacity) {
                    return None;
                }
                self.counts.misses.fetch_add(1, Ordering::Relaxed);
                BytesMut::with_capacity(capacity)
            }
        };
        self.counts.acquired.fetch_add(1, Ordering::Relaxed);
        Some(bytes)
    }

    fn capacity_of(&self, kind: Kind) -> usize {
        match kind {
            Kind::Read => self.config.read_buffer_capacity,
            Kind::Write => self.config.write_buffer_capacity,
        }
    }

    #[cold]
    fn make_block(this: &Arc<Self>, class: u8, size: usize, entry: Entry) -> Option<Block> {
        this.make(class, Block::footprint_of(size), entry, || {
            Block::allocate(size, class, Some(Arc::clone(this)))
        })
    }

    #[cold]
    fn make_vec(this: &Arc<Self>, kind: Kind, entry: Entry) -> Option<Box<Stock>> {
        let capacity = this.capacity_of(kind);
        this.make(kind as u8, capacity, entry, || Stock::allocate(capacity, kind, Arc::clone(this)))
    }

    /// The common path: an idle item from this thread's lane. While anybody waits the gates are down and it finds
    /// nothing.
    #[inline]
    fn take<T: Pooled>(&self, class: u8, entry: Entry) -> Option<T> {
        if entry == Entry::New && self.is_pressed() {
            return None;
        }
        let thread = sync::thread_number();
        let shelf = T::shelf(self, class)?;
        let item = shelf.take(thread)?;
        self.count(shelf, thread);
        Some(item)
    }

    #[inline]
    fn count<T: Shelved>(&self, shelf: &Shelf<T>, thread: usize) {
        if shelf.count(thread) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.sweep();
        }
    }

    /// Whether so many bytes are lent that whoever can wait has to.
    #[inline]
    fn is_pressed(&self) -> bool {
        // What is lent is never more than what is allocated, and that is one load.
        self.books.allocated.load(Ordering::SeqCst) >= self.threshold && self.lent() >= self.threshold
    }

    /// Whether one who asks so may have anything now.
    fn may_take(&self, entry: Entry) -> bool {
        !self.is_closed()
            && (entry == Entry::Served || self.books.sleeping.load(Ordering::SeqCst) == 0)
            && (entry == Entry::Try || !self.is_pressed())
    }

    /// The slow path: an idle item from anywhere, or a new one within the cap.
    fn make<T: Pooled>(
        &self,
        class: u8,
        footprint: usize,
        entry: Entry,
        allocate: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        if !self.may_take(entry) {
            return None;
        }
        let shelf = T::shelf(self, class);
        let item = match shelf.and_then(Shelf::take_anywhere) {
            Some(item) => item,
            None => {
                if !self.charge(footprint) {
                    return None;
                }
                let Some(item) = allocate() else {
                    self.discharge(footprint);
                    return None;
                };
                self.counts.misses.fetch_add(1, Ordering::Relaxed);
                item
            }
        };
        let thread = sync::thread_number();
        match shelf {
            Some(shelf) => self.count(shelf, thread),
            // Made to measure: counted with the largest class.
            None => self.blocks.last().into_iter().for_each(|shelf| self.count(shelf, thread)),
        }
        Some(item)
    }

    /// Takes `footprint` bytes from the cap, if need be at the cost of idle items.
    pub(super) fn charge(&self, footprint: usize) -> bool {
        let mut allocated = self.books.allocated.load(Ordering::SeqCst);
        loop {
            let fits = allocated.checked_add(footprint).filter(|&sum| sum <= self.config.max_bytes);
            let Some(sum) = fits else {
                if footprint > self.config.max_bytes || !self.evict() {
                    return false;
                }
                allocated = self.books.allocated.load(Ordering::SeqCst);
                continue;
            };
            match self.books.allocated.compare_exchange_weak(
                allocated,
                sum,
                Ordering::SeqCst,
                Ordering::SeqCst,
            ) {
                Ok(_) => return true,
                Err(now) => allocated = now,
            }
        }
    }

    fn discharge(&self, footprint: usize) {
        self.books.allocated.fetch_sub(footprint, Ordering::SeqCst);
    }

    /// Books the growth or shrinkage of an item that its user resized.
    pub(super) fn adjust(&self, before: usize, after: usize) {
        if after > before {
            self.books.allocated.fetch_add(after - before, Ordering::SeqCst);
        } else if before > after {
            self.discharge(before - after);
            self.notify();
        }
    }

    /// Frees one idle item, of the largest class that has any; returns whether there was one.
    fn evict(&self) -> bool {
        if let Some(block) = self.blocks.iter().rev().find_map(Shelf::take_anywhere) {
            self.discard(block);
            return true;
        }
        if let Some(stock) = self.vecs.iter().find_map(Shelf::take_anywhere) {
            self.discard(stock);
            return true;
        }
        let Some(bytes) = self.acquired.pop() else { return false };
        drop(bytes);
        self.discharge(self.capacity_of(Kind::Read));
        true
    }

    fn discard<T: Pooled>(&self, item: T) {
        let footprint = item.footprint();
        item.destroy();
        // After the memory is gone, so that the cap is kept at every moment.
        self.discharge(footprint);
    }

    /// Frees what one shelf did not need since it was last looked at.
    #[cold]
    fn sweep(&self) {
        let at = self.hand.fetch_add(1, Ordering::Relaxed) % (CLASSES.len() + self.vecs.len());
        if let Some(shelf) = self.blocks.get(at) {
            shelf.sweep(|block| self.discard(block));
        } else if let Some(shelf) = self.vecs.get(at - CLASSES.len()) {
            shelf.sweep(|stock| self.discard(stock));
        }
    }

    // ---- giving back ----

    /// Takes back an item that nobody uses any more. An item of no pool is destroyed.
    #[inline]
    pub(super) fn release<T: Pooled>(item: T) {
        let Some(pool) = item.home().map(Arc::as_ptr) else { return item.destroy() };
        if !item.is_fit() {
            return Self::release_slowly(item);
        }
        // SAFETY: the pool lives, for the item has an `Arc` of it and the item is ours.
        let shelf = T::shelf(unsafe { &*pool }, item.class()).map(std::ptr::from_ref);
        let Some(shelf) = shelf else { return Self::release_slowly(item) };
        // SAFETY: the shelf is part of the pool. Once the item is put, neither is touched any more.
        if let Err(item) = unsafe { Shelf::put(shelf, sync::thread_number(), item) } {
            Self::release_slowly(item);
        }
    }

    #[cold]
    fn release_slowly<T: Pooled>(item: T) {
        // The item may be taken, and freed with its pool, as soon as it lies on the shelf: the pool is held by itself.
        let Some(pool) = item.home().map(Arc::clone) else { return item.destroy() };
        let back = match T::shelf(&pool, item.class()) {
            Some(shelf) if item.is_fit() && !pool.is_closed() => shelf.put_aside(item),
            _ => Err(item),
        };
        if let Err(item) = back {
            pool.discard(item);
        }
        if pool.is_closed() {
            pool.trim();
        }
        pool.notify();
    }

    /// Takes back a `BytesMut` that is empty and has its capacity.
    pub(super) fn shelve(&self, bytes: BytesMut) {
        if self.is_closed() || self.acquired.push(bytes).is_err() {
            return self.adjust(self.capacity_of(Kind::Read), 0);
        }
        if self.is_closed() {
            self.trim();
        }
        self.notify();
    }

    /// Frees all idle items.
    pub(super) fn trim(&self) {
        while self.evict() {}
    }

    /// Lends nothing any more and keeps nothing; everyone who waits is told.
    pub(super) fn close(&self) {
        let wakers = {
            let mut waiters = self.waiters();
            self.books.closed.store(true, Ordering::SeqCst);
            self.gate(true);
            std::iter::from_fn(|| waiters.notify()).collect::<Vec<_>>()
        };
        self.books.sleeping.fetch_sub(wakers.len(), Ordering::SeqCst);
        wakers.into_iter().for_each(Waker::wake);
        self.trim();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.books.closed.load(Ordering::SeqCst)
    }

    fn gate(&self, down: bool) {
        self.blocks.iter().for_each(|shelf| shelf.gate(down));
        self.vecs.iter().for_each(|shelf| shelf.gate(down));
    }

    // ---- waiting ----

    fn waiters(&self) -> MutexGuard<'_, WaitList> {
        // Nothing that can panic runs under the lock but wakers' clones; the list is sound at each of them.
        self.waiters.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Wakes the first who sleeps, if any: there may be room.
    fn notify(&self) {
        if self.books.sleeping.load(Ordering::SeqCst) == 0 {
            return;
        }
        let waker = self.waiters().notify().inspect(|_| {
            self.books.sleeping.fetch_sub(1, Ordering::SeqCst);
        });
        waker.into_iter().for_each(Waker::wake);
    }

    /// Takes a waiter out of the queue and hands on what it may have been woken for.
    pub(super) fn leave(&self, key: u64) {
        let old = {
            let mut waiters = self.waiters();
            let old = waiters.remove(key);
            if old.as_ref().is_some_and(|&(_, notified)| !notified) {
                self.books.sleeping.fetch_sub(1, Ordering::SeqCst);
            }
            if waiters.len() == 0 && !self.is_closed() {
                self.gate(false);
            }
            old
        };
        drop(old);
        self.notify();
    }

    /// One poll of a waiter: `attempt` is made when it is its turn. `footprint` is what it asks for, in bytes.
    fn poll_take<T>(
        this: &Arc<Self>,
        cx: &Context<'_>,
        waiter: &mut Waiter,
        footprint: usize,
        attempt: impl Fn(Entry) -> Option<T>,
    ) -> Poll<Result<T, TransportError>> {
        let key = waiter.key(this);
        if key.is_none()
            && let Some(item) = attempt(Entry::New)
        {
            return Poll::Ready(Ok(item));
        }
        if this.is_closed() {
            waiter.cancel();
            return Poll::Ready(Err(this.refuse(TransportError::Closed)));
        }
        if footprint > this.config.max_bytes {
            waiter.cancel();
            return Poll::Ready(Err(this.refuse(TransportError::buffer_overflow(format!(
                "a buffer of {footprint} bytes is larger than the whole pool ({} bytes)",
                this.config.max_bytes
            )))));
        }
        let (turn, old) = match key {
            Some(key) => {
                let mut waiters = this.waiters();
                // It sleeps again before it tries: a release from now on wakes it anew.
                let (notified, old) = waiters.renew(key, cx.waker());
                if notified {
                    this.books.sleeping.fetch_add(1, Ordering::SeqCst);
                }
                (notified || waiters.is_first(key), old)
            }
            None => {
                let mut waiters = this.waiters();
                let Some(key) = waiters.add(cx.waker()) else {
                    drop(waiters);
                    return Poll::Ready(Err(this.refuse(TransportError::buffer_overflow(format!(
                        "{MAX_WAITERS} tasks wait for a buffer already"
                    )))));
                };
                this.books.sleeping.fetch_add(1, Ordering::SeqCst);
                if waiters.len() == 1 {
                    this.gate(true);
                }
                waiter.stand(this, key);
                this.counts.waits.fetch_add(1, Ordering::Relaxed);
                (waiters.is_first(key), None)
            }
        };
        drop(old);
        if turn && let Some(item) = attempt(Entry::Served) {
            // Leaving wakes the next, for whom there may be room too.
            waiter.cancel();
            return Poll::Ready(Ok(item));
        }
        // A close that came after the look above has woken this waiter or saw it not yet; look again.
        if this.is_closed() {
            waiter.cancel();
            return Poll::Ready(Err(this.refuse(TransportError::Closed)));
        }
        Poll::Pending
    }

    fn refuse(&self, error: TransportError) -> TransportError {
        self.count_refusal();
        error
    }

    #[cfg(feature = "link")]
    pub(super) fn count_timeout(&self) {
        self.counts.timeouts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_refusal(&self) {
        self.counts.refusals.fetch_add(1, Ordering::Relaxed);
    }

    // ---- figures ----

    /// One of the counters.
    pub(super) fn count_of(&self, counter: impl Fn(&Counts) -> &AtomicU64) -> u64 {
        counter(&self.counts).load(Ordering::Relaxed)
    }

    /// Bytes taken from the system.
    pub(super) fn allocated(&self) -> usize {
        self.books.allocated.load(Ordering::SeqCst)
    }

    /// Bytes that lie idle.
    pub(super) fn idle(&self) -> usize {
        let blocks =
            self.blocks.iter().zip(CLASSES).map(|(shelf, (size, _))| shelf.len() * Block::footprint_of(size));
        let read = self.vecs.first().map_or(0, |shelf| shelf.len() * self.config.read_buffer_capacity);
        let write = self.vecs.get(1).map_or(0, |shelf| shelf.len() * self.config.write_buffer_capacity);
        let acquired = self.acquired.len() * self.config.read_buffer_capacity;
        blocks.sum::<usize>() + read + write + acquired
    }

    /// Bytes that are lent.
    pub(super) fn lent(&self) -> usize {
        self.allocated().saturating_sub(self.idle())
    }

    /// Buffers and blocks handed out so far.
    pub(super) fn taken(&self) -> u64 {
        self.blocks.iter().map(Shelf::taken).sum::<u64>()
            + self.vecs.iter().map(Shelf::taken).sum::<u64>()
            + self.count_of(|counts| &counts.acquired)
    }

    /// Idle Vec buffers, and the most there may be.
    pub(super) fn idle_vecs(&self) -> (usize, usize) {
        (self.vecs.iter().map(Shelf::len).sum(), self.vecs.iter().map(Shelf::bound).sum())
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("allocated", &self.allocated())
            .field("idle", &self.idle())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
