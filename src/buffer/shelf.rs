//! [`Shelf`]: where idle items of one size class wait to be taken again. Lock-free, bounded.
//!
//! ```text
//!   lane of thread 0        lane of thread 1              all threads
//!  ┌──────┬──────┬─────┐   ┌──────┬──────┬─────┐   ┌──────────────────────────┐
//!  │ slot │ slot │taken│   │ slot │ slot │taken│   │ queue: what overflows    │
//!  └──────┴──────┴─────┘   └──────┴──────┴─────┘   └──────────────────────────┘
//! ```
//!
//! The common path is one compare-and-swap on a slot that no other thread uses: last in, first out, so the bytes are
//! still in this core's cache. A slot's word carries two flags beside the pointer:
//!
//! - `GATE` closes the slot for giving back and for the common path of taking. It is how a pool that somebody waits
//!   for, or that is closed, makes every release come by and say so, at no cost to releases while the gate is open.
//! - `AGED` says that a sweep has seen this item idle; the next sweep that finds it so frees it.

#![allow(unsafe_code)]

use std::{fmt, marker::PhantomData, mem::ManuallyDrop, ptr};

use super::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, Queue};

const GATE: usize = 1;
const AGED: usize = 2;
const FLAGS: usize = GATE | AGED;

/// Slots of one lane.
#[cfg(not(loom))]
const SLOTS: usize = 2;
#[cfg(loom)]
const SLOTS: usize = 1;

/// What can be put on a shelf: something that is one pointer.
///
/// # Safety
/// `into_raw` gives a pointer that is not null, aligned to at least 4 bytes, and owned by whoever holds it.
pub(super) unsafe trait Shelved: Sized {
    /// Gives up the item for its pointer.
    fn into_raw(this: ManuallyDrop<Self>) -> *mut ();

    /// # Safety
    /// `raw` came from `into_raw` of this type and is used up by this call.
    unsafe fn from_raw(raw: *mut ()) -> Self;
}

/// A place for one item.
struct Slot<T> {
    /// INVARIANT: without its flags either null or the pointer of an item that this slot owns.
    word: AtomicPtr<()>,
    item: PhantomData<T>,
}

impl<T: Shelved> Slot<T> {
    fn new() -> Self {
        Self { word: AtomicPtr::new(ptr::null_mut()), item: PhantomData }
    }

    /// Takes the item on the common path: not when the gate is down.
    #[inline]
    fn take(&self) -> Option<T> {
        let word = self.word.load(Ordering::Relaxed);
        let item = strip(word);
        if item.is_null() || flags(word) & GATE != 0 {
            return None;
        }
        self.word.compare_exchange(word, ptr::null_mut(), Ordering::Acquire, Ordering::Relaxed).ok()?;
        // SAFETY: the swap took the pointer out of the slot, which owned it. That the same item may have left and come
        // back between load and swap does no harm: nothing was read through the pointer.
        Some(unsafe { T::from_raw(item) })
    }

    /// Takes the item whatever the gate; leaves the gate as it is.
    fn take_always(&self) -> Option<T> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let item = strip(word);
            if item.is_null() {
                return None;
            }
            let empty = ptr::without_provenance_mut(flags(word) & GATE);
            match self.word.compare_exchange(word, empty, Ordering::Acquire, Ordering::Relaxed) {
                // SAFETY: as in `take`.
                Ok(_) => return Some(unsafe { T::from_raw(item) }),
                Err(now) => word = now,
            }
        }
    }

    /// Puts the item here if the slot is empty and its gate open. When it succeeds, the slot is not touched after the
    /// item has become visible to others: they may free the shelf at once.
    ///
    /// # Safety
    /// `this` points to a slot that lives at least as long as the item.
    #[inline]
    unsafe fn put(this: *const Self, item: T) -> Result<(), T> {
        // SAFETY: the slot lives, for the item does and is still ours.
        let word = unsafe { &raw const (*this).word };
        // SAFETY: as above.
        if !unsafe { (*word).load(Ordering::Relaxed) }.is_null() {
            return Err(item);
        }
        let raw = T::into_raw(ManuallyDrop::new(item));
        // SAFETY: as above, up to the moment at which the exchange succeeds.
        match unsafe { (*word).compare_exchange(ptr::null_mut(), raw, Ordering::Release, Ordering::Relaxed) }
        {
            Ok(_) => Ok(()),
            // SAFETY: the exchange failed, so the pointer is still ours.
            Err(_) => Err(unsafe { T::from_raw(raw) }),
        }
    }

    /// Sets or lifts the gate.
    fn gate(&self, down: bool) {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let next = word.map_addr(|bits| if down { bits | GATE } else { bits & !GATE });
            match self.word.compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Marks an idle item as aged; takes it out if it was so already.
    fn age(&self) -> Option<T> {
        let word = self.word.load(Ordering::Relaxed);
        let item = strip(word);
        if item.is_null() {
            return None;
        }
        if flags(word) & AGED == 0 {
            let aged = word.map_addr(|bits| bits | AGED);
            // When it fails, the item was used meanwhile: it is not idle.
            let _ = self.word.compare_exchange(word, aged, Ordering::AcqRel, Ordering::Relaxed);
            return None;
        }
        let empty = ptr::without_provenance_mut(flags(word) & GATE);
        self.word.compare_exchange(word, empty, Ordering::Acquire, Ordering::Relaxed).ok()?;
        // SAFETY: as in `take`.
        Some(unsafe { T::from_raw(item) })
    }

    fn is_full(&self) -> bool {
        !strip(self.word.load(Ordering::SeqCst)).is_null()
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        // A shelf is drained before it goes: its items keep it alive.
        debug_assert!(std::thread::panicking() || strip(self.word.load(Ordering::Relaxed)).is_null());
    }
}

fn strip(word: *mut ()) -> *mut () {
    word.map_addr(|bits| bits & !FLAGS)
}

fn flags(word: *mut ()) -> usize {
    word.addr() & FLAGS
}

/// The slots of one thread (or of a few), on cache lines of their own.
#[repr(align(128))]
struct Lane<T> {
    slots: [Slot<T>; SLOTS],
    /// Items handed out by this lane, from wherever they came.
    taken: AtomicU64,
}

/// The idle items of one size class.
pub(super) struct Shelf<T> {
    /// INVARIANT: the length is a power of two.
    lanes: Box<[Lane<T>]>,
    /// Slots of each lane that are used: fewer than there are when the shelf is meant to hold very few items.
    slots: usize,
    queue: Option<Queue<T>>,
    /// The fewest items that lay in the queue since the last sweep: so many were not needed.
    low: AtomicUsize,
    bound: usize,
}

impl<T: Shelved> Shelf<T> {
    /// A shelf for at most `bound` items. `lanes` is a power of two.
    pub(super) fn new(bound: usize, lanes: usize) -> Self {
        let slots = (bound / lanes).min(SLOTS);
        let rest = bound - slots * lanes;
        Self {
            lanes: (0..lanes)
                .map(|_| Lane { slots: std::array::from_fn(|_| Slot::new()), taken: AtomicU64::new(0) })
                .collect(),
            slots,
            queue: (rest > 0).then(|| Queue::new(rest)),
            low: AtomicUsize::new(0),
            bound,
        }
    }

    #[inline]
    fn lane(&self, thread: usize) -> Option<&Lane<T>> {
        self.lanes.get(thread & (self.lanes.len() - 1))
    }

    fn slots(&self) -> impl Iterator<Item = &Slot<T>> {
        self.lanes.iter().flat_map(|lane| lane.slots.iter().take(self.slots))
    }

    /// Counts an item as handed out to `thread`; returns how many were before, by this lane.
    #[inline]
    pub(super) fn count(&self, thread: usize) -> u64 {
        self.lane(thread).map_or(0, |lane| lane.taken.fetch_add(1, Ordering::Relaxed))
    }

    /// Items handed out so far.
    pub(super) fn taken(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.taken.load(Ordering::Relaxed)).sum()
    }

    /// Takes an item from the thread's own lane, if its gate is open.
    #[inline]
    pub(super) fn take(&self, thread: usize) -> Option<T> {
        self.lane(thread)?.slots.iter().find_map(Slot::take)
    }

    /// Takes an item from anywhere, whatever the gate.
    pub(super) fn take_anywhere(&self) -> Option<T> {
        if let Some(queue) = &self.queue
            && let Some(item) = queue.pop()
        {
            let left = queue.len();
            if left < self.low.load(Ordering::Relaxed) {
                self.low.store(left, Ordering::Relaxed);
            }
            return Some(item);
        }
        self.slots().find_map(Slot::take_always)
    }

    /// Puts an item into the thread's own lane, if there is room and its gate is open.
    ///
    /// # Safety
    /// `this` points to a shelf that lives at least as long as the item. It may be gone when this returns `Ok`.
    #[inline]
    pub(super) unsafe fn put(this: *const Self, thread: usize, mut item: T) -> Result<(), T> {
        // SAFETY: the shelf lives while the item is ours.
        let Some((lane, used)) =
            (unsafe { (*this).lane(thread).map(|lane| (ptr::from_ref(lane), (*this).slots)) })
        else {
            return Err(item);
        };
        for at in 0..used.min(SLOTS) {
            // SAFETY: as above, and `at` is within the array.
            let slot = unsafe { (&raw const (*lane).slots).cast::<Slot<T>>().add(at) };
            // SAFETY: the slot is part of the shelf.
            match unsafe { Slot::put(slot, item) } {
                Ok(()) => return Ok(()),
                Err(back) => item = back,
            }
        }
        Err(item)
    }

    /// Puts an item into the queue, or else into any lane whose gate is open. The caller keeps the shelf alive by other
    /// means than the item.
    pub(super) fn put_aside(&self, item: T) -> Result<(), T> {
        let mut item = match &self.queue {
            Some(queue) => match queue.push(item) {
                Ok(()) => return Ok(()),
                Err(item) => item,
            },
            None => item,
        };
        for slot in self.slots() {
            // SAFETY: the slot is borrowed from the shelf, which the caller keeps alive.
            match unsafe { Slot::put(slot, item) } {
                Ok(()) => return Ok(()),
                Err(back) => item = back,
            }
        }
        Err(item)
    }

    /// Puts the gate of every slot down or up.
    pub(super) fn gate(&self, down: bool) {
        self.slots().for_each(|slot| slot.gate(down));
    }

    /// Items that lie here.
    pub(super) fn len(&self) -> usize {
        self.slots().filter(|slot| slot.is_full()).count() + self.queue.as_ref().map_or(0, Queue::len)
    }

    /// The most items that may lie here.
    pub(super) fn bound(&self) -> usize {
        self.bound
    }

    /// Hands to `free` what was idle since the last sweep: aged items of the lanes, and half of those that the queue
    /// did not run down to. Half, so that a pause between two bursts does not cost all of it.
    pub(super) fn sweep(&self, mut free: impl FnMut(T)) {
        self.slots().filter_map(Slot::age).for_each(&mut free);
        let Some(queue) = &self.queue else { return };
        let surplus = self.low.load(Ordering::Relaxed).min(queue.len()).div_ceil(2);
        for _ in 0..surplus {
            queue.pop().into_iter().for_each(&mut free);
        }
        self.low.store(queue.len(), Ordering::Relaxed);
    }
}

impl<T> fmt::Debug for Shelf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("bound", &self.bound).finish_non_exhaustive()
    }
}
