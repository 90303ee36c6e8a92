//! Starts the command, talks to it, and never waits for ever.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// More than anything here takes on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn framewire(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_framewire"));
    command.args(arguments).env_remove("FRAMEWIRE_LOG").env("NO_COLOR", "1");
    command
}

/// Runs it to its end: exit code, stdout, stderr.
pub(crate) fn run(arguments: &[&str], stdin: &[u8]) -> (i32, Vec<u8>, String) {
    let mut child = framewire(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let stdin = stdin.to_vec();
    let writer = thread::spawn(move || {
        let _ = input.write_all(&stdin);
    });
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let out = thread::spawn(move || {
        let mut bytes = Vec::new();
        out.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let err = thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).unwrap();
        text
    });
    let status = wait(&mut child, LIMIT);
    let _ = child.kill();
    writer.join().unwrap();
    let (out, err) = (out.join().unwrap(), err.join().unwrap());
    let status = status.unwrap_or_else(|| panic!("{arguments:?} did not end: {err}"));
    (status.code().unwrap_or(-1), out, err)
}

pub(crate) fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > end {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A bridge in the background, killed when dropped.
pub(crate) struct Bridge {
    pub(crate) child: Child,
    log: mpsc::Receiver<String>,
    /// What it has logged so far.
    pub(crate) logged: Vec<String>,
    /// The endpoints it listens on, as it names them.
    pub(crate) endpoints: Vec<String>,
}

impl Bridge {
    /// Starts `framewire bridge --json` with `arguments` and waits until it listens on `listeners` endpoints.
    pub(crate) fn start(listeners: usize, arguments: &[&str]) -> Self {
        let (command, arguments) = match arguments {
            ["tap", rest @ ..] => ("tap", rest),
            rest => ("bridge", rest),
        };
        let mut child = framewire(&[&[command, "--json", "-v"], arguments].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, log) = mpsc::channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut bridge = Self { child, log, logged: Vec::new(), endpoints: Vec::new() };
        for _ in 0..listeners {
            let line = bridge.log_line("\"message\":\"listening\"");
            let line: serde_json::Value = serde_json::from_str(&line).expect("logs are JSON");
            bridge.endpoints.push(line["endpoint"].as_str().unwrap().to_owned());
        }
        bridge
    }

    /// Waits for a line of the log that contains `text`.
    pub(crate) fn log_line(&mut self, text: &str) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) => {
                    self.logged.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("no {text} in the log: {:#?}", self.logged),
            }
        }
    }

    /// Port of the first listener that is on TCP.
    pub(crate) fn port(&self) -> u16 {
        let endpoint = self.endpoints.iter().find(|endpoint| endpoint.starts_with("tcp:")).unwrap();
        let endpoint = endpoint.split('?').next().unwrap();
        endpoint.rsplit(':').next().unwrap().parse().unwrap()
    }

    pub(crate) fn connect(&self) -> Client<TcpStream> {
        Client::new(TcpStream::connect(("127.0.0.1", self.port())).unwrap())
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    pub(crate) fn code(&mut self) -> i32 {
        let status = wait(&mut self.child, LIMIT).expect("the bridge ends");
        status.code().unwrap_or(-1)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

/// Whether the process is there and no zombie.
pub(crate) fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with(['Z', 'X']))
}

pub(crate) trait Stream: Read + Write + Sized {
    fn twin(&self) -> Self;
    fn limit(&self);
}

impl Stream for TcpStream {
    fn twin(&self) -> Self {
        self.try_clone().unwrap()
    }

    fn limit(&self) {
        self.set_read_timeout(Some(LIMIT)).unwrap();
        self.set_write_timeout(Some(LIMIT)).unwrap();
        self.set_nodelay(true).unwrap();
    }
}

impl Stream for UnixStream {
    fn twin(&self) -> Self {
        self.try_clone().unwrap()
    }

    fn limit(&self) {
        self.set_read_timeout(Some(LIMIT)).unwrap();
        self.set_write_timeout(Some(LIMIT)).unwrap();
    }
}

/// A client that speaks lines.
pub(crate) struct Client<S: Stream> {
    pub(crate) writer: S,
    pub(crate) reader: BufReader<S>,
}

impl Client<UnixStream> {
    pub(crate) fn unix(path: &Path) -> Self {
        Self::new(UnixStream::connect(path).unwrap())
    }
}

impl<S: Stream> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        stream.limit();
        Self { reader: BufReader::new(stream.twin()), writer: stream }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).unwrap();
    }

    /// One line without its end; empty at the end of the stream.
    pub(crate) fn line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).unwrap();
        if line.ends_with(b"\n") {
            line.pop();
        }
        line
    }

    pub(crate) fn ask(&mut self, message: &str) -> serde_json::Value {
        self.send(format!("{message}\n").as_bytes());
        serde_json::from_slice(&self.line()).unwrap()
    }

    /// Everything up to the end of the stream.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).unwrap();
        rest
    }
}
