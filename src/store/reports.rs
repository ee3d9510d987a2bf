//! Reading the ledger while it is written.
//!
//! The request path only writes the ledger; reports are read beside it, for operators. A report never delays a
//! request, and never holds the whole ledger in memory.
//!
//! Start reading in [`Reports`] for a gateway, in [`LedgerSource`] for a command.

use super::{RegisterContents, StoreFuture, StoreUnavailable};
use crate::domain::audit::{AuditChain, AuditQuery, AuditRow};
use crate::domain::id::RequestId;
use crate::domain::posture::{PostureQuery, PostureTally};
use crate::domain::receipt::Receipt;
use crate::domain::report::{Dimension, ReceiptsQuery, UsageQuery, UsageSum};
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

    /// The receipts of `query`, counted by how they were served.
    fn posture(&self, query: PostureQuery) -> StoreFuture<'static, Result<PostureTally, StoreUnavailable>>;

    /// How many receipts there are in the month of `query`.
    fn sla_requests(&self, query: SlaQuery) -> StoreFuture<'static, Result<u64, StoreUnavailable>>;
}

/// The store of a command that only reads: it is neither made nor migrated, and no gateway is locked out or delayed. Its
/// functions block.
pub trait LedgerSource {
    /// The receipt of request `id`.
    ///
    /// # Errors
    /// When it cannot be read.
    fn receipt(&self, id: RequestId) -> Result<Option<Receipt>, LedgerSourceError>;

    /// The receipts of `query`, summed by its dimensions: highest cost first, or in order of days if that is the first
    /// dimension.
    ///
    /// # Errors
    /// When they cannot be read.
    fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageSum>, LedgerSourceError>;

    /// The receipts of `query`, newest first.
    ///
    /// # Errors
    /// When they cannot be read.
    fn receipts(&self, query: &ReceiptsQuery) -> Result<Vec<Receipt>, LedgerSourceError>;

    /// Gives each receipt of `query` to `take`, the newest first; `None` stands for one that cannot be read. They are as one
    /// moment saw them, and not all in memory at once.
    ///
    /// # Errors
    /// When they cannot be read.
    fn each_receipt(
        &self,
        query: &ReceiptsQuery,
        take: &mut (dyn FnMut(Option<Receipt>) + Send),
    ) -> Result<(), LedgerSourceError>;

    /// Every window of every budget, by scope, window and name.
    ///
    /// # Errors
    /// When they cannot be read.
    fn balances(&self) -> Result<Vec<BudgetBalance>, LedgerSourceError>;

    /// Leases that were open when their process ended.
    ///
    /// # Errors
    /// When they cannot be read.
    fn unaccounted(&self) -> Result<Vec<UnaccountedLease>, LedgerSourceError>;

    /// The rows of the audit that `query` asks for, the newest first.
    ///
    /// # Errors
    /// When they cannot be read.
    fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, LedgerSourceError>;

    /// What the whole audit is verified by.
    ///
    /// # Errors
    /// When it cannot be read.
    fn audit_chain(&self) -> Result<AuditChain, LedgerSourceError>;

    /// All keys, teams and credit.
    ///
    /// # Errors
    /// When they cannot be read.
    fn registered(&self) -> Result<RegisterContents, LedgerSourceError>;

    /// When the oldest request in the ledger was received, in Unix milliseconds; `None` if the ledger is empty.
    ///
    /// # Errors
    /// When it cannot be read.
    fn begins_unix_ms(&self) -> Result<Option<i64>, LedgerSourceError>;
}

/// Why the ledger cannot be read, in a sentence that says what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct LedgerSourceError(pub String);

/// Sorts the sums of `query`: days by date, everything else by cost.
pub(super) fn sort_sums(query: &UsageQuery, sums: &mut [UsageSum]) {
    let day = |sum: &UsageSum| (query.by.first() == Some(&Dimension::Day)).then(|| sum.by[0].clone());
    sums.sort_by(|a, b| (day(a), b.cost_nanousd, &a.by).cmp(&(day(b), a.cost_nanousd, &b.by)));
}

/// One window of an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BudgetBalance {
    /// The account it belongs to.
    pub account: AccountLabels,
    /// The first millisecond of the window, in Unix time.
    pub start_ms: i64,
    /// The first millisecond after the window, in Unix time.
    pub end_ms: i64,
    /// Spent, in billionths of a US dollar.
    pub spent_nanousd: i64,
    /// Leased by the processes that write the database and neither spent nor returned, in billionths of a US dollar.
    pub leased_nanousd: i64,
}

/// A lease that was open when its process ended. How much of it was spent is unknown, so all of it counts as spent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnaccountedLease {
    /// When the next process found it, in Unix milliseconds.
    pub booked_unix_ms: i64,
    /// The account it was leased from.
    pub account: AccountLabels,
    /// The first millisecond of the window it was leased from, in Unix time.
    pub start_ms: i64,
    /// The amount, in billionths of a US dollar.
    pub amount_nanousd: i64,
}

/// An account, by its labels.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct AccountLabels {
    /// `key`, `team` or `policy`.
    pub scope: String,
    /// The window as text, such as `month Europe/Paris` or `none`.
    pub window: String,
    /// The name of the key, team or policy.
    pub name: String,
}
