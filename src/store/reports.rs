//! Queries over the ledger and their results.
//!
//! The request path only writes the ledger; reports read it, for the admin API and the command line. A report must
//! never delay a request, and never load the whole ledger into memory.
//!
//! Start reading in [`Reports`].

use super::{BackendUnavailable, StoreFuture};
use crate::domain::id::RequestId;
use crate::domain::receipt::Receipt;

/// A ledger that can be read while it is written.
pub trait Reports: Send + Sync {
    /// The receipts of `query`, summed by its dimensions, at most `most` sums: highest cost first, or in order of
    /// days if that is the first dimension.
    fn usage(&self, query: UsageQuery, most: usize) -> StoreFuture<'static, Result<Vec<UsageSum>, BackendUnavailable>>;

    /// The receipts of `query`, newest first.
    fn receipts(&self, query: ReceiptsQuery) -> StoreFuture<'static, Result<Vec<Receipt>, BackendUnavailable>>;

    /// The receipt of request `id`.
    fn receipt(&self, id: RequestId) -> StoreFuture<'static, Result<Option<Receipt>, BackendUnavailable>>;
}

/// Selects receipts to list, newest first.
#[derive(Clone, Default, Debug)]
pub struct ReceiptsQuery {
    /// Received at this time or later, in Unix milliseconds.
    pub since_unix_ms: Option<i64>,
    /// Received before this time, in Unix milliseconds.
    pub until_unix_ms: Option<i64>,
    /// Conditions that must all hold.
    pub only: Vec<Condition>,
    /// Only receipts after this one in the list, for paging.
    pub after: Option<RequestId>,
    /// The maximum number of receipts.
    pub most: usize,
}

/// A property by which receipts can be grouped and filtered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dimension {
    /// The key's name.
    Key,
    /// The key's team.
    Team,
    /// The key's policy.
    Policy,
    /// The model that served it.
    Model,
    /// The deployment that served it.
    Deployment,
    /// The tier it was reached through.
    Tier,
    /// The deployment's region.
    Region,
    /// The version name of the price it was charged at.
    Price,
    /// The day it was received, in UTC.
    Day,
    /// The reason it ended with.
    Reason,
}

impl Dimension {
    /// Every dimension.
    pub const ALL: [Self; 10] = [
        Self::Key,
        Self::Team,
        Self::Policy,
        Self::Model,
        Self::Deployment,
        Self::Tier,
        Self::Region,
        Self::Price,
        Self::Day,
        Self::Reason,
    ];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Team => "team",
            Self::Policy => "policy",
            Self::Model => "model",
            Self::Deployment => "deployment",
            Self::Tier => "tier",
            Self::Region => "region",
            Self::Price => "price",
            Self::Day => "day",
            Self::Reason => "reason",
        }
    }

    /// The dimension with this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dimension| dimension.name() == name)
    }
}

/// Selects receipts whose `dimension` is `value`; `None`: without a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// The property to compare.
    pub dimension: Dimension,
    /// The value it must have.
    pub value: Option<String>,
}

/// Selects receipts to sum, and by what to group them.
#[derive(Clone, Default, Debug)]
pub struct UsageQuery {
    /// One sum for each combination of values. Empty: one sum over all receipts, if there are any.
    pub by: Vec<Dimension>,
    /// Received at this time or later, in Unix milliseconds.
    pub since_unix_ms: Option<i64>,
    /// Received before this time, in Unix milliseconds.
    pub until_unix_ms: Option<i64>,
    /// Conditions that must all hold.
    pub only: Vec<Condition>,
}

/// The totals of a group of receipts.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct UsageSum {
    /// The value of each requested dimension.
    pub by: Vec<Option<String>>,
    /// The number of receipts.
    pub requests: u64,
    /// How many of them failed or broke.
    pub failed: u64,
    /// How many have known tokens.
    pub metered: u64,
    /// How many of those have tokens estimated by the gateway.
    pub estimated: u64,
    /// Input tokens, the cached ones included.
    pub input: u128,
    /// Cached input tokens.
    pub cached_input: u128,
    /// Output tokens, reasoning included.
    pub output: u128,
    /// Tokens spent on reasoning.
    pub reasoning: u128,
    /// Cost in billionths of a US dollar.
    pub cost_nanousd: i128,
}

impl UsageSum {
    /// Adds the totals of `other`; `by` is unchanged.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.metered += other.metered;
        self.estimated += other.estimated;
        self.input += other.input;
        self.cached_input += other.cached_input;
        self.output += other.output;
        self.reasoning += other.reasoning;
        self.cost_nanousd += other.cost_nanousd;
    }
}
