//! Many clients on one server: none sees anything of another, whatever their ids, and none waits for another.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "gateway")]

use std::{future::poll_fn, sync::Arc, time::Duration};

use framewire::{
    Error,
    error::End,
    gateway::{
        Backend, Bridge, Hub, HubConfig, HubSession, Silent,
        hub::{HubStatus, TooSlow},
    },
    limits::ERA_MAX_SUBSCRIPTIONS,
    transport::{MemoryTransport, MockTransport, PollTransport, Transport},
};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

#[path = "support/backends.rs"]
mod backends;
use backends::{Played, end, send, text, within};

fn config() -> HubConfig {
    let mut config = HubConfig::default();
    config.supervisor.backoff_min = Duration::from_millis(1);
    config.supervisor.backoff_max = Duration::from_millis(20);
    config
}

async fn hub(config: HubConfig) -> (Hub, MemoryTransport, UnboundedReceiver<MemoryTransport>) {
    let (played, mut servers) = Played::new();
    let hub = Hub::new(vec![Arc::new(played) as Arc<dyn Backend>], config);
    let server = within(servers.recv()).await.unwrap();
    (hub, server, servers)
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The next message as JSON.
async fn value<T: PollTransport + ?Sized>(from: &mut T) -> Value {
    parsed(&text(from).await)
}

/// Waits until the hub's counts are as wanted.
async fn until(status: &HubStatus, mut is: impl FnMut(&HubStatus) -> bool) {
    within(async {
        while !is(status) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

fn call(id: &str, token: &str) -> String {
    format!(
        r#"{{ "jsonrpc":"2.0",	"id":{id},"method":"tools/call","params":{{"n":9007199254740993,"_meta":{{"progressToken":{token}}},"id":{id}}}}}"#
    )
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"sampling":{},"roots":{}}}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// Shakes hands; `server` when it is the first client.
async fn shake(client: &mut HubSession, server: Option<&mut MemoryTransport>) {
    send(client, INITIALIZE).await;
    if let Some(server) = server {
        let id = value(server).await["id"].clone();
        send(server, format!(r#"{{"jsonrpc":"2.0","result":{{"x":1.0}},"id":{id}}}"#)).await;
        assert_eq!(text(client).await, r#"{"jsonrpc":"2.0","result":{"x":1.0},"id":0}"#);
        send(client, INITIALIZED).await;
        assert_eq!(text(server).await, INITIALIZED);
    } else {
        assert_eq!(text(client).await, r#"{"jsonrpc":"2.0","result":{"x":1.0},"id":0}"#);
        send(client, INITIALIZED).await;
    }
}

#[tokio::test]
async fn equal_ids_do_not_cross_and_every_other_byte_is_kept() {
    let (hub, mut server, _servers) = hub(config()).await;
    let (mut one, mut two) = (hub.attach(), hub.attach());
    send(&mut one, call("1", "\"t\"")).await;
    send(&mut two, call("1", "\"t\"")).await;
    let (first, second) = (text(&mut server).await, text(&mut server).await);
    let ids = [&first, &second].map(|text| parsed(text)["id"].to_string());
    assert_ne!(ids[0], ids[1]);
    for (seen, id) in [&first, &second].into_iter().zip(&ids) {
        // params.id is data, and stays.
        let expected = call("1", "\"t\"").replacen(r#""id":1"#, &format!(r#""id":{id}"#), 1);
        let expected = expected.replacen(r#""progressToken":"t""#, &format!(r#""progressToken":{id}"#), 1);
        assert_eq!(*seen, expected);
    }
    // Progress of the second, then the answers, the later one first.
    let progress =
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":0.10,"progressToken":"#;
    send(&mut server, format!("{progress}{}}}}}", ids[1])).await;
    send(
        &mut server,
        format!(r#"{{"result":{{"big":12345678901234567890}},"id":{},"jsonrpc":"2.0"}}"#, ids[1]),
    )
    .await;
    send(
        &mut server,
        format!(r#"{{"jsonrpc":"2.0","error":{{"code":-1,"message":"no"}}, "id": {} }}"#, ids[0]),
    )
    .await;
    assert_eq!(text(&mut two).await, format!("{progress}\"t\"}}}}"));
    assert_eq!(text(&mut two).await, r#"{"result":{"big":12345678901234567890},"id":1,"jsonrpc":"2.0"}"#);
    assert_eq!(text(&mut one).await, r#"{"jsonrpc":"2.0","error":{"code":-1,"message":"no"}, "id": 1 }"#);
    // Late and invented ones reach nobody.
    send(&mut server, format!("{progress}{}}}}}", ids[1])).await;
    send(&mut server, format!(r#"{{"jsonrpc":"2.0","result":1,"id":{}}}"#, ids[0])).await;
    send(&mut server, r#"{"jsonrpc":"2.0","result":1,"id":"x"}"#).await;
    until(&hub.status(), |status| status.counts().late == 3).await;
    assert_eq!(hub.status().counts().in_flight, 0);
}

#[tokio::test]
async fn one_handshake_is_everybodys() {
    let (hub, mut server, _servers) = hub(config()).await;
    let (mut one, mut two, mut three) = (hub.attach(), hub.attach(), hub.attach());
    send(&mut one, INITIALIZE).await;
    let id = value(&mut server).await["id"].clone();
    // Two waits for the answer to one, who leaves before it comes.
    send(&mut two, INITIALIZE.replace(":0,", ":\"abc\",")).await;
    drop(one);
    send(&mut server, format!(r#"{{"jsonrpc":"2.0","result":{{"x":1.0}},"id":{id}}}"#)).await;
    assert_eq!(text(&mut two).await, r#"{"jsonrpc":"2.0","result":{"x":1.0},"id":"abc"}"#);
    send(&mut two, INITIALIZED).await;
    assert_eq!(text(&mut server).await, INITIALIZED);
    shake(&mut three, None).await;
    // The next that the server sees is what comes after.
    send(&mut three, r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#).await;
    assert_eq!(text(&mut server).await, r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#);
}

#[tokio::test]
async fn a_refused_handshake_is_tried_by_the_next() {
    let (hub, mut server, _servers) = hub(config()).await;
    let (mut one, mut two) = (hub.attach(), hub.attach());
    send(&mut one, INITIALIZE).await;
    let id = value(&mut server).await["id"].clone();
    send(&mut two, INITIALIZE.replace(":0,", ":7,")).await;
    // The request of two has to wait before the answer comes.
    until(&hub.status(), |status| status.counts().clients == 2).await;
    send(&mut server, format!(r#"{{"jsonrpc":"2.0","error":{{"code":1,"message":""}},"id":{id}}}"#)).await;
    assert_eq!(text(&mut one).await, r#"{"jsonrpc":"2.0","error":{"code":1,"message":""},"id":0}"#);
    let again = value(&mut server).await;
    assert_eq!((&again["method"], &again["params"]), (&json!("initialize"), &parsed(INITIALIZE)["params"]));
    send(&mut server, format!(r#"{{"jsonrpc":"2.0","result":{{}},"id":{}}}"#, again["id"])).await;
    assert_eq!(text(&mut two).await, r#"{"jsonrpc":"2.0","result":{},"id":7}"#);
}

#[tokio::test]
async fn notifications_go_where_they_belong() {
    let (hub, mut server, _servers) = hub(config()).await;
    let (mut one, mut two, mut alone) = (hub.attach(), hub.attach(), hub.attach());
    shake(&mut one, Some(&mut server)).await;
    shake(&mut two, None).await;
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    send(&mut server, changed).await;
    assert_eq!((text(&mut one).await, text(&mut two).await), (changed.to_owned(), changed.to_owned()));
    // One that stands alone gets what can be nobody else's, and what its subscription brings.
    send(
        &mut alone,
        r#"{"jsonrpc":"2.0","id":"L","method":"subscriptions/listen","params":{"notifications":{}}}"#,
    )
    .await;
    let id = value(&mut server).await["id"].clone();
    send(&mut server, changed).await;
    assert_eq!(text(&mut alone).await, changed);
    assert_eq!((text(&mut one).await, text(&mut two).await), (changed.to_owned(), changed.to_owned()));
    let tagged = |id: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"_meta":{{"io.modelcontextprotocol\/subscriptionId":{id}}}}}}}"#
        )
    };
    send(&mut server, tagged(&id.to_string())).await;
    assert_eq!(text(&mut alone).await, tagged("\"L\""));
    let result = |id: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}}}"#
        )
    };
    send(&mut server, result(&id.to_string())).await;
    assert_eq!(text(&mut alone).await, result("\"L\""));
}

#[tokio::test]
async fn requests_of_the_server_are_answered_by_who_can() {
    let (hub, mut server, _servers) = hub(config()).await;
    let (mut one, mut two) = (hub.attach(), hub.attach());
    let ask = |id: &str, method: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{}}}}"#)
    };
    send(&mut server, ask("\"s\"", "ping")).await;
    assert_eq!(text(&mut server).await, r#"{"jsonrpc":"2.0","id":"s","result":{}}"#);
    send(&mut server, ask("0", "roots/list")).await;
    assert_eq!(value(&mut server).await["error"]["code"], -32601);
    shake(&mut one, Some(&mut server)).await;
    send(&mut two, INITIALIZE.replace("sampling", "elicitation")).await;
    text(&mut two).await;
    send(&mut two, INITIALIZED).await;
    // The newest request is that of two, which cannot sample.
    send(&mut one, call("5", "5")).await;
    send(&mut two, call("5", "5")).await;
    text(&mut server).await;
    text(&mut server).await;
    send(&mut server, ask("0", "sampling/createMessage")).await;
    let asked = value(&mut one).await;
    assert_eq!(asked["method"], "sampling/createMessage");
    send(&mut server, ask("1", "roots/list")).await;
    let roots = value(&mut two).await;
    // Only who was asked can answer.
    send(&mut two, format!(r#"{{"jsonrpc":"2.0","id":{},"result":"stolen"}}"#, asked["id"])).await;
    send(&mut one, format!(r#"{{"jsonrpc":"2.0","id":{},"result":"mine"}}"#, asked["id"])).await;
    assert_eq!(text(&mut server).await, r#"{"jsonrpc":"2.0","id":0,"result":"mine"}"#);
    // The server takes one back.
    let cancel = |id: &str| {
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#)
    };
    send(&mut server, cancel("1")).await;
    assert_eq!(text(&mut two).await, cancel(&roots["id"].to_string()));
    // One that is asked and leaves.
    send(&mut server, ask("\"e\"", "elicitation/create")).await;
    value(&mut two).await;
    drop(two);
    let left = [value(&mut server).await, value(&mut server).await];
    assert!(
        left.iter().any(|message| message["id"] == "e" && message["error"]["code"] == -32000),
        "{left:?}"
    );
    assert!(left.iter().any(|message| message["method"] == "notifications/cancelled"), "{left:?}");
}

#[tokio::test]
async fn cancelling_and_leaving_cancel_at_the_server() {
    let (hub, mut server, _servers) = hub(config()).await;
    let (mut one, mut two) = (hub.attach(), hub.attach());
    send(&mut one, call("\"\\u0061\"", "1")).await;
    send(&mut two, call("\"a\"", "1")).await;
    let ids = [value(&mut server).await["id"].clone(), value(&mut server).await["id"].clone()];
    send(&mut two, r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"\u0061","reason":"r"}}"#).await;
    assert_eq!(
        text(&mut server).await,
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{},"reason":"r"}}}}"#,
            ids[1]
        )
    );
    within(Transport::close(&mut one)).await.unwrap();
    let cancelled = value(&mut server).await;
    assert_eq!(
        (&cancelled["method"], &cancelled["params"]["requestId"]),
        (&json!("notifications/cancelled"), &ids[0])
    );
    for id in ids {
        send(&mut server, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":1}}"#)).await;
    }
    until(&hub.status(), |status| status.counts().late == 2).await;
    assert!(matches!(end(&mut one).await, Error::Ended(End::Closed)));
}

#[tokio::test]
async fn the_end_of_the_server_is_not_the_end() {
    let (hub, mut server, mut servers) = hub(config()).await;
    let (mut one, mut two) = (hub.attach(), hub.attach());
    shake(&mut one, Some(&mut server)).await;
    shake(&mut two, None).await;
    for client in [&mut one, &mut two] {
        send(client, call("1", "1")).await;
        text(&mut server).await;
    }
    drop(server);
    for client in [&mut one, &mut two] {
        let answer = value(client).await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-32000)));
    }
    send(&mut two, call("2", "2")).await;
    let mut server = within(servers.recv()).await.unwrap();
    let greeting = value(&mut server).await;
    assert_eq!(greeting["method"], "initialize");
    send(&mut server, format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, greeting["id"])).await;
    assert_eq!(text(&mut server).await, INITIALIZED);
    let id = value(&mut server).await["id"].clone();
    send(&mut server, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":2}}"#)).await;
    assert_eq!(text(&mut two).await, r#"{"jsonrpc":"2.0","id":2,"result":2}"#);
    assert!(hub.status().is_ready());
    assert_eq!(hub.status().counts().in_flight, 0);
}

#[tokio::test]
async fn one_that_does_not_read_is_given_up_and_nobody_waits_for_it() {
    let mut config = config();
    (config.client_mark, config.client_bytes) = (10_000, 50_000);
    let (hub, mut server, _servers) = hub(config).await;
    let (mut slow, mut good) = (hub.attach(), hub.attach());
    shake(&mut good, Some(&mut server)).await;
    shake(&mut slow, None).await;
    let mut ids = Vec::new();
    for id in 0..7 {
        send(&mut slow, call(&id.to_string(), "0")).await;
        ids.push(value(&mut server).await["id"].clone());
    }
    let big = "x".repeat(9_000);
    for id in &ids[..2] {
        send(&mut server, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"{big}"}}"#)).await;
    }
    // Notifications for all are left out for it now, and nothing more is taken from it.
    send(&mut server, r#"{"jsonrpc":"2.0","method":"notifications/message"}"#).await;
    assert_eq!(value(&mut good).await["method"], "notifications/message");
    until(&hub.status(), |status| status.counts().dropped == 1).await;
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(slow.poll_ready(&mut cx).is_pending());
    for id in &ids[2..6] {
        send(&mut server, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"{big}"}}"#)).await;
    }
    until(&hub.status(), |status| status.counts().cut == 1).await;
    let cancelled = value(&mut server).await;
    assert_eq!(
        (&cancelled["method"], &cancelled["params"]["requestId"]),
        (&json!("notifications/cancelled"), &ids[6])
    );
    let Error::Io(error) = end(&mut slow).await else { panic!() };
    assert_eq!(error.get_ref().unwrap().downcast_ref::<TooSlow>().unwrap().limit, 50_000);
    send(&mut good, call("1", "1")).await;
    let id = value(&mut server).await["id"].clone();
    send(&mut server, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":1}}"#)).await;
    assert_eq!(text(&mut good).await, r#"{"jsonrpc":"2.0","id":1,"result":1}"#);
}

#[tokio::test]
async fn limits_are_answered_with_errors() {
    let mut config = config();
    (config.max_clients, config.max_in_flight, config.max_in_flight_per_client) = (2, 3, 2);
    let (hub, mut server, _servers) = hub(config).await;
    let (mut one, mut two, mut three) = (hub.attach(), hub.attach(), hub.attach());
    let refused = |id: &str, code: i32| {
        let id = id.to_owned();
        move |answer: Value| {
            assert_eq!((answer["id"].to_string(), &answer["error"]["code"]), (id.clone(), &json!(code)));
        }
    };
    send(&mut three, call("1", "1")).await;
    refused("1", -32005)(value(&mut three).await);
    for id in ["1", "2", "3"] {
        send(&mut one, call(id, "1")).await;
    }
    refused("3", -32005)(value(&mut one).await);
    for id in ["1", "2"] {
        send(&mut two, call(id, "1")).await;
    }
    refused("2", -32005)(value(&mut two).await);
    for (bad, code) in [
        (&b"{"[..], -32700),
        (b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}", -32700),
        (b"7", -32600),
        (br#"{"jsonrpc":"2.0","id":null,"method":"x"}"#, -32600),
        (br#"[[]]"#, -32600),
    ] {
        send(&mut two, bad).await;
        refused("null", code)(value(&mut two).await);
    }
    send(&mut two, br#"{"jsonrpc":"2.0","id":9,"method":"x","params":{"_meta":{},"_meta":{}}}"#).await;
    refused("9", -32600)(value(&mut two).await);
    for _ in 0..3 {
        value(&mut server).await;
    }
    // A place is free again once its client has left.
    drop(two);
    assert_eq!(value(&mut server).await["method"], "notifications/cancelled");
    let mut four = hub.attach();
    send(&mut four, call("1", "1")).await;
    value(&mut server).await;
}

#[tokio::test]
async fn batches_are_passed_on_one_by_one() {
    let (hub, mut server, _servers) = hub(config()).await;
    let (mut one, mut two) = (hub.attach(), hub.attach());
    send(&mut one, format!("[{}, {}]", call("1", "1"), call("2", "2"))).await;
    send(&mut two, call("1", "1")).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(value(&mut server).await["id"].clone());
    }
    let answers: Vec<String> =
        ids.iter().map(|id| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{id}}}"#)).collect();
    send(&mut server, format!(" [ {} ]", answers.join(" , "))).await;
    for (client, id) in [(&mut one, 1), (&mut two, 1)] {
        assert_eq!(value(client).await["id"], id);
    }
    assert_eq!(value(&mut one).await["id"], 2);
}

#[tokio::test]
async fn ends_when_what_is_under_way_is_answered() {
    let (hub, mut server, _servers) = hub(config()).await;
    let mut one = hub.attach();
    send(&mut one, call("1", "1")).await;
    within(poll_fn(|cx| one.poll_close_sending(cx))).await.unwrap();
    let id = value(&mut server).await["id"].clone();
    send(&mut server, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":1}}"#)).await;
    value(&mut one).await;
    assert!(matches!(end(&mut one).await, Error::Ended(End::Eof)));
    // Closing the hub ends the others, after an answer to what they still wait for, and the server.
    let mut two = hub.attach();
    send(&mut two, call("1", "1")).await;
    value(&mut server).await;
    within(hub.close()).await;
    let answer = value(&mut two).await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-32000)));
    assert!(matches!(end(&mut two).await, Error::Ended(End::Eof)));
    assert!(matches!(end(&mut server).await, Error::Ended(_)));
    assert_eq!(hub.status().counts().in_flight, 0);
    // Who comes too late is told.
    let mut three = hub.attach();
    send(&mut three, call("2", "1")).await;
    assert_eq!(value(&mut three).await["error"]["code"], -32000);
}

#[tokio::test]
async fn a_subscription_ends_with_what_its_client_says() {
    let (hub, mut server, _servers) = hub(config()).await;
    let mut one = hub.attach();
    send(&mut one, r#"{"jsonrpc":"2.0","id":"L","method":"subscriptions/listen","params":{}}"#).await;
    let id = value(&mut server).await["id"].clone();
    send(&mut one, call("1", "1")).await;
    let other = value(&mut server).await["id"].clone();
    within(poll_fn(|cx| one.poll_close_sending(cx))).await.unwrap();
    let over = value(&mut one).await;
    let tag = json!({"io.modelcontextprotocol/subscriptionId": "L"});
    assert_eq!(
        over,
        json!({"jsonrpc": "2.0", "id": "L", "result": {"resultType": "complete", "_meta": tag}})
    );
    let taken_back = value(&mut server).await;
    assert_eq!(taken_back["method"], "notifications/cancelled");
    assert_eq!(taken_back["params"]["requestId"], id);
    // The rest is waited for as ever.
    send(&mut server, format!(r#"{{"jsonrpc":"2.0","id":{other},"result":1}}"#)).await;
    assert_eq!(value(&mut one).await["id"], 1);
    assert!(matches!(end(&mut one).await, Error::Ended(End::Eof)));
}

#[tokio::test]
async fn the_servers_end_with_the_last_handle() {
    let (hub, mut server, _servers) = hub(config()).await;
    let session = hub.attach();
    drop(hub);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(server.poll_receive(&mut cx).is_pending());
    drop(session);
    assert!(matches!(end(&mut server).await, Error::Ended(_)));
}

#[tokio::test]
async fn clients_are_spread_over_servers_and_stay() {
    let (played, mut servers) = Played::new();
    let played: Arc<dyn Backend> = Arc::new(played);
    let hub = Hub::new(vec![Arc::clone(&played), played], config());
    let mut first = within(servers.recv()).await.unwrap();
    let mut second = within(servers.recv()).await.unwrap();
    until(&hub.status(), |status| status.servers().all(|server| server.is_ready())).await;
    let (mut one, mut two) = (hub.attach(), hub.attach());
    for client in [&mut one, &mut two] {
        send(client, call("1", "1")).await;
        send(client, call("2", "2")).await;
    }
    for server in [&mut first, &mut second] {
        for _ in 0..2 {
            let id = value(server).await["id"].clone();
            send(server, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":1}}"#)).await;
        }
    }
    for client in [&mut one, &mut two] {
        assert_eq!(
            (value(client).await["id"].clone(), value(client).await["id"].clone()),
            (json!(1), json!(2))
        );
    }
}

#[tokio::test]
async fn a_server_that_is_given_up_is_told_to_all() {
    let mut config = config();
    config.supervisor.max_restarts = Some(1);
    let (played, _servers) = Played::new();
    played.fail(u32::MAX);
    let hub = Hub::new(vec![Arc::new(played) as Arc<dyn Backend>], config);
    let mut one = hub.attach();
    send(&mut one, call("1", "1")).await;
    let answer = value(&mut one).await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-32000)));
    assert!(matches!(end(&mut one).await, Error::Io(_)));
    assert!(!hub.status().is_ready());
    within(hub.close()).await;
}

/// A message of 12 MiB each way, owned, lent and beside small ones.
#[tokio::test]
async fn large_messages_pass_and_small_ones_beside_them() {
    let (hub, mut server, _servers) = hub(config()).await;
    let (mut one, mut two) = (hub.attach(), hub.attach());
    let big = "x".repeat(12 << 20);
    send(&mut one, format!(r#"{{"jsonrpc":"2.0","method":"m","params":"{big}","id":1}}"#)).await;
    send(&mut two, call("1", "1")).await;
    let seen = text(&mut server).await;
    let id = seen.rsplit_once(r#""id":"#).unwrap().1.trim_end_matches('}').to_owned();
    assert_eq!(seen, format!(r#"{{"jsonrpc":"2.0","method":"m","params":"{big}","id":{id}}}"#));
    let other = value(&mut server).await["id"].clone();
    send(&mut server, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"{big}"}}"#)).await;
    send(&mut server, format!(r#"{{"jsonrpc":"2.0","id":{other},"result":1}}"#)).await;
    assert_eq!(text(&mut two).await, r#"{"jsonrpc":"2.0","id":1,"result":1}"#);
    assert_eq!(text(&mut one).await, format!(r#"{{"jsonrpc":"2.0","id":1,"result":"{big}"}}"#));
}

/// Closing the stream of its answer is how a client that stands alone (2026-07-28) cancels.
#[tokio::test]
async fn a_client_that_is_cut_off_is_not_waited_for() {
    let (hub, mut server, _servers) = hub(config()).await;
    let client = MockTransport::new().wait_when_empty();
    let mut ended = client.clone();
    let attached = hub.attach();
    let bridged = tokio::spawn(async move {
        let (mut client, mut backend) = (client, attached);
        let report =
            Bridge::default().run(&mut client, &mut backend, &Silent, std::future::pending::<()>()).await;
        within(Transport::close(&mut backend)).await.unwrap();
        report
    });
    ended.push_response(call("1", "1"));
    let id = value(&mut server).await["id"].clone();
    ended.push_error(std::io::ErrorKind::ConnectionReset.into());
    let cancelled = value(&mut server).await;
    assert_eq!(
        (&cancelled["method"], &cancelled["params"]["requestId"]),
        (&json!("notifications/cancelled"), &id)
    );
    assert!(!within(bridged).await.unwrap().gave_up);
    within(Transport::close(&mut ended)).await.unwrap();
}

/// Many clients on several threads that come, ask with the same ids and go, some in the middle of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clients_on_many_threads_come_and_go() {
    let (hub, mut server, _servers) = hub(config()).await;
    tokio::spawn(async move {
        while let Ok(message) = Transport::receive(&mut server).await {
            let message: Value = serde_json::from_slice(&message).unwrap();
            if message["id"].is_null() {
                continue;
            }
            let token = &message["params"]["_meta"]["progressToken"];
            let progress = json!({ "progressToken": token, "who": message["params"]["who"] });
            let progress =
                json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": progress });
            send(&mut server, progress.to_string()).await;
            let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": message["params"]["who"] });
            send(&mut server, answer.to_string()).await;
        }
    });
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16 {
        let hub = hub.clone();
        tasks.spawn(async move {
            for round in 0..20 {
                let mut client = hub.attach();
                let who = format!("{task}-{round}");
                for id in 0..8 {
                    let params = json!({ "who": who, "_meta": { "progressToken": id } });
                    let request = json!({ "jsonrpc": "2.0", "id": id, "method": "x", "params": params });
                    send(&mut client, request.to_string()).await;
                }
                for id in 0..if round % 4 == 0 { 3 } else { 8 } {
                    let progress = value(&mut client).await;
                    assert_eq!(progress["params"], json!({ "progressToken": id, "who": who }));
                    let answer = value(&mut client).await;
                    assert_eq!((&answer["id"], &answer["result"]), (&json!(id), &json!(who)));
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let counts = hub.status().counts();
    assert_eq!((counts.clients, counts.in_flight, counts.cut, counts.refused), (0, 0, 0, 0));
    within(hub.close()).await;
}

/// A request with its id in place of that of the hub.
async fn asked(server: &mut MemoryTransport) -> (Value, Value) {
    let mut request = value(server).await;
    let id = request.as_object_mut().unwrap().remove("id").unwrap();
    (id, request)
}

async fn answer(server: &mut MemoryTransport, id: &Value, what: &str) {
    send(server, format!(r#"{{"jsonrpc":"2.0","id":{id},{what}}}"#)).await;
}

fn set(id: u32, method: &str, name: &str, to: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"{name}":"{to}"}}}}"#)
}

fn done(id: u32) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)
}

#[tokio::test]
async fn each_client_gets_the_logs_that_it_wants() {
    let (hub, mut server, _servers) = hub(config()).await;
    let (mut one, mut two, mut three) = (hub.attach(), hub.attach(), hub.attach());
    shake(&mut one, Some(&mut server)).await;
    shake(&mut two, None).await;
    shake(&mut three, None).await;
    let log = |level: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"data":"{level}","level":"{level}"}}}}"#
        )
    };
    // As long as nobody has set a level, the server decides.
    send(&mut server, log("debug")).await;
    for client in [&mut one, &mut two, &mut three] {
        assert_eq!(text(client).await, log("debug"));
    }
    let level = |id, to| set(id, "logging/setLevel", "level", to);
    // (who, its level, what the server is told)
    for (who, own, told) in [
        (1, "debug", Some("debug")),
        (2, "error", None),
        (1, "error", Some("info")), // the third has said nothing
        (3, "warning", Some("warning")),
        (2, "notice", Some("notice")),
        (2, "notice", None),
    ] {
        let client = match who {
            1 => &mut one,
            2 => &mut two,
            _ => &mut three,
        };
        send(client, level(5, own)).await;
        if let Some(told) = told {
            let (id, request) = asked(&mut server).await;
            assert_eq!(request["params"], json!({"level": told}), "{who} {own}");
            answer(&mut server, &id, "\"result\":{}").await;
        }
        assert_eq!(text(client).await, done(5));
    }
    // Now the first wants error, the second notice, the third warning.
    for each in ["debug", "info", "notice", "warning", "error", "unheard-of"] {
        send(&mut server, log(each)).await;
    }
    for (client, wanted) in [
        (&mut one, &["error", "unheard-of"][..]),
        (&mut two, &["notice", "warning", "error", "unheard-of"]),
        (&mut three, &["warning", "error", "unheard-of"]),
    ] {
        for each in wanted {
            assert_eq!(text(client).await, log(each));
        }
    }
    // What is no level, the server refuses; what it cannot do at all, it is asked again.
    send(&mut one, level(6, "loud")).await;
    for _ in 0..2 {
        let (id, _) = asked(&mut server).await;
        answer(&mut server, &id, r#""error":{"code":-32602,"message":""}"#).await;
        assert_eq!(value(&mut one).await["error"]["code"], -32602);
        send(&mut one, level(7, "debug")).await;
    }
    let (_, request) = asked(&mut server).await;
    assert_eq!(request["params"], json!({"level": "debug"}));
}

#[tokio::test]
async fn updates_go_to_who_is_subscribed() {
    let (hub, mut server, _servers) = hub(config()).await;
    let mut clients = [hub.attach(), hub.attach(), hub.attach(), hub.attach()];
    for (at, client) in clients.iter_mut().enumerate() {
        shake(client, Some(&mut server).filter(|_| at == 0)).await;
    }
    let [mut one, mut two, mut three, mut four] = clients;
    let subscribe = |id, uri: &str| set(id, "resources/subscribe", "uri", uri);
    let unsubscribe = |id, uri: &str| set(id, "resources/unsubscribe", "uri", uri);
    let updated = |uri: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"{uri}"}}}}"#
        )
    };
    // Nobody is: it is nobody's.
    send(&mut server, updated("a:/x")).await;
    until(&hub.status(), |status| status.counts().late == 1).await;
    // As long as the server has not agreed, each asks it.
    send(&mut one, subscribe(1, "a:/x")).await;
    let (first, request) = asked(&mut server).await;
    assert_eq!(request["params"], json!({"uri": "a:/x"}));
    send(&mut two, subscribe(1, "a:/\\u0078")).await;
    let (second, request) = asked(&mut server).await;
    assert_eq!(request["params"], json!({"uri": "a:/x"}));
    answer(&mut server, &first, "\"result\":{}").await;
    answer(&mut server, &second, "\"result\":{}").await;
    assert_eq!((text(&mut one).await, text(&mut two).await), (done(1), done(1)));
    // Then it is asked no more.
    send(&mut three, subscribe(2, "a:/x")).await;
    assert_eq!(text(&mut three).await, done(2));
    send(&mut two, subscribe(3, "b:")).await;
    let (id, _) = asked(&mut server).await;
    answer(&mut server, &id, "\"result\":{}").await;
    assert_eq!(text(&mut two).await, done(3));
    // One that it refuses is nobody's.
    send(&mut four, subscribe(4, "c:")).await;
    let (id, _) = asked(&mut server).await;
    answer(&mut server, &id, r#""error":{"code":-32002,"message":""}"#).await;
    assert_eq!(value(&mut four).await["error"]["code"], -32002);
    // (what has changed, who is told: the fourth never)
    for (uri, whom) in [
        ("a:/x", [true, true, true]),
        ("a:/x/part", [true, true, true]),
        ("b:", [false, true, false]),
        ("d:", [true; 3]),
    ] {
        send(&mut server, updated(uri)).await;
        for (client, told) in [&mut one, &mut two, &mut three].into_iter().zip(whom) {
            if told {
                assert_eq!(text(client).await, updated(uri));
            }
        }
    }
    // Leaving, in either way, is told to the server with the last one only.
    send(&mut two, unsubscribe(5, "\\u0061:/x")).await;
    assert_eq!(text(&mut two).await, done(5));
    drop(one);
    send(&mut server, updated("a:/x")).await;
    assert_eq!(text(&mut three).await, updated("a:/x"));
    send(&mut three, unsubscribe(6, "a:/x")).await;
    let (id, request) = asked(&mut server).await;
    assert_eq!(
        (&request["method"], &request["params"]["uri"]),
        (&json!("resources/unsubscribe"), &json!("a:/x"))
    );
    answer(&mut server, &id, "\"result\":{}").await;
    assert_eq!(text(&mut three).await, done(6));
    drop(two);
    let (id, request) = asked(&mut server).await;
    assert_eq!(
        (&request["method"], &request["params"]["uri"]),
        (&json!("resources/unsubscribe"), &json!("b:"))
    );
    answer(&mut server, &id, "\"result\":{}").await;
    until(&hub.status(), |status| status.counts().in_flight == 0).await;
    // What nobody was subscribed to is not the hub's to judge.
    send(&mut three, unsubscribe(7, "b:")).await;
    let (id, _) = asked(&mut server).await;
    answer(&mut server, &id, "\"result\":{}").await;
    assert_eq!(text(&mut three).await, done(7));
    // All that the third and the fourth have got since is what they asked for.
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    send(&mut server, changed).await;
    assert_eq!((text(&mut three).await, text(&mut four).await), (changed.to_owned(), changed.to_owned()));
}

#[tokio::test]
async fn a_restarted_server_has_what_its_clients_had_set() {
    let (hub, mut server, mut servers) = hub(config()).await;
    let (mut one, mut two) = (hub.attach(), hub.attach());
    shake(&mut one, Some(&mut server)).await;
    shake(&mut two, None).await;
    for (first, request) in [
        (true, set(1, "logging/setLevel", "level", "debug")),
        (false, set(1, "resources/subscribe", "uri", "a:")),
        (true, set(1, "resources/subscribe", "uri", "b:")),
    ] {
        let client = if first { &mut one } else { &mut two };
        send(client, request).await;
        let (id, _) = asked(&mut server).await;
        answer(&mut server, &id, "\"result\":{}").await;
        assert_eq!(text(client).await, done(1));
    }
    drop(server);
    let mut server = within(servers.recv()).await.unwrap();
    let (id, _) = asked(&mut server).await;
    answer(&mut server, &id, "\"result\":{}").await;
    assert_eq!(text(&mut server).await, INITIALIZED);
    for (method, params) in [
        ("logging/setLevel", json!({"level": "debug"})),
        ("resources/subscribe", json!({"uri": "a:"})),
        ("resources/subscribe", json!({"uri": "b:"})),
    ] {
        let (id, request) = asked(&mut server).await;
        assert_eq!((&request["method"], &request["params"]), (&json!(method), &params));
        answer(&mut server, &id, "\"result\":{}").await;
    }
    let updated = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:"}}"#;
    send(&mut server, updated).await;
    assert_eq!(text(&mut two).await, updated);
}

#[tokio::test]
async fn one_client_cannot_subscribe_to_everything() {
    let (hub, mut server, _servers) = hub(config()).await;
    let (mut one, mut two) = (hub.attach(), hub.attach());
    shake(&mut one, Some(&mut server)).await;
    shake(&mut two, None).await;
    for n in 0..=ERA_MAX_SUBSCRIPTIONS {
        send(&mut one, set(1, "resources/subscribe", "uri", &format!("a:{n}"))).await;
        if n < ERA_MAX_SUBSCRIPTIONS {
            let (id, _) = asked(&mut server).await;
            answer(&mut server, &id, "\"result\":{}").await;
            assert_eq!(text(&mut one).await, done(1));
        }
    }
    assert_eq!(value(&mut one).await["error"]["code"], -32005);
    send(&mut two, set(2, "resources/subscribe", "uri", "a:0")).await;
    assert_eq!(text(&mut two).await, done(2));
    // One less, one more.
    send(&mut one, set(3, "resources/unsubscribe", "uri", "a:1")).await;
    let (id, _) = asked(&mut server).await;
    answer(&mut server, &id, "\"result\":{}").await;
    assert_eq!(text(&mut one).await, done(3));
    send(&mut one, set(4, "resources/subscribe", "uri", "a:x")).await;
    let (id, _) = asked(&mut server).await;
    answer(&mut server, &id, "\"result\":{}").await;
    assert_eq!(text(&mut one).await, done(4));
}

#[tokio::test]
async fn what_is_set_reaches_the_server_in_the_order_that_it_was_decided_in() {
    let (hub, mut server, _servers) = hub(config()).await;
    let (mut one, mut two) = (hub.attach(), hub.attach());
    shake(&mut one, Some(&mut server)).await;
    shake(&mut two, None).await;
    send(&mut one, set(1, "resources/subscribe", "uri", "a:")).await;
    let (id, _) = asked(&mut server).await;
    answer(&mut server, &id, "\"result\":{}").await;
    assert_eq!(text(&mut one).await, done(1));
    // The first has not flushed when the second, who knows nothing of it, wants the same again.
    one.start_feed(call("2", "2").as_bytes()).unwrap();
    one.start_feed(set(3, "resources/unsubscribe", "uri", "a:").as_bytes()).unwrap();
    send(&mut two, set(1, "resources/subscribe", "uri", "a:")).await;
    within(poll_fn(|cx| one.poll_flush(cx))).await.unwrap();
    for method in ["tools/call", "resources/unsubscribe", "resources/subscribe"] {
        let (id, request) = asked(&mut server).await;
        assert_eq!(request["method"], method);
        answer(&mut server, &id, "\"result\":{}").await;
    }
}

#[tokio::test]
async fn a_level_that_was_taken_back_is_asked_for_again() {
    let (hub, mut server, _servers) = hub(config()).await;
    let (mut one, mut two) = (hub.attach(), hub.attach());
    shake(&mut one, Some(&mut server)).await;
    shake(&mut two, None).await;
    let debug = |id| set(id, "logging/setLevel", "level", "debug");
    send(&mut one, debug(1)).await;
    asked(&mut server).await;
    send(&mut one, r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#).await;
    assert_eq!(value(&mut server).await["method"], "notifications/cancelled");
    // Whether the server has done it, nobody knows.
    send(&mut two, debug(2)).await;
    let (id, request) = asked(&mut server).await;
    assert_eq!(request["params"], json!({"level": "debug"}));
    drop(two);
    assert_eq!(value(&mut server).await["params"]["requestId"], id);
    send(&mut one, debug(3)).await;
    let (_, request) = asked(&mut server).await;
    assert_eq!(request["params"], json!({"level": "debug"}));
}

#[tokio::test]
async fn a_server_that_is_gone_is_asked_for_nothing() {
    let mut config = config();
    config.supervisor.max_restarts = Some(0);
    let (hub, mut server, _servers) = hub(config).await;
    let mut one = hub.attach();
    shake(&mut one, Some(&mut server)).await;
    send(&mut one, set(1, "resources/subscribe", "uri", "a:")).await;
    let (id, _) = asked(&mut server).await;
    answer(&mut server, &id, "\"result\":{}").await;
    assert_eq!(text(&mut one).await, done(1));
    drop(server);
    assert!(matches!(end(&mut one).await, Error::Io(_)));
    drop(one);
    assert_eq!(hub.status().counts().in_flight, 0);
}
