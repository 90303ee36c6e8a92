//! Writing what is queued, by whoever has a reason to.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use tokio::io::AsyncWrite;

use super::{
    Enqueued, Outbox,
    queue::{By, Failure, FlusherState, Phase, Queue},
    writing::{Stepped, Writing},
};
use crate::buffer::{LatchGuard, Window};

impl<W: AsyncWrite + Unpin + Send + 'static> Outbox<W> {
    /// Drains for a task that will come back by itself; where no runtime has a flusher, its waker stands in.
    pub(super) fn drain_from(self: &Arc<Self>, cx: &Context<'_>) {
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
    pub(super) fn flush_block(self: &Arc<Self>) -> bool {
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
    pub(super) fn write_block(
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
    pub(super) fn after_write(self: &Arc<Self>, mut queue: LatchGuard<'_, Queue<W>>, arm: bool) {
        let wakers = queue.notify(self.high_water());
        if arm {
            let _at_its_ease = self.arm(queue);
        } else {
            drop(queue);
        }
        wakers.wake();
    }

    #[cold]
    pub(super) fn write_failed(&self, mut queue: LatchGuard<'_, Queue<W>>, error: &io::Error) -> bool {
        let wakers = queue.fail(Failure::of(error));
        drop(queue);
        wakers.wake();
        false
    }

    /// Writes what is queued as far as the kernel takes it, unless somebody else is at it.
    pub(super) fn drain(&self, by: By<'_>) {
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

    /// Writes as much as goes at once, when there may be no later: without a flusher nobody is woken to go on.
    pub(super) fn drain_last(&self) {
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
    pub(super) fn claim(&self) -> (LatchGuard<'_, Queue<W>>, Box<Writing<W>>) {
        loop {
            let mut queue = self.queue.lock();
            if let Some(writing) = queue.writing.take() {
                return (queue, writing);
            }
            drop(queue);
            std::thread::yield_now();
        }
    }

    pub(super) fn fail(&self, failure: Failure) {
        let (mut queue, mut writing) = self.claim();
        writing.clear();
        queue.stop(writing);
        let wakers = queue.fail(failure);
        drop(queue);
        wakers.wake();
    }
}

/// Puts an empty token in the place of the one that is lost when the writer panics: the link is then dead, but says so.
pub(super) struct Driving<'a, W>(pub(super) &'a Outbox<W>);

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
