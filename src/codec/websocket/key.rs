//! Mask keys: from the operating system's random numbers, drawn for each thread in batches (RFC 6455 §10.3: nobody may
//! be able to foresee them, or he could have a proxy read what he likes).

use std::{
    cell::RefCell,
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
};

/// Keys drawn at once.
const BATCH: usize = 256;

struct Keys {
    bytes: [u8; 4 * BATCH],
    used: usize,
}

thread_local! {
    static KEYS: RefCell<Keys> = const { RefCell::new(Keys { bytes: [0; 4 * BATCH], used: BATCH }) };
}

/// A key that was not used before.
#[must_use]
#[inline]
pub(super) fn next() -> [u8; 4] {
    KEYS.with(|keys| match keys.try_borrow_mut() {
        Ok(mut keys) => keys.next(),
        Err(_) => from_hasher(),
    })
}

impl Keys {
    #[inline]
    fn next(&mut self) -> [u8; 4] {
        if self.used >= BATCH {
            self.draw();
        }
        let (keys, _) = self.bytes.as_chunks::<4>();
        let key = keys.get(self.used).copied().unwrap_or_default();
        self.used += 1;
        key
    }

    #[cold]
    fn draw(&mut self) {
        self.used = 0;
        if getrandom::fill(&mut self.bytes).is_err() {
            let (keys, _) = self.bytes.as_chunks_mut::<4>();
            keys.fill_with(from_hasher);
        }
    }
}

/// Where the system has no random numbers to give: the standard library's seeds, which are as good as it could get them.
#[cold]
fn from_hasher() -> [u8; 4] {
    let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_ne_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_do_not_repeat() {
        let keys: HashSet<_> = (0..4 * BATCH).map(|_| next()).collect();
        assert!(keys.len() > 4 * BATCH - 3, "{}", keys.len());
        let keys: HashSet<_> = (0..BATCH).map(|_| from_hasher()).collect();
        assert!(keys.len() > BATCH - 3);
    }
}
