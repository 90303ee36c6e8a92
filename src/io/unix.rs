//! Unix stream sockets as a pair of halves, and a listener whose socket file is never open to others, not even for a
//! moment, and never replaces anything that is in use.
//!
//! Uses limits, tokio's sockets and rustix (file modes).

mod path;

#[cfg(target_os = "linux")]
use std::path::PathBuf;
use std::{
    io::{self, IoSlice},
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

pub use self::path::Occupied;
use self::path::SocketFile;
use super::accept::Backoff;
use crate::limits::CONNECT_TIMEOUT;

/// Who is at the other end of a Unix socket, as the kernel saw it when the connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerCredentials {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process, where the system tells. It may have ended since and its number been given to another.
    pub pid: Option<i32>,
}

/// Connects to the socket at `path`, within [`CONNECT_TIMEOUT`]. On Linux a path that begins with a NUL byte is an
/// abstract name, which is in no file system.
///
/// # Errors
/// `InvalidInput` for a path longer than the system's limit, `TimedOut` when the listener's queue stays full,
/// otherwise what the system says. The text names the path.
///
/// # Panics
/// When called outside a tokio runtime with I/O and time enabled.
///
/// # Cancel safety
/// Dropping the future gives up the attempt; nothing stays open.
pub async fn connect(path: impl AsRef<Path>) -> io::Result<(UnixReader, UnixWriter)> {
    let path = path.as_ref();
    path::check_length(path)?;
    // A full queue is told by EAGAIN at once, not by waiting: try again until the time is up.
    let attempts = async {
        let mut pause = std::time::Duration::from_millis(1);
        loop {
            match UnixStream::connect(path).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(std::time::Duration::from_millis(100));
                }
                done => return done,
            }
        }
    };
    let named = |kind, cause: &dyn std::fmt::Display| {
        io::Error::new(kind, format!("connect to {}: {cause}", path::shown(path)))
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, attempts).await {
        Ok(Ok(stream)) => Ok(from_stream(stream)),
        Ok(Err(error)) => Err(named(error.kind(), &error)),
        Err(_) => {
            Err(named(io::ErrorKind::TimedOut, &format_args!("not accepted within {CONNECT_TIMEOUT:?}")))
        }
    }
}

/// Makes a connected tokio stream a pair.
#[must_use]
pub fn from_stream(stream: UnixStream) -> (UnixReader, UnixWriter) {
    let (reader, writer) = stream.into_split();
    (UnixReader { half: reader }, UnixWriter { half: writer })
}

/// Makes a connected stream of the standard library a pair.
///
/// # Errors
/// When the system refuses to watch it.
///
/// # Panics
/// When called outside a tokio runtime with I/O enabled.
pub fn from_std(stream: std::os::unix::net::UnixStream) -> io::Result<(UnixReader, UnixWriter)> {
    stream.set_nonblocking(true)?;
    Ok(from_stream(UnixStream::from_std(stream)?))
}

/// A connected pair of Unix sockets without a name.
///
/// # Errors
/// When the system is out of descriptors.
///
/// # Panics
/// When called outside a tokio runtime with I/O enabled.
pub fn pair() -> io::Result<((UnixReader, UnixWriter), (UnixReader, UnixWriter))> {
    let (one, other) = UnixStream::pair()?;
    Ok((from_stream(one), from_stream(other)))
}

/// The receiving half of a Unix socket. The connection is closed when both halves are dropped.
#[derive(Debug)]
pub struct UnixReader {
    half: OwnedReadHalf,
}

impl UnixReader {
    /// Who is at the other end.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        let found = self.half.as_ref().peer_cred()?;
        Ok(PeerCredentials { uid: found.uid(), gid: found.gid(), pid: found.pid() })
    }

    /// The stream again, from both halves of it.
    ///
    /// # Errors
    /// `InvalidInput` when the halves belong to different connections; both are closed then.
    pub fn reunite(self, writer: UnixWriter) -> io::Result<UnixStream> {
        let foreign = |_| io::Error::new(io::ErrorKind::InvalidInput, "halves of different connections");
        self.half.reunite(writer.half).map_err(foreign)
    }
}

/// The sending half of a Unix socket. Shutting it down, or dropping it, tells the peer that no more comes.
#[derive(Debug)]
pub struct UnixWriter {
    half: OwnedWriteHalf,
}

super::halves::by_half!(UnixReader, UnixWriter);

/// A Unix listener. Its socket file is removed when it is dropped, unless something else stands there by then.
#[derive(Debug)]
pub struct Listener {
    // First, so that the file goes while the socket still holds its inode and no other file can get the same number.
    name: Name,
    listener: UnixListener,
}

#[derive(Debug)]
enum Name {
    File(SocketFile),
    /// No file, so no mode either: who may connect is decided by who it is.
    #[cfg(target_os = "linux")]
    Abstract(PathBuf),
}

impl Listener {
    /// Listens at `path`, reachable by this user only (mode 0600).
    ///
    /// The socket is made inside a private directory beside `path`, narrowed there and moved into place, so it is
    /// never reachable with a wider mode, whatever the umask. A socket file that a dead server left behind is
    /// replaced; a live server's socket or a file of any other kind never is.
    ///
    /// On Linux a path that begins with a NUL byte is an abstract name. It has no mode; instead connections of other users
    /// than this one and root are closed before anything is read.
    ///
    /// # Errors
    /// `AddrInUse`, with an [`Occupied`] in it, when something stands at `path` that must not be replaced, `InvalidInput`
    /// for a path longer than the system's limit, otherwise what the system says. The text names the path.
    ///
    /// # Panics
    /// When called outside a tokio runtime with I/O enabled.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::bind_with_mode(path, 0o600)
    }

    /// Listens at `path` with the permission bits `mode`: 0600 for this user only, 0660 for the group too.
    ///
    /// # Errors
    /// As [`bind`](Self::bind); `InvalidInput` for an abstract name with any mode but 0600.
    ///
    /// # Panics
    /// As [`bind`](Self::bind).
    pub fn bind_with_mode(path: impl AsRef<Path>, mode: u32) -> io::Result<Self> {
        let path = path.as_ref();
        #[cfg(target_os = "linux")]
        if path::is_abstract(path) {
            let listener = path::bind_abstract(path, mode)?;
            return Ok(Self { name: Name::Abstract(path.to_owned()), listener });
        }
        let (listener, file) = SocketFile::bind(path, mode)?;
        listener.set_nonblocking(true)?;
        Ok(Self { name: Name::File(file), listener: UnixListener::from_std(listener)? })
    }

    /// Where it listens: absolute, or an abstract name behind a NUL byte.
    #[must_use]
    pub fn path(&self) -> &Path {
        match &self.name {
            Name::File(file) => file.path(),
            #[cfg(target_os = "linux")]
            Name::Abstract(path) => path,
        }
    }

    fn admits(&self, peer: &PeerCredentials) -> bool {
        match &self.name {
            Name::File(_) => true,
            #[cfg(target_os = "linux")]
            Name::Abstract(_) => [0, rustix::process::geteuid().as_raw()].contains(&peer.uid),
        }
    }

    /// Waits for the next connection.
    ///
    /// Failures that concern one connection are passed over. Out of descriptors or memory, it pauses (5 ms, doubled
    /// up to 1 s) and tries again.
    ///
    /// # Errors
    /// Only when the listener itself is of no further use, or the system does not tell who connected.
    ///
    /// # Panics
    /// When it has to pause on a tokio runtime without time enabled.
    ///
    /// # Cancel safety
    /// Dropping the future loses no connection.
    pub async fn accept(&self) -> io::Result<(UnixReader, UnixWriter, PeerCredentials)> {
        let mut backoff = Backoff::default();
        loop {
            let accepted = self.listener.accept().await.and_then(|(stream, _)| {
                let (reader, writer) = from_stream(stream);
                let peer = reader.peer_credentials()?;
                Ok((reader, writer, peer))
            });
            match accepted {
                Ok(connection) if self.admits(&connection.2) => return Ok(connection),
                Ok(_stranger) => {}
                Err(error) => backoff.survive(error).await?,
            }
        }
    }
}
