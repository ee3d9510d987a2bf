//! OpenAI's chat completions, completions and embeddings, as a client speaks them and as most providers do.
//!
//! It reads what routing, limits and usage need and leaves every other byte where it is. It never judges what it
//! does not need: a member that is not read is the provider's to accept or refuse.
//!
//! Start reading in [`request`] for what comes in, [`answer`] for what comes back, [`reshape`] for what comes back in
//! the other form than was asked for; [`error`](mod@error) and [`write`](mod@write) are what we say ourselves; [`form`]
//! is what a made-up answer is to be; [`replay`] goes on with a stream by another answer;
//! [`probe`] is what we ask by ourselves.

pub mod answer;
pub mod error;
pub mod form;
pub mod models;
pub mod probe;
pub mod replay;
pub mod request;
pub mod reshape;
pub(in crate::protocol) mod usage;
pub mod write;
