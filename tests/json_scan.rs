//! The scanner of JSON structure and the validator: with every set of instructions, against a reader that goes byte by
//! byte, against serde_json, against the JSON test suite; whole and cut anywhere.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "json")]

#[path = "support/json_oracle.rs"]
mod json_oracle;
#[path = "support/json_suite.rs"]
mod json_suite;

use framewire::{
    error::JsonReason,
    scan::json::{Backend, Container, Invalid, Scalar, Structure, Validator},
};
use json_oracle::{check, close};
use proptest::{collection::vec, prelude::*, sample::select};

/// The container's end, found in a buffer that grows by `sizes` over and over.
fn close_in_pieces(backend: Backend, bytes: &[u8], sizes: &[usize]) -> Container {
    let mut structure = Structure::with_backend(backend);
    structure.begin(0);
    let mut there = 0;
    for size in sizes.iter().cycle() {
        there = bytes.len().min(there + size.max(&1));
        match structure.close(&bytes[..there]) {
            Container::Open if there == bytes.len() => break,
            Container::Open => {}
            found => return found,
        }
    }
    Container::Open
}

fn validate_in_pieces(backend: Backend, bytes: &[u8], sizes: &[usize]) -> Result<(), Invalid> {
    let mut validator = Validator::with_backend(backend);
    let mut sizes = sizes.iter().cycle();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((*sizes.next().unwrap()).clamp(1, rest.len()));
        if let Err(invalid) = validator.feed(piece) {
            assert_eq!(validator.feed(b"1"), Err(invalid), "it stays so");
            assert!(!validator.is_complete());
            return Err(invalid);
        }
        rest = after;
    }
    assert_eq!(validator.seen(), bytes.len() as u64);
    assert_eq!(validator.finish().is_ok(), validator.is_complete());
    validator.finish()
}

/// Both, with every backend, against the naive ones.
fn agree(bytes: &[u8], sizes: &[usize]) {
    for backend in Backend::all() {
        let name = backend.name();
        assert_eq!(
            validate_in_pieces(backend, bytes, sizes),
            check(bytes),
            "{name} {:?}",
            bytes.escape_ascii().to_string()
        );
        if matches!(bytes.first(), Some(b'{' | b'[')) {
            assert_eq!(
                close_in_pieces(backend, bytes, sizes),
                close(bytes, 0),
                "{name} {}",
                bytes.escape_ascii()
            );
        }
    }
}

const PARTS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"\\",
    b"\\\\",
    b"\\\"",
    b"\"a\"",
    b"\"a\":",
    b"{}",
    b"[]",
    b"1",
    b"0",
    b"-",
    b".",
    b"e",
    b"+",
    b"-1.5e+7",
    b"true",
    b"false",
    b"null",
    b"nul",
    b" ",
    b"\n",
    b"\r",
    b"\t",
    b"\0",
    b"\x0c",
    b"\x1a",
    b"\x1f",
    b"\\u",
    b"\\u00e9",
    b"\\ud800",
    b"\"\\u12\"",
    b"\xc3\xa9",
    b"\xc3",
    b"\xa9",
    b"\xf0\x9f\x98\x80",
    b"\xf0\x9f",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"                                                                ",
    b"\"0123456789012345678901234567890123456789012345678901234567890\"",
    b"\\\\\\\\\\\\\\",
    b"123456789",
    b"[[[[",
    b"]]]]",
    b"{\"a\":[1,{\"b\":null}]}",
    b",\"k\":\"\xc3\xa9\"",
];

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![Just(vec![1]), Just(vec![usize::MAX]), vec(1..80_usize, 1..8), Just(vec![61]), Just(vec![64])]
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        "[a-z\"\\\\\n]{0,90}".prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
            vec(("[a\n\"\\\\\u{e9}]{0,3}", inner), 0..6)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// What serde_json says, which looks neither at UTF-8 in what it ignores nor at the size of numbers.
fn serde_says(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok() && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn anything_is_read_as_byte_by_byte(parts in vec(select(PARTS), 0..24), sizes in cuts()) {
        let bytes = parts.concat();
        agree(&bytes, &sizes);
        prop_assert_eq!(check(&bytes).is_ok(), serde_says(&bytes));
    }

    #[test]
    fn valid_and_mutated_documents(
        json in json(), pretty: bool, sizes in cuts(), at in any::<prop::sample::Index>(), byte in prop_oneof![any::<u8>(), select(&b"{}[],:\"\\ 0"[..])],
    ) {
        let mut bytes = if pretty { serde_json::to_vec_pretty(&json) } else { serde_json::to_vec(&json) }.unwrap();
        prop_assert_eq!(check(&bytes), Ok(()));
        agree(&bytes, &sizes);
        let prefix = at.index(bytes.len());
        agree(&bytes[..prefix], &sizes);
        prop_assert_eq!(check(&bytes[..prefix]).is_ok(), serde_says(&bytes[..prefix]));
        bytes[prefix] = byte;
        agree(&bytes, &sizes);
        prop_assert_eq!(check(&bytes).is_ok(), serde_says(&bytes));
    }
}

#[test]
fn containers_follow_each_other_in_one_buffer() {
    let stream = b"{\"a\":1}{}\n[[]] {\"]\":[\"}\"]}\r\n[1,2,3]".repeat(20);
    for backend in Backend::all() {
        for piece in [1, 2, 7, 61, 64, 65, 4096] {
            let mut structure = Structure::with_backend(backend);
            let (mut buffer, mut ends) = (Vec::new(), Vec::new());
            let (mut gone, mut open) = (0, false);
            for piece in stream.chunks(piece) {
                buffer.extend_from_slice(piece);
                loop {
                    if !open {
                        let blanks = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                        buffer.drain(..blanks);
                        structure.advance(blanks);
                        gone += blanks;
                        if buffer.is_empty() {
                            break;
                        }
                        structure.begin(0);
                        open = true;
                    }
                    match structure.close(&buffer) {
                        Container::Open => break,
                        Container::Closed { end } => {
                            buffer.drain(..end);
                            structure.advance(end);
                            gone += end;
                            ends.push(gone);
                            open = false;
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            let mut expected = Vec::new();
            let mut at = 0;
            while let Some(start) = stream[at..].iter().position(|byte| !byte.is_ascii_whitespace()) {
                let Container::Closed { end } = close(&stream, at + start) else { panic!() };
                expected.push(end);
                at = end;
            }
            assert_eq!(ends, expected, "{} {piece}", backend.name());
        }
    }
}

/// What the suite leaves open (`i_`), as it is decided here: all that the grammar holds passes, numbers of any size and
/// surrogates alone among them; what is not UTF-8 or has a byte order mark does not.
const TAKEN: &[&str] = &[
    "i_number_double_huge_neg_exp.json",
    "i_number_huge_exp.json",
    "i_number_neg_int_huge_exp.json",
    "i_number_pos_double_huge_exp.json",
    "i_number_real_neg_overflow.json",
    "i_number_real_pos_overflow.json",
    "i_number_real_underflow.json",
    "i_number_too_big_neg_int.json",
    "i_number_too_big_pos_int.json",
    "i_number_very_big_negative_int.json",
    "i_object_key_lone_2nd_surrogate.json",
    "i_string_1st_surrogate_but_2nd_missing.json",
    "i_string_1st_valid_surrogate_2nd_invalid.json",
    "i_string_UTF-16LE_with_BOM.json",
    "i_string_incomplete_surrogate_and_escape_valid.json",
    "i_string_incomplete_surrogate_pair.json",
    "i_string_incomplete_surrogates_escape_valid.json",
    "i_string_invalid_lonely_surrogate.json",
    "i_string_invalid_surrogate.json",
    "i_string_inverted_surrogates_U+1D11E.json",
    "i_string_lone_second_surrogate.json",
    "i_structure_500_nested_arrays.json",
];

#[test]
fn the_test_suite_is_decided_the_same_whole_and_cut_at_every_byte() {
    for (name, bytes) in json_suite::files() {
        let name = name.as_str();
        let verdict = check(&bytes);
        match &name[..2] {
            "y_" => assert_eq!(verdict, Ok(()), "{name}"),
            "n_" => assert!(verdict.is_err(), "{name}"),
            _ => assert_eq!(verdict.is_ok(), TAKEN.contains(&name) && !name.contains("UTF-16LE"), "{name}"),
        }
        for backend in Backend::all() {
            for sizes in [&[usize::MAX][..], &[1], &[61], &[64]] {
                assert_eq!(
                    validate_in_pieces(backend, &bytes, sizes),
                    verdict,
                    "{name} {} {sizes:?}",
                    backend.name()
                );
            }
            for cut in 1..bytes.len().min(2000) {
                assert_eq!(
                    validate_in_pieces(backend, &bytes, &[cut, usize::MAX]),
                    verdict,
                    "{name} cut at {cut}"
                );
            }
        }
        if matches!(bytes.first(), Some(b'{' | b'[')) {
            agree(&bytes, &[usize::MAX]);
            agree(&bytes, &[1]);
        }
    }
}

#[test]
fn the_depth_is_limited_and_costs_no_stack() {
    let deep = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
    agree(&deep(1024), &[usize::MAX]);
    agree(&deep(1024), &[61]);
    assert_eq!(check(&deep(1024)), Ok(()));
    assert_eq!(check(&deep(1025)), Err(Invalid { at: 1024, reason: JsonReason::TooDeep }));
    let objects = [b"{\"a\":".repeat(700), b"[".repeat(400)].concat();
    for bytes in [deep(1025), deep(100_000), objects, vec![b'['; 1 << 20]] {
        agree(&bytes, &[usize::MAX]);
        agree(&bytes, &[1448]);
    }
}

#[test]
fn a_million_of_one_kind() {
    const MANY: usize = 1 << 20;
    for (open, fill, after) in [
        (&b"["[..], &b"\\"[..], &b""[..]),
        (b"[", b"\"", b"]"),
        (b"[", b" ", b"]"),
        (b"[\"", b"\\", b"\"]"),
        (b"[\"", b"\\\\", b"\"]"),
        (b"[\"", b"\\u00e9", b"\"]"),
        (b"[", b"9", b"]"),
        (b"[", b"{},", b"{}]"),
        (b"[\"", "\u{e9}".as_bytes(), b"\"]"),
    ] {
        let bytes = [open, &fill.repeat(MANY / fill.len()), after].concat();
        agree(&bytes, &[usize::MAX]);
        agree(&bytes, &[1448]);
    }
}

#[test]
fn what_is_kept_is_little() {
    // 128 bytes of them are the levels, one bit each.
    assert!(size_of::<Validator>() <= 256 + 128, "{}", size_of::<Validator>());
    assert!(size_of::<Structure>() <= 64 + 128, "{}", size_of::<Structure>());
}

#[test]
fn scalars() {
    for text in ["0", "-0", "1", "10", "-1.5", "1e9", "1E+9", "1.0e-09", "true", "false", "null"] {
        let (first, rest) = text.as_bytes().split_first().unwrap();
        let mut scalar = Scalar::start(*first).unwrap();
        assert_eq!(scalar.feed(rest), Ok(()));
        assert!(scalar.is_complete(), "{text}");
    }
    for (text, at) in [("01", 0), ("-a", 0), ("1.e", 1), ("1e+-", 2), ("nulL", 2), ("truee", 3), ("1.2.3", 2)]
    {
        let (first, rest) = text.as_bytes().split_first().unwrap();
        assert_eq!(Scalar::start(*first).unwrap().feed(rest), Err(at), "{text}");
    }
    assert_eq!(Scalar::start(b'+'), None);
}

/// Pseudo-random numbers, the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    /// A value of about `size` bytes whose containers go `depth` deep, some of them all at once.
    fn value(&mut self, size: usize, depth: usize, to: &mut Vec<u8>) {
        let end = to.len() + size;
        let mut open = Vec::new();
        loop {
            let is_full = to.len() >= end || open.len() >= depth;
            match self.below(if is_full { 4 } else { 12 }) {
                0 => to.extend_from_slice(b"-12.5e3"),
                1 => to.extend_from_slice(b"\"a\\\"{[\\\\\""),
                2 => to.extend_from_slice(
                    b"\"some text that is longer than the rest, \xc3\xa9, \\u00e9, ]}]} and so on\"",
                ),
                3 => to.extend_from_slice([&b"true"[..], b"{}", b"[]", b" null "][self.below(4)]),
                4..8 => {
                    open.push(b'}');
                    to.extend_from_slice([&b"{\"k\":"[..], b"{ \"\" : "][self.below(2)]);
                    continue;
                }
                _ => {
                    open.push(b']');
                    to.push(b'[');
                    continue;
                }
            }
            // Behind a value.
            while open.len() > usize::from(to.len() < end) && (to.len() >= end || self.below(3) == 0) {
                to.push(open.pop().unwrap());
            }
            match open.last() {
                Some(b'}') => to.extend_from_slice(b",\"key\":"),
                Some(_) => to.extend_from_slice([&b","[..], b" ,\n"][self.below(2)]),
                None => return,
            }
        }
    }
}

#[test]
fn long_values_with_a_byte_changed() {
    let mut dice = Dice(4);
    for round in 0..400 {
        let mut bytes = vec![b'[', b'{', b'"', b'"', b':'];
        let depth = [3, 8, 70, 200][round % 4];
        let size = 500 + dice.below(2500);
        dice.value(size, depth, &mut bytes);
        bytes.extend_from_slice(b"}]");
        assert_eq!(check(&bytes), Ok(()), "{}", bytes.escape_ascii());
        let sizes = [dice.below(700) + 1, dice.below(90) + 1];
        agree(&bytes, &[usize::MAX]);
        agree(&bytes, &sizes);
        for _ in 0..4 {
            let mut changed = bytes.clone();
            let at = dice.below(changed.len());
            changed[at] = b"{}[]\"\\,: 1a\0\x0c\x1a\x80"[dice.below(15)];
            agree(&changed, &[usize::MAX]);
            agree(&changed, &sizes);
        }
    }
}

#[test]
fn the_depth_limit_behind_many_brackets() {
    for before in 900..=1024 {
        // So many pairs that the limit is met among brackets that are looked at together.
        let bytes = [&b"[{},".repeat(before)[..], b"[[[[]]]]", &b"]".repeat(before)].concat();
        agree(&bytes, &[usize::MAX]);
        agree(&bytes, &[333]);
    }
}

#[test]
fn one_bracket_among_many_that_does_not_fit() {
    // Deep enough that a block of nothing but brackets, half of which close, is looked at as one.
    let before = format!("{}\"{}\",", "[".repeat(40), "x".repeat(501));
    for many in ["{}[]".repeat(40), ["[{".repeat(40), "}]".repeat(40)].concat(), "[{}[[]{}]]".repeat(16)]
        .map(String::into_bytes)
    {
        let bytes = [before.as_bytes(), &many, &b"]".repeat(40)].concat();
        for at in before.len()..bytes.len() {
            let mut changed = bytes.clone();
            // `{` and `[`, `}` and `]` differ by this bit.
            changed[at] ^= 0x20;
            agree(&changed, &[usize::MAX]);
            agree(&changed, &[at, 4096]);
        }
    }
}
