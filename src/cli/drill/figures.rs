//! What is known of a scenario while it runs.
//!
//! Start reading in [`LiveRecord::of`].

use super::drive::SentRequest;
use crate::domain::drill::{DrillOutcome, percentile};
use std::sync::Arc;
use std::time::Duration;

/// What "now" is, backwards from it: long enough for a figure, and short enough to see something change.
const LATELY: Duration = Duration::from_secs(1);

/// What has happened until some instant of a scenario.
pub(super) struct LiveRecord {
    /// For each second, how many requests that were sent in it were answered.
    pub(super) answered: Vec<u64>,
    pub(super) failed: usize,
    /// Answers that broke, or were truncated.
    pub(super) spoilt: usize,
    /// Replies that were no answer, those included that a client retried after.
    pub(super) refused: usize,
    /// First bytes of the requests that were sent lately.
    pub(super) p50: Option<Duration>,
    pub(super) p99: Option<Duration>,
    /// How many of these each region answered.
    pub(super) regions: Vec<(Arc<str>, usize)>,
}

impl LiveRecord {
    /// Of what has ended of `sent` by `elapsed`.
    pub(super) fn of(sent: &[SentRequest], elapsed: Duration, regions: &[Arc<str>]) -> Self {
        let mut answered = vec![0; usize::try_from(elapsed.as_secs()).unwrap_or(0) + 1];
        let is_answered = |one: &&SentRequest| one.answer.outcome == DrillOutcome::Answered;
        for one in sent.iter().filter(is_answered) {
            let second = usize::try_from(one.sent.as_secs()).unwrap_or(0);
            if let Some(count) = answered.get_mut(second) {
                *count += 1;
            }
        }
        let lately = || sent.iter().filter(|one| one.sent + LATELY >= elapsed);
        let mut times: Vec<Duration> = lately().filter_map(|one| one.answer.first_bytes).collect();
        times.sort_unstable();
        let of_region = |region: &Arc<str>| lately().filter(|one| one.answer.region.as_ref() == Some(region)).count();
        let is_failed = |one: &&SentRequest| matches!(one.answer.outcome, DrillOutcome::Failed(_));
        let failed = sent.iter().filter(is_failed).count();
        Self {
            answered,
            failed,
            spoilt: sent.len() - sent.iter().filter(is_answered).count() - failed,
            refused: sent.iter().map(|one| one.refusals.len()).sum(),
            p50: percentile(&times, 50),
            p99: percentile(&times, 99),
            regions: regions.iter().map(|region| (region.clone(), of_region(region))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::ClientAnswer;
    use super::*;

    fn sent(at_ms: u64, took_ms: u64, outcome: DrillOutcome, region: &str) -> SentRequest {
        SentRequest {
            policy: "pro".into(),
            stream: true,
            sent: Duration::from_millis(at_ms),
            late: Duration::ZERO,
            answer: ClientAnswer {
                id: None,
                first_bytes: Some(Duration::from_millis(took_ms)),
                outcome,
                refused: None,
                attempts: 1,
                region: Some(region.into()),
            },
            refusals: Vec::new(),
        }
    }

    #[test]
    fn what_was_sent_lately_is_counted_apart() {
        let all = [
            sent(100, 900, DrillOutcome::Answered, "east"),
            sent(1_900, 60, DrillOutcome::Answered, "west"),
            sent(2_000, 70, DrillOutcome::Broken, "west"),
            sent(2_100, 80, DrillOutcome::Failed("503".into()), "east"),
        ];
        let regions: [Arc<str>; 2] = ["east".into(), "west".into()];
        let record = LiveRecord::of(&all, Duration::from_millis(2_500), &regions);
        assert_eq!((&record.answered, record.failed, record.spoilt), (&vec![1, 1, 0], 1, 1));
        let served: Vec<(&str, usize)> = record.regions.iter().map(|(region, served)| (&**region, *served)).collect();
        assert_eq!(served, [("east", 1), ("west", 2)]);
        assert_eq!(record.p99.map(|p99| p99.as_millis()), Some(80));
    }
}
