//! The server: each session that a client opens is a transport.
//!
//! ```text
//!   connection ── HttpServer::serve ─┐  hyper: HTTP/1.1, HTTP/2          HttpSessions::accept
//!   connection ── HttpServer::serve ─┼─ request: who may, what is it ──▶ HttpSession: PollTransport ──▶ whoever runs it
//!   connection ── HttpServer::serve ─┘  state: which message goes where
//! ```
//!
//! | revision | what a client does |
//! |---|---|
//! | 2024-11-05 | GET opens a stream, which names where to POST; answers come on the stream |
//! | 2025-03-26 to 2025-11-25 | POST `initialize` opens a session; each POST is answered by JSON or by a stream; GET opens a stream for what belongs to no request, or one that broke (`Last-Event-ID`); DELETE ends the session |
//! | 2026-07-28 | each POST stands alone |
//!
//! A POST whose answer is all that comes is answered by JSON, any other by a stream of events. In a session, a client that
//! names `text/event-stream` before `application/json` in Accept, or gives it more weight, always gets a stream.
//!
//! A second GET of a session takes the stream over from the first, which ends: the first is usually dead and nobody knows it
//! yet. What was on its way is kept, and the client that comes back behind the last event it saw misses nothing.

mod config;
mod cors;
mod head;
mod intake;
mod io;
mod lent;
mod params;
mod registry;
mod reply;
mod request;
mod session;
mod socket;
mod state;
mod stateless;
mod stream;
mod turn;

use std::{
    fmt,
    future::{Future, poll_fn},
    io as std_io,
    pin::pin,
    sync::Arc,
    task::Poll,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

pub use self::{
    config::{HttpConfigError, HttpServerConfig, HttpServerConfigBuilder},
    session::HttpSession,
};
use self::{io::Halves, registry::Registry, request::Exchange, turn::Turn};
use crate::limits::HTTP_MAX_HEADERS;

/// Requests of one HTTP/2 connection under way at a time.
const MAX_STREAMS: u32 = 256;

/// What kind of session a client has opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionKind {
    /// Streamable HTTP, 2025-03-26 to 2025-11-25: opened by `initialize`.
    Session,
    /// One POST of 2026-07-28: a single request, which is received at once, and what is sent until its answer.
    Stateless,
    /// HTTP with SSE, 2024-11-05.
    Legacy,
    /// A WebSocket.
    WebSocket,
}

/// An HTTP server for MCP: serves connections, out of which come sessions. Cheap to clone.
#[derive(Clone)]
pub struct HttpServer {
    registry: Arc<Registry>,
    builder: Arc<Builder<TokioExecutor>>,
}

impl HttpServer {
    /// A server, and the sessions that its clients will open.
    #[must_use]
    pub fn new(config: HttpServerConfig) -> (Self, HttpSessions) {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(config.read_timeout)
            .max_buf_size(config.max_head_size);
        // As many as hyper would take anyway: it then does not prepare the memory for them anew with each request.
        if config.max_headers != HTTP_MAX_HEADERS {
            builder.http1().max_headers(config.max_headers);
        }
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(config.keep_alive)
            .keep_alive_timeout(config.write_timeout)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(config.max_head_size).unwrap_or(u32::MAX));
        let (registry, accepted) = Registry::new(config);
        let sessions = HttpSessions { accepted, registry: Arc::clone(&registry) };
        (Self { registry, builder: Arc::new(builder) }, sessions)
    }

    /// Serves one connection until it ends, or is a WebSocket, which lives on as a session: TCP, TLS, a Unix socket,
    /// anything that reads and writes. `peer` is what its sessions call the client. After [`shutdown`](Self::shutdown) it
    /// takes no further request and ends once those under way are answered.
    ///
    /// # Errors
    /// When the connection breaks, its peer is too slow, or what comes is not HTTP.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    ///
    /// # Cancel safety
    /// Dropping the future cuts the connection; sessions go on, and their clients may come back for what they have missed.
    pub async fn serve<R, W>(&self, reader: R, writer: W, peer: impl Into<Arc<str>>) -> std_io::Result<()>
    where
        R: AsyncRead + Unpin + Send + Sync + 'static,
        W: AsyncWrite + Unpin + Send + Sync + 'static,
    {
        let config = self.registry.config();
        let io = TokioIo::new(Halves::new(reader, writer, config.read_timeout, config.write_timeout));
        let exchange = Arc::new(Exchange {
            registry: Arc::clone(&self.registry),
            peer: peer.into(),
            make: socket::make::<R, W>,
            timer: request::Timer::default(),
        });
        let service = service_fn(move |request| Arc::clone(&exchange).answer(request));
        let mut connection = pin!(self.builder.serve_connection_with_upgrades(io, service));
        let mut turn = Turn::new();
        let mut closing = self.registry.closing();
        {
            let mut closed = pin!(closing.wait_for(|closing| *closing));
            let ended = poll_fn(|cx| {
                if let Poll::Ready(ended) = turn.poll(cx, |cx| connection.as_mut().poll(cx)) {
                    return Poll::Ready(Some(ended));
                }
                closed.as_mut().poll(cx).map(|_| None)
            })
            .await;
            if let Some(ended) = ended {
                return ended.map_err(std_io::Error::other);
            }
        }
        connection.as_mut().graceful_shutdown();
        let ended = poll_fn(|cx| turn.poll(cx, |cx| connection.as_mut().poll(cx))).await;
        ended.map_err(std_io::Error::other)
    }

    /// Takes no new sessions and no further requests; streams that wait for what may come end, and each
    /// [`serve`](Self::serve) returns once what is under way is answered. Sessions stay open for that until they are closed or
    /// dropped: [`HttpSession::answered`] tells when.
    pub fn shutdown(&self) {
        self.registry.close();
    }

    /// How many sessions there are that have an id.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.registry.count()
    }
}

impl fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer").field("config", self.registry.config()).finish_non_exhaustive()
    }
}

/// The sessions that the clients of an [`HttpServer`] open. Dropping it ends all of them.
pub struct HttpSessions {
    accepted: mpsc::Receiver<HttpSession>,
    registry: Arc<Registry>,
}

impl HttpSessions {
    /// Waits for the next session. `None` after [`HttpServer::shutdown`].
    ///
    /// # Cancel safety
    /// Safe: no session is lost.
    pub async fn accept(&mut self) -> Option<HttpSession> {
        let mut closing = self.registry.closing();
        let mut closed = pin!(closing.wait_for(|closing| *closing));
        poll_fn(|cx| {
            if let Poll::Ready(session) = self.accepted.poll_recv(cx) {
                return Poll::Ready(session);
            }
            closed.as_mut().poll(cx).map(|_| None)
        })
        .await
    }
}

impl fmt::Debug for HttpSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSessions").finish_non_exhaustive()
    }
}

impl Drop for HttpSessions {
    fn drop(&mut self) {
        self.accepted.close();
        self.registry.end_all();
    }
}
