//! [`Sender`]: the sending half of a link, and [`Permit`].

use std::{
    future::{Future, poll_fn},
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{io::AsyncWrite, task::coop::poll_proceed, time::Sleep};

use super::{
    config::Counters,
    outbox::{Enqueued, Leave, SendingHalf, Through},
    receiver::MESSAGES_PER_TURN,
};
use crate::{
    Error, Frame, Result,
    codec::Encode,
    error::{Deadline, End, Rejection},
};

/// The sending half of a [`Link`](super::Link).
#[derive(Debug)]
pub struct Sender<E, W: AsyncWrite + Unpin + Send + 'static> {
    pub(super) encoder: E,
    pub(super) outbox: SendingHalf<W>,
    /// Messages accepted. Not `Counters`: an idle link is to be small.
    frames: u64,
    /// How many frames are accepted when this task next asks whether others wait.
    turn_ends: u64,
    /// Payload bytes accepted. Apart from the messages: of neighbours compilers make a vector, which costs more here.
    bytes: u64,
    closing: Option<Pin<Box<Sleep>>>,
}

impl<E: Encode, W: AsyncWrite + Unpin + Send + 'static> Sender<E, W> {
    pub(super) fn new(encoder: E, outbox: SendingHalf<W>) -> Self {
        Self { encoder, outbox, frames: 0, turn_ends: MESSAGES_PER_TURN, bytes: 0, closing: None }
    }

    /// Queues one message and lets it leave by itself, at the latest when this task next waits for anything: messages
    /// sent without a wait between them share one write. From 4 KiB on the payload is written where it lies; what the
    /// kernel does not take at once is copied.
    ///
    /// Waits only while the write backlog is at its high-water mark.
    ///
    /// Outside a tokio runtime nothing can leave by itself; the call then waits for the write instead.
    ///
    /// # Errors
    /// [`Error::Rejected`] when the codec cannot carry the payload (the link is untouched); [`Error::Ended`],
    /// [`Error::TimedOut`] or [`Error::Io`] when the link cannot write any more. An error may speak of messages that
    /// were accepted before.
    ///
    /// # Cancel safety
    /// Safe: a message is queued whole or not at all. When the call is dropped before it returns, the message was
    /// not queued (in a tokio runtime).
    #[inline]
    pub fn send<'a>(&'a mut self, payload: &'a [u8]) -> Sending<'a, E, W> {
        Sending { sender: self, payload: Some(payload), leave: Leave::ByItself }
    }

    /// Queues one message, without a lock. It leaves with the next [`send`](Self::send), [`flush`](Self::flush) or
    /// [`close`](Self::close), when this half is dropped, or, on an unsplit [`Link`](super::Link), when that next receives.
    /// From 4 KiB on it is given to the writer at once, as far as that takes it; only the flush is put off.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    #[inline]
    pub fn feed<'a>(&'a mut self, payload: &'a [u8]) -> Sending<'a, E, W> {
        Sending { sender: self, payload: Some(payload), leave: Leave::WhenFlushed }
    }

    /// Sends one message and waits until the operating system has taken it, and all before it: as [`send`](Self::send)
    /// and [`flush`](Self::flush), at the price of one of them.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`flush`](Self::flush), once the message is queued; when the call is dropped before, it was not queued.
    #[inline]
    pub fn send_flushed<'a>(&'a mut self, payload: &'a [u8]) -> Sending<'a, E, W> {
        Sending { sender: self, payload: Some(payload), leave: Leave::Flushed }
    }

    /// Lets other tasks run, once in a while, where the writer always takes everything.
    #[inline]
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.frames < self.turn_ends { Poll::Ready(()) } else { self.poll_next_turn(cx) }
    }

    #[cold]
    fn poll_next_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(poll_proceed(cx)).made_progress();
        // So that the narrow counter beside it is read out.
        self.outbox.give_token_back();
        self.turn_ends = self.frames + MESSAGES_PER_TURN;
        Poll::Ready(())
    }

    #[inline]
    fn try_enqueue(&mut self, payload: &[u8], leave: Leave) -> Result<Enqueued> {
        let enqueued = match leave {
            Leave::ByItself | Leave::Flushed => self.outbox.enqueue(&mut self.encoder, payload, leave)?,
            Leave::WhenFlushed => self.outbox.feed(&mut self.encoder, payload)?,
        };
        if !matches!(enqueued, Enqueued::Full) {
            self.count(payload.len());
        }
        Ok(enqueued)
    }

    #[inline]
    fn count(&mut self, size: usize) {
        self.frames += 1;
        self.bytes += size as u64;
    }

    /// As [`send`](Self::send), for a frame: from 4 KiB on its bytes are never copied.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn send_frame(&mut self, frame: Frame) -> Result<()> {
        poll_fn(|cx| self.poll_turn(cx)).await;
        loop {
            match self.outbox.enqueue_frame(&mut self.encoder, &frame)? {
                Enqueued::Full => poll_fn(|cx| self.poll_ready(cx)).await?,
                Enqueued::Done | Enqueued::Flushed => {
                    self.count(frame.len());
                    return Ok(());
                }
                Enqueued::Unattended => {
                    self.count(frame.len());
                    return self.flush().await;
                }
            }
        }
    }

    /// As [`send`](Self::send), for one message whose payload lies in several places.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn send_vectored(&mut self, parts: &[IoSlice<'_>]) -> Result<()> {
        poll_fn(|cx| self.poll_turn(cx)).await;
        loop {
            let enqueued = self.outbox.enqueue_parts(&mut self.encoder, parts)?;
            if matches!(enqueued, Enqueued::Full) {
                poll_fn(|cx| self.poll_ready(cx)).await?;
                continue;
            }
            self.count(parts.iter().map(|part| part.len()).sum());
            return match enqueued {
                Enqueued::Unattended => self.flush().await,
                Enqueued::Done | Enqueued::Flushed | Enqueued::Full => Ok(()),
            };
        }
    }

    /// Waits for room and returns a permit to send one message of at most `size` bytes, which then cannot wait.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// Safe: nothing has happened when the call is dropped.
    pub async fn reserve(&mut self, size: usize) -> Result<Permit<'_, E, W>> {
        poll_fn(|cx| self.poll_turn(cx)).await;
        poll_fn(|cx| self.poll_ready(cx)).await?;
        Ok(Permit { sender: self, size })
    }

    /// Waits until the operating system has taken everything that was queued.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// Safe: what was queued leaves all the same; the next call goes on waiting for it.
    pub async fn flush(&mut self) -> Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Flushes and shuts the writer down, so that the peer sees the end of the stream. Later sends fail with
    /// [`End::Closed`], or [`End::Eof`] where the peer's end was seen. A second call does nothing.
    ///
    /// With a codec that takes leave by itself (WebSocket's Close frame), the writer is shut down once the peer has taken
    /// leave too, which the receiving half has to be polled to see, or when that half is dropped.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`Error::TimedOut`] with [`Deadline::Close`]: what was still queued is then lost and
    /// the writer closed.
    ///
    /// # Panics
    /// With a deadline for closes, as there is by default, when it has to wait on a tokio runtime whose timer is not
    /// enabled; see [there](crate::link#on-a-runtime-without-a-timer).
    ///
    /// # Cancel safety
    /// Safe: the link is closing from the first poll on and finishes by itself; the next call waits on.
    pub async fn close(&mut self) -> Result<()> {
        poll_fn(|cx| self.poll_close(cx)).await
    }

    /// Bytes queued and not yet taken by the operating system.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.outbox.unwritten()
    }

    /// The encoder.
    pub fn encoder(&self) -> &E {
        &self.encoder
    }

    /// The encoder, to change how the next messages are sent (WebSocket: text or binary).
    pub fn encoder_mut(&mut self) -> &mut E {
        &mut self.encoder
    }

    /// What this half has done.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            frames_sent: self.frames,
            bytes_sent: self.bytes,
            writes: self.outbox.writes(),
            ..Counters::default()
        }
    }

    /// Polls for room below the high-water mark; see [`start_send`](Self::start_send).
    ///
    /// # Errors
    /// When the link cannot write any more.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.outbox.poll_ready(cx)
    }

    /// Queues one message, after [`poll_ready`](Self::poll_ready) has said so; it leaves by itself. Outside a tokio
    /// runtime it leaves with the next [`poll_flush`](Self::poll_flush).
    ///
    /// # Errors
    /// As [`send`](Self::send); [`Rejection::TooLarge`] with the backlog's sizes when there was no room.
    pub fn start_send(&mut self, payload: &[u8]) -> Result<()> {
        match self.try_enqueue(payload, Leave::ByItself)? {
            Enqueued::Done | Enqueued::Flushed | Enqueued::Unattended => Ok(()),
            Enqueued::Full => Err(self.no_room(payload.len())),
        }
    }

    /// As [`start_send`](Self::start_send), for a frame.
    ///
    /// # Errors
    /// As [`start_send`](Self::start_send).
    pub fn start_send_frame(&mut self, frame: &Frame) -> Result<()> {
        match self.outbox.enqueue_frame(&mut self.encoder, frame)? {
            Enqueued::Done | Enqueued::Flushed | Enqueued::Unattended => {
                self.count(frame.len());
                Ok(())
            }
            Enqueued::Full => Err(self.no_room(frame.len())),
        }
    }

    #[cold]
    fn no_room(&self, size: usize) -> Error {
        Rejection::TooLarge { size, limit: self.outbox.high_water().saturating_sub(self.backlog()) }.into()
    }

    /// The poll form of [`flush`](Self::flush).
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.outbox.poll_flush(cx)
    }

    /// The poll form of [`close`](Self::close).
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Poll::Ready(closed) = self.poll_shut(cx) {
            self.closing = None;
            return Poll::Ready(closed);
        }
        let after = ready!(self.poll_close_deadline(cx));
        Poll::Ready(Err(Error::TimedOut { deadline: Deadline::Close, after }))
    }

    /// As [`poll_close`](Self::poll_close), but where the codec takes leave by itself, it is enough that it has: the
    /// peer's own is for who goes on receiving.
    pub(crate) fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let closed = self.poll_close(cx);
        if closed.is_pending() && self.outbox.has_parted() {
            return Poll::Ready(Ok(()));
        }
        closed
    }

    /// Closes, without a deadline.
    pub(super) fn poll_shut(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let encoder = &mut self.encoder;
        self.outbox.poll_close(cx, || encoder.goodbye())
    }

    /// Gives up on a close that takes too long; returns how long it may take.
    pub(super) fn poll_close_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        // Outside a runtime there is no clock to close by.
        let clock = self.closing.is_some() || tokio::runtime::Handle::try_current().is_ok();
        let Some(after) = self.outbox.settings.linger.filter(|_| clock) else { return Poll::Pending };
        let sleep = self.closing.get_or_insert_with(|| Box::pin(tokio::time::sleep(after)));
        ready!(sleep.as_mut().poll(cx));
        self.closing = None;
        self.outbox.abort();
        Poll::Ready(after)
    }
}

/// The future of [`Sender::send`], [`Sender::feed`] and [`Sender::send_flushed`]. A plain struct, so that queueing costs no state machine.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Sending<'a, E, W: AsyncWrite + Unpin + Send + 'static> {
    sender: &'a mut Sender<E, W>,
    /// `None` once it is queued.
    payload: Option<&'a [u8]>,
    leave: Leave,
}

impl<E: Encode, W: AsyncWrite + Unpin + Send + 'static> Future for Sending<'_, E, W> {
    type Output = Result<()>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        if let Some(payload) = this.payload
            && this.sender.frames < this.sender.turn_ends
        {
            let sender = &mut *this.sender;
            let through = match this.leave {
                Leave::ByItself if sender.outbox.join_batch(&mut sender.encoder, payload) => Through::Done,
                Leave::ByItself => Through::No,
                Leave::WhenFlushed if sender.outbox.feed_here(&mut sender.encoder, payload) => Through::Done,
                leave => sender.outbox.write_through(&mut sender.encoder, payload, leave),
            };
            if let Through::Done = through {
                sender.count(payload.len());
                return Poll::Ready(Ok(()));
            }
            return this.poll_after(through, cx);
        }
        this.poll_any(cx)
    }
}

impl<E: Encode, W: AsyncWrite + Unpin + Send + 'static> Sending<'_, E, W> {
    /// Goes on where the frame did not go through at once.
    #[inline(never)]
    fn poll_after(&mut self, through: Through, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match through {
            Through::Failed(error) => return Poll::Ready(Err(*error)),
            Through::Done | Through::Queued => {
                self.sender.count(self.payload.take().map_or(0, <[u8]>::len));
            }
            Through::No => {}
        }
        self.poll_any(cx)
    }

    #[inline(never)]
    fn poll_any(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(payload) = self.payload else { return self.sender.poll_flush(cx) };
        ready!(self.sender.poll_turn(cx));
        loop {
            match self.sender.try_enqueue(payload, self.leave)? {
                Enqueued::Flushed => return Poll::Ready(self.sender.outbox.told_of_loss()),
                Enqueued::Done if self.leave != Leave::Flushed => return Poll::Ready(Ok(())),
                Enqueued::Unattended if self.leave == Leave::WhenFlushed => return Poll::Ready(Ok(())),
                Enqueued::Done | Enqueued::Unattended => {
                    self.payload = None;
                    return self.sender.poll_flush(cx);
                }
                Enqueued::Full => ready!(self.sender.poll_ready(cx))?,
            }
        }
    }
}

/// Room for one message. Using it can neither wait nor be cancelled half-way; dropping it sends nothing.
#[derive(Debug)]
pub struct Permit<'a, E, W: AsyncWrite + Unpin + Send + 'static> {
    sender: &'a mut Sender<E, W>,
    size: usize,
}

impl<E: Encode, W: AsyncWrite + Unpin + Send + 'static> Permit<'_, E, W> {
    /// Queues the message; it leaves by itself, as with [`Sender::send`]. Outside a tokio runtime, where nothing can, it
    /// leaves with the next [`flush`](Sender::flush).
    ///
    /// # Errors
    /// [`Error::Rejected`] when the payload is larger than what was reserved or the codec cannot carry it;
    /// [`Error::Ended`] and the like when the link has failed since.
    pub fn send(self, payload: &[u8]) -> Result<()> {
        if payload.len() > self.size {
            return Err(Rejection::TooLarge { size: payload.len(), limit: self.size }.into());
        }
        match self.sender.try_enqueue(payload, Leave::ByItself)? {
            Enqueued::Done | Enqueued::Flushed | Enqueued::Unattended => Ok(()),
            // Only this half fills the queue, and it is borrowed by this permit.
            Enqueued::Full => Err(Error::Ended(End::Closed)),
        }
    }
}
