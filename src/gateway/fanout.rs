//! [`Fanout`]: one message for many receivers, by topic or for all, the same bytes shared.
//!
//! Uses `frame`, `codec` and std; who serves many clients uses it. Nothing here waits for a receiver: each has a bounded
//! queue, and what happens when one does not keep up is said once, by [`SlowPolicy`].

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::{Future, poll_fn},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use crate::{
    Frame,
    codec::Kind,
    limits::{FANOUT_BYTES, FANOUT_MESSAGES, FANOUT_RECEIVERS, FANOUT_TOPICS},
};

/// What becomes of a receiver for which there is no more room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SlowPolicy {
    /// It loses the oldest messages, and is told how many with the next it gets: [`Received::missed`].
    #[default]
    DropOldest,
    /// It loses all that waits and is told so: [`FanoutEnded::TooSlow`].
    Disconnect,
}

/// Limits of a [`Fanout`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FanoutConfig {
    /// Messages that may wait for one receiver. Default: [`FANOUT_MESSAGES`].
    pub messages: usize,
    /// Bytes that may wait for one receiver; a larger message is let in alone. Default: [`FANOUT_BYTES`].
    pub bytes: usize,
    /// What happens beyond that. Default: [`SlowPolicy::DropOldest`].
    pub policy: SlowPolicy,
    /// Receivers at once. Default: [`FANOUT_RECEIVERS`].
    pub receivers: usize,
    /// Topics of one receiver. Default: [`FANOUT_TOPICS`].
    pub topics: usize,
}

impl Default for FanoutConfig {
    fn default() -> Self {
        Self {
            messages: FANOUT_MESSAGES,
            bytes: FANOUT_BYTES,
            policy: SlowPolicy::default(),
            receivers: FANOUT_RECEIVERS,
            topics: FANOUT_TOPICS,
        }
    }
}

impl FanoutConfig {
    /// With `messages` waiting at most, one at least.
    #[must_use]
    pub fn messages(mut self, messages: usize) -> Self {
        self.messages = messages;
        self
    }

    /// With `bytes` waiting at most.
    #[must_use]
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// With another policy.
    #[must_use]
    pub fn policy(mut self, policy: SlowPolicy) -> Self {
        self.policy = policy;
        self
    }
}

/// There are as many receivers, or topics of one, as the limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are {limit} already, as many as are allowed")]
pub struct TooMany {
    /// The limit.
    pub limit: usize,
}

/// Why a receiver gets nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FanoutEnded {
    /// Nobody will send any more; everything before was received.
    #[error("the fan-out is closed")]
    Closed,
    /// The receiver did not keep up, and what waited for it is lost.
    #[error("too slow: {messages} messages of {bytes} bytes in all were waiting")]
    TooSlow {
        /// Messages that waited.
        messages: usize,
        /// Their bytes.
        bytes: usize,
    },
}

/// One message for a receiver.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Received {
    /// The bytes, which are those of every other receiver.
    pub frame: Frame,
    /// As what it was sent.
    pub kind: Kind,
    /// Messages lost between the last one and this.
    pub missed: u64,
}

/// What one message did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Receivers that will get it.
    pub receivers: usize,
    /// Older messages that made room for it.
    pub dropped: u64,
    /// Receivers that were disconnected.
    pub disconnected: usize,
}

/// Gives messages to many receivers. Clones are handles to the same; when the last is gone, the receivers get what waits
/// for them and then [`FanoutEnded::Closed`].
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use framewire::{Frame, gateway::{Fanout, FanoutConfig}};
///
/// let fanout = Fanout::new(FanoutConfig::default());
/// let mut news = fanout.subscribe()?;
/// news.add_topic("weather")?;
/// let message = Frame::from_static(b"{\"rain\":true}");
/// assert_eq!(fanout.publish("weather", &message).receivers, 1);
/// assert_eq!(fanout.broadcast(&message).receivers, 1);
/// assert_eq!(news.receive().await?.frame, message);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Fanout {
    shared: Arc<Shared>,
}

struct Shared {
    config: FanoutConfig,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    next: u64,
    /// Everybody, and those of each topic, by number.
    all: Vec<Member>,
    topics: HashMap<Box<str>, Vec<Member>>,
    /// Memory that is used again: who is to be woken, and what is to be dropped, once nothing is locked.
    woken: Vec<Waker>,
    dropped: Vec<Frame>,
}

#[derive(Clone)]
struct Member {
    number: u64,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Kind, Frame)>,
    bytes: usize,
    missed: u64,
    ended: Option<FanoutEnded>,
    waker: Option<Waker>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    fn pop(&mut self) -> Option<(Kind, Frame)> {
        let first = self.waiting.pop_front()?;
        self.bytes -= first.1.len();
        Some(first)
    }

    fn is_full_for(&self, size: usize, config: &FanoutConfig) -> bool {
        !self.waiting.is_empty()
            && (self.waiting.len() >= config.messages || self.bytes.saturating_add(size) > config.bytes)
    }
}

impl Fanout {
    /// One with no receivers yet.
    #[must_use]
    pub fn new(config: FanoutConfig) -> Self {
        Self { shared: Arc::new(Shared { config, members: Mutex::default() }) }
    }

    /// A new receiver: of what is for all, and of the topics that it adds.
    ///
    /// # Errors
    /// When there are as many as [`FanoutConfig::receivers`] allows.
    pub fn subscribe(&self) -> Result<Subscription, TooMany> {
        let mut members = lock(&self.shared.members);
        let limit = self.shared.config.receivers;
        if members.all.len() >= limit {
            return Err(TooMany { limit });
        }
        let member = Member { number: members.next, queue: Arc::default() };
        members.next += 1;
        members.all.push(member.clone());
        Ok(Subscription { shared: Arc::downgrade(&self.shared), member, topics: Vec::new() })
    }

    /// Gives a message to those who have added `topic`. Waits for nobody and copies no bytes.
    pub fn publish(&self, topic: &str, frame: &Frame) -> Published {
        self.give(Some(topic), Kind::Text, frame)
    }

    /// As [`publish`](Self::publish), as a message of `kind`.
    pub fn publish_as(&self, kind: Kind, topic: &str, frame: &Frame) -> Published {
        self.give(Some(topic), kind, frame)
    }

    /// Gives a message to all. Waits for nobody and copies no bytes.
    pub fn broadcast(&self, frame: &Frame) -> Published {
        self.give(None, Kind::Text, frame)
    }

    /// As [`broadcast`](Self::broadcast), as a message of `kind`.
    pub fn broadcast_as(&self, kind: Kind, frame: &Frame) -> Published {
        self.give(None, kind, frame)
    }

    /// How many receivers there are.
    #[must_use]
    pub fn receivers(&self) -> usize {
        lock(&self.shared.members).all.len()
    }

    /// Ends all receivers once they have got what waits for them. New ones may come.
    pub fn close(&self) {
        let mut members = lock(&self.shared.members);
        let all = std::mem::take(&mut members.all);
        members.topics.clear();
        drop(members);
        end(&all);
    }

    fn give(&self, topic: Option<&str>, kind: Kind, frame: &Frame) -> Published {
        let mut guard = lock(&self.shared.members);
        let members = &mut *guard;
        let (mut woken, mut dropped) =
            (std::mem::take(&mut members.woken), std::mem::take(&mut members.dropped));
        let mut published = Published::default();
        let receivers = match topic {
            None => Some(&mut members.all),
            Some(topic) => members.topics.get_mut(topic),
        };
        if let Some(receivers) = receivers {
            let config = &self.shared.config;
            receivers.retain(|member| {
                let mut queue = lock(&member.queue);
                push(&mut queue, kind, frame, config, &mut published, &mut dropped);
                woken.extend(queue.waker.take());
                queue.ended.is_none()
            });
        }
        drop(guard);
        // Not while anything is locked: both may run a caller's code.
        woken.drain(..).for_each(Waker::wake);
        dropped.clear();
        let mut members = lock(&self.shared.members);
        if members.woken.capacity() < woken.capacity() {
            members.woken = woken;
        }
        if members.dropped.capacity() < dropped.capacity() {
            members.dropped = dropped;
        }
        published
    }
}

fn push(
    queue: &mut Queue,
    kind: Kind,
    frame: &Frame,
    config: &FanoutConfig,
    published: &mut Published,
    dropped: &mut Vec<Frame>,
) {
    if queue.ended.is_some() {
        return;
    }
    if queue.is_full_for(frame.len(), config) {
        match config.policy {
            SlowPolicy::DropOldest => {
                while queue.is_full_for(frame.len(), config) {
                    dropped.extend(queue.pop().map(|(_, frame)| frame));
                    queue.missed += 1;
                    published.dropped += 1;
                }
            }
            SlowPolicy::Disconnect => {
                let (messages, bytes) = (queue.waiting.len(), queue.bytes);
                queue.ended = Some(FanoutEnded::TooSlow { messages, bytes });
                dropped.extend(std::mem::take(&mut queue.waiting).into_iter().map(|(_, frame)| frame));
                queue.bytes = 0;
                published.disconnected += 1;
                return;
            }
        }
    }
    queue.bytes += frame.len();
    queue.waiting.push_back((kind, frame.clone()));
    published.receivers += 1;
}

fn end(members: &[Member]) {
    for member in members {
        let mut queue = lock(&member.queue);
        queue.ended.get_or_insert(FanoutEnded::Closed);
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        end(&self.members.get_mut().unwrap_or_else(PoisonError::into_inner).all);
    }
}

impl fmt::Debug for Fanout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fanout").field("receivers", &self.receivers()).finish_non_exhaustive()
    }
}

/// One receiver of a [`Fanout`]. Leaves when it is dropped.
pub struct Subscription {
    shared: Weak<Shared>,
    member: Member,
    topics: Vec<Box<str>>,
}

impl Subscription {
    /// Receives what is for `topic` too, from now on. A second time does nothing.
    ///
    /// # Errors
    /// When it has as many as [`FanoutConfig::topics`] allows.
    pub fn add_topic(&mut self, topic: &str) -> Result<(), TooMany> {
        let Some(shared) = self.shared.upgrade() else { return Ok(()) };
        if self.topics.iter().any(|own| **own == *topic) {
            return Ok(());
        }
        let limit = shared.config.topics;
        if self.topics.len() >= limit {
            return Err(TooMany { limit });
        }
        self.topics.push(topic.into());
        let mut members = lock(&shared.members);
        if lock(&self.member.queue).ended.is_none() {
            members.topics.entry(topic.into()).or_default().push(self.member.clone());
        }
        Ok(())
    }

    /// Receives what is for `topic` no more. What waits already still comes.
    pub fn remove_topic(&mut self, topic: &str) {
        let Some(at) = self.topics.iter().position(|own| **own == *topic) else { return };
        self.topics.swap_remove(at);
        if let Some(shared) = self.shared.upgrade() {
            leave(&mut lock(&shared.members), topic, self.member.number);
        }
    }

    /// Polls for the next message.
    ///
    /// # Errors
    /// When there will be none.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, FanoutEnded>> {
        let mut queue = lock(&self.member.queue);
        if let Some((kind, frame)) = queue.pop() {
            let missed = std::mem::take(&mut queue.missed);
            return Poll::Ready(Ok(Received { frame, kind, missed }));
        }
        match queue.ended {
            Some(ended) => Poll::Ready(Err(ended)),
            None => wait(&mut queue, cx),
        }
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// When there will be none.
    ///
    /// # Cancel safety
    /// Safe: a message is taken only when it is returned.
    pub fn receive(&mut self) -> impl Future<Output = Result<Received, FanoutEnded>> + Send {
        poll_fn(|cx| self.poll_receive(cx))
    }

    /// Waits until the receiver is ended: by being too slow, or because all is closed. For who is busy with the last
    /// message. Those that wait are not touched.
    ///
    /// # Cancel safety
    /// Safe.
    pub fn ended(&mut self) -> impl Future<Output = FanoutEnded> + Send {
        poll_fn(|cx| {
            let mut queue = lock(&self.member.queue);
            match queue.ended {
                Some(ended) => Poll::Ready(ended),
                None => wait(&mut queue, cx),
            }
        })
    }

    /// Messages that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.member.queue).waiting.len()
    }
}

fn wait<T>(queue: &mut Queue, cx: &Context<'_>) -> Poll<T> {
    match &mut queue.waker {
        Some(waker) => waker.clone_from(cx.waker()),
        waker => *waker = Some(cx.waker().clone()),
    }
    Poll::Pending
}

fn leave(members: &mut Members, topic: &str, number: u64) {
    if let Some(receivers) = members.topics.get_mut(topic) {
        receivers.retain(|member| member.number != number);
        if receivers.is_empty() {
            members.topics.remove(topic);
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut members = lock(&shared.members);
        for topic in &self.topics {
            leave(&mut members, topic, self.member.number);
        }
        // In order of their numbers.
        if let Ok(at) = members.all.binary_search_by_key(&self.member.number, |member| member.number) {
            members.all.remove(at);
        }
        drop(members);
        // It may hold the last frames of a caller's own buffer, and a publisher may still know it.
        let mut queue = lock(&self.member.queue);
        queue.ended.get_or_insert(FanoutEnded::Closed);
        let waiting = std::mem::take(&mut queue.waiting);
        queue.bytes = 0;
        drop(queue);
        drop(waiting);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("topics", &self.topics)
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}
