//! The durable back end: one SQLite database.
//!
//! One thread writes, many operations per commit; readers open connections of their own. A committed row is
//! durable. A request waits for a commit only to get a lease that it needs, never to append a receipt. It must
//! never decide anything, nor share its database with another gateway but its successor.
//!
//! Start reading in [`SqliteLedger::open`]; other writes implement [`WriteOperation`], and [`LedgerReader`] reads
//! the ledger.

mod attempts;
mod audit;
mod backup;
mod balances;
mod budget_row;
mod column;
mod credit;
mod database_file;
mod idempotency;
mod lease_store;
mod ledger;
mod ledger_reader;
mod migrate;
mod open;
mod operation;
mod receipt_row;
mod register;
mod reports;
mod retention;
mod sla;
mod state_accounts;
mod unbilled_responses;
mod usage;
mod writer;

pub use backup::{BackupError, backup, unfinished};
pub use balances::{AccountLabels, BudgetBalance, UnaccountedLease};
pub use idempotency::idempotency_secret;
pub use ledger::SqliteLedger;
pub use ledger_reader::{LedgerReadError, LedgerReader};
pub use migrate::{AppliedMigrations, Migration, MigrationStatus, migrate, status};
pub use open::{OpenError, StoreLock, is_held, lock, require_directory};
pub use operation::WriteOperation;
pub use register::SqliteRegister;
pub use reports::SqliteReports;
pub use state_accounts::SqliteStateAccounts;
pub use writer::{Writer, WriterGuard};

use std::sync::Arc;

/// Returns the time in Unix milliseconds. It is passed in, because only `clock` may read the system clock.
pub type WallClock = Arc<dyn Fn() -> i64 + Send + Sync>;
