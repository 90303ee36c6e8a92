//! What a `ws://`, `wss://` or `ws+unix:` endpoint says, as settings of WebSocket; and whom a listener lets in.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use framewire::{
    codec::{
        WebSocket,
        websocket::{
            CloseReason, Role,
            handshake::{Asked, DeflateParams, HandshakeError, Request, ServerConfig, Verdict},
        },
    },
    endpoint::Url,
    guard::Access,
    limits::HANDSHAKE_TIMEOUT,
    transport::websocket,
};

use super::{exit::Failure, quantity};

/// The subprotocol of MCP over WebSocket.
const PROTOCOL: &str = "mcp";

/// Whom listeners of WebSockets let in.
#[derive(Debug, Args)]
pub(crate) struct Guard {
    /// Origin of pages that may connect over WebSocket and HTTP, such as https://example.com, or '*'; may repeat. Pages of the
    /// listener's own host may always, programs that are no browser send none
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,

    /// Name by which clients may ask for the listener over WebSocket and HTTP, or '*'; may repeat. Otherwise only names of
    /// loopback are let in and, with --expose, addresses: against DNS rebinding
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,

    /// Neither offer nor accept compression over WebSocket (permessage-deflate)
    #[arg(long)]
    pub(crate) no_deflate: bool,

    /// Let other machines connect: without it, what is listened on has to be an address of this machine alone
    #[arg(long)]
    expose: bool,

    /// Bearer token that clients have to show over WebSocket and HTTP; others of this machine can see it: --token-file
    /// hides it
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,

    /// File with that token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// How long a client may take to ask for a WebSocket
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = quantity::duration)]
    handshake_timeout: Duration,
}

/// The same, read.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    origins: Vec<String>,
    hosts: Vec<String>,
    token: Option<String>,
    no_deflate: bool,
    /// Whether other machines may be listened to.
    pub(crate) expose: bool,
    timeout: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            hosts: Vec::new(),
            token: None,
            no_deflate: false,
            expose: false,
            timeout: HANDSHAKE_TIMEOUT,
        }
    }
}

impl Guard {
    pub(crate) fn rules(&self) -> Result<Rules, Failure> {
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => Some(not_empty("--token", token)?),
            (None, Some(file)) => Some(token_in("--token-file", file)?),
            (None, None) => None,
        };
        Ok(Rules {
            origins: self.allow_origin.clone(),
            hosts: self.allow_host.clone(),
            token,
            no_deflate: self.no_deflate,
            expose: self.expose,
            timeout: self.handshake_timeout,
        })
    }
}

/// The token in a file, without the blanks around it.
pub(crate) fn token_in(option: &str, file: &Path) -> Result<String, Failure> {
    let from = format!("{option} {}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| Failure::usage(format!("{from}: {error}")))?;
    not_empty(&from, &text)
}

fn not_empty(from: &str, token: &str) -> Result<String, Failure> {
    match token.trim() {
        "" => Err(Failure::usage(format!("{from}: it is empty"))),
        // No client could show it.
        token if token.contains(|char: char| char.is_whitespace() || char.is_control()) => {
            Err(Failure::usage(format!("{from}: a token holds no blanks and is one line")))
        }
        token => Ok(token.to_owned()),
    }
}

impl Rules {
    /// Whom a listener lets in. `loopback`: only this machine reaches it. One that others reach answers to addresses, and to
    /// the names it was told: any other may be that of a page that resolves it to this machine.
    pub(crate) fn access(&self, loopback: bool) -> Access {
        let mut access = Access::new();
        if !loopback {
            access = access.addresses();
        }
        access = self.hosts.iter().fold(access, |access, host| access.host(host.as_str()));
        access = self.origins.iter().fold(access, |access, origin| access.origin(origin.as_str()));
        self.token.iter().fold(access, |access, token| access.token(token.as_str()))
    }

    /// Whether messages over WebSocket may be compressed.
    pub(crate) fn deflate(&self) -> bool {
        !self.no_deflate
    }
}

fn verdict(access: &Access, asked: &Asked<'_>, path: &str) -> Verdict {
    if access.check_source(asked.host, asked.origin).is_err() {
        return Verdict::Forbidden;
    }
    if path != "/" && asked.path() != path {
        return Verdict::NotFound;
    }
    match access.check_token(asked.bearer.map(str::as_bytes)) {
        Ok(()) => Verdict::Accept,
        Err(_) => Verdict::Unauthorized,
    }
}

/// How a listener of `url` answers handshakes. `loopback`: only this machine reaches it.
pub(crate) fn server(url: &Url, rules: Rules, loopback: bool) -> Result<ServerConfig, Failure> {
    let path = url.path().to_owned();
    let mut config = ServerConfig::new().protocol(PROTOCOL).map_err(Failure::runtime)?;
    if !rules.no_deflate {
        config = config.deflate(DeflateParams::default());
    }
    let access = rules.access(loopback);
    Ok(config.timeout(rules.timeout).policy(move |asked| verdict(&access, asked, &path)))
}

/// What is asked for of the server of `url`.
pub(crate) fn request(url: &Url, deflate: bool) -> Result<Request, HandshakeError> {
    let request = Request::new(&url.host, &url.target)?.protocol(PROTOCOL)?;
    Ok(if deflate { request.deflate(DeflateParams::default()) } else { request })
}

/// The codec of this end of a connection. Whatever ends it from here, this end goes away (RFC 6455 §7.4.1).
pub(crate) fn codec(role: Role, max: usize) -> WebSocket {
    let codec = WebSocket::new(role).max_size(max).check_sent_text(true);
    match CloseReason::new(1001, "") {
        Some(reason) => codec.close_reason(reason),
        None => codec,
    }
}

/// `codec` with the compression that was agreed on, for every message: who agrees to it expects it, and JSON of any size
/// gains by what came before it.
pub(crate) fn agreed(codec: WebSocket, deflate: Option<DeflateParams>) -> WebSocket {
    websocket::agreed(codec, deflate).deflate_threshold(0)
}

#[cfg(test)]
mod tests {
    use framewire::codec::websocket::handshake::Server;

    use super::*;

    /// The status that a request gets; 101 when it is let in.
    fn status(rules: &Rules, path: &str, loopback: bool, host: &str, extra: &str) -> u16 {
        let url: Url = format!("ws://127.0.0.1:1{path}").parse().unwrap();
        let config = server(&url, rules.clone(), loopback).unwrap();
        let request = format!(
            "GET /mcp HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
        );
        match Server::new(config).decode(request.as_bytes()) {
            Ok(_) => 101,
            Err(error) => error.status().unwrap(),
        }
    }

    #[test]
    fn only_those_are_let_in_who_may() {
        let open = Rules::default();
        let origin = |origin: &str| format!("Origin: {origin}\r\n");
        for (loopback, host, extra, expected) in [
            (true, "127.0.0.1:9001", String::new(), 101),
            (true, "localhost", String::new(), 101),
            (true, "[::1]:9001", String::new(), 101),
            (true, "evil.example:9001", String::new(), 403),
            (true, "127.0.0.1.evil.example", String::new(), 403),
            (true, "localhost", origin("http://localhost:3000"), 101),
            (true, "localhost", origin("http://127.0.0.1"), 101),
            (true, "localhost", origin("https://evil.example"), 403),
            (true, "localhost", origin("http://localhost.evil.example"), 403),
            (true, "localhost", origin("null"), 403),
            (false, "192.0.2.7:9001", String::new(), 101),
            (false, "192.0.2.7:9001", origin("https://192.0.2.7"), 101),
            (false, "192.0.2.7:9001", origin("https://evil.example"), 403),
            (false, "192.0.2.7:9001", origin("http://localhost"), 403),
            (false, "mcp.example:9001", String::new(), 403),
            (false, "evil.example:9001", origin("http://evil.example:9001"), 403),
        ] {
            assert_eq!(status(&open, "", loopback, host, &extra), expected, "{host} {extra}");
        }
        let listed = Rules {
            origins: vec!["https://app.example".into(), "null".into()],
            hosts: vec!["mcp.example".into()],
            ..Rules::default()
        };
        assert_eq!(status(&listed, "", false, "mcp.example", &origin("https://app.example")), 101);
        assert_eq!(status(&listed, "", false, "mcp.example", &origin("null")), 101);
        assert_eq!(status(&listed, "", false, "other.example", ""), 403);
        assert_eq!(status(&listed, "", true, "localhost", ""), 101);
        assert_eq!(status(&open, "/mcp", true, "localhost", ""), 101);
        assert_eq!(status(&open, "/other", true, "localhost", ""), 404);
        let secret = Rules { token: Some("secret".into()), ..Rules::default() };
        assert_eq!(status(&secret, "", true, "localhost", ""), 401);
        assert_eq!(status(&secret, "", true, "localhost", "Authorization: Bearer secres\r\n"), 401);
        assert_eq!(status(&secret, "", true, "localhost", "Authorization: Bearer secret\r\n"), 101);
    }
}
