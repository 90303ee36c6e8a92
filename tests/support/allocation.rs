//! A global allocator that counts, for tests that say how often the heap is asked. Counts are of the calling thread.
//! Use it as `#[path = "support/allocation.rs"] mod allocation;`.
#![allow(dead_code, unreachable_pub)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
    static LIVE: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(size: usize) {
    COUNT.with(|cell| cell.set(cell.get() + 1));
    BYTES.with(|cell| cell.set(cell.get() + size));
    LIVE.with(|cell| cell.set(cell.get().wrapping_add(size)));
}

fn uncount(size: usize) {
    LIVE.with(|cell| cell.set(cell.get().wrapping_sub(size)));
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        uncount(layout.size());
        count(size);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        uncount(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(memory, layout) };
    }
}

/// Runs `work` and returns its result with how many times this thread asked for memory, and for how many bytes.
pub fn counted<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = (COUNT.get(), BYTES.get());
    let result = work();
    (result, COUNT.get() - before.0, BYTES.get() - before.1)
}

/// How many times this thread has asked for memory.
pub fn calls() -> usize {
    COUNT.get()
}

/// Bytes that this thread has asked for and not given back; of meaning only as a difference.
pub fn live() -> usize {
    LIVE.get()
}
