//! Brackets one behind the other, without what stands between them: many are matched at a time.

use super::{
    block::{Brackets, Lanes},
    nesting::Nesting,
};

/// Up to 64 brackets in their order, the first lowest. They were counted, but not yet compared with each other.
///
/// ```text
///  brackets   {  [  {  }  ]  {
///  openers    1  1  1  .  .  1
///  objects    1  .  1  1  .  1
/// ```
///
/// Pairs that stand side by side are struck out, over and over: here `{ }`, then `[ ]`, and two openers are left.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sequence {
    openers: u64,
    /// Braces, as against square brackets.
    objects: u64,
    len: u32,
}

impl Sequence {
    /// Whether `count` more have room.
    #[inline(always)]
    pub(super) fn has_room(&self, count: u32) -> bool {
        self.len + count <= u64::BITS
    }

    /// Takes the `count` brackets of a block in, for which there is room.
    ///
    /// # Safety
    /// The machine has the instructions of `L`.
    #[inline(always)]
    pub(super) unsafe fn append<L: Lanes>(&mut self, brackets: Brackets, count: u32) {
        let all = brackets.openers | brackets.closers;
        // SAFETY: as promised by the caller.
        let (openers, objects) =
            unsafe { (L::compress(brackets.openers, all), L::compress(brackets.objects, all)) };
        // Nothing is shifted out but zeros.
        self.openers |= openers.unbounded_shl(self.len);
        self.objects |= objects.unbounded_shl(self.len);
        self.len += count;
    }

    /// Follows the brackets from `nesting` on and forgets them. `None` when one does not fit; `nesting` is as it was then.
    ///
    /// # Safety
    /// The machine has the instructions of `L`.
    #[inline(always)]
    pub(super) unsafe fn settle<L: Lanes>(&mut self, nesting: &mut Nesting) -> Option<()> {
        let Self { mut openers, mut objects, mut len } = std::mem::take(self);
        // Behind the last bracket are zeros, which are no closers.
        let mut closers = !openers & !u64::MAX.unbounded_shl(len);
        loop {
            let pairs = openers & closers >> 1;
            if pairs == 0 {
                break;
            }
            if (objects ^ objects >> 1) & pairs != 0 {
                return None;
            }
            let others = (openers | closers) & !(pairs | pairs << 1);
            // SAFETY: as promised by the caller.
            unsafe {
                openers = L::compress(openers, others);
                closers = L::compress(closers, others);
                objects = L::compress(objects, others);
            }
            len -= 2 * pairs.count_ones();
        }
        // What is left closes, then opens.
        let closed = closers.count_ones();
        nesting.follow(objects, closed, len - closed).then_some(())
    }
}
