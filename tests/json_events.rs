//! Events: the same verdicts as the byte-by-byte reader's, whole and cut anywhere, and what comes out is what went in.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(all(feature = "json", feature = "link"))]

#[path = "support/allocation.rs"]
mod allocation;
#[path = "support/json_oracle.rs"]
mod json_oracle;
#[path = "support/json_suite.rs"]
mod json_suite;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use framewire::{
    buffer::BufferManager,
    error::JsonReason,
    json::{Chunk, Event, EventHandler, EventParser, EventReader, LoneSurrogate, StreamingError, Unescape},
    scan::json::Invalid,
};
use json_oracle::check;
use proptest::{collection::vec, prelude::*, sample::select};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

/// Writes what it is told, values with all their chunks as one.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Script(String, bool);

impl Script {
    fn chunk(&mut self, mark: char, chunk: Chunk<'_>) {
        assert_eq!(chunk.is_first(), !self.1, "chunks of a value follow each other");
        self.1 = !chunk.is_last();
        if chunk.is_first() {
            self.0.push(mark);
        }
        self.0.push_str(&chunk.bytes().escape_ascii().to_string());
        if chunk.is_last() {
            self.0.push(' ');
        }
    }
}

impl EventHandler for Script {
    fn on_begin_object(&mut self) {
        self.0.push_str("{ ");
    }

    fn on_end_object(&mut self) {
        self.0.push_str("} ");
    }

    fn on_begin_array(&mut self) {
        self.0.push_str("[ ");
    }

    fn on_end_array(&mut self) {
        self.0.push_str("] ");
    }

    fn on_key(&mut self, chunk: Chunk<'_>) {
        self.chunk('k', chunk);
    }

    fn on_string_chunk(&mut self, chunk: Chunk<'_>) {
        self.chunk('s', chunk);
    }

    fn on_number_chunk(&mut self, chunk: Chunk<'_>) {
        self.chunk('#', chunk);
    }

    fn on_bool(&mut self, value: bool) {
        self.0.push_str(if value { "true " } else { "false " });
    }

    fn on_null(&mut self) {
        self.0.push_str("null ");
    }
}

/// What a parser says of `bytes` that come in pieces of `sizes` over and over.
fn script(mut parser: EventParser, bytes: &[u8], sizes: &[usize]) -> (Script, Result<(), Invalid>) {
    let mut script = Script::default();
    let mut sizes = sizes.iter().cycle();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((*sizes.next().unwrap()).clamp(1, rest.len()));
        if let Err(invalid) = parser.feed_to(piece, &mut script) {
            assert_eq!(parser.feed_to(b"1", &mut script), Err(invalid), "it stays so");
            assert_eq!(parser.finish(), Err(invalid));
            return (script, Err(invalid));
        }
        rest = after;
    }
    let end = parser.finish_to(&mut script);
    if end.is_ok() {
        assert_eq!((parser.depth(), script.1), (0, false));
        assert_eq!(parser.finish(), Ok(None), "told once");
    }
    (script, end)
}

/// A JSON text of what was told.
fn rebuild(script: &str) -> String {
    let mut text = String::new();
    let mut needs_comma = false;
    for part in script.split(' ').filter(|part| !part.is_empty()) {
        let (mark, rest) = part.split_at(1);
        if needs_comma && !matches!(mark, "}" | "]") {
            text.push(',');
        }
        match mark {
            "k" | "s" => text.push_str(&format!("\"{rest}\"")),
            "#" => text.push_str(rest),
            _ => text.push_str(part),
        }
        if mark == "k" {
            text.push(':');
        }
        needs_comma = !matches!(mark, "{" | "[" | "k");
    }
    text
}

/// The verdict is that of the naive reader and the events are the same however the bytes are cut.
fn agree(bytes: &[u8], sizes: &[usize]) {
    let name = bytes.escape_ascii().to_string();
    let verdict = check(bytes);
    let whole = script(EventParser::new(), bytes, &[usize::MAX]);
    assert_eq!(whole.1, verdict, "{name}");
    let cut = script(EventParser::new(), bytes, sizes);
    assert_eq!(cut.1, verdict, "{name} {sizes:?}");
    // A character that is bad in its second piece has shown its first.
    let bad_character = verdict.is_err_and(|invalid| invalid.reason == JsonReason::Utf8);
    if bad_character {
        assert!(cut.0.0.starts_with(whole.0.0.trim_end()), "{name} {sizes:?}");
    } else {
        assert_eq!(cut.0, whole.0, "{name} {sizes:?}");
    }
    if verdict.is_ok() && !whole.0.0.contains("\\x") {
        // Blanks within strings would be taken for the end of one.
        let plain = !bytes.contains(&b' ') && !bytes.contains(&b'\\');
        if let Ok(expected) = serde_json::from_slice::<serde_json::Value>(bytes)
            && plain
        {
            assert_eq!(serde_json::from_str::<serde_json::Value>(&rebuild(&whole.0.0)).unwrap(), expected);
        }
    }
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
    b"0",
    b"-",
    b".5",
    b"e",
    b"-1.5e+7",
    b"true",
    b"false",
    b"null",
    b"nul",
    b" ",
    b"\n",
    b"\0",
    b"\\u",
    b"\\u00e9",
    b"\\ud800",
    b"\xc3\xa9",
    b"\xc3",
    b"\xf0\x9f\x98\x80",
    b"\xf0\x9f",
    b"\"0123456789012345678901234567890123456789012345678901234567890\"",
];

/// A JSON text without blanks.
fn document() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        select(vec!["null", "true", "false", "0", "-0.5e-3", "123456789012345678901234567890"])
            .prop_map(str::to_owned),
        "[a-z\u{e9}\u{20ac}]{0,80}".prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(","))),
            vec(inner, 0..6).prop_map(|items| {
                let members: Vec<_> =
                    items.iter().enumerate().map(|(n, item)| format!("\"k{n}\":{item}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn fragments_are_judged_as_by_the_naive_reader(parts in vec(select(PARTS), 0..14), sizes in vec(1usize..70, 1..4)) {
        agree(&parts.concat(), &sizes);
    }

    #[test]
    fn documents_come_out_as_they_went_in(text in document(), sizes in vec(1usize..70, 1..4), cut in any::<prop::sample::Index>()) {
        agree(text.as_bytes(), &sizes);
        agree(&text.as_bytes()[..cut.index(text.len() + 1).min(text.len())], &sizes);
    }

    #[test]
    fn strings_are_unescaped_whatever_the_cut(text in "[ -~\u{e9}\u{20ac}\u{1f600}\n\"\\\\]{0,60}", escaped in any::<bool>(), size in 1usize..9) {
        let json = if escaped {
            let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
            format!("\"{units}\"")
        } else {
            serde_json::to_string(&text).unwrap()
        };
        prop_assert_eq!(unescaped(json.as_bytes(), size).unwrap(), text);
    }
}

fn unescaped(json: &[u8], size: usize) -> Result<String, LoneSurrogate> {
    let (mut parser, mut unescape, mut text) = (EventParser::new(), Unescape::new(), String::new());
    for piece in json.chunks(size) {
        for event in parser.feed(piece) {
            let Event::String(chunk) = event.unwrap() else { panic!("a string") };
            unescape.push(chunk, |part| text.push_str(part))?;
        }
    }
    parser.finish().unwrap();
    Ok(text)
}

#[test]
fn half_of_a_surrogate_pair_is_json_and_no_text() {
    for json in [
        &br#""\ud800""#[..],
        br#""\ud800\u0041""#,
        br#""\udc00""#,
        br#""\ud800abcdefghijkl""#,
        br#""\ud83d\ud83d""#,
    ] {
        for size in 1..=json.len() {
            assert_eq!(unescaped(json, size), Err(LoneSurrogate), "{} {size}", json.escape_ascii());
        }
    }
    for size in 1..15 {
        assert_eq!(unescaped(br#""\ud83d\ude00""#, size).as_deref(), Ok("\u{1f600}"));
    }
}

#[test]
fn the_test_suite_is_decided_the_same_whole_and_cut_at_every_byte() {
    for (name, bytes) in json_suite::files() {
        let name = name.as_str();
        for sizes in [&[1][..], &[61], &[64]] {
            agree(&bytes, sizes);
        }
        match &name[..2] {
            "y_" => assert!(script(EventParser::new(), &bytes, &[usize::MAX]).1.is_ok(), "{name}"),
            "n_" => assert!(script(EventParser::new(), &bytes, &[usize::MAX]).1.is_err(), "{name}"),
            _ => {}
        }
        for cut in 1..bytes.len().min(200) {
            agree(&bytes, &[cut, usize::MAX]);
        }
    }
}

#[test]
fn many_values_come_one_after_the_other() {
    let stream = b"{\"a\":1}[2] {\"b\":\"}\"}\n3 \"x\"\"y\" true\nfalse null {}4";
    let expected = "{ ka #1 } [ #2 ] { kb s} } #3 sx sy true false null { } #4 ";
    for size in 1..=stream.len() {
        let (script, end) = script(EventParser::many(), stream, &[size]);
        assert_eq!((script.0.as_str(), end), (expected, Ok(())), "{size}");
    }
    for (bytes, at) in
        [(&b"{} }"[..], 3), (b"1\"a\"", 1), (b"truefalse", 4), (b"[1] 2,3", 5), (b"{}\x1e{}", 2)]
    {
        for size in 1..=bytes.len() {
            let end = script(EventParser::many(), bytes, &[size]).1;
            assert_eq!(
                end,
                Err(Invalid { at, reason: JsonReason::Unexpected }),
                "{} {size}",
                bytes.escape_ascii()
            );
        }
    }
    for nothing in [&b""[..], b" \n"] {
        assert_eq!(script(EventParser::many(), nothing, &[1]).1, Ok(()));
        assert!(script(EventParser::new(), nothing, &[1]).1.is_err());
    }
    let cut = script(EventParser::many(), b"{} {\"a\"", &[usize::MAX]).1;
    assert_eq!(cut, Err(Invalid { at: 7, reason: JsonReason::Incomplete }));
    let mut parser = EventParser::many();
    assert_eq!(parser.feed(b"1 {} [").count(), 4);
    assert_eq!((parser.values(), parser.depth()), (2, 1));
}

#[test]
fn events_that_are_not_taken_are_passed_over() {
    let mut parser = EventParser::new();
    drop(parser.feed(b"{\"a\":[1,2"));
    assert_eq!(parser.depth(), 2);
    let mut events = parser.feed(b"],\"b\":null}");
    assert_eq!(events.next(), Some(Ok(Event::Number(chunk_of(&mut EventParser::new())))));
    drop(events);
    assert_eq!((parser.depth(), parser.finish()), (0, Ok(None)));
}

/// The last, empty part of a number.
fn chunk_of(parser: &mut EventParser) -> Chunk<'static> {
    parser.feed(b"1").for_each(drop);
    match parser.finish() {
        Ok(Some(Event::Number(chunk))) => chunk,
        other => panic!("{other:?}"),
    }
}

/// `{"jsonrpc":…"blob":"` and so many bytes of base64, made as they are read.
struct Blob {
    head: &'static [u8],
    left: u64,
    tail: &'static [u8],
}

impl Blob {
    fn new(size: u64) -> Self {
        Self {
            head: br#"{"jsonrpc":"2.0","id":1,"result":{"contents":[{"uri":"a","blob":""#,
            left: size,
            tail: br#""}]}}"#,
        }
    }
}

impl AsyncRead for Blob {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        const LINE: &[u8; 4096] = &[b'T'; 4096];
        let room = buffer.remaining();
        if !self.head.is_empty() {
            let (now, rest) = self.head.split_at(room.min(self.head.len()));
            buffer.put_slice(now);
            self.head = rest;
        } else if self.left > 0 {
            let now = LINE.len().min(room).min(self.left as usize);
            buffer.put_slice(&LINE[..now]);
            self.left -= now as u64;
            while self.left > 0 && buffer.remaining() > 0 {
                let now = LINE.len().min(buffer.remaining()).min(self.left as usize);
                buffer.put_slice(&LINE[..now]);
                self.left -= now as u64;
            }
        } else {
            let (now, rest) = self.tail.split_at(room.min(self.tail.len()));
            buffer.put_slice(now);
            self.tail = rest;
        }
        Poll::Ready(Ok(()))
    }
}

#[derive(Default)]
struct Sizes {
    strings: u64,
    most: usize,
    live: usize,
    base: usize,
}

impl EventHandler for Sizes {
    fn on_string_chunk(&mut self, chunk: Chunk<'_>) {
        self.strings += chunk.bytes().len() as u64;
        self.most = self.most.max(chunk.bytes().len());
        self.live = self.live.max(allocation::live().wrapping_sub(self.base));
    }
}

/// One string of `size` bytes, in how many bytes of memory.
fn pass(size: u64) -> usize {
    let buffers = BufferManager::new(Default::default());
    let mut sizes = Sizes { base: allocation::live(), ..Sizes::default() };
    let mut reader = EventReader::with_buffers(Blob::new(size), buffers, false);
    futures::executor::block_on(reader.tell(&mut sizes)).unwrap();
    assert_eq!(sizes.strings, size + 4, "with \"2.0\" and \"a\"");
    assert_eq!((reader.values(), reader.depth()), (1, 0));
    assert!(sizes.most <= 64 * 1024);
    sizes.live
}

#[test]
fn a_string_larger_than_memory_passes_through_64_kib() {
    let live = pass(64 << 20);
    assert!(live < 128 * 1024, "{live} bytes were held");
}

/// `cargo test --release --test json_events --features json -- --ignored`
#[test]
#[ignore = "takes a minute without optimisation"]
fn a_string_of_1_gib_passes_through_64_kib() {
    let live = pass(1 << 30);
    println!("peak above baseline: {live} bytes");
    assert!(live < 1 << 20);
}

#[tokio::test]
async fn a_cancelled_read_loses_nothing() {
    let bytes = br#"{"key": ["value", -12.5, true], "k2": null} [1]"#;
    let (mut writer, reader) = tokio::io::duplex(64);
    let mut reader = EventReader::many(reader);
    let mut told = Script::default();
    for byte in bytes.chunks(1) {
        writer.write_all(byte).await.unwrap();
        // Polled until it would wait, and dropped there.
        while let Ok(event) = tokio::time::timeout(std::time::Duration::ZERO, reader.next()).await {
            event.unwrap().unwrap().tell(&mut told);
        }
    }
    drop(writer);
    while let Some(event) = reader.next().await.unwrap() {
        event.tell(&mut told);
    }
    assert_eq!(told.0, "{ kkey [ svalue #-12.5 true ] kk2 null } [ #1 ] ");
}

#[tokio::test]
async fn a_reader_tells_what_is_wrong_and_where() {
    let mut reader = EventReader::new(&b"[1, 2, }"[..]);
    let mut told = Script::default();
    for _ in 0..2 {
        let error = reader.tell(&mut told).await.unwrap_err();
        assert!(
            matches!(error, StreamingError::JsonError(Invalid { at: 7, reason: JsonReason::Unexpected })),
            "{error}"
        );
    }
    assert_eq!(told.0, "[ #1 #2 ");
    let mut reader = EventReader::new(&b"[1, 2"[..]);
    let error = reader.tell(&mut told).await.unwrap_err();
    assert!(matches!(error, StreamingError::JsonError(Invalid { at: 5, reason: JsonReason::Incomplete })));
}

#[test]
fn nesting_is_limited_and_nothing_is_allocated() {
    let deep = [vec![b'['; 1024], vec![b']'; 1024]].concat();
    let too_deep = vec![b'['; 1025];
    let ((), count, _) = allocation::counted(|| {
        let mut parser = EventParser::new();
        assert_eq!(parser.feed(&deep).filter(Result::is_ok).count(), 2048);
        let mut parser = EventParser::new();
        let last = parser.feed(&too_deep).last().unwrap();
        assert_eq!(last, Err(Invalid { at: 1024, reason: JsonReason::TooDeep }));
    });
    assert_eq!(count, 0);
}
