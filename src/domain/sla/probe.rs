//! Probes of an SLA: requests that the gateway makes by itself, so that time in which nobody else asks is measured too.
//!
//! A probe takes the path of any request and leaves a receipt, under a name that no key can have. It counts in intervals of
//! five minutes without an eligible request, and nowhere else: neither for a key nor for a credit.
//!
//! Start reading at [`SlaProbeTally`]; what a probe asks for is [`SlaProbe::of`].

// circle: tally.rs: probes are counted as requests are, and a month counts both.
use super::tally::{INTERVAL_MS, SlaCount, SlaTally};
use super::{SlaClass, SlaReceipt, SlaTerms};
use crate::domain::call::Endpoint;
use crate::domain::limit::Limits;
use crate::domain::policy::{KeyRecord, Policy, PolicyMoney, ResolvedName};
use crate::domain::register::KeyOverrides;
use crate::domain::routing::table::{RESERVED_PREFIX, RoutingTable};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The name of the key on receipts of probes. It has a blank, which no other key may have.
pub const PROBE_KEY: &str = "sla probe";
/// What probes may be apart: not so little that they are a load, and not more than the interval that they are to measure.
pub const PROBES_APART: [Duration; 2] = [Duration::from_secs(5), Duration::from_millis(INTERVAL_MS.unsigned_abs())];

/// What a probe of a policy asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlaProbe {
    /// The policy.
    pub policy: Arc<str>,
    /// The endpoint: chat, or embeddings where the policy has no model with chat.
    pub endpoint: Endpoint,
    /// The name that it asks for.
    pub model: Box<str>,
}

impl SlaProbe {
    /// The probe of `policy`: of its first tier with chat, or else the first such model; `None` where it may use neither chat
    /// nor embeddings.
    pub fn of(table: &RoutingTable, policy: &Policy) -> Option<Self> {
        [Endpoint::Chat, Endpoint::Embeddings].into_iter().find_map(|endpoint| {
            let model = match policy.first_serving(table, endpoint)? {
                ResolvedName::Plain(target) => table.target_name(target).as_ref().into(),
                ResolvedName::Reserved(model) => format!("{RESERVED_PREFIX}{}", table.model(model).name).into(),
            };
            Some(Self { policy: policy.name.clone(), endpoint, model })
        })
    }
}

/// What probes of `policy` are measured by: what its keys may do, without limits, budgets and credit.
pub fn probe_record(policy: &Policy) -> KeyRecord {
    let (limits, money) = (Limits::default(), PolicyMoney::default());
    let policy = Arc::new(Policy { limits, money, ..policy.clone() });
    KeyRecord::of(PROBE_KEY.into(), &policy, None, &KeyOverrides::default(), None)
}

/// The probes of one policy in one month, or in what has passed of it.
#[derive(Clone, Default, Debug)]
pub struct SlaProbeTally {
    /// All of them, whether or not they count.
    pub sent: SlaTally,
    /// By interval, those with eligible probes.
    intervals: BTreeMap<i64, SlaCount>,
}

impl SlaProbeTally {
    /// Counts the receipt of a probe in the month.
    pub(super) fn add(&mut self, receipt: &SlaReceipt, class: SlaClass, terms: &SlaTerms) {
        self.sent.add(receipt, class, terms);
        if class != SlaClass::NotEligible {
            self.intervals.entry(receipt.received_unix_ms.div_euclid(INTERVAL_MS)).or_default().add(class);
        }
    }

    /// The intervals with probes, of which those are left out that `others` has requests of.
    pub(super) fn without<'a>(
        &'a self,
        others: &'a BTreeMap<i64, SlaCount>,
    ) -> impl Iterator<Item = (i64, SlaCount)> + 'a {
        self.intervals.iter().filter(|(at, _)| !others.contains_key(at)).map(|(at, count)| (*at, *count))
    }

    /// Whether a probe was sent in the interval.
    pub(super) fn has(&self, interval: i64) -> bool {
        self.intervals.contains_key(&interval)
    }
}

#[cfg(test)]
mod tests {
    use super::super::closing::step;
    use super::super::tally::tests::{NOVEMBER, failed, november};
    use super::super::tally::{AliveIntervals, SlaMonthTally, SlaUptime};
    use super::super::tests::{served, terms};
    use super::super::{SlaMeasure, SlaTerms};
    use super::*;
    use crate::domain::id::is_name;
    use crate::domain::reason::Reason;
    use crate::domain::routing::fixture;

    const BILLION: u128 = 1_000_000_000;

    fn tally(measure: SlaMeasure, receipts: impl IntoIterator<Item = SlaReceipt>) -> SlaMonthTally {
        let mut tally = SlaMonthTally::new(november(SlaTerms { measure, ..terms() }));
        receipts.into_iter().for_each(|receipt| tally.add(&receipt));
        tally
    }

    /// Ten probes in interval `number` of the month, of which so many failed.
    fn probes(number: i64, down: u32) -> impl Iterator<Item = SlaReceipt> {
        (0..10).map(move |at| {
            let (id, received) = (u128::from(at) + 1, NOVEMBER + number * INTERVAL_MS + i64::from(at) * 30_000);
            match at < down {
                true => failed(id, PROBE_KEY, received, Reason::Unreachable),
                false => served(id, PROBE_KEY, received),
            }
        })
    }

    #[test]
    fn no_key_can_be_called_as_probes_are() {
        assert!(!is_name(PROBE_KEY));
    }

    #[test]
    fn an_interval_without_other_requests_counts_by_its_probes() {
        let receipts =
            || (0..8).flat_map(|number| probes(number, if number < 2 { 10 } else { 3 * (number as u32 % 2) }));
        let five = tally(SlaMeasure::FiveMinutes, receipts());
        let of = 30 * 288 * BILLION;
        // Two wholly down, and three of the six others by three tenths.
        assert_eq!(five.uptime(), Some(SlaUptime { good: of - 2_900_000_000, of }));
        let requests = tally(SlaMeasure::Requests, receipts());
        assert_eq!(requests.uptime(), Some(SlaUptime { good: 5_100_000_000, of: 8 * BILLION }));
        assert_eq!((requests.probed_intervals(), requests.probes.sent.count.failed), (8, 29));
    }

    #[test]
    fn an_interval_with_a_request_does_not_count_by_its_probes() {
        for measure in [SlaMeasure::Requests, SlaMeasure::FiveMinutes] {
            let clients = (0..8).map(|number| served(900, "app", NOVEMBER + number * INTERVAL_MS));
            let without = tally(measure, clients.clone());
            let all = tally(measure, clients.chain((0..8).flat_map(|number| probes(number, 10))));
            assert_eq!((all.uptime(), all.probed_intervals()), (without.uptime(), 0), "{measure:?}");
        }
        // One that is not eligible leaves the interval to the probes.
        let rejected = SlaReceipt { status: 400, ..failed(900, "app", NOVEMBER, Reason::Rejected) };
        let all = tally(SlaMeasure::FiveMinutes, std::iter::once(rejected).chain(probes(0, 10)));
        assert_eq!(all.probed_intervals(), 1);
    }

    #[test]
    fn how_often_is_probed_changes_no_uptime() {
        let client = || failed(900, "app", NOVEMBER, Reason::Reset);
        let check = |each: usize| {
            let probes = (1..9).flat_map(|number| probes(number, 0).step_by(each));
            tally(SlaMeasure::Requests, std::iter::once(client()).chain(probes)).uptime()
        };
        assert_eq!(check(1), check(10));
        assert_eq!(check(1), Some(SlaUptime { good: 8 * BILLION, of: 9 * BILLION }));
    }

    #[test]
    fn probes_are_nobodys_requests_and_nobodys_spend() {
        let all = tally(SlaMeasure::Requests, (0..99).flat_map(|number| probes(number, 10)));
        assert_eq!((all.all.requests, all.all.count, all.keys.len(), all.spend.len()), (0, SlaCount::default(), 0, 0));
        assert_eq!(all.all.recent, [SlaCount::default(); 3]);
        assert_eq!(step(&all.query.terms, all.uptime(), all.all.count.eligible), None, "nobody asked");
        assert_eq!(all.probes.sent.spend_nanousd, 990_000_000, "what they cost is seen");
    }

    #[test]
    fn an_interval_that_was_probed_was_not_dead() {
        let mut tally = tally(SlaMeasure::FiveMinutes, probes(5, 0));
        let begin = NOVEMBER / INTERVAL_MS;
        tally.count_dead(&AliveIntervals { first: Some(begin), alive: (begin + 10..begin + 30 * 288).collect() });
        assert_eq!(tally.dead_intervals, 9);
    }

    #[test]
    fn a_probe_asks_for_what_the_policy_may_use_and_is_measured_by_no_limit() {
        let table = fixture::table(&[("big", &["us"])], &[("default", &["big"], &[])]);
        let policy = fixture::policy(&table, &["default"]);
        let probe = SlaProbe::of(&table, &policy).expect("it may use a model");
        assert_eq!((&*probe.policy, probe.endpoint, &*probe.model), (&*policy.name, Endpoint::Chat, "default"));
        assert_eq!(SlaProbe::of(&table, &Policy::deny_all("none".into())), None);
        let limited = Policy { limits: Limits { requests_per_minute: Some(1), ..Limits::default() }, ..policy };
        let record = probe_record(&limited);
        assert_eq!((&*record.name, record.limits, record.budgets.len()), (PROBE_KEY, Limits::default(), 0));
        assert_eq!((record.policy.limits, &record.policy.name), (Limits::default(), &limited.name));
    }
}
