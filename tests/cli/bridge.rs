use std::{
    io::{BufRead, Read, Write},
    net::{TcpListener, TcpStream},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use crate::harness::{Bridge, Client, LIMIT, eventually, framewire, run, wait};

const ECHO: &[&str] = &["--listen", "tcp://127.0.0.1:0", "--connect", "echo:"];
const DEMO: &[&str] = &["--listen", "tcp://127.0.0.1:0", "--connect", "demo:"];
const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

/// Lines that a program which looks into messages would change.
fn odd_lines() -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = vec![
        br#"{"id":9007199254740993,"n":1e400,"x":1.0,"x":-0,"y":"\u0041\/"}"#.to_vec(),
        b" \t{ \"spaced\" : [ ] }  ".to_vec(),
        b"\xff\xfe not UTF-8 \x80\x00\x01\x1b[31m".to_vec(),
        "{\"text\":\"\u{2028}\u{feff}é\u{1f600}\"}".as_bytes().to_vec(),
        b"inner\rreturn".to_vec(),
        (0..=255).filter(|byte| *byte != b'\n' && *byte != b'\r').collect(),
    ];
    lines.push(b"x".repeat(1 << 20));
    lines.extend((0..500).map(|n| format!("{{\"id\":{n}}}").into_bytes()));
    lines
}

#[test]
fn bytes_pass_unchanged_through_every_kind_of_end() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("echo");
    let path = format!("unix:{}", socket.display());
    let _far = Bridge::start(1, &["--listen", &path, "--connect", "exec:cat"]);
    let near = Bridge::start(1, &["--listen", "tcp://127.0.0.1:0", "--connect", &path]);
    let lines = odd_lines();

    let mut client = near.connect();
    let mut writer = client.writer.try_clone().unwrap();
    let sent: Vec<u8> = lines.iter().flat_map(|line| [line, &b"\n"[..]].concat()).collect();
    let expected = sent.clone();
    let sending = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    assert!(client.rest() == expected, "bytes in are bytes out");
    sending.join().unwrap();

    let (code, stdout, stderr) = run(&["bridge", "--listen", "stdio:", "--connect", &path], &expected);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout == expected, "over stdio, too");
}

#[cfg(target_os = "linux")]
#[test]
fn abstract_sockets_join_too() {
    let path = format!("unix:@framewire-cli-{}", std::process::id());
    let far = Bridge::start(1, &["--listen", &path, "--connect", "echo:"]);
    assert_eq!(far.endpoints, [path.as_str()]);
    let (code, stdout, stderr) = run(&["bridge", "--listen", "stdio:", "--connect", &path], b"hello\n");
    assert_eq!((code, &stdout[..]), (0, &b"hello\n"[..]), "{stderr}");
}

#[test]
fn the_demo_server_answers() {
    let bridge = Bridge::start(1, DEMO);
    let mut client = bridge.connect();
    let hello = client.ask(
        r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#,
    );
    assert_eq!(hello["result"]["protocolVersion"], "2025-06-18");
    client.send(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n");
    let tools = client.ask(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    let names: Vec<_> =
        tools["result"]["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    assert_eq!(names, ["echo", "add", "sleep", "big"]);
    let sum = client.ask(
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"add","arguments":{"a":9007199254740993,"b":1}}}"#,
    );
    assert_eq!(sum["result"]["content"][0]["text"], "9007199254740994");
    let big = client.ask(
        r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"big","arguments":{"bytes":3000000}}}"#,
    );
    assert_eq!(big["result"]["content"][0]["text"].as_str().unwrap().len(), 3_000_000);
    // A slow call does not hold the next one back, and is still answered after the client's last word.
    client.send(
        b"{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"tools/call\",\"params\":{\"name\":\"sleep\",\"arguments\":{\"seconds\":0.5}}}\n",
    );
    assert_eq!(client.ask(r#"{"jsonrpc":"2.0","id":5,"method":"ping"}"#)["id"], 5);
    client.writer.shutdown(std::net::Shutdown::Write).unwrap();
    let last: serde_json::Value = serde_json::from_slice(&client.rest()).unwrap();
    assert_eq!(last["id"], 4);
}

#[test]
fn many_clients_are_served_at_once_and_never_mixed() {
    let bridge = Bridge::start(1, ECHO);
    let clients: Vec<_> = (0..50)
        .map(|number| {
            let mut client = bridge.connect();
            thread::spawn(move || {
                for round in 0..20 {
                    let message = format!("{{\"client\":{number},\"round\":{round}}}");
                    client.send(format!("{message}\n").as_bytes());
                    assert_eq!(client.line(), message.as_bytes());
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}

#[test]
fn several_listeners_share_one_backend() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let path = format!("unix:{}", socket.display());
    let bridge =
        Bridge::start(2, &["--listen", "tcp://127.0.0.1:0", "--listen", &path, "--connect", "demo:"]);
    assert_eq!(bridge.connect().ask(PING)["id"], 1);
    assert_eq!(Client::unix(&socket).ask(PING)["id"], 1);
}

#[test]
fn connections_beyond_the_limit_are_refused_and_room_comes_back() {
    let mut bridge = Bridge::start(1, &[ECHO, &["--max-connections", "2"]].concat());
    let mut first = bridge.connect();
    let mut second = bridge.connect();
    first.send(b"a\n");
    second.send(b"b\n");
    assert_eq!((first.line(), second.line()), (b"a".to_vec(), b"b".to_vec()));
    let mut third = bridge.connect();
    assert!(third.line().is_empty(), "closed at once");
    bridge.log_line("refused");
    drop(first);
    bridge.log_line("\"message\":\"closed\"");
    eventually("there is room again", || {
        let mut fourth = bridge.connect();
        let _ = fourth.writer.write_all(b"d\n");
        let mut line = String::new();
        fourth.reader.read_line(&mut line).is_ok() && line == "d\n"
    });
}

#[test]
fn an_overlong_line_is_dropped_with_its_size_and_the_next_one_passes() {
    let mut bridge = Bridge::start(1, &[ECHO, &["--max-message-size", "1KiB"]].concat());
    let mut client = bridge.connect();
    client.send(&[&b"y".repeat(1024)[..], b"\n", &b"x".repeat(200_000), b"\nok\n"].concat());
    assert!(client.line() == b"y".repeat(1024), "exactly the limit passes");
    let next = client.line();
    assert!(next == b"ok", "the next line passes, not one of {} bytes", next.len());
    let line = bridge.log_line("exceeds the limit");
    assert!(line.contains("200000 bytes") && line.contains("\"from\":\"client\""), "{line}");
    assert!(!line.contains("xxx"), "peer bytes stay out of the log");
}

#[test]
fn framing_is_converted_in_every_direction() {
    let encode = |framing: &str, payload: &[u8]| match framing {
        "newline" => [payload, b"\n"].concat(),
        "length" => [&u32::try_from(payload.len()).unwrap().to_be_bytes()[..], payload].concat(),
        _ => [format!("Content-Length: {}\r\n\r\n", payload.len()).as_bytes(), payload].concat(),
    };
    let framings = ["newline", "length", "content-length"];
    for near in framings {
        for far in framings {
            // The backend sends back what it gets, framing included, so both conversions are seen.
            let connect = format!("exec?framing={far}:cat");
            let listen = format!("tcp://127.0.0.1:0?framing={near}");
            let bridge = Bridge::start(1, &["--listen", &listen, "--connect", &connect]);
            let mut client = bridge.connect();
            let mut expected = Vec::new();
            for payload in [PING.as_bytes(), b"\xff\x00 odd", &b"z".repeat(100_000)] {
                let bytes = encode(near, payload);
                client.send(&bytes);
                expected.extend(bytes);
            }
            client.writer.shutdown(std::net::Shutdown::Write).unwrap();
            assert!(client.rest() == expected, "{near} to {far}");
        }
    }
}

#[test]
fn a_message_that_the_other_framing_cannot_carry_is_dropped_and_told() {
    let mut bridge =
        Bridge::start(1, &["--listen", "tcp://127.0.0.1:0?framing=length", "--connect", "exec:cat"]);
    let mut client = bridge.connect();
    client.send(b"\0\0\0\x03a\nb\0\0\0\x02ok");
    let mut got = [0; 6];
    client.reader.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"\0\0\0\x02ok");
    bridge.log_line("message holds a newline at byte 1");
}

#[test]
fn json_on_many_lines_reaches_who_reads_a_message_per_line() {
    let lines = "{\"jsonrpc\":\"2.0\",\n\t\"id\":1,\r\n \"method\":\"ping\"}";
    let one = lines.replace(['\r', '\n'], " ");
    // To the backend, which sends back what it gets, and what no string may hold is refused.
    let (code, stdout, stderr) = run(
        &["bridge", "--listen", "stdio:?framing=json", "--connect", "exec:cat"],
        format!("{lines}\"a\nb\"{PING}").as_bytes(),
    );
    assert_eq!((code, String::from_utf8(stdout).unwrap()), (0, format!("{one}\n{PING}\n")), "{stderr}");
    assert!(stderr.contains("holds a newline"), "{stderr}");
    // And to the client.
    let directory = tempfile::tempdir().unwrap();
    let said = directory.path().join("said");
    let sized = [&u32::try_from(lines.len()).unwrap().to_be_bytes(), lines.as_bytes()].concat();
    for (framing, bytes, extra) in [("json", lines.as_bytes(), &[][..]), ("length", &sized, &["--validate"])]
    {
        std::fs::write(&said, bytes).unwrap();
        let connect = format!("exec?framing={framing}:cat {}", said.to_str().unwrap());
        let (code, stdout, stderr) =
            run(&[&["bridge", "--listen", "stdio:", "--connect", &connect], extra].concat(), b"");
        assert_eq!((code, String::from_utf8(stdout).unwrap()), (0, format!("{one}\n")), "{stderr}");
    }
}

#[test]
fn an_answer_over_http_on_many_lines_reaches_a_client_on_stdio() {
    let answer = "{\n  \"jsonrpc\": \"2.0\",\n  \"id\": 7,\n  \"result\": {}\n}";
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let serving = thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\"ping\"}") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        let head = format!("content-type: application/json\r\ncontent-length: {}", answer.len());
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{answer}").as_bytes()).unwrap();
        // Until the other end closes.
        let _ = stream.read(&mut [0]);
    });
    let connect = format!("http://127.0.0.1:{port}/mcp");
    let ping = "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\"}\n";
    let (code, stdout, stderr) =
        run(&["bridge", "--listen", "stdio:", "--connect", &connect], ping.as_bytes());
    let expected = format!("{}\n", answer.replace('\n', " "));
    assert_eq!((code, String::from_utf8(stdout).unwrap()), (0, expected), "{stderr}");
    serving.join().unwrap();
}

#[test]
fn two_outgoing_ends_are_joined_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let mut bridge = Bridge::start(0, &["--connect", &endpoint, "--connect", "demo:"]);
    let mut client = Client::new(listener.accept().unwrap().0);
    assert_eq!(client.ask(PING)["id"], 1);
    drop(client);
    assert_eq!(bridge.code(), 0);
}

#[test]
fn what_came_before_the_end_is_delivered_before_the_end() {
    // The backend says its last word, then closes: the client gets both.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let bridge = Bridge::start(1, &["--listen", "tcp://127.0.0.1:0", "--connect", &endpoint]);
    let mut client = bridge.connect();
    let (mut backend, _) = listener.accept().unwrap();
    client.send(b"unread by the backend\n");
    thread::sleep(Duration::from_millis(50));
    let words = b"word\n".repeat(20_000);
    backend.write_all(&words).unwrap();
    backend.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(client.rest() == words);
}

#[test]
fn a_client_that_does_not_read_holds_back_only_itself() {
    let bridge = Bridge::start(1, ECHO);
    let stuck = bridge.connect();
    let mut writer: TcpStream = stuck.writer.try_clone().unwrap();
    writer.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let chunk = b"0123456789abcde\n".repeat(4096);
    let mut written = 0_usize;
    while writer.write_all(&chunk).is_ok() {
        written += chunk.len();
        assert!(written < 256 << 20, "the bridge must not buffer without bound");
    }
    let mut other = bridge.connect();
    other.send(b"quick\n");
    assert_eq!(other.line(), b"quick");
}

/// Slow-loris: a byte now and then, so that the connection is never silent.
#[test]
fn a_client_that_trickles_a_message_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let path = format!("unix:{}", socket.display());
    let mut bridge = Bridge::start(2, &[ECHO, &["--listen", &path, "--frame-timeout", "300ms"]].concat());
    for on_unix in [false, true] {
        let begin = Instant::now();
        let mut stalled = false;
        let mut trickle = |write: &mut dyn Write| {
            // One message in time, then one that never ends.
            write.write_all(b"whole\n").unwrap();
            while !stalled && begin.elapsed() < Duration::from_secs(20) {
                stalled = write.write_all(b"x").is_err();
                thread::sleep(Duration::from_millis(20));
            }
        };
        if on_unix {
            trickle(&mut Client::unix(&socket).writer);
        } else {
            trickle(&mut bridge.connect().writer);
        }
        assert!(stalled, "the bridge went on listening to it");
        assert!(begin.elapsed() > Duration::from_millis(300));
        bridge.log_line("Frame deadline of 300ms passed");
    }
    let mut other = bridge.connect();
    other.send(b"quick\n");
    assert_eq!(other.line(), b"quick");
}

#[test]
fn a_client_that_never_reads_is_cut_off() {
    let mut bridge = Bridge::start(1, &[ECHO, &["--write-timeout", "300ms"]].concat());
    let stuck = bridge.connect();
    let mut writer: TcpStream = stuck.writer.try_clone().unwrap();
    let begin = Instant::now();
    let chunk = b"0123456789abcde\n".repeat(4096);
    while writer.write_all(&chunk).is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(20), "never cut off");
    }
    bridge.log_line("Write deadline of 300ms passed");
}

#[test]
fn a_silent_client_is_cut_off_only_where_asked() {
    let mut bridge = Bridge::start(1, &[ECHO, &["--idle-timeout", "200ms"]].concat());
    let mut client = bridge.connect();
    client.send(b"hello\n");
    assert_eq!(client.line(), b"hello");
    assert!(client.line().is_empty(), "closed");
    bridge.log_line("Idle deadline of 200ms passed");
    let bridge =
        Bridge::start(1, &[ECHO, &["--frame-timeout", "100ms", "--write-timeout", "100ms"]].concat());
    let mut client = bridge.connect();
    thread::sleep(Duration::from_millis(500));
    client.send(b"still here\n");
    assert_eq!(client.line(), b"still here");
}

#[test]
fn sigterm_stops_listening_and_delivers_what_is_under_way() {
    for (name, code) in [("TERM", 0), ("INT", 0)] {
        let mut bridge = Bridge::start(1, DEMO);
        let mut client = bridge.connect();
        assert_eq!(client.ask(PING)["id"], 1);
        client.send(
            b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/call\",\"params\":{\"name\":\"sleep\",\"arguments\":{\"seconds\":0.7}}}\n",
        );
        thread::sleep(Duration::from_millis(200));
        let port = bridge.port();
        bridge.signal(name);
        bridge.log_line("stopping, 1 connection under way");
        let last: serde_json::Value = serde_json::from_slice(&client.rest()).unwrap();
        assert_eq!(last["id"], 7, "the slow answer still comes");
        drop(client);
        assert_eq!(bridge.code(), code);
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    }
}

#[test]
fn draining_has_a_limit_and_a_second_signal_has_none() {
    let slow = b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/call\",\"params\":{\"name\":\"sleep\",\"arguments\":{\"seconds\":60}}}\n";
    let mut bridge = Bridge::start(1, &[DEMO, &["--drain-timeout", "300ms"]].concat());
    let mut client = bridge.connect();
    assert_eq!(client.ask(PING)["id"], 1);
    client.send(slow);
    bridge.signal("TERM");
    bridge.log_line("1 connection cut off: not at an end within 300ms");
    assert_eq!(bridge.code(), 1);

    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let mut bridge = Bridge::start(1, &[DEMO, &["--drain-timeout", "60s"]].concat());
        let mut client = bridge.connect();
        assert_eq!(client.ask(PING)["id"], 1);
        client.send(slow);
        bridge.signal(name);
        bridge.log_line("stopping");
        let start = Instant::now();
        bridge.signal(name);
        assert_eq!(bridge.code(), code);
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}

#[test]
fn the_socket_is_private_and_taken_away_at_the_end() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a ?%b");
    let endpoint = format!("unix:{}/a %3F%25b", directory.path().display());
    let mut bridge = Bridge::start(1, &["--listen", &endpoint, "--connect", "demo:"]);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Client::unix(&socket).ask(PING)["id"], 1);
    bridge.signal("TERM");
    assert_eq!(bridge.code(), 0);
    assert!(!socket.exists());
}

#[test]
fn stdio_serves_once_and_ends_with_its_input() {
    let (code, stdout, stderr) =
        run(&["bridge", "--listen", "stdio:", "--connect", "demo:"], format!("{PING}\n").as_bytes());
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(stdout.iter().filter(|byte| **byte == b'\n').count(), 1);
    let answer: serde_json::Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!(answer["id"], 1);
}

#[test]
fn a_backend_that_is_cut_off_is_a_failure() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", backend.local_addr().unwrap());
    let mut bridge = framewire(&["bridge", "--listen", "stdio:", "--connect", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = bridge.stdin.take().unwrap();
    writeln!(stdin, "{PING}").unwrap();
    let (stream, _) = backend.accept().unwrap();
    // Closed with a byte unread, it is reset.
    assert_eq!(stream.peek(&mut [0]).unwrap(), 1);
    drop(stream);
    let status = wait(&mut bridge, LIMIT).expect("there is nothing to wait for");
    let mut stderr = String::new();
    bridge.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("the backend: connection cut off"), "{stderr}");
}

/// As `yes | framewire bridge … | head -n 1`: who takes no answers any more may not ask for ever.
#[test]
fn stdio_ends_when_its_output_is_closed_however_much_comes_in() {
    let mut child = framewire(&["bridge", "--listen", "stdio:", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let asking = thread::spawn(move || while input.write_all(b"a line\n").is_ok() {});
    let mut first = [0; 7];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let status = wait(&mut child, LIMIT);
    let _ = child.kill();
    asking.join().unwrap();
    assert_eq!(&first, b"a line\n");
    assert!(status.is_some(), "it goes on");
}

#[test]
fn tap_shows_what_passes_escaped_and_cut() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tap");
    let bridge = Bridge::start(
        1,
        &[
            "tap",
            "--output",
            file.to_str().unwrap(),
            "--preview",
            "20",
            "--listen",
            "tcp://127.0.0.1:0",
            "--connect",
            "echo:",
        ],
    );
    let mut client = bridge.connect();
    client.send(b"\x1b[2J hello, this is more than twenty bytes\n");
    client.line();
    let shown = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<serde_json::Value> =
        shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["way"], &lines[1]["way"]), (&"to_backend".into(), &"to_client".into()));
    assert_eq!(lines[0]["size"], 42);
    assert_eq!(lines[0]["preview"], "\\u{1b}[2J hello, this is …");
    assert_eq!(lines[0].get("kind"), None, "no JSON has no envelope");
    client.send(b"{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"tools/call\"}\n");
    client.line();
    let shown = std::fs::read_to_string(&file).unwrap();
    let line: serde_json::Value = serde_json::from_str(shown.lines().nth(2).unwrap()).unwrap();
    assert_eq!(
        (&line["kind"], &line["id"], &line["method"]),
        (&"request".into(), &"\"a\"".into(), &"tools/call".into())
    );
}

#[test]
fn an_idle_bridge_ends_on_a_signal() {
    let mut bridge = Bridge::start(1, DEMO);
    bridge.signal("TERM");
    let status = wait(&mut bridge.child, Duration::from_secs(10)).unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn messages_that_are_not_json_are_refused_when_asked() {
    let good = [PING, r#" {"jsonrpc":"2.0","method":"n","params":{"text":"\u00e9 \u2028"}}"#];
    let mut sent = Vec::new();
    for bad in [&b"banner"[..], b"{\"a\":1,}", b"{\"a\":\"\xff\"}", b"{} {}", b"[1"] {
        sent.extend([bad, b"\n", good[0].as_bytes(), b"\n"].concat());
    }
    sent.extend([good[1].as_bytes(), b"\n"].concat());
    let expected = format!("{}{}\n", format!("{PING}\n").repeat(5), good[1]);
    for framing in ["newline", "json"] {
        let listen = format!("stdio:?framing={framing}");
        let bridge = ["bridge", "--validate", "--listen", &listen, "--connect", "exec:cat"];
        let bytes = if framing == "json" { expected.as_bytes() } else { &sent[..] };
        let (code, stdout, stderr) = run(&bridge, bytes);
        let trimmed = String::from_utf8(stdout).unwrap().replace("\n ", "\n");
        assert_eq!((code, trimmed), (0, expected.replace("\n ", "\n")), "{framing} {stderr}");
        if framing == "newline" {
            for reason in [
                "not JSON at byte 0",
                "not JSON at byte 7",
                "byte 6: not UTF-8",
                "at byte 3",
                "at byte 2: ends too early",
            ] {
                assert!(stderr.contains(reason), "{reason}: {stderr}");
            }
        }
    }
    // What a backend says, too.
    let script = r#"printf '{"a":tru}\n{"a":true}\n'"#;
    let backend = ["bridge", "--validate", "--listen", "stdio:", "--", "sh", "-c", script];
    let (code, stdout, stderr) = run(&backend, b"");
    assert_eq!((code, &stdout[..]), (0, &b"{\"a\":true}\n"[..]), "{stderr}");
}

#[test]
fn what_a_backend_writes_that_is_no_message_is_left_out_when_asked() {
    let script =
        format!(r#"echo 'Server started [{{"a":1}}]'; echo '{{"level":"info"}}'; echo '{PING}'; cat"#);
    let command = |drop: &[&'static str]| {
        let rest = ["--listen", "stdio:", "--", "sh", "-c"];
        [&["bridge"], drop, &rest].concat()
    };
    // A client may write what it likes: here it comes back from the backend.
    let sent = format!("{PING}\n");
    let mut arguments = command(&["--drop-noise"]);
    arguments.push(&script);
    let (code, stdout, stderr) = run(&arguments, sent.as_bytes());
    assert_eq!((code, String::from_utf8(stdout).unwrap()), (0, sent.repeat(2)), "{stderr}");
    assert!(stderr.contains("no message of JSON-RPC") && stderr.contains("Server started"), "{stderr}");
    let mut arguments = command(&[]);
    arguments.push(&script);
    let (_, stdout, _) = run(&arguments, sent.as_bytes());
    assert_eq!(stdout.split(|byte| *byte == b'\n').count(), 5, "passes when nobody asked");
}
