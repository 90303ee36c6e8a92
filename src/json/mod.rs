//! What can be known of a JSON message: its envelope (id, method, where params and result lie) without building it, all
//! of it where it lies, and its parts one by one when it is larger than memory allows to hold.
//!
//! Uses `scan`, `frame`, `error`, `limits`; layers, the gateway and the command use it. Envelopes allocate nothing;
//! [`JsonParser`] nothing in the steady state.

mod cursor;
#[cfg(feature = "gateway")]
mod cut;
mod envelope;
mod events;
mod keys;
mod members;
mod parse;
mod streaming;
mod text;
mod value;

#[cfg(feature = "gateway")]
pub(crate) use cut::Cut;
#[cfg(feature = "gateway")]
pub(crate) use envelope::subscription_over;
pub use envelope::{Elements, Envelope, EnvelopeError, Id, Kind, member, string};
#[cfg(feature = "link")]
pub(crate) use envelope::{SUBSCRIPTION_ID, Within};
#[cfg(feature = "link")]
pub use events::EventReader;
pub use events::{Chunk, Event, EventHandler, EventParser, Events, LoneSurrogate, Unescape};
#[cfg(feature = "gateway")]
pub(crate) use members::Members as Walk;
pub use parse::{JsonParser, ParseError};
#[cfg(feature = "link")]
pub use streaming::StreamingTransport;
pub use streaming::{
    BufferStats, ParsedMessage, StreamingConfig, StreamingError, StreamingParser, StreamingStats,
};
pub use text::RawString;
#[cfg(feature = "gateway")]
pub(crate) use text::unescape;
pub use value::{Document, Members, Value, Values};
