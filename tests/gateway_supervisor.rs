//! A supervised server: what the client sees when it ends, comes back, talks nonsense or does not start.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "gateway")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use framewire::{
    Error, Link,
    codec::Newline,
    error::End,
    gateway::{
        Opening, Supervisor, SupervisorConfig, SupervisorEvent,
        supervisor::{GaveUp, State},
    },
    transport::{MemoryTransport, PollTransport, Transport},
};
use tokio::sync::mpsc::UnboundedReceiver;

#[path = "support/backends.rs"]
mod backends;
use backends::{Played, end, send, text, within};

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":"i-1","method":"initialize","params":{"protocolVersion":"2025-11-25","big":9007199254740993}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

fn quick() -> SupervisorConfig {
    let mut config = SupervisorConfig::default();
    config.backoff_min = Duration::from_millis(1);
    config.backoff_max = Duration::from_millis(20);
    config
}

fn supervised(config: SupervisorConfig) -> (Supervisor, Played, UnboundedReceiver<MemoryTransport>) {
    let (played, opened) = Played::new();
    (Supervisor::new(Arc::new(played.clone()), config), played, opened)
}

/// The next server, opened because the client waits for something that does not come.
async fn opened(
    client: &mut Supervisor,
    servers: &mut UnboundedReceiver<MemoryTransport>,
) -> MemoryTransport {
    within(async {
        tokio::select! {
            server = servers.recv() => server.unwrap(),
            message = Transport::receive(client) => panic!("{message:?} came instead"),
        }
    })
    .await
}

/// What the server gets while the client waits.
async fn seen(client: &mut Supervisor, server: &mut MemoryTransport) -> String {
    within(async {
        tokio::select! {
            message = text(server) => message,
            message = Transport::receive(client) => panic!("{message:?} came instead"),
        }
    })
    .await
}

async fn shake(client: &mut Supervisor, server: &mut MemoryTransport) {
    send(client, INITIALIZE).await;
    assert_eq!(seen(client, server).await, INITIALIZE);
    send(server, r#"{"jsonrpc":"2.0","id":"i-1","result":{"serverInfo":{}}}"#).await;
    assert_eq!(text(client).await, r#"{"jsonrpc":"2.0","id":"i-1","result":{"serverInfo":{}}}"#);
    send(client, INITIALIZED).await;
    assert_eq!(seen(client, server).await, INITIALIZED);
}

fn call(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"x"}}}}"#)
}

fn failed(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32000,"message":"the server ended before it answered; it is being restarted"}}}}"#
    )
}

#[tokio::test]
async fn requests_under_way_are_answered_at_once_and_the_handshake_is_replayed() {
    let (mut client, _, mut servers) = supervised(quick());
    let status = client.status();
    assert_eq!(status.state(), State::Starting);
    let mut server = opened(&mut client, &mut servers).await;
    assert!(status.is_ready());
    shake(&mut client, &mut server).await;
    for id in ["7", "\"7\"", "90071992547409931", "\"\\u00e9\""] {
        send(&mut client, call(id)).await;
        assert_eq!(seen(&mut client, &mut server).await, call(id));
    }
    assert_eq!(status.counts().in_flight, 4);
    // One is answered, with another escape for its id.
    send(&mut server, r#"{"jsonrpc":"2.0","id":"é","result":{}}"#).await;
    assert_eq!(text(&mut client).await, r#"{"jsonrpc":"2.0","id":"é","result":{}}"#);
    drop(server);
    for id in ["7", "\"7\"", "90071992547409931"] {
        assert_eq!(text(&mut client).await, failed(id));
    }
    assert!(!status.is_ready());
    let mut server = opened(&mut client, &mut servers).await;
    // What comes before the handshake is done waits.
    send(&mut client, call("8")).await;
    assert_eq!(seen(&mut client, &mut server).await, INITIALIZE);
    send(&mut server, r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#).await;
    assert_eq!(text(&mut client).await, r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#);
    send(&mut server, r#"{"jsonrpc":"2.0","id":"i-1","result":{"other":1}}"#).await;
    assert_eq!(seen(&mut client, &mut server).await, INITIALIZED);
    assert_eq!(seen(&mut client, &mut server).await, call("8"));
    send(&mut server, r#"{"jsonrpc":"2.0","id":8,"result":1}"#).await;
    assert_eq!(text(&mut client).await, r#"{"jsonrpc":"2.0","id":8,"result":1}"#);
    let counts = status.counts();
    assert_eq!((counts.opened, counts.ended, counts.failed_requests, counts.in_flight), (2, 1, 3, 0));
    assert!(status.is_ready());
}

#[tokio::test]
async fn garbage_is_told_counted_and_skipped() {
    let (played, mut servers) = Played::new();
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let tell = Arc::clone(&told);
    let observer = move |event: &SupervisorEvent<'_>| {
        if let SupervisorEvent::Garbage { bytes, error } = event {
            tell.lock().unwrap().push(format!("{}: {error}", bytes.escape_ascii()));
        }
    };
    let mut client = Supervisor::with_observer(Arc::new(played), quick(), Arc::new(observer));
    let mut server = opened(&mut client, &mut servers).await;
    send(&mut client, call("1")).await;
    seen(&mut client, &mut server).await;
    let garbage: &[&[u8]] = &[
        b"",
        b"Server listening",
        b"42",
        b"null",
        br#"{"level":"info"}"#,
        br#"{"jsonrpc":"2.0","id":2"#,
        b"\xff\xfe",
        br#"[{"jsonrpc":"2.0","method":"x"},7]"#,
        b"[]",
        b" [ ]",
        b"[]]",
        br#"{"jsonrpc":"2.0","id":3,"id":4,"result":1}"#,
        b"{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":\"\xff\"}",
    ];
    for bytes in garbage {
        send(&mut server, bytes).await;
    }
    send(&mut server, b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"\xc3\"}").await;
    assert_eq!(
        text(&mut client).await,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"the server's answer is not UTF-8"}}"#
    );
    send(&mut server, r#"{"jsonrpc":"2.0","method":"good"}"#).await;
    assert_eq!(text(&mut client).await, r#"{"jsonrpc":"2.0","method":"good"}"#);
    assert_eq!(client.status().counts().garbage, garbage.len() as u64 + 1);
    assert_eq!(told.lock().unwrap().len(), garbage.len() + 1);
}

#[tokio::test]
async fn late_answers_to_a_server_that_is_gone_are_dropped() {
    let (mut client, _, mut servers) = supervised(quick());
    let mut server = opened(&mut client, &mut servers).await;
    let ask = r#"{"jsonrpc":"2.0","id":0,"method":"sampling/createMessage","params":{}}"#;
    send(&mut server, ask).await;
    assert_eq!(text(&mut client).await, ask);
    drop(server);
    assert_eq!(
        text(&mut client).await,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":0,"reason":"the server ended"}}"#
    );
    let mut server = opened(&mut client, &mut servers).await;
    // The new server's first request has the same id, as servers count from 0.
    send(&mut server, ask).await;
    assert_eq!(
        text(&mut client).await,
        r#"{"jsonrpc":"2.0","id":"framewire-1","method":"sampling/createMessage","params":{}}"#
    );
    send(&mut client, r#"{"jsonrpc":"2.0","id":0,"result":"late"}"#).await;
    send(&mut client, r#"{"jsonrpc":"2.0","id":"framewire-1","result":"now"}"#).await;
    assert_eq!(seen(&mut client, &mut server).await, r#"{"jsonrpc":"2.0","id":0,"result":"now"}"#);
    assert_eq!(client.status().counts().late_answers, 1);
    // From now on the id is free again.
    send(&mut server, ask).await;
    assert_eq!(text(&mut client).await, ask);
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_the_server_is_down_waits_for_a_bounded_time() {
    let mut config = quick();
    config.hold_messages = 2;
    let (mut client, played, mut servers) = supervised(config);
    played.fail(u32::MAX);
    let started = tokio::time::Instant::now();
    for id in ["1", "2", "3"] {
        send(&mut client, call(id)).await;
    }
    let refused = |id: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32000,"message":"the server is not running; it is being restarted"}}}}"#
        )
    };
    assert_eq!(text(&mut client).await, refused("3"));
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(text(&mut client).await, refused("1"));
    assert!((10..12).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    assert_eq!(text(&mut client).await, refused("2"));
    send(&mut client, call("4")).await;
    // Taken back before any server has seen it: neither passes.
    send(&mut client, r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":4}}"#)
        .await;
    send(&mut client, call("5")).await;
    played.fail(0);
    let mut server = opened(&mut client, &mut servers).await;
    assert_eq!(seen(&mut client, &mut server).await, call("5"));
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_until_a_request_is_answered() {
    let (played, mut servers) = Played::new();
    let pauses: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let tell = Arc::clone(&pauses);
    let observer = move |event: &SupervisorEvent<'_>| {
        if let SupervisorEvent::Waiting { pause } = event {
            tell.lock().unwrap().push(*pause);
        }
    };
    let mut client =
        Supervisor::with_observer(Arc::new(played), SupervisorConfig::default(), Arc::new(observer));
    for _ in 0..16 {
        drop(opened(&mut client, &mut servers).await);
    }
    let mut server = opened(&mut client, &mut servers).await;
    let mut seen_pauses = std::mem::take(&mut *pauses.lock().unwrap());
    assert_eq!(seen_pauses.len(), 16);
    let longest = Duration::from_secs(30);
    for (number, pause) in seen_pauses.drain(..).enumerate() {
        let least = Duration::from_millis(100 << number.min(20)).min(longest / 2);
        assert!((least..=(2 * least)).contains(&pause), "{number}: {pause:?}");
    }
    send(&mut client, call("1")).await;
    seen(&mut client, &mut server).await;
    send(&mut server, r#"{"jsonrpc":"2.0","id":1,"result":1}"#).await;
    text(&mut client).await;
    drop(server);
    opened(&mut client, &mut servers).await;
    assert!(pauses.lock().unwrap()[0] <= Duration::from_millis(200));
}

#[tokio::test]
async fn gives_up_only_when_told_to() {
    let mut config = quick();
    config.max_restarts = Some(3);
    let (mut client, played, _servers) = supervised(config);
    played.fail(u32::MAX);
    send(&mut client, call("1")).await;
    assert_eq!(
        text(&mut client).await,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"the server has ended too often and is not started again"}}"#
    );
    let Error::Io(error) = end(&mut client).await else { panic!() };
    assert_eq!(error.get_ref().unwrap().downcast_ref(), Some(&GaveUp { restarts: 4 }));
    assert_eq!(client.status().state(), State::GaveUp);
    assert!(!client.is_connected());
}

#[tokio::test]
async fn the_clients_end_is_the_end() {
    let (mut client, _, mut servers) = supervised(quick());
    let mut server = opened(&mut client, &mut servers).await;
    send(&mut client, call("1")).await;
    within(std::future::poll_fn(|cx| client.poll_close_sending(cx))).await.unwrap();
    assert_eq!(text(&mut server).await, call("1"));
    assert!(matches!(end(&mut server).await, Error::Ended(End::Eof)));
    send(&mut server, r#"{"jsonrpc":"2.0","method":"bye"}"#).await;
    drop(server);
    assert_eq!(text(&mut client).await, r#"{"jsonrpc":"2.0","method":"bye"}"#);
    assert_eq!(
        text(&mut client).await,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"the server ended before it answered"}}"#
    );
    assert!(matches!(end(&mut client).await, Error::Ended(End::Eof)));
    within(Transport::close(&mut client)).await.unwrap();
    assert!(matches!(end(&mut client).await, Error::Ended(End::Closed)));
    assert_eq!(client.status().state(), State::Closed);
}

#[tokio::test]
async fn too_many_and_too_long() {
    let mut config = quick();
    config.max_in_flight = 2;
    let (mut client, _, mut servers) = supervised(config);
    let mut server = opened(&mut client, &mut servers).await;
    let long = format!("\"{}\"", "x".repeat(2000));
    for id in ["1", &long, "2", "3"] {
        send(&mut client, call(id)).await;
    }
    assert_eq!(
        text(&mut client).await,
        format!(
            r#"{{"jsonrpc":"2.0","id":{long},"error":{{"code":-32600,"message":"the id is too long"}}}}"#
        )
    );
    assert_eq!(
        text(&mut client).await,
        r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32005,"message":"too many requests are under way"}}"#
    );
    assert_eq!(seen(&mut client, &mut server).await, call("1"));
    assert_eq!(seen(&mut client, &mut server).await, call("2"));
    // Those of a batch are counted one by one.
    send(&mut client, r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#)
        .await;
    seen(&mut client, &mut server).await;
    send(&mut client, format!("[{},{}]", call("5"), call("6"))).await;
    for id in ["5", "6"] {
        let refused = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32005,"message":"too many requests are under way"}}}}"#
        );
        assert_eq!(text(&mut client).await, refused);
    }
    send(&mut client, call("2")).await;
    assert_eq!(seen(&mut client, &mut server).await, call("2"));
    // A cancelled one may never be answered, and is not counted.
    send(&mut client, r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#)
        .await;
    send(&mut client, call("3")).await;
    seen(&mut client, &mut server).await;
    assert_eq!(seen(&mut client, &mut server).await, call("3"));
}

#[tokio::test]
async fn what_the_client_had_set_is_set_again() {
    let (played, mut servers) = Played::new();
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let tell = Arc::clone(&told);
    let observer = move |event: &SupervisorEvent<'_>| {
        if let SupervisorEvent::NotRestored { method } = event {
            tell.lock().unwrap().push((*method).to_owned());
        }
    };
    let mut client = Supervisor::with_observer(Arc::new(played), quick(), Arc::new(observer));
    let mut server = opened(&mut client, &mut servers).await;
    shake(&mut client, &mut server).await;
    let set = |id: &str, method: &str, params: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
    };
    let (level, subscribe, unsubscribe) =
        ("logging/setLevel", "resources/subscribe", "resources/unsubscribe");
    for (id, method, params, answer) in [
        ("1", level, r#"{"level":"info"}"#, "\"result\":{}"),
        ("\"2\"", level, r#"{"_meta":{"progressToken":1},"level":"debug"}"#, "\"result\":{}"),
        ("3", level, r#"{"level":"error"}"#, "\"error\":{}"),
        ("4", level, r#"{"level":7}"#, "\"result\":{}"),
        ("5", subscribe, r#"{"uri":"a:\u0062"}"#, "\"result\":{}"),
        ("6", subscribe, r#"{"uri":"a:b"}"#, "\"result\":{}"),
        ("7", subscribe, r#"{"uri":"a:c"}"#, "\"result\":{}"),
        ("8", subscribe, r#"{"uri":"a:d"}"#, "\"error\":{}"),
        ("9", subscribe, r#"{"uri":"a:e"}"#, "\"result\":{}"),
        ("10", unsubscribe, r#"{"uri":"\u0061:e"}"#, "\"result\":{}"),
        ("11", unsubscribe, r#"{"uri":"a:z"}"#, "\"error\":{}"),
        ("12", subscribe, "{}", "\"result\":{}"),
    ] {
        let request = set(id, method, params);
        send(&mut client, &request).await;
        assert_eq!(seen(&mut client, &mut server).await, request);
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},{answer}}}"#);
        send(&mut server, &answer).await;
        assert_eq!(text(&mut client).await, answer);
    }
    // Not answered when the server ends: the client is told so, and it is not set.
    let late = set("13", subscribe, r#"{"uri":"a:f"}"#);
    send(&mut client, &late).await;
    assert_eq!(seen(&mut client, &mut server).await, late);
    drop(server);
    assert_eq!(text(&mut client).await, failed("13"));

    let mut server = opened(&mut client, &mut servers).await;
    send(&mut client, call("14")).await;
    let greeted = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
    let own = |number: u32| format!("\"framewire-restore-{number}\"");
    assert_eq!(seen(&mut client, &mut server).await, INITIALIZE);
    send(&mut server, greeted("\"i-1\"")).await;
    assert_eq!(seen(&mut client, &mut server).await, INITIALIZED);
    for expected in [
        set(&own(1), level, r#"{"level":"debug"}"#),
        set(&own(2), subscribe, r#"{"uri":"a:\u0062"}"#),
        set(&own(3), subscribe, r#"{"uri":"a:c"}"#),
        call("14"),
    ] {
        assert_eq!(seen(&mut client, &mut server).await, expected);
    }
    // The answers are nobody's, whether they say yes or no. An update may come before them.
    let updated = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:b"}}"#;
    send(&mut server, updated).await;
    for (number, answer) in [(3, "\"error\":{}"), (1, "\"result\":{}"), (2, "\"result\":{}")] {
        send(&mut server, format!(r#"{{"jsonrpc":"2.0","id":{},{answer}}}"#, own(number))).await;
    }
    send(&mut server, greeted("14")).await;
    assert_eq!(text(&mut client).await, updated);
    assert_eq!(text(&mut client).await, greeted("14"));
    assert_eq!(*told.lock().unwrap(), ["resources/subscribe"]);
    assert_eq!(client.status().counts().in_flight, 0);
    // An id like ours is the client's own when none of ours is under way.
    send(&mut client, call(&own(1))).await;
    assert_eq!(seen(&mut client, &mut server).await, call(&own(1)));
    send(&mut server, greeted(&own(1))).await;
    assert_eq!(text(&mut client).await, greeted(&own(1)));

    // One that ends before it has answered all, and the next, are told what is left.
    for first in [4, 6] {
        drop(server);
        server = opened(&mut client, &mut servers).await;
        assert_eq!(seen(&mut client, &mut server).await, INITIALIZE);
        send(&mut server, greeted("\"i-1\"")).await;
        assert_eq!(seen(&mut client, &mut server).await, INITIALIZED);
        let expected = set(&own(first), level, r#"{"level":"debug"}"#);
        assert_eq!(seen(&mut client, &mut server).await, expected);
        let expected = set(&own(first + 1), subscribe, r#"{"uri":"a:\u0062"}"#);
        assert_eq!(seen(&mut client, &mut server).await, expected);
        send(&mut client, call("15")).await;
        assert_eq!(seen(&mut client, &mut server).await, call("15"));
        send(&mut server, greeted("15")).await;
        assert_eq!(text(&mut client).await, greeted("15"));
    }
    // A client that begins anew has set nothing.
    shake(&mut client, &mut server).await;
    drop(server);
    let mut server = opened(&mut client, &mut servers).await;
    assert_eq!(seen(&mut client, &mut server).await, INITIALIZE);
    send(&mut server, greeted("\"i-1\"")).await;
    assert_eq!(seen(&mut client, &mut server).await, INITIALIZED);
    send(&mut client, call("16")).await;
    assert_eq!(seen(&mut client, &mut server).await, call("16"));
}

#[tokio::test]
async fn an_answer_that_is_too_large_fails_its_request_and_no_other() {
    const LIMIT: usize = 2000;
    let ((reader, writer), (far_reader, far_writer)) = framewire::io::memory::pair(64 * 1024);
    let near = Mutex::new(Some(Link::pair(Newline::new().max_size(LIMIT), reader, writer)));
    let backend = move |_: u64| -> Opening {
        let near = near.lock().unwrap().take();
        Box::pin(async move {
            let near = near.ok_or(std::io::ErrorKind::NotFound)?;
            Ok(Box::new(near) as Box<dyn PollTransport>)
        })
    };
    let mut client = Supervisor::new(Arc::new(backend), quick());
    let mut server = Link::pair(Newline::new(), far_reader, far_writer);
    for id in ["1", "2", "\"3\"", "4", "5"] {
        send(&mut client, call(id)).await;
        within(async {
            tokio::select! {
                got = text(&mut server) => assert_eq!(got, call(id)),
                other = Transport::receive(&mut client) => panic!("{other:?} came instead"),
            }
        })
        .await;
    }
    let long = "x".repeat(3 * LIMIT);
    let refused = |id: &str, size: usize| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32603,"message":"the server's answer of {size} bytes exceeds the limit of {LIMIT} bytes"}}}}"#
        )
    };
    // The id before the result, behind it, and where none of it is kept.
    let before = format!(r#"{{"jsonrpc":"2.0","id":2,"result":"{long}"}}"#);
    let behind = format!(r#"{{"result":{{"a":"{long}"}},"jsonrpc":"2.0","id":"3"}}"#);
    let hidden = format!(r#"{{"jsonrpc":"2.0","result":"{long}","id":4,"x":"{long}"}}"#);
    let own = format!(r#"{{"jsonrpc":"2.0","id":5,"method":"sampling/createMessage","params":"{long}"}}"#);
    let unknown = format!(r#"{{"jsonrpc":"2.0","id":77,"result":"{long}"}}"#);
    let next = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    for message in [&before, &own, &unknown, &hidden, &behind, next] {
        send(&mut server, message).await;
    }
    assert_eq!(text(&mut client).await, refused("2", before.len()));
    assert_eq!(text(&mut client).await, refused("\"3\"", behind.len()));
    assert_eq!(text(&mut client).await, next);
    assert_eq!(client.status().counts().in_flight, 2);
    // With one left, it can only be that.
    send(&mut server, r#"{"jsonrpc":"2.0","id":5,"result":{}}"#).await;
    assert_eq!(text(&mut client).await, r#"{"jsonrpc":"2.0","id":5,"result":{}}"#);
    let printed = format!("loading {long}");
    for message in [&own, &unknown, &printed, &hidden] {
        send(&mut server, message).await;
    }
    assert_eq!(text(&mut client).await, refused("4", hidden.len()));
    assert_eq!(client.status().counts().in_flight, 0);
}
