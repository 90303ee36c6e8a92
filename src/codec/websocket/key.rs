//! Mask keys: from the operating system's random numbers, drawn for each thread in batches (RFC 6455 §10.3: nobody may
//! be able to foresee them, or he could have a proxy read what he likes).

use std::{
    cell::Cell,
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
};

/// Keys drawn at once.
const BATCH: usize = 256;

struct Keys {
    keys: [Cell<[u8; 4]>; BATCH],
    used: Cell<usize>,
}

thread_local! {
    static KEYS: Keys = const { Keys { keys: [const { Cell::new([0; 4]) }; BATCH], used: Cell::new(BATCH) } };
}

/// A key that was not used before.
#[must_use]
#[inline]
pub(super) fn next() -> [u8; 4] {
    KEYS.with(|keys| {
        let used = keys.used.get();
        match keys.keys.get(used) {
            Some(key) => {
                keys.used.set(used + 1);
                key.get()
            }
            None => keys.draw(),
        }
    })
}

impl Keys {
    #[cold]
    fn draw(&self) -> [u8; 4] {
        let mut bytes = [[0; 4]; BATCH];
        if getrandom::fill(bytes.as_flattened_mut()).is_err() {
            bytes.fill_with(from_hasher);
        }
        for (key, bytes) in self.keys.iter().zip(bytes) {
            key.set(bytes);
        }
        self.used.set(1);
        let [first, ..] = bytes;
        first
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
