//! How a server is kept running, and who is told of it.

use std::{io, time::Duration};

use crate::{
    Error,
    gateway::Silent,
    limits::{
        HOLD_BYTES, HOLD_MESSAGES, HOLD_TIME, MAX_BACKOFF, MAX_IN_FLIGHT, MIN_BACKOFF, OPEN_TIMEOUT,
        REPLAY_TIMEOUT,
    },
};

/// How a [`Supervisor`](super::Supervisor) keeps its server running.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SupervisorConfig {
    /// The pause before the first restart; it doubles with each further one, until the server has answered a request.
    /// Up to as much again is added at random. Default: 100 ms.
    pub backoff_min: Duration,
    /// The longest pause, what is added included. Default: 30 s.
    pub backoff_max: Duration,
    /// How many times in a row, without an answer in between, the server may end or not start before it is given up.
    /// Default: `None`, never.
    pub max_restarts: Option<u32>,
    /// How long a message waits for a server that is not running; then a request is answered with an error and anything
    /// else is dropped. Default: 10 s.
    pub hold: Duration,
    /// Bytes that wait so. A request beyond is answered with an error at once. Default: 4 MiB.
    pub hold_bytes: usize,
    /// Messages that wait so. Default: 1,024.
    pub hold_messages: usize,
    /// How long opening the connection may take. Default: 30 s.
    pub open_timeout: Duration,
    /// How long a restarted server may take to answer `initialize`. Default: 60 s: it may have to fetch what it needs.
    pub replay_timeout: Duration,
    /// Requests that may be under way. One more is answered with an error. Default: 16,384.
    pub max_in_flight: usize,
}

impl Default for SupervisorConfig {
    fn default() -> Self {
        Self {
            backoff_min: MIN_BACKOFF,
            backoff_max: MAX_BACKOFF,
            max_restarts: None,
            hold: HOLD_TIME,
            hold_bytes: HOLD_BYTES,
            hold_messages: HOLD_MESSAGES,
            open_timeout: OPEN_TIMEOUT,
            replay_timeout: REPLAY_TIMEOUT,
            max_in_flight: MAX_IN_FLIGHT,
        }
    }
}

/// What happens to a supervised server.
#[derive(Debug)]
#[non_exhaustive]
pub enum SupervisorEvent<'a> {
    /// It runs: the connection is open. It is not ready before a replayed handshake is answered.
    Opened {
        /// Number of the connection.
        number: u64,
    },
    /// It could not be started or connected to.
    OpenFailed {
        /// Number of the connection.
        number: u64,
        /// Why.
        error: &'a io::Error,
    },
    /// It ended, or its connection did, by itself: not when it had nothing more to do and its input was closed.
    Ended {
        /// Number of the connection.
        number: u64,
        /// How.
        error: &'a Error,
        /// Requests that were under way: each is answered with an error.
        in_flight: usize,
        /// Whether it had answered a request with a result.
        answered: bool,
        /// Whether its input had been closed before, as its client had ended.
        finishing: bool,
    },
    /// It is started again after a pause.
    Waiting {
        /// The pause.
        pause: Duration,
    },
    /// The handshake of the client was repeated, and the new server is ready.
    Replayed {
        /// Number of the connection.
        number: u64,
    },
    /// It refused what the client of the server before had set, which is not set again.
    NotRestored {
        /// `logging/setLevel` or `resources/subscribe`.
        method: &'a str,
    },
    /// It is not started again.
    GaveUp {
        /// How many times in a row it was.
        restarts: u32,
    },
    /// It sent something that is no message, which was skipped.
    Garbage {
        /// What it sent, as far as the codec gave it out; empty when [`error`](Self::Garbage::error) is the codec's. Escape
        /// it before it is shown.
        bytes: &'a [u8],
        /// What is wrong.
        error: &'a Error,
    },
    /// The client answered a request of a server that has ended since. It was dropped.
    LateAnswer,
}

/// Is told what happens to a supervised server. The method has an empty default.
pub trait SupervisorObserver: Send + Sync {
    /// Something happened.
    fn event(&self, event: &SupervisorEvent<'_>) {
        let _ = event;
    }
}

impl SupervisorObserver for Silent {}

impl<F: Fn(&SupervisorEvent<'_>) + Send + Sync> SupervisorObserver for F {
    fn event(&self, event: &SupervisorEvent<'_>) {
        self(event);
    }
}
