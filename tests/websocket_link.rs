//! `Link<WebSocket>`, both roles: sequences of operations over readers and writers that move little, wait or fail, each
//! of which may be given up after so many polls, against frames read by hand. Nothing is lost, reordered or misframed;
//! pongs answer pings, the latest first; a Close frame is the last of all.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(all(feature = "link", feature = "websocket"))]

#[path = "support/script.rs"]
mod script;
#[path = "support/step.rs"]
mod step;
#[path = "support/websocket.rs"]
mod websocket;

use std::{
    io::{ErrorKind, IoSlice},
    time::Duration,
};

use framewire::{
    Error, Frame, Link, Result,
    codec::{
        Encode, WebSocket,
        websocket::{Kind, Role},
    },
    error::End,
    link::{LinkConfig, Receiver, Sender},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use script::{Act, Log, ScriptedReader, ScriptedWriter};
use step::dropped_after;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Builder,
    task::yield_now,
};

/// A wait that is longer than this is a hang.
const HANG: Duration = Duration::from_secs(60);

// Frames by hand.

/// A frame as the peer of `role` sends it.
fn from_peer(role: Role, first: u8, payload: &[u8]) -> Vec<u8> {
    match role {
        Role::Server => websocket::masked(first, payload),
        Role::Client => websocket::plain(first, payload),
    }
}

/// The frames that `role` wrote, and what is left of one that was cut off.
fn frames(role: Role, mut bytes: &[u8]) -> (Vec<(u8, Vec<u8>)>, Vec<u8>) {
    let mut frames = Vec::new();
    while bytes.len() >= 2 {
        assert_eq!(bytes[1] & 0x80 != 0, role == Role::Client, "masked, or not, by its role");
        let (size, mut head) = match bytes[1] & 0x7f {
            126 if bytes.len() >= 4 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
            127 if bytes.len() >= 10 => (u64::from_be_bytes(bytes[2..10].try_into().unwrap()) as usize, 10),
            126 | 127 => break,
            short => (usize::from(short), 2),
        };
        let mut key = [0; 4];
        if role == Role::Client {
            if bytes.len() < head + 4 {
                break;
            }
            key.copy_from_slice(&bytes[head..head + 4]);
            head += 4;
        }
        if bytes.len() < head + size {
            break;
        }
        let payload = bytes[head..head + size].iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]);
        frames.push((bytes[0], payload.collect()));
        bytes = &bytes[head + size..];
    }
    (frames, bytes.to_vec())
}

/// What was written, sorted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    messages: Vec<Vec<u8>>,
    /// Fragments of a message without its last.
    begun: Vec<u8>,
    pongs: Vec<Vec<u8>>,
    pings: usize,
    /// The payload of the Close frame, behind which there is nothing.
    close: Option<Vec<u8>>,
    cut: bool,
}

fn said(role: Role, bytes: &[u8]) -> Said {
    let (frames, rest) = frames(role, bytes);
    let mut said = Said { cut: !rest.is_empty(), ..Said::default() };
    let mut open = false;
    for (first, payload) in frames {
        assert!(said.close.is_none(), "a frame behind the Close frame");
        match first {
            0x8a => said.pongs.push(payload),
            0x89 => said.pings += 1,
            0x88 => said.close = Some(payload),
            _ => {
                assert_eq!(first & 0x0f == 0, open, "a message begins once and goes on as a continuation");
                said.begun.extend(payload);
                open = first & 0x80 == 0;
                if !open {
                    said.messages.push(std::mem::take(&mut said.begun));
                }
            }
        }
    }
    assert!(!said.cut || said.close.is_none(), "bytes behind the Close frame");
    said
}

/// Whether `part` is `whole` with some left out.
fn is_subsequence(part: &[Vec<u8>], whole: &[Vec<u8>]) -> bool {
    let mut whole = whole.iter();
    part.iter().all(|item| whole.any(|other| other == item))
}

// Operations.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Send,
    Feed,
    Frame,
    Vectored,
    Permit,
}

#[derive(Debug, Clone)]
enum Sends {
    /// A payload of this size, with more of the message to come or not, given up after so many polls.
    Payload(Way, usize, bool, Option<usize>),
    Flush(Option<usize>),
    Yield,
    Pause,
}

#[derive(Debug, Clone)]
enum Receives {
    One(u8, Option<usize>),
    Yield,
    Pause,
}

/// What the peer says.
#[derive(Debug, Clone)]
enum Incoming {
    /// Sizes of its fragments; a ping stands between each two.
    Message(Vec<usize>),
    Ping(usize),
    Pong(usize),
}

/// How the peer's bytes end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Close,
    Eof,
    Reset,
    Violation,
}

#[derive(Debug, Clone)]
struct Plan {
    role: Role,
    sends: Vec<Sends>,
    receives: Vec<Receives>,
    incoming: Vec<Incoming>,
    ending: Ending,
    reads: Vec<Act>,
    writes: Vec<Act>,
    one_slice: bool,
    /// The writer fails after so many bytes.
    broken: Option<usize>,
    high_water: usize,
    pause_reading: bool,
}

fn sizes() -> impl Strategy<Value = usize> {
    select(vec![0, 1, 2, 7, 100, 125, 126, 127, 511, 512, 4095, 4096, 4097, 9000, 65_535, 65_536, 70_000])
}

fn polls() -> impl Strategy<Value = Option<usize>> {
    option::weighted(0.35, 1..4_usize)
}

fn sends() -> impl Strategy<Value = Vec<Sends>> {
    let way = select(vec![Way::Send, Way::Feed, Way::Frame, Way::Vectored, Way::Permit]);
    let one = prop_oneof![
        8 => (way, sizes(), prop::bool::weighted(0.3), polls())
            .prop_map(|(way, size, more, polls)| Sends::Payload(way, size, more, polls)),
        2 => polls().prop_map(Sends::Flush),
        2 => Just(Sends::Yield),
        1 => Just(Sends::Pause),
    ];
    vec(one, 0..24)
}

fn receives() -> impl Strategy<Value = Vec<Receives>> {
    let one = prop_oneof![
        8 => (0..5_u8, polls()).prop_map(|(form, polls)| Receives::One(form, polls)),
        2 => Just(Receives::Yield),
        1 => Just(Receives::Pause),
    ];
    vec(one, 1..12)
}

fn incoming() -> impl Strategy<Value = Vec<Incoming>> {
    let one = prop_oneof![
        4 => sizes().prop_map(|size| Incoming::Message(vec![size])),
        2 => vec(sizes(), 2..5).prop_map(Incoming::Message),
        2 => (0..126_usize).prop_map(Incoming::Ping),
        1 => (0..126_usize).prop_map(Incoming::Pong),
    ];
    vec(one, 0..12)
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        2 => (1..10_usize).prop_map(Act::Take),
        3 => (10..9000_usize).prop_map(Act::Take),
        3 => Just(Act::Pending),
    ];
    vec(act, 0..5).prop_map(|mut acts| {
        acts.push(Act::Take(5000));
        acts
    })
}

fn plan() -> impl Strategy<Value = Plan> {
    let ending = select(vec![Ending::Close, Ending::Eof, Ending::Reset, Ending::Violation]);
    let first = (select(vec![Role::Server, Role::Client]), sends(), receives(), incoming(), ending, acts());
    let marks = select(vec![1, 2, 100, 4096, 6000, 1 << 18]);
    let second = (acts(), any::<bool>(), option::weighted(0.2, 0..30_000_usize), marks, any::<bool>());
    (first, second).prop_map(|(first, second)| {
        let (role, sends, receives, incoming, ending, reads) = first;
        let (writes, one_slice, broken, high_water, pause_reading) = second;
        Plan {
            role,
            sends,
            receives,
            incoming,
            ending,
            reads,
            writes,
            one_slice,
            broken,
            high_water,
            pause_reading,
        }
    })
}

/// Text that differs from one index to the next.
fn text(index: usize, size: usize) -> Vec<u8> {
    index.to_string().into_bytes().into_iter().chain([b'-']).cycle().take(size).collect()
}

/// The peer's bytes, its messages and its pings.
fn stream(plan: &Plan) -> (Vec<u8>, Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut bytes, mut messages, mut pings) = (Vec::new(), Vec::new(), Vec::new());
    for (index, incoming) in plan.incoming.iter().enumerate() {
        match incoming {
            Incoming::Message(parts) => {
                let mut whole = Vec::new();
                for (number, &size) in parts.iter().enumerate() {
                    let part = text(index + number, size);
                    let last = if number + 1 == parts.len() { 0x80 } else { 0 };
                    let opcode = if number == 0 { 1 } else { 0 };
                    bytes.extend(from_peer(plan.role, last | opcode, &part));
                    whole.extend(part);
                    if last == 0 {
                        let ping = text(index * 10 + number, 9);
                        bytes.extend(from_peer(plan.role, 0x89, &ping));
                        pings.push(ping);
                    }
                }
                messages.push(whole);
            }
            Incoming::Ping(size) => {
                let ping = text(index, *size);
                bytes.extend(from_peer(plan.role, 0x89, &ping));
                pings.push(ping);
            }
            Incoming::Pong(size) => bytes.extend(from_peer(plan.role, 0x8a, &text(index, *size))),
        }
    }
    match plan.ending {
        Ending::Close => bytes.extend(from_peer(plan.role, 0x88, b"\x0b\xb8bye")),
        Ending::Violation => bytes.extend(from_peer(plan.role, 0x83, b"reserved")),
        Ending::Eof | Ending::Reset => {}
    }
    (bytes, messages, pings)
}

// The two tasks.

#[derive(Default)]
struct Sent {
    messages: Vec<Vec<u8>>,
    /// What was accepted of the message that is not finished.
    begun: Vec<u8>,
    open: bool,
    failed: bool,
}

async fn send<W>(sender: &mut Sender<impl Encode, W>, way: Way, payload: &[u8]) -> Result<()>
where
    W: AsyncWrite + Unpin + Send + 'static,
{
    match way {
        Way::Send => sender.send(payload).await,
        Way::Feed => sender.feed(payload).await,
        Way::Frame => sender.send_frame(Frame::copy_from_slice(payload)).await,
        Way::Vectored => {
            let (front, back) = payload.split_at(payload.len() / 2);
            sender.send_vectored(&[IoSlice::new(front), IoSlice::new(back)]).await
        }
        Way::Permit => sender.reserve(payload.len()).await?.send(payload),
    }
}

type Encoder = <WebSocket as framewire::codec::Codec>::Encoder;
type Decoder = <WebSocket as framewire::codec::Codec>::Decoder;

async fn pause() {
    tokio::time::sleep(Duration::from_micros(50)).await;
}

async fn sending<W>(sender: &mut Sender<Encoder, W>, plan: &[Sends]) -> Sent
where
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut sent = Sent::default();
    // Whatever the plan leaves unfinished is finished.
    let last = Sends::Payload(Way::Send, 3, false, None);
    for (index, operation) in plan.iter().chain([&last]).enumerate() {
        match operation {
            Sends::Payload(way, size, more, polls) => {
                let payload = text(index, *size);
                sender.encoder_mut().set_more(*more);
                let call = send(sender, *way, &payload);
                let outcome = match polls {
                    Some(polls) => dropped_after(*polls, call).await,
                    None => Some(call.await),
                };
                match outcome {
                    Some(Ok(())) => {
                        assert!(!sent.failed, "accepted after a failure");
                        sent.begun.extend(payload);
                        sent.open = *more;
                        if !more {
                            sent.messages.push(std::mem::take(&mut sent.begun));
                        }
                    }
                    Some(Err(error)) => {
                        assert!(matches!(error, Error::Ended(_)), "{error}");
                        sent.failed = true;
                    }
                    None => {}
                }
            }
            Sends::Flush(polls) => {
                let outcome = match polls {
                    Some(polls) => dropped_after(*polls, sender.flush()).await,
                    None => Some(sender.flush().await),
                };
                sent.failed |= matches!(outcome, Some(Err(_)));
            }
            Sends::Yield => yield_now().await,
            Sends::Pause => pause().await,
        }
    }
    sent
}

async fn receive<R, W>(receiver: &mut Receiver<Decoder, R, W>, form: u8, got: &mut Vec<Vec<u8>>) -> Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    match form {
        0 => receiver.receive().await.map(|frame| got.push(frame.to_vec())),
        1 => receiver.receive_lent().await.map(|lent| got.push(lent.to_vec())),
        2 => receiver.receive_with_kind().await.map(|(kind, lent)| {
            assert_eq!(kind, Kind::Text);
            got.push(lent.to_vec());
        }),
        3 => {
            let mut batch = Vec::new();
            let outcome = receiver.receive_batch(&mut batch, 4).await;
            got.extend(batch.iter().map(|frame| frame.to_vec()));
            outcome.map(drop)
        }
        _ => receiver.receive_ready().map(|ready| got.extend(ready.map(|lent| lent.to_vec()))),
    }
}

async fn receiving<R, W>(receiver: &mut Receiver<Decoder, R, W>, plan: &[Receives]) -> (Vec<Vec<u8>>, Error)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut got = Vec::new();
    loop {
        // A plan that never waits gets nowhere.
        for operation in plan.iter().chain([&Receives::One(0, None)]) {
            let outcome = match operation {
                Receives::One(form, polls) => {
                    let call = receive(receiver, *form, &mut got);
                    match polls {
                        Some(polls) => dropped_after(*polls, call).await.unwrap_or(Ok(())),
                        None => call.await,
                    }
                }
                Receives::Yield => {
                    yield_now().await;
                    Ok(())
                }
                Receives::Pause => {
                    pause().await;
                    Ok(())
                }
            };
            if let Err(error) = outcome {
                return (got, error);
            }
        }
    }
}

fn run<T>(two_threads: bool, future: impl Future<Output = T>) -> T {
    let runtime = if two_threads {
        Builder::new_multi_thread().worker_threads(2).enable_time().build()
    } else {
        Builder::new_current_thread().enable_time().start_paused(true).build()
    };
    let future = async { tokio::time::timeout(HANG, future).await.expect("hangs") };
    runtime.unwrap().block_on(future)
}

fn sequence(plan: &Plan, two_threads: bool) {
    run(two_threads, async {
        let (bytes, messages, pings) = stream(plan);
        let mut reader = ScriptedReader::new(bytes, plan.reads.clone());
        if plan.ending == Ending::Reset {
            reader = reader.after(Act::Fail(ErrorKind::ConnectionReset));
        }
        let (mut writer, log) = ScriptedWriter::new(plan.writes.clone());
        if let Some(bytes) = plan.broken {
            writer = writer.limit(bytes, Act::Fail(ErrorKind::BrokenPipe));
        }
        if plan.one_slice {
            writer = writer.one_slice();
        }
        let config =
            LinkConfig::default().write_high_water(plan.high_water).pause_reading(plan.pause_reading);
        let (mut sender, mut receiver) =
            Link::with_config(WebSocket::new(plan.role), reader, writer, config).split();
        let (operations, receives) = (plan.sends.clone(), plan.receives.clone());
        let first = tokio::spawn(async move {
            let sent = sending(&mut sender, &operations).await;
            (sender, sent)
        });
        let second = tokio::spawn(async move {
            let received = receiving(&mut receiver, &receives).await;
            (receiver, received)
        });
        let (first, second) = tokio::join!(first, second);
        let ((sender, sent), (receiver, (got, end))) = (first.unwrap(), second.unwrap());

        assert!(got == messages, "{} of {} received", got.len(), messages.len());
        match plan.ending {
            Ending::Close => {
                assert!(matches!(end, Error::Ended(End::Eof)), "{end}");
                assert_eq!(receiver.decoder().close_reason().map(|reason| reason.code()), Some(3000));
            }
            Ending::Eof | Ending::Violation => assert!(matches!(end, Error::Violation(_)), "{end}"),
            Ending::Reset => assert!(matches!(end, Error::Ended(End::Reset)), "{end}"),
        }
        let mut link = Link::<WebSocket, _, _>::unsplit(sender, receiver).ok().unwrap();
        let closed = link.close().await;
        check(plan, &sent, &closed, &pings, &log);
    });
}

/// Whether what was written is what was said, in the order in which it was.
fn check(plan: &Plan, sent: &Sent, closed: &Result<()>, pings: &[Vec<u8>], log: &Log) {
    let written = said(plan.role, &log.bytes());
    assert!(is_subsequence(&written.pongs, pings), "pongs that answer nothing");
    if plan.broken.is_some_and(|limit| log.bytes().len() >= limit) {
        // Of the frame that failed, a part may have left.
        assert!(sent.messages.starts_with(&written.messages) || sent.failed);
        return;
    }
    assert!(!written.cut, "a frame without its end");
    let feeds = plan.sends.iter().any(|sends| matches!(sends, Sends::Payload(Way::Feed, ..)));
    let ended = matches!(plan.ending, Ending::Close | Ending::Violation);
    if ended && feeds {
        // What was only fed when the last word was said cannot leave.
        assert!(sent.messages.starts_with(&written.messages), "not what was accepted");
        if written.messages != sent.messages {
            assert!(sent.failed || closed.is_err(), "lost in silence");
        }
    } else {
        assert!(closed.is_ok(), "{closed:?}");
        assert!(written.messages == sent.messages, "not what was accepted");
        assert_eq!(written.begun, sent.begun);
    }
    let close = written.close.expect("a Close frame goes out");
    match plan.ending {
        Ending::Close => assert_eq!(close, 3000_u16.to_be_bytes(), "the code comes back"),
        Ending::Violation => assert_eq!(close[..2], 1002_u16.to_be_bytes()),
        Ending::Eof | Ending::Reset => assert_eq!(close, 1000_u16.to_be_bytes()),
    }
    assert!(log.get().shut_down);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn sequences_on_one_thread(plan in plan()) {
        sequence(&plan, false);
    }

    #[test]
    fn sequences_on_two_threads(plan in plan()) {
        sequence(&plan, true);
    }
}

/// Each call given up after every number of polls, then made again.
#[tokio::test(start_paused = true)]
async fn calls_given_up_at_every_poll() {
    for role in [Role::Server, Role::Client] {
        for polls in 1..12 {
            for most in [1, 3, 130, 5000] {
                let plan = Plan {
                    role,
                    incoming: vec![
                        Incoming::Message(vec![5]),
                        Incoming::Ping(3),
                        Incoming::Message(vec![300, 0, 130]),
                        Incoming::Message(vec![0]),
                        Incoming::Ping(125),
                    ],
                    ending: Ending::Close,
                    sends: vec![],
                    receives: vec![],
                    reads: vec![Act::Pending, Act::Take(most), Act::Pending],
                    writes: vec![Act::Pending, Act::Take(most)],
                    one_slice: false,
                    broken: None,
                    high_water: 64,
                    pause_reading: false,
                };
                let (bytes, messages, pings) = stream(&plan);
                let reader = ScriptedReader::new(bytes, plan.reads.clone());
                let (writer, log) = ScriptedWriter::new(plan.writes.clone());
                let config = LinkConfig::default().write_high_water(plan.high_water);
                let link = Link::with_config(WebSocket::new(role), reader, writer, config);
                let (mut sender, mut receiver) = link.split();
                let mut got = Vec::new();
                let mut sent = Sent::default();
                for (index, size) in [10, 4500, 70, 0].into_iter().enumerate() {
                    let payload = text(index, size);
                    let way = if index == 2 { Way::Frame } else { Way::Send };
                    while dropped_after(polls, send(&mut sender, way, &payload))
                        .await
                        .map(Result::unwrap)
                        .is_none()
                    {
                        yield_now().await;
                    }
                    sent.messages.push(payload);
                }
                loop {
                    match dropped_after(polls, receiver.receive()).await {
                        Some(Ok(frame)) => got.push(frame.to_vec()),
                        Some(Err(error)) => {
                            assert!(matches!(error, Error::Ended(End::Eof)), "{error}");
                            break;
                        }
                        None => yield_now().await,
                    }
                }
                assert_eq!(got, messages);
                let mut link = Link::<WebSocket, _, _>::unsplit(sender, receiver).ok().unwrap();
                let closed = loop {
                    if let Some(closed) = dropped_after(polls, link.close()).await {
                        break closed;
                    }
                    yield_now().await;
                };
                check(&plan, &sent, &closed, &pings, &log);
            }
        }
    }
}

/// A fragment that has to wait for room goes out as what it is.
#[tokio::test(start_paused = true)]
async fn a_fragment_that_waits_for_room_stays_one() {
    let (writer, log) = ScriptedWriter::new([Act::Pending, Act::Take(100)]);
    let reader = ScriptedReader::new([], []).after(Act::Never);
    let config = LinkConfig::default().write_high_water(1);
    let (mut sender, _receiver) = Link::with_config(WebSocket::server(), reader, writer, config).split();
    for (more, byte) in [(true, b'a'), (true, b'b'), (false, b'c'), (false, b'd')] {
        sender.encoder_mut().set_more(more);
        sender.send_frame(Frame::from(vec![byte; 5000])).await.unwrap();
    }
    sender.flush().await.unwrap();
    let (frames, _) = frames(Role::Server, &log.bytes());
    let firsts: Vec<u8> = frames.iter().map(|(first, _)| *first).collect();
    assert_eq!(firsts, [0x01, 0x00, 0x80, 0x81]);
}
