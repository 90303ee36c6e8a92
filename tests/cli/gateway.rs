//! The gateway as the command has it: sessions over HTTP, children that die, backends that are shared.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    thread,
    time::Instant,
};

use serde_json::{Value, json};

use crate::harness::{Bridge, LIMIT, alive, eventually, run, signal};

const HELLO: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"test","version":"1"}}}"#;

/// An answer over HTTP.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    /// The last message, of JSON or of an event stream.
    fn message(&self) -> Value {
        let text = self.body.lines().filter_map(|line| line.strip_prefix("data:")).next_back();
        serde_json::from_str(text.unwrap_or(&self.body).trim())
            .unwrap_or_else(|error| panic!("{error}: {} {:?}", self.status, self.body))
    }
}

/// One request on a connection of its own.
fn request(port: u16, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let host = if headers.contains("Host:") { "" } else { "Host: localhost\r\n" };
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\n{host}Connection: close\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answer = Answer { status, head: head.to_owned(), body: body.to_owned() };
    if answer.header("transfer-encoding").is_some() {
        answer.body = unchunked(body);
    }
    answer
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        body.push_str(&after[..size]);
        rest = &after[(size + 2).min(after.len())..];
        if size == 0 {
            break;
        }
    }
    body
}

/// A call that is under way for certain: the server has said so by a first notification of progress.
struct Call(TcpStream, String);

impl Call {
    /// The answer, once the stream has ended.
    fn answer(mut self) -> Value {
        self.0.read_to_string(&mut self.1).unwrap();
        let (_, body) = self.1.split_once("\r\n\r\n").unwrap();
        Answer { status: 200, head: String::new(), body: unchunked(body) }.message()
    }
}

/// A client with a session.
#[derive(Clone)]
struct Session {
    port: u16,
    headers: String,
}

impl Session {
    fn open(port: u16) -> Self {
        let answer = request(port, "POST", "/mcp", "", HELLO);
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.message()["id"], 1);
        let id = answer.header("mcp-session-id").expect("a session id").to_owned();
        let headers = format!("Mcp-Session-Id: {id}\r\nMCP-Protocol-Version: 2025-11-25\r\n");
        let session = Self { port, headers };
        let answer = session.post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        assert_eq!((answer.status, &*answer.body), (202, ""));
        session
    }

    fn post(&self, body: &str) -> Answer {
        request(self.port, "POST", "/mcp", &self.headers, body)
    }

    /// Begins to sleep for so many seconds; ten times in them there is progress.
    fn sleep(&self, id: Value, seconds: f64) -> Call {
        let params =
            json!({ "name": "sleep", "arguments": { "seconds": seconds }, "_meta": { "progressToken": 1 } });
        let body =
            json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let (headers, length) = (&self.headers, body.len());
        let request = format!(
            "POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        while !String::from_utf8_lossy(&bytes).contains("slept 1 of") {
            let mut byte = [0; 256];
            let count = stream.read(&mut byte).unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&byte[..count]);
        }
        Call(stream, String::from_utf8(bytes).unwrap())
    }

    fn call(&self, id: Value, tool: &str, arguments: Value) -> Value {
        let params = json!({ "name": tool, "arguments": arguments });
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
        self.post(&message.to_string()).message()
    }
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

fn http_port(bridge: &Bridge) -> u16 {
    let endpoint = bridge.endpoints.iter().find(|endpoint| endpoint.starts_with("http:")).unwrap();
    endpoint.trim_end_matches("/mcp").rsplit(':').next().unwrap().parse().unwrap()
}

/// A server that is a process of its own and leaves its number in a file of `directory` for each start.
fn server(directory: &Path) -> String {
    format!(
        "exec:sh -c 'echo $$ >> {}/pids; exec {} bridge --listen stdio: --connect demo:'",
        directory.display(),
        env!("CARGO_BIN_EXE_framewire")
    )
}

fn pids(directory: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(directory.join("pids")).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn each_session_has_a_child_that_ends_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let bridge =
        Bridge::start(1, &["--listen", "http://127.0.0.1:0/mcp", "--connect", &server(directory.path())]);
    let port = http_port(&bridge);
    let sessions = [Session::open(port), Session::open(port)];
    for (at, session) in sessions.iter().enumerate() {
        let said = format!("session {at}");
        // The same id in both, and one that no double can hold.
        let id: Value = serde_json::from_str("9007199254740993").unwrap();
        let answer = session.call(id.clone(), "echo", json!({ "message": said }));
        assert_eq!((text(&answer), &answer["id"]), (&*said, &id));
    }
    let pids = pids(directory.path());
    assert_eq!(pids.len(), 2);
    let [first, second] = &sessions;
    let answer = request(port, "DELETE", "/mcp", &first.headers, "");
    assert!((200..300).contains(&answer.status), "{}", answer.status);
    assert_eq!(first.post(r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#).status, 404);
    eventually("its child ends", || pids.iter().filter(|pid| alive(**pid)).count() == 1);
    assert_eq!(text(&second.call(json!("s"), "add", json!({ "a": 2, "b": 40 }))), "42");
}

#[test]
fn a_child_that_dies_is_told_of_at_once_and_started_again() {
    for shared in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let server = server(directory.path());
        let mut arguments = vec!["--listen", "http://127.0.0.1:0/mcp", "--connect", &server];
        if shared {
            arguments.push("--shared");
        }
        let mut bridge = Bridge::start(1, &arguments);
        let port = http_port(&bridge);
        let session = Session::open(port);
        let began = Instant::now();
        let call = session.sleep(json!("late"), 25.0);
        signal(pids(directory.path())[0], "KILL");
        let answer = call.answer();
        assert!(began.elapsed() < LIMIT);
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("late"), &json!(-32000)), "{answer}");
        // The same session goes on: its handshake is replayed.
        assert_eq!(text(&session.call(json!(7), "echo", json!({ "message": "again" }))), "again");
        assert_eq!(pids(directory.path()).len(), 2);
        assert_eq!(request(port, "GET", "/readyz", "", "").status, 200);
        bridge.signal("TERM");
        assert_eq!(bridge.code(), 0);
        eventually("no child is left", || pids(directory.path()).iter().all(|pid| !alive(*pid)));
    }
}

#[test]
fn probes_are_told_of_a_server_that_does_not_come_up() {
    for (shared, command) in [(false, "exit 1"), (true, "exit 1"), (false, "exec /no/such/file")] {
        let mut arguments = vec!["--listen", "http://127.0.0.1:0/mcp"];
        if shared {
            arguments.push("--shared");
        }
        arguments.extend(["--", "sh", "-c", command]);
        let bridge = Bridge::start(1, &arguments);
        let port = http_port(&bridge);
        let answer = request(port, "POST", "/mcp", "", HELLO);
        assert_eq!(answer.message()["error"]["code"], json!(-32000), "{}", answer.body);
        // Each time that it is tried again it may yet come up.
        eventually("not ready", || request(port, "GET", "/readyz", "", "").status == 503);
        assert_eq!(request(port, "GET", "/healthz", "", "").status, 200);
    }
}

#[test]
fn clients_that_hang_up_are_no_sign_of_a_server_that_does_not_come_up() {
    // Such a one fails when its input ends, and has had no time to answer before.
    let arguments = [
        "--listen",
        "http://127.0.0.1:0/mcp",
        "--listen",
        "tcp://127.0.0.1:0",
        "--restart",
        "--",
        "sh",
        "-c",
        "cat > /dev/null; exit 1",
    ];
    for said in ["", HELLO] {
        let mut bridge = Bridge::start(2, &arguments);
        let mut client = TcpStream::connect(("127.0.0.1", bridge.port())).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client.write_all(format!("{said}\n").as_bytes()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        client.read_to_string(&mut String::new()).unwrap();
        bridge.log_line("\"message\":\"closed\"");
        assert_eq!(request(http_port(&bridge), "GET", "/readyz", "", "").status, 200, "{said}");
    }
}

/// Answers `initialize` and, after a second, calls; ends with its input, whatever it has under way.
const HASTY: &str = r#"
while read -r line; do
  id=$(echo "$line" | sed 's/.*"id":\([0-9]*\).*/\1/')
  case "$line" in
    *'"initialize"'*) echo '{"jsonrpc":"2.0","id":'$id',"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"hasty","version":"1"}}}';;
    *'"sleep"'*)
      token=$(echo "$line" | sed 's/.*"progressToken":\([0-9]*\).*/\1/')
      echo '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":'$token',"progress":1,"message":"slept 1 of 2"}}'
      { sleep 1; echo '{"jsonrpc":"2.0","id":'$id',"result":{"slept":true}}'; } & ;;
  esac
done
kill $!
"#;

#[test]
fn a_websocket_on_the_port_of_http_is_compressed_unless_told_not_to() {
    for (arguments, compressed) in [(&[][..], true), (&["--no-deflate"], false)] {
        let mut words = vec!["--listen", "http://127.0.0.1:0/mcp", "--connect", "demo:"];
        words.extend(arguments);
        let bridge = Bridge::start(1, &words);
        let mut stream = TcpStream::connect(("127.0.0.1", http_port(&bridge))).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let request = "GET /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101"), "{head}");
        assert_eq!(head.contains("sec-websocket-extensions"), compressed, "{head}");
    }
}

#[test]
fn what_is_under_way_is_answered_before_the_input_of_a_server_is_closed() {
    for shared in [false, true] {
        let mut arguments = vec!["--listen", "http://127.0.0.1:0/mcp", "--drain-timeout", "60s"];
        if shared {
            arguments.push("--shared");
        }
        arguments.extend(["--", "sh", "-c", HASTY]);
        let mut bridge = Bridge::start(1, &arguments);
        let session = Session::open(http_port(&bridge));
        let call = session.sleep(json!(2), 1.0);
        bridge.signal("TERM");
        let answer = call.answer();
        assert_eq!((&answer["id"], &answer["result"]["slept"]), (&json!(2), &json!(true)), "{answer}");
        assert_eq!(bridge.code(), 0);
    }
}

#[test]
fn so_is_what_came_over_a_byte_stream_or_a_websocket() {
    const CALL: &str = r#"{"jsonrpc":"2.0","id":2,"method":"sleep","params":{"_meta":{"progressToken":7}}}"#;
    let kept = |address: &str, flag: Option<&str>| {
        let mut arguments = vec!["--listen", address, "--drain-timeout", "60s"];
        arguments.extend(flag);
        arguments.extend(["--", "sh", "-c", HASTY]);
        Bridge::start(1, &arguments)
    };
    for flag in [None, Some("--restart"), Some("--shared")] {
        let mut bridge = kept("tcp://127.0.0.1:0", flag);
        let mut client = bridge.connect();
        client.ask(HELLO);
        // The first answer is the progress: the call is under way.
        client.ask(CALL);
        bridge.signal("TERM");
        let answer: Value = serde_json::from_slice(&client.line()).unwrap();
        assert_eq!((&answer["id"], &answer["result"]["slept"]), (&json!(2), &json!(true)), "{answer}");
        assert!(client.rest().is_empty());
        assert_eq!(bridge.code(), 0);

        let mut bridge = kept("ws://127.0.0.1:0", flag);
        let url = &bridge.endpoints[0];
        let address = url.trim_start_matches("ws://").trim_end_matches('/');
        let stream = TcpStream::connect(address).unwrap();
        let (mut socket, _) = tungstenite::client(url, stream).map_err(|error| error.to_string()).unwrap();
        let mut ask = |message: &str| {
            socket.send(message.into()).unwrap();
            socket.read().unwrap()
        };
        ask(HELLO);
        ask(CALL);
        bridge.signal("TERM");
        let answer: Value = serde_json::from_slice(&socket.read().unwrap().into_data()).unwrap();
        assert_eq!((&answer["id"], &answer["result"]["slept"]), (&json!(2), &json!(true)), "{answer}");
        assert!(socket.read().unwrap().is_close());
        while socket.read().is_ok() {}
        assert_eq!(bridge.code(), 0);
    }
}

#[test]
fn who_is_cut_off_is_told() {
    let arguments =
        ["tap", "--listen", "http://127.0.0.1:0/mcp", "--drain-timeout", "500ms", "--", "sh", "-c", HASTY];
    // Several, as the end of the process has to come in between.
    let mut bridges: Vec<_> = (0..8).map(|_| Bridge::start(1, &arguments)).collect();
    let calls: Vec<_> = bridges
        .iter_mut()
        .map(|bridge| {
            let session = Session::open(http_port(bridge));
            let call = thread::spawn(move || session.call(json!(2), "never answered", json!({})));
            bridge.log_line("never answered");
            bridge.signal("TERM");
            call
        })
        .collect();
    for (bridge, call) in bridges.iter_mut().zip(calls) {
        let answer = call.join().unwrap();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(2), &json!(-32603)), "{answer}");
        assert_eq!(bridge.code(), 1);
    }
}

#[test]
fn a_server_that_ends_because_it_is_asked_to_is_no_news() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(directory.path());
    let mut bridge = Bridge::start(1, &["--listen", "http://127.0.0.1:0/mcp", "--connect", &server]);
    Session::open(http_port(&bridge));
    bridge.signal("TERM");
    bridge.log_line("\"message\":\"closed\"");
    assert!(bridge.logged.iter().all(|line| !line.contains("WARN")), "{:#?}", bridge.logged);
}

#[test]
fn an_answer_that_is_too_large_is_told_of() {
    for shared in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let server = server(directory.path());
        let mut arguments =
            vec!["--listen", "http://127.0.0.1:0/mcp", "--max-message-size", "64KiB", "--connect", &server];
        if shared {
            arguments.push("--shared");
        }
        let bridge = Bridge::start(1, &arguments);
        let session = Session::open(http_port(&bridge));
        let answer = session.call(json!("big"), "big", json!({ "bytes": 200_000 }));
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("big"), &json!(-32603)), "{answer}");
        assert_eq!(text(&session.call(json!(7), "echo", json!({ "message": "next" }))), "next");
    }
}

#[test]
fn shared_backends_keep_clients_apart() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(directory.path());
    let bridge = Bridge::start(
        2,
        &[
            "--listen",
            "http://127.0.0.1:0/mcp",
            "--listen",
            "tcp://127.0.0.1:0",
            "--shared",
            "--connect",
            &server,
        ],
    );
    let port = http_port(&bridge);
    let threads: Vec<_> = (0..8)
        .map(|client| {
            thread::spawn(move || {
                let session = Session::open(port);
                for call in 0..5 {
                    let said = format!("{client}/{call}");
                    let answer = session.call(json!(call), "echo", json!({ "message": said }));
                    assert_eq!((text(&answer), &answer["id"]), (&*said, &json!(call)));
                }
            })
        })
        .collect();
    let mut stream = bridge.connect();
    assert_eq!(stream.ask(HELLO)["result"]["protocolVersion"], "2025-11-25");
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(pids(directory.path()).len(), 1, "one server for all");
}

#[test]
fn clients_on_byte_streams_survive_their_child_on_request() {
    let directory = tempfile::tempdir().unwrap();
    let server = server(directory.path());
    let bridge = Bridge::start(1, &["--listen", "tcp://127.0.0.1:0", "--restart", "--connect", &server]);
    let mut client = bridge.connect();
    assert_eq!(client.ask(HELLO)["id"], 1);
    client.send(
        b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n\
          {\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/call\",\"params\":{\"name\":\"sleep\",\"arguments\":{\"seconds\":25},\"_meta\":{\"progressToken\":1}}}\n",
    );
    let progress: Value = serde_json::from_slice(&client.line()).unwrap();
    assert_eq!(progress["method"], "notifications/progress");
    signal(pids(directory.path())[0], "KILL");
    let answer: Value = serde_json::from_slice(&client.line()).unwrap();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(2), &json!(-32000)), "{answer}");
    let call =
        r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"add","arguments":{"a":1,"b":1}}}"#;
    assert_eq!(text(&client.ask(call)), "2");
}

#[test]
fn who_may_not_is_refused_before_anything_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    let path = token.to_str().unwrap();
    let arguments = ["--listen", "http://127.0.0.1:0/mcp", "--token-file", path, "--connect", "demo:"];
    for (wrong, reason) in [("\n", "is empty"), ("one\ntwo\n", "is one line"), ("one two", "no blanks")] {
        std::fs::write(&token, wrong).unwrap();
        let (code, _, stderr) = run(&[&["bridge"], &arguments[..]].concat(), b"");
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains(reason), "{stderr}");
    }
    std::fs::write(&token, "secret\n").unwrap();
    let bridge = Bridge::start(1, &arguments);
    let port = http_port(&bridge);
    let shown = "Authorization: Bearer secret\r\n";
    for (headers, path, status) in [
        (format!("{shown}Host: evil.example\r\n"), "/mcp", 403),
        (format!("{shown}Origin: https://evil.example\r\n"), "/mcp", 403),
        (String::new(), "/mcp", 401),
        ("Authorization: Bearer secres\r\n".to_owned(), "/mcp", 401),
        (shown.to_owned(), "/other", 404),
        (shown.to_owned(), "/mcp", 200),
        (format!("{shown}Origin: http://localhost:3000\r\n"), "/mcp", 200),
    ] {
        let answer = request(port, "POST", path, &headers, HELLO);
        assert_eq!(answer.status, status, "{headers}{path}: {}", answer.body);
        if status != 200 {
            assert!(serde_json::from_str::<Value>(&answer.body).is_ok(), "JSON: {}", answer.body);
        }
    }
    assert_eq!(request(port, "GET", "/healthz", "", "").status, 200);
}

#[test]
fn stdio_in_front_and_http_behind_pass_what_is_said() {
    let bridge = Bridge::start(1, &["--listen", "http://127.0.0.1:0/mcp", "--connect", "demo:"]);
    let url = format!("http://127.0.0.1:{}/mcp", http_port(&bridge));
    let lines = [
        HELLO,
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","id":12345678901234567890,"method":"tools/call","params":{"name":"add","arguments":{"a":2,"b":40}}}"#,
    ];
    let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let (code, stdout, stderr) = run(&["bridge", "--listen", "stdio:", "--connect", &url], input.as_bytes());
    assert_eq!(code, 0, "{stderr}");
    let answers: Vec<Value> =
        stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(answers.len(), 2, "{stderr}");
    assert_eq!(text(&answers[1]), "42");
    assert!(String::from_utf8_lossy(&stdout).contains("12345678901234567890"), "ids keep all their digits");

    let (code, _, stderr) =
        run(&["bridge", "--listen", "stdio:", "--connect", "http://127.0.0.1:1/mcp"], b"");
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains("cannot connect to http://127.0.0.1:1/mcp"), "{stderr}");
}

#[test]
fn what_is_under_way_is_answered_before_the_end() {
    let mut bridge = Bridge::start(1, &["--listen", "http://127.0.0.1:0/mcp", "--connect", "demo:"]);
    let session = Session::open(http_port(&bridge));
    let call = session.sleep(json!(5), 2.0);
    bridge.signal("TERM");
    let answer = call.answer();
    assert!(answer["result"].is_object(), "{answer}");
    assert_eq!(bridge.code(), 0);
}

#[test]
fn a_file_says_it_all() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.toml");
    let text =
        "listen = \"http://127.0.0.1:0/mcp\"\nconnect = \"demo:\"\nshared = 2\nmax-message-size = \"1KiB\"\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let bridge = Bridge::start(1, &["--config", file]);
    let session = Session::open(http_port(&bridge));
    let long = "x".repeat(2000);
    let message = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{long}"}}"#);
    assert_eq!(session.post(&message).status, 413);
    let (code, printed, _) = run(&["bridge", "--config", file, "--shared=3", "--print-config"], b"");
    let printed = String::from_utf8(printed).unwrap();
    assert_eq!(code, 0);
    for line in ["listen = [\"http://127.0.0.1:0/mcp\"]", "shared = 3", "max-message-size = \"1KiB\""] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
}
