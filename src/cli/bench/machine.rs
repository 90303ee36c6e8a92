//! What the figures were measured on, and how it is kept comparable.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

/// The machine, as far as the system tells.
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) system: String,
}

impl Machine {
    pub(super) fn new() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo")
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned());
        let release = read("/proc/sys/kernel/osrelease");
        Self {
            cpu,
            cores: thread::available_parallelism().map_or(1, Into::into),
            system: format!("{} {}", std::env::consts::OS, release.trim()).trim_end().to_owned(),
        }
    }
}

/// Keeps every core awake with threads that run only when nothing else wants to.
///
/// A virtual core that has fallen asleep takes 50 µs and more to wake: it would be most of what is measured, and the
/// same for every program.
pub(super) struct Awake {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Awake {
    pub(super) fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = thread::available_parallelism().map_or(1, Into::into);
        let spin = |_| {
            let stop = stop.clone();
            thread::spawn(move || {
                // Only of this thread, on Linux. Elsewhere it would be the whole process, so nothing is kept awake.
                if !cfg!(target_os = "linux") || !yield_to_others() {
                    return;
                }
                while !stop.load(Relaxed) {
                    for _ in 0..1000 {
                        std::hint::spin_loop();
                    }
                }
            })
        };
        let threads = (0..cores).map(spin).collect();
        Self { stop, threads }
    }
}

#[cfg(target_os = "linux")]
fn yield_to_others() -> bool {
    rustix::process::setpriority_process(None, 19).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn yield_to_others() -> bool {
    false
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
