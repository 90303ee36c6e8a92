//! [`Queue`]: what waits to be written, and who waits for that.

use std::{collections::VecDeque, io, task::Waker, time::Duration};

use crate::{
    Error, Frame, Result,
    buffer::{BufferManager, Window},
    codec::Reply,
    error::{Deadline, End},
    limits::WRITE_BLOCK_SIZE,
};

use super::writing::Writing;

/// What waits to be written, and who waits for that.
#[derive(Debug)]
pub(super) struct Queue<W> {
    /// The writer and what is on its way into it. It is the token of those who may write: whoever takes it out drives,
    /// and puts it back; so it needs no lock of its own.
    pub(super) writing: Option<Box<Writing<W>>>,
    /// Frames and full blocks, in order, all of them before `tail`.
    pub(super) segments: VecDeque<Frame>,
    /// The block that small frames are gathered in.
    pub(super) tail: Option<Window>,
    /// Bytes in `segments` and `tail`.
    pub(super) queued: usize,
    /// Bytes taken out of the queue and not yet written.
    pub(super) in_flight: usize,
    /// Writes that took bytes, since the start.
    pub(super) writes: u64,
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
    /// A block was written and flushed since the last drain: more of the kind may follow.
    pub(super) warm: bool,
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
#[derive(Debug, Clone, Copy)]
pub(super) enum By<'a> {
    Half,
    Flusher,
    /// A task that comes back by itself, where no runtime has a flusher.
    Caller(&'a Waker),
    /// Whoever goes last: nobody comes back for what does not go at once.
    Last,
}

impl By<'_> {
    pub(super) fn is_half(self) -> bool {
        matches!(self, Self::Half)
    }
}

impl<W> Queue<W> {
    pub(super) fn new(writer: W) -> Self {
        Self {
            writing: Some(Box::new(Writing::new(Some(writer)))),
            segments: VecDeque::new(),
            tail: None,
            queued: 0,
            in_flight: 0,
            writes: 0,
            direct: false,
            blocked: false,
            missed: false,
            dirty: false,
            armed: false,
            warm: false,
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

    /// Whether somebody is writing.
    pub(super) fn is_driven(&self) -> bool {
        self.writing.is_none()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.backlog() == 0 && !self.is_driven() && !self.dirty && self.reply.is_none()
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

    /// The token, if a drain may start now. It goes back by [`stop`](Self::stop).
    #[inline]
    pub(super) fn start(&mut self, by: By<'_>) -> Option<Box<Writing<W>>> {
        match &self.flusher {
            FlusherState::Running(_) => {}
            FlusherState::None | FlusherState::Starting if by.is_half() => return None,
            FlusherState::None | FlusherState::Starting => {}
        }
        if (self.blocked && by.is_half()) || matches!(self.phase, Phase::Failed(_) | Phase::Closed) {
            return None;
        }
        let mut writing = self.writing.take()?;
        let waker = match (by, &self.flusher) {
            (By::Caller(waker), _) | (_, FlusherState::Running(waker)) => Some(waker),
            (By::Last, _) if writing.waker.is_none() => Some(Waker::noop()),
            _ => None,
        };
        if let Some(waker) = waker
            && writing.waker.as_ref().is_none_or(|old| !old.will_wake(waker))
        {
            writing.waker = Some(waker.clone());
        }
        self.missed = false;
        Some(writing)
    }

    /// Gives the token back.
    #[inline]
    pub(super) fn stop(&mut self, mut writing: Box<Writing<W>>) {
        self.writes += u64::from(std::mem::take(&mut writing.writes));
        self.writing = Some(writing);
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
    }

    /// The writer is full. Returns the flusher, whose waker it has, when that has to look again: it missed a wake-up
    /// while a half was driving, or has a deadline to keep.
    pub(super) fn block(&mut self, by: By<'_>, deadline: bool) -> Wakers {
        self.blocked = true;
        if by.is_half()
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
