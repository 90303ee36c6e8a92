//! Each codec against its naive oracle on streams made of what its framing trips over, cut anywhere; payloads of any
//! bytes out and back; limits one below, at, and one above.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "support/oracle.rs"]
mod oracle;

use std::io::IoSlice;

use framewire::{
    codec::{Codec, ContentLength, Embedded, Encode, Endian, LengthPrefix, Newline, Unterminated, Whole},
    error::{Fault, Rejection},
};
use oracle::{Outcome, Prefix, Run, cut, headed, lines, prefixed, run};
use proptest::{collection::vec, prelude::*, sample::select};

/// A stream glued together from `parts`.
fn stream(parts: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    vec(select(parts), 0..24).prop_map(|parts| parts.concat())
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![Just(vec![1]), Just(vec![usize::MAX]), vec(1..40_usize, 1..8)]
}

const LINES: &[&[u8]] = &[
    b"\n",
    b"\n",
    b"\n",
    b"\r\n",
    b"\r",
    b"a",
    b"bc",
    b"\xef\xbb\xbf",
    b"\xef\xbb",
    b"\xff",
    "\u{e9}".as_bytes(),
    b"{\"x\":1}",
    b"0123456789abcdef0123456789abcdef",
    b"\0",
    b"\n\n\n\n\n\n\n\n",
];

const PREFIXED: &[&[u8]] = &[
    b"\0",
    b"\0\0\0",
    b"\0\0\0\x01a",
    b"\0\0\0\x05hello",
    b"\x01\0\0\0b",
    b"\x80",
    b"\x80\x00",
    b"\x81\x01",
    b"\x03abc",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x09",
    b"0123456789",
];

const HEADED: &[&[u8]] = &[
    b"Content-Length: 0\r\n\r\n",
    b"Content-Length: 2\r\n\r\n{}",
    b"content-length:3\r\n\r\nabc",
    b"Content-Length: 02\r\n\r\n{}",
    b"Content-Length: 9\r\n\r\n012345678",
    b"Content-Length: ",
    b"CONTENT-LENGTH:",
    b"1",
    b"2",
    b"9",
    b"18",
    b"0",
    b"99999999999999999",
    b"\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b"+",
    b"\0",
    b"\x7f",
    b"x",
    b"X-Other: y\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Type: a/b; charset=utf-8\r\n",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn newline(
        bytes in stream(LINES), sizes in cuts(), limit in select(&[0, 1, 2, 3, 7, 32, 33, 1000][..]), utf8: bool, strict: bool,
    ) {
        let policy = if strict { Unterminated::Fault } else { Unterminated::Deliver };
        let mut decoder = Newline::new().max_size(limit).check_utf8(utf8).unterminated(policy).split().0;
        let Run { outcomes, kept } = run(&mut decoder, cut(&bytes, &sizes));
        prop_assert_eq!(outcomes, lines(&bytes, limit, utf8, policy));
        // The payload, a CR and a byte order mark at the most.
        prop_assert!(kept <= limit + 4, "{} kept for {}", kept, limit);
    }

    #[test]
    fn length_prefix(
        bytes in stream(PREFIXED), sizes in cuts(), limit in select(&[0, 1, 4, 5, 6, 1000][..]), width in 0..9_usize,
        little: bool, offset in 0..4_usize, counts_head: bool, adjustment in -3..4_i64,
    ) {
        let endian = if little { Endian::Little } else { Endian::Big };
        // A third of the cases with the layout that has a path of its own.
        let plain = sizes[0] % 3 == 0;
        let (width, offset, counts_head, adjustment) =
            if plain { (4, 0, false, 0) } else { (width, offset, counts_head, adjustment) };
        let codec = LengthPrefix::new().offset(offset).counts_head(counts_head).adjustment(adjustment).max_size(limit);
        let codec = if width == 0 { codec.leb128() } else { codec.width(width).endian(endian) };
        let endian = if width == 0 { Endian::Big } else { endian };
        let prefix = Prefix { width: (width > 0).then_some(width), endian, offset, counts_head, adjustment };
        let Run { outcomes, kept } = run(&mut codec.split().0, cut(&bytes, &sizes));
        prop_assert_eq!(outcomes, prefixed(&bytes, limit, prefix));
        prop_assert!(kept <= offset + 10 + limit, "{} kept for {}", kept, limit);
    }

    #[test]
    fn content_length(bytes in stream(HEADED), sizes in cuts(), limit in select(&[0, 2, 8, 9, 1000][..]), max_head in select(&[20, 21, 22, 40, 4096][..])) {
        let mut decoder = ContentLength::new().max_size(limit).max_head_size(max_head).split().0;
        let Run { outcomes, kept } = run(&mut decoder, cut(&bytes, &sizes));
        prop_assert_eq!(outcomes, headed(&bytes, limit, max_head));
        prop_assert!(kept <= max_head + limit, "{} kept for {}", kept, limit);
    }

    #[test]
    fn whatever_is_sent_comes_back(
        payloads in vec(prop_oneof![vec(any::<u8>(), 0..80), stream(LINES)], 0..8), sizes in cuts(), split_at in 0..40_usize,
    ) {
        round(Newline::new(), &payloads, &sizes, split_at)?;
        round(LengthPrefix::new(), &payloads, &sizes, split_at)?;
        round(LengthPrefix::new().leb128().counts_head(true), &payloads, &sizes, split_at)?;
        round(LengthPrefix::new().width(2).endian(Endian::Little).offset(3).adjustment(5), &payloads, &sizes, split_at)?;
        round(ContentLength::new(), &payloads, &sizes, split_at)?;
    }

    #[test]
    fn blanks_for_line_breaks_leave_json_as_it_was(json in json(), sizes in cuts()) {
        for text in [serde_json::to_string(&json).unwrap(), serde_json::to_string_pretty(&json).unwrap().replace('\n', "\r\n") + "\n"] {
            let (mut decoder, mut encoder) = Newline::new().embedded(Embedded::Blank).split();
            let mut wire = vec![0; text.len() + encoder.overhead()];
            let written = encoder.encode(text.as_bytes(), &mut wire).unwrap();
            let outcomes = run(&mut decoder, cut(&wire[..written], &sizes)).outcomes;
            let [Outcome::Frame(payload)] = &outcomes[..] else { panic!("{outcomes:?}") };
            prop_assert_eq!(&serde_json::from_slice::<serde_json::Value>(payload).unwrap(), &json);
        }
    }
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Into::into),
        select(&["", "\n", "\\", "\"", "\\\"", "a\r\n\\\\\"b", "\u{e9}"][..]).prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            vec(("[a\n\"\\\\]{0,3}", inner), 0..4)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Sends `payloads` in both ways of writing and receives them again. What is refused has to be refusable.
fn round<C: Codec>(
    codec: C,
    payloads: &[Vec<u8>],
    sizes: &[usize],
    split_at: usize,
) -> Result<(), TestCaseError>
where
    C::Encoder: Clone,
{
    let (mut decoder, mut encoder) = codec.split();
    let (mut wire, mut sent) = (Vec::new(), Vec::new());
    for payload in payloads {
        let mut by_parts = encoder.clone();
        let mut dst = vec![0xaa; payload.len() + encoder.overhead()];
        let encoded = encoder.encode(payload, &mut dst);
        let (left, right) = payload.split_at(split_at.min(payload.len()));
        let wrapped = by_parts.wrap(&[IoSlice::new(left), IoSlice::new(right)]);
        match encoded {
            Ok(written) => {
                let wrap = wrapped.unwrap().expect("untouched");
                prop_assert_eq!(&dst[..written], &[wrap.head(), payload, wrap.tail()].concat()[..]);
                wire.extend_from_slice(&dst[..written]);
                sent.push(Outcome::Frame(payload.clone()));
            }
            Err(rejection) => {
                match &rejection {
                    Rejection::Empty => prop_assert!(payload.is_empty()),
                    Rejection::ByteOrderMark => {
                        prop_assert!(sent.is_empty() && payload.starts_with(b"\xef\xbb\xbf"))
                    }
                    Rejection::EmbeddedDelimiter { at } => {
                        let found = payload.iter().position(|&byte| byte == b'\n');
                        prop_assert!(found == Some(*at) || (found.is_none() && payload.ends_with(b"\r")));
                    }
                    other => panic!("{other}"),
                }
                prop_assert_eq!(wrapped, Err(rejection));
            }
        }
    }
    prop_assert_eq!(run(&mut decoder, cut(&wire, sizes)).outcomes, sent);
    Ok(())
}

/// Payloads of one byte less than the limit, as much, and one byte more: both directions.
fn at_the_limit<C: Codec + Clone>(limited: impl Fn(usize, usize) -> C) {
    for limit in [1, 2, 15, 16, 17, 127, 128, 129, 1023, 1024, 1025, 5000] {
        for size in [limit - 1, limit, limit + 1].into_iter().filter(|&size| size > 0) {
            let payload = vec![b'x'; size];
            let mut wire = vec![0; size + 64];
            let mut encode = |max| limited(0, max).split().1.encode(&payload, &mut wire);
            let refused = Err(Rejection::TooLarge { size, limit });
            assert_eq!(encode(limit).is_ok(), size <= limit);
            assert!(size <= limit || encode(limit) == refused);
            let written = encode(usize::MAX).unwrap();
            for pieces in [1, 7, usize::MAX] {
                let outcomes =
                    run(&mut limited(limit, 0).split().0, cut(&wire[..written], &[pieces])).outcomes;
                assert_eq!(
                    outcomes,
                    [if size <= limit {
                        Outcome::Frame(payload.clone())
                    } else {
                        Outcome::Fault(Fault::TooLarge { size: size as u64, limit })
                    }]
                );
            }
        }
    }
}

#[test]
fn limits_are_exact_and_apart() {
    at_the_limit(|decode, encode| Newline::new().max_decode_size(decode).max_encode_size(encode));
    at_the_limit(|decode, encode| LengthPrefix::new().max_decode_size(decode).max_encode_size(encode));
    at_the_limit(|decode, encode| {
        LengthPrefix::new().leb128().max_decode_size(decode).max_encode_size(encode)
    });
    at_the_limit(|decode, encode| ContentLength::new().max_decode_size(decode).max_encode_size(encode));
    at_the_limit(|decode, encode| Whole::new().max_decode_size(decode).max_encode_size(encode));
}
