//! [`RmcpTransport`]: any transport here as a transport of `rmcp`, the official Rust SDK, in both roles.
//!
//! ```ignore
//! let service = MyServer::default().serve(StdioTransport::new().await?).await?;
//! ```
//!
//! What the SDK's own stdio transport does not do, and this one does: messages are bounded before they are buffered,
//! answers to what one read brought leave in one write, no call goes through a thread pool, and a line that is no
//! message is skipped and not answered (an answer to noise makes reply storms). A request that is JSON-RPC but does not
//! fit the SDK's types is answered with -32600 under its own id, so that its sender does not wait for ever.

use std::{
    fmt,
    future::{Future, poll_fn},
    marker::PhantomData,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use rmcp::{
    service::{RxJsonRpcMessage, ServiceRole, TxJsonRpcMessage},
    transport::IntoTransport,
};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{MemoryTransport, PollTransport};
use crate::{Error, Link, Result, codec::Codec};

/// A [`PollTransport`] in the shape that `rmcp` asks for.
pub struct RmcpTransport<T> {
    shared: Arc<Shared<T>>,
    role: PhantomData<fn()>,
}

struct Shared<T> {
    /// Locked for one poll at a time, never across a wait.
    transport: Mutex<T>,
    /// Sends that found no room and wait for it, one after the other, in order.
    waiting: AtomicUsize,
    turn: tokio::sync::Mutex<()>,
}

impl<T: PollTransport> RmcpTransport<T> {
    /// Wraps `transport`.
    #[must_use]
    pub fn new(transport: T) -> Self {
        let shared = Shared {
            transport: Mutex::new(transport),
            waiting: AtomicUsize::new(0),
            turn: tokio::sync::Mutex::new(()),
        };
        Self { shared: Arc::new(shared), role: PhantomData }
    }
}

impl<T: PollTransport> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, T> {
        self.transport.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends now if there is room and nobody waits for it.
    fn send_now(&self, message: &[u8]) -> Poll<Result<()>> {
        if self.waiting.load(Ordering::Acquire) > 0 {
            return Poll::Pending;
        }
        let mut transport = self.lock();
        ready!(transport.poll_ready(&mut Context::from_waker(Waker::noop())))?;
        Poll::Ready(transport.start_send(message))
    }

    async fn send_in_turn(&self, message: &[u8]) -> Result<()> {
        let _turn = self.turn.lock().await;
        poll_fn(|cx| {
            let mut transport = self.lock();
            ready!(transport.poll_ready(cx))?;
            Poll::Ready(transport.start_send(message))
        })
        .await
    }

    /// The next message that the SDK understands.
    fn poll_message<Role: ServiceRole>(&self, cx: &mut Context<'_>) -> Poll<Option<RxJsonRpcMessage<Role>>> {
        let mut transport = self.lock();
        loop {
            let answer = match ready!(transport.poll_receive_lent(cx)) {
                Ok(payload) => match serde_json::from_slice::<RxJsonRpcMessage<Role>>(payload) {
                    Ok(message) => return Poll::Ready(Some(message)),
                    Err(_) => refusal(payload),
                },
                Err(error) if error.is_fatal() => return Poll::Ready(None),
                // The message is gone; whoever sent it broke a limit. The stream goes on.
                Err(_) => None,
            };
            if let Some(answer) = answer
                && let Poll::Ready(Ok(())) = transport.poll_ready(&mut Context::from_waker(Waker::noop()))
            {
                let _lost_with_the_link = transport.start_send(&answer);
            }
        }
    }
}

/// The answer to a request that is JSON-RPC but not of the SDK's types; `None` when there is nobody to answer.
fn refusal(payload: &[u8]) -> Option<Vec<u8>> {
    let message: Value = serde_json::from_slice(payload).ok()?;
    message.get("method")?;
    let id = message.get("id").filter(|id| id.is_string() || id.is_number())?;
    let answer = serde_json::json!({
        "jsonrpc": "2.0",
        "id": id,
        "error": { "code": -32600, "message": "Invalid Request" },
    });
    Some(answer.to_string().into_bytes())
}

/// Counts a waiting send for as long as it lives, also when it is dropped.
struct Waiting<T>(Arc<Shared<T>>);

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Release);
    }
}

impl<Role: ServiceRole, T: PollTransport + 'static> rmcp::transport::Transport<Role> for RmcpTransport<T> {
    type Error = Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<Role>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        // Queued here and now, in the order of the calls; the future only waits where there is no room.
        let message = serde_json::to_vec(&item).map_err(|error| Error::Io(error.into()));
        let outcome = message.map(|message| (self.shared.send_now(&message), message));
        let waiting = matches!(outcome, Ok((Poll::Pending, _))).then(|| {
            self.shared.waiting.fetch_add(1, Ordering::AcqRel);
            Waiting(Arc::clone(&self.shared))
        });
        async move {
            let (sent, message) = outcome?;
            match (sent, waiting) {
                (Poll::Ready(sent), _) => sent,
                (Poll::Pending, Some(waiting)) => waiting.0.send_in_turn(&message).await,
                (Poll::Pending, None) => Ok(()),
            }
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<Role>> {
        poll_fn(|cx| self.shared.poll_message::<Role>(cx)).await
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        poll_fn(|cx| self.shared.lock().poll_close(cx)).await
    }
}

/// Tells `rmcp`'s conversions apart.
#[derive(Debug)]
#[non_exhaustive]
pub enum TransportAdapterFramewire {}

impl<Role, C, R, W> IntoTransport<Role, Error, TransportAdapterFramewire> for Link<C, R, W>
where
    Role: ServiceRole,
    C: Codec + 'static,
    C::Decoder: Send + Sync,
    C::Encoder: Send + Sync,
    R: AsyncRead + Unpin + Send + Sync + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    fn into_transport(self) -> impl rmcp::transport::Transport<Role, Error = Error> + 'static {
        RmcpTransport::new(self)
    }
}

impl<Role: ServiceRole> IntoTransport<Role, Error, TransportAdapterFramewire> for MemoryTransport {
    fn into_transport(self) -> impl rmcp::transport::Transport<Role, Error = Error> + 'static {
        RmcpTransport::new(self)
    }
}

impl<Role: ServiceRole> IntoTransport<Role, Error, TransportAdapterFramewire> for Box<dyn PollTransport> {
    fn into_transport(self) -> impl rmcp::transport::Transport<Role, Error = Error> + 'static {
        RmcpTransport::new(self)
    }
}

impl<T> fmt::Debug for RmcpTransport<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RmcpTransport").finish_non_exhaustive()
    }
}
