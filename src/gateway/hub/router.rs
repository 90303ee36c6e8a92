//! [`Router`]: finds out whose a message of the server is.
//!
//! Used by the driver only.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Waker,
};

use super::{
    desk::{self, Shared, What, can},
    gather::Gather,
    handshake, settings,
    slab::{Digits, number},
};
use crate::{
    Frame,
    gateway::{
        logging,
        refusal::{self, INVALID_REQUEST, NOBODY, TOO_MANY},
        splice::{Exchange, Field, Fields},
    },
    json::{Envelope, Kind},
    limits::MAX_ID_SIZE,
};

/// Requests of a server that wait at clients.
const MAX_ASKS: usize = 4096;

pub(super) struct Router {
    shared: Arc<Shared>,
    gather: Gather,
    /// The client's id and token of the call that is looked at.
    id: Vec<u8>,
    token: Vec<u8>,
    pub(super) wake: Vec<Waker>,
}

impl Router {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, gather: Gather::default(), id: Vec::new(), token: Vec::new(), wake: Vec::new() }
    }

    pub(super) fn wake_all(&mut self) {
        self.wake.drain(..).for_each(Waker::wake);
    }

    /// Passes on a message of the server.
    pub(super) fn route(&mut self, message: &[u8]) {
        // The supervisor has seen to it that it is one.
        let Ok(envelope) = Envelope::peek(message) else { return };
        match envelope.kind() {
            Kind::Response | Kind::Error => self.answer(&envelope),
            Kind::Notification => self.notify(&envelope),
            Kind::Request => self.ask(&envelope),
            // Each element by itself: they may be several clients'. None is a batch again.
            Kind::Batch => {
                for element in envelope.elements().flatten() {
                    if element.kind() != Kind::Batch {
                        self.route(element.bytes());
                    }
                }
            }
            Kind::Other => {}
        }
    }

    fn late(&self) {
        self.shared.tally.late.fetch_add(1, Relaxed);
    }

    /// The message for `client`, as far as it is still there.
    fn deliver(&mut self, client: u64, frame: Frame) {
        let shared = &self.shared;
        shared.lock().push(client, frame, shared, &mut self.wake);
    }

    fn answer(&mut self, envelope: &Envelope<'_>) {
        let Some(number) = envelope.raw_id().and_then(number) else { return self.late() };
        let (client, what) = {
            let mut desk = self.shared.lock();
            let Some(call) = desk.hang_up(number) else {
                drop(desk);
                return self.late();
            };
            self.id.clear();
            self.id.extend_from_slice(call.id());
            let found = (call.client, call.what);
            if matches!(found.1, What::SetLevel | What::Subscribe) {
                let uri = call.uri().to_owned();
                desk.settled(found.0, found.1, &uri, envelope.kind() == Kind::Response);
            }
            self.shared.publish(&desk);
            found
        };
        if what == What::Initialize {
            handshake::answered(&self.shared, envelope, &mut self.gather, &mut self.wake);
        }
        if client == desk::NOBODY && what == What::Plain {
            // Our own.
            return;
        }
        let Ok(mut fields) = Fields::find(envelope) else { return };
        let mut exchange = Exchange { id: Some(&self.id), ..Exchange::default() };
        if what == What::Listen && fields.find_in_result(envelope).is_ok() {
            exchange.subscription_id = Some(&self.id);
        }
        let pieces = fields.pieces(&exchange);
        let frame = self.gather.frame(pieces.size(), pieces);
        self.deliver(client, frame);
    }

    fn notify(&mut self, envelope: &Envelope<'_>) {
        let Ok(fields) = Fields::find(envelope) else { return };
        let mut exchange = Exchange::default();
        let client = if let Some(token) = fields.get(Field::ProgressToken) {
            let Some(client) = self.look_up(token) else { return self.late() };
            if self.token.is_empty() {
                return self.late();
            }
            exchange.progress_token = Some(&self.token);
            client
        } else if let Some(subscription) = fields.get(Field::SubscriptionId) {
            let Some(client) = self.look_up(subscription) else { return self.late() };
            exchange.subscription_id = Some(&self.id);
            client
        } else if let Some(request) = fields.get(Field::RequestId) {
            return self.cancelled(&fields, request);
        } else {
            return self.spread(envelope);
        };
        let pieces = fields.pieces(&exchange);
        let frame = self.gather.frame(pieces.size(), pieces);
        self.deliver(client, frame);
    }

    /// A notification that belongs to no request.
    fn spread(&mut self, envelope: &Envelope<'_>) {
        let is = |name| envelope.method().is_some_and(|method| method.is(name));
        let frame = self.gather.copy(envelope.bytes());
        let shared = &self.shared;
        if is("notifications/resources/updated")
            && let Some((uri, _)) = settings::uri(envelope)
        {
            return shared.lock().push_update(&frame, &uri, shared, &mut self.wake);
        }
        let level = if is("notifications/message") { logging::of(envelope) } else { None };
        shared.lock().push_to_all(&frame, level, shared, &mut self.wake);
    }

    /// Whose call goes by a number; its id and token are then in `self`.
    fn look_up(&mut self, json: &[u8]) -> Option<u64> {
        let number = number(json)?;
        let mut desk = self.shared.lock();
        let call = desk.calls.get(number)?;
        self.id.clear();
        self.id.extend_from_slice(call.id());
        self.token.clear();
        self.token.extend_from_slice(call.token());
        Some(call.client)
    }

    /// The server takes back a request of its own.
    fn cancelled(&mut self, fields: &Fields<'_>, request: &[u8]) {
        let found = {
            let mut desk = self.shared.lock();
            desk.find_ask(request).and_then(|number| desk.asks.free(number).map(|ask| (number, ask.client)))
        };
        let Some((number, client)) = found else { return self.late() };
        let digits = Digits::of(number);
        let exchange = Exchange { request_id: Some(digits.as_slice()), ..Exchange::default() };
        let pieces = fields.pieces(&exchange);
        let frame = self.gather.frame(pieces.size(), pieces);
        self.deliver(client, frame);
    }

    fn ask(&mut self, envelope: &Envelope<'_>) {
        let Some(id) = envelope.raw_id() else { return };
        let is = |name| envelope.method().is_some_and(|method| method.is(name));
        if is("ping") {
            let answer = [&b"{\"jsonrpc\":\"2.0\",\"id\":"[..], id, b",\"result\":{}}"];
            let frame = self.gather.frame(answer.iter().map(|piece| piece.len()).sum(), answer.into_iter());
            return self.reply(frame);
        }
        let needed = match () {
            () if is("sampling/createMessage") => can::SAMPLE,
            () if is("elicitation/create") => can::ELICIT,
            () if is("roots/list") => can::LIST_ROOTS,
            () => 0,
        };
        let Ok(fields) = Fields::find(envelope) else {
            return self.refuse(id, INVALID_REQUEST, "a name stands twice");
        };
        if id.len() > MAX_ID_SIZE {
            return self.refuse(id, INVALID_REQUEST, "the id is too long");
        }
        let (client, number) = {
            let mut desk = self.shared.lock();
            if desk.asks.len() >= MAX_ASKS {
                drop(desk);
                return self.refuse(id, TOO_MANY, "too many requests are under way");
            }
            let asked = desk.whom_to_ask(needed).and_then(|client| Some((client, desk.ask(client, id)?)));
            let Some(asked) = asked else {
                drop(desk);
                return self.refuse(id, NOBODY, "no client can answer this");
            };
            asked
        };
        let digits = Digits::of(number);
        let exchange = Exchange { id: Some(digits.as_slice()), ..Exchange::default() };
        let pieces = fields.pieces(&exchange);
        let frame = self.gather.frame(pieces.size(), pieces);
        self.deliver(client, frame);
    }

    fn refuse(&mut self, id: &[u8], code: i32, text: &str) {
        let mut bytes = Vec::new();
        refusal::refuse(id, code, text, &mut bytes);
        self.reply(bytes.into());
    }

    /// Something for the server itself.
    fn reply(&mut self, frame: Frame) {
        self.shared.lock().send(frame);
        self.shared.driver.wake();
    }
}
