//! Places that are used again, each use under a number of its own.
//!
//! Used by hub only. A number is never used twice for different things within four thousand million uses of a place, so
//! what comes late finds nothing rather than someone else's.

/// Bits of a number that tell the place. With the uses a number stays below 2^53, which every JSON parser keeps.
const PLACE_BITS: u32 = 20;

/// Most places.
pub(super) const MAX_PLACES: usize = 1 << PLACE_BITS;

#[derive(Debug, Default)]
struct Place<T> {
    uses: u32,
    live: bool,
    value: T,
}

/// Values under numbers. What a value holds is kept for the next use of its place.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

fn split(number: u64) -> (usize, u64) {
    let place = number & (MAX_PLACES as u64 - 1);
    // It has twenty bits.
    (usize::try_from(place).unwrap_or(usize::MAX), number >> PLACE_BITS)
}

impl<T: Default> Slab<T> {
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// A place for a value, which is as the last use left it, and its number. `None` when all are taken.
    pub(super) fn take(&mut self) -> Option<(u64, &mut T)> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.places.len() >= MAX_PLACES => return None,
            None => {
                self.places.push(Place::default());
                // Room to free it, so that freeing costs nothing.
                self.free.reserve(self.places.len());
                u32::try_from(self.places.len() - 1).ok()?
            }
        };
        let place = self.places.get_mut(index as usize)?;
        place.live = true;
        let number = u64::from(place.uses) << PLACE_BITS | u64::from(index);
        Some((number, &mut place.value))
    }

    pub(super) fn get(&mut self, number: u64) -> Option<&mut T> {
        let (index, uses) = split(number);
        let place = self.places.get_mut(index)?;
        (place.live && u64::from(place.uses) == uses).then_some(&mut place.value)
    }

    /// Frees the place. What it held stays there for the caller to look at until the next use.
    pub(super) fn free(&mut self, number: u64) -> Option<&mut T> {
        let (index, uses) = split(number);
        let place = self.places.get_mut(index)?;
        if !place.live || u64::from(place.uses) != uses {
            return None;
        }
        place.live = false;
        place.uses = place.uses.wrapping_add(1);
        self.free.push(u32::try_from(index).ok()?);
        Some(&mut place.value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        (0_u64..).zip(&self.places).filter(|(_, place)| place.live).map(|(index, place)| {
            let number = u64::from(place.uses) << PLACE_BITS | index;
            (number, &place.value)
        })
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        (0_u64..).zip(&mut self.places).filter(|(_, place)| place.live).map(|(index, place)| {
            let number = u64::from(place.uses) << PLACE_BITS | index;
            (number, &mut place.value)
        })
    }
}

/// A number as JSON.
pub(super) struct Digits {
    bytes: [u8; 20],
    start: usize,
}

impl Digits {
    pub(super) fn of(mut number: u64) -> Self {
        let mut digits = Self { bytes: [b'0'; 20], start: 20 };
        for byte in digits.bytes.iter_mut().rev() {
            *byte = b'0' + (number % 10) as u8;
            number /= 10;
            digits.start -= 1;
            if number == 0 {
                break;
            }
        }
        digits
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

/// The number that JSON says. `None` for anything that [`Digits`] does not write.
pub(super) fn number(json: &[u8]) -> Option<u64> {
    if json.is_empty() || json.len() > 16 || (json.len() > 1 && json.first() == Some(&b'0')) {
        return None;
    }
    json.iter()
        .try_fold(0_u64, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_and_read() {
        for value in [0, 1, 9, 10, 1 << 20, (1 << 52) - 1] {
            let digits = Digits::of(value);
            assert_eq!(digits.as_slice(), value.to_string().as_bytes());
            assert_eq!(number(digits.as_slice()), Some(value));
        }
        for other in [&b""[..], b"01", b"-1", b"1.0", b"\"1\"", b"99999999999999999999"] {
            assert_eq!(number(other), None);
        }
    }

    #[test]
    fn what_comes_late_finds_nothing() {
        let mut slab = Slab::<u8>::default();
        let (first, value) = slab.take().unwrap();
        *value = 7;
        assert_eq!(slab.free(first), Some(&mut 7));
        assert_eq!(slab.free(first), None);
        let (second, _) = slab.take().unwrap();
        assert_ne!(first, second);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.len(), 1);
    }
}
