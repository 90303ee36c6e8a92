//! [`AcquiredBuffer`]: a `BytesMut` on loan, for [`ZeroCopyTransport`](crate::transport::ZeroCopyTransport).

use std::{fmt, ops};

use bytes::BytesMut;

use super::pool::SharedPool;

/// A `BytesMut` on loan from a [`BufferManager`](super::BufferManager): empty when acquired, given back when dropped.
///
/// When it was split or has grown beyond recognition it is freed instead; its bytes are counted by the manager until
/// then.
pub struct AcquiredBuffer {
    bytes: BytesMut,
    /// Bytes that the pool's books have for it.
    booked: usize,
    home: SharedPool,
}

impl AcquiredBuffer {
    /// A buffer that `home` has booked `booked` bytes for.
    pub(super) fn new(bytes: BytesMut, booked: usize, home: SharedPool) -> Self {
        Self { bytes, booked, home }
    }
}

impl ops::Deref for AcquiredBuffer {
    type Target = BytesMut;

    #[inline]
    fn deref(&self) -> &BytesMut {
        &self.bytes
    }
}

impl ops::DerefMut for AcquiredBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }
}

impl Drop for AcquiredBuffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let fits = bytes.capacity() >= self.booked || bytes.try_reclaim(self.booked);
        if fits && bytes.capacity() <= self.booked {
            self.home.shelve(bytes);
        } else {
            drop(bytes);
            self.home.adjust(self.booked, 0);
        }
    }
}

impl fmt::Debug for AcquiredBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquiredBuffer")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .finish()
    }
}
