//! [`Lent`]: an owned message, lent until the next.

use bytes::{Bytes, BytesMut};

use crate::{
    Frame, FrameMut,
    buffer::{BufferManager, Window},
};

/// What was received last and is lent: the message itself where nobody else holds it, else a copy in a pooled block.
#[derive(Default)]
pub(super) enum Lent {
    #[default]
    Nothing,
    Copied(Window),
    Frame(FrameMut),
    Bytes(BytesMut),
}

impl Lent {
    pub(super) fn lend(&mut self, frame: Frame) -> &mut [u8] {
        // Before another is taken, the last block goes back.
        *self = Self::Nothing;
        *self = match frame.try_into_mut() {
            Ok(owned) => Self::Frame(owned),
            Err(frame) => Self::copied(&frame),
        };
        self.bytes()
    }

    /// As [`lend`](Self::lend), without a frame around them, which would take memory of its own.
    pub(super) fn lend_bytes(&mut self, bytes: Bytes) -> &mut [u8] {
        *self = Self::Nothing;
        *self = match bytes.try_into_mut() {
            Ok(owned) => Self::Bytes(owned),
            Err(bytes) => Self::copied(&bytes),
        };
        self.bytes()
    }

    fn copied(bytes: &[u8]) -> Self {
        if let Some(mut window) = BufferManager::shared().try_window(bytes.len())
            && window.extend(bytes)
        {
            return Self::Copied(window);
        }
        Self::Bytes(bytes.into())
    }

    fn bytes(&mut self) -> &mut [u8] {
        match self {
            Self::Nothing => &mut [],
            Self::Copied(window) => window.unread(),
            Self::Frame(frame) => frame,
            Self::Bytes(bytes) => bytes,
        }
    }

    /// Holds nothing any more.
    pub(super) fn clear(&mut self) {
        *self = Self::Nothing;
    }
}
