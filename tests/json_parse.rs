//! Parsing in place: values agree with serde_json's, nothing outside the padding is read, shared bytes stay as they are.
#![cfg(feature = "json")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "support/allocation.rs"]
mod allocation;
#[path = "support/json_suite.rs"]
mod json_suite;

use std::collections::BTreeMap;

use framewire::{
    Frame,
    error::JsonReason,
    json::{JsonParser, ParseError, Value},
    limits::{BLOCK_PADDING, MAX_JSON_DEPTH},
};
use proptest::prelude::*;
use serde_json::Value as Theirs;

fn agree(ours: Value<'_>, theirs: &Theirs) -> bool {
    match theirs {
        Theirs::Null => ours.is_null(),
        Theirs::Bool(value) => ours.as_bool() == Some(*value),
        Theirs::String(text) => ours.as_str() == Some(text),
        Theirs::Number(number) if number.is_i64() => ours.as_i64() == number.as_i64(),
        Theirs::Number(number) if number.is_u64() => ours.as_u64() == number.as_u64(),
        // The last digit may differ by how a decimal is rounded.
        Theirs::Number(number) => {
            let (ours, theirs) = (ours.as_f64().unwrap(), number.as_f64().unwrap());
            (ours - theirs).abs() <= theirs.abs() * 1e-15
        }
        Theirs::Array(elements) => {
            ours.is_array()
                && ours.len() == elements.len()
                && ours.elements().count() == elements.len()
                && ours.elements().zip(elements).all(|(ours, theirs)| agree(ours, theirs))
        }
        Theirs::Object(members) => {
            ours.is_object()
                && members.iter().all(|(name, theirs)| {
                    ours.get(name).is_some_and(|ours| agree(ours, theirs))
                        && ours.members().any(|(key, _)| key == name)
                })
        }
    }
}

/// Parses in every way there is and compares with serde_json.
fn check(message: &[u8]) {
    let theirs = serde_json::from_slice::<Theirs>(message);
    let mut parser = JsonParser::new();
    let mut frame = Frame::copy_from_slice(message);
    let in_place = parser.parse_in_place(&mut frame);
    match (&in_place, &theirs) {
        (Ok(document), Ok(theirs)) => assert!(agree(document.value(), theirs), "{}", message.escape_ascii()),
        (Err(_), Err(_)) => {}
        (ours, theirs) => panic!("{}: ours {ours:?}, theirs {theirs:?}", message.escape_ascii()),
    }
    drop(in_place);
    let frame = Frame::copy_from_slice(message);
    assert_eq!(parser.parse_copy(&frame).is_ok(), theirs.is_ok());
    assert_eq!(frame.deserialize::<Theirs>().ok(), theirs.ok(), "{}", message.escape_ascii());
    assert_eq!(frame, message, "the message stays as it is");
}

#[test]
fn agrees_with_serde_json() {
    for message in [
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a\u0064d","x":[1,-2,3.5e3,null]}}"#,
        r#""""#,
        r#""\ud83d\ude00 \\ \" \/ \b\f\n\r\t""#,
        "[]",
        "{}",
        " [ { } , [ ] , \"a\" ] \n",
        "18446744073709551615",
        "-9223372036854775808",
        "[true,false,null]",
        r#"{"a":1,"b":{"c":[{"d":"e"},2]},"f":"g"}"#,
        "",
        " ",
        "[1,]",
        "{\"a\"}",
        "{\"a\":1,}",
        "[1] x",
        "01",
        "\"\\x\"",
        "\"\u{1}\"",
        "tru",
        "\"a",
    ] {
        check(message.as_bytes());
    }
    check(b"\"\xff\"");
    check(b"\xef\xbb\xbf[]");
}

/// What the suite leaves open and becomes a value here: numbers that a float can stand for, if not to the last digit. Those
/// beyond any float, and surrogates alone, have no value; the grammar takes them (see `json_scan.rs`).
const TAKEN: &[&str] = &[
    "i_number_double_huge_neg_exp.json",
    "i_number_real_underflow.json",
    "i_number_too_big_neg_int.json",
    "i_number_too_big_pos_int.json",
    "i_number_very_big_negative_int.json",
    "i_structure_500_nested_arrays.json",
];

#[test]
fn the_test_suite() {
    for (name, bytes) in json_suite::files() {
        let mut frame = Frame::copy_from_slice(&bytes);
        let mut parser = JsonParser::new();
        let taken = parser.parse_in_place(&mut frame).is_ok();
        assert_eq!(parser.parse_copy(&bytes).is_ok(), taken, "{name}");
        match name.get(..2) {
            Some("y_") => {
                let theirs: Theirs = serde_json::from_slice(&bytes).unwrap();
                assert!(agree(parser.parse_copy(&bytes).unwrap().value(), &theirs), "{name}");
            }
            Some("n_") => assert!(!taken, "{name}"),
            _ => assert_eq!(taken, TAKEN.contains(&name.as_str()), "{name}"),
        }
    }
}

fn json() -> impl Strategy<Value = Theirs> {
    let leaf = prop_oneof![
        Just(Theirs::Null),
        any::<bool>().prop_map(Theirs::from),
        any::<i64>().prop_map(Theirs::from),
        any::<u64>().prop_map(Theirs::from),
        ".{0,40}".prop_map(Theirs::from),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Theirs::from),
            prop::collection::btree_map(".{0,8}", inner, 0..8)
                .prop_map(|members| Theirs::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn agrees_on_any_document(value in json(), cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut message = serde_json::to_vec(&value).unwrap();
        check(&message);
        check(&message[..cut.index(message.len())]);
        // A surrogate or number that one of them refuses would need several bytes to change.
        let at = cut.index(message.len());
        message[at] = byte;
        let ours = JsonParser::new().parse_copy(&message).is_ok();
        let theirs = serde_json::from_slice::<Theirs>(&message);
        if ours != theirs.is_ok() {
            let reason = theirs.err().map(|error| error.to_string());
            prop_assert!(reason.is_some_and(|reason| reason.contains("number out of range")));
        }
    }
}

#[test]
fn a_shared_frame_is_copied_and_stays_as_it_is() {
    let message = br#"{"text":"\u0041\u0042"}"#;
    let mut parser = JsonParser::new();
    let mut frame = Frame::copy_from_slice(message);
    let other = frame.clone();
    assert_eq!(parser.parse_in_place(&mut frame).unwrap().value().get("text").unwrap().as_str(), Some("AB"));
    assert_eq!((&frame, &other), (&Frame::from_static(message), &Frame::from_static(message)));
    // Alone again, it is written to; bytes that live elsewhere never are.
    drop(other);
    assert!(parser.parse_in_place(&mut frame).is_ok());
    assert_ne!(frame, message, "parsed where it lies");
    let mut still = Frame::from_static(message);
    assert!(parser.parse_in_place(&mut still).is_ok());
    assert_eq!(still, message);
}

/// Another frame on the same block, behind this one, is not written to: the padding of one is the other's message.
#[test]
fn neighbours_on_a_block_stay_as_they_are() {
    let both = Frame::copy_from_slice(br#"["\u0041"]["next"]"#);
    let (mut first, next) = (both.slice(0..10), both.slice(10..18));
    drop(both);
    let mut parser = JsonParser::new();
    assert!(parser.parse_in_place(&mut first).is_ok());
    assert_eq!((&first, &next), (&Frame::from_static(br#"["\u0041"]"#), &Frame::from_static(br#"["next"]"#)));
    drop(next);
    // The last one left may write behind itself.
    assert_eq!(
        parser.parse_in_place(&mut first).unwrap().value().elements().next().unwrap().as_str(),
        Some("A")
    );
}

#[test]
fn depth_is_limited_without_recursion() {
    let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    let mut parser = JsonParser::new();
    assert!(parser.parse_copy(&nested(MAX_JSON_DEPTH)).is_ok());
    for depth in [MAX_JSON_DEPTH + 1, 1_000_000] {
        let mut frame = Frame::copy_from_slice(&nested(depth));
        let error = parser.parse_in_place(&mut frame).unwrap_err();
        assert!(
            matches!(error, ParseError::Invalid { reason: JsonReason::TooDeep, .. }),
            "{depth}: {error:?}"
        );
    }
    assert!(parser.parse_copy(b"[]").is_ok(), "the parser is of use after an error");
}

#[test]
fn values_borrow_from_the_frame() {
    let mut parser = JsonParser::new();
    let mut frame = Frame::copy_from_slice(br#"{"a":"one","b":"t\u0077o"}"#);
    let map: BTreeMap<&str, &str> = parser.deserialize_in_place(&mut frame).unwrap();
    assert_eq!(map, BTreeMap::from([("a", "one"), ("b", "two")]));
    assert!(matches!(Frame::from_static(b"[1]").deserialize::<String>(), Err(ParseError::Content(_))));
    assert!(matches!(Frame::from_static(b"[1").deserialize::<Vec<u8>>(), Err(ParseError::Invalid { .. })));
}

#[test]
fn integers_beyond_64_bits_become_floats() {
    let mut parser = JsonParser::new();
    let digits = "1".repeat(40);
    let document = parser.parse_copy(digits.as_bytes()).unwrap();
    assert_eq!(document.value().as_f64(), digits.parse().ok());
    assert_eq!(document.value().as_i64(), None);
}

#[test]
fn the_last_of_two_equal_names_counts() {
    let mut parser = JsonParser::new();
    let document = parser.parse_copy(br#"{"a":1,"\u0061":2}"#).unwrap();
    assert_eq!(document.value().get("a").and_then(Value::as_u64), Some(2));
    assert_eq!(document.value().members().count(), 2);
}

#[test]
fn steady_state_allocates_nothing() {
    let list = format!("[{}1]", r#"{"name":"tool","n":[1,2,3],"t":"\u0041"},"#.repeat(100));
    let mut parser = JsonParser::new();
    let mut padded = vec![b' '; list.len() + BLOCK_PADDING];
    let mut parse = || {
        padded[..list.len()].copy_from_slice(list.as_bytes());
        assert_eq!(parser.parse_padded(&mut padded, list.len()).unwrap().value().len(), 101);
        assert_eq!(parser.parse_copy(list.as_bytes()).unwrap().value().len(), 101);
    };
    parse();
    assert_eq!(allocation::counted(parse).1, 0);
}

#[test]
#[should_panic = "no padding"]
fn padding_is_asserted() {
    let mut short = [b' '; BLOCK_PADDING];
    let _ = JsonParser::new().parse_padded(&mut short, 1);
}

/// The padding ends where a page begins that may not be touched: a byte read or written beyond it would end the process.
#[cfg(unix)]
#[test]
fn nothing_behind_the_padding_is_touched() {
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
    const SPACE: usize = 16 * 4096;
    const GUARD: usize = 64 * 1024;
    // SAFETY: a fresh mapping that only this test knows; the guard lies within it.
    let map = unsafe {
        let map = mmap_anonymous(
            std::ptr::null_mut(),
            SPACE + GUARD,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
        .unwrap();
        mprotect(map.add(SPACE), GUARD, MprotectFlags::empty()).unwrap();
        map
    };
    let mut parser = JsonParser::new();
    let texts: Vec<Vec<u8>> = (0..200)
        .flat_map(|len| {
            let long = "x".repeat(len);
            [
                format!("\"{long}\""),
                format!("[{}1]", "1,".repeat(len)),
                format!("{{\"{long}\":\"\\u0041{long}\"}}"),
                // Not whole: what goes on behind the end must not be believed.
                format!("\"{long}"),
                format!("\"{long}\\"),
                format!("[{long}"),
                "1".repeat(len + 1),
                " ".repeat(len),
            ]
        })
        .map(String::into_bytes)
        .collect();
    for text in &texts {
        for filling in [b' ', b'"', b'\\', b'1', 0xFF] {
            let size = text.len() + BLOCK_PADDING;
            // SAFETY: within the mapping, before the guard, and nobody else has it.
            let padded = unsafe { std::slice::from_raw_parts_mut(map.cast::<u8>().add(SPACE - size), size) };
            padded.fill(filling);
            padded[..text.len()].copy_from_slice(text);
            let valid = serde_json::from_slice::<Theirs>(text).is_ok();
            let ours = parser.parse_padded(padded, text.len());
            assert_eq!(ours.is_ok(), valid, "{} with {filling:#x} behind", text.escape_ascii());
        }
    }
    // SAFETY: mapped above, and no slice of it is left.
    unsafe { munmap(map, SPACE + GUARD).unwrap() };
}
