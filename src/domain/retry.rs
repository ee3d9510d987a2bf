//! The retry budget: the allowed share of extra attempts.
//!
//! It exists because a count per request ("three retries") multiplies the load on the deployments that are
//! left just when they are fewest: with three attempts a dead provider gets three times its traffic.
//! A budget over all requests bounds the sum instead: extra attempts are at most a share of the last
//! ten seconds' requests, with a floor so that a quiet gateway may still retry. While several teams are active, none
//! may use more than the share of its own requests, or half of the floor: one team's failing requests must not use
//! up what the others need. Which failures lead
//! to another attempt at all is [`Failure::next_action`](super::failure::Failure::next_action).
//!
//! ```
//! use std::time::Instant;
//! use tierway::domain::id::TeamId;
//! use tierway::domain::retry::RetryBudget;
//!
//! let (now, team) = (Instant::now(), TeamId(1));
//! let mut budget = RetryBudget::new(2_000); // 20 %
//! (0..1_000).for_each(|_| budget.request(team, now));
//! assert_eq!((0..500).filter(|_| budget.spend(team, now)).count(), 200);
//! ```

use crate::domain::id::TeamId;
use std::time::{Duration, Instant};

/// Traffic and extra attempts are counted over this many slices of time.
const SLICES: u64 = 10;
/// Extra attempts per second that are always allowed.
const FLOOR_PER_SECOND: u64 = 10;

/// The number of teams that are told apart in one slice; the rest count as one.
const TEAMS: usize = 64;

#[derive(Clone, Copy, Default, Debug)]
struct Counts {
    requests: u64,
    extras: u64,
}

#[derive(Clone, Default, Debug)]
struct SliceCounts {
    /// Which slice of time this is, counted from the first use.
    turn: u64,
    all: Counts,
    by_team: Vec<(TeamId, Counts)>,
}

/// Extra attempts as a share of traffic.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    share_bp: u32,
    /// Extra attempts that are allowed in all slices together, whatever the traffic.
    floor: u64,
    /// How long a slice is, in seconds.
    slice: u64,
    start: Option<Instant>,
    slices: [SliceCounts; SLICES as usize],
}

impl RetryBudget {
    /// A full budget of `share_bp` hundredths of a percent, and at least ten extra attempts per second.
    pub fn new(share_bp: u32) -> Self {
        Self::with_floor(share_bp, FLOOR_PER_SECOND)
    }

    /// A full budget of `share_bp` hundredths of a percent, and at least `floor` extra attempts per second.
    pub fn with_floor(share_bp: u32, floor: u64) -> Self {
        Self { share_bp, floor: floor * SLICES, slice: 1, start: None, slices: Default::default() }
    }

    /// A full budget of `share_bp` hundredths of a percent over the last minute, and nothing beside: over less time a
    /// share of few requests would be used up by chance.
    pub fn of_a_minute(share_bp: u32) -> Self {
        Self { slice: 6, ..Self::with_floor(share_bp, 0) }
    }

    /// Changes the share; the counts stay.
    pub fn set_share(&mut self, share_bp: u32) {
        self.share_bp = share_bp;
    }

    /// Counts a request of `team`.
    pub fn request(&mut self, team: TeamId, now: Instant) {
        let slice = self.slice_of(now);
        slice.all.requests += 1;
        slice.of_team(team).requests += 1;
    }

    /// Whether `team` may make an extra attempt at `now`.
    pub fn has_left(&self, team: TeamId, now: Instant) -> bool {
        let turn = self.turn(now);
        let live = self.slices.iter().filter(|slice| slice.turn + SLICES > turn);
        let (mut all, mut own) = (Counts::default(), Counts::default());
        for slice in live {
            all.add(slice.all);
            slice.by_team.iter().filter(|(known, _)| *known == team).for_each(|(_, counts)| own.add(*counts));
        }
        let share = |requests: u64| requests * u64::from(self.share_bp) / 10_000;
        let alone = own.requests == all.requests;
        all.extras < share(all.requests).max(self.floor)
            && (alone || own.extras < share(own.requests).max(self.floor / 2))
    }

    /// Takes one extra attempt for `team`, if one is left; returns whether it was.
    pub fn spend(&mut self, team: TeamId, now: Instant) -> bool {
        let left = self.has_left(team, now);
        if left {
            let slice = self.slice_of(now);
            slice.all.extras += 1;
            slice.of_team(team).extras += 1;
        }
        left
    }

    /// Gives back the latest extra attempt that was taken for `team`: it was not made.
    pub fn give_back(&mut self, team: TeamId, now: Instant) {
        let turn = self.turn(now);
        let live = self.slices.iter_mut().filter(|slice| slice.turn + SLICES > turn);
        let taken = live.filter_map(|slice| {
            let own = slice.by_team.iter_mut().find(|(known, counts)| *known == team && counts.extras > 0);
            Some((slice.turn, &mut slice.all, own?))
        });
        if let Some((_, all, (_, own))) = taken.max_by_key(|(turn, ..)| *turn) {
            all.extras -= 1;
            own.extras -= 1;
        }
    }

    fn slice_of(&mut self, now: Instant) -> &mut SliceCounts {
        self.start.get_or_insert(now);
        let turn = self.turn(now);
        let slice = &mut self.slices[(turn % SLICES) as usize];
        if slice.turn != turn {
            // Its memory stays: a new slice has the same teams.
            (slice.turn, slice.all) = (turn, Counts::default());
            slice.by_team.clear();
        }
        slice
    }

    fn turn(&self, now: Instant) -> u64 {
        let age = self.start.map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        // From SLICES on, so that an unused slice (turn 0) is never live.
        age.as_secs() / self.slice + SLICES
    }
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.extras += other.extras;
    }
}

impl SliceCounts {
    fn of_team(&mut self, team: TeamId) -> &mut Counts {
        let team = if self.by_team.len() < TEAMS { team } else { TeamId(0) };
        let known = self.by_team.iter().position(|(known, _)| *known == team);
        let index = known.unwrap_or_else(|| {
            self.by_team.push((team, Counts::default()));
            self.by_team.len() - 1
        });
        &mut self.by_team[index].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TeamId = TeamId(1);
    const B: TeamId = TeamId(2);

    #[test]
    fn extras_are_a_share_of_the_last_ten_seconds_with_a_floor() {
        let check = |requests: u64, later: u64, expected: usize| {
            let start = Instant::now();
            let mut budget = RetryBudget::new(2_000);
            (0..requests).for_each(|_| budget.request(A, start));
            let now = start + Duration::from_secs(later);
            let spent = (0..10_000).filter(|_| budget.spend(A, now)).count();
            assert_eq!(spent, expected, "{requests} requests, {later} s later");
        };
        check(0, 0, 100);
        check(500, 0, 100);
        check(5_000, 0, 1_000);
        check(5_000, 9, 1_000);
        check(5_000, 10, 100);
    }

    #[test]
    fn no_team_uses_up_what_the_others_need() {
        let now = Instant::now();
        let check = |of_a: u64, of_b: u64, expected: (usize, usize)| {
            let mut budget = RetryBudget::new(2_000);
            (0..of_a).for_each(|_| budget.request(A, now));
            (0..of_b).for_each(|_| budget.request(B, now));
            let mut spent = |team| (0..10_000).filter(|_| budget.spend(team, now)).count();
            assert_eq!((spent(A), spent(B)), expected, "{of_a} and {of_b} requests");
        };
        check(1_000, 0, (200, 0));
        check(1_000, 10, (200, 2));
        check(10, 1_000, (50, 152));
        check(5_000, 5_000, (1_000, 1_000));
        check(10, 10, (50, 50));
    }

    #[test]
    fn without_a_floor_there_is_only_the_share() {
        let now = Instant::now();
        let mut budget = RetryBudget::with_floor(200, 0);
        assert!(!budget.spend(A, now));
        (0..150).for_each(|_| budget.request(A, now));
        assert_eq!((0..10).filter(|_| budget.spend(A, now)).count(), 3);
    }

    #[test]
    fn a_budget_of_a_minute_remembers_that_long() {
        let start = Instant::now();
        let mut budget = RetryBudget::of_a_minute(1_000);
        (0..100).for_each(|_| budget.request(A, start));
        let mut spent = |after| (0..99).filter(|_| budget.spend(A, start + Duration::from_secs(after))).count();
        assert_eq!((spent(0), spent(53), spent(60)), (10, 0, 0));
        (0..100).for_each(|_| budget.request(A, start + Duration::from_secs(60)));
        assert_eq!((0..99).filter(|_| budget.spend(A, start + Duration::from_secs(60))).count(), 10);
    }

    #[test]
    fn an_attempt_that_was_not_made_is_given_back_to_whoever_took_it() {
        let start = Instant::now();
        let later = start + Duration::from_secs(3);
        let mut budget = RetryBudget::new(0);
        let spent = |budget: &mut RetryBudget, team, now| (0..1_000).filter(|_| budget.spend(team, now)).count();
        budget.request(A, start);
        budget.request(B, start);
        assert_eq!((spent(&mut budget, A, start), spent(&mut budget, B, later)), (50, 50));
        // Also in another second than it was taken in.
        budget.give_back(A, later);
        assert_eq!((spent(&mut budget, B, later), spent(&mut budget, A, later)), (0, 1));
        (0..80).for_each(|_| budget.give_back(B, later));
        assert_eq!((spent(&mut budget, A, later), spent(&mut budget, B, later)), (0, 50), "no more than it took");
    }

    #[test]
    fn a_spent_attempt_is_available_again_after_ten_seconds() {
        let start = Instant::now();
        let mut budget = RetryBudget::new(0);
        while budget.spend(A, start) {}
        assert!(!budget.has_left(A, start + Duration::from_secs(9)));
        assert!(budget.has_left(A, start + Duration::from_secs(10)));
    }
}
