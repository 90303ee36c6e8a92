//! permessage-deflate: compressed messages against a naive inflater, and whatever is sent compressed comes back. Input:
//! parameters, limit in units of 16 bytes, three sizes of pieces, then payloads, each behind its length in one byte.
#![no_main]

#[path = "../../tests/support/inflate.rs"]
mod inflate;
#[path = "../../tests/support/websocket.rs"]
mod naive;
#[path = "../support/websocket.rs"]
mod support;

use framewire::codec::{
    Codec, Encode,
    websocket::{Kind, WebSocket, handshake::DeflateParams},
};
use libfuzzer_sys::fuzz_target;
use naive::{Event, masked};

fuzz_target!(|input: &[u8]| {
    let Some((&[layout, limit, a, b, c], mut rest)) = input.split_first_chunk::<5>() else { return };
    let (bits, fresh) = (8 + (layout & 7), layout & 8 != 0);
    let params = DeflateParams {
        client_max_window_bits: bits,
        client_no_context_takeover: fresh,
        ..DeflateParams::default()
    };
    let limit = 16 * usize::from(limit);
    let codec = || WebSocket::server().deflate(params).send_as(Kind::Binary);

    // What came in is inflated.
    let mut oracle = inflate::Stream::new(15, !fresh);
    let (mut bytes, mut expected, mut known) = (Vec::new(), Vec::new(), true);
    while let Some((&size, after)) = rest.split_first() {
        let (payload, after) = after.split_at(after.len().min(usize::from(size)));
        rest = after;
        bytes.extend(masked(0xc2, payload));
        if !known {
            continue;
        }
        match oracle.message(payload, limit) {
            Ok(message) if message.len() > limit => expected.push(Event::Broken(1009)),
            Ok(message) => {
                expected.push(Event::Message(Kind::Binary, message));
                continue;
            }
            Err(_) => {}
        }
        // Cut off data may be found out with the next message only, bad ones after the limit was passed.
        known = false;
    }
    // The window of the oracle is the largest: with a smaller one, it is only the absence of panics that counts.
    let (mut decoder, _) = codec().max_size(limit).split();
    let mut run = support::run(&mut decoder, support::cut(&bytes, [a, b, c]));
    if let Some(Event::Broken(code)) = run.last_mut() {
        // Bad data behind the limit: either is told.
        *code = 1009;
    }
    for event in &run {
        assert!(!matches!(event, Event::Message(_, message) if message.len() > limit));
    }
    if bits == 15 {
        let common = run.len().min(expected.len());
        assert_eq!(run[..common], expected[..common]);
        assert!(run.len() >= expected.len());
    }

    // What goes out comes back.
    let (_, mut encoder) =
        WebSocket::client().deflate(params).deflate_threshold(1).send_as(Kind::Binary).split();
    let (mut decoder, _) = codec().split();
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    for message in [input, b"", &input.repeat(3)[..], &input[input.len() / 2..]] {
        let mut dst = vec![0; encoder.room(message.len())];
        let len = encoder.encode(message, &mut dst).expect("within the limits");
        bytes.extend_from_slice(&dst[..len]);
        expected.push(Event::Message(Kind::Binary, message.to_vec()));
    }
    assert_eq!(support::run(&mut decoder, support::cut(&bytes, [a, b, c])), expected);
});
