//! [`Window`]: the one writer of a block, from which frames are lent or cut without copying.

#![allow(unsafe_code)]

use std::{fmt, ops::Range};

use super::block::{Block, BlockSlice};

/// References taken at once from a block's counter, so that cutting a frame costs no atomic operation.
const CREDIT: u32 = 1 << 16;

/// A growing window on one pooled block: bytes are read in at the back and taken off at the front.
///
/// ```text
///  0            start               end               capacity
///  ├─────────────┼───────────────────┼──────────────────┤
///  │ done with,  │ unread            │ spare: the next  │
///  │ maybe held  │                   │ read goes here   │
///  └─────────────┴───────────────────┴──────────────────┘
/// ```
///
/// Frames cut by `share` keep the block alive; the window never writes to bytes before `start` while
/// such a frame lives.
pub struct Window {
    block: Block,
    /// INVARIANT: `start <= end <= block.capacity()`; no `BlockSlice` of this block reaches beyond `start`.
    start: u32,
    end: u32,
    /// References in the block's counter that this window has not handed out yet.
    credit: u32,
}

impl Window {
    /// A window on a block that nobody else holds; the block comes back when it is not so.
    pub(crate) fn new(block: Block) -> Result<Self, Block> {
        if block.is_unique() { Ok(Self { block, start: 0, end: 0, credit: 0 }) } else { Err(block) }
    }

    /// A window of exactly `capacity` bytes that belongs to no pool; `None` when the system has no memory for it.
    #[must_use]
    pub fn unpooled(capacity: usize) -> Option<Self> {
        Self::new(Block::allocate(capacity, Block::UNPOOLED, None)?).ok()
    }

    /// Bytes the block can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.block.capacity()
    }

    /// Offset of the first unread byte in the block.
    #[must_use]
    #[inline]
    pub fn start(&self) -> usize {
        self.start as usize
    }

    /// Number of unread bytes.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether no unread byte is there.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The unread bytes.
    #[inline]
    pub fn unread(&mut self) -> &mut [u8] {
        // SAFETY: no slice reaches beyond `start` and the window is the only writer, borrowed mutably.
        unsafe { self.block.write_within(self.start as usize, self.end as usize) }
    }

    /// Room for the next read: initialised bytes of no meaning.
    #[inline]
    pub fn spare(&mut self) -> &mut [u8] {
        // SAFETY: as in `unread`; the range lies behind `start`.
        unsafe { self.block.write_within(self.end as usize, self.block.capacity()) }
    }

    /// Bytes of room for the next read.
    #[must_use]
    #[inline]
    pub fn spare_len(&self) -> usize {
        self.capacity() - self.end as usize
    }

    /// Counts `filled` bytes at the start of [`spare`](Self::spare) as read.
    ///
    /// # Panics
    /// When there is not so much room.
    #[inline]
    pub fn advance(&mut self, filled: usize) {
        assert!(filled <= self.spare_len(), "advance beyond the window");
        // As it is within the block, whose capacity fits 32 bits.
        self.end += filled as u32;
    }

    /// Drops unread bytes from the front.
    ///
    /// # Panics
    /// When there are not so many.
    #[inline]
    pub fn consume(&mut self, consumed: usize) {
        assert!(consumed <= self.len(), "consume beyond the window");
        self.start += consumed as u32;
    }

    /// Lends `payload`, a range of the unread bytes, and drops `consumed` bytes from the front.
    ///
    /// # Panics
    /// When the ranges are not within the unread bytes, or the payload not within what is consumed.
    #[inline]
    pub fn lend(&mut self, payload: Range<usize>, consumed: usize) -> &mut [u8] {
        assert!(payload.start <= payload.end && payload.end <= consumed && consumed <= self.len());
        let start = self.start as usize;
        self.start += consumed as u32;
        // SAFETY: the bytes were unread, so no slice reaches them; the loan borrows the window, the only writer.
        unsafe { self.block.write_within(start + payload.start, start + payload.end) }
    }

    /// Cuts `payload`, a range of the unread bytes, as an owned slice of the block, and drops `consumed` bytes from
    /// the front. Costs no atomic operation.
    ///
    /// # Panics
    /// As [`lend`](Self::lend).
    #[inline]
    pub(crate) fn share(&mut self, payload: Range<usize>, consumed: usize) -> BlockSlice {
        assert!(payload.start <= payload.end && payload.end <= consumed && consumed <= self.len());
        let start = self.start as usize;
        self.start += consumed as u32;
        if self.credit == 0 {
            self.block.add_credit(CREDIT as usize);
            self.credit = CREDIT;
        }
        self.credit -= 1;
        // SAFETY: the credit was counted down. The range lies before the new `start`, where this window, the only
        // writer, never writes again while other references live (`compact` asks first).
        unsafe { BlockSlice::new(self.block.spend_credit(), start + payload.start..start + payload.end) }
    }

    /// Whether no frame cut from this window lives.
    #[must_use]
    #[inline]
    pub fn is_unshared(&self) -> bool {
        self.block.has_refs(1 + self.credit as usize)
    }

    /// Moves the unread bytes to the front of the block, if no frame cut from it lives; returns whether it did.
    pub fn compact(&mut self) -> bool {
        if self.start == 0 {
            return true;
        }
        if !self.is_unshared() {
            return false;
        }
        let (start, end) = (self.start as usize, self.end as usize);
        // SAFETY: no other reference exists and the window is borrowed mutably: the whole block is ours.
        unsafe { self.block.write(0..end) }.copy_within(start..end, 0);
        self.start = 0;
        self.end = (end - start) as u32;
        true
    }

    /// The same block with nothing in it, if no frame cut from it lives. A new value, as moving one that was just written
    /// to stalls: its words would be read back as vectors.
    #[must_use]
    #[inline]
    pub fn restarted(mut self) -> Option<Self> {
        if !self.is_unshared() {
            return None;
        }
        let credit = std::mem::take(&mut self.credit);
        Some(Self { block: self.into_block(), start: 0, end: 0, credit })
    }

    /// Drops what is unread and begins at `start` of the block, if no frame cut from it lives; returns whether it did.
    ///
    /// # Panics
    /// When the block is not so large.
    pub fn restart_at(&mut self, start: usize) -> bool {
        assert!(start <= self.capacity());
        if !self.is_unshared() {
            return false;
        }
        self.start = start as u32;
        self.end = start as u32;
        true
    }

    #[inline]
    fn into_block(self) -> Block {
        debug_assert!(self.credit == 0, "credit is given back when a window drops");
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped nor used again, so the reference moves out.
        unsafe { std::ptr::read(&raw const this.block) }
    }

    /// Copies `bytes` behind the unread ones; returns whether there was room.
    #[must_use]
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) -> bool {
        let Some(room) = self.spare().get_mut(..bytes.len()) else { return false };
        room.copy_from_slice(bytes);
        self.end += bytes.len() as u32;
        true
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if self.credit > 0 {
            // SAFETY: the window owns this credit and is going away.
            unsafe { self.block.return_credit(self.credit as usize) };
        }
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window")
            .field("capacity", &self.capacity())
            .field("unread", &self.len())
            .field("spare", &self.spare_len())
            .finish()
    }
}
