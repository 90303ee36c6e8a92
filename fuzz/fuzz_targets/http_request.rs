//! The HTTP server: whatever bytes a client sends, however they are cut, it neither panics nor hangs, and all that it says
//! is HTTP: heads that can be read, statuses of its table, error bodies that are JSON, event streams that are event
//! streams. Input: a byte of options, a byte for the cuts, then what the client sends, in which `$S` stands for the id of
//! a session that is open.
#![no_main]

#[path = "../support/dice.rs"]
mod dice;

use std::{
    future::poll_fn,
    sync::{Arc, Mutex},
    time::Duration,
};

use dice::Dice;
use framewire::{
    json::{Envelope, Kind},
    transport::{
        PollTransport,
        http::server::{HttpServer, HttpServerConfig, HttpSession},
    },
};
use libfuzzer_sys::fuzz_target;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::{JoinHandle, yield_now},
    time::{sleep, timeout},
};

const HANG: Duration = Duration::from_secs(24 * 3600);

const EVENTS: &[u8] = b"content-type: text/event-stream";

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{}}}"#;

/// What the server may answer: its own table, and what hyper says to a head that it cannot read.
const STATUSES: [u16; 17] =
    [200, 202, 204, 400, 401, 403, 404, 405, 406, 408, 413, 414, 415, 426, 429, 431, 503];

/// A server that answers each request, some of them after a notification.
async fn program(mut session: HttpSession) {
    while let Ok(message) = poll_fn(|cx| session.poll_receive(cx)).await {
        let envelope = Envelope::peek(&message).expect("what is handed on is JSON");
        let mut answers = Vec::new();
        let mut answer = |envelope: &Envelope<'_>| {
            if envelope.kind() != Kind::Request {
                return;
            }
            let id = String::from_utf8(envelope.raw_id().expect("a request has an id").to_vec()).unwrap();
            let result = if envelope.method().is_some_and(|method| method.is("initialize")) {
                r#"{"protocolVersion":"2025-11-25","capabilities":{}}"#
            } else {
                "{\n}"
            };
            if id.len() % 2 == 0 {
                answers.push(r#"{"jsonrpc":"2.0","method":"notifications/message"}"#.to_owned());
            }
            answers.push(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#));
        };
        match envelope.kind() {
            Kind::Batch => envelope.elements().flatten().for_each(|element| answer(&element)),
            _ => answer(&envelope),
        }
        for answer in answers {
            if poll_fn(|cx| session.poll_ready(cx)).await.is_ok() {
                let _ = session.start_send(answer.as_bytes());
            }
        }
    }
}

/// Serves one end of a pipe; gives the other.
fn connect(server: &HttpServer, capacity: usize) -> (DuplexStream, JoinHandle<()>) {
    let (near, far) = tokio::io::duplex(capacity);
    let (reader, writer) = tokio::io::split(far);
    let server = server.clone();
    let serving = tokio::spawn(async move { drop(server.serve(reader, writer, "fuzz").await) });
    (near, serving)
}

async fn drive(options: u8, cuts: u8, sent: &[u8]) {
    let mut dice = Dice(u32::from(cuts) + 1);
    let mut config = HttpServerConfig::builder();
    if options & 1 != 0 {
        config = config.max_message_size(200).max_head_size(8 * 1024);
    }
    if options & 2 != 0 {
        config = config.close_streams_after(Some(Duration::from_secs(5)));
    }
    if options & 4 != 0 {
        config = config.no_legacy();
    }
    let (server, mut sessions) = HttpServer::new(config.build().unwrap());
    let accepting = tokio::spawn(async move {
        while let Some(session) = sessions.accept().await {
            tokio::spawn(program(session));
        }
    });

    // A session of its own, by a client that does everything right.
    let (mut good, _) = connect(&server, 64 * 1024);
    let hello = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n\r\n{INITIALIZE}",
        INITIALIZE.len()
    );
    good.write_all(hello.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    timeout(HANG, good.read_to_end(&mut said)).await.expect("an answer").unwrap();
    let said = String::from_utf8(said).unwrap();
    let (_, id) = said.split_once("mcp-session-id: ").expect("a session");
    let id = id.split_once("\r\n").unwrap().0;

    let mut bytes = Vec::with_capacity(sent.len() + 100);
    let mut rest = sent;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"$S") {
        bytes.extend_from_slice(&rest[..at]);
        bytes.extend_from_slice(id.as_bytes());
        rest = &rest[at + 2..];
    }
    bytes.extend_from_slice(rest);

    let capacity = [1, 100, 64 * 1024][dice.roll(3)];
    let (near, serving) = connect(&server, capacity);
    let (mut reader, mut writer) = tokio::io::split(near);
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let listening = tokio::spawn(async move {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = reader.read(&mut piece).await {
            heard.lock().unwrap().extend_from_slice(&piece[..count]);
        }
    });
    let mut rest = &bytes[..];
    let most = [1, 30, 1 << 16][dice.roll(3)];
    // While a stream is under way, what is behind its request is not read; this client gives up then.
    let mut stuck = false;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((dice.roll(most) + 1).min(rest.len()));
        match timeout(HANG, writer.write_all(piece)).await {
            Ok(Ok(())) => rest = behind,
            Ok(Err(_)) => break,
            Err(_) => {
                let said = said.lock().unwrap();
                let streams = said.windows(EVENTS.len()).any(|window| window == EVENTS);
                assert!(streams, "neither read nor refused: {}", String::from_utf8_lossy(&said));
                stuck = true;
                break;
            }
        }
        if dice.roll(3) == 0 {
            yield_now().await;
        }
    }
    // All that can be answered is; or the deadlines pass.
    sleep(Duration::from_secs(if options & 8 != 0 { 1 } else { 300 })).await;
    drop(writer.shutdown().await);
    if stuck {
        listening.abort();
    }
    timeout(HANG, serving).await.expect("a connection ends").expect("no panic");
    let heard = timeout(HANG, listening).await.expect("a connection ends");
    assert!(stuck || heard.is_ok());
    server.shutdown();
    drop(server);
    timeout(HANG, accepting).await.expect("no session is left behind").expect("no panic");

    let http2 = bytes.starts_with(b"PRI * HTTP/2.0");
    if !http2 {
        let said = said.lock().unwrap();
        let heads = bytes.windows(5).any(|window| window == b"HEAD ");
        // What hyper could not write yet is lost when it cannot read the next head.
        check(&said, heads, stuck || capacity < 64 * 1024);
    }
}

/// Takes apart all that the server has said. `heads`: a request may have asked for the head only; `cut`: the last answer
/// may be cut short.
fn check(mut said: &[u8], heads: bool, cut: bool) {
    while !said.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut fields);
        let size = match head.parse(said) {
            Ok(httparse::Status::Complete(size)) => size,
            Ok(httparse::Status::Partial) if cut => return,
            other => panic!("{other:?}: {}", String::from_utf8_lossy(said)),
        };
        let status = head.code.unwrap();
        if status == 100 {
            said = &said[size..];
            continue;
        }
        if status == 101 {
            // What follows is a WebSocket's.
            return;
        }
        assert!(STATUSES.contains(&status), "{status}");
        let field = |name: &str| {
            let mut values = head.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            let value = values.next().map(|header| std::str::from_utf8(header.value).expect("text"));
            assert!(values.next().is_none(), "{name} twice");
            value
        };
        let (kind, length) = (field("content-type"), field("content-length"));
        let chunked = field("transfer-encoding");
        assert!(length.is_none() || chunked.is_none(), "two lengths");
        said = &said[size..];
        let no_body = status == 204 || (heads && (said.is_empty() || said.starts_with(b"HTTP/1.")));
        let body = match (length, chunked) {
            _ if no_body => continue,
            (Some(length), _) => {
                let length = length.parse().expect("a length");
                if cut && said.len() < length {
                    return;
                }
                let (body, behind) = said.split_at(length);
                said = behind;
                body.to_vec()
            }
            (None, Some(coding)) => {
                assert_eq!(coding, "chunked");
                match unchunk(said) {
                    Some((body, behind)) => {
                        said = behind;
                        body
                    }
                    None if cut => return,
                    None => panic!("half a chunk: {}", String::from_utf8_lossy(said)),
                }
            }
            // HTTP/1.0: until the connection ends.
            (None, None) => std::mem::take(&mut said).to_vec(),
        };
        match kind {
            Some("text/event-stream") => {
                assert_eq!(status, 200);
                events(&body);
            }
            Some("application/json") => {
                serde_json::from_slice::<serde_json::Value>(&body).expect("JSON");
            }
            // hyper's own, to a head that it cannot read, and what has nothing to say.
            None => assert!(body.is_empty() && matches!(status, 202 | 204 | 400 | 414 | 431), "{status}"),
            Some(other) => panic!("{other}"),
        }
    }
}

/// A chunked body, as far as it has come in whole chunks, and what is behind it; `None` when it ends within one.
fn unchunk(mut said: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    while !said.is_empty() {
        let at = said.windows(2).position(|pair| pair == b"\r\n")?;
        let size =
            usize::from_str_radix(std::str::from_utf8(&said[..at]).expect("a size"), 16).expect("a size");
        let (chunk, behind) = said[at + 2..].split_at_checked(size)?;
        body.extend_from_slice(chunk);
        said = match behind {
            [b'\r', b'\n', behind @ ..] => behind,
            [] | [b'\r'] => return None,
            _ => panic!("no end of a chunk: {}", String::from_utf8_lossy(behind)),
        };
        if size == 0 {
            break;
        }
    }
    Some((body, said))
}

fn events(body: &[u8]) {
    let text = std::str::from_utf8(body).expect("UTF-8");
    assert!(text.is_empty() || text.ends_with("\n\n"), "{text}");
    let mut endpoint = false;
    for line in text.lines() {
        match line.split_once(':') {
            Some(("data", "" | " ")) => {}
            Some(("data", data)) if endpoint => assert!(data.starts_with(" /"), "{data}"),
            Some(("data", data)) => {
                serde_json::from_str::<serde_json::Value>(data).expect("JSON");
            }
            Some(("event", " endpoint")) => endpoint = true,
            Some(("event", name)) => assert_eq!(name, " message"),
            Some(("id" | "retry" | "", _)) => {}
            None => {
                assert_eq!(line, "");
                endpoint = false;
            }
            other => panic!("{other:?}"),
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let &[options, cuts, ref sent @ ..] = input else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(drive(options, cuts, sent));
});
