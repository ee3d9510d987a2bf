//! SLAs in the database: receipts counted as they are read, statements about months, and when a gateway was alive.
//!
//! Start reading at [`tally`], then [`insert_closing`].

use super::credit::holder;
use super::operation::WriteOperation;
use super::receipt_row::id_at;
use super::unreadable_value;
use crate::domain::id::RequestId;
use crate::domain::money::NanoUsd;
use crate::domain::receipt::Outcome;
use crate::domain::sla::closing::{SlaClosing, SlaCredit};
use crate::domain::sla::month::SlaMonth;
use crate::domain::sla::probe::PROBE_KEY;
use crate::domain::sla::tally::{AliveIntervals, SlaMonthTally, SlaQuery};
use crate::domain::sla::{SlaCreditStep, SlaReceipt};
use crate::store::column::{duration, from_label, reason, unknown, unreadable};
use crate::store::receipt_row::CLOCKS_DIFFER_MS;
use crate::store::{PromisedMonth, SlaPresence};
use rusqlite::{Connection, Row, Transaction, params};
use std::sync::Arc;

/// The ids find candidate rows; the time decides.
const RECEIPTS: &str = "SELECT id, received_unix_ms, key, team, outcome, reason, status, stream, first_token_us,
    duration_us, cost_nanousd, injected IS NOT NULL FROM receipts
    WHERE id >= ?1 AND id < ?2 AND received_unix_ms >= ?3 AND received_unix_ms < ?4 AND policy = ?5 AND key IS NOT NULL";
const COUNT: &str = "SELECT count(*) FROM receipts
    WHERE id >= ?1 AND id < ?2 AND received_unix_ms >= ?3 AND received_unix_ms < ?4 AND policy = ?5 AND key <> ?6";
const ALIVE: &str = "SELECT number FROM alive_intervals WHERE number >= ?1 AND number <= ?2";
const CLOSINGS: &str = "SELECT statement, closed_unix_ms, requests, eligible, failed, uptime_millionths, below_bp,
    credit_bp FROM sla_closings WHERE policy = ?1 AND month = ?2 ORDER BY statement";
const CREDITS: &str = "SELECT scope, name, spend_nanousd, due_nanousd, granted_nanousd FROM sla_credits
    WHERE policy = ?1 AND month = ?2 AND statement = ?3 ORDER BY scope, name";
const PROMISED: &str = "SELECT policy, month, (SELECT requests FROM sla_closings
        WHERE sla_closings.policy = sla_promised.policy AND sla_closings.month = sla_promised.month
        ORDER BY statement DESC LIMIT 1)
    FROM sla_promised ORDER BY month, policy";
/// Intervals that lie further back are deleted: more than a year of five minutes.
const INTERVALS_KEPT: i64 = 400 * 288;

/// Counts the receipts of `query`, as one moment saw them.
pub(super) fn tally(connection: &Connection, query: SlaQuery) -> rusqlite::Result<SlaMonthTally> {
    let transaction = connection.unchecked_transaction()?;
    let (since, until) = (query.since_unix_ms(), query.until_unix_ms);
    let alive = alive(&transaction, since, until)?;
    let mut tally = SlaMonthTally::new(query);
    {
        let mut statement = transaction.prepare_cached(RECEIPTS)?;
        let policy = tally.query.policy.clone();
        let [first, last] = ids(since, until);
        let mut rows = statement.query(params![first, last, since, until, policy])?;
        while let Some(row) = rows.next()? {
            match receipt(row) {
                Ok(receipt) => tally.add(&receipt),
                Err(error) if error.sqlite_error_code().is_none() => {
                    tracing::error!(%error, "a receipt cannot be read, and does not count for the SLA");
                    tally.unreadable += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
    tally.count_dead(&alive);
    Ok(tally)
}

/// The number of receipts of the policy in the month of `query`, without those of probes.
pub(super) fn requests(connection: &Connection, query: &SlaQuery) -> rusqlite::Result<u64> {
    let (since, until) = (query.span.start_ms, query.until_unix_ms);
    let [first, last] = ids(since, until);
    let mut statement = connection.prepare_cached(COUNT)?;
    let count: i64 =
        statement.query_row(params![first, last, since, until, query.policy, PROBE_KEY], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

fn ids(since: i64, until: i64) -> [[u8; 16]; 2] {
    [id_at(since.saturating_sub(CLOCKS_DIFFER_MS)), id_at(until.saturating_add(CLOCKS_DIFFER_MS))]
}

fn receipt(row: &Row<'_>) -> rusqlite::Result<SlaReceipt> {
    Ok(SlaReceipt {
        id: RequestId(u128::from_be_bytes(row.get(0)?)),
        received_unix_ms: row.get(1)?,
        key: row.get(2)?,
        team: row.get(3)?,
        outcome: outcome(row)?,
        reason: reason(row.get_ref(5)?.as_str()?).map_err(unreadable_value)?,
        status: row.get(6)?,
        stream: row.get(7)?,
        first_token: row.get::<_, Option<i64>>(8)?.map(duration),
        duration: duration(row.get(9)?),
        cost: NanoUsd(row.get(10)?),
        injected: row.get(11)?,
    })
}

fn outcome(row: &Row<'_>) -> rusqlite::Result<Outcome> {
    let found = from_label(row.get_ref(4)?.as_str_or_null()?, Outcome::ALL, Outcome::label);
    found.and_then(|outcome| outcome.ok_or_else(|| unknown("no outcome"))).map_err(unreadable_value)
}

fn alive(connection: &Connection, since: i64, until: i64) -> rusqlite::Result<AliveIntervals> {
    let first = connection.query_row("SELECT min(number) FROM alive_intervals", [], |row| row.get(0))?;
    let mut statement = connection.prepare_cached(ALIVE)?;
    let [from, to] = [since, until].map(SlaPresence::interval_at);
    let alive = statement.query_map([from, to], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(AliveIntervals { first, alive })
}

/// The statements about `month` of `policy`, in their order.
pub(super) fn closings(connection: &Connection, policy: &str, month: SlaMonth) -> rusqlite::Result<Vec<SlaClosing>> {
    let (transaction, name) = (connection.unchecked_transaction()?, month.to_string());
    let mut statement = transaction.prepare_cached(CLOSINGS)?;
    let closing = |row: &Row<'_>| {
        let step = match (row.get(6)?, row.get(7)?) {
            (Some(below_bp), Some(credit_bp)) => Some(SlaCreditStep { below_bp, credit_bp }),
            _ => None,
        };
        let unsigned = |at: usize| row.get::<_, i64>(at).map(i64::unsigned_abs);
        Ok(SlaClosing {
            policy: policy.into(),
            month,
            statement: row.get(0)?,
            closed_unix_ms: row.get(1)?,
            requests: unsigned(2)?,
            eligible: unsigned(3)?,
            failed: unsigned(4)?,
            uptime_millionths: row.get(5)?,
            step,
            credits: Vec::new(),
        })
    };
    let mut closings = statement.query_map(params![policy, name], closing)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut statement = transaction.prepare_cached(CREDITS)?;
    let credit = |row: &Row<'_>| {
        let amount = |at: usize| row.get(at).map(NanoUsd);
        Ok(SlaCredit { holder: holder(row, 0)?, spend: amount(2)?, due: amount(3)?, granted: amount(4)? })
    };
    for closing in &mut closings {
        let credits = statement.query_map(params![policy, name, closing.statement], credit)?;
        closing.credits = credits.collect::<rusqlite::Result<_>>()?;
    }
    Ok(closings)
}

/// Whether the statement is the next one about its month.
pub(super) fn is_next(connection: &Connection, closing: &SlaClosing) -> rusqlite::Result<bool> {
    let last = "SELECT coalesce(max(statement), 0) FROM sla_closings WHERE policy = ?1 AND month = ?2";
    let month = closing.month.to_string();
    let last: u32 = connection.query_row(last, params![closing.policy, month], |row| row.get(0))?;
    Ok(closing.statement == last + 1)
}

/// Writes a statement with its credits; the grants are changes of their own.
pub(super) fn insert_closing(transaction: &Transaction<'_>, closing: &SlaClosing) -> rusqlite::Result<()> {
    let SlaClosing { policy, statement, step, .. } = closing;
    let (below, share) = step.map(|step| (step.below_bp, step.credit_bp)).unzip();
    let month = closing.month.to_string();
    let insert = "INSERT INTO sla_closings VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    transaction.prepare_cached(insert)?.execute(params![
        policy,
        month,
        statement,
        closing.closed_unix_ms,
        closing.requests.cast_signed(),
        closing.eligible.cast_signed(),
        closing.failed.cast_signed(),
        closing.uptime_millionths,
        below,
        share
    ])?;
    let mut insert = transaction.prepare_cached("INSERT INTO sla_credits VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    for SlaCredit { holder, spend, due, granted } in &closing.credits {
        let (scope, name) = (holder.scope.label(), &holder.name);
        insert.execute(params![policy, month, statement, scope, name, spend.0, due.0, granted.0])?;
    }
    Ok(())
}

/// The months in which an SLA was promised, the oldest first.
pub(super) fn promised(connection: &Connection) -> rusqlite::Result<Vec<PromisedMonth>> {
    let mut statement = connection.prepare_cached(PROMISED)?;
    let promised = |row: &Row<'_>| {
        let month = row.get_ref(1)?.as_str()?;
        let month = SlaMonth::parse(month).ok_or_else(|| unreadable_value(unreadable(month)))?;
        let closed: Option<i64> = row.get(2)?;
        Ok(PromisedMonth { policy: row.get(0)?, month, closed_requests: closed.map(i64::unsigned_abs) })
    };
    statement.query_map([], promised)?.collect()
}

/// Records that a gateway is alive, and what it promises.
pub(super) struct PresenceOperation(pub(super) SlaPresence);

impl WriteOperation for PresenceOperation {
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let SlaPresence { interval, promised } = &self.0;
        transaction.prepare_cached("INSERT OR IGNORE INTO alive_intervals VALUES (?1)")?.execute([interval])?;
        let mut expired = transaction.prepare_cached("DELETE FROM alive_intervals WHERE number < ?1")?;
        expired.execute([interval.saturating_sub(INTERVALS_KEPT)])?;
        let mut promise = transaction.prepare_cached("INSERT OR IGNORE INTO sla_promised VALUES (?1, ?2)")?;
        let mut each = promised.iter();
        each.try_for_each(|(policy, month): &(Arc<str>, SlaMonth)| {
            promise.execute(params![policy, month.to_string()]).map(drop)
        })
    }

    fn describe(&self) -> String {
        "that the gateway is alive".to_owned()
    }

    fn committed(self: Box<Self>) {}
}
