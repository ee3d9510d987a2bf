//! The admin API: real sockets, a real database, and every answer checked against the API's own document.
//!
//! Start reading in [`admin_gateway`]; every request through it is checked against the document.

// Tests measure real time, and fail at once where a condition does not hold.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)]

mod admin_gateway;
mod audit;
#[allow(dead_code, reason = "shared with the API tests, which use all of it")]
#[path = "../api/config.rs"]
mod config;
mod configuration;
mod document;
mod ledger;
mod lifecycle;
mod matrix;
mod posture;
mod races;
mod refusals;
mod residency;
mod sessions;
mod sla;
#[allow(dead_code, unused_imports, reason = "shared with the API tests, which use all of it")]
#[path = "../api/support/mod.rs"]
mod support;
#[path = "../explaining/validator.rs"]
mod validator;
