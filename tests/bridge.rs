//! The bridge between any two transports: bytes, ends, back-pressure, peers that are half dead, and dropping it.
#![cfg(feature = "net")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    future::{Future, pending, poll_fn},
    pin::pin,
    sync::Mutex,
    task::{Context, Poll, Waker},
    time::Duration,
};

use framewire::{
    Error, Link, Result,
    codec::{LengthPrefix, Newline},
    error::{Deadline, End, Fault, Rejection},
    gateway::{Bridge, Direction, Observer, Report, Silent},
    io::tcp::{self, Listener, TcpOptions},
    link::LinkConfig,
    transport::{MemoryTransport, MockTransport, PollTransport},
};
use tokio::time::timeout;

type Any = Box<dyn PollTransport>;

const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
enum Kind {
    Memory,
    /// A pipe of 100 bytes, so that every message comes in pieces.
    Pieces,
    Lines,
    Tcp,
}

const KINDS: [Kind; 4] = [Kind::Memory, Kind::Pieces, Kind::Lines, Kind::Tcp];

/// Two ends of a connection: the peer's and the bridge's.
async fn pair(kind: Kind) -> (Any, Any) {
    fn over<C>(codec: C, room: usize) -> (Any, Any)
    where
        C: framewire::codec::Codec<Decoder: Send + Sync, Encoder: Send + Sync> + Clone + 'static,
    {
        let (one, two) = tokio::io::duplex(room);
        let link = |stream| {
            let (reader, writer) = tokio::io::split(stream);
            Box::new(Link::pair(codec.clone(), reader, writer))
        };
        (link(one), link(two))
    }
    match kind {
        Kind::Memory => {
            let (one, two) = MemoryTransport::pair();
            (Box::new(one), Box::new(two))
        }
        Kind::Pieces => over(LengthPrefix::new(), 100),
        Kind::Lines => over(Newline::new(), 64 * 1024),
        Kind::Tcp => {
            let listener = Listener::bind("127.0.0.1:0").await.unwrap();
            let options = TcpOptions::default();
            let (one, two) =
                tokio::join!(tcp::connect(listener.local_addr().unwrap(), &options), listener.accept());
            let ((reader, writer), (far_reader, far_writer, _)) = (one.unwrap(), two.unwrap());
            let near = Link::pair(LengthPrefix::new(), reader, writer);
            (Box::new(near), Box::new(Link::pair(LengthPrefix::new(), far_reader, far_writer)))
        }
    }
}

async fn send(to: &mut Any, payload: &[u8]) -> Result<()> {
    poll_fn(|cx| to.poll_ready(cx)).await?;
    to.start_send(payload)
}

async fn receive(from: &mut Any) -> Result<Vec<u8>> {
    poll_fn(|cx| from.poll_receive(cx)).await.map(|frame| frame.to_vec())
}

async fn end(to: &mut Any) {
    poll_fn(|cx| to.poll_close_sending(cx)).await.unwrap();
}

/// Sends `messages` and ends, while it takes everything up to the other's end.
async fn exchange(link: &mut Any, messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let link = Mutex::new(link);
    let sending = async {
        for message in messages {
            poll_fn(|cx| link.lock().unwrap().poll_ready(cx)).await.unwrap();
            link.lock().unwrap().start_send(message).unwrap();
        }
        poll_fn(|cx| link.lock().unwrap().poll_close_sending(cx)).await.unwrap();
    };
    let receiving = async {
        let mut got = Vec::new();
        loop {
            match poll_fn(|cx| link.lock().unwrap().poll_receive(cx)).await {
                Ok(frame) => got.push(frame.to_vec()),
                Err(Error::Ended(End::Eof)) => return got,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::join!(sending, receiving).1
}

async fn run(client: &mut Any, backend: &mut Any) -> Report {
    Bridge::default().run(client, backend, &Silent, pending::<()>()).await
}

/// Messages without newlines, of sizes around every threshold.
fn messages(tag: u8) -> Vec<Vec<u8>> {
    let sizes = [1, 2, 99, 100, 101, 511, 512, 4095, 4096, 4097, 65_535, 65_536, 200_000];
    let sized = sizes.map(|size| (0..size).map(|at| 32 + ((at as u8) ^ tag) % 200).collect());
    sized.into_iter().chain((0..600).map(|n| format!("{{\"id\":{n},\"tag\":{tag}}}").into_bytes())).collect()
}

#[tokio::test]
async fn messages_pass_unchanged_both_ways_between_any_two_and_the_ends_follow() {
    for near in KINDS {
        for far in KINDS {
            let (mut client, mut near_end) = pair(near).await;
            let (mut backend, mut far_end) = pair(far).await;
            let (requests, answers) = (messages(1), messages(7));
            let all = async {
                tokio::join!(
                    exchange(&mut client, &requests),
                    exchange(&mut backend, &answers),
                    run(&mut near_end, &mut far_end)
                )
            };
            let (got_answers, got_requests, report) = timeout(LIMIT, all).await.expect("hangs");
            assert!(got_requests == requests && got_answers == answers, "{near:?} to {far:?}");
            assert!(!report.gave_up);
            for (passed, sent) in [(&report.to_backend, &requests), (&report.to_client, &answers)] {
                assert_eq!(passed.messages, sent.len() as u64);
                assert_eq!(passed.bytes, sent.iter().map(|message| message.len() as u64).sum::<u64>());
                assert_eq!((passed.dropped, passed.lost), (0, 0));
                assert!(matches!(passed.received, Some(Error::Ended(End::Eof))));
                assert!(passed.sent.is_none());
            }
        }
    }
}

#[tokio::test]
async fn the_way_back_stays_open_when_one_side_has_ended() {
    for (near, far) in [(Kind::Memory, Kind::Tcp), (Kind::Tcp, Kind::Pieces), (Kind::Lines, Kind::Memory)] {
        let (mut client, mut near_end) = pair(near).await;
        let (mut backend, mut far_end) = pair(far).await;
        let script = async {
            for n in 0..50 {
                send(&mut client, format!("request {n}").as_bytes()).await.unwrap();
            }
            end(&mut client).await;
            // All of it comes before the end does.
            for n in 0..50 {
                assert_eq!(receive(&mut backend).await.unwrap(), format!("request {n}").into_bytes());
            }
            assert!(matches!(receive(&mut backend).await, Err(Error::Ended(End::Eof))));
            for n in 0..50 {
                send(&mut backend, format!("answer {n}").as_bytes()).await.unwrap();
                assert_eq!(receive(&mut client).await.unwrap(), format!("answer {n}").into_bytes());
            }
            end(&mut backend).await;
            assert!(matches!(receive(&mut client).await, Err(Error::Ended(End::Eof))));
        };
        let both = async { tokio::join!(script, run(&mut near_end, &mut far_end)) };
        let ((), report) = timeout(LIMIT, both).await.expect("hangs");
        assert_eq!(report.first, Some(Direction::ToBackend));
    }
}

#[tokio::test]
async fn frames_of_the_largest_size_pass() {
    let size = framewire::limits::MAX_MESSAGE_SIZE;
    let (mut client, mut near_end) = pair(Kind::Tcp).await;
    let (mut backend, mut far_end) = pair(Kind::Memory).await;
    let (down, up) = (vec![vec![b'd'; size]], vec![vec![b'u'; size], b"small".to_vec()]);
    let all = async {
        tokio::join!(
            exchange(&mut client, &down),
            exchange(&mut backend, &up),
            run(&mut near_end, &mut far_end)
        )
    };
    let (got_up, got_down, _) = timeout(LIMIT, all).await.expect("hangs");
    assert!(got_up == up && got_down == down);
}

/// Polls `bridge` until nothing moves any more by itself.
async fn settle(mut bridge: std::pin::Pin<&mut impl Future<Output = Report>>) {
    for _ in 0..100 {
        poll_fn(|cx| {
            assert!(bridge.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_side_that_does_not_read_holds_back_the_other_within_bounds_and_only_one_way() {
    const ROOM: usize = 16 * 1024;
    let (mut client, mut near_end) = MemoryTransport::with_capacity(ROOM);
    let (mut backend, mut far_end) = MemoryTransport::with_capacity(ROOM);
    let bridge = Bridge::default();
    let mut running = pin!(bridge.run(&mut near_end, &mut far_end, &Silent, pending::<()>()));
    let mut sent = 0;
    let mut cx = Context::from_waker(Waker::noop());
    // Until the client is told to wait, again and again.
    for _ in 0..50 {
        while client.poll_ready(&mut cx).is_ready() {
            client.start_send(&[b'x'; 1000]).unwrap();
            sent += 1;
        }
        settle(running.as_mut()).await;
    }
    assert!((16..=2 * (ROOM / 1000 + 2)).contains(&sent), "{sent} messages of 1000 bytes were taken");

    // The other way is open all the time.
    for n in 0..100_u8 {
        backend.start_send(&[n]).unwrap();
        settle(running.as_mut()).await;
        assert!(matches!(client.poll_receive(&mut cx), Poll::Ready(Ok(frame)) if frame == [n][..]));
    }
    // And what was held back comes once it is read.
    let mut got = 0;
    for _ in 0..10 {
        while let Poll::Ready(message) = backend.poll_receive(&mut cx) {
            assert_eq!(message.unwrap().len(), 1000);
            got += 1;
        }
        settle(running.as_mut()).await;
    }
    assert_eq!(got, sent);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_takes_nothing_more_is_still_heard() {
    let mut backend = MockTransport::new().wait_when_empty().fail_sending_after(10);
    let script = backend.clone();
    let (mut client, mut near_end) = MemoryTransport::pair();
    let bridge = Bridge::default();
    let speak = async {
        for message in [&b"12345"[..], b"12345", b"too much", b"lost"] {
            client.start_send(message).unwrap();
        }
        for n in 0..20_u8 {
            tokio::time::sleep(bridge.linger / 2).await;
            script.push_response([n]);
            let frame = poll_fn(|cx| client.poll_receive(cx)).await.unwrap();
            assert_eq!(frame, [n][..]);
        }
    };
    let (report, ()) = tokio::join!(bridge.run(&mut near_end, &mut backend, &Silent, pending::<()>()), speak);
    // Then it was silent for too long.
    assert!(report.gave_up);
    assert_eq!(report.first, Some(Direction::ToBackend));
    assert!(matches!(report.to_backend.sent, Some(Error::Ended(End::Reset))));
    assert_eq!((report.to_backend.messages, report.to_backend.lost), (2, 2));
    assert_eq!(report.to_client.messages, 20);
    assert_eq!(script.take_sent_messages(), [b"12345", b"12345"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_cut_off_ends_it_at_once() {
    let (client, mut near_end) = MemoryTransport::pair();
    let mut backend = MockTransport::new().wait_when_empty();
    backend.push_response(&b"for nobody"[..]);
    drop(client);
    let before = tokio::time::Instant::now();
    let report = Bridge::default().run(&mut near_end, &mut backend, &Silent, pending::<()>()).await;
    // The backend has no end of its own here; there is just nobody left to hear it.
    assert!(before.elapsed() < Duration::from_secs(1));
    assert_eq!(report.to_client.lost, 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_given_up_after_its_write_deadline() {
    let (stream, _never_read) = tokio::io::duplex(1000);
    let (reader, writer) = tokio::io::split(stream);
    let config = LinkConfig::default().write(Duration::from_secs(7));
    let mut client = Link::with_config(Newline::new(), reader, writer, config);
    let (mut backend, mut far_end) = MemoryTransport::pair();
    for _ in 0..100 {
        backend.start_send(&[b'x'; 1000]).unwrap();
    }
    let before = tokio::time::Instant::now();
    let report = Bridge::default().run(&mut client, &mut far_end, &Silent, pending::<()>()).await;
    assert_eq!(before.elapsed().as_secs(), 7);
    assert!(report.gave_up);
    assert!(matches!(report.to_client.sent, Some(Error::TimedOut { deadline: Deadline::Write, .. })));
}

#[tokio::test(start_paused = true)]
async fn silence_after_the_end_of_the_other_side_has_a_limit() {
    for (ends, limit) in [(Direction::ToBackend, 30), (Direction::ToClient, 1)] {
        let (mut client, mut near_end) = MemoryTransport::pair();
        let (mut backend, mut far_end) = MemoryTransport::pair();
        let mut cx = Context::from_waker(Waker::noop());
        let ending = if ends == Direction::ToBackend { &mut client } else { &mut backend };
        assert!(ending.poll_close_sending(&mut cx).is_ready());
        let before = tokio::time::Instant::now();
        let report = Bridge::default().run(&mut near_end, &mut far_end, &Silent, pending::<()>()).await;
        assert_eq!(before.elapsed().as_secs(), limit);
        assert!(report.gave_up);
        assert_eq!(report.first, Some(ends));
        drop((client, backend));
    }
}

#[tokio::test]
async fn a_stop_delivers_what_has_come_and_the_answers_to_it() {
    for near in KINDS {
        let (mut client, mut near_end) = pair(near).await;
        let (mut backend, mut far_end) = pair(Kind::Memory).await;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let script = async {
            for n in 0..10_u8 {
                send(&mut client, &[b'a' + n]).await.unwrap();
            }
            for n in 0..10_u8 {
                assert_eq!(receive(&mut backend).await.unwrap(), [b'a' + n]);
            }
            stop.send(()).unwrap();
            assert!(matches!(receive(&mut backend).await, Err(Error::Ended(End::Eof))));
            send(&mut backend, b"answer").await.unwrap();
            end(&mut backend).await;
            assert_eq!(receive(&mut client).await.unwrap(), b"answer");
            assert!(matches!(receive(&mut client).await, Err(Error::Ended(End::Eof))));
        };
        let bridge = Bridge::default();
        let both = async { tokio::join!(script, bridge.run(&mut near_end, &mut far_end, &Silent, stopped)) };
        let ((), report) = timeout(LIMIT, both).await.expect("hangs");
        assert!(report.to_backend.received.is_none(), "it was stopped, not ended");
    }
}

#[cfg(feature = "gateway")]
#[tokio::test]
async fn a_stop_waits_for_answers_where_it_is_asked_to() {
    const PING: &[u8] = br#"{"jsonrpc":"2.0","id":9,"method":"ping"}"#;
    const PONG: &[u8] = br#"{"jsonrpc":"2.0","id":9,"result":{}}"#;
    const CANCELLED: &[u8] =
        br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3}}"#;
    let call = |id: u8| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call"}}"#).into_bytes();
    let answer = |id: u8| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#).into_bytes();
    for near in KINDS {
        let (mut client, mut near_end) = pair(near).await;
        let (mut backend, mut far_end) = pair(Kind::Memory).await;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let script = async {
            for id in 1..=3 {
                send(&mut client, &call(id)).await.unwrap();
                assert_eq!(receive(&mut backend).await.unwrap(), call(id));
            }
            stop.send(()).unwrap();
            // What a call under way asks of the client passes, and so does what the client has to say.
            send(&mut backend, PING).await.unwrap();
            assert_eq!(receive(&mut client).await.unwrap(), PING);
            for message in [PONG.to_vec(), call(4), CANCELLED.to_vec()] {
                send(&mut client, &message).await.unwrap();
                assert_eq!(receive(&mut backend).await.unwrap(), message);
            }
            for id in [2, 1] {
                send(&mut backend, &answer(id)).await.unwrap();
                assert_eq!(receive(&mut client).await.unwrap(), answer(id));
            }
            // The fourth came too late to be waited for.
            assert!(matches!(receive(&mut backend).await, Err(Error::Ended(End::Eof))));
            end(&mut backend).await;
            assert!(matches!(receive(&mut client).await, Err(Error::Ended(End::Eof))));
        };
        let mut bridge = Bridge::default();
        bridge.answers_first = true;
        let both = async { tokio::join!(script, bridge.run(&mut near_end, &mut far_end, &Silent, stopped)) };
        let ((), report) = timeout(LIMIT, both).await.expect("hangs");
        assert!(report.to_backend.received.is_none(), "it was stopped, not ended");
        assert_eq!((report.to_backend.messages, report.to_client.messages), (6, 3));
    }
}

#[cfg(feature = "gateway")]
#[tokio::test]
async fn a_stop_waits_for_no_answer_that_the_client_cannot_take() {
    let (mut client, near_end) = tokio::io::duplex(4096);
    let (reader, writer) = tokio::io::split(near_end);
    let codec = Newline::new().max_encode_size(20);
    let mut near_end: Any = Box::new(Link::pair(codec, reader, writer));
    let (mut backend, mut far_end) = pair(Kind::Memory).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let script = async {
        tokio::io::AsyncWriteExt::write_all(
            &mut client,
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\"}\n",
        )
        .await
        .unwrap();
        receive(&mut backend).await.unwrap();
        stop.send(()).unwrap();
        send(&mut backend, br#"{"jsonrpc":"2.0","id":1,"result":{}}"#).await.unwrap();
        assert!(matches!(receive(&mut backend).await, Err(Error::Ended(End::Eof))));
        end(&mut backend).await;
    };
    let mut bridge = Bridge::default();
    bridge.answers_first = true;
    let both = async { tokio::join!(script, bridge.run(&mut near_end, &mut far_end, &Silent, stopped)) };
    let ((), report) = timeout(LIMIT, both).await.expect("hangs");
    assert_eq!((report.to_client.messages, report.to_client.dropped), (0, 1));
}

/// Dropped after every number of polls and run anew: each message comes once, whole and in order.
#[tokio::test]
async fn dropping_it_in_the_middle_loses_and_doubles_nothing() {
    for (near, far) in [(Kind::Pieces, Kind::Pieces), (Kind::Memory, Kind::Pieces), (Kind::Tcp, Kind::Lines)]
    {
        for polls in [1, 2, 3, 5, 8] {
            let (mut client, mut near_end) = pair(near).await;
            let (mut backend, mut far_end) = pair(far).await;
            let (requests, answers) = (messages(3), messages(5));
            let bridge = Bridge::default();
            let dropping = async {
                loop {
                    let mut left = polls;
                    let mut running = pin!(bridge.run(&mut near_end, &mut far_end, &Silent, pending::<()>()));
                    let done = poll_fn(|cx| match running.as_mut().poll(cx) {
                        Poll::Ready(_) => Poll::Ready(true),
                        Poll::Pending if left == 1 => Poll::Ready(false),
                        Poll::Pending => {
                            left -= 1;
                            Poll::Pending
                        }
                    });
                    if done.await {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            };
            let all = async {
                tokio::join!(exchange(&mut client, &requests), exchange(&mut backend, &answers), dropping)
            };
            let (got_answers, got_requests, ()) = timeout(LIMIT, all).await.expect("hangs");
            assert!(got_requests == requests && got_answers == answers, "{near:?} to {far:?}, {polls} polls");
        }
    }
}

#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

impl Observer for Seen {
    fn message(&self, direction: Direction, payload: &[u8]) {
        self.0.lock().unwrap().push(format!("{direction:?} {}", payload.escape_ascii()));
    }

    fn dropped(&self, direction: Direction, error: &Error) {
        let kind = match error {
            Error::Fault(Fault::TooLarge { size, .. }) => format!("fault of {size}"),
            Error::Rejected(Rejection::EmbeddedDelimiter { .. }) => "rejected".to_owned(),
            other => panic!("{other}"),
        };
        self.0.lock().unwrap().push(format!("{direction:?} {kind}"));
    }

    fn noise(&self, direction: Direction, payload: &[u8]) {
        self.0.lock().unwrap().push(format!("{direction:?} noise {}", payload.escape_ascii()));
    }
}

#[tokio::test]
async fn what_cannot_pass_is_told_and_the_rest_goes_on() {
    let mut backend = MockTransport::new().wait_when_empty();
    for answer in ["one", "two\nlines", "three"] {
        backend.push_response(answer);
    }
    backend.push_fault(Fault::TooLarge { size: 99, limit: 9 });
    backend.push_response("four");
    backend.push_end();
    let (mut client, mut near_end) = pair(Kind::Lines).await;
    end(&mut client).await;
    let seen = Seen::default();
    let report = Bridge::default().run(&mut near_end, &mut backend, &seen, pending::<()>()).await;
    assert_eq!((report.to_client.messages, report.to_client.dropped), (3, 2));
    for expected in ["one", "three", "four"] {
        assert_eq!(receive(&mut client).await.unwrap(), expected.as_bytes());
    }
    let expected = [
        "ToClient one",
        "ToClient two\\nlines",
        "ToClient rejected",
        "ToClient three",
        "ToClient fault of 99",
        "ToClient four",
    ];
    assert_eq!(*seen.0.lock().unwrap(), expected);
}

#[cfg(feature = "json")]
#[tokio::test]
async fn what_a_backend_writes_that_is_no_message_is_known_by_its_structure() {
    use framewire::gateway::Noise;

    let messages = [
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"2.0","method":"note","params":{"log":"[INFO] {"}}"#,
        r#"[{"jsonrpc":"2.0","id":1,"error":{}}]"#,
        r#"{"jsonrpc":"2.0","id":1,"id":2,"result":{}}"#,
    ];
    let noise =
        ["Server started on [::]:80", r#"{"level":"info"}"#, "17", r#"{"jsonrpc":"2.0","id":1}"#, "}"];
    for policy in [Noise::Unseen, Noise::Pass, Noise::Drop] {
        let mut backend = MockTransport::new().wait_when_empty();
        for text in messages.iter().chain(&noise) {
            backend.push_response(*text);
        }
        backend.push_end();
        let (mut client, mut near_end) = pair(Kind::Lines).await;
        // What a client writes is not looked at.
        send(&mut client, b"noise").await.unwrap();
        end(&mut client).await;
        let seen = Seen::default();
        let mut bridge = Bridge::default();
        bridge.noise = policy;
        let report = bridge.run(&mut near_end, &mut backend, &seen, pending::<()>()).await;
        let dropped = if policy == Noise::Drop { noise.len() } else { 0 };
        assert_eq!(report.to_client.messages as usize, messages.len() + noise.len() - dropped, "{policy:?}");
        assert_eq!(
            (report.to_client.dropped as usize, report.to_backend.messages),
            (dropped, 1),
            "{policy:?}"
        );
        for expected in messages.iter().chain(noise.iter().take(noise.len() - dropped)) {
            assert_eq!(receive(&mut client).await.unwrap(), expected.as_bytes(), "{policy:?}");
        }
        let told = seen.0.lock().unwrap().iter().filter(|line| line.starts_with("ToClient noise")).count();
        assert_eq!(told, if policy == Noise::Unseen { 0 } else { noise.len() }, "{policy:?}");
    }
}
