//! What the WebSocket targets share.

use framewire::codec::{
    Codec, Decode, Step, WebSocketDecoder,
    websocket::{Role, WebSocket},
};

use crate::naive::{self, Event};

/// The pieces of `bytes` when it is cut after each of `sizes` bytes, over and over; a size of 0 takes all.
pub fn cut(mut bytes: &[u8], sizes: [u8; 3]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut sizes = sizes.iter().cycle();
    while !bytes.is_empty() {
        let size = sizes.next().map_or(0, |&size| usize::from(size));
        let (piece, rest) = bytes.split_at(if size == 0 { bytes.len() } else { size.min(bytes.len()) });
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// Everything the decoder makes of a stream that comes in `pieces`.
pub fn run(decoder: &mut WebSocketDecoder, pieces: Vec<&[u8]>) -> Vec<Event> {
    let (mut events, mut buffer) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let consumed = match decoder.decode(&mut buffer) {
                Ok(Step::Frame { payload, consumed }) => {
                    assert!(payload.end <= consumed);
                    events.push(Event::Message(decoder.kind(), buffer[payload].to_vec()));
                    consumed
                }
                Ok(Step::Produced { consumed }) => {
                    events.push(Event::Message(decoder.kind(), decoder.produced().to_vec()));
                    consumed
                }
                Ok(Step::Event { consumed }) => consumed,
                Ok(Step::Incomplete { consumed, needed }) => {
                    buffer.drain(..consumed);
                    assert!(needed > buffer.len(), "{needed} needed of {}", buffer.len());
                    break;
                }
                Ok(Step::End { .. }) => {
                    let reply = decoder.poll_reply().expect("a close is answered");
                    assert!(reply.is_last());
                    events.push(Event::Reply(reply.bytes().to_vec()));
                    events.push(Event::Closed(decoder.close_reason().expect("it was kept").code()));
                    return events;
                }
                Ok(step) => panic!("{step:?}"),
                Err(violation) => {
                    let framewire::error::Violation::Protocol { code, .. } = violation else {
                        panic!("{violation}")
                    };
                    assert!(decoder.poll_reply().expect("a breach is answered").is_last());
                    assert_eq!(decoder.decode(&mut buffer), Err(violation), "it stays broken");
                    events.push(Event::Broken(code));
                    return events;
                }
            };
            if let Some(reply) = decoder.poll_reply() {
                assert!(!reply.is_last());
                events.push(Event::Reply(reply.bytes().to_vec()));
            }
            buffer.drain(..consumed);
        }
    }
    events
}

/// A client's replies are masked with a key that nobody can know: they are compared without their bytes.
fn blind(events: Vec<Event>, role: Role) -> Vec<Event> {
    let blind = |event| match event {
        Event::Reply(_) if role == Role::Client => Event::Reply(Vec::new()),
        event => event,
    };
    events.into_iter().map(blind).collect()
}

#[allow(dead_code, reason = "the deflate target has an oracle of its own")]
pub fn compare(role: Role, stream: &[u8], pieces: [u8; 3]) {
    // A stream of nothing but control frames would pass their limit.
    let (mut decoder, _) =
        WebSocket::new(role).max_control_frames(usize::MAX).max_fragments(usize::MAX).split();
    let run = run(&mut decoder, cut(stream, pieces));
    assert_eq!(blind(run, role), blind(naive::decode(stream, role), role));
}
