//! What a supervisor remembers of the messages that pass: requests under way in both directions, and the handshake.
//!
//! Used by supervisor only. Does no I/O; changes no message but one (a server's request whose id a request of the server
//! before it still has at the client).

use std::{collections::VecDeque, sync::Arc};

use super::{
    config::{SupervisorEvent, SupervisorObserver},
    settings::Settings,
    status::{Count, Status},
};
use crate::{
    Error,
    codec::Excerpt,
    error::{Fault, JsonReason},
    gateway::{
        calls::{Calls, Key},
        refusal::{self, BAD_ANSWER, INVALID_REQUEST, SERVER_ENDED, TOO_MANY},
        splice::{Exchange, Field, Fields},
    },
    json::{Cut, Envelope, EnvelopeError, Id, Kind},
    limits::MAX_ID_SIZE,
};

/// Marks of calls.
const PLAIN: u8 = 0;
const INITIALIZE: u8 = 1;
const SETTING: u8 = 2;

/// Requests of a server that wait at the client. Real ones have one or two.
const MAX_ASKS: usize = 1024;

pub(super) const ENDED: &str = "the server ended before it answered";
pub(super) const RESTARTING: &str = "the server ended before it answered; it is being restarted";
pub(super) const GIVEN_UP: &str = "the server has ended too often and is not started again";
pub(super) const NOT_RUNNING: &str = "the server is not running; it is being restarted";

/// How far the client's handshake is.
#[derive(Debug, Default)]
enum Handshake {
    #[default]
    None,
    /// The request, not answered yet.
    Asked(Vec<u8>),
    Done(Vec<u8>),
}

pub(super) struct Tracker {
    calls: Calls,
    /// Requests of the server at the client.
    asks: Calls,
    /// The same of servers that have ended.
    stale: Calls,
    /// Requests of the server that go by another id, that id's number with the server's id.
    renamed: Vec<(u64, Vec<u8>)>,
    renames: u64,
    handshake: Handshake,
    initialized: Option<Vec<u8>>,
    /// What a new server is to be told behind the handshake.
    pub(super) settings: Settings,
    /// Our own messages to the client.
    pub(super) owed: VecDeque<Vec<u8>>,
    /// The server has answered a request.
    answered: bool,
    max_in_flight: usize,
    pub(super) status: Status,
    pub(super) observer: Arc<dyn SupervisorObserver>,
}

/// What is to be done with a message of the client.
pub(super) enum Outgoing {
    Pass,
    /// It is dealt with.
    Done,
    Instead(Vec<u8>),
}

/// What is to be done with a message of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Pass,
    Skip,
    /// The answer to the repeated `initialize`, and whether it is a result.
    Replayed(bool),
}

impl Tracker {
    pub(super) fn new(max_in_flight: usize, status: Status, observer: Arc<dyn SupervisorObserver>) -> Self {
        Self {
            calls: Calls::default(),
            asks: Calls::default(),
            stale: Calls::default(),
            renamed: Vec::new(),
            renames: 0,
            handshake: Handshake::None,
            initialized: None,
            settings: Settings::default(),
            owed: VecDeque::new(),
            answered: false,
            max_in_flight,
            status,
            observer,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.calls.len()
    }

    /// Whether a request was answered since the last call of [`take_answered`](Self::take_answered).
    pub(super) fn has_answered(&self) -> bool {
        self.answered
    }

    /// Whether a request was answered since the last call.
    pub(super) fn take_answered(&mut self) -> bool {
        std::mem::take(&mut self.answered)
    }

    /// The `initialize` to repeat.
    pub(super) fn greeting(&self) -> Option<&[u8]> {
        match &self.handshake {
            Handshake::Done(message) => Some(message),
            _ => None,
        }
    }

    /// The `notifications/initialized` to repeat.
    pub(super) fn initialized(&self) -> Option<&[u8]> {
        self.initialized.as_deref()
    }

    /// Looks at what the client sends, before it is sent.
    pub(super) fn check(&mut self, envelope: &Envelope<'_>) -> Outgoing {
        match envelope.kind() {
            Kind::Request => match self.obstacle(envelope, 0) {
                None => Outgoing::Pass,
                Some((code, text)) => {
                    self.refuse(envelope, code, text);
                    Outgoing::Done
                }
            },
            Kind::Response | Kind::Error => self.check_answer(envelope),
            Kind::Batch => {
                let obstacle = envelope
                    .elements()
                    .flatten()
                    .filter(|element| element.kind() == Kind::Request)
                    .enumerate()
                    .find_map(|(before, element)| self.obstacle(&element, before));
                match obstacle {
                    None => Outgoing::Pass,
                    Some((code, text)) => {
                        self.refuse(envelope, code, text);
                        Outgoing::Done
                    }
                }
            }
            _ => Outgoing::Pass,
        }
    }

    /// Why a request cannot be passed on, with so many before it in the same batch.
    fn obstacle(&self, envelope: &Envelope<'_>, before: usize) -> Option<(i32, &'static str)> {
        if self.calls.len() + before >= self.max_in_flight {
            return Some((TOO_MANY, "too many requests are under way"));
        }
        let too_long = envelope.raw_id().is_some_and(|id| id.len() > MAX_ID_SIZE);
        too_long.then_some((INVALID_REQUEST, "the id is too long"))
    }

    fn check_answer(&mut self, envelope: &Envelope<'_>) -> Outgoing {
        let Some(key) = Key::of(envelope) else { return Outgoing::Pass };
        if let Some(number) = own_number(key.raw())
            && let Some(at) = self.renamed.iter().position(|(renamed, _)| *renamed == number)
            && let Ok(fields) = Fields::find(envelope)
        {
            let (_, id) = self.renamed.swap_remove(at);
            let exchange = Exchange { id: Some(&id), ..Exchange::default() };
            let pieces: Vec<&[u8]> = fields.pieces(&exchange).collect();
            return Outgoing::Instead(pieces.concat());
        }
        if !self.asks.contains(&key) && self.stale.remove(&key).is_some() {
            self.status.add(Count::LateAnswer);
            self.observer.event(&SupervisorEvent::LateAnswer);
            return Outgoing::Done;
        }
        Outgoing::Pass
    }

    /// Answers the request, or each of the batch, with an error.
    pub(super) fn refuse(&mut self, envelope: &Envelope<'_>, code: i32, text: &str) {
        match envelope.kind() {
            Kind::Request => {
                let mut answer = Vec::new();
                refusal::refuse(envelope.raw_id().unwrap_or(b"null"), code, text, &mut answer);
                self.owed.push_back(answer);
                self.status.add(Count::FailedRequest);
            }
            Kind::Batch => {
                for element in envelope.elements().flatten() {
                    self.refuse(&element, code, text);
                }
            }
            // Its elements are no batches: nothing goes deeper.
            _ => self.status.add(Count::Lost),
        }
    }

    /// Remembers what was sent.
    pub(super) fn note(&mut self, envelope: &Envelope<'_>) {
        match envelope.kind() {
            Kind::Request => {
                let initialize = envelope.method().is_some_and(|method| method.is("initialize"));
                if initialize {
                    self.handshake = Handshake::Asked(envelope.bytes().to_vec());
                    self.initialized = None;
                    self.settings = Settings::default();
                }
                if let Some(key) = Key::of(envelope) {
                    let tag = match () {
                        () if initialize => INITIALIZE,
                        () if self.settings.note(envelope, &key) => SETTING,
                        () => PLAIN,
                    };
                    self.calls.insert(&key, tag);
                }
            }
            Kind::Notification => {
                let Some(method) = envelope.method() else { return };
                if method.is("notifications/initialized") {
                    self.initialized = Some(envelope.bytes().to_vec());
                } else if method.is("notifications/cancelled")
                    && let Ok(Some(id)) = envelope.request_id()
                    && let Some(key) = Key::of_value(id)
                {
                    // It may never be answered.
                    if self.calls.remove(&key) == Some(SETTING) {
                        self.settings.answered(&key, false);
                    }
                }
            }
            Kind::Response | Kind::Error => {
                if let Some(key) = Key::of(envelope) {
                    self.asks.remove(&key);
                }
            }
            Kind::Batch => envelope.elements().flatten().for_each(|element| self.note(&element)),
            Kind::Other => {}
        }
        self.status.set_in_flight(self.calls.len());
    }

    /// Remembers a `notifications/initialized` that comes while there is no server to send it to: the next one gets it
    /// with the handshake. False when that will not be.
    pub(super) fn note_initialized(&mut self, envelope: &Envelope<'_>) -> bool {
        let is = envelope.method().is_some_and(|method| method.is("notifications/initialized"));
        if is && matches!(self.handshake, Handshake::Done(_)) {
            self.initialized = Some(envelope.bytes().to_vec());
            return true;
        }
        false
    }

    /// Looks at what the server sent.
    pub(super) fn incoming(&mut self, message: &[u8], replaying: bool) -> Incoming {
        let envelope = match Envelope::peek(message) {
            Ok(envelope) => envelope,
            Err(error) => return self.skip(message, &fault(error)),
        };
        if simdutf8::basic::from_utf8(message).is_err() {
            return self.skip_invalid(&envelope);
        }
        match envelope.kind() {
            Kind::Other => {
                let fault = Fault::InvalidJson { at: 0, reason: JsonReason::NotJsonRpc };
                self.skip(message, &fault.into())
            }
            Kind::Batch => {
                let other = |element: Result<Envelope<'_>, EnvelopeError>| {
                    !element.is_ok_and(|element| !matches!(element.kind(), Kind::Other | Kind::Batch))
                };
                // An empty one is no message either (JSON-RPC 2.0 §6).
                if envelope.elements().next().is_none() || envelope.elements().any(other) {
                    let fault = Fault::InvalidJson { at: 0, reason: JsonReason::NotJsonRpc };
                    return self.skip(message, &fault.into());
                }
                let mut passed = Vec::new();
                let mut whole = true;
                for element in envelope.elements().flatten() {
                    match self.note_incoming(&element, false) {
                        Incoming::Pass => passed.push(element.bytes()),
                        _ => whole = false,
                    }
                }
                if whole {
                    return Incoming::Pass;
                }
                if !passed.is_empty() {
                    self.owed.push_back([b"[", &*passed.join(&b','), b"]"].concat());
                }
                Incoming::Skip
            }
            _ => self.note_incoming(&envelope, replaying),
        }
    }

    fn note_incoming(&mut self, envelope: &Envelope<'_>, replaying: bool) -> Incoming {
        match envelope.kind() {
            Kind::Response | Kind::Error => {
                let Some(key) = Key::of(envelope) else { return Incoming::Pass };
                let success = envelope.kind() == Kind::Response;
                if replaying && self.is_greeting(&key) {
                    return Incoming::Replayed(success);
                }
                let observer = &self.observer;
                let refused = |method: &str| observer.event(&SupervisorEvent::NotRestored { method });
                if self.settings.is_repeated(&key, success, refused) {
                    return Incoming::Skip;
                }
                let Some(tag) = self.calls.remove(&key) else { return Incoming::Pass };
                self.answered |= success;
                self.status.set_in_flight(self.calls.len());
                if tag == SETTING {
                    self.settings.answered(&key, success);
                }
                if tag == INITIALIZE {
                    self.handshake = match std::mem::take(&mut self.handshake) {
                        Handshake::Asked(message) if success => Handshake::Done(message),
                        _ => Handshake::None,
                    };
                }
            }
            Kind::Request => return self.note_ask(envelope),
            Kind::Notification => {
                let is = |method| envelope.method().is_some_and(|name| name.is(method));
                if is("notifications/cancelled")
                    && let Ok(Some(id)) = envelope.request_id()
                    && let Some(key) = Key::of_value(id)
                {
                    return self.note_cancelled(envelope, &key);
                }
            }
            Kind::Batch | Kind::Other => {}
        }
        Incoming::Pass
    }

    fn is_greeting(&self, key: &Key<'_>) -> bool {
        let Some(Ok(greeting)) = self.greeting().map(Envelope::peek) else { return false };
        Key::of(&greeting).is_some_and(|own| own.text() == key.text())
    }

    fn note_ask(&mut self, envelope: &Envelope<'_>) -> Incoming {
        let Some(key) = Key::of(envelope) else { return Incoming::Pass };
        if key.raw().len() > MAX_ID_SIZE || self.asks.len() >= MAX_ASKS {
            // Not remembered: it passes all the same.
            return Incoming::Pass;
        }
        if !self.stale.contains(&key) {
            self.asks.insert(&key, PLAIN);
            return Incoming::Pass;
        }
        // The client may yet answer the one of the server before.
        let Ok(fields) = Fields::find(envelope) else { return Incoming::Pass };
        self.renames += 1;
        let id = own_id(self.renames);
        let exchange = Exchange { id: Some(id.as_bytes()), ..Exchange::default() };
        let pieces: Vec<&[u8]> = fields.pieces(&exchange).collect();
        self.owed.push_back(pieces.concat());
        if self.renamed.len() >= MAX_ASKS {
            self.renamed.remove(0);
        }
        self.renamed.push((self.renames, key.raw().to_vec()));
        Incoming::Skip
    }

    fn note_cancelled(&mut self, envelope: &Envelope<'_>, key: &Key<'_>) -> Incoming {
        self.asks.remove(key);
        let of = |(_, id): &(u64, Vec<u8>)| Key::of_value(id).is_some_and(|own| own.text() == key.text());
        let Some(at) = self.renamed.iter().position(of) else { return Incoming::Pass };
        let Ok(fields) = Fields::find(envelope) else { return Incoming::Pass };
        let (number, _) = self.renamed.swap_remove(at);
        let id = own_id(number);
        debug_assert!(fields.get(Field::RequestId).is_some());
        let exchange = Exchange { request_id: Some(id.as_bytes()), ..Exchange::default() };
        let pieces: Vec<&[u8]> = fields.pieces(&exchange).collect();
        self.owed.push_back(pieces.concat());
        Incoming::Skip
    }

    /// Counts and tells of something that is no message.
    pub(super) fn skip(&mut self, bytes: &[u8], error: &Error) -> Incoming {
        self.status.add(Count::Garbage);
        self.observer.event(&SupervisorEvent::Garbage { bytes, error });
        Incoming::Skip
    }

    /// A message that is not UTF-8. If it is an answer, whoever waits for it is told so.
    #[cold]
    fn skip_invalid(&mut self, envelope: &Envelope<'_>) -> Incoming {
        let message = envelope.bytes();
        let valid_up_to = std::str::from_utf8(message).err().map_or(0, |error| error.valid_up_to());
        let is_answer = matches!(envelope.kind(), Kind::Response | Kind::Error);
        if is_answer
            && envelope.id() != Id::Null
            && let Some(key) = Key::of(envelope)
        {
            self.refuse_one(&key, "the server's answer is not UTF-8");
        }
        self.skip(message, &Fault::InvalidUtf8 { size: message.len(), valid_up_to }.into())
    }

    fn owe(&mut self, id: &[u8], code: i32, text: &str) {
        let mut answer = Vec::new();
        refusal::refuse(id, code, text, &mut answer);
        self.owed.push_back(answer);
        self.status.add(Count::FailedRequest);
    }

    /// A message of the server was too large to be taken. Whoever waits for it would wait for ever.
    pub(super) fn overrun(&mut self, size: u64, limit: usize, excerpt: Option<Excerpt<'_>>) {
        let text = format!("the server's answer of {size} bytes exceeds the limit of {limit} bytes");
        match excerpt.map_or(Cut::Unknown, |excerpt| Cut::of(excerpt.head, excerpt.tail)) {
            Cut::Answer(id) => {
                if let Some(key) = Key::of_value(id) {
                    self.refuse_one(&key, &text);
                }
            }
            Cut::Other => {}
            // Of a single request under way it must be the answer.
            Cut::Unknown if self.calls.len() == 1 => self.refuse_all(BAD_ANSWER, &text),
            Cut::Unknown => {}
        }
    }

    /// Answers a request whose answer cannot be passed on with an error, if it is under way.
    fn refuse_one(&mut self, key: &Key<'_>, text: &str) {
        let Some(tag) = self.calls.remove(key) else { return };
        match tag {
            INITIALIZE => self.handshake = Handshake::None,
            SETTING => self.settings.answered(key, false),
            _ => {}
        }
        self.owe(key.raw(), BAD_ANSWER, text);
        self.status.set_in_flight(self.calls.len());
    }

    /// Answers all that is under way with an error.
    fn refuse_all(&mut self, code: i32, text: &str) {
        let (owed, status) = (&mut self.owed, &self.status);
        self.calls.drain(|id, _| {
            let mut answer = Vec::new();
            refusal::refuse(id, code, text, &mut answer);
            owed.push_back(answer);
            status.add(Count::FailedRequest);
        });
        status.set_in_flight(0);
        self.settings.fail_asked();
        if let Handshake::Asked(_) = self.handshake {
            self.handshake = Handshake::None;
        }
    }

    /// The server has ended: answers all that is under way, takes back its own requests.
    pub(super) fn fail_all(&mut self, text: &str) {
        self.refuse_all(SERVER_ENDED, text);
        self.settings.fail_repeated();
        let owed = &mut self.owed;
        if self.stale.len() + self.asks.len() > MAX_ASKS {
            self.stale.clear();
        }
        let stale = &mut self.stale;
        self.asks.drain(|id, _| {
            let mut notification = Vec::new();
            refusal::cancel(id, "the server ended", &mut notification);
            owed.push_back(notification);
            if let Some(key) = Key::of_value(id) {
                stale.insert(&key, PLAIN);
            }
        });
        for (number, _) in self.renamed.drain(..) {
            let mut notification = Vec::new();
            let id = own_id(number);
            refusal::cancel(id.as_bytes(), "the server ended", &mut notification);
            owed.push_back(notification);
            if let Some(key) = Key::of_value(id.as_bytes()) {
                stale.insert(&key, PLAIN);
            }
        }
    }
}

/// An id of our own.
fn own_id(number: u64) -> String {
    format!("\"framewire-{number}\"")
}

fn own_number(raw: &[u8]) -> Option<u64> {
    let digits = raw.strip_prefix(b"\"framewire-")?.strip_suffix(b"\"")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn fault(error: EnvelopeError) -> Error {
    let (at, reason) = match error {
        EnvelopeError::Invalid(invalid) => (invalid.at, invalid.reason),
        EnvelopeError::DuplicateKey { at } => (at as u64, JsonReason::Duplicate),
    };
    Fault::InvalidJson { at, reason }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::Silent;

    #[test]
    fn a_setting_whose_answer_is_unknown_is_not_mistaken_for_a_later_one() {
        let mut tracker = Tracker::new(8, Status::default(), Arc::new(Silent));
        for level in ["debug", "error"] {
            let request = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{{"level":"{level}"}}}}"#
            );
            tracker.note(&Envelope::peek(request.as_bytes()).unwrap());
            if level == "debug" {
                tracker.overrun(2, 1, None);
            }
        }
        assert_eq!(tracker.incoming(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#, false), Incoming::Pass);
        let repeated = tracker.settings.repeat();
        assert!(repeated[0].ends_with(br#"{"level":"error"}}"#), "{}", repeated[0].escape_ascii());
    }

    #[test]
    fn what_is_ours_is_taken_out_of_a_batch() {
        let mut tracker = Tracker::new(8, Status::default(), Arc::new(Silent));
        let ask = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        assert_eq!(tracker.incoming(ask.as_bytes(), false), Incoming::Pass);
        tracker.fail_all(ENDED);
        tracker.owed.clear();
        // The client may yet answer the first 1.
        let (one, two) = (r#"{"jsonrpc":"2.0","method":"a"}"#, r#"{"jsonrpc":"2.0","method":"b"}"#);
        let batch = format!("[{one},{ask}, {two} ]");
        assert_eq!(tracker.incoming(batch.as_bytes(), false), Incoming::Skip);
        let renamed = r#"{"jsonrpc":"2.0","id":"framewire-1","method":"ping"}"#.to_owned();
        assert_eq!(tracker.owed, [renamed.into_bytes(), format!("[{one},{two}]").into_bytes()]);
    }
}
