//! Sums over the ledger, by whatever was asked for.
//!
//! SQLite groups while it reads, so a million rows never stand in memory. Values are bound, never
//! written into the query; sums are taken in halves, so that one absurd receipt cannot overflow them.
//!
//! Start reading in [`UsageQuery`].

use super::line::{CLOCKS_DIFFER_MS, id_at};
use rusqlite::types::ToSql;
use rusqlite::{Connection, Row};

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

    fn expression(self) -> &'static str {
        match self {
            Self::Price => "price_version",
            Self::Day => "strftime('%Y-%m-%d', received_unix_ms / 1000, 'unixepoch')",
            column => column.name(),
        }
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
pub struct Sum {
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

impl Sum {
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

/// The columns summed in halves, in the order of [`UsageQuery::sum`].
const SUMMED: [&str; 5] = ["input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "cost_nanousd"];
/// The lower half of a column has this many bits.
const HALF: u32 = 31;

impl UsageQuery {
    pub(super) fn ask(&self, connection: &Connection) -> rusqlite::Result<Vec<Sum>> {
        let (conditions, values) = self.conditions();
        let by: Vec<_> = self.by.iter().map(|dimension| dimension.expression()).collect();
        let halves = SUMMED.map(|column| format!("SUM({column} >> {HALF}), SUM({column} & {})", (1_i64 << HALF) - 1));
        let mut columns: Vec<&str> = by.clone();
        columns.extend(["COUNT(*)", "SUM(outcome IN ('failed', 'broken'))", "COUNT(input_tokens)"]);
        columns.push("SUM(estimated AND input_tokens IS NOT NULL)");
        columns.extend(halves.iter().map(String::as_str));
        let mut sql = format!("SELECT {} FROM receipts WHERE {conditions}", columns.join(", "));
        if by.is_empty() {
            sql.push_str(" HAVING COUNT(*) > 0");
        } else {
            let numbers = (1..=by.len()).map(|number| number.to_string()).collect::<Vec<_>>().join(", ");
            sql.push_str(&format!(" GROUP BY {numbers}"));
        }
        let mut statement = connection.prepare(&sql)?;
        let values: Vec<&dyn ToSql> = values.iter().map(|value| &**value).collect();
        let sums = statement.query_map(&*values, |row| self.sum(row))?;
        let mut sums = sums.collect::<rusqlite::Result<Vec<_>>>()?;
        // Days are read in their order; everything else by what it cost.
        let day = |sum: &Sum| (self.by.first() == Some(&Dimension::Day)).then(|| sum.by[0].clone());
        sums.sort_by(|a, b| (day(a), b.cost_nanousd, &a.by).cmp(&(day(b), a.cost_nanousd, &b.by)));
        Ok(sums)
    }

    /// What `WHERE` says, and the values it is given.
    fn conditions(&self) -> (String, Vec<Box<dyn ToSql>>) {
        let mut texts = vec!["TRUE".to_owned()];
        let mut values: Vec<Box<dyn ToSql>> = Vec::new();
        let mut add = |text: &str, value: Box<dyn ToSql>| {
            values.push(value);
            texts.push(format!("{text} ?{}", values.len()));
        };
        // The id is what finds the rows, the time what decides.
        if let Some(since) = self.since_unix_ms {
            add("id >=", Box::new(id_at(since.saturating_sub(CLOCKS_DIFFER_MS))));
            add("received_unix_ms >=", Box::new(since));
        }
        if let Some(until) = self.until_unix_ms {
            add("id <", Box::new(id_at(until.saturating_add(CLOCKS_DIFFER_MS))));
            add("received_unix_ms <", Box::new(until));
        }
        for condition in &self.only {
            add(&format!("{} IS", condition.dimension.expression()), Box::new(condition.value.clone()));
        }
        (texts.join(" AND "), values)
    }

    fn sum(&self, row: &Row<'_>) -> rusqlite::Result<Sum> {
        let after = self.by.len();
        let by = (0..after).map(|at| row.get(at)).collect::<rusqlite::Result<_>>()?;
        let count =
            |at: usize| row.get::<_, Option<i64>>(after + at).map(|count| count.unwrap_or(0).max(0).unsigned_abs());
        let whole = |nth: usize| -> rusqlite::Result<i128> {
            let half = |at: usize| row.get::<_, Option<i64>>(after + 4 + 2 * nth + at).map(|half| half.unwrap_or(0));
            Ok((i128::from(half(0)?) << HALF) + i128::from(half(1)?))
        };
        let tokens = |nth: usize| whole(nth).map(|sum| sum.max(0).unsigned_abs());
        Ok(Sum {
            by,
            requests: count(0)?,
            failed: count(1)?,
            metered: count(2)?,
            estimated: count(3)?,
            input: tokens(0)?,
            cached_input: tokens(1)?,
            output: tokens(2)?,
            reasoning: tokens(3)?,
            cost_nanousd: whole(4)?,
        })
    }
}
