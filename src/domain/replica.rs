//! How gateways that share a store divide each key's limits among them.
//!
//! Each counts for itself and keeps its part of a limit; together the parts are the limit. A part shrinks at once when
//! another gateway is seen, and grows when there have been fewer for a whole window, because what those that are gone
//! granted still counts in it. A gateway that joins has not counted what the others granted before: in its first minute
//! it has at most a half of a limit, the next one a quarter, and so on, so that all that join add at most the limit once.
//!
//! Start reading in [`ReplicaHistory::observe`]; what it decides is [`LimitDivision::part_of`].

use super::limit::{Limits, WINDOW};
use std::time::Duration;

/// What the store says of the gateways that share it, as one of them asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicaView {
    /// How many are alive, the one that asks among them: 1 or more.
    pub alive: u32,
    /// How many of those began before the one that asks.
    pub before: u32,
    /// In the first minute of the gateway that asks: how many of those that are known began within the last minute and
    /// before it, plus one if any began earlier. `None` after that minute.
    pub joined: Option<u32>,
}

/// Which part of each limit a gateway has. By default all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LimitDivision {
    /// By how many gateways a limit is divided: 1 or more.
    among: u32,
    /// Which of them this one is, from 0 on and less than `among`: what is left over goes to the first ones.
    index: u32,
    /// How often a limit is halved for a gateway in its first minute.
    halved: u32,
}

impl Default for LimitDivision {
    fn default() -> Self {
        Self { among: 1, index: 0, halved: 0 }
    }
}

impl LimitDivision {
    /// The part of `limit` that this gateway may grant.
    pub fn part_of(self, limit: u64) -> u64 {
        let (among, index) = (u64::from(self.among), u64::from(self.index));
        let part = limit / among + u64::from(index < limit % among);
        part.min(limit.checked_shr(self.halved).unwrap_or(0))
    }

    /// Its part of each of `limits`.
    pub fn part_of_each(self, limits: &Limits) -> Limits {
        Limits {
            requests_per_minute: limits.requests_per_minute.map(|limit| self.part_of(limit)),
            tokens_per_minute: limits.tokens_per_minute.map(|limit| self.part_of(limit)),
            // A part is not larger than the whole.
            max_concurrent: limits.max_concurrent.map(|limit| self.part_of(limit.into()) as u32),
        }
    }

    /// Whether it is the first of them: the one that does what only one is to do. After another one ended, none may be for a
    /// minute, and never two.
    pub fn is_first(self) -> bool {
        self.index == 0
    }

    fn of(view: ReplicaView) -> Self {
        let among = view.alive.max(1);
        Self { among, index: view.before.min(among - 1), halved: view.joined.unwrap_or(0) }
    }

    /// The smaller part of the two, of any limit.
    fn smaller(self, other: Self) -> Self {
        Self {
            among: self.among.max(other.among),
            index: self.index.max(other.index),
            halved: self.halved.max(other.halved),
        }
    }
}

/// What one gateway has seen of the others, and the part of the limits that follows from it.
#[derive(Default, Debug)]
pub struct ReplicaHistory {
    division: LimitDivision,
    /// Since when a larger part could be had, and the smallest that was seen since.
    larger: Option<(Duration, LimitDivision)>,
}

impl ReplicaHistory {
    /// Records what the store said at `at`, a time since a fixed instant. Returns the part from now on.
    pub fn observe(&mut self, view: ReplicaView, at: Duration) -> LimitDivision {
        let seen = LimitDivision::of(view);
        // The store measures the first minute. Within it others may end theirs, which leaves nothing over.
        let halved = view.joined.map_or(0, |_| seen.halved.max(self.division.halved));
        let seen = LimitDivision { halved, ..seen };
        self.division = LimitDivision { halved, ..self.division }.smaller(seen);
        let (since, smallest) = match self.larger {
            Some((since, smallest)) => (since, LimitDivision { halved, ..smallest }.smaller(seen)),
            None => (at, seen),
        };
        self.larger = (smallest != self.division).then_some((since, smallest));
        if self.larger.is_some() && at.saturating_sub(since) >= WINDOW {
            (self.division, self.larger) = (smallest, None);
        }
        self.division
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limit::SlidingWindow;
    use proptest::prelude::*;
    use std::time::Instant;

    fn view(alive: u32, before: u32, joined: u32) -> ReplicaView {
        ReplicaView { alive, before, joined: (joined > 0).then_some(joined) }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The parts of all gateways together are the limit, whatever it is.
        #[test]
        fn parts_sum_to_the_limit(limit in prop_oneof![0..300_u64, any::<u64>()], alive in 1..40_u32) {
            let parts = (0..alive).map(|before| u128::from(LimitDivision::of(view(alive, before, 0)).part_of(limit)));
            prop_assert_eq!(parts.sum::<u128>(), u128::from(limit));
        }

        /// Gateways come and go in any order, and each grants all it may. In no sliding minute is it more than twice the
        /// limit, and never above it in a minute in which none came.
        #[test]
        fn gateways_that_come_and_go_never_grant_more_than_twice(
            limit in prop_oneof![1..9_u64, 10..500_u64],
            steps in prop::collection::vec((0..6_u8, any::<u16>(), 1..40_u64), 1..60),
        ) {
            let mut all = SharedStore { limit, ..SharedStore::default() };
            all.join();
            for (what, which, seconds) in steps {
                match what {
                    0 | 1 if all.gateways.len() < 12 => all.join(),
                    2 => all.stop(which.into()),
                    3 => all.kill(which.into()),
                    _ => {}
                }
                // Many changes within a minute, and now and then time for all to settle.
                for _ in 0..if seconds > 35 { 150 } else { seconds } {
                    all.second();
                }
            }
            let (granted, joined) = (&all.granted, &all.joined);
            for from in 0..granted.len() {
                let minute = from..granted.len().min(from + 60);
                let sum: u64 = granted[minute.clone()].iter().sum();
                let most = if joined[minute].contains(&true) { 2 * limit } else { limit };
                prop_assert!(sum <= most, "{sum} of {limit} in the minute from second {from}");
            }
        }
    }

    /// One gateway as the store and it itself see it.
    struct Gateway {
        id: u64,
        began: u64,
        /// Killed at: its row stays, and is not renewed.
        killed: Option<u64>,
        history: ReplicaHistory,
        window: SlidingWindow,
    }

    /// Gateways on one store, which all look at it once a second and then take all that they may.
    struct SharedStore {
        limit: u64,
        now: u64,
        next_id: u64,
        start: Instant,
        gateways: Vec<Gateway>,
        /// Units granted, and whether a gateway joined, by second.
        granted: Vec<u64>,
        joined: Vec<bool>,
        joins: bool,
    }

    impl Default for SharedStore {
        fn default() -> Self {
            let (start, joins) = (Instant::now(), false);
            Self { limit: 0, now: 0, next_id: 0, start, gateways: vec![], granted: vec![], joined: vec![], joins }
        }
    }

    impl SharedStore {
        fn join(&mut self) {
            let (history, window) = (ReplicaHistory::default(), SlidingWindow::new(0));
            self.gateways.push(Gateway { id: self.next_id, began: self.now, killed: None, history, window });
            self.next_id += 1;
            self.joins = true;
        }

        /// Ends one as it is meant to end, and its row with it; only while another one is there that was before.
        fn stop(&mut self, which: usize) {
            let settled = |one: &Gateway| one.killed.is_none() && self.now - one.began >= 60;
            let all: Vec<usize> = (0..self.gateways.len()).filter(|at| settled(&self.gateways[*at])).collect();
            if all.len() > 1 {
                let at = all[which % all.len()];
                self.gateways.remove(at);
            }
        }

        /// Its row stays, and is not renewed any more.
        fn kill(&mut self, which: usize) {
            let (now, count) = (self.now, self.gateways.len());
            if count > 0 {
                self.gateways[which % count].killed.get_or_insert(now);
            }
        }

        fn view_of(&self, id: u64) -> ReplicaView {
            let seen = |one: &&Gateway| one.killed.is_none_or(|at| self.now - at < 10);
            let new = |one: &&Gateway| self.now - one.began < 60;
            let own = self.gateways.iter().find(|one| one.id == id).expect("it asks");
            let joined = self.gateways.iter().filter(new).filter(|one| one.id < id).count();
            let settled = self.gateways.iter().any(|one| !new(&one));
            ReplicaView {
                alive: self.gateways.iter().filter(seen).count() as u32,
                before: self.gateways.iter().filter(seen).filter(|one| one.id < id).count() as u32,
                joined: new(&own).then_some(joined as u32 + u32::from(settled)),
            }
        }

        fn second(&mut self) {
            self.gateways.retain(|one| one.killed.is_none_or(|at| self.now - at <= 60));
            let at = Duration::from_secs(self.now);
            let views: Vec<ReplicaView> = self.gateways.iter().map(|one| self.view_of(one.id)).collect();
            let (mut sum, mut first) = (0, 0);
            for (gateway, view) in self.gateways.iter_mut().zip(views).filter(|(one, _)| one.killed.is_none()) {
                let division = gateway.history.observe(view, at);
                first += u32::from(division.is_first());
                gateway.window.set_limit(division.part_of(self.limit));
                let left = gateway.window.left(self.start + at).remaining;
                if left > 0 {
                    gateway.window.take(left, self.start + at).expect("that much is left");
                }
                sum += left;
            }
            assert!(first <= 1, "{first} are the first in second {}", self.now);
            self.granted.push(sum);
            self.joined.push(std::mem::take(&mut self.joins));
            self.now += 1;
        }
    }

    #[test]
    fn a_lone_gateway_has_all_of_every_limit() {
        let mut history = ReplicaHistory::default();
        for second in [0, 1, 59, 60, 3_600] {
            let division = history.observe(view(1, 0, 0), Duration::from_secs(second));
            for limit in [0, 1, 50, u64::MAX] {
                assert_eq!(division.part_of(limit), limit, "{second}");
            }
        }
        assert_eq!(LimitDivision::default().part_of(u64::MAX), u64::MAX);
    }

    #[test]
    fn what_is_left_over_goes_to_the_first_gateways() {
        let check = |limit: u64, expected: [u64; 3]| {
            let parts = [0, 1, 2].map(|before| LimitDivision::of(view(3, before, 0)).part_of(limit));
            assert_eq!(parts, expected, "{limit}");
        };
        check(50, [17, 17, 16]);
        check(3, [1, 1, 1]);
        check(1, [1, 0, 0]);
        check(0, [0, 0, 0]);
        let limits = Limits { requests_per_minute: Some(10), tokens_per_minute: None, max_concurrent: Some(3) };
        let second = LimitDivision::of(view(2, 1, 0)).part_of_each(&limits);
        let expected = Limits { requests_per_minute: Some(5), tokens_per_minute: None, max_concurrent: Some(1) };
        assert_eq!(second, expected);
    }

    #[test]
    fn a_part_shrinks_at_once_and_grows_after_a_minute() {
        let mut history = ReplicaHistory::default();
        let mut check = |second: u64, alive: u32, expected: u64| {
            let division = history.observe(view(alive, 0, 0), Duration::from_secs(second));
            assert_eq!(division.part_of(60), expected, "second {second}");
        };
        check(0, 1, 60);
        check(1, 3, 20);
        check(2, 2, 20);
        check(61, 2, 20);
        check(62, 2, 30);
        check(63, 1, 30);
        // One that was away for a moment: the minute begins anew.
        check(90, 2, 30);
        check(100, 1, 30);
        check(159, 1, 30);
        check(160, 1, 60);
    }

    #[test]
    fn a_gateway_that_joins_has_less_in_its_first_minute() {
        let mut history = ReplicaHistory::default();
        let mut check = |second: u64, seen: ReplicaView, expected: u64| {
            assert_eq!(history.observe(seen, Duration::from_secs(second)).part_of(60), expected, "second {second}");
        };
        check(0, view(3, 2, 2), 15);
        // Another one that joined settles first: its own minute is not over.
        check(30, view(3, 2, 1), 15);
        check(60, view(3, 2, 0), 20);
    }
}
