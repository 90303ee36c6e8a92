//! `framewire bench`: what each transport does on this machine.
//!
//! The server is a process of its own; the load comes from this one. What is compared is the transport, so the server
//! only sends each message back.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use framewire::{endpoint::Size, limits::MAX_MESSAGE_SIZE};
use indicatif::{ProgressBar, ProgressStyle};

use super::{exit::Failure, quantity};

mod certificate;
mod chart;
mod load;
mod machine;
mod process;
mod report;

pub(crate) use load::memory;

/// Measure each transport on this machine: throughput, latency, CPU and memory
///
/// For each transport a server process sends every message back, with the plain receive and send loop that a user
/// writes. First --window messages are kept under way, then one.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Which transports; may repeat [default: all]
    #[arg(short, long, value_name = "TRANSPORT")]
    transport: Vec<Transport>,

    /// Size of each message
    #[arg(short, long, value_name = "SIZE", default_value = "100", value_parser = quantity::size)]
    size: Size,

    /// Messages under way while throughput is measured
    #[arg(short, long, value_name = "COUNT", default_value_t = 64, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=65536))]
    window: usize,

    /// How long to measure each transport's throughput, and again its latency
    #[arg(short, long, value_name = "TIME", default_value = "2s", value_parser = quantity::duration)]
    duration: Duration,

    /// Let idle cores fall asleep: latency then includes their waking up
    #[arg(long)]
    let_cores_sleep: bool,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,

    /// Also draw a chart
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// How long a measurement may take beyond what it should: then something is stuck.
const STUCK: Duration = Duration::from_secs(30);

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Transport {
    Memory,
    Stdio,
    Unix,
    Tcp,
    Tls,
    Ws,
    Wss,
}

impl Transport {
    const ALL: &'static [Self] = if cfg!(unix) {
        &[Self::Memory, Self::Stdio, Self::Unix, Self::Tcp, Self::Tls, Self::Ws, Self::Wss]
    } else {
        &[Self::Memory, Self::Stdio, Self::Tcp, Self::Tls, Self::Ws, Self::Wss]
    };

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Stdio => "stdio",
            Self::Unix => "unix",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }
}

/// What was measured.
#[derive(Debug, Clone)]
struct Row {
    messages_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    /// Of the server process; of both ends for the pair in memory. `None` where the system does not tell.
    cpu_us_per_message: Option<f64>,
    /// The most memory the server process ever had.
    peak_rss_bytes: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let size = arguments.size.0;
    if size > MAX_MESSAGE_SIZE {
        return Err(Failure::usage(format!(
            "--size: at most {}, the library's limit",
            Size(MAX_MESSAGE_SIZE)
        )));
    }
    if arguments.duration.is_zero() {
        return Err(Failure::usage("--duration: there is nothing to measure in no time"));
    }
    let transports = if arguments.transport.is_empty() { Transport::ALL } else { &arguments.transport };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::runtime)?;
    let bar = ProgressBar::new(transports.len() as u64 * 2);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    let awake = (!arguments.let_cores_sleep).then(machine::Awake::start);
    let mut rows = Vec::new();
    for transport in transports {
        bar.set_message(transport.name());
        let measured = load::measure(*transport, size, arguments.window, arguments.duration, &bar);
        let limit = arguments.duration * 4 + STUCK;
        let row = runtime
            .block_on(async { tokio::time::timeout(limit, measured).await })
            .map_err(|_| Failure::runtime(format!("{}: nothing moved for {limit:?}", transport.name())))?
            .map_err(|error| Failure::runtime(format!("{}: {error}", transport.name())))?;
        rows.push((*transport, row));
    }
    drop(awake);
    bar.finish_and_clear();
    let report = report::Report {
        machine: machine::Machine::new(),
        size,
        window: arguments.window,
        duration: arguments.duration,
        awake: !arguments.let_cores_sleep,
        rows,
    };
    // First of all what cannot fail: it took a while.
    super::print(&if arguments.json { report.json() } else { report.text() })?;
    match &arguments.svg {
        Some(path) => chart::draw(&report, path)
            .map_err(|error| Failure::runtime(format!("cannot draw {}: {error}", path.display()))),
        None => Ok(()),
    }
}
