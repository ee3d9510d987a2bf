//! The judgement of a burst: whether those who are to come first notice it, and what the others are told.
//!
//! Nothing is broken in it, so that whatever goes wrong is the gateway's doing or that of a capacity which is too small.
//!
//! Start reading in [`judge`].

use super::judge::{
    DrillCheck, DrillEvidence, MeasuredValue, SHARED_MACHINE, broken, first_tokens, lateness, none_of, overspent,
    unsaid,
};
use super::{DrillOutcome, DrillPhase, DrillRefusal, DrillRequest, percentile};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How much later first tokens of a higher priority may come than without the burst: a tenth of their time, and
/// [`SHARED_MACHINE`] more.
const LATER_BY: u32 = 10;
/// How much longer than a request may wait its turn the last refusals may come after the burst.
const RECOVERY_SLACK: Duration = Duration::from_secs(1);
/// A burst of less than this share of what was to be sent shows less than it should.
const ENOUGH_SENT: f64 = 0.9;

/// The judgement of a burst.
pub fn judge(evidence: &DrillEvidence<'_>) -> Vec<DrillCheck> {
    let mut checks = vec![load(evidence), failed_before(evidence), broken_off(evidence), unexplained(evidence)];
    checks.push(unsaid(evidence));
    checks.extend(broken(evidence));
    let lowest = evidence.loads.iter().map(|load| load.priority).min().unwrap_or_default();
    for load in evidence.loads {
        let comes_first = load.reserved || load.priority > lowest;
        checks.push(given_up(evidence, &load.policy, comes_first));
        checks.push(first_token(evidence, &load.policy, comes_first));
    }
    checks.push(recovery(evidence));
    checks.extend(overspent(evidence));
    checks
}

/// How long after a burst refusals may still come.
pub fn recovery_objective(queue_wait: Duration) -> Duration {
    queue_wait + RECOVERY_SLACK
}

fn of_phase<'a>(evidence: &DrillEvidence<'a>, phase: DrillPhase) -> impl Iterator<Item = &'a DrillRequest> {
    let (requests, times) = (evidence.requests, evidence.times);
    requests.iter().filter(move |request| times.phase(request.sent) == phase)
}

fn shown(name: impl Into<Cow<'static, str>>, measured: MeasuredValue, detail: String) -> DrillCheck {
    DrillCheck { name: name.into(), measured, objective: None, detail, passed: true }
}

/// How many times as many requests came as before, those for reserved capacity aside: these stay as many.
fn load(evidence: &DrillEvidence<'_>) -> DrillCheck {
    let (before, during) = (evidence.times.broken_from, evidence.times.broken_until - evidence.times.broken_from);
    let reserved =
        |request: &&DrillRequest| evidence.loads.iter().any(|load| load.reserved && load.policy == request.policy);
    let rate = |phase, lasted: Duration| {
        of_phase(evidence, phase).filter(|request| !reserved(request)).count() as f64 / lasted.as_secs_f64()
    };
    let (usual, burst) = (rate(DrillPhase::Before, before), rate(DrillPhase::During, during));
    let factor = if usual > 0.0 { burst / usual } else { 0.0 };
    let short = factor < f64::from(evidence.scenario.load_factor()) * ENOUGH_SENT;
    let late = lateness(evidence);
    let why = if short {
        "; this machine could not send more".to_owned()
    } else if late > SHARED_MACHINE {
        format!("; this machine sent them up to {} ms late, which the times below may be more", late.as_millis())
    } else {
        String::new()
    };
    shown("load, times the usual", MeasuredValue::Ratio(factor), format!("{usual:.0} → {burst:.0} requests/s{why}"))
}

fn failed_before(evidence: &DrillEvidence<'_>) -> DrillCheck {
    let before: Vec<_> = of_phase(evidence, DrillPhase::Before).collect();
    let failed = before.iter().filter(|request| matches!(request.outcome, DrillOutcome::Failed(_)));
    let reasons = failed.clone().map(|request| reason(request)).collect::<BTreeSet<_>>();
    let reasons: Vec<_> = reasons.into_iter().take(2).collect();
    none_of("failed requests before the burst", failed.count(), before.len(), reasons.join("; "))
}

fn reason(request: &DrillRequest) -> String {
    match &request.outcome {
        DrillOutcome::Failed(why) => format!("policy {}: {why}", request.policy),
        _ => String::new(),
    }
}

/// Every reply, answers included, and those of them for which `is` holds, by their status.
fn replies(evidence: &DrillEvidence<'_>, is: impl Fn(&DrillRefusal) -> bool) -> (usize, usize, String) {
    let refusals = || evidence.requests.iter().flat_map(|request| &request.refusals);
    let answers = evidence.requests.iter().filter(|request| !matches!(request.outcome, DrillOutcome::Failed(_)));
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for refusal in refusals().filter(|refusal| is(refusal)) {
        let said = refusal.status.map_or_else(|| "no reply".to_owned(), |status| status.to_string());
        *found.entry(said).or_default() += 1;
    }
    let detail: Vec<String> = found.iter().map(|(said, count)| format!("{count} × {said}")).collect();
    (found.values().sum(), refusals().count() + answers.count(), detail.join(", "))
}

/// Faults of ours: a gateway that is full says so.
fn broken_off(evidence: &DrillEvidence<'_>) -> DrillCheck {
    let (count, of, detail) = replies(evidence, |refusal| refusal.status.is_none_or(|status| status >= 500));
    none_of("replies of 5xx, and none at all", count, of, detail)
}

/// Refusals that no client can act on.
fn unexplained(evidence: &DrillEvidence<'_>) -> DrillCheck {
    let is_explained = |refusal: &DrillRefusal| refusal.status == Some(429) && refusal.says_when;
    let is_ours = |refusal: &DrillRefusal| refusal.status.is_some_and(|status| status < 500);
    let (count, of, detail) = replies(evidence, |refusal| is_ours(refusal) && !is_explained(refusal));
    let (shed, _, _) = replies(evidence, is_explained);
    let detail = if detail.is_empty() { format!("{shed} were a 429 with Retry-After") } else { detail };
    none_of("refusals other than 429 with Retry-After", count, of, detail)
}

/// The requests of a policy that came in the burst and got no answer, retries included.
fn given_up(evidence: &DrillEvidence<'_>, policy: &Arc<str>, comes_first: bool) -> DrillCheck {
    let sent: Vec<_> = of_phase(evidence, DrillPhase::During).filter(|request| request.policy == *policy).collect();
    let is_failed = |request: &&&DrillRequest| matches!(request.outcome, DrillOutcome::Failed(_));
    let failed = sent.iter().filter(is_failed).count();
    let retried = sent.iter().filter(|request| !is_failed(request) && !request.refusals.is_empty()).count();
    let name = format!("requests without an answer, policy {policy}");
    let mut detail = format!("{retried} answered after a retry");
    if !comes_first {
        return shown(name, MeasuredValue::Count(failed, sent.len()), detail);
    }
    if failed > 0 {
        let why = sent.iter().find(|request| is_failed(request)).map(|request| reason(request)).unwrap_or_default();
        detail = format!("{detail}; {why}");
    }
    none_of(name, failed, sent.len(), detail)
}

/// The first tokens of a policy in the burst, from the first try on, beside those before it.
fn first_token(evidence: &DrillEvidence<'_>, policy: &Arc<str>, comes_first: bool) -> DrillCheck {
    let p99 = |phase| {
        let of_policy = evidence.requests.iter().filter(|request| request.policy == *policy);
        let times = first_tokens(of_policy, evidence.times, phase);
        (percentile(&times, 50), percentile(&times, 99))
    };
    let (before, during, after) = (p99(DrillPhase::Before), p99(DrillPhase::During), p99(DrillPhase::After));
    let ms = |time: Option<Duration>| time.map_or_else(|| "–".to_owned(), |time| time.as_millis().to_string());
    let of = |(p50, p99)| format!("{} / {} ms", ms(p50), ms(p99));
    let detail = format!("p50 / p99: before {}, during {}, after {}", of(before), of(during), of(after));
    let name = format!("first token in the burst, p99, policy {policy}");
    let measured = during.1.map_or(MeasuredValue::Nothing, MeasuredValue::Time);
    let Some(usual) = before.1.filter(|_| comes_first) else { return shown(name, measured, detail) };
    let objective = usual + usual / LATER_BY + SHARED_MACHINE.max(lateness(evidence));
    DrillCheck {
        name: name.into(),
        measured,
        objective: Some(MeasuredValue::Time(objective)),
        detail,
        passed: during.1.is_some_and(|during| during <= objective),
    }
}

/// The last request after the burst that was refused once or more.
fn recovery(evidence: &DrillEvidence<'_>) -> DrillCheck {
    let refused = of_phase(evidence, DrillPhase::After).filter(|request| !request.refusals.is_empty());
    let last = refused.map(|request| request.sent - evidence.times.broken_until).max().unwrap_or_default();
    let objective = recovery_objective(evidence.queue_wait);
    DrillCheck {
        name: "recovery: nothing is refused from … on".into(),
        measured: MeasuredValue::Time(last),
        objective: Some(MeasuredValue::Time(objective)),
        detail: String::new(),
        passed: last <= objective && of_phase(evidence, DrillPhase::After).next().is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::DrillWindow;
    use super::super::judge::PolicyLoad;
    use super::super::scenario::Scenario;
    use super::*;

    const TIMES: DrillWindow =
        DrillWindow { broken_from: Duration::from_secs(3), broken_until: Duration::from_secs(9) };
    const SHED: DrillRefusal = DrillRefusal { status: Some(429), says_when: true };

    fn request(policy: &str, sent_ms: u64) -> DrillRequest {
        DrillRequest {
            policy: policy.into(),
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

    /// Ten requests a second of each policy for 13 s, a hundred from the third second to the ninth; one of two of
    /// `standard` then comes in vain, another one after a retry.
    fn good() -> Vec<DrillRequest> {
        let usual = (0..130).map(|n| n * 100);
        let more = (3_000..9_000).step_by(10).filter(|at| at % 100 != 0);
        let mut all = Vec::new();
        for at in usual.chain(more) {
            all.push(request("pro", at));
            let mut other = request("standard", at);
            if (3_000..9_000).contains(&at) {
                match at % 20 {
                    0 => {
                        other.refusals = vec![SHED; 3];
                        (other.outcome, other.first_bytes) = (DrillOutcome::Failed("429 slow_down".into()), None);
                    }
                    _ => {
                        other.refusals = vec![SHED];
                        other.first_bytes = Some(Duration::from_millis(1_500));
                    }
                }
            }
            all.push(other);
        }
        all
    }

    fn judged(requests: &[DrillRequest], loads: &[PolicyLoad]) -> Vec<DrillCheck> {
        judge(&DrillEvidence {
            scenario: Scenario::Burst10x,
            times: TIMES,
            requests,
            target: "",
            confined: &[],
            loads,
            queue_wait: Duration::from_secs(1),
            failover_objective: Duration::from_secs(1),
            silent_after: Duration::from_secs(1),
            open: (Duration::from_secs(1), Duration::from_secs(20)),
            holds_streams: false,
            overspent: Some(&[]),
            untrusted: None,
        })
    }

    fn loads(of_pro: u32, reserved: bool) -> [PolicyLoad; 2] {
        let load = |policy: &str, priority, reserved| PolicyLoad { policy: policy.into(), priority, reserved };
        [load("pro", of_pro, reserved), load("standard", 1, false)]
    }

    /// The checks that fail.
    fn failing(requests: &[DrillRequest]) -> Vec<Cow<'static, str>> {
        judged(requests, &loads(8, false)).into_iter().filter(|check| !check.passed).map(|check| check.name).collect()
    }

    #[test]
    fn a_burst_that_the_lowest_priority_pays_for_passes() {
        let requests = good();
        assert_eq!(failing(&requests), Vec::<Cow<str>>::new());
        let checks = judged(&requests, &loads(8, false));
        let of = |name: &str| checks.iter().find(|check| check.name == name).expect("it is judged");
        assert_eq!(of("load, times the usual").measured, MeasuredValue::Ratio(10.0));
        let shed = of("requests without an answer, policy standard");
        assert_eq!((shed.measured, shed.objective), (MeasuredValue::Count(300, 600), None));
        assert_eq!(shed.detail, "300 answered after a retry");
        let objective = of("first token in the burst, p99, policy pro").objective;
        assert_eq!(objective, Some(MeasuredValue::Time(Duration::from_millis(116))));
        assert_eq!(of("recovery: nothing is refused from … on").measured, MeasuredValue::Time(Duration::ZERO));
    }

    #[test]
    fn each_thing_that_goes_wrong_fails_its_check() {
        type Wrong = fn(&mut DrillRequest);
        let cases: [(u64, Wrong, &[&str]); 7] = [
            (1_000, |one| one.outcome = DrillOutcome::Failed("503".into()), &["failed requests before the burst"]),
            (
                5_000,
                |one| one.refusals = vec![DrillRefusal { status: Some(503), says_when: true }],
                &["replies of 5xx, and none at all"],
            ),
            (
                5_000,
                |one| one.refusals = vec![DrillRefusal { status: None, says_when: false }],
                &["replies of 5xx, and none at all"],
            ),
            (
                5_000,
                |one| one.refusals = vec![DrillRefusal { status: Some(429), says_when: false }],
                &["refusals other than 429 with Retry-After"],
            ),
            (
                5_000,
                |one| one.outcome = DrillOutcome::Failed("429 slow_down".into()),
                &["requests without an answer, policy pro"],
            ),
            (5_000, |one| one.outcome = DrillOutcome::TruncatedUnsaid, &["truncated answers shown as complete"]),
            (11_100, |one| one.refusals = vec![SHED], &["recovery: nothing is refused from … on"]),
        ];
        for (at, wrong, names) in cases {
            let mut requests = good();
            let of_pro = |one: &&mut DrillRequest| *one.policy == *"pro" && one.sent == Duration::from_millis(at);
            wrong(requests.iter_mut().find(of_pro).expect("one is sent then"));
            assert_eq!(failing(&requests), names, "at {at} ms");
        }
        let mut late = good();
        let of_pro = late.iter_mut().filter(|one| *one.policy == *"pro" && TIMES.phase(one.sent) == DrillPhase::During);
        of_pro.take(7).for_each(|one| one.first_bytes = Some(Duration::from_millis(117)));
        assert_eq!(failing(&late), ["first token in the burst, p99, policy pro"]);
    }

    #[test]
    fn where_no_priority_is_higher_nobody_comes_first() {
        let checks = judged(&good(), &loads(1, false));
        let of_policies = checks.iter().filter(|check| check.name.contains("policy"));
        assert!(of_policies.clone().count() == 4 && of_policies.clone().all(|check| check.objective.is_none()));
        let checks = judged(&good(), &loads(1, true));
        let judged = checks.iter().filter(|check| check.name.ends_with("policy pro") && check.objective.is_some());
        assert_eq!(judged.count(), 2, "what is reserved is not to be disturbed");
    }

    #[test]
    fn a_machine_that_is_late_itself_is_named() {
        let mut requests = good();
        requests.iter_mut().for_each(|one| one.late = Duration::from_millis(51));
        let detail = &judged(&requests, &loads(8, false))[0].detail;
        assert!(
            detail.ends_with("; this machine sent them up to 51 ms late, which the times below may be more"),
            "{detail}"
        );
    }

    #[test]
    fn a_burst_that_could_not_be_sent_says_so() {
        let mut requests = good();
        requests.retain(|one| TIMES.phase(one.sent) != DrillPhase::During || one.sent.as_millis() % 20 == 0);
        let check = &judged(&requests, &loads(8, false))[0];
        assert_eq!(
            (check.measured, &*check.detail),
            (MeasuredValue::Ratio(5.0), "20 → 100 requests/s; this machine could not send more")
        );
    }
}
