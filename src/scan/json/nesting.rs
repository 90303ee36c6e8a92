//! Which containers are open: one bit a level, so that depth costs neither stack nor heap.

use crate::limits::MAX_JSON_DEPTH;

const WORDS: usize = MAX_JSON_DEPTH / 64;

/// The open containers, the innermost last. The limit on their number is [`MAX_JSON_DEPTH`].
///
/// In two parts, so that a loop can keep the first in registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nesting {
    pub(super) levels: Levels,
    pub(super) outer: Outer,
}

impl Nesting {
    pub(crate) const fn new() -> Self {
        Self { levels: Levels { depth: 0, top: 0 }, outer: Outer([0; WORDS]) }
    }

    /// Opens a container. False when it would be one too many.
    #[inline]
    pub(crate) fn push(&mut self, object: bool) -> bool {
        self.levels.push(&mut self.outer, object)
    }

    /// Closes a container. False when none is open or it is of the other kind.
    #[inline]
    pub(crate) fn pop(&mut self, object: bool) -> bool {
        self.levels.pop(&self.outer, object)
    }

    /// How many are open.
    #[inline]
    pub(crate) fn depth(&self) -> u32 {
        self.levels.depth
    }

    /// Whether the innermost container is an object. Without a container: false.
    #[inline]
    pub(crate) fn in_object(&self) -> bool {
        self.levels.in_object()
    }
}

/// How many containers are open, and the kinds of the innermost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Levels {
    pub(super) depth: u32,
    /// The innermost `(depth - 1) % 64 + 1` levels, the innermost lowest; 1 is an object.
    top: u64,
}

/// Full words of levels further out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outer([u64; WORDS]);

impl Levels {
    /// Opens a container. False when it would be one too many.
    #[inline(always)]
    pub(super) fn push(&mut self, outer: &mut Outer, object: bool) -> bool {
        if self.depth.is_multiple_of(64) && self.depth != 0 {
            if !outer.spill(*self) {
                return false;
            }
            self.top = 0;
        }
        self.top = (self.top << 1) | u64::from(object);
        self.depth += 1;
        true
    }

    /// Closes a container. False when none is open or it is of the other kind.
    #[inline(always)]
    pub(super) fn pop(&mut self, outer: &Outer, object: bool) -> bool {
        if self.depth == 0 || self.top & 1 != u64::from(object) {
            return false;
        }
        self.top >>= 1;
        self.depth -= 1;
        if self.depth.is_multiple_of(64) && self.depth != 0 {
            self.top = outer.reload(self.depth);
        }
        true
    }

    /// Whether the innermost container is an object. Without a container: false.
    #[inline(always)]
    pub(super) fn in_object(self) -> bool {
        self.top & 1 != 0
    }
}

impl Outer {
    #[cold]
    fn spill(&mut self, levels: Levels) -> bool {
        let words = levels.depth as usize / 64;
        if words >= WORDS {
            return false;
        }
        if let Some(outer) = self.0.get_mut(words - 1) {
            *outer = levels.top;
        }
        true
    }

    #[cold]
    fn reload(&self, depth: u32) -> u64 {
        self.0.get(depth as usize / 64 - 1).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_keeps_its_kind() {
        let Nesting { mut levels, mut outer } = Nesting::new();
        let kind = |level: usize| level.is_multiple_of(3) || level % 64 == 63;
        for level in 0..MAX_JSON_DEPTH {
            assert!(levels.push(&mut outer, kind(level)));
            assert_eq!(levels.in_object(), kind(level));
        }
        assert!(!levels.push(&mut outer, true));
        for level in (0..MAX_JSON_DEPTH).rev() {
            assert!(!levels.pop(&outer, !kind(level)));
            assert_eq!(levels.in_object(), kind(level));
            assert!(levels.pop(&outer, kind(level)));
        }
        assert_eq!(levels.depth, 0);
        assert!(!levels.in_object() && !levels.pop(&outer, true) && !levels.pop(&outer, false));
    }
}
