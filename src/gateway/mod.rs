//! The gateway: what joins transports to each other.
//!
//! Uses `link` and below; the command uses it. It logs nothing itself: an [`Observer`] is told.

mod bridge;

pub use bridge::{Bridge, Direction, Observer, Passed, Report, Silent};
