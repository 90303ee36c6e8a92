//! `ws://`, `wss://` and `ws+unix:` endpoints of the command, with this crate's own codec and with tungstenite.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use framewire::{Error, codec::websocket::Kind, error::End, transport::websocket::WebSocketTransport};
use serde_json::json;
use tungstenite::{
    Message, WebSocket,
    client::IntoClientRequest,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::harness::{Bridge, LIMIT, eventually, run};

/// A bridge from WebSocket to `backend`, and `HOST:PORT`.
fn listening(listen: &str, more: &[&str]) -> (Bridge, String) {
    let bridge = Bridge::start(1, &[&["--listen", listen], more].concat());
    let address = bridge.endpoints[0].split("//").nth(1).unwrap();
    let address = address.split(['/', '?', '#']).next().unwrap().to_owned();
    (bridge, address)
}

fn stream(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn shaken<S: Read + Write>(stream: S, url: &str) -> WebSocket<S> {
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", "mcp".parse().unwrap());
    let (socket, response) = tungstenite::client(request, stream).map_err(|error| error.to_string()).unwrap();
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mcp");
    socket
}

fn connected(address: &str) -> WebSocket<TcpStream> {
    shaken(stream(address), &format!("ws://{address}/"))
}

/// It held the command's end up for the whole of --drain-timeout, and made it a failure.
#[test]
fn a_stop_waits_for_nobody_who_is_still_shaking_hands() {
    let (mut bridge, address) = listening(
        "ws://127.0.0.1:0",
        &["--connect", "demo:", "--drain-timeout", "10m", "--handshake-timeout", "10m"],
    );
    let mut stream = stream(&address);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n").unwrap();
    bridge.log_line("\"message\":\"accepted\"");
    bridge.signal("TERM");
    assert_eq!(bridge.code(), 0);
    bridge.log_line("closed inside the handshake");
}

#[test]
fn a_connection_whose_backend_does_not_answer_is_cut_off_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let backend = format!("ws://{}", silent.local_addr().unwrap());
    let more = ["--connect", &backend, "--drain-timeout", "100ms"];
    let (mut bridge, address) = listening("tcp://127.0.0.1:0", &more);
    let _client = stream(&address);
    bridge.log_line("\"message\":\"connected\"");
    bridge.signal("TERM");
    assert_eq!(bridge.code(), 1);
    bridge.log_line("\"message\":\"cut off\"");
}

/// It was left with a connection that broke off (RFC 6455 §7.3: who ends a WebSocket says so).
#[test]
fn a_client_whose_backend_is_not_there_is_told_of_its_end() {
    for listen in ["ws://127.0.0.1:0", "http://127.0.0.1:0"] {
        let (mut bridge, address) = listening(listen, &["--connect", "unix:/nonexistent/socket"]);
        let mut socket = connected(&address);
        let close = CloseFrame { code: CloseCode::Away, reason: "".into() };
        assert_eq!(socket.read().unwrap(), Message::Close(Some(close)), "{listen}");
        while socket.read().is_ok() {}
        bridge.log_line("there is no such socket");
    }
}

/// The whole answer to a request that is no good handshake, or its first line and what follows.
fn answer(address: &str, change: impl Fn(&str) -> String) -> String {
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    let mut stream = stream(address);
    stream.write_all(change(&request).as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

#[test]
fn tungstenite_gets_back_what_it_sent() {
    let (_bridge, address) = listening("ws://127.0.0.1:0", &["--connect", "echo:"]);
    let mut socket = connected(&address);
    for message in [
        Message::text("hello"),
        Message::text(""),
        Message::text("größer"),
        Message::binary(vec![0, 255, 10, 13]),
        Message::text("x".repeat(1 << 20)),
    ] {
        socket.send(message.clone()).unwrap();
        assert!(socket.read().unwrap() == message, "kind and bytes");
    }
    socket.send(Message::Ping("still there?".into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong("still there?".into()));
    socket.close(None).unwrap();
    while let Ok(message) = socket.read() {
        assert!(matches!(message, Message::Close(_)), "{message}");
    }
}

#[tokio::test]
async fn the_library_gets_back_what_it_sent() {
    let (_bridge, address) = listening("ws://127.0.0.1:0/mcp", &["--connect", "echo:"]);
    let mut link = WebSocketTransport::connect(&format!("ws://{address}/mcp")).await.unwrap();
    link.send(b"one").await.unwrap();
    link.send(b"two").await.unwrap();
    for expected in [b"one", b"two"] {
        let (kind, message) = link.receive_with_kind().await.unwrap();
        assert_eq!((kind, &*message), (Kind::Text, &expected[..]));
    }
    link.close().await.unwrap();
    assert!(matches!(link.receive().await, Err(Error::Ended(End::Eof | End::Closed))));
}

#[test]
fn demo_answers_over_a_websocket() {
    let (_bridge, address) = listening("ws://127.0.0.1:0", &["--connect", "demo:"]);
    let mut socket = connected(&address);
    let mut ask = |message: serde_json::Value| -> serde_json::Value {
        socket.send(Message::text(message.to_string())).unwrap();
        serde_json::from_str(socket.read().unwrap().to_text().unwrap()).unwrap()
    };
    let version = "2025-11-25";
    let client = json!({ "name": "test", "version": "0" });
    let params = json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": client });
    let hello = ask(json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params }));
    assert_eq!(hello["result"]["protocolVersion"], version);
    let tools = ask(json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" }));
    assert!(!tools["result"]["tools"].as_array().unwrap().is_empty());
    let params = json!({ "name": "echo", "arguments": { "message": "over ws" } });
    let called = ask(json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": params }));
    assert!(called["result"]["content"][0]["text"].as_str().unwrap().contains("over ws"), "{called}");
}

/// Lines on one side, messages on the other, and back.
#[test]
fn lines_become_messages_and_messages_lines() {
    let (_echo, address) = listening("ws://127.0.0.1:0", &["--connect", "echo:"]);
    let url = format!("ws://{address}/");
    let lines: Vec<u8> = (0..2000).flat_map(|n| format!("{{\"id\":{n}}}\n").into_bytes()).collect();
    let (code, out, err) = run(&["bridge", "--listen", "stdio:", "--connect", &url], &lines);
    assert_eq!(code, 0, "{err}");
    assert!(out == lines, "bytes in are bytes out");

    let mut lines = Bridge::start(1, &["--listen", "tcp://127.0.0.1:0", "--connect", &url]);
    let mut client = lines.connect();
    assert_eq!(client.ask(r#"{"id":"ü"}"#)["id"], "ü");
    // What cannot be text in a WebSocket is left out, and told.
    client.send(b"\"\xff\"\n");
    lines.log_line("UTF-8");
    assert_eq!(client.ask(r#"{"id":2}"#)["id"], 2);

    let tcp = format!("tcp://127.0.0.1:{}", lines.port());
    let (_back, address) = listening("ws://127.0.0.1:0", &["--connect", &tcp]);
    let mut socket = connected(&address);
    socket.send(Message::text("{\"id\":3}")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("{\"id\":3}"));
}

#[test]
fn a_unix_socket_carries_websockets_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let endpoint = format!("ws+unix:{}", path.display());
    let _bridge = Bridge::start(1, &["--listen", &endpoint, "--connect", "echo:"]);
    let stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut socket = shaken(stream, "ws://localhost/");
    socket.send(Message::text("local")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("local"));
    let (code, out, err) = run(&["bridge", "--listen", "stdio:", "--connect", &endpoint], b"{}\n");
    assert_eq!((code, &out[..]), (0, &b"{}\n"[..]), "{err}");
}

#[test]
fn tls_carries_websockets_too() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (cert, key) = (file("cert", &made.cert.pem()), file("key", &made.signing_key.serialize_pem()));
    let listen = format!("wss://127.0.0.1:0/#cert={cert}&key={key}");
    let (_bridge, address) = listening(&listen, &["--connect", "echo:"]);
    let to = format!("wss://{address}/#ca={cert}");
    let (code, out, err) = run(&["bridge", "--listen", "stdio:", "--connect", &to], b"{\"id\":1}\n");
    assert_eq!((code, &out[..]), (0, &b"{\"id\":1}\n"[..]), "{err}");
    let (code, _, err) =
        run(&["bridge", "--listen", "stdio:", "--connect", &format!("wss://{address}")], b"{}\n");
    assert!(code == 4 && err.contains("cannot connect"), "{code} {err}");
}

#[test]
fn who_may_not_gets_an_answer_in_http() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "secret\n").unwrap();
    let more = ["--connect", "echo:", "--token-file", token.to_str().unwrap()];
    let (mut bridge, address) = listening("ws://127.0.0.1:0/mcp", &more);
    let good = |request: &str| {
        request.replacen("GET /", "GET /mcp", 1).replacen(
            "\r\n\r\n",
            "\r\nAuthorization: Bearer secret\r\n\r\n",
            1,
        )
    };
    let refused = |what: &str, status: &str, change: &dyn Fn(String) -> String| {
        let answer = answer(&address, |request| change(good(request)));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
        answer
    };
    refused("origin", "403", &|r| r.replacen("Upgrade:", "Origin: https://evil.example\r\nUpgrade:", 1));
    refused("host", "403", &|r| r.replacen(&address, "evil.example", 1));
    refused("wrong token", "401", &|r| r.replacen("secret", "secreT", 1));
    refused("no token", "401", &|r| r.replacen("Authorization", "X-Other", 1));
    refused("path", "404", &|r| r.replacen("/mcp", "/other", 1));
    refused("method", "405", &|r| r.replacen("GET", "POST", 1));
    let old = refused("version", "426", &|r| r.replacen("Version: 13", "Version: 8", 1));
    assert!(old.to_lowercase().contains("sec-websocket-version: 13"), "{old}");
    refused("no WebSocket", "426", &|r| r.replacen("Upgrade: websocket\r\nConnection: Upgrade\r\n", "", 1));
    bridge.log_line("refused");

    let request = format!("ws://{address}/mcp").into_client_request();
    let mut request = request.unwrap();
    request.headers_mut().insert("Authorization", "Bearer secret".parse().unwrap());
    let (mut socket, _) = tungstenite::client(request, stream(&address)).map_err(|e| e.to_string()).unwrap();
    socket.send(Message::text("in")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("in"));

    // And the other way round: a client that is refused says with what.
    let to = format!("ws://{address}/mcp");
    let (code, _, err) = run(&["bridge", "--listen", "stdio:", "--connect", &to], b"{}\n");
    assert!(code == 4 && err.contains("401"), "{code} {err}");
}

#[test]
fn two_hundred_clients_at_once() {
    let (_bridge, address) = listening("ws://127.0.0.1:0", &["--connect", "echo:"]);
    let mut sockets: Vec<_> = (0..200).map(|_| connected(&address)).collect();
    for round in 0..3 {
        for (number, socket) in sockets.iter_mut().enumerate() {
            socket.send(Message::text(format!("{round} {number}"))).unwrap();
        }
        for (number, socket) in sockets.iter_mut().enumerate() {
            assert_eq!(socket.read().unwrap(), Message::text(format!("{round} {number}")));
        }
    }
}

#[test]
fn no_more_clients_than_allowed() {
    let more = ["--connect", "echo:", "--max-connections", "2"];
    let (mut bridge, address) = listening("ws://127.0.0.1:0", &more);
    let mut first = connected(&address);
    let _second = connected(&address);
    let mut third = stream(&address);
    bridge.log_line("refused: 2 connections open already");
    assert!(!matches!(third.read(&mut [0]), Ok(1..)));
    first.close(None).unwrap();
    while first.read().is_ok() {}
    eventually("there is room again", || {
        let request = format!("ws://{address}/");
        tungstenite::client(request, stream(&address)).is_ok()
    });
}

#[test]
fn a_signal_sends_clients_away_with_1001() {
    let (mut bridge, address) = listening("ws://127.0.0.1:0", &["--connect", "echo:"]);
    let mut socket = connected(&address);
    socket.send(Message::text("before")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("before"));
    bridge.signal("TERM");
    match socket.read().unwrap() {
        Message::Close(Some(close)) => assert_eq!(u16::from(close.code), 1001),
        other => panic!("{other}"),
    }
    while socket.read().is_ok() {}
    assert_eq!(bridge.code(), 0);
}

/// Whoever takes his time for the handshake is cut off, and holds nobody up.
#[test]
fn a_slow_handshake_is_cut_off() {
    let more = ["--connect", "echo:", "--handshake-timeout", "700ms"];
    let (mut bridge, address) = listening("ws://127.0.0.1:0", &more);
    let began = Instant::now();
    let mut slow = stream(&address);
    slow.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
    let mut socket = connected(&address);
    socket.send(Message::text("meanwhile")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("meanwhile"));
    bridge.log_line("took longer than 700ms");
    assert!(!matches!(slow.read(&mut [0]), Ok(1..)), "cut off");
    assert!(began.elapsed() >= Duration::from_millis(700));
}

#[test]
fn what_a_server_closes_with_is_logged() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut socket =
            tungstenite::accept_hdr(stream, accept_mcp).map_err(|error| error.to_string()).unwrap();
        assert_eq!(socket.read().unwrap(), Message::text("{}"));
        let close = CloseFrame { code: CloseCode::Library(4321), reason: "go\naway".into() };
        socket.close(Some(close)).unwrap();
        while socket.read().is_ok() {}
    });
    let mut bridge = Bridge::start(1, &["--listen", "tcp://127.0.0.1:0", "--connect", &url]);
    let mut client = bridge.connect();
    client.send(b"{}\n");
    assert_eq!(client.rest(), b"");
    let line = bridge.log_line("the backend closed the WebSocket");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["code"], &line["text"]), (&json!(4321), &json!("go\naway")), "{line}");
    server.join().unwrap();
}

#[allow(clippy::result_large_err, clippy::unnecessary_wraps)] // the shape that tungstenite asks for
fn accept_mcp(
    _: &tungstenite::handshake::server::Request,
    mut response: tungstenite::handshake::server::Response,
) -> Result<tungstenite::handshake::server::Response, tungstenite::handshake::server::ErrorResponse> {
    response.headers_mut().insert("Sec-WebSocket-Protocol", "mcp".parse().unwrap());
    Ok(response)
}
