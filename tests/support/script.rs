//! A reader and a writer that do what a script says, under any executor.
//! Use it as `#[path = "support/script.rs"] mod script;`.
#![allow(dead_code, unreachable_pub)]

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What one call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Moves this many bytes at the most.
    Take(usize),
    /// Is not ready, and wakes before it returns.
    Pending,
    /// Is not ready, and wakes from another thread a little later.
    Later,
    /// Is not ready and never will be.
    Never,
    /// Fails.
    Fail(ErrorKind),
    /// A reader ends; a writer takes nothing.
    End,
    /// Panics.
    Panic,
}

fn wake_later(waker: &Waker) {
    let waker = waker.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_micros(200));
        waker.wake();
    });
}

/// The outcome of `act` when it moves nothing.
fn refuse<T>(act: Act, cx: &Context<'_>, end: io::Result<T>) -> Poll<io::Result<T>> {
    match act {
        Act::Pending => cx.waker().wake_by_ref(),
        Act::Later => wake_later(cx.waker()),
        Act::Never | Act::Take(_) => {}
        Act::Fail(kind) => return Poll::Ready(Err(kind.into())),
        Act::End => return Poll::Ready(end),
        Act::Panic => panic!("the script says so"),
    }
    Poll::Pending
}

/// Brings `data` as the script says, then goes on with the last act for ever.
#[derive(Debug)]
pub struct ScriptedReader {
    data: Vec<u8>,
    at: usize,
    acts: VecDeque<Act>,
    /// What happens once all of `data` is read.
    pub after: Act,
}

impl ScriptedReader {
    /// Takes `acts` in turn, over and over, and ends after `data`.
    pub fn new(data: impl Into<Vec<u8>>, acts: impl IntoIterator<Item = Act>) -> Self {
        Self { data: data.into(), at: 0, acts: acts.into_iter().collect(), after: Act::End }
    }

    pub fn after(mut self, after: Act) -> Self {
        self.after = after;
        self
    }

    /// Bytes not read yet.
    pub fn rest(&self) -> &[u8] {
        &self.data[self.at..]
    }
}

fn next(acts: &mut VecDeque<Act>) -> Act {
    let act = acts.pop_front().unwrap_or(Act::Take(usize::MAX));
    if !acts.is_empty() || act != Act::Take(usize::MAX) {
        acts.push_back(act);
    }
    act
}

impl AsyncRead for ScriptedReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.at == this.data.len() {
            return refuse(this.after, cx, Ok(()));
        }
        match next(&mut this.acts) {
            Act::Take(most) => {
                let count = most.max(1).min(this.data.len() - this.at).min(buffer.remaining());
                buffer.put_slice(&this.data[this.at..this.at + count]);
                this.at += count;
                Poll::Ready(Ok(()))
            }
            act => refuse(act, cx, Ok(())),
        }
    }
}

/// What a [`ScriptedWriter`] was given.
#[derive(Debug, Default)]
pub struct Written {
    pub bytes: Vec<u8>,
    /// Sizes of the writes.
    pub writes: Vec<usize>,
    /// Bytes written when it was last flushed.
    pub flushed: usize,
    pub shut_down: bool,
    pub dropped: bool,
}

/// Takes bytes as the script says, over and over.
#[derive(Debug)]
pub struct ScriptedWriter {
    written: Arc<Mutex<Written>>,
    acts: VecDeque<Act>,
    /// What happens once so many bytes were taken.
    limit: Option<(usize, Act)>,
    vectored: bool,
}

/// What the test keeps of a writer.
#[derive(Debug, Clone)]
pub struct Log(Arc<Mutex<Written>>);

impl Log {
    pub fn get(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.get().bytes.clone()
    }
}

impl ScriptedWriter {
    pub fn new(acts: impl IntoIterator<Item = Act>) -> (Self, Log) {
        let written = Arc::new(Mutex::new(Written::default()));
        let log = Log(Arc::clone(&written));
        (Self { written, acts: acts.into_iter().collect(), limit: None, vectored: true }, log)
    }

    /// After `bytes` bytes, does `act` for ever.
    pub fn limit(mut self, bytes: usize, act: Act) -> Self {
        self.limit = Some((bytes, act));
        self
    }

    /// Takes only the first slice of a vectored write.
    pub fn one_slice(mut self) -> Self {
        self.vectored = false;
        self
    }
}

impl AsyncWrite for ScriptedWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut written = this.written.lock().unwrap_or_else(PoisonError::into_inner);
        let mut room = usize::MAX;
        if let Some((limit, act)) = this.limit {
            room = limit.saturating_sub(written.bytes.len());
            if room == 0 {
                drop(written);
                return refuse(act, cx, Ok(0));
            }
        }
        match next(&mut this.acts) {
            Act::Take(most) => room = room.min(most.max(1)),
            act => {
                drop(written);
                return refuse(act, cx, Ok(0));
            }
        }
        let mut count = 0;
        for slice in slices.iter().take(if this.vectored { usize::MAX } else { 1 }) {
            let take = slice.len().min(room - count);
            written.bytes.extend_from_slice(&slice[..take]);
            count += take;
        }
        written.writes.push(count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.flushed = written.bytes.len();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).shut_down = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for ScriptedWriter {
    fn drop(&mut self) {
        if let Ok(mut written) = self.written.lock() {
            written.dropped = true;
        }
    }
}
