//! Finding things in bytes fast: delimiters, line breaks while copying.
//!
//! Uses nothing of the crate; `codec` uses it. One of the two modules where `unsafe` is allowed.

#[allow(unsafe_code)]
mod delimiter;

pub(crate) use delimiter::NEAR;
pub use delimiter::{copy_line, find_far_newline, find_newline};
