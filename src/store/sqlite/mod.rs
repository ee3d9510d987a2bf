//! The durable back end: one SQLite database.
//!
//! One thread writes, many operations per commit; readers open connections of their own. A committed row is
//! durable. A request waits for a commit only to get a lease that it needs, never to append a receipt. It must
//! never decide anything, nor share its database with another gateway but its successor.
//!
//! Start reading in [`SqliteLedger::open`]; other writes implement [`WriteOperation`], and [`LedgerReader`] reads
//! the ledger.

mod audit;
mod backup;
mod balances;
mod budget_row;
mod copy_end;
mod credit;
mod database_file;
mod drill_reports;
mod idempotency;
mod lease_store;
mod ledger;
mod ledger_reader;
mod migrate;
mod open;
mod operation;
mod posture;
mod receipt_row;
mod register;
mod reports;
mod sla;
mod state_accounts;
mod unbilled_responses;
mod usage;

pub use crate::store::WallClock;
pub use crate::store::reports::{AccountLabels, BudgetBalance, UnaccountedLease};
pub use crate::store::writer::WriterGuard;
pub use backup::{BackupError, backup, unfinished};
pub(super) use copy_end::SqliteCopyEnd;
pub use idempotency::idempotency_secret;
pub use ledger::SqliteLedger;
pub use ledger_reader::{LedgerReadError, LedgerReader};
pub use migrate::{migrate, status};
pub use open::{OpenError, StoreLock, is_held, lock, require_directory};
pub use operation::{SqliteWriter, WriteOperation};
pub use register::SqliteRegister;
pub use reports::SqliteReports;
pub use state_accounts::SqliteStateAccounts;

use crate::store::column::UnreadableValue;
use rusqlite::types::Type;

/// The error for a row with a value that this program cannot read.
fn unreadable_value(why: UnreadableValue) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(why))
}
