//! [`WebSocketTransport`]: WebSocket on TCP, TLS or a Unix socket, and on any other pair of halves, after the opening
//! handshake.

use std::{future::Future, io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

#[cfg(feature = "tls")]
use crate::io::tls::{self, TlsClientConfig};
#[cfg(unix)]
use crate::io::unix;
use crate::{
    Error, Link,
    codec::websocket::{
        WebSocket,
        handshake::{
            Accepted, Client, Connected, DeflateParams, HandshakeError, Request, Server, ServerConfig,
        },
    },
    endpoint::{EndpointError, Place, Protocol, Url},
    error::Origin,
    io::{
        socket::{SocketReader, SocketWriter},
        tcp::{self, TcpOptions, TcpReader, TcpWriter},
    },
    limits::HANDSHAKE_TIMEOUT,
    link::LinkConfig,
};

/// Bytes of one read of a handshake.
const READ: usize = 4096;

/// How long a refusal may take to leave, and what the peer still sends is read, so that it gets there.
const PARTING: Duration = Duration::from_millis(500);

/// WebSocket on a socket.
///
/// Other links have a `connect_with` and an `accept` too: `<WebSocketTransport>::accept(…)` says whose is meant.
pub type WebSocketTransport<R = SocketReader, W = SocketWriter> = Link<WebSocket, R, W>;

/// Why a WebSocket could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebSocketError {
    /// The URL is none that is known here.
    #[error(transparent)]
    Url(#[from] EndpointError),
    /// The URL is of another scheme.
    #[error("{scheme}: is no WebSocket; ws:, wss: and ws+unix: are")]
    NotWebSocket {
        /// Its scheme.
        scheme: &'static str,
    },
    /// `wss` without the feature `tls`.
    #[error("wss:// needs the feature `tls`")]
    NeedsTls,
    /// The connection could not be made, or broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The handshake took too long.
    #[error("the handshake took longer than {after:?}")]
    TimedOut {
        /// How long it may take.
        after: Duration,
    },
    /// The link could not be made.
    #[error(transparent)]
    Link(#[from] Error),
}

impl WebSocketError {
    /// Who is at fault.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self {
            Self::Url(_) | Self::NotWebSocket { .. } | Self::NeedsTls => Origin::Caller,
            Self::Io(_) => Origin::Io,
            Self::Handshake(error) => error.origin(),
            Self::TimedOut { .. } => Origin::Peer,
            Self::Link(error) => error.origin(),
        }
    }
}

/// How a WebSocket is opened from this side.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WebSocketOptions {
    /// What is asked for.
    pub request: Request,
    /// Limits and keep-alive of the codec. Default: [`WebSocket::client`].
    pub codec: WebSocket,
    /// Limits and deadlines of the link.
    pub link: LinkConfig,
    /// How the connection below is made.
    pub tcp: TcpOptions,
    /// How `wss` is made safe. Default: the system's authorities.
    #[cfg(feature = "tls")]
    pub tls: Option<TlsClientConfig>,
}

impl WebSocketOptions {
    /// Asks for `request`.
    #[must_use]
    pub fn new(request: Request) -> Self {
        Self {
            request,
            codec: WebSocket::client(),
            link: LinkConfig::default(),
            tcp: TcpOptions::default(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Sets limits and keep-alive of the codec.
    #[must_use]
    pub fn codec(mut self, codec: WebSocket) -> Self {
        self.codec = codec;
        self
    }

    /// Sets limits and deadlines of the link.
    #[must_use]
    pub fn link(mut self, config: LinkConfig) -> Self {
        self.link = config;
        self
    }

    /// Sets how the connection below is made.
    #[must_use]
    pub fn tcp(mut self, options: TcpOptions) -> Self {
        self.tcp = options;
        self
    }

    /// Sets how `wss` is made safe.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: TlsClientConfig) -> Self {
        self.tls = Some(tls);
        self
    }
}

impl WebSocketTransport {
    /// Connects to `url` and asks for the subprotocol `mcp`.
    ///
    /// # Errors
    /// [`WebSocketError`].
    ///
    /// # Panics
    /// When called outside a tokio runtime with I/O and time enabled.
    ///
    /// # Cancel safety
    /// Safe: the connection is given up.
    pub async fn connect(url: &str) -> Result<Self, WebSocketError> {
        let url: Url = url.parse()?;
        if url.protocol != Protocol::WebSocket {
            return Err(WebSocketError::NotWebSocket { scheme: url.scheme() });
        }
        let request = Request::new(&url.host, &url.target)?.protocol("mcp")?;
        Ok(Self::connect_with(&url.place, WebSocketOptions::new(request)).await?.0)
    }

    /// Connects to `place`, with any settings.
    ///
    /// # Errors
    /// [`WebSocketError`].
    ///
    /// # Panics
    /// When called outside a tokio runtime with I/O and time enabled.
    ///
    /// # Cancel safety
    /// Safe: the connection is given up.
    pub async fn connect_with(
        place: &Place,
        options: WebSocketOptions,
    ) -> Result<(Self, Connected), WebSocketError> {
        let (reader, writer) = match place {
            Place::Tcp { host, port, secure: false } => {
                let (reader, writer) = tcp::connect_host(host, *port, &options.tcp).await?;
                (SocketReader::Tcp(reader), SocketWriter::Tcp(writer))
            }
            #[cfg(feature = "tls")]
            Place::Tcp { host, port, secure: true } => {
                let tls = match &options.tls {
                    Some(tls) => tls.clone(),
                    None => TlsClientConfig::builder().build().map_err(io::Error::other)?,
                };
                let (reader, writer) = tls::connect(host, *port, &tls, &options.tcp).await?;
                (SocketReader::Tls(reader), SocketWriter::Tls(writer))
            }
            #[cfg(unix)]
            Place::Unix(path) => {
                let (reader, writer) = unix::connect(path).await?;
                (SocketReader::Unix(reader), SocketWriter::Unix(writer))
            }
            #[cfg(not(all(unix, feature = "tls")))]
            _ => return Err(WebSocketError::NeedsTls),
        };
        Self::ask(reader, writer, options.request, options.codec, options.link).await
    }

    /// Answers the handshake of a connection that a TCP listener has accepted.
    ///
    /// # Errors
    /// [`WebSocketError`]; a peer that asked for something else has been answered.
    ///
    /// # Panics
    /// When called outside a tokio runtime with time enabled.
    ///
    /// # Cancel safety
    /// Safe: the connection is given up.
    pub async fn accept(
        (reader, writer): (TcpReader, TcpWriter),
        server: &ServerConfig,
    ) -> Result<(Self, Accepted), WebSocketError> {
        let (reader, writer) = (SocketReader::Tcp(reader), SocketWriter::Tcp(writer));
        Self::answer(reader, writer, server, WebSocket::server(), LinkConfig::default()).await
    }
}

impl<R, W> Link<WebSocket, R, W>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    /// Asks for a WebSocket on a connection that is there already; see [`ask`].
    ///
    /// # Errors
    /// [`WebSocketError`].
    ///
    /// # Panics
    /// When called outside a tokio runtime with time enabled.
    ///
    /// # Cancel safety
    /// Safe: the connection is given up.
    pub async fn ask(
        mut reader: R,
        mut writer: W,
        request: Request,
        codec: WebSocket,
        config: LinkConfig,
    ) -> Result<(Self, Connected), WebSocketError> {
        let (connected, unread) = ask(&mut reader, &mut writer, request).await?;
        let codec = agreed(codec, connected.deflate);
        Ok((
            Self::with_unread(codec, reader, writer, config.transport_type("websocket"), &unread)?,
            connected,
        ))
    }

    /// Answers the handshake of a connection; see [`answer`].
    ///
    /// # Errors
    /// [`WebSocketError`].
    ///
    /// # Panics
    /// When called outside a tokio runtime with time enabled.
    ///
    /// # Cancel safety
    /// Safe: the connection is given up.
    pub async fn answer(
        mut reader: R,
        mut writer: W,
        server: &ServerConfig,
        codec: WebSocket,
        config: LinkConfig,
    ) -> Result<(Self, Accepted), WebSocketError> {
        let (accepted, unread) = answer(&mut reader, &mut writer, server).await?;
        let codec = agreed(codec, accepted.deflate);
        Ok((Self::with_unread(codec, reader, writer, config.transport_type("websocket"), &unread)?, accepted))
    }
}

/// Asks for a WebSocket, within [`HANDSHAKE_TIMEOUT`]. Returns what was agreed on, and the bytes that came behind it.
///
/// # Errors
/// [`WebSocketError`]; the connection is of no further use then.
///
/// # Panics
/// When called outside a tokio runtime with time enabled.
///
/// # Cancel safety
/// Dropping the future leaves the connection inside the handshake.
pub async fn ask(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    request: Request,
) -> Result<(Connected, Vec<u8>), WebSocketError> {
    let mut client = Client::new(request);
    let mut bytes = Vec::new();
    let connected = in_time(HANDSHAKE_TIMEOUT, async {
        writer.write_all(client.request()).await?;
        writer.flush().await?;
        loop {
            if let Some(connected) = client.decode(&bytes)? {
                return Ok(connected);
            }
            read(reader, &mut bytes).await?;
        }
    })
    .await?;
    let unread = bytes.split_off(connected.consumed.min(bytes.len()));
    Ok((connected, unread))
}

/// Answers a handshake, within the time that `server` sets. A peer that is refused, or asks for something else, gets an HTTP
/// answer before the error is returned. Returns what was agreed on, and the bytes that came behind it.
///
/// # Errors
/// [`WebSocketError`]; the connection is of no further use then.
///
/// # Panics
/// When called outside a tokio runtime with time enabled.
///
/// # Cancel safety
/// Dropping the future leaves the connection inside the handshake.
pub async fn answer(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    server: &ServerConfig,
) -> Result<(Accepted, Vec<u8>), WebSocketError> {
    let after = server.handshake_timeout();
    let mut server = Server::new(server.clone());
    let mut bytes = Vec::new();
    let shaken = in_time(after, async {
        loop {
            if let Some(accepted) = server.decode(&bytes)? {
                writer.write_all(&accepted.response).await?;
                writer.flush().await?;
                return Ok(accepted);
            }
            read(reader, &mut bytes).await?;
        }
    })
    .await;
    match shaken {
        Ok(accepted) => {
            let unread = bytes.split_off(accepted.consumed.min(bytes.len()));
            Ok((accepted, unread))
        }
        Err(error) => {
            if let WebSocketError::Handshake(error) = &error {
                refuse(reader, writer, &error.response()).await;
            }
            Err(error)
        }
    }
}

/// `codec` with the extension that was agreed on. Without the feature `deflate` nothing may be offered or accepted, since
/// nothing could inflate it.
#[must_use]
pub fn agreed(codec: WebSocket, deflate: Option<DeflateParams>) -> WebSocket {
    match deflate {
        #[cfg(feature = "deflate")]
        Some(params) => codec.deflate(params),
        _ => codec,
    }
}

async fn in_time<T>(
    after: Duration,
    handshake: impl Future<Output = Result<T, WebSocketError>>,
) -> Result<T, WebSocketError> {
    timeout(after, handshake).await.unwrap_or(Err(WebSocketError::TimedOut { after }))
}

async fn read(reader: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Result<(), WebSocketError> {
    let mut piece = [0; READ];
    let count = reader.read(&mut piece).await?;
    if count == 0 {
        return Err(HandshakeError::Ended.into());
    }
    bytes.extend_from_slice(piece.get(..count).unwrap_or_default());
    Ok(())
}

/// Sends a refusal. What the peer still sends is read away for a moment: closing with unread bytes would reset the
/// connection and take the refusal with it.
async fn refuse(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    response: &[u8],
) {
    let parting = async {
        writer.write_all(response).await?;
        writer.shutdown().await?;
        let mut piece = [0; READ];
        while reader.read(&mut piece).await? > 0 {}
        io::Result::Ok(())
    };
    // Whether it got there or not, the connection ends.
    let _ended = timeout(PARTING, parting).await;
}
