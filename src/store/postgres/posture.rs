//! Receipts counted by how they were served, as they are read.

use super::error::PostgresError;
use super::receipts::uuid;
use crate::domain::posture::{PostureQuery, PostureReceipt, PostureTally};
use crate::domain::receipt::Outcome;
use crate::domain::sla::probe::PROBE_KEY;
use crate::store::column::{duration, from_label, reason, unknown};
use crate::store::receipt_row::{CLOCKS_DIFFER_MS, lowest_id_at};
use futures_util::TryStreamExt;
use std::pin::pin;
use std::sync::Arc;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

/// The ids find candidate rows; the time decides. Probes of SLAs are nobody's requests.
const RECEIPTS: &str = "SELECT tier, region, stream, outcome, reason, first_token_us, duration_us, failover_us,
    injected IS NOT NULL FROM tierway.receipts
    WHERE id >= $1::text::uuid AND id < $2::text::uuid AND received_unix_ms >= $3 AND received_unix_ms < $4
    AND key <> $6 AND ($5::text IS NULL OR policy = $5)";

/// Counts the receipts of `query`: one statement, which sees one moment.
pub(super) async fn tally(client: &mut Client, query: PostureQuery) -> Result<PostureTally, PostgresError> {
    let PostureQuery { policy, since_unix_ms, until_unix_ms } = query;
    let first = uuid(lowest_id_at(since_unix_ms.saturating_sub(CLOCKS_DIFFER_MS)));
    let last = uuid(lowest_id_at(until_unix_ms.saturating_add(CLOCKS_DIFFER_MS)));
    let policy = policy.as_deref();
    let parameters: [(&(dyn ToSql + Sync), Type); 6] = [
        (&first, Type::TEXT),
        (&last, Type::TEXT),
        (&since_unix_ms, Type::INT8),
        (&until_unix_ms, Type::INT8),
        (&policy, Type::TEXT),
        (&PROBE_KEY, Type::TEXT),
    ];
    let mut tally = PostureTally::default();
    let mut rows = pin!(client.query_typed_raw(RECEIPTS, parameters).await?);
    while let Some(row) = rows.try_next().await? {
        match receipt(&row) {
            Ok(receipt) => tally.add(&receipt),
            Err(PostgresError::Unreadable(_)) => tally.unreadable += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(tally)
}

fn receipt(row: &Row) -> Result<PostureReceipt, PostgresError> {
    let name = |at: usize| row.try_get::<_, Option<&str>>(at).map(|name| name.map(Arc::from));
    let time = |at: usize| row.try_get::<_, Option<i64>>(at).map(|micros| micros.map(duration));
    let outcome = from_label(row.try_get(3)?, Outcome::ALL, Outcome::label)?;
    Ok(PostureReceipt {
        tier: name(0)?,
        region: name(1)?,
        stream: row.try_get(2)?,
        outcome: outcome.ok_or_else(|| unknown("no outcome"))?,
        reason: reason(row.try_get(4)?)?,
        first_token: time(5)?,
        duration: duration(row.try_get(6)?),
        failover: time(7)?,
        injected: row.try_get(8)?,
    })
}
