//! Which message of the program goes on which stream.

use bytes::Bytes;
use tokio::time::Instant;

use super::{Over, State, add};
use crate::{
    json::{Envelope, Kind, member, string},
    transport::http::server::{
        SessionKind,
        config::HttpServerConfig,
        stream::{Event, Stream},
    },
};

impl State {
    /// Puts `payload`, whose envelope is `envelope`, on the stream that it belongs on.
    pub(in super::super) fn send(
        &mut self,
        payload: Bytes,
        envelope: &Envelope<'_>,
        config: &HttpServerConfig,
    ) {
        let target = match envelope.kind() {
            Kind::Response | Kind::Error if envelope.raw_id().is_some_and(|id| id != b"null") => {
                let id = envelope.raw_id().unwrap_or_default();
                let Some(at) = self.answers(id) else {
                    if self.kind == SessionKind::Legacy {
                        return self.push(None, payload, config);
                    }
                    self.unrouted += 1;
                    return;
                };
                if self.initialize.as_deref().is_some_and(|own| own == id || is_same_text(own, id)) {
                    self.initialized(envelope);
                }
                Some(at)
            }
            Kind::Batch => {
                let (mut target, mut stray) = (None, true);
                for element in envelope.elements().flatten() {
                    match (element.kind(), element.raw_id()) {
                        (Kind::Response | Kind::Error, Some(id)) if id != b"null" => {
                            target = self.answers(id).or(target);
                        }
                        _ => stray = false,
                    }
                }
                if stray && target.is_none() && self.kind != SessionKind::Legacy {
                    self.unrouted += 1;
                    return;
                }
                target.or_else(|| self.newest())
            }
            Kind::Notification
                if envelope.method().is_some_and(|method| method.is("notifications/progress")) =>
            {
                let token = envelope.progress_token().ok().flatten();
                let stream = token.and_then(|token| {
                    let by = |same: fn(&[u8], &[u8]) -> bool| {
                        let has = |stream: &Stream| stream.tokens.iter().any(|known| same(known, token));
                        self.streams.iter().position(has)
                    };
                    by(|one, other| one == other).or_else(|| by(is_same_text))
                });
                stream.or_else(|| self.newest())
            }
            _ => self.newest(),
        };
        self.push(target, payload, config);
    }

    /// The stream that the answer to `id` belongs on; it waits for it no more.
    pub(super) fn answers(&mut self, id: &[u8]) -> Option<usize> {
        let mut by = |same: fn(&[u8], &[u8]) -> bool| {
            self.streams.iter_mut().position(|stream| {
                let found = stream.waits.iter().position(|wait| same(wait, id));
                if let Some(at) = found {
                    stream.waits.swap_remove(at);
                }
                found.is_some()
            })
        };
        let found = by(|one, other| one == other).or_else(|| by(is_same_text));
        if found.is_some() {
            self.stir();
        }
        found
    }

    /// The client wants no answer to `id` any more, and a server is to send none: the stream waits for it no longer.
    pub(super) fn cancel(&mut self, id: &[u8]) {
        if self.kind != SessionKind::Session || self.initialize.is_some() {
            return;
        }
        let Some(at) = self.answers(id) else { return };
        let Some(stream) = self.streams.get_mut(at) else { return };
        // What is on it is no answer.
        stream.always = true;
        if let Some(waker) = stream.wake() {
            waker.wake();
        }
        if stream.is_spent() {
            self.streams.remove(at);
        }
    }

    /// The stream for what belongs to no request: the newest POST that is under way; `None` for what a GET opens.
    pub(super) fn newest(&self) -> Option<usize> {
        let open = |stream: &Stream| !stream.is_finished();
        let attached = self.streams.iter().rposition(|stream| open(stream) && stream.is_attached());
        if attached.is_some() || self.listen.is_attached() || self.kind == SessionKind::Legacy {
            return attached;
        }
        self.streams.iter().rposition(open)
    }

    /// What the server said to `initialize`.
    pub(super) fn initialized(&mut self, envelope: &Envelope<'_>) {
        self.initialize = None;
        if envelope.kind() == Kind::Error {
            // No session came of it.
            self.finish(Over::Done);
            return;
        }
        let version = envelope.result().and_then(|result| member(result, "protocolVersion").ok().flatten());
        let version = version.and_then(|text| std::str::from_utf8(text).ok());
        self.revision = version.and_then(|text| text.trim_matches('"').parse().ok());
    }

    pub(super) fn push(&mut self, target: Option<usize>, payload: Bytes, config: &HttpServerConfig) {
        let stream = match target.and_then(|at| self.streams.get_mut(at)) {
            Some(stream) => stream,
            None => &mut self.listen,
        };
        let event = Event { payload, at: Instant::now() };
        let cost = event.cost();
        add(&mut self.held, (cost, 1));
        if stream.is_attached() {
            add(&mut self.queued, (cost, 1));
        }
        stream.log.push_back(event);
        let waker = stream.wake();
        // Dropped streams and what is forgotten go at once; a client that is not there holds what the store holds.
        self.forget(config);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Whether two ids are strings that say the same, spelled otherwise: a server may write another escape, or none.
pub(in super::super) fn is_same_text(one: &[u8], other: &[u8]) -> bool {
    let (Some(one), Some(other)) = (string(one), string(other)) else { return false };
    if !one.raw().contains(&b'\\') && !other.raw().contains(&b'\\') {
        return one.raw() == other.raw();
    }
    one.unescape().is_some_and(|text| other.is(&text))
}
