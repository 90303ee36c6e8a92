//! An allocator that counts what is on the heap.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// The system's allocator, counted.
pub(crate) struct Counted {
    bytes: AtomicUsize,
    blocks: AtomicUsize,
}

impl Counted {
    pub(crate) const fn new() -> Self {
        Self { bytes: AtomicUsize::new(0), blocks: AtomicUsize::new(0) }
    }

    /// Bytes asked for and not given back, without what the allocator adds.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Blocks asked for and not given back.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks.load(Relaxed)
    }
}

// SAFETY: every call goes to the system's allocator with the arguments it came with; counting touches nothing else.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.bytes.fetch_add(layout.size(), Relaxed);
        self.blocks.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.bytes.fetch_add(layout.size(), Relaxed);
        self.blocks.fetch_add(1, Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.bytes.fetch_sub(layout.size(), Relaxed);
        self.blocks.fetch_sub(1, Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.bytes.fetch_add(size, Relaxed);
        self.bytes.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
