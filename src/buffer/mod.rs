//! The pooled buffer manager: where every byte that is read or gathered for writing lives.
//!
//! Uses `limits` and [`TransportError`](crate::transport::TransportError) (plain std); `codec`, `link` and everything
//! above may use it. One of the two modules where `unsafe` is allowed: it is confined to `block` (counted, shared
//! bytes), `window` (their one writer), `shelf` (idle items as one pointer each), `latch` (a lock for a few nanoseconds) and one line each of `pool` and
//! `pooled`. All atomics come from `sync`, so that the whole is model-checked (`tests/loom.rs`).
//!
//! ```text
//!   BufferManager ── Pool ── Shelf per size class ── idle blocks and vectors
//!        │                     ▲
//!        │ lends               │ comes back when the last handle drops
//!        ▼                     │
//!   Window ── cut ──▶ Frame ───┤
//!   PooledBuffer ──────────────┘
//! ```
//!
//! Every block has 64 bytes of readable, initialised padding behind its capacity
//! ([`BLOCK_PADDING`](crate::limits::BLOCK_PADDING)), so behind every frame on a block stand at least 64 bytes that
//! belong to the same allocation.

mod acquired;
pub(crate) mod block;
mod config;
mod latch;
mod manager;
mod metrics;
mod pool;
mod pooled;
mod shelf;
mod streaming;
mod sync;
mod wait;
mod window;

pub use acquired::AcquiredBuffer;
pub(crate) use block::BlockSlice;
pub use config::BufferConfig;
pub use latch::{Latch, LatchGuard};
pub use manager::BufferManager;
pub use metrics::{BufferMetrics, ZeroCopyMetrics};
pub use pooled::PooledBuffer;
pub use streaming::StreamingBuffer;
pub use wait::Waiter;
pub use window::Window;
