//! [`Hub`]: many clients on one server, or on a few, none of which knows of another.
//!
//! Uses `supervisor`, `splice` and what is below them; the command uses it.
//!
//! ```text
//!   HubSession ──┐                     ┌─ Driver (a task) ─ Supervisor ─ server
//!   HubSession ──┼─ Desk (behind a lock)
//!   HubSession ──┘
//! ```
//! A session exchanges the ids of what its client sends for numbers of the desk's and queues it; the driver hands it to
//! the server, and of what the server sends finds out whose it is. One task per server, none per client or message.

mod config;
mod desk;
mod driver;
mod gather;
mod handshake;
mod router;
mod session;
mod settings;
mod slab;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
};

pub use self::{
    config::{HubConfig, TooSlow},
    session::HubSession,
};
use self::{desk::Shared, driver::Driver};
use super::{Backend, Silent, Supervisor, SupervisorObserver, supervisor::Status};

/// One server, or a few, for all clients. A clone is another handle to the same.
///
/// # What clients share, and what they do not
/// - The ids of requests are exchanged, and the fields that refer to them ([`splice`](super::splice)); every other byte
///   passes as it came. Batches are passed on element by element, as newer revisions of the protocol have none.
/// - The first `initialize` goes to the server; every later one gets the same answer with its own id.
///   `notifications/initialized` is passed on once.
/// - Progress, and what belongs to a subscription, goes to the client whose it is; `notifications/cancelled` to the client
///   that was asked; every other notification to all that are initialised, and to one that stands alone (2026-07-28) when
///   nothing but its request is under way.
/// - `ping` of the server is answered here. Any other request of the server goes to the client with the newest request
///   under way that has said that it can do such a thing, else to any that can; when none can, the server gets an error.
/// - The server is told the least urgent level of logs that any client has set, and each client gets those from its own
///   level on; one that has set none, from `info` on once another has. Until then the server decides.
/// - The server is subscribed once to each resource that a client is subscribed to, and the updates of it, or of a part of
///   it by its URI, go to those clients. When the last of them leaves, the server is told.
///
/// # When a client leaves
/// Its requests are cancelled at the server, those of the server at it are answered with an error, and what comes late is
/// dropped and counted.
///
/// # When a client does not read
/// Nobody waits for it. Beyond [`HubConfig::client_mark`] no more requests are taken from it and notifications for all are
/// left out for it (counted); beyond [`HubConfig::client_bytes`] it is given up: its session fails with [`TooSlow`].
///
/// The servers are closed once the last handle and the last session are gone, or by [`close`](Self::close).
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    servers: Vec<Arc<Shared>>,
    config: HubConfig,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for server in &self.servers {
            server.closing.store(true, Relaxed);
            server.driver.wake();
        }
    }
}

/// What has been counted, over all servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubCounts {
    /// Clients attached now.
    pub clients: usize,
    /// Requests under way now.
    pub in_flight: usize,
    /// Answers and progress for which there was no client any more, updates of resources that nobody is subscribed to, and
    /// answers of clients to nothing.
    pub late: u64,
    /// Notifications for all that were left out for a client that lagged behind.
    pub dropped: u64,
    /// Clients given up as they did not read.
    pub cut: u64,
    /// Requests answered with an error by the hub itself.
    pub refused: u64,
}

/// A handle to what others may know of a hub. It does not keep the hub.
#[derive(Clone)]
pub struct HubStatus {
    servers: Vec<Arc<Shared>>,
}

impl Hub {
    /// One supervised server per element of `backends`, each driven by a task of its own, which is spawned here.
    ///
    /// # Panics
    /// Outside a tokio runtime, and on one whose timer is not enabled.
    #[must_use]
    pub fn new(backends: Vec<Arc<dyn Backend>>, config: HubConfig) -> Self {
        Self::with_observer(backends, config, Arc::new(Silent))
    }

    /// As [`new`](Self::new), and `observer` is told what happens to the servers.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[must_use]
    pub fn with_observer(
        backends: Vec<Arc<dyn Backend>>,
        config: HubConfig,
        observer: Arc<dyn SupervisorObserver>,
    ) -> Self {
        let config = config.normal();
        let servers = backends.into_iter().map(|backend| {
            let supervisor =
                Supervisor::with_observer(backend, config.supervisor.clone(), Arc::clone(&observer));
            let shared = Arc::new(Shared::new(config.clone(), supervisor.status()));
            tokio::spawn(Driver::new(supervisor, Arc::clone(&shared)).run());
            shared
        });
        let servers = servers.collect();
        Self { inner: Arc::new(Inner { servers, config }) }
    }

    /// A session for one client, on the server that has least to do. With [`HubConfig::max_clients`] attached it is one
    /// that answers every request with an error.
    #[must_use]
    pub fn attach(&self) -> HubSession {
        let attached: usize = self.inner.servers.iter().map(|server| server.clients.load(Relaxed)).sum();
        let least = self.inner.servers.iter().min_by_key(|server| {
            let ready = server.status.is_ready();
            (!ready, server.in_flight.load(Relaxed), server.clients.load(Relaxed))
        });
        let place = match least {
            Some(server) if attached < self.inner.config.max_clients => {
                let mut desk = server.lock();
                let number = desk.attach();
                server.publish(&desk);
                number.map(|number| (Arc::clone(server), number))
            }
            _ => None,
        };
        HubSession::new(self.clone(), place)
    }

    /// How the servers stand, for whoever asks.
    #[must_use]
    pub fn status(&self) -> HubStatus {
        HubStatus { servers: self.inner.servers.clone() }
    }

    /// Ends all sessions and closes the servers in order; returns when they are gone.
    ///
    /// # Cancel safety
    /// Safe: they are closed all the same.
    pub async fn close(&self) {
        for server in &self.inner.servers {
            server.closing.store(true, Relaxed);
            server.driver.wake();
        }
        for server in &self.inner.servers {
            // An error says that the task is gone, with its runtime.
            let _ = server.gone.subscribe().wait_for(|gone| *gone).await;
        }
    }
}

impl HubStatus {
    /// Whether any server takes requests now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.servers.iter().any(|server| server.status.is_ready())
    }

    /// Each server's.
    pub fn servers(&self) -> impl Iterator<Item = Status> {
        self.servers.iter().map(|server| server.status.clone())
    }

    /// What has been counted.
    #[must_use]
    pub fn counts(&self) -> HubCounts {
        let mut counts = HubCounts::default();
        for server in &self.servers {
            counts.clients += server.clients.load(Relaxed);
            counts.in_flight += server.in_flight.load(Relaxed);
            counts.late += server.tally.late.load(Relaxed);
            counts.dropped += server.tally.dropped.load(Relaxed);
            counts.cut += server.tally.cut.load(Relaxed);
            counts.refused += server.tally.refused.load(Relaxed);
        }
        counts
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl fmt::Debug for HubStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubStatus")
            .field("ready", &self.is_ready())
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}
