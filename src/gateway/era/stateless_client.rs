//! A stateless client in front of a server with sessions.
//!
//! State machine: messages in, messages out, no I/O and no clock. The handshake is over when it is made, with what the
//! server said of itself. The `_meta` of each request is checked and left out; results get what the revision 2026-07-28
//! wants in them; `subscriptions/listen` is served here; what the server asks the client for becomes the result of a call.

use std::collections::HashMap;

use super::{
    edit::{Edits, each, field, fields, fields_in, without},
    listening::Listening,
    message::{
        Abilities, Asking, BUSY, CAPABILITIES_KEY, CLIENT_INFO_KEY, INVALID_PARAMS, INVALID_REQUEST,
        LOG_LEVEL_KEY, METHOD_NOT_FOUND, RESOURCE_NOT_FOUND, SERVER_INFO_KEY, VERSION_KEY, answerable, level,
        own_id, own_number, quoted, text,
    },
    queue::{Outbox, Queue, RawId},
    session_client::Verdict,
    suspension::{Suspended, Suspensions, Token},
};
use crate::{
    gateway::logging,
    json::{Envelope, Kind, RawString},
    limits::ERA_MAX_IN_FLIGHT,
    transport::Revision,
};

/// A request at the server.
#[derive(Debug)]
struct Call {
    /// The id that the client waits for now; the server knows the call by that of its first round.
    client: RawId,
    asking: Option<Asking>,
    cacheable: bool,
    abilities: Abilities,
    /// The least urgent log message that the client wants for it.
    level: Option<u8>,
    order: u64,
    /// The token of its progress as the server has it, and as the client has it since it came back.
    token: Option<RawId>,
    token_now: Option<RawId>,
    resumed: bool,
}

#[derive(Debug)]
pub(super) struct StatelessClient {
    /// The result of `server/discover`.
    discovery: Vec<u8>,
    has_logging: bool,
    /// What the level was set to last.
    level: Option<u8>,
    next: u64,
    order: u64,
    calls: HashMap<RawId, Call>,
    suspensions: Suspensions,
    listening: Listening,
    /// A probe that the server left unanswered for too long.
    late: Option<RawId>,
    kept: Vec<u8>,
}

impl StatelessClient {
    /// For a server that answered `initialize` with `greeting`; `next` is the number of the next own request.
    pub(super) fn new(greeting: &[u8], next: u64, late: Option<RawId>) -> Self {
        let object = |name| field(greeting, name).filter(|value| value.first() == Some(&b'{'));
        let capabilities = object("capabilities").unwrap_or(b"{}");
        let mut kept = Vec::new();
        // Nobody here speaks of tasks to the server.
        let capabilities = match without(capabilities, 0, |name| name.is("tasks"), &mut kept) {
            Ok(true) => &kept,
            _ => capabilities,
        };
        let instructions = field(greeting, "instructions").filter(|value| text(value).is_some());
        let info = object("serverInfo");
        let mut discovery = [
            &b"{\"resultType\":\"complete\",\"supportedVersions\":["[..],
            &*quoted(Revision::R2026_07_28.as_str()),
            b"],\"capabilities\":",
            capabilities,
            if instructions.is_some() { &b",\"instructions\":"[..] } else { b"" },
            instructions.unwrap_or_default(),
            b",\"ttlMs\":0,\"cacheScope\":\"private\"",
        ]
        .concat();
        if let Some(info) = info {
            for piece in [b",\"_meta\":{\"", SERVER_INFO_KEY.as_bytes(), b"\":", info, b"}"] {
                discovery.extend_from_slice(piece);
            }
        }
        discovery.push(b'}');
        Self {
            has_logging: field(capabilities, "logging").is_some(),
            listening: Listening::new(capabilities),
            discovery,
            level: None,
            next,
            order: 0,
            calls: HashMap::new(),
            suspensions: Suspensions::default(),
            late,
            kept,
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Whether a call waits for the client to come back with what it was asked for.
    pub(super) fn is_suspended(&self) -> bool {
        !self.suspensions.is_empty()
    }

    /// Whether nothing more comes from the server that the client waits for.
    pub(super) fn is_idle(&mut self) -> bool {
        let Self { calls, suspensions, listening, .. } = self;
        listening.is_empty() && calls.keys().all(|wire| suspensions.get_wire(wire.as_slice()).is_some())
    }

    /// The state by which a suspended call is asked for again; the newest one's.
    pub(super) fn token(&self) -> Option<Token> {
        self.suspensions.newest()
    }

    // From the client.

    pub(super) fn handle_client(&mut self, message: &[u8], out: &mut Outbox) -> Verdict {
        let Ok(envelope) = Envelope::peek(message) else { return Verdict::Unchanged };
        match envelope.kind() {
            Kind::Request => self.request(&envelope, out),
            Kind::Notification => self.notification(&envelope, out),
            // Neither has any meaning in this revision.
            Kind::Batch => {
                out.client.error(b"null", INVALID_REQUEST, "this revision has no batches");
                Verdict::Done
            }
            Kind::Response | Kind::Error => Verdict::Done,
            _ => Verdict::Unchanged,
        }
    }

    fn request(&mut self, envelope: &Envelope<'_>, out: &mut Outbox) -> Verdict {
        let (Some(method), id) = (envelope.method(), answerable(envelope)) else { return Verdict::Unchanged };
        let message = envelope.bytes();
        let params = envelope.params().and_then(|params| envelope.range_of(params)).unwrap_or_default();
        if method.is("initialize") {
            refuse_version(
                id,
                envelope.params().and_then(|params| field(params, "protocolVersion")),
                &mut out.client,
            );
            return Verdict::Done;
        }
        let Ok([meta, state, responses]) =
            fields_in(message, &params, ["_meta", "requestState", "inputResponses"])
        else {
            out.client.error(id, INVALID_PARAMS, "params._meta is missing, or a name stands twice");
            return Verdict::Done;
        };
        let names = [VERSION_KEY, CAPABILITIES_KEY, LOG_LEVEL_KEY, "progressToken"];
        let Ok(parts) = fields_in(message, &meta, names) else {
            out.client.error(id, INVALID_PARAMS, "params._meta is missing, or a name stands twice");
            return Verdict::Done;
        };
        let [version, capabilities, wanted, token] =
            parts.map(|range| message.get(range).unwrap_or_default());
        if !check(id, version, capabilities, &mut out.client) {
            return Verdict::Done;
        }
        let call = Call {
            client: RawId::new(id),
            asking: Asking::of(method),
            cacheable: is_cacheable(method),
            abilities: Abilities::of(capabilities),
            level: level(wanted),
            order: self.order,
            token: (!token.is_empty()).then(|| RawId::new(token)),
            token_now: None,
            resumed: false,
        };
        self.order += 1;
        if method.is("server/discover") {
            out.client.result(id, &self.discovery);
        } else if method.is("subscriptions/listen") {
            self.listening.open(id, message.get(params).unwrap_or_default(), &mut self.next, out);
        } else if let Some(gone) = GONE.iter().find(|gone| method.is(gone)) {
            out.client.error(id, METHOD_NOT_FOUND, &format!("{gone} is not in this revision"));
        } else if call.asking.is_some() && !state.is_empty() {
            let responses = message.get(responses).unwrap_or_default();
            self.resume(call, message.get(state).unwrap_or_default(), responses, out);
        } else {
            self.forward(call, envelope, &meta, out);
        }
        Verdict::Done
    }

    fn forward(
        &mut self,
        call: Call,
        envelope: &Envelope<'_>,
        meta: &std::ops::Range<usize>,
        out: &mut Outbox,
    ) {
        let id = answerable(envelope);
        if self.calls.len() >= ERA_MAX_IN_FLIGHT {
            return out.client.error(id, BUSY, "too many requests in flight");
        }
        if self.calls.contains_key(id) {
            return out.client.error(id, INVALID_REQUEST, "this id is still in use");
        }
        if let (Some(wanted), true) = (call.level, self.has_logging)
            && self.level != Some(wanted)
        {
            self.level = Some(wanted);
            let params = [b"{\"level\":", &*quoted(logging::name(wanted)), b"}"].concat();
            out.server.request(&own_id(self.number()), b"\"logging/setLevel\"", &params);
        }
        let message = envelope.bytes();
        self.kept.clear();
        let mut edits = Edits::new(message);
        let envelope_key = |name: RawString<'_>| {
            [VERSION_KEY, CLIENT_INFO_KEY, CAPABILITIES_KEY, LOG_LEVEL_KEY].iter().any(|key| name.is(key))
        };
        if without(message, meta.start, envelope_key, &mut self.kept) == Ok(true) {
            edits.replace(meta.clone(), &self.kept);
        }
        out.server.push(|to| edits.write(to));
        self.calls.insert(RawId::new(id), call);
    }

    /// A call comes back with what was asked for.
    fn resume(&mut self, call: Call, state: &[u8], responses: &[u8], out: &mut Outbox) {
        let id = call.client.clone();
        let Some(mut suspended) = Token::of(state).and_then(|token| self.suspensions.take(token)) else {
            let data = b"{\"reason\":\"invalid_request_state\"}";
            return out.client.error_with(
                id.as_slice(),
                INVALID_PARAMS,
                "Invalid or expired requestState",
                data,
            );
        };
        // The server has already answered it.
        if let Some(answer) = suspended.answer.take() {
            return out.client.pieces(&[&respliced(&answer, id.as_slice())]);
        }
        if responses.first() == Some(&b'{') {
            let _ = each(responses, 0, |key, _, value| {
                if let Some(question) = suspended.answered(key) {
                    out.server.result(&question, responses.get(value).unwrap_or_default());
                }
                Ok(())
            });
        }
        let Some(now) = self.calls.get_mut(suspended.wire.as_slice()) else { return };
        *now =
            Call { order: now.order, token: now.token.take(), token_now: call.token, resumed: true, ..call };
        if !suspended.questions.is_empty() {
            self.suspend(suspended, out);
        }
    }

    /// Ends a round of a call with the questions that are open.
    fn suspend(&mut self, suspended: Suspended, out: &mut Outbox) {
        let Some(call) = self.calls.get(suspended.wire.as_slice()) else { return };
        let token = Token::new();
        let mut result = b"{\"resultType\":\"input_required\",\"inputRequests\":{".to_vec();
        for (at, question) in suspended.questions.iter().enumerate() {
            result.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
            result.extend_from_slice(question.key.as_bytes());
            result.extend_from_slice(b"\":");
            result.extend_from_slice(&question.request);
        }
        result.extend_from_slice(b"},\"requestState\":");
        result.extend_from_slice(&token.json());
        result.push(b'}');
        out.client.result(call.client.as_slice(), &result);
        if let Some(oldest) = self.suspensions.insert(token, suspended) {
            self.give_up(&oldest, out);
        }
    }

    /// Ends a suspended call for which nobody came back.
    fn give_up(&mut self, suspended: &Suspended, out: &mut Outbox) {
        for question in &suspended.questions {
            out.server.error(&question.id, INVALID_REQUEST, "the client did not come back");
        }
        if self.calls.remove(suspended.wire.as_slice()).is_some() {
            out.server.cancel(suspended.wire.as_slice());
        }
    }

    fn notification(&mut self, envelope: &Envelope<'_>, out: &mut Outbox) -> Verdict {
        let Some(method) = envelope.method() else { return Verdict::Unchanged };
        if !method.is("notifications/cancelled") {
            let foreign =
                ["notifications/initialized", "notifications/progress", "notifications/roots/list_changed"];
            let is_foreign = foreign.iter().any(|name| method.is(name));
            return if is_foreign { Verdict::Done } else { Verdict::Unchanged };
        }
        let Ok(Some(id)) = envelope.request_id() else { return Verdict::Unchanged };
        if self.listening.close(id, &mut self.next, out) {
            return Verdict::Done;
        }
        let wire =
            self.calls.iter().find(|(_, call)| call.client.as_slice() == id).map(|(wire, _)| wire.clone());
        let Some(wire) = wire else { return Verdict::Unchanged };
        if let Some(suspended) = self.suspensions.take_wire(wire.as_slice()) {
            self.give_up(&suspended, out);
            return Verdict::Done;
        }
        self.calls.remove(wire.as_slice());
        if wire.as_slice() == id {
            return Verdict::Unchanged;
        }
        if let Some(range) = envelope.range_of(id) {
            let mut edits = Edits::new(envelope.bytes());
            edits.replace(range, wire.as_slice());
            out.server.push(|to| edits.write(to));
        }
        Verdict::Done
    }

    // From the server.

    pub(super) fn handle_server(&mut self, message: &[u8], out: &mut Outbox) -> Verdict {
        let Ok(envelope) = Envelope::peek(message) else { return Verdict::Unchanged };
        match envelope.kind() {
            Kind::Response | Kind::Error => self.answer(&envelope, out),
            Kind::Request => self.question(&envelope, out),
            Kind::Notification => self.event(&envelope, out),
            Kind::Batch => {
                for element in envelope.elements() {
                    let Ok(element) = element else { break };
                    let bytes = element.bytes();
                    if element.kind() != Kind::Batch && self.handle_server(bytes, out) == Verdict::Unchanged {
                        out.client.pieces(&[bytes]);
                    }
                }
                Verdict::Done
            }
            _ => Verdict::Unchanged,
        }
    }

    fn answer(&mut self, envelope: &Envelope<'_>, out: &mut Outbox) -> Verdict {
        let Some(id) = envelope.raw_id() else { return Verdict::Unchanged };
        if own_number(id).is_some() {
            return Verdict::Done;
        }
        if self.late.as_ref().is_some_and(|late| late.as_slice() == id) {
            self.late = None;
            return Verdict::Done;
        }
        let Some(call) = self.calls.remove(id) else { return Verdict::Unchanged };
        if let Some(suspended) = self.suspensions.get_wire(id) {
            // The server did not wait. Kept for the client, which will come back for it.
            let mut answer = Vec::new();
            translate(envelope, &call, &mut answer);
            suspended.keep(answer);
            return Verdict::Done;
        }
        out.client.push(|to| translate(envelope, &call, to));
        Verdict::Done
    }

    /// The server asks the client for something.
    fn question(&mut self, envelope: &Envelope<'_>, out: &mut Outbox) -> Verdict {
        let (Some(method), id) = (envelope.method(), answerable(envelope)) else { return Verdict::Unchanged };
        if method.is("ping") {
            out.server.result(id, b"{}");
            return Verdict::Done;
        }
        let allows = |call: &Call| {
            call.asking.is_some() && call.abilities.allow(method, envelope.params()) == Some(true)
        };
        // Nothing says which call it is for: the last that began and can ask.
        let call = self.calls.iter().filter(|(_, call)| allows(call)).max_by_key(|(_, call)| call.order);
        let Some(wire) = call.map(|(wire, _)| wire.clone()) else {
            out.server.error(id, METHOD_NOT_FOUND, "no call under way whose client can be asked that");
            return Verdict::Done;
        };
        let request = match (envelope.params(), quoted_method(envelope)) {
            (Some(params), method) => [b"{\"method\":", method, b",\"params\":", params, b"}"].concat(),
            (None, method) => [b"{\"method\":", method, b"}"].concat(),
        };
        if let Some(suspended) = self.suspensions.get_wire(wire.as_slice()) {
            // Asked once the client comes back.
            if !suspended.ask(id, request) {
                out.server.error(id, BUSY, "too much asked at once");
            }
            return Verdict::Done;
        }
        let mut suspended = Suspended::new(wire);
        suspended.ask(id, request);
        self.suspend(suspended, out);
        Verdict::Done
    }

    fn event(&mut self, envelope: &Envelope<'_>, out: &mut Outbox) -> Verdict {
        let Some(method) = envelope.method() else { return Verdict::Unchanged };
        if self.listening.deliver(envelope, method, out) {
            return Verdict::Done;
        }
        if method.is("notifications/message") {
            let urgency = envelope.params().and_then(|params| field(params, "level")).and_then(level);
            // Which request it is for is not said: it passes when one under way wants it.
            let wanted = self.calls.values().any(|call| match (call.level, urgency) {
                (Some(least), Some(level)) => level >= least,
                (least, None) => least.is_some(),
                (None, _) => false,
            });
            return if wanted { Verdict::Unchanged } else { Verdict::Done };
        }
        if method.is("notifications/progress") {
            return self.progress(envelope, out);
        }
        if method.is("notifications/cancelled") {
            if let Ok(Some(id)) = envelope.request_id() {
                self.suspensions.withdraw(id);
            }
            return Verdict::Done;
        }
        let foreign = ["notifications/elicitation/complete", "notifications/tasks/status"];
        if foreign.iter().any(|name| method.is(name)) { Verdict::Done } else { Verdict::Unchanged }
    }

    /// Progress of a call for which the client came back has another token now.
    fn progress(&self, envelope: &Envelope<'_>, out: &mut Outbox) -> Verdict {
        let Some(token) = envelope.params().and_then(|params| field(params, "progressToken")) else {
            return Verdict::Unchanged;
        };
        let is_of =
            |call: &&Call| call.resumed && call.token.as_ref().is_some_and(|own| own.as_slice() == token);
        let Some(call) = self.calls.values().find(is_of) else { return Verdict::Unchanged };
        if let (Some(now), Some(range)) = (&call.token_now, envelope.range_of(token)) {
            let mut edits = Edits::new(envelope.bytes());
            edits.replace(range, now.as_slice());
            out.client.push(|to| edits.write(to));
        }
        Verdict::Done
    }

    /// The server has ended, or the client says no more: so do the streams of notifications.
    pub(super) fn end_streams(&mut self, out: &mut Outbox) {
        self.listening.end(&mut out.client);
    }
}

/// What the revision no longer has.
const GONE: [&str; 4] = ["ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"];

/// Whether results of `method` say how long they may be kept.
fn is_cacheable(method: RawString<'_>) -> bool {
    ["tools/list", "resources/list", "resources/templates/list", "resources/read", "prompts/list"]
        .iter()
        .any(|name| method.is(name))
}

/// Checks what each request says of its client, and answers it when that will not do.
pub(super) fn check(id: &[u8], version: &[u8], capabilities: &[u8], to: &mut Queue) -> bool {
    let is_object = capabilities.first() == Some(&b'{');
    let missing = [(VERSION_KEY, text(version).is_none()), (CAPABILITIES_KEY, !is_object)];
    if let Some((key, _)) = missing.iter().find(|(_, missing)| *missing) {
        to.error(id, INVALID_PARAMS, &format!("params._meta lacks {key}, or it is of the wrong type"));
        return false;
    }
    if !text(version).is_some_and(|version| version.is(Revision::R2026_07_28.as_str())) {
        refuse_version(id, Some(version), to);
        return false;
    }
    true
}

fn refuse_version(id: &[u8], requested: Option<&[u8]>, to: &mut Queue) {
    let requested = requested.filter(|requested| text(requested).is_some()).unwrap_or(b"\"\"");
    let supported = quoted(Revision::R2026_07_28.as_str());
    let data = [b"{\"supported\":[", &*supported, b"],\"requested\":", requested, b"}"].concat();
    to.error_with(id, -32022, "Unsupported protocol version", &data);
}

/// The method of a request, as JSON.
fn quoted_method<'a>(envelope: &Envelope<'a>) -> &'a [u8] {
    let raw = envelope.method().map(RawString::raw).unwrap_or_default();
    let range = envelope.range_of(raw).unwrap_or_default();
    envelope.bytes().get(range.start.saturating_sub(1)..range.end + 1).unwrap_or(b"\"\"")
}

/// Writes an answer of the server as the client is to have it.
fn translate(envelope: &Envelope<'_>, call: &Call, to: &mut Vec<u8>) {
    let message = envelope.bytes();
    let mut edits = Edits::new(message);
    let place = |part: Option<&[u8]>| part.and_then(|part| envelope.range_of(part));
    if let Some(range) = place(envelope.raw_id())
        && message.get(range.clone()) != Some(call.client.as_slice())
    {
        edits.replace(range, call.client.as_slice());
    }
    if let Some(result) = place(envelope.result())
        && message.get(result.start) == Some(&b'{')
        && let Ok([kind, ttl, scope]) = fields(message, result.start, ["resultType", "ttlMs", "cacheScope"])
    {
        let wanted: [(&[u8], bool); 3] = [
            (b"\"resultType\":\"complete\"", kind.is_empty()),
            (b"\"ttlMs\":0", call.cacheable && ttl.is_empty()),
            (b"\"cacheScope\":\"private\"", call.cacheable && scope.is_empty()),
        ];
        let mut pieces: [&[u8]; 5] = [b""; 5];
        let mut len = 0;
        for (piece, _) in wanted.iter().filter(|(_, wanted)| *wanted) {
            for piece in [if len == 0 { b"" } else { &b","[..] }, piece] {
                if let (false, Some(place)) = (piece.is_empty(), pieces.get_mut(len)) {
                    *place = piece;
                    len += 1;
                }
            }
        }
        if len > 0 {
            edits.add_members(result.start, pieces.get(..len).unwrap_or_default());
        }
    }
    if let Some(error) = place(envelope.error())
        && message.get(error.start) == Some(&b'{')
        && let Ok([code]) = fields(message, error.start, ["code"])
        && message.get(code.clone()) == Some(RESOURCE_NOT_FOUND)
    {
        edits.replace(code, b"-32602");
    }
    edits.write(to);
}

/// An answer with another id.
fn respliced(answer: &[u8], id: &[u8]) -> Vec<u8> {
    let mut to = Vec::new();
    if !Envelope::peek(answer).is_ok_and(|envelope| envelope.splice(id, &mut to)) {
        to.extend_from_slice(answer);
    }
    to
}
