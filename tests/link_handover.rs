//! Who drives the writer, and what happens when that changes: nothing queued is ever forgotten.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "link")]

#[path = "support/script.rs"]
mod script;
#[path = "support/step.rs"]
mod step;

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use framewire::{
    Error, Frame, Link,
    codec::Newline,
    error::{Deadline, End},
    link::LinkConfig,
};
use script::{Act, ScriptedReader, ScriptedWriter};
use tokio::{
    io::{AsyncWrite, empty},
    runtime::Builder,
    time::timeout,
};

fn silent() -> ScriptedReader {
    ScriptedReader::new([], []).after(Act::Never)
}

const LONG: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_small_message_behind_a_large_one_leaves_by_itself() {
    let (writer, log) = ScriptedWriter::new([]);
    let mut link = Link::pair(Newline::default(), silent(), writer);
    link.send(b"first").await.unwrap();
    tokio::task::yield_now().await;
    // From the threshold on the bytes are written at once and nothing is queued.
    for round in 1..4 {
        link.send(&[b'x'; 5000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        link.send(b"small").await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(log.get().bytes.len(), 6 + round * 5007, "round {round}");
    }
}

/// Not ready once, and ready again before its caller can say that it is blocked.
#[derive(Clone)]
struct Hasty {
    bytes: Arc<Mutex<Vec<u8>>>,
    refused: bool,
    armed: Arc<AtomicBool>,
}

impl AsyncWrite for Hasty {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.armed.load(SeqCst) && !self.refused {
            self.refused = true;
            cx.waker().wake_by_ref();
            // The flusher runs on the other thread meanwhile, and finds the writer driven.
            std::thread::sleep(Duration::from_millis(50));
            return Poll::Pending;
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

#[test]
fn a_wake_up_that_comes_while_a_half_still_drives_is_not_lost() {
    for large in [false, true] {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let armed = Arc::<AtomicBool>::default();
        let writer = Hasty { bytes: Arc::default(), refused: false, armed: armed.clone() };
        let bytes = writer.bytes.clone();
        runtime.block_on(async {
            let mut link = Link::pair(Newline::default(), silent(), writer);
            link.send(b"a").await.unwrap();
            link.flush().await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            armed.store(true, SeqCst);
            if large {
                timeout(LONG, link.send(&[b'b'; 9000])).await.unwrap().unwrap();
            } else {
                link.feed(b"b").await.unwrap();
            }
            timeout(LONG, link.flush()).await.expect("the wake-up was lost").unwrap();
            assert_eq!(bytes.lock().unwrap().len(), if large { 9003 } else { 4 });
        });
    }
}

#[test]
fn the_last_message_of_a_program_leaves() {
    for flavor in ["current", "multi"] {
        let (writer, log) = ScriptedWriter::new([]);
        let runtime = match flavor {
            "current" => Builder::new_current_thread().enable_all().build().unwrap(),
            _ => Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap(),
        };
        // All of a short program: it sends and is done, and its runtime ends with it.
        runtime.block_on(async {
            let mut link = Link::pair(Newline::default(), silent(), writer);
            link.send(b"all").await.unwrap();
        });
        drop(runtime);
        assert_eq!(log.bytes(), b"all\n", "{flavor}");
    }
}

#[test]
fn a_message_leaves_when_the_runtime_ends_before_the_link() {
    let (writer, log) = ScriptedWriter::new([]);
    let mut link = Link::pair(Newline::default(), silent(), writer);
    let runtime = Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { link.send(b"a").await.unwrap() });
    drop(runtime);
    // Another runtime goes on with the same link.
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        link.feed(b"b").await.unwrap();
        assert!(timeout(Duration::from_millis(1), link.receive()).await.is_err());
        assert_eq!(log.bytes(), b"a\nb\n", "what was fed leaves when the link reads");
        link.send(b"c").await.unwrap();
    });
    drop(runtime);
    drop(link);
    assert_eq!(log.bytes(), b"a\nb\nc\n");
}

#[test]
fn without_a_runtime_what_was_fed_leaves_when_the_link_reads_or_goes() {
    let (writer, log) = ScriptedWriter::new([Act::Take(2)]);
    let mut link =
        Link::pair(Newline::default(), ScriptedReader::new("x\n", [Act::Later, Act::Take(9)]), writer);
    futures::executor::block_on(async {
        link.feed(b"question").await.unwrap();
        assert_eq!(link.receive().await.unwrap(), "x");
    });
    assert_eq!(log.bytes(), b"question\n");
    let (writer, log) = ScriptedWriter::new([]);
    let mut link = Link::pair(Newline::default(), silent(), writer);
    futures::executor::block_on(link.feed(b"last")).unwrap();
    drop(link);
    assert_eq!(log.bytes(), b"last\n");
}

#[test]
fn without_a_runtime_a_close_waits_without_a_clock() {
    let (writer, log) = ScriptedWriter::new([Act::Later, Act::Take(1)]);
    let mut link = Link::pair(Newline::default(), silent(), writer);
    futures::executor::block_on(async {
        link.feed(b"abc").await.unwrap();
        link.close().await.unwrap();
    });
    assert_eq!(log.bytes(), b"abc\n");
    assert!(log.get().shut_down);
}

#[tokio::test(start_paused = true)]
async fn the_write_deadline_holds_whoever_met_the_full_kernel() {
    for fed in [true, false] {
        for large in [true, false] {
            let (writer, log) = ScriptedWriter::new([]);
            let writer = writer.limit(2, Act::Never);
            let config = LinkConfig::default().write(Duration::from_secs(1));
            let mut link = Link::with_config(Newline::default(), silent(), writer, config);
            link.send(b"a").await.unwrap();
            link.flush().await.unwrap();
            let message = vec![b'x'; if large { 9000 } else { 9 }];
            if fed {
                link.feed(&message).await.unwrap()
            } else {
                link.send(&message).await.unwrap()
            }
            let error = timeout(LONG, link.flush()).await.expect("no deadline").unwrap_err();
            assert!(matches!(error, Error::TimedOut { deadline: Deadline::Write, .. }), "{error}");
            assert_eq!(log.bytes(), b"a\n");
            drop(link);
            tokio::task::yield_now().await;
            assert!(log.get().dropped);
        }
    }
}

#[tokio::test]
async fn a_large_message_that_was_fed_is_flushed_when_the_link_reads() {
    let (writer, log) = ScriptedWriter::new([]);
    let mut link = Link::pair(Newline::default(), silent(), writer);
    link.send(b"a").await.unwrap();
    link.flush().await.unwrap();
    link.feed(&[b'x'; 5000]).await.unwrap();
    assert!(timeout(Duration::from_millis(1), link.receive()).await.is_err());
    assert_eq!(log.get().flushed, 5003);
}

#[tokio::test]
async fn a_writer_that_panics_ends_the_link_with_an_error() {
    // In the flusher.
    let (writer, _log) = ScriptedWriter::new([]);
    let mut link = Link::pair(Newline::default(), silent(), writer.limit(0, Act::Panic));
    link.send(b"a").await.unwrap();
    let error = timeout(LONG, link.flush()).await.expect("hangs");
    assert!(error.is_err());
    assert!(link.send(b"b").await.is_err());
    assert!(link.close().await.is_err());
    // In a half.
    let (writer, _log) = ScriptedWriter::new([]);
    let mut link = Link::pair(Newline::default(), silent(), writer.limit(2, Act::Panic));
    link.send(b"a").await.unwrap();
    link.flush().await.unwrap();
    link.feed(&[b'x'; 100]).await.unwrap();
    let (mut sender, mut receiver) = link.split();
    let reading = tokio::spawn(async move { receiver.receive().await.map(drop) });
    assert!(timeout(LONG, reading).await.unwrap().unwrap_err().is_panic());
    assert!(matches!(timeout(LONG, sender.flush()).await.unwrap(), Err(Error::Io(_))));
}

#[tokio::test]
async fn parts_hold_what_was_not_read_and_not_written() {
    let big = Frame::from(vec![b'y'; 10_000]);
    for limit in [2, 3, 4, 5, 4098, 5000, 5003, 5010, 15_003, 15_004, 20_000] {
        let (writer, log) = ScriptedWriter::new([]);
        let reader = ScriptedReader::new("one\ntwo\nthr", [Act::Take(7)]).after(Act::Never);
        let mut link = Link::pair(Newline::default(), reader, writer.limit(limit, Act::Never));
        link.send(b"a").await.unwrap();
        tokio::task::yield_now().await;
        let mut expected = b"a\n".to_vec();
        link.send(&[b'x'; 5000]).await.unwrap();
        link.send_frame(big.clone()).await.unwrap();
        link.feed(b"end").await.unwrap();
        expected.extend([vec![b'x'; 5000], vec![b'\n'], vec![b'y'; 10_000], b"\nend\n".to_vec()].concat());
        assert_eq!(link.receive().await.unwrap(), "one");
        let parts = link.into_parts();
        assert_eq!(parts.unread, "two");
        assert_eq!(parts.reader.rest(), b"\nthr");
        let mut all = log.bytes();
        assert_eq!(all.len(), limit.min(expected.len()));
        for frame in &parts.unsent {
            all.extend_from_slice(frame);
        }
        assert!(all == expected, "limit {limit}");
        assert!(parts.writer.is_some());
    }
}

#[tokio::test]
async fn closing_twice_and_after_a_failure() {
    let (writer, _log) = ScriptedWriter::new([]);
    let writer = writer.limit(1, Act::Fail(io::ErrorKind::BrokenPipe));
    let mut link = Link::pair(Newline::default(), empty(), writer);
    link.send(b"abc").await.unwrap();
    assert!(matches!(link.close().await, Err(Error::Ended(End::Reset))));
    link.close().await.unwrap();
    assert!(matches!(link.send(b"abc").await, Err(Error::Ended(End::Closed))));
}
