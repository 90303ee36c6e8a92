//! The HTTP client before a server that says whatever the input says: each request is answered exactly once, by the server
//! or by an error made here, what is handed on is JSON, and closing ends. The connections are real (a Unix socket), the
//! clock is not. Input: a byte of options, a byte for the cuts, then what the server answers its requests with, one after
//! the other, set apart by lines of `===`; when there is no more, it answers nothing and hangs up.
#![no_main]

#[path = "../support/dice.rs"]
mod dice;

use std::{
    cell::Cell,
    collections::{HashMap, VecDeque},
    future::poll_fn,
    os::unix::net::UnixListener as StdListener,
    rc::Rc,
    sync::OnceLock,
    time::Duration,
};

use dice::Dice;
use framewire::{
    endpoint::Url,
    transport::{
        PollTransport,
        http::client::{HttpClient, HttpClientConfig},
    },
};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::{LocalSet, yield_now},
    time::{sleep, timeout},
};

/// Beyond all deadlines of the client, of which some follow each other.
const HANG: Duration = Duration::from_secs(7 * 24 * 3600);

/// Rounds without anything happening after which the clock may go on: as good as idle.
const ROUNDS: u32 = 30;

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

/// What the server still has to say.
struct Script {
    answers: VecDeque<Vec<u8>>,
    dice: Dice,
    hangs_up: bool,
    /// Grows whenever something happens.
    busy: Cell<u64>,
}

type Shared = Rc<std::cell::RefCell<Script>>;

/// The socket of this process; bound once.
fn place() -> &'static (StdListener, String) {
    static PLACE: OnceLock<(StdListener, String)> = OnceLock::new();
    PLACE.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("framewire-fuzz-{}", std::process::id()));
        let path = path.to_str().expect("a path").to_owned();
        drop(std::fs::remove_file(&path));
        let listener = StdListener::bind(&path).expect("a socket");
        listener.set_nonblocking(true).unwrap();
        (listener, path)
    })
}

async fn serve(mut stream: UnixStream, script: Shared) {
    let mut bytes = Vec::new();
    loop {
        // A whole request.
        loop {
            let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
            if let Some(head) = head {
                // Not all of it has to be UTF-8: ids of events come back as they were sent (RFC 9110 §5.5).
                let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
                let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
                let size = length.map_or(0, |length| length.parse().expect("a length"));
                if bytes.len() >= head + size {
                    bytes.drain(..head + size);
                    break;
                }
            }
            match stream.read_buf(&mut bytes).await {
                Ok(1..) => tick(&script),
                _ => return,
            }
        }
        let answer = script.borrow_mut().answers.pop_front();
        tick(&script);
        let Some(answer) = answer else { return };
        let mut rest = &answer[..];
        while !rest.is_empty() {
            let count = {
                let dice = &mut script.borrow_mut().dice;
                let most = [1, 50, 1 << 16][dice.roll(3)];
                (dice.roll(most) + 1).min(rest.len())
            };
            if stream.write_all(&rest[..count]).await.is_err() {
                return;
            }
            tick(&script);
            rest = &rest[count..];
            yield_now().await;
        }
        if script.borrow().hangs_up {
            return;
        }
    }
}

fn tick(script: &Shared) {
    let script = script.borrow();
    script.busy.set(script.busy.get() + 1);
}

/// Keeps the clock from running away from sockets that are about to be ready, which a paused one does.
async fn pace(script: Shared) {
    let mut pause = Duration::from_millis(1);
    loop {
        let before = script.borrow().busy.get();
        for _ in 0..ROUNDS {
            yield_now().await;
        }
        if script.borrow().busy.get() != before {
            pause = Duration::from_millis(1);
            continue;
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(60));
    }
}

async fn drive(options: u8, cuts: u8, script: &[u8]) {
    let (listener, path) = place();
    let listener = UnixListener::from_std(listener.try_clone().unwrap()).unwrap();
    // What an input before has left behind.
    while let Ok(Ok(_)) = timeout(Duration::ZERO, listener.accept()).await {}
    let answers = script.split_inclusive(|byte| *byte == b'\n').fold(VecDeque::new(), |mut all, line| {
        if all.is_empty() || line == b"===\n" {
            all.push_back(Vec::new());
        }
        if line != b"===\n" {
            all.back_mut().unwrap().extend_from_slice(line);
        }
        all
    });
    let dice = Dice(u32::from(cuts) + 1);
    let script = Script { answers, dice, hangs_up: options & 1 != 0, busy: Cell::new(0) };
    let script: Shared = Rc::new(std::cell::RefCell::new(script));
    let (serving, pacing) = (Rc::clone(&script), Rc::clone(&script));
    let accepting = tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tick(&serving);
            tokio::task::spawn_local(serve(stream, Rc::clone(&serving)));
        }
    });
    let pacing = tokio::task::spawn_local(pace(pacing));

    let config = HttpClientConfig::builder()
        .max_message_size(if options & 2 != 0 { 300 } else { 64 * 1024 })
        .one_line(options & 4 != 0)
        .response_timeout(Duration::from_secs(60));
    let url: Url = format!("http+unix:{path}:/mcp").parse().unwrap();
    let mut client = HttpClient::lazy(&url, config.build().unwrap()).unwrap();
    let stateless = options & 8 != 0;
    let meta = if stateless { META } else { "" };
    let hello = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{}}}"#;
    let mut messages = vec![
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{{meta}}}}}"#),
        format!(
            r#"{{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{{"name":"t"{}{meta}}}}}"#,
            if stateless { "," } else { "" }
        ),
    ];
    if !stateless {
        messages.splice(
            0..0,
            [hello.to_owned(), r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned()],
        );
    }
    // The answers that are still to come.
    let mut open: HashMap<String, ()> = HashMap::new();
    for message in &messages {
        let sent: Value = serde_json::from_str(message).unwrap();
        if let Some(id) = sent.get("id") {
            open.insert(id.to_string(), ());
        }
        timeout(HANG, poll_fn(|cx| client.poll_ready(cx))).await.expect("room").unwrap();
        client.start_send(message.as_bytes()).unwrap();
    }
    let mut ending = false;
    loop {
        if open.is_empty() && !ending {
            ending = true;
            timeout(HANG, poll_fn(|cx| client.poll_close_sending(cx))).await.expect("it ends").unwrap();
        }
        let received = timeout(HANG, poll_fn(|cx| client.poll_receive(cx))).await;
        let Ok(message) = received.unwrap_or_else(|_| panic!("no answer to {:?}", open.keys())) else {
            break;
        };
        let message: Value = serde_json::from_slice(&message).expect("JSON");
        let elements = match &message {
            Value::Array(elements) => &elements[..],
            one => std::slice::from_ref(one),
        };
        for element in elements {
            // What has a method is of the server's own; what has neither that nor an answer is none at all.
            if element.get("method").is_none()
                && (element.get("result").is_some() || element.get("error").is_some())
            {
                let id = element.get("id").expect("an answer has an id").to_string();
                assert!(open.remove(&id).is_some(), "answered twice, or never asked: {element}");
            }
        }
    }
    assert!(open.is_empty(), "over before {:?} were answered", open.keys());
    timeout(HANG, poll_fn(|cx| client.poll_close(cx))).await.expect("it closes").unwrap();
    drop(client);
    accepting.abort();
    pacing.abort();
}

fuzz_target!(|input: &[u8]| {
    let &[options, cuts, ref script @ ..] = input else { return };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(1)
        .start_paused(true)
        .build()
        .unwrap();
    let local = LocalSet::new();
    local.block_on(&runtime, drive(options, cuts, script));
    runtime.shutdown_background();
});
