//! The audit in the database: appended in the transaction of the change it is about.
//!
//! Start reading at [`append`].

use super::error::PostgresError;
use crate::domain::audit::{AuditChain, AuditEnd, AuditEntry, AuditHash, AuditQuery, AuditRow, Operator};
use crate::store::ChangeContext;
use crate::store::audit::next_row;
use std::sync::Arc;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient, IsolationLevel, Row, Transaction};

const INSERT: &str = "INSERT INTO tierway.audit VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
const RECORD_END: &str = "INSERT INTO tierway.audit_end VALUES (1, $1, $2)
    ON CONFLICT (id) DO UPDATE SET number = excluded.number, hash = excluded.hash";
const ALL: &str = "SELECT * FROM tierway.audit ORDER BY number";
const LAST: &str = "SELECT number, hash FROM tierway.audit ORDER BY number DESC LIMIT 1";
const END: &str = "SELECT number, hash FROM tierway.audit_end";
const LISTED: &str = "SELECT * FROM tierway.audit WHERE ($1::bigint IS NULL OR number < $1)
    AND ($2::bigint IS NULL OR unix_ms >= $2) AND ($3::bigint IS NULL OR unix_ms < $3)
    AND ($4::text IS NULL OR kind = $4) AND ($5::text IS NULL OR name = $5) ORDER BY number DESC LIMIT $6";

/// Appends a row for each of `entries`. The transaction must have locked the register.
pub(super) async fn append(
    transaction: &Transaction<'_>,
    entries: &[AuditEntry],
    context: &ChangeContext,
) -> Result<(), PostgresError> {
    let (recorded, last) = (end(transaction, END).await?, end(transaction, LAST).await?);
    // Where the two differ, a number must not be taken a second time: nothing could be written any more.
    let mut end = if recorded.number > last.number { recorded } else { last };
    for entry in entries {
        let row = next_row(end, entry, context);
        insert(transaction, &row).await?;
        end = AuditEnd { number: row.number, hash: row.hash };
    }
    let hash = &end.hash.0[..];
    transaction.execute_typed(RECORD_END, &[(&end.number, Type::INT8), (&hash, Type::BYTEA)]).await?;
    Ok(())
}

async fn insert(transaction: &Transaction<'_>, row: &AuditRow) -> Result<(), PostgresError> {
    let Operator { who, origin, command, request_id } = &row.operator;
    let AuditRow { number, unix_ms, kind, name, changes, previous, hash, .. } = row;
    let (previous, hash, request_id) = (&previous.0[..], &hash.0[..], request_id.as_deref());
    let [who, origin, command, kind, name, changes] = [who, origin, command, kind, name, changes].map(|text| &**text);
    let row = [
        (number as _, Type::INT8),
        (unix_ms as _, Type::INT8),
        (&who as _, Type::TEXT),
        (&origin as _, Type::TEXT),
        (&command as _, Type::TEXT),
        (&request_id as _, Type::TEXT),
        (&kind as _, Type::TEXT),
        (&name as _, Type::TEXT),
        (&changes as _, Type::TEXT),
        (&previous as _, Type::BYTEA),
        (&hash as _, Type::BYTEA),
    ];
    transaction.execute_typed(INSERT, &row).await?;
    Ok(())
}

/// The rows that `query` asks for.
pub(super) async fn rows(client: &impl GenericClient, query: &AuditQuery) -> Result<Vec<AuditRow>, PostgresError> {
    let AuditQuery { since_unix_ms, until_unix_ms, kind, name, after, most } = query;
    let most = i64::try_from(*most).unwrap_or(i64::MAX);
    let (kind, name) = (kind.as_deref(), name.as_deref());
    let parameters = [
        (after as _, Type::INT8),
        (since_unix_ms as _, Type::INT8),
        (until_unix_ms as _, Type::INT8),
        (&kind as _, Type::TEXT),
        (&name as _, Type::TEXT),
        (&most as _, Type::INT8),
    ];
    client.query_typed(LISTED, &parameters).await?.iter().map(row).collect()
}

/// What the whole audit is verified by, as one transaction sees it.
pub(super) async fn chain(client: &mut Client) -> Result<AuditChain, PostgresError> {
    let snapshot = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let transaction = snapshot.start().await?;
    let rows = transaction.query_typed(ALL, &[]).await?;
    let links = rows.iter().map(|found| row(found).map(|row| row.link())).collect::<Result<_, _>>()?;
    let end = end(&transaction, END).await?;
    transaction.rollback().await?;
    Ok(AuditChain { links, end })
}

async fn end(client: &impl GenericClient, query: &str) -> Result<AuditEnd, PostgresError> {
    match client.query_typed_opt(query, &[]).await? {
        Some(row) => Ok(AuditEnd { number: row.try_get(0)?, hash: hash(&row, 1)? }),
        None => Ok(AuditEnd::NONE),
    }
}

fn row(row: &Row) -> Result<AuditRow, PostgresError> {
    let text = |at: usize| row.try_get::<_, &str>(at).map(Arc::<str>::from);
    let operator = Operator {
        who: text(2)?,
        origin: text(3)?,
        command: text(4)?,
        request_id: row.try_get::<_, Option<&str>>(5)?.map(Arc::from),
    };
    Ok(AuditRow {
        number: row.try_get(0)?,
        unix_ms: row.try_get(1)?,
        operator,
        kind: text(6)?,
        name: text(7)?,
        changes: text(8)?,
        previous: hash(row, 9)?,
        hash: hash(row, 10)?,
    })
}

fn hash(row: &Row, at: usize) -> Result<AuditHash, PostgresError> {
    let bytes = row.try_get::<_, &[u8]>(at)?;
    Ok(bytes.try_into().map_or(AuditHash::START, AuditHash))
}
