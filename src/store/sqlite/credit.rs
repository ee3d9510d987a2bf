//! Credit in the database: the grants of each holder, summed one by one.
//!
//! SQLite's own sum fails where it exceeds 64 bits. A grant that would exceed them is not written; one that stands there
//! all the same counts for nothing, and is named. Start reading at [`credits_since`].

use super::unreadable_value;
use crate::domain::budget::{CREDIT, Scope};
use crate::domain::money::NanoUsd;
use crate::domain::register::{CreditBalance, Holder, QuarantinedRow};
use crate::store::column::unreadable;
use rusqlite::{Connection, OptionalExtension, Row, params};

const OF_HOLDER: &str = "SELECT amount_nanousd FROM grants WHERE scope = ?1 AND name = ?2 ORDER BY id";
const SINCE: &str = "SELECT scope, name, amount_nanousd, id FROM grants
    WHERE (scope, name) IN (SELECT scope, name FROM grants WHERE id > ?1) ORDER BY scope, name, id";
const SPENT: &str = "SELECT spent_nanousd, leased_nanousd FROM budgets
    WHERE scope = ?1 AND name = ?2 AND window = ?3 ORDER BY start_ms DESC LIMIT 1";

/// What was granted to one holder.
pub(super) fn granted(connection: &Connection, scope: Scope, name: &str) -> rusqlite::Result<NanoUsd> {
    let mut statement = connection.prepare_cached(OF_HOLDER)?;
    let mut rows = statement.query(params![scope.label(), name])?;
    let mut sum = NanoUsd::ZERO;
    while let Some(row) = rows.next()? {
        sum = sum.checked_add(NanoUsd(row.get(0)?)).unwrap_or(sum);
    }
    Ok(sum)
}

/// What was granted to everybody who got a grant with a number above `version`; rows that count for nothing are added to
/// `quarantined`.
pub(super) fn credits_since(
    connection: &Connection,
    version: i64,
    quarantined: &mut Vec<QuarantinedRow>,
) -> rusqlite::Result<Vec<(Holder, NanoUsd)>> {
    let mut statement = connection.prepare_cached(SINCE)?;
    let mut rows = statement.query([version])?;
    let mut sums = Vec::<(Holder, NanoUsd)>::new();
    while let Some(row) = rows.next()? {
        let why = match holder(row, 0) {
            Ok(holder) => {
                if sums.last().is_none_or(|(last, _)| *last != holder) {
                    sums.push((holder, NanoUsd::ZERO));
                }
                let Some((_, sum)) = sums.last_mut() else { continue };
                match sum.checked_add(NanoUsd(row.get(2)?)) {
                    Some(more) => {
                        *sum = more;
                        continue;
                    }
                    None => "with it, the grants of its holder are more than can be counted".to_owned(),
                }
            }
            Err(error) => error.to_string(),
        };
        quarantined.push(QuarantinedRow { table: "grants", row: row.get::<_, i64>(3)?.to_string(), why });
    }
    Ok(sums)
}

/// The balance of all credit.
pub(super) fn balances(connection: &Connection) -> rusqlite::Result<Vec<CreditBalance>> {
    let transaction = connection.unchecked_transaction()?;
    let mut statement = transaction.prepare_cached(SPENT)?;
    let mut balances = Vec::new();
    for (holder, granted) in credits_since(&transaction, i64::MIN, &mut Vec::new())? {
        let amounts = |row: &Row<'_>| Ok((NanoUsd(row.get(0)?), NanoUsd(row.get(1)?)));
        let found = statement.query_row(params![holder.scope.label(), holder.name, CREDIT], amounts).optional()?;
        let (spent, leased) = found.unwrap_or_default();
        balances.push(CreditBalance { holder, granted, spent, leased });
    }
    Ok(balances)
}

/// The holder in the columns `at` and `at + 1`.
pub(super) fn holder(row: &Row<'_>, at: usize) -> rusqlite::Result<Holder> {
    let label = row.get_ref(at)?.as_str()?;
    let scope = Scope::of_label(label).ok_or_else(|| unreadable_value(unreadable(label)))?;
    Ok(Holder { scope, name: row.get(at + 1)? })
}
