//! WebSocket in memory: what a message costs without any system call, ours and the rivals', on the same bytes, with the
//! same reads of at most 64 KiB, on the same runtime.
//!
//! `cargo bench -p framewire-websocket-rivals` (a filter may follow: `-- "receive as server"`). All contenders of a cell
//! run in turns, in CPU time of the thread, and a ratio is the median of the ratios of the turns; at the end stands a table
//! of ratios to the best rival of each cell and the goals. `-- --criterion` has criterion time the same work instead.
//!
//! Sizes are those of payloads. Connections live on from turn to turn. The floor of receiving is what nobody can leave
//! out: the bytes are copied once out of the reader, and the mask is taken off in one pass that sees what is ASCII.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    collections::VecDeque,
    env,
    hint::black_box,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use fastwebsockets::{FragmentCollector, Payload};
use framewire::{
    Link,
    codec::{Encode, Kind, WebSocket, websocket::Role},
    scan,
};
use futures::{SinkExt, StreamExt};
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Runtime,
};
use tokio_tungstenite::tungstenite;

/// The most that one read brings, in bytes.
const READ: usize = 64 * 1024;
const PAGE: usize = 4096;
/// Messages that are held, and that are sent in one batch.
const HELD: usize = 64;
/// CPU time of one turn, in ns, and how many turns there are.
const TURN: u64 = 2_000_000;
const TURNS: usize = 15;
const SIZES: [(&str, usize); 4] =
    [("64 B", 64), ("1 KiB", 1 << 10), ("16 KiB", 16 << 10), ("1 MiB", 1 << 20)];
const RIVALS: [&str; 5] = ["tungstenite", "fastwebsockets", "tokio-websockets", "yawc", "sockudo-ws"];

/// Brings its bytes again and again, at most [`READ`] at a time; takes everything and keeps nothing.
#[derive(Clone)]
struct Memory {
    bytes: &'static [u8],
    at: usize,
}

impl AsyncRead for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let count = buffer.remaining().min(READ).min(this.bytes.len() - this.at);
        buffer.put_slice(&this.bytes[this.at..this.at + count]);
        this.at = (this.at + count) % this.bytes.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(black_box(bytes).len()))
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(black_box(slices).iter().map(|slice| slice.len()).sum()))
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What is done, and how many messages one call of it is.
type Contender = (&'static str, Box<dyn FnMut()>);

#[derive(Clone, Copy, PartialEq)]
enum Work {
    Receive {
        held: usize,
    },
    /// So many messages, then a flush.
    Send {
        batch: usize,
    },
}

struct Cell {
    title: &'static str,
    role: Role,
    work: Work,
    /// Text that is not ASCII.
    wide: bool,
    /// By size.
    goals: [f64; 4],
}

const CELLS: [Cell; 8] = [
    Cell {
        title: "receive as server",
        role: Role::Server,
        work: Work::Receive { held: 0 },
        wide: false,
        goals: [0.25, 0.45, 0.85, 0.85],
    },
    Cell {
        title: "receive as server, 64 held",
        role: Role::Server,
        work: Work::Receive { held: HELD },
        wide: false,
        goals: [0.30, 0.55, 0.80, 0.90],
    },
    Cell {
        title: "receive as server, not ASCII",
        role: Role::Server,
        work: Work::Receive { held: 0 },
        wide: true,
        goals: [0.7; 4],
    },
    Cell {
        title: "receive as client",
        role: Role::Client,
        work: Work::Receive { held: 0 },
        wide: false,
        goals: [0.30, 0.50, 0.85, 0.90],
    },
    Cell {
        title: "send as server, flush each",
        role: Role::Server,
        work: Work::Send { batch: 1 },
        wide: false,
        goals: [0.45, 0.50, 0.90, 0.90],
    },
    Cell {
        title: "send as server, batches of 64",
        role: Role::Server,
        work: Work::Send { batch: HELD },
        wide: false,
        goals: [0.40, 0.55, 0.90, 0.90],
    },
    Cell {
        title: "send as client, flush each",
        role: Role::Client,
        work: Work::Send { batch: 1 },
        wide: false,
        goals: [0.60, 0.55, 0.65, 0.70],
    },
    Cell {
        title: "send as client, batches of 64",
        role: Role::Client,
        work: Work::Send { batch: HELD },
        wide: false,
        goals: [0.60, 0.55, 0.65, 0.70],
    },
];

fn payload(size: usize, wide: bool) -> Bytes {
    let line = if wide {
        "gr\u{fc}\u{df}e, \u{4f60}\u{597d}, na\u{ef}ve caf\u{e9} \u{1f600}; "
    } else {
        "The quick brown fox. "
    };
    let mut text = line.repeat(size / line.len());
    while text.len() < size {
        text.push('.');
    }
    text.into()
}

/// How many frames the reader has before it begins anew: few enough for what they are read from to stay in the cache.
fn frames(size: usize) -> usize {
    ((2 * READ) / size).max(2)
}

/// Frames as the other end of `role` sends them.
fn stream(role: Role, payload: &[u8]) -> &'static [u8] {
    let peer = match role {
        Role::Server => Role::Client,
        Role::Client => Role::Server,
    };
    let mut codec = WebSocket::new(peer);
    let count = frames(payload.len());
    let mut bytes = vec![0; count * (payload.len() + 14)];
    let spare = Vec::leak(vec![0; bytes.len() + PAGE]);
    let mut end = 0;
    for _ in 0..count {
        end += codec.encode(payload, &mut bytes[end..]).unwrap();
    }
    bytes.truncate(end);
    // A copy whose target lies a few bytes behind its source, modulo the page, runs at a fraction of its speed. Buffers
    // begin pages more often than not, so this is to begin amid one.
    let skip = (PAGE + PAGE / 2 - spare.as_ptr().addr() % PAGE) % PAGE;
    spare[skip..skip + end].copy_from_slice(&bytes);
    &spare[skip..skip + end]
}

/// The last messages that came.
struct Ring<T> {
    kept: VecDeque<T>,
    held: usize,
}

impl<T> Ring<T> {
    fn new(held: usize) -> Self {
        Self { kept: VecDeque::with_capacity(held + 1), held }
    }

    fn keep(&mut self, message: T) {
        if self.held == 0 {
            black_box(message);
            return;
        }
        if self.kept.len() == self.held {
            self.kept.pop_front();
        }
        self.kept.push_back(message);
    }
}

/// Work on one connection: `count` messages of `payload`.
struct Task {
    runtime: Rc<Runtime>,
    memory: Memory,
    role: Role,
    work: Work,
    payload: Bytes,
    count: usize,
}

fn ours(task: Task) -> Box<dyn FnMut()> {
    let Task { runtime, memory, role, work, payload, count } = task;
    let guard = runtime.enter();
    let codec = WebSocket::new(role).send_as(Kind::Binary);
    let mut link = Link::pair(codec, memory.clone(), memory);
    drop(guard);
    let mut ring = Ring::new(HELD);
    Box::new(move || {
        runtime.block_on(async {
            match work {
                Work::Receive { held: 0 } => {
                    for _ in 0..count {
                        black_box(link.receive_lent().await.unwrap());
                    }
                }
                Work::Receive { .. } => {
                    for _ in 0..count {
                        ring.keep(link.receive().await.unwrap());
                    }
                }
                Work::Send { batch: 1 } => {
                    for _ in 0..count {
                        link.send_flushed(&payload).await.unwrap();
                    }
                }
                Work::Send { batch } => {
                    for _ in 0..count / batch {
                        for _ in 0..batch {
                            link.feed(&payload).await.unwrap();
                        }
                        link.flush().await.unwrap();
                    }
                }
            }
        })
    })
}

/// A rival that is a stream and a sink of messages.
macro_rules! sink {
    ($socket:expr, $task:ident, $message:expr, $received:expr) => {{
        let Task { runtime, memory: _, role: _, work, payload, count } = $task;
        let mut socket = $socket;
        let mut ring = Ring::new(if let Work::Receive { held } = work { held } else { 0 });
        Box::new(move || {
            runtime.block_on(async {
                match work {
                    Work::Receive { .. } => {
                        for _ in 0..count {
                            ring.keep($received(socket.next().await.unwrap()));
                        }
                    }
                    Work::Send { batch: 1 } => {
                        for _ in 0..count {
                            socket.send($message(payload.clone())).await.unwrap();
                        }
                    }
                    Work::Send { batch } => {
                        for _ in 0..count / batch {
                            for _ in 0..batch {
                                socket.feed($message(payload.clone())).await.unwrap();
                            }
                            socket.flush().await.unwrap();
                        }
                    }
                }
            })
        })
    }};
}

fn tungstenite(task: Task) -> Box<dyn FnMut()> {
    let role = match task.role {
        Role::Server => tungstenite::protocol::Role::Server,
        Role::Client => tungstenite::protocol::Role::Client,
    };
    let socket = task.runtime.block_on(tokio_tungstenite::WebSocketStream::from_raw_socket(
        task.memory.clone(),
        role,
        None,
    ));
    sink!(socket, task, tungstenite::Message::Binary, |message: Result<_, _>| message.unwrap())
}

fn tokio_websockets(task: Task) -> Box<dyn FnMut()> {
    let limits = tokio_websockets::Limits::unlimited();
    let memory = task.memory.clone();
    let socket = match task.role {
        Role::Server => tokio_websockets::ServerBuilder::new().limits(limits).serve(memory),
        Role::Client => tokio_websockets::ClientBuilder::new().limits(limits).take_over(memory),
    };
    sink!(socket, task, tokio_websockets::Message::binary, |message: Result<_, _>| message.unwrap())
}

fn yawc(task: Task) -> Box<dyn FnMut()> {
    let role = match task.role {
        Role::Server => yawc::Role::Server,
        Role::Client => yawc::Role::Client,
    };
    let options = yawc::Options::default().without_compression().with_utf8().with_limits(16 << 20, 32 << 20);
    let socket = yawc::WebSocket::from_stream(task.memory.clone(), role, options).unwrap();
    sink!(socket, task, yawc::Frame::binary, |frame| frame)
}

fn sockudo(task: Task) -> Box<dyn FnMut()> {
    // Its timers off: it is at its best then.
    let config = sockudo_ws::Config::builder().idle_timeout(0).auto_ping(false).build();
    let memory = task.memory.clone();
    let _runtime = task.runtime.clone();
    let _entered = _runtime.enter();
    let socket = match task.role {
        Role::Server => sockudo_ws::WebSocketStream::server(memory, config),
        Role::Client => sockudo_ws::WebSocketStream::client(memory, config),
    };
    sink!(socket, task, sockudo_ws::Message::Binary, |message: Result<_, _>| message.unwrap())
}

fn fastwebsockets(task: Task) -> Box<dyn FnMut()> {
    let Task { runtime, memory, role, work, payload, count } = task;
    let role = match role {
        Role::Server => fastwebsockets::Role::Server,
        Role::Client => fastwebsockets::Role::Client,
    };
    // For as long as the process runs: what it borrows has to outlive it.
    let payload: &'static [u8] = Box::leak(payload.to_vec().into_boxed_slice());
    let mut socket = FragmentCollector::new(fastwebsockets::WebSocket::after_handshake(memory, role));
    let mut ring = Ring::new(if let Work::Receive { held } = work { held } else { 0 });
    Box::new(move || {
        runtime.block_on(async {
            match work {
                Work::Receive { .. } => {
                    for _ in 0..count {
                        ring.keep(socket.read_frame().await.unwrap());
                    }
                }
                // It has no buffer: each frame is a write of its own.
                Work::Send { .. } => {
                    for _ in 0..count {
                        let frame = fastwebsockets::Frame::binary(Payload::Borrowed(payload));
                        socket.write_frame(frame).await.unwrap();
                    }
                }
            }
        })
    })
}

/// Copies the bytes as reads would bring them and takes the masks off.
fn floor(task: &Task) -> Box<dyn FnMut()> {
    let (bytes, size, count) = (task.memory.bytes, task.payload.len(), task.count);
    let frame = bytes.len() / frames(size);
    let group = (READ / frame).max(1);
    let mut buffer = vec![0; frame * group];
    let mut at = 0;
    Box::new(move || {
        let mut left = count;
        while left > 0 {
            let now = group.min(left).min((bytes.len() - at) / frame);
            for (to, from) in buffer.chunks_mut(READ).zip(bytes[at..at + now * frame].chunks(READ)) {
                to[..from.len()].copy_from_slice(from);
            }
            for frame in buffer.chunks_exact_mut(frame).take(now) {
                let (head, payload) = frame.split_at_mut(frame.len() - size);
                let key = *head.last_chunk().unwrap();
                for stride in payload.chunks_mut(4096) {
                    black_box(scan::unmask(stride, key));
                }
            }
            at = (at + now * frame) % bytes.len();
            left -= now;
        }
    })
}

fn contenders(runtime: &Rc<Runtime>, cell: &Cell, size: usize, count: usize) -> Vec<Contender> {
    let payload = payload(size, cell.wide);
    let memory = Memory { bytes: stream(cell.role, &payload), at: 0 };
    let task = || Task {
        runtime: runtime.clone(),
        memory: memory.clone(),
        role: cell.role,
        work: cell.work,
        payload: payload.clone(),
        count,
    };
    let mut all: Vec<Contender> = vec![
        ("framewire", ours(task())),
        (RIVALS[0], tungstenite(task())),
        (RIVALS[1], fastwebsockets(task())),
        (RIVALS[2], tokio_websockets(task())),
        (RIVALS[3], yawc(task())),
        (RIVALS[4], sockudo(task())),
    ];
    if cell.work == (Work::Receive { held: 0 }) && cell.role == Role::Server && !cell.wide {
        all.push(("floor", floor(&task())));
    }
    all
}

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

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// ns per message of each contender, by turn.
fn race(contenders: &mut [Contender], count: usize) -> Vec<Vec<f64>> {
    let warm = (4 * HELD).div_ceil(count).max(2);
    let times: Vec<u64> = contenders
        .iter_mut()
        .map(|(_, work)| {
            // So that as many are held, and let go of, as will be.
            time(work, warm as u64);
            (TURN / (time(work, 3) / 3).max(1)).max(1)
        })
        .collect();
    let mut turns = vec![Vec::new(); contenders.len()];
    for _ in 0..TURNS {
        for (index, (_, work)) in contenders.iter_mut().enumerate() {
            turns[index].push(time(work, times[index]) as f64 / (times[index] as usize * count) as f64);
        }
    }
    turns
}

fn per_call(cell: &Cell, size: usize) -> usize {
    match cell.work {
        Work::Send { batch } if batch > 1 => HELD,
        _ => ((256 << 10) / size).clamp(2, 1024),
    }
}

/// Races all contenders of all cells that `filter` names.
fn compare(runtime: &Rc<Runtime>, filter: &str) {
    let mut summary = Vec::new();
    let names = || std::iter::once("framewire").chain(RIVALS).chain(["floor"]);
    println!("ns per message, median of {TURNS} turns\n");
    println!("| cell | size | {} |", names().collect::<Vec<_>>().join(" | "));
    println!("|---|---|{}", "---|".repeat(names().count()));
    for cell in CELLS.iter().filter(|cell| cell.title.contains(filter)) {
        for ((name, size), goal) in SIZES.into_iter().zip(cell.goals) {
            let count = per_call(cell, size);
            let mut all = contenders(runtime, cell, size, count);
            let turns = race(&mut all, count);
            let medians: Vec<f64> = turns.iter().map(|turns| median(turns.clone())).collect();
            let figures = names()
                .enumerate()
                .map(|(index, _)| medians.get(index).map_or(String::new(), |figure| format!("{figure:.1}")));
            println!("| {} | {name} | {} |", cell.title, figures.collect::<Vec<_>>().join(" | "));
            let best = (1..=RIVALS.len()).min_by(|&a, &b| medians[a].total_cmp(&medians[b])).unwrap();
            let ratio = median(turns[0].iter().zip(&turns[best]).map(|(ours, best)| ours / best).collect());
            summary.push((cell.title, name, medians[0], all[best].0, medians[best], ratio, goal));
        }
    }
    println!(
        "\n| cell | size | framewire, ns | best rival | ns | ratio | goal | |\n|---|---|---|---|---|---|---|---|"
    );
    for (title, name, ours, rival, best, ratio, goal) in &summary {
        let met = if ratio <= goal { "met" } else { "MISSED" };
        println!("| {title} | {name} | {ours:.1} | {rival} | {best:.1} | {ratio:.2} | ≤ {goal} | {met} |");
    }
    let met = summary.iter().filter(|row| row.5 <= row.6).count();
    println!("\n{met} of {} met", summary.len());
}

fn criterion(runtime: &Rc<Runtime>) {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .sample_size(10)
        .configure_from_args();
    for cell in &CELLS {
        let mut group = criterion.benchmark_group(cell.title);
        for (name, size) in SIZES {
            let count = per_call(cell, size);
            group.throughput(Throughput::Elements(count as u64));
            for (contender, work) in &mut contenders(runtime, cell, size, count) {
                group.bench_function(BenchmarkId::new(*contender, name), |bencher| bencher.iter(&mut *work));
            }
        }
        group.finish();
    }
    criterion.final_summary();
}

fn main() {
    let runtime = Rc::new(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
    let args: Vec<String> = env::args().skip(1).collect();
    if !args.iter().any(|arg| arg == "--bench") || args.iter().any(|arg| arg == "--criterion") {
        return criterion(&runtime);
    }
    let filter = args.iter().find(|arg| !arg.starts_with('-')).cloned().unwrap_or_default();
    compare(&runtime, &filter);
}
