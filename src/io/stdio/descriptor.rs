//! What kind of thing a descriptor is, and how to read or write it without waiting and without touching its flags.
//!
//! Used by stdio only.

use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, OwnedFd},
    task::{Context, Poll, ready},
};

use rustix::{
    fs::{FileType, Mode, OFlags, fstat},
    io::Errno,
    net::{RecvFlags, SendAncillaryBuffer, SendFlags},
};
use tokio::io::{Interest, ReadBuf, unix::AsyncFd};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// Into this process.
    Read,
    /// Out of it.
    Write,
}

/// A descriptor by the way it is used.
pub(super) enum Source {
    /// Watched for readiness.
    Polled(Polled),
    /// Never blocks.
    Direct(OwnedFd),
    /// Blocks; needs a thread.
    Blocking(OwnedFd),
}

/// Finds the way for `fd`.
pub(super) fn classify(fd: OwnedFd, direction: Direction) -> io::Result<Source> {
    let stat = fstat(&fd)?;
    let interest = match direction {
        Direction::Read => Interest::READABLE,
        Direction::Write => Interest::WRITABLE,
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => {
            let fd = crate::io::watch::watch(fd, interest)?;
            Ok(Source::Polled(Polled { fd, call: Call::Socket, drains: true, tried: false }))
        }
        FileType::Fifo => Ok(watch(fd, direction, interest, true)),
        FileType::CharacterDevice => match (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
        {
            // Linux's null, zero, full and urandom.
            #[cfg(target_os = "linux")]
            (1, 3 | 5 | 7 | 9) => Ok(Source::Direct(fd)),
            // The multiplexer of pseudo-terminals: opening it again makes another terminal.
            #[cfg(target_os = "linux")]
            (5, 2) => Ok(Source::Blocking(fd)),
            // A terminal hands out one line per read however many are there, so a short read proves nothing.
            _ => Ok(watch(fd, direction, interest, false)),
        },
        _ => Ok(Source::Blocking(fd)),
    }
}

/// Opens the description anew and watches it; where either is refused, it is left to a thread. Refusals are usual: no
/// `/proc` in a container, a terminal of another mount namespace, a pipe whose reader is gone (`ENXIO`; the thread's
/// write says `EPIPE`), a device that epoll does not know.
fn watch(fd: OwnedFd, direction: Direction, interest: Interest, drains: bool) -> Source {
    let Ok(own) = reopen(&fd, direction) else {
        return Source::Blocking(fd);
    };
    // A pipe in packet mode ends each read at a packet.
    let packets = is_packet_pipe(&own) || is_packet_pipe(&fd);
    match crate::io::watch::watch(own, interest) {
        Ok(own) => {
            Source::Polled(Polled { fd: own, call: Call::File, drains: drains && !packets, tried: false })
        }
        Err(_) => Source::Blocking(fd),
    }
}

fn is_packet_pipe(fd: &OwnedFd) -> bool {
    #[cfg(target_os = "linux")]
    let packets = rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags.contains(OFlags::DIRECT));
    #[cfg(not(target_os = "linux"))]
    let packets = {
        let _ = fd;
        false
    };
    packets
}

/// A description of our own of what `fd` is open on, non-blocking.
fn reopen(fd: &OwnedFd, direction: Direction) -> io::Result<OwnedFd> {
    // Elsewhere `/dev/fd` hands out the same description again.
    if !cfg!(target_os = "linux") {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let way = match direction {
        Direction::Read => OFlags::RDONLY,
        Direction::Write => OFlags::WRONLY,
    };
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let own =
        rustix::fs::open(path, way | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    let (ours, theirs) = (fstat(&own)?, fstat(fd)?);
    if (ours.st_dev, ours.st_ino, ours.st_rdev) != (theirs.st_dev, theirs.st_ino, theirs.st_rdev) {
        return Err(io::Error::other("opened something else"));
    }
    Ok(own)
}

/// A descriptor that is watched for readiness.
pub(super) struct Polled {
    fd: AsyncFd<OwnedFd>,
    call: Call,
    /// A read or write that moves less than asked has emptied or filled it, so the next one waits at once.
    drains: bool,
    /// Whether a read was tried before the first event. The system sends none for a FIFO whose writers left before it
    /// was opened here, though a read tells the end.
    tried: bool,
}

#[derive(Clone, Copy)]
enum Call {
    File,
    Socket,
}

impl Call {
    fn read(self, fd: &OwnedFd, target: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::retry_on_intr(|| match self {
            Self::File => rustix::io::read(fd, &mut *target),
            Self::Socket => rustix::net::recv(fd, &mut *target, RecvFlags::DONTWAIT).map(|(count, _)| count),
        })
    }

    fn write(self, fd: &OwnedFd, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        // The system refuses more slices than this in one call (IOV_MAX).
        let parts = parts.get(..1024).unwrap_or(parts);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        rustix::io::retry_on_intr(|| match (self, parts) {
            (Self::File, [part]) => rustix::io::write(fd, part),
            (Self::File, parts) => rustix::io::writev(fd, parts),
            (Self::Socket, [part]) => rustix::net::send(fd, part, flags),
            (Self::Socket, parts) => {
                rustix::net::sendmsg(fd, parts, &mut SendAncillaryBuffer::default(), flags)
            }
        })
    }
}

impl Polled {
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let target = buffer.initialize_unfilled();
        let wanted = target.len();
        if !self.tried {
            self.tried = true;
            match self.call.read(self.fd.get_ref(), target) {
                Err(Errno::AGAIN) => {}
                done => {
                    buffer.advance(done?);
                    return Poll::Ready(Ok(()));
                }
            }
        }
        loop {
            let mut ready = ready!(self.fd.poll_read_ready(cx))?;
            match self.call.read(ready.get_inner(), target) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Poll::Ready(Err(error.into())),
                Ok(count) => {
                    if self.drains && count > 0 && count < wanted {
                        ready.clear_ready();
                    }
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.fd.poll_write_ready(cx))?;
            match self.call.write(ready.get_inner(), parts) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                done => return Poll::Ready(done.map_err(Into::into)),
            }
        }
    }
}
