//! What can be known of a JSON message without building it: its envelope (id, method, where params and result lie).
//!
//! Uses `scan`, `error`, `limits`; layers, the gateway and the command use it. Allocates nothing.

mod cursor;
mod envelope;
mod members;
mod text;

pub use envelope::{Elements, Envelope, EnvelopeError, Id, Kind};
pub use text::RawString;
