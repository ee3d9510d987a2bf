//! The result of a drill as lines and as JSON.

use super::run::ScenarioRecord;
use super::simulated::SIMULATED;
use super::{DrillResult, DrillTarget};
use crate::cli::table::table;
use crate::domain::drill::judge::{DrillCheck, MeasuredValue, first_tokens};
use crate::domain::drill::{DrillOutcome, DrillPhase, percentile};
use serde_json::{Map, Value, json};
use std::fmt::Alignment;
use std::sync::Arc;
use std::time::Duration;

/// What a drill cannot show.
const SIMULATED_CAVEAT: &str = "Providers are simulated: this shows how the gateway, on this configuration, treats such an \
                                outage, and nothing of how your providers behave.";
const RUNNING_CAVEAT: &str = "Faults are injected where this gateway sends its attempts: this shows how it treats such an \
                              outage, and its providers as they were meanwhile, not how they fail.";

/// What this drill cannot show.
pub(super) fn caveat(result: &DrillResult) -> &'static str {
    match &result.target {
        DrillTarget::Simulated(..) => SIMULATED_CAVEAT,
        DrillTarget::Running(..) => RUNNING_CAVEAT,
    }
}

/// What was rehearsed at.
pub(super) fn source(result: &DrillResult) -> &str {
    match &result.target {
        DrillTarget::Simulated(config) => &config.source,
        DrillTarget::Running(url, _) => url,
    }
}

/// What is said before anything runs.
pub(super) fn head(result: &DrillResult) -> String {
    let what = match &result.target {
        DrillTarget::Simulated(config) => format!(
            "{} providers simulated in {} regions, {}",
            config.snapshot.providers.len(),
            config.snapshot.table.regions.len(),
            latencies(&config.from_ledger),
        ),
        DrillTarget::Running(..) => "faults are injected there, each for some seconds".to_owned(),
    };
    format!("{}: {what}\n{}\n", source(result), caveat(result))
}

/// How soon simulated providers answer.
fn latencies(from_ledger: &[(Arc<str>, Duration)]) -> String {
    let stated = format!("first token after {} ms unless the file says otherwise", SIMULATED.first_token.as_millis());
    if from_ledger.is_empty() {
        return stated;
    }
    let known = from_ledger.iter().map(|(provider, time)| format!("{provider} {} ms", time.as_millis()));
    format!("first token as the ledger has it: {}; {stated}", known.collect::<Vec<_>>().join(", "))
}

/// One scenario, a line for each check.
pub(super) fn scenario(result: &ScenarioRecord) -> String {
    let broken = result.times.broken_until - result.times.broken_from;
    let rows: Vec<Vec<String>> = result
        .checks
        .iter()
        .map(|check| {
            vec![verdict_of(check).to_owned(), check.name.to_string(), check.measured.to_string(), objective(check)]
        })
        .collect();
    let head =
        [("", Alignment::Left), ("", Alignment::Left), ("measured", Alignment::Right), ("objective", Alignment::Right)];
    let lines = table(&head, &rows);
    let mut text = format!(
        "\n{}: {}, for {} s, at {} requests/s under each of: {}\n",
        result.scenario.name(),
        result.about(),
        broken.as_secs(),
        result.rate,
        result.policies.join(", "),
    );
    let details = std::iter::once("").chain(result.checks.iter().map(|check| check.detail.as_str()));
    for (line, detail) in lines.lines().zip(details) {
        text.push_str(&format!("  {line}{}{detail}\n", if detail.is_empty() { "" } else { "  " }));
    }
    text
}

/// The last line.
pub(super) fn verdict(result: &DrillResult) -> String {
    let failed: Vec<&str> =
        result.scenarios.iter().filter(|one| !one.passed()).map(|one| one.scenario.name()).collect();
    let of = result.scenarios.len();
    match failed.is_empty() {
        true => format!("\nPASS: {of} of {of} scenarios\n"),
        false => format!("\nFAIL: {} of {of} scenarios: {}\n", failed.len(), failed.join(", ")),
    }
}

pub(super) fn verdict_of(check: &DrillCheck) -> &'static str {
    match (check.objective, check.passed) {
        (None, _) => "-",
        (_, true) => "PASS",
        (_, false) => "FAIL",
    }
}

/// The objective, as it is read: at most this.
pub(super) fn objective(check: &DrillCheck) -> String {
    match check.objective {
        None => "-".to_owned(),
        Some(MeasuredValue::Count(most, _)) => most.to_string(),
        Some(other) => format!("≤ {other}"),
    }
}

/// Everything as JSON.
pub(super) fn json(result: &DrillResult) -> Value {
    json!({
        "object": "drill",
        "configuration": matches!(result.target, DrillTarget::Simulated(..)).then(|| source(result)),
        "gateway": matches!(result.target, DrillTarget::Running(..)).then(|| source(result)),
        "first_token_ms_from_ledger": from_ledger(result),
        "seed": result.seed,
        "caveat": caveat(result),
        "passed": result.passed(),
        "scenarios": result.scenarios.iter().map(scenario_json).collect::<Vec<_>>(),
    })
}

fn from_ledger(result: &DrillResult) -> Map<String, Value> {
    let DrillTarget::Simulated(config) = &result.target else { return Map::new() };
    let known = config.from_ledger.iter();
    known.map(|(provider, time)| (provider.to_string(), json!(time.as_millis() as u64))).collect()
}

fn scenario_json(result: &ScenarioRecord) -> Value {
    let count = |outcome: &DrillOutcome| result.requests.iter().filter(|one| one.outcome == *outcome).count();
    let phase = |phase: DrillPhase| {
        let times = first_tokens(&result.requests, result.times, phase);
        let ms = |percent| percentile(&times, percent).map(|at| at.as_millis() as u64);
        let of_phase = result.requests.iter().filter(|one| result.times.phase(one.sent) == phase).count();
        let figures = json!({ "requests": of_phase, "first_token_p50_ms": ms(50), "first_token_p99_ms": ms(99) });
        (phase.label().to_owned(), figures)
    };
    json!({
        "scenario": result.scenario.name(),
        "region": result.region,
        "policies": result.policies,
        "passed": result.passed(),
        "requests": result.requests.len(),
        "answered": count(&DrillOutcome::Answered),
        "phases": DrillPhase::ALL.map(phase).into_iter().collect::<Map<_, _>>(),
        "checks": result.checks.iter().map(check_json).collect::<Vec<_>>(),
    })
}

fn check_json(check: &DrillCheck) -> Value {
    json!({
        "check": check.name,
        "measured": number(check.measured),
        "objective": check.objective.map(number),
        "unit": match check.objective.unwrap_or(check.measured) {
            MeasuredValue::Count(..) => "count",
            MeasuredValue::Time(_) => "ms",
            MeasuredValue::Ratio(_) => "ratio",
            MeasuredValue::Nothing => "none",
        },
        "verdict": if check.objective.is_none() { "shown" } else if check.passed { "pass" } else { "fail" },
        "detail": check.detail,
    })
}

fn number(value: MeasuredValue) -> Value {
    match value {
        MeasuredValue::Count(count, _) => json!(count),
        MeasuredValue::Time(time) => json!(time.as_millis() as u64),
        MeasuredValue::Ratio(ratio) => json!((ratio * 100.0).round() / 100.0),
        MeasuredValue::Nothing => Value::Null,
    }
}
