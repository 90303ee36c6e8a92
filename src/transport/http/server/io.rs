//! [`Halves`]: a reader and a writer as one stream, with the two deadlines that hyper has not: for
//! the first bytes of a connection, and for a peer that takes nothing.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// Bytes after which a connection has begun: what tells HTTP/2 from HTTP/1.1. No request is shorter.
const PREFACE: usize = 24;

/// Bytes read at once into memory of this file's own.
const PIECE: usize = 16 * 1024;

/// How long what a peer still sends is read away after the end: closing with unread bytes would reset the connection, and
/// take the last answer with it.
const PARTING: Duration = Duration::from_millis(500);

/// A reader and a writer as one stream.
pub(super) struct Halves<R, W> {
    reader: R,
    writer: W,
    write_timeout: Duration,
    /// Runs until the first bytes have come.
    beginning: Option<Pin<Box<Sleep>>>,
    begun: usize,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// The writer is shut down; what is left to read is thrown away until then.
    parting: Option<Pin<Box<Sleep>>>,
}

impl<R, W> Halves<R, W> {
    pub(super) fn new(reader: R, writer: W, read_timeout: Duration, write_timeout: Duration) -> Self {
        Self {
            reader,
            writer,
            write_timeout,
            beginning: Some(Box::pin(sleep(read_timeout))),
            begun: 0,
            stalled: None,
            parting: None,
        }
    }

    /// The halves again.
    pub(super) fn into_inner(self) -> (R, W) {
        (self.reader, self.writer)
    }

    /// Watches over a write: one that waits for longer than the deadline fails.
    fn in_time<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.stalled.is_some() {
                self.stalled = None;
            }
            return written;
        }
        let after = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(after)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
    }
}

impl<R: AsyncRead + Unpin, W: Unpin> AsyncRead for Halves<R, W> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.reader).poll_read(cx, buffer);
        if let Some(beginning) = &mut this.beginning {
            if read.is_pending() && beginning.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nothing came")));
            }
            this.begun += buffer.filled().len() - before;
            if this.begun >= PREFACE {
                this.beginning = None;
            }
        }
        read
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> AsyncWrite for Halves<R, W> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.writer).poll_write(cx, bytes);
        this.in_time(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.writer).poll_write_vectored(cx, parts);
        this.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.writer.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.writer).poll_flush(cx);
        this.in_time(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.parting.is_none() {
            let shut = Pin::new(&mut this.writer).poll_shutdown(cx);
            ready!(this.in_time(cx, shut))?;
            this.parting = Some(Box::pin(sleep(PARTING)));
        }
        let mut piece = [0; PIECE];
        // Ends by the clock, whatever the peer sends.
        for _ in 0..64 {
            if let Some(parting) = &mut this.parting
                && (parting.deadline() <= Instant::now() || parting.as_mut().poll(cx).is_ready())
            {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut piece);
            match ready!(Pin::new(&mut this.reader).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                // The end, or a connection that is gone anyhow.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
