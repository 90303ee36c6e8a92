//! Instructions per message and per byte, counted by callgrind: what a stream costs when it comes in small pieces.
//!
//! `cargo bench --bench instructions` starts itself under `valgrind` (which has to be installed; without it nothing is
//! counted), each case with some messages and with twice as many; the difference is theirs alone, free of whatever a
//! process does before. Counts do not depend on what else the machine does, so a missed goal is an exit code of 1.
//! `cargo test --bench instructions` only runs each case once.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    hint::black_box,
    pin::Pin,
    process::{Command, exit},
    task::{Context, Poll},
};

use framewire::{
    Error, Link,
    codec::{Codec, ContentLength, Decode, Encode, LengthPrefix, Newline, Step, WebSocket},
    error::Violation,
};
use tokio::io::{AsyncRead, ReadBuf};

/// The most that one read brings of a stream that is not cut, in bytes.
const WHOLE: usize = 64 * 1024;

/// The payload of a TCP segment over Ethernet, in bytes.
const SEGMENT: usize = 1448;

/// Bytes of an unfinished message after which the next byte must cost what the tenth did.
const FAR: usize = 10_000_000;

/// Hands out its first bytes in reads of [`WHOLE`], the others in reads of `piece` bytes, then ends.
struct Source<'a> {
    whole: &'a [u8],
    rest: &'a [u8],
    piece: usize,
}

impl AsyncRead for Source<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let (from, most) = if self.whole.is_empty() { (self.rest, self.piece) } else { (self.whole, WHOLE) };
        let (now, later) = from.split_at(buffer.remaining().min(most).min(from.len()));
        buffer.put_slice(now);
        if self.whole.is_empty() {
            self.rest = later;
        } else {
            self.whole = later;
        }
        Poll::Ready(Ok(()))
    }
}

/// One measurement; its words are the arguments of the process that is counted.
#[derive(Debug, Clone, Copy)]
struct Case {
    codec: &'static str,
    /// `link`: through a link. `codec`: the decoder alone, on a slice that grows.
    through: &'static str,
    /// Payload in bytes; 0: one endless message.
    size: usize,
    piece: usize,
    /// Bytes that come before the ones that count.
    from: usize,
}

const CODECS: [&str; 4] = ["newline", "length", "content-length", "websocket"];

/// A codec that looks at nothing: what the loop around the others costs.
const NOTHING: &str = "nothing";

struct Nothing;

impl Decode for Nothing {
    fn decode(&mut self, _: &mut [u8]) -> Result<Step, Violation> {
        Ok(black_box(Step::Incomplete { consumed: 0, needed: 0 }))
    }
}

impl Case {
    /// Receives `count` messages or, of an endless one, bytes.
    fn run(self, count: usize) {
        match self.codec {
            "newline" => self.with(Newline::new(), Newline::new(), count),
            "length" => self.with(LengthPrefix::new(), LengthPrefix::new(), count),
            "content-length" => self.with(ContentLength::new(), ContentLength::new(), count),
            "websocket" => self.with(WebSocket::server(), WebSocket::client(), count),
            NOTHING => drop(alone(&mut Nothing, vec![b'x'; self.from + count], self.from, self.piece)),
            other => panic!("no codec {other}"),
        }
    }

    fn with<C: Codec + Clone>(self, codec: C, mut encoder: impl Encode, count: usize) {
        let mut decoder = codec.clone().split().0;
        let size = if self.size == 0 { self.from + (1 << 20) } else { self.size };
        let mut one = vec![0; size + encoder.overhead()];
        let written = encoder.encode(&vec![b'x'; size], &mut one).unwrap();
        one.truncate(written);
        let endless = self.size == 0;
        let bytes = if endless { one[..self.from + count].to_vec() } else { one.repeat(count) };
        let received = match self.through {
            "codec" => alone(&mut decoder, bytes, self.from, self.piece),
            _ => linked(codec, &bytes, self.from, self.piece),
        };
        assert!(endless || received == count, "{received} of {count}: {self:?}");
    }

    /// Instructions for each message, or for each byte of an endless one.
    fn count(self) -> f64 {
        let once = match self.size {
            0 => 2_000,
            size => (256 << 10) / size,
        };
        let (few, many) = (self.instructions(once), self.instructions(2 * once));
        (many as f64 - few as f64) / once as f64
    }

    /// Instructions of a whole process that receives `count`.
    fn instructions(self, count: usize) -> u64 {
        let Self { codec, through, size, piece, from } = self;
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(std::env::current_exe().unwrap())
            .args(["case", codec, through])
            .args([size, piece, from, count].map(|number| number.to_string()))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{self:?}: {text}");
        let collected =
            text.lines().find_map(|line| line.split_once("Collected :")).expect("callgrind's sum").1;
        collected.trim().parse().unwrap()
    }
}

/// The decoder alone: `src` grows at the back and is cut at the front, and nothing is moved.
fn alone(decoder: &mut impl Decode, mut bytes: Vec<u8>, from: usize, piece: usize) -> usize {
    let (mut start, mut end, mut count) = (0, 0, 0);
    while end < bytes.len() {
        end = if end < from { from } else { bytes.len().min(end + piece) };
        loop {
            match black_box(decoder.decode(&mut bytes[start..end])).unwrap() {
                Step::Frame { consumed, .. } => {
                    start += consumed;
                    count += 1;
                }
                Step::Incomplete { consumed, .. } => {
                    start += consumed;
                    break;
                }
                step => panic!("{step:?}"),
            }
        }
    }
    count
}

/// The decoder in a link, which reads and keeps what has come.
fn linked<C: Codec>(codec: C, bytes: &[u8], from: usize, piece: usize) -> usize {
    let (whole, rest) = bytes.split_at(from);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut link = Link::pair(codec, Source { whole, rest, piece }, tokio::io::sink());
        let mut count = 0;
        loop {
            match link.receive_lent().await {
                Ok(payload) => {
                    black_box(payload);
                    count += 1;
                }
                // An endless message ends as the codec will have it: cut off here.
                Err(Error::Ended(_) | Error::Fault(_) | Error::Violation(_)) => return count,
                Err(error) => panic!("{error}"),
            }
        }
    })
}

fn cases(codec: &'static str, through: &'static str) -> impl Fn(usize, usize, usize) -> Case {
    move |size, piece, from| Case { codec, through, size, piece, from }
}

/// Prints one figure; true when it is within the goal.
fn row(figure: &str, value: f64, of: f64, limit: f64) -> bool {
    let met = value / of <= limit;
    let ratio = value / of;
    println!(
        "| {figure} | {value:.1} | {of:.1} | {ratio:.2} | ≤ {limit} | {} |",
        if met { "met" } else { "MISSED" }
    );
    met
}

fn measure() -> bool {
    let mut met = true;
    let around = cases(NOTHING, "codec")(0, 1, 10).count();
    println!("the loop around the decoder alone, per byte: {around:.1}, taken off below");
    println!("\n| figure | instructions | to | ratio | goal | |\n|---|---|---|---|---|---|");
    for codec in CODECS {
        for through in ["codec", "link"] {
            let case = cases(codec, through);
            for size in [100, 1 << 10, 16 << 10] {
                let (whole, pieces) = (case(size, WHOLE, 0).count(), case(size, SEGMENT, 0).count());
                met &= row(
                    &format!("{codec}, {through}, {size} B, per message, 1,448 B : whole"),
                    pieces,
                    whole,
                    1.5,
                );
            }
            let around = if through == "codec" { around } else { 0.0 };
            let near = case(0, 1, 10).count() - around;
            let far = case(0, 1, FAR).count() - around;
            // Through a link each byte is a read of its own, which costs what a read costs.
            let (most, drift) = match (codec, through) {
                // A byte of WebSocket is also unmasked and checked, with all that a piece of a frame takes.
                ("websocket", "codec") => (320.0, 1.05),
                ("websocket", _) => (1_100.0, 1.2),
                (_, "codec") => (100.0, 1.05),
                _ => (350.0, 1.2),
            };
            met &=
                row(&format!("{codec}, {through}, per byte, one at a time, from byte 10"), near, 1.0, most);
            met &= row(
                &format!("{codec}, {through}, per byte, from byte 10,000,000 : from byte 10"),
                far,
                near,
                drift,
            );
        }
    }
    met
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [case, codec, through, numbers @ ..] = &words[..]
        && case == "case"
    {
        let codec = CODECS.into_iter().chain([NOTHING]).find(|known| known == codec).expect("a codec");
        let through = if through == "codec" { "codec" } else { "link" };
        let numbers: Vec<usize> = numbers.iter().map(|number| number.parse().unwrap()).collect();
        let [size, piece, from, count] = numbers[..] else { panic!("four numbers") };
        cases(codec, through)(size, piece, from).run(count);
    } else if !words.iter().any(|word| word == "--bench") {
        for codec in CODECS {
            for through in ["codec", "link"] {
                cases(codec, through)(100, SEGMENT, 0).run(50);
                cases(codec, through)(0, 1, 10).run(50);
            }
        }
    } else if Command::new("valgrind").arg("--version").output().is_err() {
        println!("valgrind is not installed: nothing is counted");
    } else if !measure() {
        exit(1);
    }
}
