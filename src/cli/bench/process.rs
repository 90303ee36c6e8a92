//! The server process: started from this program's own file, and what the system says about it.

use std::{
    fs, io,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::cli::serve;

/// A server process that is killed when this is dropped.
pub(super) struct Server {
    pub(super) child: Child,
}

impl Server {
    /// Starts this program as a server.
    pub(super) fn start(arguments: &serve::Arguments) -> io::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(arguments.words())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self { child })
    }

    /// CPU time it has used so far.
    pub(super) fn cpu(&self) -> Option<Duration> {
        // In nanoseconds, where the ticks of `stat` are 10 ms; one file for each thread.
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).ok()?;
        let mut nanos = 0;
        for task in tasks {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            nanos += text.split_whitespace().next()?.parse::<u64>().ok()?;
        }
        Some(Duration::from_nanos(nanos))
    }

    /// The most memory it ever had, in bytes.
    pub(super) fn peak_rss(&self) -> Option<u64> {
        peak_rss(&self.child.id().to_string())
    }
}

/// The most memory a process ever had, in bytes. `process` is its number, or `self`.
pub(super) fn peak_rss(process: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
