//! Tokens of a text that comes in chunks. Each chunk is proved first, as far as it is good, so that here only the
//! boundaries of tokens have to be found.

use super::super::cursor::near_quote;
use crate::{
    error::JsonReason,
    scan::json::{Backend, Invalid, Nesting, Validator, blanks_end, string_end},
};

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    BeginObject,
    EndObject,
    BeginArray,
    EndArray,
    Key,
    String,
    Number,
    True,
    False,
    Null,
}

/// A token and where it lies in the chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) what: What,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) is_first: bool,
    pub(super) is_last: bool,
}

/// The token that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    Nothing,
    /// A name or a string, and whether part of it has come out. `escaped`: its next byte is.
    String {
        what: What,
        escaped: bool,
        is_first: bool,
    },
    Number {
        is_first: bool,
    },
    /// A word of which so many letters are still to come.
    Word {
        what: What,
        left: usize,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Tokens {
    backend: Backend,
    validator: Validator,
    many: bool,
    nesting: Nesting,
    inside: Inside,
    /// A string that begins now is a name.
    is_key: bool,
    /// The outermost value that the validator looks at is whole.
    is_whole: bool,
    /// Another may follow at once.
    is_apart: bool,
    values: u64,
    /// Bytes fed before the one that the validator saw first.
    base: u64,
    /// Bytes fed, of chunks before this one.
    before: u64,
    /// How far the tokens of this chunk have come out, and how far it is good.
    at: usize,
    end: usize,
    len: usize,
    failed: Option<Invalid>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Tokens {
    pub(super) fn new(many: bool) -> Self {
        Self {
            backend: Backend::detect(),
            validator: Validator::new(),
            many,
            nesting: Nesting::new(),
            inside: Inside::Nothing,
            is_key: false,
            is_whole: false,
            is_apart: false,
            values: 0,
            base: 0,
            before: 0,
            at: 0,
            end: 0,
            len: 0,
            failed: None,
        }
    }

    pub(super) fn reset(&mut self) {
        *self = Self::new(self.many);
    }

    pub(super) fn depth(&self) -> usize {
        self.nesting.depth() as usize
    }

    pub(super) fn values(&self) -> u64 {
        self.values
    }

    /// Takes the next chunk in; all tokens of the last one have come out.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.before += self.len as u64;
        self.at = 0;
        self.end = 0;
        self.len = bytes.len();
        if self.failed.is_none() {
            self.prove(bytes);
        }
    }

    /// Finds out how far the chunk is good, from `end` on.
    fn prove(&mut self, bytes: &[u8]) {
        match self.validator.feed(bytes.get(self.end..).unwrap_or_default()) {
            Ok(()) => self.end = bytes.len(),
            Err(Invalid { at, reason }) => {
                let at = self.base + at;
                self.failed = Some(Invalid { at, reason });
                // A character that the last chunk cut may be bad from there on.
                self.end = at.checked_sub(self.before).map_or(0, |at| at as usize).max(self.end);
            }
        }
    }

    /// The next token of the chunk, which is that of the last [`feed`](Self::feed).
    #[inline]
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<Option<Token>, Invalid> {
        loop {
            let rest = bytes.get(self.at..self.end).unwrap_or_default();
            let Some(&byte) = rest.first() else {
                if self.goes_on(bytes) {
                    continue;
                }
                return self.failed.map_or(Ok(None), Err);
            };
            match self.inside {
                Inside::Nothing => {}
                Inside::String { what, escaped, is_first } => {
                    return Ok(Some(self.string(rest, what, escaped, is_first)));
                }
                Inside::Number { is_first } => return Ok(Some(self.number(rest, is_first))),
                Inside::Word { what, left } => {
                    let now = left.min(rest.len());
                    self.at += now;
                    if now < left {
                        self.inside = Inside::Word { what, left: left - now };
                        continue;
                    }
                    self.inside = Inside::Nothing;
                    self.ended(false);
                    return Ok(Some(self.token(what)));
                }
            }
            match byte {
                b'"' => {
                    let what = if self.is_key { What::Key } else { What::String };
                    self.is_key = false;
                    self.at += 1;
                    let rest = rest.get(1..).unwrap_or_default();
                    if rest.is_empty() {
                        self.inside = Inside::String { what, escaped: false, is_first: true };
                        continue;
                    }
                    return Ok(Some(self.string(rest, what, false, true)));
                }
                b',' => {
                    self.at += 1;
                    self.is_key = self.nesting.in_object();
                }
                b':' => self.at += 1,
                b' ' | b'\t' | b'\n' | b'\r' => {
                    self.is_apart = true;
                    self.at += match rest.get(1) {
                        Some(b' ' | b'\t' | b'\n' | b'\r') => blanks_end(self.backend, rest),
                        _ => 1,
                    };
                }
                b'{' | b'[' => {
                    let object = byte == b'{';
                    self.at += 1;
                    self.is_key = object;
                    // It was proved that there is a level left.
                    self.nesting.push(object);
                    return Ok(Some(self.token(if object { What::BeginObject } else { What::BeginArray })));
                }
                b'}' | b']' => {
                    let object = byte == b'}';
                    self.at += 1;
                    self.is_key = false;
                    self.nesting.pop(object);
                    self.ended(true);
                    return Ok(Some(self.token(if object { What::EndObject } else { What::EndArray })));
                }
                b't' => self.inside = Inside::Word { what: What::True, left: 4 },
                b'f' => self.inside = Inside::Word { what: What::False, left: 5 },
                b'n' => self.inside = Inside::Word { what: What::Null, left: 4 },
                _ => return Ok(Some(self.number(rest, true))),
            }
        }
    }

    #[inline]
    fn token(&self, what: What) -> Token {
        Token { what, start: self.at, end: self.at, is_first: true, is_last: true }
    }

    /// What is there of a string behind its opening quote: not nothing.
    #[inline]
    fn string(&mut self, rest: &[u8], what: What, mut escaped: bool, is_first: bool) -> Token {
        let near = if escaped { None } else { near_quote(rest) };
        let found = near.or_else(|| string_end(self.backend, rest, &mut escaped));
        let start = self.at;
        let end = start + found.unwrap_or(rest.len());
        if found.is_some() {
            self.at = end + 1;
            self.inside = Inside::Nothing;
            self.ended(true);
        } else {
            self.at = end;
            self.inside = Inside::String { what, escaped, is_first: false };
        }
        Token { what, start, end, is_first, is_last: found.is_some() }
    }

    /// What is there of a number, which may be nothing when it is not the first part.
    #[inline]
    fn number(&mut self, rest: &[u8], is_first: bool) -> Token {
        let len = rest
            .iter()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
            .unwrap_or(rest.len());
        let start = self.at;
        self.at += len;
        let is_last = len < rest.len();
        if is_last {
            self.inside = Inside::Nothing;
            self.ended(false);
        } else {
            self.inside = Inside::Number { is_first: false };
        }
        Token { what: What::Number, start, end: self.at, is_first, is_last }
    }

    /// A value has ended; `apart`: by a byte of its own.
    #[inline]
    fn ended(&mut self, apart: bool) {
        if self.nesting.depth() == 0 {
            self.is_whole = true;
            self.is_apart = apart;
            self.values += 1;
        }
    }

    /// Whether what is wrong with the chunk from `end` on is only that another value begins there.
    #[cold]
    fn goes_on(&mut self, bytes: &[u8]) -> bool {
        let is_next = matches!(self.failed, Some(Invalid { reason: JsonReason::Unexpected, .. }))
            && self.many
            && self.is_whole
            && self.is_apart
            && self.inside == Inside::Nothing
            && self.end < bytes.len();
        if is_next {
            self.failed = None;
            self.is_whole = false;
            self.validator.reset();
            self.base = self.before + self.end as u64;
            self.prove(bytes);
        }
        is_next
    }

    pub(super) fn finish(&mut self) -> Result<Option<Token>, Invalid> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let nothing = !self.is_whole && self.inside == Inside::Nothing && self.nesting.depth() == 0;
        if self.many && nothing {
            return Ok(None);
        }
        if let Err(Invalid { at, reason }) = self.validator.finish() {
            return Err(Invalid { at: self.base + at, reason });
        }
        let Inside::Number { .. } = self.inside else { return Ok(None) };
        self.inside = Inside::Nothing;
        self.ended(false);
        Ok(Some(Token { what: What::Number, start: 0, end: 0, is_first: false, is_last: true }))
    }
}
