//! Values of columns that need more than SQLite's own types: labels, durations and reasons.
//!
//! A label that this program does not know is an error, and never read as something else.

use crate::domain::reason::Reason;
use rusqlite::types::Type;
use std::time::Duration;

/// The reason with this label.
pub(super) fn reason(label: &str) -> rusqlite::Result<Reason> {
    Reason::ALL.iter().copied().find(|reason| reason.label() == label).ok_or_else(|| unknown(label))
}

/// The error for a value that this program cannot read: a later version or another program wrote it.
pub(super) fn unknown(what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, format!("unknown: {what}").into())
}

/// The same, with the column.
pub(super) fn unreadable(at: usize, text: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(at, Type::Text, format!("`{text}` is nothing this program wrote").into())
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn duration(micros: i64) -> Duration {
    Duration::from_micros(micros.max(0).unsigned_abs())
}

/// The one of `all` that is called `label`; `None` without a label.
pub(super) fn from_label<T: Copy, const N: usize>(
    label: Option<String>,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> rusqlite::Result<Option<T>> {
    let Some(label) = label else { return Ok(None) };
    all.into_iter().find(|one| name(*one) == label).map(Some).ok_or_else(|| unknown(&label))
}
