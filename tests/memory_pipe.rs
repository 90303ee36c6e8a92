//! The pipe in memory: bounded, and either end's going ends the other.
#![cfg(feature = "link")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    future::Future,
    io::{ErrorKind, IoSlice},
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use framewire::io::memory::{pair, pipe};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn d12_dropping_an_end_wakes_and_ends_the_other() {
    let soon = |task| tokio::time::timeout(Duration::from_secs(5), task);
    let (mut reader, mut writer) = pipe(16);
    let read = tokio::spawn(async move {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.map(|_| all)
    });
    writer.write_all(b"rest").await.unwrap();
    tokio::task::yield_now().await;
    drop(writer);
    assert_eq!(soon(read).await.expect("not woken").unwrap().unwrap(), b"rest");

    let (reader, mut writer) = pipe(16);
    let write = tokio::spawn(async move { writer.write_all(&[0; 64]).await.map(|()| Vec::new()) });
    tokio::task::yield_now().await;
    drop(reader);
    assert_eq!(soon(write).await.expect("not woken").unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn d12_a_shut_down_end_takes_no_more() {
    let (mut reader, mut writer) = pipe(16);
    writer.write_all(b"rest").await.unwrap();
    writer.shutdown().await.unwrap();
    assert_eq!(writer.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    let mut all = String::new();
    reader.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "rest");
}

#[test]
fn no_more_than_the_capacity_is_held() {
    let (mut reader, mut writer) = pipe(10);
    assert!(matches!(poll_once(writer.write(&[1; 100])), Poll::Ready(Ok(10))));
    assert!(poll_once(writer.write(&[1])).is_pending());
    let mut four = [0; 4];
    assert!(matches!(poll_once(reader.read(&mut four)), Poll::Ready(Ok(4))));
    let parts = [IoSlice::new(b""), IoSlice::new(b"ab"), IoSlice::new(b"cdef")];
    assert!(matches!(poll_once(writer.write_vectored(&parts)), Poll::Ready(Ok(4))));
    let mut all = [0; 100];
    let mut held = 0;
    while let Poll::Ready(Ok(count)) = poll_once(reader.read(&mut all[held..])) {
        held += count;
    }
    assert_eq!(&all[..held], b"\x01\x01\x01\x01\x01\x01abcd");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_cross_in_order_between_two_tasks() {
    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = pair(37);
    tokio::spawn(async move {
        tokio::io::copy(&mut far_in, &mut far_out).await.unwrap();
    });
    let sent: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
    let expected = sent.clone();
    tokio::spawn(async move {
        near_out.write_all(&sent).await.unwrap();
    });
    let mut all = Vec::new();
    near_in.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, expected);
}
