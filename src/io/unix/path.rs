//! The file of a listening socket: made without a window of wider permissions, replaced only when nobody listens,
//! removed only while it is still ours.
//!
//! Used by the Unix listener only.

use std::{
    fmt,
    fs::{DirBuilder, File, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
        net::{SocketAddr, UnixListener},
    },
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use socket2::{Domain, SockAddr, Socket, Type};

/// Attempts at a free name, and at a place that others race for, before giving up.
const ATTEMPTS: u32 = 64;

/// Longest path in bytes that fits into a socket address beside its closing zero.
#[cfg(any(target_os = "linux", target_os = "android"))]
const LONGEST: usize = 107;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const LONGEST: usize = 103;

/// A bound socket's place in the file system.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Binds and listens at `path`.
    pub(super) fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, Self)> {
        check_length(path)?;
        // Absolute, so that the removal at the end finds it after a change of directory.
        let path = std::path::absolute(path)?;
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("listen at {}: {error}", path.display()));
        let private = PrivateDir::beside(&path).map_err(named)?;
        let listener = private.bind().map_err(named)?;
        let fresh = private.socket();
        std::fs::set_permissions(&fresh, Permissions::from_mode(mode & 0o777)).map_err(named)?;
        let made = std::fs::symlink_metadata(&fresh).map_err(named)?;
        for _ in 0..ATTEMPTS {
            match place(&fresh, &path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => remove_stale(&path)?,
                Err(error) => return Err(named(error)),
                Ok(()) => return Ok((listener, Self { path, device: made.dev(), inode: made.ino() })),
            }
        }
        Err(in_use(&path, "others keep starting there at the same time"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Whoever replaced the file owns the name now.
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| found.dev() == self.device && found.ino() == self.inode);
        if ours {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Whether it is the name of an abstract socket: a NUL byte, then the name.
pub(super) fn is_abstract(path: &Path) -> bool {
    cfg!(target_os = "linux") && path.as_os_str().as_encoded_bytes().starts_with(b"\0")
}

/// The path as people write it, an abstract name with an `@`.
pub(super) fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    text.strip_prefix('\0').map_or_else(|| text.clone(), |name| format!("@{name}"))
}

/// Binds an abstract name and listens there.
#[cfg(target_os = "linux")]
pub(super) fn bind_abstract(path: &Path, mode: u32) -> io::Result<tokio::net::UnixListener> {
    check_length(path)?;
    if mode != 0o600 {
        let reason = "an abstract socket has no mode: only this user and root can connect to it";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("listen at {}: {error}", shown(path)));
    tokio::net::UnixListener::bind(path).map_err(named)
}

/// Refuses a path that does not fit into a socket address, with the numbers the system's own message lacks.
pub(super) fn check_length(path: &Path) -> io::Result<()> {
    let length = path.as_os_str().len();
    if SocketAddr::from_pathname(path).is_ok() || (is_abstract(path) && (2..=LONGEST + 1).contains(&length)) {
        return Ok(());
    }
    let text = shown(path);
    let reason = if length > LONGEST {
        format!("socket path of {length} bytes is longer than the system's limit of {LONGEST} bytes: {text}")
    } else {
        format!("not usable as a socket path: {text}")
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
}

/// The error inside the `io::Error` that says why nothing can listen at a path: something stands there that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Occupied {
    /// Where.
    pub path: PathBuf,
    /// What stands there, or why that cannot be told.
    pub why: String,
    /// Whether it is the socket of a server that listens.
    pub is_served: bool,
}

impl fmt::Display for Occupied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen at {}: {}", self.path.display(), self.why)
    }
}

impl std::error::Error for Occupied {}

impl Occupied {
    fn by_server(path: &Path) -> io::Error {
        let why = "another server is listening there".to_owned();
        io::Error::new(io::ErrorKind::AddrInUse, Self { path: path.to_owned(), why, is_served: true })
    }
}

fn in_use(path: &Path, why: &str) -> io::Error {
    let why = why.to_owned();
    io::Error::new(io::ErrorKind::AddrInUse, Occupied { path: path.to_owned(), why, is_served: false })
}

/// Moves a socket to its name, only if nothing stands there. The socket stays bound: the kernel finds it by inode.
fn place(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Some file systems cannot rename without replacing; a hard link says the same in two steps.
            Err(Errno::INVAL | Errno::NOSYS) => {}
            done => return Ok(done?),
        }
    }
    std::fs::hard_link(from, to)?;
    std::fs::remove_file(from)
}

/// Removes what a dead server left at `path`.
///
/// Servers that start at the same time do this one after the other: else the second, having seen the dead socket too,
/// would delete the live one that the first has just put in its place.
fn remove_stale(path: &Path) -> io::Result<()> {
    let _turn = lock(path)?;
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => {
            return Err(in_use(
                path,
                "a file that is no socket stands there; remove it or choose another path",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(in_use(path, &error.to_string())),
    }
    if !is_dead(path)? {
        return Err(Occupied::by_server(path));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(in_use(
            path,
            &format!("the socket of a dead server stands there and cannot be removed: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Locks the directory of `path` until the file is dropped.
fn lock(path: &Path) -> io::Result<File> {
    let directory = File::open(path.parent().unwrap_or(Path::new("/")))?;
    for _ in 0..ATTEMPTS {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(directory),
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(Duration::from_millis(5)),
            // A file system without locks: better to start than to refuse.
            Err(Errno::NOTSUP | Errno::NOSYS | Errno::NOLCK | Errno::INVAL) => return Ok(directory),
            Err(error) => return Err(error.into()),
        }
    }
    Err(in_use(path, "its directory is locked, maybe by other servers that are starting"))
}

/// Whether a socket file is one that nobody listens on any more.
fn is_dead(path: &Path) -> io::Result<bool> {
    // Not blocking: on a live server's full queue a blocking connect would wait for as long as that server does.
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    Ok(probe.connect(&SockAddr::unix(path)?).is_err_and(refused))
}

/// A directory only this user can enter, beside the final path (so that a rename stays within one file system).
/// Removed with what is left in it when dropped.
#[derive(Debug)]
struct PrivateDir {
    path: PathBuf,
}

impl PrivateDir {
    fn beside(path: &Path) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let parent = path.parent().unwrap_or(Path::new("/"));
        let mut failure = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..ATTEMPTS {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!(".{:x}-{number:x}", process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path }),
                // Left behind by a killed process that had the same number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => failure = error,
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }

    fn socket(&self) -> PathBuf {
        self.path.join("s")
    }

    fn bind(&self) -> io::Result<UnixListener> {
        let socket = self.socket();
        #[cfg(target_os = "linux")]
        if SocketAddr::from_pathname(&socket).is_err() {
            // The final path fits but this longer one does not: name the directory by its descriptor.
            use std::os::fd::AsRawFd;
            let directory = File::open(&self.path)?;
            return UnixListener::bind(format!("/proc/self/fd/{}/s", directory.as_raw_fd()));
        }
        UnixListener::bind(socket)
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        drop(std::fs::remove_file(self.socket()));
        drop(std::fs::remove_dir(&self.path));
    }
}
