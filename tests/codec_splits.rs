//! However a stream is cut, what comes out is the same: every single cut, every pair of cuts, pieces of every size, and
//! one byte at a time with bounded memory.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "support/oracle.rs"]
mod oracle;

use framewire::{
    codec::{Codec, ContentLength, Decode, Endian, LengthPrefix, Newline, Step, Unterminated, Whole},
    error::Fault,
};
use oracle::{Outcome, cut, run};

/// Decodes `bytes` in every way that two cuts allow; returns what came out of them whole.
fn in_every_way<C: Codec>(codec: impl Fn() -> C, bytes: &[u8]) -> Vec<Outcome> {
    let decode = |pieces: Vec<&[u8]>| run(&mut codec().split().0, pieces).outcomes;
    let whole = decode(vec![bytes]);
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            let pieces = vec![&bytes[..first], &bytes[first..second], &bytes[second..]];
            assert_eq!(decode(pieces), whole, "cut at {first} and {second}");
        }
        assert_eq!(decode(cut(bytes, &[first.max(1)])), whole, "in pieces of {first}");
    }
    whole
}

fn frame(payload: &[u8]) -> Outcome {
    Outcome::Frame(payload.to_vec())
}

#[test]
fn newline() {
    let bytes = b"\xef\xbb\xbf{}\r\n\n\r\n\xef\xbb\xbfa\rb\r\r\ntoo long\r\r\n\xff\n1234567\nlast\r";
    let too_large = Outcome::Fault(Fault::TooLarge { size: 9, limit: 7 });
    let outcomes = in_every_way(|| Newline::new().max_size(7), bytes);
    let common = [frame(b"{}"), frame(b"\xef\xbb\xbfa\rb\r"), too_large];
    assert_eq!(outcomes, [&common[..], &[frame(b"\xff"), frame(b"1234567"), frame(b"last")]].concat());

    let strict = || Newline::new().max_size(7).check_utf8(true).unterminated(Unterminated::Fault);
    let invalid = Outcome::Fault(Fault::InvalidUtf8 { size: 1, valid_up_to: 0 });
    let truncated = Outcome::Fault(Fault::Truncated { size: 5 });
    assert_eq!(in_every_way(strict, bytes), [&common[..], &[invalid, frame(b"1234567"), truncated]].concat());
}

#[test]
fn length_prefix() {
    let bytes = b"\0\0\0\x02{}\0\0\0\0\0\0\0\x09too large\0\0\0\x07exactly\0\0\0\x05cut";
    let outcomes = in_every_way(|| LengthPrefix::new().max_size(7), bytes);
    let too_large = Outcome::Fault(Fault::TooLarge { size: 9, limit: 7 });
    let truncated = Outcome::Fault(Fault::Truncated { size: 7 });
    assert_eq!(outcomes, [frame(b"{}"), frame(b""), too_large, frame(b"exactly"), truncated]);

    let other =
        || LengthPrefix::new().width(3).endian(Endian::Little).offset(2).counts_head(true).max_size(2);
    let outcomes = in_every_way(other, b"..\x07\0\0ab..\x08\0\0abc..\x05\0\0..\x04\0\0");
    let too_large = Outcome::Fault(Fault::TooLarge { size: 3, limit: 2 });
    assert_eq!(outcomes, [frame(b"ab"), too_large, frame(b""), Outcome::BadLength]);

    let long = [&b"\x81\x01"[..], &[b'x'; 129], b"\x01y\x00\x80\x00"].concat();
    let outcomes = in_every_way(|| LengthPrefix::new().leb128(), &long);
    assert_eq!(outcomes, [frame(&[b'x'; 129]), frame(b"y"), frame(b""), Outcome::BadLength]);
}

#[test]
fn content_length() {
    let bytes = b"Content-Length: 2\r\n\r\n{}content-length:\t3 \r\nX: y\r\n\r\nabcContent-Length: 4\r\nContent-Length: 4\r\n\r\nlong\
        Content-Length: 0\r\n\r\nContent-Length: 3\r\n\r\ncu";
    let outcomes = in_every_way(|| ContentLength::new().max_size(3), bytes);
    let too_large = Outcome::Fault(Fault::TooLarge { size: 4, limit: 3 });
    let truncated = Outcome::Fault(Fault::Truncated { size: 23 });
    assert_eq!(outcomes, [frame(b"{}"), frame(b"abc"), too_large, frame(b""), truncated]);
    let outcomes = in_every_way(ContentLength::new, b"Content-Length: 1\r\n\r\naContent-Length: 1\n\nb");
    assert_eq!(outcomes, [frame(b"a"), Outcome::BadHeader]);
}

#[test]
fn whole() {
    assert_eq!(in_every_way(|| Whole::new().max_size(9), b"any\nbytes"), [frame(b"any\nbytes")]);
    let fault = Outcome::Fault(Fault::TooLarge { size: 9, limit: 8 });
    assert_eq!(in_every_way(|| Whole::new().max_size(8), b"any\nbytes"), [fault]);
    assert_eq!(in_every_way(Whole::new, b""), []);
}

/// A megabyte that is over the limit is dropped as it comes.
#[test]
fn what_is_skipped_is_not_kept() {
    const SIZE: usize = 1 << 20;
    let payload = vec![b'x'; SIZE];
    let line = [&payload[..], b"\nok\n"].concat();
    let prefixed = [&(SIZE as u32).to_be_bytes()[..], &payload, b"\0\0\0\x02ok"].concat();
    let headed =
        [format!("Content-Length: {SIZE}\r\n\r\n").as_bytes(), &payload, b"Content-Length: 2\r\n\r\nok"]
            .concat();
    let expected = [Outcome::Fault(Fault::TooLarge { size: SIZE as u64, limit: 100 }), frame(b"ok")];
    for piece in [1, 1448, 65_536] {
        let newline = run(&mut Newline::new().max_size(100).split().0, cut(&line, &[piece]));
        let length = run(&mut LengthPrefix::new().max_size(100).split().0, cut(&prefixed, &[piece]));
        let head = run(&mut ContentLength::new().max_size(100).split().0, cut(&headed, &[piece]));
        for run in [newline, length, head] {
            assert_eq!(run.outcomes, expected);
            assert!(run.kept <= 104, "{} bytes kept", run.kept);
        }
    }
}

/// A declared length says how much is needed, so that one read can bring it; nothing is asked for beyond the limit.
#[test]
fn a_length_is_a_hint_for_the_next_read() {
    let needed = |decoder: &mut dyn Decode, bytes: &[u8]| match decoder.decode(&mut bytes.to_vec()) {
        Ok(Step::Incomplete { consumed: 0, needed }) => needed,
        other => panic!("{other:?}"),
    };
    assert_eq!(needed(&mut LengthPrefix::new().split().0, b""), 4);
    assert_eq!(needed(&mut LengthPrefix::new().split().0, b"\0\0\x01"), 4);
    assert_eq!(needed(&mut LengthPrefix::new().split().0, b"\0\0\x01\0"), 260);
    assert_eq!(needed(&mut LengthPrefix::new().width(2).offset(3).split().0, b"...\x01\x02.."), 5 + 258);
    assert_eq!(needed(&mut ContentLength::new().split().0, b"Content-Length: 300\r\n\r\n{"), 323);
    assert_eq!(needed(&mut Newline::new().split().0, b"{"), 0);
}
