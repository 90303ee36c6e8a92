//! The envelope of a message: what it says of every kind of message, against serde_json on random ones; what it refuses;
//! that it allocates nothing; that it never panics on what is no JSON.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "json")]

#[path = "support/allocation.rs"]
mod allocation;
#[path = "support/json_oracle.rs"]
mod json_oracle;
#[path = "support/json_suite.rs"]
mod json_suite;

use framewire::{
    error::JsonReason,
    json::{Envelope, EnvelopeError, Id, Kind},
};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::Value;

/// Both modes, which have to agree on what is valid.
fn both(message: &[u8]) -> Envelope<'_> {
    let (peek, strict) = (Envelope::peek(message).unwrap(), Envelope::strict(message).unwrap());
    assert_eq!(format!("{peek:?}"), format!("{strict:?}"));
    strict
}

#[test]
fn every_kind_is_told() {
    for (message, kind) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, Kind::Request),
        (r#" { "id" : "a" , "method" : "ping" , "jsonrpc" : "2.0" } "#, Kind::Request),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, Kind::Request),
        (r#"{"jsonrpc":"2.0","method":"ping"}"#, Kind::Notification),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, Kind::Response),
        (r#"{"jsonrpc":"2.0","id":1,"result":null}"#, Kind::Response),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#, Kind::Error),
        (r#"{"jsonrpc":"2.0","id":null,"error":{}}"#, Kind::Error),
        (r#"{"jsonrpc":"2.0","error":{}}"#, Kind::Error),
        ("[]", Kind::Batch),
        (" [ 1 ] ", Kind::Batch),
        ("{}", Kind::Other),
        ("1", Kind::Other),
        (r#""{\"id\":1}""#, Kind::Other),
        (r#"{"id":1,"method":"ping"}"#, Kind::Other),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, Kind::Other),
        (r#"{"jsonrpc":"2\u002e0","id":1,"method":"ping"}"#, Kind::Request),
        (r#"{"jsonrpc":"2\u002e1","id":1,"method":"ping"}"#, Kind::Other),
        (r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#, Kind::Other),
        (r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{}}"#, Kind::Other),
        (r#"{"jsonrpc":"2.0","id":1,"result":1,"method":"ping"}"#, Kind::Other),
        (r#"{"jsonrpc":"2.0","id":1}"#, Kind::Other),
        (r#"{"jsonrpc":"2.0","result":1}"#, Kind::Other),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, Kind::Other),
        (r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#, Kind::Other),
        (r#"{"jsonrpc":"2.0","id":1,"method":1}"#, Kind::Other),
    ] {
        assert_eq!(both(message.as_bytes()).kind(), kind, "{message}");
    }
}

#[test]
fn every_part_is_found_without_allocation() {
    let message = br#" {"x":[{"id":2}], "jsonrpc":"2.0","params":{"name":"n\"}","_meta":{"progressToken":"t","io.modelcontextprotocol/subscriptionId":9},
        "requestId": -5, "a":{"name":"inner"}} , "\u0069d" : 12345678901234567890123 ,"m\u0065thod":"tools\/call"}"#;
    let ((), count, _) = allocation::counted(|| {
        for mode in [Envelope::peek, Envelope::strict] {
            let envelope = mode(message).unwrap();
            assert_eq!(envelope.kind(), Kind::Request);
            assert_eq!(envelope.id(), Id::Integer(b"12345678901234567890123"));
            let method = envelope.method().unwrap();
            assert!(method.is("tools/call") && !method.is("tools\\/call"));
            assert_eq!(method.raw(), br"tools\/call");
            assert_eq!(envelope.name().unwrap().unwrap(), br#""n\"}""#);
            assert_eq!(
                envelope.meta().unwrap().unwrap(),
                br#"{"progressToken":"t","io.modelcontextprotocol/subscriptionId":9}"#
            );
            assert_eq!(envelope.progress_token().unwrap().unwrap(), br#""t""#);
            assert_eq!(envelope.subscription_id().unwrap().unwrap(), b"9");
            assert_eq!(envelope.request_id().unwrap().unwrap(), b"-5");
            assert_eq!((envelope.result(), envelope.error()), (None, None));
            let params = envelope.params().unwrap();
            assert_eq!(message[envelope.range_of(params).unwrap()], *params);
        }
    });
    assert_eq!(count, 0);
    assert_eq!(both(message).method().unwrap().unescape().unwrap(), "tools/call");
    let progress = br#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":3}}"#;
    assert_eq!(both(progress).progress_token(), Ok(Some(&b"3"[..])));
    assert_eq!(both(b"{}").progress_token(), Ok(None));
    assert_eq!(both(br#"{"params":[1]}"#).name(), Ok(None));
}

#[test]
fn ids_of_every_type() {
    let id = |text: &str| format!(r#"{{"jsonrpc":"2.0","method":"a","id":{text}}}"#);
    for (text, integer) in [
        ("0", true),
        ("-1", true),
        ("18446744073709551616", true),
        ("1.0", false),
        ("1e3", false),
        ("true", false),
    ] {
        let message = id(text);
        match both(message.as_bytes()).id() {
            Id::Integer(digits) if integer => assert_eq!(digits, text.as_bytes()),
            Id::Other(raw) if !integer => assert_eq!(raw, text.as_bytes()),
            other => panic!("{text}: {other:?}"),
        }
    }
    let message = id(r#""\u00e9\ud83d\ude00\n""#);
    let Id::String(string) = both(message.as_bytes()).id() else { panic!() };
    assert_eq!(string.unescape().unwrap(), "\u{e9}\u{1f600}\n");
    assert!(string.is("\u{e9}\u{1f600}\n"));
    let message = id(r#""\ud800""#);
    let Id::String(lone) = both(message.as_bytes()).id() else { panic!() };
    assert_eq!(lone.unescape(), None);
    assert!(!lone.is("\u{fffd}"));
}

#[test]
fn names_that_stand_twice_are_refused() {
    for message in [
        r#"{"id":1,"id":1}"#,
        r#"{"id":1,"\u0069\u0064":2}"#,
        r#"{"method":"a","x":0,"m\u0065thod":"b"}"#,
        r#"{"params":{},"params":{}}"#,
        r#"{"jsonrpc":"2.0","jsonrpc":"2.0"}"#,
        r#"{"result":1,"result":1}"#,
        r#"{"error":1,"error":1}"#,
    ] {
        for mode in [Envelope::peek, Envelope::strict] {
            let Err(EnvelopeError::DuplicateKey { at }) = mode(message.as_bytes()) else {
                panic!("{message}")
            };
            assert!(at > message.len() / 2);
        }
    }
    let twice = br#"{"jsonrpc":"2.0","method":"a","params":{"name":1,"_meta":{},"n\u0061me":2}}"#;
    assert!(matches!(both(twice).name(), Err(EnvelopeError::DuplicateKey { .. })));
    assert_eq!(both(twice).meta(), Ok(Some(&b"{}"[..])));
}

#[test]
fn an_id_behind_a_lot() {
    for params in [
        format!("[{}1]", "{\"a\":[1,\"]\"]},".repeat(1 << 16)),
        format!("\"{}\"", "x\\\"".repeat(1 << 18)),
        format!("{}1", " \n\t\r".repeat(1 << 15)),
    ] {
        let message = format!(r#"{{"jsonrpc":"2.0","method":"a","params":{params},"id":7}}"#);
        let envelope = both(message.as_bytes());
        assert_eq!((envelope.kind(), envelope.id()), (Kind::Request, Id::Integer(b"7")));
        assert_eq!(envelope.params().unwrap(), params.trim().as_bytes());
    }
}

#[test]
fn one_limit_on_depth() {
    for (levels, fits) in [(1023, true), (1024, false)] {
        let message = format!(r#"{{"params":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        for mode in [Envelope::peek, Envelope::strict] {
            match mode(message.as_bytes()) {
                Ok(_) => assert!(fits),
                Err(EnvelopeError::Invalid(invalid)) => {
                    assert_eq!((fits, invalid.reason), (false, JsonReason::TooDeep))
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn batches_come_element_by_element() {
    let batch = br#" [ {"jsonrpc":"2.0","id":1,"method":"a"} ,{"jsonrpc":"2.0","method":"b"}, 1, [2], {"id":1,"id":2}, {"jsonrpc":"2.0","id":2,"result":{}}]"#;
    let elements: Vec<_> = both(batch).elements().collect();
    let kinds: Vec<_> = elements.iter().map(|element| element.as_ref().map(Envelope::kind)).collect();
    assert_eq!(kinds[..4], [Ok(Kind::Request), Ok(Kind::Notification), Ok(Kind::Other), Ok(Kind::Batch)]);
    assert!(matches!(kinds[4], Err(EnvelopeError::DuplicateKey { .. })));
    assert_eq!(kinds[5..], [Ok(Kind::Response)]);
    assert_eq!(elements[1].as_ref().unwrap().bytes(), br#"{"jsonrpc":"2.0","method":"b"}"#);
    assert_eq!(both(b"[]").elements().count(), 0);
    assert_eq!(both(b"{}").elements().count(), 0);
    assert_eq!(Envelope::peek(b"[1 2]").unwrap().elements().filter(Result::is_err).count(), 1);
}

#[test]
fn a_spliced_message_differs_in_its_id_alone() {
    let message = br#"{"jsonrpc":"2.0", "id" : "old" ,"method":"a","params":{"id":"old"}}"#;
    let envelope = both(message);
    let mut to = b"before ".to_vec();
    assert!(envelope.splice(b"42", &mut to));
    assert_eq!(to, br#"before {"jsonrpc":"2.0", "id" : 42 ,"method":"a","params":{"id":"old"}}"#);
    let mut small = [0; 20];
    assert!(!envelope.splice(b"42", &mut &mut small[..]));
    assert_eq!(small, [0; 20]);
    assert!(!both(br#"{"jsonrpc":"2.0","method":"a"}"#).splice(b"42", &mut to));
}

#[test]
fn the_test_suite() {
    for (name, bytes) in json_suite::files() {
        let name = name.as_str();
        let valid = json_oracle::check(&bytes);
        let nested = [&br#"{"jsonrpc":"2.0","method":"a","params":"#[..], &bytes, b"}"].concat();
        for message in [&bytes, &nested] {
            match (Envelope::strict(message), json_oracle::check(message)) {
                (Ok(_) | Err(EnvelopeError::DuplicateKey { .. }), Ok(())) => {}
                (Err(EnvelopeError::Invalid(invalid)), Err(expected)) => {
                    assert_eq!(invalid, expected, "{name}")
                }
                (strict, expected) => panic!("{name}: {strict:?} but {expected:?}"),
            }
            // Structure alone: takes all that is valid, and goes through the rest without a panic.
            if let Ok(envelope) = Envelope::peek(message) {
                let _ = (envelope.name(), envelope.progress_token(), envelope.elements().count());
            } else {
                assert!(
                    valid.is_err() || name.starts_with("n_") || json_oracle::check(message).is_err(),
                    "{name}"
                );
            }
            for cut in 0..message.len().min(300) {
                let _ = Envelope::peek(&message[..cut]).map(|envelope| envelope.elements().count());
                let _ = Envelope::strict(&message[..cut]);
            }
        }
    }
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Into::into),
        Just(Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        "[a-z\"\\\\\n]{0,90}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let name =
            select(&["id", "name", "_meta", "progressToken", "params", "method", "a", "\"", "requestId"][..]);
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((name, inner), 0..5).prop_map(|fields| fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn the_envelope_says_what_a_parser_says(
        fields in vec((select(&["id", "method", "params", "result", "error", "x", "jsonrpc"][..]), json()), 0..7),
        version: bool, pretty: bool, at in any::<prop::sample::Index>(), byte: u8,
    ) {
        let mut fields: serde_json::Map<_, _> = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        if version {
            fields.insert("jsonrpc".to_owned(), "2.0".into());
        }
        let message = Value::Object(fields.clone());
        let mut bytes = if pretty { serde_json::to_vec_pretty(&message) } else { serde_json::to_vec(&message) }.unwrap();
        let envelope = both(&bytes);
        let parsed = |part: Option<&[u8]>| part.map(|part| serde_json::from_slice::<Value>(part).unwrap());
        let param = |name: &str| fields.get("params").and_then(|params| params.get(name));
        prop_assert_eq!(parsed(envelope.raw_id()), fields.get("id").cloned());
        prop_assert_eq!(parsed(envelope.params()), fields.get("params").cloned());
        prop_assert_eq!(parsed(envelope.result()), fields.get("result").cloned());
        prop_assert_eq!(parsed(envelope.error()), fields.get("error").cloned());
        let method = envelope.method().map(|method| method.unescape().unwrap().into_owned());
        prop_assert_eq!(method.as_deref(), fields.get("method").and_then(Value::as_str));
        prop_assert_eq!(parsed(envelope.name().unwrap()), param("name").cloned());
        prop_assert_eq!(parsed(envelope.request_id().unwrap()), param("requestId").cloned());
        prop_assert_eq!(parsed(envelope.meta().unwrap()), param("_meta").cloned());
        let mut spliced = Vec::new();
        prop_assert_eq!(envelope.splice(b"\"new\"", &mut spliced), fields.contains_key("id"));
        if fields.contains_key("id") {
            let mut expected = fields.clone();
            expected.insert("id".to_owned(), "new".into());
            prop_assert_eq!(serde_json::from_slice::<Value>(&spliced).unwrap(), Value::Object(expected));
        }
        // Damaged: strict tells as the naive reader does, peek does not panic.
        let at = at.index(bytes.len());
        bytes[at] = byte;
        for part in [&bytes[..], &bytes[..at], &bytes[at..]] {
            let _ = Envelope::peek(part).map(|envelope| (envelope.name().is_ok(), envelope.elements().count()));
            match (Envelope::strict(part), json_oracle::check(part)) {
                (Err(EnvelopeError::Invalid(invalid)), Err(expected)) => prop_assert_eq!(invalid, expected),
                (Ok(_) | Err(EnvelopeError::DuplicateKey { .. }), Ok(())) => {}
                (strict, expected) => prop_assert!(false, "{:?} but {:?}", strict, expected),
            }
        }
    }
}

#[test]
fn the_usual_beginning_is_read_like_any_other() {
    let rest = [r#""id":1}"#, "}", r#" "id":1}"#, ",}", "1}", "", r#""jsonrpc":"2.0"}"#, r#""a":{}} x"#];
    for rest in rest {
        let usual = format!(r#"{{"jsonrpc":"2.0",{rest}"#);
        // The same, but for a blank, which moves all by one.
        let other = format!(r#"{{"jsonrpc":"2.0" ,{rest}"#);
        let told = |text: &str, shift: u64| match Envelope::peek(text.as_bytes()) {
            Ok(envelope) => format!("{:?} {:?}", envelope.kind(), envelope.id()),
            Err(EnvelopeError::Invalid(invalid)) => format!("{} {}", invalid.at - shift, invalid.reason),
            Err(EnvelopeError::DuplicateKey { at }) => format!("twice at {}", at as u64 - shift),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(told(&usual, 0), told(&other, 1), "{usual}");
        let blank = format!(" \n{usual}");
        assert_eq!(told(&usual, 0), told(&blank, 2), "{usual}");
    }
}
