//! [`Turn`]: polls a connection so that what wakes it meanwhile has it polled again at once.
//!
//! hyper wakes a connection from within each request that has a body. By way of a scheduler with several threads that costs
//! the wake-up of another thread, which then goes on with the connection: more than all else that is done for a request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use atomic_waker::AtomicWaker;

/// Polls in a row: then it is the scheduler's to say who is next.
const POLLS: usize = 2;

/// The next wake is for the task.
const WAITING: u8 = 0;
const POLLING: u8 = 1;
/// The task has been told, or polls again.
const WOKEN: u8 = 2;

/// What is polled in turns.
pub(super) struct Turn {
    shared: Arc<Shared>,
    waker: Waker,
}

struct Shared {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == WAITING {
            self.task.wake();
        }
    }
}

impl Turn {
    pub(super) fn new() -> Self {
        let shared = Arc::new(Shared { state: AtomicU8::new(WAITING), task: AtomicWaker::new() });
        Self { waker: Waker::from(Arc::clone(&shared)), shared }
    }

    /// Polls by `poll`, again if it was woken from within.
    pub(super) fn poll<T>(
        &mut self,
        cx: &Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let Shared { state, task } = &*self.shared;
        task.register(cx.waker());
        for _ in 0..POLLS {
            state.swap(POLLING, Ordering::AcqRel);
            if let Poll::Ready(done) = poll(&mut Context::from_waker(&self.waker)) {
                return Poll::Ready(done);
            }
            if state.compare_exchange(POLLING, WAITING, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Told(AtomicUsize);

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Polls once from outside; `from_within` says after which polls it is woken from within. Gives the polls, and a waker
    /// that was handed in.
    fn poll(turn: &mut Turn, told: &Arc<Told>, from_within: usize) -> (usize, Waker) {
        let (mut polls, mut kept) = (0, None);
        let waker = Waker::from(Arc::clone(told));
        let polled = turn.poll(&Context::from_waker(&waker), |cx| {
            polls += 1;
            kept = Some(cx.waker().clone());
            if polls <= from_within {
                cx.waker().wake_by_ref();
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        (polls, kept.unwrap())
    }

    #[test]
    fn what_wakes_from_within_is_polled_again_and_the_task_is_not_told() {
        let (mut turn, told) = (Turn::new(), Arc::<Told>::default());
        let count = || told.0.load(Ordering::Relaxed);
        assert_eq!(poll(&mut turn, &told, 0).0, 1);
        assert_eq!(poll(&mut turn, &told, 1).0, 2);
        assert_eq!(count(), 0);
        // What does not stop is the scheduler's.
        assert_eq!(poll(&mut turn, &told, usize::MAX).0, POLLS);
        assert_eq!(count(), 1);
    }

    #[test]
    fn the_task_is_told_once_of_what_wakes_between_polls() {
        let (mut turn, told) = (Turn::new(), Arc::<Told>::default());
        let count = || told.0.load(Ordering::Relaxed);
        for round in 1..4 {
            let (_, waker) = poll(&mut turn, &told, round % 2);
            waker.wake_by_ref();
            waker.wake();
            assert_eq!(count(), round);
        }
        // Also after it was told because polling did not come to rest.
        poll(&mut turn, &told, usize::MAX);
        let (_, waker) = poll(&mut turn, &told, 0);
        assert_eq!(count(), 4);
        waker.wake();
        assert_eq!(count(), 5);
    }
}
