//! Byte streams: the pairs of reader and writer that a codec can be put on, each a plain tokio `AsyncRead` and
//! `AsyncWrite`.
//!
//! | module | reader / writer | ends when |
//! |---|---|---|
//! | [`memory`] | ends of a pipe in memory | the other end is dropped |
//! | [`tcp`] | halves of a TCP connection | the peer shuts down its half |
//! | [`unix`] | halves of a Unix stream socket | the peer shuts down its half |
//!
//! Nothing here knows about messages. Uses limits and the operating system; [`Link`](crate::Link) and the transports
//! build on it.

#[cfg(feature = "net")]
mod accept;
pub mod memory;
#[cfg(feature = "net")]
pub mod tcp;
#[cfg(all(feature = "net", unix))]
pub mod unix;
