//! [`HubSession`]: what one client sees of a hub.

use std::{
    collections::VecDeque,
    fmt, io, mem,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, Waker, ready},
};

use super::{
    Hub, TooSlow,
    desk::{Collected, Handshake, Over, Shared, What},
    gather::Gather,
    handshake,
    settings::{self, Wish},
    slab::{Digits, number},
};
use crate::{
    Error, Frame, FrameMut, Result,
    error::End,
    gateway::{
        logging,
        refusal::{self, INVALID_REQUEST, PARSE_ERROR, SERVER_ENDED, TOO_MANY},
        splice::{Exchange, Field, Fields},
    },
    json::{Envelope, Id, Kind},
    limits::{MAX_ID_SIZE, VECTORED_THRESHOLD},
    transport::PollTransport,
};

/// Messages and bytes that are fed before a flush hands them on at the latest.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 64 * 1024;

/// Answers of our own that wait for the client, above which nothing is taken from it.
const MAX_OWED: usize = 64;

/// Bytes that the memory for lent messages keeps.
const KEPT: usize = 4 * 1024;

/// A client's place at a [`Hub`]. Dropping or closing it is leaving.
///
/// [`poll_close_sending`](PollTransport::poll_close_sending) leaves it attached until all that is under way is answered;
/// then receiving ends. Its subscriptions (MCP 2026-07-28) end at once. A flush waits for no server: what is queued is the hub's.
pub struct HubSession {
    /// Keeps the servers.
    _hub: Hub,
    /// `None` for one client too many, and for one that has left.
    place: Option<(Arc<Shared>, u64)>,
    gather: Gather,
    batch: VecDeque<Frame>,
    batch_bytes: usize,
    /// Our own answers.
    owed: VecDeque<Frame>,
    inbox: VecDeque<Frame>,
    inbox_bytes: usize,
    lent: Vec<u8>,
    own: Option<FrameMut>,
    /// The server's id of the request that the client answers.
    id: Vec<u8>,
    receiver: Option<Waker>,
    sender: Option<Waker>,
    finishing: bool,
    closed: bool,
}

impl HubSession {
    pub(super) fn new(hub: Hub, place: Option<(Arc<Shared>, u64)>) -> Self {
        Self {
            _hub: hub,
            place,
            gather: Gather::default(),
            batch: VecDeque::new(),
            batch_bytes: 0,
            owed: VecDeque::new(),
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            lent: Vec::new(),
            own: None,
            id: Vec::new(),
            receiver: None,
            sender: None,
            finishing: false,
            closed: false,
        }
    }

    fn accept(&mut self, payload: &[u8], now: bool) -> Result<()> {
        if self.closed || self.finishing {
            return Err(Error::Ended(End::Closed));
        }
        match Envelope::peek(payload) {
            Ok(envelope) if simdutf8::basic::from_utf8(payload).is_ok() => self.take(&envelope),
            _ => self.refuse(b"null", PARSE_ERROR, "not JSON in UTF-8"),
        }
        if now || self.batch.len() >= BATCH || self.batch_bytes >= BATCH_BYTES {
            self.hand_on();
        }
        Ok(())
    }

    fn take(&mut self, envelope: &Envelope<'_>) {
        match envelope.kind() {
            Kind::Request => self.request(envelope),
            Kind::Notification => self.notification(envelope),
            Kind::Response | Kind::Error => self.answer(envelope),
            Kind::Batch => {
                for element in envelope.elements() {
                    match element {
                        Ok(element) if element.kind() != Kind::Batch => self.take(&element),
                        _ => self.refuse(b"null", INVALID_REQUEST, "not JSON-RPC 2.0"),
                    }
                }
            }
            Kind::Other => self.refuse(b"null", INVALID_REQUEST, "not JSON-RPC 2.0"),
        }
    }

    /// Answers a request itself.
    fn refuse(&mut self, id: &[u8], code: i32, text: &str) {
        let mut bytes = Vec::new();
        refusal::refuse(id, code, text, &mut bytes);
        self.owe(bytes.into());
        if let Some((shared, _)) = &self.place {
            shared.tally.refused.fetch_add(1, Relaxed);
        }
    }

    fn owe(&mut self, frame: Frame) {
        self.owed.push_back(frame);
        if let Some(waker) = self.receiver.take() {
            waker.wake();
        }
    }

    fn late(&self) {
        if let Some((shared, _)) = &self.place {
            shared.tally.late.fetch_add(1, Relaxed);
        }
    }

    fn request(&mut self, envelope: &Envelope<'_>) {
        let (Id::Integer(_) | Id::String(_), Some(id)) = (envelope.id(), envelope.raw_id()) else {
            return self.refuse(b"null", INVALID_REQUEST, "a request needs an id");
        };
        let Ok(fields) = Fields::find(envelope) else {
            return self.refuse(id, INVALID_REQUEST, "a name stands twice");
        };
        let token = fields.get(Field::ProgressToken).unwrap_or_default();
        if id.len() > MAX_ID_SIZE || token.len() > MAX_ID_SIZE {
            return self.refuse(id, INVALID_REQUEST, "the id or the progress token is too long");
        }
        let is = |name| envelope.method().is_some_and(|method| method.is(name));
        let what = match () {
            () if is("initialize") => What::Initialize,
            () if is("subscriptions/listen") => What::Listen,
            () if is("logging/setLevel") => What::SetLevel,
            () if is("resources/subscribe") => What::Subscribe,
            () if is("resources/unsubscribe") => What::Unsubscribe,
            () => What::Plain,
        };
        let Some((shared, client)) = &self.place else {
            return self.refuse(id, TOO_MANY, "too many clients");
        };
        let mut desk = shared.lock();
        if desk.over.is_some() {
            drop(desk);
            return self.refuse(id, SERVER_ENDED, "the server has ended and is not started again");
        }
        if desk.calls.len() >= shared.config.max_in_flight
            || desk.in_flight_of(*client) >= shared.config.max_in_flight_per_client
        {
            drop(desk);
            return self.refuse(id, TOO_MANY, "too many requests are under way");
        }
        if what == What::Initialize {
            if let Some(client) = desk.clients.get(*client) {
                client.abilities = handshake::abilities(envelope);
            }
            match &mut desk.handshake {
                Handshake::None => desk.handshake = Handshake::Asked(VecDeque::new()),
                Handshake::Asked(waiting) => {
                    waiting.push_back((*client, Frame::copy_from_slice(envelope.bytes())));
                    desk.wait(*client, 1);
                    return;
                }
                Handshake::Done(answer) => {
                    let answer = answer.clone();
                    drop(desk);
                    if let Some(frame) = handshake::answer_to(id, &answer, &mut self.gather) {
                        self.owe(frame);
                    }
                    return;
                }
            }
        }
        let (mut what, mut level, mut uri) = (what, None, String::new());
        let wish = match what {
            What::SetLevel => {
                match logging::of(envelope).map(|asked| (asked, desk.set_level(*client, asked))) {
                    Some((_, None)) => Wish::Done,
                    Some((asked, told)) => {
                        level = told.filter(|told| *told != asked);
                        Wish::Ask
                    }
                    // No level, which the server may say.
                    None => {
                        what = What::Plain;
                        Wish::Ask
                    }
                }
            }
            What::Subscribe | What::Unsubscribe => match settings::uri(envelope) {
                Some((named, json)) if what == What::Subscribe => {
                    uri = named;
                    desk.subscribe(*client, &uri, json)
                }
                Some((named, _)) if desk.unsubscribe(*client, &named) => Wish::Done,
                _ => Wish::Ask,
            },
            _ => Wish::Ask,
        };
        match wish {
            Wish::Ask => {}
            Wish::Done => {
                drop(desk);
                let pieces = [&b"{\"jsonrpc\":\"2.0\",\"id\":"[..], id, b",\"result\":{}}"];
                return self.owe(pieces.concat().into());
            }
            Wish::Refused => {
                drop(desk);
                return self.refuse(id, TOO_MANY, "too many subscriptions");
            }
        }
        let Some(number) = desk.call(*client, what, id, token, &uri) else { return };
        shared.publish(&desk);
        let digits = Digits::of(number);
        let name = Some(digits.as_slice());
        let exchange = Exchange { id: name, progress_token: name, ..Exchange::default() };
        if !matches!(what, What::SetLevel | What::Subscribe | What::Unsubscribe) {
            drop(desk);
            return self.queue(&fields, &exchange);
        }
        let frame = match level {
            // Others want more of the server than this client does.
            Some(level) => {
                let request = [
                    &b"{\"jsonrpc\":\"2.0\",\"id\":"[..],
                    digits.as_slice(),
                    b",\"method\":\"logging/setLevel\",\"params\":{\"level\":\"",
                    logging::name(level).as_bytes(),
                    b"\"}}",
                ];
                request.concat().into()
            }
            None => {
                let pieces = fields.pieces(&exchange);
                self.gather.frame(pieces.size(), pieces)
            }
        };
        // Before another client can decide otherwise: the server is to hear it in the same order.
        self.batch_bytes = 0;
        self.batch.drain(..).for_each(|frame| desk.send(frame));
        desk.send(frame);
        drop(desk);
        shared.driver.wake();
    }

    fn notification(&mut self, envelope: &Envelope<'_>) {
        let Ok(fields) = Fields::find(envelope) else { return self.late() };
        let Some((shared, client)) = &self.place else { return };
        let is = |name| envelope.method().is_some_and(|method| method.is(name));
        if is("notifications/cancelled") {
            let mut desk = shared.lock();
            let found = fields
                .get(Field::RequestId)
                .and_then(|id| desk.find_call(*client, id))
                // Others may wait for the handshake.
                .filter(|number| desk.calls.get(*number).is_some_and(|call| call.what != What::Initialize));
            let Some(number) = found else {
                drop(desk);
                return self.late();
            };
            let what = desk.hang_up(number).map(|call| call.what);
            desk.settings.taken_back(what);
            shared.publish(&desk);
            drop(desk);
            let digits = Digits::of(number);
            let exchange = Exchange { request_id: Some(digits.as_slice()), ..Exchange::default() };
            return self.queue(&fields, &exchange);
        }
        if is("notifications/initialized") {
            let mut desk = shared.lock();
            if let Some(client) = desk.clients.get(*client) {
                client.initialized = true;
            }
            if mem::replace(&mut desk.initialized, true) {
                return;
            }
        }
        self.queue(&fields, &Exchange::default());
    }

    /// The client answers a request of the server.
    fn answer(&mut self, envelope: &Envelope<'_>) {
        let Some((shared, client)) = &self.place else { return };
        let Some(number) = envelope.raw_id().and_then(number) else { return self.late() };
        let mut desk = shared.lock();
        let own = desk.asks.get(number).is_some_and(|ask| ask.client == *client);
        let freed = if own { desk.asks.free(number) } else { None };
        let Some(ask) = freed else {
            drop(desk);
            return self.late();
        };
        mem::swap(&mut self.id, &mut ask.id);
        drop(desk);
        let Ok(fields) = Fields::find(envelope) else { return };
        let id = mem::take(&mut self.id);
        self.queue(&fields, &Exchange { id: Some(&id), ..Exchange::default() });
        self.id = id;
    }

    fn queue(&mut self, fields: &Fields<'_>, exchange: &Exchange<'_>) {
        let pieces = fields.pieces(exchange);
        let size = pieces.size();
        self.batch_bytes += size;
        self.batch.push_back(self.gather.frame(size, pieces));
    }

    /// Gives the driver what was taken from the client.
    fn hand_on(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        self.batch_bytes = 0;
        let Some((shared, _)) = &self.place else { return self.batch.clear() };
        let mut desk = shared.lock();
        if desk.over.is_some() {
            self.batch.clear();
        }
        self.batch.drain(..).for_each(|frame| desk.send(frame));
        drop(desk);
        shared.driver.wake();
    }

    fn next(&mut self, cx: &Context<'_>) -> Poll<Result<Frame>> {
        if self.closed {
            return Poll::Ready(Err(Error::Ended(End::Closed)));
        }
        if let Some(frame) = self.owed.pop_front() {
            if let Some(waker) = self.sender.take() {
                waker.wake();
            }
            return Poll::Ready(Ok(frame));
        }
        if let Some(frame) = self.pop() {
            return Poll::Ready(Ok(frame));
        }
        let collected = match &self.place {
            None => Collected::None { in_flight: 0 },
            Some((shared, client)) => shared.lock().collect(*client, &mut self.inbox, cx.waker()),
        };
        let in_flight = match collected {
            Collected::Some { bytes, sender } => {
                self.inbox_bytes = bytes;
                self.sender = sender.or(self.sender.take());
                return self.pop().map_or(Poll::Pending, |frame| Poll::Ready(Ok(frame)));
            }
            Collected::None { in_flight } => in_flight,
            Collected::Over(Over::Closed) => return Poll::Ready(Err(Error::Ended(End::Eof))),
            Collected::Over(Over::GaveUp) => {
                let error = io::Error::other("the server has ended too often and is not started again");
                return Poll::Ready(Err(Error::Io(error)));
            }
            Collected::Cut(bytes) => {
                let limit = self.place.as_ref().map_or(0, |(shared, _)| shared.config.client_bytes);
                return Poll::Ready(Err(Error::Io(io::Error::other(TooSlow { bytes, limit }))));
            }
        };
        if self.finishing && in_flight == 0 {
            return Poll::Ready(Err(Error::Ended(End::Eof)));
        }
        if !self.receiver.as_ref().is_some_and(|kept| kept.will_wake(cx.waker())) {
            self.receiver = Some(cx.waker().clone());
        }
        // An idle client holds next to nothing.
        self.gather.rest();
        self.own = None;
        Poll::Pending
    }

    /// The next of what was taken from the desk.
    fn pop(&mut self) -> Option<Frame> {
        let frame = self.inbox.pop_front()?;
        self.inbox_bytes = self.inbox_bytes.saturating_sub(frame.len());
        if !self.lags()
            && let Some(waker) = self.sender.take()
        {
            waker.wake();
        }
        Some(frame)
    }

    /// Whether so much waits for the client that nothing is taken from it.
    fn lags(&self) -> bool {
        self.place.as_ref().is_some_and(|(shared, _)| self.inbox_bytes > shared.config.client_mark)
    }

    /// Leaves the hub.
    fn leave(&mut self) {
        self.hand_on();
        let Some((shared, client)) = self.place.take() else { return };
        let mut desk = shared.lock();
        desk.detach(client);
        shared.publish(&desk);
        drop(desk);
        shared.driver.wake();
    }
}

impl PollTransport for HubSession {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame>> {
        self.next(cx)
    }

    fn poll_receive_lent(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut [u8]>> {
        self.own = None;
        let mut frame = ready!(self.next(cx))?;
        if self.lent.capacity() > KEPT {
            self.lent = Vec::new();
        }
        if frame.len() >= VECTORED_THRESHOLD {
            match frame.try_into_mut() {
                Ok(own) => return Poll::Ready(Ok(self.own.insert(own))),
                Err(shared) => frame = shared,
            }
        }
        self.lent.clear();
        self.lent.extend_from_slice(&frame);
        Poll::Ready(Ok(&mut self.lent))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.closed || self.finishing {
            return Poll::Ready(Err(Error::Ended(End::Closed)));
        }
        if self.owed.len() >= MAX_OWED || self.lags() {
            self.sender = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if let Some((shared, client)) = &self.place
            && !shared.lock().may_send(*client, shared.config.client_mark, cx.waker())
        {
            // What is queued has to leave, or there will never be room.
            self.hand_on();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn has_room(&self) -> bool {
        !self.closed && !self.finishing && self.owed.len() < MAX_OWED && !self.batch.is_empty()
    }

    fn start_send(&mut self, payload: &[u8]) -> Result<()> {
        self.accept(payload, true)
    }

    fn start_feed(&mut self, payload: &[u8]) -> Result<()> {
        self.accept(payload, false)
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.hand_on();
        Poll::Ready(Ok(()))
    }

    fn poll_close_sending(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.hand_on();
        if !mem::replace(&mut self.finishing, true) {
            if let Some((shared, client)) = &self.place {
                let mut wake = Vec::new();
                shared.lock().end_subscriptions(*client, shared, &mut wake);
                shared.driver.wake();
                wake.into_iter().for_each(Waker::wake);
            }
            if let Some(waker) = self.receiver.take() {
                waker.wake();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.leave();
        self.closed = true;
        self.owed = VecDeque::new();
        self.inbox = VecDeque::new();
        Poll::Ready(Ok(()))
    }

    fn is_connected(&self) -> bool {
        !self.closed
    }

    fn transport_type(&self) -> &'static str {
        "hub"
    }
}

impl Drop for HubSession {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for HubSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSession")
            .field("number", &self.place.as_ref().map(|(_, number)| number))
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}
