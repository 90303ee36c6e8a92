//! What went wrong with framing in the systems that this crate takes the place of: one test for each, named for the
//! defect's number.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "support/oracle.rs"]
mod oracle;

use framewire::{
    codec::{Codec, ContentLength, Decode, Encode, LengthPrefix, Newline, Step, Unterminated},
    error::{Fault, Rejection, Violation},
    limits::{MAX_HEAD_SIZE, MAX_MESSAGE_SIZE},
};
use oracle::{Outcome, cut, lines, run};

fn frame(payload: &[u8]) -> Outcome {
    Outcome::Frame(payload.to_vec())
}

/// Content-Length with a case-sensitive name.
#[test]
fn d1_names_of_headers_have_no_case() {
    for name in ["Content-Length", "content-length", "CONTENT-LENGTH", "cOnTeNt-LeNgTh"] {
        let bytes = format!("{name}: 2\r\n\r\n{{}}");
        assert_eq!(run(&mut ContentLength::new().split().0, [bytes.as_bytes()]).outcomes, [frame(b"{}")]);
    }
}

/// `vec![0; content_length]` with whatever the peer declared.
#[test]
fn d1_a_declared_content_length_is_held_against_the_limit_first() {
    let mut decoder = ContentLength::new().split().0;
    let mut head = *b"Content-Length: 999999999999999999\r\n\r\n";
    let fault = Fault::TooLarge { size: 999_999_999_999_999_999, limit: MAX_MESSAGE_SIZE };
    assert_eq!(decoder.decode(&mut head), Ok(Step::Fault { fault, consumed: head.len() }));
}

/// Header lines without a bound.
#[test]
fn d1_a_head_without_end_is_bounded() {
    let bytes = [b"X: ".to_vec(), vec![b'x'; 2 * MAX_HEAD_SIZE]].concat();
    let run = run(&mut ContentLength::new().split().0, cut(&bytes, &[100]));
    assert_eq!(run.outcomes, [Outcome::HeadTooLarge]);
    assert!(run.kept <= MAX_HEAD_SIZE);
}

/// `len as u32` cut a length short, and the stream was out of step from there on.
#[test]
fn d15_a_length_that_does_not_fit_its_field_is_refused() {
    for (width, size) in [(1, 256), (2, 65_536), (3, 1 << 24)] {
        let (_, mut encoder) = LengthPrefix::new().width(width).max_size(usize::MAX).split();
        let payload = vec![0; size];
        let refused = Err(Rejection::LengthField { size, width });
        assert_eq!(encoder.encode(&payload, &mut vec![0; size + 8]), refused);
        assert!(encoder.encode(&payload[1..], &mut vec![0; size + 8]).is_ok());
    }
}

/// Up to 4 GiB were allocated before a byte of the payload had come.
#[test]
fn d15_a_declared_length_is_held_against_the_limit_first() {
    let mut decoder = LengthPrefix::new().split().0;
    let fault = Fault::TooLarge { size: u32::MAX.into(), limit: MAX_MESSAGE_SIZE };
    assert_eq!(decoder.decode(&mut [0xff; 4]), Ok(Step::Fault { fault, consumed: 4 }));
    let bytes = [&0x00ff_0000_u32.to_be_bytes()[..], b"abc"].concat();
    assert!(run(&mut LengthPrefix::new().split().0, [&bytes[..]]).kept <= 7, "only what came is kept");
}

/// The size of a line was looked at when all of it was in memory.
#[test]
fn d26_a_line_is_held_against_the_limit_while_it_comes() {
    let bytes = [&vec![b'x'; 1 << 20][..], b"\nok\n"].concat();
    let run = run(&mut Newline::new().max_size(1000).split().0, cut(&bytes, &[512]));
    assert_eq!(run.outcomes, [Outcome::Fault(Fault::TooLarge { size: 1 << 20, limit: 1000 }), frame(b"ok")]);
    assert!(run.kept <= 1001);
}

/// Invalid UTF-8 was an I/O error; a line with it ended the reader.
#[test]
fn d26_d36_d41_a_line_that_is_not_utf8_is_one_bad_line() {
    let bytes = b"a\n\xff\xfe\nb\n";
    let fault = Outcome::Fault(Fault::InvalidUtf8 { size: 2, valid_up_to: 0 });
    let checked = run(&mut Newline::new().check_utf8(true).split().0, [&bytes[..]]).outcomes;
    assert_eq!(checked, [frame(b"a"), fault, frame(b"b")]);
    let unchecked = run(&mut Newline::new().split().0, [&bytes[..]]).outcomes;
    assert_eq!(unchecked, [frame(b"a"), frame(b"\xff\xfe"), frame(b"b")]);
}

/// A line over 10 MiB was dropped without a word, and its request waited for ever.
#[test]
fn d41_a_dropped_line_is_told_of_with_its_size() {
    let bytes = [&vec![b'x'; MAX_MESSAGE_SIZE + 1][..], b"\r\nok\n"].concat();
    let fault = Fault::TooLarge { size: MAX_MESSAGE_SIZE as u64 + 1, limit: MAX_MESSAGE_SIZE };
    let outcomes = run(&mut Newline::new().split().0, cut(&bytes, &[65_536])).outcomes;
    assert_eq!(outcomes, [Outcome::Fault(fault), frame(b"ok")]);
}

/// `from_utf8_lossy` on the way out changed bytes.
#[test]
fn d47_bytes_go_out_as_they_are() {
    let payload = b"\xff\xfe\xed\xa0\x80\0\xc3";
    let (mut decoder, mut encoder) = Newline::new().split();
    let mut wire = [0; 8];
    assert_eq!(encoder.encode(payload, &mut wire), Ok(8));
    assert_eq!(run(&mut decoder, [&wire[..]]).outcomes, [frame(payload)]);
}

/// `LinesCodec::new()` has no limit.
#[test]
fn d47_d53_limits_are_finite_without_being_asked_for() {
    let payload = vec![b'x'; MAX_MESSAGE_SIZE + 1];
    let mut wire = vec![0; payload.len() + 64];
    let refused = Err(Rejection::TooLarge { size: payload.len(), limit: MAX_MESSAGE_SIZE });
    assert_eq!(Newline::new().split().1.encode(&payload, &mut wire), refused);
    assert_eq!(LengthPrefix::new().split().1.encode(&payload, &mut wire), refused);
    assert_eq!(ContentLength::new().split().1.encode(&payload, &mut wire), refused);
}

/// After a long line the decoder went on in the middle of that line.
#[test]
fn d52_what_follows_a_long_line_begins_after_its_newline() {
    let bytes = b"{\"long\":\"{}{}{}{}{}{}\"}\n{}\n";
    for piece in 1..=bytes.len() {
        let outcomes = run(&mut Newline::new().max_size(4).split().0, cut(bytes, &[piece])).outcomes;
        assert_eq!(outcomes, lines(bytes, 4, false, Unterminated::Deliver));
        assert_eq!(outcomes[1..], [frame(b"{}")]);
    }
}

/// Draining a vector for each message: the square of the bytes for many small lines in one buffer.
#[test]
fn d52_many_lines_in_one_buffer_are_not_moved() {
    let mut bytes = b"{}\n".repeat(400_000);
    let mut decoder = Newline::new().split().0;
    let (mut at, mut frames) = (0, 0);
    while let Ok(Step::Frame { payload, consumed }) = decoder.decode(&mut bytes[at..]) {
        assert_eq!((payload, consumed), (0..2, 3));
        at += consumed;
        frames += 1;
    }
    assert_eq!(frames, 400_000);
}

/// A peer without newlines filled the memory.
#[test]
fn d53_bytes_without_a_newline_fill_no_memory() {
    let mut decoder = Newline::new().max_size(1 << 16).split().0;
    let run = run(&mut decoder, std::iter::repeat_n(&[b'x'; 8192][..], 4096));
    assert_eq!(run.outcomes, [Outcome::Fault(Fault::TooLarge { size: 8192 * 4096, limit: 1 << 16 })]);
    assert!(run.kept <= (1 << 16) + 1);
}

/// An unterminated last message was delivered or dropped, depending on how it had been read.
#[test]
fn d54_the_last_message_has_one_fate_however_it_came() {
    let bytes = b"{\"a\":1}\n{\"b\":2}";
    for piece in 1..=bytes.len() {
        let decode = |codec: Newline| run(&mut codec.split().0, cut(bytes, &[piece])).outcomes;
        assert_eq!(decode(Newline::new()), [frame(b"{\"a\":1}"), frame(b"{\"b\":2}")]);
        let truncated = Outcome::Fault(Fault::Truncated { size: 7 });
        let strict = Newline::new().unterminated(Unterminated::Fault);
        assert_eq!(decode(strict), [frame(b"{\"a\":1}"), truncated]);
    }
}

/// A head that two readers would read in two ways.
#[test]
fn lengths_that_disagree_end_the_stream() {
    let mut bytes = *b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}}";
    assert!(matches!(ContentLength::new().split().0.decode(&mut bytes), Err(Violation::BadHeader { .. })));
}

#[cfg(feature = "link")]
mod link {
    use std::{
        future::poll_fn,
        pin::{Pin, pin},
        task::{Context, Poll},
    };

    use framewire::{Error, Link, error::End};
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, duplex, sink};

    use super::*;

    /// A reader that brings one byte and is then not ready once.
    struct Trickle {
        bytes: Vec<u8>,
        at: usize,
        ready: bool,
    }

    impl Trickle {
        fn new(bytes: &[u8]) -> Self {
            Self { bytes: bytes.to_vec(), at: 0, ready: false }
        }
    }

    impl AsyncRead for Trickle {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            self.ready = !self.ready;
            if self.ready {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(byte) = self.bytes.get(self.at) {
                buffer.put_slice(&[*byte]);
                self.at += 1;
            }
            Poll::Ready(Ok(()))
        }
    }

    /// Everything that comes when each receive is dropped the first time it is not ready.
    async fn received<C: Codec>(codec: C, bytes: &[u8]) -> Vec<Result<Vec<u8>, Error>> {
        let mut link = Link::pair(codec, Trickle::new(bytes), sink());
        let mut results = Vec::new();
        loop {
            let polled = {
                let mut receive = pin!(link.receive());
                poll_fn(|cx| Poll::Ready(receive.as_mut().poll(cx))).await
            };
            match polled {
                Poll::Pending => tokio::task::yield_now().await,
                Poll::Ready(Err(Error::Ended(End::Eof))) => return results,
                Poll::Ready(result) => results.push(result.map(|frame| frame.to_vec())),
            }
        }
    }

    /// Between a header and its body, within a line, before the end: a cancelled receive lost what it had read.
    #[tokio::test]
    async fn d1_d15_d26_d45_d54_a_receive_dropped_at_any_byte_loses_nothing() {
        let two = [b"{\"a\":1}".to_vec(), b"{\"b\":2}".to_vec()];
        let unwrap = |results: Vec<Result<Vec<u8>, Error>>| -> Vec<_> {
            results.into_iter().map(Result::unwrap).collect()
        };
        assert_eq!(unwrap(received(Newline::new(), b"{\"a\":1}\r\n\n{\"b\":2}").await), two);
        let bytes = b"\0\0\0\x07{\"a\":1}\0\0\0\x07{\"b\":2}";
        assert_eq!(unwrap(received(LengthPrefix::new(), bytes).await), two);
        let bytes = b"Content-Length: 7\r\n\r\n{\"a\":1}content-length:7\r\n\r\n{\"b\":2}";
        assert_eq!(unwrap(received(ContentLength::new(), bytes).await), two);
    }

    /// A bad line ended the loop that served a connection.
    #[tokio::test]
    async fn d41_d46_the_link_goes_on_after_a_bad_line() {
        let codec = Newline::new().max_size(4).check_utf8(true);
        let results = received(codec, b"a\n12345\n\xff\nb\n").await;
        assert!(matches!(
            &results[..],
            [
                Ok(_),
                Err(Error::Fault(Fault::TooLarge { size: 5, limit: 4 })),
                Err(Error::Fault(Fault::InvalidUtf8 { .. })),
                Ok(last)
            ] if last == b"b"
        ));
        assert!(results.iter().filter_map(|result| result.as_ref().err()).all(|error| !error.is_fatal()));
    }

    /// A message behind bytes that are skipped, all in one read, is received without waiting for more.
    #[tokio::test]
    async fn a_message_behind_skipped_bytes_is_not_left_waiting() {
        async fn first<C: Codec>(codec: C, bytes: Vec<u8>) -> Vec<u8> {
            let (near, mut far) = duplex(1 << 16);
            tokio::io::AsyncWriteExt::write_all(&mut far, &bytes).await.unwrap();
            let mut link = Link::pair(codec, near, sink());
            loop {
                // The far end stays open and silent.
                match link.receive().await {
                    Ok(frame) => return frame.to_vec(),
                    Err(error) => assert!(!error.is_fatal(), "{error}"),
                }
            }
        }
        let all = async {
            let blank = [&b"\n".repeat(5_000)[..], b"ok\n"].concat();
            assert_eq!(first(Newline::new(), blank).await, b"ok");
            let bytes = b"\0\0\0\x09too large\0\0\0\x02ok".to_vec();
            assert_eq!(first(LengthPrefix::new().max_size(4), bytes).await, b"ok");
            let bytes = b"Content-Length: 9\r\n\r\ntoo largeContent-Length: 2\r\n\r\nok".to_vec();
            assert_eq!(first(ContentLength::new().max_size(4), bytes).await, b"ok");
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), all).await.expect("nothing waits");
    }

    /// Two writes and a flush for each frame.
    #[tokio::test]
    async fn d15_d26_d46_d57_a_batch_of_frames_is_one_write() {
        struct Whatever;
        impl AsyncWrite for Whatever {
            fn poll_write(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<std::io::Result<usize>> {
                Poll::Ready(Ok(bytes.len()))
            }
            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
                Poll::Ready(Ok(()))
            }
            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        let mut link = Link::pair(LengthPrefix::new(), tokio::io::empty(), Whatever);
        for _ in 0..10 {
            link.feed(b"{}").await.unwrap();
        }
        link.flush().await.unwrap();
        assert_eq!(link.counters().writes, 1);
    }

    /// Errors of the writer were only logged, and what was queued was lost at the close.
    #[tokio::test]
    async fn d41_d47_a_close_sends_what_is_queued_and_a_broken_pipe_is_told_of() {
        let (near, mut far) = duplex(1 << 16);
        let (reader, writer) = tokio::io::split(near);
        let mut link = Link::pair(Newline::new(), reader, writer);
        for _ in 0..1000 {
            link.feed(b"queued").await.unwrap();
        }
        link.close().await.unwrap();
        let mut wire = Vec::new();
        far.read_to_end(&mut wire).await.unwrap();
        assert_eq!(wire, b"queued\n".repeat(1000));

        let (near, far) = duplex(64);
        drop(far);
        let (reader, writer) = tokio::io::split(near);
        let mut link = Link::pair(Newline::new(), reader, writer);
        let sent = async {
            link.send(b"lost").await?;
            link.flush().await
        };
        assert!(matches!(sent.await, Err(Error::Ended(End::Reset))));
    }
}
