//! The database as the writer's thread has it: one commit at a time, and a new connection where one
//! has failed.
//!
//! It never makes a file: one that is gone is waited for, because what was in it may come back. And it never
//! takes a failure for more than it says: a commit whose sync failed may be found in the file later, so each
//! has a number there (`user_version`), and one that is found is not made again.
//!
//! Start reading in [`Disk::commit`].

use super::open::existing;
use super::writer::{QueuedWrite, WriteOperation};
use super::{lease_store, receipt_row};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, ffi};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Where the number of the last commit stands.
const NUMBER: &str = "user_version";

/// The database, or where it should be.
pub(super) struct Disk {
    path: PathBuf,
    connection: Option<Connection>,
    /// Which file that is, by device and number.
    file: Option<(u64, u64)>,
    /// What of the last commit was at fault itself, by its place.
    left_out: Vec<usize>,
    /// The number of the commit that was tried last and is not known to be there.
    doubtful: Option<i32>,
    /// No other gateway writes to the file while this one does.
    _held: File,
}

impl Disk {
    /// The database at `path`, of which `held` is the lock.
    pub(super) fn open(path: &Path, held: File) -> rusqlite::Result<Self> {
        let connection = Some(existing(path)?);
        Ok(Self {
            path: path.to_owned(),
            connection,
            file: number(path),
            left_out: Vec::new(),
            doubtful: None,
            _held: held,
        })
    }

    /// Whether the operation at this place of the last commit was at fault itself.
    pub(super) fn left_out(&self, at: usize) -> bool {
        self.left_out.contains(&at)
    }

    /// The connection, where there is one.
    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut()
    }

    /// Commits `batch`, or nothing of it. After a failure the same batch comes again.
    pub(super) fn commit(&mut self, batch: &[QueuedWrite]) -> rusqlite::Result<()> {
        // A file that was removed or replaced would be written on, out of everybody's sight.
        if self.file != number(&self.path) {
            self.connection = None;
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let connection = none.insert(existing(&self.path)?);
                self.file = number(&self.path);
                connection
            }
        };
        let done = transact(connection, batch, &mut self.left_out, &mut self.doubtful);
        // A full disk leaves a connection as it was; after anything else only a new one is sure to be sound.
        if done.as_ref().is_err_and(|error| error.sqlite_error_code() != Some(ErrorCode::DiskFull)) {
            self.connection = None;
        }
        done
    }
}

fn number(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|file| (file.dev(), file.ino()))
}

fn transact(
    connection: &mut Connection,
    batch: &[QueuedWrite],
    left_out: &mut Vec<usize>,
    doubtful: &mut Option<i32>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let last: i32 = transaction.pragma_query_value(None, NUMBER, |row| row.get(0))?;
    if *doubtful == Some(last) {
        transaction.rollback()?;
        // It is in the log, whose sync failed: in the database itself it is written anew.
        connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(()))?;
        *doubtful = None;
        return Ok(());
    }
    left_out.clear();
    let number = last.wrapping_add(1);
    transaction.pragma_update(None, NUMBER, number)?;
    *doubtful = Some(number);
    for (at, work) in batch.iter().enumerate() {
        let written = match work {
            // A receipt that is there already was charged then.
            QueuedWrite::Receipt(receipt) => match receipt_row::insert(&transaction, receipt) {
                Ok(true) => lease_store::charge(&transaction, &receipt.charges),
                other => other.map(drop),
            },
            QueuedWrite::Operation(operation) => whole(&**operation, &transaction),
        };
        match written {
            Err(error) if is_its_own_fault(&error) => {
                tracing::error!(%error, "an operation is left out of the store");
                left_out.push(at);
            }
            other => other?,
        }
    }
    transaction.commit()?;
    *doubtful = None;
    Ok(())
}

/// All of `operation`, or nothing of it.
fn whole(operation: &dyn WriteOperation, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch("SAVEPOINT operation")?;
    // A bug in one operation must not end the writing of all others.
    let written = catch_unwind(AssertUnwindSafe(|| operation.write(transaction))).unwrap_or_else(|_| Err(panicked()));
    match written {
        Err(error) if is_its_own_fault(&error) => {
            transaction.execute_batch("ROLLBACK TO operation; RELEASE operation")?;
            Err(error)
        }
        // The whole transaction ends with it.
        Err(error) => Err(error),
        Ok(()) => transaction.execute_batch("RELEASE operation"),
    }
}

fn panicked() -> rusqlite::Error {
    let fault = ffi::Error::new(ffi::SQLITE_CONSTRAINT);
    rusqlite::Error::SqliteFailure(fault, Some("the operation panicked".to_owned()))
}

/// What no other try would change: the rest of the commit must not wait for it.
fn is_its_own_fault(error: &rusqlite::Error) -> bool {
    use ErrorCode::{ConstraintViolation, ParameterOutOfRange, TooBig, TypeMismatch};
    let code = error.sqlite_error_code();
    matches!(code, Some(ConstraintViolation | TooBig | TypeMismatch | ParameterOutOfRange))
}
