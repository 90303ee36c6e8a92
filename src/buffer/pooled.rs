//! [`PooledBuffer`]: a `Vec<u8>` on loan.

use std::{fmt, mem::ManuallyDrop, ops};

use super::{
    pool::{Kind, Pool, Pooled},
    shelf::{Shelf, Shelved},
    sync::Arc,
};

/// The thing that goes back and forth.
pub(super) struct Stock {
    bytes: Vec<u8>,
    /// Capacity with which it was made: only with this one may it go back to its shelf.
    made: usize,
    /// Capacity that the pool's books have.
    booked: usize,
    kind: Kind,
    home: Arc<Pool>,
}

impl Stock {
    pub(super) fn allocate(capacity: usize, kind: Kind, home: Arc<Pool>) -> Option<Box<Self>> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(capacity).ok()?;
        Some(Box::new(Self { made: bytes.capacity(), booked: capacity, bytes, kind, home }))
    }

    /// Brings the pool's books up to date.
    fn book(&mut self) {
        let capacity = if self.bytes.capacity() == self.made { self.booked } else { self.bytes.capacity() };
        if capacity != self.booked {
            self.home.adjust(self.booked, capacity);
            self.booked = capacity;
        }
    }
}

#[allow(unsafe_code)]
// SAFETY: a `Box` of a struct with pointers in it is not null and aligned to at least 4 bytes, and owned by whoever
// holds the pointer.
unsafe impl Shelved for Box<Stock> {
    fn into_raw(this: ManuallyDrop<Self>) -> *mut () {
        Self::into_raw(ManuallyDrop::into_inner(this)).cast()
    }

    unsafe fn from_raw(raw: *mut ()) -> Self {
        // SAFETY: the caller passes what `into_raw` gave.
        unsafe { Self::from_raw(raw.cast()) }
    }
}

impl Pooled for Box<Stock> {
    fn home(&self) -> Option<&Arc<Pool>> {
        Some(&self.home)
    }

    fn shelf(pool: &Pool, class: u8) -> Option<&Shelf<Self>> {
        pool.vec_shelf(class)
    }

    fn class(&self) -> u8 {
        self.kind as u8
    }

    fn footprint(&self) -> usize {
        self.booked
    }

    fn is_fit(&self) -> bool {
        self.bytes.capacity() == self.made
    }

    fn destroy(self) {
        drop(self);
    }
}

/// A byte vector on loan from a [`BufferManager`](super::BufferManager): empty when acquired, cleared and given back
/// when dropped.
///
/// It may grow beyond its capacity: that is counted by the manager (which lets others wait for it; growth itself is
/// never refused), and a buffer that has grown is freed instead of given back, so the pool does not swell. Growth by
/// [`as_vec_mut`](Self::as_vec_mut) is counted when the next of this type's own methods runs, or when it is dropped.
pub struct PooledBuffer {
    /// INVARIANT: `Some` until dropped.
    stock: Option<Box<Stock>>,
}

impl PooledBuffer {
    pub(super) fn new(stock: Box<Stock>) -> Self {
        Self { stock: Some(stock) }
    }

    /// The vector itself, to be used at will.
    #[inline]
    pub fn as_vec_mut(&mut self) -> &mut Vec<u8> {
        // The empty fallback is never taken: `stock` is there until the drop.
        match &mut self.stock {
            Some(stock) => &mut stock.bytes,
            None => unreachable!("a buffer has its stock until it is dropped"),
        }
    }

    /// The bytes.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        self.stock.as_ref().map_or(&[], |stock| &stock.bytes)
    }

    /// Number of bytes.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there is no byte.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// Removes all bytes; the capacity stays.
    pub fn clear(&mut self) {
        self.as_vec_mut().clear();
        self.book();
    }

    /// Makes room for `additional` bytes more.
    pub fn reserve(&mut self, additional: usize) {
        self.as_vec_mut().reserve(additional);
        self.book();
    }

    /// Appends `bytes`.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.as_vec_mut().extend_from_slice(bytes);
        self.book();
    }

    /// Bytes it can hold without growing.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.stock.as_ref().map_or(0, |stock| stock.bytes.capacity())
    }

    #[inline]
    fn book(&mut self) {
        if let Some(stock) = &mut self.stock {
            stock.book();
        }
    }
}

impl Drop for PooledBuffer {
    #[inline]
    fn drop(&mut self) {
        if let Some(mut stock) = self.stock.take() {
            stock.bytes.clear();
            stock.book();
            Pool::release(stock);
        }
    }
}

impl ops::Deref for PooledBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl ops::DerefMut for PooledBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.as_vec_mut()
    }
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsMut<Vec<u8>> for PooledBuffer {
    fn as_mut(&mut self) -> &mut Vec<u8> {
        self.as_vec_mut()
    }
}

impl fmt::Debug for PooledBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledBuffer").field("len", &self.len()).field("capacity", &self.capacity()).finish()
    }
}
