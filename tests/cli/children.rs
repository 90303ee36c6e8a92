use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::harness::{Bridge, LIMIT, alive, eventually, run, wait};

/// A child that tells its number, then sends back what it gets.
const TELL: &str = "echo $$; exec cat";

fn pid(line: &[u8]) -> u32 {
    std::str::from_utf8(line).unwrap().parse().unwrap()
}

#[test]
fn each_connection_has_a_child_of_its_own() {
    let bridge = Bridge::start(1, &["--listen", "tcp://127.0.0.1:0", "--", "sh", "-c", TELL]);
    let mut clients: Vec<_> = (0..5).map(|_| bridge.connect()).collect();
    let mut pids: Vec<u32> = clients.iter_mut().map(|client| pid(&client.line())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(format!("{number}\n").as_bytes());
        assert_eq!(client.line(), number.to_string().as_bytes());
    }
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 5);
    drop(clients);
    eventually("the children go with their clients", || !pids.iter().any(|pid| alive(*pid)));
}

#[test]
fn a_client_that_is_killed_takes_its_child_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = format!("unix:{}", directory.path().join("s").display());
    let _bridge = Bridge::start(1, &["--listen", &endpoint, "--", "sh", "-c", TELL]);
    let mut client = Command::new(env!("CARGO_BIN_EXE_framewire"))
        .args(["-q", "bridge", "--listen", "stdio:", "--connect", &endpoint])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(client.stdout.as_mut().unwrap()), &mut line)
        .unwrap();
    let child = line.trim().parse().unwrap();
    assert!(alive(child));
    client.kill().unwrap();
    client.wait().unwrap();
    eventually("the child is gone", || !alive(child));
}

#[test]
fn a_child_that_ignores_the_end_of_its_input_is_ended_all_the_same() {
    let arguments = ["--listen", "tcp://127.0.0.1:0", "--linger", "200ms", "--", "sh", "-c"];
    let stubborn = "trap '' TERM HUP INT; echo $$; while :; do sleep 0.1; done";
    let bridge = Bridge::start(1, &[&arguments[..], &[stubborn]].concat());
    let mut client = bridge.connect();
    let child = pid(&client.line());
    drop(client);
    eventually("the child is gone", || !alive(child));
}

#[test]
fn children_end_when_the_bridge_is_stopped_or_killed() {
    for name in ["TERM", "KILL"] {
        let mut bridge = Bridge::start(1, &["--listen", "tcp://127.0.0.1:0", "--", "sh", "-c", TELL]);
        let mut client = bridge.connect();
        let child = pid(&client.line());
        bridge.signal(name);
        wait(&mut bridge.child, LIMIT).expect("the bridge ends");
        eventually("the child is gone", || !alive(child));
        assert!(client.line().is_empty());
    }
}

#[test]
fn a_stubborn_group_ends_when_the_bridge_is_killed() {
    let stubborn = "trap '' TERM HUP INT; (while :; do sleep 0.1; done) & echo $$; echo $!; \
                    while :; do sleep 0.1; done";
    let mut bridge = Bridge::start(1, &["--listen", "tcp://127.0.0.1:0", "--", "sh", "-c", stubborn]);
    let mut client = bridge.connect();
    let group = [pid(&client.line()), pid(&client.line())];
    bridge.signal("KILL");
    wait(&mut bridge.child, LIMIT).expect("the bridge ends");
    let killed = Instant::now();
    eventually("the group is gone", || !group.iter().any(|pid| alive(*pid)));
    assert!(killed.elapsed() < Duration::from_secs(15), "it took {:?}", killed.elapsed());
}

/// A server that only ends on SIGTERM, and wants to tidy up then.
#[test]
fn a_drain_that_takes_too_long_ends_children_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let tidied = directory.path().join("tidied");
    let script =
        format!("trap 'echo done >{}; exit 0' TERM; echo $$; while :; do sleep 0.1; done", tidied.display());
    let arguments = ["--listen", "tcp://127.0.0.1:0", "--drain-timeout", "100ms", "--", "sh", "-c"];
    let mut bridge = Bridge::start(1, &[&arguments[..], &[&script]].concat());
    let mut client = bridge.connect();
    let child = pid(&client.line());
    bridge.signal("TERM");
    bridge.log_line("cut off");
    assert_eq!(bridge.code(), 1);
    assert!(!alive(child));
    assert_eq!(std::fs::read_to_string(tidied).unwrap(), "done\n");
}

#[test]
fn a_backend_that_crashes_closes_its_client_and_no_other() {
    let script = "read line; [ \"$line\" = die ] && { echo last; exit 3; }; echo \"$line\"; exec cat";
    let mut bridge = Bridge::start(1, &["--listen", "tcp://127.0.0.1:0", "--", "sh", "-c", script]);
    let mut other = bridge.connect();
    other.send(b"hello\n");
    assert_eq!(other.line(), b"hello");
    let mut client = bridge.connect();
    client.send(b"die\n");
    assert_eq!(client.line(), b"last");
    assert!(client.line().is_empty(), "closed");
    drop(client);
    let line = bridge.log_line("child process");
    assert!(line.contains("3"), "{line}");
    other.send(b"still here\n");
    assert_eq!(other.line(), b"still here");
}

#[test]
fn the_exit_code_tells_that_the_child_failed() {
    let (code, _, stderr) = run(&["bridge", "--listen", "stdio:", "--", "sh", "-c", "exit 7"], b"");
    assert_eq!(code, 5, "{stderr}");
    assert!(stderr.contains("child process") && stderr.contains("7"), "{stderr}");
    let (code, _, stderr) = run(&["bridge", "--listen", "stdio:", "--", "true"], b"");
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn a_command_that_cannot_be_started_costs_one_client_only() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("server");
    let mut bridge = Bridge::start(
        1,
        &["--listen", "tcp://127.0.0.1:0", "--connect", &format!("exec:{}", program.display())],
    );
    // Told at once, in case that it is a slip of the pen.
    bridge.log_line("no client can be served as it stands");
    let mut client = bridge.connect();
    assert!(client.line().is_empty(), "closed");
    bridge.log_line("no such file");
    std::os::unix::fs::symlink("/bin/cat", &program).unwrap();
    let mut client = bridge.connect();
    client.send(b"now\n");
    assert_eq!(client.line(), b"now");
}

#[test]
fn a_noisy_child_does_not_fill_its_stderr_and_stop() {
    let script = "head -c 1000000 /dev/zero | tr '\\0' 'e' >&2; echo done";
    let bridge = Bridge::start(1, &["--listen", "tcp://127.0.0.1:0", "--", "sh", "-c", script]);
    let mut client = bridge.connect();
    assert_eq!(client.line(), b"done");
}

#[test]
fn arguments_reach_the_child_as_they_were_given() {
    let bridge = Bridge::start(
        1,
        &["--listen", "tcp://127.0.0.1:0", "--", "printf", "%s\\n", "a b", "$HOME", "*", "?framing=length"],
    );
    let mut client = bridge.connect();
    assert_eq!(client.rest(), b"a b\n$HOME\n*\n?framing=length\n");
    let bridge = Bridge::start(
        1,
        &["--listen", "tcp://127.0.0.1:0", "--connect", "exec:printf '%s\\n' \"a b\" $HOME"],
    );
    assert_eq!(bridge.connect().rest(), b"a b\n$HOME\n");
}
