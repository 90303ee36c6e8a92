//! What the servers of the rivals share: how they are told what to serve, and the byte streams they are put on.
//!
//! Nothing here is ours to be measured: a rival is written the way its own documentation shows it, or better where the
//! documented way is plainly slower, so that it is measured at its best.

use std::{
    env,
    fs::File,
    io,
    net::{TcpListener as StdTcpListener, TcpStream as StdTcpStream},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream},
    },
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::unix::pipe,
    runtime::{Builder, Runtime},
};

/// What a server is put on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Descriptors 0 and 1, which are pipes, under readiness.
    Pipe,
    /// tokio's `stdin()` and `stdout()`, or what the rival has of its own for standard input and output.
    Stdio,
    /// A Unix socket that is listened on at `--addr`; one connection is served.
    Unix,
    /// A TCP socket that is listened on at `--addr`; one connection is served.
    Tcp,
}

/// When answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Once no further message is there.
    Batched,
    /// After each message.
    Each,
}

/// The arguments every server takes.
#[derive(Debug, Clone)]
pub struct Options {
    /// The first argument: which server of the binary.
    pub server: String,
    /// `--transport pipe|stdio|unix|tcp`
    pub transport: Transport,
    /// `--addr`: a path or `host:port`.
    pub addr: String,
    /// `--flush batched|each`
    pub flush: Flush,
    /// `--capacity`: the size in bytes of read buffers that have a size.
    pub capacity: usize,
    /// `--threads`: 0 for tokio's current-thread runtime, otherwise worker threads.
    pub threads: usize,
}

impl Options {
    /// Reads the arguments of the process.
    ///
    /// # Errors
    /// A text that names the argument that is not understood.
    pub fn from_args() -> Result<Self, String> {
        let mut args = env::args().skip(1);
        let server = args.next().ok_or("which server?")?;
        let mut options = Self {
            server,
            transport: Transport::Pipe,
            addr: String::new(),
            flush: Flush::Batched,
            capacity: 64 * 1024,
            threads: 0,
        };
        while let Some(name) = args.next() {
            let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
            let bad = || format!("{name} does not take {value}");
            match name.as_str() {
                "--transport" => {
                    options.transport = match value.as_str() {
                        "pipe" => Transport::Pipe,
                        "stdio" => Transport::Stdio,
                        "unix" => Transport::Unix,
                        "tcp" => Transport::Tcp,
                        _ => return Err(bad()),
                    }
                }
                "--flush" => {
                    options.flush = match value.as_str() {
                        "batched" => Flush::Batched,
                        "each" => Flush::Each,
                        _ => return Err(bad()),
                    }
                }
                "--addr" => options.addr.clone_from(&value),
                "--capacity" => options.capacity = value.parse().map_err(|_| bad())?,
                "--threads" => options.threads = value.parse().map_err(|_| bad())?,
                _ => return Err(format!("unknown argument {name}")),
            }
        }
        Ok(options)
    }

    /// The runtime that was asked for.
    ///
    /// # Errors
    /// When tokio cannot build it.
    pub fn runtime(&self) -> io::Result<Runtime> {
        match self.threads {
            0 => Builder::new_current_thread().enable_all().build(),
            threads => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
        }
    }
}

/// A server that works on any pair of byte streams.
pub trait Serve {
    /// Serves until the reader ends.
    fn serve<R, W>(self, reader: R, writer: W) -> impl Future<Output = io::Result<()>>
    where
        R: AsyncRead + Unpin + Send + Sync + 'static,
        W: AsyncWrite + Unpin + Send + Sync + 'static;
}

/// Opens what `options` names and serves it with `server`, monomorphised for each kind of stream.
///
/// # Errors
/// When the stream cannot be opened, and what the server returns.
pub async fn serve<S: Serve>(options: &Options, server: S) -> io::Result<()> {
    match options.transport {
        Transport::Pipe => {
            let (reader, writer) = standard()?;
            server.serve(pipe::Receiver::from_owned_fd(reader)?, pipe::Sender::from_owned_fd(writer)?).await
        }
        Transport::Stdio => server.serve(tokio::io::stdin(), tokio::io::stdout()).await,
        Transport::Unix => {
            let stream = accept_unix(&options.addr)?;
            stream.set_nonblocking(true)?;
            let (reader, writer) = tokio::net::UnixStream::from_std(stream)?.into_split();
            server.serve(reader, writer).await
        }
        Transport::Tcp => {
            let stream = accept_tcp(&options.addr)?;
            stream.set_nonblocking(true)?;
            let (reader, writer) = tokio::net::TcpStream::from_std(stream)?.into_split();
            server.serve(reader, writer).await
        }
    }
}

/// Descriptors of our own for standard input and output.
///
/// # Errors
/// When the descriptor cannot be doubled.
pub fn standard() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok((io::stdin().as_fd().try_clone_to_owned()?, io::stdout().as_fd().try_clone_to_owned()?))
}

/// Waits for one connection at `path`.
///
/// # Errors
/// When the path cannot be listened on.
pub fn accept_unix(path: &str) -> io::Result<StdUnixStream> {
    Ok(StdUnixListener::bind(path)?.accept()?.0)
}

/// Waits for one connection at `addr` and turns Nagle's algorithm off on it.
///
/// # Errors
/// When the address cannot be listened on.
pub fn accept_tcp(addr: &str) -> io::Result<StdTcpStream> {
    let stream = StdTcpListener::bind(addr)?.accept()?.0;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A blocking stream for servers without a runtime.
///
/// # Errors
/// When the stream cannot be opened.
pub fn blocking(options: &Options) -> io::Result<(File, File)> {
    let (reader, writer) = match options.transport {
        Transport::Pipe | Transport::Stdio => standard()?,
        Transport::Unix => {
            let stream = OwnedFd::from(accept_unix(&options.addr)?);
            (stream.try_clone()?, stream)
        }
        Transport::Tcp => {
            let stream = OwnedFd::from(accept_tcp(&options.addr)?);
            (stream.try_clone()?, stream)
        }
    };
    Ok((reader.into(), writer.into()))
}

/// The end of every server's `main`: a peer that goes away is a normal end.
pub fn finish(result: io::Result<()>) {
    if let Err(error) = result
        && !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
    {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
