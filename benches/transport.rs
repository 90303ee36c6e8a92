//! End to end: what a message costs a server over pipes, Unix sockets and TCP, ours and the rivals', each server a
//! process of its own, under the same load in the same run.
//!
//! `cargo bench --bench transport -- [WORD...] [--sizes 100,1024,ping] [--rounds 5] [--ms 300] [--window 64]
//! [--quick] [--light] [--no-build] [--no-awake] [--pin] [--json FILE]`
//!
//! Words keep the servers whose label contains one of them, and the byte echo they are compared with. Rounds go
//! through all servers of a cell in turn, so that what else the machine does hits all alike; a ratio is the median of
//! the ratios of the rounds. Run as a test it checks the load generator against an echo in the same process.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::json;

#[path = "support/load.rs"]
mod load;
#[path = "support/server.rs"]
mod server;

use load::{Framing, Peer, Traffic};
use server::{Medium, Server};

/// The server all others are compared with.
const FLOOR: &str = "raw tokio, batched";

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--spin") {
        spin();
    }
    if !args.iter().any(|arg| arg == "--bench") || args.iter().any(|arg| arg == "--test") {
        check_generator();
        println!("transport: the load generator is right; run `cargo bench --bench transport` to measure");
        return;
    }
    let plan = Plan::parse(&args);
    let programs = Programs::build(&plan);
    println!("{}\n", conditions(&plan));
    let _awake = plan.awake.then(Awake::start);
    let scratch = tempfile::tempdir().expect("a directory for sockets");
    let mut report = Vec::new();
    for medium in [Medium::Pipe, Medium::Unix, Medium::Tcp] {
        for &size in &plan.sizes {
            let mut rows = rows(&programs, medium, size, plan.window);
            rows.retain(|row| plan.keeps(&format!("{} {medium:?} {size:?}", row.label), row.label == FLOOR));
            if rows.len() < 2 && !plan.words.is_empty() {
                continue;
            }
            let cell = measure(&plan, &programs, rows, medium, size, scratch.path());
            println!("{}", cell.table());
            report.push(cell);
        }
    }
    let goals = goals(&report);
    println!("{goals}");
    if let Some(file) = &plan.json {
        let text = json!(report.iter().map(Cell::json).collect::<Vec<_>>()).to_string();
        fs::write(file, text).expect("write the JSON file");
    }
}

/// A message size; the smallest is MCP's `ping` without parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Ping,
    Bytes(usize),
}

/// What to measure and how long.
struct Plan {
    words: Vec<String>,
    sizes: Vec<Size>,
    rounds: usize,
    time: Duration,
    window: usize,
    heavy: bool,
    build: bool,
    awake: bool,
    pin: bool,
    json: Option<PathBuf>,
}

impl Plan {
    fn parse(args: &[String]) -> Self {
        let mut plan = Self {
            words: Vec::new(),
            sizes: vec![Size::Bytes(100), Size::Bytes(1024), Size::Ping],
            rounds: 5,
            time: Duration::from_millis(300),
            window: 64,
            heavy: true,
            build: true,
            awake: true,
            pin: false,
            json: None,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
            match arg.as_str() {
                "--bench" => {}
                "--quick" => {
                    plan.rounds = 3;
                    plan.time = Duration::from_millis(100);
                }
                "--light" => plan.heavy = false,
                "--no-build" => plan.build = false,
                "--no-awake" => plan.awake = false,
                "--pin" => plan.pin = true,
                "--rounds" => plan.rounds = value().parse().expect("a number of rounds"),
                "--window" => plan.window = value().parse().expect("a number of messages"),
                "--ms" => plan.time = Duration::from_millis(value().parse().expect("milliseconds")),
                "--json" => plan.json = Some(PathBuf::from(value())),
                "--sizes" => {
                    plan.sizes = value()
                        .split(',')
                        .map(|size| match size {
                            "ping" => Size::Ping,
                            size => Size::Bytes(size.parse().expect("bytes or `ping`")),
                        })
                        .collect();
                }
                word => plan.words.push(word.to_lowercase()),
            }
        }
        plan
    }

    fn keeps(&self, label: &str, always: bool) -> bool {
        let label = label.to_lowercase();
        always || self.words.is_empty() || self.words.iter().any(|word| label.contains(word))
    }
}

/// Where the servers are; what could not be built is left out.
struct Programs {
    ours: Option<PathBuf>,
    rivals: PathBuf,
    pin: bool,
}

impl Programs {
    /// Builds ours and the rivals with the profile this benchmark was built with.
    fn build(plan: &Plan) -> Self {
        // target/release/deps/transport-… → target
        let target = env::current_exe().expect("the path of this program");
        let target = target.ancestors().nth(3).expect("a target directory").to_path_buf();
        let cargo = |args: &[&str]| {
            if !plan.build {
                return true;
            }
            let status = Command::new(env!("CARGO"))
                .args(["build", "--release", "--quiet", "--target-dir"])
                .arg(&target)
                .args(args)
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status();
            status.is_ok_and(|status| status.success())
        };
        let mut rivals = vec!["-p", "framewire-rivals"];
        if plan.heavy {
            rivals.extend(["--features", "heavy"]);
        }
        assert!(cargo(&rivals), "the rivals do not build; `--light` leaves the heavy ones out");
        let ours = cargo(&["--example", "echo"]).then(|| target.join("release/examples/echo"));
        if ours.is_none() {
            println!("examples/echo.rs does not build: rivals only");
        }
        Self { ours, rivals: target.join("release"), pin: plan.pin }
    }

    /// Where the program of a command line is; its first word is a rival's binary or `ours`.
    fn find(&self, line: &str) -> Option<PathBuf> {
        match line.split(' ').next()? {
            "ours" => self.ours.clone().filter(|program| program.exists()),
            rival => Some(self.rivals.join(rival)).filter(|program| program.exists()),
        }
    }

    fn knows(&self, line: &str) -> bool {
        self.find(line).is_some()
    }

    fn command(&self, line: &str) -> Command {
        let program = self.find(line).expect("rows name programs that are there");
        let mut command = if self.pin {
            let mut command = Command::new("taskset");
            command.args(["--cpu-list", "1"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.args(line.split(' ').skip(1));
        command
    }
}

/// One server in one cell.
struct Row {
    label: String,
    /// The server's command line, its program first.
    line: String,
    traffic: Traffic,
    service: bool,
    rounds: Vec<Round>,
    /// Why it could not be measured.
    failure: Option<String>,
}

/// One round's figures of one server.
struct Round {
    /// Server CPU per message in microseconds.
    cpu: f64,
    rate: f64,
    /// Answers per read of the generator.
    batch: f64,
    p50: f64,
    p99: f64,
    peak: f64,
}

/// The servers of a cell: label, command line, framing. `None` stands for a service with answers of its own.
fn rows(programs: &Programs, medium: Medium, size: Size, window: usize) -> Vec<Row> {
    let on = match medium {
        Medium::Pipe => "pipe",
        Medium::Unix => "unix",
        Medium::Tcp => "tcp",
    };
    let newline = Some(Framing::Newline);
    let length = Some(Framing::Length);
    let mut list: Vec<(&str, String, Option<Framing>)> = vec![
        ("raw std, batched", format!("raw std --transport {on}"), newline),
        (FLOOR, format!("raw tokio --transport {on}"), newline),
        ("framewire newline", format!("ours --transport {on} --framing newline"), newline),
        ("framewire length", format!("ours --transport {on} --framing length"), length),
    ];
    if medium == Medium::Pipe {
        list.push(("framewire StdioTransport", "ours --transport stdio --framing newline".into(), newline));
    }
    match size {
        Size::Bytes(_) => {
            list.extend([
                (
                    "framewire newline, lent halves",
                    format!("ours --transport {on} --framing newline --receive lent"),
                    newline,
                ),
                (
                    "framewire length, lent halves",
                    format!("ours --transport {on} --framing length --receive lent"),
                    length,
                ),
                ("LinesCodec, corked", format!("framed lines --transport {on}"), newline),
                (
                    "LinesCodec, 8 KiB reads, corked",
                    format!("framed lines --transport {on} --capacity 8192"),
                    newline,
                ),
                ("LinesCodec, flush each", format!("framed lines --transport {on} --flush each"), newline),
                ("BufReader lines(), two writes", format!("framed bufread --transport {on}"), newline),
                ("LengthDelimitedCodec, corked", format!("framed length --transport {on}"), length),
            ]);
            if medium == Medium::Pipe {
                list.extend([
                    ("raw tokio stdin/stdout", "raw tokio --transport stdio".into(), newline),
                    ("LinesCodec stdin/stdout, corked", "framed lines --transport stdio".into(), newline),
                    (
                        "LinesCodec stdin/stdout, flush each",
                        "framed lines --transport stdio --flush each".into(),
                        newline,
                    ),
                    (
                        "BufReader stdin/stdout, two writes",
                        "framed bufread --transport stdio".into(),
                        newline,
                    ),
                ]);
            }
        }
        Size::Ping => {
            list.push(("rmcp service", format!("rmcp ping --transport {on}"), None));
            if medium == Medium::Pipe {
                list.push(("rmcp service, stdio()", "rmcp ping --transport stdio".into(), None));
                list.push(("pmcp service, stdio", "pmcp ping --transport stdio".into(), None));
            }
        }
    }
    list.push(("TurboMCP", format!("turbomcp echo --transport {on}"), newline));
    let bytes = match size {
        Size::Ping => None,
        Size::Bytes(bytes) => Some(bytes),
    };
    list.into_iter()
        .filter_map(|(label, line, framing)| {
            Some(Row {
                label: label.into(),
                line: programs.knows(&line).then_some(line)?,
                traffic: framing.map_or(Traffic::Ping, |framing| Traffic::echo(framing, bytes, window)),
                service: framing.is_none(),
                rounds: Vec::new(),
                failure: None,
            })
        })
        .collect()
}

/// All servers of one medium and size, measured.
struct Cell {
    medium: Medium,
    size: Size,
    rows: Vec<Row>,
}

fn measure(
    plan: &Plan,
    programs: &Programs,
    mut rows: Vec<Row>,
    medium: Medium,
    size: Size,
    scratch: &Path,
) -> Cell {
    for _ in 0..plan.rounds {
        for row in &mut rows {
            match round(plan, programs.command(&row.line), row, medium, size, scratch) {
                Ok(round) => row.rounds.push(round),
                Err(error) => row.failure = Some(error.to_string()),
            }
        }
    }
    Cell { medium, size, rows }
}

/// One server, started afresh: warmed up, loaded with a full window, then asked one thing at a time.
fn round(
    plan: &Plan,
    command: Command,
    row: &Row,
    medium: Medium,
    size: Size,
    scratch: &Path,
) -> io::Result<Round> {
    let mut server = Server::start(command, medium, scratch)?;
    if row.service {
        server.peer.initialize()?;
    }
    server.peer.run(&row.traffic, plan.window, plan.time / 6)?;
    let before = server.cpu()?;
    let outcome = server.peer.run(&row.traffic, plan.window, plan.time)?;
    let cpu = server.cpu()?.saturating_sub(before);
    // A large message does not fit into the buffers on its way, so it cannot be written before it is read.
    let small = size.bytes() <= 16 * 1024;
    let mut latencies = if small { server.peer.latencies(&row.traffic, plan.time / 3)? } else { Vec::new() };
    latencies.sort_unstable();
    let at = |share: usize| {
        latencies
            .get((latencies.len() * share / 100).min(latencies.len().saturating_sub(1)))
            .map_or(f64::NAN, |&ns| ns as f64 / 1e3)
    };
    let messages = outcome.messages as f64;
    Ok(Round {
        cpu: cpu.as_secs_f64() * 1e6 / messages,
        rate: messages / outcome.elapsed.as_secs_f64(),
        batch: messages / outcome.reads as f64,
        p50: at(50),
        p99: at(99),
        peak: server.peak()? as f64,
    })
}

impl Size {
    fn bytes(self) -> usize {
        match self {
            Self::Ping => load::PING,
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ping => write!(f, "ping"),
            Self::Bytes(bytes) => write!(f, "{bytes} B"),
        }
    }
}

impl Row {
    /// Does it do what ours does, at tokio's level? Byte echoes and whole services are other things.
    fn is_framed_rival(&self) -> bool {
        ["Lines", "Length", "BufReader", "TurboMCP"].iter().any(|start| self.label.starts_with(start))
    }

    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(of).collect())
    }

    /// The median over the rounds of this server's figure to another's in the same round.
    fn ratio(&self, other: &Self, of: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().zip(&other.rounds).map(|(a, b)| of(a) / of(b)).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Cell {
    fn row(&self, label: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.label == label && row.failure.is_none())
    }

    fn table(&self) -> String {
        let mut out = format!(
            "### {:?}, {}\n\n| server | CPU µs/message | to raw tokio | messages/s | answers per read | p50 µs | p99 µs | to raw tokio | peak RSS MB |\n|---|---|---|---|---|---|---|---|---|\n",
            self.medium, self.size
        );
        let floor = self.row(FLOOR);
        for row in &self.rows {
            if let Some(failure) = &row.failure {
                let _ = writeln!(out, "| {} | failed: {failure} |", row.label);
                continue;
            }
            let ratio = |of: fn(&Round) -> f64| floor.map_or(f64::NAN, |floor| row.ratio(floor, of));
            let _ = writeln!(
                out,
                "| {} | {:.3} | {:.2} | {:.0}k | {:.1} | {:.1} | {:.1} | {:.2} | {:.1} |",
                row.label,
                row.median(|round| round.cpu),
                ratio(|round| round.cpu),
                row.median(|round| round.rate) / 1e3,
                row.median(|round| round.batch),
                row.median(|round| round.p50),
                row.median(|round| round.p99),
                ratio(|round| round.p50),
                row.median(|round| round.peak) / 1e6,
            );
        }
        out
    }

    fn json(&self) -> serde_json::Value {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "server": row.label,
                    "command": row.line,
                    "failure": row.failure,
                    "cpu_us": row.rounds.iter().map(|round| round.cpu).collect::<Vec<_>>(),
                    "messages_per_second": row.rounds.iter().map(|round| round.rate).collect::<Vec<_>>(),
                    "answers_per_read": row.rounds.iter().map(|round| round.batch).collect::<Vec<_>>(),
                    "p50_us": row.rounds.iter().map(|round| round.p50).collect::<Vec<_>>(),
                    "p99_us": row.rounds.iter().map(|round| round.p99).collect::<Vec<_>>(),
                    "peak_rss": row.rounds.iter().map(|round| round.peak).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({ "medium": format!("{:?}", self.medium), "size": self.size.to_string(), "rows": rows })
    }
}

/// The goals this benchmark decides, each with what was reached.
fn goals(report: &[Cell]) -> String {
    let mut lines: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut goal = |section: usize, name: String, value: f64, limit: f64, at_most: bool| {
        if value.is_nan() {
            return;
        }
        let (sign, met) = if at_most { ("≤", value <= limit) } else { ("≥", value >= limit) };
        let verdict = if met { "met" } else { "MISSED" };
        lines
            .entry(section)
            .or_default()
            .push(format!("| {name} | {sign} {limit} | {value:.2} | {verdict} |"));
    };
    for cell in report {
        let place = format!("{:?}, {}", cell.medium, cell.size);
        let Some(floor) = cell.row(FLOOR) else { continue };
        for label in ["framewire newline", "framewire length"] {
            let Some(ours) = cell.row(label) else { continue };
            goal(
                0,
                format!("{label}, CPU to raw tokio, {place}"),
                ours.ratio(floor, |round| round.cpu),
                1.25,
                true,
            );
            goal(
                2,
                format!("{label}, p50 to raw tokio, {place}"),
                ours.ratio(floor, |round| round.p50),
                1.1,
                true,
            );
            goal(
                5,
                format!("{label}, peak RSS in MB, {place}"),
                ours.median(|round| round.peak) / 1e6,
                4.0,
                true,
            );
            let best = cell
                .rows
                .iter()
                .filter(|row| row.is_framed_rival() && row.failure.is_none())
                .min_by(|a, b| a.median(|round| round.cpu).total_cmp(&b.median(|round| round.cpu)));
            if let Some(best) = best {
                let name = format!("{label}, CPU to the best framed rival ({}), {place}", best.label);
                goal(1, name, ours.ratio(best, |round| round.cpu), 1.0, true);
            }
        }
        let ours = cell.row("framewire StdioTransport").or(cell.row("framewire newline"));
        if let (Some(stdio), Some(pipe)) =
            (cell.row("framewire StdioTransport"), cell.row("framewire newline"))
        {
            goal(
                3,
                format!("StdioTransport, CPU to our pipe, {place}"),
                stdio.ratio(pipe, |round| round.cpu),
                1.3,
                true,
            );
            goal(
                5,
                format!("StdioTransport, peak RSS in MB, {place}"),
                stdio.median(|round| round.peak) / 1e6,
                4.0,
                true,
            );
        }
        if let Some(ours) = ours {
            let published = match cell.medium {
                Medium::Pipe => 50_000.0,
                Medium::Unix => 45_000.0,
                Medium::Tcp => 30_000.0,
            };
            let rate = ours.median(|round| round.rate);
            goal(4, format!("messages/s to TurboMCP's published, {place}"), rate / published, 10.0, false);
            if let Some(turbo) = cell.row("TurboMCP") {
                let limit = if cell.medium == Medium::Pipe { 30.0 } else { 5.0 };
                goal(
                    4,
                    format!("messages/s to TurboMCP 3.6 here, {place}"),
                    ours.ratio(turbo, |round| round.rate),
                    limit,
                    false,
                );
                goal(
                    4,
                    format!("p50 to TurboMCP 3.6 here, {place}"),
                    ours.ratio(turbo, |round| round.p50),
                    1.0,
                    true,
                );
            }
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    let lines: Vec<_> = lines.into_values().flatten().collect();
    format!("### Goals\n\n| goal | limit | here | |\n|---|---|---|---|\n{}\n", lines.join("\n"))
}

/// Machine, load and settings, for whoever reads the figures.
fn conditions(plan: &Plan) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("?", |(_, name)| name);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{} × {cpu}, Linux {}, load {} before the run; {} in flight, {} rounds of {} ms, cores {}",
        thread::available_parallelism().map_or(1, usize::from),
        kernel.trim(),
        load.split(' ').next().unwrap_or_default(),
        plan.window,
        plan.rounds,
        plan.time.as_millis(),
        if plan.awake { "kept awake" } else { "left to sleep" },
    )
}

/// Keeps the cores from going to sleep: on a virtual machine waking one costs more than anything measured here. The
/// processes run at the idle class, so they only take what nobody wants.
struct Awake(Vec<Child>);

impl Awake {
    fn start() -> Self {
        let program = env::current_exe().expect("the path of this program");
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let start = |_| {
            Command::new("chrt")
                .args(["--idle", "0"])
                .arg(&program)
                .arg("--spin")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .ok()
        };
        let spinners: Vec<_> = (0..cores).filter_map(start).collect();
        if spinners.len() < cores {
            println!("no `chrt` here: cores are left to sleep\n");
        }
        Self(spinners)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Spins until standard input ends, so that nothing spins on when the benchmark is killed.
fn spin() -> ! {
    thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    // Not `spin_loop`: a hypervisor takes a core that pauses for one that has nothing to do.
    let mut turns = 0_u64;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

/// The generator against an echo and against a liar, in this process.
fn check_generator() {
    for (framing, size, window) in [
        (Framing::Newline, Some(100), 64),
        (Framing::Length, Some(1024), 64),
        (Framing::Newline, None, 1),
        (Framing::Length, Some(1 << 20), 4),
    ] {
        let traffic = Traffic::echo(framing, size, window);
        let mut peer = echo_with(|_| {});
        let outcome = peer.run(&traffic, window, Duration::from_millis(5)).unwrap();
        assert!(outcome.messages >= window as u64);
        if size < Some(4096) {
            assert!(!peer.latencies(&traffic, Duration::from_millis(2)).unwrap().is_empty());
            peer.run(&traffic, window, Duration::from_millis(1)).unwrap();
        }
    }
    let traffic = Traffic::echo(Framing::Newline, Some(100), 8);
    let mut seen = 0;
    let mut liar = echo_with(move |bytes| {
        // One byte of message 20, wrong only in its number.
        for byte in bytes {
            seen += 1;
            if seen == 20 * 101 + 30 {
                *byte ^= 1;
            }
        }
    });
    assert!(liar.run(&traffic, 8, Duration::from_secs(5)).is_err());
}

/// A peer of a thread that sends everything back, after `change` has seen it.
fn echo_with(mut change: impl FnMut(&mut [u8]) + Send + 'static) -> Peer {
    let (here, mut there) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(got @ 1..) = there.read(&mut buffer) {
            change(&mut buffer[..got]);
            if there.write_all(&buffer[..got]).is_err() {
                break;
            }
        }
    });
    let here = OwnedFd::from(here);
    Peer::new(here.try_clone().unwrap(), here)
}
