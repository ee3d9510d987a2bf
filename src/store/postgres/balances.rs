//! Changes of what is spent and leased of each window of an account, by all gateways.
//!
//! A charge belongs to the term in which it was leased. If that term has ended, all that was leased in it counts as spent
//! already: the charge takes its cost from there, so that the account's sum stays, and only what is beyond that is added.
//!
//! Start reading at [`charge`], then [`lease`].

use super::credit;
use super::error::PostgresError;
use crate::domain::budget::{Account, CREDIT, Charge, LeaseTerm, WindowSpan, grant};
use crate::domain::money::NanoUsd;
use crate::store::{Lease, LeaseRequest};
use serde::Serialize;
use std::collections::BTreeMap;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

/// Locks the windows that are changed, always in the same order, so that no two gateways wait for each other.
const LOCK: &str = r#"SELECT FROM tierway.budgets AS b
    JOIN (SELECT scope, name, period, min(start_ms) AS start_ms FROM json_to_recordset($1::text::json)
        AS a (scope text, name text, period text, start_ms bigint) GROUP BY scope, name, period) AS a
    ON (b.scope, b.name, b.period) = (a.scope, a.name COLLATE "C", a.period) AND b.start_ms >= a.start_ms
    ORDER BY b.scope, b.name, b.period, b.start_ms FOR UPDATE OF b"#;
const CHARGE: &str = r#"WITH charges AS (SELECT * FROM json_to_recordset($1::text::json) AS c (scope text, name text,
        period text, start_ms bigint, end_ms bigint, term bigint, spent bigint, leased bigint)),
    open AS (UPDATE tierway.leases AS l SET amount_nanousd =
            greatest(least(l.amount_nanousd::numeric - c.leased, 9223372036854775807), -9223372036854775808)::bigint
        FROM charges AS c WHERE (l.replica, l.scope, l.name, l.period, l.start_ms)
            = (c.term, c.scope, c.name COLLATE "C", c.period, c.start_ms)
        RETURNING c.*),
    late AS (SELECT c.*, greatest(least(c.spent, coalesce(u.amount_nanousd, 0)), 0) AS booked FROM charges AS c
        LEFT JOIN tierway.unaccounted AS u ON (u.replica, u.scope, u.name, u.period, u.start_ms)
            = (c.term, c.scope, c.name COLLATE "C", c.period, c.start_ms)
        WHERE NOT EXISTS (SELECT FROM open WHERE (open.term, open.scope, open.name, open.period, open.start_ms)
            = (c.term, c.scope, c.name, c.period, c.start_ms))),
    settled AS (UPDATE tierway.unaccounted AS u SET amount_nanousd = u.amount_nanousd - late.booked FROM late
        WHERE (u.replica, u.scope, u.name, u.period, u.start_ms)
            = (late.term, late.scope, late.name COLLATE "C", late.period, late.start_ms) AND late.booked > 0),
    sums AS (SELECT scope, name, period, start_ms, max(end_ms) AS end_ms, sum(spent) AS spent, sum(leased) AS leased
        FROM (SELECT scope, name, period, start_ms, end_ms, spent, -leased::numeric AS leased FROM open
            UNION ALL SELECT scope, name, period, start_ms, end_ms, spent - booked, 0 FROM late) AS all_of_them
        GROUP BY scope, name, period, start_ms)
    INSERT INTO tierway.budgets AS b SELECT scope, name, period, start_ms, end_ms,
            least(spent, 9223372036854775807)::bigint, greatest(leased, -9223372036854775808)::bigint FROM sums
        ORDER BY scope, name, period, start_ms
    ON CONFLICT (scope, name, period, start_ms) DO UPDATE SET
        spent_nanousd = greatest(least(b.spent_nanousd::numeric + excluded.spent_nanousd, 9223372036854775807),
            -9223372036854775808)::bigint,
        leased_nanousd = greatest(least(b.leased_nanousd::numeric + excluded.leased_nanousd, 9223372036854775807),
            -9223372036854775808)::bigint"#;
const OPEN_WINDOW: &str = "INSERT INTO tierway.budgets SELECT $1, $2, $3, $4, $5, 0, 0 WHERE NOT EXISTS
    (SELECT FROM tierway.budgets WHERE scope = $1 AND name = $2 AND period = $3 AND start_ms >= $4) ON CONFLICT DO NOTHING";
const LATEST_WINDOW: &str = "SELECT start_ms, end_ms, spent_nanousd, leased_nanousd FROM tierway.budgets
    WHERE scope = $1 AND name = $2 AND period = $3 ORDER BY start_ms DESC LIMIT 1 FOR UPDATE";
const LEASE: &str = "WITH leased AS (UPDATE tierway.budgets SET leased_nanousd = leased_nanousd + $5
        WHERE scope = $1 AND name = $2 AND period = $3 AND start_ms = $4)
    INSERT INTO tierway.leases AS l VALUES ($6, $1, $2, $3, $4, $5) ON CONFLICT (replica, scope, name, period, start_ms)
        DO UPDATE SET amount_nanousd = l.amount_nanousd + excluded.amount_nanousd";

/// A window of an account, as the statements take it.
#[derive(Serialize)]
pub(super) struct LockedWindow<'a> {
    scope: &'static str,
    name: &'a str,
    period: &'a str,
    start_ms: i64,
}

impl<'a> LockedWindow<'a> {
    /// The window of `account` that starts at `span`, and all later ones.
    pub(super) fn from(account: &'a Account, span: WindowSpan) -> Self {
        let (scope, start_ms) = (account.scope.label(), span.start_ms);
        Self { scope, name: &account.name, period: &account.window, start_ms }
    }
}

/// What is charged to one window of an account in one term.
#[derive(Serialize)]
struct ChargedWindow<'a> {
    scope: &'static str,
    name: &'a str,
    period: &'a str,
    start_ms: i64,
    end_ms: i64,
    term: i64,
    spent: i64,
    leased: i64,
}

/// Locks `windows` for the transaction.
pub(super) async fn lock(transaction: &Transaction<'_>, windows: &[LockedWindow<'_>]) -> Result<(), PostgresError> {
    if !windows.is_empty() {
        transaction.query_typed(LOCK, &[(&json(windows), Type::TEXT)]).await?;
    }
    Ok(())
}

/// Moves `charges` from leased to spent.
pub(super) async fn charge<'a>(
    transaction: &Transaction<'_>,
    charges: impl Iterator<Item = &'a Charge>,
) -> Result<(), PostgresError> {
    let mut sums = BTreeMap::<(&Account, WindowSpan, LeaseTerm), (i64, i64)>::new();
    for Charge { account, span, spent, leased, term } in charges {
        let (sum_spent, sum_leased) = sums.entry((account, *span, *term)).or_default();
        *sum_spent = sum_spent.saturating_add(spent.0);
        *sum_leased = sum_leased.saturating_add(leased.0);
    }
    if sums.is_empty() {
        return Ok(());
    }
    let row = |((account, span, term), (spent, leased)): (&(&'a Account, WindowSpan, LeaseTerm), &(i64, i64))| {
        ChargedWindow {
            scope: account.scope.label(),
            name: &account.name,
            period: &account.window,
            start_ms: span.start_ms,
            end_ms: span.end_ms,
            term: term.0,
            spent: *spent,
            leased: *leased,
        }
    };
    let rows: Vec<ChargedWindow<'_>> = sums.iter().map(row).collect();
    transaction.execute_typed(CHARGE, &[(&json(&rows), Type::TEXT)]).await?;
    Ok(())
}

/// Leases what `request` asks for, in `term`, as far as it is left.
pub(super) async fn lease(
    transaction: &Transaction<'_>,
    request: &LeaseRequest,
    term: LeaseTerm,
) -> Result<Lease, PostgresError> {
    let LeaseRequest { account, span, limit, need, ahead } = request;
    let (scope, name, period) = (account.scope.label(), &*account.name, &*account.window);
    let of_account = [(&scope as _, Type::TEXT), (&name as _, Type::TEXT), (&period as _, Type::TEXT)];
    let opened = [(&span.start_ms as _, Type::INT8), (&span.end_ms as _, Type::INT8)];
    transaction.execute_typed(OPEN_WINDOW, &[&of_account[..], &opened].concat()).await?;
    // A clock that is set back does not reopen an earlier window.
    let latest = transaction.query_typed_one(LATEST_WINDOW, &of_account).await?;
    let span = WindowSpan { start_ms: latest.try_get(0)?, end_ms: latest.try_get(1)? };
    let taken = latest.try_get::<_, i64>(2)?.saturating_add(latest.try_get(3)?);
    let limit = match period {
        CREDIT => credit::granted(transaction, account.scope, name).await?,
        _ => *limit,
    };
    let amount = grant(limit, NanoUsd(taken), *need, *ahead);
    let leased = [(&span.start_ms as _, Type::INT8), (&amount.0 as _, Type::INT8), (&term.0 as _, Type::INT8)];
    transaction.execute_typed(LEASE, &[&of_account[..], &leased].concat()).await?;
    Ok(Lease { span, amount, taken: NanoUsd(taken.saturating_add(amount.0)), term })
}

/// `rows` as a parameter.
pub(super) fn json<T: Serialize + ?Sized>(rows: &T) -> String {
    serde_json::to_string(rows).expect("strings and integers are JSON")
}
