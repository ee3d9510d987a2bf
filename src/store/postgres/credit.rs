//! Credit in the database: the sum of the grants of each holder.
//!
//! A grant that would exceed 64 bits is not written; one that stands there all the same counts for nothing, and is named.
//! Start reading at [`credits_since`].

use super::error::PostgresError;
use crate::domain::budget::{CREDIT, Scope};
use crate::domain::money::NanoUsd;
use crate::domain::register::{CreditBalance, Holder, QuarantinedRow};
use crate::store::column::{UnreadableValue, unreadable};
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

/// The sum where it fits in 64 bits, as it does unless somebody wrote to the table.
const SUM: &str = "SELECT CASE WHEN abs(coalesce(sum(amount_nanousd), 0)) <= 9223372036854775807
    THEN coalesce(sum(amount_nanousd), 0)::bigint END FROM tierway.grants WHERE scope = $1 AND name = $2";
const OF_HOLDER: &str = "SELECT amount_nanousd FROM tierway.grants WHERE scope = $1 AND name = $2 ORDER BY id";
const SINCE: &str = "SELECT scope, name, amount_nanousd, id FROM tierway.grants
    WHERE (scope, name) IN (SELECT scope, name FROM tierway.grants WHERE id > $1) ORDER BY scope, name, id";
const SPENT: &str = "SELECT DISTINCT ON (scope, name) scope, name, spent_nanousd, leased_nanousd FROM tierway.budgets
    WHERE period = $1 ORDER BY scope, name, start_ms DESC";

/// What was granted to one holder.
pub(super) async fn granted(client: &impl GenericClient, scope: Scope, name: &str) -> Result<NanoUsd, PostgresError> {
    let holder = [(&scope.label() as _, Type::TEXT), (&name as _, Type::TEXT)];
    if let Some(sum) = client.query_typed_one(SUM, &holder).await?.try_get(0)? {
        return Ok(NanoUsd(sum));
    }
    let mut sum = NanoUsd::ZERO;
    for row in client.query_typed(OF_HOLDER, &holder).await? {
        sum = sum.checked_add(NanoUsd(row.try_get(0)?)).unwrap_or(sum);
    }
    Ok(sum)
}

/// What was granted to everybody who got a grant with a number above `version`; rows that count for nothing are added to
/// `quarantined`.
pub(super) async fn credits_since(
    client: &impl GenericClient,
    version: i64,
    quarantined: &mut Vec<QuarantinedRow>,
) -> Result<Vec<(Holder, NanoUsd)>, PostgresError> {
    let mut sums = Vec::<(Holder, NanoUsd)>::new();
    for row in client.query_typed(SINCE, &[(&version, Type::INT8)]).await? {
        let why = match holder(&row, 0)? {
            Ok(holder) => {
                if sums.last().is_none_or(|(last, _)| *last != holder) {
                    sums.push((holder, NanoUsd::ZERO));
                }
                let Some((_, sum)) = sums.last_mut() else { continue };
                match sum.checked_add(NanoUsd(row.try_get(2)?)) {
                    Some(more) => {
                        *sum = more;
                        continue;
                    }
                    None => "with it, the grants of its holder are more than can be counted".to_owned(),
                }
            }
            Err(error) => error.to_string(),
        };
        quarantined.push(QuarantinedRow { table: "grants", row: row.try_get::<_, i64>(3)?.to_string(), why });
    }
    Ok(sums)
}

/// The balance of all credit.
pub(super) async fn balances(client: &impl GenericClient) -> Result<Vec<CreditBalance>, PostgresError> {
    let mut spent = std::collections::HashMap::new();
    for row in client.query_typed(SPENT, &[(&CREDIT, Type::TEXT)]).await? {
        if let Ok(holder) = holder(&row, 0)? {
            spent.insert(holder, (NanoUsd(row.try_get(2)?), NanoUsd(row.try_get(3)?)));
        }
    }
    let granted = credits_since(client, i64::MIN, &mut Vec::new()).await?;
    let balance = |(holder, granted): (Holder, NanoUsd)| {
        let (spent, leased) = spent.get(&holder).copied().unwrap_or_default();
        CreditBalance { holder, granted, spent, leased }
    };
    Ok(granted.into_iter().map(balance).collect())
}

/// The holder in the columns `at` and `at + 1`, if its scope is known.
pub(super) fn holder(row: &Row, at: usize) -> Result<Result<Holder, UnreadableValue>, PostgresError> {
    let (label, name) = (row.try_get::<_, &str>(at)?, row.try_get::<_, &str>(at + 1)?);
    let scope = Scope::of_label(label).ok_or_else(|| unreadable(label));
    Ok(scope.map(|scope| Holder { scope, name: name.into() }))
}
