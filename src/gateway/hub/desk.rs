//! [`Desk`]: who is attached to one server, and what is under way between them.
//!
//! Used by hub only. Behind a lock that is held for a few steps at a time, never while a message is read or written.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::Waker,
};

use atomic_waker::AtomicWaker;
use tokio::sync::watch;

use super::{
    HubConfig,
    settings::Settings,
    slab::{Digits, Slab},
};
use crate::{
    Frame,
    gateway::{
        refusal::{self, SERVER_ENDED},
        supervisor::Status,
    },
    json,
    limits::WRITE_HIGH_WATER,
};

/// Capacity in bytes that a place keeps for the next id.
const KEPT: usize = 128;

/// Queues beyond this length give their memory back when they are empty.
const LONG_QUEUE: usize = 64;

/// Nobody.
pub(super) const NOBODY: u64 = u64::MAX;

/// What a client said that it can do, as bits.
pub(super) mod can {
    pub(in super::super) const SAMPLE: u8 = 1;
    pub(in super::super) const ELICIT: u8 = 2;
    pub(in super::super) const LIST_ROOTS: u8 = 4;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum What {
    #[default]
    Plain,
    Initialize,
    Listen,
    SetLevel,
    Subscribe,
    Unsubscribe,
}

/// A request of a client at the server.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub(super) client: u64,
    pub(super) what: What,
    /// Order among the calls.
    turn: u64,
    /// The client's id, then its progress token, then the URI that it subscribes to.
    names: Vec<u8>,
    id: usize,
    uri: usize,
}

impl Call {
    pub(super) fn id(&self) -> &[u8] {
        self.names.get(..self.id).unwrap_or_default()
    }

    /// Empty when there is none.
    pub(super) fn token(&self) -> &[u8] {
        self.names.get(self.id..self.uri).unwrap_or_default()
    }

    pub(super) fn uri(&self) -> &str {
        self.names.get(self.uri..).and_then(|uri| std::str::from_utf8(uri).ok()).unwrap_or_default()
    }
}

/// A request of the server at a client.
#[derive(Debug, Default)]
pub(super) struct Ask {
    pub(super) client: u64,
    /// The server's id.
    pub(super) id: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Client {
    queue: VecDeque<Frame>,
    bytes: usize,
    /// Waits for a message.
    receiver: Option<Waker>,
    /// Waits for room.
    sender: Option<Waker>,
    in_flight: usize,
    pub(super) initialized: bool,
    pub(super) abilities: u8,
    /// The level that it has set.
    pub(super) level: Option<u8>,
    /// How many resources it is subscribed to.
    pub(super) subscriptions: usize,
    /// It was given up: bytes that waited for it.
    pub(super) cut: Option<usize>,
}

/// How far the one handshake with the server is.
#[derive(Debug, Default)]
pub(super) enum Handshake {
    #[default]
    None,
    /// The request is at the server; those of other clients wait.
    Asked(VecDeque<(u64, Frame)>),
    /// The server's answer.
    Done(Frame),
}

#[derive(Debug, Default)]
pub(super) struct Desk {
    pub(super) clients: Slab<Client>,
    pub(super) calls: Slab<Call>,
    pub(super) asks: Slab<Ask>,
    pub(super) handshake: Handshake,
    /// The server was told that the handshake is over.
    pub(super) initialized: bool,
    pub(super) settings: Settings,
    turn: u64,
    /// For the server.
    outgoing: VecDeque<Frame>,
    /// Bytes of those, and of those that the driver has and has not handed on.
    outgoing_bytes: usize,
    /// Somebody waits for these to become fewer.
    blocked: bool,
    /// The server is gone for good.
    pub(super) over: Option<Over>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    GaveUp,
    Closed,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) late: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) cut: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// A desk and what is known of it without its lock.
#[derive(Debug)]
pub(super) struct Shared {
    desk: Mutex<Desk>,
    /// Wakes the driver.
    pub(super) driver: AtomicWaker,
    pub(super) closing: AtomicBool,
    pub(super) in_flight: AtomicUsize,
    pub(super) clients: AtomicUsize,
    pub(super) status: Status,
    pub(super) tally: Tally,
    pub(super) gone: watch::Sender<bool>,
    pub(super) config: HubConfig,
}

impl Shared {
    pub(super) fn new(config: HubConfig, status: Status) -> Self {
        Self {
            desk: Mutex::default(),
            driver: AtomicWaker::new(),
            closing: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            clients: AtomicUsize::new(0),
            status,
            tally: Tally::default(),
            gone: watch::Sender::new(false),
            config,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called after what may have changed them.
    pub(super) fn publish(&self, desk: &Desk) {
        self.in_flight.store(desk.calls.len(), Relaxed);
        self.clients.store(desk.clients.len(), Relaxed);
    }
}

impl Desk {
    pub(super) fn attach(&mut self) -> Option<u64> {
        let (number, client) = self.clients.take()?;
        *client = Client { queue: mem::take(&mut client.queue), ..Client::default() };
        Some(number)
    }

    /// Remembers a request; gives the number that it goes by.
    pub(super) fn call(
        &mut self,
        client: u64,
        what: What,
        id: &[u8],
        token: &[u8],
        uri: &str,
    ) -> Option<u64> {
        self.turn += 1;
        let turn = self.turn;
        let (number, call) = self.calls.take()?;
        if call.names.capacity() > KEPT {
            call.names = Vec::new();
        }
        call.names.clear();
        call.names.extend_from_slice(id);
        call.names.extend_from_slice(token);
        call.names.extend_from_slice(uri.as_bytes());
        (call.client, call.what, call.turn) = (client, what, turn);
        (call.id, call.uri) = (id.len(), id.len() + token.len());
        if let Some(client) = self.clients.get(client) {
            client.in_flight += 1;
        }
        Some(number)
    }

    /// The request is over. The call stays to be looked at until the next one.
    pub(super) fn hang_up(&mut self, number: u64) -> Option<&Call> {
        let call = self.calls.free(number)?;
        if let Some(client) = self.clients.get(call.client) {
            client.in_flight = client.in_flight.saturating_sub(1);
        }
        Some(call)
    }

    /// A request that waits for another's handshake counts as under way.
    pub(super) fn wait(&mut self, client: u64, by: isize) {
        if let Some(client) = self.clients.get(client) {
            client.in_flight = client.in_flight.saturating_add_signed(by);
        }
    }

    pub(super) fn in_flight_of(&mut self, client: u64) -> usize {
        self.clients.get(client).map_or(0, |client| client.in_flight)
    }

    /// The call of `client` that it knows by `id`.
    pub(super) fn find_call(&self, client: u64, id: &[u8]) -> Option<u64> {
        let is = |call: &Call| call.client == client && same(call.id(), id);
        self.calls.iter().find(|(_, call)| is(call)).map(|(number, _)| number)
    }

    /// The client to ask for something that takes the ability `needed`: that of the newest request, else any.
    pub(super) fn whom_to_ask(&mut self, needed: u8) -> Option<u64> {
        let Self { clients, calls, .. } = self;
        let able = |client: &Client| client.cut.is_none() && client.abilities & needed == needed;
        let newest = calls
            .iter()
            .filter_map(|(_, call)| {
                clients.get(call.client).filter(|client| able(client)).map(|_| (call.turn, call.client))
            })
            .max();
        match newest {
            Some((_, client)) => Some(client),
            None => {
                let any = clients.iter().find(|(_, client)| client.initialized && able(client));
                any.map(|(number, _)| number)
            }
        }
    }

    pub(super) fn ask(&mut self, client: u64, id: &[u8]) -> Option<u64> {
        let (number, ask) = self.asks.take()?;
        if ask.id.capacity() > KEPT {
            ask.id = Vec::new();
        }
        ask.id.clear();
        ask.id.extend_from_slice(id);
        ask.client = client;
        Some(number)
    }

    pub(super) fn find_ask(&self, id: &[u8]) -> Option<u64> {
        self.asks.iter().find(|(_, ask)| same(&ask.id, id)).map(|(number, _)| number)
    }

    /// Queues an answer, or whatever else is for this client alone. One that lets too much pile up is given up.
    pub(super) fn push(&mut self, to: u64, frame: Frame, shared: &Shared, wake: &mut Vec<Waker>) {
        let config = &shared.config;
        let Some(client) = self.clients.get(to) else {
            shared.tally.late.fetch_add(1, Relaxed);
            return;
        };
        if client.cut.is_some() {
            shared.tally.dropped.fetch_add(1, Relaxed);
            return;
        }
        let full = client.queue.len() >= config.client_messages
            || (client.bytes + frame.len() > config.client_bytes && !client.queue.is_empty());
        if full {
            client.cut = Some(client.bytes);
            client.bytes = 0;
            client.queue = VecDeque::new();
            wake.extend(client.receiver.take());
            wake.extend(client.sender.take());
            shared.tally.cut.fetch_add(1, Relaxed);
            self.forget(to, "the client does not read");
            shared.driver.wake();
            return;
        }
        client.bytes += frame.len();
        client.queue.push_back(frame);
        wake.extend(client.receiver.take());
    }

    /// Queues a notification that is for all, or a log of `level`, for those that want it.
    pub(super) fn push_to_all(
        &mut self,
        frame: &Frame,
        level: Option<u8>,
        shared: &Shared,
        wake: &mut Vec<Waker>,
    ) {
        // One that stands alone (MCP 2026-07-28) never says that it is initialised. When its request is the only one, the
        // notification can belong to nothing else.
        let alone = match self.calls.len() {
            1 => self.calls.iter().next().map_or(NOBODY, |(_, call)| call.client),
            _ => NOBODY,
        };
        let Self { clients, settings, .. } = self;
        spread(clients, frame, shared, wake, |number, client| {
            (client.initialized || number == alone) && settings.wants(client.level, level)
        });
    }

    /// Queues a notification for those that are subscribed to what it is about.
    pub(super) fn push_update(&mut self, frame: &Frame, uri: &str, shared: &Shared, wake: &mut Vec<Waker>) {
        let subscribers = self.settings.subscribers(uri);
        if subscribers.is_empty() {
            shared.tally.late.fetch_add(1, Relaxed);
            return;
        }
        spread(&mut self.clients, frame, shared, wake, |number, _| {
            subscribers.binary_search(&number).is_ok()
        });
    }

    /// Takes all that waits for a client into `inbox`, which is empty. When there is nothing, `waker` is kept.
    pub(super) fn collect(&mut self, of: u64, inbox: &mut VecDeque<Frame>, waker: &Waker) -> Collected {
        let over = self.over;
        let Some(client) = self.clients.get(of) else { return Collected::Over(Over::Closed) };
        if let Some(bytes) = client.cut {
            return Collected::Cut(bytes);
        }
        if !client.queue.is_empty() {
            mem::swap(&mut client.queue, inbox);
            return Collected::Some { bytes: mem::take(&mut client.bytes), sender: client.sender.take() };
        }
        if let Some(over) = over {
            return Collected::Over(over);
        }
        if client.queue.capacity() > LONG_QUEUE {
            client.queue = VecDeque::new();
        }
        if !client.receiver.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            client.receiver = Some(waker.clone());
        }
        Collected::None { in_flight: client.in_flight }
    }

    /// Whether a client may send; else `waker` is kept.
    pub(super) fn may_send(&mut self, client: u64, mark: usize, waker: &Waker) -> bool {
        let full = self.outgoing_bytes >= WRITE_HIGH_WATER;
        let Some(client) = self.clients.get(client) else { return true };
        if client.cut.is_some() || self.over.is_some() || !(full || client.bytes > mark) {
            return true;
        }
        client.sender = Some(waker.clone());
        self.blocked |= full;
        false
    }

    pub(super) fn send(&mut self, frame: Frame) {
        self.outgoing_bytes += frame.len();
        self.outgoing.push_back(frame);
    }

    /// Gives the driver what is to be sent; `done` bytes of what it had before are handed on.
    pub(super) fn hand_over(&mut self, pending: &mut VecDeque<Frame>, done: usize, wake: &mut Vec<Waker>) {
        self.outgoing_bytes = self.outgoing_bytes.saturating_sub(done);
        if pending.is_empty() {
            mem::swap(&mut self.outgoing, pending);
        }
        if self.blocked && self.outgoing_bytes < WRITE_HIGH_WATER / 2 {
            self.blocked = false;
            for (_, client) in self.clients.iter_mut() {
                wake.extend(client.sender.take());
            }
        }
    }

    /// The client says no more, and stays for what it has asked for. Its subscriptions would never end: they do now.
    pub(super) fn end_subscriptions(&mut self, of: u64, shared: &Shared, wake: &mut Vec<Waker>) {
        let own = |(call, by): (u64, &Call)| (by.client == of && by.what == What::Listen).then_some(call);
        let calls: Vec<u64> = self.calls.iter().filter_map(own).collect();
        for number in calls {
            let Some(call) = self.hang_up(number) else { continue };
            let over = json::subscription_over(call.id());
            let mut cancel = Vec::new();
            refusal::cancel(Digits::of(number).as_slice(), "the client listens no more", &mut cancel);
            self.send(cancel.into());
            self.push(of, over.into(), shared, wake);
        }
        shared.publish(self);
    }

    /// The client leaves: nobody waits for what it asked.
    pub(super) fn detach(&mut self, number: u64) {
        self.forget(number, "the client left");
        if let Some(client) = self.clients.free(number) {
            let queue = mem::take(&mut client.queue);
            *client = Client::default();
            if queue.capacity() <= LONG_QUEUE {
                client.queue = queue;
                client.queue.clear();
            }
        }
    }

    fn forget(&mut self, number: u64, reason: &str) {
        self.unsubscribe_all(number);
        let busy = self.clients.get(number).is_some_and(|client| {
            let busy = client.in_flight > 0;
            client.in_flight = 0;
            busy
        });
        if busy {
            if let Handshake::Asked(waiting) = &mut self.handshake {
                waiting.retain(|(client, _)| *client != number);
            }
            let own = |(call, of): (u64, &Call)| (of.client == number).then_some(call);
            let calls: Vec<u64> = self.calls.iter().filter_map(own).collect();
            for call in calls {
                // The one handshake is everybody's.
                if let Some(orphan) = self.calls.get(call).filter(|call| call.what == What::Initialize) {
                    orphan.client = NOBODY;
                    continue;
                }
                let what = self.calls.free(call).map(|call| call.what);
                self.settings.taken_back(what);
                let mut bytes = Vec::new();
                refusal::cancel(Digits::of(call).as_slice(), reason, &mut bytes);
                self.send(bytes.into());
            }
        }
        let own = |(ask, of): (u64, &Ask)| (of.client == number).then_some(ask);
        let asks: Vec<u64> = self.asks.iter().filter_map(own).collect();
        for ask in asks {
            if let Some(ask) = self.asks.free(ask) {
                let mut bytes = Vec::new();
                refusal::refuse(&ask.id, SERVER_ENDED, reason, &mut bytes);
                self.send(bytes.into());
            }
        }
    }

    /// Nothing more comes from the server: whatever is under way is answered with an error.
    pub(super) fn end(&mut self, over: Over, shared: &Shared, wake: &mut Vec<Waker>) {
        let text = match over {
            Over::GaveUp => "the server has ended too often and is not started again",
            Over::Closed => "the gateway is closing",
        };
        let calls: Vec<u64> = self.calls.iter().map(|(call, _)| call).collect();
        for call in calls {
            let Some(call) = self.hang_up(call) else { continue };
            let (client, mut bytes) = (call.client, Vec::new());
            refusal::refuse(call.id(), SERVER_ENDED, text, &mut bytes);
            self.push(client, bytes.into(), shared, wake);
        }
        if let Handshake::Asked(waiting) = mem::take(&mut self.handshake) {
            for (client, request) in waiting {
                let Ok(envelope) = json::Envelope::peek(&request) else { continue };
                let mut bytes = Vec::new();
                refusal::refuse(envelope.raw_id().unwrap_or(b"null"), SERVER_ENDED, text, &mut bytes);
                self.wait(client, -1);
                self.push(client, bytes.into(), shared, wake);
            }
        }
        self.over.get_or_insert(over);
        self.outgoing = VecDeque::new();
        for (_, client) in self.clients.iter_mut() {
            wake.extend(client.receiver.take());
            wake.extend(client.sender.take());
        }
        shared.publish(self);
    }
}

/// What there was for a client.
pub(super) enum Collected {
    /// So many bytes, and whoever waited for them to be taken.
    Some {
        bytes: usize,
        sender: Option<Waker>,
    },
    None {
        in_flight: usize,
    },
    Over(Over),
    Cut(usize),
}

/// Queues a notification for each client that it is `for_whom`. It is left out for those that lag behind.
fn spread(
    clients: &mut Slab<Client>,
    frame: &Frame,
    shared: &Shared,
    wake: &mut Vec<Waker>,
    for_whom: impl Fn(u64, &Client) -> bool,
) {
    let config = &shared.config;
    for (number, client) in clients.iter_mut() {
        if client.cut.is_some() || !for_whom(number, client) {
            continue;
        }
        if client.bytes > config.client_mark || client.queue.len() >= config.client_messages / 2 {
            shared.tally.dropped.fetch_add(1, Relaxed);
            continue;
        }
        client.bytes += frame.len();
        client.queue.push_back(frame.clone());
        wake.extend(client.receiver.take());
    }
}

/// Whether two ids are one, however their strings are escaped.
fn same(one: &[u8], other: &[u8]) -> bool {
    if one == other {
        return true;
    }
    match (one, other) {
        ([b'"', one @ .., b'"'], [b'"', other @ .., b'"'])
            if one.contains(&b'\\') || other.contains(&b'\\') =>
        {
            json::unescape(one).is_some_and(|one| json::unescape(other).is_some_and(|other| one == other))
        }
        _ => false,
    }
}
