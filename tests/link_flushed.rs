//! `send_flushed` and masked writes: what a writer that takes little at a time is given is what was sent, whole and in
//! order, and has left when the call says so.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(all(feature = "link", feature = "websocket"))]

#[path = "support/script.rs"]
mod script;
#[path = "support/step.rs"]
mod step;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{self, Receiver, Sender},
    },
    task::{Context, Poll},
    time::Duration,
};

use framewire::{
    Error, Frame, Link,
    codec::{Codec, Decode, Encode, Kind, LengthPrefix, LengthPrefixDecoder, Step, WebSocket, Wrap},
    error::{End, Rejection},
};
use script::{Act, Log, ScriptedReader, ScriptedWriter};
use step::{dropped_after, poll_once};
use tokio::{io::AsyncWrite, task::yield_now, time::timeout};

const LONG: Duration = Duration::from_secs(20);

const SIZES: [usize; 12] =
    [0, 1, 100, 4_095, 4_096, 5_000, 16_384, 65_530, 65_536, 100_000, 200_001, 300_000];

/// How little a writer takes.
const SCRIPTS: [&[Act]; 5] = [
    &[],
    &[Act::Take(1 << 15)],
    &[Act::Take(3), Act::Pending, Act::Take(7_001), Act::Take(70_000)],
    &[Act::Pending],
    &[Act::Take(13), Act::Take(65_536), Act::Later, Act::Take(1)],
];

fn silent() -> ScriptedReader {
    ScriptedReader::new([], []).after(Act::Never)
}

fn payload(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 31 + size) as u8).collect()
}

/// What the other end makes of `bytes`.
fn received(mut decoder: impl Decode, mut bytes: Vec<u8>) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match decoder.decode(&mut bytes[at..]).unwrap() {
            Step::Frame { payload, consumed } => {
                all.push(bytes[at..][payload].to_vec());
                at += consumed;
            }
            step => panic!("{step:?} at {at}"),
        }
    }
    all
}

/// Sends messages of all sizes, each by the way that `how` says for its place.
async fn check<C: Codec>(codec: C, other: impl Decode, script: &[Act], how: fn(usize) -> usize) {
    // A script of nothing but refusals would never end.
    let acts = script.iter().copied().chain((script == [Act::Pending]).then_some(Act::Take(50_000)));
    let (writer, log) = ScriptedWriter::new(acts);
    let mut link = Link::pair(codec, silent(), writer);
    let mut sent = Vec::new();
    for (place, size) in SIZES.into_iter().cycle().take(40).enumerate() {
        let payload = payload(size);
        match how(place) {
            0 => link.send(&payload).await.unwrap(),
            1 => link.feed(&payload).await.unwrap(),
            _ => {
                timeout(LONG, link.send_flushed(&payload)).await.expect("stuck").unwrap();
                let log = log.get();
                assert_eq!(log.flushed, log.bytes.len(), "all has left at {place}");
            }
        }
        sent.push(payload);
    }
    timeout(LONG, link.flush()).await.expect("stuck").unwrap();
    let received = received(other, log.bytes());
    assert_eq!(received.len(), sent.len());
    for (place, (received, sent)) in received.iter().zip(&sent).enumerate() {
        assert!(received == sent, "message {place} of {} bytes", sent.len());
    }
    assert_eq!(link.counters().frames_sent, sent.len() as u64);
}

#[tokio::test]
async fn all_arrives_whole_and_in_order_however_it_is_sent() {
    for script in SCRIPTS {
        for how in [|_| 2, |place| place % 3, |place| (place / 2) % 3, |_| 1, |_| 0] {
            check(LengthPrefix::new(), LengthPrefix::new(), script, how).await;
            let [client, server] =
                [WebSocket::client(), WebSocket::server()].map(|codec| codec.send_as(Kind::Binary));
            check(client, WebSocket::server(), script, how).await;
            check(server, WebSocket::client(), script, how).await;
        }
    }
}

fn client() -> WebSocket {
    WebSocket::client().send_as(Kind::Binary)
}

/// Dropped while it waits, a message leaves all the same, once.
#[tokio::test]
async fn a_dropped_call_leaves_a_whole_message() {
    for size in [10, 5_000, 100_000] {
        for polls in 1..4 {
            let (writer, log) = ScriptedWriter::new([Act::Take(5), Act::Later, Act::Take(4_000), Act::Later]);
            let mut link = Link::pair(client(), silent(), writer);
            timeout(LONG, link.send_flushed(b"first")).await.unwrap().unwrap();
            let told = timeout(LONG, dropped_after(polls, link.send_flushed(&payload(size)))).await.unwrap();
            assert!(told.is_none_or(|told| told.is_ok()));
            timeout(LONG, link.send_flushed(b"last")).await.unwrap().unwrap();
            let received = received(WebSocket::server(), log.bytes());
            assert_eq!(received, [b"first".to_vec(), payload(size), b"last".to_vec()], "{size} {polls}");
        }
    }
}

#[tokio::test]
async fn a_failed_writer_is_told_of() {
    for size in [10, 5_000, 100_000] {
        let (writer, _log) = ScriptedWriter::new([]);
        let mut link = Link::pair(client(), silent(), writer.limit(60, Act::Fail(io::ErrorKind::BrokenPipe)));
        link.send_flushed(b"fits").await.unwrap();
        for _ in 0..2 {
            let mut told = Ok(());
            while told.is_ok() {
                told = timeout(LONG, link.send_flushed(&payload(size))).await.unwrap();
            }
            assert!(matches!(told, Err(Error::Ended(End::Reset))), "{told:?}");
        }
    }
}

#[tokio::test]
async fn a_writer_that_panics_leaves_an_error_behind() {
    let (writer, _log) = ScriptedWriter::new([]);
    let mut link = Link::pair(client(), silent(), writer.limit(60, Act::Panic));
    link.send_flushed(b"fits").await.unwrap();
    let panicked = std::panic::AssertUnwindSafe(async {
        loop {
            link.send_flushed(&[b'x'; 40]).await.unwrap();
        }
    });
    assert!(futures::FutureExt::catch_unwind(panicked).await.is_err());
    assert!(timeout(LONG, link.send_flushed(b"more")).await.unwrap().is_err());
    assert!(timeout(LONG, link.close()).await.unwrap().is_err());
}

/// Nor is it asked again.
#[tokio::test]
async fn a_writer_that_panicked_is_not_written_to() {
    for size in [40, 5_000] {
        let (writer, log) = ScriptedWriter::new([Act::Take(10_000), Act::Panic, Act::Take(10_000)]);
        let mut link = Link::pair(WebSocket::server(), silent(), writer);
        link.send_flushed(b"fits").await.unwrap();
        let before = log.bytes();
        let bytes = payload(size);
        let panicked = std::panic::AssertUnwindSafe(link.send_flushed(&bytes));
        assert!(futures::FutureExt::catch_unwind(panicked).await.is_err());
        for _ in 0..2 {
            assert!(timeout(LONG, link.send_flushed(&bytes)).await.unwrap().is_err());
        }
        assert_eq!(log.bytes(), before);
    }
}

/// Frames fed before leave before, in the same flush.
#[tokio::test]
async fn what_was_fed_leaves_first() {
    let (writer, log): (_, Log) = ScriptedWriter::new([]);
    let mut link = Link::pair(client(), silent(), writer);
    link.feed(b"one").await.unwrap();
    link.send_flushed(b"two").await.unwrap();
    assert_eq!(received(WebSocket::server(), log.bytes()), [b"one".to_vec(), b"two".to_vec()]);
}

/// Whatever comes after a message that was flushed leaves behind it, on a link that was kept whole until then.
#[tokio::test]
async fn all_other_ways_to_send_go_on_from_there() {
    for size in [10, 5_000] {
        for way in 0..9 {
            let (writer, log) = ScriptedWriter::new([]);
            let mut link = Link::pair(client(), silent(), writer);
            for _ in 0..3 {
                link.send_flushed(&payload(size)).await.unwrap();
            }
            let next = payload(size + 1);
            match way {
                0 => link.send(&next).await.unwrap(),
                1 => link.feed(&next).await.unwrap(),
                2 => link.send_frame(Frame::copy_from_slice(&next)).await.unwrap(),
                3 => link.send_vectored(&[IoSlice::new(&next)]).await.unwrap(),
                4 => link.reserve(next.len()).await.unwrap().send(&next).unwrap(),
                5 => link.halves().0.send_flushed(&next).await.unwrap(),
                6 => link.send_flushed(&next).await.unwrap(),
                _ => {}
            }
            link.flush().await.unwrap();
            let counted = link.counters().writes;
            assert_eq!(counted, log.get().writes.len() as u64, "{way}: each write is counted");
            match way {
                7 => {
                    let (mut sender, receiver) = link.split();
                    sender.send_flushed(&next).await.unwrap();
                    let whole = Link::<WebSocket, _, _>::unsplit(sender, receiver);
                    whole.ok().unwrap().send_flushed(&next).await.unwrap();
                }
                8 => assert!(link.into_parts().writer.is_some()),
                _ => drop(link),
            }
            let mut expected = vec![payload(size); 3];
            expected.extend(vec![next; [1, 1, 1, 1, 1, 1, 1, 2, 0][way]]);
            assert!(received(WebSocket::server(), log.bytes()) == expected, "{size} {way}");
        }
    }
}

/// A frame that was fed without a flush leaves before the link reads, and is flushed.
#[tokio::test]
async fn what_was_written_is_flushed_before_a_read() {
    for size in [10, 5_000, 70_000] {
        let (writer, log) = ScriptedWriter::new([]);
        let mut link = Link::pair(client(), silent(), writer);
        link.send_flushed(b"first").await.unwrap();
        link.feed(&payload(size)).await.unwrap();
        assert!(dropped_after(1, link.receive()).await.is_none());
        let log = log.get();
        assert_eq!(log.flushed, log.bytes.len(), "{size}");
        assert!(log.bytes.len() > size);
    }
}

/// What the codec answers by itself leaves though the sender has just written by itself and does nothing more.
#[tokio::test]
async fn a_ping_is_answered_after_it() {
    let mut text = [0; 64];
    let written = WebSocket::server().encode(b"text", &mut text).unwrap();
    let ping = b"\x89\x02hi";
    let stream = [&text[..written], ping, &text[..written]].concat();
    for polled in [false, true] {
        let (writer, log) = ScriptedWriter::new([]);
        let mut link =
            Link::pair(client(), ScriptedReader::new(stream.clone(), []).after(Act::Never), writer);
        link.send_flushed(b"one").await.unwrap();
        assert_eq!(link.receive_lent().await.unwrap(), b"text");
        link.send_flushed(b"two").await.unwrap();
        let before = log.bytes().len();
        let ready = link.receive_ready().unwrap();
        assert_eq!(ready.map(|lent| lent.to_vec()), Some(b"text".to_vec()));
        if polled {
            link.send_flushed(b"three").await.unwrap();
        }
        timeout(LONG, async {
            while !has_pong(&log.bytes()[before..]) {
                yield_now().await;
            }
        })
        .await
        .expect("the answer does not leave");
    }
}

fn has_pong(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|head| head == [0x8a, 0x82])
}

/// Once told to, stops in the middle of a write until it is told to go on.
struct Gate {
    bytes: Arc<Mutex<Vec<u8>>>,
    stops: Arc<AtomicBool>,
    entered: Sender<()>,
    go: Mutex<Receiver<()>>,
}

impl AsyncWrite for Gate {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.stops.swap(false, SeqCst) {
            self.entered.send(()).unwrap();
            self.go.lock().unwrap().recv_timeout(LONG).unwrap();
        }
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// While one half is in the middle of a write, the other has something to answer, and the task that would write it finds
/// the writer taken. The first half does nothing more.
#[tokio::test]
async fn a_ping_is_answered_that_comes_while_the_sender_writes() {
    for behind_another in [false, true] {
        let (bytes, stops) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::<AtomicBool>::default());
        let ((entered, at_the_gate), (open, go)) = (mpsc::channel(), mpsc::channel());
        let writer = Gate { bytes: bytes.clone(), stops: stops.clone(), entered, go: Mutex::new(go) };
        let reader = ScriptedReader::new(*b"\x89\x02hi", []).after(Act::Never);
        let (mut sender, mut receiver) = Link::pair(client(), reader, writer).split();
        timeout(LONG, sender.send_flushed(b"first")).await.unwrap().unwrap();
        stops.store(true, SeqCst);
        let sending = std::thread::spawn(move || {
            if behind_another {
                poll_once(sender.feed(b"small")).unwrap().unwrap();
            }
            poll_once(sender.feed(&payload(5_000))).unwrap().unwrap();
            sender
        });
        at_the_gate.recv_timeout(LONG).unwrap();
        assert!(dropped_after(1, receiver.receive()).await.is_none());
        for _ in 0..10 {
            yield_now().await;
        }
        open.send(()).unwrap();
        let _kept = sending.join().unwrap();
        timeout(LONG, async {
            while !has_pong(&bytes.lock().unwrap()) {
                yield_now().await;
            }
        })
        .await
        .expect("the answer does not leave");
    }
}

/// A large frame that was fed is written at once, and flushed at the latest when the sender goes, though the receiver
/// waits already.
#[tokio::test]
async fn what_was_fed_is_flushed_when_the_sender_goes() {
    for size in [10, 5_000, 70_000] {
        let (writer, log) = ScriptedWriter::new([]);
        let (mut sender, mut receiver) = Link::pair(client(), silent(), writer).split();
        timeout(LONG, sender.send_flushed(b"first")).await.unwrap().unwrap();
        assert!(dropped_after(1, receiver.receive()).await.is_none());
        sender.feed(&payload(size)).await.unwrap();
        drop(sender);
        timeout(LONG, async {
            while log.get().flushed < size {
                yield_now().await;
            }
        })
        .await
        .expect("it is not flushed");
    }
}

/// Frames that are the payload alone, which may be nothing, and a codec that panics when it is told to.
struct Bare(Arc<AtomicBool>);

impl Codec for Bare {
    type Decoder = LengthPrefixDecoder;
    type Encoder = Self;

    fn split(self) -> (LengthPrefixDecoder, Self) {
        (LengthPrefix::new().split().0, self)
    }
}

impl Encode for Bare {
    fn overhead(&self) -> usize {
        0
    }

    fn encode(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<usize, Rejection> {
        assert!(!self.0.load(SeqCst), "it is told to");
        dst[..payload.len()].copy_from_slice(payload);
        Ok(payload.len())
    }

    fn wrap(&mut self, _: &[IoSlice<'_>]) -> Result<Option<Wrap>, Rejection> {
        assert!(!self.0.load(SeqCst), "it is told to");
        Ok(Some(Wrap::new(&[], &[])))
    }
}

#[tokio::test]
async fn a_frame_of_no_bytes_is_no_failure() {
    let (writer, log) = ScriptedWriter::new([]);
    let mut link = Link::pair(Bare(Arc::default()), silent(), writer);
    for payload in [&b"one"[..], b"", b"two", b"", b""] {
        timeout(LONG, link.send_flushed(payload)).await.unwrap().unwrap();
    }
    assert_eq!(log.bytes(), b"onetwo");
    assert_eq!(log.get().writes, [3, 3]);
}

/// A codec that panics does not take the writer along: the link goes on.
#[tokio::test]
async fn a_codec_that_panics_loses_nothing() {
    for (size, split) in [(10, false), (10, true), (5_000, false), (5_000, true)] {
        let (writer, log) = ScriptedWriter::new([]);
        let panics = Arc::<AtomicBool>::default();
        let mut link = Link::pair(Bare(panics.clone()), silent(), writer);
        for _ in 0..2 {
            timeout(LONG, link.send_flushed(b"one")).await.unwrap().unwrap();
        }
        panics.store(true, SeqCst);
        let (large, mut told) = (payload(size), Ok(Ok(())));
        if split {
            let sending = std::panic::AssertUnwindSafe(link.halves().0.send_flushed(&large));
            told = futures::FutureExt::catch_unwind(sending).await;
        } else {
            let sending = std::panic::AssertUnwindSafe(link.send_flushed(&large));
            told = told.and(futures::FutureExt::catch_unwind(sending).await);
        }
        assert!(told.is_err(), "it panics");
        panics.store(false, SeqCst);
        timeout(LONG, link.send_flushed(b"two")).await.expect("the writer is lost").unwrap();
        assert_eq!(log.bytes(), b"oneonetwo", "{size} {split}");
        assert!(link.into_parts().writer.is_some());
    }
}

/// A mask and something behind the payload.
struct Tailed;

impl Codec for Tailed {
    type Decoder = LengthPrefixDecoder;
    type Encoder = Self;

    fn split(self) -> (LengthPrefixDecoder, Self) {
        (LengthPrefix::new().split().0, self)
    }
}

impl Encode for Tailed {
    fn overhead(&self) -> usize {
        5
    }

    fn encode(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<usize, Rejection> {
        let frame = [b"<", payload, b"end>"].concat();
        dst[..frame.len()].copy_from_slice(&frame);
        for (at, byte) in dst[1..=payload.len()].iter_mut().enumerate() {
            *byte ^= [1, 2, 3, 4][at % 4];
        }
        Ok(frame.len())
    }

    fn wrap(&mut self, _: &[IoSlice<'_>]) -> Result<Option<Wrap>, Rejection> {
        Ok(Some(Wrap::new(b"<", b"end>").masked([1, 2, 3, 4])))
    }
}

#[test]
fn what_stands_behind_a_masked_payload_leaves() {
    let (done, told) = mpsc::channel();
    // On a thread of its own: what it is about has been a loop without an end.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for script in SCRIPTS {
                let acts = script.iter().copied().chain([Act::Take(50_000)]);
                let (writer, log) = ScriptedWriter::new(acts);
                let mut link = Link::pair(Tailed, silent(), writer);
                let mut expected = Vec::new();
                for (place, size) in
                    [10, 4_095, 4_096, 65_530, 65_531, 70_000].into_iter().cycle().take(24).enumerate()
                {
                    let (payload, at) = (payload(size), expected.len());
                    match place % 4 {
                        0 => link.send_flushed(&payload).await.unwrap(),
                        1 => link.feed(&payload).await.unwrap(),
                        2 => link.send(&payload).await.unwrap(),
                        _ => link.send_frame(Frame::copy_from_slice(&payload)).await.unwrap(),
                    }
                    expected.resize(at + size + 5, 0);
                    Tailed.encode(&payload, &mut expected[at..]).unwrap();
                }
                link.flush().await.unwrap();
                assert!(log.bytes() == expected, "{script:?}");
            }
        });
        done.send(()).unwrap();
    });
    told.recv_timeout(LONG).expect("it ends");
}

/// The runtime on which the link began is gone: what is sent on another one leaves all the same.
#[test]
fn another_runtime_may_go_on() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for script in SCRIPTS {
        let (writer, log) = ScriptedWriter::new(script.iter().copied().chain([Act::Take(50_000)]));
        let mut link = Link::pair(client(), silent(), writer);
        let mut sent = Vec::new();
        for round in 0..3 {
            runtime().block_on(async {
                for size in [10 + round, 5_000, 20, 70_000] {
                    let payload = payload(size);
                    timeout(LONG, link.send_flushed(&payload)).await.expect("stuck").unwrap();
                    sent.push(payload);
                }
            });
        }
        assert!(received(WebSocket::server(), log.bytes()) == sent, "{script:?}");
    }
}

/// Any order of operations, any of them given up after some polls, over writers that take little: what was accepted
/// arrives, whole, once and in order.
async fn any_order<C: Codec>(codec: C, other: impl Decode, mut dice: u64) {
    let mut roll = |sides: usize| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) as usize % sides
    };
    let acts: Vec<Act> = (0..roll(6))
        .map(|_| [Act::Take(1 << 16), Act::Take(1 + roll(9_000)), Act::Pending, Act::Later][roll(4)])
        .chain([Act::Take(80_000)])
        .collect();
    let (writer, log) = ScriptedWriter::new(acts);
    let mut link = Link::pair(codec, silent(), writer);
    let mut sent: Vec<Vec<u8>> = Vec::new();
    for _ in 0..30 {
        let next = payload([0, 3, 200, 4_090, 4_096, 9_000, 70_000][roll(7)] + sent.len() % 7);
        let polls = 1 + roll(4);
        let before = link.counters().frames_sent;
        match roll(12) {
            0..4 => {
                if dropped_after(polls, link.send_flushed(&next)).await.is_some() {
                    let log = log.get();
                    assert_eq!(log.flushed, log.bytes.len());
                }
            }
            4..6 => drop(dropped_after(polls, link.feed(&next)).await),
            6 => drop(dropped_after(polls, link.send(&next)).await),
            7 => drop(dropped_after(polls, link.flush()).await),
            8 => assert!(dropped_after(1, link.receive()).await.is_none()),
            9 => assert!(link.receive_ready().unwrap().is_none()),
            10 => drop(dropped_after(polls, link.halves().0.send_flushed(&next)).await),
            _ => {
                let (mut sender, receiver) = link.split();
                drop(dropped_after(polls, sender.send_flushed(&next)).await);
                link = Link::unsplit(sender, receiver).ok().unwrap();
            }
        }
        if link.counters().frames_sent > before {
            sent.push(next);
        }
    }
    if roll(2) == 0 {
        timeout(LONG, link.flush()).await.expect("stuck").unwrap();
    }
    drop(link);
    timeout(LONG, async {
        while !log.get().dropped {
            yield_now().await;
        }
    })
    .await
    .expect("not all leaves");
    let received = received(other, log.bytes());
    assert_eq!(received.len(), sent.len());
    assert!(received == sent);
}

#[tokio::test]
async fn all_arrives_in_any_order_of_operations() {
    for dice in 0..150 {
        any_order(client(), WebSocket::server(), dice).await;
        any_order(LengthPrefix::new(), LengthPrefix::new(), dice).await;
    }
}
