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
        TcpListener, TcpSocket, TcpStream, ToSocketAddrs,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{Instant, timeout},
};

use super::accept::Backoff;
#[cfg(feature = "websocket")]
use super::proxy::{Proxy, ProxyError};
use crate::limits::CONNECT_TIMEOUT;

/// Connections that may wait to be accepted; the system may allow fewer.
const BACKLOG: u32 = 1024;

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
    /// Address of this end of a connect, with port 0 for any port. Default: the system's choice.
    pub local_addr: Option<SocketAddr>,
    /// Whether an address may be bound on which old connections still wait to be forgotten (`SO_REUSEADDR`), so that a
    /// server can be started anew at once. Default: yes, but not on Windows, where it means that others may take it away.
    pub reuse_address: bool,
    /// Bytes that the system may hold of what is sent (`SO_SNDBUF`; Linux doubles it). Default: the system's choice, which
    /// grows as needed.
    pub send_buffer: Option<u32>,
    /// Bytes that the system may hold of what is received (`SO_RCVBUF`). Default: as above.
    pub receive_buffer: Option<u32>,
    /// The HTTP proxy that [`connect_host`] goes through. Default: none; the environment is not looked at.
    #[cfg(feature = "websocket")]
    pub proxy: Option<Proxy>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            nodelay: true,
            keepalive: Some(Duration::from_secs(60)),
            connect_timeout: CONNECT_TIMEOUT,
            local_addr: None,
            reuse_address: cfg!(not(windows)),
            send_buffer: None,
            receive_buffer: None,
            #[cfg(feature = "websocket")]
            proxy: None,
        }
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

    /// Sets the address of this end of a connect; it has to be of the same family as the other.
    #[must_use]
    pub fn local_addr(mut self, addr: Option<SocketAddr>) -> Self {
        self.local_addr = addr;
        self
    }

    /// Sets whether an address may be bound on which old connections still wait to be forgotten.
    #[must_use]
    pub fn reuse_address(mut self, on: bool) -> Self {
        self.reuse_address = on;
        self
    }

    /// Sets the bytes that the system may hold of what is sent, `None` for its own choice.
    #[must_use]
    pub fn send_buffer(mut self, bytes: Option<u32>) -> Self {
        self.send_buffer = bytes;
        self
    }

    /// Sets the bytes that the system may hold of what is received, `None` for its own choice.
    #[must_use]
    pub fn receive_buffer(mut self, bytes: Option<u32>) -> Self {
        self.receive_buffer = bytes;
        self
    }

    /// Sets the HTTP proxy that [`connect_host`] goes through.
    #[cfg(feature = "websocket")]
    #[must_use]
    pub fn proxy(mut self, proxy: Option<Proxy>) -> Self {
        self.proxy = proxy;
        self
    }

    /// A socket to reach or to be `addr`. Buffer sizes have to be set before a connection: they go into its handshake.
    fn socket(&self, addr: SocketAddr) -> io::Result<TcpSocket> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(bytes) = self.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if self.reuse_address {
            socket.set_reuseaddr(true)?;
        }
        Ok(socket)
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.socket(addr)?;
        if let Some(local) = self.local_addr {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("from {local}: {error}"));
            socket.bind(local).map_err(named)?;
        }
        socket.connect(addr).await
    }

    fn listen(&self, addr: SocketAddr) -> io::Result<TcpListener> {
        let socket = self.socket(addr)?;
        socket.bind(addr)?;
        socket.listen(BACKLOG)
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
    from_stream(reach(addr, options).await?, options)
}

/// Connects to `host`, a name or an address (an IPv6 address without brackets), through the proxy of `options` if there
/// is one: it then looks up the name, and `connect_timeout` covers its answer, too.
///
/// # Errors
/// As [`connect`]; a proxy that makes no tunnel is an `io::Error` that holds a `ProxyError`.
///
/// # Panics
/// When called outside a tokio runtime with I/O and time enabled.
///
/// # Cancel safety
/// Dropping the future gives up the attempt; nothing stays open.
pub async fn connect_host(host: &str, port: u16, options: &TcpOptions) -> io::Result<(TcpReader, TcpWriter)> {
    #[cfg(feature = "websocket")]
    if let Some(proxy) = &options.proxy {
        let through = async {
            let mut stream = reach(proxy.place(), options).await.map_err(ProxyError::of)?;
            proxy.tunnel(&mut stream, host, port).await.map_err(ProxyError::of)?;
            from_stream(stream, options)
        };
        return timeout(options.connect_timeout, through).await.unwrap_or_else(|_| {
            let text = format!("no tunnel by {proxy} within {:?}", options.connect_timeout);
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        });
    }
    connect((host, port), options).await
}

async fn reach(addr: impl ToSocketAddrs, options: &TcpOptions) -> io::Result<TcpStream> {
    let deadline = Instant::now().checked_add(options.connect_timeout);
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
        let rest = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        let share = deadline.map_or(options.connect_timeout, rest) / left;
        match timeout(share, options.connect(*addr)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = io::Error::new(error.kind(), format!("connect to {addr}: {error}")),
            Err(_) => {
                let text = format!("connect to {addr}: no answer within {share:?}");
                failure = io::Error::new(io::ErrorKind::TimedOut, text);
            }
        }
    }
    Err(failure)
}

/// Makes a connected tokio stream a pair, after setting it up as `options` say, but for what has to be set before a
/// connection is made: addresses and buffer sizes.
///
/// # Errors
/// When the system refuses an option.
pub fn from_stream(stream: TcpStream, options: &TcpOptions) -> io::Result<(TcpReader, TcpWriter)> {
    options.apply(&stream)?;
    Ok(halves(stream))
}

/// Makes a connected stream of the standard library a pair, as [`from_stream`] does.
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

    /// The socket itself, for what needs no turn at it.
    #[cfg(feature = "tls")]
    pub(super) fn socket(&self) -> &TcpStream {
        self.half.as_ref()
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

#[cfg(feature = "tls")]
impl TcpWriter {
    /// The socket itself, for what needs no turn at it.
    pub(super) fn socket(&self) -> &TcpStream {
        self.half.as_ref()
    }
}

super::halves::by_half!(TcpReader, TcpWriter);

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
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name resolves to no address");
        for addr in tokio::net::lookup_host(addr).await? {
            match options.listen(addr) {
                Ok(listener) => return Ok(Self { listener, options }),
                Err(error) => failure = error,
            }
        }
        Err(failure)
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
