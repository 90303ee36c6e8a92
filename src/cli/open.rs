//! Opens what an endpoint names: connects, starts or listens. Errors are written for the person at the prompt.

use std::{ffi::OsString, future::poll_fn, io, time::Duration};

#[cfg(unix)]
use framewire::io::{
    child::{ChildBuilder, ChildHandle, ChildStderr},
    unix,
};
use framewire::{
    Link,
    codec::{
        Codec, Decode, Encode, WebSocket,
        websocket::{Role, handshake::ServerConfig},
    },
    endpoint::{Address, Endpoint, Place},
    io::{
        proxy::{Proxy, ProxyError},
        stdio::{self, Stdin, Stdout},
        tcp, tls,
    },
    link::LinkConfig,
    transport::{
        PollTransport,
        websocket::{self, WebSocketError},
    },
};
use tracing::warn;
#[cfg(unix)]
use tracing::{debug, info};

#[cfg(unix)]
use super::log;
use super::{
    builtin::{self, Builtin},
    end::{AnyCodec, AnyLink, AnyReader, AnyWriter},
    exit::Failure,
    tls as settings,
    transport::AnyTransport,
    websocket::{self as guard, Rules},
};

/// How long a connect or the start of a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a line of a child's stderr that are logged.
#[cfg(unix)]
const MAX_STDERR_LINE: usize = 2048;

/// How long a child may take to exit once the connection is over: its input was closed long before.
#[cfg(unix)]
const STDIN_GRACE: Duration = Duration::from_millis(500);

/// An end that is open.
pub(crate) struct Opened {
    pub(crate) link: AnyTransport,
    /// The process behind it, if one was started.
    #[cfg(unix)]
    pub(crate) child: Option<ChildHandle>,
    /// Who it is, for logs.
    pub(crate) peer: String,
}

/// A client that has connected, and may still have to shake hands: in its own time, not in that of the listener.
pub(crate) enum Arrived {
    Open(Box<Opened>),
    WebSocket(Box<Shaking>),
}

/// A client that is to ask for a WebSocket.
pub(crate) struct Shaking {
    reader: AnyReader,
    writer: AnyWriter,
    server: ServerConfig,
    codec: WebSocket,
    config: LinkConfig,
    peer: String,
}

impl Arrived {
    /// Who it is, for logs.
    pub(crate) fn peer(&self) -> &str {
        match self {
            Self::Open(opened) => &opened.peer,
            Self::WebSocket(shaking) => &shaking.peer,
        }
    }

    /// Shakes hands.
    pub(crate) async fn open(self) -> Result<Opened, Failure> {
        let mut shaking = match self {
            Self::Open(opened) => return Ok(*opened),
            Self::WebSocket(shaking) => shaking,
        };
        let (accepted, unread) = websocket::answer(&mut shaking.reader, &mut shaking.writer, &shaking.server)
            .await
            .map_err(|error| Failure::runtime(format!("{}: {error}", shaking.peer)))?;
        let Shaking { reader, writer, codec, config, peer, .. } = *shaking;
        let codec = AnyCodec::WebSocket(Box::new(guard::agreed(codec, accepted.deflate)));
        let link = Link::with_unread(codec, reader, writer, config, &unread).map_err(Failure::runtime)?;
        Ok(Opened::without_child(link, peer))
    }
}

/// What listens.
pub(crate) struct Listener {
    endpoint: Endpoint,
    max: usize,
    /// Of what connects over a socket: whoever has this process's stdin is no stranger.
    config: LinkConfig,
    kind: Kind,
    /// How WebSockets are answered, on an endpoint for them.
    server: Option<ServerConfig>,
}

enum Kind {
    /// Serves once.
    Stdio(bool),
    Tcp(tcp::Listener),
    Tls(Box<tls::Listener>),
    #[cfg(unix)]
    Unix(unix::Listener),
}

fn limit(endpoint: &Endpoint, max: usize) -> usize {
    endpoint.max_message_size.unwrap_or(max)
}

fn codec(endpoint: &Endpoint, max: usize) -> AnyCodec {
    AnyCodec::new(endpoint.framing.unwrap_or_default(), limit(endpoint, max))
}

impl Listener {
    /// Listens on `endpoint`, whose messages have at most `max` bytes; what connects gets the deadlines of `config`, and
    /// over WebSocket is let in by `rules`.
    pub(crate) async fn bind(
        endpoint: &Endpoint,
        max: usize,
        config: LinkConfig,
        rules: &Rules,
    ) -> Result<Self, Failure> {
        let mut named = endpoint.clone();
        let cannot =
            |error: io::Error| Failure::Listen(format!("cannot listen on {endpoint}: {}", listening(&error)));
        let mut bound = None;
        let kind = match &endpoint.address {
            Address::Stdio => Kind::Stdio(false),
            Address::Tcp { host, port } => {
                let listener = tcp::Listener::bind((host.as_str(), *port)).await.map_err(cannot)?;
                bound = listener.local_addr().ok();
                Kind::Tcp(listener)
            }
            Address::Tls(address) => {
                let settings = settings::server(endpoint, address)?;
                let host = address.host.as_str();
                let listener = tls::Listener::bind((host, address.port), settings).await.map_err(cannot)?;
                bound = listener.local_addr().ok();
                Kind::Tls(Box::new(listener))
            }
            #[cfg(unix)]
            Address::Unix(path) => Kind::Unix(unix::Listener::bind(path).map_err(cannot)?),
            Address::WebSocket(url, _) if url.target.contains('?') => {
                return Err(Failure::usage(format!("{endpoint}: a listener has no query; its clients have")));
            }
            Address::WebSocket(url, address) => match &url.place {
                Place::Tcp { host, port, secure: false } => {
                    let listener = tcp::Listener::bind((host.as_str(), *port)).await.map_err(cannot)?;
                    bound = listener.local_addr().ok();
                    Kind::Tcp(listener)
                }
                Place::Tcp { host, port, .. } => {
                    let settings = settings::server(endpoint, address)?;
                    let listener =
                        tls::Listener::bind((host.as_str(), *port), settings).await.map_err(cannot)?;
                    bound = listener.local_addr().ok();
                    Kind::Tls(Box::new(listener))
                }
                #[cfg(unix)]
                Place::Unix(path) => Kind::Unix(unix::Listener::bind(path).map_err(cannot)?),
                _ => return Err(Failure::usage(format!("{endpoint}: not built in"))),
            },
            _ => {
                let scheme = endpoint.scheme();
                return Err(Failure::usage(format!(
                    "{scheme}: cannot listen; stdio:, tcp://HOST:PORT, tls://HOST:PORT, unix:PATH, ws://HOST:PORT, wss://HOST:PORT and ws+unix:PATH can (did you mean --connect {endpoint}?)"
                )));
            }
        };
        if let Some(bound) = bound {
            named.set_port(bound.port());
        }
        let loopback = bound.is_none_or(|bound| bound.ip().is_loopback());
        if !loopback && !rules.expose {
            return Err(Failure::usage(format!(
                "{endpoint}: other machines would reach it; add --expose if they shall, or listen on 127.0.0.1 or a Unix socket"
            )));
        }
        let server = match &endpoint.address {
            Address::WebSocket(url, _) => Some(guard::server(url, rules.clone(), loopback)?),
            _ => None,
        };
        if !loopback {
            warn!("{endpoint}: reached from other machines, too");
        }
        Ok(Self { endpoint: named, max, config, kind, server })
    }

    /// What it listens on, with the port that the system chose.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The next connection; `None` when there will be no more.
    pub(crate) async fn accept(&mut self) -> io::Result<Option<Arrived>> {
        let (reader, writer, peer) = match &mut self.kind {
            Kind::Stdio(true) => return Ok(None),
            Kind::Stdio(served) => {
                *served = true;
                let link = any_stdio(codec(&self.endpoint, self.max))?;
                return Ok(Some(Arrived::Open(Box::new(Opened::without_child(link, "stdio".to_owned())))));
            }
            Kind::Tcp(listener) => {
                let (reader, writer, peer) = listener.accept().await?;
                (AnyReader::Tcp(reader), AnyWriter::Tcp(writer), peer.to_string())
            }
            Kind::Tls(listener) => loop {
                match listener.accept_any().await? {
                    (peer, Ok((reader, writer))) => {
                        break (AnyReader::Tls(reader), AnyWriter::Tls(writer), peer.to_string());
                    }
                    (peer, Err(error)) => warn!(peer = peer.to_string(), "refused: {error}"),
                }
            },
            #[cfg(unix)]
            Kind::Unix(listener) => {
                let (reader, writer, peer) = listener.accept().await?;
                let peer = match peer.pid {
                    Some(pid) => format!("pid {pid} uid {}", peer.uid),
                    None => format!("uid {}", peer.uid),
                };
                (AnyReader::Unix(reader), AnyWriter::Unix(writer), peer)
            }
        };
        let config = self.config.clone();
        Ok(Some(match &self.server {
            Some(server) => Arrived::WebSocket(Box::new(Shaking {
                reader,
                writer,
                server: server.clone(),
                codec: guard::codec(Role::Server, limit(&self.endpoint, self.max)),
                config,
                peer,
            })),
            None => {
                let link = Link::with_config(codec(&self.endpoint, self.max), reader, writer, config);
                Arrived::Open(Box::new(Opened::without_child(link, peer)))
            }
        }))
    }

    /// Whether it will serve no more than one connection.
    pub(crate) fn serves_once(&self) -> bool {
        matches!(self.kind, Kind::Stdio(_))
    }
}

fn any_stdio(codec: AnyCodec) -> io::Result<AnyLink> {
    let (reader, writer) = stdio::open()?;
    Ok(Link::pair(codec, AnyReader::Stdio(reader), AnyWriter::Stdio(writer)))
}

/// How backends are reached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outgoing {
    /// Largest message, in bytes.
    pub(crate) max: usize,
    /// Whether compression is offered where there is such a thing.
    pub(crate) deflate: bool,
    /// The proxy that whatever is on TCP goes through.
    pub(crate) proxy: Option<Proxy>,
}

/// Connects to `endpoint`, or starts what it names, for connection number `connection`.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    outgoing: &Outgoing,
    connection: u64,
) -> Result<Opened, Failure> {
    let max = outgoing.max;
    let codec = codec(endpoint, max);
    let options = tcp::TcpOptions::default().connect_timeout(CONNECT_TIMEOUT).proxy(outgoing.proxy.clone());
    let cannot =
        |error: &io::Error| Failure::Connect(format!("cannot connect to {endpoint}: {}", connecting(error)));
    #[cfg(unix)]
    let mut child = None;
    #[cfg(not(unix))]
    let _ = connection;
    let link = match &endpoint.address {
        Address::Stdio => any_stdio(codec).map_err(|error| Failure::runtime(format!("stdio: {error}")))?,
        Address::Tcp { port: 0, .. } => return Err(no_port(endpoint)),
        Address::Tls(address) if address.port == 0 => return Err(no_port(endpoint)),
        Address::Tls(address) => {
            let settings = settings::client(endpoint, address)?;
            let (reader, writer) = tls::connect(&address.host, address.port, &settings, &options)
                .await
                .map_err(|error| cannot(&error))?;
            Link::pair(codec, AnyReader::Tls(reader), AnyWriter::Tls(writer))
        }
        Address::Tcp { host, port } => {
            let (reader, writer) =
                tcp::connect_host(host, *port, &options).await.map_err(|error| cannot(&error))?;
            Link::pair(codec, AnyReader::Tcp(reader), AnyWriter::Tcp(writer))
        }
        #[cfg(unix)]
        Address::Unix(path) => {
            let (reader, writer) = unix::connect(path).await.map_err(|error| cannot(&error))?;
            Link::pair(codec, AnyReader::Unix(reader), AnyWriter::Unix(writer))
        }
        #[cfg(unix)]
        Address::Exec(command) => {
            let (reader, writer, started) = start(command, connection)?;
            child = Some(started);
            Link::pair(codec, reader, writer)
        }
        Address::WebSocket(url, address) => {
            let failed = |error: WebSocketError| match error {
                WebSocketError::Io(error) => cannot(&error),
                error => Failure::Connect(format!("cannot connect to {endpoint}: {error}")),
            };
            let (mut reader, mut writer) = match &url.place {
                Place::Tcp { port: 0, .. } => return Err(no_port(endpoint)),
                Place::Tcp { host, port, secure: false } => {
                    let (reader, writer) =
                        tcp::connect_host(host, *port, &options).await.map_err(|error| cannot(&error))?;
                    (AnyReader::Tcp(reader), AnyWriter::Tcp(writer))
                }
                Place::Tcp { host, port, .. } => {
                    let settings = settings::client(endpoint, address)?;
                    let (reader, writer) = tls::connect(host, *port, &settings, &options)
                        .await
                        .map_err(|error| cannot(&error))?;
                    (AnyReader::Tls(reader), AnyWriter::Tls(writer))
                }
                #[cfg(unix)]
                Place::Unix(path) => {
                    let (reader, writer) = unix::connect(path).await.map_err(|error| cannot(&error))?;
                    (AnyReader::Unix(reader), AnyWriter::Unix(writer))
                }
                _ => return Err(Failure::usage(format!("{endpoint}: not built in"))),
            };
            let request = guard::request(url, outgoing.deflate).map_err(|error| failed(error.into()))?;
            let (connected, unread) =
                websocket::ask(&mut reader, &mut writer, request).await.map_err(failed)?;
            let codec = guard::agreed(guard::codec(Role::Client, limit(endpoint, max)), connected.deflate);
            let codec = AnyCodec::WebSocket(Box::new(codec));
            Link::with_unread(codec, reader, writer, LinkConfig::default(), &unread)
                .map_err(Failure::runtime)?
        }
        Address::Demo => builtin::start(Builtin::Demo, limit(endpoint, max)),
        Address::Echo => builtin::start(Builtin::Echo, limit(endpoint, max)),
        _ => return Err(Failure::usage(format!("{endpoint}: not built in"))),
    };
    #[cfg(unix)]
    let peer = match &child {
        Some(child) => format!("pid {}", child.id()),
        None => endpoint.to_string(),
    };
    #[cfg(not(unix))]
    let peer = endpoint.to_string();
    Ok(Opened {
        link: link.into(),
        #[cfg(unix)]
        child,
        peer,
    })
}

impl Opened {
    fn without_child(link: AnyLink, peer: String) -> Self {
        Self {
            link: link.into(),
            #[cfg(unix)]
            child: None,
            peer,
        }
    }

    /// Closes it and, when a process is behind it, ends that in order: input closed, SIGTERM, SIGKILL.
    pub(crate) async fn end(mut self) {
        let _ = poll_fn(|cx| self.link.poll_close(cx)).await;
        self.cut().await;
    }

    /// As [`end`](Self::end), but what is queued need not leave.
    pub(crate) async fn cut(self) {
        #[cfg(unix)]
        if let Some(child) = &self.child {
            match child.shutdown().await {
                Ok(exit) => debug!("child {}: {exit}", child.id()),
                Err(error) => warn!("child {}: {error}", child.id()),
            }
        }
    }
}

fn listening(error: &io::Error) -> String {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, NotFound, PermissionDenied};
    match error.kind() {
        AddrInUse => {
            "another program listens there already; stop it or choose another (port 0 picks a free one)"
                .into()
        }
        AddrNotAvailable => "this machine has no such address".into(),
        PermissionDenied => {
            "permission denied (ports below 1024 and foreign directories need more rights)".into()
        }
        NotFound => "the directory of the socket does not exist".into(),
        _ => error.to_string(),
    }
}

fn no_port(endpoint: &Endpoint) -> Failure {
    Failure::usage(format!("{endpoint}: port 0 can only be listened on"))
}

fn connecting(error: &io::Error) -> String {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied, TimedOut};
    if let Some(error) = tls::TlsError::of_io(error) {
        return error.to_string();
    }
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<ProxyError>()) {
        return error.to_string();
    }
    match error.kind() {
        ConnectionRefused => "connection refused: nothing listens there. Is the server running?".into(),
        NotFound => "there is no such socket. Is the server running?".into(),
        PermissionDenied => "permission denied".into(),
        TimedOut => format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
        _ => error.to_string(),
    }
}

/// Takes this process's stdin and stdout.
pub(crate) fn stdio<C>(codec: C) -> io::Result<Link<C, Stdin, Stdout>>
where
    C: Codec<Decoder: Decode, Encoder: Encode>,
{
    let (reader, writer) = stdio::open()?;
    Ok(Link::pair(codec, reader, writer))
}

/// Starts `command`. What it writes to its stderr goes to the log, line by line and escaped, so that the log stays
/// one, whatever its form.
#[cfg(unix)]
fn start(command: &[OsString], connection: u64) -> Result<(AnyReader, AnyWriter, ChildHandle), Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::usage(
            "exec: needs a command: exec:COMMAND ARGS, or '-- COMMAND ARGS' at the end",
        ));
    };
    let log = move |line: &[u8]| info!(connection, child = log::preview(line, MAX_STDERR_LINE));
    let (reader, writer, handle) = ChildBuilder::new(program)
        .args(arguments)
        .stderr(ChildStderr::Log(Box::new(log)))
        .stdin_grace(STDIN_GRACE)
        .watchdog(true)
        .spawn()
        .map_err(|error| Failure::Child(error.to_string()))?;
    if !handle.is_watched() {
        warn!(
            connection,
            "no /bin/sh: a child that ignores the end of its input would survive a SIGKILL of this process"
        );
    }
    Ok((AnyReader::Child(reader), AnyWriter::Child(writer), handle))
}
