//! Byte echoes: the floor. `std` blocks in read and write; `tokio` awaits them. Neither looks at the bytes.

use std::{
    io::{self, Read, Write},
    process::exit,
};

use framewire_rivals::{Options, Serve, blocking, finish, serve};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

struct Echo {
    capacity: usize,
}

impl Serve for Echo {
    async fn serve<R, W>(self, mut reader: R, mut writer: W) -> io::Result<()>
    where
        R: AsyncRead + Unpin + Send + Sync + 'static,
        W: AsyncWrite + Unpin + Send + Sync + 'static,
    {
        let mut buffer = vec![0; self.capacity];
        loop {
            let read = reader.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            writer.write_all(&buffer[..read]).await?;
            // A no-op but for tokio's stdout, which holds bytes back without it.
            writer.flush().await?;
        }
    }
}

fn echo_blocking(options: &Options) -> io::Result<()> {
    let (mut reader, mut writer) = blocking(options)?;
    let mut buffer = vec![0; options.capacity];
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        writer.write_all(&buffer[..read])?;
    }
}

fn main() {
    let options = Options::from_args().unwrap_or_else(|error| {
        eprintln!("{error}");
        exit(2)
    });
    finish(match options.server.as_str() {
        "std" => echo_blocking(&options),
        _ => options
            .runtime()
            .and_then(|runtime| runtime.block_on(serve(&options, Echo { capacity: options.capacity }))),
    });
    // tokio's stdin leaves a thread in read(2) that a runtime would wait for.
    exit(0)
}
