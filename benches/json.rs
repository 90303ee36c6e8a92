//! JSON: message boundaries in a stream without delimiters, envelopes, and validation, each beside its rivals.
//!
//! `cargo bench -p framewire-json-rivals` (a filter may follow: `-- boundaries`). All that is compared runs in turns, in
//! CPU time of the thread; so only ratios within one run are worth comparing. Without `--bench`, as `cargo test` runs it,
//! all of it runs once, on little.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    env,
    future::Future,
    hint::black_box,
    io::Read,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use actson::{JsonEvent, JsonParser, feeder::PushJsonFeeder, options::JsonParserOptionsBuilder};
use framewire::{
    codec::{Codec, Decode, JsonValues, Step},
    json::{Chunk, Envelope, EventHandler, EventParser, EventReader, JsonParser as InPlace, StreamingParser},
    scan::json::{Backend, Structure, Validator},
};
use rustix::time::{ClockId, clock_gettime};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use struson::reader::{JsonReader, JsonStreamReader, ReaderSettings};

const CHUNK: usize = 4096;
/// CPU time of one turn, in ns, and how many turns there are.
const TURN: u64 = 4_000_000;
const TURNS: usize = 9;

fn is_bench() -> bool {
    env::args().any(|argument| argument == "--bench")
}

type Contender<'a> = (&'static str, Box<dyn FnMut() + 'a>);

fn now() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn time(work: &mut dyn FnMut(), times: u64) -> u64 {
    let start = now();
    for _ in 0..times {
        work();
    }
    now() - start
}

/// ns of one call of each contender: the best turn and the middle one.
fn race(title: &str, bytes: usize, messages: usize, contenders: &mut [Contender<'_>]) {
    if !is_bench() {
        contenders.iter_mut().for_each(|(_, work)| work());
        println!("{title}: ok");
        return;
    }
    let mut counts = Vec::new();
    for (_, work) in contenders.iter_mut() {
        let once = time(work, 1).max(1);
        let once = time(work, (TURN / 20 / once).max(1)) / (TURN / 20 / once).max(1);
        counts.push((TURN / once.max(1)).max(1));
    }
    let mut turns = vec![Vec::new(); contenders.len()];
    for _ in 0..TURNS {
        for (index, (_, work)) in contenders.iter_mut().enumerate() {
            turns[index].push(time(work, counts[index]) as f64 / counts[index] as f64);
        }
    }
    println!("{title} ({bytes} B)");
    let mut ours = None;
    for ((name, _), turns) in contenders.iter().zip(&mut turns) {
        turns.sort_by(f64::total_cmp);
        let (best, middle) = (turns[0], turns[TURNS / 2]);
        let ours = *ours.get_or_insert(best);
        println!(
            "  {name:<32} {:>12.1} ns  median {:>12.1}  {:>7.2} GB/s  {:>9.2} ns/message  {:>7.2} x ours",
            best,
            middle,
            bytes as f64 / best,
            best / messages as f64,
            best / ours
        );
    }
}

struct Corpus {
    ping: Vec<u8>,
    call: Vec<u8>,
    list: Vec<u8>,
    text: Vec<u8>,
    blob: Vec<u8>,
    late: Vec<u8>,
    blanks: Vec<u8>,
}

fn corpus() -> Corpus {
    let tool = |index: usize| {
        format!(
            r#"{{"name":"tool_{index}","title":"Tool number {index}","description":"Does what tool {index} is for, and says \"done\" when it has.","inputSchema":{{"type":"object","properties":{{"path":{{"type":"string","description":"Where to look"}},"limit":{{"type":"integer","minimum":1,"maximum":{index}}},"tags":{{"type":"array","items":{{"type":"string"}}}}}},"required":["path"]}},"annotations":{{"readOnlyHint":true}}}}"#
        )
    };
    let list = (0..70).map(tool).collect::<Vec<_>>().join(",");
    let line = "The quick brown fox jumps over the lazy dog, and a caf\u{e9} has \\\"quotes\\\" in it; 0123456789.\\n";
    // As a test, without optimisation, on a sixteenth.
    let mib = if is_bench() { 1 << 20 } else { 1 << 16 };
    let text = line.repeat(mib / line.len());
    let base64 = "TWFueSBoYW5kcyBtYWtlIGxpZ2h0IHdvcmsuIE1hbnkgaGFuZHMgbWFrZSBsaWdodCB3b3JrLi4v";
    let blob = base64.repeat(16 * mib / base64.len());
    let result = |content: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":42,"result":{{"content":[{{"type":"text","text":"{content}"}}],"isError":false}}}}"#
        )
    };
    let points = r#"{"x":12.5,"y":-3,"label":"point","tags":["a","b"],"on":true},"#.repeat(mib / 62);
    let blanks = " ".repeat(16 << 10);
    Corpus {
        ping: br#"{"jsonrpc":"2.0","id":12345,"method":"ping"}"#.to_vec(),
        call: br#"{"jsonrpc":"2.0","id":1234,"method":"tools/call","params":{"name":"read_file","arguments":{"path":"/home/user/project/src/main.rs","encoding":"utf-8","range":{"start":1,"end":200},"options":["follow","strict"]},"_meta":{"progressToken":"a1b2c3d4-e5f6-7890-abcd-ef1234567890","session":"0123456789abcdef"}}}"#.to_vec(),
        list: format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"tools":[{list}]}}}}"#).into_bytes(),
        text: result(&text).into_bytes(),
        blob: result(&blob).into_bytes(),
        late: format!(r#"{{"jsonrpc":"2.0","method":"a","params":{{"points":[{points}null]}},"id":7}}"#).into_bytes(),
        blanks: format!(r#"{{"jsonrpc":"2.0",{blanks}"method":"a",{blanks}"id":7}}"#).into_bytes(),
    }
}

/// Decodes a stream whose bytes come in chunks, in one growing buffer as a link has it.
fn frames(decoder: &mut impl Decode, stream: &mut [u8], chunk: usize) -> usize {
    let (mut start, mut there, mut count) = (0, 0, 0);
    while there < stream.len() {
        there = stream.len().min(there + chunk);
        loop {
            match decoder.decode(&mut stream[start..there]).unwrap() {
                Step::Frame { payload, consumed } => {
                    black_box(payload);
                    count += 1;
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
    count
}

/// Gives no more than a chunk at a time.
struct Chunks<'a>(&'a [u8]);

impl Read for Chunks<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let len = CHUNK.min(self.0.len()).min(to.len());
        let (now, rest) = self.0.split_at(len);
        to[..len].copy_from_slice(now);
        self.0 = rest;
        Ok(len)
    }
}

fn actson(bytes: &[u8]) -> usize {
    let options = JsonParserOptionsBuilder::default().with_streaming(true).build();
    let mut parser = JsonParser::new_with_options(PushJsonFeeder::new(), options);
    let (mut at, mut events) = (0, 0);
    while let Some(event) = parser.next_event().unwrap() {
        events += 1;
        if event == JsonEvent::NeedMoreInput {
            at += parser.feeder.push_bytes(&bytes[at..bytes.len().min(at + CHUNK)]);
            if at == bytes.len() {
                parser.feeder.done();
            }
        }
    }
    events
}

fn struson(bytes: &[u8], messages: usize) {
    let settings = ReaderSettings { allow_multiple_top_level: true, ..ReaderSettings::default() };
    let mut reader = JsonStreamReader::new_custom(Chunks(bytes), settings);
    for _ in 0..messages {
        reader.skip_value().unwrap();
    }
}

fn serde_reader(bytes: &[u8]) -> usize {
    let reader = std::io::BufReader::with_capacity(CHUNK, Chunks(bytes));
    serde_json::Deserializer::from_reader(reader).into_iter::<IgnoredAny>().map(Result::unwrap).count()
}

fn boundaries(corpus: &Corpus) {
    for (name, message, size) in [
        ("ping", &corpus.ping, 1 << 20),
        ("call", &corpus.call, 1 << 20),
        ("list", &corpus.list, 1 << 20),
        ("text", &corpus.text, 4 << 20),
        ("blob", &corpus.blob, 16 << 20),
    ] {
        let size = if is_bench() { size } else { 1 << 16 };
        let count = (size / message.len()).max(1);
        let stream = [&message[..], b"\n"].concat().repeat(count);
        let ours = |chunk: usize| {
            let (mut decoder, mut stream) =
                (JsonValues::new().max_size(usize::MAX).split().0, stream.clone());
            move || assert_eq!(frames(&mut decoder, &mut stream, chunk), count)
        };
        let narrow = |backend: Backend| {
            let stream = &stream;
            move || {
                let mut structure = Structure::with_backend(backend);
                let mut start = 0;
                for _ in 0..count {
                    structure.begin(start);
                    loop {
                        let there = stream.len().min(structure.scanned() / CHUNK * CHUNK + CHUNK);
                        match structure.close(&stream[..there]) {
                            framewire::scan::json::Container::Closed { end } => {
                                start = end + 1;
                                break;
                            }
                            framewire::scan::json::Container::Open => {}
                            other => panic!("{other:?}"),
                        }
                    }
                }
            }
        };
        let mut contenders: Vec<Contender<'_>> = vec![
            ("ours, 4096 B chunks", Box::new(ours(CHUNK))),
            ("ours, 1448 B chunks", Box::new(ours(1448))),
            ("ours, 61 B chunks", Box::new(ours(61))),
            ("ours, whole", Box::new(ours(usize::MAX))),
        ];
        for backend in Backend::all() {
            contenders.push((backend.name(), Box::new(narrow(backend))));
        }
        contenders.push((
            "memchr, 4096 B chunks",
            Box::new(|| {
                for chunk in stream.chunks(CHUNK) {
                    black_box(memchr::memchr(0, black_box(chunk)));
                }
            }),
        ));
        contenders.push((
            "memchr, whole",
            Box::new(|| {
                black_box(memchr::memchr(0, black_box(&stream)));
            }),
        ));
        contenders.push((
            "actson",
            Box::new(|| {
                black_box(actson(&stream));
            }),
        ));
        contenders.push(("struson", Box::new(|| struson(&stream, count))));
        contenders.push((
            "serde_json, reader",
            Box::new(|| {
                black_box(serde_reader(&stream));
            }),
        ));
        race(&format!("boundaries: {name}"), stream.len(), count, &mut contenders);
    }
}

#[derive(serde::Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<&'a str>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

fn envelopes(corpus: &Corpus) {
    for (name, message) in [
        ("ping", &corpus.ping),
        ("call", &corpus.call),
        ("list", &corpus.list),
        ("id after 1 MiB", &corpus.late),
        ("32 KiB of blanks", &corpus.blanks),
        ("text", &corpus.text),
        ("blob", &corpus.blob),
    ] {
        let mut buffers = simd_json::Buffers::new(message.len());
        let mut scratch = Vec::new();
        let mut contenders: Vec<Contender<'_>> = vec![
            ("peek", Box::new(|| drop(black_box(Envelope::peek(black_box(message)).unwrap())))),
            ("strict", Box::new(|| drop(black_box(Envelope::strict(black_box(message)).unwrap())))),
            (
                "sonic-rs, unchecked",
                Box::new(|| {
                    // SAFETY: the message is valid JSON.
                    for member in unsafe { sonic_rs::to_object_iter_unchecked(&message[..]) } {
                        black_box(member.unwrap());
                    }
                }),
            ),
            (
                "sonic-rs V",
                Box::new(|| {
                    for member in sonic_rs::to_object_iter(&message[..]) {
                        black_box(member.unwrap());
                    }
                }),
            ),
            (
                "serde_json V",
                Box::new(|| {
                    let raw: Raw<'_> = serde_json::from_slice(black_box(message)).unwrap();
                    black_box((raw.id, raw.method, raw.params, raw.result, raw.error));
                }),
            ),
            (
                "simd-json tape V (with its copy)",
                Box::new(|| {
                    scratch.clear();
                    scratch.extend_from_slice(message);
                    black_box(simd_json::to_tape_with_buffers(&mut scratch, &mut buffers).unwrap().0.len());
                }),
            ),
        ];
        race(&format!("envelope: {name}"), message.len(), 1, &mut contenders);
    }
}

fn validation(corpus: &Corpus) {
    for (name, message) in [("list", &corpus.list), ("text", &corpus.text), ("blob", &corpus.blob)] {
        let ours = |backend: Backend, chunk: usize| {
            move || {
                let mut validator = Validator::with_backend(backend);
                for chunk in black_box(message).chunks(chunk) {
                    validator.feed(chunk).unwrap();
                }
                validator.finish().unwrap();
            }
        };
        let mut buffers = simd_json::Buffers::new(message.len());
        let mut scratch = Vec::new();
        let mut contenders: Vec<Contender<'_>> = Vec::new();
        for backend in Backend::all() {
            contenders.push((backend.name(), Box::new(ours(backend, CHUNK))));
        }
        contenders.push(("ours, whole", Box::new(ours(Backend::detect(), usize::MAX))));
        contenders.push((
            "actson",
            Box::new(|| {
                black_box(actson(message));
            }),
        ));
        contenders.push(("struson", Box::new(|| struson(message, 1))));
        contenders.push((
            "serde_json, reader",
            Box::new(|| {
                black_box(serde_reader(message));
            }),
        ));
        contenders.push((
            "serde_json, whole",
            Box::new(|| {
                black_box(serde_json::from_slice::<IgnoredAny>(message).unwrap());
            }),
        ));
        contenders.push(("jiter, whole", Box::new(|| jiter::Jiter::new(message).next_skip().unwrap())));
        contenders.push((
            "sonic-rs, whole",
            Box::new(|| drop(black_box(sonic_rs::from_slice::<sonic_rs::LazyValue<'_>>(message).unwrap()))),
        ));
        contenders.push((
            "simd-json tape, whole (with its copy)",
            Box::new(|| {
                scratch.clear();
                scratch.extend_from_slice(message);
                black_box(simd_json::to_tape_with_buffers(&mut scratch, &mut buffers).unwrap().0.len());
            }),
        ));
        race(&format!("validation: {name}"), message.len(), 1, &mut contenders);
    }
}

/// Polls what never waits.
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

impl tokio::io::AsyncRead for Chunks<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let len = CHUNK.min(self.0.len()).min(to.remaining());
        let (now, rest) = self.0.split_at(len);
        to.put_slice(now);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

/// A whole message into values. All get a fresh copy each time, as some write to it; the copy alone is a row.
fn parsing(corpus: &Corpus) {
    for (name, message) in [("call", &corpus.call), ("list", &corpus.list), ("text", &corpus.text)] {
        let len = message.len();
        let padded = || [&message[..], &[b' '; 64]].concat();
        let (mut ours, mut simd, mut sonic, mut copied) = (padded(), padded(), padded(), padded());
        let mut parser = InPlace::new();
        let mut copying = InPlace::new();
        let mut buffers = simd_json::Buffers::new(len);
        let mut home = Some(simd_json::Tape::null().reset());
        let mut contenders: Vec<Contender<'_>> = vec![
            (
                "in place",
                Box::new(|| {
                    ours[..len].copy_from_slice(message);
                    black_box(parser.parse_padded(&mut ours, len).unwrap().value().len());
                }),
            ),
            (
                "of a copy",
                Box::new(|| {
                    black_box(copying.parse_copy(message).unwrap().value().len());
                }),
            ),
            (
                "simd-json fill_tape_padded",
                Box::new(|| {
                    simd[..len].copy_from_slice(message);
                    let mut tape = home.take().unwrap();
                    simd_json::fill_tape_padded(&mut simd, len, &mut buffers, &mut tape).unwrap();
                    black_box(tape.0.len());
                    home = Some(tape.reset());
                }),
            ),
            (
                "sonic-rs Value",
                Box::new(|| {
                    sonic[..len].copy_from_slice(message);
                    drop(black_box(sonic_rs::from_slice::<sonic_rs::Value>(&sonic[..len]).unwrap()));
                }),
            ),
            (
                "serde_json Value",
                Box::new(|| {
                    drop(black_box(serde_json::from_slice::<serde_json::Value>(message).unwrap()));
                }),
            ),
            (
                "the copy alone",
                Box::new(|| {
                    copied[..len].copy_from_slice(black_box(message));
                    black_box(&copied);
                }),
            ),
        ];
        race(&format!("parsing: {name}"), len, 1, &mut contenders);
    }
}

/// Messages out of a reader that gives 4 KiB at a time.
fn streaming(corpus: &Corpus) {
    for (name, message) in [("call", &corpus.call), ("list", &corpus.list), ("text", &corpus.text)] {
        let count = (if is_bench() { 1 << 20 } else { 1 << 16 } / message.len()).max(1);
        let stream = [&message[..], b"\n"].concat().repeat(count);
        let ours = |strict| {
            let stream = &stream;
            let config = framewire::json::StreamingConfig::default().strict_validation(strict);
            let mut parser = StreamingParser::new(config);
            move || {
                let mut reader = Chunks(stream);
                for _ in 0..count {
                    black_box(now_or_never(parser.parse_from_reader(&mut reader)).unwrap());
                }
            }
        };
        let mut contenders: Vec<Contender<'_>> = vec![
            ("StreamingParser, strict", Box::new(ours(true))),
            ("StreamingParser, structure only", Box::new(ours(false))),
            (
                "serde_json Value, reader",
                Box::new(|| {
                    let reader = std::io::BufReader::with_capacity(CHUNK, Chunks(&stream));
                    let values =
                        serde_json::Deserializer::from_reader(reader).into_iter::<serde_json::Value>();
                    assert_eq!(values.map(Result::unwrap).count(), count);
                }),
            ),
        ];
        race(&format!("streaming: {name}"), stream.len(), count, &mut contenders);
    }
}

/// Counts all it is told.
#[derive(Default)]
struct Count(usize);

impl EventHandler for Count {
    fn on_begin_object(&mut self) {
        self.0 += 1;
    }

    fn on_begin_array(&mut self) {
        self.0 += 1;
    }

    fn on_key(&mut self, chunk: Chunk<'_>) {
        self.0 += chunk.bytes().len();
    }

    fn on_string_chunk(&mut self, chunk: Chunk<'_>) {
        self.0 += chunk.bytes().len();
    }

    fn on_number_chunk(&mut self, chunk: Chunk<'_>) {
        self.0 += chunk.bytes().len();
    }
}

/// Every part of a message, told as it comes.
fn events(corpus: &Corpus) {
    for (name, message) in
        [("call", &corpus.call), ("list", &corpus.list), ("text", &corpus.text), ("blob", &corpus.blob)]
    {
        let ours = |chunk: usize| {
            move || {
                let (mut parser, mut count) = (EventParser::new(), Count::default());
                for chunk in black_box(message).chunks(chunk) {
                    parser.feed_to(chunk, &mut count).unwrap();
                }
                parser.finish_to(&mut count).unwrap();
                black_box(count.0);
            }
        };
        let mut contenders: Vec<Contender<'_>> = vec![
            ("EventParser, 4096 B chunks", Box::new(ours(CHUNK))),
            ("EventParser, 64 KiB chunks", Box::new(ours(64 * 1024))),
            (
                "EventReader",
                Box::new(|| {
                    let (mut reader, mut count) = (EventReader::new(&message[..]), Count::default());
                    now_or_never(reader.tell(&mut count)).unwrap();
                    black_box(count.0);
                }),
            ),
            (
                "actson",
                Box::new(|| {
                    black_box(actson(message));
                }),
            ),
            ("struson", Box::new(|| struson(message, 1))),
        ];
        race(&format!("events: {name}"), message.len(), 1, &mut contenders);
    }
}

fn main() {
    let filter = env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let corpus = corpus();
    println!("backends: {:?}", Backend::all().iter().map(|backend| backend.name()).collect::<Vec<_>>());
    for (name, group) in [
        ("boundaries", boundaries as fn(&Corpus)),
        ("envelope", envelopes),
        ("validation", validation),
        ("parsing", parsing),
        ("streaming", streaming),
        ("events", events),
    ] {
        if name.contains(&filter) {
            group(&corpus);
        }
    }
}
