//! [`Flusher`]: the task that writes what nobody else has written.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::AsyncWrite,
    time::{Sleep, sleep},
};

use super::{
    Outbox,
    queue::{By, Failure, FlusherState, Phase},
};

/// The small task that writes what nobody else has written when the sending task waits.
pub(super) struct Flusher<W: AsyncWrite + Unpin + Send + 'static> {
    outbox: Arc<Outbox<W>>,
    deadline: Option<WriteDeadline>,
}

struct WriteDeadline {
    sleep: Pin<Box<Sleep>>,
    /// Writes when the deadline was set; more of them later is progress. [`LINGERING`]: there is none.
    written: u64,
}

/// Stands for the writes when both halves are gone and the deadline is that of the close. Not a field of its own:
/// tokio allots tasks in steps of 128 bytes, and an idle link is to be small.
const LINGERING: u64 = u64::MAX;

impl<W: AsyncWrite + Unpin + Send + 'static> Future for Flusher<W> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let outbox = &*this.outbox;
        let mut queue = outbox.queue.lock();
        // From here on a frame has to tell this task again.
        queue.armed = false;
        let known = match &queue.flusher {
            FlusherState::Running(waker) => waker.will_wake(cx.waker()),
            FlusherState::Starting | FlusherState::None => false,
        };
        if known {
            drop(queue);
        } else {
            let old = std::mem::replace(&mut queue.flusher, FlusherState::Running(cx.waker().clone()));
            // Not under the lock: dropping a waker may drop a task.
            drop(queue);
            drop(old);
        }
        outbox.drain(By::Flusher);
        let queue = outbox.queue.lock();
        let ended = matches!(queue.phase, Phase::Closed | Phase::Failed(_));
        if ended || (queue.halves == 0 && queue.is_idle()) {
            return Poll::Ready(());
        }
        let (blocked, written, last) = (queue.blocked, queue.writes, queue.halves == 0);
        drop(queue);
        // A link that is gone does not wait for ever for a peer that does not read, nor longer for each byte it takes.
        if last && let Some(after) = outbox.settings.linger {
            if this.deadline.as_ref().is_none_or(|deadline| deadline.written != LINGERING) {
                this.deadline = Some(WriteDeadline { sleep: Box::pin(sleep(after)), written: LINGERING });
            }
            return this.poll_deadline(after, cx);
        }
        match outbox.settings.write_deadline {
            Some(after) if blocked => {
                if this.deadline.as_ref().is_none_or(|deadline| deadline.written != written) {
                    this.deadline = Some(WriteDeadline { sleep: Box::pin(sleep(after)), written });
                }
                this.poll_deadline(after, cx)
            }
            _ => {
                this.deadline = None;
                Poll::Pending
            }
        }
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> Flusher<W> {
    pub(super) fn new(outbox: Arc<Outbox<W>>) -> Self {
        Self { outbox, deadline: None }
    }

    fn poll_deadline(&mut self, after: Duration, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(deadline) = &mut self.deadline {
            ready!(deadline.sleep.as_mut().poll(cx));
        }
        self.outbox.fail(Failure::TimedOut(after));
        Poll::Ready(())
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> Drop for Flusher<W> {
    fn drop(&mut self) {
        let mut queue = self.outbox.queue.lock();
        queue.flusher = FlusherState::None;
        queue.armed = false;
        queue.blocked = false;
        drop(queue);
        // The runtime ends, perhaps before this task ever ran: what was accepted leaves as far as it goes at once.
        self.outbox.drain_last();
        let mut queue = self.outbox.queue.lock();
        // Whoever waits for bytes to leave has to find another way.
        let waiting = [queue.sender.take(), queue.receiver.take()];
        drop(queue);
        for waker in waiting.into_iter().flatten() {
            waker.wake();
        }
    }
}
