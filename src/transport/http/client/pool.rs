//! Connections to the server: opened over the crate's own sockets, kept while they are idle, spoken on by hyper.
//!
//! The pool is small and our own, as hyper-util's client repeats requests by itself where it believes that to be safe, and
//! gives them to connections in no order. Here a request is handed to its connection when [`Connection::send`] returns,
//! so that the caller's order is the order of the first bytes, and nothing is ever sent twice unasked.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, timeout},
};

use super::{
    error::HttpClientError,
    events::{Counters, count},
};
#[cfg(feature = "tls")]
use crate::io::tls::{self, TlsClientConfig};
#[cfg(unix)]
use crate::io::unix;
use crate::{
    endpoint::Place,
    io::{
        socket::{SocketReader, SocketWriter},
        tcp::{self, TcpOptions},
    },
    limits::{HTTP_IDLE_REUSE, HTTP_MAX_IDLE},
};

/// A body of one piece.
#[derive(Debug, Clone)]
pub(super) struct Whole(Option<Bytes>);

impl Whole {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// Both halves of a socket as one.
struct Socket {
    reader: SocketReader,
    writer: SocketWriter,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.writer.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}

/// A connection that may take one request (HTTP/1.1) or any number (HTTP/2).
pub(super) enum Connection {
    Http1 {
        sender: http1::SendRequest<Whole>,
        /// Whether it has carried a request before.
        used: bool,
        /// How long it may be idle.
        reuse: Duration,
    },
    Http2(http2::SendRequest<Whole>),
}

type Sending = Pin<Box<dyn Future<Output = Result<Response<Incoming>, TrySendError<Request<Whole>>>> + Send>>;

/// A request that was handed to its connection.
pub(super) struct Sent {
    response: Sending,
    connection: Option<Connection>,
    pool: Arc<Pool>,
}

/// Why no response came.
pub(super) enum SendError {
    /// Nothing of it was written: it may be sent on another connection.
    Unsent,
    /// The connection broke behind it.
    Lost(String),
}

/// A response whose body is still to come.
pub(super) struct Answer {
    pub(super) head: http::response::Parts,
    body: Incoming,
    connection: Option<Connection>,
    pool: Arc<Pool>,
}

struct Idle {
    connection: http1::SendRequest<Whole>,
    until: Instant,
    reuse: Duration,
}

#[derive(Default)]
struct Kept {
    /// Last used last.
    idle: Vec<Idle>,
    http2: Option<http2::SendRequest<Whole>>,
}

/// Where the server is, and the connections to it.
pub(super) struct Pool {
    place: Place,
    tcp: TcpOptions,
    #[cfg(feature = "tls")]
    tls: Option<TlsClientConfig>,
    counters: Arc<Counters>,
    kept: Mutex<Kept>,
    /// One at a time opens a connection where HTTP/2 may be agreed on, which all can share then.
    opening: tokio::sync::Mutex<()>,
    closed: AtomicU64,
}

impl Pool {
    pub(super) fn new(
        place: Place,
        tcp: TcpOptions,
        #[cfg(feature = "tls")] tls: Option<TlsClientConfig>,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            place,
            tcp,
            #[cfg(feature = "tls")]
            tls,
            counters,
            kept: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            closed: AtomicU64::new(0),
        })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_secure(&self) -> bool {
        matches!(self.place, Place::Tcp { secure: true, .. })
    }

    /// A connection that can take a request now: one that is kept, else a new one.
    pub(super) async fn acquire(&self) -> Result<Connection, HttpClientError> {
        if let Some(kept) = self.take().await {
            return Ok(kept);
        }
        // Without TLS there is no HTTP/2 here, and no reason to wait for each other.
        let _turn = if self.is_secure() { Some(self.opening.lock().await) } else { None };
        if self.is_secure()
            && let Some(kept) = self.take().await
        {
            return Ok(kept);
        }
        self.open().await
    }

    async fn take(&self) -> Option<Connection> {
        loop {
            let Idle { connection: mut sender, until, reuse } = {
                let mut kept = self.kept();
                if let Some(sender) = &kept.http2 {
                    if !sender.is_closed() {
                        return Some(Connection::Http2(sender.clone()));
                    }
                    kept.http2 = None;
                }
                kept.idle.pop()?
            };
            if sender.is_closed() || until <= Instant::now() {
                continue;
            }
            // The answer was read to its end a moment ago; its connection is about to notice.
            if sender.is_ready() || matches!(timeout(HTTP_IDLE_REUSE, sender.ready()).await, Ok(Ok(()))) {
                return Some(Connection::Http1 { sender, used: true, reuse });
            }
        }
    }

    /// A new connection.
    pub(super) async fn open(&self) -> Result<Connection, HttpClientError> {
        #[cfg_attr(not(feature = "tls"), allow(unused_mut))]
        let mut alpn: Option<Vec<u8>> = None;
        let (reader, writer) = match &self.place {
            #[cfg(feature = "tls")]
            Place::Tcp { host, port, secure: true } => {
                let Some(settings) = &self.tls else { return Err(HttpClientError::NeedsTls) };
                let (reader, writer) =
                    tls::connect(host, *port, settings, &self.tcp).await.map_err(HttpClientError::Connect)?;
                alpn = reader.alpn();
                (SocketReader::Tls(reader), SocketWriter::Tls(writer))
            }
            #[cfg(not(feature = "tls"))]
            Place::Tcp { secure: true, .. } => return Err(HttpClientError::NeedsTls),
            Place::Tcp { host, port, .. } => {
                let (reader, writer) =
                    tcp::connect_host(host, *port, &self.tcp).await.map_err(HttpClientError::Connect)?;
                (SocketReader::Tcp(reader), SocketWriter::Tcp(writer))
            }
            #[cfg(unix)]
            Place::Unix(path) => {
                let (reader, writer) = unix::connect(path).await.map_err(HttpClientError::Connect)?;
                (SocketReader::Unix(reader), SocketWriter::Unix(writer))
            }
            #[cfg(not(unix))]
            Place::Unix(_) => {
                return Err(HttpClientError::Connect(io::ErrorKind::Unsupported.into()));
            }
        };
        count(&self.counters.connections);
        let io = TokioIo::new(Socket { reader, writer });
        let failed = |error: hyper::Error| HttpClientError::Connect(io::Error::other(error));
        if alpn.as_deref() == Some(b"h2") {
            let (sender, connection) =
                http2::Builder::new(TokioExecutor::new()).handshake(io).await.map_err(failed)?;
            tokio::spawn(async move { drop(connection.await) });
            self.kept().http2 = Some(sender.clone());
            return Ok(Connection::Http2(sender));
        }
        let (sender, connection) = http1::Builder::new().handshake(io).await.map_err(failed)?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(Connection::Http1 { sender, used: false, reuse: HTTP_IDLE_REUSE })
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(super) fn keep(&self, connection: Connection) {
        let Connection::Http1 { sender, reuse, .. } = connection else { return };
        if sender.is_closed() || self.closed.load(std::sync::atomic::Ordering::Acquire) > 0 {
            return;
        }
        let mut kept = self.kept();
        let now = Instant::now();
        kept.idle.retain(|idle| idle.until > now && !idle.connection.is_closed());
        let Some(until) = now.checked_add(reuse) else { return };
        if kept.idle.len() < HTTP_MAX_IDLE {
            kept.idle.push(Idle { connection: sender, until, reuse });
        }
    }

    /// Lets go of every connection that is idle, and keeps none from now on.
    pub(super) fn close(&self) {
        self.closed.store(1, std::sync::atomic::Ordering::Release);
        let mut kept = self.kept();
        let (idle, http2) = (std::mem::take(&mut kept.idle), kept.http2.take());
        drop(kept);
        drop((idle, http2));
    }
}

impl Connection {
    pub(super) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Hands a request over. The order of calls is the order in which the connections get them.
    pub(super) fn send(mut self, request: Request<Whole>, pool: &Arc<Pool>) -> Sent {
        let response: Sending = match &mut self {
            Self::Http1 { sender, used, .. } => {
                *used = true;
                Box::pin(sender.try_send_request(request))
            }
            Self::Http2(sender) => Box::pin(sender.try_send_request(request)),
        };
        Sent { response, connection: Some(self), pool: Arc::clone(pool) }
    }
}

impl Sent {
    /// Waits for the head of the response.
    pub(super) async fn answer(self) -> Result<Answer, SendError> {
        match self.response.await {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let mut connection = self.connection;
                if let Some(Connection::Http1 { reuse, .. }) = &mut connection
                    && let Some(seconds) = keep_alive(&head)
                {
                    *reuse = seconds;
                }
                let mut answer = Answer { head, body, connection, pool: self.pool };
                answer.release();
                Ok(answer)
            }
            Err(mut error) => match error.take_message() {
                Some(_) => Err(SendError::Unsent),
                None => Err(SendError::Lost(reason(&error.into_error()))),
            },
        }
    }
}

/// What the server says about idle connections (`Keep-Alive: timeout=5`), with a second for the way.
fn keep_alive(head: &http::response::Parts) -> Option<Duration> {
    let value = head.headers.get("keep-alive")?.to_str().ok()?;
    let seconds = value.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    Some(Duration::from_secs(seconds.parse::<u64>().ok()?.clamp(1, 120) - 1))
}

/// An error of hyper with what caused it.
pub(super) fn reason(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Answer {
    /// The next piece of the body; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
            match frame {
                None => {
                    self.release();
                    return Ok(None);
                }
                Some(Err(error)) => return Err(reason(&error)),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.release();
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// The body's size, if the server has told it.
    pub(super) fn declared(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// Gives the connection back as soon as nothing more comes.
    fn release(&mut self) {
        if self.body.is_end_stream()
            && let Some(connection) = self.connection.take()
        {
            self.pool.keep(connection);
        }
    }

    /// Up to `limit` bytes of the body; the rest is left, and the connection with it.
    pub(super) async fn beginning(&mut self, limit: usize) -> Vec<u8> {
        let mut text = Vec::new();
        while let Ok(Some(chunk)) = self.chunk().await {
            let room = limit - text.len();
            if chunk.len() > room {
                text.extend_from_slice(chunk.get(..room).unwrap_or_default());
                break;
            }
            text.extend_from_slice(&chunk);
        }
        text
    }
}
