//! [`Receiver`]: the receiving half of a link: its calls here, what they are made of in the modules below.

mod deadlines;
mod finding;
mod futures;
mod reading;

use std::{
    fmt,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep},
};

pub use self::futures::{Receive, ReceiveLent, ReceiveWithKind};
use super::{
    config::Counters,
    outbox::{Failure, Half},
};
use crate::{
    Frame, Result,
    buffer::{Waiter, Window},
    codec::{Decode, Kind},
    error::{End, Fault, Violation},
    limits::MAX_READ_WINDOW,
};

/// Reads that brought no frame after which one poll lets other tasks run.
const READS_PER_POLL: u32 = 32;

/// Messages that cost one unit of the task's budget (tokio's cooperative scheduling): where messages always wait, other
/// tasks get their turn after some thousands.
pub(super) const MESSAGES_PER_TURN: u64 = 64;

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
    /// Or [`PRODUCED`](Self::PRODUCED).
    consumed: usize,
}

impl Found {
    /// For [`consumed`](Self::consumed): the payload is not in the window but with the decoder. A flag beside the sizes would
    /// be copied byte by byte.
    const PRODUCED: usize = usize::MAX;

    fn produced() -> Self {
        Self { payload: 0..0, consumed: Self::PRODUCED }
    }
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
    /// [`Error::Ended`](crate::Error::Ended) at the end of the stream; [`Error::Fault`](crate::Error::Fault) for one bad
    /// message, after which the next call goes on; see [`Error::is_fatal`](crate::Error::is_fatal).
    ///
    /// # Panics
    /// With a deadline or a WebSocket's keep-alive, when it has to wait on a tokio runtime whose timer is not enabled; see
    /// [there](crate::link#on-a-runtime-without-a-timer). So do all forms of it.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost when the call is dropped before it returns.
    #[inline]
    pub fn receive_lent(&mut self) -> ReceiveLent<'_, D, R, W> {
        ReceiveLent { receiver: Some(self) }
    }

    /// Waits for the next message and returns it owned, without copying it, except that a message much smaller than
    /// the block it lies in is moved to a small one (see [`PIN_FACTOR`](crate::limits::PIN_FACTOR)).
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
