//! [`PollTransport`], the object-safe core, and on it the traits [`Transport`] and [`ZeroCopyTransport`].
//!
//! ```text
//!   Transport, ZeroCopyTransport      async, for callers             (blanket, one implementation)
//!        └── PollTransport            poll-based, dyn-safe           (one implementation per transport)
//!              ├── Link<C, R, W>      every stream transport
//!              ├── MemoryTransport, MockTransport
//!              ├── Box<dyn PollTransport>, &mut T
//!              └── layers
//! ```
//!
//! A `Box<dyn PollTransport>` costs a virtual call per message and no allocation: the futures of the async traits are
//! plain structs around `&mut T`.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use super::TransportError;
use crate::{
    Frame, Link, Result,
    buffer::{AcquiredBuffer, BufferManager, ZeroCopyMetrics},
    codec::{Codec, Decode, Encode, Excerpt, Kind},
};

/// The object-safe core of every transport: one message in, one message out, as bytes.
///
/// # Contract
/// - `poll_receive` and `poll_receive_lent` take from the same stream: each message comes out once.
/// - After `poll_ready` has returned `Ok`, or `has_room` true, one `start_send`, `start_send_frame` or `start_feed` is
///   accepted. The message leaves by itself; `poll_flush` waits for it.
/// - Every `poll_*` may be given up at any time without loss; the next call goes on.
pub trait PollTransport: Send + Sync {
    /// Polls for the next message, owned.
    ///
    /// # Errors
    /// See [`Receiver::receive`](crate::link::Receiver::receive).
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame>>;

    /// Polls for the next message, lent until the next call.
    ///
    /// # Errors
    /// See [`Receiver::receive_lent`](crate::link::Receiver::receive_lent).
    fn poll_receive_lent(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut [u8]>>;

    /// As [`poll_receive_lent`](Self::poll_receive_lent), with what the message says that it is.
    ///
    /// # Errors
    /// As [`poll_receive_lent`](Self::poll_receive_lent).
    fn poll_receive_with_kind(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Kind, &mut [u8])>> {
        self.poll_receive_lent(cx).map_ok(|payload| (Kind::Text, payload))
    }

    /// Sends messages as `kind` from the next one on, where the transport can say so.
    fn set_kind(&mut self, kind: Kind) {
        let _no_such_thing_by_default = kind;
    }

    /// Polls for room for one message.
    ///
    /// # Errors
    /// When the transport cannot send any more.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;

    /// Whether it is known without polling that [`poll_ready`](Self::poll_ready) would say yes. For who queues many: to
    /// poll may cost a write each time.
    fn has_room(&self) -> bool {
        false
    }

    /// Queues one message.
    ///
    /// # Errors
    /// When the message cannot be sent; nothing of it was then queued.
    fn start_send(&mut self, payload: &[u8]) -> Result<()>;

    /// Queues one message that is owned: it need not be copied.
    ///
    /// # Errors
    /// As [`start_send`](Self::start_send).
    fn start_send_frame(&mut self, frame: &Frame) -> Result<()> {
        self.start_send(frame)
    }

    /// As [`start_send`](Self::start_send) for one who is about to flush: the message need not leave by itself.
    ///
    /// # Errors
    /// As [`start_send`](Self::start_send).
    fn start_feed(&mut self, payload: &[u8]) -> Result<()> {
        self.start_send(payload)
    }

    /// Polls until everything queued is written.
    ///
    /// # Errors
    /// When it cannot be.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;

    /// Flushes and tells the peer that no more comes; receiving goes on. Later sends fail with
    /// [`End::Closed`](crate::error::End::Closed). A transport that cannot end one direction alone only flushes.
    ///
    /// # Errors
    /// When what was queued could not be written.
    fn poll_close_sending(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_flush(cx)
    }

    /// Whether [`poll_close_sending`](Self::poll_close_sending) has the peer end its direction too, so that answers under
    /// way may be lost with it.
    fn ends_both_ways(&self) -> bool {
        false
    }

    /// Flushes and closes. Later calls of anything fail with [`End::Closed`](crate::error::End::Closed), or with the end
    /// that was seen before, but for this one.
    ///
    /// # Errors
    /// When what was queued could not be written.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;

    /// Whether the transport has not ended, as far as is known without asking the peer.
    fn is_connected(&self) -> bool {
        true
    }

    /// What kind of transport this is.
    fn transport_type(&self) -> &'static str {
        "unknown"
    }

    /// What is left of the message that was dropped last as it was too large
    /// ([`Fault::TooLarge`](crate::error::Fault::TooLarge)); `None` where nothing of it is kept.
    fn excerpt(&self) -> Option<Excerpt<'_>> {
        None
    }

    /// Where its buffers come from.
    fn buffers(&self) -> &BufferManager {
        BufferManager::shared()
    }
}

impl<C, R, W> PollTransport for Link<C, R, W>
where
    C: Codec,
    C::Decoder: Decode + Send + Sync,
    C::Encoder: Encode + Send + Sync,
    R: AsyncRead + Unpin + Send + Sync,
    W: AsyncWrite + Unpin + Send + 'static,
{
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame>> {
        self.halves().1.poll_receive(cx)
    }

    fn poll_receive_lent(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut [u8]>> {
        self.halves().1.poll_receive_lent(cx)
    }

    fn poll_receive_with_kind(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Kind, &mut [u8])>> {
        self.halves().1.poll_receive_with_kind(cx)
    }

    fn set_kind(&mut self, kind: Kind) {
        self.encoder_mut().set_kind(kind);
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.halves().0.poll_ready(cx)
    }

    fn has_room(&self) -> bool {
        Self::has_room(self)
    }

    fn start_send(&mut self, payload: &[u8]) -> Result<()> {
        self.halves().0.start_send(payload)
    }

    fn start_send_frame(&mut self, frame: &Frame) -> Result<()> {
        self.halves().0.start_send_frame(frame)
    }

    fn start_feed(&mut self, payload: &[u8]) -> Result<()> {
        let sender = self.halves().0;
        // It waits only where there is no room, which the caller has excluded; else the refusal says so.
        match pin!(sender.feed(payload)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(fed) => fed,
            Poll::Pending => self.start_send(payload),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.halves().0.poll_flush(cx)
    }

    fn poll_close_sending(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.halves().0.poll_goodbye(cx)
    }

    fn ends_both_ways(&self) -> bool {
        self.takes_leave()
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Self::poll_close(self, cx)
    }

    fn is_connected(&self) -> bool {
        !self.is_ended()
    }

    fn transport_type(&self) -> &'static str {
        Self::transport_type(self)
    }

    fn excerpt(&self) -> Option<Excerpt<'_>> {
        self.decoder().excerpt()
    }

    fn buffers(&self) -> &BufferManager {
        self.buffer_manager()
    }
}

macro_rules! forward {
    () => {
        fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame>> {
            (**self).poll_receive(cx)
        }

        fn poll_receive_lent(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut [u8]>> {
            (**self).poll_receive_lent(cx)
        }

        fn poll_receive_with_kind(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Kind, &mut [u8])>> {
            (**self).poll_receive_with_kind(cx)
        }

        fn set_kind(&mut self, kind: Kind) {
            (**self).set_kind(kind);
        }

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
            (**self).poll_ready(cx)
        }

        fn has_room(&self) -> bool {
            (**self).has_room()
        }

        fn start_send(&mut self, payload: &[u8]) -> Result<()> {
            (**self).start_send(payload)
        }

        fn start_send_frame(&mut self, frame: &Frame) -> Result<()> {
            (**self).start_send_frame(frame)
        }

        fn start_feed(&mut self, payload: &[u8]) -> Result<()> {
            (**self).start_feed(payload)
        }

        fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
            (**self).poll_flush(cx)
        }

        fn poll_close_sending(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
            (**self).poll_close_sending(cx)
        }

        fn ends_both_ways(&self) -> bool {
            (**self).ends_both_ways()
        }

        fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
            (**self).poll_close(cx)
        }

        fn is_connected(&self) -> bool {
            (**self).is_connected()
        }

        fn transport_type(&self) -> &'static str {
            (**self).transport_type()
        }

        fn excerpt(&self) -> Option<Excerpt<'_>> {
            (**self).excerpt()
        }

        fn buffers(&self) -> &BufferManager {
            (**self).buffers()
        }
    };
}

impl<T: PollTransport + ?Sized> PollTransport for Box<T> {
    forward!();
}

impl<T: PollTransport + ?Sized> PollTransport for &mut T {
    forward!();
}

/// A transport as AIRS has it: raw messages in, raw messages out.
///
/// Implemented for every [`PollTransport`]. Its `send` returns when the message is written; a [`Link`]'s own `send`
/// queues and lets it leave by itself, which is many times cheaper for answers to a batch.
pub trait Transport: Send + Sync {
    /// The error of this transport.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Sends one message and waits until it is written.
    ///
    /// # Errors
    /// `Closed` after the end or after [`close`](Self::close); the codec's refusals; I/O errors.
    ///
    /// # Cancel safety
    /// Safe: the message leaves whole or not at all. It leaves if the call waited for the write, and does not if it
    /// waited for room.
    fn send(&mut self, message: &[u8]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Waits for exactly one message.
    ///
    /// # Errors
    /// `Closed` at the end; a fault of one message, after which the next call goes on.
    ///
    /// # Cancel safety
    /// Safe.
    fn receive(&mut self) -> impl Future<Output = Result<Vec<u8>, Self::Error>> + Send;

    /// Flushes and closes. A second call does nothing; later sends and receives fail with `Closed`.
    ///
    /// # Errors
    /// When what was queued could not be written.
    ///
    /// # Cancel safety
    /// Safe.
    fn close(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// A transport that sends from and receives into memory of the caller.
pub trait ZeroCopyTransport: Transport {
    /// Sends one message from the caller's bytes and waits until it is written. One newline at the very end is taken
    /// for the caller's own framing and left out.
    ///
    /// # Errors
    /// As [`Transport::send`].
    ///
    /// # Cancel safety
    /// As [`Transport::send`].
    fn send_bytes(&mut self, bytes: &[u8]) -> impl Future<Output = Result<(), TransportError>> + Send;

    /// Waits for one message, puts it into `buffer` (cleared first) and returns its length in bytes.
    ///
    /// # Errors
    /// As [`Transport::receive`]; `buffer` is then as it was.
    ///
    /// # Cancel safety
    /// Safe.
    fn receive_into_buffer(
        &mut self,
        buffer: &mut BytesMut,
    ) -> impl Future<Output = Result<usize, TransportError>> + Send;

    /// A buffer from the transport's pool: a `BytesMut` that goes back when it is dropped.
    ///
    /// # Errors
    /// `Timeout` when none came free in time.
    ///
    /// # Cancel safety
    /// Safe.
    fn acquire_buffer(&self) -> impl Future<Output = Result<AcquiredBuffer, TransportError>> + Send;

    /// What the transport's pool has done.
    fn get_zero_copy_metrics(&self) -> ZeroCopyMetrics;
}

impl<T: PollTransport + ?Sized> Transport for T {
    type Error = TransportError;

    async fn send(&mut self, message: &[u8]) -> Result<(), TransportError> {
        poll_fn(|cx| self.poll_ready(cx)).await?;
        self.start_send(message)?;
        Ok(poll_fn(|cx| self.poll_flush(cx)).await?)
    }

    async fn receive(&mut self) -> Result<Vec<u8>, TransportError> {
        poll_fn(|cx| {
            let payload = ready!(self.poll_receive_lent(cx))?;
            Poll::Ready(Ok(payload.to_vec()))
        })
        .await
    }

    async fn close(&mut self) -> Result<(), TransportError> {
        Ok(poll_fn(|cx| self.poll_close(cx)).await?)
    }
}

impl<T: PollTransport + ?Sized> ZeroCopyTransport for T {
    async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        let message = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        Transport::send(self, message).await?;
        self.buffers().record_zero_copy_send(message.len()).await;
        Ok(())
    }

    async fn receive_into_buffer(&mut self, buffer: &mut BytesMut) -> Result<usize, TransportError> {
        let size = poll_fn(|cx| {
            let payload = ready!(self.poll_receive_lent(cx))?;
            buffer.clear();
            buffer.extend_from_slice(payload);
            Poll::Ready(Ok::<_, TransportError>(payload.len()))
        })
        .await?;
        self.buffers().record_zero_copy_receive(size).await;
        Ok(size)
    }

    async fn acquire_buffer(&self) -> Result<AcquiredBuffer, TransportError> {
        self.buffers().acquire_buffer().await
    }

    fn get_zero_copy_metrics(&self) -> ZeroCopyMetrics {
        self.buffers().get_zero_copy_metrics()
    }
}
