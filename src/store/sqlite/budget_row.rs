//! Changes of the rows of the `budgets` table: what is spent and leased of each window of an account.
//!
//! Nothing is decided here: how much is leased or charged is an argument. Start reading at [`charge`].

use crate::domain::budget::{Account, Charge, WindowSpan};
use crate::domain::money::NanoUsd;
use rusqlite::{Transaction, params};

/// The sum of two integers, the nearest that 64 bits hold: SQLite would make it a number with a fraction.
macro_rules! saturating_sum {
    ($a:literal, $b:literal) => {
        concat!(
            "CASE WHEN ",
            $b,
            " > 0 AND ",
            $a,
            " > 9223372036854775807 - ",
            $b,
            " THEN 9223372036854775807 ",
            "WHEN ",
            $b,
            " < 0 AND ",
            $a,
            " < -9223372036854775807 - 1 - ",
            $b,
            " THEN -9223372036854775807 - 1 ",
            "ELSE ",
            $a,
            " + ",
            $b,
            " END"
        )
    };
}

const ADD_TO_WINDOW: &str = concat!(
    "INSERT INTO budgets VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET spent_nanousd = ",
    saturating_sum!("spent_nanousd", "?6"),
    ", leased_nanousd = ",
    saturating_sum!("leased_nanousd", "?7")
);

/// Counts everything leased as spent.
pub(super) const SPEND_OPEN_LEASES: &str = concat!(
    "UPDATE budgets SET spent_nanousd = ",
    saturating_sum!("spent_nanousd", "max(leased_nanousd, 0)"),
    ", leased_nanousd = 0 WHERE leased_nanousd <> 0"
);

/// Moves `charges` from leased to spent.
pub(super) fn charge(transaction: &Transaction<'_>, charges: &[Charge]) -> rusqlite::Result<()> {
    charges.iter().try_for_each(|charge| {
        add(transaction, &charge.account, charge.span, charge.spent, NanoUsd(charge.leased.0.saturating_neg()))
    })
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
