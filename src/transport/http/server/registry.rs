//! [`Registry`]: the sessions that there are, by their ids, and the way by which new ones are handed over.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use data_encoding::HEXLOWER;
use tokio::sync::{mpsc, watch};

use super::{
    SessionKind,
    config::HttpServerConfig,
    params::Params,
    session::{HttpSession, Session},
    state::Over,
};
use crate::transport::Revision;

/// Bytes of chance in an id.
const ID: usize = 20;

/// Why there is no new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSession {
    /// There are as many as there may be.
    Full,
    /// Nobody takes them in time, or at all.
    Busy,
    /// The system has no random numbers.
    NoRandom,
}

pub(super) struct Registry {
    config: HttpServerConfig,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    stateless: AtomicUsize,
    sockets: AtomicUsize,
    accepted: mpsc::Sender<HttpSession>,
    closing: watch::Sender<bool>,
    /// What the tools' lists said of headers.
    pub(super) params: Params,
}

impl Registry {
    pub(super) fn new(config: HttpServerConfig) -> (Arc<Self>, mpsc::Receiver<HttpSession>) {
        let (accepted, sessions) = mpsc::channel(config.accept_queue);
        let registry = Self {
            config,
            sessions: Mutex::default(),
            stateless: AtomicUsize::new(0),
            sockets: AtomicUsize::new(0),
            accepted,
            closing: watch::Sender::new(false),
            params: Params::default(),
        };
        (Arc::new(registry), sessions)
    }

    pub(super) fn config(&self) -> &HttpServerConfig {
        &self.config
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session that can be found by its id.
    pub(super) fn open(
        self: &Arc<Self>,
        kind: SessionKind,
        peer: &Arc<str>,
    ) -> Result<Arc<Session>, NoSession> {
        if self.is_closing() {
            return Err(NoSession::Busy);
        }
        let mut bytes = [0; ID];
        getrandom::fill(&mut bytes).map_err(|_| NoSession::NoRandom)?;
        let id = HEXLOWER.encode(&bytes);
        let session = Session::new(id.clone(), kind, Arc::clone(peer), Arc::clone(self));
        let mut sessions = self.lock();
        if sessions.len() + self.sockets.load(Relaxed) >= self.config.max_sessions {
            return Err(NoSession::Full);
        }
        sessions.insert(id, Arc::clone(&session));
        drop(sessions);
        self.hand_over(HttpSession::new(Arc::clone(&session)))?;
        Ok(session)
    }

    /// A session for one request.
    pub(super) fn open_stateless(self: &Arc<Self>, peer: &Arc<str>) -> Result<Arc<Session>, NoSession> {
        if self.is_closing() {
            return Err(NoSession::Busy);
        }
        let before = self.stateless.fetch_add(1, Relaxed);
        let session = Session::new(String::new(), SessionKind::Stateless, Arc::clone(peer), Arc::clone(self));
        // From here on the session's own end counts down.
        if before >= self.config.max_stateless {
            return Err(NoSession::Full);
        }
        session.lock().revision = Some(Revision::R2026_07_28);
        self.hand_over(HttpSession::new(Arc::clone(&session)))?;
        Ok(session)
    }

    /// Room for a WebSocket, which counts as a session.
    pub(super) fn seat(self: &Arc<Self>) -> Result<Seat, NoSession> {
        if self.is_closing() {
            return Err(NoSession::Busy);
        }
        let others = self.count();
        let before = self.sockets.fetch_add(1, Relaxed);
        let seat = Seat(Arc::clone(self));
        if others + before >= self.config.max_sessions { Err(NoSession::Full) } else { Ok(seat) }
    }

    pub(super) fn stateless_over(&self) {
        self.stateless.fetch_sub(1, Relaxed);
    }

    /// Gives a session to whoever accepts. When nobody does, it ends.
    pub(super) fn hand_over(&self, session: HttpSession) -> Result<(), NoSession> {
        self.accepted.try_send(session).map_err(|_| NoSession::Busy)
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<Session>> {
        self.lock().get(id).cloned()
    }

    pub(super) fn forget(&self, session: &Session) {
        if !session.id().is_empty() {
            self.lock().remove(session.id());
        }
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Takes nothing new; connections end once what is under way is answered.
    pub(super) fn close(&self) {
        self.closing.send_replace(true);
        for session in self.all() {
            session.lock().close_listening(&self.config);
        }
    }

    fn all(&self) -> Vec<Arc<Session>> {
        self.lock().values().cloned().collect()
    }

    pub(super) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Ends all sessions.
    pub(super) fn end_all(&self) {
        for session in self.all() {
            session.finish(Over::Closed);
        }
    }
}

/// The room of one WebSocket; free again when it is dropped.
pub(super) struct Seat(Arc<Registry>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.sockets.fetch_sub(1, Relaxed);
    }
}
