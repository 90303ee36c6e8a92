//! The loops, written once over [`Lanes`] and compiled for each set of machine instructions, so that all that a loop
//! calls becomes part of it.

use super::backend::{Backend, Kind};
#[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
use super::neon::Neon;
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Sse2};
use super::{
    block::{self, Brackets, Carry, Lanes, Quoting},
    sequence::Sequence,
    structure::{Container, Place, Structure},
    swar::Swar,
    validate::{Invalid, Observe, Validator},
};
use crate::limits::MAX_JSON_DEPTH;

/// Blocks that are looked at bracket by bracket, as most messages end in them, before the loop for long ones.
const NEAR: u32 = 6;

/// One function that picks the loop for a backend.
macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident$(<$generic:ident: $bound:ident>)?($($arg:ident: $type:ty),*) -> $answer:ty, $generic_loop:ident) => {
        $(#[$doc])*
        #[inline]
        pub(crate) fn $name$(<$generic: $bound>)?(backend: Backend, $($arg: $type),*) -> $answer {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
            fn avx2$(<$generic: $bound>)?($($arg: $type),*) -> $answer {
                // SAFETY: this function has the instructions.
                unsafe { $generic_loop::<Avx2 $(, $generic)?>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "sse2")]
            fn sse2$(<$generic: $bound>)?($($arg: $type),*) -> $answer {
                // SAFETY: this function has the instructions.
                unsafe { $generic_loop::<Sse2 $(, $generic)?>($($arg),*) }
            }
            #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
            #[target_feature(enable = "neon")]
            fn neon$(<$generic: $bound>)?($($arg: $type),*) -> $answer {
                // SAFETY: this function has the instructions.
                unsafe { $generic_loop::<Neon $(, $generic)?>($($arg),*) }
            }
            match backend.0 {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: by the invariant of `Kind` the machine has the instructions.
                Kind::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Kind::Sse2 => unsafe { sse2($($arg),*) },
                #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
                // SAFETY: as above.
                Kind::Neon => unsafe { neon($($arg),*) },
                // SAFETY: plain arithmetic needs no instructions of its own.
                Kind::Swar => unsafe { $generic_loop::<Swar $(, $generic)?>($($arg),*) },
            }
        }
    };
}

kernel!(
    /// See [`Structure::close`].
    close(structure: &mut Structure, bytes: &[u8]) -> Container, close_with
);
kernel!(
    /// The end of the container that begins at `from`, with `level` containers open around it, by the number of brackets
    /// alone: whether a closer is of its opener's kind is not looked at, which makes it twice as fast as
    /// [`Structure::close`].
    skip(bytes: &[u8], from: usize, level: u32) -> Container, skip_with
);
kernel!(
    /// Index of the quote that ends a string of which `bytes` is the rest; how the bytes end when there is none.
    string_end(bytes: &[u8], escaped: &mut bool) -> Option<usize>, string_end_with
);
kernel!(
    /// Index of the first byte that is no blank; the length when all are.
    blanks_end(bytes: &[u8]) -> usize, blanks_end_with
);
kernel!(
    /// See [`Validator::feed`].
    validate<O: Observe>(validator: &mut Validator, observer: &mut O, bytes: &[u8]) -> Result<(), Invalid>, validate_with
);

/// # Safety
/// The machine has the instructions of `L`.
#[inline(always)]
unsafe fn close_with<L: Lanes>(structure: &mut Structure, bytes: &[u8]) -> Container {
    let Place { mut carry, mut pending, mut base, mut scanned } = structure.place;
    let mut levels = structure.nesting.levels;
    let mut room = [0; block::SIZE];
    let mut near = NEAR;
    let answer = 'scan: loop {
        while pending != 0 {
            let at = base.wrapping_add(pending.trailing_zeros() as usize);
            pending &= pending - 1;
            let byte = bytes.get(at).copied().unwrap_or_default();
            let object = byte & 0x20 != 0;
            // `{` and `[` have bit 1, `}` and `]` have not.
            if byte & 2 != 0 {
                if !levels.push(&mut structure.nesting.outer, object) {
                    break 'scan Container::TooDeep { at };
                }
            } else if !levels.pop(&structure.nesting.outer, object) {
                break 'scan Container::Mismatched { at };
            } else if levels.depth == 0 {
                break 'scan Container::Closed { end: at + 1 };
            }
        }
        if L::COMPRESSES && near == 0 {
            structure.place = Place { carry, pending, base, scanned };
            structure.nesting.levels = levels;
            // SAFETY: as promised by the caller.
            if unsafe { L::run_ahead(structure, bytes) }.is_none() {
                near = u32::MAX;
            }
            Place { carry, pending, base, scanned } = structure.place;
            levels = structure.nesting.levels;
            if pending != 0 {
                continue;
            }
        } else {
            near = near.wrapping_sub(1);
        }
        let Some((block, len)) = block::load(bytes, scanned, &mut room) else { break Container::Open };
        base = scanned;
        scanned += len;
        // SAFETY: as promised by the caller.
        unsafe {
            if let Some(strings) = strings::<L>(block, len, &mut carry) {
                pending = L::any_bracket(block) & !strings;
            }
        }
    };
    structure.nesting.levels = levels;
    structure.place = Place { carry, pending, base, scanned };
    answer
}

/// The bytes of a block that lie in strings; `None` when all do.
///
/// # Safety
/// The machine has the instructions of `L`.
#[inline(always)]
unsafe fn strings<L: Lanes>(block: &[u8; block::SIZE], len: usize, carry: &mut Carry) -> Option<u64> {
    // SAFETY: as promised by the caller.
    unsafe {
        let Quoting { quotes, backslashes } = L::quoting(block);
        let quotes = quotes & !carry.escapes(backslashes, len - 1);
        if quotes == 0 && carry.in_string != 0 {
            return None;
        }
        let strings = L::parity(quotes) ^ carry.in_string;
        carry.in_string = ((strings as i64) >> 63) as u64;
        Some(strings)
    }
}

/// Goes on over the full blocks in which the container cannot end, with no brackets pending. The brackets of many blocks
/// are compared at a time. `None` when one does not fit or there may be too many: `structure` then stands before it.
///
/// # Safety
/// The machine has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn run_ahead<L: Lanes>(structure: &mut Structure, bytes: &[u8]) -> Option<()> {
    let Place { mut carry, mut base, mut scanned, .. } = structure.place;
    let mut pending = 0;
    let mut sequence = Sequence::default();
    let mut depth = structure.nesting.depth();
    if depth + u64::BITS > MAX_JSON_DEPTH as u32 {
        return None;
    }
    let (blocks, _) = bytes.get(scanned..).unwrap_or_default().as_chunks();
    for block in blocks {
        base = scanned;
        scanned += block::SIZE;
        // SAFETY: as promised by the caller.
        let Some(strings) = (unsafe { strings::<L>(block, block::SIZE, &mut carry) }) else { continue };
        // SAFETY: as promised by the caller.
        let brackets = unsafe { L::brackets(block) }.only(!strings);
        let (opened, closed) = (brackets.openers.count_ones(), brackets.closers.count_ones());
        if closed >= depth {
            pending = brackets.openers | brackets.closers;
            break;
        }
        if !sequence.has_room(opened + closed) {
            // SAFETY: as promised by the caller.
            unsafe { sequence.settle::<L>(&mut structure.nesting)? };
            structure.place = Place { carry, pending: brackets.openers | brackets.closers, base, scanned };
            if depth + u64::BITS > MAX_JSON_DEPTH as u32 {
                return None;
            }
        }
        // SAFETY: as promised by the caller.
        unsafe { sequence.append::<L>(brackets, opened + closed) };
        depth = depth + opened - closed;
    }
    // SAFETY: as promised by the caller.
    unsafe { sequence.settle::<L>(&mut structure.nesting)? };
    structure.place = Place { carry, pending, base, scanned };
    Some(())
}

/// # Safety
/// The machine has the instructions of `L`.
#[inline(always)]
unsafe fn skip_with<L: Lanes>(bytes: &[u8], from: usize, level: u32) -> Container {
    let mut carry = Carry::default();
    let mut depth = level;
    let mut base = from;
    let mut room = [0; block::SIZE];
    while let Some((block, len)) = block::load(bytes, base, &mut room) {
        // SAFETY: as promised by the caller.
        let Some(strings) = (unsafe { strings::<L>(block, len, &mut carry) }) else {
            base += len;
            continue;
        };
        // SAFETY: as promised by the caller.
        let Brackets { openers, closers, .. } = unsafe { L::brackets(block) }.only(!strings);
        let (opened, closed) = (openers.count_ones(), closers.count_ones());
        if depth > level + closed && depth + opened <= MAX_JSON_DEPTH as u32 {
            // Wherever they stand, the container stays open.
            depth = depth + opened - closed;
        } else {
            let mut brackets = openers | closers;
            while brackets != 0 {
                let bit = brackets.trailing_zeros();
                let at = base + bit as usize;
                brackets &= brackets - 1;
                if (closers >> bit) & 1 == 0 {
                    if depth >= MAX_JSON_DEPTH as u32 {
                        return Container::TooDeep { at };
                    }
                    depth += 1;
                } else {
                    depth -= 1;
                    if depth <= level {
                        return Container::Closed { end: at + 1 };
                    }
                }
            }
        }
        base += len;
    }
    Container::Open
}

/// # Safety
/// The machine has the instructions of `L`.
#[inline(always)]
unsafe fn string_end_with<L: Lanes>(bytes: &[u8], escaped: &mut bool) -> Option<usize> {
    let mut carry = Carry { in_string: 0, escaped: u64::from(*escaped) };
    let mut at = 0;
    let mut room = [0; block::SIZE];
    let end = loop {
        let Some((block, len)) = block::load(bytes, at, &mut room) else { break None };
        // SAFETY: as promised by the caller.
        let Quoting { quotes, backslashes } = unsafe { L::quoting(block) };
        if quotes | backslashes | carry.escaped != 0 {
            let quotes = quotes & !carry.escapes(backslashes, len - 1);
            if quotes != 0 {
                break Some(at + quotes.trailing_zeros() as usize);
            }
        }
        at += len;
    };
    *escaped = end.is_none() && carry.escaped != 0;
    end
}

/// # Safety
/// The machine has the instructions of `L`.
#[inline(always)]
unsafe fn blanks_end_with<L: Lanes>(bytes: &[u8]) -> usize {
    let mut at = 0;
    let mut room = [0; block::SIZE];
    while let Some((block, len)) = block::load(bytes, at, &mut room) {
        // SAFETY: as promised by the caller.
        let others = !unsafe { L::blanks(block) };
        if others != 0 {
            return at + (others.trailing_zeros() as usize).min(len);
        }
        at += len;
    }
    at
}

/// # Safety
/// The machine has the instructions of `L`.
#[inline(always)]
unsafe fn validate_with<L: Lanes, O: Observe>(
    validator: &mut Validator,
    observer: &mut O,
    bytes: &[u8],
) -> Result<(), Invalid> {
    // SAFETY: as promised by the caller.
    unsafe { validator.run::<L, O>(observer, bytes) }
}
