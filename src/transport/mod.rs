//! Transports: one codec paired with one I/O pair, and the error that the transport traits share.
//!
//! [`TransportError`] is plain std and is there without a runtime, since the buffer manager returns it too.

mod error;
#[cfg(feature = "link")]
mod memory;
#[cfg(feature = "link")]
mod mock;
#[cfg(feature = "link")]
mod poll;

pub use error::TransportError;
#[cfg(feature = "link")]
pub use memory::MemoryTransport;
#[cfg(feature = "link")]
pub use mock::MockTransport;
#[cfg(feature = "link")]
pub use poll::{PollTransport, Transport};
