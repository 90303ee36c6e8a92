//! TurboMCP's transports by themselves: each message it delivers is sent back. That is less than its server does for
//! one, so the figures are the best it can reach.

use std::{io, path::PathBuf, process::exit};

use framewire_rivals::{Options, Transport as On, finish};
use turbomcp_transport::{StdioTransport, TcpTransport, Transport, UnixTransport};

async fn echo<T: Transport>(transport: T) -> io::Result<()> {
    transport.connect().await.map_err(io::Error::other)?;
    // Its end of stream is an error value like any other.
    while let Ok(message) = transport.receive().await {
        if let Some(message) = message {
            transport.send(message).await.map_err(io::Error::other)?;
        }
    }
    Ok(())
}

fn main() {
    let options = Options::from_args().unwrap_or_else(|error| {
        eprintln!("{error}");
        exit(2)
    });
    finish(options.runtime().and_then(|runtime| {
        runtime.block_on(async {
            match options.transport {
                On::Pipe | On::Stdio => echo(StdioTransport::new()).await,
                On::Unix => echo(UnixTransport::new_server(PathBuf::from(&options.addr))).await,
                On::Tcp => {
                    let addr = options.addr.parse().map_err(io::Error::other)?;
                    echo(TcpTransport::new_server(addr)).await
                }
            }
        })
    }));
    // tokio's stdin leaves a thread in read(2) that a runtime would wait for.
    exit(0)
}
