//! Rows of the `receipts` table: what a row holds is in [`ReceiptRow`]. They go to the database and come from it as JSON, so
//! that many are one parameter and each column is named once.

use super::balances::json;
use super::error::PostgresError;
use crate::domain::id::RequestId;
use crate::domain::receipt::Receipt;
use crate::store::column::unknown;
use crate::store::receipt_row::ReceiptRow;
use serde::Serialize;
use std::collections::HashSet;
use std::sync::Arc;
use tokio_postgres::types::Type;
use tokio_postgres::{Row, Transaction};

const INSERT: &str = "INSERT INTO tierway.receipts
    SELECT * FROM json_populate_recordset(NULL::tierway.receipts, $1::text::json) ORDER BY id
    ON CONFLICT (id) DO NOTHING RETURNING replace(id::text, '-', '')";
/// What [`read`] reads.
pub(super) const COLUMNS: &str = "replace(id::text, '-', ''), row_to_json(receipts)::text";

#[derive(Serialize)]
struct IdentifiedRow<'a> {
    id: String,
    #[serde(flatten)]
    row: ReceiptRow<'a>,
}

/// A request's id as the database takes it.
pub(super) fn uuid(id: RequestId) -> String {
    format!("{:032x}", id.0)
}

/// Inserts `receipts`, but for those whose id exists; returns the ids of those that were inserted.
pub(super) async fn insert(
    transaction: &Transaction<'_>,
    receipts: &[&Arc<Receipt>],
) -> Result<HashSet<RequestId>, PostgresError> {
    let rows: Vec<IdentifiedRow<'_>> =
        receipts.iter().map(|receipt| IdentifiedRow { id: uuid(receipt.id), row: ReceiptRow::of(receipt) }).collect();
    let inserted = transaction.query_typed(INSERT, &[(&json(&rows), Type::TEXT)]).await?;
    inserted.iter().map(|row| id(row, 0)).collect()
}

/// The receipt in `row`, which has [`COLUMNS`].
pub(super) fn read(row: &Row) -> Result<Receipt, PostgresError> {
    let columns = row.try_get::<_, &str>(1)?;
    let receipt: ReceiptRow<'_> =
        serde_json::from_str(columns).map_err(|error| PostgresError::Unreadable(error.to_string()))?;
    Ok(receipt.receipt(id(row, 0)?)?)
}

/// The id in the column `at`.
pub(super) fn id(row: &Row, at: usize) -> Result<RequestId, PostgresError> {
    let id = u128::from_str_radix(row.try_get(at)?, 16).map_err(|_| unknown("id"))?;
    Ok(RequestId(id))
}
