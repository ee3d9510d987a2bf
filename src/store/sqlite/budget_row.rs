//! Changes of the rows of the `budgets` table: what is spent and leased of each window of an account.
//!
//! Nothing is decided here: how much is leased or charged is an argument. Start reading at [`charge`].

use crate::domain::budget::{Account, Charge, WindowSpan};
use crate::domain::money::NanoUsd;
use rusqlite::{Transaction, params};

const ADD_TO_WINDOW: &str = "INSERT INTO budgets VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT DO UPDATE SET spent_nanousd = spent_nanousd
        + min(?6, 9223372036854775807 - spent_nanousd), leased_nanousd = leased_nanousd + ?7";

/// Moves `charges` from leased to spent.
pub(super) fn charge(transaction: &Transaction<'_>, charges: &[Charge]) -> rusqlite::Result<()> {
    charges
        .iter()
        .try_for_each(|charge| add(transaction, &charge.account, charge.span, charge.spent, NanoUsd(-charge.leased.0)))
}

/// Adds `spent` and `leased`, which may be negative, to the window `span` of `account`.
pub(super) fn add(
    transaction: &Transaction<'_>,
    account: &Account,
    span: WindowSpan,
    spent: NanoUsd,
    leased: NanoUsd,
) -> rusqlite::Result<()> {
    let Account { scope, name, window } = account;
    let row = params![scope.label(), &**name, &**window, span.start_ms, span.end_ms, spent.0, leased.0];
    transaction.prepare_cached(ADD_TO_WINDOW)?.execute(row).map(drop)
}
