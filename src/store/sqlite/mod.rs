//! The back end of a process that remembers: one SQLite file.
//!
//! One thread writes, many operations to a commit; whoever reads opens the file beside it. A row
//! that was committed is durable, and nothing a request waits for ever waits for the disk. It must
//! never decide anything, nor share its file with another gateway.
//!
//! Start reading in [`SqliteLedger::open`]; [`Operation`] is how anything else joins the writer, and
//! [`Book`] how the ledger is read.

mod attempts;
mod balances;
mod book;
mod disk;
mod lease_store;
mod ledger;
mod line;
mod migrate;
mod open;
mod reader;
mod register;
mod retention;
mod usage;
mod writer;

pub use balances::{Account, Balance, Unaccounted};
pub use book::{Book, BookError};
pub use ledger::SqliteLedger;
pub use migrate::{Migrated, Migration, MigrationStatus, migrate, status};
pub use open::{OpenError, lock};
pub use reader::SqliteReports;
pub use register::SqliteRegister;
pub use writer::{Operation, Writer, Writing};

use std::sync::Arc;

/// Tells the time in Unix milliseconds: handed in, because only the clock asks the system for it.
pub type WallClock = Arc<dyn Fn() -> i64 + Send + Sync>;
