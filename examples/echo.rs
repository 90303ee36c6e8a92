//! Echo over TCP or a Unix socket with the plain loop a user would write.
//!
//! `cargo run --release --example echo -- tcp 127.0.0.1:9100` or `… -- unix /tmp/echo.sock`
use framewire::{Link, codec::Newline};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    match args[1].as_str() {
        "tcp" => {
            let listener = tokio::net::TcpListener::bind(&args[2]).await?;
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let (reader, writer) = stream.into_split();
                tokio::spawn(serve(Link::pair(Newline::default(), reader, writer)));
            }
        }
        _ => {
            let listener = tokio::net::UnixListener::bind(&args[2])?;
            loop {
                let (stream, _) = listener.accept().await?;
                let (reader, writer) = stream.into_split();
                tokio::spawn(serve(Link::pair(Newline::default(), reader, writer)));
            }
        }
    }
}

async fn serve<R, W>(mut link: Link<Newline, R, W>)
where
    R: tokio::io::AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    while let Ok(message) = link.receive().await {
        if link.send(&message).await.is_err() {
            break;
        }
    }
}
