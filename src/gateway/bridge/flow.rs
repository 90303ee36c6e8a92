//! One direction of a bridge.
//!
//! Used by bridge only. Holds no message: one is taken only when the other side has room for it, and is handed on in the
//! same step.

use std::task::{Context, Poll};

use super::{Direction, Observer, Passed, pending::Pending};
use crate::{
    Error,
    error::{Deadline, End},
    limits::{MAX_READ_WINDOW, VECTORED_THRESHOLD},
    transport::PollTransport,
};

/// Bytes after which the other direction gets its turn. What one read can bring leaves in one write.
const TURN: usize = 2 * MAX_READ_WINDOW;

/// What a message counts towards a turn beside its bytes.
const MESSAGE: usize = 16;

enum State {
    Open,
    /// Nothing more is taken; what was passed on leaves, then the other side's input is closed.
    Closing,
    /// As `Closing`, but the other side ends both directions at once, and may have answers under way.
    Held,
    Done,
}

/// One direction: what has passed, and where it stands.
pub(super) struct Flow<'a, O: ?Sized> {
    direction: Direction,
    observer: &'a O,
    state: State,
    waiting: bool,
    unflushed: bool,
    /// A client gets nothing more once its backend has ended.
    may_hold: bool,
    progress: u64,
    #[cfg(feature = "json")]
    noise: super::Noise,
    pub(super) passed: Passed,
}

impl<'a, O: Observer + ?Sized> Flow<'a, O> {
    pub(super) fn new(direction: Direction, observer: &'a O) -> Self {
        Self {
            direction,
            observer,
            state: State::Open,
            waiting: false,
            unflushed: false,
            may_hold: direction == Direction::ToBackend,
            progress: 0,
            #[cfg(feature = "json")]
            noise: super::Noise::default(),
            passed: Passed::new(),
        }
    }

    /// What becomes of messages that are none.
    #[cfg(feature = "json")]
    pub(super) fn look_for(&mut self, noise: super::Noise) {
        self.noise = noise;
    }

    /// Whether `payload` is left out as it is no message.
    #[cfg(feature = "json")]
    fn is_dropped(&mut self, payload: &[u8]) -> bool {
        use super::Noise;
        use crate::json::{Envelope, EnvelopeError, Kind};

        if self.noise == Noise::Unseen {
            return false;
        }
        let is_noise = match Envelope::peek(payload) {
            Ok(envelope) => envelope.kind() == Kind::Other,
            // A message, if a bad one: whoever reads it will say so.
            Err(EnvelopeError::DuplicateKey { .. }) => false,
            Err(_) => true,
        };
        if is_noise {
            self.observer.noise(self.direction, payload);
        }
        let is_dropped = is_noise && self.noise == Noise::Drop;
        self.passed.dropped += u64::from(is_dropped);
        is_dropped
    }

    /// Moves what can be moved now and registers for more.
    pub(super) fn poll<A, B>(&mut self, from: &mut A, to: &mut B, pending: &mut Pending, cx: &mut Context<'_>)
    where
        A: PollTransport + ?Sized,
        B: PollTransport + ?Sized,
    {
        self.waiting = false;
        if matches!(self.state, State::Open) {
            self.pass(from, to, pending, cx);
        }
        if matches!(self.state, State::Held) {
            self.flush(to, cx);
        }
        if matches!(self.state, State::Closing) && self.may_hold && to.ends_both_ways() {
            self.may_hold = false;
            self.state = State::Held;
            self.flush(to, cx);
        }
        if matches!(self.state, State::Closing)
            && let Poll::Ready(closed) = to.poll_close_sending(cx)
        {
            if let Err(error) = closed {
                self.fail(error);
            }
            self.state = State::Done;
        }
    }

    /// Takes nothing more.
    pub(super) fn stop(&mut self) {
        if matches!(self.state, State::Open) {
            self.state = State::Closing;
        }
    }

    /// Whether the other side is told of the end only when [`release`](Self::release) says so.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.state, State::Held)
    }

    pub(super) fn release(&mut self) {
        if self.is_held() {
            self.state = State::Closing;
        }
    }

    /// Whether all that has come was taken, and more may come.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Whether nothing more can be delivered.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Done) || self.passed.sent.is_some()
    }

    /// Whether the other side has not read for longer than its link waits.
    pub(super) fn is_late(&self) -> bool {
        matches!(self.passed.sent, Some(Error::TimedOut { deadline: Deadline::Write, .. }))
    }

    /// Whether what was to be received from is gone altogether, and with it whatever could be sent there.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self.passed.received, Some(Error::Ended(End::Reset)))
    }

    /// Whether something came that could not be sent on.
    pub(super) fn loses(&self) -> bool {
        self.passed.lost > 0
    }

    /// Changes whenever something has moved.
    pub(super) fn progress(&self) -> u64 {
        self.progress
    }

    fn pass<A, B>(&mut self, from: &mut A, to: &mut B, pending: &mut Pending, cx: &mut Context<'_>)
    where
        A: PollTransport + ?Sized,
        B: PollTransport + ?Sized,
    {
        // While the other side does not take the last batch, there is no other.
        if !self.flush(to, cx) {
            return;
        }
        let mut turn = 0;
        while turn < TURN {
            // A side that is gone is not waited for: what comes for it is thrown away, until its peer has seen its end.
            if self.passed.sent.is_none() && !(self.unflushed && to.has_room()) {
                match to.poll_ready(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => self.fail(error),
                    Poll::Pending if self.unflushed && self.flush(to, cx) => continue,
                    Poll::Pending => return,
                }
            }
            match from.poll_receive_with_kind(cx) {
                Poll::Ready(Ok((kind, payload))) => {
                    to.set_kind(kind);
                    turn += payload.len() + MESSAGE;
                    self.hand_on(payload, to, pending);
                }
                Poll::Ready(Err(error)) if error.is_fatal() => {
                    self.passed.received = Some(error);
                    self.state = State::Closing;
                    return;
                }
                Poll::Ready(Err(error)) => {
                    turn += MESSAGE;
                    self.drop(&error);
                }
                Poll::Pending => {
                    self.waiting = true;
                    self.flush(to, cx);
                    return;
                }
            }
        }
        if self.flush(to, cx) {
            cx.waker().wake_by_ref();
        }
    }

    /// Whether everything that was passed on has left; true also when nothing can leave any more.
    fn flush(&mut self, to: &mut (impl PollTransport + ?Sized), cx: &mut Context<'_>) -> bool {
        if !self.unflushed || self.passed.sent.is_some() {
            return true;
        }
        let Poll::Ready(flushed) = to.poll_flush(cx) else { return false };
        self.unflushed = false;
        self.progress += 1;
        if let Err(error) = flushed {
            self.fail(error);
        }
        true
    }

    fn hand_on(&mut self, payload: &[u8], to: &mut (impl PollTransport + ?Sized), pending: &mut Pending) {
        self.progress += 1;
        if self.passed.sent.is_some() {
            self.passed.lost += 1;
            return;
        }
        #[cfg(feature = "json")]
        if self.is_dropped(payload) {
            return;
        }
        self.observer.message(self.direction, payload);
        // Small messages are gathered until the flush; large ones go where they are to go without being gathered first.
        let sent =
            if payload.len() < VECTORED_THRESHOLD { to.start_feed(payload) } else { to.start_send(payload) };
        match sent {
            Ok(()) => {
                self.unflushed = true;
                self.passed.messages += 1;
                self.passed.bytes += payload.len() as u64;
                pending.note(self.direction, payload);
            }
            Err(error) if error.is_fatal() => {
                self.passed.lost += 1;
                self.fail(error);
            }
            Err(error) => {
                // An answer that the client cannot take is one: no other will come.
                if self.direction == Direction::ToClient {
                    pending.note(self.direction, payload);
                }
                self.drop(&error);
            }
        }
    }

    fn drop(&mut self, error: &Error) {
        self.passed.dropped += 1;
        self.observer.dropped(self.direction, error);
    }

    fn fail(&mut self, error: Error) {
        self.passed.sent.get_or_insert(error);
    }
}
