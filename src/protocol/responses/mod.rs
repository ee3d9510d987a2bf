//! OpenAI's Responses, as a client speaks them and as providers of the same API answer.
//!
//! It reads what routing, limits, usage and the pinning of state need and leaves every other byte where it is. A body
//! that refers to what only one account of a provider knows says so here, as values; what follows is decided elsewhere.
//!
//! Start reading in [`request`] for what comes in, [`answer`] for what comes back; [`error`](mod@error) is what ends a
//! stream that broke.

pub mod answer;
pub mod error;
pub mod request;
