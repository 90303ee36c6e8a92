//! The revisions of the Model Context Protocol's specification, and what sets them apart for a transport.
//!
//! Plain data: uses nothing, anything from `transport` up may use it.

use std::{fmt, str::FromStr};

/// A revision of the specification, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Revision {
    /// `2024-11-05`: HTTP with SSE, two endpoints.
    R2024_11_05,
    /// `2025-03-26`: Streamable HTTP with sessions; batches.
    R2025_03_26,
    /// `2025-06-18`: no batches; the header `MCP-Protocol-Version`.
    R2025_06_18,
    /// `2025-11-25`: 403 for a bad Origin; streams may be closed and resumed.
    R2025_11_25,
    /// `2026-07-28`: stateless: no initialize, no sessions.
    R2026_07_28,
}

impl Revision {
    /// All of them, oldest first.
    pub const ALL: [Self; 5] =
        [Self::R2024_11_05, Self::R2025_03_26, Self::R2025_06_18, Self::R2025_11_25, Self::R2026_07_28];

    /// The newest of those that begin with `initialize`.
    pub const LATEST_WITH_SESSIONS: Self = Self::R2025_11_25;

    /// As it stands in `protocolVersion`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::R2024_11_05 => "2024-11-05",
            Self::R2025_03_26 => "2025-03-26",
            Self::R2025_06_18 => "2025-06-18",
            Self::R2025_11_25 => "2025-11-25",
            Self::R2026_07_28 => "2026-07-28",
        }
    }

    /// Whether each request stands alone: there is no `initialize` and no session.
    #[must_use]
    pub const fn is_stateless(self) -> bool {
        matches!(self, Self::R2026_07_28)
    }

    /// Whether several messages may come as one array.
    #[must_use]
    pub const fn has_batches(self) -> bool {
        matches!(self, Self::R2025_03_26)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no revision this crate knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a known revision of the specification")]
pub struct UnknownRevision;

impl FromStr for Revision {
    type Err = UnknownRevision;

    fn from_str(text: &str) -> Result<Self, UnknownRevision> {
        Self::ALL.into_iter().find(|revision| revision.as_str() == text).ok_or(UnknownRevision)
    }
}
