//! The driver: receiving, sending, corking, ends, halves.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "link")]

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use framewire::{Error, Link, codec::Newline, error::End};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, duplex, split};

/// A writer that remembers each write.
#[derive(Debug, Clone, Default)]
struct Writes(Arc<Mutex<Vec<Vec<u8>>>>);

impl Writes {
    fn all(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().clone()
    }
}

impl AsyncWrite for Writes {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.lock().unwrap().push(bytes.to_vec());
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A reader that brings one chunk a read, then waits for ever.
struct Chunks(Vec<Vec<u8>>);

impl AsyncRead for Chunks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Pending;
        }
        buffer.put_slice(&self.0.remove(0));
        Poll::Ready(Ok(()))
    }
}

async fn echo_batch(writes: Writes) {
    let reader = Chunks(vec![b"a\nbb\nccc\n".to_vec()]);
    let mut link = Link::pair(Newline::default(), reader, writes.clone());
    for expected in ["a", "bb", "ccc"] {
        let message = link.receive().await.unwrap();
        assert_eq!(message, expected);
        link.send(&message).await.unwrap();
    }
    assert!(tokio::time::timeout(Duration::from_millis(20), link.receive()).await.is_err());
    assert_eq!(writes.all(), [b"a\nbb\nccc\n".to_vec()], "answers to one batch leave in one write");
}

#[tokio::test]
async fn answers_to_one_batch_share_one_write() {
    echo_batch(Writes::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_one_batch_all_leave_on_many_threads() {
    let writes = Writes::default();
    let reader = Chunks(vec![b"a\nbb\nccc\n".to_vec()]);
    let mut link = Link::pair(Newline::default(), reader, writes.clone());
    for _ in 0..3 {
        let message = link.receive().await.unwrap();
        link.send(&message).await.unwrap();
    }
    assert!(tokio::time::timeout(Duration::from_millis(20), link.receive()).await.is_err());
    assert_eq!(writes.all().concat(), b"a\nbb\nccc\n");
}

#[tokio::test(start_paused = true)]
async fn a_reply_is_not_held_back_by_a_slow_handler() {
    let writes = Writes::default();
    let reader = Chunks(vec![b"fast\nslow\n".to_vec()]);
    let mut link = Link::pair(Newline::default(), reader, writes.clone());
    let message = link.receive().await.unwrap();
    link.send(&message).await.unwrap();
    let _slow = link.receive().await.unwrap();
    assert!(writes.all().is_empty(), "nothing leaves while the task does not wait");
    // The slow tool: this task waits for something that is not the link.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(writes.all(), [b"fast\n".to_vec()]);
    link.send(b"slow").await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(writes.all().len(), 2);
}

#[tokio::test]
async fn what_was_sent_leaves_though_the_link_is_dropped() {
    let (near, mut far) = duplex(64);
    let (reader, writer) = split(near);
    let mut link = Link::pair(Newline::default(), reader, writer);
    for _ in 0..100 {
        link.send(b"0123456789").await.unwrap();
    }
    drop(link);
    let mut all = Vec::new();
    far.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"0123456789\n".repeat(100));
}

#[tokio::test]
async fn messages_of_many_sizes_come_back() {
    let (near, far) = duplex(1 << 16);
    let (reader, writer) = split(near);
    let mut link = Link::pair(Newline::default(), reader, writer);
    let echo = tokio::spawn(async move {
        let (reader, writer) = split(far);
        let mut link = Link::pair(Newline::default(), reader, writer);
        loop {
            match link.receive_lent().await {
                Ok(_) => {}
                Err(Error::Ended(End::Eof)) => break,
                Err(error) => panic!("{error}"),
            }
        }
        link.counters()
    });
    let mut total = 0;
    for round in 0..3 {
        for size in [1, 100, 511, 512, 4095, 4096, 65_534, 65_535, 65_536, 300_000, 1 << 20, (1 << 20) + 1, 7]
        {
            let message = vec![b'a' + round; size];
            link.send(&message).await.unwrap();
            total += size as u64;
        }
    }
    link.close().await.unwrap();
    let counters = echo.await.unwrap();
    assert_eq!(counters.frames_received, 39);
    assert_eq!(counters.bytes_received, total);
}

#[tokio::test]
async fn echo_of_large_messages_between_two_tasks() {
    let (near, far) = duplex(1 << 16);
    let (reader, writer) = split(near);
    let (mut sender, mut receiver) = Link::pair(Newline::default(), reader, writer).split();
    tokio::spawn(async move {
        let (reader, writer) = split(far);
        let mut link = Link::pair(Newline::default(), reader, writer);
        while let Ok(message) = link.receive().await {
            link.send_frame(message).await.unwrap();
        }
        link.close().await.unwrap();
    });
    let sizes = [3, 5000, 100_000, 1 << 20, 9, 64 << 10];
    let sending = tokio::spawn(async move {
        for (index, size) in sizes.into_iter().cycle().take(60).enumerate() {
            sender.send(&vec![b'a' + (index % 26) as u8; size]).await.unwrap();
        }
        sender.close().await.unwrap();
    });
    let mut held = Vec::new();
    for (index, size) in sizes.into_iter().cycle().take(60).enumerate() {
        let message = receiver.receive().await.unwrap();
        assert_eq!(message.len(), size);
        assert!(message.iter().all(|&byte| byte == b'a' + (index % 26) as u8));
        held.push(message);
    }
    assert!(matches!(receiver.receive().await, Err(Error::Ended(End::Eof))));
    sending.await.unwrap();
}

#[test]
fn without_a_runtime_send_waits_for_the_write() {
    let writes = Writes::default();
    let mut link = Link::pair(Newline::default(), Chunks(vec![]), writes.clone());
    futures::executor::block_on(async {
        link.send(b"a").await.unwrap();
        assert_eq!(writes.all(), [b"a\n".to_vec()]);
        link.feed(b"b").await.unwrap();
        assert_eq!(writes.all().len(), 1);
        link.close().await.unwrap();
        assert_eq!(writes.all().concat(), b"a\nb\n");
        assert!(matches!(link.send(b"c").await, Err(Error::Ended(End::Closed))));
        assert!(matches!(link.receive().await, Err(Error::Ended(End::Closed))));
    });
}

#[tokio::test]
async fn close_tells_the_peer_and_ends_both_directions() {
    let (near, mut far) = duplex(64);
    let (reader, writer) = split(near);
    let mut link = Link::pair(Newline::default(), reader, writer);
    far.write_all(b"unread\n").await.unwrap();
    link.feed(b"last").await.unwrap();
    link.close().await.unwrap();
    link.close().await.unwrap();
    let mut all = Vec::new();
    far.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"last\n");
    assert!(matches!(link.receive().await, Err(Error::Ended(End::Closed))));
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_pool_is_waited_for_and_then_told_of() {
    use framewire::{
        buffer::{BufferConfig, BufferManager},
        error::Deadline,
        link::LinkConfig,
    };
    let buffers = BufferManager::new(BufferConfig { max_bytes: 80 << 10, ..Default::default() });
    let (near, mut far) = duplex(64);
    let (reader, writer) = split(near);
    let config = LinkConfig::default().buffers(buffers.clone());
    let mut link = Link::with_config(Newline::default(), reader, writer, config);
    let taken = buffers.try_window(60 << 10).unwrap();
    far.write_all(b"a\n").await.unwrap();
    let error = link.receive().await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { deadline: Deadline::Buffer, .. }), "{error}");
    assert!(!error.is_fatal());
    let waiting = tokio::spawn(async move { link.receive().await });
    tokio::task::yield_now().await;
    drop(taken);
    assert_eq!(waiting.await.unwrap().unwrap(), "a", "a block that comes back wakes the link");
}

/// Holding more than the pool may lend ends in an error that says so, never in a hang; giving back goes on.
#[cfg(all(feature = "net", unix))]
#[tokio::test]
async fn holding_all_of_the_pool_is_told_and_survived() {
    use framewire::{
        buffer::{BufferConfig, BufferManager},
        error::Deadline,
        io::unix,
        link::LinkConfig,
    };
    let buffers = BufferManager::new(BufferConfig { max_bytes: 8 << 20, ..Default::default() });
    let (near, far) = unix::pair().unwrap();
    let near = Link::pair(Newline::default(), near.0, near.1);
    let config = LinkConfig::default().buffers(buffers);
    let mut far = Link::with_config(Newline::default(), far.0, far.1, config);
    let (mut sender, _receiver) = near.split();
    tokio::spawn(async move {
        for index in 0..40 {
            sender.send(&vec![b'a' + index; 1 << 20]).await.unwrap();
        }
        sender.close().await.unwrap();
    });
    let (mut held, mut count, mut told) = (Vec::new(), 0, 0);
    let all = async {
        loop {
            match far.receive().await {
                Ok(frame) => {
                    assert!(frame.len() == 1 << 20 && frame.iter().all(|&byte| byte == b'a' + count));
                    count += 1;
                    held.push(frame);
                }
                Err(Error::TimedOut { deadline: Deadline::Buffer, .. }) => {
                    told += 1;
                    held.clear();
                }
                Err(error) => {
                    assert!(error.is_clean_end(), "{error}");
                    break;
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("no hang");
    assert_eq!(count, 40);
    assert!(told > 0);
}
