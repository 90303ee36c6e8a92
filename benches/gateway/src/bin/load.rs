//! Clients of an MCP gateway, cheap enough not to be what is measured: raw HTTP/1.1 and WebSocket on one thread.
//!
//! `load MODE ADDRESS PATH SESSIONS IN_FLIGHT SECONDS`, one line of JSON on stdout.
//!
//! - `http`, `ws`: opens SESSIONS sessions, then keeps IN_FLIGHT calls of `echo` going for SECONDS, over as many keep-alive
//!   connections (http) or over the sessions' sockets (ws), each call in the next session.
//! - `first`: from now until the first answer to a call, trying to connect all the while.
//! - `idle`: opens SESSIONS sessions, says so, and holds them until stdin ends.
//! - `large`: one session echoes a message of 20 MB over and over for SECONDS while another pings; the pings' times.
//!
//! Every answer is checked: its id and its text are the request's.

use std::{
    env,
    error::Error,
    io::{Read, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Builder,
    task::{JoinSet, LocalSet},
    time::{sleep, timeout},
};

type Fault = Box<dyn Error>;

const LIMIT: Duration = Duration::from_secs(120);
const LARGE: usize = 20 * 1024 * 1024;
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"load","version":"1"}}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

fn call(id: u64, text: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"echo","arguments":{{"message":"{text}"}}}}}}"#
    )
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

/// The end of the first `needle` at or after `from`; fast on large bodies.
fn find_from(hay: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    find(hay.get(from..)?, needle).map(|at| from + at + needle.len())
}

/// One keep-alive connection.
struct Http {
    address: String,
    path: String,
    stream: TcpStream,
    buffer: Vec<u8>,
}

struct Answer {
    status: u16,
    session: Option<String>,
    body: Vec<u8>,
}

impl Http {
    async fn connect(address: &str, path: &str) -> Result<Self, Fault> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { address: address.into(), path: path.into(), stream, buffer: Vec::with_capacity(16 * 1024) })
    }

    async fn post(&mut self, session: Option<&str>, body: &str) -> Result<Answer, Fault> {
        let (address, path) = (&self.address, &self.path);
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n",
            body.len()
        );
        if let Some(session) = session {
            request += &format!("Mcp-Session-Id: {session}\r\nMCP-Protocol-Version: 2025-06-18\r\n");
        }
        request += "\r\n";
        request += body;
        self.stream.write_all(request.as_bytes()).await?;
        timeout(LIMIT, self.read()).await?
    }

    async fn more(&mut self) -> Result<(), Fault> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err("the connection was closed in an answer".into());
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<Answer, Fault> {
        let head = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let text = String::from_utf8_lossy(&self.buffer[..head]).into_owned();
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or("no status")?.parse()?;
        let (mut length, mut chunked, mut session) = (None, false, None);
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.parse::<usize>()?),
                "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
                "mcp-session-id" => session = Some(value.to_owned()),
                _ => {}
            }
        }
        self.buffer.drain(..head);
        let mut body = Vec::new();
        if chunked {
            let mut at = 0;
            loop {
                let Some(line) = find_from(&self.buffer, b"\r\n", at) else {
                    self.more().await?;
                    continue;
                };
                let digits = std::str::from_utf8(&self.buffer[at..line - 2])?
                    .split(';')
                    .next()
                    .unwrap_or("")
                    .trim()
                    .to_owned();
                let size = usize::from_str_radix(&digits, 16)?;
                while self.buffer.len() < line + size + 2 {
                    self.more().await?;
                }
                body.extend_from_slice(&self.buffer[line..line + size]);
                at = line + size + 2;
                if size == 0 {
                    self.buffer.drain(..at);
                    break;
                }
                if at > 1 << 16 {
                    self.buffer.drain(..at);
                    at = 0;
                }
            }
        } else {
            let length = length.unwrap_or(0);
            while self.buffer.len() < length {
                self.more().await?;
            }
            body.extend(self.buffer.drain(..length));
        }
        Ok(Answer { status, session, body })
    }

    /// A session's id; none from a gateway without sessions.
    async fn open(&mut self) -> Result<Option<String>, Fault> {
        let answer = self.post(None, INITIALIZE).await?;
        if answer.status != 200 {
            return Err(
                format!("initialize: {} {}", answer.status, String::from_utf8_lossy(&answer.body)).into()
            );
        }
        let session = answer.session;
        let answer = self.post(session.as_deref(), INITIALIZED).await?;
        if answer.status >= 300 {
            return Err(format!("initialized: {}", answer.status).into());
        }
        Ok(session)
    }

    async fn call(&mut self, session: Option<&str>, id: u64, text: &str) -> Result<(), Fault> {
        let answer = self.post(session, &call(id, text)).await?;
        check(answer.status == 200, &answer.body, id, text)
    }
}

fn check(good: bool, body: &[u8], id: u64, text: &str) -> Result<(), Fault> {
    let (id, text) = (format!("\"id\":{id}"), format!("\"text\":\"{text}"));
    let is_right = good && (find(body, id.as_bytes()).is_some()) && (find(body, text.as_bytes()).is_some());
    if is_right {
        return Ok(());
    }
    Err(format!("not the answer: {}", String::from_utf8_lossy(&body[..body.len().min(300)])).into())
}

/// One WebSocket; text messages only, no compression.
struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Socket {
    async fn open(address: &str, path: &str) -> Result<Self, Fault> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut socket = Self { stream, buffer: Vec::with_capacity(64 * 1024) };
        let head = loop {
            if let Some(at) = find(&socket.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            socket.more().await?;
        };
        if !socket.buffer.starts_with(b"HTTP/1.1 101") {
            return Err("no upgrade".into());
        }
        socket.buffer.drain(..head);
        socket.send(INITIALIZE).await?;
        timeout(LIMIT, socket.receive()).await??;
        socket.send(INITIALIZED).await?;
        Ok(socket)
    }

    async fn more(&mut self) -> Result<(), Fault> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err("the socket was closed".into());
        }
        Ok(())
    }

    async fn send(&mut self, text: &str) -> Result<(), Fault> {
        let size = text.len();
        let mut frame = vec![0x81];
        match size {
            0..126 => frame.push(0x80 | size as u8),
            126..65536 => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(size as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(size as u64).to_be_bytes());
            }
        }
        let mask = [0x12, 0x34, 0x56, 0x78];
        frame.extend_from_slice(&mask);
        frame.extend(text.bytes().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
        Ok(self.stream.write_all(&frame).await?)
    }

    async fn receive(&mut self) -> Result<Vec<u8>, Fault> {
        loop {
            while self.buffer.len() < 2 {
                self.more().await?;
            }
            let (opcode, short) = (self.buffer[0] & 15, usize::from(self.buffer[1] & 127));
            let head = match short {
                126 => 4,
                127 => 10,
                _ => 2,
            };
            while self.buffer.len() < head {
                self.more().await?;
            }
            let size = if head == 2 {
                short
            } else {
                self.buffer[2..head].iter().fold(0, |size, byte| size << 8 | usize::from(*byte))
            };
            while self.buffer.len() < head + size {
                self.more().await?;
            }
            let data = self.buffer[head..head + size].to_vec();
            self.buffer.drain(..head + size);
            match opcode {
                1 => return Ok(data),
                8 => return Err("the socket was closed".into()),
                _ => {}
            }
        }
    }
}

struct Plan {
    mode: String,
    address: String,
    path: String,
    sessions: usize,
    in_flight: usize,
    time: Duration,
}

/// Calls that were answered, and how long the slowest half and the slowest hundredth took.
fn report(mut times: Vec<Duration>, wall: Duration) {
    times.sort_unstable();
    let at = |part: f64| {
        times.get((times.len() as f64 * part) as usize).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    println!(
        r#"{{"requests":{},"seconds":{:.4},"p50_us":{:.1},"p99_us":{:.1}}}"#,
        times.len(),
        wall.as_secs_f64(),
        at(0.5),
        at(0.99)
    );
}

async fn gather(mut tasks: JoinSet<Result<Vec<Duration>, String>>) -> Result<Vec<Duration>, Fault> {
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        all.extend(done??);
    }
    Ok(all)
}

async fn http(plan: &Plan) -> Result<(), Fault> {
    let mut opener = Http::connect(&plan.address, &plan.path).await?;
    let mut sessions = Vec::new();
    for _ in 0..plan.sessions {
        sessions.push(opener.open().await?);
    }
    // The server behind each session is up before the clock starts.
    for (i, session) in sessions.iter().enumerate() {
        opener.call(session.as_deref(), i as u64, "warm").await?;
    }
    announce();
    let (began, end) = (Instant::now(), Instant::now() + plan.time);
    let mut tasks = JoinSet::new();
    for worker in 0..plan.in_flight {
        let (address, path, sessions, step) =
            (plan.address.clone(), plan.path.clone(), sessions.clone(), plan.in_flight);
        tasks.spawn_local(async move {
            let run = async {
                let mut connection = Http::connect(&address, &path).await?;
                let (mut times, mut turn) = (Vec::new(), worker);
                while Instant::now() < end {
                    let at = Instant::now();
                    let session = sessions[turn % sessions.len()].as_deref();
                    connection.call(session, turn as u64, &format!("call {turn}")).await?;
                    times.push(at.elapsed());
                    turn += step;
                }
                Ok::<_, Fault>(times)
            };
            run.await.map_err(|error| error.to_string())
        });
    }
    report(gather(tasks).await?, began.elapsed());
    Ok(())
}

async fn ws(plan: &Plan) -> Result<(), Fault> {
    let mut sockets = Vec::new();
    for _ in 0..plan.sessions {
        let mut socket = Socket::open(&plan.address, &plan.path).await?;
        socket.send(&call(1, "warm")).await?;
        check(true, &timeout(LIMIT, socket.receive()).await??, 1, "warm")?;
        sockets.push(socket);
    }
    announce();
    let (began, end) = (Instant::now(), Instant::now() + plan.time);
    let count = sockets.len();
    let mut tasks = JoinSet::new();
    for (number, mut socket) in sockets.into_iter().enumerate() {
        // What is in flight is spread over the sockets: with more sockets than that, the first ones have one each.
        let window = plan.in_flight / count + usize::from(number < plan.in_flight % count);
        if window == 0 {
            continue;
        }
        tasks.spawn_local(async move {
            let run = async {
                let mut times = Vec::new();
                let mut under_way = std::collections::HashMap::new();
                let mut id = 0_u64;
                loop {
                    while under_way.len() < window && Instant::now() < end {
                        id += 1;
                        under_way.insert(id, Instant::now());
                        socket.send(&call(id, &format!("call {id} of {number}"))).await?;
                    }
                    if under_way.is_empty() {
                        return Ok::<_, Fault>(times);
                    }
                    let said = timeout(LIMIT, socket.receive()).await??;
                    let at = find_from(&said, b"\"id\":", 0).ok_or("no id")?;
                    let digits: String = said[at..]
                        .iter()
                        .take_while(|byte| byte.is_ascii_digit())
                        .map(|&b| b as char)
                        .collect();
                    let id = digits.parse()?;
                    check(true, &said, id, &format!("call {id} of {number}"))?;
                    times.push(under_way.remove(&id).ok_or("an answer to nothing")?.elapsed());
                }
            };
            run.await.map_err(|error| error.to_string())
        });
    }
    report(gather(tasks).await?, began.elapsed());
    Ok(())
}

async fn first(plan: &Plan) -> Result<(), Fault> {
    let began = Instant::now();
    loop {
        let once = async {
            if plan.path.starts_with("ws:") {
                let mut socket = Socket::open(&plan.address, &plan.path[3..]).await?;
                socket.send(&call(1, "first")).await?;
                return check(true, &socket.receive().await?, 1, "first");
            }
            let mut connection = Http::connect(&plan.address, &plan.path).await?;
            let session = connection.open().await?;
            connection.call(session.as_deref(), 1, "first").await
        };
        match timeout(LIMIT, once).await? {
            Ok(()) => break,
            Err(error) if began.elapsed() > LIMIT => return Err(error),
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
    report(vec![began.elapsed()], began.elapsed());
    Ok(())
}

async fn idle(plan: &Plan) -> Result<(), Fault> {
    let mut held = Vec::new();
    for _ in 0..plan.sessions {
        let mut connection = Http::connect(&plan.address, &plan.path).await?;
        let session = connection.open().await?;
        connection.call(session.as_deref(), 1, "awake").await?;
        held.push(connection);
    }
    announce();
    report(Vec::new(), Duration::ZERO);
    Ok(())
}

async fn large(plan: &Plan) -> Result<(), Fault> {
    let mut big = Http::connect(&plan.address, &plan.path).await?;
    let mut small = Http::connect(&plan.address, &plan.path).await?;
    let (big_session, small_session) = (big.open().await?, small.open().await?);
    big.call(big_session.as_deref(), 1, "warm").await?;
    announce();
    let end = Instant::now() + plan.time;
    let text = "x".repeat(LARGE);
    let began = Instant::now();
    let echoes = tokio::task::spawn_local(async move {
        let run = async {
            let mut times = Vec::new();
            while Instant::now() < end {
                let at = Instant::now();
                let answer = big.post(big_session.as_deref(), &call(2, &text)).await?;
                if answer.status != 200 || answer.body.len() < LARGE {
                    return Err(
                        format!("a large echo: {} of {} bytes", answer.status, answer.body.len()).into()
                    );
                }
                times.push(at.elapsed());
            }
            Ok::<_, Fault>(times)
        };
        run.await.map_err(|error| error.to_string())
    });
    let mut times = Vec::new();
    while Instant::now() < end {
        let at = Instant::now();
        small.post(small_session.as_deref(), r#"{"jsonrpc":"2.0","id":3,"method":"ping"}"#).await?;
        times.push(at.elapsed());
        sleep(Duration::from_millis(2)).await;
    }
    let mut echoes = echoes.await??;
    echoes.sort_unstable();
    eprintln!("echoes of 20 MB: {} of {:.3} s", echoes.len(), echoes[echoes.len() / 2].as_secs_f64());
    report(times, began.elapsed());
    Ok(())
}

/// Tells whoever measures that the sessions are open, and waits for a byte or the end of stdin.
fn announce() {
    println!("ready");
    let _ = std::io::stdout().flush();
    let _ = std::io::stdin().read(&mut [0]);
}

fn main() -> ExitCode {
    let given: Vec<String> = env::args().collect();
    let [_, mode, address, path, sessions, in_flight, seconds] = given.as_slice() else {
        eprintln!("load MODE ADDRESS PATH SESSIONS IN_FLIGHT SECONDS");
        return ExitCode::from(2);
    };
    let number = |text: &String| text.parse::<f64>().unwrap_or(1.0);
    let plan = Plan {
        mode: mode.clone(),
        address: address.clone(),
        path: path.clone(),
        sessions: number(sessions) as usize,
        in_flight: number(in_flight) as usize,
        time: Duration::from_secs_f64(number(seconds)),
    };
    let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return ExitCode::FAILURE };
    let done = LocalSet::new().block_on(&runtime, async {
        match plan.mode.as_str() {
            "http" => http(&plan).await,
            "ws" => ws(&plan).await,
            "first" => first(&plan).await,
            "idle" => idle(&plan).await,
            "large" => large(&plan).await,
            _ => Err("no such mode".into()),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
