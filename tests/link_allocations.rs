//! In steady state no message costs an allocation: every receive and send form, every codec, every stream, `dyn` too.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(all(feature = "net", unix))]

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io::IoSlice,
    sync::Mutex,
};

use bytes::BytesMut;
use framewire::{
    Frame, Link,
    codec::{Codec, ContentLength, Decode, Encode, LengthPrefix, Newline},
    io::{memory, tcp, unix},
    transport::{MemoryTransport, PollTransport},
};
use tokio::io::{AsyncRead, AsyncWrite};

#[path = "support/allocation.rs"]
mod allocation;

/// The counter is the thread's, but the pool is the process's: one test at a time.
static TURN: Mutex<()> = Mutex::new(());

const SIZES: &[usize] = &[100, 1 << 10, 16 << 10, 1 << 20];
const SMALL: &[usize] = &[100, 1 << 10, 16 << 10];

fn run(test: impl Future<Output = ()>) {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// Runs `round` until a whole series of rounds allocates nothing: how much the kernel takes at once varies, so it may
/// be a while before the pool has a block of every size that is ever needed. It must get there soon.
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

const SERIES: usize = 8;

fn rounds(size: usize) -> usize {
    if size > 100_000 { 10 } else { 100 }
}

/// Sends to itself over a loop of `near` and `far` in every form.
async fn each_form<C, R, W>(codec: C, near: (R, W), far: (R, W), sizes: &[usize])
where
    C: Codec + Clone,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut near = Link::pair(codec.clone(), near.0, near.1);
    let mut far = Link::pair(codec, far.0, far.1);
    for &size in sizes {
        let payload = vec![b'x'; size];
        let (one, two) = payload.split_at(size / 3);
        let mut held: VecDeque<Frame> = VecDeque::with_capacity(65);
        let mut buffer = BytesMut::with_capacity(2 * size);
        let mut batch = Vec::with_capacity(64);
        assert_free!(format!("lent, send, {size}"), rounds(size), {
            let (sent, received) = tokio::join!(near.send(&payload), far.receive_lent());
            sent.unwrap();
            assert_eq!(received.unwrap().len(), size);
        });
        assert_free!(format!("owned and held, feed and flush, {size}"), rounds(size).max(70), {
            let feed = async {
                near.feed(&payload).await.unwrap();
                near.flush().await.unwrap();
            };
            let (received, ()) = tokio::join!(far.receive(), feed);
            if held.len() == 64 {
                held.pop_front();
            }
            held.push_back(received.unwrap());
        });
        held.clear();
        assert_free!(format!("into a buffer, parts, {size}"), rounds(size), {
            let parts = [IoSlice::new(one), IoSlice::new(two)];
            let (sent, received) =
                tokio::join!(near.send_vectored(&parts), far.receive_into_buffer(&mut buffer));
            sent.unwrap();
            assert_eq!(received.unwrap(), size);
        });
        assert_free!(format!("batch and frames back, permit, {size}"), rounds(size), {
            let permit = async { near.reserve(size).await.unwrap().send(&payload).unwrap() };
            let (received, ()) = tokio::join!(far.receive_batch(&mut batch, 64), permit);
            assert_eq!(received.unwrap(), 1);
            let frame = batch.pop().unwrap();
            let (sent, received) = tokio::join!(far.send_frame(frame), near.receive());
            sent.unwrap();
            assert_eq!(received.unwrap().len(), size);
        });
    }
}

/// Many small messages under way: what the echo benchmarks do.
async fn windows<C, R, W>(codec: C, near: (R, W), far: (R, W))
where
    C: Codec + Clone + 'static,
    C::Decoder: Decode + Send + 'static,
    C::Encoder: Encode + Send + 'static,
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut near = Link::pair(codec.clone(), near.0, near.1);
    let mut far = Link::pair(codec, far.0, far.1);
    tokio::spawn(async move {
        while let Ok(message) = far.receive().await {
            far.send(&message).await.unwrap();
        }
    });
    let payload = [b'x'; 100];
    assert_free!("64 under way", 20, {
        for _ in 0..64 {
            near.send(&payload).await.unwrap();
        }
        for _ in 0..64 {
            assert_eq!(near.receive().await.unwrap().len(), 100);
        }
    });
}

/// The same behind `dyn`.
async fn boxed(mut near: Box<dyn PollTransport>, mut far: Box<dyn PollTransport>) {
    for &size in SIZES {
        let payload = vec![b'x'; size];
        assert_free!(format!("{}, {size}", near.transport_type()), rounds(size), {
            poll_fn(|cx| near.poll_ready(cx)).await.unwrap();
            near.start_send(&payload).unwrap();
            let flush = poll_fn(|cx| near.poll_flush(cx));
            let (flushed, received) = tokio::join!(flush, poll_fn(|cx| far.poll_receive(cx)));
            flushed.unwrap();
            assert_eq!(received.unwrap().len(), size);
        });
    }
}

#[test]
fn memory_streams() {
    run(async {
        let pair = || memory::pair(64 << 10);
        let (near, far) = pair();
        each_form(Newline::new(), near, far, SMALL).await;
        let (near, far) = pair();
        each_form(LengthPrefix::new(), near, far, SMALL).await;
        let (near, far) = pair();
        each_form(ContentLength::new(), near, far, SMALL).await;
        let (near, far) = pair();
        windows(Newline::new(), near, far).await;
    });
}

#[test]
fn unix_sockets() {
    run(async {
        let (near, far) = unix::pair().unwrap();
        each_form(Newline::new(), near, far, SIZES).await;
        let (near, far) = unix::pair().unwrap();
        each_form(LengthPrefix::new(), near, far, SMALL).await;
        let (near, far) = unix::pair().unwrap();
        windows(LengthPrefix::new(), near, far).await;
    });
}

#[test]
fn tcp_connections() {
    run(async {
        let listener = tcp::Listener::bind("127.0.0.1:0").await.unwrap();
        for _ in 0..2 {
            let options = tcp::TcpOptions::default();
            let near = tcp::connect(listener.local_addr().unwrap(), &options).await.unwrap();
            let (reader, writer, _) = listener.accept().await.unwrap();
            each_form(LengthPrefix::new(), near, (reader, writer), SIZES).await;
        }
    });
}

#[test]
fn behind_dyn() {
    run(async {
        let (near, far) = unix::pair().unwrap();
        let near = Link::pair(LengthPrefix::new(), near.0, near.1);
        boxed(Box::new(near), Box::new(Link::pair(LengthPrefix::new(), far.0, far.1))).await;
        let (near, far) = MemoryTransport::with_capacity(4 << 20);
        boxed(Box::new(near), Box::new(far)).await;
    });
}

/// Heap that a link holds when it has been used and nothing is under way, its small task included.
#[test]
fn an_idle_link_holds_less_than_512_bytes() {
    run(async {
        for warm in [true, false] {
            let (near, far) = unix::pair().unwrap();
            let mut far = Link::pair(Newline::new(), far.0, far.1);
            far.send(b"ping").await.unwrap();
            // What the links of the last time have left ends first.
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            // From the second time on every block is the pool's already, and is not the link's.
            let live = allocation::live();
            let mut near = Link::pair(Newline::new(), near.0, near.1);
            let made = allocation::live().wrapping_sub(live);
            assert_eq!(near.receive().await.unwrap(), "ping");
            near.send(b"pong").await.unwrap();
            assert_eq!(far.receive().await.unwrap(), "pong");
            tokio::time::timeout(std::time::Duration::from_millis(5), near.receive()).await.unwrap_err();
            let used = allocation::live().wrapping_sub(live);
            if !warm {
                println!("heap of an idle link: {made} bytes when made, {used} when used");
                assert!(used < 512, "{used} bytes");
            }
        }
    });
}
