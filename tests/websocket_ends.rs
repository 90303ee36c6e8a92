//! How a WebSocket ends, and what keeps it alive: the closing handshake from either side, breaches of the protocol, the
//! keep-alive, and peers that flood, trickle or never read.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(all(feature = "net", feature = "websocket"))]

#[path = "support/allocation.rs"]
mod allocation;
#[path = "support/script.rs"]
mod script;
#[path = "support/step.rs"]
mod step;
#[path = "support/websocket.rs"]
mod websocket;

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use framewire::{
    Error, Link,
    codec::{
        WebSocket,
        websocket::{CloseReason, Role},
    },
    error::{Deadline, End, Violation},
    io::{memory, tcp},
    link::LinkConfig,
};
use script::{Act, Log, ScriptedReader, ScriptedWriter};
use step::poll_once;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use websocket::{masked, plain};

const CLOSE_1000: [u8; 4] = [0x88, 2, 0x03, 0xe8];

/// A server's end on the pair in memory, and the client's bytes.
fn served()
-> (Link<WebSocket, memory::MemoryReader, memory::MemoryWriter>, (memory::MemoryReader, memory::MemoryWriter))
{
    let ((reader, writer), far) = memory::pair(1 << 16);
    (Link::pair(WebSocket::server(), reader, writer), far)
}

fn silent() -> ScriptedReader {
    ScriptedReader::new([], []).after(Act::Never)
}

async fn bytes(reader: &mut memory::MemoryReader, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    timeout(Duration::from_secs(3600), reader.read_exact(&mut bytes)).await.expect("comes").unwrap();
    bytes
}

async fn is_eof(reader: &mut memory::MemoryReader) -> bool {
    timeout(Duration::from_secs(3600), reader.read(&mut [0])).await.expect("ends").unwrap() == 0
}

fn rule(error: &Error) -> u16 {
    match error {
        Error::Violation(Violation::Protocol { code, .. }) => *code,
        other => panic!("{other}"),
    }
}

// Pings.

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_while_the_sender_is_idle() {
    let (link, (mut far, mut to)) = served();
    let (_sender, mut receiver) = link.split();
    let waiting = tokio::spawn(async move { receiver.receive().await.map(drop) });
    to.write_all(&masked(0x89, b"are you there")).await.unwrap();
    assert_eq!(bytes(&mut far, 15).await, plain(0x8a, b"are you there"));
    to.write_all(&masked(0x8a, b"nobody asked")).await.unwrap();
    to.write_all(&masked(0x89, b"")).await.unwrap();
    assert_eq!(bytes(&mut far, 2).await, plain(0x8a, b""));
    assert!(!waiting.is_finished(), "an unsolicited pong is taken in");
}

/// While a large message is stuck, a pong waits in one slot; it leaves behind the message, the latest alone.
#[tokio::test(start_paused = true)]
async fn behind_a_send_that_is_stuck_the_latest_ping_is_answered_by_one_pong() {
    let ((reader, writer), (mut far, mut to)) = memory::pair(4096);
    let (mut sender, mut receiver) = Link::pair(WebSocket::server(), reader, writer).split();
    let large = vec![b'x'; 1 << 20];
    let message = large.clone();
    let sending = tokio::spawn(async move {
        sender.send(&message).await.unwrap();
        sender.flush().await.unwrap();
        sender
    });
    let waiting = tokio::spawn(async move {
        let heard = receiver.receive().await.map(|frame| frame.to_vec());
        (receiver, heard)
    });
    for number in 0..500 {
        to.write_all(&masked(0x89, format!("{number}").as_bytes())).await.unwrap();
        if number % 100 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    sleep(Duration::from_millis(10)).await;
    let mut all = bytes(&mut far, 10 + (1 << 20)).await;
    assert!(all.split_off(10) == large, "whole, with nothing inside");
    assert_eq!(bytes(&mut far, 5).await, plain(0x8a, b"499"));
    let _sender = sending.await.unwrap();
    to.write_all(&masked(0x81, b"go on")).await.unwrap();
    let (_receiver, heard) = waiting.await.unwrap();
    assert_eq!(heard.unwrap(), b"go on");
    assert!(poll_once(far.read(&mut [0])).is_none(), "one pong for all");
}

/// Brings the same frames until so many bytes were read, then nothing more.
struct Flood {
    frames: Vec<u8>,
    at: usize,
    left: usize,
    read: Arc<AtomicUsize>,
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.left == 0 {
            return Poll::Pending;
        }
        let rest = &this.frames[this.at..];
        let count = rest.len().min(buffer.remaining()).min(this.left);
        buffer.put_slice(&rest[..count]);
        this.at = (this.at + count) % this.frames.len();
        this.left -= count;
        this.read.fetch_add(count, SeqCst);
        Poll::Ready(Ok(()))
    }
}

fn flood(frames: Vec<u8>, left: usize) -> (Flood, Arc<AtomicUsize>) {
    let read = Arc::new(AtomicUsize::new(0));
    let frames = frames.repeat(4000);
    (Flood { frames, at: 0, left, read: Arc::clone(&read) }, read)
}

/// 60 MB of pings from a peer that never reads: the memory of one pong.
#[tokio::test(start_paused = true)]
async fn a_flood_of_pings_from_a_peer_that_never_reads_costs_no_memory() {
    const ALL: usize = 60_000_000;
    // The last of them is whole.
    let ping = masked(0x89, &[b'p'; 119]);
    assert_eq!(ping.len(), 125);
    let (reader, read) = flood(ping, ALL);
    let (writer, _log) = ScriptedWriter::new([]);
    let codec = WebSocket::server().max_control_frames(usize::MAX);
    let link = Link::pair(codec, reader, writer.limit(3, Act::Never));
    let (_sender, mut receiver) = link.split();
    let before = allocation::live();
    let mut most = 0;
    while read.load(SeqCst) < ALL {
        let step = timeout(Duration::from_millis(1), receiver.receive()).await;
        assert!(step.is_err(), "pings are no messages");
        most = most.max(allocation::live().saturating_sub(before));
    }
    assert!(most < 300_000, "{most} bytes are held");
}

/// By default a flood is refused, with the Close frame that says so.
#[tokio::test(start_paused = true)]
async fn a_flood_of_control_frames_is_refused() {
    for first in [0x89, 0x8a] {
        let (reader, read) = flood(masked(first, b"flood"), 60_000_000);
        let (writer, log) = ScriptedWriter::new([]);
        let mut link = Link::pair(WebSocket::server(), reader, writer);
        assert_eq!(rule(&link.receive().await.unwrap_err()), 1008);
        assert!(read.load(SeqCst) < 1 << 20);
        link.flush().await.ok();
        sleep(Duration::from_millis(1)).await;
        assert!(log.bytes().ends_with(&[0x88, 2, 0x03, 0xf0]), "{:?}", log.bytes());
    }
}

/// Heads without payload: fragments end with 1009, empty messages pass, and neither costs memory.
#[tokio::test(start_paused = true)]
async fn heads_alone_cost_no_memory() {
    let (reader, _) = flood(masked(0x00, b""), 60_000_000);
    let reader = io_chain(masked(0x01, b""), reader);
    let (writer, _log) = ScriptedWriter::new([]);
    let mut link = Link::pair(WebSocket::server().max_fragments(1_000_000), reader, writer);
    let before = allocation::live();
    let mut most = 0;
    loop {
        match timeout(Duration::from_millis(1), link.receive()).await {
            Ok(Ok(_)) => panic!("no message ends"),
            Ok(Err(error)) => break assert_eq!(rule(&error), 1009),
            Err(_) => most = most.max(allocation::live().saturating_sub(before)),
        }
        most = most.max(allocation::live().saturating_sub(before));
    }
    assert!(most < 300_000, "{most} bytes are held");

    let (reader, _) = flood(masked(0x82, b""), 600_000);
    let (writer, _log) = ScriptedWriter::new([]);
    let mut link = Link::pair(WebSocket::server(), reader, writer);
    for _ in 0..100_000 {
        assert!(link.receive_lent().await.unwrap().is_empty());
    }
    assert!(allocation::live().saturating_sub(before) < 300_000);
}

fn io_chain(first: Vec<u8>, then: Flood) -> impl AsyncRead + Unpin {
    AsyncReadExt::chain(io::Cursor::new(first), then)
}

/// One byte at a time: memory follows what has come, not what was declared.
#[tokio::test(start_paused = true)]
async fn a_trickle_holds_what_has_come() {
    let head = &masked(0x82, &vec![0; 1 << 24])[..14];
    let bytes = [head, &[0; 40_000]].concat();
    let reader = ScriptedReader::new(bytes, [Act::Take(1), Act::Pending]).after(Act::Never);
    let (writer, _log) = ScriptedWriter::new([]);
    let mut link = Link::pair(WebSocket::server(), reader, writer);
    let before = allocation::live();
    assert!(timeout(Duration::from_secs(1), link.receive()).await.is_err());
    assert!(link.reader().rest().is_empty(), "all of it was read");
    let held = allocation::live().saturating_sub(before);
    assert!(held < 400_000, "{held} bytes are held for 40 KB");
}

// The closing handshake.

#[tokio::test(start_paused = true)]
async fn this_side_closes_first_and_waits_for_the_peer() {
    let (mut link, (mut far, mut to)) = served();
    link.send(b"last").await.unwrap();
    let closing = tokio::spawn(async move {
        let closed = link.close().await;
        (link, closed)
    });
    assert_eq!(bytes(&mut far, 10).await, [&plain(0x81, b"last")[..], &CLOSE_1000].concat());
    sleep(Duration::from_secs(1)).await;
    assert!(!closing.is_finished(), "the peer's Close is waited for");
    assert!(poll_once(far.read(&mut [0])).is_none(), "and the stream stays open");
    to.write_all(&[masked(0x81, b"on its way"), masked(0x88, &[0x03, 0xe8])].concat()).await.unwrap();
    let (mut link, closed) = closing.await.unwrap();
    closed.unwrap();
    assert!(is_eof(&mut far).await);
    assert!(matches!(link.send(b"late").await, Err(Error::Ended(_))));
    link.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_peer_closes_first_and_is_answered_with_its_code() {
    let (mut link, (mut far, mut to)) = served();
    let close = masked(0x88, b"\x0f\xa0done");
    to.write_all(&[masked(0x81, b"before"), close, masked(0x81, b"behind")].concat()).await.unwrap();
    link.send(b"answer").await.unwrap();
    assert_eq!(link.receive().await.unwrap(), b"before"[..]);
    for _ in 0..3 {
        assert!(matches!(link.receive().await, Err(Error::Ended(End::Eof))));
    }
    let reason = link.decoder().close_reason().unwrap();
    assert_eq!((reason.code(), reason.text()), (4000, "done"));
    assert_eq!(bytes(&mut far, 12).await, [&plain(0x81, b"answer")[..], &[0x88, 2, 0x0f, 0xa0]].concat());
    assert!(is_eof(&mut far).await, "shut down behind the Close frame, without being asked");
    assert!(matches!(link.send(b"late").await, Err(Error::Ended(End::Eof))));
    link.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn both_close_at_once() {
    for capacity in [1, 3, 1 << 16] {
        let ((reader, writer), (far_reader, far_writer)) = memory::pair(capacity);
        let mut server = Link::pair(WebSocket::server(), reader, writer);
        let mut client = Link::pair(WebSocket::client(), far_reader, far_writer);
        server.send(b"from the server").await.unwrap();
        client.send(b"from the client").await.unwrap();
        let (one, two) = tokio::join!(server.close(), client.close());
        one.unwrap();
        two.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_is_waited_for_no_longer_than_the_deadline() {
    for (reads, outcome) in [(true, false), (false, false)] {
        let (writer, log) = ScriptedWriter::new([]);
        let writer = if reads { writer } else { writer.limit(1, Act::Never) };
        let config = LinkConfig::default().close(Some(Duration::from_secs(2)));
        let mut link = Link::with_config(WebSocket::server(), silent(), writer, config);
        let began = Instant::now();
        let closed = link.close().await;
        assert_eq!(closed.is_ok(), outcome, "{closed:?}");
        if let Err(error) = closed {
            assert!(matches!(error, Error::TimedOut { deadline: Deadline::Close, .. }), "{error}");
        }
        assert_eq!(began.elapsed().as_secs(), 2);
        assert!(log.get().dropped, "and the writer is gone");
        assert_eq!(log.bytes(), CLOSE_1000[..if reads { 4 } else { 1 }]);
    }
}

/// A peer that ends the stream without a Close frame of its own: nothing to wait for.
#[tokio::test(start_paused = true)]
async fn a_peer_that_hangs_up_instead_of_answering_ends_the_close() {
    let (mut link, (mut far, to)) = served();
    let closing = tokio::spawn(async move { link.close().await });
    assert_eq!(bytes(&mut far, 4).await, CLOSE_1000);
    drop(to);
    closing.await.unwrap().unwrap();
    assert!(is_eof(&mut far).await);
}

/// An end without a Close frame is none that was meant (RFC 6455 §7.1.5).
#[tokio::test(start_paused = true)]
async fn an_end_without_a_close_frame_is_told_apart() {
    for rest in [vec![], masked(0x81, b"cut")[..7].to_vec(), masked(0x01, b"begun")] {
        let (mut link, (mut far, mut to)) = served();
        to.write_all(&[masked(0x81, b"whole"), rest].concat()).await.unwrap();
        drop(to);
        assert_eq!(link.receive().await.unwrap(), b"whole"[..]);
        assert_eq!(rule(&link.receive().await.unwrap_err()), 1006);
        assert_eq!(rule(&link.receive().await.unwrap_err()), 1006);
        // The peer may still listen.
        link.send(b"still").await.unwrap();
        link.close().await.unwrap();
        assert_eq!(bytes(&mut far, 11).await, [&plain(0x81, b"still")[..], &CLOSE_1000].concat());
        assert!(is_eof(&mut far).await);
    }
}

/// The sending half closes; the other goes on hearing what comes before the peer's Close.
#[tokio::test(start_paused = true)]
async fn a_half_closes_while_the_other_still_hears() {
    let (link, (mut far, mut to)) = served();
    let (mut sender, mut receiver) = link.split();
    let closing = tokio::spawn(async move { sender.close().await });
    assert_eq!(bytes(&mut far, 4).await, CLOSE_1000);
    to.write_all(&masked(0x81, b"on its way")).await.unwrap();
    assert_eq!(receiver.receive().await.unwrap(), b"on its way"[..]);
    assert!(!closing.is_finished());
    to.write_all(&masked(0x88, &[0x03, 0xe8])).await.unwrap();
    assert!(matches!(receiver.receive().await, Err(Error::Ended(End::Eof))));
    closing.await.unwrap().unwrap();
    assert!(is_eof(&mut far).await);

    // Without the other half there is nobody to hear the peer's: the stream ends at once.
    let (link, (mut far, _to)) = served();
    let (mut sender, receiver) = link.split();
    drop(receiver);
    sender.close().await.unwrap();
    assert_eq!(bytes(&mut far, 4).await, CLOSE_1000);
    assert!(is_eof(&mut far).await);
}

/// Dropped without a close: what was accepted leaves, then the stream ends; the peer sees 1006, which is what it was.
#[tokio::test(start_paused = true)]
async fn dropped_without_a_close_all_that_was_accepted_leaves() {
    let (mut link, (mut far, _to)) = served();
    link.send(b"accepted").await.unwrap();
    drop(link);
    assert_eq!(bytes(&mut far, 10).await, plain(0x81, b"accepted"));
    assert!(is_eof(&mut far).await);
}

#[tokio::test(start_paused = true)]
async fn the_close_frame_says_why() {
    let ((reader, writer), (mut far, to)) = memory::pair(1 << 10);
    let reason = CloseReason::new(1001, "down for the night").unwrap();
    let mut link = Link::pair(WebSocket::server().close_reason(reason), reader, writer);
    drop(to);
    link.close().await.unwrap();
    assert_eq!(bytes(&mut far, 22).await, plain(0x88, b"\x03\xe9down for the night"));
}

// Breaches.

/// The Close frame reaches a peer on TCP that has sent more than was read.
#[tokio::test]
async fn after_a_breach_the_close_frame_reaches_the_peer() {
    let breaches = [
        (masked(0x83, b"reserved"), 1002),
        (plain(0x81, b"not masked"), 1002),
        (masked(0x81, b"\xff"), 1007),
        (masked(0x82, &[0; 2000]), 1009),
        (masked(0x88, &[0x03, 0xed]), 1002),
    ];
    for (bad, code) in breaches {
        let listener = tcp::Listener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (reader, writer, _) = listener.accept().await.unwrap();
        let mut link = Link::pair(WebSocket::server().max_size(1000), reader, writer);
        let behind = vec![b'x'; 150_000];
        let (mut from, mut to) = peer.split();
        let peer = async {
            let _refused = to.write_all(&[bad, behind].concat()).await;
            let mut heard = Vec::new();
            from.read_to_end(&mut heard).await.expect("no reset before the Close frame");
            assert_eq!(heard[..4], [&[0x88, 2][..], &u16::to_be_bytes(code)].concat()[..]);
            let _gone = to.shutdown().await;
        };
        let ours = async {
            assert_eq!(rule(&link.receive().await.unwrap_err()), code);
            link.close().await.unwrap();
        };
        timeout(Duration::from_secs(20), async { tokio::join!(peer, ours) }).await.unwrap();
    }
}

/// A peer that goes on sending for ever after its breach is listened to no longer than a close may take.
#[tokio::test(start_paused = true)]
async fn a_peer_that_goes_on_after_its_breach_is_cut_off() {
    let (reader, _) = flood([masked(0x83, b"bad")].concat(), usize::MAX);
    let (writer, log) = ScriptedWriter::new([]);
    let config = LinkConfig::default().close(Some(Duration::from_millis(20)));
    let mut link = Link::with_config(WebSocket::server(), reader, writer, config);
    rule(&link.receive().await.unwrap_err());
    let closing = async {
        let ticking = async {
            loop {
                tokio::task::yield_now().await;
                tokio::time::advance(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            closed = link.close() => closed,
            () = ticking => unreachable!(),
        }
    };
    closing.await.unwrap();
    assert_eq!(log.bytes(), [0x88, 2, 0x03, 0xea]);
}

// The keep-alive.

fn quiet(role: Role) -> (Link<WebSocket, ScriptedReader, ScriptedWriter>, Log) {
    let (writer, log) = ScriptedWriter::new([]);
    (Link::pair(WebSocket::new(role), silent(), writer), log)
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_pinged_and_given_up_after_two_unanswered() {
    for role in [Role::Server, Role::Client] {
        let (mut link, log) = quiet(role);
        let size = if role == Role::Client { 7 } else { 3 };
        let began = Instant::now();
        let receiving = tokio::spawn(async move {
            let error = link.receive().await.unwrap_err();
            (link, error, Instant::now())
        });
        for (second, pings) in [(29, 0), (31, 1), (59, 1), (61, 2), (89, 2)] {
            tokio::time::sleep_until(began + Duration::from_secs(second)).await;
            assert_eq!(log.bytes().len(), pings * size, "{role:?} at {second} s");
        }
        let (mut link, error, ended) = receiving.await.unwrap();
        assert_eq!(rule(&error), 1008);
        assert_eq!((ended - began).as_secs(), 90);
        // Nobody answers the Close either; it went out all the same.
        let _late = link.close().await;
        let bytes = log.bytes();
        assert_eq!((bytes[0], bytes[size], bytes[2 * size]), (0x89, 0x89, 0x88));
        if role == Role::Server {
            assert_eq!(bytes[2 * size..], [0x88, 2, 0x03, 0xf0]);
        }
    }
    // Beyond all clocks there is no ping.
    let (writer, log) = ScriptedWriter::new([]);
    let codec = WebSocket::server().keep_alive(Some(Duration::MAX));
    let mut link = Link::pair(codec, silent(), writer);
    assert!(timeout(Duration::from_secs(86_400), link.receive()).await.is_err());
    assert!(log.bytes().is_empty());
}

/// Whatever the peer says is an answer, and it is asked again 30 s later.
#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_stays() {
    let (link, (mut far, mut to)) = served();
    let (_sender, mut receiver) = link.split();
    let waiting = tokio::spawn(async move { receiver.receive().await.map(|frame| frame.to_vec()) });
    let began = Instant::now();
    for round in 1..20 {
        let ping = bytes(&mut far, 3).await;
        assert_eq!(ping, [0x89, 1, 1], "the first since it was heard");
        assert_eq!(began.elapsed().as_secs(), 30 * round);
        to.write_all(&masked(0x8a, &ping[2..])).await.unwrap();
    }
    to.write_all(&masked(0x81, b"hello")).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), b"hello");
}

/// A message that comes slowly is no silence.
#[tokio::test(start_paused = true)]
async fn a_slow_message_is_no_silence() {
    let (link, (mut far, mut to)) = served();
    let (_sender, mut receiver) = link.split();
    let waiting = tokio::spawn(async move { receiver.receive().await.map(|frame| frame.to_vec()) });
    for byte in masked(0x81, b"slowly") {
        sleep(Duration::from_secs(29)).await;
        to.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(waiting.await.unwrap().unwrap(), b"slowly");
    assert!(poll_once(far.read(&mut [0])).is_none(), "no ping");
}

/// A link whose reading waits for its own backlog cannot know whether its peer is silent.
#[tokio::test(start_paused = true)]
async fn who_does_not_read_gives_nobody_up() {
    let (writer, log) = ScriptedWriter::new([]);
    let config =
        LinkConfig::default().write_high_water(10).pause_reading(true).idle(Duration::from_secs(9000));
    let mut link = Link::with_config(WebSocket::server(), silent(), writer.limit(1, Act::Never), config);
    link.send(&[b'x'; 100]).await.unwrap();
    assert!(timeout(Duration::from_secs(3600), link.receive()).await.is_err(), "still waits");
    assert_eq!(log.bytes().len(), 1);
}

/// A ping of this end's own does not take the place of the pong that the peer waits for.
#[tokio::test(start_paused = true)]
async fn the_keep_alive_does_not_push_out_a_pong() {
    let ((reader, writer), (mut far, mut to)) = memory::pair(16);
    let (mut sender, mut receiver) = Link::pair(WebSocket::server(), reader, writer).split();
    sender.send(&[b'x'; 300_000]).await.unwrap();
    let waiting = tokio::spawn(async move { receiver.receive().await.map(drop) });
    to.write_all(&masked(0x89, b"me")).await.unwrap();
    sleep(Duration::from_secs(40)).await;
    let _large = bytes(&mut far, 300_010).await;
    assert_eq!(bytes(&mut far, 4).await, plain(0x8a, b"me"));
    assert!(!waiting.is_finished());
}

/// Without a runtime there is no clock: the keep-alive rests.
#[test]
fn without_a_runtime_there_is_no_keep_alive() {
    let (mut link, _log) = quiet(Role::Server);
    assert!(poll_once(link.receive()).is_none());
}
