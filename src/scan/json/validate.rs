//! The whole grammar of RFC 8259 and UTF-8, checked as bytes come.

use super::{
    Backend, Scalar,
    block::{self, Carry, Lanes},
    grammar::{
        AFTER_ELEMENT, AFTER_FIELD, CLASSES, CLOSE, CLOSE_OBJECT, COLON, DONE, FIRST_KEY, KEY, NEXT,
        OPEN_OBJECT, TOP, Tokens, WRONG, look_up,
    },
    kernel,
    nesting::Nesting,
};
use crate::error::JsonReason::{self, Control, Escape, Incomplete, TooDeep, Unexpected, Utf8};

/// Bytes are not JSON, and from where on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("not JSON at byte {at}: {reason}")]
pub struct Invalid {
    /// Offset, from the first byte ever fed, of the first byte that no JSON text with these bytes before it has; of UTF-8,
    /// of the first byte of the character.
    pub at: u64,
    /// What is wrong there.
    pub reason: JsonReason,
}

/// Blocks of nothing but ASCII after which UTF-8 of the bytes before them is checked.
const LONG_ASCII: u32 = 16;

/// Whether the bytes of `escaped` are escapes of one letter.
#[inline(always)]
fn are_plain_escapes(block: &[u8; block::SIZE], mut escaped: u64) -> bool {
    let mut plain = true;
    while escaped != 0 {
        let byte = block.get(escaped.trailing_zeros() as usize & 63).copied().unwrap_or_default();
        plain &= PLAIN_ESCAPES.get(usize::from(byte)).copied().unwrap_or(false);
        escaped &= escaped - 1;
    }
    plain
}

const PLAIN_ESCAPES: [bool; 256] = {
    let mut plain = [false; 256];
    let known = *b"\"\\/bfnrt";
    let mut at = 0;
    #[allow(clippy::indexing_slicing)] // at compile time
    while at < known.len() {
        plain[known[at] as usize] = true;
        at += 1;
    }
    plain
};

/// Sees the tokens that stand directly within the outermost container, while they are checked.
pub(crate) trait Observe {
    /// Whether there is anything to see; else nothing is spent on it.
    const ON: bool;

    /// A token that begins at index `at` of the piece with `byte`, and is a name or not. Also the outermost container's
    /// closing bracket. What stands before it, blanks left out, ends at `end`.
    fn token(&mut self, at: usize, end: usize, byte: u8, is_key: bool);
}

/// Sees nothing.
pub(crate) struct Ignore;

impl Observe for Ignore {
    const ON: bool = false;

    fn token(&mut self, _: usize, _: usize, _: u8, _: bool) {}
}

/// Checks one JSON text, blanks around it allowed, that comes in pieces cut anywhere.
///
/// It holds what RFC 8259 says and no more: numbers of any size, surrogates alone (`"\ud800"`) and duplicate keys pass;
/// a byte order mark does not. No byte is looked at twice and nothing is kept of them but up to three of a character that
/// is cut.
///
/// ```
/// use framewire::error::JsonReason;
/// use framewire::scan::json::{Invalid, Validator};
///
/// let mut validator = Validator::new();
/// assert_eq!(validator.feed(b"{\"a\": [1, 2"), Ok(()));
/// assert!(!validator.is_complete());
/// assert_eq!(validator.feed(b", ]"), Err(Invalid { at: 13, reason: JsonReason::Unexpected }));
/// ```
#[derive(Debug, Clone)]
pub struct Validator {
    backend: Backend,
    state: u8,
    /// Bit n: byte n of those to come has to be a hexadecimal digit.
    hex: u8,
    /// Bytes of a character that the last piece cut off.
    cut: [u8; 4],
    cut_len: u8,
    carry: Carry,
    /// A number or word that goes on, perhaps, with the next byte.
    scalar: Option<Scalar>,
    /// Bytes fed.
    seen: u64,
    failed: Option<Invalid>,
    nesting: Nesting,
}

impl Default for Validator {
    fn default() -> Self {
        Self::new()
    }
}

impl Validator {
    /// Nothing fed yet.
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
            state: TOP,
            hex: 0,
            cut: [0; 4],
            cut_len: 0,
            carry: Carry { in_string: 0, escaped: 0 },
            scalar: None,
            seen: 0,
            failed: None,
            nesting: Nesting::new(),
        }
    }

    /// Takes the next bytes in.
    ///
    /// # Errors
    /// [`Invalid`] as soon as no bytes to come could make JSON of it. Later calls return it again.
    #[inline]
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Invalid> {
        self.feed_to(&mut Ignore, bytes)
    }

    /// As [`feed`](Self::feed), with an onlooker.
    #[inline]
    pub(crate) fn feed_to<O: Observe>(&mut self, observer: &mut O, bytes: &[u8]) -> Result<(), Invalid> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let result = kernel::validate(self.backend, self, observer, bytes);
        self.seen += bytes.len() as u64;
        if let Err(invalid) = result {
            self.failed = Some(invalid);
        }
        result
    }

    /// There are no more bytes.
    ///
    /// # Errors
    /// [`Invalid`] when the text is not whole.
    pub fn finish(&self) -> Result<(), Invalid> {
        match self.failed {
            Some(failed) => Err(failed),
            None if self.is_complete() => Ok(()),
            // Bytes of a cut character stand in a string, which is open.
            None => Err(Invalid { at: self.seen, reason: Incomplete }),
        }
    }

    /// Whether what was fed is a whole JSON text. A number may still go on.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed.is_none()
            && self.state == DONE
            && self.carry.in_string == 0
            && self.scalar.is_none_or(|scalar| scalar.is_complete())
    }

    /// Bytes fed so far.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Forgets all.
    pub fn reset(&mut self) {
        *self = Self::with_backend(self.backend);
    }

    /// # Safety
    /// The machine has the instructions of `L`.
    #[inline(always)]
    pub(super) unsafe fn run<L: Lanes, O: Observe>(
        &mut self,
        observer: &mut O,
        bytes: &[u8],
    ) -> Result<(), Invalid> {
        let mut checked = self.complete_character(bytes)?;
        // Where bytes begin that are not all ASCII and whose UTF-8 is still to be checked.
        let mut high_from = None;
        let mut state = self.state;
        let mut levels = self.nesting.levels;
        let mut carry = self.carry;
        let mut base = 0;
        let mut solid_end = 0;
        let mut ascii = 0;
        let mut room = [0; block::SIZE];
        while let Some((block, len)) = block::load(bytes, base, &mut room) {
            let last = len - 1;
            // SAFETY: as promised by the caller.
            let masks = unsafe { L::grammar(block) };
            // Within a long string: nothing to see.
            if masks.quotes
                | masks.backslashes
                | masks.controls
                | masks.high
                | u64::from(self.hex)
                | carry.escaped
                == 0
                && carry.in_string != 0
                && high_from.is_none()
            {
                if O::ON {
                    solid_end = base + len;
                }
                base += len;
                continue;
            }
            let escaped = carry.escapes(masks.backslashes, last);
            let quotes = masks.quotes & !escaped;
            let within = quotes == 0 && carry.in_string != 0;
            let strings = if within {
                u64::MAX
            } else {
                // Within many blanks: nothing to see.
                if masks.blanks == u64::MAX && carry == Carry::default() && self.scalar.is_none() {
                    base += len;
                    continue;
                }
                // SAFETY: as promised by the caller.
                let strings = unsafe { L::parity(quotes) } ^ carry.in_string;
                carry.in_string = ((strings as i64) >> 63) as u64;
                strings
            };
            let here = block::first(len);

            if masks.high != 0 {
                high_from = high_from.or(Some(base.max(checked)));
                ascii = 0;
            } else if let Some(from) = high_from {
                // Few long checks cost less than many short ones.
                ascii += 1;
                if ascii == LONG_ASCII {
                    self.check_characters(bytes, from, base, true)?;
                    checked = base;
                    high_from = None;
                }
            }

            // The first error of each kind; of them the first counts.
            let mut wrong = Wrong { bit: block::SIZE, reason: Unexpected };
            let controls = masks.controls & strings & here;
            if controls != 0 {
                wrong.at(controls.trailing_zeros() as usize, Control);
            }
            let escaped = escaped & strings & here;
            if (escaped != 0 && !are_plain_escapes(block, escaped)) || self.hex != 0 {
                self.check_escapes(block, escaped, len, &mut wrong);
            }
            // Within a string: no tokens.
            if within && wrong.bit == block::SIZE {
                if O::ON {
                    solid_end = base + len;
                }
                base += len;
                continue;
            }

            let operators = masks.operators & !strings;
            let scalars = !(strings | quotes | masks.operators | masks.blanks) & here;
            let mut goes_on = 0;
            if let Some(mut scalar) = self.scalar {
                goes_on = 1;
                let run = scalars.trailing_ones() as usize;
                match scalar.feed(bytes.get(base..base + run).unwrap_or_default()) {
                    Err(at) => wrong.at(at, Unexpected),
                    Ok(()) if run < len && !scalar.is_complete() => wrong.at(run, Unexpected),
                    Ok(()) => {}
                }
                self.scalar = (run == len).then_some(scalar);
            }
            let starts = scalars & !((scalars << 1) | goes_on);
            let solids = !masks.blanks | strings;
            // Apart from the tokens, as few blocks have any: the loop below then has a branch less to foretell.
            let mut rest = starts;
            while rest != 0 {
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                self.scalar(bytes, base, bit, len, scalars, &mut wrong);
            }
            let tokens = Tokens { operators, strings: quotes & strings, scalars: starts };
            let mut followed = None;
            if L::COMPRESSES
                && tokens.are_many()
                && wrong.bit == block::SIZE
                && masks.controls & !(masks.blanks | strings) & here == 0
            {
                // SAFETY: as promised by the caller.
                followed = unsafe { tokens.follow::<L>(block, state, levels, u32::from(O::ON)) };
            }
            let mut tokens = tokens.all();
            if let Some(followed) = followed {
                (state, levels) = followed;
                tokens = 0;
            }
            while tokens != 0 {
                let bit = tokens.trailing_zeros() as usize;
                tokens &= tokens - 1;
                let at = base + bit;
                let byte = block.get(bit & 63).copied().unwrap_or_default();
                let class = look_up(&CLASSES, byte);
                if O::ON && levels.depth == 1 {
                    let is_key = state == KEY || state == FIRST_KEY;
                    let before = solids & ((1 << bit) - 1);
                    let end =
                        if before == 0 { solid_end } else { base + 64 - before.leading_zeros() as usize };
                    observer.token(at, end, byte, is_key);
                }
                let next = look_up(&NEXT, (state << 4) | class);
                if class >= COLON {
                    if next == WRONG {
                        wrong.at(bit, Unexpected);
                        break;
                    }
                    state = next;
                } else if next == CLOSE {
                    // The state knows the kind of the container, so it fits.
                    let object = class == CLOSE_OBJECT;
                    levels.pop(&self.nesting.outer, object);
                    state = match levels.depth {
                        0 => DONE,
                        _ if levels.in_object() => AFTER_FIELD,
                        _ => AFTER_ELEMENT,
                    };
                } else if next == WRONG {
                    wrong.at(bit, Unexpected);
                    break;
                } else {
                    if !levels.push(&mut self.nesting.outer, class == OPEN_OBJECT) {
                        wrong.at(bit, TooDeep);
                        break;
                    }
                    state = next;
                }
            }
            if wrong.bit < block::SIZE {
                let at = base + wrong.bit;
                if let Some(from) = high_from {
                    self.check_characters(bytes, from.min(at), at, true)?;
                }
                return Err(Invalid { at: self.seen + at as u64, reason: wrong.reason });
            }
            if O::ON && solids & here != 0 {
                solid_end = base + 64 - (solids & here).leading_zeros() as usize;
            }
            base += len;
        }
        self.state = state;
        self.nesting.levels = levels;
        self.carry = carry;
        match high_from {
            Some(from) => self.check_characters(bytes, from, bytes.len(), false),
            None => Ok(()),
        }
    }

    /// A number or word that begins at `bit` of the block at `base`.
    #[inline(always)]
    fn scalar(&mut self, bytes: &[u8], base: usize, bit: usize, len: usize, scalars: u64, wrong: &mut Wrong) {
        let run = (scalars >> bit).trailing_ones() as usize;
        let Some([first, rest @ ..]) = bytes.get(base + bit..base + bit + run) else { return };
        let Some(mut scalar) = Scalar::start(*first) else { return wrong.at(bit, Unexpected) };
        if let Err(at) = scalar.feed(rest) {
            return wrong.at(bit + 1 + at, Unexpected);
        }
        if bit + run == len {
            self.scalar = Some(scalar);
        } else if !scalar.is_complete() {
            wrong.at(bit + run, Unexpected);
        }
    }

    /// Checks the bytes behind backslashes, and the digits behind `\u`, which may lie in the next block.
    #[inline(never)]
    fn check_escapes(&mut self, block: &[u8; block::SIZE], escaped: u64, len: usize, wrong: &mut Wrong) {
        let mut digits = u128::from(self.hex);
        let mut rest = escaped;
        while rest != 0 {
            let bit = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            match block.get(bit) {
                Some(b'u') => digits |= 0b1111 << (bit + 1),
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {}
                _ => {
                    wrong.at(bit, Escape);
                    break;
                }
            }
        }
        self.hex = (digits >> len) as u8;
        let mut rest = digits as u64 & block::first(len);
        while rest != 0 {
            let bit = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            if !block.get(bit).is_some_and(u8::is_ascii_hexdigit) {
                return wrong.at(bit, Escape);
            }
        }
    }

    /// Checks `bytes[from..to]`, which begin with a character. When the end is no `cut` by the piece's end, it has to be
    /// the end of a character.
    #[inline(never)]
    fn check_characters(&mut self, bytes: &[u8], from: usize, to: usize, whole: bool) -> Result<(), Invalid> {
        let part = bytes.get(from..to).unwrap_or_default();
        let Err(error) = simdutf8::compat::from_utf8(part) else { return Ok(()) };
        let valid = error.valid_up_to();
        if error.error_len().is_some() || whole {
            return Err(Invalid { at: self.seen + (from + valid) as u64, reason: Utf8 });
        }
        for (to, from) in self.cut.iter_mut().zip(part.get(valid..).unwrap_or_default()) {
            *to = *from;
            self.cut_len += 1;
        }
        Ok(())
    }

    /// Completes a character that the last piece cut off. Returns how many bytes that took.
    #[inline(always)]
    fn complete_character(&mut self, bytes: &[u8]) -> Result<usize, Invalid> {
        if self.cut_len == 0 { Ok(0) } else { self.complete_cut_character(bytes) }
    }

    #[cold]
    fn complete_cut_character(&mut self, bytes: &[u8]) -> Result<usize, Invalid> {
        let had = usize::from(self.cut_len);
        for (taken, &byte) in bytes.iter().enumerate() {
            if let Some(to) = self.cut.get_mut(had + taken) {
                *to = byte;
            }
            let character = self.cut.get(..had + taken + 1).unwrap_or(&self.cut);
            match std::str::from_utf8(character) {
                Ok(_) => {
                    self.cut_len = 0;
                    return Ok(taken + 1);
                }
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(Invalid { at: self.seen - had as u64, reason: Utf8 }),
            }
        }
        self.cut_len = (had + bytes.len()) as u8;
        Ok(bytes.len())
    }
}

/// The first error of a block.
struct Wrong {
    bit: usize,
    reason: JsonReason,
}

impl Wrong {
    #[inline]
    fn at(&mut self, bit: usize, reason: JsonReason) {
        if bit < self.bit {
            *self = Self { bit, reason };
        }
    }
}
