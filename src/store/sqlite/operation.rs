//! What can be queued for the writer thread.
//!
//! A write may be repeated until its commit succeeds, so it must depend on nothing but its arguments and the database.
//! Start reading at [`WriteOperation`].

use crate::store::writer::{self, WriterOperation};
use rusqlite::Transaction;

/// Queues what is written to the database.
pub type SqliteWriter = writer::Writer<Box<dyn WriteOperation>>;

/// A write to the database.
pub trait WriteOperation: Send {
    /// Writes within `transaction`. Called again if that transaction was not committed.
    ///
    /// # Errors
    /// The error of SQLite. After an error of the disk or of the database as a whole the transaction is retried; if the
    /// fault is the operation's own, such as a row that violates the schema, only it is rolled back and left out.
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()>;

    /// What it is, for the log: it is named there if it is left out.
    fn describe(&self) -> String;

    /// Called once, after the write is durable; never, if the operation was left out.
    fn committed(self: Box<Self>);
}

impl WriterOperation for Box<dyn WriteOperation> {
    fn describe(&self) -> String {
        (**self).describe()
    }

    fn committed(self) {
        WriteOperation::committed(self);
    }
}

/// An entry of the queue.
pub(super) type QueuedSqliteOperation = writer::QueuedOperation<Box<dyn WriteOperation>>;
