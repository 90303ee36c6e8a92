//! A thread that blocks in place of a task, with one buffer handed to and fro.
//!
//! Used by stdio for what cannot be watched. The thread is detached: a process that exits does not wait for it. Holds
//! at most one buffer of bytes that the other side has not taken.

use std::{
    io::{self, IoSlice, Read, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    thread,
};

use tokio::io::ReadBuf;

use crate::limits::MAX_READ_WINDOW;

/// Stack of the threads, in bytes: they only call read or write.
const STACK: usize = 64 * 1024;

#[derive(Default)]
struct Shared {
    slot: Mutex<Slot>,
    turn: Condvar,
}

#[derive(Default)]
struct Slot {
    bytes: Vec<u8>,
    /// Bytes of them that are taken already.
    taken: usize,
    /// The thread has `bytes` at the moment.
    lent: bool,
    /// Nothing comes any more, or nothing can be written any more.
    ended: bool,
    /// Told once.
    error: Option<io::Error>,
    /// The task's side was dropped.
    closed: bool,
    waker: Option<Waker>,
}

impl Slot {
    fn is_empty(&self) -> bool {
        !self.lent && self.taken == self.bytes.len()
    }

    fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's wait, until `go` or the other side is gone.
    fn wait_until(&self, go: impl Fn(&Slot) -> bool) -> MutexGuard<'_, Slot> {
        let mut slot = self.lock();
        while !slot.closed && !go(&slot) {
            slot = self.turn.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
        slot
    }

    fn close(&self) {
        let mut slot = self.lock();
        slot.closed = true;
        slot.waker = None;
        self.turn.notify_all();
    }

    /// Puts the thread's buffer back and wakes the task.
    fn give_back(&self, change: impl FnOnce(&mut Slot)) {
        let waker = {
            let mut slot = self.lock();
            slot.lent = false;
            change(&mut slot);
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn start(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).stack_size(STACK).spawn(body).map(drop)
}

/// The task's side of a thread that reads.
pub(super) struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    pub(super) fn spawn(mut source: impl Read + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        start("framewire-stdin", move || {
            loop {
                let mut bytes = {
                    let mut slot = theirs.wait_until(Slot::is_empty);
                    if slot.closed {
                        return;
                    }
                    slot.lent = true;
                    slot.taken = 0;
                    std::mem::take(&mut slot.bytes)
                };
                bytes.resize(MAX_READ_WINDOW, 0);
                let outcome = loop {
                    match source.read(&mut bytes) {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        done => break done,
                    }
                };
                bytes.truncate(*outcome.as_ref().unwrap_or(&0));
                let over = bytes.is_empty();
                theirs.give_back(|slot| {
                    slot.bytes = bytes;
                    slot.ended = over;
                    slot.error = outcome.err();
                });
                if over {
                    return;
                }
            }
        })?;
        Ok(Self { shared })
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut slot = self.shared.lock();
        if slot.is_empty() {
            if let Some(error) = slot.error.take() {
                return Poll::Ready(Err(error));
            }
            if slot.ended {
                return Poll::Ready(Ok(()));
            }
            slot.wait(cx);
            return Poll::Pending;
        }
        if slot.lent {
            slot.wait(cx);
            return Poll::Pending;
        }
        let taken = slot.taken;
        let unread = slot.bytes.get(taken..).unwrap_or_default();
        let count = unread.len().min(buffer.remaining());
        buffer.put_slice(unread.get(..count).unwrap_or_default());
        slot.taken += count;
        if slot.is_empty() {
            self.shared.turn.notify_one();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// The task's side of a thread that writes. What was written is on its way after a flush; dropped before that, the
/// thread still writes it unless the process exits.
pub(super) struct Writer {
    shared: Arc<Shared>,
}

impl Writer {
    pub(super) fn spawn(mut target: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        start("framewire-stdout", move || {
            loop {
                let mut bytes = {
                    let mut slot = theirs.wait_until(|slot| !slot.is_empty());
                    if slot.is_empty() {
                        return;
                    }
                    slot.lent = true;
                    std::mem::take(&mut slot.bytes)
                };
                let outcome = target.write_all(&bytes).and_then(|()| target.flush());
                bytes.clear();
                let over = outcome.is_err();
                theirs.give_back(|slot| {
                    slot.bytes = bytes;
                    slot.ended = over;
                    slot.error = outcome.err();
                });
                if over {
                    return;
                }
            }
        })?;
        Ok(Self { shared })
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut slot = self.shared.lock();
        if let Some(error) = slot.error.take() {
            return Poll::Ready(Err(error));
        }
        if slot.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if !slot.is_empty() {
            slot.wait(cx);
            return Poll::Pending;
        }
        for part in parts {
            let room = MAX_READ_WINDOW - slot.bytes.len();
            slot.bytes.extend_from_slice(part.get(..room).unwrap_or(part));
        }
        self.shared.turn.notify_one();
        Poll::Ready(Ok(slot.bytes.len()))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut slot = self.shared.lock();
        if let Some(error) = slot.error.take() {
            return Poll::Ready(Err(error));
        }
        if slot.is_empty() || slot.ended {
            return Poll::Ready(Ok(()));
        }
        slot.wait(cx);
        Poll::Pending
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.close();
    }
}
