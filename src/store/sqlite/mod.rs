//! The back end of a process that remembers: one SQLite file.
//!
//! One thread writes, many operations to a commit; whoever reads opens the file beside it. A row
//! that was committed is durable, and nothing a request waits for ever waits for the disk. It must
//! never decide anything, nor share its file with another gateway.
//!
//! Start reading in [`SqliteLedger::open`]; [`WriteOperation`] is how anything else joins the writer, and
//! [`LedgerReader`] how the ledger is read.

mod attempts;
mod balances;
mod disk;
mod lease_store;
mod ledger;
mod ledger_reader;
mod migrate;
mod open;
mod receipt_row;
mod register;
mod reports;
mod retention;
mod usage;
mod writer;

pub use balances::{AccountLabels, BudgetBalance, UnaccountedLease};
pub use ledger::SqliteLedger;
pub use ledger_reader::{LedgerReadError, LedgerReader};
pub use migrate::{Migrated, Migration, MigrationStatus, migrate, status};
pub use open::{OpenError, lock};
pub use register::SqliteRegister;
pub use reports::SqliteReports;
pub use writer::{WriteOperation, Writer, WriterGuard};

pub use super::reports::{Condition, Dimension, UsageQuery, UsageSum};

use std::sync::Arc;

/// Tells the time in Unix milliseconds: handed in, because only the clock asks the system for it.
pub type WallClock = Arc<dyn Fn() -> i64 + Send + Sync>;
