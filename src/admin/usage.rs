//! Reports of what was spent: sums over the ledger, and its receipts.

use super::{AdminError, AdminOperations, Page, RecordKind};
use crate::domain::id::RequestId;
use crate::domain::receipt::Receipt;
use crate::domain::report::{ReceiptsQuery, UsageQuery, UsageSum};
use crate::store::reports::Reports;

/// Maximum number of rows of a report.
const ROWS_MAX: usize = 10_000;

impl AdminOperations {
    /// The sums of `query`: the most expensive first, or day by day if the first dimension is the day.
    ///
    /// # Errors
    /// [`AdminError`], also if the report would have too many rows.
    pub async fn usage(&self, query: UsageQuery) -> Result<Vec<UsageSum>, AdminError> {
        let sums = self.reports()?.usage(query, ROWS_MAX + 1).await?;
        if sums.len() > ROWS_MAX {
            let message = format!("this has more than {ROWS_MAX} rows; sum by less, or ask for a shorter time");
            return Err(AdminError::invalid("by", message));
        }
        Ok(sums)
    }

    /// A page of the receipts of `query`, the newest first.
    ///
    /// # Errors
    /// [`AdminError::NoLedger`] or [`AdminError::Unavailable`].
    pub async fn receipts(&self, query: ReceiptsQuery) -> Result<Page<Receipt>, AdminError> {
        let most = query.most;
        let receipts = self.reports()?.receipts(ReceiptsQuery { most: most.saturating_add(1), ..query }).await?;
        Ok(Page::of(receipts, most, |receipt| receipt.id.to_string()))
    }

    /// The receipt of request `id`. It is in the ledger a moment after its answer has ended.
    ///
    /// # Errors
    /// [`AdminError::NotFound`], [`AdminError::NoLedger`] or [`AdminError::Unavailable`].
    pub async fn receipt(&self, id: RequestId) -> Result<Receipt, AdminError> {
        let found = self.reports()?.receipt(id).await?;
        found.ok_or_else(|| AdminError::NotFound { kind: RecordKind::Request, name: id.to_string() })
    }

    pub(super) fn reports(&self) -> Result<&dyn Reports, AdminError> {
        self.reports.as_deref().ok_or(AdminError::NoLedger)
    }
}
