//! [`Latch`]: a lock for sections of a few nanoseconds.
//!
//! Uses `sync` only; `link` may use it.

#![allow(unsafe_code)]

use std::{
    cell::UnsafeCell,
    fmt,
    ops::{Deref, DerefMut},
};

use super::sync::{AtomicBool, Ordering, pause};

/// Looks at a latch that is held before the thread gives way to others.
const SPINS: u32 = 64;

/// A lock around a value that is only ever held for a few nanoseconds, never over a system call or an `await`.
///
/// One atomic read-modify-write to take it, a plain store to give it back: half of what a mutex costs, which has to look
/// for sleepers when it is given back. Nobody sleeps here: who finds it held looks again, and gives way after some looks.
/// A panic of the holder gives it back; whoever needs the value to be whole then has to see to it.
pub struct Latch<T> {
    held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through a guard alone, of which there is one at a time, on whatever thread.
unsafe impl<T: Send> Send for Latch<T> {}
// SAFETY: as above; no two threads ever have a reference at the same time, so `T: Send` is enough.
unsafe impl<T: Send> Sync for Latch<T> {}

impl<T> Latch<T> {
    /// A latch around `value`.
    pub fn new(value: T) -> Self {
        Self { held: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Waits until nobody else holds the latch. Taking it twice on one thread never ends.
    #[inline]
    pub fn lock(&self) -> LatchGuard<'_, T> {
        if !self.take() {
            self.wait();
        }
        LatchGuard { latch: self }
    }

    #[inline]
    fn take(&self) -> bool {
        self.held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// The value, if nobody else holds the latch.
    #[inline]
    pub fn try_lock(&self) -> Option<LatchGuard<'_, T>> {
        self.take().then(|| LatchGuard { latch: self })
    }

    /// The value, which nobody else can reach while the latch is borrowed mutably.
    #[inline]
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    #[cold]
    #[inline(never)]
    fn wait(&self) {
        let mut looks = 0;
        loop {
            // Looking does not take the line away from the holder, as another try would.
            if !self.held.load(Ordering::Relaxed) && self.take() {
                return;
            }
            looks += 1;
            pause(looks < SPINS);
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Latch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the value: printing may take long, and may come from where the latch is held.
        f.debug_struct("Latch").finish_non_exhaustive()
    }
}

/// The value of a [`Latch`], while it is held.
#[derive(Debug)]
pub struct LatchGuard<'a, T> {
    latch: &'a Latch<T>,
}

// SAFETY: a guard shared between threads gives out `&T` only.
unsafe impl<T: Sync> Sync for LatchGuard<'_, T> {}

impl<T> Deref for LatchGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one (`held` was false when it was made and is true until it is dropped), so
        // nothing but it reaches the value; the acquire above sees what the last holder wrote.
        unsafe { &*self.latch.value.get() }
    }
}

impl<T> DerefMut for LatchGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { &mut *self.latch.value.get() }
    }
}

impl<T> Drop for LatchGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.latch.held.store(false, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A lost update would show that two threads were inside at once.
    #[test]
    fn no_two_threads_are_inside() {
        let latch = Latch::new((0u64, 0u64));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let mut both = latch.lock();
                        assert_eq!(both.0, both.1);
                        both.0 += 1;
                        std::hint::black_box(&mut both.0);
                        both.1 += 1;
                    }
                });
            }
        });
        assert_eq!(*latch.lock(), (80_000, 80_000));
    }

    #[test]
    fn a_panic_gives_it_back() {
        let latch = Latch::new(1);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _held = latch.lock();
            panic!("inside");
        }));
        assert!(outcome.is_err());
        assert_eq!(*latch.lock(), 1);
    }
}
