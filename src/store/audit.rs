//! How rows of the audit are written, the same in every back end.

use super::ChangeContext;
use crate::domain::audit::{AuditEnd, AuditEntry, AuditHash, AuditRow, ChangedField};

/// The row for `entry` that follows `end`.
pub(super) fn next_row(end: AuditEnd, entry: &AuditEntry, context: &ChangeContext) -> AuditRow {
    let fields = entry.changes.iter().map(|ChangedField { field, before, after }| (&**field, before, after));
    let changes = serde_json::to_string(&fields.collect::<Vec<_>>()).expect("texts are JSON");
    let mut row = AuditRow {
        number: end.number + 1,
        unix_ms: context.unix_ms,
        operator: context.operator.clone(),
        kind: entry.kind.into(),
        name: entry.name.clone(),
        changes: changes.into(),
        previous: end.hash,
        hash: AuditHash::START,
    };
    row.hash = row.digest();
    row
}
