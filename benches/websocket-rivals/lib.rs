//! The rivals of `benches/websocket.rs`, which is the only use of this package: see its manifest.
