//! Strings as they stand in a message.

use std::{borrow::Cow, fmt};

/// The bytes between the quotes of a JSON string, escapes and all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RawString<'a>(&'a [u8]);

impl<'a> RawString<'a> {
    /// `raw` are the bytes between the quotes.
    #[must_use]
    #[inline]
    pub(crate) fn new(raw: &'a [u8]) -> Self {
        Self(raw)
    }

    /// What stands between the quotes of `value`, a JSON value. `None` when that is no string.
    #[must_use]
    #[inline]
    pub fn of_value(value: &'a [u8]) -> Option<Self> {
        match value {
            [b'"', raw @ .., b'"'] => Some(Self(raw)),
            _ => None,
        }
    }

    /// The bytes between the quotes, escapes and all.
    #[must_use]
    pub fn raw(self) -> &'a [u8] {
        self.0
    }

    /// Whether it says `text` once its escapes are resolved. Allocates nothing.
    #[must_use]
    #[inline]
    pub fn is(self, text: &str) -> bool {
        if self.0 == text.as_bytes() {
            return !self.0.contains(&b'\\');
        }
        self.0.len() > text.len() && self.is_when_unescaped(text)
    }

    #[cold]
    fn is_when_unescaped(self, text: &str) -> bool {
        if !self.0.contains(&b'\\') {
            return false;
        }
        let mut rest = text.as_bytes();
        for part in (Parts { rest: self.0 }) {
            let Some(part) = part else { return false };
            let mut room = [0; 4];
            match rest.strip_prefix(part.bytes(&mut room)) {
                Some(left) => rest = left,
                None => return false,
            }
        }
        rest.is_empty()
    }

    /// What it says. Borrowed when there is nothing to unescape. `None` when it is not UTF-8 or has an escape that is
    /// none, which [`peek`](super::Envelope::peek) does not look at, or half of a surrogate pair.
    #[must_use]
    pub fn unescape(self) -> Option<Cow<'a, str>> {
        if !self.0.contains(&b'\\') {
            return std::str::from_utf8(self.0).ok().map(Cow::Borrowed);
        }
        let mut text = Vec::with_capacity(self.0.len());
        for part in (Parts { rest: self.0 }) {
            text.extend_from_slice(part?.bytes(&mut [0; 4]));
        }
        String::from_utf8(text).ok().map(Cow::Owned)
    }
}

/// As [`RawString::unescape`], of the bytes between the quotes of any string.
#[cfg(feature = "gateway")]
pub(crate) fn unescape(raw: &[u8]) -> Option<Cow<'_, str>> {
    RawString(raw).unescape()
}

impl fmt::Debug for RawString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

enum Part<'a> {
    Plain(&'a [u8]),
    Escaped(char),
}

impl<'a> Part<'a> {
    fn bytes<'b>(&'b self, room: &'b mut [u8; 4]) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Escaped(char) => char.encode_utf8(room).as_bytes(),
        }
    }
}

/// Runs of plain bytes and resolved escapes; `None` for one that cannot be resolved, after which nothing comes.
struct Parts<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Parts<'a> {
    type Item = Option<Part<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let (part, rest) = match self.rest {
            [] => return None,
            [b'\\', escape @ ..] => match resolve(escape) {
                Some((char, rest)) => (Some(Part::Escaped(char)), rest),
                None => (None, &[][..]),
            },
            plain => {
                let len = memchr::memchr(b'\\', plain).unwrap_or(plain.len());
                let (plain, rest) = plain.split_at(len);
                (Some(Part::Plain(plain)), rest)
            }
        };
        self.rest = rest;
        Some(part)
    }
}

/// What stands behind a backslash.
pub(super) fn resolve(escape: &[u8]) -> Option<(char, &[u8])> {
    let (&kind, rest) = escape.split_first()?;
    let char = match kind {
        b'"' | b'\\' | b'/' => char::from(kind),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let (first, rest) = unit(rest)?;
            if !(0xd800..0xdc00).contains(&first) {
                return Some((char::from_u32(first)?, rest));
            }
            let (second, rest) = unit(rest.strip_prefix(b"\\u")?)?;
            let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
            return Some((char::from_u32(0x10000 + ((first - 0xd800) << 10) + low)?, rest));
        }
        _ => return None,
    };
    Some((char, rest))
}

/// Four hexadecimal digits.
fn unit(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = bytes.split_first_chunk::<4>()?;
    let mut unit = 0;
    for digit in digits {
        unit = unit * 16 + char::from(*digit).to_digit(16)?;
    }
    Some((unit, rest))
}
