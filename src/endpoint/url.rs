//! [`Url`]: where a WebSocket is, or what speaks HTTP.
//!
//! `ws://HOST[:PORT][/PATH][?QUERY]`, `wss://…` over TLS (RFC 6455 §3), `ws+unix:SOCKET[:PATH]`; and the same with
//! `http`, `https` and `http+unix` (RFC 9110 §4.2).

use std::{fmt, net::Ipv6Addr, path::PathBuf, str::FromStr};

use super::{EndpointError, path_bytes, shown, socket_path};

/// What is spoken at a [`Url`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// WebSocket.
    WebSocket,
    /// HTTP.
    Http,
}

/// What a URL names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Url {
    /// What is spoken there.
    pub protocol: Protocol,
    /// Where the socket is.
    pub place: Place,
    /// What stands in the `Host` header.
    pub host: String,
    /// Path and query of the request, from the slash on.
    pub target: String,
}

/// Where the socket of a [`Url`] is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Place {
    /// A TCP port.
    Tcp {
        /// Name or address, an IPv6 address without its brackets.
        host: String,
        /// Port.
        port: u16,
        /// Whether it speaks TLS (`wss`, `https`).
        secure: bool,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Url {
    /// The scheme: `ws`, `wss`, `ws+unix`, `http`, `https` or `http+unix`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match (self.protocol, &self.place) {
            (Protocol::WebSocket, Place::Tcp { secure: true, .. }) => "wss",
            (Protocol::WebSocket, Place::Tcp { .. }) => "ws",
            (Protocol::WebSocket, Place::Unix(_)) => "ws+unix",
            (Protocol::Http, Place::Tcp { secure: true, .. }) => "https",
            (Protocol::Http, Place::Tcp { .. }) => "http",
            (Protocol::Http, Place::Unix(_)) => "http+unix",
        }
    }

    /// Path of the request, without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&*self.target, |(path, _)| path)
    }

    pub(super) fn set_port(&mut self, number: u16) {
        let Place::Tcp { host, port, .. } = &mut self.place else { return };
        *port = number;
        self.host =
            if host.contains(':') { format!("[{host}]:{number}") } else { format!("{host}:{number}") };
    }
}

impl FromStr for Url {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let wrong = |reason| EndpointError::BadUrl { url: shown(text), reason };
        if text.contains('#') {
            return Err(wrong("a fragment has no meaning in it"));
        }
        if text.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err(wrong("blanks, control characters and what is not ASCII are written %XX"));
        }
        let (scheme, rest) = text.split_once(':').unwrap_or_default();
        let protocol = if scheme.starts_with("ws") { Protocol::WebSocket } else { Protocol::Http };
        if matches!(scheme, "ws+unix" | "http+unix") {
            let (path, target) = match rest.find(':') {
                Some(at) => (rest.get(..at), rest.get(at + 1..)),
                None => (Some(rest), None),
            };
            let (path, target) = (path.unwrap_or_default(), target.unwrap_or("/"));
            if path.is_empty() || !target.starts_with('/') {
                return Err(wrong(
                    "ws+unix:SOCKET or ws+unix:SOCKET:/PATH is needed, or the same with http+unix",
                ));
            }
            return Ok(Self {
                protocol,
                place: Place::Unix(socket_path(path)?),
                host: "localhost".into(),
                target: target.into(),
            });
        }
        let secure = matches!(scheme, "wss" | "https");
        let rest = match rest.strip_prefix("//") {
            Some(rest) if matches!(scheme, "ws" | "wss" | "http" | "https") => rest,
            _ => return Err(wrong("ws, wss, http or https and ://HOST:PORT/PATH is needed")),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(end).unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(wrong("it names a user; a token goes into a header"));
        }
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => {
                let number = port.parse().ok().filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()));
                (name, number.ok_or_else(|| wrong("the port is no number from 0 to 65535"))?)
            }
            _ => (authority, if secure { 443 } else { 80 }),
        };
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        if bare.is_empty() {
            return Err(wrong("the host is missing"));
        }
        let bracketed = bare.len() != name.len();
        if bracketed && bare.contains('%') {
            return Err(wrong("the zone of an IPv6 address has no place in it"));
        }
        if if bracketed { bare.parse::<Ipv6Addr>().is_err() } else { bare.contains([':', '[', ']']) } {
            return Err(wrong("an IPv6 address, and nothing else, stands in brackets"));
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self {
            protocol,
            place: Place::Tcp { host: bare.into(), port, secure },
            host: authority.into(),
            target: format!("{slash}{target}"),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp { .. } => write!(f, "{}://{}{}", self.scheme(), self.host, self.target),
            Place::Unix(path) => {
                write!(f, "{}:", self.scheme())?;
                let bytes = path_bytes(path);
                let bytes = match bytes.strip_prefix(b"\0") {
                    Some(name) => {
                        f.write_str("@")?;
                        name
                    }
                    None => bytes,
                };
                // The two slashes that such a path begins with would be read as those before an authority.
                if bytes.starts_with(b"//") {
                    f.write_str("//")?;
                }
                for (at, byte) in bytes.iter().enumerate() {
                    match byte {
                        b'@' if at == 0 => f.write_str("%40")?,
                        b':' | b'%' | b'#' => write!(f, "%{byte:02X}")?,
                        byte if byte.is_ascii_graphic() => write!(f, "{}", char::from(*byte))?,
                        byte => write!(f, "%{byte:02X}")?,
                    }
                }
                if self.target == "/" { Ok(()) } else { write!(f, ":{}", self.target) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_written_alike() {
        for (text, host, target, written) in [
            ("ws://127.0.0.1:9001", "127.0.0.1:9001", "/", "ws://127.0.0.1:9001/"),
            (
                "ws://h:1/runCase?case=1&agent=x",
                "h:1",
                "/runCase?case=1&agent=x",
                "ws://h:1/runCase?case=1&agent=x",
            ),
            ("wss://h?x", "h", "/?x", "wss://h/?x"),
            ("ws://[::1]:80/a", "[::1]:80", "/a", "ws://[::1]:80/a"),
            ("http://127.0.0.1:8080/mcp", "127.0.0.1:8080", "/mcp", "http://127.0.0.1:8080/mcp"),
            ("https://h?x", "h", "/?x", "https://h/?x"),
            ("http+unix:/run/x:/mcp", "localhost", "/mcp", "http+unix:/run/x:/mcp"),
            ("ws+unix:/run/x", "localhost", "/", "ws+unix:/run/x"),
            ("ws+unix:///run/x%3a:/p", "localhost", "/p", "ws+unix:/run/x%3A:/p"),
            ("http+unix:////run/x", "localhost", "/", "http+unix:////run/x"),
            ("ws+unix:@name:/p", "localhost", "/p", "ws+unix:@name:/p"),
            ("ws+unix:%40name", "localhost", "/", "ws+unix:%40name"),
        ] {
            let url: Url = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((&*url.host, &*url.target, &*url.to_string()), (host, target, written));
            assert_eq!(url.to_string().parse(), Ok(url));
        }
        assert_eq!(
            "wss://h".parse::<Url>().unwrap().place,
            Place::Tcp { host: "h".into(), port: 443, secure: true }
        );
        for (text, protocol, scheme) in [
            ("ws://h", Protocol::WebSocket, "ws"),
            ("wss://h", Protocol::WebSocket, "wss"),
            ("ws+unix:h", Protocol::WebSocket, "ws+unix"),
            ("http://h", Protocol::Http, "http"),
            ("https://h", Protocol::Http, "https"),
            ("http+unix:h", Protocol::Http, "http+unix"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!((url.protocol, url.scheme()), (protocol, scheme));
        }
        for bad in [
            "wsx://h",
            "httpss://h",
            "h",
            "ws://",
            "ws://:80",
            "ws://h:x",
            "ws://h:70000",
            "ws://h:+1",
            "ws://::1/",
            "ws://[h]",
            "ws://[zz:1]",
            "ws://[::1%25lo]",
            "ws://a@h",
            "ws://h/#f",
            "ws://h/ x",
            "ws+unix:",
            "ws+unix:/a:b",
            "ws+unix://run/x",
            "ws+unix:@",
        ] {
            assert!(bad.parse::<Url>().is_err(), "{bad}");
        }
    }
}
