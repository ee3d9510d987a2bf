//! Reads what budgets have spent from the database.
//!
//! Scopes and windows stay text, as stored: a report must not fail on an account that a later version created.

use rusqlite::{Connection, Row};

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
    /// Leased by the process that writes the database and neither spent nor returned, in billionths of a US dollar.
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

/// Every window of every account.
pub(super) fn balances(connection: &Connection) -> rusqlite::Result<Vec<BudgetBalance>> {
    let all = "SELECT scope, window, name, start_ms, end_ms, spent_nanousd, leased_nanousd FROM budgets
        ORDER BY scope, window, name, start_ms";
    let mut statement = connection.prepare(all)?;
    let rows = statement.query_map([], |row| {
        Ok(BudgetBalance {
            account: account(row)?,
            start_ms: row.get(3)?,
            end_ms: row.get(4)?,
            spent_nanousd: row.get(5)?,
            leased_nanousd: row.get(6)?,
        })
    })?;
    rows.collect()
}

/// Every lease that was left open, in the order in which they were found.
pub(super) fn unaccounted(connection: &Connection) -> rusqlite::Result<Vec<UnaccountedLease>> {
    let all = "SELECT scope, window, name, start_ms, amount_nanousd, booked_unix_ms FROM unaccounted
        ORDER BY booked_unix_ms, scope, window, name";
    let mut statement = connection.prepare(all)?;
    let rows = statement.query_map([], |row| {
        Ok(UnaccountedLease {
            account: account(row)?,
            start_ms: row.get(3)?,
            amount_nanousd: row.get(4)?,
            booked_unix_ms: row.get(5)?,
        })
    })?;
    rows.collect()
}

fn account(row: &Row<'_>) -> rusqlite::Result<AccountLabels> {
    Ok(AccountLabels { scope: row.get(0)?, window: row.get(1)?, name: row.get(2)? })
}
