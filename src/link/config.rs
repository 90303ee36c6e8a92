//! [`LinkConfig`]: limits and deadlines of a link; [`Counters`]: what it has done.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    buffer::BufferManager,
    limits::{CLOSE_TIMEOUT, MAX_FAULTS_IN_A_ROW, WRITE_HIGH_WATER},
};

/// Limits and deadlines of a link. Message sizes are limits of the codec.
///
/// No deadline but the one of the close is set by default: a link knows neither how long its peer may think nor
/// whether the runtime has a timer (see [there](crate::link#on-a-runtime-without-a-timer)). A server that faces strangers
/// sets `frame` and `write`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LinkConfig {
    /// How long the link may receive nothing between two messages. Default: no limit.
    pub idle: Option<Duration>,
    /// How long one message may take from its first byte to its last (slow-loris). Default: no limit.
    pub frame: Option<Duration>,
    /// How long queued bytes may wait without any of them leaving. Default: no limit.
    pub write: Option<Duration>,
    /// How long a close may take, and how long what is queued may wait for the peer to read once the link was dropped.
    /// Default: 5 s.
    pub close: Option<Duration>,
    /// Bytes queued for writing above which sending waits. Default: 256 KiB.
    pub write_high_water: usize,
    /// Whether receiving waits too while the backlog is above the mark. Default: no.
    pub pause_reading: bool,
    /// Faulty messages in a row after which the link gives up on its peer. Default: 1024.
    pub max_faults_in_a_row: u32,
    /// Where buffers come from. Default: [`BufferManager::shared`].
    pub buffers: BufferManager,
    /// What kind of transport the link is, for those who ask. Default: `"unknown"`.
    pub transport_type: &'static str,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            idle: None,
            frame: None,
            write: None,
            close: Some(CLOSE_TIMEOUT),
            write_high_water: WRITE_HIGH_WATER,
            pause_reading: false,
            max_faults_in_a_row: MAX_FAULTS_IN_A_ROW,
            buffers: BufferManager::shared().clone(),
            transport_type: "unknown",
        }
    }
}

impl LinkConfig {
    /// Sets how long the link may receive nothing between two messages.
    ///
    /// # Panics
    /// Links with a deadline panic when they first wait on a tokio runtime whose timer is not enabled.
    #[must_use]
    pub fn idle(mut self, after: Duration) -> Self {
        self.idle = Some(after);
        self
    }

    /// Sets how long one message may take from its first byte to its last.
    ///
    /// # Panics
    /// As [`idle`](Self::idle).
    #[must_use]
    pub fn frame(mut self, after: Duration) -> Self {
        self.frame = Some(after);
        self
    }

    /// Sets how long queued bytes may wait without any of them leaving.
    ///
    /// # Panics
    /// As [`idle`](Self::idle).
    #[must_use]
    pub fn write(mut self, after: Duration) -> Self {
        self.write = Some(after);
        self
    }

    /// Sets how long a close may take; `None` for no limit.
    ///
    /// # Panics
    /// With a limit, a close that has to wait panics on a tokio runtime whose timer is not enabled, and what a dropped link
    /// has still to write is lost there.
    #[must_use]
    pub fn close(mut self, after: Option<Duration>) -> Self {
        self.close = after;
        self
    }

    /// Sets the bytes queued for writing above which sending waits. At least 1.
    ///
    /// A loop that answers what it receives stops reading there by itself, because its `send` waits; so a peer that
    /// never reads cannot make it queue more than this and one message.
    #[must_use]
    pub fn write_high_water(mut self, bytes: usize) -> Self {
        self.write_high_water = bytes.max(1);
        self
    }

    /// Sets whether receiving waits too while the backlog is above the mark.
    ///
    /// For a server whose reading task never sends and so never feels the backlog. Only one of two peers may do this:
    /// when both have a large message on its way to the other and neither reads before it has left, neither ever will.
    #[must_use]
    pub fn pause_reading(mut self, pause: bool) -> Self {
        self.pause_reading = pause;
        self
    }

    /// Sets how many faulty messages in a row are borne; one more ends the link.
    #[must_use]
    pub fn max_faults_in_a_row(mut self, count: u32) -> Self {
        self.max_faults_in_a_row = count;
        self
    }

    /// Sets what kind of transport the link is.
    #[must_use]
    pub fn transport_type(mut self, name: &'static str) -> Self {
        self.transport_type = name;
        self
    }

    /// Sets where buffers come from.
    #[must_use]
    pub fn buffers(mut self, buffers: BufferManager) -> Self {
        self.buffers = buffers;
        self
    }
}

/// What links keep of their configuration: one for all that were made with the same, as an idle link is to be small.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) idle: Option<Duration>,
    pub(super) frame: Option<Duration>,
    pub(super) high_water: usize,
    pub(super) pause_reading: bool,
    pub(super) write_deadline: Option<Duration>,
    /// How long what is queued may still wait to leave once both halves are gone.
    pub(super) linger: Option<Duration>,
    pub(super) max_faults_in_a_row: u32,
    pub(super) transport_type: &'static str,
}

/// Settings that are kept for further links of the same kind.
const KEPT: usize = 16;

static KNOWN: Mutex<Vec<Arc<Settings>>> = Mutex::new(Vec::new());

impl Settings {
    pub(super) fn of(config: &LinkConfig) -> Arc<Self> {
        let settings = Self {
            idle: config.idle,
            frame: config.frame,
            high_water: config.write_high_water,
            pause_reading: config.pause_reading,
            write_deadline: config.write,
            linger: config.close,
            max_faults_in_a_row: config.max_faults_in_a_row,
            transport_type: config.transport_type,
        };
        // A list, as a process has a handful of kinds of links.
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = known.iter().find(|known| ***known == settings) {
            return Arc::clone(shared);
        }
        let settings = Arc::new(settings);
        if known.len() == KEPT {
            known.retain(|known| Arc::strong_count(known) > 1);
        }
        if known.len() < KEPT {
            known.push(Arc::clone(&settings));
        }
        settings
    }
}

/// What a link, or one half of it, has done since it was made. Plain integers: each half counts its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Messages received.
    pub frames_received: u64,
    /// Payload bytes received.
    pub bytes_received: u64,
    /// Reads that brought bytes.
    pub reads: u64,
    /// Faulty messages received.
    pub faults: u64,
    /// Messages accepted for sending.
    pub frames_sent: u64,
    /// Payload bytes accepted for sending.
    pub bytes_sent: u64,
    /// Writes that took bytes.
    pub writes: u64,
}

impl Counters {
    /// The sum of two halves.
    #[must_use]
    pub fn merged(self, other: Self) -> Self {
        Self {
            frames_received: self.frames_received + other.frames_received,
            bytes_received: self.bytes_received + other.bytes_received,
            reads: self.reads + other.reads,
            faults: self.faults + other.faults,
            frames_sent: self.frames_sent + other.frames_sent,
            bytes_sent: self.bytes_sent + other.bytes_sent,
            writes: self.writes + other.writes,
        }
    }
}
