//! What was accepted and is not under way yet, and which of it may go next.
//!
//! The order: nothing passes `initialize` until it is answered, nor a notification until the server has accepted it,
//! but for responses, which the server may be waiting for. Requests go one behind the other without waiting for
//! answers; beyond the cap they stay here, and notifications and responses pass them.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Instant,
};

use super::message::{Key, Message, Role};
use crate::limits::{MEMORY_QUEUE_BYTES, MEMORY_QUEUE_MESSAGES};

#[derive(Debug)]
pub(super) struct Outbox {
    cap: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    /// Requests under way.
    in_flight: usize,
    /// Others under way.
    others: usize,
    /// A message is under way that nothing passes.
    barrier: bool,
    /// No more is accepted.
    closed: bool,
    sender: Option<Waker>,
    driver: Option<Waker>,
}

impl Queue {
    fn has_room(&self) -> bool {
        self.messages.is_empty()
            || (self.bytes < MEMORY_QUEUE_BYTES && self.messages.len() < MEMORY_QUEUE_MESSAGES)
    }

    fn take(&mut self, at: usize) -> Option<Message> {
        let message = self.messages.remove(at)?;
        self.bytes -= message.bytes.len();
        if let Some(waker) = self.sender.take() {
            waker.wake();
        }
        Some(message)
    }
}

impl Outbox {
    pub(super) fn new(cap: usize) -> Self {
        Self { cap, queue: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn has_room(&self) -> bool {
        let queue = self.lock();
        !queue.closed && queue.has_room()
    }

    /// `Ready(false)`: closed.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut queue = self.lock();
        if queue.closed {
            return Poll::Ready(false);
        }
        if queue.has_room() {
            return Poll::Ready(true);
        }
        queue.sender = Some(cx.waker().clone());
        Poll::Pending
    }

    /// False when it is closed or full.
    pub(super) fn push(&self, message: Message) -> bool {
        let mut queue = self.lock();
        if queue.closed || !queue.has_room() {
            return false;
        }
        queue.bytes += message.bytes.len();
        queue.messages.push_back(message);
        Self::wake(queue);
        true
    }

    fn wake(mut queue: MutexGuard<'_, Queue>) {
        let waker = queue.driver.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Accepts nothing more; what is here still goes.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        if let Some(waker) = queue.sender.take() {
            waker.wake();
        }
        Self::wake(queue);
    }

    /// The next message that may go, counted as under way; `None` once this is closed and nothing is left or under way.
    pub(super) async fn next(&self) -> Option<Message> {
        poll_fn(|cx| {
            let mut queue = self.lock();
            let at = if queue.barrier {
                queue.messages.iter().position(|message| message.role == Role::Response)
            } else if queue.in_flight >= self.cap {
                queue.messages.iter().position(|message| !message.is_request())
            } else if queue.messages.is_empty() {
                None
            } else {
                Some(0)
            };
            if let Some(message) = at.and_then(|at| queue.take(at)) {
                if message.is_request() {
                    queue.in_flight += 1;
                } else {
                    queue.others += 1;
                }
                queue.barrier |= message.is_barrier();
                return Poll::Ready(Some(message));
            }
            if queue.closed && queue.messages.is_empty() && queue.in_flight == 0 && queue.others == 0 {
                return Poll::Ready(None);
            }
            queue.driver = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// A request is no longer under way, or something else is not.
    pub(super) fn settled(&self, request: bool) {
        let mut queue = self.lock();
        if request {
            queue.in_flight = queue.in_flight.saturating_sub(1);
        } else {
            queue.others = queue.others.saturating_sub(1);
        }
        Self::wake(queue);
    }

    /// What was passed by nothing may be passed now.
    pub(super) fn lift(&self) {
        let mut queue = self.lock();
        queue.barrier = false;
        Self::wake(queue);
    }

    /// Takes out the request of that key, if it has not left yet.
    pub(super) fn withdraw(&self, key: &Key) -> Option<Message> {
        let mut queue = self.lock();
        let at =
            queue.messages.iter().position(|message| matches!(&*message.open, [one] if one.key == *key))?;
        queue.take(at)
    }

    /// Takes out everything that was accepted until `until`.
    pub(super) fn drain(&self, until: Option<Instant>) -> Vec<Message> {
        let mut queue = self.lock();
        let mut drained = Vec::new();
        while queue
            .messages
            .front()
            .is_some_and(|message| until.is_none_or(|until| message.accepted <= until))
        {
            drained.extend(queue.take(0));
        }
        drained
    }
}
