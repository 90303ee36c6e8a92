use super::*;

struct Client {
    server: Server,
    later: mpsc::Receiver<Vec<u8>>,
}

impl Client {
    fn new() -> Self {
        let (replies, later) = mpsc::channel(64);
        Self { server: Server::new(replies, 1 << 20), later }
    }

    fn say(&mut self, message: &str) -> Value {
        self.server
            .handle(message.as_bytes())
            .map_or(Value::Null, |reply| serde_json::from_slice(&reply).unwrap())
    }

    async fn hear(&mut self) -> Value {
        serde_json::from_slice(&self.later.recv().await.unwrap()).unwrap()
    }
}

#[test]
fn revisions_are_negotiated() {
    let mut client = Client::new();
    for (asked, got) in
        [("2024-11-05", "2024-11-05"), ("2025-06-18", "2025-06-18"), ("1999-01-01", "2025-11-25")]
    {
        let reply = client.say(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"{asked}"}}}}"#
        ));
        assert_eq!(reply["result"]["protocolVersion"], got);
    }
}

#[test]
fn errors_have_the_codes_of_json_rpc() {
    let mut client = Client::new();
    for (message, code, id) in [
        ("{", PARSE_ERROR, Value::Null),
        ("1", INVALID_REQUEST, Value::Null),
        ("[]", INVALID_REQUEST, Value::Null),
        (r#"{"jsonrpc":"2.0","id":1}"#, INVALID_REQUEST, json!(1)),
        (r#"{"jsonrpc":"1.0","id":"a","method":"ping"}"#, INVALID_REQUEST, json!("a")),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, INVALID_REQUEST, Value::Null),
        (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, INVALID_REQUEST, Value::Null),
        (r#"{"jsonrpc":"2.0","id":1,"method":"nope"}"#, METHOD_NOT_FOUND, json!(1)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#, INVALID_PARAMS, json!(1)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, INVALID_PARAMS, json!(1)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}"#, INVALID_PARAMS, json!(1)),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"big","arguments":{"bytes":-1}}}"#,
            INVALID_PARAMS,
            json!(1),
        ),
    ] {
        let reply = client.say(message);
        assert_eq!((&reply["error"]["code"], &reply["id"]), (&json!(code), &id), "{message}");
    }
    for silent in [
        r#"{"jsonrpc":"2.0","method":"notifications/unheard-of"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#,
    ] {
        assert_eq!(client.say(silent), Value::Null, "{silent}");
    }
}

#[test]
fn integers_are_added_exactly() {
    let mut client = Client::new();
    let call = |a: &str, b: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":9007199254740993,"method":"tools/call","params":{{"name":"add","arguments":{{"a":{a},"b":{b}}}}}}}"#
        )
    };
    let reply = client.say(&call("9007199254740993", "2"));
    assert_eq!(reply["result"]["content"][0]["text"], "9007199254740995");
    assert_eq!(reply["id"], json!(9_007_199_254_740_993_u64));
    assert_eq!(client.say(&call("0.5", "1"))["result"]["content"][0]["text"], "1.5");
    assert_eq!(client.say(&call("1e308", "1e308"))["error"]["code"], INVALID_PARAMS);
}

#[tokio::test(start_paused = true)]
async fn slow_calls_overlap_report_progress_and_can_be_cancelled() {
    let mut client = Client::new();
    let sleep = |id: u32, seconds: u32, meta: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"sleep","arguments":{{"seconds":{seconds}}}{meta}}}}}"#
        )
    };
    assert_eq!(client.say(&sleep(1, 20, "")), Value::Null);
    assert_eq!(client.say(&sleep(2, 10, r#","_meta":{"progressToken":"t"}"#)), Value::Null);
    assert_eq!(client.say(&sleep(3, 5, "")), Value::Null);
    assert_eq!(client.say(&sleep(3, 5, ""))["error"]["code"], INVALID_REQUEST);
    assert_eq!(client.say(r#"{"jsonrpc":"2.0","id":4,"method":"ping"}"#)["id"], 4);
    client.say(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3}}"#);
    for step in 1..=5 {
        let progress = client.hear().await;
        assert_eq!(progress["params"]["progress"], step);
        assert_eq!(progress["params"]["progressToken"], "t");
    }
    assert_eq!(client.hear().await["id"], 2);
    assert_eq!(client.hear().await["id"], 1);
    assert!(lock(&client.server.running).len() <= 1);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_answered_at_once_where_the_revision_has_batches() {
    let mut client = Client::new();
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"x"},{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"sleep","arguments":{"seconds":1}}}]"#;
    client.say(r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#);
    assert_eq!(client.say(batch)["error"]["code"], INVALID_REQUEST);
    client.say(r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-03-26"}}"#);
    assert_eq!(client.say(batch), Value::Null);
    let answers = client.hear().await;
    assert_eq!((&answers[0]["id"], &answers[1]["id"]), (&json!(1), &json!(2)));
    assert_eq!(client.say(r#"[{"jsonrpc":"2.0","method":"x"}]"#), Value::Null);
}

#[test]
fn big_is_as_big_as_asked() {
    let mut client = Client::new();
    let reply = client.say(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"big","arguments":{"bytes":1000000}}}"#,
    );
    assert_eq!(reply["result"]["content"][0]["text"].as_str().unwrap().len(), 1_000_000);
}
