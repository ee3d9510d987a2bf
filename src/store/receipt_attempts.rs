//! The attempts of a request, and the deployments it passed over, each encoded in one column; and which of them met an
//! injected fault, in a column of their own.
//!
//! They are read one request at a time and never aggregated, so a table of their own would cost a second index for
//! nothing. Names that the row already contains are left out.

use super::column::{UnreadableValue, duration, micros, reason, unknown};
use crate::domain::receipt::{AttemptRecord, PassedOverDeployment, PassedOverReason, Receipt, ServingDeployment};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

type Text<'a> = Option<&'a str>;

/// Deployment, tier, reason, duration in microseconds, start in microseconds after the request was received; unless the
/// row has all the names, model and region; and the provider's name for the request, where it gave one.
#[derive(Serialize)]
#[serde(untagged)]
enum EncodedAttempt<'a> {
    AsServed(Text<'a>, Text<'a>, &'a str, i64, Option<i64>),
    Elsewhere(Text<'a>, Text<'a>, &'a str, i64, Option<i64>, Text<'a>, Text<'a>),
    Named(Text<'a>, Text<'a>, &'a str, i64, Option<i64>, Text<'a>, Text<'a>, &'a str),
}

/// The same, as read. What has a default is missing where the row has it, and in rows that an earlier version wrote.
#[derive(Deserialize)]
struct DecodedAttempt {
    deployment: Option<Arc<str>>,
    tier: Option<Arc<str>>,
    reason: String,
    micros: i64,
    #[serde(default)]
    started: Option<i64>,
    #[serde(default)]
    model: Option<Arc<str>>,
    #[serde(default)]
    region: Option<Arc<str>>,
    #[serde(default)]
    provider_request_id: Option<Box<str>>,
}

/// `attempts` as JSON, for a row that also contains `served`.
pub(super) fn encode(attempts: &[AttemptRecord], served: Option<&ServingDeployment>) -> String {
    let rows: Vec<EncodedAttempt<'_>> = attempts.iter().map(|attempt| encoded(attempt, served)).collect();
    serde_json::to_string(&rows).expect("strings and integers are JSON")
}

fn encoded<'a>(attempt: &'a AttemptRecord, served: Option<&ServingDeployment>) -> EncodedAttempt<'a> {
    let (reason, micros_taken, started) =
        (attempt.reason.label(), micros(attempt.duration), attempt.started.map(micros));
    // All are left out, or none: a null beside a name means that there is no such.
    let as_served = served.is_some_and(|row| is_at(attempt, row));
    let (deployment, tier, model, region) = match as_served {
        true => (None, None, None, None),
        false => {
            let AttemptRecord { deployment, tier, model, region, .. } = attempt;
            (Some(&**deployment), tier.as_deref(), model.as_deref(), region.as_deref())
        }
    };
    match attempt.provider_request_id.as_deref() {
        Some(id) => EncodedAttempt::Named(deployment, tier, reason, micros_taken, started, model, region, id),
        None if as_served => EncodedAttempt::AsServed(None, None, reason, micros_taken, started),
        None => EncodedAttempt::Elsewhere(deployment, tier, reason, micros_taken, started, model, region),
    }
}

fn is_at(attempt: &AttemptRecord, row: &ServingDeployment) -> bool {
    attempt.deployment == row.deployment
        && attempt.tier == row.tier
        && attempt.model.as_ref() == Some(&row.model)
        && attempt.region.as_ref() == Some(&row.region)
}

/// The attempts that [`encode`] wrote.
pub(super) fn decode(text: &str, served: Option<&ServingDeployment>) -> Result<Vec<AttemptRecord>, UnreadableValue> {
    let rows: Vec<DecodedAttempt> = serde_json::from_str(text).map_err(|_| unknown("attempts"))?;
    rows.into_iter().map(|row| decoded(row, served)).collect()
}

fn decoded(row: DecodedAttempt, served: Option<&ServingDeployment>) -> Result<AttemptRecord, UnreadableValue> {
    let (deployment, tier, model, region) = match (row.deployment, served) {
        (Some(deployment), _) => (deployment, row.tier, row.model, row.region),
        (None, Some(ServingDeployment { model, deployment, tier, region })) => {
            (deployment.clone(), tier.clone(), Some(model.clone()), Some(region.clone()))
        }
        (None, None) => return Err(unknown("attempts")),
    };
    let (reason, started) = (reason(&row.reason)?, row.started.map(duration));
    let (duration, provider_request_id) = (duration(row.micros), row.provider_request_id);
    let injected = false;
    Ok(AttemptRecord { deployment, tier, model, region, reason, started, duration, provider_request_id, injected })
}

/// Deployment, tier, model, why, and until when in microseconds after the request was received.
type EncodedPassedOver<'a> = (&'a str, Text<'a>, &'a str, &'a str, Option<i64>);
/// The same, as read.
type DecodedPassedOver = (Arc<str>, Option<Arc<str>>, Arc<str>, String, Option<i64>);

/// `deployments` as JSON; `None` where there are none.
pub(super) fn encode_passed_over(deployments: &[PassedOverDeployment]) -> Option<String> {
    if deployments.is_empty() {
        return None;
    }
    let rows: Vec<EncodedPassedOver<'_>> = deployments.iter().map(encoded_passed_over).collect();
    Some(serde_json::to_string(&rows).expect("strings and integers are JSON"))
}

fn encoded_passed_over(passed: &PassedOverDeployment) -> EncodedPassedOver<'_> {
    let PassedOverDeployment { tier, model, deployment, why, until, .. } = passed;
    (deployment, tier.as_deref(), model, why.label(), until.map(micros))
}

/// The deployments that [`encode_passed_over`] wrote.
pub(super) fn decode_passed_over(text: Option<&str>) -> Result<Vec<PassedOverDeployment>, UnreadableValue> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let rows: Vec<DecodedPassedOver> = serde_json::from_str(text).map_err(|_| unknown("passed_over"))?;
    rows.into_iter()
        .map(|(deployment, tier, model, label, until)| {
            let why = PassedOverReason::ALL.into_iter().find(|why| why.label() == label);
            let why = why.ok_or_else(|| unknown(&label))?;
            Ok(PassedOverDeployment { tier, model, deployment, why, until: until.map(duration), injected: false })
        })
        .collect()
}

/// What begins the mark of a deployment that was passed over.
const PASSED_OVER: char = 'p';

/// Which attempts, and which of the deployments passed over, met an injected fault: their numbers from 1 on, the latter with a
/// letter before them, as in `1,2,p1`. `None` where none did, which is most often.
pub(super) fn encode_injected(receipt: &Receipt) -> Option<String> {
    if !receipt.met_injected_fault() {
        return None;
    }
    let numbers = |marks: &mut dyn Iterator<Item = bool>| {
        (1..).zip(marks).filter(|(_, is_marked)| *is_marked).map(|(number, _)| number).collect::<Vec<usize>>()
    };
    let attempts = numbers(&mut receipt.attempts.iter().map(|attempt| attempt.injected));
    let passed_over = numbers(&mut receipt.passed_over.iter().map(|passed| passed.injected));
    let marks = attempts.into_iter().map(|number| number.to_string());
    Some(
        marks
            .chain(passed_over.into_iter().map(|number| format!("{PASSED_OVER}{number}")))
            .collect::<Vec<_>>()
            .join(","),
    )
}

/// Sets on `receipt` what [`encode_injected`] wrote.
pub(super) fn decode_injected(text: Option<&str>, receipt: &mut Receipt) -> Result<(), UnreadableValue> {
    for mark in text.into_iter().flat_map(|text| text.split(',')) {
        let (number, is_attempt) = mark.strip_prefix(PASSED_OVER).map_or((mark, true), |number| (number, false));
        let at = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        let marked = match is_attempt {
            true => at.and_then(|at| receipt.attempts.get_mut(at)).map(|attempt| &mut attempt.injected),
            false => at.and_then(|at| receipt.passed_over.get_mut(at)).map(|passed| &mut passed.injected),
        };
        *marked.ok_or_else(|| unknown("injected"))? = true;
    }
    Ok(())
}
