//! A drill: a gateway is broken on a script while requests are sent to it, and what its clients saw is judged.
//!
//! This module holds the scripts ([`scenario`]), what is known of each request ([`DrillRequest`]) and the judgement
//! ([`judge`], and [`burst`] where nothing breaks). It sends nothing and breaks nothing.
//!
//! Start reading in [`scenario::Scenario`], then [`judgement`].

pub mod burst;
pub mod judge;
pub mod report;
pub mod scenario;

use judge::{DrillCheck, DrillEvidence};
use scenario::Scenario;
use std::sync::Arc;
use std::time::Duration;

/// How one request of a drill ended, as its client saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DrillOutcome {
    /// With all of its answer.
    Answered,
    /// With a part of its answer that looks like all of it.
    TruncatedUnsaid,
    /// Its answer broke after it had begun, and said so.
    Broken,
    /// Without an answer, for this reason.
    Failed(Arc<str>),
}

/// A reply that was no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DrillRefusal {
    /// Its HTTP status; `None`: no reply came.
    pub status: Option<u16>,
    /// Whether it says when to try again.
    pub says_when: bool,
}

/// What is known of one request of a drill.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DrillRequest {
    /// The policy of its key.
    pub policy: Arc<str>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// When it was sent, from the beginning of the scenario.
    pub sent: Duration,
    /// How much later it was sent than it was due: the machine of the drill has too much to do.
    pub late: Duration,
    /// From sent to the first bytes of its answer.
    pub first_bytes: Option<Duration>,
    /// How it ended.
    pub outcome: DrillOutcome,
    /// Each reply that was no answer, in order: several where its client retries, and an answer may follow.
    pub refusals: Vec<DrillRefusal>,
    /// The attempts at providers that it took.
    pub attempts: u32,
    /// From the first attempt sent to the commit point of another one that answered in its place.
    pub failover: Option<Duration>,
    /// The region that answered, where one did.
    pub region: Option<Arc<str>>,
}

/// The parts of a scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DrillPhase {
    /// Nothing is broken yet.
    Before,
    /// Something is.
    During,
    /// Nothing is any more.
    After,
}

impl DrillPhase {
    /// Every part, in order.
    pub const ALL: [Self; 3] = [Self::Before, Self::During, Self::After];

    /// Its word in reports.
    pub fn label(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::During => "during",
            Self::After => "after",
        }
    }
}

/// When the parts of a scenario begin, from its own beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DrillWindow {
    /// When the first fault begins.
    pub broken_from: Duration,
    /// When the last fault ends.
    pub broken_until: Duration,
}

impl DrillWindow {
    /// The part that a request sent at `sent` belongs to.
    pub fn phase(self, sent: Duration) -> DrillPhase {
        match sent {
            sent if sent < self.broken_from => DrillPhase::Before,
            sent if sent < self.broken_until => DrillPhase::During,
            _ => DrillPhase::After,
        }
    }
}

/// The judgement of one scenario.
pub fn judgement(evidence: &DrillEvidence<'_>) -> Vec<DrillCheck> {
    match evidence.scenario {
        Scenario::Burst10x => burst::judge(evidence),
        _ => judge::judge(evidence),
    }
}

/// The value that `percent` of 100 sorted `values` do not exceed; `None` of none.
pub fn percentile(values: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        let of = |percent| percentile(&values, percent).map(|value| value.as_millis());
        assert_eq!((of(0), of(50), of(99), of(100)), (Some(1), Some(100), Some(198), Some(200)));
        assert_eq!((percentile(&values[..1], 99), percentile(&[], 50)), (Some(values[0]), None));
    }

    #[test]
    fn a_request_belongs_to_the_phase_that_it_was_sent_in() {
        let times = DrillWindow { broken_from: Duration::from_secs(3), broken_until: Duration::from_secs(9) };
        let of = |ms| times.phase(Duration::from_millis(ms));
        assert_eq!((of(0), of(2_999), of(3_000)), (DrillPhase::Before, DrillPhase::Before, DrillPhase::During));
        assert_eq!((of(8_999), of(9_000)), (DrillPhase::During, DrillPhase::After));
    }
}
