//! [`Call`]: one message on its way, from its POST to the last answer it asks for.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::timeout;

use super::{
    error::HttpClientError,
    events::{ClientEvent, count},
    message::{Key, Message, Open, Role},
    pool::{Answer, SendError, Sent},
    session,
    shared::{Came, Shared},
    signal::Signal,
};
use crate::{
    json::{Envelope, Kind, member},
    limits::{HTTP_ACCEPT_TIMEOUT, HTTP_MAX_REFUSAL, HTTP_MAX_REPEATS, HTTP_STREAM_GRACE},
};

pub(super) struct Call {
    pub(super) message: Message,
    /// The answers that are still waited for.
    open: Mutex<Vec<Open>>,
    /// Whether its answer is for the transport alone.
    pub(super) quiet: bool,
    /// Its sender does not want the answer any more.
    pub(super) cancelled: Signal,
    /// It ends now.
    pub(super) gone: Signal,
    /// All its answers were handed on.
    pub(super) settled: Signal,
    generation: AtomicU64,
    session_id: Mutex<Option<HeaderValue>>,
    /// Where the list goes on that it has asked for.
    next: Mutex<Option<Bytes>>,
    /// Counts as under way.
    counted: AtomicBool,
    /// Holds back what is behind it.
    barrier: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Call {
    /// Of a message that the outbox has given, and counts.
    pub(super) fn new(message: Message) -> Arc<Self> {
        let barrier = message.is_barrier();
        Self::with(message, false, true, barrier)
    }

    /// Of a message that the transport repeats for itself.
    pub(super) fn quiet(message: Message) -> Arc<Self> {
        Self::with(message, true, false, false)
    }

    /// Of a message that never was in the outbox.
    pub(super) fn uncounted(message: Message) -> Arc<Self> {
        Self::with(message, false, false, false)
    }

    fn with(message: Message, quiet: bool, counted: bool, barrier: bool) -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::new(message.open.clone()),
            quiet,
            cancelled: Signal::default(),
            gone: Signal::default(),
            settled: Signal::default(),
            generation: AtomicU64::new(0),
            session_id: Mutex::default(),
            next: Mutex::default(),
            counted: AtomicBool::new(counted),
            barrier: AtomicBool::new(barrier),
            message,
        })
    }

    pub(super) fn open(&self) -> MutexGuard<'_, Vec<Open>> {
        lock(&self.open)
    }

    pub(super) fn waits_for(&self, key: &Key) -> bool {
        self.open().iter().any(|open| open.key == *key)
    }

    /// The only answer that is waited for, as the request names it.
    pub(super) fn only(&self) -> Option<Bytes> {
        match &**self.open() {
            [one] => Some(one.raw.clone()),
            _ => None,
        }
    }

    /// Strikes one off.
    pub(super) fn strike(&self, key: &Key) -> Option<Open> {
        let mut open = self.open();
        let at = open.iter().position(|open| open.key == *key)?;
        Some(open.swap_remove(at))
    }

    /// Whether it waits for no more answers.
    pub(super) fn is_settled(&self) -> bool {
        self.open().is_empty()
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.is_set()
    }

    /// Its sender gives it up: it no longer counts, and needs no answer.
    pub(super) fn cancel(&self, shared: &Shared) {
        self.cancelled.set();
        self.release(shared);
    }

    /// Which handshake of the session it was sent under.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn session_id(&self) -> Option<HeaderValue> {
        lock(&self.session_id).clone()
    }

    pub(super) fn note(&self, next: Option<Bytes>) {
        *lock(&self.next) = next;
    }

    pub(super) fn noted(&self) -> Option<Bytes> {
        lock(&self.next).take()
    }

    /// It no longer counts as under way.
    pub(super) fn release(&self, shared: &Shared) {
        if self.message.is_request() {
            self.settled.set();
        }
        if self.message.role == Role::Initialize {
            self.accepted(shared);
        }
        if self.counted.swap(false, Ordering::AcqRel) {
            shared.outbox.settled(self.message.is_request());
        }
    }

    /// What is behind it may go.
    fn accepted(&self, shared: &Shared) {
        if self.barrier.swap(false, Ordering::AcqRel) {
            shared.outbox.lift();
        }
    }
}

/// Whatever becomes of a call's task, this ends the call.
pub(super) struct Ending {
    shared: Arc<Shared>,
    call: Arc<Call>,
}

impl Ending {
    pub(super) fn new(shared: &Arc<Shared>, message: Message) -> Self {
        let call = Call::new(message);
        shared.enter(&call);
        Self { shared: Arc::clone(shared), call }
    }

    pub(super) fn call(&self) -> &Arc<Call> {
        &self.call
    }

    /// Ends it with an error.
    pub(super) fn fail(self, error: &HttpClientError) {
        let Self { shared, call } = &self;
        if call.message.is_request() {
            shared.fail(call, error);
        } else {
            count(&shared.counters.undelivered);
            shared.tell(&ClientEvent::Undelivered { error });
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Self { shared, call } = self;
        shared.fail(call, &HttpClientError::Closed);
        call.accepted(shared);
        call.release(shared);
    }
}

/// Goes on with a call whose POST was handed to a connection.
pub(super) async fn run(ending: Ending, sent: Sent) {
    let Ending { shared, call } = &ending;
    let work = call.gone.or(shared.exchange(call, sent));
    let work = async {
        if !call.message.listens() {
            return work.await;
        }
        shared.parted.or(work).await.unwrap_or_else(|| {
            shared.end_subscription(call);
            None
        })
    };
    let outcome = shared.closing.or(work).await.flatten().unwrap_or(Err(HttpClientError::Closed));
    match outcome {
        // What went wrong behind the last answer concerns nobody.
        _ if call.message.is_request() && call.is_settled() => {}
        Ok(()) if call.message.is_request() => {
            ending.fail(&HttpClientError::BadAnswer { reason: "what was asked for was not in it".into() });
        }
        Ok(()) => {}
        Err(error) => ending.fail(&error),
    }
}

/// What to do with the head of a response.
enum Verdict {
    Done,
    /// Send it once more.
    Again,
}

/// What was done before.
#[derive(Default)]
struct Tried {
    repeats: u32,
    renewed: bool,
    listed: bool,
    /// A connection was found dead before anything was written on it.
    unsent: u32,
}

impl Shared {
    /// Hands the POST of a call to a connection.
    pub(super) async fn send(self: &Arc<Self>, call: &Call) -> Result<Sent, HttpClientError> {
        if let Some(reason) = self.forbids(&call.message) {
            return Err(HttpClientError::BadTool { reason });
        }
        let (lost, generation) = {
            let session = self.session();
            (session.legacy && session.endpoint.is_none(), session.generation)
        };
        if lost && call.message.role == Role::Initialize {
            self.open_legacy().await?;
        } else if lost {
            Box::pin(self.renew(generation)).await?;
        }
        let connection = self.pool.acquire().await?;
        call.generation.store(self.session().generation, Ordering::Release);
        let request = self.post(&call.message, connection.is_http2());
        Ok(connection.send(request, &self.pool))
    }

    /// Sends a call and sees it to its end.
    pub(super) async fn ask(self: &Arc<Self>, call: &Arc<Call>) -> Result<(), HttpClientError> {
        let sent = self.send(call).await?;
        self.exchange(call, sent).await
    }

    async fn exchange(self: &Arc<Self>, call: &Arc<Call>, first: Sent) -> Result<(), HttpClientError> {
        let mut sent = first;
        let mut tried = Tried::default();
        let patience =
            if call.message.is_request() { self.config.response_timeout } else { HTTP_ACCEPT_TIMEOUT };
        loop {
            if call.is_cancelled() {
                return Err(HttpClientError::Closed);
            }
            let mut head = pin!(sent.answer());
            let found = match call.cancelled.or(timeout(patience, head.as_mut())).await {
                Some(found) => found,
                // Cancelled: it may still have left the server.
                None => timeout(HTTP_STREAM_GRACE, head).await,
            };
            match found {
                Err(_) => return Err(HttpClientError::TimedOut { after: patience }),
                Ok(Err(SendError::Lost(reason))) => return Err(HttpClientError::Lost { reason }),
                Ok(Err(SendError::Unsent)) if tried.unsent < HTTP_MAX_REPEATS => tried.unsent += 1,
                Ok(Err(SendError::Unsent)) => {
                    return Err(HttpClientError::Lost { reason: "no connection lasted".into() });
                }
                Ok(Ok(answer)) => {
                    if let Verdict::Done = self.judge(call, answer, &mut tried).await? {
                        return Ok(());
                    }
                }
            }
            sent = self.send(call).await?;
        }
    }

    async fn judge(
        self: &Arc<Self>,
        call: &Arc<Call>,
        mut answer: Answer,
        tried: &mut Tried,
    ) -> Result<Verdict, HttpClientError> {
        let status = answer.head.status;
        if status.is_success() {
            self.accept(call, answer).await?;
            return Ok(Verdict::Done);
        }
        if status.is_redirection() {
            let location = text(&answer.head.headers, header::LOCATION).unwrap_or_default();
            return Err(HttpClientError::Redirected { status: status.as_u16(), location });
        }
        let body = timeout(HTTP_ACCEPT_TIMEOUT, answer.beginning(HTTP_MAX_REFUSAL)).await.unwrap_or_default();
        let message = &call.message;
        if session::needs_session(message)
            && !call.quiet
            && self.session().id.is_some()
            && session::is_unknown_session(status, &body)
        {
            if message.role == Role::Response {
                return Err(HttpClientError::SessionLost {
                    reason: "the request was of the session before".into(),
                });
            }
            if !tried.renewed {
                tried.renewed = true;
                Box::pin(self.renew(call.generation())).await?;
                return Ok(Verdict::Again);
            }
        }
        let retry_after = retry_after(&answer.head.headers);
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
            && let Some(after) = retry_after.map(Duration::from_secs)
            && after <= self.config.max_retry_after
            && tried.repeats < HTTP_MAX_REPEATS
        {
            tried.repeats += 1;
            // Whoever gives it up meanwhile does not have it sent.
            let _ = call.cancelled.or(tokio::time::sleep(after)).await;
            return Ok(Verdict::Again);
        }
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let www_authenticate = text(&answer.head.headers, header::WWW_AUTHENTICATE);
            return Err(HttpClientError::Unauthorized {
                status: status.as_u16(),
                www_authenticate,
                reason: excerpt(&body),
            });
        }
        let is_answer = self.is_answer(call, &body);
        if is_answer && !tried.listed && misses_headers(message, &body) {
            tried.listed = true;
            // It was not carried out. If the list does not help, what the server has said is the answer.
            if Box::pin(self.list_tools(message)).await.is_ok() {
                return Ok(Verdict::Again);
            }
        }
        if message.role == Role::Initialize && !self.session().legacy {
            // A server of 2024-11-05 knows no POST there. One that refuses with reasons of its own is none, unless it is
            // the method that it refuses. When it is neither, what it said first counts.
            let unknown = match status {
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => true,
                status => status == StatusCode::BAD_REQUEST && !is_answer,
            };
            if unknown && self.open_legacy().await.is_ok() {
                return Ok(Verdict::Again);
            }
        }
        if is_answer && self.take_in(body.clone().into(), Some(call)).await == Came::Answer {
            return Ok(Verdict::Done);
        }
        Err(HttpClientError::Refused { status: status.as_u16(), reason: excerpt(&body), retry_after })
    }

    /// Whether the body of a refusal is the JSON-RPC error that answers the call.
    fn is_answer(&self, call: &Call, body: &[u8]) -> bool {
        let Ok(envelope) = Envelope::strict(body) else { return false };
        let id = envelope.raw_id();
        envelope.kind() == Kind::Error
            && call.only().is_some_and(|open| id.is_none_or(|id| id == b"null" || *id == *open))
    }

    /// The server has accepted a message, and may be about to answer it.
    async fn accept(self: &Arc<Self>, call: &Arc<Call>, answer: Answer) -> Result<(), HttpClientError> {
        match call.message.role {
            Role::Initialize => *lock(&call.session_id) = session::id_of(&answer.head),
            Role::Initialized => self.initialized(&call.message),
            _ => {}
        }
        if !call.message.is_request() {
            call.accepted(self);
        }
        let content_type = text(&answer.head.headers, header::CONTENT_TYPE).unwrap_or_default();
        let media = content_type.split(';').next().unwrap_or_default().trim();
        if self.session().legacy {
            drop(self.body(answer).await);
            return self.await_elsewhere(call).await;
        }
        if media.eq_ignore_ascii_case("text/event-stream") {
            return self.follow(call, answer).await;
        }
        if media.eq_ignore_ascii_case("application/json") {
            let body = self.body(answer).await?;
            if body.is_empty() && !call.message.is_request() {
                return Ok(());
            }
            self.take_in(body, Some(call)).await;
            return Ok(());
        }
        if !call.message.is_request() {
            drop(self.body(answer).await);
            return Ok(());
        }
        if answer.head.status != StatusCode::OK {
            let reason = format!("{} instead of an answer", answer.head.status);
            return Err(HttpClientError::BadAnswer { reason });
        }
        Err(HttpClientError::ContentType { content_type })
    }

    /// Waits for an answer that comes on another stream.
    async fn await_elsewhere(&self, call: &Call) -> Result<(), HttpClientError> {
        if !call.message.is_request() {
            return Ok(());
        }
        let patience = self.config.response_timeout;
        let never = std::future::pending::<()>();
        match timeout(patience, call.cancelled.or(call.settled.or(never))).await {
            Ok(_) => Ok(()),
            Err(_) => Err(HttpClientError::TimedOut { after: patience }),
        }
    }

    /// A whole body.
    async fn body(&self, mut answer: Answer) -> Result<Bytes, HttpClientError> {
        let limit = self.config.max_message_size;
        let patience = self.config.response_timeout;
        if answer.declared().is_some_and(|size| size > limit as u64) {
            return Err(HttpClientError::TooLarge { limit });
        }
        let mut one = Bytes::new();
        let mut many = Vec::new();
        loop {
            let chunk = match timeout(patience, answer.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => break,
                Ok(Err(reason)) => return Err(HttpClientError::Lost { reason }),
                Err(_) => return Err(HttpClientError::TimedOut { after: patience }),
            };
            if one.len() + many.len() + chunk.len() > limit {
                return Err(HttpClientError::TooLarge { limit });
            }
            if one.is_empty() && many.is_empty() {
                one = chunk;
                continue;
            }
            many.extend_from_slice(&std::mem::take(&mut one));
            many.extend_from_slice(&chunk);
        }
        Ok(if many.is_empty() { one } else { many.into() })
    }
}

/// Whether a refusal says that headers are missing which only the tool's schema tells (-32020, revision 2026-07-28).
fn misses_headers(message: &Message, body: &[u8]) -> bool {
    let calls = message.stateless.as_ref().is_some_and(|own| own.method() == b"tools/call");
    let code = || Envelope::peek(body).ok()?.error().and_then(|error| member(error, "code").ok().flatten());
    calls && code().is_some_and(|code| code == b"-32020")
}

/// A header as text that can be shown.
pub(super) fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// `Retry-After` in seconds (RFC 9110 §10.2.3); a date is not taken.
fn retry_after(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

/// The beginning of a refusal's body, as text.
pub(super) fn excerpt(body: &[u8]) -> String {
    const LONGEST: usize = 1024;
    if body.is_empty() {
        return "no reason given".into();
    }
    let text = String::from_utf8_lossy(body);
    text.trim().chars().take(LONGEST).collect()
}
