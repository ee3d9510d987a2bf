//! The breaker of one deployment: closed → open → half-open → closed.
//!
//! It exists so that a failing deployment quickly gets no traffic, is then tested by single probes, and
//! gets its share of traffic back slowly. Being throttled ("resting") is the same state machine with another
//! [`TransitionCause`]: no traffic until a known instant, then exactly one probe.
//!
//! It must never know requests, regions or other deployments; time and random values are passed in.
//! Start reading in [`Breaker::report`], which has all transitions.

pub mod backoff;
pub mod credential;
pub mod window;

use crate::domain::failure::HealthSignal;
use crate::domain::id::KeyId;
use crate::domain::random::RandomValue;
use backoff::Backoff;
use std::time::{Duration, Instant};
use window::{FailureRateWindow, FailureStreak};

/// When a deployment trips and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BreakerSettings {
    /// The number of failures in a row that trips.
    pub failures: u32,
    /// Trips when the share of good ends is below this, in hundredths of a percent.
    pub ratio_bp: u32,
    /// The time over which the share is computed.
    pub window: Duration,
    /// With fewer ends than this in the window the share never trips.
    pub min_requests: u32,
    /// How long it stays open the first time.
    pub open: Duration,
    /// The longest time it stays open, unless the provider asks for more.
    pub open_max: Duration,
}

/// Why no traffic flows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TransitionCause {
    /// Too many failures in a row.
    Consecutive,
    /// Too small a share of good ends.
    Ratio,
    /// The probe failed.
    Probe,
    /// The provider throttles us: the deployment rests.
    Throttled,
    /// The provider does not know the model or path: the deployment rests.
    NotFound,
}

impl TransitionCause {
    /// Its label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Consecutive => "consecutive",
            Self::Ratio => "ratio",
            Self::Probe => "probe",
            Self::Throttled => "throttled",
            Self::NotFound => "not_found",
        }
    }

    /// Whether the deployment rests, which is not a fault.
    pub fn is_rest(self) -> bool {
        matches!(self, Self::Throttled | Self::NotFound)
    }
}

/// The states of a breaker, as metrics and logs name them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StateName {
    /// Traffic flows.
    Closed,
    /// No traffic flows.
    Open,
    /// One probe is in flight, or may be sent.
    HalfOpen,
    /// No traffic flows because the provider asked us to stay away.
    Resting,
}

impl StateName {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Closed, Self::Open, Self::HalfOpen, Self::Resting];

    /// Its label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::Resting => "resting",
        }
    }
}

/// Whether, and how, a deployment may be used now.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Availability {
    /// Traffic flows; below 1 the deployment gets only this share of its traffic (slow start).
    Flowing {
        /// In `(0, 1]`.
        share: f64,
    },
    /// The next attempt is the probe.
    ProbeDue,
    /// Nothing may be sent before `until`.
    Blocked {
        /// When the probe is due; with a probe in flight, when to check again.
        until: Instant,
    },
}

/// Permission for one attempt. Its end must be reported to the breaker exactly once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BreakerPermit {
    probe: bool,
    /// How often the breaker had opened when this was issued: if it has opened since, the end is outdated.
    generation: u32,
}

/// A change of state, for metrics and logs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transition {
    /// The state entered.
    pub to: StateName,
    /// The cause; `None` when it closed.
    pub cause: Option<TransitionCause>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum BreakerState {
    /// `recovered`: when it last closed and how long it had been open, for the slow start.
    Closed {
        recovered: Option<(Instant, Duration)>,
    },
    Open {
        until: Instant,
        open_for: Duration,
        cause: TransitionCause,
    },
    /// The pause is over; `probing` while the one probe is in flight.
    HalfOpen {
        probing: bool,
        open_for: Duration,
        cause: TransitionCause,
    },
}

/// The share of its traffic that a deployment gets at first after it closed.
const FIRST_SHARE: f64 = 0.1;
/// How long the first share lasts.
const FIRST_SECOND: Duration = Duration::from_secs(1);
/// The shortest slow start.
const SLOW_START_MIN: Duration = Duration::from_secs(2);
/// While a probe is in flight, other attempts may check again after this.
const PROBE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// One deployment's breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: BreakerState,
    /// How often it has opened.
    generation: u32,
    streak: FailureStreak,
    window: FailureRateWindow,
    trip_backoff: Backoff,
    throttle_backoff: Backoff,
    not_found_backoff: Backoff,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(settings: BreakerSettings) -> Self {
        Self {
            state: BreakerState::Closed { recovered: None },
            generation: 0,
            streak: FailureStreak::default(),
            window: FailureRateWindow::new(settings.window),
            trip_backoff: Backoff::doubling(settings.open, settings.open_max),
            throttle_backoff: Backoff::throttled(),
            not_found_backoff: Backoff::not_found(),
            settings,
        }
    }

    /// A closed breaker of a deployment that is added to running traffic at `now`: it begins with a slow start.
    pub fn with_slow_start(settings: BreakerSettings, now: Instant) -> Self {
        let mut breaker = Self::new(settings);
        breaker.state = BreakerState::Closed { recovered: Some((now, Duration::ZERO)) };
        breaker
    }

    /// Applies new settings; state and counts stay, but a new `window` starts empty.
    pub fn update_settings(&mut self, settings: BreakerSettings) {
        if settings != self.settings {
            self.trip_backoff.set_bounds(settings.open, settings.open_max);
            if settings.window != self.settings.window {
                self.window = FailureRateWindow::new(settings.window);
            }
            self.settings = settings;
        }
    }

    /// Whether, and how, the deployment may be used at `now`.
    pub fn availability(&self, now: Instant) -> Availability {
        match self.state {
            BreakerState::Closed { recovered } => {
                Availability::Flowing { share: recovered.map_or(1.0, |r| share(r, now)) }
            }
            BreakerState::Open { until, .. } if now < until => Availability::Blocked { until },
            BreakerState::Open { .. } | BreakerState::HalfOpen { probing: false, .. } => Availability::ProbeDue,
            BreakerState::HalfOpen { probing: true, .. } => Availability::Blocked { until: now + PROBE_RETRY_AFTER },
        }
    }

    /// The state's name at `now`.
    pub fn name(&self, now: Instant) -> StateName {
        match self.state {
            BreakerState::Closed { .. } => StateName::Closed,
            BreakerState::Open { until, cause, .. } if now < until => open_name(cause),
            BreakerState::Open { .. } | BreakerState::HalfOpen { .. } => StateName::HalfOpen,
        }
    }

    /// A permit for one attempt at `now`, if one may be made. Only one probe at a time gets a permit; its
    /// holder must [`report`](Self::report) the end, with [`HealthSignal::Neutral`] where there is no result.
    pub fn admit(&mut self, now: Instant) -> Option<BreakerPermit> {
        match self.availability(now) {
            Availability::Flowing { .. } => Some(BreakerPermit { probe: false, generation: self.generation }),
            Availability::Blocked { .. } => None,
            Availability::ProbeDue => {
                if let BreakerState::Open { open_for, cause, .. } | BreakerState::HalfOpen { open_for, cause, .. } =
                    self.state
                {
                    self.state = BreakerState::HalfOpen { probing: true, open_for, cause };
                }
                Some(BreakerPermit { probe: true, generation: self.generation })
            }
        }
    }

    /// The first good token under `permit` has arrived. If it is the probe's, the breaker closes; from then on it
    /// is an attempt like any other, and its end is reported like any other.
    pub fn answered(&mut self, permit: &mut BreakerPermit, now: Instant) -> Option<Transition> {
        if std::mem::take(&mut permit.probe) { self.close(now) } else { None }
    }

    fn close(&mut self, now: Instant) -> Option<Transition> {
        let BreakerState::HalfOpen { open_for, .. } = self.state else { return None };
        self.state = BreakerState::Closed { recovered: Some((now, open_for)) };
        self.streak.clear();
        self.window.clear();
        self.trip_backoff.closed(now);
        Some(Transition { to: StateName::Closed, cause: None })
    }

    /// Records how an attempt of `key` ended. Returns the transition that this causes, if any.
    pub fn report(
        &mut self,
        permit: BreakerPermit,
        key: KeyId,
        signal: HealthSignal,
        now: Instant,
        draw: RandomValue,
    ) -> Option<Transition> {
        match self.state {
            BreakerState::Closed { .. } if permit.generation == self.generation => {
                self.report_closed(key, signal, now, draw)
            }
            BreakerState::HalfOpen { open_for, cause, .. } if permit.probe => {
                self.state = BreakerState::HalfOpen { probing: false, open_for, cause };
                self.report_probe(signal, now, draw)
            }
            _ => self.report_late(signal, now, draw),
        }
    }

    /// An attempt that was sent before the breaker last opened and ended afterwards. It is ignored, or attempts
    /// that hung in an outage would trip the breaker again after it. Only a provider's Retry-After still counts.
    fn report_late(&mut self, signal: HealthSignal, now: Instant, draw: RandomValue) -> Option<Transition> {
        let HealthSignal::Throttled(Some(after)) = signal else { return None };
        let asked_until = now + self.throttle_backoff.capped(after);
        match self.state {
            BreakerState::Closed { .. } => return Some(self.rest(Some(after), now, draw)),
            BreakerState::Open { until, open_for, cause } => {
                self.state = BreakerState::Open { until: until.max(asked_until), open_for, cause }
            }
            BreakerState::HalfOpen { probing: false, open_for, cause } => {
                self.state = BreakerState::Open { until: asked_until, open_for, cause }
            }
            // The probe in flight will give a newer result.
            BreakerState::HalfOpen { probing: true, .. } => {}
        }
        None
    }

    fn report_closed(
        &mut self,
        key: KeyId,
        signal: HealthSignal,
        now: Instant,
        draw: RandomValue,
    ) -> Option<Transition> {
        match signal {
            HealthSignal::Neutral | HealthSignal::CredentialRefused => None,
            HealthSignal::Good => {
                self.streak.clear();
                self.window.good(key, now);
                self.throttle_backoff.reset();
                self.not_found_backoff.reset();
                None
            }
            HealthSignal::Throttled(after) => {
                self.window.bad(Some(key), now);
                Some(self.rest(after, now, draw))
            }
            HealthSignal::NotFound => Some(self.rest_not_found(now, draw)),
            HealthSignal::Bad => self.count_bad(Some(key), now, draw),
            HealthSignal::Down => self.count_bad(None, now, draw),
        }
    }

    /// `key` is `None` for an end that no key can have caused: nothing of the request was sent.
    fn count_bad(&mut self, key: Option<KeyId>, now: Instant, draw: RandomValue) -> Option<Transition> {
        self.streak.bad(key);
        self.window.bad(key, now);
        let counts = self.window.counts(now);
        if self.streak.reaches(self.settings.failures, counts.keys) {
            return Some(self.trip(TransitionCause::Consecutive, now, draw));
        }
        let enough = counts.requests >= u64::from(self.settings.min_requests);
        if enough && counts.good() * 10_000 < counts.requests * u64::from(self.settings.ratio_bp) {
            return Some(self.trip(TransitionCause::Ratio, now, draw));
        }
        None
    }

    fn report_probe(&mut self, signal: HealthSignal, now: Instant, draw: RandomValue) -> Option<Transition> {
        match signal {
            // The client disconnected, or our credential rests: another probe may be sent.
            HealthSignal::Neutral | HealthSignal::CredentialRefused => None,
            HealthSignal::Good => self.close(now),
            HealthSignal::Bad | HealthSignal::Down => Some(self.trip(TransitionCause::Probe, now, draw)),
            HealthSignal::Throttled(after) => Some(self.rest(after, now, draw)),
            HealthSignal::NotFound => Some(self.rest_not_found(now, draw)),
        }
    }

    fn trip(&mut self, cause: TransitionCause, now: Instant, draw: RandomValue) -> Transition {
        let pause = self.trip_backoff.next(now, draw);
        self.open(cause, pause, now)
    }

    fn rest(&mut self, after: Option<Duration>, now: Instant, draw: RandomValue) -> Transition {
        let pause = match after {
            Some(after) => self.throttle_backoff.capped(after),
            None => self.throttle_backoff.next(now, draw),
        };
        self.open(TransitionCause::Throttled, pause, now)
    }

    fn rest_not_found(&mut self, now: Instant, draw: RandomValue) -> Transition {
        let pause = self.not_found_backoff.next(now, draw);
        self.open(TransitionCause::NotFound, pause, now)
    }

    fn open(&mut self, cause: TransitionCause, pause: Duration, now: Instant) -> Transition {
        self.state = BreakerState::Open { until: now + pause, open_for: pause, cause };
        self.generation = self.generation.wrapping_add(1);
        self.streak.clear();
        Transition { to: open_name(cause), cause: Some(cause) }
    }
}

fn open_name(cause: TransitionCause) -> StateName {
    if cause.is_rest() { StateName::Resting } else { StateName::Open }
}

/// Slow start: a tenth in the first second, then a linear increase to the full share when twice the time it was
/// open, or two seconds, have passed.
fn share((since, open_for): (Instant, Duration), now: Instant) -> f64 {
    let age = now.saturating_duration_since(since);
    let whole = (open_for * 2).max(SLOW_START_MIN);
    if age < FIRST_SECOND {
        FIRST_SHARE
    } else if age >= whole {
        1.0
    } else {
        let progress = (age - FIRST_SECOND).as_secs_f64() / (whole - FIRST_SECOND).as_secs_f64();
        FIRST_SHARE + (1.0 - FIRST_SHARE) * progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::routing::fixture::BREAKER;

    const A: KeyId = KeyId(1);
    const B: KeyId = KeyId(2);
    /// No jitter: pauses are exactly as written.
    const MIDDLE: RandomValue = RandomValue(1 << 63);
    const SECOND: Duration = Duration::from_secs(1);

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// A breaker and the time, which only the test advances.
    struct Scenario {
        breaker: Breaker,
        now: Instant,
    }

    impl Scenario {
        fn new() -> Self {
            Self { breaker: Breaker::new(BREAKER), now: Instant::now() }
        }

        fn take(&mut self) -> BreakerPermit {
            self.breaker.admit(self.now).expect("traffic flows or a probe is due")
        }

        fn end(&mut self, permit: BreakerPermit, key: KeyId, signal: HealthSignal) -> Option<Transition> {
            self.breaker.report(permit, key, signal, self.now, MIDDLE)
        }

        /// One attempt from its permit to its end; the cause, if the breaker opened.
        fn attempt(&mut self, key: KeyId, signal: HealthSignal) -> Option<TransitionCause> {
            let permit = self.take();
            self.end(permit, key, signal)?.cause
        }

        /// As [`attempt`](Self::attempt), many times; the cause and the number of the attempt that tripped.
        fn attempts(&mut self, ends: &[(KeyId, HealthSignal)]) -> Option<(TransitionCause, usize)> {
            ends.iter().enumerate().find_map(|(at, (key, end))| Some((self.attempt(*key, *end)?, at + 1)))
        }

        fn later(&mut self, by: Duration) -> &mut Self {
            self.now += by;
            self
        }

        fn availability(&self) -> Availability {
            self.breaker.availability(self.now)
        }

        fn name(&self) -> StateName {
            self.breaker.name(self.now)
        }

        /// For how long from now no traffic may be sent.
        fn blocked_for(&self) -> Option<Duration> {
            match self.availability() {
                Availability::Blocked { until } => Some(until - self.now),
                Availability::Flowing { .. } | Availability::ProbeDue => None,
            }
        }

        fn share(&self) -> f64 {
            match self.availability() {
                Availability::Flowing { share } => share,
                other => panic!("no traffic flows: {other:?}"),
            }
        }

        fn tripped() -> Self {
            let mut scenario = Self::new();
            assert_eq!(scenario.attempts(&[(A, HealthSignal::Bad); 5]), Some((TransitionCause::Consecutive, 5)));
            scenario
        }

        /// Waits until the probe is due and sends it.
        fn probe(&mut self, signal: HealthSignal) -> Option<Transition> {
            let wait = self.blocked_for().expect("open");
            self.later(wait);
            assert_eq!(self.availability(), Availability::ProbeDue);
            let permit = self.take();
            assert!(permit.probe);
            self.end(permit, A, signal)
        }
    }

    /// Ends as letters: `a` and `b` are bad ends of two keys, `A` and `B` good ones, `d` is no connection,
    /// `n` is neutral, `c` is a refused credential.
    fn ends(written: &str) -> Vec<(KeyId, HealthSignal)> {
        let end = |letter| match letter {
            'a' => (A, HealthSignal::Bad),
            'b' => (B, HealthSignal::Bad),
            'A' => (A, HealthSignal::Good),
            'B' => (B, HealthSignal::Good),
            'd' => (A, HealthSignal::Down),
            'n' => (A, HealthSignal::Neutral),
            'c' => (A, HealthSignal::CredentialRefused),
            other => panic!("what is {other}?"),
        };
        written.chars().map(end).collect()
    }

    #[test]
    fn it_trips_for_the_right_cause_and_at_the_right_end() {
        let check = |written: &str, expected: Option<(TransitionCause, usize)>| {
            assert_eq!(Scenario::new().attempts(&ends(written)), expected, "{written}");
        };
        let consecutive = |at| Some((TransitionCause::Consecutive, at));
        let ratio = |at| Some((TransitionCause::Ratio, at));
        check("aaaa", None);
        check("aaaaa", consecutive(5));
        check("aaaaAaaaa", None);
        check("aaaaBaaaa", None);
        check("aannncca", None);
        check("aannnccaaa", consecutive(10));
        check("aaddd", consecutive(5));
        // Below 50 % of at least 20: not at 19 ends, not at exactly a half.
        check("aaaaAaaaaAaaaaAaaaa", None);
        check("aaaaAaaaaAaaaaAaaaaa", consecutive(20));
        check("aaaaAaaaaAaaaaAaaaaAa", ratio(21));
        check("aaaAaaaAaaaAaaaAaaaA", None);
        check("aaaAaaaAaaaAaaaAaaaAa", ratio(21));
        check("aAaAaAaAaAaAaAaAaAaA", None);
        check("AaAaAaAaAaAaAaAaAaAa", None);
        check("AaAaAaAaAaAaAaAaAaAaa", ratio(21));
        check("AAaaAAaaAAaaAAaaAaaa", ratio(20));
        // Of two keys, none counts for more than half; a failed connection counts for no key.
        check("Baaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", None);
        check("Baaaaabb", None);
        check("Baaaaabbb", consecutive(9));
        check("Baaaaadd", None);
        check("Baaaaaddd", consecutive(9));
        check("Bddddd", consecutive(6));
        check("BBBBBBBBBBaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", None);
        check("ababaA", None);
        check("ababab", consecutive(6));
        check("bBaaaaBaaaaBaaaaBaaaaBaaaaBaaaaBaaaaBaaaaBaaaaBaaaaB", None);
        check("aabbAaabbBaabbAaabbB", None);
        check("aabbAaabbBaabbAaabbBa", ratio(21));
    }

    #[test]
    fn the_ratio_is_computed_over_the_window_only() {
        let check = |gap: Duration, expected| {
            let mut scenario = Scenario::new();
            assert_eq!(scenario.attempts(&ends("aaaAaaaAaaaAaaaA")), None);
            scenario.later(gap);
            assert_eq!(scenario.attempts(&ends("aaaAa")), expected, "{gap:?} later");
        };
        check(ms(26_000), Some((TransitionCause::Ratio, 5)));
        check(ms(31_000), None);
    }

    #[test]
    fn it_stays_open_twice_as_long_each_time_within_a_fifth_of_jitter() {
        for seed in 0..200 {
            let mut scenario = Scenario::new();
            let draw = RandomValue(seed).salted(1);
            for _ in 0..5 {
                let permit = scenario.take();
                scenario.breaker.report(permit, A, HealthSignal::Bad, scenario.now, draw);
            }
            for (round, plain) in [1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0].into_iter().enumerate() {
                let open = scenario.blocked_for().expect("open");
                let (least, most) = (plain * 0.8, f64::min(plain * 1.2, 20.0));
                assert!((least..=most).contains(&open.as_secs_f64()), "seed {seed}, round {round}: {open:?}");
                scenario.later(open - Duration::from_nanos(1));
                assert_eq!(scenario.breaker.admit(scenario.now), None, "not an instant too soon");
                scenario.later(Duration::from_nanos(1));
                let permit = scenario.take();
                let transition =
                    scenario.breaker.report(permit, A, HealthSignal::Bad, scenario.now, draw.salted(round as u64));
                assert_eq!(transition, Some(Transition { to: StateName::Open, cause: Some(TransitionCause::Probe) }));
            }
        }
    }

    #[test]
    fn a_throttled_deployment_rests_as_long_as_its_provider_asks() {
        let check = |after: Option<Duration>, expected: Duration| {
            let mut scenario = Scenario::new();
            assert_eq!(scenario.attempt(A, HealthSignal::Throttled(after)), Some(TransitionCause::Throttled));
            assert_eq!(scenario.blocked_for(), Some(expected), "{after:?}");
            assert_eq!(scenario.name(), StateName::Resting);
        };
        check(Some(ms(1)), ms(1));
        check(Some(7 * SECOND), 7 * SECOND);
        check(Some(300 * SECOND), 300 * SECOND);
        check(Some(86_400 * SECOND), 300 * SECOND);
        check(None, SECOND);
    }

    #[test]
    fn rests_without_a_time_double() {
        let check = |signal: HealthSignal, cause, seconds: &[u32]| {
            let mut scenario = Scenario::new();
            assert_eq!(scenario.attempt(A, signal), Some(cause));
            for (round, expected) in seconds.iter().enumerate() {
                assert_eq!(scenario.blocked_for(), Some(*expected * SECOND), "{signal:?}, round {round}");
                let transition = scenario.probe(signal);
                assert_eq!(transition, Some(Transition { to: StateName::Resting, cause: Some(cause) }));
            }
            scenario.probe(HealthSignal::Good);
            scenario.attempt(A, HealthSignal::Good);
            scenario.attempt(A, signal);
            assert_eq!(scenario.blocked_for(), Some(seconds[0] * SECOND), "a good end starts {signal:?} anew");
        };
        check(HealthSignal::Throttled(None), TransitionCause::Throttled, &[1, 2, 4, 8, 16, 32, 60, 60]);
        check(HealthSignal::NotFound, TransitionCause::NotFound, &[60, 120, 240]);
    }

    #[test]
    fn being_throttled_counts_in_the_ratio_and_never_in_the_streak() {
        let mut scenario = Scenario::new();
        assert_eq!(scenario.attempts(&ends("aaaa")), None);
        // A rest of no length at all.
        scenario.attempt(A, HealthSignal::Throttled(Some(Duration::ZERO)));
        assert!(!scenario.breaker.streak.reaches(1, 1), "the streak is over");
        assert_eq!(scenario.breaker.window.counts(scenario.now).failures, 5);
    }

    #[test]
    fn half_open_admits_one_probe_and_a_lost_probe_may_be_replaced() {
        let mut scenario = Scenario::tripped();
        scenario.later(SECOND);
        assert_eq!((scenario.availability(), scenario.name()), (Availability::ProbeDue, StateName::HalfOpen));
        for signal in [HealthSignal::Neutral, HealthSignal::CredentialRefused] {
            let probe = scenario.take();
            assert!(probe.probe);
            assert_eq!(scenario.breaker.admit(scenario.now), None, "one probe");
            scenario.later(3600 * SECOND);
            assert_eq!(scenario.breaker.admit(scenario.now), None, "however long it takes");
            assert!(scenario.blocked_for().is_some_and(|patience| patience > Duration::ZERO));
            assert_eq!(scenario.end(probe, A, signal), None);
            assert_eq!(scenario.availability(), Availability::ProbeDue);
        }
    }

    #[test]
    fn the_first_token_of_the_probe_closes_the_breaker_and_clears_its_counts() {
        let mut scenario = Scenario::tripped();
        scenario.later(SECOND);
        let mut probe = scenario.take();
        let closed = scenario.breaker.answered(&mut probe, scenario.now);
        assert_eq!(closed, Some(Transition { to: StateName::Closed, cause: None }));
        assert_eq!(scenario.breaker.window.counts(scenario.now), window::WindowCounts::default());
        assert!(!probe.probe);
        assert_eq!(scenario.breaker.answered(&mut probe, scenario.now), None, "it closes once");
        // Its end counts like any other: with four more it is a streak of five.
        assert_eq!(scenario.end(probe, A, HealthSignal::Bad), None);
        assert_eq!(scenario.attempts(&ends("aaaa")), Some((TransitionCause::Consecutive, 4)));
        assert_eq!(scenario.blocked_for(), Some(2 * SECOND), "so soon after closing, the pause continues to double");
    }

    #[test]
    fn a_recovered_deployment_gets_its_share_back_slowly() {
        let check = |trip_backoff: u32, open_for: Duration| {
            let mut scenario = Scenario::tripped();
            (1..trip_backoff).for_each(|_| assert!(scenario.probe(HealthSignal::Bad).is_some()));
            assert_eq!(scenario.blocked_for(), Some(open_for));
            scenario.probe(HealthSignal::Good);
            assert!(scenario.share() <= 0.1);
            assert!(scenario.later(ms(999)).share() <= 0.1, "the whole first second");
            let mut last = scenario.share();
            let whole = 2 * open_for - ms(999);
            for _ in 0..100 {
                let share = scenario.later(whole / 100).share();
                assert!(share >= last, "it only grows");
                last = share;
            }
            assert_eq!(scenario.later(ms(1)).share(), 1.0, "whole by twice the {open_for:?} it was open");
        };
        check(1, SECOND);
        check(2, 2 * SECOND);
        check(4, 8 * SECOND);
        assert_eq!(Scenario::new().share(), 1.0, "a breaker that never tripped has the full share");
    }

    #[test]
    fn an_added_deployment_has_a_slow_start_too() {
        let now = Instant::now();
        let check = |age, expected| {
            let availability = Breaker::with_slow_start(BREAKER, now).availability(now + age);
            assert_eq!(availability, Availability::Flowing { share: expected }, "after {age:?}");
        };
        check(Duration::ZERO, 0.1);
        check(ms(999), 0.1);
        check(2 * SECOND, 1.0);
    }

    #[test]
    fn an_attempt_sent_before_the_trip_changes_nothing_after_it() {
        for signal in [
            HealthSignal::Good,
            HealthSignal::Bad,
            HealthSignal::Down,
            HealthSignal::NotFound,
            HealthSignal::Throttled(None),
        ] {
            let mut scenario = Scenario::new();
            let late: Vec<BreakerPermit> = (0..20).map(|_| scenario.take()).collect();
            scenario.attempts(&ends("aaaaa"));
            let open = scenario.availability();
            assert_eq!(scenario.end(late[0], B, signal), None);
            assert_eq!(scenario.availability(), open, "{signal:?} while open");
            scenario.later(SECOND);
            let probe = scenario.take();
            assert_eq!(scenario.end(late[1], B, signal), None);
            assert_eq!(scenario.breaker.admit(scenario.now), None, "{signal:?} while probing");
            scenario.end(probe, A, HealthSignal::Good);
            late[2..].iter().for_each(|permit| assert_eq!(scenario.end(*permit, B, signal), None));
            assert_eq!(scenario.breaker.window.counts(scenario.now).requests, 0, "{signal:?} when closed again");
        }
    }

    #[test]
    fn a_longer_retry_after_counts_even_after_the_trip() {
        let check = |later: Duration, asked_until: Duration, expected: Duration| {
            let mut scenario = Scenario::new();
            let late = scenario.take();
            scenario.attempts(&ends("aaaaa"));
            scenario.later(later).end(late, B, HealthSignal::Throttled(Some(asked_until)));
            assert_eq!(scenario.blocked_for(), Some(expected), "{asked_until:?} after {later:?}");
        };
        check(Duration::ZERO, ms(100), SECOND);
        check(Duration::ZERO, 9 * SECOND, 9 * SECOND);
        check(Duration::ZERO, 900 * SECOND, 300 * SECOND);
        check(5 * SECOND, 9 * SECOND, 9 * SECOND);

        let mut lost_probe = Scenario::new();
        let late = lost_probe.take();
        lost_probe.attempts(&ends("aaaaa"));
        lost_probe.probe(HealthSignal::Neutral);
        lost_probe.end(late, B, HealthSignal::Throttled(Some(9 * SECOND)));
        assert_eq!(lost_probe.blocked_for(), Some(9 * SECOND), "before the next probe");

        let mut recovered = Scenario::new();
        let late = recovered.take();
        recovered.attempts(&ends("aaaaa"));
        recovered.probe(HealthSignal::Good);
        recovered.end(late, B, HealthSignal::Throttled(Some(9 * SECOND)));
        assert_eq!(recovered.blocked_for(), Some(9 * SECOND), "after it closed");
    }

    #[test]
    fn new_settings_keep_the_state() {
        let mut scenario = Scenario::tripped();
        let before = scenario.availability();
        scenario.breaker.update_settings(BreakerSettings { open: 5 * SECOND, failures: 2, ..BREAKER });
        assert_eq!(scenario.availability(), before);
        scenario.probe(HealthSignal::Bad);
        assert_eq!(scenario.blocked_for(), Some(10 * SECOND), "the second pause by the new bounds");
        scenario.probe(HealthSignal::Good);
        assert_eq!(scenario.attempts(&ends("aa")), Some((TransitionCause::Consecutive, 2)));
    }

    #[test]
    fn an_old_trip_is_forgotten_after_the_longest_pause_without_failures() {
        let check = |well: Duration, expected| {
            let mut scenario = Scenario::tripped();
            scenario.probe(HealthSignal::Good);
            scenario.later(well).attempts(&ends("aaaaa"));
            assert_eq!(scenario.blocked_for(), Some(expected), "after {well:?}");
        };
        check(20 * SECOND, 2 * SECOND);
        check(21 * SECOND, SECOND);
    }
}
