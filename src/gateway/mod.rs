//! The gateway: what joins transports to each other.
//!
//! Uses `link` and below; the command uses it. It logs nothing itself: an [`Observer`] is told.

mod backend;
mod bridge;
#[cfg(feature = "gateway")]
mod calls;
mod echo;
#[cfg(feature = "gateway")]
mod era;
mod fanout;
#[cfg(feature = "gateway")]
pub mod hub;
#[cfg(feature = "gateway")]
mod logging;
#[cfg(feature = "gateway")]
mod refusal;
#[cfg(feature = "json")]
pub mod splice;
#[cfg(feature = "gateway")]
pub mod supervisor;

pub use backend::{Backend, Opening};
#[cfg(feature = "json")]
pub use bridge::Noise;
pub use bridge::{Bridge, Direction, Observer, Passed, Report, Silent};
pub use echo::echo;
#[cfg(feature = "gateway")]
pub use era::{Era, EraCache, EraConfig, Translated};
pub use fanout::{Fanout, FanoutConfig, FanoutEnded, Published, Received, SlowPolicy, Subscription, TooMany};
#[cfg(feature = "gateway")]
pub use hub::{Hub, HubConfig, HubSession};
#[cfg(feature = "gateway")]
pub use refusal::{INVALID_REQUEST, SERVER_ENDED, TOO_MANY};
#[cfg(feature = "gateway")]
pub use supervisor::{Supervisor, SupervisorConfig, SupervisorEvent, SupervisorObserver};
