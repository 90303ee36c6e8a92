//! A child process as a byte stream: its standard output to read, its standard input to write, its standard error
//! always drained.
//!
//! ```text
//! orderly   ChildWriter shut down  ->  stdin grace  ->  SIGTERM to the group  ->  term grace  ->  SIGKILL  ->  reaped
//! dropped   both halves gone       ->  SIGKILL to the group  ->  reaped (with or without a runtime)
//! ```
//!
//! The child leads a process group of its own, and what it started ends with it. The group is signalled only while its
//! leader is not reaped, so the number cannot have become another process's.
//!
//! When *this* process is killed by `SIGKILL`, nothing here runs any more: the child sees the end of its input, and a
//! well-behaved server exits. For the others there is [`ChildBuilder::watchdog`].
//!
//! Limits: a grandchild that moves to a session of its own (`setsid`) escapes.
//!
//! Unix only. Uses std's `Command`, tokio's poller and pipes, rustix (signals, waiting).

mod pipes;
mod process;
mod reaper;
mod stderr;
mod watchdog;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    pin::Pin,
    process::{Command, Stdio},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::unix::pipe,
    time::Sleep,
};

pub use self::process::ChildExit;
use self::{
    pipes::{Input, Output},
    process::{Lease, Process},
    stderr::{Drain, Sink},
    watchdog::Watch,
};

/// Time for the child to exit by itself after its input was closed.
const STDIN_GRACE: Duration = Duration::from_secs(3);

/// Time for the child to exit after `SIGTERM`.
const TERM_GRACE: Duration = Duration::from_secs(2);

/// Bytes of standard error that are kept for error texts.
const RING: usize = 8 * 1024;

/// How long the end of the child's output waits for the child's exit, to tell a crash from an end.
const EXIT_GRACE: Duration = Duration::from_millis(100);

/// Takes one line of a child's standard error.
pub type LineLog = Box<dyn FnMut(&[u8]) + Send>;

/// Where the child's standard error goes. It is drained in every case, so a talkative child never stalls.
#[non_exhaustive]
pub enum ChildStderr {
    /// To nowhere.
    Null,
    /// To this process's standard error.
    Inherit,
    /// The last bytes are kept, this many; see [`ChildHandle::stderr`].
    Ring(usize),
    /// Each line goes to the function, without its end of line and cut into pieces of at most 8 KiB; the last 8 KiB
    /// are kept besides. A function that panics is not called again.
    Log(LineLog),
}

impl fmt::Debug for ChildStderr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Inherit => f.write_str("Inherit"),
            Self::Ring(bytes) => f.debug_tuple("Ring").field(bytes).finish(),
            Self::Log(_) => f.write_str("Log"),
        }
    }
}

/// What to start, and how to end it.
#[derive(Debug)]
pub struct ChildBuilder {
    program: OsString,
    args: Vec<OsString>,
    env: BTreeMap<OsString, Option<OsString>>,
    env_clear: bool,
    dir: Option<PathBuf>,
    stderr: ChildStderr,
    stdin_grace: Duration,
    term_grace: Duration,
    watchdog: bool,
}

impl ChildBuilder {
    /// Starts `program`, which is looked up in `PATH` unless it holds a slash.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: BTreeMap::new(),
            env_clear: false,
            dir: None,
            stderr: ChildStderr::Ring(RING),
            stdin_grace: STDIN_GRACE,
            term_grace: TERM_GRACE,
            watchdog: false,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.as_ref().to_owned(), Some(value.as_ref().to_owned()));
        self
    }

    /// Does not pass on this environment variable of ours.
    #[must_use]
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.as_ref().to_owned(), None);
        self
    }

    /// Passes on nothing of our environment, only what is set by [`env`](Self::env).
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.env_clear = true;
        self
    }

    /// Sets the directory the child starts in. Default: ours.
    #[must_use]
    pub fn current_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Sets where the child's standard error goes. Default: the last 8 KiB are kept.
    #[must_use]
    pub fn stderr(mut self, stderr: ChildStderr) -> Self {
        self.stderr = stderr;
        self
    }

    /// Sets how long [`ChildHandle::shutdown`] waits for an exit after the input was closed. Default: 3 s.
    #[must_use]
    pub fn stdin_grace(mut self, wait: Duration) -> Self {
        self.stdin_grace = wait;
        self
    }

    /// Sets how long [`ChildHandle::shutdown`] waits for an exit after `SIGTERM`. Default: 2 s.
    #[must_use]
    pub fn term_grace(mut self, wait: Duration) -> Self {
        self.term_grace = wait;
        self
    }

    /// Sets whether the child's group is ended also when this process dies without ending it, by `SIGKILL` say. Default:
    /// no.
    ///
    /// For that a small `/bin/sh` runs beside the children that want it, one for all of them, in a process group of its
    /// own; it takes the steps of [`ChildHandle::shutdown`]. Where none can be started the child starts all the same; see
    /// [`ChildHandle::is_watched`]. A program that forks and does not exec must not keep the pipe to it open.
    #[must_use]
    pub fn watchdog(mut self, on: bool) -> Self {
        self.watchdog = on;
        self
    }

    /// Whether the program is where [`spawn`](Self::spawn) will look for it, without starting it: for who starts it
    /// later, and is to know now.
    ///
    /// # Errors
    /// When it is not: as of [`spawn`](Self::spawn).
    pub fn check(&self) -> io::Result<()> {
        let path = self.env.get(OsStr::new("PATH"));
        // The child is in its directory by then: relative paths begin there.
        let base = self.dir.as_deref().unwrap_or(Path::new(""));
        let is_there = if self.program.as_encoded_bytes().contains(&b'/') {
            base.join(&self.program).exists()
        } else {
            let path = match path {
                None if !self.env_clear => std::env::var_os("PATH"),
                path => path.cloned().flatten(),
            };
            // Without one the system has places of its own.
            path.is_none_or(|path| {
                std::env::split_paths(&path).any(|dir| base.join(dir).join(&self.program).exists())
            })
        };
        if is_there {
            return Ok(());
        }
        Err(explain(&io::ErrorKind::NotFound.into(), &self.program, self.dir.as_deref(), path))
    }

    /// Starts the child.
    ///
    /// # Errors
    /// What the system says, with a text that names the program and what is wrong: not found in `PATH`, not
    /// executable, no such directory.
    ///
    /// # Panics
    /// When called outside a tokio runtime with I/O and time enabled.
    pub fn spawn(self) -> io::Result<(ChildReader, ChildWriter, ChildHandle)> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::piped()).stdout(Stdio::piped());
        if self.env_clear {
            command.env_clear();
        }
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let (stderr, sink) = match self.stderr {
            ChildStderr::Null => (Stdio::null(), None),
            ChildStderr::Inherit => (Stdio::inherit(), None),
            ChildStderr::Ring(bytes) => (Stdio::piped(), Some(Sink::ring(bytes))),
            ChildStderr::Log(log) => (Stdio::piped(), Some(Sink::log(log, RING))),
        };
        command.stderr(stderr);
        let mut child = command.spawn().map_err(|error| {
            explain(&error, &self.program, self.dir.as_deref(), self.env.get(OsStr::new("PATH")))
        })?;

        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let watch = self.watchdog.then(|| Watch::start(child.id(), self.stdin_grace, self.term_grace));
        let watch = watch.and_then(io::Result::ok);
        // From here on the guard ends the child whatever fails.
        let process = Arc::new(Process::new(child, watch, self.stdin_grace, self.term_grace));
        let lease = Arc::new(Lease::new(Arc::clone(&process)));
        process.watch()?;
        let missing = || io::Error::other("no pipe to the child");
        let input = pipe::Sender::from_owned_fd(input.ok_or_else(missing)?.into())?;
        let output = pipe::Receiver::from_owned_fd(output.ok_or_else(missing)?.into())?;
        if let (Some(errors), Some(sink)) = (errors, sink) {
            process.set_drain(Drain::start(errors.into(), sink)?);
        }
        let (input, output) = (Arc::new(Input::new(input)), Arc::new(Output::new(output)));
        process.set_pipes(&input, &output);
        let reader = ChildReader { pipe: output, end: EndOfOutput::Open, lease: Arc::clone(&lease) };
        let writer = ChildWriter { pipe: input, _lease: lease };
        Ok((reader, writer, ChildHandle { process }))
    }
}

/// Says what a failed start means in the user's terms.
fn explain(
    error: &io::Error,
    program: &OsStr,
    dir: Option<&Path>,
    path: Option<&Option<OsString>>,
) -> io::Error {
    let name = program.display();
    let text = match error.kind() {
        // The system reports a missing directory with the same code as a missing program.
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if dir.is_some_and(|dir| !dir.is_dir()) => {
            format!("cannot start {name}: no directory {}", dir.unwrap_or(Path::new("")).display())
        }
        io::ErrorKind::NotFound if program.as_encoded_bytes().contains(&b'/') => {
            if dir.unwrap_or(Path::new("")).join(program).exists() {
                format!("cannot start {name}: the interpreter that it names is missing")
            } else {
                format!("cannot start {name}: no such file")
            }
        }
        io::ErrorKind::NotFound => {
            let ours = std::env::var_os("PATH");
            let path = path.map_or(ours, Clone::clone).unwrap_or_default();
            format!("cannot start {name}: no such command in PATH ({})", path.display())
        }
        io::ErrorKind::PermissionDenied => format!("cannot start {name}: not executable"),
        _ => format!("cannot start {name}: {error}"),
    };
    io::Error::new(error.kind(), text)
}

/// The error inside the `io::Error` that ends the output of a child which failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChildFailed {
    /// How it exited.
    pub exit: ChildExit,
    /// What it wrote last to its standard error, as far as that was kept.
    pub stderr: Vec<u8>,
}

impl fmt::Display for ChildFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "child process {}", self.exit)?;
        // The last lines are where the reason stands.
        let text = String::from_utf8_lossy(&self.stderr);
        let lines: Vec<_> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(3).collect();
        for (count, line) in lines.iter().rev().enumerate() {
            write!(f, "{}{}", if count == 0 { ": " } else { " | " }, line.escape_debug())?;
        }
        Ok(())
    }
}

impl std::error::Error for ChildFailed {}

enum EndOfOutput {
    Open,
    /// The pipe has ended; the exit is being waited for.
    Ending(Pin<Box<Sleep>>),
    Ended,
}

/// The child's standard output. The child is killed when this and the [`ChildWriter`] are dropped.
///
/// At the end of the output it waits up to 100 ms for the child to exit. An exit other than success, unless this side
/// asked for it, is an error around [`ChildFailed`], told once; anything else is the plain end.
pub struct ChildReader {
    pipe: Arc<Output>,
    end: EndOfOutput,
    lease: Arc<Lease>,
}

/// The child's standard input. Shutting it down closes it. The child is killed when this and the [`ChildReader`] are
/// dropped.
pub struct ChildWriter {
    pipe: Arc<Input>,
    _lease: Arc<Lease>,
}

impl fmt::Debug for ChildReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildReader").field("id", &self.lease.process.id()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ChildWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildWriter").field("closed", &self.pipe.is_closed()).finish_non_exhaustive()
    }
}

impl AsyncRead for ChildReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.end {
                EndOfOutput::Open => {
                    let before = buffer.filled().len();
                    ready!(this.pipe.poll_read(cx, buffer))?;
                    if buffer.filled().len() > before || buffer.remaining() == 0 {
                        return Poll::Ready(Ok(()));
                    }
                    this.end = EndOfOutput::Ending(Box::pin(tokio::time::sleep(EXIT_GRACE)));
                }
                EndOfOutput::Ending(grace) => {
                    let process = &this.lease.process;
                    let exit = match process.poll_exit(cx)? {
                        Poll::Ready(exit) => Some(exit),
                        Poll::Pending => {
                            ready!(grace.as_mut().poll(cx));
                            None
                        }
                    };
                    this.end = EndOfOutput::Ended;
                    if let Some(exit) = exit
                        && !exit.is_success()
                        && !process.is_asked()
                    {
                        let failed = ChildFailed { exit, stderr: process.stderr() };
                        return Poll::Ready(Err(io::Error::other(failed)));
                    }
                }
                EndOfOutput::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl AsyncWrite for ChildWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.pipe.poll_open(cx, |pipe, cx| pipe.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.pipe.poll_open(cx, |pipe, cx| pipe.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe.close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for ChildWriter {
    fn drop(&mut self) {
        self.pipe.close();
    }
}

/// Tells about the child and ends it in an orderly way. Does not keep it alive.
#[derive(Clone)]
pub struct ChildHandle {
    process: Arc<Process>,
}

impl fmt::Debug for ChildHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildHandle").field("id", &self.process.id()).field("exit", &self.try_exit()).finish()
    }
}

impl ChildHandle {
    /// Its process number, which is also that of its group.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// How it exited, if it has.
    #[must_use]
    pub fn try_exit(&self) -> Option<ChildExit> {
        self.process.try_exit()
    }

    /// Whether a [watchdog](ChildBuilder::watchdog) would end it and its group if this process died now.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.process.is_watched()
    }

    /// What it wrote last to its standard error, as far as that was kept.
    pub fn stderr(&self) -> Vec<u8> {
        self.process.stderr()
    }

    /// Waits until it has exited. What is left of its group lives on until the end of the halves or a
    /// [`shutdown`](Self::shutdown).
    ///
    /// # Errors
    /// When the system cannot be asked.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn wait(&self) -> io::Result<ChildExit> {
        self.process.exited().await
    }

    /// Ends it: closes its input, waits for its exit, sends `SIGTERM` to the group, waits, sends `SIGKILL` to the
    /// group, reaps it. Shut the [`ChildWriter`] down first (closing a link does), or what is queued there is lost.
    ///
    /// Output that nobody reads meanwhile is thrown away: a server that blocks on it would not see its input close.
    ///
    /// # Errors
    /// When the system cannot be asked.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the child where the sequence was; calling again starts it anew.
    pub async fn shutdown(&self) -> io::Result<ChildExit> {
        self.process.shutdown().await
    }

    /// Ends it and its group at once with `SIGKILL` and reaps it.
    pub fn kill(&self) {
        self.process.retire();
    }
}
