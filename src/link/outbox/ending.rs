//! How an outbox ends: by a close, by the peer, or with its halves.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::AsyncWrite;

use super::{
    Leave, Outbox,
    queue::{FlusherState, Phase},
    store,
};
use crate::{Frame, Result, codec::Reply};

impl<W: AsyncWrite + Unpin + Send + 'static> Outbox<W> {
    /// Writes what is queued, then the codec's `goodbye`, for which the peer's is then waited for, and shuts the writer
    /// down. Later sends fail with [`End::Closed`](crate::error::End::Closed).
    pub(in crate::link) fn poll_close(
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
    pub(in crate::link) fn is_parting(&self) -> bool {
        self.queue.lock().phase == Phase::Parting
    }

    /// Whether the last word is said and has left.
    pub(in crate::link) fn has_parted(&self) -> bool {
        let queue = self.queue.lock();
        queue.phase == Phase::Parting && queue.is_idle()
    }

    /// The peer has said its last word, or cannot any more: there is nothing to wait for before the writer is shut down.
    pub(in crate::link) fn peer_ended(self: &Arc<Self>) {
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
    pub(in crate::link) fn abort(&self) {
        let (_writer, unsent) = self.take_writer();
        self.queue.lock().lost |= !unsent.is_empty();
    }

    /// Takes the writer out, and what was not written: nothing else will be.
    pub(in crate::link) fn take_writer(&self) -> (Option<W>, Vec<Frame>) {
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
    pub(in crate::link) fn release_half(self: &Arc<Self>) {
        let mut queue = self.queue.lock();
        queue.halves = queue.halves.saturating_sub(1);
        if queue.phase == Phase::Parting {
            // Nobody is left to hear the peer's last word, or to wait for it.
            queue.phase = Phase::Closing;
        }
        if queue.halves > 0 {
            if queue.phase == Phase::Closing || queue.queued > 0 || queue.dirty {
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
