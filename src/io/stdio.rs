//! The standard input and output of this process as plain byte streams, watched for readiness instead of blocked on.
//!
//! A descriptor inherited from the parent shares its open file description, and with it the `O_NONBLOCK` flag, with
//! the parent and its other children. Setting the flag there breaks them, also long after this process is gone, so it
//! is never set:
//!
//! | descriptor | way |
//! |---|---|
//! | pipe, FIFO, terminal (Linux) | opened again through `/proc/self/fd`, non-blocking: a description of our own |
//! | socket | cannot be opened again; each call carries `MSG_DONTWAIT` instead |
//! | `/dev/null`, `/dev/zero` and their like | read and written directly: they never block |
//! | regular file, what the poller refuses, what cannot be opened again | a thread of its own, a bounded pipe in memory |
//!
//! The thread is never one of tokio's blocking pool, whose shutdown waits for a read that nobody may ever end: the
//! process exits while it blocks. On macOS and the BSDs only sockets are watched, on Windows nothing is: the rest runs
//! on the thread. Linux is what is tested.
//!
//! Writing to a pipe without reader is the error `BrokenPipe`, since Rust programs ignore `SIGPIPE`.
//!
//! Uses the pipe in memory, tokio's `AsyncFd`, rustix, and a thread where it must.

#[cfg(unix)]
mod descriptor;
mod threaded;

#[cfg(unix)]
use std::os::fd::{AsFd, OwnedFd};
use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[cfg(unix)]
use self::descriptor::{Direction, Source};
use super::memory::{MemoryReader, MemoryWriter};

/// Whether [`open`] has succeeded before.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The error inside the `io::Error` of a second [`open`]: two readers would each get a part of the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("standard input and output are in use by this process already")]
pub struct AlreadyTaken;

/// Takes the standard input and output of this process, once.
///
/// On Unix descriptor 0 is `/dev/null` from then on and descriptor 1 leads to standard error: neither a stray
/// `println!` nor a child process can get into the stream, and the peer sees its end with that of [`Stdout`].
/// Elsewhere nothing may print to standard output afterwards.
///
/// # Errors
/// `ResourceBusy` around [`AlreadyTaken`] the second time, otherwise what the system says, as with a closed
/// descriptor.
///
/// # Panics
/// When called outside a tokio runtime with I/O enabled.
pub fn open() -> io::Result<(Stdin, Stdout)> {
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, AlreadyTaken));
    }
    let release = Release;
    let pair = take()?;
    std::mem::forget(release);
    Ok(pair)
}

/// Gives the mark back when taking fails or panics.
struct Release;

impl Drop for Release {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Release);
    }
}

#[cfg(unix)]
fn take() -> io::Result<(Stdin, Stdout)> {
    use std::io::Write;

    use rustix::stdio as standard;

    // What was printed before belongs in front of the first message.
    io::stdout().flush()?;
    let input = Stdin::from_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    let output = Stdout::from_fd(io::stdout().as_fd().try_clone_to_owned()?)?;
    standard::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    standard::dup2_stdout(standard::stderr())?;
    Ok((input, output))
}

#[cfg(not(unix))]
fn take() -> io::Result<(Stdin, Stdout)> {
    let input = threaded::reader(io::stdin())?;
    let output = threaded::writer(io::stdout())?;
    Ok((Stdin { means: Input::Thread(input) }, Stdout { means: Some(Output::Thread(output)) }))
}

/// The standard input of this process, or any other descriptor treated the same way.
pub struct Stdin {
    means: Input,
}

enum Input {
    #[cfg(unix)]
    Polled(descriptor::Polled),
    #[cfg(unix)]
    Direct(OwnedFd),
    Thread(MemoryReader),
}

/// The standard output of this process, or any other descriptor treated the same way.
///
/// Shutting it down, or dropping it, closes it, so that the peer sees the end as soon as nobody else holds it.
pub struct Stdout {
    /// Taken away by a shutdown.
    means: Option<Output>,
}

enum Output {
    #[cfg(unix)]
    Polled(descriptor::Polled),
    #[cfg(unix)]
    Direct(OwnedFd),
    Thread(MemoryWriter),
}

impl Stdin {
    /// Reads from `fd`, whatever kind it is. Its flags are left as they are.
    ///
    /// # Errors
    /// When the system refuses to tell about or to watch it, or to start a thread.
    ///
    /// # Panics
    /// When called outside a tokio runtime with I/O enabled.
    #[cfg(unix)]
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let means = match descriptor::classify(fd, Direction::Read)? {
            Source::Polled(polled) => Input::Polled(polled),
            Source::Direct(fd) => Input::Direct(fd),
            Source::Blocking(fd) => Input::Thread(threaded::reader(threaded::Patient::new(fd))?),
        };
        Ok(Self { means })
    }

    /// Whether it is read by a thread, since the system cannot watch it.
    #[must_use]
    pub fn is_threaded(&self) -> bool {
        matches!(self.means, Input::Thread(_))
    }
}

impl Stdout {
    /// Writes to `fd`, whatever kind it is. Its flags are left as they are.
    ///
    /// # Errors
    /// When the system refuses to tell about or to watch it, or to start a thread.
    ///
    /// # Panics
    /// When called outside a tokio runtime with I/O enabled.
    #[cfg(unix)]
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let means = match descriptor::classify(fd, Direction::Write)? {
            Source::Polled(polled) => Output::Polled(polled),
            Source::Direct(fd) => Output::Direct(fd),
            Source::Blocking(fd) => Output::Thread(threaded::writer(threaded::Patient::new(fd))?),
        };
        Ok(Self { means: Some(means) })
    }

    /// Whether it is written by a thread, since the system cannot watch it.
    #[must_use]
    pub fn is_threaded(&self) -> bool {
        matches!(self.means, Some(Output::Thread(_)))
    }
}

impl fmt::Debug for Stdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdin").field("threaded", &self.is_threaded()).finish()
    }
}

impl fmt::Debug for Stdout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closed = self.means.is_none();
        f.debug_struct("Stdout").field("threaded", &self.is_threaded()).field("closed", &closed).finish()
    }
}

impl AsyncRead for Stdin {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.means {
            #[cfg(unix)]
            Input::Polled(polled) => polled.poll_read(cx, buffer),
            #[cfg(unix)]
            Input::Direct(fd) => {
                let count =
                    rustix::io::retry_on_intr(|| rustix::io::read(&*fd, buffer.initialize_unfilled()))?;
                buffer.advance(count);
                Poll::Ready(Ok(()))
            }
            Input::Thread(reader) => Pin::new(reader).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stdout {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.means {
            #[cfg(unix)]
            Some(Output::Polled(polled)) => polled.poll_write(cx, parts),
            #[cfg(unix)]
            Some(Output::Direct(fd)) => {
                Poll::Ready(rustix::io::retry_on_intr(|| rustix::io::writev(&*fd, parts)).map_err(Into::into))
            }
            Some(Output::Thread(writer)) => Pin::new(writer).poll_write_vectored(cx, parts),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.means {
            Some(Output::Thread(writer)) => writer.poll_drained(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let finished = match &mut self.means {
            Some(Output::Thread(writer)) => std::task::ready!(writer.poll_finished(cx)),
            _ => Ok(()),
        };
        self.means = None;
        Poll::Ready(finished)
    }
}
