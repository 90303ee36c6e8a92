//! [`Frame`]: one received message, a cheap, owned, `Send` handle on pooled bytes.
//!
//! Uses `buffer` and `limits`; `codec`, `link` and everything above may use it.

use std::{borrow::Borrow, cmp, fmt, hash, ops};

use bytes::{Bytes, BytesMut};

use crate::buffer::{BlockSlice, Window};

/// One message: raw bytes that are owned, immutable, cheap to clone and to slice, and may cross threads.
///
/// The bytes lie in a pooled block, which goes back to its pool when the last frame on it drops, or in a
/// [`Bytes`]. Conversions to and from `Bytes` do not copy.
///
/// Behind the bytes of a pooled frame stand at least 64 bytes ([`BLOCK_PADDING`](crate::limits::BLOCK_PADDING)) of the
/// same allocation, initialised. They may belong to other frames, so only who holds the whole block alone may read
/// them.
///
/// Frames compare, order and hash as their bytes do, so a map keyed by frames is looked up by `&[u8]`.
#[derive(Clone)]
pub struct Frame {
    /// `None` for the empty frame that is on nothing.
    slice: Option<BlockSlice>,
}

impl Frame {
    /// The empty frame. Allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { slice: None }
    }

    /// A frame on bytes that live for ever.
    #[must_use]
    pub fn from_static(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }

    /// A frame with its own copy of `bytes`, outside any pool.
    #[must_use]
    pub fn copy_from_slice(bytes: &[u8]) -> Self {
        let size = bytes.len();
        if let Some(mut window) = Window::unpooled(size)
            && window.extend(bytes)
        {
            return Self::cut(&mut window, 0..size, size);
        }
        // Beyond what a block can be.
        Bytes::copy_from_slice(bytes).into()
    }

    pub(crate) fn from_block(slice: BlockSlice) -> Self {
        Self { slice: Some(slice) }
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
        match &self.slice {
            Some(slice) => slice.as_slice(),
            None => &[],
        }
    }

    /// The part `range` of this frame, which shares its bytes. Of a frame on a [`Bytes`] it takes a small allocation.
    ///
    /// # Panics
    /// When the range lies outside the frame.
    #[must_use]
    pub fn slice(&self, range: ops::Range<usize>) -> Self {
        match &self.slice {
            Some(slice) => Self::from_block(slice.slice(range)),
            None => {
                assert!(range == (0..0), "a range outside the frame");
                Self::new()
            }
        }
    }

    /// The part of this frame that `part`, a slice of its bytes, covers: turns what a parser found into a frame of its
    /// own, without copying. `None` when `part` does not lie within this frame.
    #[must_use]
    pub fn slice_ref(&self, part: &[u8]) -> Option<Self> {
        let start = part.as_ptr().addr().checked_sub(self.as_ptr().addr())?;
        let end = start.checked_add(part.len())?;
        (end <= self.len()).then(|| self.slice(start..end))
    }

    /// Splits the frame at `at`: this one keeps the bytes before, the answer has those from there on.
    ///
    /// # Panics
    /// When `at` is beyond the end.
    #[must_use = "to drop the end, use `truncate`"]
    pub fn split_off(&mut self, at: usize) -> Self {
        let end = self.slice(at..self.len());
        self.truncate(at);
        end
    }

    /// Splits the frame at `at`: the answer has the bytes before, this one keeps those from there on.
    ///
    /// # Panics
    /// When `at` is beyond the end.
    #[must_use = "to drop the start, use `advance`"]
    pub fn split_to(&mut self, at: usize) -> Self {
        let start = self.slice(0..at);
        self.advance(at);
        start
    }

    /// Shortens the frame to `len` bytes; does nothing when it is not longer. Costs no counting.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len()
            && let Some(slice) = &mut self.slice
        {
            slice.narrow(0..len);
        }
    }

    /// Drops `count` bytes from the front. Costs no counting.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn advance(&mut self, count: usize) {
        let len = self.len();
        assert!(count <= len, "advance beyond the frame");
        if count > 0
            && let Some(slice) = &mut self.slice
        {
            slice.narrow(count..len);
        }
    }

    /// The same bytes to write to, in place, when nobody else holds any part of what they lie in.
    ///
    /// # Errors
    /// The frame as it was, when another frame, or the link's window, holds a part of the same block, or the bytes are
    /// static.
    pub fn try_into_mut(self) -> Result<FrameMut, Self> {
        let Some(slice) = self.slice else { return Ok(FrameMut { repr: ReprMut::Bytes(BytesMut::new()) }) };
        if slice.is_unique() {
            return Ok(FrameMut { repr: ReprMut::Block(slice) });
        }
        match slice.into_foreign().map(Bytes::try_into_mut) {
            Ok(Ok(bytes)) => Ok(FrameMut { repr: ReprMut::Bytes(bytes) }),
            Ok(Err(bytes)) => Err(bytes.into()),
            Err(slice) => Err(Self::from_block(slice)),
        }
    }

    /// The bytes and [`BLOCK_PADDING`](crate::limits::BLOCK_PADDING) more behind them, to write to, when this frame alone
    /// holds the block they lie in.
    #[cfg(feature = "json")]
    pub(crate) fn padded_mut(&mut self) -> Option<&mut [u8]> {
        self.slice.as_mut()?.as_mut_padded()
    }

    /// A frame with the same bytes that pins no pooled block: copies when this one does.
    #[must_use]
    pub fn detach(&self) -> Self {
        Self::copy_from_slice(self)
    }

    /// Bytes of pooled memory that this frame keeps from its pool; 0 when it lies outside any pool.
    #[must_use]
    pub fn pinned(&self) -> usize {
        self.slice.as_ref().map_or(0, BlockSlice::pinned)
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
    /// Does not copy. Takes one small allocation.
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::new() } else { Self::from_block(BlockSlice::foreign(bytes)) }
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
        let Some(slice) = frame.slice else { return Self::new() };
        match slice.into_foreign() {
            Ok(bytes) => bytes,
            Err(slice) => match slice.as_foreign() {
                Some(bytes) => bytes.clone(),
                None => Self::from_owner(Frame::from_block(slice)),
            },
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

macro_rules! equal_from_the_left {
    ($($left:ty),*) => {$(
        impl PartialEq<Frame> for $left {
            fn eq(&self, other: &Frame) -> bool {
                other == self
            }
        }
    )*};
}

equal_from_the_left!([u8], &[u8], str, &str, String, Vec<u8>, Bytes);

impl<const N: usize> PartialEq<Frame> for [u8; N] {
    fn eq(&self, other: &Frame) -> bool {
        other == self
    }
}

impl PartialOrd for Frame {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Frame {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl Borrow<[u8]> for Frame {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl hash::Hash for Frame {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

/// The bytes of a frame that nobody else holds: to be written to in place (unescaping, masking, parsing) and made a
/// frame again by [`freeze`](Self::freeze).
pub struct FrameMut {
    repr: ReprMut,
}

enum ReprMut {
    /// INVARIANT: the only handle to its block: made from one, and never cloned here.
    Block(BlockSlice),
    Bytes(BytesMut),
}

impl FrameMut {
    /// A frame again. Costs nothing.
    #[must_use]
    pub fn freeze(self) -> Frame {
        match self.repr {
            ReprMut::Block(slice) => Frame::from_block(slice),
            ReprMut::Bytes(bytes) => bytes.freeze().into(),
        }
    }
}

impl ops::Deref for FrameMut {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.repr {
            ReprMut::Block(slice) => slice.as_slice(),
            ReprMut::Bytes(bytes) => bytes,
        }
    }
}

impl ops::DerefMut for FrameMut {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.repr {
            // Empty is never taken: the handle is the only one.
            ReprMut::Block(slice) => slice.as_mut_slice().unwrap_or_default(),
            ReprMut::Bytes(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for FrameMut {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for FrameMut {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl From<FrameMut> for Frame {
    fn from(frame: FrameMut) -> Self {
        frame.freeze()
    }
}

impl fmt::Debug for FrameMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameMut({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn may_cross_threads() {
        fn check<T: Send + Sync + Unpin + 'static>() {}
        check::<Frame>();
        check::<FrameMut>();
    }

    #[test]
    fn is_small() {
        assert!(size_of::<Frame>() == 16);
    }
}
