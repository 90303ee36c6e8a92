//! What stands between clients that speak MCP over HTTP, or share a backend, and the servers behind: children that are
//! started again, ids that are kept apart, both eras of the protocol.
//!
//! A client on a byte stream that has a backend to itself needs none of it: its bytes pass as they are.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use clap::Args;
use framewire::{
    endpoint::Endpoint,
    gateway::{
        Backend, EraCache, Hub, HubConfig, Supervisor, SupervisorConfig, SupervisorEvent, SupervisorObserver,
        Translated,
    },
    transport::PollTransport,
};
use tracing::{debug, info, warn};

use super::{
    log,
    open::{Opened, Outgoing},
    quantity,
    transport::{AnyTransport, Backends},
};

/// Bytes of a line of garbage that are logged.
const MAX_GARBAGE: usize = 200;

/// How clients are put before servers.
#[derive(Debug, Args)]
pub(crate) struct Sharing {
    /// Let all clients share one backend, or COUNT of them; without it each session has its own. What a shared backend
    /// asks by itself (sampling, elicitation, roots) does not say for whom: it goes to the client, of those that can answer,
    /// that has asked last
    #[arg(
        long, value_name = "COUNT", num_args = 0..=1, default_missing_value = "1", require_equals = true,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024)
    )]
    shared: Option<usize>,

    /// Open a backend again when it dies, and answer what was under way with errors, for clients on byte streams as well:
    /// for those over HTTP, and those that share, this is always so
    #[arg(long)]
    restart: bool,

    /// Shortest pause before a backend that died is opened again; it doubles, with jitter, up to --restart-max
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = quantity::duration)]
    restart_min: Duration,

    /// Longest pause before a backend that died is opened again
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = quantity::duration)]
    restart_max: Duration,

    /// Requests under way at a backend, or of a session; more are answered with an error
    #[arg(
        long, value_name = "COUNT", default_value_t = 1024,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..)
    )]
    pub(crate) max_in_flight: usize,
}

impl Sharing {
    /// Whether messages are read, whatever clients speak.
    pub(crate) fn is_always(&self) -> bool {
        self.restart || self.shared.is_some()
    }
}

/// The servers behind, for every client that is not simply piped.
pub(crate) struct Gateway {
    backend: Arc<dyn Backend>,
    shared: Option<usize>,
    restart: bool,
    config: HubConfig,
    eras: EraCache,
    told: Arc<Told>,
    /// Made when the first client needs it.
    hub: OnceLock<Hub>,
}

impl Gateway {
    pub(crate) fn new(endpoint: &Endpoint, outgoing: &Outgoing, sharing: &Sharing, clients: usize) -> Self {
        let mut supervisor = SupervisorConfig::default();
        supervisor.backoff_min = sharing.restart_min;
        supervisor.backoff_max = sharing.restart_max.max(sharing.restart_min);
        supervisor.max_in_flight = sharing.max_in_flight;
        let lasts = supervisor.backoff_max;
        let mut config = HubConfig::default();
        config.max_clients = clients;
        config.max_in_flight = sharing.max_in_flight;
        config.supervisor = supervisor;
        Self {
            backend: Arc::new(Backends { endpoint: endpoint.clone(), outgoing: outgoing.clone() }),
            shared: sharing.shared,
            restart: sharing.restart,
            config,
            eras: EraCache::new(),
            told: Arc::new(Told { failed: Mutex::new(None), lasts }),
            hub: OnceLock::new(),
        }
    }

    /// Whether it stands before backends whatever clients speak.
    pub(crate) fn is_always(&self) -> bool {
        self.restart || self.shared.is_some()
    }

    /// Whether a server is there, as far as is known: the last that was opened came up, or failed to some time ago.
    pub(crate) fn is_ready(&self) -> bool {
        match self.hub.get() {
            Some(hub) if self.shared.is_some() => hub.status().is_ready(),
            _ => self.told.is_ready(),
        }
    }

    /// A server for a client that has a session.
    pub(crate) fn session(&self) -> Opened {
        if self.shared.is_some() {
            return behind(Translated::new(self.hub().attach(), self.eras.clone()));
        }
        let supervisor = Supervisor::with_observer(
            self.backend.clone(),
            self.config.supervisor.clone(),
            self.told.clone(),
        );
        behind(Translated::new(supervisor, self.eras.clone()))
    }

    /// A server for a client that has a single request: all such share it.
    pub(crate) fn request(&self) -> Opened {
        behind(Translated::new(self.hub().attach(), self.eras.clone()).resumable())
    }

    /// A backend that speaks JSON for certain, with the other era before it when the client speaks that.
    pub(crate) fn translated(&self, backend: Opened) -> Opened {
        behind(Translated::new(backend.link, self.eras.clone()))
    }

    fn hub(&self) -> &Hub {
        self.hub.get_or_init(|| {
            let backends = vec![self.backend.clone(); self.shared.unwrap_or(1)];
            Hub::with_observer(backends, self.config.clone(), self.told.clone())
        })
    }

    /// Ends the servers that are shared, in order.
    pub(crate) async fn close(&self) {
        if let Some(hub) = self.hub.get() {
            hub.close().await;
        }
    }
}

fn behind(transport: impl PollTransport + 'static) -> Opened {
    Opened::behind(AnyTransport::Other(Box::new(transport)), "the gateway".to_owned())
}

/// Logs what happens to servers.
struct Told {
    /// When one last failed to come up, until one does.
    failed: Mutex<Option<Instant>>,
    /// How long that says something of the next one: where probes keep clients away, none would ever be opened.
    lasts: Duration,
}

impl Told {
    fn set_ready(&self, ready: bool) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = (!ready).then(Instant::now);
    }

    fn is_ready(&self) -> bool {
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_none_or(|at| at.elapsed() >= self.lasts)
    }
}

impl SupervisorObserver for Told {
    fn event(&self, event: &SupervisorEvent<'_>) {
        match event {
            SupervisorEvent::Opened { number } => {
                self.set_ready(true);
                debug!(backend = number, "opened");
            }
            SupervisorEvent::OpenFailed { number, error } => {
                self.set_ready(false);
                warn!(backend = number, "cannot be opened: {error}");
            }
            SupervisorEvent::Ended { number, error, in_flight, answered, finishing } => {
                // What a client that hung up left it no time for says nothing of it.
                if !answered && !finishing {
                    self.set_ready(false);
                }
                warn!(backend = number, in_flight, "ended: {error}");
            }
            SupervisorEvent::Garbage { bytes: [], error } => warn!("the backend: {error}"),
            SupervisorEvent::Garbage { bytes, .. } => {
                warn!(line = log::preview(bytes, MAX_GARBAGE), "the backend sent what is no message");
            }
            SupervisorEvent::NotRestored { method } => {
                warn!(
                    "the backend that was started again refuses {method}, which a client of the one before had done"
                );
            }
            SupervisorEvent::Replayed { number } => info!(backend = number, "running again"),
            event => debug!("{event:?}"),
        }
    }
}
