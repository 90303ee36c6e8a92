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
    Outbox, lock,
    queue::{By, Failure, FlusherState, Phase},
};

/// The small task that writes what nobody else has written when the sending task waits.
pub(super) struct Flusher<W: AsyncWrite + Unpin + Send + 'static> {
    pub(super) outbox: Arc<Outbox<W>>,
    pub(super) deadline: Option<WriteDeadline>,
}

pub(super) struct WriteDeadline {
    sleep: Pin<Box<Sleep>>,
    /// Bytes written when the deadline was set; more of them later is progress.
    written: u64,
}

impl<W: AsyncWrite + Unpin + Send + 'static> Future for Flusher<W> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let outbox = &*this.outbox;
        let known = match &outbox.queue.lock().flusher {
            FlusherState::Running(waker) => waker.will_wake(cx.waker()),
            FlusherState::Starting | FlusherState::None => false,
        };
        if !known {
            lock(&outbox.writing).waker = Some(cx.waker().clone());
            outbox.queue.lock().flusher = FlusherState::Running(cx.waker().clone());
        }
        outbox.drain(By::Flusher);
        let queue = outbox.queue.lock();
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
