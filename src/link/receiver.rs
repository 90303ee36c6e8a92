//! [`Receiver`]: the receiving half of a link.

use std::{
    fmt,
    future::Future,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop::poll_proceed,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    config::Counters,
    outbox::{Failure, Half},
};
use crate::{
    Error, Frame, Result,
    buffer::{Waiter, Window},
    codec::{Decode, Kind, Step},
    error::{Deadline, End, Fault, Violation},
    limits::{HOLD_BLOCK_SIZE, MAX_READ_WINDOW, PIN_FACTOR, VECTORED_THRESHOLD},
    transport::TransportError,
};

/// Bytes that the framing of a message may take beside its payload, when a block is chosen by the last payload's size.
const FRAMING_SLACK: usize = 64;

/// Reads that brought no frame after which one poll lets other tasks run.
const READS_PER_POLL: u32 = 32;

/// Messages that cost one unit of the task's budget (tokio's cooperative scheduling): where messages always wait, other
/// tasks get their turn after some thousands.
pub(super) const MESSAGES_PER_TURN: u64 = 64;

/// Dropped messages after which one poll lets other tasks run.
const MESSAGES_PER_POLL: u32 = 1024;

/// Bytes dropped with one read after a breach of the framing.
const LINGER_READ: usize = 4096;

/// The receiving half of a [`Link`](super::Link).
pub struct Receiver<D, R, W: AsyncWrite + Unpin + Send + 'static> {
    pub(super) decoder: D,
    pub(super) reader: R,
    /// Bytes read and not yet delivered. `None` while there are none.
    window: Option<Window>,
    /// The block that small owned frames are copied into.
    hold: Option<Window>,
    pub(super) outbox: Half<W>,
    pub(super) counters: Received,
    state: State,
    /// What the decoder said the unfinished frame needs in all; 0 when unknown.
    needed: u32,
    /// Bytes of the last frame: the next one is probably as large.
    last_size: u32,
    /// How many frames are received when this task next asks whether others wait.
    turn_ends: u64,
    faults_in_a_row: u32,
    timers: Option<Box<Timers>>,
    /// A wait for a block, while the pool has none to give.
    starved: Option<Box<Starved>>,
}

/// This half's share of [`Counters`]: an idle link is to be small.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Received {
    frames_received: u64,
    bytes_received: u64,
    reads: u64,
    faults: u32,
}

#[derive(Debug)]
struct Starved {
    waiter: Waiter,
    after: Duration,
    sleep: Pin<Box<Sleep>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Open,
    /// The reader has ended; what is left in the window is decoded.
    Draining,
    Ended(End),
    /// A fault was found while draining a batch; the next call tells of it.
    Faulty(Box<Fault>),
    Broken(Box<Violation>),
    /// The reader failed.
    Failed(Failure),
}

/// A size as it is kept. No block is as large as what does not fit.
#[inline(always)]
fn narrow(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// Where a frame lies in the window.
#[derive(Debug)]
struct Found {
    payload: Range<usize>,
    consumed: usize,
    /// The payload is not in the window but with the decoder.
    produced: bool,
}

#[derive(Debug)]
struct Timers {
    /// After how long a silence the codec wants to know of it, again and again.
    silence: Option<Duration>,
    /// Since when nothing has come.
    idle_since: Option<Instant>,
    /// Since when a frame is unfinished.
    frame_since: Option<Instant>,
    /// Since when nothing has come, or since the codec was last told.
    silent_since: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<D: Decode, R: AsyncRead + Unpin, W: AsyncWrite + Unpin + Send + 'static> Receiver<D, R, W> {
    pub(super) fn new(decoder: D, reader: R, outbox: Half<W>, config: &super::LinkConfig) -> Self {
        let silence = decoder.idle_interval();
        let timers = (config.idle.is_some() || config.frame.is_some() || silence.is_some()).then(|| {
            Box::new(Timers { silence, idle_since: None, frame_since: None, silent_since: None, sleep: None })
        });
        Self {
            decoder,
            reader,
            window: None,
            hold: None,
            outbox,
            counters: Received::default(),
            state: State::Open,
            needed: 0,
            last_size: 0,
            turn_ends: MESSAGES_PER_TURN,
            faults_in_a_row: 0,
            timers,
            starved: None,
        }
    }

    /// Waits for the next message and lends its bytes until the next call. Costs neither a copy nor a reference count;
    /// the bytes may be changed in place.
    ///
    /// # Errors
    /// [`Error::Ended`] at the end of the stream; [`Error::Fault`] for one bad message, after which the next call goes
    /// on; see [`Error::is_fatal`].
    ///
    /// # Cancel safety
    /// Safe: nothing is lost when the call is dropped before it returns.
    #[inline]
    pub fn receive_lent(&mut self) -> ReceiveLent<'_, D, R, W> {
        ReceiveLent { receiver: Some(self) }
    }

    /// Waits for the next message and returns it owned, without copying it, except that a message much smaller than
    /// the block it lies in is moved to a small one (see [`PIN_FACTOR`]).
    ///
    /// # Errors
    /// As [`receive_lent`](Self::receive_lent).
    ///
    /// # Cancel safety
    /// As [`receive_lent`](Self::receive_lent).
    #[inline]
    pub fn receive(&mut self) -> Receive<'_, D, R, W> {
        Receive { receiver: self }
    }

    /// Waits for the next message and copies it into `buffer`, which is cleared first; returns its length in bytes.
    ///
    /// # Errors
    /// As [`receive_lent`](Self::receive_lent); `buffer` is then as it was.
    ///
    /// # Cancel safety
    /// As [`receive_lent`](Self::receive_lent).
    pub async fn receive_into_buffer(&mut self, buffer: &mut BytesMut) -> Result<usize> {
        let payload = self.receive_lent().await?;
        buffer.clear();
        buffer.extend_from_slice(payload);
        Ok(payload.len())
    }

    /// Waits for the next message, then appends it and all that are already here, `max` at the most, to `frames`.
    /// Returns how many. A fault behind the first message is left for the next call.
    ///
    /// # Errors
    /// As [`receive_lent`](Self::receive_lent); nothing was then appended.
    ///
    /// # Cancel safety
    /// As [`receive_lent`](Self::receive_lent).
    pub async fn receive_batch(&mut self, frames: &mut Vec<Frame>, max: usize) -> Result<usize> {
        if max == 0 {
            return Ok(0);
        }
        frames.push(self.receive().await?);
        let mut count = 1;
        while count < max {
            match self.found() {
                Some(found) => frames.push(self.cut(found)),
                None => break,
            }
            count += 1;
        }
        Ok(count)
    }

    /// As [`receive_lent`](Self::receive_lent), with what the message says that it is (WebSocket: text or binary).
    ///
    /// # Errors
    /// As [`receive_lent`](Self::receive_lent).
    ///
    /// # Cancel safety
    /// As [`receive_lent`](Self::receive_lent).
    pub fn receive_with_kind(&mut self) -> ReceiveWithKind<'_, D, R, W> {
        ReceiveWithKind { receiver: Some(self) }
    }

    /// The poll form of [`receive_with_kind`](Self::receive_with_kind).
    ///
    /// # Errors
    /// As there.
    pub fn poll_receive_with_kind(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Kind, &mut [u8])>> {
        let found = ready!(self.poll_next(cx))?;
        Poll::Ready(Ok((self.decoder.kind(), self.lend(found))))
    }

    /// The next message if it is already here: never waits and never reads.
    ///
    /// # Errors
    /// As [`receive_lent`](Self::receive_lent), but for the end of the stream, which only reading tells.
    #[inline]
    pub fn receive_ready(&mut self) -> Result<Option<&mut [u8]>> {
        match self.found() {
            Some(found) => Ok(Some(self.lend(found))),
            None => self.told().map(|()| None),
        }
    }

    /// The poll form of [`receive`](Self::receive).
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame>> {
        let found = ready!(self.poll_next(cx))?;
        Poll::Ready(Ok(self.cut(found)))
    }

    /// The poll form of [`receive_lent`](Self::receive_lent).
    ///
    /// # Errors
    /// As [`receive_lent`](Self::receive_lent).
    pub fn poll_receive_lent(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut [u8]>> {
        let found = ready!(self.poll_next(cx))?;
        Poll::Ready(Ok(self.lend(found)))
    }

    /// The decoder.
    pub fn decoder(&self) -> &D {
        &self.decoder
    }

    /// The decoder, to change how the next messages are received. Whatever it has taken in of a message that is unfinished
    /// has to stay with it.
    pub fn decoder_mut(&mut self) -> &mut D {
        &mut self.decoder
    }

    /// What this half has done.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let Received { frames_received, bytes_received, reads, faults } = self.counters;
        Counters { frames_received, bytes_received, reads, faults: faults.into(), ..Counters::default() }
    }

    /// Whether the stream is over, as far as this half has seen.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended(_) | State::Broken(_) | State::Failed(_))
    }

    /// Ends this half: later calls return [`End::Closed`].
    pub(super) fn close(&mut self) {
        if matches!(self.state, State::Open | State::Draining | State::Faulty(_)) {
            self.state = State::Ended(End::Closed);
        }
        self.window = None;
        self.hold = None;
    }

    /// Puts `bytes` before all that will be read; false when there is no memory for them.
    pub(super) fn put_unread(&mut self, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        let size = bytes.len().max(MAX_READ_WINDOW);
        let mut window = self.outbox.buffers.try_window(size).or_else(|| Window::unpooled(size));
        let fits = window.as_mut().is_some_and(|window| window.extend(bytes));
        self.window = window;
        fits
    }

    /// A fault that was found and not yet told.
    pub(super) fn take_fault(&mut self) -> Option<Fault> {
        let State::Faulty(fault) = &self.state else { return None };
        let fault = Fault::clone(fault);
        self.state = State::Open;
        Some(fault)
    }

    /// Bytes read and not delivered.
    pub(super) fn take_unread(&mut self) -> Frame {
        match self.window.take() {
            Some(mut window) if !window.is_empty() => {
                let len = window.len();
                Frame::cut(&mut window, 0..len, len)
            }
            _ => Frame::new(),
        }
    }

    #[inline(always)]
    fn lend(&mut self, found: Found) -> &mut [u8] {
        if found.produced {
            return self.lend_produced();
        }
        let size = found.payload.end - found.payload.start;
        self.last_size = narrow(found.consumed);
        self.counters.bytes_received += size as u64;
        match &mut self.window {
            Some(window) => {
                self.outbox.tell_of_more(size, window.len().saturating_sub(found.consumed));
                window.lend(found.payload, found.consumed)
            }
            None => &mut [],
        }
    }

    #[cold]
    fn lend_produced(&mut self) -> &mut [u8] {
        let payload = self.decoder.produced();
        self.counters.bytes_received += payload.len() as u64;
        payload
    }

    #[cold]
    fn cut_produced(&mut self) -> Frame {
        let frame = self.decoder.take_produced();
        self.counters.bytes_received += frame.len() as u64;
        frame
    }

    #[inline]
    fn cut(&mut self, found: Found) -> Frame {
        if found.produced {
            return self.cut_produced();
        }
        let Range { start, end } = found.payload;
        let size = end - start;
        self.last_size = narrow(found.consumed);
        self.counters.bytes_received += size as u64;
        let Some(window) = &mut self.window else { return Frame::new() };
        if size >= window.capacity() / PIN_FACTOR {
            self.outbox.tell_of_more(size, window.len().saturating_sub(found.consumed));
            return Frame::cut(window, start..end, found.consumed);
        }
        if self.hold.as_ref().is_none_or(|hold| hold.spare_len() < size) {
            self.hold = self.outbox.buffers.try_window(size.max(HOLD_BLOCK_SIZE));
        }
        // When the pool has nothing left, the frame shares the window.
        let Some(hold) = &mut self.hold else { return Frame::cut(window, start..end, found.consumed) };
        let copied = hold.extend(window.lend(start..end, found.consumed));
        debug_assert!(copied, "the block was chosen for the frame");
        Frame::cut(hold, 0..size, size)
    }

    /// The next frame in the window, without reading. Whatever else the decoder says is kept in the state.
    #[inline(always)]
    fn found(&mut self) -> Option<Found> {
        if !matches!(self.state, State::Open) {
            return None;
        }
        let window = self.window.as_mut()?;
        match self.decoder.decode(window.unread()) {
            Ok(Step::Frame { payload, consumed }) => {
                Some(self.count(Found { payload, consumed, produced: false }))
            }
            Ok(Step::Incomplete { consumed: 0, needed }) => {
                self.needed = narrow(needed);
                None
            }
            other => self.not_found(other),
        }
    }

    /// Whatever is not plainly a frame in the window.
    #[cold]
    #[inline(never)]
    fn not_found(&mut self, mut step: Result<Step, Violation>) -> Option<Found> {
        loop {
            match step {
                Ok(Step::Frame { payload, consumed }) => {
                    return Some(self.count(Found { payload, consumed, produced: false }));
                }
                Ok(Step::Produced { consumed }) => {
                    self.consume(consumed);
                    return Some(self.count(Found { payload: 0..0, consumed: 0, produced: true }));
                }
                Ok(Step::Event { consumed }) => {
                    self.consume(consumed);
                    self.reply();
                }
                Ok(Step::Incomplete { consumed, needed }) => {
                    self.consume(consumed);
                    self.needed = narrow(needed);
                    return None;
                }
                Ok(Step::Fault { fault, consumed }) => {
                    self.consume(consumed);
                    self.state = State::Faulty(Box::new(fault));
                    return None;
                }
                Ok(Step::End { .. }) => {
                    self.end(End::Eof);
                    return None;
                }
                Err(violation) => {
                    self.violation(violation);
                    return None;
                }
            }
            let mut nothing = [];
            step = self.decoder.decode(self.window.as_mut().map_or(&mut nothing[..], Window::unread));
        }
    }

    #[inline(always)]
    fn count(&mut self, found: Found) -> Found {
        self.counters.frames_received += 1;
        self.faults_in_a_row = 0;
        found
    }

    /// Hands what the codec has to say to the write side.
    #[cold]
    fn reply(&mut self) {
        if let Some(reply) = self.decoder.poll_reply() {
            self.outbox.reply(reply);
        }
    }

    /// The stream is over: nothing is kept, and the write side need not wait for the peer's last word.
    #[cold]
    fn end(&mut self, end: End) {
        self.reply();
        self.outbox.peer_ended();
        self.state = State::Ended(end);
        self.window = None;
        self.hold = None;
    }

    /// Tells of a fault that was kept.
    #[cold]
    fn told(&mut self) -> Result<()> {
        if let State::Faulty(fault) = &self.state {
            let fault = Fault::clone(fault);
            self.state = State::Open;
            return Err(self.fault(fault));
        }
        match &self.state {
            State::Broken(violation) => Err(Violation::clone(violation).into()),
            State::Failed(failure) => Err(failure.error()),
            _ => Ok(()),
        }
    }

    #[cold]
    fn fault(&mut self, fault: Fault) -> Error {
        self.counters.faults = self.counters.faults.saturating_add(1);
        self.faults_in_a_row += 1;
        if let Some(timers) = &mut self.timers {
            timers.frame_since = None;
        }
        if self.faults_in_a_row > self.outbox.settings.max_faults_in_a_row {
            return self.violation(Violation::TooManyFaults { count: self.faults_in_a_row });
        }
        fault.into()
    }

    #[cold]
    fn violation(&mut self, violation: Violation) -> Error {
        self.reply();
        self.outbox.peer_ended();
        self.window = None;
        self.hold = None;
        self.state = State::Broken(Box::new(violation.clone()));
        violation.into()
    }

    #[inline(always)]
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Found>> {
        if self.counters.frames_received < self.turn_ends
            && let Some(found) = self.found()
        {
            return Poll::Ready(Ok(found));
        }
        self.poll_found(cx)
    }

    #[inline(never)]
    fn poll_found(&mut self, cx: &mut Context<'_>) -> Poll<Result<Found>> {
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
    fn poll_read_found(&mut self, cx: &mut Context<'_>) -> Poll<Result<Found>> {
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
    fn decode_rest(&mut self) -> Result<Found> {
        loop {
            let mut nothing = [];
            let unread = self.window.as_mut().map_or(&mut nothing[..], Window::unread);
            let left = unread.len();
            match self.decoder.decode_eof(unread) {
                Ok(Step::Frame { payload, consumed }) => {
                    return Ok(self.count(Found { payload, consumed, produced: false }));
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
                    return Ok(self.count(Found { payload: 0..0, consumed: 0, produced: true }));
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

    fn consume(&mut self, consumed: usize) {
        if let Some(window) = &mut self.window {
            window.consume(consumed);
        }
    }

    /// One read. Before it, what is queued for writing leaves: the peer may wait for it.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.outbox.poll_before_read(cx).is_pending() {
            return self.poll_timers(cx, false);
        }
        self.make_room();
        if self.window.as_ref().is_none_or(|window| window.spare_len() == 0) {
            ready!(self.poll_window(cx))?;
        }
        let Some(window) = &mut self.window else { return Poll::Ready(Ok(())) };
        let exact = (self.needed as usize).saturating_sub(window.len());
        let last = self.last_size as usize;
        let room = window.spare();
        let limit = if exact >= MAX_READ_WINDOW {
            // A frame in a block of its own ends where the block's reads end, so that nothing behind it has to move.
            exact.min(room.len())
        } else if last >= VECTORED_THRESHOLD && exact + last <= room.len() {
            // As many as fit of frames like the last: one that is cut off would have to be moved.
            room.len() - (room.len() - exact) % last
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
    fn park(&mut self) {
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
    fn read_error(&mut self, error: std::io::Error) -> Result<()> {
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
    fn poll_window(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
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
    fn make_room(&mut self) {
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
    fn is_large(len: usize, needed: usize, last_size: usize) -> bool {
        len > MAX_READ_WINDOW / 2 || needed > MAX_READ_WINDOW || last_size > MAX_READ_WINDOW
    }

    /// Moves what is unread to the front or to another block, so that there is room for more. Never moves it for
    /// nothing: a frame that comes in small pieces is copied a few times in all, not once for each piece.
    #[cold]
    fn relocate(&mut self) {
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

    /// Waits for the earlier of the two deadlines, if any is set.
    #[inline]
    fn poll_timers(&mut self, cx: &mut Context<'_>, listening: bool) -> Poll<Result<()>> {
        if self.timers.is_none() { Poll::Pending } else { self.poll_deadlines(cx, listening) }
    }

    /// Not `listening`, nobody can tell whether the peer is silent.
    fn poll_deadlines(&mut self, cx: &mut Context<'_>, listening: bool) -> Poll<Result<()>> {
        let waiting = self.window.as_ref().is_some_and(|window| !window.is_empty());
        let unfinished = waiting || self.decoder.is_mid_message();
        let settings = &self.outbox.settings;
        let Some(timers) = self.timers.as_deref_mut() else { return Poll::Pending };
        let mut now = None;
        let mut now = || *now.get_or_insert_with(Instant::now);
        let limit = if unfinished {
            settings.frame.map(|after| (Deadline::Frame, after, &mut timers.frame_since))
        } else {
            timers.frame_since = None;
            settings.idle.map(|after| (Deadline::Idle, after, &mut timers.idle_since))
        };
        let limit = limit
            .map(|(deadline, after, since)| (deadline, after, *since.get_or_insert_with(&mut now) + after));
        // Outside a runtime there is no clock to ping by.
        let clock = timers.sleep.is_some() || tokio::runtime::Handle::try_current().is_ok();
        let silence = timers.silence.filter(|_| clock && listening);
        if !listening {
            timers.silent_since = None;
        }
        let silence = silence.map(|after| *timers.silent_since.get_or_insert_with(&mut now) + after);
        let Some(until) = limit.map(|(.., until)| until).into_iter().chain(silence).min() else {
            return Poll::Pending;
        };
        let sleep = timers.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if sleep.deadline() != until {
            sleep.as_mut().reset(until);
        }
        ready!(sleep.as_mut().poll(cx));
        timers.sleep = None;
        match limit {
            Some((deadline, after, at)) if at == until => {
                timers.idle_since = None;
                timers.frame_since = None;
                Poll::Ready(Err(Error::TimedOut { deadline, after }))
            }
            _ => {
                timers.silent_since = None;
                let handled = self.decoder.handle_idle();
                Poll::Ready(match handled {
                    Ok(()) => {
                        if let Some(ping) = self.decoder.poll_reply() {
                            self.outbox.remark(ping);
                        }
                        Ok(())
                    }
                    Err(violation) => Err(self.violation(violation)),
                })
            }
        }
    }

    /// Receives and drops messages until the stream is over: what a peer sends after this side has taken leave.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut messages = 0;
        loop {
            match ready!(self.poll_found(cx)) {
                Ok(found) => {
                    self.lend(found);
                    messages += 1;
                }
                Err(error) if error.is_fatal() => return Poll::Ready(()),
                Err(_) => messages += 1,
            }
            if messages == MESSAGES_PER_POLL {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// After a breach of the framing: reads and drops bytes until the peer has ended the stream too. A socket that is
    /// closed with unread bytes is reset, and the last word on its way to the peer is lost with it.
    pub(super) fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !matches!(self.state, State::Broken(_)) {
            return Poll::Ready(());
        }
        let mut bytes = [0; LINGER_READ];
        for _ in 0..READS_PER_POLL {
            let mut target = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut self.reader).poll_read(cx, &mut target)) {
                Ok(()) if !target.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The future of [`Receiver::receive_lent`]. A plain struct, so that a message that is here already costs no state
/// machine.
#[must_use = "futures do nothing unless awaited"]
pub struct ReceiveLent<'a, D, R, W: AsyncWrite + Unpin + Send + 'static> {
    receiver: Option<&'a mut Receiver<D, R, W>>,
}

impl<'a, D, R, W> Future for ReceiveLent<'a, D, R, W>
where
    D: Decode,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    type Output = Result<&'a mut [u8]>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Polled again after it was ready: there is nothing to give.
        let Some(receiver) = self.receiver.take() else { return Poll::Pending };
        match receiver.poll_next(cx) {
            Poll::Ready(Ok(found)) => Poll::Ready(Ok(receiver.lend(found))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.receiver = Some(receiver);
                Poll::Pending
            }
        }
    }
}

/// The future of [`Receiver::receive_with_kind`].
#[must_use = "futures do nothing unless awaited"]
pub struct ReceiveWithKind<'a, D, R, W: AsyncWrite + Unpin + Send + 'static> {
    receiver: Option<&'a mut Receiver<D, R, W>>,
}

impl<'a, D, R, W> Future for ReceiveWithKind<'a, D, R, W>
where
    D: Decode,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    type Output = Result<(Kind, &'a mut [u8])>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(receiver) = self.receiver.take() else { return Poll::Pending };
        match receiver.poll_next(cx) {
            Poll::Ready(Ok(found)) => Poll::Ready(Ok((receiver.decoder.kind(), receiver.lend(found)))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.receiver = Some(receiver);
                Poll::Pending
            }
        }
    }
}

impl<D, R, W: AsyncWrite + Unpin + Send + 'static> fmt::Debug for ReceiveWithKind<'_, D, R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveWithKind").finish_non_exhaustive()
    }
}

/// The future of [`Receiver::receive`].
#[must_use = "futures do nothing unless awaited"]
pub struct Receive<'a, D, R, W: AsyncWrite + Unpin + Send + 'static> {
    receiver: &'a mut Receiver<D, R, W>,
}

impl<D, R, W> Future for Receive<'_, D, R, W>
where
    D: Decode,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    type Output = Result<Frame>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let receiver = &mut *self.receiver;
        let found = ready!(receiver.poll_next(cx))?;
        Poll::Ready(Ok(receiver.cut(found)))
    }
}

impl<D, R, W: AsyncWrite + Unpin + Send + 'static> fmt::Debug for ReceiveLent<'_, D, R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveLent").finish_non_exhaustive()
    }
}

impl<D, R, W: AsyncWrite + Unpin + Send + 'static> fmt::Debug for Receive<'_, D, R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receive").finish_non_exhaustive()
    }
}

impl<D: fmt::Debug, R: fmt::Debug, W: AsyncWrite + Unpin + Send + 'static> fmt::Debug for Receiver<D, R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("decoder", &self.decoder)
            .field("reader", &self.reader)
            .field("window", &self.window)
            .field("state", &self.state)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
