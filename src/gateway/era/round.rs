//! Rounds of input: what a stateless server asked for before it goes on with a call, and the client's answers so far.

use std::collections::HashMap;

use tokio::time::{Duration, Instant};

use super::{queue::RawId, session_client::Call};

/// How long a call that asks for nothing but to be sent again is kept back, the first time and at most (as the SDKs do).
const PACE: Duration = Duration::from_millis(50);
const SLOWEST_PACE: Duration = Duration::from_millis(250);

/// One round of one call.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) call: Call,
    /// `requestState` as JSON.
    pub(super) state: Option<Vec<u8>>,
    /// The number of each question, the key it has in the server's result, raw, and the answer once there is one.
    asked: Vec<(u64, Vec<u8>, Option<Vec<u8>>)>,
    due: Option<Instant>,
    /// What it takes beside the call, in bytes.
    pub(super) bytes: usize,
}

/// Nobody has asked for that.
#[derive(Debug)]
pub(super) struct Unasked;

impl Round {
    pub(super) fn new(call: Call, state: Option<Vec<u8>>) -> Self {
        let bytes = state.as_ref().map_or(0, Vec::len);
        Self { call, state, asked: Vec::new(), due: None, bytes }
    }

    pub(super) fn ask(&mut self, number: u64, key: &[u8]) {
        self.bytes += key.len();
        self.asked.push((number, key.to_vec(), None));
    }

    pub(super) fn len(&self) -> usize {
        self.asked.len()
    }

    /// The numbers of the questions that wait for an answer.
    pub(super) fn questions(&self) -> impl Iterator<Item = u64> {
        self.asked.iter().filter(|(_, _, answer)| answer.is_none()).map(|(number, ..)| *number)
    }

    /// `"inputResponses":{…},` or nothing when nothing was asked.
    pub(super) fn responses(&self) -> Vec<u8> {
        let mut to = Vec::new();
        for (_, key, answer) in &self.asked {
            to.extend_from_slice(if to.is_empty() { b"\"inputResponses\":{\"" } else { b",\"" });
            for piece in [key, &b"\":"[..], answer.as_deref().unwrap_or(b"null")] {
                to.extend_from_slice(piece);
            }
        }
        if !to.is_empty() {
            to.extend_from_slice(b"},");
        }
        to
    }
}

/// The calls that wait for the client, by the id that the client gave them.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    waiting: HashMap<RawId, Round>,
    /// Whose call each question belongs to.
    questions: HashMap<u64, RawId>,
}

impl Rounds {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn insert(&mut self, mut round: Round, now: Instant) {
        let id = round.call.client.clone();
        for number in round.questions() {
            self.questions.insert(number, id.clone());
        }
        if round.len() == 0 {
            let pace = PACE.saturating_mul(1 << round.call.rounds.saturating_sub(1).min(5));
            round.due = now.checked_add(pace.min(SLOWEST_PACE));
        }
        self.waiting.insert(id, round);
    }

    pub(super) fn remove(&mut self, id: &[u8]) -> Option<Round> {
        let round = self.waiting.remove(id)?;
        for number in round.questions() {
            self.questions.remove(&number);
        }
        Some(round)
    }

    /// Takes the client's answer; gives the round when it was the last.
    pub(super) fn answered(&mut self, number: u64, result: &[u8]) -> Result<Option<Round>, Unasked> {
        let id = self.questions.remove(&number).ok_or(Unasked)?;
        let round = self.waiting.get_mut(id.as_slice()).ok_or(Unasked)?;
        if let Some((.., answer)) = round.asked.iter_mut().find(|(own, ..)| *own == number) {
            *answer = Some(result.to_vec());
        }
        round.bytes += result.len();
        let is_open = round.questions().next().is_some();
        Ok(if is_open { None } else { self.remove(id.as_slice()) })
    }

    /// Gives the round that the client will not go on with; its questions are those still open.
    pub(super) fn refused(&mut self, number: u64) -> Option<Round> {
        let id = self.questions.remove(&number)?;
        let mut round = self.remove(id.as_slice())?;
        round.asked.retain(|(own, ..)| *own != number);
        Some(round)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.values().filter_map(|round| round.due).min()
    }

    /// A round whose time has come.
    pub(super) fn due(&mut self, now: Instant) -> Option<Round> {
        let due = |round: &Round| round.due.is_some_and(|due| due <= now);
        let id = self.waiting.iter().find(|(_, round)| due(round)).map(|(id, _)| id.clone())?;
        self.remove(id.as_slice())
    }
}
