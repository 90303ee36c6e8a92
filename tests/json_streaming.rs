//! The streaming parser and transport: a test for each defect of the ones they take their names from.
#![cfg(all(feature = "json", feature = "link"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use framewire::{
    Error,
    error::{Fault, JsonReason},
    json::{Kind, StreamingConfig, StreamingError, StreamingParser, StreamingStats, StreamingTransport},
    transport::{MemoryTransport, Transport},
};
use tokio::io::AsyncWriteExt;

const PING: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
const NOTE: &[u8] = br#"{"jsonrpc":"2.0","method":"note"}"#;

#[tokio::test]
async fn messages_are_told_apart() {
    let mut parser = StreamingParser::new_default();
    for (message, kind, name, method) in [
        (PING, Kind::Request, "request", Some("ping")),
        (NOTE, Kind::Notification, "notification", Some("note")),
        (br#"{"jsonrpc":"2.0","id":1,"result":{}}"#, Kind::Response, "response", None),
        (br#"{"jsonrpc":"2.0","id":1,"error":{}}"#, Kind::Error, "response", None),
        (br#"{"jsonrpc":"2.0","id":1,"method":"p\u0069ng"}"#, Kind::Request, "request", Some("ping")),
    ] {
        let parsed = parser.parse_from_bytes(message).await.unwrap();
        assert_eq!((parsed.kind(), parsed.message_type(), parsed.method()), (kind, name, method));
        assert_eq!(parsed.to_bytes(), message);
    }
}

#[tokio::test]
async fn a_batch_is_a_message() {
    let batch = [b"[", PING, b",", NOTE, b"]"].concat();
    let mut parser = StreamingParser::new_default();
    assert_eq!(parser.parse_from_bytes(&batch).await.unwrap().message_type(), "batch");
    let parsed = parser.parse_from_reader(&mut &batch[..]).await.unwrap();
    assert_eq!(parsed.envelope().unwrap().elements().count(), 2);
}

#[tokio::test]
async fn a_stray_bracket_loses_no_message() {
    let bytes = [b"}", PING, NOTE].concat();
    let mut parser = StreamingParser::new_default();
    let mut reader = &bytes[..];
    assert!(matches!(parser.parse_from_reader(&mut reader).await, Err(StreamingError::Noise { size: 1 })));
    assert_eq!(parser.parse_from_reader(&mut reader).await.unwrap().method(), Some("ping"));
    assert_eq!(parser.parse_from_reader(&mut reader).await.unwrap().method(), Some("note"));
    let end = parser.parse_from_reader(&mut reader).await;
    assert!(
        matches!(end, Err(StreamingError::IoError(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof)
    );
}

#[tokio::test]
async fn trailing_garbage_is_an_error() {
    let mut parser = StreamingParser::new_default();
    for garbage in [&b"x"[..], b"}", PING, b"\0"] {
        assert!(parser.parse_from_bytes(&[PING, garbage].concat()).await.is_err());
    }
    assert!(parser.parse_from_bytes(&[PING, b" \r\n"].concat()).await.is_ok());
    assert!(parser.parse_multiple_from_bytes(&[PING, b" x"].concat()).await.is_err());
}

#[tokio::test]
async fn many_come_out_of_one_piece() {
    let mut parser = StreamingParser::new_default();
    assert!(parser.parse_multiple_from_bytes(b"").await.unwrap().is_empty());
    let messages = parser.parse_multiple_from_bytes(&[PING, NOTE, b"\n", PING].concat()).await.unwrap();
    assert_eq!(
        messages.iter().map(|message| message.frame().to_vec()).collect::<Vec<_>>(),
        [PING, NOTE, PING]
    );
    let cut = parser.parse_multiple_from_bytes(&[PING, &NOTE[..10]].concat()).await;
    assert!(matches!(cut, Err(StreamingError::IncompleteMessage { size: 10 })));
}

#[tokio::test]
async fn strict_validation_does_what_it_says() {
    let mut strict = StreamingParser::new_default();
    let mut lax = StreamingParser::new(StreamingConfig::default().strict_validation(false));
    let many = (0..40).map(|n| format!(r#""k{n}":{n}"#)).collect::<Vec<_>>().join(",");
    let twice = format!(r#"{{"jsonrpc":"2.0","method":"m","params":{{{many},"k7":0}}}}"#);
    for (message, accepted) in [
        (&br#"{"jsonrpc":"1.0","id":1,"method":"m"}"#[..], true),
        (br#"{"id":1,"method":"m"}"#, true),
        (br#"{"jsonrpc":"2.0","id":1,"result":1,"error":{}}"#, true),
        (br#"{"jsonrpc":"2.0","id":1.5,"method":"m"}"#, true),
        (br#"{"jsonrpc":"2.0","method":"m","params":"p"}"#, true),
        (br#"{"jsonrpc":"2.0","id":1,"method":"m","params":null}"#, true),
        (br#"{"jsonrpc":"2.0","id":1,"error":"e"}"#, true),
        (br#"[{"jsonrpc":"2.0","id":1,"method":"m","params":1}]"#, true),
        (b"[]", true),
        (b"[[]]", true),
        (br#"{"jsonrpc":"2.0","id":1,"id":2,"method":"m"}"#, false),
        (br#"{"jsonrpc":"2.0","method":"m","params":{"a":1,"a":2}}"#, true),
        (br#"{"jsonrpc":"2.0","method":"m","params":[{"a":{"b":1,"\u0062":2}}]}"#, true),
        (twice.as_bytes(), true),
        (br#"{"jsonrpc":"2.0","method":"m","params":[1,,2]}"#, true),
        (b"{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"params\":\"\xff\"}", true),
    ] {
        assert!(strict.parse_from_bytes(message).await.is_err(), "{}", message.escape_ascii());
        assert_eq!(lax.parse_from_bytes(message).await.is_ok(), accepted, "{}", message.escape_ascii());
    }
    let fine = format!(
        r#"{{"jsonrpc":"2.0","method":"m","params":[{{{many}}},{{"a":{{"a":1}},"b":"a"}},{{"a":1}}]}}"#
    );
    assert!(strict.parse_from_bytes(fine.as_bytes()).await.is_ok(), "the same name in different objects");
}

#[tokio::test]
async fn after_an_overflow_the_stream_goes_on() {
    let config = StreamingConfig::default().max_message_size(64).read_buffer_size(64);
    let long = format!(r#"{{"jsonrpc":"2.0","method":"{}"}}"#, "}{".repeat(100_000));
    let bytes = [long.as_bytes(), PING].concat();
    let mut parser = StreamingParser::new(config);
    let mut reader = &bytes[..];
    let error = parser.parse_from_reader(&mut reader).await.unwrap_err();
    let size = long.len() as u64;
    assert!(
        matches!(error, StreamingError::BufferOverflow { max_size: 64, size: s } if s == size),
        "{error}"
    );
    assert!(parser.buffer_stats().capacity < 16 * 1024, "the long one is not held");
    assert_eq!(parser.parse_from_reader(&mut reader).await.unwrap().method(), Some("ping"));
    let alone = parser.parse_from_bytes(long.as_bytes()).await;
    assert!(matches!(alone, Err(StreamingError::BufferOverflow { .. })));
}

#[tokio::test]
async fn a_cancelled_read_loses_nothing() {
    let (mut writer, mut reader) = tokio::io::duplex(256);
    let mut parser = StreamingParser::new_default();
    let mut messages = Vec::new();
    for byte in [PING, NOTE].concat().chunks(1) {
        writer.write_all(byte).await.unwrap();
        // Polled once and dropped.
        let parse = parser.parse_from_reader(&mut reader);
        if let Ok(message) = tokio::time::timeout(Duration::ZERO, parse).await {
            messages.push(message.unwrap().frame().to_vec());
        }
    }
    assert_eq!(messages, [PING, NOTE]);
}

/// Cut anywhere, the messages are the same.
#[tokio::test]
async fn pieces_do_not_matter() {
    let bytes = [PING, b" ", NOTE, b"nonsense\n", PING].concat();
    let all = |piece: usize| {
        let mut parser = StreamingParser::new_default();
        let mut results = Vec::new();
        for part in bytes.chunks(piece) {
            parser.feed(part);
            while let Some(result) = parser.next_message().transpose() {
                results
                    .push(result.map(|message| message.frame().to_vec()).map_err(|error| error.to_string()));
            }
        }
        results
    };
    let whole = all(bytes.len());
    assert_eq!(whole.iter().filter(|result| result.is_ok()).count(), 3);
    for piece in 1..bytes.len() {
        assert_eq!(all(piece), whole, "pieces of {piece}");
    }
}

#[test]
fn reset_forgets() {
    let mut parser = StreamingParser::new_default();
    parser.feed(&PING[..20]);
    assert!(parser.next_message().unwrap().is_none());
    assert_eq!(parser.buffer_stats().used, 20);
    parser.reset();
    assert_eq!(parser.buffer_stats().used, 0);
    parser.feed(NOTE);
    assert_eq!(parser.next_message().unwrap().unwrap().method(), Some("note"));
}

#[test]
fn statistics_count() {
    let mut stats = StreamingStats::new();
    assert_eq!(stats.success_rate(), 1.0);
    stats.record_success(100);
    stats.record_error();
    stats.record_batch(1);
    assert_eq!((stats.success_rate(), stats.avg_message_size), (2.0 / 3.0, 50.0));
}

#[tokio::test]
async fn a_transport_sends_while_it_receives() {
    let (ours, mut peer) = MemoryTransport::pair();
    let ours = Arc::new(StreamingTransport::new_default(ours));
    let waiting = tokio::spawn({
        let ours = Arc::clone(&ours);
        async move { ours.receive_parsed().await }
    });
    tokio::task::yield_now().await;
    let message = StreamingParser::new_default().parse_from_bytes(PING).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), ours.send_parsed(&message))
        .await
        .expect("no deadlock")
        .unwrap();
    assert_eq!(Transport::receive(&mut peer).await.unwrap(), PING, "once");
    Transport::send(&mut peer, NOTE).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().method(), Some("note"));
    let again =
        poll_fn(|cx| Poll::Ready(framewire::transport::PollTransport::poll_receive(&mut peer, cx))).await;
    assert!(again.is_pending(), "no second copy");
}

#[tokio::test]
async fn a_transport_fills_its_statistics_and_refuses_what_is_no_message() {
    let (ours, mut peer) = MemoryTransport::pair();
    let mut ours = StreamingTransport::new_default(ours);
    let batch = [b"[", PING, b",", NOTE, b"]"].concat();
    for message in [PING, b"{\"a\":1}", b"{\"a\":1,\"a\":1}", b"banner", &batch] {
        Transport::send(&mut peer, message).await.unwrap();
    }
    assert!(ours.receive_parsed().await.is_ok());
    for reason in [JsonReason::NotJsonRpc, JsonReason::Duplicate, JsonReason::Unexpected] {
        let error = ours.receive_parsed().await.unwrap_err();
        assert!(!error.is_fatal());
        assert!(
            matches!(error, Error::Fault(Fault::InvalidJson { reason: r, .. }) if r == reason),
            "{error}"
        );
    }
    // As a transport too.
    assert_eq!(Transport::receive(&mut ours).await.unwrap(), batch);
    let stats = ours.stats();
    assert_eq!((stats.messages_parsed, stats.parse_errors, stats.batch_operations), (3, 3, 1));
    assert_eq!(stats.bytes_processed, (PING.len() + batch.len()) as u64);
}

/// AIRS's names on a transport, for bytes that came some other way.
#[tokio::test]
async fn a_transport_parses_what_came_elsewhere() {
    use framewire::transport::streaming::StreamingTransport;

    let (ours, peer) = MemoryTransport::pair();
    let transport = StreamingTransport::new_default(ours);
    assert_eq!(transport.parse_message(PING).await.unwrap().method(), Some("ping"));
    assert!(matches!(transport.parse_message(b"{}").await, Err(StreamingError::NotJsonRpc)));
    assert!(transport.parse_multiple_messages(b"").await.unwrap().is_empty());
    let both = transport.parse_multiple_messages(&[PING, b"\n", NOTE].concat()).await.unwrap();
    assert_eq!(both.iter().map(|message| message.method()).collect::<Vec<_>>(), [Some("ping"), Some("note")]);
    let cut = transport.parse_multiple_messages(&[PING, &NOTE[..9]].concat()).await;
    assert!(matches!(cut, Err(StreamingError::IncompleteMessage { size: 9 })));
    assert_eq!(
        transport.parse_multiple_messages(NOTE).await.unwrap().len(),
        1,
        "nothing is left of the cut one"
    );
    let stats = transport.stats();
    assert_eq!((stats.messages_parsed, stats.parse_errors), (4, 2));
    assert_eq!(stats.bytes_processed, (2 * PING.len() + 2 * NOTE.len()) as u64);
    let held = transport.buffer_stats().await;
    assert_eq!((held.used, held.max_size), (0, 16 << 20));
    assert_eq!(transport.buffer_manager().config().max_message_size, peer_config(&peer));
}

fn peer_config(peer: &MemoryTransport) -> usize {
    framewire::transport::PollTransport::buffers(peer).config().max_message_size
}
