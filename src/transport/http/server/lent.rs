//! [`Lent`]: an owned message, lent until the next.

use crate::{Frame, FrameMut};

/// What was received last and is lent: the message itself where nobody else holds it, else a copy.
pub(super) enum Lent {
    Copied(Vec<u8>),
    Owned(FrameMut),
}

impl Default for Lent {
    fn default() -> Self {
        Self::Copied(Vec::new())
    }
}

impl Lent {
    pub(super) fn lend(&mut self, frame: Frame) -> &mut [u8] {
        *self = match frame.try_into_mut() {
            Ok(owned) => Self::Owned(owned),
            Err(frame) => {
                let mut copy = match std::mem::take(self) {
                    Self::Copied(copy) => copy,
                    Self::Owned(_) => Vec::new(),
                };
                copy.clear();
                copy.extend_from_slice(&frame);
                Self::Copied(copy)
            }
        };
        match self {
            Self::Copied(copy) => copy,
            Self::Owned(owned) => owned,
        }
    }

    /// Holds nothing any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
