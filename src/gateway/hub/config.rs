//! How much of a hub one client, and all of them, may take.

use super::slab::MAX_PLACES;
use crate::{
    gateway::SupervisorConfig,
    limits::{
        CLIENT_MARK, CLIENT_QUEUE_BYTES, CLIENT_QUEUE_MESSAGES, MAX_CLIENTS, MAX_IN_FLIGHT,
        MAX_IN_FLIGHT_PER_CLIENT,
    },
};

/// What a [`Hub`](super::Hub) lets its clients have.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HubConfig {
    /// Clients attached at a time, over all servers. Default: 4,096.
    pub max_clients: usize,
    /// Requests under way at one server; one more is answered with an error. Default: 16,384.
    pub max_in_flight: usize,
    /// Requests that one client has under way; one more is answered with an error. Default: 1,024.
    pub max_in_flight_per_client: usize,
    /// Bytes that wait for a client above which no more is taken from it. Default: 1 MiB.
    pub client_mark: usize,
    /// Bytes that wait for a client above which it is given up. One message may be larger when it waits alone. Default:
    /// 64 MiB.
    pub client_bytes: usize,
    /// Messages that wait for a client above which it is given up. Default: 16,384.
    pub client_messages: usize,
    /// How each server is kept running.
    pub supervisor: SupervisorConfig,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            max_clients: MAX_CLIENTS,
            max_in_flight: MAX_IN_FLIGHT,
            max_in_flight_per_client: MAX_IN_FLIGHT_PER_CLIENT,
            client_mark: CLIENT_MARK,
            client_bytes: CLIENT_QUEUE_BYTES,
            client_messages: CLIENT_QUEUE_MESSAGES,
            supervisor: SupervisorConfig::default(),
        }
    }
}

impl HubConfig {
    /// With limits that can be kept.
    pub(super) fn normal(mut self) -> Self {
        self.max_clients = self.max_clients.min(MAX_PLACES);
        self.max_in_flight = self.max_in_flight.min(MAX_PLACES);
        // The hub's own limit is the one that is met.
        self.supervisor.max_in_flight = self.supervisor.max_in_flight.max(self.max_in_flight);
        self
    }
}

/// A client that did not read what came for it, and was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client did not read: {bytes} bytes waited for it, the limit is {limit} bytes")]
pub struct TooSlow {
    /// Bytes that waited.
    pub bytes: usize,
    /// The limit in bytes.
    pub limit: usize,
}
