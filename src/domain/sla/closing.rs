//! Closing a month: from what was counted to the credit that is granted.
//!
//! A closing is a statement that is never changed. Where receipts arrive later, a further statement is made, which grants what
//! is due beyond what was granted; it never takes credit back. Amounts are whole billionths of a dollar, each rounded up once,
//! in favour of whoever gets the credit.
//!
//! Start reading at [`close`].

use super::month::SlaMonth;
use super::tally::{SlaMonthTally, SlaUptime};
use super::{SlaCreditStep, SlaTerms, WHOLE_BP, percent_text};
use crate::domain::money::NanoUsd;
use crate::domain::register::{Grant, Holder};
use std::sync::Arc;

/// One statement about a month of a policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlaClosing {
    /// The policy.
    pub policy: Arc<str>,
    /// The month.
    pub month: SlaMonth,
    /// 1 for the closing; each restatement has the next number.
    pub statement: u32,
    /// When it was made, in Unix milliseconds.
    pub closed_unix_ms: i64,
    /// All receipts of the month, as they were counted.
    pub requests: u64,
    /// The eligible ones.
    pub eligible: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// The uptime in millionths, rounded down; `None` where nothing was asked.
    pub uptime_millionths: Option<u32>,
    /// The step that applies; `None`: no credit is due.
    pub step: Option<SlaCreditStep>,
    /// What is due, for everybody to whom anything is.
    pub credits: Vec<SlaCredit>,
}

/// What is due to one key or team.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlaCredit {
    /// Who gets it.
    pub holder: Holder,
    /// What was spent in the month.
    pub spend: NanoUsd,
    /// The credit for the whole month.
    pub due: NanoUsd,
    /// The part of it that this statement grants: what no earlier one did.
    pub granted: NanoUsd,
}

/// The step that an uptime of so many eligible requests leads to: of several, the last.
pub fn step(terms: &SlaTerms, uptime: Option<SlaUptime>, eligible: u64) -> Option<SlaCreditStep> {
    let uptime = uptime.filter(|_| eligible >= terms.min_requests)?;
    terms.credits.iter().rfind(|step| uptime.is_below(step.below_bp)).copied()
}

/// The next statement about `month`, after the `earlier` ones about it.
pub fn close(month: SlaMonth, tally: &SlaMonthTally, earlier: &[SlaClosing], now_unix_ms: i64) -> SlaClosing {
    let uptime = tally.uptime();
    let step = step(&tally.query.terms, uptime, tally.all.count.eligible);
    let credits = step.map_or_else(Vec::new, |step| {
        let of_holder = |(holder, spend): (&Holder, &i128)| credit(holder, *spend, step, earlier);
        tally.spend.iter().map(of_holder).filter(|credit| credit.due > NanoUsd::ZERO).collect()
    });
    SlaClosing {
        policy: tally.query.policy.clone(),
        month,
        statement: u32::try_from(earlier.len() + 1).unwrap_or(u32::MAX),
        closed_unix_ms: now_unix_ms,
        requests: tally.all.requests,
        eligible: tally.all.count.eligible,
        failed: tally.all.count.failed,
        uptime_millionths: uptime.map(SlaUptime::millionths),
        step,
        credits,
    }
}

fn credit(holder: &Holder, spend: i128, step: SlaCreditStep, earlier: &[SlaClosing]) -> SlaCredit {
    let whole = |amount: i128| NanoUsd(i64::try_from(amount).unwrap_or(i64::MAX));
    let due = share_of(spend, step.credit_bp);
    let credits = earlier.iter().flat_map(|closing| &closing.credits).filter(|credit| credit.holder == *holder);
    let granted: i128 = credits.map(|credit| i128::from(credit.granted.0)).sum();
    SlaCredit { holder: holder.clone(), spend: whole(spend), due: whole(due), granted: whole((due - granted).max(0)) }
}

/// `share_bp` hundredths of a percent of `spend`, rounded up; of less than nothing, nothing.
fn share_of(spend: i128, share_bp: u32) -> i128 {
    let (parts, whole) = (spend.max(0) * i128::from(share_bp), i128::from(WHOLE_BP));
    (parts + whole - 1) / whole
}

impl SlaClosing {
    /// The grants that it makes, with the reason and the figures.
    pub fn grants(&self) -> Vec<Grant> {
        let grant = |credit: &SlaCredit| Grant {
            id: 0,
            holder: credit.holder.clone(),
            amount: credit.granted,
            reason: self.reason(credit).into(),
            by: "sla".into(),
            granted_unix_ms: self.closed_unix_ms,
        };
        self.credits.iter().filter(|credit| credit.granted > NanoUsd::ZERO).map(grant).collect()
    }

    /// All that it grants.
    pub fn granted(&self) -> NanoUsd {
        NanoUsd(self.credits.iter().fold(0, |sum, credit| sum.saturating_add(credit.granted.0)))
    }

    fn reason(&self, credit: &SlaCredit) -> String {
        let Self { policy, month, statement, eligible, failed, .. } = self;
        let restated = if *statement > 1 { format!(", restated ({statement})") } else { String::new() };
        let uptime = self.uptime_millionths.map_or_else(|| "none".to_owned(), |uptime| percent_text(uptime, 4));
        let (below, share) = self.step.map_or((0, 0), |step| (step.below_bp, step.credit_bp));
        let (below, share) = (percent_text(below, 2), percent_text(share, 2));
        let SlaCredit { spend, due, .. } = credit;
        format!(
            "SLA of {policy} for {month}{restated}: uptime {uptime}, {failed} of {eligible} requests failed; below {below}, \
             {share} of {spend} USD spent: {due} USD"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::tally::SlaCount;
    use super::super::tally::tests::{NOVEMBER, november};
    use super::super::tests::{served, terms};
    use super::*;
    use crate::domain::budget::Scope;

    fn holder(name: &str) -> Holder {
        Holder { scope: Scope::Key, name: name.into() }
    }

    /// A month with this count, in which `app` spent so much.
    fn tally(eligible: u64, failed: u64, spend: i128) -> SlaMonthTally {
        let mut tally = SlaMonthTally::new(november(terms()));
        tally.all.count = SlaCount { eligible, failed };
        tally.all.requests = eligible;
        tally.spend.insert(holder("app"), spend);
        tally
    }

    fn closed(tally: &SlaMonthTally, earlier: &[SlaClosing]) -> SlaClosing {
        close(SlaMonth::parse("2026-11").expect("a month"), tally, earlier, 7)
    }

    #[test]
    fn credit_is_a_share_of_what_was_spent_rounded_up() {
        let check = |eligible, failed, spend, expected: Option<i64>| {
            let closing = closed(&tally(eligible, failed, spend), &[]);
            let granted = closing.credits.first().map(|credit| credit.granted.0);
            assert_eq!(granted, expected, "{failed} of {eligible}, {spend} spent");
        };
        // Kept: 99.9 % is not below 99.9 %.
        check(10_000, 10, 1_000_000_000, None);
        check(10_000, 11, 1_000_000_000, Some(100_000_000));
        check(10_000, 13, 12_345_678_901, Some(1_234_567_891));
        check(10_000, 100, 1_000_000_000, Some(100_000_000));
        check(10_000, 101, 1_000_000_000, Some(250_000_000));
        check(10_000, 13, 1, Some(1));
        check(10_000, 13, 0, None);
        // Too few requests, and just enough.
        check(99, 99, 1_000_000_000, None);
        check(100, 100, 1_000_000_000, Some(250_000_000));
        check(0, 0, 0, None);
    }

    #[test]
    fn a_restatement_grants_what_is_due_beyond_and_never_takes_back() {
        let first = closed(&tally(10_000, 13, 1_000), &[]);
        assert_eq!((first.statement, first.granted()), (1, NanoUsd(100)));
        let more = closed(&tally(10_001, 13, 1_501), std::slice::from_ref(&first));
        assert_eq!((more.statement, more.credits[0].due, more.granted()), (2, NanoUsd(151), NanoUsd(51)));
        let earlier = [first, more];
        let better = closed(&tally(1_000_000, 13, 2_000), &earlier);
        assert_eq!((better.step, better.granted()), (None, NanoUsd::ZERO), "what was granted stays");
        let worse = closed(&tally(10_002, 200, 1_501), &earlier);
        assert_eq!((worse.credits[0].due, worse.granted()), (NanoUsd(376), NanoUsd(376 - 151)));
        assert!(better.grants().is_empty());
    }

    #[test]
    fn a_grant_says_what_it_is_for() {
        let closing = closed(&tally(10_000, 13, 12_340_000_000), &[]);
        let [grant] = &closing.grants()[..] else { panic!("one grant") };
        assert_eq!((&grant.holder, grant.amount, grant.granted_unix_ms), (&holder("app"), NanoUsd(1_234_000_000), 7));
        assert_eq!(
            &*grant.reason,
            "SLA of pro for 2026-11: uptime 99.87%, 13 of 10000 requests failed; below 99.9%, 10% of 12.34 USD spent: \
             1.234 USD"
        );
    }

    #[test]
    fn everybody_gets_a_share_of_their_own() {
        let mut tally = SlaMonthTally::new(november(terms()));
        (0..100).for_each(|n| tally.add(&served(n, if n < 30 { "app" } else { "batch" }, NOVEMBER)));
        tally.all.count.failed = 1;
        let credits: Vec<i64> = closed(&tally, &[]).credits.iter().map(|credit| credit.granted.0).collect();
        assert_eq!(credits, [3_000_000, 7_000_000]);
    }
}
