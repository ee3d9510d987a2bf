//! What can be queued for the writer thread.
//!
//! A write may be repeated until its commit succeeds, so it must depend on nothing but its arguments and the database.
//! Start reading at [`WriteOperation`].

use crate::domain::receipt::Receipt;
use rusqlite::Transaction;
use std::sync::Arc;

/// A write to the database.
pub trait WriteOperation: Send {
    /// Writes within `transaction`. Called again if that transaction was not committed.
    ///
    /// # Errors
    /// The error of SQLite. After an error of the disk the whole transaction is retried; if a row violates the
    /// schema, only this operation is rolled back and left out.
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()>;

    /// Called once, after the write is durable; never, if the operation was left out.
    fn committed(self: Box<Self>);
}

/// An entry of the queue.
pub(super) enum QueuedOperation {
    Receipt(Arc<Receipt>),
    Operation(Box<dyn WriteOperation>),
}
