//! The one switch between the real atomics and loom's: with `--cfg loom` the pool is model-checked as it stands.

#[cfg(not(loom))]
pub(super) use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence},
};

#[cfg(not(loom))]
pub(super) use crossbeam_queue::ArrayQueue as Queue;
#[cfg(loom)]
pub(super) use loom::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence},
};

/// Stands in for the lock-free queue, which loom cannot look into: one atomic step for each operation.
#[cfg(loom)]
#[derive(Debug)]
pub(super) struct Queue<T> {
    items: Mutex<std::collections::VecDeque<T>>,
    capacity: usize,
}

#[cfg(loom)]
#[allow(clippy::unwrap_used)]
impl<T> Queue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { items: Mutex::new(std::collections::VecDeque::new()), capacity }
    }

    pub(super) fn push(&self, item: T) -> Result<(), T> {
        let mut items = self.items.lock().unwrap();
        if items.len() == self.capacity {
            return Err(item);
        }
        items.push_back(item);
        Ok(())
    }

    pub(super) fn pop(&self) -> Option<T> {
        self.items.lock().unwrap().pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.items.lock().unwrap().len()
    }
}

/// How many lanes a shelf has: so many threads can take and give back at once without touching one another.
#[cfg(not(loom))]
pub(super) fn lanes() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).next_power_of_two().clamp(2, 8)
}

/// Under loom one lane, so that threads meet on it.
#[cfg(loom)]
pub(super) fn lanes() -> usize {
    1
}

/// A small number that stays the same for this thread: threads are numbered as they come.
#[cfg(not(loom))]
#[inline]
pub(super) fn thread_number() -> usize {
    use std::cell::Cell;

    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    #[cold]
    fn assign() -> usize {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) & (usize::MAX >> 1);
        NUMBER.with(|cell| cell.set(number));
        number
    }
    let number = NUMBER.with(Cell::get);
    if number == usize::MAX { assign() } else { number }
}

/// Under loom all threads use the one lane.
#[cfg(loom)]
pub(super) fn thread_number() -> usize {
    0
}

/// A look at something that another thread holds was in vain: `soon` says that it is worth looking again at once.
#[cfg(not(loom))]
pub(super) fn pause(soon: bool) {
    if soon { std::hint::spin_loop() } else { std::thread::yield_now() }
}

/// Under loom always lets another thread go on.
#[cfg(loom)]
pub(super) fn pause(_soon: bool) {
    loom::thread::yield_now();
}
