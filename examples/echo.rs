//! Sends every message back, over whatever it is told to: the smallest server there is, and the one that
//! `benches/transport.rs` measures.
//!
//! `cargo run --example echo -- --transport stdio|pipe|unix|tcp [--addr PATH|HOST:PORT] [--framing newline|length]
//! [--receive owned|lent]`

use std::{env, io, os::fd::AsFd};

use framewire::{
    Error, Link,
    codec::{Codec, LengthPrefix, Newline},
    io::{stdio, tcp, unix},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::unix::pipe,
};

/// The plain loop: one message in, the same message out. Answers to what one read brought leave in one write.
async fn echo<C, R, W>(codec: C, reader: R, writer: W) -> framewire::Result<()>
where
    C: Codec,
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut link = Link::pair(codec, reader, writer);
    loop {
        match link.receive().await {
            Ok(message) => link.send(&message).await?,
            Err(Error::Ended(_)) => break,
            Err(error) => return Err(error),
        }
    }
    // The peer may be slow to take the last answers, and this program is about to end.
    link.close().await
}

/// The same without ownership: the message is lent by one half while the other sends it.
async fn echo_lent<C, R, W>(codec: C, reader: R, writer: W) -> framewire::Result<()>
where
    C: Codec,
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, mut receiver) = Link::pair(codec, reader, writer).split();
    loop {
        match receiver.receive_lent().await {
            Ok(message) => sender.send(message).await?,
            Err(Error::Ended(_)) => break,
            Err(error) => return Err(error),
        }
    }
    sender.close().await
}

#[derive(Clone)]
struct Args {
    transport: String,
    addr: String,
    framing: String,
    lent: bool,
}

impl Args {
    fn parse() -> Result<Self, String> {
        let mut parsed =
            Self { transport: "pipe".into(), addr: String::new(), framing: "newline".into(), lent: false };
        let mut args = env::args().skip(1);
        while let Some(name) = args.next() {
            let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--transport" => parsed.transport = value,
                "--addr" => parsed.addr = value,
                "--framing" if ["newline", "length"].contains(&value.as_str()) => parsed.framing = value,
                "--receive" => parsed.lent = value == "lent",
                _ => return Err(format!("{name} {value} is not understood")),
            }
        }
        Ok(parsed)
    }

    async fn serve<R, W>(self, reader: R, writer: W)
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let ended = match (self.framing.as_str(), self.lent) {
            ("length", false) => echo(LengthPrefix::default(), reader, writer).await,
            ("length", true) => echo_lent(LengthPrefix::default(), reader, writer).await,
            (_, false) => echo(Newline::default(), reader, writer).await,
            (_, true) => echo_lent(Newline::default(), reader, writer).await,
        };
        match ended {
            Ok(()) | Err(Error::Ended(_)) => {}
            Err(error) => eprintln!("{error}"),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse()?;
    match args.transport.as_str() {
        "pipe" => {
            let reader = io::stdin().as_fd().try_clone_to_owned()?;
            let writer = io::stdout().as_fd().try_clone_to_owned()?;
            args.serve(pipe::Receiver::from_owned_fd(reader)?, pipe::Sender::from_owned_fd(writer)?).await;
            Ok(())
        }
        "stdio" => {
            let (reader, writer) = stdio::open()?;
            args.serve(reader, writer).await;
            Ok(())
        }
        "unix" => {
            let listener = unix::Listener::bind(&args.addr)?;
            loop {
                let (reader, writer, _peer) = listener.accept().await?;
                tokio::spawn(args.clone().serve(reader, writer));
            }
        }
        "tcp" => {
            let listener = tcp::Listener::bind(&args.addr).await?;
            loop {
                let (reader, writer, _peer) = listener.accept().await?;
                tokio::spawn(args.clone().serve(reader, writer));
            }
        }
        transport => Err(format!("no transport {transport}").into()),
    }
}
