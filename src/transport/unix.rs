//! [`UnixTransport`]: a Unix stream socket.

use std::path::Path;

use crate::{
    Link, Result,
    codec::{Codec, LengthPrefix},
    io::unix::{self, Listener, PeerCredentials, UnixReader, UnixWriter},
    link::LinkConfig,
};

/// Any framing, by default a length prefix of four bytes, on a Unix stream socket.
pub type UnixTransport<C = LengthPrefix> = Link<C, UnixReader, UnixWriter>;

impl Link<LengthPrefix, UnixReader, UnixWriter> {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// See [`unix::connect`].
    ///
    /// # Cancel safety
    /// Safe: the connection is given up.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self> {
        Self::connect_with(LengthPrefix::new(), path, LinkConfig::default()).await
    }
}

impl<C: Codec> Link<C, UnixReader, UnixWriter> {
    /// Connects to the socket at `path`, with any framing and settings.
    ///
    /// # Errors
    /// See [`unix::connect`].
    ///
    /// # Cancel safety
    /// Safe: the connection is given up.
    pub async fn connect_with(codec: C, path: impl AsRef<Path>, config: LinkConfig) -> Result<Self> {
        let (reader, writer) = unix::connect(path).await?;
        Ok(Self::with_config(codec, reader, writer, config.transport_type("unix")))
    }

    /// Accepts one connection.
    ///
    /// # Errors
    /// See [`Listener::accept`].
    ///
    /// # Cancel safety
    /// Safe: a connection that was not returned waits for the next call.
    pub async fn accept(
        codec: C,
        listener: &Listener,
        config: LinkConfig,
    ) -> Result<(Self, PeerCredentials)> {
        let (reader, writer, peer) = listener.accept().await?;
        Ok((Self::with_config(codec, reader, writer, config.transport_type("unix")), peer))
    }
}
