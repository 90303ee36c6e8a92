//! The deadlines of a link, each just before and just after, by a paused clock: nothing received, a message that takes
//! too long, a peer that does not read, a close that does not end.
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
    task::{Context, Poll},
    time::Duration,
};

use framewire::{
    Error, Link,
    codec::{Codec, Newline},
    error::{Deadline, End, Fault},
    io::memory::{self, MemoryReader, MemoryWriter},
    link::LinkConfig,
};
use script::{Act, ScriptedReader, ScriptedWriter};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    time::{Instant, sleep, timeout},
};
use wire::{Framing, Headed, Lines, Prefixed, Unframed, WAYS, Way, soon};

const SECOND: Duration = Duration::from_secs(1);
/// As fine as tokio's clock is.
const TICK: Duration = Duration::from_millis(1);

fn silent() -> ScriptedReader {
    ScriptedReader::new([], []).after(Act::Never)
}

type MemoryLink<C> = Link<C, MemoryReader, MemoryWriter>;

/// A link to an end in memory that the test holds.
fn link<F: Framing>(config: LinkConfig) -> (MemoryLink<F::Codec>, MemoryReader, MemoryWriter) {
    let ((reader, writer), (far_reader, far_writer)) = memory::pair(1 << 16);
    (Link::with_config(F::codec(100), reader, writer, config), far_reader, far_writer)
}

/// Receives until a deadline passes, and asserts that it is this one, at this time after the start.
async fn times_out<C: Codec>(
    link: &mut MemoryLink<C>,
    which: Deadline,
    after: Duration,
    at: Duration,
    what: &str,
) {
    let start = Instant::now();
    let error = soon(what, link.receive()).await.unwrap_err();
    match error {
        Error::TimedOut { deadline, after: told } => {
            assert_eq!((deadline, told), (which, after), "{what}");
        }
        other => panic!("{what}: {other}"),
    }
    let passed = start.elapsed();
    assert!(passed >= at && passed <= at + 2 * TICK, "{what}: after {passed:?} instead of {at:?}");
}

// Idle.

async fn idle<F: Framing>() {
    let what = F::NAME;
    let (mut link, _far_reader, mut far) = link::<F>(LinkConfig::default().idle(10 * SECOND));
    // Just in time, several times over.
    for _ in 0..3 {
        let bringing = async {
            sleep(10 * SECOND - 2 * TICK).await;
            far.write_all(&F::frame(b"hello")).await.unwrap();
        };
        let (frame, ()) = soon(what, async { tokio::join!(link.receive(), bringing) }).await;
        assert_eq!(frame.unwrap(), "hello", "{what}");
    }
    // A handler that takes its time does not count against the peer, which waits for its answer.
    sleep(60 * SECOND).await;
    times_out(&mut link, Deadline::Idle, 10 * SECOND, 10 * SECOND, what).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_peer_is_told_of_just_after_the_deadline() {
    idle::<Lines>().await;
    idle::<Prefixed>().await;
    idle::<Headed>().await;
    // One message for the stream: idle until its first byte.
    let (mut link, _far_reader, _far) = link::<Unframed>(LinkConfig::default().idle(10 * SECOND));
    times_out(&mut link, Deadline::Idle, 10 * SECOND, 10 * SECOND, "whole").await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_beyond_all_clocks_never_passes() {
    let never = LinkConfig::default().idle(Duration::MAX).frame(Duration::MAX).write(Duration::MAX);
    let (mut link, mut far_reader, mut far) = link::<Lines>(never.close(Some(Duration::MAX)));
    let day = 24 * 3600 * SECOND;
    assert!(timeout(day, link.receive()).await.is_err());
    far.write_all(b"hel").await.unwrap();
    assert!(timeout(day, link.receive()).await.is_err());
    far.write_all(b"lo\n").await.unwrap();
    assert_eq!(link.receive().await.unwrap(), "hello");
    let large = vec![b'x'; 100];
    for _ in 0..1000 {
        link.feed(&large).await.unwrap();
    }
    assert!(timeout(day, link.close()).await.is_err());
    let mut read = Vec::new();
    let (closed, count) = tokio::join!(link.close(), far_reader.read_to_end(&mut read));
    closed.unwrap();
    assert_eq!(count.unwrap(), 101_000);
}

#[tokio::test(start_paused = true)]
async fn the_idle_deadline_counts_on_while_calls_are_dropped() {
    let (mut link, _far_reader, _far) = link::<Lines>(LinkConfig::default().idle(10 * SECOND));
    for _ in 0..9 {
        assert!(timeout(SECOND, link.receive()).await.is_err());
    }
    times_out(&mut link, Deadline::Idle, 10 * SECOND, SECOND, "dropped").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_does_not_put_off_the_idle_deadline() {
    let (mut link, mut far, _far) = link::<Lines>(LinkConfig::default().idle(10 * SECOND));
    let start = Instant::now();
    let error = loop {
        link.send(b"ping").await.unwrap();
        match timeout(3 * SECOND, link.receive()).await {
            Ok(outcome) => break outcome.unwrap_err(),
            Err(_) => assert!(start.elapsed() < 11 * SECOND),
        }
    };
    assert!(matches!(error, Error::TimedOut { deadline: Deadline::Idle, .. }), "{error}");
    let mut pings = [0; 15];
    far.read_exact(&mut pings).await.unwrap();
}

// Frame.

/// The peer sends one byte a second and never ends the message.
async fn slow_loris<F: Framing>() {
    let what = F::NAME;
    let (mut link, _far_reader, mut far) = link::<F>(LinkConfig::default().frame(5 * SECOND));
    let bytes = F::frame(&[b'x'; 60]);
    let trickling = tokio::spawn(async move {
        sleep(SECOND).await;
        for byte in bytes {
            if far.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(SECOND).await;
        }
        far
    });
    // The first byte comes after a second.
    times_out(&mut link, Deadline::Frame, 5 * SECOND, 6 * SECOND, what).await;
    trickling.abort();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_trickles_in_is_told_of_just_after_the_deadline() {
    slow_loris::<Lines>().await;
    slow_loris::<Prefixed>().await;
    slow_loris::<Headed>().await;
    slow_loris::<Unframed>().await;
}

async fn just_in_time<F: Framing>() {
    let what = F::NAME;
    let (mut link, _far_reader, mut far) = link::<F>(LinkConfig::default().frame(5 * SECOND));
    let bytes = F::frame(b"0123456789");
    let middle = bytes.len() - 2;
    for _ in 0..3 {
        // Between two messages there is no limit.
        assert!(timeout(20 * SECOND, link.receive()).await.is_err(), "{what}");
        let bringing = async {
            far.write_all(&bytes[..1]).await.unwrap();
            sleep(2 * SECOND).await;
            far.write_all(&bytes[1..middle]).await.unwrap();
            sleep(3 * SECOND - 3 * TICK).await;
            // The end of one and the start of the next, which has a deadline of its own.
            far.write_all(&[&bytes[middle..], &bytes[..3]].concat()).await.unwrap();
        };
        let (frame, ()) = soon(what, async { tokio::join!(link.receive(), bringing) }).await;
        assert_eq!(frame.unwrap(), "0123456789", "{what}");
        let bringing = async {
            sleep(5 * SECOND - 3 * TICK).await;
            far.write_all(&bytes[3..]).await.unwrap();
        };
        let (frame, ()) = soon(what, async { tokio::join!(link.receive(), bringing) }).await;
        assert_eq!(frame.unwrap(), "0123456789", "{what}: the next message");
    }
    far.write_all(&bytes[..middle]).await.unwrap();
    times_out(&mut link, Deadline::Frame, 5 * SECOND, 5 * SECOND, what).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_just_in_time_arrives() {
    just_in_time::<Lines>().await;
    just_in_time::<Prefixed>().await;
    just_in_time::<Headed>().await;
}

#[tokio::test(start_paused = true)]
async fn the_frame_deadline_counts_on_while_calls_are_dropped() {
    let (mut link, _far_reader, mut far) = link::<Lines>(LinkConfig::default().frame(5 * SECOND));
    far.write_all(b"unfinished").await.unwrap();
    for _ in 0..4 {
        assert!(timeout(SECOND, link.receive()).await.is_err());
    }
    times_out(&mut link, Deadline::Frame, 5 * SECOND, SECOND, "dropped").await;
}

/// The peer sends a message over the limit, a byte a second, which is skipped and never ends.
async fn slow_loris_over_the_limit<F: Framing>(idle: bool) {
    let what = format!("{}, idle {idle}", F::NAME);
    let mut config = LinkConfig::default().frame(5 * SECOND);
    if idle {
        config = config.idle(3 * SECOND);
    }
    let (mut link, _far_reader, mut far) = link::<F>(config);
    let bytes = F::frame(&[b'x'; 100_000]);
    let trickling = tokio::spawn(async move {
        // More than the limit comes at once.
        far.write_all(&bytes[..200]).await.unwrap();
        for byte in &bytes[200..] {
            sleep(SECOND).await;
            if far.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        far
    });
    let error = loop {
        match timeout(1000 * SECOND, link.receive()).await.unwrap_or_else(|_| panic!("{what}: no deadline")) {
            // May be told as soon as the head is there.
            Err(Error::Fault(Fault::TooLarge { .. })) => {}
            Err(error) => break error,
            Ok(frame) => panic!("{what}: {frame:?}"),
        }
    };
    assert!(matches!(error, Error::TimedOut { deadline: Deadline::Frame, .. }), "{what}: {error}");
    trickling.abort();
}

#[tokio::test(start_paused = true)]
async fn a_line_over_the_limit_that_trickles_in_is_under_the_frame_deadline() {
    slow_loris_over_the_limit::<Lines>(false).await;
    slow_loris_over_the_limit::<Lines>(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_over_the_limit_that_trickles_in_is_under_the_frame_deadline() {
    slow_loris_over_the_limit::<Unframed>(false).await;
    slow_loris_over_the_limit::<Unframed>(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_counted_message_over_the_limit_that_trickles_in_is_under_the_frame_deadline() {
    slow_loris_over_the_limit::<Prefixed>(false).await;
    slow_loris_over_the_limit::<Prefixed>(true).await;
    slow_loris_over_the_limit::<Headed>(false).await;
    slow_loris_over_the_limit::<Headed>(true).await;
}

/// Has a byte for every read.
struct Endless;

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        buffer.put_slice(b"x");
        Poll::Ready(Ok(()))
    }
}

/// The peer is never slow, and its message never ends.
#[tokio::test(start_paused = true)]
async fn a_message_that_never_ends_is_under_the_frame_deadline() {
    for limit in [usize::MAX, 100] {
        let config = LinkConfig::default().frame(5 * SECOND);
        let mut link = Link::with_config(Newline::new().max_size(limit), Endless, tokio::io::sink(), config);
        let clock = async {
            for _ in 0..100 {
                tokio::time::advance(SECOND).await;
                tokio::task::yield_now().await;
            }
        };
        let error = tokio::select! {
            outcome = link.receive() => outcome.unwrap_err(),
            () = clock => panic!("no deadline after 100 s, limit {limit}"),
        };
        assert!(matches!(error, Error::TimedOut { deadline: Deadline::Frame, .. }), "{error}");
    }
}

/// A line over the limit that ends in time is one fault, and what follows arrives.
#[tokio::test(start_paused = true)]
async fn a_line_over_the_limit_that_ends_in_time_is_a_fault_only() {
    let (mut link, _far_reader, mut far) = link::<Lines>(LinkConfig::default().frame(5 * SECOND));
    for _ in 0..3 {
        let bringing = async {
            far.write_all(&[b'x'; 200]).await.unwrap();
            sleep(4 * SECOND).await;
            far.write_all(b"xx\nnext\n").await.unwrap();
        };
        let (fault, ()) = soon("in time", async { tokio::join!(link.receive(), bringing) }).await;
        assert!(matches!(fault, Err(Error::Fault(Fault::TooLarge { size: 202, limit: 100 }))), "{fault:?}");
        assert_eq!(link.receive().await.unwrap(), "next");
        assert!(timeout(60 * SECOND, link.receive()).await.is_err(), "between messages there is no limit");
    }
}

/// Blank lines may come for ever: only the idle deadline is about the time between messages.
#[tokio::test(start_paused = true)]
async fn blank_lines_are_not_under_the_frame_deadline() {
    let (mut link, _far_reader, mut far) = link::<Lines>(LinkConfig::default().frame(5 * SECOND));
    let trickling = tokio::spawn(async move {
        for _ in 0..50 {
            far.write_all(b"\r\n").await.unwrap();
            sleep(SECOND).await;
        }
        far.write_all(b"{}\n").await.unwrap();
        sleep(SECOND).await;
    });
    assert_eq!(soon("blank lines", link.receive()).await.unwrap(), "{}");
    trickling.await.unwrap();
}

// Write.

async fn write<F: Framing>(way: Way) {
    let what = format!("{}, {way:?}", F::NAME);
    let ((reader, writer), (mut far, _far_writer)) = memory::pair(16);
    let config = LinkConfig::default().write(5 * SECOND).close(None);
    let mut link = Link::with_config(F::codec(100), reader, writer, config);
    let start = Instant::now();
    wire::send(&mut link, way, &[b'x'; 64]).await.unwrap();
    // A byte just in time, several times over, is progress.
    let taking = async {
        for _ in 0..5 {
            sleep(5 * SECOND - 2 * TICK).await;
            let mut byte = [0; 1];
            far.read_exact(&mut byte).await.unwrap();
        }
        Instant::now()
    };
    let (flushed, last) = soon(&what, async { tokio::join!(link.flush(), taking) }).await;
    let error = flushed.unwrap_err();
    assert!(
        matches!(error, Error::TimedOut { deadline: Deadline::Write, after } if after == 5 * SECOND),
        "{what}: {error}"
    );
    let passed = start.elapsed();
    assert!(passed >= last - start + 5 * SECOND, "{what}: {passed:?}, too early");
    assert!(passed <= last - start + 5 * SECOND + 10 * TICK, "{what}: {passed:?}, too late");
    let error = wire::send(&mut link, way, b"more").await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { deadline: Deadline::Write, .. }), "{what}: {error}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_told_of_just_after_the_write_deadline() {
    for way in WAYS {
        write::<Lines>(way).await;
        write::<Prefixed>(way).await;
        write::<Headed>(way).await;
        write::<Unframed>(way).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_send_that_waits_for_room_ends_with_the_write_deadline() {
    for way in WAYS {
        let (writer, _log) = ScriptedWriter::new([]);
        let config = LinkConfig::default().write(5 * SECOND).write_high_water(10);
        let mut link = Link::with_config(Newline::new(), silent(), writer.limit(0, Act::Never), config);
        let start = Instant::now();
        let error = soon("room", async {
            loop {
                if let Err(error) = wire::send(&mut link, way, b"01234").await {
                    break error;
                }
            }
        })
        .await;
        assert!(matches!(error, Error::TimedOut { deadline: Deadline::Write, .. }), "{way:?}: {error}");
        let passed = start.elapsed();
        assert!(passed >= 5 * SECOND && passed <= 5 * SECOND + 2 * TICK, "{way:?}: {passed:?}");
    }
}

/// With nothing to write there is no write deadline, however long it takes.
#[tokio::test(start_paused = true)]
async fn a_link_that_has_nothing_to_write_has_no_write_deadline() {
    let (mut link, mut far, _far_writer) = link::<Lines>(LinkConfig::default().write(5 * SECOND));
    for _ in 0..3 {
        sleep(100 * SECOND).await;
        link.send(b"x").await.unwrap();
        link.flush().await.unwrap();
        let mut line = [0; 2];
        far.read_exact(&mut line).await.unwrap();
        assert_eq!(line, *b"x\n");
    }
}

/// A link that pauses reading for its backlog reads on once writing has failed.
#[tokio::test(start_paused = true)]
async fn reading_goes_on_after_the_write_deadline() {
    let ((reader, writer), (_far, mut far_writer)) = memory::pair(4);
    let config = LinkConfig::default().write(5 * SECOND).pause_reading(true).write_high_water(8);
    let mut link = Link::with_config(Newline::new(), reader, writer, config);
    link.send(b"more than the pipe holds").await.unwrap();
    far_writer.write_all(b"hi\n").await.unwrap();
    // Reading pauses for the backlog until the deadline says that nobody reads.
    let start = Instant::now();
    assert_eq!(soon("paused reading", link.receive()).await.unwrap(), "hi");
    assert!(start.elapsed() >= 5 * SECOND);
    assert!(matches!(link.flush().await, Err(Error::TimedOut { deadline: Deadline::Write, .. })));
}

// Close.

#[tokio::test(start_paused = true)]
async fn a_close_ends_just_after_its_deadline() {
    for write in [None, Some(60 * SECOND)] {
        let ((reader, writer), (mut far, _far_writer)) = memory::pair(16);
        let mut config = LinkConfig::default().close(Some(5 * SECOND));
        config.write = write;
        let mut link = Link::with_config(Newline::new(), reader, writer, config);
        link.send(&[b'x'; 64]).await.unwrap();
        let start = Instant::now();
        let error = soon("close", link.close()).await.unwrap_err();
        let is_close =
            matches!(error, Error::TimedOut { deadline: Deadline::Close, after } if after == 5 * SECOND);
        assert!(is_close, "{error}");
        let passed = start.elapsed();
        assert!(passed >= 5 * SECOND && passed <= 5 * SECOND + 2 * TICK, "{passed:?}");
        link.close().await.unwrap();
        assert!(matches!(link.send(b"more").await, Err(Error::Ended(End::Closed))));
        // The writer is closed: the peer gets what had left, and the end.
        let mut all = Vec::new();
        soon("the end", far.read_to_end(&mut all)).await.unwrap();
        assert_eq!(all, [b'x'; 16]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_just_in_time_loses_nothing() {
    let ((reader, writer), (mut far, _far_writer)) = memory::pair(16);
    let mut link =
        Link::with_config(Newline::new(), reader, writer, LinkConfig::default().close(Some(5 * SECOND)));
    link.send(&[b'x'; 64]).await.unwrap();
    let taking = async {
        sleep(5 * SECOND - 2 * TICK).await;
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        all
    };
    let (closed, all) = soon("close", async { tokio::join!(link.close(), taking) }).await;
    closed.unwrap();
    assert_eq!(all, Lines::frame(&[b'x'; 64]));
}

/// The deadline is the close's, not each call's: it counts on while calls are dropped.
#[tokio::test(start_paused = true)]
async fn the_close_deadline_counts_on_while_calls_are_dropped() {
    let (writer, _log) = ScriptedWriter::new([]);
    let mut link = Link::pair(Newline::new(), silent(), writer.limit(3, Act::Never));
    link.send(b"0123456789").await.unwrap();
    let start = Instant::now();
    for _ in 0..4 {
        assert!(timeout(SECOND, link.close()).await.is_err());
    }
    let error = soon("close", link.close()).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { deadline: Deadline::Close, .. }), "{error}");
    assert!(start.elapsed() <= 5 * SECOND + 2 * TICK);
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_a_close_waits_for_the_peer() {
    let ((reader, writer), (mut far, _far_writer)) = memory::pair(16);
    let mut link = Link::with_config(Newline::new(), reader, writer, LinkConfig::default().close(None));
    link.send(&[b'x'; 64]).await.unwrap();
    assert!(timeout(100_000 * SECOND, link.close()).await.is_err());
    let mut all = Vec::new();
    let (closed, read) = tokio::join!(link.close(), far.read_to_end(&mut all));
    closed.unwrap();
    read.unwrap();
    assert_eq!(all.len(), 65);
}

/// After a drop, what is queued may wait for the peer as long as a close may take, and no longer.
#[tokio::test(start_paused = true)]
async fn a_dropped_link_waits_for_its_peer_as_long_as_a_close() {
    for (wait, arrives) in [(5 * SECOND - 5 * TICK, true), (5 * SECOND + 5 * TICK, false)] {
        let ((reader, writer), (mut far, _far_writer)) = memory::pair(16);
        let config = LinkConfig::default().close(Some(5 * SECOND));
        let mut link = Link::with_config(Newline::new(), reader, writer, config);
        link.send(&[b'x'; 64]).await.unwrap();
        drop(link);
        sleep(wait).await;
        let mut all = Vec::new();
        soon("the end", far.read_to_end(&mut all)).await.unwrap();
        assert_eq!(all.len(), if arrives { 65 } else { 16 }, "after {wait:?}");
    }
}

/// The time a dropped link may linger is the close's even where a write deadline is longer, and in all, not for each
/// byte.
#[tokio::test(start_paused = true)]
async fn a_dropped_link_does_not_linger_for_a_peer_that_trickles() {
    let ((reader, writer), (mut far, _far_writer)) = memory::pair(4);
    let mut link =
        Link::with_config(Newline::new(), reader, writer, LinkConfig::default().close(Some(5 * SECOND)));
    link.send(&[b'x'; 99]).await.unwrap();
    drop(link);
    let start = Instant::now();
    let mut byte = [0; 1];
    loop {
        sleep(4 * SECOND).await;
        if far.read(&mut byte).await.unwrap() == 0 {
            break;
        }
    }
    assert!(start.elapsed() < 40 * SECOND, "the link lingered for {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_link_lingers_no_longer_for_a_long_write_deadline() {
    let ((reader, writer), (mut far, _far_writer)) = memory::pair(4);
    let config = LinkConfig::default().close(Some(5 * SECOND)).write(1000 * SECOND);
    let mut link = Link::with_config(Newline::new(), reader, writer, config);
    link.send(&[b'x'; 99]).await.unwrap();
    drop(link);
    sleep(10 * SECOND).await;
    let mut all = Vec::new();
    soon("the end", far.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all.len(), 4);
}
