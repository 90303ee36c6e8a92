//! The load: keeps a number of messages in flight on one connection and checks every byte of every answer.
//!
//! It has to cost little, for it shares the machine with the server it measures. Messages for an echo are laid out once
//! in a ring, all different, so what has to come back at any position of the stream is known: sending is a `write` from
//! the ring, checking a comparison with it, and there is no work per message at all. Services answer in any order and
//! with other text, so for those each answer is looked at.

use std::{
    collections::HashSet,
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, ioctl_fionbio, read, write},
};

/// How long a server may owe an answer before the run is given up.
const STALL: Duration = Duration::from_secs(10);
/// Room for one read.
const READ: usize = 256 * 1024;
/// The ring holds this many bytes at most, unless that is less than two windows.
const RING: usize = 256 * 1024;

/// How messages are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// A line feed after each.
    Newline,
    /// Four bytes, big-endian, before each.
    Length,
}

/// Messages to send and what has to come back.
#[derive(Debug)]
pub(crate) enum Traffic {
    /// The same bytes come back in the same order.
    Echo {
        /// The messages, framed, one after the other.
        ring: Vec<u8>,
        /// Bytes of one, framing included.
        size: usize,
    },
    /// MCP `ping` requests; one result comes back for each, in any order.
    Ping,
}

impl Traffic {
    /// JSON-RPC requests for at most `window` in flight: of `size` bytes each, or MCP's bare `ping`.
    ///
    /// # Panics
    /// When `size` is too small for a request with parameters.
    pub(crate) fn echo(framing: Framing, size: Option<usize>, window: usize) -> Self {
        let count = (RING / size.unwrap_or(PING)).clamp(2 * window, 1024.max(2 * window));
        let mut ring = Vec::new();
        for number in 0..count {
            let id = 10_000_000 + number;
            let mut message = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#).into_bytes();
            if let Some(size) = size {
                let tail = br#""}}"#;
                message.pop();
                message.extend_from_slice(br#","params":{"pad":""#);
                let pad = size.checked_sub(message.len() + tail.len()).expect("room for parameters");
                // Not one byte over and over: answers that are shifted have to show.
                message.extend((0..pad).map(|at| b'a' + ((at + number) % 26) as u8));
                message.extend_from_slice(tail);
            }
            if framing == Framing::Length {
                let length = u32::try_from(message.len()).expect("below 4 GiB");
                ring.extend_from_slice(&length.to_be_bytes());
            }
            ring.extend_from_slice(&message);
            if framing == Framing::Newline {
                ring.push(b'\n');
            }
        }
        let size = ring.len() / count;
        Self::Echo { ring, size }
    }
}

/// What a run brought.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Messages answered, and found right.
    pub(crate) messages: u64,
    /// From the first write to the last answer.
    pub(crate) elapsed: Duration,
    /// Reads that brought something: `messages / reads` tells how well the server batches its writes.
    pub(crate) reads: u64,
}

/// One connection to a server.
#[derive(Debug)]
pub(crate) struct Peer {
    reader: OwnedFd,
    writer: OwnedFd,
    buffer: Vec<u8>,
    /// Position in the stream of an echo, in bytes; equal for both directions between runs.
    position: usize,
    next_id: u64,
}

impl Peer {
    /// A peer on two descriptors, which may be of the same socket.
    pub(crate) fn new(reader: OwnedFd, writer: OwnedFd) -> Self {
        Self { reader, writer, buffer: vec![0; READ], position: 0, next_id: 10_000_000 }
    }

    /// MCP's opening, which services want to see before anything else.
    ///
    /// # Errors
    /// When the server does not answer.
    pub(crate) fn initialize(&mut self) -> io::Result<()> {
        self.blocking(true)?;
        let request = concat!(
            r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","#,
            r#""capabilities":{},"clientInfo":{"name":"load","version":"1"}}}"#,
            "\n"
        );
        self.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        while answer.last() != Some(&b'\n') {
            self.wait(PollFlags::IN)?;
            let got = self.read()?;
            answer.extend_from_slice(&self.buffer[..got]);
        }
        if !answer.windows(8).any(|part| part == b"\"result\"") {
            return Err(io::Error::other(format!("initialize: {}", String::from_utf8_lossy(&answer))));
        }
        self.write_all(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n")
    }

    /// Keeps `window` messages in flight for `time`, then takes in the answers that are still owed.
    ///
    /// # Errors
    /// When the connection fails, an answer is wrong or none comes.
    pub(crate) fn run(&mut self, traffic: &Traffic, window: usize, time: Duration) -> io::Result<Outcome> {
        self.blocking(false)?;
        match traffic {
            Traffic::Echo { ring, size } => self.run_echo(ring, *size, window, time),
            Traffic::Ping => self.run_ping(window, time),
        }
    }

    fn run_echo(&mut self, ring: &[u8], size: usize, window: usize, time: Duration) -> io::Result<Outcome> {
        let start = Instant::now();
        let (mut sent, mut received) = (self.position, self.position);
        // Whole messages only: what is sent goes up to the end of the newest message the window allows.
        let mut limit = sent + window * size;
        let mut outcome = Outcome::default();
        let mut over = false;
        while !(over && received == limit) {
            let mut moved = false;
            while sent < limit {
                let from = sent % ring.len();
                let to = (from + limit - sent).min(ring.len());
                match write(&self.writer, &ring[from..to]) {
                    Ok(wrote) => sent += wrote,
                    Err(Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
                moved = true;
            }
            match read(&self.reader, &mut self.buffer[..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(got) => {
                    outcome.reads += 1;
                    self.check(ring, received, got)?;
                    received += got;
                    if received > sent {
                        return Err(io::Error::other("more came back than was sent"));
                    }
                    over |= start.elapsed() >= time;
                    if !over {
                        limit = received / size * size + window * size;
                    }
                }
                Err(Errno::AGAIN) if moved => {}
                Err(Errno::AGAIN) => self.wait_both(sent < limit)?,
                Err(error) => return Err(error.into()),
            }
        }
        outcome.messages = ((received - self.position) / size) as u64;
        outcome.elapsed = start.elapsed();
        self.position = received;
        Ok(outcome)
    }

    /// Are the `got` bytes in the buffer those at `position` of the stream?
    fn check(&self, ring: &[u8], position: usize, got: usize) -> io::Result<()> {
        let mut done = 0;
        while done < got {
            let from = (position + done) % ring.len();
            let part = (got - done).min(ring.len() - from);
            if self.buffer[done..done + part] != ring[from..from + part] {
                return Err(io::Error::other(format!(
                    "wrong answer at byte {}: {:?} instead of {:?}",
                    position + done,
                    String::from_utf8_lossy(&self.buffer[done..(done + part).min(done + 200)]),
                    String::from_utf8_lossy(&ring[from..(from + part).min(from + 200)]),
                )));
            }
            done += part;
        }
        Ok(())
    }

    fn run_ping(&mut self, window: usize, time: Duration) -> io::Result<Outcome> {
        let start = Instant::now();
        let mut outcome = Outcome::default();
        let mut owed = HashSet::with_capacity(window);
        let (mut outgoing, mut incoming) = (Vec::new(), Vec::new());
        let mut over = false;
        loop {
            over |= start.elapsed() >= time;
            while !over && owed.len() < window {
                ping(&mut outgoing, self.next_id);
                owed.insert(self.next_id);
                self.next_id += 1;
            }
            if over && owed.is_empty() {
                break;
            }
            match write(&self.writer, &outgoing) {
                _ if outgoing.is_empty() => {}
                Ok(wrote) => drop(outgoing.drain(..wrote)),
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
            match read(&self.reader, &mut self.buffer[..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(got) => {
                    outcome.reads += 1;
                    incoming.extend_from_slice(&self.buffer[..got]);
                    let mut done = 0;
                    while let Some(end) = memchr::memchr(b'\n', &incoming[done..]) {
                        let line = &incoming[done..done + end];
                        if !answered(line).is_some_and(|id| owed.remove(&id)) {
                            return Err(io::Error::other(format!(
                                "wrong answer: {}",
                                String::from_utf8_lossy(line)
                            )));
                        }
                        outcome.messages += 1;
                        done += end + 1;
                    }
                    incoming.drain(..done);
                }
                Err(Errno::AGAIN) => self.wait_both(!outgoing.is_empty())?,
                Err(error) => return Err(error.into()),
            }
        }
        outcome.elapsed = start.elapsed();
        Ok(outcome)
    }

    /// One message at a time for `time`: how long each answer took, in nanoseconds.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(crate) fn latencies(&mut self, traffic: &Traffic, time: Duration) -> io::Result<Vec<u64>> {
        self.blocking(true)?;
        let start = Instant::now();
        let mut latencies = Vec::with_capacity(1 << 16);
        let mut message = Vec::new();
        while start.elapsed() < time {
            let expected = match traffic {
                Traffic::Echo { ring, size } => {
                    let from = self.position % ring.len();
                    message.clear();
                    message.extend_from_slice(&ring[from..from + size]);
                    *size
                }
                Traffic::Ping => {
                    message.clear();
                    ping(&mut message, self.next_id);
                    PONG
                }
            };
            let sent = Instant::now();
            self.write_all(&message)?;
            let mut got = 0;
            while got < expected {
                match read(&self.reader, &mut self.buffer[got..])? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    more => got += more,
                }
            }
            latencies.push(u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX));
            match traffic {
                Traffic::Echo { ring, size } => {
                    self.check(ring, self.position, got)?;
                    self.position += size;
                }
                Traffic::Ping => {
                    if answered(&self.buffer[..got - 1]) != Some(self.next_id) {
                        return Err(io::Error::other("wrong answer"));
                    }
                    self.next_id += 1;
                }
            }
        }
        Ok(latencies)
    }

    fn blocking(&self, blocking: bool) -> io::Result<()> {
        ioctl_fionbio(&self.reader, !blocking)?;
        ioctl_fionbio(&self.writer, !blocking)?;
        Ok(())
    }

    fn read(&mut self) -> io::Result<usize> {
        match read(&self.reader, &mut self.buffer[..])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            got => Ok(got),
        }
    }

    fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let wrote = write(&self.writer, bytes)?;
            bytes = &bytes[wrote..];
        }
        Ok(())
    }

    fn wait(&self, flags: PollFlags) -> io::Result<()> {
        let deadline = Timespec::try_from(STALL).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.reader, flags)], Some(&deadline))? {
            0 => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")),
            _ => Ok(()),
        }
    }

    fn wait_both(&self, to_write: bool) -> io::Result<()> {
        if !to_write {
            return self.wait(PollFlags::IN);
        }
        let deadline = Timespec::try_from(STALL).map_err(io::Error::other)?;
        let mut both = [PollFd::new(&self.reader, PollFlags::IN), PollFd::new(&self.writer, PollFlags::OUT)];
        match poll(&mut both, Some(&deadline))? {
            0 => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")),
            _ => Ok(()),
        }
    }
}

/// Bytes of a ping.
pub(crate) const PING: usize = r#"{"jsonrpc":"2.0","id":10000000,"method":"ping"}"#.len();
/// Bytes of an answer to a ping, line feed included.
const PONG: usize = r#"{"jsonrpc":"2.0","id":10000000,"result":{}}"#.len() + 1;

fn ping(out: &mut Vec<u8>, id: u64) {
    out.extend_from_slice(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"ping\"}}\n").as_bytes());
}

/// The identifier of a plain answer to a ping, whatever the order of its members.
fn answered(line: &[u8]) -> Option<u64> {
    let line = std::str::from_utf8(line).ok()?;
    let whole =
        line.len() == PONG - 1 && line.contains(r#""jsonrpc":"2.0""#) && line.contains(r#""result":{}"#);
    let id = line.split_once(r#""id":"#)?.1;
    whole.then(|| id.get(..8)?.parse().ok())?
}
