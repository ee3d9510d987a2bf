//! The handlers of OpenAI's API: its routed calls and its list of models.
//!
//! It never reads or writes the JSON of a call: `protocol` does.
//!
//! Start reading in [`chat`].

pub mod chat;
pub mod models;
