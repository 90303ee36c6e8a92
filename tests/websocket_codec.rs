//! The WebSocket codec against the RFC, rule by rule, and against a naive decoder, however the bytes are cut.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "websocket")]

#[path = "support/websocket.rs"]
mod naive;

use framewire::{
    codec::{
        Codec, Decode, Encode, Step, WebSocketDecoder,
        websocket::{Kind, Role, WebSocket},
    },
    error::{Rejection, Violation},
};
use naive::{Event, Frame, KEY, frame, masked, plain};
use proptest::prelude::*;

/// Everything the decoder makes of `bytes` that come in pieces cut at `cuts`.
fn run(codec: WebSocket, bytes: &[u8], cuts: &[usize]) -> Vec<Event> {
    run_decoder(Codec::split(codec).0, bytes, cuts)
}

fn run_decoder(mut decoder: WebSocketDecoder, bytes: &[u8], cuts: &[usize]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut buffer = Vec::new();
    let mut at = 0;
    for end in cuts.iter().copied().chain([bytes.len()]) {
        buffer.extend_from_slice(&bytes[at..end]);
        at = end;
        loop {
            let step = decoder.decode(&mut buffer);
            let consumed = match step {
                Ok(Step::Frame { payload, consumed }) => {
                    events.push(Event::Message(decoder.kind(), buffer[payload].to_vec()));
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
                    events.push(Event::Closed(decoder.close_reason().unwrap().code()));
                    assert!(matches!(decoder.decode(&mut buffer), Ok(Step::End { .. })));
                    return events;
                }
                Err(violation) => {
                    let Violation::Protocol { code, .. } = violation else { panic!("{violation}") };
                    let reply = decoder.poll_reply().expect("a breach is answered");
                    assert!(reply.is_last());
                    assert_eq!(decoder.decode(&mut buffer), Err(violation), "it stays broken");
                    assert!(decoder.poll_reply().is_none());
                    events.push(Event::Broken(code));
                    return events;
                }
                other => panic!("{other:?}"),
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

fn server() -> WebSocket {
    WebSocket::server()
}

fn client() -> WebSocket {
    WebSocket::client()
}

fn text(text: &str) -> Event {
    Event::Message(Kind::Text, text.as_bytes().to_vec())
}

/// RFC 6455 §5.7.
#[test]
fn the_examples_of_the_rfc() {
    let hello = text("Hello");
    assert_eq!(run(client(), b"\x81\x05Hello", &[]), std::slice::from_ref(&hello));
    assert_eq!(
        run(server(), b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", &[]),
        std::slice::from_ref(&hello)
    );
    assert_eq!(run(client(), b"\x01\x03Hel\x80\x02lo", &[]), [hello]);
    assert_eq!(
        run(server(), b"\x89\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", &[]),
        [Event::Reply(b"\x8a\x05Hello".to_vec())]
    );
    for (size, head) in [(256usize, &b"\x82\x7e\x01\x00"[..]), (65536, b"\x82\x7f\0\0\0\0\0\x01\0\0")] {
        let payload = vec![7; size];
        let mut bytes = head.to_vec();
        bytes.extend_from_slice(&payload);
        assert_eq!(run(client(), &bytes, &[]), [Event::Message(Kind::Binary, payload.clone())]);
        let mut dst = vec![0; size + 14];
        let len = server().send_as(Kind::Binary).encode(&payload, &mut dst).unwrap();
        assert_eq!(dst[..len], bytes[..]);
    }
}

/// One row for each rule: what a server must refuse, with which code, and where it is written.
#[test]
fn each_rule_is_kept() {
    let key = KEY;
    let long = |first: u8, second: u8, rest: &[u8]| [&[first, second][..], rest, &key].concat();
    let rows: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("unmasked from a client", vec![0x81, 0x01, b'a'], 1002, "RFC 6455 §5.1"),
        ("RSV1 without an extension", masked(0xc1, b"a"), 1002, "RFC 6455 §5.2"),
        ("RSV2", masked(0xa1, b"a"), 1002, "RFC 6455 §5.2"),
        ("RSV3", masked(0x91, b"a"), 1002, "RFC 6455 §5.2"),
        ("RSV1 on a ping", masked(0xc9, b""), 1002, "RFC 6455 §5.2"),
        ("reserved data opcode 3", masked(0x83, b""), 1002, "RFC 6455 §5.2"),
        ("reserved data opcode 7", masked(0x87, b""), 1002, "RFC 6455 §5.2"),
        ("reserved control opcode 11", masked(0x8b, b""), 1002, "RFC 6455 §5.2"),
        ("reserved control opcode 15", masked(0x8f, b""), 1002, "RFC 6455 §5.2"),
        ("16-bit length of 125", long(0x81, 0xfe, &125u16.to_be_bytes()), 1002, "RFC 6455 §5.2"),
        ("16-bit length of 0", long(0x82, 0xfe, &[0, 0]), 1002, "RFC 6455 §5.2"),
        ("64-bit length of 65535", long(0x81, 0xff, &65535u64.to_be_bytes()), 1002, "RFC 6455 §5.2"),
        ("64-bit length of 1", long(0x81, 0xff, &1u64.to_be_bytes()), 1002, "RFC 6455 §5.2"),
        ("highest bit of the length", long(0x82, 0xff, &(1u64 << 63).to_be_bytes()), 1002, "RFC 6455 §5.2"),
        ("all bits of the length", long(0x82, 0xff, &u64::MAX.to_be_bytes()), 1002, "RFC 6455 §5.2"),
        ("continuation of nothing", masked(0x80, b"a"), 1002, "RFC 6455 §5.4"),
        ("fragment of nothing", masked(0x00, b"a"), 1002, "RFC 6455 §5.4"),
        (
            "continuation after the last",
            [masked(0x81, b"a"), masked(0x80, b"b")].concat(),
            1002,
            "RFC 6455 §5.4",
        ),
        ("text inside a message", [masked(0x01, b"a"), masked(0x81, b"b")].concat(), 1002, "RFC 6455 §5.4"),
        ("binary inside a message", [masked(0x01, b"a"), masked(0x02, b"b")].concat(), 1002, "RFC 6455 §5.4"),
        ("fragmented ping", masked(0x09, b"a"), 1002, "RFC 6455 §5.5"),
        ("fragmented close", masked(0x08, b""), 1002, "RFC 6455 §5.5"),
        ("ping of 126 bytes", masked(0x89, &[b'a'; 126]), 1002, "RFC 6455 §5.5"),
        ("close of 126 bytes", masked(0x88, &[3, 232, 0].repeat(42)), 1002, "RFC 6455 §5.5"),
        ("pong with a 64-bit length", long(0x8a, 0xff, &70_000u64.to_be_bytes()), 1002, "RFC 6455 §5.5"),
        ("close of one byte", masked(0x88, b"\x03"), 1002, "RFC 6455 §5.5.1"),
        ("close reason not UTF-8", masked(0x88, b"\x03\xe8\xff"), 1007, "RFC 6455 §5.5.1"),
        ("close reason cut in a character", masked(0x88, b"\x03\xe8\xe2\x82"), 1007, "RFC 6455 §5.5.1"),
        ("text not UTF-8", masked(0x81, b"a\xff"), 1007, "RFC 6455 §8.1"),
        ("text with a surrogate", masked(0x81, b"\xed\xa0\x80"), 1007, "RFC 6455 §8.1"),
        ("text cut in a character", masked(0x81, b"\xe2\x82"), 1007, "RFC 6455 §8.1"),
        (
            "long text not UTF-8 at its end",
            masked(0x81, &[&[b'a'; 9000][..], b"\xff"].concat()),
            1007,
            "RFC 6455 §8.1",
        ),
        (
            "fragments cut in a character",
            [masked(0x01, b"\xe2"), masked(0x80, b"\x82")].concat(),
            1007,
            "RFC 6455 §8.1",
        ),
        (
            "second fragment not UTF-8",
            [masked(0x01, b"a"), masked(0x00, b"\xc0")].concat(),
            1007,
            "RFC 6455 §8.1",
        ),
    ];
    for (name, bytes, code, section) in &rows {
        let mut src = bytes.clone();
        let mut decoder = server();
        let violation = loop {
            match decoder.decode(&mut src) {
                Ok(Step::Frame { consumed, .. }) => drop(src.drain(..consumed)),
                Err(violation) => break violation,
                other => panic!("{name}: {other:?}"),
            }
        };
        let Violation::Protocol { section: told, code: sent, .. } = violation else {
            panic!("{name}: {violation}")
        };
        assert_eq!((told, sent), (*section, *code), "{name}");
        let reply = decoder.poll_reply().unwrap();
        assert_eq!(reply.bytes(), [&[0x88, 2][..], &code.to_be_bytes()].concat(), "{name}");
        for cut in 0..bytes.len() {
            assert_eq!(
                run(server(), bytes, &[cut]).last(),
                Some(&Event::Broken(*code)),
                "{name}, cut at {cut}"
            );
        }
    }
    // §5.1, the other way round.
    assert_eq!(run(client(), &masked(0x81, b"a"), &[]), [Event::Broken(1002)]);
}

/// RFC 6455 §7.4: which codes may stand in a Close frame.
#[test]
fn close_codes_are_the_ones_that_may_be_sent() {
    for code in 0..=u16::MAX {
        let good = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let events = run(server(), &masked(0x88, &code.to_be_bytes()), &[]);
        let echo = Event::Reply([&[0x88, 2][..], &code.to_be_bytes()].concat());
        let expected = if good { vec![echo, Event::Closed(code)] } else { vec![Event::Broken(1002)] };
        assert_eq!(events, expected, "{code}");
    }
    assert_eq!(run(server(), &masked(0x88, b""), &[]), [Event::Reply(vec![0x88, 0]), Event::Closed(1005)]);
    // What follows a Close frame is not looked at.
    let bytes = [masked(0x88, b""), masked(0x83, b"nonsense")].concat();
    assert_eq!(run(server(), &bytes, &[]), [Event::Reply(vec![0x88, 0]), Event::Closed(1005)]);
    let mut decoder = server();
    let mut src = masked(0x88, "\x03\u{0}bye".as_bytes());
    src[2..6].copy_from_slice(&[0; 4]);
    src[6..].copy_from_slice(b"\x0b\xb8bye");
    assert!(matches!(decoder.decode(&mut src), Ok(Step::End { .. })));
}

/// Text fails at the first byte that cannot be right, before the frame is whole (Autobahn 6.4).
#[test]
fn text_fails_as_it_comes() {
    let bytes = masked(0x81, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited");
    // Six bytes of head, eleven good ones and 0xf4; 0x90 cannot follow it.
    let bad = 6 + 11 + 2;
    for cut in 0..bytes.len() {
        let mut decoder = server();
        let outcome = decoder.decode(&mut bytes[..cut].to_vec());
        assert_eq!(outcome.is_err(), cut >= bad, "{cut}: {outcome:?}");
    }
    // And in a message of fragments, across which a character is cut.
    let bytes = [masked(0x01, b"ab\xf4"), masked(0x89, b""), masked(0x00, b"\x90xyz")].concat();
    for cut in 0..bytes.len() {
        let bad = bytes.len() - 3;
        assert_eq!(
            run(server(), &bytes[..cut], &[]).last() == Some(&Event::Broken(1007)),
            cut >= bad,
            "{cut}"
        );
    }
}

/// Text beyond ASCII changes how those after it are looked at, not what comes of them; cut anywhere they go another way still.
#[test]
fn what_came_before_does_not_change_the_verdict() {
    let wide = "gr\u{fc}\u{df}e \u{4f60}\u{597d} \u{1f600} ".repeat(300);
    let wide = |size: usize| {
        let mut text = wide.as_bytes()[..size].to_vec();
        text.truncate(std::str::from_utf8(&text).map_or_else(|error| error.valid_up_to(), str::len));
        text.resize(size, b'.');
        text
    };
    for size in [127, 128, 255, 256, 257, 300, 1024, 4095, 4096, 4097, 6000] {
        let ascii = vec![b'a'; size];
        let noise = vec![0xff; size];
        let frames = [(0x81, wide(size)), (0x81, ascii), (0x82, noise), (0x81, wide(size))];
        let kinds = [Kind::Text, Kind::Text, Kind::Binary, Kind::Text];
        let mut bytes = Vec::new();
        let mut events = Vec::new();
        for ((first, payload), kind) in frames.into_iter().zip(kinds) {
            bytes.extend(masked(first, &payload));
            events.push(Event::Message(kind, payload));
        }
        for wrong in [b"\xff".as_slice(), b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"] {
            for at in [0, 1, 63, 64, size / 2, size - 5, size - wrong.len()] {
                let mut text = wide(size);
                text[at..at + wrong.len()].copy_from_slice(wrong);
                let bytes = [bytes.clone(), masked(0x81, &text)].concat();
                let seen = run(server(), &bytes, &[]);
                assert_eq!(seen[..4], events);
                assert_eq!(seen.last(), Some(&Event::Broken(1007)), "{wrong:02x?} at {at} of {size}");
                let cut = run(server(), &bytes, &[bytes.len() - size / 2]);
                assert_eq!(cut, seen);
            }
        }
        let mut cut = wide(size);
        let end = cut.len() - 1;
        cut[end] = 0xe2;
        let bytes = [bytes, masked(0x81, &cut)].concat();
        assert_eq!(run(server(), &bytes, &[]).last(), Some(&Event::Broken(1007)), "cut at {size}");
    }
}

#[test]
fn limits_hold_at_their_edge() {
    for size in [0usize, 1, 124, 125, 126, 127, 4095, 4096, 4097, 65535, 65536, 70_000] {
        let payload = vec![b'x'; size];
        let bytes = masked(0x81, &payload);
        let whole = [Event::Message(Kind::Text, payload.clone())];
        assert_eq!(run(server().max_size(size), &bytes, &[]), whole);
        assert_eq!(run(server().max_size(size + 1), &bytes, &[]), whole);
        if size > 0 {
            assert_eq!(run(server().max_size(size - 1), &bytes, &[]), [Event::Broken(1009)]);
            assert_eq!(run(server().max_frame_size(size - 1), &bytes, &[]), [Event::Broken(1009)]);
            assert_eq!(
                server().max_size(size - 1).encode(&payload, &mut vec![0; size + 14]),
                Err(Rejection::TooLarge { size, limit: size - 1 })
            );
        }
        assert!(server().max_size(size).encode(&payload, &mut vec![0; size + 14]).is_ok());
    }
    // Told at once, from the head, before a byte of the payload has come.
    let head = [&[0x82, 0xff][..], &(1u64 << 40).to_be_bytes(), &KEY].concat();
    assert_eq!(run(server(), &head, &[]), [Event::Broken(1009)]);
    // The sum of the fragments.
    let bytes = [masked(0x02, &[1; 60]), masked(0x00, &[2; 30]), masked(0x80, &[3; 10])].concat();
    assert_eq!(run(server().max_size(100), &bytes, &[]).len(), 1);
    assert_eq!(run(server().max_size(99), &bytes, &[]), [Event::Broken(1009)]);
    assert_eq!(run(server().max_fragments(3), &bytes, &[]).len(), 1);
    assert_eq!(run(server().max_fragments(2), &bytes, &[]), [Event::Broken(1009)]);
    let pings = masked(0x8a, b"").repeat(5);
    assert_eq!(run(server().max_control_frames(5), &pings, &[]), []);
    assert_eq!(run(server().max_control_frames(4), &pings, &[]), [Event::Broken(1008)]);
    let between = [masked(0x01, b"a"), pings.clone(), masked(0x80, b"b")].concat();
    assert_eq!(run(server().max_control_frames(5), &between, &[]), [text("ab")]);
    assert_eq!(run(server().max_control_frames(4), &between, &[]), [Event::Broken(1008)]);
    // After a pause the count begins anew: a peer may ping an idle connection for days.
    let cuts: Vec<usize> = (1..5).map(|n| n * 6).collect();
    assert_eq!(run(server().max_control_frames(1), &pings, &cuts), []);
}

/// In the middle of a frame a peer can send no pong (RFC 6455 §5.4); it was given up as silent while it sent.
#[test]
fn a_peer_in_the_middle_of_a_slow_frame_is_not_silent() {
    let mut decoder = WebSocket::client();
    let mut src = b"\x82\x0a".to_vec();
    for byte in b"0123456789" {
        let step = decoder.decode(&mut src).unwrap();
        let Step::Incomplete { consumed, .. } = step else { panic!("{step:?}") };
        src.drain(..consumed);
        decoder.handle_idle().unwrap();
        src.push(*byte);
    }
    let Step::Frame { payload, .. } = decoder.decode(&mut src).unwrap() else { panic!("no frame") };
    assert_eq!(&src[payload], b"0123456789");
}

#[test]
fn a_peer_that_leaves_two_pings_unanswered_is_given_up() {
    for answer in [&b""[..], &masked(0x8a, b"whatever"), &masked(0x81, b"a")] {
        let mut decoder = server();
        decoder.handle_idle().unwrap();
        assert_eq!(decoder.poll_reply().unwrap().bytes(), b"\x89\x01\x01");
        decoder.handle_idle().unwrap();
        let _ = decoder.decode(&mut answer.to_vec());
        let third = decoder.handle_idle();
        assert_eq!(third.is_err(), answer.is_empty());
        if answer.is_empty() {
            assert!(decoder.poll_reply().unwrap().is_last());
        }
    }
}

#[test]
fn the_end_without_a_close_frame_is_told() {
    for bytes in [&b""[..], &masked(0x01, b"a"), &masked(0x81, b"abc")[..7], &[0x81]] {
        let mut decoder = server();
        let mut src = bytes.to_vec();
        if let Ok(Step::Incomplete { consumed, .. }) = decoder.decode(&mut src) {
            src.drain(..consumed);
        }
        let violation = decoder.decode_eof(&mut src).unwrap_err();
        assert!(matches!(violation, Violation::Protocol { code: 1006, .. }), "{violation}");
        assert!(decoder.poll_reply().is_none());
    }
}

#[test]
fn a_message_in_parts_is_the_message() {
    let payload: Vec<u8> = (0..20_000u32).map(|n| (n % 100) as u8).collect();
    let bytes = [
        masked(0x01, &payload[..7000]),
        masked(0x89, b"p"),
        masked(0x80, &payload[7000..]),
        masked(0x82, b"z"),
    ]
    .concat();
    for piece in [1, 13, 1448, 64 * 1024] {
        let mut decoder = server().parts(true);
        let (mut buffer, mut got, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for chunk in bytes.chunks(piece) {
            buffer.extend_from_slice(chunk);
            assert!(buffer.len() <= piece + 200, "parts are not kept");
            loop {
                match decoder.decode(&mut buffer).unwrap() {
                    Step::Frame { payload, consumed } => {
                        got.extend_from_slice(&buffer[payload]);
                        let (decoder, _) = Codec::split(decoder.clone());
                        if decoder.is_final() {
                            ends.push((got.len(), decoder.kind()));
                        }
                        buffer.drain(..consumed);
                    }
                    Step::Event { consumed } => drop(buffer.drain(..consumed)),
                    Step::Incomplete { consumed, .. } => {
                        buffer.drain(..consumed);
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(got[..20_000], payload[..]);
        assert_eq!(ends, [(20_000, Kind::Text), (20_001, Kind::Binary)]);
    }
}

#[test]
fn what_is_sent_in_fragments_is_one_message() {
    for role in [Role::Client, Role::Server] {
        let (_, mut encoder) = Codec::split(WebSocket::new(role));
        let mut bytes = Vec::new();
        for (part, more) in [("Hel", true), ("", true), ("lo", false), ("next", false)] {
            encoder.set_more(more);
            let mut dst = [0; 32];
            let len = encoder.encode(part.as_bytes(), &mut dst).unwrap();
            bytes.extend_from_slice(&dst[..len]);
        }
        let peer = if role == Role::Client { server() } else { client() };
        assert_eq!(run(peer, &bytes, &[]), [text("Hello"), text("next")]);
    }
}

#[test]
fn text_that_is_none_is_not_sent_where_that_is_asked_for() {
    let mut codec = server().check_sent_text(true);
    assert_eq!(codec.encode(b"a\xff", &mut [0; 16]), Err(Rejection::InvalidUtf8 { valid_up_to: 1 }));
    assert!(codec.encode("\u{e9}".as_bytes(), &mut [0; 16]).is_ok());
    assert!(server().encode(b"a\xff", &mut [0; 16]).is_ok());
    assert!(codec.send_as(Kind::Binary).encode(b"a\xff", &mut [0; 16]).is_ok());
}

/// Fixtures cut at every place, and byte by byte.
#[test]
fn cuts_change_nothing() {
    let fixtures: Vec<Vec<u8>> = vec![
        masked(0x81, b"Hello"),
        [masked(0x81, &[b'a'; 125]), masked(0x82, &[1; 126]), masked(0x81, &[b'b'; 300])].concat(),
        [
            masked(0x01, "a\u{20ac}".as_bytes()),
            masked(0x89, b"ping"),
            masked(0x8a, b""),
            masked(0x00, b""),
            masked(0x80, b"end"),
        ]
        .concat(),
        [
            masked(0x01, &"\u{20ac}".as_bytes()[..1]),
            masked(0x89, b"x"),
            masked(0x80, &"\u{20ac}".as_bytes()[1..]),
            masked(0x88, b"\x03\xe8bye"),
        ]
        .concat(),
        [masked(0x89, b"1"), masked(0x89, &[0; 125]), masked(0x82, b""), masked(0x81, b"")].concat(),
    ];
    for bytes in fixtures {
        let whole = naive::decode(&bytes, Role::Server);
        assert!(!whole.is_empty());
        for one in 0..=bytes.len() {
            assert_eq!(run(server(), &bytes, &[one]), whole);
        }
        let all: Vec<usize> = (1..bytes.len()).collect();
        assert_eq!(run(server(), &bytes, &all), whole);
    }
}

/// Many tiny fragments with control frames between: what is held stays in proportion to the message.
#[test]
fn dead_bytes_between_fragments_are_not_kept() {
    let count = 4000;
    let mut bytes = masked(0x02, b"a");
    for _ in 0..count - 2 {
        bytes.extend(masked(0x8a, &[0; 125]));
        bytes.extend(masked(0x00, b"b"));
    }
    bytes.extend(masked(0x80, b"c"));
    let mut decoder = server();
    let (mut buffer, mut most) = (Vec::new(), 0);
    for chunk in bytes.chunks(1448) {
        buffer.extend_from_slice(chunk);
        most = most.max(buffer.len());
        loop {
            match decoder.decode(&mut buffer).unwrap() {
                Step::Event { consumed } => drop(buffer.drain(..consumed)),
                Step::Incomplete { consumed, .. } => {
                    buffer.drain(..consumed);
                    break;
                }
                Step::Frame { payload, .. } => assert_eq!(payload.len(), count),
                other => panic!("{other:?}"),
            }
            if buffer.is_empty() || bytes.ends_with(chunk) {
                break;
            }
        }
    }
    assert!(most < 2 * count + 3 * 4096, "{most} bytes held");
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let payload = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..40),
        3 => "[a-z\u{e9}\u{20ac}\u{1f600}]{0,20}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(32u8..127, 100..700),
    ];
    let first = prop_oneof![
        8 => proptest::sample::select(vec![0x81u8, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8a]),
        1 => Just(0x88u8),
        1 => any::<u8>(),
    ];
    (first, payload, any::<[u8; 4]>(), prop_oneof![30 => Just(true), 1 => Just(false)])
        .prop_map(|(first, payload, key, masked)| Frame { first, payload, key: masked.then_some(key) })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn any_stream_is_taken_as_the_naive_decoder_takes_it(
        frames in proptest::collection::vec(any_frame(), 0..12),
        cuts in proptest::collection::vec(0usize..6000, 0..6),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(frame).collect();
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| cut < bytes.len()).collect();
        cuts.sort_unstable();
        prop_assert_eq!(run(server(), &bytes, &cuts), naive::decode(&bytes, Role::Server));
        let plain: Vec<u8> = frames.iter().flat_map(|one| plain(one.first, &one.payload)).collect();
        cuts.retain(|&cut| cut < plain.len());
        prop_assert_eq!(run(client(), &plain, &cuts).len(), naive::decode(&plain, Role::Client).len());
    }

    #[test]
    fn what_one_end_sends_the_other_receives(
        messages in proptest::collection::vec(("\\PC{0,300}", any::<bool>()), 0..20),
        from_client in any::<bool>(),
    ) {
        let (role, peer) = if from_client { (Role::Client, server()) } else { (Role::Server, client()) };
        let (_, mut encoder) = Codec::split(WebSocket::new(role));
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for (message, binary) in &messages {
            let kind = if *binary { Kind::Binary } else { Kind::Text };
            encoder.set_kind(kind);
            let mut dst = vec![0; encoder.room(message.len())];
            let len = encoder.encode(message.as_bytes(), &mut dst).unwrap();
            bytes.extend_from_slice(&dst[..len]);
            expected.push(Event::Message(kind, message.clone().into_bytes()));
        }
        prop_assert_eq!(run(peer, &bytes, &[]), expected);
    }
}

/// A reader plans its reads by what messages take of the stream.
#[test]
fn a_message_takes_its_head_along_wherever_it_is_cut() {
    for (role, peer) in [(Role::Server, Role::Client), (Role::Client, Role::Server)] {
        for size in [5, 300, 70_000] {
            let (_, mut encoder) = WebSocket::new(peer).split();
            let payload = vec![b'x'; size];
            let mut bytes = vec![0; encoder.room(size)];
            let len = encoder.encode(&payload, &mut bytes).unwrap();
            bytes.truncate(len);
            for cut in (0..len.min(20)).chain([len / 2, len - 1]) {
                let (mut decoder, _) = WebSocket::new(role).split();
                let mut buffer = bytes[..cut].to_vec();
                let step = decoder.decode(&mut buffer);
                assert!(matches!(step, Ok(Step::Incomplete { consumed: 0, .. })), "{size} {cut}: {step:?}");
                buffer.extend_from_slice(&bytes[cut..]);
                let Ok(Step::Frame { payload: at, consumed }) = decoder.decode(&mut buffer) else {
                    panic!("{size} {cut}: it is whole");
                };
                assert_eq!((consumed, &buffer[at] == payload.as_slice()), (len, true), "{size} {cut}");
            }
        }
    }
}
