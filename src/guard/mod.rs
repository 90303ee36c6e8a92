//! Who may pass: which hosts, origins and tokens a listener lets in.
//!
//! Plain rules over text: uses `subtle` only; transports that listen and the command use it.

mod access;

pub use access::{Access, Refused};
