//! The gateway: what joins transports to each other.
//!
//! Uses `link` and below; the command uses it. It logs nothing itself: an [`Observer`] is told.

mod backend;
mod bridge;
mod echo;
#[cfg(feature = "json")]
mod era;
mod fanout;
#[cfg(feature = "gateway")]
mod hub;
#[cfg(feature = "json")]
pub mod splice;
#[cfg(feature = "gateway")]
mod supervisor;

pub use backend::{Backend, Opening};
pub use bridge::{Bridge, Direction, Observer, Passed, Report, Silent};
pub use echo::echo;
