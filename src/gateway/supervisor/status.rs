//! [`Status`]: what others may know of a supervised server, at any time and at no cost to it.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
};

/// Where a supervised server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// It was never ready yet.
    Starting,
    /// It takes requests.
    Ready,
    /// It has ended and is on its way back.
    Restarting,
    /// It has ended too often and is not started again.
    GaveUp,
    /// It was closed.
    Closed,
}

#[derive(Debug, Default)]
struct Cells {
    state: AtomicU8,
    opened: AtomicU64,
    open_failures: AtomicU64,
    ended: AtomicU64,
    failed_requests: AtomicU64,
    garbage: AtomicU64,
    late_answers: AtomicU64,
    lost: AtomicU64,
    in_flight: AtomicU64,
}

/// A handle to what others may know of a supervised server. Cheap to clone; reading never waits.
#[derive(Debug, Clone, Default)]
pub struct Status {
    cells: Arc<Cells>,
}

/// What has been counted, see [`Status::counts`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Connections opened.
    pub opened: u64,
    /// Connections that could not be opened.
    pub open_failures: u64,
    /// Connections that ended by themselves.
    pub ended: u64,
    /// Requests that were answered with an error of our own.
    pub failed_requests: u64,
    /// Things from the server that are no messages, which were skipped.
    pub garbage: u64,
    /// Answers of the client to a server that has ended since, which were dropped.
    pub late_answers: u64,
    /// Notifications and answers of the client for which there was no server in time.
    pub lost: u64,
    /// Requests under way now.
    pub in_flight: u64,
}

/// Which number goes up.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    Opened,
    OpenFailure,
    Ended,
    FailedRequest,
    Garbage,
    LateAnswer,
    Lost,
}

impl Status {
    /// Whether the server takes requests now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state() == State::Ready
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        match self.cells.state.load(Relaxed) {
            0 => State::Starting,
            1 => State::Ready,
            2 => State::Restarting,
            3 => State::GaveUp,
            _ => State::Closed,
        }
    }

    /// What has been counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let cells = &*self.cells;
        Counts {
            opened: cells.opened.load(Relaxed),
            open_failures: cells.open_failures.load(Relaxed),
            ended: cells.ended.load(Relaxed),
            failed_requests: cells.failed_requests.load(Relaxed),
            garbage: cells.garbage.load(Relaxed),
            late_answers: cells.late_answers.load(Relaxed),
            lost: cells.lost.load(Relaxed),
            in_flight: cells.in_flight.load(Relaxed),
        }
    }

    pub(super) fn set(&self, state: State) {
        let code = match state {
            State::Starting => 0,
            State::Ready => 1,
            State::Restarting => 2,
            State::GaveUp => 3,
            State::Closed => 4,
        };
        self.cells.state.store(code, Relaxed);
    }

    pub(super) fn set_in_flight(&self, count: usize) {
        self.cells.in_flight.store(count as u64, Relaxed);
    }

    pub(super) fn add(&self, count: Count) {
        let cell = match count {
            Count::Opened => &self.cells.opened,
            Count::OpenFailure => &self.cells.open_failures,
            Count::Ended => &self.cells.ended,
            Count::FailedRequest => &self.cells.failed_requests,
            Count::Garbage => &self.cells.garbage,
            Count::LateAnswer => &self.cells.late_answers,
            Count::Lost => &self.cells.lost,
        };
        cell.fetch_add(1, Relaxed);
    }
}
