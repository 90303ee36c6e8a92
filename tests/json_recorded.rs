//! Real sessions of MCP clients with servers through all that reads JSON: envelopes, events, the parser, splicing, framing
//! and validation. What comes out is what went in, to the byte.
//!
//! The sessions are files of lines, as `tests/interop/recorder.py` keeps them (`*.in`, `*.out`): those of
//! `../shared/data/recorded`, or of the directory that `FRAMEWIRE_RECORDED` names; without either, a small one that is
//! written here after such a session.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "json")]

use std::{env, fs, path::PathBuf};

use framewire::{
    Frame,
    codec::{Codec, Decode, JsonValues, Newline, Step, Validated},
    json::{Chunk, Envelope, EventHandler, EventParser, Id, JsonParser, Kind, StreamingParser, Value},
};
use serde_json::Value as Expected;

/// Sessions, each as what went one way.
fn sessions() -> Vec<Vec<u8>> {
    let shared = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/recorded");
    let folder = env::var_os("FRAMEWIRE_RECORDED").map_or(shared, PathBuf::from);
    let mut sessions = vec![client(), server()];
    if let Ok(files) = fs::read_dir(&folder) {
        for file in files {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|end| end == "in" || end == "out") {
                sessions.push(fs::read(path).unwrap());
            }
        }
    } else {
        eprintln!("no {}: only what is written here", folder.display());
    }
    sessions
}

/// What a Python client sends: compact, ids from 0, `_meta` with a progress token.
fn client() -> Vec<u8> {
    let awkward = "Gr\u{fc}\u{df}e, \u{4e16}\u{754c} \u{1f980} \\\"quoted\\\" back\\\\slash tab\\t newline\\n next\u{85} separators\u{2028}\u{2029}";
    let large = "0123456789abcdef".repeat(16 * 1024);
    let mut lines = vec![
        r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"roots":{"listChanged":true},"sampling":{},"elicitation":{"form":{},"url":{}}},"clientInfo":{"name":"mcp","version":"0.1.0"}}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned(),
        r#"{"method":"tools/list","jsonrpc":"2.0","id":1}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#.to_owned(),
        format!(r#"{{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{{"name":"echo","arguments":{{"message":"{awkward}"}}}}}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{{"name":"echo","arguments":{{"message":"{large}"}}}}}}"#),
        r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"_meta":{"progressToken":5},"name":"trigger-long-running-operation","arguments":{"duration":1.5,"steps":5}}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5,"reason":"enough"}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":"server-0","result":{"roots":[{"uri":"file:///tmp","name":"tmp"}]}}"#.to_owned(),
    ];
    lines.extend((6..40).map(|id| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"resources/read","params":{{"uri":"demo://resource/dynamic/text/{id}"}}}}"#)));
    (lines.join("\n") + "\n").into_bytes()
}

/// What a server writes: results before ids, escaped slashes, blanks, nested schemas, errors.
fn server() -> Vec<u8> {
    let tool = |n: usize| {
        format!(
            r#"{{"name":"tool-{n}","title":"Tool {n}","inputSchema":{{"type":"object","properties":{{"a":{{"type":"number","minimum":-1e-7,"default":{n}.0}},"b":{{"anyOf":[{{"type":"string"}},{{"type":"null"}}]}}}},"required":["a"],"additionalProperties":false,"$schema":"http:\/\/json-schema.org\/draft-07\/schema#"}}}}"#
        )
    };
    let tools = (0..20).map(tool).collect::<Vec<_>>().join(",");
    let blob = "iVBORw0KGgoAAAANSUhEUg+/".repeat(5000);
    let mut lines = vec![
        r#"{"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"logging":{}},"serverInfo":{"name":"mcp-servers\/everything","version":"2.0.0"},"instructions":"Testing.\n\n# Tools\n- \"echo\""},"jsonrpc":"2.0","id":0}"#.to_owned(),
        format!(r#"{{"result":{{"tools":[{tools}]}},"jsonrpc":"2.0","id":1}}"#),
        r#"{"jsonrpc": "2.0", "id": 2, "result": {}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1,"total":5,"progressToken":5}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"debug","data":"[1/5] \ud83e\udd80 {\"a\":[}"}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":"server-0","method":"roots/list"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":9,"error":{"code":-32602,"message":"MCP error -32602: Unknown tool","data":null}}"#.to_owned(),
        format!(r#"{{"result":{{"contents":[{{"uri":"demo://1","mimeType":"image/png","blob":"{blob}"}}]}},"jsonrpc":"2.0","id":6}}"#),
    ];
    lines.push(r#"{"result":{"content":[{"type":"text","text":"72.5"}],"structuredContent":{"temperature":72.5,"humidity":0,"on":true,"off":false}},"jsonrpc":"2.0","id":10}"#.to_owned());
    (lines.join("\n") + "\n").into_bytes()
}

fn lines(session: &[u8]) -> impl Iterator<Item = &[u8]> {
    session
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
}

/// Whether two trees are the same, without recursion into ours by anything but theirs.
fn same(ours: Value<'_>, expected: &Expected) -> bool {
    match expected {
        Expected::Null => ours.is_null(),
        Expected::Bool(value) => ours.as_bool() == Some(*value),
        Expected::Number(number) => match number.as_i64() {
            Some(value) => ours.as_i64() == Some(value),
            None => ours.as_f64() == number.as_f64(),
        },
        Expected::String(text) => ours.as_str() == Some(text),
        Expected::Array(items) => {
            ours.is_array()
                && ours.len() == items.len()
                && ours.elements().zip(items).all(|(ours, item)| same(ours, item))
        }
        Expected::Object(members) => {
            ours.is_object()
                && ours.len() == members.len()
                && members.iter().all(|(name, value)| ours.get(name).is_some_and(|ours| same(ours, value)))
        }
    }
}

/// Writes what it is told as JSON again, compact.
#[derive(Default)]
struct Text {
    json: Vec<u8>,
    needs_comma: bool,
}

impl Text {
    fn begin(&mut self) {
        if std::mem::replace(&mut self.needs_comma, true) {
            self.json.push(b',');
        }
    }

    fn put(&mut self, chunk: Chunk<'_>, quote: &[u8]) {
        if chunk.is_first() {
            self.begin();
            self.json.extend_from_slice(quote);
        }
        self.json.extend_from_slice(chunk.bytes());
        if chunk.is_last() {
            self.json.extend_from_slice(quote);
        }
    }

    fn open(&mut self, bracket: u8) {
        self.begin();
        self.json.push(bracket);
        self.needs_comma = false;
    }

    fn close(&mut self, bracket: u8) {
        self.json.push(bracket);
        self.needs_comma = true;
    }
}

impl EventHandler for Text {
    fn on_begin_object(&mut self) {
        self.open(b'{');
    }

    fn on_end_object(&mut self) {
        self.close(b'}');
    }

    fn on_begin_array(&mut self) {
        self.open(b'[');
    }

    fn on_end_array(&mut self) {
        self.close(b']');
    }

    fn on_key(&mut self, chunk: Chunk<'_>) {
        self.put(chunk, b"\"");
        if chunk.is_last() {
            self.json.push(b':');
            self.needs_comma = false;
        }
    }

    fn on_string_chunk(&mut self, chunk: Chunk<'_>) {
        self.put(chunk, b"\"");
    }

    fn on_number_chunk(&mut self, chunk: Chunk<'_>) {
        self.put(chunk, b"");
    }

    fn on_bool(&mut self, value: bool) {
        self.begin();
        self.json.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn on_null(&mut self) {
        self.begin();
        self.json.extend_from_slice(b"null");
    }
}

/// A message without the blanks between its tokens.
fn compact(message: &[u8]) -> Vec<u8> {
    let (mut out, mut in_string, mut escaped) = (Vec::with_capacity(message.len()), false, false);
    for &byte in message {
        if in_string || !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            out.push(byte);
        }
        in_string ^= byte == b'"' && !escaped;
        escaped = in_string && byte == b'\\' && !escaped;
    }
    out
}

/// All frames of `stream` in chunks of `size` bytes, in one buffer.
fn frames(mut decoder: impl Decode, stream: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (mut frames, mut stream, mut start, mut there) = (Vec::new(), stream.to_vec(), 0, 0);
    while there < stream.len() {
        there = stream.len().min(there + size);
        loop {
            match decoder.decode(&mut stream[start..there]).unwrap() {
                Step::Frame { payload, consumed } => {
                    frames.push(stream[start + payload.start..start + payload.end].to_vec());
                    start += consumed;
                }
                Step::Incomplete { consumed, .. } => {
                    start += consumed;
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    frames
}

#[test]
fn a_session_is_framed_by_structure_as_by_lines_and_found_good() {
    for session in sessions() {
        let expected: Vec<_> = lines(&session).collect();
        assert!(!expected.is_empty());
        for size in [1448, 4096, 65_536] {
            assert!(frames(JsonValues::new().validate(true).split().0, &session, size) == expected, "{size}");
            assert!(frames(Validated::new(Newline::new()).split().0, &session, size) == expected, "{size}");
        }
        // Without a delimiter at all.
        let bare = expected.concat();
        assert!(frames(JsonValues::new().split().0, &bare, 4096) == expected);
        let mut parser = StreamingParser::new_default();
        for chunk in bare.chunks(4096) {
            parser.feed(chunk);
        }
        for message in &expected {
            assert!(parser.next_message().unwrap().unwrap().frame() == *message);
        }
        assert!(parser.next_message().unwrap().is_none());
    }
}

#[test]
fn messages_go_through_all_readers_unchanged() {
    let mut parser = JsonParser::new();
    for session in sessions() {
        for message in lines(&session) {
            let expected: Expected = serde_json::from_slice(message).unwrap();
            let envelope = Envelope::strict(message).unwrap();
            assert_eq!(format!("{envelope:?}"), format!("{:?}", Envelope::peek(message).unwrap()));
            assert_ne!(envelope.kind(), Kind::Other);
            let method = envelope.method().and_then(|method| method.unescape());
            assert_eq!(method.as_deref(), expected["method"].as_str());
            for (part, name) in [
                (envelope.params(), "params"),
                (envelope.result(), "result"),
                (envelope.error(), "error"),
                (envelope.raw_id(), "id"),
            ] {
                let part = part.map(|part| serde_json::from_slice::<Expected>(part).unwrap());
                assert_eq!(part.as_ref(), expected.get(name), "{name}");
            }

            // There with another id and back with its own.
            if let Some(id) = envelope.raw_id() {
                let mut there = Vec::new();
                assert!(envelope.splice(b"\"session-1:7\"", &mut there));
                let spliced = Envelope::strict(&there).unwrap();
                assert!(matches!(spliced.id(), Id::String(id) if id.is("session-1:7")));
                let mut back = Vec::new();
                assert!(spliced.splice(id, &mut back));
                assert!(back == message);
            }

            for size in [1000, usize::MAX] {
                let (mut events, mut text) = (EventParser::new(), Text::default());
                for chunk in message.chunks(size) {
                    events.feed_to(chunk, &mut text).unwrap();
                }
                events.finish_to(&mut text).unwrap();
                assert!(text.json == compact(message));
            }

            let mut frame = Frame::copy_from_slice(message);
            assert!(same(parser.parse_in_place(&mut frame).unwrap().value(), &expected));
        }
    }
}
