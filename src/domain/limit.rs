//! Rate limits over a sliding minute.
//!
//! It exists because a fixed window lets twice the limit through around its edge and a token bucket
//! lets a burst through on top of the rate; a sliding window never lets more than `limit` through
//! in any 60 seconds, wherever they begin. Up to 256 units it stores exact instants; above, it
//! rounds instants *up* to 256ths of the window, so that it is never above the limit and at least
//! 99.5 % of it stays usable. It must never read a clock: every call passes the time in.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use tierway::domain::limit::SlidingWindow;
//!
//! let start = Instant::now();
//! let mut limit = SlidingWindow::new(2);
//! assert!(limit.take(1, start).is_ok());
//! assert!(limit.take(1, start + Duration::from_secs(10)).is_ok());
//! // The first unit returns a minute after it was taken.
//! let refused = limit.take(1, start + Duration::from_secs(15)).unwrap_err();
//! assert_eq!(refused.retry_after, Some(Duration::from_secs(45)));
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The length of every rate limit's window.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Up to this limit instants are exact; above it the window has this many slots.
const SLOTS: u32 = 256;

/// One rate limit and what was taken of it in the last [`WINDOW`].
#[derive(Clone, Debug)]
pub struct SlidingWindow {
    limit: u64,
    used: u64,
    /// The instant that slots are counted from: the first take.
    origin: Option<Instant>,
    /// Units taken and the instant they count as taken at, oldest first; they return [`WINDOW`] later.
    taken: VecDeque<(Instant, u64)>,
}

/// Units taken for one request, to be corrected by [`SlidingWindow::settle`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateLimitReservation {
    at: Instant,
    amount: u64,
}

/// A refusal: the units did not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateLimitExceeded {
    /// How long until the same units would be granted; `None`: never, they are more than the limit.
    pub retry_after: Option<Duration>,
}

/// The limit and what is left of it, as response headers show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateLimitStatus {
    /// Units a minute.
    pub limit: u64,
    /// Units that could be taken now.
    pub remaining: u64,
    /// How long until the next unit returns; zero when nothing is taken.
    pub reset: Duration,
}

impl SlidingWindow {
    /// A window of `limit` units a minute, with nothing taken.
    pub fn new(limit: u64) -> Self {
        Self { limit, used: 0, origin: None, taken: VecDeque::new() }
    }

    /// Changes the limit; what is taken stays taken.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Takes `amount` units, or returns when they would be available.
    ///
    /// # Errors
    /// [`RateLimitExceeded`]; nothing was taken then.
    pub fn take(&mut self, amount: u64, now: Instant) -> Result<RateLimitReservation, RateLimitExceeded> {
        self.expire(now);
        if self.used.saturating_add(amount) > self.limit {
            return Err(RateLimitExceeded { retry_after: self.wait_for(amount, now) });
        }
        let at = self.effective_instant(now);
        self.add(at, amount);
        Ok(RateLimitReservation { at, amount })
    }

    /// Corrects units taken to units used: a surplus is returned to the instant it was taken at, a deficit
    /// is taken now, even above the limit.
    pub fn settle(&mut self, taken: RateLimitReservation, used: u64, now: Instant) {
        self.expire(now);
        if used > taken.amount {
            let at = self.effective_instant(now);
            self.add(at, used - taken.amount);
        } else if let Ok(index) = self.taken.binary_search_by_key(&taken.at, |(at, _)| *at) {
            let amount_there = &mut self.taken[index].1;
            let back = (taken.amount - used).min(*amount_there);
            *amount_there -= back;
            self.used -= back;
            // Many requests that return everything would otherwise fill the queue with empty entries.
            if *amount_there == 0 {
                self.taken.remove(index);
            }
        }
    }

    /// What is left at `now`.
    pub fn left(&mut self, now: Instant) -> RateLimitStatus {
        self.expire(now);
        let next = self.taken.iter().find(|(_, amount)| *amount > 0);
        let reset = next.map_or(Duration::ZERO, |(at, _)| (*at + WINDOW).saturating_duration_since(now));
        RateLimitStatus { limit: self.limit, remaining: self.limit.saturating_sub(self.used), reset }
    }

    /// Whether nothing is taken at `now`, so that it can be dropped.
    pub fn is_idle(&mut self, now: Instant) -> bool {
        self.expire(now);
        self.used == 0
    }

    fn expire(&mut self, now: Instant) {
        while let Some((at, amount)) = self.taken.front().copied() {
            if now < at + WINDOW {
                break;
            }
            self.taken.pop_front();
            self.used -= amount;
        }
    }

    fn add(&mut self, at: Instant, amount: u64) {
        self.used = self.used.saturating_add(amount);
        match self.taken.back_mut() {
            // A clock read slightly earlier on another thread joins the latest entry: a later instant is safe.
            Some((last, amount_there)) if *last >= at => *amount_there = amount_there.saturating_add(amount),
            _ => self.taken.push_back((at, amount)),
        }
    }

    /// The instant that units taken at `now` count as taken at.
    fn effective_instant(&mut self, now: Instant) -> Instant {
        let latest = self.taken.back().map_or(now, |(at, _)| *at);
        if self.limit <= u64::from(SLOTS) {
            return now.max(latest);
        }
        let origin = *self.origin.get_or_insert(now);
        let slot = (WINDOW / SLOTS).as_nanos();
        let slots = now.saturating_duration_since(origin).as_nanos().div_ceil(slot);
        (origin + Duration::from_nanos((slots * slot) as u64)).max(latest)
    }

    fn wait_for(&self, amount: u64, now: Instant) -> Option<Duration> {
        if amount > self.limit {
            return None;
        }
        let mut used = self.used;
        for (at, amount_there) in &self.taken {
            used -= amount_there;
            if used + amount <= self.limit {
                return Some((*at + WINDOW).saturating_duration_since(now));
            }
        }
        None
    }
}

/// Ceilings of one key; `None` is no ceiling.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Limits {
    /// Requests in any sliding minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens in any sliding minute, as taken at admission.
    pub tokens_per_minute: Option<u64>,
    /// Requests at once.
    pub max_concurrent: Option<u32>,
}

/// Which of a key's ceilings was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OverLimit {
    /// The kind of limit.
    pub limit: LimitKind,
    /// The ceiling: units a minute, or requests at once.
    pub ceiling: u64,
    /// How long until the same request would be admitted; `None`: never, it is larger than the limit itself.
    pub retry_after: Option<Duration>,
}

/// The kinds of limits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LimitKind {
    /// Requests in a sliding minute.
    Requests,
    /// Tokens in a sliding minute.
    Tokens,
    /// Requests at once.
    Concurrency,
    /// Refused requests in a sliding minute: as many as requests.
    Refused,
}

impl LimitKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Requests, Self::Tokens, Self::Concurrency, Self::Refused];

    /// Its label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Requests => "requests_per_minute",
            Self::Tokens => "tokens_per_minute",
            Self::Concurrency => "max_concurrent",
            Self::Refused => "refused_per_minute",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Invariant: no sliding minute contains more than the limit, whatever the timing.
        #[test]
        fn never_above_the_limit_in_any_window(
            limit in prop_oneof![1..300_u64, 1_000..100_000_u64],
            steps in prop::collection::vec((0..5_000_u64, 1..200_u64), 1..400),
        ) {
            let start = Instant::now();
            let mut window = SlidingWindow::new(limit);
            let mut now = start;
            let mut granted: Vec<(Instant, u64)> = Vec::new();
            for (pause, share) in steps {
                now += Duration::from_millis(pause);
                let amount = (limit * share / 200).max(1);
                if window.take(amount, now).is_ok() {
                    granted.push((now, amount));
                }
            }
            for (from, _) in &granted {
                let inside = granted.iter().filter(|(at, _)| at >= from && *at < *from + WINDOW);
                prop_assert!(inside.map(|(_, amount)| amount).sum::<u64>() <= limit);
            }
        }

        /// A request that waits for `retry_after` is admitted.
        #[test]
        fn a_request_that_waits_as_long_as_reported_is_admitted(limit in 1..2_000_u64, pause in 0..60_000_u64) {
            let start = Instant::now();
            let mut window = SlidingWindow::new(limit);
            window.take(limit, start).expect("an empty window gives its limit");
            let now = start + Duration::from_millis(pause);
            if let Err(refused) = window.clone().take(1, now) {
                let wait = refused.retry_after.expect("one unit fits the limit");
                prop_assert!(window.take(1, now + wait).is_ok());
            }
        }
    }

    #[test]
    fn nearly_all_of_the_limit_is_usable() {
        for limit in [50_u64, 256, 257, 200_000] {
            let start = Instant::now();
            let mut window = SlidingWindow::new(limit);
            let ten_minutes = Duration::from_secs(600);
            let step = WINDOW / (4 * limit as u32).min(20_000);
            let (mut now, mut granted) = (start, 0_u64);
            let amount = (limit / 5_000).max(1);
            while now < start + ten_minutes {
                granted += u64::from(window.take(amount, now).is_ok()) * amount;
                now += step;
            }
            assert!(granted as f64 >= 0.995 * (limit * 10) as f64, "{granted} of {}", limit * 10);
        }
    }

    #[test]
    fn a_surplus_is_returned_and_a_deficit_is_taken_above_the_limit() {
        let now = Instant::now();
        let mut window = SlidingWindow::new(1_000);
        let taken = window.take(600, now).expect("it fits");
        window.settle(taken, 100, now);
        assert_eq!(window.left(now).remaining, 900);
        let taken = window.take(900, now).expect("what came back can be taken");
        window.settle(taken, 2_000, now + Duration::from_secs(1));
        assert_eq!(window.left(now).remaining, 0);
        // The deficit of 1,100 is taken a second later and is more than the limit by itself.
        let later = now + Duration::from_secs(60);
        assert!(window.take(1, later).is_err());
        assert!(window.take(1, later + Duration::from_secs(2)).is_ok());
    }

    #[test]
    fn an_amount_above_the_limit_is_never_granted() {
        let refused = SlidingWindow::new(10).take(11, Instant::now()).expect_err("it cannot fit");
        assert_eq!(refused.retry_after, None);
    }
}
