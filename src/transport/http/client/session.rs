//! [`Session`]: what `initialize` has agreed on; and how it is opened anew once the server has lost it.

use std::sync::Arc;

use http::{HeaderValue, StatusCode};

use super::{
    call::Call,
    error::HttpClientError,
    events::{ClientEvent, count},
    listen,
    message::{Message, Role},
    shared::Shared,
    signal::Signal,
};
use crate::json;

/// Longest id of a session that is taken, in bytes.
const MAX_ID: usize = 4096;

#[derive(Default)]
pub(super) struct Session {
    pub(super) id: Option<HeaderValue>,
    /// As the server has chosen it.
    pub(super) version: Option<HeaderValue>,
    /// The server speaks HTTP with SSE: POSTs go to the endpoint, while its stream is open.
    pub(super) legacy: bool,
    pub(super) endpoint: Option<http::Uri>,
    /// Counts the handshakes.
    pub(super) generation: u64,
    /// The client's own handshake, to be repeated.
    initialize: Option<Message>,
    initialized: Option<Message>,
    /// Ends the stream that the server sends on by itself.
    listening: Option<Arc<Signal>>,
}

impl Session {
    /// Takes in the answer to `initialize`. Returns the revision it names.
    pub(super) fn establish(
        &mut self,
        initialize: Message,
        id: Option<HeaderValue>,
        result: &[u8],
    ) -> String {
        let version = match json::member(result, "protocolVersion") {
            Ok(Some([b'"', raw @ .., b'"'])) => json::RawString::new(raw).unescape().unwrap_or_default(),
            _ => "".into(),
        };
        self.id = id;
        self.version = HeaderValue::try_from(&*version).ok().filter(|version| !version.is_empty());
        self.generation += 1;
        self.initialize = Some(initialize);
        version.into_owned()
    }

    /// Ends the stream of before and gives the signal that will end the next.
    pub(super) fn listen(&mut self) -> Arc<Signal> {
        let signal = Arc::new(Signal::default());
        if let Some(before) = self.listening.replace(Arc::clone(&signal)) {
            before.set();
        }
        signal
    }

    pub(super) fn deafen(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.set();
        }
    }
}

/// The id of the session that an answer to `initialize` gives: visible ASCII.
pub(super) fn id_of(head: &http::response::Parts) -> Option<HeaderValue> {
    let id = head.headers.get(super::SESSION)?;
    let fits = (1..=MAX_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    fits.then(|| id.clone())
}

impl Shared {
    /// The server has accepted `notifications/initialized`: from now on it may send by itself.
    pub(super) fn initialized(self: &Arc<Self>, message: &Message) {
        let signal = {
            let mut session = self.session();
            session.initialized = Some(message.clone());
            if session.legacy {
                return;
            }
            session.listen()
        };
        let shared = Arc::clone(self);
        tokio::spawn(async move { listen::run(shared, signal).await });
    }

    /// Opens the session anew by the client's own handshake, unless that has happened since `generation`.
    pub(super) async fn renew(self: &Arc<Self>, generation: u64) -> Result<(), HttpClientError> {
        let _turn = self.renewal.lock().await;
        let (initialize, initialized) = {
            let mut session = self.session();
            if session.generation != generation {
                return Ok(());
            }
            session.deafen();
            (session.initialize.clone(), session.initialized.clone())
        };
        let lost = |reason: &str| HttpClientError::SessionLost { reason: reason.into() };
        let Some(initialize) = initialize else { return Err(lost("there was no initialize to repeat")) };
        // Its answer is for here; the client had one.
        self.repeat(initialize).await.map_err(|error| lost(&error.to_string()))?;
        if self.session().generation == generation {
            return Err(lost("initialize was refused"));
        }
        if let Some(initialized) = initialized {
            self.repeat(initialized).await.map_err(|error| lost(&error.to_string()))?;
        }
        count(&self.counters.renewals);
        self.tell(&ClientEvent::SessionRenewed);
        Ok(())
    }

    /// Sends a message of the handshake once more.
    async fn repeat(self: &Arc<Self>, message: Message) -> Result<(), HttpClientError> {
        let call = Call::quiet(message);
        self.enter(&call);
        let asked = self.ask(&call).await;
        self.fail(&call, &HttpClientError::Closed);
        asked
    }
}

/// Whether a refusal means that the server does not know the session. It is 404; many servers built by example say 400 and
/// that there is no valid session id.
pub(super) fn is_unknown_session(status: StatusCode, body: &[u8]) -> bool {
    status == StatusCode::NOT_FOUND
        || status == StatusCode::BAD_REQUEST
            && ["session id", "session ID", "not initialized"]
                .iter()
                .any(|hint| memchr::memmem::find(body, hint.as_bytes()).is_some())
}

/// Whether a message goes on with a session, so that it can be lost.
pub(super) fn needs_session(message: &Message) -> bool {
    message.stateless.is_none() && message.role != Role::Initialize
}
