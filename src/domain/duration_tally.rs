//! Durations, counted in steps of at most 1.6 %: what percentiles are read from without keeping each of them.
//!
//! What it keeps does not grow with what is counted. A percentile is never below what was measured.
//!
//! Start reading at [`DurationTally::quantile`].

use std::collections::BTreeMap;
use std::time::Duration;

/// So many steps make twice the time, as a power of two.
const STEP_BITS: u32 = 6;

/// Durations by their steps.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct DurationTally {
    /// All of them.
    pub count: u64,
    steps: BTreeMap<u16, u64>,
}

impl DurationTally {
    /// Counts `duration`.
    pub fn add(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min(u64::MAX >> 1);
        let shift = (u64::BITS - micros.leading_zeros()).saturating_sub(STEP_BITS + 1);
        let step = (u64::from(shift) << STEP_BITS) + (micros >> shift);
        *self.steps.entry(u16::try_from(step).unwrap_or(u16::MAX)).or_default() += 1;
        self.count += 1;
    }

    /// The time within which `percent` of 100 were, rounded up to the end of its step; `None` without any.
    pub fn quantile(&self, percent: u64) -> Option<Duration> {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let step = self.steps.iter().find(|(_, count)| {
            seen += **count;
            seen >= rank
        });
        let step = u64::from(*step?.0);
        let shift = (step >> STEP_BITS).saturating_sub(1);
        Some(Duration::from_micros(((step - (shift << STEP_BITS) + 1) << shift) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_never_below_what_was_measured() {
        let mut tally = DurationTally::default();
        assert_eq!(tally.quantile(50), None);
        (1..=1_000).for_each(|ms| tally.add(Duration::from_millis(ms)));
        assert_eq!(tally.count, 1_000);
        for (percent, exact_us) in [(50, 500_000_u128), (95, 950_000), (99, 990_000), (100, 1_000_000)] {
            let found = tally.quantile(percent).expect("there are some").as_micros();
            assert!((exact_us..exact_us + exact_us / 60).contains(&found), "p{percent}: {found}");
        }
        let mut small = DurationTally::default();
        (0..=63).for_each(|us| small.add(Duration::from_micros(us)));
        assert_eq!(small.quantile(50), Some(Duration::from_micros(31)), "small ones are exact");
        let mut longest = DurationTally::default();
        longest.add(Duration::MAX);
        assert!(longest.quantile(50).is_some());
    }
}
