//! Doubling pauses: how long a deployment or credential gets no traffic.
//!
//! It exists because three things double in the same way (a tripped breaker, a throttled and a
//! misconfigured deployment) with different bounds. It must never read a clock or a random source: time and
//! the jitter's random value are passed in.

use crate::domain::random::RandomValue;
use std::time::{Duration, Instant};

/// The longest pause that a provider's Retry-After can ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// A doubling pause.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    /// The number of pauses in a row.
    level: u32,
    /// When it last recovered; a failure soon afterwards continues the doubling.
    closed_at: Option<Instant>,
}

impl Backoff {
    /// Pauses that start at `first` and double up to `most`.
    pub fn doubling(first: Duration, most: Duration) -> Self {
        Self { first, most, level: 0, closed_at: None }
    }

    /// For a 429 that names no time: 1 s to 60 s.
    pub fn throttled() -> Self {
        Self::doubling(Duration::from_secs(1), Duration::from_secs(60))
    }

    /// For a 404 on a configured path: 30 s to 5 min, because a model that is added must be found soon.
    pub fn not_found() -> Self {
        Self::doubling(Duration::from_secs(30), Duration::from_secs(300))
    }

    /// For a credential that was refused: 30 s to 16 min.
    pub fn credential() -> Self {
        Self::doubling(Duration::from_secs(30), Duration::from_secs(960))
    }

    /// Changes the bounds; the level stays.
    pub fn set_bounds(&mut self, first: Duration, most: Duration) {
        self.first = first;
        self.most = most;
    }

    /// The next pause, ±20 % and never above `most`.
    pub fn next(&mut self, now: Instant, draw: RandomValue) -> Duration {
        if self.closed_at.take().is_some_and(|at| now.saturating_duration_since(at) > self.most) {
            self.level = 0;
        }
        let plain = self.first.saturating_mul(1 << self.level.min(20)).min(self.most);
        self.level = self.level.saturating_add(1);
        plain.mul_f64(0.8 + 0.4 * draw.unit()).min(self.most)
    }

    /// The pause that a provider asked for, at most [`RETRY_AFTER_MAX`].
    pub fn capped(&self, after: Duration) -> Duration {
        after.min(RETRY_AFTER_MAX)
    }

    /// Records a recovery at `now`: a failure within `most` of it continues the doubling.
    pub fn closed(&mut self, now: Instant) {
        self.closed_at = Some(now);
    }

    /// Starts again at the first pause.
    pub fn reset(&mut self) {
        self.level = 0;
        self.closed_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn pauses_double_within_jitter_up_to_the_cap() {
        let now = Instant::now();
        let mut backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(20));
        for (step, plain) in [1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0].into_iter().enumerate() {
            let pause = backoff.next(now, RandomValue(9).salted(step as u64)).as_secs_f64();
            assert!(pause >= plain * 0.8 && pause <= (plain * 1.2).min(20.0), "{step}: {pause}");
        }
    }

    #[test]
    fn a_failure_soon_after_closing_continues_the_doubling_and_a_late_one_restarts_it() {
        let middle = RandomValue(1 << 63);
        let now = Instant::now();
        let mut backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(20));
        assert_eq!(backoff.next(now, middle), Duration::from_secs(1));
        backoff.closed(now);
        assert_eq!(backoff.next(now + Duration::from_secs(20), middle), Duration::from_secs(2));
        backoff.closed(now);
        assert_eq!(backoff.next(now + Duration::from_secs(21), middle), Duration::from_secs(1));
    }
}
