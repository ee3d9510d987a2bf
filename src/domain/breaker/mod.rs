//! The breaker of one deployment: closed → open → half-open → closed.
//!
//! It exists so that a failing deployment quickly gets no traffic, is then tested by single probes, and
//! gets its share of traffic back slowly. What rests because its provider said so is in [`rest`]; what one team's
//! attempts say to that team alone is in [`team`].
//!
//! It must never know requests, regions or other deployments; time and random values are passed in.
//! Start reading in [`Breaker::report`], which has all transitions.

pub mod backoff;
pub mod endpoints;
pub mod evidence;
pub mod rest;
pub mod team;
pub mod window;

use crate::domain::id::TeamId;
use crate::domain::random::RandomValue;
use backoff::Backoff;
use evidence::{ActiveTeams, FailureStreak};
use std::time::{Duration, Instant};
use window::FailureRateWindow;

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
    /// An answer broke off after its first token within slow start.
    BrokenOff,
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
            Self::BrokenOff => "broken_off",
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

impl Availability {
    /// The stricter of both; of two times to wait, the later.
    pub fn stricter(self, other: Self) -> Self {
        match (self, other) {
            (Self::Blocked { until }, Self::Blocked { until: other }) => Self::Blocked { until: until.max(other) },
            (Self::Flowing { share }, Self::Flowing { share: other }) => Self::Flowing { share: share.min(other) },
            _ if self.rank() >= other.rank() => self,
            _ => other,
        }
    }

    /// The less strict of both; of two times to wait, the sooner.
    pub fn less_strict(self, other: Self) -> Self {
        match (self, other) {
            (Self::Blocked { until }, Self::Blocked { until: other }) => Self::Blocked { until: until.min(other) },
            _ if self.rank() <= other.rank() => self,
            _ => other,
        }
    }

    fn rank(self) -> u8 {
        match self {
            Self::Flowing { .. } => 0,
            Self::ProbeDue => 1,
            Self::Blocked { .. } => 2,
        }
    }
}

/// How an attempt ended, as far as a breaker is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttemptEnd {
    /// Well: the deployment works.
    Good,
    /// Badly, before the first token.
    Bad,
    /// Badly, and no team can have caused it: nothing of the request was sent.
    Down,
    /// Badly, after the first token.
    BrokenOff,
    /// It says nothing about the deployment.
    Neutral,
}

/// Permission for one attempt. Its end must be reported to the breaker exactly once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BreakerPermit {
    probe: bool,
    /// It was given although the breaker is open, because nothing else was left: only a good end counts.
    trial: bool,
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
    Closed {
        slow_start: Option<SlowStart>,
    },
    Open {
        until: Instant,
        outage: Outage,
    },
    /// The pause is over; `probing` while the one probe is in flight.
    HalfOpen {
        probing: bool,
        outage: Outage,
    },
}

/// Why and for how long a breaker is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Outage {
    since: Instant,
    open_for: Duration,
    cause: TransitionCause,
    /// The one team whose attempts tripped it, if it was one: others may send their own probe at any time.
    sole: Option<TeamId>,
    /// The slow start that it interrupted: for teams that it spares, that goes on.
    slow_start: Option<SlowStart>,
    /// Its answers broke off after their first token: only one that ends well closes it.
    broken_off: bool,
}

/// The way back to a full share after it closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SlowStart {
    since: Instant,
    /// How long it had been open; zero for a deployment that is new.
    open_for: Duration,
    /// It was open because answers broke off: the share grows by those that end well.
    broken_off: bool,
    /// How many have ended well since.
    good_ends: u32,
}

/// The share of its traffic that a deployment gets at first after it closed.
const FIRST_SHARE: f64 = 0.1;
/// How long the first share lasts.
const FIRST_SECOND: Duration = Duration::from_secs(1);
/// The shortest slow start.
const SLOW_START_MIN: Duration = Duration::from_secs(2);
/// The number of good ends after which slow start is over.
const SLOW_START_ENDS: u32 = 10;
/// While a probe is in flight, other attempts may check again after this.
const PROBE_RETRY_AFTER: Duration = Duration::from_secs(1);
/// A streak trips only when this has passed since the last success.
const AFTER_SUCCESS: Duration = Duration::from_secs(1);

/// One deployment's breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: BreakerState,
    /// How often it has opened.
    generation: u32,
    streak: FailureStreak,
    window: FailureRateWindow,
    teams: ActiveTeams,
    last_good: Option<Instant>,
    backoff: Backoff,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(settings: BreakerSettings) -> Self {
        Self {
            state: BreakerState::Closed { slow_start: None },
            generation: 0,
            streak: FailureStreak::default(),
            window: FailureRateWindow::new(settings.window),
            teams: ActiveTeams::default(),
            last_good: None,
            backoff: Backoff::doubling(settings.open, settings.open_max),
            settings,
        }
    }

    /// A closed breaker of a deployment that is added to running traffic at `now`: it begins with a slow start.
    pub fn with_slow_start(settings: BreakerSettings, now: Instant) -> Self {
        let slow_start = SlowStart { since: now, open_for: Duration::ZERO, broken_off: false, good_ends: 0 };
        Self { state: BreakerState::Closed { slow_start: Some(slow_start) }, ..Self::new(settings) }
    }

    /// Applies new settings; state and counts stay, but a new `window` starts empty.
    pub fn update_settings(&mut self, settings: BreakerSettings) {
        if settings != self.settings {
            self.backoff.set_bounds(settings.open, settings.open_max);
            if settings.window != self.settings.window {
                self.window = FailureRateWindow::new(settings.window);
            }
            self.settings = settings;
        }
    }

    /// Whether, and how, `team` may use the deployment at `now`.
    pub fn availability(&self, team: TeamId, now: Instant) -> Availability {
        match self.state {
            BreakerState::Closed { slow_start } => Availability::Flowing { share: share(slow_start, now) },
            BreakerState::Open { until, outage } if now < until && !outage.spares(team) => {
                Availability::Blocked { until }
            }
            BreakerState::Open { .. } | BreakerState::HalfOpen { probing: false, .. } => Availability::ProbeDue,
            // What one team brought about keeps no request of another one waiting, not even for a probe.
            BreakerState::HalfOpen { outage, .. } if outage.spares(team) => {
                Availability::Flowing { share: share(outage.slow_start, now) }
            }
            BreakerState::HalfOpen { .. } => Availability::Blocked { until: now + PROBE_RETRY_AFTER },
        }
    }

    /// The state's name at `now`.
    pub fn name(&self, now: Instant) -> StateName {
        match self.state {
            BreakerState::Closed { .. } => StateName::Closed,
            BreakerState::Open { until, .. } if now < until => StateName::Open,
            BreakerState::Open { .. } | BreakerState::HalfOpen { .. } => StateName::HalfOpen,
        }
    }

    /// Why, since when and until when it is not closed; while half-open the end of the pause is past.
    pub fn outage(&self, now: Instant) -> Option<(TransitionCause, Instant, Instant)> {
        match self.state {
            BreakerState::Closed { .. } => None,
            BreakerState::Open { until, outage } => Some((outage.cause, outage.since, until)),
            BreakerState::HalfOpen { outage, .. } => Some((outage.cause, outage.since, now)),
        }
    }

    /// A permit for one attempt of `team` at `now`, if one may be made. Only one probe at a time gets a permit; its
    /// holder must [`report`](Self::report) the end, with [`AttemptEnd::Neutral`] where there is no result.
    pub fn admit(&mut self, team: TeamId, now: Instant) -> Option<BreakerPermit> {
        let permit = BreakerPermit { probe: false, trial: false, generation: self.generation };
        match self.availability(team, now) {
            // Beside a probe only a good end counts, as for a trial.
            Availability::Flowing { .. } => {
                Some(BreakerPermit { trial: self.name(now) != StateName::Closed, ..permit })
            }
            Availability::Blocked { .. } => None,
            Availability::ProbeDue => {
                if let BreakerState::Open { outage, .. } | BreakerState::HalfOpen { outage, .. } = self.state {
                    self.state = BreakerState::HalfOpen { probing: true, outage };
                }
                Some(BreakerPermit { probe: true, ..permit })
            }
        }
    }

    /// A permit whatever the state, because nothing else is left: a bad end of it changes nothing.
    pub fn admit_trial(&self) -> BreakerPermit {
        BreakerPermit { probe: false, trial: true, generation: self.generation }
    }

    /// The permit of an attempt that had been sent already when this breaker was made.
    pub(super) fn admit_late(&self) -> BreakerPermit {
        BreakerPermit { probe: false, trial: false, generation: self.generation }
    }

    /// The first good token under `permit` has arrived. If it is the probe's or a trial's, the breaker closes, unless
    /// answers broke off before; from then on it is an attempt like any other, and its end is reported like any other.
    pub fn answered(&mut self, permit: &mut BreakerPermit, now: Instant) -> Option<Transition> {
        let broke_off = match self.state {
            BreakerState::Closed { .. } => false,
            BreakerState::Open { outage, .. } | BreakerState::HalfOpen { outage, .. } => outage.broken_off,
        };
        if broke_off || !(permit.probe || permit.trial) {
            return None;
        }
        (permit.probe, permit.trial) = (false, false);
        let closed = self.close(now);
        // Its end belongs to what begins now.
        permit.generation = self.generation;
        closed
    }

    fn close(&mut self, now: Instant) -> Option<Transition> {
        let (BreakerState::Open { outage, .. } | BreakerState::HalfOpen { outage, .. }) = self.state else {
            return None;
        };
        let Outage { open_for, broken_off, .. } = outage;
        let slow_start = SlowStart { since: now, open_for, broken_off, good_ends: 0 };
        self.state = BreakerState::Closed { slow_start: Some(slow_start) };
        self.streak.clear();
        self.window.clear();
        self.backoff.closed(now);
        self.last_good = Some(now);
        Some(Transition { to: StateName::Closed, cause: None })
    }

    /// Records how an attempt of `team` ended. Returns the transition that this causes, if any.
    pub fn report(
        &mut self,
        permit: BreakerPermit,
        team: TeamId,
        end: AttemptEnd,
        now: Instant,
        draw: RandomValue,
    ) -> Option<Transition> {
        match self.state {
            BreakerState::Closed { .. } if permit.generation == self.generation => {
                self.report_closed(team, end, now, draw)
            }
            BreakerState::HalfOpen { outage, .. } if permit.probe && permit.generation == self.generation => {
                self.state = BreakerState::HalfOpen { probing: false, outage };
                self.report_probe(team, end, outage, now, draw)
            }
            BreakerState::Open { .. } | BreakerState::HalfOpen { .. } if permit.trial && end == AttemptEnd::Good => {
                self.close(now)
            }
            // It was sent before the breaker last opened. Attempts that hung in an outage must not trip it again.
            _ => None,
        }
    }

    /// Takes a failure of `team` back that was reported before: the same request failed alike elsewhere, so the
    /// request is to blame.
    pub fn take_back(&mut self, team: TeamId, now: Instant) {
        if let BreakerState::Closed { .. } = self.state {
            self.streak.take_back(team);
            self.window.take_back(team, now);
        }
    }

    /// Whether no other team than `team` was active here within the window.
    pub fn is_alone(&self, team: TeamId, now: Instant) -> bool {
        self.teams.is_alone(team, self.settings.window, now)
    }

    /// When an attempt last ended well, or a probe answered.
    pub fn last_good(&self) -> Option<Instant> {
        self.last_good
    }

    /// Drops the failures since the last success.
    pub(super) fn forget_failures(&mut self) {
        self.streak.clear();
    }

    fn report_closed(&mut self, team: TeamId, end: AttemptEnd, now: Instant, draw: RandomValue) -> Option<Transition> {
        if end == AttemptEnd::Neutral {
            return None;
        }
        let alone = self.is_alone(team, now);
        self.teams.note(team, now);
        match end {
            AttemptEnd::Neutral => None,
            AttemptEnd::Good => {
                self.streak.clear();
                self.window.good(team, now);
                self.last_good = Some(now);
                self.count_good_end(now);
                None
            }
            AttemptEnd::Bad => {
                self.streak.bad(Some(team), 1);
                self.window.bad(Some(team), now);
                self.trip_if_due(alone, now, draw)
            }
            AttemptEnd::Down => {
                self.streak.bad(None, 1);
                self.window.bad(None, now);
                self.trip_if_due(alone, now, draw)
            }
            AttemptEnd::BrokenOff => self.count_broken_off(team, alone, now, draw),
        }
    }

    fn count_good_end(&mut self, now: Instant) {
        let BreakerState::Closed { slow_start: Some(start) } = &mut self.state else { return };
        start.good_ends += 1;
        if start.good_ends >= SLOW_START_ENDS && start.share(now) >= 1.0 {
            self.state = BreakerState::Closed { slow_start: None };
        }
    }

    /// A break within slow start opens it again, for twice as long; a new deployment's break counts twice.
    fn count_broken_off(&mut self, team: TeamId, alone: bool, now: Instant, draw: RandomValue) -> Option<Transition> {
        let slow_start = match self.state {
            BreakerState::Closed { slow_start } => slow_start.filter(|start| start.good_ends < SLOW_START_ENDS),
            _ => None,
        };
        self.streak.broken_off(team, if slow_start.is_some() { 2 } else { 1 });
        self.window.bad(Some(team), now);
        // One team's answers do not close it to others that are active.
        let attested = self.streak.reaches(1, alone);
        if attested && slow_start.is_some_and(|start| start.open_for > Duration::ZERO) {
            return Some(self.trip(TransitionCause::BrokenOff, now, draw));
        }
        self.trip_if_due(alone, now, draw)
    }

    fn trip_if_due(&mut self, alone: bool, now: Instant, draw: RandomValue) -> Option<Transition> {
        let quiet = self.last_good.is_none_or(|at| now.saturating_duration_since(at) >= AFTER_SUCCESS);
        if quiet && self.streak.reaches(self.settings.failures, alone) {
            return Some(self.trip(TransitionCause::Consecutive, now, draw));
        }
        let counts = self.window.counts(now);
        let enough = counts.requests >= u64::from(self.settings.min_requests);
        if enough && counts.good() * 10_000 < counts.requests * u64::from(self.settings.ratio_bp) {
            return Some(self.trip(TransitionCause::Ratio, now, draw));
        }
        None
    }

    fn report_probe(
        &mut self,
        team: TeamId,
        end: AttemptEnd,
        outage: Outage,
        now: Instant,
        draw: RandomValue,
    ) -> Option<Transition> {
        match end {
            // The client disconnected, or the end is no evidence: another probe may be sent.
            AttemptEnd::Neutral => None,
            AttemptEnd::Good => self.close(now),
            AttemptEnd::Bad | AttemptEnd::Down | AttemptEnd::BrokenOff => {
                let sole = outage.sole.filter(|sole| *sole == team && end != AttemptEnd::Down);
                let broken_off = outage.broken_off || end == AttemptEnd::BrokenOff;
                Some(self.open(TransitionCause::Probe, sole, broken_off, now, draw))
            }
        }
    }

    fn trip(&mut self, cause: TransitionCause, now: Instant, draw: RandomValue) -> Transition {
        let (sole, broken_off) = (self.streak.only_team(), self.streak.is_mostly_broken_off());
        self.open(cause, sole, broken_off, now, draw)
    }

    fn open(
        &mut self,
        cause: TransitionCause,
        sole: Option<TeamId>,
        broken_off: bool,
        now: Instant,
        draw: RandomValue,
    ) -> Transition {
        let open_for = self.backoff.next(now, draw);
        let (since, slow_start) = match self.state {
            BreakerState::Closed { slow_start } => (now, slow_start),
            BreakerState::Open { outage, .. } | BreakerState::HalfOpen { outage, .. } => {
                (outage.since, outage.slow_start)
            }
        };
        let outage = Outage { since, open_for, cause, sole, slow_start, broken_off };
        self.state = BreakerState::Open { until: now + open_for, outage };
        self.generation = self.generation.wrapping_add(1);
        self.streak.clear();
        Transition { to: StateName::Open, cause: Some(cause) }
    }
}

impl Outage {
    /// Whether `team` may ask for itself: it had no part in the trip.
    fn spares(&self, team: TeamId) -> bool {
        self.sole.is_some_and(|sole| sole != team)
    }
}

/// The share of a deployment at `now`, in `(0, 1]`: whole without a slow start.
fn share(slow_start: Option<SlowStart>, now: Instant) -> f64 {
    slow_start.map_or(1.0, |start| start.share(now))
}

impl SlowStart {
    /// A tenth in the first second, then a linear increase to the full share when twice the time it was open has
    /// passed. After answers that broke off it grows no faster than by one tenth for each that ends well.
    fn share(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.since);
        let whole = (self.open_for * 2).max(SLOW_START_MIN);
        let by_time = if age < FIRST_SECOND {
            FIRST_SHARE
        } else {
            let passed = (age - FIRST_SECOND).as_secs_f64() / (whole - FIRST_SECOND).as_secs_f64();
            (FIRST_SHARE + (1.0 - FIRST_SHARE) * passed).min(1.0)
        };
        let by_ends = FIRST_SHARE * f64::from(self.good_ends + 1);
        if self.broken_off { by_time.min(by_ends) } else { by_time }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::routing::fixture::BREAKER;

    const A: TeamId = TeamId(1);
    const B: TeamId = TeamId(2);
    /// No jitter: pauses are exactly as written.
    const MIDDLE: RandomValue = RandomValue(1 << 63);
    const SECOND: Duration = Duration::from_secs(1);
    /// Between two ends of a sequence: a streak of five lasts a second.
    const STEP: Duration = Duration::from_millis(250);

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
            self.breaker.admit(A, self.now).expect("traffic flows or a probe is due")
        }

        fn end(&mut self, permit: BreakerPermit, team: TeamId, end: AttemptEnd) -> Option<Transition> {
            self.breaker.report(permit, team, end, self.now, MIDDLE)
        }

        /// One attempt from its permit to its end; the cause, if the breaker opened.
        fn attempt(&mut self, team: TeamId, end: AttemptEnd) -> Option<TransitionCause> {
            let permit = self.take();
            self.end(permit, team, end)?.cause
        }

        /// As [`attempt`](Self::attempt), many times; the cause and the number of the attempt that tripped.
        fn attempts(&mut self, ends: &[(TeamId, AttemptEnd)]) -> Option<(TransitionCause, usize)> {
            ends.iter().enumerate().find_map(|(at, (team, end))| {
                if at > 0 {
                    self.now += STEP;
                }
                Some((self.attempt(*team, *end)?, at + 1))
            })
        }

        fn later(&mut self, by: Duration) -> &mut Self {
            self.now += by;
            self
        }

        fn availability(&self) -> Availability {
            self.breaker.availability(A, self.now)
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
            assert_eq!(scenario.attempts(&[(A, AttemptEnd::Bad); 5]), Some((TransitionCause::Consecutive, 5)));
            scenario
        }

        /// Waits until the probe is due and sends it.
        fn probe(&mut self, end: AttemptEnd) -> Option<Transition> {
            let wait = self.blocked_for().expect("open");
            self.later(wait);
            assert_eq!(self.availability(), Availability::ProbeDue);
            let permit = self.take();
            assert!(permit.probe);
            self.end(permit, A, end)
        }
    }

    /// Ends as letters: `a` and `b` are bad ends of two teams, `A` and `B` good ones, `x` is an answer of `A` that broke
    /// off, `d` is no connection, `n` is neutral.
    fn ends(written: &str) -> Vec<(TeamId, AttemptEnd)> {
        let end = |letter| match letter {
            'a' => (A, AttemptEnd::Bad),
            'b' => (B, AttemptEnd::Bad),
            'A' => (A, AttemptEnd::Good),
            'B' => (B, AttemptEnd::Good),
            'd' => (A, AttemptEnd::Down),
            'n' => (A, AttemptEnd::Neutral),
            'x' => (A, AttemptEnd::BrokenOff),
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
        check("aannnnna", None);
        check("aannnnnaaa", consecutive(10));
        check("aaxaa", consecutive(5));
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
        // While a second team is active, one team's failures count for that team only; a connection that fails is
        // caused by none.
        check("Baaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", None);
        check("Baaaaab", consecutive(7));
        check("BaaaBaab", None);
        check("BaaaBaabaa", consecutive(10));
        check("Baaaaad", consecutive(7));
        check("Bddddd", consecutive(6));
        check("BBBBBBBBBBaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", None);
        check("abab", None);
        check("ababa", consecutive(5));
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
        check(ms(21_000), Some((TransitionCause::Ratio, 5)));
        check(ms(31_000), None);
    }

    #[test]
    fn it_stays_open_twice_as_long_each_time_within_a_fifth_of_jitter() {
        for seed in 0..200 {
            let mut scenario = Scenario::new();
            let draw = RandomValue(seed).salted(1);
            for _ in 0..5 {
                let permit = scenario.take();
                scenario.breaker.report(permit, A, AttemptEnd::Bad, scenario.now, draw);
            }
            for (round, plain) in [1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0].into_iter().enumerate() {
                let open = scenario.blocked_for().expect("open");
                let (least, most) = (plain * 0.8, f64::min(plain * 1.2, 20.0));
                assert!((least..=most).contains(&open.as_secs_f64()), "seed {seed}, round {round}: {open:?}");
                scenario.later(open - Duration::from_nanos(1));
                assert_eq!(scenario.breaker.admit(A, scenario.now), None, "not an instant too soon");
                scenario.later(Duration::from_nanos(1));
                let permit = scenario.take();
                let transition =
                    scenario.breaker.report(permit, A, AttemptEnd::Bad, scenario.now, draw.salted(round as u64));
                assert_eq!(transition, Some(Transition { to: StateName::Open, cause: Some(TransitionCause::Probe) }));
            }
        }
    }

    #[test]
    fn half_open_admits_one_probe_and_a_lost_probe_may_be_replaced() {
        let mut scenario = Scenario::tripped();
        scenario.later(SECOND);
        assert_eq!((scenario.availability(), scenario.name()), (Availability::ProbeDue, StateName::HalfOpen));
        for signal in [AttemptEnd::Neutral, AttemptEnd::Neutral] {
            let probe = scenario.take();
            assert!(probe.probe);
            assert_eq!(scenario.breaker.admit(A, scenario.now), None, "one probe");
            scenario.later(3600 * SECOND);
            assert_eq!(scenario.breaker.admit(A, scenario.now), None, "however long it takes");
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
        assert_eq!(scenario.end(probe, A, AttemptEnd::Bad), None);
        scenario.later(STEP);
        assert_eq!(scenario.attempts(&ends("aaaa")), Some((TransitionCause::Consecutive, 4)));
        assert_eq!(scenario.blocked_for(), Some(2 * SECOND), "so soon after closing, the pause continues to double");
    }

    #[test]
    fn a_recovered_deployment_gets_its_share_back_slowly() {
        let check = |trip_backoff: u32, open_for: Duration| {
            let mut scenario = Scenario::tripped();
            (1..trip_backoff).for_each(|_| assert!(scenario.probe(AttemptEnd::Bad).is_some()));
            assert_eq!(scenario.blocked_for(), Some(open_for));
            scenario.probe(AttemptEnd::Good);
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
            let availability = Breaker::with_slow_start(BREAKER, now).availability(A, now + age);
            assert_eq!(availability, Availability::Flowing { share: expected }, "after {age:?}");
        };
        check(Duration::ZERO, 0.1);
        check(ms(999), 0.1);
        check(2 * SECOND, 1.0);
    }

    #[test]
    fn an_attempt_sent_before_the_trip_changes_nothing_after_it() {
        for signal in [AttemptEnd::Good, AttemptEnd::Bad, AttemptEnd::Down, AttemptEnd::BrokenOff] {
            let mut scenario = Scenario::new();
            let late: Vec<BreakerPermit> = (0..20).map(|_| scenario.take()).collect();
            scenario.attempts(&ends("aaaaa"));
            let open = scenario.availability();
            assert_eq!(scenario.end(late[0], B, signal), None);
            assert_eq!(scenario.availability(), open, "{signal:?} while open");
            scenario.later(SECOND);
            let probe = scenario.take();
            assert_eq!(scenario.end(late[1], B, signal), None);
            assert_eq!(scenario.breaker.admit(A, scenario.now), None, "{signal:?} while probing");
            scenario.end(probe, A, AttemptEnd::Good);
            late[2..].iter().for_each(|permit| assert_eq!(scenario.end(*permit, B, signal), None));
            assert_eq!(scenario.breaker.window.counts(scenario.now).requests, 0, "{signal:?} when closed again");
        }
    }

    #[test]
    fn new_settings_keep_the_state() {
        let mut scenario = Scenario::tripped();
        let before = scenario.availability();
        scenario.breaker.update_settings(BreakerSettings { open: 5 * SECOND, failures: 2, ..BREAKER });
        assert_eq!(scenario.availability(), before);
        scenario.probe(AttemptEnd::Bad);
        assert_eq!(scenario.blocked_for(), Some(10 * SECOND), "the second pause by the new bounds");
        scenario.probe(AttemptEnd::Good);
        scenario.later(SECOND);
        assert_eq!(scenario.attempts(&ends("aa")), Some((TransitionCause::Consecutive, 2)));
    }

    #[test]
    fn an_old_trip_is_forgotten_after_the_longest_pause_without_failures() {
        let check = |well: Duration, expected| {
            let mut scenario = Scenario::tripped();
            scenario.probe(AttemptEnd::Good);
            scenario.later(well).attempts(&ends("aaaaa"));
            assert_eq!(scenario.blocked_for(), Some(expected), "after {well:?}");
        };
        // The streak itself lasts a second.
        check(19 * SECOND, 2 * SECOND);
        check(20 * SECOND + ms(1), SECOND);
    }

    #[test]
    fn five_failures_within_a_second_of_a_success_are_no_outage() {
        let mut scenario = Scenario::new();
        scenario.attempt(A, AttemptEnd::Good);
        (0..50).for_each(|_| assert_eq!(scenario.attempt(A, AttemptEnd::Neutral), None));
        (0..9).for_each(|_| assert_eq!(scenario.attempt(A, AttemptEnd::Bad), None));
        scenario.later(SECOND);
        assert_eq!(scenario.attempt(A, AttemptEnd::Bad), Some(TransitionCause::Consecutive));
    }

    #[test]
    fn a_break_within_slow_start_opens_it_again_for_twice_as_long() {
        let mut scenario = Scenario::tripped();
        scenario.later(SECOND);
        let mut probe = scenario.take();
        assert!(scenario.breaker.answered(&mut probe, scenario.now).is_some());
        assert_eq!(
            scenario.end(probe, A, AttemptEnd::BrokenOff).and_then(|t| t.cause),
            Some(TransitionCause::BrokenOff)
        );
        assert_eq!(scenario.blocked_for(), Some(2 * SECOND));
        // From now on only an answer that ends well closes it, and its share grows by those.
        scenario.later(2 * SECOND);
        let mut probe = scenario.take();
        assert_eq!(scenario.breaker.answered(&mut probe, scenario.now), None, "a first token is not enough");
        scenario.end(probe, A, AttemptEnd::Good);
        scenario.later(60 * SECOND);
        for ends in 1..=9 {
            assert!((scenario.share() - f64::from(ends) / 10.0).abs() < 1e-9, "{} after {ends}", scenario.share());
            scenario.attempt(A, AttemptEnd::Good);
        }
        assert_eq!(scenario.share(), 1.0);
        scenario.attempt(A, AttemptEnd::Good);
        assert_eq!(scenario.attempt(A, AttemptEnd::BrokenOff), None, "slow start is over");
    }

    #[test]
    fn breaks_of_a_new_deployment_count_twice_until_slow_start_is_over() {
        let mut scenario = Scenario { breaker: Breaker::with_slow_start(BREAKER, Instant::now()), ..Scenario::new() };
        assert_eq!(scenario.attempts(&ends("xx")), None);
        assert_eq!(scenario.attempt(A, AttemptEnd::BrokenOff), Some(TransitionCause::Consecutive));
    }

    #[test]
    fn a_trial_closes_it_and_changes_nothing_where_it_fails() {
        let mut scenario = Scenario::tripped();
        let before = scenario.availability();
        let trial = scenario.breaker.admit_trial();
        assert_eq!(scenario.end(trial, A, AttemptEnd::Bad), None);
        assert_eq!(scenario.availability(), before);
        let mut trial = scenario.breaker.admit_trial();
        assert!(scenario.breaker.answered(&mut trial, scenario.now).is_some());
        assert!(scenario.share() <= 0.1, "with a slow start");
        assert_eq!(scenario.end(trial, A, AttemptEnd::Good), None);
    }
}
