//! [`TcpTransport`]: a TCP connection.

use std::net::SocketAddr;

use tokio::net::ToSocketAddrs;

use crate::{
    Link, Result,
    codec::{Codec, LengthPrefix},
    io::tcp::{self, Listener, TcpOptions, TcpReader, TcpWriter},
    link::LinkConfig,
};

/// Any framing, by default a length prefix of four bytes, on a TCP connection.
pub type TcpTransport<C = LengthPrefix> = Link<C, TcpReader, TcpWriter>;

impl Link<LengthPrefix, TcpReader, TcpWriter> {
    /// Connects to `addr`, with the default [`TcpOptions`].
    ///
    /// # Errors
    /// See [`tcp::connect`].
    ///
    /// # Panics
    /// When called outside a tokio runtime with I/O and time enabled.
    ///
    /// # Cancel safety
    /// Safe: the connection is given up.
    pub async fn connect(addr: impl ToSocketAddrs) -> Result<Self> {
        Self::connect_with(LengthPrefix::new(), addr, &TcpOptions::default(), LinkConfig::default()).await
    }
}

impl<C: Codec> Link<C, TcpReader, TcpWriter> {
    /// Connects to `addr`, with any framing and settings.
    ///
    /// # Errors
    /// See [`tcp::connect`].
    ///
    /// # Panics
    /// When called outside a tokio runtime with I/O and time enabled.
    ///
    /// # Cancel safety
    /// Safe: the connection is given up.
    pub async fn connect_with(
        codec: C,
        addr: impl ToSocketAddrs,
        options: &TcpOptions,
        config: LinkConfig,
    ) -> Result<Self> {
        let (reader, writer) = tcp::connect(addr, options).await?;
        Ok(Self::with_config(codec, reader, writer, config.transport_type("tcp")))
    }

    /// Accepts one connection.
    ///
    /// # Errors
    /// See [`Listener::accept`].
    ///
    /// # Cancel safety
    /// Safe: a connection that was not returned waits for the next call.
    pub async fn accept(codec: C, listener: &Listener, config: LinkConfig) -> Result<(Self, SocketAddr)> {
        let (reader, writer, peer) = listener.accept().await?;
        Ok((Self::with_config(codec, reader, writer, config.transport_type("tcp")), peer))
    }
}
