//! The text of an endpoint: read or refused, never a panic; what was read is written in a form that reads as the same;
//! a refusal is short and holds no control characters of the text.
#![no_main]

use framewire::endpoint::Endpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match text.parse::<Endpoint>() {
    Ok(endpoint) => {
        let shown = endpoint.to_string();
        assert_eq!(shown.parse().as_ref(), Ok(&endpoint), "{shown:?}");
    }
    Err(error) => {
        let told = error.to_string();
        assert!(told.len() < 2000, "{} bytes", told.len());
        assert!(!told.contains(|char: char| char.is_control()), "{told:?}");
    }
});
