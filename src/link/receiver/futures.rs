//! The futures of [`Receiver`]'s calls, written out: nothing lives in them but the borrow.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Found, Receiver, State};
use crate::{
    Frame, Result,
    codec::{Decode, Kind, Step},
};

/// Polls `$receiver` for the next message and goes on with `$give` where it lies, or with `$late` where it was waited for. A
/// message that is here already comes straight from the decoder to there: a place in memory where it would meet what comes
/// otherwise takes as long as finding it.
macro_rules! poll_message {
    ($receiver:ident, $cx:ident, |$found:ident| $give:expr, $late:expr, $pending:block) => {{
        let polled = if $receiver.counters.frames_received < $receiver.turn_ends
            && matches!($receiver.state, State::Open)
            && let Some(window) = &mut $receiver.window
        {
            match $receiver.decoder.decode(window.unread()) {
                Ok(Step::Frame { payload, consumed }) => {
                    let $found = $receiver.count(Found { payload, consumed });
                    return Poll::Ready(Ok($give));
                }
                other => $receiver.poll_other(other, $cx),
            }
        } else {
            $receiver.poll_found($cx)
        };
        match polled {
            Poll::Ready(Ok($found)) => Poll::Ready(Ok($late)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                $pending
                Poll::Pending
            }
        }
    }};
}

/// The future of [`Receiver::receive_lent`]. A plain struct, so that a message that is here already costs no state
/// machine.
#[must_use = "futures do nothing unless awaited"]
pub struct ReceiveLent<'a, D, R, W: AsyncWrite + Unpin + Send + 'static> {
    pub(super) receiver: Option<&'a mut Receiver<D, R, W>>,
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
        poll_message!(receiver, cx, |found| receiver.lend(found), receiver.lend(found), {
            self.receiver = Some(receiver);
        })
    }
}

/// The future of [`Receiver::receive_with_kind`].
#[must_use = "futures do nothing unless awaited"]
pub struct ReceiveWithKind<'a, D, R, W: AsyncWrite + Unpin + Send + 'static> {
    pub(super) receiver: Option<&'a mut Receiver<D, R, W>>,
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
        poll_message!(
            receiver,
            cx,
            |found| (receiver.decoder.kind(), receiver.lend(found)),
            (receiver.decoder.kind(), receiver.lend(found)),
            {
                self.receiver = Some(receiver);
            }
        )
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
    pub(super) receiver: &'a mut Receiver<D, R, W>,
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
        poll_message!(receiver, cx, |found| receiver.cut(found), receiver.cut_late(found), {})
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
