//! How many requests may be in flight, found from how soon first tokens come.
//!
//! Providers that are asked for more than they can carry queue it, and the first token comes later. So the limit is the
//! gradient of two first-token times: while the current one is near the long-term one of its deployment, the limit rises by
//! the square root of itself; where it is longer, the limit falls in proportion, at most to half, from what was in flight.
//! This is the gradient limit of concurrency limiters, with the ratio taken for each deployment, so that models of
//! different speed may be mixed. It must never fall below what is set: where less is in flight, the load is not the cause.
//!
//! Start reading in [`AdaptiveLimit::record`].

use std::time::{Duration, Instant};

/// First-token times may be longer than usual by so much: what varies by itself.
const TOLERANCE: f64 = 1.25;
/// The least that is left of the limit at once.
const STEEPEST: f64 = 0.5;
/// The limit is set anew after so long, at least, and as many first tokens.
const WINDOW: Duration = Duration::from_secs(1);
const LEAST_SAMPLES: u32 = 16;
/// Longer than this is an outage, which breakers deal with: one must not outweigh all others.
const MOST_SLOWDOWN: f64 = 10.0;
/// The time constant of a long-term first-token time: a burst of a minute moves it by a tenth of the difference.
const LONG_TERM: Duration = Duration::from_secs(600);
/// So many first tokens make the first long-term time.
const KNOWN_SAMPLES: u32 = 16;

/// The least and the most that an adaptive limit may be, from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InFlightBounds {
    /// It falls no lower.
    pub at_least: u32,
    /// It begins here, so that nothing is refused before a slowdown was measured, and rises no higher.
    pub at_most: u32,
}

/// How many requests may be in flight, now.
#[derive(Clone, Debug)]
pub struct AdaptiveLimit {
    bounds: InFlightBounds,
    limit: f64,
    /// When it fell last: what was sent before met the load of before.
    fell: Option<Instant>,
    window: SlowdownWindow,
}

/// What was measured since the limit was set.
#[derive(Clone, Copy, Default, Debug)]
struct SlowdownWindow {
    began: Option<Instant>,
    sum: f64,
    samples: u32,
    most_in_flight: u32,
}

impl AdaptiveLimit {
    /// A limit that has measured nothing.
    pub fn new(bounds: InFlightBounds) -> Self {
        Self { bounds, limit: f64::from(bounds.at_most), fell: None, window: SlowdownWindow::default() }
    }

    /// Applies other bounds; what was measured stays.
    pub fn set_bounds(&mut self, bounds: InFlightBounds) {
        self.bounds = bounds;
        self.limit = self.bounded(self.limit);
    }

    /// The limit, in requests.
    pub fn limit(&self) -> u32 {
        // Between the bounds, which are whole numbers of this type.
        self.limit as u32
    }

    /// Records that a first token came at `now` for an attempt sent at `sent`, after `slowdown` times the long-term time of
    /// its deployment, with so many requests in flight. Returns whether the limit was set anew.
    pub fn record(&mut self, slowdown: f64, sent: Instant, in_flight: u32, now: Instant) -> bool {
        if self.fell.is_some_and(|fell| sent < fell) {
            return false;
        }
        let window = &mut self.window;
        let began = *window.began.get_or_insert(now);
        window.sum += slowdown.min(MOST_SLOWDOWN);
        window.samples += 1;
        window.most_in_flight = window.most_in_flight.max(in_flight);
        if window.samples < LEAST_SAMPLES || now.saturating_duration_since(began) < WINDOW {
            return false;
        }
        let SlowdownWindow { sum, samples, most_in_flight, .. } = std::mem::take(window);
        let next = self.next(sum / f64::from(samples), f64::from(most_in_flight));
        if next < self.limit {
            self.fell = Some(now);
        }
        self.limit = next;
        true
    }

    /// The limit after a window of this average slowdown, with so many requests in flight at once.
    fn next(&self, slowdown: f64, in_flight: f64) -> f64 {
        let gradient = (TOLERANCE / slowdown).clamp(STEEPEST, 1.0);
        if gradient < 1.0 {
            let used = in_flight.min(self.limit);
            return self.bounded((used * gradient + used.sqrt()).min(self.limit));
        }
        // A limit that is not reached says nothing of a higher one.
        let reached = in_flight * 2.0 >= self.limit;
        self.bounded(self.limit + if reached { self.limit.sqrt() } else { 0.0 })
    }

    fn bounded(&self, limit: f64) -> f64 {
        limit.min(f64::from(self.bounds.at_most)).max(f64::from(self.bounds.at_least))
    }
}

/// The long-term average of the first-token time of one deployment, in one mode.
#[derive(Clone, Copy, Default, Debug)]
pub struct LongTermFirstToken {
    /// In seconds.
    average: f64,
    samples: u32,
    at: Option<Instant>,
}

impl LongTermFirstToken {
    /// Records a first-token time. Returns how many times the average it is; `None` before one is known.
    pub fn slowdown(&mut self, took: Duration, now: Instant) -> Option<f64> {
        let seconds = took.as_secs_f64().max(1e-6);
        let before = self.at.replace(now);
        if self.samples < KNOWN_SAMPLES {
            self.samples += 1;
            self.average += (seconds - self.average) / f64::from(self.samples);
            return None;
        }
        let slowdown = seconds / self.average;
        let since = before.map_or(Duration::ZERO, |before| now.saturating_duration_since(before));
        let weight = (since.as_secs_f64() / LONG_TERM.as_secs_f64()).min(1.0 / f64::from(KNOWN_SAMPLES));
        self.average *= 1.0 + (slowdown.min(MOST_SLOWDOWN) - 1.0) * weight;
        Some(slowdown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: InFlightBounds = InFlightBounds { at_least: 8, at_most: 400 };

    /// A provider with so many slots, each of which answers in so long; what is beyond them waits for one. Every second it
    /// has as many requests as the limit lets in, of those that want to. Returns the limit at the end of each second.
    fn provider(limit: &mut AdaptiveLimit, slots: f64, wanted: u32, seconds: u64, now: &mut Instant) -> Vec<u32> {
        let usual = Duration::from_millis(200);
        let mut long_term = LongTermFirstToken::default();
        for _ in 0..KNOWN_SAMPLES {
            long_term.slowdown(usual, *now);
        }
        let mut seen = Vec::new();
        for _ in 0..seconds {
            let in_flight = wanted.min(limit.limit());
            let took = usual.mul_f64((f64::from(in_flight) / slots).max(1.0));
            for _ in 0..20 {
                *now += Duration::from_millis(60);
                let slowdown = long_term.slowdown(took, *now).expect("it is known");
                limit.record(slowdown, *now - took, in_flight, *now);
            }
            seen.push(limit.limit());
        }
        seen
    }

    #[test]
    fn the_limit_falls_to_what_the_provider_carries_and_stays_there() {
        let (mut limit, mut now) = (AdaptiveLimit::new(BOUNDS), Instant::now());
        let seen = provider(&mut limit, 40.0, 400, 60, &mut now);
        assert!(seen[25..].iter().all(|limit| (38..=80).contains(limit)), "{seen:?}");
    }

    #[test]
    fn the_limit_rises_when_the_provider_carries_more() {
        let (mut limit, mut now) = (AdaptiveLimit::new(BOUNDS), Instant::now());
        provider(&mut limit, 40.0, 400, 20, &mut now);
        let seen = provider(&mut limit, 200.0, 400, 40, &mut now);
        assert!(seen.windows(2).take(5).all(|pair| pair[0] < pair[1]), "{seen:?}");
        assert!(seen.last().is_some_and(|limit| *limit >= 180), "{seen:?}");
    }

    #[test]
    fn a_limit_that_is_not_reached_does_not_rise() {
        let (mut limit, mut now) = (AdaptiveLimit::new(BOUNDS), Instant::now());
        let low = *provider(&mut limit, 40.0, 400, 20, &mut now).last().expect("it ran");
        let seen = provider(&mut limit, 40.0, low / 3, 20, &mut now);
        assert!(seen[2..].iter().all(|limit| *limit == seen[2]), "{seen:?}");
        assert!(seen[2] < 2 * low, "{low}: {seen:?}");
    }

    #[test]
    fn a_slowdown_that_few_requests_meet_leaves_the_least() {
        let (mut limit, mut now) = (AdaptiveLimit::new(BOUNDS), Instant::now());
        let seen = provider(&mut limit, 1.0, 4, 20, &mut now);
        assert_eq!(seen.last(), Some(&BOUNDS.at_least), "{seen:?}");
    }

    #[test]
    fn bounds_hold_whatever_is_measured_and_after_a_change() {
        let (mut limit, mut now) = (AdaptiveLimit::new(BOUNDS), Instant::now());
        for (slots, wanted) in [(1.0, 4_000), (1e6, 4_000)] {
            let seen = provider(&mut limit, slots, wanted, 80, &mut now);
            assert!(seen.iter().all(|limit| (BOUNDS.at_least..=BOUNDS.at_most).contains(limit)), "{seen:?}");
        }
        limit.set_bounds(InFlightBounds { at_least: 3, at_most: 5 });
        assert_eq!(limit.limit(), 5);
    }

    #[test]
    fn what_was_sent_before_it_fell_does_not_make_it_fall_again() {
        let (mut limit, now) = (AdaptiveLimit::new(BOUNDS), Instant::now());
        let later = |ms| now + Duration::from_millis(ms);
        let set = (0..40).filter(|count| limit.record(4.0, now, 400, later(100 * count))).count();
        assert_eq!(set, 1, "then all of them are of before");
        assert!(limit.limit() < 400);
    }

    #[test]
    fn a_burst_of_a_minute_hardly_moves_the_long_term_time() {
        let (mut long_term, mut now) = (LongTermFirstToken::default(), Instant::now());
        for _ in 0..KNOWN_SAMPLES {
            assert_eq!(long_term.slowdown(Duration::from_millis(100), now), None);
        }
        let mut last = None;
        for _ in 0..6_000 {
            now += Duration::from_millis(10);
            last = long_term.slowdown(Duration::from_millis(300), now);
        }
        assert!(last.is_some_and(|slowdown| (2.3..3.0).contains(&slowdown)), "{last:?}");
    }
}
