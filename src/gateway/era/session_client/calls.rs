//! Calls: each gets the `_meta` of the session, and is sent again where its result asks for input.

use tokio::time::Instant;

use super::{Call, SessionClient, Verdict, question};
use crate::{
    gateway::era::{
        MAX_QUESTIONS, MAX_ROUNDS,
        edit::{Edits, Malformed, each, field, fields},
        message::{Asking, BUSY, INTERNAL_ERROR, INVALID_PARAMS, is_text, own_id, quoted, text},
        queue::{Outbox, RawId, SPARE, SPARE_SIZE},
        round::Round,
    },
    json::{Envelope, RawString},
    limits::{ERA_MAX_HELD_BYTES, ERA_MAX_IN_FLIGHT},
};

impl SessionClient {
    pub(super) fn forward(
        &mut self,
        envelope: &Envelope<'_>,
        method: RawString<'_>,
        id: &[u8],
        out: &mut Outbox,
    ) {
        let asking = Asking::of(method);
        if asking.is_some() && self.calls.len() + self.rounds.len() >= ERA_MAX_IN_FLIGHT {
            return out.client.error(id, BUSY, "too many requests in flight");
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let written = self.stamp(envelope, None, &[], &mut scratch);
        match written {
            Ok(()) => out.server.pieces(&[&scratch]),
            Err(Malformed) => {
                out.client.error(id, INVALID_PARAMS, "params is not an object with each name once")
            }
        }
        self.scratch = scratch;
        if let (Some(asking), Ok(())) = (asking, written) {
            let bytes = envelope.bytes();
            let room = ERA_MAX_HELD_BYTES.saturating_sub(self.held_bytes);
            let mut request = self.spare.pop().unwrap_or_default();
            if bytes.len() <= room {
                request.extend_from_slice(bytes);
            }
            self.held_bytes += request.len();
            let client = RawId::new(id);
            let call = Call { client: client.clone(), asking, request, rounds: 0 };
            if let Some(forgotten) = self.calls.insert(client, call) {
                self.release(forgotten);
            }
        }
    }

    /// Writes a request with the session's `_meta`, with `id` instead of its own and with more `members` in params, if
    /// there are any.
    pub(super) fn stamp(
        &self,
        envelope: &Envelope<'_>,
        id: Option<&[u8]>,
        members: &[&[u8]],
        to: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        let message = envelope.bytes();
        let mut edits = Edits::new(message);
        let place = |part: Option<&[u8]>| part.and_then(|part| envelope.range_of(part));
        if let (Some(id), Some(range)) = (id, place(envelope.raw_id())) {
            edits.replace(range, id);
        }
        let whole: [&[u8]; 3] = [b"\"_meta\":{", &self.members, b"}"];
        let mut missing = Vec::new();
        match place(envelope.params()) {
            None => {
                let method = envelope.method().map(RawString::raw);
                let end = place(method).ok_or(Malformed)?.end + 1;
                edits.insert(end, b",\"params\":{");
                members.iter().chain(&whole).for_each(|piece| edits.insert(end, piece));
                edits.insert(end, b"}");
            }
            Some(params) if message.get(params.clone()) == Some(&b"null"[..]) => {
                edits.replace(params.start..params.end, b"{");
                members.iter().chain(&whole).for_each(|piece| edits.insert(params.end, piece));
                edits.insert(params.end, b"}");
            }
            Some(params) => {
                let [meta] = fields(message, params.start, ["_meta"])?;
                let old = message.get(meta.clone()).unwrap_or_default();
                match old.first() {
                    None => {
                        members.iter().chain(&whole).for_each(|piece| edits.insert(params.start + 1, piece));
                        edits.add_members(params.start, &[]);
                    }
                    Some(b'{') => {
                        members.iter().for_each(|piece| edits.insert(params.start + 1, piece));
                        let names = self.envelope.each_ref().map(|(name, _)| *name);
                        let there = fields(message, meta.start, names)?;
                        if there.iter().all(|value| value.is_empty()) {
                            edits.add_members(meta.start, &[&self.members]);
                        } else {
                            self.missing(&there, &mut missing);
                            edits.insert(meta.start + 1, &missing);
                        }
                    }
                    Some(_) if old == b"null" => {
                        members.iter().for_each(|piece| edits.insert(params.start + 1, piece));
                        edits.replace(meta.start..meta.end, b"{");
                        edits.insert(meta.end, &self.members);
                        edits.insert(meta.end, b"}");
                    }
                    Some(_) => return Err(Malformed),
                }
            }
        }
        edits.write(to);
        Ok(())
    }

    /// The members that a request does not bring itself, each with a comma behind it.
    pub(super) fn missing(&self, there: &[std::ops::Range<usize>; 4], to: &mut Vec<u8>) {
        for ((name, value), _) in self
            .envelope
            .iter()
            .zip(there)
            .filter(|((_, value), there)| !value.is_empty() && there.is_empty())
        {
            for piece in [b"\"", name.as_bytes(), b"\":", value, b","] {
                to.extend_from_slice(piece);
            }
        }
    }

    pub(super) fn drop_call(&mut self, wire: &[u8]) {
        if let Some(call) = self.calls.remove(wire) {
            self.release(call);
        }
    }

    pub(super) fn release(&mut self, mut call: Call) {
        self.held_bytes = self.held_bytes.saturating_sub(call.request.len());
        if self.spare.len() < SPARE && call.request.capacity() <= SPARE_SIZE {
            call.request.clear();
            self.spare.push(call.request);
        }
    }

    /// Sends a call again, with what was asked for.
    pub(super) fn retry(&mut self, round: Round, out: &mut Outbox) {
        self.held_bytes = self.held_bytes.saturating_sub(round.bytes);
        let number = self.number();
        let wire = own_id(number);
        let responses = round.responses();
        let state: [&[u8]; 3] = match &round.state {
            Some(state) => [b"\"requestState\":", state, b","],
            None => [b""; 3],
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let [name, value, comma] = state;
        let written = Envelope::peek(&round.call.request).map_err(|_| Malformed).and_then(|envelope| {
            self.stamp(&envelope, Some(&wire), &[&responses, name, value, comma], &mut scratch)
        });
        match written {
            Ok(()) => {
                out.server.pieces(&[&scratch]);
                self.retried.insert(round.call.client.clone(), RawId::new(&wire));
                self.calls.insert(RawId::new(&wire), round.call);
            }
            Err(Malformed) => self.fail(round.call, "the request cannot be sent again", out),
        }
        self.scratch = scratch;
    }

    /// Ends a call: a tool's as tools fail, others with an error.
    pub(super) fn fail(&mut self, call: Call, why: &str, out: &mut Outbox) {
        let id = call.client.as_slice();
        if call.asking == Asking::Tool {
            let result =
                [b"{\"content\":[{\"type\":\"text\",\"text\":", &*quoted(why), b"}],\"isError\":true}"];
            out.client.result(id, &result.concat());
        } else {
            out.client.error(id, INTERNAL_ERROR, why);
        }
        self.retried.remove(id);
        self.release(call);
    }

    pub(super) fn call_ended(
        &mut self,
        call: Call,
        envelope: &Envelope<'_>,
        now: Instant,
        out: &mut Outbox,
    ) -> Verdict {
        let result = envelope.result().filter(|result| {
            result.first() == Some(&b'{')
                && field(result, "resultType").is_some_and(|kind| is_text(kind, "input_required"))
        });
        if let Some(result) = result {
            self.ask(call, result, now, out);
            return Verdict::Done;
        }
        let verdict = if call.rounds == 0 {
            Verdict::Unchanged
        } else {
            self.retried.remove(call.client.as_slice());
            out.client.push(|to| {
                envelope.splice(call.client.as_slice(), to);
            });
            Verdict::Done
        };
        self.release(call);
        verdict
    }

    /// Asks the client for what a result needs.
    pub(super) fn ask(&mut self, mut call: Call, result: &[u8], now: Instant, out: &mut Outbox) {
        self.retried.remove(call.client.as_slice());
        call.rounds = call.rounds.saturating_add(1);
        let failure = if call.request.is_empty() {
            Some("the request was too large to be kept until the server asked for input".to_owned())
        } else if call.rounds > MAX_ROUNDS {
            Some(format!("the server asked for input more than {} times", MAX_ROUNDS))
        } else {
            None
        };
        if let Some(failure) = failure {
            return self.fail(call, &failure, out);
        }
        let requests = field(result, "inputRequests").unwrap_or(b"{}");
        let state = field(result, "requestState").filter(|state| text(state).is_some()).map(<[u8]>::to_vec);
        let mut round = Round::new(call, state);
        let mut failure = None;
        let mut messages: Vec<Vec<u8>> = Vec::new();
        let walked = each(requests, 0, |key, _, value| {
            let request = requests.get(value).unwrap_or_default();
            let [method, params] = fields(request, 0, ["method", "params"])?;
            let method = request.get(method).unwrap_or_default();
            let params = request.get(params).filter(|params| !params.is_empty());
            match text(method).and_then(|method| self.abilities.allow(method, params)) {
                _ if round.len() >= MAX_QUESTIONS => failure = Some("the server asked for too much at once"),
                None => failure = Some("the server asked for something that is no input"),
                Some(false) => failure = Some("the server asked for something that the client cannot give"),
                Some(true) => {
                    let number = self.number();
                    round.ask(number, key.raw());
                    messages.push(question(number, method, params));
                }
            }
            Ok(())
        });
        if walked.is_err() {
            failure = Some("the server asked for input in a way that cannot be read");
        } else if round.len() == 0 && round.state.is_none() {
            failure = failure.or(Some("the server asked for input without saying which"));
        }
        if let Some(failure) = failure {
            return self.fail(round.call, failure, out);
        }
        if round.bytes > ERA_MAX_HELD_BYTES.saturating_sub(self.held_bytes) {
            return self.fail(round.call, "the server asked for input with too much state", out);
        }
        self.held_bytes += round.bytes;
        messages.iter().for_each(|message| out.client.pieces(&[message]));
        self.rounds.insert(round, now);
    }
}
