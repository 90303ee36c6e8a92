//! Transports: one codec paired with one I/O pair, and the error that the transport traits share.
//!
//! [`TransportError`] is plain std and is there without a runtime, since the buffer manager returns it too.

mod error;

pub use error::TransportError;
