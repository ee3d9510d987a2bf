//! The attempts of a request, encoded in one column.
//!
//! They are read one request at a time and never aggregated, so a table of their own would cost a second index for
//! nothing. Names that the row already contains are left out.

use super::column::{duration, micros, reason, unknown};
use crate::domain::receipt::{AttemptRecord, ServingDeployment};
use std::sync::Arc;

/// Deployment, tier, reason, duration in microseconds.
type EncodedAttempt<'a> = (Option<&'a str>, Option<&'a str>, &'a str, i64);
/// The same, as read.
type DecodedAttempt = (Option<Arc<str>>, Option<Arc<str>>, String, i64);

/// `attempts` as JSON, for a row that also contains `served`.
pub(super) fn encode(attempts: &[AttemptRecord], served: Option<&ServingDeployment>) -> String {
    let rows: Vec<EncodedAttempt<'_>> = attempts
        .iter()
        .map(|attempt| {
            // Both are left out, or none: a null beside a name means that there is no tier.
            let same = served.is_some_and(|row| row.deployment == attempt.deployment && row.tier == attempt.tier);
            let names = if same { (None, None) } else { (Some(&*attempt.deployment), attempt.tier.as_deref()) };
            (names.0, names.1, attempt.reason.label(), micros(attempt.duration))
        })
        .collect();
    serde_json::to_string(&rows).expect("strings and integers are JSON")
}

/// The attempts that [`encode`] wrote.
pub(super) fn decode(text: &str, served: Option<&ServingDeployment>) -> rusqlite::Result<Vec<AttemptRecord>> {
    let rows: Vec<DecodedAttempt> = serde_json::from_str(text).map_err(|_| unknown("attempts"))?;
    rows.into_iter()
        .map(|(deployment, tier, label, micros)| {
            let (deployment, tier) = match (deployment, served) {
                (Some(deployment), _) => (deployment, tier),
                (None, Some(served)) => (served.deployment.clone(), served.tier.clone()),
                (None, None) => return Err(unknown("attempts")),
            };
            Ok(AttemptRecord { deployment, tier, reason: reason(&label)?, duration: duration(micros) })
        })
        .collect()
}
