//! Keys, teams and credit as operators meet them: by the commands, with the real binary, on a database of
//! their own.
//!
//! What every register promises is in `tests/store_contract/registers.rs`, what keys do in one process in
//! `tests/api/stored_keys.rs`; here a gateway and commands beside it are processes of their own.

// Tests watch real processes, and have the system's clock for their patience.
#![allow(clippy::disallowed_methods)]

#[path = "../store_sqlite/process.rs"]
#[allow(dead_code)] // what these tests do not need, those of the database do
mod process;
#[path = "../api/spellings.rs"]
mod spellings;

mod canary;
mod clashes;
mod commands;
mod imports;
mod lifecycle;
mod page;
mod place;
mod rotation;
