//! The back end of many gateways: one database on a PostgreSQL server.
//!
//! Each gateway writes through one thread and one connection of its own, many operations per commit, and reads with a few
//! others. What it has leased belongs to a term that the database must see renewed; the database's clock decides when one is
//! over. A request waits for the database only to get a lease that it needs. It must never decide anything, never prepare a
//! statement or keep anything in a session, and never take an unanswered commit for lost.
//!
//! Start reading in [`PostgresLedger::open`], then `term.rs` and `writer_target.rs` for what several gateways need;
//! [`PostgresSource`] reads for commands.

mod audit;
mod balances;
mod batch;
mod connections;
mod copy_end;
mod credit;
mod drill_reports;
mod error;
mod ledger;
mod ledger_source;
mod location;
mod migrate;
mod operation;
mod posture;
mod receipts;
mod register;
mod register_rows;
mod register_write;
mod replicas;
mod sharing;
mod sla;
mod state_accounts;
mod term;
mod tls;
mod usage;
mod writer_target;

pub use connections::Connections;
pub(super) use copy_end::PostgresCopyEnd;
pub use error::{PostgresError, PostgresOpenError};
pub use ledger::PostgresLedger;
pub use ledger_source::{PostgresReports, PostgresSource};
pub use location::PostgresLocation;
pub use operation::{PostgresOperation, PostgresWriter, QueuedLease};
pub use register::PostgresRegister;
pub use replicas::follow_replicas;
pub use state_accounts::{PostgresStateAccounts, shared_idempotency_secret, take_unbilled};
pub use term::MonotonicClock;

use super::migration::{AppliedMigrations, MigrationStatus};

/// Migrates the store at `location`, making it if there is none. It blocks.
///
/// # Errors
/// When it cannot be reached or made, or a newer version wrote it.
pub fn migrate_store(location: PostgresLocation, now_unix_ms: i64) -> Result<AppliedMigrations, PostgresOpenError> {
    migrate::migrate(&Connections::open(location)?, now_unix_ms)
}

/// Which migrations the store at `location` has. It is only read. It blocks.
///
/// # Errors
/// When there is none, it cannot be read, or a newer version wrote it.
pub fn migrations_of(location: PostgresLocation) -> Result<Vec<MigrationStatus>, PostgresOpenError> {
    migrate::status(&Connections::open(location)?)
}
