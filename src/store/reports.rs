//! Reading the ledger while it is written.
//!
//! The request path only writes the ledger; reports are read beside it, for operators. A report never delays a
//! request, and never holds the whole ledger in memory.
//!
//! Start reading in [`Reports`].

use super::{StoreFuture, StoreUnavailable};
use crate::domain::id::RequestId;
use crate::domain::receipt::Receipt;
use crate::domain::report::{ReceiptsQuery, UsageQuery, UsageSum};
use crate::domain::sla::tally::{SlaMonthTally, SlaQuery};

/// A ledger that can be read while it is written.
pub trait Reports: Send + Sync {
    /// The receipts of `query`, summed by its dimensions, `most` sums at most: the dearest first, or day by day
    /// where days come first.
    fn usage(&self, query: UsageQuery, most: usize) -> StoreFuture<'static, Result<Vec<UsageSum>, StoreUnavailable>>;

    /// The receipts of `query`, newest first.
    fn receipts(&self, query: ReceiptsQuery) -> StoreFuture<'static, Result<Vec<Receipt>, StoreUnavailable>>;

    /// The receipt of request `id`.
    fn receipt(&self, id: RequestId) -> StoreFuture<'static, Result<Option<Receipt>, StoreUnavailable>>;

    /// The receipts of `query`, counted for the SLA of its policy.
    fn sla(&self, query: SlaQuery) -> StoreFuture<'static, Result<SlaMonthTally, StoreUnavailable>>;

    /// How many receipts there are in the month of `query`.
    fn sla_requests(&self, query: SlaQuery) -> StoreFuture<'static, Result<u64, StoreUnavailable>>;
}
