//! Length-prefix framing in every layout against a naive decoder, however the stream is cut; and whatever the encoder
//! accepts comes back. Input: limit, layout, three sizes of pieces, adjustment, then the stream.
#![no_main]

#[path = "../../tests/support/oracle.rs"]
mod oracle;

use framewire::codec::{Codec, Encode, Endian, LengthPrefix};
use libfuzzer_sys::fuzz_target;
use oracle::{Outcome, Prefix};

fuzz_target!(|input: &[u8]| {
    let Some((&[limit, layout, a, b, c, adjustment], stream)) = input.split_first_chunk::<6>() else {
        return;
    };
    let limit = usize::from(limit);
    let width = usize::from(layout & 15);
    let prefix = Prefix {
        width: (1..=8).contains(&width).then_some(width),
        endian: if layout & 16 == 0 { Endian::Big } else { Endian::Little },
        offset: usize::from(layout >> 6),
        counts_head: layout & 32 != 0,
        adjustment: i64::from(adjustment as i8),
    };
    let mut codec = LengthPrefix::new()
        .offset(prefix.offset)
        .counts_head(prefix.counts_head)
        .adjustment(prefix.adjustment)
        .max_size(limit);
    codec = match prefix.width {
        Some(width) => codec.width(width).endian(prefix.endian),
        None => codec.leb128(),
    };
    let (mut decoder, mut encoder) = codec.split();
    let pieces = oracle::cut(stream, &[a, b, c].map(usize::from));
    let run = oracle::run(&mut decoder.clone(), pieces);
    assert_eq!(run.outcomes, oracle::prefixed(stream, limit, prefix));
    assert!(run.kept <= limit + 16 + 255, "{} bytes kept", run.kept);

    let mut bytes = vec![0; stream.len() + encoder.overhead()];
    if let Ok(written) = encoder.encode(stream, &mut bytes) {
        let run = oracle::run(&mut decoder, oracle::cut(&bytes[..written], &[a, b, c].map(usize::from)));
        assert_eq!(run.outcomes, [Outcome::Frame(stream.to_vec())]);
    }
});
