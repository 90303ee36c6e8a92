//! Server-sent events: the examples of WHATWG HTML §9.2.6, every cut against a naive oracle, limits one below, at and one
//! above, what the encoder refuses, and cost that grows with the stream alone.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/sse_oracle.rs"]
mod sse_oracle;

use std::{io::IoSlice, time::Duration};

use bytes::BytesMut;
use framewire::{
    codec::{Codec, Decode, Encode, Event, Sse, SseDecoder, Step},
    error::{Fault, Rejection},
    limits::{MAX_BLANK_LINES, MAX_HEAD_SIZE},
};
use oracle::{Outcome, cut, run};
use proptest::{collection::vec, prelude::*, sample::select};
use sse_oracle::{Told, events};

fn decoder(size: usize, overhead: usize) -> SseDecoder {
    Sse::new().max_size(size).max_overhead(overhead).split().0
}

/// All that comes of `pieces`, with the kinds and ids of frames.
fn told(decoder: &mut SseDecoder, pieces: &[&[u8]]) -> Vec<Told> {
    let (mut told, mut buffer) = (Vec::new(), Vec::new());
    for index in 0..=pieces.len() {
        buffer.extend_from_slice(pieces.get(index).copied().unwrap_or_default());
        loop {
            let ended = index == pieces.len();
            let step = if ended { decoder.decode_eof(&mut buffer) } else { decoder.decode(&mut buffer) };
            let (outcome, consumed) = match step.unwrap() {
                Step::Frame { payload, consumed } => (Outcome::Frame(buffer[payload].to_vec()), consumed),
                Step::Fault { fault, consumed } => (Outcome::Fault(fault), consumed),
                Step::Incomplete { consumed, .. } => {
                    buffer.drain(..consumed);
                    break;
                }
                other => panic!("{other:?}"),
            };
            let (event, id) = (decoder.event().to_vec(), decoder.last_event_id().to_vec());
            told.push(Told { outcome, event, id });
            buffer.drain(..consumed);
        }
    }
    assert!(buffer.is_empty());
    told
}

/// Kinds and ids count for frames only.
fn plain(told: Vec<Told>) -> Vec<Told> {
    let bare = |outcome| Told { outcome, event: Vec::new(), id: Vec::new() };
    told.into_iter()
        .map(|told| if matches!(told.outcome, Outcome::Frame(_)) { told } else { bare(told.outcome) })
        .collect()
}

fn agrees(stream: &[u8], size: usize, overhead: usize, sizes: &[usize]) {
    let (expected, retry) = events(stream, size, overhead);
    let mut decoder = decoder(size, overhead);
    let got = told(&mut decoder, &cut(stream, sizes));
    assert_eq!(plain(got), plain(expected), "{:?} by {sizes:?}", String::from_utf8_lossy(stream));
    assert_eq!(decoder.retry(), retry.map(Duration::from_millis));
}

fn frames(stream: &[u8]) -> Vec<String> {
    let outcomes = run(&mut Sse::new().split().0, [stream]).outcomes;
    let text = |outcome| match outcome {
        Outcome::Frame(payload) => String::from_utf8(payload).unwrap(),
        other => format!("{other:?}"),
    };
    outcomes.into_iter().map(text).collect()
}

#[test]
fn the_examples_of_the_standard() {
    assert_eq!(frames(b"data: YHOO\ndata: +2\ndata: 10\n\n"), ["YHOO\n+2\n10"]);
    let ids = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
    let told = told(&mut Sse::new().split().0, &[ids]);
    let read: Vec<_> = told.iter().map(|told| (told.outcome.clone(), &told.id[..])).collect();
    let frame = |payload: &[u8]| Outcome::Frame(payload.to_vec());
    let expected =
        [(frame(b"first event"), &b"1"[..]), (frame(b"second event"), b""), (frame(b" third event"), b"")];
    assert_eq!(read, expected);
    let truncated = format!("{:?}", Outcome::Fault(Fault::Truncated { size: 5 }));
    assert_eq!(frames(b"data\n\ndata\ndata\n\ndata:"), ["", "\n", &truncated]);
    assert_eq!(frames(b"data:test\n\ndata: test\n\n"), ["test", "test"]);
}

#[test]
fn fields_that_are_none_are_let_through_unread() {
    let stream =
        b"\xef\xbb\xbfdatas: x\n data: y\nDATA: z\nretry: 12x\nretry:\nretry: 1500\nid: a\0b\ndata: d\n\n";
    let mut decoder = Sse::new().split().0;
    let told = told(&mut decoder, &[stream]);
    assert_eq!(told, [Told { outcome: Outcome::Frame(b"d".to_vec()), event: vec![], id: vec![] }]);
    assert_eq!(decoder.retry(), Some(Duration::from_millis(1500)));
    assert_eq!(frames(b"data: a\n\n\xef\xbb\xbfdata: b\n\n"), ["a"], "a mark counts at the start only");
}

#[test]
fn an_event_without_data_is_none_but_its_id_counts_and_its_kind_does_not_last() {
    let stream = b"event: endpoint\nid: 7\n\ndata: x\n\nevent: endpoint\ndata: /m\n\n";
    let told = told(&mut Sse::new().split().0, &[stream]);
    let kinds: Vec<_> = told.iter().map(|told| (&told.event[..], &told.id[..])).collect();
    assert_eq!(kinds, [(&b""[..], &b"7"[..]), (b"endpoint", b"7")]);
}

#[test]
fn an_event_that_ends_with_cr_does_not_wait_for_what_follows() {
    let mut decoder = Sse::new().split().0;
    let mut stream = b"data: x\r\r".to_vec();
    assert_eq!(decoder.decode(&mut stream), Ok(Step::Frame { payload: 6..7, consumed: 9 }));
    let mut rest = b"\ndata: y\n\n".to_vec();
    assert_eq!(decoder.decode(&mut rest), Ok(Step::Frame { payload: 7..8, consumed: 10 }));
}

#[test]
fn every_cut_of_a_stream_agrees_with_the_oracle() {
    let stream = b"\xef\xbb\xbf:hi\r\n\r\nid: 1\r\nevent: e\rdata: ab\r\n:c\ndata\r\ndata:cd\r\r\ndata: 0123456789\n\n\
        data: 0\ndata: 1\ndata: 2\ndata: 3\ndata: 4\ndata: 5\n\nretry: 10\ndata: end\r\n\r\n\n\ndata: cut";
    for limits in [(1024, 1024), (8, 20), (5, 20), (4, 4)] {
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                let got = told(&mut decoder(limits.0, limits.1), &pieces);
                let expected = events(stream, limits.0, limits.1).0;
                assert_eq!(plain(got), plain(expected), "{limits:?} cut at {first} and {second}");
            }
            agrees(stream, limits.0, limits.1, &[first.max(1)]);
        }
    }
}

const PARTS: &[&[u8]] = &[
    b"\n",
    b"\n",
    b"\n",
    b"\n\n",
    b"\r",
    b"\r\n",
    b"\r\n\r\n",
    b":",
    b" ",
    b"data",
    b"data:",
    b"data: ",
    b"data: abc",
    b"data: {\"x\":1}\n",
    b"event: message",
    b"event:",
    b"id: 12",
    b"id",
    b"id: \0",
    b"retry: 30",
    b"retry",
    b"x",
    b"\xef\xbb\xbf",
    b"\xef\xbb",
    b"\xff",
    b"0123456789abcdef0123456789abcdef",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn streams_of_what_it_trips_over(
        parts in vec(select(PARTS), 0..32),
        size in 0..40_usize,
        overhead in 0..60_usize,
        sizes in prop_oneof![Just(vec![1]), Just(vec![usize::MAX]), vec(1..20_usize, 1..8)],
    ) {
        agrees(&parts.concat(), size, overhead, &sizes);
    }

    #[test]
    fn what_is_put_comes_back(
        data in "[^\r]{0,40}", event in "[^\r\n]{1,9}", id in "[^\r\n\0]{0,9}", millis in any::<u64>(), piece in 1..20_usize,
    ) {
        let (mut decoder, encoder) = Sse::new().split();
        let mut wire = BytesMut::new();
        let sent = Event {
            event: Some(event.as_bytes()),
            id: Some(id.as_bytes()),
            retry: Some(Duration::from_millis(millis)),
            data: Some(data.as_bytes()),
        };
        encoder.put(&sent, &mut wire).unwrap();
        let outcome = Outcome::Frame(data.clone().into_bytes());
        let expected = Told { outcome, event: event.clone().into_bytes(), id: id.clone().into_bytes() };
        prop_assert_eq!(told(&mut decoder, &cut(&wire, &[piece])), [expected]);
        prop_assert_eq!(decoder.retry(), sent.retry);
    }
}

#[test]
fn limits_hold_to_the_byte() {
    let large = |size, limit| Outcome::Fault(Fault::TooLarge { size, limit });
    let ok = Outcome::Frame(b"k".to_vec());
    for (payload, expected) in [
        ("123", Outcome::Frame(b"123".to_vec())),
        ("1234", Outcome::Frame(b"1234".to_vec())),
        ("12345", large(5, 4)),
    ] {
        for piece in [1, 3, usize::MAX] {
            let stream = format!("data: {payload}\n\ndata: k\n\n");
            let run = run(&mut decoder(4, 100), cut(stream.as_bytes(), &[piece]));
            assert_eq!(run.outcomes, [expected.clone(), ok.clone()]);
        }
    }
    // "data:abcd" and its end take ten bytes on the wire.
    for (overhead, expected) in
        [(5, large(10, 9)), (6, Outcome::Frame(b"abcd".to_vec())), (7, Outcome::Frame(b"abcd".to_vec()))]
    {
        let run = run(&mut decoder(4, overhead), cut(b"data:abcd\n\ndata:k\n\n", &[2]));
        assert_eq!(run.outcomes, [expected, ok.clone()]);
    }
    for name in ["event", "id"] {
        for (size, faulty) in [(MAX_HEAD_SIZE - 1, false), (MAX_HEAD_SIZE, false), (MAX_HEAD_SIZE + 1, true)]
        {
            let stream = format!("{name}: {}\ndata: k\n\n", "x".repeat(size));
            let expected = if faulty { large(size as u64, MAX_HEAD_SIZE) } else { ok.clone() };
            assert_eq!(run(&mut Sse::new().split().0, [stream.as_bytes()]).outcomes, [expected]);
        }
    }
    for (lines, faults) in [(MAX_BLANK_LINES - 1, 0), (MAX_BLANK_LINES, 1), (MAX_BLANK_LINES + 1, 1)] {
        let noise = vec![Outcome::Fault(Fault::Noise { size: MAX_BLANK_LINES }); faults];
        for end in ["\n", "\r", "\r\n"] {
            for piece in [1, 7, usize::MAX] {
                let stream = end.repeat(lines);
                assert_eq!(run(&mut Sse::new().split().0, cut(stream.as_bytes(), &[piece])).outcomes, noise);
            }
        }
    }
}

#[test]
fn what_is_over_the_limit_is_not_kept_and_keep_alives_go_on_for_ever() {
    let long = [b"data: ".as_slice(), &vec![b'x'; 1 << 20], b"\ndata: y\n\ndata: ok\n\n"].concat();
    let many = ["data: abcdefgh\n".repeat(1 << 14).as_bytes(), b"\ndata: ok\n\n"].concat();
    let comment = [b": ".as_slice(), &vec![b'x'; 1 << 20], b"\n\ndata: ok\n\n"].concat();
    for stream in [long, many, comment] {
        for piece in [1, 1448] {
            let run = run(&mut decoder(100, 100), cut(&stream, &[piece]));
            assert_eq!(run.outcomes.len(), 2);
            assert!(matches!(run.outcomes[0], Outcome::Fault(Fault::TooLarge { limit: 200, .. })));
            assert_eq!(run.outcomes[1], Outcome::Frame(b"ok".to_vec()));
            assert!(run.kept <= 200, "{} bytes kept", run.kept);
        }
    }
    let alive = [": ping\n".repeat(10_000).as_bytes(), &b":\n\n".repeat(10_000), b"data: ok\n\n"].concat();
    let run = run(&mut decoder(20, 20), cut(&alive, &[5]));
    assert_eq!(run.outcomes, [Outcome::Frame(b"ok".to_vec())]);
    assert!(run.kept <= 20, "{} bytes kept", run.kept);
}

/// CPU time of this thread, in ns: it goes on whatever else the machine does meanwhile.
#[cfg(unix)]
fn cpu_time() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Four times the stream may not cost sixteen times as much: one long line, and many short ones, in small pieces.
#[test]
#[cfg(unix)]
fn cost_is_linear_however_the_stream_is_cut() {
    let cost = |stream: &[u8]| {
        let once = || {
            let mut decoder = Sse::new().max_overhead(1 << 24).split().0;
            let (mut buffer, mut seen) = (stream.to_vec(), 0);
            let start = cpu_time();
            let mut frames = 0;
            while frames == 0 && seen < buffer.len() {
                seen = (seen + 16).min(buffer.len());
                match decoder.decode(&mut buffer[..seen]).unwrap() {
                    Step::Frame { .. } => frames += 1,
                    Step::Incomplete { consumed: 0, .. } => {}
                    // Once: the name before the first value.
                    Step::Incomplete { consumed, .. } => {
                        buffer.drain(..consumed);
                        seen -= consumed;
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(frames, 1);
            cpu_time() - start
        };
        (0..5).map(|_| once()).min().unwrap()
    };
    for line in ["x", "x\ndata:"] {
        let stream = |count: usize| format!("data:{}\n\n", line.repeat(count)).into_bytes();
        // Others on the machine disturb single measurements, not ten in a row.
        let linear = || cost(&stream(1 << 18)) < cost(&stream(1 << 16)) * 10;
        assert!((0..10).any(|_| linear()), "data:{line:?} over and over costs more than in proportion");
    }
}

#[test]
fn no_field_can_be_smuggled_in() {
    let (_, mut encoder) = Sse::new().max_size(4).split();
    let refused = |at| Err(Rejection::EmbeddedDelimiter { at });
    let mut dst = BytesMut::from(&b"before"[..]);
    let none = Event::default();
    for (event, expected) in [
        (Event { event: Some(b"a\nb"), ..none }, refused(1)),
        (Event { event: Some(b"\r"), ..none }, refused(0)),
        (Event { id: Some(b"12\n"), ..none }, refused(2)),
        (Event { id: Some(b"1\0"), ..none }, refused(1)),
        (Event { data: Some(b"a\rb"), ..none }, refused(1)),
        (Event { data: Some(b"\n\r"), ..none }, refused(1)),
        (Event { data: Some(b"12345"), ..none }, Err(Rejection::TooLarge { size: 5, limit: 4 })),
    ] {
        assert_eq!(encoder.put(&event, &mut dst), expected, "{event:?}");
        assert_eq!(dst, "before", "nothing was written");
    }
    let long = vec![b'x'; MAX_HEAD_SIZE + 1];
    let too_long = Err(Rejection::TooLarge { size: MAX_HEAD_SIZE + 1, limit: MAX_HEAD_SIZE });
    assert_eq!(encoder.put(&Event { id: Some(&long), ..none }, &mut dst), too_long);
    for payload in [&b"a\nb"[..], b"a\rb"] {
        assert_eq!(encoder.encode(payload, &mut [0; 32]), refused(1).map(|()| 0));
        assert_eq!(encoder.wrap(&[IoSlice::new(b""), IoSlice::new(payload)]), refused(1).map(|()| None));
    }
}

#[test]
fn the_bytes_on_the_wire() {
    let (_, mut encoder) = Sse::new().split();
    let mut dst = BytesMut::new();
    let priming =
        Event { id: Some(b"s-0"), retry: Some(Duration::from_secs(3)), data: Some(b""), event: None };
    encoder.put(&priming, &mut dst).unwrap();
    assert_eq!(dst, "id: s-0\nretry: 3000\ndata: \n\n");
    dst.clear();
    encoder
        .put(&Event { event: Some(b"endpoint"), data: Some(b"/m\n"), ..Event::default() }, &mut dst)
        .unwrap();
    assert_eq!(dst, "event: endpoint\ndata: /m\ndata: \n\n");
    let mut wire = [0; 64];
    let written = encoder.encode(b"{}", &mut wire).unwrap();
    assert_eq!(&wire[..written], b"data: {}\n\n");
    assert_eq!(written, encoder.room(2));
    let wrap = encoder.wrap(&[IoSlice::new(b"{"), IoSlice::new(b"}")]).unwrap().unwrap();
    assert_eq!((wrap.head(), wrap.tail()), (&b"data: "[..], &b"\n\n"[..]));
}
