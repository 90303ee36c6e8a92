//! The codecs as tokio-util's traits: a bad message does not end the stream, nothing is copied, memory is only taken
//! for bytes that have come.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "tokio-util")]

use bytes::{Bytes, BytesMut};
use framewire::{
    Error,
    codec::{ContentLength, LengthPrefix, Newline, Whole},
    error::{Fault, Rejection, Violation},
};
use futures::{SinkExt, StreamExt, executor::block_on};
use tokio_util::codec::{Decoder, Encoder, FramedRead, FramedWrite};

type Item = Result<BytesMut, Fault>;

/// Everything that `FramedRead` makes of `bytes` until it ends for the first time.
fn read<D>(decoder: D, bytes: &[u8]) -> Vec<Result<Item, Error>>
where
    D: Decoder<Item = Item, Error = Error>,
{
    block_on(FramedRead::new(bytes, decoder).collect())
}

fn payloads(items: Vec<Result<Item, Error>>) -> Vec<Result<Vec<u8>, Fault>> {
    items.into_iter().map(|item| item.expect("not fatal").map(|payload| payload.to_vec())).collect()
}

#[test]
fn a_bad_message_does_not_end_the_stream() {
    let fault = Fault::TooLarge { size: 5, limit: 4 };
    let expected = [Ok(b"a".to_vec()), Err(fault.clone()), Ok(b"b".to_vec())];
    assert_eq!(payloads(read(Newline::new().max_size(4), b"a\n12345\nb\n")), expected);
    let bytes = b"\0\0\0\x01a\0\0\0\x0512345\0\0\0\x01b";
    assert_eq!(payloads(read(LengthPrefix::new().max_size(4), bytes)), expected);
    let bytes = b"Content-Length: 1\r\n\r\naContent-Length: 5\r\n\r\n12345Content-Length: 1\r\n\r\nb";
    assert_eq!(payloads(read(ContentLength::new().max_size(4), bytes)), expected);
    assert_eq!(payloads(read(Whole::new().max_size(4), b"12345")), [Err(fault)]);
}

#[test]
fn the_rest_at_the_end_is_an_item() {
    assert_eq!(payloads(read(Newline::new(), b"a\nb")), [Ok(b"a".to_vec()), Ok(b"b".to_vec())]);
    assert_eq!(payloads(read(Whole::new(), b"a\nb")), [Ok(b"a\nb".to_vec())]);
    let cut = Err(Fault::Truncated { size: 5 });
    assert_eq!(payloads(read(LengthPrefix::new(), b"\0\0\0\x03a")), [cut]);
}

#[test]
fn a_breach_of_the_framing_ends_it() {
    let items = read(ContentLength::new(), b"no head\r\n\r\n");
    assert!(matches!(items[..], [Err(Error::Violation(Violation::BadHeader { .. }))]));
}

#[test]
fn a_payload_is_split_off_where_it_lies() {
    let mut src = BytesMut::from(&b"\0\0\0\x03abc\0\0\0\x01d"[..]);
    let at = src.as_ptr() as usize;
    let mut decoder = LengthPrefix::new();
    let payload = Decoder::decode(&mut decoder, &mut src).unwrap().unwrap().unwrap();
    assert_eq!((payload.as_ptr() as usize, &payload[..]), (at + 4, &b"abc"[..]));
    assert_eq!(src, &b"\0\0\0\x01d"[..]);
}

#[test]
fn a_declared_length_takes_no_memory() {
    let mut src = BytesMut::from(&0x00ff_0000_u32.to_be_bytes()[..]);
    assert!(Decoder::decode(&mut LengthPrefix::new(), &mut src).unwrap().is_none());
    assert!(src.capacity() <= 128 * 1024, "{} bytes for a head of four", src.capacity());
}

#[test]
fn what_is_written_comes_back() {
    fn round<C>(codec: &C)
    where
        C: Clone + Decoder<Item = Item, Error = Error> + Encoder<Bytes, Error = Error>,
    {
        let sent = [&b"{}"[..], &[b'x'; 300], b"{\"a\":1}"].map(Bytes::copy_from_slice);
        let mut sink = FramedWrite::new(Vec::new(), codec.clone());
        block_on(async {
            for payload in &sent {
                sink.feed(payload.clone()).await.unwrap();
            }
            SinkExt::<Bytes>::flush(&mut sink).await.unwrap();
        });
        let back = payloads(read(codec.clone(), sink.get_ref()));
        assert_eq!(back, sent.map(|payload| Ok(payload.to_vec())));
    }
    round(&Newline::new());
    round(&LengthPrefix::new());
    round(&LengthPrefix::new().leb128());
    round(&ContentLength::new());
}

#[test]
fn a_refused_payload_leaves_no_trace() {
    let mut dst = BytesMut::from(&b"before"[..]);
    let refused = Encoder::encode(&mut Newline::new(), "a\nb", &mut dst);
    assert!(matches!(refused, Err(Error::Rejected(Rejection::EmbeddedDelimiter { at: 1 }))));
    let mut blank = Newline::new().embedded(framewire::codec::Embedded::Blank);
    assert!(Encoder::encode(&mut blank, "{\"a\nb\"}", &mut dst).is_err());
    assert_eq!(dst, &b"before"[..]);
    Encoder::encode(&mut blank, "{\n}", &mut dst).unwrap();
    assert_eq!(dst, &b"before{ }\n"[..]);
}
