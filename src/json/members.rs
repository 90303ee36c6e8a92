//! The members of one object: walked over, or collected while the message is validated.

use std::ops::Range;

use super::{cursor::Cursor, text::RawString};
use crate::scan::json::{Invalid, Observe};

/// A name that matters in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Jsonrpc,
    Id,
    Method,
    Params,
    Result,
    Error,
}

impl Known {
    /// The name that `bytes` begin with and the length up to its value, when it stands as nearly all write it: without
    /// escapes, and without blanks before the colon.
    #[inline]
    fn at(bytes: &[u8]) -> Option<(Self, usize)> {
        // Each compared with a constant, which takes a word or two.
        match bytes.get(1)? {
            b'i' if bytes.starts_with(br#""id":"#) => Some((Self::Id, 5)),
            b'm' if bytes.starts_with(br#""method":"#) => Some((Self::Method, 9)),
            b'p' if bytes.starts_with(br#""params":"#) => Some((Self::Params, 9)),
            b'r' if bytes.starts_with(br#""result":"#) => Some((Self::Result, 9)),
            b'e' if bytes.starts_with(br#""error":"#) => Some((Self::Error, 8)),
            b'j' if bytes.starts_with(br#""jsonrpc":"#) => Some((Self::Jsonrpc, 10)),
            _ => None,
        }
    }
}

/// Walks over an object's members without looking into them.
pub(crate) struct Members<'a> {
    pub(super) cursor: Cursor<'a>,
    first: bool,
}

impl<'a> Members<'a> {
    /// Those of the object whose opening bracket is at `at`, with `level` containers open around it.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], at: usize, level: u32) -> Self {
        Self { cursor: Cursor::new(bytes, at + 1, level + 1), first: true }
    }

    /// Goes on at `at`, behind the value of a member.
    #[inline]
    pub(super) fn go_on(&mut self, at: usize) {
        self.cursor.at = at;
        self.first = false;
    }

    /// The next member when its name is one of those that matter and stands at once; `None` says nothing else.
    #[inline]
    pub(super) fn next_known(&mut self) -> Result<Option<(Known, Range<usize>)>, Invalid> {
        let cursor = &mut self.cursor;
        let start = match cursor.bytes.get(cursor.at) {
            Some(b',') if !self.first => cursor.at + 1,
            Some(b'"') if self.first => cursor.at,
            _ => return Ok(None),
        };
        let Some((known, len)) = Known::at(cursor.bytes.get(start..).unwrap_or_default()) else {
            return Ok(None);
        };
        self.first = false;
        cursor.at = start + len;
        cursor.peek();
        Ok(Some((known, cursor.value()?)))
    }

    /// The next name and where its value lies.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(RawString<'a>, Range<usize>)>, Invalid> {
        let cursor = &mut self.cursor;
        match cursor.peek() {
            Some(b'}') => {
                cursor.at += 1;
                return Ok(None);
            }
            Some(b',') if !self.first => {
                cursor.at += 1;
                cursor.peek();
            }
            Some(b'"') if self.first => {}
            _ => return cursor.invalid(cursor.at),
        }
        self.first = false;
        if cursor.bytes.get(cursor.at) != Some(&b'"') {
            return cursor.invalid(cursor.at);
        }
        let name = cursor.string()?;
        cursor.take(b':')?;
        cursor.peek();
        let value = cursor.value()?;
        Ok(Some((name, value)))
    }
}

/// Sees the members of the outermost object go by while the message is validated.
pub(super) struct Collect<'a, F> {
    bytes: &'a [u8],
    name: Range<usize>,
    /// 0: no value has begun. Never the index of one, as a brace stands before it.
    value: usize,
    member: F,
}

impl<'a, F: FnMut(RawString<'a>, Range<usize>)> Collect<'a, F> {
    pub(super) fn new(bytes: &'a [u8], member: F) -> Self {
        Self { bytes, name: 0..0, value: 0, member }
    }
}

impl<'a, F: FnMut(RawString<'a>, Range<usize>)> Observe for Collect<'a, F> {
    const ON: bool = true;

    #[inline]
    fn token(&mut self, at: usize, end: usize, byte: u8, is_key: bool) {
        match byte {
            b'"' if is_key => self.name.start = at + 1,
            b':' => {
                self.name.end = end - 1;
                self.value = 0;
            }
            b',' | b'}' | b']' if self.value != 0 => {
                let name = self.bytes.get(self.name.clone()).unwrap_or_default();
                (self.member)(RawString::new(name), self.value..end);
                self.value = 0;
            }
            _ => self.value = at,
        }
    }
}
