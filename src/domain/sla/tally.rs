//! The receipts of one policy in one month, counted one by one.
//!
//! What it keeps grows with the keys, and with the hours in which something failed; never with the requests.
//!
//! Start reading at [`SlaMonthTally::add`], then [`SlaMonthTally::uptime`].

use super::probe::{PROBE_KEY, SlaProbeTally};
use super::{SlaClass, SlaMeasure, SlaReceipt, SlaTerms};
use crate::domain::budget::{Scope, WindowSpan};
use crate::domain::duration_tally::DurationTally;
use crate::domain::id::RequestId;
use crate::domain::reason::Reason;
use crate::domain::register::Holder;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const HOUR_MS: i64 = 3_600_000;
/// The length of an interval of [`SlaMeasure::FiveMinutes`].
pub const INTERVAL_MS: i64 = 300_000;
/// A failed share of an interval is a number of billionths, rounded up.
const BILLION: u64 = 1_000_000_000;
/// How far back the burn of an error budget is measured.
pub const BURN_WINDOWS_MS: [i64; 3] = [HOUR_MS, 6 * HOUR_MS, 72 * HOUR_MS];

/// Which receipts are counted, and by what.
#[derive(Clone, Debug)]
pub struct SlaQuery {
    /// The policy.
    pub policy: Arc<str>,
    /// What it promises.
    pub terms: Arc<SlaTerms>,
    /// The month.
    pub span: WindowSpan,
    /// Up to this instant, in Unix milliseconds: the end of the month, or now if that is earlier.
    pub until_unix_ms: i64,
}

impl SlaQuery {
    /// The receipts of `policy` in `span`, as far as it has passed at `now_unix_ms`.
    pub fn new(policy: Arc<str>, terms: Arc<SlaTerms>, span: WindowSpan, now_unix_ms: i64) -> Self {
        Self { policy, terms, span, until_unix_ms: now_unix_ms.clamp(span.start_ms, span.end_ms) }
    }

    /// The first instant of which receipts are needed, in Unix milliseconds: the burn is also measured over the end of the
    /// month before.
    pub fn since_unix_ms(&self) -> i64 {
        self.span.start_ms.min(self.until_unix_ms.saturating_sub(BURN_WINDOWS_MS[2]))
    }

    /// How much of the month has passed, in milliseconds.
    pub fn elapsed_ms(&self) -> i64 {
        self.until_unix_ms - self.span.start_ms
    }

    /// The whole intervals of five minutes that have passed.
    fn intervals(&self) -> std::ops::Range<i64> {
        let first = self.span.start_ms.div_euclid(INTERVAL_MS);
        first..self.until_unix_ms.div_euclid(INTERVAL_MS).max(first)
    }
}

/// Eligible requests, and those of them that failed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SlaCount {
    /// All that are eligible.
    pub eligible: u64,
    /// Those that failed.
    pub failed: u64,
}

impl SlaCount {
    pub(super) fn add(&mut self, class: SlaClass) {
        self.eligible += u64::from(class != SlaClass::NotEligible);
        self.failed += u64::from(class == SlaClass::Failed);
    }
}

/// An uptime as an exact fraction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlaUptime {
    /// What was up …
    pub good: u128,
    /// … of this, which is not zero.
    pub of: u128,
}

impl SlaUptime {
    /// Whether it is below `threshold_bp` hundredths of a percent; exact.
    pub fn is_below(self, threshold_bp: u32) -> bool {
        self.good * u128::from(super::WHOLE_BP) < u128::from(threshold_bp) * self.of
    }

    /// The same in millionths, rounded down: what is not whole is never shown as whole.
    pub fn millionths(self) -> u32 {
        u32::try_from(self.good * 1_000_000 / self.of).unwrap_or(0)
    }
}

/// What is known of when some gateway of the store was alive, by intervals of five minutes.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct AliveIntervals {
    /// The first interval of which it is known at all; `None`: nothing is known.
    pub first: Option<i64>,
    /// The intervals in which one was alive, as their number since 1970.
    pub alive: BTreeSet<i64>,
}

/// The requests of a policy or of one key.
#[derive(Clone, Default, Debug)]
pub struct SlaTally {
    /// All receipts, eligible or not.
    pub requests: u64,
    /// Those that are eligible.
    pub count: SlaCount,
    /// The same over the last times of [`BURN_WINDOWS_MS`].
    pub recent: [SlaCount; 3],
    /// What all of them cost, in billionths of a dollar.
    pub spend_nanousd: i128,
    /// First tokens of streams.
    pub first_tokens: FirstTokenTally,
    /// Failed requests by hour since 1970 and by reason, each with the first one.
    causes: BTreeMap<(i64, Reason), (u64, RequestId)>,
}

impl SlaTally {
    pub(super) fn add(&mut self, receipt: &SlaReceipt, class: SlaClass, terms: &SlaTerms) {
        self.requests += 1;
        self.count.add(class);
        self.spend_nanousd += i128::from(receipt.cost.0);
        if let Some(first_token) = receipt.first_token.filter(|_| receipt.stream && class != SlaClass::NotEligible) {
            let objective = terms.first_token.is_some_and(|objective| first_token <= objective.within);
            self.first_tokens.add(first_token, objective);
        }
        if class == SlaClass::Failed {
            let hour = receipt.received_unix_ms.div_euclid(HOUR_MS);
            let (count, first) = self.causes.entry((hour, receipt.reason)).or_insert((0, receipt.id));
            *count += 1;
            *first = receipt.id.min(*first);
        }
    }

    /// The hour in which most requests failed, with its three most frequent causes; the first of several.
    pub fn worst_hour(&self) -> Option<SlaWorstHour> {
        let mut failed = BTreeMap::<i64, u64>::new();
        for ((hour, _), (count, _)) in &self.causes {
            *failed.entry(*hour).or_default() += count;
        }
        let (hour, failed) = failed.into_iter().max_by_key(|(hour, failed)| (*failed, -hour))?;
        let of_hour = self.causes.iter().filter(|((at, _), _)| *at == hour);
        let cause = |((_, reason), (failed, example)): (&(i64, Reason), &(u64, RequestId))| SlaCause {
            reason: *reason,
            failed: *failed,
            example: *example,
        };
        let mut causes: Vec<SlaCause> = of_hour.map(cause).collect();
        causes.sort_by_key(|cause| (std::cmp::Reverse(cause.failed), cause.reason));
        causes.truncate(3);
        Some(SlaWorstHour { begins_unix_ms: hour * HOUR_MS, failed, causes })
    }
}

/// The hour in which most requests failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlaWorstHour {
    /// When it begins, in Unix milliseconds.
    pub begins_unix_ms: i64,
    /// How many failed.
    pub failed: u64,
    /// Why: the three most frequent reasons.
    pub causes: Vec<SlaCause>,
}

/// Why requests failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlaCause {
    /// The reason of each.
    pub reason: Reason,
    /// How many failed for it.
    pub failed: u64,
    /// The first of them.
    pub example: RequestId,
}

/// Times to the first token of streams.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct FirstTokenTally {
    /// All of them.
    pub times: DurationTally,
    /// Those within the objective.
    pub within: u64,
}

impl FirstTokenTally {
    fn add(&mut self, first_token: Duration, within: bool) {
        self.times.add(first_token);
        self.within += u64::from(within);
    }
}

/// The requests of one policy in one month, or in what has passed of it.
#[derive(Clone, Debug)]
pub struct SlaMonthTally {
    /// What is counted.
    pub query: SlaQuery,
    /// All of them together.
    pub all: SlaTally,
    /// By key.
    pub keys: BTreeMap<Arc<str>, SlaTally>,
    /// What was spent, in billionths of a dollar, by who gets the credit: the key's team, or the key where it has none.
    pub spend: BTreeMap<Holder, i128>,
    /// By interval, those with eligible requests.
    intervals: BTreeMap<i64, SlaCount>,
    /// What the gateway asked by itself; none of it is in `all`, `keys` and `spend`.
    pub probes: SlaProbeTally,
    /// Intervals in which nothing was asked and no gateway was alive.
    pub dead_intervals: u64,
    /// Receipts that cannot be read, and count for nothing.
    pub unreadable: u64,
}

impl SlaMonthTally {
    /// Nothing is counted yet.
    pub fn new(query: SlaQuery) -> Self {
        Self {
            query,
            all: SlaTally::default(),
            keys: BTreeMap::new(),
            spend: BTreeMap::new(),
            intervals: BTreeMap::new(),
            probes: SlaProbeTally::default(),
            dead_intervals: 0,
            unreadable: 0,
        }
    }

    /// Counts a receipt of the policy, from [`SlaQuery::since_unix_ms`] on.
    pub fn add(&mut self, receipt: &SlaReceipt) {
        let (at, until) = (receipt.received_unix_ms, self.query.until_unix_ms);
        if at >= until {
            return;
        }
        let terms = &*self.query.terms;
        let class = receipt.class(terms);
        let in_month = at >= self.query.span.start_ms;
        if *receipt.key == *PROBE_KEY {
            if in_month {
                self.probes.add(receipt, class, terms);
            }
            return;
        }
        if !self.keys.contains_key(&receipt.key) {
            self.keys.insert(receipt.key.clone(), SlaTally::default());
        }
        let own = self.keys.get_mut(&receipt.key);
        for tally in std::iter::once(&mut self.all).chain(own) {
            for (recent, window) in tally.recent.iter_mut().zip(BURN_WINDOWS_MS) {
                if at >= until.saturating_sub(window) {
                    recent.add(class);
                }
            }
            if in_month {
                tally.add(receipt, class, terms);
            }
        }
        if in_month {
            if class != SlaClass::NotEligible {
                self.intervals.entry(at.div_euclid(INTERVAL_MS)).or_default().add(class);
            }
            *self.spend.entry(credited(receipt)).or_default() += i128::from(receipt.cost.0);
        }
    }

    /// Counts the intervals in which nothing was asked, because no gateway was there to be asked.
    pub fn count_dead(&mut self, known: &AliveIntervals) {
        let Some(first) = known.first else { return };
        let passed = self.query.intervals();
        let asked = |at: &i64| self.intervals.contains_key(at) || self.probes.has(*at);
        let dead = |at: &i64| !known.alive.contains(at) && !asked(at);
        self.dead_intervals = (passed.start.max(first)..passed.end).filter(dead).count() as u64;
    }

    /// How many intervals count by their probes, because nothing else was eligible in them.
    pub fn probed_intervals(&self) -> u64 {
        self.probes.without(&self.intervals).count() as u64
    }

    /// The uptime of the policy by its measure; `None` where nothing was asked, or no interval has passed.
    pub fn uptime(&self) -> Option<SlaUptime> {
        let share = |down: u128, of: u128| (of > 0).then(|| SlaUptime { good: of.saturating_sub(down), of });
        match self.query.terms.measure {
            SlaMeasure::Requests => {
                let probed: Vec<u64> =
                    self.probes.without(&self.intervals).map(|(_, count)| failed_billionths(count)).collect();
                if probed.is_empty() {
                    return uptime_of(self.all.count);
                }
                // An interval counts as one request, however often it was probed.
                let SlaCount { eligible, failed } = self.all.count;
                let of = u128::from(eligible) + probed.len() as u128;
                let down = u128::from(failed) * u128::from(BILLION) + probed.into_iter().map(u128::from).sum::<u128>();
                share(down, of * u128::from(BILLION))
            }
            SlaMeasure::FiveMinutes => {
                let passed = self.query.intervals();
                let of = u128::from(passed.clone().count() as u64) * u128::from(BILLION);
                let asked = self.intervals.iter().map(|(at, count)| (*at, *count));
                let counted = asked.chain(self.probes.without(&self.intervals)).filter(|(at, _)| passed.contains(at));
                let down: u128 = counted.map(|(_, count)| u128::from(failed_billionths(count))).sum();
                share(down + u128::from(self.dead_intervals) * u128::from(BILLION), of)
            }
        }
    }
}

/// The share of the requests that did not fail.
pub fn uptime_of(count: SlaCount) -> Option<SlaUptime> {
    let SlaCount { eligible, failed } = count;
    (eligible > 0).then(|| SlaUptime { good: u128::from(eligible - failed), of: u128::from(eligible) })
}

/// The failed share of an interval with eligible requests, in billionths, rounded up.
fn failed_billionths(SlaCount { eligible, failed }: SlaCount) -> u64 {
    let share = (u128::from(failed) * u128::from(BILLION)).div_ceil(u128::from(eligible.max(1)));
    u64::try_from(share).unwrap_or(BILLION)
}

/// Who gets the credit of a request.
fn credited(receipt: &SlaReceipt) -> Holder {
    match &receipt.team {
        Some(team) => Holder { scope: Scope::Team, name: team.clone() },
        None => Holder { scope: Scope::Key, name: receipt.key.clone() },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::month::SlaMonth;
    use super::super::tests::{served, terms};
    use super::*;
    use crate::domain::receipt::Outcome;

    /// 2026-11-01T00:00:00Z, in Unix milliseconds.
    pub(crate) const NOVEMBER: i64 = 1_793_491_200_000;

    /// The whole of November 2026.
    pub(crate) fn november(terms: SlaTerms) -> SlaQuery {
        let span = SlaMonth::parse("2026-11").expect("a month").span(&terms.zone);
        assert_eq!(span.start_ms, NOVEMBER);
        SlaQuery::new("pro".into(), Arc::new(terms), span, i64::MAX)
    }

    pub(crate) fn failed(number: u128, key: &str, received_unix_ms: i64, reason: Reason) -> SlaReceipt {
        let outcome = Outcome::Failed;
        SlaReceipt { outcome, reason, status: 502, first_token: None, ..served(number, key, received_unix_ms) }
    }

    fn tally(query: SlaQuery, receipts: impl IntoIterator<Item = SlaReceipt>) -> SlaMonthTally {
        let mut tally = SlaMonthTally::new(query);
        receipts.into_iter().for_each(|receipt| tally.add(&receipt));
        tally
    }

    #[test]
    fn requests_of_the_month_are_counted_and_no_others() {
        let end = NOVEMBER + 30 * 24 * HOUR_MS;
        let at = [NOVEMBER - 1, NOVEMBER, end - 1, end];
        let tally = tally(november(terms()), at.into_iter().enumerate().map(|(n, at)| served(n as u128, "app", at)));
        assert_eq!((tally.all.requests, tally.all.count), (2, SlaCount { eligible: 2, failed: 0 }));
        assert_eq!(tally.all.spend_nanousd, 2_000_000);
    }

    #[test]
    fn uptime_is_exact() {
        let check = |eligible: u64, failed: u64, below: u32, expected: bool, shown: u32| {
            let uptime = uptime_of(SlaCount { eligible, failed }).expect("something is eligible");
            assert_eq!(uptime.is_below(below), expected, "{failed} of {eligible} below {below}");
            assert_eq!(uptime.millionths(), shown, "{failed} of {eligible}");
        };
        check(1_000, 1, 9_990, false, 999_000);
        check(1_000_000, 1_001, 9_990, true, 998_999);
        check(10_000, 13, 9_990, true, 998_700);
        check(3, 1, 6_667, true, 666_666);
        check(1_000_000_000, 1, 10_000, true, 999_999);
        check(7, 0, 10_000, false, 1_000_000);
        assert_eq!(uptime_of(SlaCount::default()), None);
    }

    #[test]
    fn five_minutes_weigh_alike_however_much_was_asked_in_them() {
        let terms = SlaTerms { measure: SlaMeasure::FiveMinutes, ..terms() };
        // 300 good in the first interval; one of three failed in the second: a third, rounded up.
        let mut receipts: Vec<SlaReceipt> = (0..300).map(|n| served(n, "app", NOVEMBER)).collect();
        receipts.extend([served(301, "app", NOVEMBER + INTERVAL_MS), served(302, "app", NOVEMBER + INTERVAL_MS)]);
        receipts.push(failed(303, "app", NOVEMBER + 2 * INTERVAL_MS - 1, Reason::Reset));
        let mut tally = tally(november(terms), receipts);
        let of = 30 * 288 * u128::from(BILLION);
        assert_eq!(tally.uptime(), Some(SlaUptime { good: of - 333_333_334, of }));
        // Known from the fourth interval on; alive in the fourth and from the eleventh on: six were dead.
        let begin = NOVEMBER / INTERVAL_MS;
        let alive = std::iter::once(begin + 3).chain(begin + 10..begin + 30 * 288).collect();
        tally.count_dead(&AliveIntervals { first: Some(begin + 3), alive });
        assert_eq!(tally.dead_intervals, 6);
        assert_eq!(tally.uptime(), Some(SlaUptime { good: of - 6_333_333_334, of }));
    }

    #[test]
    fn an_interval_in_which_something_was_asked_was_not_dead() {
        let mut tally = tally(november(terms()), [served(1, "app", NOVEMBER + INTERVAL_MS)]);
        let begin = NOVEMBER / INTERVAL_MS;
        tally.count_dead(&AliveIntervals { first: Some(begin - 9), alive: (begin + 3..begin + 9_000).collect() });
        assert_eq!(tally.dead_intervals, 2);
        tally.count_dead(&AliveIntervals::default());
        assert_eq!(tally.dead_intervals, 2, "nothing is known");
    }

    #[test]
    fn credit_belongs_to_the_team_where_there_is_one() {
        let of_team = SlaReceipt { team: Some("growth".into()), ..served(1, "app", NOVEMBER) };
        let tally = tally(november(terms()), [of_team.clone(), of_team, served(2, "app", NOVEMBER)]);
        let spend: Vec<String> =
            tally.spend.iter().map(|(holder, sum)| format!("{} {} {sum}", holder.scope.label(), holder.name)).collect();
        assert_eq!(spend, ["key app 1000000", "team growth 2000000"]);
    }

    #[test]
    fn the_worst_hour_names_its_causes() {
        let mut receipts = vec![failed(1, "app", NOVEMBER, Reason::Reset)];
        let hour = NOVEMBER + 5 * HOUR_MS;
        let reasons = [(Reason::UpstreamStatus, 4), (Reason::Reset, 2), (Reason::Truncated, 1), (Reason::Silent, 3)];
        for (reason, count) in reasons {
            receipts.extend((0..count).map(|n| failed(100 - n, "app", hour + 1, reason)));
        }
        let worst = tally(november(terms()), receipts).all.worst_hour().expect("something failed");
        assert_eq!((worst.begins_unix_ms, worst.failed), (hour, 10));
        let causes: Vec<(Reason, u64, u128)> =
            worst.causes.iter().map(|cause| (cause.reason, cause.failed, cause.example.0)).collect();
        assert_eq!(causes, [(Reason::UpstreamStatus, 4, 97), (Reason::Silent, 3, 98), (Reason::Reset, 2, 99)]);
    }

    #[test]
    fn first_tokens_of_streams_are_within_the_objective_or_not() {
        let first = |number, ms, stream| SlaReceipt {
            first_token: Some(Duration::from_millis(ms)),
            stream,
            ..served(number, "app", NOVEMBER)
        };
        let receipts = [first(1, 400, true), first(2, 500, true), first(3, 501, true), first(4, 100, false)];
        let found = tally(november(terms()), receipts).all.first_tokens;
        assert_eq!((found.times.count, found.within), (3, 2));
    }

    #[test]
    fn recent_requests_may_lie_in_the_month_before() {
        let query = SlaQuery { until_unix_ms: NOVEMBER + HOUR_MS, ..november(terms()) };
        assert_eq!(query.since_unix_ms(), NOVEMBER - 71 * HOUR_MS);
        let tally = tally(query, [served(1, "app", NOVEMBER - HOUR_MS), failed(2, "app", NOVEMBER, Reason::Reset)]);
        let count = |eligible, failed| SlaCount { eligible, failed };
        assert_eq!(tally.all.recent, [count(1, 1), count(2, 1), count(2, 1)]);
        assert_eq!(tally.all.count, count(1, 1));
    }
}
