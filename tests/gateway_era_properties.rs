//! Translation of any message, against a parse of all of it; and what it costs.
#![cfg(feature = "gateway")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    sync::LazyLock,
    task::{Context, Poll, Waker},
};

use framewire::{
    gateway::{Era, EraCache, Translated},
    transport::{MemoryTransport, PollTransport},
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tokio::runtime::{EnterGuard, Runtime};

#[path = "support/allocation.rs"]
mod allocation;

const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const INFO: &str = "io.modelcontextprotocol/clientInfo";
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const LEVEL: &str = "io.modelcontextprotocol/logLevel";

/// For its clock; nothing runs on it.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

struct World {
    middle: Translated<MemoryTransport>,
    server: MemoryTransport,
    _clock: EnterGuard<'static>,
}

fn poll(transport: &mut dyn PollTransport) -> Option<Vec<u8>> {
    match transport.poll_receive_lent(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(got) => Some(got.unwrap().to_vec()),
        Poll::Pending => None,
    }
}

impl World {
    /// One whose sides know each other, after the handshake.
    fn new(server: Era) -> Self {
        let cache = EraCache::new();
        cache.set_server(server);
        let (near, far) = MemoryTransport::pair();
        let mut world = Self { middle: Translated::new(near, cache), server: far, _clock: RUNTIME.enter() };
        match server {
            Era::Stateless => {
                world.say(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
                    "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c"}}}));
                let asked: Value = serde_json::from_slice(&poll(&mut world.server).unwrap()).unwrap();
                let result = json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {}});
                world.answer(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": result}));
            }
            Era::Sessions => {
                let meta = json!({VERSION: "2026-07-28", CAPABILITIES: {}});
                let params = json!({"_meta": meta});
                world.say(&json!({"jsonrpc": "2.0", "id": 0, "method": "server/discover", "params": params}));
                let asked: Value = serde_json::from_slice(&poll(&mut world.server).unwrap()).unwrap();
                let result =
                    json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s"}});
                world.answer(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": result}));
                poll(&mut world.server).unwrap();
            }
        }
        world
    }

    fn say(&mut self, message: &Value) {
        self.send(message.to_string().as_bytes());
    }

    fn send(&mut self, message: &[u8]) {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(self.middle.poll_ready(&mut cx).is_ready());
        self.middle.start_send(message).unwrap();
        assert!(self.middle.poll_flush(&mut cx).is_ready());
    }

    /// The server answers; what the client gets.
    fn answer(&mut self, message: &Value) -> Option<Value> {
        self.server.start_send(message.to_string().as_bytes()).unwrap();
        poll(&mut self.middle).map(|got| serde_json::from_slice(&got).unwrap())
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("_meta".to_owned()),
        Just("name".to_owned()),
        Just(VERSION.to_owned()),
        Just(INFO.to_owned()),
        Just("progressToken".to_owned()),
        Just("resultType".to_owned()),
        Just("ttlMs".to_owned()),
        Just(LEVEL.to_owned()),
        "[a-z\"\\\\{},\u{e9}]{0,6}",
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z\"\\\\{}:,\n\u{1f600}]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(name(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    proptest::collection::btree_map(name(), value(), 0..5).prop_map(|map| map.into_iter().collect())
}

/// Another text of the same JSON: with blanks.
fn spaced(value: &Value, blanks: bool) -> Vec<u8> {
    if blanks { serde_json::to_vec_pretty(value).unwrap() } else { serde_json::to_vec(value).unwrap() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_request_of_a_session_gains_its_meta_and_nothing_else(
        params in proptest::option::of(object()), id in any::<i64>(), blanks in any::<bool>(),
    ) {
        let mut world = World::new(Era::Stateless);
        let mut message = json!({"jsonrpc": "2.0", "id": id, "method": "any/thing"});
        if let Some(params) = &params {
            message["params"] = Value::Object(params.clone());
        }
        world.send(&spaced(&message, blanks));
        let mut params = params.unwrap_or_default();
        let meta = params.entry("_meta").or_insert_with(|| json!({}));
        if meta.is_null() {
            *meta = json!({});
        }
        let Some(meta) = meta.as_object_mut() else {
            // Refused.
            prop_assert_eq!(poll(&mut world.server), None);
            let refusal: Value = serde_json::from_slice(&poll(&mut world.middle).unwrap()).unwrap();
            prop_assert_eq!(&refusal["error"]["code"], &json!(-32602));
            prop_assert_eq!(&refusal["id"], &json!(id));
            return Ok(());
        };
        for (name, value) in [(VERSION, json!("2026-07-28")), (INFO, json!({"name": "c"})), (CAPABILITIES, json!({}))] {
            meta.entry(name).or_insert(value);
        }
        message["params"] = Value::Object(params);
        let got: Value = serde_json::from_slice(&poll(&mut world.server).unwrap()).unwrap();
        prop_assert_eq!(got, message);
        prop_assert_eq!(poll(&mut world.middle), None);
    }

    #[test]
    fn a_stateless_request_loses_its_meta_and_its_result_gains_what_is_wanted(
        mut params in object(), mut meta in object(), result in object(), blanks in any::<bool>(), cacheable in any::<bool>(),
    ) {
        let mut world = World::new(Era::Sessions);
        meta.insert(VERSION.to_owned(), json!("2026-07-28"));
        meta.insert(CAPABILITIES.to_owned(), json!({}));
        params.insert("_meta".to_owned(), Value::Object(meta.clone()));
        let method = if cacheable { "tools/list" } else { "tools/call" };
        let mut message = json!({"jsonrpc": "2.0", "id": "i", "method": method, "params": params});
        world.send(&spaced(&message, blanks));
        for name in [VERSION, INFO, CAPABILITIES, LEVEL] {
            meta.remove(name);
        }
        message["params"]["_meta"] = Value::Object(meta);
        let got: Value = serde_json::from_slice(&poll(&mut world.server).unwrap()).unwrap();
        prop_assert_eq!(got, message);
        let got = world.answer(&json!({"jsonrpc": "2.0", "id": "i", "result": result})).unwrap();
        let mut expected = result;
        expected.entry("resultType").or_insert_with(|| json!("complete"));
        if cacheable {
            expected.entry("ttlMs").or_insert_with(|| json!(0));
            expected.entry("cacheScope").or_insert_with(|| json!("private"));
        }
        prop_assert_eq!(&got["result"], &Value::Object(expected));
    }

    #[test]
    fn no_bytes_break_it(
        messages in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..60)), 0..20),
        stateless in any::<bool>(),
    ) {
        let mut world = World::new(if stateless { Era::Stateless } else { Era::Sessions });
        for (from_client, message) in messages {
            if from_client {
                world.send(&message);
            } else {
                world.server.start_send(&message).unwrap();
            }
            while poll(&mut world.middle).is_some() || poll(&mut world.server).is_some() {}
        }
    }

    /// Whatever parts of the protocol come in whatever order.
    #[test]
    fn no_order_of_messages_breaks_it(
        messages in proptest::collection::vec(
            (any::<bool>(), proptest::sample::select(METHODS), 0..4_u8, object(), 0..5_u8), 0..30),
        stateless in any::<bool>(),
    ) {
        let mut world = World::new(if stateless { Era::Stateless } else { Era::Sessions });
        for (from_client, method, id, mut params, shape) in messages {
            if shape % 2 == 0 {
                params.insert("_meta".to_owned(), json!({VERSION: "2026-07-28", CAPABILITIES: {"sampling": {}, "roots": {}}}));
            }
            params.insert("requestId".to_owned(), json!(id));
            params.insert("uri".to_owned(), json!("a:b"));
            params.insert("notifications".to_owned(), json!({"resourceSubscriptions": ["a:b"]}));
            let asks = json!({"resultType": "input_required", "inputRequests": {"k": {"method": method, "params": {}}}});
            let message = match shape {
                0 | 1 => json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}),
                2 => json!({"jsonrpc": "2.0", "method": method, "params": params}),
                3 => json!({"jsonrpc": "2.0", "id": id, "result": asks}),
                _ => json!({"jsonrpc": "2.0", "id": format!("framewire-era-{id}"), "result": params}),
            };
            if from_client {
                world.say(&message);
            } else {
                world.server.start_send(message.to_string().as_bytes()).unwrap();
            }
            while let Some(got) = poll(&mut world.middle).or_else(|| poll(&mut world.server)) {
                serde_json::from_slice::<Value>(&got).unwrap();
            }
        }
    }
}

const METHODS: &[&str] = &[
    "tools/call",
    "tools/list",
    "prompts/get",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "initialize",
    "ping",
    "logging/setLevel",
    "server/discover",
    "subscriptions/listen",
    "roots/list",
    "sampling/createMessage",
    "notifications/cancelled",
    "notifications/message",
    "notifications/tools/list_changed",
    "notifications/resources/updated",
    "notifications/subscriptions/acknowledged",
    "notifications/initialized",
];

/// In the steady state a call and its answer are translated without the heap, both ways.
#[test]
fn a_call_costs_no_allocation() {
    let meta = format!(r#"{{"{VERSION}":"2026-07-28","{CAPABILITIES}":{{}}}}"#);
    let cases = [
        (
            Era::Stateless,
            r#"{"jsonrpc":"2.0","id":12345,"method":"tools/call","params":{"name":"echo"}}"#.to_owned(),
        ),
        (
            Era::Sessions,
            format!(
                r#"{{"jsonrpc":"2.0","id":12345,"method":"tools/call","params":{{"name":"echo","_meta":{meta}}}}}"#
            ),
        ),
        (
            Era::Sessions,
            format!(r#"{{"jsonrpc":"2.0","id":12345,"method":"tools/list","params":{{"_meta":{meta}}}}}"#),
        ),
    ];
    let answer = br#"{"jsonrpc":"2.0","id":12345,"result":{"content":[{"type":"text","text":"hello"}]}}"#;
    for (era, call) in cases {
        let mut world = World::new(era);
        let mut cx = Context::from_waker(Waker::noop());
        let mut round = || {
            assert!(world.middle.poll_ready(&mut cx).is_ready());
            let ((), sending, _) = allocation::counted(|| world.middle.start_send(call.as_bytes()).unwrap());
            assert!(world.server.poll_receive_lent(&mut cx).is_ready());
            world.server.start_send(answer).unwrap();
            let (ready, receiving, _) =
                allocation::counted(|| world.middle.poll_receive_lent(&mut cx).is_ready());
            assert!(ready);
            (sending, receiving)
        };
        (0..100).for_each(|_| {
            round();
        });
        let counts: (usize, usize) =
            (0..100).map(|_| round()).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        // What the pair in memory allocates for blocks is the same without a translation: one in some dozen messages.
        println!("{era:?}: {counts:?} in 100");
        assert!(counts.0 + counts.1 <= 20, "{era:?}: {counts:?}");
    }
}
