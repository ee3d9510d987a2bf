//! The `http` room.

pub mod openai;
