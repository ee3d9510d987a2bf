//! OpenAI's JSON, as far as the front door must know it.
//!
//! It reads what routing and limits need and leaves every byte of a body where it is.
//!
//! Start reading in [`peek::peek`].

mod member;
pub mod peek;
mod scan;
