//! OpenAI's API: its routed calls, its list of models, and its JSON as far as the front door must
//! know it.
//!
//! It reads what routing and limits need and leaves every byte of a body where it is.
//!
//! Start reading in [`chat`].

pub mod chat;
pub mod models;
