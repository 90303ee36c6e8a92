//! The `framewire` command, as a user meets it: the built program, real sockets, real children.
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod arguments;
mod bridge;
mod children;
mod gateway;
mod harness;
mod measure;
mod tap;
mod tls;
mod websocket;
