//! [`HttpSession`]: what one client of an HTTP server says and hears, as a transport.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep};

use super::{
    SessionKind,
    config::HttpServerConfig,
    lent::Lent,
    registry::Registry,
    reply,
    socket::Socket,
    state::{Over, Pieces, State},
};
use crate::{
    Error, Frame, Result,
    buffer::BufferManager,
    error::{Deadline, End, Rejection},
    json::{Envelope, EnvelopeError, Kind},
    limits::HTTP_INBOX_MESSAGES,
    transport::{PollTransport, Revision},
};

/// A session as the server's side shares it: its transport, the POSTs and GETs under way, the registry.
pub(super) struct Session {
    id: String,
    kind: SessionKind,
    peer: Arc<str>,
    registry: Arc<Registry>,
    state: Mutex<State>,
}

impl Session {
    pub(super) fn new(id: String, kind: SessionKind, peer: Arc<str>, registry: Arc<Registry>) -> Arc<Self> {
        Arc::new(Self { id, kind, peer, registry, state: Mutex::new(State::new(kind)) })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn config(&self) -> &HttpServerConfig {
        self.registry.config()
    }

    /// A holder that panicked did so between whole steps, so the state is sound.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the session, for everyone.
    pub(super) fn finish(&self, over: Over) {
        self.lock().finish(over);
        self.registry.forget(self);
    }

    pub(super) fn kind(&self) -> SessionKind {
        self.kind
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.kind == SessionKind::Stateless {
            self.registry.stateless_over();
        }
    }
}

/// A POST that is being dealt with; counted as long as it lives.
pub(super) struct Entry(pub(super) Arc<Session>);

impl Entry {
    /// Of a POST with so many requests. `None` when there are too many. One that asks for nothing is let in when no other
    /// is: what is under way may wait for just that answer, or end by that cancellation.
    pub(super) fn new(session: &Arc<Session>, asks: usize) -> Option<Self> {
        let mut state = session.lock();
        let most = session.config().max_in_flight;
        let is_full = if asks > 0 {
            state.posts >= most || state.unanswered() + asks > most
        } else {
            state.posts >= most.saturating_add(HTTP_INBOX_MESSAGES)
        };
        if is_full {
            return None;
        }
        state.posts += 1;
        drop(state);
        Some(Self(Arc::clone(session)))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.posts = state.posts.saturating_sub(1);
        state.active = Instant::now();
    }
}

/// The right to deliver a stream; gives it back when it is dropped, whatever happened to the client.
pub(super) struct Ticket {
    session: Arc<Session>,
    place: (u64, u64),
    /// A POST counts as one until its stream is over.
    _entry: Option<Entry>,
}

impl Ticket {
    pub(super) fn new(session: Arc<Session>, place: (u64, u64), entry: Option<Entry>) -> Self {
        Self { session, place, _entry: entry }
    }

    pub(super) fn config(&self) -> &HttpServerConfig {
        self.session.config()
    }

    pub(super) fn place(&self) -> (u64, u64) {
        self.place
    }

    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(super) fn poll_events(&self, cx: &mut Context<'_>) -> Poll<Option<Pieces>> {
        let mut state = self.session.lock();
        state.poll_events(cx, self.place, self.session.config())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.session.lock();
        let before = state.over.is_some();
        state.detach(self.place, self.session.config());
        let ended = !before && state.over.is_some();
        drop(state);
        if ended {
            self.session.registry.forget(&self.session);
        }
    }
}

/// One client of an [`HttpServer`](super::HttpServer), as a transport: what it posts is received, byte for byte; what is
/// sent goes to the POST that waits for it, or onto the stream that is right for it.
///
/// | what is sent | where it goes |
/// |---|---|
/// | an answer, result or error | to the POST with that id, whose stream ends once all its requests are answered |
/// | `notifications/progress` | to the POST with that `progressToken` |
/// | any other notification or request | to the newest POST under way; else onto the stream that a GET opened; else it is kept for the next GET |
///
/// A POST for which only the answer comes is answered by it (`application/json`); else by a stream of events. What is put on
/// a stream leaves in order. What waits for clients is bounded: [`poll_ready`](PollTransport::poll_ready) waits for them, and
/// takes away what waits from those that take nothing for longer than the server's write timeout. Sending an answer that nobody waits
/// for any more does nothing.
///
/// Receiving ends with [`End::Eof`] when the client has ended the session or all that was asked is answered, with
/// [`End::Reset`] when the client of a single request went away before its answer (who answers it may stop), and with an
/// idle deadline when the session was forgotten.
///
/// Closing, for sending or altogether, or dropping it ends the session: requests under way are answered with an error, its
/// streams end once what was sent is taken, and its id is known no more (404).
///
/// A WebSocket on the same port is a session too: a connection of its own, without an id, on which each message is a
/// message.
pub struct HttpSession {
    inner: Inner,
}

enum Inner {
    Talk(Talk),
    Socket(Box<Socket>, Arc<str>),
}

impl HttpSession {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self { inner: Inner::Talk(Talk { session, lent: Lent::default(), idle: None, stalled: None }) }
    }

    pub(super) fn socket(socket: Socket, peer: Arc<str>) -> Self {
        Self { inner: Inner::Socket(Box::new(socket), peer) }
    }

    /// What kind of session it is.
    #[must_use]
    pub fn kind(&self) -> SessionKind {
        match &self.inner {
            Inner::Talk(talk) => talk.session.kind,
            Inner::Socket(..) => SessionKind::WebSocket,
        }
    }

    /// Its id, visible ASCII; empty where there is none.
    #[must_use]
    pub fn id(&self) -> &str {
        match &self.inner {
            Inner::Talk(talk) => &talk.session.id,
            Inner::Socket(..) => "",
        }
    }

    /// The peer that opened it, as the listener called it.
    #[must_use]
    pub fn peer(&self) -> &str {
        match &self.inner {
            Inner::Talk(talk) => &talk.session.peer,
            Inner::Socket(_, peer) => peer,
        }
    }

    /// Waits until no client waits for an answer of this session: until then to close it would fail requests that are under
    /// way. Clients that have gone do not count, nor do subscriptions (2026-07-28), sessions of 2024-11-05 and WebSockets:
    /// of the last two only their ends know what is under way.
    ///
    /// # Cancel safety
    /// Safe. One task at a time.
    pub fn answered(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let session = match &self.inner {
            Inner::Talk(talk) => Some(Arc::clone(&talk.session)),
            Inner::Socket(..) => None,
        };
        poll_fn(move |cx| match &session {
            Some(session) => session.lock().poll_quiet(cx),
            None => Poll::Ready(()),
        })
    }

    /// The revision that is spoken, once it is known: with a session, when `initialize` is answered; over WebSocket never.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        match &self.inner {
            Inner::Talk(talk) => talk.session.lock().revision,
            Inner::Socket(..) => None,
        }
    }
}

impl fmt::Debug for HttpSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSession")
            .field("kind", &self.kind())
            .field("peer", &self.peer())
            .finish_non_exhaustive()
    }
}

macro_rules! each {
    ($self:ident, $inner:ident => $what:expr) => {
        match &$self.inner {
            Inner::Talk($inner) => $what,
            Inner::Socket($inner, _) => $what,
        }
    };
    (mut $self:ident, $inner:ident => $what:expr) => {
        match &mut $self.inner {
            Inner::Talk($inner) => $what,
            Inner::Socket($inner, _) => $what,
        }
    };
}

impl PollTransport for HttpSession {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame>> {
        each!(mut self, inner => inner.poll_receive(cx))
    }

    fn poll_receive_lent(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut [u8]>> {
        each!(mut self, inner => inner.poll_receive_lent(cx))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        each!(mut self, inner => inner.poll_ready(cx))
    }

    fn has_room(&self) -> bool {
        each!(self, inner => inner.has_room())
    }

    fn start_send(&mut self, payload: &[u8]) -> Result<()> {
        each!(mut self, inner => inner.start_send(payload))
    }

    fn start_send_frame(&mut self, frame: &Frame) -> Result<()> {
        each!(mut self, inner => inner.start_send_frame(frame))
    }

    fn start_feed(&mut self, payload: &[u8]) -> Result<()> {
        each!(mut self, inner => inner.start_feed(payload))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        each!(mut self, inner => inner.poll_flush(cx))
    }

    fn poll_close_sending(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        each!(mut self, inner => inner.poll_close_sending(cx))
    }

    fn ends_both_ways(&self) -> bool {
        true
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        each!(mut self, inner => inner.poll_close(cx))
    }

    fn is_connected(&self) -> bool {
        each!(self, inner => inner.is_connected())
    }

    fn transport_type(&self) -> &'static str {
        each!(self, inner => inner.transport_type())
    }

    fn buffers(&self) -> &BufferManager {
        each!(self, inner => inner.buffers())
    }
}

/// A session of requests and streams.
struct Talk {
    session: Arc<Session>,
    lent: Lent,
    /// Looks whether the client is still there, now and then.
    idle: Option<Pin<Box<Sleep>>>,
    /// Runs while nobody takes anything, from the count of what was taken on.
    stalled: Option<(Pin<Box<Sleep>>, u64)>,
}

impl Talk {
    fn ended(&self, over: Over) -> Error {
        match over {
            Over::Closed | Over::Refused => Error::Ended(End::Closed),
            Over::Done => Error::Ended(End::Eof),
            Over::Abandoned => Error::Ended(End::Reset),
            Over::Idle(after) => Error::TimedOut { deadline: Deadline::Idle, after },
        }
    }

    /// Whether the client has been silent for too long; registers for the next look.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let patience = self.session.config().session_idle;
        loop {
            let idle = self.idle.get_or_insert_with(|| Box::pin(sleep(patience)));
            ready!(idle.as_mut().poll(cx));
            let state = self.session.lock();
            let left =
                if state.is_idle() { patience.saturating_sub(state.active.elapsed()) } else { patience };
            drop(state);
            if left == Duration::ZERO {
                self.session.finish(Over::Idle(patience));
                return Poll::Ready(());
            }
            self.idle = Some(Box::pin(sleep(left)));
        }
    }

    /// The next message of the client.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes>> {
        let received = self.session.lock().poll_receive(cx);
        match received {
            Poll::Ready(Ok(body)) => Poll::Ready(Ok(body)),
            Poll::Ready(Err(over)) => Poll::Ready(Err(self.ended(over))),
            Poll::Pending => {
                // An idle session holds no memory of what it lent.
                self.lent.clear();
                if matches!(self.session.kind, SessionKind::Session) {
                    ready!(self.poll_idle(cx));
                    return self.poll_next(cx);
                }
                Poll::Pending
            }
        }
    }

    /// Queues `payload`; `copied` makes it owned.
    fn put(&mut self, payload: &[u8], copied: impl FnOnce() -> Bytes) -> Result<()> {
        let envelope = match Envelope::peek(payload) {
            Ok(envelope) => envelope,
            Err(EnvelopeError::Invalid(invalid)) => {
                let at = usize::try_from(invalid.at).unwrap_or(usize::MAX);
                return Err(Rejection::NotOneValue { at }.into());
            }
            Err(EnvelopeError::DuplicateKey { at }) => return Err(Rejection::NotOneValue { at }.into()),
        };
        let config = self.session.config();
        let (size, limit) = (payload.len(), config.max_message_size);
        let owned = if size <= limit { copied() } else { Bytes::new() };
        let mut state = self.session.lock();
        if let Some(over) = state.over {
            let over = if over == Over::Done { Error::Ended(End::Reset) } else { self.ended(over) };
            return Err(over);
        }
        if size > limit {
            // Who asked is told, rather than left waiting.
            if let (Kind::Response, Some(id)) = (envelope.kind(), envelope.raw_id()) {
                let text = format!("the answer of {size} bytes exceeds the limit of {limit} bytes");
                let error = reply::error_message(Some(id), reply::INTERNAL, &text);
                if let Ok(envelope) = Envelope::peek(&error) {
                    state.send(error.clone(), &envelope, config);
                }
            }
            return Err(Rejection::TooLarge { size, limit }.into());
        }
        state.send(owned, &envelope, config);
        let ended = state.over.is_some();
        drop(state);
        if ended {
            self.session.registry.forget(&self.session);
        }
        Ok(())
    }
}

impl PollTransport for Talk {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame>> {
        self.poll_next(cx).map_ok(Frame::from)
    }

    fn poll_receive_lent(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut [u8]>> {
        let body = ready!(self.poll_next(cx))?;
        Poll::Ready(Ok(self.lent.lend_bytes(body)))
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            let config = self.session.config();
            let mut state = self.session.lock();
            match state.poll_ready(cx, config.high_water) {
                Poll::Ready(Ok(())) => {
                    drop(state);
                    self.stalled = None;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(over)) => {
                    drop(state);
                    let over = if over == Over::Done { Error::Ended(End::Reset) } else { self.ended(over) };
                    return Poll::Ready(Err(over));
                }
                Poll::Pending => {}
            }
            let (taken, after) = (state.taken, config.write_timeout);
            drop(state);
            if self.stalled.as_ref().is_some_and(|(_, since)| *since != taken) {
                self.stalled = None;
            }
            let (sleep, _) = self.stalled.get_or_insert_with(|| (Box::pin(sleep(after)), taken));
            ready!(sleep.as_mut().poll(cx));
            self.stalled = None;
            self.session.lock().drop_stalled(self.session.config());
        }
    }

    fn has_room(&self) -> bool {
        let state = self.session.lock();
        state.over.is_none() && state.has_room(self.session.config().high_water)
    }

    fn start_send(&mut self, payload: &[u8]) -> Result<()> {
        self.put(payload, || Bytes::copy_from_slice(payload))
    }

    fn start_send_frame(&mut self, frame: &Frame) -> Result<()> {
        // A small one would keep the whole block that it lies in from its pool for as long as a client likes.
        let small = super::stream::is_small(frame);
        self.put(frame, || if small { Bytes::copy_from_slice(frame) } else { frame.clone().into() })
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        // What is queued leaves with the streams; `poll_ready` holds back who sends too much.
        Poll::Ready(Ok(()))
    }

    fn poll_close_sending(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_close(cx)
    }

    fn ends_both_ways(&self) -> bool {
        true
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.session.finish(Over::Closed);
        Poll::Ready(Ok(()))
    }

    fn is_connected(&self) -> bool {
        self.session.lock().over.is_none()
    }

    fn transport_type(&self) -> &'static str {
        "http"
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.session.finish(Over::Closed);
    }
}
