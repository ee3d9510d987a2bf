//! What must hold for any bytes, one function for each fuzz target: it takes the bytes and panics
//! where the property breaks. The fuzzer of `fuzz/` and the test that replays its corpus both call it.
//!
//! Each compares with a slow reading written for this purpose, and none of them with itself.
//!
//! Start reading in [`TARGETS`].

// A fuzz target includes all of it and calls one.
#![allow(dead_code)]

mod body;
mod config;
mod headers;
mod json;
mod meter;
mod retry_after;
pub mod sse;

/// Panics where the bytes break it.
pub type Property = fn(&[u8]);

/// Every target: its name, which is also that of its corpus, and what must hold.
pub const TARGETS: [(&str, Property); 6] = [
    ("body", body::holds),
    ("config", config::holds),
    ("headers", headers::holds),
    ("meter", meter::holds),
    ("retry_after", retry_after::holds),
    ("sse", sse::holds),
];

/// Calls the property of the target `name`.
pub fn hold(name: &str, data: &[u8]) {
    let (_, holds) = TARGETS.iter().find(|(target, _)| *target == name).expect("a target of the table");
    holds(data);
}
