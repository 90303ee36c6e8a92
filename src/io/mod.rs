//! Byte streams: the pairs of reader and writer that a codec can be put on, each a plain tokio `AsyncRead` and
//! `AsyncWrite`.
//!
//! | module | reader / writer | ends when |
//! |---|---|---|
//! | [`memory`] | ends of a pipe in memory | the other end is dropped |
//! | [`stdio`] | standard input and output of this process | the parent closes its end |
//! | `child` (Unix) | standard output and input of a child process | the child closes its output |
//! | [`tcp`] | halves of a TCP connection | the peer shuts down its half |
//! | `tls` (feature `tls`) | halves of a TLS connection over TCP | the peer says so by close_notify |
//! | [`socket`] | any of the two above and below, told at run time | as that |
//! | [`unix`] | halves of a Unix stream socket | the peer shuts down its half |
//!
//! Nothing here knows about messages. Uses limits and the operating system; [`Link`](crate::Link) and the transports
//! build on it.

#[cfg(feature = "net")]
mod accept;
#[cfg(all(feature = "net", unix))]
pub mod child;
#[cfg(feature = "net")]
mod halves;
pub mod memory;
#[cfg(all(feature = "net", feature = "websocket"))]
pub mod proxy;
#[cfg(feature = "net")]
pub mod socket;
#[cfg(feature = "net")]
pub mod stdio;
#[cfg(feature = "net")]
pub mod tcp;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(all(feature = "net", unix))]
pub mod unix;
#[cfg(all(feature = "net", unix))]
mod watch;
