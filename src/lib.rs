//! Tierway: an OpenAI-compatible model gateway.
//!
//! The modules follow a request: `http` reads it, `relay` takes it through its steps, `domain` decides,
//! `upstream` sends it, `store` and `telemetry` record it. `admin` is what operators do.
//! Imports point inward only; `tests/architecture.rs` has the table and fails when one does not.
//!
//! Start reading in [`relay`], then [`domain::routing::plan`].

// Unit tests need some instant to start from; production code gets one passed in (clippy.toml).
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
