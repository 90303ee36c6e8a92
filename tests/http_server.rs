//! The HTTP server over real TCP, asked by a client that is written by hand: each status, and where each message goes.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "http")]

#[path = "support/http.rs"]
mod raw;

use std::{future::Future, net::SocketAddr, pin::pin, time::Duration};

use framewire::{
    Error, Frame,
    error::{Deadline, End},
    guard::Access,
    transport::{
        PollTransport, Revision, WebSocketTransport,
        http::server::{
            HttpServer, HttpServerConfig, HttpServerConfigBuilder, HttpSession, HttpSessions, SessionKind,
        },
    },
};
use raw::{Client, Event, Events, HANG};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};

/// A server on a port of its own.
struct World {
    addr: SocketAddr,
    server: HttpServer,
    sessions: HttpSessions,
    accepting: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn world(config: HttpServerConfigBuilder) -> World {
    let (server, sessions) = HttpServer::new(config.build().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = server.clone();
    let accepting = tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (reader, writer) = stream.into_split();
            let server = serving.clone();
            tokio::spawn(async move {
                let _ended = server.serve(reader, writer, peer.to_string()).await;
            });
        }
    });
    World { addr, server, sessions, accepting }
}

async fn plain() -> World {
    world(HttpServerConfig::builder()).await
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    timeout(HANG, what).await.expect("it hangs")
}

async fn receive(session: &mut HttpSession) -> Result<Frame, Error> {
    in_time(std::future::poll_fn(|cx| session.poll_receive(cx))).await
}

async fn next(session: &mut HttpSession) -> String {
    String::from_utf8(receive(session).await.unwrap().to_vec()).unwrap()
}

async fn say(session: &mut HttpSession, message: &str) {
    in_time(std::future::poll_fn(|cx| session.poll_ready(cx))).await.unwrap();
    session.start_send(message.as_bytes()).unwrap();
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;

fn initialized(revision: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":0,"result":{{"protocolVersion":"{revision}","capabilities":{{}}}}}}"#)
}

fn post(extra: &str, body: &str) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\n{extra}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn get(extra: &str) -> String {
    format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{extra}\r\n")
}

fn request(id: impl std::fmt::Display, method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}"}}"#)
}

fn answer(id: impl std::fmt::Display, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

fn notification(method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#)
}

/// Opens a session of `revision`; returns its header line.
async fn open(world: &mut World, revision: &str) -> (HttpSession, String) {
    let mut client = Client::connect(world.addr).await;
    client.send(post("", INITIALIZE)).await;
    let mut session = in_time(world.sessions.accept()).await.unwrap();
    assert_eq!(next(&mut session).await, INITIALIZE);
    say(&mut session, &initialized(revision)).await;
    let head = client.head().await.unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(head.get("content-type"), Some("application/json"));
    let id = head.get("mcp-session-id").unwrap().to_owned();
    assert_eq!(client.body(&head).await, initialized(revision).as_bytes());
    assert_eq!(session.id(), id);
    (session, format!("Mcp-Session-Id: {id}\r\n"))
}

#[tokio::test]
async fn a_session_from_its_first_request_to_its_end() {
    let mut world = plain().await;
    let (mut session, id) = open(&mut world, "2025-11-25").await;
    assert_eq!(session.kind(), SessionKind::Session);
    assert_eq!(session.revision(), Some(Revision::R2025_11_25));
    assert_eq!(world.server.sessions(), 1);

    // One connection, kept alive.
    let mut client = Client::connect(world.addr).await;
    let (head, body) = client.request(post(&id, &notification("notifications/initialized"))).await;
    assert_eq!((head.status, body.as_str()), (202, ""));
    assert_eq!(next(&mut session).await, notification("notifications/initialized"));

    // Bytes as they came, whatever blanks and numbers they have.
    let odd = " {\"jsonrpc\" :\"2.0\",\r\n\"method\":\"ping\", \"id\":123456789012345678901234567890}\n";
    client.send(post(&id, odd)).await;
    assert_eq!(next(&mut session).await, odd);
    let said = "{\"jsonrpc\":\"2.0\",\n \"id\":123456789012345678901234567890,\"result\":{}}";
    say(&mut session, said).await;
    let head = client.head().await.unwrap();
    assert_eq!((head.status, head.get("content-type")), (200, Some("application/json")));
    assert_eq!(client.body(&head).await, said.as_bytes());

    client.send(format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{id}\r\n")).await;
    assert_eq!(client.head().await.unwrap().status, 204);
    assert!(matches!(receive(&mut session).await, Err(Error::Ended(End::Eof))));
    let (head, body) = client.request(post(&id, &request(1, "ping"))).await;
    assert_eq!(head.status, 404);
    assert!(body.contains("-32001"), "{body}");
    assert_eq!(world.server.sessions(), 0);
}

#[tokio::test]
async fn what_precedes_the_answer_makes_it_a_stream() {
    let mut world = plain().await;
    let (mut session, id) = open(&mut world, "2025-11-25").await;
    let mut client = Client::connect(world.addr).await;
    let call = r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"_meta":{"progressToken":7}}}"#;
    client.send(post(&id, call)).await;
    next(&mut session).await;
    let progress = |n: u32| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":7,"progress":{n}}}}}"#
        )
    };
    let ask = request(99, "sampling/createMessage");
    for message in [&progress(1), &progress(2), &ask] {
        say(&mut session, message).await;
    }
    let head = client.head().await.unwrap();
    assert!(head.is_stream());
    assert_eq!(head.get("x-accel-buffering"), Some("no"));
    let mut events = Events::new(&mut client);
    let first = events.next().await.unwrap();
    assert_eq!((first.data.as_deref(), first.retry), (Some(""), Some(1000)));
    assert!(first.id.is_some());
    assert_eq!(events.data().await.unwrap(), progress(1));
    assert_eq!(events.data().await.unwrap(), progress(2));
    assert_eq!(events.data().await.unwrap(), ask);
    let mut other = Client::connect(world.addr).await;
    assert_eq!(other.request(post(&id, &answer(99, "{}"))).await.0.status, 202);
    assert_eq!(next(&mut session).await, answer(99, "{}"));
    say(&mut session, &answer("\"a\"", "{\n}")).await;
    assert_eq!(events.data().await.unwrap(), answer("\"a\"", "{ }"));
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn who_would_rather_have_events_gets_them() {
    let mut world = plain().await;
    let rather = |text: &str| {
        text.replace(
            "Accept: application/json, text/event-stream",
            "Accept: text/event-stream, application/json",
        )
    };
    let mut client = Client::connect(world.addr).await;
    client.send(rather(&post("", INITIALIZE))).await;
    let mut session = in_time(world.sessions.accept()).await.unwrap();
    next(&mut session).await;
    say(&mut session, &initialized("2025-11-25")).await;
    let head = client.head().await.unwrap();
    assert!(head.is_stream());
    let id = format!("Mcp-Session-Id: {}\r\n", head.get("mcp-session-id").unwrap());
    let mut events = Events::new(&mut client);
    assert_eq!(
        events.next().await.unwrap().data.as_deref(),
        Some(""),
        "primed, as any stream of this revision"
    );
    assert_eq!(events.data().await.unwrap(), initialized("2025-11-25"));
    assert_eq!(events.next().await, None);

    // Several at once, answered in another order, an error among them: each on its own stream, and resumable.
    let mut clients = Vec::new();
    for n in 0..3 {
        let mut client = Client::connect(world.addr).await;
        client.send(rather(&post(&id, &request(n, "tools/list")))).await;
        assert_eq!(next(&mut session).await, request(n, "tools/list"));
        clients.push(client);
    }
    let failed = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":""}}"#;
    let answers = [answer(0, "{}"), failed.to_owned(), answer(2, "{}")];
    for n in [2, 0, 1] {
        say(&mut session, &answers[n]).await;
    }
    for (client, answer) in clients.iter_mut().zip(&answers) {
        assert!(client.head().await.unwrap().is_stream());
        let mut events = Events::new(client);
        let primed = events.next().await.unwrap();
        assert_eq!(events.data().await.as_ref(), Some(answer));
        assert_eq!(events.next().await, None);
        let mut again = Client::connect(world.addr).await;
        again.send(get(&format!("{id}Last-Event-ID: {}\r\n", primed.id.unwrap()))).await;
        assert!(again.head().await.unwrap().is_stream());
        assert_eq!(Events::new(&mut again).data().await.as_ref(), Some(answer));
    }
    // What has no answer has no stream, and what is refused is JSON.
    let (head, _) = client.request(rather(&post(&id, &notification("notifications/x")))).await;
    assert_eq!((head.status, head.is_stream()), (202, false));
    let (head, body) = client.request(rather(&post(&id, "{"))).await;
    assert_eq!((head.status, head.get("content-type")), (400, Some("application/json")), "{body}");

    // A request that stands alone has its status from its answer.
    client.send(rather(&modern(7, "tools/list", ""))).await;
    let mut alone = in_time(world.sessions.accept()).await.unwrap();
    next(&mut alone).await;
    say(&mut alone, r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":""}}"#).await;
    let head = client.head().await.unwrap();
    assert_eq!((head.status, head.get("content-type")), (404, Some("application/json")));
}

#[tokio::test]
async fn the_oldest_revision_answers_on_its_one_stream() {
    let mut world = plain().await;
    let mut listening = Client::connect(world.addr).await;
    listening.send("GET /sse HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n").await;
    let mut session = in_time(world.sessions.accept()).await.unwrap();
    assert_eq!(session.kind(), SessionKind::Legacy);
    assert!(listening.head().await.unwrap().is_stream());
    let mut events = Events::new(&mut listening);
    let endpoint = events.next().await.unwrap();
    assert_eq!(endpoint.event.as_deref(), Some("endpoint"));
    let target = endpoint.data.unwrap();
    assert_eq!(target, format!("/messages?sessionId={}", session.id()));

    let mut client = Client::connect(world.addr).await;
    let to = |body: &str| post("", body).replace("/mcp", &target);
    let (head, body) = client.request(to(&request(1, "ping"))).await;
    assert_eq!((head.status, body.as_str()), (202, ""));
    assert_eq!(next(&mut session).await, request(1, "ping"));
    for message in [notification("notifications/message"), answer(1, "{}"), request(5, "roots/list")] {
        say(&mut session, &message).await;
        let event = events.next().await.unwrap();
        assert_eq!((event.data, event.id), (Some(message), None));
    }
    let (head, _) = client.request(to(&request(1, "ping")).replace("sessionId=", "sessionId=x")).await;
    assert_eq!(head.status, 404);
    // The stream is the session.
    drop(listening);
    assert!(matches!(receive(&mut session).await, Err(Error::Ended(End::Eof))));
    assert_eq!(client.request(to(&request(2, "ping"))).await.0.status, 404);
}

fn modern(id: u32, method: &str, extra: &str) -> String {
    let params = r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}"#;
    let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
    post(&format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\n{extra}"), &body)
}

#[tokio::test]
async fn a_stateless_request_is_a_session_of_its_own() {
    let mut world = plain().await;
    let mut client = Client::connect(world.addr).await;
    for (said, status) in [
        (answer(1, "{}"), 200),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"?"}}"#.to_owned(), 404),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"message":"?"}}"#.to_owned(), 400),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"?"}}"#.to_owned(), 200),
    ] {
        client.send(modern(1, "tools/list", "Mcp-Session-Id: whatever\r\n")).await;
        let mut session = in_time(world.sessions.accept()).await.unwrap();
        assert_eq!((session.kind(), session.id()), (SessionKind::Stateless, ""));
        assert_eq!(session.revision(), Some(Revision::R2026_07_28));
        assert!(next(&mut session).await.contains("tools/list"));
        say(&mut session, &said).await;
        let head = client.head().await.unwrap();
        assert_eq!((head.status, head.get("mcp-session-id")), (status, None));
        assert_eq!(client.body(&head).await, said.as_bytes());
        assert!(matches!(receive(&mut session).await, Err(Error::Ended(End::Eof))));
    }
    let (head, _) = client.request(get("MCP-Protocol-Version: 2026-07-28\r\n")).await;
    assert_eq!((head.status, head.get("allow")), (405, Some("POST")));

    // Unanswered, as its server is gone.
    client.send(modern(7, "tools/list", "")).await;
    let mut session = in_time(world.sessions.accept()).await.unwrap();
    next(&mut session).await;
    drop(session);
    let head = client.head().await.unwrap();
    let body = String::from_utf8(client.body(&head).await).unwrap();
    assert!(body.contains(r#""id":7,"error":{"code":-32603"#), "{body}");

    // A stream, whose client goes.
    client.send(modern(8, "subscriptions/listen", "")).await;
    let mut session = in_time(world.sessions.accept()).await.unwrap();
    next(&mut session).await;
    say(&mut session, &notification("notifications/subscriptions/acknowledged")).await;
    let head = client.head().await.unwrap();
    assert!(head.is_stream());
    let event = Events::new(&mut client).next().await.unwrap();
    assert_eq!(
        event,
        Event { data: Some(notification("notifications/subscriptions/acknowledged")), ..Event::default() }
    );
    drop(client);
    assert!(matches!(receive(&mut session).await, Err(Error::Ended(End::Reset))));
}

#[tokio::test]
async fn a_websocket_on_the_same_port() {
    let mut world = plain().await;
    let url = format!("ws://{}/mcp", world.addr);
    let mut peer = in_time(<WebSocketTransport>::connect(&url)).await.unwrap();
    let mut session = in_time(world.sessions.accept()).await.unwrap();
    assert_eq!((session.kind(), session.id()), (SessionKind::WebSocket, ""));
    // What comes before the server has looked is not lost.
    in_time(peer.send(request(1, "ping").as_bytes())).await.unwrap();
    in_time(peer.flush()).await.unwrap();
    assert_eq!(next(&mut session).await, request(1, "ping"));
    say(&mut session, &answer(1, "{}")).await;
    let got = in_time(async {
        tokio::join!(peer.receive(), std::future::poll_fn(|cx| session.poll_flush(cx))).0.unwrap().to_vec()
    });
    assert_eq!(got.await, answer(1, "{}").as_bytes());
    // Text that is no message is answered, and the next is heard.
    for text in ["{", "[1", r#"{"id":1}"#] {
        in_time(peer.send(text.as_bytes())).await.unwrap();
    }
    in_time(peer.send(request(2, "ping").as_bytes())).await.unwrap();
    in_time(peer.flush()).await.unwrap();
    assert_eq!(next(&mut session).await, request(2, "ping"));
    for code in ["-32700", "-32700", "-32600"] {
        let got = in_time(peer.receive()).await.unwrap();
        assert!(String::from_utf8_lossy(&got).contains(code));
    }
    let (_, ended) = tokio::join!(peer.close(), receive(&mut session));
    assert!(ended.is_err());

    let mut client = Client::connect(world.addr).await;
    let upgrade = "GET /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    let (head, _) = client.request(format!("{upgrade}Sec-WebSocket-Version: 12\r\n\r\n")).await;
    assert_eq!((head.status, head.get("sec-websocket-version")), (426, Some("13")));
    assert_eq!((head.get("upgrade"), head.get("connection")), (Some("websocket"), Some("Upgrade")));
    let mut client = Client::connect(world.addr).await;
    let (head, _) = client.request(format!("{upgrade}Origin: https://evil.example\r\n\r\n")).await;
    assert_eq!(head.status, 403);
    let mut client = Client::connect(world.addr).await;
    let post = format!("{upgrade}Sec-WebSocket-Version: 13\r\n\r\n").replace("GET", "POST");
    let (head, _) = client.request(post).await;
    assert_eq!((head.status, head.get("allow")), (405, Some("GET")));
}

#[tokio::test]
async fn a_websocket_that_the_program_closes_is_told_that_its_server_goes_away() {
    let mut world = plain().await;
    let url = format!("ws://{}/mcp", world.addr);
    let mut peer = in_time(<WebSocketTransport>::connect(&url)).await.unwrap();
    let mut session = in_time(world.sessions.accept()).await.unwrap();
    let closing = std::future::poll_fn(|cx| session.poll_close(cx));
    let (closed, ended) = in_time(async { tokio::join!(closing, peer.receive()) }).await;
    closed.unwrap();
    assert!(ended.is_err());
    assert_eq!(peer.decoder().close_reason().unwrap().code(), 1001);
}

#[tokio::test]
async fn a_websocket_on_the_same_port_has_the_deadlines_of_its_server() {
    const SHORT: Duration = Duration::from_secs(2);
    const HALF: &[u8] = b"\x81\x85\0\0\0\0[1";
    let settings = HttpServerConfig::builder;
    for (settings, sent, expected) in [
        (settings().socket_idle(Some(SHORT)), &[][..], Deadline::Idle),
        (settings().read_timeout(SHORT), HALF, Deadline::Frame),
    ] {
        let mut world = world(settings).await;
        let mut client = Client::connect(world.addr).await;
        let upgrade = "GET /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        client.send(upgrade).await;
        let mut session = in_time(world.sessions.accept()).await.unwrap();
        assert_eq!(client.head().await.unwrap().status, 101);
        client.send(sent).await;
        let ended = receive(&mut session).await;
        assert!(
            matches!(ended, Err(Error::TimedOut { deadline, .. }) if deadline == expected),
            "{expected:?}: {ended:?}"
        );
    }
}

/// Wrong where nothing but a look at each byte shows it: behind an envelope that is in order.
const WRONG_INSIDE: [&[u8]; 8] = [
    br#"{"a":tru}"#,
    br#"{"a":01}"#,
    br#"{"a":[1,]}"#,
    br#"{"a":"\x"}"#,
    b"{\"a\":\"\xff\"}",
    b"{\"a\":\"\xed\xa0\x80\"}",
    b"{\"a\":\"\x01\"}",
    br#"{"a":"b" "c"}"#,
];

#[tokio::test]
async fn no_body_passes_that_is_not_json_to_its_last_byte() {
    let mut world = plain().await;
    let (mut session, id) = open(&mut world, "2025-11-25").await;
    let mut listening = Client::connect(world.addr).await;
    listening.send("GET /sse HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n").await;
    let mut legacy = in_time(world.sessions.accept()).await.unwrap();
    let messages = format!("/messages?sessionId={}", legacy.id());
    let url = format!("ws://{}/mcp", world.addr);
    let mut socket = in_time(<WebSocketTransport>::connect(&url)).await.unwrap();
    let mut socketed = in_time(world.sessions.accept()).await.unwrap();
    let mut client = Client::connect(world.addr).await;
    let stateless = "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/list\r\n";
    for inside in WRONG_INSIDE {
        let body = [br#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":"#, inside, b"}"].concat();
        for (extra, target) in [(&*id, "/mcp"), (stateless, "/mcp"), ("", &*messages)] {
            let head = post(extra, &"x".repeat(body.len())).replace("/mcp", target);
            let head = &head.as_bytes()[..head.len() - body.len()];
            let (head, said) = client.request([head, &*body].concat()).await;
            assert_eq!(head.status, 400, "{target} {}", inside.escape_ascii());
            assert!(is_error(&said, "null", -32700), "{said}");
        }
        if std::str::from_utf8(&body).is_ok() {
            in_time(socket.send(&body)).await.unwrap();
            in_time(socket.flush()).await.unwrap();
            let said = in_time(async {
                tokio::select! {
                    said = socket.receive() => String::from_utf8(said.unwrap().to_vec()).unwrap(),
                    passed = receive(&mut socketed) => panic!("{passed:?}"),
                }
            });
            let said = said.await;
            assert!(is_error(&said, "null", -32700), "{said}");
        }
    }
    // Nothing of it was handed on, and what is right still is.
    let (head, _) = client.request(post(&id, &notification("n"))).await;
    assert_eq!((head.status, next(&mut session).await), (202, notification("n")));
    let (head, _) = client.request(post("", &notification("n")).replace("/mcp", &messages)).await;
    assert_eq!((head.status, next(&mut legacy).await), (202, notification("n")));
}

/// Whether a body is a JSON-RPC error with this id.
fn is_error(body: &str, id: &str, code: i32) -> bool {
    body.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":""#))
}

#[tokio::test]
async fn every_refusal_has_its_status_and_says_why() {
    let mut world = world(HttpServerConfig::builder().max_message_size(10_000)).await;
    let (session, id) = open(&mut world, "2025-11-25").await;
    let (older, batches) = open(&mut world, "2025-03-26").await;
    let ping = request(1, "ping");
    let host = "Host: localhost\r\n";
    let json = "Content-Type: application/json\r\n";
    let both = "Accept: application/json, text/event-stream\r\n";
    let raw = |method: &str, headers: String, body: &str| {
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        format!("{method} /mcp HTTP/1.1\r\n{headers}{length}\r\n{body}")
    };
    let with = |extra: &str, body: &str| post(&format!("{id}{extra}"), body);
    let large = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#, "x".repeat(10_000));
    let chunked = format!("{host}{json}{both}{id}Transfer-Encoding: chunked\r\n");
    for (sent, status, id, code) in [
        // Where from, before anything else.
        (post("", &ping).replace("localhost", "evil.example"), 403, "null", -32000),
        (post("", "{").replace("localhost", "localhost.evil.example:80"), 403, "null", -32000),
        (with("Origin: https://evil.example\r\n", &ping), 403, "null", -32000),
        (with("Origin: null\r\n", &ping), 403, "null", -32000),
        (raw("PUT", "Host: 127.1.evil\r\n".into(), ""), 403, "null", -32000),
        (raw("GET", String::new(), ""), 400, "null", -32000),
        (raw("GET", format!("{host}{host}"), ""), 400, "null", -32000),
        // What.
        (with("", &ping).replace("/mcp", "/other"), 404, "null", -32000),
        (raw("PUT", host.into(), ""), 405, "null", -32000),
        (raw("PATCH", format!("{host}{json}"), &ping), 405, "null", -32000),
        // How.
        (raw("POST", format!("{host}{json}Accept: application/json\r\n{id}"), &ping), 406, "null", -32000),
        (raw("POST", format!("{host}{json}Accept: text/event-stream\r\n{id}"), &ping), 406, "null", -32000),
        (raw("POST", format!("{host}{json}Accept: text/html\r\n{id}"), &ping), 406, "null", -32000),
        (raw("GET", format!("{host}Accept: application/json\r\n{id}"), ""), 406, "null", -32000),
        (raw("POST", format!("{host}{both}{id}"), &ping), 415, "null", -32000),
        (raw("POST", format!("{host}{both}Content-Type: text/plain\r\n{id}"), &ping), 415, "null", -32000),
        (with("Content-Encoding: gzip\r\n", &ping), 415, "null", -32000),
        (with("", &large), 413, "null", -32000),
        (
            format!(
                "{}\r\n2710\r\n{}\r\n1\r\n}}\r\n0\r\n\r\n",
                raw("POST", chunked.clone(), "").trim_end(),
                &large[..10_000]
            )
            .replacen("chunked\r\n2710", "chunked\r\n\r\n2710", 1),
            413,
            "null",
            -32000,
        ),
        // The message.
        (with("", "{"), 400, "null", -32700),
        (with("", ""), 400, "null", -32700),
        (with("", "nonsense"), 400, "null", -32700),
        (with("", &format!("{ping}{ping}")), 400, "null", -32700),
        (with("", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\nb\"}"), 400, "null", -32700),
        (with("", r#"{"id":1,"method":"ping"}"#), 400, "1", -32600),
        (with("", r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#), 400, "null", -32600),
        (with("", r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#), 400, "null", -32600),
        (with("", r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#), 400, "null", -32600),
        (with("", "1"), 400, "null", -32600),
        (with("", "[]"), 400, "null", -32600),
        (with("", &format!("[{ping}]")), 400, "null", -32600),
        (post(&batches, "[]"), 400, "null", -32600),
        (post(&batches, "[1]"), 400, "null", -32600),
        (post(&batches, &format!("[{ping},{ping}]")), 400, "null", -32600),
        (post(&batches, &format!("[{INITIALIZE}]")), 400, "null", -32600),
        // The session, the revision.
        (post("", &ping), 400, "1", -32000),
        (post("", &notification("notifications/initialized")), 400, "null", -32000),
        (post("Mcp-Session-Id: nobody\r\n", &ping), 404, "null", -32001),
        (with(&id, &ping), 404, "null", -32001),
        (with("", INITIALIZE), 400, "0", -32600),
        (with("MCP-Protocol-Version: 1999-01-01\r\n", &ping), 400, "1", -32022),
        (get("MCP-Protocol-Version: nonsense\r\n"), 400, "null", -32022),
        (get(""), 400, "null", -32000),
        (get("Mcp-Session-Id: nobody\r\n"), 404, "null", -32001),
        (get(&format!("{id}Last-Event-ID: 0-7\r\n")), 400, "null", -32000),
        (get(&format!("{id}Last-Event-ID: nonsense\r\n")), 400, "null", -32000),
        (get(&format!("{id}Last-Event-ID: 99-0\r\n")), 400, "null", -32000),
        (raw("DELETE", host.into(), ""), 400, "null", -32000),
        (raw("DELETE", format!("{host}Mcp-Session-Id: nobody\r\n"), ""), 404, "null", -32001),
    ] {
        let mut client = Client::connect(world.addr).await;
        let (head, body) = client.request(&sent).await;
        let shown = &sent[..sent.len().min(300)];
        assert_eq!(head.status, status, "{shown}\n{body}");
        assert!(is_error(&body, id, code), "{shown}\n{body}");
        assert_eq!(head.get("content-type"), Some("application/json"));
        assert_eq!(head.get("allow").is_some(), status == 405, "{shown}");
    }
    // Not UTF-8, which is nothing a string can say here.
    let mut client = Client::connect(world.addr).await;
    let mut bytes = with("", r#"{"jsonrpc":"2.0","id":1,"method":"a?b"}"#).into_bytes();
    let at = bytes.iter().rposition(|byte| *byte == b'?').unwrap();
    bytes[at] = 0xff;
    let (head, body) = client.request(&bytes).await;
    assert_eq!(head.status, 400);
    assert!(is_error(&body, "null", -32700), "{body}");
    // Nothing of all this came through.
    for mut session in [session, older] {
        let waiting = std::future::poll_fn(|cx| std::task::Poll::Ready(session.poll_receive(cx))).await;
        assert!(waiting.is_pending());
    }
}

#[tokio::test]
async fn tokens_probes_and_pages() {
    let ready = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let told = ready.clone();
    let access = Access::new().token("secret").origin("https://app.example");
    let config = HttpServerConfig::builder().access(access);
    let world = world(config.ready(move || told.load(std::sync::atomic::Ordering::Relaxed))).await;
    let mut client = Client::connect(world.addr).await;
    for (authorization, status) in [
        ("", 401),
        ("Authorization: Bearer secres\r\n", 401),
        ("Authorization: Basic secret\r\n", 401),
        ("Authorization: Bearer secret\r\nAuthorization: Bearer secret\r\n", 401),
        ("Authorization: bearer  secret\r\n", 400),
    ] {
        let (head, _) = client.request(post(authorization, "{")).await;
        assert_eq!(head.status, status, "{authorization}");
        assert_eq!(head.get("www-authenticate"), (status == 401).then_some("Bearer"));
    }
    // A page asks whether it may, without a token; then reads what it is answered, refusals too.
    let page = "Origin: https://app.example\r\n";
    let (head, _) = client
        .request(format!(
            "OPTIONS /mcp HTTP/1.1\r\nHost: localhost\r\n{page}Access-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: content-type,mcp-param-region\r\n\r\n"
        ))
        .await;
    assert_eq!(head.status, 204);
    assert_eq!(head.get("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(head.get("access-control-allow-headers"), Some("content-type,mcp-param-region"));
    let (head, _) = client.request(post(page, "{")).await;
    assert_eq!((head.status, head.get("access-control-allow-origin")), (401, Some("https://app.example")));
    assert!(head.get("access-control-expose-headers").unwrap().contains("Mcp-Session-Id"));
    let (head, _) = client.request(post("", "{")).await;
    assert_eq!(head.get("access-control-allow-origin"), None);

    // Probes come from anywhere, with any name.
    let probe =
        |path: &str| format!("GET {path} HTTP/1.1\r\nHost: 10.1.2.3\r\nOrigin: https://evil.example\r\n\r\n");
    let (head, _) = client.request(probe("/healthz")).await;
    assert_eq!((head.status, head.get("access-control-allow-origin")), (200, None));
    assert_eq!(client.request(probe("/readyz")).await.0.status, 200);
    ready.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(client.request(probe("/readyz")).await.0.status, 503);
    assert_eq!(client.request(probe("/healthz")).await.0.status, 200);
}

#[tokio::test]
async fn too_much_is_refused_for_now() {
    let config = HttpServerConfig::builder().max_sessions(2).max_in_flight(2).max_stateless(1);
    let mut world = world(config).await;
    let (mut one, id) = open(&mut world, "2025-11-25").await;
    let (two, _) = open(&mut world, "2025-11-25").await;
    let mut client = Client::connect(world.addr).await;
    let (head, body) = client.request(post("", INITIALIZE)).await;
    assert_eq!((head.status, head.get("retry-after")), (503, Some("1")));
    assert!(is_error(&body, "0", -32000), "{body}");
    drop(two);
    client.send(post("", INITIALIZE)).await;
    let mut third = in_time(world.sessions.accept()).await.unwrap();
    next(&mut third).await;

    let mut waiting = Vec::new();
    for n in 1..=2 {
        let mut client = Client::connect(world.addr).await;
        client.send(post(&id, &request(n, "slow"))).await;
        next(&mut one).await;
        waiting.push(client);
    }
    let mut client = Client::connect(world.addr).await;
    let (head, body) = client.request(post(&id, &request(3, "ping"))).await;
    assert_eq!((head.status, head.get("retry-after")), (429, Some("1")));
    assert!(is_error(&body, "3", -32000), "{body}");
    // What is under way may wait for just these.
    for message in [answer(99, "{}"), notification("notifications/x")] {
        assert_eq!(client.request(post(&id, &message)).await.0.status, 202);
        assert_eq!(next(&mut one).await, message);
    }
    // An id that is under way is not taken twice.
    say(&mut one, &answer(2, "{}")).await;
    assert_eq!(waiting[1].head().await.unwrap().status, 200);
    let (head, body) = client.request(post(&id, &request(1, "ping"))).await;
    assert_eq!(head.status, 400);
    assert!(is_error(&body, "1", -32600), "{body}");

    let mut single = Client::connect(world.addr).await;
    single.send(modern(1, "tools/list", "")).await;
    let mut session = in_time(world.sessions.accept()).await.unwrap();
    next(&mut session).await;
    let (head, _) = client.request(modern(2, "tools/list", "")).await;
    assert_eq!(head.status, 429);
}

fn progress(token: u32, n: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{n}}}}}"#
    )
}

fn call(id: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"_meta":{{"progressToken":{id}}}}}}}"#
    )
}

#[tokio::test]
async fn who_comes_back_misses_nothing_and_gets_nothing_twice() {
    let mut world = plain().await;
    let (mut session, id) = open(&mut world, "2025-11-25").await;
    let mut seen = Vec::new();
    let mut client = Client::connect(world.addr).await;
    client.send(post(&id, &call(7))).await;
    next(&mut session).await;
    say(&mut session, &progress(7, 0)).await;
    assert!(client.head().await.unwrap().is_stream());
    let mut last = None;
    let mut said = 1;
    // Each client reads some of what is said and then goes; some goes on while nobody is there.
    for round in 0..20 {
        let read = round % 4;
        {
            let mut events = Events::new(&mut client);
            for _ in 0..3 {
                say(&mut session, &progress(7, said)).await;
                said += 1;
            }
            let mut got = 0;
            while got < read {
                let event = events.next().await.unwrap();
                last = event.id.or(last);
                if let Some(data) = event.data.filter(|data| !data.is_empty()) {
                    seen.push(data);
                    got += 1;
                }
            }
            if round == 0 {
                last = events.next().await.unwrap().id;
                assert!(last.is_some(), "an id before anything else");
            }
        }
        // One in two is gone before more is said; the other is replaced while its connection still stands.
        let old = std::mem::replace(&mut client, Client::connect(world.addr).await);
        if round % 2 == 0 {
            drop(old);
            say(&mut session, &progress(7, said)).await;
            said += 1;
        }
        let back = get(&format!("{id}Last-Event-ID: {}\r\n", last.as_deref().unwrap()));
        client.send(back).await;
        assert!(client.head().await.unwrap().is_stream());
    }
    say(&mut session, &answer(7, "{}")).await;
    let mut events = Events::new(&mut client);
    while let Some(event) = events.next().await {
        last = event.id.or(last);
        seen.extend(event.data);
    }
    let mut expected: Vec<String> = (0..said).map(|n| progress(7, n)).collect();
    expected.push(answer(7, "{}"));
    assert_eq!(seen, expected);
    // All is there: nothing more to come back for.
    let (head, _) = client.request(get(&format!("{id}Last-Event-ID: {}\r\n", last.unwrap()))).await;
    assert_eq!(head.status, 204);
}

#[tokio::test]
async fn what_belongs_to_no_request_waits_for_a_get() {
    let mut world = plain().await;
    let (mut session, id) = open(&mut world, "2025-06-18").await;
    for n in 0..3 {
        say(&mut session, &notification(&format!("notifications/{n}"))).await;
    }
    let mut client = Client::connect(world.addr).await;
    client.send(get(&id)).await;
    assert!(client.head().await.unwrap().is_stream());
    let mut events = Events::new(&mut client);
    let mut ids = Vec::new();
    for n in 0..3 {
        let event = events.next().await.unwrap();
        assert_eq!(event.data, Some(notification(&format!("notifications/{n}"))));
        assert_eq!(event.retry, None, "clients of this revision know no empty event");
        ids.push(event.id.unwrap());
    }
    // While a POST is under way, what is said goes with it.
    let mut other = Client::connect(world.addr).await;
    other.send(post(&id, &request(1, "ping"))).await;
    next(&mut session).await;
    say(&mut session, &request(9, "roots/list")).await;
    say(&mut session, &answer(1, "{}")).await;
    assert!(other.head().await.unwrap().is_stream());
    let mut others = Events::new(&mut other);
    assert_eq!(others.data().await.unwrap(), request(9, "roots/list"));
    assert_eq!(others.data().await.unwrap(), answer(1, "{}"));
    assert_eq!(others.data().await, None);
    // Then with the GET again; a second GET takes it over, and may begin behind any event.
    say(&mut session, &notification("notifications/3")).await;
    assert_eq!(events.data().await.unwrap(), notification("notifications/3"));
    let mut second = Client::connect(world.addr).await;
    second.send(get(&format!("{id}Last-Event-ID: {}\r\n", ids[1]))).await;
    assert!(second.head().await.unwrap().is_stream());
    assert_eq!(events.next().await, None);
    let mut events = Events::new(&mut second);
    for n in 2..4 {
        assert_eq!(events.data().await.unwrap(), notification(&format!("notifications/{n}")));
    }
    // It ends with the session.
    let mut other = Client::connect(world.addr).await;
    other.send(format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{id}\r\n")).await;
    assert_eq!(other.head().await.unwrap().status, 204);
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn ids_are_the_same_however_they_are_spelled() {
    let mut world = plain().await;
    let (mut session, id) = open(&mut world, "2025-11-25").await;
    let mut client = Client::connect(world.addr).await;
    for (asked, said) in [
        (r#""\u00fc\"\\\n""#, "\"ü\\u0022\\u005c\\n\""),
        ("\"ü\"", r#""\u00FC""#),
        (r#""\u00fc\/""#, r#""\u00FC/""#),
        (r#""\ud83d\ude00""#, "\"😀\""),
    ] {
        client.send(post(&id, &request(asked, "ping"))).await;
        next(&mut session).await;
        // The same text twice is the same id twice; a number is no string.
        let mut other = Client::connect(world.addr).await;
        let (head, _) = other.request(post(&id, &request(said, "ping"))).await;
        assert_eq!(head.status, 400, "{said}");
        say(&mut session, &answer(r#""\u00fd""#, "0")).await;
        say(&mut session, &answer(said, "1")).await;
        let head = client.head().await.unwrap();
        assert_eq!(head.get("content-type"), Some("application/json"));
        assert_eq!(client.body(&head).await, answer(said, "1").as_bytes());
    }
    let call =
        r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"_meta":{"progressToken":"\u00fc"}}}"#;
    client.send(post(&id, call)).await;
    next(&mut session).await;
    let mut newer = Client::connect(world.addr).await;
    newer.send(post(&id, &request(2, "ping"))).await;
    next(&mut session).await;
    let progress =
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"ü","progress":1}}"#;
    say(&mut session, progress).await;
    assert!(client.head().await.unwrap().is_stream());
    assert_eq!(Events::new(&mut client).data().await.unwrap(), progress);
}

#[tokio::test]
async fn a_stateless_client_is_told_of_revisions_without_sessions_only() {
    let mut world = plain().await;
    let (_session, id) = open(&mut world, "2025-11-25").await;
    let mut client = Client::connect(world.addr).await;
    let unknown = modern(1, "tools/list", "").replace("2026-07-28", "2099-01-01");
    let (head, body) = client.request(unknown).await;
    assert_eq!(head.status, 400);
    assert!(body.contains(r#""supported":["2026-07-28"],"requested":"2099-01-01""#), "{body}");
    // Who names a session may choose another.
    let ping = request(1, "ping");
    let (_, body) = client.request(post(&format!("{id}MCP-Protocol-Version: 2099-01-01\r\n"), &ping)).await;
    assert!(body.contains(r#""2025-11-25""#), "{body}");
    let sessions = world.server.sessions();
    let (head, body) = client.request(modern(7, "initialize", "")).await;
    assert_eq!(head.status, 404);
    assert!(body.contains(r#""id":7,"error":{"code":-32601,"#), "{body}");
    assert_eq!(world.server.sessions(), sessions, "none was opened");
}

#[tokio::test]
async fn a_stream_may_be_closed_before_its_answer() {
    let config = HttpServerConfig::builder().close_streams_after(Some(Duration::from_millis(20)));
    let mut world = world(config.retry(Duration::from_millis(5))).await;
    let (mut session, id) = open(&mut world, "2025-11-25").await;
    let mut client = Client::connect(world.addr).await;
    client.send(post(&id, &call(1))).await;
    next(&mut session).await;
    assert!(client.head().await.unwrap().is_stream());
    let mut events = Events::new(&mut client);
    let first = events.next().await.unwrap();
    assert_eq!((first.data.as_deref(), first.retry), (Some(""), Some(5)));
    assert_eq!(events.next().await, None);
    say(&mut session, &progress(1, 1)).await;
    say(&mut session, &answer(1, "{}")).await;
    client.send(get(&format!("{id}Last-Event-ID: {}\r\n", first.id.unwrap()))).await;
    assert!(client.head().await.unwrap().is_stream());
    let mut events = Events::new(&mut client);
    assert_eq!(events.data().await.unwrap(), progress(1, 1));
    assert_eq!(events.data().await.unwrap(), answer(1, "{}"));
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_slow_answer_is_kept_alive_by_comments() {
    let mut world = world(HttpServerConfig::builder().keep_alive(Duration::from_millis(10))).await;
    let (mut session, id) = open(&mut world, "2025-06-18").await;
    let mut client = Client::connect(world.addr).await;
    client.send(post(&id, &call(1))).await;
    next(&mut session).await;
    assert!(client.head().await.unwrap().is_stream());
    let mut events = Events::new(&mut client);
    for _ in 0..5 {
        let event = events.next().await.unwrap();
        assert!(event.comment.is_some() && event.data.is_none());
    }
    say(&mut session, &answer(1, "{}")).await;
    assert_eq!(events.data().await.unwrap(), answer(1, "{}"));
}

#[tokio::test]
async fn batches_where_there_are_some() {
    let mut world = plain().await;
    let (mut session, id) = open(&mut world, "2025-03-26").await;
    let mut client = Client::connect(world.addr).await;
    let asked = format!("[{},{},{}]", request(1, "a"), notification("b"), request("\"x\"", "c"));
    client.send(post(&id, &asked)).await;
    assert_eq!(next(&mut session).await, asked);
    let said = format!("[{},{}]", answer("\"x\"", "1"), answer(1, "2"));
    say(&mut session, &said).await;
    let head = client.head().await.unwrap();
    assert_eq!(head.get("content-type"), Some("application/json"));
    assert_eq!(client.body(&head).await, said.as_bytes());
    // Or one by one.
    client.send(post(&id, &asked)).await;
    next(&mut session).await;
    say(&mut session, &answer("\"x\"", "1")).await;
    say(&mut session, &answer(1, "2")).await;
    assert!(client.head().await.unwrap().is_stream());
    let mut events = Events::new(&mut client);
    assert_eq!(events.data().await.unwrap(), answer("\"x\"", "1"));
    assert_eq!(events.data().await.unwrap(), answer(1, "2"));
    assert_eq!(events.data().await, None);
    let quiet = format!("[{},{}]", notification("b"), answer(7, "{}"));
    let (head, _) = client.request(post(&id, &quiet)).await;
    assert_eq!(head.status, 202);
}

#[tokio::test]
async fn a_batch_of_answers_that_nobody_waits_for_goes_nowhere() {
    let mut world = plain().await;
    let (mut session, id) = open(&mut world, "2025-03-26").await;
    let mut client = Client::connect(world.addr).await;
    let stray = format!("[{},{}]", answer(7, "1"), answer(8, "2"));
    client.send(post(&id, &request(1, "a"))).await;
    next(&mut session).await;
    say(&mut session, &stray).await;
    say(&mut session, &answer(1, "{}")).await;
    let head = client.head().await.unwrap();
    assert_eq!(head.get("content-type"), Some("application/json"));
    assert_eq!(client.body(&head).await, answer(1, "{}").as_bytes());
    // Nor on the stream of a GET.
    say(&mut session, &stray).await;
    say(&mut session, &notification("x")).await;
    client.send(get(&id)).await;
    client.head().await.unwrap();
    assert_eq!(Events::new(&mut client).data().await.unwrap(), notification("x"));
}

#[tokio::test]
async fn what_a_batch_itself_takes_back_is_not_waited_for() {
    let mut world = world(HttpServerConfig::builder().max_in_flight(2)).await;
    let (mut session, id) = open(&mut world, "2025-03-26").await;
    let cancelled = |id: u32| {
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#)
    };
    let mut client = Client::connect(world.addr).await;
    for _ in 0..3 {
        let batch = format!("[{},{}]", request(1, "a"), cancelled(1));
        let (head, body) = in_time(client.request(post(&id, &batch))).await;
        assert_eq!((head.status, &*body), (202, ""));
        assert_eq!(next(&mut session).await, batch);
    }
    // However the id is spelled.
    let batch = format!("[{},{}]", request("\"a\"", "a"), cancelled(1).replace(":1}", ":\"\\u0061\"}"));
    assert_eq!(in_time(client.request(post(&id, &batch))).await.0.status, 202);
    assert_eq!(next(&mut session).await, batch);
    // What comes before a request says nothing of it.
    let batch = format!("[{},{},{},{}]", cancelled(2), request(1, "a"), request(2, "b"), cancelled(1));
    client.send(post(&id, &batch)).await;
    next(&mut session).await;
    say(&mut session, &answer(2, "{}")).await;
    let head = client.head().await.unwrap();
    assert_eq!(client.body(&head).await, answer(2, "{}").as_bytes());
}

#[tokio::test]
async fn the_requests_of_a_batch_are_counted_one_by_one() {
    let mut world = world(HttpServerConfig::builder().max_in_flight(3)).await;
    let (mut session, id) = open(&mut world, "2025-03-26").await;
    let batch = |from: u32, to: u32| {
        let requests: Vec<_> = (from..to).map(|n| request(n, "a")).collect();
        format!("[{}]", requests.join(","))
    };
    let mut client = Client::connect(world.addr).await;
    let (head, body) = client.request(post(&id, &batch(0, 4))).await;
    assert_eq!(head.status, 400);
    assert!(is_error(&body, "null", -32600), "{body}");
    let mut other = Client::connect(world.addr).await;
    other.send(post(&id, &batch(0, 2))).await;
    assert_eq!(next(&mut session).await, batch(0, 2));
    assert_eq!(client.request(post(&id, &batch(2, 4))).await.0.status, 429);
    client.send(post(&id, &batch(2, 3))).await;
    assert_eq!(next(&mut session).await, batch(2, 3));
    for n in 0..3 {
        say(&mut session, &answer(n, "{}")).await;
    }
    assert_eq!(client.head().await.unwrap().status, 200);
    assert_eq!(other.head().await.unwrap().status, 200);
}

#[tokio::test]
async fn sessions_with_the_same_ids_are_never_mixed() {
    let mut world = plain().await;
    let mut tasks = Vec::new();
    for n in 0..8 {
        let (mut session, id) = open(&mut world, "2025-11-25").await;
        // A server that answers out of order, says its name, and sends progress first to every other.
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok(frame) = receive(&mut session).await {
                let text = String::from_utf8(frame.to_vec()).unwrap();
                let id: u32 =
                    text.split("\"id\":").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
                held.push(id);
                if held.len() == 4 {
                    for id in held.drain(..).rev() {
                        if id % 2 == 0 {
                            say(&mut session, &progress(id, n)).await;
                        }
                        say(&mut session, &answer(id, &format!("\"{n}\""))).await;
                    }
                }
            }
        });
        for lane in 0..4 {
            let (addr, id) = (world.addr, id.clone());
            tasks.push(tokio::spawn(async move {
                let mut client = Client::connect(addr).await;
                for round in 0..25 {
                    let number = round * 4 + lane;
                    client.send(post(&id, &call(number))).await;
                    let head = client.head().await.unwrap();
                    let expected = answer(number, &format!("\"{n}\""));
                    if head.is_stream() {
                        let mut events = Events::new(&mut client);
                        assert_eq!(events.data().await.unwrap(), progress(number, n));
                        assert_eq!(events.data().await.unwrap(), expected);
                        assert_eq!(events.data().await, None);
                    } else {
                        assert_eq!(client.body(&head).await, expected.as_bytes());
                    }
                }
            }));
        }
    }
    for task in tasks {
        in_time(task).await.unwrap();
    }
}

#[tokio::test]
async fn requests_in_any_pieces() {
    let mut world = plain().await;
    let (mut session, id) = open(&mut world, "2025-11-25").await;
    let ping = request(1, "ping");
    let chunked = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: */*\r\n{id}\
         Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        &ping[..1],
        ping.len() - 1,
        &ping[1..]
    );
    for whole in [post(&id, &ping), chunked] {
        let mut client = Client::connect(world.addr).await;
        for byte in whole.as_bytes() {
            client.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(next(&mut session).await, ping);
        say(&mut session, &answer(1, "{}")).await;
        assert_eq!(client.head().await.unwrap().status, 200);
        // Two at once, answered in turn.
        let mut client = Client::connect(world.addr).await;
        client.send(format!("{whole}{whole}")).await;
        for n in 1..=2 {
            assert_eq!(next(&mut session).await, ping);
            say(&mut session, &answer(1, &n.to_string())).await;
            let head = client.head().await.unwrap();
            assert_eq!(client.body(&head).await, answer(1, &n.to_string()).as_bytes());
        }
    }
}

#[tokio::test]
async fn twenty_megabytes_both_ways_beside_a_ping() {
    const SIZE: usize = 20_000_000;
    let mut world = world(HttpServerConfig::builder().max_message_size(SIZE + 1000)).await;
    let (mut large, large_id) = open(&mut world, "2025-11-25").await;
    let (mut small, small_id) = open(&mut world, "2025-11-25").await;
    let text = "x".repeat(SIZE);
    let asked = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":"{text}"}}"#);
    let said = answer(1, &format!("\"{text}\""));
    let mut client = Client::connect(world.addr).await;
    let whole = post(&large_id, &asked);
    let (first, rest) = whole.split_at(whole.len() / 2);
    client.send(first).await;
    // In the midst of it.
    let mut other = Client::connect(world.addr).await;
    let mut ping = async || {
        other.send(post(&small_id, &request(1, "ping"))).await;
        next(&mut small).await;
        say(&mut small, &answer(1, "{}")).await;
        let head = other.head().await.unwrap();
        assert_eq!((head.status, other.body(&head).await), (200, answer(1, "{}").into_bytes()));
    };
    ping().await;
    client.send(rest).await;
    assert!(receive(&mut large).await.unwrap() == asked);
    for streamed in [false, true] {
        if streamed {
            client.send(&whole).await;
            assert!(receive(&mut large).await.unwrap() == asked);
            say(&mut large, &notification("notifications/message")).await;
        }
        say(&mut large, &said).await;
        ping().await;
        let head = client.head().await.unwrap();
        assert_eq!(head.is_stream(), streamed);
        // More than what may wait: nothing else is let in until some of it is taken.
        if streamed {
            let mut events = Events::new(&mut client);
            assert_eq!(events.data().await.unwrap(), notification("notifications/message"));
            assert!(events.data().await.unwrap() == said);
            assert_eq!(events.next().await, None);
        } else {
            assert!(client.body(&head).await == said.as_bytes());
        }
    }
}

#[tokio::test]
async fn a_client_that_never_reads_holds_back_its_own_session_alone() {
    let config = HttpServerConfig::builder().write_timeout(Duration::from_millis(500)).high_water(100_000);
    let mut world = world(config).await;
    let (mut deaf, deaf_id) = open(&mut world, "2025-11-25").await;
    let (mut well, well_id) = open(&mut world, "2025-11-25").await;
    let mut client = Client::connect(world.addr).await;
    client.send(post(&deaf_id, &call(1))).await;
    next(&mut deaf).await;
    let message = format!(r#"{{"jsonrpc":"2.0","method":"m","params":"{}"}}"#, "x".repeat(10_000));
    // What the system holds of a connection is some MiB at most; what waits here is bounded.
    let mut sent = 0;
    let full = loop {
        let ready = std::future::poll_fn(|cx| std::task::Poll::Ready(deaf.poll_ready(cx))).await;
        if ready.is_pending() {
            // The connection's task may just not have had its turn.
            if in_time(async {
                timeout(Duration::from_millis(50), std::future::poll_fn(|cx| deaf.poll_ready(cx))).await
            })
            .await
            .is_err()
            {
                break true;
            }
            continue;
        }
        deaf.start_send(message.as_bytes()).unwrap();
        sent += 1;
        if sent > 10_000 {
            break false;
        }
    };
    assert!(full, "{sent} messages were taken for a client that reads none");
    let mut other = Client::connect(world.addr).await;
    other.send(post(&well_id, &request(1, "ping"))).await;
    next(&mut well).await;
    say(&mut well, &answer(1, "{}")).await;
    assert_eq!(other.head().await.unwrap().status, 200);
    // In the end it goes on without that client.
    for _ in 0..100 {
        say(&mut deaf, &message).await;
    }
    let mut back = Client::connect(world.addr).await;
    back.send(post(&deaf_id, &request(2, "ping"))).await;
    next(&mut deaf).await;
    say(&mut deaf, &answer(2, "{}")).await;
    assert_eq!(back.head().await.unwrap().status, 200);
    drop(client);
}

#[tokio::test]
async fn what_is_not_used_is_forgotten() {
    let config = HttpServerConfig::builder().session_idle(Duration::from_millis(50));
    let mut world = world(config.max_sessions(1000)).await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(open(&mut world, "2025-11-25").await);
    }
    // One that is listened to stays.
    let (mut kept, id) = idle.pop().unwrap();
    let mut listening = Client::connect(world.addr).await;
    listening.send(get(&id)).await;
    assert!(listening.head().await.unwrap().is_stream());
    let mut kept_on = tokio::spawn(async move { receive(&mut kept).await });
    for (mut session, id) in idle {
        assert!(matches!(receive(&mut session).await, Err(Error::TimedOut { .. })));
        let mut client = Client::connect(world.addr).await;
        assert_eq!(client.request(post(&id, &request(1, "ping"))).await.0.status, 404);
    }
    assert_eq!(world.server.sessions(), 1);
    assert!(timeout(Duration::from_millis(100), &mut kept_on).await.is_err());
    drop(listening);
    assert!(matches!(in_time(kept_on).await.unwrap(), Err(Error::TimedOut { .. })));
    assert_eq!(world.server.sessions(), 0);
}

#[tokio::test]
async fn who_goes_before_the_answer_leaves_nothing() {
    let mut world = plain().await;
    // Before the session has begun: nobody knows it.
    let mut client = Client::connect(world.addr).await;
    client.send(post("", INITIALIZE)).await;
    let mut session = in_time(world.sessions.accept()).await.unwrap();
    next(&mut session).await;
    drop(client);
    assert!(matches!(receive(&mut session).await, Err(Error::Ended(End::Reset))));
    assert_eq!(world.server.sessions(), 0);
    // In a session its answer is dropped, and the session goes on.
    let (mut session, id) = open(&mut world, "2025-11-25").await;
    let mut client = Client::connect(world.addr).await;
    client.send(post(&id, &request(1, "a"))).await;
    next(&mut session).await;
    drop(client);
    let mut client = Client::connect(world.addr).await;
    // The id is free again once the server has seen it.
    loop {
        client.send(post(&id, &request(1, "b"))).await;
        let came =
            timeout(Duration::from_millis(100), std::future::poll_fn(|cx| session.poll_receive(cx))).await;
        if came.is_ok() {
            break;
        }
        let head = client.head().await.unwrap();
        assert_eq!(head.status, 400);
        client.body(&head).await;
    }
    say(&mut session, &answer(1, "{}")).await;
    assert_eq!(client.head().await.unwrap().status, 200);
    // A refused initialize opens no session.
    let mut client = Client::connect(world.addr).await;
    client.send(post("", INITIALIZE)).await;
    let mut session = in_time(world.sessions.accept()).await.unwrap();
    next(&mut session).await;
    say(&mut session, r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32602,"message":"no"}}"#).await;
    let head = client.head().await.unwrap();
    assert_eq!((head.status, head.get("mcp-session-id")), (200, None));
    assert_eq!(world.server.sessions(), 1);
}

/// Waits until the server has been handed a cancellation of `id`, which it will not answer.
async fn cancel(world: &World, session: &mut HttpSession, head: &str, id: impl std::fmt::Display) {
    let message =
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#);
    let mut client = Client::connect(world.addr).await;
    assert_eq!(client.request(post(head, &message)).await.0.status, 202);
    assert_eq!(next(session).await, message);
}

#[tokio::test]
async fn what_is_cancelled_is_waited_for_no_longer() {
    let mut world = world(HttpServerConfig::builder().max_in_flight(3)).await;
    let (mut session, id) = open(&mut world, "2025-11-25").await;
    // Nothing came yet: the answer is a stream of nothing, to which nobody is told to come back.
    let mut client = Client::connect(world.addr).await;
    client.send(post(&id, &request("\"\\u00fc\"", "slow"))).await;
    next(&mut session).await;
    cancel(&world, &mut session, &id, "2").await;
    cancel(&world, &mut session, &id, "\"ü\"").await;
    assert!(client.head().await.unwrap().is_stream());
    assert_eq!(Events::new(&mut client).next().await, None);
    // What came is still told, as what it is.
    client.send(post(&id, &call(1))).await;
    next(&mut session).await;
    say(&mut session, &progress(1, 1)).await;
    cancel(&world, &mut session, &id, 1).await;
    assert!(client.head().await.unwrap().is_stream());
    let mut events = Events::new(&mut client);
    assert_eq!(events.data().await.unwrap(), progress(1, 1));
    assert_eq!(events.next().await, None);
    // Clients that have gone do not count either.
    for n in 10..14 {
        let mut gone = Client::connect(world.addr).await;
        gone.send(post(&id, &call(n))).await;
        next(&mut session).await;
        say(&mut session, &progress(n, 1)).await;
        assert!(gone.head().await.unwrap().is_stream());
        drop(gone);
        cancel(&world, &mut session, &id, n).await;
    }
    // A late answer is dropped, and the id is free.
    say(&mut session, &answer(1, "\"late\"")).await;
    client.send(post(&id, &request(1, "ping"))).await;
    next(&mut session).await;
    say(&mut session, &answer(1, "{}")).await;
    let head = client.head().await.unwrap();
    assert_eq!(client.body(&head).await, answer(1, "{}").as_bytes());
}

#[tokio::test]
async fn it_is_told_when_nobody_waits_for_an_answer() {
    let mut world = plain().await;
    let (mut session, id) = open(&mut world, "2025-11-25").await;
    in_time(session.answered()).await;
    for leaves in [false, true] {
        let mut client = Client::connect(world.addr).await;
        client.send(post(&id, &request(1, "a"))).await;
        next(&mut session).await;
        let mut answered = pin!(session.answered());
        assert!(futures::poll!(&mut answered).is_pending());
        if leaves {
            drop(client);
        } else {
            say(&mut session, &answer(1, "{}")).await;
        }
        in_time(answered).await;
    }
    let mut client = Client::connect(world.addr).await;
    client.send(modern(1, "subscriptions/listen", "")).await;
    let mut subscription = in_time(world.sessions.accept()).await.unwrap();
    next(&mut subscription).await;
    in_time(subscription.answered()).await;
}

#[tokio::test]
async fn the_end_of_a_server_answers_everyone() {
    let mut world = plain().await;
    let (mut session, id) = open(&mut world, "2025-11-25").await;
    let mut listening = Client::connect(world.addr).await;
    listening.send(get(&id)).await;
    assert!(listening.head().await.unwrap().is_stream());
    let mut plain = Client::connect(world.addr).await;
    plain.send(post(&id, &request(1, "a"))).await;
    next(&mut session).await;
    let mut streamed = Client::connect(world.addr).await;
    streamed.send(post(&id, &call(2))).await;
    next(&mut session).await;
    say(&mut session, &progress(2, 1)).await;
    assert!(streamed.head().await.unwrap().is_stream());
    // The backend is gone.
    in_time(std::future::poll_fn(|cx| session.poll_close_sending(cx))).await.unwrap();
    let head = plain.head().await.unwrap();
    let body = String::from_utf8(plain.body(&head).await).unwrap();
    assert_eq!(head.status, 200);
    assert!(is_error(&body, "1", -32603), "{body}");
    let mut events = Events::new(&mut streamed);
    assert_eq!(events.data().await.unwrap(), progress(2, 1));
    assert!(is_error(&events.data().await.unwrap(), "2", -32603));
    assert_eq!(events.next().await, None);
    let mut events = Events::new(&mut listening);
    while events.next().await.is_some() {}
    assert_eq!(plain.request(post(&id, &request(3, "a"))).await.0.status, 404);
    assert!(matches!(receive(&mut session).await, Err(Error::Ended(End::Closed))));
}

#[tokio::test]
async fn who_is_turned_away_unheard_may_try_again() {
    let mut world = plain().await;
    let list = "text/event-stream, application/json";
    let rather_events = post("", INITIALIZE).replace("application/json, text/event-stream", list);
    for asks in [post("", INITIALIZE), rather_events, modern(1, "tools/list", "")] {
        let mut client = Client::connect(world.addr).await;
        client.send(asks).await;
        drop(in_time(world.sessions.accept()).await.unwrap());
        let head = client.head().await.unwrap();
        let body = String::from_utf8(client.body(&head).await).unwrap();
        assert_eq!(
            (head.status, head.get("retry-after"), head.get("mcp-session-id")),
            (503, Some("1"), None)
        );
        assert!(is_error(&body, "1", -32000) || is_error(&body, "0", -32000), "{body}");
    }
    assert_eq!(world.server.sessions(), 0);
}

#[tokio::test]
async fn shutdown_answers_what_is_under_way_and_takes_nothing_more() {
    let mut world = plain().await;
    let (mut session, id) = open(&mut world, "2025-11-25").await;
    let mut listening = Client::connect(world.addr).await;
    listening.send(get(&id)).await;
    assert!(listening.head().await.unwrap().is_stream());
    let mut waiting = Client::connect(world.addr).await;
    waiting.send(post(&id, &request(1, "a"))).await;
    next(&mut session).await;
    let mut idle = Client::connect(world.addr).await;
    assert_eq!(idle.request(post(&id, &notification("x"))).await.0.status, 202);
    next(&mut session).await;
    world.server.shutdown();
    assert!(in_time(world.sessions.accept()).await.is_none());
    assert!(idle.is_closed().await);
    let mut events = Events::new(&mut listening);
    while events.next().await.is_some() {}
    say(&mut session, &answer(1, "{}")).await;
    let head = waiting.head().await.unwrap();
    assert_eq!(waiting.body(&head).await, answer(1, "{}").as_bytes());
    assert!(waiting.is_closed().await);
}

#[tokio::test]
async fn connections_that_say_nothing_or_little_are_closed() {
    let world = world(HttpServerConfig::builder().read_timeout(Duration::from_millis(50))).await;
    for sent in ["", "P", "PRI * HTTP/2.0", "POST /mcp HTTP/1.1\r\nHost: local"] {
        let mut client = Client::connect(world.addr).await;
        client.send(sent).await;
        assert!(client.is_closed().await, "{sent}");
    }
    let mut client = Client::connect(world.addr).await;
    let (head, _) = client.request(post("", INITIALIZE).trim_end_matches('}')).await;
    assert_eq!(head.status, 408);
    // A head that is too large.
    let mut client = Client::connect(world.addr).await;
    let (head, _) = client.request(post(&format!("X: {}\r\n", "x".repeat(100_000)), "{}")).await;
    assert_eq!(head.status, 431);
}

/// A body of HTTP/2.
struct Body(Option<bytes::Bytes>);

impl http_body::Body for Body {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.take().map(|data| Ok(http_body::Frame::data(data))))
    }
}

#[tokio::test]
async fn many_requests_on_one_connection_of_http2() {
    let mut world = plain().await;
    let (mut session, id) = open(&mut world, "2025-11-25").await;
    let id = id.trim().split(": ").nth(1).unwrap().to_owned();
    let stream = tokio::net::TcpStream::connect(world.addr).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let post = |session: &str, authority: &str, body: String| {
        let mut sender = sender.clone();
        let request = ::http::Request::post(format!("http://{authority}/mcp"))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-session-id", session)
            .body(Body(Some(body.into())))
            .unwrap();
        tokio::spawn(async move {
            let (parts, mut body) = sender.send_request(request).await.unwrap().into_parts();
            let mut whole = Vec::new();
            while let Some(frame) =
                std::future::poll_fn(|cx| http_body::Body::poll_frame(std::pin::Pin::new(&mut body), cx))
                    .await
            {
                whole.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
            }
            (parts.status.as_u16(), String::from_utf8(whole).unwrap())
        })
    };
    let mut asked = Vec::new();
    for n in 0..20 {
        asked.push(post(&id, "localhost", call(n)));
    }
    for _ in 0..20 {
        next(&mut session).await;
    }
    for n in (0..20).rev() {
        if n % 2 == 0 {
            say(&mut session, &progress(n, 1)).await;
        }
        say(&mut session, &answer(n, "{}")).await;
    }
    for (n, task) in (0..).zip(asked) {
        let (status, body) = in_time(task).await.unwrap();
        assert_eq!(status, 200);
        if n % 2 == 0 {
            assert!(body.contains(&progress(n, 1)) && body.contains(&answer(n, "{}")), "{body}");
        } else {
            assert_eq!(body, answer(n, "{}"));
        }
    }
    assert_eq!(in_time(post(&id, "evil.example", call(1))).await.unwrap().0, 403);
    assert_eq!(in_time(post("nobody", "localhost", call(1))).await.unwrap().0, 404);
}

#[tokio::test]
async fn a_connection_that_is_cut_loses_no_session() {
    let (server, mut sessions) = HttpServer::new(HttpServerConfig::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let serve = |(stream, _): (tokio::net::TcpStream, SocketAddr)| {
        let (reader, writer) = stream.into_split();
        let server = server.clone();
        tokio::spawn(async move { server.serve(reader, writer, "peer").await })
    };
    let mut client = Client::connect(addr).await;
    let _serving = serve(listener.accept().await.unwrap());
    client.send(post("", INITIALIZE)).await;
    let mut session = in_time(sessions.accept()).await.unwrap();
    assert_eq!(session.peer(), "peer");
    next(&mut session).await;
    say(&mut session, &initialized("2025-11-25")).await;
    let head = client.head().await.unwrap();
    let id = format!("Mcp-Session-Id: {}\r\n", head.get("mcp-session-id").unwrap());

    let mut client = Client::connect(addr).await;
    let serving = serve(listener.accept().await.unwrap());
    client.send(post(&id, &call(1))).await;
    next(&mut session).await;
    say(&mut session, &progress(1, 1)).await;
    assert!(client.head().await.unwrap().is_stream());
    let first = Events::new(&mut client).next().await.unwrap();
    // The future of `serve` is dropped in the midst of it.
    serving.abort();
    assert!(serving.await.unwrap_err().is_cancelled());
    say(&mut session, &progress(1, 2)).await;
    say(&mut session, &answer(1, "{}")).await;
    let mut client = Client::connect(addr).await;
    let _serving = serve(listener.accept().await.unwrap());
    client.send(get(&format!("{id}Last-Event-ID: {}\r\n", first.id.unwrap()))).await;
    assert!(client.head().await.unwrap().is_stream());
    let mut events = Events::new(&mut client);
    for expected in [progress(1, 1), progress(1, 2), answer(1, "{}")] {
        assert_eq!(events.data().await.unwrap(), expected);
    }
    assert_eq!(events.next().await, None);
}

/// A plain generator of numbers (xorshift), so that each run is the same.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }
}

/// Requests with anything in them: the server answers in HTTP or ends the connection, and what comes through is JSON-RPC.
#[tokio::test]
async fn nonsense_is_answered_or_cut_off_but_never_let_through() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let config = HttpServerConfig::builder().read_timeout(Duration::from_millis(20));
    let (server, mut sessions) = HttpServer::new(config.build().unwrap());
    let meta = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let modern = "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: x\r\n";
    let seeds = [
        post("", INITIALIZE),
        post(modern, meta),
        post("Mcp-Session-Id: x\r\n", &format!("[{}]", request(1, "a"))),
        get("Last-Event-ID: 1-1\r\nMcp-Session-Id: x\r\n"),
        "GET /sse HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".to_owned(),
    ];
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut answered, mut opened) = (0, 0);
    for round in 0..1000 {
        let seed = &seeds[dice.roll(seeds.len())];
        let mut bytes = seed.replacen("Host:", "Connection: close\r\nHost:", 1).into_bytes();
        for _ in 0..dice.roll(4) {
            let at = dice.roll(bytes.len());
            match dice.roll(4) {
                0 => bytes[at] = u8::try_from(dice.roll(256)).unwrap(),
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"\r\n\0:,;={}[]\"\\ 0\xff"[dice.roll(16)]),
                _ => {
                    let piece = bytes[at..(at + dice.roll(20)).min(bytes.len())].to_vec();
                    let to = dice.roll(bytes.len());
                    bytes.splice(to..to, piece);
                }
            }
        }
        let (mut client, there) = tokio::io::duplex(64 * 1024);
        let (reader, writer) = tokio::io::split(there);
        let serving = server.clone();
        let task = tokio::spawn(async move { serving.serve(reader, writer, "chance").await });
        client.write_all(&bytes).await.unwrap();
        // Whatever came through is a message; then its backend goes.
        let mut drive = std::pin::pin!(async {
            let (mut client, mut said) = (client, Vec::new());
            client.read_to_end(&mut said).await.ok();
            said
        });
        let said = loop {
            tokio::select! {
                said = &mut drive => break said,
                session = sessions.accept() => {
                    let mut session = session.unwrap();
                    opened += 1;
                    if session.kind() != SessionKind::WebSocket && session.kind() != SessionKind::Legacy
                        && let Ok(frame) = receive(&mut session).await
                    {
                        assert!(framewire::json::Envelope::strict(&frame).is_ok(), "{round}");
                    }
                }
                () = tokio::time::sleep(HANG) => panic!("{round}: it hangs"),
            }
        };
        let ended = in_time(task).await;
        assert!(!ended.is_err_and(|error| error.is_panic()), "{round}");
        if !said.is_empty() {
            assert!(said.starts_with(b"HTTP/1."), "{round}");
            let status = &said[9..12];
            assert!(status < &b"500"[..] || status == b"503", "{round}: {}", String::from_utf8_lossy(&said));
            answered += 1;
        }
    }
    assert!(answered > 500 && opened > 50, "{answered} answered, {opened} opened: chance says nothing here");
    assert_eq!(server.sessions(), 0);
}
