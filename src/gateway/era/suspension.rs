//! Calls of a stateless client that wait for it to come back with what the server asked for.

use std::collections::VecDeque;

use super::{message::text, queue::RawId};
use crate::{json::RawString, limits::ERA_MAX_SUSPENDED};

/// Bytes of an answer that is kept for a client that has not come back.
const MAX_KEPT: usize = 1024 * 1024;

/// `requestState`: says which call a client comes back for. Nobody can guess it, for over HTTP it is all that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::gateway) struct Token(u128);

const PREFIX: &str = "framewire:";

impl Token {
    pub(super) fn new() -> Self {
        let mut bytes = [0; 16];
        // Without the system's randomness none can be made that is safe: the call is then not to be found again.
        let _ = getrandom::fill(&mut bytes);
        Self(u128::from_ne_bytes(bytes))
    }

    /// Of `requestState` as JSON.
    pub(super) fn of(state: &[u8]) -> Option<Self> {
        let text = text(state).and_then(RawString::unescape)?;
        let digits = text.strip_prefix(PREFIX).filter(|digits| digits.len() == 32)?;
        u128::from_str_radix(digits, 16).ok().filter(|token| *token != 0).map(Self)
    }

    pub(super) fn json(self) -> Vec<u8> {
        format!("\"{PREFIX}{:032x}\"", self.0).into_bytes()
    }
}

/// One thing the server asked for.
#[derive(Debug)]
pub(super) struct Question {
    /// The id of the server's request.
    pub(super) id: Vec<u8>,
    /// Its key in `inputRequests`.
    pub(super) key: String,
    /// The entry there.
    pub(super) request: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Suspended {
    /// The id that the server knows the call by.
    pub(super) wire: RawId,
    pub(super) questions: Vec<Question>,
    asked: usize,
    /// The server's answer to the call, if it did not wait.
    pub(super) answer: Option<Vec<u8>>,
}

impl Suspended {
    pub(super) fn new(wire: RawId) -> Self {
        Self { wire, questions: Vec::new(), asked: 0, answer: None }
    }

    /// Adds a question; false when there are too many.
    pub(super) fn ask(&mut self, id: &[u8], request: Vec<u8>) -> bool {
        if self.questions.len() >= super::MAX_QUESTIONS {
            return false;
        }
        self.asked += 1;
        self.questions.push(Question { id: id.to_vec(), key: format!("input-{}", self.asked), request });
        true
    }

    /// Takes the question with `key` off, and gives the id of the server's request.
    pub(super) fn answered(&mut self, key: RawString<'_>) -> Option<Vec<u8>> {
        let at = self.questions.iter().position(|question| key.is(&question.key))?;
        Some(self.questions.remove(at).id)
    }

    /// Keeps the server's answer to the call, as the client is to have it but for the id.
    pub(super) fn keep(&mut self, answer: Vec<u8>) {
        let too_large = b"{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32603,\
            \"message\":\"the server did not wait for the client, and its answer was too large to be kept\"}}";
        self.answer = Some(if answer.len() <= MAX_KEPT { answer } else { too_large.to_vec() });
    }
}

/// The suspended calls of one connection, oldest first.
#[derive(Debug, Default)]
pub(super) struct Suspensions(VecDeque<(Token, Suspended)>);

impl Suspensions {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn newest(&self) -> Option<Token> {
        self.0.back().map(|(token, _)| *token)
    }

    /// Adds a call; gives the oldest when there are too many.
    pub(super) fn insert(&mut self, token: Token, suspended: Suspended) -> Option<Suspended> {
        self.0.push_back((token, suspended));
        if self.0.len() <= ERA_MAX_SUSPENDED { None } else { self.0.pop_front().map(|(_, oldest)| oldest) }
    }

    pub(super) fn take(&mut self, token: Token) -> Option<Suspended> {
        let at = self.0.iter().position(|(own, _)| *own == token)?;
        self.0.remove(at).map(|(_, suspended)| suspended)
    }

    pub(super) fn take_wire(&mut self, wire: &[u8]) -> Option<Suspended> {
        let at = self.0.iter().position(|(_, suspended)| suspended.wire.as_slice() == wire)?;
        self.0.remove(at).map(|(_, suspended)| suspended)
    }

    pub(super) fn get_wire(&mut self, wire: &[u8]) -> Option<&mut Suspended> {
        self.0.iter_mut().map(|(_, suspended)| suspended).find(|suspended| suspended.wire.as_slice() == wire)
    }

    /// The server no longer wants the answer to its request `id`.
    pub(super) fn withdraw(&mut self, id: &[u8]) {
        for (_, suspended) in &mut self.0 {
            suspended.questions.retain(|question| question.id != id);
        }
    }
}
