//! The retry budget: the allowed share of extra attempts.
//!
//! It exists because a count per request ("three retries") multiplies the load on the deployments that are
//! left just when they are fewest: with three attempts a dead provider gets three times its traffic.
//! A budget over all requests bounds the sum instead: extra attempts are at most a share of the last
//! ten seconds' requests, with a floor so that a quiet gateway may still retry. Which failures lead
//! to another attempt at all is [`Failure::next_action`](super::failure::Failure::next_action).
//!
//! ```
//! use std::time::Instant;
//! use tierway::domain::retry::RetryBudget;
//!
//! let now = Instant::now();
//! let mut budget = RetryBudget::new(2_000); // 20 %
//! (0..1_000).for_each(|_| budget.request(now));
//! assert_eq!((0..500).filter(|_| budget.spend(now)).count(), 200);
//! ```

use std::time::{Duration, Instant};

/// Over how many seconds traffic and extra attempts are counted.
const SECONDS: u64 = 10;
/// Extra attempts per second that are always allowed.
const FLOOR_PER_SECOND: u64 = 10;

#[derive(Clone, Copy, Default, Debug)]
struct SecondCounts {
    /// Which second this is, counted from the first use.
    turn: u64,
    requests: u64,
    extras: u64,
}

/// Extra attempts as a share of traffic.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    share_bp: u32,
    start: Option<Instant>,
    seconds: [SecondCounts; SECONDS as usize],
}

impl RetryBudget {
    /// A full budget of `share_bp` hundredths of a percent.
    pub fn new(share_bp: u32) -> Self {
        Self { share_bp, start: None, seconds: Default::default() }
    }

    /// Changes the share; the counts stay.
    pub fn set_share(&mut self, share_bp: u32) {
        self.share_bp = share_bp;
    }

    /// Counts a request.
    pub fn request(&mut self, now: Instant) {
        self.second(now).requests += 1;
    }

    /// Whether an extra attempt may be made at `now`.
    pub fn has_left(&self, now: Instant) -> bool {
        let turn = self.turn(now);
        let live = self.seconds.iter().filter(|second| second.turn + SECONDS > turn);
        let (requests, extras) = live.fold((0, 0), |(r, e), s| (r + s.requests, e + s.extras));
        extras < (requests * u64::from(self.share_bp) / 10_000).max(FLOOR_PER_SECOND * SECONDS)
    }

    /// Takes one extra attempt, if one is left; returns whether it was.
    pub fn spend(&mut self, now: Instant) -> bool {
        let left = self.has_left(now);
        if left {
            self.second(now).extras += 1;
        }
        left
    }

    fn second(&mut self, now: Instant) -> &mut SecondCounts {
        self.start.get_or_insert(now);
        let turn = self.turn(now);
        let second = &mut self.seconds[(turn % SECONDS) as usize];
        if second.turn != turn {
            *second = SecondCounts { turn, ..SecondCounts::default() };
        }
        second
    }

    fn turn(&self, now: Instant) -> u64 {
        let age = self.start.map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        // From SECONDS on, so that an unused second (turn 0) is never live.
        age.as_secs() + SECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extras_are_a_share_of_the_last_ten_seconds_with_a_floor() {
        let check = |requests: u64, later: u64, expected: usize| {
            let start = Instant::now();
            let mut budget = RetryBudget::new(2_000);
            (0..requests).for_each(|_| budget.request(start));
            let now = start + Duration::from_secs(later);
            let spent = (0..10_000).filter(|_| budget.spend(now)).count();
            assert_eq!(spent, expected, "{requests} requests, {later} s later");
        };
        check(0, 0, 100);
        check(500, 0, 100);
        check(5_000, 0, 1_000);
        check(5_000, 9, 1_000);
        check(5_000, 10, 100);
    }

    #[test]
    fn a_spent_attempt_is_available_again_after_ten_seconds() {
        let start = Instant::now();
        let mut budget = RetryBudget::new(0);
        while budget.spend(start) {}
        assert!(!budget.has_left(start + Duration::from_secs(9)));
        assert!(budget.has_left(start + Duration::from_secs(10)));
    }
}
