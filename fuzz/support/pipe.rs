//! A reader and a writer that move little or wait, as the input says, and futures that are given up. Use it as
//! `#[path = "../support/pipe.rs"] mod pipe;`.

#[path = "dice.rs"]
mod dice;

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use dice::Dice;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Up to one of these, at least 1.
fn size(dice: &mut Dice, most: [usize; 3]) -> usize {
    let most = most[dice.roll(3)];
    dice.roll(most) + 1
}

pub struct Reader {
    bytes: Vec<u8>,
    at: usize,
    dice: Dice,
}

impl Reader {
    /// Of `bytes`; `seed` says how they come.
    pub fn new(bytes: Vec<u8>, seed: u8) -> Self {
        Self { bytes, at: 0, dice: Dice(u32::from(seed) + 1) }
    }
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
        let most = size(&mut self.dice, [3, 300, 50_000]);
        let count = most.min(buffer.remaining()).min(self.bytes.len() - self.at);
        buffer.put_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

pub struct Writer {
    written: Arc<Mutex<Vec<u8>>>,
    dice: Dice,
}

impl Writer {
    /// To `written`; `seed` says how it goes.
    pub fn new(written: &Arc<Mutex<Vec<u8>>>, seed: u8) -> Self {
        Self { written: Arc::clone(written), dice: Dice(u32::from(seed) + 1) }
    }

    fn take(&mut self, cx: &Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.dice.roll(3) == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut most = size(&mut self.dice, [3, 5000, 200_000]);
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
pub async fn polled<T>(future: impl Future<Output = T>, polls: u8) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..=polls {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}
