//! Which containers are open: one bit a level, so that depth costs neither stack nor heap.

use super::block::Brackets;
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

    /// Closes `closed` containers, then opens `opened`, of the kinds that the bits of `objects` tell, the first lowest.
    /// False when one cannot be closed; then nothing was done. That there is room is for the caller to know.
    #[inline(always)]
    pub(super) fn follow(&mut self, objects: u64, closed: u32, opened: u32) -> bool {
        let Levels { depth, top } = self.levels;
        if closed > depth || depth + opened > u64::BITS {
            return self.follow_each(objects, closed, opened);
        }
        if (top ^ objects) & !u64::MAX.unbounded_shl(closed) != 0 {
            return false;
        }
        let kinds = objects.unbounded_shr(closed).reverse_bits().unbounded_shr(u64::BITS - opened);
        self.levels = Levels {
            depth: depth - closed + opened,
            top: top.unbounded_shr(closed).unbounded_shl(opened) | kinds,
        };
        true
    }

    /// As [`follow`](Self::follow), for levels further out.
    #[inline(never)]
    fn follow_each(&mut self, objects: u64, closed: u32, opened: u32) -> bool {
        let mut kinds = (0..u64::BITS).map(|bit| (objects >> bit) & 1 != 0);
        let mut levels = self.levels;
        // To close leaves `outer` alone.
        if !kinds.by_ref().take(closed as usize).all(|object| levels.pop(&self.outer, object)) {
            return false;
        }
        let opens = kinds.take(opened as usize).all(|object| levels.push(&mut self.outer, object));
        self.levels = levels;
        opens
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

    /// Opens and closes what the brackets of a block do. Which bytes of the block stand directly within objects, brackets by
    /// what is around an opener and what a closer closes. `None` when a bracket does not fit, when all levels but
    /// `outermost` might be closed, or more than the innermost are touched; then nothing was done.
    #[inline(always)]
    pub(super) fn walk(&mut self, brackets: Brackets, outermost: u32) -> Option<u64> {
        let Brackets { openers, closers, objects } = brackets;
        let (opened, closed) = (openers.count_ones(), closers.count_ones());
        let held = (self.depth.wrapping_sub(1) % 64) + 1;
        if self.depth <= closed + outermost || held <= closed || held + opened > 64 {
            return None;
        }
        let mut top = self.top;
        let mut wrong = 0;
        let mut inside = (top & 1).wrapping_neg();
        let mut in_objects = inside;
        let mut rest = openers | closers;
        while rest != 0 {
            let bit = rest & rest.wrapping_neg();
            rest ^= bit;
            let object = u64::from(objects & bit != 0);
            let opens = openers & bit != 0;
            // No branch on what cannot be foretold.
            wrong |= if opens { 0 } else { top ^ object };
            top = if opens { (top << 1) | object } else { top >> 1 };
            let now = (top & 1).wrapping_neg();
            in_objects ^= (inside ^ now) & !(bit | (bit - 1));
            inside = now;
        }
        if wrong & 1 != 0 {
            return None;
        }
        *self = Self { depth: self.depth + opened - closed, top };
        Some(in_objects)
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
