use crate::harness::{Bridge, run};

#[test]
fn probe_tells_who_answers_and_how_fast() {
    let bridge = Bridge::start(1, &["--listen", "tcp://127.0.0.1:0", "--connect", "demo:"]);
    let endpoint = format!("tcp://127.0.0.1:{}", bridge.port());
    let (code, stdout, stderr) = run(&["probe", "--count", "20", "--json", &endpoint], b"");
    assert_eq!(code, 0, "{stderr}");
    let found: serde_json::Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!(found["server"]["name"], "framewire-demo");
    assert_eq!(found["protocol"], "2025-11-25");
    assert_eq!((&found["era"], &found["tools"]), (&"sessions".into(), &4.into()));
    assert_eq!(found["capabilities"], serde_json::json!(["tools"]));
    assert_eq!(found["pings"], 20);
    let at = |share: &str| found["ping_us"][share].as_f64().unwrap();
    assert!(0.0 < at("p50") && at("p50") <= at("p99") && at("p99") <= at("max"));

    let (code, stdout, _) = run(&["probe", "demo:"], b"");
    assert_eq!(code, 0);
    assert!(String::from_utf8(stdout).unwrap().contains("framewire-demo"));
}

/// A server without initialize: its tools come in two pages.
const STATELESS: &str = r#"
while read -r line; do
    id=$(printf %s "$line" | sed 's/.*"id":\([0-9]*\).*/\1/')
    case $line in
        *'"initialize"'*) echo '{"jsonrpc":"2.0","id":'$id',"error":{"code":-32022,"message":"no"}}' ;;
        *'"_meta"'*'server/discover'* | *'server/discover'*'"_meta"'*)
            info='"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"alone","version":"7"}}'
            echo '{"jsonrpc":"2.0","id":'$id',"result":{"capabilities":{"tools":{}},'$info'}}' ;;
        *'"next"'*) echo '{"jsonrpc":"2.0","id":'$id',"result":{"tools":[{}]}}' ;;
        *'tools/list'*) echo '{"jsonrpc":"2.0","id":'$id',"result":{"tools":[{},{}],"nextCursor":"next"}}' ;;
    esac
done"#;

#[test]
fn probe_knows_both_eras() {
    let arguments = ["probe", "--json", "--count", "3", "exec:", "--", "sh", "-c", STATELESS];
    let (code, stdout, stderr) = run(&arguments, b"");
    assert_eq!(code, 0, "{stderr}");
    let found: serde_json::Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!(found["server"], serde_json::json!({ "name": "alone", "version": "7" }));
    assert_eq!((&found["era"], &found["protocol"]), (&"stateless".into(), &"2026-07-28".into()));
    assert_eq!((&found["tools"], &found["pings"]), (&3.into(), &3.into()));
}

#[test]
fn probe_says_when_there_is_no_proper_answer() {
    for (arguments, text) in [
        (&["probe", "exec:", "--", "true"][..], "no answer to initialize"),
        (&["probe", "--timeout", "300ms", "exec:sleep 60"], "within 300ms"),
        (&["probe", "--timeout", "300ms", "echo:"], " echo: no answer to initialize within 300ms"),
        (&["probe", "--timeout", "1s", "exec:cat"], "within 1s"),
        (
            &[
                "probe",
                "exec:",
                "--",
                "sh",
                "-c",
                r#"read x; echo noise; echo '{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no"}}'"#,
            ],
            "answered with an error",
        ),
    ] {
        let (code, stdout, stderr) = run(arguments, b"");
        assert_eq!(code, 4, "{arguments:?}: {stderr}");
        assert!(stderr.contains(text), "{arguments:?}: {stderr}");
        assert!(stdout.is_empty());
    }
    // Before it was asked, and after.
    for command in ["exit 3", "read x; exit 3"] {
        let (code, _, stderr) = run(&["probe", "exec:", "--", "sh", "-c", command], b"");
        assert_eq!(code, 5, "{command}: {stderr}");
        assert!(stderr.contains("the child process exited with code 3 instead of answering"), "{stderr}");
    }
}

#[test]
fn bench_measures_each_transport_and_draws() {
    let directory = tempfile::tempdir().unwrap();
    let chart = directory.path().join("chart.svg");
    let (code, stdout, stderr) = run(
        &["bench", "--duration", "50ms", "--let-cores-sleep", "--json", "--svg", chart.to_str().unwrap()],
        b"",
    );
    assert_eq!(code, 0, "{stderr}");
    let report: serde_json::Value = serde_json::from_slice(&stdout).unwrap();
    for name in ["memory", "stdio", "unix", "tcp", "tls", "ws", "wss"] {
        let row = &report["transports"][name];
        assert!(row["messages_per_second"].as_f64().unwrap() > 100.0, "{name}: {row}");
        assert!(row["p50_us"].as_f64().unwrap() > 0.0, "{name}: {row}");
        assert!(row["cpu_us_per_message"].as_f64().unwrap() > 0.0, "{name}: {row}");
        assert!(row["peak_rss_bytes"].as_u64().unwrap() > 100_000, "{name}: {row}");
    }
    assert!(report["machine"]["cores"].as_u64().unwrap() >= 1);
    let chart = std::fs::read_to_string(chart).unwrap();
    assert!(chart.starts_with("<svg") && chart.contains("stdio") && chart.contains("published by TurboMCP"));
}

#[test]
fn bench_shows_what_it_measured_though_no_chart_can_be_drawn() {
    let arguments =
        ["bench", "-t", "unix", "--duration", "30ms", "--let-cores-sleep", "--svg", "/nowhere/at/all.svg"];
    let (code, stdout, stderr) = run(&arguments, b"");
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("cannot draw /nowhere/at/all.svg"), "{stderr}");
    assert!(String::from_utf8(stdout).unwrap().lines().any(|line| line.starts_with("unix ")));
    let (code, _, stderr) = run(&["bench", "--duration", "0s"], b"");
    assert_eq!(code, 2, "{stderr}");
}

#[test]
fn bench_prints_a_table_for_people() {
    let (code, stdout, stderr) = run(
        &[
            "bench",
            "-t",
            "unix",
            "--size",
            "1KiB",
            "--window",
            "8",
            "--duration",
            "30ms",
            "--let-cores-sleep",
        ],
        b"",
    );
    assert_eq!(code, 0, "{stderr}");
    let table = String::from_utf8(stdout).unwrap();
    assert!(table.contains("messages of 1024 bytes") && table.contains("8 under way"), "{table}");
    assert!(table.lines().any(|line| line.starts_with("unix ")), "{table}");
    assert!(stderr.is_empty(), "no progress bar where nobody looks: {stderr}");
}
