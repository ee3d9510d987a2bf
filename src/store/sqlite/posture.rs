//! Receipts counted by how they were served, as they are read.

use super::receipt_row::id_at;
use super::unreadable_value;
use crate::domain::posture::{PostureQuery, PostureReceipt, PostureTally};
use crate::domain::receipt::Outcome;
use crate::domain::sla::probe::PROBE_KEY;
use crate::store::column::{duration, from_label, reason, unknown};
use crate::store::receipt_row::CLOCKS_DIFFER_MS;
use rusqlite::{Connection, Row, params};

/// The ids find candidate rows; the time decides. Probes of SLAs are nobody's requests.
const RECEIPTS: &str = "SELECT tier, region, stream, outcome, reason, first_token_us, duration_us, failover_us,
    injected IS NOT NULL FROM receipts
    WHERE id >= ?1 AND id < ?2 AND received_unix_ms >= ?3 AND received_unix_ms < ?4 AND key <> ?6
    AND (?5 IS NULL OR policy = ?5)";

/// Counts the receipts of `query`, as one moment saw them.
pub(super) fn tally(connection: &Connection, query: &PostureQuery) -> rusqlite::Result<PostureTally> {
    let PostureQuery { policy, since_unix_ms, until_unix_ms } = query;
    let first = id_at(since_unix_ms.saturating_sub(CLOCKS_DIFFER_MS));
    let last = id_at(until_unix_ms.saturating_add(CLOCKS_DIFFER_MS));
    let mut tally = PostureTally::default();
    let mut statement = connection.prepare_cached(RECEIPTS)?;
    let mut rows = statement.query(params![first, last, since_unix_ms, until_unix_ms, policy, PROBE_KEY])?;
    while let Some(row) = rows.next()? {
        match receipt(row) {
            Ok(receipt) => tally.add(&receipt),
            Err(error) if error.sqlite_error_code().is_none() => tally.unreadable += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(tally)
}

fn receipt(row: &Row<'_>) -> rusqlite::Result<PostureReceipt> {
    let outcome = from_label(row.get_ref(3)?.as_str_or_null()?, Outcome::ALL, Outcome::label);
    let outcome = outcome.and_then(|outcome| outcome.ok_or_else(|| unknown("no outcome")));
    let time = |at: usize| row.get::<_, Option<i64>>(at).map(|micros| micros.map(duration));
    Ok(PostureReceipt {
        tier: row.get(0)?,
        region: row.get(1)?,
        stream: row.get(2)?,
        outcome: outcome.map_err(unreadable_value)?,
        reason: reason(row.get_ref(4)?.as_str()?).map_err(unreadable_value)?,
        first_token: time(5)?,
        duration: duration(row.get(6)?),
        failover: time(7)?,
        injected: row.get(8)?,
    })
}
