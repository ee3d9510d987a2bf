//! The ends of attempts at a deployment in the last window, by team.
//!
//! It exists so that one team whose requests always fail cannot trip a deployment for the others: when two or
//! more teams used a deployment within the window, the requests and failures of one must never count for
//! more than those of all others together. An end that no team can have caused (no connection was established,
//! nothing was sent) counts in full.
//!
//! Start reading in [`FailureRateWindow`].

use crate::domain::id::TeamId;
use std::time::{Duration, Instant};

/// The window is kept in this many slices.
const SLICES: u32 = 10;
/// The number of teams that are distinguished in one slice; the rest count as one.
const TEAMS: usize = 64;
/// Stands for all teams beyond the first [`TEAMS`].
const OTHERS: TeamId = TeamId(0);

/// The sums of a window, with no team counted for more than half.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WindowCounts {
    /// Ends of attempts.
    pub requests: u64,
    /// The failures among them.
    pub failures: u64,
    /// The number of teams.
    pub teams: usize,
}

impl WindowCounts {
    /// The good ends.
    pub fn good(&self) -> u64 {
        self.requests.saturating_sub(self.failures)
    }
}

#[derive(Clone, Copy, Default, Debug)]
struct TeamCounts {
    good: u64,
    bad: u64,
}

#[derive(Clone, Default, Debug)]
struct WindowSlice {
    /// Which slice of time this is, counted from the window's start.
    turn: u64,
    unattributed: u64,
    by_team: Vec<(TeamId, TeamCounts)>,
}

/// The ends of attempts in the last window, in ten slices of time.
#[derive(Clone, Debug)]
pub struct FailureRateWindow {
    slice: Duration,
    start: Option<Instant>,
    slices: [WindowSlice; SLICES as usize],
}

impl FailureRateWindow {
    /// An empty window of this length.
    pub fn new(length: Duration) -> Self {
        let slice = (length / SLICES).max(Duration::from_millis(1));
        Self { slice, start: None, slices: Default::default() }
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.start = None;
        self.slices = Default::default();
    }

    /// Counts a good end of `team`.
    pub fn good(&mut self, team: TeamId, now: Instant) {
        self.count(team, now).good += 1;
    }

    /// Counts a failure of `team`, or of no particular team.
    pub fn bad(&mut self, team: Option<TeamId>, now: Instant) {
        match team {
            Some(team) => self.count(team, now).bad += 1,
            None => self.current(now).unattributed += 1,
        }
    }

    /// Takes one failure of `team` back: it turned out to be the request's own fault.
    pub fn take_back(&mut self, team: TeamId, now: Instant) {
        let count = self.count(team, now);
        count.bad = count.bad.saturating_sub(1);
    }

    /// The sums of the window that ends at `now`.
    pub fn counts(&self, now: Instant) -> WindowCounts {
        let turn = self.turn(now);
        let live = self.slices.iter().filter(|slice| slice.turn + u64::from(SLICES) > turn);
        let mut unattributed = 0;
        let mut teams: Vec<(TeamId, TeamCounts)> = Vec::new();
        for slice in live {
            unattributed += slice.unattributed;
            for (team, count) in &slice.by_team {
                let known = entry(&mut teams, *team, usize::MAX);
                known.good += count.good;
                known.bad += count.bad;
            }
        }
        weighted_counts(&teams, unattributed)
    }

    fn count(&mut self, team: TeamId, now: Instant) -> &mut TeamCounts {
        entry(&mut self.current(now).by_team, team, TEAMS)
    }

    fn current(&mut self, now: Instant) -> &mut WindowSlice {
        self.start.get_or_insert(now);
        let turn = self.turn(now);
        let slice = &mut self.slices[(turn % u64::from(SLICES)) as usize];
        if slice.turn != turn {
            *slice = WindowSlice { turn, ..WindowSlice::default() };
        }
        slice
    }

    fn turn(&self, now: Instant) -> u64 {
        let age = self.start.map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        // From SLICES on, so that an unused slice (turn 0) is never live.
        (age.as_nanos() / self.slice.as_nanos()) as u64 + u64::from(SLICES)
    }
}

fn entry(counts: &mut Vec<(TeamId, TeamCounts)>, team: TeamId, most: usize) -> &mut TeamCounts {
    let found = counts.iter().position(|(known, _)| *known == team);
    let index = found.unwrap_or_else(|| {
        let team = if counts.len() < most { team } else { OTHERS };
        counts.iter().position(|(known, _)| *known == team).unwrap_or_else(|| {
            counts.push((team, TeamCounts::default()));
            counts.len() - 1
        })
    });
    &mut counts[index].1
}

/// Counts the requests and failures of one team at most as often as those of all others together.
fn weighted_counts(teams: &[(TeamId, TeamCounts)], unattributed: u64) -> WindowCounts {
    let requests: u64 = teams.iter().map(|(_, c)| c.good + c.bad).sum::<u64>() + unattributed;
    let failures: u64 = teams.iter().map(|(_, c)| c.bad).sum::<u64>() + unattributed;
    if teams.len() < 2 {
        return WindowCounts { requests, failures, teams: teams.len() };
    }
    let most_requests = teams.iter().map(|(_, c)| c.good + c.bad).max().unwrap_or(0);
    let most_failures = teams.iter().map(|(_, c)| c.bad).max().unwrap_or(0);
    let half = |all: u64, most: u64| (all - most) + most.min(all - most);
    WindowCounts {
        requests: half(requests, most_requests),
        failures: half(failures, most_failures),
        teams: teams.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TeamId = TeamId(1);
    const B: TeamId = TeamId(2);

    #[test]
    fn counts_limit_each_key_to_half_and_drop_what_is_old() {
        let start = Instant::now();
        let mut window = FailureRateWindow::new(Duration::from_secs(30));
        for _ in 0..90 {
            window.bad(Some(A), start);
        }
        assert_eq!(window.counts(start), WindowCounts { requests: 90, failures: 90, teams: 1 });
        for _ in 0..10 {
            window.good(B, start);
        }
        assert_eq!(window.counts(start), WindowCounts { requests: 20, failures: 0, teams: 2 });
        for _ in 0..10 {
            window.bad(Some(B), start);
        }
        assert_eq!(window.counts(start), WindowCounts { requests: 40, failures: 20, teams: 2 });
        assert_eq!(window.counts(start + Duration::from_secs(29)).requests, 40);
        assert_eq!(window.counts(start + Duration::from_secs(31)), WindowCounts::default());
    }
}
