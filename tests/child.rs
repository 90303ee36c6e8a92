//! Child processes: ended, reaped and drained in every way they can misbehave.
#![cfg(all(feature = "net", target_os = "linux"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    io::ErrorKind,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use framewire::io::child::{ChildBuilder, ChildFailed, ChildHandle, ChildReader, ChildStderr, ChildWriter};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

type Child = (ChildReader, ChildWriter, ChildHandle);

fn shell(script: &str) -> ChildBuilder {
    ChildBuilder::new("/bin/sh").args(["-c", script])
}

fn start(script: &str) -> Child {
    shell(script).spawn().unwrap()
}

/// Whether a process of this number exists, as a zombie or alive.
fn exists(id: u32) -> bool {
    std::path::Path::new(&format!("/proc/{id}")).exists()
}

/// Alive and no zombie.
fn runs(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

fn soon(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !check() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

async fn line(reader: &mut ChildReader) -> String {
    let mut line = String::new();
    BufReader::with_capacity(1, reader).read_line(&mut line).await.unwrap();
    line.trim().to_owned()
}

#[tokio::test]
async fn echoes_and_ends_by_itself_when_its_input_is_closed() {
    let (mut reader, mut writer, handle) = start("cat");
    writer.write_all(b"hello\n").await.unwrap();
    assert_eq!(line(&mut reader).await, "hello");
    writer.shutdown().await.unwrap();
    assert_eq!(writer.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(reader.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(handle.shutdown().await.unwrap().is_success());
    assert!(!exists(handle.id()));
}

/// d41, and TurboMCP and AIRS alike: the child outlives its transport.
#[tokio::test]
async fn d41_dropping_both_halves_kills_the_child_and_its_group_without_a_zombie() {
    let (mut reader, writer, handle) = start("trap '' TERM HUP; sleep 1000 & echo $!; wait; sleep 1000");
    let grandchild: u32 = line(&mut reader).await.parse().unwrap();
    drop(reader);
    assert!(runs(handle.id()));
    drop(writer);
    soon("the child stays", || !exists(handle.id()));
    soon("the grandchild stays", || !runs(grandchild));
}

#[test]
fn d56_dropped_without_a_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let halves = runtime.block_on(async { start("sleep 1000") });
    drop(runtime);
    let id = halves.2.id();
    drop(halves);
    soon("the child stays", || !exists(id));
}

#[test]
fn dropped_with_its_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let id = runtime.block_on(async {
        let (mut reader, _writer, handle) = start("sleep 1000");
        let id = handle.id();
        tokio::spawn(async move {
            let _writer = _writer;
            reader.read_u8().await.unwrap();
        });
        id
    });
    drop(runtime);
    soon("the child stays", || !exists(id));
}

#[tokio::test]
async fn dropped_by_a_panic() {
    let (reader, writer, handle) = start("sleep 1000");
    let task = tokio::spawn(async move {
        let _halves = (reader, writer);
        panic!("on purpose");
    });
    task.await.unwrap_err();
    soon("the child stays", || !exists(handle.id()));
}

#[tokio::test]
async fn a_child_that_ignores_term_is_killed_and_one_that_obeys_is_not() {
    let grace = Duration::from_millis(100);
    let spawn = |script, term| shell(script).stdin_grace(grace).term_grace(term).spawn().unwrap();
    let (mut reader, _writer, handle) = spawn("trap '' TERM; echo up; while :; do sleep 1; done", grace);
    line(&mut reader).await;
    assert_eq!(handle.shutdown().await.unwrap().signal, Some(9));
    assert!(!exists(handle.id()));

    let (mut reader, _writer, handle) =
        spawn("trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done", Duration::from_secs(60));
    line(&mut reader).await;
    assert_eq!(handle.shutdown().await.unwrap().code, Some(7));
}

#[tokio::test]
async fn grandchildren_that_hold_the_pipes_end_with_the_shutdown() {
    let (mut reader, mut writer, handle) = start("sleep 1000 & echo $!");
    let grandchild: u32 = line(&mut reader).await.parse().unwrap();
    assert!(handle.wait().await.unwrap().is_success());
    assert!(runs(grandchild));
    writer.shutdown().await.unwrap();
    handle.shutdown().await.unwrap();
    soon("the grandchild stays", || !runs(grandchild));
    let read = tokio::time::timeout(Duration::from_secs(5), reader.read(&mut [0; 8])).await;
    assert_eq!(read.expect("no end").unwrap(), 0);
}

#[tokio::test]
async fn a_crash_is_told_with_its_code_its_signal_and_the_last_words() {
    for (script, code, signal) in [
        ("echo 'boom: no config' >&2; printf half; exit 3", Some(3), None),
        ("echo 'boom: no config' >&2; printf half; kill -9 $$", None, Some(9)),
    ] {
        let (mut reader, _writer, handle) = start(script);
        let mut half = [0; 4];
        reader.read_exact(&mut half).await.unwrap();
        let error = reader.read(&mut half).await.unwrap_err();
        let failed = error.get_ref().unwrap().downcast_ref::<ChildFailed>().unwrap();
        assert_eq!((failed.exit.code, failed.exit.signal), (code, signal));
        assert!(error.to_string().contains("boom: no config"), "{error}");
        assert_eq!(reader.read(&mut half).await.unwrap(), 0);
        assert_eq!(handle.try_exit(), Some(failed.exit));
    }
}

#[tokio::test]
async fn a_child_that_closes_its_output_but_lives_is_a_plain_end() {
    let (mut reader, _writer, handle) = start("exec >&-; sleep 1000");
    assert_eq!(reader.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(handle.try_exit(), None);
}

#[tokio::test]
async fn writing_to_a_child_that_is_gone_is_an_error() {
    let (_reader, mut writer, handle) = start("exit 0");
    handle.wait().await.unwrap();
    assert_eq!(writer.write_all(&[0; 200_000]).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_flood_of_errors_blocks_nothing_and_is_held_in_bounds() {
    let script = "head -c 10485760 /dev/zero | tr '\\0' e >&2; echo done; cat >/dev/null";
    let lines = Arc::new(Mutex::new((0_usize, 0_usize)));
    let seen = Arc::clone(&lines);
    let log = ChildStderr::Log(Box::new(move |line| {
        let mut seen = seen.lock().unwrap();
        *seen = (seen.0 + line.len(), seen.1.max(line.len()));
    }));
    for stderr in [ChildStderr::Ring(1000), ChildStderr::Null, log] {
        let (mut reader, _writer, handle) = shell(script).stderr(stderr).spawn().unwrap();
        let read = tokio::time::timeout(Duration::from_secs(60), line(&mut reader));
        assert_eq!(read.await.expect("stalls"), "done");
        assert!(handle.stderr().len() <= 8 * 1024);
    }
    soon("bytes are missing", || lines.lock().unwrap().0 == 10_485_760);
    assert!(lines.lock().unwrap().1 <= 8 * 1024);
}

#[tokio::test]
async fn lines_are_logged_whole_and_a_panicking_log_stops_nothing() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    let log = ChildStderr::Log(Box::new(move |line| seen.lock().unwrap().push(line.to_vec())));
    let script = "printf 'one\\r\\ntw' >&2; sleep 0.05; printf 'o\\n\\nlast' >&2; echo x; exit 0";
    let (_reader, _writer, handle) = shell(script).stderr(log).spawn().unwrap();
    handle.wait().await.unwrap();
    soon("lines are missing", || {
        handle.stderr();
        lines.lock().unwrap().len() == 4
    });
    assert_eq!(*lines.lock().unwrap(), [&b"one"[..], b"two", b"", b"last"]);

    let log = ChildStderr::Log(Box::new(|_| panic!("on purpose")));
    let script = "echo first >&2; head -c 1000000 /dev/zero >&2; echo done";
    let (mut reader, _writer, _handle) = shell(script).stderr(log).spawn().unwrap();
    let read = tokio::time::timeout(Duration::from_secs(20), line(&mut reader));
    assert_eq!(read.await.expect("stalls"), "done");
}

#[tokio::test]
async fn failed_starts_say_what_is_wrong() {
    let text = |builder: ChildBuilder| {
        let found_before = builder.check().err();
        let error = builder.spawn().unwrap_err();
        // What is not there is known before.
        assert_eq!(found_before.is_some(), error.kind() == ErrorKind::NotFound, "{error}");
        assert!(found_before.is_none_or(|found| found.to_string() == error.to_string()), "{error}");
        error.to_string()
    };
    let error = text(ChildBuilder::new("no-such-command-here"));
    assert!(error.contains("no such command in PATH (/"), "{error}");
    let error = text(ChildBuilder::new("sh").env("PATH", "/no/such/dir"));
    assert!(error.contains("no such command in PATH (/"), "{error}");
    let error = text(ChildBuilder::new("/no/such/file"));
    assert!(error.contains("no such file"), "{error}");
    let error = text(ChildBuilder::new("/etc/passwd"));
    assert!(error.contains("not executable"), "{error}");
    let error = shell("exit").current_dir("/no/such/dir").spawn().unwrap_err().to_string();
    assert!(error.contains("no directory /no/such/dir"), "{error}");
    assert!(shell("exit").check().is_ok() && ChildBuilder::new("./sh").current_dir("/bin").check().is_ok());
    let dir = tempfile::tempdir().unwrap();
    // Not written from here: a test beside this one could fork meanwhile, and its child would hold the file open.
    let write = "echo '#!/no/such/interpreter' >script && chmod +x script";
    let written =
        std::process::Command::new("/bin/sh").args(["-c", write]).current_dir(&dir).status().unwrap();
    assert!(written.success());
    let builder = ChildBuilder::new("./script").current_dir(&dir);
    assert!(builder.check().is_ok());
    let error = builder.spawn().unwrap_err().to_string();
    assert!(error.contains("interpreter"), "{error}");
    // From there, too, a relative PATH is meant.
    let (_reader, _writer, handle) = {
        let builder = ChildBuilder::new("sh").env("PATH", "bin").current_dir("/");
        assert!(builder.check().is_ok());
        builder.spawn().unwrap()
    };
    assert!(handle.shutdown().await.unwrap().is_success());
}

#[tokio::test]
async fn environment_and_directory_are_as_told() {
    let builder = shell("echo $A-$HOME-$(pwd)").env_clear().env("A", "1").current_dir("/");
    let (mut reader, _writer, _handle) = builder.spawn().unwrap();
    assert_eq!(line(&mut reader).await, "1--/");
}

/// Counts in a process of its own.
#[test]
fn a_thousand_starts_leak_no_descriptor_and_no_zombie() {
    const MARK: &str = "FRAMEWIRE_COUNT_ALONE";
    if std::env::var_os(MARK).is_none() {
        // Other tests of this file open descriptors at the same time.
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_thousand_starts_leak_no_descriptor_and_no_zombie"])
            .env(MARK, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let children = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        tasks
            .map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default())
            .any(|children| !children.trim().is_empty())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        drop(start("exit"));
        tokio::time::sleep(Duration::from_millis(50)).await;
        let before = descriptors();
        for round in 0..100 {
            // Half of them with a watchdog, which is a descriptor and a process more while there are any.
            let cat = |n| ChildBuilder::new("/bin/cat").watchdog((n + round) % 4 < 2);
            let ten: Vec<_> = (0..10).map(|n| cat(n).spawn().unwrap()).collect();
            if round % 2 == 0 {
                for (reader, mut writer, handle) in ten {
                    writer.shutdown().await.unwrap();
                    assert!(handle.shutdown().await.unwrap().is_success());
                    drop((reader, writer));
                }
            } else {
                drop(ten);
            }
            assert!(ChildBuilder::new("/no/such/file").spawn().is_err());
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while descriptors() > before || children() {
            assert!(Instant::now() < deadline, "{} descriptors of {before}, {}", descriptors(), children());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

/// Pipe ends are close-on-exec: with one sibling holding another's input open, its end would never come.
#[test]
fn starts_at_once_do_not_inherit_each_others_pipes() {
    let threads: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    for _ in 0..10 {
                        let (_held, _open, _alive) = start("exec sleep 1000");
                        let (mut reader, mut writer, _handle) = start("exec cat");
                        writer.shutdown().await.unwrap();
                        let read = tokio::time::timeout(Duration::from_secs(10), reader.read_u8());
                        assert_eq!(read.await.expect("no end").unwrap_err().kind(), ErrorKind::UnexpectedEof);
                    }
                });
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// A process of its own that starts children by `start` and is then there to be killed; the children's numbers.
fn parent(test: &str, start: impl AsyncFnOnce() -> Vec<Child>) -> (std::process::Child, Vec<u32>) {
    const MARK: &str = "FRAMEWIRE_KILLED_PARENT";
    if let Some(file) = std::env::var_os(MARK) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let started = start().await;
            let ids: Vec<_> = started.iter().map(|(_, _, handle)| handle.id().to_string()).collect();
            std::fs::write(file, ids.join(" ") + "\n").unwrap();
            std::future::pending::<()>().await;
        });
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let parent = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(MARK, file.path())
        .spawn()
        .unwrap();
    let mut ids = String::new();
    soon("no child", || {
        ids = std::fs::read_to_string(file.path()).unwrap();
        ids.ends_with('\n')
    });
    let ids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
    assert!(ids.iter().all(|id| runs(*id)));
    (parent, ids)
}

/// The processes that `id` has started.
fn children(id: u32) -> Vec<u32> {
    std::fs::read_dir(format!("/proc/{id}/task"))
        .unwrap()
        .flat_map(|task| {
            let children = std::fs::read_to_string(task.unwrap().path().join("children")).unwrap();
            children.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<u32>>()
        })
        .collect()
}

fn signal(id: u32, signal: Signal) {
    kill_process(Pid::from_raw(id.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// Nothing of ours runs any more then: the child goes by the end of its input.
#[test]
fn a_child_that_heeds_its_input_survives_no_sigkill_of_ours() {
    let test = "a_child_that_heeds_its_input_survives_no_sigkill_of_ours";
    let (mut parent, ids) = parent(test, async || vec![ChildBuilder::new("cat").spawn().unwrap()]);
    parent.kill().unwrap();
    parent.wait().unwrap();
    soon("the child stays", || !runs(ids[0]));
}

/// Heeds neither the end of its input nor a signal that can be ignored, nor does what it has started.
const STUBBORN: &str =
    "trap '' TERM HUP INT; (while :; do sleep 0.1; done) & echo $!; while :; do sleep 0.1; done";

fn watched(script: &str) -> ChildBuilder {
    let grace = Duration::from_millis(200);
    shell(script).watchdog(true).stdin_grace(grace).term_grace(grace)
}

#[test]
fn a_watchdog_ends_the_stubborn_when_we_are_killed_and_then_itself() {
    let test = "a_watchdog_ends_the_stubborn_when_we_are_killed_and_then_itself";
    let (mut parent, mut ids) = parent(test, async || {
        // One that has ended before, one that was dropped: the list is not only added to.
        let (_reader, mut writer, handle) = watched("cat").spawn().unwrap();
        writer.shutdown().await.unwrap();
        handle.shutdown().await.unwrap();
        assert!(!handle.is_watched());
        let first = watched(STUBBORN).spawn().unwrap();
        drop(watched(STUBBORN).spawn().unwrap());
        let (mut reader, writer, handle) = watched(STUBBORN).spawn().unwrap();
        assert!(handle.is_watched());
        line(&mut reader).await;
        vec![first, (reader, writer, handle)]
    });
    ids.extend(ids.clone().into_iter().flat_map(children));
    let mut watchdogs = Vec::new();
    // The one that was dropped may take a moment to die.
    soon("there is more than one watchdog", || {
        watchdogs = children(parent.id()).into_iter().filter(|id| runs(*id) && !ids.contains(id)).collect();
        watchdogs.len() == 1
    });
    assert!(ids.len() >= 4, "{ids:?}");
    // What a terminal or an operator sends to all it can see.
    for ignored in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        signal(watchdogs[0], ignored);
    }
    parent.kill().unwrap();
    parent.wait().unwrap();
    for id in ids {
        soon("the child stays", || !runs(id));
    }
    soon("the watchdog stays", || !runs(watchdogs[0]));
}

#[test]
fn a_watchdog_that_was_killed_is_replaced() {
    let test = "a_watchdog_that_was_killed_is_replaced";
    let (mut parent, ids) = parent(test, async || {
        let mut started = vec![watched(STUBBORN).spawn().unwrap()];
        for _ in 0..2 {
            let ours: Vec<_> = started.iter().map(|(_, _, handle)| handle.id()).collect();
            let watchdog =
                children(std::process::id()).into_iter().find(|id| runs(*id) && !ours.contains(id));
            signal(watchdog.unwrap(), Signal::KILL);
            soon("the watchdog dies", || !runs(watchdog.unwrap()));
            started.push(watched(STUBBORN).spawn().unwrap());
        }
        started
    });
    assert_eq!(ids.len(), 3);
    parent.kill().unwrap();
    parent.wait().unwrap();
    for id in ids {
        soon("the child stays", || !runs(id));
    }
}

#[tokio::test]
async fn d41_shutdown_closes_the_input_though_the_writer_is_held() {
    let (_reader, _writer, handle) = start("cat");
    // Its input stayed open otherwise, and a signal would end it later.
    assert!(handle.shutdown().await.unwrap().is_success());
}

#[tokio::test]
async fn d41_shutdown_is_not_held_up_by_output_nobody_reads() {
    let (_reader, _writer, handle) = start("head -c 1000000 /dev/zero; cat >/dev/null; exit 3");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(handle.shutdown().await.unwrap().code, Some(3));
}

#[tokio::test]
async fn a_write_that_waits_ends_with_the_shutdown() {
    let (_reader, mut writer, handle) = start("exec sleep 1000");
    let write = tokio::spawn(async move { writer.write_all(&[0; 1_000_000]).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let end = tokio::spawn(async move { handle.shutdown().await });
    let error = tokio::time::timeout(Duration::from_secs(2), write).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    end.abort();
}
