//! Walks over a message value by value: strings and blanks by whole blocks, containers without looking into them.

use std::ops::Range;

use super::text::RawString;
use crate::{
    error::JsonReason,
    scan::json::{Backend, Container, Invalid, Scalar, blanks_end, skip, string_end},
};

/// Blanks that are looked at one by one before whole blocks are.
const NEAR: usize = 4;

#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    backend: Backend,
    /// Containers of the message that are open around what is walked over.
    level: u32,
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8], at: usize, level: u32) -> Self {
        Self { bytes, at, backend: Backend::detect(), level }
    }

    #[inline]
    pub(super) fn invalid<T>(&self, at: usize) -> Result<T, Invalid> {
        let reason = if at >= self.bytes.len() { JsonReason::Incomplete } else { JsonReason::Unexpected };
        Err(Invalid { at: at as u64, reason })
    }

    /// The next byte that is no blank.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        for _ in 0..NEAR {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                byte => return byte.copied(),
            }
        }
        self.far()
    }

    #[inline(never)]
    fn far(&mut self) -> Option<u8> {
        self.at += blanks_end(self.backend, self.bytes.get(self.at..).unwrap_or_default());
        self.bytes.get(self.at).copied()
    }

    /// Takes `byte`, which has to be the next that is no blank.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> Result<(), Invalid> {
        if self.peek() != Some(byte) {
            return self.invalid(self.at);
        }
        self.at += 1;
        Ok(())
    }

    /// A string whose first quote is the next byte.
    #[inline]
    pub(super) fn string(&mut self) -> Result<RawString<'a>, Invalid> {
        let start = self.at + 1;
        let rest = self.bytes.get(start..).unwrap_or_default();
        let len = match near_quote(rest) {
            Some(len) => len,
            None => match string_end(self.backend, rest, &mut false) {
                Some(len) => len,
                None => return self.invalid(self.bytes.len()),
            },
        };
        self.at = start + len + 1;
        Ok(RawString::new(rest.get(..len).unwrap_or_default()))
    }

    /// Any value, which begins with the next byte.
    #[inline]
    pub(super) fn value(&mut self) -> Result<Range<usize>, Invalid> {
        let start = self.at;
        match self.bytes.get(start) {
            Some(b'"') => {
                self.string()?;
            }
            Some(b'{' | b'[') => self.container()?,
            first => self.scalar(first)?,
        }
        Ok(start..self.at)
    }

    fn container(&mut self) -> Result<(), Invalid> {
        match skip(self.backend, self.bytes, self.at, self.level) {
            Container::Closed { end } => {
                self.at = end;
                Ok(())
            }
            Container::Open => self.invalid(self.bytes.len()),
            Container::Mismatched { at } => self.invalid(at),
            Container::TooDeep { at } => Err(Invalid { at: at as u64, reason: JsonReason::TooDeep }),
        }
    }

    fn scalar(&mut self, first: Option<&u8>) -> Result<(), Invalid> {
        let Some(mut scalar) = first.and_then(|first| Scalar::start(*first)) else {
            return self.invalid(self.at);
        };
        let rest = self.bytes.get(self.at + 1..).unwrap_or_default();
        let len = scalar.feed(rest).err().unwrap_or(rest.len());
        self.at += 1 + len;
        if scalar.is_complete() { Ok(()) } else { self.invalid(self.at) }
    }
}

/// The quote that ends a short string without escapes: names mostly are such.
#[inline]
pub(super) fn near_quote(rest: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    // The lowest mark is right, those above it may be wrong.
    let marks = |word: u64, byte: u8| {
        let zero = word ^ (ONES * u64::from(byte));
        zero.wrapping_sub(ONES) & !zero & HIGH
    };
    let (words, _) = rest.as_chunks::<8>();
    for (index, word) in words.iter().take(2).enumerate() {
        let word = u64::from_le_bytes(*word);
        let (quotes, backslashes) = (marks(word, b'"'), marks(word, b'\\'));
        if quotes | backslashes != 0 {
            let at = (quotes | backslashes).trailing_zeros();
            return (quotes >> at & 1 != 0).then_some(index * 8 + at as usize / 8);
        }
    }
    None
}
