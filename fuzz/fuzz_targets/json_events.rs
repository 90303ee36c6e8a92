//! Events of any bytes, however they are cut: the verdict is that of a naive reader, and what came out makes the same
//! tree as serde_json makes of what went in. Input: two sizes of pieces, then the bytes.
#![no_main]

#[path = "../../tests/support/json_oracle.rs"]
mod json_oracle;

use framewire::{
    error::JsonReason,
    json::{Chunk, Event, EventParser, Unescape},
    scan::json::Invalid,
};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// JSON written from events, strings as they came.
#[derive(Default)]
struct Text {
    json: Vec<u8>,
    needs_comma: bool,
    unescape: Unescape,
    string: String,
    raw: Vec<u8>,
    failed: bool,
}

impl Text {
    fn begin(&mut self) {
        if std::mem::replace(&mut self.needs_comma, true) {
            self.json.push(b',');
        }
    }

    fn chunk(&mut self, chunk: Chunk<'_>, quoted: bool) {
        if chunk.is_first() {
            self.begin();
            self.string.clear();
            self.raw.clear();
            self.failed = false;
        }
        if quoted && chunk.is_first() {
            self.json.push(b'"');
        }
        self.json.extend_from_slice(chunk.bytes());
        if quoted && chunk.is_last() {
            self.json.push(b'"');
        }
    }

    fn push(&mut self, event: Event<'_>) {
        match event {
            Event::BeginObject | Event::BeginArray => {
                self.begin();
                self.json.push(if event == Event::BeginObject { b'{' } else { b'[' });
                self.needs_comma = false;
            }
            Event::EndObject | Event::EndArray => {
                self.json.push(if event == Event::EndObject { b'}' } else { b']' });
                self.needs_comma = true;
            }
            Event::Key(chunk) => {
                self.chunk(chunk, true);
                if chunk.is_last() {
                    self.json.push(b':');
                    self.needs_comma = false;
                }
            }
            Event::String(chunk) => {
                self.chunk(chunk, true);
                self.raw.extend_from_slice(chunk.bytes());
                let string = &mut self.string;
                let unescaped = self.unescape.push(chunk, |part| string.push_str(part));
                self.failed |= unescaped.is_err();
                if chunk.is_last() {
                    let json = [b"\"", &self.raw[..], b"\""].concat();
                    // Refused are halves of surrogate pairs, by both.
                    let expected = serde_json::from_slice::<String>(&json).ok();
                    assert_eq!((!self.failed).then_some(&self.string), expected.as_ref());
                }
            }
            Event::Number(chunk) => self.chunk(chunk, false),
            Event::Bool(value) => {
                self.begin();
                self.json.extend_from_slice(if value { b"true" } else { b"false" });
            }
            Event::Null => {
                self.begin();
                self.json.extend_from_slice(b"null");
            }
            other => panic!("{other:?}"),
        }
    }
}

fn text(mut parser: EventParser, bytes: &[u8], sizes: &[usize]) -> (Vec<u8>, Result<(), Invalid>) {
    let mut text = Text::default();
    let mut at = 0;
    for size in sizes.iter().cycle() {
        let end = bytes.len().min(at + size);
        for event in parser.feed(&bytes[at..end]) {
            match event {
                Ok(event) => text.push(event),
                Err(invalid) => return (text.json, Err(invalid)),
            }
        }
        at = end;
        if at == bytes.len() {
            break;
        }
    }
    let end = parser.finish();
    if let Ok(Some(event)) = end {
        text.push(event);
    }
    (text.json, end.map(drop))
}

fuzz_target!(|input: &[u8]| {
    let Some((&[a, b], bytes)) = input.split_first_chunk::<2>() else { return };
    let sizes = [usize::from(a).max(1), usize::from(b).max(1)];
    let (json, verdict) = text(EventParser::new(), bytes, &sizes);
    assert_eq!(verdict, json_oracle::check(bytes));
    let (whole, _) = text(EventParser::new(), bytes, &[bytes.len().max(1)]);
    if verdict.is_err_and(|invalid| invalid.reason == JsonReason::Utf8) {
        // The first part of the bad character may have come out.
        assert!(json.starts_with(&whole));
    } else {
        assert_eq!(json, whole);
    }
    if verdict.is_ok()
        && let Ok(expected) = serde_json::from_slice::<Value>(bytes)
    {
        assert_eq!(serde_json::from_slice::<Value>(&json).unwrap(), expected);
    }
    let (_, cut) = text(EventParser::many(), bytes, &sizes);
    let (_, whole) = text(EventParser::many(), bytes, &[bytes.len().max(1)]);
    assert_eq!(cut, whole);
    if verdict.is_ok() {
        assert_eq!(cut, Ok(()));
    }
});
