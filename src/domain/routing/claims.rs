//! Who may take a free place of a deployment that carries only so many attempts at once.
//!
//! It exists so that one team cannot keep a deployment from all others by requests that are long in flight: without it,
//! whoever asks most often takes each place that becomes free. While nobody was turned away, any team may have all places.
//! A team that was, and that comes back, finds places left for it by those who hold more than an equal share. It must
//! never end an attempt: places become free as their attempts end.
//!
//! Start reading in [`DeploymentClaims::may_take`].

use crate::domain::id::TeamId;
use std::time::{Duration, Instant};

/// A team that was turned away, and has not asked again for this long, wants nothing any more: clients retry sooner.
const REMEMBERED: Duration = Duration::from_secs(10);
/// The number of teams that are remembered; while there are so many, no other one is.
const TEAMS: usize = 16;

/// The teams that a full deployment turned away a moment ago.
#[derive(Clone, Debug, Default)]
pub struct DeploymentClaims(Vec<Claim>);

#[derive(Clone, Copy, Debug)]
struct Claim {
    team: TeamId,
    /// One place more than it had at most since it was turned away.
    wanted: u32,
    asked: Instant,
}

impl DeploymentClaims {
    /// Whether `team` may take a place at `now`, where `taken` of `most` are taken, and those `of_team` by a team. One that
    /// may not is remembered.
    ///
    /// Where others were turned away, a team with its equal share or more leaves each of them the place that it wanted,
    /// up to that share, and half of all at most: so that claims of teams that do not come back cost less.
    pub fn may_take(
        &mut self,
        team: TeamId,
        most: u32,
        taken: u32,
        of_team: impl Fn(TeamId) -> u32,
        now: Instant,
    ) -> bool {
        if self.0.is_empty() && taken < most {
            return true;
        }
        self.0.retain(|claim| now.saturating_duration_since(claim.asked) <= REMEMBERED);
        let (own, known) = (of_team(team), self.0.iter().position(|claim| claim.team == team));
        let others = self.0.len() - usize::from(known.is_some());
        let share = (most / (others as u32 + 1)).max(1);
        let left_for = |claim: &Claim| match claim.team == team {
            true => 0,
            false => claim.wanted.min(share).saturating_sub(of_team(claim.team)),
        };
        let left = if own < share { 0 } else { self.0.iter().map(left_for).sum::<u32>().min(most / 2) };
        let may = taken < most && (left == 0 || taken + left < most);
        match known {
            Some(at) => {
                let claim = &mut self.0[at];
                (claim.wanted, claim.asked) = (claim.wanted.max(own + 1), now);
            }
            None if !may && self.0.len() < TEAMS => self.0.push(Claim { team, wanted: own + 1, asked: now }),
            None => {}
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A deployment with so many places, its teams by number.
    struct Deployment {
        most: u32,
        held: BTreeMap<u32, u32>,
        claims: DeploymentClaims,
        now: Instant,
    }

    impl Deployment {
        fn with(most: u32) -> Self {
            Self { most, held: BTreeMap::new(), claims: DeploymentClaims::default(), now: Instant::now() }
        }

        /// How many of `asked` places `team` gets.
        fn takes(&mut self, team: u32, asked: u32) -> u32 {
            let mut got = 0;
            for _ in 0..asked {
                let held = self.held.clone();
                let of_team = |team: TeamId| held.get(&team.0).copied().unwrap_or(0);
                if self.claims.may_take(TeamId(team), self.most, held.values().sum(), of_team, self.now) {
                    *self.held.entry(team).or_default() += 1;
                    got += 1;
                }
            }
            assert!(self.held.values().sum::<u32>() <= self.most);
            got
        }

        fn ends(&mut self, team: u32, places: u32) {
            *self.held.get_mut(&team).expect("it holds some") -= places;
        }
    }

    const GREEDY: u32 = 1;
    const OTHER: u32 = 2;

    #[test]
    fn while_nobody_was_turned_away_a_team_may_have_all_places() {
        let mut deployment = Deployment::with(8);
        assert_eq!((deployment.takes(GREEDY, 7), deployment.takes(OTHER, 1)), (7, 1));
        deployment.ends(OTHER, 1);
        assert_eq!(deployment.takes(GREEDY, 1), 1);
        // Its own refusals leave nobody anything.
        assert_eq!(deployment.takes(GREEDY, 5), 0);
        deployment.ends(GREEDY, 3);
        assert_eq!(deployment.takes(GREEDY, 5), 3);
    }

    #[test]
    fn a_place_that_becomes_free_is_left_to_whoever_was_turned_away() {
        for most in [1, 2, 3, 8, 64] {
            let mut deployment = Deployment::with(most);
            deployment.takes(GREEDY, most);
            assert_eq!(deployment.takes(OTHER, 1), 0);
            deployment.ends(GREEDY, 1);
            assert_eq!(
                deployment.takes(GREEDY, 100),
                u32::from(most == 1),
                "one place cannot be shared at once: {most}"
            );
            assert_eq!(deployment.takes(OTHER, 1), u32::from(most > 1), "{most}");
        }
    }

    #[test]
    fn under_attack_a_team_comes_to_its_share_and_keeps_it() {
        let mut deployment = Deployment::with(16);
        deployment.takes(GREEDY, 16);
        for _ in 0..40 {
            deployment.takes(OTHER, 8);
            deployment.ends(GREEDY, 1);
            deployment.takes(GREEDY, 50);
        }
        assert_eq!((deployment.held[&GREEDY], deployment.held[&OTHER]), (8, 8));
        // What it had is left for it: not one of its next requests is turned away.
        for _ in 0..40 {
            deployment.ends(OTHER, 8);
            deployment.takes(GREEDY, 50);
            assert_eq!(deployment.takes(OTHER, 8), 8);
        }
    }

    #[test]
    fn a_team_that_wants_little_is_left_little_and_one_that_is_gone_nothing() {
        let mut deployment = Deployment::with(16);
        deployment.takes(GREEDY, 16);
        assert_eq!(deployment.takes(OTHER, 1), 0);
        deployment.ends(GREEDY, 1);
        assert_eq!(deployment.takes(OTHER, 1), 1);
        deployment.ends(OTHER, 1);
        deployment.ends(GREEDY, 10);
        assert_eq!(deployment.takes(GREEDY, 50), 10, "all but one that the other may come back for");
        deployment.now += REMEMBERED + Duration::from_millis(1);
        assert_eq!(deployment.takes(GREEDY, 50), 1);
    }

    #[test]
    fn claims_of_many_that_do_not_come_back_cost_half_of_the_places_at_most() {
        let mut deployment = Deployment::with(16);
        deployment.takes(GREEDY, 16);
        assert_eq!((OTHER..200).map(|team| deployment.takes(team, 1)).sum::<u32>(), 0);
        deployment.ends(GREEDY, 16);
        assert_eq!(deployment.takes(GREEDY, 50), 8);
        assert_eq!(deployment.takes(OTHER, 8), 1, "half of the places are for others still");
        assert_eq!((OTHER + 1..200).map(|team| deployment.takes(team, 1)).sum::<u32>(), 7);
    }
}
