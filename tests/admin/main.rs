//! The admin API: real sockets, a real database, and the API's own document as the measure of every answer.
//!
//! Start reading in [`house`]; whatever is asked through it is held against the document.

// Tests measure real time, and stop at once where something is not as it must be.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, reason = "shared with the API tests, which use all of it")]
#[path = "../api/config.rs"]
mod config;
mod document;
mod house;
mod ledger;
mod lifecycle;
mod matrix;
mod races;
mod refusals;
#[allow(dead_code, unused_imports, reason = "shared with the API tests, which use all of it")]
#[path = "../api/support/mod.rs"]
mod support;
#[path = "../explaining/validator.rs"]
mod validator;
