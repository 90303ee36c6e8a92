//! What names a request is exchanged, and not one byte else.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(all(feature = "json", feature = "link"))]

use framewire::{
    gateway::splice::{Exchange, Field, Fields},
    json::{Envelope, EnvelopeError},
};
use proptest::prelude::*;

const ALL: Exchange<'static> = Exchange {
    id: Some(b"\"ID\""),
    request_id: Some(b"\"REQUEST\""),
    progress_token: Some(b"77"),
    subscription_id: Some(b"\"SUB\""),
};

fn spliced(message: &str, exchange: &Exchange<'_>) -> Result<String, EnvelopeError> {
    let envelope = Envelope::peek(message.as_bytes())?;
    let mut fields = Fields::find(&envelope)?;
    fields
        .find_in_result(&envelope)
        .or_else(|error| if envelope.result().is_some() { Err(error) } else { Ok(()) })?;
    let mut out = Vec::new();
    assert!(fields.write(exchange, &mut out));
    assert_eq!(fields.pieces(exchange).size(), out.len());
    Ok(String::from_utf8(out).unwrap())
}

/// The message with `«old|new»` in it, before and after.
fn both(marked: &str) -> (String, String) {
    let (mut before, mut after) = (String::new(), String::new());
    for (index, part) in marked.split(['«', '»']).enumerate() {
        let (old, new) = if index % 2 == 0 { (part, part) } else { part.split_once('|').unwrap() };
        before.push_str(old);
        after.push_str(new);
    }
    (before, after)
}

#[test]
fn only_what_names_a_request() {
    let table = [
        // Requests: the id, and the token in _meta; whatever else is called so is data.
        r#"{"jsonrpc":"2.0","id":«1|"ID"»,"method":"x"}"#,
        r#" { "id" : «"a\"b"|"ID"» ,  "jsonrpc" : "2.0" , "method":"x", "params":{"id":1,"requestId":2,"progressToken":3} } "#,
        r#"{"params":{"a":9007199254740993,"_meta":{"progressToken":«"t"|77»,"x":1e400}},"id":«-12345678901234567890123|"ID"»,"method":"tools/call","jsonrpc":"2.0"}"#,
        r#"{"jsonrpc":"2.0","id":«1|"ID"»,"method":"x","params":{"_m\u0065ta":{"progress\u0054oken":«1.50|77»},"y":{"_meta":{"progressToken":1}}}}"#,
        r#"{"jsonrpc":"2.0","\u0069d":«1|"ID"»,"method":"x","params":[{"_meta":{"progressToken":1}}]}"#,
        // A token has to be a string or a number.
        r#"{"jsonrpc":"2.0","id":«1|"ID"»,"method":"x","params":{"_meta":{"progressToken":{"a":1}}}}"#,
        r#"{"jsonrpc":"2.0","id":«1|"ID"»,"method":"x","params":{"_meta":{"progressToken":null}}}"#,
        r#"{"jsonrpc":"2.0","id":«1|"ID"»,"method":"x","params":{"_meta":"progressToken"}}"#,
        r#"{"jsonrpc":"2.0","id":«1|"ID"»,"method":"x","params":null}"#,
        // Answers.
        r#"{"jsonrpc":"2.0","id":«1|"ID"»,"result":{"id":1,"_meta":{"progressToken":1}}}"#,
        r#"{"jsonrpc":"2.0","result":{"_meta":{"io.modelcontextprotocol/subscriptionId":«1|"SUB"»}},"id":«1|"ID"»}"#,
        r#"{"jsonrpc":"2.0","id":«1|"ID"»,"error":{"code":1,"message":"","data":{"_meta":{"io.modelcontextprotocol/subscriptionId":1}}}}"#,
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#,
        // Notifications.
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":«1|"REQUEST"»,"reason":"1"}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications\/cancelled","params":{"r\u0065questId":«"1"|"REQUEST"»}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":0.1,"progressToken":«1|77»,"_meta":{"progressToken":1}}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"requestId":1,"progressToken":1,"_meta":{"io.modelcontextprotocol\/subscriptionId":«9|"SUB"»,"subscriptionId":9}}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        // No JSON-RPC, or a batch: nothing.
        r#"{"id":{},"method":"x"}"#,
        r#"[{"jsonrpc":"2.0","id":1,"method":"x"}]"#,
        r#"17"#,
    ];
    for marked in table {
        let (before, after) = both(marked);
        assert_eq!(spliced(&before, &ALL).unwrap(), after);
        assert_eq!(spliced(&before, &Exchange::default()).unwrap(), before);
    }
}

#[test]
fn what_stands_twice_is_refused() {
    for message in [
        r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{},"_meta":{}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progressToken":1,"progressToken":2}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progressToken":1,"\u0070rogressToken":2}}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1,"requestId":1}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"_meta":{"io.modelcontextprotocol/subscriptionId":1,"io.modelcontextprotocol\/subscriptionId":1}}}"#,
    ] {
        assert!(matches!(spliced(message, &ALL), Err(EnvelopeError::DuplicateKey { .. })), "{message}");
    }
}

#[test]
fn no_room_is_nothing_written() {
    let envelope = Envelope::peek(br#"{"jsonrpc":"2.0","id":1,"method":"x"}"#).unwrap();
    let fields = Fields::find(&envelope).unwrap();
    assert_eq!(fields.get(Field::Id), Some(&b"1"[..]));
    let mut room = [0; 39];
    assert!(!fields.write(&ALL, &mut &mut room[..]));
    assert_eq!(room, [0; 39]);
    let mut room = [0; 40];
    assert!(fields.write(&ALL, &mut &mut room[..]));
    assert_eq!(&room, br#"{"jsonrpc":"2.0","id":"ID","method":"x"}"#);
}

fn escaped(name: &'static str) -> impl Strategy<Value = String> {
    prop::collection::vec(0..4_u8, name.len()).prop_map(move |how| {
        let escape = |(letter, how): (char, u8)| match how {
            0 => format!("\\u{:04x}", letter as u32),
            1 => format!("\\u{:04X}", letter as u32),
            _ => letter.to_string(),
        };
        name.chars().zip(how).map(escape).collect()
    })
}

fn blank() -> impl Strategy<Value = String> {
    "[ \t\r\n]{0,3}"
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("9007199254740993".to_owned()),
        Just("-0.10e+007".to_owned()),
        Just(r#"{"id":1,"_meta":{"progressToken":2},"":[[],{}]}"#.to_owned()),
        Just(r#""} \" \\ ,\"id\":7 é \ud83d""#.to_owned()),
        "\"[a-z{}\\[\\],:]{0,40}\"",
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[1-9][0-9]{0,30}", "\"[a-zé/]{0,80}\"", Just(r#""\"\\\u00e9""#.to_owned())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Members in any order, names in any spelling, blanks anywhere.
    #[test]
    fn any_request_however_it_is_written(
        keys in (escaped("jsonrpc"), escaped("id"), escaped("method"), escaped("params"), escaped("_meta"), escaped("progressToken")),
        blanks in prop::collection::vec(blank(), 12),
        values in prop::collection::vec(value(), 3),
        (id, token) in (name(), name()),
        order in Just(vec![0, 1, 2, 3, 4]).prop_shuffle(),
        inner in Just(vec![0, 1]).prop_shuffle(),
    ) {
        let (jsonrpc, key, method, params, meta, progress) = keys;
        let between = |index: usize| &blanks[index % blanks.len()];
        let meta = format!("\"{meta}\":{}{{\"{progress}\"{}:{}«{token}|77»}}", between(0), between(1), between(2));
        let inner: Vec<String> = inner
            .into_iter()
            .map(|part| if part == 0 { meta.clone() } else { format!("\"x\":{}", values[0]) })
            .collect();
        let members = [
            format!("\"{jsonrpc}\":{}\"2.0\"", between(3)),
            format!("\"{key}\"{}:{}«{id}|\"ID\"»", between(4), between(5)),
            format!("\"{method}\":\"tools/call\""),
            format!("\"{params}\":{}{{{}}}", between(6), inner.join(",")),
            format!("\"other\":{}", values[1]),
        ];
        let members: Vec<&str> = order.into_iter().map(|index| members[index].as_str()).collect();
        let separator = format!("{},{}", between(7), between(8));
        let marked = format!("{}{{{}{}{}}}{}", between(9), between(10), members.join(&separator), between(11), between(0));
        let (before, after) = both(&marked);
        prop_assert_eq!(spliced(&before, &ALL).unwrap(), after);
    }
}
