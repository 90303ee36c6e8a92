//! Two Rust peers: `framewire-websocket-peers tungstenite|fastwebsockets client|server scenario|echo PORT`.
//!
//! A server prints `ready` once it listens. `scenario` serves one connection and ends with 0 when all was right; `echo`
//! goes on until it is ended. Neither crate has permessage-deflate.

mod fast;
mod scenario;
mod tung;

use std::{env, error::Error, future::Future, process::ExitCode, time::Duration};

use tokio::net::{TcpListener, TcpStream};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["tungstenite", "client", part, port] => client(port, part, tung::client).await,
        ["tungstenite", "server", part, port] => server(port, part, tung::server).await,
        ["fastwebsockets", "client", part, port] => client(port, part, fast::client).await,
        ["fastwebsockets", "server", part, port] => server(port, part, fast::server).await,
        _ => Err("tungstenite|fastwebsockets client|server scenario|echo PORT".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn client<F>(port: &str, part: &str, run: impl FnOnce(TcpStream, String, bool) -> F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    let host = format!("127.0.0.1:{port}");
    let stream = TcpStream::connect(&host).await?;
    let echo = part == "echo";
    let running = run(stream, host, echo);
    if echo { running.await } else { tokio::time::timeout(LIMIT, running).await? }
}

async fn server<F>(port: &str, part: &str, run: impl Fn(TcpStream, bool) -> F) -> Outcome
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("ready");
    loop {
        let (stream, _) = listener.accept().await?;
        if part != "echo" {
            return tokio::time::timeout(LIMIT, run(stream, false)).await?;
        }
        let running = run(stream, true);
        tokio::spawn(async move {
            if let Err(error) = running.await {
                eprintln!("{error}");
            }
        });
    }
}
