//! The HTTP client against a server that the test scripts byte by byte: what goes out, what comes back, and that every
//! request is answered whatever happens to its answer.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "http")]

#[path = "support/http_server.rs"]
mod http_server;

use std::time::Duration;

use framewire::{
    Error,
    error::End,
    transport::{
        PollTransport, Revision, Transport, TransportError,
        http::client::{
            HttpClient, HttpClientBuilder, HttpClientConfig, HttpClientError, HttpClientTransport,
        },
    },
};
use http_server::{PATIENCE, Server};
use serde_json::{Value, json};
use tokio::time::timeout;

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
const RESULT: &str = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"s","version":"1"}}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// Settings whose pauses are short.
fn quick() -> HttpClientBuilder {
    HttpClientConfig::builder().back_off(Duration::from_millis(1), Duration::from_millis(20))
}

async fn client(server: &Server, config: HttpClientBuilder) -> HttpClientTransport {
    HttpClient::connect(&server.url().parse().unwrap(), config.build().unwrap()).await.unwrap()
}

async fn receive(client: &mut HttpClientTransport) -> String {
    let received = timeout(PATIENCE, client.receive()).await.expect("an answer in time").unwrap();
    String::from_utf8(received).unwrap()
}

async fn receive_json(client: &mut HttpClientTransport) -> Value {
    serde_json::from_str(&receive(client).await).unwrap()
}

fn call(id: u32) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"t","arguments":{{}}}}}}"#)
}

fn answer(id: u32) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"big":12345678901234567890}}}}"#)
}

/// A client in a session `s-1` whose server has no stream of its own.
async fn session(server: &mut Server, config: HttpClientBuilder) -> HttpClientTransport {
    let mut client = client(server, config).await;
    handshake(server, &mut client, "s-1").await;
    client
}

async fn handshake(server: &mut Server, client: &mut HttpClientTransport, id: &str) {
    client.send(INITIALIZE.as_bytes()).await.unwrap();
    let post = server.next().await;
    assert_eq!(post.text(), INITIALIZE);
    assert_eq!(post.header("mcp-session-id"), None);
    post.respond("200 OK", &[("content-type", "application/json"), ("mcp-session-id", id)], RESULT).await;
    assert_eq!(receive(client).await, RESULT);
    client.send(INITIALIZED.as_bytes()).await.unwrap();
    server.next().await.accepted().await;
    let get = server.next_of("GET").await;
    assert_eq!(get.header("accept"), Some("text/event-stream"));
    assert_eq!(get.header("mcp-session-id"), Some(id));
    get.respond("405 Method Not Allowed", &[], "").await;
}

#[tokio::test]
async fn sends_what_the_session_asks_for() {
    let mut server = Server::start().await;
    let config = quick().bearer("secret").header("X-Tenant", "a");
    let mut client = session(&mut server, config).await;
    client.send(call(1).as_bytes()).await.unwrap();
    let post = server.next().await;
    assert_eq!((&*post.method, &*post.target), ("POST", "/mcp"));
    assert_eq!(post.text(), call(1));
    for (name, value) in [
        ("accept", "application/json, text/event-stream"),
        ("content-type", "application/json"),
        ("mcp-session-id", "s-1"),
        ("mcp-protocol-version", "2025-06-18"),
        ("authorization", "Bearer secret"),
        ("x-tenant", "a"),
    ] {
        assert_eq!(post.header(name), Some(value), "{name}");
    }
    assert!(post.header("host").unwrap().starts_with("127.0.0.1:"));
    post.json(answer(1)).await;
    assert_eq!(receive(&mut client).await, answer(1));
    // The connection was kept.
    assert!(client.stats().connections <= 2, "{:?}", client.stats());
    let closing = tokio::spawn(async move { client.close().await });
    let goodbye = server.next_of("DELETE").await;
    assert_eq!(goodbye.header("mcp-session-id"), Some("s-1"));
    goodbye.respond("204 No Content", &[], "").await;
    timeout(PATIENCE, closing).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn hands_on_all_that_a_stream_brings_in_its_order() {
    let mut server = Server::start().await;
    let mut client = session(&mut server, quick()).await;
    client.send(call(1).as_bytes()).await.unwrap();
    let mut post = server.next().await;
    post.stream(&[]).await;
    let progress =
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}"#;
    let ask = r#"{"jsonrpc":"2.0","id":"s-7","method":"sampling/createMessage","params":{}}"#;
    post.event(progress).await;
    post.chunk(format!("id: 5\r\nevent: message\r\ndata: {ask}\r\n\r\n")).await;
    assert_eq!(receive(&mut client).await, progress);
    assert_eq!(receive(&mut client).await, ask);
    // The answer to the server's request is a POST of its own, while the stream is open.
    let reply = r#"{"jsonrpc":"2.0","id":"s-7","result":{}}"#;
    client.send(reply.as_bytes()).await.unwrap();
    let second = server.next().await;
    assert_eq!(second.text(), reply);
    second.accepted().await;
    post.event(&answer(1)).await;
    assert_eq!(receive(&mut client).await, answer(1));
    post.end().await;
}

#[tokio::test]
async fn requests_do_not_wait_for_each_other_but_for_notifications() {
    let mut server = Server::start().await;
    let mut client = session(&mut server, quick()).await;
    client.send(call(1).as_bytes()).await.unwrap();
    client.send(call(2).as_bytes()).await.unwrap();
    client.send(br#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#).await.unwrap();
    client.send(call(3).as_bytes()).await.unwrap();
    let (first, second, third) = (server.next().await, server.next().await, server.next().await);
    let mut posts = [first, second, third];
    posts.sort_by_key(|post| !post.text().contains("notifications"));
    let [notification, one, two] = posts;
    assert!(notification.text().contains("notifications"));
    assert!(server.is_quiet().await, "a request has passed a notification");
    notification.accepted().await;
    let three = server.next().await;
    assert_eq!(three.text(), call(3));
    // Answers come as they are given.
    three.json(answer(3)).await;
    assert_eq!(receive(&mut client).await, answer(3));
    for post in [one, two] {
        let id = serde_json::from_str::<Value>(post.text()).unwrap()["id"].as_u64().unwrap();
        let id = u32::try_from(id).unwrap();
        post.json(answer(id)).await;
        assert_eq!(receive(&mut client).await, answer(id));
    }
}

#[tokio::test]
async fn nothing_passes_initialize() {
    let mut server = Server::start().await;
    let mut client = client(&server, quick()).await;
    client.send(INITIALIZE.as_bytes()).await.unwrap();
    client.send(INITIALIZED.as_bytes()).await.unwrap();
    client.send(call(1).as_bytes()).await.unwrap();
    let post = server.next().await;
    assert!(server.is_quiet().await);
    post.json(RESULT).await;
    let initialized = server.next().await;
    assert_eq!(initialized.text(), INITIALIZED);
    assert_eq!(initialized.header("mcp-protocol-version"), Some("2025-06-18"));
    assert!(server.is_quiet().await);
    initialized.accepted().await;
    assert_eq!(server.next_of("POST").await.text(), call(1));
}

#[tokio::test]
async fn a_cut_stream_is_resumed_behind_its_last_event() {
    let mut server = Server::start().await;
    let mut client = session(&mut server, quick()).await;
    client.send(call(1).as_bytes()).await.unwrap();
    let mut post = server.next().await;
    post.stream(&[]).await;
    post.chunk("id: one/0\nretry: 30\ndata:\n\n").await;
    let asked = std::time::Instant::now();
    post.end().await;
    let mut get = server.next_of("GET").await;
    assert!(asked.elapsed() >= Duration::from_millis(30), "retry was not obeyed: {:?}", asked.elapsed());
    assert_eq!(get.header("last-event-id"), Some("one/0"));
    assert_eq!(get.header("mcp-session-id"), Some("s-1"));
    get.stream(&[]).await;
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#;
    get.chunk(format!("id: one/1\ndata: {progress}\n\n")).await;
    assert_eq!(receive(&mut client).await, progress);
    // In mid-event, and in mid-chunk.
    get.raw("40\r\nid: one/2\ndata: {\"json").await;
    get.cut();
    let mut get = server.next_of("GET").await;
    assert_eq!(get.header("last-event-id"), Some("one/1"));
    get.stream(&[]).await;
    get.chunk(format!("id: one/2\ndata: {}\n\n", answer(1))).await;
    assert_eq!(receive(&mut client).await, answer(1));
    assert_eq!(client.stats().resumes, 2);
}

#[tokio::test]
async fn what_cannot_be_resumed_is_answered_with_an_error() {
    let mut server = Server::start().await;
    let mut client = session(&mut server, quick().max_resumes(3)).await;
    // No event id: nowhere to go on.
    client.send(call(1).as_bytes()).await.unwrap();
    let mut post = server.next().await;
    post.stream(&[]).await;
    post.event(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#).await;
    receive(&mut client).await;
    post.cut();
    let error = receive_json(&mut client).await;
    assert_eq!((&error["id"], &error["error"]["code"]), (&json!(1), &json!(-32000)), "{error}");
    // A server that has an id and then refuses.
    client.send(call(2).as_bytes()).await.unwrap();
    let mut post = server.next().await;
    post.stream(&[]).await;
    post.chunk("id: a\ndata:\n\n").await;
    post.end().await;
    server.next_of("GET").await.respond("405 Method Not Allowed", &[], "").await;
    assert_eq!(receive_json(&mut client).await["id"], 2);
    // A server that breaks down each time.
    client.send(call(3).as_bytes()).await.unwrap();
    let mut post = server.next().await;
    post.stream(&[]).await;
    post.chunk("id: a\ndata:\n\n").await;
    post.end().await;
    for _ in 0..3 {
        server.next_of("GET").await.respond("500 Internal Server Error", &[], "").await;
    }
    assert_eq!(receive_json(&mut client).await["id"], 3);
    assert!(server.is_quiet().await);
}

#[tokio::test]
async fn a_lost_session_is_opened_anew_and_the_request_repeated_once() {
    for (status, body) in [
        ("404 Not Found", ""),
        (
            "400 Bad Request",
            r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}"#,
        ),
    ] {
        let mut server = Server::start().await;
        let mut client = session(&mut server, quick()).await;
        client.send(call(1).as_bytes()).await.unwrap();
        server.next().await.respond(status, &[], body).await;
        let initialize = server.next().await;
        assert_eq!(initialize.text(), INITIALIZE);
        assert_eq!(initialize.header("mcp-session-id"), None);
        initialize
            .respond("200 OK", &[("content-type", "application/json"), ("mcp-session-id", "s-2")], RESULT)
            .await;
        let initialized = server.next().await;
        assert_eq!(initialized.text(), INITIALIZED);
        assert_eq!(initialized.header("mcp-session-id"), Some("s-2"));
        initialized.accepted().await;
        let again = server.next_of("POST").await;
        assert_eq!((again.text(), again.header("mcp-session-id")), (&*call(1), Some("s-2")));
        again.json(answer(1)).await;
        // The answer to the second initialize is not for the client.
        assert_eq!(receive(&mut client).await, answer(1));
        assert_eq!(client.stats().renewals, 1);
        // Refused again, it is not repeated without end.
        client.send(call(2).as_bytes()).await.unwrap();
        server.next_of("POST").await.respond(status, &[], body).await;
        server
            .next_of("POST")
            .await
            .respond("200 OK", &[("content-type", "application/json"), ("mcp-session-id", "s-3")], RESULT)
            .await;
        server.next_of("POST").await.accepted().await;
        server.next_of("POST").await.respond(status, &[], body).await;
        let error = receive_json(&mut client).await;
        assert_eq!(error["id"], 2, "{error}");
    }
}

#[tokio::test]
async fn refusals_are_told_with_what_is_known() {
    let mut server = Server::start().await;
    let mut client = session(&mut server, quick().max_retry_after(Duration::from_secs(1))).await;
    type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str, Value);
    let cases: [Case; 8] = [
        (
            "401 Unauthorized",
            &[("www-authenticate", r#"Bearer realm="x""#)],
            "who are you",
            json!({"status": 401, "wwwAuthenticate": r#"Bearer realm="x""#, "reason": "who are you"}),
        ),
        ("403 Forbidden", &[], "no", json!({"status": 403, "reason": "no"})),
        (
            "302 Found",
            &[("location", "http://127.0.0.1:1/evil")],
            "",
            json!({"status": 302, "location": "http://127.0.0.1:1/evil"}),
        ),
        ("307 Temporary Redirect", &[("location", "/x")], "", json!({"status": 307, "location": "/x"})),
        (
            "429 Too Many Requests",
            &[("retry-after", "3600")],
            "later",
            json!({"status": 429, "reason": "later", "retryAfter": 3600}),
        ),
        ("500 Internal Server Error", &[], "", json!({"status": 500, "reason": "no reason given"})),
        ("200 OK", &[("content-type", "text/html")], "<html>", Value::Null),
        ("200 OK", &[("content-type", "application/json")], "{\"jsonrpc\":", Value::Null),
    ];
    for (id, (status, headers, body, data)) in cases.into_iter().enumerate() {
        let id = u32::try_from(id).unwrap();
        client.send(call(id).as_bytes()).await.unwrap();
        server.next().await.respond(status, headers, body).await;
        let error = receive_json(&mut client).await;
        assert_eq!((&error["id"], &error["error"]["code"]), (&json!(id), &json!(-32000)), "{error}");
        assert_eq!(error["error"]["data"], data, "{error}");
    }
    // A JSON-RPC error is the answer itself, also where the server did not read the id.
    client.send(call(77).as_bytes()).await.unwrap();
    let body = r#"{"jsonrpc":"2.0","error":{"code":-32602,"message":"x"},"id":null}"#;
    server.next().await.respond("400 Bad Request", &[], body).await;
    let error = receive_json(&mut client).await;
    assert_eq!((&error["id"], &error["error"]["code"]), (&json!(77), &json!(-32602)), "{error}");
}

#[tokio::test]
async fn too_much_at_once_is_repeated_after_the_time_asked_for() {
    let mut server = Server::start().await;
    let mut client = session(&mut server, quick()).await;
    client.send(call(1).as_bytes()).await.unwrap();
    server.next().await.respond("429 Too Many Requests", &[("retry-after", "0")], "").await;
    server.next().await.respond("503 Service Unavailable", &[("retry-after", "0")], "").await;
    server.next().await.json(answer(1)).await;
    assert_eq!(receive(&mut client).await, answer(1));
    // Not for ever.
    client.send(call(2).as_bytes()).await.unwrap();
    for _ in 0..4 {
        server.next().await.respond("429 Too Many Requests", &[("retry-after", "0")], "").await;
    }
    assert_eq!(receive_json(&mut client).await["error"]["data"]["status"], 429);
    assert!(server.is_quiet().await);
}

#[tokio::test]
async fn answers_over_the_limit_are_errors() {
    let mut server = Server::start().await;
    let mut client = session(&mut server, quick().max_message_size(2000)).await;
    let big = answer(1).replace("12345678901234567890", &"9".repeat(4000));
    // Declared, chunked, and as an event.
    client.send(call(1).as_bytes()).await.unwrap();
    server.next().await.json(&big).await;
    let error = receive_json(&mut client).await;
    assert!(error["error"]["message"].as_str().unwrap().contains("2000"), "{error}");
    client.send(call(1).as_bytes()).await.unwrap();
    let mut post = server.next().await;
    post.raw("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n").await;
    post.chunk(&big).await;
    assert_eq!(receive_json(&mut client).await["id"], 1);
    client.send(call(1).as_bytes()).await.unwrap();
    let mut post = server.next().await;
    post.stream(&[]).await;
    post.event(&big.repeat(20)).await;
    assert_eq!(receive_json(&mut client).await["id"], 1);
    // And one's own are refused at once.
    let error = client.send(&[b' '; 2001]).await.unwrap_err();
    assert!(matches!(error, TransportError::BufferOverflow { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let mut server = Server::start().await;
    let mut client = session(&mut server, quick().response_timeout(Duration::from_millis(1500))).await;
    client.send(call(1).as_bytes()).await.unwrap();
    let silent = server.next().await;
    let error = receive_json(&mut client).await;
    assert_eq!((&error["id"], &error["error"]["code"]), (&json!(1), &json!(-32001)), "{error}");
    drop(silent);
    client.send(call(2).as_bytes()).await.unwrap();
    let mut half = server.next().await;
    half.stream(&[]).await;
    assert_eq!(receive_json(&mut client).await["error"]["code"], -32001);
}

#[tokio::test]
async fn a_dead_server_is_told_at_once_and_found_again() {
    let mut server = Server::start().await;
    let mut client = session(&mut server, quick()).await;
    client.send(call(1).as_bytes()).await.unwrap();
    server.next().await.cut();
    assert_eq!(receive_json(&mut client).await["error"]["code"], -32000);
    let port = server.port;
    server.stop();
    drop(server);
    client.send(call(2).as_bytes()).await.unwrap();
    assert_eq!(receive_json(&mut client).await["id"], 2);
    assert!(client.is_connected());
    let mut server = Server::on(tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap());
    client.send(call(3).as_bytes()).await.unwrap();
    server.next().await.json(answer(3)).await;
    assert_eq!(receive(&mut client).await, answer(3));
}

#[tokio::test]
async fn a_half_close_lets_what_is_under_way_be_answered() {
    let mut server = Server::start().await;
    let mut client = session(&mut server, quick()).await;
    client.send(call(1).as_bytes()).await.unwrap();
    std::future::poll_fn(|cx| client.poll_close_sending(cx)).await.unwrap();
    assert!(matches!(client.send(call(2).as_bytes()).await, Err(TransportError::Closed)));
    server.next().await.json(answer(1)).await;
    assert_eq!(receive(&mut client).await, answer(1));
    let end = timeout(PATIENCE, std::future::poll_fn(|cx| client.poll_receive(cx))).await.unwrap();
    assert!(matches!(end, Err(Error::Ended(End::Eof))), "{end:?}");
    assert_eq!(server.next_of("DELETE").await.header("mcp-session-id"), Some("s-1"));
}

#[tokio::test]
async fn a_half_close_ends_subscriptions_alone() {
    let mut server = Server::start().await;
    let mut client = client(&server, quick()).await;
    client.send(stateless(9, "subscriptions/listen", "").as_bytes()).await.unwrap();
    let mut listen = server.next().await;
    listen.stream(&[]).await;
    let ack = r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged"}"#;
    listen.event(ack).await;
    assert_eq!(receive(&mut client).await, ack);
    client.send(stateless(2, "tools/list", "").as_bytes()).await.unwrap();
    let list = server.next().await;
    std::future::poll_fn(|cx| client.poll_close_sending(cx)).await.unwrap();
    let over = r#"{"jsonrpc":"2.0","id":9,"result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/subscriptionId":9}}}"#;
    assert_eq!(receive(&mut client).await, over);
    assert!(listen.is_abandoned().await);
    list.json(answer(2)).await;
    assert_eq!(receive(&mut client).await, answer(2));
    let end = timeout(PATIENCE, std::future::poll_fn(|cx| client.poll_receive(cx))).await.unwrap();
    assert!(matches!(end, Err(Error::Ended(End::Eof))), "{end:?}");
}

#[tokio::test]
async fn a_close_answers_what_is_under_way_with_errors() {
    let mut server = Server::start().await;
    let mut client = session(&mut server, quick()).await;
    client.send(call(1).as_bytes()).await.unwrap();
    client.send(call(2).as_bytes()).await.unwrap();
    let (one, two) = (server.next().await, server.next().await);
    // The server never answers the goodbye; the close is bounded.
    timeout(PATIENCE, client.close()).await.unwrap().unwrap();
    let mut ids = [receive_json(&mut client).await, receive_json(&mut client).await]
        .map(|error| error["id"].as_u64().unwrap());
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
    assert!(matches!(client.receive().await, Err(TransportError::Closed)));
    drop((one, two));
}

#[tokio::test]
async fn dropping_the_transport_ends_the_session() {
    let mut server = Server::start().await;
    let client = session(&mut server, quick()).await;
    drop(client);
    assert_eq!(server.next_of("DELETE").await.header("mcp-session-id"), Some("s-1"));
}

#[tokio::test]
async fn the_servers_own_stream_comes_back() {
    let mut server = Server::start().await;
    let mut client = client(&server, quick()).await;
    client.send(INITIALIZE.as_bytes()).await.unwrap();
    server.next().await.json(RESULT).await;
    receive(&mut client).await;
    client.send(INITIALIZED.as_bytes()).await.unwrap();
    server.next().await.accepted().await;
    let mut get = server.next_of("GET").await;
    get.stream(&[]).await;
    let note = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    get.chunk(format!(": hello\n\nid: 9\ndata: {note}\n\n")).await;
    assert_eq!(receive(&mut client).await, note);
    get.cut();
    let mut get = server.next_of("GET").await;
    assert_eq!(get.header("last-event-id"), Some("9"));
    get.stream(&[]).await;
    get.chunk(format!("data: {note}\n\n")).await;
    assert_eq!(receive(&mut client).await, note);
    assert_eq!(client.stats().reconnects, 1);
}

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;

fn stateless(id: u32, method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{params}{META}}}}}"#)
}

#[tokio::test]
async fn a_stateless_message_says_in_its_head_what_it_is() {
    let mut server = Server::start().await;
    // Even beside a session.
    let mut client = session(&mut server, quick()).await;
    client.send(stateless(1, "tools/list", "").as_bytes()).await.unwrap();
    let post = server.next().await;
    assert_eq!(post.header("mcp-session-id"), None);
    assert_eq!(post.header("mcp-protocol-version"), Some("2026-07-28"));
    assert_eq!((post.header("mcp-method"), post.header("mcp-name")), (Some("tools/list"), None));
    let list = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"söl","inputSchema":{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}}]}}"#;
    post.json(list).await;
    assert_eq!(receive(&mut client).await, list);
    let params = r#""name":"söl","arguments":{"region":"eu"},"#;
    client.send(stateless(2, "tools/call", params).as_bytes()).await.unwrap();
    let post = server.next().await;
    assert_eq!(post.header("mcp-method"), Some("tools/call"));
    assert_eq!(post.header("mcp-name"), Some("=?base64?c8O2bA==?="));
    assert_eq!(post.header("mcp-param-region"), Some("eu"));
    // A refusal that is a JSON-RPC error is the answer, and no session is lost by a 404.
    let refusal = r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32601,"message":"no"}}"#;
    post.respond("404 Not Found", &[("content-type", "application/json")], refusal).await;
    assert_eq!(receive(&mut client).await, refusal);
    client.send(stateless(3, "resources/read", r#""uri":"file:///a","#).as_bytes()).await.unwrap();
    let mut post = server.next().await;
    assert_eq!(post.header("mcp-name"), Some("file:///a"));
    // Cut, it is not resumed: there are no event ids in this revision.
    post.stream(&[]).await;
    post.chunk("id: 1\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n\n").await;
    receive(&mut client).await;
    post.cut();
    assert_eq!(receive_json(&mut client).await["error"]["code"], -32000);
    assert_eq!(client.stats().renewals, 0);
}

#[tokio::test]
async fn headers_that_only_the_schema_tells_are_looked_up_when_they_are_missed() {
    let mut server = Server::start().await;
    let mut client = client(&server, quick()).await;
    let call = stateless(1, "tools/call", r#""name":"t","arguments":{"region":"eu"},"#);
    let refusal =
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32020,"message":"Mcp-Param-Region is missing"}}"#;
    client.send(call.as_bytes()).await.unwrap();
    server.next().await.respond("400 Bad Request", &[], refusal).await;
    for (cursor, result) in [
        (None, r#"{"tools":[],"nextCursor":"2"}"#),
        (
            Some("2"),
            r#"{"tools":[{"name":"t","inputSchema":{"properties":{"region":{"type":"string","x-mcp-header":"Region"}}}}]}"#,
        ),
    ] {
        let list = server.next().await;
        assert_eq!(list.header("mcp-method"), Some("tools/list"));
        let request: Value = serde_json::from_str(list.text()).unwrap();
        assert_eq!(request["params"]["cursor"].as_str(), cursor, "{request}");
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, request["id"]);
        list.json(answer).await;
    }
    let again = server.next().await;
    assert_eq!((again.text(), again.header("mcp-param-region")), (&*call, Some("eu")));
    // Once.
    again.respond("400 Bad Request", &[], refusal).await;
    assert_eq!(receive(&mut client).await, refusal);
    assert!(server.is_quiet().await);
}

#[tokio::test]
async fn to_cancel_a_stateless_request_is_to_close_its_stream() {
    let mut server = Server::start().await;
    let mut client = client(&server, quick()).await;
    client.send(stateless(1, "subscriptions/listen", "").as_bytes()).await.unwrap();
    let mut post = server.next().await;
    post.stream(&[]).await;
    let ack = r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged"}"#;
    post.event(ack).await;
    assert_eq!(receive(&mut client).await, ack);
    let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    client.send(cancelled.as_bytes()).await.unwrap();
    assert!(post.is_abandoned().await);
    // Nothing was sent, and nothing is answered.
    client.send(stateless(2, "tools/list", "").as_bytes()).await.unwrap();
    let next = server.next().await;
    assert!(next.text().contains("tools/list"), "{}", next.text());
    next.json(answer(2)).await;
    assert_eq!(receive(&mut client).await, answer(2));
}

#[tokio::test]
async fn a_cancelled_request_needs_no_answer() {
    let mut server = Server::start().await;
    let mut client = session(&mut server, quick().max_in_flight(1)).await;
    client.send(call(1).as_bytes()).await.unwrap();
    let mut post = server.next().await;
    post.stream(&[]).await;
    // The second waits for its turn and is given up before it leaves; the first is given up on its way.
    client.send(call(2).as_bytes()).await.unwrap();
    for id in [2, 1] {
        let cancelled = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
        );
        client.send(cancelled.as_bytes()).await.unwrap();
    }
    let cancelled = server.next().await;
    assert!(cancelled.text().contains(r#""requestId":1"#), "{}", cancelled.text());
    cancelled.accepted().await;
    post.cut();
    client.send(call(3).as_bytes()).await.unwrap();
    let third = server.next().await;
    assert_eq!(third.text(), call(3));
    third.json(answer(3)).await;
    assert_eq!(receive(&mut client).await, answer(3));
    assert_eq!(client.stats().errors, 0);
}

/// The server of 2024-11-05 up to the first answer.
async fn two_endpoints(
    server: &mut Server,
    client: &mut HttpClientTransport,
    endpoint: &str,
) -> http_server::Exchange {
    client.send(INITIALIZE.as_bytes()).await.unwrap();
    let body = r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"not here"},"id":null}"#;
    server
        .next()
        .await
        .respond("405 Method Not Allowed", &[("content-type", "application/json")], body)
        .await;
    let mut get = server.next_of("GET").await;
    assert_eq!(get.target, "/mcp");
    get.stream(&[]).await;
    get.chunk(format!("event: endpoint\ndata: {endpoint}\n\n")).await;
    get
}

#[tokio::test]
async fn two_endpoints_are_found_and_used() {
    let mut server = Server::start().await;
    let mut client = client(&server, quick()).await;
    let mut stream = two_endpoints(&mut server, &mut client, "/messages?session=7").await;
    let post = server.next().await;
    assert_eq!((&*post.target, post.text()), ("/messages?session=7", INITIALIZE));
    post.accepted().await;
    stream.chunk(format!("event: message\ndata: {RESULT}\n\n")).await;
    assert_eq!(receive(&mut client).await, RESULT);
    client.send(INITIALIZED.as_bytes()).await.unwrap();
    server.next().await.respond("202 Accepted", &[("content-type", "text/plain")], "Accepted").await;
    client.send(call(1).as_bytes()).await.unwrap();
    client.send(call(2).as_bytes()).await.unwrap();
    for _ in 0..2 {
        server.next().await.respond("202 Accepted", &[], "Accepted").await;
    }
    stream.event(&answer(2)).await;
    assert_eq!(receive(&mut client).await, answer(2));
    // The stream ends: what waits is told, and the next request opens another session.
    stream.cut();
    assert_eq!(receive_json(&mut client).await["id"], 1);
    client.send(call(3).as_bytes()).await.unwrap();
    let mut stream = server.next().await;
    assert_eq!(stream.method, "GET");
    stream.stream(&[]).await;
    stream.chunk("event: endpoint\ndata: /messages?session=8\n\n").await;
    let post = server.next().await;
    assert_eq!((&*post.target, post.text()), ("/messages?session=8", INITIALIZE));
    post.accepted().await;
    stream.event(RESULT).await;
    let post = server.next().await;
    assert_eq!(post.text(), INITIALIZED);
    post.accepted().await;
    let post = server.next().await;
    assert_eq!(post.text(), call(3));
    post.accepted().await;
    stream.event(&answer(3)).await;
    assert_eq!(receive(&mut client).await, answer(3));
}

#[tokio::test]
async fn an_endpoint_elsewhere_is_refused() {
    for endpoint in ["http://127.0.0.2:1/steal", "//evil.example/x", "https://127.0.0.1/x"] {
        let mut server = Server::start().await;
        let mut client = client(&server, quick()).await;
        let _stream = two_endpoints(&mut server, &mut client, endpoint).await;
        let error = receive_json(&mut client).await;
        assert_eq!((&error["id"], &error["error"]["message"]), (&json!(0), &json!("not here")), "{error}");
        assert!(server.is_quiet().await);
    }
}

#[tokio::test]
async fn detects_what_a_server_speaks() {
    // Modern.
    let mut server = Server::start().await;
    let url = server.url().parse().unwrap();
    let detecting = tokio::spawn(async move { HttpClient::detect(&url, quick().build().unwrap()).await });
    let post = server.next().await;
    assert_eq!(post.header("mcp-method"), Some("server/discover"));
    post.json(r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","supportedVersions":["2026-07-28","2027-01-01"],"capabilities":{"tools":{}},"instructions":"a\nb"}}"#).await;
    let detected = timeout(PATIENCE, detecting).await.unwrap().unwrap().unwrap();
    assert_eq!(detected.revisions, [Revision::R2026_07_28]);
    assert_eq!(detected.named, ["2026-07-28", "2027-01-01"]);
    assert_eq!(detected.capabilities.as_deref(), Some(r#"{"tools":{}}"#));
    assert_eq!(detected.instructions.as_deref(), Some("a\nb"));
    // Legacy, which refuses; its session is ended.
    for refusal in [
        (
            "400 Bad Request",
            r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}"#,
        ),
        (
            "400 Bad Request",
            r#"{"jsonrpc":"2.0","error":{"code":-32022,"message":"x","data":{"supported":["2025-11-25"]}},"id":1}"#,
        ),
        ("404 Not Found", ""),
        ("200 OK", ""),
    ] {
        let url = server.url().parse().unwrap();
        let detecting = tokio::spawn(async move { HttpClient::detect(&url, quick().build().unwrap()).await });
        server.next().await.respond(refusal.0, &[], refusal.1).await;
        let post = server.next().await;
        assert!(post.text().contains("\"initialize\""), "{}", post.text());
        let result = RESULT.replace(r#""id":0"#, r#""id":2"#);
        post.respond("200 OK", &[("content-type", "application/json"), ("mcp-session-id", "x")], result)
            .await;
        server.next_of("DELETE").await.respond("204 No Content", &[], "").await;
        let detected = timeout(PATIENCE, detecting).await.unwrap().unwrap().unwrap();
        assert_eq!(detected.revisions, [Revision::R2025_06_18]);
        assert_eq!(detected.server_info.as_deref(), Some(r#"{"name":"s","version":"1"}"#));
    }
    // 2024-11-05.
    let url = server.url().parse().unwrap();
    let detecting = tokio::spawn(async move { HttpClient::detect(&url, quick().build().unwrap()).await });
    server.next().await.respond("405 Method Not Allowed", &[], "").await;
    server.next().await.respond("405 Method Not Allowed", &[], "").await;
    let mut get = server.next().await;
    get.stream(&[]).await;
    get.chunk("event: endpoint\ndata: messages\n\n").await;
    let post = server.next().await;
    assert_eq!(post.target, "/messages");
    post.accepted().await;
    get.event(&RESULT.replace(r#""id":0"#, r#""id":2"#).replace("2025-06-18", "2024-11-05")).await;
    let detected = timeout(PATIENCE, detecting).await.unwrap().unwrap().unwrap();
    assert_eq!((detected.revisions, detected.two_endpoints), (vec![Revision::R2024_11_05], true));
    // Not for us.
    let url = server.url().parse().unwrap();
    let detecting = tokio::spawn(async move { HttpClient::detect(&url, quick().build().unwrap()).await });
    server.next().await.respond("401 Unauthorized", &[], "").await;
    let refused = timeout(PATIENCE, detecting).await.unwrap().unwrap();
    assert!(matches!(refused, Err(HttpClientError::Unauthorized { status: 401, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_caller_who_does_not_receive_holds_the_server_back_and_loses_nothing() {
    let mut server = Server::start().await;
    let mut client = session(&mut server, quick()).await;
    client.send(call(1).as_bytes()).await.unwrap();
    let mut post = server.next().await;
    post.stream(&[]).await;
    let text = "x".repeat(100_000);
    let writing = tokio::spawn(async move {
        for n in 0..200 {
            post.event(&format!(r#"{{"jsonrpc":"2.0","method":"n","params":{{"n":{n},"x":"{text}"}}}}"#))
                .await;
        }
        post.event(&answer(1)).await;
        post.end().await;
    });
    // Longer than it takes, were it not held back.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!writing.is_finished(), "20 MB went somewhere");
    for n in 0..200 {
        // A receive that is given up loses nothing.
        let message = loop {
            if let Ok(received) = timeout(Duration::from_micros(50), client.receive()).await {
                break received.unwrap();
            }
        };
        assert_eq!(serde_json::from_slice::<Value>(&message).unwrap()["params"]["n"], n);
    }
    assert_eq!(receive(&mut client).await, answer(1));
    writing.await.unwrap();
}

#[tokio::test]
async fn what_is_no_message_is_left_out_and_counted() {
    let mut server = Server::start().await;
    let mut client = session(&mut server, quick().one_line(true)).await;
    client.send(call(1).as_bytes()).await.unwrap();
    let mut post = server.next().await;
    post.stream(&[]).await;
    post.event("not JSON").await;
    post.chunk(b"data: {\"a\":\"\xff\"}\n\n").await;
    post.chunk("event: other\ndata: {}\n\n: comment\n\n").await;
    post.event(&answer(99)).await;
    // On several lines, which become one.
    post.chunk("data: {\"jsonrpc\":\"2.0\",\ndata: \"id\":1,\"result\":{}}\n\n").await;
    assert_eq!(receive(&mut client).await, r#"{"jsonrpc":"2.0", "id":1,"result":{}}"#);
    assert_eq!((client.stats().faults, client.stats().strays), (2, 1));
}

/// Wrong where nothing but a look at each byte shows it: behind an envelope that is in order.
#[tokio::test]
async fn no_answer_passes_that_is_not_json_to_its_last_byte() {
    let mut server = Server::start().await;
    let mut client = session(&mut server, quick()).await;
    let wrong: [&[u8]; 6] = [b"tru", b"01", b"[1,]", br#""\x""#, b"\"\xff\"", b"{\"a\":\"\x01\"}"];
    for (id, inside) in (1..).zip(wrong) {
        let body =
            [format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"a":"#).as_bytes(), inside, b"}}"].concat();
        // As it is, as an event, as the body of a refusal: the request is answered by an error made here.
        for way in 0..3 {
            client.send(call(id).as_bytes()).await.unwrap();
            let mut post = server.next().await;
            match way {
                0 => post.json(&body).await,
                1 => {
                    post.stream(&[]).await;
                    post.chunk([b"data: ", &*body, b"\n\n"].concat()).await;
                    post.end().await;
                }
                _ => post.respond("400 Bad Request", &[("content-type", "application/json")], &body).await,
            }
            let got = receive_json(&mut client).await;
            assert_eq!(got["id"], id, "{way} {}", inside.escape_ascii());
            assert!(got.get("error").is_some(), "{got}");
        }
    }
    client.send(call(99).as_bytes()).await.unwrap();
    server.next().await.json(answer(99)).await;
    assert_eq!(receive(&mut client).await, answer(99));
}

/// What is no JSON-RPC may look like an answer all the same: the one that is made here would be the second.
#[tokio::test]
async fn each_request_has_one_answer_whatever_looks_like_another() {
    let mut server = Server::start().await;
    let mut client = session(&mut server, quick()).await;
    for (id, body) in [
        (1, r#"{"id":1,"result":{}}"#.to_owned()),
        (2, r#"{"jsonrpc":"1.0","id":2,"result":{}}"#.to_owned()),
        (3, r#"[{"id":3,"result":{}}]"#.to_owned()),
        (4, format!(r#"[{},{{"id":4,"result":{{}}}}]"#, answer(4))),
        (5, format!("[[{}]]", answer(5))),
        (6, format!("[{}]", answer(77))),
    ] {
        client.send(call(id).as_bytes()).await.unwrap();
        server.next().await.json(&body).await;
        let got = receive_json(&mut client).await;
        assert_eq!(got["id"], id, "{body}");
        assert!(got["error"]["message"].as_str().unwrap().contains("was not in it"), "{got}");
    }
    // Twice in a batch, and one for nobody: once, and what else there is.
    let own = r#"{"jsonrpc":"2.0","method":"n"}"#;
    client.send(call(7).as_bytes()).await.unwrap();
    server.next().await.json(format!("[{0}, {1},{2} ,{0}]", answer(7), answer(77), own)).await;
    assert_eq!(receive(&mut client).await, answer(7));
    assert_eq!(receive(&mut client).await, own);
    // A batch that is in order stays one.
    client.send(call(8).as_bytes()).await.unwrap();
    let whole = format!("[{own} ,{}]", answer(8));
    server.next().await.json(&whole).await;
    assert_eq!(receive(&mut client).await, whole);
}
