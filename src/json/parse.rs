//! [`JsonParser`]: a whole message into values, read where it lies. simd-json does the work; its types stay inside.
//!
//! Uses `frame`, `limits`, `error` and simd-json.

use std::{cell::Cell, fmt, mem};

use serde::{Deserialize, de::DeserializeOwned};
use simd_json::{Buffers, Deserializer, ErrorType, Tape, fill_tape_padded};

use super::Document;
use crate::{
    Frame,
    error::JsonReason,
    limits::{BLOCK_PADDING, MAX_JSON_DEPTH},
};

const _: () = assert!(BLOCK_PADDING >= simd_json::INPUT_PADDING);

/// Scratch memory that [`Frame::deserialize`] keeps per thread from one message to the next, in bytes.
const KEPT: usize = 1024 * 1024;

/// Why a message was not parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// It is not JSON, or JSON that has no value here: half of a surrogate pair, a number beyond 64-bit floats.
    #[error("not JSON near byte {near}: {reason}")]
    Invalid {
        /// An offset near the place, in bytes; 0 when it is not known. [`Validator`](crate::scan::json::Validator) tells
        /// the exact one.
        near: usize,
        /// What is wrong there.
        reason: JsonReason,
    },
    /// It is larger than the parser's offsets reach.
    #[error("message of {size} bytes is too large to be parsed")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// It is JSON, but not what the type wants.
    #[error("unexpected content: {0}")]
    Content(String),
}

impl ParseError {
    fn new(error: &simd_json::Error, size: usize) -> Self {
        let reason = match error.error() {
            ErrorType::InputTooLarge => return Self::TooLarge { size },
            ErrorType::Serde(text) => return Self::Content(text.clone()),
            ErrorType::DepthLimitExceeded => JsonReason::TooDeep,
            ErrorType::InvalidUtf8 => JsonReason::Utf8,
            ErrorType::InvalidEscape
            | ErrorType::InvalidUnicodeEscape
            | ErrorType::InvalidUnicodeCodepoint => JsonReason::Escape,
            ErrorType::Eof | ErrorType::UnterminatedString => JsonReason::Incomplete,
            _ => JsonReason::Unexpected,
        };
        Self::Invalid { near: error.index().min(size), reason }
    }

    /// An error of serde, behind the parser: what was parsed is JSON.
    fn of_content(error: &simd_json::Error) -> Self {
        match error.error() {
            ErrorType::Serde(text) => Self::Content(text.clone()),
            _ => Self::Content(error.to_string()),
        }
    }
}

/// Parses messages one after the other in the same memory: in the steady state it allocates nothing.
///
/// What is nested deeper than [`MAX_JSON_DEPTH`] is refused; nothing recurses. Of a name that stands twice both members
/// are kept. Integers beyond 64 bits become floats.
///
/// ```
/// use framewire::{Frame, json::JsonParser};
///
/// let mut parser = JsonParser::new();
/// let mut frame = Frame::copy_from_slice(br#"{"id": 7, "params": {"name": "a\u0064d"}}"#);
/// let document = parser.parse_in_place(&mut frame)?;
/// let name = document.value().get("params").and_then(|params| params.get("name"));
/// assert_eq!(name.and_then(|name| name.as_str()), Some("add"));
/// # Ok::<(), framewire::json::ParseError>(())
/// ```
pub struct JsonParser {
    buffers: Buffers,
    /// The memory of the last document's tape; empty.
    tape: Tape<'static>,
    /// Padded copies of messages whose bytes must not be written to.
    scratch: Vec<u8>,
}

impl JsonParser {
    /// A parser that holds no memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffers: Buffers::with_max_depth(0, MAX_JSON_DEPTH),
            tape: Tape(Vec::new()),
            scratch: Vec::new(),
        }
    }

    /// Parses a message where it lies: strings are unescaped in place, so **its bytes are of no meaning afterwards** (take
    /// what is needed of the [`Envelope`](super::Envelope) before). A frame that shares its block with others, or lies in
    /// a [`Bytes`](bytes::Bytes), is copied instead, and stays as it is.
    ///
    /// # Errors
    /// See [`ParseError`].
    pub fn parse_in_place<'a>(&'a mut self, frame: &'a mut Frame) -> Result<Document<'a>, ParseError> {
        let len = frame.len();
        // Asked twice: a borrow that is returned on one path would hold the frame on the other.
        if frame.padded_mut().is_none() {
            return self.parse_copy(frame);
        }
        let padded = frame.padded_mut().unwrap_or_default();
        Self::fill(&mut self.buffers, &mut self.tape, padded, len)
    }

    /// Parses a copy of `message`, for one whose bytes are still needed or are not the caller's own.
    ///
    /// # Errors
    /// See [`ParseError`].
    pub fn parse_copy(&mut self, message: &[u8]) -> Result<Document<'_>, ParseError> {
        self.scratch.clear();
        self.scratch.reserve(message.len().saturating_add(BLOCK_PADDING));
        self.scratch.extend_from_slice(message);
        self.scratch.extend_from_slice(&[b' '; BLOCK_PADDING]);
        Self::fill(&mut self.buffers, &mut self.tape, &mut self.scratch, message.len())
    }

    /// Parses `padded[..len]` in place, as [`parse_in_place`](Self::parse_in_place) does. Behind the message at least
    /// [`BLOCK_PADDING`] bytes of any content have to stand.
    ///
    /// # Errors
    /// See [`ParseError`].
    ///
    /// # Panics
    /// When the padding is not there.
    pub fn parse_padded<'a>(
        &'a mut self,
        padded: &'a mut [u8],
        len: usize,
    ) -> Result<Document<'a>, ParseError> {
        assert!(padded.len().checked_sub(len).is_some_and(|padding| padding >= BLOCK_PADDING), "no padding");
        Self::fill(&mut self.buffers, &mut self.tape, padded, len)
    }

    /// Parses a message as [`parse_in_place`](Self::parse_in_place) does and builds a value of it, which may borrow from
    /// the frame.
    ///
    /// # Errors
    /// See [`ParseError`].
    pub fn deserialize_in_place<'a, T: Deserialize<'a>>(
        &'a mut self,
        frame: &'a mut Frame,
    ) -> Result<T, ParseError> {
        let document = self.parse_in_place(frame)?;
        document.deserialize()
    }

    fn fill<'a>(
        buffers: &mut Buffers,
        home: &'a mut Tape<'static>,
        padded: &'a mut [u8],
        len: usize,
    ) -> Result<Document<'a>, ParseError> {
        debug_assert!(padded.len() >= len + BLOCK_PADDING);
        let mut tape = mem::replace(home, Tape(Vec::new())).reset();
        match fill_tape_padded(padded, len, buffers, &mut tape) {
            Ok(()) => Ok(Document::new(tape, home)),
            Err(error) => {
                *home = tape.reset();
                Err(ParseError::new(&error, len))
            }
        }
    }

    /// Bytes of scratch memory it holds for copies.
    fn footprint(&self) -> usize {
        self.scratch.capacity()
    }
}

impl Default for JsonParser {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for JsonParser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonParser").field("scratch", &self.scratch.capacity()).finish_non_exhaustive()
    }
}

impl<'a> Document<'a> {
    /// Builds a value of it.
    ///
    /// # Errors
    /// [`ParseError::Content`] when it is not what `T` wants.
    pub fn deserialize<T: Deserialize<'a>>(mut self) -> Result<T, ParseError> {
        let mut deserializer = Deserializer::from_tape(self.take());
        let value = T::deserialize(&mut deserializer);
        self.put_back(deserializer.into_tape());
        value.map_err(|error| ParseError::of_content(&error))
    }
}

thread_local! {
    static PARSER: Cell<Option<Box<JsonParser>>> = const { Cell::new(None) };
}

impl Frame {
    /// Builds a value of the message, which stays as it is. Memory is kept from one call of the thread to the next.
    ///
    /// ```
    /// use framewire::Frame;
    ///
    /// let frame = Frame::from_static(b"[1, 2, 3]");
    /// assert_eq!(frame.deserialize::<Vec<u8>>(), Ok(vec![1, 2, 3]));
    /// ```
    ///
    /// # Errors
    /// See [`ParseError`].
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, ParseError> {
        // Taken out meanwhile: a `Deserialize` may call this again. What a thread drops last finds none any more.
        let mut parser = PARSER.try_with(Cell::take).ok().flatten().unwrap_or_default();
        let value = parser.parse_copy(self).and_then(Document::deserialize);
        if parser.footprint() <= KEPT {
            let _ = PARSER.try_with(|kept| kept.set(Some(parser)));
        }
        value
    }
}
