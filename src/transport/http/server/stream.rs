//! [`Stream`]: one stream of events towards a client, and what is kept of it.
//!
//! ```text
//!   first                cursor                first + log.len()
//!   ├──────────────────────┼────────────────────────┤
//!   │ delivered, kept for  │ to be delivered        │  next
//!   │ who comes back       │                        │
//! ```

use std::{collections::VecDeque, fmt::Write, task::Waker, time::Duration};

use bytes::{Bytes, BytesMut};
use memchr::{memchr2, memchr2_iter};
use tokio::time::Instant;

use super::{reply, state::Parts};
use crate::{
    json::{Envelope, Kind},
    limits::VECTORED_THRESHOLD,
};

/// What an event is counted with beside its bytes.
pub(super) const OVERHEAD: usize = 64;

/// Answers of at most so many bytes are kept or forgotten, not replaced: more than what replaces them.
const ERROR_SIZE: usize = 512;

/// The stream of a session that belongs to no request: what a GET opens.
pub(super) const LISTEN: u64 = 0;

/// Who holds a stream when nobody does.
pub(super) const NOBODY: u64 = 0;

/// A message that was put on a stream.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) payload: Bytes,
    pub(super) at: Instant,
}

impl Event {
    pub(super) fn cost(&self) -> usize {
        self.payload.len() + OVERHEAD
    }
}

/// One stream. Events are numbered from 1; an event's id is `stream-number`.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) number: u64,
    /// Ids of requests that it is still to carry the answers of.
    pub(super) waits: Parts,
    /// Progress tokens of the same requests.
    pub(super) tokens: Parts,
    pub(super) log: VecDeque<Event>,
    pub(super) first: u64,
    pub(super) cursor: u64,
    /// Who delivers it now: a POST or a GET under way.
    pub(super) holder: u64,
    pub(super) waker: Option<Waker>,
    /// Whether it goes out as events; a POST may still be answered by a single message otherwise.
    pub(super) streaming: bool,
    /// Whether it goes out as events whatever comes.
    pub(super) always: bool,
    /// Whether it is a subscription's.
    pub(super) subscribes: bool,
    /// What goes out before the first event of who holds it now.
    pub(super) preamble: Option<Bytes>,
    /// Whether events carry ids and are kept.
    pub(super) resumable: bool,
    /// Events that were never delivered and are gone, since the client was last told.
    pub(super) lost: u64,
}

impl Stream {
    pub(super) fn new(number: u64, resumable: bool) -> Self {
        Self {
            number,
            waits: Parts::new(),
            tokens: Parts::new(),
            log: VecDeque::new(),
            first: 1,
            cursor: 1,
            holder: NOBODY,
            waker: None,
            streaming: false,
            always: false,
            subscribes: false,
            preamble: None,
            resumable,
            lost: 0,
        }
    }

    pub(super) fn is_attached(&self) -> bool {
        self.holder != NOBODY
    }

    /// Whether nothing more will be put on it.
    pub(super) fn is_finished(&self) -> bool {
        self.number != LISTEN && self.waits.is_empty()
    }

    /// Whether nothing is left of it, and nobody is there to be told that it is over.
    pub(super) fn is_spent(&self) -> bool {
        self.is_finished() && !self.is_attached() && self.log.is_empty()
    }

    /// The number that the next event gets.
    pub(super) fn end(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    pub(super) fn has_undelivered(&self) -> bool {
        self.cursor < self.end()
    }

    fn index(&self, number: u64) -> usize {
        usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX)
    }

    /// What waits to be delivered: its cost and its count.
    pub(super) fn undelivered(&self) -> (usize, usize) {
        let from = self.index(self.cursor).min(self.log.len());
        (self.log.range(from..).map(Event::cost).sum(), self.log.len() - from)
    }

    pub(super) fn next(&self) -> Option<&Event> {
        self.log.get(self.index(self.cursor))
    }

    /// The oldest event, when it may be forgotten: it was delivered, or nobody is there to take it.
    pub(super) fn forgettable(&self) -> Option<Instant> {
        let event = self.log.front()?;
        (self.first < self.cursor || !self.is_attached()).then_some(event.at)
    }

    /// Forgets the oldest event; returns its cost and count. Of an answer that nobody has taken yet an error is kept, so
    /// that who asked does not wait for ever.
    pub(super) fn forget(&mut self) -> Option<(usize, usize)> {
        let undelivered = self.cursor == self.first;
        if undelivered
            && let Some(event) = self.log.front_mut()
            && event.payload.len() > ERROR_SIZE
            && let Some(error) = instead(&event.payload)
        {
            let freed = event.payload.len() - error.len();
            event.payload = error;
            return Some((freed, 0));
        }
        let event = self.log.pop_front()?;
        if undelivered {
            self.lost += 1;
            self.cursor += 1;
        }
        self.first += 1;
        Some((event.cost(), 1))
    }

    pub(super) fn wake(&mut self) -> Option<Waker> {
        self.waker.take()
    }

    /// The event with which a stream begins: an id to come back with, and how long to wait before.
    pub(super) fn priming(&self, retry: Duration) -> Bytes {
        let text =
            format!("id: {}-{}\nretry: {}\ndata: \n\n", self.number, self.cursor - 1, retry.as_millis());
        text.into()
    }

    /// Writes what stands before the payload of event `number`.
    pub(super) fn put_head(&self, number: u64, to: &mut BytesMut) {
        if self.resumable {
            // Writing to memory does not fail.
            let _ = writeln!(to, "id: {}-{number}", self.number);
        }
        to.extend_from_slice(b"data: ");
    }
}

/// What is said instead of an answer that was not kept; `None` of what is no answer.
fn instead(payload: &[u8]) -> Option<Bytes> {
    let envelope = Envelope::peek(payload).ok()?;
    let id = envelope.raw_id().filter(|id| id.len() <= ERROR_SIZE / 4)?;
    let text = "the answer was too large to be kept until it was asked for";
    (envelope.kind() == Kind::Response).then(|| reply::error_message(Some(id), reply::INTERNAL, text))
}

/// The two numbers of an event's id.
pub(super) fn event_id(text: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(text).ok()?;
    let (stream, event) = text.split_once('-')?;
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    Some((number(stream)?, number(event)?))
}

/// `payload` on one line: line breaks are legal in JSON between tokens only, and there a blank says the same.
pub(super) fn on_one_line(payload: Bytes) -> Bytes {
    if memchr2(b'\n', b'\r', &payload).is_none() {
        return payload;
    }
    let mut line = BytesMut::from(payload);
    let breaks: Vec<usize> = memchr2_iter(b'\n', b'\r', &line).collect();
    for at in breaks {
        if let Some(byte) = line.get_mut(at) {
            *byte = b' ';
        }
    }
    line.freeze()
}

/// Whether a payload is copied behind its head; larger ones go out as they are.
pub(super) fn is_small(payload: &[u8]) -> bool {
    payload.len() < VECTORED_THRESHOLD
}
