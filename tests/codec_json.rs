//! The codec of JSON values against one that goes byte by byte, however the stream is cut; what it makes of noise, of
//! broken messages and of too large ones; what the encoder sends and what it refuses.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "json")]

#[path = "support/json_oracle.rs"]
mod json_oracle;
#[path = "support/oracle.rs"]
mod oracle;

use std::io::IoSlice;

use framewire::{
    codec::{Codec, Decode, Encode, JsonValues, JsonValuesDecoder},
    error::{Fault, JsonReason, Rejection},
};
use json_oracle::{Message, values};
use oracle::{Outcome, cut, run};
use proptest::{collection::vec, prelude::*, sample::select};

fn decoder(limit: usize) -> JsonValuesDecoder {
    JsonValues::new().max_size(limit).split().0
}

fn messages(outcomes: Vec<Outcome>) -> Vec<Message> {
    outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Outcome::Frame(bytes) => Message::Value(bytes),
            Outcome::Fault(Fault::Noise { size }) => Message::Noise(size),
            Outcome::Fault(Fault::TooLarge { size, .. }) => Message::TooLarge(size as usize),
            Outcome::Fault(Fault::InvalidJson { at, reason }) => Message::Broken { at: at as usize, reason },
            Outcome::Fault(Fault::Truncated { size }) => Message::Truncated(size),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn value(text: &str) -> Message {
    Message::Value(text.as_bytes().to_vec())
}

fn decoded(bytes: &[u8]) -> Vec<Message> {
    messages(run(&mut decoder(usize::MAX), [bytes]).outcomes)
}

const PARTS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"\\",
    b"\\\"",
    b"\"a\"",
    b"\"a\":",
    b"{}",
    b"[]",
    b"1",
    b"-",
    b"true",
    b"nul",
    b" ",
    b"\n",
    b"\r\n",
    b"\x1e",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xef\xbb",
    b"\xff",
    b"log line [::]:80\n",
    b"{\"a\":[1,{\"b\":null}]}",
    b"{\"a\":\"}{\\\"\"}\n",
    b"                                                                ",
    b"\"0123456789012345678901234567890123456789012345678901234567890\"",
    b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n",
    b"{}{}{}{}",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn any_stream_is_read_as_byte_by_byte(
        parts in vec(select(PARTS), 0..24), sizes in prop_oneof![Just(vec![1]), Just(vec![usize::MAX]), vec(1..80_usize, 1..8)],
        limit in select(&[0, 1, 2, 20, 1000][..]),
    ) {
        let bytes = parts.concat();
        let run = run(&mut decoder(limit), cut(&bytes, &sizes));
        prop_assert_eq!(messages(run.outcomes), values(&bytes, limit), "{}", bytes.escape_ascii());
        prop_assert!(run.kept <= limit.max(2), "{} kept for {}", run.kept, limit);
    }

    /// With validation on, messages that are JSON come out as without, and only these.
    #[test]
    fn validated_messages_are_the_valid_ones(parts in vec(select(PARTS), 0..24), sizes in vec(1..80_usize, 1..8)) {
        let bytes = parts.concat();
        let mut validating = JsonValues::new().validate(true).split().0;
        let whole = messages(run(&mut validating.clone(), [&bytes[..]]).outcomes);
        let cut = messages(run(&mut validating, cut(&bytes, &sizes)).outcomes);
        let only_values = |messages: Vec<Message>| {
            messages.into_iter().filter(|message| matches!(message, Message::Value(_))).collect::<Vec<_>>()
        };
        let mut expected = values(&bytes, usize::MAX);
        expected.retain(|message| matches!(message, Message::Value(bytes) if json_oracle::check(bytes).is_ok()));
        prop_assert_eq!(only_values(whole), &expected[..]);
        prop_assert_eq!(only_values(cut), expected);
    }
}

/// RFC 7464 §2.3: what was cut short costs no more than itself.
#[test]
fn a_record_that_was_cut_short_ends_with_the_next() {
    let bytes = b"\x1e{\"a\":[1,\n\x1e{\"b\":\"half\n\x1e\"half\x1e{\"c\":1}\n\x1e \x1e{\"too\":\"large\x1e[2]{\"d\":\x1e\"1\"}";
    let expected = [
        Message::Truncated(9),
        Message::Truncated(11),
        Message::Truncated(5),
        value("{\"c\":1}"),
        Message::TooLarge(13),
        value("[2]"),
        // None stands before that.
        value("{\"d\":\x1e\"1\"}"),
    ];
    let told = |decoder: &JsonValuesDecoder, pieces: &[&[u8]]| {
        messages(run(&mut decoder.clone(), pieces.iter().copied()).outcomes)
    };
    let decoder = decoder(12);
    for at in 0..bytes.len() {
        let (one, two) = bytes.split_at(at);
        assert_eq!(told(&decoder, &[one, two]), expected, "{at}");
    }
    // Told of once, where the validator finds it.
    let validating = JsonValues::new().validate(true).split().0;
    for at in 0..bytes.len() {
        let (one, two) = bytes.split_at(at);
        let told = told(&validating, &[one, two]);
        let values: Vec<_> = told.iter().filter(|message| matches!(message, Message::Value(_))).collect();
        assert_eq!(values, [&value("{\"c\":1}"), &value("[2]")], "{at}");
        assert_eq!(told.len(), 7, "{at}");
    }
}

#[test]
fn every_pair_of_cuts_gives_the_same() {
    let bytes = b"\xef\xbb\xbf{\"a\":\"}\"}[1]\r\n\x1e42 \"s\\\"\" oops{\"b\":[2}, {\"c\":3}{\"d\":4}nulL\x1etrue\n{\"too\":\"large for it\"}-";
    let whole = decoded(bytes);
    assert_eq!(
        whole,
        [
            value("{\"a\":\"}\"}"),
            value("[1]"),
            value("42"),
            value("\"s\\\"\""),
            Message::Noise(4),
            Message::Broken { at: 7, reason: JsonReason::Unexpected },
            value("{\"d\":4}"),
            Message::Noise(5),
            value("true"),
            value("{\"too\":\"large for it\"}"),
            Message::Truncated(1),
        ]
    );
    for limit in [usize::MAX, 10] {
        let whole = values(bytes, limit);
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(messages(run(&mut decoder(limit), pieces).outcomes), whole, "{first} {second}");
            }
        }
    }
}

#[test]
fn a_stray_bracket_or_a_line_of_a_log_loses_nothing() {
    let message = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}";
    for noise in ["}", "]", "]]]}", "listening on port 8080\n", "\0", "nul", "1;", "\u{e9}"] {
        let stream = [message, noise, message, message].concat();
        let expected = [value(message), Message::Noise(noise.len()), value(message), value(message)];
        assert_eq!(decoded(stream.as_bytes()), expected, "{noise}");
    }
}

/// No part of a broken message becomes a message.
#[test]
fn what_is_nested_in_a_broken_message_is_not_taken_for_a_message() {
    let stream = br#"{"a":[1},"b":{"method":"evil"}, "c": [{"id":1}, [2]]} {"ok":1}"#;
    let broken = Message::Broken { at: 7, reason: JsonReason::Unexpected };
    assert_eq!(decoded(stream), [broken, value("{\"ok\":1}")]);
}

#[test]
fn a_broken_message_is_told_of_at_once_and_a_bomb_costs_nothing() {
    let mut bomb = decoder(1 << 20);
    let step = bomb.decode(&mut vec![b'['; 5000]).unwrap();
    let framewire::codec::Step::Fault { fault, consumed } = step else { panic!("{step:?}") };
    assert_eq!((fault, consumed), (Fault::InvalidJson { at: 1024, reason: JsonReason::TooDeep }, 1025));
    for bytes in [vec![b'['; 1 << 20], b"{\"a\":".repeat(1 << 18)] {
        let run = run(&mut decoder(usize::MAX), cut(&bytes, &[1448]));
        assert_eq!(run.outcomes.len(), 1);
        assert!(run.kept < 10_000);
    }
}

#[test]
fn what_is_too_large_is_skipped_to_its_end_in_little_memory() {
    for large in [
        format!("{{\"a\":\"{}\"}}", "x\\\"".repeat(1 << 18)),
        format!("\"{}\"", "x".repeat(1 << 20)),
        format!("{} ", "7".repeat(1 << 20)),
    ] {
        let stream = format!("{large}{{\"ok\":1}}");
        for piece in [1448, 65_536] {
            let run = run(&mut decoder(100), cut(stream.as_bytes(), &[piece]));
            let expected = [Message::TooLarge(large.trim().len()), value("{\"ok\":1}")];
            assert_eq!(messages(run.outcomes), expected);
            assert!(run.kept <= 100);
        }
    }
}

#[test]
fn validation_tells_before_the_message_is_complete() {
    let mut decoder = JsonValues::new().validate(true).split().0;
    let mut src = b"{\"a\":01,".to_vec();
    let framewire::codec::Step::Fault { fault, consumed } = decoder.decode(&mut src).unwrap() else {
        panic!()
    };
    assert_eq!((fault, consumed), (Fault::InvalidJson { at: 6, reason: JsonReason::Unexpected }, 8));
    assert!(decoder.is_mid_message());
    let mut src = b"\"b\":[{}]}\n{\"ok\":1}".to_vec();
    let framewire::codec::Step::Frame { payload, consumed } = decoder.decode(&mut src).unwrap() else {
        panic!()
    };
    assert_eq!((&src[payload], consumed), (&b"{\"ok\":1}"[..], src.len()));
}

#[test]
fn whatever_is_sent_comes_back() {
    for records in [false, true] {
        let (mut decoder, mut encoder) = JsonValues::new().record_separators(records).split();
        let mut wire = Vec::new();
        let payloads = ["{}", "[1,\n2]", "42", "\"\\\"\"", "null", "{\"a\":\"[\"}"];
        for payload in payloads {
            let mut dst = vec![0; encoder.room(payload.len())];
            let written = encoder.encode(payload.as_bytes(), &mut dst).unwrap();
            for cut in 0..payload.len() {
                let (left, right) = payload.as_bytes().split_at(cut);
                let wrap = encoder.wrap(&[IoSlice::new(left), IoSlice::new(right)]).unwrap().unwrap();
                assert_eq!([wrap.head(), payload.as_bytes(), wrap.tail()].concat(), dst[..written]);
            }
            wire.extend_from_slice(&dst[..written]);
        }
        let expected: Vec<_> = payloads.iter().map(|payload| value(payload)).collect();
        assert_eq!(messages(run(&mut decoder, cut(&wire, &[7])).outcomes), expected);
        assert_eq!(wire.contains(&0x1e), records);
    }
}

#[test]
fn what_is_not_one_value_is_refused() {
    let mut encoder = JsonValues::new().max_size(20).split().1;
    for (payload, expected) in [
        ("", Rejection::Empty),
        (" ", Rejection::NotOneValue { at: 1 }),
        ("{}{}", Rejection::NotOneValue { at: 2 }),
        ("{} 1", Rejection::NotOneValue { at: 3 }),
        ("{\"a\":[}", Rejection::NotOneValue { at: 6 }),
        ("{\"a\"", Rejection::NotOneValue { at: 4 }),
        ("\"a", Rejection::NotOneValue { at: 2 }),
        ("1,", Rejection::NotOneValue { at: 1 }),
        ("-", Rejection::NotOneValue { at: 1 }),
        ("x", Rejection::NotOneValue { at: 0 }),
        ("\u{1e}{}", Rejection::NotOneValue { at: 0 }),
        ("[000000000000000000000]", Rejection::TooLarge { size: 23, limit: 20 }),
    ] {
        assert_eq!(encoder.encode(payload.as_bytes(), &mut [0; 64]), Err(expected.clone()), "{payload}");
        for cut in 0..payload.len() {
            if payload.is_char_boundary(cut) {
                let (left, right) = payload.as_bytes().split_at(cut);
                let parts = [IoSlice::new(left), IoSlice::new(right)];
                assert_eq!(encoder.wrap(&parts), Err(expected.clone()), "{payload} cut at {cut}");
            }
        }
    }
    assert_eq!(encoder.encode(b" {} \n", &mut [0; 64]), Ok(6));
    // It stays whole where no RS says that a value begins, and only there.
    let within = [IoSlice::new(b"{\"a"), IoSlice::new(b"b\x1e\":1}")];
    assert!(encoder.wrap(&within).is_ok());
    let mut records = JsonValues::new().record_separators(true).split().1;
    assert_eq!(records.wrap(&within), Err(Rejection::NotOneValue { at: 4 }));
}
