//! Where a supervisor stands with its server, and the steps from one place to the next.

use std::{future::Future, io, pin::Pin, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::{Instant, Sleep};

use super::{
    Context, Envelope, Error, ExponentialBackoff, Mutex, Poll, SERVER_ENDED, State, Supervisor,
    SupervisorConfig, SupervisorEvent, json, mem,
    status::Count,
    tracker::{ENDED, GIVEN_UP, NOT_RUNNING, RESTARTING},
};
use crate::{error::Deadline, gateway::Opening, limits::CLOSE_TIMEOUT};

/// How long a server whose input is gone may still say something.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub(super) enum Phase {
    /// The next step opens a connection.
    Idle,
    /// The mutex is never locked: it makes the future one that may be shared, as a transport has to be.
    Opening(Mutex<Opening>),
    /// `initialize` is to be repeated.
    Greeting,
    /// It is repeated; the answer is to come.
    Replaying,
    /// The handshake is done; what the client had set is set again.
    Restoring,
    Up,
    /// The server has ended and is closed in order.
    Leaving,
    /// The pause before the next.
    Waiting,
    /// Nothing comes any more.
    Over,
}

/// A message for a server that is not there.
pub(super) struct Held {
    until: Instant,
    bytes: Vec<u8>,
}

/// A deadline that may be set again without an allocation.
#[derive(Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl Timer {
    fn arm(&mut self, after: Duration) {
        // Beyond what a clock can say is never.
        if let Some(at) = Instant::now().checked_add(after) {
            self.arm_at(at);
        }
    }

    fn arm_at(&mut self, at: Instant) {
        self.armed = true;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(at),
            None => self.sleep = Some(Box::pin(tokio::time::sleep_until(at))),
        }
    }

    fn disarm(&mut self) {
        self.armed = false;
    }

    fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        self.armed && self.sleep.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready())
    }
}

pub(super) fn backoff(config: &SupervisorConfig) -> ExponentialBackoff {
    // Jitter adds up to as much again.
    let max = (config.backoff_max / 2).max(config.backoff_min);
    ExponentialBuilder::new()
        .with_factor(2.0)
        .with_min_delay(config.backoff_min)
        .with_max_delay(max)
        .without_max_times()
        .with_jitter()
        .build()
}

impl Supervisor {
    /// Takes all steps that can be taken now.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let (Some((size, limit)), Some(server)) = (self.overrun.take(), &self.server) {
            self.tracker.overrun(size, limit, server.excerpt());
        }
        loop {
            if let Some(error) = self.ended.take() {
                self.end(&error);
            }
            if self.hold_timer.is_due(cx) {
                self.expire();
            }
            let go_on = match self.phase {
                Phase::Idle => self.open(),
                Phase::Opening(_) => self.opening(cx),
                Phase::Greeting => self.greet(cx),
                Phase::Replaying => self.replaying(cx),
                Phase::Restoring => self.restore(cx),
                Phase::Up => self.up(cx),
                Phase::Leaving => self.leave(cx),
                Phase::Waiting => {
                    let due = self.timer.is_due(cx);
                    if due {
                        self.phase = Phase::Idle;
                    }
                    due
                }
                Phase::Over => false,
            };
            if !go_on {
                return;
            }
        }
    }

    fn open(&mut self) -> bool {
        self.number += 1;
        self.phase = Phase::Opening(Mutex::new(self.backend.open(self.number)));
        self.timer.arm(self.config.open_timeout);
        true
    }

    fn opening(&mut self, cx: &mut Context<'_>) -> bool {
        let Phase::Opening(opening) = &mut self.phase else { return false };
        let opening = opening.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let error = match opening.as_mut().poll(cx) {
            Poll::Ready(Ok(server)) => {
                self.server = Some(server);
                self.tracker.status.add(Count::Opened);
                self.tracker.observer.event(&SupervisorEvent::Opened { number: self.number });
                if self.tracker.greeting().is_some() {
                    self.phase = Phase::Greeting;
                    self.timer.arm(self.config.replay_timeout);
                } else {
                    self.rise();
                }
                return true;
            }
            Poll::Ready(Err(error)) => error,
            Poll::Pending if self.timer.is_due(cx) => io::Error::from(io::ErrorKind::TimedOut),
            Poll::Pending => return false,
        };
        self.tracker.status.add(Count::OpenFailure);
        self.tracker.observer.event(&SupervisorEvent::OpenFailed { number: self.number, error: &error });
        self.pause();
        true
    }

    /// Repeats `initialize`.
    fn greet(&mut self, cx: &mut Context<'_>) -> bool {
        let (Some(server), Some(greeting)) = (&mut self.server, self.tracker.greeting()) else {
            return false;
        };
        match server.poll_ready(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => {
                self.ended = Some(error);
                return true;
            }
            Poll::Pending => return self.late(cx),
        }
        match server.start_send(greeting) {
            Ok(()) => self.phase = Phase::Replaying,
            Err(error) => self.ended = Some(error),
        }
        true
    }

    fn replaying(&mut self, cx: &mut Context<'_>) -> bool {
        match self.replayed.take() {
            None => return self.late(cx),
            Some(false) => {
                let text = "the server answered the repeated initialize with an error";
                self.ended = Some(Error::Io(io::Error::other(text)));
                return true;
            }
            Some(true) => {}
        }
        if let (Some(server), Some(initialized)) = (&mut self.server, self.tracker.initialized())
            && let Err(error) = match server.poll_ready(cx) {
                Poll::Ready(Ok(())) => server.start_send(initialized),
                Poll::Ready(Err(error)) => Err(error),
                Poll::Pending => {
                    self.replayed = Some(true);
                    return false;
                }
            }
        {
            self.ended = Some(error);
            return true;
        }
        self.tracker.observer.event(&SupervisorEvent::Replayed { number: self.number });
        self.restoring = self.tracker.settings.repeat();
        self.phase = Phase::Restoring;
        true
    }

    /// Sets again what the client had set. The answers are swallowed when they come: what the client sends is behind.
    fn restore(&mut self, cx: &mut Context<'_>) -> bool {
        while let Some(request) = self.restoring.front() {
            let Some(server) = &mut self.server else { return false };
            let sent = match server.poll_ready(cx) {
                Poll::Ready(Ok(())) => server.start_send(request),
                Poll::Ready(Err(error)) => Err(error),
                Poll::Pending => return self.late(cx),
            };
            if let Err(error) = sent {
                self.ended = Some(error);
                return true;
            }
            self.restoring.pop_front();
        }
        self.restoring = std::collections::VecDeque::new();
        self.rise();
        true
    }

    /// Whether the handshake takes too long.
    fn late(&mut self, cx: &mut Context<'_>) -> bool {
        let late = self.timer.is_due(cx);
        if late {
            let after = self.config.replay_timeout;
            self.ended = Some(Error::TimedOut { deadline: Deadline::Connect, after });
        }
        late
    }

    fn rise(&mut self) {
        self.phase = Phase::Up;
        self.timer.disarm();
        self.tracker.status.set(State::Ready);
    }

    /// Hands on what was held.
    fn up(&mut self, cx: &mut Context<'_>) -> bool {
        if self.cut.is_some() {
            if self.timer.is_due(cx) {
                self.ended = self.cut.take();
                return true;
            }
            return false;
        }
        while !self.held.is_empty() {
            let Some(server) = &mut self.server else { return false };
            match server.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.cut_off(error);
                    return true;
                }
                Poll::Pending => return false,
            }
            let Some(held) = self.held.pop_front() else { return false };
            match server.start_send(&held.bytes) {
                Ok(()) => {
                    if let Ok(envelope) = Envelope::peek(&held.bytes) {
                        self.tracker.note(&envelope);
                    }
                }
                Err(error) if error.is_fatal() => {
                    self.held.push_front(held);
                    self.cut_off(error);
                    return true;
                }
                Err(_) => self.refuse_held(&held, "the message cannot be sent"),
            }
            self.held_bytes -= held.bytes.len();
        }
        if self.hold_timer.armed {
            self.hold_timer.disarm();
            self.held = std::collections::VecDeque::new();
        }
        false
    }

    /// Nothing can be sent any more: what may still come is waited for a little.
    pub(super) fn cut_off(&mut self, error: Error) {
        if self.cut.is_none() {
            self.cut = Some(error);
            self.timer.arm(LAST_WORDS);
        }
    }

    /// The server has ended.
    fn end(&mut self, error: &Error) {
        let in_flight = self.tracker.in_flight();
        // That it ends when its input does, with nothing left to do, is no news.
        if !(self.finishing && in_flight == 0 && error.is_clean_end()) {
            self.tracker.status.add(Count::Ended);
            let (answered, finishing) = (self.tracker.has_answered(), self.finishing);
            let event = SupervisorEvent::Ended { number: self.number, error, in_flight, answered, finishing };
            self.tracker.observer.event(&event);
        }
        self.tracker.fail_all(if self.finishing { ENDED } else { RESTARTING });
        (self.cut, self.replayed) = (None, None);
        self.restoring.clear();
        if self.finishing && self.held.is_empty() {
            self.finish();
            return;
        }
        if self.tracker.status.state() == State::Ready {
            self.tracker.status.set(State::Restarting);
        }
        self.phase = Phase::Leaving;
        self.timer.arm(CLOSE_TIMEOUT);
    }

    /// The client sends no more, and there is no server to wait for.
    pub(super) fn finish(&mut self) {
        self.phase = Phase::Over;
        self.tracker.status.set(State::Closed);
    }

    /// Sees the process behind the connection end.
    fn leave(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(server) = &mut self.server
            && server.poll_close(cx).is_pending()
            && !self.timer.is_due(cx)
        {
            return false;
        }
        self.server = None;
        self.pause();
        true
    }

    fn pause(&mut self) {
        if self.tracker.take_answered() {
            self.restarts = 0;
            self.backoff = backoff(&self.config);
        }
        self.restarts = self.restarts.saturating_add(1);
        if self.config.max_restarts.is_some_and(|max| self.restarts > max) {
            self.phase = Phase::Over;
            self.tracker.status.set(State::GaveUp);
            self.tracker.observer.event(&SupervisorEvent::GaveUp { restarts: self.restarts });
            for held in mem::take(&mut self.held) {
                self.refuse_held(&held, GIVEN_UP);
            }
            self.held_bytes = 0;
            return;
        }
        let pause = self.backoff.next().unwrap_or(self.config.backoff_max);
        self.tracker.observer.event(&SupervisorEvent::Waiting { pause });
        self.phase = Phase::Waiting;
        self.timer.arm(pause);
    }

    /// Keeps a message until there is a server.
    pub(super) fn hold(&mut self, bytes: &[u8], envelope: Option<&Envelope<'_>>) {
        if let Some(envelope) = envelope {
            let passes = matches!(self.phase, Phase::Up) && self.cut.is_none();
            if !passes && self.tracker.note_initialized(envelope) {
                return;
            }
            if envelope.kind() == json::Kind::Notification
                && envelope.method().is_some_and(|method| method.is("notifications/cancelled"))
            {
                self.cancel_held(envelope);
                return;
            }
        }
        let Some(until) = Instant::now().checked_add(self.config.hold) else { return };
        let held = Held { until, bytes: bytes.to_vec() };
        if self.held.len() >= self.config.hold_messages
            || self.held_bytes + bytes.len() > self.config.hold_bytes
        {
            self.refuse_held(&held, NOT_RUNNING);
            return;
        }
        if !self.hold_timer.armed {
            self.hold_timer.arm_at(until);
        }
        self.held_bytes += bytes.len();
        self.held.push_back(held);
    }

    /// The client takes back what no server has seen: neither is to see any of it.
    fn cancel_held(&mut self, cancelled: &Envelope<'_>) {
        let Ok(Some(id)) = cancelled.request_id() else { return };
        let is = |held: &Held| {
            Envelope::peek(&held.bytes)
                .is_ok_and(|envelope| envelope.kind() == json::Kind::Request && envelope.raw_id() == Some(id))
        };
        if let Some(at) = self.held.iter().position(is)
            && let Some(held) = self.held.remove(at)
        {
            self.held_bytes -= held.bytes.len();
        }
    }

    /// Answers what has waited too long.
    fn expire(&mut self) {
        self.hold_timer.disarm();
        let now = Instant::now();
        while self.held.front().is_some_and(|held| held.until <= now)
            && let Some(held) = self.held.pop_front()
        {
            self.held_bytes -= held.bytes.len();
            self.refuse_held(&held, NOT_RUNNING);
        }
        if let Some(held) = self.held.front() {
            self.hold_timer.arm_at(held.until);
        }
    }

    fn refuse_held(&mut self, held: &Held, text: &str) {
        match Envelope::peek(&held.bytes) {
            Ok(envelope) => self.tracker.refuse(&envelope, SERVER_ENDED, text),
            Err(_) => self.tracker.status.add(Count::Lost),
        }
    }
}
