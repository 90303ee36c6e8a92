//! A client with sessions in front of a stateless server.
//!
//! State machine: messages in, messages out, no I/O and no clock of its own. The client's `initialize` is answered from
//! `server/discover`; each request gets the `_meta` that stands for the session; what the revision 2026-07-28 no longer has
//! (ping, logging/setLevel, resources/subscribe) is done here; results that ask for input become requests to the client.

use std::collections::HashMap;

use tokio::time::Instant;

use super::{
    edit::{Edits, Malformed, each, field, fields},
    message::{
        Abilities, Asking, BUSY, CAPABILITIES_KEY, CLIENT_INFO_KEY, INTERNAL_ERROR, INVALID_PARAMS,
        INVALID_REQUEST, LEVELS, LOG_LEVEL_KEY, METHOD_NOT_FOUND, SERVER_INFO_KEY, SUBSCRIPTION_KEY,
        VERSION_KEY, answerable, is_text, level, own_id, own_number, quoted, text,
    },
    queue::{Outbox, RawId, SPARE, SPARE_SIZE},
    round::{Round, Rounds, Unasked},
};
use crate::{
    gateway::{SERVER_ENDED, logging},
    json::{Envelope, Kind, RawString},
    limits::{
        ERA_MAX_BATCH, ERA_MAX_DECLARATION, ERA_MAX_HELD_BYTES, ERA_MAX_IN_FLIGHT, ERA_MAX_SUBSCRIPTIONS,
    },
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

    fn set_level(&mut self, envelope: &Envelope<'_>, id: &[u8], out: &mut Outbox) {
        let asked = envelope.params().and_then(|params| field(params, "level")).and_then(level);
        let Some(name) = asked.and_then(|level| LEVELS.get(usize::from(level))) else {
            return out.client.error(id, INVALID_PARAMS, "level is not a level of logging");
        };
        let [.., (_, level)] = &mut self.envelope;
        *level = quoted(name);
        self.join();
        out.client.result(id, b"{}");
    }

    fn subscribe(&mut self, envelope: &Envelope<'_>, id: &[u8], out: &mut Outbox) {
        let uri = envelope.params().and_then(|params| field(params, "uri")).filter(|uri| text(uri).is_some());
        let Some(uri) = uri else { return out.client.error(id, INVALID_PARAMS, "uri is not a string") };
        if self.stream_of(uri).is_some() {
            return out.client.result(id, b"{}");
        }
        if self.streams.len() >= ERA_MAX_SUBSCRIPTIONS || uri.len() > ERA_MAX_DECLARATION {
            return out.client.error(id, BUSY, "too many subscriptions");
        }
        let filter = [b"{\"resourceSubscriptions\":[", uri, b"]}"].concat();
        let stream = Stream::Resource { uri: uri.to_vec(), answer: Some(RawId::new(id)) };
        self.listen(&filter, stream, out);
    }

    fn unsubscribe(&mut self, envelope: &Envelope<'_>, id: &[u8], out: &mut Outbox) {
        let uri = envelope.params().and_then(|params| field(params, "uri")).unwrap_or_default();
        if let Some(at) = self.stream_of(uri) {
            let Listening { number, stream, .. } = self.streams.swap_remove(at);
            out.server.cancel(&own_id(number));
            if let Stream::Resource { answer: Some(answer), .. } = stream {
                out.client.result(answer.as_slice(), b"{}");
            }
        }
        out.client.result(id, b"{}");
    }

    fn stream_of(&self, wanted: &[u8]) -> Option<usize> {
        self.streams
            .iter()
            .position(|own| matches!(&own.stream, Stream::Resource { uri, .. } if uri == wanted))
    }

    fn listen(&mut self, filter: &[u8], stream: Stream, out: &mut Outbox) {
        let number = self.number();
        self.streams.push(Listening { number, stream, filter: filter.to_vec(), agreed: false });
        let params = [b"{\"_meta\":{", &*self.members, b"},\"notifications\":", filter, b"}"].concat();
        out.server.request(&own_id(number), b"\"subscriptions/listen\"", &params);
    }

    fn forward(&mut self, envelope: &Envelope<'_>, method: RawString<'_>, id: &[u8], out: &mut Outbox) {
        let asking = Asking::of(method);
        if asking.is_some() && self.calls.len() + self.rounds.len() >= ERA_MAX_IN_FLIGHT {
            return out.client.error(id, BUSY, "too many requests in flight");
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let written = self.stamp(envelope, None, &[], &mut scratch);
        match written {
            Ok(()) => out.server.pieces(&[&scratch]),
            Err(Malformed) => {
                out.client.error(id, INVALID_PARAMS, "params is not an object with each name once")
            }
        }
        self.scratch = scratch;
        if let (Some(asking), Ok(())) = (asking, written) {
            let bytes = envelope.bytes();
            let room = ERA_MAX_HELD_BYTES.saturating_sub(self.held_bytes);
            let mut request = self.spare.pop().unwrap_or_default();
            if bytes.len() <= room {
                request.extend_from_slice(bytes);
            }
            self.held_bytes += request.len();
            let client = RawId::new(id);
            let call = Call { client: client.clone(), asking, request, rounds: 0 };
            if let Some(forgotten) = self.calls.insert(client, call) {
                self.release(forgotten);
            }
        }
    }

    /// Writes a request with the session's `_meta`, with `id` instead of its own and with more `members` in params, if
    /// there are any.
    fn stamp(
        &self,
        envelope: &Envelope<'_>,
        id: Option<&[u8]>,
        members: &[&[u8]],
        to: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        let message = envelope.bytes();
        let mut edits = Edits::new(message);
        let place = |part: Option<&[u8]>| part.and_then(|part| envelope.range_of(part));
        if let (Some(id), Some(range)) = (id, place(envelope.raw_id())) {
            edits.replace(range, id);
        }
        let whole: [&[u8]; 3] = [b"\"_meta\":{", &self.members, b"}"];
        let mut missing = Vec::new();
        match place(envelope.params()) {
            None => {
                let method = envelope.method().map(RawString::raw);
                let end = place(method).ok_or(Malformed)?.end + 1;
                edits.insert(end, b",\"params\":{");
                members.iter().chain(&whole).for_each(|piece| edits.insert(end, piece));
                edits.insert(end, b"}");
            }
            Some(params) if message.get(params.clone()) == Some(&b"null"[..]) => {
                edits.replace(params.start..params.end, b"{");
                members.iter().chain(&whole).for_each(|piece| edits.insert(params.end, piece));
                edits.insert(params.end, b"}");
            }
            Some(params) => {
                let [meta] = fields(message, params.start, ["_meta"])?;
                let old = message.get(meta.clone()).unwrap_or_default();
                match old.first() {
                    None => {
                        members.iter().chain(&whole).for_each(|piece| edits.insert(params.start + 1, piece));
                        edits.add_members(params.start, &[]);
                    }
                    Some(b'{') => {
                        members.iter().for_each(|piece| edits.insert(params.start + 1, piece));
                        let names = self.envelope.each_ref().map(|(name, _)| *name);
                        let there = fields(message, meta.start, names)?;
                        if there.iter().all(|value| value.is_empty()) {
                            edits.add_members(meta.start, &[&self.members]);
                        } else {
                            self.missing(&there, &mut missing);
                            edits.insert(meta.start + 1, &missing);
                        }
                    }
                    Some(_) if old == b"null" => {
                        members.iter().for_each(|piece| edits.insert(params.start + 1, piece));
                        edits.replace(meta.start..meta.end, b"{");
                        edits.insert(meta.end, &self.members);
                        edits.insert(meta.end, b"}");
                    }
                    Some(_) => return Err(Malformed),
                }
            }
        }
        edits.write(to);
        Ok(())
    }

    /// The members that a request does not bring itself, each with a comma behind it.
    fn missing(&self, there: &[std::ops::Range<usize>; 4], to: &mut Vec<u8>) {
        for ((name, value), _) in self
            .envelope
            .iter()
            .zip(there)
            .filter(|((_, value), there)| !value.is_empty() && there.is_empty())
        {
            for piece in [b"\"", name.as_bytes(), b"\":", value, b","] {
                to.extend_from_slice(piece);
            }
        }
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

    fn drop_call(&mut self, wire: &[u8]) {
        if let Some(call) = self.calls.remove(wire) {
            self.release(call);
        }
    }

    fn release(&mut self, mut call: Call) {
        self.held_bytes = self.held_bytes.saturating_sub(call.request.len());
        if self.spare.len() < SPARE && call.request.capacity() <= SPARE_SIZE {
            call.request.clear();
            self.spare.push(call.request);
        }
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

    /// Sends a call again, with what was asked for.
    fn retry(&mut self, round: Round, out: &mut Outbox) {
        self.held_bytes = self.held_bytes.saturating_sub(round.bytes);
        let number = self.number();
        let wire = own_id(number);
        let responses = round.responses();
        let state: [&[u8]; 3] = match &round.state {
            Some(state) => [b"\"requestState\":", state, b","],
            None => [b""; 3],
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let [name, value, comma] = state;
        let written = Envelope::peek(&round.call.request).map_err(|_| Malformed).and_then(|envelope| {
            self.stamp(&envelope, Some(&wire), &[&responses, name, value, comma], &mut scratch)
        });
        match written {
            Ok(()) => {
                out.server.pieces(&[&scratch]);
                self.retried.insert(round.call.client.clone(), RawId::new(&wire));
                self.calls.insert(RawId::new(&wire), round.call);
            }
            Err(Malformed) => self.fail(round.call, "the request cannot be sent again", out),
        }
        self.scratch = scratch;
    }

    /// Ends a call: a tool's as tools fail, others with an error.
    fn fail(&mut self, call: Call, why: &str, out: &mut Outbox) {
        let id = call.client.as_slice();
        if call.asking == Asking::Tool {
            let result =
                [b"{\"content\":[{\"type\":\"text\",\"text\":", &*quoted(why), b"}],\"isError\":true}"];
            out.client.result(id, &result.concat());
        } else {
            out.client.error(id, INTERNAL_ERROR, why);
        }
        self.retried.remove(id);
        self.release(call);
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

    fn stream_ended(&mut self, number: u64, envelope: &Envelope<'_>, out: &mut Outbox) {
        let Some(at) = self.streams.iter().position(|own| own.number == number) else { return };
        let Listening { stream, filter, agreed, .. } = self.streams.swap_remove(at);
        let code = envelope.error().and_then(|error| field(error, "code"));
        if agreed && code.is_some_and(|code| *code == *SERVER_ENDED.to_string().as_bytes()) {
            // The next one is told what the client still wants; once, unless it agrees.
            return self.listen(&filter, stream, out);
        }
        if let Stream::Resource { answer: Some(answer), .. } = stream {
            match envelope.error() {
                Some(error) => out.client.pieces(&[
                    b"{\"jsonrpc\":\"2.0\",\"id\":",
                    answer.as_slice(),
                    b",\"error\":",
                    error,
                    b"}",
                ]),
                None => {
                    out.client.error(answer.as_slice(), INTERNAL_ERROR, "the server ended the subscription")
                }
            }
        }
    }

    fn call_ended(&mut self, call: Call, envelope: &Envelope<'_>, now: Instant, out: &mut Outbox) -> Verdict {
        let result = envelope.result().filter(|result| {
            result.first() == Some(&b'{')
                && field(result, "resultType").is_some_and(|kind| is_text(kind, "input_required"))
        });
        if let Some(result) = result {
            self.ask(call, result, now, out);
            return Verdict::Done;
        }
        let verdict = if call.rounds == 0 {
            Verdict::Unchanged
        } else {
            self.retried.remove(call.client.as_slice());
            out.client.push(|to| {
                envelope.splice(call.client.as_slice(), to);
            });
            Verdict::Done
        };
        self.release(call);
        verdict
    }

    /// Asks the client for what a result needs.
    fn ask(&mut self, mut call: Call, result: &[u8], now: Instant, out: &mut Outbox) {
        self.retried.remove(call.client.as_slice());
        call.rounds = call.rounds.saturating_add(1);
        let failure = if call.request.is_empty() {
            Some("the request was too large to be kept until the server asked for input".to_owned())
        } else if call.rounds > super::MAX_ROUNDS {
            Some(format!("the server asked for input more than {} times", super::MAX_ROUNDS))
        } else {
            None
        };
        if let Some(failure) = failure {
            return self.fail(call, &failure, out);
        }
        let requests = field(result, "inputRequests").unwrap_or(b"{}");
        let state = field(result, "requestState").filter(|state| text(state).is_some()).map(<[u8]>::to_vec);
        let mut round = Round::new(call, state);
        let mut failure = None;
        let mut messages: Vec<Vec<u8>> = Vec::new();
        let walked = each(requests, 0, |key, _, value| {
            let request = requests.get(value).unwrap_or_default();
            let [method, params] = fields(request, 0, ["method", "params"])?;
            let method = request.get(method).unwrap_or_default();
            let params = request.get(params).filter(|params| !params.is_empty());
            match text(method).and_then(|method| self.abilities.allow(method, params)) {
                _ if round.len() >= super::MAX_QUESTIONS => {
                    failure = Some("the server asked for too much at once")
                }
                None => failure = Some("the server asked for something that is no input"),
                Some(false) => failure = Some("the server asked for something that the client cannot give"),
                Some(true) => {
                    let number = self.number();
                    round.ask(number, key.raw());
                    messages.push(question(number, method, params));
                }
            }
            Ok(())
        });
        if walked.is_err() {
            failure = Some("the server asked for input in a way that cannot be read");
        } else if round.len() == 0 && round.state.is_none() {
            failure = failure.or(Some("the server asked for input without saying which"));
        }
        if let Some(failure) = failure {
            return self.fail(round.call, failure, out);
        }
        if round.bytes > ERA_MAX_HELD_BYTES.saturating_sub(self.held_bytes) {
            return self.fail(round.call, "the server asked for input with too much state", out);
        }
        self.held_bytes += round.bytes;
        messages.iter().for_each(|message| out.client.pieces(&[message]));
        self.rounds.insert(round, now);
    }

    fn event(&mut self, envelope: &Envelope<'_>, out: &mut Outbox) -> Verdict {
        let Some(method) = envelope.method() else { return Verdict::Unchanged };
        if method.is("notifications/subscriptions/acknowledged") {
            self.acknowledged(envelope, out);
            return Verdict::Done;
        }
        if method.is("notifications/cancelled") {
            let own = envelope.request_id().ok().flatten().and_then(own_number);
            let Some(at) = self.streams.iter().position(|listening| Some(listening.number) == own) else {
                return Verdict::Unchanged;
            };
            if let Stream::Resource { answer: Some(answer), .. } = self.streams.swap_remove(at).stream {
                out.client.error(answer.as_slice(), INTERNAL_ERROR, "the server ended the subscription");
            }
            return Verdict::Done;
        }
        let Some(tag) = tag_of(envelope) else { return Verdict::Unchanged };
        // What is not for a stream of this session is for nobody here.
        if own_number(tag).is_some_and(|tag| self.streams.iter().any(|own| own.number == tag)) {
            untag(envelope, out);
        }
        Verdict::Done
    }

    fn acknowledged(&mut self, envelope: &Envelope<'_>, out: &mut Outbox) {
        let Some(number) = tag_of(envelope).and_then(own_number) else { return };
        let agreed = envelope.params().and_then(|params| field(params, "notifications"));
        let agreed = agreed.and_then(|filter| field(filter, "resourceSubscriptions"));
        let agreed =
            agreed.is_some_and(|uris| super::edit::elements(uris, |_| {}).is_ok() && uris.contains(&b'"'));
        let Some(at) = self.streams.iter().position(|own| own.number == number) else { return };
        let Some(own) = self.streams.get_mut(at) else { return };
        own.agreed = true;
        let Stream::Resource { answer, .. } = &mut own.stream else { return };
        let Some(answer) = answer.take() else { return };
        if agreed {
            out.client.result(answer.as_slice(), b"{}");
        } else {
            self.streams.swap_remove(at);
            out.server.cancel(&own_id(number));
            out.client.error(
                answer.as_slice(),
                METHOD_NOT_FOUND,
                "the server has no subscriptions to resources",
            );
        }
    }
}

/// The filter of `subscriptions/listen` for all lists that the server says may change.
fn filter_of(capabilities: &[u8]) -> Vec<u8> {
    let kinds = [
        ("tools", "toolsListChanged"),
        ("prompts", "promptsListChanged"),
        ("resources", "resourcesListChanged"),
    ];
    let mut filter = String::new();
    for (kind, name) in kinds {
        let changes = field(capabilities, kind).and_then(|kind| field(kind, "listChanged"));
        if changes == Some(b"true") {
            filter.push_str(if filter.is_empty() { "{" } else { "," });
            filter.push_str(&format!("\"{name}\":true"));
        }
    }
    if !filter.is_empty() {
        filter.push('}');
    }
    filter.into_bytes()
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

/// The id of the stream that a notification came on.
fn tag_of<'a>(envelope: &Envelope<'a>) -> Option<&'a [u8]> {
    field(envelope.meta().ok().flatten()?, SUBSCRIPTION_KEY)
}

/// Passes a notification on without the id of its stream.
fn untag(envelope: &Envelope<'_>, out: &mut Outbox) {
    let Ok(Some(meta)) = envelope.meta() else { return };
    let Some(range) = envelope.range_of(meta) else { return };
    let mut kept = Vec::new();
    if super::edit::without(meta, 0, |name| name.is(SUBSCRIPTION_KEY), &mut kept) == Ok(true) {
        let mut edits = Edits::new(envelope.bytes());
        edits.replace(range, &kept);
        out.client.push(|to| edits.write(to));
    }
}
