//! The pool of buffers: what it promises, and the defects of earlier ones.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "link")]

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use framewire::{
    Frame,
    buffer::{BufferConfig, BufferManager, PooledBuffer, StreamingBuffer, Waiter, Window},
    transport::TransportError,
};

const KIB: usize = 1024;

/// A pool that may hold `buffers` read buffers of 64 KiB and lends `threshold` of them before one has to wait.
fn pool_of(buffers: usize, threshold: f64) -> BufferManager {
    BufferManager::new(BufferConfig {
        max_bytes: buffers * 64 * KIB,
        backpressure_threshold: threshold,
        acquire_timeout_ms: 20,
        ..Default::default()
    })
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// One hand-polled waiter.
struct Task {
    wakes: Arc<Count>,
    waker: Waker,
    waiter: Waiter,
}

impl Task {
    fn new() -> Self {
        let wakes = Arc::<Count>::default();
        Self { waker: Waker::from(wakes.clone()), wakes, waiter: Waiter::new() }
    }

    fn poll(&mut self, manager: &BufferManager) -> Poll<Result<PooledBuffer, TransportError>> {
        manager.poll_read_buffer(&Context::from_waker(&self.waker), &mut self.waiter)
    }

    fn take(&mut self, manager: &BufferManager) -> Option<PooledBuffer> {
        match self.poll(manager) {
            Poll::Ready(buffer) => Some(buffer.unwrap()),
            Poll::Pending => None,
        }
    }
}

#[tokio::test]
async fn d22_permit_is_held_while_the_buffer_lives() {
    let manager = pool_of(4, 0.5);
    let first = manager.acquire_read_buffer().await.unwrap();
    let _second = manager.acquire_write_buffer().await.unwrap();
    let refused = manager.acquire_read_buffer().await.unwrap_err();
    assert!(matches!(refused, TransportError::Timeout { duration_ms: 20 }), "{refused}");
    drop(first);
    manager.acquire_read_buffer().await.unwrap();
}

#[tokio::test]
async fn d22_five_hundred_requests_do_not_get_five_hundred_buffers() {
    let manager = BufferManager::new(BufferConfig {
        max_bytes: 10 * 64 * KIB,
        acquire_timeout_ms: 5,
        pool_size: 2,
        ..Default::default()
    });
    let mut held = Vec::new();
    for _ in 0..500 {
        if let Some(buffer) = manager.try_acquire_read_buffer() {
            held.push(buffer);
        }
    }
    assert_eq!(held.len(), 10);
    let rate = manager.metrics().acquisition_success_rate();
    assert!((rate - 0.02).abs() < 1e-9, "{rate}");
    drop(held);
    assert_eq!(manager.get_zero_copy_metrics().current_pool_size, 2);
    assert!(manager.metrics().pooled_bytes() <= 2 * 64 * KIB);
}

#[test]
fn d22_a_grown_buffer_does_not_bloat_the_pool() {
    let manager = pool_of(100, 1.0);
    for grow in [PooledBuffer::reserve, |buffer: &mut PooledBuffer, size| buffer.as_vec_mut().reserve(size)] {
        let mut buffer = manager.try_acquire_read_buffer().unwrap();
        grow(&mut buffer, 2 << 20);
        assert!(buffer.capacity() >= 2 << 20);
        buffer.clear();
        assert!(manager.metrics().lent_bytes() >= 2 << 20, "growth is counted");
        drop(buffer);
        assert_eq!(manager.metrics().allocated_bytes(), 0);
    }
    let mut buffer = manager.try_acquire_read_buffer().unwrap();
    drop(std::mem::take(buffer.as_vec_mut()));
    drop(buffer);
    assert_eq!(
        manager.metrics().allocated_bytes(),
        0,
        "a buffer whose vector was taken away is not lent again"
    );
    assert_eq!(manager.try_acquire_read_buffer().unwrap().capacity(), 64 * KIB);
}

#[test]
fn d22_a_manager_allocates_nothing_up_front() {
    assert_eq!(BufferManager::default().metrics().allocated_bytes(), 0);
}

#[tokio::test]
async fn d23_a_threshold_below_one_buffer_still_lends_one_at_a_time() {
    for threshold in [0.0, -1.0, f64::MIN_POSITIVE, 0.001] {
        let manager = pool_of(4, threshold);
        let held = manager.acquire_read_buffer().await.unwrap();
        assert!(matches!(manager.acquire_read_buffer().await, Err(TransportError::Timeout { .. })));
        drop(held);
        manager.acquire_write_buffer().await.unwrap();
    }
}

#[test]
fn d23_hits_misses_and_utilisation_are_true() {
    let manager = pool_of(100, 1.0);
    let held: Vec<_> = (0..5).map(|_| manager.try_acquire_read_buffer().unwrap()).collect();
    drop(held);
    for _ in 0..45 {
        drop(manager.try_acquire_read_buffer().unwrap());
    }
    let metrics = manager.get_zero_copy_metrics();
    assert_eq!((metrics.buffer_pool_hits, metrics.buffer_pool_misses), (45, 5));
    assert!((metrics.buffer_pool_hit_ratio() - 0.9).abs() < 1e-9);
    assert!(metrics.is_pool_efficient());
    assert_eq!((metrics.current_pool_size, metrics.max_pool_size), (5, 20));
    assert!((metrics.pool_utilization() - 25.0).abs() < 1e-9);
    let live = manager.metrics();
    assert_eq!(live.buffer_hits.load(Ordering::Relaxed), 45);
    assert_eq!(live.buffer_misses.load(Ordering::Relaxed), 5);
    assert_eq!((live.lent_bytes(), live.pooled_bytes()), (0, 5 * 64 * KIB));
    assert!((live.acquisition_success_rate() - 1.0).abs() < 1e-9);
}

#[test]
fn d24_an_acquired_buffer_is_the_pooled_one() {
    let manager = BufferManager::default();
    let mut buffer = manager.try_acquire_read_buffer().unwrap();
    buffer.extend_from_slice(b"left over");
    let place = buffer.as_ptr();
    drop(buffer);
    let again = manager.try_acquire_read_buffer().unwrap();
    assert_eq!(again.as_ptr(), place);
    assert!(again.is_empty(), "cleared");
    assert_eq!(again.capacity(), 64 * KIB);
}

#[test]
fn d25_consumed_bytes_do_not_count_against_the_capacity() {
    let mut buffer = StreamingBuffer::new(128, b'\n');
    for round in 0..1000 {
        let message = vec![b'a' + (round % 26) as u8; 100];
        buffer.extend(&message).unwrap();
        buffer.extend(b"\r\n").unwrap();
        assert_eq!(buffer.extract_message().unwrap(), message);
        assert!(!buffer.has_pending_data());
    }
}

#[test]
fn d25_a_message_of_the_whole_capacity_fits_and_one_byte_more_loses_nothing() {
    let mut buffer = StreamingBuffer::new(10, b'\n');
    buffer.extend(b"123456789\n").unwrap();
    let refused = buffer.extend(b"x").unwrap_err();
    assert!(matches!(refused, TransportError::BufferOverflow { .. }));
    assert_eq!(buffer.pending_bytes(), 10);
    assert_eq!(buffer.next_message().unwrap(), b"123456789");
    buffer.extend(b"x").unwrap();
    assert_eq!(buffer.extract_message(), None);
    assert_eq!(buffer.extract_rest().unwrap(), b"x", "an unterminated last message is not lost");
    assert_eq!(buffer.extract_rest(), None);
}

#[test]
fn d25_all_cuts_of_a_stream_give_the_same_messages() {
    let stream = b"one\r\n\ntwo\r\rthree\nfour\rx\nlast";
    let want: Vec<&[u8]> = vec![b"one", b"", b"two\r\rthree", b"four\rx"];
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let mut buffer = StreamingBuffer::new(64, b'\n');
            let mut got = Vec::new();
            for part in [&stream[..first], &stream[first..second], &stream[second..]] {
                buffer.extend(part).unwrap();
                while let Some(message) = buffer.extract_message() {
                    got.push(message);
                }
            }
            assert_eq!(got, want);
            assert_eq!(buffer.pending_bytes(), 4);
        }
    }
}

#[test]
fn exactly_the_cap_is_lent_and_not_one_byte_more() {
    let config = BufferConfig::default();
    let one = BufferManager::new(config.clone());
    let window = one.try_window(64 * KIB).unwrap();
    let footprint = one.metrics().lent_bytes();
    assert!(footprint >= window.capacity() + 64);
    for (max_bytes, count) in [(footprint * 3 - 1, 2), (footprint * 3, 3), (footprint * 3 + 1, 3)] {
        let manager = BufferManager::new(BufferConfig { max_bytes, ..config.clone() });
        let held: Vec<Window> = std::iter::from_fn(|| manager.try_window(64 * KIB)).collect();
        assert_eq!(held.len(), count);
        assert!(manager.metrics().allocated_bytes() <= max_bytes);
    }
}

#[test]
fn idle_bytes_make_room_for_another_size() {
    let manager = pool_of(5, 1.0);
    drop(std::iter::from_fn(|| manager.try_acquire_read_buffer()).collect::<Vec<_>>());
    assert_eq!(manager.metrics().pooled_bytes(), 5 * 64 * KIB);
    let window = manager.try_window(256 * KIB).unwrap();
    assert_eq!(window.capacity(), 256 * KIB);
    assert!(manager.metrics().allocated_bytes() <= 5 * 64 * KIB);
}

#[test]
fn oversized_blocks_are_counted_and_freed() {
    let manager = BufferManager::new(BufferConfig { max_bytes: 80 << 20, ..Default::default() });
    let window = manager.try_window(70 << 20).unwrap();
    assert_eq!(window.capacity(), 70 << 20);
    assert!(manager.try_window(70 << 20).is_none());
    drop(window);
    assert_eq!(manager.metrics().allocated_bytes(), 0);
}

#[tokio::test]
async fn more_than_the_whole_pool_is_refused_at_once() {
    let manager = pool_of(1, 0.8);
    assert!(matches!(manager.window(80 * KIB).await, Err(TransportError::BufferOverflow { .. })));
    let manager = BufferManager::new(BufferConfig { max_bytes: 10, ..Default::default() });
    assert!(matches!(manager.acquire_read_buffer().await, Err(TransportError::BufferOverflow { .. })));
}

#[test]
fn waiters_are_served_in_the_order_in_which_they_came() {
    let manager = pool_of(1, 1.0);
    let held = manager.try_acquire_read_buffer().unwrap();
    let mut tasks: Vec<Task> = (0..4).map(|_| Task::new()).collect();
    for task in &mut tasks {
        assert!(task.take(&manager).is_none());
    }
    assert_eq!(manager.metrics().waits(), 4);
    let mut held = Some(held);
    for at in 0..tasks.len() {
        drop(held.take());
        assert_eq!(tasks[at].wakes.get(), 1);
        assert!(tasks[at + 1..].iter().all(|task| task.wakes.get() == 0), "one wake-up for one buffer");
        assert!(at + 1 == tasks.len() || manager.try_acquire_read_buffer().is_none(), "no pushing in");
        held = tasks[at].take(&manager);
        assert!(held.is_some());
        if let Some(next) = tasks.get_mut(at + 1) {
            // The one who was served said so to the next, who finds nothing and sleeps on.
            assert!(next.take(&manager).is_none());
            next.wakes.0.store(0, Ordering::SeqCst);
        }
    }
}

#[test]
fn a_dropped_waiter_hands_its_wake_up_on() {
    let manager = pool_of(1, 1.0);
    let held = manager.try_acquire_read_buffer().unwrap();
    let mut tasks: Vec<Task> = (0..3).map(|_| Task::new()).collect();
    for task in &mut tasks {
        assert!(task.take(&manager).is_none());
    }
    drop(held);
    assert_eq!(tasks[0].wakes.get(), 1);
    drop(tasks.remove(0));
    assert_eq!(tasks[0].wakes.get(), 1);
    tasks[0].waiter.cancel();
    assert!(!tasks[0].waiter.is_waiting());
    assert_eq!(tasks[1].wakes.get(), 1);
    assert!(tasks[1].take(&manager).is_some());
}

/// Every interleaving of "poll", "drop the waiter" and "give the buffer back" for two waiters: whoever is left is
/// woken and served.
#[test]
fn waiters_cancelled_at_every_poll_lose_nothing() {
    for polls_before in 0..3 {
        for polls_after in 0..3 {
            for first_goes in [true, false] {
                let manager = pool_of(1, 1.0);
                let held = manager.try_acquire_read_buffer().unwrap();
                let (mut one, mut two) = (Task::new(), Task::new());
                for _ in 0..=polls_before {
                    assert!(one.take(&manager).is_none());
                }
                assert!(two.take(&manager).is_none());
                drop(held);
                let mut got = None;
                for _ in 0..polls_after {
                    got = got.or_else(|| one.take(&manager));
                }
                if first_goes {
                    drop((one, got));
                    assert!(two.wakes.get() >= 1);
                    assert!(two.take(&manager).is_some());
                } else {
                    drop(two);
                    drop(got);
                    assert!(one.wakes.get() >= 1);
                    assert!(one.take(&manager).is_some());
                }
                // Nobody waits any more: the common path is open again.
                assert!(manager.try_acquire_read_buffer().is_some());
                assert_eq!(manager.metrics().lent_bytes(), 0);
            }
        }
    }
}

#[tokio::test]
async fn a_cancelled_acquire_gives_up_its_place() {
    let manager = pool_of(1, 1.0);
    let held = manager.acquire_read_buffer().await.unwrap();
    for _ in 0..10 {
        let wait = manager.acquire_read_buffer();
        assert!(tokio::time::timeout(Duration::from_millis(1), wait).await.is_err());
    }
    assert_eq!(manager.metrics().timeouts(), 0, "cancelled is not timed out");
    drop(held);
    assert!(manager.try_acquire_read_buffer().is_some());
}

/// A `BytesMut` that came back stood in the books as lent: it woke nobody, was never evicted, and kept its room for good.
#[tokio::test]
async fn d24_an_acquired_buffer_that_comes_back_makes_room() {
    let manager = BufferManager::new(BufferConfig {
        max_bytes: 64 * KIB,
        backpressure_threshold: 1.0,
        acquire_timeout_ms: 60_000,
        ..Default::default()
    });
    let held = manager.acquire_buffer().await.unwrap();
    assert!(manager.try_acquire_buffer().is_none());
    let mut same = Box::pin(manager.acquire_buffer());
    let mut other = Box::pin(manager.acquire_read_buffer());
    assert!(same.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert!(other.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(held);
    assert!(manager.try_acquire_buffer().is_none(), "those who wait come first");
    let Poll::Ready(got) = same.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("nobody was woken")
    };
    drop(got.unwrap());
    let Poll::Ready(got) = other.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("nobody was woken")
    };
    drop(got.unwrap());
    drop(manager.try_acquire_buffer().unwrap());
    let metrics = manager.metrics();
    assert_eq!((metrics.lent_bytes(), metrics.pooled_bytes()), (0, 64 * KIB));
    assert_eq!((metrics.acquired(), metrics.misses(), metrics.refusals()), (4, 3, 2));
    manager.trim();
    assert_eq!(metrics.allocated_bytes(), 0);
    manager.close();
    assert!(manager.try_acquire_buffer().is_none());
    assert!(matches!(manager.acquire_buffer().await, Err(TransportError::Closed)));
}

#[tokio::test]
async fn metrics_count_waits_and_timeouts() {
    let manager = pool_of(1, 1.0);
    let held = manager.acquire_read_buffer().await.unwrap();
    assert!(manager.acquire_read_buffer().await.is_err());
    assert!(manager.acquire_write_buffer().await.is_err());
    drop(held);
    let metrics = manager.metrics();
    assert_eq!((metrics.acquired(), metrics.waits(), metrics.timeouts(), metrics.refusals()), (1, 2, 2, 0));
    manager.record_zero_copy_send(64 * KIB).await;
    manager.record_zero_copy_receive(32 * KIB).await;
    let zero_copy = manager.get_zero_copy_metrics();
    assert_eq!((zero_copy.zero_copy_sends, zero_copy.zero_copy_receives), (1, 1));
    assert_eq!(zero_copy.total_bytes_processed, 96 * 1024);
    assert!((zero_copy.average_buffer_utilization - 0.75).abs() < 1e-9);
}

#[test]
fn a_message_of_the_maximum_passes_and_one_byte_more_does_not() {
    let manager = BufferManager::new(BufferConfig { max_message_size: 10, ..Default::default() });
    manager.validate_message_size(10).unwrap();
    let refused = manager.validate_message_size(11).unwrap_err();
    assert_eq!(refused.to_string(), "buffer overflow: Message size 11 exceeds maximum 10");
    assert_eq!(manager.metrics().size_violations(), 1);
}

#[tokio::test]
async fn a_closed_manager_tells_those_who_wait_and_those_who_come() {
    let manager = pool_of(1, 1.0);
    let held = manager.acquire_read_buffer().await.unwrap();
    let mut task = Task::new();
    assert!(task.take(&manager).is_none());
    manager.close();
    assert_eq!(task.wakes.get(), 1);
    assert!(matches!(task.poll(&manager), Poll::Ready(Err(TransportError::Closed))));
    assert!(matches!(manager.acquire_read_buffer().await, Err(TransportError::Closed)));
    assert!(manager.try_window(1).is_none());
    drop(held);
    assert_eq!(manager.metrics().allocated_bytes(), 0, "what comes back to a closed pool is freed");
}

#[test]
fn what_is_lent_outlives_the_manager() {
    let manager = BufferManager::default();
    let metrics = manager.metrics();
    let mut window = manager.try_window(100).unwrap();
    assert!(window.extend(b"hello"));
    let frame = Frame::cut(&mut window, 0..5, 5);
    let buffer = manager.try_acquire_read_buffer().unwrap();
    drop(manager.try_window(100_000).unwrap());
    drop(manager);
    assert_eq!(metrics.pooled_bytes(), 0, "idle bytes went with the manager");
    drop((window, buffer));
    assert_eq!(frame, "hello");
    thread::spawn(move || drop(frame)).join().unwrap();
    assert_eq!(metrics.allocated_bytes(), 0);
}

#[test]
fn shrinks_after_a_burst() {
    let manager = BufferManager::default();
    drop((0..60).map(|_| manager.try_window(1 << 20).unwrap()).collect::<Vec<_>>());
    let after_burst = manager.metrics().pooled_bytes();
    assert!(after_burst > 60 << 20);
    for _ in 0..100_000 {
        drop(manager.try_window(64 * KIB).unwrap());
    }
    let later = manager.metrics().pooled_bytes();
    assert!(later < 1 << 20, "{later} of {after_burst} bytes are still idle");
    manager.trim();
    assert_eq!(manager.metrics().allocated_bytes(), 0);
}

#[test]
fn threads_hammering_keep_the_cap_and_the_books() {
    let manager = BufferManager::new(BufferConfig { max_bytes: 2 << 20, ..Default::default() });
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        for seed in 0..4_usize {
            let (manager, barrier) = (&manager, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let mut held = Vec::new();
                for round in 0..20_000 {
                    let size = [100, 10 * KIB, 60 * KIB, 200 * KIB][(round * 7 + seed) % 4];
                    if let Some(mut window) = manager.try_window(size) {
                        let mark = (round + seed) as u8;
                        window.spare()[..16].fill(mark);
                        window.advance(16);
                        held.push((mark, Frame::cut(&mut window, 0..16, 16)));
                    }
                    if held.len() > round % 13 {
                        let (mark, frame) = held.swap_remove(round % held.len());
                        assert!(frame.iter().all(|&byte| byte == mark));
                    }
                    if round % 64 == 0 {
                        assert!(manager.metrics().allocated_bytes() <= 2 << 20);
                    }
                }
            });
        }
    });
    let metrics = manager.metrics();
    assert_eq!(metrics.lent_bytes(), 0);
    assert_eq!(metrics.acquired() + metrics.refusals(), 80_000);
    manager.trim();
    assert_eq!(metrics.allocated_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_few_buffers_and_nobody_is_forgotten() {
    let manager = BufferManager::new(BufferConfig {
        max_bytes: 3 * 64 * KIB,
        backpressure_threshold: 1.0,
        acquire_timeout_ms: 60_000,
        ..Default::default()
    });
    let tasks: Vec<_> = (0..32)
        .map(|seed| {
            let manager = manager.clone();
            tokio::spawn(async move {
                for round in 0..200 {
                    // Of all kinds, so that each has to make room for the others.
                    let (mut read, mut acquired, mut window) = (None, None, None);
                    match (round + seed) % 4 {
                        0 => acquired = Some(manager.acquire_buffer().await.unwrap()),
                        1 => window = Some(manager.window(30 * KIB).await.unwrap()),
                        _ => read = Some(manager.acquire_read_buffer().await.unwrap()),
                    }
                    if (round + seed) % 3 == 0 {
                        tokio::task::yield_now().await;
                    }
                    read.iter_mut().for_each(|buffer| buffer.extend_from_slice(b"x"));
                    acquired.iter_mut().for_each(|buffer| buffer.extend_from_slice(b"x"));
                    window.iter_mut().for_each(|window| assert!(window.extend(b"x")));
                }
            })
        })
        .collect();
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(60), task).await.expect("nobody is forgotten").unwrap();
    }
    assert_eq!(manager.metrics().acquired(), 32 * 200);
    assert_eq!(manager.metrics().lent_bytes(), 0);
}
