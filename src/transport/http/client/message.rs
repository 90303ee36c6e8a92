//! A message on its way to the server: what it is, and which answers it asks for.

use std::time::Instant;

use bytes::Bytes;

use super::stateless::{self, Headers};
use crate::{
    error::Rejection,
    json::{Envelope, Id, Kind},
};

/// What a message is to the order of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// Opens the session: nothing passes it.
    Initialize,
    /// Wants answers.
    Request,
    /// What is behind it waits until it was accepted.
    Notification,
    /// The notification that ends the handshake.
    Initialized,
    /// A notification that gives up the request of that key.
    Cancelled(Key),
    /// Answers a request of the server; passes everything.
    Response,
}

/// An id, the same whatever way it is written.
pub(super) type Key = Box<[u8]>;

/// One answer that is waited for.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) key: Key,
    /// As it stands in the request.
    pub(super) raw: Bytes,
}

/// A message that was accepted to be sent.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) bytes: Bytes,
    pub(super) role: Role,
    pub(super) open: Vec<Open>,
    /// What goes into the head when it stands alone, as revision 2026-07-28 has it.
    pub(super) stateless: Option<Headers>,
    pub(super) accepted: Instant,
}

/// The key of an id; `None` where there is none, or nothing that an id may be.
pub(super) fn key(id: Id<'_>) -> Option<Key> {
    match id {
        Id::Integer(digits) => Some(digits.into()),
        Id::String(text) => {
            let mut key = vec![b'"'];
            match text.unescape() {
                Some(text) => key.extend_from_slice(text.as_bytes()),
                None => key.extend_from_slice(text.raw()),
            }
            Some(key.into())
        }
        Id::Null => Some((*b"null").into()),
        _ => None,
    }
}

/// The key of an id that stands alone, such as `params.requestId`.
pub(super) fn key_of(raw: &[u8]) -> Option<Key> {
    if let [b'"', ..] = raw {
        // Read as the id of a message, which resolves its escapes.
        let mut message = b"{\"id\":".to_vec();
        message.extend_from_slice(raw);
        message.push(b'}');
        return Envelope::peek(&message).ok().and_then(|envelope| key(envelope.id()));
    }
    Some(raw.into()).filter(|key: &Key| !key.is_empty())
}

impl Message {
    /// Looks at a message.
    ///
    /// # Errors
    /// It is not one JSON value.
    pub(super) fn new(bytes: Bytes) -> Result<Self, Rejection> {
        let envelope = Envelope::peek(&bytes).map_err(|_| Rejection::NotOneValue { at: bytes.len() })?;
        let mut open = Vec::new();
        let role = Self::role(&envelope, &bytes, &mut open);
        let stateless = stateless::headers(&envelope);
        Ok(Self { role, open, stateless, accepted: Instant::now(), bytes })
    }

    fn role(envelope: &Envelope<'_>, bytes: &Bytes, open: &mut Vec<Open>) -> Role {
        let mut wants = |envelope: &Envelope<'_>| {
            if let (Some(raw), Some(key)) = (envelope.raw_id(), key(envelope.id())) {
                open.push(Open { key, raw: bytes.slice_ref(raw) });
            }
        };
        match envelope.kind() {
            Kind::Request => {
                wants(envelope);
                let initialize = envelope.method().is_some_and(|method| method.is("initialize"));
                if initialize { Role::Initialize } else { Role::Request }
            }
            Kind::Notification => {
                let method = envelope.method();
                if method.is_some_and(|method| method.is("notifications/initialized")) {
                    return Role::Initialized;
                }
                if method.is_some_and(|method| method.is("notifications/cancelled"))
                    && let Ok(Some(id)) = envelope.request_id()
                    && let Some(key) = key_of(id)
                {
                    return Role::Cancelled(key);
                }
                Role::Notification
            }
            Kind::Response | Kind::Error => Role::Response,
            Kind::Batch => {
                let mut responses = true;
                for element in envelope.elements().flatten() {
                    match element.kind() {
                        Kind::Request => wants(&element),
                        Kind::Response | Kind::Error => continue,
                        _ => {}
                    }
                    responses = false;
                }
                match (open.is_empty(), responses) {
                    (false, _) => Role::Request,
                    (true, true) => Role::Response,
                    (true, false) => Role::Notification,
                }
            }
            // No JSON-RPC: the server will say so, to whom it concerns.
            Kind::Other => {
                if envelope.method().is_some() {
                    wants(envelope);
                }
                if open.is_empty() { Role::Notification } else { Role::Request }
            }
        }
    }

    /// Whether it asks for answers.
    pub(super) fn is_request(&self) -> bool {
        matches!(self.role, Role::Initialize | Role::Request)
    }

    /// Whether it opens a subscription, which has no end of its own.
    pub(super) fn listens(&self) -> bool {
        self.stateless.as_ref().is_some_and(|own| own.method() == b"subscriptions/listen")
    }

    /// Whether what is behind it waits for it.
    pub(super) fn is_barrier(&self) -> bool {
        match self.role {
            Role::Initialize | Role::Initialized => true,
            Role::Notification | Role::Cancelled(_) => true,
            Role::Request | Role::Response => false,
        }
    }
}
