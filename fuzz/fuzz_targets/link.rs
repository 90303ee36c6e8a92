//! The driver: a sequence of operations, each of which may be given up after so many polls, over a reader and a writer
//! that move little, wait, or fail, against a plain model. What is received is a prefix of what the stream holds and all
//! of it at the end; what is written is a prefix of what was accepted and all of it after a flush.
//! Input: two bytes for the I/O behaviours, one for the high-water mark, then pairs of operation and argument.
#![no_main]

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use framewire::{
    Error, Frame, Link,
    codec::{LengthPrefix, Newline},
    error::End,
    link::LinkConfig,
};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A small generator: behaviours follow from the input alone.
#[derive(Clone)]
struct Dice(u32);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % sides
    }

    /// Up to one of these, at least 1.
    fn size(&mut self, most: [u32; 3]) -> usize {
        let most = most[self.roll(3) as usize];
        self.roll(most) as usize + 1
    }
}

struct Reader {
    bytes: Vec<u8>,
    at: usize,
    dice: Dice,
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.dice.roll(3) == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let most = self.dice.size([3, 300, 50_000]);
        let count = most.min(buffer.remaining()).min(self.bytes.len() - self.at);
        buffer.put_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

struct Writer {
    written: Arc<Mutex<Vec<u8>>>,
    dice: Dice,
}

impl Writer {
    fn take(&mut self, cx: &Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.dice.roll(3) == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut most = self.dice.size([3, 5000, 200_000]);
        let mut written = self.written.lock().unwrap();
        let before = written.len();
        for slice in slices {
            let count = most.min(slice.len());
            written.extend_from_slice(&slice[..count]);
            most -= count;
        }
        Poll::Ready(Ok(written.len() - before))
    }
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.take(cx, &[IoSlice::new(bytes)])
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.take(cx, slices)
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.dice.roll(4) == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Polls at most `polls` times, letting the link's own task run in between; `None` when it was given up.
async fn polled<T>(future: impl Future<Output = T>, polls: u8) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..=polls {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// The `index`th message, of a size around what matters inside.
fn message(index: usize, argument: u8) -> Vec<u8> {
    let sizes = [1, 100, 511, 512, 1, 4095, 4096, 4097, 40, 65_535, 70_000, 7];
    vec![b'a' + (index % 26) as u8; sizes[usize::from(argument) % sizes.len()]]
}

async fn drive(input: &[u8]) {
    let Some((&[reads, writes, mark], operations)) = input.split_first_chunk::<3>() else { return };
    let incoming: Vec<Vec<u8>> =
        (0..20).map(|index| message(index, reads.wrapping_add(index as u8 * 5))).collect();
    let bytes = incoming.iter().flat_map(|message| [message, &b"\n"[..]].concat()).collect();
    let written = Arc::new(Mutex::new(Vec::new()));
    let reader = Reader { bytes, at: 0, dice: Dice(u32::from(reads) + 1) };
    let writer = Writer { written: Arc::clone(&written), dice: Dice(u32::from(writes) + 1) };
    let config = LinkConfig::default().write_high_water(usize::from(mark) * 64 + 1).close(None);
    let mut link = Link::with_config(Newline::new(), reader, writer, config);

    let (mut received, mut accepted) = (Vec::<Vec<u8>>::new(), Vec::<u8>::new());
    let accept = |accepted: &mut Vec<u8>, payload: &[u8]| {
        accepted.extend_from_slice(payload);
        accepted.push(b'\n');
    };
    let mut checked = 0;
    for (index, pair) in operations.chunks_exact(2).take(64).enumerate() {
        let (operation, argument) = (pair[0] % 13, (pair[0] / 13).wrapping_add(pair[1]));
        let polls = pair[1] % 8;
        let payload = message(index, argument);
        match operation {
            0 => {
                if let Some(Ok(frame)) = polled(link.receive(), polls).await {
                    received.push(frame.to_vec());
                }
            }
            1 => {
                if let Some(Ok(payload)) = polled(link.receive_lent(), polls).await {
                    payload.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
                    received.push(payload.iter().map(|byte| byte.wrapping_sub(1)).collect());
                }
            }
            2 => {
                let mut frames = Vec::new();
                let _ = polled(link.receive_batch(&mut frames, usize::from(argument)), polls).await;
                received.extend(frames.iter().map(|frame| frame.to_vec()));
            }
            3 => {
                while let Ok(Some(payload)) = link.receive_ready() {
                    received.push(payload.to_vec());
                }
            }
            4 | 5 => {
                if let Some(Ok(())) = polled(link.send(&payload), polls).await {
                    accept(&mut accepted, &payload);
                }
            }
            6 => {
                if let Some(Ok(())) = polled(link.feed(&payload), polls).await {
                    accept(&mut accepted, &payload);
                }
            }
            7 => {
                if let Some(Ok(())) = polled(link.send_frame(Frame::from(payload.clone())), polls).await {
                    accept(&mut accepted, &payload);
                }
            }
            8 => {
                let (one, two) = payload.split_at(payload.len() / 2);
                let parts = [IoSlice::new(one), IoSlice::new(two)];
                if let Some(Ok(())) = polled(link.send_vectored(&parts), polls).await {
                    accept(&mut accepted, &payload);
                }
            }
            9 => {
                if let Some(Ok(permit)) = polled(link.reserve(payload.len()), polls).await {
                    permit.send(&payload).unwrap();
                    accept(&mut accepted, &payload);
                }
            }
            10 => {
                if let Some(flushed) = polled(link.flush(), polls).await {
                    flushed.unwrap();
                    assert_eq!(written.lock().unwrap().len(), accepted.len(), "after a flush");
                }
            }
            11 => {
                let before = link.counters().frames_sent;
                if let Some(flushed) = polled(link.send_flushed(&payload), polls).await {
                    flushed.unwrap();
                    accept(&mut accepted, &payload);
                    assert_eq!(written.lock().unwrap().len(), accepted.len(), "sent and flushed");
                } else if link.counters().frames_sent > before {
                    accept(&mut accepted, &payload);
                }
            }
            _ => {
                assert!(matches!(
                    polled(link.send(b"a\nb"), polls).await,
                    None | Some(Err(Error::Rejected(_)))
                ));
            }
        }
        for (index, message) in received.iter().enumerate().skip(checked) {
            assert!(*message == incoming[index], "received out of order");
        }
        checked = received.len();
        assert!(written.lock().unwrap().len() <= accepted.len(), "written and never accepted");
    }
    // The rest comes and leaves by itself.
    loop {
        match link.receive().await {
            Ok(frame) => received.push(frame.to_vec()),
            Err(Error::Ended(End::Eof)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(received == incoming, "not all was received");
    if operations.len() % 2 == 0 {
        link.close().await.unwrap();
    } else {
        drop(link);
        for _ in 0..100_000 {
            if written.lock().unwrap().len() == accepted.len() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    assert!(*written.lock().unwrap() == accepted, "not all that was accepted has left, in order");

    // The same bytes as one stream of another framing: never a panic, whatever they are.
    let reader = Reader { bytes: input.to_vec(), at: 0, dice: Dice(7) };
    let mut link = Link::pair(LengthPrefix::new().max_size(100), reader, tokio::io::sink());
    while link.receive_lent().await.map_or_else(|error| !error.is_fatal(), |_| true) {}
}

fuzz_target!(|input: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(drive(input));
});
