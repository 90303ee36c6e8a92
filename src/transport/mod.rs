//! Transports: one codec paired with one I/O pair.
//!
//! Uses `link`, `io`, `codec` and what is below them; layers, the gateway and the command use it.
//!
//! # THE TABLE
//! | transport | codec | reader / writer |
//! |---|---|---|
//! | [`StdioTransport`] | newline | own [`Stdin`](crate::io::stdio::Stdin) / [`Stdout`](crate::io::stdio::Stdout) |
//! | [`ChildTransport`] | newline (any) | a child's [stdout](crate::io::child::ChildReader) / [stdin](crate::io::child::ChildWriter) |
//! | [`TcpTransport`] | length prefix (any) | [`TcpReader`](crate::io::tcp::TcpReader) / [`TcpWriter`](crate::io::tcp::TcpWriter) |
//! | `TlsTransport` (feature `tls`) | length prefix (any) | `TlsReader` / `TlsWriter` of `io::tls` |
//! | [`UnixTransport`] | length prefix (any) | [`UnixReader`](crate::io::unix::UnixReader) / [`UnixWriter`](crate::io::unix::UnixWriter) |
//! | [`WebSocketTransport`] | WebSocket | [`SocketReader`](crate::io::socket::SocketReader) / [`SocketWriter`](crate::io::socket::SocketWriter) (any), after the handshake |
//! | [`MemoryTransport`] | whole | a pair of queues in memory |
//! | `http::client::HttpClientTransport` (feature `http`) | server-sent events, and whole bodies | requests and answers of HTTP on TCP, TLS or a Unix socket |
//! | any other | any [`Codec`](crate::codec::Codec) | any `AsyncRead` / `AsyncWrite`, by [`Link::pair`](crate::Link::pair) |
//!
//! Each is a type alias of [`Link`](crate::Link) with constructors, so all that a link can do, every transport can.
//! [`PollTransport`] is what they share behind `dyn`; [`Transport`] and [`ZeroCopyTransport`] are AIRS's traits on it;
//! [`MockTransport`] stands in for any of them in tests.
//!
//! # A new transport
//! A reader and a writer in `io/` (tokio's two traits), a file here with the alias and its constructors, a line in the
//! table.
//!
//! [`TransportError`] is plain std and is there without a runtime, since the buffer manager returns it too.

#[cfg(feature = "futures")]
mod adapter;
#[cfg(all(feature = "net", unix))]
mod child;
mod error;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "link")]
mod memory;
#[cfg(feature = "link")]
mod mock;
#[cfg(feature = "link")]
mod poll;
mod revision;
#[cfg(feature = "rmcp")]
mod rmcp;
#[cfg(feature = "net")]
mod stdio;
/// Transports whose messages are looked at as they come, under the path that AIRS has them: see [`crate::json`].
#[cfg(all(feature = "json", feature = "link"))]
pub mod streaming {
    pub use crate::json::{
        BufferStats, ParsedMessage, StreamingConfig, StreamingError, StreamingParser, StreamingStats,
        StreamingTransport,
    };
}
#[cfg(feature = "net")]
mod tcp;
#[cfg(feature = "tls")]
mod tls;
#[cfg(all(feature = "net", unix))]
mod unix;
#[cfg(all(feature = "net", feature = "websocket"))]
pub mod websocket;

#[cfg(feature = "futures")]
pub use adapter::FrameStream;
#[cfg(all(feature = "net", unix))]
pub use child::ChildTransport;
pub use error::TransportError;
#[cfg(feature = "link")]
pub use memory::MemoryTransport;
#[cfg(feature = "link")]
pub use mock::MockTransport;
#[cfg(feature = "link")]
pub use poll::{PollTransport, Transport, ZeroCopyTransport};
pub use revision::{Revision, UnknownRevision};
#[cfg(feature = "rmcp")]
pub use rmcp::{RmcpTransport, TransportAdapterFramewire};
#[cfg(feature = "net")]
pub use stdio::{STDIO_MAX_MESSAGE_SIZE, StdioTransport};
#[cfg(feature = "net")]
pub use tcp::TcpTransport;
#[cfg(feature = "tls")]
pub use tls::TlsTransport;
#[cfg(all(feature = "net", unix))]
pub use unix::UnixTransport;
#[cfg(all(feature = "net", feature = "websocket"))]
pub use websocket::{WebSocketError, WebSocketOptions, WebSocketTransport};
