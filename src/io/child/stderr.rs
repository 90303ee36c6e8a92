//! The child's standard error: read as fast as it comes, the last bytes kept, lines handed on.
//!
//! Used by child only. Holds at most the ring, one line and one read.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, TryLockError},
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::AbortHandle,
};

use super::LineLog;

/// Bytes of a line after which it is handed on in pieces.
const MAX_LINE: usize = 8 * 1024;

/// Bytes of one read.
const READ: usize = 8 * 1024;

/// Reads in a row before others get a turn.
const READS: u32 = 16;

/// Where the bytes go.
pub(super) struct Sink {
    ring: usize,
    lines: Option<Lines>,
}

struct Lines {
    log: LineLog,
    unfinished: Vec<u8>,
}

impl Sink {
    pub(super) fn ring(bytes: usize) -> Self {
        Self { ring: bytes, lines: None }
    }

    pub(super) fn log(log: LineLog, ring: usize) -> Self {
        Self { ring, lines: Some(Lines { log, unfinished: Vec::new() }) }
    }

    /// Hands lines on. A function that panics is not called again.
    fn hand_on(&mut self, bytes: &[u8], ended: bool) {
        if let Some(lines) = &mut self.lines
            && catch_unwind(AssertUnwindSafe(|| lines.take(bytes, ended))).is_err()
        {
            self.lines = None;
        }
    }
}

impl Lines {
    fn take(&mut self, bytes: &[u8], ended: bool) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(MAX_LINE) {
                let room = MAX_LINE.saturating_sub(self.unfinished.len());
                let (now, later) = part.split_at(part.len().min(room));
                self.unfinished.extend_from_slice(now);
                if self.unfinished.ends_with(b"\n") || self.unfinished.len() >= MAX_LINE {
                    self.finish();
                }
                self.unfinished.extend_from_slice(later);
                if self.unfinished.ends_with(b"\n") {
                    self.finish();
                }
            }
        }
        if ended && !self.unfinished.is_empty() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        let line = self.unfinished.strip_suffix(b"\n").unwrap_or(&self.unfinished);
        (self.log)(line.strip_suffix(b"\r").unwrap_or(line));
        self.unfinished.clear();
    }
}

struct Errors {
    fd: AsyncFd<OwnedFd>,
    sink: Mutex<Sink>,
    /// Apart from the sink, so that a log function may ask for what was written last.
    ring: Mutex<VecDeque<u8>>,
}

enum Pumped {
    /// More may be there.
    Some,
    /// Nothing more at the moment.
    All,
    /// Nothing more ever.
    Ended,
}

impl Errors {
    /// Takes what is there, up to a bound. Never waits.
    fn pump(&self) -> Pumped {
        let mut sink = match self.sink.try_lock() {
            Ok(sink) => sink,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Somebody is at it.
            Err(TryLockError::WouldBlock) => return Pumped::Some,
        };
        let mut buffer = [0; READ];
        for _ in 0..READS {
            match rustix::io::retry_on_intr(|| rustix::io::read(self.fd.get_ref(), &mut buffer)) {
                Err(Errno::AGAIN) => return Pumped::All,
                Ok(0) | Err(_) => {
                    sink.hand_on(&[], true);
                    return Pumped::Ended;
                }
                Ok(count) => {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    self.keep(bytes, sink.ring);
                    sink.hand_on(bytes, false);
                }
            }
        }
        Pumped::Some
    }

    fn keep(&self, bytes: &[u8], most: usize) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = bytes.get(bytes.len().saturating_sub(most)..).unwrap_or_default();
        let held = ring.len();
        ring.drain(..(held + bytes.len()).saturating_sub(most).min(held));
        ring.extend(bytes);
    }
}

/// The task that drains, and what it has kept.
pub(super) struct Drain {
    errors: Arc<Errors>,
    task: AbortHandle,
}

impl Drain {
    pub(super) fn start(fd: OwnedFd, sink: Sink) -> io::Result<Self> {
        // This end of the pipe has a description of its own: the child's end stays blocking.
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        let fd = crate::io::watch::watch(fd, Interest::READABLE)?;
        let errors = Arc::new(Errors { fd, sink: Mutex::new(sink), ring: Mutex::default() });
        let theirs = Arc::clone(&errors);
        let task = tokio::spawn(async move {
            loop {
                let Ok(mut ready) = theirs.fd.readable().await else { return };
                match theirs.pump() {
                    Pumped::Some => tokio::task::yield_now().await,
                    Pumped::All => ready.clear_ready(),
                    Pumped::Ended => return,
                }
            }
        });
        Ok(Self { errors, task: task.abort_handle() })
    }

    /// What was written last, up to now.
    pub(super) fn last(&self) -> Vec<u8> {
        // The task may not have had its turn since the child wrote its last words.
        // Bounded: one round holds more than the pipe does.
        self.errors.pump();
        self.errors.ring.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Takes what is there and reads no more.
    pub(super) fn stop(&self) {
        self.errors.pump();
        self.task.abort();
    }
}
