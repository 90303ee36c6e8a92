//! [`BufferManager`]: size-classed, capped, lock-free pool of blocks.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use crossbeam_queue::ArrayQueue;

use super::{Block, Window};
use crate::limits::POOL_MAX_BYTES;

const CLASSES: [usize; 8] = [
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    (1 << 20) + (64 << 10),
    (4 << 20) + (64 << 10),
    (16 << 20) + (64 << 10),
    (64 << 20) + (64 << 10),
];

/// The free lists, one per size class, and the count of all bytes.
#[derive(Debug)]
pub(crate) struct Shelves {
    free: [ArrayQueue<Block>; CLASSES.len()],
    allocated: AtomicUsize,
    max_bytes: usize,
}

impl Shelves {
    /// Takes back a block whose last reference has dropped.
    pub(crate) fn take_back(&self, block: Block) {
        let capacity = block.capacity();
        if self.free.get(usize::from(block.class())).is_none_or(|shelf| shelf.push(block).is_err()) {
            self.allocated.fetch_sub(capacity, Ordering::Relaxed);
        }
    }
}

/// Pool of buffers.
#[derive(Debug, Clone)]
pub struct BufferManager {
    shelves: Arc<Shelves>,
}

impl BufferManager {
    /// The manager that links use when they are given none.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<BufferManager> = OnceLock::new();
        SHARED.get_or_init(|| Self {
            shelves: Arc::new(Shelves {
                free: std::array::from_fn(|_| ArrayQueue::new(128)),
                allocated: AtomicUsize::new(0),
                max_bytes: POOL_MAX_BYTES,
            }),
        })
    }

    /// A window of at least `capacity` bytes, without waiting; `None` when the cap is reached or the size is beyond
    /// the largest class.
    #[must_use]
    pub fn try_window(&self, capacity: usize) -> Option<Window> {
        let class = CLASSES.iter().position(|&size| size >= capacity)?;
        let size = *CLASSES.get(class)?;
        let mut block = match self.shelves.free.get(class)?.pop() {
            Some(block) => block,
            None => {
                let before = self.shelves.allocated.fetch_add(size, Ordering::Relaxed);
                if before + size > self.shelves.max_bytes {
                    self.shelves.allocated.fetch_sub(size, Ordering::Relaxed);
                    return None;
                }
                Block::allocate(size, class as u8)?
            }
        };
        block.set_home(Some(Arc::clone(&self.shelves)));
        Window::new(block).ok()
    }
}
