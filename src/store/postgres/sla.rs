//! SLAs in the database: receipts counted as they are read, statements about months, and when a gateway was alive.
//!
//! Start reading at [`tally`], then [`insert_closing`].

use super::balances::json;
use super::credit::holder;
use super::error::PostgresError;
use super::receipts;
use crate::domain::money::NanoUsd;
use crate::domain::receipt::Outcome;
use crate::domain::sla::closing::{SlaClosing, SlaCredit};
use crate::domain::sla::month::SlaMonth;
use crate::domain::sla::probe::PROBE_KEY;
use crate::domain::sla::tally::{AliveIntervals, SlaMonthTally, SlaQuery};
use crate::domain::sla::{SlaCreditStep, SlaReceipt};
use crate::store::column::{duration, from_label, reason, unknown, unreadable};
use crate::store::receipt_row::{CLOCKS_DIFFER_MS, lowest_id_at};
use crate::store::{PromisedMonth, SlaPresence};
use futures_util::TryStreamExt;
use std::pin::pin;
use std::sync::Arc;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, GenericClient, IsolationLevel, Row, Transaction};

/// The ids find candidate rows; the time decides.
const OF_MONTH: &str = "FROM tierway.receipts WHERE id >= $1::text::uuid AND id < $2::text::uuid
    AND received_unix_ms >= $3 AND received_unix_ms < $4 AND policy = $5 AND key IS NOT NULL";
const RECEIPTS: &str =
    "SELECT replace(id::text, '-', ''), received_unix_ms, key, team, outcome, reason, status, stream,
    first_token_us, duration_us, cost_nanousd, injected IS NOT NULL";
const ALIVE: &str = "SELECT number FROM tierway.alive_intervals WHERE number >= $1 AND number <= $2";
const CLOSINGS: &str =
    "SELECT statement, closed_unix_ms, requests, eligible, failed, uptime_millionths, below_bp, credit_bp
    FROM tierway.sla_closings WHERE policy = $1 AND month = $2 ORDER BY statement";
const CREDITS: &str =
    "SELECT scope, name, spend_nanousd, due_nanousd, granted_nanousd, statement FROM tierway.sla_credits
    WHERE policy = $1 AND month = $2 ORDER BY scope, name";
const PROMISED: &str = "SELECT policy, month, (SELECT requests FROM tierway.sla_closings AS c
        WHERE c.policy = p.policy AND c.month = p.month ORDER BY statement DESC LIMIT 1)
    FROM tierway.sla_promised AS p ORDER BY month, policy";
/// Intervals that lie further back are deleted: more than a year of five minutes.
const INTERVALS_KEPT: i64 = 400 * 288;

/// What finds the receipts of a month.
struct MonthParameters {
    ids: [String; 2],
    since: i64,
    until: i64,
    policy: Arc<str>,
}

impl MonthParameters {
    fn of(query: &SlaQuery, since: i64) -> Self {
        let until = query.until_unix_ms;
        let first = lowest_id_at(since.saturating_sub(CLOCKS_DIFFER_MS));
        let last = lowest_id_at(until.saturating_add(CLOCKS_DIFFER_MS));
        Self { ids: [first, last].map(receipts::uuid), since, until, policy: query.policy.clone() }
    }

    fn bound<'a>(&'a self, policy: &'a &'a str) -> [(&'a (dyn ToSql + Sync), Type); 5] {
        [
            (&self.ids[0], Type::TEXT),
            (&self.ids[1], Type::TEXT),
            (&self.since, Type::INT8),
            (&self.until, Type::INT8),
            (policy, Type::TEXT),
        ]
    }
}

/// Counts the receipts of `query`, as one moment saw them.
pub(super) async fn tally(client: &mut Client, query: SlaQuery) -> Result<SlaMonthTally, PostgresError> {
    let snapshot = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let transaction = snapshot.start().await?;
    let month = MonthParameters::of(&query, query.since_unix_ms());
    let alive = alive(&transaction, month.since, month.until).await?;
    let mut tally = SlaMonthTally::new(query);
    let policy = &*month.policy;
    let parameters = month.bound(&policy).map(|(value, kind)| (value, kind));
    let mut rows = pin!(transaction.query_typed_raw(&format!("{RECEIPTS} {OF_MONTH}"), parameters).await?);
    while let Some(row) = rows.try_next().await? {
        match receipt(&row) {
            Ok(receipt) => tally.add(&receipt),
            Err(PostgresError::Unreadable(error)) => {
                tracing::error!(%error, "a receipt cannot be read, and does not count for the SLA");
                tally.unreadable += 1;
            }
            Err(error) => return Err(error),
        }
    }
    tally.count_dead(&alive);
    Ok(tally)
}

/// The number of receipts of the policy in the month of `query`, without those of probes.
pub(super) async fn requests(client: &impl GenericClient, query: &SlaQuery) -> Result<u64, PostgresError> {
    let month = MonthParameters::of(query, query.span.start_ms);
    let policy = &*month.policy;
    let [first, last, since, until, policy] = month.bound(&policy);
    let parameters: [(&(dyn ToSql + Sync), Type); 6] = [first, last, since, until, policy, (&PROBE_KEY, Type::TEXT)];
    let row = client.query_typed_one(&format!("SELECT count(*) {OF_MONTH} AND key <> $6"), &parameters).await?;
    Ok(row.try_get::<_, i64>(0)?.unsigned_abs())
}

fn receipt(row: &Row) -> Result<SlaReceipt, PostgresError> {
    let outcome = from_label(row.try_get(4)?, Outcome::ALL, Outcome::label)?;
    Ok(SlaReceipt {
        id: receipts::id(row, 0)?,
        received_unix_ms: row.try_get(1)?,
        key: row.try_get::<_, &str>(2)?.into(),
        team: row.try_get::<_, Option<&str>>(3)?.map(Arc::from),
        outcome: outcome.ok_or_else(|| unknown("no outcome"))?,
        reason: reason(row.try_get(5)?)?,
        status: u16::try_from(row.try_get::<_, i32>(6)?).map_err(|_| unknown("status"))?,
        stream: row.try_get(7)?,
        first_token: row.try_get::<_, Option<i64>>(8)?.map(duration),
        duration: duration(row.try_get(9)?),
        cost: NanoUsd(row.try_get(10)?),
        injected: row.try_get(11)?,
    })
}

async fn alive(client: &impl GenericClient, since: i64, until: i64) -> Result<AliveIntervals, PostgresError> {
    let first = client.query_typed_one("SELECT min(number) FROM tierway.alive_intervals", &[]).await?.try_get(0)?;
    let [from, to] = [since, until].map(SlaPresence::interval_at);
    let rows = client.query_typed(ALIVE, &[(&from, Type::INT8), (&to, Type::INT8)]).await?;
    let alive = rows.iter().map(|row| row.try_get::<_, i64>(0)).collect::<Result<_, _>>()?;
    Ok(AliveIntervals { first, alive })
}

/// The statements about `month` of `policy`, in their order.
pub(super) async fn closings(
    client: &impl GenericClient,
    policy: &str,
    month: SlaMonth,
) -> Result<Vec<SlaClosing>, PostgresError> {
    let name = month.to_string();
    let of_month = [(&policy as _, Type::TEXT), (&name as _, Type::TEXT)];
    let mut closings = Vec::new();
    for row in client.query_typed(CLOSINGS, &of_month).await? {
        let small = |at: usize| row.try_get::<_, Option<i64>>(at).map(|number| number.map(|n| n.unsigned_abs() as u32));
        let step = match (small(6)?, small(7)?) {
            (Some(below_bp), Some(credit_bp)) => Some(SlaCreditStep { below_bp, credit_bp }),
            _ => None,
        };
        let unsigned = |at: usize| row.try_get::<_, i64>(at).map(i64::unsigned_abs);
        closings.push(SlaClosing {
            policy: policy.into(),
            month,
            statement: small(0)?.unwrap_or_default(),
            closed_unix_ms: row.try_get(1)?,
            requests: unsigned(2)?,
            eligible: unsigned(3)?,
            failed: unsigned(4)?,
            uptime_millionths: small(5)?,
            step,
            credits: Vec::new(),
        });
    }
    for row in client.query_typed(CREDITS, &of_month).await? {
        let statement = row.try_get::<_, i64>(5)?;
        let amount = |at: usize| row.try_get(at).map(NanoUsd);
        let credit = SlaCredit { holder: holder(&row, 0)??, spend: amount(2)?, due: amount(3)?, granted: amount(4)? };
        if let Some(closing) = closings.iter_mut().find(|closing| i64::from(closing.statement) == statement) {
            closing.credits.push(credit);
        }
    }
    Ok(closings)
}

/// Whether the statement is the next one about its month.
pub(super) async fn is_next(client: &impl GenericClient, closing: &SlaClosing) -> Result<bool, PostgresError> {
    let last = "SELECT coalesce(max(statement), 0) FROM tierway.sla_closings WHERE policy = $1 AND month = $2";
    let (policy, month) = (&*closing.policy, closing.month.to_string());
    let last = client.query_typed_one(last, &[(&policy, Type::TEXT), (&month, Type::TEXT)]).await?;
    Ok(i64::from(closing.statement) == last.try_get::<_, i64>(0)? + 1)
}

/// Writes a statement with its credits; the grants are changes of their own.
pub(super) async fn insert_closing(transaction: &Transaction<'_>, closing: &SlaClosing) -> Result<(), PostgresError> {
    let (below, share) = closing.step.map(|step| (i64::from(step.below_bp), i64::from(step.credit_bp))).unzip();
    let (policy, month, statement) = (&*closing.policy, closing.month.to_string(), i64::from(closing.statement));
    let numbers = [closing.requests, closing.eligible, closing.failed].map(u64::cast_signed);
    let uptime = closing.uptime_millionths.map(i64::from);
    let row: [(&(dyn ToSql + Sync), Type); 10] = [
        (&policy, Type::TEXT),
        (&month, Type::TEXT),
        (&statement, Type::INT8),
        (&closing.closed_unix_ms, Type::INT8),
        (&numbers[0], Type::INT8),
        (&numbers[1], Type::INT8),
        (&numbers[2], Type::INT8),
        (&uptime, Type::INT8),
        (&below, Type::INT8),
        (&share, Type::INT8),
    ];
    let insert = "INSERT INTO tierway.sla_closings VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    transaction.execute_typed(insert, &row).await?;
    for SlaCredit { holder, spend, due, granted } in &closing.credits {
        let (scope, name) = (holder.scope.label(), &*holder.name);
        let row: [(&(dyn ToSql + Sync), Type); 8] = [
            (&policy, Type::TEXT),
            (&month, Type::TEXT),
            (&statement, Type::INT8),
            (&scope, Type::TEXT),
            (&name, Type::TEXT),
            (&spend.0, Type::INT8),
            (&due.0, Type::INT8),
            (&granted.0, Type::INT8),
        ];
        let insert = "INSERT INTO tierway.sla_credits VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        transaction.execute_typed(insert, &row).await?;
    }
    Ok(())
}

/// The months in which an SLA was promised, the oldest first.
pub(super) async fn promised(client: &impl GenericClient) -> Result<Vec<PromisedMonth>, PostgresError> {
    let promised = |row: &Row| -> Result<PromisedMonth, PostgresError> {
        let month = row.try_get::<_, &str>(1)?;
        let month = SlaMonth::parse(month).ok_or_else(|| unreadable(month))?;
        let closed = row.try_get::<_, Option<i64>>(2)?.map(i64::unsigned_abs);
        Ok(PromisedMonth { policy: row.try_get::<_, &str>(0)?.into(), month, closed_requests: closed })
    };
    client.query_typed(PROMISED, &[]).await?.iter().map(promised).collect()
}

/// Records that a gateway is alive, and what it promises.
pub(super) async fn record_presence(
    transaction: &Transaction<'_>,
    SlaPresence { interval, promised }: &SlaPresence,
) -> Result<(), PostgresError> {
    let alive = "INSERT INTO tierway.alive_intervals VALUES ($1) ON CONFLICT DO NOTHING";
    transaction.execute_typed(alive, &[(interval, Type::INT8)]).await?;
    let expired = interval.saturating_sub(INTERVALS_KEPT);
    let delete = "DELETE FROM tierway.alive_intervals WHERE number < $1";
    transaction.execute_typed(delete, &[(&expired, Type::INT8)]).await?;
    let months: Vec<[String; 2]> =
        promised.iter().map(|(policy, month)| [policy.to_string(), month.to_string()]).collect();
    let promise = "INSERT INTO tierway.sla_promised SELECT DISTINCT p ->> 0, p ->> 1
        FROM json_array_elements($1::text::json) AS p ORDER BY 1, 2 ON CONFLICT DO NOTHING";
    transaction.execute_typed(promise, &[(&json(&months), Type::TEXT)]).await?;
    Ok(())
}
