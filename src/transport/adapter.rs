//! [`FrameStream`]: any transport as a [`Stream`] of frames and a [`Sink`] for them, for programs built on those.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use futures_sink::Sink;

use super::PollTransport;
use crate::{Error, Frame, Result};

/// A transport as a `Stream` and a `Sink`.
///
/// The stream ends (`None`) at the clean end of the transport. A fault of one message is an `Err` item, and the stream
/// goes on; after a fatal error it ends. What is put into the sink leaves by itself; `flush` waits for it.
///
/// The sink takes whatever has bytes. Where none are given, as when it is closed, name any such type:
///
/// ```
/// use framewire::transport::{FrameStream, MemoryTransport};
/// use futures::{SinkExt, StreamExt};
///
/// # async fn example() -> framewire::Result<()> {
/// let (near, far) = MemoryTransport::pair();
/// let (mut near, mut far) = (FrameStream::new(near), FrameStream::new(far));
/// near.send("a message").await?;
/// SinkExt::<&str>::close(&mut near).await?;
/// assert_eq!(far.next().await.expect("one")?, "a message");
/// assert!(far.next().await.is_none());
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(example()).unwrap();
/// ```
#[derive(Debug)]
pub struct FrameStream<T> {
    transport: T,
    ended: bool,
}

impl<T: PollTransport> FrameStream<T> {
    /// Wraps `transport`.
    #[must_use]
    pub fn new(transport: T) -> Self {
        Self { transport, ended: false }
    }

    /// The transport. Nothing is buffered in between.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.transport
    }
}

impl<T: PollTransport + Unpin> Stream for FrameStream<T> {
    type Item = Result<Frame>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let received = ready!(self.transport.poll_receive(cx));
        match received {
            Err(error) if error.is_clean_end() => {
                self.ended = true;
                Poll::Ready(None)
            }
            Err(error) if error.is_fatal() => {
                self.ended = true;
                Poll::Ready(Some(Err(error)))
            }
            other => Poll::Ready(Some(other)),
        }
    }
}

impl<T: PollTransport + Unpin, M: AsRef<[u8]>> Sink<M> for FrameStream<T> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.transport.poll_ready(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: M) -> Result<()> {
        self.transport.start_send(message.as_ref())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.transport.poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.transport.poll_close(cx)
    }
}
