//! permessage-deflate against RFC 7692, its limits, its memory, and a naive inflater.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "deflate")]

#[path = "support/allocation.rs"]
mod allocation;
#[path = "support/inflate.rs"]
mod inflate;
#[path = "support/websocket.rs"]
mod naive;

use std::io::IoSlice;

use framewire::{
    codec::{
        Codec, Decode, Encode, Step, WebSocketDecoder, WebSocketEncoder,
        websocket::{Kind, Role, WebSocket, handshake::DeflateParams},
    },
    error::Violation,
};
use naive::{Event, masked, plain};
use proptest::prelude::*;

fn params() -> DeflateParams {
    DeflateParams::default()
}

fn halves(role: Role, params: DeflateParams) -> (WebSocketDecoder, WebSocketEncoder) {
    WebSocket::new(role).deflate(params).deflate_threshold(1).split()
}

/// Everything the decoder makes of `bytes` that come in pieces cut at `cuts`.
fn run(decoder: &mut WebSocketDecoder, bytes: &[u8], cuts: &[usize]) -> Vec<Event> {
    let (mut events, mut buffer, mut at) = (Vec::new(), Vec::new(), 0);
    for end in cuts.iter().copied().chain([bytes.len()]) {
        buffer.extend_from_slice(&bytes[at..end]);
        at = end;
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Step::Frame { payload, consumed }) => {
                    events.push(Event::Message(decoder.kind(), buffer[payload].to_vec()));
                    buffer.drain(..consumed);
                }
                Ok(Step::Produced { consumed }) => {
                    let kind = decoder.kind();
                    let lent = decoder.produced().to_vec();
                    events.push(Event::Message(kind, lent.clone()));
                    assert_eq!(decoder.take_produced().as_slice(), lent);
                    buffer.drain(..consumed);
                }
                Ok(Step::Event { consumed }) => drop(buffer.drain(..consumed)),
                Ok(Step::Incomplete { consumed, needed }) => {
                    buffer.drain(..consumed);
                    assert!(needed > buffer.len(), "{needed} needed of {}", buffer.len());
                    break;
                }
                Ok(step) => panic!("{step:?}"),
                Err(violation) => {
                    let Violation::Protocol { code, .. } = violation else { panic!("{violation}") };
                    assert!(decoder.poll_reply().unwrap().is_last());
                    assert_eq!(decoder.decode(&mut buffer), Err(violation), "it stays broken");
                    events.push(Event::Broken(code));
                    return events;
                }
            }
            let _pong = decoder.poll_reply();
        }
    }
    events
}

fn encoded(encoder: &mut WebSocketEncoder, payload: &[u8]) -> Vec<u8> {
    let mut dst = vec![0xee; encoder.room(payload.len())];
    let len = encoder.encode(payload, &mut dst).unwrap();
    dst.truncate(len);
    dst
}

fn text(text: &str) -> Event {
    Event::Message(Kind::Text, text.as_bytes().to_vec())
}

/// RFC 7692 §7.2.3, cut at every place.
#[test]
fn the_examples_of_the_rfc() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let rows: Vec<(&str, Vec<u8>, usize)> = vec![
        ("§7.2.3.1", plain(0xc1, &hello), 1),
        ("§7.2.3.1, fragmented", [plain(0x41, &hello[..3]), plain(0x80, &hello[3..])].concat(), 1),
        ("§7.2.3.2", [plain(0xc1, &hello), plain(0xc1, &[0xf2, 0, 0x11, 0, 0])].concat(), 2),
        ("§7.2.3.2, no takeover used", plain(0xc1, &hello).repeat(2), 2),
        ("§7.2.3.3", plain(0xc1, &[0, 5, 0, 0xfa, 0xff, b'H', b'e', b'l', b'l', b'o', 0]), 1),
        ("§7.2.3.4", plain(0xc1, &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]).repeat(3), 3),
        ("§7.2.3.5", plain(0xc1, &[0xf2, 0x48, 0x05, 0, 0, 0, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0]), 1),
        ("uncompressed between", [plain(0xc1, &hello), plain(0x81, b"Hello")].concat(), 2),
    ];
    for (name, bytes, count) in rows {
        for cut in 0..=bytes.len() {
            let (mut decoder, _) = halves(Role::Client, params());
            assert_eq!(run(&mut decoder, &bytes, &[cut]), vec![text("Hello"); count], "{name}, {cut}");
        }
    }
    // §7.2.3.6: an empty message.
    let (mut decoder, _) = halves(Role::Client, params());
    assert_eq!(run(&mut decoder, &plain(0xc1, &[0]), &[]), [text("")]);
}

/// One row for each rule, with its section and the code that goes out.
#[test]
fn each_rule_is_kept() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let euro = [0x00, 0x03, 0x00, 0xfc, 0xff, 0xe2, 0x82, 0xac, 0x00];
    let rows: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        (
            "RSV1 on a continuation",
            [masked(0x41, &hello[..3]), masked(0xc0, &hello[3..])].concat(),
            1002,
            "RFC 7692 §6.1",
        ),
        ("RSV1 on a ping", masked(0xc9, b""), 1002, "RFC 7692 §6.1"),
        ("RSV1 on a close", masked(0xc8, b""), 1002, "RFC 7692 §6.1"),
        ("RSV2 beside RSV1", masked(0xe1, &hello), 1002, "RFC 6455 §5.2"),
        ("RSV3", masked(0x91, &hello), 1002, "RFC 6455 §5.2"),
        ("no byte at all", masked(0xc1, b""), 1007, "RFC 7692 §7.2.2"),
        ("reserved block type", masked(0xc1, &[0x07, 0x00]), 1007, "RFC 7692 §7.2.2"),
        ("stored block with a wrong check", masked(0xc1, &[0, 5, 0, 0, 0, 1]), 1007, "RFC 7692 §7.2.2"),
        ("stored block cut off", masked(0xc1, &[0, 50, 0, 205, 255, b'a']), 1007, "RFC 7692 §7.2.2"),
        ("block cut off", masked(0xc1, &hello[..4]), 1007, "RFC 7692 §7.2.2"),
        ("tail left in", masked(0xc1, &[&hello[..], &[0, 0, 0xff]].concat()), 1007, "RFC 7692 §7.2.2"),
        ("looks back before the first byte", masked(0xc1, &[0xf2, 0, 0x11, 0, 0]), 1007, "RFC 7692 §7.2.2"),
        ("not UTF-8 when inflated", masked(0xc1, &[0, 1, 0, 0xfe, 0xff, 0xff, 0]), 1007, "RFC 6455 §8.1"),
        (
            "cut in a character when inflated",
            masked(0xc1, &[0, 1, 0, 0xfe, 0xff, 0xe2, 0]),
            1007,
            "RFC 6455 §8.1",
        ),
        (
            "new message inside a compressed one",
            [masked(0x41, &hello), masked(0xc1, &hello)].concat(),
            1002,
            "RFC 6455 §5.4",
        ),
        ("unmasked", plain(0xc1, &hello), 1002, "RFC 6455 §5.1"),
    ];
    for (name, bytes, code, section) in &rows {
        let (mut decoder, _) = halves(Role::Server, params());
        let mut src = bytes.clone();
        let violation = decoder.decode(&mut src).expect_err(name);
        let Violation::Protocol { section: told, code: sent, .. } = violation else { panic!("{name}") };
        assert_eq!((told, sent), (*section, *code), "{name}");
        for cut in 0..bytes.len() {
            let (mut decoder, _) = halves(Role::Server, params());
            assert_eq!(run(&mut decoder, bytes, &[cut]), [Event::Broken(*code)], "{name}, {cut}");
        }
    }
    // RFC 7692 §6: without the agreement RSV1 is a breach.
    let (mut decoder, _) = WebSocket::server().split();
    assert_eq!(run(&mut decoder, &masked(0xc1, &hello), &[]), [Event::Broken(1002)]);
    // A character across two fragments, a ping between them.
    let bytes = [masked(0x41, &euro[..6]), masked(0x89, b"?"), masked(0x80, &euro[6..])].concat();
    for cut in 0..=bytes.len() {
        let (mut decoder, _) = halves(Role::Server, params());
        assert_eq!(run(&mut decoder, &bytes, &[cut]), [text("\u{20ac}")]);
    }
    // §7.1.1: who has agreed to begin anew is held to it.
    let fresh = DeflateParams { client_no_context_takeover: true, ..params() };
    let bytes = [masked(0xc1, &hello), masked(0xc1, &[0xf2, 0, 0x11, 0, 0])].concat();
    let (mut decoder, _) = halves(Role::Server, fresh);
    assert_eq!(run(&mut decoder, &bytes, &[]), [text("Hello"), Event::Broken(1007)]);
    let fresh = DeflateParams { server_no_context_takeover: true, ..params() };
    let (mut decoder, _) = halves(Role::Server, fresh);
    assert_eq!(run(&mut decoder, &bytes, &[]).len(), 2);
}

/// Text that is wrong is told of with the byte that makes it so, though compressed.
#[test]
fn text_fails_as_it_comes() {
    let bytes = masked(0xc1, &[0, 6, 0, 0xf9, 0xff, b'a', 0xf4, 0x90, b'x', b'y', b'z', 0]);
    for cut in 0..bytes.len() {
        let (mut decoder, _) = halves(Role::Server, params());
        assert_eq!(decoder.decode(&mut bytes[..cut].to_vec()).is_err(), cut >= 6 + 8, "{cut}");
    }
}

#[test]
fn limits_hold_at_their_edge() {
    for size in [1usize, 255, 256, 320, 4096, 70_000] {
        let payload = vec![b'x'; size];
        let (_, mut encoder) = halves(Role::Client, params());
        let bytes = encoded(&mut encoder, &payload);
        for (limit, good) in [(size + 1, true), (size, true), (size - 1, false)] {
            let (mut decoder, _) = WebSocket::server().max_size(limit).deflate(params()).split();
            let expected =
                if good { Event::Message(Kind::Text, payload.clone()) } else { Event::Broken(1009) };
            assert_eq!(run(&mut decoder, &bytes, &[]), [expected], "{size} {limit}");
        }
    }
    // The frame's own limit holds for what comes over the wire.
    let (mut decoder, _) = WebSocket::server().max_frame_size(3).deflate(params()).split();
    assert_eq!(run(&mut decoder, &masked(0xc1, &[0; 4]), &[]), [Event::Broken(1009)]);
    // And a compressed size that no message within the limit can have is told from the head.
    let (mut decoder, _) = WebSocket::server().max_size(1000).deflate(params()).split();
    let head = [0xc2, 0xfe, 0x40, 0x00, 1, 2, 3, 4];
    assert_eq!(run(&mut decoder, &head, &[]), [Event::Broken(1009)]);
}

/// 64 MiB of zeros in 64 KiB: at most the limit, or what is free of the ratio, is ever made of it.
#[test]
fn a_bomb_is_stopped_while_it_is_inflated() {
    let (_, mut encoder) = WebSocket::client()
        .max_size(1 << 27)
        .deflate(params())
        .deflate_level(9)
        .send_as(Kind::Binary)
        .split();
    let bytes = encoded(&mut encoder, &vec![0; 64 << 20]);
    assert!(bytes.len() < 80_000, "{}", bytes.len());
    for (ratio, limit, most) in [
        (usize::MAX, 16 << 20, 34 << 20),
        (usize::MAX, 1 << 16, 1 << 18),
        (10, 1 << 27, 34 << 20),
        (100, 1 << 27, 34 << 20),
    ] {
        let (mut decoder, _) =
            WebSocket::server().max_size(limit).deflate(params()).max_inflate_ratio(ratio).split();
        let mut src = bytes.clone();
        let (outcome, _, held) = allocation::counted(|| decoder.decode(&mut src));
        let violation = outcome.unwrap_err();
        assert!(matches!(violation, Violation::Protocol { code: 1009, .. }), "{violation}");
        assert!(held < most, "{ratio} {limit}: {held}");
    }
    let (mut decoder, _) =
        WebSocket::server().max_size(1 << 27).deflate(params()).max_inflate_ratio(2000).split();
    assert!(decoder.decode(&mut bytes.clone()).is_ok());
}

/// Streams that end at once, over and over, each of which costs a window's worth of work.
#[test]
fn a_message_of_many_ends_is_refused() {
    let ends = |count| masked(0xc2, &[&[3, 0].repeat(count)[..], &[0]].concat());
    let (mut decoder, _) = halves(Role::Server, params());
    assert_eq!(run(&mut decoder, &ends(16), &[]), [Event::Message(Kind::Binary, Vec::new())]);
    assert_eq!(run(&mut decoder, &ends(17), &[]), [Event::Broken(1007)]);
}

#[test]
fn small_messages_and_fragments_go_out_as_they_are() {
    let (_, mut encoder) = WebSocket::server().deflate(params()).split();
    let small = "a".repeat(127);
    assert_eq!(encoded(&mut encoder, small.as_bytes())[0], 0x81);
    assert!(encoder.wrap(&[IoSlice::new(small.as_bytes())]).unwrap().is_some());
    let large = "a".repeat(128);
    assert!(encoder.wrap(&[IoSlice::new(large.as_bytes())]).unwrap().is_none());
    assert_eq!(encoded(&mut encoder, large.as_bytes())[0], 0xc1);
    // Bytes without any pattern do not shrink, and after them the window is as the peer sees it.
    let mut seed = 1u64;
    let random: Vec<u8> = (0..5000)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        })
        .collect();
    encoder.set_kind(Kind::Binary);
    let mut bytes = encoded(&mut encoder, &random);
    assert_eq!(bytes[0], 0xc2);
    assert!(bytes.len() < random.len() + random.len() / 7 + 64);
    let mut expected = vec![Event::Message(Kind::Binary, random.clone())];
    for _ in 0..3 {
        for payload in [large.as_bytes(), &random] {
            bytes.extend(encoded(&mut encoder, payload));
            expected.push(Event::Message(Kind::Binary, payload.to_vec()));
        }
    }
    let (mut decoder, _) = halves(Role::Client, params());
    let mut with_first = encoded(&mut WebSocket::server().deflate(params()).split().1, large.as_bytes());
    with_first.extend_from_slice(&bytes);
    assert_eq!(run(&mut decoder, &with_first, &[])[1..], expected);
    // Fragments are not compressed.
    encoder.set_more(true);
    assert_eq!(encoded(&mut encoder, large.as_bytes())[0], 0x02);
    encoder.set_more(false);
    assert_eq!(encoded(&mut encoder, large.as_bytes())[0], 0x80);
    assert_eq!(encoded(&mut encoder, large.as_bytes())[0], 0xc2);
}

/// Messages in which there is nothing to shorten, one after another, at every level and around every size of zlib's own
/// buffers: what is made of them always fits.
#[test]
fn what_does_not_shrink_fits_all_the_same() {
    let mut seed = 1u64;
    let random: Vec<u8> = (0..200_000)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        })
        .collect();
    for level in 1..=9 {
        for bits in [9, 15] {
            let params = DeflateParams { server_max_window_bits: bits, ..params() };
            let (_, mut encoder) =
                WebSocket::server().deflate(params).deflate_level(level).send_as(Kind::Binary).split();
            let (mut decoder, _) = halves(Role::Client, params);
            for size in
                [0, 1, 2, 127, 128, 129, 8192, 16_383, 16_384, 65_535, 65_536, 70_000, 70_000, 200_000]
            {
                let bytes = encoded(&mut encoder, &random[..size]);
                let expected = Event::Message(Kind::Binary, random[..size].to_vec());
                assert_eq!(
                    run(&mut decoder, &bytes, &[]),
                    [expected],
                    "{size} bytes, level {level}, {bits} bits"
                );
            }
        }
    }
}

/// Nothing is held before the first compressed message; then what the documentation says; in steady state at most one
/// allocation for each message.
#[test]
fn memory_is_as_stated() {
    let message: Vec<u8> = (0..16_000u32).map(|n| b' ' + (n * n % 90) as u8).collect();
    for bits in [9, 12, 15] {
        let params = DeflateParams { server_max_window_bits: bits, client_max_window_bits: bits, ..params() };
        let before = allocation::live();
        let (mut decoder, _) = WebSocket::server().deflate(params).split();
        let (_, mut encoder) = WebSocket::client().deflate(params).split();
        let idle = allocation::live() - before;
        assert!(idle < 600, "{idle} bytes before the first message");
        let mut dst = vec![0; encoder.room(message.len())];
        let before = allocation::live();
        let len = encoder.encode(&message, &mut dst).unwrap();
        let deflating = allocation::live() - before;
        assert!(matches!(decoder.decode(&mut dst[..len]), Ok(Step::Produced { .. })));
        assert_eq!(decoder.produced(), message);
        let inflating = allocation::live() - before - deflating;
        println!("{bits} bits: {deflating} to deflate, {inflating} to inflate");
        assert!(deflating <= 376 * 1024, "{bits} bits: {deflating} to deflate");
        assert!(inflating <= 80 * 1024, "{bits} bits: {inflating} to inflate");
        for round in 0..20 {
            let before = allocation::calls();
            let len = encoder.encode(&message, &mut dst).unwrap();
            assert!(matches!(decoder.decode(&mut dst[..len]), Ok(Step::Produced { .. })));
            assert_eq!(decoder.produced(), message);
            if round > 2 {
                assert_eq!(allocation::calls() - before, 0, "lent");
            }
        }
        let len = encoder.encode(&message, &mut dst).unwrap();
        assert!(matches!(decoder.decode(&mut dst[..len]), Ok(Step::Produced { .. })));
        let before = allocation::calls();
        assert_eq!(decoder.take_produced().as_slice(), message);
        assert_eq!(allocation::calls() - before, 1, "owned");
        // A large message is not kept.
        let large = message.repeat(20);
        let mut dst = vec![0; encoder.room(large.len())];
        let len = encoder.encode(&large, &mut dst).unwrap();
        assert!(matches!(decoder.decode(&mut dst[..len]), Ok(Step::Produced { .. })));
        let before = allocation::live();
        assert!(matches!(decoder.decode(&mut []), Ok(Step::Incomplete { .. })));
        assert!(before - allocation::live() >= large.len());
    }
}

#[test]
fn a_message_in_parts_is_the_message() {
    let mut payload: Vec<u8> = (0..300_000u32).map(|n| b'a' + (n / 7 % 23) as u8).collect();
    payload.extend(vec![b'z'; 4 << 20]);
    let (_, mut encoder) = halves(Role::Client, params());
    let mut bytes = encoded(&mut encoder, &payload);
    bytes.extend(encoded(&mut encoder, &payload[..5000]));
    for piece in [1000, 1 << 20] {
        let (mut decoder, _) = WebSocket::server().max_size(1000).parts(true).deflate(params()).split();
        let (mut buffer, mut got, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for chunk in bytes.chunks(piece) {
            buffer.extend_from_slice(chunk);
            loop {
                match decoder.decode(&mut buffer).unwrap() {
                    Step::Produced { consumed } => {
                        assert!(decoder.produced().len() < 100_000);
                        got.extend_from_slice(decoder.produced());
                        if decoder.is_final() {
                            ends.push(got.len());
                        }
                        buffer.drain(..consumed);
                    }
                    Step::Incomplete { consumed, .. } => {
                        buffer.drain(..consumed);
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(got[..payload.len()] == payload[..]);
        assert_eq!(ends, [payload.len(), payload.len() + 5000]);
    }
}

fn any_params() -> impl Strategy<Value = DeflateParams> {
    (any::<bool>(), any::<bool>(), 8u8..=15, 8u8..=15).prop_map(
        |(server, client, server_bits, client_bits)| DeflateParams {
            server_no_context_takeover: server,
            client_no_context_takeover: client,
            server_max_window_bits: server_bits,
            client_max_window_bits: client_bits,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    /// What one end sends the other receives, and so does the naive inflater, within the windows agreed on.
    #[test]
    fn what_one_end_sends_the_other_receives(
        params in any_params(),
        level in 1u32..=9,
        from_client in any::<bool>(),
        messages in proptest::collection::vec(
            prop_oneof![
                "[a-e\u{e9}\u{1f600}]{0,400}",
                ("[ -~]{1,60}", 1usize..600).prop_map(|(one, times)| one.repeat(times)),
            ],
            0..8,
        ),
        cuts in proptest::collection::vec(0usize..4000, 0..5),
    ) {
        let (role, peer) = if from_client { (Role::Client, Role::Server) } else { (Role::Server, Role::Client) };
        let (_, mut encoder) =
            WebSocket::new(role).deflate(params).deflate_level(level).deflate_threshold(20).split();
        let (bits, fresh) = if from_client {
            (params.client_max_window_bits, params.client_no_context_takeover)
        } else {
            (params.server_max_window_bits, params.server_no_context_takeover)
        };
        let mut oracle = inflate::Stream::new(bits, !fresh);
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for message in &messages {
            let mut frame = encoded(&mut encoder, message.as_bytes());
            expected.push(text(message));
            bytes.extend_from_slice(&frame);
            prop_assert!(bits > 8 || frame[0] == 0x81);
            if frame[0] == 0xc1 {
                let (mut plain, _) = WebSocket::new(peer).split();
                frame[0] = 0x82;
                let Ok(Step::Frame { payload, .. }) = plain.decode(&mut frame) else { panic!() };
                prop_assert_eq!(oracle.message(&frame[payload], usize::MAX).unwrap(), message.as_bytes());
            }
        }
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| cut < bytes.len()).collect();
        cuts.sort_unstable();
        let (mut decoder, _) = halves(peer, params);
        prop_assert_eq!(run(&mut decoder, &bytes, &cuts), expected);
    }

    /// Any bytes are taken as the naive inflater takes them, whatever their pieces.
    #[test]
    fn any_data_are_inflated_as_the_naive_inflater_inflates_them(
        payloads in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..60),
                Just(vec![0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]),
                Just(vec![0xf2, 0, 0x11, 0, 0]),
                Just(vec![0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]),
            ],
            1..6,
        ),
        cuts in proptest::collection::vec(0usize..200, 0..4),
    ) {
        let mut oracle = inflate::Stream::new(15, true);
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        let mut broken = false;
        for payload in &payloads {
            bytes.extend(masked(0xc2, payload));
            match oracle.message(payload, usize::MAX) {
                Ok(message) => expected.push(Event::Message(Kind::Binary, message)),
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        if broken {
            // Data that end in the head of a block may be found out only by what comes next.
            let good = masked(0xc2, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
            bytes.extend(good.repeat(8));
        }
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| cut < bytes.len()).collect();
        cuts.sort_unstable();
        let (mut decoder, _) = halves(Role::Server, params());
        let got = run(&mut decoder, &bytes, &cuts);
        if broken {
            prop_assert_eq!(got.last(), Some(&Event::Broken(1007)));
            prop_assert_eq!(&got[..expected.len()], &expected[..]);
            prop_assert!(got.len() <= expected.len() + 3, "{got:?}");
        } else {
            prop_assert_eq!(got, expected);
        }
    }
}
