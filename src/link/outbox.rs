//! [`Outbox`]: the write side that the halves of a link and its flusher share.
//!
//! ```text
//!   Sender ──enqueue──▶ Queue ──take──▶ Writing ──poll_write──▶ W
//!                         ▲                ▲
//!                         │ lock: a few    │ lock: whoever holds the `driving` token,
//!                         │ ns, never over │ so never contended
//!                         │ a system call  │
//!   states of the token:  idle ──(drain finds bytes)──▶ driving ──(all taken)──▶ idle
//!                                                          │
//!                                                     (kernel full)
//!                                                          ▼
//!                                      blocked ──(flusher is woken)──▶ driving
//! ```
//!
//! Whoever has a reason may drain: the sender in `flush`, the receiver before it waits, the flusher when it runs.
//! Exactly one does at any time. All of them poll the writer with the **flusher's** waker, so the one wake-up slot that
//! a writer has always belongs to a task that will come back for it, whatever happens to the future that was polled.
//! The token is given back in the same critical section that finds the queue empty, so no frame is left behind.

use std::{
    collections::VecDeque,
    future::Future,
    io::{self, IoSlice},
    ops::Deref,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    io::AsyncWrite,
    time::{Sleep, sleep},
};

use super::LinkConfig;
use crate::{
    Error, Frame, Result,
    buffer::{BufferManager, Window},
    codec::Encode,
    error::{Deadline, End},
    limits::{VECTORED_THRESHOLD, WRITE_BLOCK_SIZE},
};

/// Slices handed to one vectored write at the most.
const MAX_SLICES: usize = 16;

/// The write side of a link.
#[derive(Debug)]
pub(super) struct Outbox<W> {
    queue: Mutex<Queue>,
    writing: Mutex<Writing<W>>,
    pub(super) high_water: usize,
    pause_reading: bool,
    write_deadline: Option<Duration>,
    /// How long what is queued may still wait to leave once both halves are gone.
    linger: Option<Duration>,
    buffers: BufferManager,
}

/// One half's share of an outbox.
#[derive(Debug)]
pub(super) struct Half<W: AsyncWrite + Unpin + Send + 'static>(Arc<Outbox<W>>);

impl<W: AsyncWrite + Unpin + Send + 'static> Half<W> {
    pub(super) fn is_of_the_same_link(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> Deref for Half<W> {
    type Target = Arc<Outbox<W>>;

    #[inline]
    fn deref(&self) -> &Arc<Outbox<W>> {
        &self.0
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> Drop for Half<W> {
    fn drop(&mut self) {
        self.0.release_half();
    }
}

/// What waits to be written, and who waits for that.
#[derive(Debug)]
struct Queue {
    /// Frames and full blocks, in order, all of them before `tail`.
    segments: VecDeque<Frame>,
    /// The block that small frames are gathered in.
    tail: Option<Window>,
    /// Bytes in `segments` and `tail`.
    queued: usize,
    /// Bytes taken out of the queue and not yet written.
    in_flight: usize,
    /// Bytes written since the start.
    written: u64,
    /// Somebody holds `writing`.
    driving: bool,
    /// The writer said Pending and has the flusher's waker.
    blocked: bool,
    /// The flusher ran while somebody else was driving: the writer's wake-up may be spent.
    missed: bool,
    /// Bytes were written since the writer was last flushed.
    dirty: bool,
    /// The flusher was told of the frames that are queued.
    armed: bool,
    phase: Phase,
    flusher: FlusherState,
    sender: Option<Waker>,
    receiver: Option<Waker>,
    /// Halves that still exist.
    halves: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Shut the writer down when all is written.
    Closing,
    Closed,
    Failed(Failure),
}

/// Why writing ended; the error of the first to ask, and of all that ask later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Os(i32),
    Kind(io::ErrorKind),
    TimedOut(Duration),
}

impl Failure {
    fn of(error: &io::Error) -> Self {
        error.raw_os_error().map_or_else(|| Self::Kind(error.kind()), Self::Os)
    }

    fn error(self) -> Error {
        match self {
            Self::Os(code) => io::Error::from_raw_os_error(code).into(),
            Self::Kind(kind) => io::Error::from(kind).into(),
            Self::TimedOut(after) => Error::TimedOut { deadline: Deadline::Write, after },
        }
    }
}

#[derive(Debug)]
enum FlusherState {
    /// None yet, or its runtime has ended.
    None,
    /// Spawned; its waker is not known before it first runs, which it is about to do.
    Starting,
    Running(Waker),
}

/// The writer and what is on its way into it. Locked by the holder of the `driving` token.
#[derive(Debug)]
struct Writing<W> {
    writer: Option<W>,
    current: Option<Frame>,
    /// Bytes of `current` that are written.
    offset: usize,
    more: VecDeque<Frame>,
    waker: Option<Waker>,
    writes: u64,
}

/// What became of an attempt to queue a frame.
pub(super) enum Enqueued {
    Done,
    /// The high-water mark is reached; nothing was queued.
    Full,
    /// As `Done`, and there is no flusher: the caller has to flush.
    Unattended,
}

/// Who asks for a drain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Half,
    Flusher,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of the writer leaves the data whole: see `Driving`.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn store(slot: &mut Option<Waker>, waker: &Waker) {
    if slot.as_ref().is_none_or(|old| !old.will_wake(waker)) {
        *slot = Some(waker.clone());
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> Outbox<W> {
    /// The outbox of a new link, shared by its two halves.
    pub(super) fn shared_by_halves(writer: W, config: &LinkConfig) -> (Half<W>, Half<W>) {
        let outbox = Arc::new(Self {
            queue: Mutex::new(Queue {
                segments: VecDeque::new(),
                tail: None,
                queued: 0,
                in_flight: 0,
                written: 0,
                driving: false,
                blocked: false,
                missed: false,
                dirty: false,
                armed: false,
                phase: Phase::Open,
                flusher: FlusherState::None,
                sender: None,
                receiver: None,
                halves: 2,
            }),
            writing: Mutex::new(Writing {
                writer: Some(writer),
                current: None,
                offset: 0,
                more: VecDeque::new(),
                waker: None,
                writes: 0,
            }),
            high_water: config.write_high_water,
            pause_reading: config.pause_reading,
            write_deadline: config.write,
            linger: config.close,
            buffers: config.buffers.clone(),
        });
        (Half(Arc::clone(&outbox)), Half(outbox))
    }

    /// Queues one frame of `payload`. With `cork`, the flusher is told, so that the frame leaves by itself.
    #[inline]
    pub(super) fn enqueue<E: Encode>(
        self: &Arc<Self>,
        encoder: &mut E,
        payload: &[u8],
        cork: bool,
    ) -> Result<Enqueued> {
        let room = payload.len() + encoder.overhead();
        if payload.len() >= VECTORED_THRESHOLD {
            return self.enqueue_parts(encoder, &[IoSlice::new(payload)], cork);
        }
        let mut queue = lock(&self.queue);
        if !queue.admits(self.high_water)? {
            return Ok(Enqueued::Full);
        }
        let window = queue.room(room, &self.buffers)?;
        let written = encoder.encode(payload, window.spare())?;
        window.advance(written);
        queue.queued += written;
        Ok(self.attend(queue, cork))
    }

    /// Queues one frame whose payload is `parts`, one after the other. From the threshold on, the parts are written
    /// where they lie, as far as the kernel takes them at once.
    #[cold]
    pub(super) fn enqueue_parts<E: Encode>(
        self: &Arc<Self>,
        encoder: &mut E,
        parts: &[IoSlice<'_>],
        cork: bool,
    ) -> Result<Enqueued> {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        let mut queue = lock(&self.queue);
        if !queue.admits(self.high_water)? {
            return Ok(Enqueued::Full);
        }
        let Some(wrap) = encoder.wrap(parts)? else {
            // The codec changes the payload: gather it, then let the codec copy it once more.
            let mut gathered = Vec::with_capacity(if let [_] = parts { 0 } else { size });
            let payload: &[u8] = if let [part] = parts {
                part
            } else {
                for part in parts {
                    gathered.extend_from_slice(part);
                }
                &gathered
            };
            let window = queue.room(size + encoder.overhead(), &self.buffers)?;
            let written = encoder.encode(payload, window.spare())?;
            window.advance(written);
            queue.queued += written;
            return Ok(self.attend(queue, cork));
        };
        let mut skip = 0;
        if size >= VECTORED_THRESHOLD && queue.may_drive(By::Half) {
            // Straight from the caller's memory, behind what is queued already.
            queue.driving = true;
            queue.missed = false;
            let total = wrap.head().len() + size + wrap.tail().len();
            let mut writing = lock(&self.writing);
            writing.take_from(&mut queue);
            drop(queue);
            let guard = Driving(self);
            let outcome = writing.write_with(wrap.head(), parts, wrap.tail());
            drop(writing);
            std::mem::forget(guard);
            queue = lock(&self.queue);
            queue.driving = false;
            match outcome {
                Ok((settled, own)) => {
                    queue.settle(settled);
                    queue.written += own as u64;
                    queue.dirty |= settled + own > 0;
                    skip = own;
                    if own < total {
                        queue.block(By::Half, self.write_deadline.is_some());
                    }
                }
                Err(error) => {
                    queue.fail(Failure::of(&error));
                    return Err(error.into());
                }
            }
            queue.notify(self.high_water);
        }
        // Whatever the kernel did not take is copied, so that the frame is whole whatever becomes of the caller.
        let tail: &[u8] = wrap.tail();
        let pieces = std::iter::once(wrap.head()).chain(parts.iter().map(|part| &**part)).chain([tail]);
        let mut rest = wrap.head().len() + size + tail.len() - skip;
        if rest > 0 {
            queue.room(rest, &self.buffers)?;
        }
        for piece in pieces {
            let from = skip.min(piece.len());
            skip -= from;
            let piece = piece.get(from..).unwrap_or_default();
            if piece.is_empty() {
                continue;
            }
            let window = queue.room(rest, &self.buffers)?;
            if !window.extend(piece) {
                return Err(io::Error::from(io::ErrorKind::OutOfMemory).into());
            }
            rest -= piece.len();
            queue.queued += piece.len();
        }
        Ok(self.attend(queue, cork))
    }

    /// Queues one frame whose payload is `frame`, without copying it from the threshold on.
    pub(super) fn enqueue_frame<E: Encode>(
        self: &Arc<Self>,
        encoder: &mut E,
        frame: &Frame,
        cork: bool,
    ) -> Result<Enqueued> {
        if frame.len() < VECTORED_THRESHOLD {
            return self.enqueue(encoder, frame, cork);
        }
        let Some(wrap) = encoder.wrap(&[IoSlice::new(frame)])? else {
            return self.enqueue_parts(encoder, &[IoSlice::new(frame)], cork);
        };
        let mut queue = lock(&self.queue);
        if !queue.admits(self.high_water)? {
            return Ok(Enqueued::Full);
        }
        if !wrap.head().is_empty() {
            let window = queue.room(wrap.head().len(), &self.buffers)?;
            let _fits = window.extend(wrap.head());
        }
        queue.seal_tail();
        queue.segments.push_back(frame.clone());
        queue.queued += wrap.head().len() + frame.len();
        if !wrap.tail().is_empty() {
            let window = queue.room(wrap.tail().len(), &self.buffers)?;
            let _fits = window.extend(wrap.tail());
            queue.queued += wrap.tail().len();
        }
        Ok(self.attend(queue, cork))
    }

    /// Sees to it that somebody will write what was just queued.
    #[inline]
    fn attend(self: &Arc<Self>, queue: MutexGuard<'_, Queue>, cork: bool) -> Enqueued {
        if !cork || queue.armed { Enqueued::Done } else { self.arm(queue) }
    }

    /// Tells the flusher of the first frame of a batch.
    #[inline(never)]
    fn arm(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>) -> Enqueued {
        match &queue.flusher {
            FlusherState::Running(waker) => {
                // Not under the lock: the flusher may run at once on another thread.
                let waker = (!queue.blocked).then(|| waker.clone());
                queue.armed = true;
                drop(queue);
                if let Some(waker) = waker {
                    waker.wake();
                }
                Enqueued::Done
            }
            FlusherState::Starting => Enqueued::Done,
            FlusherState::None => self.start_flusher(queue),
        }
    }

    #[cold]
    fn start_flusher(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>) -> Enqueued {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return Enqueued::Unattended };
        queue.flusher = FlusherState::Starting;
        queue.armed = true;
        drop(queue);
        runtime.spawn(Flusher { outbox: Arc::clone(self), deadline: None });
        Enqueued::Done
    }

    /// Waits until the queue is below the high-water mark.
    pub(super) fn poll_ready(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.drain_from(cx);
        let mut queue = lock(&self.queue);
        if queue.admits(self.high_water)? {
            return Poll::Ready(Ok(()));
        }
        store(&mut queue.sender, cx.waker());
        Poll::Pending
    }

    /// Waits until everything queued is written and the writer flushed.
    pub(super) fn poll_flush(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.drain_from(cx);
        let mut queue = lock(&self.queue);
        if let Phase::Failed(failure) = queue.phase {
            return Poll::Ready(Err(failure.error()));
        }
        if queue.is_idle() {
            return Poll::Ready(Ok(()));
        }
        store(&mut queue.sender, cx.waker());
        Poll::Pending
    }

    /// Writes what is queued, shuts the writer down. Later sends fail with [`End::Closed`].
    pub(super) fn poll_close(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        {
            let mut queue = lock(&self.queue);
            match queue.phase {
                Phase::Closed => return Poll::Ready(Ok(())),
                Phase::Failed(failure) => {
                    queue.phase = Phase::Closed;
                    return Poll::Ready(Err(failure.error()));
                }
                Phase::Open => queue.phase = Phase::Closing,
                Phase::Closing => {}
            }
        }
        self.drain_from(cx);
        let mut queue = lock(&self.queue);
        match queue.phase {
            Phase::Closed => Poll::Ready(Ok(())),
            Phase::Failed(failure) => {
                queue.phase = Phase::Closed;
                Poll::Ready(Err(failure.error()))
            }
            Phase::Open | Phase::Closing => {
                store(&mut queue.sender, cx.waker());
                Poll::Pending
            }
        }
    }

    /// Gives up on what is still queued and closes at once.
    pub(super) fn abort(&self) {
        let _given_up = self.take_writer();
    }

    /// For the receiver, before it reads: writes what is queued, and waits, where so configured, while too much is.
    #[inline]
    pub(super) fn poll_before_read(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        {
            let queue = lock(&self.queue);
            if queue.queued == 0 && queue.in_flight == 0 && !queue.dirty {
                return Poll::Ready(());
            }
        }
        self.drain_from(cx);
        if !self.pause_reading {
            return Poll::Ready(());
        }
        let mut queue = lock(&self.queue);
        if queue.backlog() < self.high_water || matches!(queue.phase, Phase::Failed(_)) {
            return Poll::Ready(());
        }
        store(&mut queue.receiver, cx.waker());
        Poll::Pending
    }

    /// Drains for a task that will come back by itself; where no runtime has a flusher, its waker stands in.
    fn drain_from(self: &Arc<Self>, cx: &Context<'_>) {
        let queue = lock(&self.queue);
        if queue.is_idle() && queue.phase != Phase::Closing {
            return;
        }
        if matches!(queue.flusher, FlusherState::None) {
            if let Enqueued::Unattended = self.start_flusher(queue) {
                store(&mut lock(&self.writing).waker, cx.waker());
                self.drain(By::Flusher);
            }
            return;
        }
        drop(queue);
        self.drain(By::Half);
    }

    /// Writes what is queued as far as the kernel takes it, unless somebody else is at it.
    fn drain(&self, by: By) {
        let mut queue = lock(&self.queue);
        if !queue.may_drive(by) {
            queue.missed |= queue.driving && by == By::Flusher;
            return;
        }
        queue.driving = true;
        queue.blocked = false;
        queue.missed = false;
        let mut writing = lock(&self.writing);
        let writing = &mut *writing;
        let guard = Driving(self);
        loop {
            writing.take_from(&mut queue);
            let closing = queue.phase == Phase::Closing;
            let dirty = queue.dirty;
            if writing.current.is_none() && !dirty && !closing {
                queue.driving = false;
                queue.notify(self.high_water);
                break;
            }
            drop(queue);
            let step = writing.step(closing);
            queue = lock(&self.queue);
            match step {
                Poll::Ready(Ok(Stepped::Wrote(count))) => {
                    queue.settle(count);
                    queue.dirty = true;
                    if !queue.is_waited_for() {
                        continue;
                    }
                    queue.notify(self.high_water);
                }
                Poll::Ready(Ok(Stepped::Flushed)) => queue.dirty = false,
                Poll::Ready(Ok(Stepped::ShutDown)) => {
                    queue.dirty = false;
                    queue.phase = Phase::Closed;
                }
                Poll::Ready(Err(error)) => {
                    writing.current = None;
                    writing.more.clear();
                    queue.driving = false;
                    queue.fail(Failure::of(&error));
                    break;
                }
                Poll::Pending => {
                    queue.driving = false;
                    queue.block(by, self.write_deadline.is_some());
                    break;
                }
            }
        }
        std::mem::forget(guard);
    }

    /// System calls that wrote something.
    pub(super) fn writes(&self) -> u64 {
        lock(&self.writing).writes
    }

    /// Bytes queued and in flight.
    pub(super) fn backlog(&self) -> usize {
        lock(&self.queue).backlog()
    }

    /// Takes the writer out, and what was not written: nothing else will be.
    pub(super) fn take_writer(&self) -> (Option<W>, Vec<Frame>) {
        let mut queue = self.claim();
        queue.phase = Phase::Closed;
        let mut writing = lock(&self.writing);
        writing.take_from(&mut queue);
        let mut unsent = Vec::new();
        if let Some(frame) = writing.current.take() {
            unsent.push(frame.slice(writing.offset..frame.len()));
        }
        unsent.extend(writing.more.drain(..));
        let writer = writing.writer.take();
        drop(writing);
        queue.driving = false;
        queue.discard();
        if let FlusherState::Running(waker) = &queue.flusher {
            waker.wake_by_ref();
        }
        (writer, unsent)
    }

    /// One half is gone. With the last one, what is queued is written by the flusher, which then ends.
    pub(super) fn release_half(self: &Arc<Self>) {
        let mut queue = lock(&self.queue);
        queue.halves = queue.halves.saturating_sub(1);
        if queue.halves > 0 {
            return;
        }
        queue.sender = None;
        queue.receiver = None;
        if matches!(queue.flusher, FlusherState::None) && queue.backlog() > 0 {
            let _unattended = self.start_flusher(queue);
        } else {
            drop(queue);
        }
        // As much as goes at once goes now: the runtime may end before the flusher runs again, or for the first time.
        self.drain_last();
        let queue = lock(&self.queue);
        let waker =
            if let FlusherState::Running(waker) = &queue.flusher { Some(waker.clone()) } else { None };
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> Outbox<W> {
    /// Writes as much as goes at once, when there may be no later: without a flusher nobody is woken to go on.
    fn drain_last(&self) {
        let queue = lock(&self.queue);
        if queue.is_idle() && queue.phase != Phase::Closing {
            return;
        }
        if let FlusherState::Running(_) = queue.flusher {
            drop(queue);
            return self.drain(By::Half);
        }
        if queue.driving {
            return;
        }
        // Not under way anywhere, so the slot is free; a flusher that starts brings its own waker and looks again.
        lock(&self.writing).waker.get_or_insert_with(|| Waker::noop().clone());
        drop(queue);
        self.drain(By::Flusher);
    }
}

impl<W> Outbox<W> {
    /// Takes the `driving` token, once whoever has it gives it back: after a few system calls that do not wait.
    fn claim(&self) -> MutexGuard<'_, Queue> {
        loop {
            let mut queue = lock(&self.queue);
            if !queue.driving {
                queue.driving = true;
                return queue;
            }
            drop(queue);
            std::thread::yield_now();
        }
    }

    fn fail(&self, failure: Failure) {
        let mut queue = self.claim();
        let mut writing = lock(&self.writing);
        writing.current = None;
        writing.more.clear();
        drop(writing);
        queue.driving = false;
        queue.fail(failure);
    }
}

impl Queue {
    fn backlog(&self) -> usize {
        self.queued + self.in_flight
    }

    fn is_idle(&self) -> bool {
        self.backlog() == 0 && !self.driving && !self.dirty
    }

    fn is_waited_for(&self) -> bool {
        self.sender.is_some() || self.receiver.is_some()
    }

    /// Whether another frame may be queued.
    #[inline]
    fn admits(&self, high_water: usize) -> Result<bool> {
        match self.phase {
            Phase::Open => Ok(self.backlog() < high_water),
            Phase::Closing | Phase::Closed => Err(Error::Ended(End::Closed)),
            Phase::Failed(failure) => Err(failure.error()),
        }
    }

    /// Whether a drain may start now and has something to do.
    fn may_drive(&self, by: By) -> bool {
        let has_waker = match by {
            By::Half => matches!(self.flusher, FlusherState::Running(_)),
            By::Flusher => true,
        };
        let allowed = has_waker && !self.driving && (!self.blocked || by == By::Flusher);
        allowed && !matches!(self.phase, Phase::Failed(_) | Phase::Closed)
    }

    /// The tail block with at least `size` bytes of room.
    #[inline]
    fn room(&mut self, size: usize, buffers: &BufferManager) -> Result<&mut Window> {
        if self.tail.as_ref().is_none_or(|tail| tail.spare_len() < size) {
            self.renew_tail(size, buffers)?;
        }
        self.tail.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory).into())
    }

    fn renew_tail(&mut self, size: usize, buffers: &BufferManager) -> Result<()> {
        if let Some(tail) = &mut self.tail {
            // All of it is written: start over in the same block.
            if tail.is_empty() && tail.compact() && tail.spare_len() >= size {
                return Ok(());
            }
        }
        self.seal_tail();
        let window = buffers.try_window(size.max(WRITE_BLOCK_SIZE)).or_else(|| Window::unpooled(size));
        self.tail = Some(window.ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?);
        Ok(())
    }

    /// Moves what is in the tail behind the other segments.
    fn seal_tail(&mut self) {
        if let Some(frame) = self.cut_tail() {
            self.segments.push_back(frame);
        }
        self.tail = self.tail.take().filter(|tail| tail.spare_len() >= 256);
    }

    fn cut_tail(&mut self) -> Option<Frame> {
        let tail = self.tail.as_mut().filter(|tail| !tail.is_empty())?;
        let len = tail.len();
        Some(Frame::cut(tail, 0..len, len))
    }

    /// Forgets what is queued.
    fn discard(&mut self) {
        self.segments = VecDeque::new();
        self.tail = None;
        self.queued = 0;
        self.in_flight = 0;
        self.dirty = false;
        for waker in [self.sender.take(), self.receiver.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn settle(&mut self, written: usize) {
        self.in_flight = self.in_flight.saturating_sub(written);
        self.written += written as u64;
    }

    /// The writer is full. The flusher, whose waker it has, is woken when it has to look again: it missed a wake-up
    /// while a half was driving, or has a deadline to keep.
    fn block(&mut self, by: By, deadline: bool) {
        self.blocked = true;
        if by == By::Half
            && (std::mem::take(&mut self.missed) || deadline)
            && let FlusherState::Running(waker) = &self.flusher
        {
            waker.wake_by_ref();
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.phase = Phase::Failed(failure);
        self.blocked = false;
        self.discard();
    }

    /// Wakes those who wait for what is now the case.
    fn notify(&mut self, high_water: usize) {
        if self.backlog() <= high_water / 2 || self.phase == Phase::Closed {
            if let Some(waker) = self.receiver.take() {
                waker.wake();
            }
            if let Some(waker) = self.sender.take() {
                waker.wake();
            }
        }
    }
}

enum Stepped {
    Wrote(usize),
    Flushed,
    ShutDown,
}

impl<W: AsyncWrite + Unpin> Writing<W> {
    /// Moves everything from the queue here.
    fn take_from(&mut self, queue: &mut Queue) {
        // Also when nothing is left to take: the next frame has to tell the flusher again.
        queue.armed = false;
        if queue.queued == 0 {
            if self.current.is_none() {
                // Nothing is on its way: an idle link holds no write buffer.
                queue.tail = None;
            }
            return;
        }
        queue.in_flight += queue.queued;
        queue.queued = 0;
        let tail = queue.cut_tail();
        for frame in queue.segments.drain(..).chain(tail) {
            if self.current.is_none() {
                self.current = Some(frame);
                self.offset = 0;
            } else {
                self.more.push_back(frame);
            }
        }
    }

    /// One step of the writer: a write, or a flush or shutdown when nothing is left to write.
    fn step(&mut self, closing: bool) -> Poll<io::Result<Stepped>> {
        let Self { writer: Some(writer), waker: Some(waker), .. } = self else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let cx = &mut Context::from_waker(waker);
        let writer = Pin::new(writer);
        let Some(current) = &self.current else {
            return if closing {
                // A peer that is gone already needs no goodbye.
                let _gone = ready!(writer.poll_shutdown(cx));
                self.writer = None;
                Poll::Ready(Ok(Stepped::ShutDown))
            } else {
                ready!(writer.poll_flush(cx))?;
                Poll::Ready(Ok(Stepped::Flushed))
            };
        };
        let first = current.get(self.offset..).unwrap_or_default();
        let count = if self.more.is_empty() {
            ready!(writer.poll_write(cx, first))?
        } else {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut used = 0;
            for (slot, bytes) in
                slices.iter_mut().zip(std::iter::once(first).chain(self.more.iter().map(|f| &**f)))
            {
                *slot = IoSlice::new(bytes);
                used += 1;
            }
            ready!(writer.poll_write_vectored(cx, slices.get(..used).unwrap_or_default()))?
        };
        self.writes += 1;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(count);
        Poll::Ready(Ok(Stepped::Wrote(count)))
    }

    /// Drops written bytes from the front.
    fn advance(&mut self, mut count: usize) {
        while let Some(current) = &self.current {
            let left = current.len() - self.offset;
            if count < left {
                self.offset += count;
                return;
            }
            count -= left;
            self.offset = 0;
            self.current = self.more.pop_front();
        }
    }

    /// Writes what is on its way and then `head`, `parts`, `tail`, as far as the kernel takes them. Returns how many
    /// bytes of what was on its way, and how many of the frame were written; what is left of the former stays.
    fn write_with(&mut self, head: &[u8], parts: &[IoSlice<'_>], tail: &[u8]) -> io::Result<(usize, usize)> {
        let total = head.len() + parts.iter().map(|part| part.len()).sum::<usize>() + tail.len();
        let (mut settled, mut own) = (0, 0);
        while own < total {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut used = 0;
            let mut skip = own;
            let ahead = self.current.iter().map(|f| f.get(self.offset..).unwrap_or_default());
            let ahead = ahead.chain(self.more.iter().map(|f| &**f));
            let frame = std::iter::once(head).chain(parts.iter().map(|part| &**part)).chain([tail]);
            let frame = frame.map(|piece| {
                let from = skip.min(piece.len());
                skip -= from;
                piece.get(from..).unwrap_or_default()
            });
            for (slot, bytes) in slices.iter_mut().zip(ahead.chain(frame).filter(|bytes| !bytes.is_empty())) {
                *slot = IoSlice::new(bytes);
                used += 1;
            }
            let (Some(writer), Some(waker)) = (&mut self.writer, &self.waker) else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            let cx = &mut Context::from_waker(waker);
            let slices = slices.get(..used).unwrap_or_default();
            let Poll::Ready(written) = Pin::new(writer).poll_write_vectored(cx, slices) else { break };
            let written = written?;
            self.writes += 1;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let ahead = match &self.current {
                Some(current) => {
                    current.len() - self.offset + self.more.iter().map(|f| f.len()).sum::<usize>()
                }
                None => 0,
            };
            let before = written.min(ahead);
            self.advance(before);
            settled += before;
            own += written - before;
        }
        Ok((settled, own))
    }
}

/// Gives the token back when the writer panics: the link is then dead, but says so.
struct Driving<'a, W>(&'a Outbox<W>);

impl<W> Drop for Driving<'_, W> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        queue.driving = false;
        queue.fail(Failure::Kind(io::ErrorKind::Other));
    }
}

/// The small task that writes what nobody else has written when the sending task waits.
struct Flusher<W: AsyncWrite + Unpin + Send + 'static> {
    outbox: Arc<Outbox<W>>,
    deadline: Option<WriteDeadline>,
}

struct WriteDeadline {
    sleep: Pin<Box<Sleep>>,
    /// Bytes written when the deadline was set; more of them later is progress.
    written: u64,
}

impl<W: AsyncWrite + Unpin + Send + 'static> Future for Flusher<W> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let outbox = &*this.outbox;
        let known = match &lock(&outbox.queue).flusher {
            FlusherState::Running(waker) => waker.will_wake(cx.waker()),
            FlusherState::Starting | FlusherState::None => false,
        };
        if !known {
            lock(&outbox.writing).waker = Some(cx.waker().clone());
            lock(&outbox.queue).flusher = FlusherState::Running(cx.waker().clone());
        }
        outbox.drain(By::Flusher);
        let queue = lock(&outbox.queue);
        let ended = matches!(queue.phase, Phase::Closed | Phase::Failed(_));
        if ended || (queue.halves == 0 && queue.is_idle()) {
            return Poll::Ready(());
        }
        let (blocked, written) = (queue.blocked, queue.written);
        // A link that is gone does not wait for ever for a peer that does not read.
        let linger = if queue.halves == 0 { outbox.linger } else { None };
        drop(queue);
        match outbox.write_deadline.or(linger) {
            Some(after) if blocked => this.poll_deadline(after, written, cx),
            _ => {
                this.deadline = None;
                Poll::Pending
            }
        }
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> Flusher<W> {
    fn poll_deadline(&mut self, after: Duration, written: u64, cx: &mut Context<'_>) -> Poll<()> {
        if self.deadline.as_ref().is_none_or(|deadline| deadline.written != written) {
            self.deadline = Some(WriteDeadline { sleep: Box::pin(sleep(after)), written });
        }
        if let Some(deadline) = &mut self.deadline {
            ready!(deadline.sleep.as_mut().poll(cx));
        }
        self.outbox.fail(Failure::TimedOut(after));
        Poll::Ready(())
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> Drop for Flusher<W> {
    fn drop(&mut self) {
        let mut queue = lock(&self.outbox.queue);
        queue.flusher = FlusherState::None;
        queue.armed = false;
        queue.blocked = false;
        drop(queue);
        // The runtime ends, perhaps before this task ever ran: what was accepted leaves as far as it goes at once.
        self.outbox.drain_last();
        let mut queue = lock(&self.outbox.queue);
        // Whoever waits for bytes to leave has to find another way.
        for waker in [queue.sender.take(), queue.receiver.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}
