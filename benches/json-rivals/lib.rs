//! The rivals of `benches/json.rs`, which is the only use of this package: see its manifest.
