//! Reads into the window until a message is found, and gives the window its memory.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop::poll_proceed,
};

use super::{Found, MESSAGES_PER_TURN, READS_PER_POLL, Receiver, Starved, State};
use crate::{
    Error, Result,
    buffer::{Waiter, Window},
    codec::{Decode, Step},
    error::{Deadline, End, Fault, Violation},
    limits::{HOLD_BLOCK_SIZE, MAX_READ_WINDOW, VECTORED_THRESHOLD},
    link::outbox::Failure,
    transport::TransportError,
};

/// Bytes that the framing of a message may take beside its payload, when a block is chosen by the last payload's size.
const FRAMING_SLACK: usize = 64;

impl<D: Decode, R: AsyncRead + Unpin, W: AsyncWrite + Unpin + Send + 'static> Receiver<D, R, W> {
    #[inline(always)]
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Found>> {
        if self.counters.frames_received < self.turn_ends
            && let Some(found) = self.found()
        {
            return Poll::Ready(Ok(found));
        }
        self.poll_found(cx)
    }

    /// As [`poll_found`](Self::poll_found), after the decoder has said `step`.
    #[inline(never)]
    pub(super) fn poll_other(
        &mut self,
        step: Result<Step, Violation>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Found>> {
        match self.found_in(step) {
            Some(found) => Poll::Ready(Ok(found)),
            None => self.poll_found(cx),
        }
    }

    #[inline(never)]
    pub(super) fn poll_found(&mut self, cx: &mut Context<'_>) -> Poll<Result<Found>> {
        if self.counters.frames_received < self.turn_ends {
            return self.poll_read_found(cx);
        }
        let turn = ready!(poll_proceed(cx));
        let found = ready!(self.poll_read_found(cx));
        turn.made_progress();
        self.turn_ends = self.counters.frames_received + MESSAGES_PER_TURN;
        Poll::Ready(found)
    }

    /// Decodes, reads, decodes, until a frame is found or there is nothing to read.
    pub(super) fn poll_read_found(&mut self, cx: &mut Context<'_>) -> Poll<Result<Found>> {
        let mut reads = 0;
        loop {
            match &self.state {
                State::Open => {}
                State::Draining => return Poll::Ready(self.decode_rest()),
                State::Ended(end) => return Poll::Ready(Err(Error::Ended(*end))),
                State::Faulty(_) | State::Broken(_) | State::Failed(_) => {
                    self.told()?;
                    continue;
                }
            }
            if let Some(found) = self.found() {
                if let Some(timers) = &mut self.timers {
                    timers.frame_since = None;
                }
                return Poll::Ready(Ok(found));
            }
            if !matches!(self.state, State::Open) {
                continue;
            }
            // A reader that always has something would never come to where it waits.
            if reads > 0
                && self.timers.is_some()
                && let Poll::Ready(late) = self.poll_deadlines(cx, true)
            {
                late?;
            }
            if reads == READS_PER_POLL {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            reads += 1;
            ready!(self.poll_fill(cx))?;
        }
    }

    /// After the end of the reader: what is left in the window, then the end itself.
    pub(super) fn decode_rest(&mut self) -> Result<Found> {
        loop {
            let mut nothing = [];
            let unread = self.window.as_mut().map_or(&mut nothing[..], Window::unread);
            let left = unread.len();
            match self.decoder.decode_eof(unread) {
                Ok(Step::Frame { payload, consumed }) => {
                    return Ok(self.count(Found { payload, consumed }));
                }
                Ok(Step::Fault { fault, consumed }) => {
                    self.consume(consumed);
                    return Err(self.fault(fault));
                }
                Ok(Step::Incomplete { consumed, .. }) if consumed > 0 && consumed < left => {
                    self.consume(consumed)
                }
                Ok(Step::Incomplete { consumed: 0, .. }) if left > 0 => {
                    // A codec that forgets its rest: nothing is dropped in silence all the same.
                    self.consume(left);
                    return Err(self.fault(Fault::Truncated { size: left }));
                }
                Ok(Step::Produced { consumed }) => {
                    self.consume(consumed);
                    return Ok(self.count(Found::produced()));
                }
                Ok(Step::Event { consumed }) => {
                    self.consume(consumed);
                    self.reply();
                }
                Ok(Step::Incomplete { .. } | Step::End { .. }) => {
                    self.end(End::Eof);
                    return Err(Error::Ended(End::Eof));
                }
                Err(violation) => return Err(self.violation(violation)),
            }
        }
    }

    pub(super) fn consume(&mut self, consumed: usize) {
        if let Some(window) = &mut self.window {
            window.consume(consumed);
        }
    }

    /// One read. Before it, what is queued for writing leaves: the peer may wait for it.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.outbox.poll_before_read(cx).is_pending() {
            return self.poll_timers(cx, false);
        }
        self.make_room();
        if self.window.as_ref().is_none_or(|window| window.spare_len() == 0) {
            ready!(self.poll_window(cx))?;
        }
        let Some(window) = &mut self.window else { return Poll::Ready(Ok(())) };
        let (needed, last) = (self.needed as usize, self.last_size as usize);
        let exact = needed.saturating_sub(window.len());
        // What ends the unfinished frame, if it is as large as the last; 0 when it is larger.
        let rest = needed.max(last).saturating_sub(window.len());
        let room = window.spare();
        let limit = if exact >= MAX_READ_WINDOW {
            // A frame in a block of its own ends where the block's reads end, so that nothing behind it has to move.
            exact.min(room.len())
        } else if last >= VECTORED_THRESHOLD && rest > 0 && rest <= room.len() {
            // As many as fit of frames like the last: one that is cut off would have to be moved.
            room.len() - (room.len() - rest) % last
        } else {
            room.len()
        };
        let mut target = ReadBuf::new(room.get_mut(..limit).unwrap_or_default());
        match Pin::new(&mut self.reader).poll_read(cx, &mut target) {
            Poll::Ready(Ok(())) => {
                let count = target.filled().len();
                if count == 0 {
                    self.state = State::Draining;
                } else {
                    window.advance(count);
                    self.counters.reads += 1;
                    if let Some(timers) = &mut self.timers {
                        timers.idle_since = None;
                        timers.silent_since = None;
                    }
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(self.read_error(error)),
            Poll::Pending => {
                self.park();
                self.poll_timers(cx, true)
            }
        }
    }

    /// Nothing to read: an idle link holds no block, one with an unfinished small frame a small one.
    pub(super) fn park(&mut self) {
        if let Some(window) = &mut self.window {
            if window.is_empty() {
                self.window = None;
                self.hold = None;
            } else if window.len() < HOLD_BLOCK_SIZE / 2
                && window.capacity() > HOLD_BLOCK_SIZE
                && let Some(mut small) = self.outbox.buffers.try_window(HOLD_BLOCK_SIZE)
                && small.extend(window.unread())
            {
                self.window = Some(small);
            }
        }
    }

    #[cold]
    pub(super) fn read_error(&mut self, error: std::io::Error) -> Result<()> {
        let failure = Failure::of(&error);
        let error = Error::from(error);
        if let Error::Ended(end) = error {
            self.end(end);
        } else {
            self.end(End::Reset);
            self.state = State::Failed(failure);
        }
        Err(error)
    }

    /// The pool had nothing to give: waits for it, as long as its configuration says.
    #[cold]
    pub(super) fn poll_window(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let unread = self.window.as_ref().map_or(0, Window::len);
        if tokio::runtime::Handle::try_current().is_err() {
            // No clock to wait by.
            return Poll::Ready(Err(Error::TimedOut { deadline: Deadline::Buffer, after: Duration::ZERO }));
        }
        let starved = self.starved.get_or_insert_with(|| {
            let after = Duration::from_millis(self.outbox.buffers.config().acquire_timeout_ms);
            Box::new(Starved { waiter: Waiter::new(), after, sleep: Box::pin(tokio::time::sleep(after)) })
        });
        let outcome =
            match self.outbox.buffers.poll_window(cx, &mut starved.waiter, (unread * 2).max(MAX_READ_WINDOW))
            {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => {
                    ready!(starved.sleep.as_mut().poll(cx));
                    let after = starved.after;
                    self.starved = None;
                    return Poll::Ready(Err(Error::TimedOut { deadline: Deadline::Buffer, after }));
                }
            };
        self.starved = None;
        let mut next = match outcome {
            Ok(next) => next,
            Err(TransportError::Closed) => return Poll::Ready(Err(Error::Ended(End::Closed))),
            Err(error) => return Poll::Ready(Err(Error::Io(std::io::Error::other(error)))),
        };
        if let Some(window) = &mut self.window {
            let moved = next.extend(window.unread());
            debug_assert!(moved, "the block was chosen for the bytes");
        }
        self.window = Some(next);
        Poll::Ready(Ok(()))
    }

    /// Sees to it that the window has room for the next read.
    #[inline]
    pub(super) fn make_room(&mut self) {
        let Some(window) = &mut self.window else {
            self.window = self.outbox.buffers.try_window(MAX_READ_WINDOW);
            return;
        };
        let (len, start) = (window.len(), window.start());
        let room = window.spare_len();
        if start == 0
            && room >= MAX_READ_WINDOW / 4
            && self.needed as usize <= len + room
            && window.capacity() == MAX_READ_WINDOW
        {
            return;
        }
        let large = Self::is_large(len, self.needed as usize, self.last_size as usize);
        // A large block is given back as soon as neither the last frame nor the unfinished one asks for it.
        let ordinary = window.capacity() <= MAX_READ_WINDOW || large;
        // A short tail is moved to the front early: the window then stays in the cache. This costs a quarter of a copy
        // per byte at the most, since so many bytes were taken off before.
        if ordinary && (len == 0 || len <= start.max(MAX_READ_WINDOW / 4) / 4) {
            window.compact();
        }
        let spare = window.spare_len();
        let last_size = self.last_size as usize;
        // A frame of unknown size is thought to be as large as the last one, if that was large.
        let expected = if last_size > MAX_READ_WINDOW { last_size + FRAMING_SLACK } else { 0 };
        let fits = match self.needed as usize {
            0 => spare >= window.capacity() / 4 || (len < expected && expected <= len + spare),
            needed => needed <= len + spare,
        };
        if !(ordinary && fits && spare > 0 && window.capacity() >= MAX_READ_WINDOW) {
            self.relocate();
        }
    }

    /// Whether `len` unread bytes, what the unfinished frame needs, or the last frame take more than an ordinary window.
    #[inline]
    pub(super) fn is_large(len: usize, needed: usize, last_size: usize) -> bool {
        len > MAX_READ_WINDOW / 2 || needed > MAX_READ_WINDOW || last_size > MAX_READ_WINDOW
    }

    /// Moves what is unread to the front or to another block, so that there is room for more. Never moves it for
    /// nothing: a frame that comes in small pieces is copied a few times in all, not once for each piece.
    #[cold]
    pub(super) fn relocate(&mut self) {
        let Some(window) = &mut self.window else { return };
        let len = window.len();
        let half = MAX_READ_WINDOW / 2;
        let next = if Self::is_large(len, self.needed as usize, self.last_size as usize) {
            // A block that exists already is taken at the frame's word, or on the strength of the last one; memory is
            // allocated only for what has come.
            let (needed, last_size) = (self.needed as usize, self.last_size as usize);
            let wanted = if needed > 0 {
                needed
            } else if len < last_size {
                last_size + FRAMING_SLACK
            } else {
                len * 2
            };
            let worth = len > half || last_size > MAX_READ_WINDOW;
            let pooled = if worth { self.outbox.buffers.try_pooled_window(wanted) } else { None };
            let next = pooled.or_else(|| {
                let room = window.capacity() - len;
                if room >= len && window.capacity() >= MAX_READ_WINDOW && window.compact() {
                    return None;
                }
                self.outbox
                    .buffers
                    .try_window(wanted.min(len * 4).max(MAX_READ_WINDOW))
                    .or_else(|| self.outbox.buffers.try_window((len * 2).max(MAX_READ_WINDOW)))
            });
            next.filter(|next| next.spare_len() > len + window.spare_len())
        } else if window.capacity() == MAX_READ_WINDOW && window.compact() {
            None
        } else {
            self.outbox.buffers.try_window(MAX_READ_WINDOW)
        };
        if let Some(mut next) = next
            && next.spare_len() > len
            && next.extend(window.unread())
        {
            self.window = Some(next);
        } else if window.spare_len() == 0 {
            window.compact();
        }
    }
}
