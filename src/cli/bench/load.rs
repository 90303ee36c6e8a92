//! The load: messages to a server that sends each of them back.

use std::{
    future::poll_fn,
    io::{self, BufRead, BufReader, Read},
    time::{Duration, Instant},
};

use framewire::{
    Error, Link, Result,
    codec::{Codec, Newline, WebSocket, websocket::handshake::Request},
    endpoint::{Address, Endpoint, TlsAddress},
    io::{
        tcp,
        tls::{self, TlsClientConfig},
    },
    link::LinkConfig,
    transport::{MemoryTransport, PollTransport},
};
use indicatif::ProgressBar;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Row, Transport,
    certificate::Certificate,
    process::{self, Server},
};
use crate::cli::{exit::Failure, quantity::percentile, serve};

/// Round trips that are kept at most: a few seconds of a fast transport.
const MAX_SAMPLES: usize = 4_000_000;

/// Messages of `size` bytes between this process and a server of its own.
pub(super) async fn measure(
    transport: Transport,
    size: usize,
    window: usize,
    duration: Duration,
    bar: &ProgressBar,
) -> io::Result<Row> {
    match transport {
        Transport::Memory => {
            let row = in_memory(size, window, duration);
            bar.inc(2);
            row
        }
        Transport::Stdio => {
            let mut server = Server::start(&serve::Arguments::new(Endpoint::new(Address::Stdio)))?;
            let (Some(stdin), Some(stdout)) = (server.child.stdin.take(), server.child.stdout.take()) else {
                return Err(io::Error::other("the server has no pipes"));
            };
            let (stdin, stdout) = (
                tokio::process::ChildStdin::from_std(stdin)?,
                tokio::process::ChildStdout::from_std(stdout)?,
            );
            run(Link::pair(Newline::new(), stdout, stdin), &server, size, window, duration, bar).await
        }
        Transport::Tcp => {
            let address = Address::Tcp { host: "127.0.0.1".to_owned(), port: 0 };
            let mut server = Server::start(&serve::Arguments::new(Endpoint::new(address)))?;
            let port = first_line(&mut server)?.parse::<u16>().map_err(io::Error::other)?;
            let (reader, writer) = tcp::connect(("127.0.0.1", port), &tcp::TcpOptions::default()).await?;
            run(Link::pair(Newline::new(), reader, writer), &server, size, window, duration, bar).await
        }
        Transport::Tls => {
            let certificate = Certificate::new()?;
            let mut address = TlsAddress::new("127.0.0.1", 0);
            address.cert = Some(certificate.cert.clone());
            address.key = Some(certificate.key.clone());
            let endpoint = Endpoint::new(Address::Tls(Box::new(address)));
            let mut server = Server::start(&serve::Arguments::new(endpoint))?;
            let port = first_line(&mut server)?.parse::<u16>().map_err(io::Error::other)?;
            let settings = TlsClientConfig::builder().ca_file(&certificate.cert).build();
            drop(certificate);
            let settings = settings.map_err(io::Error::other)?;
            let (reader, writer) =
                tls::connect("127.0.0.1", port, &settings, &tcp::TcpOptions::default()).await?;
            run(Link::pair(Newline::new(), reader, writer), &server, size, window, duration, bar).await
        }
        Transport::Ws => {
            let endpoint = "ws://127.0.0.1:0/".parse::<Endpoint>().map_err(io::Error::other)?;
            let mut server = Server::start(&serve::Arguments::new(endpoint))?;
            let port = first_line(&mut server)?.parse::<u16>().map_err(io::Error::other)?;
            let (reader, writer) = tcp::connect(("127.0.0.1", port), &tcp::TcpOptions::default()).await?;
            run(asked(reader, writer, port).await?, &server, size, window, duration, bar).await
        }
        Transport::Wss => {
            let certificate = Certificate::new()?;
            let (cert, key) = (certificate.cert.display(), certificate.key.display());
            let endpoint = format!("wss://127.0.0.1:0/#cert={cert}&key={key}");
            let endpoint = endpoint.parse::<Endpoint>().map_err(io::Error::other)?;
            let mut server = Server::start(&serve::Arguments::new(endpoint))?;
            let port = first_line(&mut server)?.parse::<u16>().map_err(io::Error::other)?;
            let settings = TlsClientConfig::builder().ca_file(&certificate.cert).build();
            drop(certificate);
            let settings = settings.map_err(io::Error::other)?;
            let (reader, writer) =
                tls::connect("127.0.0.1", port, &settings, &tcp::TcpOptions::default()).await?;
            run(asked(reader, writer, port).await?, &server, size, window, duration, bar).await
        }
        #[cfg(unix)]
        Transport::Unix => {
            let path = std::env::temp_dir().join(format!("framewire-bench-{}.sock", std::process::id()));
            let endpoint = Endpoint::new(Address::Unix(path.clone()));
            let mut server = Server::start(&serve::Arguments::new(endpoint))?;
            first_line(&mut server)?;
            let (reader, writer) = framewire::io::unix::connect(&path).await?;
            let row =
                run(Link::pair(Newline::new(), reader, writer), &server, size, window, duration, bar).await;
            // The server is killed, so it cannot take its socket away itself.
            drop(server);
            let _ = std::fs::remove_file(path);
            row
        }
        #[cfg(not(unix))]
        Transport::Unix => Err(io::Error::new(io::ErrorKind::Unsupported, "there are no Unix sockets here")),
    }
}

/// A WebSocket on a connection to the server.
async fn asked<R, W>(reader: R, writer: W, port: u16) -> io::Result<Link<WebSocket, R, W>>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let request = Request::new(&format!("127.0.0.1:{port}"), "/").map_err(io::Error::other)?;
    let asked = Link::ask(reader, writer, request, WebSocket::client(), LinkConfig::default()).await;
    asked.map(|(link, _)| link).map_err(io::Error::other)
}

fn first_line(server: &mut Server) -> io::Result<String> {
    let stdout = server.child.stdout.as_mut().ok_or_else(|| io::Error::other("the server has no pipes"))?;
    let mut line = String::new();
    BufReader::new(stdout).take(64).read_line(&mut line)?;
    if line.is_empty() {
        Err(io::Error::other("the server did not start"))
    } else {
        Ok(line.trim().to_owned())
    }
}

async fn run<C, R, W>(
    mut link: Link<C, R, W>,
    server: &Server,
    size: usize,
    window: usize,
    duration: Duration,
    bar: &ProgressBar,
) -> io::Result<Row>
where
    C: Codec,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: Error| io::Error::other(error.to_string());
    let payload = payload(size);
    windowed(&mut link, &payload, window, duration / 8).await.map_err(failed)?;
    let before = server.cpu();
    let (messages, elapsed) = windowed(&mut link, &payload, window, duration).await.map_err(failed)?;
    let cpu = match (before, server.cpu()) {
        (Some(before), Some(after)) => {
            Some((after.saturating_sub(before)).as_secs_f64() * 1e6 / messages as f64)
        }
        _ => None,
    };
    bar.inc(1);
    let trips = one_by_one(&mut link, &payload, duration).await.map_err(failed)?;
    bar.inc(1);
    let peak_rss_bytes = server.peak_rss();
    let _ = link.close().await;
    Ok(row(messages, elapsed, &trips, cpu, peak_rss_bytes))
}

fn row(
    messages: u64,
    elapsed: Duration,
    trips: &[u32],
    cpu: Option<f64>,
    peak_rss_bytes: Option<u64>,
) -> Row {
    Row {
        messages_per_second: messages as f64 / elapsed.as_secs_f64(),
        p50_us: f64::from(percentile(trips, 0.5)) / 1e3,
        p99_us: f64::from(percentile(trips, 0.99)) / 1e3,
        cpu_us_per_message: cpu,
        peak_rss_bytes,
    }
}

/// A ping with a pad, or only a pad where a ping does not fit.
fn payload(size: usize) -> Vec<u8> {
    const HEAD: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"pad":""#;
    const TAIL: &[u8] = br#""}}}"#;
    let Some(pad) = size.checked_sub(HEAD.len() + TAIL.len()) else { return vec![b'x'; size] };
    [HEAD, &vec![b'x'; pad], TAIL].concat()
}

fn same(message: &[u8], payload: &[u8]) -> Result<()> {
    if message == payload {
        Ok(())
    } else {
        Err(io::Error::other("the server sent something else back").into())
    }
}

/// Keeps `window` messages under way for `duration`.
async fn windowed<C, R, W>(
    link: &mut Link<C, R, W>,
    payload: &[u8],
    window: usize,
    duration: Duration,
) -> Result<(u64, Duration)>
where
    C: Codec,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let start = Instant::now();
    let mut messages = 0;
    // Large messages do not all fit on the way: what is waited for first is what has to be read to make room.
    let window = window.min((128 * 1024 / payload.len().max(1)).max(1));
    for _ in 0..window {
        link.feed(payload).await?;
    }
    let (sender, receiver) = link.halves();
    let mut under_way = window;
    let mut more = true;
    while under_way > 0 {
        sender.flush().await?;
        same(receiver.receive_lent().await?, payload)?;
        let mut arrived = 1;
        while let Some(message) = receiver.receive_ready()? {
            same(message, payload)?;
            arrived += 1;
        }
        messages += arrived as u64;
        under_way -= arrived;
        more = more && start.elapsed() < duration;
        if more {
            for _ in 0..arrived {
                sender.feed(payload).await?;
            }
            under_way += arrived;
        }
    }
    Ok((messages, start.elapsed()))
}

/// One message under way for `duration`; the round trips in ns, sorted.
async fn one_by_one<C, R, W>(link: &mut Link<C, R, W>, payload: &[u8], duration: Duration) -> Result<Vec<u32>>
where
    C: Codec,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut trips = Vec::new();
    let start = Instant::now();
    let mut sent = start;
    while sent.duration_since(start) < duration && trips.len() < MAX_SAMPLES {
        link.send(payload).await?;
        same(link.receive_lent().await?, payload)?;
        let now = Instant::now();
        trips.push(u32::try_from(now.duration_since(sent).as_nanos()).unwrap_or(u32::MAX));
        sent = now;
    }
    trips.sort_unstable();
    Ok(trips)
}

/// The pair in memory, in a process of its own so that its memory is its own, too.
fn in_memory(size: usize, window: usize, duration: Duration) -> io::Result<Row> {
    let arguments = serve::Arguments { endpoint: Endpoint::new(Address::Demo), size, window, duration };
    let mut server = Server::start(&arguments)?;
    let mut text = String::new();
    if let Some(stdout) = &mut server.child.stdout {
        stdout.take(4096).read_to_string(&mut text)?;
    }
    let value = serde_json::from_str(&text).map_err(io::Error::other)?;
    Row::from_json(&value).ok_or_else(|| io::Error::other("the server did not tell what it measured"))
}

/// Both ends of a pair in memory, on this thread; prints the row.
pub(crate) async fn memory(size: usize, window: usize, duration: Duration) -> Result<(), Failure> {
    let (mut near, mut far) = MemoryTransport::pair();
    let server = tokio::spawn(async move {
        while let Ok(frame) = poll_fn(|cx| far.poll_receive(cx)).await {
            if poll_fn(|cx| far.poll_ready(cx)).await.is_err() || far.start_send_frame(&frame).is_err() {
                break;
            }
        }
    });
    let payload = payload(size);
    let failed = |error: Error| Failure::runtime(error);
    let cpu = || {
        let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    let (start, before) = (Instant::now(), cpu());
    let mut messages = 0_u64;
    while start.elapsed() < duration {
        for _ in 0..window {
            poll_fn(|cx| near.poll_ready(cx)).await.map_err(failed)?;
            near.start_send(&payload).map_err(failed)?;
        }
        for _ in 0..window {
            let message = poll_fn(|cx| near.poll_receive(cx)).await.map_err(failed)?;
            same(&message, &payload).map_err(failed)?;
        }
        messages += window as u64;
    }
    let elapsed = start.elapsed();
    // Before the round trips: keeping those takes more memory than the pair.
    let peak = process::peak_rss("self");
    let cpu = before.zip(cpu()).map(|(before, after)| (after - before) as f64 / 1e3 / messages as f64);
    let mut trips = Vec::new();
    let start = Instant::now();
    let mut sent = start;
    while sent.duration_since(start) < duration && trips.len() < MAX_SAMPLES / 4 {
        poll_fn(|cx| near.poll_ready(cx)).await.map_err(failed)?;
        near.start_send(&payload).map_err(failed)?;
        let message = poll_fn(|cx| near.poll_receive(cx)).await.map_err(failed)?;
        same(&message, &payload).map_err(failed)?;
        let now = Instant::now();
        trips.push(u32::try_from(now.duration_since(sent).as_nanos()).unwrap_or(u32::MAX));
        sent = now;
    }
    trips.sort_unstable();
    drop(near);
    let _ = server.await;
    let row = row(messages, elapsed, &trips, cpu, peak);
    crate::cli::print(&row.json().to_string())
}
