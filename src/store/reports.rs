//! Looking at the ledger: what may be asked of it, and what it answers.
//!
//! Whoever serves requests only ever writes the ledger; reading is for people, and happens beside it. A
//! report never keeps a request waiting, and never stands in memory as long as the ledger is.
//!
//! Start reading in [`Reports`].

use super::{BackendUnavailable, StoreFuture};
use crate::domain::id::RequestId;
use crate::domain::receipt::Receipt;

/// A ledger that can be read while it is written.
pub trait Reports: Send + Sync {
    /// The receipts of `query`, summed by its dimensions, `most` sums at most: the dearest first, or day by day
    /// where days come first.
    fn usage(&self, query: UsageQuery, most: usize) -> StoreFuture<'static, Result<Vec<UsageSum>, BackendUnavailable>>;

    /// The receipts of `query`, the newest first.
    fn receipts(&self, query: ReceiptsQuery) -> StoreFuture<'static, Result<Vec<Receipt>, BackendUnavailable>>;

    /// The receipt of request `id`.
    fn receipt(&self, id: RequestId) -> StoreFuture<'static, Result<Option<Receipt>, BackendUnavailable>>;
}

/// Which receipts to list, the newest first.
#[derive(Clone, Default, Debug)]
pub struct ReceiptsQuery {
    /// Received at this time or later, in Unix milliseconds.
    pub since_unix_ms: Option<i64>,
    /// Received before this time, in Unix milliseconds.
    pub until_unix_ms: Option<i64>,
    /// All of these hold.
    pub only: Vec<Condition>,
    /// Only those that come after this one in the list.
    pub after: Option<RequestId>,
    /// No more than these.
    pub most: usize,
}

/// By what receipts can be told apart.
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
    /// The name of the price it was charged at.
    Price,
    /// The day it was received, in UTC.
    Day,
    /// Why it ended as it did.
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

    /// What has this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dimension| dimension.name() == name)
    }
}

/// Only receipts of which `dimension` is `value`; `None`: has none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// What is looked at.
    pub dimension: Dimension,
    /// What it must be.
    pub value: Option<String>,
}

/// Which receipts to sum, and by what.
#[derive(Clone, Default, Debug)]
pub struct UsageQuery {
    /// One sum for each combination; of none there is one sum, if there are receipts.
    pub by: Vec<Dimension>,
    /// Received at this time or later, in Unix milliseconds.
    pub since_unix_ms: Option<i64>,
    /// Received before this time, in Unix milliseconds.
    pub until_unix_ms: Option<i64>,
    /// All of these hold.
    pub only: Vec<Condition>,
}

/// What some receipts come to.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct UsageSum {
    /// The value of each dimension asked for.
    pub by: Vec<Option<String>>,
    /// How many there are.
    pub requests: u64,
    /// Those that failed or broke.
    pub failed: u64,
    /// Those whose tokens are known.
    pub metered: u64,
    /// Those of them whose tokens were counted by us.
    pub estimated: u64,
    /// Input tokens, the cached ones included.
    pub input: u128,
    /// Cached input tokens.
    pub cached_input: u128,
    /// Output tokens, reasoning included.
    pub output: u128,
    /// Tokens spent on reasoning.
    pub reasoning: u128,
    /// Billionths of a US dollar.
    pub cost_nanousd: i128,
}

impl UsageSum {
    /// Adds `other`; `by` stays.
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
