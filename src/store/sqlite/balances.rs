//! What budgets have spent, as the file says it: reading only.
//!
//! Scopes and windows are text here, as they are in the file: a report must not fail on an account that a
//! later version made.

use rusqlite::{Connection, Row};

/// One window of an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BudgetBalance {
    /// Whose it is.
    pub account: AccountLabels,
    /// Its first millisecond, in Unix time.
    pub start_ms: i64,
    /// The first millisecond after it.
    pub end_ms: i64,
    /// Billionths of a US dollar that are gone.
    pub spent_nanousd: i64,
    /// Those that the process which writes the file has leased and neither spent nor given back.
    pub leased_nanousd: i64,
}

/// A lease that a process left open when it ended: nobody knows what was spent of it, so all of it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnaccountedLease {
    /// When that was found, in Unix milliseconds.
    pub booked_unix_ms: i64,
    /// Whose money it was.
    pub account: AccountLabels,
    /// The window it was leased of, by its first millisecond.
    pub start_ms: i64,
    /// Billionths of a US dollar.
    pub amount_nanousd: i64,
}

/// Whom money is counted for, by its labels.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct AccountLabels {
    /// `key`, `team`, `policy`.
    pub scope: String,
    /// `month Europe/Paris`, `none`.
    pub window: String,
    /// As configured.
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

/// Every lease that was left open, in the order in which it was found.
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
