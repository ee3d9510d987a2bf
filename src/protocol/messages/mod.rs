//! Anthropic's Messages, as a client speaks them and as its provider does.
//!
//! Every byte that is not read here passes as it came. Nothing is translated: a call in this dialect goes to a provider of
//! the same one.
//!
//! Start reading in [`request`] for what comes in, [`answer`] for what comes back; [`error`](mod@error), [`models`] and
//! [`write`](mod@write) are what we say ourselves.

pub mod answer;
mod content;
pub mod error;
pub mod models;
pub mod request;
mod usage;
pub mod write;

/// The header that every client of the API sends, and every request to it must have.
pub const VERSION_HEADER: &str = "anthropic-version";
/// What is sent where a client sent none: the version that this reader of answers was written for.
pub const USUAL_VERSION: &str = "2023-06-01";
