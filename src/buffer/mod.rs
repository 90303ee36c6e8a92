//! The pooled buffer manager: where every byte that is read or gathered for writing lives.
//!
//! Uses `error` and `limits`; `codec`, `link` and everything above may use it. One of the two modules where `unsafe`
//! is allowed: it is confined to [`block`].

pub(crate) mod block;
mod pool;
mod window;

pub(crate) use block::{Block, BlockSlice};
pub use pool::BufferManager;
pub use window::Window;
