//! [`State`]: what one session knows, behind its lock: what came and waits to be received, here; which message goes on
//! which stream ([`routing`]), how streams reach the client ([`delivery`]) and what is kept of them ([`store`]).

mod delivery;
mod routing;
mod store;

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::time::Instant;

pub(super) use self::delivery::{Answer, NoResume, Pieces};
pub(super) use self::routing::is_same_text;
use super::{
    SessionKind, reply,
    stream::{Event, LISTEN, NOBODY, Stream},
};
use crate::{limits::HTTP_INBOX_MESSAGES, transport::Revision};

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// The program closed it, or dropped it.
    Closed,
    /// It did so without a look at what the client had to say.
    Refused,
    /// The client ended it (DELETE), or all is answered that was asked.
    Done,
    /// The client went away without a word.
    Abandoned,
    /// Nothing came for so long.
    Idle(Duration),
}

/// Parts of a message: of all but batches, one at most.
pub(super) type Parts = SmallVec<[Bytes; 1]>;

/// What a POST asks for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) ids: Parts,
    pub(super) tokens: Parts,
    /// Ids of requests that it takes back.
    pub(super) cancels: Parts,
    /// Whether it is `initialize`.
    pub(super) initialize: bool,
    /// Whether even a single answer is to come as an event.
    pub(super) events: bool,
    /// Whether it is `tools/list` of the stateless revision.
    pub(super) lists: bool,
    /// Whether it is `subscriptions/listen`, which is answered when it is over.
    pub(super) subscribes: bool,
}

/// Why a POST is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoEntry {
    /// The session is over.
    Over,
    /// A request with the same id is under way.
    SameId,
}

pub(super) struct State {
    kind: SessionKind,
    pub(super) revision: Option<Revision>,
    initialize: Option<Bytes>,
    /// Whether the program has received anything.
    heard: bool,
    inbox: VecDeque<Bytes>,
    inbox_bytes: usize,
    receiver: Option<Waker>,
    sender: Option<Waker>,
    /// POSTs that wait for room in the inbox.
    entering: Vec<Waker>,
    /// Waits until nobody waits for an answer.
    quiet: Option<Waker>,
    pub(super) posts: usize,
    pub(super) over: Option<Over>,
    listen: Stream,
    /// Streams of POSTs whose answers are to come, oldest first.
    streams: Vec<Stream>,
    /// The memory of a log that is no longer needed, for the next.
    spare: VecDeque<Event>,
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
            heard: false,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            receiver: None,
            sender: None,
            entering: Vec::new(),
            quiet: None,
            posts: 0,
            over: None,
            listen: Stream::new(LISTEN, kind == SessionKind::Session),
            streams: Vec::new(),
            spare: VecDeque::new(),
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
    /// are to be any; `body` is left when it was not taken.
    pub(super) fn poll_enter(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Option<Bytes>,
        asked: &mut Asked,
        room: usize,
    ) -> Poll<Result<Option<(u64, u64)>, NoEntry>> {
        if self.over.is_some() {
            return Poll::Ready(Err(NoEntry::Over));
        }
        let size = body.as_ref().map_or(0, Bytes::len);
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
        let Some(body) = body.take() else { return Poll::Ready(Err(NoEntry::Over)) };
        self.active = Instant::now();
        self.inbox_bytes += size;
        self.inbox.push_back(body);
        for id in std::mem::take(&mut asked.cancels) {
            self.cancel(&id);
        }
        if asked.initialize {
            self.initialize = asked.ids.first().cloned();
        }
        let mut place = None;
        if !asked.ids.is_empty() && self.kind != SessionKind::Legacy {
            self.last_stream += 1;
            let mut stream = Stream::new(self.last_stream, self.kind == SessionKind::Session);
            stream.log = std::mem::take(&mut self.spare);
            stream.waits = std::mem::take(&mut asked.ids);
            stream.tokens = std::mem::take(&mut asked.tokens);
            stream.always = asked.events;
            stream.subscribes = asked.subscribes;
            stream.holder = self.next_holder();
            place = Some((stream.number, stream.holder));
            // Most clients ask for one thing at a time.
            if self.streams.capacity() == 0 {
                self.streams.reserve_exact(1);
            }
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

    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Over>> {
        if let Some(body) = self.inbox.pop_front() {
            self.heard = true;
            self.inbox_bytes -= body.len();
            for waker in self.entering.drain(..) {
                waker.wake();
            }
            return Poll::Ready(Ok(body));
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

    /// Ends the session: what is under way is answered with an error, streams end once all is delivered.
    pub(super) fn finish(&mut self, over: Over) {
        if self.over.is_some() {
            return;
        }
        let over = if over == Over::Closed && !self.heard { Over::Refused } else { over };
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
        wakers.extend([self.receiver.take(), self.sender.take(), self.quiet.take()].into_iter().flatten());
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

    /// Requests whose answers are to come, whether their clients are there or not.
    pub(super) fn unanswered(&self) -> usize {
        self.streams.iter().map(|stream| stream.waits.len()).sum()
    }

    /// Waits until no client that is there waits for an answer, other than to a subscription.
    pub(super) fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let waits = |stream: &Stream| stream.is_attached() && !stream.is_finished() && !stream.subscribes;
        if self.over.is_some() || !self.streams.iter().any(waits) {
            return Poll::Ready(());
        }
        register(&mut self.quiet, cx);
        Poll::Pending
    }

    fn stir(&mut self) {
        if let Some(waker) = self.quiet.take() {
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
mod tests;
