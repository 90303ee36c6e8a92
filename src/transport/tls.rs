//! [`TlsTransport`]: a TLS connection over TCP.

use std::net::SocketAddr;

use crate::{
    Link, Result,
    codec::{Codec, LengthPrefix},
    io::{
        tcp::TcpOptions,
        tls::{self, Listener, TlsClientConfig, TlsReader, TlsWriter},
    },
    link::LinkConfig,
};

/// Any framing, by default a length prefix of four bytes, on a TLS connection.
pub type TlsTransport<C = LengthPrefix> = Link<C, TlsReader, TlsWriter>;

impl Link<LengthPrefix, TlsReader, TlsWriter> {
    /// Connects to `host`, with the default [`TcpOptions`].
    ///
    /// # Errors
    /// See [`tls::connect`]; [`TlsError::of`](tls::TlsError::of) tells what TLS finds wrong.
    ///
    /// # Panics
    /// When called outside a tokio runtime with I/O and time enabled.
    ///
    /// # Cancel safety
    /// Safe: the connection is given up.
    pub async fn connect(host: &str, port: u16, tls: &TlsClientConfig) -> Result<Self> {
        let options = TcpOptions::default();
        Self::connect_with(LengthPrefix::new(), host, port, tls, &options, LinkConfig::default()).await
    }
}

impl<C: Codec> Link<C, TlsReader, TlsWriter> {
    /// Connects to `host`, with any framing and settings.
    ///
    /// # Errors
    /// As [`connect`](Link::connect).
    ///
    /// # Panics
    /// When called outside a tokio runtime with I/O and time enabled.
    ///
    /// # Cancel safety
    /// Safe: the connection is given up.
    pub async fn connect_with(
        codec: C,
        host: &str,
        port: u16,
        tls: &TlsClientConfig,
        options: &TcpOptions,
        config: LinkConfig,
    ) -> Result<Self> {
        let (reader, writer) = tls::connect(host, port, tls, options).await?;
        Ok(Self::with_config(codec, reader, writer, config.transport_type("tls")))
    }

    /// Accepts one connection whose handshake is done.
    ///
    /// # Errors
    /// See [`Listener::accept`].
    ///
    /// # Cancel safety
    /// Safe: a connection that was not returned waits for the next call.
    pub async fn accept(codec: C, listener: &mut Listener, config: LinkConfig) -> Result<(Self, SocketAddr)> {
        let (reader, writer, peer) = listener.accept().await?;
        Ok((Self::with_config(codec, reader, writer, config.transport_type("tls")), peer))
    }
}
