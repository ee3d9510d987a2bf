//! Reads what budgets have spent from the database.
//!
//! Scopes and windows stay text, as stored: a report must not fail on an account that a later version created.

use crate::store::reports::{AccountLabels, BudgetBalance, UnaccountedLease};
use rusqlite::{Connection, Row};

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
