//! The opening handshake (RFC 6455 §4): an HTTP/1.1 request and its answer, as state machines over bytes.
//!
//! Uses `httparse` for heads and `sha1` for the key; no I/O and no clock. What stands behind a head is never consumed.
//!
//! ```text
//!   client                                         server
//!   Client::new(request) ── request() ──────────▶  Server::decode(src) ─▶ Accepted { response, path, protocol, … }
//!   Client::decode(src)  ◀───────── response ────            └─▶ HandshakeError ── response() ──▶ client
//! ```
//!
//! A head that comes in pieces is looked at once: only its end is searched for until it is whole (RUSTSEC-2023-0065:
//! parsing again after each piece made a trickled head quadratic). Its size and the number of its headers are limited;
//! its time is the caller's to limit.

mod client;
mod error;
mod extensions;
mod field;
mod head;
mod server;

pub use client::{Client, Connected, Request};
pub use error::HandshakeError;
pub use extensions::DeflateParams;
pub use server::{Accepted, Asked, Server, ServerConfig, Verdict};

use data_encoding::BASE64;
use sha1::{Digest, Sha1};

/// Appended to the key before it is hashed (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The answer to a `Sec-WebSocket-Key`.
fn accept_key(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID);
    BASE64.encode(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 §1.3.
    #[test]
    fn the_key_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
