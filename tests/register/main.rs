//! Keys, teams and credit as operators use them: by commands, with the real binary, on a database of their own.
//!
//! What every register promises is tested in `tests/store_contract/registers.rs`, keys in one process in
//! `tests/api/stored_keys.rs`; here a gateway and the commands beside it are separate processes.

// Tests observe real processes, and wait by the system's clock.
#![allow(clippy::disallowed_methods)]

#[path = "../store_sqlite/process.rs"]
#[allow(dead_code)] // what these tests do not need, those of the database do
mod process;
#[path = "../api/spellings.rs"]
mod spellings;

mod audit;
mod canary;
mod clashes;
mod commands;
mod imports;
mod lifecycle;
mod page;
mod place;
mod rotation;
mod shown;
