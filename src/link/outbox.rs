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
//! The token is given back in the same critical section that finds the queue empty, so no frame is left behind. Only the
//! sending half of a link that is not split keeps it for longer, and only while nothing is queued ([`through`]).

use std::{
    io::IoSlice,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use tokio::io::AsyncWrite;

use super::{LinkConfig, config::Settings};
use crate::{
    Error, Result,
    buffer::{BufferManager, Latch, LatchGuard},
    codec::{Encode, Reply},
    limits::{GATHER_LIMIT, VECTORED_THRESHOLD, WRITE_BLOCK_SIZE},
};

mod direct;
mod drain;
mod ending;
mod flusher;
mod half;
mod queue;
mod through;
mod writing;

use flusher::Flusher;
pub(super) use half::{Half, SendingHalf};
pub(super) use queue::Failure;
use queue::{FlusherState, Phase, Queue};

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
    /// What was asked is done.
    Done,
    /// It is queued, and has not left whole.
    Queued,
    /// Nothing was done: it takes more than that.
    No,
    Failed(Box<Error>),
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

    /// Sees to it that somebody will write what was just queued.
    #[inline]
    fn attend(self: &Arc<Self>, queue: LatchGuard<'_, Queue<W>>, leave: Leave) -> Enqueued {
        self.busy.store(true, Relaxed);
        // For a reply the flusher may have come in vain, while a half was writing.
        let leaves = leave != Leave::WhenFlushed || queue.reply.is_some();
        if leaves && !queue.armed { self.arm(queue) } else { Enqueued::Done }
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

    /// System calls that wrote something.
    pub(super) fn writes(&self) -> u64 {
        self.queue.lock().writes
    }

    /// Bytes queued and in flight.
    pub(super) fn backlog(&self) -> usize {
        self.queue.lock().backlog()
    }
}
