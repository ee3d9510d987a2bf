//! The report of an SLA: what is left of the error budget, how fast it is used up, and what credit follows.
//!
//! Start reading at [`SlaReport::new`].

use super::closing::{self, SlaClosing};
use super::month::SlaMonth;
use super::tally::{SlaCount, SlaMonthTally, SlaTally, SlaUptime, uptime_of};
use super::{SlaCreditStep, WHOLE_BP};
use std::sync::Arc;

/// A month of a policy, or what has passed of it.
#[derive(Clone, Debug)]
pub struct SlaReport {
    /// The month.
    pub month: SlaMonth,
    /// What was counted, and by which terms.
    pub tally: SlaMonthTally,
    /// The policy's figures.
    pub all: SlaFigures,
    /// Those of each key, by requests.
    pub keys: Vec<(Arc<str>, SlaFigures)>,
    /// The step that would apply if the month were closed as it is.
    pub step: Option<SlaCreditStep>,
    /// The statements about the month, the closing first.
    pub closings: Vec<SlaClosing>,
}

/// Figures that are computed from a tally.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlaFigures {
    /// `None` where nothing was asked.
    pub uptime: Option<SlaUptime>,
    /// What is left of the time that may be down in the month, in milliseconds; below zero, the promise is not kept.
    pub budget_left_ms: i64,
    /// How fast the error budget was used up in the last hour, six hours and three days: 1000 uses up all of it in just the
    /// month. `None` where nothing was asked, or nothing may fail.
    pub burn_thousandths: [Option<u64>; 3],
}

impl SlaReport {
    /// The report of what was counted in `month`, of which there are these statements.
    pub fn new(month: SlaMonth, tally: SlaMonthTally, closings: Vec<SlaClosing>) -> Self {
        let all = figures(&tally, &tally.all, tally.uptime());
        let keys = tally.keys.iter().filter(|(_, own)| own.requests > 0);
        let keys = keys.map(|(key, own)| (key.clone(), figures(&tally, own, uptime_of(own.count)))).collect();
        let step = closing::step(&tally.query.terms, tally.uptime(), tally.all.count.eligible);
        Self { month, tally, all, keys, step, closings }
    }

    /// Whether the month is over.
    pub fn is_over(&self) -> bool {
        self.tally.query.until_unix_ms >= self.tally.query.span.end_ms
    }
}

fn figures(tally: &SlaMonthTally, own: &SlaTally, uptime: Option<SlaUptime>) -> SlaFigures {
    let query = &tally.query;
    let may_fail_bp = WHOLE_BP.saturating_sub(query.terms.uptime_bp);
    let whole_ms = i128::from(query.span.end_ms - query.span.start_ms);
    let down_ms = uptime.map_or(0, |SlaUptime { good, of }| {
        let bad = i128::try_from(of - good.min(of)).unwrap_or(i128::MAX);
        let of = i128::try_from(of).unwrap_or(i128::MAX);
        (bad.saturating_mul(i128::from(query.elapsed_ms())) + of - 1) / of
    });
    let left = whole_ms * i128::from(may_fail_bp) / i128::from(WHOLE_BP) - down_ms;
    SlaFigures {
        uptime,
        budget_left_ms: i64::try_from(left).unwrap_or(i64::MIN),
        burn_thousandths: own.recent.map(|count| burn(count, may_fail_bp)),
    }
}

fn burn(SlaCount { eligible, failed }: SlaCount, may_fail_bp: u32) -> Option<u64> {
    let may_fail = u128::from(eligible) * u128::from(may_fail_bp);
    let burn = (u128::from(failed) * u128::from(WHOLE_BP) * 1_000).checked_div(may_fail)?;
    u64::try_from(burn).ok()
}

#[cfg(test)]
mod tests {
    use super::super::tally::tests::november;
    use super::super::tests::terms;
    use super::super::{SlaTerms, tally::SlaQuery};
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn report(terms: SlaTerms, days: i64, count: SlaCount) -> SlaReport {
        let query = november(terms);
        let query = SlaQuery { until_unix_ms: query.span.start_ms + days * DAY_MS, ..query };
        let mut tally = SlaMonthTally::new(query);
        (tally.all.count, tally.all.recent) = (count, [count, SlaCount::default(), count]);
        SlaReport::new(SlaMonth::parse("2026-11").expect("a month"), tally, Vec::new())
    }

    #[test]
    fn the_error_budget_is_of_the_month_and_used_up_as_time_passes() {
        let check = |days, failed, expected_ms| {
            let report = report(terms(), days, SlaCount { eligible: 10_000, failed });
            assert_eq!(report.all.budget_left_ms, expected_ms, "{failed} failed in {days} days");
            assert_eq!(report.is_over(), days == 30);
        };
        // 0.1 % of 30 days is 43.2 minutes.
        check(30, 0, 2_592_000);
        check(30, 10, 0);
        check(30, 13, -777_600);
        check(15, 10, 1_296_000);
    }

    #[test]
    fn burn_is_the_failed_share_by_what_may_fail() {
        let burn = report(terms(), 30, SlaCount { eligible: 1_000, failed: 14 }).all.burn_thousandths;
        assert_eq!(burn, [Some(14_000), None, Some(14_000)], "nothing was asked in the second");
        let nothing_may = SlaTerms { uptime_bp: WHOLE_BP, ..terms() };
        assert_eq!(report(nothing_may, 30, SlaCount { eligible: 9, failed: 1 }).all.burn_thousandths, [None; 3]);
    }
}
