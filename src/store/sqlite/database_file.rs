//! The database as the writer thread uses it: one commit at a time, and a new connection after a failure.
//!
//! It never creates a file, and never writes another one than it has locked: if that is gone it waits, because the file
//! may come back with its contents; what was put in its place has other balances. Nor does it write on into a write-ahead
//! log that was removed or replaced: no other process would see it, and it would be gone with this one. It never assumes
//! that a failed commit was lost: a commit whose sync failed may still be in the file later. So each
//! commit has a number there (`user_version`), and one that is found is not repeated. While a process and its
//! successor both write, each counts its own commits, in a part of that number.
//!
//! Start reading in [`DatabaseFile::commit`].

use super::open::{FileId, StoreLock, WRITERS, existing, file_at, log_path};
use super::operation::QueuedSqliteOperation;
use super::{WriteOperation, budget_row, receipt_row};
use crate::domain::receipt::Receipt;
use crate::store::retention::{BATCH_ROWS, Retention};
use crate::store::writer::WriterTarget;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, ffi, params};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The pragma that stores the numbers of the last commits, one for each writer.
const NUMBER: &str = "user_version";
/// Bits of one writer's number. One would be enough: only the last commit of a writer can be in doubt.
const NUMBER_BITS: u32 = i32::BITS / WRITERS as u32;
const NUMBER_MASK: u32 = (1 << NUMBER_BITS) - 1;

/// The database at a path, connected or not.
pub(super) struct DatabaseFile {
    path: PathBuf,
    log_path: PathBuf,
    connection: Option<Connection>,
    /// The write-ahead log that the connection writes to; `None` until it is known.
    log: Option<FileId>,
    /// Indexes of operations that were left out of the last commit.
    left_out: Vec<usize>,
    /// The number of the last attempted commit, if it is unknown whether it is in the file.
    doubtful: Option<u32>,
    /// The lock that keeps other gateways from writing to the database.
    lock: Arc<StoreLock>,
    retention: Option<Retention>,
}

impl WriterTarget for DatabaseFile {
    type Operation = Box<dyn WriteOperation>;
    type Error = rusqlite::Error;

    fn commit(&mut self, batch: &[QueuedSqliteOperation]) -> rusqlite::Result<()> {
        let done = self.commit_if_there(batch);
        // A full disk leaves a connection usable; after any other error only a new one is known to be. While a file is not
        // there the connection is all that is left of it.
        if done.as_ref().is_err_and(|error| error.sqlite_error_code() != Some(ErrorCode::DiskFull))
            && self.check_files().is_ok()
        {
            // Its log goes with it, if it is the last one.
            (self.connection, self.log) = (None, None);
        }
        done
    }

    fn left_out(&self, at: usize) -> bool {
        self.left_out.contains(&at)
    }

    fn check(&mut self) -> rusqlite::Result<()> {
        self.check_files()
    }

    fn next_upkeep(&self, now_unix_ms: i64) -> Option<Duration> {
        self.retention.as_ref().map(|retention| retention.pause(now_unix_ms))
    }

    /// Freed space is reused; the file does not shrink. An error is not logged: the next commit fails as well, and logs it.
    fn upkeep(&mut self, now_unix_ms: i64) {
        let (Some(retention), Some(connection)) = (&mut self.retention, &self.connection) else { return };
        retention.delete_expired(now_unix_ms, |before| {
            // By id and by time: where the two differ because the clock was set, a row is kept a little longer.
            let deleted = connection.execute(
                "DELETE FROM receipts WHERE id IN
                 (SELECT id FROM receipts WHERE id < ?1 AND received_unix_ms < ?2 ORDER BY id LIMIT ?3)",
                params![receipt_row::id_at(before), before, BATCH_ROWS],
            );
            deleted.ok().map(|rows| rows as u64)
        });
    }
}

impl DatabaseFile {
    /// Connects to the database at `path`, whose lock is `lock`; deletes receipts older than `keep`.
    pub(super) fn open(path: &Path, lock: Arc<StoreLock>, keep: Option<Duration>) -> rusqlite::Result<Self> {
        let (connection, log_path) = (Some(existing(path)?), log_path(path));
        let log = file_at(&log_path);
        let (left_out, doubtful, retention) = (Vec::new(), None, keep.map(Retention::new));
        Ok(Self { path: path.to_owned(), log_path, connection, log, left_out, doubtful, lock, retention })
    }

    fn commit_if_there(&mut self, batch: &[QueuedSqliteOperation]) -> rusqlite::Result<()> {
        self.check_files()?;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(existing(&self.path)?),
        };
        transact(connection, batch, self.lock.writer(), &mut self.left_out, &mut self.doubtful)?;
        // A lease from a file that was replaced meanwhile must not be spent: the other file does not know of it.
        self.check_files()?;
        self.log = self.log.or_else(|| file_at(&self.log_path));
        self.doubtful = None;
        Ok(())
    }

    /// An error unless the files at their paths are those that this process writes: the database that is locked, and
    /// the write-ahead log that the connection has opened. A log that was removed is first written to the database.
    fn check_files(&mut self) -> rusqlite::Result<()> {
        if !self.lock.is_for(&self.path) {
            return Err(gone(
                "the file is not the one that this process has locked: it was removed or replaced. Put it back, or \
                 restart the gateway",
            ));
        }
        let Some((log, connection)) = self.log.zip(self.connection.as_ref()) else { return Ok(()) };
        match file_at(&self.log_path) {
            Some(found) if found == log => Ok(()),
            Some(_) => Err(gone(
                "its write-ahead log was replaced while the gateway was running. Put back what was there, or restart \
                 the gateway",
            )),
            // Nobody else has begun a log since: what is in the removed one belongs in the database.
            None => {
                let busy = connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |row| row.get::<_, i64>(0));
                Err(gone(match busy {
                    Ok(0) => {
                        "its write-ahead log was removed while the gateway was running; what was in it has been \
                         written to the database. Restart the gateway"
                    }
                    _ => {
                        "its write-ahead log was removed while the gateway was running, and what is in it cannot be saved"
                    }
                }))
            }
        }
    }
}

fn gone(what: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CANTOPEN), Some(what.to_owned()))
}

fn transact(
    connection: &mut Connection,
    batch: &[QueuedSqliteOperation],
    writer: u8,
    left_out: &mut Vec<usize>,
    doubtful: &mut Option<u32>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let last: i32 = transaction.pragma_query_value(None, NUMBER, |row| row.get(0))?;
    if *doubtful == Some(number_of(writer, last)) {
        transaction.rollback()?;
        // It is in the write-ahead log, whose sync failed: the checkpoint writes it to the database file.
        return connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(()));
    }
    left_out.clear();
    let numbers = next_of(writer, last);
    transaction.pragma_update(None, NUMBER, numbers)?;
    *doubtful = Some(number_of(writer, numbers));
    for (at, work) in batch.iter().enumerate() {
        let written = match work {
            // One statement is whole by itself.
            QueuedSqliteOperation::Receipt(receipt) if receipt.charges.is_empty() => {
                receipt_row::insert(&transaction, receipt).map(drop)
            }
            QueuedSqliteOperation::Receipt(receipt) => whole(&transaction, || write_charged(receipt, &transaction)),
            QueuedSqliteOperation::Operation(operation) => whole(&transaction, || operation.write(&transaction)),
        };
        match written {
            Err(error) if is_its_own_fault(&error) => {
                let operation = work.describe();
                tracing::error!(operation, %error, "this can never be written and is left out of the store");
                left_out.push(at);
            }
            other => other?,
        }
    }
    transaction.commit()
}

fn write_charged(receipt: &Receipt, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    match receipt_row::insert(transaction, receipt)? {
        true => budget_row::charge(transaction, &receipt.charges),
        // The charges of a receipt that exists were booked with it.
        false => Ok(()),
    }
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

/// All that `write` writes, or nothing of it.
fn whole(transaction: &Transaction<'_>, write: impl FnOnce() -> rusqlite::Result<()>) -> rusqlite::Result<()> {
    transaction.execute_batch("SAVEPOINT operation")?;
    // A bug in one operation must not end the writer thread.
    let written = catch_unwind(AssertUnwindSafe(write)).unwrap_or_else(|_| Err(panicked()));
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
    use ErrorCode::{ApiMisuse, ConstraintViolation, ParameterOutOfRange, TooBig, TypeMismatch, Unknown};
    // Where a table, a column or a savepoint is missing it is the database that is not as it must be, for all operations.
    if matches!(error, rusqlite::Error::SqlInputError { .. }) || error.to_string().starts_with("no such ") {
        return false;
    }
    match error.sqlite_error_code() {
        // Unknown is what a statement met in the rows, such as a sum beyond 64 bits.
        Some(ConstraintViolation | TooBig | TypeMismatch | ParameterOutOfRange | ApiMisuse | Unknown) => true,
        Some(_) => false,
        // A row that is missing, or holds what this program cannot read.
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operations_fault_is_not_one_of_the_database() {
        let connection = Connection::open_in_memory().expect("memory is available");
        connection
            .execute_batch(
                "CREATE TABLE t (a INTEGER NOT NULL) STRICT; INSERT INTO t VALUES (9223372036854775807), (1)",
            )
            .expect("it is SQL");
        let check = |sql: &str, expected: bool| {
            let error = connection.query_row(sql, [], |row| row.get::<_, u32>(0)).expect_err(sql);
            assert_eq!(is_its_own_fault(&error), expected, "{sql}: {error}");
        };
        check("SELECT sum(a) FROM t", true);
        check("SELECT max(a) FROM t", true);
        check("SELECT a FROM t WHERE a = 7", true);
        check("INSERT INTO t VALUES (NULL) RETURNING a", true);
        check("INSERT INTO t VALUES ('text') RETURNING a", true);
        check("SELECT a FROM missing", false);
        check("SELECT missing FROM t", false);
        assert!(is_its_own_fault(&panicked()));
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR, ffi::SQLITE_BUSY, ffi::SQLITE_CORRUPT, ffi::SQLITE_CANTOPEN] {
            assert!(!is_its_own_fault(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)), "{code}");
        }
    }

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
