//! The one handshake with a server that all its clients share.

use std::{mem, task::Waker};

use super::{
    desk::{Desk, Handshake, Shared, What, can},
    gather::Gather,
    slab::Digits,
};
use crate::{
    Frame,
    gateway::splice::{Exchange, Field, Fields},
    json::{Envelope, Kind, Within},
};

/// What a client says in `initialize` that it can do.
pub(super) fn abilities(initialize: &Envelope<'_>) -> u8 {
    let known = [("sampling", can::SAMPLE), ("elicitation", can::ELICIT), ("roots", can::LIST_ROOTS)];
    let has = |name| {
        initialize
            .locate(Within::Params, &["capabilities", name])
            .is_ok_and(|part| initialize.bytes().get(part).is_some_and(|part| part.starts_with(b"{")))
    };
    known.iter().filter(|(name, _)| has(name)).fold(0, |all, (_, bit)| all | bit)
}

/// The server's answer with the id of another client's request.
pub(super) fn answer_to(id: &[u8], answer: &Frame, gather: &mut Gather) -> Option<Frame> {
    let fields = Fields::find(&Envelope::peek(answer).ok()?).ok()?;
    let exchange = Exchange { id: Some(id), ..Exchange::default() };
    let pieces = fields.pieces(&exchange);
    Some(gather.frame(pieces.size(), pieces))
}

/// The server has answered `initialize`: those that wait for it get the same, or the next of them is passed on.
pub(super) fn answered(shared: &Shared, answer: &Envelope<'_>, gather: &mut Gather, wake: &mut Vec<Waker>) {
    let mut desk = shared.lock();
    let Handshake::Asked(waiting) = &mut desk.handshake else { return };
    if answer.kind() == Kind::Error {
        let next = waiting.pop_front();
        match next {
            Some((client, frame)) => pass_on(&mut desk, client, &frame, gather),
            None => desk.handshake = Handshake::None,
        }
        shared.publish(&desk);
        shared.driver.wake();
        return;
    }
    let waiting = mem::take(waiting);
    let answer = Frame::copy_from_slice(answer.bytes());
    for (client, request) in waiting {
        desk.wait(client, -1);
        let id = Envelope::peek(&request).ok().and_then(|request| request.raw_id().map(<[u8]>::to_vec));
        if let Some(frame) = id.and_then(|id| answer_to(&id, &answer, gather)) {
            desk.push(client, frame, shared, wake);
        }
    }
    desk.handshake = Handshake::Done(answer);
}

/// Sends the `initialize` of a client that has waited.
fn pass_on(desk: &mut Desk, client: u64, request: &Frame, gather: &mut Gather) {
    desk.wait(client, -1);
    let Ok(envelope) = Envelope::peek(request) else { return };
    let (Ok(fields), Some(id)) = (Fields::find(&envelope), envelope.raw_id()) else { return };
    let token = fields.get(Field::ProgressToken).unwrap_or_default();
    let Some(number) = desk.call(client, What::Initialize, id, token, "") else { return };
    let digits = Digits::of(number);
    let name = Some(digits.as_slice());
    let exchange = Exchange { id: name, progress_token: name, ..Exchange::default() };
    let pieces = fields.pieces(&exchange);
    desk.send(gather.frame(pieces.size(), pieces));
}
