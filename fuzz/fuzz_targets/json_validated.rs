//! Validation on newline and length framing, however the stream is cut: a message comes through exactly when a naive
//! reader finds it to be JSON. Input: two sizes of pieces, then the stream.
#![no_main]

#[path = "../../tests/support/json_oracle.rs"]
mod json_oracle;
#[path = "../../tests/support/oracle.rs"]
mod oracle;

use framewire::{
    codec::{Codec, LengthPrefix, Newline, Unterminated, Validated},
    error::Fault,
};
use libfuzzer_sys::fuzz_target;
use oracle::{Outcome, cut, run};

/// What validation makes of what the framing alone gives.
fn judged(outcomes: Vec<Outcome>) -> Vec<Outcome> {
    let judge = |outcome| match outcome {
        Outcome::Frame(bytes) => match json_oracle::check(&bytes) {
            Ok(()) => Outcome::Frame(bytes),
            Err(invalid) => Outcome::Fault(Fault::InvalidJson { at: invalid.at, reason: invalid.reason }),
        },
        other => other,
    };
    outcomes.into_iter().map(judge).collect()
}

fuzz_target!(|input: &[u8]| {
    let Some((&[a, b], stream)) = input.split_first_chunk::<2>() else { return };
    let sizes = [a, b].map(usize::from);
    let (mut decoder, _) = Validated::new(Newline::new()).split();
    let plain = oracle::lines(stream, usize::MAX, false, Unterminated::Deliver);
    assert_eq!(run(&mut decoder, cut(stream, &sizes)).outcomes, judged(plain));

    let length = || LengthPrefix::new().width(1);
    let (mut decoder, _) = Validated::new(length()).split();
    let mut plain = judged(run(&mut length(), [stream]).outcomes);
    let mut outcomes = run(&mut decoder, cut(stream, &sizes)).outcomes;
    // A last message that is cut off may have been bad before.
    if let Some(Outcome::Fault(Fault::Truncated { .. })) = plain.last() {
        plain.pop();
        outcomes.truncate(plain.len());
    }
    assert_eq!(outcomes, plain);
});
