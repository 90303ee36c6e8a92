//! Translation between clients and servers of the stateless revision and those with sessions.
//!
//! ```text
//!   client ── Bridge ── Translated ── HubSession, Supervisor, any PollTransport ── server
//! ```
//!
//! The state machines below (`detection`, `session_client`, `stateless_client`) take messages and give messages;
//! [`Translated`] moves them. Uses `transport` and `json`; who builds a gateway uses it. Only the bytes that must change
//! are changed: what stands in params and results stays as it came, numbers of any size included.

mod cache;
mod detection;
mod edit;
mod listening;
mod message;
mod queue;
mod round;
mod session_client;
mod stateless_client;
mod suspension;
mod translated;

use std::time::Duration;

pub use self::{cache::EraCache, translated::Translated};
use crate::limits::{ERA_HANDSHAKE_TIMEOUT, ERA_PROBE_TIMEOUT, ERA_SUSPENSION};

/// How often a server may ask for more input before it answers one call (the SDKs' own bound).
const MAX_ROUNDS: u8 = 10;

/// Things a server may ask for at once in one call.
const MAX_QUESTIONS: usize = 16;

/// The two ways in which the protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Era {
    /// Revisions 2024-11-05 to 2025-11-25: `initialize`, then a session.
    Sessions,
    /// Revision 2026-07-28: each request stands alone.
    Stateless,
}

/// How [`Translated`] goes about it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EraConfig {
    /// How long `server/discover` may go unanswered. Default: [`ERA_PROBE_TIMEOUT`].
    pub probe_timeout: Duration,
    /// How long `initialize` may, when it is sent in a stateless client's name. Default: [`ERA_HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// How long a call of a stateless client waits for the client to come back on another connection, see
    /// [`Translated::resumable`]. Default: [`ERA_SUSPENSION`].
    pub suspension: Duration,
}

impl Default for EraConfig {
    fn default() -> Self {
        Self {
            probe_timeout: ERA_PROBE_TIMEOUT,
            handshake_timeout: ERA_HANDSHAKE_TIMEOUT,
            suspension: ERA_SUSPENSION,
        }
    }
}
