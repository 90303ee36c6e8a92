//! TLS over TCP as a pair of halves, by rustls with the ring provider: version 1.3, and 1.2 on request.
//!
//! Uses limits and [`tcp`]; transports build on it.
//!
//! | | client | server |
//! |---|---|---|
//! | settings | [`TlsClientConfig`] | [`TlsServerConfig`] |
//! | who is trusted | the system's roots, or a bundle of one's own; and [pins](SpkiPin) besides | whoever a bundle vouches for (mutual TLS), or anyone |
//! | own certificate | optional | PEM files, loaded again when they change |
//! | makes | [`connect`], [`handshake`](TlsClientConfig::handshake) | [`Listener`], [`handshake`](TlsServerConfig::handshake) |
//!
//! Nothing here turns the verification of certificates off. For tests and private networks make a certificate authority
//! and name it as the bundle.
//!
//! # How a stream ends
//! A peer that is done says so (close_notify, RFC 8446 §6.1); reading then gives the end. When the connection ends
//! without it, anyone on the way may have cut it, and reading fails with [`TlsError::Truncated`], which a
//! [`Link`](crate::Link) tells as [`End::Reset`](crate::error::End::Reset) and never as
//! [`End::Eof`](crate::error::End::Eof). [`TlsWriter`] says close_notify when it is shut down, and also when it is dropped
//! and owes nothing.
//!
//! # Cost
//! Both halves share the state of the session under a mutex that is held while records are sealed and opened, and never
//! while waiting. rustls allocates for each record it seals or opens (up to 16 KiB of payload); nothing is allocated
//! here beside that in steady state.

mod certificates;
mod client;
mod error;
mod listener;
mod pin;
mod server;
mod stream;

use std::io;

pub use self::{
    client::{TlsClientBuilder, TlsClientConfig},
    error::{TlsConfigError, TlsError},
    listener::Listener,
    pin::{PinError, SpkiPin},
    server::{TlsServerBuilder, TlsServerConfig},
    stream::{TlsReader, TlsWriter},
};
use super::tcp::{self, TcpOptions};

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

impl TlsVersion {
    /// The versions from this one on.
    fn and_later(self) -> &'static [&'static rustls::SupportedProtocolVersion] {
        use rustls::version::{TLS12, TLS13};
        const FROM_1_2: &[&rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];
        const FROM_1_3: &[&rustls::SupportedProtocolVersion] = &[&TLS13];
        match self {
            Self::V1_2 => FROM_1_2,
            Self::V1_3 => FROM_1_3,
        }
    }
}

/// Connects to `host`, whose certificate must be for that name unless the settings name another.
///
/// # Errors
/// See [`tcp::connect`]; a handshake that fails is an `io::Error` of which [`TlsError::of_io`] tells the reason.
///
/// # Panics
/// When called outside a tokio runtime with I/O and time enabled.
///
/// # Cancel safety
/// Dropping the future gives up the attempt; nothing stays open.
pub async fn connect(
    host: &str,
    port: u16,
    tls: &TlsClientConfig,
    options: &TcpOptions,
) -> io::Result<(TlsReader, TlsWriter)> {
    let (reader, writer) = tcp::connect_host(host, port, options).await?;
    Ok(tls.handshake(host, reader, writer).await?)
}
