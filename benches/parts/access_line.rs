//! One line of the access log: as the gateway writes it, and the same fields through serde.
//!
//! `docs/adr/0009-access-line-by-hand.md` quotes the figures. The line through serde is spared the
//! formatting of its time and the copy into the log's buffer, so the difference is rather larger.

use criterion::Criterion;
use serde::{Serialize, Serializer};
use std::fmt::Display;
use std::hint::black_box;
use std::io;
use std::time::Duration;
use tierway::domain::call::Endpoint;
use tierway::domain::id::RequestId;
use tierway::domain::money::NanoUsd;
use tierway::domain::reason::Reason;
use tierway::domain::receipt::{AttemptRecord, Outcome, PlannedModel, Receipt, ServingDeployment};
use tierway::domain::usage::Usage;
use tierway::telemetry::access::AccessLog;

pub fn access_line(c: &mut Criterion) {
    let mut group = c.benchmark_group("access line");
    let receipt = receipt();
    let log = AccessLog::to_writer(Box::new(io::sink()));
    group.bench_function("by hand", |b| b.iter(|| log.write(black_box(&receipt))));
    group.bench_function("through serde", |b| b.iter(|| through_serde(black_box(&receipt))));
}

fn receipt() -> Receipt {
    let served = ServingDeployment {
        model: "deepseek-ai/DeepSeek-V4-Flash".into(),
        deployment: "eu-1".into(),
        tier: Some("default".into()),
        region: "eu".into(),
    };
    let attempt = AttemptRecord {
        deployment: "eu-1".into(),
        tier: Some("default".into()),
        model: Some("deepseek-ai/DeepSeek-V4-Flash".into()),
        region: Some("eu".into()),
        reason: Reason::Served,
        started: Some(Duration::ZERO),
        duration: Duration::from_millis(480),
        provider_request_id: None,
        injected: false,
    };
    Receipt {
        id: RequestId(0x0199_0000_0000_7000_8000_0000_0000_0001),
        received_unix_ms: 1_795_359_423_007,
        endpoint: Some(Endpoint::Chat),
        key: Some("alice".into()),
        team: Some("search".into()),
        policy: Some("standard".into()),
        asked_model: Some("auto".into()),
        stream: true,
        meant: Some(PlannedModel { model: served.model.clone(), tier: served.tier.clone() }),
        served: Some(served),
        attempts: vec![attempt],
        passed_over: Vec::new(),
        outcome: Outcome::Served,
        reason: Reason::Served,
        limit: None,
        status: 200,
        usage: Some(Usage { input: 1_000, cached_input: 200, output: 50, reasoning: 10, ..Usage::default() }),
        estimated: false,
        price: None,
        price_version: None,
        cost: NanoUsd(21_300),
        charges: Vec::new(),
        first_token: Some(Duration::from_millis(480)),
        failover: None,
        duration: Duration::from_micros(2_345_678),
        overhead: Duration::from_micros(87),
    }
}

fn through_serde(receipt: &Receipt) -> Vec<u8> {
    let served = receipt.served.as_ref();
    let line = AccessLine {
        time: "2026-11-22T14:57:03.007Z",
        target: "access",
        request_id: receipt.id,
        key: receipt.key.as_deref(),
        team: receipt.team.as_deref(),
        policy: receipt.policy.as_deref(),
        endpoint: receipt.endpoint.map(Endpoint::name),
        asked_model: receipt.asked_model.as_deref(),
        model: served.map(|served| &*served.model),
        deployment: served.map(|served| &*served.deployment),
        tier: served.and_then(|served| served.tier.as_deref()),
        region: served.map(|served| &*served.region),
        stream: receipt.stream,
        attempts: receipt.attempts.len(),
        outcome: receipt.outcome.label(),
        reason: receipt.reason.label(),
        status: receipt.status,
        input_tokens: receipt.usage.map(|usage| usage.input),
        cached_input_tokens: receipt.usage.map(|usage| usage.cached_input),
        output_tokens: receipt.usage.map(|usage| usage.output),
        reasoning_tokens: receipt.usage.map(|usage| usage.reasoning),
        estimated: receipt.usage.map(|_| receipt.estimated),
        cost_usd: receipt.cost,
        first_token_ms: receipt.first_token.map(ms),
        duration_ms: ms(receipt.duration),
        overhead_us: receipt.overhead.as_micros() as u64,
    };
    let mut out = Vec::with_capacity(1024);
    serde_json::to_writer(&mut out, &line).expect("writing to a Vec cannot fail");
    out.push(b'\n');
    out
}

fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

fn display<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[derive(Serialize)]
struct AccessLine<'a> {
    time: &'a str,
    target: &'a str,
    #[serde(serialize_with = "display")]
    request_id: RequestId,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    team: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked_model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<&'a str>,
    stream: bool,
    attempts: usize,
    outcome: &'a str,
    reason: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated: Option<bool>,
    #[serde(serialize_with = "display")]
    cost_usd: NanoUsd,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_token_ms: Option<f64>,
    duration_ms: f64,
    overhead_us: u64,
}
