//! What has come and was not received yet: bounded, so that a caller who does not receive holds the server back.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::sync::Notify;

use crate::{
    Error, Frame, Result,
    error::End,
    limits::{MEMORY_QUEUE_BYTES, MEMORY_QUEUE_MESSAGES},
};

#[derive(Debug, Default)]
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    room: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
    end: Option<End>,
    receiver: Option<Waker>,
}

impl Queue {
    fn has_room(&self) -> bool {
        self.frames.is_empty()
            || (self.bytes < MEMORY_QUEUE_BYTES && self.frames.len() < MEMORY_QUEUE_MESSAGES)
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the caller has taken enough.
    pub(super) async fn room(&self) {
        loop {
            let mut waiting = pin!(self.room.notified());
            waiting.as_mut().enable();
            if self.lock().has_room() {
                return;
            }
            waiting.await;
        }
    }

    /// Adds a frame, whether there is room or not: who may wait, waits for [`room`](Self::room) before. The others are as
    /// many as there are requests in flight.
    pub(super) fn push(&self, frame: Frame) {
        let mut queue = self.lock();
        if queue.end.is_some() {
            return;
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        let waker = queue.receiver.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Nothing more comes.
    pub(super) fn finish(&self, end: End) {
        let mut queue = self.lock();
        queue.end.get_or_insert(end);
        let waker = queue.receiver.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        let queue = self.lock();
        queue.end.is_some() && queue.frames.is_empty()
    }

    pub(super) fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<Result<Frame>> {
        let mut queue = self.lock();
        let was_full = !queue.has_room();
        let Some(frame) = queue.frames.pop_front() else {
            if let Some(end) = queue.end {
                return Poll::Ready(Err(Error::Ended(end)));
            }
            queue.receiver = Some(cx.waker().clone());
            return Poll::Pending;
        };
        queue.bytes -= frame.len();
        let wake = was_full && queue.has_room();
        drop(queue);
        if wake {
            self.room.notify_waiters();
        }
        Poll::Ready(Ok(frame))
    }
}
