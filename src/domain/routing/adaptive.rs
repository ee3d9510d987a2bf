//! How many requests may be in flight, found from how soon first tokens come.
//!
//! Providers that are asked for more than they can carry queue it, and the first token comes later. By then too much is in
//! flight already, so the limit is never far from what was carried: half as much again as was in flight lately without a
//! slowdown, as congestion windows are validated. Where first tokens are late, it falls in proportion, as gradient limiters
//! do, with the ratio taken for each deployment, so that models of different speed may be mixed. It must never fall below
//! what is set: where less is in flight, the load is not the cause.
//!
//! Start reading in [`AdaptiveLimit::record`].

use super::places::{PEAK_REMEMBERED, PeakRecord};
use std::time::{Duration, Instant};

/// First-token times may be longer than usual by so much: what varies by itself.
const TOLERANCE: f64 = 1.25;
/// Up to here nothing queues, and more may be tried. Between the two the limit stays.
const UNHURRIED: f64 = 1.1;
/// The least that is left of the limit at once.
const STEEPEST: f64 = 0.5;
/// The limit is at most so many times what was carried without a slowdown: nobody knows what more would do.
const UNTRIED: f64 = 1.5;
/// So much more in flight is another load, of which earlier first tokens say nothing.
const OTHER_LOAD: f64 = 1.25;
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
    /// It begins here, before anything was measured, and rises no higher.
    pub at_most: u32,
}

/// How many requests may be in flight, now.
#[derive(Clone, Debug)]
pub struct AdaptiveLimit {
    bounds: InFlightBounds,
    limit: f64,
    /// When it fell last: what was sent before met the load of before.
    fell: Option<Instant>,
    /// The load that first tokens are of, in requests in flight, and when it became so much.
    load: u32,
    since: Option<Instant>,
    /// What was carried lately without a slowdown.
    carried: PeakRecord,
    window: SlowdownWindow,
}

/// What was measured since the limit was set.
#[derive(Clone, Copy, Default, Debug)]
struct SlowdownWindow {
    began: Option<Instant>,
    sum: f64,
    samples: u32,
    most_in_flight: u32,
    /// When the first of its attempts was sent.
    sent: Option<Instant>,
}

impl AdaptiveLimit {
    /// A limit that has measured nothing.
    pub fn new(bounds: InFlightBounds) -> Self {
        Self {
            bounds,
            limit: f64::from(bounds.at_most),
            fell: None,
            load: 0,
            since: None,
            carried: PeakRecord::default(),
            window: SlowdownWindow::default(),
        }
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
        if f64::from(in_flight) > f64::from(self.load) * OTHER_LOAD {
            (self.load, self.since) = (in_flight, Some(now));
        }
        let window = &mut self.window;
        let began = *window.began.get_or_insert(now);
        window.sum += slowdown.min(MOST_SLOWDOWN);
        window.samples += 1;
        window.most_in_flight = window.most_in_flight.max(in_flight);
        window.sent = Some(window.sent.map_or(sent, |first| first.min(sent)));
        if window.samples < LEAST_SAMPLES || now.saturating_duration_since(began) < WINDOW {
            return false;
        }
        let window = std::mem::take(window);
        let next = self.next(window, now);
        self.limit = self.bounded(next);
        true
    }

    /// The limit after a window.
    fn next(&mut self, window: SlowdownWindow, now: Instant) -> f64 {
        let slowdown = window.sum / f64::from(window.samples);
        if slowdown > TOLERANCE {
            let used = f64::from(window.most_in_flight).min(self.limit);
            self.fell = Some(now);
            return used * (TOLERANCE / slowdown).max(STEEPEST);
        }
        // One that has a first token of a lower load says nothing of this one.
        let is_of_load = self.since.is_none_or(|since| window.sent.is_some_and(|sent| sent >= since));
        if is_of_load {
            self.load = window.most_in_flight;
            self.carried.record(self.load, now);
        }
        let carried = self.carried.at(now);
        if carried == 0 {
            return self.limit;
        }
        let mut tried = self.limit;
        if is_of_load && slowdown <= UNHURRIED {
            // One that is not reached rises no further.
            tried = (tried + self.step(now)).min(f64::from(window.most_in_flight) * UNTRIED).max(tried);
        }
        tried.min(f64::from(carried) * UNTRIED)
    }

    /// By how much it may rise at once: by a half, but carefully where it fell lately.
    fn step(&self, now: Instant) -> f64 {
        let fell_lately = self.fell.is_some_and(|fell| now.saturating_duration_since(fell) < PEAK_REMEMBERED);
        if fell_lately { self.limit.sqrt() } else { self.limit * (UNTRIED - 1.0) }
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
        let low = *provider(&mut limit, 40.0, 400, 20, &mut now).last().expect("it ran");
        let seen = provider(&mut limit, 200.0, 400, 40, &mut now);
        assert!(seen[..8].is_sorted() && seen[8] > 2 * low, "{low}: {seen:?}");
        assert!(seen.last().is_some_and(|limit| *limit >= 180), "{seen:?}");
    }

    #[test]
    fn the_limit_is_half_as_much_again_as_was_carried() {
        let (mut limit, mut now) = (AdaptiveLimit::new(BOUNDS), Instant::now());
        let seen = provider(&mut limit, 200.0, 60, 20, &mut now);
        assert_eq!(seen.last(), Some(&90), "{seen:?}");
        // A burst finds it there, and each step is measured before the next one.
        let burst = provider(&mut limit, 200.0, 4_000, 20, &mut now);
        assert!(burst[0] <= 135 && burst.windows(2).all(|pair| pair[1] * 2 <= pair[0] * 3 + 2), "{burst:?}");
        assert!(burst.iter().all(|limit| *limit <= 330), "half as much again as is carried unhurried: {burst:?}");
        // What was carried long ago is forgotten.
        let quiet = provider(&mut limit, 200.0, 10, 200, &mut now);
        assert_eq!(quiet.last(), Some(&15), "{quiet:?}");
    }

    #[test]
    fn a_first_token_of_a_lower_load_lets_no_more_in() {
        let (mut limit, now) = (AdaptiveLimit::new(BOUNDS), Instant::now());
        let later = |ms| now + Duration::from_millis(ms);
        (0..40).for_each(|n| {
            limit.record(1.0, later(100 * n), 20, later(100 * n + 50));
        });
        assert_eq!(limit.limit(), 30);
        // All that was sent by now met twenty others, although thirty are in flight.
        (0..40).for_each(|n| {
            limit.record(1.0, later(4_000), 30, later(4_100 + 100 * n));
        });
        assert_eq!(limit.limit(), 30);
        (0..40).for_each(|n| {
            limit.record(1.0, later(9_000), 30, later(9_100 + 100 * n));
        });
        assert_eq!(limit.limit(), 45);
    }

    #[test]
    fn a_limit_that_is_not_reached_does_not_rise() {
        let (mut limit, mut now) = (AdaptiveLimit::new(BOUNDS), Instant::now());
        let low = *provider(&mut limit, 40.0, 400, 20, &mut now).last().expect("it ran");
        let seen = provider(&mut limit, 40.0, low / 3, 20, &mut now);
        assert!(seen.iter().all(|limit| *limit <= low), "{low}: {seen:?}");
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
