//! Blocks: reference-counted, fixed-size runs of initialised bytes that go back to their pool when the last handle
//! drops. The only `unsafe` code of the buffer module.
//!
//! ```text
//!  one allocation; the bytes are aligned to 64, from 64 KiB on to a page and a quarter
//! ┌──────┬─────────────────────────────────┬──────────────┬────────────────────────┬─────────────────────────────┐
//! │ lead │ capacity bytes, initialised     │ ≥ 64 padding │ header: refs, home, …  │ what is left of lead's page │
//! └──────┴─────────────────────────────────┴──────────────┴────────────────────────┴─────────────────────────────┘
//! ```
//!
//! The lead, which only large blocks have, lets their bytes begin amid a page, wherever the allocation does. Zen 3 copies (`rep movsb`) at a fifth of
//! its speed when the target lies 1 to 31 bytes ahead of the source, modulo the page, and at two thirds when it lies as
//! little behind. The buffers of a kernel begin with a page, those of an allocator 16 bytes behind one: neither is to be
//! near where ours begin.
//!
//! A block may also stand for bytes that lie elsewhere, in a [`Bytes`]: it is then a header alone, which lets a frame be
//! one counted pointer and a range whatever it is made of.
//!
//! Who may touch which byte: a [`Block`] is one counted reference and reads nothing by itself. A [`BlockSlice`] is a
//! reference together with a range that nobody writes any more. The one writer of a shared block (a
//! [`Window`](super::Window)) writes only behind what it has handed out as slices. A writer of the whole block has to
//! be its only reference.

#![allow(unsafe_code)]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    fmt,
    mem::{self, ManuallyDrop},
    ops::Range,
    ptr::NonNull,
};

use bytes::Bytes;

use super::{
    pool::{Pool, Pooled},
    shelf::{Shelf, Shelved},
    sync::{Arc, AtomicUsize, Ordering, fence},
};
use crate::limits::BLOCK_PADDING;

/// Blocks of at least this size, in bytes, begin amid a page.
const LARGE: usize = 64 * 1024;

const PAGE: usize = 4096;

/// Bytes between the beginning of a page and that of a large block.
const LEAD: usize = PAGE / 4;

/// The alignment that large blocks ask for. Whoever asks for more gets zeros that were written, page by page, and not
/// pages that the system zeroes when they are first used; so they take a page more than they need and begin within it.
const ALIGN: usize = 16;

#[repr(C, align(64))]
struct Header {
    /// Counted references. INVARIANT: at least 1 while any `Block` exists.
    refs: AtomicUsize,
    /// Where the bytes begin, behind the lead. Never changes.
    data: NonNull<u8>,
    /// Usable bytes before the header, padding not counted. Never changes.
    capacity: u32,
    /// The pool's size class. Never changes.
    class: u8,
    /// Bytes of the allocation before `data`. Never changes.
    lead: u16,
    /// Where the block goes when the last reference drops; `None` if it is of no pool. Never changes. A block on a
    /// shelf thus keeps its pool alive, until the pool is closed and drained.
    home: Option<Arc<Pool>>,
    /// The bytes that a block of class [`FOREIGN`](Block::FOREIGN) stands for. Changed by the sole holder only.
    foreign: Option<Bytes>,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Header>() == 64);
const _: () = assert!(LEAD.is_multiple_of(align_of::<Header>()) && PAGE <= u16::MAX as usize);

/// One counted reference to a block.
pub(crate) struct Block {
    header: NonNull<Header>,
}

// SAFETY: the header's count is atomic, `home` is Send + Sync and touched by the sole holder only, and the data bytes
// are reached only through types that keep writers and readers apart (see the module's text).
unsafe impl Send for Block {}
// SAFETY: as above; a shared `&Block` allows only counting and reading immutable header fields.
unsafe impl Sync for Block {}

impl Block {
    /// The most bytes a block can have.
    pub(crate) const MAX_CAPACITY: usize = (u32::MAX / 2) as usize;

    /// The size class of blocks that belong to no pool.
    pub(crate) const UNPOOLED: u8 = u8::MAX;

    /// The class of blocks that stand for bytes elsewhere.
    const FOREIGN: u8 = u8::MAX - 1;

    /// Bytes of a block's allocation before its own, at the most.
    const fn slack(capacity: usize) -> usize {
        if capacity >= LARGE { PAGE } else { 0 }
    }

    /// Bytes from the first of a block's own to its header.
    const fn span(capacity: usize) -> usize {
        capacity.saturating_add(BLOCK_PADDING).next_multiple_of(align_of::<Header>())
    }

    /// The allocation for `capacity` bytes, which is at most [`MAX_CAPACITY`](Self::MAX_CAPACITY).
    fn layout(capacity: usize) -> Option<Layout> {
        let align = if capacity >= LARGE { ALIGN } else { align_of::<Header>() };
        Layout::from_size_align(Self::footprint_of(capacity), align).ok()
    }

    /// Bytes that a block of `capacity` takes from the system: with its slack, padding and header.
    pub(crate) const fn footprint_of(capacity: usize) -> usize {
        if capacity > Self::MAX_CAPACITY {
            return usize::MAX;
        }
        Self::slack(capacity) + Self::span(capacity) + size_of::<Header>()
    }

    /// Allocates a block of `capacity` zeroed bytes; `None` when the system has no memory for it or the size is beyond
    /// [`MAX_CAPACITY`](Self::MAX_CAPACITY).
    pub(crate) fn allocate(capacity: usize, class: u8, home: Option<Arc<Pool>>) -> Option<Self> {
        Self::with_header(capacity, class, home, None)
    }

    fn with_header(
        capacity: usize,
        class: u8,
        home: Option<Arc<Pool>>,
        foreign: Option<Bytes>,
    ) -> Option<Self> {
        if capacity > Self::MAX_CAPACITY {
            return None;
        }
        let layout = Self::layout(capacity)?;
        // SAFETY: the layout's size is not zero (the header has a size).
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let lead = if capacity >= LARGE { LEAD.wrapping_sub(start.addr().get()) % PAGE } else { 0 };
        // SAFETY: `lead` is less than a page, which is the slack that the layout has for large blocks.
        let data = unsafe { start.add(lead) };
        // SAFETY: `layout` has room for the bytes, their padding and a header behind the slack. `data` is aligned for a
        // header, by the layout or, since LEAD is so, by the lead, and the span between is a multiple of that alignment.
        let header = unsafe { data.add(Self::span(capacity)) }.cast::<Header>();
        // SAFETY: `header` points to fresh memory that is large enough and aligned for a `Header`.
        unsafe {
            header.write(Header {
                data,
                refs: AtomicUsize::new(1),
                capacity: capacity as u32,
                class,
                lead: lead as u16,
                home,
                foreign,
            });
        }
        Some(Self { header })
    }

    /// Gives the memory back to the system, past any pool. This must be the only reference.
    pub(crate) fn free(self) {
        debug_assert!(self.is_unique());
        let (header, data, lead) = (self.header, self.header().data, self.header().lead);
        let layout = Self::layout(self.capacity());
        mem::forget(self);
        // SAFETY: this was the last reference: the header is dropped once and the memory freed with its own layout, from
        // where it begins: the lead before the bytes.
        unsafe {
            header.drop_in_place();
            if let Some(layout) = layout {
                dealloc(data.sub(usize::from(lead)).as_ptr(), layout);
            }
        }
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: the header lives as long as any reference, and this is one. It is never borrowed mutably.
        unsafe { self.header.as_ref() }
    }

    /// Usable bytes.
    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.header().capacity as usize
    }

    /// Whether this is the only reference. What other holders did before they let go happened before.
    pub(crate) fn is_unique(&self) -> bool {
        self.has_refs(1)
    }

    /// Whether there are exactly `count` references, all of them the caller's.
    pub(crate) fn has_refs(&self, count: usize) -> bool {
        self.header().refs.load(Ordering::Acquire) == count
    }

    /// Adds `count` references that the caller keeps in its own books and hands out by [`Block::spend_credit`].
    pub(crate) fn add_credit(&self, count: usize) {
        let before = self.header().refs.fetch_add(count, Ordering::Relaxed);
        if before > usize::MAX / 2 {
            // As Arc does: a count that could overflow would free memory in use.
            std::process::abort();
        }
    }

    /// Turns one reference of the caller's credit into a handle.
    ///
    /// # Safety
    /// The caller has taken credit by [`add_credit`](Self::add_credit) that is not used up, and counts it down.
    pub(crate) unsafe fn spend_credit(&self) -> Self {
        Self { header: self.header }
    }

    /// Gives back unused credit.
    ///
    /// # Safety
    /// The caller owns `count` references of credit, beside this handle, and forgets them.
    pub(crate) unsafe fn return_credit(&self, count: usize) {
        // This handle is a reference too, so the count cannot reach zero here.
        self.header().refs.fetch_sub(count, Ordering::Release);
    }

    #[inline]
    fn data(&self) -> *mut u8 {
        self.header().data.as_ptr()
    }

    /// Writes to a range.
    ///
    /// # Safety
    /// Nobody else reads or writes the range while the slice lives.
    ///
    /// # Panics
    /// When the range lies outside the block.
    #[allow(clippy::mut_from_ref)] // the caller's promise stands in for `&mut self`: two ranges may be used at once
    pub(crate) unsafe fn write(&self, range: Range<usize>) -> &mut [u8] {
        assert!(range.start <= range.end && range.end <= self.capacity());
        // SAFETY: the range is within the data, which is initialised; the caller keeps all others away.
        unsafe { std::slice::from_raw_parts_mut(self.data().add(range.start), range.end - range.start) }
    }
}

impl Block {
    /// [`write`](Self::write) without looking at the range again.
    ///
    /// # Safety
    /// As [`write`](Self::write), and `start <= end <= capacity`.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn write_within(&self, start: usize, end: usize) -> &mut [u8] {
        debug_assert!(start <= end && end <= self.capacity());
        // SAFETY: the caller vouches for the range and keeps all others away.
        unsafe { std::slice::from_raw_parts_mut(self.data().add(start), end - start) }
    }
}

impl Clone for Block {
    fn clone(&self) -> Self {
        self.add_credit(1);
        // SAFETY: the credit was just taken and is used up here.
        unsafe { self.spend_credit() }
    }
}

impl Drop for Block {
    #[inline]
    fn drop(&mut self) {
        // A sole holder needs no read-modify-write: nobody can add a reference but through this one.
        if !self.is_unique() {
            if self.header().refs.fetch_sub(1, Ordering::Release) != 1 {
                return;
            }
            fence(Ordering::Acquire);
            self.header().refs.store(1, Ordering::Relaxed);
        }
        // The block lives on in a fresh handle with count 1.
        Self { header: self.header }.let_go();
    }
}

impl Block {
    /// Gives the last reference back to the pool or the system.
    #[inline(never)]
    fn let_go(self) {
        if self.home().is_some() { Pool::release(self) } else { self.free() }
    }
}

// SAFETY: the pointer is that of the header, which is aligned to 64 bytes; whoever holds it holds the one reference.
unsafe impl Shelved for Block {
    fn into_raw(this: ManuallyDrop<Self>) -> *mut () {
        this.header.as_ptr().cast()
    }

    unsafe fn from_raw(raw: *mut ()) -> Self {
        // SAFETY: the caller passes what `into_raw` gave, which was not null.
        Self { header: unsafe { NonNull::new_unchecked(raw.cast()) } }
    }
}

impl Pooled for Block {
    fn home(&self) -> Option<&Arc<Pool>> {
        self.header().home.as_ref()
    }

    fn shelf(pool: &Pool, class: u8) -> Option<&Shelf<Self>> {
        pool.block_shelf(class)
    }

    fn class(&self) -> u8 {
        self.header().class
    }

    fn footprint(&self) -> usize {
        Self::footprint_of(self.capacity())
    }

    fn is_fit(&self) -> bool {
        true
    }

    fn destroy(self) {
        self.free();
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").field("capacity", &self.capacity()).field("class", &self.class()).finish()
    }
}

/// A reference to a range of a block that nobody writes any more.
///
/// Two words, so that it is handed from function to function in registers: moved through memory, words that were
/// written one by one would be read back as one vector, which stalls (measured: 9 ns of 36 per owned message).
#[derive(Clone)]
pub(crate) struct BlockSlice {
    block: Block,
    /// INVARIANT: within the block's capacity; of no meaning for a foreign block, which is always its whole.
    span: Span,
}

/// Start and length, 32 bits each.
#[derive(Clone, Copy)]
struct Span(u64);

impl Span {
    #[inline]
    fn new(start: usize, end: usize) -> Self {
        // A block's capacity fits 32 bits, so its offsets do.
        Self((start as u64) << 32 | (end - start) as u64)
    }

    #[inline]
    fn start(self) -> usize {
        (self.0 >> 32) as usize
    }

    #[inline]
    fn len(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }

    fn narrowed(self, range: &Range<usize>) -> Self {
        Self::new(self.start() + range.start, self.start() + range.end)
    }
}

impl BlockSlice {
    /// # Safety
    /// Nobody writes to the range while this slice or a clone of it lives, and it lies within the block:
    /// `start <= end <= capacity`.
    #[inline]
    pub(crate) unsafe fn new(block: Block, range: Range<usize>) -> Self {
        debug_assert!(range.start <= range.end && range.end <= block.capacity());
        Self { block, span: Span::new(range.start, range.end) }
    }

    /// All of `bytes`, which are not copied. Takes one small allocation.
    pub(crate) fn foreign(bytes: Bytes) -> Self {
        match Block::with_header(0, Block::FOREIGN, None, Some(bytes)) {
            Some(block) => Self { block, span: Span(0) },
            // As any allocation of a few bytes does.
            None => handle_alloc_error(Layout::new::<Header>()),
        }
    }

    /// The bytes elsewhere that this slice stands for, if it does.
    #[inline]
    pub(crate) fn as_foreign(&self) -> Option<&Bytes> {
        let header = self.block.header();
        if header.class == Block::FOREIGN { header.foreign.as_ref() } else { None }
    }

    /// The bytes elsewhere that this slice stands for, taken out of it, if nobody else holds it.
    ///
    /// # Errors
    /// The slice as it was.
    pub(crate) fn into_foreign(mut self) -> Result<Bytes, Self> {
        if self.block.header().class == Block::FOREIGN && self.block.is_unique() {
            // SAFETY: the count is 1 and this is that reference, borrowed mutably: nobody else reaches the header.
            if let Some(bytes) = unsafe { self.block.header.as_mut() }.foreign.take() {
                return Ok(bytes);
            }
        }
        Err(self)
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        if let Some(bytes) = self.as_foreign() {
            return bytes;
        }
        // SAFETY: within the block by `new`'s contract, which demands that nobody writes here.
        unsafe { std::slice::from_raw_parts(self.block.data().add(self.span.start()), self.span.len()) }
    }

    /// The part `range` of this slice, which shares the block.
    ///
    /// # Panics
    /// When the range lies outside this slice.
    pub(crate) fn slice(&self, range: Range<usize>) -> Self {
        if let Some(bytes) = self.as_foreign() {
            return Self::foreign(bytes.slice(range));
        }
        assert!(range.start <= range.end && range.end <= self.span.len(), "a range outside the frame");
        Self { block: self.block.clone(), span: self.span.narrowed(&range) }
    }

    /// Keeps only the part `range` of this slice.
    ///
    /// # Panics
    /// When the range lies outside this slice.
    pub(crate) fn narrow(&mut self, range: Range<usize>) {
        if let Some(bytes) = self.as_foreign() {
            *self = Self::foreign(bytes.slice(range));
            return;
        }
        assert!(range.start <= range.end && range.end <= self.span.len(), "a range outside the frame");
        self.span = self.span.narrowed(&range);
    }

    /// Whether the bytes lie in a block that no other handle exists for.
    pub(crate) fn is_unique(&self) -> bool {
        self.as_foreign().is_none() && self.block.is_unique()
    }

    /// The bytes, to write to, when [`is_unique`](Self::is_unique).
    pub(crate) fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        if !self.is_unique() {
            return None;
        }
        let (start, len) = (self.span.start(), self.span.len());
        // SAFETY: this is the only handle, borrowed mutably, so nobody else reads or writes any byte of the block.
        Some(unsafe { self.block.write(start..start + len) })
    }

    /// The bytes and the [`BLOCK_PADDING`] behind them, to write to, when [`is_unique`](Self::is_unique). What the padding
    /// holds is of no meaning, before and after.
    #[cfg(feature = "json")]
    pub(crate) fn as_mut_padded(&mut self) -> Option<&mut [u8]> {
        if !self.is_unique() {
            return None;
        }
        let (start, len) = (self.span.start(), self.span.len());
        // Of any block: `layout` puts the padding between the capacity and the header.
        assert!(start + len <= self.block.capacity(), "a slice lies within its block");
        // SAFETY: this is the only handle, borrowed mutably, so nobody else reads or writes any byte of the block, whatever
        // lies behind the slice. The slice ends within the capacity, behind which the padding stands, of the same
        // allocation and initialised with it; the header begins behind both.
        Some(unsafe { std::slice::from_raw_parts_mut(self.block.data().add(start), len + BLOCK_PADDING) })
    }

    /// Bytes of the whole block that this slice keeps from its pool; 0 when it is of no pool.
    pub(crate) fn pinned(&self) -> usize {
        if self.block.home().is_some() { self.block.capacity() } else { 0 }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Behind every range of a block, its end included, 64 bytes can be read. The address sanitizer watches.
    #[test]
    fn padding_stands_behind_every_slice() {
        for capacity in [0, 1, 63, 64, 4096, 100_000] {
            let block = Block::allocate(capacity, Block::UNPOOLED, None).unwrap();
            assert_eq!(block.data().addr() % 64, 0);
            // SAFETY: the only reference.
            unsafe { block.write(0..capacity) }.fill(0xFF);
            // SAFETY: nobody writes any more.
            let slice = unsafe { BlockSlice::new(block, capacity..capacity) };
            let end = slice.as_slice().as_ptr();
            // SAFETY: this is what is tested: the padding belongs to the allocation and is initialised.
            assert_eq!(unsafe { std::slice::from_raw_parts(end, BLOCK_PADDING) }, [0; BLOCK_PADDING]);
        }
    }

    /// The padding may be written to the last byte, and the header behind it is as before. The address sanitizer watches.
    #[cfg(feature = "json")]
    #[test]
    fn padding_is_writable_by_the_sole_handle() {
        for (capacity, range) in [(0, 0..0), (1, 0..1), (64, 3..64), (4096, 4096..4096), (100_000, 1..99_999)]
        {
            let block = Block::allocate(capacity, 7, None).unwrap();
            // SAFETY: nobody writes but through the slice.
            let mut slice = unsafe { BlockSlice::new(block, range.clone()) };
            let other = slice.slice(0..0);
            assert!(slice.as_mut_padded().is_none(), "shared");
            drop(other);
            let padded = slice.as_mut_padded().unwrap();
            assert_eq!(padded.len(), range.len() + BLOCK_PADDING);
            padded.fill(0xAA);
            assert_eq!((slice.block.capacity(), slice.block.header().class), (capacity, 7));
            assert!(slice.is_unique() && slice.as_slice().iter().all(|byte| *byte == 0xAA));
        }
        assert!(BlockSlice::foreign(Bytes::from_static(b"1")).as_mut_padded().is_none());
    }

    #[test]
    fn large_blocks_begin_amid_a_page() {
        for (capacity, least) in [(LARGE - 1, 0), (LARGE, LEAD), (1 << 20, LEAD)] {
            let block = Block::allocate(capacity, Block::UNPOOLED, None).unwrap();
            assert!(least == 0 || block.data().addr() % PAGE == least, "{capacity}");
            assert!(
                Block::footprint_of(capacity) - capacity >= usize::from(block.header().lead) + BLOCK_PADDING
            );
            assert!(block.header.addr().get().is_multiple_of(align_of::<Header>()));
            // Whoever asks for more is given zeros that were written.
            assert!(least == 0 || Block::layout(capacity).unwrap().align() <= 2 * size_of::<usize>());
            // SAFETY: the only reference.
            unsafe { block.write(0..capacity) }.fill(0xFF);
        }
    }

    #[test]
    fn sizes_beyond_reason_are_refused() {
        assert!(Block::allocate(Block::MAX_CAPACITY + 1, 0, None).is_none());
        assert!(Block::allocate(usize::MAX, 0, None).is_none());
        assert_eq!(Block::footprint_of(usize::MAX), usize::MAX);
    }

    #[test]
    fn only_the_sole_handle_may_write() {
        let block = Block::allocate(8, Block::UNPOOLED, None).unwrap();
        // SAFETY: nobody writes but through the slice.
        let mut slice = unsafe { BlockSlice::new(block, 2..6) };
        let mut other = slice.slice(1..3);
        assert!(slice.as_mut_slice().is_none() && other.as_mut_slice().is_none());
        drop(slice);
        other.as_mut_slice().unwrap().fill(7);
        assert_eq!((other.as_slice(), other.pinned()), (&[7, 7][..], 0), "of no pool");
    }
}
