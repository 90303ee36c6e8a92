//! Finding things in bytes fast: delimiters, line breaks while copying; WebSocket's mask; UTF-8 as it comes; the
//! structure of JSON.
//!
//! Uses `limits` and `error`; `codec` and `json` use it. One of the two modules where `unsafe` is allowed.

#[allow(unsafe_code)]
mod delimiter;
#[cfg(feature = "json")]
#[allow(unsafe_code)]
pub mod json;
mod mask;
#[cfg(all(feature = "websocket", target_arch = "x86_64"))]
#[allow(unsafe_code)]
mod text;
#[cfg(feature = "websocket")]
mod utf8;

pub(crate) use delimiter::NEAR;
pub use delimiter::{copy_line, find_far_newline, find_newline};
pub use mask::{is_ascii, mask_copy, rotate, unmask};
#[cfg(feature = "websocket")]
pub use utf8::Utf8;
