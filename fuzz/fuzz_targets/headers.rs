#![no_main]

#[path = "../../tests/fuzzing/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::hold("headers", data));
