//! The limits of a link at one below, at, and one above; a peer that never reads and one that never stops.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "link")]

#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/script.rs"]
mod script;
#[path = "support/wire.rs"]
mod wire;

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use framewire::{
    Error, Link,
    buffer::{BufferConfig, BufferManager},
    codec::Newline,
    error::{Fault, Rejection, Violation},
    io::memory,
    link::LinkConfig,
};
use oracle::Outcome;
use script::{Act, ScriptedReader, ScriptedWriter};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use wire::{FORMS, Form, Framing, Headed, Lines, Prefixed, Unframed, WAYS, Way, soon, waits};

fn silent() -> ScriptedReader {
    ScriptedReader::new([], []).after(Act::Never)
}

/// A payload whose message takes so many bytes on the wire.
fn payload_of<F: Framing>(wire: usize) -> Vec<u8> {
    let size = (0..=wire).rev().find(|&size| F::frame(&vec![b'x'; size]).len() <= wire).unwrap();
    let payload = vec![b'x'; size];
    assert_eq!(F::frame(&payload).len(), wire, "no message takes {wire} bytes");
    payload
}

// The write high-water mark.

async fn high_water<F: Framing>(mark: usize, way: Way, taken: usize) {
    for (queued, admitted) in [(mark - 1, true), (mark, false), (mark + 1, false)] {
        let what = format!("{}, mark {mark}, {queued} queued, {way:?}, {taken} taken", F::NAME);
        let (writer, log) = ScriptedWriter::new([]);
        let config = LinkConfig::default().write_high_water(mark).close(None);
        let mut link =
            Link::with_config(F::codec(1 << 20), silent(), writer.limit(taken, Act::Never), config);
        // What has left does not count.
        if taken > 0 {
            link.send(&payload_of::<F>(taken)).await.unwrap();
            link.flush().await.unwrap();
        }
        wire::send(&mut link, way, &payload_of::<F>(queued)).await.unwrap();
        assert_eq!(link.halves().0.backlog(), queued, "{what}");
        for again in WAYS {
            if !admitted {
                assert!(waits(wire::send(&mut link, again, b"0123456789")).await, "{what}, then {again:?}");
                assert_eq!(link.halves().0.backlog(), queued, "{what}: nothing was queued");
                assert!(waits(link.reserve(1)).await, "{what}");
            }
        }
        let started = link.halves().0.start_send(b"0123456789");
        if admitted {
            started.unwrap();
            let all = queued + F::frame(b"0123456789").len();
            assert_eq!(link.halves().0.backlog(), all, "{what}");
            assert!(waits(link.send(b"x")).await, "{what}: now it is above");
        } else {
            assert!(
                matches!(started, Err(Error::Rejected(Rejection::TooLarge { .. }))),
                "{what}: {started:?}"
            );
        }
        assert_eq!(log.bytes().len(), taken, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn sending_waits_from_the_high_water_mark_on() {
    for taken in [0, 64] {
        for way in WAYS {
            for mark in [64, 5000] {
                high_water::<Lines>(mark, way, taken).await;
                high_water::<Prefixed>(mark, way, taken).await;
                high_water::<Headed>(mark, way, taken).await;
                high_water::<Unframed>(mark, way, taken).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_smallest_mark_lets_one_message_wait() {
    for mark in [0, 1] {
        let (writer, _log) = ScriptedWriter::new([]);
        let config = LinkConfig::default().write_high_water(mark);
        let mut link = Link::with_config(Newline::new(), silent(), writer.limit(0, Act::Never), config);
        link.send(b"one").await.unwrap();
        assert!(waits(link.send(b"two")).await);
        assert_eq!(link.halves().0.backlog(), 4);
    }
}

/// A send that waits goes on as soon as the peer has read enough.
#[tokio::test(start_paused = true)]
async fn a_send_that_waits_goes_on_when_the_peer_reads() {
    for way in WAYS {
        for mark in [1, 2, 63, 64, 65, 5000] {
            let ((reader, writer), (mut far, _far_writer)) = memory::pair(7);
            let config = LinkConfig::default().write_high_water(mark);
            let mut link = Link::with_config(Newline::new(), reader, writer, config);
            let messages: Vec<Vec<u8>> = (b'a'..b'k').map(|byte| vec![byte; usize::from(byte)]).collect();
            let sending = async {
                for message in &messages {
                    wire::send(&mut link, way, message).await.unwrap();
                    let backlog = link.halves().0.backlog();
                    assert!(backlog < mark + message.len() + 1, "mark {mark}: {backlog} bytes queued");
                }
                link.close().await.unwrap();
            };
            let taking = async {
                let mut all = Vec::new();
                far.read_to_end(&mut all).await.unwrap();
                all
            };
            let ((), all) = soon(format!("{way:?}, {mark}"), async { tokio::join!(sending, taking) }).await;
            assert!(all == Lines::wire(&messages), "{way:?}, {mark}");
        }
    }
}

/// Reading pauses at the mark, where so configured, and goes on below it.
#[tokio::test(start_paused = true)]
async fn reading_pauses_from_the_high_water_mark_on() {
    for pause in [true, false] {
        for (queued, reads) in [(63, true), (64, false), (65, false)] {
            let (writer, _log) = ScriptedWriter::new([]);
            let config = LinkConfig::default().write_high_water(64).pause_reading(pause);
            let reader = ScriptedReader::new("question\n", []).after(Act::Never);
            let mut link = Link::with_config(Newline::new(), reader, writer.limit(0, Act::Never), config);
            link.feed(&payload_of::<Lines>(queued)).await.unwrap();
            let paused = waits(link.receive()).await;
            assert_eq!(paused, pause && !reads, "pause {pause}, {queued} queued");
        }
    }
    for mark in [1, 8, 64] {
        let ((reader, writer), (mut far, mut far_writer)) = memory::pair(16);
        let config = LinkConfig::default().write_high_water(mark).pause_reading(true);
        let mut link = Link::with_config(Newline::new(), reader, writer, config);
        link.send(&[b'x'; 200]).await.unwrap();
        let receiving = tokio::spawn(async move { link.receive().await.map(|frame| frame.to_vec()) });
        tokio::io::AsyncWriteExt::write_all(&mut far_writer, b"go on\n").await.unwrap();
        assert!(waits(std::future::pending::<()>()).await);
        assert!(!receiving.is_finished());
        far.read_exact(&mut [0; 201]).await.unwrap();
        assert_eq!(soon(mark, receiving).await.unwrap().unwrap(), b"go on");
    }
}

// A peer that sends and never reads.

/// Says the same message for ever, and counts how often.
struct Chatter {
    line: &'static [u8],
    said: Arc<AtomicUsize>,
}

impl AsyncRead for Chatter {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let lines = (buffer.remaining() / self.line.len()).min(3);
        for _ in 0..lines {
            buffer.put_slice(self.line);
        }
        self.said.fetch_add(lines, SeqCst);
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_makes_an_echo_queue_no_more_than_the_mark_and_one_message() {
    for way in WAYS {
        if way != Way::Feed {
            never_reads(way).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_makes_an_echo_that_feeds_queue_no_more_than_the_mark_and_one_message() {
    never_reads(Way::Feed).await;
}

async fn never_reads(way: Way) {
    for mark in [1, 1000, 1 << 16] {
        for size in [1, 99, 4096, 10_000] {
            let said = Arc::new(AtomicUsize::new(0));
            let (writer, log) = ScriptedWriter::new([]);
            let buffers = BufferManager::new(BufferConfig::default());
            let config = LinkConfig::default().write_high_water(mark).buffers(buffers.clone());
            let reader = Chatter { line: b"chatter\n", said: Arc::clone(&said) };
            let mut link = Link::with_config(Newline::new(), reader, writer.limit(5, Act::Never), config);
            let answer = vec![b'x'; size];
            let mut answered = 0;
            let echoing = async {
                loop {
                    link.receive_lent().await.unwrap();
                    wire::send(&mut link, way, &answer).await.unwrap();
                    answered += 1;
                }
            };
            assert!(waits::<()>(echoing).await);
            let what = format!("{way:?}, mark {mark}, answers of {size}");
            let backlog = link.halves().0.backlog();
            assert!(backlog >= mark, "{what}: only {backlog} bytes queued");
            assert!(backlog <= mark + size + 1, "{what}: {backlog} bytes queued");
            assert_eq!(backlog + log.bytes().len(), answered * (size + 1), "{what}");
            // A window for reading, the blocks of what is queued, and one that is being filled.
            let lent = buffers.metrics().lent_bytes();
            assert!(lent <= 4 * (mark + size) + 3 * 65_536, "{what}: {lent} bytes of the pool are held");
            // What was read and not answered is at most one window.
            assert!(said.load(SeqCst) <= answered + 65_536 / 8, "{what}: reading went on");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_never_sends_pauses_for_the_backlog_of_the_other_half() {
    let said = Arc::new(AtomicUsize::new(0));
    let (writer, _log) = ScriptedWriter::new([]);
    let config = LinkConfig::default().write_high_water(100).pause_reading(true);
    let reader = Chatter { line: b"chatter\n", said: Arc::clone(&said) };
    let link = Link::with_config(Newline::new(), reader, writer.limit(0, Act::Never), config);
    let (mut sender, mut receiver) = link.split();
    sender.send(&[b'x'; 200]).await.unwrap();
    let receiving = async {
        loop {
            receiver.receive_lent().await.unwrap();
        }
    };
    assert!(waits::<()>(receiving).await);
    assert_eq!(said.load(SeqCst), 0);
}

// Faults in a row.

#[tokio::test(start_paused = true)]
async fn a_link_gives_up_after_too_many_faults_in_a_row() {
    for form in FORMS {
        for max in [0, 1, 2, 5_u32] {
            for faults in [max.saturating_sub(1), max, max + 1] {
                // A good message between two runs: only faults in a row count.
                let run = "over the limit\n".repeat(faults as usize);
                let reader =
                    ScriptedReader::new(format!("{run}ok\n{run}ok\n"), [Act::Take(17), Act::Pending]);
                let config = LinkConfig::default().max_faults_in_a_row(max);
                let codec = Newline::new().max_size(4);
                let mut link = Link::with_config(codec, reader, tokio::io::sink(), config);
                let mut got = Vec::new();
                let error = soon("faults", wire::receive_all(&mut link, form, &mut got)).await;
                let fault = Outcome::Fault(Fault::TooLarge { size: 14, limit: 4 });
                if faults <= max {
                    let run = vec![fault; faults as usize];
                    let ok = [Outcome::Frame(b"ok".to_vec())];
                    assert_eq!(got, [&run[..], &ok, &run, &ok].concat(), "{form:?}, {faults} of {max}");
                    assert!(error.is_clean_end(), "{form:?}, {faults} of {max}: {error}");
                    assert_eq!(link.counters().faults, 2 * u64::from(faults));
                } else {
                    assert_eq!(got, vec![fault; max as usize], "{form:?}, {faults} of {max}");
                    for _ in 0..3 {
                        let error = wire::receive_all(&mut link, form, &mut got).await;
                        let Error::Violation(Violation::TooManyFaults { count }) = error else {
                            panic!("{form:?}, {faults} of {max}: {error}");
                        };
                        assert_eq!(count, max + 1);
                        assert!(link.is_ended());
                    }
                }
            }
        }
    }
}

/// The last fault may be the one that the end of the stream makes.
#[tokio::test(start_paused = true)]
async fn the_cut_off_message_at_the_end_counts_as_a_fault() {
    for (max, too_many) in [(1, true), (2, false)] {
        let config = LinkConfig::default().max_faults_in_a_row(max);
        let reader = ScriptedReader::new(&b"\0\0\0\x05large\0\0\0\x02c"[..], []);
        let mut link = Link::with_config(Prefixed::codec(4), reader, tokio::io::sink(), config);
        assert!(matches!(link.receive().await, Err(Error::Fault(Fault::TooLarge { size: 5, limit: 4 }))));
        let last = link.receive().await.unwrap_err();
        if too_many {
            assert!(matches!(last, Error::Violation(Violation::TooManyFaults { count: 2 })), "{last}");
            assert!(matches!(link.receive().await, Err(Error::Violation(_))));
        } else {
            assert!(matches!(last, Error::Fault(Fault::Truncated { size: 5 })), "{last}");
            assert!(link.receive().await.unwrap_err().is_clean_end());
        }
    }
}

// Message sizes.

async fn encode_limit<F: Framing>(limit: usize) {
    for way in WAYS {
        let what = format!("{}, limit {limit}, {way:?}", F::NAME);
        let (writer, log) = ScriptedWriter::new([]);
        let mut link = Link::pair(F::codec(limit), silent(), writer);
        let payloads: Vec<Vec<u8>> =
            [limit - 1, limit, limit + 1].iter().zip(b'a'..).map(|(&size, byte)| vec![byte; size]).collect();
        let before = link.counters();
        for payload in &payloads {
            let sent = soon(&what, wire::send(&mut link, way, payload)).await;
            if payload.len() <= limit {
                sent.unwrap();
                continue;
            }
            let error = sent.unwrap_err();
            let size = payload.len();
            let told = Rejection::TooLarge { size, limit };
            assert!(matches!(&error, Error::Rejected(rejection) if *rejection == told), "{what}: {error}");
            assert!(!error.is_fatal());
        }
        // The link is untouched.
        wire::send(&mut link, way, b"next").await.unwrap();
        link.close().await.unwrap();
        let sent = [&payloads[..2], &[b"next".to_vec()]].concat();
        assert!(log.bytes() == F::wire(&sent), "{what}");
        assert_eq!(link.counters().frames_sent - before.frames_sent, 3, "{what}");
        assert_eq!(link.counters().bytes_sent, 2 * limit as u64 + 3, "{what}");
    }
}

async fn decode_limit<F: Framing>(limit: usize) {
    for form in FORMS {
        for size in [limit - 1, limit, limit + 1] {
            let payloads = [vec![b'x'; size], b"next".to_vec()];
            let payloads = if F::NAME == Unframed::NAME { &payloads[..1] } else { &payloads };
            let bytes = F::wire(payloads);
            for piece in [1000, usize::MAX] {
                let reader = ScriptedReader::new(bytes.clone(), [Act::Take(piece), Act::Pending]);
                let mut link = Link::pair(F::codec(limit), reader, tokio::io::sink());
                let mut got = Vec::new();
                let error = soon("decode", wire::receive_all(&mut link, form, &mut got)).await;
                assert!(error.is_clean_end());
                assert!(got == F::outcomes(&bytes, limit), "{}, {size} bytes, {form:?}", F::NAME);
                let fault = Outcome::Fault(Fault::TooLarge { size: size as u64, limit });
                assert_eq!(got[0] == fault, size > limit);
                assert_eq!(link.counters().faults, u64::from(size > limit));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn messages_around_the_limits_of_their_codec() {
    for limit in [4, 100, 4095, 4096, 4097, 65_536] {
        encode_limit::<Lines>(limit).await;
        encode_limit::<Prefixed>(limit).await;
        encode_limit::<Headed>(limit).await;
        encode_limit::<Unframed>(limit).await;
        decode_limit::<Lines>(limit).await;
        decode_limit::<Prefixed>(limit).await;
        decode_limit::<Headed>(limit).await;
        decode_limit::<Unframed>(limit).await;
    }
}

/// The two directions have limits apart.
#[tokio::test]
async fn the_limits_of_the_two_directions_are_apart() {
    let codec = Newline::new().max_decode_size(3).max_encode_size(5);
    let (writer, log) = ScriptedWriter::new([]);
    let mut link = Link::pair(codec, ScriptedReader::new("123\n1234\n", []), writer);
    assert_eq!(link.receive().await.unwrap(), "123");
    assert!(matches!(link.receive().await, Err(Error::Fault(Fault::TooLarge { size: 4, limit: 3 }))));
    link.send(b"12345").await.unwrap();
    assert!(matches!(
        link.send(b"123456").await,
        Err(Error::Rejected(Rejection::TooLarge { size: 6, limit: 5 }))
    ));
    link.close().await.unwrap();
    assert_eq!(log.bytes(), b"12345\n");
}

#[tokio::test]
async fn a_permit_is_for_what_was_reserved() {
    let (writer, log) = ScriptedWriter::new([]);
    let mut link = Link::pair(Newline::new(), silent(), writer);
    for (size, fits) in [(9, true), (10, true), (11, false)] {
        let sent = link.reserve(10).await.unwrap().send(&vec![b'x'; size]);
        assert_eq!(sent.is_ok(), fits);
        if let Err(error) = sent {
            assert!(matches!(error, Error::Rejected(Rejection::TooLarge { size: 11, limit: 10 })), "{error}");
        }
    }
    let _unused = link.reserve(10).await.unwrap();
    link.close().await.unwrap();
    assert_eq!(log.bytes(), b"xxxxxxxxx\nxxxxxxxxxx\n");
}

// A peer that never stops.

/// Counts how often it is run until it is stopped.
fn bystander() -> (Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let task = tokio::spawn(async move {
        loop {
            counter.fetch_add(1, SeqCst);
            tokio::task::yield_now().await;
        }
    });
    (runs, task)
}

/// Messages after which somebody else has to have run.
const MANY: usize = 20_000;

async fn others_run_while_receiving(form: Form) {
    let reader = Chatter { line: b"chatter\n", said: Arc::default() };
    let mut link = Link::pair(Newline::new(), reader, tokio::io::sink());
    let (runs, task) = bystander();
    let mut got = Vec::new();
    for _ in 0..MANY {
        wire::receive(&mut link, form, &mut got).await.unwrap();
        got.clear();
    }
    let runs = runs.load(SeqCst);
    task.abort();
    assert!(runs > 0, "{form:?}: nobody else ran during {MANY} messages");
}

#[tokio::test]
async fn a_peer_that_always_has_data_does_not_starve_other_tasks() {
    for form in FORMS {
        others_run_while_receiving(form).await;
    }
}

/// The bytes never make a message.
#[tokio::test]
async fn a_peer_that_always_has_data_but_no_message_does_not_starve_other_tasks() {
    for line in ["\n", "\r\n\r\n", "no newline"] {
        let reader = Chatter { line: line.as_bytes(), said: Arc::default() };
        let mut link = Link::pair(Newline::new().max_size(100), reader, tokio::io::sink());
        let (runs, task) = bystander();
        tokio::select! {
            outcome = link.receive() => panic!("{outcome:?}"),
            () = async { while runs.load(SeqCst) < 10 { tokio::task::yield_now().await } } => {}
        }
        task.abort();
    }
}

/// Takes everything at once, always.
struct Hungry;

impl AsyncWrite for Hungry {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

async fn others_run_while_sending(way: Way, flush: bool) {
    let config = LinkConfig::default().write_high_water(1000);
    let mut link = Link::with_config(Newline::new(), silent(), Hungry, config);
    // The link's own task is there.
    link.send(b"first").await.unwrap();
    link.flush().await.unwrap();
    let (runs, task) = bystander();
    for _ in 0..MANY {
        wire::send(&mut link, way, b"to a peer that always reads").await.unwrap();
        if flush {
            link.flush().await.unwrap();
        }
    }
    let runs = runs.load(SeqCst);
    task.abort();
    assert!(runs > 0, "{way:?}, flush {flush}: nobody else ran during {MANY} messages");
}

#[tokio::test]
async fn a_peer_that_always_reads_does_not_starve_other_tasks() {
    for way in WAYS {
        for flush in [false, true] {
            others_run_while_sending(way, flush).await;
        }
    }
}

/// Real sockets: tokio counts their work.
#[cfg(all(feature = "net", unix))]
#[tokio::test]
async fn a_socket_that_always_has_data_does_not_starve_other_tasks() {
    use std::{io::Write, os::unix::net::UnixStream};

    let (near, mut far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let (reader, writer) = framewire::io::unix::from_std(near).unwrap();
    let mut link = Link::pair(Newline::new(), reader, writer);
    let line = b"chatter\n".repeat(5000);
    let sending = std::thread::spawn(move || while far.write_all(&line).is_ok() {});
    let (runs, task) = bystander();
    // Far more than the socket holds, and many of tokio's budgets.
    for _ in 0..100 * MANY {
        assert_eq!(link.receive_lent().await.unwrap().len(), 7);
    }
    assert!(runs.load(SeqCst) > 0);
    task.abort();
    drop(link);
    sending.join().unwrap();
}
