//! Whose attempts ended how: what has to be known before a failure is held against a deployment or a credential.
//!
//! It exists so that the requests of one team cannot take a deployment from all others. While two or more teams are
//! active, failures count for all only once a second team failed alike with no success between; a team that is the
//! only active one speaks for all. A key without a team is a team of its own. It must never decide what follows.
//!
//! Start reading in [`FailureStreak`].

use crate::domain::id::TeamId;
use std::time::{Duration, Instant};

/// The number of teams that are told apart; the rest count as one.
const TEAMS: usize = 64;

/// Failures since the last good end, by team.
#[derive(Clone, Default, Debug)]
pub struct FailureStreak {
    /// Failures that no team can have caused: nothing of a request was sent.
    unattributed: u32,
    by_team: Vec<(TeamId, u32)>,
    /// Of all of them, answers that broke off after their first token.
    broken_off: u32,
}

impl FailureStreak {
    /// Counts `weight` failures of `team`, or of no particular team.
    pub fn bad(&mut self, team: Option<TeamId>, weight: u32) {
        let known = team.and_then(|team| self.by_team.iter().position(|(known, _)| *known == team));
        match (team, known) {
            (_, Some(index)) => self.by_team[index].1 = self.by_team[index].1.saturating_add(weight),
            (Some(team), None) if self.by_team.len() < TEAMS => self.by_team.push((team, weight)),
            _ => self.unattributed = self.unattributed.saturating_add(weight),
        }
    }

    /// Counts an answer of `team` that broke off after its first token.
    pub fn broken_off(&mut self, team: TeamId, weight: u32) {
        self.bad(Some(team), weight);
        self.broken_off = self.broken_off.saturating_add(weight);
    }

    /// Takes one failure of `team` back: it turned out to be the request's own fault.
    pub fn take_back(&mut self, team: TeamId) {
        if let Some(index) = self.by_team.iter().position(|(known, _)| *known == team) {
            self.by_team[index].1 -= 1;
            self.by_team.retain(|(_, count)| *count > 0);
        }
    }

    /// Ends the streak.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether the streak is `failures` long and counts for all; `alone`: whether one team only was active lately.
    pub fn reaches(&self, failures: u32, alone: bool) -> bool {
        let of_teams: u32 = self.by_team.iter().map(|(_, count)| *count).fold(0, u32::saturating_add);
        let attested = alone || self.unattributed > 0 || self.by_team.len() > 1;
        attested && self.unattributed.saturating_add(of_teams) >= failures
    }

    /// The one team that all of it came from, if it was one.
    pub fn only_team(&self) -> Option<TeamId> {
        match &self.by_team[..] {
            [(team, _)] if self.unattributed == 0 => Some(*team),
            _ => None,
        }
    }

    /// Whether it says anything to `team`: not where one other team alone failed.
    pub fn speaks_to(&self, team: TeamId) -> bool {
        self.unattributed > 0 || self.by_team.len() > 1 || self.only_team() == Some(team)
    }

    /// Whether half of it or more were answers that broke off after their first token.
    pub fn is_mostly_broken_off(&self) -> bool {
        let all: u32 = self.by_team.iter().map(|(_, count)| *count).fold(self.unattributed, u32::saturating_add);
        self.broken_off > 0 && self.broken_off.saturating_mul(2) >= all
    }
}

/// Which teams were active last: the two most recent ones, which is all that has to be known of them.
#[derive(Clone, Default, Debug)]
pub struct ActiveTeams {
    last: Option<(TeamId, Instant)>,
    before: Option<(TeamId, Instant)>,
}

impl ActiveTeams {
    /// An attempt of `team` ended at `now`.
    pub fn note(&mut self, team: TeamId, now: Instant) {
        if self.last.is_some_and(|(last, _)| last != team) {
            self.before = self.last;
        }
        self.last = Some((team, now));
    }

    /// Whether no other team than `team` was active within the `window` that ends at `now`.
    pub fn is_alone(&self, team: TeamId, window: Duration, now: Instant) -> bool {
        let of_others = [self.last, self.before].into_iter().flatten().find(|(other, _)| *other != team);
        of_others.is_none_or(|(_, at)| now.saturating_duration_since(at) > window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TeamId = TeamId(1);
    const B: TeamId = TeamId(2);

    #[test]
    fn a_streak_of_one_team_counts_for_all_only_while_it_is_the_only_one() {
        let check = |ends: &[Option<TeamId>], alone, expected| {
            let mut streak = FailureStreak::default();
            ends.iter().for_each(|team| streak.bad(*team, 1));
            assert_eq!(streak.reaches(5, alone), expected, "{ends:?}, alone: {alone}");
        };
        check(&[Some(A); 4], true, false);
        check(&[Some(A); 5], true, true);
        check(&[Some(A); 50], false, false);
        check(&[Some(A), Some(A), Some(A), Some(B)], false, false);
        check(&[Some(A), Some(A), Some(A), Some(A), Some(B)], false, true);
        check(&[Some(A), Some(A), Some(A), Some(A), None], false, true);
        check(&[None; 5], false, true);
        check(&[None; 4], true, false);
    }

    #[test]
    fn what_one_team_met_says_nothing_to_others() {
        let mut streak = FailureStreak::default();
        assert!(!streak.speaks_to(A));
        streak.bad(Some(A), 1);
        assert!(streak.speaks_to(A) && !streak.speaks_to(B));
        streak.bad(Some(B), 1);
        assert!([A, B, TeamId(3)].into_iter().all(|team| streak.speaks_to(team)));
        streak.clear();
        streak.bad(None, 1);
        assert!(streak.speaks_to(B));
    }

    #[test]
    fn what_is_taken_back_was_never_there() {
        let mut streak = FailureStreak::default();
        (0..5).for_each(|_| streak.bad(Some(A), 1));
        streak.take_back(A);
        streak.take_back(B);
        assert!(!streak.reaches(5, true) && streak.reaches(4, true));
        (0..4).for_each(|_| streak.take_back(A));
        assert!(!streak.reaches(1, true));
    }

    #[test]
    fn a_team_is_alone_until_another_one_is_active() {
        let (now, window, second) = (Instant::now(), Duration::from_secs(30), Duration::from_secs(1));
        let mut teams = ActiveTeams::default();
        assert!(teams.is_alone(A, window, now));
        teams.note(A, now);
        assert!(teams.is_alone(A, window, now) && !teams.is_alone(B, window, now));
        teams.note(B, now);
        (1..=31).for_each(|age| teams.note(A, now + age * second));
        assert!(!teams.is_alone(A, window, now + 30 * second), "B was active 30 s ago");
        assert!(teams.is_alone(A, window, now + 31 * second));
    }
}
