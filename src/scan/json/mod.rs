//! The structure of JSON (RFC 8259), found in bytes that come in pieces: where a value ends, and whether it is JSON.
//!
//! Uses `limits` and `error`. `codec` finds message boundaries with it, `json` reads envelopes and validates.
//!
//! Bytes are looked at in blocks of 64. A block becomes a few masks of one bit a byte: quotes, backslashes, brackets.
//! Which bytes are escaped and which lie in a string follows from these by arithmetic on whole masks, with one bit
//! carried to the next block, so a block may end anywhere and no byte is looked at again.
//!
//! ```text
//!  bytes      {  "  a  \  "  "  :  [  1  ]  }
//!  quotes     .  1  .  .  1  1  .  .  .  .  .
//!  escaped    .  .  .  .  1  .  .  .  .  .  .      the byte behind a backslash
//!  in string  .  1  1  1  1  .  .  .  .  .  .      opening quote included, closing quote not
//!  brackets   1  .  .  .  .  .  .  1  .  1  1      of those not in a string
//! ```
//!
//! [`Structure`] follows brackets only and checks that each closer fits its opener; [`Validator`] checks the whole
//! grammar and UTF-8. Both keep one bit a level, so depth costs no stack; the limit is
//! [`MAX_JSON_DEPTH`](crate::limits::MAX_JSON_DEPTH).
//!
//! The masks are made by AVX2, SSE2, NEON or plain 64-bit arithmetic, chosen at run time: [`Backend`].

mod backend;
mod block;
mod grammar;
mod kernel;
#[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
mod neon;
mod nesting;
mod scalar;
mod sequence;
mod structure;
mod swar;
mod validate;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use backend::Backend;
pub(crate) use kernel::{blanks_end, skip, string_end};
pub(crate) use nesting::Nesting;
pub use scalar::Scalar;
pub use structure::{Container, Structure};
pub(crate) use validate::Observe;
pub use validate::{Invalid, Validator};
