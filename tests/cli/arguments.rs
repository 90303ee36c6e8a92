use std::net::TcpListener;

use crate::harness::{Bridge, run};

fn refused(arguments: &[&str], code: i32, text: &str) {
    let (got, stdout, stderr) = run(arguments, b"");
    assert_eq!(got, code, "{arguments:?}: {stderr}");
    assert!(stderr.contains(text), "{arguments:?}: {stderr}");
    assert!(stdout.is_empty(), "stdout is for messages: {arguments:?}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn a_wrong_command_line_says_what_was_meant() {
    for (arguments, text) in [
        (&["bridge"][..], "--connect ENDPOINT is missing"),
        (&["bridge", "--connect", "demo:"], "--listen ENDPOINT is missing"),
        (&["bridge", "--listen", "tcp://127.0.0.1:0"], "--connect ENDPOINT is missing"),
        (
            &["bridge", "--listen", "127.0.0.1:9110", "--connect", "demo:"],
            "did you mean tcp://127.0.0.1:9110?",
        ),
        (&["bridge", "--listen", "nats://h:1", "--connect", "demo:"], "not built into this version"),
        (&["bridge", "--listen", "tcp://0.0.0.0:0", "--connect", "demo:"], "add --expose"),
        (&["bridge", "--listen", "ws://[::]:0", "--connect", "demo:"], "add --expose"),
        (&["bridge", "--token", "", "--listen", "ws://127.0.0.1:0", "--connect", "demo:"], "empty"),
        (&["bridge", "--listen", "stdio:", "--connect", "exec:"], "needs a command"),
        (&["bridge", "--listen", "demo:", "--connect", "demo:"], "did you mean --connect demo:?"),
        (&["bridge", "--listen", "stdio:", "--connect", "stdio:"], "only once"),
        (&["bridge", "--listen", "tcp://127.0.0.1:0", "--connect", "stdio:"], "use --listen stdio: instead"),
        (&["bridge", "--listen", "stdio:", "--connect", "demo:", "--", "cat"], "has no place"),
        (&["bridge", "--listen", "stdio:", "--connect", "demo:", "--connect", "demo:"], "too many --connect"),
        (&["bridge", "--listen", "stdio:", "--connect", "tcp://127.0.0.1:0"], "port 0"),
        (&["bridge", "--max-message-size", "64k", "--connect", "demo:"], "did you mean KiB?"),
        (&["bridge", "--max-message-size", "0", "--connect", "demo:"], "at least 1 byte"),
        (&["bridge", "--drain-timeout", "5", "--connect", "demo:"], "5s or 5ms"),
        (&["bridge", "--max-connections", "0", "--connect", "demo:"], "0 is not in"),
        (&["probe", "demo:", "--", "cat"], "belongs to exec:"),
        (&["bench", "--transport", "pigeon"], "pigeon"),
        (&["brigde"], "similar subcommand"),
    ] {
        refused(arguments, 2, text);
    }
}

#[test]
fn what_cannot_be_listened_on_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", taken.local_addr().unwrap());
    refused(&["bridge", "--listen", &endpoint, "--connect", "demo:"], 3, "another program listens there");
    refused(&["bridge", "--listen", "unix:/nowhere/at/all", "--connect", "demo:"], 3, "does not exist");
    refused(&["bridge", "--listen", "tcp://192.0.2.1:9", "--connect", "demo:"], 3, "no such address");

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    refused(
        &["bridge", "--listen", &format!("unix:{}", file.display()), "--connect", "demo:"],
        3,
        "a file that is no socket stands there; remove it or choose another path",
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious", "a file that is no socket stays");

    let socket = format!("unix:{}", directory.path().join("s").display());
    let _first = Bridge::start(1, &["--listen", &socket, "--connect", "demo:"]);
    refused(
        &["bridge", "--listen", &socket, "--connect", "demo:"],
        3,
        "another program listens there already; stop it or choose another path",
    );
}

#[test]
fn what_cannot_be_connected_to_is_told() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("tcp://{free}");
    refused(&["bridge", "--listen", "stdio:", "--connect", &endpoint], 4, "nothing listens there");
    refused(&["probe", &endpoint], 4, "nothing listens there");
    refused(&["probe", "unix:/nowhere/at/all"], 4, "no such socket");
    refused(&["bridge", "--listen", "stdio:", "--", "no-such-command-here"], 5, "no such command in PATH");
    refused(&["bridge", "--listen", "stdio:", "--", "/no/such/file"], 5, "no such file");
    refused(&["bridge", "--listen", "stdio:", "--connect", "exec:/dev/null"], 5, "not executable");
}

#[test]
fn help_tells_endpoints_and_exit_codes() {
    let (code, stdout, _) = run(&["--help"], b"");
    let stdout = String::from_utf8(stdout).unwrap();
    assert_eq!(code, 0);
    for text in ["?framing=", "Exit codes", "FRAMEWIRE_LOG"] {
        assert!(stdout.contains(text), "{text}: {stdout}");
    }
    let endpoints = [
        "stdio:",
        "exec:COMMAND",
        "tcp://",
        "tls://",
        "unix:",
        "ws://",
        "wss://",
        "ws+unix:",
        "http://",
        "https://",
        "http+unix:",
        "demo:",
        "echo:",
    ];
    for endpoint in endpoints {
        assert!(stdout.contains(&format!(" {endpoint}")), "{endpoint}: {stdout}");
    }
    assert!(!stdout.contains("__serve"));
}

/// Backends on plain HTTP were connected to past it.
#[test]
fn a_proxy_that_refuses_is_told() {
    use std::io::{Read, Write};
    for (endpoint, place) in [
        ("wss://server.example/mcp", "server.example:443"),
        ("http://server.example/mcp", "server.example:80"),
        ("https://server.example/mcp", "server.example:443"),
        ("tcp://server.example:9110", "server.example:9110"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = format!("http://me:secret@{}", listener.local_addr().unwrap());
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").unwrap();
            String::from_utf8(head).unwrap()
        });
        refused(&["probe", "--proxy", &proxy, endpoint], 4, "the proxy refused: status 407");
        let head = served.join().unwrap();
        assert!(head.starts_with(&format!("CONNECT {place} HTTP/1.1\r\n")), "{head}");
    }
}
