//! Newline framing against a naive decoder, however the stream is cut; and whatever the encoder accepts comes back.
//! Input: limit, flags, three sizes of pieces, then the stream.
#![no_main]

#[path = "../../tests/support/oracle.rs"]
mod oracle;

use framewire::codec::{Codec, Embedded, Encode, Newline, Unterminated};
use libfuzzer_sys::fuzz_target;
use oracle::Outcome;

fuzz_target!(|input: &[u8]| {
    let Some((&[limit, flags, a, b, c], stream)) = input.split_first_chunk::<5>() else { return };
    let limit = usize::from(limit);
    let policy = if flags & 1 == 0 { Unterminated::Deliver } else { Unterminated::Fault };
    let utf8 = flags & 2 != 0;
    let codec = Newline::new().max_size(limit).unterminated(policy).check_utf8(utf8);
    let (mut decoder, _) = codec.split();
    let run = oracle::run(&mut decoder, oracle::cut(stream, &[a, b, c].map(usize::from)));
    assert_eq!(run.outcomes, oracle::lines(stream, limit, utf8, policy));
    // A line that is being skipped is not kept: the limit, a mark, a CR and one piece at the most.
    assert!(run.kept <= limit + 4 + 255, "{} bytes kept", run.kept);

    let embedded = if flags & 4 == 0 { Embedded::Refuse } else { Embedded::Blank };
    let (mut decoder, mut encoder) = Newline::new().embedded(embedded).split();
    let mut bytes = vec![0; stream.len() + encoder.overhead()];
    if let Ok(written) = encoder.encode(stream, &mut bytes) {
        // Accepted with a line break: it stood between tokens and is a blank now, and so is a CR beside it.
        let broken = embedded == Embedded::Blank && (stream.contains(&b'\n') || stream.ends_with(b"\r"));
        let blank = |&byte: &u8| if broken && matches!(byte, b'\n' | b'\r') { b' ' } else { byte };
        let sent: Vec<u8> = stream.iter().map(blank).collect();
        let first = b"x\n".as_slice();
        let run = oracle::run(&mut decoder, [first, &bytes[..written]]);
        assert_eq!(run.outcomes, [Outcome::Frame(b"x".to_vec()), Outcome::Frame(sent)]);
    }
});
