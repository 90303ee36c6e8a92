//! [`Outbox`]: the write side that the halves of a link and its flusher share.
//!
//! ```text
//!   Sender ──enqueue──▶ Queue ──take──▶ Writing ──poll_write──▶ W
//!                         ▲                ▲
//!                         │ lock: a few    │ no lock: it is the `driving` token itself,
//!                         │ ns, never over │ taken out of the queue to write and put
//!                         │ a system call  │ back
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
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use tokio::io::AsyncWrite;

use super::{LinkConfig, config::Settings};
use crate::{
    Frame, Result,
    buffer::{BufferManager, Latch, LatchGuard, Window},
    codec::{Encode, Reply, Wrap},
    limits::{GATHER_LIMIT, VECTORED_THRESHOLD, WRITE_BLOCK_SIZE},
    scan,
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
    queue: Latch<Queue<W>>,
    /// False only while nothing is queued, on its way or to be flushed: what the reader asks before each read. Changed
    /// under the lock of `queue`.
    busy: AtomicBool,
    /// The receiver has more messages like the large one that it gave last: their answers may go out together.
    more: AtomicBool,
    pub(super) settings: Arc<Settings>,
    pub(super) buffers: BufferManager,
}

/// What became of an attempt to queue a frame.
pub(super) enum Enqueued {
    Done,
    /// The high-water mark is reached; nothing was queued.
    Full,
    /// As `Done`, and there is no flusher: the caller has to flush.
    Unattended,
    /// The system has taken the frame and all before it. Only for [`Leave::Flushed`].
    Flushed,
}

/// What became of an attempt to write a frame through.
pub(super) enum Through {
    Flushed,
    /// It is queued, and has not left whole.
    Queued,
    /// Nothing was done: it takes more than that.
    No,
}

/// When a frame leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// At the latest when the sending task waits for anything: the flusher is told.
    ByItself,
    /// With the next flush.
    WhenFlushed,
    /// Now, as far as the system takes it. The caller then flushes, unless all was taken.
    Flushed,
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
            queue: Latch::new(Queue::new(writer)),
            busy: AtomicBool::new(false),
            more: AtomicBool::new(false),
            settings: Settings::of(config),
            buffers: config.buffers.clone(),
        });
        (SendingHalf::new(Arc::clone(&outbox)), Half::new(outbox))
    }

    /// Bytes of backlog from which on sending waits.
    #[inline]
    pub(super) fn high_water(&self) -> usize {
        self.settings.high_water
    }

    /// Queues one frame of `payload`.
    #[inline]
    pub(super) fn enqueue<E: Encode>(
        self: &Arc<Self>,
        encoder: &mut E,
        payload: &[u8],
        leave: Leave,
    ) -> Result<Enqueued> {
        if payload.len() >= VECTORED_THRESHOLD && !self.gathers(payload.len(), leave) {
            return self.enqueue_parts(encoder, &[IoSlice::new(payload)], leave);
        }
        let room = encoder.room(payload.len());
        let mut queue = self.queue.lock();
        if !queue.admits(self.high_water())? {
            return Ok(Enqueued::Full);
        }
        let window = queue.room(room, &self.buffers)?;
        let written = encoder.encode(payload, window.spare())?;
        window.advance(written);
        queue.queued += written;
        Ok(self.attend(queue, leave))
    }

    /// The plain case of [`Leave::ByItself`]: a small frame behind another of its batch, of which the flusher knows. False
    /// when it is not so; nothing was done then.
    #[inline]
    pub(super) fn join_batch<E: Encode>(&self, encoder: &mut E, payload: &[u8]) -> bool {
        if payload.len() >= VECTORED_THRESHOLD {
            return false;
        }
        let room = encoder.room(payload.len());
        let mut queue = self.queue.lock();
        let queue = &mut *queue;
        if !queue.armed || queue.phase != Phase::Open || queue.backlog() >= self.high_water() {
            return false;
        }
        let Some(tail) = &mut queue.tail else { return false };
        if tail.spare_len() < room {
            return false;
        }
        let Ok(written) = encoder.encode(payload, tail.spare()) else { return false };
        tail.advance(written);
        queue.queued += written;
        self.busy.store(true, Relaxed);
        true
    }

    /// Whether a payload of `size` bytes, from the threshold on, is copied all the same: one write for several of them is
    /// worth that, as a write through the network's stack takes longer than such a copy.
    #[inline]
    fn gathers(&self, size: usize, leave: Leave) -> bool {
        leave == Leave::ByItself && size <= GATHER_LIMIT && self.more.load(Relaxed)
    }

    /// Says whether more messages are here like the one, of `size` bytes, that was given last.
    #[inline]
    pub(super) fn tell_of_more(&self, size: usize, waiting: usize) {
        if size >= VECTORED_THRESHOLD {
            self.more.store(waiting >= size, Relaxed);
        }
    }

    /// The plain case of [`Leave::Flushed`]: nothing else is queued and nobody else is at it, so the frame goes from a
    /// block to the writer at once.
    #[inline]
    pub(super) fn write_through<E: Encode>(self: &Arc<Self>, encoder: &mut E, payload: &[u8]) -> Through {
        if payload.len() >= VECTORED_THRESHOLD {
            return Through::No;
        }
        let room = encoder.room(payload.len());
        let mut queue = self.queue.lock();
        if queue.queued > 0 || !queue.is_one_block() {
            return Through::No;
        }
        let Some(writing) = queue.start(By::Half) else { return Through::No };
        // The kept block is moved before it is written to: its words would be read back as vectors while they are still
        // on their way to the cache, which stalls.
        let mut block = match queue.tail.take() {
            Some(block) if block.spare_len() >= room => block,
            _ => match queue::block(room, &self.buffers) {
                Ok(block) => block,
                Err(_) => {
                    queue.stop(writing);
                    return Through::No;
                }
            },
        };
        let Ok(written) = encoder.encode(payload, block.spare()) else {
            queue.stop(writing);
            return Through::No;
        };
        block.advance(written);
        queue.in_flight = written;
        if self.write_block(queue, writing, Some(block)) { Through::Flushed } else { Through::Queued }
    }

    /// Queues one frame whose payload is `parts`, one after the other. From the threshold on, the parts are written
    /// where they lie, or, where a mask has to be laid over them, in steps, as far as the kernel takes them at once.
    #[inline(never)]
    pub(super) fn enqueue_parts<E: Encode>(
        self: &Arc<Self>,
        encoder: &mut E,
        parts: &[IoSlice<'_>],
        leave: Leave,
    ) -> Result<Enqueued> {
        let size: usize =
            if let [part] = parts { part.len() } else { parts.iter().map(|part| part.len()).sum() };
        let mut queue = self.queue.lock();
        if !queue.admits(self.high_water())? {
            return Ok(Enqueued::Full);
        }
        let Some(wrap) = encoder.wrap(parts)? else {
            self.gather(&mut queue, encoder, parts, size)?;
            return Ok(self.attend(queue, leave));
        };
        if size < VECTORED_THRESHOLD {
            self.copy_rest(&mut queue, &wrap, parts, 0)?;
            return Ok(self.attend(queue, leave));
        }
        let Some(mut writing) = queue.start(By::Half) else {
            self.copy_rest(&mut queue, &wrap, parts, 0)?;
            return Ok(self.attend(queue, leave));
        };
        // Straight from the caller's memory, behind what is queued already.
        let total = wrap.head().len() + size + wrap.tail().len();
        if queue.reply.is_some() {
            queue.place_reply(self.high_water(), &self.buffers);
        }
        if queue.queued > 0 {
            writing.take_from(&mut queue);
        }
        queue.direct = true;
        drop(queue);
        let guard = Driving(self);
        let mut outcome = match wrap.mask() {
            None => writing.write_with(wrap.head(), parts, wrap.tail()),
            Some(key) => self.write_masked(&mut writing, wrap.head(), parts, key),
        };
        let mut flushed = false;
        if leave == Leave::Flushed && matches!(outcome, Ok((_, own)) if own == total) {
            match writing.poll_flushed() {
                Ok(now) => flushed = now,
                Err(error) => outcome = Err(error),
            }
        }
        std::mem::forget(guard);
        let mut queue = self.queue.lock();
        if let Ok((0, own)) = outcome
            && own == total
            && !queue.is_waited_for()
        {
            queue.stop(writing);
            queue.direct = false;
            if flushed && queue.backlog() == 0 && queue.reply.is_none() {
                queue.dirty = false;
                return Ok(Enqueued::Flushed);
            }
            queue.dirty = true;
            return Ok(self.attend(queue, leave));
        }
        self.after_direct(queue, writing, outcome, &wrap, parts, leave)
    }

    /// Queues what the kernel did not take of a frame that was written from the caller's memory.
    #[cold]
    fn after_direct(
        self: &Arc<Self>,
        mut queue: LatchGuard<'_, Queue<W>>,
        mut writing: Box<Writing<W>>,
        outcome: io::Result<(usize, usize)>,
        wrap: &Wrap,
        parts: &[IoSlice<'_>],
        leave: Leave,
    ) -> Result<Enqueued> {
        if outcome.is_err() {
            writing.clear();
        }
        queue.stop(writing);
        let (settled, skip) = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                let wakers = queue.fail(Failure::of(&error));
                drop(queue);
                wakers.wake();
                return Err(error.into());
            }
        };
        queue.settle(settled);
        queue.dirty |= settled + skip > 0;
        let total =
            wrap.head().len() + parts.iter().map(|part| part.len()).sum::<usize>() + wrap.tail().len();
        let again = if skip < total {
            queue.block(By::Half, self.settings.write_deadline.is_some())
        } else {
            Wakers::default()
        };
        let mut waiting = queue.notify(self.high_water());
        // Whatever the kernel did not take is copied, so that the frame is whole whatever becomes of the caller.
        let copied = self.copy_rest(&mut queue, wrap, parts, skip);
        queue.direct = false;
        let outcome = match copied {
            // The peer has the first part of a frame whose rest is lost.
            Err(error) if skip > 0 => {
                waiting = queue.fail(Failure::Kind(io::ErrorKind::OutOfMemory));
                drop(queue);
                Err(error)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(self.attend(queue, leave)),
        };
        again.wake();
        waiting.wake();
        outcome
    }

    /// Queues a frame whose payload the codec changes: gathers it, and lets the codec copy it once more.
    #[cold]
    fn gather<E: Encode>(
        &self,
        queue: &mut Queue<W>,
        encoder: &mut E,
        parts: &[IoSlice<'_>],
        size: usize,
    ) -> Result<()> {
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
        Ok(())
    }

    /// As [`Writing::write_with`], for a frame whose payload goes out under the mask `key`: in steps of one block, which
    /// stays in the cache.
    fn write_masked(
        &self,
        writing: &mut Writing<W>,
        head: &[u8],
        parts: &[IoSlice<'_>],
        key: [u8; 4],
    ) -> io::Result<(usize, usize)> {
        let (mut settled, mut own) = (0, 0);
        if writing.current.is_some() {
            (settled, _) = writing.write_with(&[], &[], &[])?;
        }
        let total = head.len() + parts.iter().map(|part| part.len()).sum::<usize>();
        let wanted = (total + LINE).min(MASK_STEP);
        let mut step = queue::block(wanted, &self.buffers).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // The payload of the first step begins a line of the cache.
        let mut start = LINE.saturating_sub(head.len());
        while own < total && writing.current.is_none() && step.restart_at(std::mem::take(&mut start)) {
            let count = masked(head, parts, key, own, step.spare());
            step.advance(count);
            let taken = writing.write_some(step.unread())?;
            own += taken;
            if taken < count {
                break;
            }
        }
        Ok((settled, own))
    }

    /// Queues what is left of a frame of which `skip` bytes are written.
    #[cold]
    fn copy_rest(
        &self,
        queue: &mut Queue<W>,
        wrap: &Wrap,
        parts: &[IoSlice<'_>],
        mut skip: usize,
    ) -> Result<()> {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        let tail: &[u8] = wrap.tail();
        let mut rest = wrap.head().len() + size + tail.len() - skip;
        if rest > 0 {
            queue.room(rest, &self.buffers)?;
        }
        if let Some(key) = wrap.mask() {
            while rest > 0 {
                let window = queue.room(rest, &self.buffers)?;
                let count = masked(wrap.head(), parts, key, skip, window.spare());
                window.advance(count);
                queue.queued += count;
                skip += count;
                rest -= count;
            }
            return Ok(());
        }
        let pieces = std::iter::once(wrap.head()).chain(parts.iter().map(|part| &**part)).chain([tail]);
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
        leave: Leave,
    ) -> Result<Enqueued> {
        if frame.len() < VECTORED_THRESHOLD {
            return self.enqueue(encoder, frame, leave);
        }
        let mut queue = self.queue.lock();
        // Before the encoder is asked, which may be in the middle of a message: what is refused is asked for again.
        if !queue.admits(self.high_water())? {
            return Ok(Enqueued::Full);
        }
        let parts = [IoSlice::new(frame)];
        let Some(wrap) = encoder.wrap(&parts)? else {
            self.gather(&mut queue, encoder, &parts, frame.len())?;
            return Ok(self.attend(queue, leave));
        };
        if wrap.mask().is_some() {
            self.copy_rest(&mut queue, &wrap, &parts, 0)?;
            return Ok(self.attend(queue, leave));
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
        Ok(self.attend(queue, leave))
    }

    /// Sees to it that somebody will write what was just queued.
    #[inline]
    fn attend(self: &Arc<Self>, queue: LatchGuard<'_, Queue<W>>, leave: Leave) -> Enqueued {
        self.busy.store(true, Relaxed);
        if leave == Leave::WhenFlushed || queue.armed { Enqueued::Done } else { self.arm(queue) }
    }

    /// Tells the flusher of the first frame of a batch.
    #[inline(never)]
    fn arm(self: &Arc<Self>, mut queue: LatchGuard<'_, Queue<W>>) -> Enqueued {
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
    fn start_flusher(self: &Arc<Self>, mut queue: LatchGuard<'_, Queue<W>>) -> Enqueued {
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
        if queue.admits(self.high_water())? {
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

    fn place(self: &Arc<Self>, mut queue: LatchGuard<'_, Queue<W>>, reply: Reply) {
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
        if !self.settings.pause_reading {
            return Poll::Ready(());
        }
        let mut queue = self.queue.lock();
        if queue.backlog() < self.high_water() || matches!(queue.phase, Phase::Failed(_)) {
            return Poll::Ready(());
        }
        store(&mut queue.receiver, cx.waker());
        Poll::Pending
    }

    /// Drains for a task that will come back by itself; where no runtime has a flusher, its waker stands in.
    fn drain_from(self: &Arc<Self>, cx: &Context<'_>) {
        let mut queue = self.queue.lock();
        if queue.is_idle() && queue.phase != Phase::Closing {
            // What was kept for more of the kind goes, unless the flusher is on its way to see to it.
            if queue.warm && !queue.armed {
                queue.tail = None;
            }
            queue.warm = false;
            self.busy.store(false, Relaxed);
            return;
        }
        if matches!(queue.flusher, FlusherState::None) {
            if let Enqueued::Unattended = self.start_flusher(queue) {
                self.drain(By::Caller(cx.waker()));
            }
            return;
        }
        drop(queue);
        self.drain(By::Half);
    }

    /// The plain case of a flush: all that waits lies in one block, nobody else is at it, and the writer takes all of it
    /// at once. False when it was not so; [`drain`](Self::drain) then goes on from wherever that left it.
    #[inline]
    fn flush_block(self: &Arc<Self>) -> bool {
        let mut queue = self.queue.lock();
        if !queue.is_one_block() {
            return false;
        }
        let Some(writing) = queue.start(By::Half) else { return false };
        let block = if queue.queued > 0 { queue.tail.take() } else { None };
        queue.in_flight = std::mem::take(&mut queue.queued);
        self.write_block(queue, writing, block)
    }

    /// Writes `block`, if any, and flushes; whether all was taken.
    #[inline]
    fn write_block(
        self: &Arc<Self>,
        queue: LatchGuard<'_, Queue<W>>,
        mut writing: Box<Writing<W>>,
        mut block: Option<Window>,
    ) -> bool {
        drop(queue);
        let guard = Driving(self);
        let outcome = writing.write_block(block.as_mut());
        std::mem::forget(guard);
        let mut queue = self.queue.lock();
        queue.stop(writing);
        let (written, flushed) = match outcome {
            Ok(outcome) => outcome,
            Err(error) => return self.write_failed(queue, &error),
        };
        queue.settle(written);
        queue.dirty = !flushed;
        let mut arm = false;
        if let Some(block) = block
            && queue.tail.is_none()
        {
            // Kept for the next frame if the flusher is on its way, which drops it, or when this is not the first flush
            // since the last read: the flusher is then told, once, to come and drop it.
            if queue.armed || queue.warm {
                arm = !queue.armed;
                queue.tail = block.restarted();
            }
            queue.warm = true;
        }
        let flushed = flushed && queue.is_idle();
        // The reader looks at what is warm before it reads.
        self.busy.store(!flushed || queue.warm, Relaxed);
        if arm || queue.is_waited_for() {
            self.after_write(queue, arm);
        }
        flushed
    }

    #[cold]
    fn after_write(self: &Arc<Self>, mut queue: LatchGuard<'_, Queue<W>>, arm: bool) {
        let wakers = queue.notify(self.high_water());
        if arm {
            let _at_its_ease = self.arm(queue);
        } else {
            drop(queue);
        }
        wakers.wake();
    }

    #[cold]
    fn write_failed(&self, mut queue: LatchGuard<'_, Queue<W>>, error: &io::Error) -> bool {
        let wakers = queue.fail(Failure::of(error));
        drop(queue);
        wakers.wake();
        false
    }

    /// Writes what is queued as far as the kernel takes it, unless somebody else is at it.
    fn drain(&self, by: By<'_>) {
        let mut queue = self.queue.lock();
        queue.warm = false;
        let Some(mut writing) = queue.start(by) else {
            queue.missed |= queue.is_driven() && !by.is_half();
            return;
        };
        queue.blocked = false;
        let guard = Driving(self);
        let wakers = loop {
            queue.place_reply(self.high_water(), &self.buffers);
            writing.take_from(&mut queue);
            let closing = queue.phase == Phase::Closing;
            if writing.current.is_none() && !queue.dirty && !closing {
                self.busy.store(false, Relaxed);
                break queue.notify(self.high_water());
            }
            drop(queue);
            let step = writing.step(closing);
            queue = self.queue.lock();
            match step {
                Poll::Ready(Ok(Stepped::Wrote(count))) => {
                    queue.settle(count);
                    queue.dirty = true;
                    if queue.is_waited_for() {
                        let wakers = queue.notify(self.high_water());
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
                    break queue.fail(Failure::of(&error));
                }
                Poll::Pending => break queue.block(by, self.settings.write_deadline.is_some()),
            }
        };
        queue.stop(writing);
        std::mem::forget(guard);
        drop(queue);
        wakers.wake();
    }

    /// System calls that wrote something.
    pub(super) fn writes(&self) -> u64 {
        self.queue.lock().writes
    }

    /// Bytes queued and in flight.
    pub(super) fn backlog(&self) -> usize {
        self.queue.lock().backlog()
    }

    /// Takes the writer out, and what was not written: nothing else will be.
    pub(super) fn take_writer(&self) -> (Option<W>, Vec<Frame>) {
        let (mut queue, mut writing) = self.claim();
        queue.phase = Phase::Closed;
        writing.take_from(&mut queue);
        let mut unsent = Vec::new();
        unsent.extend(writing.take_current());
        unsent.extend(writing.more.drain(..));
        let writer = writing.writer.take();
        queue.stop(writing);
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
                let _left_to_the_other = self.attend(queue, Leave::ByItself);
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
        if queue.is_driven() {
            return;
        }
        // Not under way anywhere, so the slot is free; a flusher that starts brings its own waker and looks again.
        drop(queue);
        self.drain(By::Last);
    }
}

impl<W> Outbox<W> {
    /// Takes the `driving` token, once whoever has it gives it back: after a few system calls that do not wait.
    fn claim(&self) -> (LatchGuard<'_, Queue<W>>, Box<Writing<W>>) {
        loop {
            let mut queue = self.queue.lock();
            if let Some(writing) = queue.writing.take() {
                return (queue, writing);
            }
            drop(queue);
            std::thread::yield_now();
        }
    }

    fn fail(&self, failure: Failure) {
        let (mut queue, mut writing) = self.claim();
        writing.clear();
        queue.stop(writing);
        let wakers = queue.fail(failure);
        drop(queue);
        wakers.wake();
    }
}

/// Puts an empty token in the place of the one that is lost when the writer panics: the link is then dead, but says so.
struct Driving<'a, W>(&'a Outbox<W>);

impl<W> Drop for Driving<'_, W> {
    fn drop(&mut self) {
        let empty = Box::new(Writing::new(None));
        let mut queue = self.0.queue.lock();
        queue.stop(empty);
        let wakers = queue.fail(Failure::Kind(io::ErrorKind::Other));
        drop(queue);
        wakers.wake();
    }
}

/// Bytes of a line of the cache, or some of them.
const LINE: usize = 64;

/// Bytes of a frame that are masked and written in one step.
const MASK_STEP: usize = 64 * 1024;

/// Writes what comes after the first `skip` bytes of `head` and `parts`, the latter under the mask `key`, to `to`, as
/// much as fits; returns how much.
fn masked(head: &[u8], parts: &[IoSlice<'_>], key: [u8; 4], mut skip: usize, to: &mut [u8]) -> usize {
    let mut at = 0;
    let from = skip.min(head.len());
    for (to, from) in to.iter_mut().zip(head.get(from..).unwrap_or_default()) {
        *to = *from;
        at += 1;
    }
    skip -= from;
    let mut before = 0;
    for part in parts {
        let from = skip.min(part.len());
        skip -= from;
        let rest = part.get(from..).unwrap_or_default();
        let to = to.get_mut(at..).unwrap_or_default();
        let rest = rest.get(..to.len()).unwrap_or(rest);
        scan::mask_copy(rest, to, scan::rotate(key, before + from));
        at += rest.len();
        before += part.len();
    }
    at
}
