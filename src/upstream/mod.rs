//! The `upstream` room.

pub mod sse;
