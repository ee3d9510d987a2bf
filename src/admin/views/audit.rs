//! A row of the audit as a JSON object.

use super::UtcTime;
use crate::admin::changed_fields;
use crate::domain::audit::{AuditRow, ChangedField};
use schemars::JsonSchema;

/// A change that an operator made.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "AuditRow", deny_unknown_fields)]
pub struct AuditRowObject {
    #[schemars(extend("const" = "audit_row"))]
    object: &'static str,
    number: i64,
    time: UtcTime,
    /// A user of the system, or whose token was presented.
    who: String,
    /// The host of a command, or the address of a client.
    origin: String,
    /// The command, or the operation of this API.
    command: String,
    request_id: Option<String>,
    /// The kind of what was changed: `key`, `team`, `deployment`, `configuration`.
    kind: String,
    name: String,
    changes: Vec<ChangedFieldObject>,
    /// The hash of the row before.
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    previous: String,
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    hash: String,
}

/// A field with its value before and after a change; null: none.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "ChangedField", deny_unknown_fields)]
struct ChangedFieldObject {
    field: String,
    before: Option<String>,
    after: Option<String>,
}

impl From<&AuditRow> for AuditRowObject {
    fn from(row: &AuditRow) -> Self {
        let operator = &row.operator;
        Self {
            object: "audit_row",
            number: row.number,
            time: UtcTime::of(row.unix_ms),
            who: operator.who.to_string(),
            origin: operator.origin.to_string(),
            command: operator.command.to_string(),
            request_id: operator.request_id.as_deref().map(str::to_owned),
            kind: row.kind.to_string(),
            name: row.name.to_string(),
            changes: changed_fields(&row.changes).into_iter().map(ChangedFieldObject::from).collect(),
            previous: row.previous.to_string(),
            hash: row.hash.to_string(),
        }
    }
}

impl From<ChangedField> for ChangedFieldObject {
    fn from(ChangedField { field, before, after }: ChangedField) -> Self {
        Self { field: field.to_string(), before, after }
    }
}
