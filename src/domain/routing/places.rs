//! The places of one deployment that carries only so many attempts at once, or of a gateway that carries only so many
//! requests, and who holds them.
//!
//! It exists so that sharing is decided by what is held and not by who asks most often: [`queue`](super::queue) gives a free
//! place to whoever holds least of them, measured against its priority. Dedicated capacity that is lent keeps a
//! headroom for `Pro/` names: as many places as they had at once lately. It must never end an attempt: places become free
//! as their attempts end.
//!
//! Start reading in [`Places::is_full`].

use crate::domain::id::{KeyId, PolicyId};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a peak is remembered, at least; at most twice as long.
pub(super) const PEAK_REMEMBERED: Duration = Duration::from_secs(60);
/// With nothing known of it, `Pro/` traffic has one place to begin with.
const LEAST_HEADROOM: u32 = 1;
/// The weight of the latest attempt in the average time that a place is held.
const LATEST: f64 = 1.0 / 16.0;

/// Whose attempt holds a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlaceHolder {
    /// The policy of its key.
    pub policy: PolicyId,
    /// The key.
    pub key: KeyId,
    /// The priority of that policy, from 1.
    pub priority: u32,
    /// It asked by a `Pro/` name.
    pub reserved: bool,
}

/// How many places there are, and whom they are for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PlaceLimits {
    /// The most attempts at once; `None` is no limit.
    pub most: Option<u32>,
    /// Dedicated places that others than `Pro/` names may have while they are idle.
    pub lends: bool,
    /// Each policy has a floor: its share of `most` by priority, among those that hold places. Below it, it finds a place although
    /// all are taken, since nobody knows how many there are.
    pub floors: bool,
}

/// The places of one deployment, or of the gateway.
#[derive(Clone, Default, Debug)]
pub struct Places {
    limits: PlaceLimits,
    /// Held by attempts in flight, and granted to requests that waited.
    taken: u32,
    /// Those of `Pro/` names.
    reserved: u32,
    /// By key, and summed by policy; only while there is a limit. The gateway's may be thousands of keys'.
    of_keys: HashMap<KeyId, u32>,
    of_policies: Vec<PolicyPlaces>,
    peak: PeakRecord,
    /// The average time that a place is held, in seconds.
    held_for: Option<f64>,
}

/// What the keys of one policy hold.
#[derive(Clone, Copy, Debug)]
struct PolicyPlaces {
    policy: PolicyId,
    priority: u32,
    taken: u32,
}

impl Places {
    /// Applies other limits; whoever holds a place keeps it.
    pub fn set_limits(&mut self, limits: PlaceLimits) {
        self.limits = limits;
    }

    /// Whether there are only so many.
    pub fn are_limited(&self) -> bool {
        self.limits.most.is_some()
    }

    /// Whether a request by a `Pro/` name, or another one, finds no place.
    pub fn is_full(&self, reserved: bool, now: Instant) -> bool {
        let Some(most) = self.limits.most else { return false };
        if reserved || !self.limits.lends {
            return self.taken >= most;
        }
        // What is kept counts as taken, whether it is or not.
        let kept = self.peak.at(now).max(LEAST_HEADROOM).max(self.reserved);
        self.lent() + kept >= most
    }

    /// Whether a request of `holder` finds no place.
    pub fn is_full_to(&self, holder: PlaceHolder, now: Instant) -> bool {
        self.is_full(holder.reserved, now) && !self.is_below_floor(holder)
    }

    /// Whether its policy holds less than its floor, which is one place at least.
    fn is_below_floor(&self, holder: PlaceHolder) -> bool {
        let Some(most) = self.limits.most.filter(|_| self.limits.floors) else { return false };
        let others = self.of_policies.iter().filter(|other| other.policy != holder.policy && other.taken > 0);
        let own = u64::from(holder.priority.max(1));
        let all = own + others.map(|other| u64::from(other.priority)).sum::<u64>();
        u64::from(self.of_policy(holder.policy)) < (u64::from(most) * own / all).max(1)
    }

    /// Whether policies have floors.
    pub fn have_floors(&self) -> bool {
        self.limits.floors
    }

    /// How many are held, by whomever.
    pub fn taken(&self) -> u32 {
        self.taken
    }

    /// Whether a `Pro/` request has a claim to the next place before any other: dedicated capacity that is lent.
    pub fn puts_reserved_first(&self) -> bool {
        self.limits.lends
    }

    /// Places that others than `Pro/` names hold.
    pub fn lent(&self) -> u32 {
        self.taken - self.reserved
    }

    /// Records that `holder` has one place more.
    pub fn take(&mut self, holder: PlaceHolder, now: Instant) {
        self.taken += 1;
        self.reserved += u32::from(holder.reserved);
        if self.limits.most.is_none() {
            return;
        }
        self.peak.record(self.reserved, now);
        *self.of_keys.entry(holder.key).or_default() += 1;
        let PlaceHolder { policy, priority, .. } = holder;
        match self.of_policies.iter_mut().find(|known| known.policy == policy) {
            // A reload may have changed the priority.
            Some(known) => *known = PolicyPlaces { priority, taken: known.taken + 1, ..*known },
            None => self.of_policies.push(PolicyPlaces { policy, priority, taken: 1 }),
        }
    }

    /// Records that `holder` has one place less.
    pub fn give_back(&mut self, holder: PlaceHolder, now: Instant) {
        if self.limits.most.is_some() {
            // As many as until now: a peak lasts until its last request ends.
            self.peak.record(self.reserved, now);
        }
        self.taken = self.taken.saturating_sub(1);
        self.reserved = self.reserved.saturating_sub(u32::from(holder.reserved));
        // One that was taken while there was no limit is not counted here.
        let Some(places) = self.of_keys.get_mut(&holder.key) else { return };
        *places -= 1;
        if *places == 0 {
            self.of_keys.remove(&holder.key);
        }
        if let Some(known) = self.of_policies.iter_mut().find(|known| known.policy == holder.policy) {
            known.taken = known.taken.saturating_sub(1);
        }
    }

    /// Records how long an attempt had its place.
    pub fn was_held_for(&mut self, held: Duration) {
        if self.limits.most.is_none() {
            return;
        }
        let held = held.as_secs_f64();
        self.held_for = Some(self.held_for.map_or(held, |usual| usual + (held - usual) * LATEST));
    }

    /// How many places are expected to become free within `span`; all of them once, where nothing is known.
    pub fn freed_within(&self, span: Duration) -> f64 {
        let most = f64::from(self.limits.most.unwrap_or(u32::MAX));
        self.held_for.map_or(most, |usual| most * span.as_secs_f64() / usual.max(1e-6))
    }

    /// The places that the keys of `policy` hold.
    pub fn of_policy(&self, policy: PolicyId) -> u32 {
        self.of_policies.iter().find(|known| known.policy == policy).map_or(0, |known| known.taken)
    }

    /// The places that `key` holds.
    pub fn of_key(&self, key: KeyId) -> u32 {
        self.of_keys.get(&key).copied().unwrap_or_default()
    }
}

/// The most requests at once, lately: of the current span and the one before it.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct PeakRecord {
    began: Option<Instant>,
    current: u32,
    before: u32,
}

impl PeakRecord {
    pub(super) fn record(&mut self, count: u32, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let age = now.saturating_duration_since(began);
        if age >= PEAK_REMEMBERED {
            self.before = if age < PEAK_REMEMBERED * 2 { self.current } else { 0 };
            (self.began, self.current) = (Some(now), 0);
        }
        self.current = self.current.max(count);
    }

    pub(super) fn at(&self, now: Instant) -> u32 {
        let age = self.began.map_or(Duration::MAX, |began| now.saturating_duration_since(began));
        match age {
            _ if age < PEAK_REMEMBERED => self.current.max(self.before),
            _ if age < PEAK_REMEMBERED * 2 => self.current,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(policy: u32, key: u32, reserved: bool) -> PlaceHolder {
        PlaceHolder { policy: PolicyId(policy), key: KeyId(key), priority: 1, reserved }
    }

    fn places(most: u32, lends: bool) -> Places {
        let mut places = Places::default();
        places.set_limits(PlaceLimits { most: Some(most), lends, floors: false });
        places
    }

    #[test]
    fn places_are_counted_by_policy_and_key() {
        let (mut places, now) = (places(3, false), Instant::now());
        for (policy, key) in [(1, 1), (1, 2), (2, 3)] {
            assert!(!places.is_full(false, now));
            places.take(holder(policy, key, false), now);
        }
        assert!(places.is_full(false, now) && places.is_full(true, now));
        assert_eq!((places.of_policy(PolicyId(1)), places.of_key(KeyId(3))), (2, 1));
        places.give_back(holder(1, 2, false), now);
        assert_eq!((places.of_policy(PolicyId(1)), places.of_key(KeyId(2))), (1, 0));
        assert!(!places.is_full(false, now));
    }

    #[test]
    fn without_a_limit_nothing_is_full_and_a_limit_may_come_later() {
        let (mut places, now) = (Places::default(), Instant::now());
        for _ in 0..3 {
            places.take(holder(1, 1, false), now);
        }
        assert!(!places.is_full(false, now));
        places.set_limits(PlaceLimits { most: Some(3), lends: false, floors: false });
        assert!(places.is_full(false, now), "what is in flight counts");
        for _ in 0..3 {
            places.give_back(holder(1, 1, false), now);
        }
        assert!(!places.is_full(false, now));
        assert_eq!(places.of_key(KeyId(1)), 0);
    }

    #[test]
    fn what_is_lent_leaves_the_recent_peak_of_reserved_requests_free() {
        let (mut places, mut now) = (places(8, true), Instant::now());
        let lend = |places: &mut Places, now| {
            let mut lent = 0;
            while !places.is_full(false, now) {
                places.take(holder(1, 1, false), now);
                lent += 1;
            }
            (0..lent).for_each(|_| places.give_back(holder(1, 1, false), now));
            lent
        };
        assert_eq!(lend(&mut places, now), 7, "one place is kept for the first");
        (0..5).for_each(|_| places.take(holder(2, 2, true), now));
        (0..5).for_each(|_| places.give_back(holder(2, 2, true), now));
        assert_eq!(lend(&mut places, now), 3, "five were in use at once");
        now += PEAK_REMEMBERED;
        places.take(holder(2, 2, true), now);
        places.give_back(holder(2, 2, true), now);
        assert_eq!(lend(&mut places, now), 3, "a minute ago");
        now += PEAK_REMEMBERED + Duration::from_millis(1);
        assert_eq!(lend(&mut places, now), 7, "the peak is forgotten");
    }

    #[test]
    fn below_its_floor_a_policy_finds_a_place_although_all_are_taken() {
        let now = Instant::now();
        let of = |policy, priority| PlaceHolder { priority, ..holder(policy, policy, false) };
        let filled = |most, floors| {
            let mut places = Places::default();
            places.set_limits(PlaceLimits { most: Some(most), lends: false, floors });
            (0..90).for_each(|_| places.take(of(1, 1), now));
            places
        };
        let found = |places: &mut Places, holder: PlaceHolder| {
            let before = places.taken();
            while !places.is_full_to(holder, now) {
                places.take(holder, now);
            }
            places.taken() - before
        };
        // The limit has fallen to a half of what is in flight: the other has eight ninths of it.
        let mut places = filled(45, true);
        assert_eq!(found(&mut places, of(1, 1)), 0);
        assert_eq!(found(&mut places, of(2, 8)), 40);
        // A third one has its share of what the three may have, and one place at least.
        assert_eq!(found(&mut places, of(3, 1)), 4);
        assert_eq!(found(&mut filled(1, true), of(2, 8)), 1);
        assert_eq!(found(&mut filled(45, false), of(2, 8)), 0, "a limit that is known is one");
    }

    #[test]
    fn a_reserved_request_finds_every_place_that_is_free() {
        let (mut places, now) = (places(2, true), Instant::now());
        places.take(holder(1, 1, false), now);
        assert!(places.is_full(false, now) && !places.is_full(true, now));
        places.take(holder(2, 2, true), now);
        assert!(places.is_full(true, now));
        assert_eq!(places.lent(), 1);
    }

    #[test]
    fn how_many_become_free_follows_from_how_long_they_are_held() {
        let mut places = places(4, false);
        let second = Duration::from_secs(1);
        assert!((places.freed_within(second) - 4.0).abs() < 1e-9, "nothing is known: each once");
        places.was_held_for(Duration::from_millis(100));
        assert!((places.freed_within(second) - 40.0).abs() < 1e-9);
        (0..200).for_each(|_| places.was_held_for(Duration::from_secs(8)));
        assert!((places.freed_within(second) - 0.5).abs() < 1e-2);
    }
}
