//! A connection over any of the stream sockets here, as one pair of types: for transports that are told by a URL what
//! they stand on.
//!
//! Uses `tcp`, `tls` and `unix` of this folder.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tcp::{TcpReader, TcpWriter};
#[cfg(feature = "tls")]
use super::tls::{TlsReader, TlsWriter};
#[cfg(unix)]
use super::unix::{UnixReader, UnixWriter};

/// The receiving half.
#[derive(Debug)]
#[non_exhaustive]
pub enum SocketReader {
    /// Of a TCP connection.
    Tcp(TcpReader),
    /// Of a TLS connection.
    #[cfg(feature = "tls")]
    Tls(TlsReader),
    /// Of a Unix socket.
    #[cfg(unix)]
    Unix(UnixReader),
}

/// The sending half.
#[derive(Debug)]
#[non_exhaustive]
pub enum SocketWriter {
    /// Of a TCP connection.
    Tcp(TcpWriter),
    /// Of a TLS connection.
    #[cfg(feature = "tls")]
    Tls(TlsWriter),
    /// Of a Unix socket.
    #[cfg(unix)]
    Unix(UnixWriter),
}

/// The same call, whichever it is.
macro_rules! each {
    ($any:expr, $half:ident => $call:expr) => {
        match $any {
            Self::Tcp($half) => $call,
            #[cfg(feature = "tls")]
            Self::Tls($half) => $call,
            #[cfg(unix)]
            Self::Unix($half) => $call,
        }
    };
}

impl AsyncRead for SocketReader {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self.get_mut(), half => Pin::new(half).poll_read(cx, buffer))
    }
}

impl AsyncWrite for SocketWriter {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), half => Pin::new(half).poll_write(cx, bytes))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), half => Pin::new(half).poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, half => half.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), half => Pin::new(half).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), half => Pin::new(half).poll_shutdown(cx))
    }
}
