//! Framing in memory: what a message costs without any system call, ours and the rivals', on the same bytes, with the
//! same reads of at most 64 KiB, on the same runtime.
//!
//! `cargo bench --bench codec` prints criterion's figures and then a table of ratios to the goals. Sizes are those of
//! whole messages, framing included. `mixed` is an MCP session: pings, calls, lists, now and then a large resource.
//! The floor is what nobody can leave out: the bytes are copied once out of the reader, and searched once.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    collections::VecDeque,
    hint::black_box,
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput};
use framewire::{
    Error, Frame, Link,
    codec::{Codec, Encode, LengthPrefix, Newline},
};
use futures::StreamExt;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader, ReadBuf},
    runtime::Runtime,
};
use tokio_util::codec::{AnyDelimiterCodec, Decoder, Encoder, FramedRead, LengthDelimitedCodec, LinesCodec};

/// The most that one read brings, in bytes.
const READ: usize = 64 * 1024;

/// Hands out its bytes, at most [`READ`] at a time, then ends.
#[derive(Clone, Copy)]
struct Source<'a> {
    bytes: &'a [u8],
}

impl AsyncRead for Source<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let count = buffer.remaining().min(READ).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(count);
        buffer.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

/// Takes everything and keeps nothing.
struct Sink;

impl AsyncWrite for Sink {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(black_box(bytes).len()))
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(black_box(slices).iter().map(|slice| slice.len()).sum()))
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A stream of messages of these sizes, framing included.
struct Cell {
    name: &'static str,
    sizes: Vec<usize>,
}

fn cells() -> Vec<Cell> {
    let of = |name, size: usize| Cell { name, sizes: vec![size; ((4 << 20) / size).max(8)] };
    let session = [50, 62, 300, 210, 48, 30_000, 120, 90, 2048, 75, 55, 400, 640, 60, 1100, 52];
    vec![
        of("100 B", 100),
        of("1 KiB", 1024),
        of("16 KiB", 16 << 10),
        of("1 MiB", 1 << 20),
        Cell { name: "mixed", sizes: session.into_iter().cycle().take(session.len() * 100).collect() },
    ]
}

impl Cell {
    fn lines(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for size in &self.sizes {
            bytes.resize(bytes.len() + size - 1, b'x');
            bytes.push(b'\n');
        }
        bytes
    }

    fn prefixed(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for size in &self.sizes {
            bytes.extend_from_slice(&(*size as u32 - 4).to_be_bytes());
            bytes.resize(bytes.len() + size - 4, b'x');
        }
        bytes
    }
}

async fn lent<C: Codec>(codec: C, bytes: &[u8]) -> usize {
    let mut link = Link::pair(codec, Source { bytes }, Sink);
    let mut count = 0;
    loop {
        match link.receive_lent().await {
            Ok(payload) => {
                black_box(payload);
                count += 1;
            }
            Err(Error::Ended(_)) => return count,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn lent_drained<C: Codec>(codec: C, bytes: &[u8]) -> usize {
    let mut link = Link::pair(codec, Source { bytes }, Sink);
    let mut count = 0;
    loop {
        match link.receive_lent().await {
            Ok(payload) => black_box(payload),
            Err(Error::Ended(_)) => return count,
            Err(error) => panic!("{error}"),
        };
        count += 1;
        while let Some(payload) = link.receive_ready().unwrap() {
            black_box(payload);
            count += 1;
        }
    }
}

/// Receives owned frames and keeps the last `held` of them.
async fn owned<C: Codec>(codec: C, bytes: &[u8], held: usize) -> usize {
    let mut link = Link::pair(codec, Source { bytes }, Sink);
    let mut kept: VecDeque<Frame> = VecDeque::with_capacity(held);
    let mut count = 0;
    while let Ok(frame) = link.receive().await {
        count += 1;
        if held > 0 {
            if kept.len() == held {
                kept.pop_front();
            }
            kept.push_back(frame);
        } else {
            black_box(&frame);
        }
    }
    count
}

async fn framed<D: Decoder>(decoder: D, bytes: &[u8], held: usize) -> usize
where
    D::Error: std::fmt::Debug,
{
    let mut framed = FramedRead::with_capacity(Source { bytes }, decoder, READ);
    let mut kept = VecDeque::with_capacity(held);
    let mut count = 0;
    while let Some(item) = framed.next().await {
        let item = item.unwrap();
        count += 1;
        if held > 0 {
            if kept.len() == held {
                kept.pop_front();
            }
            kept.push_back(item);
        } else {
            black_box(&item);
        }
    }
    count
}

async fn read_until(bytes: &[u8]) -> usize {
    let mut reader = BufReader::with_capacity(READ, Source { bytes });
    let (mut line, mut count) = (Vec::new(), 0);
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).await.unwrap() == 0 {
            return count;
        }
        black_box(&line);
        count += 1;
    }
}

async fn lines(bytes: &[u8]) -> usize {
    let mut lines = BufReader::with_capacity(READ, Source { bytes }).lines();
    let mut count = 0;
    while let Some(line) = lines.next_line().await.unwrap() {
        black_box(&line);
        count += 1;
    }
    count
}

/// Copies the bytes as reads would bring them and searches each line once.
fn floor(bytes: &[u8], buffer: &mut Vec<u8>, longest: usize) -> usize {
    let size = READ.max(longest + READ);
    buffer.resize(size, 0);
    let (mut end, mut count) = (0, 0);
    for chunk in bytes.chunks(READ) {
        if longest <= READ || end + chunk.len() > size {
            end = 0;
        }
        let target = &mut buffer[end..end + chunk.len()];
        target.copy_from_slice(chunk);
        let mut rest = &*target;
        while let Some(at) = memchr::memchr(b'\n', rest) {
            count += 1;
            rest = &rest[at + 1..];
        }
        black_box(rest);
        end += chunk.len();
    }
    count
}

/// The same for a length prefix: nothing is searched.
fn hand_loop(bytes: &[u8], buffer: &mut Vec<u8>, longest: usize) -> usize {
    let size = READ.max(longest + READ);
    buffer.resize(size, 0);
    let (mut start, mut end, mut count) = (0, 0, 0);
    let mut source = bytes;
    loop {
        while let Some(head) = buffer[start..end].first_chunk::<4>() {
            let len = u32::from_be_bytes(*head) as usize;
            if end - start < 4 + len {
                break;
            }
            black_box(&buffer[start + 4..start + 4 + len]);
            start += 4 + len;
            count += 1;
        }
        if source.is_empty() {
            return count;
        }
        buffer.copy_within(start..end, 0);
        (start, end) = (0, end - start);
        let (now, later) = source.split_at(source.len().min(READ).min(size - end));
        buffer[end..end + now.len()].copy_from_slice(now);
        end += now.len();
        source = later;
    }
}

fn decode(criterion: &mut Criterion, runtime: &Runtime) {
    for cell in cells() {
        let count = cell.sizes.len();
        let longest = *cell.sizes.iter().max().unwrap();
        let bytes = cell.lines();
        let mut buffer = Vec::new();
        let mut group = criterion.benchmark_group("newline");
        group.throughput(Throughput::Elements(count as u64));
        let mut row = |name: &str, run: &mut dyn FnMut() -> usize| {
            assert_eq!(run(), count, "{name}, {}", cell.name);
            group.bench_function(BenchmarkId::new(name, cell.name), |bencher| bencher.iter(&mut *run));
        };
        row("floor", &mut || floor(&bytes, &mut buffer, longest));
        row("lent", &mut || runtime.block_on(lent(Newline::new(), &bytes)));
        row("lent, drained", &mut || runtime.block_on(lent_drained(Newline::new(), &bytes)));
        row("owned", &mut || runtime.block_on(owned(Newline::new(), &bytes, 0)));
        row("owned, 64 held", &mut || runtime.block_on(owned(Newline::new(), &bytes, 64)));
        row("read_until", &mut || runtime.block_on(read_until(&bytes)));
        row("LinesCodec", &mut || runtime.block_on(framed(LinesCodec::new(), &bytes, 0)));
        row("LinesCodec, 64 held", &mut || runtime.block_on(framed(LinesCodec::new(), &bytes, 64)));
        row("lines()", &mut || runtime.block_on(lines(&bytes)));
        let any = || AnyDelimiterCodec::new(b"\n".to_vec(), b"\n".to_vec());
        row("AnyDelimiterCodec", &mut || runtime.block_on(framed(any(), &bytes, 0)));
        group.finish();

        let bytes = cell.prefixed();
        let mut group = criterion.benchmark_group("length");
        group.throughput(Throughput::Elements(count as u64));
        let mut row = |name: &str, run: &mut dyn FnMut() -> usize| {
            assert_eq!(run(), count, "{name}, {}", cell.name);
            group.bench_function(BenchmarkId::new(name, cell.name), |bencher| bencher.iter(&mut *run));
        };
        row("hand loop", &mut || hand_loop(&bytes, &mut buffer, longest));
        row("lent", &mut || runtime.block_on(lent(LengthPrefix::new(), &bytes)));
        row("lent, drained", &mut || runtime.block_on(lent_drained(LengthPrefix::new(), &bytes)));
        row("owned", &mut || runtime.block_on(owned(LengthPrefix::new(), &bytes, 0)));
        row("owned, 64 held", &mut || runtime.block_on(owned(LengthPrefix::new(), &bytes, 64)));
        let default = || async {
            let mut framed = FramedRead::new(Source { bytes: &bytes }, LengthDelimitedCodec::new());
            let mut count = 0;
            while let Some(frame) = framed.next().await {
                black_box(frame.unwrap());
                count += 1;
            }
            count
        };
        row("LengthDelimitedCodec, 8 KiB", &mut || runtime.block_on(default()));
        row("LengthDelimitedCodec", &mut || runtime.block_on(framed(LengthDelimitedCodec::new(), &bytes, 0)));
        group.finish();
    }
}

/// Messages encoded one after the other.
const BATCH: usize = 64;

fn batch(encoder: &mut impl Encode, payload: &[u8], target: &mut [u8]) {
    let mut end = 0;
    for _ in 0..BATCH {
        end += encoder.encode(black_box(payload), &mut target[end..]).unwrap();
    }
    black_box(&target[..end]);
}

/// Encodes 64 messages into one reused buffer.
fn encode(criterion: &mut Criterion) {
    for size in [100, 1024] {
        let payload = vec![b'x'; size];
        let text = "x".repeat(size);
        let mut group = criterion.benchmark_group("encode");
        group.throughput(Throughput::Elements(BATCH as u64));
        let mut target = vec![0; BATCH * (size + 64)];
        group.bench_function(BenchmarkId::new("newline, ours", size), |bencher| {
            bencher.iter(|| batch(&mut Newline::new(), &payload, &mut target));
        });
        group.bench_function(BenchmarkId::new("length, ours", size), |bencher| {
            bencher.iter(|| batch(&mut LengthPrefix::new(), &payload, &mut target));
        });
        let mut vector = Vec::new();
        group.bench_function(BenchmarkId::new("newline, reused Vec, unchecked", size), |bencher| {
            bencher.iter(|| {
                vector.clear();
                for _ in 0..BATCH {
                    vector.extend_from_slice(black_box(&payload));
                    vector.push(b'\n');
                }
                black_box(&vector);
            });
        });
        let mut bytes = BytesMut::new();
        group.bench_function(BenchmarkId::new("newline, LinesCodec", size), |bencher| {
            bencher.iter(|| {
                bytes.clear();
                for _ in 0..BATCH {
                    LinesCodec::new().encode(black_box(&text), &mut bytes).unwrap();
                }
                black_box(&bytes);
            });
        });
        let owned = bytes::Bytes::from(payload.clone());
        let mut codec = LengthDelimitedCodec::new();
        group.bench_function(BenchmarkId::new("length, LengthDelimitedCodec", size), |bencher| {
            bencher.iter(|| {
                bytes.clear();
                for _ in 0..BATCH {
                    codec.encode(black_box(owned.clone()), &mut bytes).unwrap();
                }
                black_box(&bytes);
            });
        });
        group.finish();
    }
}

/// Where copying into the write buffer stops paying: `VECTORED_THRESHOLD`. One message a write.
fn write_threshold(criterion: &mut Criterion, runtime: &Runtime) {
    let mut group = criterion.benchmark_group("send and flush");
    for size in [100, 1 << 10, 2 << 10, 4 << 10, 16 << 10, 64 << 10, 1 << 20] {
        let payload = vec![b'x'; size];
        let frame = Frame::from(payload.clone());
        let mut link = Link::pair(LengthPrefix::new(), tokio::io::empty(), Sink);
        let _runtime = runtime.enter();
        group.bench_function(BenchmarkId::new("borrowed", size), |bencher| {
            bencher.iter(|| runtime.block_on(async { (link.send(&payload).await, link.flush().await) }));
        });
        group.bench_function(BenchmarkId::new("frame", size), |bencher| {
            bencher.iter(|| {
                runtime.block_on(async { (link.send_frame(frame.clone()).await, link.flush().await) })
            });
        });
        let mut copy = Vec::new();
        group.bench_function(BenchmarkId::new("copy alone", size), |bencher| {
            bencher.iter(|| {
                copy.clear();
                copy.extend_from_slice(black_box(&payload));
                black_box(&copy);
            });
        });
    }
    group.finish();
}

/// The median of one figure, in ns per message, as criterion wrote it down.
fn median(group: &str, row: &str, cell: &str, messages: usize) -> Option<f64> {
    let plain = |text: &str| text.replace(['?', '"', '/', '\\', '*', '<', '>', ':', '|', '^'], "_");
    let path = format!("target/criterion/{}/{}/{}/new/estimates.json", plain(group), plain(row), plain(cell));
    let path =
        std::env::var("CARGO_TARGET_DIR").map_or(path.clone(), |target| path.replacen("target", &target, 1));
    let estimates: serde_json::Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    Some(estimates["median"]["point_estimate"].as_f64()? / messages as f64)
}

fn report() {
    println!(
        "\n### Goals\n\n| figure | cell | ns | of | ns | ratio | goal | |\n|---|---|---|---|---|---|---|---|"
    );
    let goal = |group: &str, row: &str, of: &str, cell: &Cell, limit: f64| {
        let of_both =
            (median(group, row, cell.name, cell.sizes.len()), median(group, of, cell.name, cell.sizes.len()));
        if let (Some(ours), Some(theirs)) = of_both {
            let ratio = ours / theirs;
            let met = if ratio <= limit { "met" } else { "MISSED" };
            println!(
                "| {group} {row} | {} | {ours:.1} | {of} | {theirs:.1} | {ratio:.2} | ≤ {limit} | {met} |",
                cell.name
            );
        }
    };
    for (cell, floor, length) in cells()
        .iter()
        .zip([1.3, 1.15, 1.15, 1.15, 1.3])
        .zip([0.2, 0.6, 0.75, 1.0, f64::INFINITY])
        .map(|((cell, floor), length)| (cell, floor, length))
    {
        for row in ["lent", "lent, drained"] {
            goal("newline", row, "floor", cell, floor);
            goal("newline", row, "read_until", cell, 1.0);
            goal("length", row, "LengthDelimitedCodec", cell, length);
            goal("length", row, "LengthDelimitedCodec, 8 KiB", cell, length);
        }
        goal("newline", "owned", "LinesCodec", cell, 0.5);
        goal("newline", "owned, 64 held", "LinesCodec, 64 held", cell, 0.5);
        goal("length", "owned", "LengthDelimitedCodec", cell, 1.0);
    }
    for row in ["newline, ours", "length, ours"] {
        if let Some(ours) = median("encode", row, "100", 64) {
            let met = if ours <= 8.0 { "met" } else { "MISSED" };
            println!("| encode {row} | 100 B | {ours:.1} | | | | ≤ 8 ns | {met} |");
        }
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(20)
        .configure_from_args();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    decode(&mut criterion, &runtime);
    encode(&mut criterion);
    write_threshold(&mut criterion, &runtime);
    criterion.final_summary();
    if std::env::args().any(|arg| arg == "--bench") {
        report();
    }
}
