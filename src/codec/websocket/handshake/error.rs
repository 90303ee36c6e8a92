//! [`HandshakeError`]: why a handshake failed, and the HTTP answer to that.

use crate::error::Origin;

/// Why an opening handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The head is larger than its limit.
    #[error("handshake head exceeds the limit of {limit} bytes")]
    HeadTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The head has more headers than its limit.
    #[error("handshake with more than {limit} headers")]
    TooManyHeaders {
        /// The limit.
        limit: usize,
    },
    /// The head breaks a rule.
    #[error("bad handshake: {rule} ({section})")]
    Bad {
        /// What was wrong.
        rule: &'static str,
        /// Where the rule stands.
        section: &'static str,
        /// The HTTP status that a server answers with.
        status: u16,
    },
    /// The request is refused by the server's policy.
    #[error("handshake refused: {reason} (status {status})")]
    Refused {
        /// Why.
        reason: &'static str,
        /// The HTTP status that the server answers with.
        status: u16,
    },
    /// The server did not switch protocols.
    #[error("the server answered {status} instead of switching protocols{}", location.as_deref().map(|to| format!(", and points to {to}; redirects are not followed")).unwrap_or_default())]
    Status {
        /// The HTTP status.
        status: u16,
        /// Where the server points to, for a redirect. It is not followed.
        location: Option<String>,
        /// The start of the answer's body, at most 1 KiB of what came with the head.
        body: String,
    },
    /// The stream ended inside the handshake.
    #[error("the connection ended inside the handshake")]
    Ended,
    /// A part of the request that the caller gave cannot stand in it.
    #[error("{part} cannot stand in a request: {value:?}")]
    Unusable {
        /// Which part.
        part: &'static str,
        /// What was given.
        value: String,
    },
}

impl HandshakeError {
    pub(super) fn bad(rule: &'static str, section: &'static str) -> Self {
        Self::Bad { rule, section, status: 400 }
    }

    /// Who is at fault.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self {
            Self::Unusable { .. } => Origin::Caller,
            _ => Origin::Peer,
        }
    }

    /// The HTTP status of a server's answer; `None` when there is nobody to answer to.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::HeadTooLarge { .. } | Self::TooManyHeaders { .. } => Some(431),
            Self::Bad { status, .. } | Self::Refused { status, .. } => Some(*status),
            Self::Status { .. } | Self::Ended | Self::Unusable { .. } => None,
        }
    }

    /// The bytes a server answers with; empty when there is nobody to answer to. After them the connection is closed.
    #[must_use]
    pub fn response(&self) -> Vec<u8> {
        let Some(status) = self.status() else { return Vec::new() };
        let (phrase, extra) = match status {
            400 => ("Bad Request", ""),
            401 => ("Unauthorized", "WWW-Authenticate: Bearer\r\n"),
            403 => ("Forbidden", ""),
            404 => ("Not Found", ""),
            405 => ("Method Not Allowed", "Allow: GET\r\n"),
            426 => ("Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
            431 => ("Request Header Fields Too Large", ""),
            503 => ("Service Unavailable", "Retry-After: 1\r\n"),
            505 => ("HTTP Version Not Supported", ""),
            _ => ("Refused", ""),
        };
        // One of our own fixed texts: nothing of the peer's goes back.
        let body = format!("{self}\n");
        // `Connection: close`, and `Upgrade` too where that header stands (RFC 9110 §7.8).
        let connection = if status == 426 { "Upgrade, close" } else { "close" };
        format!(
            "HTTP/1.1 {status} {phrase}\r\n{extra}Connection: {connection}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}
