//! No framing: a stream is one message within the limit, one fault beyond it, nothing when empty.
//! Input: limit, three sizes of pieces, then the stream.
#![no_main]

#[path = "../../tests/support/oracle.rs"]
mod oracle;

use framewire::{
    codec::{Codec, Whole},
    error::Fault,
};
use libfuzzer_sys::fuzz_target;
use oracle::Outcome;

fuzz_target!(|input: &[u8]| {
    let Some((&[limit, a, b, c], stream)) = input.split_first_chunk::<4>() else { return };
    let limit = usize::from(limit);
    let (mut decoder, _) = Whole::new().max_size(limit).split();
    let run = oracle::run(&mut decoder, oracle::cut(stream, &[a, b, c].map(usize::from)));
    let expected = match stream.len() {
        0 => vec![],
        size if size > limit => vec![Outcome::Fault(Fault::TooLarge { size: size as u64, limit })],
        _ => vec![Outcome::Frame(stream.to_vec())],
    };
    assert_eq!(run.outcomes, expected);
    assert!(run.kept <= limit);
});
