//! What a ledger knows of how requests are served: how fast, where, and what became of those that were not.
//!
//! It counts what a buyer asks before anything is promised to them. Requests that met an injected fault are counted apart:
//! a rehearsal says nothing of how requests are served otherwise.
//!
//! Start reading at [`PostureTally::add`].

use super::duration_tally::DurationTally;
use super::reason::Reason;
use super::receipt::Outcome;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Which receipts are counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PostureQuery {
    /// Only those under this policy.
    pub policy: Option<Arc<str>>,
    /// Received at this instant or later, in Unix milliseconds …
    pub since_unix_ms: i64,
    /// … and before this one.
    pub until_unix_ms: i64,
}

/// What is read of a receipt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PostureReceipt {
    /// The tier through which a deployment was reached; `None` for a model outside every tier.
    pub tier: Option<Arc<str>>,
    /// The region of the deployment that answered, or that was tried last.
    pub region: Option<Arc<str>>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// The reason of that end.
    pub reason: Reason,
    /// From the request received to its first token; `None`: nothing answered.
    pub first_token: Option<Duration>,
    /// From the request received to its end.
    pub duration: Duration,
    /// From the first attempt sent to the answer of another one.
    pub failover: Option<Duration>,
    /// Whether an injected fault may have changed what became of it.
    pub injected: bool,
}

/// Receipts of known keys, counted one by one.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PostureTally {
    /// All requests but those that met an injected fault.
    pub requests: u64,
    /// Those that did: they are in no other figure.
    pub rehearsed: u64,
    /// Refused because a limit of their key was reached.
    pub limited: u64,
    /// Refused although within their limits, because everything was full.
    pub shed: u64,
    /// Answers by tier and region.
    pub answers: BTreeMap<(Option<Arc<str>>, Arc<str>), AnswerTally>,
    /// Of requests that another attempt than the first answered: from that first one sent to the answer.
    pub failovers: DurationTally,
    /// Receipts that cannot be read.
    pub unreadable: u64,
}

/// Answers that began.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct AnswerTally {
    /// All of them.
    pub count: u64,
    /// Of streams, the time to the first token.
    pub first_tokens: DurationTally,
    /// Of whole answers that came complete, the time until all of it was there.
    pub whole: DurationTally,
}

impl PostureTally {
    /// Counts a receipt of the query.
    pub fn add(&mut self, receipt: &PostureReceipt) {
        if receipt.injected {
            self.rehearsed += 1;
            return;
        }
        self.requests += 1;
        self.limited += u64::from(receipt.reason == Reason::RateLimitExceeded);
        self.shed += u64::from(receipt.reason == Reason::SlowDown);
        let (Some(first_token), Some(region)) = (receipt.first_token, &receipt.region) else { return };
        let answers = self.answers.entry((receipt.tier.clone(), region.clone())).or_default();
        answers.count += 1;
        match receipt.stream {
            true => answers.first_tokens.add(first_token),
            false if receipt.outcome == Outcome::Served => answers.whole.add(receipt.duration),
            false => {}
        }
        if let Some(failover) = receipt.failover {
            self.failovers.add(failover);
        }
    }

    /// All answers.
    pub fn answered(&self) -> u64 {
        self.answers.values().map(|answers| answers.count).sum()
    }

    /// Answers by region, most first.
    pub fn by_region(&self) -> Vec<(Arc<str>, u64)> {
        let mut counts = BTreeMap::<Arc<str>, u64>::new();
        for ((_, region), answers) in &self.answers {
            *counts.entry(region.clone()).or_default() += answers.count;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(region: &str, stream: bool, first_token_ms: u64) -> PostureReceipt {
        PostureReceipt {
            tier: Some("default".into()),
            region: Some(region.into()),
            stream,
            outcome: Outcome::Served,
            reason: Reason::Served,
            first_token: Some(Duration::from_millis(first_token_ms)),
            duration: Duration::from_millis(900),
            failover: None,
            injected: false,
        }
    }

    fn refused(reason: Reason) -> PostureReceipt {
        let plain = receipt("eu", false, 0);
        PostureReceipt { region: None, tier: None, outcome: Outcome::Refused, reason, first_token: None, ..plain }
    }

    #[test]
    fn each_request_is_counted_where_it_was_answered_or_for_why_it_was_not() {
        let mut tally = PostureTally::default();
        let broke = PostureReceipt { outcome: Outcome::Broken, ..receipt("eu", false, 80) };
        let failed_over = PostureReceipt { failover: Some(Duration::from_millis(70)), ..receipt("us", true, 90) };
        let of_no_tier = PostureReceipt { tier: None, ..receipt("eu", true, 30) };
        let all = [receipt("eu", true, 60), receipt("eu", false, 900), broke, failed_over, of_no_tier];
        let refused = [Reason::RateLimitExceeded, Reason::SlowDown, Reason::InvalidJson].map(refused);
        all.iter().chain(&refused).for_each(|receipt| tally.add(receipt));
        assert_eq!((tally.requests, tally.answered(), tally.limited, tally.shed), (8, 5, 1, 1));
        assert_eq!(tally.by_region(), [("eu".into(), 4), ("us".into(), 1)]);
        let default_eu = &tally.answers[&(Some("default".into()), "eu".into())];
        assert_eq!((default_eu.count, default_eu.first_tokens.count, default_eu.whole.count), (3, 1, 1));
        assert!(tally.failovers.quantile(99) >= Some(Duration::from_millis(70)));
        assert_eq!(tally.answers.len(), 3);
    }

    #[test]
    fn a_rehearsal_is_counted_apart() {
        let mut tally = PostureTally::default();
        tally.add(&PostureReceipt { injected: true, ..receipt("eu", true, 5_000) });
        assert_eq!(tally, PostureTally { rehearsed: 1, ..PostureTally::default() });
    }
}
