//! What a gateway can open again and again: a connection to the server behind it.
//!
//! Uses `transport` only; the rest of the gateway uses it, and whoever runs one implements it.

use std::{future::Future, io, pin::Pin};

use crate::transport::PollTransport;

/// A connection to a backend on its way.
pub type Opening = Pin<Box<dyn Future<Output = io::Result<Box<dyn PollTransport>>> + Send>>;

/// Opens connections to the server behind the gateway: starts a child, connects a socket.
///
/// What it gives is closed by [`PollTransport::poll_close`], which also ends the process behind it, if there is one, and
/// returns once that is gone; when it is dropped instead, the process is killed.
pub trait Backend: Send + Sync {
    /// Opens connection number `number`, which is for logs.
    fn open(&self, number: u64) -> Opening;
}

impl<F> Backend for F
where
    F: Fn(u64) -> Opening + Send + Sync,
{
    fn open(&self, number: u64) -> Opening {
        self(number)
    }
}
