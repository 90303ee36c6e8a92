//! pmcp: a server without tools over its stdio transport, which answers `initialize` and `ping`.

use std::{io, process::exit};

use framewire_rivals::{Options, finish};
use pmcp::Server;

fn main() {
    let options = Options::from_args().unwrap_or_else(|error| {
        eprintln!("{error}");
        exit(2)
    });
    finish(options.runtime().and_then(|runtime| {
        runtime.block_on(async {
            let server = Server::builder().name("rival").version("1").build().map_err(io::Error::other)?;
            server.run_stdio().await.map_err(io::Error::other)
        })
    }));
    // tokio's stdin leaves a thread in read(2) that a runtime would wait for.
    exit(0)
}
