//! Makes frames of pieces, many small ones in one pooled block.

use crate::{
    Frame,
    buffer::{BufferManager, Window},
    limits::HOLD_BLOCK_SIZE,
};

/// Frames above this have a block of their own, so that who gets one alone may write to it.
const OWN: usize = HOLD_BLOCK_SIZE / 2;

#[derive(Debug, Default)]
pub(super) struct Gather {
    window: Option<Window>,
}

impl Gather {
    /// A frame of `pieces`, which have `size` bytes.
    pub(super) fn frame<'a>(&mut self, size: usize, pieces: impl Iterator<Item = &'a [u8]> + Clone) -> Frame {
        let buffers = BufferManager::shared();
        if size > OWN {
            if let Some(mut window) = buffers.try_window(size)
                && pieces.clone().all(|piece| window.extend(piece))
            {
                return Frame::cut(&mut window, 0..size, size);
            }
            return loose(size, pieces);
        }
        if self.window.as_ref().is_none_or(|window| window.spare_len() < size) {
            self.window = buffers.try_window(HOLD_BLOCK_SIZE);
        }
        if let Some(window) = &mut self.window
            && pieces.clone().all(|piece| window.extend(piece))
        {
            return Frame::cut(window, 0..size, size);
        }
        self.window = None;
        loose(size, pieces)
    }

    pub(super) fn copy(&mut self, bytes: &[u8]) -> Frame {
        self.frame(bytes.len(), std::iter::once(bytes))
    }

    /// Gives the block back.
    pub(super) fn rest(&mut self) {
        self.window = None;
    }
}

/// The pool has nothing left: the bounds of the queues hold all the same.
fn loose<'a>(size: usize, pieces: impl Iterator<Item = &'a [u8]>) -> Frame {
    let mut bytes = Vec::with_capacity(size);
    pieces.for_each(|piece| bytes.extend_from_slice(piece));
    bytes.into()
}
