//! What a request through the HTTP server allocates, beside what hyper alone does for the same bytes: the two are told
//! apart, as only the one is ours.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "http")]

#[path = "support/allocation.rs"]
mod allocation;

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use framewire::transport::{
    PollTransport,
    http::server::{HttpServer, HttpServerConfig, HttpSession},
};
use http_body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split},
    time::timeout,
};

const HANG: Duration = Duration::from_secs(60);
const REQUEST: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}}}"#;
const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"hello"}]}}"#;
const INITIALIZE: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25"}}"#;

/// Requests over which the allocations of one are counted.
const ROUNDS: usize = 100;

fn post(session: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n{session}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Sends a request and reads until its answer is there, without an allocation of its own.
async fn exchange(client: &mut DuplexStream, request: &[u8], answer: &str) {
    client.write_all(request).await.unwrap();
    let (mut buffer, mut filled) = ([0; 2048], 0);
    while !buffer[..filled].ends_with(answer.as_bytes()) {
        let count = client.read(&mut buffer[filled..]).await.unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&buffer[..filled]));
        filled += count;
    }
    assert!(buffer.starts_with(b"HTTP/1.1 200 "));
}

/// Allocations of one exchange in steady state: of all tasks, as they share this thread.
async fn steady(client: &mut DuplexStream, request: &[u8]) -> f64 {
    for _ in 0..ROUNDS {
        exchange(client, request, ANSWER).await;
    }
    let before = allocation::calls();
    for _ in 0..ROUNDS {
        exchange(client, request, ANSWER).await;
    }
    (allocation::calls() - before) as f64 / ROUNDS as f64
}

/// A body of one piece.
struct Piece(Option<Bytes>);

impl Body for Piece {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.get_mut().0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// hyper with a service that reads the request and answers with the same bytes and headers as ours.
async fn hyper_alone() -> f64 {
    let (mut client, there) = duplex(4096);
    let service = hyper::service::service_fn(async |request: hyper::Request<hyper::body::Incoming>| {
        let mut body = pin!(request.into_body());
        while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            drop(frame?);
        }
        let answer = hyper::Response::builder()
            .header("content-type", hyper::header::HeaderValue::from_static("application/json"))
            .body(Piece(Some(Bytes::from_static(ANSWER.as_bytes()))));
        Ok::<_, hyper::Error>(answer.unwrap())
    });
    let served = tokio::spawn(async move {
        let io = hyper_util::rt::TokioIo::new(there);
        let mut builder = hyper::server::conn::http1::Builder::new();
        // As ours: a deadline for the head of each request.
        builder.timer(hyper_util::rt::TokioTimer::new()).header_read_timeout(HANG);
        builder.serve_connection(io, service).await
    });
    let each = steady(&mut client, &post("Mcp-Session-Id: 0123456789abcdef\r\n", REQUEST)).await;
    drop(client);
    let _ended = served.await.unwrap();
    each
}

async fn answer(session: &mut HttpSession, answer: &'static str) -> bool {
    if poll_fn(|cx| session.poll_receive_lent(cx).map_ok(drop)).await.is_err() {
        return false;
    }
    session.start_send(answer.as_bytes()).is_ok()
}

async fn ours() -> f64 {
    let (server, mut sessions) = HttpServer::new(HttpServerConfig::builder().build().unwrap());
    let (mut client, there) = duplex(4096);
    let (reader, writer) = split(there);
    tokio::spawn(async move { drop(server.serve(reader, writer, "memory").await) });
    let opened = tokio::spawn(async move {
        let mut session = sessions.accept().await.unwrap();
        assert!(answer(&mut session, INITIALIZED).await);
        let id = session.id().to_owned();
        tokio::spawn(async move { while answer(&mut session, ANSWER).await {} });
        (id, sessions)
    });
    exchange(&mut client, &post("", INITIALIZE), INITIALIZED).await;
    let (id, _sessions) = opened.await.unwrap();
    steady(&mut client, &post(&format!("Mcp-Session-Id: {id}\r\n"), REQUEST)).await
}

#[tokio::test]
async fn a_request_costs_one_allocation_more_than_it_costs_hyper() {
    let hyper = timeout(HANG, hyper_alone()).await.expect("it hangs");
    let ours = timeout(HANG, ours()).await.expect("it hangs");
    println!("allocations for a request: hyper alone {hyper}, the server {ours}");
    // The copy of the answer that is kept until it has left; tables that grow by themselves may add a fraction.
    assert!(ours - hyper <= 1.5, "{ours} against {hyper}");
}
