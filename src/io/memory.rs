//! A bounded pipe of bytes in memory: the stream for tests, for two tasks of one process, and (with an end that
//! blocks) the hand-over to the threads that serve descriptors which cannot be polled.
//!
//! Uses std and tokio's I/O traits; needs no runtime.
//!
//! An end that is dropped or shut down ends the other one: the reader gets what is still in the pipe and then the end
//! of the stream, the writer a broken pipe. Whoever waits is woken.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A pipe that holds up to `capacity` bytes (at least one).
#[must_use]
pub fn pipe(capacity: usize) -> (MemoryReader, MemoryWriter) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State { capacity: capacity.max(1), ..State::default() }),
        changed: Condvar::new(),
    });
    (MemoryReader { shared: Arc::clone(&shared) }, MemoryWriter { shared })
}

/// Two connected ends, each a reader and a writer; each direction holds up to `capacity` bytes.
#[must_use]
pub fn pair(capacity: usize) -> ((MemoryReader, MemoryWriter), (MemoryReader, MemoryWriter)) {
    let (here, to_here) = pipe(capacity);
    let (there, to_there) = pipe(capacity);
    ((here, to_there), (there, to_here))
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// For ends that block: any change of the state.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    capacity: usize,
    /// No more bytes will come in.
    writer_gone: bool,
    /// No more bytes will be taken out.
    reader_gone: bool,
    /// Bytes were taken out by a blocking reader that is not done with them.
    in_flight: bool,
    /// Why one end went, for the other to report once.
    failure: Option<io::Error>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Shared {
    /// A holder that panicked did so between whole steps, so the state is sound.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes outside the lock, so that the woken one need not wait for it.
    fn publish(&self, mut state: MutexGuard<'_, State>, whom: fn(&mut State) -> &mut Option<Waker>) {
        let waker = whom(&mut state).take();
        drop(state);
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    #[cfg(feature = "net")]
    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn room(&self) -> usize {
        self.capacity - self.bytes.len()
    }

    fn broken(&mut self) -> io::Error {
        self.failure.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

/// Keeps the newest waker without cloning the same one again.
fn register(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(known) if known.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}

/// The receiving end of a pipe.
#[derive(Debug)]
pub struct MemoryReader {
    shared: Arc<Shared>,
}

impl AsyncRead for MemoryReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.shared.lock();
        let mut taken = 0;
        let (front, back) = state.bytes.as_slices();
        for part in [front, back] {
            let count = part.len().min(buffer.remaining());
            buffer.put_slice(part.get(..count).unwrap_or_default());
            taken += count;
        }
        if taken > 0 {
            drop(state.bytes.drain(..taken));
            self.shared.publish(state, |state| &mut state.writer);
            return Poll::Ready(Ok(()));
        }
        if let Some(failure) = state.failure.take() {
            return Poll::Ready(Err(failure));
        }
        if state.writer_gone {
            return Poll::Ready(Ok(()));
        }
        register(&mut state.reader, cx);
        Poll::Pending
    }
}

#[cfg(feature = "net")]
impl MemoryReader {
    /// Blocks until there are bytes and swaps them into `bytes` (cleared first); `false` at the end. The writer's flush
    /// waits until the next call.
    pub(super) fn take_blocking(&self, bytes: &mut VecDeque<u8>) -> bool {
        bytes.clear();
        let mut state = self.shared.lock();
        state.in_flight = false;
        if state.bytes.is_empty() {
            // What was taken last is done: a flush may end.
            self.shared.publish(state, |state| &mut state.writer);
            state = self.shared.lock();
        }
        loop {
            if !state.bytes.is_empty() {
                std::mem::swap(&mut state.bytes, bytes);
                state.in_flight = true;
                self.shared.publish(state, |state| &mut state.writer);
                return true;
            }
            if state.writer_gone {
                return false;
            }
            state = self.shared.wait(state);
        }
    }

    /// Ends the pipe with an error that the writer will see.
    pub(super) fn fail(&self, error: io::Error) {
        self.shared.lock().failure = Some(error);
    }
}

impl Drop for MemoryReader {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.reader_gone = true;
        state.in_flight = false;
        state.bytes = VecDeque::new();
        self.shared.publish(state, |state| &mut state.writer);
    }
}

/// The sending end of a pipe.
#[derive(Debug)]
pub struct MemoryWriter {
    shared: Arc<Shared>,
}

impl MemoryWriter {
    /// Waits until a blocking reader has dealt with everything.
    #[cfg(feature = "net")]
    pub(super) fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        if let Some(failure) = state.failure.take() {
            return Poll::Ready(Err(failure));
        }
        if state.reader_gone || (state.bytes.is_empty() && !state.in_flight) {
            return Poll::Ready(Ok(()));
        }
        register(&mut state.writer, cx);
        Poll::Pending
    }

    /// Ends the pipe and waits until a blocking reader has dealt with everything and let go of its descriptor.
    #[cfg(feature = "net")]
    pub(super) fn poll_finished(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        let mut state = self.shared.lock();
        if let Some(failure) = state.failure.take() {
            return Poll::Ready(Err(failure));
        }
        if state.reader_gone {
            return Poll::Ready(Ok(()));
        }
        register(&mut state.writer, cx);
        Poll::Pending
    }

    /// Blocks until all of `bytes` is in the pipe; `false` when the reader is gone.
    #[cfg(feature = "net")]
    pub(super) fn put_blocking(&self, mut bytes: &[u8]) -> bool {
        let mut state = self.shared.lock();
        loop {
            if state.reader_gone {
                return false;
            }
            let count = bytes.len().min(state.room());
            if count > 0 {
                let (now, later) = bytes.split_at(count);
                state.bytes.extend(now);
                bytes = later;
                self.shared.publish(state, |state| &mut state.reader);
                if bytes.is_empty() {
                    return true;
                }
                state = self.shared.lock();
            } else {
                state = self.shared.wait(state);
            }
        }
    }

    /// Ends the pipe with an error that the reader will see.
    #[cfg(feature = "net")]
    pub(super) fn fail(&self, error: io::Error) {
        self.shared.lock().failure = Some(error);
    }

    fn end(&self) {
        let mut state = self.shared.lock();
        state.writer_gone = true;
        self.shared.publish(state, |state| &mut state.reader);
    }
}

impl AsyncWrite for MemoryWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.shared.lock();
        if state.reader_gone || state.writer_gone {
            return Poll::Ready(Err(state.broken()));
        }
        let mut taken = 0;
        for part in parts {
            let count = part.len().min(state.room());
            state.bytes.extend(part.get(..count).unwrap_or_default());
            taken += count;
        }
        if taken > 0 {
            self.shared.publish(state, |state| &mut state.reader);
            return Poll::Ready(Ok(taken));
        }
        if parts.iter().all(|part| part.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        register(&mut state.writer, cx);
        Poll::Pending
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for MemoryWriter {
    fn drop(&mut self) {
        self.end();
    }
}
