//! Where containers end.

use super::{Backend, block::Carry, kernel, nesting::Nesting};

/// What [`Structure::close`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// All bytes were looked at; the container is still open.
    Open,
    /// The container ends right before `end`.
    Closed {
        /// Index behind the closing bracket.
        end: usize,
    },
    /// A closing bracket at `at` does not fit the bracket that it would close.
    Mismatched {
        /// Index of the bracket.
        at: usize,
    },
    /// The bracket at `at` would open one container more than may be open at a time.
    TooDeep {
        /// Index of the bracket.
        at: usize,
    },
}

/// How far a scan has come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) carry: Carry,
    /// Brackets of the last block that have not been looked at.
    pub(super) pending: u64,
    /// Index of the last block's first byte; wraps when that byte was taken off.
    pub(super) base: usize,
    /// Index behind the last block.
    pub(super) scanned: usize,
}

/// Follows the brackets of one container after the other through bytes that come in pieces.
///
/// Like a codec, it is handed the unread bytes of a growing buffer each time, and remembers how far it has looked:
///
/// - [`begin`](Self::begin) at the index of an opening bracket;
/// - [`close`](Self::close), again whenever more bytes stand behind those already there, until it does not answer
///   [`Container::Open`];
/// - [`advance`](Self::advance) when bytes were taken off the front.
///
/// What it has already found out about bytes behind the end of a container is kept for the next one, which has to begin
/// behind blanks or at once; after anything else call [`reset`](Self::reset).
///
/// ```
/// use framewire::scan::json::{Container, Structure};
///
/// let mut structure = Structure::new();
/// structure.begin(0);
/// assert_eq!(structure.close(b"{\"a\":[\"]}"), Container::Open);
/// assert_eq!(structure.close(b"{\"a\":[\"]}\"]} {}"), Container::Closed { end: 12 });
/// structure.begin(13);
/// assert_eq!(structure.close(b"{\"a\":[\"]}\"]} {}"), Container::Closed { end: 15 });
/// ```
#[derive(Debug, Clone)]
pub struct Structure {
    backend: Backend,
    pub(super) place: Place,
    pub(super) nesting: Nesting,
}

impl Default for Structure {
    fn default() -> Self {
        Self::new()
    }
}

impl Structure {
    /// Nothing looked at yet.
    #[must_use]
    #[inline]
    pub fn new() -> Self {
        Self::with_backend(Backend::detect())
    }

    /// As [`new`](Self::new), with the instructions of `backend`.
    #[must_use]
    #[inline]
    pub const fn with_backend(backend: Backend) -> Self {
        Self {
            backend,
            place: Place { carry: Carry { in_string: 0, escaped: 0 }, pending: 0, base: 0, scanned: 0 },
            nesting: Nesting::new(),
        }
    }

    /// The instructions it uses.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The next container begins at index `at`; between the last one and this are only blanks, or nothing.
    #[inline]
    pub fn begin(&mut self, at: usize) {
        if at > self.place.scanned {
            self.place.scanned = at;
        }
    }

    /// Looks for the end of the container, from where the last call left off.
    #[inline]
    pub fn close(&mut self, bytes: &[u8]) -> Container {
        kernel::close(self.backend, self, bytes)
    }

    /// `count` bytes were taken off the front of the bytes.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        self.place.base = self.place.base.wrapping_sub(count);
        self.place.scanned = self.place.scanned.saturating_sub(count);
    }

    /// Forgets all; the next container begins at index `at`.
    pub fn reset(&mut self, at: usize) {
        self.place = Place { scanned: at, ..Place::default() };
        self.nesting = Nesting::new();
    }

    /// Whether a container is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.nesting.levels.depth > 0
    }

    /// Index behind the last byte looked at.
    #[must_use]
    #[inline]
    pub fn scanned(&self) -> usize {
        self.place.scanned
    }
}
