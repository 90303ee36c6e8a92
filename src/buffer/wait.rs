//! The queue of tasks that wait for a buffer: first come, first served; cancel-safe; nothing here is touched while
//! nobody waits.
//!
//! A waiter is woken, not served: it takes what it was woken for itself. So a task that is never polled again holds no
//! buffer, and a waiter that is dropped hands its wake-up on.

use std::{collections::BTreeMap, mem, task::Waker};

use super::{pool::Pool, sync::Arc};

/// The most tasks that may wait on one pool. Beyond it an acquire fails at once.
pub(super) const MAX_WAITERS: usize = 65_536;

#[derive(Debug)]
struct Entry {
    waker: Waker,
    /// Woken and not yet seen again.
    notified: bool,
}

/// All waiters of a pool, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct WaitList {
    next: u64,
    entries: BTreeMap<u64, Entry>,
}

impl WaitList {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds a waiter; `None` when there are too many.
    pub(super) fn add(&mut self, waker: &Waker) -> Option<u64> {
        if self.entries.len() >= MAX_WAITERS {
            return None;
        }
        let key = self.next;
        self.next += 1;
        self.entries.insert(key, Entry { waker: waker.clone(), notified: false });
        Some(key)
    }

    /// The task of `key` is here again and goes on waiting. Returns whether it had been woken, and its old waker if
    /// that is of no more use (to be dropped outside the lock).
    pub(super) fn renew(&mut self, key: u64, waker: &Waker) -> (bool, Option<Waker>) {
        let Some(entry) = self.entries.get_mut(&key) else { return (false, None) };
        let old = (!entry.waker.will_wake(waker)).then(|| mem::replace(&mut entry.waker, waker.clone()));
        (mem::take(&mut entry.notified), old)
    }

    /// Removes a waiter and returns its waker (to be dropped outside the lock) and whether it had been woken.
    pub(super) fn remove(&mut self, key: u64) -> Option<(Waker, bool)> {
        self.entries.remove(&key).map(|entry| (entry.waker, entry.notified))
    }

    /// Whether nobody who still sleeps came before `key`.
    pub(super) fn is_first(&self, key: u64) -> bool {
        self.entries.iter().find(|(_, entry)| !entry.notified).is_none_or(|(&first, _)| first >= key)
    }

    /// Marks the first sleeper as woken and returns its waker, to be woken outside the lock.
    pub(super) fn notify(&mut self) -> Option<Waker> {
        let entry = self.entries.values_mut().find(|entry| !entry.notified)?;
        entry.notified = true;
        Some(entry.waker.clone())
    }
}

/// A place in the queue for a buffer, for those who poll by hand: keep it from one poll to the next. Dropping it, or
/// calling [`cancel`](Self::cancel), gives the place up and loses nothing.
#[derive(Debug, Default)]
pub struct Waiter {
    place: Option<(Arc<Pool>, u64)>,
}

impl Waiter {
    /// A waiter that waits for nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { place: None }
    }

    /// Whether it stands in a queue.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        self.place.is_some()
    }

    /// Leaves the queue. A wake-up that came meanwhile is handed on to the next.
    pub fn cancel(&mut self) {
        if let Some((pool, key)) = self.place.take() {
            pool.leave(key);
        }
    }

    pub(super) fn key(&mut self, pool: &Arc<Pool>) -> Option<u64> {
        if self.place.as_ref().is_some_and(|(other, _)| !Arc::ptr_eq(other, pool)) {
            self.cancel();
        }
        self.place.as_ref().map(|&(_, key)| key)
    }

    pub(super) fn stand(&mut self, pool: &Arc<Pool>, key: u64) {
        self.place = Some((Arc::clone(pool), key));
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.cancel();
    }
}
