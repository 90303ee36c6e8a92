//! [`HttpClientConfig`]: what a client sends along, how long it waits and how much it takes.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::events::ClientObserver;
#[cfg(feature = "tls")]
use crate::io::tls::TlsClientConfig;
use crate::{
    io::tcp::TcpOptions,
    limits::{
        HTTP_BACK_OFF_MAX, HTTP_BACK_OFF_MIN, HTTP_MAX_RESUMES, HTTP_MAX_RETRY_AFTER,
        HTTP_REQUESTS_IN_FLIGHT, HTTP_RESPONSE_TIMEOUT, MAX_MESSAGE_SIZE,
    },
};

/// Settings of a client, checked. Made by [`HttpClientConfig::builder`]; clones share what is large.
#[derive(Clone)]
pub struct HttpClientConfig {
    pub(super) headers: HeaderMap,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<TlsClientConfig>,
    pub(super) tcp: TcpOptions,
    pub(super) response_timeout: Duration,
    pub(super) max_message_size: usize,
    pub(super) max_in_flight: usize,
    pub(super) back_off_min: Duration,
    pub(super) back_off_max: Duration,
    pub(super) max_resumes: u32,
    pub(super) max_retry_after: Duration,
    pub(super) one_line: bool,
    pub(super) observer: Option<Arc<dyn ClientObserver>>,
}

/// Makes an [`HttpClientConfig`].
#[derive(Debug, Clone)]
#[must_use]
pub struct HttpClientBuilder {
    headers: Vec<(String, String)>,
    bearer: Option<String>,
    config: HttpClientConfig,
}

/// Why there is no [`HttpClientConfig`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpClientConfigError {
    /// A header's name is none.
    #[error("{name:?} is no name of a header")]
    BadHeaderName {
        /// As it was given.
        name: String,
    },
    /// A header that the client sets by itself.
    #[error("the header {name} is set by the transport")]
    ReservedHeader {
        /// Its name.
        name: String,
    },
    /// A header's value holds what no header can. The value is not shown: it may be a secret.
    #[error("the value of the header {name} holds bytes that no header may have")]
    BadHeaderValue {
        /// The header's name.
        name: String,
    },
    /// A number or time that cannot be.
    #[error("{setting}: {reason}")]
    BadSetting {
        /// Which.
        setting: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Headers that carry the transport itself: another value would break it.
const RESERVED: [&str; 10] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-session-id",
    "transfer-encoding",
    "upgrade",
];

impl HttpClientConfig {
    /// Settings to begin with: no extra headers, the system's authorities for TLS, and the defaults of
    /// [`limits`](crate::limits).
    pub fn builder() -> HttpClientBuilder {
        HttpClientBuilder {
            headers: Vec::new(),
            bearer: None,
            config: Self {
                headers: HeaderMap::new(),
                #[cfg(feature = "tls")]
                tls: None,
                tcp: TcpOptions::default(),
                response_timeout: HTTP_RESPONSE_TIMEOUT,
                max_message_size: MAX_MESSAGE_SIZE,
                max_in_flight: HTTP_REQUESTS_IN_FLIGHT,
                back_off_min: HTTP_BACK_OFF_MIN,
                back_off_max: HTTP_BACK_OFF_MAX,
                max_resumes: HTTP_MAX_RESUMES,
                max_retry_after: HTTP_MAX_RETRY_AFTER,
                one_line: false,
                observer: None,
            },
        }
    }
}

impl Default for HttpClientConfig {
    fn default() -> Self {
        Self::builder().config
    }
}

impl fmt::Debug for HttpClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values of headers may be secrets.
        f.debug_struct("HttpClientConfig")
            .field("headers", &self.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>())
            .field("response_timeout", &self.response_timeout)
            .field("max_message_size", &self.max_message_size)
            .field("max_in_flight", &self.max_in_flight)
            .finish_non_exhaustive()
    }
}

impl HttpClientBuilder {
    /// Sends this header along with every request. May repeat, also with the same name.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sends `Authorization: Bearer TOKEN` along with every request (RFC 6750 §2.1). Never goes elsewhere: redirects are
    /// not followed.
    pub fn bearer(mut self, token: impl Into<String>) -> Self {
        self.bearer = Some(token.into());
        self
    }

    /// How `https` is made safe. Default: the system's authorities, TLS 1.3. HTTP/2 is spoken when the settings offer `h2`
    /// and the server takes it, HTTP/1.1 otherwise, also when the server answers no offer, whatever the settings
    /// [require](crate::io::tls::TlsClientBuilder::require_alpn).
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: TlsClientConfig) -> Self {
        self.config.tls = Some(tls);
        self
    }

    /// How connections below are made.
    pub fn tcp(mut self, options: TcpOptions) -> Self {
        self.config.tcp = options;
        self
    }

    /// How long a connect may take. Default: [`CONNECT_TIMEOUT`](crate::limits::CONNECT_TIMEOUT).
    pub fn connect_timeout(mut self, after: Duration) -> Self {
        self.config.tcp.connect_timeout = after;
        self
    }

    /// How long a request may be without any byte for it, after which it is answered with an error. Default:
    /// [`HTTP_RESPONSE_TIMEOUT`].
    pub fn response_timeout(mut self, after: Duration) -> Self {
        self.config.response_timeout = after;
        self
    }

    /// Largest message in both directions, in bytes. Default: [`MAX_MESSAGE_SIZE`].
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.config.max_message_size = bytes;
        self
    }

    /// Requests under way at once; more of them wait their turn, while notifications and responses pass them. Default:
    /// [`HTTP_REQUESTS_IN_FLIGHT`].
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.config.max_in_flight = requests;
        self
    }

    /// How long to wait before a stream is asked for again: from `min`, doubled each time and with up to `min` of jitter,
    /// to `max`, and from `min` again once an event has come. What the server asks for by `retry` counts for more.
    /// Default: [`HTTP_BACK_OFF_MIN`] to [`HTTP_BACK_OFF_MAX`].
    pub fn back_off(mut self, min: Duration, max: Duration) -> Self {
        self.config.back_off_min = min;
        self.config.back_off_max = max;
        self
    }

    /// Attempts in a row, without an event between them, to go on with a stream that was cut. Default: [`HTTP_MAX_RESUMES`].
    pub fn max_resumes(mut self, attempts: u32) -> Self {
        self.config.max_resumes = attempts;
        self
    }

    /// Longest `Retry-After` that is waited for. Default: [`HTTP_MAX_RETRY_AFTER`].
    pub fn max_retry_after(mut self, time: Duration) -> Self {
        self.config.max_retry_after = time;
        self
    }

    /// Whether line breaks in received messages become blanks, for who passes them on in lines. JSON allows them only
    /// between its tokens, where a blank means the same; every other byte stays. Default: no.
    pub fn one_line(mut self, on: bool) -> Self {
        self.config.one_line = on;
        self
    }

    /// Is told of what the messages alone do not say.
    pub fn observer(mut self, observer: Arc<dyn ClientObserver>) -> Self {
        self.config.observer = Some(observer);
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn build(self) -> Result<HttpClientConfig, HttpClientConfigError> {
        let mut config = self.config;
        let bearer = self.bearer.map(|token| ("authorization".to_owned(), format!("Bearer {token}")));
        for (name, value) in self.headers.into_iter().chain(bearer) {
            let Ok(header) = HeaderName::try_from(&*name) else {
                return Err(HttpClientConfigError::BadHeaderName { name });
            };
            if RESERVED.contains(&header.as_str()) {
                return Err(HttpClientConfigError::ReservedHeader { name });
            }
            let Ok(mut value) = HeaderValue::try_from(value) else {
                return Err(HttpClientConfigError::BadHeaderValue { name });
            };
            value.set_sensitive(header == header::AUTHORIZATION);
            config.headers.append(header, value);
        }
        let wrong = |setting, reason| Err(HttpClientConfigError::BadSetting { setting, reason });
        if config.max_in_flight == 0 {
            return wrong("max_in_flight", "nothing could be sent");
        }
        if config.max_message_size == 0 {
            return wrong("max_message_size", "nothing could be sent");
        }
        if config.back_off_min.is_zero() || config.back_off_max < config.back_off_min {
            return wrong("back_off", "from more than zero up to no less is needed");
        }
        if config.response_timeout.is_zero() {
            return wrong("response_timeout", "nothing could be answered in time");
        }
        Ok(config)
    }
}
