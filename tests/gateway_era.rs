//! Translation between the eras: exact bytes in, exact bytes out, for each method and direction.
#![cfg(feature = "gateway")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::{Context, Poll, Waker},
    time::Duration,
};

use framewire::{
    gateway::{Era, EraCache, EraConfig, Translated},
    transport::{MemoryTransport, PollTransport, Transport},
};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);

/// A client, what is tested, and a server, both played by the test.
struct World {
    middle: Translated<MemoryTransport>,
    server: MemoryTransport,
    /// What the client has got and the test has not looked at.
    inbox: VecDeque<String>,
}

impl World {
    fn new(cache: &EraCache) -> Self {
        let (near, server) = MemoryTransport::pair();
        Self { middle: Translated::new(near, cache.clone()), server, inbox: VecDeque::new() }
    }

    /// Plays a script, a step a line: `c>` the client sends, `s<` the server must get, `s>` and `c<` likewise. `$0` and so
    /// on stand for ids and other parts that differ: they match anything up to the next byte of the line and stand for
    /// that from then on.
    async fn play(&mut self, script: &str) {
        let mut names: Vec<(String, String)> = Vec::new();
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (step, text) = line.split_at(2);
            let mut text = text.trim().to_owned();
            for (name, value) in &names {
                text = text.replace(name, value);
            }
            match step {
                "c>" => timeout(LIMIT, self.middle.send(text.as_bytes())).await.expect("room").unwrap(),
                "s>" => {
                    timeout(LIMIT, self.server.send(text.as_bytes())).await.expect("room").unwrap();
                    let mut cx = Context::from_waker(Waker::noop());
                    while let Poll::Ready(got) = self.middle.poll_receive(&mut cx) {
                        self.inbox.push_back(String::from_utf8(got.unwrap().to_vec()).unwrap());
                    }
                }
                "s<" => same(&self.at_server().await, &text, &mut names),
                "c<" => same(&self.at_client().await, &text, &mut names),
                _ => panic!("{line}"),
            }
        }
        self.nothing_more();
    }

    async fn at_server(&mut self) -> String {
        let Self { middle, server, inbox } = self;
        let got = timeout(LIMIT, async {
            loop {
                tokio::select! {
                    biased;
                    got = server.receive() => break got.unwrap(),
                    other = middle.receive() => inbox.push_back(String::from_utf8(other.unwrap()).unwrap()),
                }
            }
        });
        String::from_utf8(got.await.expect("something for the server")).unwrap()
    }

    async fn at_client(&mut self) -> String {
        if let Some(got) = self.inbox.pop_front() {
            return got;
        }
        let got = timeout(LIMIT, self.middle.receive()).await.expect("something for the client");
        String::from_utf8(got.unwrap()).unwrap()
    }

    fn nothing_more(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(self.inbox, [""; 0], "for the client");
        let client = self.middle.poll_receive(&mut cx);
        assert!(client.is_pending(), "for the client: {client:?}");
        let server = self.server.poll_receive(&mut cx);
        assert!(server.is_pending(), "for the server: {server:?}");
    }
}

/// Compares, learning what `$n` stands for.
fn same(got: &str, expected: &str, names: &mut Vec<(String, String)>) {
    let mut rest = got;
    let mut pattern = expected.to_owned();
    while let Some(at) = pattern.find('$') {
        let name = pattern[at..at + 2].to_owned();
        let (before, after) = (pattern[..at].to_owned(), pattern[at + 2..].to_owned());
        rest = rest
            .strip_prefix(before.as_str())
            .unwrap_or_else(|| panic!("\n     got {got}\nexpected {expected}"));
        let end = rest.find(&after[..1]).unwrap_or_else(|| panic!("\n     got {got}\nexpected {expected}"));
        pattern = after.replace(&name, &rest[..end]);
        names.push((name, rest[..end].to_owned()));
        rest = &rest[end..];
    }
    assert_eq!(rest, pattern, "\n     got {got}\nexpected {expected}");
}

fn cache(server: Era) -> EraCache {
    let cache = EraCache::new();
    cache.set_server(server);
    cache
}

const META: &str = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"io.modelcontextprotocol/clientCapabilities":{"sampling":{},"elicitation":{},"roots":{"listChanged":true}}"#;

const HELLO: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{"sampling":{},"elicitation":{},"roots":{"listChanged":true}},"clientInfo":{"name":"c","version":"1"}}}"#;

const DISCOVERY: &str = r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"instructions":"do","ttlMs":0,"cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"2"}}}"#;

const WELCOME: &str = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"2"},"instructions":"do"}}"#;

/// A client with sessions and a stateless server that know each other.
async fn session() -> World {
    let mut world = World::new(&cache(Era::Stateless));
    let script = format!(
        r#"c> {HELLO}
           s< {{"jsonrpc":"2.0","id":"framewire-era-1","method":"server/discover","params":{{"_meta":{{{META}}}}}}}
           s> {{"jsonrpc":"2.0","id":"framewire-era-1","result":{DISCOVERY}}}
           c< {WELCOME}
           c> {{"jsonrpc":"2.0","method":"notifications/initialized"}}"#
    );
    world.play(&script).await;
    world
}

#[tokio::test]
async fn each_request_gets_its_meta_and_nothing_else_changes() {
    let cases = [
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{META}}}"#,
        ),
        (
            r#"{ "method" : "tools/list" , "id":"a\"b","params":{ } ,"jsonrpc":"2.0"}"#,
            r#"{ "method" : "tools/list" , "id":"a\"b","params":{"_meta":{META} } ,"jsonrpc":"2.0"}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"x/y","params":{"n":9007199254740993,"f":1.0e0}}"#,
            r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"x/y","params":{"_meta":{META},"n":9007199254740993,"f":1.0e0}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"_meta","_meta":{"progressToken":7}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"_meta","_meta":{META,"progressToken":7}}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{META}}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":null,"b":[]}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{META},"b":[]}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":null}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{META}}}"#,
        ),
        (
            r#"{"params":{"q":1},"jsonrpc":"2.0","id":1,"method":"x"}"#,
            r#"{"params":{"_meta":{META},"q":1},"jsonrpc":"2.0","id":1,"method":"x"}"#,
        ),
        // One that brings some of it keeps that.
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol/clientInfo":{"name":"d"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"d"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#,
        ),
        // Notifications stand for themselves.
        (
            r#"{"jsonrpc":"2.0","method":"notifications/custom","params":{"a":1}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/custom","params":{"a":1}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}}"#,
        ),
        ("not json", "not json"),
    ];
    let mut world = session().await;
    for (message, expected) in cases {
        let expected = expected.replace("META", META);
        world.play(&format!("c> {message}\ns< {expected}")).await;
    }
}

#[tokio::test]
async fn what_a_stateless_server_does_not_have_is_done_in_between() {
    let cases = [
        (r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#, r#"{"jsonrpc":"2.0","id":"p","result":{}}"#),
        (
            r#"{"jsonrpc":"2.0","id":2,"method":"logging/setLevel","params":{"level":"loud"}}"#,
            r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32602,"message":"level is not a level of logging"}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":2,"method":"x","params":[]}"#,
            r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32602,"message":"params is not an object with each name once"}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":2,"method":"x","params":{"_meta":1}}"#,
            r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32602,"message":"params is not an object with each name once"}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":2,"method":"x","params":{"_meta":{},"_meta":{}}}"#,
            r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32602,"message":"params is not an object with each name once"}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":3,"method":"resources/subscribe","params":{"uri":1}}"#,
            r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32602,"message":"uri is not a string"}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":3,"method":"resources/unsubscribe","params":{"uri":"a:b"}}"#,
            r#"{"jsonrpc":"2.0","id":3,"result":{}}"#,
        ),
        (
            r#"[{"jsonrpc":"2.0","id":3,"method":"x"}]"#,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"this revision has no batches"}}"#,
        ),
        (HELLO, WELCOME),
    ];
    let mut world = session().await;
    for (message, expected) in cases {
        world.play(&format!("c> {message}\nc< {expected}")).await;
    }
    for silent in ["notifications/progress", "notifications/roots/list_changed", "notifications/initialized"]
    {
        world.play(&format!(r#"c> {{"jsonrpc":"2.0","method":"{silent}","params":{{}}}}"#)).await;
    }
    let with_level = format!(r#"{META},"io.modelcontextprotocol/logLevel":"warning""#);
    world
        .play(&format!(
            r#"c> {{"jsonrpc":"2.0","id":4,"method":"logging/setLevel","params":{{"level":"warning"}}}}
               c< {{"jsonrpc":"2.0","id":4,"result":{{}}}}
               c> {{"jsonrpc":"2.0","id":5,"method":"x"}}
               s< {{"jsonrpc":"2.0","id":5,"method":"x","params":{{"_meta":{{{with_level}}}}}}}"#
        ))
        .await;
}

/// Asked for none, a stateless server may send no logs; one with sessions sends what it sees fit.
#[tokio::test]
async fn a_client_that_has_set_no_level_is_sent_logs() {
    let mut world = World::new(&cache(Era::Stateless));
    let logging = |text: &str| text.replace(r#"{"tools":{}}"#, r#"{"tools":{},"logging":{}}"#);
    let (discovery, welcome) = (logging(DISCOVERY), logging(WELCOME));
    let with = |level: &str| format!(r#"{META},"io.modelcontextprotocol/logLevel":"{level}""#);
    let (info, error) = (with("info"), with("error"));
    let script = format!(
        r#"c> {HELLO}
           s< {{"jsonrpc":"2.0","id":"framewire-era-1","method":"server/discover","params":{{"_meta":{{{META}}}}}}}
           s> {{"jsonrpc":"2.0","id":"framewire-era-1","result":{discovery}}}
           c< {welcome}
           c> {{"jsonrpc":"2.0","id":1,"method":"x"}}
           s< {{"jsonrpc":"2.0","id":1,"method":"x","params":{{"_meta":{{{info}}}}}}}
           c> {{"jsonrpc":"2.0","id":2,"method":"logging/setLevel","params":{{"level":"loud"}}}}
           c< {{"jsonrpc":"2.0","id":2,"error":{{"code":-32602,"message":"level is not a level of logging"}}}}
           c> {{"jsonrpc":"2.0","id":3,"method":"x"}}
           s< {{"jsonrpc":"2.0","id":3,"method":"x","params":{{"_meta":{{{info}}}}}}}
           c> {{"jsonrpc":"2.0","id":4,"method":"logging/setLevel","params":{{"level":"error"}}}}
           c< {{"jsonrpc":"2.0","id":4,"result":{{}}}}
           c> {HELLO}
           c< {welcome}
           c> {{"jsonrpc":"2.0","id":5,"method":"x"}}
           s< {{"jsonrpc":"2.0","id":5,"method":"x","params":{{"_meta":{{{error}}}}}}}"#
    );
    world.play(&script).await;
}

#[tokio::test]
async fn what_a_stateless_server_sends_passes_as_it_is() {
    let cases = [
        r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","tools":[],"ttlMs":0,"n":9007199254740993}}"#,
        r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32601,"message":"no"}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":0.5}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}"#,
        "garbage",
    ];
    let mut world = session().await;
    for message in cases {
        world.play(&format!("s> {message}\nc< {message}")).await;
    }
}

#[tokio::test]
async fn batches_are_taken_apart_for_the_one_revision_that_has_them() {
    let mut world = World::new(&cache(Era::Stateless));
    let hello = HELLO.replace("2025-06-18", "2025-03-26");
    let welcome = WELCOME.replace("2025-06-18", "2025-03-26");
    let script = format!(
        r#"c> {hello}
           s< {{"jsonrpc":"2.0","id":"framewire-era-1","method":"server/discover","params":{{"_meta":{{{META}}}}}}}
           s> {{"jsonrpc":"2.0","id":"framewire-era-1","result":{DISCOVERY}}}
           c< {welcome}
           c> [{{"jsonrpc":"2.0","id":1,"method":"ping"}}, {{"jsonrpc":"2.0","id":2,"method":"a","params":{{}}}},{{"jsonrpc":"2.0","method":"n"}}]
           c< {{"jsonrpc":"2.0","id":1,"result":{{}}}}
           s< {{"jsonrpc":"2.0","id":2,"method":"a","params":{{"_meta":{{{META}}}}}}}
           s< {{"jsonrpc":"2.0","method":"n"}}"#
    );
    world.play(&script).await;
}

#[tokio::test]
async fn subscriptions_become_streams_and_back() {
    let mut world = World::new(&cache(Era::Stateless));
    let capabilities = r#"{"tools":{"listChanged":true},"resources":{"subscribe":true,"listChanged":true}}"#;
    let discovery = DISCOVERY.replace(r#"{"tools":{}}"#, capabilities);
    let welcome = WELCOME.replace(r#"{"tools":{}}"#, capabilities);
    let tag = |n: u32| format!(r#""io.modelcontextprotocol/subscriptionId":"framewire-era-{n}""#);
    let (lists, one, two) = (tag(2), tag(3), tag(4));
    let script = format!(
        r#"c> {HELLO}
           s< {{"jsonrpc":"2.0","id":"framewire-era-1","method":"server/discover","params":{{"_meta":{{{META}}}}}}}
           s> {{"jsonrpc":"2.0","id":"framewire-era-1","result":{discovery}}}
           c< {welcome}
           c> {{"jsonrpc":"2.0","method":"notifications/initialized"}}
           s< {{"jsonrpc":"2.0","id":"framewire-era-2","method":"subscriptions/listen","params":{{"_meta":{{{META}}},"notifications":{{"toolsListChanged":true,"resourcesListChanged":true}}}}}}
           s> {{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"notifications":{{"toolsListChanged":true}},"_meta":{{{lists}}}}}}}
           s> {{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{"_meta":{{{lists}}}}}}}
           c< {{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{"_meta":{{}}}}}}
           c> {{"jsonrpc":"2.0","id":7,"method":"resources/subscribe","params":{{"uri":"a:\u0062"}}}}
           s< {{"jsonrpc":"2.0","id":"framewire-era-3","method":"subscriptions/listen","params":{{"_meta":{{{META}}},"notifications":{{"resourceSubscriptions":["a:\u0062"]}}}}}}
           s> {{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"notifications":{{"resourceSubscriptions":["a:b"]}},"_meta":{{{one}}}}}}}
           c< {{"jsonrpc":"2.0","id":7,"result":{{}}}}
           s> {{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"a:b","_meta":{{"k":1,{one},"l":2}}}}}}
           c< {{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"a:b","_meta":{{"k":1,"l":2}}}}}}
           c> {{"jsonrpc":"2.0","id":8,"method":"resources/subscribe","params":{{"uri":"a:\u0062"}}}}
           c< {{"jsonrpc":"2.0","id":8,"result":{{}}}}
           c> {{"jsonrpc":"2.0","id":9,"method":"resources/unsubscribe","params":{{"uri":"a:\u0062"}}}}
           c< {{"jsonrpc":"2.0","id":9,"result":{{}}}}
           s< {{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":"framewire-era-3"}}}}
           s> {{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"a:b","_meta":{{{one}}}}}}}
           c> {{"jsonrpc":"2.0","id":10,"method":"resources/subscribe","params":{{"uri":"a:c"}}}}
           s< {{"jsonrpc":"2.0","id":"framewire-era-4","method":"subscriptions/listen","params":{{"_meta":{{{META}}},"notifications":{{"resourceSubscriptions":["a:c"]}}}}}}
           s> {{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"notifications":{{}},"_meta":{{{two}}}}}}}
           c< {{"jsonrpc":"2.0","id":10,"error":{{"code":-32601,"message":"the server has no subscriptions to resources"}}}}
           s< {{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":"framewire-era-4"}}}}
           s> {{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":"framewire-era-2"}}}}"#
    );
    world.play(&script).await;
}

#[tokio::test]
async fn streams_are_opened_again_at_the_next_server() {
    let mut world = World::new(&cache(Era::Stateless));
    let capabilities = r#"{"tools":{"listChanged":true},"resources":{"subscribe":true}}"#;
    let discovery = DISCOVERY.replace(r#"{"tools":{}}"#, capabilities);
    let welcome = WELCOME.replace(r#"{"tools":{}}"#, capabilities);
    let tag = |n: u32| format!(r#""io.modelcontextprotocol/subscriptionId":"framewire-era-{n}""#);
    let [lists, one, again, once_more] = [2, 3, 4, 5].map(tag);
    let ended = r#""error":{"code":-32000,"message":"the server ended"}"#;
    let filter = r#""notifications":{"toolsListChanged":true}"#;
    let resource = r#""notifications":{"resourceSubscriptions":["a:b"]}"#;
    let script = format!(
        r#"c> {HELLO}
           s< {{"jsonrpc":"2.0","id":"framewire-era-1","method":"server/discover","params":{{"_meta":{{{META}}}}}}}
           s> {{"jsonrpc":"2.0","id":"framewire-era-1","result":{discovery}}}
           c< {welcome}
           c> {{"jsonrpc":"2.0","method":"notifications/initialized"}}
           s< {{"jsonrpc":"2.0","id":"framewire-era-2","method":"subscriptions/listen","params":{{"_meta":{{{META}}},{filter}}}}}
           s> {{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{{filter},"_meta":{{{lists}}}}}}}
           c> {{"jsonrpc":"2.0","id":7,"method":"resources/subscribe","params":{{"uri":"a:b"}}}}
           s< {{"jsonrpc":"2.0","id":"framewire-era-3","method":"subscriptions/listen","params":{{"_meta":{{{META}}},{resource}}}}}
           s> {{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{{resource},"_meta":{{{one}}}}}}}
           c< {{"jsonrpc":"2.0","id":7,"result":{{}}}}
           s> {{"jsonrpc":"2.0","id":"framewire-era-2",{ended}}}
           s< {{"jsonrpc":"2.0","id":"framewire-era-4","method":"subscriptions/listen","params":{{"_meta":{{{META}}},{filter}}}}}
           s> {{"jsonrpc":"2.0","id":"framewire-era-3",{ended}}}
           s< {{"jsonrpc":"2.0","id":"framewire-era-5","method":"subscriptions/listen","params":{{"_meta":{{{META}}},{resource}}}}}
           s> {{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{{resource},"_meta":{{{once_more}}}}}}}
           s> {{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"a:b","_meta":{{{once_more}}}}}}}
           c< {{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"a:b","_meta":{{}}}}}}
           s> {{"jsonrpc":"2.0","id":"framewire-era-4",{ended}}}
           s> {{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{"_meta":{{{again}}}}}}}
           s> {{"jsonrpc":"2.0","id":"framewire-era-5","error":{{"code":-32603,"message":"no more"}}}}
           c> {{"jsonrpc":"2.0","id":8,"method":"resources/subscribe","params":{{"uri":"a:b"}}}}
           s< {{"jsonrpc":"2.0","id":"framewire-era-6","method":"subscriptions/listen","params":{{"_meta":{{{META}}},{resource}}}}}
           s> {{"jsonrpc":"2.0","id":"framewire-era-6",{ended}}}
           c< {{"jsonrpc":"2.0","id":8,{ended}}}"#
    );
    world.play(&script).await;
}

#[tokio::test]
async fn what_a_stateless_server_needs_the_client_is_asked_for() {
    let mut world = session().await;
    let script = format!(
        r#"c> {{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{{"n":9007199254740993}},"_meta":{{"progressToken":1}}}}}}
           s< {{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{{"n":9007199254740993}},"_meta":{{{META},"progressToken":1}}}}}}
           s> {{"jsonrpc":"2.0","id":1,"result":{{"resultType":"input_required","inputRequests":{{"a\"":{{"method":"elicitation/create","params":{{"message":"m","requestedSchema":{{}}}}}},"b":{{"method":"roots/list"}}}},"requestState":"st\"ate"}}}}
           c< {{"jsonrpc":"2.0","id":"framewire-era-2","method":"elicitation/create","params":{{"message":"m","requestedSchema":{{}}}}}}
           c< {{"jsonrpc":"2.0","id":"framewire-era-3","method":"roots/list"}}
           c> {{"jsonrpc":"2.0","id":"framewire-era-3","result":{{"roots":[]}}}}
           c> {{"jsonrpc":"2.0","id":"framewire-era-2","result":{{"action":"accept","content":{{"x":1}}}}}}
           s< {{"jsonrpc":"2.0","id":"framewire-era-4","method":"tools/call","params":{{"inputResponses":{{"a\"":{{"action":"accept","content":{{"x":1}}}},"b":{{"roots":[]}}}},"requestState":"st\"ate","name":"t","arguments":{{"n":9007199254740993}},"_meta":{{{META},"progressToken":1}}}}}}
           s> {{"jsonrpc":"2.0","id":"framewire-era-4","result":{{"resultType":"input_required","requestState":"again"}}}}
           s< {{"jsonrpc":"2.0","id":"framewire-era-5","method":"tools/call","params":{{"requestState":"again","name":"t","arguments":{{"n":9007199254740993}},"_meta":{{{META},"progressToken":1}}}}}}
           s> {{"jsonrpc":"2.0","id":"framewire-era-5","result":{{"resultType":"complete","content":[9007199254740993]}}}}
           c< {{"jsonrpc":"2.0","id":1,"result":{{"resultType":"complete","content":[9007199254740993]}}}}"#
    );
    world.play(&script).await;
}

#[tokio::test]
async fn a_call_whose_input_cannot_be_had_fails_as_its_kind_fails() {
    let call = |id: u32, method: &str| {
        format!(
            r#"c> {{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"name":"t"}}}}
               s< {{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"_meta":{{{META}}},"name":"t"}}}}"#
        )
    };
    let ask = |id: u32, requests: &str| {
        format!(
            r#"s> {{"jsonrpc":"2.0","id":{id},"result":{{"inputRequests":{requests},"resultType":"input_required"}}}}"#
        )
    };
    let tool = |id: u32, why: &str| {
        format!(
            r#"c< {{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":"{why}"}}],"isError":true}}}}"#
        )
    };
    let prompt = |id: u32, why: &str| {
        format!(r#"c< {{"jsonrpc":"2.0","id":{id},"error":{{"code":-32603,"message":"{why}"}}}}"#)
    };
    let roots = r#"{"r":{"method":"roots/list"}}"#;
    let mut world = session().await;
    // Asked for what this client cannot give.
    let url =
        r#"{"u":{"method":"elicitation/create","params":{"mode":"url","message":"m","url":"https://x"}}}"#;
    let cannot = "the server asked for something that the client cannot give";
    world.play(&format!("{}\n{}\n{}", call(1, "tools/call"), ask(1, url), tool(1, cannot))).await;
    world.play(&format!("{}\n{}\n{}", call(2, "prompts/get"), ask(2, url), prompt(2, cannot))).await;
    // Asked for nothing that may be asked for, or not at all.
    let strange = ask(3, r#"{"x":{"method":"tools/call"}}"#);
    let no_input = "the server asked for something that is no input";
    world.play(&format!("{}\n{strange}\n{}", call(3, "tools/call"), tool(3, no_input))).await;
    let without = "the server asked for input without saying which";
    world.play(&format!("{}\n{}\n{}", call(4, "tools/call"), ask(4, "{}"), tool(4, without))).await;
    // The client says no.
    let refused = r#"c< {"jsonrpc":"2.0","id":"$0","method":"roots/list"}
                     c> {"jsonrpc":"2.0","id":"$0","error":{"code":-1,"message":"no \"way\""}}"#;
    let why = r#"the client refused what was asked for: no \"way\""#;
    world
        .play(&format!("{}\n{}\n{refused}\n{}", call(5, "resources/read"), ask(5, roots), prompt(5, why)))
        .await;
    // The client gives up: nothing is at the server, and the question is taken back.
    let gives_up = r#"c< {"jsonrpc":"2.0","id":"$0","method":"roots/list"}
                      c> {"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":6}}
                      c< {"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"$0"}}"#;
    world.play(&format!("{}\n{}\n{gives_up}", call(6, "tools/call"), ask(6, roots))).await;
    // And once it was sent again, the server is told with the id it knows.
    let later = format!(
        r#"c< {{"jsonrpc":"2.0","id":"$0","method":"roots/list"}}
           c> {{"jsonrpc":"2.0","id":"$0","result":{{"roots":[]}}}}
           s< {{"jsonrpc":"2.0","id":"$1","method":"tools/call","params":{{"inputResponses":{{"r":{{"roots":[]}}}},"_meta":{{{META}}},"name":"t"}}}}
           c> {{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":7,"reason":"r"}}}}
           s< {{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":"$1","reason":"r"}}}}"#
    );
    world.play(&format!("{}\n{}\n{later}", call(7, "tools/call"), ask(7, roots))).await;
    // A server that never has enough.
    let mut script = call(8, "tools/call");
    script += "\ns> {\"jsonrpc\":\"2.0\",\"id\":8,\"result\":{\"resultType\":\"input_required\",\"requestState\":\"0\"}}";
    for round in 0..10 {
        script += &format!(
            r#"
            s< {{"jsonrpc":"2.0","id":"${round}","method":"tools/call","params":{{"requestState":"{round}","_meta":{{{META}}},"name":"t"}}}}
            s> {{"jsonrpc":"2.0","id":"${round}","result":{{"resultType":"input_required","requestState":"{}"}}}}"#,
            round + 1
        );
    }
    script += &format!("\n{}", tool(8, "the server asked for input more than 10 times"));
    world.play(&script).await;
}

const GREETING: &str = r#"{"protocolVersion":"2025-11-25","capabilities":{"logging":{},"tasks":{"list":{}},"tools":{"listChanged":true},"resources":{"subscribe":true}},"serverInfo":{"name":"s","version":"2"},"instructions":"do"}"#;

const ALL: &str = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"sampling":{},"elicitation":{}}"#;

/// A stateless client and a server with sessions that know each other.
async fn stateless() -> World {
    let mut world = World::new(&cache(Era::Sessions));
    let script = format!(
        r#"c> {{"jsonrpc":"2.0","id":0,"method":"server/discover","params":{{"_meta":{{{ALL},"io.modelcontextprotocol/clientInfo":{{"name":"c"}}}}}}}}
           s< {{"jsonrpc":"2.0","id":"framewire-era-1","method":"initialize","params":{{"protocolVersion":"2025-11-25","capabilities":{{"sampling":{{}},"elicitation":{{}}}},"clientInfo":{{"name":"c"}}}}}}
           s> {{"jsonrpc":"2.0","id":"framewire-era-1","result":{GREETING}}}
           s< {{"jsonrpc":"2.0","method":"notifications/initialized"}}
           c< {{"jsonrpc":"2.0","id":0,"result":{{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{{"logging":{{}},"tools":{{"listChanged":true}},"resources":{{"subscribe":true}}}},"instructions":"do","ttlMs":0,"cacheScope":"private","_meta":{{"io.modelcontextprotocol/serverInfo":{{"name":"s","version":"2"}}}}}}}}"#
    );
    world.play(&script).await;
    world
}

#[tokio::test]
async fn requests_lose_their_meta_and_results_gain_what_is_wanted() {
    let cases = [
        // request, as the server gets it, answer, as the client gets it
        (
            r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"tools/call","params":{"name":"t","arguments":{"n":9007199254740993},"_meta":{ALL}}}"#,
            r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"tools/call","params":{"name":"t","arguments":{"n":9007199254740993},"_meta":{}}}"#,
            r#"{"jsonrpc":"2.0","id":9007199254740993,"result":{"content":[9007199254740993]}}"#,
            r#"{"jsonrpc":"2.0","id":9007199254740993,"result":{"resultType":"complete","content":[9007199254740993]}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":"l","method":"tools\/list","params":{"_meta":{ALL,"progressToken":3,"x/y":{"a":1}}}}"#,
            r#"{"jsonrpc":"2.0","id":"l","method":"tools\/list","params":{"_meta":{"progressToken":3,"x/y":{"a":1}}}}"#,
            r#"{"result":{"tools":[]},"id":"l","jsonrpc":"2.0"}"#,
            r#"{"result":{"resultType":"complete","ttlMs":0,"cacheScope":"private","tools":[]},"id":"l","jsonrpc":"2.0"}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":2,"method":"resources/read","params":{"uri":"a:b","_meta":{ALL}}}"#,
            r#"{"jsonrpc":"2.0","id":2,"method":"resources/read","params":{"uri":"a:b","_meta":{}}}"#,
            r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32002,"message":"none","data":{"uri":"a:b"}}}"#,
            r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32602,"message":"none","data":{"uri":"a:b"}}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":3,"method":"prompts/list","params":{"_meta":{ALL}}}"#,
            r#"{"jsonrpc":"2.0","id":3,"method":"prompts/list","params":{"_meta":{}}}"#,
            r#"{"jsonrpc":"2.0","id":3,"result":{"ttlMs":5,"prompts":[],"cacheScope":"public"}}"#,
            r#"{"jsonrpc":"2.0","id":3,"result":{"resultType":"complete","ttlMs":5,"prompts":[],"cacheScope":"public"}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":4,"method":"custom/x","params":{"_meta":{ALL}}}"#,
            r#"{"jsonrpc":"2.0","id":4,"method":"custom/x","params":{"_meta":{}}}"#,
            r#"{"jsonrpc":"2.0","id":4,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":4,"result":{"resultType":"complete"}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":5,"method":"completion/complete","params":{"_meta":{ALL}}}"#,
            r#"{"jsonrpc":"2.0","id":5,"method":"completion/complete","params":{"_meta":{}}}"#,
            r#"{"jsonrpc":"2.0","id":5,"error":{"code":-32601,"message":"no"}}"#,
            r#"{"jsonrpc":"2.0","id":5,"error":{"code":-32601,"message":"no"}}"#,
        ),
    ];
    let mut world = stateless().await;
    for (request, sent, answer, got) in cases {
        let request = request.replace("ALL", ALL);
        world.play(&format!("c> {request}\ns< {sent}\ns> {answer}\nc< {got}")).await;
    }
}

#[tokio::test]
async fn bad_requests_of_stateless_clients_are_answered_here() {
    let missing = |key: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":-32602,"message":"params._meta lacks io.modelcontextprotocol/{key}, or it is of the wrong type"}}}}"#
        )
    };
    let unsupported = |requested: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":-32022,"message":"Unsupported protocol version","data":{{"supported":["2026-07-28"],"requested":"{requested}"}}}}}}"#
        )
    };
    let none = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"params._meta is missing, or a name stands twice"}}"#;
    let gone = |name: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":-32601,"message":"{name} is not in this revision"}}}}"#
        )
    };
    let version = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
    let cases = [
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#.to_owned(), none.to_owned()),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#.to_owned(), none.to_owned()),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{}}}"#.to_owned(), missing("protocolVersion")),
        (format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"_meta":{{{version}}}}}}}"#), missing("clientCapabilities")),
        (format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"_meta":{{{}}}}}}}"#, ALL.replace("2026-07-28", "2099-01-01")), unsupported("2099-01-01")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#.to_owned(), unsupported("2025-11-25")),
        (format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"_meta":{{{ALL}}}}}}}"#), gone("ping")),
        (format!(r#"{{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{{"_meta":{{{ALL}}}}}}}"#), gone("logging/setLevel")),
        (format!(r#"{{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{{"_meta":{{{ALL}}}}}}}"#), gone("resources/subscribe")),
        (format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"_meta":{{{ALL}}},"requestState":"framewire:00112233445566778899aabbccddeeff"}}}}"#), r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"Invalid or expired requestState","data":{"reason":"invalid_request_state"}}}"#.to_owned()),
        (format!(r#"{{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{{"_meta":{{{ALL}}}}}}}"#), r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"notifications is not an object"}}"#.to_owned()),
        ("[]".to_owned(), r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"this revision has no batches"}}"#.to_owned()),
    ];
    let mut world = stateless().await;
    for (request, answer) in cases {
        world.play(&format!("c> {request}\nc< {answer}")).await;
    }
}

#[tokio::test]
async fn logs_pass_while_a_request_wants_them() {
    let log = |level: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"{level}","data":1}}}}"#
        )
    };
    let (info, error) = (log("info"), log("error"));
    let mut world = stateless().await;
    let script = format!(
        r#"s> {error}
           c> {{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","_meta":{{{ALL},"io.modelcontextprotocol/logLevel":"warning"}}}}}}
           s< {{"jsonrpc":"2.0","id":"$0","method":"logging/setLevel","params":{{"level":"warning"}}}}
           s< {{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","_meta":{{}}}}}}
           s> {{"jsonrpc":"2.0","id":"$0","result":{{}}}}
           s> {info}
           s> {error}
           c< {error}
           c> {{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{{"name":"t","_meta":{{{ALL},"io.modelcontextprotocol/logLevel":"warning"}}}}}}
           s< {{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{{"name":"t","_meta":{{}}}}}}
           s> {{"jsonrpc":"2.0","id":1,"result":{{}}}}
           c< {{"jsonrpc":"2.0","id":1,"result":{{"resultType":"complete"}}}}
           s> {{"jsonrpc":"2.0","id":2,"result":{{}}}}
           c< {{"jsonrpc":"2.0","id":2,"result":{{"resultType":"complete"}}}}
           s> {error}"#
    );
    world.play(&script).await;
}

#[tokio::test]
async fn streams_are_served_from_notifications() {
    let mut world = stateless().await;
    let tag = |id: &str| format!(r#""io.modelcontextprotocol/subscriptionId":{id}"#);
    let (a, b) = (tag("\"a\""), tag("2"));
    let script = format!(
        r#"s> {{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}}
           c> {{"jsonrpc":"2.0","id":"a","method":"subscriptions/listen","params":{{"_meta":{{{ALL}}},"notifications":{{"toolsListChanged":true,"promptsListChanged":true,"resourceSubscriptions":["x:1","x:1","x:2"]}}}}}}
           c< {{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"_meta":{{{a}}},"notifications":{{"toolsListChanged":true,"resourceSubscriptions":["x:1","x:2"]}}}}}}
           s< {{"jsonrpc":"2.0","id":"$0","method":"resources/subscribe","params":{{"uri":"x:1"}}}}
           s< {{"jsonrpc":"2.0","id":"$1","method":"resources/subscribe","params":{{"uri":"x:2"}}}}
           s> {{"jsonrpc":"2.0","id":"$0","result":{{}}}}
           s> {{"jsonrpc":"2.0","id":"$1","result":{{}}}}
           c> {{"jsonrpc":"2.0","id":2,"method":"subscriptions/listen","params":{{"_meta":{{{ALL}}},"notifications":{{"resourceSubscriptions":["x:1"]}}}}}}
           c< {{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"_meta":{{{b}}},"notifications":{{"resourceSubscriptions":["x:1"]}}}}}}
           s> {{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}}
           c< {{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{"_meta":{{{a}}}}}}}
           s> {{"jsonrpc":"2.0","method":"notifications/prompts/list_changed","params":{{}}}}
           s> {{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"x:1","n":9007199254740993}}}}
           c< {{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"_meta":{{{a}}},"uri":"x:1","n":9007199254740993}}}}
           c< {{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"_meta":{{{b}}},"uri":"x:1","n":9007199254740993}}}}
           s> {{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"x:2","_meta":{{"k":0}}}}}}
           c< {{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"x:2","_meta":{{{a},"k":0}}}}}}
           c> {{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":"a"}}}}
           s< {{"jsonrpc":"2.0","id":"$2","method":"resources/unsubscribe","params":{{"uri":"x:2"}}}}
           s> {{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}}
           c> {{"jsonrpc":"2.0","id":3,"method":"subscriptions/listen","params":{{"_meta":{{{ALL}}},"notifications":{{"promptsListChanged":true}}}}}}
           c< {{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":3}},"notifications":{{}}}}}}
           c< {{"jsonrpc":"2.0","id":3,"result":{{"resultType":"complete","_meta":{{"io.modelcontextprotocol/subscriptionId":3}}}}}}"#
    );
    world.play(&script).await;
    // The server ends, and so do the streams.
    poll_fn(|cx| world.server.poll_close(cx)).await.unwrap();
    assert_eq!(
        world.at_client().await,
        r#"{"jsonrpc":"2.0","id":2,"result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/subscriptionId":2}}}"#
    );
    assert!(timeout(LIMIT, world.middle.receive()).await.unwrap().is_err());
}

#[tokio::test]
async fn what_a_server_with_sessions_asks_becomes_a_result() {
    let mut world = stateless().await;
    let script = format!(
        r#"s> {{"jsonrpc":"2.0","id":0,"method":"roots/list"}}
           s< {{"jsonrpc":"2.0","id":0,"error":{{"code":-32601,"message":"no call under way whose client can be asked that"}}}}
           s> {{"jsonrpc":"2.0","id":1,"method":"ping"}}
           s< {{"jsonrpc":"2.0","id":1,"result":{{}}}}
           c> {{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","_meta":{{{ALL}}}}}}}
           s< {{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","_meta":{{}}}}}}
           s> {{"jsonrpc":"2.0","id":2,"method":"elicitation/create","params":{{"message":"m"}}}}
           c< {{"jsonrpc":"2.0","id":1,"result":{{"resultType":"input_required","inputRequests":{{"input-1":{{"method":"elicitation/create","params":{{"message":"m"}}}}}},"requestState":"$0"}}}}
           s> {{"jsonrpc":"2.0","id":3,"method":"sampling/createMessage","params":{{"maxTokens":9007199254740993}}}}
           s> {{"jsonrpc":"2.0","id":4,"method":"roots/list"}}
           s< {{"jsonrpc":"2.0","id":4,"error":{{"code":-32601,"message":"no call under way whose client can be asked that"}}}}
           c> {{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{{"name":"t","_meta":{{{ALL}}},"requestState":"$0","inputResponses":{{"input-1":{{"action":"accept","content":{{"n":9007199254740993}}}}}}}}}}
           s< {{"jsonrpc":"2.0","id":2,"result":{{"action":"accept","content":{{"n":9007199254740993}}}}}}
           c< {{"jsonrpc":"2.0","id":5,"result":{{"resultType":"input_required","inputRequests":{{"input-2":{{"method":"sampling/createMessage","params":{{"maxTokens":9007199254740993}}}}}},"requestState":"$1"}}}}
           c> {{"jsonrpc":"2.0","id":6,"method":"tools/call","params":{{"name":"t","_meta":{{{ALL}}},"requestState":"$1","inputResponses":{{"input-2":{{"role":"assistant"}}}}}}}}
           s< {{"jsonrpc":"2.0","id":3,"result":{{"role":"assistant"}}}}
           s> {{"jsonrpc":"2.0","id":1,"result":{{"content":[]}}}}
           c< {{"jsonrpc":"2.0","id":6,"result":{{"resultType":"complete","content":[]}}}}"#
    );
    world.play(&script).await;
    // Progress has the token of the round it comes in.
    let progress = |token: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
        )
    };
    let (first, second) = (progress("\"a\""), progress("9"));
    let script = format!(
        r#"c> {{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{{"name":"t","_meta":{{{ALL},"progressToken":"a"}}}}}}
           s< {{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{{"name":"t","_meta":{{"progressToken":"a"}}}}}}
           s> {first}
           c< {first}
           s> {{"jsonrpc":"2.0","id":2,"method":"elicitation/create","params":{{}}}}
           c< {{"jsonrpc":"2.0","id":8,"result":{{"resultType":"input_required","inputRequests":{{"input-1":{{"method":"elicitation/create","params":{{}}}}}},"requestState":"$0"}}}}
           c> {{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{{"name":"t","_meta":{{{ALL},"progressToken":9}},"requestState":"$0","inputResponses":{{"input-1":{{}}}}}}}}
           s< {{"jsonrpc":"2.0","id":2,"result":{{}}}}
           s> {first}
           c< {second}
           s> {{"jsonrpc":"2.0","id":8,"result":{{}}}}
           c< {{"jsonrpc":"2.0","id":9,"result":{{"resultType":"complete"}}}}
           s> {first}
           c< {first}"#
    );
    world.play(&script).await;
    // The server does not wait for it.
    let script = format!(
        r#"c> {{"jsonrpc":"2.0","id":11,"method":"tools/call","params":{{"name":"t","_meta":{{{ALL}}}}}}}
           s< {{"jsonrpc":"2.0","id":11,"method":"tools/call","params":{{"name":"t","_meta":{{}}}}}}
           s> {{"jsonrpc":"2.0","id":12,"method":"elicitation/create","params":{{"message":"m"}}}}
           c< {{"jsonrpc":"2.0","id":11,"result":{{"resultType":"input_required","inputRequests":{{"input-1":{{"method":"elicitation/create","params":{{"message":"m"}}}}}},"requestState":"$0"}}}}
           s> {{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":12}}}}
           s> {{"jsonrpc":"2.0","id":11,"result":{{"isError":true}}}}
           c> {{"jsonrpc":"2.0","id":13,"method":"tools/call","params":{{"name":"t","_meta":{{{ALL}}},"requestState":"$0","inputResponses":{{}}}}}}
           c< {{"jsonrpc":"2.0","id":13,"result":{{"resultType":"complete","isError":true}}}}"#
    );
    world.play(&script).await;
    // The client gives up: the server's request is refused and the call cancelled.
    let script = format!(
        r#"c> {{"jsonrpc":"2.0","id":21,"method":"tools/call","params":{{"name":"t","_meta":{{{ALL}}}}}}}
           s< {{"jsonrpc":"2.0","id":21,"method":"tools/call","params":{{"name":"t","_meta":{{}}}}}}
           s> {{"jsonrpc":"2.0","id":22,"method":"elicitation/create","params":{{"message":"m"}}}}
           c< {{"jsonrpc":"2.0","id":21,"result":{{"resultType":"input_required","inputRequests":{{"input-1":{{"method":"elicitation/create","params":{{"message":"m"}}}}}},"requestState":"$0"}}}}
           c> {{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":21}}}}
           s< {{"jsonrpc":"2.0","id":22,"error":{{"code":-32600,"message":"the client did not come back"}}}}
           s< {{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":21}}}}"#
    );
    world.play(&script).await;
}

#[tokio::test]
async fn a_client_may_come_back_on_another_connection() {
    let cache = cache(Era::Sessions);
    let mut first = World::new(&cache);
    first.middle = first.middle.resumable();
    let call = format!(
        r#"c> {{"jsonrpc":"2.0","id":0,"method":"tools/call","params":{{"name":"t","_meta":{{{ALL}}}}}}}"#
    );
    first
        .play(&format!(
            r#"{call}
               s< {{"jsonrpc":"2.0","id":"framewire-era-1","method":"initialize","params":{{"protocolVersion":"2025-11-25","capabilities":{{"sampling":{{}},"elicitation":{{}}}},"clientInfo":{{"name":"framewire","version":"{}"}}}}}}
               s> {{"jsonrpc":"2.0","id":"framewire-era-1","result":{GREETING}}}
               s< {{"jsonrpc":"2.0","method":"notifications/initialized"}}
               s< {{"jsonrpc":"2.0","id":0,"method":"tools/call","params":{{"name":"t","_meta":{{}}}}}}"#,
            env!("CARGO_PKG_VERSION")
        ))
        .await;
    // The client has sent its one request.
    poll_fn(|cx| first.middle.poll_close_sending(cx)).await.unwrap();
    first
        .server
        .send(br#"{"jsonrpc":"2.0","id":2,"method":"elicitation/create","params":{}}"#)
        .await
        .unwrap();
    let result = first.at_client().await;
    let state = result.split_once("requestState\":").unwrap().1.split('}').next().unwrap().to_owned();
    assert!(timeout(LIMIT, first.middle.receive()).await.unwrap().is_err(), "there is nothing to wait for");
    poll_fn(|cx| first.middle.poll_close(cx)).await.unwrap();
    assert_eq!(cache.waiting(), 1);
    drop(first.middle);

    let (near, _other) = MemoryTransport::pair();
    let mut second = World {
        middle: Translated::new(near, cache.clone()).resumable(),
        server: first.server,
        inbox: VecDeque::new(),
    };
    second
        .play(&format!(
            r#"c> {{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","_meta":{{{ALL}}},"requestState":{state},"inputResponses":{{"input-1":{{"action":"decline"}}}}}}}}
               s< {{"jsonrpc":"2.0","id":2,"result":{{"action":"decline"}}}}
               s> {{"jsonrpc":"2.0","id":0,"result":{{}}}}
               c< {{"jsonrpc":"2.0","id":1,"result":{{"resultType":"complete"}}}}"#
        ))
        .await;
    assert_eq!(cache.waiting(), 0);
    poll_fn(|cx| second.middle.poll_close(cx)).await.unwrap();
    assert_eq!(cache.waiting(), 0);
}

#[tokio::test]
async fn streams_end_with_what_their_client_says_though_the_server_goes_on() {
    let mut world = stateless().await;
    world.middle = world.middle.resumable();
    let tag = r#""io.modelcontextprotocol/subscriptionId":"a""#;
    let script = format!(
        r#"c> {{"jsonrpc":"2.0","id":"a","method":"subscriptions/listen","params":{{"_meta":{{{ALL}}},"notifications":{{"toolsListChanged":true}}}}}}
           c< {{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"_meta":{{{tag}}},"notifications":{{"toolsListChanged":true}}}}}}"#
    );
    world.play(&script).await;
    poll_fn(|cx| world.middle.poll_close_sending(cx)).await.unwrap();
    let over =
        format!(r#"{{"jsonrpc":"2.0","id":"a","result":{{"resultType":"complete","_meta":{{{tag}}}}}}}"#);
    assert_eq!(world.at_client().await, over);
    assert!(timeout(LIMIT, world.middle.receive()).await.unwrap().is_err());
}

/// The handshake in the name of a client that said nothing of itself.
fn handshake() -> String {
    format!(
        r#"s< {{"jsonrpc":"2.0","id":"$9","method":"initialize","params":{{"protocolVersion":"2025-11-25","capabilities":{{"sampling":{{}},"elicitation":{{}}}},"clientInfo":{{"name":"framewire","version":"{}"}}}}}}
           s> {{"jsonrpc":"2.0","id":"$9","result":{GREETING}}}
           s< {{"jsonrpc":"2.0","method":"notifications/initialized"}}"#,
        env!("CARGO_PKG_VERSION")
    )
}

const CALL: &str = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"t","_meta":{ALL}}}"#;
const STRIPPED: &str = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"t","_meta":{}}}"#;
const PROBE: &str = r#"{"jsonrpc":"2.0","id":"$0","method":"server/discover","params":{"_meta":{ALL}}}"#;
const DISCOVER: &str = r#"{"jsonrpc":"2.0","id":5,"method":"server/discover","params":{"_meta":{ALL}}}"#;
const NO_METHOD: &str = r#"{"code":-32601,"message":"no"}"#;
const ONLY_STATELESS: &str =
    r#"{"code":-32022,"message":"no","data":{"supported":["2026-07-28"],"requested":"2025-06-18"}}"#;

#[tokio::test(start_paused = true)]
async fn nobody_is_waited_for_for_ever() {
    let cache = cache(Era::Sessions);
    let mut world = World::new(&cache);
    world.middle = world.middle.resumable();
    world.play(&format!("c> {CALL}\n{}\ns< {STRIPPED}", handshake()).replace("ALL", ALL)).await;
    world
        .server
        .send(br#"{"jsonrpc":"2.0","id":2,"method":"elicitation/create","params":{}}"#)
        .await
        .unwrap();
    world.at_client().await;
    poll_fn(|cx| world.middle.poll_close(cx)).await.unwrap();
    assert_eq!(cache.waiting(), 1);
    // The connection is closed when its time is up.
    assert!(timeout(Duration::from_secs(3600), world.server.receive()).await.unwrap().is_err());
    assert_eq!(cache.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_eras_are_found_out() {
    let discovered = |id: &str| format!(r#"s> {{"jsonrpc":"2.0","id":{id},"result":{DISCOVERY}}}"#);
    let failed = |id: &str, error: &str| format!(r#"s> {{"jsonrpc":"2.0","id":{id},"error":{error}}}"#);
    let handshake = handshake();
    let hello_probe = PROBE.replace("ALL", META);
    let cases: [(&str, Option<Era>, String, Option<Era>); 13] = [
        // A client with sessions.
        (
            "initialize passes to a server with sessions, and so does all the rest",
            None,
            format!("c> {HELLO}\ns< {HELLO}\ns> {WELCOME}\nc< {WELCOME}\nc> {STRIPPED}\ns< {STRIPPED}"),
            Some(Era::Sessions),
        ),
        (
            "what a server sends before its answer passes too",
            None,
            format!("c> {HELLO}\ns< {HELLO}\ns> {{}}\nc< {{}}\ns> {WELCOME}\nc< {WELCOME}"),
            Some(Era::Sessions),
        ),
        (
            "a stateless server refuses initialize, and is asked what it is",
            None,
            format!(
                "c> {HELLO}\ns< {HELLO}\n{}\ns< {hello_probe}\n{}\nc< {WELCOME}",
                failed("0", ONLY_STATELESS),
                discovered("\"$0\"")
            ),
            Some(Era::Stateless),
        ),
        (
            "a server that refuses both has the refusal passed on",
            None,
            format!(
                "c> {HELLO}\ns< {HELLO}\n{}\ns< {hello_probe}\n{}\nc< {}",
                failed("0", NO_METHOD),
                failed("\"$0\"", NO_METHOD),
                &failed("0", NO_METHOD)[3..]
            ),
            None,
        ),
        (
            "and so has one that is silent",
            None,
            format!(
                "c> {HELLO}\ns< {HELLO}\n{}\ns< {hello_probe}\nc< {}",
                failed("0", NO_METHOD),
                &failed("0", NO_METHOD)[3..]
            ),
            None,
        ),
        (
            "what comes before initialize passes",
            None,
            format!("c> {STRIPPED}\ns< {STRIPPED}\nc> {HELLO}\ns< {HELLO}\ns> {WELCOME}\nc< {WELCOME}"),
            Some(Era::Sessions),
        ),
        // A stateless client.
        (
            "a stateless server answers the probe, and gets the request as it is",
            None,
            format!("c> {CALL}\ns< {PROBE}\n{}\ns< {CALL}", discovered("\"$0\"")),
            Some(Era::Stateless),
        ),
        (
            "the client's own server/discover is the probe",
            None,
            format!("c> {DISCOVER}\ns< {DISCOVER}\n{}\nc< {}", discovered("5"), &discovered("5")[3..]),
            Some(Era::Stateless),
        ),
        (
            "any other error means sessions",
            None,
            format!("c> {CALL}\ns< {PROBE}\n{}\n{handshake}\ns< {STRIPPED}", failed("\"$0\"", NO_METHOD)),
            Some(Era::Sessions),
        ),
        (
            "and so does a result that names old revisions only",
            None,
            format!(
                "c> {CALL}\ns< {PROBE}\n{}\n{handshake}\ns< {STRIPPED}",
                discovered("\"$0\"").replace("2026-07-28", "2025-11-25")
            ),
            Some(Era::Sessions),
        ),
        (
            "a stateless server of another revision is one all the same",
            None,
            format!(
                "c> {CALL}\ns< {PROBE}\n{}\ns< {CALL}",
                failed("\"$0\"", &ONLY_STATELESS.replace("2026-07-28", "2027-01-01"))
            ),
            Some(Era::Stateless),
        ),
        (
            "silence means sessions, unless initialize is refused",
            None,
            format!(
                "c> {CALL}\ns< {PROBE}\n{}\n{}\ns< {}\n{}\ns< {CALL}",
                handshake.lines().next().unwrap().replace("$9", "$1"),
                failed("\"$1\"", ONLY_STATELESS),
                PROBE.replace("$0", "$3"),
                discovered("\"$3\"")
            ),
            Some(Era::Stateless),
        ),
        (
            "what is known is not asked for",
            Some(Era::Stateless),
            format!("c> {CALL}\ns< {CALL}"),
            Some(Era::Stateless),
        ),
    ];
    for (name, known, script, found) in cases {
        println!("{name}");
        let cache = EraCache::new();
        if let Some(known) = known {
            cache.set_server(known);
        }
        let mut world = World::new(&cache);
        world.play(&script.replace("ALL", ALL)).await;
        assert_eq!(cache.server(), found, "{name}");
    }
}

#[tokio::test]
async fn a_server_that_dies_of_the_probe_is_not_asked_again() {
    let cache = EraCache::new();
    let mut world = World::new(&cache);
    world.play(&format!("c> {CALL}\ns< {PROBE}").replace("ALL", ALL)).await;
    poll_fn(|cx| world.server.poll_close(cx)).await.unwrap();
    assert!(timeout(LIMIT, world.middle.receive()).await.unwrap().is_err());
    let mut world = World::new(&cache);
    world.play(&format!("c> {CALL}\n{}\ns< {STRIPPED}", handshake()).replace("ALL", ALL)).await;
}

#[tokio::test]
async fn a_client_that_leaves_early_is_still_served() {
    // While the server is asked what it is: the request goes out all the same, then the end.
    let cache = EraCache::new();
    let mut world = World::new(&cache);
    world.play(&format!("c> {CALL}\ns< {PROBE}").replace("ALL", ALL)).await;
    let answer = format!(r#"{{"jsonrpc":"2.0","id":"framewire-era-1","result":{DISCOVERY}}}"#);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(world.middle.poll_close_sending(&mut cx).is_pending());
    world.server.send(answer.as_bytes()).await.unwrap();
    assert!(matches!(world.middle.poll_close_sending(&mut cx), Poll::Ready(Ok(()))));
    assert_eq!(world.server.receive().await.unwrap(), CALL.replace("ALL", ALL).as_bytes());
    assert!(world.server.receive().await.is_err());
    world.server.send(b"{}").await.unwrap();
    assert_eq!(world.middle.receive().await.unwrap(), b"{}");
    // While initialize is under way nothing is held back.
    let mut world = World::new(&EraCache::new());
    world.play(&format!("c> {HELLO}\ns< {HELLO}")).await;
    assert!(matches!(world.middle.poll_close_sending(&mut cx), Poll::Ready(Ok(()))));
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_bounded() {
    let config = EraConfig::default();
    assert!(config.probe_timeout < config.handshake_timeout);
    let mut world = World::new(&EraCache::new());
    world.middle.send(CALL.replace("ALL", ALL).as_bytes()).await.unwrap();
    let more = format!(r#"{{"jsonrpc":"2.0","method":"n","params":"{}"}}"#, "x".repeat(1000));
    let mut cx = Context::from_waker(Waker::noop());
    let mut taken = 0;
    while world.middle.poll_ready(&mut cx).is_ready() {
        world.middle.start_send(more.as_bytes()).unwrap();
        taken += 1;
        assert!(taken < 2000);
    }
    // Of pings nobody takes the answers to, too.
    let mut world = session().await;
    let mut taken = 0;
    while world.middle.poll_ready(&mut cx).is_ready() {
        world.middle.start_send(br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).unwrap();
        taken += 1;
        assert!(taken < 20_000);
    }
    assert!(taken > 100);
    assert_eq!(world.at_client().await, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
}
