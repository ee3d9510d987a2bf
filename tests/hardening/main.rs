//! The gateway under attack: from the client's side, byte by byte, and from the provider's.
//!
//! Each attack asserts the same three things: it is refused or bounded, nothing of it reaches the
//! other side, and whoever asks at the same time goes on being answered.

// Tests measure real time, and stop at once where something is not as it must be.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)]

mod bombs;
#[allow(dead_code, reason = "shared with the API tests, which use all of it")]
#[path = "../api/config.rs"]
mod config;
mod doors;
mod endless;
mod floods;
mod frames;
mod hostile;
mod machine;
mod slow;
mod smuggling;
#[allow(dead_code, unused_imports, reason = "shared with the API tests, which use all of it")]
#[path = "../api/support/mod.rs"]
mod support;
