//! OpenAI's chat completions, completions and embeddings, as a client speaks them and as most providers do.
//!
//! It reads what routing, limits and usage need and leaves every other byte where it is. It never judges what it
//! does not need: a member that is not read is the provider's to accept or refuse.
//!
//! Start reading in [`request`] for what comes in, [`answer`] for what comes back; [`edit`] is what we change of
//! either, [`error`](mod@error) and [`write`](mod@write) what we say ourselves.

pub mod answer;
pub mod edit;
pub mod error;
pub mod models;
pub mod request;
pub mod write;
