//! The breakers of one deployment: one that all teams share, and one for each team that failed there by itself.
//!
//! It exists because evidence has two views. While several teams are active, what one of them met opens the breaker
//! of that team only; the shared one opens once a second team failed alike with no success between. The only active
//! team speaks for all, until another one asks. It must never know what a request was.
//!
//! Start reading in [`TeamBreakers::report`].

use super::{
    AttemptEnd, Availability, Breaker, BreakerPermit, BreakerSettings, StateName, Transition, TransitionCause,
};
use crate::domain::id::TeamId;
use crate::domain::random::RandomValue;
use std::time::Instant;

/// The number of teams that have a breaker of their own at one deployment; the least recent one makes room.
const OWN: usize = 16;

/// One deployment's breakers.
#[derive(Clone, Debug)]
pub struct TeamBreakers {
    shared: Breaker,
    /// Of teams that failed while others were active, by first failure.
    own: Vec<OwnBreaker>,
    settings: BreakerSettings,
}

/// The breaker of one team.
#[derive(Clone, Debug)]
struct OwnBreaker {
    team: TeamId,
    breaker: Breaker,
    last_failed: Option<Instant>,
}

/// Permission for one attempt of one team. Its end must be reported exactly once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TeamBreakerPermit {
    shared: BreakerPermit,
    own: Option<BreakerPermit>,
}

impl TeamBreakerPermit {
    /// Whether it is the probe of the breaker that all teams share.
    pub fn is_probe(&self) -> bool {
        self.shared.probe
    }
}

impl TeamBreakers {
    /// Closed breakers.
    pub fn new(settings: BreakerSettings) -> Self {
        Self { shared: Breaker::new(settings), own: Vec::new(), settings }
    }

    /// Those of a deployment that is added to running traffic at `now`: a slow start.
    pub fn with_slow_start(settings: BreakerSettings, now: Instant) -> Self {
        Self { shared: Breaker::with_slow_start(settings, now), ..Self::new(settings) }
    }

    /// Applies new settings; states and counts stay.
    pub fn update_settings(&mut self, settings: BreakerSettings) {
        self.settings = settings;
        self.shared.update_settings(settings);
        self.own.iter_mut().for_each(|own| own.breaker.update_settings(settings));
    }

    /// Whether, and how, `team` may use the deployment at `now`: the stricter of both views.
    pub fn availability(&self, team: TeamId, now: Instant) -> Availability {
        let shared = self.shared.availability(team, now);
        self.own_of(team).map_or(shared, |own| shared.stricter(own.breaker.availability(team, now)))
    }

    /// The state of the shared breaker at `now`.
    pub fn name(&self, now: Instant) -> StateName {
        self.shared.name(now)
    }

    /// Why, since when and until when the shared breaker is not closed.
    pub fn outage(&self, now: Instant) -> Option<(TransitionCause, Instant, Instant)> {
        self.shared.outage(now)
    }

    /// The number of teams for which alone it is open at `now`.
    pub fn open_for_teams(&self, now: Instant) -> usize {
        self.own.iter().filter(|own| own.breaker.name(now) != StateName::Closed).count()
    }

    /// When an attempt last ended well.
    pub fn last_good(&self) -> Option<Instant> {
        self.shared.last_good()
    }

    /// A permit for one attempt of `team` at `now`, if both views let it pass.
    pub fn admit(&mut self, team: TeamId, now: Instant) -> Option<TeamBreakerPermit> {
        if let Availability::Blocked { .. } = self.availability(team, now) {
            return None;
        }
        let own = match self.own_mut(team) {
            Some(own) => Some(own.breaker.admit(team, now)?),
            None => None,
        };
        Some(TeamBreakerPermit { shared: self.shared.admit(team, now)?, own })
    }

    /// A permit whatever the states, because nothing else is left.
    pub fn admit_trial(&self, team: TeamId) -> TeamBreakerPermit {
        let own = self.own_of(team).map(|own| own.breaker.admit_trial());
        TeamBreakerPermit { shared: self.shared.admit_trial(), own }
    }

    /// The first good token under `permit` has arrived. Returns the transition of the shared breaker, if any.
    pub fn answered(&mut self, team: TeamId, permit: &mut TeamBreakerPermit, now: Instant) -> Option<Transition> {
        if let (Some(own), Some(own_permit)) = (self.own_mut(team), &mut permit.own) {
            own.breaker.answered(own_permit, now);
        }
        self.shared.answered(&mut permit.shared, now)
    }

    /// Records how an attempt of `team` ended. Returns the transition of the shared breaker, if any.
    pub fn report(
        &mut self,
        permit: TeamBreakerPermit,
        team: TeamId,
        end: AttemptEnd,
        now: Instant,
        draw: RandomValue,
    ) -> Option<Transition> {
        let attributed = matches!(end, AttemptEnd::Bad | AttemptEnd::BrokenOff);
        let own_permit = match permit.own {
            None if attributed && !self.shared.is_alone(team, now) => Some(self.add_own(team).breaker.admit_late()),
            given => given,
        };
        let last_good = self.shared.last_good();
        if let (Some(own_permit), Some(own)) = (own_permit, self.own_mut(team)) {
            // Others succeeded here since this team failed before: its requests are to blame.
            let others_succeed = own.last_failed.is_some_and(|failed| last_good.is_some_and(|at| at > failed));
            if others_succeed {
                own.breaker.forget_failures();
            }
            if attributed {
                own.last_failed = Some(now);
            }
            let end = if attributed && others_succeed { AttemptEnd::Neutral } else { end };
            own.breaker.report(own_permit, team, end, now, draw);
        }
        self.shared.report(permit.shared, team, end, now, draw)
    }

    /// Takes a failure of `team` back: the same request failed alike elsewhere, so the request is to blame.
    pub fn take_back(&mut self, team: TeamId, now: Instant) {
        self.shared.take_back(team, now);
        if let Some(own) = self.own_mut(team) {
            own.breaker.take_back(team, now);
        }
    }

    fn own_of(&self, team: TeamId) -> Option<&OwnBreaker> {
        self.own.iter().find(|own| own.team == team)
    }

    fn own_mut(&mut self, team: TeamId) -> Option<&mut OwnBreaker> {
        self.own.iter_mut().find(|own| own.team == team)
    }

    fn add_own(&mut self, team: TeamId) -> &mut OwnBreaker {
        let known = self.own.iter().position(|own| own.team == team);
        let index = known.unwrap_or_else(|| {
            if self.own.len() == OWN {
                self.own.remove(0);
            }
            self.own.push(OwnBreaker { team, breaker: Breaker::new(self.settings), last_failed: None });
            self.own.len() - 1
        });
        &mut self.own[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::routing::fixture::BREAKER;
    use std::time::Duration;

    const A: TeamId = TeamId(1);
    const B: TeamId = TeamId(2);
    const MIDDLE: RandomValue = RandomValue(1 << 63);
    const SECOND: Duration = Duration::from_secs(1);

    struct Scenario {
        breakers: TeamBreakers,
        now: Instant,
    }

    impl Scenario {
        fn new() -> Self {
            Self { breakers: TeamBreakers::new(BREAKER), now: Instant::now() }
        }

        /// One attempt of `team`; `None` where it may not be made, else the transition of the shared breaker.
        fn attempt(&mut self, team: TeamId, end: AttemptEnd) -> Option<Option<StateName>> {
            let permit = self.breakers.admit(team, self.now)?;
            Some(self.breakers.report(permit, team, end, self.now, MIDDLE).map(|transition| transition.to))
        }

        fn blocked(&self, team: TeamId) -> bool {
            matches!(self.breakers.availability(team, self.now), Availability::Blocked { .. })
        }
    }

    #[test]
    fn what_one_team_meets_while_others_are_active_opens_for_that_team_only() {
        let mut scenario = Scenario::new();
        scenario.attempt(B, AttemptEnd::Good);
        scenario.now += 2 * SECOND;
        for _ in 0..5 {
            assert_eq!(scenario.attempt(A, AttemptEnd::Bad), Some(None));
        }
        assert!(scenario.blocked(A) && !scenario.blocked(B));
        assert_eq!(scenario.breakers.name(scenario.now), StateName::Closed);
        assert_eq!(scenario.breakers.open_for_teams(scenario.now), 1);
        // B fails alike, with no success between.
        assert_eq!(scenario.attempt(B, AttemptEnd::Bad), Some(Some(StateName::Open)));
        assert!(scenario.blocked(A) && scenario.blocked(B));
    }

    #[test]
    fn a_team_fails_by_itself_where_others_succeed_and_nothing_opens_at_all() {
        let mut scenario = Scenario::new();
        for _ in 0..50 {
            assert_eq!(scenario.attempt(A, AttemptEnd::Bad), Some(None));
            scenario.now += SECOND / 2;
            assert_eq!(scenario.attempt(B, AttemptEnd::Good), Some(None));
        }
        assert!(!scenario.blocked(A) && !scenario.blocked(B));
    }

    #[test]
    fn the_only_active_team_speaks_for_all_until_another_asks() {
        let mut scenario = Scenario::new();
        (0..4).for_each(|_| assert_eq!(scenario.attempt(A, AttemptEnd::Bad), Some(None)));
        assert_eq!(scenario.attempt(A, AttemptEnd::Bad), Some(Some(StateName::Open)));
        assert!(scenario.blocked(A));
        assert_eq!(scenario.breakers.availability(B, scenario.now), Availability::ProbeDue);
        // A's own probe fails: that is no more than was known.
        scenario.now += SECOND;
        assert_eq!(scenario.attempt(A, AttemptEnd::Bad), Some(Some(StateName::Open)));
        assert!(scenario.blocked(A) && !scenario.blocked(B));
        assert_eq!(scenario.attempt(B, AttemptEnd::Good), Some(Some(StateName::Closed)), "B's probe decides");
        assert!(!scenario.blocked(A));
    }

    #[test]
    fn what_one_team_brought_about_keeps_no_other_waiting_for_a_probe() {
        let mut scenario = Scenario::new();
        (0..5).for_each(|_| _ = scenario.attempt(A, AttemptEnd::Bad));
        scenario.now += 2 * SECOND;
        let now = scenario.now;
        let of_a = scenario.breakers.admit(A, now).expect("its probe is due");
        assert!(of_a.is_probe() && scenario.blocked(A));
        let beside: Vec<_> = (0..50).map(|_| scenario.breakers.admit(B, now).expect("A's probe is A's")).collect();
        assert!(beside.iter().all(|permit| !permit.is_probe()));
        // A failure of B beside the probe changes nothing, a success closes it.
        let report = |scenario: &mut Scenario, permit, team, end| {
            scenario.breakers.report(permit, team, end, now, MIDDLE).map(|transition| transition.to)
        };
        assert_eq!(report(&mut scenario, beside[0], B, AttemptEnd::Bad), None);
        assert_eq!(report(&mut scenario, beside[1], B, AttemptEnd::Good), Some(StateName::Closed));
        assert_eq!(report(&mut scenario, of_a, A, AttemptEnd::Bad), None);
        assert_eq!(report(&mut scenario, beside[2], B, AttemptEnd::Good), None);
        assert!(!scenario.blocked(A) && !scenario.blocked(B));
    }

    #[test]
    fn others_beside_their_own_probe_are_not_kept_waiting_either() {
        let mut scenario = Scenario::new();
        (0..5).for_each(|_| _ = scenario.attempt(A, AttemptEnd::Bad));
        let probe = scenario.breakers.admit(B, scenario.now).expect("A's outage spares it");
        assert!(probe.is_probe() && !scenario.blocked(B));
        let now = scenario.now;
        let opened = scenario.breakers.report(probe, B, AttemptEnd::Bad, now, MIDDLE).map(|transition| transition.to);
        assert_eq!(opened, Some(StateName::Open), "its probe decides");
        assert!(scenario.blocked(A) && scenario.blocked(B));
    }

    #[test]
    fn a_probe_of_a_second_team_that_fails_too_opens_for_all() {
        let mut scenario = Scenario::new();
        (0..5).for_each(|_| _ = scenario.attempt(A, AttemptEnd::Bad));
        assert_eq!(scenario.attempt(B, AttemptEnd::Bad), Some(Some(StateName::Open)));
        assert!(scenario.blocked(A) && scenario.blocked(B));
        let third = TeamId(3);
        assert!(scenario.blocked(third));
    }
}
