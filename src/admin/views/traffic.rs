//! Traffic as JSON objects: the last second, the last days, and what happened in them.
//!
//! As in [`views`](super), every member is always present.
//!
//! Start reading at [`HistoryObject`].

use super::{Usd, UtcTime, decimal, one_of};
use crate::domain::receipt::Outcome;
use crate::domain::traffic::{
    DeploymentTraffic, TrafficEvent, TrafficEventKind, TrafficSecond, TrafficSeries, TrafficSpan, TrafficSums,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};

/// Traffic by steps of equal length, the oldest first. Every list has one item for each step.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "History", deny_unknown_fields)]
pub struct HistoryObject {
    #[schemars(extend("const" = "history"))]
    object: &'static str,
    #[schemars(schema_with = "spans")]
    span: &'static str,
    /// The beginning of the first step.
    from: UtcTime,
    /// The length of a step in seconds.
    step_s: i64,
    /// Requests that ended.
    requests: Vec<u32>,
    served: Vec<u32>,
    refused: Vec<u32>,
    /// Those whose attempts all failed, or whose provider refused the request itself.
    failed: Vec<u32>,
    broken: Vec<u32>,
    abandoned: Vec<u32>,
    /// Those of all these that failed through the gateway or its providers.
    faults: Vec<u32>,
    attempts: Vec<u32>,
    /// Requests that another attempt than the first one answered.
    failovers: Vec<u32>,
    /// Within a tenth; null where there was no first token.
    first_token_p50_us: Vec<Option<u64>>,
    first_token_p99_us: Vec<Option<u64>>,
    cost_usd: Vec<Usd>,
    /// What happened since, the oldest first; the latest 500 at most.
    events: Vec<TrafficEventObject>,
}

impl HistoryObject {
    /// `series`, which is of `span`.
    pub fn of(span: TrafficSpan, series: &TrafficSeries) -> Self {
        let steps = &series.steps;
        let counts = |count: fn(&TrafficSums) -> u32| steps.iter().map(count).collect();
        let latency = |percent| steps.iter().map(|sums| sums.first_token_us(percent)).collect();
        Self {
            object: "history",
            span: span.label(),
            from: UtcTime::of(series.from_unix_s * 1_000),
            step_s: span.step_s(),
            requests: counts(TrafficSums::requests),
            served: counts(|sums| sums.of(Outcome::Served)),
            refused: counts(|sums| sums.of(Outcome::Refused)),
            failed: counts(|sums| sums.of(Outcome::Failed)),
            broken: counts(|sums| sums.of(Outcome::Broken)),
            abandoned: counts(|sums| sums.of(Outcome::Abandoned)),
            faults: counts(|sums| sums.faults),
            attempts: counts(|sums| sums.attempts),
            failovers: counts(|sums| sums.failovers),
            first_token_p50_us: latency(50),
            first_token_p99_us: latency(99),
            cost_usd: steps.iter().map(|sums| Usd(decimal(sums.cost_nanousd))).collect(),
            events: series.events.iter().map(TrafficEventObject::from).collect(),
        }
    }
}

/// Something that explains what traffic did.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Event", deny_unknown_fields)]
pub struct TrafficEventObject {
    #[schemars(extend("const" = "event"))]
    object: &'static str,
    time: UtcTime,
    #[schemars(schema_with = "event_kinds")]
    kind: &'static str,
    /// Which deployment or region; empty for the gateway as a whole.
    subject: String,
    /// Why, in a few words or a label.
    detail: String,
}

impl From<&TrafficEvent> for TrafficEventObject {
    fn from(event: &TrafficEvent) -> Self {
        Self {
            object: "event",
            time: UtcTime::of(event.at_unix_ms),
            kind: event.kind.label(),
            subject: event.subject.to_string(),
            detail: event.detail.to_string(),
        }
    }
}

/// The traffic of one second, as the event stream has it.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Second", deny_unknown_fields)]
pub struct SecondObject {
    #[schemars(extend("const" = "second"))]
    object: &'static str,
    /// Its beginning.
    time: UtcTime,
    requests: u32,
    served: u32,
    refused: u32,
    failed: u32,
    broken: u32,
    abandoned: u32,
    faults: u32,
    attempts: u32,
    failovers: u32,
    first_token_p50_us: Option<u64>,
    first_token_p99_us: Option<u64>,
    input_tokens: u64,
    output_tokens: u64,
    cost_usd: Usd,
    /// Attempts in flight when this is sent.
    attempts_in_flight: u32,
    faults_active: usize,
    /// Deployments with attempts.
    deployments: Vec<DeploymentTrafficObject>,
}

/// Attempts of requests that ended in one second, at one deployment through one tier.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(inline, deny_unknown_fields)]
struct DeploymentTrafficObject {
    deployment: String,
    tier: Option<String>,
    attempts: u32,
    failed: u32,
}

impl SecondObject {
    /// `second`, while so many attempts are in flight and so many faults are injected.
    pub fn of(second: &TrafficSecond, attempts_in_flight: u32, faults_active: usize) -> Self {
        let sums = &second.sums;
        Self {
            object: "second",
            time: UtcTime::of(second.unix_s * 1_000),
            requests: sums.requests(),
            served: sums.of(Outcome::Served),
            refused: sums.of(Outcome::Refused),
            failed: sums.of(Outcome::Failed),
            broken: sums.of(Outcome::Broken),
            abandoned: sums.of(Outcome::Abandoned),
            faults: sums.faults,
            attempts: sums.attempts,
            failovers: sums.failovers,
            first_token_p50_us: sums.first_token_us(50),
            first_token_p99_us: sums.first_token_us(99),
            input_tokens: sums.input_tokens,
            output_tokens: sums.output_tokens,
            cost_usd: Usd(decimal(sums.cost_nanousd)),
            attempts_in_flight,
            faults_active,
            deployments: second.deployments.iter().map(DeploymentTrafficObject::from).collect(),
        }
    }
}

impl From<&DeploymentTraffic> for DeploymentTrafficObject {
    fn from(traffic: &DeploymentTraffic) -> Self {
        Self {
            deployment: traffic.deployment.to_string(),
            tier: traffic.tier.as_deref().map(str::to_owned),
            attempts: traffic.attempts,
            failed: traffic.failed,
        }
    }
}

fn spans(_: &mut SchemaGenerator) -> Schema {
    one_of(&TrafficSpan::ALL.map(TrafficSpan::label))
}

fn event_kinds(_: &mut SchemaGenerator) -> Schema {
    one_of(&TrafficEventKind::ALL.map(TrafficEventKind::label))
}
