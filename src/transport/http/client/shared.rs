//! [`Shared`]: what all tasks of one transport have in common, and how what comes is told apart.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};

use super::{
    LAST_EVENT, SESSION, VERSION,
    call::Call,
    config::HttpClientConfig,
    error::HttpClientError,
    events::{ClientEvent, Counters, count},
    inbox::Inbox,
    message::{Key, Message, Open, Role, key},
    outbox::Outbox,
    parameters::Tools,
    pool::{Pool, Whole},
    session::Session,
    signal::Signal,
};
#[cfg(feature = "tls")]
use crate::io::tls::TlsClientConfig;
use crate::{
    Frame,
    endpoint::Url,
    error::{End, Fault, JsonReason},
    json::{Envelope, EnvelopeError, Kind, subscription_over},
};

const JSON_OR_EVENTS: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("framewire/", env!("CARGO_PKG_VERSION")));

pub(super) struct Shared {
    pub(super) config: HttpClientConfig,
    pub(super) pool: Arc<Pool>,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    pub(super) counters: Arc<Counters>,
    /// Everything ends now.
    pub(super) closing: Signal,
    /// The program sends no more, and waits for what it has asked for.
    pub(super) parted: Signal,
    /// One at a time opens a session anew.
    pub(super) renewal: tokio::sync::Mutex<()>,
    host: HeaderValue,
    target: Uri,
    /// Scheme and authority, which HTTP/2 wants in the target.
    origin: String,
    tools: Mutex<Tools>,
    session: Mutex<Session>,
    waiting: Mutex<HashMap<Key, Arc<Call>>>,
    /// Held from when an answer is struck off what is waited for until it can be received.
    step: Mutex<()>,
}

/// What a received message was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// Something of the server's own: a request, a notification.
    Message,
    /// A response that was waited for.
    Answer,
    /// A response that the transport itself has waited for.
    Hidden,
    /// Left out.
    Nothing,
}

impl Shared {
    pub(super) fn new(
        url: &Url,
        #[cfg_attr(not(feature = "tls"), allow(unused_mut))] mut config: HttpClientConfig,
    ) -> Result<Arc<Self>, HttpClientError> {
        super::check(url)?;
        let counters = Arc::new(Counters::default());
        #[cfg(feature = "tls")]
        if config.tls.is_none() && url.scheme() == "https" {
            let tls = TlsClientConfig::builder().alpn(["h2", "http/1.1"]);
            config.tls =
                Some(tls.build().map_err(|error| HttpClientError::Tls { reason: error.to_string() })?);
        }
        let bad = |_| HttpClientError::BadAnswer { reason: "the URL cannot be asked for".into() };
        let scheme = if url.scheme() == "https" { "https" } else { "http" };
        let pool = Pool::new(
            url.place.clone(),
            config.tcp.clone(),
            #[cfg(feature = "tls")]
            // Many servers answer no offer; they speak HTTP/1.1.
            config.tls.take().map(TlsClientConfig::any_alpn),
            Arc::clone(&counters),
        );
        Ok(Arc::new(Self {
            pool,
            inbox: Inbox::default(),
            outbox: Outbox::new(config.max_in_flight),
            counters,
            closing: Signal::default(),
            parted: Signal::default(),
            renewal: tokio::sync::Mutex::default(),
            host: HeaderValue::try_from(&*url.host).map_err(|_| bad(()))?,
            target: Uri::try_from(&*url.target).map_err(|_| bad(()))?,
            origin: format!("{scheme}://{}", url.host),
            tools: Mutex::default(),
            session: Mutex::default(),
            waiting: Mutex::default(),
            step: Mutex::default(),
            config,
        }))
    }

    pub(super) fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self) -> MutexGuard<'_, ()> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing more can be received than what is there.
    pub(super) fn finish(&self, end: End) {
        let _step = self.step();
        self.inbox.finish(end);
    }

    fn tools(&self) -> MutexGuard<'_, Tools> {
        self.tools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a message must not go out, if there is a reason.
    pub(super) fn forbids(&self, message: &Message) -> Option<&'static str> {
        message.stateless.as_ref().filter(|own| own.method() == b"tools/call")?;
        self.tools().forbids(&message.bytes)
    }

    pub(super) fn target(&self) -> &Uri {
        &self.target
    }

    /// Scheme and authority.
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Key, Arc<Call>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, event: &ClientEvent<'_>) {
        if let Some(observer) = &self.config.observer {
            observer.event(event);
        }
    }

    pub(super) fn close(&self) {
        // In this order: a driver that found nothing left to send before it is told to close would take it for the end
        // of sending.
        self.closing.set();
        self.outbox.close();
    }

    /// A request as it goes out. `http2`: the connection is of that version, which wants the whole URL.
    fn request(&self, method: Method, body: Bytes, http2: bool) -> Request<Whole> {
        let mut request = Request::new(Whole::new(body));
        *request.method_mut() = method;
        let endpoint = self.session().endpoint.clone();
        let target =
            endpoint.filter(|_| *request.method() == Method::POST).unwrap_or_else(|| self.target.clone());
        let headers = request.headers_mut();
        headers.reserve(8 + self.config.headers.len());
        if !http2 {
            headers.insert(header::HOST, self.host.clone());
        }
        headers.insert(header::USER_AGENT, AGENT);
        for (name, value) in &self.config.headers {
            headers.append(name.clone(), value.clone());
        }
        let whole = http2.then(|| Uri::try_from(format!("{}{target}", self.origin)).ok()).flatten();
        *request.uri_mut() = whole.unwrap_or(target);
        request
    }

    /// The POST of a message.
    pub(super) fn post(&self, message: &Message, http2: bool) -> Request<Whole> {
        let mut request = self.request(Method::POST, message.bytes.clone(), http2);
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, JSON_OR_EVENTS);
        headers.insert(header::CONTENT_TYPE, JSON);
        if let Some(own) = &message.stateless {
            own.put(headers);
            if own.method() == b"tools/call" {
                self.tools().put(&message.bytes, headers);
            }
        } else if message.role != Role::Initialize {
            self.session().put(headers);
        }
        request
    }

    /// The GET of a stream, to go on behind the event `last` if there is one.
    pub(super) fn get(&self, last: &[u8], http2: bool) -> Request<Whole> {
        let mut request = self.request(Method::GET, Bytes::new(), http2);
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, EVENTS);
        self.session().put(headers);
        if !last.is_empty()
            && let Ok(last) = HeaderValue::from_bytes(last)
        {
            headers.insert(LAST_EVENT, last);
        }
        request
    }

    /// The DELETE of the session; `None` when it has no id.
    pub(super) fn goodbye(&self, http2: bool) -> Option<Request<Whole>> {
        self.session().id.as_ref()?;
        let mut request = self.request(Method::DELETE, Bytes::new(), http2);
        self.session().put(request.headers_mut());
        Some(request)
    }

    /// Enters a call with the answers it waits for.
    pub(super) fn enter(&self, call: &Arc<Call>) {
        let mut waiting = self.waiting();
        for open in call.open().iter() {
            waiting.insert(open.key.clone(), Arc::clone(call));
        }
    }

    /// The call that waits for the answer of that key.
    pub(super) fn find(&self, key: &Key) -> Option<Arc<Call>> {
        self.waiting().get(key).cloned()
    }

    fn leave(&self, call: &Arc<Call>, open: &Open) {
        let mut waiting = self.waiting();
        if waiting.get(&open.key).is_some_and(|entered| Arc::ptr_eq(entered, call)) {
            waiting.remove(&open.key);
        }
    }

    /// Answers with `error` what a call still waits for. Nothing, when it was answered or is cancelled.
    pub(super) fn fail(&self, call: &Arc<Call>, error: &HttpClientError) {
        let _step = self.step();
        let open = std::mem::take(&mut *call.open());
        for open in open {
            self.leave(call, &open);
            if !call.is_cancelled() && !call.quiet {
                self.refuse(&open, error);
            }
        }
        call.release(self);
    }

    /// Ends a subscription whose program sends no more: it would wait for ever.
    pub(super) fn end_subscription(&self, call: &Arc<Call>) {
        let _step = self.step();
        let open = std::mem::take(&mut *call.open());
        for open in open {
            self.leave(call, &open);
            if !call.is_cancelled() {
                self.inbox.push(subscription_over(&open.raw).into());
            }
        }
        call.release(self);
    }

    /// Answers one request with an error.
    pub(super) fn refuse(&self, open: &Open, error: &HttpClientError) {
        count(&self.counters.errors);
        self.tell(&ClientEvent::Failed { error });
        self.inbox.push(error.response(&open.raw));
    }

    /// Answers everything that is under way with errors.
    pub(super) fn fail_all(&self, error: &HttpClientError) {
        let calls: Vec<_> = self.waiting().values().cloned().collect();
        for call in calls {
            self.fail(&call, error);
        }
    }

    pub(super) fn skipped(&self, fault: &Fault) {
        count(&self.counters.faults);
        self.tell(&ClientEvent::Skipped { fault });
    }

    /// Takes in a message, which came on the stream of `from` or on none, and hands it on once there is room for it.
    ///
    /// # Cancel safety
    /// A message is handed on and its call settled in one step.
    pub(super) async fn take_in(&self, bytes: Bytes, from: Option<&Arc<Call>>) -> Came {
        self.inbox.room().await;
        self.hand_on(bytes, from)
    }

    fn hand_on(&self, bytes: Bytes, from: Option<&Arc<Call>>) -> Came {
        let envelope = match Envelope::strict(&bytes) {
            Ok(envelope) => envelope,
            Err(error) => {
                let (at, reason) = match error {
                    EnvelopeError::Invalid(invalid) => (invalid.at, invalid.reason),
                    EnvelopeError::DuplicateKey { at } => (at as u64, JsonReason::Duplicate),
                };
                self.skipped(&Fault::InvalidJson { at, reason });
                return Came::Nothing;
            }
        };
        let is_message = |envelope: &Envelope<'_>| !matches!(envelope.kind(), Kind::Other | Kind::Batch);
        let is_sound = match envelope.kind() {
            Kind::Batch => {
                envelope.elements().all(|element| element.is_ok_and(|element| is_message(&element)))
            }
            _ => is_message(&envelope),
        };
        if !is_sound {
            // It may look like an answer to who is less strict, and the one that is made here would be the second.
            self.skipped(&Fault::InvalidJson { at: 0, reason: JsonReason::NotJsonRpc });
            return Came::Nothing;
        }
        let step = self.step();
        let came = match envelope.kind() {
            Kind::Response | Kind::Error => {
                if envelope.raw_id().is_none_or(|id| id == b"null")
                    && let Some(from) = from
                    && let Some(id) = from.only().filter(|id| **id != *b"null")
                    && let Some(frame) = with_id(&envelope, &id)
                {
                    // An error about a request whose id the server could not read: there is only one it can be about.
                    drop(step);
                    return self.hand_on(frame, Some(from));
                }
                self.settle(&envelope, from)
            }
            Kind::Batch => {
                let (mut came, mut kept, mut elements) = (Came::Nothing, Vec::new(), 0);
                for element in envelope.elements().flatten() {
                    let settled = match element.kind() {
                        Kind::Response | Kind::Error => self.settle(&element, from),
                        _ => Came::Message,
                    };
                    if matches!(settled, Came::Message | Came::Answer) {
                        kept.push(bytes.slice_ref(element.bytes()));
                    }
                    if came != Came::Answer && settled != Came::Nothing {
                        came = settled;
                    }
                    elements += 1;
                }
                if !kept.is_empty() && kept.len() < elements {
                    // Without what nobody waits for, or not any more.
                    for element in kept {
                        self.inbox.push(self.on_one_line(element));
                    }
                    return came;
                }
                came
            }
            _ => Came::Message,
        };
        if came == Came::Nothing {
            count(&self.counters.strays);
            self.tell(&ClientEvent::Stray);
            return came;
        }
        if came == Came::Hidden {
            return Came::Answer;
        }
        self.inbox.push(self.on_one_line(bytes));
        came
    }

    /// Strikes a response off what is waited for.
    fn settle(&self, envelope: &Envelope<'_>, from: Option<&Arc<Call>>) -> Came {
        let Some(key) = key(envelope.id()) else { return Came::Nothing };
        let found = match from {
            Some(from) if from.waits_for(&key) => Some(Arc::clone(from)),
            _ => self.find(&key),
        };
        let Some(call) = found else { return Came::Nothing };
        let Some(open) = call.strike(&key) else { return Came::Nothing };
        self.leave(&call, &open);
        if call.message.role == Role::Initialize
            && let Some(result) = envelope.result()
        {
            self.established(&call, result);
        }
        if call.message.stateless.as_ref().is_some_and(|own| own.method() == b"tools/list")
            && let Some(result) = envelope.result()
        {
            let next = self.tools().learn(result);
            call.note(next);
        }
        if call.is_settled() {
            call.release(self);
        }
        if call.quiet {
            return Came::Hidden;
        }
        count(&self.counters.answers);
        Came::Answer
    }

    fn on_one_line(&self, bytes: Bytes) -> Frame {
        if !self.config.one_line || memchr::memchr2(b'\n', b'\r', &bytes).is_none() {
            return bytes.into();
        }
        let mut bytes: Vec<u8> = bytes.into();
        for byte in &mut bytes {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        bytes.into()
    }

    /// The server has answered `initialize`.
    fn established(&self, call: &Arc<Call>, result: &[u8]) {
        let id = call.session_id();
        let has_id = id.is_some();
        let version = self.session().establish(call.message.clone(), id, result);
        self.tell(&ClientEvent::SessionStarted { revision: &version, has_id });
    }
}

/// An error without an id, with that of the request it must be about.
fn with_id(envelope: &Envelope<'_>, id: &[u8]) -> Option<Bytes> {
    if envelope.kind() != Kind::Error {
        return None;
    }
    let error = envelope.error()?;
    let mut bytes = Vec::with_capacity(error.len() + id.len() + 40);
    for part in [&b"{\"jsonrpc\":\"2.0\",\"id\":"[..], id, b",\"error\":", error, b"}"] {
        bytes.extend_from_slice(part);
    }
    Some(bytes.into())
}

/// Headers that a session has.
impl Session {
    fn put(&self, headers: &mut http::HeaderMap) {
        if let Some(id) = &self.id {
            headers.insert(SESSION, id.clone());
        }
        if let Some(version) = self.version.as_ref().filter(|_| !self.legacy) {
            headers.insert(VERSION, version.clone());
        }
    }
}
