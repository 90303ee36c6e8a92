//! `framewire tap`: a bridge that shows what passes.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use clap::Args;
use framewire::{
    Error,
    gateway::Direction,
    json::{Envelope, Id, Kind},
};
use tracing::error;

use super::{
    bridge,
    exit::Failure,
    log, quantity,
    recording::Recorder,
    replay::{self, Speed},
};

/// Watch the messages between two endpoints
///
/// A bridge that prints each message: when, on which connection, which way, how large, its kind, method and id, how long
/// after its request an answer came, and its first bytes, escaped.
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

    /// Write every message to FILE too, whole, so that it can be replayed
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    record: Option<PathBuf>,

    /// Play the client's messages in FILE to --connect, and tell how the answers differ from those recorded
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,

    /// How fast to replay
    #[arg(long, value_enum, default_value_t = Speed::Full)]
    speed: Speed,

    /// How long a replay waits for what was recorded
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = quantity::duration)]
    replay_timeout: Duration,

    /// Write JSON, one object per line, logs too
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { ends, limits, output, preview, json, record, replay, speed, replay_timeout } = arguments;
    if let Some(path) = replay {
        let (endpoint, outgoing) = (ends.backend()?, limits.outgoing(false)?);
        return replay::run(&path, &endpoint, &outgoing, speed, replay_timeout);
    }
    let cannot = |path: &Path, error| Failure::runtime(format!("cannot write {}: {error}", path.display()));
    let record =
        record.map(|path| Recorder::create(&path).map_err(|error| cannot(&path, error))).transpose()?;
    let to_file = output.is_some();
    let output: Box<dyn Write + Send> = match output {
        Some(path) => Box::new(File::create(&path).map_err(|error| cannot(&path, error))?),
        None => Box::new(io::stderr()),
    };
    let output = Mutex::new(BufWriter::new(output));
    let failed = Arc::new(AtomicBool::new(false));
    let tap = Tap {
        output,
        to_file,
        asked: Mutex::default(),
        preview,
        json,
        record,
        failed: Arc::clone(&failed),
        start: Instant::now(),
    };
    bridge::start(ends, &limits, Some(tap))?;
    if failed.load(Relaxed) {
        return Err(Failure::runtime("what passed could not all be written"));
    }
    Ok(())
}

/// Where what passes is shown.
pub(crate) struct Tap {
    output: Mutex<BufWriter<Box<dyn Write + Send>>>,
    /// It is a file, not the screen.
    to_file: bool,
    asked: Mutex<Asked>,
    preview: usize,
    json: bool,
    record: Option<Recorder>,
    /// A file could not be written.
    failed: Arc<AtomicBool>,
    start: Instant,
}

impl Tap {
    /// Shows one message.
    pub(crate) fn message(&self, connection: u64, direction: Direction, payload: &[u8]) {
        if let Some(record) = &self.record
            && let Err(error) = record.message(connection, direction, payload)
        {
            self.failed.store(true, Relaxed);
            error!("the recording ends here: {error}");
        }
        // Read from outside: what is no message has no envelope and is shown as it is.
        let envelope = Envelope::peek(payload).ok();
        let text = log::preview(payload, self.preview);
        let took = envelope.as_ref().and_then(|envelope| {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.note(connection, direction, envelope)
        });
        self.line(connection, direction, Some(payload.len()), envelope.as_ref().map(|it| (it, took)), &text);
    }

    /// Shows what a backend wrote that is no message, and was left out.
    pub(crate) fn noise(&self, connection: u64, payload: &[u8]) {
        let text = format!("dropped, no message: {}", log::preview(payload, self.preview));
        self.line(connection, Direction::ToClient, None, None, &text);
    }

    /// Shows that one was left out.
    pub(crate) fn dropped(&self, connection: u64, direction: Direction, error: &Error) {
        self.line(connection, direction, None, None, &format!("dropped: {error}"));
    }

    fn line(
        &self,
        connection: u64,
        direction: Direction,
        size: Option<usize>,
        envelope: Option<(&Envelope<'_>, Option<Duration>)>,
        text: &str,
    ) {
        let at = self.start.elapsed().as_secs_f64();
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let written = if self.json {
            let way = if direction == Direction::ToBackend { "to_backend" } else { "to_client" };
            let key = if size.is_some() { "preview" } else { "fault" };
            let mut line = serde_json::json!({
                "seconds": (at * 1e6).round() / 1e6, "connection": connection, "way": way, "size": size, key: text,
            });
            if let (Some(line), Some((envelope, took))) = (line.as_object_mut(), envelope) {
                line.insert("kind".to_owned(), kind(envelope).into());
                line.insert("id".to_owned(), id(envelope).into());
                line.insert("method".to_owned(), method(envelope).into());
                if let Some(took) = took {
                    let tenths = (took.as_secs_f64() * 1e7).round();
                    line.insert("latency_us".to_owned(), (tenths / 10.0).into());
                }
            }
            writeln!(output, "{line}")
        } else {
            let arrow = if direction == Direction::ToBackend { "-->" } else { "<--" };
            let size = size.map_or("-".to_owned(), |size| size.to_string());
            let mut about = String::new();
            if let Some((envelope, took)) = envelope {
                about.push_str(kind(envelope));
                let id = id(envelope).map(|id| format!("id={id}"));
                let took = took.map(|took| format!("{:.3} ms", took.as_secs_f64() * 1e3));
                for part in [method(envelope), id, took].into_iter().flatten() {
                    about.push(' ');
                    about.push_str(&part);
                }
                about.push(' ');
            }
            writeln!(output, "{at:11.6} #{connection} {arrow} {size:>7} {about}{text}")
        };
        // What cannot be written must not end the connection; of a screen that is gone nobody can be told.
        if let Err(error) = written.and_then(|()| output.flush())
            && self.to_file
            && !self.failed.swap(true, Relaxed)
        {
            error!("cannot write to the output file: {error}");
        }
    }
}

/// Requests whose answers are waited for; the oldest is forgotten for one more.
const MAX_ASKED: usize = 1024;

/// Bytes of an id that are remembered; the answer to a longer one is shown without the time that it took.
const MAX_ID: usize = 256;

/// When which request passed.
#[derive(Default)]
struct Asked(HashMap<(u64, bool, Vec<u8>), Instant>);

impl Asked {
    /// Remembers a request; of an answer, says how long it took. Of a batch, what took longest.
    fn note(&mut self, connection: u64, direction: Direction, envelope: &Envelope<'_>) -> Option<Duration> {
        let to_backend = direction == Direction::ToBackend;
        match envelope.kind() {
            Kind::Request => {
                let key = (connection, to_backend, key(envelope.id())?);
                if self.0.len() >= MAX_ASKED
                    && let Some(oldest) = self.0.iter().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone())
                {
                    self.0.remove(&oldest);
                }
                self.0.insert(key, Instant::now());
                None
            }
            Kind::Response | Kind::Error => {
                let key = (connection, !to_backend, key(envelope.id())?);
                self.0.remove(&key).map(|at| at.elapsed())
            }
            Kind::Batch => envelope
                .elements()
                .flatten()
                .filter(|element| element.kind() != Kind::Batch)
                .filter_map(|element| self.note(connection, direction, &element))
                .max(),
            _ => None,
        }
    }
}

/// An id as it is told apart from others, however a string is written.
fn key(id: Id<'_>) -> Option<Vec<u8>> {
    let key = match id {
        Id::Integer(digits) => digits.to_vec(),
        Id::String(text) => [b"\"", text.unescape()?.as_bytes()].concat(),
        _ => return None,
    };
    (key.len() <= MAX_ID).then_some(key)
}

/// Bytes of an id or method to show: both come from a peer.
const SHOWN: usize = 64;

fn kind(envelope: &Envelope<'_>) -> &'static str {
    match envelope.kind() {
        Kind::Request => "request",
        Kind::Notification => "notification",
        Kind::Response => "response",
        Kind::Error => "error",
        Kind::Batch => "batch",
        _ => "other",
    }
}

fn id(envelope: &Envelope<'_>) -> Option<String> {
    match envelope.id() {
        Id::Absent => None,
        _ => envelope.raw_id().map(|id| log::preview(id, SHOWN)),
    }
}

fn method(envelope: &Envelope<'_>) -> Option<String> {
    envelope.method().map(|method| log::preview(method.raw(), SHOWN))
}
