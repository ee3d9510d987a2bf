//! The database as the writer thread uses it: one commit at a time, and a new connection after a failure.
//!
//! It never creates a file: if the file is gone it waits, because the file may come back with its contents. It never
//! assumes that a failed commit was lost: a commit whose sync failed may still be in the file later. So each
//! commit has a number there (`user_version`), and one that is found is not repeated. While a process and its
//! successor both write, each counts its own commits, in a part of that number.
//!
//! Start reading in [`DatabaseFile::commit`].

use super::open::{StoreLock, WRITERS, existing};
use super::operation::{QueuedOperation, WriteOperation};
use super::{budget_row, receipt_row};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, ffi};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The pragma that stores the numbers of the last commits, one for each writer.
const NUMBER: &str = "user_version";
/// Bits of one writer's number. One would be enough: only the last commit of a writer can be in doubt.
const NUMBER_BITS: u32 = i32::BITS / WRITERS as u32;
const NUMBER_MASK: u32 = (1 << NUMBER_BITS) - 1;

/// The database at a path, connected or not.
pub(super) struct DatabaseFile {
    path: PathBuf,
    connection: Option<Connection>,
    /// The device and inode of the connected file.
    file: Option<(u64, u64)>,
    /// Indexes of operations that were left out of the last commit.
    left_out: Vec<usize>,
    /// The number of the last attempted commit, if it is unknown whether it is in the file.
    doubtful: Option<u32>,
    /// The lock that keeps other gateways from writing to the database.
    lock: Arc<StoreLock>,
}

impl DatabaseFile {
    /// Connects to the database at `path`, whose lock is `lock`.
    pub(super) fn open(path: &Path, lock: Arc<StoreLock>) -> rusqlite::Result<Self> {
        let connection = Some(existing(path)?);
        Ok(Self { path: path.to_owned(), connection, file: identity(path), left_out: Vec::new(), doubtful: None, lock })
    }

    /// Whether the operation at this index was left out of the last commit.
    pub(super) fn left_out(&self, at: usize) -> bool {
        self.left_out.contains(&at)
    }

    /// The connection, if there is one.
    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut()
    }

    /// Commits `batch`, or nothing of it. After a failure the caller must pass the same batch again.
    pub(super) fn commit(&mut self, batch: &[QueuedOperation]) -> rusqlite::Result<()> {
        // Otherwise a file that was removed or replaced would be written to unseen.
        if self.file != identity(&self.path) {
            self.connection = None;
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let connection = none.insert(existing(&self.path)?);
                self.file = identity(&self.path);
                connection
            }
        };
        let done = transact(connection, batch, self.lock.writer(), &mut self.left_out, &mut self.doubtful);
        // A full disk leaves a connection usable; after any other error only a new one is known to be.
        if done.as_ref().is_err_and(|error| error.sqlite_error_code() != Some(ErrorCode::DiskFull)) {
            self.connection = None;
        }
        done
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|file| (file.dev(), file.ino()))
}

fn transact(
    connection: &mut Connection,
    batch: &[QueuedOperation],
    writer: u8,
    left_out: &mut Vec<usize>,
    doubtful: &mut Option<u32>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let last: i32 = transaction.pragma_query_value(None, NUMBER, |row| row.get(0))?;
    if *doubtful == Some(number_of(writer, last)) {
        transaction.rollback()?;
        // It is in the write-ahead log, whose sync failed: the checkpoint writes it to the database file.
        connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(()))?;
        *doubtful = None;
        return Ok(());
    }
    left_out.clear();
    let numbers = next_of(writer, last);
    transaction.pragma_update(None, NUMBER, numbers)?;
    *doubtful = Some(number_of(writer, numbers));
    for (at, work) in batch.iter().enumerate() {
        let written = match work {
            // The charges of a receipt that exists were booked with it.
            QueuedOperation::Receipt(receipt) => match receipt_row::insert(&transaction, receipt) {
                Ok(true) => budget_row::charge(&transaction, &receipt.charges),
                other => other.map(drop),
            },
            QueuedOperation::Operation(operation) => write_whole(&**operation, &transaction),
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

/// The number of the last commit of `writer` in `numbers`.
fn number_of(writer: u8, numbers: i32) -> u32 {
    (numbers.cast_unsigned() >> (NUMBER_BITS * u32::from(writer))) & NUMBER_MASK
}

/// `numbers` after one more commit of `writer`.
fn next_of(writer: u8, numbers: i32) -> i32 {
    let shift = NUMBER_BITS * u32::from(writer);
    let next = (number_of(writer, numbers) + 1) & NUMBER_MASK;
    ((numbers.cast_unsigned() & !(NUMBER_MASK << shift)) | (next << shift)).cast_signed()
}

/// All of `operation`, or nothing of it.
fn write_whole(operation: &dyn WriteOperation, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch("SAVEPOINT operation")?;
    // A bug in one operation must not end the writer thread.
    let written = catch_unwind(AssertUnwindSafe(|| operation.write(transaction))).unwrap_or_else(|_| Err(panicked()));
    match written {
        Err(error) if is_its_own_fault(&error) => {
            transaction.execute_batch("ROLLBACK TO operation; RELEASE operation")?;
            Err(error)
        }
        // The whole transaction is rolled back.
        Err(error) => Err(error),
        Ok(()) => transaction.execute_batch("RELEASE operation"),
    }
}

fn panicked() -> rusqlite::Error {
    let fault = ffi::Error::new(ffi::SQLITE_CONSTRAINT);
    rusqlite::Error::SqliteFailure(fault, Some("the operation panicked".to_owned()))
}

/// Whether retrying cannot help: the other operations of the commit must not wait for this one.
fn is_its_own_fault(error: &rusqlite::Error) -> bool {
    use ErrorCode::{ConstraintViolation, ParameterOutOfRange, TooBig, TypeMismatch};
    let code = error.sqlite_error_code();
    matches!(code, Some(ConstraintViolation | TooBig | TypeMismatch | ParameterOutOfRange))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_writer_counts_its_own_commits() {
        for writer in 0..WRITERS {
            let (mut numbers, others) = (-1, (0..WRITERS).filter(move |other| *other != writer));
            for _ in 0..40 {
                let before = number_of(writer, numbers);
                numbers = next_of(writer, numbers);
                assert_ne!(number_of(writer, numbers), before);
                assert!(others.clone().all(|other| number_of(other, numbers) == number_of(other, -1)), "{numbers:x}");
            }
        }
    }
}
