//! What the sessions to one server share: its era, once it is known, and connections that wait for their client.

use std::{
    any::Any,
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use super::{Era, suspension::Token};
use crate::limits::ERA_MAX_SUSPENDED;

/// What is known of the server behind, for all sessions to it. Clones share it.
///
/// Keep one for each server: it spares every session but the first the question which era the server is of, and is where
/// a call of a stateless client waits for the client to come back on another connection.
#[derive(Clone, Default)]
pub struct EraCache {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    server: Option<Era>,
    parked: VecDeque<(Token, Box<dyn Any + Send>)>,
}

impl EraCache {
    /// One that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }

    /// The era of the server, if it is known.
    #[must_use]
    pub fn server(&self) -> Option<Era> {
        self.lock().server
    }

    /// Says which era the server is of: nobody asks it any more.
    pub fn set_server(&self, era: Era) {
        self.lock().server = Some(era);
    }

    /// Forgets the era: after the server was exchanged for another.
    pub fn forget(&self) {
        self.lock().server = None;
    }

    /// How many connections wait for their client.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().parked.len()
    }

    /// Keeps a connection for the client that brings `token`, for as long as `patience`. The oldest goes when there are
    /// too many.
    pub(super) fn park(&self, token: Token, connection: Box<dyn Any + Send>, patience: Duration) {
        let mut shared = self.lock();
        shared.parked.push_back((token, connection));
        let oldest = if shared.parked.len() > ERA_MAX_SUSPENDED { shared.parked.pop_front() } else { None };
        drop(shared);
        drop(oldest);
        let shared = Arc::downgrade(&self.shared);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(patience).await;
                drop(take(&shared, token));
            });
        }
    }

    pub(super) fn unpark(&self, token: Token) -> Option<Box<dyn Any + Send>> {
        take(&Arc::downgrade(&self.shared), token)
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(shared: &Weak<Mutex<Shared>>, token: Token) -> Option<Box<dyn Any + Send>> {
    let shared = shared.upgrade()?;
    let mut shared = lock(&shared);
    let at = shared.parked.iter().position(|(own, _)| *own == token)?;
    shared.parked.remove(at).map(|(_, connection)| connection)
}

impl fmt::Debug for EraCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.lock();
        f.debug_struct("EraCache")
            .field("server", &shared.server)
            .field("waiting", &shared.parked.len())
            .finish()
    }
}
