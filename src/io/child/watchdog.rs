//! The watchdog: what ends the children when this process is killed and nothing of it runs any more.
//!
//! A `/bin/sh` in a process group of its own holds the reading end of a pipe whose writing end only this process has. It
//! is told which groups there are; when the pipe ends, whatever the reason, it ends them by the same steps as a
//! [`shutdown`](super::ChildHandle::shutdown) does. One for all children of this process, started with the first that
//! wants it and gone with the last, so that nothing lingers in a program that starts none.
//!
//! A group is taken off the list before its leader is reaped, so its number cannot have become another's. Between the
//! start of a child and the line that tells of it lie some microseconds in which a kill of this process is not noticed.
//!
//! Used by child only. No unsafe code: the kernel's own means, `PR_SET_PDEATHSIG`, has to be asked for between fork and
//! exec, and acts when the spawning *thread* ends.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::reaper::hand_over;

const SCRIPT: &str = include_str!("watchdog.sh");

/// The groups that are watched, and the shell while there are any.
#[derive(Default)]
struct Watchdog {
    /// In tenths of a second: the time after the end of input, the time after `SIGTERM`.
    groups: BTreeMap<u32, [u16; 2]>,
    shell: Option<Shell>,
}

struct Shell {
    child: Child,
    /// Does not wait once it has been told all: a shell that was stopped from outside must not stop this process too.
    pipe: ChildStdin,
}

/// One group that is watched, until it is dropped.
pub(super) struct Watch {
    group: u32,
}

static WATCHDOG: Mutex<Watchdog> = Mutex::new(Watchdog { groups: BTreeMap::new(), shell: None });

fn watchdog() -> MutexGuard<'static, Watchdog> {
    WATCHDOG.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Has `group` ended when this process dies: `stdin` after its input has, by `SIGTERM`, and `term` after that by
    /// `SIGKILL`.
    pub(super) fn start(group: u32, stdin: Duration, term: Duration) -> io::Result<Self> {
        let tenths = |time: Duration| u16::try_from(time.as_millis().div_ceil(100)).unwrap_or(u16::MAX);
        let grace = [tenths(stdin), tenths(term)];
        let mut watchdog = watchdog();
        watchdog.groups.insert(group, grace);
        match watchdog.tell(&watch_line(group, grace)) {
            Ok(()) => Ok(Self { group }),
            Err(error) => {
                watchdog.forget(group);
                Err(error)
            }
        }
    }
}

impl Drop for Watch {
    /// To be done before the leader of the group is reaped.
    fn drop(&mut self) {
        watchdog().forget(self.group);
    }
}

fn watch_line(group: u32, [stdin, term]: [u16; 2]) -> String {
    format!("+ {group} {stdin} {term}\n")
}

impl Watchdog {
    /// Writes `line`. When there is no shell, or it is dead or takes nothing, one is started that knows all.
    fn tell(&mut self, line: &str) -> io::Result<()> {
        if let Some(shell) = &mut self.shell {
            // Lines of this length are written whole or not at all.
            if shell.pipe.write_all(line.as_bytes()).is_ok() {
                return Ok(());
            }
            self.stop();
        }
        let all: String = self.groups.iter().map(|(group, grace)| watch_line(*group, *grace)).collect();
        let mut shell = Shell::start()?;
        let told = shell.pipe.write_all(all.as_bytes()).and_then(|()| shell.never_wait());
        self.shell = Some(shell);
        if told.is_err() {
            self.stop();
        }
        told
    }

    fn forget(&mut self, group: u32) {
        self.groups.remove(&group);
        if self.groups.is_empty() {
            self.stop();
        } else if self.shell.is_some() {
            // When no shell can be had the others are without one: there is nobody to tell.
            let _ = self.tell(&format!("- {group}\n"));
        }
    }

    /// Ends the shell without its doing anything.
    fn stop(&mut self) {
        if let Some(Shell { mut child, pipe }) = self.shell.take() {
            // First, so that it cannot take the end of its input for the end of this process.
            let _ = child.kill();
            drop(pipe);
            if !matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                hand_over(Box::new(move || !matches!(child.try_wait(), Ok(None))));
            }
        }
    }
}

impl Shell {
    fn start() -> io::Result<Self> {
        // No output: it would keep this process's open for those who wait for its end. No environment but where `sleep`
        // is found. At the root, so that it holds no directory in use.
        let mut child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "framewire-watchdog"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pipe = child.stdin.take().ok_or_else(|| io::Error::other("no pipe to the watchdog"))?;
        Ok(Self { child, pipe })
    }

    /// Lets later lines fail rather than wait. This end has a description of its own: the shell's stays blocking.
    fn never_wait(&self) -> io::Result<()> {
        Ok(fcntl_setfl(&self.pipe, fcntl_getfl(&self.pipe)? | OFlags::NONBLOCK)?)
    }
}
