//! [`Translated`]: a transport to a server, as a client of the other era wants it.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use tokio::time::{Instant, Sleep};

use super::{
    Era, EraCache, EraConfig,
    detection::{Beginning, Detection, Outcome, era_of},
    edit::field,
    message::INTERNAL_ERROR,
    queue::Outbox,
    session_client::{SessionClient, Verdict},
    stateless_client::StatelessClient,
    suspension::Token,
};
use crate::{
    Error, Frame, Result, buffer::BufferManager, codec, error::End, json::Envelope, limits::WRITE_HIGH_WATER,
    transport::PollTransport,
};

/// Messages that may wait for the client, or for the server's era to be known, before no more is taken.
const MAX_WAITING: usize = 1024;

/// Bytes of a buffer for lent messages that is kept while nothing comes.
const KEPT_BUFFER: usize = 64 * 1024;

enum State {
    /// No request has come yet that says what the client is.
    Fresh,
    Detecting(Detection),
    /// Both are of one era: bytes pass untouched.
    Same,
    Sessions(Box<SessionClient>),
    Stateless(Box<StatelessClient>),
}

/// A connection whose client is to come back.
struct Parked<T> {
    server: T,
    client: Box<StatelessClient>,
}

enum Delivery {
    Own(Vec<u8>),
    Theirs(Frame),
}

/// A transport to a server of either era that a client of either era can use.
///
/// Which era the client is of, its first request tells; which the server is, is found out then (see [`EraCache`]). When
/// they are of one era, every call goes straight through from there on. Otherwise each message is changed where it must
/// be, and what one side does not have is done here:
///
/// | client with sessions, stateless server | stateless client, server with sessions |
/// |---|---|
/// | `initialize` answered from `server/discover` | `server/discover` answered from `initialize`, which is sent once |
/// | each request gets its `_meta` | `_meta` checked, the reserved names left out |
/// | `ping` answered here; `logging/setLevel` becomes `_meta`, where the level is `info` before | the level in `_meta` becomes `logging/setLevel` |
/// | subscriptions and changed lists come from `subscriptions/listen` | `subscriptions/listen` served from notifications |
/// | `input_required` becomes requests to the client, then the call is sent again | requests to the client become `input_required`, and the call goes on when the client comes back |
/// | batches taken apart | results get `resultType`, and `ttlMs` and `cacheScope` where wanted; -32002 becomes -32602 |
///
/// Its own requests have ids that begin with `framewire-era-`.
///
/// All waiting messages are bounded: while some wait for the client, nothing is read from the server, and beyond a mark
/// [`poll_ready`](PollTransport::poll_ready) waits.
///
/// # Panics
/// When it is polled while it has to wait for a time, outside a tokio runtime whose timer is enabled.
pub struct Translated<T> {
    /// `None` once it waits elsewhere for its client.
    server: Option<T>,
    cache: EraCache,
    config: EraConfig,
    resumable: bool,
    state: State,
    client: Option<Era>,
    out: Outbox,
    /// What came from the client while the server's era was not known.
    backlog: VecDeque<Vec<u8>>,
    backlog_bytes: usize,
    lent: Vec<u8>,
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
    /// Who waits to receive, and who to send.
    receiving: Option<Waker>,
    sending: Option<Waker>,
    /// How the server ended, until the client has got everything.
    ended: Option<Error>,
    /// The client sends no more.
    parted: bool,
}

impl<T> Translated<T> {
    /// `server` leads to the server that `cache` is about.
    #[must_use]
    pub fn new(server: T, cache: EraCache) -> Self {
        Self {
            server: Some(server),
            cache,
            config: EraConfig::default(),
            resumable: false,
            state: State::Fresh,
            client: None,
            out: Outbox::default(),
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            lent: Vec::new(),
            timer: None,
            receiving: None,
            sending: None,
            ended: None,
            parted: false,
        }
    }

    /// With other limits than the usual.
    #[must_use]
    pub fn config(mut self, config: EraConfig) -> Self {
        self.config = config;
        self
    }

    /// For clients that come back on another connection: over HTTP each request of a stateless client is one. A call that
    /// asked the client for something when this is closed then waits in the [`EraCache`], with its connection to the
    /// server, and the next that gets its `requestState` goes on with it.
    #[must_use]
    pub fn resumable(mut self) -> Self {
        self.resumable = true;
        self
    }

    /// The client's era, once it is known.
    #[must_use]
    pub fn client_era(&self) -> Option<Era> {
        self.client
    }

    /// The server's era, once it is known.
    #[must_use]
    pub fn server_era(&self) -> Option<Era> {
        match &self.state {
            State::Same => self.client,
            State::Sessions(_) => Some(Era::Stateless),
            State::Stateless(_) => Some(Era::Sessions),
            State::Fresh | State::Detecting(_) => None,
        }
    }

    /// The transport to the server. `None` when it waits in the [`EraCache`].
    #[must_use]
    pub fn get_ref(&self) -> Option<&T> {
        self.server.as_ref()
    }

    /// The transport to the server. What was not delivered yet is lost.
    #[must_use]
    pub fn into_inner(self) -> Option<T> {
        self.server
    }

    /// Whether nothing is to be done but to pass on.
    fn is_direct(&self) -> bool {
        matches!(self.state, State::Same)
            && self.out.server.is_empty()
            && self.out.client.is_empty()
            && self.backlog.is_empty()
            && self.ended.is_none()
    }

    fn has_space(&self) -> bool {
        let bytes = self.backlog_bytes + self.out.client.bytes();
        self.backlog.len() + self.out.client.len() < MAX_WAITING && bytes < WRITE_HIGH_WATER
    }

    fn wake(&mut self) {
        for waker in [self.receiving.take(), self.sending.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

fn closed() -> Error {
    Error::Ended(End::Closed)
}

impl<T: PollTransport + 'static> Translated<T> {
    fn server(&mut self) -> Result<&mut T> {
        self.server.as_mut().ok_or_else(closed)
    }

    /// A message of the client: whether it passes as it is.
    fn accept(&mut self, message: &[u8]) -> Verdict {
        match &mut self.state {
            State::Fresh => self.begin(message),
            State::Detecting(_) => {
                self.backlog_bytes += message.len();
                self.backlog.push_back(message.to_vec());
                Verdict::Done
            }
            State::Same => Verdict::Unchanged,
            State::Sessions(client) => client.handle_client(message, &mut self.out),
            State::Stateless(client) => client.handle_client(message, &mut self.out),
        }
    }

    fn begin(&mut self, message: &[u8]) -> Verdict {
        let Ok(envelope) = Envelope::peek(message) else { return Verdict::Unchanged };
        let Some(era) = era_of(&envelope) else { return Verdict::Unchanged };
        if era == Era::Stateless && self.take_over(&envelope) {
            return self.accept(message);
        }
        match Detection::begin(&envelope, era, &self.cache, &self.config, 1, &mut self.out) {
            Beginning::Detecting(detection) => {
                self.client = Some(era);
                self.state = State::Detecting(detection);
                Verdict::Done
            }
            Beginning::Known(outcome) => {
                self.client = Some(era);
                self.settle(outcome);
                self.accept(message)
            }
            Beginning::Passing => Verdict::Unchanged,
            Beginning::Refused => Verdict::Done,
        }
    }

    /// Goes on with a call that another connection of the client began.
    fn take_over(&mut self, envelope: &Envelope<'_>) -> bool {
        let state = envelope.params().and_then(|params| field(params, "requestState"));
        let parked = state.and_then(Token::of).and_then(|token| self.cache.unpark(token));
        let Some(parked) = parked.and_then(|parked| parked.downcast::<Parked<T>>().ok()) else {
            return false;
        };
        let Parked { server, client } = *parked;
        self.server = Some(server);
        self.client = Some(Era::Stateless);
        self.state = State::Stateless(client);
        true
    }

    fn settle(&mut self, outcome: Outcome) {
        self.state = match outcome {
            Outcome::Same => State::Same,
            Outcome::Sessions(client) => State::Sessions(client),
            Outcome::Stateless(client) => State::Stateless(client),
            Outcome::Again => State::Fresh,
        };
        while !matches!(self.state, State::Detecting(_)) {
            let Some(message) = self.backlog.pop_front() else { break };
            self.backlog_bytes -= message.len();
            if self.accept(&message) == Verdict::Unchanged {
                self.out.server.pieces(&[&message]);
            }
        }
        self.wake();
    }

    /// A message of the server: whether it passes as it is.
    fn hand_back(&mut self, message: &[u8]) -> Verdict {
        match &mut self.state {
            State::Fresh | State::Same => Verdict::Unchanged,
            State::Detecting(detection) => {
                let (verdict, outcome) =
                    detection.handle_server(message, &self.cache, &self.config, &mut self.out);
                if let Some(outcome) = outcome {
                    self.settle(outcome);
                }
                verdict
            }
            State::Sessions(client) => client.handle_server(message, Instant::now(), &mut self.out),
            State::Stateless(client) => client.handle_server(message, &mut self.out),
        }
    }

    /// Takes a message of the client for which there is room.
    fn take(&mut self, message: &[u8], pass: impl FnOnce(&mut T) -> Result<()>) -> Result<()> {
        let was_empty = self.out.client.is_empty();
        match self.accept(message) {
            Verdict::Unchanged if self.out.server.is_empty() => pass(self.server()?)?,
            Verdict::Unchanged => self.out.server.pieces(&[message]),
            Verdict::Done => {
                // There is room for one; the rest leaves with the next poll.
                if let Some(message) = self.out.server.pop() {
                    self.send_one(message)?;
                }
            }
        }
        if (was_empty && !self.out.client.is_empty()) || !self.out.server.is_empty() {
            self.wake();
        }
        Ok(())
    }

    /// Sends a message for which there is room. One that the server's framing cannot carry is answered.
    fn send_one(&mut self, message: Vec<u8>) -> Result<()> {
        let sent = self.server()?.start_send(&message);
        if let Err(error @ Error::Rejected(_)) = &sent {
            let id = Envelope::peek(&message).ok().filter(|message| message.method().is_some());
            let id = id.and_then(|message| message.raw_id().map(<[u8]>::to_vec));
            if let Some(id) = id {
                let mut answer = super::queue::Queue::default();
                answer.error(&id, INTERNAL_ERROR, &format!("the request cannot be sent: {error}"));
                if let Some(answer) = answer.pop()
                    && self.hand_back(&answer) == Verdict::Unchanged
                {
                    self.out.client.pieces(&[&answer]);
                }
            }
            return Ok(());
        }
        self.out.server.recycle(message);
        sent
    }

    /// Sends what is queued for the server; ready when nothing is left.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while self.out.server.front().is_some() {
            ready!(self.server()?.poll_ready(cx))?;
            if let Some(message) = self.out.server.pop() {
                self.send_one(message)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Does what is due; true when something was.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> bool {
        let deadline = match &self.state {
            State::Detecting(detection) => detection.deadline(),
            State::Sessions(client) => client.deadline(),
            _ => None,
        };
        let Some(deadline) = deadline else {
            self.timer = None;
            return false;
        };
        let (set, sleep) =
            self.timer.get_or_insert_with(|| (deadline, Box::pin(tokio::time::sleep_until(deadline))));
        if *set != deadline {
            *set = deadline;
            sleep.as_mut().reset(deadline);
        }
        if sleep.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.timer = None;
        match &mut self.state {
            State::Detecting(detection) => {
                if let Some(outcome) = detection.handle_time(&self.config, &mut self.out) {
                    self.settle(outcome);
                }
            }
            State::Sessions(client) => client.handle_time(Instant::now(), &mut self.out),
            _ => {}
        }
        true
    }

    /// The server has ended or failed.
    fn fail(&mut self, error: Error) -> Result<()> {
        if !error.is_fatal() {
            return Err(error);
        }
        match &mut self.state {
            State::Detecting(detection) => detection.ended(&self.cache),
            State::Stateless(client) => client.end_streams(&mut self.out),
            _ => {}
        }
        self.ended = Some(error);
        Ok(())
    }

    fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Result<Delivery>> {
        loop {
            // Whether it can be sent, who sends is told.
            let _ = self.poll_drain(cx);
            if let Some(message) = self.out.client.pop() {
                if let Some(waker) = self.sending.take() {
                    waker.wake();
                }
                return Poll::Ready(Ok(Delivery::Own(message)));
            }
            if let Some(error) = self.ended.take() {
                return Poll::Ready(Err(error));
            }
            if self.parted && self.is_idle() {
                return Poll::Ready(Err(Error::Ended(End::Eof)));
            }
            if self.poll_time(cx) {
                continue;
            }
            // A server that does not read gets no further answers, so nothing more is taken from it.
            if self.out.server.len() < MAX_WAITING
                && let Poll::Ready(received) = self.server()?.poll_receive(cx)
            {
                match received {
                    Ok(frame) => {
                        if self.hand_back(&frame) == Verdict::Unchanged {
                            return Poll::Ready(Ok(Delivery::Theirs(frame)));
                        }
                    }
                    Err(error) => self.fail(error)?,
                }
                continue;
            }
            self.receiving = Some(cx.waker().clone());
            if self.lent.capacity() > KEPT_BUFFER {
                self.lent = Vec::new();
            }
            return Poll::Pending;
        }
    }

    /// Whether a client that sends no more has nothing to wait for.
    fn is_idle(&mut self) -> bool {
        match &mut self.state {
            State::Stateless(client) => client.is_idle(),
            _ => false,
        }
    }

    /// Finds out the server's era while nobody receives.
    fn poll_detection(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while matches!(self.state, State::Detecting(_)) && self.ended.is_none() {
            let _ = self.poll_drain(cx);
            if self.poll_time(cx) {
                continue;
            }
            if self.out.client.len() >= MAX_WAITING {
                return Poll::Pending;
            }
            match ready!(self.server()?.poll_receive(cx)) {
                Ok(frame) => {
                    if self.hand_back(&frame) == Verdict::Unchanged {
                        self.out.client.pieces(&[&frame]);
                    }
                }
                Err(error) if error.is_fatal() => self.fail(error)?,
                Err(_) => {}
            }
            if let Some(waker) = self.receiving.take() {
                waker.wake();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: PollTransport + 'static> PollTransport for Translated<T> {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame>> {
        if self.is_direct() {
            return self.server()?.poll_receive(cx);
        }
        self.poll_delivery(cx).map_ok(|delivery| match delivery {
            Delivery::Own(message) => message.into(),
            Delivery::Theirs(frame) => frame,
        })
    }

    fn poll_receive_lent(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut [u8]>> {
        if self.is_direct() {
            return self.server()?.poll_receive_lent(cx);
        }
        match ready!(self.poll_delivery(cx))? {
            Delivery::Own(message) => {
                let last = std::mem::replace(&mut self.lent, message);
                self.out.client.recycle(last);
            }
            Delivery::Theirs(frame) => {
                self.lent.clear();
                self.lent.extend_from_slice(&frame);
            }
        }
        Poll::Ready(Ok(&mut self.lent))
    }

    fn poll_receive_with_kind(&mut self, cx: &mut Context<'_>) -> Poll<Result<(codec::Kind, &mut [u8])>> {
        if self.is_direct() {
            return self.server()?.poll_receive_with_kind(cx);
        }
        self.poll_receive_lent(cx).map_ok(|payload| (codec::Kind::Text, payload))
    }

    fn set_kind(&mut self, kind: codec::Kind) {
        if let Some(server) = &mut self.server {
            server.set_kind(kind);
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.is_direct() {
            return self.server()?.poll_ready(cx);
        }
        ready!(self.poll_drain(cx))?;
        if !self.has_space() {
            self.sending = Some(cx.waker().clone());
            // Nobody may be receiving while this is waited for.
            let _ = self.poll_detection(cx)?;
            if !self.has_space() {
                return Poll::Pending;
            }
        }
        self.server()?.poll_ready(cx)
    }

    fn has_room(&self) -> bool {
        self.out.server.is_empty() && self.has_space() && self.server.as_ref().is_some_and(T::has_room)
    }

    fn start_send(&mut self, payload: &[u8]) -> Result<()> {
        self.take(payload, |server| server.start_send(payload))
    }

    fn start_send_frame(&mut self, frame: &Frame) -> Result<()> {
        self.take(frame, |server| server.start_send_frame(frame))
    }

    fn start_feed(&mut self, payload: &[u8]) -> Result<()> {
        self.take(payload, |server| server.start_feed(payload))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_drain(cx))?;
        self.server()?.poll_flush(cx)
    }

    fn poll_close_sending(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let at_the_server = self.backlog.is_empty();
        if !matches!(&self.state, State::Detecting(detection) if at_the_server && detection.may_close()) {
            ready!(self.poll_detection(cx))?;
        }
        ready!(self.poll_drain(cx))?;
        if self.resumable
            && let State::Stateless(client) = &mut self.state
        {
            if !std::mem::replace(&mut self.parted, true) {
                // Nothing else would end them: the server goes on for others.
                client.end_streams(&mut self.out);
            }
            self.wake();
            return self.server()?.poll_flush(cx);
        }
        self.server()?.poll_close_sending(cx)
    }

    fn ends_both_ways(&self) -> bool {
        self.server.as_ref().is_some_and(T::ends_both_ways)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.server.is_none() {
            return Poll::Ready(Ok(()));
        }
        let token = match &self.state {
            State::Stateless(client) if self.resumable && client.is_suspended() => client.token(),
            _ => None,
        };
        if let Some(token) = token
            && let State::Stateless(client) = std::mem::replace(&mut self.state, State::Fresh)
            && let Some(server) = self.server.take()
        {
            self.cache.park(token, Box::new(Parked { server, client }), self.config.suspension);
            return Poll::Ready(Ok(()));
        }
        self.server()?.poll_close(cx)
    }

    fn is_connected(&self) -> bool {
        self.ended.is_none() && self.server.as_ref().is_some_and(T::is_connected)
    }

    fn transport_type(&self) -> &'static str {
        self.server.as_ref().map_or("unknown", T::transport_type)
    }

    fn buffers(&self) -> &BufferManager {
        match &self.server {
            Some(server) => server.buffers(),
            None => BufferManager::shared(),
        }
    }
}

impl<T> fmt::Debug for Translated<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Translated")
            .field("client", &self.client)
            .field("server", &self.server_era())
            .finish_non_exhaustive()
    }
}
