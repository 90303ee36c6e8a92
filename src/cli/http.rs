//! What an `http://`, `https://` or `http+unix:` endpoint says, as settings of MCP over HTTP, both roles.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use framewire::{
    endpoint::{Endpoint, Size, TlsAddress, Url},
    io::tcp::TcpOptions,
    link::LinkConfig,
    transport::http::{
        client::{ClientEvent, ClientObserver, HttpClient, HttpClientConfig, HttpClientTransport},
        server::{HttpServer, HttpServerConfig, HttpSessions},
    },
};
use tracing::debug;

use super::{
    exit::Failure,
    open::Outgoing,
    quantity::{self, Deadline},
    tls as settings,
    websocket::Rules,
};

/// Connections that the clients of one session may have open: their streams, and one or two for what they post.
const CONNECTIONS_PER_SESSION: usize = 4;

/// Events that are kept for each session.
const EVENTS: usize = 1024;

/// How long events are kept.
const EVENT_AGE: Duration = Duration::from_secs(5 * 60);

/// As long as no timeout is.
const FOREVER: Duration = Duration::from_secs(366 * 24 * 3600);

/// Limits of MCP over HTTP.
#[derive(Debug, Args)]
pub(crate) struct HttpLimits {
    /// How long a session over HTTP may have no request and no stream, or 'none'
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = quantity::deadline)]
    session_timeout: Deadline,

    /// Bytes of events that are kept for each session over HTTP, for clients that come back for them
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = quantity::size)]
    event_store: Size,

    /// Close the stream that answers a request over HTTP after that time: clients of 2025-11-25 come back for the rest,
    /// on a stream that stays open ('none': streams stay open)
    #[arg(long, value_name = "TIME", default_value = "none", value_parser = quantity::deadline)]
    stream_timeout: Deadline,

    /// File with the bearer token to show to a backend over HTTP
    #[arg(long, value_name = "FILE")]
    backend_token_file: Option<PathBuf>,
}

/// What listeners and backends over HTTP need to know beside their endpoint.
#[derive(Clone)]
pub(crate) struct Settings {
    session_timeout: Option<Duration>,
    event_store: usize,
    stream_timeout: Option<Duration>,
    max_sessions: usize,
    max_in_flight: usize,
    ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl HttpLimits {
    /// These limits, with those of the command that concern HTTP as well. `ready`: whether a backend is there.
    pub(crate) fn settings(
        &self,
        max_sessions: usize,
        max_in_flight: usize,
        ready: Arc<dyn Fn() -> bool + Send + Sync>,
    ) -> Settings {
        Settings {
            session_timeout: self.session_timeout.0,
            event_store: self.event_store.0,
            stream_timeout: self.stream_timeout.0,
            max_sessions,
            max_in_flight,
            ready,
        }
    }

    /// The token to show to backends.
    pub(crate) fn backend_token(&self) -> Result<Option<String>, Failure> {
        self.backend_token_file
            .as_deref()
            .map(|file| super::websocket::token_in("--backend-token-file", file))
            .transpose()
    }
}

impl Settings {
    /// HTTP connections that a listener has open at most.
    pub(crate) fn max_connections(&self) -> u32 {
        u32::try_from(self.max_sessions.saturating_mul(CONNECTIONS_PER_SESSION)).unwrap_or(u32::MAX / 8)
    }
}

/// A server of MCP over HTTP at the path of `url`. `loopback`: only this machine reaches it.
pub(crate) fn server(
    url: &Url,
    rules: &Rules,
    max: usize,
    config: &LinkConfig,
    settings: &Settings,
    loopback: bool,
) -> Result<(HttpServer, HttpSessions), Failure> {
    let ready = settings.ready.clone();
    let mut builder = HttpServerConfig::builder()
        .path(url.path())
        .access(rules.access(loopback))
        .max_message_size(max)
        .max_sessions(settings.max_sessions)
        .max_stateless(settings.max_sessions)
        .max_in_flight(settings.max_in_flight)
        .event_store(settings.event_store, EVENTS, EVENT_AGE)
        .socket_idle(config.idle)
        .close_streams_after(settings.stream_timeout)
        .deflate(rules.deflate())
        .ready(move || ready());
    builder = builder
        .session_idle(settings.session_timeout.unwrap_or(FOREVER))
        .read_timeout(config.frame.unwrap_or(FOREVER))
        .write_timeout(config.write.unwrap_or(FOREVER));
    let config = builder.build().map_err(|error| Failure::usage(format!("{url}: {error}")))?;
    Ok(HttpServer::new(config))
}

/// Makes ready what talks to the server at `url`.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    url: &Url,
    address: &TlsAddress,
    outgoing: &Outgoing,
    options: TcpOptions,
) -> Result<HttpClientTransport, Failure> {
    let mut builder = HttpClientConfig::builder()
        .tcp(options)
        .max_message_size(super::open::limit(endpoint, outgoing.max))
        .one_line(outgoing.json)
        .observer(Arc::new(Told));
    if url.scheme() == "https" {
        let mut address = address.clone();
        if address.alpn.is_empty() {
            address.alpn = ["h2", "http/1.1"].map(str::to_owned).to_vec();
        }
        builder = builder.tls(settings::client(endpoint, &address)?);
    }
    if let Some(token) = &outgoing.token {
        builder = builder.bearer(token);
    }
    let config = builder.build().map_err(|error| Failure::usage(format!("{endpoint}: {error}")))?;
    HttpClient::connect(url, config)
        .await
        .map_err(|error| Failure::Connect(format!("cannot connect to {endpoint}: {error}")))
}

/// Logs what nobody else sees of a backend over HTTP.
struct Told;

impl ClientObserver for Told {
    fn event(&self, event: &ClientEvent<'_>) {
        debug!("backend over HTTP: {event}");
    }
}
