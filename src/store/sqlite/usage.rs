//! Queries over the ledger: sums by dimensions, and lists of receipts.
//!
//! SQLite groups while it reads, so a million rows are never in memory. Values are bound and never part of the SQL
//! text. Sums are computed in two halves, so that no receipt, however large, can overflow them.
//!
//! Start reading in [`UsageQuery::run`].

use super::receipt_row::{self, id_at};
use crate::domain::id::RequestId;
use crate::domain::receipt::Receipt;
use crate::domain::report::{Condition, Dimension, ReceiptsQuery, UsageQuery, UsageSum};
use crate::store::receipt_row::CLOCKS_DIFFER_MS;
use crate::store::reports::sort_sums;
use rusqlite::types::ToSql;
use rusqlite::{Connection, Row};

impl Dimension {
    fn expression(self) -> &'static str {
        match self {
            Self::Price => "price_version",
            Self::Day => "strftime('%Y-%m-%d', received_unix_ms / 1000, 'unixepoch')",
            column => column.name(),
        }
    }
}

/// The columns summed in halves, in the order in which [`UsageQuery::sum`] reads them.
const SUMMED: [&str; 5] = ["input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "cost_nanousd"];
/// The number of bits of the lower half.
const HALF: u32 = 31;

impl UsageQuery {
    /// At most `most` sums; if there are more, which ones is not specified.
    pub(super) fn run(&self, connection: &Connection, most: usize) -> rusqlite::Result<Vec<UsageSum>> {
        let (conditions, values) = conditions(self.since_unix_ms, self.until_unix_ms, &self.only);
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
        let mut sums = sums.take(most).collect::<rusqlite::Result<Vec<_>>>()?;
        sort_sums(self, &mut sums);
        Ok(sums)
    }

    fn sum(&self, row: &Row<'_>) -> rusqlite::Result<UsageSum> {
        let after = self.by.len();
        let by = (0..after).map(|at| row.get(at)).collect::<rusqlite::Result<_>>()?;
        let count =
            |at: usize| row.get::<_, Option<i64>>(after + at).map(|count| count.unwrap_or(0).max(0).unsigned_abs());
        let whole = |nth: usize| -> rusqlite::Result<i128> {
            let half = |at: usize| row.get::<_, Option<i64>>(after + 4 + 2 * nth + at).map(|half| half.unwrap_or(0));
            Ok((i128::from(half(0)?) << HALF) + i128::from(half(1)?))
        };
        let tokens = |nth: usize| whole(nth).map(|sum| sum.max(0).unsigned_abs());
        Ok(UsageSum {
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

impl ReceiptsQuery {
    pub(super) fn run(&self, connection: &Connection) -> rusqlite::Result<Vec<Receipt>> {
        let mut receipts = Vec::new();
        if self.most > 0 {
            self.each(connection, |receipt| {
                // Others are listed all the same; asked for by its id, it is an error.
                receipts.extend(receipt);
                receipts.len() < self.most
            })?;
        }
        Ok(receipts)
    }

    /// Gives each receipt to `take`, the newest first, `None` for one that cannot be read, until that returns `false`.
    pub(super) fn each(
        &self,
        connection: &Connection,
        mut take: impl FnMut(Option<Receipt>) -> bool,
    ) -> rusqlite::Result<()> {
        let (mut conditions, mut values) = conditions(self.since_unix_ms, self.until_unix_ms, &self.only);
        if let Some(after) = self.after {
            values.push(Box::new(after.0.to_be_bytes()));
            conditions.push_str(&format!(" AND id < ?{}", values.len()));
        }
        let sql = format!("SELECT * FROM receipts WHERE {conditions} ORDER BY id DESC");
        let values: Vec<&dyn ToSql> = values.iter().map(|value| &**value).collect();
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query(&*values)?;
        while let Some(row) = rows.next()? {
            let receipt = match receipt_row::read(row) {
                Ok(receipt) => Some(receipt),
                Err(error) if error.sqlite_error_code().is_none() => {
                    let id = row.get("id").map(|id| RequestId(u128::from_be_bytes(id))).ok();
                    tracing::error!(id = id.map(tracing::field::display), %error, "a receipt cannot be read and is not listed");
                    None
                }
                Err(error) => return Err(error),
            };
            if !take(receipt) {
                break;
            }
        }
        Ok(())
    }
}

/// The `WHERE` clause, and the values to bind.
fn conditions(since: Option<i64>, until: Option<i64>, only: &[Condition]) -> (String, Vec<Box<dyn ToSql>>) {
    let mut texts = vec!["TRUE".to_owned()];
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    let mut add = |text: &str, value: Box<dyn ToSql>| {
        values.push(value);
        texts.push(format!("{text} ?{}", values.len()));
    };
    // The id is indexed and finds candidate rows; the time decides.
    if let Some(since) = since {
        add("id >=", Box::new(id_at(since.saturating_sub(CLOCKS_DIFFER_MS))));
        add("received_unix_ms >=", Box::new(since));
    }
    if let Some(until) = until {
        add("id <", Box::new(id_at(until.saturating_add(CLOCKS_DIFFER_MS))));
        add("received_unix_ms <", Box::new(until));
    }
    for condition in only {
        add(&format!("{} IS", condition.dimension.expression()), Box::new(condition.value.clone()));
    }
    (texts.join(" AND "), values)
}
