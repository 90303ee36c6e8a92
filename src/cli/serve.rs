//! `framewire __serve`: the server that `framewire bench` measures, a process of its own with the plain loop that a
//! user would write.

use std::time::Duration;

#[cfg(unix)]
use framewire::io::unix;
use framewire::{
    Link,
    codec::{Codec, Newline, WebSocket, websocket::handshake::ServerConfig},
    endpoint::{Address, Endpoint, Place},
    io::{tcp, tls},
    link::LinkConfig,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{bench::memory, exit::Failure, open};

/// How long to wait for the one connection, in case the benchmark died before it came.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(20);

/// The first argument that makes this program such a server.
pub(crate) const NAME: &str = "__serve";

/// What `framewire bench` says after [`NAME`]. Read by hand, so that the memory that is measured is not that of a parser
/// of command lines.
#[derive(Debug)]
pub(crate) struct Arguments {
    /// Where to serve one connection; `demo:` stands for the pair in memory.
    pub(crate) endpoint: Endpoint,
    /// The load on the pair in memory.
    pub(crate) size: usize,
    pub(crate) window: usize,
    pub(crate) duration: Duration,
}

impl Arguments {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, size: 0, window: 0, duration: Duration::ZERO }
    }

    /// As words for a command line.
    pub(crate) fn words(&self) -> [String; 5] {
        let micros = self.duration.as_micros();
        [
            NAME.to_owned(),
            self.endpoint.to_string(),
            self.size.to_string(),
            self.window.to_string(),
            micros.to_string(),
        ]
    }

    fn read(mut words: impl Iterator<Item = String>) -> Option<Self> {
        Some(Self {
            endpoint: words.next()?.parse().ok()?,
            size: words.next()?.parse().ok()?,
            window: words.next()?.parse().ok()?,
            duration: Duration::from_micros(words.next()?.parse().ok()?),
        })
    }
}

/// Serves, when the words after the program's name say so.
pub(crate) fn start(mut words: impl Iterator<Item = String>) -> Option<Result<(), Failure>> {
    if words.next()? != NAME {
        return None;
    }
    let Some(arguments) = Arguments::read(words) else {
        return Some(Err(Failure::usage("__serve is for framewire bench alone")));
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Some(Err(Failure::runtime(error))),
    };
    Some(runtime.block_on(serve(&arguments)))
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
        Address::Tls(address) => {
            let settings = super::tls::server(&arguments.endpoint, address)?;
            let bind = tls::Listener::bind((address.host.as_str(), address.port), settings);
            let mut listener = bind.await.map_err(Failure::runtime)?;
            super::print(&listener.local_addr().map_err(Failure::runtime)?.port().to_string())?;
            let accepted = tokio::time::timeout(ACCEPT_TIMEOUT, listener.accept()).await.map_err(late)?;
            let (reader, writer, _) = accepted.map_err(Failure::runtime)?;
            echo(Link::pair(Newline::new(), reader, writer)).await;
        }
        Address::WebSocket(url, address) => match &url.place {
            Place::Tcp { host, port, secure: false } => {
                let bind = tcp::Listener::bind((host.as_str(), *port)).await;
                let listener = bind.map_err(Failure::runtime)?;
                super::print(&listener.local_addr().map_err(Failure::runtime)?.port().to_string())?;
                let accepted = tokio::time::timeout(ACCEPT_TIMEOUT, listener.accept()).await.map_err(late)?;
                let (reader, writer, _) = accepted.map_err(Failure::runtime)?;
                echo(answered(reader, writer).await?).await;
            }
            Place::Tcp { host, port, .. } => {
                let settings = super::tls::server(&arguments.endpoint, address)?;
                let bind = tls::Listener::bind((host.as_str(), *port), settings).await;
                let mut listener = bind.map_err(Failure::runtime)?;
                super::print(&listener.local_addr().map_err(Failure::runtime)?.port().to_string())?;
                let accepted = tokio::time::timeout(ACCEPT_TIMEOUT, listener.accept()).await.map_err(late)?;
                let (reader, writer, _) = accepted.map_err(Failure::runtime)?;
                echo(answered(reader, writer).await?).await;
            }
            _ => return Err(Failure::usage("__serve is for framewire bench alone")),
        },
        #[cfg(unix)]
        Address::Unix(path) => {
            let listener = unix::Listener::bind(path).map_err(Failure::runtime)?;
            super::print("ready")?;
            let accepted = tokio::time::timeout(ACCEPT_TIMEOUT, listener.accept()).await.map_err(late)?;
            let (reader, writer, _) = accepted.map_err(Failure::runtime)?;
            echo(Link::pair(Newline::new(), reader, writer)).await;
        }
        _ => memory(arguments.size, arguments.window, arguments.duration).await?,
    }
    Ok(())
}

/// The WebSocket that is asked for.
async fn answered<R, W>(reader: R, writer: W) -> Result<Link<WebSocket, R, W>, Failure>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (server, codec) = (ServerConfig::new(), WebSocket::server());
    let answered = Link::answer(reader, writer, &server, codec, LinkConfig::default()).await;
    answered.map(|(link, _)| link).map_err(Failure::runtime)
}

/// The plain loop.
async fn echo<C, R, W>(link: Link<C, R, W>)
where
    C: Codec,
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
