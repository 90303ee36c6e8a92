//! WebSocket in steady state: no message costs an allocation, in either role, up to 1 MiB, also while 64 are held.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(all(feature = "net", feature = "websocket"))]

use std::{collections::VecDeque, sync::Mutex};

use framewire::{Frame, Link, codec::WebSocket, io::memory};

#[path = "support/allocation.rs"]
mod allocation;

const SIZES: &[usize] = &[64, 1 << 10, 16 << 10, 1 << 20];

/// Messages that are held, and that leave in one batch.
const HELD: usize = 64;

/// Series of rounds after which the pool has a block of every size that is ever needed.
const SERIES: usize = 8;

/// Held by each test: both use the shared pool, and what one of them holds at 1 MiB is all that it lends.
static POOL: Mutex<()> = Mutex::new(());

/// Runs `round` until a whole series of rounds allocates nothing, which it must soon.
macro_rules! assert_free {
    ($what:expr, $rounds:expr, $round:expr) => {{
        let mut counts = Vec::with_capacity(SERIES);
        while counts.len() < SERIES && counts.last() != Some(&0) {
            let before = allocation::calls();
            for _ in 0..$rounds {
                $round;
            }
            counts.push(allocation::calls() - before);
        }
        assert_eq!(counts.last(), Some(&0), "{}: {counts:?} in series of {}", $what, $rounds);
    }};
}

/// The client sends and the server receives, or the other way round.
async fn one_way(from: WebSocket, to: WebSocket, text: &str, way: &str) {
    let (near, far) = memory::pair(64 << 10);
    let mut near = Link::pair(from, near.0, near.1);
    let mut far = Link::pair(to, far.0, far.1);
    for &size in SIZES {
        let payload = text.repeat(size / text.len() + 1).into_bytes();
        let large = size > 100_000;
        if large && !text.is_ascii() {
            continue;
        }
        let (rounds, batch) = if large { (2, HELD / 16) } else { (2 * HELD, HELD) };
        let mut held: VecDeque<Frame> = VecDeque::with_capacity(HELD + 1);
        assert_free!(format!("{way}, {size} B, lent, flush each"), rounds, {
            let send = async {
                near.send(&payload).await.unwrap();
                near.flush().await.unwrap();
            };
            let receive = async { assert_eq!(far.receive_lent().await.unwrap(), &payload[..]) };
            tokio::join!(send, receive);
        });
        while large && held.len() < HELD {
            let (sent, received) = tokio::join!(near.send(&payload), far.receive());
            sent.unwrap();
            held.push_back(received.unwrap());
        }
        assert_free!(format!("{way}, {size} B, {HELD} held, batches"), 2, {
            let send = async {
                for _ in 0..batch {
                    near.feed(&payload).await.unwrap();
                }
                near.flush().await.unwrap();
            };
            let receive = async {
                for _ in 0..batch {
                    if held.len() == HELD {
                        held.pop_front();
                    }
                    held.push_back(far.receive().await.unwrap());
                }
            };
            tokio::join!(send, receive);
        });
        assert!(held.iter().all(|frame| **frame == payload[..]));
    }
}

/// Runs a test by itself.
fn alone(test: impl Future<Output = ()>) {
    let _pool = POOL.lock();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn steady_state_does_not_allocate() {
    alone(both_ways());
}

async fn both_ways() {
    // The second text is not ASCII, and characters are cut by whatever cuts the stream.
    for text in ["plain text; ", "na\u{ef}ve \u{4f60}\u{597d} \u{1f600}; "] {
        one_way(WebSocket::client(), WebSocket::server(), text, "client to server").await;
        one_way(WebSocket::server(), WebSocket::client(), text, "server to client").await;
    }
}

#[test]
fn an_echo_does_not_allocate() {
    alone(echo());
}

async fn echo() {
    let (near, far) = memory::pair(64 << 10);
    let mut near = Link::pair(WebSocket::client(), near.0, near.1);
    let mut far = Link::pair(WebSocket::server(), far.0, far.1);
    for &size in SIZES {
        let payload = vec![b'x'; size];
        assert_free!(format!("echo of {size} B"), if size > 100_000 { 4 } else { 100 }, {
            let ask = async {
                near.send(&payload).await.unwrap();
                assert_eq!(near.receive_lent().await.unwrap().len(), size);
            };
            let answer = async {
                let (sender, receiver) = far.halves();
                sender.send(receiver.receive_lent().await.unwrap()).await.unwrap();
                sender.flush().await.unwrap();
            };
            tokio::join!(ask, answer);
        });
    }
}
