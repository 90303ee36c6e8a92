//! The HTTP server over real TCP, asked by a client that is written by hand: each status, and where each message goes.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "http")]

#[path = "support/http.rs"]
mod raw;

use std::{future::Future, net::SocketAddr};

use framewire::{
    Error, Frame,
    error::End,
    guard::Access,
    transport::{
        PollTransport, Revision, WebSocketTransport,
        http::server::{
            HttpServer, HttpServerConfig, HttpServerConfigBuilder, HttpSession, HttpSessions, SessionKind,
        },
    },
};
use raw::{Client, Event, Events, HANG, Head};
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
    in_time(peer.close()).await.ok();
    assert!(receive(&mut session).await.is_err());

    let mut client = Client::connect(world.addr).await;
    let upgrade = "GET /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    let (head, _) = client.request(format!("{upgrade}Sec-WebSocket-Version: 12\r\n\r\n")).await;
    assert_eq!((head.status, head.get("sec-websocket-version")), (426, Some("13")));
    let mut client = Client::connect(world.addr).await;
    let (head, _) = client.request(format!("{upgrade}Origin: https://evil.example\r\n\r\n")).await;
    assert_eq!(head.status, 403);
}
