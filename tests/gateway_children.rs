//! Real servers behind a supervisor and a hub: they die, talk nonsense, ask back, and are left by a thousand clients.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(all(feature = "gateway", feature = "net", unix))]

use std::{sync::Arc, time::Duration};

use framewire::{
    gateway::{Hub, HubConfig, HubSession, Supervisor},
    transport::{PollTransport, Transport},
};
use serde_json::{Value, json};

#[path = "support/backends.rs"]
mod backends;
use backends::{python, send, text, within};

const SERVER: &str = r#"
import json, os, sys
out = sys.stdout.buffer
def say(raw):
    out.write(raw if isinstance(raw, bytes) else json.dumps(raw).encode() + b"\n"); out.flush()
asked = {}
greeted = 0
for line in sys.stdin.buffer:
    message = json.loads(line)
    id, method = message.get("id"), message.get("method")
    answer = lambda result: say({"jsonrpc": "2.0", "id": id, "result": result})
    if method is None:
        say({"jsonrpc": "2.0", "id": asked.pop(id), "result": message.get("result", message.get("error"))})
    elif method == "initialize":
        greeted += 1
        answer({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}})
    elif method == "echo":
        answer({"greeted": greeted, "params": message["params"]})
    elif method == "die":
        os._exit(3)
    elif method == "half":
        out.write(b'{"jsonrpc":"2.0","id":'); out.flush(); os._exit(0)
    elif method == "garbage":
        say(b"\n\r\n   \nlistening on port 1\n\xff\xfe\x00\n{\"jsonrpc\":\"2.0\"\n[1,2\n42\n")
        answer("fine")
    elif method == "ask":
        asked[len(asked)] = id
        say({"jsonrpc": "2.0", "id": len(asked) - 1, "method": "sampling/createMessage", "params": {}})
"#;

fn config() -> HubConfig {
    let mut config = HubConfig::default();
    config.supervisor.backoff_min = Duration::from_millis(1);
    config.supervisor.backoff_max = Duration::from_millis(50);
    // Python takes its time on a loaded machine.
    config.supervisor.hold = backends::LONG;
    config
}

fn request(method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string()
}

async fn ask<T: PollTransport + ?Sized>(client: &mut T, method: &str, params: Value) -> Value {
    send(client, request(method, &params)).await;
    let answer: Value = serde_json::from_str(&text(client).await).unwrap();
    assert_eq!(answer["id"], 1);
    answer
}

async fn shake<T: PollTransport + ?Sized>(client: &mut T) {
    ask(client, "initialize", json!({ "capabilities": { "sampling": {} } })).await;
    send(client, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
}

async fn attached(hub: &Hub) -> HubSession {
    let mut client = hub.attach();
    shake(&mut client).await;
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clients_of_one_server_that_dies_and_babbles() {
    let _turn = TURN.read().await;
    let hub = Hub::new(vec![python(SERVER)], config());
    let (mut one, mut two) = (attached(&hub).await, attached(&hub).await);
    for _ in 0..50 {
        let (first, second) =
            tokio::join!(ask(&mut one, "echo", json!({ "n": 1 })), ask(&mut two, "echo", json!({ "n": 2 })));
        assert_eq!(first["result"], json!({ "greeted": 1, "params": { "n": 1 } }));
        assert_eq!(second["result"], json!({ "greeted": 1, "params": { "n": 2 } }));
    }
    assert_eq!(ask(&mut one, "garbage", json!({})).await["result"], "fine");
    let status = hub.status().servers().next().unwrap();
    // Blank lines are none to the codec.
    assert!(status.counts().garbage >= 5, "{:?}", status.counts());
    for method in ["die", "half"] {
        send(&mut one, request("ask-nobody", &json!({}))).await;
        let answer = ask(&mut two, method, json!({})).await;
        assert_eq!(answer["error"]["code"], -32000);
        let unanswered: Value = serde_json::from_str(&text(&mut one).await).unwrap();
        assert_eq!((&unanswered["id"], &unanswered["error"]["code"]), (&json!(1), &json!(-32000)));
        // The next one has been greeted without anybody's doing.
        let answer = ask(&mut one, "echo", json!({})).await;
        assert_eq!(answer["result"]["greeted"], 1, "{answer}");
    }
    assert_eq!((status.counts().ended, status.counts().opened), (2, 3));
    assert!(hub.status().is_ready());
    within(hub.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_asks_the_one_it_works_for() {
    let _turn = TURN.read().await;
    let hub = Hub::new(vec![python(SERVER)], config());
    let (mut one, mut two) = (attached(&hub).await, attached(&hub).await);
    for round in 0..20 {
        for (client, name) in [(&mut one, "one"), (&mut two, "two")] {
            send(client, request("ask", &json!({}))).await;
            let asked: Value = serde_json::from_str(&text(client).await).unwrap();
            assert_eq!(asked["method"], "sampling/createMessage");
            send(client, json!({ "jsonrpc": "2.0", "id": asked["id"], "result": [name, round] }).to_string())
                .await;
            let answer: Value = serde_json::from_str(&text(client).await).unwrap();
            assert_eq!((&answer["id"], &answer["result"]), (&json!(1), &json!([name, round])));
        }
    }
}

/// Descriptors are the process's: who counts them has to be alone.
static TURN: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_that_come_ask_and_go_leave_nothing() {
    let _alone = TURN.write().await;
    let hub = Hub::new(vec![python(SERVER)], config());
    drop(attached(&hub).await);
    let before = descriptors();
    for number in 0..1_000 {
        let mut client = hub.attach();
        // Never answered.
        send(&mut client, request("silence", &json!({ "n": number }))).await;
        if number % 3 == 0 {
            within(Transport::close(&mut client)).await.unwrap();
        }
    }
    let counts = hub.status().counts();
    assert_eq!((counts.clients, counts.in_flight), (0, 0));
    // What a test before this one held may go meanwhile; what this one left would stay.
    within(async {
        while descriptors() > before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let mut client = attached(&hub).await;
    assert_eq!(ask(&mut client, "echo", json!({})).await["result"]["greeted"], 1);
    // The supervisor below has forgotten them, too.
    let status = hub.status().servers().next().unwrap();
    assert_eq!(status.counts().in_flight, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_of_its_own_that_dies_in_mid_call() {
    let _turn = TURN.read().await;
    let config = config().supervisor;
    let mut client = Supervisor::new(python(SERVER), config);
    let status = client.status();
    shake(&mut client).await;
    for round in 0..5 {
        assert_eq!(ask(&mut client, "die", json!({})).await["error"]["code"], -32000);
        let answer = ask(&mut client, "echo", json!({ "round": round })).await;
        assert_eq!(answer["result"], json!({ "greeted": 1, "params": { "round": round } }));
    }
    assert_eq!(status.counts().opened, 6);
    within(Transport::close(&mut client)).await.unwrap();
    drop(client);
    assert!(!status.is_ready());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_tried_again_and_clients_are_told() {
    let _turn = TURN.read().await;
    let mut config = config();
    config.supervisor.hold = Duration::from_millis(50);
    let missing = |_: u64| -> framewire::gateway::Opening {
        Box::pin(async { Err(std::io::ErrorKind::NotFound.into()) })
    };
    let hub = Hub::new(vec![Arc::new(missing)], config);
    let mut client = hub.attach();
    let answer = ask(&mut client, "echo", json!({})).await;
    assert_eq!(answer["error"]["code"], -32000);
    assert!(!hub.status().is_ready());
    assert!(hub.status().servers().next().unwrap().counts().open_failures > 1);
}
