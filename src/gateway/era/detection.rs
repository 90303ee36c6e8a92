//! Which era the client and the server are of.
//!
//! State machine. The client's era is that of its first request. The server is asked in the client's own tongue where that
//! does no harm: a client with sessions sends `initialize`, and only a server that refuses it is asked for
//! `server/discover`; for a stateless client the server is asked for `server/discover` first, and any error but one that
//! only a stateless server has, or none in time, means `initialize`.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Era, EraCache, EraConfig,
    edit::{elements, field, fields},
    message::{
        CAPABILITIES_KEY, CLIENT_INFO_KEY, INTERNAL_ERROR, UNSUPPORTED_VERSION, VERSION_KEY, answerable,
        is_text, own_id, quoted, text,
    },
    queue::{Outbox, RawId},
    session_client::{SessionClient, Verdict},
    stateless_client::{StatelessClient, check},
};
use crate::{
    json::{Envelope, Kind, RawString},
    transport::Revision,
};

/// What is to be done with the messages from now on.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Both sides are of one era.
    Same,
    Sessions(Box<SessionClient>),
    Stateless(Box<StatelessClient>),
    /// The next message decides anew.
    Again,
}

/// The era of a client, by its first request; `None` when it is of either.
pub(super) fn era_of(envelope: &Envelope<'_>) -> Option<Era> {
    if envelope.kind() == Kind::Batch {
        return Some(Era::Sessions);
    }
    let method = envelope.method().filter(|_| envelope.kind() == Kind::Request)?;
    let params = envelope.params().unwrap_or_default();
    if method.is("server/discover") || method.is("subscriptions/listen") {
        return Some(Era::Stateless);
    }
    let says_version = field(params, "_meta").is_some_and(|meta| field(meta, VERSION_KEY).is_some());
    Some(if says_version && !method.is("initialize") { Era::Stateless } else { Era::Sessions })
}

/// How a detection begins.
#[derive(Debug)]
pub(super) enum Beginning {
    Detecting(Detection),
    /// Nothing had to be found out; the message is to be dealt with as the outcome says.
    Known(Outcome),
    /// The message tells nothing and passes.
    Passing,
    /// The message was refused.
    Refused,
}

#[derive(Debug)]
enum Step {
    /// The client's own `initialize` is at the server.
    Greeting,
    /// It was refused, and `server/discover` is there.
    Refused { refusal: Vec<u8> },
    /// `server/discover` is: the client's own or one in its name.
    Probe,
    /// As `Probe`, once more: the server has refused `initialize` as only a stateless one does.
    SecondProbe { refusal: Vec<u8> },
    /// `initialize` in the client's name is.
    Handshake,
}

#[derive(Debug)]
pub(super) struct Detection {
    step: Step,
    /// The client's first request.
    held: Vec<u8>,
    /// The id of what is at the server.
    asked: RawId,
    deadline: Option<Instant>,
    next: u64,
    late: Option<RawId>,
}

/// The message's verdict and, once it is known, the outcome.
pub(super) type Decision = (Verdict, Option<Outcome>);

impl Detection {
    /// Begins with the first request of a client of `era`.
    pub(super) fn begin(
        envelope: &Envelope<'_>,
        era: Era,
        cache: &EraCache,
        config: &EraConfig,
        next: u64,
        out: &mut Outbox,
    ) -> Beginning {
        let id = answerable(envelope);
        let known = cache.server();
        match (era, known) {
            (Era::Sessions, Some(Era::Stateless)) => {
                return Beginning::Known(Outcome::Sessions(Box::new(SessionClient::new(next))));
            }
            (Era::Stateless, Some(Era::Stateless)) => return Beginning::Known(Outcome::Same),
            _ => {}
        }
        let mut detection = Self {
            step: Step::Greeting,
            held: envelope.bytes().to_vec(),
            asked: RawId::new(id),
            deadline: None,
            next,
            late: None,
        };
        if era == Era::Sessions {
            if !envelope.method().is_some_and(|method| method.is("initialize")) {
                // No handshake, or not yet: nothing is found out by it.
                return Beginning::Passing;
            }
            out.server.pieces(&[&detection.held]);
            return Beginning::Detecting(detection);
        }
        let params = envelope.params().unwrap_or_default();
        let meta = field(params, "_meta").unwrap_or_default();
        let [version, capabilities] = fields(meta, 0, [VERSION_KEY, CAPABILITIES_KEY]).unwrap_or_default();
        let part = |range| meta.get(range).unwrap_or_default();
        if !check(id, part(version), part(capabilities), &mut out.client) {
            return Beginning::Refused;
        }
        if known == Some(Era::Sessions) {
            detection.initialize(config.handshake_timeout, out);
        } else if envelope.method().is_some_and(|method| method.is("server/discover")) {
            detection.step = Step::Probe;
            detection.deadline = Instant::now().checked_add(config.probe_timeout);
            out.server.pieces(&[&detection.held]);
        } else {
            detection.step = Step::Probe;
            detection.probe(config.probe_timeout, out);
        }
        Beginning::Detecting(detection)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// What the client says of itself: in `_meta` of the held request, or in the params of `initialize`.
    fn declared(&self, name: &str) -> Option<&[u8]> {
        let params = Envelope::peek(&self.held).ok()?.params()?;
        let old = if name == CLIENT_INFO_KEY { "clientInfo" } else { "capabilities" };
        let value =
            field(params, "_meta").and_then(|meta| field(meta, name)).or_else(|| field(params, old))?;
        (value.first() == Some(&b'{')).then_some(value)
    }

    /// Whether the client can end its side now: all it sent is at the server, as it came.
    pub(super) fn may_close(&self) -> bool {
        matches!(self.step, Step::Greeting)
    }

    fn probe(&mut self, patience: Duration, out: &mut Outbox) {
        let id = own_id(self.number());
        let mut members =
            format!("{{\"_meta\":{{\"{VERSION_KEY}\":\"{}\"", Revision::R2026_07_28).into_bytes();
        for name in [CLIENT_INFO_KEY, CAPABILITIES_KEY] {
            if let Some(value) = self.declared(name) {
                for piece in [b",\"", name.as_bytes(), b"\":", value] {
                    members.extend_from_slice(piece);
                }
            }
        }
        members.extend_from_slice(b"}}");
        out.server.request(&id, b"\"server/discover\"", &members);
        self.asked = RawId::new(&id);
        self.deadline = Instant::now().checked_add(patience);
    }

    fn initialize(&mut self, patience: Duration, out: &mut Outbox) {
        let id = own_id(self.number());
        let own = format!("{{\"name\":\"framewire\",\"version\":\"{}\"}}", env!("CARGO_PKG_VERSION"));
        let params = [
            b"{\"protocolVersion\":",
            &*quoted(Revision::LATEST_WITH_SESSIONS.as_str()),
            b",\"capabilities\":",
            self.declared(CAPABILITIES_KEY).unwrap_or(b"{}"),
            b",\"clientInfo\":",
            self.declared(CLIENT_INFO_KEY).unwrap_or(own.as_bytes()),
            b"}",
        ];
        out.server.request(&id, b"\"initialize\"", &params.concat());
        self.asked = RawId::new(&id);
        self.step = Step::Handshake;
        self.deadline = Instant::now().checked_add(patience);
    }

    /// A message of the server.
    pub(super) fn handle_server(
        &mut self,
        message: &[u8],
        cache: &EraCache,
        config: &EraConfig,
        out: &mut Outbox,
    ) -> Decision {
        let Ok(envelope) = Envelope::peek(message) else { return (Verdict::Unchanged, None) };
        let is_answer = matches!(envelope.kind(), Kind::Response | Kind::Error);
        if !is_answer || envelope.raw_id() != Some(self.asked.as_slice()) {
            return (self.aside(&envelope, out), None);
        }
        match std::mem::replace(&mut self.step, Step::Probe) {
            Step::Greeting => self.greeted(&envelope, cache, config, out),
            Step::Refused { refusal } => self.discovered(&envelope, &refusal, cache, out),
            Step::Probe => self.probed(&envelope, cache, config, out),
            Step::SecondProbe { refusal } => {
                if is_stateless(&envelope) {
                    return self.settle(false, cache, out);
                }
                self.answer_held(&refusal, out);
                (Verdict::Done, Some(Outcome::Again))
            }
            Step::Handshake => self.shaken(&envelope, cache, config, out),
        }
    }

    /// What comes in between.
    fn aside(&self, envelope: &Envelope<'_>, out: &mut Outbox) -> Verdict {
        if matches!(self.step, Step::Greeting | Step::Refused { .. }) {
            return Verdict::Unchanged;
        }
        // The client has no session yet, and never will have.
        if envelope.kind() == Kind::Request {
            let id = answerable(envelope);
            if envelope.method().is_some_and(|method| method.is("ping")) {
                out.server.result(id, b"{}");
            } else {
                out.server.error(id, super::message::METHOD_NOT_FOUND, "no call under way that could ask");
            }
        }
        Verdict::Done
    }

    /// The server has answered the client's own `initialize`.
    fn greeted(
        &mut self,
        envelope: &Envelope<'_>,
        cache: &EraCache,
        config: &EraConfig,
        out: &mut Outbox,
    ) -> Decision {
        if envelope.kind() == Kind::Response {
            cache.set_server(Era::Sessions);
            return (Verdict::Unchanged, Some(Outcome::Same));
        }
        // Stateless servers refuse it in more ways than one.
        self.step = Step::Refused { refusal: envelope.bytes().to_vec() };
        self.probe(config.probe_timeout, out);
        (Verdict::Done, None)
    }

    /// The server that refused `initialize` has answered `server/discover`.
    fn discovered(
        &mut self,
        envelope: &Envelope<'_>,
        refusal: &[u8],
        cache: &EraCache,
        out: &mut Outbox,
    ) -> Decision {
        if envelope.result().is_none() || !is_stateless(envelope) {
            out.client.pieces(&[refusal]);
            return (Verdict::Done, Some(Outcome::Again));
        }
        cache.set_server(Era::Stateless);
        let mut client = Box::new(SessionClient::new(self.next));
        client.adopt(envelope.result().unwrap_or_default());
        client.handle_client(&self.held, out);
        (Verdict::Done, Some(Outcome::Sessions(client)))
    }

    fn probed(
        &mut self,
        envelope: &Envelope<'_>,
        cache: &EraCache,
        config: &EraConfig,
        out: &mut Outbox,
    ) -> Decision {
        if is_stateless(envelope) {
            let own =
                Envelope::peek(&self.held).is_ok_and(|held| held.raw_id() == Some(self.asked.as_slice()));
            return self.settle(own, cache, out);
        }
        self.initialize(config.handshake_timeout, out);
        (Verdict::Done, None)
    }

    /// The server is stateless as the client is; `own` says that the answer is one to the client's own request.
    fn settle(&self, own: bool, cache: &EraCache, out: &mut Outbox) -> Decision {
        cache.set_server(Era::Stateless);
        let outcome = Some(Outcome::Same);
        if own {
            return (Verdict::Unchanged, outcome);
        }
        out.server.pieces(&[&self.held]);
        (Verdict::Done, outcome)
    }

    /// The server has answered `initialize`.
    fn shaken(
        &mut self,
        envelope: &Envelope<'_>,
        cache: &EraCache,
        config: &EraConfig,
        out: &mut Outbox,
    ) -> Decision {
        if let Some(greeting) = envelope.result() {
            cache.set_server(Era::Sessions);
            out.server.pieces(&[b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}"]);
            let mut client = Box::new(StatelessClient::new(greeting, self.next, self.late.take()));
            client.handle_client(&self.held, out);
            return (Verdict::Done, Some(Outcome::Stateless(client)));
        }
        let error = envelope.error().unwrap_or(b"null");
        if field(error, "code") == Some(UNSUPPORTED_VERSION) {
            self.probe(config.handshake_timeout, out);
            self.step = Step::SecondProbe { refusal: error.to_vec() };
            return (Verdict::Done, None);
        }
        self.answer_held(error, out);
        (Verdict::Done, Some(Outcome::Again))
    }

    /// Answers the held request with the server's own error.
    fn answer_held(&self, error: &[u8], out: &mut Outbox) {
        if let Ok(held) = Envelope::peek(&self.held) {
            let id = answerable(&held);
            out.client.pieces(&[b"{\"jsonrpc\":\"2.0\",\"id\":", id, b",\"error\":", error, b"}"]);
        }
    }

    /// The time is up.
    pub(super) fn handle_time(&mut self, config: &EraConfig, out: &mut Outbox) -> Option<Outcome> {
        self.deadline = None;
        if matches!(self.step, Step::Probe) {
            self.late = Some(self.asked.clone());
            self.initialize(config.handshake_timeout, out);
            return None;
        }
        if let Step::Refused { refusal } = &self.step {
            out.client.pieces(&[refusal]);
        } else if let Ok(held) = Envelope::peek(&self.held) {
            out.client.error(
                answerable(&held),
                INTERNAL_ERROR,
                "the server did not answer initialize in time",
            );
        }
        Some(Outcome::Again)
    }

    /// The server has ended. One that ends when it is asked for `server/discover` first has sessions.
    pub(super) fn ended(&self, cache: &EraCache) {
        if matches!(self.step, Step::Probe) {
            cache.set_server(Era::Sessions);
        }
    }
}

/// Whether an answer to `server/discover` is one of a stateless server.
fn is_stateless(envelope: &Envelope<'_>) -> bool {
    let stateless = |versions: &[u8]| {
        let mut found = false;
        let walked = elements(versions, |version| {
            let version = text(version).and_then(RawString::unescape);
            // Later revisions than those known here count too.
            found |= version.is_some_and(|version| version.as_ref() >= Revision::R2026_07_28.as_str());
        });
        walked.is_ok() && found
    };
    if let Some(result) = envelope.result() {
        return field(result, "supportedVersions").is_some_and(stateless)
            && field(result, "resultType").is_none_or(|kind| is_text(kind, "complete"));
    }
    let error = envelope.error().unwrap_or_default();
    field(error, "code") == Some(UNSUPPORTED_VERSION)
        && field(error, "data").and_then(|data| field(data, "supported")).is_some_and(stateless)
}
