//! [`Signal`]: something that happens once, which any number of tasks wait for beside their work.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
};

use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(super) struct Signal {
    set: AtomicBool,
    notify: Notify,
}

impl Signal {
    pub(super) fn set(&self) {
        self.set.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    pub(super) fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Runs `work` until it is done or this is set, which is `None`.
    pub(super) async fn or<F: Future>(&self, work: F) -> Option<F::Output> {
        let mut waiting = pin!(self.notify.notified());
        // From here on no `set` is missed.
        waiting.as_mut().enable();
        if self.is_set() {
            return None;
        }
        let mut work = pin!(work);
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            waiting.as_mut().poll(cx).map(|()| None)
        })
        .await
    }
}
