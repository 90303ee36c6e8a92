use crate::harness::run;

const ASKED: &str = concat!(
    r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
    "\n",
    r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"add","arguments":{"a":1,"b":2}}}"#,
    "\n",
);

#[test]
fn what_was_recorded_is_replayed_and_compared() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("recording");
    let file = path.to_str().unwrap();
    let arguments = ["tap", "--record", file, "--listen", "stdio:", "--connect", "demo:"];
    let (code, _, stderr) = run(&arguments, ASKED.as_bytes());
    assert_eq!(code, 0, "{stderr}");
    let recording = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = recording.lines().collect();
    assert_eq!((lines.len(), lines[0]), (9, "framewire recording 1"));
    let fields: Vec<&str> = lines[1].split(' ').collect();
    assert!(fields[0].parse::<f64>().is_ok(), "{fields:?}");
    assert_eq!(fields[1..], ["1", ">", "40"]);
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    for speed in ["full", "recorded"] {
        let (code, stdout, stderr) =
            run(&["tap", "--replay", file, "--speed", speed, "--connect", "demo:"], b"");
        assert_eq!((code, &*stdout), (0, &b"2 messages as recorded, 0 not\n"[..]), "{stderr}");
    }

    // Of the same length, as the recording says how long it is.
    std::fs::write(&path, recording.replace(r#""text":"3""#, r#""text":"4""#)).unwrap();
    let (code, stdout, stderr) = run(&["tap", "--replay", file, "--connect", "demo:"], b"");
    let stdout = String::from_utf8(stdout).unwrap();
    assert_eq!(code, 1, "{stderr}");
    assert!(stdout.starts_with("#1 differs\n"), "{stdout}");
    assert!(stdout.ends_with("1 messages as recorded, 1 not\n"), "{stdout}");
}

/// The connection went on, and so did the command, to exit code 0, as if the recording were whole.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_and_ends_no_connection() {
    let arguments = ["--listen", "stdio:", "--connect", "demo:"];
    for (option, text) in
        [("--record", "the recording ends here"), ("--output", "cannot write to the output")]
    {
        let (code, stdout, stderr) =
            run(&[&["tap", "-q", option, "/dev/full"], &arguments[..]].concat(), ASKED.as_bytes());
        assert_eq!(code, 1, "{stderr}");
        assert_eq!(stderr.matches(text).count(), 1, "{stderr}");
        assert_eq!(stdout.iter().filter(|byte| **byte == b'\n').count(), 2, "{stderr}");
    }
}

#[test]
fn a_replay_tells_of_a_child_that_failed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("recording");
    std::fs::write(&path, "framewire recording 1\n0.1 1 > 2\n{}\n0.2 1 < 2\n{}\n0.3 1 > 2\n{}\n").unwrap();
    let arguments = ["tap", "--replay", path.to_str().unwrap(), "--", "sh", "-c", "exit 3"];
    let (code, _, stderr) = run(&arguments, b"");
    assert_eq!(code, 5, "{stderr}");
    assert!(stderr.contains("exited with code 3"), "{stderr}");
}

#[test]
fn an_answer_is_shown_with_the_time_it_took() {
    let asked = [ASKED.as_bytes(), br#"{"jsonrpc":"2.0","id":"\u0061","method":"ping"}"#, b"\n"].concat();
    let arguments = ["--listen", "stdio:", "--connect", "demo:"];
    let (code, _, stderr) = run(&[&["tap", "--json"], &arguments[..]].concat(), &asked);
    assert_eq!(code, 0, "{stderr}");
    let lines = stderr.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let shown: Vec<_> = lines.filter(|line| line["kind"].is_string()).collect();
    assert_eq!(shown.len(), 6, "{stderr}");
    for line in shown {
        let is_answer = line["kind"] == "response";
        assert_eq!(line["latency_us"].as_f64().is_some_and(|took| took >= 0.0), is_answer, "{line}");
    }
    let (_, _, stderr) = run(&[&["tap"], &arguments[..]].concat(), &asked);
    assert_eq!(stderr.matches(" ms {").count(), 3, "{stderr}");
}

#[test]
fn what_is_no_recording_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("recording");
    for (text, told) in [
        ("", "no recording"),
        ("something else\n", "no recording"),
        ("framewire recording 1\n0.1 1 > 5\nab\n", "message 1 of the recording: it is not whole"),
        ("framewire recording 1\n0.1 1 > 99999999999\nab\n", "too large"),
        ("framewire recording 1\n0.1 1 ? 2\nab\n", "neither > nor <"),
        ("framewire recording 1\n0.1 1\n", "a field is missing"),
    ] {
        std::fs::write(&path, text).unwrap();
        let (code, _, stderr) = run(&["tap", "--replay", path.to_str().unwrap(), "--connect", "demo:"], b"");
        assert_eq!(code, 1, "{text:?}: {stderr}");
        assert!(stderr.contains(told), "{text:?}: {stderr}");
    }
}
