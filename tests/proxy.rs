//! A way out through an HTTP proxy: what is asked of it, what it may answer, and that not a byte behind its answer is
//! lost.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(all(feature = "net", feature = "websocket"))]

use std::{io, time::Duration};

use framewire::{
    Link,
    codec::Newline,
    io::{
        proxy::ProxyError,
        tcp::{self, TcpOptions},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
};

/// A proxy that takes one connection, writes `answer` in the given pieces, and then stays open for what `then` does.
async fn proxy(pieces: Vec<Vec<u8>>) -> (String, JoinHandle<(String, TcpStream)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        for piece in pieces {
            stream.write_all(&piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        (String::from_utf8(head).unwrap(), stream)
    });
    (place, task)
}

fn options(place: &str) -> TcpOptions {
    TcpOptions::default().connect_timeout(Duration::from_secs(20)).proxy(Some(place.parse().unwrap()))
}

fn reason(error: &io::Error) -> Option<&ProxyError> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

#[tokio::test]
async fn the_tunnel_begins_right_behind_the_answer_however_it_is_cut() {
    // An interim answer before it is none.
    let answer =
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 Connection established\r\nVia: test\r\n\r\nfirst\n";
    for cut in 1..answer.len() {
        let (place, task) = proxy(vec![answer[..cut].to_vec(), answer[cut..].to_vec()]).await;
        let options = options(&format!("http://me:pw@{place}"));
        let (reader, writer) = tcp::connect_host("server.example", 443, &options).await.unwrap();
        let mut link = Link::pair(Newline::new(), reader, writer);
        assert_eq!(link.receive().await.unwrap(), b"first"[..], "cut at {cut}");
        link.send(b"second").await.unwrap();
        link.flush().await.unwrap();
        let (head, mut stream) = task.await.unwrap();
        assert_eq!(
            head,
            "CONNECT server.example:443 HTTP/1.1\r\nHost: server.example:443\r\n\
             Proxy-Authorization: Basic bWU6cHc=\r\n\r\n"
        );
        let mut line = [0; 7];
        stream.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"second\n");
    }
}

#[tokio::test]
async fn whatever_else_the_proxy_says_is_told() {
    let long = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 20_000]].concat();
    for (answer, expected) in [
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n".to_vec(),
            Some(ProxyError::Refused { status: 407 }),
        ),
        (b"HTTP/1.1 101 Switching\r\n\r\n".to_vec(), Some(ProxyError::Refused { status: 101 })),
        (b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000), Some(ProxyError::HeadTooLarge { limit: 8192 })),
        (b"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n".to_vec(), Some(ProxyError::Refused { status: 301 })),
        (b"SSH-2.0-x\r\n\r\n".to_vec(), Some(ProxyError::BadAnswer)),
        (long, Some(ProxyError::HeadTooLarge { limit: 8192 })),
        (b"HTTP/1.1 200 OK\r\n".to_vec(), None),
    ] {
        let (place, task) = proxy(vec![answer]).await;
        let closing = tokio::spawn(async move { drop(task.await) });
        let error = tcp::connect_host("h", 1, &options(&place)).await.unwrap_err();
        match expected {
            Some(expected) => assert_eq!(reason(&error), Some(&expected)),
            None => {
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                assert!(matches!(reason(&error), Some(ProxyError::Connection { .. })), "{error}");
            }
        }
        closing.await.unwrap();
    }
    let error = tcp::connect_host("h\r\nx", 1, &options(&proxy(vec![]).await.0)).await.unwrap_err();
    assert_eq!(reason(&error), Some(&ProxyError::BadHost));
}

/// It was told as if the server behind it had refused.
#[tokio::test]
async fn a_proxy_that_is_not_there_is_told_from_the_server() {
    // Bound, so that nobody else gets the port, and not listened on.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let place = socket.local_addr().unwrap().to_string();
    let error = tcp::connect_host("server.example", 1, &options(&place)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert!(matches!(reason(&error), Some(ProxyError::Connection { .. })), "{error}");
    assert!(error.to_string().contains("proxy") && error.to_string().contains(&place), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_says_nothing_is_given_up() {
    let (place, _task) = proxy(vec![b"HTTP/1.1 200".to_vec()]).await;
    let error = tcp::connect_host("h", 1, &options(&place)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}
