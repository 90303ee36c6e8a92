//! `framewire __serve`: the server that `framewire bench` measures, a process of its own with the plain loop that a
//! user would write.

use std::time::Duration;

use clap::Args;
#[cfg(unix)]
use framewire::io::unix;
use framewire::{
    Link,
    codec::Newline,
    endpoint::{Address, Endpoint, Size},
    io::tcp,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{bench::memory, exit::Failure, open, quantity};

/// How long to wait for the one connection, in case the benchmark died before it came.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where to serve one connection; demo: stands for the pair in memory
    endpoint: Endpoint,
    #[arg(long, default_value = "100", value_parser = quantity::size)]
    size: Size,
    #[arg(long, default_value_t = 64)]
    window: usize,
    #[arg(long, default_value = "2s", value_parser = quantity::duration)]
    duration: Duration,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::runtime)?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let late = |_| Failure::runtime("nobody connected");
    match &arguments.endpoint.address {
        Address::Stdio => echo(open::stdio(Newline::new()).map_err(Failure::runtime)?).await,
        Address::Tcp { host, port } => {
            let listener = tcp::Listener::bind((host.as_str(), *port)).await.map_err(Failure::runtime)?;
            super::print(&listener.local_addr().map_err(Failure::runtime)?.port().to_string())?;
            let accepted = tokio::time::timeout(ACCEPT_TIMEOUT, listener.accept()).await.map_err(late)?;
            let (reader, writer, _) = accepted.map_err(Failure::runtime)?;
            echo(Link::pair(Newline::new(), reader, writer)).await;
        }
        #[cfg(unix)]
        Address::Unix(path) => {
            let listener = unix::Listener::bind(path).map_err(Failure::runtime)?;
            super::print("ready")?;
            let accepted = tokio::time::timeout(ACCEPT_TIMEOUT, listener.accept()).await.map_err(late)?;
            let (reader, writer, _) = accepted.map_err(Failure::runtime)?;
            echo(Link::pair(Newline::new(), reader, writer)).await;
        }
        _ => memory(arguments.size.0, arguments.window, arguments.duration).await?,
    }
    Ok(())
}

/// The plain loop.
async fn echo<R, W>(link: Link<Newline, R, W>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, mut receiver) = link.split();
    while let Ok(message) = receiver.receive_lent().await {
        if sender.send(message).await.is_err() {
            break;
        }
    }
    let _ = sender.close().await;
}
