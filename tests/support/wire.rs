//! The framings a link is tested with, each with its bytes, its naive oracle and every way to receive and to send.
//! Use it as `#[path = "support/wire.rs"] mod wire;`, beside `oracle` and `script`.
#![allow(dead_code, unreachable_pub)]

use std::{future::Future, io::IoSlice};

use bytes::BytesMut;
use framewire::{
    Error, Frame, Link, Result,
    codec::{Codec, ContentLength, LengthPrefix, Newline, Unterminated, Whole},
    error::Violation,
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::oracle::{self, Outcome};

/// A framing under test.
pub trait Framing: 'static {
    type Codec: Codec<Decoder: Send + 'static, Encoder: Send + 'static> + Send + 'static;
    const NAME: &'static str;

    /// The codec with this limit on payloads in both directions.
    fn codec(limit: usize) -> Self::Codec;

    /// One message on the wire.
    fn frame(payload: &[u8]) -> Vec<u8>;

    /// What a stream of `bytes` that then ends holds.
    fn outcomes(bytes: &[u8], limit: usize) -> Vec<Outcome>;

    /// Messages on the wire, one after the other.
    fn wire(payloads: &[Vec<u8>]) -> Vec<u8> {
        payloads.iter().flat_map(|payload| Self::frame(payload)).collect()
    }

    /// How many bytes of the stream are there once each of the messages is complete. Empty for a framing that ends a
    /// message by the end of the stream.
    fn ends(payloads: &[Vec<u8>]) -> Vec<usize> {
        let mut at = 0;
        payloads
            .iter()
            .map(|payload| {
                at += Self::frame(payload).len();
                at
            })
            .collect()
    }
}

pub struct Lines;

impl Framing for Lines {
    type Codec = Newline;
    const NAME: &'static str = "newline";

    fn codec(limit: usize) -> Newline {
        Newline::new().max_size(limit)
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        [payload, b"\n"].concat()
    }

    fn outcomes(bytes: &[u8], limit: usize) -> Vec<Outcome> {
        oracle::lines(bytes, limit, false, Unterminated::Deliver)
    }
}

/// Lines, of which the last has to be terminated too.
pub struct StrictLines;

impl Framing for StrictLines {
    type Codec = Newline;
    const NAME: &'static str = "newline, terminated";

    fn codec(limit: usize) -> Newline {
        Newline::new().max_size(limit).unterminated(Unterminated::Fault)
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        Lines::frame(payload)
    }

    fn outcomes(bytes: &[u8], limit: usize) -> Vec<Outcome> {
        oracle::lines(bytes, limit, false, Unterminated::Fault)
    }
}

pub struct Prefixed;

impl Framing for Prefixed {
    type Codec = LengthPrefix;
    const NAME: &'static str = "length prefix";

    fn codec(limit: usize) -> LengthPrefix {
        LengthPrefix::new().max_size(limit)
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as u32).to_be_bytes(), payload].concat()
    }

    fn outcomes(bytes: &[u8], limit: usize) -> Vec<Outcome> {
        let prefix = oracle::Prefix {
            width: Some(4),
            endian: framewire::codec::Endian::Big,
            offset: 0,
            counts_head: false,
            adjustment: 0,
        };
        oracle::prefixed(bytes, limit, prefix)
    }
}

pub struct Headed;

impl Framing for Headed {
    type Codec = ContentLength;
    const NAME: &'static str = "content length";

    fn codec(limit: usize) -> ContentLength {
        ContentLength::new().max_size(limit)
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        [format!("Content-Length: {}\r\n\r\n", payload.len()).as_bytes(), payload].concat()
    }

    fn outcomes(bytes: &[u8], limit: usize) -> Vec<Outcome> {
        oracle::headed(bytes, limit, framewire::limits::MAX_HEAD_SIZE)
    }
}

/// One message, which the end of the stream ends.
pub struct Unframed;

impl Framing for Unframed {
    type Codec = Whole;
    const NAME: &'static str = "whole";

    fn codec(limit: usize) -> Whole {
        Whole::new().max_size(limit)
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        payload.to_vec()
    }

    fn outcomes(bytes: &[u8], limit: usize) -> Vec<Outcome> {
        if bytes.is_empty() {
            vec![]
        } else if bytes.len() > limit {
            let size = bytes.len() as u64;
            vec![Outcome::Fault(framewire::error::Fault::TooLarge { size, limit })]
        } else {
            vec![Outcome::Frame(bytes.to_vec())]
        }
    }

    fn ends(_: &[Vec<u8>]) -> Vec<usize> {
        vec![]
    }
}

/// A way to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Owned,
    Lent,
    IntoBuffer,
    Batch,
    /// What is here already, and only then waits.
    Ready,
}

pub const FORMS: [Form; 5] = [Form::Owned, Form::Lent, Form::IntoBuffer, Form::Batch, Form::Ready];

/// Receives once, in this form; appends what came.
pub async fn receive<C, R, W>(link: &mut Link<C, R, W>, form: Form, got: &mut Vec<Outcome>) -> Result<()>
where
    C: Codec,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let outcome = match form {
        Form::Owned => link.receive().await.map(|frame| got.push(Outcome::Frame(frame.to_vec()))),
        Form::Lent => link.receive_lent().await.map(|lent| got.push(Outcome::Frame(lent.to_vec()))),
        Form::IntoBuffer => {
            let mut buffer = BytesMut::from(&b"what was here before"[..]);
            link.receive_into_buffer(&mut buffer).await.map(|size| {
                assert_eq!(size, buffer.len());
                got.push(Outcome::Frame(buffer.to_vec()));
            })
        }
        Form::Batch => {
            let mut batch: Vec<Frame> = Vec::new();
            let outcome = link.receive_batch(&mut batch, 3).await;
            assert_eq!(batch.len(), *outcome.as_ref().unwrap_or(&0));
            got.extend(batch.iter().map(|frame| Outcome::Frame(frame.to_vec())));
            outcome.map(drop)
        }
        Form::Ready => match link.receive_ready() {
            Ok(Some(lent)) => {
                got.push(Outcome::Frame(lent.to_vec()));
                Ok(())
            }
            Ok(None) => link.receive_lent().await.map(|lent| got.push(Outcome::Frame(lent.to_vec()))),
            Err(error) => Err(error),
        },
    };
    match outcome {
        Err(Error::Fault(fault)) => {
            got.push(Outcome::Fault(fault));
            Ok(())
        }
        Err(Error::Violation(violation)) if !matches!(violation, Violation::TooManyFaults { .. }) => {
            got.push(match &violation {
                Violation::BadHeader { .. } => Outcome::BadHeader,
                Violation::HeadTooLarge { .. } => Outcome::HeadTooLarge,
                _ => Outcome::BadLength,
            });
            Err(violation.into())
        }
        other => other,
    }
}

/// Receives until the end, whatever it is.
pub async fn receive_all<C, R, W>(link: &mut Link<C, R, W>, form: Form, got: &mut Vec<Outcome>) -> Error
where
    C: Codec,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    loop {
        if let Err(error) = receive(link, form, got).await {
            return error;
        }
    }
}

/// A way to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Send,
    Feed,
    Frame,
    Vectored,
    Permit,
}

pub const WAYS: [Way; 5] = [Way::Send, Way::Feed, Way::Frame, Way::Vectored, Way::Permit];

/// Sends once, in this way.
pub async fn send<C, R, W>(link: &mut Link<C, R, W>, way: Way, payload: &[u8]) -> Result<()>
where
    C: Codec,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    match way {
        Way::Send => link.send(payload).await,
        Way::Feed => link.feed(payload).await,
        Way::Frame => link.send_frame(Frame::copy_from_slice(payload)).await,
        Way::Vectored => {
            let (front, back) = payload.split_at(payload.len() / 3);
            link.send_vectored(&[IoSlice::new(front), IoSlice::new(&[]), IoSlice::new(back)]).await
        }
        Way::Permit => link.reserve(payload.len()).await?.send(payload),
    }
}

/// Fails the test when `future` waits for something that never comes. Wants a paused clock.
pub async fn soon<T>(what: impl std::fmt::Display, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(std::time::Duration::from_secs(3600), future).await {
        Ok(output) => output,
        Err(_) => panic!("hangs: {what}"),
    }
}

/// Whether `future` still waits when nothing else happens any more. Wants a paused clock.
pub async fn waits<T>(future: impl Future<Output = T>) -> bool {
    tokio::time::timeout(std::time::Duration::from_secs(3600), future).await.is_err()
}
