//! [`State`]: what one session knows, behind its lock: what came and waits to be received, the streams to its client,
//! and which message goes where.

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::{
    SessionKind,
    config::HttpServerConfig,
    reply,
    stream::{Event, LISTEN, NOBODY, Stream, event_id, is_small, on_one_line},
};
use crate::{
    Frame,
    json::{Envelope, Kind, member, string},
    limits::HTTP_INBOX_MESSAGES,
    transport::Revision,
};

/// Small events are gathered into pieces of at least this size, in bytes.
const PIECE: usize = 8 * 1024;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// The program closed it, or dropped it.
    Closed,
    /// The client ended it (DELETE), or all is answered that was asked.
    Done,
    /// The client went away without a word.
    Abandoned,
    /// Nothing came for so long.
    Idle(Duration),
}

/// What a POST asks for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) ids: Vec<Bytes>,
    pub(super) tokens: Vec<Bytes>,
    /// Whether it is `initialize`.
    pub(super) initialize: bool,
    /// Whether it is `tools/list` of the stateless revision.
    pub(super) lists: bool,
}

/// What a POST is answered with.
#[derive(Debug)]
pub(super) enum Answer {
    /// One message, and whether it is an error.
    Message(Bytes),
    /// A stream of events.
    Events,
}

/// Why a stream cannot be opened anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoResume {
    /// There never was such an event, or nothing is kept of its stream.
    Unknown,
    /// Everything was delivered.
    Complete,
}

/// Why a POST is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoEntry {
    /// The session is over.
    Over,
    /// A request with the same id is under way.
    SameId,
}

/// What goes out next of a stream.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pub(super) first: Option<Bytes>,
    pub(super) rest: [Option<Bytes>; 2],
}

pub(super) struct State {
    kind: SessionKind,
    pub(super) revision: Option<Revision>,
    initialize: Option<Bytes>,
    inbox: VecDeque<Frame>,
    inbox_bytes: usize,
    receiver: Option<Waker>,
    sender: Option<Waker>,
    /// POSTs that wait for room in the inbox.
    entering: Vec<Waker>,
    pub(super) posts: usize,
    pub(super) over: Option<Over>,
    listen: Stream,
    /// Streams of POSTs whose answers are to come, oldest first.
    streams: Vec<Stream>,
    /// Streams that are complete and delivered, kept for who comes back.
    finished: VecDeque<Stream>,
    last_stream: u64,
    last_holder: u64,
    /// Cost and count of all events, and of those that somebody is there to take.
    held: (usize, usize),
    queued: (usize, usize),
    /// When something last happened.
    pub(super) active: Instant,
    /// Grows whenever a client takes something.
    pub(super) taken: u64,
    /// Messages that nobody could be sent any more.
    pub(super) unrouted: u64,
}

impl State {
    pub(super) fn new(kind: SessionKind) -> Self {
        Self {
            kind,
            revision: None,
            initialize: None,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            receiver: None,
            sender: None,
            entering: Vec::new(),
            posts: 0,
            over: None,
            listen: Stream::new(LISTEN, kind == SessionKind::Session),
            streams: Vec::new(),
            finished: VecDeque::new(),
            last_stream: 0,
            last_holder: NOBODY,
            held: (0, 0),
            queued: (0, 0),
            active: Instant::now(),
            taken: 0,
            unrouted: 0,
        }
    }

    // What comes.

    /// Takes a message of the client in, once there is room. Returns the stream for its answers and who holds it, if there
    /// are to be any; `frame` is left when it was not taken.
    pub(super) fn poll_enter(
        &mut self,
        cx: &mut Context<'_>,
        frame: &mut Option<Frame>,
        asked: &mut Asked,
        room: usize,
    ) -> Poll<Result<Option<(u64, u64)>, NoEntry>> {
        if self.over.is_some() {
            return Poll::Ready(Err(NoEntry::Over));
        }
        let size = frame.as_ref().map_or(0, |frame| frame.len());
        let fits = self.inbox.len() < HTTP_INBOX_MESSAGES && self.inbox_bytes + size <= room;
        if !fits && !self.inbox.is_empty() {
            if !self.entering.iter().any(|waker| waker.will_wake(cx.waker())) {
                self.entering.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let known = |id: &Bytes| {
            let same = |wait: &Bytes| wait == id || is_same_text(wait, id);
            self.streams.iter().any(|stream| stream.waits.iter().any(same))
        };
        if asked.ids.iter().any(known) {
            return Poll::Ready(Err(NoEntry::SameId));
        }
        let Some(frame) = frame.take() else { return Poll::Ready(Err(NoEntry::Over)) };
        self.active = Instant::now();
        self.inbox_bytes += size;
        self.inbox.push_back(frame);
        if asked.initialize {
            self.initialize = asked.ids.first().cloned();
        }
        let mut place = None;
        if !asked.ids.is_empty() && self.kind != SessionKind::Legacy {
            self.last_stream += 1;
            let mut stream = Stream::new(self.last_stream, self.kind == SessionKind::Session);
            stream.waits = std::mem::take(&mut asked.ids);
            stream.tokens = std::mem::take(&mut asked.tokens);
            stream.holder = self.next_holder();
            place = Some((stream.number, stream.holder));
            self.streams.push(stream);
        }
        if let Some(waker) = self.receiver.take() {
            waker.wake();
        }
        if self.kind == SessionKind::Stateless && place.is_none() {
            self.finish(Over::Done);
        }
        Poll::Ready(Ok(place))
    }

    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, Over>> {
        if let Some(frame) = self.inbox.pop_front() {
            self.inbox_bytes -= frame.len();
            for waker in self.entering.drain(..) {
                waker.wake();
            }
            return Poll::Ready(Ok(frame));
        }
        if let Some(over) = self.over {
            return Poll::Ready(Err(over));
        }
        register(&mut self.receiver, cx);
        Poll::Pending
    }

    // What goes out.

    /// Whether there is room for another message.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>, high_water: usize) -> Poll<Result<(), Over>> {
        if let Some(over) = self.over {
            return Poll::Ready(Err(over));
        }
        if self.has_room(high_water) {
            return Poll::Ready(Ok(()));
        }
        register(&mut self.sender, cx);
        Poll::Pending
    }

    pub(super) fn has_room(&self, high_water: usize) -> bool {
        self.queued.0 < high_water
    }

    /// Puts `payload`, whose envelope is `envelope`, on the stream that it belongs on.
    pub(super) fn send(&mut self, payload: &Bytes, envelope: &Envelope<'_>, config: &HttpServerConfig) {
        let target = match envelope.kind() {
            Kind::Response | Kind::Error if envelope.raw_id().is_some_and(|id| id != b"null") => {
                let id = envelope.raw_id().unwrap_or_default();
                let Some(at) = self.answers(id) else {
                    if self.kind == SessionKind::Legacy {
                        return self.push(None, payload.clone(), config);
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
                let mut target = None;
                for element in envelope.elements().flatten() {
                    if let (Kind::Response | Kind::Error, Some(id)) = (element.kind(), element.raw_id()) {
                        target = self.answers(id).or(target);
                    }
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
        self.push(target, payload.clone(), config);
    }

    /// The stream that the answer to `id` belongs on; it waits for it no more.
    fn answers(&mut self, id: &[u8]) -> Option<usize> {
        let mut by = |same: fn(&[u8], &[u8]) -> bool| {
            self.streams.iter_mut().position(|stream| {
                let found = stream.waits.iter().position(|wait| same(wait, id));
                if let Some(at) = found {
                    stream.waits.swap_remove(at);
                }
                found.is_some()
            })
        };
        by(|one, other| one == other).or_else(|| by(is_same_text))
    }

    /// The stream for what belongs to no request: the newest POST that is under way; `None` for what a GET opens.
    fn newest(&self) -> Option<usize> {
        let open = |stream: &Stream| !stream.is_finished();
        let attached = self.streams.iter().rposition(|stream| open(stream) && stream.is_attached());
        if attached.is_some() || self.listen.is_attached() || self.kind == SessionKind::Legacy {
            return attached;
        }
        self.streams.iter().rposition(open)
    }

    /// What the server said to `initialize`.
    fn initialized(&mut self, envelope: &Envelope<'_>) {
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

    fn push(&mut self, target: Option<usize>, payload: Bytes, config: &HttpServerConfig) {
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

    /// Ends the session: what is under way is answered with an error, streams end once all is delivered.
    pub(super) fn finish(&mut self, over: Over) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(over);
        if over != Over::Done {
            self.inbox.clear();
            self.inbox_bytes = 0;
        }
        let now = Instant::now();
        for stream in &mut self.streams {
            for id in std::mem::take(&mut stream.waits) {
                let payload = reply::error_message(Some(&id), reply::INTERNAL, "the session has ended");
                let event = Event { payload, at: now };
                add(&mut self.held, (event.cost(), 1));
                if stream.is_attached() {
                    add(&mut self.queued, (event.cost(), 1));
                }
                stream.log.push_back(event);
            }
        }
        let streams = self.streams.iter_mut().chain([&mut self.listen]);
        let mut wakers: Vec<Waker> = streams.filter_map(Stream::wake).collect();
        wakers.append(&mut self.entering);
        wakers.extend([self.receiver.take(), self.sender.take()].into_iter().flatten());
        for waker in wakers {
            waker.wake();
        }
    }

    // The streams.

    fn next_holder(&mut self) -> u64 {
        self.last_holder += 1;
        self.last_holder
    }

    fn find(&mut self, number: u64) -> Option<&mut Stream> {
        if number == LISTEN {
            return Some(&mut self.listen);
        }
        self.streams.iter_mut().find(|stream| stream.number == number)
    }

    /// The first that a POST is to be answered with.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>, (number, holder): (u64, u64)) -> Poll<Answer> {
        let at = self.streams.iter().position(|stream| stream.number == number && stream.holder == holder);
        let Some(stream) = at.and_then(|at| self.streams.get_mut(at)) else {
            return Poll::Ready(Answer::Events);
        };
        if stream.log.is_empty() {
            register(&mut stream.waker, cx);
            return Poll::Pending;
        }
        if stream.log.len() > 1 || !stream.waits.is_empty() || stream.lost > 0 {
            return Poll::Ready(Answer::Events);
        }
        let stream = at.map(|at| self.streams.remove(at));
        let Some(event) = stream.and_then(|mut stream| stream.log.pop_front()) else {
            return Poll::Ready(Answer::Events);
        };
        sub(&mut self.held, (event.cost(), 1));
        sub(&mut self.queued, (event.cost(), 1));
        self.took();
        if self.kind == SessionKind::Stateless {
            self.finish(Over::Done);
        }
        Poll::Ready(Answer::Message(event.payload))
    }

    /// Makes the stream of a POST one of events.
    pub(super) fn stream(&mut self, (number, holder): (u64, u64), retry: Duration) {
        let primed = self.is_primed();
        if let Some(stream) = self.find(number)
            && stream.holder == holder
        {
            stream.streaming = true;
            if primed {
                stream.preamble = Some(stream.priming(retry));
            }
        }
    }

    /// Whether streams begin with an event that has an id and nothing else: clients of older revisions choke on it.
    fn is_primed(&self) -> bool {
        self.kind == SessionKind::Session
            && self.revision.is_some_and(|revision| revision >= Revision::R2025_11_25)
    }

    /// Whether the stream of a POST may be closed before its end.
    pub(super) fn may_close_early(&self) -> bool {
        self.is_primed()
    }

    /// Opens the stream that belongs to no request. Who held it before has it no more.
    pub(super) fn listen(&mut self, retry: Duration, preamble: Option<Bytes>) -> (u64, u64) {
        let primed = self.is_primed();
        let place = self.attach_listen();
        self.listen.preamble = match preamble {
            None if primed => Some(self.listen.priming(retry)),
            preamble => preamble,
        };
        place
    }

    fn attach_listen(&mut self) -> (u64, u64) {
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
    pub(super) fn resume(&mut self, last: &[u8]) -> Result<(u64, u64), NoResume> {
        let (number, event) = event_id(last).ok_or(NoResume::Unknown)?;
        if let Some(at) = self.finished.iter().position(|stream| stream.number == number)
            && let Some(stream) = self.finished.remove(at)
        {
            if event + 1 >= stream.end() {
                let complete = event + 1 == stream.end();
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
    pub(super) fn poll_events(
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

    fn took(&mut self) {
        self.taken += 1;
        if let Some(waker) = self.sender.take() {
            waker.wake();
        }
    }

    /// Whoever delivered a stream does so no more: it is complete, or its client is gone.
    pub(super) fn detach(&mut self, (number, holder): (u64, u64), config: &HttpServerConfig) {
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
        // What waited for room has it now.
        self.took();
    }

    /// Takes away from those who take nothing what waits for them.
    pub(super) fn drop_stalled(&mut self, config: &HttpServerConfig) {
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

    fn lose(&mut self, stream: &Stream) {
        sub(&mut self.held, (stream.log.iter().map(Event::cost).sum(), stream.log.len()));
    }

    /// Forgets what is too old or too much of what was delivered, or waits for nobody.
    fn forget(&mut self, config: &HttpServerConfig) {
        let now = Instant::now();
        while let Some(stream) = self.finished.front() {
            let old = stream.log.back().is_none_or(|event| now.duration_since(event.at) > config.store_age);
            if !old && !self.is_overfull(config) {
                break;
            }
            if let Some(stream) = self.finished.pop_front() {
                self.lose(&stream);
            }
        }
        loop {
            let full = self.is_overfull(config);
            if !full && self.held.1 == self.queued.1 {
                return;
            }
            let oldest = self
                .streams
                .iter_mut()
                .chain([&mut self.listen])
                .filter_map(|stream| stream.forgettable().map(|at| (at, stream)))
                .min_by_key(|(at, _)| *at);
            let Some((at, stream)) = oldest else { return };
            if !full && now.duration_since(at) <= config.store_age {
                return;
            }
            let Some(freed) = stream.forget() else { return };
            sub(&mut self.held, freed);
        }
    }

    fn is_overfull(&self, config: &HttpServerConfig) -> bool {
        let (bytes, events) =
            (self.held.0.saturating_sub(self.queued.0), self.held.1.saturating_sub(self.queued.1));
        // A single message is kept whatever its size: who asked for it comes back for it.
        (bytes > config.store_bytes && events > 1) || events > config.store_events
    }

    /// Streams whose answers are to come, whether their clients are there or not.
    pub(super) fn unanswered(&self) -> usize {
        self.streams.iter().filter(|stream| !stream.is_finished()).count()
    }

    /// Ends the stream that waits for what may come.
    pub(super) fn close_listening(&mut self, config: &HttpServerConfig) {
        let (holder, waker) = (self.listen.holder, self.listen.wake());
        if self.kind == SessionKind::Session {
            self.detach((LISTEN, holder), config);
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether no client is there at the moment.
    pub(super) fn is_idle(&self) -> bool {
        self.posts == 0
            && !self.listen.is_attached()
            && self.streams.iter().all(|stream| !stream.is_attached())
    }
}

/// Whether two ids are strings that say the same, spelled otherwise: a server may write another escape, or none.
fn is_same_text(one: &[u8], other: &[u8]) -> bool {
    let (Some(one), Some(other)) = (string(one), string(other)) else { return false };
    if !one.raw().contains(&b'\\') && !other.raw().contains(&b'\\') {
        return one.raw() == other.raw();
    }
    one.unescape().is_some_and(|text| other.is(&text))
}

fn add(to: &mut (usize, usize), what: (usize, usize)) {
    to.0 += what.0;
    to.1 += what.1;
}

fn sub(from: &mut (usize, usize), what: (usize, usize)) {
    from.0 = from.0.saturating_sub(what.0);
    from.1 = from.1.saturating_sub(what.1);
}

/// Keeps the newest waker without cloning the same one again.
fn register(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(known) if known.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        state: State,
        config: HttpServerConfig,
    }

    impl World {
        fn new(bytes: usize, events: usize, age: Duration) -> Self {
            let config = HttpServerConfig::builder().event_store(bytes, events, age).build().unwrap();
            let mut state = State::new(SessionKind::Session);
            state.revision = Some(Revision::R2025_06_18);
            Self { state, config }
        }

        fn say(&mut self, message: &str) {
            let payload = Bytes::copy_from_slice(message.as_bytes());
            self.state.send(&payload, &Envelope::peek(message.as_bytes()).unwrap(), &self.config);
            self.check();
        }

        fn ask(&mut self, id: &str) -> (u64, u64) {
            let mut asked = Asked { ids: vec![Bytes::copy_from_slice(id.as_bytes())], ..Asked::default() };
            let mut frame = Some(Frame::from_static(b"{}"));
            let cx = &mut Context::from_waker(Waker::noop());
            let Poll::Ready(Ok(Some(place))) = self.state.poll_enter(cx, &mut frame, &mut asked, 1000) else {
                panic!("not let in");
            };
            place
        }

        /// All that goes out of a stream now, as text, and whether it has ended.
        fn take(&mut self, place: (u64, u64)) -> (String, bool) {
            let cx = &mut Context::from_waker(Waker::noop());
            let mut text = Vec::new();
            loop {
                match self.state.poll_events(cx, place, &self.config) {
                    Poll::Ready(Some(pieces)) => {
                        for piece in [pieces.first].into_iter().chain(pieces.rest).flatten() {
                            text.extend_from_slice(&piece);
                        }
                    }
                    Poll::Ready(None) => return (String::from_utf8(text).unwrap(), true),
                    Poll::Pending => return (String::from_utf8(text).unwrap(), false),
                }
                self.check();
            }
        }

        /// The sums are what they are sums of.
        fn check(&self) {
            let all = || self.state.streams.iter().chain(&self.state.finished).chain([&self.state.listen]);
            let sum = |of: fn(&Stream) -> (usize, usize)| {
                all().map(of).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
            };
            let held = |stream: &Stream| (stream.log.iter().map(Event::cost).sum(), stream.log.len());
            assert_eq!(self.state.held, sum(held));
            let queued = |stream: &Stream| if stream.is_attached() { stream.undelivered() } else { (0, 0) };
            assert_eq!(self.state.queued, sum(queued));
        }
    }

    fn note(n: u32) -> String {
        format!(r#"{{"jsonrpc":"2.0","method":"{n}"}}"#)
    }

    fn answer(id: &str, text: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"{text}"}}"#)
    }

    const LONG: Duration = Duration::from_secs(1000);

    #[tokio::test]
    async fn what_waits_for_nobody_is_bounded_and_its_loss_is_told() {
        let mut world = World::new(1 << 20, 4, LONG);
        for n in 0..10 {
            world.say(&note(n));
        }
        assert_eq!(world.state.held.1, 4);
        let place = world.state.listen(Duration::ZERO, None);
        let (text, ended) = world.take(place);
        assert!(text.starts_with(": 6 events are no longer kept\n\nid: 0-7\n"), "{text}");
        assert_eq!((text.matches("data: ").count(), ended), (4, false));
        // Those that somebody is there for are no store.
        for n in 10..20 {
            world.say(&note(n));
        }
        assert_eq!(world.take(place).0.matches("data: ").count(), 10);
        assert_eq!(world.state.held.1, 4, "the last ones, for who comes back");
        // Behind the last four nothing is missing; before them something is.
        let place = world.state.resume(b"0-18").unwrap();
        assert_eq!(world.take(place).0.matches("data: ").count(), 2);
        let place = world.state.resume(b"0-3").unwrap();
        assert!(world.take(place).0.starts_with(": 13 events"));
        for unknown in
            [&b"0-21"[..], b"1-0", b"x", b"0-", b"-1", b"0--1", b"99999999999999999999-0", b"\xff-0"]
        {
            assert_eq!(world.state.resume(unknown), Err(NoResume::Unknown), "{unknown:?}");
        }
    }

    #[tokio::test]
    async fn bytes_and_age_are_limits_too() {
        let mut world = World::new(1000, 1000, LONG);
        for n in 0..100 {
            world.say(&note(n));
        }
        assert!(world.state.held.0 <= 1000);
        let mut world = World::new(1 << 20, 1000, Duration::ZERO);
        for n in 0..3 {
            world.say(&note(n));
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(world.state.held.1 <= 1, "each is too old when the next comes");
    }

    #[tokio::test]
    async fn an_answer_that_is_not_kept_leaves_an_error() {
        let mut world = World::new(2000, 100, LONG);
        let place = world.ask("7");
        world.state.stream(place, Duration::ZERO);
        world.state.detach(place, &world.config);
        let long = "x".repeat(10_000);
        // Alone it is kept, however large it is.
        world.say(&answer("7", &long));
        assert!(world.state.held.0 > 10_000);
        world.say(&note(1));
        assert!(world.state.held.0 < 2000);
        let place = world.state.resume(format!("{}-0", place.0).as_bytes()).unwrap();
        let (text, ended) = world.take(place);
        assert!(text.contains(r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32603"#), "{text}");
        assert!(ended);
    }

    #[tokio::test]
    async fn streams_that_are_complete_go_first() {
        let mut world = World::new(1 << 20, 6, LONG);
        let mut places = Vec::new();
        for id in ["1", "2", "3"] {
            let place = world.ask(id);
            world.state.stream(place, Duration::ZERO);
            world.say(&note(0));
            world.say(&answer(id, ""));
            assert!(world.take(place).1);
            places.push(place);
        }
        assert_eq!(world.state.finished.len(), 3);
        assert_eq!(world.state.resume(b"1-2"), Err(NoResume::Complete));
        world.say(&note(1));
        assert_eq!(world.state.finished.len(), 2);
        assert_eq!(world.state.resume(b"1-1"), Err(NoResume::Unknown));
        let place = world.state.resume(b"3-1").unwrap();
        let (text, ended) = world.take(place);
        assert!(text.starts_with("id: 3-2\ndata: ") && ended, "{text}");
        assert_eq!(world.state.finished.len(), 2, "kept on, in case that connection broke as well");
    }

    #[tokio::test]
    async fn a_stream_that_stalls_is_taken_away() {
        let mut world = World::new(1 << 20, 100, LONG);
        let place = world.state.listen(Duration::ZERO, None);
        let long = format!(r#"{{"jsonrpc":"2.0","method":"{}"}}"#, "x".repeat(1000));
        let cx = &mut Context::from_waker(Waker::noop());
        while world.state.poll_ready(cx, 10_000).is_ready() {
            world.say(&long);
        }
        world.state.drop_stalled(&world.config);
        world.check();
        assert!(world.state.poll_ready(cx, 10_000).is_ready());
        assert_eq!(world.take(place), (String::new(), true));
        let place = world.state.listen(Duration::ZERO, None);
        assert!(world.take(place).0.contains("xxx"), "kept for who comes back");
    }
}
