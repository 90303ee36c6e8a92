//! Content-Length framing against a naive decoder, however the stream is cut; and whatever the encoder accepts comes
//! back. Input: limit, limit on heads, three sizes of pieces, then the stream.
#![no_main]

#[path = "../../tests/support/oracle.rs"]
mod oracle;

use framewire::codec::{Codec, ContentLength, Encode};
use libfuzzer_sys::fuzz_target;
use oracle::Outcome;

fuzz_target!(|input: &[u8]| {
    let Some((&[limit, head, a, b, c], stream)) = input.split_first_chunk::<5>() else { return };
    let (limit, head) = (usize::from(limit), usize::from(head));
    let pieces = |bytes| oracle::cut(bytes, &[a, b, c].map(usize::from));
    let (mut decoder, _) = ContentLength::new().max_size(limit).max_head_size(head).split();
    let run = oracle::run(&mut decoder, pieces(stream));
    assert_eq!(run.outcomes, oracle::headed(stream, limit, head));
    assert!(run.kept <= limit + head + 255, "{} bytes kept", run.kept);

    let (mut decoder, mut encoder) = ContentLength::new().split();
    let mut bytes = vec![0; stream.len() + encoder.overhead()];
    if let Ok(written) = encoder.encode(stream, &mut bytes) {
        let run = oracle::run(&mut decoder, pieces(&bytes[..written]));
        assert_eq!(run.outcomes, [Outcome::Frame(stream.to_vec())]);
    }
});
