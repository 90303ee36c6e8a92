//! The pool on an allocator that gives out odd addresses for whatever has no alignment, and fills memory with garbage:
//! nothing may rely on where byte vectors lie or what fresh memory holds.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::alloc::{GlobalAlloc, Layout, System};

use bytes::Bytes;
use framewire::{Frame, buffer::BufferManager};

struct Odd;

#[global_allocator]
static ALLOCATOR: Odd = Odd;

fn wider(layout: Layout) -> Option<Layout> {
    Layout::from_size_align(layout.size() + 2, 2).ok().filter(|_| layout.align() == 1)
}

// SAFETY: an allocation of alignment 1 is the second byte of one that is two bytes larger and even; all else is passed
// on as it came. Both ends agree, since the layout of a deallocation is that of its allocation.
unsafe impl GlobalAlloc for Odd {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let actual = wider(layout).unwrap_or(layout);
        // SAFETY: as the caller promised; the wider layout is not empty either.
        let memory = unsafe { System.alloc(actual) };
        if memory.is_null() {
            return memory;
        }
        // SAFETY: fresh memory of this size.
        unsafe { memory.write_bytes(0xA5, actual.size()) };
        // SAFETY: the second byte lies within the wider allocation.
        if actual == layout { memory } else { unsafe { memory.add(1) } }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let (memory, actual) = match wider(layout) {
            // SAFETY: `alloc` had moved the address up by one.
            Some(actual) => (unsafe { memory.sub(1) }, actual),
            None => (memory, layout),
        };
        // SAFETY: undoes exactly what `alloc` did.
        unsafe { System.dealloc(memory, actual) };
    }
}

#[test]
fn byte_vectors_are_odd_here() {
    let bytes = Vec::<u8>::with_capacity(10);
    assert_eq!(bytes.as_ptr().addr() % 2, 1);
}

#[test]
fn pooled_buffers_frames_and_bytes_work() {
    let manager = BufferManager::default();
    for round in 0..100_usize {
        let mut buffer = manager.try_acquire_read_buffer().unwrap();
        assert!(buffer.is_empty());
        assert_eq!(buffer.as_ptr().addr() % 2, 1);
        buffer.extend_from_slice(&[round as u8; 100]);
        let mut window = manager.try_window(round * 1000).unwrap();
        assert!(window.spare().iter().all(|&byte| byte == 0 || byte == b'x'), "blocks are initialised");
        window.spare()[..10].fill(b'x');
        window.advance(10);
        let frame = Frame::cut(&mut window, 1..4, 5);
        let copies =
            [frame.clone(), frame.detach(), Frame::from(frame.to_vec()), Bytes::from(frame.clone()).into()];
        for mut copy in copies {
            assert_eq!(copy, "xxx");
            copy.advance(1);
            assert_eq!(Bytes::from(copy), "xx");
        }
    }
    assert_eq!(manager.metrics().lent_bytes(), 0);
}
