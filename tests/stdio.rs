//! Standard input and output: every kind of descriptor, the parent's flags, ends and exits.
#![cfg(all(feature = "net", target_os = "linux"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    fs::File,
    io::{ErrorKind, IoSlice, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use framewire::{
    buffer::BufferConfig,
    io::stdio::{self, Stdin, Stdout},
    transport::{STDIO_MAX_MESSAGE_SIZE, StdioTransport, Transport, TransportError, ZeroCopyTransport},
};
use rustix::fs::{OFlags, fcntl_getfl};
use tokio::io::{AsyncReadExt, AsyncWrite as _, AsyncWriteExt};

const ROLE: &str = "FRAMEWIRE_STDIO_ROLE";

/// Not a test of its own: what this program does when one of the tests below starts it again as a child.
#[test]
fn child_role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if role.starts_with("airs") {
            return airs(&role).await;
        }
        let (mut input, mut output) = stdio::open().unwrap();
        match role.as_str() {
            "echo" => {
                let mut buffer = [0; 4096];
                loop {
                    let count = input.read(&mut buffer).await.unwrap();
                    if count == 0 {
                        break;
                    }
                    output.write_all(&buffer[..count]).await.unwrap();
                    output.flush().await.unwrap();
                }
            }
            "panic" => panic!("on purpose"),
            "wait" => {
                output.write_all(b"ready\n").await.unwrap();
                output.flush().await.unwrap();
                input.read_u8().await.unwrap();
            }
            "exit" => {
                let read = tokio::spawn(async move { input.read_u8().await });
                tokio::time::sleep(Duration::from_millis(50)).await;
                read.abort();
            }
            "twice" => {
                let error = stdio::open().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ResourceBusy);
                assert!(error.get_ref().unwrap().is::<stdio::AlreadyTaken>());
            }
            "shutdown" => {
                output.shutdown().await.unwrap();
                println!("goes to standard error");
                input.read_u8().await.unwrap();
            }
            "print" => {
                println!("torn");
                let status = Command::new("/bin/sh").args(["-c", "read x; echo torn $x"]).status().unwrap();
                assert!(status.success());
                output.write_all(b"whole\n").await.unwrap();
                assert_eq!(input.read_u8().await.unwrap(), b'x');
            }
            "epipe" => {
                output.write_all(b"ready\n").await.unwrap();
                // Wait until the parent has closed its end.
                input.read_u8().await.unwrap();
                let error = output.write_all(&[0; 100_000]).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            }
            other => panic!("{other}"),
        }
    });
    drop(runtime);
    std::process::exit(42);
}

/// The transport by AIRS's names, on lines of eight and nine bytes.
async fn airs(role: &str) {
    let mut transport = match role {
        "airs-plain" => {
            let refused = StdioTransport::with_max_message_size(0).await;
            let reason = "max_message_size must be greater than 0";
            assert!(matches!(refused, Err(TransportError::Format { message }) if message == reason));
            let transport = StdioTransport::new().await.unwrap();
            assert_eq!((transport.max_message_size(), STDIO_MAX_MESSAGE_SIZE), (1 << 20, 1 << 20));
            assert!(
                matches!(StdioTransport::new().await, Err(TransportError::Io(error)) if error.kind() == ErrorKind::ResourceBusy)
            );
            transport
        }
        "airs-limit" => StdioTransport::with_max_message_size(8).await.unwrap(),
        _ => {
            let config = BufferConfig { max_message_size: 8, pool_size: 2, ..Default::default() };
            StdioTransport::with_buffer_config(config).await.unwrap()
        }
    };
    assert!(!transport.is_closed().await);
    assert_eq!(transport.receive().await.unwrap(), b"of eight");
    let long = Transport::receive(&mut transport).await;
    if role == "airs-plain" {
        assert_eq!(long.unwrap(), b"nine here");
        transport.send(&[b'x'; 1 << 20]).await.unwrap();
        let over = Transport::send(&mut transport, &[b'x'; (1 << 20) + 1]).await.unwrap_err();
        assert_eq!(over.to_string(), "buffer overflow: Message size 1048577 exceeds limit 1048576");
    } else {
        assert_eq!(transport.max_message_size(), 8);
        assert!(matches!(long, Err(TransportError::MessageTooLarge { size: 9, max_size: 8 })), "{long:?}");
        let over = Transport::send(&mut transport, b"nine more").await.unwrap_err();
        assert_eq!(over.to_string(), "buffer overflow: Message size 9 exceeds limit 8");
    }
    assert_eq!(transport.has_advanced_buffer_management(), role == "airs-pool");
    assert_eq!(
        transport.buffer_metrics().map(|metrics| metrics.acquired() > 0),
        (role == "airs-pool").then_some(true)
    );
    assert!(matches!(Transport::send(&mut transport, b"a\nb").await, Err(TransportError::Format { .. })));
    transport.send_bytes(b"the last\n").await.unwrap();
    assert!(matches!(Transport::receive(&mut transport).await, Err(TransportError::Closed)));
    assert!(transport.is_closed().await);
    Transport::close(&mut transport).await.unwrap();
    Transport::close(&mut transport).await.unwrap();
    assert!(matches!(Transport::send(&mut transport, b"late").await, Err(TransportError::Closed)));
}

#[test]
fn d31_the_transport_keeps_its_limit_under_each_of_its_names() {
    for role in ["airs-plain", "airs-limit", "airs-pool"] {
        let (input, mut to) = std::io::pipe().unwrap();
        let (mut from, output) = std::io::pipe().unwrap();
        let mut child = start(role, input, output);
        to.write_all(b"of eight\nnine here\n").unwrap();
        drop(to);
        let mut heard = Vec::new();
        from.read_to_end(&mut heard).unwrap();
        assert!(heard.ends_with(b"the last\n"), "{role}: {:?}", String::from_utf8_lossy(&heard));
        assert_eq!(wait(&mut child).code(), Some(42), "{role}");
    }
}

fn start(role: &str, input: impl Into<Stdio>, output: impl Into<Stdio>) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_role", "--nocapture", "-q"])
        .env(ROLE, role)
        .stdin(input)
        .stdout(output)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the child hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_nonblocking(fd: impl AsFd) -> bool {
    fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
}

fn terminal() -> (OwnedFd, OwnedFd) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, rustix::fs::Mode::empty()).unwrap();
    let mut modes = rustix::termios::tcgetattr(&slave).unwrap();
    modes.make_raw();
    rustix::termios::tcsetattr(&slave, rustix::termios::OptionalActions::Now, &modes).unwrap();
    (master, slave)
}

fn read_until(mut from: impl Read, needle: &[u8]) {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    while !all.windows(needle.len()).any(|part| part == needle) {
        let count = from.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "ended after {:?}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&buffer[..count]);
    }
}

/// Runs a child on descriptors of each kind and checks the flags that it shares with us while it runs and afterwards.
fn flags_untouched(role: &str, end: impl Fn(&mut Child)) {
    // Pipes.
    let (input, mut to) = std::io::pipe().unwrap();
    let (from, output) = std::io::pipe().unwrap();
    let mut child = start(role, input.try_clone().unwrap(), output.try_clone().unwrap());
    if role != "panic" {
        to.write_all(b"").unwrap();
        read_until(&from, b"ready\n");
    }
    assert!(!is_nonblocking(&input) && !is_nonblocking(&output));
    end(&mut child);
    assert!(!is_nonblocking(&input) && !is_nonblocking(&output));

    // A socket pair, as node.js gives its children.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let fd = OwnedFd::from(theirs);
    let mut child = start(role, fd.try_clone().unwrap(), fd.try_clone().unwrap());
    if role != "panic" {
        read_until(&ours, b"ready\n");
    }
    assert!(!is_nonblocking(&fd));
    end(&mut child);
    assert!(!is_nonblocking(&fd));

    // A terminal.
    let (master, slave) = terminal();
    let mut child = start(role, slave.try_clone().unwrap(), slave.try_clone().unwrap());
    if role != "panic" {
        read_until(File::from(master.try_clone().unwrap()), b"ready\n");
    }
    assert!(!is_nonblocking(&slave));
    end(&mut child);
    assert!(!is_nonblocking(&slave));

    // Regular files.
    let file = tempfile::tempfile().unwrap();
    let mut child = start(role, File::open("/dev/null").unwrap(), file.try_clone().unwrap());
    end(&mut child);
    assert!(!is_nonblocking(&file));
}

#[test]
fn flags_of_the_parent_are_untouched_after_sigkill() {
    flags_untouched("wait", |child| {
        child.kill().unwrap();
        wait(child);
    });
}

#[test]
fn flags_of_the_parent_are_untouched_after_a_panic() {
    flags_untouched("panic", |child| {
        wait(child);
    });
}

#[test]
fn echoes_over_pipes_sockets_a_terminal_and_files() {
    let text = vec![b'x'; 300_000];
    let check = |input: OwnedFd, output: OwnedFd, mut to: File, from: File, closes: bool| {
        let mut child = start("echo", input, output);
        let sent = text.clone();
        let writer = std::thread::spawn(move || {
            to.write_all(&sent).unwrap();
            to
        });
        read_until(from, &text);
        let to = writer.join().unwrap();
        if closes {
            drop(to);
            assert_eq!(wait(&mut child).code(), Some(42));
        } else {
            child.kill().unwrap();
            wait(&mut child);
        }
    };
    let (input, to) = std::io::pipe().unwrap();
    let (from, output) = std::io::pipe().unwrap();
    check(input.into(), output.into(), OwnedFd::from(to).into(), OwnedFd::from(from).into(), true);

    let (ours, theirs) = UnixStream::pair().unwrap();
    let (to, from) = (ours.try_clone().unwrap(), ours);
    let (input, output) = (theirs.try_clone().unwrap(), theirs);
    check(input.into(), output.into(), OwnedFd::from(to).into(), OwnedFd::from(from).into(), false);

    let (master, slave) = terminal();
    check(slave.try_clone().unwrap(), slave, master.try_clone().unwrap().into(), master.into(), false);

    let mut input = tempfile::NamedTempFile::new().unwrap();
    input.write_all(&text).unwrap();
    let output = tempfile::NamedTempFile::new().unwrap();
    let mut child = start("echo", File::open(input.path()).unwrap(), output.reopen().unwrap());
    assert_eq!(wait(&mut child).code(), Some(42));
    let written = std::fs::read(output.path()).unwrap();
    assert!(written.windows(text.len()).any(|part| part == text));
}

#[test]
fn a_blocked_read_does_not_hold_up_the_exit() {
    let (input, _to) = std::io::pipe().unwrap();
    let mut child = start("exit", input, Stdio::null());
    assert_eq!(wait(&mut child).code(), Some(42));
    // Through the thread: the poller does not know what it cannot open again.
    let (master, _slave) = terminal();
    let mut child = start("exit", master, Stdio::null());
    assert_eq!(wait(&mut child).code(), Some(42));
}

#[test]
fn taking_it_twice_is_a_typed_error() {
    let mut child = start("twice", Stdio::null(), Stdio::null());
    assert_eq!(wait(&mut child).code(), Some(42));
}

#[test]
fn a_gone_reader_is_an_error_not_a_signal() {
    for socket in [false, true] {
        let (input, mut to) = std::io::pipe().unwrap();
        let (from, output): (OwnedFd, OwnedFd) = if socket {
            let (ours, theirs) = UnixStream::pair().unwrap();
            (ours.into(), theirs.into())
        } else {
            let (ours, theirs) = std::io::pipe().unwrap();
            (ours.into(), theirs.into())
        };
        let mut child = start("epipe", input, output);
        read_until(File::from(from), b"ready\n");
        to.write_all(b"x").unwrap();
        assert_eq!(wait(&mut child).code(), Some(42));
    }
}

#[test]
fn shutting_down_the_output_shows_the_peer_the_end() {
    let (input, to) = std::io::pipe().unwrap();
    let (mut from, output) = std::io::pipe().unwrap();
    let mut child = start("shutdown", input, output);
    let mut rest = Vec::new();
    from.read_to_end(&mut rest).unwrap();
    assert!(child.try_wait().unwrap().is_none());
    drop(to);
    wait(&mut child);
}

#[test]
fn d35_neither_a_print_nor_a_child_gets_into_the_stream() {
    let (input, mut to) = std::io::pipe().unwrap();
    let (mut from, output) = std::io::pipe().unwrap();
    let mut child = start("print", input, output);
    to.write_all(b"x\n").unwrap();
    let mut all = String::new();
    from.read_to_string(&mut all).unwrap();
    // What the harness prints before is in front.
    assert!(all.ends_with("whole\n") && !all.contains("torn"), "{all}");
    wait(&mut child);
}

#[tokio::test]
async fn a_pipe_whose_writer_left_before_the_start_gives_its_bytes_then_the_end() {
    let (from, mut to) = std::io::pipe().unwrap();
    to.write_all(b"last words").unwrap();
    drop(to);
    let mut input = Stdin::from_fd(from.into()).unwrap();
    assert!(!input.is_threaded());
    let mut text = String::new();
    input.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "last words");
}

#[tokio::test]
async fn a_fifo_whose_writer_left_is_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let both = File::options().read(true).write(true).open(&path).unwrap();
    let from = File::open(&path).unwrap();
    drop(both);
    let mut input = Stdin::from_fd(from.into()).unwrap();
    let mut buffer = [0; 8];
    let read = tokio::time::timeout(Duration::from_secs(5), input.read(&mut buffer));
    assert_eq!(read.await.expect("waits for ever").unwrap(), 0);
}

#[tokio::test]
async fn a_pipe_whose_reader_is_gone_is_broken() {
    let (from, to) = std::io::pipe().unwrap();
    drop(from);
    let mut output = Stdout::from_fd(to.into()).unwrap();
    let error = match output.write_all(b"x").await {
        Ok(()) => output.flush().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_full_pipe_waits_and_goes_on() {
    let (mut from, to) = std::io::pipe().unwrap();
    let mut output = Stdout::from_fd(to.into()).unwrap();
    let reader = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        let mut all = Vec::new();
        from.read_to_end(&mut all).unwrap();
        all.len()
    });
    output.write_all(&vec![7; 1_000_000]).await.unwrap();
    output.shutdown().await.unwrap();
    assert_eq!(reader.join().unwrap(), 1_000_000);
    assert_eq!(output.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn many_slices_leave_in_one_call() {
    let (mut from, to) = UnixStream::pair().unwrap();
    let mut output = Stdout::from_fd(to.into()).unwrap();
    let parts: Vec<_> = (0..2000).map(|_| IoSlice::new(b"ab")).collect();
    assert!(output.is_write_vectored());
    let count = output.write_vectored(&parts).await.unwrap();
    assert_eq!(count, 2048);
    let mut read = vec![0; 2048];
    from.read_exact(&mut read).unwrap();
    assert!(read.chunks(2).all(|pair| pair == b"ab"));
}

#[tokio::test]
async fn lines_of_a_terminal_arrive_each_on_its_own() {
    let (master, slave) = terminal();
    let mut modes = rustix::termios::tcgetattr(&slave).unwrap();
    modes.local_modes.insert(rustix::termios::LocalModes::ICANON);
    rustix::termios::tcsetattr(&slave, rustix::termios::OptionalActions::Now, &modes).unwrap();
    let mut input = Stdin::from_fd(slave).unwrap();
    assert!(!input.is_threaded());
    File::from(master.try_clone().unwrap()).write_all(b"one\ntwo\nthree\n").unwrap();
    let mut buffer = [0; 64];
    for line in ["one\n", "two\n", "three\n"] {
        let read = tokio::time::timeout(Duration::from_secs(5), input.read(&mut buffer));
        let count = read.await.expect("waits for ever").unwrap();
        assert_eq!(&buffer[..count], line.as_bytes());
    }
}

#[tokio::test]
async fn null_is_at_its_end_and_takes_everything() {
    let null = || OwnedFd::from(File::options().read(true).write(true).open("/dev/null").unwrap());
    assert_eq!(Stdin::from_fd(null()).unwrap().read(&mut [0; 8]).await.unwrap(), 0);
    Stdout::from_fd(null()).unwrap().write_all(&[0; 100_000]).await.unwrap();
}
