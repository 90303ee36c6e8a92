//! Requests under way, found by their ids.
//!
//! Used by supervisor and bridge. Keeps its memory: in the steady state a request costs none.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
};

use crate::json::{Envelope, Id};

const NONE: u32 = u32::MAX;

/// Capacity in bytes that a place keeps for the next id.
const KEPT: usize = 64;

/// An id as it is compared: strings with their escapes resolved, as a server may write another escape for the same text.
#[derive(Debug)]
pub(in crate::gateway) struct Key<'a> {
    /// As it came, quotes included.
    raw: &'a [u8],
    text: Cow<'a, [u8]>,
}

impl<'a> Key<'a> {
    /// `None` when there is no id, or one that names nothing.
    pub(in crate::gateway) fn of(envelope: &Envelope<'a>) -> Option<Self> {
        let raw = envelope.raw_id()?;
        let text = match envelope.id() {
            Id::Integer(_) => Cow::Borrowed(raw),
            Id::String(string) => plain(raw, string.raw(), || string.unescape()),
            _ => return None,
        };
        Some(Self { raw, text })
    }

    /// That of a value within a message: a requestId.
    pub(in crate::gateway) fn of_value(raw: &'a [u8]) -> Option<Self> {
        let text = match raw {
            [b'"', inner @ .., b'"'] => plain(raw, inner, || crate::json::unescape(inner)),
            [b'-' | b'0'..=b'9', ..] => Cow::Borrowed(raw),
            _ => return None,
        };
        Some(Self { raw, text })
    }

    pub(in crate::gateway) fn text(&self) -> &[u8] {
        &self.text
    }

    pub(in crate::gateway) fn raw(&self) -> &'a [u8] {
        self.raw
    }
}

/// The text between the quotes, with the first one before it: no string is the same as a number.
fn plain<'a>(raw: &'a [u8], inner: &[u8], unescape: impl FnOnce() -> Option<Cow<'a, str>>) -> Cow<'a, [u8]> {
    if inner.contains(&b'\\')
        && let Some(text) = unescape()
    {
        return Cow::Owned([b"\"", text.as_bytes()].concat());
    }
    Cow::Borrowed(raw.strip_suffix(b"\"").unwrap_or(raw))
}

#[derive(Debug)]
struct Place {
    /// The text, then the id as it came where that is another.
    bytes: Vec<u8>,
    text: usize,
    hash: u64,
    /// The next with the same hash, or the next that is free.
    next: u32,
    live: bool,
    tag: u8,
}

impl Place {
    fn text(&self) -> &[u8] {
        self.bytes.get(..self.text).unwrap_or_default()
    }

    fn raw<'a>(&'a self, room: &'a mut Vec<u8>) -> &'a [u8] {
        if self.bytes.len() > self.text {
            return self.bytes.get(self.text..).unwrap_or_default();
        }
        if self.bytes.first() != Some(&b'"') {
            return &self.bytes;
        }
        room.clear();
        room.extend_from_slice(&self.bytes);
        room.push(b'"');
        room
    }
}

/// The hash is a hash already.
#[derive(Debug, Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Requests under way. Two of the same id are two.
#[derive(Debug)]
pub(in crate::gateway) struct Calls {
    places: Vec<Place>,
    free: u32,
    by_hash: HashMap<u64, u32, BuildHasherDefault<Same>>,
    /// Keyed, as a peer chooses the ids.
    hasher: RandomState,
    len: usize,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: NONE,
            by_hash: HashMap::default(),
            hasher: RandomState::new(),
            len: 0,
        }
    }
}

impl Calls {
    pub(in crate::gateway) fn len(&self) -> usize {
        self.len
    }

    pub(in crate::gateway) fn insert(&mut self, key: &Key<'_>, tag: u8) {
        let hash = self.hasher.hash_one(&*key.text);
        let index = if self.free == NONE {
            self.places.push(Place { bytes: Vec::new(), text: 0, hash, next: NONE, live: true, tag });
            // Limits on requests in flight are far below.
            u32::try_from(self.places.len() - 1).unwrap_or(NONE)
        } else {
            self.free
        };
        let Some(place) = self.places.get_mut(index as usize) else { return };
        if self.free == index {
            self.free = place.next;
        }
        place.bytes.clear();
        place.bytes.extend_from_slice(&key.text);
        place.text = key.text.len();
        if matches!(key.text, Cow::Owned(_)) {
            place.bytes.extend_from_slice(key.raw);
        }
        (place.hash, place.live, place.tag) = (hash, true, tag);
        place.next = self.by_hash.insert(hash, index).unwrap_or(NONE);
        self.len += 1;
    }

    pub(in crate::gateway) fn contains(&self, key: &Key<'_>) -> bool {
        if self.len == 0 {
            return false;
        }
        let mut at = self.by_hash.get(&self.hasher.hash_one(&*key.text)).copied().unwrap_or(NONE);
        while let Some(place) = self.places.get(at as usize) {
            if place.text() == &*key.text {
                return true;
            }
            at = place.next;
        }
        false
    }

    /// Takes one with this id out and gives its tag; of several the oldest.
    pub(in crate::gateway) fn remove(&mut self, key: &Key<'_>) -> Option<u8> {
        if self.len == 0 {
            return None;
        }
        let hash = self.hasher.hash_one(&*key.text);
        let Entry::Occupied(mut first) = self.by_hash.entry(hash) else { return None };
        let (mut before, mut at, mut found) = (NONE, *first.get(), None);
        while let Some(place) = self.places.get(at as usize) {
            if place.text() == &*key.text {
                found = Some((before, at));
            }
            (before, at) = (at, place.next);
        }
        let (before, index) = found?;
        let place = self.places.get_mut(index as usize)?;
        let (after, tag) = (place.next, place.tag);
        place.live = false;
        place.next = self.free;
        if place.bytes.capacity() > KEPT {
            place.bytes = Vec::new();
        }
        self.free = index;
        self.len -= 1;
        match self.places.get_mut(before as usize) {
            Some(before) => before.next = after,
            None if after == NONE => {
                first.remove();
            }
            None => *first.get_mut() = after,
        }
        Some(tag)
    }

    /// Takes all out; each is given with its id as it came and its tag.
    pub(in crate::gateway) fn drain(&mut self, mut each: impl FnMut(&[u8], u8)) {
        let mut room = Vec::new();
        for place in self.places.iter().filter(|place| place.live) {
            each(place.raw(&mut room), place.tag);
        }
        self.clear();
    }

    pub(in crate::gateway) fn clear(&mut self) {
        self.places = Vec::new();
        self.by_hash.clear();
        (self.free, self.len) = (NONE, 0);
    }
}
