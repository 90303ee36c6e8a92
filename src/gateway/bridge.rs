//! [`Bridge`]: forwards whole messages both ways between two transports until both directions have ended.

mod flow;
mod pending;

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use self::{flow::Flow, pending::Pending};
use crate::{Error, transport::PollTransport};

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the first transport, the client's, to the second, the backend's.
    ToBackend,
    /// From the backend's to the client's.
    ToClient,
}

/// Is told what passes. Every method has an empty default.
pub trait Observer {
    /// A message that is about to be passed on. Its bytes come from a peer: escape them before they are shown.
    fn message(&self, direction: Direction, payload: &[u8]) {
        let _ = (direction, payload);
    }

    /// What a backend wrote that is no message of JSON-RPC 2.0 by its structure: a banner, a line of a log. Told of where
    /// `Bridge::noise` asks for it; a batch is none. Its bytes come from a peer: escape them before they are shown.
    fn noise(&self, direction: Direction, payload: &[u8]) {
        let _ = (direction, payload);
    }

    /// A message that was left out: the receiving codec found a fault ([`Error::Fault`]), or the framing of the other
    /// side cannot carry it ([`Error::Rejected`]). The stream goes on.
    fn dropped(&self, direction: Direction, error: &Error) {
        let _ = (direction, error);
    }
}

/// The observer that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}

/// What becomes of what a backend writes that is no message of JSON-RPC 2.0.
#[cfg(feature = "json")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Noise {
    /// Nothing is looked at: all passes.
    #[default]
    Unseen,
    /// It is told of ([`Observer::noise`]) and passes.
    Pass,
    /// It is told of and left out.
    Drop,
}

/// How two transports are joined.
///
/// Messages pass as they are: payload bytes are never changed, only the framing around them is that of each side. All
/// messages that one read brought leave in one write. A side that does not read holds back only the one that sends to
/// it.
///
/// When one side ends, what it sent before is delivered and then the other side's input is closed; the way back stays
/// open until it ends by itself or is silent for too long. A client that was cut off ([`End::Reset`](crate::error::End::Reset))
/// is not waited for. A backend whose both directions end at once (WebSocket) is told
/// only once it has been silent for [`parting`](Self::parting), so that answers under way still come. The same holds for a
/// side that can be sent no more, though it may still send; once an answer to it is lost, silent or not. One that does not
/// read for longer than its link's write deadline ends the bridge.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Bridge {
    /// How long the backend may be silent once the client has ended. Default: 30 s.
    ///
    /// A client that half-closes still gets its answers; one that was killed looks the same over TCP, so there has to
    /// be an end.
    pub linger: Duration,
    /// How long the client may be silent once the backend has ended. Default: 1 s, only for it to see the end and
    /// close: cutting a TCP connection with unread bytes would cost it the last answers.
    pub parting: Duration,
    /// What becomes of what the backend writes that is no message. Default: nothing is looked at.
    ///
    /// Found out by [`Envelope::peek`](crate::json::Envelope::peek): some 0.1 µs for a small message.
    #[cfg(feature = "json")]
    pub noise: Noise,
    /// Whether a stop waits for the answers to requests of JSON-RPC that are under way then, as a backend may end with its
    /// input. Messages pass until the last has come or was cancelled, however long that takes; requests that come
    /// meanwhile are passed on too, and not waited for, nor are subscriptions (2026-07-28). Default: no.
    ///
    /// Costs a [`peek`](crate::json::Envelope::peek) of each message, and remembers up to
    /// [`MAX_IN_FLIGHT`](crate::limits::MAX_IN_FLIGHT) ids of up to [`MAX_ID_SIZE`](crate::limits::MAX_ID_SIZE) bytes.
    #[cfg(feature = "gateway")]
    pub answers_first: bool,
}

impl Default for Bridge {
    fn default() -> Self {
        Self {
            linger: Duration::from_secs(30),
            parting: Duration::from_secs(1),
            #[cfg(feature = "json")]
            noise: Noise::default(),
            #[cfg(feature = "gateway")]
            answers_first: false,
        }
    }
}

/// What went one way.
#[derive(Debug)]
#[non_exhaustive]
pub struct Passed {
    /// Messages passed on.
    pub messages: u64,
    /// Their bytes of payload.
    pub bytes: u64,
    /// Messages left out, see [`Observer::dropped`] and [`Observer::noise`].
    pub dropped: u64,
    /// Messages that came when the other side could take no more.
    pub lost: u64,
    /// How receiving ended; `None` when it was stopped.
    pub received: Option<Error>,
    /// Why nothing more could be sent; `None` while it could.
    pub sent: Option<Error>,
}

/// What a bridge did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// From the client to the backend.
    pub to_backend: Passed,
    /// From the backend to the client.
    pub to_client: Passed,
    /// Which direction ended first.
    pub first: Option<Direction>,
    /// Whether the other side was silent for so long that it was given up.
    pub gave_up: bool,
}

impl Bridge {
    /// Joins `client` and `backend` until both directions have ended. When `stop` completes, no more is read from the
    /// client (with `answers_first`: once it has its answers); what it sent before is delivered, the backend's input is
    /// closed, and its answers still pass.
    ///
    /// Any two transports: links, [`MemoryTransport`](crate::transport::MemoryTransport), `Box<dyn PollTransport>`.
    /// Neither is closed altogether afterwards; that is left to the caller.
    ///
    /// # Cancel safety
    /// Safe: each message is passed on whole or not at all, and none is taken that has not been passed on.
    ///
    /// # Panics
    /// On a tokio runtime whose timer is not enabled.
    pub async fn run<A, B, O>(
        &self,
        client: &mut A,
        backend: &mut B,
        observer: &O,
        stop: impl Future,
    ) -> Report
    where
        A: PollTransport + ?Sized,
        B: PollTransport + ?Sized,
        O: Observer + ?Sized,
    {
        let mut out = Flow::new(Direction::ToBackend, observer);
        let mut back = Flow::new(Direction::ToClient, observer);
        #[cfg(feature = "json")]
        back.look_for(self.noise);
        let (mut first, mut gave_up) = (None, false);
        let (mut stop, mut stopping, mut stopped) = (pin!(stop), false, false);
        let mut pending = Pending::of(self);
        let mut sleep: Option<(Pin<Box<Sleep>>, u64)> = None;
        poll_fn(|cx| {
            out.poll(client, backend, &mut pending, cx);
            // Only now: what the client has sent before still passes.
            if !stopping && out.is_waiting() && stop.as_mut().poll(cx).is_ready() {
                stopping = true;
                pending.freeze();
            }
            back.poll(backend, client, &mut pending, cx);
            if stopping && !stopped && (pending.is_empty() || back.is_over()) {
                stopped = true;
                out.stop();
                out.poll(client, backend, &mut pending, cx);
            }
            if out.is_held() {
                if !back.is_over() {
                    ready!(poll_silence(&mut sleep, self.parting, back.progress(), cx));
                }
                sleep = None;
                out.release();
                out.poll(client, backend, &mut pending, cx);
                back.poll(backend, client, &mut pending, cx);
            }
            if out.is_late() || back.is_late() {
                gave_up = true;
                return Poll::Ready(());
            }
            let (ended, left, patience) = match (out.is_over(), back.is_over()) {
                (true, true) => return Poll::Ready(()),
                (false, false) => return Poll::Pending,
                (true, false) => (Direction::ToBackend, &back, self.linger),
                (false, true) => (Direction::ToClient, &out, self.parting),
            };
            first.get_or_insert(ended);
            // Nothing can be sent to it any more, whatever the backend may still say.
            if out.is_cut() {
                return Poll::Ready(());
            }
            // Answers that are lost are no reason to let a client ask on.
            let progress = if back.loses() { 0 } else { left.progress() };
            ready!(poll_silence(&mut sleep, patience, progress, cx));
            gave_up = true;
            Poll::Ready(())
        })
        .await;
        Report { to_backend: out.passed, to_client: back.passed, first, gave_up }
    }
}

impl Report {
    pub(super) fn new() -> Self {
        Self { to_backend: Passed::new(), to_client: Passed::new(), first: None, gave_up: false }
    }
}

/// Waits until there has been no progress for as long as `patience`.
fn poll_silence(
    sleep: &mut Option<(Pin<Box<Sleep>>, u64)>,
    patience: Duration,
    progress: u64,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let (sleep, seen) = sleep.get_or_insert_with(|| (Box::pin(tokio::time::sleep(patience)), progress));
    if *seen != progress {
        *seen = progress;
        if let Some(deadline) = Instant::now().checked_add(patience) {
            sleep.as_mut().reset(deadline);
        }
    }
    sleep.as_mut().poll(cx)
}

impl Passed {
    fn new() -> Self {
        Self { messages: 0, bytes: 0, dropped: 0, lost: 0, received: None, sent: None }
    }
}
