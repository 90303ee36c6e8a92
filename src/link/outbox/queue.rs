//! [`Queue`]: what waits to be written, and who waits for that.

use std::{collections::VecDeque, io, task::Waker, time::Duration};

use crate::{
    Error, Frame, Result,
    buffer::{BufferManager, Window},
    codec::Reply,
    error::{Deadline, End},
    limits::WRITE_BLOCK_SIZE,
};

/// What waits to be written, and who waits for that.
#[derive(Debug)]
pub(super) struct Queue {
    /// Frames and full blocks, in order, all of them before `tail`.
    pub(super) segments: VecDeque<Frame>,
    /// The block that small frames are gathered in.
    pub(super) tail: Option<Window>,
    /// Bytes in `segments` and `tail`.
    pub(super) queued: usize,
    /// Bytes taken out of the queue and not yet written.
    pub(super) in_flight: usize,
    /// Bytes written since the start.
    pub(super) written: u64,
    /// Somebody holds `writing`.
    pub(super) driving: bool,
    /// A frame is on its way straight from the caller's memory, and its rest is not queued yet: nothing may come between.
    pub(super) direct: bool,
    /// The writer said Pending and has the flusher's waker.
    pub(super) blocked: bool,
    /// The flusher ran while somebody else was driving: the writer's wake-up may be spent.
    pub(super) missed: bool,
    /// Bytes were written since the writer was last flushed.
    pub(super) dirty: bool,
    /// The flusher was told of the frames that are queued.
    pub(super) armed: bool,
    pub(super) phase: Phase,
    /// The peer has ended the stream, as far as the receiver has seen.
    pub(super) peer_ended: bool,
    /// The link was closed with bytes in it that did not leave.
    pub(super) lost: bool,
    /// What the codec has to say by itself. One slot: a later one takes the place of one that has not left.
    pub(super) reply: Option<Box<Reply>>,
    pub(super) flusher: FlusherState,
    pub(super) sender: Option<Waker>,
    pub(super) receiver: Option<Waker>,
    /// Halves that still exist.
    pub(super) halves: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// The codec's last word is said; the peer's is waited for. Nothing more is accepted.
    Parting,
    /// Shut the writer down when all is written.
    Closing,
    Closed,
    Failed(Failure),
}

/// Why reading or writing ended; the error of the first to ask, and of all that ask later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::link) enum Failure {
    Os(i32),
    Kind(io::ErrorKind),
    TimedOut(Duration),
}

impl Failure {
    pub(in crate::link) fn of(error: &io::Error) -> Self {
        error.raw_os_error().map_or_else(|| Self::Kind(error.kind()), Self::Os)
    }

    pub(in crate::link) fn error(self) -> Error {
        match self {
            Self::Os(code) => io::Error::from_raw_os_error(code).into(),
            Self::Kind(kind) => io::Error::from(kind).into(),
            Self::TimedOut(after) => Error::TimedOut { deadline: Deadline::Write, after },
        }
    }
}

#[derive(Debug)]
pub(super) enum FlusherState {
    /// None yet, or its runtime has ended.
    None,
    /// Spawned; its waker is not known before it first runs, which it is about to do.
    Starting,
    Running(Waker),
}

impl FlusherState {
    pub(super) fn waker(&self) -> Option<Waker> {
        match self {
            Self::Running(waker) => Some(waker.clone()),
            Self::None | Self::Starting => None,
        }
    }
}

/// Who asks for a drain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Half,
    Flusher,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            segments: VecDeque::new(),
            tail: None,
            queued: 0,
            in_flight: 0,
            written: 0,
            driving: false,
            direct: false,
            blocked: false,
            missed: false,
            dirty: false,
            armed: false,
            phase: Phase::Open,
            peer_ended: false,
            lost: false,
            reply: None,
            flusher: FlusherState::None,
            sender: None,
            receiver: None,
            halves: 2,
        }
    }

    pub(super) fn backlog(&self) -> usize {
        self.queued + self.in_flight
    }

    pub(super) fn is_idle(&self) -> bool {
        self.backlog() == 0 && !self.driving && !self.dirty && self.reply.is_none()
    }

    /// Whether all that is to be done is to write what the tail holds, if anything, and to flush.
    #[inline]
    pub(super) fn is_one_block(&self) -> bool {
        self.phase == Phase::Open
            && self.in_flight == 0
            && self.segments.is_empty()
            && self.reply.is_none()
            && !self.lost
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.sender.is_some() || self.receiver.is_some()
    }

    /// Whether another frame may be queued.
    #[inline]
    pub(super) fn admits(&self, high_water: usize) -> Result<bool> {
        match self.phase {
            Phase::Open => Ok(self.backlog() < high_water),
            _ => Err(self.refusal()),
        }
    }

    /// Why no frame may be queued any more.
    #[cold]
    pub(super) fn refusal(&self) -> Error {
        match self.phase {
            Phase::Failed(failure) => failure.error(),
            _ if self.peer_ended => Error::Ended(End::Eof),
            _ => Error::Ended(End::Closed),
        }
    }

    /// Whether a drain may start now and has something to do.
    pub(super) fn may_drive(&self, by: By) -> bool {
        let has_waker = match by {
            By::Half => matches!(self.flusher, FlusherState::Running(_)),
            By::Flusher => true,
        };
        let allowed = has_waker && !self.driving && (!self.blocked || by == By::Flusher);
        allowed && !matches!(self.phase, Phase::Failed(_) | Phase::Closed)
    }

    /// The tail block with at least `size` bytes of room.
    #[inline]
    pub(super) fn room(&mut self, size: usize, buffers: &BufferManager) -> Result<&mut Window> {
        if self.tail.as_ref().is_none_or(|tail| tail.spare_len() < size) {
            self.renew_tail(size, buffers)?;
        }
        self.tail.as_mut().ok_or_else(out_of_memory)
    }

    fn renew_tail(&mut self, size: usize, buffers: &BufferManager) -> Result<()> {
        if let Some(tail) = &mut self.tail {
            // All of it is written: start over in the same block.
            if tail.is_empty() && tail.compact() && tail.spare_len() >= size {
                return Ok(());
            }
        }
        self.seal_tail();
        self.tail = Some(block(size, buffers)?);
        Ok(())
    }

    /// Moves what is in the tail behind the other segments.
    pub(super) fn seal_tail(&mut self) {
        if let Some(frame) = self.cut_tail() {
            self.segments.push_back(frame);
        }
        self.tail = self.tail.take().filter(|tail| tail.spare_len() >= 256);
    }

    pub(super) fn cut_tail(&mut self) -> Option<Frame> {
        let tail = self.tail.as_mut().filter(|tail| !tail.is_empty())?;
        let len = tail.len();
        Some(Frame::cut(tail, 0..len, len))
    }

    /// Queues the frames that a block of the sender holds; false when they cannot leave any more.
    pub(super) fn append(&mut self, mut fed: Window) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        let len = fed.len();
        self.queued += len;
        if self.tail.as_ref().is_none_or(Window::is_empty) {
            self.tail = Some(fed);
        } else if len <= fed.capacity() / 2
            && let Some(tail) = &mut self.tail
            && tail.extend(fed.unread())
        {
            // A few bytes do not pin a block of their own while the writer is stuck.
        } else {
            self.seal_tail();
            self.segments.push_back(Frame::cut(&mut fed, 0..len, len));
        }
        true
    }

    /// Puts what the codec has to say behind the frames that are queued, unless so much is on its way already that it
    /// may as well be overtaken by a later one.
    pub(super) fn place_reply(&mut self, high_water: usize, buffers: &BufferManager) {
        if self.reply.is_none() || self.direct || self.backlog() >= high_water {
            return;
        }
        let Some(reply) = self.reply.take() else { return };
        let bytes = reply.bytes();
        if let Ok(window) = self.room(bytes.len(), buffers)
            && window.extend(bytes)
        {
            self.queued += bytes.len();
        }
    }

    /// Forgets what is queued.
    pub(super) fn discard(&mut self) -> Wakers {
        self.segments = VecDeque::new();
        self.tail = None;
        self.reply = None;
        self.queued = 0;
        self.in_flight = 0;
        self.dirty = false;
        Wakers([self.sender.take(), self.receiver.take()])
    }

    pub(super) fn settle(&mut self, written: usize) {
        self.in_flight = self.in_flight.saturating_sub(written);
        self.written += written as u64;
    }

    /// The writer is full. Returns the flusher, whose waker it has, when that has to look again: it missed a wake-up
    /// while a half was driving, or has a deadline to keep.
    pub(super) fn block(&mut self, by: By, deadline: bool) -> Wakers {
        self.blocked = true;
        if by == By::Half
            && (std::mem::take(&mut self.missed) || deadline)
            && let FlusherState::Running(waker) = &self.flusher
        {
            return Wakers([Some(waker.clone()), None]);
        }
        Wakers::default()
    }

    pub(super) fn fail(&mut self, failure: Failure) -> Wakers {
        self.phase = Phase::Failed(failure);
        self.blocked = false;
        self.discard()
    }

    /// Those who wait for what is now the case.
    pub(super) fn notify(&mut self, high_water: usize) -> Wakers {
        if self.backlog() <= high_water / 2 || self.phase == Phase::Closed {
            Wakers([self.sender.take(), self.receiver.take()])
        } else {
            Wakers::default()
        }
    }
}

/// Tasks to wake once the queue is unlocked: one of them may run at once on another thread, or be dropped by its wake.
#[derive(Default)]
#[must_use]
pub(super) struct Wakers([Option<Waker>; 2]);

impl Wakers {
    pub(super) fn wake(self) {
        for waker in self.0.into_iter().flatten() {
            waker.wake();
        }
    }
}

/// A block for frames on their way out, with room for at least `size` bytes: from the pool, or, when it has nothing left
/// to give, from the system.
pub(super) fn block(size: usize, buffers: &BufferManager) -> Result<Window> {
    let window = buffers.try_window(size.max(WRITE_BLOCK_SIZE)).or_else(|| Window::unpooled(size));
    window.ok_or_else(out_of_memory)
}

#[cold]
fn out_of_memory() -> Error {
    io::Error::from(io::ErrorKind::OutOfMemory).into()
}
