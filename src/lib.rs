//! Tierway: an OpenAI-compatible model gateway.
//!
//! The folder list read aloud is the life of a request: `http` reads it, `relay` walks it down the
//! corridor, `domain` decides, `upstream` sends it, `store` and `telemetry` keep what happened.
//! `admin` is what operators do meanwhile.
//! Imports point inward only; `tests/architecture.rs` holds the table and fails when one does not.
//!
//! Start reading in [`relay`], then [`domain::routing::plan`].

// Unit tests need some instant to count from; production code is handed one (clippy.toml).
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod http;
pub mod protocol;
pub mod random;
pub mod relay;
pub mod store;
pub mod telemetry;
pub mod upstream;
