//! Which token may follow which: looked up for one after the other, or found for all of a block at a time.

use super::{
    block::{self, Lanes},
    nesting::Levels,
};

/// What a token is, by its first byte.
pub(super) const OPEN_OBJECT: u8 = 0;
pub(super) const OPEN_ARRAY: u8 = 1;
pub(super) const CLOSE_OBJECT: u8 = 2;
pub(super) const CLOSE_ARRAY: u8 = 3;
pub(super) const COLON: u8 = 4;
pub(super) const COMMA: u8 = 5;
pub(super) const STRING: u8 = 6;
pub(super) const SCALAR: u8 = 7;
pub(super) const OTHER: u8 = 8;

/// What may come next.
pub(super) const TOP: u8 = 0;
pub(super) const DONE: u8 = 1;
pub(super) const FIRST_KEY: u8 = 2;
pub(super) const KEY: u8 = 3;
pub(super) const AFTER_KEY: u8 = 4;
pub(super) const FIELD: u8 = 5;
pub(super) const AFTER_FIELD: u8 = 6;
pub(super) const FIRST_ELEMENT: u8 = 7;
pub(super) const ELEMENT: u8 = 8;
pub(super) const AFTER_ELEMENT: u8 = 9;
/// Not states: a container closes; an error.
pub(super) const CLOSE: u8 = 10;
pub(super) const WRONG: u8 = 11;

pub(super) const CLASSES: [u8; 256] = {
    let mut classes = [OTHER; 256];
    let known = [
        (b'{', OPEN_OBJECT),
        (b'[', OPEN_ARRAY),
        (b'}', CLOSE_OBJECT),
        (b']', CLOSE_ARRAY),
        (b':', COLON),
        (b',', COMMA),
        (b'"', STRING),
        (b'-', SCALAR),
        (b't', SCALAR),
        (b'f', SCALAR),
        (b'n', SCALAR),
    ];
    let mut at = 0;
    #[allow(clippy::indexing_slicing)] // at compile time
    while at < known.len() {
        classes[known[at].0 as usize] = known[at].1;
        at += 1;
    }
    let mut digit = b'0';
    #[allow(clippy::indexing_slicing)] // at compile time
    while digit <= b'9' {
        classes[digit as usize] = SCALAR;
        digit += 1;
    }
    classes
};

/// The state after a token: at `state * 16 + class`.
pub(super) const NEXT: [u8; 256] = {
    let mut next = [WRONG; 256];
    let known = [
        (TOP, STRING, DONE),
        (TOP, SCALAR, DONE),
        (TOP, OPEN_OBJECT, FIRST_KEY),
        (TOP, OPEN_ARRAY, FIRST_ELEMENT),
        (FIRST_KEY, STRING, AFTER_KEY),
        (FIRST_KEY, CLOSE_OBJECT, CLOSE),
        (KEY, STRING, AFTER_KEY),
        (AFTER_KEY, COLON, FIELD),
        (FIELD, STRING, AFTER_FIELD),
        (FIELD, SCALAR, AFTER_FIELD),
        (FIELD, OPEN_OBJECT, FIRST_KEY),
        (FIELD, OPEN_ARRAY, FIRST_ELEMENT),
        (AFTER_FIELD, COMMA, KEY),
        (AFTER_FIELD, CLOSE_OBJECT, CLOSE),
        (FIRST_ELEMENT, STRING, AFTER_ELEMENT),
        (FIRST_ELEMENT, SCALAR, AFTER_ELEMENT),
        (FIRST_ELEMENT, OPEN_OBJECT, FIRST_KEY),
        (FIRST_ELEMENT, OPEN_ARRAY, FIRST_ELEMENT),
        (FIRST_ELEMENT, CLOSE_ARRAY, CLOSE),
        (ELEMENT, STRING, AFTER_ELEMENT),
        (ELEMENT, SCALAR, AFTER_ELEMENT),
        (ELEMENT, OPEN_OBJECT, FIRST_KEY),
        (ELEMENT, OPEN_ARRAY, FIRST_ELEMENT),
        (AFTER_ELEMENT, COMMA, ELEMENT),
        (AFTER_ELEMENT, CLOSE_ARRAY, CLOSE),
    ];
    let mut at = 0;
    #[allow(clippy::indexing_slicing)] // at compile time
    while at < known.len() {
        next[(known[at].0 * 16 + known[at].1) as usize] = known[at].2;
        at += 1;
    }
    next
};

#[inline(always)]
pub(super) fn look_up(table: &[u8; 256], index: u8) -> u8 {
    table.get(usize::from(index)).copied().unwrap_or(OTHER)
}

/// The state after the last token of a block, for what its class leaves open: at `class * 2`, and one more within an object.
const AFTER: [u8; 16] = [
    // An opener, by what it opened.
    FIRST_ELEMENT,
    FIRST_KEY,
    FIRST_ELEMENT,
    FIRST_KEY,
    // A closer, by what is around it.
    AFTER_ELEMENT,
    AFTER_FIELD,
    AFTER_ELEMENT,
    AFTER_FIELD,
    FIELD,
    FIELD,
    ELEMENT,
    KEY,
    // A string that is no name, a number or word.
    AFTER_ELEMENT,
    AFTER_FIELD,
    AFTER_ELEMENT,
    AFTER_FIELD,
];

/// So many tokens cost less together than one after the other.
const MANY: u32 = 5;

/// Where the tokens of a block begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tokens {
    /// `{ [ } ] : ,`
    pub(super) operators: u64,
    pub(super) strings: u64,
    /// Numbers and words.
    pub(super) scalars: u64,
}

impl Tokens {
    #[inline(always)]
    pub(super) fn all(self) -> u64 {
        self.operators | self.strings | self.scalars
    }

    #[inline(always)]
    pub(super) fn are_many(self) -> bool {
        self.all().count_ones() >= MANY
    }

    /// The state and levels behind the block's tokens, when each may follow the one before it. `None` when one may not, and
    /// when the block may close all levels but `outermost`, or touches more than a word of them: then they are to be looked
    /// at one by one.
    ///
    /// # Safety
    /// The machine has the instructions of `L`.
    #[inline(always)]
    pub(super) unsafe fn follow<L: Lanes>(
        self,
        block: &[u8; block::SIZE],
        state: u8,
        mut levels: Levels,
        outermost: u32,
    ) -> Option<(u8, Levels)> {
        // SAFETY: as promised by the caller.
        let (brackets, colons) = unsafe { (L::brackets(block).only(self.operators), L::colons(block)) };
        let in_objects = levels.walk(brackets, outermost)?;
        let all = self.all();
        // Side by side, so that a token's predecessor is one bit below it.
        // SAFETY: as promised by the caller.
        let side_by_side = |mask| unsafe { L::compress(mask, all) };
        let strings = side_by_side(self.strings);
        let scalars = side_by_side(self.scalars);
        let openers = side_by_side(brackets.openers);
        let closers = side_by_side(brackets.closers);
        let colons = side_by_side(colons);
        let in_objects = side_by_side(in_objects);
        let last = all.count_ones().checked_sub(1)?;
        let tokens = u64::MAX >> (63 - last);
        let commas = tokens & !(strings | scalars | openers | closers | colons);

        let after = |mask: u64, states: u16| (mask << 1) | u64::from((states >> state) & 1);
        let after_opener = after(openers, (1 << FIRST_KEY) | (1 << FIRST_ELEMENT));
        let after_comma = after(commas, (1 << KEY) | (1 << ELEMENT));
        let after_colon = after(colons, 1 << FIELD);
        let keys = strings & in_objects & (after_opener | after_comma);
        let after_key = after(keys, 1 << AFTER_KEY);
        let ends = (strings & !keys) | scalars | closers;
        let after_value = after(ends, (1 << AFTER_FIELD) | (1 << AFTER_ELEMENT));
        let values = strings | scalars | openers;
        let items = (in_objects & strings) | (values & !in_objects);
        let right = (after_opener & (items | closers))
            | (after_comma & items)
            | (after_key & colons)
            | (after_colon & values)
            | (after_value & (commas | closers));
        if right != tokens {
            return None;
        }
        if (keys >> last) & 1 != 0 {
            return Some((AFTER_KEY, levels));
        }
        let byte = block.get(63 - all.leading_zeros() as usize).copied()?;
        let after = usize::from(look_up(&CLASSES, byte)) * 2 + usize::from(levels.in_object());
        Some((AFTER.get(after).copied()?, levels))
    }
}
