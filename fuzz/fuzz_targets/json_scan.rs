//! The scanner of JSON structure and the validator, with every set of instructions, against a reader that goes byte by
//! byte, however the bytes are cut. Input: two sizes of pieces, 0 for all that is left, then the bytes.
#![no_main]

#[path = "../../tests/support/json_oracle.rs"]
mod json_oracle;

use framewire::scan::json::{Backend, Container, Structure, Validator};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&[a, b], bytes)) = input.split_first_chunk::<2>() else { return };
    // Many blocks at a time are looked at differently, and a byte cannot say so many.
    let sizes = [a, b].map(|size| if size == 0 { bytes.len().max(1) } else { usize::from(size) });
    for backend in Backend::all() {
        let mut validator = Validator::with_backend(backend);
        let mut structure = Structure::with_backend(backend);
        let mut found = Container::Open;
        let mut there = 0;
        for size in sizes.iter().cycle() {
            let from = there;
            there = bytes.len().min(there + size);
            let _ = validator.feed(&bytes[from..there]);
            if found == Container::Open {
                found = structure.close(&bytes[..there]);
            }
            if there == bytes.len() {
                break;
            }
        }
        assert_eq!(validator.finish(), json_oracle::check(bytes));
        if matches!(bytes.first(), Some(b'{' | b'[')) {
            assert_eq!(found, json_oracle::close(bytes, 0));
        }
    }
});
