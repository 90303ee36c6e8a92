//! Mask keys (RFC 6455 §10.3: nobody may be able to foresee them, or he could have a proxy read what he likes): from a
//! ChaCha12 generator for each thread, which the operating system's random numbers seed. A key from the system itself
//! would cost 15 ns even if 256 are asked for at once.

use std::{
    cell::RefCell,
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
};

use chacha20::{
    ChaCha12Rng,
    rand_core::{Rng, SeedableRng},
};

thread_local! {
    static KEYS: RefCell<ChaCha12Rng> = RefCell::new(seeded());
}

/// A key that nobody can foresee.
#[must_use]
#[inline]
pub(super) fn next() -> [u8; 4] {
    // The generator is dropped before the last of what a thread drops, which may still send.
    let key = KEYS.try_with(|keys| Some(keys.try_borrow_mut().ok()?.next_u32().to_ne_bytes()));
    key.ok().flatten().unwrap_or_else(from_hasher)
}

#[cold]
fn seeded() -> ChaCha12Rng {
    let mut seed = [[0; 4]; 8];
    if getrandom::fill(seed.as_flattened_mut()).is_err() {
        seed.fill_with(from_hasher);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(seed.as_flattened());
    ChaCha12Rng::from_seed(bytes)
}

/// Where the system has no random numbers to give: the standard library's seeds, which are as good as it could get them.
#[cold]
fn from_hasher() -> [u8; 4] {
    let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_ne_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        sync::{Arc, Mutex},
    };

    use super::*;

    const COUNT: usize = 1024;

    #[test]
    fn keys_do_not_repeat() {
        let keys: HashSet<_> = (0..COUNT).map(|_| next()).collect();
        assert!(keys.len() > COUNT - 3, "{}", keys.len());
        let keys: HashSet<_> = (0..COUNT).map(|_| from_hasher()).collect();
        assert!(keys.len() > COUNT - 3);
    }

    /// As two processes or threads have them.
    #[test]
    fn generators_differ() {
        assert_ne!(seeded().next_u64(), seeded().next_u64());
        let other = std::thread::spawn(|| (next(), next())).join().unwrap();
        assert_ne!((next(), next()), other);
    }

    /// Of what a thread drops last some may send, and some of that goes after the generator.
    #[test]
    fn a_thread_has_keys_to_its_end() {
        type Keys = Arc<Mutex<Vec<[u8; 4]>>>;

        struct Last(Keys);

        impl Drop for Last {
            fn drop(&mut self) {
                self.0.lock().unwrap().push(next());
            }
        }

        thread_local! {
            static BEFORE: RefCell<Option<Last>> = const { RefCell::new(None) };
            static AFTER: RefCell<Option<Last>> = const { RefCell::new(None) };
        }
        let keys = Keys::default();
        let (before, after) = (Last(keys.clone()), Last(keys.clone()));
        let thread = std::thread::spawn(move || {
            BEFORE.set(Some(before));
            let _key = next();
            AFTER.set(Some(after));
        });
        thread.join().unwrap();
        assert_eq!(keys.lock().unwrap().len(), 2);
    }
}
