//! [`HttpServerConfig`]: what an HTTP server is told once.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    guard::Access,
    limits::{
        EVENT_STORE_AGE, EVENT_STORE_BYTES, EVENT_STORE_EVENTS, HTTP_ACCEPT_QUEUE, HTTP_KEEP_ALIVE,
        HTTP_MAX_HEAD_SIZE, HTTP_MAX_HEADERS, HTTP_MAX_IN_FLIGHT, HTTP_MAX_SESSIONS, HTTP_MAX_STATELESS,
        HTTP_READ_TIMEOUT, HTTP_RETRY, HTTP_SESSION_IDLE, HTTP_WRITE_TIMEOUT, MAX_MESSAGE_SIZE,
        WRITE_HIGH_WATER,
    },
    transport::Revision,
};

/// hyper reads in pieces of no less.
const MIN_HEAD_SIZE: usize = 8 * 1024;

/// Why settings cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpConfigError {
    /// A path that does not begin with a slash, or holds what no path may hold.
    #[error("{path:?} is not the path of a URL")]
    Path {
        /// The path.
        path: String,
    },
    /// Two things are to be served under one path.
    #[error("two things are served under {path:?}")]
    SamePath {
        /// The path.
        path: String,
    },
    /// A number that has to be larger.
    #[error("{setting} has to be at least {least}")]
    TooSmall {
        /// Which.
        setting: &'static str,
        /// The least that is possible.
        least: usize,
    },
    /// No revision is spoken.
    #[error("no revision of the specification is spoken")]
    NoRevision,
}

/// Whether the server is ready for work.
type Ready = Arc<dyn Fn() -> bool + Send + Sync>;

/// How an [`HttpServer`](super::HttpServer) behaves. Made by [`builder`](Self::builder), or by default.
#[derive(Clone)]
#[non_exhaustive]
pub struct HttpServerConfig {
    pub(super) path: String,
    /// Where a stream of the oldest revision is opened, and where its client posts.
    pub(super) legacy: Option<(String, String)>,
    pub(super) access: Access,
    pub(super) revisions: Vec<Revision>,
    pub(super) max_message_size: usize,
    pub(super) max_head_size: usize,
    pub(super) max_headers: usize,
    pub(super) max_sessions: usize,
    pub(super) max_stateless: usize,
    pub(super) max_in_flight: usize,
    pub(super) accept_queue: usize,
    pub(super) high_water: usize,
    pub(super) store_bytes: usize,
    pub(super) store_events: usize,
    pub(super) store_age: Duration,
    pub(super) session_idle: Duration,
    pub(super) keep_alive: Duration,
    pub(super) retry: Duration,
    pub(super) read_timeout: Duration,
    pub(super) write_timeout: Duration,
    pub(super) socket_idle: Option<Duration>,
    pub(super) close_streams_after: Option<Duration>,
    #[cfg(feature = "deflate")]
    pub(super) deflate: bool,
    pub(super) ready: Ready,
}

impl HttpServerConfig {
    /// Settings to be changed.
    #[must_use]
    pub fn builder() -> HttpServerConfigBuilder {
        HttpServerConfigBuilder(Self::default())
    }

    pub(super) fn speaks(&self, revision: Revision) -> bool {
        self.revisions.contains(&revision)
    }
}

impl Default for HttpServerConfig {
    fn default() -> Self {
        Self {
            path: "/mcp".into(),
            legacy: Some(("/sse".into(), "/messages".into())),
            access: Access::new(),
            revisions: Revision::ALL.to_vec(),
            max_message_size: MAX_MESSAGE_SIZE,
            max_head_size: HTTP_MAX_HEAD_SIZE,
            max_headers: HTTP_MAX_HEADERS,
            max_sessions: HTTP_MAX_SESSIONS,
            max_stateless: HTTP_MAX_STATELESS,
            max_in_flight: HTTP_MAX_IN_FLIGHT,
            accept_queue: HTTP_ACCEPT_QUEUE,
            high_water: WRITE_HIGH_WATER,
            store_bytes: EVENT_STORE_BYTES,
            store_events: EVENT_STORE_EVENTS,
            store_age: EVENT_STORE_AGE,
            session_idle: HTTP_SESSION_IDLE,
            keep_alive: HTTP_KEEP_ALIVE,
            retry: HTTP_RETRY,
            read_timeout: HTTP_READ_TIMEOUT,
            write_timeout: HTTP_WRITE_TIMEOUT,
            socket_idle: None,
            close_streams_after: None,
            #[cfg(feature = "deflate")]
            deflate: true,
            ready: Arc::new(|| true),
        }
    }
}

impl fmt::Debug for HttpServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServerConfig")
            .field("path", &self.path)
            .field("legacy", &self.legacy)
            .field("access", &self.access)
            .field("revisions", &self.revisions)
            .field("max_message_size", &self.max_message_size)
            .field("max_sessions", &self.max_sessions)
            .finish_non_exhaustive()
    }
}

/// Makes an [`HttpServerConfig`].
#[derive(Debug, Clone)]
pub struct HttpServerConfigBuilder(HttpServerConfig);

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $kind:ty;)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $name(mut self, $name: $kind) -> Self {
                self.0.$name = $name;
                self
            }
        )*
    };
}

impl HttpServerConfigBuilder {
    setters! {
        /// Sets whom the server lets in. Default: [`Access::new`].
        access: Access;
        /// Sets the largest message, in bytes, in both directions. Default:
        /// [`MAX_MESSAGE_SIZE`].
        max_message_size: usize;
        /// Sets the largest head of a request, in bytes, at least 8 KiB. Default: [`HTTP_MAX_HEAD_SIZE`].
        max_head_size: usize;
        /// Sets the most headers of a request. Default: [`HTTP_MAX_HEADERS`].
        max_headers: usize;
        /// Sets how many sessions there are at a time; beyond, new ones are refused with 503. Default:
        /// [`HTTP_MAX_SESSIONS`].
        max_sessions: usize;
        /// Sets how many requests without a session are under way at a time; beyond, 429. Default:
        /// [`HTTP_MAX_STATELESS`].
        max_stateless: usize;
        /// Sets how many requests of one session are under way at a time, those of batches among them; beyond, 429, or
        /// 400 for a batch that has more by itself. Default: [`HTTP_MAX_IN_FLIGHT`].
        max_in_flight: usize;
        /// Sets how many sessions wait to be accepted; beyond, 503. Default: [`HTTP_ACCEPT_QUEUE`].
        accept_queue: usize;
        /// Sets the bytes that wait to be taken by the clients of a session beyond which sending waits. Default:
        /// [`WRITE_HIGH_WATER`].
        high_water: usize;
        /// Sets after how long a session with no request under way and no open stream is forgotten. Default:
        /// [`HTTP_SESSION_IDLE`].
        session_idle: Duration;
        /// Sets after how long a silent event stream gets a comment, and an unanswered request is answered by a
        /// stream. Default: [`HTTP_KEEP_ALIVE`].
        keep_alive: Duration;
        /// Sets how long clients are asked to wait before they open a broken stream anew. Default: [`HTTP_RETRY`].
        retry: Duration;
        /// Sets how long a connection may take from one request to the head of the next, a body from one piece to the
        /// next, and a message over WebSocket from its first byte to its last. Default: [`HTTP_READ_TIMEOUT`].
        read_timeout: Duration;
        /// Sets how long a client may take nothing of what waits for it. Default: [`HTTP_WRITE_TIMEOUT`].
        write_timeout: Duration;
        /// Sets how long a client may send nothing over WebSocket between two messages. Default: for any time.
        socket_idle: Option<Duration>;
        /// Sets after how long the stream that answers a POST is closed though the answer is still to come; the client
        /// opens it anew (SEP-1699, revision 2025-11-25). Default: never.
        close_streams_after: Option<Duration>;
        /// Sets whether messages over WebSocket may be compressed (permessage-deflate). Default: true.
        #[cfg(feature = "deflate")]
        deflate: bool;
    }

    /// Sets the path of Streamable HTTP, and of WebSocket. Default: `/mcp`.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.0.path = path.into();
        self
    }

    /// Sets the paths of HTTP with SSE, the transport of 2024-11-05: where the stream is opened, and where messages are
    /// posted. Default: `/sse` and `/messages`.
    #[must_use]
    pub fn legacy_paths(mut self, stream: impl Into<String>, messages: impl Into<String>) -> Self {
        self.0.legacy = Some((stream.into(), messages.into()));
        self
    }

    /// Does not serve HTTP with SSE.
    #[must_use]
    pub fn no_legacy(mut self) -> Self {
        self.0.legacy = None;
        self
    }

    /// Sets the revisions that are spoken. Default: all. HTTP with SSE is spoken as the paths say.
    #[must_use]
    pub fn revisions(mut self, revisions: &[Revision]) -> Self {
        self.0.revisions = revisions.to_vec();
        self
    }

    /// Sets what a session keeps for clients that come back with `Last-Event-ID`: bytes, events, and for how long.
    /// Default: [`EVENT_STORE_BYTES`], [`EVENT_STORE_EVENTS`], [`EVENT_STORE_AGE`].
    #[must_use]
    pub fn event_store(mut self, bytes: usize, events: usize, age: Duration) -> Self {
        (self.0.store_bytes, self.0.store_events, self.0.store_age) = (bytes, events, age);
        self
    }

    /// Sets what `/readyz` says: 200 for true, 503 for false. Default: true.
    #[must_use]
    pub fn ready(mut self, ready: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.0.ready = Arc::new(ready);
        self
    }

    /// The settings.
    ///
    /// # Errors
    /// [`HttpConfigError`].
    pub fn build(self) -> Result<HttpServerConfig, HttpConfigError> {
        let config = self.0;
        let mut paths = vec!["/healthz", "/readyz", &config.path];
        paths.extend(config.legacy.iter().flat_map(|(stream, messages)| [stream.as_str(), messages]));
        for (at, path) in paths.iter().enumerate() {
            let text = path.strip_prefix('/').map(str::as_bytes);
            if !text.is_some_and(|text| {
                text.iter().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(byte))
            }) {
                return Err(HttpConfigError::Path { path: (*path).into() });
            }
            if paths.iter().take(at).any(|other| other == path) {
                return Err(HttpConfigError::SamePath { path: (*path).into() });
            }
        }
        for (setting, value, least) in [
            ("max_message_size", config.max_message_size, 1),
            ("max_head_size", config.max_head_size, MIN_HEAD_SIZE),
            ("max_headers", config.max_headers, 1),
            ("max_in_flight", config.max_in_flight, 1),
            ("accept_queue", config.accept_queue, 1),
            ("high_water", config.high_water, 1),
        ] {
            if value < least {
                return Err(HttpConfigError::TooSmall { setting, least });
            }
        }
        if config.revisions.is_empty() {
            return Err(HttpConfigError::NoRevision);
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_once() {
        let builder = HttpServerConfig::builder;
        assert!(builder().build().is_ok());
        assert!(matches!(builder().path("mcp").build(), Err(HttpConfigError::Path { .. })));
        assert!(matches!(builder().path("/a?b").build(), Err(HttpConfigError::Path { .. })));
        assert!(matches!(builder().path("/sse").build(), Err(HttpConfigError::SamePath { .. })));
        assert!(builder().path("/sse").no_legacy().build().is_ok());
        assert!(matches!(builder().max_head_size(1).build(), Err(HttpConfigError::TooSmall { .. })));
        assert_eq!(builder().revisions(&[]).build().unwrap_err(), HttpConfigError::NoRevision);
    }
}
