//! The fields of a JSON-RPC message that name a request, exchanged for others; every other byte stays as it came.
//!
//! Uses `json` only; the hub uses it, and whoever stands between clients that know nothing of each other. No I/O, no
//! state, and no memory beyond what is written.
//!
//! | message | fields |
//! |---|---|
//! | request | `id`, `params._meta.progressToken` |
//! | response, error | `id`; on demand `result._meta` → `io.modelcontextprotocol/subscriptionId` |
//! | `notifications/cancelled` | `params.requestId` |
//! | `notifications/progress` | `params.progressToken` |
//! | any other notification | `params._meta` → `io.modelcontextprotocol/subscriptionId` |
//!
//! Names are compared with their escapes resolved. A name that matters and stands twice in its object is refused, as one
//! parser would take the first value and another the last.

use std::{array, ops::Range};

use bytes::BufMut;

use crate::json::{Envelope, EnvelopeError, Kind, SUBSCRIPTION_ID, Within};

/// How many fields one message has at most.
const FIELDS: usize = 4;

/// A field that names a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// `id`.
    Id,
    /// `params.requestId` of `notifications/cancelled`.
    RequestId,
    /// `params._meta.progressToken` of a request, `params.progressToken` of `notifications/progress`.
    ProgressToken,
    /// `io.modelcontextprotocol/subscriptionId` in the `_meta` of a notification's params or of a result.
    SubscriptionId,
}

/// Where the fields of a message lie.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    message: &'a [u8],
    /// By [`Field`]; empty when the message does not have it.
    at: [Range<usize>; FIELDS],
}

/// What is to stand in a message instead: JSON, quotes included. A field that the message does not have, and one without
/// a value here, is left alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exchange<'v> {
    /// Instead of the [`Field::Id`].
    pub id: Option<&'v [u8]>,
    /// Instead of the [`Field::RequestId`].
    pub request_id: Option<&'v [u8]>,
    /// Instead of the [`Field::ProgressToken`].
    pub progress_token: Option<&'v [u8]>,
    /// Instead of the [`Field::SubscriptionId`].
    pub subscription_id: Option<&'v [u8]>,
}

impl<'v> Exchange<'v> {
    fn of(&self, field: Field) -> Option<&'v [u8]> {
        match field {
            Field::Id => self.id,
            Field::RequestId => self.request_id,
            Field::ProgressToken => self.progress_token,
            Field::SubscriptionId => self.subscription_id,
        }
    }
}

impl Field {
    const ALL: [Self; FIELDS] = [Self::Id, Self::RequestId, Self::ProgressToken, Self::SubscriptionId];
}

impl<'a> Fields<'a> {
    /// Finds the fields of one message, by what kind of message it is. Walks over params; never looks into a result, see
    /// [`find_in_result`](Self::find_in_result). A batch has none: its elements have.
    ///
    /// # Errors
    /// [`EnvelopeError::DuplicateKey`] when a name on the way stands twice; [`EnvelopeError::Invalid`] when an object on
    /// the way is not one of JSON.
    pub fn find(envelope: &Envelope<'a>) -> Result<Self, EnvelopeError> {
        let mut fields = Self { message: envelope.bytes(), at: array::from_fn(|_| 0..0) };
        if let Some(id) = envelope.raw_id().and_then(|id| envelope.range_of(id)) {
            fields.set(Field::Id, id);
        }
        let (field, path): (_, &[&str]) = match envelope.kind() {
            Kind::Request => (Field::ProgressToken, &["_meta", "progressToken"]),
            Kind::Notification => match envelope.method() {
                Some(method) if method.is("notifications/cancelled") => (Field::RequestId, &["requestId"]),
                Some(method) if method.is("notifications/progress") => {
                    (Field::ProgressToken, &["progressToken"])
                }
                _ => (Field::SubscriptionId, &["_meta", SUBSCRIPTION_ID]),
            },
            _ => return Ok(fields),
        };
        let part = envelope.locate(Within::Params, path)?;
        fields.set(field, part);
        Ok(fields)
    }

    /// Looks for the [`Field::SubscriptionId`] of a result: the answer to `subscriptions/listen` has one. Walks over the
    /// result.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn find_in_result(&mut self, envelope: &Envelope<'a>) -> Result<(), EnvelopeError> {
        let part = envelope.locate(Within::Result, &["_meta", SUBSCRIPTION_ID])?;
        self.set(Field::SubscriptionId, part);
        Ok(())
    }

    /// Only a string or a number names a request; anything else is some data, and not to be touched.
    fn set(&mut self, field: Field, at: Range<usize>) {
        let names = |byte: &u8| matches!(byte, b'"' | b'-' | b'0'..=b'9');
        if at.start < at.end
            && self.message.get(at.start).is_some_and(names)
            && let Some(place) = self.at.get_mut(field as usize)
        {
            *place = at;
        }
    }

    /// The bytes of a field as they stand in the message, quotes included.
    #[must_use]
    pub fn get(&self, field: Field) -> Option<&'a [u8]> {
        let at = self.at.get(field as usize)?.clone();
        if at.is_empty() { None } else { self.message.get(at) }
    }

    /// The message with what `exchange` says, in pieces to be written one after the other.
    pub fn pieces<'b>(&self, exchange: &Exchange<'b>) -> Pieces<'b>
    where
        'a: 'b,
    {
        let mut swaps = Field::ALL.map(|field| {
            let at = self.at.get(field as usize).cloned().unwrap_or_default();
            let value = exchange.of(field).filter(|_| !at.is_empty());
            (at, value)
        });
        swaps.sort_unstable_by_key(|(at, _)| at.start);
        Pieces { message: self.message, done: 0, swaps, next: 0 }
    }

    /// Writes the message with what `exchange` says to `to`. False, and nothing is written, when there is no room.
    pub fn write(&self, exchange: &Exchange<'_>, to: &mut impl BufMut) -> bool {
        let pieces = self.pieces(exchange);
        if to.remaining_mut() < pieces.size() {
            return false;
        }
        for piece in pieces {
            to.put_slice(piece);
        }
        true
    }
}

/// A message cut where fields are exchanged: bytes as they came, a new value, and so on.
#[derive(Debug, Clone)]
pub struct Pieces<'b> {
    message: &'b [u8],
    /// Bytes of the message that are given out or exchanged.
    done: usize,
    swaps: [(Range<usize>, Option<&'b [u8]>); FIELDS],
    /// Twice the index of the next exchange, one more when what comes before it is given out.
    next: usize,
}

impl Pieces<'_> {
    /// Bytes of all pieces that are left.
    #[must_use]
    pub fn size(&self) -> usize {
        self.clone().map(<[u8]>::len).sum()
    }
}

impl<'b> Iterator for Pieces<'b> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        while let Some((at, value)) = self.swaps.get(self.next / 2) {
            let Some(value) = value else {
                self.next += 2;
                continue;
            };
            self.next += 1;
            if self.next % 2 == 1 {
                let before = self.message.get(self.done..at.start);
                self.done = at.end;
                return before;
            }
            return Some(value);
        }
        let rest = self.message.get(self.done..).filter(|rest| !rest.is_empty());
        self.done = self.message.len();
        rest
    }
}
