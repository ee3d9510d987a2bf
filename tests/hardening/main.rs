//! The gateway under attack, by clients and by providers.
//!
//! Each test asserts the same three things: the attack is refused or bounded, nothing of it reaches the
//! other side, and requests sent at the same time are still answered.

// Tests measure real time, and fail at once where something is not as it must be.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)]

mod authentication;
mod bombs;
#[allow(dead_code, reason = "shared with the API tests, which use all of it")]
#[path = "../api/config.rs"]
mod config;
mod endless;
mod floods;
mod frames;
mod guesses;
mod hostile;
mod machine;
mod shares;
mod slow;
mod smuggling;
#[allow(dead_code, unused_imports, reason = "shared with the API tests, which use all of it")]
#[path = "../api/support/mod.rs"]
mod support;
