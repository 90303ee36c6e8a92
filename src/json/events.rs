//! JSON that is larger than memory allows to hold, part by part: [`EventParser`] from chunks, `EventReader` (feature
//! `link`) from a reader.
//!
//! Uses `scan` and, for readers, `buffer`. Whatever the size of a value, what is kept of it is its depth.

#[cfg(feature = "link")]
mod reader;
mod tokens;
mod unescape;

#[cfg(feature = "link")]
pub use reader::EventReader;
pub use unescape::{LoneSurrogate, Unescape};

use self::tokens::{Token, Tokens, What};
use crate::scan::json::Invalid;

/// A part of a JSON text. Long names, strings and numbers come in chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// `{`
    BeginObject,
    /// `}`
    EndObject,
    /// `[`
    BeginArray,
    /// `]`
    EndArray,
    /// Part of the name of a member, or all of it.
    Key(Chunk<'a>),
    /// Part of a string, or all of it.
    String(Chunk<'a>),
    /// Part of a number, or all of it.
    Number(Chunk<'a>),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}

/// Part of a name, string or number.
///
/// The chunks of a value, one after the other, are its bytes as they came, without a string's quotes; escapes are not
/// resolved ([`Unescape`] does). A chunk ends where a chunk of the input ended, be it inside a character or an escape. The
/// last one may be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a> {
    bytes: &'a [u8],
    is_first: bool,
    is_last: bool,
}

impl<'a> Chunk<'a> {
    /// The bytes as they came.
    #[must_use]
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Whether the value begins with it.
    #[must_use]
    #[inline]
    pub fn is_first(self) -> bool {
        self.is_first
    }

    /// Whether the value ends with it.
    #[must_use]
    #[inline]
    pub fn is_last(self) -> bool {
        self.is_last
    }

    /// The whole value, when it came in one chunk.
    #[must_use]
    #[inline]
    pub fn whole(self) -> Option<&'a [u8]> {
        (self.is_first && self.is_last).then_some(self.bytes)
    }
}

/// Is told the parts of a JSON text. Every method has an empty default.
pub trait EventHandler {
    /// `{`
    fn on_begin_object(&mut self) {}

    /// `}`
    fn on_end_object(&mut self) {}

    /// `[`
    fn on_begin_array(&mut self) {}

    /// `]`
    fn on_end_array(&mut self) {}

    /// Part of the name of a member, or all of it.
    fn on_key(&mut self, chunk: Chunk<'_>) {
        let _ = chunk;
    }

    /// Part of a string, or all of it.
    fn on_string_chunk(&mut self, chunk: Chunk<'_>) {
        let _ = chunk;
    }

    /// Part of a number, or all of it.
    fn on_number_chunk(&mut self, chunk: Chunk<'_>) {
        let _ = chunk;
    }

    /// `true` or `false`.
    fn on_bool(&mut self, value: bool) {
        let _ = value;
    }

    /// `null`.
    fn on_null(&mut self) {}
}

impl<'a> Event<'a> {
    fn new(token: Token, bytes: &'a [u8]) -> Self {
        let chunk = || Chunk {
            bytes: bytes.get(token.start..token.end).unwrap_or_default(),
            is_first: token.is_first,
            is_last: token.is_last,
        };
        match token.what {
            What::BeginObject => Self::BeginObject,
            What::EndObject => Self::EndObject,
            What::BeginArray => Self::BeginArray,
            What::EndArray => Self::EndArray,
            What::Key => Self::Key(chunk()),
            What::String => Self::String(chunk()),
            What::Number => Self::Number(chunk()),
            What::True => Self::Bool(true),
            What::False => Self::Bool(false),
            What::Null => Self::Null,
        }
    }

    /// Calls the method of `handler` that is for this event.
    pub fn tell(self, handler: &mut (impl EventHandler + ?Sized)) {
        match self {
            Self::BeginObject => handler.on_begin_object(),
            Self::EndObject => handler.on_end_object(),
            Self::BeginArray => handler.on_begin_array(),
            Self::EndArray => handler.on_end_array(),
            Self::Key(chunk) => handler.on_key(chunk),
            Self::String(chunk) => handler.on_string_chunk(chunk),
            Self::Number(chunk) => handler.on_number_chunk(chunk),
            Self::Bool(value) => handler.on_bool(value),
            Self::Null => handler.on_null(),
        }
    }
}

/// Takes a JSON text apart as its bytes come, in pieces cut anywhere. Holds nothing of it but which containers are open,
/// and proves that it is JSON (RFC 8259) and UTF-8, as [`Validator`](crate::scan::json::Validator) has it: what stands
/// before an error comes out, then the error, whose offset is that in the whole text. Containers may be
/// [`MAX_JSON_DEPTH`](crate::limits::MAX_JSON_DEPTH) deep.
///
/// Nothing is read ahead: whoever takes no event out feeds no chunk in, and so holds its peer back.
///
/// ```
/// use framewire::json::{Event, EventParser};
///
/// let mut parser = EventParser::new();
/// let mut size = 0;
/// for chunk in [&b"{\"blob\": \"TWFueSBo"[..], b"YW5kcw", b"==\"}"] {
///     for event in parser.feed(chunk) {
///         if let Event::String(chunk) = event? {
///             size += chunk.bytes().len();
///         }
///     }
/// }
/// assert_eq!(parser.finish()?, None);
/// assert_eq!(size, 16);
/// # Ok::<(), framewire::scan::json::Invalid>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct EventParser {
    tokens: Tokens,
}

impl EventParser {
    /// A parser of one JSON text.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A parser of any number of JSON values one after the other, with blanks between them: behind a number or word there
    /// has to be one. [`depth`](Self::depth) is 0 between two of them.
    #[must_use]
    pub fn many() -> Self {
        Self { tokens: Tokens::new(true) }
    }

    /// Takes the next bytes in. What is not taken out of the answer is passed over when it is dropped.
    #[must_use = "the events are what it is for"]
    pub fn feed<'a>(&'a mut self, bytes: &'a [u8]) -> Events<'a> {
        self.tokens.feed(bytes);
        Events { parser: self, bytes, is_over: false }
    }

    /// As [`feed`](Self::feed), and tells `handler` all of it.
    ///
    /// # Errors
    /// [`Invalid`] as soon as no bytes to come could make JSON of it. Later calls return it again.
    pub fn feed_to(
        &mut self,
        bytes: &[u8],
        handler: &mut (impl EventHandler + ?Sized),
    ) -> Result<(), Invalid> {
        for event in self.feed(bytes) {
            event?.tell(handler);
        }
        Ok(())
    }

    /// There are no more bytes. The answer is the end of a number that might have gone on, or nothing.
    ///
    /// # Errors
    /// [`Invalid`] when the text is not whole.
    pub fn finish(&mut self) -> Result<Option<Event<'static>>, Invalid> {
        let token = self.tokens.finish()?;
        Ok(token.map(|token| Event::new(token, &[])))
    }

    /// As [`finish`](Self::finish), and tells `handler`.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn finish_to(&mut self, handler: &mut (impl EventHandler + ?Sized)) -> Result<(), Invalid> {
        if let Some(event) = self.finish()? {
            event.tell(handler);
        }
        Ok(())
    }

    /// How many containers are open.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.tokens.depth()
    }

    /// How many outermost values have come out whole.
    #[must_use]
    pub fn values(&self) -> u64 {
        self.tokens.values()
    }

    /// Forgets all.
    pub fn reset(&mut self) {
        self.tokens.reset();
    }
}

/// The events of one chunk, one by one; ends after the first error. Answer of [`EventParser::feed`].
#[derive(Debug)]
pub struct Events<'a> {
    parser: &'a mut EventParser,
    bytes: &'a [u8],
    is_over: bool,
}

impl Events<'_> {
    /// How many containers are open after the last event.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.parser.depth()
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Result<Event<'a>, Invalid>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.parser.tokens.next(self.bytes);
        // An error is told once here, and again to whoever feeds on.
        self.is_over = !matches!(next, Ok(Some(_)));
        next.map(|token| token.map(|token| Event::new(token, self.bytes))).transpose()
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        // The next chunk begins where this one ends.
        while let Ok(Some(_)) = self.parser.tokens.next(self.bytes) {}
    }
}
