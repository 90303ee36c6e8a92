//! What an idle connection holds: resident memory and heap of a server with thousands of them, one task each, before
//! and after one echoed message each; ours beside a bare tokio task with a socket and tokio-util's `Framed`.
//!
//! `cargo bench --bench connections -- [WORD...] [--links 10000] [--json FILE]`
//!
//! Both ends are processes of their own (the server is this program again), so the client's sockets do not count. The
//! heap is counted by the server's allocator in bytes asked for. What tokio registers for a socket is in the bare task's
//! figures, so a row minus the bare one is what the row's framing holds. As a test it runs with a few links.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream as StdTcpStream,
    os::unix::net::UnixStream as StdUnixStream,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use framewire::{
    Link,
    codec::{Encode, Newline, WebSocket},
};
use futures::{FutureExt, SinkExt, StreamExt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use socket2::SockRef;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt},
    net::{
        TcpListener, UnixListener,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tokio_util::codec::{Framed, LinesCodec};

#[path = "support/heap.rs"]
mod heap;

use heap::Counted;

#[global_allocator]
static HEAP: Counted = Counted::new();

static LINKS: AtomicUsize = AtomicUsize::new(0);
static FUTURE: AtomicUsize = AtomicUsize::new(0);

/// What is echoed: one line of 100 bytes.
const MESSAGE: &[u8] =
    b"{\"jsonrpc\":\"2.0\",\"id\":10000000,\"method\":\"ping\",\"params\":{\"pad\":\"abcdefghijklmnopqrstuvwxyzabcd\"}}\n";

/// The servers, the bare ones first: others are compared with them.
const KINDS: [&str; 7] = [
    "bare task",
    "bare task, split socket",
    "framewire",
    "framewire, lent halves",
    "framewire, WebSocket",
    "Framed LinesCodec",
    "BufReader lines()",
];

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    if let [flag, kind, medium, place] = args.as_slice()
        && flag == "--serve"
    {
        serve(kind, medium, place);
    }
    let measured = args.iter().any(|arg| arg == "--bench") && !args.iter().any(|arg| arg == "--test");
    let mut links = if measured { 10_000 } else { 20 };
    let (mut words, mut file) = (Vec::new(), None);
    let mut rest = args.iter().filter(|arg| !["--bench", "--test"].contains(&arg.as_str()));
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--links" => links = rest.next().and_then(|value| value.parse().ok()).expect("a number of links"),
            "--json" => file = Some(rest.next().expect("a file").clone()),
            word => words.push(word.to_lowercase()),
        }
    }
    let room = descriptors();
    if room < links + 64 {
        println!("only {room} descriptors are allowed here");
        links = room - 64;
    }
    if words.is_empty() || words.iter().any(|word| "step by step".contains(word)) {
        println!("{}", step_by_step());
    }
    let mut all = Vec::new();
    for medium in ["tcp", "unix"] {
        println!(
            "### {medium}, {links} links\n\n| server | RSS per link before / after use / closed, B | heap before / after / closed, B | blocks | the task's future | heap over the bare task, split socket |\n|---|---|---|---|---|---|"
        );
        let mut bare = None;
        for kind in KINDS {
            let name = format!("{kind} {medium}").to_lowercase();
            let wanted = words.is_empty() || words.iter().any(|word| name.contains(word));
            if !wanted && kind != "bare task, split socket" {
                continue;
            }
            let row = measure(kind, medium, links);
            if kind == "bare task, split socket" {
                bare = Some(row);
            }
            println!("{}", row.line(kind, bare));
            all.push(json!({
                "server": kind, "medium": medium, "links": links, "future": row.future,
                "rss": row.rss, "heap": row.heap, "blocks": row.blocks,
            }));
        }
        println!();
    }
    if let Some(file) = file {
        fs::write(file, json!(all).to_string()).expect("write the JSON file");
    }
}

/// The heap one TCP link takes, by the step that takes it, in this process.
fn step_by_step() -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut out = String::from("### step by step, one TCP link\n\n| step | heap, B |\n|---|---|\n");
        // Twice: what is made once, on first use, shows the first time only.
        for turn in 0..2 {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut peer = StdTcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let stream = listener.accept().unwrap().0;
            stream.set_nonblocking(true).unwrap();
            // What the last turn left to its flusher is gone by then.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut before = HEAP.bytes();
            let mut step = |name: &str| {
                let now = HEAP.bytes();
                if turn == 1 {
                    let _ = writeln!(out, "| {name} | {} |", now.wrapping_sub(before) as isize);
                }
                before = HEAP.bytes();
            };
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            step("the socket, registered with tokio");
            let (reader, writer) = stream.into_split();
            step("its two halves");
            let mut link = Link::pair(Newline::default(), reader, writer);
            step("the link");
            peer.write_all(MESSAGE).unwrap();
            let message = link.receive().await.unwrap();
            drop(message);
            link.send(&MESSAGE[..MESSAGE.len() - 1]).await.unwrap();
            link.flush().await.unwrap();
            let _ = tokio::time::timeout(Duration::from_millis(20), link.receive()).await;
            step("the answer sent, the link idle again");
        }
        let size = size_of::<Link<Newline, OwnedReadHalf, OwnedWriteHalf>>();
        let _ = writeln!(out, "| beside the heap: the link's own size, where its owner keeps it | {size} |");
        out
    })
}

/// Bytes per link: before use, after use, after all were closed.
#[derive(Clone, Copy)]
struct Row {
    rss: [f64; 3],
    heap: [f64; 3],
    blocks: [f64; 3],
    future: usize,
}

impl Row {
    fn line(&self, kind: &str, bare: Option<Self>) -> String {
        let over = bare.map_or(String::new(), |bare| {
            format!("{:.0} / {:.0}", self.heap[0] - bare.heap[0], self.heap[1] - bare.heap[1])
        });
        let three = |of: [f64; 3]| format!("{:.0} / {:.0} / {:.0}", of[0], of[1], of[2]);
        let (rss, heap, future) = (three(self.rss), three(self.heap), self.future);
        let blocks = format!("{:.1} / {:.1}", self.blocks[0], self.blocks[1]);
        format!("| {kind} | {rss} | {heap} | {blocks} | {future} | {over} |")
    }
}

/// Raises the limit of open files as far as it goes and returns it.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

// ------------------------------------------------------------------------------------------------ the client

/// A server process that is asked over its standard input.
struct Server {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What a server says of itself.
struct Answer {
    links: usize,
    bytes: f64,
    blocks: f64,
    future: usize,
    rss: f64,
}

impl Server {
    fn ask(&mut self) -> Answer {
        self.ask.write_all(b"?\n").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let numbers: Vec<usize> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
        Answer {
            links: numbers[0],
            bytes: numbers[1] as f64,
            blocks: numbers[2] as f64,
            future: numbers[3],
            rss: resident(self.child.id()),
        }
    }

    fn ask_until(&mut self, links: usize) -> Answer {
        for _ in 0..2_000 {
            let answer = self.ask();
            if answer.links == links {
                return answer;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("the server does not come to {links} links");
    }
}

impl Server {
    /// As `ask_until`, once what ends behind the last task, such as a flusher of ours, has run too.
    fn settled(&mut self, links: usize) -> Answer {
        self.ask_until(links);
        thread::sleep(Duration::from_millis(50));
        self.ask_until(links)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident bytes of a process, exact where the kernel can tell.
fn resident(pid: u32) -> f64 {
    // The figure in `status` lags by up to 64 pages for each core.
    let (file, field) = match fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
        Ok(text) => (text, "Rss:"),
        Err(_) => (fs::read_to_string(format!("/proc/{pid}/status")).unwrap(), "VmRSS:"),
    };
    let kib = file.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB"));
    kib.unwrap().trim().parse::<f64>().unwrap() * 1024.0
}

trait Socket: Read + Write {
    /// Ends without a trace: ten thousand ports in TIME_WAIT would stand in the way of the next server.
    fn reset(self: Box<Self>);
}

impl Socket for StdTcpStream {
    fn reset(self: Box<Self>) {
        SockRef::from(&*self).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

impl Socket for StdUnixStream {
    fn reset(self: Box<Self>) {}
}

fn measure(kind: &str, medium: &str, links: usize) -> Row {
    let scratch = tempfile::tempdir().unwrap();
    let place = match medium {
        "tcp" => "127.0.0.1:0".to_owned(),
        _ => scratch.path().join("socket").to_str().unwrap().to_owned(),
    };
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--serve", kind, medium, &place])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ask = child.stdin.take().unwrap();
    let answers = BufReader::new(child.stdout.take().unwrap());
    let mut server = Server { child, ask, answers };
    let mut place = String::new();
    server.answers.read_line(&mut place).unwrap();
    let place = place.trim();
    let connect = || -> Box<dyn Socket> {
        match medium {
            "tcp" => Box::new(StdTcpStream::connect(place).unwrap()),
            _ => Box::new(StdUnixStream::connect(place).unwrap()),
        }
    };
    // What is made once, on first use, is not to be counted.
    let mut first = connect();
    let exchange = exchange(kind);
    echo_once(&mut *first, &exchange);
    server.ask_until(1);
    first.reset();
    let zero = server.settled(0);
    let mut sockets = Vec::with_capacity(links);
    while sockets.len() < links {
        sockets.push(connect());
        // A full backlog drops connection attempts, which are repeated a second later.
        if sockets.len() % 256 == 0 {
            server.ask_until(sockets.len());
        }
    }
    let idle = server.settled(links);
    for socket in &mut sockets {
        echo_once(&mut **socket, &exchange);
    }
    let used = server.settled(links);
    sockets.into_iter().for_each(Socket::reset);
    let closed = server.settled(0);
    let future = used.future;
    let count = links as f64;
    let each =
        |of: fn(&Answer) -> f64| [&idle, &used, &closed].map(|answer| (of(answer) - of(&zero)) / count);
    Row { rss: each(|a| a.rss), heap: each(|a| a.bytes), blocks: each(|a| a.blocks), future }
}

fn echo_once(socket: &mut dyn Socket, [message, expected]: &[Vec<u8>; 2]) {
    socket.write_all(message).unwrap();
    let mut answer = vec![0; expected.len()];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, expected);
}

/// What is sent to a server of `kind`, and what it sends back.
fn exchange(kind: &str) -> [Vec<u8>; 2] {
    if !kind.contains("WebSocket") {
        return [MESSAGE.to_vec(), MESSAGE.to_vec()];
    }
    [WebSocket::client(), WebSocket::server()].map(|mut codec| {
        let mut frame = vec![0; codec.room(MESSAGE.len())];
        let len = codec.encode(MESSAGE, &mut frame).unwrap();
        frame.truncate(len);
        frame
    })
}

// ------------------------------------------------------------------------------------------------ the server

/// Accepts for ever, each connection served by a task of the kind that was asked for.
macro_rules! serve_all {
    ($listener:expr, $kind:expr) => {
        loop {
            let stream = $listener.accept().await.unwrap().0;
            match $kind {
                "bare task" => start(async move {
                    while stream.readable().await.is_ok()
                        && pass(|to| stream.try_read(to), |from| stream.try_write(from))
                    {}
                }),
                "bare task, split socket" => {
                    let (reader, writer) = stream.into_split();
                    start(async move {
                        while reader.readable().await.is_ok()
                            && pass(|to| reader.try_read(to), |from| writer.try_write(from))
                        {
                        }
                    });
                }
                "framewire" => {
                    let (reader, writer) = stream.into_split();
                    let mut link = Link::pair(Newline::default(), reader, writer);
                    // Not an `async fn` that takes the link: its future would hold the link twice.
                    start(async move {
                        while let Ok(message) = link.receive().await {
                            if link.send(&message).await.is_err() {
                                break;
                            }
                        }
                    });
                }
                "framewire, lent halves" => {
                    let (reader, writer) = stream.into_split();
                    let (mut sender, mut receiver) = Link::pair(Newline::default(), reader, writer).split();
                    start(async move {
                        while let Ok(message) = receiver.receive_lent().await {
                            if sender.send(message).await.is_err() {
                                break;
                            }
                        }
                    });
                }
                // After the opening handshake, with the keep-alive of 30 s that is the default.
                "framewire, WebSocket" => {
                    let (reader, writer) = stream.into_split();
                    let mut link = Link::pair(WebSocket::server(), reader, writer);
                    start(async move {
                        let (sender, receiver) = link.halves();
                        while let Ok((kind, message)) = receiver.receive_with_kind().await {
                            sender.encoder_mut().set_kind(kind);
                            if sender.send(message).await.is_err() {
                                break;
                            }
                        }
                    });
                }
                "Framed LinesCodec" => start(async move {
                    let mut framed = Framed::new(stream, LinesCodec::new());
                    while let Some(Ok(line)) = framed.next().await {
                        if framed.send(line).await.is_err() {
                            break;
                        }
                    }
                }),
                "BufReader lines()" => start(async move {
                    let (reader, mut writer) = stream.into_split();
                    let mut lines = tokio::io::BufReader::new(reader).lines();
                    while let Ok(Some(line)) = lines.next_line().await {
                        if writer.write_all(line.as_bytes()).await.is_err()
                            || writer.write_all(b"\n").await.is_err()
                        {
                            break;
                        }
                    }
                }),
                kind => panic!("no server {kind}"),
            }
        }
    };
}

fn serve(kind: &str, medium: &str, place: &str) -> ! {
    descriptors();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if medium == "tcp" {
            let listener = TcpListener::bind(place).await.unwrap();
            answer_questions(&listener.local_addr().unwrap().to_string());
            serve_all!(listener, kind)
        } else {
            let listener = UnixListener::bind(place).unwrap();
            answer_questions(place);
            serve_all!(listener, kind)
        }
    })
}

/// Spawns one connection's task, counted while it lives.
fn start<F: Future<Output = ()> + Send + 'static>(task: F) {
    FUTURE.store(size_of_val(&task), Relaxed);
    LINKS.fetch_add(1, Relaxed);
    // Not an `async` block: that would hold the task twice.
    tokio::spawn(task.map(|()| {
        LINKS.fetch_sub(1, Relaxed);
    }));
}

/// One read and one write through the stack; false when the connection has ended.
fn pass(read: impl Fn(&mut [u8]) -> io::Result<usize>, write: impl Fn(&[u8]) -> io::Result<usize>) -> bool {
    let mut buffer = [0; 4096];
    match read(&mut buffer) {
        Ok(0) => false,
        Ok(got) => write(&buffer[..got]).is_ok(),
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Says where it listens, then answers each line of standard input with what it holds, and ends with it.
fn answer_questions(place: &str) {
    println!("{place}");
    thread::spawn(|| {
        let mut line = String::with_capacity(16);
        while io::stdin().read_line(&mut line).is_ok_and(|got| got > 0) {
            let (links, future) = (LINKS.load(Relaxed), FUTURE.load(Relaxed));
            println!("{links} {} {} {future}", HEAP.bytes(), HEAP.blocks());
            line.clear();
        }
        std::process::exit(0);
    });
}
