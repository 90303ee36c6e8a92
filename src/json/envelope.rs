//! A JSON-RPC 2.0 message from outside: what it is, for whom, and where its parts lie.

use std::ops::Range;

use bytes::BufMut;

use super::{
    cursor::Cursor,
    members::{Collect, Known, Members},
    text::RawString,
};
use crate::scan::json::{Invalid, Validator};

/// What kind of message it is (JSON-RPC 2.0 §4 to §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// `method` and `id`.
    Request,
    /// `method` without `id`.
    Notification,
    /// `result` and `id`.
    Response,
    /// `error`; an `id`, which is null where the request's could not be read.
    Error,
    /// An array: see [`Envelope::elements`].
    Batch,
    /// JSON that is no JSON-RPC 2.0: another `jsonrpc` than `"2.0"` or none, both result and error, an id that is
    /// neither a string nor an integer nor null.
    Other,
}

/// The id of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Id<'a> {
    /// There is none.
    Absent,
    /// `null`, which is not the same as none.
    Null,
    /// An integer of any size: its digits, with the sign.
    Integer(&'a [u8]),
    /// A string.
    String(RawString<'a>),
    /// Something that no id may be.
    Other(&'a [u8]),
}

/// Why there is no envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The message is not JSON.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A name that stands twice in an object, where one parser would take the first and another the last.
    #[error("the name at byte {at} stands twice")]
    DuplicateKey {
        /// Offset of the second value.
        at: usize,
    },
}

/// The name, in `_meta`, of the id of the subscription that a message belongs to (MCP 2026-07-28).
pub(crate) const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// The answer to `subscriptions/listen` (MCP 2026-07-28), whose id, as JSON, is `id`: the subscription is over.
#[cfg(feature = "gateway")]
pub(crate) fn subscription_over(id: &[u8]) -> Vec<u8> {
    let pieces: [&[u8]; 7] = [
        br#"{"jsonrpc":"2.0","id":"#,
        id,
        br#","result":{"resultType":"complete","_meta":{""#,
        SUBSCRIPTION_ID.as_bytes(),
        br#"":"#,
        id,
        b"}}}",
    ];
    pieces.concat()
}

/// What to look into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Within {
    Params,
    #[cfg(feature = "link")]
    Result,
}

/// How nearly every message begins, and where in it the version stands.
const START: &[u8] = br#"{"jsonrpc":"2.0","#;
const VERSION: Part = 11..16;

/// A part of the message; empty when there is none, as no JSON value is.
type Part = Range<usize>;

/// Where the value of a name lies. When it stood before already, the answer is where the second one begins.
#[inline]
fn put(part: &mut Part, value: Part) -> Option<usize> {
    if part.start == part.end {
        *part = value;
        return None;
    }
    Some(value.start)
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Parts {
    jsonrpc: Part,
    id: Part,
    method: Part,
    params: Part,
    result: Part,
    error: Part,
    /// The second value of a name, when there is one.
    duplicate: Option<usize>,
}

impl Parts {
    #[inline]
    fn take(&mut self, name: RawString<'_>, value: Part) {
        let part = match name.raw() {
            b"id" => &mut self.id,
            b"error" => &mut self.error,
            b"method" => &mut self.method,
            b"params" => &mut self.params,
            b"result" => &mut self.result,
            b"jsonrpc" => &mut self.jsonrpc,
            // One letter as an escape is five bytes more.
            raw if raw.len() < "\\u0069d".len() => return,
            _ => match self.escaped(name) {
                Some(part) => part,
                None => return,
            },
        };
        let twice = put(part, value);
        self.duplicate = self.duplicate.or(twice);
    }

    #[inline]
    fn known(&mut self, name: Known) -> &mut Part {
        match name {
            Known::Jsonrpc => &mut self.jsonrpc,
            Known::Id => &mut self.id,
            Known::Method => &mut self.method,
            Known::Params => &mut self.params,
            Known::Result => &mut self.result,
            Known::Error => &mut self.error,
        }
    }

    /// A name with escapes, all of which are longer than what they stand for.
    #[cold]
    fn escaped(&mut self, name: RawString<'_>) -> Option<&mut Part> {
        if !name.raw().contains(&b'\\') {
            return None;
        }
        let known = [
            ("id", &mut self.id),
            ("error", &mut self.error),
            ("method", &mut self.method),
            ("params", &mut self.params),
            ("result", &mut self.result),
            ("jsonrpc", &mut self.jsonrpc),
        ];
        known.into_iter().find(|(known, _)| name.is(known)).map(|(_, part)| part)
    }
}

/// A message seen from outside: what kind it is, its id and method, and where its parts lie. Nothing is parsed that is
/// not asked for, and nothing is allocated.
///
/// ```
/// use framewire::json::{Envelope, Id, Kind};
///
/// let message = br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"add","arguments":{}}}"#;
/// let envelope = Envelope::peek(message)?;
/// assert_eq!(envelope.kind(), Kind::Request);
/// assert_eq!(envelope.id(), Id::Integer(b"7"));
/// assert!(envelope.method().is_some_and(|method| method.is("tools/call")));
/// assert_eq!(envelope.name()?, Some(&b"\"add\""[..]));
///
/// let mut forwarded = Vec::new();
/// assert!(envelope.splice(b"\"session-1:7\"", &mut forwarded));
/// assert!(forwarded.starts_with(br#"{"jsonrpc":"2.0","id":"session-1:7","method""#));
/// # Ok::<(), framewire::json::EnvelopeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Envelope<'a> {
    bytes: &'a [u8],
    kind: Kind,
    parts: Parts,
    /// Where the message's own bytes begin, behind blanks.
    start: usize,
    /// Containers open around the message: one in a batch.
    level: u32,
}

impl<'a> Envelope<'a> {
    /// Reads the envelope by the message's structure. Of what lies in params, result and error only strings and the number
    /// of brackets are looked at: whether it is JSON, [`strict`](Self::strict) tells, or the parser behind.
    ///
    /// # Errors
    /// [`EnvelopeError::Invalid`] when the outermost object is not one of JSON, or has no end;
    /// [`EnvelopeError::DuplicateKey`] when a name that matters stands twice.
    #[inline]
    pub fn peek(message: &'a [u8]) -> Result<Self, EnvelopeError> {
        let mut cursor = Cursor::new(message, 0, 0);
        let first = cursor.peek();
        let start = cursor.at;
        let mut parts = Parts::default();
        if first == Some(b'{') {
            let mut members = Members::new(message, start, 0);
            // How nearly every message begins: the same as walking over it, in one comparison.
            if message.get(start..).is_some_and(|message| message.starts_with(START)) {
                parts.jsonrpc = start + VERSION.start..start + VERSION.end;
                members.go_on(start + VERSION.end);
            }
            loop {
                if let Some((known, value)) = members.next_known()? {
                    let twice = put(parts.known(known), value);
                    parts.duplicate = parts.duplicate.or(twice);
                } else if let Some((name, value)) = members.next()? {
                    parts.take(name, value);
                } else {
                    break;
                }
            }
            cursor.at = members.cursor.at;
        } else {
            cursor.value()?;
        }
        if cursor.peek().is_some() {
            return Err(cursor
                .invalid::<()>(cursor.at)
                .err()
                .map_or(EnvelopeError::DuplicateKey { at: cursor.at }, EnvelopeError::Invalid));
        }
        Self::new(message, start, 0, first, parts)
    }

    /// As [`peek`](Self::peek), and proves in the same pass that the whole message is JSON and UTF-8.
    ///
    /// # Errors
    /// As [`peek`](Self::peek).
    #[inline]
    pub fn strict(message: &'a [u8]) -> Result<Self, EnvelopeError> {
        let mut parts = Parts::default();
        let mut validator = Validator::new();
        let mut collect = Collect::new(message, |name, value| parts.take(name, value));
        validator.feed_to(&mut collect, message)?;
        validator.finish()?;
        let start = message.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(0);
        let first = message.get(start).copied();
        if first == Some(b'[') {
            parts = Parts::default();
        }
        Self::new(message, start, 0, first, parts)
    }

    #[inline]
    fn new(
        bytes: &'a [u8],
        start: usize,
        level: u32,
        first: Option<u8>,
        parts: Parts,
    ) -> Result<Self, EnvelopeError> {
        if let Some(at) = parts.duplicate {
            return Err(EnvelopeError::DuplicateKey { at });
        }
        let mut envelope = Self { bytes, kind: Kind::Other, parts, start, level };
        envelope.kind = match first {
            Some(b'{') => envelope.classify(),
            Some(b'[') => Kind::Batch,
            _ => Kind::Other,
        };
        Ok(envelope)
    }

    #[inline]
    fn classify(&self) -> Kind {
        let Parts { jsonrpc, method, result, error, .. } = &self.parts;
        let id = self.id();
        let version = self.part(jsonrpc).and_then(RawString::of_value);
        if !version.is_some_and(|version| version.is("2.0")) || matches!(id, Id::Other(_)) {
            return Kind::Other;
        }
        match (self.method(), !result.is_empty(), !error.is_empty(), id) {
            (Some(_), false, false, Id::Absent) => Kind::Notification,
            (Some(_), false, false, _) => Kind::Request,
            (None, true, false, id) if method.is_empty() && id != Id::Absent => Kind::Response,
            (None, false, true, _) if method.is_empty() => Kind::Error,
            _ => Kind::Other,
        }
    }

    #[inline]
    fn part(&self, part: &Part) -> Option<&'a [u8]> {
        if part.is_empty() { None } else { self.bytes.get(part.clone()) }
    }

    /// What kind of message it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The id.
    #[must_use]
    #[inline]
    pub fn id(&self) -> Id<'a> {
        match self.raw_id() {
            None => Id::Absent,
            Some(b"null") => Id::Null,
            Some([b'"', raw @ .., b'"']) => Id::String(RawString::new(raw)),
            Some(digits) if digits.strip_prefix(b"-").unwrap_or(digits).iter().all(u8::is_ascii_digit) => {
                Id::Integer(digits)
            }
            Some(other) => Id::Other(other),
        }
    }

    /// The id's bytes as they stand in the message, quotes included. `None` when there is none.
    #[must_use]
    pub fn raw_id(&self) -> Option<&'a [u8]> {
        self.part(&self.parts.id)
    }

    /// The method. `None` when there is none or it is no string.
    #[must_use]
    #[inline]
    pub fn method(&self) -> Option<RawString<'a>> {
        match self.part(&self.parts.method)? {
            [b'"', raw @ .., b'"'] => Some(RawString::new(raw)),
            _ => None,
        }
    }

    /// The bytes of `params`.
    #[must_use]
    pub fn params(&self) -> Option<&'a [u8]> {
        self.part(&self.parts.params)
    }

    /// The bytes of `result`.
    #[must_use]
    pub fn result(&self) -> Option<&'a [u8]> {
        self.part(&self.parts.result)
    }

    /// The bytes of `error`.
    #[must_use]
    pub fn error(&self) -> Option<&'a [u8]> {
        self.part(&self.parts.error)
    }

    /// Where `part`, which is one of the parts that this envelope gave, lies in the message.
    #[must_use]
    pub fn range_of(&self, part: &[u8]) -> Option<Range<usize>> {
        let start = part.as_ptr().addr().checked_sub(self.bytes.as_ptr().addr())?;
        let end = start.checked_add(part.len())?;
        (end <= self.bytes.len()).then_some(start..end)
    }

    /// The value of the name `key` directly within the object `within`. Walks over it.
    fn find(&self, within: &Part, level: u32, key: &str) -> Result<Part, EnvelopeError> {
        if self.bytes.get(within.start) != Some(&b'{') || within.is_empty() {
            return Ok(0..0);
        }
        let mut found = 0..0;
        let mut members = Members::new(self.bytes, within.start, self.level + level);
        while let Some((name, value)) = members.next()? {
            if name.is(key) {
                if !found.is_empty() {
                    return Err(EnvelopeError::DuplicateKey { at: value.start });
                }
                found = value;
            }
        }
        Ok(found)
    }

    /// Where the value lies that the names of `path`, each within the one before, lead to from `within` on; empty when there
    /// is none.
    ///
    /// # Errors
    /// As [`peek`](Self::peek), of the objects on the way.
    pub(crate) fn locate(&self, within: Within, path: &[&str]) -> Result<Part, EnvelopeError> {
        let mut part = match within {
            Within::Params => self.parts.params.clone(),
            #[cfg(feature = "link")]
            Within::Result => self.parts.result.clone(),
        };
        for (level, key) in (1..).zip(path) {
            part = self.find(&part, level, key)?;
        }
        Ok(part)
    }

    fn param(&self, key: &str) -> Result<Part, EnvelopeError> {
        self.find(&self.parts.params, 1, key)
    }

    /// The bytes of `params.name`: of a tool or a prompt. Walks over params, as do those below.
    ///
    /// # Errors
    /// As [`peek`](Self::peek), of params.
    pub fn name(&self) -> Result<Option<&'a [u8]>, EnvelopeError> {
        Ok(self.part(&self.param("name")?))
    }

    /// The bytes of `params.requestId`, which `notifications/cancelled` has.
    ///
    /// # Errors
    /// As [`name`](Self::name).
    pub fn request_id(&self) -> Result<Option<&'a [u8]>, EnvelopeError> {
        Ok(self.part(&self.param("requestId")?))
    }

    /// The bytes of `params._meta`.
    ///
    /// # Errors
    /// As [`name`](Self::name).
    pub fn meta(&self) -> Result<Option<&'a [u8]>, EnvelopeError> {
        Ok(self.part(&self.param("_meta")?))
    }

    /// The bytes of `params._meta.progressToken`, as a request has it; else of `params.progressToken`, as
    /// `notifications/progress` has it.
    ///
    /// # Errors
    /// As [`name`](Self::name).
    pub fn progress_token(&self) -> Result<Option<&'a [u8]>, EnvelopeError> {
        let token = self.find(&self.param("_meta")?, 2, "progressToken")?;
        let token = if token.is_empty() { self.param("progressToken")? } else { token };
        Ok(self.part(&token))
    }

    /// The bytes of `params._meta` → `io.modelcontextprotocol/subscriptionId`, which the notifications of a subscription
    /// have since revision 2026-07-28.
    ///
    /// # Errors
    /// As [`name`](Self::name).
    pub fn subscription_id(&self) -> Result<Option<&'a [u8]>, EnvelopeError> {
        Ok(self.part(&self.locate(Within::Params, &["_meta", SUBSCRIPTION_ID])?))
    }

    /// The message with `id` (JSON, quotes included) instead of its own: three parts to be written one after the other,
    /// all but the second as they came. `None` when it has no id.
    #[must_use]
    pub fn splice_parts<'b>(&self, id: &'b [u8]) -> Option<[&'b [u8]; 3]>
    where
        'a: 'b,
    {
        let Range { start, end } = self.parts.id.clone();
        if start == end {
            return None;
        }
        Some([self.bytes.get(..start)?, id, self.bytes.get(end..)?])
    }

    /// Writes the message to `to` with `id` (JSON, quotes included) instead of its own; every other byte is as it came.
    /// False, and nothing is written, when it has no id or there is no room.
    pub fn splice(&self, id: &[u8], to: &mut impl BufMut) -> bool {
        let Some(parts) = self.splice_parts(id) else { return false };
        if to.remaining_mut() < parts.iter().map(|part| part.len()).sum() {
            return false;
        }
        for part in parts {
            to.put_slice(part);
        }
        true
    }

    /// The messages of a batch, one by one; none of anything else.
    #[must_use]
    pub fn elements(&self) -> Elements<'a> {
        let at = if self.kind == Kind::Batch { self.start + 1 } else { self.bytes.len() };
        Elements { cursor: Cursor::new(self.bytes, at, 1), first: true, over: self.kind != Kind::Batch }
    }
}

/// The messages of a batch: the bytes of each, and its envelope by [`Envelope::peek`] (after [`Envelope::strict`] of the
/// batch that is proof enough). Ends after the first error that concerns the batch itself.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    cursor: Cursor<'a>,
    first: bool,
    over: bool,
}

impl<'a> Elements<'a> {
    fn element(&mut self) -> Result<Option<&'a [u8]>, Invalid> {
        let cursor = &mut self.cursor;
        match cursor.peek() {
            Some(b']') => return Ok(None),
            Some(b',') if !self.first => {
                cursor.at += 1;
                cursor.peek();
            }
            Some(_) if self.first => {}
            _ => return cursor.invalid(cursor.at),
        }
        self.first = false;
        let value = cursor.value()?;
        Ok(cursor.bytes.get(value))
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Envelope<'a>, EnvelopeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        match self.element() {
            Ok(None) => {
                self.over = true;
                None
            }
            Ok(Some(message)) => Some(Envelope::peek(message)),
            Err(invalid) => {
                self.over = true;
                Some(Err(invalid.into()))
            }
        }
    }
}

impl<'a> Envelope<'a> {
    /// The bytes it was read from.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// The bytes of the value of the name `key` in `object`, an object that [`Envelope`] gave a part of (params, result,
/// error) or that was found so in it. `None` when there is no such name, or `object` is no object. Walks over it.
///
/// # Errors
/// As [`Envelope::peek`].
pub fn member<'a>(object: &'a [u8], key: &str) -> Result<Option<&'a [u8]>, EnvelopeError> {
    if object.first() != Some(&b'{') {
        return Ok(None);
    }
    let mut found = None;
    let mut members = Members::new(object, 0, 0);
    while let Some((name, value)) = members.next()? {
        if name.is(key) {
            if found.is_some() {
                return Err(EnvelopeError::DuplicateKey { at: value.start });
            }
            found = object.get(value);
        }
    }
    Ok(found)
}

/// `value` as the string that it is; `None` when it is no string. For what [`Envelope`] or [`member`] found.
#[must_use]
pub fn string(value: &[u8]) -> Option<RawString<'_>> {
    match value {
        [b'"', raw @ .., b'"'] => Some(RawString::new(raw)),
        _ => None,
    }
}
