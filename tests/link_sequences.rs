//! Sequences of operations on both halves from two tasks, on each kind of runtime, over readers and writers that move
//! little, wait, or fail, against a plain model: what is received is the stream's messages, in order and once; what is
//! written is what was accepted, in order and once, and all of it after a flush, a close or the end of the link.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "link")]

#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/script.rs"]
mod script;
#[path = "support/step.rs"]
mod step;
#[path = "support/wire.rs"]
mod wire;

use std::{
    future::Future,
    io::{ErrorKind, IoSlice},
    rc::Rc,
    time::Duration,
};

use framewire::{
    Error, Frame, Link, Result,
    codec::{Decode, Encode},
    error::End,
    io::memory,
    link::{LinkConfig, Receiver, Sender},
};
use oracle::Outcome;
use proptest::{collection::vec, option, prelude::*, sample::select};
use script::{Act, Log, ScriptedReader, ScriptedWriter};
use step::dropped_after;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Builder,
    task::{LocalSet, yield_now},
};
use wire::{Form, Framing, Headed, Lines, Prefixed, StrictLines, Unframed, WAYS, Way};

/// A wait that is longer than this is a hang.
const HANG: Duration = Duration::from_secs(20);

// Operations.

#[derive(Debug, Clone)]
enum Sends {
    /// A message of this size, given up after so many polls.
    Message(Way, usize, Option<usize>),
    Flush(Option<usize>),
    /// Something the codec cannot carry.
    Refused(Way),
    Yield,
    Pause,
}

#[derive(Debug, Clone)]
enum Receives {
    /// In this form, given up after so many polls.
    One(Form, Option<usize>),
    Yield,
    Pause,
}

/// What becomes of the halves after their operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finish {
    /// The sender closes.
    Close,
    /// Both are dropped, whichever is done first first.
    Drop,
    /// They go together and are taken apart.
    Parts,
}

fn sizes() -> impl Strategy<Value = usize> {
    select(vec![1, 2, 3, 7, 40, 100, 511, 512, 513, 4095, 4096, 4097, 9000, 20_000, 70_000])
}

fn sends() -> impl Strategy<Value = Vec<Sends>> {
    let polls = || option::weighted(0.3, 1..4_usize);
    let one = prop_oneof![
        8 => (select(WAYS.to_vec()), sizes(), polls()).prop_map(|(way, size, polls)| Sends::Message(way, size, polls)),
        2 => polls().prop_map(Sends::Flush),
        1 => select(WAYS.to_vec()).prop_map(Sends::Refused),
        2 => Just(Sends::Yield),
        1 => Just(Sends::Pause),
    ];
    vec(one, 0..24)
}

fn receives() -> impl Strategy<Value = Vec<Receives>> {
    let form = || select(vec![Form::Owned, Form::Lent, Form::IntoBuffer, Form::Batch, Form::Ready]);
    let one = prop_oneof![
        8 => (form(), option::weighted(0.4, 1..4_usize)).prop_map(|(form, polls)| Receives::One(form, polls)),
        2 => Just(Receives::Yield),
        1 => Just(Receives::Pause),
    ];
    vec(one, 1..12)
}

/// How a reader or a writer behaves, over and over.
fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        2 => (1..10_usize).prop_map(Act::Take),
        3 => (10..9000_usize).prop_map(Act::Take),
        1 => Just(Act::Take(100_000)),
        3 => Just(Act::Pending),
    ];
    // There is always something that moves, and enough of it.
    vec(act, 0..5).prop_map(|mut acts| {
        acts.push(Act::Take(5000));
        acts
    })
}

#[derive(Debug, Clone)]
struct Plan {
    framing: usize,
    sends: Vec<Sends>,
    receives: Vec<Receives>,
    incoming: Vec<usize>,
    reads: Vec<Act>,
    /// The reader fails instead of ending.
    reset: bool,
    writes: Vec<Act>,
    one_slice: bool,
    /// The writer fails after so many bytes.
    broken: Option<usize>,
    high_water: usize,
    pause_reading: bool,
    finish: Finish,
}

fn plan() -> impl Strategy<Value = Plan> {
    let first = (0..5_usize, sends(), receives(), vec(sizes(), 0..9), acts(), any::<bool>());
    let second = (
        acts(),
        any::<bool>(),
        option::weighted(0.25, 0..30_000_usize),
        select(vec![1, 2, 100, 4096, 6000, 1 << 18]),
        any::<bool>(),
        select(vec![Finish::Close, Finish::Drop, Finish::Parts]),
    );
    (first, second).prop_map(|(first, second)| {
        let (framing, sends, receives, incoming, reads, reset) = first;
        let (writes, one_slice, broken, high_water, pause_reading, finish) = second;
        Plan {
            framing,
            sends,
            receives,
            incoming,
            reads,
            reset,
            writes,
            one_slice,
            broken,
            high_water,
            pause_reading,
            finish,
        }
    })
}

/// The `index`th message: no two are alike, and none has a newline.
fn message(index: usize, size: usize) -> Vec<u8> {
    index.to_string().into_bytes().into_iter().chain([b'-']).cycle().take(size).collect()
}

// The two tasks.

async fn pause() {
    tokio::time::sleep(Duration::from_micros(50)).await;
}

/// What a sending task did.
#[derive(Default)]
struct Sent {
    /// The bytes of every message that was accepted.
    accepted: Vec<u8>,
    payloads: Vec<Vec<u8>>,
    /// The bytes of the message whose call failed, which may have left in part.
    failed: Option<Vec<u8>>,
}

impl Sent {
    /// Books the outcome of a call. An error stays: every later call has one.
    fn book(&mut self, outcome: &Result<()>, frame: Vec<u8>) {
        match outcome {
            Ok(()) => {
                assert!(self.failed.is_none(), "accepted after a failure");
                self.accepted.extend(frame);
            }
            Err(error) => {
                assert!(matches!(error, Error::Ended(End::Reset)), "{error}");
                self.failed.get_or_insert(frame);
            }
        }
    }
}

async fn send<E, W>(sender: &mut Sender<E, W>, way: Way, payload: &[u8]) -> Result<()>
where
    E: Encode,
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

/// Makes the sending operations. `log` is what has been written, where that can be seen.
async fn sending<F: Framing, E, W>(sender: &mut Sender<E, W>, plan: &[Sends], log: Option<&Log>) -> Sent
where
    E: Encode,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut sent = Sent::default();
    for (index, operation) in plan.iter().enumerate() {
        match operation {
            Sends::Message(way, size, polls) => {
                let payload = message(index, *size);
                let call = send(sender, *way, &payload);
                let outcome = match polls {
                    Some(polls) => dropped_after(*polls, call).await,
                    None => Some(call.await),
                };
                // Given up: it was not queued.
                if let Some(outcome) = outcome {
                    sent.book(&outcome, F::frame(&payload));
                    if outcome.is_ok() {
                        sent.payloads.push(payload);
                    }
                }
            }
            Sends::Flush(polls) => {
                let outcome = match polls {
                    Some(polls) => dropped_after(*polls, sender.flush()).await,
                    None => Some(sender.flush().await),
                };
                match outcome {
                    Some(Ok(())) => {
                        assert!(sent.failed.is_none(), "flushed after a failure");
                        assert_eq!(sender.backlog(), 0);
                        if let Some(log) = log {
                            assert!(log.bytes() == sent.accepted, "not all has left after a flush");
                        }
                    }
                    Some(outcome) => sent.book(&outcome, vec![]),
                    None => {}
                }
            }
            Sends::Refused(way) => {
                let outcome = send(sender, *way, &[b'x'; LIMIT + 1]).await;
                match outcome {
                    Err(Error::Rejected(_)) => {}
                    Ok(()) => panic!("accepted what it must not"),
                    outcome => sent.book(&outcome, vec![]),
                }
            }
            Sends::Yield => yield_now().await,
            Sends::Pause => pause().await,
        }
    }
    sent
}

/// Payload bytes that a message may have.
const LIMIT: usize = 100_000;

async fn receive<D, R, W>(receiver: &mut Receiver<D, R, W>, form: Form, got: &mut Vec<Outcome>) -> Result<()>
where
    D: Decode,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut frame = |bytes: &[u8]| got.push(Outcome::Frame(bytes.to_vec()));
    match form {
        Form::Owned => receiver.receive().await.map(|owned| frame(&owned)),
        Form::Lent => receiver.receive_lent().await.map(|lent| frame(lent)),
        Form::IntoBuffer => {
            let mut buffer = bytes::BytesMut::new();
            receiver.receive_into_buffer(&mut buffer).await.map(|_| frame(&buffer))
        }
        Form::Batch => {
            let mut batch = Vec::new();
            let outcome = receiver.receive_batch(&mut batch, 4).await;
            batch.iter().for_each(|owned| frame(owned));
            outcome.map(drop)
        }
        Form::Ready => match receiver.receive_ready() {
            Ok(ready) => {
                ready.into_iter().for_each(|lent| frame(lent));
                Ok(())
            }
            Err(error) => Err(error),
        },
    }
}

/// Makes the receiving operations over and over until the end of the stream, or until so many messages have come.
async fn receiving<D, R, W>(
    receiver: &mut Receiver<D, R, W>,
    plan: &[Receives],
    stop: usize,
) -> (Vec<Outcome>, Option<Error>)
where
    D: Decode,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut got = Vec::new();
    for round in 0.. {
        for operation in plan {
            if got.len() >= stop {
                return (got, None);
            }
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
                Receives::Pause if round < 3 => {
                    pause().await;
                    Ok(())
                }
                Receives::Pause => Ok(()),
            };
            match outcome {
                Ok(()) => {}
                Err(Error::Fault(fault)) => got.push(Outcome::Fault(fault)),
                Err(error) => return (got, Some(error)),
            }
        }
        // A plan that never waits gets nowhere.
        match receive(receiver, Form::Owned, &mut got).await {
            Ok(()) => {}
            Err(Error::Fault(fault)) => got.push(Outcome::Fault(fault)),
            Err(error) => return (got, Some(error)),
        }
    }
    unreachable!()
}

// Runtimes.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    CurrentThread,
    MultiThread,
    LocalSet,
}

/// Runs both as tasks of their own, then `finish` with what came of them.
fn run<A: Send + 'static, B: Send + 'static, C, L: Future<Output = C>>(
    on: On,
    first: impl Future<Output = A> + Send + 'static,
    second: impl Future<Output = B> + Send + 'static,
    finish: impl FnOnce(A, B) -> L,
) -> C {
    let runtime = match on {
        On::MultiThread => Builder::new_multi_thread().worker_threads(2).enable_time().build(),
        // With a paused clock, a hang is known as soon as nothing happens any more.
        On::CurrentThread | On::LocalSet => {
            Builder::new_current_thread().enable_time().start_paused(true).build()
        }
    };
    let all = async {
        let (first, second) = if on == On::LocalSet {
            // Tasks that may not leave this thread.
            let (here, too) = (Rc::new(()), Rc::new(()));
            let first = tokio::task::spawn_local(async move { (first.await, drop(here)).0 });
            let second = tokio::task::spawn_local(async move { (second.await, drop(too)).0 });
            tokio::join!(first, second)
        } else {
            let (first, second) = (tokio::spawn(first), tokio::spawn(second));
            tokio::join!(first, second)
        };
        finish(first.unwrap(), second.unwrap()).await
    };
    let all = async { tokio::time::timeout(HANG, all).await.expect("hangs") };
    let runtime = runtime.unwrap();
    if on == On::LocalSet { LocalSet::new().block_on(&runtime, all) } else { runtime.block_on(all) }
}

async fn until_dropped(log: &Log) {
    while !log.get().dropped {
        pause().await;
    }
}

// One link on scripted I/O.

fn scripted<F: Framing>(on: On, plan: Plan) {
    let incoming: Vec<Vec<u8>> =
        plan.incoming.iter().enumerate().map(|(index, &size)| message(index, size)).collect();
    let stream = F::wire(&incoming);
    let expected = match (plan.reset, F::NAME == Unframed::NAME) {
        (true, true) => vec![],
        _ => F::outcomes(&stream, LIMIT),
    };
    let mut reader = ScriptedReader::new(stream, plan.reads.clone());
    if plan.reset {
        reader = reader.after(Act::Fail(ErrorKind::ConnectionReset));
    }
    let (mut writer, log) = ScriptedWriter::new(plan.writes.clone());
    if let Some(bytes) = plan.broken {
        writer = writer.limit(bytes, Act::Fail(ErrorKind::BrokenPipe));
    }
    if plan.one_slice {
        writer = writer.one_slice();
    }
    let config = LinkConfig::default().write_high_water(plan.high_water).pause_reading(plan.pause_reading);
    let (mut sender, mut receiver) =
        Link::with_config(F::codec(LIMIT), reader, writer, config.close(None)).split();

    let (operations, seen) = (plan.sends.clone(), log.clone());
    let first = async move {
        let sent = sending::<F, _, _>(&mut sender, &operations, Some(&seen)).await;
        (sender, sent)
    };
    let operations = plan.receives.clone();
    let second = async move {
        let received = receiving(&mut receiver, &operations, usize::MAX).await;
        (receiver, received)
    };
    run(on, first, second, async |(mut sender, sent), (receiver, (got, end))| {
        assert!(got == expected, "{} of {} received", got.len(), expected.len());
        let end = end.unwrap();
        assert!(matches!(end, Error::Ended(End::Eof)) != plan.reset, "{end}");
        assert!(matches!(end, Error::Ended(End::Eof | End::Reset)), "{end}");

        let mut unsent = Vec::new();
        let mut failed = sent.failed.is_some();
        match plan.finish {
            Finish::Close => {
                match sender.close().await {
                    Ok(()) => {
                        assert!(!failed, "closed after a failure");
                        assert!(log.bytes() == sent.accepted, "not all has left after a close");
                        assert!(log.get().shut_down);
                    }
                    Err(error) => {
                        assert!(matches!(error, Error::Ended(End::Reset)), "{error}");
                        failed = true;
                    }
                }
                drop((sender, receiver));
                until_dropped(&log).await;
            }
            Finish::Drop => {
                drop((receiver, sender));
                until_dropped(&log).await;
                failed |= log.bytes().len() < sent.accepted.len();
            }
            Finish::Parts => {
                let link = Link::<F::Codec, _, _>::unsplit(sender, receiver).ok().unwrap();
                let parts = link.into_parts();
                unsent = parts.unsent.iter().flat_map(|frame| frame.to_vec()).collect();
                failed |= plan.broken == Some(log.bytes().len());
            }
        }
        let written = log.bytes();
        if failed {
            assert!(plan.broken.is_some_and(|bytes| bytes <= written.len()), "failed without a reason");
            let attempted = [sent.accepted, sent.failed.unwrap_or_default()].concat();
            assert!(attempted.starts_with(&written), "written and never accepted");
        } else {
            assert!([written, unsent].concat() == sent.accepted, "not what was accepted");
        }
    });
}

fn scripted_on(on: On, plan: Plan) {
    match plan.framing {
        0 => scripted::<Lines>(on, plan),
        1 => scripted::<StrictLines>(on, plan),
        2 => scripted::<Prefixed>(on, plan),
        3 => scripted::<Headed>(on, plan),
        _ => scripted::<Unframed>(on, plan),
    }
}

// Two links on the pair in memory.

#[derive(Debug, Clone)]
struct Talk {
    capacity: usize,
    near: (Vec<Sends>, Vec<Receives>, usize),
    far: (Vec<Sends>, Vec<Receives>, usize),
    pause_reading: bool,
    high_water: usize,
    /// The far end goes after so many messages.
    hang_up: Option<usize>,
    near_closes: bool,
}

fn talk() -> impl Strategy<Value = Talk> {
    let end = || (sends(), receives(), select(vec![1, 50, 5000, 1 << 18]));
    let capacity = select(vec![1, 7, 64, 5000, 1 << 16]);
    (capacity, end(), end(), any::<bool>(), option::weighted(0.2, 0..5_usize), any::<bool>()).prop_map(
        |(capacity, near, far, pause_reading, hang_up, near_closes)| {
            // A pipe of few bytes takes as many turns as a message has bytes.
            let most = if capacity < 64 { 600 } else { 100_000 };
            let small = |(mut sends, receives, mark): (Vec<Sends>, Vec<Receives>, usize)| {
                for operation in &mut sends {
                    if let Sends::Message(_, size, _) = operation {
                        *size = (*size).min(most);
                    }
                }
                (sends, receives, mark)
            };
            let (near, far) = (small(near), small(far));
            let high_water = near.2;
            Talk { capacity, near, far, pause_reading, high_water, hang_up, near_closes }
        },
    )
}

type Heard = (Vec<Outcome>, Option<Error>);

async fn talks<F: Framing>(
    link: Link<F::Codec, memory::MemoryReader, memory::MemoryWriter>,
    sends: Vec<Sends>,
    receives: Vec<Receives>,
    stop: usize,
    close: bool,
) -> (Sent, Heard) {
    let (mut sender, mut receiver) = link.split();
    let speaking = async move {
        let mut sent = sending::<F, _, _>(&mut sender, &sends, None).await;
        if close {
            let outcome = sender.close().await;
            sent.book(&outcome, vec![]);
        }
        sent
    };
    let hearing = async move { receiving(&mut receiver, &receives, stop).await };
    tokio::join!(speaking, hearing)
}

fn two_links<F: Framing>(on: On, talk: Talk) {
    let ((reader, writer), (far_reader, far_writer)) = memory::pair(talk.capacity);
    let config = LinkConfig::default().write_high_water(talk.high_water).pause_reading(talk.pause_reading);
    let near = Link::with_config(F::codec(LIMIT), reader, writer, config.close(None));
    let config = LinkConfig::default().write_high_water(talk.far.2);
    let far = Link::with_config(F::codec(LIMIT), far_reader, far_writer, config.close(None));
    let first = talks::<F>(near, talk.near.0, talk.near.1, usize::MAX, talk.near_closes);
    let stop = talk.hang_up.unwrap_or(usize::MAX);
    let second = talks::<F>(far, talk.far.0, talk.far.1, stop, true);
    run(on, first, second, async |(near_sent, near_heard), (far_sent, far_heard)| {
        let frames =
            |sent: &Sent| -> Vec<Outcome> { sent.payloads.iter().cloned().map(Outcome::Frame).collect() };
        // The far end always closes, so all of what it said is heard.
        assert!(far_sent.failed.is_none(), "the near end reads to the end");
        assert!(near_heard.0 == frames(&far_sent), "not what the far end said");
        assert!(matches!(near_heard.1, Some(Error::Ended(End::Eof))));
        let said = frames(&near_sent);
        if far_heard.1.is_none() {
            assert!(said.starts_with(&far_heard.0[..far_heard.0.len().min(said.len())]));
        } else {
            assert!(far_heard.0 == said, "not what the near end said");
            assert!(near_sent.failed.is_none(), "the far end reads to the end");
            assert!(matches!(far_heard.1, Some(Error::Ended(End::Eof))));
        }
    });
}

fn two_links_on(on: On, framing: usize, talk: Talk) {
    match framing {
        0 => two_links::<Lines>(on, talk),
        1 => two_links::<Prefixed>(on, talk),
        _ => two_links::<Headed>(on, talk),
    }
}

/// Sequences for each of the tests.
const CASES: u32 = 32;

fn configured(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(configured(CASES))]

    #[test]
    fn scripted_on_one_thread(plan in plan()) {
        scripted_on(On::CurrentThread, plan);
    }

    #[test]
    fn scripted_on_two_threads(plan in plan()) {
        scripted_on(On::MultiThread, plan);
    }

    #[test]
    fn scripted_on_a_local_set(plan in plan()) {
        scripted_on(On::LocalSet, plan);
    }

    #[test]
    fn two_links_on_one_thread(framing in 0..3_usize, talk in talk()) {
        two_links_on(On::CurrentThread, framing, talk);
    }

    #[test]
    fn two_links_on_two_threads(framing in 0..3_usize, talk in talk()) {
        two_links_on(On::MultiThread, framing, talk);
    }

    #[test]
    fn two_links_on_a_local_set(framing in 0..3_usize, talk in talk()) {
        two_links_on(On::LocalSet, framing, talk);
    }
}
