//! The one thread of this program that waits for killed children, so that dropping one neither waits nor leaves a
//! zombie, with or without a runtime.
//!
//! Used by child only. The thread starts with the first child that is not quick to die.

use std::{
    sync::{Mutex, PoisonError, mpsc},
    time::Duration,
};

/// Reaps if it can; true when nothing is left to do.
pub(super) type Reap = Box<dyn FnMut() -> bool + Send>;

/// Has the thread call `reap` now and then until it says true.
pub(super) fn hand_over(reap: Reap) {
    static REAPER: Mutex<Option<mpsc::Sender<Reap>>> = Mutex::new(None);
    let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    let mut reap = match &*reaper {
        Some(queue) => match queue.send(reap) {
            Ok(()) => return,
            Err(mpsc::SendError(reap)) => reap,
        },
        None => reap,
    };
    // As long as there are children that were told to end and have not: the system bounds those.
    let (queue, inbox) = mpsc::channel();
    let started = std::thread::Builder::new()
        .name("framewire-reaper".into())
        .stack_size(64 * 1024)
        .spawn(move || reap_all(&inbox));
    if started.is_ok() {
        drop(queue.send(reap));
        *reaper = Some(queue);
    } else {
        // No thread to be had: it was told to end, so this is short.
        while !reap() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn reap_all(inbox: &mpsc::Receiver<Reap>) {
    let mut waiting: Vec<Reap> = Vec::new();
    let mut pause = Duration::from_millis(1);
    loop {
        let next = if waiting.is_empty() {
            inbox.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected)
        } else {
            inbox.recv_timeout(pause)
        };
        match next {
            Ok(reap) => {
                waiting.push(reap);
                pause = Duration::from_millis(1);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => pause = (pause * 2).min(Duration::from_millis(100)),
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        waiting.retain_mut(|reap| !reap());
    }
}
