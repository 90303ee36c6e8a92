//! What sessions of the HTTP server cost, and that nothing is left of those that are gone: bytes, tasks, entries.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "http")]

#[path = "support/allocation.rs"]
mod allocation;

use std::{future::poll_fn, time::Duration};

use framewire::transport::{
    PollTransport,
    http::server::{HttpServer, HttpServerConfig, HttpSession, HttpSessions},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split},
    runtime::{Builder, Handle},
    time::timeout,
};

const HANG: Duration = Duration::from_secs(60);

const INITIALIZE: &str =
    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25"}}"#;

/// A client's end of a connection that is served.
fn connect(server: &HttpServer) -> DuplexStream {
    let (here, there) = duplex(4096);
    let (reader, writer) = split(there);
    let server = server.clone();
    tokio::spawn(async move {
        let _ended = server.serve(reader, writer, "memory").await;
    });
    here
}

fn post(id: &str, body: &str) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: */*\r\n{id}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Reads until `end` stands at the end of what has come.
async fn until(client: &mut DuplexStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let mut piece = [0; 1024];
        let count = timeout(HANG, client.read(&mut piece)).await.unwrap().unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&piece[..count]);
    }
    String::from_utf8(text).unwrap()
}

async fn receive(session: &mut HttpSession) -> bool {
    timeout(HANG, poll_fn(|cx| session.poll_receive(cx))).await.expect("it hangs").is_ok()
}

/// Opens a session; returns it with its header line.
async fn open(client: &mut DuplexStream, sessions: &mut HttpSessions) -> (HttpSession, String) {
    client.write_all(post("", INITIALIZE).as_bytes()).await.unwrap();
    let mut session = timeout(HANG, sessions.accept()).await.unwrap().unwrap();
    assert!(receive(&mut session).await);
    session.start_send(INITIALIZED.as_bytes()).unwrap();
    until(client, INITIALIZED).await;
    let id = format!("Mcp-Session-Id: {}\r\n", session.id());
    (session, id)
}

fn runtime() -> tokio::runtime::Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_thousand_idle_sessions_are_cheap_and_leave_nothing() {
    const COUNT: usize = 1000;
    runtime().block_on(async {
        let config = HttpServerConfig::builder().max_sessions(COUNT + 1).build().unwrap();
        let (server, mut sessions) = HttpServer::new(config);
        let mut before = 0;
        let mut held = Vec::with_capacity(COUNT);
        for n in 0..=COUNT {
            if n == 1 {
                // What all share is there by now.
                before = allocation::live();
            }
            let mut client = connect(&server);
            let (session, id) = open(&mut client, &mut sessions).await;
            let get =
                format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{id}\r\n");
            client.write_all(get.as_bytes()).await.unwrap();
            until(&mut client, "data: \n\n\r\n").await;
            held.push((client, session));
        }
        let each = (allocation::live() - before) / COUNT;
        println!(
            "an idle session with a stream takes {each} bytes, both ends of its connection in memory included"
        );
        assert!(each < 40_000, "{each} bytes");
        assert_eq!(server.sessions(), COUNT + 1);
        // Half of them by their clients' going, half by their backends'.
        for (n, (client, session)) in held.drain(1..).enumerate() {
            if n % 2 == 0 {
                drop(client);
            }
            drop(session);
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(server.sessions(), 1);
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 1, "the one that is left");
        let left = allocation::live().saturating_sub(before);
        println!("{left} bytes are left of {COUNT}");
        assert!(left < 400_000, "{left} bytes: the tables of sessions and timers stay as large as they were");
    });
}

#[test]
fn abandoned_sessions_are_reaped_and_leave_nothing() {
    runtime().block_on(async {
        let idle = Duration::from_millis(20);
        let config = HttpServerConfig::builder().session_idle(idle).max_sessions(10_000).build().unwrap();
        let (server, mut sessions) = HttpServer::new(config);
        let mut after = Vec::new();
        for _ in 0..3 {
            let mut abandoned = Vec::new();
            for _ in 0..1000 {
                let mut client = connect(&server);
                let (mut session, id) = open(&mut client, &mut sessions).await;
                // One request under way, and gone.
                let ask = post(&id, r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#);
                client.write_all(ask.as_bytes()).await.unwrap();
                assert!(receive(&mut session).await);
                drop(client);
                abandoned.push(session);
            }
            for mut session in abandoned {
                assert!(!receive(&mut session).await);
            }
            assert_eq!(server.sessions(), 0);
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
            after.push(allocation::live());
        }
        // The first thousand made the tables as large as they are.
        let grown = after[2].saturating_sub(after[0]);
        assert!(grown < 10_000, "{after:?}");
    });
}

/// What one request and its answer ask the heap for, hyper and the runtime included: a bound that tells when it grows.
#[test]
fn a_request_asks_for_little_memory() {
    runtime().block_on(async {
        let (server, mut sessions) = HttpServer::new(HttpServerConfig::default());
        let mut client = connect(&server);
        let (mut session, id) = open(&mut client, &mut sessions).await;
        let ask = post(&id, r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#);
        let mut piece = [0; 4096];
        let mut calls = Vec::new();
        for _ in 0..64 {
            let before = allocation::calls();
            client.write_all(ask.as_bytes()).await.unwrap();
            poll_fn(|cx| session.poll_receive_lent(cx).map(|received| assert!(received.is_ok()))).await;
            session.start_send(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#).unwrap();
            let count = client.read(&mut piece).await.unwrap();
            assert!(piece[..count].ends_with(b"{}}"));
            calls.push(allocation::calls() - before);
        }
        println!("a request asks the heap {} times", calls[63]);
        assert!(calls[32..].iter().all(|calls| *calls <= 40), "{calls:?}");
    });
}
