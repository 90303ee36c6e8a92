//! [`Supervisor`]: a server that is kept running, as one transport that does not end when the server does.
//!
//! Uses `transport`, `json` and what is below them; the hub and the command use it. It logs nothing: a
//! [`SupervisorObserver`] is told.

mod config;
mod phase;
mod settings;
mod status;
mod tracker;

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use backon::ExponentialBackoff;

pub use self::{
    config::{SupervisorConfig, SupervisorEvent, SupervisorObserver},
    status::{Counts, State, Status},
};
use self::{
    phase::{Held, Phase, Timer},
    tracker::{Incoming, Outgoing, Tracker},
};
use super::{
    Backend, Silent,
    refusal::{INVALID_REQUEST, SERVER_ENDED},
};
use crate::{
    Error, Frame, Result,
    buffer::BufferManager,
    codec::Kind,
    error::{End, Fault},
    json::{self, Envelope},
    transport::PollTransport,
};

/// Answers of our own that wait for the client, above which it is not read from.
const MAX_OWED: usize = 64;

/// A server that ends too often and is not started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server ended {restarts} times in a row without an answer and is not started again")]
pub struct GaveUp {
    /// How many times in a row it was started.
    pub restarts: u32,
}

/// A server behind the gateway that is started again whenever it ends, with one client before it.
///
/// Messages pass byte for byte. It opens the connection when it is first polled, and goes on for as long as it is polled.
///
/// # When the server ends
/// - Each request under way is answered with an error at once: code [`SERVER_ENDED`], the id's bytes as they came.
/// - Requests of the server that wait at the client are taken back (`notifications/cancelled`); late answers are dropped
///   and counted. A request of the new server with such an id gets another one until it is answered.
/// - It is opened again after a pause that doubles each time, with jitter, and is short again only once a request was
///   answered with a result.
/// - The client's `initialize` is repeated, its answer swallowed, and `notifications/initialized` repeated. So are the last
///   `logging/setLevel` and the `resources/subscribe` of all that the client is subscribed to (up to
///   [`MAX_SUBSCRIPTIONS`](crate::limits::MAX_SUBSCRIPTIONS)), under ids of our own.
/// - What the client sends meanwhile waits for it, up to [`SupervisorConfig::hold`]; then requests are answered with an
///   error. None of it was sent before, so nothing is sent twice.
///
/// # What the server sends
/// What is no JSON-RPC message (not JSON in its outermost structure, not UTF-8, no envelope, unfinished at the end) is
/// told to the observer, counted and skipped. An answer that is not UTF-8 becomes an error answer, and so does one that is
/// too large: when the transport keeps its [ends](PollTransport::excerpt), its id is looked for there, and when that cannot
/// be told, it was that of the only request under way, if there is only one. Else who has asked waits on.
///
/// # When the client ends
/// [`poll_close_sending`](PollTransport::poll_close_sending) closes the server's input; its end is then the end of this
/// transport. [`poll_close`](PollTransport::poll_close) ends it in order at any time.
pub struct Supervisor {
    backend: Arc<dyn Backend>,
    config: SupervisorConfig,
    /// Number of the connection.
    number: u64,
    phase: Phase,
    server: Option<Box<dyn PollTransport>>,
    /// The connection has ended, which is dealt with by the next step.
    ended: Option<Error>,
    /// Size of a message that was too large, and the limit, which is dealt with by the next step.
    overrun: Option<(u64, usize)>,
    /// Nothing can be sent any more, though something may still come.
    cut: Option<Error>,
    /// The answer to the repeated `initialize` has come, and is a result or not.
    replayed: Option<bool>,
    /// What is set again behind the handshake.
    restoring: VecDeque<Vec<u8>>,
    tracker: Tracker,
    held: VecDeque<Held>,
    held_bytes: usize,
    backoff: ExponentialBackoff,
    /// Without an answer in between.
    restarts: u32,
    /// What the phase waits for at most.
    timer: Timer,
    /// What the oldest message held waits for at most.
    hold_timer: Timer,
    /// The client sends no more.
    finishing: bool,
    closed: bool,
    /// The message of our own that was lent last.
    lent: Vec<u8>,
    /// Who waits until `owed` has room.
    waiting: Option<Waker>,
}

/// What receiving is to do.
enum Next {
    Owed,
    Read,
    Wait,
    Over,
}

enum Payload<'a> {
    Feed(&'a [u8]),
    Send(&'a [u8]),
    Frame(&'a Frame),
}

impl Payload<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Feed(bytes) | Self::Send(bytes) => bytes,
            Self::Frame(frame) => frame,
        }
    }
}

impl Supervisor {
    /// A supervisor of what `backend` opens.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, config: SupervisorConfig) -> Self {
        Self::with_observer(backend, config, Arc::new(Silent))
    }

    /// As [`new`](Self::new), and `observer` is told what happens.
    #[must_use]
    pub fn with_observer(
        backend: Arc<dyn Backend>,
        config: SupervisorConfig,
        observer: Arc<dyn SupervisorObserver>,
    ) -> Self {
        Self {
            number: 0,
            phase: Phase::Idle,
            server: None,
            ended: None,
            overrun: None,
            cut: None,
            replayed: None,
            restoring: VecDeque::new(),
            tracker: Tracker::new(config.max_in_flight, Status::default(), observer),
            held: VecDeque::new(),
            held_bytes: 0,
            backoff: phase::backoff(&config),
            restarts: 0,
            timer: Timer::default(),
            hold_timer: Timer::default(),
            finishing: false,
            closed: false,
            lent: Vec::new(),
            waiting: None,
            backend,
            config,
        }
    }

    /// How the server stands, for whoever asks.
    #[must_use]
    pub fn status(&self) -> Status {
        self.tracker.status.clone()
    }

    /// Whether messages go straight to the server.
    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Up) && self.cut.is_none() && self.ended.is_none() && self.held.is_empty()
    }

    fn accept(&mut self, payload: &Payload<'_>) -> Result<()> {
        if matches!(self.phase, Phase::Over) {
            return Err(Error::Ended(End::Closed));
        }
        let Ok(envelope) = Envelope::peek(payload.bytes()) else {
            // What it is, the server may tell.
            return self.pass(payload, None);
        };
        match self.tracker.check(&envelope) {
            Outgoing::Pass => self.pass(payload, Some(&envelope)),
            Outgoing::Done => Ok(()),
            Outgoing::Instead(bytes) => {
                self.pass(&Payload::Send(&bytes), Envelope::peek(&bytes).ok().as_ref())
            }
        }
    }

    fn pass(&mut self, payload: &Payload<'_>, envelope: Option<&Envelope<'_>>) -> Result<()> {
        if self.is_open()
            && let Some(server) = &mut self.server
        {
            let sent = match payload {
                Payload::Feed(bytes) => server.start_feed(bytes),
                Payload::Send(bytes) => server.start_send(bytes),
                Payload::Frame(frame) => server.start_send_frame(frame),
            };
            match sent {
                Ok(()) => {
                    if let Some(envelope) = envelope {
                        self.tracker.note(envelope);
                    }
                    return Ok(());
                }
                Err(error) if error.is_fatal() => self.cut_off(error),
                Err(error) => {
                    if let Some(envelope) = envelope {
                        self.tracker.refuse(envelope, INVALID_REQUEST, "the message cannot be sent");
                    }
                    return Err(error);
                }
            }
        }
        self.hold(payload.bytes(), envelope);
        Ok(())
    }

    /// What receiving does next, once what is due has been done.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Next {
        self.drive(cx);
        if !self.tracker.owed.is_empty() {
            return Next::Owed;
        }
        match self.phase {
            Phase::Up | Phase::Replaying | Phase::Restoring => Next::Read,
            Phase::Over => Next::Over,
            _ => Next::Wait,
        }
    }

    fn pop_owed(&mut self) -> Vec<u8> {
        let message = self.tracker.owed.pop_front().unwrap_or_default();
        if self.tracker.owed.len() < MAX_OWED
            && let Some(waker) = self.waiting.take()
        {
            waker.wake();
        }
        message
    }

    fn over(&self) -> Error {
        match self.tracker.status.state() {
            State::GaveUp => Error::Io(std::io::Error::other(GaveUp { restarts: self.restarts })),
            _ if self.closed => Error::Ended(End::Closed),
            _ => Error::Ended(End::Eof),
        }
    }
}

/// Deals with a fault or the end of the connection; the next poll goes on.
fn stumble(
    tracker: &mut Tracker,
    overrun: &mut Option<(u64, usize)>,
    ended: &mut Option<Error>,
    error: Error,
    cx: &Context<'_>,
) {
    if error.is_fatal() {
        ended.get_or_insert(error);
    } else {
        if let Error::Fault(Fault::TooLarge { size, limit }) = error {
            *overrun = Some((size, limit));
        }
        tracker.skip(&[], &error);
    }
    cx.waker().wake_by_ref();
}

impl PollTransport for Supervisor {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame>> {
        match self.poll_next(cx) {
            Next::Owed => return Poll::Ready(Ok(self.pop_owed().into())),
            Next::Over => return Poll::Ready(Err(self.over())),
            Next::Wait => return Poll::Pending,
            Next::Read => {}
        }
        let Some(server) = &mut self.server else { return Poll::Pending };
        match server.poll_receive(cx) {
            Poll::Pending => {}
            Poll::Ready(Err(error)) => {
                stumble(&mut self.tracker, &mut self.overrun, &mut self.ended, error, cx);
            }
            Poll::Ready(Ok(frame)) => {
                match self.tracker.incoming(&frame, matches!(self.phase, Phase::Replaying)) {
                    Incoming::Pass => return Poll::Ready(Ok(frame)),
                    Incoming::Replayed(ok) => self.replayed = Some(ok),
                    Incoming::Skip => {}
                }
                // One at a time, so that a flood of garbage lets others run.
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn poll_receive_lent(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut [u8]>> {
        self.poll_receive_with_kind(cx).map_ok(|(_, payload)| payload)
    }

    fn poll_receive_with_kind(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Kind, &mut [u8])>> {
        match self.poll_next(cx) {
            Next::Owed => {
                self.lent = self.pop_owed();
                return Poll::Ready(Ok((Kind::Text, &mut self.lent)));
            }
            Next::Over => return Poll::Ready(Err(self.over())),
            Next::Wait => return Poll::Pending,
            Next::Read => {}
        }
        if !self.lent.is_empty() {
            self.lent = Vec::new();
        }
        let Some(server) = &mut self.server else { return Poll::Pending };
        match server.poll_receive_with_kind(cx) {
            Poll::Pending => {}
            Poll::Ready(Err(error)) => {
                stumble(&mut self.tracker, &mut self.overrun, &mut self.ended, error, cx);
            }
            Poll::Ready(Ok((kind, payload))) => {
                match self.tracker.incoming(payload, matches!(self.phase, Phase::Replaying)) {
                    Incoming::Pass => return Poll::Ready(Ok((kind, payload))),
                    Incoming::Replayed(ok) => self.replayed = Some(ok),
                    Incoming::Skip => {}
                }
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.drive(cx);
        if self.tracker.owed.len() >= MAX_OWED {
            self.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if matches!(self.phase, Phase::Over) {
            return Poll::Ready(Err(Error::Ended(End::Closed)));
        }
        if self.is_open()
            && let Some(server) = &mut self.server
        {
            match server.poll_ready(cx) {
                Poll::Ready(Err(error)) => self.cut_off(error),
                other => return other,
            }
        }
        // It is held, or answered at once.
        Poll::Ready(Ok(()))
    }

    fn has_room(&self) -> bool {
        if self.tracker.owed.len() >= MAX_OWED || matches!(self.phase, Phase::Over) {
            return false;
        }
        match &self.server {
            Some(server) if self.is_open() => server.has_room(),
            _ => true,
        }
    }

    fn start_send(&mut self, payload: &[u8]) -> Result<()> {
        self.accept(&Payload::Send(payload))
    }

    fn start_send_frame(&mut self, frame: &Frame) -> Result<()> {
        self.accept(&Payload::Frame(frame))
    }

    fn start_feed(&mut self, payload: &[u8]) -> Result<()> {
        self.accept(&Payload::Feed(payload))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if matches!(self.phase, Phase::Up)
            && self.cut.is_none()
            && let Some(server) = &mut self.server
        {
            match server.poll_flush(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => self.cut_off(error),
                Poll::Ready(Ok(())) => {}
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close_sending(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.finishing = true;
        self.drive(cx);
        if !self.held.is_empty() {
            return Poll::Pending;
        }
        match (&self.phase, &mut self.server) {
            (Phase::Up, Some(server)) if self.cut.is_none() => {
                server.poll_close_sending(cx).map(|_what_is_lost_shows_when_receiving| Ok(()))
            }
            (Phase::Up | Phase::Over, _) => Poll::Ready(Ok(())),
            _ => {
                self.finish();
                Poll::Ready(Ok(()))
            }
        }
    }

    fn ends_both_ways(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server.ends_both_ways())
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        (self.phase, self.closed) = (Phase::Over, true);
        self.tracker.status.set(State::Closed);
        self.tracker.owed.clear();
        self.held.clear();
        let Some(server) = &mut self.server else { return Poll::Ready(Ok(())) };
        let closed = server.poll_close(cx);
        if closed.is_ready() {
            self.server = None;
        }
        // A server that is gone has nothing to lose.
        closed.map(|_| Ok(()))
    }

    fn is_connected(&self) -> bool {
        !matches!(self.phase, Phase::Over)
    }

    fn transport_type(&self) -> &'static str {
        "supervised"
    }

    fn buffers(&self) -> &BufferManager {
        self.server.as_ref().map_or(BufferManager::shared(), |server| server.buffers())
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.tracker.status.set(State::Closed);
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("state", &self.tracker.status.state())
            .field("number", &self.number)
            .field("in_flight", &self.tracker.in_flight())
            .field("held", &self.held.len())
            .finish_non_exhaustive()
    }
}
