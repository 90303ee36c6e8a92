//! Sends every WebSocket message back as the kind it came as: a server, or a client that does the same.
//!
//! `cargo run --example ws_echo -- --addr HOST:PORT` listens, and prints where; `-- --connect ws://HOST:PORT/PATH`
//! connects.

use std::env;

use framewire::{
    Error, Link,
    codec::{
        Encode, WebSocket,
        websocket::handshake::{Request, ServerConfig},
    },
    endpoint::Url,
    io::tcp,
    link::LinkConfig,
    transport::{WebSocketOptions, WebSocketTransport},
};
use tokio::io::{AsyncRead, AsyncWrite};

/// The plain loop: one message in, the same message out. Answers to what one read brought leave in one write.
async fn echo<R, W>(mut link: Link<WebSocket, R, W>) -> framewire::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (sender, receiver) = link.halves();
    loop {
        // Lent: the message lies where it was read until the next one is asked for.
        match receiver.receive_with_kind().await {
            Ok((kind, message)) => {
                sender.encoder_mut().set_kind(kind);
                sender.send(message).await?;
            }
            Err(Error::Ended(_)) => break,
            Err(error) => {
                // The Close frame that says what the peer did wrong leaves with the close.
                let _told = link.close().await;
                return Err(error);
            }
        }
    }
    link.close().await
}

async fn serve(reader: tcp::TcpReader, writer: tcp::TcpWriter, config: ServerConfig) {
    let link = match Link::answer(reader, writer, &config, WebSocket::server(), LinkConfig::default()).await {
        Ok((link, _accepted)) => link,
        Err(error) => return eprintln!("{error}"),
    };
    match echo(link).await {
        Ok(()) | Err(Error::Ended(_)) => {}
        Err(error) => eprintln!("{error}"),
    }
}

async fn listen(addr: &str) -> Result<(), Box<dyn std::error::Error>> {
    let listener = tcp::Listener::bind(addr).await?;
    println!("listening on {}", listener.local_addr()?);
    let config = ServerConfig::new();
    loop {
        let (reader, writer, _peer) = listener.accept().await?;
        tokio::spawn(serve(reader, writer, config.clone()));
    }
}

async fn connect(url: &str) -> Result<(), Box<dyn std::error::Error>> {
    let url: Url = url.parse()?;
    let options = WebSocketOptions::new(Request::new(&url.host, &url.target)?);
    let (link, _connected) = <WebSocketTransport>::connect_with(&url.place, options).await?;
    match echo(link).await {
        Ok(()) | Err(Error::Ended(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (Some("--addr"), Some(addr)) => listen(&addr).await,
        (Some("--connect"), Some(url)) => connect(&url).await,
        _ => Err("--addr HOST:PORT or --connect URL".into()),
    }
}
