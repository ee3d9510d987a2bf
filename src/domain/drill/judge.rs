//! The judgement of a scenario in which something breaks: what its clients saw, each figure beside its objective.
//!
//! Start reading in [`judge`].

use super::scenario::Scenario;
use super::{DrillOutcome, DrillPhase, DrillRequest, DrillWindow, percentile};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The most reasons that are listed for one failed check.
const MOST_REASONS: usize = 4;
/// How much more than its time a probe may come late: a request must be there for it.
const PROBE_SLACK: Duration = Duration::from_secs(1);

/// How much later than due requests may be sent before the times of a scenario are taken for the machine's as well: it is
/// client, gateway and provider at once.
pub(super) const SHARED_MACHINE: Duration = Duration::from_millis(50);

/// Everything that is judged of one scenario.
pub struct DrillEvidence<'a> {
    /// What was rehearsed.
    pub scenario: Scenario,
    /// When it was broken, from the beginning of the scenario.
    pub times: DrillWindow,
    /// In any order.
    pub requests: &'a [DrillRequest],
    /// The region that broke; empty where none did.
    pub target: &'a str,
    /// The policies whose requests may go to no other region.
    pub confined: &'a [Arc<str>],
    /// Whose requests were sent.
    pub loads: &'a [PolicyLoad],
    /// The longest that a request waits for a place at a full deployment, as configured.
    pub queue_wait: Duration,
    /// How long a failover may take, as configured.
    pub failover_objective: Duration,
    /// After how long without a sign of life a deployment is silent, as configured.
    pub silent_after: Duration,
    /// How long a breaker stays open at first and at most, as configured.
    pub open: (Duration, Duration),
    /// Whether streams are held until they are complete, so that none of them may break.
    pub holds_streams: bool,
    /// Budgets that were overspent, by name; `None` where they are not known.
    pub overspent: Option<&'a [String]>,
    /// What reached a host with a certificate that nobody trusts, where there was one.
    pub untrusted: Option<UntrustedHostRecord>,
}

/// Requests of one policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyLoad {
    /// As requests name it: the policy's name, marked where these are for reserved capacity.
    pub policy: Arc<str>,
    /// The policy's priority.
    pub priority: u32,
    /// Whether they ask for reserved capacity, which others may not disturb.
    pub reserved: bool,
}

/// What reached a host with a certificate that nobody trusts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UntrustedHostRecord {
    /// Connections, which end in the handshake.
    pub connections: usize,
    /// Requests that were begun all the same, with what they present.
    pub requests: usize,
}

/// A figure.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum MeasuredValue {
    /// So many of so many.
    Count(usize, usize),
    /// A time.
    Time(Duration),
    /// A ratio.
    Ratio(f64),
    /// There was nothing to measure.
    Nothing,
}

impl fmt::Display for MeasuredValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count, of) => write!(f, "{count} of {of}"),
            Self::Time(time) => write!(f, "{} ms", time.as_millis()),
            Self::Ratio(ratio) => write!(f, "{ratio:.2}"),
            Self::Nothing => f.write_str("none"),
        }
    }
}

/// One line of a judgement.
#[derive(Clone, PartialEq, Debug)]
pub struct DrillCheck {
    /// What is measured.
    pub name: Cow<'static, str>,
    /// As it was.
    pub measured: MeasuredValue,
    /// The most that it may be; `None`: it is shown and not judged.
    pub objective: Option<MeasuredValue>,
    /// What else is known: other percentiles, or why it failed.
    pub detail: String,
    /// Whether the objective was met.
    pub passed: bool,
}

/// First-token times of one phase, sorted.
pub fn first_tokens<'a>(
    requests: impl IntoIterator<Item = &'a DrillRequest>,
    times: DrillWindow,
    phase: DrillPhase,
) -> Vec<Duration> {
    let of_phase = requests.into_iter().filter(|request| request.stream && times.phase(request.sent) == phase);
    let mut found: Vec<Duration> = of_phase.filter_map(|request| request.first_bytes).collect();
    found.sort_unstable();
    found
}

/// The judgement of a scenario in which a region breaks.
pub fn judge(evidence: &DrillEvidence<'_>) -> Vec<DrillCheck> {
    let mut checks = vec![failed(evidence), unsaid(evidence)];
    checks.extend(broken(evidence));
    checks.extend([route_around(evidence), first_token(evidence, None)]);
    let reserved = evidence.loads.iter().filter(|load| load.reserved);
    checks.extend(reserved.map(|load| first_token(evidence, Some(&load.policy))));
    checks.push(attempts(evidence));
    checks.extend(recovery(evidence));
    checks.extend(overspent(evidence));
    checks.extend(evidence.untrusted.map(untrusted));
    checks
}

/// Whether certificates are checked at all: a gateway that does not would pass every other line.
fn untrusted(reach: UntrustedHostRecord) -> DrillCheck {
    let UntrustedHostRecord { connections, requests } = reach;
    none_of("requests sent to a host that nobody trusts", requests, connections, format!("{connections} handshakes"))
}

/// So many of so many, where there should be none.
pub(super) fn none_of(name: impl Into<Cow<'static, str>>, count: usize, of: usize, detail: String) -> DrillCheck {
    DrillCheck {
        name: name.into(),
        measured: MeasuredValue::Count(count, of),
        objective: Some(MeasuredValue::Count(0, of)),
        detail,
        passed: count == 0 && of > 0,
    }
}

fn failed(evidence: &DrillEvidence<'_>) -> DrillCheck {
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for request in evidence.requests {
        if let DrillOutcome::Failed(why) = &request.outcome {
            let phase = evidence.times.phase(request.sent).label();
            *reasons.entry(format!("policy {}, {phase}: {why}", request.policy)).or_default() += 1;
        }
    }
    let count = reasons.values().sum();
    let mut why: Vec<String> = evidence
        .confined
        .iter()
        .filter(|policy| reasons.keys().any(|reason| reason.starts_with(&format!("policy {policy},"))))
        .map(|policy| format!("policy {policy} reaches no region but {}", evidence.target))
        .collect();
    let more = reasons.len().saturating_sub(MOST_REASONS);
    why.extend(reasons.into_iter().take(MOST_REASONS).map(|(reason, count)| format!("{count} × {reason}")));
    if more > 0 {
        why.push(format!("and {more} more reasons"));
    }
    none_of("failed requests", count, evidence.requests.len(), why.join("; "))
}

fn count(evidence: &DrillEvidence<'_>, outcome: &DrillOutcome) -> usize {
    evidence.requests.iter().filter(|request| request.outcome == *outcome).count()
}

/// Answers that look whole and are not.
pub(super) fn unsaid(evidence: &DrillEvidence<'_>) -> DrillCheck {
    let count = count(evidence, &DrillOutcome::TruncatedUnsaid);
    none_of("truncated answers shown as complete", count, evidence.requests.len(), String::new())
}

/// Answers that broke after they had begun: no other deployment can take over unless they are held.
pub(super) fn broken(evidence: &DrillEvidence<'_>) -> Option<DrillCheck> {
    let count = count(evidence, &DrillOutcome::Broken);
    let of = evidence.requests.len();
    let name = "answers that broke, and said so";
    if evidence.holds_streams || !evidence.scenario.breaks_answers() {
        return Some(none_of(name, count, of, String::new()));
    }
    let detail = "[routing] stream = \"buffered\" serves these anew".to_owned();
    Some(DrillCheck {
        name: name.into(),
        measured: MeasuredValue::Count(count, of),
        objective: None,
        detail,
        passed: true,
    })
}

/// How late this machine sent the requests while it was broken, the last of 100 of them.
pub(super) fn lateness(evidence: &DrillEvidence<'_>) -> Duration {
    let is_during = |request: &&DrillRequest| evidence.times.phase(request.sent) == DrillPhase::During;
    let mut late: Vec<Duration> = evidence.requests.iter().filter(is_during).map(|request| request.late).collect();
    late.sort_unstable();
    percentile(&late, 99).unwrap_or_default()
}

/// The same where it is so much that times are no longer the gateway's alone, with what a reader has to know of it.
fn machine_lateness(evidence: &DrillEvidence<'_>) -> (Duration, String) {
    let late = lateness(evidence);
    if late <= SHARED_MACHINE {
        return (Duration::ZERO, String::new());
    }
    (late, format!("; {} ms more are granted: so late did this machine send them", late.as_millis()))
}

/// How long a request may take to be routed round: as configured, where the region is silent, after that was noticed, and
/// as much more as this machine was late itself.
fn allowance(evidence: &DrillEvidence<'_>) -> Duration {
    let noticed = if evidence.scenario.is_silent() { evidence.silent_after } else { Duration::ZERO };
    evidence.failover_objective + noticed + machine_lateness(evidence).0
}

fn route_around(evidence: &DrillEvidence<'_>) -> DrillCheck {
    let mut times: Vec<Duration> = evidence.requests.iter().filter_map(|request| request.failover).collect();
    times.sort_unstable();
    let objective = allowance(evidence);
    let name = "time to route around, p99";
    let Some(p99) = percentile(&times, 99) else {
        let detail = "no request had to be served by another attempt".to_owned();
        return DrillCheck {
            name: name.into(),
            measured: MeasuredValue::Nothing,
            objective: Some(MeasuredValue::Time(objective)),
            detail,
            passed: true,
        };
    };
    let of = |percent| percentile(&times, percent).unwrap_or_default().as_millis();
    let granted = machine_lateness(evidence).1;
    let detail = format!("p50 {} ms, max {} ms, of {} requests{granted}", of(50), of(100), times.len());
    DrillCheck {
        name: name.into(),
        measured: MeasuredValue::Time(p99),
        objective: Some(MeasuredValue::Time(objective)),
        detail,
        passed: p99 <= objective,
    }
}

/// First tokens while it is broken, beside those before: of all requests, or of one policy's.
fn first_token(evidence: &DrillEvidence<'_>, policy: Option<&Arc<str>>) -> DrillCheck {
    let is_meant = |request: &&DrillRequest| policy.is_none_or(|policy| request.policy == *policy);
    let of = |phase| first_tokens(evidence.requests.iter().filter(is_meant), evidence.times, phase);
    let shown = |phase: DrillPhase| {
        let times = of(phase);
        let ms = |percent| percentile(&times, percent).map_or_else(|| "–".to_owned(), |at| at.as_millis().to_string());
        format!("{} {} / {} ms", phase.label(), ms(50), ms(99))
    };
    let detail = format!("p50 / p99: {}{}", DrillPhase::ALL.map(shown).join(", "), machine_lateness(evidence).1);
    let name = policy.map_or_else(
        || "first token while broken, p99".to_owned(),
        |policy| format!("first token while broken, p99, policy {policy}"),
    );
    match (percentile(&of(DrillPhase::Before), 99), percentile(&of(DrillPhase::During), 99)) {
        (Some(before), Some(during)) => {
            let objective = before + allowance(evidence);
            let (measured, objective, passed) =
                (MeasuredValue::Time(during), Some(MeasuredValue::Time(objective)), during <= objective);
            DrillCheck { name: name.into(), measured, objective, detail, passed }
        }
        // What failed is counted where requests are.
        _ => DrillCheck { name: name.into(), measured: MeasuredValue::Nothing, objective: None, detail, passed: true },
    }
}

fn attempts(evidence: &DrillEvidence<'_>) -> DrillCheck {
    let during = evidence.requests.iter().filter(|request| evidence.times.phase(request.sent) == DrillPhase::During);
    let (requests, attempts) =
        during.fold((0_u32, 0_u32), |(requests, attempts), one| (requests + 1, attempts + one.attempts));
    let ratio = f64::from(attempts) / f64::from(requests.max(1));
    let most = evidence.scenario.attempts_accepted();
    DrillCheck {
        name: "attempts per request while broken".into(),
        measured: MeasuredValue::Ratio(ratio),
        objective: Some(MeasuredValue::Ratio(most)),
        detail: String::new(),
        passed: ratio <= most,
    }
}

/// How soon after its end the region serves again.
fn recovery(evidence: &DrillEvidence<'_>) -> Option<DrillCheck> {
    let of_target = || evidence.requests.iter().filter(|request| request.region.as_deref() == Some(evidence.target));
    let served_before = of_target().any(|request| evidence.times.phase(request.sent) == DrillPhase::Before);
    if !evidence.scenario.recovers_soon() || !served_before {
        return None;
    }
    let again = of_target().filter(|request| evidence.times.phase(request.sent) == DrillPhase::After);
    let again = again.map(|request| request.sent - evidence.times.broken_until).min();
    let objective = 2 * longest_backoff(evidence) + PROBE_SLACK;
    Some(DrillCheck {
        name: "recovery: the region serves again after".into(),
        measured: again.map_or(MeasuredValue::Nothing, MeasuredValue::Time),
        objective: Some(MeasuredValue::Time(objective)),
        detail: if again.is_some() { String::new() } else { "it did not within the drill".to_owned() },
        passed: again.is_some_and(|again| again <= objective),
    })
}

/// The longest time that a breaker was open: it doubles from the first on, as long as the region is broken.
fn longest_backoff(evidence: &DrillEvidence<'_>) -> Duration {
    let (first, most) = evidence.open;
    let broken = evidence.times.broken_until - evidence.times.broken_from;
    let (mut next, mut total) = (first, first);
    while total < broken && next < most {
        next = (2 * next).min(most);
        total += next;
    }
    next
}

/// Budgets of which more was spent than they allow.
pub(super) fn overspent(evidence: &DrillEvidence<'_>) -> Option<DrillCheck> {
    let overspent = evidence.overspent?;
    let count = overspent.len();
    Some(DrillCheck {
        name: "budgets overspent".into(),
        measured: MeasuredValue::Count(count, count),
        objective: Some(MeasuredValue::Count(0, count)),
        detail: overspent.join(", "),
        passed: count == 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: DrillWindow =
        DrillWindow { broken_from: Duration::from_secs(3), broken_until: Duration::from_secs(9) };

    fn request(sent_ms: u64) -> DrillRequest {
        DrillRequest {
            policy: "pro".into(),
            stream: true,
            sent: Duration::from_millis(sent_ms),
            late: Duration::ZERO,
            first_bytes: Some(Duration::from_millis(60)),
            outcome: DrillOutcome::Answered,
            refusals: Vec::new(),
            attempts: 1,
            failover: None,
            region: Some("east".into()),
        }
    }

    /// Ten requests a second for 15 seconds; nothing of `east` is served while it is broken and for 2 s more.
    fn good() -> Vec<DrillRequest> {
        let away = |sent| (3_000..11_000).contains(&sent);
        let region = |sent| if away(sent) { "west" } else { "east" };
        (0..150)
            .map(|n| n * 100)
            .map(|sent| DrillRequest { region: Some(region(sent).into()), ..request(sent) })
            .collect()
    }

    fn evidence(requests: &[DrillRequest], scenario: Scenario) -> DrillEvidence<'_> {
        DrillEvidence {
            scenario,
            times: TIMES,
            requests,
            target: "east",
            confined: &[],
            loads: &[],
            queue_wait: Duration::from_secs(1),
            failover_objective: Duration::from_secs(1),
            silent_after: Duration::from_secs(1),
            open: (Duration::from_secs(1), Duration::from_secs(20)),
            holds_streams: false,
            overspent: Some(&[]),
            untrusted: None,
        }
    }

    /// The checks that fail.
    fn failing(evidence: &DrillEvidence<'_>) -> Vec<Cow<'static, str>> {
        judge(evidence).into_iter().filter(|check| !check.passed).map(|check| check.name).collect()
    }

    #[test]
    fn a_drill_that_nobody_noticed_passes() {
        for scenario in Scenario::ALL.into_iter().filter(|scenario| scenario.breaks_a_region()) {
            assert_eq!(failing(&evidence(&good(), scenario)), Vec::<Cow<str>>::new(), "{scenario:?}");
        }
        assert_eq!(failing(&evidence(&[], Scenario::RegionDown)).len(), 2 + 1, "nothing was tried");
    }

    #[test]
    fn each_thing_that_goes_wrong_fails_its_check() {
        type Fault = fn(&mut Vec<DrillRequest>);
        let cases: [(Fault, &str); 6] = [
            (|all| all[40].outcome = DrillOutcome::Failed("503".into()), "failed requests"),
            (|all| all[40].outcome = DrillOutcome::TruncatedUnsaid, "truncated answers shown as complete"),
            (|all| all[40].outcome = DrillOutcome::Broken, "answers that broke, and said so"),
            (|all| all[40].failover = Some(Duration::from_millis(1_001)), "time to route around, p99"),
            (|all| all[40].first_bytes = Some(Duration::from_millis(1_061)), "first token while broken, p99"),
            (|all| all.iter_mut().for_each(|one| one.attempts = 2), "attempts per request while broken"),
        ];
        for (fault, name) in cases {
            let mut requests = good();
            fault(&mut requests);
            assert_eq!(failing(&evidence(&requests, Scenario::RegionDown)), [name]);
        }
        let mut never_back = good();
        never_back.iter_mut().filter(|one| one.sent >= TIMES.broken_until).for_each(|one| one.region = None);
        assert_eq!(failing(&evidence(&never_back, Scenario::RegionDown)), ["recovery: the region serves again after"]);
        let (requests, overspent) = (good(), ["key app".to_owned()]);
        let spent = DrillEvidence { overspent: Some(&overspent), ..evidence(&requests, Scenario::RegionDown) };
        assert_eq!(failing(&spent), ["budgets overspent"]);
    }

    #[test]
    fn a_machine_that_is_late_itself_is_granted_that_and_named() {
        let mut requests = good();
        requests[40].first_bytes = Some(Duration::from_millis(1_160));
        for (late_ms, passes) in [(0, false), (50, false), (99, false), (100, true)] {
            requests.iter_mut().for_each(|one| one.late = Duration::from_millis(late_ms));
            let checks = judge(&evidence(&requests, Scenario::RegionDown));
            let check =
                checks.iter().find(|check| check.name == "first token while broken, p99").expect("it is judged");
            assert_eq!(check.passed, passes, "{late_ms} ms: {check:?}");
            let named = check.detail.contains(&format!("; {late_ms} ms more are granted"));
            assert_eq!(named, late_ms > 50, "{check:?}");
        }
    }

    #[test]
    fn a_host_that_nobody_trusts_is_sent_nothing() {
        let requests = good();
        for (connections, sent, expected) in [(9, 0, true), (9, 1, false), (0, 0, false)] {
            let untrusted = Some(UntrustedHostRecord { connections, requests: sent });
            let checks = judge(&DrillEvidence { untrusted, ..evidence(&requests, Scenario::BadTls) });
            let check = checks.last().expect("it is judged");
            assert_eq!((&*check.name, check.passed), ("requests sent to a host that nobody trusts", expected));
        }
    }

    #[test]
    fn reserved_capacity_is_judged_apart() {
        let mut requests = good();
        let (pro, other): (Arc<str>, Arc<str>) = ("pro (Pro/)".into(), "standard".into());
        // So few of many that the p99 of all does not show them.
        let more = good().into_iter().cycle().take(2_000).map(|one| DrillRequest { policy: other.clone(), ..one });
        requests.iter_mut().for_each(|one| one.policy = pro.clone());
        requests[40].first_bytes = Some(Duration::from_millis(1_061));
        requests.extend(more);
        let loads = [
            PolicyLoad { policy: other, priority: 1, reserved: false },
            PolicyLoad { policy: pro, priority: 8, reserved: true },
        ];
        let evidence = DrillEvidence { loads: &loads, ..evidence(&requests, Scenario::RegionDown) };
        assert_eq!(failing(&evidence), ["first token while broken, p99, policy pro (Pro/)"]);
    }

    #[test]
    fn a_silent_region_takes_longer_to_be_noticed() {
        let mut requests = good();
        requests[40].failover = Some(Duration::from_millis(1_900));
        assert_eq!(failing(&evidence(&requests, Scenario::BlackHole)), Vec::<Cow<str>>::new());
        assert_eq!(failing(&evidence(&requests, Scenario::BrownOut)), ["time to route around, p99"]);
    }

    #[test]
    fn broken_answers_are_shown_where_nothing_can_be_done_and_judged_where_it_can() {
        let mut requests = good();
        requests[40].outcome = DrillOutcome::Broken;
        let strict = evidence(&requests, Scenario::MidStream);
        assert_eq!(failing(&strict), Vec::<Cow<str>>::new());
        let held = DrillEvidence { holds_streams: true, ..evidence(&requests, Scenario::MidStream) };
        assert_eq!(failing(&held), ["answers that broke, and said so"]);
    }

    #[test]
    fn a_policy_with_no_other_region_is_named() {
        let mut requests = good();
        requests[40].outcome = DrillOutcome::Failed("503 no_deployment_available".into());
        let confined = ["pro".into()];
        let found = judge(&DrillEvidence { confined: &confined, ..evidence(&requests, Scenario::RegionDown) });
        let expected = "policy pro reaches no region but east; 1 × policy pro, during: 503 no_deployment_available";
        assert_eq!(found[0].detail, expected);
    }

    #[test]
    fn the_longest_backoff_is_that_of_the_time_broken() {
        let backoff = |open_max| {
            let open = (Duration::from_secs(1), Duration::from_secs(open_max));
            longest_backoff(&DrillEvidence { open, ..evidence(&[], Scenario::RegionDown) }).as_secs()
        };
        assert_eq!((backoff(20), backoff(2), backoff(1)), (4, 2, 1));
    }
}
