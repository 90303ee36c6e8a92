//! [`AnyLink`]: the one link type of the command. Which transport and which framing it is on is an enum below it, so
//! that the bridge exists once in the program, and a message costs one branch and no allocation.

use std::{
    io::{self, IoSlice},
    ops::Range,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

#[cfg(unix)]
use framewire::io::{child, unix};
use framewire::{
    Frame, Link,
    codec::{
        Codec, ContentLength, ContentLengthDecoder, ContentLengthEncoder, Decode, Embedded, Encode, Excerpt,
        JsonValues, JsonValuesDecoder, JsonValuesEncoder, Kind, LengthPrefix, LengthPrefixDecoder,
        LengthPrefixEncoder, Newline, NewlineDecoder, NewlineEncoder, Reply, Step, ValidatedDecoder,
        WebSocket, WebSocketDecoder, WebSocketEncoder, Wrap, websocket::CloseReason,
    },
    endpoint::Framing,
    error::{Rejection, Violation},
    io::{memory, stdio, tcp, tls},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A link on any transport with any framing.
pub(crate) type AnyLink = Link<AnyCodec, AnyReader, AnyWriter>;

/// Any framing of a byte stream.
#[derive(Debug, Clone)]
pub(crate) enum AnyCodec {
    Newline(Newline),
    Length(LengthPrefix),
    ContentLength(ContentLength),
    Json(JsonValues),
    WebSocket(Box<WebSocket>),
}

impl AnyCodec {
    /// `framing`, with `max` bytes of payload as the limit both ways.
    pub(crate) fn new(framing: Framing, max: usize) -> Self {
        match framing {
            Framing::Length => Self::Length(LengthPrefix::new().max_size(max)),
            Framing::ContentLength => Self::ContentLength(ContentLength::new().max_size(max)),
            Framing::Json => Self::Json(JsonValues::new().max_size(max)),
            _ => Self::Newline(Newline::new().max_size(max)),
        }
    }

    /// Where a line is a message, sends those that are known to be JSON on one line, whatever lines they came on.
    pub(crate) fn on_one_line(self, json: bool) -> Self {
        match self {
            Self::Newline(codec) if json => Self::Newline(codec.embedded(Embedded::Blank)),
            codec => codec,
        }
    }
}

impl Codec for AnyCodec {
    type Decoder = AnyDecoder;
    type Encoder = AnyEncoder;

    fn split(self) -> (AnyDecoder, AnyEncoder) {
        match self {
            Self::Newline(codec) => {
                let (decoder, encoder) = codec.split();
                (AnyDecoder::Newline(decoder), AnyEncoder::Newline(encoder))
            }
            Self::Length(codec) => {
                let (decoder, encoder) = codec.split();
                (AnyDecoder::Length(decoder), AnyEncoder::Length(encoder))
            }
            Self::ContentLength(codec) => {
                let (decoder, encoder) = codec.split();
                (AnyDecoder::ContentLength(decoder), AnyEncoder::ContentLength(encoder))
            }
            Self::Json(codec) => {
                let (decoder, encoder) = codec.split();
                (AnyDecoder::Json(decoder), AnyEncoder::Json(encoder))
            }
            Self::WebSocket(codec) => {
                let (decoder, encoder) = codec.split();
                (AnyDecoder::WebSocket(Box::new(decoder)), AnyEncoder::WebSocket(Box::new(encoder)))
            }
        }
    }
}

/// Any framing's decoder.
#[derive(Debug)]
pub(crate) enum AnyDecoder {
    Newline(NewlineDecoder),
    Length(LengthPrefixDecoder),
    ContentLength(ContentLengthDecoder),
    Json(JsonValuesDecoder),
    WebSocket(Box<WebSocketDecoder>),
    /// Any of them, whose messages have to be JSON.
    Validated(Box<ValidatedDecoder<Self>>),
}

/// The same call, whichever it is.
macro_rules! each_codec {
    ($any:expr, $codec:ident => $call:expr) => {
        match $any {
            Self::Newline($codec) => $call,
            Self::Length($codec) => $call,
            Self::ContentLength($codec) => $call,
            Self::Json($codec) => $call,
            Self::WebSocket($codec) => $call,
        }
    };
}

/// As above, of decoders.
macro_rules! each_decoder {
    ($any:expr, $codec:ident => $call:expr) => {
        match $any {
            Self::Newline($codec) => $call,
            Self::Length($codec) => $call,
            Self::ContentLength($codec) => $call,
            Self::Json($codec) => $call,
            Self::WebSocket($codec) => $call,
            Self::Validated($codec) => $call,
        }
    };
}

impl AnyDecoder {
    /// Has messages be JSON from now on. Nothing has been received yet.
    pub(crate) fn validate(&mut self) {
        let decoder = std::mem::replace(self, Self::Newline(NewlineDecoder::default()));
        *self = Self::Validated(Box::new(ValidatedDecoder::new(decoder)));
    }

    /// What the peer's Close frame said, where there are such.
    pub(crate) fn close_reason(&self) -> Option<&CloseReason> {
        match self {
            Self::WebSocket(decoder) => decoder.close_reason(),
            Self::Validated(decoder) => decoder.get_ref().close_reason(),
            _ => None,
        }
    }
}

impl Decode for AnyDecoder {
    #[inline]
    fn decode(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        each_decoder!(self, decoder => decoder.decode(src))
    }

    fn decode_eof(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        each_decoder!(self, decoder => decoder.decode_eof(src))
    }

    fn produced(&mut self) -> &mut [u8] {
        each_decoder!(self, decoder => decoder.produced())
    }

    fn take_produced(&mut self) -> Frame {
        each_decoder!(self, decoder => decoder.take_produced())
    }

    fn poll_reply(&mut self) -> Option<Reply> {
        each_decoder!(self, decoder => decoder.poll_reply())
    }

    #[inline]
    fn kind(&self) -> Kind {
        each_decoder!(self, decoder => decoder.kind())
    }

    fn is_mid_message(&self) -> bool {
        each_decoder!(self, decoder => decoder.is_mid_message())
    }

    fn unfinished(&self, src: &[u8]) -> Range<usize> {
        each_decoder!(self, decoder => decoder.unfinished(src))
    }

    fn excerpt(&self) -> Option<Excerpt<'_>> {
        each_decoder!(self, decoder => decoder.excerpt())
    }

    fn idle_interval(&self) -> Option<Duration> {
        each_decoder!(self, decoder => decoder.idle_interval())
    }

    fn handle_idle(&mut self) -> Result<(), Violation> {
        each_decoder!(self, decoder => decoder.handle_idle())
    }
}

/// Any framing's encoder.
#[derive(Debug)]
pub(crate) enum AnyEncoder {
    Newline(NewlineEncoder),
    Length(LengthPrefixEncoder),
    ContentLength(ContentLengthEncoder),
    Json(JsonValuesEncoder),
    WebSocket(Box<WebSocketEncoder>),
}

impl Encode for AnyEncoder {
    #[inline]
    fn overhead(&self) -> usize {
        each_codec!(self, encoder => encoder.overhead())
    }

    #[inline]
    fn encode(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<usize, Rejection> {
        each_codec!(self, encoder => encoder.encode(payload, dst))
    }

    #[inline]
    fn room(&self, size: usize) -> usize {
        each_codec!(self, encoder => encoder.room(size))
    }

    #[inline]
    fn set_kind(&mut self, kind: Kind) {
        each_codec!(self, encoder => encoder.set_kind(kind));
    }

    fn goodbye(&mut self) -> Option<Reply> {
        each_codec!(self, encoder => encoder.goodbye())
    }

    fn takes_leave(&self) -> bool {
        each_codec!(self, encoder => encoder.takes_leave())
    }

    fn wrap(&mut self, parts: &[IoSlice<'_>]) -> Result<Option<Wrap>, Rejection> {
        each_codec!(self, encoder => encoder.wrap(parts))
    }
}

/// Any transport's reader.
#[derive(Debug)]
pub(crate) enum AnyReader {
    Stdio(stdio::Stdin),
    #[cfg(unix)]
    Child(child::ChildReader),
    Tcp(tcp::TcpReader),
    Tls(tls::TlsReader),
    #[cfg(unix)]
    Unix(unix::UnixReader),
    Memory(memory::MemoryReader),
}

/// Any transport's writer.
#[derive(Debug)]
pub(crate) enum AnyWriter {
    Stdio(stdio::Stdout),
    #[cfg(unix)]
    Child(child::ChildWriter),
    Tcp(tcp::TcpWriter),
    Tls(tls::TlsWriter),
    #[cfg(unix)]
    Unix(unix::UnixWriter),
    Memory(memory::MemoryWriter),
}

/// The same call, whichever it is.
macro_rules! each {
    ($of:ident, $any:expr, $end:ident => $call:expr) => {
        match $any {
            $of::Stdio($end) => $call,
            #[cfg(unix)]
            $of::Child($end) => $call,
            $of::Tcp($end) => $call,
            $of::Tls($end) => $call,
            #[cfg(unix)]
            $of::Unix($end) => $call,
            $of::Memory($end) => $call,
        }
    };
}

impl AsyncRead for AnyReader {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(Self, self.get_mut(), end => Pin::new(end).poll_read(cx, buffer))
    }
}

impl AsyncWrite for AnyWriter {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(Self, self.get_mut(), end => Pin::new(end).poll_write(cx, bytes))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(Self, self.get_mut(), end => Pin::new(end).poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        each!(Self, self, end => end.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(Self, self.get_mut(), end => Pin::new(end).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(Self, self.get_mut(), end => Pin::new(end).poll_shutdown(cx))
    }
}
