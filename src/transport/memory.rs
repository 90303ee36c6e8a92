//! [`MemoryTransport`]: two ends in one process, joined by bounded queues of whole messages.
//!
//! The codec is "whole": a message is framed by being one. A frame that is sent owned arrives as the same frame, not
//! copied.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use super::PollTransport;
use crate::{
    Error, Frame, Result,
    buffer::{BufferManager, Window},
    error::{End, Rejection},
    limits::{HOLD_BLOCK_SIZE, MAX_MESSAGE_SIZE, MEMORY_QUEUE_BYTES, MEMORY_QUEUE_MESSAGES},
};

/// One end of a pair in memory. Closing or dropping one end wakes the other, which first gets what was sent before.
///
/// Sending waits while a direction holds its capacity in bytes, or [`MEMORY_QUEUE_MESSAGES`] messages. Below that the next
/// message is let in whatever its size, so a direction holds at most one message beyond its capacity.
#[derive(Debug)]
pub struct MemoryTransport {
    incoming: Arc<Direction>,
    outgoing: Arc<Direction>,
    /// The message lent last.
    lent: Vec<u8>,
    /// The block that small messages are copied into.
    gather: Option<Window>,
    buffers: BufferManager,
}

#[derive(Debug)]
struct Direction {
    capacity: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// The sending end is closed: the queue empties, then ends.
    finished: bool,
    /// The receiving end is closed: nothing will be taken any more.
    abandoned: bool,
    receiver: Option<Waker>,
    sender: Option<Waker>,
}

impl Direction {
    fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity, queue: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self) {
        let mut queue = self.lock();
        queue.finished = true;
        queue.wake_both();
    }

    fn abandon(&self) {
        let mut queue = self.lock();
        queue.abandoned = true;
        let dropped = std::mem::take(&mut queue.frames);
        queue.bytes = 0;
        queue.wake_both();
        drop(queue);
        // Not under the lock: a frame may be the last of a caller's own buffer.
        drop(dropped);
    }
}

impl Queue {
    fn wake_both(&mut self) {
        for waker in [self.receiver.take(), self.sender.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn has_room(&self, capacity: usize) -> bool {
        self.frames.is_empty() || (self.bytes < capacity && self.frames.len() < MEMORY_QUEUE_MESSAGES)
    }
}

impl MemoryTransport {
    /// A pair that holds 1 MiB in each direction.
    #[must_use]
    pub fn pair() -> (Self, Self) {
        Self::with_capacity(MEMORY_QUEUE_BYTES)
    }

    /// A pair that holds `capacity` bytes in each direction.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> (Self, Self) {
        let (one, two) = (Direction::new(capacity), Direction::new(capacity));
        let end = |incoming: &Arc<Direction>, outgoing: &Arc<Direction>| Self {
            incoming: Arc::clone(incoming),
            outgoing: Arc::clone(outgoing),
            lent: Vec::new(),
            gather: None,
            buffers: BufferManager::shared().clone(),
        };
        (end(&one, &two), end(&two, &one))
    }

    fn push(&mut self, frame: Frame) -> Result<()> {
        let size = frame.len();
        if size > MAX_MESSAGE_SIZE {
            return Err(Rejection::TooLarge { size, limit: MAX_MESSAGE_SIZE }.into());
        }
        let mut queue = self.outgoing.lock();
        if queue.finished {
            return Err(Error::Ended(End::Closed));
        }
        if queue.abandoned {
            return Err(Error::Ended(End::Reset));
        }
        if !queue.has_room(self.outgoing.capacity) {
            let limit = self.outgoing.capacity.saturating_sub(queue.bytes);
            return Err(Rejection::TooLarge { size, limit }.into());
        }
        queue.bytes += size;
        queue.frames.push_back(frame);
        if let Some(waker) = queue.receiver.take() {
            drop(queue);
            waker.wake();
        }
        Ok(())
    }

    /// A frame with a copy of `payload` in a pooled block.
    fn gathered(&mut self, payload: &[u8]) -> Frame {
        let size = payload.len();
        if self.gather.as_ref().is_none_or(|window| window.spare_len() < size) {
            self.gather = self.buffers.try_window(size.max(HOLD_BLOCK_SIZE));
        }
        if let Some(window) = &mut self.gather
            && window.extend(payload)
        {
            return Frame::cut(window, 0..size, size);
        }
        // The pool has nothing left; the queue's own bound holds all the same.
        Frame::copy_from_slice(payload)
    }
}

impl PollTransport for MemoryTransport {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame>> {
        let mut queue = self.incoming.lock();
        if queue.abandoned {
            return Poll::Ready(Err(Error::Ended(End::Closed)));
        }
        let Some(frame) = queue.frames.pop_front() else {
            if queue.finished {
                return Poll::Ready(Err(Error::Ended(End::Eof)));
            }
            queue.receiver = Some(cx.waker().clone());
            drop(queue);
            // An idle end holds no buffers.
            self.gather = None;
            self.lent = Vec::new();
            return Poll::Pending;
        };
        queue.bytes -= frame.len();
        if let Some(waker) = queue.sender.take() {
            drop(queue);
            waker.wake();
        }
        Poll::Ready(Ok(frame))
    }

    fn poll_receive_lent(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut [u8]>> {
        let frame = ready!(self.poll_receive(cx))?;
        self.lent.clear();
        self.lent.extend_from_slice(&frame);
        Poll::Ready(Ok(&mut self.lent))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut queue = self.outgoing.lock();
        if queue.finished {
            return Poll::Ready(Err(Error::Ended(End::Closed)));
        }
        if queue.abandoned {
            return Poll::Ready(Err(Error::Ended(End::Reset)));
        }
        if queue.has_room(self.outgoing.capacity) {
            return Poll::Ready(Ok(()));
        }
        queue.sender = Some(cx.waker().clone());
        Poll::Pending
    }

    fn start_send(&mut self, payload: &[u8]) -> Result<()> {
        let frame = self.gathered(payload);
        self.push(frame)
    }

    fn start_send_frame(&mut self, frame: &Frame) -> Result<()> {
        self.push(frame.clone())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        let queue = self.outgoing.lock();
        if queue.abandoned && !queue.finished {
            return Poll::Ready(Err(Error::Ended(End::Reset)));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close_sending(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.outgoing.finish();
        self.gather = None;
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.outgoing.finish();
        self.incoming.abandon();
        self.gather = None;
        Poll::Ready(Ok(()))
    }

    fn is_connected(&self) -> bool {
        let incoming = self.incoming.lock();
        !(incoming.abandoned || (incoming.finished && incoming.frames.is_empty()))
    }

    fn transport_type(&self) -> &'static str {
        "memory"
    }

    fn buffers(&self) -> &BufferManager {
        &self.buffers
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.outgoing.finish();
        self.incoming.abandon();
    }
}
