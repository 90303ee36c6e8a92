//! [`Pending`]: the client's requests that are still to be answered.
//!
//! Used by bridge only.

use super::{Bridge, Direction};
#[cfg(feature = "gateway")]
use crate::{
    gateway::calls::{Calls, Key},
    json::{Envelope, Kind},
    limits::{MAX_ID_SIZE, MAX_IN_FLIGHT},
};

/// Requests that were passed on to the backend and not answered yet, as far as messages are JSON-RPC; none where nobody
/// waits for their answers.
pub(super) struct Pending {
    #[cfg(feature = "gateway")]
    calls: Option<Calls>,
    /// Requests do not count any more.
    #[cfg(feature = "gateway")]
    frozen: bool,
}

#[cfg(not(feature = "gateway"))]
#[expect(clippy::unused_self, reason = "nothing is remembered without the feature")]
impl Pending {
    pub(super) fn of(_: &Bridge) -> Self {
        Self {}
    }

    pub(super) fn is_empty(&self) -> bool {
        true
    }

    pub(super) fn freeze(&mut self) {}

    pub(super) fn note(&mut self, _: Direction, _: &[u8]) {}
}

#[cfg(feature = "gateway")]
impl Pending {
    pub(super) fn of(bridge: &Bridge) -> Self {
        Self { calls: bridge.answers_first.then(Calls::default), frozen: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.as_ref().is_none_or(|calls| calls.len() == 0)
    }

    /// Counts no more requests.
    pub(super) fn freeze(&mut self) {
        self.frozen = true;
    }

    /// Is told of each message that was passed on.
    #[inline]
    pub(super) fn note(&mut self, direction: Direction, payload: &[u8]) {
        if let Some(calls) = &mut self.calls
            // Nothing that a backend says is an answer when nothing is asked.
            && (direction == Direction::ToBackend || calls.len() > 0)
            && let Ok(envelope) = Envelope::peek(payload)
        {
            note(calls, self.frozen, direction, &envelope);
        }
    }
}

#[cfg(feature = "gateway")]
fn note(calls: &mut Calls, frozen: bool, direction: Direction, envelope: &Envelope<'_>) {
    match (direction, envelope.kind()) {
        (Direction::ToBackend, Kind::Request) => {
            // What is never answered but to say that it is over is not waited for.
            let ends = envelope.method().is_some_and(|method| !method.is("subscriptions/listen"));
            let fits = !frozen
                && ends
                && calls.len() < MAX_IN_FLIGHT
                && envelope.raw_id().is_some_and(|id| id.len() <= MAX_ID_SIZE);
            if fits && let Some(key) = Key::of(envelope) {
                calls.insert(&key, 0);
            }
        }
        // It may never be answered.
        (Direction::ToBackend, Kind::Notification) => {
            if envelope.method().is_some_and(|method| method.is("notifications/cancelled"))
                && let Ok(Some(id)) = envelope.request_id()
                && let Some(key) = Key::of_value(id)
            {
                calls.remove(&key);
            }
        }
        (Direction::ToClient, Kind::Response | Kind::Error) => {
            if let Some(key) = Key::of(envelope) {
                calls.remove(&key);
            }
        }
        (_, Kind::Batch) => {
            for element in envelope.elements().flatten() {
                // A batch within a batch is none.
                if element.kind() != Kind::Batch {
                    note(calls, frozen, direction, &element);
                }
            }
        }
        _ => {}
    }
}

#[cfg(all(test, feature = "gateway"))]
mod tests {
    use super::*;

    fn pending() -> Pending {
        Pending::of(&Bridge { answers_first: true, ..Bridge::default() })
    }

    fn noted(messages: &[(Direction, &str)]) -> usize {
        let mut pending = pending();
        for (direction, message) in messages {
            pending.note(*direction, message.as_bytes());
        }
        pending.calls.map_or(0, |calls| calls.len())
    }

    #[test]
    fn requests_are_counted_until_they_are_answered_or_cancelled() {
        use Direction::{ToBackend, ToClient};
        let call = |id| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call"}}"#);
        let (one, two, text) = (call("1"), call("2"), call(r#""a/b""#));
        let answer = r#"{"id":1,"jsonrpc":"2.0","result":{}}"#;
        let error = r#"{"jsonrpc":"2.0","id":"a\/b","error":{"code":1,"message":""}}"#;
        let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#;
        assert_eq!(noted(&[(ToBackend, &one), (ToBackend, &two), (ToBackend, &text)]), 3);
        assert_eq!(noted(&[(ToBackend, &one), (ToClient, answer)]), 0);
        assert_eq!(noted(&[(ToBackend, &one), (ToBackend, &one), (ToClient, answer)]), 1);
        assert_eq!(noted(&[(ToBackend, &text), (ToClient, error)]), 0);
        assert_eq!(noted(&[(ToBackend, &two), (ToBackend, cancelled)]), 0);
        assert_eq!(noted(&[(ToBackend, &one), (ToBackend, cancelled)]), 1);
        // The server's own requests, and the client's answers to them, are none of this.
        assert_eq!(noted(&[(ToBackend, &one), (ToClient, &two), (ToBackend, answer)]), 1);
        assert_eq!(noted(&[(ToBackend, "no JSON"), (ToClient, "neither")]), 0);
        let listen = one.replace("tools/call", "subscriptions/listen");
        assert_eq!(noted(&[(ToBackend, &listen)]), 0);
        let batch = format!("[{one},{two},[{text}]]");
        assert_eq!(noted(&[(ToBackend, &batch)]), 2);
        assert_eq!(noted(&[(ToBackend, &batch), (ToClient, &format!("[{answer}]"))]), 1);
    }

    #[test]
    fn none_is_added_once_frozen_and_none_with_a_huge_id() {
        let mut pending = pending();
        let huge = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"a"}}"#, "x".repeat(MAX_ID_SIZE));
        pending.note(Direction::ToBackend, huge.as_bytes());
        pending.freeze();
        pending.note(Direction::ToBackend, br#"{"jsonrpc":"2.0","id":1,"method":"a"}"#);
        assert!(pending.is_empty());
    }
}
