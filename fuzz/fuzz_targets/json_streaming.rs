//! The streaming parser against a naive decoder and a naive reader, however the stream is cut: each message comes out as
//! it was or is refused for what is wrong with it, and nothing is lost. Input: limit, two sizes of pieces with a bit for
//! strictness, then the stream.
#![no_main]

#[path = "../../tests/support/json_oracle.rs"]
mod json_oracle;

use framewire::json::{
    Envelope, EnvelopeError, Kind, ParsedMessage, StreamingConfig, StreamingError, StreamingParser,
};
use json_oracle::Message;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

type Parsed = Result<ParsedMessage, StreamingError>;

/// Whether serde_json, too, finds a message of JSON-RPC 2.0.
fn is_message(value: &Value) -> bool {
    match value {
        Value::Array(batch) => {
            !batch.is_empty() && batch.iter().all(|message| message.is_object() && is_message(message))
        }
        Value::Object(members) => {
            let has = |name| members.contains_key(name);
            let id = members.get("id");
            let id_is_fine = id.is_none_or(|id| id.is_string() || id.is_number() || id.is_null());
            let is_call =
                members.get("method").is_some_and(Value::is_string) && !has("result") && !has("error");
            let is_answer = !has("method") && has("result") != has("error") && (has("error") || has("id"));
            let params_are_fine =
                members.get("params").is_none_or(|params| params.is_object() || params.is_array());
            let error_is_fine = members.get("error").is_none_or(Value::is_object);
            members.get("jsonrpc") == Some(&"2.0".into())
                && id_is_fine
                && ((is_call && params_are_fine) || (is_answer && error_is_fine))
        }
        _ => false,
    }
}

fn judge(parsed: &Parsed, bytes: &[u8], strict: bool) {
    match parsed {
        Ok(message) => {
            assert_eq!(&**message.frame(), bytes);
            if strict {
                assert_eq!(json_oracle::check(bytes), Ok(()));
                assert_ne!(message.kind(), Kind::Other);
                if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
                    assert!(is_message(&value), "{value}");
                }
            }
        }
        Err(StreamingError::JsonError(invalid)) => {
            let expected = if strict {
                json_oracle::check(bytes).unwrap_err()
            } else {
                invalid_of(Envelope::peek(bytes))
            };
            assert_eq!(*invalid, expected);
        }
        Err(StreamingError::DuplicateKey { at }) => assert!(*at < bytes.len()),
        Err(StreamingError::NotJsonRpc) => assert!(strict && json_oracle::check(bytes).is_ok()),
        Err(other) => panic!("{other:?} of {}", bytes.escape_ascii()),
    }
}

fn invalid_of(result: Result<Envelope<'_>, EnvelopeError>) -> framewire::scan::json::Invalid {
    match result {
        Err(EnvelopeError::Invalid(invalid)) => invalid,
        other => panic!("{other:?}"),
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&[limit, a, b], stream)) = input.split_first_chunk::<3>() else { return };
    let (limit, strict) = (usize::from(limit), a & 1 != 0);
    let config = StreamingConfig::default().max_message_size(limit).strict_validation(strict);
    let mut parser = StreamingParser::new(config);
    let mut results: Vec<Parsed> = Vec::new();
    let sizes = [usize::from(a).max(1), usize::from(b).max(1)];
    let mut at = 0;
    for size in sizes.iter().cycle() {
        let end = stream.len().min(at + size);
        parser.feed(&stream[at..end]);
        at = end;
        while let Some(result) = parser.next_message().transpose() {
            results.push(result);
        }
        assert!(parser.buffer_stats().used <= limit.max(2), "{:?}", parser.buffer_stats());
        if at == stream.len() {
            break;
        }
    }
    while let Some(result) = parser.last_message().transpose() {
        results.push(result);
    }
    let expected = json_oracle::values(stream, limit);
    assert_eq!(results.len(), expected.len(), "{results:?} {expected:?}");
    for (result, expected) in results.iter().zip(&expected) {
        match (result, expected) {
            (result, Message::Value(bytes)) => judge(result, bytes, strict),
            (Err(StreamingError::Noise { size }), Message::Noise(expected)) => assert_eq!(size, expected),
            (Err(StreamingError::BufferOverflow { size, .. }), Message::TooLarge(expected)) => {
                assert_eq!(*size, *expected as u64);
            }
            (Err(StreamingError::JsonError(invalid)), Message::Broken { at, reason }) => {
                assert_eq!((invalid.at, invalid.reason), (*at as u64, *reason));
            }
            (Err(StreamingError::IncompleteMessage { size }), Message::Truncated(expected)) => {
                assert_eq!(size, expected);
            }
            (result, expected) => panic!("{result:?} {expected:?}"),
        }
    }
});
