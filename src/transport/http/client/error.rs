//! [`HttpClientError`]: why a request got no answer from the server, and the JSON-RPC error it is answered with instead.

use std::{fmt::Write as _, io, time::Duration};

use crate::{Frame, endpoint::EndpointError, error::Origin};

/// Code of the error that a request is answered with when the server could not be asked or did not answer.
pub const CONNECTION_ERROR: i32 = -32000;

/// Code of the error that a request is answered with when the server took too long.
pub const TIMEOUT_ERROR: i32 = -32001;

/// Why there is no connection, or no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpClientError {
    /// The URL is none that is known here.
    #[error(transparent)]
    Url(#[from] EndpointError),
    /// The URL is for something else than HTTP.
    #[error("{scheme}: is not HTTP")]
    NotHttp {
        /// Its scheme.
        scheme: &'static str,
    },
    /// `https` without the feature `tls`.
    #[error("https:// needs the feature `tls`")]
    NeedsTls,
    /// The settings of TLS could not be made.
    #[error("TLS: {reason}")]
    Tls {
        /// Why.
        reason: String,
    },
    /// The server cannot be reached.
    #[error("the server cannot be reached: {0}")]
    Connect(#[source] io::Error),
    /// The connection broke before the answer was whole. Whether the server carries the request out is not known.
    #[error("the connection was lost before the answer: {reason}")]
    Lost {
        /// What happened to it.
        reason: String,
    },
    /// The stream that was cut could not be gone on with.
    #[error("the stream of the answer was cut and could not be resumed: {reason}")]
    NotResumed {
        /// What happened.
        reason: String,
    },
    /// The server had lost the session and refused a new one, or the request was under way when it did.
    #[error("the session is lost: {reason}")]
    SessionLost {
        /// What happened.
        reason: String,
    },
    /// Nothing came for too long.
    #[error("the server did not answer within {after:?}")]
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// The server is elsewhere. Redirects are never followed: what a request carries is for the server that was named.
    #[error("the server answered {status} and sends the client to {location:?}; redirects are not followed")]
    Redirected {
        /// The status.
        status: u16,
        /// The header `Location`.
        location: String,
    },
    /// The server asks for other credentials (401) or forbids it (403).
    #[error("the server answered {status}: {reason}")]
    Unauthorized {
        /// The status.
        status: u16,
        /// The header `WWW-Authenticate`.
        www_authenticate: Option<String>,
        /// What the server says, shortened.
        reason: String,
    },
    /// The server refused with another status.
    #[error("the server answered {status}: {reason}")]
    Refused {
        /// The status.
        status: u16,
        /// What the server says, shortened.
        reason: String,
        /// The header `Retry-After`, in seconds.
        retry_after: Option<u64>,
    },
    /// The answer is neither JSON nor a stream of events.
    #[error("the server answered with {content_type:?}, which is neither JSON nor a stream of events")]
    ContentType {
        /// The header `Content-Type`.
        content_type: String,
    },
    /// The answer is larger than the limit.
    #[error("the answer exceeds the limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The tool must not be called: what its schema declares about headers is not allowed (`x-mcp-header`).
    #[error("the server's schema of this tool is not valid, so that it must not be called: {reason}")]
    BadTool {
        /// What is wrong.
        reason: &'static str,
    },
    /// What came is no answer to the request.
    #[error("the server's response is no answer: {reason}")]
    BadAnswer {
        /// What is wrong.
        reason: String,
    },
    /// This side was closed before the answer.
    #[error("closed before the answer")]
    Closed,
}

impl HttpClientError {
    /// Who is at fault.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self {
            Self::Url(_)
            | Self::NotHttp { .. }
            | Self::NeedsTls
            | Self::Tls { .. }
            | Self::Closed
            | Self::Unauthorized { .. } => Origin::Caller,
            Self::Connect(_) | Self::Lost { .. } | Self::NotResumed { .. } => Origin::Io,
            Self::SessionLost { .. }
            | Self::TimedOut { .. }
            | Self::Redirected { .. }
            | Self::Refused { .. }
            | Self::ContentType { .. }
            | Self::TooLarge { .. }
            | Self::BadTool { .. }
            | Self::BadAnswer { .. } => Origin::Peer,
        }
    }

    /// The same for another request that met the same fate.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Connect(error) => Self::Connect(io::Error::new(error.kind(), error.to_string())),
            Self::TimedOut { after } => Self::TimedOut { after: *after },
            other => Self::Lost { reason: other.to_string() },
        }
    }

    /// The response to the request `id` (JSON), in one line:
    /// `{"jsonrpc":"2.0","id":…,"error":{"code":…,"message":…,"data":{"status":…, …}}}`.
    pub(super) fn response(&self, id: &[u8]) -> Frame {
        let code = if matches!(self, Self::TimedOut { .. }) { TIMEOUT_ERROR } else { CONNECTION_ERROR };
        let mut text = String::with_capacity(192);
        // Writing to a string does not fail.
        let _ = write!(text, ",\"error\":{{\"code\":{code},\"message\":");
        quote(&mut text, &self.to_string());
        let mut first = true;
        let mut member = |name: &str, value: &dyn Fn(&mut String)| {
            text.push_str(if first { ",\"data\":{" } else { "," });
            first = false;
            quote(&mut text, name);
            text.push(':');
            value(&mut text);
        };
        let number = |number: u64| move |text: &mut String| text.push_str(&number.to_string());
        match self {
            Self::Redirected { status, location } => {
                member("status", &number(u64::from(*status)));
                member("location", &|text| quote(text, location));
            }
            Self::Unauthorized { status, www_authenticate, reason } => {
                member("status", &number(u64::from(*status)));
                if let Some(challenge) = www_authenticate {
                    member("wwwAuthenticate", &|text| quote(text, challenge));
                }
                member("reason", &|text| quote(text, reason));
            }
            Self::Refused { status, reason, retry_after } => {
                member("status", &number(u64::from(*status)));
                member("reason", &|text| quote(text, reason));
                if let Some(seconds) = retry_after {
                    member("retryAfter", &number(*seconds));
                }
            }
            _ => {}
        }
        text.push_str(if first { "}}" } else { "}}}" });
        let mut bytes = Vec::with_capacity(text.len() + id.len() + 24);
        bytes.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
        bytes.extend_from_slice(id);
        bytes.extend_from_slice(text.as_bytes());
        bytes.into()
    }
}

/// Appends `value` as a JSON string.
fn quote(text: &mut String, value: &str) {
    text.push('"');
    for char in value.chars() {
        match char {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            control if control < ' ' => text.push_str(&format!("\\u{:04x}", u32::from(control))),
            char => text.push(char),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Envelope, Id, Kind};

    #[test]
    fn responses_are_json_and_keep_the_id() {
        let errors = [
            HttpClientError::Closed,
            HttpClientError::TimedOut { after: Duration::from_secs(1) },
            HttpClientError::Redirected { status: 302, location: "http://\"x\"\\\n\u{1}".into() },
            HttpClientError::Unauthorized {
                status: 401,
                www_authenticate: Some("Bearer realm=\"x\"".into()),
                reason: "no".into(),
            },
            HttpClientError::Refused { status: 429, reason: String::new(), retry_after: Some(7) },
        ];
        for error in errors {
            let frame = error.response(b"\"a-7\"");
            let envelope = Envelope::strict(&frame).expect("JSON");
            assert_eq!(envelope.kind(), Kind::Error, "{frame:?}");
            assert!(matches!(envelope.id(), Id::String(id) if id.is("a-7")));
        }
    }
}
