//! One request: who may ask, what is asked for, and the status of what is answered.
//!
//! | status | when |
//! |---|---|
//! | 403 | host or origin is not allowed; looked at before anything else |
//! | 401 | no token, or a wrong one |
//! | 404 | nothing is served there; the session is not known, or over |
//! | 405 | the method is not served there |
//! | 406 | the answers that may come are not accepted |
//! | 415 | the body is not JSON |
//! | 413, 408 | the body is too large; comes too slowly |
//! | 400 | no host; not JSON or JSON-RPC; no session named; a revision that is not spoken; a batch where there are none |
//! | 429, 503 | too much is under way; no room for another session |
//! | 202 | only notifications and answers came |

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Version,
    header::{ALLOW, HeaderName, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE},
    request::Parts,
};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    SessionKind, cors,
    head::{self, Named, Source},
    intake::{self, NoBody},
    registry::{NoSession, Registry},
    reply::{self, Events, INTERNAL, INVALID, NO_SESSION, PARSE, REFUSED, Reply},
    session::{Entry, HttpSession, Session, Ticket},
    socket::{self, Make, Socket},
    state::{Answer, Asked, NoEntry, NoResume, Over, is_same_text},
    stateless::{self, Era},
};
use crate::{
    json::{Envelope, EnvelopeError, Id, Kind},
    transport::Revision,
};

/// Bodies up to this size, in bytes, are held as long as their ids are needed; of larger ones the ids are copied.
const SMALL: usize = 4 * 1024;

/// Seconds after which it may be tried again.
const AGAIN: HeaderValue = HeaderValue::from_static("1");

/// What a request is to a server.
pub(super) struct Exchange {
    pub(super) registry: Arc<Registry>,
    pub(super) peer: Arc<str>,
    pub(super) make: Make,
    pub(super) timer: Timer,
}

/// A timer that the requests of a connection use one after the other. To set one later costs next to nothing; a new one
/// costs the runtime a wake-up (a system call for each request, a tenth of its time).
pub(super) type Timer = Mutex<Option<Pin<Box<Sleep>>>>;

/// When a request has waited for too long.
struct Late<'a> {
    timer: &'a Timer,
    sleep: Option<Pin<Box<Sleep>>>,
    at: Instant,
}

impl Late<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| {
            let kept = self.timer.lock().unwrap_or_else(PoisonError::into_inner).take();
            match kept {
                Some(mut sleep) => {
                    sleep.as_mut().reset(self.at);
                    sleep
                }
                None => Box::pin(sleep_until(self.at)),
            }
        });
        sleep.as_mut().poll(cx)
    }
}

impl Drop for Late<'_> {
    fn drop(&mut self) {
        if let Some(sleep) = self.sleep.take() {
            *self.timer.lock().unwrap_or_else(PoisonError::into_inner) = Some(sleep);
        }
    }
}

impl Exchange {
    /// Answers `request`. Takes it apart first: each connection has room for the future, where the request would stand twice.
    pub(super) fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Reply, Infallible>> {
        let upgrade = socket::is_asked(request.headers()).then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        async move { Ok(self.check(&parts, body, upgrade).await) }
    }

    async fn check(&self, parts: &Parts, body: Incoming, upgrade: Option<OnUpgrade>) -> Reply {
        let config = self.registry.config();
        match parts.uri.path() {
            "/healthz" => return health(parts, true),
            "/readyz" => return health(parts, !self.registry.is_closing() && (config.ready)()),
            _ => {}
        }
        if let Err(refused) = head::check_source(parts, &config.access) {
            return match refused {
                Source::NoHost => bad("a single Host header is needed"),
                Source::Refused(refused) => {
                    reply::error(StatusCode::FORBIDDEN, None, REFUSED, &refused.to_string())
                }
            };
        }
        // Its page may read the answer, now that it is known to be allowed.
        let origin = parts.headers.get(ORIGIN).cloned();
        let mut reply = self.judge(parts, body, upgrade).await;
        if let Some(origin) = origin {
            cors::allow(reply.headers_mut(), origin);
        }
        reply
    }

    async fn judge(&self, parts: &Parts, body: Incoming, upgrade: Option<OnUpgrade>) -> Reply {
        let config = self.registry.config();
        if let Some(reply) = cors::preflight(parts) {
            return reply;
        }
        if let Err(refused) = head::check_token(&parts.headers, &config.access) {
            let reply = reply::error(StatusCode::UNAUTHORIZED, None, REFUSED, &refused.to_string());
            return with(reply, WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let path = parts.uri.path();
        if path == config.path {
            return match upgrade {
                Some(upgrade) if parts.version < Version::HTTP_2 => self.socket(parts, upgrade),
                _ => self.streamable(parts, body).await,
            };
        }
        if let Some((stream, messages)) = &config.legacy {
            if path == stream {
                return self.open_legacy(parts, messages);
            }
            if path == messages {
                return self.post_legacy(parts, body).await;
            }
        }
        reply::error(StatusCode::NOT_FOUND, None, REFUSED, "nothing is served here")
    }

    async fn streamable(&self, parts: &Parts, body: Incoming) -> Reply {
        match parts.method {
            Method::POST => self.post(parts, body).await,
            Method::GET => self.get(parts),
            Method::DELETE => self.delete(parts),
            _ => not_allowed("GET, POST, DELETE"),
        }
    }

    fn socket(&self, parts: &Parts, upgrade: OnUpgrade) -> Reply {
        let config = self.registry.config();
        let (reply, codec) = match socket::answer(parts, config) {
            Ok(agreed) => agreed,
            Err(reply) => return *reply,
        };
        let handed = self.registry.seat().and_then(|seat| {
            let socket = Socket::new(upgrade, self.make, codec, config, seat);
            self.registry.hand_over(HttpSession::socket(socket, Arc::clone(&self.peer)))
        });
        handed.map_or_else(|error| no_session(error, None), |()| reply)
    }

    /// The body of a POST, which is to be JSON.
    async fn body(&self, headers: &HeaderMap, mut body: Incoming) -> Result<Bytes, Box<Reply>> {
        let config = self.registry.config();
        if !head::is_json(headers) {
            let text = "the body has to be application/json in UTF-8";
            let reply = reply::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, None, REFUSED, text);
            return Err(reply.into());
        }
        let limit = config.max_message_size;
        let read = intake::read(&mut body, limit, head::declared(headers), config.read_timeout).await;
        read.map_err(|error| match error {
            NoBody::TooLarge => {
                let text = format!("the body exceeds the limit of {limit} bytes");
                reply::error(StatusCode::PAYLOAD_TOO_LARGE, None, REFUSED, &text)
            }
            NoBody::TooSlow => {
                reply::error(StatusCode::REQUEST_TIMEOUT, None, REFUSED, "the body came too slowly")
            }
            NoBody::Broken => bad("the body is broken"),
        })
        .map_err(Box::new)
    }

    async fn post(&self, parts: &Parts, body: Incoming) -> Reply {
        let headers = &parts.headers;
        if !head::accepts_answers(headers) {
            let text = "application/json and text/event-stream have to be accepted";
            return reply::error(StatusCode::NOT_ACCEPTABLE, None, REFUSED, text);
        }
        let body = match self.body(headers, body).await {
            Ok(body) => body,
            Err(reply) => return *reply,
        };
        let envelope = match envelope(&body) {
            Ok(envelope) => envelope,
            Err(reply) => return *reply,
        };
        let id = envelope.raw_id();
        let speaks = |revision| self.registry.config().speaks(revision);
        let (named, single) = match stateless::classify(headers, &envelope, speaks, &self.registry.params) {
            Ok(Era::Sessions(named)) => (named, false),
            Ok(Era::Stateless) => (None, true),
            Ok(Era::Unsupported(requested)) => {
                return self.unsupported(id, &requested, stateless::is_modern(headers, &envelope));
            }
            Err(reply) => return *reply,
        };
        if single {
            let is = |name| envelope.method().is_some_and(|method| method.is(name));
            let (lists, subscribes) = (is("tools/list"), is("subscriptions/listen"));
            let asked = match asked(&body, &envelope, None) {
                Ok(asked) => Asked { lists, subscribes, ..asked },
                Err(reply) => return *reply,
            };
            return match self.registry.open_stateless(&self.peer) {
                Ok(session) => self.deliver(session, body, asked).await,
                Err(NoSession::Full) => {
                    let text = "too many requests are under way";
                    let reply = reply::error(StatusCode::TOO_MANY_REQUESTS, id, REFUSED, text);
                    with(reply, RETRY_AFTER, AGAIN)
                }
                Err(error) => no_session(error, id),
            };
        }
        let initialize = envelope.kind() == Kind::Request
            && envelope.method().is_some_and(|method| method.is("initialize"));
        let session = if headers.contains_key(head::SESSION) {
            match self.session(headers) {
                Ok(session) if initialize => {
                    drop(session);
                    return reply::error(
                        StatusCode::BAD_REQUEST,
                        id,
                        INVALID,
                        "the session is initialized already",
                    );
                }
                Ok(session) => session,
                Err(reply) => return *reply,
            }
        } else if initialize {
            match self.registry.open(SessionKind::Session, &self.peer) {
                Ok(session) => session,
                Err(error) => return no_session(error, id),
            }
        } else {
            return reply::error(StatusCode::BAD_REQUEST, id, REFUSED, "the header Mcp-Session-Id is needed");
        };
        let revision = session.lock().revision.or(named).unwrap_or(Revision::R2025_03_26);
        let most = revision.has_batches().then_some(self.registry.config().max_in_flight);
        let mut asked = match asked(&body, &envelope, most) {
            Ok(asked) => asked,
            Err(reply) => return *reply,
        };
        asked.initialize = initialize;
        asked.events = head::prefers_events(headers);
        self.deliver(session, body, asked).await
    }

    /// GET of the oldest revision: the stream of a session of its own.
    fn open_legacy(&self, parts: &Parts, messages: &str) -> Reply {
        if parts.method != Method::GET {
            return not_allowed("GET");
        }
        if !head::accepts(&parts.headers, "text/event-stream") {
            let text = "text/event-stream has to be accepted";
            return reply::error(StatusCode::NOT_ACCEPTABLE, None, REFUSED, text);
        }
        let session = match self.registry.open(SessionKind::Legacy, &self.peer) {
            Ok(session) => session,
            Err(error) => return no_session(error, None),
        };
        let preamble = format!("event: endpoint\ndata: {messages}?sessionId={}\n\n", session.id());
        let place = session.lock().listen(self.registry.config().retry, Some(preamble.into()));
        reply::events(Events::new(Ticket::new(session, place, None), None))
    }

    /// POST of the oldest revision: what is answered comes on the session's stream.
    async fn post_legacy(&self, parts: &Parts, body: Incoming) -> Reply {
        if parts.method != Method::POST {
            return not_allowed("POST");
        }
        let query = parts.uri.query().unwrap_or_default();
        let Some(id) = query.split('&').find_map(|part| part.strip_prefix("sessionId=")) else {
            return bad("the parameter sessionId is needed");
        };
        let found = self.registry.find(id).filter(|session| session.kind() == SessionKind::Legacy);
        let Some(session) = found else { return unknown_session(None) };
        let body = match self.body(&parts.headers, body).await {
            Ok(body) => body,
            Err(reply) => return *reply,
        };
        let asked = match envelope(&body).and_then(|envelope| asked(&body, &envelope, None)) {
            Ok(asked) => asked,
            Err(reply) => return *reply,
        };
        self.deliver(session, body, asked).await
    }

    /// Hands a message over and waits for the first that is to be answered.
    async fn deliver(&self, session: Arc<Session>, body: Bytes, mut asked: Asked) -> Reply {
        let config = self.registry.config();
        let Some(entry) = Entry::new(&session, asked.ids.len()) else {
            let id = asked.ids.first().map(|id| &**id);
            let text = "too many requests of this session are under way";
            let reply = reply::error(StatusCode::TOO_MANY_REQUESTS, id, REFUSED, text);
            return with(reply, RETRY_AFTER, AGAIN);
        };
        let room = config.max_message_size.max(config.high_water);
        let (initialize, lists) = (asked.initialize, asked.lists);
        let first_id = asked.ids.first().cloned();
        let mut body = Some(body);
        let entered = poll_fn(|cx| session.lock().poll_enter(cx, &mut body, &mut asked, room)).await;
        let place = match entered {
            Ok(place) => place,
            Err(NoEntry::Over) => return over(&session, first_id.as_deref()),
            Err(NoEntry::SameId) => {
                let text = "a request with this id is under way";
                return reply::error(StatusCode::BAD_REQUEST, first_id.as_deref(), INVALID, text);
            }
        };
        let Some(place) = place else { return reply::empty(StatusCode::ACCEPTED) };
        let ticket = Ticket::new(session, place, Some(entry));
        let mut reply = self.first(ticket, lists, first_id.as_deref()).await;
        if initialize
            && let Some(session) = reply.1
            && let Ok(id) = HeaderValue::from_str(session.id())
        {
            reply.0.headers_mut().insert(head::SESSION, id);
        }
        reply.0
    }

    /// The answer to a POST, whose first id is `id`, and its session while that is open.
    async fn first(&self, ticket: Ticket, lists: bool, id: Option<&[u8]>) -> (Reply, Option<Arc<Session>>) {
        let config = self.registry.config();
        let place = ticket.place();
        let session = Arc::clone(ticket.session());
        let begun = Instant::now();
        let close = config.close_streams_after;
        let patience = config.keep_alive.min(close.unwrap_or(config.keep_alive));
        let mut late = Late { timer: &self.timer, sleep: None, at: begun + patience };
        let answer = poll_fn(|cx| {
            if let Poll::Ready(answer) = session.lock().poll_answer(cx, place) {
                return Poll::Ready(answer);
            }
            late.poll(cx).map(|()| Answer::Events)
        })
        .await;
        drop(late);
        if session.lock().over == Some(Over::Refused) {
            return (over(&session, id), None);
        }
        let reply = match answer {
            Answer::Message(message) => {
                let stateless = session.kind() == SessionKind::Stateless;
                if lists {
                    self.registry.params.learn(&message);
                }
                let status = if stateless { stateless::status(&message) } else { StatusCode::OK };
                reply::json(status, message)
            }
            Answer::Events => {
                let mut state = session.lock();
                state.stream(place, config.retry);
                let until = close.filter(|_| state.may_close_early());
                drop(state);
                reply::events(Events::new(ticket, until.map(|after| after.saturating_sub(begun.elapsed()))))
            }
        };
        let open = session.lock().over.is_none();
        (reply, open.then_some(session))
    }

    fn get(&self, parts: &Parts) -> Reply {
        let headers = &parts.headers;
        if let Some(reply) = self.check_revision(headers) {
            return reply;
        }
        if !head::accepts(headers, "text/event-stream") {
            let text = "text/event-stream has to be accepted";
            return reply::error(StatusCode::NOT_ACCEPTABLE, None, REFUSED, text);
        }
        let session = match self.session(headers) {
            Ok(session) => session,
            Err(reply) => return *reply,
        };
        let retry = self.registry.config().retry;
        let mut state = session.lock();
        let opened = match headers.get(head::LAST_EVENT) {
            Some(last) => state.resume(last.as_bytes()),
            None => Ok(state.listen(retry, None)),
        };
        drop(state);
        match opened {
            Ok(place) => reply::events(Events::new(Ticket::new(session, place, None), None)),
            Err(NoResume::Complete) => reply::empty(StatusCode::NO_CONTENT),
            Err(NoResume::Unknown) => bad("no events behind this Last-Event-ID are kept"),
        }
    }

    fn delete(&self, parts: &Parts) -> Reply {
        if let Some(reply) = self.check_revision(&parts.headers) {
            return reply;
        }
        match self.session(&parts.headers) {
            Ok(session) => {
                session.finish(Over::Done);
                reply::empty(StatusCode::NO_CONTENT)
            }
            Err(reply) => *reply,
        }
    }

    /// What is wrong with the revision of a GET or DELETE.
    fn check_revision(&self, headers: &HeaderMap) -> Option<Reply> {
        match head::revision(headers) {
            Named::Known(revision) if revision.is_stateless() => Some(not_allowed("POST")),
            Named::Known(revision) if !self.registry.config().speaks(revision) => {
                Some(self.unsupported(None, revision.as_str(), false))
            }
            Named::Unknown(text) => Some(self.unsupported(None, text, false)),
            _ => None,
        }
    }

    /// The session that the head names.
    fn session(&self, headers: &HeaderMap) -> Result<Arc<Session>, Box<Reply>> {
        if !headers.contains_key(head::SESSION) {
            return Err(bad("the header Mcp-Session-Id is needed").into());
        }
        head::one(headers, &head::SESSION)
            .and_then(|id| self.registry.find(id))
            .filter(|session| session.kind() == SessionKind::Session)
            .ok_or_else(|| unknown_session(None).into())
    }

    /// `modern`: by a request without a session, to which only the revisions are named that `server/discover` names.
    fn unsupported(&self, id: Option<&[u8]>, requested: &str, modern: bool) -> Reply {
        let revisions = &self.registry.config().revisions;
        let modern = modern && revisions.iter().any(|revision| revision.is_stateless());
        let supported: Vec<String> = revisions
            .iter()
            .filter(|revision| !modern || revision.is_stateless())
            .map(|revision| format!("\"{revision}\""))
            .collect();
        let mut data = bytes::BytesMut::new();
        data.extend_from_slice(br#"{"supported":["#);
        data.extend_from_slice(supported.join(",").as_bytes());
        data.extend_from_slice(br#"],"requested":"#);
        reply::put_string(requested, &mut data);
        data.extend_from_slice(b"}");
        let data = String::from_utf8_lossy(&data);
        let text = "Unsupported protocol version";
        reply::error_with(StatusCode::BAD_REQUEST, id, stateless::UNSUPPORTED, text, &data)
    }
}

/// The envelope of a body.
fn envelope(body: &[u8]) -> Result<Envelope<'_>, Box<Reply>> {
    let envelope = Envelope::strict(body)
        .map_err(|error| match error {
            EnvelopeError::Invalid(invalid) => {
                let text = format!("Parse error: {invalid}");
                reply::error(StatusCode::BAD_REQUEST, None, PARSE, &text)
            }
            EnvelopeError::DuplicateKey { .. } => {
                reply::error(StatusCode::BAD_REQUEST, None, INVALID, &error.to_string())
            }
        })
        .map_err(Box::new)?;
    let id = match envelope.id() {
        Id::Other(_) | Id::Absent => None,
        _ => envelope.raw_id(),
    };
    match (envelope.kind(), envelope.id()) {
        (Kind::Other, _) => {
            Err(reply::error(StatusCode::BAD_REQUEST, id, INVALID, "not JSON-RPC 2.0").into())
        }
        (Kind::Request, Id::Null) => {
            let text = "the id of a request may not be null";
            Err(reply::error(StatusCode::BAD_REQUEST, None, INVALID, text).into())
        }
        _ => Ok(envelope),
    }
}

/// What a message asks for. `most`: how many requests a batch may have, where there are batches.
fn asked(body: &Bytes, envelope: &Envelope<'_>, most: Option<usize>) -> Result<Asked, Box<Reply>> {
    let mut asked = Asked::default();
    let keep = |part: &[u8]| {
        if body.len() <= SMALL { body.slice_ref(part) } else { Bytes::copy_from_slice(part) }
    };
    let mut add = |envelope: &Envelope<'_>| {
        if let (Kind::Request, Some(id)) = (envelope.kind(), envelope.raw_id()) {
            asked.ids.push(keep(id));
            if let Ok(Some(token)) = envelope.progress_token() {
                asked.tokens.push(keep(token));
            }
        } else if envelope.method().is_some_and(|method| method.is("notifications/cancelled"))
            && let Ok(Some(id)) = envelope.request_id()
        {
            match asked.ids.iter().position(|own| *own == id || is_same_text(own, id)) {
                // Of this very batch: there will be no answer to it.
                Some(at) => drop(asked.ids.remove(at)),
                None => asked.cancels.push(keep(id)),
            }
        }
    };
    if envelope.kind() != Kind::Batch {
        add(envelope);
        return Ok(asked);
    }
    let refused = |text| Box::new(reply::error(StatusCode::BAD_REQUEST, None, INVALID, text));
    let Some(most) = most else { return Err(refused("there are no batches in this revision")) };
    let (mut count, mut requests) = (0, 0);
    for element in envelope.elements() {
        let Ok(element) = element else { return Err(refused("a message of the batch is not JSON-RPC 2.0")) };
        if matches!(element.kind(), Kind::Other | Kind::Batch)
            || (element.kind() == Kind::Request && element.id() == Id::Null)
        {
            return Err(refused("a message of the batch is not JSON-RPC 2.0"));
        }
        requests += usize::from(element.kind() == Kind::Request);
        if requests > most {
            return Err(refused("the batch has more requests than may be under way"));
        }
        if element.method().is_some_and(|method| method.is("initialize")) {
            return Err(refused("initialize may not stand in a batch"));
        }
        add(&element);
        count += 1;
    }
    let mut ids: Vec<&Bytes> = asked.ids.iter().collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| matches!(pair, [one, two] if one == two)) {
        return Err(refused("an id stands twice in the batch"));
    }
    if count == 0 { Err(refused("the batch is empty")) } else { Ok(asked) }
}

fn with(mut reply: Reply, name: HeaderName, value: HeaderValue) -> Reply {
    reply.headers_mut().insert(name, value);
    reply
}

fn bad(text: &str) -> Reply {
    reply::error(StatusCode::BAD_REQUEST, None, REFUSED, text)
}

fn not_allowed(allow: &'static str) -> Reply {
    let reply = reply::error(StatusCode::METHOD_NOT_ALLOWED, None, REFUSED, "this method is not served here");
    with(reply, ALLOW, HeaderValue::from_static(allow))
}

fn unknown_session(id: Option<&[u8]>) -> Reply {
    reply::error(StatusCode::NOT_FOUND, id, NO_SESSION, "Session not found")
}

/// What is said to a request of a session that is over.
fn over(session: &Session, id: Option<&[u8]>) -> Reply {
    match session.lock().over {
        Some(Over::Refused) => no_session(NoSession::Busy, id),
        _ => unknown_session(id),
    }
}

fn no_session(error: NoSession, id: Option<&[u8]>) -> Reply {
    let text = match error {
        NoSession::Full => "no room for another session",
        NoSession::Busy => "no new session is taken at the moment",
        NoSession::NoRandom => {
            let text = "no random numbers for an id";
            return reply::error(StatusCode::INTERNAL_SERVER_ERROR, id, INTERNAL, text);
        }
    };
    let reply = reply::error(StatusCode::SERVICE_UNAVAILABLE, id, REFUSED, text);
    with(reply, RETRY_AFTER, AGAIN)
}

/// What probes ask, from wherever: it tells nothing but that.
fn health(parts: &Parts, good: bool) -> Reply {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return not_allowed("GET, HEAD");
    }
    if good {
        reply::json(StatusCode::OK, Bytes::from_static(br#"{"status":"ok"}"#))
    } else {
        let reply =
            reply::json(StatusCode::SERVICE_UNAVAILABLE, Bytes::from_static(br#"{"status":"unavailable"}"#));
        with(reply, RETRY_AFTER, AGAIN)
    }
}
