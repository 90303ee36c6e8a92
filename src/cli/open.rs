//! Opens the backend that an endpoint names: connects, or starts it. Errors are written for the person at the prompt.

use std::{
    ffi::OsString,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    time::Duration,
};

#[cfg(unix)]
use framewire::io::{
    child::{ChildBuilder, ChildHandle, ChildStderr},
    unix,
};
use framewire::{
    Link,
    codec::{Codec, Decode, Encode, websocket::Role},
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
#[cfg(unix)]
use tokio::time::timeout;
use tracing::warn;
#[cfg(unix)]
use tracing::{debug, info};

#[cfg(unix)]
use super::log;
use super::{
    builtin::{self, Builtin},
    end::{AnyCodec, AnyLink, AnyReader, AnyWriter},
    exit::Failure,
    http, tls as settings,
    transport::AnyTransport,
    websocket as guard,
};

/// How long a connect or the start of a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a line of a child's stderr that are logged.
#[cfg(unix)]
const MAX_STDERR_LINE: usize = 2048;

/// How long a child may take to exit once the connection is over: its input was closed long before.
#[cfg(unix)]
const STDIN_GRACE: Duration = Duration::from_millis(500);

/// What a client speaks above its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// Messages, one after the other.
    Stream,
    /// MCP over HTTP, with a session.
    Session,
    /// MCP over HTTP, one request.
    Request,
}

/// An end that is open.
pub(crate) struct Opened {
    pub(crate) link: AnyTransport,
    pub(crate) speaks: Speaks,
    /// Completes when it waits for no answer, where that can be told.
    pub(crate) answered: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    /// The process behind it, if one was started.
    #[cfg(unix)]
    pub(crate) child: Option<ChildHandle>,
    /// Who it is, for logs.
    pub(crate) peer: String,
}

pub(super) fn limit(endpoint: &Endpoint, max: usize) -> usize {
    endpoint.max_message_size.unwrap_or(max)
}

pub(super) fn codec(endpoint: &Endpoint, max: usize) -> AnyCodec {
    AnyCodec::new(endpoint.framing.unwrap_or_default(), limit(endpoint, max))
}

pub(super) fn any_stdio(codec: AnyCodec) -> io::Result<AnyLink> {
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
    /// Whether messages are JSON for certain: line breaks between its tokens then become blanks where a line is a message.
    pub(crate) json: bool,
    /// The bearer token that is shown over HTTP.
    pub(crate) token: Option<String>,
    /// Whether what is received has to be JSON, from clients too.
    pub(crate) validate: bool,
    /// The proxy that whatever is on TCP goes through.
    pub(crate) proxy: Option<Proxy>,
}

/// How long a child that gave no answer is waited for, to tell one that has failed.
#[cfg(unix)]
const EXIT_GRACE: Duration = Duration::from_millis(500);

/// Connects to `endpoint`, or starts what it names, for connection number `connection`.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    outgoing: &Outgoing,
    connection: u64,
) -> Result<Opened, Failure> {
    let max = outgoing.max;
    let codec = codec(endpoint, max).on_one_line(outgoing.json);
    let options = tcp::TcpOptions::default().connect_timeout(CONNECT_TIMEOUT).proxy(outgoing.proxy.clone());
    let cannot =
        |error: &io::Error| Failure::Connect(format!("cannot connect to {endpoint}: {}", connecting(error)));
    #[cfg(unix)]
    let mut child = None;
    #[cfg(not(unix))]
    let _ = connection;
    let link: AnyLink = match &endpoint.address {
        Address::Http(url, address) => {
            let transport = Box::new(http::connect(endpoint, url, address, outgoing, options).await?);
            return Ok(Opened::behind(AnyTransport::Other(transport), endpoint.to_string()));
        }
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
    let mut opened = Opened {
        link: link.into(),
        speaks: Speaks::Stream,
        answered: None,
        #[cfg(unix)]
        child,
        peer,
    };
    if outgoing.validate {
        opened.link.validate();
    }
    Ok(opened)
}

impl Opened {
    pub(super) fn without_child(link: AnyLink, peer: String) -> Self {
        Self::behind(link.into(), peer)
    }

    /// Something that has no process of its own.
    pub(crate) fn behind(link: AnyTransport, peer: String) -> Self {
        Self {
            link,
            speaks: Speaks::Stream,
            answered: None,
            #[cfg(unix)]
            child: None,
            peer,
        }
    }

    /// `failure`, or that of the child, which is then why there was no answer.
    pub(crate) async fn blame(&self, endpoint: &Endpoint, failure: Failure) -> Failure {
        #[cfg(unix)]
        if let Some(child) = &self.child
            && let Ok(Ok(exit)) = timeout(EXIT_GRACE, child.wait()).await
            && !exit.is_success()
        {
            return Failure::Child(format!("{endpoint}: the child process {exit} instead of answering"));
        }
        #[cfg(not(unix))]
        let _ = endpoint;
        failure
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

/// Tells now if `endpoint` names a program that is not there. Not an error yet: it may be put there before a client comes.
pub(crate) fn look_for(endpoint: &Endpoint) {
    #[cfg(unix)]
    if let Address::Exec(command) = &endpoint.address
        && let Some(program) = command.first()
        && let Err(error) = ChildBuilder::new(program).check()
    {
        warn!("no client can be served as it stands: {error}");
    }
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
