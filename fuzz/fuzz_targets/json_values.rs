//! A stream of JSON values against a naive decoder, however the stream is cut; and whatever the encoder accepts comes
//! back. Input: limit, three sizes of pieces, 0 for all that is left, then the stream.
#![no_main]

#[path = "../../tests/support/json_oracle.rs"]
mod json_oracle;
#[path = "../../tests/support/oracle.rs"]
mod oracle;

use framewire::{
    codec::{Codec, Encode, JsonValues},
    error::Fault,
};
use json_oracle::Message;
use libfuzzer_sys::fuzz_target;
use oracle::Outcome;

fuzz_target!(|input: &[u8]| {
    let Some((&[limit, a, b, c], stream)) = input.split_first_chunk::<4>() else { return };
    let limit = usize::from(limit);
    let sizes = [a, b, c].map(|size| if size == 0 { usize::MAX } else { usize::from(size) });
    let run = oracle::run(&mut JsonValues::new().max_size(limit).split().0, oracle::cut(stream, &sizes));
    let messages: Vec<_> = run
        .outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Outcome::Frame(bytes) => Message::Value(bytes),
            Outcome::Fault(Fault::Noise { size }) => Message::Noise(size),
            Outcome::Fault(Fault::TooLarge { size, .. }) => Message::TooLarge(size as usize),
            Outcome::Fault(Fault::InvalidJson { at, reason }) => Message::Broken { at: at as usize, reason },
            Outcome::Fault(Fault::Truncated { size }) => Message::Truncated(size),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(messages, json_oracle::values(stream, limit));
    assert!(run.kept <= limit.max(2), "{} bytes kept", run.kept);

    let (mut decoder, mut encoder) = JsonValues::new().record_separators(a & 1 != 0).split();
    let mut bytes = vec![0; encoder.room(stream.len())];
    if let Ok(written) = encoder.encode(stream, &mut bytes) {
        let run = oracle::run(&mut decoder, oracle::cut(&bytes[..written], &sizes));
        let trimmed = stream.trim_ascii();
        assert_eq!(run.outcomes, [Outcome::Frame(trimmed.to_vec())]);
    }
});
