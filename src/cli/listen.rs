//! Listens on what an endpoint names, and takes clients in. Errors are written for the person at the prompt.

use std::{future::Future, io, pin::Pin, sync::Arc};

#[cfg(unix)]
use framewire::io::unix;
use framewire::{
    Link,
    codec::{
        WebSocket,
        websocket::{Role, handshake::ServerConfig},
    },
    endpoint::{Address, Endpoint, Place},
    io::{tcp, tls},
    link::LinkConfig,
    transport::{
        http::server::{HttpServer, HttpSession, HttpSessions, SessionKind},
        websocket,
    },
};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::{
    end::{AnyCodec, AnyReader, AnyWriter},
    exit::Failure,
    http,
    open::{Opened, Speaks, any_stdio, codec, limit},
    tls as tls_settings,
    transport::AnyTransport,
    websocket::{self as guard, Rules},
};

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
        // Boxed, as the rest of a session has no use for the room that it needs.
        let answer = websocket::answer(&mut shaking.reader, &mut shaking.writer, &shaking.server);
        let (accepted, unread) =
            Box::pin(answer).await.map_err(|error| Failure::runtime(format!("{}: {error}", shaking.peer)))?;
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
    speaks: Above,
    /// Whether what backends say is JSON.
    json: bool,
}

/// What is spoken above the bytes of a connection.
enum Above {
    /// The framing of the endpoint.
    Framing,
    WebSocket(ServerConfig),
    Http(Http),
}

/// HTTP: connections are served by tasks of their own, and sessions come of them.
pub(crate) struct Http {
    server: HttpServer,
    sessions: HttpSessions,
    connections: Connections,
}

/// The HTTP connections of a listener that are open.
#[derive(Clone)]
pub(crate) struct Connections {
    server: HttpServer,
    /// A permit for each that may still come.
    free: Arc<Semaphore>,
    max: u32,
}

impl Connections {
    /// Takes no more requests.
    pub(crate) fn shut(&self) {
        self.server.shutdown();
    }

    /// Takes no more requests, and waits until what is under way is answered and all connections have ended.
    pub(crate) async fn end(&self) {
        self.shut();
        drop(self.free.acquire_many(self.max).await);
    }
}

enum Kind {
    /// Serves once.
    Stdio(bool),
    Tcp(tcp::Listener),
    Tls(Box<tls::Listener>),
    #[cfg(unix)]
    Unix(unix::Listener),
}

impl Listener {
    /// Listens on `endpoint`, whose messages have at most `max` bytes; what connects gets the deadlines of `config`, and
    /// over WebSocket is let in by `rules`.
    pub(crate) async fn bind(
        endpoint: &Endpoint,
        max: usize,
        config: LinkConfig,
        rules: &Rules,
        settings: &http::Settings,
    ) -> Result<Self, Failure> {
        let mut named = endpoint.clone();
        let cannot = |error: io::Error| {
            Failure::Listen(format!(
                "cannot listen on {endpoint}: {}",
                listening(&error, is_socket_file(endpoint))
            ))
        };
        let mut bound = None;
        let kind = match &endpoint.address {
            Address::Stdio => Kind::Stdio(false),
            Address::Tcp { host, port } => {
                let listener = tcp::Listener::bind((host.as_str(), *port)).await.map_err(cannot)?;
                bound = listener.local_addr().ok();
                Kind::Tcp(listener)
            }
            Address::Tls(address) => {
                let tls = tls_settings::server(endpoint, address)?;
                let host = address.host.as_str();
                let listener = tls::Listener::bind((host, address.port), tls).await.map_err(cannot)?;
                bound = listener.local_addr().ok();
                Kind::Tls(Box::new(listener))
            }
            #[cfg(unix)]
            Address::Unix(path) => Kind::Unix(unix::Listener::bind(path).map_err(cannot)?),
            Address::WebSocket(url, _) | Address::Http(url, _) if url.target.contains('?') => {
                return Err(Failure::usage(format!("{endpoint}: a listener has no query; its clients have")));
            }
            Address::WebSocket(url, address) | Address::Http(url, address) => match &url.place {
                Place::Tcp { host, port, secure: false } => {
                    let listener = tcp::Listener::bind((host.as_str(), *port)).await.map_err(cannot)?;
                    bound = listener.local_addr().ok();
                    Kind::Tcp(listener)
                }
                Place::Tcp { host, port, .. } => {
                    let tls = tls_settings::server(endpoint, address)?;
                    let listener = tls::Listener::bind((host.as_str(), *port), tls).await.map_err(cannot)?;
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
                    "{scheme}: cannot listen; stdio:, tcp://HOST:PORT, tls://HOST:PORT, unix:PATH, http://HOST:PORT, https://HOST:PORT, http+unix:PATH, ws://HOST:PORT, wss://HOST:PORT and ws+unix:PATH can (did you mean --connect {endpoint}?)"
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
        let speaks = match &endpoint.address {
            Address::WebSocket(url, _) => Above::WebSocket(guard::server(url, rules.clone(), loopback)?),
            Address::Http(url, _) => {
                let (server, sessions) =
                    http::server(url, rules, limit(endpoint, max), &config, settings, loopback)?;
                let max = settings.max_connections();
                let free = Arc::new(Semaphore::new(max as usize));
                let connections = Connections { server: server.clone(), free, max };
                Above::Http(Http { server, sessions, connections })
            }
            _ => Above::Framing,
        };
        if !loopback {
            warn!("{endpoint}: reached from other machines, too");
        }
        Ok(Self { endpoint: named, max, config, kind, speaks, json: false })
    }

    /// Where a line is a message, puts those of backends that speak JSON on one line.
    pub(crate) fn on_one_line(mut self, json: bool) -> Self {
        self.json = json;
        self
    }

    /// What it listens on, with the port that the system chose.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The connections that sessions over HTTP hang on.
    pub(crate) fn connections(&self) -> Option<Connections> {
        match &self.speaks {
            Above::Http(http) => Some(http.connections.clone()),
            _ => None,
        }
    }

    /// Stops listening, but keeps what sessions over HTTP hang on.
    pub(crate) fn into_sessions(self) -> Option<HttpSessions> {
        match self.speaks {
            Above::Http(http) => Some(http.sessions),
            _ => None,
        }
    }

    /// The next client; `None` when there will be no more.
    pub(crate) async fn accept(&mut self) -> io::Result<Option<Arrived>> {
        if let Kind::Stdio(served) = &mut self.kind {
            if *served {
                return Ok(None);
            }
            *served = true;
            let link = any_stdio(codec(&self.endpoint, self.max).on_one_line(self.json))?;
            return Ok(Some(Arrived::Open(Box::new(Opened::without_child(link, "stdio".to_owned())))));
        }
        if let Above::Http(http) = &mut self.speaks {
            return http.accept(&mut self.kind).await;
        }
        let (reader, writer, peer) = self.kind.accept().await?;
        let config = self.config.clone();
        Ok(Some(match &self.speaks {
            Above::WebSocket(server) => Arrived::WebSocket(Box::new(Shaking {
                reader,
                writer,
                server: server.clone(),
                codec: guard::codec(Role::Server, limit(&self.endpoint, self.max)),
                config,
                peer,
            })),
            _ => {
                let codec = codec(&self.endpoint, self.max).on_one_line(self.json);
                let link = Link::with_config(codec, reader, writer, config);
                Arrived::Open(Box::new(Opened::without_child(link, peer)))
            }
        }))
    }

    /// Whether it will serve no more than one connection.
    pub(crate) fn serves_once(&self) -> bool {
        matches!(self.kind, Kind::Stdio(_))
    }
}

impl Kind {
    /// The next connection. May be dropped while it waits.
    async fn accept(&mut self) -> io::Result<(AnyReader, AnyWriter, String)> {
        match self {
            Self::Stdio(_) => std::future::pending().await,
            Self::Tcp(listener) => {
                let (reader, writer, peer) = listener.accept().await?;
                Ok((AnyReader::Tcp(reader), AnyWriter::Tcp(writer), peer.to_string()))
            }
            Self::Tls(listener) => loop {
                match listener.accept_any().await? {
                    (peer, Ok((reader, writer))) => {
                        return Ok((AnyReader::Tls(reader), AnyWriter::Tls(writer), peer.to_string()));
                    }
                    (peer, Err(error)) => warn!(peer = peer.to_string(), "refused: {error}"),
                }
            },
            #[cfg(unix)]
            Self::Unix(listener) => {
                let (reader, writer, peer) = listener.accept().await?;
                let peer = match peer.pid {
                    Some(pid) => format!("pid {pid} uid {}", peer.uid),
                    None => format!("uid {}", peer.uid),
                };
                Ok((AnyReader::Unix(reader), AnyWriter::Unix(writer), peer))
            }
        }
    }
}

impl Http {
    /// The next session; serves connections meanwhile.
    async fn accept(&mut self, kind: &mut Kind) -> io::Result<Option<Arrived>> {
        loop {
            tokio::select! {
                session = self.sessions.accept() => {
                    return Ok(session.map(|session| Arrived::Open(Box::new(opened(session)))));
                }
                connection = kind.accept() => {
                    let (reader, writer, peer) = connection?;
                    let Ok(permit) = self.connections.free.clone().try_acquire_owned() else {
                        warn!(peer, "refused: {} HTTP connections open already", self.connections.max);
                        continue;
                    };
                    let server = self.server.clone();
                    tokio::spawn(async move {
                        let name: Arc<str> = peer.into();
                        if let Err(error) = server.serve(reader, writer, name.clone()).await {
                            debug!(peer = &*name, "HTTP connection: {error}");
                        }
                        drop(permit);
                    });
                }
            }
        }
    }
}

fn opened(session: HttpSession) -> Opened {
    let speaks = match session.kind() {
        SessionKind::WebSocket => Speaks::Stream,
        SessionKind::Stateless => Speaks::Request,
        _ => Speaks::Session,
    };
    let peer = match session.id() {
        "" => session.peer().to_owned(),
        id => format!("{} session {}", session.peer(), id.get(..8).unwrap_or(id)),
    };
    // Of the others only their ends know what is under way.
    let answered: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>> = match session.kind() {
        SessionKind::WebSocket | SessionKind::Legacy => None,
        _ => Some(Box::pin(session.answered())),
    };
    Opened { speaks, answered, ..Opened::behind(AnyTransport::Other(Box::new(session)), peer) }
}

fn is_socket_file(endpoint: &Endpoint) -> bool {
    match &endpoint.address {
        Address::Unix(_) => true,
        Address::WebSocket(url, _) | Address::Http(url, _) => matches!(url.place, Place::Unix(_)),
        _ => false,
    }
}

fn listening(error: &io::Error, is_socket_file: bool) -> String {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, NotFound, PermissionDenied};
    match error.kind() {
        AddrInUse if is_socket_file => in_the_way(error).unwrap_or_else(|| {
            "another program listens there already; stop it or choose another path".into()
        }),
        AddrInUse => {
            "another program listens there already; stop it or choose another port (0 picks a free one)"
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

/// What stands where a socket is to be, when it is no server that listens.
#[cfg(unix)]
fn in_the_way(error: &io::Error) -> Option<String> {
    let occupied: &unix::Occupied = error.get_ref()?.downcast_ref()?;
    (!occupied.is_served).then(|| occupied.why.clone())
}

#[cfg(not(unix))]
fn in_the_way(_: &io::Error) -> Option<String> {
    None
}
