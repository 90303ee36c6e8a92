//! Both modes of the envelope on any bytes: strict tells as a naive reader does, peek agrees on what is valid, and what
//! is spliced parses to the same but for the id.
#![no_main]

#[path = "../../tests/support/json_oracle.rs"]
mod json_oracle;

use framewire::json::{Envelope, EnvelopeError};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|message: &[u8]| {
    let peek = Envelope::peek(message);
    if let Ok(envelope) = &peek {
        let _ = (envelope.name(), envelope.progress_token(), envelope.subscription_id());
        let _ = envelope.method().map(|method| method.unescape());
        envelope.elements().for_each(drop);
    }
    let strict = Envelope::strict(message);
    match (&strict, json_oracle::check(message)) {
        (Err(EnvelopeError::Invalid(invalid)), Err(expected)) => return assert_eq!(*invalid, expected),
        (Ok(_) | Err(EnvelopeError::DuplicateKey { .. }), Ok(())) => {}
        (strict, expected) => panic!("{strict:?} but {expected:?}"),
    }
    assert_eq!(format!("{peek:?}"), format!("{strict:?}"));
    let Ok(envelope) = strict else { return };
    let mut spliced = Vec::new();
    if envelope.splice(b"\"new\"", &mut spliced) {
        assert_eq!(json_oracle::check(&spliced), Ok(()));
        // serde_json refuses some numbers, lone surrogates and more than 127 levels.
        if let (Ok(Value::Object(mut before)), Ok(Value::Object(after))) =
            (serde_json::from_slice(message), serde_json::from_slice(&spliced))
        {
            before.insert("id".to_owned(), "new".into());
            assert_eq!(before, after);
        }
    }
});
