//! An SLA as a JSON object: the answer of the admin API, and what `tierway sla --json` prints.
//!
//! As in [`views`](super), every member is always present. Percentages are decimal strings, rounded down.
//!
//! Start reading at [`SlaReportObject`].

use super::{Usd, UtcTime, key_or_team, micros};
use crate::domain::money::NanoUsd;
use crate::domain::sla::closing::{SlaClosing, SlaCredit};
use crate::domain::sla::report::{SlaFigures, SlaReport};
use crate::domain::sla::tally::{FirstTokenTally, SlaCause, SlaTally, SlaUptime, SlaWorstHour};
use crate::domain::sla::{SlaCreditStep, SlaTerms, percent_text};
use schemars::JsonSchema;

/// A month of a policy with an SLA, or what has passed of it.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "SlaReport", deny_unknown_fields)]
pub struct SlaReportObject {
    #[schemars(extend("const" = "sla_report"))]
    object: &'static str,
    policy: String,
    /// Such as 2026-11.
    month: String,
    begins: UtcTime,
    ends: UtcTime,
    /// Receipts up to this time are counted.
    until: UtcTime,
    /// Whether the month is over.
    is_over: bool,
    /// From this time on it is closed.
    closes: UtcTime,
    promise: SlaPromiseObject,
    figures: SlaFiguresObject,
    /// The same for each key, by name; its uptime is always that of its requests.
    keys: Vec<SlaKeyObject>,
    /// What the gateway asked by itself, where it does; none of it is in `figures` and `keys`, except that the uptime counts it.
    probes: SlaProbesObject,
    /// Intervals of five minutes in which no gateway was alive and nothing was asked; they count under 5m.
    #[schemars(range(min = 0))]
    dead_intervals: u64,
    /// Receipts that cannot be read, and count for nothing.
    #[schemars(range(min = 0))]
    unreadable: u64,
    /// The credit that would be given if the month were closed as it is; null: none.
    step: Option<SlaStepObject>,
    /// The closing, and restatements of it.
    closings: Vec<SlaClosingObject>,
}

/// What a policy promises.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "SlaPromise", deny_unknown_fields)]
struct SlaPromiseObject {
    uptime: String,
    /// `requests` or `5m`.
    measure: &'static str,
    #[schemars(range(min = 1))]
    min_requests: u64,
    zone: String,
    /// The share of streams whose first token has a time to keep.
    first_token_share: Option<String>,
    first_token_within_us: Option<u64>,
    credits: Vec<SlaStepObject>,
}

/// Below an uptime, a share of what was spent.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "SlaStep", deny_unknown_fields)]
struct SlaStepObject {
    below: String,
    credit: String,
}

/// What was counted.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "SlaFigures", deny_unknown_fields)]
struct SlaFiguresObject {
    /// All receipts, eligible or not.
    #[schemars(range(min = 0))]
    requests: u64,
    #[schemars(range(min = 0))]
    eligible: u64,
    #[schemars(range(min = 0))]
    failed: u64,
    /// Null where nothing was asked.
    uptime: Option<String>,
    /// What is left of the time that may be down in the month; below zero, the promise is not kept.
    error_budget_left_s: i64,
    /// How many thousandths of the pace that uses up the error budget in just a month; null where nothing was asked.
    burn_1h: Option<u64>,
    burn_6h: Option<u64>,
    burn_3d: Option<u64>,
    first_token_p50_us: Option<u64>,
    first_token_p95_us: Option<u64>,
    first_token_p99_us: Option<u64>,
    /// The share of first tokens within the objective; null without one, and without first tokens.
    first_token_kept: Option<String>,
    spent: Usd,
    worst_hour: Option<SlaWorstHourObject>,
}

/// The probes of a policy.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "SlaProbes", deny_unknown_fields)]
struct SlaProbesObject {
    #[schemars(range(min = 0))]
    sent: u64,
    #[schemars(range(min = 0))]
    failed: u64,
    /// Intervals of five minutes that count by their probes, because nothing else was eligible in them.
    #[schemars(range(min = 0))]
    intervals: u64,
    spent: Usd,
    worst_hour: Option<SlaWorstHourObject>,
}

/// The figures of one key.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "SlaKey", deny_unknown_fields)]
struct SlaKeyObject {
    key: String,
    figures: SlaFiguresObject,
}

/// The hour in which most requests failed.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "SlaWorstHour", deny_unknown_fields)]
struct SlaWorstHourObject {
    begins: UtcTime,
    #[schemars(range(min = 1))]
    failed: u64,
    /// The three most frequent ones.
    causes: Vec<SlaCauseObject>,
}

/// Why requests failed, with the first one as an example.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "SlaCause", deny_unknown_fields)]
struct SlaCauseObject {
    reason: &'static str,
    #[schemars(range(min = 1))]
    failed: u64,
    request_id: String,
}

/// A statement about a month: what was counted, and the credit that was granted.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "SlaClosing", deny_unknown_fields)]
pub struct SlaClosingObject {
    #[schemars(extend("const" = "sla_closing"))]
    object: &'static str,
    policy: String,
    month: String,
    /// 1 for the closing, more for a restatement.
    #[schemars(range(min = 1))]
    statement: u32,
    closed: UtcTime,
    #[schemars(range(min = 0))]
    requests: u64,
    #[schemars(range(min = 0))]
    eligible: u64,
    #[schemars(range(min = 0))]
    failed: u64,
    uptime: Option<String>,
    step: Option<SlaStepObject>,
    credits: Vec<SlaCreditObject>,
}

/// What is due to a key or a team.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "SlaCredit", deny_unknown_fields)]
struct SlaCreditObject {
    key: Option<String>,
    team: Option<String>,
    spent: Usd,
    due: Usd,
    /// What this statement granted: what was due and no earlier one had granted.
    granted: Usd,
}

impl From<&SlaReport> for SlaReportObject {
    fn from(report: &SlaReport) -> Self {
        let (tally, query) = (&report.tally, &report.tally.query);
        let terms = &*query.terms;
        let key = |(key, figures): &(std::sync::Arc<str>, SlaFigures)| {
            let own = tally.keys.get(key)?;
            Some(SlaKeyObject { key: key.to_string(), figures: SlaFiguresObject::of(terms, own, figures) })
        };
        Self {
            object: "sla_report",
            policy: query.policy.to_string(),
            month: report.month.to_string(),
            begins: UtcTime::of(query.span.start_ms),
            ends: UtcTime::of(query.span.end_ms),
            until: UtcTime::of(query.until_unix_ms),
            is_over: report.is_over(),
            closes: UtcTime::of(report.month.closes_unix_ms(&terms.zone)),
            promise: terms.into(),
            figures: SlaFiguresObject::of(terms, &tally.all, &report.all),
            keys: report.keys.iter().filter_map(key).collect(),
            probes: SlaProbesObject {
                sent: tally.probes.sent.requests,
                failed: tally.probes.sent.count.failed,
                intervals: tally.probed_intervals(),
                spent: spent(&tally.probes.sent),
                worst_hour: tally.probes.sent.worst_hour().as_ref().map(Into::into),
            },
            dead_intervals: tally.dead_intervals,
            unreadable: tally.unreadable,
            step: report.step.as_ref().map(Into::into),
            closings: report.closings.iter().map(Into::into).collect(),
        }
    }
}

impl From<&SlaTerms> for SlaPromiseObject {
    fn from(terms: &SlaTerms) -> Self {
        Self {
            uptime: percent_text(terms.uptime_bp, 2),
            measure: terms.measure.label(),
            min_requests: terms.min_requests,
            zone: terms.zone.name().to_owned(),
            first_token_share: terms.first_token.map(|objective| percent_text(objective.share_bp, 2)),
            first_token_within_us: terms.first_token.map(|objective| micros(objective.within)),
            credits: terms.credits.iter().map(Into::into).collect(),
        }
    }
}

impl From<&SlaCreditStep> for SlaStepObject {
    fn from(step: &SlaCreditStep) -> Self {
        Self { below: percent_text(step.below_bp, 2), credit: percent_text(step.credit_bp, 2) }
    }
}

/// The share of first tokens within the objective, rounded down; `None` without an objective or a first token.
pub fn first_token_kept(terms: &SlaTerms, FirstTokenTally { times, within }: &FirstTokenTally) -> Option<String> {
    terms.first_token?;
    let kept = (u128::from(*within) * 1_000_000).checked_div(u128::from(times.count))?;
    Some(percent_text(u32::try_from(kept).unwrap_or_default(), 4))
}

fn spent(tally: &SlaTally) -> Usd {
    NanoUsd(i64::try_from(tally.spend_nanousd).unwrap_or(i64::MAX)).into()
}

impl SlaFiguresObject {
    fn of(terms: &SlaTerms, tally: &SlaTally, figures: &SlaFigures) -> Self {
        let quantile = |percent| tally.first_tokens.times.quantile(percent).map(micros);
        let [burn_1h, burn_6h, burn_3d] = figures.burn_thousandths;
        Self {
            requests: tally.requests,
            eligible: tally.count.eligible,
            failed: tally.count.failed,
            uptime: figures.uptime.map(SlaUptime::millionths).map(|uptime| percent_text(uptime, 4)),
            error_budget_left_s: figures.budget_left_ms.div_euclid(1000),
            burn_1h,
            burn_6h,
            burn_3d,
            first_token_p50_us: quantile(50),
            first_token_p95_us: quantile(95),
            first_token_p99_us: quantile(99),
            first_token_kept: first_token_kept(terms, &tally.first_tokens),
            spent: spent(tally),
            worst_hour: tally.worst_hour().as_ref().map(Into::into),
        }
    }
}

impl From<&SlaWorstHour> for SlaWorstHourObject {
    fn from(hour: &SlaWorstHour) -> Self {
        let cause = |cause: &SlaCause| SlaCauseObject {
            reason: cause.reason.label(),
            failed: cause.failed,
            request_id: cause.example.to_string(),
        };
        Self {
            begins: UtcTime::of(hour.begins_unix_ms),
            failed: hour.failed,
            causes: hour.causes.iter().map(cause).collect(),
        }
    }
}

impl From<&SlaClosing> for SlaClosingObject {
    fn from(closing: &SlaClosing) -> Self {
        Self {
            object: "sla_closing",
            policy: closing.policy.to_string(),
            month: closing.month.to_string(),
            statement: closing.statement,
            closed: UtcTime::of(closing.closed_unix_ms),
            requests: closing.requests,
            eligible: closing.eligible,
            failed: closing.failed,
            uptime: closing.uptime_millionths.map(|uptime| percent_text(uptime, 4)),
            step: closing.step.as_ref().map(Into::into),
            credits: closing.credits.iter().map(Into::into).collect(),
        }
    }
}

impl From<&SlaCredit> for SlaCreditObject {
    fn from(credit: &SlaCredit) -> Self {
        let [key, team] = key_or_team(&credit.holder);
        let SlaCredit { spend, due, granted, .. } = credit;
        Self { key, team, spent: (*spend).into(), due: (*due).into(), granted: (*granted).into() }
    }
}
