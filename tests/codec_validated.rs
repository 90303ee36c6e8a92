//! Validation on every framing: bad messages are told of at the byte that is bad, once, and the next comes through.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(all(feature = "json", feature = "websocket"))]

#[path = "support/json_oracle.rs"]
mod json_oracle;
#[path = "support/oracle.rs"]
mod oracle;

use framewire::{
    codec::{
        Codec, ContentLength, Decode, Encode, JsonValues, LengthPrefix, Newline, Sse, Step, Validated,
        WebSocket, Whole, websocket::Role,
    },
    error::{Fault, JsonReason},
};
use json_oracle::check;
use oracle::{Outcome, cut, run};
use proptest::{collection::vec, prelude::*, sample::select};

const MESSAGES: &[&[u8]] = &[
    br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
    br#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"caf\u00e9 \"quoted\""}]}}"#,
    b" [1, -2.5e3 , null]\t",
    b"17",
    b"\"\xf0\x9f\x98\x80\"",
    b"{}",
    b"nonsense: [INFO] started",
    b"{\"a\":1,}",
    b"{\"a\":1} {\"b\":2}",
    b"{\"a\":[1,2",
    b"{\"a\":\"\xff\"}",
    b"{\"a\":\"\xf0\x9f",
    b"{\"a\":\"\\x\"}",
    b"[1}",
    b"tru",
];

fn expected(messages: &[&[u8]]) -> Vec<Outcome> {
    let outcome = |message: &&[u8]| match check(message) {
        Ok(()) => Outcome::Frame(message.to_vec()),
        Err(invalid) => Outcome::Fault(Fault::InvalidJson { at: invalid.at, reason: invalid.reason }),
    };
    messages.iter().map(outcome).collect()
}

fn encode(encoder: &mut impl Encode, messages: &[&[u8]]) -> Vec<u8> {
    let mut stream = Vec::new();
    for message in messages {
        let start = stream.len();
        stream.resize(start + encoder.room(message.len()), 0);
        let len = encoder.encode(message, &mut stream[start..]).unwrap();
        stream.truncate(start + len);
    }
    stream
}

fn agrees<C: Codec>(codec: impl Fn() -> C, messages: &[&[u8]], sizes: &[usize]) {
    let stream = encode(&mut codec().split().1, messages);
    let (mut decoder, _) = Validated::new(codec()).split();
    assert_eq!(run(&mut decoder, cut(&stream, sizes)).outcomes, expected(messages), "{sizes:?}");
}

/// A stream of WebSocket messages, masked, each in fragments of `size` bytes with pings between.
fn fragments(messages: &[&[u8]], size: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    for message in messages {
        let pieces: Vec<_> = message.chunks(size).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let last = index + 1 == pieces.len();
            let key = [1, 2, 3, 4];
            stream.extend([u8::from(last) << 7 | u8::from(index == 0), 0x80 | piece.len() as u8]);
            stream.extend(key);
            stream.extend(piece.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
            stream.extend([0x89, 0x80, 9, 9, 9, 9]);
        }
    }
    stream
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_framing_tells_the_same(
        messages in vec(select(MESSAGES), 0..6),
        sizes in vec(1usize..60, 1..4),
        width in 1usize..5,
    ) {
        agrees(Newline::new, &messages, &sizes);
        agrees(LengthPrefix::new, &messages, &sizes);
        agrees(|| LengthPrefix::new().width(width), &messages, &sizes);
        agrees(ContentLength::new, &messages, &sizes);
        agrees(Sse::new, &messages, &sizes);
        if let Some(first) = messages.first() {
            agrees(Whole::new, &[first], &sizes);
        }
        // What is no UTF-8 ends a WebSocket.
        let text: Vec<&[u8]> = messages.iter().copied().filter(|message| std::str::from_utf8(message).is_ok()).collect();
        for size in [3, 50] {
            let stream = fragments(&text, size);
            let (mut decoder, _) = Validated::new(WebSocket::server()).split();
            let mut outcomes = Vec::new();
            let mut buffer = Vec::new();
            for piece in cut(&stream, &sizes) {
                buffer.extend_from_slice(piece);
                loop {
                    match decoder.decode(&mut buffer).unwrap() {
                        Step::Frame { payload, consumed } => {
                            outcomes.push(Outcome::Frame(buffer[payload].to_vec()));
                            buffer.drain(..consumed);
                        }
                        Step::Fault { fault, consumed } => {
                            outcomes.push(Outcome::Fault(fault));
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
            prop_assert_eq!(outcomes, expected(&text));
        }
    }
}

/// At which byte of the stream the first fault is told when it comes byte by byte.
fn told_at(mut decoder: impl Decode, stream: &[u8]) -> Option<usize> {
    let mut buffer = Vec::new();
    for (at, byte) in stream.iter().enumerate() {
        buffer.push(*byte);
        loop {
            match decoder.decode(&mut buffer).unwrap() {
                Step::Fault { fault: Fault::InvalidJson { .. }, .. } => return Some(at),
                Step::Incomplete { consumed, .. } => {
                    buffer.drain(..consumed);
                    break;
                }
                Step::Event { consumed } => drop(buffer.drain(..consumed)),
                other => panic!("{other:?}"),
            }
        }
    }
    None
}

#[test]
fn the_bad_byte_is_told_of_when_it_comes() {
    for message in MESSAGES {
        let Err(invalid) = check(message) else { continue };
        if invalid.reason == JsonReason::Incomplete {
            continue;
        }
        let message = [*message, &[b' '; 40]].concat();
        let at = invalid.at as usize;
        let stream = encode(&mut Newline::new(), &[&message]);
        assert_eq!(told_at(Validated::new(Newline::new()).split().0, &stream), Some(at));
        let stream = encode(&mut LengthPrefix::new(), &[&message]);
        assert_eq!(told_at(Validated::new(LengthPrefix::new()).split().0, &stream), Some(at + 4));
        let stream = encode(&mut ContentLength::new(), &[&message]);
        let head = stream.len() - message.len();
        assert_eq!(told_at(Validated::new(ContentLength::new()).split().0, &stream), Some(at + head));
        assert_eq!(told_at(Validated::new(Whole::new()).split().0, &message), Some(at));
        if invalid.reason != JsonReason::Utf8 {
            let stream = fragments(&[&message], 120);
            assert_eq!(told_at(Validated::new(WebSocket::server()).split().0, &stream), Some(at + 6));
            assert_eq!(told_at(JsonValues::new().validate(true).split().0, b"{\"a\": x"), Some(6));
        }
    }
}

#[test]
fn binary_messages_pass() {
    let mut stream = fragments(&[b"\xff\xfe no json"], 100);
    stream[0] = 0x82;
    let (mut decoder, _) = Validated::new(WebSocket::new(Role::Server)).split();
    for end in 0..stream.len() - 6 {
        let mut part = stream[..end].to_vec();
        assert!(!matches!(decoder.clone().decode(&mut part), Ok(Step::Fault { .. })));
    }
    assert!(matches!(decoder.decode(&mut stream), Ok(Step::Frame { .. })));
}

#[test]
fn a_bad_message_that_is_also_too_large_is_one_fault() {
    let stream = [&b"{\"a\":x"[..], &[b'y'; 100], b"\n{}\n"].concat();
    let codec = || Validated::new(Newline::new().max_size(50)).split().0;
    let bad = Outcome::Fault(Fault::InvalidJson { at: 5, reason: JsonReason::Unexpected });
    let good = Outcome::Frame(b"{}".to_vec());
    assert_eq!(run(&mut codec(), cut(&stream, &[10])).outcomes, [bad, good.clone()]);
    // All at once, the size is seen first.
    let large = Outcome::Fault(Fault::TooLarge { size: 106, limit: 50 });
    assert_eq!(run(&mut codec(), [&stream[..]]).outcomes, [large, good]);
}
