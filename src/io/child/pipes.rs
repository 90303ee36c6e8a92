//! The pipes to a child, within reach of both their half and the shutdown.
//!
//! Used by child only. No lock is held across a wait.

use std::{
    io,
    pin::Pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use atomic_waker::AtomicWaker;
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::unix::pipe,
};

/// Most chunks thrown away at a time, so that a flood does not hold a task.
const CHUNKS: usize = 32;

/// The child's standard input, until it is closed.
pub(super) struct Input {
    pipe: Mutex<Option<pipe::Sender>>,
    /// The write that waits: the pipe's own wake-up goes with the pipe.
    waiting: AtomicWaker,
}

impl Input {
    pub(super) fn new(pipe: pipe::Sender) -> Self {
        Self { pipe: Mutex::new(Some(pipe)), waiting: AtomicWaker::new() }
    }

    /// Writes, as long as it is open.
    pub(super) fn poll_open(
        &self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut pipe::Sender>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let mut pipe = self.lock();
        let Some(open) = &mut *pipe else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let written = write(Pin::new(open), cx);
        if written.is_pending() {
            // Under the lock, so that a close comes before the write or sees the waker.
            self.waiting.register(cx.waker());
        }
        written
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_none()
    }

    fn lock(&self) -> MutexGuard<'_, Option<pipe::Sender>> {
        self.pipe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn close(&self) {
        drop(self.lock().take());
        self.waiting.wake();
    }
}

/// The child's standard output.
pub(super) struct Output {
    pipe: Mutex<pipe::Receiver>,
    /// Reads made by the half, to see whether anybody reads.
    reads: AtomicU64,
}

impl Output {
    pub(super) fn new(pipe: pipe::Receiver) -> Self {
        Self { pipe: Mutex::new(pipe), reads: AtomicU64::new(0) }
    }

    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *pipe).poll_read(cx, buffer)
    }

    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Throws away what is there. Leaves the waker of a read that waits where it is.
    pub(super) fn discard(&self) {
        let pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chunk = [0; 8 * 1024];
        for _ in 0..CHUNKS {
            if !matches!(pipe.try_read(&mut chunk), Ok(1..)) {
                break;
            }
        }
    }
}
