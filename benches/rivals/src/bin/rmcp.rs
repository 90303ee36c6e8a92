//! The official Rust SDK: a server without tools, which answers `initialize` and `ping`. Over `--transport pipe` it
//! uses the SDK's readiness-based `stdio_pipes()`, over `stdio` its default, `stdio()`.

use std::{io, process::exit};

use framewire_rivals::{Options, Serve, Transport, finish, serve};
use rmcp::{
    ServerHandler, ServiceExt,
    transport::{stdio, stdio_pipes},
};
use tokio::io::{AsyncRead, AsyncWrite};

struct Ping;

impl ServerHandler for Ping {}

struct Service;

impl Serve for Service {
    async fn serve<R, W>(self, reader: R, writer: W) -> io::Result<()>
    where
        R: AsyncRead + Unpin + Send + Sync + 'static,
        W: AsyncWrite + Unpin + Send + Sync + 'static,
    {
        let service = Ping.serve((reader, writer)).await.map_err(io::Error::other)?;
        service.waiting().await.map_err(io::Error::other)?;
        Ok(())
    }
}

fn main() {
    let options = Options::from_args().unwrap_or_else(|error| {
        eprintln!("{error}");
        exit(2)
    });
    finish(options.runtime().and_then(|runtime| {
        runtime.block_on(async {
            match options.transport {
                Transport::Pipe => {
                    let (reader, writer) = stdio_pipes();
                    Service.serve(reader, writer).await
                }
                Transport::Stdio => {
                    let (reader, writer) = stdio();
                    Service.serve(reader, writer).await
                }
                Transport::Unix | Transport::Tcp => serve(&options, Service).await,
            }
        })
    }));
    // tokio's stdin leaves a thread in read(2) that a runtime would wait for.
    exit(0)
}
