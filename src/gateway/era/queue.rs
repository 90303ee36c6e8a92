//! What a translator has to say: messages of its own and changed ones, in order, in memory that is used again.

use std::{borrow::Borrow, collections::VecDeque, hash};

/// Buffers that are kept for the next messages.
pub(super) const SPARE: usize = 8;

/// Bytes of a buffer that is kept.
pub(super) const SPARE_SIZE: usize = 64 * 1024;

/// Messages on their way to one side.
#[derive(Debug, Default)]
pub(super) struct Queue {
    messages: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    bytes: usize,
}

impl Queue {
    /// Adds the message that `write` writes.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut message = self.spare.pop().unwrap_or_default();
        write(&mut message);
        self.bytes += message.len();
        self.messages.push_back(message);
    }

    /// As [`push`](Self::push), from pieces.
    pub(super) fn pieces(&mut self, pieces: &[&[u8]]) {
        self.push(|to| pieces.iter().for_each(|piece| to.extend_from_slice(piece)));
    }

    pub(super) fn front(&self) -> Option<&[u8]> {
        self.messages.front().map(Vec::as_slice)
    }

    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.len();
        Some(message)
    }

    /// Takes back a buffer that is no longer needed.
    pub(super) fn recycle(&mut self, mut message: Vec<u8>) {
        if self.spare.len() < SPARE && message.capacity() <= SPARE_SIZE {
            message.clear();
            self.spare.push(message);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What goes where.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) server: Queue,
    pub(super) client: Queue,
}

/// Bytes of an id that need no allocation.
const SHORT: usize = 30;

/// An id as it stands in a message, quotes included: a key for maps that are looked up by bytes.
#[derive(Clone)]
pub(super) enum RawId {
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

impl RawId {
    pub(super) fn new(raw: &[u8]) -> Self {
        let mut short = [0; SHORT];
        match (short.get_mut(..raw.len()), u8::try_from(raw.len())) {
            (Some(room), Ok(len)) => {
                room.copy_from_slice(raw);
                Self::Short(len, short)
            }
            _ => Self::Long(raw.into()),
        }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for RawId {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for RawId {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for RawId {}

impl hash::Hash for RawId {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl std::fmt::Debug for RawId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.as_slice().escape_ascii())
    }
}
