//! The audit in the database: appended in the transaction of the change it is about.
//!
//! What was tampered with is read all the same, as it is: a row that cannot be read would hide that it was.
//!
//! Start reading at [`append`].

use crate::domain::audit::{AuditChain, AuditEnd, AuditEntry, AuditHash, AuditQuery, AuditRow, Operator};
use crate::store::ChangeContext;
use crate::store::audit::next_row;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use std::sync::Arc;

const INSERT: &str = "INSERT INTO audit VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
const RECORD_END: &str = "INSERT OR REPLACE INTO audit_end VALUES (1, ?1, ?2)";
const ALL: &str = "SELECT * FROM audit ORDER BY number";
const LAST: &str = "SELECT * FROM audit ORDER BY number DESC LIMIT 1";
const LISTED: &str = "SELECT * FROM audit WHERE (?1 IS NULL OR number < ?1) AND (?2 IS NULL OR unix_ms >= ?2)
    AND (?3 IS NULL OR unix_ms < ?3) AND (?4 IS NULL OR kind = ?4) AND (?5 IS NULL OR name = ?5)
    ORDER BY number DESC LIMIT ?6";

/// Appends a row for each of `entries`.
pub(super) fn append(
    transaction: &Transaction<'_>,
    entries: &[AuditEntry],
    context: &ChangeContext,
) -> rusqlite::Result<()> {
    let (recorded, last) = (recorded_end(transaction)?, last(transaction)?);
    // Where the two differ, a number must not be taken a second time: nothing could be written any more.
    let mut end = if recorded.number > last.number { recorded } else { last };
    for entry in entries {
        let row = next_row(end, entry, context);
        insert(transaction, &row)?;
        end = AuditEnd { number: row.number, hash: row.hash };
    }
    transaction.prepare_cached(RECORD_END)?.execute(params![end.number, end.hash.0]).map(drop)
}

fn insert(transaction: &Transaction<'_>, row: &AuditRow) -> rusqlite::Result<()> {
    let Operator { who, origin, command, request_id } = &row.operator;
    let AuditRow { number, unix_ms, kind, name, changes, previous, hash, .. } = row;
    transaction
        .prepare_cached(INSERT)?
        .execute(params![number, unix_ms, who, origin, command, request_id, kind, name, changes, previous.0, hash.0])
        .map(drop)
}

/// The rows that `query` asks for.
pub(super) fn rows(connection: &Connection, query: &AuditQuery) -> rusqlite::Result<Vec<AuditRow>> {
    let AuditQuery { since_unix_ms, until_unix_ms, kind, name, after, most } = query;
    let most = i64::try_from(*most).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(LISTED)?;
    let rows = statement.query_map(params![after, since_unix_ms, until_unix_ms, kind, name, most], row)?;
    rows.collect()
}

/// What the whole audit is verified by, as one transaction sees it.
pub(super) fn chain(connection: &Connection) -> rusqlite::Result<AuditChain> {
    let transaction = connection.unchecked_transaction()?;
    let mut statement = transaction.prepare_cached(ALL)?;
    let links = statement.query_map([], |found| row(found).map(|row| row.link()))?;
    Ok(AuditChain { links: links.collect::<rusqlite::Result<_>>()?, end: recorded_end(&transaction)? })
}

fn recorded_end(connection: &Connection) -> rusqlite::Result<AuditEnd> {
    let mut statement = connection.prepare_cached("SELECT number, hash FROM audit_end")?;
    let end = |row: &Row<'_>| Ok(AuditEnd { number: integer(row, 0)?, hash: hash(row, 1)? });
    Ok(statement.query_row([], end).optional()?.unwrap_or(AuditEnd::NONE))
}

fn last(connection: &Connection) -> rusqlite::Result<AuditEnd> {
    let mut statement = connection.prepare_cached(LAST)?;
    let found = statement.query_row([], row).optional()?;
    Ok(found.map_or(AuditEnd::NONE, |row| AuditEnd { number: row.number, hash: row.hash }))
}

fn row(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    let operator = Operator {
        who: text(row, 2)?,
        origin: text(row, 3)?,
        command: text(row, 4)?,
        request_id: optional_text(row, 5)?,
    };
    Ok(AuditRow {
        number: integer(row, 0)?,
        unix_ms: integer(row, 1)?,
        operator,
        kind: text(row, 6)?,
        name: text(row, 7)?,
        changes: text(row, 8)?,
        previous: hash(row, 9)?,
        hash: hash(row, 10)?,
    })
}

fn integer(row: &Row<'_>, at: usize) -> rusqlite::Result<i64> {
    Ok(row.get_ref(at)?.as_i64().unwrap_or_default())
}

fn optional_text(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Arc<str>>> {
    let bytes = row.get_ref(at)?.as_bytes_or_null().unwrap_or_default();
    Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into()))
}

fn text(row: &Row<'_>, at: usize) -> rusqlite::Result<Arc<str>> {
    Ok(optional_text(row, at)?.unwrap_or_default())
}

fn hash(row: &Row<'_>, at: usize) -> rusqlite::Result<AuditHash> {
    let bytes = row.get_ref(at)?.as_blob().unwrap_or_default();
    Ok(bytes.try_into().map_or(AuditHash::START, AuditHash))
}
