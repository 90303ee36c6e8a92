//! [`ParsedMessage`]: a message and what its envelope says.

use std::ops::Range;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::super::{Envelope, EnvelopeError, Kind, ParseError};
use crate::Frame;

/// What was seen of a message, apart from its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    kind: Kind,
    method: Option<Method>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Method {
    /// Where it stands in the message.
    Plain(Range<usize>),
    /// It had escapes.
    Unescaped(Box<str>),
}

impl Seen {
    pub(super) fn new(envelope: &Envelope<'_>) -> Self {
        let method = envelope.method().and_then(|method| {
            if method.raw().contains(&b'\\') {
                return method.unescape().map(|text| Method::Unescaped(text.into()));
            }
            envelope.range_of(method.raw()).map(Method::Plain)
        });
        Self { kind: envelope.kind(), method }
    }
}

/// A message of a stream: its bytes as they came, and what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedMessage {
    frame: Frame,
    seen: Seen,
}

impl ParsedMessage {
    pub(super) fn new(frame: Frame, seen: Seen) -> Self {
        Self { frame, seen }
    }

    /// Of a message that was found good.
    #[cfg(feature = "link")]
    pub(super) fn of_checked(frame: Frame) -> Result<Self, super::StreamingError> {
        let seen = Seen::new(&Envelope::peek(&frame)?);
        Ok(Self::new(frame, seen))
    }

    /// "request", "notification", "response" (errors too), "batch" or "other".
    #[must_use]
    pub fn message_type(&self) -> &'static str {
        match self.seen.kind {
            Kind::Request => "request",
            Kind::Notification => "notification",
            Kind::Response | Kind::Error => "response",
            Kind::Batch => "batch",
            Kind::Other => "other",
        }
    }

    /// What kind of message it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.seen.kind
    }

    /// The method, unescaped.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        match self.seen.method.as_ref()? {
            Method::Plain(range) => std::str::from_utf8(self.frame.get(range.clone())?).ok(),
            Method::Unescaped(text) => Some(text),
        }
    }

    /// All else that can be seen from outside: id, params, the messages of a batch.
    ///
    /// # Errors
    /// None that were not found before.
    pub fn envelope(&self) -> Result<Envelope<'_>, EnvelopeError> {
        Envelope::peek(&self.frame)
    }

    /// The bytes as they came.
    #[must_use]
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The bytes as they came. Does not copy.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.frame.clone().into()
    }

    /// Builds a value of it.
    ///
    /// # Errors
    /// See [`ParseError`].
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, ParseError> {
        self.frame.deserialize()
    }
}
