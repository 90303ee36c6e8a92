//! [`Proxy`]: a way out through an HTTP proxy, by `CONNECT` (RFC 9110 §9.3.6).
//!
//! Uses httparse and tokio's sockets; [`TcpOptions`](super::tcp::TcpOptions) holds one where it was asked for. No
//! environment variable is ever looked at.

use std::{fmt, io, str::FromStr};

use data_encoding::BASE64;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::error::Origin;

/// Largest head of a proxy's answer, in bytes.
const MAX_HEAD: usize = 8 * 1024;

/// Most headers of it.
const MAX_HEADERS: usize = 64;

/// An HTTP proxy that is asked for tunnels. The connection to it is plain; what goes through may be TLS.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Proxy {
    host: String,
    port: u16,
    /// The value of `Proxy-Authorization`.
    authorization: Option<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.authorization.as_ref().map(|_| "…");
        f.debug_struct("Proxy")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("authorization", &user)
            .finish()
    }
}

/// Why a proxy made no tunnel, or why a text names none. Inside an [`io::Error`] when a connect failed by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The text names no proxy.
    #[error("a proxy is written http://HOST:PORT or http://USER:PASSWORD@HOST:PORT")]
    BadUrl,
    /// The name of the server cannot stand in a request.
    #[error("the host cannot be asked for: it has blanks or control characters")]
    BadHost,
    /// The proxy said no.
    #[error("the proxy refused: status {status}")]
    Refused {
        /// Its status; 407 when it wants to know who asks.
        status: u16,
    },
    /// The proxy's answer is no HTTP.
    #[error("the proxy's answer is no HTTP")]
    BadAnswer,
    /// The proxy cannot be reached, or the connection to it ended before it had answered.
    #[error("the connection to the proxy failed: {reason}")]
    Connection {
        /// What the system says.
        reason: String,
    },
    /// The head of its answer is too large.
    #[error("the head of the proxy's answer is over {limit} bytes")]
    HeadTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
}

impl ProxyError {
    /// Who is at fault.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self {
            Self::BadUrl | Self::BadHost => Origin::Caller,
            Self::Connection { .. } => Origin::Io,
            _ => Origin::Peer,
        }
    }
}

impl ProxyError {
    /// An error of the connection to the proxy, told from one of the server behind it; its kind stays.
    pub(super) fn of(error: io::Error) -> io::Error {
        if error.get_ref().is_some_and(|inner| inner.is::<Self>()) {
            return error;
        }
        io::Error::new(error.kind(), Self::Connection { reason: error.to_string() })
    }
}

impl From<ProxyError> for io::Error {
    fn from(error: ProxyError) -> Self {
        let kind = match error {
            ProxyError::BadUrl | ProxyError::BadHost => io::ErrorKind::InvalidInput,
            ProxyError::Refused { .. } => io::ErrorKind::ConnectionRefused,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

impl FromStr for Proxy {
    type Err = ProxyError;

    /// Reads `http://[USER:PASSWORD@]HOST:PORT`, an IPv6 address in brackets; the scheme may be left out. In user and
    /// password `%XX` stands for a byte (RFC 3986 §2.1).
    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        let (host, port) = place.rsplit_once(':').ok_or(ProxyError::BadUrl)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let name = bare.unwrap_or(host);
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port != 0).ok_or(ProxyError::BadUrl)?;
        let wrong = |byte: u8| !byte.is_ascii_graphic() || b"/@[]?#".contains(&byte);
        if name.is_empty() || name.bytes().any(wrong) || (bare.is_none() && name.contains(':')) {
            return Err(ProxyError::BadUrl);
        }
        let authorization = match user {
            // RFC 7617 §2: the first colon ends the user's name, so that cannot hold one.
            Some(user) => match user.split_once(':') {
                Some((name, _)) if !unescaped(name).contains(&b':') => {
                    Some(format!("Basic {}", BASE64.encode(&unescaped(user))))
                }
                _ => return Err(ProxyError::BadUrl),
            },
            None => None,
        };
        Ok(Self { host: name.to_owned(), port, authorization })
    }
}

/// `text` with each `%XX` as the byte that it stands for; any other percent sign stands for itself.
fn unescaped(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let escape = match rest {
            [b'%', high, low, behind @ ..] => digit(*high).zip(digit(*low)).map(|digits| (digits, behind)),
            _ => None,
        };
        let (byte, behind) = match escape {
            Some(((high, low), behind)) => ((high << 4 | low) as u8, behind),
            None => (*first, behind),
        };
        bytes.push(byte);
        rest = behind;
    }
    bytes
}

impl fmt::Display for Proxy {
    /// Without the user.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "http://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "http://{}:{}", self.host, self.port)
        }
    }
}

impl Proxy {
    /// Where it is.
    pub(super) fn place(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Asks on a fresh connection to the proxy for a tunnel to `host`, whose name the proxy looks up. Not a byte behind
    /// the head of its answer is taken from the stream.
    pub(super) async fn tunnel(&self, stream: &mut TcpStream, host: &str, port: u16) -> io::Result<()> {
        if host.is_empty() || host.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'/') {
            return Err(ProxyError::BadHost.into());
        }
        let place = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let mut request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;

        let mut most = MAX_HEAD;
        loop {
            let head = read_head(stream, most).await?;
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            match (response.parse(&head), response.code) {
                (Ok(httparse::Status::Complete(_)), Some(200..=299)) => return Ok(()),
                // Another is to follow (RFC 9110 §15.2); 101 is an answer to what was not asked.
                (Ok(httparse::Status::Complete(_)), Some(100 | 102..=199)) => {
                    most = most.saturating_sub(head.len());
                }
                (Ok(httparse::Status::Complete(_)), Some(status)) => {
                    return Err(ProxyError::Refused { status }.into());
                }
                _ => return Err(ProxyError::BadAnswer.into()),
            }
        }
    }
}

/// Takes the head of an answer out of `stream`, and nothing behind it.
async fn read_head(stream: &mut TcpStream, most: usize) -> io::Result<Vec<u8>> {
    let (mut head, mut window) = (Vec::new(), [0; 1024]);
    loop {
        let seen = stream.peek(&mut window).await?;
        let Some(fresh) = window.get(..seen).filter(|fresh| !fresh.is_empty()) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let before = head.len();
        head.extend_from_slice(fresh);
        // The end may begin in what came before.
        let from = before.saturating_sub(3);
        let end =
            head.get(from..).and_then(|tail| memchr::memmem::find(tail, b"\r\n\r\n")).map(|at| from + at + 4);
        head.truncate(end.unwrap_or(head.len()));
        let Some(taken) = window.get_mut(..head.len() - before) else {
            return Err(ProxyError::BadAnswer.into());
        };
        stream.read_exact(taken).await?;
        if head.len() > most {
            return Err(ProxyError::HeadTooLarge { limit: MAX_HEAD }.into());
        }
        if end.is_some() {
            return Ok(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_and_its_user_never_shown() {
        for (text, shown) in [
            ("http://127.0.0.1:3128", "http://127.0.0.1:3128"),
            ("proxy:80/", "http://proxy:80"),
            ("http://me:secret@[::1]:8080", "http://[::1]:8080"),
        ] {
            let proxy: Proxy = text.parse().unwrap();
            assert_eq!(proxy.to_string(), shown);
            assert!(!format!("{proxy:?}").contains("secret"));
        }
        let proxy: Proxy = "http://Aladdin:open sesame@h:1".parse().unwrap();
        assert_eq!(proxy.authorization.as_deref(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), "RFC 7617 §2");
        // A percent sign that begins no escape stands for itself.
        let proxy: Proxy = "http://m%65:p%40%3a50%25%20%x@h:1".parse().unwrap();
        let expected = format!("Basic {}", BASE64.encode(b"me:p@:50% %x"));
        assert_eq!(proxy.authorization, Some(expected));
        for bad in [
            "",
            "m%3ae:x@h:1",
            "h",
            "h:0",
            "h:+1",
            "h:99999",
            "https://h:1",
            "me@h:1",
            "::1:80",
            "http://h:1/x",
            "h h:1",
            ":80",
        ] {
            assert_eq!(bad.parse::<Proxy>(), Err(ProxyError::BadUrl), "{bad}");
        }
    }
}
