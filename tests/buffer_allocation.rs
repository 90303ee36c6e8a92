//! What the pool asks of the heap: nothing, once it is warm.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "support/allocation.rs"]
mod allocation;

use std::collections::VecDeque;

use allocation::counted;
use framewire::{Frame, buffer::BufferManager};

#[test]
fn acquire_and_release_allocate_nothing() {
    let manager = BufferManager::default();
    drop((manager.try_acquire_read_buffer(), manager.try_acquire_write_buffer(), manager.try_window(100)));
    let ((), count, _) = counted(|| {
        for _ in 0..10_000 {
            drop(manager.try_acquire_read_buffer().unwrap());
            drop(manager.try_acquire_write_buffer().unwrap());
            drop(manager.try_window(100).unwrap());
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn holding_the_last_64_frames_allocates_nothing() {
    for size in [10, 1000, 16 << 10, 100 << 10, 1 << 20] {
        let manager = BufferManager::default();
        let mut held = VecDeque::with_capacity(65);
        let mut receive = || {
            let mut window = manager.try_window(size + 64).unwrap();
            window.spare()[..8].fill(7);
            window.advance(size + 1);
            held.push_back(Frame::cut(&mut window, 0..size, size + 1));
            if held.len() > 64 {
                drop(held.pop_front());
            }
        };
        (0..200).for_each(|_| receive());
        let ((), count, _) = counted(|| (0..2000).for_each(|_| receive()));
        assert_eq!(count, 0, "{size} bytes");
    }
}

#[test]
fn batches_of_64_frames_allocate_nothing() {
    let manager = BufferManager::default();
    let mut held = Vec::with_capacity(64);
    let mut batch = || {
        for _ in 0..64 {
            let mut window = manager.try_window(1 << 20).unwrap();
            window.advance(1 << 20);
            held.push(Frame::cut(&mut window, 0..1 << 20, 1 << 20));
        }
        held.clear();
    };
    (0..4).for_each(|_| batch());
    let ((), count, _) = counted(|| (0..100).for_each(|_| batch()));
    assert_eq!(count, 0);
}

#[test]
fn a_frame_becomes_bytes_and_back_with_one_small_allocation_each() {
    let manager = BufferManager::default();
    let mut window = manager.try_window(1 << 20).unwrap();
    window.advance(1 << 20);
    let frame = Frame::cut(&mut window, 0..1 << 20, 1 << 20);
    let (bytes, count, size) = counted(|| bytes::Bytes::from(frame));
    assert_eq!(count, 1);
    assert!(size <= 128, "{size}");
    let (_, count, size) = counted(|| Frame::from(bytes));
    assert_eq!(count, 1);
    assert!(size <= 128, "{size}");
}
