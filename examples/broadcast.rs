//! A chat room over WebSocket: whatever a client says, all of them get. The bytes are shared: a message is held once,
//! however many it is on its way to.
//!
//! `cargo run --example broadcast -- 127.0.0.1:9003`, then for each client
//! `cargo run --features cli -- bridge --listen stdio: --connect ws://127.0.0.1:9003`.
//!
//! Whoever does not keep up is sent away: a client for which [`QUEUE`] messages wait when the next one comes is closed
//! with 1008, and cut off when it takes nothing for five seconds more. So a slow client costs the others no time and the
//! server no more memory than that.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use framewire::{
    Frame, Link,
    codec::{
        Decode, Encode, Kind, WebSocket,
        websocket::{CloseReason, handshake::ServerConfig},
    },
    io::tcp::{Listener, TcpReader, TcpWriter},
    link::LinkConfig,
};
use tokio::sync::{mpsc, oneshot};

/// Messages that may wait for one client.
pub const QUEUE: usize = 64;

/// Bytes that a message may have.
const MAX_SIZE: usize = 64 * 1024;

/// Clients at once; more are turned away.
const MAX_CLIENTS: usize = 1000;

/// Who is there.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<HashMap<u64, Member>>>);

struct Member {
    queue: mpsc::Sender<(Kind, Frame)>,
    /// Gone with the member, which its tasks see.
    _stays: oneshot::Sender<()>,
}

impl Room {
    fn members(&self) -> MutexGuard<'_, HashMap<u64, Member>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a message to all; those who do not keep up go.
    fn say(&self, kind: Kind, message: &Frame) {
        self.members().retain(|_, member| member.queue.try_send((kind, message.clone())).is_ok());
    }
}

/// Serves all who come, for ever.
pub async fn serve(listener: Listener) -> std::io::Result<()> {
    let room = Room::default();
    for number in 0.. {
        let (reader, writer, peer) = listener.accept().await?;
        if room.members().len() >= MAX_CLIENTS {
            continue;
        }
        let room = room.clone();
        tokio::spawn(async move {
            if let Err(error) = client(&room, number, reader, writer).await {
                eprintln!("{peer}: {error}");
            }
            room.members().remove(&number);
        });
    }
    Ok(())
}

async fn client(
    room: &Room,
    number: u64,
    reader: TcpReader,
    writer: TcpWriter,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let codec = WebSocket::server().max_size(MAX_SIZE);
    let config = LinkConfig::default().frame(Duration::from_secs(30)).write_high_water(MAX_SIZE);
    let (link, _) = Link::answer(reader, writer, &ServerConfig::new(), codec, config).await?;
    let (mut sender, mut receiver) = link.split();
    let (queue, mut messages) = mpsc::channel(QUEUE);
    let (stays, mut goes) = oneshot::channel();
    room.members().insert(number, Member { queue, _stays: stays });

    let writing = async {
        loop {
            let (kind, message) = tokio::select! {
                biased;
                _ = &mut goes => break,
                message = messages.recv() => match message {
                    Some(message) => message,
                    None => break,
                },
            };
            sender.encoder_mut().set_kind(kind);
            tokio::select! {
                biased;
                _ = &mut goes => break,
                // From 4 KiB on, the very bytes that were received are written.
                sent = sender.send_frame(message) => sent?,
            }
        }
        if let Some(reason) = CloseReason::new(1008, "too slow") {
            sender.encoder_mut().set_close_reason(reason);
        }
        sender.close().await
    };
    let reading = async {
        let ended = loop {
            match receiver.receive().await {
                Ok(message) => room.say(receiver.decoder().kind(), &message),
                Err(error) if error.is_fatal() => break error,
                Err(_) => {}
            }
        };
        // Its own task then closes.
        room.members().remove(&number);
        if ended.is_clean_end() { Ok(()) } else { Err(ended) }
    };
    // Both at once: while this side closes, the other hears the client's answer to that.
    let mut writing = pin!(writing);
    tokio::select! {
        closed = &mut writing => closed?,
        ended = reading => {
            let _closed = writing.await;
            ended?;
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9003".to_owned());
    let listener = Listener::bind(&*address).await?;
    println!("ws://{}", listener.local_addr()?);
    serve(listener).await
}
