//! Questions about receipts, and their sums: what an operator may ask of a ledger.
//!
//! Values only: the store answers them, and the admin API and the command line show the answers. Sums are wide
//! enough for any ledger, and money in them is exact.
//!
//! Start reading at [`UsageQuery`].

use crate::domain::id::RequestId;

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
    /// The maximum number of receipts.
    pub most: usize,
}

/// A property of receipts that they can be summed or selected by.
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

    /// The dimension of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dimension| dimension.name() == name)
    }
}

/// Selects the receipts whose `dimension` is `value`; `None` selects those that have none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// The property compared.
    pub dimension: Dimension,
    /// The value it must have.
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

/// The sum of some receipts.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct UsageSum {
    /// The value of each dimension asked for.
    pub by: Vec<Option<String>>,
    /// Number of receipts.
    pub requests: u64,
    /// Those that failed or broke.
    pub failed: u64,
    /// Those whose tokens are known.
    pub metered: u64,
    /// Those of them whose tokens the gateway counted itself, because the provider did not report them.
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
