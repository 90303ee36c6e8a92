//! An echo over WebSocket on TCP: what one message costs the server, with 64 in flight, ours beside the rivals and a
//! plain echo of bytes.
//!
//! `cargo bench -p framewire-websocket-rivals --bench websocket_echo`. Each server is this program again, a process with
//! one task that serves one connection from after the opening handshake on; its CPU time is read from the kernel. All
//! servers take turns, and a ratio is the median of the ratios of the turns. Ours is the plain loop of receiving and
//! sending, once with messages that are lent and once with owned ones; the rivals answer as well as they can in one task: they
//! queue, and flush once no further message is there.
//!
//! uWebSockets, which is C++, takes part when `UWEBSOCKETS` names its echo: see `websocket-rivals/uwebsockets/build`.
//!
//! The same for compressed messages (RFC 7692), with context takeover in both directions and level 1 in all, against
//! those rivals that can: 64 messages of JSON, each different, again and again.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    env, fs,
    future::{Future, poll_fn},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream as StdTcpStream,
    pin::pin,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use framewire::{
    Link,
    codec::{Decode, Encode, Step, WebSocket, websocket::handshake::DeflateParams},
};
use futures::{FutureExt, SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufWriter},
    net::{TcpListener, TcpStream},
};

/// Messages in flight.
const WINDOW: usize = 64;
const TURN: Duration = Duration::from_millis(120);
const TURNS: usize = 15;
const SIZES: [(&str, usize); 4] =
    [("64 B", 64), ("1 KiB", 1 << 10), ("16 KiB", 16 << 10), ("1 MiB", 1 << 20)];
const SERVERS: [&str; 8] = [
    "bytes",
    "framewire",
    "framewire, owned",
    "tungstenite",
    "fastwebsockets + BufWriter",
    "tokio-websockets",
    "yawc",
    "sockudo-ws",
];

/// Where the echo on uWebSockets is, if it takes part.
const UWEBSOCKETS: &str = "UWEBSOCKETS";

/// The servers of compressed messages.
const DEFLATING: [&str; 3] = ["framewire, deflate", "yawc, deflate", "sockudo-ws, deflate"];

// ------------------------------------------------------------------------------------------------ the servers

async fn bytes(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(got) = stream.read(&mut buffer).await
        && got > 0
        && stream.write_all(&buffer[..got]).await.is_ok()
    {}
}

async fn ours(stream: TcpStream, codec: WebSocket) {
    let (reader, writer) = stream.into_split();
    let mut link = Link::pair(codec, reader, writer);
    let (sender, receiver) = link.halves();
    while let Ok((kind, message)) = receiver.receive_with_kind().await {
        sender.encoder_mut().set_kind(kind);
        if sender.send(message).await.is_err() {
            break;
        }
    }
}

/// As [`ours`], with messages that are owned, whose bytes go out from where they lie.
async fn ours_owned(stream: TcpStream) {
    let (reader, writer) = stream.into_split();
    let mut link = Link::pair(WebSocket::server(), reader, writer);
    while let Ok(message) = link.receive().await {
        if link.send_frame(message).await.is_err() {
            break;
        }
    }
}

/// A rival that is a stream and a sink of messages.
macro_rules! sink {
    ($socket:expr, $received:expr) => {{
        let mut socket = $socket;
        loop {
            let message = match socket.next().now_or_never() {
                Some(message) => message,
                None => {
                    if socket.flush().await.is_err() {
                        break;
                    }
                    socket.next().await
                }
            };
            let Some(message) = message.and_then($received) else { break };
            if socket.feed(message).await.is_err() {
                break;
            }
        }
    }};
}

async fn fastwebsockets(stream: TcpStream) {
    let (reader, writer) = stream.into_split();
    let writer = BufWriter::with_capacity(64 * 1024, writer);
    let (mut reader, mut writer) =
        fastwebsockets::after_handshake_split(reader, writer, fastwebsockets::Role::Server);
    loop {
        // Not dropped while it waits: it would lose what it has read.
        let mut no_reply = |_| async { Ok::<(), std::io::Error>(()) };
        let mut next = pin!(reader.read_frame(&mut no_reply));
        let frame = match poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                if writer.flush().await.is_err() {
                    return;
                }
                next.await
            }
        };
        let Ok(frame) = frame else { return };
        // What its collector of fragments would check, which has no flush.
        if !frame.is_utf8() {
            return;
        }
        // A frame that was read would go out with its mask.
        let frame = fastwebsockets::Frame::new(true, frame.opcode, None, frame.payload);
        if writer.write_frame(frame).await.is_err() {
            return;
        }
    }
}

async fn serve(kind: &str, stream: TcpStream) {
    match kind {
        "bytes" => bytes(stream).await,
        "framewire" => ours(stream, WebSocket::server()).await,
        "framewire, owned" => ours_owned(stream).await,
        "framewire, deflate" => ours(stream, WebSocket::server().deflate(DeflateParams::default())).await,
        "yawc, deflate" => {
            let options = yawc::Options::default()
                .with_low_latency_compression()
                .with_utf8()
                .with_limits(16 << 20, 32 << 20);
            sink!(
                yawc::WebSocket::from_stream_with_extensions(
                    stream,
                    yawc::Role::Server,
                    Some("permessage-deflate"),
                    options
                )
                .unwrap(),
                Some
            );
        }
        "sockudo-ws, deflate" => {
            let config = sockudo_ws::Config::builder().idle_timeout(0).auto_ping(false).build();
            let deflate = sockudo_ws::DeflateConfig { compression_level: 1, ..Default::default() };
            sink!(
                sockudo_ws::CompressedWebSocketStream::server(stream, config, deflate),
                |message: Result<_, _>| message.ok()
            );
        }
        "tungstenite" => {
            let role = tokio_tungstenite::tungstenite::protocol::Role::Server;
            sink!(
                tokio_tungstenite::WebSocketStream::from_raw_socket(stream, role, None).await,
                |message: Result<_, _>| message.ok()
            );
        }
        "fastwebsockets + BufWriter" => fastwebsockets(stream).await,
        "tokio-websockets" => {
            let limits = tokio_websockets::Limits::unlimited();
            // Else it flushes before each message once a few KiB are queued.
            let config = tokio_websockets::Config::default().flush_threshold(64 * 1024);
            sink!(
                tokio_websockets::ServerBuilder::new().limits(limits).config(config).serve(stream),
                |message: Result<_, _>| message.ok()
            );
        }
        "yawc" => {
            let options =
                yawc::Options::default().without_compression().with_utf8().with_limits(16 << 20, 32 << 20);
            sink!(yawc::WebSocket::from_stream(stream, yawc::Role::Server, options).unwrap(), Some);
        }
        "sockudo-ws" => {
            let config = sockudo_ws::Config::builder().idle_timeout(0).auto_ping(false).build();
            sink!(sockudo_ws::WebSocketStream::server(stream, config), |message: Result<_, _>| message.ok());
        }
        kind => panic!("no server {kind}"),
    }
}

fn server(kind: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        let stream = listener.accept().await.unwrap().0;
        stream.set_nodelay(true).unwrap();
        serve(kind, stream).await;
    });
}

// ------------------------------------------------------------------------------------------------ the load

struct Running {
    kind: String,
    child: Child,
    stream: StdTcpStream,
    message: Arc<[u8]>,
    answer: Vec<u8>,
    buffer: Vec<u8>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The opening handshake, with the key of RFC 6455 section 1.3; the other servers begin behind it.
fn shake_hands(stream: &mut StdTcpStream) {
    stream
        .write_all(
            b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        )
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
}

impl Running {
    fn start(kind: &str, size: usize) -> Self {
        let foreign = if kind == "uWebSockets" { env::var_os(UWEBSOCKETS) } else { None };
        let mut command = match &foreign {
            Some(program) => Command::new(program),
            None => {
                let mut command = Command::new(env::current_exe().unwrap());
                command.args(["--serve", kind]);
                command
            }
        };
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut place = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut place).unwrap();
        let mut stream = StdTcpStream::connect(place.trim()).unwrap();
        if foreign.is_some() {
            shake_hands(&mut stream);
        }
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let payload: Vec<u8> = (0..size).map(|at| b'a' + (at % 26) as u8).collect();
        let frame = |mut codec: WebSocket| {
            let mut frame = vec![0; codec.room(size)];
            let len = codec.encode(&payload, &mut frame).unwrap();
            frame.truncate(len);
            frame
        };
        let message = frame(WebSocket::client());
        let answer = if kind == "bytes" { message.clone() } else { frame(WebSocket::server()) };
        Self {
            kind: kind.to_owned(),
            child,
            stream,
            message: message.into(),
            answer,
            buffer: vec![0; 256 << 10],
        }
    }

    /// CPU time of the server so far, in ns.
    fn cpu(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.child.id())).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }

    /// Keeps the window full for a turn, then takes in what is owed; returns the server's CPU time for a message, in ns.
    fn turn(&mut self) -> f64 {
        let before = self.cpu();
        let allowed = Arc::new(AtomicUsize::new(WINDOW));
        let writer = {
            let (allowed, message) = (Arc::clone(&allowed), Arc::clone(&self.message));
            let mut stream = self.stream.try_clone().unwrap();
            let group: Vec<u8> = message.repeat(if message.len() < 100_000 { WINDOW } else { 1 });
            move || {
                let mut sent = 0;
                loop {
                    let now = allowed.load(Relaxed);
                    if now == usize::MAX {
                        return sent;
                    }
                    if now == sent {
                        thread::park_timeout(Duration::from_millis(5));
                        continue;
                    }
                    let count = (now - sent).min(group.len() / message.len());
                    stream.write_all(&group[..count * message.len()]).expect("the server takes it");
                    sent += count;
                }
            }
        };
        let writer = thread::spawn(writer);
        let (start, mut received, size) = (Instant::now(), 0, self.answer.len());
        while start.elapsed() < TURN {
            received += self.take(received);
            allowed.store(received / size + WINDOW, Relaxed);
            writer.thread().unpark();
        }
        allowed.store(usize::MAX, Relaxed);
        writer.thread().unpark();
        // The writer may wait for what is read here.
        self.stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        while !writer.is_finished() {
            received += self.take(received);
        }
        self.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let sent = writer.join().unwrap();
        while received < sent * size {
            let got = self.take(received);
            assert!(got > 0, "an answer is missing");
            received += got;
        }
        (self.cpu() - before) as f64 / sent as f64
    }

    /// One read behind the `received` bytes of this turn, each byte checked; 0 when nothing came in time.
    fn take(&mut self, received: usize) -> usize {
        let got = match self.stream.read(&mut self.buffer) {
            Ok(got) => got,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return 0,
            Err(error) => panic!("{}: {error}", self.kind),
        };
        assert!(got > 0, "the server has gone");
        let (mut done, size) = (0, self.answer.len());
        while done < got {
            let at = (received + done) % size;
            let part = (size - at).min(got - done);
            assert!(
                self.buffer[done..done + part] == self.answer[at..at + part],
                "{}: a wrong answer",
                self.kind
            );
            done += part;
        }
        got
    }
}

/// A server of compressed messages and the load on it.
struct Deflating {
    running: Running,
    payloads: Vec<Vec<u8>>,
    frames: Arc<[Vec<u8>]>,
    decoder: WebSocket,
    pending: Vec<u8>,
    /// Messages of all turns.
    total: usize,
}

/// `count` messages of `size` bytes as a tool would answer, no two alike.
fn messages(size: usize, count: usize) -> Vec<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words = ["alpha", "result", "content", "value", "text", "status", "error", "name", "path", "line"];
    let message = |id: usize| {
        let mut text = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[");
        while text.len() + 4 < size {
            let (word, number) = (words[next() as usize % words.len()], next() % 100_000);
            text += &format!("{{\"type\":\"{word}\",\"value\":{number}}},");
        }
        text.truncate(size - 4);
        text += "]}}\n";
        text.into_bytes()
    };
    (0..count).map(message).collect()
}

impl Deflating {
    fn start(kind: &str, size: usize) -> Self {
        let payloads = messages(size, WINDOW);
        // Each message by itself, so that they can be sent again and again whatever the server's window holds.
        let alone = DeflateParams { client_no_context_takeover: true, ..DeflateParams::default() };
        let mut codec = WebSocket::client().deflate(alone);
        let mut encode = |payload: &Vec<u8>| {
            let mut frame = vec![0; codec.room(payload.len())];
            let len = codec.encode(payload, &mut frame).unwrap();
            frame.truncate(len);
            assert!(len < payload.len(), "compressed");
            frame
        };
        let frames = payloads.iter().map(&mut encode).collect();
        let decoder = WebSocket::client().deflate(DeflateParams::default());
        Self { running: Running::start(kind, 0), payloads, frames, decoder, pending: Vec::new(), total: 0 }
    }

    fn turn(&mut self) -> f64 {
        let before = self.running.cpu();
        let allowed = Arc::new(AtomicUsize::new(WINDOW));
        let writer = {
            let (allowed, frames) = (Arc::clone(&allowed), Arc::clone(&self.frames));
            let mut stream = self.running.stream.try_clone().unwrap();
            let first = self.total;
            move || {
                let mut sent = 0;
                let mut bytes = Vec::new();
                loop {
                    let now = allowed.load(Relaxed);
                    if now == usize::MAX {
                        return sent;
                    }
                    if now == sent {
                        thread::park_timeout(Duration::from_millis(5));
                        continue;
                    }
                    bytes.clear();
                    for at in sent..now {
                        bytes.extend_from_slice(&frames[(first + at) % frames.len()]);
                    }
                    stream.write_all(&bytes).expect("the server takes it");
                    sent = now;
                }
            }
        };
        let writer = thread::spawn(writer);
        let (start, mut received) = (Instant::now(), 0);
        while start.elapsed() < TURN {
            received += self.take();
            allowed.store(received + WINDOW, Relaxed);
            writer.thread().unpark();
        }
        allowed.store(usize::MAX, Relaxed);
        writer.thread().unpark();
        let sent = writer.join().unwrap();
        while received < sent {
            received += self.take();
        }
        (self.running.cpu() - before) as f64 / sent as f64
    }

    /// One read; returns how many messages it completed, each compared with what was sent.
    fn take(&mut self) -> usize {
        let got = self.running.stream.read(&mut self.running.buffer).expect("an answer");
        assert!(got > 0, "the server has gone");
        self.pending.extend_from_slice(&self.running.buffer[..got]);
        let (mut at, mut count) = (0, 0);
        loop {
            let step = self.decoder.decode(&mut self.pending[at..]).expect("no violation");
            let expected = &self.payloads[self.total % WINDOW];
            match step {
                Step::Frame { payload, consumed } => {
                    assert!(self.pending[at..][payload] == expected[..], "{}", self.running.kind);
                    at += consumed;
                }
                Step::Produced { consumed } => {
                    assert!(self.decoder.produced() == &expected[..], "{}", self.running.kind);
                    at += consumed;
                }
                Step::Event { consumed } => {
                    at += consumed;
                    continue;
                }
                Step::Incomplete { consumed, .. } => {
                    self.pending.drain(..at + consumed);
                    return count;
                }
                step => panic!("{}: {step:?}", self.running.kind),
            }
            count += 1;
            self.total += 1;
        }
    }
}

fn deflate(turns: usize) {
    println!("\nthe same, compressed; in brackets: to the best rival\n");
    println!("| size | {} |\n|---|{}", DEFLATING.join(" | "), "---|".repeat(DEFLATING.len()));
    for (name, size) in [("1 KiB", 1 << 10), ("16 KiB", 16 << 10)] {
        let mut all: Vec<_> = DEFLATING.iter().map(|kind| Deflating::start(kind, size)).collect();
        let mut figures = vec![Vec::new(); all.len()];
        for turn in 0..=turns {
            for (server, figures) in all.iter_mut().zip(&mut figures) {
                let figure = server.turn();
                if turn > 0 {
                    figures.push(figure);
                }
            }
        }
        let medians: Vec<f64> = figures.iter().map(|turns| median(turns.clone())).collect();
        let best = (1..all.len()).min_by(|&a, &b| medians[a].total_cmp(&medians[b])).unwrap();
        let cells = figures.iter().zip(&medians).map(|(turns, figure)| {
            let ratio = median(turns.iter().zip(&figures[best]).map(|(ours, best)| ours / best).collect());
            format!("{:.2} ({ratio:.2})", figure / 1e3)
        });
        println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    if let [flag, kind] = args.as_slice()
        && flag == "--serve"
    {
        return server(kind);
    }
    let turns = if args.iter().any(|arg| arg == "--bench") { TURNS } else { 1 };
    if args.iter().any(|arg| arg == "deflate") {
        return deflate(turns);
    }
    println!("server CPU, µs per message, median of {turns} turns; in brackets: to the echo of bytes\n");
    let mut servers = SERVERS.to_vec();
    servers.extend(env::var_os(UWEBSOCKETS).map(|_| "uWebSockets"));
    println!("| size | {} |\n|---|{}", servers.join(" | "), "---|".repeat(servers.len()));
    for (name, size) in SIZES {
        let mut all: Vec<Running> = servers.iter().map(|kind| Running::start(kind, size)).collect();
        let mut figures = vec![Vec::new(); all.len()];
        for turn in 0..=turns {
            for (server, figures) in all.iter_mut().zip(&mut figures) {
                let figure = server.turn();
                // The first warms up.
                if turn > 0 {
                    figures.push(figure);
                }
            }
        }
        let cells = figures.iter().map(|turns| {
            let ratio = median(turns.iter().zip(&figures[0]).map(|(ours, bytes)| ours / bytes).collect());
            format!("{:.2} ({ratio:.2})", median(turns.clone()) / 1e3)
        });
        println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    deflate(turns);
}
