//! The levels of `notifications/message` and `logging/setLevel`.
//!
//! Uses `json`; the hub and the translation between eras use it.

use crate::json::{Envelope, RawString, member};

/// Log levels, least urgent first (RFC 5424).
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// The level of the logs that a client gets that has set none, where somebody has to decide: `info`.
pub(super) const UNASKED: u8 = 1;

/// Which of [`LEVELS`] a JSON value names.
pub(super) fn level(value: &[u8]) -> Option<u8> {
    let name = RawString::of_value(value)?;
    LEVELS.iter().position(|level| name.is(level)).and_then(|level| u8::try_from(level).ok())
}

/// The name of a level.
pub(super) fn name(level: u8) -> &'static str {
    LEVELS.get(usize::from(level)).copied().unwrap_or_default()
}

/// The level in the params of a message: that of a log, or the one to be set.
pub(super) fn of(envelope: &Envelope<'_>) -> Option<u8> {
    level(member(envelope.params()?, "level").ok()??)
}
