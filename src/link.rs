//! [`Link`]: one codec paired with one I/O pair, and the only driver there is.
//!
//! May use `codec`, `buffer`, `frame`, `error`, `limits` and tokio's I/O traits; transports, layers and the gateway use
//! it.
//!
//! ```text
//!              ┌───────────────────────── Link ─────────────────────────┐
//!  R ─read──▶ window ─decode─▶ frame ─▶ receive_lent / receive / receive_into_buffer / receive_batch
//!              │                                                        │
//!  W ◀─write─ outbox ◀─encode─ payload ◀─ send / feed / send_frame / send_vectored / reserve
//!              └────────────────────────────────────────────────────────┘
//! ```
//!
//! # Which receive form
//! | form | the bytes | costs |
//! |---|---|---|
//! | [`receive_lent`](Link::receive_lent) | `&mut [u8]` until the next call | nothing |
//! | [`receive`](Link::receive) | an owned [`Frame`] | a reference, or a copy below 512 bytes |
//! | [`receive_into_buffer`](Link::receive_into_buffer) | in your `BytesMut` | one copy |
//! | [`receive_batch`](Link::receive_batch) | all that one read brought | as `receive`, one wait for all |
//!
//! # When a message leaves
//! [`send`](Link::send) queues it and returns. It leaves with everything queued beside it in one write: when this link
//! next reads, or when a small task of the link next runs, which is as soon as the sending task waits for anything. So a
//! loop that answers what one read brought makes one write, and yet no answer waits for a slow handler.
//! [`feed`](Link::feed) queues without that promise; [`flush`](Link::flush) waits until the system has taken everything;
//! [`send_flushed`](Link::send_flushed) does both at once.
//!
//! # How a stream ends
//! | what happened | what `receive` returns, now and from then on |
//! |---|---|
//! | the peer ended between two messages | [`End::Eof`](crate::error::End::Eof) |
//! | the peer ended inside a message | [`Fault::Truncated`] or the rest as a message, by the codec's policy, then `Eof` |
//! | reset, broken pipe | [`End::Reset`](crate::error::End::Reset) |
//! | this side closed | [`End::Closed`](crate::error::End::Closed), unless an end was seen before |
//! | the framing was broken | that [`Violation`](crate::error::Violation) |
//!
//! # On a runtime without a timer
//! A tokio runtime can be built without `enable_time`, and tokio does not tell whether it was: whatever would wait for a
//! time panics there. A link waits for none when it is made so:
//!
//! | by default | without a timer |
//! |---|---|
//! | a close, and what a dropped link still has to write, may take 5 s | [`LinkConfig::close`]`(None)`; else closing panics when it has to wait, and the rest of a dropped link is lost |
//! | a WebSocket pings a silent peer | [`WebSocket::keep_alive`](crate::codec::WebSocket::keep_alive)`(None)`; else receiving panics when it has to wait |
//! | no other deadline | leave it so |
//!
//! What is left: to wait for a block while all that the pool may lend are lent panics. Outside of any runtime there are
//! no deadlines, and nothing panics.

use std::{
    fmt,
    future::poll_fn,
    io::IoSlice,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Error, Frame, Result,
    buffer::BufferManager,
    codec::{Codec, Encode},
    error::{Deadline, Fault},
};

mod config;
mod outbox;
mod receiver;
mod sender;

pub use config::{Counters, LinkConfig};
pub use receiver::{Receive, ReceiveLent, ReceiveWithKind, Receiver};
pub use sender::{Permit, Sender, Sending};

use outbox::Outbox;

/// One codec on one pair of a byte reader and a byte writer.
///
/// `R` and `W` are tokio's `AsyncRead` and `AsyncWrite`; see the [module](self) for what happens between them.
pub struct Link<C: Codec, R, W: AsyncWrite + Unpin + Send + 'static> {
    sender: Sender<C::Encoder, W>,
    receiver: Receiver<C::Decoder, R, W>,
}

/// The two halves of a link.
pub type Halves<C, R, W> = (Sender<<C as Codec>::Encoder, W>, Receiver<<C as Codec>::Decoder, R, W>);

/// The two halves of a link, borrowed from it.
pub type BorrowedHalves<'a, C, R, W> =
    (&'a mut Sender<<C as Codec>::Encoder, W>, &'a mut Receiver<<C as Codec>::Decoder, R, W>);

/// What a link was made of, and what was under way in it.
#[non_exhaustive]
pub struct Parts<C: Codec, R, W> {
    /// The decoder, in the state it was in.
    pub decoder: C::Decoder,
    /// The encoder.
    pub encoder: C::Encoder,
    /// The reader.
    pub reader: R,
    /// The writer; `None` when it was shut down.
    pub writer: Option<W>,
    /// A faulty message that was found and not yet told of; its bytes are gone.
    pub fault: Option<Fault>,
    /// Bytes read and not yet delivered, framing included.
    pub unread: Frame,
    /// Bytes accepted for sending and not yet written, framing included, in order.
    pub unsent: Vec<Frame>,
}

impl<C, R, W> Link<C, R, W>
where
    C: Codec,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    /// Pairs `codec` with `reader` and `writer`, with the default [`LinkConfig`].
    #[must_use]
    pub fn pair(codec: C, reader: R, writer: W) -> Self {
        Self::with_config(codec, reader, writer, LinkConfig::default())
    }

    /// Pairs `codec` with `reader` and `writer`.
    #[must_use]
    pub fn with_config(codec: C, reader: R, writer: W, config: LinkConfig) -> Self {
        let (decoder, encoder) = codec.split();
        let (outbox, other) = Outbox::shared_by_halves(writer, &config);
        let receiver = Receiver::new(decoder, reader, other, &config);
        let sender = Sender::new(encoder, outbox);
        Self { sender, receiver }
    }

    /// Pairs `codec` with `reader` and `writer`, where `unread` was read already: it comes before all that `reader`
    /// brings.
    ///
    /// # Errors
    /// [`Error::Io`] when there is no memory for `unread`.
    pub fn with_unread(codec: C, reader: R, writer: W, config: LinkConfig, unread: &[u8]) -> Result<Self> {
        let mut link = Self::with_config(codec, reader, writer, config);
        if link.receiver.put_unread(unread) {
            Ok(link)
        } else {
            Err(Error::Io(std::io::ErrorKind::OutOfMemory.into()))
        }
    }

    /// Takes the halves apart, for two tasks. They share nothing that one could make the other wait for, but that a
    /// backlog of writes pauses reading.
    #[must_use]
    pub fn split(self) -> Halves<C, R, W> {
        let Self { mut sender, receiver } = self;
        sender.outbox.be_divided();
        (sender, receiver)
    }

    /// Puts two halves together again; gives them back when they are not of the same link.
    ///
    /// # Errors
    /// The halves, unchanged.
    #[allow(clippy::result_large_err)] // the caller gets back what it gave
    pub fn unsplit(
        sender: Sender<C::Encoder, W>,
        receiver: Receiver<C::Decoder, R, W>,
    ) -> Result<Self, Halves<C, R, W>> {
        if sender.outbox.is_of_the_same_link(&receiver.outbox) {
            Ok(Self { sender, receiver })
        } else {
            Err((sender, receiver))
        }
    }

    /// Takes the link apart, with everything that was under way in it.
    #[must_use]
    pub fn into_parts(self) -> Parts<C, R, W> {
        let Self { mut sender, mut receiver } = self;
        let (writer, unsent) = sender.outbox.take_writer();
        let fault = receiver.take_fault();
        let unread = receiver.take_unread();
        Parts {
            decoder: receiver.decoder,
            encoder: sender.encoder,
            reader: receiver.reader,
            writer,
            fault,
            unread,
            unsent,
        }
    }

    /// See [`Receiver::receive`].
    ///
    /// # Errors
    /// See there.
    ///
    /// # Cancel safety
    /// Safe.
    #[inline]
    pub fn receive(&mut self) -> Receive<'_, C::Decoder, R, W> {
        self.sender.outbox.hand_over();
        self.receiver.receive()
    }

    /// See [`Receiver::receive_lent`].
    ///
    /// # Errors
    /// See there.
    ///
    /// # Cancel safety
    /// Safe.
    #[inline]
    pub fn receive_lent(&mut self) -> ReceiveLent<'_, C::Decoder, R, W> {
        self.sender.outbox.hand_over();
        self.receiver.receive_lent()
    }

    /// See [`Receiver::receive_with_kind`].
    ///
    /// # Errors
    /// See there.
    ///
    /// # Cancel safety
    /// Safe.
    pub fn receive_with_kind(&mut self) -> ReceiveWithKind<'_, C::Decoder, R, W> {
        self.sender.outbox.hand_over();
        self.receiver.receive_with_kind()
    }

    /// See [`Receiver::receive_into_buffer`].
    ///
    /// # Errors
    /// See there.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn receive_into_buffer(&mut self, buffer: &mut BytesMut) -> Result<usize> {
        self.sender.outbox.hand_over();
        self.receiver.receive_into_buffer(buffer).await
    }

    /// See [`Receiver::receive_batch`].
    ///
    /// # Errors
    /// See there.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn receive_batch(&mut self, frames: &mut Vec<Frame>, max: usize) -> Result<usize> {
        self.sender.outbox.hand_over();
        self.receiver.receive_batch(frames, max).await
    }

    /// See [`Receiver::receive_ready`].
    ///
    /// # Errors
    /// See there.
    #[inline]
    pub fn receive_ready(&mut self) -> Result<Option<&mut [u8]>> {
        self.sender.outbox.give_token_back();
        self.receiver.receive_ready()
    }

    /// See [`Sender::send`].
    ///
    /// # Errors
    /// See there.
    ///
    /// # Cancel safety
    /// Safe.
    #[inline]
    pub fn send<'a>(&'a mut self, payload: &'a [u8]) -> Sending<'a, C::Encoder, W> {
        self.sender.send(payload)
    }

    /// See [`Sender::send_frame`].
    ///
    /// # Errors
    /// See there.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn send_frame(&mut self, frame: Frame) -> Result<()> {
        self.sender.send_frame(frame).await
    }

    /// See [`Sender::send_vectored`].
    ///
    /// # Errors
    /// See there.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn send_vectored(&mut self, parts: &[IoSlice<'_>]) -> Result<()> {
        self.sender.send_vectored(parts).await
    }

    /// See [`Sender::feed`].
    ///
    /// # Errors
    /// See there.
    ///
    /// # Cancel safety
    /// Safe.
    #[inline]
    pub fn feed<'a>(&'a mut self, payload: &'a [u8]) -> Sending<'a, C::Encoder, W> {
        self.sender.outbox.be_undivided();
        self.sender.feed(payload)
    }

    /// See [`Sender::send_flushed`].
    ///
    /// # Errors
    /// See there.
    ///
    /// # Cancel safety
    /// Safe.
    #[inline]
    pub fn send_flushed<'a>(&'a mut self, payload: &'a [u8]) -> Sending<'a, C::Encoder, W> {
        self.sender.outbox.be_undivided();
        self.sender.send_flushed(payload)
    }

    /// See [`Sender::reserve`].
    ///
    /// # Errors
    /// See there.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn reserve(&mut self, size: usize) -> Result<Permit<'_, C::Encoder, W>> {
        self.sender.reserve(size).await
    }

    /// See [`Sender::flush`].
    ///
    /// # Errors
    /// See there.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn flush(&mut self) -> Result<()> {
        self.sender.flush().await
    }

    /// Flushes, shuts the writer down and ends receiving: later calls fail with
    /// [`End::Closed`](crate::error::End::Closed), or with the end that was seen before. With a codec that takes leave by itself (WebSocket's Close frame), waits
    /// for the peer's too, and drops messages that come before it. See [`Sender::close`].
    ///
    /// # Errors
    /// See there.
    ///
    /// # Panics
    /// See there.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn close(&mut self) -> Result<()> {
        poll_fn(|cx| self.poll_close(cx)).await
    }

    /// Both halves, to use at once in one task (`select!`).
    pub fn halves(&mut self) -> BorrowedHalves<'_, C, R, W> {
        self.sender.outbox.be_divided();
        (&mut self.sender, &mut self.receiver)
    }

    /// What both halves have done.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.sender.counters().merged(self.receiver.counters())
    }

    /// The poll form of [`receive`](Self::receive).
    ///
    /// # Errors
    /// As there.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame>> {
        self.sender.outbox.hand_over();
        self.receiver.poll_receive(cx)
    }

    /// The poll form of [`close`](Self::close).
    ///
    /// # Errors
    /// As there.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut shut = self.sender.poll_shut(cx);
        if shut.is_pending() && self.sender.outbox.is_parting() && self.receiver.poll_discard(cx).is_ready() {
            shut = self.sender.poll_shut(cx);
        }
        let peer_is_awaited = match &shut {
            Poll::Pending => self.sender.outbox.is_parting(),
            Poll::Ready(Ok(())) => self.receiver.poll_linger(cx).is_pending(),
            Poll::Ready(Err(_)) => false,
        };
        if !peer_is_awaited {
            self.receiver.close();
            if shut.is_ready() {
                return shut;
            }
        }
        let after = ready!(self.sender.poll_close_deadline(cx));
        self.receiver.close();
        match shut {
            // All is written; only the peer has not ended the stream in time.
            Poll::Ready(shut) => Poll::Ready(shut),
            Poll::Pending => Poll::Ready(Err(Error::TimedOut { deadline: Deadline::Close, after })),
        }
    }

    /// Whether another message may be queued now, or its refusal would not be for want of room. Asks nobody and writes
    /// nothing, unlike [`Sender::poll_ready`].
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.sender.outbox.unwritten() < self.sender.outbox.high_water()
    }

    /// Whether the codec takes leave by itself, upon which the peer ends its direction too (WebSocket).
    pub(crate) fn takes_leave(&self) -> bool {
        self.sender.encoder().takes_leave()
    }

    /// Whether the stream is over, as far as this link has seen.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.receiver.is_ended()
    }

    /// What kind of transport this is, as its configuration says.
    #[must_use]
    pub fn transport_type(&self) -> &'static str {
        self.receiver.outbox.settings.transport_type
    }

    /// Where this link's buffers come from.
    #[must_use]
    pub fn buffer_manager(&self) -> &BufferManager {
        &self.receiver.outbox.buffers
    }

    /// The decoder.
    pub fn decoder(&self) -> &C::Decoder {
        &self.receiver.decoder
    }

    /// The decoder, to change how the next messages are received.
    pub fn decoder_mut(&mut self) -> &mut C::Decoder {
        self.receiver.decoder_mut()
    }

    /// The encoder, to change how the next messages are sent (WebSocket: text or binary).
    pub fn encoder_mut(&mut self) -> &mut C::Encoder {
        self.sender.encoder_mut()
    }

    /// The reader.
    pub fn reader(&self) -> &R {
        &self.receiver.reader
    }
}

impl<C: Codec, R, W: AsyncWrite + Unpin + Send + 'static> fmt::Debug for Link<C, R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl<C: Codec, R, W> fmt::Debug for Parts<C, R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("unread", &self.unread)
            .field("unsent", &self.unsent)
            .finish_non_exhaustive()
    }
}
