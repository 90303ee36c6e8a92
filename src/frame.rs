//! [`Frame`]: one received message, a cheap, owned, `Send` handle on pooled bytes.
//!
//! Uses `buffer` and `limits`; `codec`, `link` and everything above may use it.

use std::{fmt, hash, ops};

use bytes::Bytes;

use crate::buffer::{BlockSlice, Window};

/// One message: raw bytes that are owned, immutable, cheap to clone and to slice, and may cross threads.
///
/// The bytes lie in a pooled block, which goes back to its pool when the last frame on it drops, or in a
/// [`Bytes`]. Conversions to and from `Bytes` do not copy.
#[derive(Clone)]
pub struct Frame {
    repr: Repr,
}

#[derive(Clone)]
enum Repr {
    Block(BlockSlice),
    Bytes(Bytes),
}

impl Frame {
    /// The empty frame. Allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { repr: Repr::Bytes(Bytes::new()) }
    }

    /// A frame on bytes that live for ever.
    #[must_use]
    pub const fn from_static(bytes: &'static [u8]) -> Self {
        Self { repr: Repr::Bytes(Bytes::from_static(bytes)) }
    }

    /// A frame with its own copy of `bytes`, outside any pool.
    #[must_use]
    pub fn copy_from_slice(bytes: &[u8]) -> Self {
        Self { repr: Repr::Bytes(Bytes::copy_from_slice(bytes)) }
    }

    pub(crate) fn from_block(slice: BlockSlice) -> Self {
        Self { repr: Repr::Block(slice) }
    }

    /// Cuts `payload` out of `window` without copying; see [`Window::lend`] for the arguments.
    ///
    /// # Panics
    /// As [`Window::lend`].
    #[must_use]
    #[inline]
    pub fn cut(window: &mut Window, payload: ops::Range<usize>, consumed: usize) -> Self {
        Self::from_block(window.share(payload, consumed))
    }

    /// The bytes.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match &self.repr {
            Repr::Block(slice) => slice.as_slice(),
            Repr::Bytes(bytes) => bytes,
        }
    }

    /// The part `range` of this frame, which shares its bytes.
    ///
    /// # Panics
    /// When the range lies outside the frame.
    #[must_use]
    pub fn slice(&self, range: ops::Range<usize>) -> Self {
        match &self.repr {
            Repr::Block(slice) => Self::from_block(slice.slice(range)),
            Repr::Bytes(bytes) => Self { repr: Repr::Bytes(bytes.slice(range)) },
        }
    }

    /// A frame with the same bytes that pins no pooled block: copies when this one does.
    #[must_use]
    pub fn detach(&self) -> Self {
        Self::copy_from_slice(self)
    }

    /// Bytes of pooled memory that this frame keeps from its pool; 0 when it lies outside any pool.
    #[must_use]
    pub fn pinned(&self) -> usize {
        match &self.repr {
            Repr::Block(slice) => slice.pinned(),
            Repr::Bytes(_) => 0,
        }
    }
}

impl Default for Frame {
    fn default() -> Self {
        Self::new()
    }
}

impl ops::Deref for Frame {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Frame {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl From<Bytes> for Frame {
    fn from(bytes: Bytes) -> Self {
        Self { repr: Repr::Bytes(bytes) }
    }
}

impl From<Vec<u8>> for Frame {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<Frame> for Bytes {
    /// Does not copy. A frame on a pooled block costs one small allocation (of the `Bytes` owner).
    fn from(frame: Frame) -> Self {
        match frame.repr {
            Repr::Bytes(bytes) => bytes,
            Repr::Block(_) => Self::from_owner(frame),
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes: \"{}\")", self.len(), self.get(..64).unwrap_or(self).escape_ascii())
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Frame {
    fn eq(&self, other: &T) -> bool {
        self.as_slice() == other.as_ref()
    }
}

impl Eq for Frame {}

impl hash::Hash for Frame {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}
