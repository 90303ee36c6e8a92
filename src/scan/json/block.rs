//! Masks of a block of 64 bytes, one bit a byte, the first byte lowest; and what is carried to the next block.

use super::{Structure, kernel};

/// Bytes of a block.
pub(super) const SIZE: usize = 64;

/// Where strings begin and end in a block, perhaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quoting {
    pub(super) quotes: u64,
    pub(super) backslashes: u64,
}

/// Where brackets stand in a block, those within strings too unless it is said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Brackets {
    /// `{ [`
    pub(super) openers: u64,
    /// `} ]`
    pub(super) closers: u64,
    /// Of the brackets, the braces. Says nothing of other bytes.
    pub(super) objects: u64,
}

impl Brackets {
    /// Only those that stand where `bytes` has ones.
    #[inline(always)]
    pub(super) fn only(self, bytes: u64) -> Self {
        Self { openers: self.openers & bytes, closers: self.closers & bytes, objects: self.objects }
    }
}

/// What the whole grammar needs to know of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grammar {
    pub(super) quotes: u64,
    pub(super) backslashes: u64,
    /// `{ [ } ] : ,`, also those within strings. 0x0C and 0x1A may be among them.
    pub(super) operators: u64,
    /// Space, tab, LF, CR.
    pub(super) blanks: u64,
    /// Below 0x20, which no string may hold.
    pub(super) controls: u64,
    /// 0x80 and above.
    pub(super) high: u64,
}

/// Makes masks. One type for each set of machine instructions.
pub(super) trait Lanes {
    /// # Safety
    /// The machine has the instructions of this type.
    unsafe fn quoting(block: &[u8; SIZE]) -> Quoting;

    /// `{ [ } ]`
    ///
    /// # Safety
    /// As [`quoting`](Self::quoting).
    unsafe fn any_bracket(block: &[u8; SIZE]) -> u64;

    /// # Safety
    /// As [`quoting`](Self::quoting).
    unsafe fn brackets(block: &[u8; SIZE]) -> Brackets;

    /// # Safety
    /// As [`quoting`](Self::quoting).
    unsafe fn grammar(block: &[u8; SIZE]) -> Grammar;

    /// `:`
    ///
    /// # Safety
    /// As [`quoting`](Self::quoting).
    unsafe fn colons(block: &[u8; SIZE]) -> u64;

    /// Space, tab, LF, CR.
    ///
    /// # Safety
    /// As [`quoting`](Self::quoting).
    unsafe fn blanks(block: &[u8; SIZE]) -> u64;

    /// Bit n of the answer is the parity of bits 0 to n.
    ///
    /// # Safety
    /// As [`quoting`](Self::quoting).
    unsafe fn parity(bits: u64) -> u64;

    /// See [`kernel::run_ahead`]: a loop of its own, which has all registers.
    ///
    /// # Safety
    /// As [`quoting`](Self::quoting).
    unsafe fn run_ahead(structure: &mut Structure, bytes: &[u8]) -> Option<()>
    where
        Self: Sized,
    {
        // SAFETY: as promised by the caller.
        unsafe { kernel::run_ahead::<Self>(structure, bytes) }
    }

    /// Whether the machine has an instruction for [`compress`](Self::compress), so that it is worth its while.
    const COMPRESSES: bool = false;

    /// The bits of `bits` where `mask` has ones, side by side, the lowest lowest.
    ///
    /// # Safety
    /// As [`quoting`](Self::quoting).
    #[inline(always)]
    unsafe fn compress(bits: u64, mut mask: u64) -> u64 {
        let (mut side_by_side, mut to) = (0, 1);
        while mask != 0 {
            if bits & mask & mask.wrapping_neg() != 0 {
                side_by_side |= to;
            }
            mask &= mask - 1;
            to <<= 1;
        }
        side_by_side
    }
}

/// What one block leaves to the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Carry {
    /// All ones within a string, else 0.
    pub(super) in_string: u64,
    /// 1 when the next byte is escaped, else 0.
    pub(super) escaped: u64,
}

impl Carry {
    /// The bytes that stand behind a backslash which is not itself escaped. `last` is the index of the block's last
    /// byte, 63 but at the end of the bytes.
    #[inline(always)]
    pub(super) fn escapes(&mut self, backslashes: u64, last: usize) -> u64 {
        if backslashes == 0 {
            return std::mem::take(&mut self.escaped);
        }
        // Runs of backslashes are told apart by whether they begin at an even or an odd place: a subtraction borrows
        // along each run (simdjson's method).
        const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
        let potential = backslashes & !self.escaped;
        let series = ((potential << 1) | ODD).wrapping_sub(potential) ^ ODD;
        let escaped = series ^ (backslashes | self.escaped);
        self.escaped = ((series & backslashes) >> last) & 1;
        escaped
    }
}

/// The block that begins at `at`, and how many bytes it has. At the end of `bytes` it is less than a block and is put
/// into `room`, the rest of which is zero: once a call, so `room` has to be zero before.
#[inline(always)]
pub(super) fn load<'a>(
    bytes: &'a [u8],
    at: usize,
    room: &'a mut [u8; SIZE],
) -> Option<(&'a [u8; SIZE], usize)> {
    let rest = bytes.get(at..)?;
    if let Some(block) = rest.first_chunk() {
        return Some((block, SIZE));
    }
    let to = room.get_mut(..rest.len()).filter(|to| !to.is_empty())?;
    to.copy_from_slice(rest);
    Some((room, rest.len()))
}

/// A mask of the first `len` bytes, of 64 at most.
#[inline(always)]
pub(super) fn first(len: usize) -> u64 {
    if len >= SIZE { u64::MAX } else { (1 << len) - 1 }
}
