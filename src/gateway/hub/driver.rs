//! [`Driver`]: the one task of a server. Hands on what the desk has for it, and what comes from it to the router.

use std::{
    collections::VecDeque,
    future::poll_fn,
    mem,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use super::{
    desk::{Over, Shared},
    router::Router,
};
use crate::{
    Error, Frame,
    gateway::Supervisor,
    limits::{MAX_READ_WINDOW, VECTORED_THRESHOLD},
    transport::PollTransport,
};

/// Bytes and messages after which other tasks get their turn.
const TURN_BYTES: usize = 2 * MAX_READ_WINDOW;
const TURN_MESSAGES: usize = 256;

pub(super) struct Driver {
    supervisor: Supervisor,
    shared: Arc<Shared>,
    router: Router,
    pending: VecDeque<Frame>,
    /// Bytes handed on that the desk does not know of yet.
    done: usize,
    unflushed: bool,
}

impl Driver {
    pub(super) fn new(supervisor: Supervisor, shared: Arc<Shared>) -> Self {
        let router = Router::new(Arc::clone(&shared));
        Self { supervisor, shared, router, pending: VecDeque::new(), done: 0, unflushed: false }
    }

    /// Runs until the hub is closed or the server is given up.
    pub(super) async fn run(mut self) {
        let over = poll_fn(|cx| self.poll(cx)).await;
        self.shared.lock().end(over, &self.shared, &mut self.router.wake);
        self.router.wake_all();
        poll_fn(|cx| self.supervisor.poll_close(cx)).await.ok();
        self.shared.gone.send_replace(true);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        self.shared.driver.register(cx.waker());
        self.feed(cx);
        let over = self.receive(cx);
        self.router.wake_all();
        if self.shared.closing.load(Relaxed) {
            // What was accepted leaves, as far as it can without waiting.
            return Poll::Ready(Over::Closed);
        }
        over.map(|_| Over::GaveUp)
    }

    /// Hands on what there is for the server, as far as it takes it.
    fn feed(&mut self, cx: &mut Context<'_>) {
        loop {
            if self.pending.is_empty() {
                let done = mem::take(&mut self.done);
                self.shared.lock().hand_over(&mut self.pending, done, &mut self.router.wake);
                if self.pending.is_empty() {
                    break;
                }
            }
            if self.pass_on(cx).is_pending() {
                let done = mem::take(&mut self.done);
                self.shared.lock().hand_over(&mut self.pending, done, &mut self.router.wake);
                break;
            }
        }
        if self.unflushed && self.supervisor.poll_flush(cx).is_ready() {
            self.unflushed = false;
        }
    }

    fn pass_on(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(frame) = self.pending.front() {
            if !self.supervisor.has_room() && ready!(self.supervisor.poll_ready(cx)).is_err() {
                // The server is over, which shows when receiving.
                self.pending.clear();
                return Poll::Ready(());
            }
            self.unflushed = true;
            // One that cannot be sent is answered by the supervisor.
            let _ = if frame.len() < VECTORED_THRESHOLD {
                self.supervisor.start_feed(frame)
            } else {
                self.supervisor.start_send_frame(frame)
            };
            self.done += frame.len();
            self.pending.pop_front();
        }
        Poll::Ready(())
    }

    fn receive(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let mut bytes = 0;
        for _ in 0..TURN_MESSAGES {
            match self.supervisor.poll_receive_lent(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) if error.is_fatal() => return Poll::Ready(error),
                Poll::Ready(Err(_)) => {}
                Poll::Ready(Ok(message)) => {
                    bytes += message.len();
                    self.router.route(message);
                }
            }
            if bytes > TURN_BYTES {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
