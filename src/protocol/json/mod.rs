//! JSON text as it is written: where its members are, what it holds, how to change a few bytes of it.
//!
//! It knows the grammar of JSON and no API: which members matter is said by the modules beside it. It never
//! builds a tree and never copies a value that nobody asks for.
//!
//! Start reading in [`member`] for requests, [`lenient`] for answers, [`edit`] for what is changed.

pub mod edit;
pub mod lenient;
pub mod member;
pub mod scan;
pub mod text;
