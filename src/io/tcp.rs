//! TCP connections as a pair of halves, and a listener that outlives the failures of single connections.
//!
//! Uses limits, tokio's sockets and socket2 (keep-alive).

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{
        TcpListener, TcpStream, ToSocketAddrs,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{Instant, timeout},
};

use super::accept::Backoff;
use crate::limits::CONNECT_TIMEOUT;

/// How TCP connections are set up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TcpOptions {
    /// Whether small segments leave at once (`TCP_NODELAY`). Links gather by themselves, so waiting for more bytes
    /// only adds delay. Default: yes.
    pub nodelay: bool,
    /// Idle time after which the system probes whether the peer is still there, `None` for never. Default: 60 s.
    pub keepalive: Option<Duration>,
    /// How long a connect may take, all addresses of a name together. Default:
    /// [`CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self { nodelay: true, keepalive: Some(Duration::from_secs(60)), connect_timeout: CONNECT_TIMEOUT }
    }
}

impl TcpOptions {
    /// Sets whether small segments leave at once.
    #[must_use]
    pub fn nodelay(mut self, on: bool) -> Self {
        self.nodelay = on;
        self
    }

    /// Sets the idle time after which the system probes the peer, `None` for never.
    #[must_use]
    pub fn keepalive(mut self, after: Option<Duration>) -> Self {
        self.keepalive = after;
        self
    }

    /// Sets how long a connect may take.
    #[must_use]
    pub fn connect_timeout(mut self, after: Duration) -> Self {
        self.connect_timeout = after;
        self
    }

    fn apply(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(self.nodelay)?;
        if let Some(after) = self.keepalive {
            // Probes every quarter of the idle time: with the system's usual nine a dead peer is found after about
            // three times the idle time. Systems take whole seconds and refuse zero.
            let whole = |time: Duration| time.max(Duration::from_secs(1));
            let probe = TcpKeepalive::new().with_time(whole(after));
            #[cfg(any(target_os = "linux", target_os = "macos", windows))]
            let probe = probe.with_interval(whole(after / 4));
            SockRef::from(stream).set_tcp_keepalive(&probe)?;
        }
        Ok(())
    }
}

/// Connects to the first address that answers.
///
/// The addresses a name resolves to are tried in order. Each gets an even share of the time left, so that one that
/// swallows packets does not use up the time of the next.
///
/// # Errors
/// `TimedOut` when the deadline passed, the failure of the last address otherwise. The text names the address.
///
/// # Panics
/// When called outside a tokio runtime with I/O and time enabled.
///
/// # Cancel safety
/// Dropping the future gives up the attempt; nothing stays open.
pub async fn connect(addr: impl ToSocketAddrs, options: &TcpOptions) -> io::Result<(TcpReader, TcpWriter)> {
    let deadline = Instant::now() + options.connect_timeout;
    let late = || {
        let text = format!("no connection within {:?}", options.connect_timeout);
        io::Error::new(io::ErrorKind::TimedOut, text)
    };
    let addrs: Vec<SocketAddr> = match timeout(options.connect_timeout, tokio::net::lookup_host(addr)).await {
        Ok(found) => found?.collect(),
        Err(_) => return Err(late()),
    };
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name resolves to no address");
    for (tried, addr) in addrs.iter().enumerate() {
        let left = u32::try_from(addrs.len() - tried).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        match timeout(share, TcpStream::connect(addr)).await {
            Ok(Ok(stream)) => return from_stream(stream, options),
            Ok(Err(error)) => failure = io::Error::new(error.kind(), format!("connect to {addr}: {error}")),
            Err(_) => {
                let text = format!("connect to {addr}: no answer within {share:?}");
                failure = io::Error::new(io::ErrorKind::TimedOut, text);
            }
        }
    }
    Err(failure)
}

/// Makes a connected tokio stream a pair, after setting it up as `options` say.
///
/// # Errors
/// When the system refuses an option.
pub fn from_stream(stream: TcpStream, options: &TcpOptions) -> io::Result<(TcpReader, TcpWriter)> {
    options.apply(&stream)?;
    Ok(halves(stream))
}

/// Makes a connected stream of the standard library a pair, after setting it up as `options` say.
///
/// # Errors
/// When the system refuses an option.
///
/// # Panics
/// When called outside a tokio runtime with I/O enabled.
pub fn from_std(stream: std::net::TcpStream, options: &TcpOptions) -> io::Result<(TcpReader, TcpWriter)> {
    stream.set_nonblocking(true)?;
    from_stream(TcpStream::from_std(stream)?, options)
}

fn halves(stream: TcpStream) -> (TcpReader, TcpWriter) {
    let (reader, writer) = stream.into_split();
    (TcpReader { half: reader }, TcpWriter { half: writer })
}

/// The receiving half of a TCP connection. The connection is closed when both halves are dropped.
#[derive(Debug)]
pub struct TcpReader {
    half: OwnedReadHalf,
}

impl TcpReader {
    /// Address of the peer.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.half.peer_addr()
    }

    /// Address of this end.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.half.local_addr()
    }

    /// The stream again, from both halves of it.
    ///
    /// # Errors
    /// `InvalidInput` when the halves belong to different connections; both are closed then.
    pub fn reunite(self, writer: TcpWriter) -> io::Result<TcpStream> {
        let foreign = |_| io::Error::new(io::ErrorKind::InvalidInput, "halves of different connections");
        self.half.reunite(writer.half).map_err(foreign)
    }
}

impl AsyncRead for TcpReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.half).poll_read(cx, buffer)
    }
}

/// The sending half of a TCP connection. Shutting it down, or dropping it, tells the peer that no more comes.
#[derive(Debug)]
pub struct TcpWriter {
    half: OwnedWriteHalf,
}

impl TcpWriter {
    /// Address of the peer.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.half.peer_addr()
    }
}

impl AsyncWrite for TcpWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.half).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.half).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.half).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.half).poll_shutdown(cx)
    }
}

/// A TCP listener.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    options: TcpOptions,
}

impl Listener {
    /// Listens on `addr`; its connections get the default [`TcpOptions`].
    ///
    /// # Errors
    /// When the address cannot be resolved or is not free.
    ///
    /// # Panics
    /// When called outside a tokio runtime with I/O enabled.
    pub async fn bind(addr: impl ToSocketAddrs) -> io::Result<Self> {
        Self::bind_with(addr, TcpOptions::default()).await
    }

    /// Listens on `addr`; its connections get `options`.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    ///
    /// # Panics
    /// As [`bind`](Self::bind).
    pub async fn bind_with(addr: impl ToSocketAddrs, options: TcpOptions) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(addr).await?, options })
    }

    /// The address listened on, with the port the system chose for port 0.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits for the next connection.
    ///
    /// Failures that concern one connection are passed over. Out of descriptors or memory, it pauses (5 ms, doubled
    /// up to 1 s) and tries again.
    ///
    /// # Errors
    /// Only when the listener itself is of no further use.
    ///
    /// # Panics
    /// When it has to pause on a tokio runtime without time enabled.
    ///
    /// # Cancel safety
    /// Dropping the future loses no connection.
    pub async fn accept(&self) -> io::Result<(TcpReader, TcpWriter, SocketAddr)> {
        let mut backoff = Backoff::default();
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // An option can only fail on a connection that is gone again; its first read will tell.
                    drop(self.options.apply(&stream));
                    let (reader, writer) = halves(stream);
                    return Ok((reader, writer, peer));
                }
                Err(error) => backoff.survive(error).await?,
            }
        }
    }
}
