//! Transports: one codec paired with one I/O pair, and the error that the transport traits share.
//!
//! [`TransportError`] is plain std and is there without a runtime, since the buffer manager returns it too.

#[cfg(feature = "futures")]
mod adapter;
mod error;
#[cfg(feature = "link")]
mod memory;
#[cfg(feature = "link")]
mod mock;
#[cfg(feature = "link")]
mod poll;
#[cfg(feature = "rmcp")]
mod rmcp;

#[cfg(feature = "futures")]
pub use adapter::FrameStream;
pub use error::TransportError;
#[cfg(feature = "link")]
pub use memory::MemoryTransport;
#[cfg(feature = "link")]
pub use mock::MockTransport;
#[cfg(feature = "link")]
pub use poll::{PollTransport, Transport};
#[cfg(feature = "rmcp")]
pub use rmcp::{RmcpTransport, TransportAdapterFramewire};
