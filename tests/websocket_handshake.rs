//! The opening handshake, rule by rule (RFC 6455 §4, §9.1), however the head is cut.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "websocket")]

use framewire::{
    codec::websocket::handshake::{
        Accepted, Client, DeflateParams, HandshakeError, Request, Server, ServerConfig, Verdict,
    },
    error::Origin,
};

/// RFC 6455 §1.2.
const GOOD: &str = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n\
    Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn config() -> ServerConfig {
    ServerConfig::new().protocol("mcp").unwrap().protocol("superchat").unwrap()
}

fn answer(request: &str) -> Result<Accepted, HandshakeError> {
    Server::new(config()).decode(request.as_bytes()).map(|accepted| accepted.expect("whole"))
}

#[test]
fn the_example_of_the_rfc() {
    let accepted = answer(GOOD).unwrap();
    assert_eq!(
        String::from_utf8(accepted.response).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: superchat\r\n\r\n"
    );
    assert_eq!((accepted.consumed, &*accepted.target), (GOOD.len(), "/chat"));
    assert_eq!(accepted.protocol.as_deref(), Some("superchat"));
}

/// A line of the good request taken for another; what becomes of it.
#[test]
fn a_server_keeps_each_rule() {
    let with = |from: &str, to: &str| GOOD.replacen(from, to, 1);
    assert!(GOOD.contains("Connection: Upgrade\r\n"));
    let long = format!("X: {}\r\n\r\n", "a".repeat(17_000));
    let many = format!("{}\r\n", "X: y\r\n".repeat(60));
    let key = |key: &str| with("dGhlIHNhbXBsZSBub25jZQ==", key);
    let extension = |value: &str| with("Origin:", &format!("Sec-WebSocket-Extensions: {value}\r\nOrigin:"));
    let rows: Vec<(&str, String, u16)> = vec![
        // §4.1, items 1 and 2
        ("POST", with("GET", "POST"), 405),
        ("lower-case method", with("GET", "get"), 405),
        ("HTTP/1.0", with("HTTP/1.1", "HTTP/1.0"), 505),
        ("HTTP/2.0", with("HTTP/1.1", "HTTP/2.0"), 400),
        ("no version", with(" HTTP/1.1", ""), 400),
        ("no target", with("/chat ", ""), 400),
        ("target that is not ASCII", with("/chat", "/ch\u{e4}t"), 400),
        ("target that is no path", with("/chat", "chat"), 400),
        ("target that is a star", with("/chat", "*"), 400),
        ("target with a fragment", with("/chat", "/chat#a"), 400),
        // item 4
        ("no Host", with("Host: server.example.com\r\n", ""), 400),
        ("doubled Host", with("Upgrade: w", "Host: server.example.com\r\nUpgrade: w"), 400),
        ("empty Host", with("server.example.com", ""), 400),
        ("two hosts in one", with("server.example.com", "a.com, b.com"), 400),
        ("Host with user", with("server.example.com", "me@a.com"), 400),
        ("Host with a query", with("server.example.com", "a.com?b"), 400),
        ("Host with a fragment", with("server.example.com", "a.com#b"), 400),
        ("Host with a backslash", with("server.example.com", "a.com\\b"), 400),
        ("Host in quotation marks", with("server.example.com", "\"a.com\""), 400),
        ("Host with a port that is no number", with("server.example.com", "a.com:8x"), 400),
        ("Host that is only a port", with("server.example.com", ":80"), 400),
        ("Host with two ports", with("server.example.com", "a.com:80:80"), 400),
        ("Host with half a bracket", with("server.example.com", "[::1"), 400),
        ("Host with nothing in brackets", with("server.example.com", "[]:80"), 400),
        ("IPv6 host without brackets", with("server.example.com", "::1"), 400),
        // item 5
        ("no Upgrade", with("Upgrade: websocket\r\n", ""), 426),
        ("another Upgrade", with("websocket\r\n", "h2c\r\n"), 426),
        ("Upgrade that only begins so", with("websocket\r\n", "websocketx\r\n"), 426),
        // item 6
        ("no Connection", with("Connection: Upgrade\r\n", ""), 400),
        ("Connection: keep-alive", with("Connection: Upgrade", "Connection: keep-alive"), 400),
        // item 7
        ("no key", with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400),
        ("empty key", key(""), 400),
        ("key of 15 bytes", key("AAAAAAAAAAAAAAAAAAAA"), 400),
        ("key of 17 bytes", key("AAAAAAAAAAAAAAAAAAAAAAA="), 400),
        ("key without padding", key("dGhlIHNhbXBsZSBub25jZQ"), 400),
        ("key that is not base64", key("dGhlIHNhbXBs*SBub25jZQ=="), 400),
        ("two keys", with("Origin", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin"), 400),
        // item 9 and §4.4
        ("no version header", with("Sec-WebSocket-Version: 13\r\n", ""), 426),
        ("version 8", with("Version: 13", "Version: 8"), 426),
        ("version 13, 8", with("Version: 13", "Version: 13, 8"), 426),
        ("version 013", with("Version: 13", "Version: 013"), 426),
        ("two versions", with("Origin", "Sec-WebSocket-Version: 13\r\nOrigin"), 400),
        // item 10
        ("empty protocol", with("chat, superchat", ""), 400),
        ("protocol that is no token", with("chat, superchat", "ch at"), 400),
        ("protocol with an empty item", with("chat, superchat", "chat,,superchat"), 400),
        ("protocol named twice", with("chat, superchat", "chat, chat"), 400),
        // §9.1
        ("empty extension", extension(""), 400),
        ("extension with an empty parameter", extension("foo;"), 400),
        ("extension with a bad quoted string", extension("foo; a=\"b c\""), 400),
        ("extension that is no token", extension("f@o"), 400),
        // RFC 9112, 9110
        ("body", with("Origin", "Content-Length: 5\r\nOrigin"), 400),
        ("chunked body", with("Origin", "Transfer-Encoding: chunked\r\nOrigin"), 400),
        ("folded header", with("Origin", " folded\r\nOrigin"), 400),
        ("space before the colon", with("Origin:", "Origin :"), 400),
        ("LF alone", with("Origin: http://example.com\r\n", "Origin: http://example.com\n"), 400),
        ("control byte in a value", with("http://example.com", "http://\u{1}"), 400),
        ("doubled Origin", with("Origin", "Origin: http://evil\r\nOrigin"), 400),
        ("two blank lines first", format!("\r\n\r\n{GOOD}"), 400),
        ("blank line with LF alone first", format!("\n{GOOD}"), 400),
        ("nonsense", "\u{16}\u{3}\u{1}\r\n\r\n".into(), 400),
        // Limits
        ("head too large", with("\r\n\r\n", &format!("\r\n{long}")), 431),
        ("too many headers", with("\r\n\r\n", &format!("\r\n{many}")), 431),
    ];
    for (name, request, status) in rows {
        let error = match Server::new(config()).decode(request.as_bytes()) {
            Err(error) => error,
            accepted => panic!("{name}: {accepted:?}"),
        };
        assert_eq!(error.status(), Some(status), "{name}: {error}");
        assert_eq!(error.origin(), Origin::Peer);
        let response = String::from_utf8(error.response()).unwrap();
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{name}");
        assert!(response.contains("close\r\n") && response.contains("\r\n\r\n"), "{name}");
        if status == 426 {
            assert!(response.contains("Sec-WebSocket-Version: 13\r\n"));
        }
        // Cut anywhere, nothing is accepted on the way.
        for cut in (0..request.len()).step_by(1 + request.len() / 200) {
            let first = Server::new(config()).decode(&request.as_bytes()[..cut]);
            assert!(!matches!(first, Ok(Some(_))), "{name} at {cut}");
        }
    }
}

/// What some servers refuse and must not.
#[test]
fn a_server_takes_what_it_must() {
    let with = |from: &str, to: &str| GOOD.replacen(from, to, 1);
    let rows = [
        ("keep-alive, Upgrade", with("Connection: Upgrade", "Connection: keep-alive, Upgrade")),
        (
            "two Connection lines",
            with("Connection: Upgrade", "Connection: keep-alive\r\nConnection: upgrade"),
        ),
        ("a list of upgrades", with("Upgrade: websocket", "Upgrade: h2c, WebSocket")),
        (
            "case of names",
            GOOD.to_lowercase().replacen("get", "GET", 1).replacen("http/1.1", "HTTP/1.1", 1).replacen(
                "dghlihnhbxbszsbub25jzq==",
                "dGhlIHNhbXBsZSBub25jZQ==",
                1,
            ),
        ),
        ("white space", with("Host: server.example.com", "Host:   server.example.com\t")),
        ("no Origin", with("Origin: http://example.com\r\n", "")),
        ("IPv6 host", with("server.example.com", "[::1]:9001")),
        ("IPv6 host without a port", with("server.example.com", "[2001:db8::127.0.0.1]")),
        ("host with an empty port", with("server.example.com", "a_b-1.example:")),
        ("empty body announced", with("Origin", "Content-Length: 0\r\nOrigin")),
        ("protocols on two lines", with("chat, superchat", "chat\r\nSec-WebSocket-Protocol: superchat")),
        (
            "unknown extensions",
            with("Origin", "Sec-WebSocket-Extensions: x-webkit-deflate-frame, foo; bar=\"a\"\r\nOrigin"),
        ),
        ("query", with("/chat", "/chat?a=b&c")),
        // RFC 9112 §2.2
        ("blank line first", format!("\r\n{GOOD}")),
    ];
    for (name, request) in rows {
        let accepted = answer(&request).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(accepted.protocol.as_deref(), Some("superchat"), "{name}");
    }
    assert_eq!(answer(&with("chat, superchat", "other")).unwrap().protocol, None);
    // The first frame behind the head is not taken with it.
    let accepted = answer(&format!("{GOOD}\u{1}\u{2}")).unwrap();
    assert_eq!(accepted.consumed, GOOD.len());
}

#[test]
fn a_head_that_comes_byte_by_byte_is_taken_at_its_last_byte() {
    let mut server = Server::new(config());
    for len in 0..GOOD.len() {
        assert_eq!(server.decode(&GOOD.as_bytes()[..len]), Ok(None), "{len}");
    }
    assert!(server.decode(GOOD.as_bytes()).unwrap().is_some());
    let exact = Server::new(config().max_head(GOOD.len())).decode(GOOD.as_bytes());
    assert!(exact.unwrap().is_some());
    let limit = GOOD.len() - 1;
    let over = Server::new(config().max_head(limit)).decode(GOOD.as_bytes());
    assert_eq!(over, Err(HandshakeError::HeadTooLarge { limit }));
    let endless = vec![b'a'; limit + 1];
    assert_eq!(
        Server::new(config().max_head(limit)).decode(&endless),
        Err(HandshakeError::HeadTooLarge { limit })
    );
}

#[test]
fn the_policy_is_asked_and_its_verdict_answered() {
    let config = ServerConfig::new().policy(|asked| {
        if asked.path() != "/chat" {
            return Verdict::NotFound;
        }
        if asked.origin != Some("http://example.com") || asked.host != "server.example.com" {
            return Verdict::Forbidden;
        }
        match asked.bearer {
            Some("secret") => Verdict::Accept,
            _ => Verdict::Unauthorized,
        }
    });
    let status = |request: &str| match Server::new(config.clone()).decode(request.as_bytes()) {
        Ok(_) => 101,
        Err(error) => error.status().unwrap(),
    };
    let authorized = |token: &str| GOOD.replace("\r\n\r\n", &format!("\r\nAuthorization: {token}\r\n\r\n"));
    assert_eq!(status(GOOD), 401);
    assert_eq!(status(&authorized("Bearer secret")), 101);
    assert_eq!(status(&authorized("bearer  secret ")), 101);
    assert_eq!(status(&authorized("Bearer wrong")), 401);
    assert_eq!(status(&authorized("Basic secret")), 401);
    assert_eq!(status(&authorized("Bearer secret").replace("example.com\r\nSec", "evil.com\r\nSec")), 403);
    assert_eq!(status(&GOOD.replace("server.example.com", "rebound.example")), 403);
    assert_eq!(status(&GOOD.replace("/chat", "/other")), 404);
    // An absolute target is its path, and its host overrides the header (RFC 9112 §3.2.2).
    let absolute = |target: &str| status(&authorized("Bearer secret").replacen("/chat", target, 1));
    assert_eq!(absolute("http://server.example.com/chat?a=b"), 101);
    assert_eq!(absolute("HTTPS://server.example.com/chat"), 101);
    assert_eq!(absolute("http://rebound.example/chat"), 403);
    for other in
        ["http://server.example.com/other", "http://server.example.com", "http://server.example.com?/chat"]
    {
        assert_eq!(absolute(other), 404, "{other}");
    }
    for bad in
        ["http:///chat", "http://me@server.example.com/chat", "ftp://server.example.com/chat", "://a/chat"]
    {
        assert_eq!(absolute(bad), 400, "{bad}");
    }
}

#[test]
fn the_target_is_told_in_origin_form() {
    for (target, told) in
        [("/chat?a", "/chat?a"), ("http://a:1/b?c", "/b?c"), ("http://a", "/"), ("http://a?b", "/?b")]
    {
        let accepted = answer(&GOOD.replacen("/chat", target, 1)).unwrap();
        assert_eq!(accepted.target, told);
    }
}

fn request() -> Request {
    Request::new("example.com:8080", "/mcp?x=1").unwrap().protocol("mcp").unwrap()
}

/// A good answer to `client`, as our server gives it.
fn response(client: &Client, config: ServerConfig) -> String {
    let accepted = Server::new(config).decode(client.request()).unwrap().unwrap();
    String::from_utf8(accepted.response).unwrap()
}

#[test]
fn both_sides_agree() {
    let plain = DeflateParams::default();
    let small = DeflateParams { server_no_context_takeover: true, client_max_window_bits: 10, ..plain };
    for (offered, ready) in [
        (None, None),
        (Some(plain), None),
        (None, Some(plain)),
        (Some(plain), Some(plain)),
        (Some(small), Some(plain)),
        (Some(plain), Some(small)),
        (Some(small), Some(small)),
    ] {
        let mut request = request().origin("http://here").unwrap().bearer("t0ken").unwrap();
        if let Some(params) = offered {
            request = request.deflate(params);
        }
        let mut server = config().header("X-Server", "framewire").unwrap();
        if let Some(params) = ready {
            server = server.deflate(params);
        }
        let mut client = Client::new(request);
        let accepted = Server::new(server).decode(client.request()).unwrap().unwrap();
        let mut answer = accepted.response.clone();
        answer.extend_from_slice(b"\x81\x00");
        for len in 0..accepted.response.len() {
            assert_eq!(client.clone().decode(&answer[..len]), Ok(None));
        }
        let connected = client.decode(&answer).unwrap().unwrap();
        assert_eq!(connected.consumed, accepted.response.len());
        assert_eq!((connected.protocol.as_deref(), connected.deflate), (Some("mcp"), accepted.deflate));
        assert_eq!(connected.deflate.is_some(), offered.is_some() && ready.is_some());
    }
}

/// A client takes only the answer to what it asked.
#[test]
fn a_client_keeps_each_rule() {
    let edits: [(&str, &str, &str); 15] = [
        ("200", "101 Switching Protocols", "200 OK"),
        ("blank line first", "HTTP/1.1", "\r\nHTTP/1.1"),
        ("HTTP/1.0", "HTTP/1.1", "HTTP/1.0"),
        ("no Upgrade", "Upgrade: websocket\r\n", ""),
        ("another Upgrade", "websocket", "h2c"),
        ("a list of upgrades", "websocket", "websocket, h2c"),
        ("no Connection", "Connection: Upgrade\r\n", ""),
        ("no Accept", "Sec-WebSocket-Accept", "X"),
        ("Accept of another key", "Accept: ", "Accept: A"),
        (
            "doubled Accept",
            "Sec-WebSocket-Accept: ",
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Accept: ",
        ),
        ("protocol that was not offered", "Protocol: mcp", "Protocol: other"),
        ("two protocols", "Protocol: mcp", "Protocol: mcp\r\nSec-WebSocket-Protocol: mcp"),
        (
            "extension that was not offered",
            "\r\n\r\n",
            "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
        ),
        ("malformed extension", "\r\n\r\n", "\r\nSec-WebSocket-Extensions: ;\r\n\r\n"),
        ("folded header", "\r\nConnection", "\r\n folded\r\nConnection"),
    ];
    for (name, from, to) in edits {
        let mut client = Client::new(request());
        let good = response(&client, config());
        assert!(good.contains(from), "{name}");
        let outcome = client.decode(good.replacen(from, to, 1).as_bytes());
        assert!(outcome.is_err(), "{name}: {outcome:?}");
    }
    let mut client = Client::new(request());
    let moved = client.decode(b"HTTP/1.1 302 Found\r\nLocation: ws://elsewhere/\r\n\r\ngo there");
    let expected = HandshakeError::Status {
        status: 302,
        location: Some("ws://elsewhere/".into()),
        body: "go there".into(),
    };
    assert_eq!(moved, Err(expected));
    let mut client = Client::new(request());
    let refused = client.decode(format!("HTTP/1.1 401 No\r\n\r\n{}", "x".repeat(5000)).as_bytes());
    let Err(HandshakeError::Status { status: 401, body, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(body.len(), 1024);
}

/// RFC 9110 §15.2: a client takes any number of them, or as many as fit into a head.
#[test]
fn interim_answers_are_passed_over() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    let mut client = Client::new(request());
    let good = response(&client, config());
    let answer = format!("{interim}{good}frames");
    let end = interim.len() + good.len();
    for cut in 0..answer.len() {
        let mut client = client.clone();
        let first = client.decode(&answer.as_bytes()[..cut]).unwrap();
        assert_eq!(first.is_some(), cut >= end, "{cut}");
        assert_eq!(client.decode(answer.as_bytes()).unwrap().unwrap().consumed, end, "{cut}");
    }
    let many = interim.repeat(1000);
    let limit = framewire::limits::HANDSHAKE_MAX_HEAD;
    assert_eq!(client.decode(many.as_bytes()), Err(HandshakeError::HeadTooLarge { limit }));
}

#[test]
fn nothing_is_smuggled_into_a_request() {
    assert!(Request::new("a\r\nX: y", "/").is_err());
    assert!(Request::new("me@a", "/").is_err());
    assert!(Request::new("", "/").is_err());
    assert!(Request::new("a", "mcp").is_err());
    assert!(Request::new("a", "/ HTTP/1.1\r\n").is_err());
    assert!(Request::new("a", "/#x").is_err());
    assert!(request().header("X", "a\r\nY: b").is_err());
    assert!(request().header("X Y", "a").is_err());
    assert!(request().header("Sec-WebSocket-Key", "a").is_err());
    assert!(request().header("host", "a").is_err());
    let error = request().bearer("secr\net").unwrap_err();
    assert!(!error.to_string().contains("secr"), "a token is no text for logs");
    assert!(request().origin("a b").is_err());
    assert!(request().protocol("mcp").is_err(), "twice");
    assert_eq!(request().protocol("a b").unwrap_err().origin(), Origin::Caller);
    // Keys differ from one connection to the next.
    assert_ne!(Client::new(request()).request(), Client::new(request()).request());
}
