//! The database: how it is opened, written, killed and read.
//!
//! What every ledger promises is in `tests/store_contract.rs`; here is what only a file can do wrong.
//! Disks fail by limits that SQLite or the system really enforces, processes die by SIGKILL.

// Tests watch real processes, and have the system's clock for their patience.
#![allow(clippy::disallowed_methods)]

mod budgets;
mod disk;
mod killed;
mod large;
mod opening;
mod process;
mod receipts;
mod reports;
mod retention;
