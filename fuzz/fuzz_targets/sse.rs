//! Server-sent events against a naive decoder, however the stream is cut; and whatever the encoder accepts comes back.
//! Input: limits on size and overhead, three sizes of pieces, then the stream.
#![no_main]

#[path = "../../tests/support/oracle.rs"]
mod oracle;
#[path = "../../tests/support/sse_oracle.rs"]
mod sse_oracle;

use bytes::BytesMut;
use framewire::codec::{Codec, Event, Sse};
use libfuzzer_sys::fuzz_target;
use oracle::Outcome;

fuzz_target!(|input: &[u8]| {
    let Some((&[size, overhead, a, b, c], stream)) = input.split_first_chunk::<5>() else { return };
    let (size, overhead) = (usize::from(size), usize::from(overhead));
    let (mut decoder, _) = Sse::new().max_size(size).max_overhead(overhead).split();
    let run = oracle::run(&mut decoder, oracle::cut(stream, &[a, b, c].map(usize::from)));
    let (told, retry) = sse_oracle::events(stream, size, overhead);
    let expected: Vec<Outcome> = told.iter().map(|told| told.outcome.clone()).collect();
    assert_eq!(run.outcomes, expected);
    assert_eq!(decoder.retry().map(|retry| retry.as_millis()), retry.map(u128::from));
    if let Some(last) = told.last().filter(|last| matches!(last.outcome, Outcome::Frame(_))) {
        assert_eq!(decoder.event(), last.event);
    }
    assert!(run.kept <= size + overhead + 255, "{} bytes kept", run.kept);

    // One event of three fields, split where the input says.
    let (first, rest) = stream.split_at(usize::from(a).min(stream.len()));
    let (second, data) = rest.split_at(usize::from(b).min(rest.len()));
    let event = Event { event: Some(first), id: Some(second), retry: None, data: Some(data) };
    let (mut decoder, encoder) = Sse::new().split();
    let mut wire = BytesMut::new();
    if encoder.put(&event, &mut wire).is_ok() {
        let run = oracle::run(&mut decoder, oracle::cut(&wire, &[usize::from(c)]));
        assert_eq!(run.outcomes, [Outcome::Frame(data.to_vec())]);
        assert_eq!((decoder.event(), decoder.last_event_id()), (first, second));
    } else {
        assert!(wire.is_empty());
    }
});
