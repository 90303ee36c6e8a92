//! [`Server`]: the answering side of the opening handshake (RFC 6455 §4.2).

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use data_encoding::BASE64;

use super::{
    HandshakeError, accept_key,
    extensions::{self, DeflateParams},
    field::{self, Fields},
    head::HeadEnd,
};
use crate::limits::{HANDSHAKE_MAX_HEAD, HANDSHAKE_MAX_HEADERS, HANDSHAKE_TIMEOUT};

/// What a client asks for, before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asked<'a> {
    /// The request target: path and query, from the slash on.
    pub target: &'a str,
    /// The `Host` header, or the host that a target in absolute form names (RFC 9112 §3.2.2).
    pub host: &'a str,
    /// The `Origin` header; browsers always send one.
    pub origin: Option<&'a str>,
    /// The token of an `Authorization: Bearer` header.
    pub bearer: Option<&'a str>,
}

impl<'a> Asked<'a> {
    /// The target without its query.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }
}

/// What a server's policy says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Go on.
    Accept,
    /// 401: no token, or not the right one.
    Unauthorized,
    /// 403: not from there, or not for that host.
    Forbidden,
    /// 404: nothing is served under this path.
    NotFound,
    /// 503: no room for another connection.
    Busy,
}

type Policy = Arc<dyn Fn(&Asked<'_>) -> Verdict + Send + Sync>;

/// How a server answers; shared by all its connections.
#[derive(Clone)]
#[non_exhaustive]
pub struct ServerConfig {
    max_head: usize,
    protocols: Vec<String>,
    headers: Vec<(String, String)>,
    deflate: Option<DeflateParams>,
    policy: Policy,
    timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            max_head: HANDSHAKE_MAX_HEAD,
            protocols: Vec::new(),
            headers: Vec::new(),
            deflate: None,
            policy: Arc::new(|_| Verdict::Accept),
            timeout: HANDSHAKE_TIMEOUT,
        }
    }
}

impl ServerConfig {
    /// Accepts any path, host and origin, no subprotocol and no extension, heads of 16 KiB.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long a handshake may take, from the connection to the answer. For those who read for it: [`Server`]
    /// itself has no clock. Default: [`HANDSHAKE_TIMEOUT`].
    #[must_use]
    pub fn timeout(mut self, after: Duration) -> Self {
        self.timeout = after;
        self
    }

    /// How long a handshake may take.
    #[must_use]
    pub fn handshake_timeout(&self) -> Duration {
        self.timeout
    }

    /// Sets the largest head, in bytes. Default: [`HANDSHAKE_MAX_HEAD`].
    #[must_use]
    pub fn max_head(mut self, bytes: usize) -> Self {
        self.max_head = bytes;
        self
    }

    /// Adds a subprotocol that this server speaks. The first that the client names and the server speaks is taken; a
    /// client that names none of them is served without one (RFC 6455 §4.2.2).
    ///
    /// # Errors
    /// When it is no token.
    pub fn protocol(mut self, protocol: &str) -> Result<Self, HandshakeError> {
        if !field::is_token(protocol) {
            return Err(HandshakeError::Unusable { part: "subprotocol", value: protocol.into() });
        }
        self.protocols.push(protocol.into());
        Ok(self)
    }

    /// Adds a header to the answer.
    ///
    /// # Errors
    /// When its name is no token or belongs to the handshake, or its value is not visible ASCII.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, HandshakeError> {
        self.headers.push(usable(name, value)?);
        Ok(self)
    }

    /// Accepts `permessage-deflate`, with windows no larger and contexts kept no more than `params` say.
    #[must_use]
    pub fn deflate(mut self, params: DeflateParams) -> Self {
        self.deflate = Some(params);
        self
    }

    /// Sets who is served: asked with each request that is a good handshake otherwise, before it is answered.
    #[must_use]
    pub fn policy(mut self, policy: impl Fn(&Asked<'_>) -> Verdict + Send + Sync + 'static) -> Self {
        self.policy = Arc::new(policy);
        self
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("max_head", &self.max_head)
            .field("protocols", &self.protocols)
            .field("deflate", &self.deflate)
            .finish_non_exhaustive()
    }
}

/// A header that may stand beside those of the handshake.
pub(super) fn usable(name: &str, value: &str) -> Result<(String, String), HandshakeError> {
    const OWN: [&str; 7] =
        ["host", "upgrade", "connection", "content-length", "transfer-encoding", "trailer", "origin"];
    let lower = name.to_ascii_lowercase();
    if !field::is_token(name) || lower.starts_with("sec-websocket-") || OWN.contains(&&*lower) {
        return Err(HandshakeError::Unusable { part: "header name", value: name.into() });
    }
    if !value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        return Err(HandshakeError::Unusable { part: "header value", value: value.into() });
    }
    Ok((name.into(), value.into()))
}

/// A handshake that is agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accepted {
    /// The bytes to answer with; the frames of both ends follow.
    pub response: Vec<u8>,
    /// Bytes of the request's head; what stands behind them are frames already.
    pub consumed: usize,
    /// The request target: path and query, from the slash on.
    pub target: String,
    /// The subprotocol that was taken.
    pub protocol: Option<String>,
    /// The parameters of `permessage-deflate`, when it was taken.
    pub deflate: Option<DeflateParams>,
}

/// The answering side, for one connection.
#[derive(Debug, Clone)]
pub struct Server {
    config: ServerConfig,
    end: HeadEnd,
}

impl Server {
    /// The answering side for one connection.
    #[must_use]
    pub fn new(config: ServerConfig) -> Self {
        Self { config, end: HeadEnd::default() }
    }

    /// Looks at `src`, all bytes that have come; it grows from call to call. `None`: the head is not all here.
    ///
    /// # Errors
    /// When the request is no handshake, breaks a rule, is too large, or is refused.
    /// [`HandshakeError::response`] is then sent, and the connection closed.
    pub fn decode(&mut self, src: &[u8]) -> Result<Option<Accepted>, HandshakeError> {
        let Some(consumed) = self.end.find(src, self.config.max_head)? else { return Ok(None) };
        let head = src.get(..consumed).unwrap_or_default();
        let mut headers = [httparse::EMPTY_HEADER; HANDSHAKE_MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(head) {
            Ok(httparse::Status::Complete(len)) if len == consumed => {}
            Err(httparse::Error::TooManyHeaders) => {
                return Err(HandshakeError::TooManyHeaders { limit: HANDSHAKE_MAX_HEADERS });
            }
            Ok(_) | Err(_) => return Err(HandshakeError::bad("malformed HTTP request", "RFC 9112 §3")),
        }
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version)
        else {
            return Err(HandshakeError::bad("malformed HTTP request", "RFC 9112 §3"));
        };
        self.answer(method, target, version, Fields(request.headers), consumed).map(Some)
    }

    fn answer(
        &self,
        method: &str,
        target: &str,
        version: u8,
        fields: Fields<'_>,
        consumed: usize,
    ) -> Result<Accepted, HandshakeError> {
        let bad = HandshakeError::bad;
        let with = |status, rule, section| HandshakeError::Bad { rule, section, status };
        if method != "GET" {
            return Err(with(405, "the method is not GET", "RFC 6455 §4.1, item 2"));
        }
        if version < 1 {
            return Err(with(505, "the HTTP version is below 1.1", "RFC 6455 §4.1, item 2"));
        }
        let (authority, target) =
            origin_form(target).ok_or(bad("malformed request target", "RFC 9112 §3.2"))?;
        let host =
            fields.one("host", "Host is doubled", "RFC 9112 §3.2")?.filter(|host| field::is_host(host));
        let host = host.ok_or(bad("Host is missing or malformed", "RFC 6455 §4.1, item 4"))?;
        let host = match authority {
            None => host,
            Some(authority) => Some(authority)
                .filter(|host| field::is_host(host))
                .ok_or(bad("malformed host in the request target", "RFC 9112 §3.2.2"))?,
        };
        if fields.has("content-length") && fields.all("content-length")? != ["0"]
            || fields.has("transfer-encoding")
        {
            return Err(bad("the request has a body", "RFC 6455 §4.1"));
        }
        if !fields.has_token("upgrade", "websocket")? {
            return Err(with(426, "no upgrade to websocket is asked for", "RFC 6455 §4.1, item 5"));
        }
        if !fields.has_token("connection", "upgrade")? {
            return Err(bad("Connection has no Upgrade", "RFC 6455 §4.1, item 6"));
        }
        let version =
            fields.one("sec-websocket-version", "Sec-WebSocket-Version is doubled", "RFC 6455 §11.3.5")?;
        if version != Some("13") {
            return Err(with(426, "Sec-WebSocket-Version is not 13", "RFC 6455 §4.4"));
        }
        let key = fields.one("sec-websocket-key", "Sec-WebSocket-Key is doubled", "RFC 6455 §11.3.1")?;
        let key = key.filter(|key| BASE64.decode(key.as_bytes()).is_ok_and(|key| key.len() == 16));
        let key = key.ok_or(bad("Sec-WebSocket-Key is not 16 bytes in base64", "RFC 6455 §4.1, item 7"))?;
        let asked = field::protocols(&fields.all("sec-websocket-protocol")?)?;
        let offered = extensions::parse(&fields.all("sec-websocket-extensions")?)?;
        let origin = fields.one("origin", "Origin is doubled", "RFC 6454 §7.3")?;
        let authorization = fields.one("authorization", "Authorization is doubled", "RFC 9110 §11.6.2")?;
        let bearer = authorization
            .and_then(|value| value.split_once(' '))
            .and_then(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer").then_some(token.trim_ascii()));
        match (self.config.policy)(&Asked { target: &target, host, origin, bearer }) {
            Verdict::Accept => {}
            verdict => return Err(refusal(verdict)),
        }
        let protocol = asked.into_iter().find(|asked| self.config.protocols.iter().any(|own| own == asked));
        let deflate = self.config.deflate.and_then(|own| extensions::choose(&offered, own));
        let mut response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n",
            accept_key(key)
        );
        let mut add = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                response.push_str(part);
            }
        };
        if let Some(protocol) = protocol {
            add("Sec-WebSocket-Protocol", protocol);
        }
        if let Some(agreed) = &deflate {
            add("Sec-WebSocket-Extensions", &agreed.header);
        }
        for (name, value) in &self.config.headers {
            add(name, value);
        }
        response.push_str("\r\n");
        Ok(Accepted {
            response: response.into_bytes(),
            consumed,
            target: target.into_owned(),
            protocol: protocol.map(Into::into),
            deflate: deflate.map(|agreed| agreed.params),
        })
    }
}

/// The host, where it names one, and the path and query of a request target: in origin form, or in absolute form with
/// `http` or `https` (RFC 6455 §4.1, item 2; RFC 9112 §3.2).
fn origin_form(target: &str) -> Option<(Option<&str>, Cow<'_, str>)> {
    // httparse lets any UTF-8 pass. A fragment is none of a request's (RFC 6455 §3).
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return None;
    }
    if target.starts_with('/') {
        return Some((None, target.into()));
    }
    let (scheme, rest) = target.split_once("://")?;
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    let (host, path) = rest.split_at_checked(rest.find(['/', '?']).unwrap_or(rest.len()))?;
    let path = if path.starts_with('/') { path.into() } else { format!("/{path}").into() };
    Some((Some(host), path))
}

fn refusal(verdict: Verdict) -> HandshakeError {
    let (reason, status) = match verdict {
        Verdict::Unauthorized => ("a valid bearer token is needed", 401),
        Verdict::NotFound => ("nothing is served under this path", 404),
        Verdict::Busy => ("no room for another connection", 503),
        Verdict::Forbidden | Verdict::Accept => ("this host or origin is not allowed", 403),
    };
    HandshakeError::Refused { reason, status }
}
