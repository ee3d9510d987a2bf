//! JSON text as it is written: where its members are, what it holds, how to change a few bytes of it.
//!
//! It knows the grammar of JSON and no API: which members matter is said by the modules beside it. It
//! copies no value that nobody asks for, and takes apart only what is put together anew.
//!
//! Start reading in [`member`] for requests, [`lenient`] for answers, [`edit`] for what is changed,
//! [`value`] for what is put together.

pub mod edit;
pub mod lenient;
pub mod member;
pub mod mend;
pub mod name_fold;
pub mod scan;
pub mod text;
pub mod value;
