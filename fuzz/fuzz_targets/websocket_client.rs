//! A client's WebSocket decoder against the naive one, however the stream is cut. Input: three sizes of pieces, then
//! the stream.
#![no_main]

#[path = "../../tests/support/websocket.rs"]
mod naive;
#[path = "../support/websocket.rs"]
mod support;

use framewire::codec::websocket::Role;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((pieces, stream)) = input.split_first_chunk::<3>() else { return };
    support::compare(Role::Client, stream, *pieces);
});
