//! Rests: what a provider asked us to leave alone, or does not let us use, until an instant that is known.
//!
//! It exists because a refused credential, a throttled one, an unknown model and a missing endpoint are the same thing
//! with other numbers: none is a fault of the deployment, each rests after a few failures in a row, for a time that is known,
//! and is then asked by one attempt, the trial. A rest that one team alone brought about never keeps another team
//! from asking. Time and random values are passed in.
//!
//! Start reading in [`Rest::bad`].

use super::Availability;
use super::backoff::Backoff;
use super::evidence::{ActiveTeams, FailureStreak};
use crate::domain::id::TeamId;
use crate::domain::random::RandomValue;
use std::time::{Duration, Instant};

/// During a trial, other attempts may check again after this.
const TRIAL_RETRY_AFTER: Duration = Duration::from_secs(1);

/// What failed is asked after others for this long, or until the time that its provider named.
const ASKED_LAST: Duration = Duration::from_secs(1);

/// How many failures begin a rest, and how long one is.
#[derive(Clone, Debug)]
pub struct RestRule {
    /// Failures in a row, of different requests.
    failures: u32,
    /// No rest begins within this time after a success.
    after_success: Duration,
    /// Teams that were active within this time count as active.
    window: Duration,
    backoff: Backoff,
}

impl RestRule {
    /// For a credential that is refused: after two in a row, 30 s to 16 min.
    pub fn credential() -> Self {
        Self::new(2, Duration::ZERO, Backoff::credential())
    }

    /// For a throttled credential: after three in a row and one second without a success, until the provider's
    /// own time, or 1 s to 60 s where it names none.
    pub fn throttled() -> Self {
        Self::new(3, Duration::from_secs(1), Backoff::throttled())
    }

    /// For a model that its provider does not know: after two in a row, 30 s to 5 min.
    pub fn not_found() -> Self {
        Self::new(2, Duration::ZERO, Backoff::not_found())
    }

    /// For an endpoint that a host does not have: after two in a row and five minutes without a success there, since a path
    /// that answered does not vanish; 30 s to 5 min.
    pub fn no_endpoint() -> Self {
        Self::new(2, Duration::from_secs(300), Backoff::not_found())
    }

    fn new(failures: u32, after_success: Duration, backoff: Backoff) -> Self {
        Self { failures, after_success, window: Duration::from_secs(30), backoff }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RestState {
    Flowing,
    Resting {
        until: Instant,
        /// The team whose failures alone began it: others may ask at any time.
        sole: Option<TeamId>,
    },
    InTrial {
        /// As it was while resting.
        sole: Option<TeamId>,
    },
}

/// Whether one thing rests, and what speaks for it.
#[derive(Clone, Debug)]
pub struct Rest {
    rule: RestRule,
    state: RestState,
    streak: FailureStreak,
    teams: ActiveTeams,
    last_good: Option<Instant>,
    /// When it began to rest, over all trials since.
    since: Option<Instant>,
    /// Until when it is asked after all others, because it failed.
    asked_last_until: Option<Instant>,
    /// The latest time that its provider named.
    stated_until: Option<Instant>,
}

impl Rest {
    /// What does not rest.
    pub fn new(rule: RestRule) -> Self {
        Self {
            rule,
            state: RestState::Flowing,
            streak: FailureStreak::default(),
            teams: ActiveTeams::default(),
            last_good: None,
            since: None,
            asked_last_until: None,
            stated_until: None,
        }
    }

    /// Whether `team` may use it at `now`.
    pub fn availability(&self, team: TeamId, now: Instant) -> Availability {
        match self.state {
            RestState::Flowing => Availability::Flowing { share: 1.0 },
            RestState::Resting { until, sole } if now < until && sole.is_none_or(|sole| sole == team) => {
                Availability::Blocked { until }
            }
            RestState::Resting { .. } => Availability::ProbeDue,
            // What one team brought about keeps no request of another one waiting, not even for that one's trial.
            RestState::InTrial { sole: Some(sole) } if sole != team => Availability::Flowing { share: 1.0 },
            RestState::InTrial { .. } => Availability::Blocked { until: now + TRIAL_RETRY_AFTER },
        }
    }

    /// Whether `team` is to prefer others at `now`: it failed a moment ago, or its provider named a later time, unless one
    /// other team alone met that.
    pub fn is_asked_last(&self, team: TeamId, now: Instant) -> bool {
        self.asked_last_until.is_some_and(|until| now < until) && self.streak.speaks_to(team)
    }

    /// Until when its provider asked to be left alone, if that is later than `now`.
    pub fn stated_until(&self, now: Instant) -> Option<Instant> {
        self.stated_until.filter(|until| now < *until)
    }

    /// Whether it rests, for whichever team, and until when.
    pub fn resting_until(&self, now: Instant) -> Option<Instant> {
        match self.state {
            RestState::Resting { until, .. } if now < until => Some(until),
            _ => None,
        }
    }

    /// Since when it has rested or been on trial, without a success.
    pub fn resting_since(&self) -> Option<Instant> {
        self.since
    }

    /// Whether it rests or is on trial.
    pub fn is_resting(&self) -> bool {
        self.state != RestState::Flowing
    }

    /// Takes it for one attempt of `team`: `Some(true)` when this attempt is its trial, `None` while it may not be
    /// used.
    pub fn take(&mut self, team: TeamId, now: Instant) -> Option<bool> {
        match (self.availability(team, now), self.state) {
            (Availability::Flowing { .. }, _) => Some(false),
            (Availability::ProbeDue, RestState::Resting { sole, .. }) => {
                self.state = RestState::InTrial { sole };
                Some(true)
            }
            _ => None,
        }
    }

    /// It worked for `team`.
    pub fn good(&mut self, team: TeamId, now: Instant) {
        self.state = RestState::Flowing;
        self.streak.clear();
        self.rule.backoff.reset();
        (self.asked_last_until, self.stated_until, self.since) = (None, None, None);
        self.last_good = Some(now);
        self.teams.note(team, now);
    }

    /// It failed for `team`, in its `trial` or otherwise; its provider may have named a `stated` time. Returns
    /// whether a rest begins.
    pub fn bad(
        &mut self,
        team: TeamId,
        trial: bool,
        stated: Option<Duration>,
        now: Instant,
        draw: RandomValue,
    ) -> bool {
        let until = stated.map(|pause| now + self.rule.backoff.capped(pause));
        self.stated_until = self.stated_until.max(until);
        self.asked_last_until = self.asked_last_until.max(until).max(Some(now + ASKED_LAST));
        let alone = self.teams.is_alone(team, self.rule.window, now);
        self.teams.note(team, now);
        self.streak.bad(Some(team), 1);
        let quiet = self.last_good.is_none_or(|at| now.saturating_duration_since(at) >= self.rule.after_success);
        let begins = match self.state {
            RestState::Flowing => quiet && self.streak.reaches(self.rule.failures, alone),
            // The trial's end decides; so does that of a second team that asked in spite of a first one's rest.
            RestState::InTrial { .. } => trial,
            RestState::Resting { .. } => false,
        };
        if begins {
            let sole = self.streak.only_team();
            let pause = self.rule.backoff.next(now, draw);
            self.since.get_or_insert(now);
            self.state = RestState::Resting { until: until.unwrap_or(now + pause), sole };
        }
        begins
    }

    /// Takes a failure of `team` back: the same request failed alike elsewhere, so the request is to blame. A rest
    /// that would not have begun without it ends.
    pub fn take_back(&mut self, team: TeamId) {
        self.streak.take_back(team);
        if let RestState::Resting { sole: Some(sole), .. } = self.state
            && sole == team
            && !self.streak.reaches(self.rule.failures, true)
        {
            self.state = RestState::Flowing;
            self.rule.backoff.reset();
        }
    }

    /// A trial ended without a result: the next attempt is the trial.
    pub fn undecided(&mut self, now: Instant) {
        if let RestState::InTrial { sole } = self.state {
            self.state = RestState::Resting { until: now, sole };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TeamId = TeamId(1);
    const B: TeamId = TeamId(2);
    /// No jitter.
    const MIDDLE: RandomValue = RandomValue(1 << 63);
    const SECOND: Duration = Duration::from_secs(1);

    fn blocked_for(rest: &Rest, team: TeamId, now: Instant) -> Option<Duration> {
        match rest.availability(team, now) {
            Availability::Blocked { until } => Some(until - now),
            _ => None,
        }
    }

    #[test]
    fn a_refused_credential_rests_after_two_in_a_row_and_then_gets_one_trial() {
        let now = Instant::now();
        let mut rest = Rest::new(RestRule::credential());
        assert!(!rest.bad(A, false, None, now, MIDDLE));
        rest.good(A, now);
        assert!(!rest.bad(A, false, None, now, MIDDLE), "a success between");
        assert!(rest.is_asked_last(A, now) && rest.take(A, now) == Some(false));
        assert!(rest.bad(A, false, None, now, MIDDLE));
        assert!(!rest.bad(A, false, None, now, MIDDLE), "a third of the same moment changes nothing");
        assert_eq!(blocked_for(&rest, A, now), Some(30 * SECOND));
        let rested = now + 30 * SECOND;
        assert_eq!((rest.take(A, rested), rest.take(A, rested)), (Some(true), None), "one trial at a time");
        rest.undecided(rested);
        assert_eq!(rest.take(A, rested), Some(true));
        assert!(rest.bad(A, true, None, rested, MIDDLE));
        assert_eq!(blocked_for(&rest, A, rested), Some(60 * SECOND), "the rest doubles");
        assert_eq!(rest.resting_since(), Some(now), "a trial that failed ends nothing");
        rest.good(B, rested);
        assert_eq!(rest.resting_since(), None);
        assert_eq!(rest.take(A, rested), Some(false));
    }

    #[test]
    fn one_team_rests_nothing_for_another() {
        let now = Instant::now();
        let mut rest = Rest::new(RestRule::credential());
        rest.good(B, now);
        (0..9).for_each(|_| assert!(!rest.bad(A, false, None, now, MIDDLE), "B is active and has not failed"));
        assert!(rest.bad(B, false, None, now, MIDDLE), "now it has");

        let mut rest = Rest::new(RestRule::credential());
        rest.bad(A, false, None, now, MIDDLE);
        assert!(rest.bad(A, false, None, now, MIDDLE), "A is the only active team");
        assert_eq!(blocked_for(&rest, A, now), Some(30 * SECOND));
        assert_eq!(rest.take(B, now), Some(true), "B asks for itself");
        assert_eq!(rest.take(B, now), Some(false), "and does not wait for what that brings");
        assert_eq!(rest.take(A, now), None);
        assert!(rest.bad(B, true, None, now, MIDDLE));
        assert_eq!(blocked_for(&rest, B, now), Some(60 * SECOND), "both failed: it rests for all");
    }

    #[test]
    fn a_rest_ends_with_what_began_it_unless_more_speaks_for_it() {
        let now = Instant::now();
        let mut rest = Rest::new(RestRule::not_found());
        (0..9).for_each(|_| {
            assert!(!rest.bad(A, false, None, now, MIDDLE), "each was taken back before the next");
            rest.take_back(A);
        });
        rest.bad(A, false, None, now, MIDDLE);
        assert!(rest.bad(A, false, None, now, MIDDLE), "two requests at the same time");
        rest.take_back(B);
        assert!(rest.is_resting());
        rest.take_back(A);
        assert!(!rest.is_resting() && rest.take(A, now) == Some(false));

        let mut rest = Rest::new(RestRule::not_found());
        (0..3).for_each(|_| _ = rest.bad(A, false, None, now, MIDDLE));
        rest.take_back(A);
        assert!(rest.is_resting(), "two of three are left");
        let mut rest = Rest::new(RestRule::not_found());
        rest.bad(A, false, None, now, MIDDLE);
        rest.bad(B, false, None, now, MIDDLE);
        rest.take_back(A);
        assert!(rest.is_resting(), "what two teams met is not one team's doing");
    }

    #[test]
    fn a_throttled_credential_is_asked_last_and_rests_only_without_success() {
        let now = Instant::now();
        let mut rest = Rest::new(RestRule::throttled());
        rest.good(A, now);
        let stated = Some(7 * SECOND);
        (0..9).for_each(|_| assert!(!rest.bad(A, false, stated, now, MIDDLE), "a second has not passed"));
        assert!(rest.is_asked_last(A, now));
        let later = now + SECOND;
        assert!(rest.bad(A, false, stated, later, MIDDLE));
        assert_eq!(blocked_for(&rest, A, later), Some(7 * SECOND));
        assert_eq!(rest.stated_until(later), Some(later + 7 * SECOND));
        rest.good(A, later);
        assert!(!rest.is_asked_last(A, later));
        let mut rest = Rest::new(RestRule::throttled());
        (0..3).for_each(|_| _ = rest.bad(A, false, None, now, MIDDLE));
        assert_eq!(blocked_for(&rest, A, now), Some(SECOND), "no time was named");
        let mut rest = Rest::new(RestRule::throttled());
        (0..3).for_each(|_| _ = rest.bad(A, false, Some(86_400 * SECOND), now, MIDDLE));
        assert_eq!(blocked_for(&rest, A, now), Some(300 * SECOND), "no longer than five minutes");
    }

    #[test]
    fn what_one_team_met_is_asked_last_by_that_team_until_a_second_one_meets_it() {
        let now = Instant::now();
        let mut rest = Rest::new(RestRule::throttled());
        rest.bad(A, false, Some(30 * SECOND), now, MIDDLE);
        assert!(rest.is_asked_last(A, now) && !rest.is_asked_last(B, now));
        rest.bad(B, false, None, now, MIDDLE);
        assert!(rest.is_asked_last(B, now + 29 * SECOND));
        rest.good(B, now);
        assert!(!rest.is_asked_last(A, now));
    }
}
