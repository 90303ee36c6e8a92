//! A client with sessions in front of a stateless server.
//!
//! State machine: messages in, messages out, no I/O and no clock of its own. The client's `initialize` is answered from
//! `server/discover`; each request gets the `_meta` that stands for the session; what the revision 2026-07-28 no longer has
//! (ping, logging/setLevel, resources/subscribe) is done here; results that ask for input become requests to the client.

mod calls;
mod listening;

use std::collections::HashMap;

use tokio::time::Instant;

use self::listening::filter_of;
use super::{
    edit::{Edits, field, fields},
    message::{
        Abilities, Asking, CAPABILITIES_KEY, CLIENT_INFO_KEY, INVALID_PARAMS, INVALID_REQUEST, LOG_LEVEL_KEY,
        SERVER_INFO_KEY, VERSION_KEY, answerable, is_text, own_id, own_number, quoted, text,
    },
    queue::{Outbox, RawId},
    round::{Rounds, Unasked},
};
use crate::{
    gateway::logging,
    json::{Envelope, Kind, RawString},
    limits::{ERA_MAX_BATCH, ERA_MAX_DECLARATION, ERA_MAX_HELD_BYTES},
    transport::Revision,
};

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It passes as it is.
    Unchanged,
    /// It was dealt with: what it led to is in the outbox.
    Done,
}

/// A call whose result may ask for more first, so that it is kept until then.
#[derive(Debug)]
pub(super) struct Call {
    /// The id that the client gave it.
    pub(super) client: RawId,
    pub(super) asking: Asking,
    /// As the client sent it; empty when there was no room to keep it.
    pub(super) request: Vec<u8>,
    pub(super) rounds: u8,
}

#[derive(Debug)]
enum Stream {
    /// Of changed lists, which every client with a session gets unasked.
    Lists,
    /// Of one resource: its URI as JSON, and the request to answer once the server has agreed.
    Resource { uri: Vec<u8>, answer: Option<RawId> },
}

/// A stream of `subscriptions/listen`.
#[derive(Debug)]
struct Listening {
    number: u64,
    stream: Stream,
    filter: Vec<u8>,
    /// The server has agreed, so that it is listened to again when it is started again.
    agreed: bool,
}

#[derive(Debug)]
pub(super) struct SessionClient {
    /// The members of `_meta` for each request: name and value, as JSON.
    envelope: [(&'static str, Vec<u8>); 4],
    /// The same joined.
    members: Vec<u8>,
    abilities: Abilities,
    revision: Revision,
    /// `initialize` that waits for the server's answer to `server/discover`, and that request's number.
    discovering: Option<(RawId, u64)>,
    /// The result of `initialize`.
    greeting: Vec<u8>,
    /// The filter of the stream of changed lists; empty when the server has none.
    lists: Vec<u8>,
    next: u64,
    /// Those at the server, by the id that they have there.
    calls: HashMap<RawId, Call>,
    held_bytes: usize,
    /// Calls that were sent again: the client's id and the one they have now.
    retried: HashMap<RawId, RawId>,
    rounds: Rounds,
    streams: Vec<Listening>,
    scratch: Vec<u8>,
    /// Memory of requests that need not be kept any more.
    spare: Vec<Vec<u8>>,
}

impl SessionClient {
    /// `next` is the number of the next own request.
    pub(super) fn new(next: u64) -> Self {
        let mut client = Self {
            envelope: [
                (VERSION_KEY, quoted(Revision::R2026_07_28.as_str())),
                (CLIENT_INFO_KEY, Vec::new()),
                (CAPABILITIES_KEY, b"{}".to_vec()),
                (LOG_LEVEL_KEY, Vec::new()),
            ],
            members: Vec::new(),
            abilities: Abilities::default(),
            revision: Revision::LATEST_WITH_SESSIONS,
            discovering: None,
            greeting: Vec::new(),
            lists: Vec::new(),
            next,
            calls: HashMap::new(),
            held_bytes: 0,
            retried: HashMap::new(),
            rounds: Rounds::default(),
            streams: Vec::new(),
            scratch: Vec::new(),
            spare: Vec::new(),
        };
        client.join();
        client
    }

    fn join(&mut self) {
        self.members.clear();
        for (name, value) in &self.envelope {
            if value.is_empty() {
                continue;
            }
            if !self.members.is_empty() {
                self.members.push(b',');
            }
            for piece in [b"\"", name.as_bytes(), b"\":", value] {
                self.members.extend_from_slice(piece);
            }
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// The earliest time at which [`handle_time`](Self::handle_time) has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.rounds.deadline()
    }

    /// Sends again the calls whose time has come.
    pub(super) fn handle_time(&mut self, now: Instant, out: &mut Outbox) {
        while let Some(round) = self.rounds.due(now) {
            self.retry(round, out);
        }
    }

    // From the client.

    pub(super) fn handle_client(&mut self, message: &[u8], out: &mut Outbox) -> Verdict {
        let Ok(envelope) = Envelope::peek(message) else { return Verdict::Unchanged };
        match envelope.kind() {
            Kind::Request => self.request(&envelope, out),
            Kind::Notification => self.notification(&envelope, out),
            Kind::Response | Kind::Error => self.answer(&envelope, out),
            Kind::Batch => self.batch(&envelope, out),
            _ => Verdict::Unchanged,
        }
    }

    fn batch(&mut self, batch: &Envelope<'_>, out: &mut Outbox) -> Verdict {
        let refusal = if !self.revision.has_batches() {
            Some("this revision has no batches")
        } else if batch.elements().take(ERA_MAX_BATCH + 1).count() > ERA_MAX_BATCH {
            Some("too many messages in a batch")
        } else {
            None
        };
        if let Some(refusal) = refusal {
            out.client.error(b"null", INVALID_REQUEST, refusal);
            return Verdict::Done;
        }
        // A stateless server has no batches: one by one, and the answers come one by one.
        for element in batch.elements() {
            match element {
                Ok(element) if element.kind() != Kind::Batch => {
                    let bytes = element.bytes();
                    if self.handle_client(bytes, out) == Verdict::Unchanged {
                        out.server.pieces(&[bytes]);
                    }
                }
                _ => out.client.error(b"null", INVALID_REQUEST, "not a message"),
            }
        }
        Verdict::Done
    }

    fn request(&mut self, envelope: &Envelope<'_>, out: &mut Outbox) -> Verdict {
        let (Some(method), id) = (envelope.method(), answerable(envelope)) else { return Verdict::Unchanged };
        if method.is("initialize") {
            self.initialize(envelope, id, out);
        } else if method.is("ping") {
            out.client.result(id, b"{}");
        } else if method.is("logging/setLevel") {
            self.set_level(envelope, id, out);
        } else if method.is("resources/subscribe") {
            self.subscribe(envelope, id, out);
        } else if method.is("resources/unsubscribe") {
            self.unsubscribe(envelope, id, out);
        } else {
            self.forward(envelope, method, id, out);
        }
        Verdict::Done
    }

    fn initialize(&mut self, envelope: &Envelope<'_>, id: &[u8], out: &mut Outbox) {
        let params = envelope.params().unwrap_or_default();
        let Ok([version, info, capabilities]) =
            fields(params, 0, ["protocolVersion", "clientInfo", "capabilities"])
        else {
            return out.client.error(id, INVALID_PARAMS, "params is not an object with each name once");
        };
        let part = |range| params.get(range).unwrap_or_default();
        let asked = text(part(version)).and_then(RawString::unescape);
        self.revision = asked
            .and_then(|asked| asked.parse().ok())
            .filter(|revision: &Revision| !revision.is_stateless())
            .unwrap_or(Revision::LATEST_WITH_SESSIONS);
        let (info, capabilities) = (part(info), part(capabilities));
        let capabilities = if capabilities.first() == Some(&b'{') { capabilities } else { b"{}" };
        if capabilities.len() > ERA_MAX_DECLARATION {
            return out.client.error(id, INVALID_PARAMS, "capabilities are too large");
        }
        self.abilities = Abilities::of(capabilities);
        let [_, (_, own_info), (_, own_capabilities), _] = &mut self.envelope;
        own_capabilities.clear();
        own_capabilities.extend_from_slice(capabilities);
        own_info.clear();
        // It may be left out, so one with icons in it does not travel with every request.
        if info.first() == Some(&b'{') && info.len() <= ERA_MAX_DECLARATION {
            own_info.extend_from_slice(info);
        }
        self.join();
        if self.greeting.is_empty() {
            let number = self.number();
            self.discovering = Some((RawId::new(id), number));
            out.server.request(
                &own_id(number),
                b"\"server/discover\"",
                &[b"{\"_meta\":{", &*self.members, b"}}"].concat(),
            );
        } else {
            self.greet(id, out);
        }
    }

    /// Answers `initialize`.
    fn greet(&self, id: &[u8], out: &mut Outbox) {
        out.client.pieces(&[
            b"{\"jsonrpc\":\"2.0\",\"id\":",
            id,
            b",\"result\":{\"protocolVersion\":",
            &quoted(self.revision.as_str()),
            &self.greeting,
            b"}}",
        ]);
    }

    fn notification(&mut self, envelope: &Envelope<'_>, out: &mut Outbox) -> Verdict {
        let Some(method) = envelope.method() else { return Verdict::Unchanged };
        if method.is("notifications/cancelled") {
            return self.cancelled(envelope, out);
        }
        if method.is("notifications/initialized") {
            let lists = std::mem::take(&mut self.lists);
            if !lists.is_empty() {
                self.listen(&lists, Stream::Lists, out);
            }
            return Verdict::Done;
        }
        // The client's own progress and roots: of those the revision has nothing.
        if method.is("notifications/progress") || method.is("notifications/roots/list_changed") {
            return Verdict::Done;
        }
        Verdict::Unchanged
    }

    fn cancelled(&mut self, envelope: &Envelope<'_>, out: &mut Outbox) -> Verdict {
        let Ok(Some(id)) = envelope.request_id() else { return Verdict::Unchanged };
        if let Some(round) = self.rounds.remove(id) {
            // Nothing of it is at the server.
            round.questions().for_each(|number| out.client.cancel(&own_id(number)));
            self.held_bytes = self.held_bytes.saturating_sub(round.bytes);
            self.release(round.call);
            return Verdict::Done;
        }
        if let Some(now) = self.retried.remove(id) {
            self.drop_call(now.as_slice());
            if let (Some(range), message) = (envelope.range_of(id), envelope.bytes()) {
                let mut edits = Edits::new(message);
                edits.replace(range, now.as_slice());
                out.server.push(|to| edits.write(to));
            }
            return Verdict::Done;
        }
        self.drop_call(id);
        Verdict::Unchanged
    }

    /// The client's answer to what a result asked for.
    fn answer(&mut self, envelope: &Envelope<'_>, out: &mut Outbox) -> Verdict {
        let Some(number) = envelope.raw_id().and_then(own_number) else { return Verdict::Unchanged };
        let room = ERA_MAX_HELD_BYTES.saturating_sub(self.held_bytes);
        if let Some(result) = envelope.result().filter(|result| result.len() <= room) {
            self.held_bytes += result.len();
            match self.rounds.answered(number, result) {
                Ok(Some(round)) => self.retry(round, out),
                Ok(None) => {}
                Err(Unasked) => self.held_bytes -= result.len(),
            }
        } else if let Some(round) = self.rounds.refused(number) {
            round.questions().for_each(|number| out.client.cancel(&own_id(number)));
            self.held_bytes = self.held_bytes.saturating_sub(round.bytes);
            let why = envelope.error().and_then(|error| field(error, "message")).and_then(text);
            let why = why.and_then(RawString::unescape).unwrap_or("the answer is too large".into());
            self.fail(round.call, &format!("the client refused what was asked for: {why}"), out);
        }
        Verdict::Done
    }

    // From the server.

    pub(super) fn handle_server(&mut self, message: &[u8], now: Instant, out: &mut Outbox) -> Verdict {
        let Ok(envelope) = Envelope::peek(message) else { return Verdict::Unchanged };
        match envelope.kind() {
            Kind::Response | Kind::Error => self.result(&envelope, now, out),
            Kind::Notification => self.event(&envelope, out),
            _ => Verdict::Unchanged,
        }
    }

    fn result(&mut self, envelope: &Envelope<'_>, now: Instant, out: &mut Outbox) -> Verdict {
        let Some(id) = envelope.raw_id() else { return Verdict::Unchanged };
        if let Some(call) = self.calls.remove(id) {
            return self.call_ended(call, envelope, now, out);
        }
        match own_number(id) {
            Some(number) if self.discovering.as_ref().is_some_and(|(_, own)| *own == number) => {
                self.discovered(envelope, out);
            }
            Some(number) => self.stream_ended(number, envelope, out),
            None => return Verdict::Unchanged,
        }
        Verdict::Done
    }

    fn discovered(&mut self, envelope: &Envelope<'_>, out: &mut Outbox) {
        let Some((id, _)) = self.discovering.take() else { return };
        let Some(result) = envelope.result() else {
            let error = envelope.error().unwrap_or(b"null");
            return out.client.pieces(&[
                b"{\"jsonrpc\":\"2.0\",\"id\":",
                id.as_slice(),
                b",\"error\":",
                error,
                b"}",
            ]);
        };
        self.adopt(result);
        self.greet(id.as_slice(), out);
    }

    /// Takes over what the server said of itself: the result of `server/discover`.
    pub(super) fn adopt(&mut self, discovery: &[u8]) {
        let capabilities = field(discovery, "capabilities").filter(|value| value.first() == Some(&b'{'));
        let capabilities = capabilities.unwrap_or(b"{}");
        let info = field(discovery, "_meta").and_then(|meta| field(meta, SERVER_INFO_KEY));
        let info = info.filter(|info| info.first() == Some(&b'{'));
        let instructions = field(discovery, "instructions").filter(|value| text(value).is_some());
        self.greeting = [
            &b",\"capabilities\":"[..],
            capabilities,
            b",\"serverInfo\":",
            info.unwrap_or(b"{\"name\":\"unknown\",\"version\":\"0\"}"),
            if instructions.is_some() { &b",\"instructions\":"[..] } else { b"" },
            instructions.unwrap_or_default(),
        ]
        .concat();
        self.lists = filter_of(capabilities);
        // A server with sessions sends the logs that it sees fit until a level is set (2025-11-25, logging); a stateless
        // one may send none that no level was asked for with (2026-07-28): so one is, or the logs would be lost.
        let [.., (_, level)] = &mut self.envelope;
        if level.is_empty()
            && field(capabilities, "logging").is_some_and(|value| value.first() == Some(&b'{'))
        {
            *level = quoted(logging::name(logging::UNASKED));
            self.join();
        }
    }
}

/// The request to the client that an entry of `inputRequests` stands for.
fn question(number: u64, method: &[u8], params: Option<&[u8]>) -> Vec<u8> {
    let id = own_id(number);
    let mut message = [b"{\"jsonrpc\":\"2.0\",\"id\":", &*id, b",\"method\":", method].concat();
    if let Some(params) = params {
        message.extend_from_slice(b",\"params\":");
        // With a page to go to, the revisions with sessions want an id for it, which the stateless one does not have.
        let by_page = field(params, "mode").is_some_and(|mode| is_text(mode, "url"));
        if by_page && field(params, "elicitationId").is_none() {
            let mut edits = Edits::new(params);
            edits.add_members(0, &[b"\"elicitationId\":", &id]);
            edits.write(&mut message);
        } else {
            message.extend_from_slice(params);
        }
    }
    message.push(b'}');
    message
}
