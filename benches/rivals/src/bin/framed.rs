//! tokio's and tokio-util's own framing: `lines` (LinesCodec), `length` (LengthDelimitedCodec), `bufread` (BufReader's
//! `lines()` and two writes per answer, as several MCP servers have it).

use std::{io, process::exit};

use bytes::{Buf, Bytes, BytesMut};
use framewire_rivals::{Flush, Options, Serve, finish, serve};
use futures::{FutureExt, SinkExt, StreamExt};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio_util::codec::{Decoder, Encoder, FramedRead, FramedWrite, LengthDelimitedCodec, LinesCodec};

struct Framed<C> {
    codec: fn() -> C,
    flush: Flush,
    capacity: usize,
}

impl<C, I> Framed<C>
where
    C: Decoder<Item = I, Error = io::Error> + Encoder<I, Error = io::Error>,
{
    async fn echo<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(self, reader: R, writer: W) -> io::Result<()> {
        let mut frames = FramedRead::with_capacity(reader, (self.codec)(), self.capacity);
        let mut answers = FramedWrite::new(writer, (self.codec)());
        // Without this a corked writer still writes every 8 KiB.
        answers.set_backpressure_boundary(self.capacity);
        while let Some(frame) = frames.next().await {
            answers.feed(frame?).await?;
            if self.flush == Flush::Batched {
                while let Some(Some(frame)) = frames.next().now_or_never() {
                    answers.feed(frame?).await?;
                }
            }
            answers.flush().await?;
        }
        Ok(())
    }
}

struct Lines(Framed<Line>);
struct Length(Framed<Prefix>);
struct BufRead;

impl Serve for Lines {
    async fn serve<R, W>(self, reader: R, writer: W) -> io::Result<()>
    where
        R: AsyncRead + Unpin + Send + Sync + 'static,
        W: AsyncWrite + Unpin + Send + Sync + 'static,
    {
        self.0.echo(reader, writer).await
    }
}

impl Serve for Length {
    async fn serve<R, W>(self, reader: R, writer: W) -> io::Result<()>
    where
        R: AsyncRead + Unpin + Send + Sync + 'static,
        W: AsyncWrite + Unpin + Send + Sync + 'static,
    {
        self.0.echo(reader, writer).await
    }
}

impl Serve for BufRead {
    async fn serve<R, W>(self, reader: R, mut writer: W) -> io::Result<()>
    where
        R: AsyncRead + Unpin + Send + Sync + 'static,
        W: AsyncWrite + Unpin + Send + Sync + 'static,
    {
        let mut lines = BufReader::new(reader).lines();
        while let Some(line) = lines.next_line().await? {
            writer.write_all(line.as_bytes()).await?;
            writer.write_all(b"\n").await?;
            writer.flush().await?;
        }
        Ok(())
    }
}

/// LinesCodec as it is; only its error becomes an `io::Error`.
struct Line(LinesCodec);

impl Decoder for Line {
    type Item = String;
    type Error = io::Error;

    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<String>> {
        self.0.decode(src).map_err(io::Error::other)
    }
}

impl Encoder<String> for Line {
    type Error = io::Error;

    fn encode(&mut self, line: String, dst: &mut BytesMut) -> io::Result<()> {
        self.0.encode(line, dst).map_err(io::Error::other)
    }
}

/// LengthDelimitedCodec as it is; a received frame is given back without a copy.
struct Prefix(LengthDelimitedCodec);

impl Decoder for Prefix {
    type Item = BytesMut;
    type Error = io::Error;

    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<BytesMut>> {
        self.0.decode(src)
    }
}

impl Encoder<BytesMut> for Prefix {
    type Error = io::Error;

    fn encode(&mut self, mut frame: BytesMut, dst: &mut BytesMut) -> io::Result<()> {
        let size = frame.remaining();
        self.0.encode(Bytes::from(frame.split_to(size)), dst)
    }
}

fn main() {
    let options = Options::from_args().unwrap_or_else(|error| {
        eprintln!("{error}");
        exit(2)
    });
    let (flush, capacity) = (options.flush, options.capacity);
    let result = options.runtime().and_then(|runtime| {
        runtime.block_on(async {
            match options.server.as_str() {
                "length" => {
                    let codec =
                        || Prefix(LengthDelimitedCodec::builder().max_frame_length(64 << 20).new_codec());
                    serve(&options, Length(Framed { codec, flush, capacity })).await
                }
                "bufread" => serve(&options, BufRead).await,
                _ => {
                    serve(&options, Lines(Framed { codec: || Line(LinesCodec::new()), flush, capacity }))
                        .await
                }
            }
        })
    });
    finish(result);
    // tokio's stdin leaves a thread in read(2) that a runtime would wait for.
    exit(0)
}
