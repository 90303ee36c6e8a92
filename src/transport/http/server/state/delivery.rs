//! How the streams reach the client: by whom they are held, and what goes out of them next.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::{Over, State, add, register, sub};
use crate::transport::Revision;
use crate::transport::http::server::{
    SessionKind,
    config::HttpServerConfig,
    stream::{LISTEN, NOBODY, event_id, is_small, on_one_line},
};

/// Small events are gathered into pieces of at least this size, in bytes.
const PIECE: usize = 8 * 1024;

/// What a POST is answered with.
#[derive(Debug)]
pub(in super::super) enum Answer {
    /// One message, and whether it is an error.
    Message(Bytes),
    /// A stream of events.
    Events,
}

/// Why a stream cannot be opened anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum NoResume {
    /// There never was such an event, or nothing is kept of its stream.
    Unknown,
    /// Everything was delivered.
    Complete,
}

/// What goes out next of a stream.
#[derive(Debug, Default)]
pub(in super::super) struct Pieces {
    pub(in super::super) first: Option<Bytes>,
    pub(in super::super) rest: [Option<Bytes>; 2],
}

impl State {
    /// The first that a POST is to be answered with.
    pub(in super::super) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        (number, holder): (u64, u64),
    ) -> Poll<Answer> {
        let at = self.streams.iter().position(|stream| stream.number == number && stream.holder == holder);
        let Some(stream) = at.and_then(|at| self.streams.get_mut(at)) else {
            return Poll::Ready(Answer::Events);
        };
        if stream.log.is_empty() && !stream.is_finished() {
            register(&mut stream.waker, cx);
            return Poll::Pending;
        }
        if stream.log.len() > 1 || !stream.waits.is_empty() || stream.lost > 0 || stream.always {
            return Poll::Ready(Answer::Events);
        }
        let mut log = at.map(|at| self.streams.remove(at).log).unwrap_or_default();
        let Some(event) = log.pop_front() else { return Poll::Ready(Answer::Events) };
        self.spare = log;
        sub(&mut self.held, (event.cost(), 1));
        sub(&mut self.queued, (event.cost(), 1));
        self.took();
        if self.kind == SessionKind::Stateless {
            self.finish(Over::Done);
        }
        Poll::Ready(Answer::Message(event.payload))
    }

    /// Makes the stream of a POST one of events.
    pub(in super::super) fn stream(&mut self, (number, holder): (u64, u64), retry: Duration) {
        let primed = self.is_primed();
        if let Some(stream) = self.find(number)
            && stream.holder == holder
        {
            stream.streaming = true;
            // To a stream that is over already nobody has to come back.
            if primed && !(stream.is_finished() && stream.log.is_empty()) {
                stream.preamble = Some(stream.priming(retry));
            }
        }
    }

    /// Whether streams begin with an event that has an id and nothing else: clients of older revisions choke on it.
    pub(super) fn is_primed(&self) -> bool {
        self.kind == SessionKind::Session
            && self.revision.is_some_and(|revision| revision >= Revision::R2025_11_25)
    }

    /// Whether the stream of a POST may be closed before its end.
    pub(in super::super) fn may_close_early(&self) -> bool {
        self.is_primed()
    }

    /// Opens the stream that belongs to no request. Who held it before has it no more.
    pub(in super::super) fn listen(&mut self, retry: Duration, preamble: Option<Bytes>) -> (u64, u64) {
        let primed = self.is_primed();
        let place = self.attach_listen();
        self.listen.preamble = match preamble {
            None if primed => Some(self.listen.priming(retry)),
            preamble => preamble,
        };
        place
    }

    pub(super) fn attach_listen(&mut self) -> (u64, u64) {
        let holder = self.next_holder();
        if !self.listen.is_attached() {
            add(&mut self.queued, self.listen.undelivered());
        }
        self.listen.holder = holder;
        self.listen.streaming = true;
        if let Some(waker) = self.listen.wake() {
            waker.wake();
        }
        self.active = Instant::now();
        (LISTEN, holder)
    }

    /// Opens the stream of `last`, the id of the last event that came, behind that event.
    pub(in super::super) fn resume(&mut self, last: &[u8]) -> Result<(u64, u64), NoResume> {
        let (number, event) = event_id(last).ok_or(NoResume::Unknown)?;
        if let Some(at) = self.finished.iter().position(|stream| stream.number == number)
            && let Some(stream) = self.finished.remove(at)
        {
            if event.saturating_add(1) >= stream.end() {
                let complete = event.saturating_add(1) == stream.end();
                self.finished.insert(at, stream);
                return Err(if complete { NoResume::Complete } else { NoResume::Unknown });
            }
            self.streams.insert(0, stream);
        }
        let holder = self.next_holder();
        let Some(stream) = self.find(number) else { return Err(NoResume::Unknown) };
        if event >= stream.end() || !stream.resumable {
            return Err(NoResume::Unknown);
        }
        let before = if stream.is_attached() { stream.undelivered() } else { (0, 0) };
        stream.lost = stream.first.saturating_sub(event + 1);
        stream.cursor = (event + 1).max(stream.first);
        stream.holder = holder;
        stream.streaming = true;
        stream.preamble = None;
        let (after, waker) = (stream.undelivered(), stream.wake());
        sub(&mut self.queued, before);
        add(&mut self.queued, after);
        if let Some(waker) = waker {
            waker.wake();
        }
        self.active = Instant::now();
        Ok((number, holder))
    }

    /// What goes out next; `None` at the end.
    pub(in super::super) fn poll_events(
        &mut self,
        cx: &mut Context<'_>,
        (number, holder): (u64, u64),
        config: &HttpServerConfig,
    ) -> Poll<Option<Pieces>> {
        let over = self.over.is_some();
        let Some(stream) = self.find(number).filter(|stream| stream.holder == holder) else {
            return Poll::Ready(None);
        };
        let mut pieces = Pieces::default();
        let mut gathered = BytesMut::new();
        let (mut cost, mut count) = (0, 0);
        if let Some(preamble) = stream.preamble.take() {
            gathered.extend_from_slice(&preamble);
        }
        if stream.lost > 0 {
            // Those before are gone for good: the client is told where a person may see it.
            gathered.extend_from_slice(format!(": {} events are no longer kept\n\n", stream.lost).as_bytes());
            stream.lost = 0;
        }
        while let Some(event) = stream.next() {
            (cost, count) = (cost + event.cost(), count + 1);
            let payload = on_one_line(event.payload.clone());
            stream.put_head(stream.cursor, &mut gathered);
            stream.cursor += 1;
            if !is_small(&payload) {
                pieces.rest = [Some(payload), Some(Bytes::from_static(b"\n\n"))];
                break;
            }
            gathered.extend_from_slice(&payload);
            gathered.extend_from_slice(b"\n\n");
            if gathered.len() >= PIECE {
                break;
            }
        }
        if gathered.is_empty() {
            if over || stream.is_finished() {
                self.detach((number, holder), config);
                return Poll::Ready(None);
            }
            register(&mut stream.waker, cx);
            return Poll::Pending;
        }
        pieces.first = Some(gathered.freeze());
        let mut gone = (0, 0);
        if !stream.resumable {
            while stream.first < stream.cursor
                && let Some(freed) = stream.forget()
            {
                add(&mut gone, freed);
            }
        }
        sub(&mut self.held, gone);
        sub(&mut self.queued, (cost, count));
        self.took();
        self.forget(config);
        Poll::Ready(Some(pieces))
    }

    pub(super) fn took(&mut self) {
        self.taken += 1;
        if let Some(waker) = self.sender.take() {
            waker.wake();
        }
    }

    /// Whoever delivered a stream does so no more: it is complete, or its client is gone.
    pub(in super::super) fn detach(&mut self, (number, holder): (u64, u64), config: &HttpServerConfig) {
        let Some(stream) = self.find(number).filter(|stream| stream.holder == holder) else { return };
        let undelivered = stream.undelivered();
        stream.holder = NOBODY;
        stream.waker = None;
        let (finished, delivered) = (stream.is_finished(), !stream.has_undelivered());
        // Who never got an id cannot come back.
        let keep = stream.resumable && stream.streaming;
        sub(&mut self.queued, undelivered);
        self.active = Instant::now();
        let at = self.streams.iter().position(|stream| stream.number == number);
        match self.kind {
            SessionKind::Legacy if number == LISTEN => self.finish(Over::Done),
            SessionKind::Stateless if finished && delivered => self.finish(Over::Done),
            SessionKind::Stateless => self.finish(Over::Abandoned),
            // Nobody knows the id of this session.
            SessionKind::Session if number != LISTEN && !finished && self.initialize.is_some() => {
                self.finish(Over::Abandoned);
            }
            _ => {}
        }
        if let Some(at) = at
            && (finished || !keep)
        {
            let stream = self.streams.remove(at);
            if keep && !stream.log.is_empty() {
                self.finished.push_back(stream);
            } else {
                self.lose(&stream);
            }
        }
        self.forget(config);
        self.stir();
        // What waited for room has it now.
        self.took();
    }

    /// Takes away from those who take nothing what waits for them.
    pub(in super::super) fn drop_stalled(&mut self, config: &HttpServerConfig) {
        let stalled: Vec<(u64, u64)> = self
            .streams
            .iter()
            .chain([&self.listen])
            .filter(|stream| stream.is_attached() && stream.has_undelivered())
            .map(|stream| (stream.number, stream.holder))
            .collect();
        for place in stalled {
            self.detach(place, config);
        }
    }

    /// Ends the stream that waits for what may come.
    pub(in super::super) fn close_listening(&mut self, config: &HttpServerConfig) {
        let (holder, waker) = (self.listen.holder, self.listen.wake());
        if self.kind == SessionKind::Session {
            self.detach((LISTEN, holder), config);
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
