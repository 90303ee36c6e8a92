//! `framewire tap`: a bridge that shows what passes.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use clap::Args;
use framewire::{Error, gateway::Direction};

use super::{bridge, exit::Failure, log};

/// Watch the messages between two endpoints
///
/// A bridge that prints each message: when, on which connection, which way, how large, and its first bytes, escaped.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    ends: bridge::Ends,

    #[command(flatten)]
    limits: bridge::Limits,

    /// Write to FILE instead of stderr
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Bytes of each message to show
    #[arg(long, value_name = "BYTES", default_value_t = 120)]
    preview: usize,

    /// Write JSON, one object per line, logs too
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { ends, limits, output, preview, json } = arguments;
    let output: Box<dyn Write + Send> = match output {
        Some(path) => Box::new(
            File::create(&path)
                .map_err(|error| Failure::runtime(format!("cannot write {}: {error}", path.display())))?,
        ),
        None => Box::new(io::stderr()),
    };
    let tap = Tap { output: Mutex::new(BufWriter::new(output)), preview, json, start: Instant::now() };
    bridge::start(ends, &limits, Some(tap))
}

/// Where what passes is shown.
pub(crate) struct Tap {
    output: Mutex<BufWriter<Box<dyn Write + Send>>>,
    preview: usize,
    json: bool,
    start: Instant,
}

impl Tap {
    /// Shows one message.
    pub(crate) fn message(&self, connection: u64, direction: Direction, payload: &[u8]) {
        self.line(connection, direction, Some(payload.len()), &log::preview(payload, self.preview));
    }

    /// Shows that one was left out.
    pub(crate) fn dropped(&self, connection: u64, direction: Direction, error: &Error) {
        self.line(connection, direction, None, &format!("dropped: {error}"));
    }

    fn line(&self, connection: u64, direction: Direction, size: Option<usize>, text: &str) {
        let at = self.start.elapsed().as_secs_f64();
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        // A screen that is gone must not end the connection.
        let _ = if self.json {
            let way = if direction == Direction::ToBackend { "to_backend" } else { "to_client" };
            let key = if size.is_some() { "preview" } else { "fault" };
            let line = serde_json::json!({
                "seconds": (at * 1e6).round() / 1e6, "connection": connection, "way": way, "size": size, key: text,
            });
            writeln!(output, "{line}")
        } else {
            let arrow = if direction == Direction::ToBackend { "-->" } else { "<--" };
            let size = size.map_or("-".to_owned(), |size| size.to_string());
            writeln!(output, "{at:11.6} #{connection} {arrow} {size:>7} {text}")
        };
        let _ = output.flush();
    }
}
