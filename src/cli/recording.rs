//! What `framewire tap --record` writes and `--replay` reads.
//!
//! The first line is `framewire recording 1`. Each message is a line of four fields with a blank between them, and the
//! message itself on the next, as it came, with one line feed behind it that is not part of it:
//!
//! | field | |
//! |---|---|
//! | time | seconds since the start, six digits after the point |
//! | connection | its number, from 1 |
//! | direction | `>` to the backend, `<` to the client |
//! | length | of the message in bytes: it may hold line feeds itself |

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use framewire::gateway::Direction;

const FIRST: &str = "framewire recording 1";

/// Bytes of a line of fields.
const MAX_LINE: u64 = 128;

/// A file that is written to. Only its owner may read it: messages hold secrets.
pub(crate) struct Recorder {
    /// `None` once something could not be written: behind half a message no other can be read.
    output: Mutex<Option<BufWriter<File>>>,
    start: Instant,
}

impl Recorder {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut output = BufWriter::new(options.open(path)?);
        writeln!(output, "{FIRST}")?;
        Ok(Self { output: Mutex::new(Some(output)), start: Instant::now() })
    }

    /// Writes one message; nothing more after one that could not be written.
    pub(crate) fn message(&self, connection: u64, direction: Direction, payload: &[u8]) -> io::Result<()> {
        let at = self.start.elapsed().as_secs_f64();
        let way = if direction == Direction::ToBackend { '>' } else { '<' };
        let mut slot = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(output) = slot.as_mut() else { return Ok(()) };
        let written = writeln!(output, "{at:.6} {connection} {way} {}", payload.len())
            .and_then(|()| output.write_all(payload))
            .and_then(|()| output.write_all(b"\n"))
            .and_then(|()| output.flush());
        if written.is_err()
            && let Some(output) = slot.take()
        {
            // Without another try to write what it holds.
            drop(output.into_parts());
        }
        written
    }
}

/// One message of a recording.
pub(crate) struct Recorded {
    pub(crate) at: Duration,
    pub(crate) connection: u64,
    pub(crate) direction: Direction,
    pub(crate) payload: Vec<u8>,
}

/// Reads a recording; messages may have `max` bytes.
pub(crate) fn read(path: &Path, max: usize) -> io::Result<Vec<Recorded>> {
    let mut input = BufReader::new(File::open(path)?);
    let bad = |line: usize, what: &str| {
        io::Error::new(io::ErrorKind::InvalidData, format!("message {line} of the recording: {what}"))
    };
    if line(&mut input)?.as_deref() != Some(FIRST) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no recording of framewire tap"));
    }
    let mut messages: Vec<Recorded> = Vec::new();
    while let Some(fields) = line(&mut input)? {
        let number = messages.len() + 1;
        let mut fields = fields.split(' ');
        let mut next = || fields.next().ok_or_else(|| bad(number, "a field is missing"));
        let at = next()?.parse().ok().and_then(|at| Duration::try_from_secs_f64(at).ok());
        let connection = next()?.parse().ok();
        let direction = match next()? {
            ">" => Direction::ToBackend,
            "<" => Direction::ToClient,
            _ => return Err(bad(number, "the direction is neither > nor <")),
        };
        let length: Option<usize> = next()?.parse().ok().filter(|length| *length <= max);
        let (Some(at), Some(connection), Some(length)) = (at, connection, length) else {
            return Err(bad(number, "a field is no number, or the message is too large"));
        };
        let mut payload = Vec::new();
        (&mut input).take(length as u64 + 1).read_to_end(&mut payload)?;
        if payload.len() != length + 1 || payload.pop() != Some(b'\n') {
            return Err(bad(number, "it is not whole"));
        }
        messages.push(Recorded { at, connection, direction, payload });
    }
    Ok(messages)
}

/// The next line of fields. `None` at the end.
fn line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if input.take(MAX_LINE).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(line.trim_end_matches('\n').to_owned()))
}
