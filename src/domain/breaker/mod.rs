//! The breaker of one deployment: closed → open → half-open → closed.
//!
//! It exists so that a deployment in trouble is left alone quickly, asked again politely and given
//! its share back slowly. Being throttled ("resting") is the same machine with another [`Cause`]:
//! no traffic until a known instant, then exactly one probe.
//!
//! It is told the time and the dice; it knows nothing of requests, regions or other deployments.
//! The state diagram is [`Breaker::report`].

pub mod backoff;
pub mod credential;
pub mod window;

use crate::domain::chance::Draw;
use crate::domain::failure::Verdict;
use crate::domain::id::KeyId;
use backoff::Backoff;
use std::time::{Duration, Instant};
use window::{Run, Window};

/// When a deployment trips and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BreakerSettings {
    /// Bad ends in a row that trip.
    pub failures: u32,
    /// Trips when the share of good ends falls under this, in hundredths of a percent.
    pub ratio_bp: u32,
    /// Over how long the share is taken.
    pub window: Duration,
    /// With fewer ends than this in the window the share says nothing.
    pub min_requests: u32,
    /// The first time it stays open.
    pub open: Duration,
    /// It never stays open longer by its own count.
    pub open_max: Duration,
}

/// Why no traffic flows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cause {
    /// Too many bad ends in a row.
    Consecutive,
    /// Too small a share of good ends.
    Ratio,
    /// The probe failed.
    Probe,
    /// The provider throttles us: resting.
    Throttled,
    /// The provider does not know the model or path: resting.
    NotFound,
}

impl Cause {
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

    /// Whether the deployment rests rather than being at fault.
    pub fn is_rest(self) -> bool {
        matches!(self, Self::Throttled | Self::NotFound)
    }
}

/// The states as metrics name them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StateName {
    /// Traffic flows.
    Closed,
    /// No traffic flows.
    Open,
    /// One probe is, or may be, on its way.
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
pub enum Standing {
    /// Traffic flows; below 1 only this share of what it would get (slow start).
    Flowing {
        /// In `(0, 1]`.
        share: f64,
    },
    /// The next attempt is the probe.
    ProbeDue,
    /// Nothing may be sent before `until`.
    Blocked {
        /// When the probe is due; with a probe on its way, when another might be.
        until: Instant,
    },
}

/// Leave to make one attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    /// Traffic flows.
    Flow,
    /// This attempt is the probe.
    Probe,
}

/// A change of state, for metrics and logs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transition {
    /// The state entered.
    pub to: StateName,
    /// Why; `None` when it closed.
    pub cause: Option<Cause>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// `recovered`: when it last closed and how long it had been open, for slow start.
    Closed {
        recovered: Option<(Instant, Duration)>,
    },
    Open {
        until: Instant,
        slept: Duration,
        cause: Cause,
    },
    /// Past its time; `probing` while the one probe is on its way.
    HalfOpen {
        probing: bool,
        slept: Duration,
        cause: Cause,
    },
}

/// In its first second back a deployment gets this share.
const FIRST_SHARE: f64 = 0.1;
/// How long the first share lasts.
const FIRST_SECOND: Duration = Duration::from_secs(1);
/// The shortest slow start.
const SLOW_START_MIN: Duration = Duration::from_secs(2);
/// While a probe is on its way others are told to come back after this.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// One deployment's breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: State,
    run: Run,
    window: Window,
    trips: Backoff,
    throttles: Backoff,
    absences: Backoff,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(settings: BreakerSettings) -> Self {
        Self {
            state: State::Closed { recovered: None },
            run: Run::default(),
            window: Window::new(settings.window),
            trips: Backoff::doubling(settings.open, settings.open_max),
            throttles: Backoff::throttled(),
            absences: Backoff::not_found(),
            settings,
        }
    }

    /// A closed breaker whose deployment joins running traffic at `now`: it starts slowly.
    pub fn newcomer(settings: BreakerSettings, now: Instant) -> Self {
        let mut breaker = Self::new(settings);
        breaker.state = State::Closed { recovered: Some((now, Duration::ZERO)) };
        breaker
    }

    /// The same breaker under new settings; its state and counts stay.
    pub fn resettle(&mut self, settings: BreakerSettings) {
        if settings != self.settings {
            self.trips.set_bounds(settings.open, settings.open_max);
            if settings.window != self.settings.window {
                self.window = Window::new(settings.window);
            }
            self.settings = settings;
        }
    }

    /// Whether, and how, the deployment may be used at `now`.
    pub fn standing(&self, now: Instant) -> Standing {
        match self.state {
            State::Closed { recovered } => Standing::Flowing { share: recovered.map_or(1.0, |r| share(r, now)) },
            State::Open { until, .. } if now < until => Standing::Blocked { until },
            State::Open { .. } | State::HalfOpen { probing: false, .. } => Standing::ProbeDue,
            State::HalfOpen { probing: true, .. } => Standing::Blocked { until: now + PROBE_PATIENCE },
        }
    }

    /// The state's name at `now`.
    pub fn name(&self, now: Instant) -> StateName {
        match self.state {
            State::Closed { .. } => StateName::Closed,
            State::Open { until, cause, .. } if now < until => open_name(cause),
            State::Open { .. } | State::HalfOpen { .. } => StateName::HalfOpen,
        }
    }

    /// Leave for one attempt at `now`, if any may be made. A probe's leave is given once; whoever
    /// holds it must [`report`](Self::report) or give it back with [`Verdict::Neutral`].
    pub fn admit(&mut self, now: Instant) -> Option<Leave> {
        match self.standing(now) {
            Standing::Flowing { .. } => Some(Leave::Flow),
            Standing::Blocked { .. } => None,
            Standing::ProbeDue => {
                if let State::Open { slept, cause, .. } | State::HalfOpen { slept, cause, .. } = self.state {
                    self.state = State::HalfOpen { probing: true, slept, cause };
                }
                Some(Leave::Probe)
            }
        }
    }

    /// The probe's first good token is in hand: closes. Its end is reported like any other.
    pub fn probe_answered(&mut self, now: Instant) -> Option<Transition> {
        let State::HalfOpen { slept, .. } = self.state else { return None };
        self.state = State::Closed { recovered: Some((now, slept)) };
        self.run.clear();
        self.window.clear();
        self.trips.closed(now);
        Some(Transition { to: StateName::Closed, cause: None })
    }

    /// Hears how an attempt of `key` ended.
    pub fn report(
        &mut self,
        leave: Leave,
        key: KeyId,
        verdict: Verdict,
        now: Instant,
        draw: Draw,
    ) -> Option<Transition> {
        match (self.state, leave) {
            (State::Closed { .. }, _) => self.report_closed(key, verdict, now, draw),
            (State::HalfOpen { slept, cause, .. }, Leave::Probe) => {
                self.state = State::HalfOpen { probing: false, slept, cause };
                self.report_probe(verdict, now, draw)
            }
            // Sent before the trip, ended after it: old news, but a throttling provider's wish still holds.
            (State::Open { until, slept, cause }, _) => {
                if let Verdict::Throttled(Some(after)) = verdict {
                    let until = until.max(now + self.throttles.floor(after));
                    self.state = State::Open { until, slept, cause };
                }
                None
            }
            (State::HalfOpen { .. }, Leave::Flow) => None,
        }
    }

    fn report_closed(&mut self, key: KeyId, verdict: Verdict, now: Instant, draw: Draw) -> Option<Transition> {
        match verdict {
            Verdict::Neutral | Verdict::CredentialRefused => None,
            Verdict::Good => {
                self.run.clear();
                self.window.good(key, now);
                self.throttles.reset();
                self.absences.reset();
                None
            }
            Verdict::Throttled(after) => {
                self.window.bad(Some(key), now);
                Some(self.rest(after, now, draw))
            }
            Verdict::NotFound => Some(self.absent(now, draw)),
            Verdict::Bad => self.count_bad(Some(key), now, draw),
            Verdict::Down => self.count_bad(None, now, draw),
        }
    }

    /// `key` is `None` for an end that cannot be any one key's doing: nothing of the request was sent.
    fn count_bad(&mut self, key: Option<KeyId>, now: Instant, draw: Draw) -> Option<Transition> {
        self.run.bad(key);
        self.window.bad(key, now);
        let tally = self.window.tally(now);
        if self.run.reaches(self.settings.failures, tally.keys) {
            return Some(self.trip(Cause::Consecutive, now, draw));
        }
        let enough = tally.requests >= u64::from(self.settings.min_requests);
        if enough && tally.good() * 10_000 < tally.requests * u64::from(self.settings.ratio_bp) {
            return Some(self.trip(Cause::Ratio, now, draw));
        }
        None
    }

    fn report_probe(&mut self, verdict: Verdict, now: Instant, draw: Draw) -> Option<Transition> {
        match verdict {
            // The client left, or our credential rests: the slot is free for another probe.
            Verdict::Neutral | Verdict::CredentialRefused => None,
            Verdict::Good => self.probe_answered(now),
            Verdict::Bad | Verdict::Down => Some(self.trip(Cause::Probe, now, draw)),
            Verdict::Throttled(after) => Some(self.rest(after, now, draw)),
            Verdict::NotFound => Some(self.absent(now, draw)),
        }
    }

    fn trip(&mut self, cause: Cause, now: Instant, draw: Draw) -> Transition {
        let sleep = self.trips.next(now, draw);
        self.open(cause, sleep, now)
    }

    fn rest(&mut self, after: Option<Duration>, now: Instant, draw: Draw) -> Transition {
        let sleep = match after {
            Some(after) => self.throttles.floor(after),
            None => self.throttles.next(now, draw),
        };
        self.open(Cause::Throttled, sleep, now)
    }

    fn absent(&mut self, now: Instant, draw: Draw) -> Transition {
        let sleep = self.absences.next(now, draw);
        self.open(Cause::NotFound, sleep, now)
    }

    fn open(&mut self, cause: Cause, sleep: Duration, now: Instant) -> Transition {
        self.state = State::Open { until: now + sleep, slept: sleep, cause };
        self.run.clear();
        Transition { to: open_name(cause), cause: Some(cause) }
    }
}

fn open_name(cause: Cause) -> StateName {
    if cause.is_rest() { StateName::Resting } else { StateName::Open }
}

/// Slow start: a tenth in the first second, then evenly up to the whole when twice the time it was
/// open, or two seconds, have passed.
fn share((since, slept): (Instant, Duration), now: Instant) -> f64 {
    let age = now.saturating_duration_since(since);
    let whole = (slept * 2).max(SLOW_START_MIN);
    if age < FIRST_SECOND {
        FIRST_SHARE
    } else if age >= whole {
        1.0
    } else {
        let way = (age - FIRST_SECOND).as_secs_f64() / (whole - FIRST_SECOND).as_secs_f64();
        FIRST_SHARE + (1.0 - FIRST_SHARE) * way
    }
}
