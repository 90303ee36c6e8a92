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
    io::{self, IoSlice},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::io::AsyncWrite;

use super::LinkConfig;
use crate::{
    Frame, Result,
    buffer::{BufferManager, Latch, LatchGuard},
    codec::{Encode, Reply, Wrap},
    limits::{VECTORED_THRESHOLD, WRITE_BLOCK_SIZE},
};

mod flusher;
mod half;
mod queue;
mod writing;

use flusher::Flusher;
pub(super) use half::{Half, SendingHalf};
pub(super) use queue::Failure;
use queue::{By, FlusherState, Phase, Queue, Wakers};
use writing::{Stepped, Writing};

/// The write side of a link.
#[derive(Debug)]
pub(super) struct Outbox<W> {
    queue: Latch<Queue>,
    writing: Mutex<Writing<W>>,
    /// False only while nothing is queued, on its way or to be flushed: what the reader asks before each read. Changed
    /// under the lock of `queue`.
    busy: AtomicBool,
    pub(super) high_water: usize,
    pause_reading: bool,
    write_deadline: Option<Duration>,
    /// How long what is queued may still wait to leave once both halves are gone.
    pub(super) linger: Option<Duration>,
    buffers: BufferManager,
}

/// What became of an attempt to queue a frame.
pub(super) enum Enqueued {
    Done,
    /// The high-water mark is reached; nothing was queued.
    Full,
    /// As `Done`, and there is no flusher: the caller has to flush.
    Unattended,
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
    pub(super) fn shared_by_halves(writer: W, config: &LinkConfig) -> (SendingHalf<W>, Half<W>) {
        let outbox = Arc::new(Self {
            queue: Latch::new(Queue::new()),
            writing: Mutex::new(Writing::new(writer)),
            busy: AtomicBool::new(false),
            high_water: config.write_high_water,
            pause_reading: config.pause_reading,
            write_deadline: config.write,
            linger: config.close,
            buffers: config.buffers.clone(),
        });
        (SendingHalf::new(Arc::clone(&outbox)), Half::new(outbox))
    }

    /// Queues one frame of `payload`. With `cork`, the flusher is told, so that the frame leaves by itself.
    #[inline]
    pub(super) fn enqueue<E: Encode>(
        self: &Arc<Self>,
        encoder: &mut E,
        payload: &[u8],
        cork: bool,
    ) -> Result<Enqueued> {
        let room = encoder.room(payload.len());
        if payload.len() >= VECTORED_THRESHOLD {
            return self.enqueue_parts(encoder, &[IoSlice::new(payload)], cork);
        }
        let mut queue = self.queue.lock();
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
        let mut queue = self.queue.lock();
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
            let window = queue.room(encoder.room(size), &self.buffers)?;
            let written = encoder.encode(payload, window.spare())?;
            window.advance(written);
            queue.queued += written;
            return Ok(self.attend(queue, cork));
        };
        let mut skip = 0;
        let (mut again, mut waiting) = (Wakers::default(), Wakers::default());
        if size >= VECTORED_THRESHOLD && queue.may_drive(By::Half) {
            // Straight from the caller's memory, behind what is queued already.
            queue.driving = true;
            queue.missed = false;
            let total = wrap.head().len() + size + wrap.tail().len();
            let mut writing = lock(&self.writing);
            queue.place_reply(self.high_water, &self.buffers);
            writing.take_from(&mut queue);
            queue.direct = true;
            drop(queue);
            let guard = Driving(self);
            let outcome = writing.write_with(wrap.head(), parts, wrap.tail());
            if outcome.is_err() {
                writing.clear();
            }
            drop(writing);
            std::mem::forget(guard);
            queue = self.queue.lock();
            queue.driving = false;
            match outcome {
                Ok((settled, own)) => {
                    queue.settle(settled);
                    queue.written += own as u64;
                    queue.dirty |= settled + own > 0;
                    skip = own;
                    if own < total {
                        again = queue.block(By::Half, self.write_deadline.is_some());
                    }
                }
                Err(error) => {
                    let wakers = queue.fail(Failure::of(&error));
                    drop(queue);
                    wakers.wake();
                    return Err(error.into());
                }
            }
            waiting = queue.notify(self.high_water);
        }
        // Whatever the kernel did not take is copied, so that the frame is whole whatever becomes of the caller.
        let copied = self.copy_rest(&mut queue, &wrap, parts, skip);
        queue.direct = false;
        let outcome = match copied {
            // The peer has the first part of a frame whose rest is lost.
            Err(error) if skip > 0 => {
                waiting = queue.fail(Failure::Kind(io::ErrorKind::OutOfMemory));
                drop(queue);
                Err(error)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(self.attend(queue, cork)),
        };
        again.wake();
        waiting.wake();
        outcome
    }

    /// Queues what is left of a frame of which `skip` bytes are written.
    fn copy_rest(
        &self,
        queue: &mut Queue,
        wrap: &Wrap,
        parts: &[IoSlice<'_>],
        mut skip: usize,
    ) -> Result<()> {
        let size: usize = parts.iter().map(|part| part.len()).sum();
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
            if !queue.room(rest, &self.buffers)?.extend(piece) {
                return Err(io::Error::from(io::ErrorKind::OutOfMemory).into());
            }
            rest -= piece.len();
            queue.queued += piece.len();
        }
        Ok(())
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
        let mut queue = self.queue.lock();
        // Before the encoder is asked, which may be in the middle of a message: what is refused is asked for again.
        if !queue.admits(self.high_water)? {
            return Ok(Enqueued::Full);
        }
        let Some(wrap) = encoder.wrap(&[IoSlice::new(frame)])? else {
            drop(queue);
            return self.enqueue_parts(encoder, &[IoSlice::new(frame)], cork);
        };
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
    fn attend(self: &Arc<Self>, queue: LatchGuard<'_, Queue>, cork: bool) -> Enqueued {
        self.busy.store(true, Relaxed);
        if !cork || queue.armed { Enqueued::Done } else { self.arm(queue) }
    }

    /// Tells the flusher of the first frame of a batch.
    #[inline(never)]
    fn arm(self: &Arc<Self>, mut queue: LatchGuard<'_, Queue>) -> Enqueued {
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
    fn start_flusher(self: &Arc<Self>, mut queue: LatchGuard<'_, Queue>) -> Enqueued {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return Enqueued::Unattended };
        queue.flusher = FlusherState::Starting;
        queue.armed = true;
        drop(queue);
        runtime.spawn(Flusher::new(Arc::clone(self)));
        Enqueued::Done
    }

    /// Waits until the queue is below the high-water mark.
    pub(super) fn poll_ready(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.drain_from(cx);
        let mut queue = self.queue.lock();
        if queue.admits(self.high_water)? {
            return Poll::Ready(Ok(()));
        }
        store(&mut queue.sender, cx.waker());
        Poll::Pending
    }

    /// Waits until everything queued is written and the writer flushed.
    #[inline]
    pub(super) fn poll_flush(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.flush_block() { Poll::Ready(Ok(())) } else { self.poll_drained(cx) }
    }

    #[inline(never)]
    fn poll_drained(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.drain_from(cx);
        let mut queue = self.queue.lock();
        if let Phase::Failed(failure) = queue.phase {
            return Poll::Ready(Err(failure.error()));
        }
        if queue.lost {
            return Poll::Ready(Err(queue.refusal()));
        }
        if queue.is_idle() {
            return Poll::Ready(Ok(()));
        }
        store(&mut queue.sender, cx.waker());
        Poll::Pending
    }

    /// Writes what is queued, then the codec's `goodbye`, for which the peer's is then waited for, and shuts the writer
    /// down. Later sends fail with [`End::Closed`](crate::error::End::Closed).
    pub(super) fn poll_close(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        goodbye: impl FnOnce() -> Option<Reply>,
    ) -> Poll<Result<()>> {
        {
            let mut queue = self.queue.lock();
            if queue.phase == Phase::Open {
                queue.phase = Phase::Closing;
                if let Some(reply) = goodbye() {
                    queue.reply = Some(Box::new(reply));
                    // Without the receiving half nobody would hear the peer's.
                    if !queue.peer_ended && queue.halves > 1 {
                        queue.phase = Phase::Parting;
                    }
                }
            }
        }
        self.drain_from(cx);
        let mut queue = self.queue.lock();
        match queue.phase {
            Phase::Closed => Poll::Ready(Ok(())),
            Phase::Failed(failure) => {
                queue.lost = true;
                drop(queue);
                self.abort();
                Poll::Ready(Err(failure.error()))
            }
            Phase::Open | Phase::Parting | Phase::Closing => {
                store(&mut queue.sender, cx.waker());
                Poll::Pending
            }
        }
    }

    /// Whether the last word is said and the peer's is waited for.
    pub(super) fn is_parting(&self) -> bool {
        self.queue.lock().phase == Phase::Parting
    }

    /// Whether the last word is said and has left.
    pub(super) fn has_parted(&self) -> bool {
        let queue = self.queue.lock();
        queue.phase == Phase::Parting && queue.is_idle()
    }

    /// Takes in what the codec has to say by itself. It leaves by itself, also when nothing is sent; after the last word
    /// nothing more is accepted.
    pub(super) fn reply(self: &Arc<Self>, reply: Reply) {
        let queue = self.queue.lock();
        self.place(queue, reply);
    }

    /// As [`reply`](Self::reply), for what nobody waits for: it takes no other's place.
    pub(super) fn remark(self: &Arc<Self>, reply: Reply) {
        let queue = self.queue.lock();
        if queue.reply.is_none() {
            self.place(queue, reply);
        }
    }

    fn place(self: &Arc<Self>, mut queue: LatchGuard<'_, Queue>, reply: Reply) {
        if queue.phase != Phase::Open {
            return;
        }
        if reply.is_last() {
            queue.phase = Phase::Closing;
        }
        self.busy.store(true, Relaxed);
        match &mut queue.reply {
            Some(old) => **old = reply,
            none => *none = Some(Box::new(reply)),
        }
        // As long as little waits each reply leaves, before what is sent later: nobody may rely on it (RFC 6455 §5.5.3), but
        // some do.
        queue.place_reply(WRITE_BLOCK_SIZE, &self.buffers);
        let _left_to_the_reader = self.arm(queue);
    }

    /// The peer has said its last word, or cannot any more: there is nothing to wait for before the writer is shut down.
    pub(super) fn peer_ended(self: &Arc<Self>) {
        let mut queue = self.queue.lock();
        queue.peer_ended = true;
        if queue.phase != Phase::Parting {
            return;
        }
        queue.phase = Phase::Closing;
        let sender = queue.sender.take();
        let _left_to_the_sender = self.arm(queue);
        if let Some(waker) = sender {
            waker.wake();
        }
    }

    /// Gives up on what is still queued and closes at once.
    pub(super) fn abort(&self) {
        let (_writer, unsent) = self.take_writer();
        self.queue.lock().lost |= !unsent.is_empty();
    }

    /// For the receiver, before it reads: writes what is queued, and waits, where so configured, while too much is.
    #[inline]
    pub(super) fn poll_before_read(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        // What this task has queued itself it sees; of what another queues meanwhile the flusher knows.
        if !self.busy.load(Relaxed) {
            return Poll::Ready(());
        }
        self.poll_backlog(cx)
    }

    #[inline(never)]
    fn poll_backlog(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.drain_from(cx);
        if !self.pause_reading {
            return Poll::Ready(());
        }
        let mut queue = self.queue.lock();
        if queue.backlog() < self.high_water || matches!(queue.phase, Phase::Failed(_)) {
            return Poll::Ready(());
        }
        store(&mut queue.receiver, cx.waker());
        Poll::Pending
    }

    /// Drains for a task that will come back by itself; where no runtime has a flusher, its waker stands in.
    fn drain_from(self: &Arc<Self>, cx: &Context<'_>) {
        let queue = self.queue.lock();
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

    /// The plain case of a flush: all that waits lies in one block, nobody else is at it, and the writer takes all of it
    /// at once. False when it was not so; [`drain`](Self::drain) then goes on from wherever that left it.
    fn flush_block(&self) -> bool {
        let mut queue = self.queue.lock();
        if !queue.is_one_block() || !queue.may_drive(By::Half) {
            return false;
        }
        let mut block = if queue.queued > 0 { queue.tail.take() } else { None };
        queue.driving = true;
        queue.missed = false;
        queue.in_flight = std::mem::take(&mut queue.queued);
        drop(queue);
        let guard = Driving(self);
        let mut writing = lock(&self.writing);
        let outcome = writing.write_block(block.as_mut());
        drop(writing);
        std::mem::forget(guard);
        let mut queue = self.queue.lock();
        queue.driving = false;
        let (wakers, flushed) = match outcome {
            Ok((written, flushed)) => {
                queue.settle(written);
                queue.dirty = !flushed;
                // The flusher, which is on its way, drops the block when it is not used again until then.
                if let Some(mut block) = block
                    && queue.armed
                    && queue.tail.is_none()
                    && block.is_empty()
                    && block.compact()
                {
                    queue.tail = Some(block);
                }
                let flushed = flushed && queue.is_idle();
                if flushed {
                    self.busy.store(false, Relaxed);
                }
                let wakers =
                    if queue.is_waited_for() { queue.notify(self.high_water) } else { Wakers::default() };
                (wakers, flushed)
            }
            Err(error) => (queue.fail(Failure::of(&error)), false),
        };
        drop(queue);
        wakers.wake();
        flushed
    }

    /// Writes what is queued as far as the kernel takes it, unless somebody else is at it.
    fn drain(&self, by: By) {
        let mut queue = self.queue.lock();
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
        let wakers = loop {
            queue.place_reply(self.high_water, &self.buffers);
            writing.take_from(&mut queue);
            let closing = queue.phase == Phase::Closing;
            if writing.current.is_none() && !queue.dirty && !closing {
                queue.driving = false;
                self.busy.store(false, Relaxed);
                break queue.notify(self.high_water);
            }
            drop(queue);
            let step = writing.step(closing);
            queue = self.queue.lock();
            match step {
                Poll::Ready(Ok(Stepped::Wrote(count))) => {
                    queue.settle(count);
                    queue.dirty = true;
                    if queue.is_waited_for() {
                        let wakers = queue.notify(self.high_water);
                        drop(queue);
                        wakers.wake();
                        queue = self.queue.lock();
                    }
                }
                Poll::Ready(Ok(Stepped::Flushed)) => queue.dirty = false,
                Poll::Ready(Ok(Stepped::ShutDown)) => {
                    queue.dirty = false;
                    queue.phase = Phase::Closed;
                }
                Poll::Ready(Err(error)) => {
                    writing.clear();
                    queue.driving = false;
                    break queue.fail(Failure::of(&error));
                }
                Poll::Pending => {
                    queue.driving = false;
                    break queue.block(by, self.write_deadline.is_some());
                }
            }
        };
        std::mem::forget(guard);
        drop(queue);
        wakers.wake();
    }

    /// System calls that wrote something.
    pub(super) fn writes(&self) -> u64 {
        lock(&self.writing).writes
    }

    /// Bytes queued and in flight.
    pub(super) fn backlog(&self) -> usize {
        self.queue.lock().backlog()
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
        let wakers = queue.discard();
        let flusher = queue.flusher.waker();
        drop(queue);
        wakers.wake();
        if let Some(waker) = flusher {
            waker.wake();
        }
        (writer, unsent)
    }

    /// One half is gone. With the last one, what is queued is written by the flusher, which then ends.
    pub(super) fn release_half(self: &Arc<Self>) {
        let mut queue = self.queue.lock();
        queue.halves = queue.halves.saturating_sub(1);
        if queue.phase == Phase::Parting {
            // Nobody is left to hear the peer's last word, or to wait for it.
            queue.phase = Phase::Closing;
        }
        if queue.halves > 0 {
            if queue.phase == Phase::Closing || queue.queued > 0 {
                // The other may wait already, and would not come by.
                let _left_to_the_other = self.attend(queue, true);
            }
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
        let flusher = self.queue.lock().flusher.waker();
        if let Some(waker) = flusher {
            waker.wake();
        }
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> Outbox<W> {
    /// Writes as much as goes at once, when there may be no later: without a flusher nobody is woken to go on.
    fn drain_last(&self) {
        let queue = self.queue.lock();
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
    fn claim(&self) -> LatchGuard<'_, Queue> {
        loop {
            let mut queue = self.queue.lock();
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
        lock(&self.writing).clear();
        queue.driving = false;
        let wakers = queue.fail(failure);
        drop(queue);
        wakers.wake();
    }
}

/// Gives the token back when the writer panics: the link is then dead, but says so.
struct Driving<'a, W>(&'a Outbox<W>);

impl<W> Drop for Driving<'_, W> {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.driving = false;
        let wakers = queue.fail(Failure::Kind(io::ErrorKind::Other));
        drop(queue);
        wakers.wake();
    }
}
