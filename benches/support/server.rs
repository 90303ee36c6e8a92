//! Servers as processes of their own: started, connected to, and asked of the kernel what they have used.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::load::Peer;

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(5);

/// What a server is reached over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    /// Its standard input and output, which are pipes.
    Pipe,
    /// A Unix socket.
    Unix,
    /// A TCP connection on the loopback interface.
    Tcp,
}

/// A running server and the connection to it. Killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Guard,
    /// The connection.
    pub(crate) peer: Peer,
}

impl Server {
    /// Starts `command` and connects to it. For sockets the place to listen at is appended as `--addr`.
    ///
    /// # Errors
    /// When the program cannot be started or does not listen in time.
    pub(crate) fn start(mut command: Command, medium: Medium, scratch: &Path) -> io::Result<Self> {
        let path = scratch.join("socket");
        let _ = fs::remove_file(&path);
        // Free a moment ago; nobody else on a machine that is fit to measure on takes it meanwhile.
        let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        match medium {
            Medium::Pipe => command.stdin(Stdio::piped()).stdout(Stdio::piped()),
            Medium::Unix => command.arg("--addr").arg(&path).stdin(Stdio::null()).stdout(Stdio::null()),
            Medium::Tcp => {
                command.arg("--addr").arg(addr.to_string()).stdin(Stdio::null()).stdout(Stdio::null())
            }
        };
        let mut child = Guard(command.spawn()?);
        let (reader, writer) = match medium {
            Medium::Pipe => (
                child.0.stdout.take().ok_or(ErrorKind::BrokenPipe)?.into(),
                child.0.stdin.take().ok_or(ErrorKind::BrokenPipe)?.into(),
            ),
            Medium::Unix => {
                let stream = OwnedFd::from(connect(|| UnixStream::connect(&path))?);
                (stream.try_clone()?, stream)
            }
            Medium::Tcp => {
                let stream = connect(|| TcpStream::connect(addr))?;
                stream.set_nodelay(true)?;
                let stream = OwnedFd::from(stream);
                (stream.try_clone()?, stream)
            }
        };
        Ok(Self { child, peer: Peer::new(reader, writer) })
    }

    /// CPU time used so far by all threads, user and system.
    ///
    /// # Errors
    /// When the process is gone.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        // `stat` counts in hundredths of a second; `schedstat` in nanoseconds, but for each thread alone. Threads that
        // have ended are missing: tokio's live for ten idle seconds, longer than any run here.
        let mut total = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.0.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            total += text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(total))
    }

    /// The largest resident size so far, in bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub(crate) fn peak(&self) -> io::Result<u64> {
        status(self.child.0.id(), "VmHWM:")
    }
}

/// A child that ends with its owner.
#[derive(Debug)]
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect<T>(attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
                    && start.elapsed() < START =>
            {
                sleep(Duration::from_millis(2));
            }
            result => return result,
        }
    }
}

/// A field of `/proc/PID/status` that is given in kB, in bytes.
///
/// # Errors
/// When the process is gone.
pub(crate) fn status(pid: u32, field: &str) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::other(format!("no {field} of process {pid}")))
}
