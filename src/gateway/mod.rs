//! The gateway: what joins transports to each other.
//!
//! Uses `link` and below; the command uses it. It logs nothing itself: an [`Observer`] is told.

mod bridge;
mod echo;

pub use bridge::{Bridge, Direction, Observer, Passed, Report, Silent};
pub use echo::echo;
