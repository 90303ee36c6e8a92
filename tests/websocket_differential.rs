//! The WebSocket codec beside tungstenite: the same messages of the same bytes, both ways.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "websocket")]

#[path = "support/websocket.rs"]
mod naive;

use std::io::{self, Read, Write};

use framewire::codec::{
    Codec, Decode, Encode, Step,
    websocket::{Kind, Role, WebSocket},
};
use naive::Frame;
use proptest::prelude::*;
use tungstenite::{
    Message,
    protocol::{Role as TheirRole, WebSocketConfig},
};

/// A connection whose incoming bytes are there from the start and come in pieces.
struct Wire {
    input: Vec<u8>,
    at: usize,
    piece: usize,
    output: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let rest = &self.input[self.at..];
        let count = rest.len().min(to.len()).min(self.piece);
        to[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tungstenite(role: Role, input: Vec<u8>, piece: usize) -> tungstenite::WebSocket<Wire> {
    let role = match role {
        Role::Client => TheirRole::Client,
        Role::Server => TheirRole::Server,
    };
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    let wire = Wire { input, at: 0, piece, output: Vec::new() };
    tungstenite::WebSocket::from_raw_socket(wire, role, Some(config))
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Open,
    Closed,
    Broken,
}

type Outcome = (Vec<(Kind, Vec<u8>)>, Ended);

fn theirs(role: Role, input: &[u8], piece: usize) -> Outcome {
    let mut socket = tungstenite(role, input.to_vec(), piece);
    let mut messages = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => messages.push((Kind::Text, text.as_bytes().to_vec())),
            Ok(Message::Binary(bytes)) => messages.push((Kind::Binary, bytes.to_vec())),
            // It takes a code that nobody may send for this one, and goes on as if that had come.
            Ok(Message::Close(Some(close))) if close.reason.as_str() == "Protocol violation" => {
                return (messages, Ended::Broken);
            }
            Ok(Message::Close(_)) => return (messages, Ended::Closed),
            Ok(_) => {}
            Err(tungstenite::Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => return (messages, Ended::Open),
            Err(_) => return (messages, Ended::Broken),
        }
    }
}

fn ours(role: Role, input: &[u8], piece: usize) -> Outcome {
    let (mut decoder, _) = WebSocket::new(role).split();
    let (mut messages, mut buffer) = (Vec::new(), Vec::new());
    for piece in input.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Step::Frame { payload, consumed }) => {
                    messages.push((decoder.kind(), buffer[payload].to_vec()));
                    buffer.drain(..consumed);
                }
                Ok(Step::Event { consumed }) => drop(buffer.drain(..consumed)),
                Ok(Step::Incomplete { consumed, .. }) => {
                    buffer.drain(..consumed);
                    break;
                }
                Ok(Step::End { .. }) => return (messages, Ended::Closed),
                Ok(step) => panic!("{step:?}"),
                Err(_) => return (messages, Ended::Broken),
            }
        }
    }
    (messages, Ended::Open)
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let payload = prop_oneof![
        2 => proptest::collection::vec(any::<u8>(), 0..40),
        4 => "[a-z\u{e9}\u{20ac}\u{1f600}]{0,20}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(32u8..127, 100..700),
        1 => Just(vec![b'x'; 66_000]),
        1 => (990u16..5010, "[a-z\u{e9}]{0,9}").prop_map(|(code, why)| [&code.to_be_bytes(), why.as_bytes()].concat()),
    ];
    let first = prop_oneof![
        30 => proptest::sample::select(vec![0x81u8, 0x82, 0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8a]),
        1 => any::<u8>(),
    ];
    (first, payload, any::<[u8; 4]>(), prop_oneof![40 => Just(true), 1 => Just(false)]).prop_map(
        |(first, mut payload, key, masked)| {
            if first & 15 >= 8 {
                payload.truncate(125);
            }
            Frame { first, payload, key: masked.then_some(key) }
        },
    )
}

/// Frames most of which make sense one after the other.
fn any_message() -> impl Strategy<Value = Vec<Frame>> {
    let control = prop_oneof![4 => Just(None), 1 => Just(Some(0x89u8)), 1 => Just(Some(0x8a))];
    let text = "[a-z\u{e9}\u{20ac}\u{1f600}]{0,60}".prop_map(String::into_bytes);
    let parts = proptest::collection::vec((text, control, any::<[u8; 4]>(), any::<[u8; 4]>()), 1..5);
    (any::<bool>(), parts).prop_map(|(text, parts)| {
        let mut frames = Vec::new();
        let last = parts.len() - 1;
        for (index, (payload, control, key, other)) in parts.into_iter().enumerate() {
            let opcode = if index > 0 { 0 } else { 2 - u8::from(text) };
            let first = opcode | if index == last { 0x80 } else { 0 };
            frames.push(Frame { first, payload, key: Some(key) });
            frames.extend(control.map(|first| Frame { first, payload: b"?".to_vec(), key: Some(other) }));
        }
        frames
    })
}

/// The bytes as a client sends them, and as a server does.
fn both_ways(frames: &[Frame]) -> [(Role, Vec<u8>); 2] {
    let from_client = frames.iter().flat_map(naive::frame).collect();
    let turned =
        |one: &Frame| Frame { key: if one.key.is_some() { None } else { Some(naive::KEY) }, ..one.clone() };
    let from_server = frames.iter().flat_map(|one| naive::frame(&turned(one))).collect();
    [(Role::Server, from_client), (Role::Client, from_server)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn sound_streams_are_the_same_to_both(
        messages in proptest::collection::vec(any_message(), 0..5),
        piece in 1usize..5000,
    ) {
        let frames: Vec<Frame> = messages.into_iter().flatten().collect();
        for (role, bytes) in both_ways(&frames) {
            let (messages, ended) = ours(role, &bytes, piece);
            prop_assert_eq!(ended, Ended::Open);
            prop_assert_eq!((messages, ended), theirs(role, &bytes, piece));
        }
    }

    #[test]
    fn any_streams_are_the_same_to_both(
        frames in proptest::collection::vec(any_frame(), 0..10),
        piece in 1usize..5000,
    ) {
        for (role, bytes) in both_ways(&frames) {
            prop_assert_eq!(ours(role, &bytes, piece), theirs(role, &bytes, piece));
        }
    }

    #[test]
    fn each_reads_what_the_other_writes(
        messages in proptest::collection::vec(("\\PC{0,300}", any::<bool>()), 0..20),
        from_client in any::<bool>(),
    ) {
        let (role, peer) =
            if from_client { (Role::Client, Role::Server) } else { (Role::Server, Role::Client) };
        let (_, mut encoder) = WebSocket::new(role).split();
        let mut socket = tungstenite(role, Vec::new(), 1);
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (message, binary) in &messages {
            let kind = if *binary { Kind::Binary } else { Kind::Text };
            encoder.set_kind(kind);
            let mut dst = vec![0; encoder.room(message.len())];
            let len = encoder.encode(message.as_bytes(), &mut dst).unwrap();
            bytes.extend_from_slice(&dst[..len]);
            expected.push((kind, message.clone().into_bytes()));
            socket
                .send(if *binary { Message::binary(message.clone().into_bytes()) } else { Message::text(message.clone()) })
                .unwrap();
        }
        let expected = (expected, Ended::Open);
        prop_assert_eq!(&theirs(peer, &bytes, 1000), &expected);
        prop_assert_eq!(&ours(peer, &socket.get_ref().output, 1000), &expected);
    }
}
