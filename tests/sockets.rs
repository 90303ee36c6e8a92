//! TCP and Unix sockets: setting up, refusing, cleaning up.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(all(feature = "net", unix))]

use std::{
    io::{ErrorKind, IoSlice},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
    time::{Duration, Instant},
};

use framewire::io::{
    tcp::{self, TcpOptions},
    unix,
};
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

fn entries(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

/// Leaves a socket file that nobody listens on.
fn leave_stale(path: &Path) {
    drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    assert!(std::fs::symlink_metadata(path).unwrap().file_type().is_socket());
}

#[tokio::test]
async fn tcp_carries_bytes_both_ways_and_tells_the_end() {
    let listener = tcp::Listener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let options = TcpOptions::default();
    let (client, server) = tokio::join!(tcp::connect(addr, &options), listener.accept());
    let ((mut reader, mut writer), (mut there, mut back, peer)) = (client.unwrap(), server.unwrap());
    assert_eq!(peer, reader.local_addr().unwrap());
    assert!(writer.is_write_vectored());

    let sent = writer.write_vectored(&[IoSlice::new(b"one "), IoSlice::new(b"two")]).await.unwrap();
    assert_eq!(sent, 7, "both parts in one call");
    writer.shutdown().await.unwrap();
    let mut got = Vec::new();
    there.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"one two");

    back.write_all(b"still open").await.unwrap();
    drop(back);
    got.clear();
    reader.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"still open");
}

#[tokio::test]
async fn tcp_connections_are_set_up_on_both_sides() {
    let listener = tcp::Listener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let options = TcpOptions::default();
    let (client, server) = tokio::join!(tcp::connect(addr, &options), listener.accept());
    let ((reader, writer), (there, back, _)) = (client.unwrap(), server.unwrap());
    for stream in [reader.reunite(writer).unwrap(), there.reunite(back).unwrap()] {
        assert!(stream.nodelay().unwrap());
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
    }
}

#[tokio::test]
async fn tcp_buffers_and_the_own_address_are_as_asked() {
    let size = 100_000;
    let sized = TcpOptions::default().send_buffer(Some(size)).receive_buffer(Some(size));
    let listener = tcp::Listener::bind_with("127.0.0.1:0", sized.clone()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let options = sized.local_addr(Some("127.0.0.7:0".parse().unwrap()));
    let (client, server) = tokio::join!(tcp::connect(addr, &options), listener.accept());
    let ((near_reader, near_writer), (reader, writer, peer)) = (client.unwrap(), server.unwrap());
    assert_eq!(peer.ip().to_string(), "127.0.0.7");
    for stream in [near_reader.reunite(near_writer).unwrap(), reader.reunite(writer).unwrap()] {
        let (send, receive) =
            (sockopt::socket_send_buffer_size(&stream), sockopt::socket_recv_buffer_size(&stream));
        // Linux doubles what is asked for.
        for bytes in [send.unwrap(), receive.unwrap()] {
            assert!([1, 2].map(|factor| factor * size as usize).contains(&bytes), "{bytes}");
        }
    }

    let foreign = TcpOptions::default().local_addr(Some("192.0.2.1:0".parse().unwrap()));
    let error = tcp::connect(addr, &foreign).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
    assert!(error.to_string().contains("from 192.0.2.1:0"), "{error}");
}

#[tokio::test]
async fn tcp_an_address_with_old_connections_is_bound_anew_unless_told_not_to() {
    let listener = tcp::Listener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let options = TcpOptions::default();
    let (client, server) = tokio::join!(tcp::connect(addr, &options), listener.accept());
    // The side that closes first is the one that has to remember the connection.
    drop((server.unwrap(), listener));
    let (mut reader, writer) = client.unwrap();
    assert_eq!(reader.read(&mut [0]).await.unwrap(), 0);
    drop((reader, writer));
    let strict = tcp::Listener::bind_with(addr, TcpOptions::default().reuse_address(false)).await;
    assert_eq!(strict.unwrap_err().kind(), ErrorKind::AddrInUse);
    let again = tcp::Listener::bind(addr).await.unwrap();
    // But never while somebody listens there.
    assert_eq!(tcp::Listener::bind(addr).await.unwrap_err().kind(), ErrorKind::AddrInUse);
    drop(again);
}

#[tokio::test]
async fn tcp_connect_tries_all_addresses_and_names_the_one_that_refused() {
    let listener = tcp::Listener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();

    tcp::connect(&[closed, open][..], &TcpOptions::default()).await.unwrap();
    let error = tcp::connect(closed, &TcpOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(error.to_string().contains(&closed.to_string()), "{error}");
}

#[tokio::test]
async fn tcp_connect_gives_up_in_time() {
    // A listener whose queue is full lets further attempts hang.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let addr = full.local_addr().unwrap().as_socket().unwrap();
    let options = TcpOptions::default().connect_timeout(Duration::from_millis(300));
    let mut queued = Vec::new();
    let start = Instant::now();
    let error = loop {
        match tcp::connect(&[addr, addr][..], &options).await {
            Ok(pair) => queued.push(pair),
            Err(error) => break error,
        }
        assert!(queued.len() < 16, "the queue never fills");
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    // The system would go on for minutes.
    assert!(start.elapsed() < Duration::from_secs(30));
    // More time than there is.
    let open = tcp::Listener::bind("127.0.0.1:0").await.unwrap();
    let options = TcpOptions::default().connect_timeout(Duration::MAX);
    tcp::connect(open.local_addr().unwrap(), &options).await.unwrap();
}

#[tokio::test]
async fn unix_carries_bytes_and_knows_its_peer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let listener = unix::Listener::bind(&path).unwrap();
    let (client, server) = tokio::join!(unix::connect(&path), listener.accept());
    let ((reader, mut writer), (mut there, _back, peer)) = (client.unwrap(), server.unwrap());
    let me = std::fs::metadata("/proc/self").unwrap();
    assert_eq!((peer.uid, peer.gid), (me.uid(), me.gid()));
    assert_eq!(peer.pid, i32::try_from(std::process::id()).ok());
    assert_eq!(reader.peer_credentials().unwrap().uid, me.uid());

    assert!(writer.is_write_vectored());
    assert_eq!(writer.write_vectored(&[IoSlice::new(b"a"), IoSlice::new(b"b")]).await.unwrap(), 2);
    drop(writer);
    let mut got = Vec::new();
    there.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"ab");
}

#[tokio::test]
async fn d48_the_mode_is_applied_and_nothing_else_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    for mode in [0o600, 0o660] {
        let listener = match mode {
            0o600 => unix::Listener::bind(&path).unwrap(),
            wider => unix::Listener::bind_with_mode(&path, wider).unwrap(),
        };
        let found = std::fs::symlink_metadata(listener.path()).unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(found.permissions().mode() & 0o777, mode);
        assert_eq!(entries(folder.path()).len(), 1, "the private directory is gone");
        unix::connect(listener.path()).await.unwrap();
        drop(listener);
        assert_eq!(entries(folder.path()), [""; 0], "unlinked on drop");
    }
}

#[tokio::test]
async fn d48_the_socket_is_at_no_moment_reachable_with_a_wider_mode() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let seen = path.clone();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let watcher = std::thread::spawn(move || {
        let mut looks = 0u32;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            if let Ok(found) = std::fs::symlink_metadata(&seen) {
                assert_eq!(found.permissions().mode() & 0o777, 0o600);
                looks += 1;
            }
        }
        looks
    });
    for _ in 0..300 {
        drop(unix::Listener::bind(&path).unwrap());
    }
    let last = unix::Listener::bind(&path).unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(watcher.join().unwrap() > 0);
    drop(last);
}

#[tokio::test]
async fn d48_a_live_server_is_not_robbed_of_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let first = unix::Listener::bind(&path).unwrap();
    let error = unix::Listener::bind(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains("another server is listening"), "{error}");
    let (client, server) = tokio::join!(unix::connect(&path), async {
        // The question whether it lives came as a connection too.
        first.accept().await.unwrap();
        first.accept().await
    });
    client.unwrap();
    server.unwrap();
    assert_eq!(entries(folder.path()), ["s.sock"]);
}

#[tokio::test]
async fn d48_a_live_server_with_a_full_queue_is_live() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let full = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    full.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    full.listen(0).unwrap();
    let _queued = std::os::unix::net::UnixStream::connect(&path).unwrap();
    assert_eq!(unix::Listener::bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_eq!(entries(folder.path()), ["s.sock"]);
}

#[tokio::test]
async fn d48_a_dead_servers_socket_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    leave_stale(&path);
    let listener = unix::Listener::bind(&path).unwrap();
    unix::connect(&path).await.unwrap();
    drop(listener);
    assert_eq!(entries(folder.path()), [""; 0]);
}

#[tokio::test]
async fn d48_files_of_other_kinds_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes");
    std::fs::write(&file, "keep me").unwrap();
    let directory = folder.path().join("directory");
    std::fs::create_dir(&directory).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    for path in [&file, &directory, &link] {
        let error = unix::Listener::bind(path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains("no socket"), "{error}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"keep me");
    assert_eq!(entries(folder.path()), ["directory", "link", "notes"]);
}

#[tokio::test]
async fn d48_only_one_of_many_that_start_at_once_gets_a_stale_path() {
    for _ in 0..40 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        leave_stale(&path);
        let runtime = tokio::runtime::Handle::current();
        let starts: Vec<_> = (0..4)
            .map(|_| {
                let (path, runtime) = (path.clone(), runtime.clone());
                std::thread::spawn(move || {
                    let _inside = runtime.enter();
                    unix::Listener::bind(path)
                })
            })
            .collect();
        let listeners: Vec<_> = starts.into_iter().filter_map(|start| start.join().unwrap().ok()).collect();
        assert_eq!(listeners.len(), 1);
        unix::connect(&path).await.unwrap();
        assert_eq!(entries(folder.path()), ["s.sock"]);
    }
}

#[tokio::test]
async fn a_replaced_socket_file_is_not_unlinked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let first = unix::Listener::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let second = unix::Listener::bind(&path).unwrap();
    drop(first);
    unix::connect(&path).await.unwrap();
    drop(second);
    assert_eq!(entries(folder.path()), [""; 0]);
}

#[tokio::test]
async fn paths_up_to_the_limit_work_and_longer_ones_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let room = 107 - folder.path().as_os_str().len() - 1;
    let longest = folder.path().join("x".repeat(room));
    leave_stale(&longest);
    let listener = unix::Listener::bind(&longest).unwrap();
    unix::connect(&longest).await.unwrap();
    drop(listener);

    let too_long = folder.path().join("x".repeat(room + 1));
    for error in [unix::Listener::bind(&too_long).unwrap_err(), unix::connect(&too_long).await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("107"), "{error}");
    }
    assert_eq!(entries(folder.path()), [""; 0]);
}

#[tokio::test]
async fn unix_connect_names_the_path() {
    let error = unix::connect("/nonexistent/s.sock").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("/nonexistent/s.sock"), "{error}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn abstract_sockets_are_in_no_file_system_and_in_use_only_while_they_live() {
    let name = format!("\0framewire-test-{}", std::process::id());
    let listener = unix::Listener::bind(&name).unwrap();
    assert_eq!(listener.path(), Path::new(&name));
    let error = unix::Listener::bind(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains("@framewire-test-"), "{error}");
    let (near, far) = tokio::join!(unix::connect(&name), listener.accept());
    let ((mut reader, _writer), (_, mut writer, peer)) = (near.unwrap(), far.unwrap());
    assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
    writer.write_all(b"hello").await.unwrap();
    let mut got = [0; 5];
    reader.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello");
    drop(listener);
    let error = unix::connect(&name).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    drop(unix::Listener::bind(&name).unwrap());

    assert_eq!(unix::Listener::bind_with_mode(&name, 0o666).unwrap_err().kind(), ErrorKind::InvalidInput);
    for (length, fits) in [(0, false), (1, true), (107, true), (108, false)] {
        let long = format!("\0{}", "n".repeat(length));
        assert_eq!(unix::Listener::bind(&long).is_ok(), fits, "{length}");
    }
}

/// There is no mode to keep others out.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn another_user_gets_nothing_from_an_abstract_socket() {
    if !rustix::process::geteuid().is_root() {
        return; // only root can be another user
    }
    let name = format!("framewire-test-stranger-{}", std::process::id());
    let listener = unix::Listener::bind(format!("\0{name}")).unwrap();
    let script = format!(
        "import os,socket\nos.setuid(65534)\ns=socket.socket(socket.AF_UNIX)\ns.connect('\\0{name}')\nprint(s.recv(1))"
    );
    let stranger = tokio::process::Command::new("python3").args(["-c", &script]).output();
    let stranger = tokio::select! {
        _ = listener.accept() => panic!("a stranger was let in"),
        stranger = tokio::time::timeout(Duration::from_secs(20), stranger) => stranger.expect("hangs"),
    };
    let Ok(stranger) = stranger else { return }; // no python3 here
    assert_eq!(String::from_utf8_lossy(&stranger.stdout).trim(), "b''", "{stranger:?}");
}
