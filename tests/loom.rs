//! The pool under every interleaving of its atomic operations (bounded). Runs only as
//! `RUSTFLAGS="--cfg loom" cargo test --release --no-default-features --test loom`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(loom)]

use std::{
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use framewire::{
    Frame,
    buffer::{BufferConfig, BufferManager, Latch, Waiter, Window},
};
use loom::{sync::Notify, thread};

/// A manager whose cap is `windows` windows.
fn manager(windows: usize) -> BufferManager {
    let footprint = {
        let probe = BufferManager::new(BufferConfig { pool_size: 0, ..Default::default() });
        let window = probe.try_window(64).unwrap();
        let bytes = probe.metrics().lent_bytes();
        drop(window);
        bytes
    };
    BufferManager::new(BufferConfig {
        max_bytes: footprint * windows,
        backpressure_threshold: 1.0,
        pool_size: 0,
        ..Default::default()
    })
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 20_000;
    builder.max_duration = Some(std::time::Duration::from_secs(40));
    builder.check(check);
}

struct Alarm(Notify);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

/// Waits as a task would: sleeps until it is woken. A lost wake-up is a deadlock, which loom reports.
fn wait_for_window(manager: &BufferManager) -> Window {
    let alarm = Arc::new(Alarm(Notify::new()));
    let waker = Waker::from(alarm.clone());
    let mut waiter = Waiter::new();
    loop {
        match manager.poll_window(&Context::from_waker(&waker), &mut waiter, 64) {
            Poll::Ready(window) => return window.unwrap(),
            Poll::Pending => alarm.0.wait(),
        }
    }
}

#[test]
fn the_last_of_window_and_frames_takes_the_block_home_once() {
    model(|| {
        let manager = manager(1);
        let mut window = manager.try_window(64).unwrap();
        window.spare()[..4].copy_from_slice(b"abcd");
        window.advance(4);
        let frame = Frame::cut(&mut window, 0..2, 2);
        let other = Frame::cut(&mut window, 0..2, 2);
        let thread = thread::spawn(move || {
            assert_eq!(frame, "ab");
            drop(frame.clone());
            drop(frame);
        });
        drop(window);
        assert_eq!(other, "cd");
        drop(other);
        thread.join().unwrap();
        assert_eq!(manager.metrics().lent_bytes(), 0);
        // It is there again, and unshared.
        let mut window = manager.try_window(64).unwrap();
        assert!(window.is_unshared());
        window.spare().fill(1);
        assert_eq!(manager.metrics().misses(), 1);
    });
}

#[test]
fn a_window_is_written_again_only_after_the_frames_readers_are_done() {
    model(|| {
        let manager = manager(1);
        let mut window = manager.try_window(64).unwrap();
        assert!(window.extend(b"abcd"));
        let frame = Frame::cut(&mut window, 0..2, 2);
        let thread = thread::spawn(move || {
            assert_eq!(frame, "ab");
        });
        if window.compact() {
            assert_eq!(window.unread(), b"cd");
        }
        thread.join().unwrap();
        assert!(window.compact());
    });
}

#[test]
fn a_waiter_is_woken_by_a_release() {
    model(|| {
        let manager = manager(1);
        let held = manager.try_window(64).unwrap();
        let thread = thread::spawn(move || drop(held));
        drop(wait_for_window(&manager));
        thread.join().unwrap();
        // The gate is open again.
        drop(manager.try_window(64).unwrap());
    });
}

#[test]
fn two_waiters_are_served_one_after_the_other() {
    model(|| {
        let manager = manager(1);
        let held = manager.try_window(64).unwrap();
        let other = manager.clone();
        let thread = thread::spawn(move || drop(wait_for_window(&other)));
        drop(held);
        drop(wait_for_window(&manager));
        thread.join().unwrap();
        assert_eq!(manager.metrics().lent_bytes(), 0);
    });
}

#[test]
fn a_waiter_that_is_dropped_hands_its_wake_up_on() {
    model(|| {
        let manager = manager(1);
        let held = manager.try_window(64).unwrap();
        let alarm = Arc::new(Alarm(Notify::new()));
        let waker = Waker::from(alarm.clone());
        let mut waiter = Waiter::new();
        assert!(manager.poll_window(&Context::from_waker(&waker), &mut waiter, 64).is_pending());
        let other = manager.clone();
        let thread = thread::spawn(move || drop(wait_for_window(&other)));
        drop(held);
        drop(waiter);
        thread.join().unwrap();
    });
}

#[test]
fn a_block_that_comes_back_while_the_pool_closes_is_freed() {
    model(|| {
        let manager = manager(2);
        let metrics = manager.metrics();
        let (one, two) = (manager.try_window(64).unwrap(), manager.try_window(64).unwrap());
        let thread = thread::spawn(move || drop((one, two)));
        drop(manager);
        thread.join().unwrap();
        assert_eq!(metrics.allocated_bytes(), 0);
    });
}

#[test]
fn two_threads_never_get_the_same_block() {
    model(|| {
        let manager = manager(2);
        let other = manager.clone();
        let work = |manager: &BufferManager, mark: u8| {
            for _ in 0..2 {
                let mut window = manager.try_window(64).unwrap();
                window.spare()[..8].fill(mark);
                window.advance(8);
                assert!(window.unread().iter().all(|&byte| byte == mark));
            }
        };
        let thread = thread::spawn(move || work(&other, 1));
        work(&manager, 2);
        thread.join().unwrap();
        assert_eq!(manager.metrics().lent_bytes(), 0);
    });
}

/// Loom's cell tells when two threads are inside, or when one does not see what the other wrote. Looking in vain, again
/// and again, is nothing that loom can follow: here each thread tries twice.
#[test]
fn a_latch_lets_one_thread_in() {
    model(|| {
        let latch = Arc::new(Latch::new(loom::cell::UnsafeCell::new(0)));
        let add = |latch: &Latch<loom::cell::UnsafeCell<usize>>| {
            let mut inside = 0;
            for _ in 0..2 {
                if let Some(value) = latch.try_lock() {
                    value.with_mut(|value| unsafe { *value += 1 });
                    inside += 1;
                }
            }
            inside
        };
        let other = thread::spawn({
            let latch = latch.clone();
            move || add(&latch)
        });
        let inside = add(&latch) + other.join().unwrap();
        assert!(inside >= 2, "a thread that is alone gets in");
        assert_eq!(latch.try_lock().unwrap().with(|value| unsafe { *value }), inside);
    });
}
