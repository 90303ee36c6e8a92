//! Endpoints: one text that names one end of a connection, as `framewire bridge --listen … --connect …` takes it.
//!
//! Uses `limits` and `codec` names only; the gateway and the command may use it. Nothing here opens anything.
//!
//! ```text
//! stdio:                     this process's own stdin and stdout
//! exec:COMMAND ARGS          a child process, started anew for each connection; words and quotes as in a shell, no shell
//! tcp://HOST:PORT            TCP; IPv6 addresses in brackets
//! tls://HOST:PORT            TLS over TCP, with the options ca, cert, key, client-ca, pin, server-name, min-version, alpn
//! unix:PATH                  a Unix socket; % ? and control characters in the path are written %XX
//! unix:@NAME                 an abstract one, which is in no file system (Linux)
//! ws://HOST:PORT/PATH        WebSocket; wss:// over TLS, ws+unix:SOCKET[:/PATH] on a Unix socket
//! http://HOST:PORT/PATH      MCP over HTTP; https:// over TLS, http+unix:SOCKET[:/PATH] on a Unix socket
//! demo:                      a small MCP server inside this program
//! echo:                      sends each message back
//! ```
//!
//! Options follow a `?`, separated by `&`: `tcp://localhost:9110?framing=length&max-message-size=1MiB`. Those of `exec`
//! stand before its colon, `exec?framing=length:COMMAND ARGS`, because a question mark may be part of any command. Those
//! of a URL (WebSocket, HTTP) follow a `#`, because the query is its server's: `wss://example.com/mcp?user=1#ca=ca.pem`.

use std::{
    ffi::OsString,
    fmt,
    net::Ipv6Addr,
    path::{Path, PathBuf},
    str::FromStr,
};

mod error;
mod size;
mod suggestion;
mod tls;
mod url;
mod words;

pub use error::EndpointError;
pub use size::{Size, SizeError};
use suggestion::{did_you_mean, nearest, no_scheme, shown, unknown_scheme};
pub use tls::TlsAddress;
pub use url::{Place, Protocol, Url};

/// One end of a connection: where it is and how its bytes are cut into messages.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Endpoint {
    /// Where it is.
    pub address: Address,
    /// How messages lie in its bytes; `None` when the text does not say, which the command takes as
    /// [`Framing::Newline`].
    pub framing: Option<Framing>,
    /// Largest message accepted from it and sent to it, in bytes of payload; `None` when the text does not say.
    pub max_message_size: Option<usize>,
}

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// This process's own stdin and stdout.
    Stdio,
    /// A child process; empty when the command is still to come (`exec: -- COMMAND ARGS`).
    Exec(
        /// The program and its arguments.
        Vec<OsString>,
    ),
    /// A TCP port.
    Tcp {
        /// Name or address, an IPv6 address without its brackets.
        host: String,
        /// Port. 0 asks the system for a free one, which only makes sense for listening.
        port: u16,
    },
    /// A TCP port that speaks TLS.
    Tls(
        /// Where, and how it is made safe.
        Box<TlsAddress>,
    ),
    /// A Unix socket.
    Unix(
        /// Path of the socket; an abstract name stands behind a NUL byte.
        PathBuf,
    ),
    /// A WebSocket, with what its options say about TLS (`wss`).
    WebSocket(
        /// Where.
        Box<Url>,
        /// How it is made safe; its host and port are the URL's.
        Box<TlsAddress>,
    ),
    /// MCP over HTTP, with what its options say about TLS (`https`).
    Http(
        /// Where.
        Box<Url>,
        /// How it is made safe; its host and port are the URL's.
        Box<TlsAddress>,
    ),
    /// A small MCP server inside this program.
    Demo,
    /// Sends each message back.
    Echo,
}

/// How messages lie in a stream of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Framing {
    /// One message per line, as MCP's stdio transport has it.
    #[default]
    Newline,
    /// A length of four bytes, big-endian, before each message.
    Length,
    /// A `Content-Length` header before each message, as in the Language Server Protocol.
    ContentLength,
    /// JSON values one after the other, with or without anything between.
    #[cfg(feature = "json")]
    Json,
}

impl Framing {
    /// As written in `?framing=`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Newline => "newline",
            Self::Length => "length",
            Self::ContentLength => "content-length",
            #[cfg(feature = "json")]
            Self::Json => "json",
        }
    }
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Framing {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        match text {
            "newline" => Ok(Self::Newline),
            "length" => Ok(Self::Length),
            "content-length" => Ok(Self::ContentLength),
            #[cfg(feature = "json")]
            "json" => Ok(Self::Json),
            #[cfg(not(feature = "json"))]
            "json" => Err(EndpointError::NeedsJson),
            _ => Err(EndpointError::UnknownFraming {
                hint: did_you_mean(nearest(text, &["newline", "length", "content-length", "json"])),
                framing: shown(text),
            }),
        }
    }
}

/// Longest path of a Unix socket in bytes: `sun_path` of 108 with its NUL on Linux, 104 on the BSDs and macOS.
const MAX_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

impl Endpoint {
    /// An endpoint at `address` without options.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self { address, framing: None, max_message_size: None }
    }

    /// The scheme: `stdio`, `exec`, `tcp`, `tls`, `unix`, `demo`, `echo` or that of the URL.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match &self.address {
            Address::Stdio => "stdio",
            Address::Exec(_) => "exec",
            Address::Tcp { .. } => "tcp",
            Address::Tls(_) => "tls",
            Address::Unix(_) => "unix",
            Address::WebSocket(url, _) | Address::Http(url, _) => url.scheme(),
            Address::Demo => "demo",
            Address::Echo => "echo",
        }
    }

    /// Names another port, where the address has one: the one that the system chose for port 0.
    pub fn set_port(&mut self, number: u16) {
        match &mut self.address {
            Address::Tcp { port, .. } => *port = number,
            Address::Tls(address) => address.port = number,
            Address::WebSocket(url, address) | Address::Http(url, address) => {
                url.set_port(number);
                address.port = number;
            }
            _ => {}
        }
    }

    fn options(&self) -> String {
        let mut options = String::new();
        if let Some(framing) = self.framing {
            options.push_str("?framing=");
            options.push_str(framing.name());
        }
        if let Some(size) = self.max_message_size {
            options.push(if options.is_empty() { '?' } else { '&' });
            options.push_str("max-message-size=");
            options.push_str(&Size(size).to_string());
        }
        if let Address::Tls(tls) | Address::WebSocket(_, tls) | Address::Http(_, tls) = &self.address {
            for (name, value) in tls.typed() {
                options.push(if options.is_empty() { '?' } else { '&' });
                options.push_str(&format!("{name}={value}"));
            }
        }
        options
    }

    fn parse_options(mut self, options: &str) -> Result<Self, EndpointError> {
        let mut seen = Vec::new();
        for option in options.split('&') {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match name {
                "framing" if self.framing.is_some() => {
                    return Err(EndpointError::RepeatedOption { option: "framing" });
                }
                "framing"
                    if matches!(
                        self.address,
                        Address::Demo | Address::Echo | Address::WebSocket(..) | Address::Http(..)
                    ) =>
                {
                    return Err(EndpointError::FramingOnWhole { scheme: self.scheme() });
                }
                "framing" => self.framing = Some(value.parse()?),
                "max-message-size" if self.max_message_size.is_some() => {
                    return Err(EndpointError::RepeatedOption { option: "max-message-size" });
                }
                "max-message-size" => match value.parse::<Size>()? {
                    Size(0) => return Err(EndpointError::ZeroSize),
                    Size(size) => self.max_message_size = Some(size),
                },
                _ => match &mut self.address {
                    Address::Tls(tls) => tls.option(name, value, &mut seen, true)?,
                    Address::WebSocket(url, tls) | Address::Http(url, tls)
                        if matches!(url.place, Place::Tcp { secure: true, .. }) =>
                    {
                        tls.option(name, value, &mut seen, false)?
                    }
                    Address::WebSocket(..) | Address::Http(..) | Address::Demo | Address::Echo => {
                        return Err(EndpointError::UnknownOption {
                            hint: did_you_mean(nearest(name, &["max-message-size"])),
                            option: shown(name),
                            known: "max-message-size",
                        });
                    }
                    _ => {
                        return Err(EndpointError::UnknownOption {
                            hint: did_you_mean(nearest(name, &["framing", "max-message-size"])),
                            option: shown(name),
                            known: "framing, max-message-size",
                        });
                    }
                },
            }
        }
        if let Address::Tls(tls) | Address::WebSocket(_, tls) | Address::Http(_, tls) = &self.address {
            tls.check()?;
        }
        Ok(self)
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(EndpointError::Empty);
        }
        let (head, rest) = text.split_once(':').ok_or_else(|| no_scheme(text))?;
        if let Some(options) = head.strip_prefix("exec?") {
            return Self::new(Address::Exec(command(rest)?)).parse_options(options);
        }
        if head == "exec" {
            return Ok(Self::new(Address::Exec(command(rest)?)));
        }
        if matches!(head, "ws" | "wss" | "ws+unix" | "http" | "https" | "http+unix") {
            // The query is the server's: options stand behind a '#', which the request has no other use for.
            let (url, options) =
                text.split_once('#').map_or((text, None), |(url, options)| (url, Some(options)));
            let url: Url = url.parse()?;
            let tls = match &url.place {
                Place::Tcp { host, port, .. } => TlsAddress::new(host, *port),
                Place::Unix(_) => TlsAddress::default(),
            };
            let (protocol, url, tls) = (url.protocol, Box::new(url), Box::new(tls));
            let endpoint = Self::new(match protocol {
                Protocol::WebSocket => Address::WebSocket(url, tls),
                Protocol::Http => Address::Http(url, tls),
            });
            return options.map_or(Ok(endpoint.clone()), |options| endpoint.parse_options(options));
        }
        let (body, options) = match rest.split_once('?') {
            Some((body, options)) => (body, Some(options)),
            None => (rest, None),
        };
        let address = match head {
            "stdio" => bare(body, "stdio", Address::Stdio)?,
            "demo" => bare(body, "demo", Address::Demo)?,
            "echo" => bare(body, "echo", Address::Echo)?,
            "tcp" => tcp(body)?,
            "tls" => {
                let (host, port) = host_and_port(body, "tls")?;
                Address::Tls(Box::new(TlsAddress::new(host, port)))
            }
            "unix" => Address::Unix(socket_path(body)?),
            _ => return Err(unknown_scheme(head, text)),
        };
        let endpoint = Self::new(address);
        match options {
            Some(options) => endpoint.parse_options(options),
            None => Ok(endpoint),
        }
    }
}

impl fmt::Display for Endpoint {
    /// As it would be typed. Parsing it gives the same endpoint, except for arguments that are not UTF-8.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = self.options();
        match &self.address {
            Address::Stdio | Address::Demo | Address::Echo => write!(f, "{}:{options}", self.scheme()),
            Address::Exec(command) => {
                write!(f, "exec{options}:")?;
                for (at, word) in command.iter().enumerate() {
                    let space = if at == 0 { "" } else { " " };
                    write!(f, "{space}{}", words::quote(&word.to_string_lossy()))?;
                }
                Ok(())
            }
            Address::Tcp { host, port } => write_host(f, "tcp", host, *port, &options),
            Address::Tls(tls) => write_host(f, "tls", &tls.host, tls.port, &options),
            Address::Unix(path) => write!(f, "unix:{}{options}", escaped(path)),
            Address::WebSocket(url, _) | Address::Http(url, _) => {
                write!(f, "{url}{}", options.replacen('?', "#", 1))
            }
        }
    }
}

fn write_host(f: &mut fmt::Formatter<'_>, scheme: &str, host: &str, port: u16, options: &str) -> fmt::Result {
    if host.contains(':') {
        write!(f, "{scheme}://[{host}]:{port}{options}")
    } else {
        write!(f, "{scheme}://{host}:{port}{options}")
    }
}

/// A scheme that takes nothing after its colon.
fn bare(body: &str, scheme: &'static str, address: Address) -> Result<Address, EndpointError> {
    match body {
        "" | "//" => Ok(address),
        extra => Err(EndpointError::Trailing { extra: shown(extra), scheme }),
    }
}

fn command(text: &str) -> Result<Vec<OsString>, EndpointError> {
    let words = words::split(text)?;
    if let Some(last) = words.last().filter(|_| !text.trim_end().ends_with(['\'', '"'])) {
        for option in ["?framing=", "?max-message-size="] {
            if let Some(at) = last.find(option) {
                let options = shown(last.get(at + 1..).unwrap_or_default());
                return Err(EndpointError::OptionsAfterCommand { options });
            }
        }
    }
    Ok(words.into_iter().map(OsString::from).collect())
}

fn tcp(body: &str) -> Result<Address, EndpointError> {
    host_and_port(body, "tcp").map(|(host, port)| Address::Tcp { host, port })
}

fn host_and_port(body: &str, scheme: &'static str) -> Result<(String, u16), EndpointError> {
    let rest = body.strip_prefix("//").unwrap_or(body);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(|| EndpointError::BadHost {
                host: shown(rest),
                reason: "the bracket is not closed",
            })?;
            let address = host.split_once('%').map_or(host, |(address, _zone)| address);
            if address.parse::<Ipv6Addr>().is_err()
                || host.chars().any(|char| char.is_control() || char == '/')
            {
                return Err(EndpointError::BadHost {
                    host: shown(host),
                    reason: "brackets hold an IPv6 address",
                });
            }
            let port = match after.strip_prefix(':') {
                Some(port) => port,
                None if after.is_empty() => "",
                None => return Err(EndpointError::Trailing { extra: shown(after), scheme }),
            };
            (host, port)
        }
        None => {
            let (host, port) = rest.rsplit_once(':').unwrap_or((rest, ""));
            if host.contains(':') {
                let reason = "an IPv6 address stands in brackets: tcp://[::1]:9110";
                return Err(EndpointError::BadHost { host: shown(rest), reason });
            }
            (host, port)
        }
    };
    if host.is_empty() {
        return Err(EndpointError::MissingHost { scheme });
    }
    let wrong = |char: char| char.is_whitespace() || char.is_control() || "/\\@#[]%".contains(char);
    if !rest.starts_with('[') && host.contains(wrong) {
        let reason = "a name or address without path, user or blanks is";
        return Err(EndpointError::BadHost { host: shown(host), reason });
    }
    if port.is_empty() {
        let host = if rest.starts_with('[') { format!("[{}]", shown(host)) } else { shown(host) };
        return Err(EndpointError::MissingPort { scheme, host });
    }
    if let Some((_, path)) = port.split_once('/') {
        return Err(EndpointError::Trailing { extra: shown(&format!("/{path}")), scheme });
    }
    match port.parse() {
        // `parse` would also take "+80".
        Ok(number) if port.bytes().all(|byte| byte.is_ascii_digit()) => Ok((host.to_owned(), number)),
        _ => Err(EndpointError::BadPort { port: shown(port) }),
    }
}

/// Where a Unix socket is: a path, or Linux's abstract name behind `@`, which begins with a NUL as the system has it.
fn socket_path(body: &str) -> Result<PathBuf, EndpointError> {
    let path = match body.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some(_) => {
            return Err(EndpointError::BadPath {
                reason: "after the two slashes an absolute path follows: unix:///run/x",
            });
        }
        None => body,
    };
    if path.is_empty() {
        return Err(EndpointError::BadPath { reason: "it is empty; unix:PATH is needed" });
    }
    let name = path.strip_prefix('@');
    if name.is_some_and(|name| name.is_empty() || !cfg!(target_os = "linux")) {
        let reason =
            "abstract sockets are Linux's and have a name: unix:@name; for a file write unix:./@name";
        return Err(EndpointError::BadPath { reason });
    }
    let mut path = unescaped(name.unwrap_or(path))?;
    let length = path.as_os_str().len();
    if name.is_some() {
        let mut marked = OsString::from("\0");
        marked.push(path);
        path = marked.into();
    }
    if length > MAX_SOCKET_PATH {
        return Err(EndpointError::BadPath {
            reason: "it is longer than the system allows (107 bytes on Linux)",
        });
    }
    Ok(path)
}

fn unescaped(text: &str) -> Result<PathBuf, EndpointError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let byte = if byte == b'%' {
            let mut digit =
                || rest.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or(EndpointError::BadEscape);
            let (high, low) = (digit()?, digit()?);
            u8::try_from(high * 16 + low).map_err(|_| EndpointError::BadEscape)?
        } else {
            byte
        };
        if byte == 0 {
            return Err(EndpointError::Nul);
        }
        bytes.push(byte);
    }
    path_from(bytes)
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "fallible where paths are not bytes")]
fn path_from(bytes: Vec<u8>) -> Result<PathBuf, EndpointError> {
    use std::os::unix::ffi::OsStringExt;
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

#[cfg(not(unix))]
fn path_from(bytes: Vec<u8>) -> Result<PathBuf, EndpointError> {
    String::from_utf8(bytes).map(PathBuf::from).map_err(|_| EndpointError::BadEscape)
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

fn escaped(path: &Path) -> String {
    let bytes = path_bytes(path);
    let (mut text, bytes) = match bytes.strip_prefix(b"\0") {
        Some(name) => ("@".to_owned(), name),
        None => (String::new(), bytes),
    };
    for (at, chunk) in bytes.utf8_chunks().enumerate() {
        let first = at == 0;
        for (at, char) in chunk.valid().char_indices() {
            // What would be read as something else at the start, or trimmed at either end, is escaped as well.
            let start = first && at == 0 && char == '@';
            if char.is_control() || char.is_whitespace() || start || matches!(char, '%' | '?') {
                let mut utf8 = [0; 4];
                for byte in char.encode_utf8(&mut utf8).bytes() {
                    text.push_str(&format!("%{byte:02X}"));
                }
            } else {
                text.push(char);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    // `unix://…` is read with the two slashes taken off, so a path that starts with two gets them back.
    if text.starts_with("//") { format!("//{text}") } else { text }
}

#[cfg(test)]
mod tests;
