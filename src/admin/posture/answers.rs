//! The six answers, one function each, in the order of the questions.
//!
//! A fact names its source; what no source says is missing, and the answer says how to measure it. No figure is made here: they
//! are counted in [`domain::posture`](crate::domain::posture), by SLAs and by drills.
//!
//! Start reading at [`all`].

use super::{PostureAnswer, PostureEvidence, PostureFact};
use crate::domain::budget::{BudgetPeriod, BudgetSpec, CreditUse};
use crate::domain::drill::report::{DrillReport, ReportedCheck};
use crate::domain::duration_tally::DurationTally;
use crate::domain::money::NanoUsd;
use crate::domain::policy::Policy;
use crate::domain::posture::AnswerTally;
use crate::domain::sla::report::SlaReport;
use crate::domain::sla::tally::SlaUptime;
use crate::domain::sla::{SlaTerms, percent_text};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The drill that answers the third question; every other one answers the fourth.
const BURST: &str = "burst-10x";
/// What of another drill's report is said: the rest of it is in the drill's own output.
const FAILOVER_CHECKS: [&str; 3] =
    ["time to route around, p99", "failed requests", "recovery: the region serves again after"];
/// The source of what was paid.
const STATEMENTS: &str = "statements about closed months";
/// How to have something in the ledger.
const SERVE: &str =
    "serve requests through the gateway, from an application or with `tierway ask`; each one is measured";

/// Every answer.
pub(super) fn all(evidence: &PostureEvidence<'_>) -> Vec<PostureAnswer> {
    vec![latency(evidence), regions(evidence), burst(evidence), failover(evidence), limits(evidence), sla(evidence)]
}

impl PostureEvidence<'_> {
    fn of_ledger(&self, topic: impl Into<String>, value: String) -> PostureFact {
        let source = format!("ledger, {} requests", self.tally.requests);
        let (since_unix_ms, at_unix_ms) = (Some(self.query.since_unix_ms), self.query.until_unix_ms);
        PostureFact { topic: topic.into(), value, source, since_unix_ms, at_unix_ms }
    }

    fn of_configuration(&self, topic: impl Into<String>, value: String) -> PostureFact {
        let source = format!("configuration {}", self.snapshot.effective.source());
        PostureFact { topic: topic.into(), value, source, since_unix_ms: None, at_unix_ms: self.query.until_unix_ms }
    }

    fn is_unused(&self) -> bool {
        self.tally.requests == 0
    }
}

fn of_drill(report: &DrillReport, topic: String, value: String) -> PostureFact {
    let source = format!("drill {} on {}", report.scenario, report.configuration);
    PostureFact { topic, value, source, since_unix_ms: None, at_unix_ms: report.finished_unix_ms }
}

fn latency(evidence: &PostureEvidence<'_>) -> PostureAnswer {
    let fact = |((tier, region), answers): (&(Option<Arc<str>>, Arc<str>), &AnswerTally)| {
        let tier = tier.as_ref().map_or_else(|| "no tier".to_owned(), |tier| format!("tier {tier}"));
        evidence.of_ledger(format!("{tier} in {region}"), times(answers))
    };
    let facts: Vec<_> = evidence.tally.answers.iter().map(fact).collect();
    PostureAnswer {
        question: "How fast is it? First token and p99, by tier and region, over the last 30 days",
        measured: !facts.is_empty(),
        how: facts.is_empty().then(|| SERVE.to_owned()),
        facts,
    }
}

fn times(answers: &AnswerTally) -> String {
    let of = |name: &str, tally: &DurationTally, unit: &str| {
        let (p50, p99) = (tally.quantile(50)?, tally.quantile(99)?);
        Some(format!("{name} p50 {}, p99 {} ({} {unit})", milliseconds(p50), milliseconds(p99), tally.count))
    };
    let streams = of("first token", &answers.first_tokens, "streams");
    let whole = of("whole answer", &answers.whole, "whole answers");
    let said: Vec<String> = streams.into_iter().chain(whole).collect();
    if said.is_empty() { format!("{} answers, none complete", answers.count) } else { said.join("; ") }
}

fn regions(evidence: &PostureEvidence<'_>) -> PostureAnswer {
    let answered = evidence.tally.answered();
    let share = |(region, count): (Arc<str>, u64)| {
        let share_bp = u32::try_from(u128::from(count) * 10_000 / u128::from(answered.max(1))).unwrap_or(10_000);
        evidence.of_ledger(format!("region {region}"), format!("{} of answers ({count})", percent_text(share_bp, 2)))
    };
    let mut facts: Vec<_> = evidence.tally.by_region().into_iter().map(share).collect();
    facts.extend(evidence.policies.iter().map(|policy| {
        let bound = policy.residency.as_ref().map(|residency| {
            let globs: Vec<&str> = residency.globs().iter().map(|glob| glob.as_str()).collect();
            format!("stays within {}: no attempt is made elsewhere", globs.join(", "))
        });
        let anywhere = || {
            let regions: Vec<&str> = evidence.snapshot.table.regions.iter().map(|region| &**region).collect();
            format!("is bound to no region: {}", regions.join(", "))
        };
        evidence.of_configuration(format!("policy {}", policy.name), bound.unwrap_or_else(anywhere))
    }));
    let how = format!("{SERVE}. `tierway residency report --since 30d` compares every attempt with the residency");
    PostureAnswer {
        question: "Where does inference run, by share of traffic, and which residency binds it?",
        measured: answered > 0,
        how: (answered == 0).then_some(how),
        facts,
    }
}

fn burst(evidence: &PostureEvidence<'_>) -> PostureAnswer {
    let drill = evidence.drills.iter().find(|report| *report.scenario == *BURST);
    let mut facts: Vec<_> = drill.into_iter().flat_map(drill_facts).collect();
    let wait = evidence.snapshot.table.settings.queue_wait;
    let queue = match wait.is_zero() {
        true => "where all is full, a request is refused at once with 429 and when to come again".to_owned(),
        false => format!(
            "where all is full, a request waits up to {} for a place, and is refused at once with 429 where that will not do",
            milliseconds(wait)
        ),
    };
    facts.push(evidence.of_configuration("queue", queue));
    facts.push(evidence.of_configuration("shed order", shed_order(evidence)));
    if !evidence.is_unused() {
        let (limited, shed) = (evidence.tally.limited, evidence.tally.shed);
        let value = format!("{limited} refused by a limit of their key, {shed} because everything was full");
        facts.push(evidence.of_ledger("in production", value));
    }
    let how = format!("run `tierway drill {BURST}` with this configuration; its report is kept in the store");
    PostureAnswer {
        question: "What happens at ten times the load?",
        measured: drill.is_some(),
        how: drill.is_none().then_some(how),
        facts,
    }
}

/// The policies in the order in which their requests are refused when everything is full.
fn shed_order(evidence: &PostureEvidence<'_>) -> String {
    let mut by_priority = BTreeMap::<u32, Vec<&str>>::new();
    for policy in &evidence.snapshot.policies {
        by_priority.entry(policy.priority).or_default().push(&policy.name);
    }
    let named: Vec<String> =
        by_priority.iter().map(|(priority, names)| format!("{} (priority {priority})", names.join(", "))).collect();
    match named.len() {
        0 => "no policy is configured".to_owned(),
        1 => format!("all alike, the newest request first: {}", named[0]),
        _ => format!("the lowest priority first: {}", named.join(", then ")),
    }
}

/// A line for the whole drill, then one for each figure that was judged.
fn drill_facts(report: &DrillReport) -> Vec<PostureFact> {
    let value = format!("{}, under {}", verdict(report.passed), report.policies.join(", "));
    let whole = of_drill(report, format!("drill {}", report.scenario), value);
    let judged = report.checks.iter().filter(|check| check.objective.is_some());
    std::iter::once(whole).chain(judged.map(|check| of_drill(report, check.name.to_string(), shown(check)))).collect()
}

fn verdict(passed: bool) -> &'static str {
    if passed { "PASS" } else { "FAIL" }
}

/// A figure as it was judged.
fn shown(check: &ReportedCheck) -> String {
    let ReportedCheck { measured, objective, detail, passed, .. } = check;
    let objective = objective.as_ref().map_or(String::new(), |most| format!(", at most {most}: {}", verdict(*passed)));
    let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
    format!("{measured}{objective}{detail}")
}

fn failover(evidence: &PostureEvidence<'_>) -> PostureAnswer {
    let drills: Vec<_> = evidence.drills.iter().filter(|report| *report.scenario != *BURST).collect();
    let drill = |report: &&DrillReport| {
        let of_note = |check: &&ReportedCheck| FAILOVER_CHECKS.contains(&&*check.name);
        let checks = report.checks.iter().filter(of_note).map(|check| format!("{}: {}", check.name, shown(check)));
        let said: Vec<String> = std::iter::once(verdict(report.passed).to_owned()).chain(checks).collect();
        of_drill(report, format!("drill {}, {}", report.scenario, report.region), said.join("; "))
    };
    let mut facts: Vec<_> = drills.iter().map(drill).collect();
    let failovers = &evidence.tally.failovers;
    let quantiles = [50, 99, 100].map(|percent| failovers.quantile(percent).map(milliseconds));
    if let [Some(p50), Some(p99), Some(most)] = quantiles {
        let value = format!("p50 {p50}, p99 {p99}, longest {most} ({} requests)", failovers.count);
        facts.push(evidence.of_ledger("in production, from the first attempt to the answer of another", value));
    } else if !evidence.is_unused() {
        facts.push(evidence.of_ledger("in production", "no request needed another attempt to be answered".to_owned()));
    }
    let objective = evidence.snapshot.telemetry.failover_objective;
    facts.push(evidence.of_configuration("objective", format!("within {}", milliseconds(objective))));
    let how = "run `tierway drill` with this configuration, or `tierway drill region-down` for one outage; what it found is kept in \
               the store";
    PostureAnswer {
        question: "How long until a region that fails is routed around?",
        measured: !drills.is_empty() || failovers.count > 0,
        how: drills.is_empty().then(|| how.to_owned()),
        facts,
    }
}

fn limits(evidence: &PostureEvidence<'_>) -> PostureAnswer {
    let configured =
        |policy: &&Arc<Policy>| evidence.of_configuration(format!("policy {}", policy.name), limit_shape(policy));
    let mut facts: Vec<_> = evidence.policies.iter().map(configured).collect();
    if !evidence.is_unused() {
        let value = format!("{} of {} requests were refused by them", evidence.tally.limited, evidence.tally.requests);
        facts.push(evidence.of_ledger("in production", value));
    }
    let how = format!(
        "{SERVE}. The headers `x-ratelimit-*` of each answer say what is left, `tierway usage --by reason` what was refused"
    );
    PostureAnswer {
        question: "What shape do the limits have?",
        measured: !evidence.is_unused(),
        how: evidence.is_unused().then_some(how),
        facts,
    }
}

/// The limits of each key under `policy`, in a sentence.
fn limit_shape(policy: &Policy) -> String {
    let limits = &policy.limits;
    let rate = |limit: Option<u64>, unit: &str| limit.map(|limit| format!("{limit} {unit} in any 60 s, sliding"));
    let rates =
        rate(limits.requests_per_minute, "requests").into_iter().chain(rate(limits.tokens_per_minute, "tokens"));
    let mut said: Vec<String> = rates.collect();
    said.extend(limits.max_concurrent.map(|most| format!("{most} requests at once")));
    let budget = |BudgetSpec { limit, window }: &BudgetSpec| match window {
        BudgetPeriod::Ever | BudgetPeriod::Credit => format!("{limit} USD in all"),
        BudgetPeriod::Day(_) | BudgetPeriod::Month(_) => format!("{limit} USD per {window}"),
    };
    said.extend(policy.money.each.as_ref().map(budget));
    if policy.money.credit == CreditUse::Only {
        said.push("what its credit covers".to_owned());
    }
    let each = if said.is_empty() { "no limit of a key".to_owned() } else { format!("each key: {}", said.join("; ")) };
    let total = policy.money.total.as_ref().map(|total| format!("; all keys together: {}", budget(total)));
    format!("{each}{}", total.unwrap_or_default())
}

fn sla(evidence: &PostureEvidence<'_>) -> PostureAnswer {
    let mut facts = Vec::new();
    for report in &evidence.slas {
        let policy = &report.tally.query.policy;
        facts.push(evidence.of_configuration(format!("policy {policy}"), promise(&report.tally.query.terms)));
        facts.push(PostureFact {
            topic: format!("policy {policy}, {} to date", report.month),
            value: kept(report),
            source: format!("ledger, {} requests", report.tally.all.requests),
            since_unix_ms: Some(report.tally.query.span.start_ms),
            at_unix_ms: report.tally.query.until_unix_ms,
        });
    }
    if let (Some(first), Some(last)) = (evidence.closings.first(), evidence.closings.last()) {
        let granted = evidence.closings.iter().map(|closing| i128::from(closing.granted().0)).sum::<i128>();
        let granted = NanoUsd(i64::try_from(granted).unwrap_or(i64::MAX));
        facts.push(PostureFact {
            topic: "credits paid".to_owned(),
            value: format!(
                "{granted} USD by {} statements, {} to {}",
                evidence.closings.len(),
                first.month,
                last.month
            ),
            source: STATEMENTS.to_owned(),
            since_unix_ms: None,
            at_unix_ms: evidence.closings.iter().map(|closing| closing.closed_unix_ms).max().unwrap_or_default(),
        });
    } else if !evidence.slas.is_empty() {
        facts.push(PostureFact {
            topic: "credits paid".to_owned(),
            value: "none: no month is closed yet".to_owned(),
            source: STATEMENTS.to_owned(),
            since_unix_ms: None,
            at_unix_ms: evidence.query.until_unix_ms,
        });
    }
    let measured = evidence.slas.iter().any(|report| report.tally.all.count.eligible > 0);
    let how = match evidence.slas.is_empty() {
        true => "nothing is promised: give the policy an `sla` such as { uptime = \"99.9%\" }, then serve requests"
            .to_owned(),
        false => SERVE.to_owned(),
    };
    PostureAnswer {
        question: "What is promised, is it kept this month, and what is paid when it is not?",
        measured,
        how: (!measured).then_some(how),
        facts,
    }
}

/// What is promised, and the rule of its credits.
fn promise(terms: &SlaTerms) -> String {
    let uptime = percent_text(terms.uptime_bp, 2);
    let first = terms.first_token.map_or(String::new(), |first| {
        format!(", {} of first tokens within {}", percent_text(first.share_bp, 2), milliseconds(first.within))
    });
    let steps: Vec<String> = terms
        .credits
        .iter()
        .map(|step| format!("{} below {}", percent_text(step.credit_bp, 2), percent_text(step.below_bp, 2)))
        .collect();
    let rule = match steps.is_empty() {
        true => "no credit".to_owned(),
        false => {
            format!("credit by itself, 48 hours after the month, as a share of what was spent: {}", steps.join(", "))
        }
    };
    format!("{uptime} uptime by {}{first}; {rule}", terms.measure.label())
}

fn kept(report: &SlaReport) -> String {
    let Some(uptime) = report.all.uptime.map(SlaUptime::millionths) else { return "nothing was asked".to_owned() };
    let count = report.tally.all.count;
    let left = report.all.budget_left_ms.div_euclid(6_000);
    let sign = if left < 0 { "-" } else { "" };
    let (minutes, tenths) = (left.unsigned_abs() / 10, left.unsigned_abs() % 10);
    format!(
        "{} uptime, {} of {} failed, {sign}{minutes}.{tenths} minutes of error budget left",
        percent_text(uptime, 4),
        count.failed,
        count.eligible
    )
}

/// `87 ms`, and `0.9 ms` where that would be none.
fn milliseconds(time: Duration) -> String {
    let micros = time.as_micros();
    if micros < 10_000 {
        return format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100);
    }
    format!("{} ms", micros / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::budget::Zone;
    use crate::domain::limit::Limits;
    use crate::domain::policy::PolicyMoney;

    #[test]
    fn the_shape_of_limits_is_one_sentence() {
        let policy = |limits, money| Policy { limits, money, ..Policy::deny_all("pro".into()) };
        let check = |limits, money, expected: &str| assert_eq!(limit_shape(&policy(limits, money)), expected);
        check(Limits::default(), PolicyMoney::default(), "no limit of a key");
        let limits =
            Limits { requests_per_minute: Some(50), tokens_per_minute: Some(200_000), max_concurrent: Some(16) };
        let month = BudgetPeriod::Month(Zone::named("UTC").expect("UTC is built in"));
        let budget = |usd: i64| Some(BudgetSpec { limit: NanoUsd(usd * 1_000_000_000), window: month.clone() });
        check(
            limits,
            PolicyMoney { each: budget(500), total: budget(9_000), ..PolicyMoney::default() },
            "each key: 50 requests in any 60 s, sliding; 200000 tokens in any 60 s, sliding; 16 requests at once; \
             500 USD per month UTC; all keys together: 9000 USD per month UTC",
        );
    }

    #[test]
    fn times_are_shown_so_that_none_is_nothing() {
        let check = |micros, expected: &str| assert_eq!(milliseconds(Duration::from_micros(micros)), expected);
        check(0, "0.0 ms");
        check(940, "0.9 ms");
        check(9_999, "9.9 ms");
        check(10_000, "10 ms");
        check(1_234_567, "1234 ms");
    }
}
