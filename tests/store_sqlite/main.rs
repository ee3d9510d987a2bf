//! The database: how it is opened, written, killed and read.
//!
//! What every ledger guarantees is in `tests/store_contract.rs`; here is what can fail only with a database file.
//! Disk failures are limits that SQLite or the system really enforces; processes are killed by SIGKILL.

// Tests wait for real processes, and use the system clock for their timeouts.
#![allow(clippy::disallowed_methods)]

mod backup;
mod budgets;
mod catalogue;
mod disk;
mod killed;
mod large;
mod lock;
mod logs;
mod opening;
mod poison;
mod process;
mod receipts;
mod reports;
mod retention;
mod sla;
mod state_accounts;
mod strangers;
mod succession;
