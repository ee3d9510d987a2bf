//! The evidence of where requests went: every attempt on a receipt, compared with the residency of its policy.
//!
//! The plan filters by residency before anything is chosen; this reads afterwards what was recorded of each attempt, and
//! shares no code with the plan. It cannot know where a provider computes, only where the configuration says it is.
//!
//! Start reading at [`ResidencyTally::add`].

use crate::domain::glob::Glob;
use crate::domain::id::RequestId;
use crate::domain::reason::Reason;
use crate::domain::receipt::{AttemptRecord, Receipt};
use crate::domain::usage::Usage;
use std::collections::BTreeMap;
use std::sync::Arc;

/// So many attempts that left are kept one by one; all are counted.
const MOST_KEPT: usize = 100;

/// What the residency of a request's policy says.
#[derive(Clone, Copy, Debug)]
pub enum PolicyResidency<'a> {
    /// Its requests stay within regions that one of these fits.
    Within(&'a [Glob]),
    /// Its requests may go anywhere.
    Anywhere,
    /// The policy is not known any more.
    Unknown,
}

/// Receipts and their attempts, compared with residencies.
#[derive(Clone, Default, Debug)]
pub struct ResidencyTally {
    /// All requests.
    pub requests: u64,
    /// Those that a residency binds.
    pub bound: u64,
    /// Attempts of bound requests.
    pub attempts: u64,
    /// Of bound requests, by region.
    pub regions: BTreeMap<Arc<str>, RegionTally>,
    /// Attempts that were made outside: the first ones.
    pub left: Vec<OutsideAttempt>,
    /// The number of all of them.
    pub left_count: u64,
    /// Attempts that nothing can be said of: their region, or their policy, is not known.
    pub unknown: u64,
    /// Receipts that cannot be read.
    pub unreadable: u64,
}

/// What bound requests did in one region.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RegionTally {
    /// Attempts that were sent there, however they ended.
    pub attempts: u64,
    /// Those of them that answered.
    pub served: u64,
    /// Input tokens of the requests that were answered here.
    pub input: u128,
    /// Output tokens of them.
    pub output: u128,
}

/// An attempt outside the residency.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutsideAttempt {
    /// The request.
    pub request: RequestId,
    /// When it was received, in Unix milliseconds.
    pub received_unix_ms: i64,
    /// Its key.
    pub key: Option<Arc<str>>,
    /// Its policy.
    pub policy: Option<Arc<str>>,
    /// Which of its attempts, from 1 on.
    pub attempt: usize,
    /// The deployment that was asked.
    pub deployment: Arc<str>,
    /// Its region.
    pub region: Arc<str>,
}

impl ResidencyTally {
    /// Counts `receipt`, whose policy has this residency. `region_of` knows regions of deployments, for receipts from before
    /// regions were kept.
    pub fn add(
        &mut self,
        receipt: &Receipt,
        residency: PolicyResidency<'_>,
        region_of: impl Fn(&str) -> Option<Arc<str>>,
    ) {
        self.requests += 1;
        let globs = match residency {
            PolicyResidency::Within(globs) => globs,
            PolicyResidency::Anywhere => return,
            PolicyResidency::Unknown => {
                self.unknown += receipt.attempts.len() as u64;
                return;
            }
        };
        self.bound += 1;
        for (number, attempt) in (1..).zip(&receipt.attempts) {
            self.attempts += 1;
            let Some(region) = attempt.region.clone().or_else(|| region_of(&attempt.deployment)) else {
                self.unknown += 1;
                continue;
            };
            self.count(receipt, attempt, &region);
            if !globs.iter().any(|glob| glob.matches(&region)) {
                self.left_count += 1;
                if self.left.len() < MOST_KEPT {
                    self.left.push(outside(receipt, number, attempt, region));
                }
            }
        }
    }

    fn count(&mut self, receipt: &Receipt, attempt: &AttemptRecord, region: &Arc<str>) {
        let tally = self.regions.entry(region.clone()).or_default();
        tally.attempts += 1;
        if attempt.reason == Reason::Served {
            let usage = receipt.usage.unwrap_or_default();
            let Usage { input, output, .. } = usage;
            tally.served += 1;
            tally.input += u128::from(input);
            tally.output += u128::from(output);
        }
    }

    /// Whether every attempt is known to have stayed.
    pub fn is_proved(&self) -> bool {
        self.left_count == 0 && self.unknown == 0 && self.unreadable == 0
    }
}

fn outside(receipt: &Receipt, attempt: usize, record: &AttemptRecord, region: Arc<str>) -> OutsideAttempt {
    OutsideAttempt {
        request: receipt.id,
        received_unix_ms: receipt.received_unix_ms,
        key: receipt.key.clone(),
        policy: receipt.policy.clone(),
        attempt,
        deployment: record.deployment.clone(),
        region,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::receipt::tests::{attempt, receipt};

    fn globs() -> Vec<Glob> {
        vec![Glob::new("eu-*"), Glob::new("ch")]
    }

    fn at(region: Option<&str>, reason: Reason) -> AttemptRecord {
        AttemptRecord { region: region.map(Into::into), ..attempt("d", "big", reason) }
    }

    fn tally(attempts: Vec<AttemptRecord>, residency: PolicyResidency<'_>) -> ResidencyTally {
        let mut tally = ResidencyTally::default();
        let region_of = |deployment: &str| (deployment == "known").then(|| "us-east".into());
        tally.add(&receipt(attempts, None, Reason::Served), residency, region_of);
        tally
    }

    #[test]
    fn every_attempt_is_compared_and_not_only_the_one_that_answered() {
        let globs = globs();
        let check = |attempts: Vec<AttemptRecord>, left: &[(usize, &str)], unknown: u64| {
            let tally = tally(attempts, PolicyResidency::Within(&globs));
            let found: Vec<(usize, &str)> = tally.left.iter().map(|one| (one.attempt, &*one.region)).collect();
            assert_eq!((&found[..], tally.left_count, tally.unknown), (left, left.len() as u64, unknown));
            assert_eq!(tally.is_proved(), left.is_empty() && unknown == 0);
        };
        check(vec![], &[], 0);
        check(vec![at(Some("eu-west"), Reason::Reset), at(Some("ch"), Reason::Served)], &[], 0);
        check(vec![at(Some("us-east"), Reason::Reset), at(Some("ch"), Reason::Served)], &[(1, "us-east")], 0);
        // One that lost beside the one that answered, and one that only begins like a region within.
        check(vec![at(Some("eu-west"), Reason::Served), at(Some("chicago"), Reason::ClientGone)], &[(2, "chicago")], 0);
        check(vec![at(Some("eu"), Reason::Served)], &[(1, "eu")], 0);
        check(vec![at(None, Reason::Served)], &[], 1);
        let known = AttemptRecord { deployment: "known".into(), ..at(None, Reason::Served) };
        check(vec![known], &[(1, "us-east")], 0);
    }

    #[test]
    fn what_no_residency_binds_leaves_nothing_and_what_is_not_known_proves_nothing() {
        let attempts = || vec![at(Some("us-east"), Reason::Served)];
        let free = tally(attempts(), PolicyResidency::Anywhere);
        assert_eq!((free.requests, free.bound, free.attempts, free.is_proved()), (1, 0, 0, true));
        let unknown = tally(attempts(), PolicyResidency::Unknown);
        assert_eq!((unknown.requests, unknown.bound, unknown.unknown, unknown.is_proved()), (1, 0, 1, false));
        assert!(tally(Vec::new(), PolicyResidency::Unknown).is_proved(), "it was sent nowhere");
    }

    #[test]
    fn regions_have_what_was_done_there() {
        let attempts = vec![at(Some("eu-a"), Reason::Reset), at(Some("eu-b"), Reason::Served)];
        let mut answered = receipt(attempts, None, Reason::Served);
        answered.usage = Some(Usage { input: 30, output: 10, ..Usage::default() });
        let (mut tally, globs) = (ResidencyTally::default(), globs());
        for _ in 0..2 {
            tally.add(&answered, PolicyResidency::Within(&globs), |_| None);
        }
        let expected = RegionTally { attempts: 2, served: 2, input: 60, output: 20 };
        assert_eq!(tally.regions.get("eu-b"), Some(&expected));
        assert_eq!(tally.regions.get("eu-a"), Some(&RegionTally { attempts: 2, ..RegionTally::default() }));
    }
}
