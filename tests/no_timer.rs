//! Links on a tokio runtime that was built without a timer, made as `framewire::link` says for that.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(all(feature = "link", feature = "websocket"))]

use std::future::Future;

use framewire::{
    Link,
    codec::{LengthPrefix, WebSocket},
    link::LinkConfig,
};
use tokio::io::{AsyncReadExt, duplex, split};

fn without_a_timer(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
}

#[test]
fn a_websocket_waits_for_messages_and_for_the_end() {
    without_a_timer(async {
        let (near, far) = duplex(64);
        let link = |codec: WebSocket, (reader, writer)| {
            Link::with_config(codec.keep_alive(None), reader, writer, LinkConfig::default().close(None))
        };
        let mut near = link(WebSocket::client(), split(near));
        let mut far = link(WebSocket::server(), split(far));
        let there = tokio::spawn(async move {
            let message = far.receive().await.unwrap();
            far.send(&message).await.unwrap();
            let end = far.receive().await.unwrap_err();
            far.close().await.unwrap();
            end
        });
        // More than fits between them: both wait.
        let message = vec![b'a'; 1000];
        near.send(&message).await.unwrap();
        assert_eq!(near.receive().await.unwrap(), message);
        near.close().await.unwrap();
        assert!(there.await.unwrap().is_clean_end());
    });
}

#[test]
fn a_dropped_link_writes_the_rest() {
    without_a_timer(async {
        let (near, mut far) = duplex(64);
        let (reader, writer) = split(near);
        let config = LinkConfig::default().close(None);
        let mut near = Link::with_config(LengthPrefix::new(), reader, writer, config);
        near.send(&[7; 1000]).await.unwrap();
        drop(near);
        let mut came = Vec::new();
        far.read_to_end(&mut came).await.unwrap();
        assert_eq!(came.len(), 1004);
    });
}
