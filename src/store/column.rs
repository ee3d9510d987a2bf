//! Values of columns that need more than a database's own types, the same in every one: labels, durations and reasons.
//!
//! A label that this program does not know is an error, and never read as something else.

use crate::domain::reason::Reason;
use std::time::Duration;

/// A value that this program cannot read: a later version or another program wrote it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UnreadableValue(String);

/// The reason with this label.
pub(super) fn reason(label: &str) -> Result<Reason, UnreadableValue> {
    Reason::ALL.iter().copied().find(|reason| reason.label() == label).ok_or_else(|| unknown(label))
}

/// The error for a value of `what` that this program does not know.
pub(super) fn unknown(what: &str) -> UnreadableValue {
    UnreadableValue(format!("unknown: {what}"))
}

/// The same, with the value.
pub(super) fn unreadable(text: &str) -> UnreadableValue {
    UnreadableValue(format!("`{text}` is nothing this program wrote"))
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn duration(micros: i64) -> Duration {
    Duration::from_micros(micros.max(0).unsigned_abs())
}

/// The one of `all` that is called `label`; `None` without a label.
pub(super) fn from_label<T: Copy, const N: usize>(
    label: Option<&str>,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> Result<Option<T>, UnreadableValue> {
    let Some(label) = label else { return Ok(None) };
    all.into_iter().find(|one| name(*one) == label).map(Some).ok_or_else(|| unknown(label))
}
