//! Reports for whoever asks a running gateway: the ledger read beside its writer.
//!
//! A report may take a second over millions of receipts. It runs on a thread that may block, few at a time,
//! so that reports can neither hold up requests nor take all such threads.

use super::{Book, BookError};
use crate::domain::id::RequestId;
use crate::domain::receipt::Receipt;
use crate::domain::report::{ReceiptsQuery, UsageQuery, UsageSum};
use crate::store::reports::Reports;
use crate::store::{BoxFuture, Unavailable};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// More reports than these wait for one another: each reads as fast as the disk allows.
const AT_ONCE: usize = 2;

/// Reads the ledger in one file.
pub struct SqliteReports {
    path: PathBuf,
    turns: Arc<Semaphore>,
}

impl SqliteReports {
    /// Of the database at `path`.
    pub fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Book) -> Result<T, BookError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Unavailable>> {
        let (path, turns) = (self.path.clone(), self.turns.clone());
        Box::pin(async move {
            let turn = turns.acquire_owned().await.map_err(|_| Unavailable)?;
            let reading = tokio::task::spawn_blocking(move || {
                // Kept here and not by whoever asked: they may be gone while this still reads.
                let _turn = turn;
                Book::open(&path).and_then(|book| read(&book))
            });
            reading.await.map_err(|_| Unavailable)?.map_err(|error| {
                tracing::error!(%error, "the ledger cannot be read");
                Unavailable
            })
        })
    }
}

impl Reports for SqliteReports {
    fn usage(&self, query: UsageQuery, most: usize) -> BoxFuture<'static, Result<Vec<UsageSum>, Unavailable>> {
        self.read(move |book| book.usage_up_to(&query, most))
    }

    fn receipts(&self, query: ReceiptsQuery) -> BoxFuture<'static, Result<Vec<Receipt>, Unavailable>> {
        self.read(move |book| book.receipts(&query))
    }

    fn receipt(&self, id: RequestId) -> BoxFuture<'static, Result<Option<Receipt>, Unavailable>> {
        self.read(move |book| book.receipt(id))
    }
}
