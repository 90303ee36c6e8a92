//! Every codec as tokio-util's `Decoder` and `Encoder`, so that it drops into `FramedRead`, `FramedWrite` and `Framed`.
//!
//! The item is `Result<BytesMut, Fault>`: `FramedRead` ends its stream once after every decoder error, so a fault that
//! the stream survives has to be an item; only a violation is an error. Payloads are split off the read buffer, not
//! copied.
//!
//! What a codec has to say to the peer by itself (a WebSocket's pong, ping or Close frame) stays with the decoder, the
//! latest only: [`Decode::poll_reply`], on `FramedRead::decoder_mut` or `Framed::codec_mut`, takes it out after each item
//! and after an error, for the caller to write. The peer's Close frame is the error [`End::Eof`].

use std::io::IoSlice;

use bytes::{Buf, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::{
    ContentLength, ContentLengthDecoder, ContentLengthEncoder, Decode, Encode, LengthPrefix,
    LengthPrefixDecoder, LengthPrefixEncoder, Newline, NewlineDecoder, NewlineEncoder, Sse, SseDecoder,
    SseEncoder, Step, Whole, WholeDecoder, WholeEncoder,
};
#[cfg(feature = "websocket")]
use super::{WebSocket, WebSocketDecoder, WebSocketEncoder};
use crate::{
    error::{End, Error, Fault, Violation},
    limits::MAX_READ_WINDOW,
    scan,
};

type Item = Result<BytesMut, Fault>;

/// Steps until there is an item or no more bytes to step over.
fn drive<D: Decode>(
    decoder: &mut D,
    src: &mut BytesMut,
    step: impl Fn(&mut D, &mut [u8]) -> Result<Step, Violation>,
) -> Result<Option<Item>, Error> {
    loop {
        match step(decoder, src)? {
            Step::Frame { payload, consumed } => {
                let mut frame = src.split_to(consumed);
                frame.truncate(payload.end);
                frame.advance(payload.start);
                return Ok(Some(Ok(frame)));
            }
            Step::Fault { fault, consumed } => {
                src.advance(consumed);
                return Ok(Some(Err(fault)));
            }
            Step::Produced { consumed } => {
                src.advance(consumed);
                return Ok(Some(Ok(BytesMut::from(&*decoder.produced()))));
            }
            Step::Event { consumed } => src.advance(consumed),
            Step::End { .. } => {
                src.clear();
                return Err(Error::Ended(End::Eof));
            }
            Step::Incomplete { consumed, needed } => {
                src.advance(consumed);
                if consumed > 0 && !src.is_empty() {
                    continue;
                }
                // Room grows with what has come, not with what was declared.
                let missing = needed.saturating_sub(src.len());
                src.reserve(missing.min(src.len().max(MAX_READ_WINDOW)));
                return Ok(None);
            }
        }
    }
}

/// Appends one frame to `dst`. Where the payload goes out untouched, no byte is written twice.
fn put(encoder: &mut impl Encode, payload: &[u8], dst: &mut BytesMut) -> Result<(), Error> {
    if let Some(wrap) = encoder.wrap(&[IoSlice::new(payload)])? {
        dst.reserve(wrap.head().len() + payload.len() + wrap.tail().len());
        dst.extend_from_slice(wrap.head());
        let start = dst.len();
        dst.extend_from_slice(payload);
        if let Some(key) = wrap.mask() {
            let _ascii = scan::unmask(dst.get_mut(start..).unwrap_or_default(), key);
        }
        dst.extend_from_slice(wrap.tail());
        return Ok(());
    }
    let start = dst.len();
    dst.resize(start + encoder.room(payload.len()), 0);
    let written = encoder.encode(payload, dst.get_mut(start..).unwrap_or_default());
    dst.truncate(start + written.as_ref().map_or(0, |&written| written));
    written?;
    Ok(())
}

macro_rules! decoder {
    ($($codec:ty),*) => {$(
        impl Decoder for $codec {
            type Item = Item;
            type Error = Error;

            fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Item>, Error> {
                drive(self, src, Decode::decode)
            }

            fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Item>, Error> {
                drive(self, src, Decode::decode_eof)
            }
        }
    )*};
}

macro_rules! encoder {
    ($($codec:ty),*) => {$(
        impl<T: AsRef<[u8]>> Encoder<T> for $codec {
            type Error = Error;

            fn encode(&mut self, item: T, dst: &mut BytesMut) -> Result<(), Error> {
                put(self, item.as_ref(), dst)
            }
        }
    )*};
}

decoder!(Newline, NewlineDecoder, LengthPrefix, LengthPrefixDecoder, ContentLength, ContentLengthDecoder);
decoder!(Whole, WholeDecoder, Sse, SseDecoder);
/// Wraps any decoder here.
#[cfg(feature = "json")]
impl<D: Decode> Decoder for super::ValidatedDecoder<D> {
    type Item = Item;
    type Error = Error;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Item>, Error> {
        drive(self, src, Decode::decode)
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Item>, Error> {
        drive(self, src, Decode::decode_eof)
    }
}

#[cfg(feature = "websocket")]
decoder!(WebSocket, WebSocketDecoder);
#[cfg(feature = "websocket")]
encoder!(WebSocket, WebSocketEncoder);
encoder!(Newline, NewlineEncoder, LengthPrefix, LengthPrefixEncoder, ContentLength, ContentLengthEncoder);
encoder!(Whole, WholeEncoder, Sse, SseEncoder);
#[cfg(feature = "json")]
decoder!(super::JsonValues, super::JsonValuesDecoder);
#[cfg(feature = "json")]
encoder!(super::JsonValues, super::JsonValuesEncoder);

#[cfg(test)]
mod tests {
    use tokio_util::codec::{Decoder, Encoder};

    use super::*;

    #[test]
    fn a_fault_is_an_item_and_the_stream_goes_on() {
        let mut codec = Newline::new().max_size(3);
        let mut src = BytesMut::from(&b"ab\n12345\ncd\ne"[..]);
        assert_eq!(Decoder::decode(&mut codec, &mut src).unwrap().unwrap().unwrap(), "ab");
        let fault = Fault::TooLarge { size: 5, limit: 3 };
        assert_eq!(Decoder::decode(&mut codec, &mut src).unwrap(), Some(Err(fault)));
        assert_eq!(Decoder::decode(&mut codec, &mut src).unwrap().unwrap().unwrap(), "cd");
        assert_eq!(Decoder::decode(&mut codec, &mut src).unwrap(), None);
        assert_eq!(Decoder::decode_eof(&mut codec, &mut src).unwrap().unwrap().unwrap(), "e");
        assert_eq!(Decoder::decode_eof(&mut codec, &mut src).unwrap(), None);
    }

    #[cfg(feature = "websocket")]
    #[test]
    fn what_a_websocket_has_to_say_is_there_to_be_taken() {
        let mut codec = WebSocket::client();
        let mut src = BytesMut::from(&b"\x89\x01a\x01\x01H\x89\x01b\x80\x01i\x88\x02\x03\xe8"[..]);
        assert_eq!(Decoder::decode(&mut codec, &mut src).unwrap().unwrap().unwrap(), "Hi");
        let pong = codec.poll_reply().unwrap();
        let mut dst = BytesMut::from(pong.bytes());
        assert_eq!((dst.len(), dst[0]), (7, 0x8a));
        assert!(codec.poll_reply().is_none());
        let end = Decoder::decode(&mut codec, &mut src).unwrap_err();
        assert!(matches!(end, Error::Ended(End::Eof)), "{end}");
        assert!(codec.poll_reply().unwrap().is_last());
        Encoder::encode(&mut codec, b"Hi", &mut dst).unwrap();
        assert_eq!(Decoder::decode(&mut WebSocket::server(), &mut dst).unwrap().unwrap().unwrap(), "Hi");
    }

    #[test]
    fn a_refused_message_leaves_the_buffer_as_it_was() {
        let mut dst = BytesMut::from(&b"x"[..]);
        let mut codec = Newline::new();
        assert!(Encoder::encode(&mut codec, b"a\nb", &mut dst).is_err());
        assert_eq!(dst, "x");
        Encoder::encode(&mut codec, b"ab", &mut dst).unwrap();
        assert_eq!(dst, "xab\n");
    }

    #[test]
    fn a_declared_length_reserves_only_in_step_with_what_has_come() {
        let mut codec = LengthPrefix::new();
        let mut src = BytesMut::from(&[0, 0xff, 0xff, 0xff][..]);
        assert_eq!(Decoder::decode(&mut codec, &mut src).unwrap(), None);
        assert!(src.capacity() <= 2 * MAX_READ_WINDOW, "{}", src.capacity());
    }
}
