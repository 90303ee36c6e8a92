//! framewire: a zero-copy, byte-level framing engine for the transports of the Model Context Protocol.
#![deny(unsafe_code)]

pub mod buffer;
pub mod codec;
#[cfg(feature = "net")]
pub mod endpoint;
pub mod error;
mod frame;
#[cfg(feature = "link")]
pub mod gateway;
#[cfg(feature = "http")]
pub mod guard;
#[cfg(feature = "link")]
pub mod io;
#[cfg(feature = "json")]
pub mod json;
pub mod limits;
#[cfg(feature = "link")]
pub mod link;
pub mod scan;
pub mod transport;

pub use error::{Error, Result};
pub use frame::{Frame, FrameMut};
#[cfg(feature = "link")]
pub use link::Link;

/// README's example, compiled as a test.
#[cfg(all(doctest, feature = "net"))]
#[doc = include_str!("../README.md")]
struct Readme;
