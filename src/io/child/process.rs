//! The process behind the pipes: watched, signalled by group, reaped exactly once.
//!
//! Used by child only. The group is signalled only under the lock that reaping takes too, while the leader is alive or
//! a zombie: so long the system cannot give its number to another.

use std::{
    fmt, io,
    os::fd::OwnedFd,
    process::Child,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, waitid},
};
use tokio::io::unix::AsyncFd;

use super::{
    pipes::{Input, Output},
    reaper::hand_over,
    stderr::Drain,
    watchdog::Watch,
};

/// How often the exit is asked for where the system cannot tell it.
const ASK: Duration = Duration::from_millis(20);

/// How long an exit after `SIGKILL` is waited for before the reaper takes over: a process in the middle of a disk
/// access dies only after it.
const KILL_GRACE: Duration = Duration::from_secs(1);

/// How a child exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ChildExit {
    /// Its exit code, when it exited by itself.
    pub code: Option<i32>,
    /// The signal that ended it. Neither this nor a code: somebody else has reaped it, so nobody knows.
    pub signal: Option<i32>,
}

impl ChildExit {
    /// Whether it exited by itself with code 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    const UNKNOWN: Self = Self { code: None, signal: None };

    fn from_wait(status: &WaitIdStatus) -> Self {
        Self { code: status.exit_status(), signal: status.terminating_signal() }
    }
}

impl fmt::Display for ChildExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exited with code {code}"),
            (None, Some(signal)) => write!(f, "was ended by signal {signal}"),
            (None, None) => f.write_str("exited, it is not known how"),
        }
    }
}

enum State {
    /// Alive, or a zombie: the number is still its own.
    Unreaped {
        child: Child,
        /// Its group is ended when this process dies. Dropped before the child is reaped.
        watch: Option<Watch>,
    },
    Reaped(ChildExit),
}

pub(super) struct Process {
    id: u32,
    state: Mutex<State>,
    /// Readable once it has exited. Empty where the system has no such thing.
    exit: OnceLock<AsyncFd<OwnedFd>>,
    drain: OnceLock<Drain>,
    /// Weak, so that a handle keeps no pipe open.
    pipes: OnceLock<(Weak<Input>, Weak<Output>)>,
    /// This side has asked it to end, so how it exits is no failure.
    asked: AtomicBool,
    stdin_grace: Duration,
    term_grace: Duration,
}

impl Process {
    pub(super) fn new(
        child: Child,
        watch: Option<Watch>,
        stdin_grace: Duration,
        term_grace: Duration,
    ) -> Self {
        Self {
            id: child.id(),
            state: Mutex::new(State::Unreaped { child, watch }),
            exit: OnceLock::new(),
            drain: OnceLock::new(),
            pipes: OnceLock::new(),
            asked: AtomicBool::new(false),
            stdin_grace,
            term_grace,
        }
    }

    /// Has the exit told by the poller where the system can (Linux 5.3); otherwise it is asked for now and then.
    pub(super) fn watch(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if let Some(pid) = self.pid()
            && let Ok(fd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        {
            let fd = crate::io::watch::watch(fd, tokio::io::Interest::READABLE)?;
            drop(self.exit.set(fd));
        }
        Ok(())
    }

    pub(super) fn set_drain(&self, drain: Drain) {
        drop(self.drain.set(drain));
    }

    pub(super) fn set_pipes(&self, input: &Arc<Input>, output: &Arc<Output>) {
        drop(self.pipes.set((Arc::downgrade(input), Arc::downgrade(output))));
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    pub(super) fn stderr(&self) -> Vec<u8> {
        self.drain.get().map(Drain::last).unwrap_or_default()
    }

    pub(super) fn is_watched(&self) -> bool {
        matches!(&*self.lock(), State::Unreaped { watch: Some(_), .. })
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.id).ok().and_then(Pid::from_raw)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it exited, without reaping it.
    fn look(&self, state: &mut State) -> Option<ChildExit> {
        if let State::Reaped(exit) = state {
            return Some(*exit);
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(self.pid()?), options) {
            Ok(status) => status.as_ref().map(ChildExit::from_wait),
            // Somebody has reaped it: a handler of this program, or SIGCHLD is ignored. Its number is anybody's.
            Err(Errno::CHILD) => {
                *state = State::Reaped(ChildExit::UNKNOWN);
                Some(ChildExit::UNKNOWN)
            }
            Err(_) => None,
        }
    }

    pub(super) fn try_exit(&self) -> Option<ChildExit> {
        self.look(&mut self.lock())
    }

    /// One task at a time: the reader's.
    pub(super) fn poll_exit(&self, cx: &mut Context<'_>) -> io::Result<Poll<ChildExit>> {
        loop {
            if let Some(exit) = self.try_exit() {
                return Ok(Poll::Ready(exit));
            }
            let Some(fd) = self.exit.get() else { return Ok(Poll::Pending) };
            match fd.poll_read_ready(cx) {
                Poll::Ready(ready) => ready?.clear_ready(),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
    }

    /// Any number of tasks.
    pub(super) async fn exited(&self) -> io::Result<ChildExit> {
        loop {
            if let Some(exit) = self.try_exit() {
                return Ok(exit);
            }
            match self.exit.get() {
                Some(fd) => {
                    let mut ready = fd.readable().await?;
                    if self.try_exit().is_none() {
                        ready.clear_ready();
                    }
                }
                None => tokio::time::sleep(ASK).await,
            }
        }
    }

    /// As [`exited`](Self::exited), throwing away output that nobody has read for a while.
    async fn exited_unread(&self) -> io::Result<ChildExit> {
        let mut reads = None;
        loop {
            if let Ok(exit) = tokio::time::timeout(ASK, self.exited()).await {
                return exit;
            }
            if let Some(output) = self.pipes.get().and_then(|(_, output)| output.upgrade()) {
                let before = reads.replace(output.reads());
                if before == reads {
                    output.discard();
                }
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let mut state = self.lock();
        self.look(&mut state);
        if let (State::Unreaped { .. }, Some(group)) = (&*state, self.pid()) {
            // Fails when nobody is left to be signalled.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Reaps it if it has exited. True when nothing is left to do.
    fn reap(&self) -> bool {
        let mut state = self.lock();
        if self.look(&mut state).is_none() {
            return false;
        }
        let State::Unreaped { child, watch } = &mut *state else { return true };
        drop(watch.take());
        let exit = match child.try_wait() {
            Ok(Some(status)) => {
                use std::os::unix::process::ExitStatusExt;
                ChildExit { code: status.code(), signal: status.signal() }
            }
            Ok(None) => return false,
            Err(_) => ChildExit::UNKNOWN,
        };
        *state = State::Reaped(exit);
        true
    }

    pub(super) async fn shutdown(&self) -> io::Result<ChildExit> {
        self.asked.store(true, Ordering::Release);
        if let Some(input) = self.pipes.get().and_then(|(input, _)| input.upgrade()) {
            input.close();
        }
        if tokio::time::timeout(self.stdin_grace, self.exited_unread()).await.is_err() {
            self.signal(Signal::TERM);
            if tokio::time::timeout(self.term_grace, self.exited_unread()).await.is_err() {
                self.signal(Signal::KILL);
                let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the child does not die");
                tokio::time::timeout(KILL_GRACE, self.exited()).await.map_err(late)??;
            }
        }
        // What the child has left behind in its group ends with it.
        self.signal(Signal::KILL);
        let exit = self.exited().await?;
        self.reap();
        self.stop_drain();
        Ok(exit)
    }

    fn stop_drain(&self) {
        if let Some(drain) = self.drain.get() {
            drain.stop();
        }
    }

    /// Kills the group and reaps the leader, here if it is quick, otherwise on the reaper's thread. Needs no runtime.
    pub(super) fn retire(self: &Arc<Self>) {
        self.asked.store(true, Ordering::Release);
        self.signal(Signal::KILL);
        self.stop_drain();
        if !self.reap() {
            let process = Arc::clone(self);
            hand_over(Box::new(move || process.reap()));
        }
    }
}

/// Kills the child when the last half is dropped.
pub(super) struct Lease {
    pub(super) process: Arc<Process>,
}

impl Lease {
    pub(super) fn new(process: Arc<Process>) -> Self {
        Self { process }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.process.retire();
    }
}
