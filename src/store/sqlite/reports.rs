//! Reports of a running gateway: reads the ledger while its writer appends.
//!
//! A report over millions of receipts may take a second. It runs on a blocking thread, few at a time, so that
//! reports neither delay requests nor use up all blocking threads.

use super::{LedgerReadError, LedgerReader};
use crate::domain::id::RequestId;
use crate::domain::posture::{PostureQuery, PostureTally};
use crate::domain::receipt::Receipt;
use crate::domain::report::{ReceiptsQuery, UsageQuery, UsageSum};
use crate::domain::sla::tally::{SlaMonthTally, SlaQuery};
use crate::store::reports::Reports;
use crate::store::{StoreFuture, StoreUnavailable};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The number of reports that run at once; each reads as fast as the disk allows.
const CONCURRENT_REPORTS: usize = 2;

/// Reports over the ledger in one database.
pub struct SqliteReports {
    path: PathBuf,
    permits: Arc<Semaphore>,
}

impl SqliteReports {
    /// Reports over the database at `path`.
    pub fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), permits: Arc::new(Semaphore::new(CONCURRENT_REPORTS)) }
    }

    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&LedgerReader) -> Result<T, LedgerReadError> + Send + 'static,
    ) -> StoreFuture<'static, Result<T, StoreUnavailable>> {
        let (path, permits) = (self.path.clone(), self.permits.clone());
        Box::pin(async move {
            let permit = permits.acquire_owned().await.map_err(|_| StoreUnavailable)?;
            let reading = tokio::task::spawn_blocking(move || {
                // Held by this thread: the caller may be cancelled while it still reads.
                let _permit = permit;
                LedgerReader::open(&path).and_then(|reader| read(&reader))
            });
            reading.await.map_err(|_| StoreUnavailable)?.map_err(|error| {
                tracing::error!(%error, "the ledger cannot be read");
                StoreUnavailable
            })
        })
    }
}

impl Reports for SqliteReports {
    fn usage(&self, query: UsageQuery, most: usize) -> StoreFuture<'static, Result<Vec<UsageSum>, StoreUnavailable>> {
        self.read(move |reader| reader.usage_up_to(&query, most))
    }

    fn receipts(&self, query: ReceiptsQuery) -> StoreFuture<'static, Result<Vec<Receipt>, StoreUnavailable>> {
        self.read(move |reader| reader.receipts(&query))
    }

    fn receipt(&self, id: RequestId) -> StoreFuture<'static, Result<Option<Receipt>, StoreUnavailable>> {
        self.read(move |reader| reader.receipt(id))
    }

    fn sla(&self, query: SlaQuery) -> StoreFuture<'static, Result<SlaMonthTally, StoreUnavailable>> {
        self.read(move |reader| reader.sla(query))
    }

    fn posture(&self, query: PostureQuery) -> StoreFuture<'static, Result<PostureTally, StoreUnavailable>> {
        self.read(move |reader| reader.posture(&query))
    }

    fn sla_requests(&self, query: SlaQuery) -> StoreFuture<'static, Result<u64, StoreUnavailable>> {
        self.read(move |reader| reader.sla_requests(&query))
    }
}
