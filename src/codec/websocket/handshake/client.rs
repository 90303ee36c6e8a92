//! [`Client`]: the asking side of the opening handshake (RFC 6455 §4.1).

use data_encoding::BASE64;

use super::{
    HandshakeError, accept_key,
    extensions::{self, DeflateParams},
    field::{self, Fields},
    head::HeadEnd,
    server::usable,
};
use crate::{
    codec::websocket::key,
    limits::{HANDSHAKE_MAX_HEAD, HANDSHAKE_MAX_HEADERS},
};

/// Bytes of the body of a refusal that are kept.
const MAX_EXCERPT: usize = 1024;

/// What a client asks for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    host: String,
    target: String,
    origin: Option<String>,
    protocols: Vec<String>,
    headers: Vec<(String, String)>,
    deflate: Option<DeflateParams>,
    max_head: usize,
}

impl Request {
    /// A request for `target` (path and query, from the slash on) of `host`, as it stands in a `Host` header: with its
    /// port where that is not the scheme's own, IPv6 addresses in brackets.
    ///
    /// # Errors
    /// When one of them cannot stand there.
    pub fn new(host: &str, target: &str) -> Result<Self, HandshakeError> {
        let visible = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !visible(host) || host.contains(['/', '@', ',', '?', '#']) {
            return Err(HandshakeError::Unusable { part: "host", value: host.into() });
        }
        if !visible(target) || !target.starts_with('/') || target.contains('#') {
            return Err(HandshakeError::Unusable { part: "path", value: target.into() });
        }
        Ok(Self {
            host: host.into(),
            target: target.into(),
            origin: None,
            protocols: Vec::new(),
            headers: Vec::new(),
            deflate: None,
            max_head: HANDSHAKE_MAX_HEAD,
        })
    }

    /// Adds a header.
    ///
    /// # Errors
    /// When its name is no token or belongs to the handshake, or its value is not visible ASCII.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, HandshakeError> {
        self.headers.push(usable(name, value)?);
        Ok(self)
    }

    /// Sends a bearer token.
    ///
    /// # Errors
    /// When it is not visible ASCII.
    pub fn bearer(self, token: &str) -> Result<Self, HandshakeError> {
        self.header("Authorization", &format!("Bearer {token}"))
            .map_err(|_| HandshakeError::Unusable { part: "bearer token", value: "(not shown)".into() })
    }

    /// Sends an `Origin`.
    ///
    /// # Errors
    /// When it is not visible ASCII.
    pub fn origin(mut self, origin: &str) -> Result<Self, HandshakeError> {
        if !origin.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(HandshakeError::Unusable { part: "origin", value: origin.into() });
        }
        self.origin = Some(origin.into());
        Ok(self)
    }

    /// Adds a subprotocol, after those that are preferred to it.
    ///
    /// # Errors
    /// When it is no token.
    pub fn protocol(mut self, protocol: &str) -> Result<Self, HandshakeError> {
        if !field::is_token(protocol) || self.protocols.iter().any(|one| one == protocol) {
            return Err(HandshakeError::Unusable { part: "subprotocol", value: protocol.into() });
        }
        self.protocols.push(protocol.into());
        Ok(self)
    }

    /// Offers `permessage-deflate`, with windows no larger and contexts kept no more than `params` say.
    #[must_use]
    pub fn deflate(mut self, params: DeflateParams) -> Self {
        self.deflate = Some(params);
        self
    }

    /// Sets the largest head of the answer, in bytes. Default: [`HANDSHAKE_MAX_HEAD`].
    #[must_use]
    pub fn max_head(mut self, bytes: usize) -> Self {
        self.max_head = bytes;
        self
    }
}

/// A handshake that the server has agreed to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connected {
    /// Bytes of the answer's head; what stands behind them are frames already.
    pub consumed: usize,
    /// The subprotocol that the server took.
    pub protocol: Option<String>,
    /// The parameters of `permessage-deflate`, when the server took it.
    pub deflate: Option<DeflateParams>,
}

/// The asking side, for one connection.
#[derive(Debug, Clone)]
pub struct Client {
    request: Vec<u8>,
    accept: String,
    protocols: Vec<String>,
    deflate: Option<DeflateParams>,
    max_head: usize,
    /// Bytes of interim answers that have come.
    interim: usize,
    end: HeadEnd,
}

impl Client {
    /// The asking side for one connection, with a key of its own.
    #[must_use]
    pub fn new(request: Request) -> Self {
        let key = BASE64.encode([key::next(), key::next(), key::next(), key::next()].as_flattened());
        Self::with_key(request, &key)
    }

    fn with_key(request: Request, key: &str) -> Self {
        let mut text = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n\
             Sec-WebSocket-Version: 13\r\n",
            request.target, request.host
        );
        let mut add = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                text.push_str(part);
            }
        };
        if let Some(origin) = &request.origin {
            add("Origin", origin);
        }
        if !request.protocols.is_empty() {
            add("Sec-WebSocket-Protocol", &request.protocols.join(", "));
        }
        if let Some(params) = request.deflate {
            add("Sec-WebSocket-Extensions", &extensions::offer(params));
        }
        for (name, value) in &request.headers {
            add(name, value);
        }
        text.push_str("\r\n");
        Self {
            request: text.into_bytes(),
            accept: accept_key(key),
            protocols: request.protocols,
            deflate: request.deflate,
            max_head: request.max_head,
            interim: 0,
            end: HeadEnd::default(),
        }
    }

    /// The bytes to send.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Looks at `src`, all bytes that have come; it grows from call to call. `None`: the head is not all here. Interim
    /// answers before it (RFC 9110 §15.2) are passed over, and count towards the limit of the head.
    ///
    /// # Errors
    /// When the server refuses, breaks a rule, or takes what it was not offered. The connection is then closed.
    pub fn decode(&mut self, src: &[u8]) -> Result<Option<Connected>, HandshakeError> {
        loop {
            let answer = src.get(self.interim..).unwrap_or_default();
            let consumed = match self.end.find(answer, self.max_head.saturating_sub(self.interim)) {
                Ok(Some(consumed)) => consumed,
                Ok(None) => return Ok(None),
                Err(HandshakeError::HeadTooLarge { .. }) => {
                    return Err(HandshakeError::HeadTooLarge { limit: self.max_head });
                }
                Err(error) => return Err(error),
            };
            if let Some(connected) = self.answered(answer, consumed)? {
                return Ok(Some(Connected { consumed: self.interim + consumed, ..connected }));
            }
            self.interim += consumed;
            self.end = HeadEnd::default();
        }
    }

    /// What an answer says whose head is the first `consumed` bytes of `src`; `None` when another is to follow.
    fn answered(&self, src: &[u8], consumed: usize) -> Result<Option<Connected>, HandshakeError> {
        let (head, rest) = src.split_at_checked(consumed).unwrap_or_default();
        // Only a server is asked to be so lenient (RFC 9112 §2.2).
        if head.starts_with(b"\r\n") {
            return Err(HandshakeError::bad("a blank line before the first line", "RFC 9112 §4"));
        }
        let mut headers = [httparse::EMPTY_HEADER; HANDSHAKE_MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(head) {
            Ok(httparse::Status::Complete(len)) if len == consumed => {}
            Err(httparse::Error::TooManyHeaders) => {
                return Err(HandshakeError::TooManyHeaders { limit: HANDSHAKE_MAX_HEADERS });
            }
            Ok(_) | Err(_) => return Err(HandshakeError::bad("malformed HTTP response", "RFC 9112 §4")),
        }
        let bad = HandshakeError::bad;
        let fields = Fields(response.headers);
        match (response.version, response.code) {
            (Some(1), Some(101)) => {}
            (Some(1), Some(100..=199)) => return Ok(None),
            (_, Some(status)) if status != 101 => {
                let location =
                    fields.one("location", "Location is doubled", "RFC 9110 §10.2.2").ok().flatten();
                let excerpt = rest.get(..MAX_EXCERPT).unwrap_or(rest);
                return Err(HandshakeError::Status {
                    status,
                    location: location.map(Into::into),
                    body: String::from_utf8_lossy(excerpt).into_owned(),
                });
            }
            _ => return Err(bad("the HTTP version is not 1.1", "RFC 6455 §4.2.2")),
        }
        let upgrade = fields.one("upgrade", "Upgrade is doubled", "RFC 6455 §4.1")?;
        if !upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket")) {
            return Err(bad("Upgrade is not websocket", "RFC 6455 §4.1"));
        }
        if !fields.has_token("connection", "upgrade")? {
            return Err(bad("Connection has no Upgrade", "RFC 6455 §4.1"));
        }
        let accept =
            fields.one("sec-websocket-accept", "Sec-WebSocket-Accept is doubled", "RFC 6455 §4.1")?;
        if accept != Some(&*self.accept) {
            return Err(bad("Sec-WebSocket-Accept is not the answer to the key", "RFC 6455 §4.1"));
        }
        let protocol =
            fields.one("sec-websocket-protocol", "several subprotocols were taken", "RFC 6455 §4.1")?;
        if protocol.is_some_and(|taken| !self.protocols.iter().any(|asked| asked == taken)) {
            return Err(bad("the server took a subprotocol that was not offered", "RFC 6455 §4.1"));
        }
        let answered = extensions::parse(&fields.all("sec-websocket-extensions")?)?;
        let deflate = extensions::confirm(&answered, self.deflate)?;
        Ok(Some(Connected { consumed, protocol: protocol.map(Into::into), deflate }))
    }
}
