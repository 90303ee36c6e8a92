//! A chat room over WebSocket: whatever a client says, all of them get. The bytes are shared: a message is held once,
//! however many it is on its way to.
//!
//! `cargo run --example broadcast -- 127.0.0.1:9003`, then for each client
//! `cargo run --features cli -- bridge --listen stdio: --connect ws://127.0.0.1:9003`.
//!
//! Whoever does not keep up is sent away: a client for which [`QUEUE`] messages wait when the next one comes is closed
//! with 1008, and cut off when it takes nothing for five seconds more. So a slow client costs the others no time and the
//! server no more memory than that.

use std::{sync::Arc, time::Duration};

use framewire::{
    Link,
    codec::{
        Decode, Encode, WebSocket,
        websocket::{CloseReason, handshake::ServerConfig},
    },
    gateway::{Fanout, FanoutConfig, SlowPolicy},
    io::tcp::{Listener, TcpReader, TcpWriter},
    link::LinkConfig,
};
use tokio::sync::Semaphore;

/// Messages that may wait for one client.
pub const QUEUE: usize = 64;

/// Bytes that a message may have.
const MAX_SIZE: usize = 64 * 1024;

/// Clients at once; more are turned away.
const MAX_CLIENTS: usize = 1000;

/// Serves all who come, for ever.
pub async fn serve(listener: Listener) -> std::io::Result<()> {
    let room = Fanout::new(FanoutConfig::default().messages(QUEUE).policy(SlowPolicy::Disconnect));
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let (reader, writer, peer) = listener.accept().await?;
        // From here on: who connects and says nothing takes a place, too, until the deadline of its handshake.
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let room = room.clone();
        tokio::spawn(async move {
            if let Err(error) = client(&room, reader, writer).await {
                eprintln!("{peer}: {error}");
            }
            drop(place);
        });
    }
}

async fn client(
    room: &Fanout,
    reader: TcpReader,
    writer: TcpWriter,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let codec = WebSocket::server().max_size(MAX_SIZE);
    let config = LinkConfig::default().frame(Duration::from_secs(30)).write_high_water(MAX_SIZE);
    let (link, _) = Link::answer(reader, writer, &ServerConfig::new(), codec, config).await?;
    let (mut sender, mut receiver) = link.split();
    let mut messages = room.subscribe()?;

    let writing = async {
        while let Ok(message) = messages.receive().await {
            sender.encoder_mut().set_kind(message.kind);
            tokio::select! {
                biased;
                _ = messages.ended() => break,
                // From 4 KiB on, the very bytes that were received are written.
                sent = sender.send_frame(message.frame) => sent?,
            }
        }
        if let Some(reason) = CloseReason::new(1008, "too slow") {
            sender.encoder_mut().set_close_reason(reason);
        }
        sender.close().await
    };
    let reading = async {
        loop {
            match receiver.receive().await {
                Ok(message) => {
                    room.broadcast_as(receiver.decoder().kind(), &message);
                }
                Err(error) if error.is_fatal() => break error,
                Err(_) => {}
            }
        }
    };
    // Both at once: while this side closes, the other hears the client's answer to that.
    let ended = tokio::select! {
        closed = writing => return Ok(closed?),
        ended = reading => ended,
    };
    let _closed = sender.close().await;
    if ended.is_clean_end() { Ok(()) } else { Err(ended.into()) }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9003".to_owned());
    let listener = Listener::bind(&*address).await?;
    println!("ws://{}", listener.local_addr()?);
    serve(listener).await
}
