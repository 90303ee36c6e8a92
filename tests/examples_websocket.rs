//! The examples that speak WebSocket, with clients of this crate's and with tungstenite.
#![allow(missing_docs, dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(all(feature = "net", feature = "websocket"))]

#[path = "../examples/broadcast.rs"]
mod broadcast;
#[cfg(feature = "rmcp")]
#[path = "../examples/rmcp_server.rs"]
mod rmcp_server;

use std::{net::TcpStream, time::Duration};

use framewire::{
    Error, codec::Encode, error::End, io::tcp::Listener, transport::websocket::WebSocketTransport,
};
use tokio::{task::spawn_blocking, time::timeout};

const LIMIT: Duration = Duration::from_secs(30);

async fn room() -> String {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    tokio::spawn(broadcast::serve(listener));
    url
}

/// Asks until it is in the room: its own message comes back.
async fn enter(url: &str) -> WebSocketTransport {
    let mut link = WebSocketTransport::connect(url).await.unwrap();
    link.send(b"I am in").await.unwrap();
    while link.receive().await.unwrap() != b"I am in"[..] {}
    link
}

#[tokio::test]
async fn what_one_says_all_hear() {
    let url = room().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(enter(&url).await);
    }
    for size in [0, 5, 5000, 60_000] {
        let message = vec![b'm'; size];
        clients[size % 20].send(&message).await.unwrap();
        for client in &mut clients {
            let heard = async {
                // Those who came before have heard the others come in.
                loop {
                    let heard = client.receive().await.unwrap();
                    if heard != b"I am in"[..] {
                        break heard;
                    }
                }
            };
            assert_eq!(timeout(LIMIT, heard).await.unwrap(), message[..]);
        }
    }
    let (first, others) = clients.split_first_mut().unwrap();
    first.close().await.unwrap();
    others[0].encoder_mut().set_kind(framewire::codec::Kind::Binary);
    others[0].send(b"without the first").await.unwrap();
    for client in others {
        let (kind, heard) = timeout(LIMIT, client.halves().1.receive_with_kind()).await.unwrap().unwrap();
        assert_eq!((kind, &*heard), (framewire::codec::Kind::Binary, &b"without the first"[..]));
    }
}

/// One that never reads is sent away, and the others hear everything all the same.
#[tokio::test]
async fn who_does_not_keep_up_goes() {
    let url = room().await;
    let mut speaker = enter(&url).await;
    let to = url.clone();
    let address = url.trim_start_matches("ws://").trim_end_matches('/').to_owned();
    let slow = spawn_blocking(move || {
        let stream = TcpStream::connect(address).unwrap();
        tungstenite::client(to, stream).map_err(|error| error.to_string()).unwrap().0
    });
    let mut slow = slow.await.unwrap();
    // It is in as soon as it hears something.
    let hears = spawn_blocking(move || {
        let heard = slow.read();
        (slow, heard)
    });
    while !hears.is_finished() {
        speaker.send(b"hello").await.unwrap();
        speaker.receive().await.unwrap();
    }
    let (mut slow, heard) = hears.await.unwrap();
    assert_eq!(heard.unwrap().to_text().unwrap(), "hello");
    let large = vec![b'x'; 60_000];
    for _ in 0..400 {
        speaker.send(&large).await.unwrap();
        assert_eq!(timeout(LIMIT, speaker.receive()).await.unwrap().unwrap().len(), large.len());
    }
    // 24 MB were said; it gets what was on its way, and why it had to go.
    let told = spawn_blocking(move || {
        let mut heard = 0;
        loop {
            match slow.read() {
                Ok(tungstenite::Message::Close(close)) => {
                    break (heard, Some(close.map_or(0, |close| u16::from(close.code))));
                }
                Ok(_) => heard += 1,
                // On a busy machine the speaker may take longer than a client that reads nothing has left: it is cut off.
                Err(_) => break (heard, None),
            }
        }
    });
    let (heard, code) = timeout(LIMIT, told).await.unwrap().unwrap();
    assert!(code.is_none_or(|code| code == 1008), "{code:?}");
    assert!(heard < 400, "{heard} large messages were held for it");
    assert!(speaker.close().await.is_ok());
    assert!(matches!(speaker.receive().await, Err(Error::Ended(End::Eof | End::Closed))));
}

#[cfg(feature = "rmcp")]
#[tokio::test]
async fn the_sdk_serves_and_asks_over_websocket() {
    use rmcp::{ServiceExt, model::CallToolRequestParams};

    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let serving = async {
        rmcp_server::listen(listener).await.unwrap();
    };
    let asking = async {
        let mut clients = Vec::new();
        for _ in 0..3 {
            let link = WebSocketTransport::connect(&url).await.unwrap();
            clients.push(().serve(link).await.unwrap());
        }
        for (number, client) in clients.iter().enumerate() {
            let names: Vec<_> =
                client.list_all_tools().await.unwrap().into_iter().map(|tool| tool.name).collect();
            assert_eq!(names, ["echo", "add", "sleep", "big"]);
            let arguments = serde_json::json!({ "a": 40, "b": number }).as_object().unwrap().clone();
            let call = CallToolRequestParams::new("add").with_arguments(arguments);
            let answer = serde_json::to_value(client.call_tool(call).await.unwrap()).unwrap();
            assert_eq!(answer["content"][0]["text"], (40 + number).to_string(), "{answer}");
        }
        for client in clients {
            client.cancel().await.unwrap();
        }
        // A page of another site is turned away.
        use framewire::{codec::websocket::handshake::Request, transport::websocket::WebSocketOptions};
        let parsed: framewire::endpoint::Url = url.parse().unwrap();
        let request = Request::new(&parsed.host, "/").unwrap().origin("https://evil.example").unwrap();
        let refused = <WebSocketTransport>::connect_with(&parsed.place, WebSocketOptions::new(request)).await;
        assert!(refused.unwrap_err().to_string().contains("403"));
    };
    let asking = async { timeout(LIMIT, asking).await.unwrap() };
    tokio::select! {
        () = serving => unreachable!(),
        () = asking => {}
    }
}
