//! What a buffer costs: acquire and release against what others do, and the handles on a frame.
//!
//! `cargo bench --bench memory`. Times are per acquire and release; with two threads, of each thread.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::{
    hint::black_box,
    sync::{Barrier, Mutex},
    thread,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use framewire::{Frame, buffer::BufferManager};

const SIZE: usize = 64 * 1024;

/// Runs `operation` on two threads at once and measures the slower one.
fn on_two_threads(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, operation: impl Fn() + Sync) {
    group.bench_function(format!("{name}, 2 threads"), |bencher| {
        bencher.iter_custom(|rounds| {
            let barrier = Barrier::new(2);
            let run = || {
                barrier.wait();
                let start = Instant::now();
                (0..rounds).for_each(|_| operation());
                start.elapsed()
            };
            thread::scope(|scope| {
                let other = scope.spawn(run);
                run().max(other.join().unwrap_or(Duration::MAX))
            })
        });
    });
}

fn compare(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, operation: impl Fn() + Sync) {
    group.bench_function(name, |bencher| bencher.iter(&operation));
    on_two_threads(group, name, operation);
}

fn acquire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("acquire");
    let manager = BufferManager::default();
    compare(&mut group, "PooledBuffer", || {
        black_box(manager.try_acquire_read_buffer());
    });
    compare(&mut group, "Window", || {
        black_box(manager.try_window(SIZE));
    });
    let pool = Mutex::new(Vec::<Vec<u8>>::new());
    compare(&mut group, "Mutex<Vec<Vec<u8>>>", || {
        let buffer = pool.lock().unwrap().pop().unwrap_or_else(|| Vec::with_capacity(SIZE));
        let mut buffer = black_box(buffer);
        buffer.clear();
        pool.lock().unwrap().push(buffer);
    });
    compare(&mut group, "malloc", || {
        black_box(Vec::<u8>::with_capacity(SIZE));
    });
    compare(&mut group, "BytesMut", || {
        black_box(BytesMut::with_capacity(SIZE));
    });
    group.finish();

    // Sixteen at a time: more than a thread's own slots hold.
    let mut group = criterion.benchmark_group("acquire 16 at a time");
    group.bench_function("Window", |bencher| {
        bencher.iter(|| black_box([(); 16].map(|()| manager.try_window(SIZE))));
    });
    group.bench_function("malloc", |bencher| {
        bencher.iter(|| black_box([(); 16].map(|()| Vec::<u8>::with_capacity(SIZE))));
    });
    group.finish();
}

fn handles(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handle");
    let manager = BufferManager::default();
    let mut window = manager.try_window(SIZE).unwrap();
    window.advance(100);
    let frame = Frame::cut(&mut window, 0..100, 100);
    let bytes = Bytes::from(vec![0; 100]);
    let shared = bytes.clone();
    group.bench_function("Frame, clone and drop", |bencher| bencher.iter(|| black_box(frame.clone())));
    group.bench_function("Bytes, clone and drop", |bencher| bencher.iter(|| black_box(bytes.clone())));
    group.bench_function("Frame, slice and drop", |bencher| bencher.iter(|| black_box(frame.slice(10..20))));
    group.bench_function("Bytes, slice and drop", |bencher| bencher.iter(|| black_box(shared.slice(10..20))));
    group.bench_function("Frame, cut 64 of 1 KiB and drop", |bencher| {
        bencher.iter(|| {
            let mut window = manager.try_window(SIZE).unwrap();
            window.advance(SIZE);
            (0..64).for_each(|_| drop(black_box(Frame::cut(&mut window, 0..1024, 1024))));
        });
    });
    let mut source = BytesMut::new();
    group.bench_function("BytesMut, split 64 of 1 KiB and drop", |bencher| {
        bencher.iter(|| {
            source.resize(SIZE, 0);
            (0..64).for_each(|_| drop(black_box(source.split_to(1024).freeze())));
            source.reserve(SIZE);
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = acquire, handles
}
criterion_main!(benches);
