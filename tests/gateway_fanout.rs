//! Fan-out: who gets what, slow receivers, the same bytes for all, against a model and with threads.
#![cfg(feature = "link")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    collections::VecDeque,
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread,
};

use bytes::Bytes;
use framewire::{
    Frame,
    codec::Kind,
    gateway::{Fanout, FanoutConfig, FanoutEnded, Published, SlowPolicy, Subscription},
};
use proptest::{collection::vec, prelude::*};

#[path = "support/allocation.rs"]
mod allocation;

fn now(subscription: &mut Subscription) -> Option<Result<(Vec<u8>, u64), FanoutEnded>> {
    match subscription.poll_receive(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => None,
        Poll::Ready(got) => Some(got.map(|got| (got.frame.to_vec(), got.missed))),
    }
}

fn published(fanout: &Fanout, topic: Option<&str>, frame: &Frame) -> (usize, u64, usize) {
    let Published { receivers, dropped, disconnected, .. } = match topic {
        Some(topic) => fanout.publish(topic, frame),
        None => fanout.broadcast(frame),
    };
    (receivers, dropped, disconnected)
}

#[test]
fn topics_and_all() {
    let fanout = Fanout::new(FanoutConfig::default());
    let (mut a, mut b) = (fanout.subscribe().unwrap(), fanout.subscribe().unwrap());
    a.add_topic("x").unwrap();
    a.add_topic("x").unwrap();
    b.add_topic("x").unwrap();
    b.add_topic("y").unwrap();
    let say = |topic, text: &'static str| published(&fanout, topic, &Frame::from_static(text.as_bytes())).0;
    assert_eq!(say(Some("x"), "1"), 2);
    assert_eq!(say(Some("y"), "2"), 1);
    assert_eq!(say(Some("z"), "3"), 0);
    assert_eq!(say(None, "4"), 2);
    b.remove_topic("x");
    b.remove_topic("never");
    assert_eq!(say(Some("x"), "5"), 1);
    let all = |subscription: &mut Subscription| {
        std::iter::from_fn(|| now(subscription))
            .map(|got| String::from_utf8(got.unwrap().0).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(all(&mut a), ["1", "4", "5"]);
    assert_eq!(all(&mut b), ["1", "2", "4"]);
    fanout.broadcast_as(Kind::Binary, &Frame::from_static(b"6"));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(a.poll_receive(&mut cx), Poll::Ready(Ok(got)) if got.kind == Kind::Binary));
    drop(a);
    assert_eq!(fanout.receivers(), 1);
    assert_eq!(say(Some("x"), "7"), 0);
    // What was sent before the last handle went is still received.
    let other = fanout.clone();
    drop(fanout);
    other.broadcast(&Frame::from_static(b"8"));
    drop(other);
    assert_eq!(all_until_end(&mut b), ["6", "8"]);
}

fn all_until_end(subscription: &mut Subscription) -> Vec<String> {
    let mut got = Vec::new();
    loop {
        match now(subscription).expect("an end") {
            Ok((bytes, _)) => got.push(String::from_utf8(bytes).unwrap()),
            Err(ended) => {
                assert_eq!(ended, FanoutEnded::Closed);
                return got;
            }
        }
    }
}

#[test]
fn limits_are_kept() {
    let mut config = FanoutConfig::default();
    config.receivers = 2;
    config.topics = 1;
    let fanout = Fanout::new(config);
    let mut one = fanout.subscribe().unwrap();
    let _two = fanout.subscribe().unwrap();
    assert_eq!(fanout.subscribe().unwrap_err().limit, 2);
    one.add_topic("a").unwrap();
    assert_eq!(one.add_topic("b").unwrap_err().limit, 1);
    one.remove_topic("a");
    one.add_topic("b").unwrap();
    drop(one);
    assert!(fanout.subscribe().is_ok());
}

#[test]
fn the_bytes_are_the_same_for_all_and_nothing_is_allocated_for_each() {
    let fanout = Fanout::new(FanoutConfig::default());
    let mut receivers: Vec<Subscription> = (0..100).map(|_| fanout.subscribe().unwrap()).collect();
    for receiver in &mut receivers {
        receiver.add_topic("t").unwrap();
    }
    for frame in [Frame::copy_from_slice(&[7; 5000]), Frame::from(Bytes::from(vec![8; 5000]))] {
        let mut round = || {
            assert_eq!(fanout.publish("t", &frame).receivers, 100);
            for receiver in &mut receivers {
                let Poll::Ready(Ok(got)) = receiver.poll_receive(&mut Context::from_waker(Waker::noop()))
                else {
                    panic!("nothing")
                };
                assert!(std::ptr::eq(got.frame.as_ptr(), frame.as_ptr()));
                // So that there is somebody to wake next time.
                assert!(receiver.poll_receive(&mut Context::from_waker(Waker::noop())).is_pending());
            }
        };
        // The second is the first in which somebody is woken.
        (0..2).for_each(|_| round());
        let ((), calls, _) = allocation::counted(|| (0..10).for_each(|_| round()));
        assert_eq!(calls, 0);
    }
}

#[test]
fn slow_receivers_cost_no_more_than_their_limit() {
    for policy in [SlowPolicy::DropOldest, SlowPolicy::Disconnect] {
        let fanout = Fanout::new(FanoutConfig::default().messages(10).bytes(1000).policy(policy));
        let mut slow = fanout.subscribe().unwrap();
        let mut quick = fanout.subscribe().unwrap();
        let owner = Bytes::from(vec![0; 300]);
        for n in 0..1000_u64 {
            fanout.broadcast(&owner.clone().into());
            assert_eq!(now(&mut quick).unwrap().unwrap(), (vec![0; 300], 0), "{n}");
        }
        match policy {
            SlowPolicy::DropOldest => {
                assert_eq!(slow.waiting(), 3);
                assert_eq!(now(&mut slow).unwrap().unwrap().1, 997);
                assert_eq!(now(&mut slow).unwrap().unwrap().1, 0);
            }
            SlowPolicy::Disconnect => {
                assert_eq!(slow.waiting(), 0);
                assert_eq!(now(&mut slow).unwrap(), Err(FanoutEnded::TooSlow { messages: 3, bytes: 900 }));
                assert_eq!(fanout.receivers(), 1);
            }
        }
    }
}

/// Counts how often it was woken.
#[derive(Default)]
struct Count(std::sync::atomic::AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn who_waits_is_woken_and_a_wait_given_up_loses_nothing() {
    let fanout = Fanout::new(FanoutConfig::default().messages(1).policy(SlowPolicy::Disconnect));
    let mut receiver = fanout.subscribe().unwrap();
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut cx = Context::from_waker(&waker);
    let woken = || count.0.load(std::sync::atomic::Ordering::Relaxed);
    assert!(pin!(receiver.receive()).poll(&mut cx).is_pending());
    fanout.broadcast(&Frame::from_static(b"1"));
    assert_eq!(woken(), 1);
    assert!(matches!(pin!(receiver.receive()).poll(&mut cx), Poll::Ready(Ok(got)) if got.frame == *b"1"));
    fanout.broadcast(&Frame::from_static(b"1"));
    assert!(pin!(receiver.ended()).poll(&mut cx).is_pending());
    assert_eq!(now(&mut receiver).unwrap().unwrap().0, b"1");
    // And of the end.
    assert!(pin!(receiver.ended()).poll(&mut cx).is_pending());
    fanout.broadcast(&Frame::from_static(b"2"));
    fanout.broadcast(&Frame::from_static(b"3"));
    let ended = FanoutEnded::TooSlow { messages: 1, bytes: 1 };
    assert!(woken() > 1);
    assert_eq!(pin!(receiver.ended()).poll(&mut cx), Poll::Ready(ended));
    let mut receiver = fanout.subscribe().unwrap();
    assert!(pin!(receiver.receive()).poll(&mut cx).is_pending());
    let before = woken();
    fanout.close();
    assert_eq!(woken(), before + 1);
    assert_eq!(now(&mut receiver).unwrap(), Err(FanoutEnded::Closed));
}

#[derive(Debug, Clone)]
enum Step {
    Publish(Option<u8>, usize),
    Receive(usize),
    Add(usize, u8),
    Remove(usize, u8),
    Leave(usize),
    Enter,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (proptest::option::of(0..3_u8), 0..40_usize).prop_map(|(topic, size)| Step::Publish(topic, size)),
        3 => (0..4_usize).prop_map(Step::Receive),
        2 => (0..4_usize, 0..3_u8).prop_map(|(who, topic)| Step::Add(who, topic)),
        1 => (0..4_usize, 0..3_u8).prop_map(|(who, topic)| Step::Remove(who, topic)),
        1 => (0..4_usize).prop_map(Step::Leave),
        1 => Just(Step::Enter),
    ]
}

#[derive(Default)]
struct Model {
    topics: Vec<u8>,
    waiting: VecDeque<Vec<u8>>,
    missed: u64,
    ended: Option<FanoutEnded>,
}

proptest! {
    #[test]
    fn does_as_a_naive_one_does(
        steps in vec(step(), 0..200),
        messages in 1..5_usize,
        bytes in 1..100_usize,
        disconnect in any::<bool>(),
    ) {
        let policy = if disconnect { SlowPolicy::Disconnect } else { SlowPolicy::DropOldest };
        let fanout = Fanout::new(FanoutConfig::default().messages(messages).bytes(bytes).policy(policy));
        let mut pairs: Vec<(Subscription, Model)> = Vec::new();
        let mut number = 0_u8;
        for step in steps {
            match step {
                Step::Enter if pairs.len() < 4 => {
                    pairs.push((fanout.subscribe().unwrap(), Model::default()));
                }
                Step::Enter => {}
                Step::Leave(who) if who < pairs.len() => drop(pairs.remove(who)),
                Step::Add(who, topic) => {
                    if let Some((subscription, model)) = pairs.get_mut(who) {
                        subscription.add_topic(&topic.to_string()).unwrap();
                        if !model.topics.contains(&topic) {
                            model.topics.push(topic);
                        }
                    }
                }
                Step::Remove(who, topic) => {
                    if let Some((subscription, model)) = pairs.get_mut(who) {
                        subscription.remove_topic(&topic.to_string());
                        model.topics.retain(|own| *own != topic);
                    }
                }
                Step::Receive(who) => {
                    if let Some((subscription, model)) = pairs.get_mut(who) {
                        let expected = match (model.waiting.pop_front(), model.ended) {
                            (Some(message), _) => Some(Ok((message, std::mem::take(&mut model.missed)))),
                            (None, Some(ended)) => Some(Err(ended)),
                            (None, None) => None,
                        };
                        prop_assert_eq!(now(subscription), expected);
                    }
                }
                Step::Publish(topic, size) => {
                    number = number.wrapping_add(1);
                    let message = vec![number; size];
                    let mut expected = (0, 0, 0);
                    for (_, model) in &mut pairs {
                        if model.ended.is_some() || topic.is_some_and(|topic| !model.topics.contains(&topic)) {
                            continue;
                        }
                        let full = |waiting: &VecDeque<Vec<u8>>| {
                            let sum: usize = waiting.iter().map(Vec::len).sum();
                            !waiting.is_empty() && (waiting.len() >= messages || sum + size > bytes)
                        };
                        if full(&model.waiting) && disconnect {
                            let sum = model.waiting.iter().map(Vec::len).sum();
                            model.ended = Some(FanoutEnded::TooSlow { messages: model.waiting.len(), bytes: sum });
                            model.waiting.clear();
                            expected.2 += 1;
                            continue;
                        }
                        while full(&model.waiting) {
                            model.waiting.pop_front();
                            model.missed += 1;
                            expected.1 += 1;
                        }
                        model.waiting.push_back(message.clone());
                        expected.0 += 1;
                    }
                    let topic = topic.map(|topic| topic.to_string());
                    let got = published(&fanout, topic.as_deref(), &Frame::copy_from_slice(&message));
                    prop_assert_eq!(got, expected);
                }
                Step::Leave(_) => {}
            }
        }
    }
}

#[test]
fn many_threads_lose_nothing_and_see_one_order_of_each_sender() {
    const SENDERS: u64 = 3;
    const RECEIVERS: usize = 3;
    const MESSAGES: u64 = 2000;
    let fanout = Fanout::new(FanoutConfig::default().messages(usize::MAX).bytes(usize::MAX));
    let receivers: Vec<_> = (0..RECEIVERS).map(|_| fanout.subscribe().unwrap()).collect();
    thread::scope(|scope| {
        for mut receiver in receivers {
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    let mut next = [0; SENDERS as usize];
                    while let Ok(got) = receiver.receive().await {
                        let number = u64::from_le_bytes(got.frame[..8].try_into().unwrap());
                        let sender = usize::from(got.frame[8]);
                        assert_eq!((number, got.missed), (next[sender], 0));
                        next[sender] += 1;
                    }
                    assert_eq!(next, [MESSAGES; SENDERS as usize]);
                });
            });
        }
        for sender in 0..SENDERS as u8 {
            let fanout = fanout.clone();
            scope.spawn(move || {
                // Some come and go meanwhile.
                for number in 0..MESSAGES {
                    let mut message = number.to_le_bytes().to_vec();
                    message.push(sender);
                    fanout.broadcast(&message.into());
                    if number % 100 == 0 {
                        let mut passing = fanout.subscribe().unwrap();
                        passing.add_topic("t").unwrap();
                        fanout.publish("t", &Frame::from_static(b"x"));
                    }
                }
            });
        }
        drop(fanout);
    });
}
