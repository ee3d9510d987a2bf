//! The JSON of model APIs, and nothing else knows it.

pub mod chat;
pub mod json;
pub mod sse;
