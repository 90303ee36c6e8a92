//! The transport traits: one contract for every transport, through `Box<dyn PollTransport>` too.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(all(feature = "net", unix))]

use std::{future::Future, io, pin::pin, time::Duration};

use framewire::{
    Frame, Link,
    codec::{ContentLength, LengthPrefix, Newline},
    error::Fault,
    io::{child::ChildBuilder, memory, tcp, unix},
    link::LinkConfig,
    transport::{
        ChildTransport, MemoryTransport, MockTransport, PollTransport, TcpTransport, Transport,
        TransportError, UnixTransport, ZeroCopyTransport,
    },
};

type Boxed = Box<dyn PollTransport>;

/// Two joined ends of every kind.
async fn pairs() -> Vec<(&'static str, Boxed, Boxed)> {
    let (near, far) = MemoryTransport::pair();
    let mut pairs: Vec<(&'static str, Boxed, Boxed)> = vec![("memory", Box::new(near), Box::new(far))];

    let listener = tcp::Listener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpTransport::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = TcpTransport::accept(LengthPrefix::new(), &listener, LinkConfig::default()).await.unwrap();
    pairs.push(("tcp", Box::new(near), Box::new(far)));

    let directory = tempfile::tempdir().unwrap();
    let listener = unix::Listener::bind(directory.path().join("socket")).unwrap();
    let near = UnixTransport::connect(listener.path()).await.unwrap();
    let (far, _) =
        UnixTransport::accept(LengthPrefix::new(), &listener, LinkConfig::default()).await.unwrap();
    pairs.push(("unix", Box::new(near), Box::new(far)));

    let ((one, two), (three, four)) = memory::pair(1 << 16);
    let near = Link::pair(Newline::new(), one, two);
    let far = Link::pair(Newline::new(), three, four);
    pairs.push(("newline", Box::new(near), Box::new(far)));

    let ((one, two), (three, four)) = memory::pair(100);
    let near = Link::pair(ContentLength::new(), one, two);
    let far = Link::pair(ContentLength::new(), three, four);
    pairs.push(("content length", Box::new(near), Box::new(far)));
    pairs
}

/// Whether a future is still waiting after a moment.
async fn waits(future: impl Future) -> bool {
    tokio::time::timeout(Duration::from_millis(20), future).await.is_err()
}

#[tokio::test]
async fn each_transport_carries_bytes_unchanged_both_ways() {
    for (kind, mut near, mut far) in pairs().await {
        for size in [1, 41, 511, 512, 4096, 70_000] {
            let message: Vec<u8> = (0..size).map(|at| b"{\"\xff\xc3\xa9 }"[at % 7]).collect();
            // A message may be larger than what the medium holds: both ends have to work at once.
            let (sent, received) = tokio::join!(Transport::send(&mut near, &message), far.receive());
            sent.unwrap();
            assert_eq!(received.unwrap(), message, "{kind} {size}");
            let (sent, received) = tokio::join!(far.send_bytes(&message), async {
                let mut buffer = near.acquire_buffer().await.unwrap();
                let size = near.receive_into_buffer(&mut buffer).await.unwrap();
                buffer[..size].to_vec()
            });
            sent.unwrap();
            assert_eq!(received, message, "{kind} {size}");
        }
    }
}

#[tokio::test]
async fn close_is_idempotent_and_ends_both_ends() {
    for (kind, mut near, mut far) in pairs().await {
        Transport::send(&mut near, b"last").await.unwrap();
        Transport::close(&mut near).await.unwrap();
        Transport::close(&mut near).await.unwrap();
        assert!(!near.is_connected(), "{kind}");
        assert!(matches!(Transport::send(&mut near, b"x").await, Err(TransportError::Closed)), "{kind}");
        assert!(matches!(near.receive().await, Err(TransportError::Closed)), "{kind}");
        assert_eq!(far.receive().await.unwrap(), b"last", "{kind}");
        for _ in 0..2 {
            assert!(matches!(far.receive().await, Err(TransportError::Closed)), "{kind}");
        }
    }
}

#[tokio::test]
async fn closing_one_end_wakes_the_other() {
    for (kind, mut near, mut far) in pairs().await {
        let waiting = tokio::spawn(async move { far.receive().await });
        tokio::task::yield_now().await;
        Transport::close(&mut near).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(5), waiting).await.expect(kind).unwrap();
        assert!(matches!(ended, Err(TransportError::Closed)), "{kind}");
    }
}

/// Seed 000's in-memory transport: `close()` on one end neither woke nor ended the other, and its own receive went on.
#[tokio::test]
async fn d12_memory_close_and_drop_end_both_ends() {
    let (mut near, far) = MemoryTransport::pair();
    Transport::send(&mut near, b"never read").await.unwrap();
    drop(far);
    assert!(matches!(near.receive().await, Err(TransportError::Closed)));
    assert!(matches!(Transport::send(&mut near, b"x").await, Err(TransportError::Io(_))));

    let (mut near, mut far) = MemoryTransport::pair();
    Transport::close(&mut near).await.unwrap();
    assert!(matches!(near.receive().await, Err(TransportError::Closed)), "its own receive ends too");
    assert!(matches!(far.receive().await, Err(TransportError::Closed)));
    assert!(!far.is_connected());
}

#[tokio::test]
async fn memory_is_bounded_in_bytes_and_messages() {
    let (mut near, mut far) = MemoryTransport::with_capacity(100);
    Transport::send(&mut near, &[0; 99]).await.unwrap();
    Transport::send(&mut near, &[1; 50]).await.unwrap();
    assert!(waits(Transport::send(&mut near, b"x")).await, "149 of 100 bytes are in");
    assert_eq!(far.receive().await.unwrap().len(), 99);
    Transport::send(&mut near, &[2; 1000]).await.unwrap();

    let (mut near, mut far) = MemoryTransport::pair();
    let mut count = 0;
    while !waits(Transport::send(&mut near, b"")).await {
        count += 1;
    }
    assert_eq!(count, framewire::limits::MEMORY_QUEUE_MESSAGES);
    assert!(far.receive().await.unwrap().is_empty());
}

#[tokio::test]
async fn memory_hands_an_owned_frame_over_without_copying_it() {
    let (mut near, mut far) = MemoryTransport::pair();
    let frame = Frame::from(vec![7; 10_000]);
    near.start_send_frame(&frame).unwrap();
    let received = std::future::poll_fn(|cx| far.poll_receive(cx)).await.unwrap();
    assert_eq!(received.as_ptr(), frame.as_ptr());
}

#[tokio::test]
async fn airs_send_accepts_one_newline_at_the_end_and_refuses_inner_ones() {
    let ((_r, writer), (reader, _w)) = memory::pair(1 << 16);
    let mut link = Link::pair(Newline::new().max_size(8), tokio::io::empty(), writer);
    link.send_bytes(b"{}\n").await.unwrap();
    assert!(matches!(link.send_bytes(b"{}\n\n").await, Err(TransportError::Format { .. })));
    assert!(matches!(Transport::send(&mut link, b"a\nb").await, Err(TransportError::Format { .. })));
    let error = Transport::send(&mut link, b"123456789").await.unwrap_err();
    assert!(
        matches!(&error, TransportError::BufferOverflow { details } if details == "Message size 9 exceeds limit 8")
    );
    drop(link);
    let mut far = Link::pair(Newline::new(), reader, tokio::io::sink());
    assert_eq!(far.receive().await.unwrap(), "{}");
    assert!(far.receive().await.unwrap_err().is_clean_end());
}

/// AIRS's `acquire_buffer` gave a new buffer each time and none back.
#[tokio::test]
async fn d24_acquired_buffers_come_back_to_the_pool() {
    let (near, _far) = MemoryTransport::pair();
    let first = near.acquire_buffer().await.unwrap();
    let address = first.as_ptr();
    assert!(first.is_empty());
    drop(first);
    let second = near.acquire_buffer().await.unwrap();
    assert_eq!(second.as_ptr(), address);
}

/// AIRS kept one buffer for `receive` and another for `receive_into_buffer`: mixing them lost data.
#[tokio::test]
async fn d25_all_receive_forms_take_from_one_stream() {
    let (reader, mut writer) = memory::pipe(1 << 16);
    tokio::io::AsyncWriteExt::write_all(&mut writer, b"1\r\n2\r\n3\r\n4").await.unwrap();
    drop(writer);
    let mut link = Link::pair(Newline::new(), reader, tokio::io::sink());
    assert_eq!(link.receive().await.unwrap(), "1");
    let mut buffer = bytes::BytesMut::new();
    assert_eq!(link.receive_into_buffer(&mut buffer).await.unwrap(), 1);
    assert_eq!(buffer, "2", "no CR is left");
    assert_eq!(link.receive_lent().await.unwrap(), b"3");
    assert_eq!(Transport::receive(&mut link).await.unwrap(), b"4", "nor is the last line lost");
}

/// The seed's `Box<dyn Transport<…>>` could not be built.
#[tokio::test]
async fn d30_transports_are_dyn_safe_and_their_kinds_are_known() {
    let kinds: Vec<_> = pairs().await.iter().map(|(_, near, _)| near.transport_type()).collect();
    assert_eq!(kinds, ["memory", "tcp", "unix", "unknown", "unknown"]);
    fn check<T: Send + Sync>() {}
    check::<Boxed>();
    check::<ChildTransport>();
}

#[tokio::test]
async fn mock_answers_by_its_script_and_remembers_what_was_sent() {
    let mock = MockTransport::new();
    mock.add_response(b"one".to_vec()).await;
    mock.push_fault(Fault::Noise { size: 3 });
    mock.push_response("two");
    let mut transport: Boxed = Box::new(mock.clone());
    assert_eq!(transport.receive().await.unwrap(), b"one");
    assert!(!transport.receive().await.unwrap_err().is_fatal());
    assert_eq!(transport.receive().await.unwrap(), b"two");
    let error = transport.receive().await.unwrap_err();
    assert!(matches!(error, TransportError::Format { message } if message == "No response available"));
    Transport::send(&mut transport, b"x").await.unwrap();
    Transport::send(&mut transport, b"y").await.unwrap();
    assert_eq!(mock.get_sent_messages().await, [b"x".to_vec(), b"y".to_vec()]);
    assert_eq!(mock.sent_count(), 2);
    assert_eq!(mock.take_sent_messages().len(), 2);
    Transport::close(&mut transport).await.unwrap();
    Transport::close(&mut transport).await.unwrap();
    assert!(matches!(transport.receive().await, Err(TransportError::Closed)));
    assert!(matches!(Transport::send(&mut transport, b"z").await, Err(TransportError::Closed)));
}

#[tokio::test]
async fn mock_waits_on_request_and_fails_after_so_many_bytes() {
    let mock = MockTransport::new().wait_when_empty();
    let mut transport = mock.clone();
    let mut receive = pin!(transport.receive());
    assert!(waits(&mut receive).await);
    mock.push_response("late");
    assert_eq!(receive.await.unwrap(), b"late");

    let mut mock = MockTransport::new().fail_sending_after(4).fail_receiving_after(2);
    Transport::send(&mut mock, b"1234").await.unwrap();
    assert!(matches!(Transport::send(&mut mock, b"5").await, Err(TransportError::Io(_))));
    mock.push_response("ab");
    mock.push_response("c");
    mock.push_error(io::Error::from(io::ErrorKind::TimedOut));
    mock.push_end();
    assert_eq!(mock.receive().await.unwrap(), b"ab");
    assert!(matches!(mock.receive().await, Err(TransportError::Io(_))));
    assert!(
        matches!(mock.receive().await, Err(TransportError::Io(error)) if error.kind() == io::ErrorKind::TimedOut)
    );
    assert!(matches!(mock.receive().await, Err(TransportError::Closed)));
}

#[tokio::test]
async fn a_child_that_fails_says_how_in_the_error() {
    let builder =
        ChildBuilder::new("/bin/sh").args(["-c", "read line; echo \"$line\"; echo why >&2; exit 3"]);
    let (mut child, handle) = ChildTransport::spawn(builder).unwrap();
    child.send(b"hello").await.unwrap();
    assert_eq!(child.receive().await.unwrap(), "hello");
    let error = child.receive().await.unwrap_err();
    assert!(error.to_string().contains('3') && error.to_string().contains("why"), "{error}");
    assert!(!handle.wait().await.unwrap().is_success());
}
