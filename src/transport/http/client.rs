//! The client: each message sent is a POST, what comes back on any stream is received.
//!
//! ```text
//!  start_send ─▶ outbox ─▶ driver ─▶ pool ─▶ connection        one task, in order
//!                             └─▶ call: status, body or events, resumption    one task each
//!  poll_receive ◀─ inbox ◀────────┘    ◀─ stream that the server sends on by itself (GET)
//! ```
//!
//! Uses `codec::sse`, `json` (the envelope), `io` and hyper.
//!
//! # Promises
//! - Bytes pass as they are, both ways ([`one_line`](HttpClientBuilder::one_line) apart).
//! - Every request that was accepted is answered once: by the server, else by a JSON-RPC error made here, whose `data`
//!   says what is known (`status`, `wwwAuthenticate`, `location`, `reason`, `retryAfter`). One that its sender has
//!   cancelled may stay without an answer.
//! - Nothing is sent twice, but for what the server has refused without looking at it: an unknown session (404), too much
//!   at once (429, 503 with `Retry-After`), a connection that ended before a byte was written.
//! - Nothing passes `initialize` until it is answered, nor a notification until the server has accepted it, but for
//!   responses. Requests leave in their order and do not wait for each other's answers.
//! - A server that is gone ends nothing: requests are answered with errors until it is back.

mod call;
mod config;
mod detect;
mod driver;
mod error;
mod events;
mod inbox;
mod legacy;
mod listen;
mod message;
mod outbox;
mod parameters;
mod pool;
mod session;
mod shared;
mod signal;
mod stateless;
mod stream;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::HeaderName;
use tokio::task::JoinHandle;

pub use self::{
    config::{HttpClientBuilder, HttpClientConfig, HttpClientConfigError},
    detect::Detected,
    error::{CONNECTION_ERROR, HttpClientError, TIMEOUT_ERROR},
    events::{ClientEvent, ClientObserver, ClientStats},
};
use self::{message::Message, shared::Shared};
use crate::{
    Error, Frame, Result,
    endpoint::{Protocol, Url},
    error::{End, Rejection},
    frame::FrameMut,
    transport::PollTransport,
};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

/// Opens transports to servers that speak MCP over HTTP.
#[derive(Debug, Clone, Copy)]
pub struct HttpClient;

impl HttpClient {
    /// Connects to the server at `url` (`http`, `https` or `http+unix`). Opens one connection, which the first message
    /// will use; nothing is sent yet.
    ///
    /// # Errors
    /// When the server cannot be reached, or the URL is for something else.
    ///
    /// # Panics
    /// When called outside a tokio runtime with I/O and time enabled.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the attempt; nothing stays open.
    pub async fn connect(
        url: &Url,
        config: HttpClientConfig,
    ) -> std::result::Result<HttpClientTransport, HttpClientError> {
        let shared = Shared::new(url, config)?;
        let connection = shared.pool.open().await?;
        shared.pool.keep(connection);
        Ok(HttpClientTransport::new(shared))
    }

    /// As [`connect`](Self::connect), but the first message opens the first connection.
    ///
    /// # Errors
    /// When the URL is for something else than HTTP.
    ///
    /// # Panics
    /// When called outside a tokio runtime.
    pub fn lazy(
        url: &Url,
        config: HttpClientConfig,
    ) -> std::result::Result<HttpClientTransport, HttpClientError> {
        Ok(HttpClientTransport::new(Shared::new(url, config)?))
    }
}

fn check(url: &Url) -> std::result::Result<(), HttpClientError> {
    match url.protocol {
        Protocol::Http => Ok(()),
        Protocol::WebSocket => Err(HttpClientError::NotHttp { scheme: url.scheme() }),
    }
}

/// A server behind HTTP, as a transport.
///
/// [`poll_flush`](PollTransport::poll_flush) has nothing to wait for: each message leaves by itself, and what became of a
/// request its answer tells. [`poll_close_sending`](PollTransport::poll_close_sending) lets what is under way be answered,
/// then receiving ends; subscriptions (2026-07-28) end at once. [`poll_close`](PollTransport::poll_close) answers it with errors, which can still be received,
/// and ends the session (DELETE). Dropping the transport does the same in the background.
pub struct HttpClientTransport {
    shared: Arc<Shared>,
    driver: Option<JoinHandle<()>>,
    /// What was lent last.
    lent: Lent,
}

enum Lent {
    Nothing,
    InPlace(FrameMut),
    Copy(BytesMut),
}

impl HttpClientTransport {
    fn new(shared: Arc<Shared>) -> Self {
        let driver = tokio::spawn(driver::run(Arc::clone(&shared)));
        Self { shared, driver: Some(driver), lent: Lent::Nothing }
    }

    /// What has been done so far.
    #[must_use]
    pub fn stats(&self) -> ClientStats {
        self.shared.counters.snapshot()
    }

    fn queue(&self, bytes: Bytes) -> Result<()> {
        let size = bytes.len();
        let limit = self.shared.config.max_message_size;
        if size == 0 {
            return Err(Rejection::Empty.into());
        }
        if size > limit {
            return Err(Rejection::TooLarge { size, limit }.into());
        }
        if self.shared.outbox.is_closed() {
            return Err(Error::Ended(End::Closed));
        }
        let message = Message::new(bytes)?;
        if message.is_request() {
            events::count(&self.shared.counters.requests);
        }
        // Who has asked for room has it.
        if self.shared.outbox.push(message) {
            Ok(())
        } else {
            Err(Rejection::TooLarge { size, limit: 0 }.into())
        }
    }
}

impl PollTransport for HttpClientTransport {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame>> {
        let received = self.shared.inbox.poll_receive(cx);
        if received.is_pending() {
            self.lent = Lent::Nothing;
        }
        received
    }

    fn poll_receive_lent(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut [u8]>> {
        let frame = ready!(self.poll_receive(cx))?;
        self.lent = match frame.try_into_mut() {
            Ok(frame) => Lent::InPlace(frame),
            Err(frame) => Lent::Copy(BytesMut::from(&*frame)),
        };
        Poll::Ready(Ok(match &mut self.lent {
            Lent::Nothing => &mut [],
            Lent::InPlace(frame) => frame,
            Lent::Copy(bytes) => bytes,
        }))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let open = ready!(self.shared.outbox.poll_room(cx));
        Poll::Ready(if open { Ok(()) } else { Err(Error::Ended(End::Closed)) })
    }

    fn has_room(&self) -> bool {
        self.shared.outbox.has_room()
    }

    fn start_send(&mut self, payload: &[u8]) -> Result<()> {
        self.queue(Bytes::copy_from_slice(payload))
    }

    fn start_send_frame(&mut self, frame: &Frame) -> Result<()> {
        self.queue(frame.clone().into())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close_sending(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.shared.outbox.close();
        self.shared.parted.set();
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.shared.close();
        if let Some(driver) = &mut self.driver {
            // It only fails when the runtime goes down, and everything with it.
            drop(ready!(Pin::new(driver).poll(cx)));
            self.driver = None;
        }
        Poll::Ready(Ok(()))
    }

    fn is_connected(&self) -> bool {
        !self.shared.inbox.is_finished()
    }

    fn transport_type(&self) -> &'static str {
        "http"
    }
}

impl Drop for HttpClientTransport {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for HttpClientTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClientTransport").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
