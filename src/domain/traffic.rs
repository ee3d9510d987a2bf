//! Traffic over time: sums over a second, ten seconds and five minutes, and what happened meanwhile.
//!
//! Bounded in memory whatever is asked of the gateway, and in time: a second is recent for a quarter of an hour. Nothing is
//! kept of a span without traffic. Time is handed in; a receipt counts when its request ended.
//!
//! Start reading at [`TrafficHistory`].

use super::breaker::StateName;
use super::reason::Reason;
use super::receipt::{AttemptRecord, Outcome, Receipt};
use super::sla;
use std::collections::VecDeque;
use std::sync::Arc;

/// The most events that are kept: the latest ones.
pub const MOST_EVENTS: usize = 500;
/// The most finished requests of one second that are shown one by one.
pub const MOST_SHOWN_PER_SECOND: u32 = 50;
/// The most deployments whose attempts are counted apart in one second, each through the tiers it was reached by.
const MOST_DEPLOYMENTS: usize = 2_000;

/// Bounds of the classes of first-token times.
const LATENCY_CLASSES: usize = 64;
/// The upper bound of each class in microseconds: from 1 ms, each a fifth above the one before, up to 97 s.
const LATENCY_BOUNDS_US: [u64; LATENCY_CLASSES] = latency_bounds();

const fn latency_bounds() -> [u64; LATENCY_CLASSES] {
    let mut bounds = [1_000; LATENCY_CLASSES];
    let mut at = 1;
    while at < LATENCY_CLASSES {
        bounds[at] = bounds[at - 1] * 6 / 5;
        at += 1;
    }
    bounds
}

/// How far back a history is read, and how finely.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrafficSpan {
    /// 15 minutes, second by second.
    Minutes15,
    /// 6 hours by ten seconds.
    Hours6,
    /// 7 days by five minutes.
    Days7,
}

impl TrafficSpan {
    /// Every span, the shortest first.
    pub const ALL: [Self; 3] = [Self::Minutes15, Self::Hours6, Self::Days7];

    /// Its name in requests and answers.
    pub fn label(self) -> &'static str {
        match self {
            Self::Minutes15 => "15m",
            Self::Hours6 => "6h",
            Self::Days7 => "7d",
        }
    }

    /// The seconds that are summed together.
    pub fn step_s(self) -> i64 {
        match self {
            Self::Minutes15 => 1,
            Self::Hours6 => 10,
            Self::Days7 => 300,
        }
    }

    /// How far back it goes, in seconds.
    pub fn length_s(self) -> i64 {
        match self {
            Self::Minutes15 => 15 * 60,
            Self::Hours6 => 6 * 3_600,
            Self::Days7 => 7 * 86_400,
        }
    }
}

/// Requests that ended within a span of time.
#[derive(Clone, Debug)]
pub struct TrafficSums {
    /// By outcome, in the order of [`Outcome::ALL`].
    pub outcomes: [u32; Outcome::ALL.len()],
    /// Those that failed through the gateway or its providers.
    pub faults: u32,
    /// Attempts of all of them.
    pub attempts: u32,
    /// Those that another attempt than the first one answered.
    pub failovers: u32,
    /// Input tokens, where known.
    pub input_tokens: u64,
    /// Output tokens, where known.
    pub output_tokens: u64,
    /// What they cost, in billionths of a US dollar.
    pub cost_nanousd: i128,
    first_tokens: [u32; LATENCY_CLASSES],
}

impl Default for TrafficSums {
    fn default() -> Self {
        Self {
            outcomes: Default::default(),
            faults: 0,
            attempts: 0,
            failovers: 0,
            input_tokens: 0,
            output_tokens: 0,
            cost_nanousd: 0,
            first_tokens: [0; LATENCY_CLASSES],
        }
    }
}

impl TrafficSums {
    /// All requests.
    pub fn requests(&self) -> u32 {
        self.outcomes.iter().sum()
    }

    /// Requests with this outcome.
    pub fn of(&self, outcome: Outcome) -> u32 {
        Outcome::ALL.iter().zip(self.outcomes).find(|(one, _)| **one == outcome).map_or(0, |(_, count)| count)
    }

    /// The first-token time in microseconds that so many of 100 requests kept to, within a tenth of it; `None` where there
    /// was no first token.
    pub fn first_token_us(&self, percent: u64) -> Option<u64> {
        let all: u64 = self.first_tokens.iter().map(|count| u64::from(*count)).sum();
        let rank = (all * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let class = self.first_tokens.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        });
        // The middle of its class.
        class.filter(|_| all > 0).map(|at| LATENCY_BOUNDS_US[at] * 11 / 12)
    }

    fn add_receipt(&mut self, receipt: &Receipt) {
        let slot = Outcome::ALL.iter().position(|outcome| *outcome == receipt.outcome);
        if let Some(count) = slot.and_then(|at| self.outcomes.get_mut(at)) {
            *count += 1;
        }
        self.faults += u32::from(sla::failed_through_us(receipt.outcome, receipt.reason, receipt.status));
        self.attempts += receipt.attempts.len() as u32;
        self.failovers += u32::from(receipt.failover.is_some());
        if let Some(usage) = receipt.usage {
            self.input_tokens += usage.input;
            self.output_tokens += usage.output;
        }
        self.cost_nanousd += i128::from(receipt.cost.0);
        if let Some(first_token) = receipt.first_token {
            let us = u64::try_from(first_token.as_micros()).unwrap_or(u64::MAX);
            let class = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us).min(LATENCY_CLASSES - 1);
            self.first_tokens[class] += 1;
        }
    }

    fn add(&mut self, other: &Self) {
        let counts = self.outcomes.iter_mut().zip(other.outcomes);
        counts.chain(self.first_tokens.iter_mut().zip(other.first_tokens)).for_each(|(sum, more)| *sum += more);
        self.faults += other.faults;
        self.attempts += other.attempts;
        self.failovers += other.failovers;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.cost_nanousd += other.cost_nanousd;
    }
}

/// Attempts at one deployment that belong to requests which ended in one second.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeploymentTraffic {
    /// Its name.
    pub deployment: Arc<str>,
    /// The tier it was reached through, if any.
    pub tier: Option<Arc<str>>,
    /// All attempts.
    pub attempts: u32,
    /// Those that did not answer.
    pub failed: u32,
}

/// What kind of thing happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrafficEventKind {
    /// A breaker opened.
    Trip,
    /// A breaker lets one probe pass.
    Probe,
    /// A breaker closed.
    Recovery,
    /// A deployment rests: its provider throttles, or refuses the model or the credential.
    Rest,
    /// A fault was injected.
    FaultInjected,
    /// An injected fault was ended by an operator.
    FaultEnded,
    /// The configuration was reloaded.
    Reload,
    /// A changed configuration was refused; the old one stays.
    ReloadRefused,
}

impl TrafficEventKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Trip,
        Self::Probe,
        Self::Recovery,
        Self::Rest,
        Self::FaultInjected,
        Self::FaultEnded,
        Self::Reload,
        Self::ReloadRefused,
    ];

    /// Its name in answers.
    pub fn label(self) -> &'static str {
        match self {
            Self::Trip => "trip",
            Self::Probe => "probe",
            Self::Recovery => "recovery",
            Self::Rest => "rest",
            Self::FaultInjected => "fault_injected",
            Self::FaultEnded => "fault_ended",
            Self::Reload => "reload",
            Self::ReloadRefused => "reload_refused",
        }
    }
}

impl From<StateName> for TrafficEventKind {
    /// A breaker's change to this state.
    fn from(entered: StateName) -> Self {
        match entered {
            StateName::Closed => Self::Recovery,
            StateName::Open => Self::Trip,
            StateName::HalfOpen => Self::Probe,
            StateName::Resting => Self::Rest,
        }
    }
}

/// Something that happened and explains what traffic did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrafficEvent {
    /// When, in Unix milliseconds.
    pub at_unix_ms: i64,
    /// Its kind.
    pub kind: TrafficEventKind,
    /// To which deployment, region or file; a configured name, or empty.
    pub subject: Arc<str>,
    /// Why, in a few words or a label.
    pub detail: Box<str>,
}

/// A part of a history: one sum for each step, the oldest first, without gaps.
#[derive(Clone, Debug)]
pub struct TrafficSeries {
    /// The Unix second at which the first step begins.
    pub from_unix_s: i64,
    /// The sums.
    pub steps: Vec<TrafficSums>,
    /// The events since then.
    pub events: Vec<TrafficEvent>,
}

/// The last complete second.
#[derive(Clone, Debug)]
pub struct TrafficSecond {
    /// Which one, as Unix seconds.
    pub unix_s: i64,
    /// Its sums.
    pub sums: TrafficSums,
    /// Its attempts by deployment, where somebody watches.
    pub deployments: Vec<DeploymentTraffic>,
}

/// Sums by steps of one span; those without traffic are left out.
#[derive(Debug)]
struct Steps {
    span: TrafficSpan,
    steps: VecDeque<(i64, TrafficSums)>,
}

impl Steps {
    fn begin(&self, unix_s: i64) -> i64 {
        unix_s - unix_s.rem_euclid(self.span.step_s())
    }

    fn add(&mut self, unix_s: i64, sums: &TrafficSums) {
        let begin = self.begin(unix_s);
        match self.steps.back_mut() {
            // A clock that was set back adds to the latest step.
            Some((last, same)) if *last >= begin => same.add(sums),
            _ => self.steps.push_back((begin, sums.clone())),
        }
        while self.steps.front().is_some_and(|(first, _)| *first <= begin - self.span.length_s()) {
            self.steps.pop_front();
        }
    }

    /// The complete steps from `since` on, up to `now`.
    fn read(&self, since_s: i64, now_s: i64) -> (i64, Vec<TrafficSums>) {
        let (step, end) = (self.span.step_s(), self.begin(now_s));
        let from = self.begin(since_s.max(end - self.span.length_s()));
        let mut steps = vec![TrafficSums::default(); usize::try_from((end - from) / step).unwrap_or(0)];
        for (begin, sums) in &self.steps {
            let at = usize::try_from((begin - from).div_euclid(step)).ok();
            if let Some(slot) = at.and_then(|at| steps.get_mut(at)) {
                slot.add(sums);
            }
        }
        (from, steps)
    }
}

/// The traffic of the last 7 days, and what happened in them.
#[derive(Debug)]
pub struct TrafficHistory {
    /// The Unix second that is summed now; `None` before anything was recorded or read.
    second: Option<i64>,
    began_unix_s: i64,
    current: TrafficSums,
    deployments: Vec<DeploymentTraffic>,
    /// Finished requests of this second that were shown one by one.
    shown: u32,
    last: TrafficSecond,
    spans: [Steps; TrafficSpan::ALL.len()],
    events: VecDeque<TrafficEvent>,
    /// Events ever recorded.
    events_recorded: u64,
}

impl Default for TrafficHistory {
    fn default() -> Self {
        Self {
            second: None,
            began_unix_s: 0,
            current: TrafficSums::default(),
            deployments: Vec::new(),
            shown: 0,
            last: TrafficSecond { unix_s: 0, sums: TrafficSums::default(), deployments: Vec::new() },
            spans: TrafficSpan::ALL.map(|span| Steps { span, steps: VecDeque::new() }),
            events: VecDeque::new(),
            events_recorded: 0,
        }
    }
}

impl TrafficHistory {
    /// Counts a request that ended in the second `unix_s`. With `watched`, attempts are counted by deployment too, and the
    /// result says whether this request may be shown: few enough were in the same second.
    pub fn record(&mut self, unix_s: i64, receipt: &Receipt, watched: bool) -> bool {
        self.advance(unix_s);
        self.current.add_receipt(receipt);
        if !watched {
            return false;
        }
        receipt.attempts.iter().for_each(|attempt| self.count_attempt(attempt));
        self.shown += 1;
        self.shown <= MOST_SHOWN_PER_SECOND
    }

    fn count_attempt(&mut self, attempt: &AttemptRecord) {
        let failed = u32::from(attempt.reason != Reason::Served);
        let same = |one: &DeploymentTraffic| one.deployment == attempt.deployment && one.tier == attempt.tier;
        if let Some(at) = self.deployments.iter().position(same) {
            self.deployments[at].attempts += 1;
            self.deployments[at].failed += failed;
        } else if self.deployments.len() < MOST_DEPLOYMENTS {
            let (deployment, tier) = (attempt.deployment.clone(), attempt.tier.clone());
            self.deployments.push(DeploymentTraffic { deployment, tier, attempts: 1, failed });
        }
    }

    /// Records that something happened.
    pub fn note(&mut self, event: TrafficEvent) {
        self.advance(event.at_unix_ms.div_euclid(1_000));
        if self.events.len() == MOST_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
        self.events_recorded += 1;
    }

    /// The last complete second before `now_unix_s`.
    pub fn last_second(&mut self, now_unix_s: i64) -> TrafficSecond {
        self.advance(now_unix_s);
        let unix_s = now_unix_s - 1;
        if self.last.unix_s == unix_s {
            return self.last.clone();
        }
        TrafficSecond { unix_s, sums: TrafficSums::default(), deployments: Vec::new() }
    }

    /// The complete steps of `span` before `now_unix_s`, since the gateway first counted anything.
    pub fn series(&mut self, span: TrafficSpan, now_unix_s: i64) -> TrafficSeries {
        self.advance(now_unix_s);
        let steps = self.spans.iter().find(|steps| steps.span == span);
        let (from_unix_s, steps) =
            steps.map(|steps| steps.read(self.began_unix_s, now_unix_s)).unwrap_or((now_unix_s, Vec::new()));
        let events = self.events.iter().filter(|event| event.at_unix_ms >= from_unix_s * 1_000).cloned().collect();
        TrafficSeries { from_unix_s, steps, events }
    }

    /// How many events were recorded so far.
    pub fn events_recorded(&self) -> u64 {
        self.events_recorded
    }

    /// The events after the first `recorded` ones, as far as they are kept.
    pub fn events_after(&self, recorded: u64) -> Vec<TrafficEvent> {
        let new = usize::try_from(self.events_recorded.saturating_sub(recorded)).unwrap_or(usize::MAX);
        self.events.iter().skip(self.events.len().saturating_sub(new)).cloned().collect()
    }

    /// Closes the second that is summed if `unix_s` is a later one.
    fn advance(&mut self, unix_s: i64) {
        let Some(second) = self.second else {
            (self.second, self.began_unix_s) = (Some(unix_s), unix_s);
            return;
        };
        if unix_s <= second {
            return;
        }
        let (sums, deployments) = (std::mem::take(&mut self.current), std::mem::take(&mut self.deployments));
        if sums.requests() > 0 {
            self.spans.iter_mut().for_each(|steps| steps.add(second, &sums));
        }
        self.last = TrafficSecond { unix_s: second, sums, deployments };
        (self.second, self.shown) = (Some(unix_s), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::receipt::tests::{attempt, receipt};
    use super::*;
    use std::time::Duration;

    fn served(first_token_ms: u64) -> Receipt {
        let one = receipt(vec![attempt("eu", "big", Reason::Served)], Some(("eu", "big")), Reason::Served);
        Receipt {
            outcome: Outcome::Served,
            status: 200,
            first_token: Some(Duration::from_millis(first_token_ms)),
            ..one
        }
    }

    fn event(at_unix_ms: i64, subject: &str) -> TrafficEvent {
        TrafficEvent { at_unix_ms, kind: TrafficEventKind::Trip, subject: subject.into(), detail: "".into() }
    }

    fn requests(series: &TrafficSeries) -> Vec<u32> {
        series.steps.iter().map(TrafficSums::requests).collect()
    }

    #[test]
    fn seconds_are_read_without_gaps_and_only_complete() {
        let mut history = TrafficHistory::default();
        for unix_s in [1_000, 1_000, 1_003] {
            history.record(unix_s, &served(5), false);
        }
        let series = history.series(TrafficSpan::Minutes15, 1_003);
        assert_eq!(
            (series.from_unix_s, requests(&series)),
            (1_000, vec![2, 0, 0]),
            "the running second is not complete"
        );
        assert_eq!(requests(&history.series(TrafficSpan::Minutes15, 1_005)), [2, 0, 0, 1, 0]);
    }

    #[test]
    fn longer_steps_sum_shorter_ones() {
        let mut history = TrafficHistory::default();
        for unix_s in 3_000..3_700 {
            history.record(unix_s, &served(5), false);
        }
        let series = history.series(TrafficSpan::Hours6, 3_720);
        assert_eq!((series.from_unix_s, series.steps.len()), (3_000, 72));
        assert_eq!((requests(&series)[..2].to_vec(), requests(&series)[70]), (vec![10, 10], 0));
        assert_eq!(requests(&history.series(TrafficSpan::Days7, 3_900)), [300, 300, 100]);
    }

    #[test]
    fn what_is_too_old_is_forgotten() {
        let mut history = TrafficHistory::default();
        history.record(0, &served(5), false);
        for unix_s in (1..30 * 86_400).step_by(600) {
            history.record(unix_s, &served(5), false);
        }
        for steps in &history.spans {
            let most = (steps.span.length_s() / steps.span.step_s()) as usize;
            assert!(steps.steps.len() <= most, "{:?}: {}", steps.span, steps.steps.len());
        }
        let series = history.series(TrafficSpan::Minutes15, 30 * 86_400);
        assert_eq!((series.from_unix_s, series.steps.len()), (30 * 86_400 - 900, 900));
    }

    #[test]
    fn all_of_it_fits_the_memory_it_may_have() {
        let steps: i64 = TrafficSpan::ALL.iter().map(|span| span.length_s() / span.step_s()).sum();
        // A deque has up to twice the capacity that it needs.
        let bytes =
            2 * steps as usize * size_of::<(i64, TrafficSums)>() + MOST_EVENTS * (size_of::<TrafficEvent>() + 600);
        assert!(bytes <= 8 << 20, "{bytes}");
    }

    #[test]
    fn a_first_token_time_is_within_a_tenth() {
        let mut history = TrafficHistory::default();
        for ms in [1_u64, 20, 20, 300, 5_000] {
            history.record(10, &served(ms), false);
        }
        let sums = history.last_second(11).sums;
        let check = |percent, expected_us: u64| {
            let got = sums.first_token_us(percent).expect("there are some");
            assert!(got.abs_diff(expected_us) * 10 <= expected_us, "{percent}: {got}");
        };
        check(1, 1_000);
        check(50, 20_000);
        check(99, 5_000_000);
        assert_eq!(TrafficSums::default().first_token_us(50), None);
        history.record(12, &served(10_000_000), false);
        assert!(history.last_second(13).sums.first_token_us(50).is_some(), "longer than the last bound");
    }

    #[test]
    fn a_request_counts_by_its_outcome_and_by_who_is_to_blame() {
        let mut history = TrafficHistory::default();
        let tried = vec![attempt("us", "big", Reason::Unreachable), attempt("eu", "big", Reason::Served)];
        let failed_over = Receipt { outcome: Outcome::Served, ..receipt(tried, Some(("eu", "big")), Reason::Served) };
        let refused = |reason, status| Receipt { outcome: Outcome::Refused, reason, status, ..served(5) };
        let broken = Receipt { outcome: Outcome::Broken, reason: Reason::Reset, ..served(5) };
        let all = [failed_over, refused(Reason::InvalidJson, 400), refused(Reason::NoDeploymentAvailable, 503), broken];
        for one in &all {
            history.record(7, one, true);
        }
        let second = history.last_second(8);
        let sums = &second.sums;
        assert_eq!((sums.requests(), sums.of(Outcome::Served), sums.of(Outcome::Refused)), (4, 1, 2));
        assert_eq!((sums.of(Outcome::Broken), sums.faults, sums.failovers, sums.attempts), (1, 2, 1, 5));
        let deployments: Vec<_> =
            second.deployments.iter().map(|one| (&*one.deployment, one.attempts, one.failed)).collect();
        assert_eq!(deployments, [("us/big", 1, 1), ("eu/big", 4, 0)]);
    }

    #[test]
    fn few_requests_of_a_second_are_shown_and_none_to_nobody() {
        let mut history = TrafficHistory::default();
        assert!(!history.record(1, &served(5), false));
        let shown = |history: &mut TrafficHistory, unix_s| {
            (0..200).filter(|_| history.record(unix_s, &served(5), true)).count()
        };
        assert_eq!(shown(&mut history, 1), MOST_SHOWN_PER_SECOND as usize);
        assert_eq!(shown(&mut history, 2), MOST_SHOWN_PER_SECOND as usize);
    }

    #[test]
    fn a_second_without_traffic_is_empty() {
        let mut history = TrafficHistory::default();
        history.record(1, &served(5), true);
        assert_eq!(history.last_second(2).deployments.len(), 1);
        let later = history.last_second(5);
        assert_eq!((later.unix_s, later.sums.requests(), later.deployments.len()), (4, 0, 0));
    }

    #[test]
    fn a_clock_that_was_set_back_loses_nothing() {
        let mut history = TrafficHistory::default();
        for unix_s in [1_000, 400, 1_001] {
            history.record(unix_s, &served(5), false);
        }
        assert_eq!(requests(&history.series(TrafficSpan::Minutes15, 1_002)), [2, 1]);
    }

    #[test]
    fn the_latest_events_are_kept_and_read_once() {
        let mut history = TrafficHistory::default();
        history.note(event(1_000, "a"));
        let read = history.events_recorded();
        history.note(event(1_500, "b"));
        let names: Vec<_> = history.events_after(read).iter().map(|event| event.subject.clone()).collect();
        assert_eq!(names, [Arc::<str>::from("b")]);
        for at in 0..2 * MOST_EVENTS as i64 {
            history.note(event(2_000 + at, "c"));
        }
        assert_eq!(history.events_after(0).len(), MOST_EVENTS);
        assert!(history.events_after(history.events_recorded()).is_empty());
        assert_eq!(history.series(TrafficSpan::Minutes15, 4).events.len(), MOST_EVENTS);
    }
}
