//! The weighted fair queue of requests that wait for a place, because the gateway is full or every deployment that could
//! serve them is.
//!
//! It exists so that a burst of one key, or of many with a low priority, costs the others nothing. A place that becomes free
//! is given to the policy that holds least of the deployment or gateway it is of, measured against its priority; inside a
//! policy, to the key that holds least. What holds alike takes turns, by stride scheduling. A request waits for all that it
//! needs at once: it must never hold a place of the gateway while it waits for a deployment's, nor the reverse. Time is
//! handed in; nothing here waits.
//!
//! Start reading in [`WaitQueue::grant`]; who may wait is decided in [`arrival`].

mod arrival;

pub use arrival::{ExpectedPlaces, ShedReason, WaitDecision};

use super::places::{PlaceHolder, Places};
use crate::domain::id::{KeyId, PlacesId, PolicyId};
use std::collections::VecDeque;
use std::time::Instant;

/// What a turn adds to the pass of a policy with priority 1.
const STRIDE: u64 = 1 << 32;

/// A request that waits for a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlaceRequest {
    /// Whose it is.
    pub holder: PlaceHolder,
    /// The deployments with a limit that could serve it.
    pub usable: Box<[PlacesId]>,
    /// A deployment without a limit could serve it too, so that it needs no deployment's place.
    pub unlimited: bool,
    /// The gateway was full when it came, so that it competes with all others that wait for that.
    pub at_gateway: bool,
    /// When it no longer waits.
    pub until: Instant,
}

/// The number of a waiting request, in order of arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WaiterId(pub u64);

/// A waiting request, and what it is told through.
#[derive(Debug)]
pub struct Waiter<T> {
    /// In order of arrival.
    pub id: WaiterId,
    /// What it waits for.
    pub request: PlaceRequest,
    /// What came with it.
    pub payload: T,
}

/// Requests that wait, by policy and key.
#[derive(Debug)]
pub struct WaitQueue<T> {
    /// None is dropped: a policy keeps its pass over quiet times.
    policies: Vec<PolicyQueue<T>>,
    /// The pass of the policy that had the last turn.
    pass: u64,
    waiting: usize,
    next: u64,
}

#[derive(Debug)]
struct PolicyQueue<T> {
    policy: PolicyId,
    priority: u32,
    pass: u64,
    keys: Vec<KeyQueue<T>>,
    /// The pass of the key that had the last turn.
    key_pass: u64,
}

#[derive(Debug)]
struct KeyQueue<T> {
    key: KeyId,
    pass: u64,
    /// The oldest first.
    waiters: VecDeque<Waiter<T>>,
}

/// The turn of one waiting request, as long as the queue does not change.
#[derive(Debug)]
pub struct WaiterTurn(Position);

/// Where a waiting request is: the index of its policy, of its key, and among the key's.
type Position = (usize, usize, usize);

impl PlaceRequest {
    /// Whether it needs a place of `gateway`. A request by a `Pro/` name has the places of dedicated deployments, which the
    /// limit of the gateway must not take from it.
    pub fn needs_gateway(&self, gateway: &Places) -> bool {
        gateway.are_limited() && !self.holder.reserved
    }
}

impl<T> PolicyQueue<T> {
    /// What a turn adds to its pass.
    fn stride(&self) -> u64 {
        STRIDE / u64::from(self.priority.max(1))
    }
}

impl<T> Default for WaitQueue<T> {
    fn default() -> Self {
        Self { policies: Vec::new(), pass: 0, waiting: 0, next: 0 }
    }
}

impl<T> WaitQueue<T> {
    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Gives a free place of the deployment numbered `id` to the request whose turn it is there, with a place of the
    /// gateway where it needs one, if there are both and any waits; `places` are the deployment's. Both count them as taken
    /// afterwards.
    pub fn grant(
        &mut self,
        id: PlacesId,
        places: &mut Places,
        gateway: &mut Places,
        now: Instant,
    ) -> Option<Waiter<T>> {
        let turn = self.turn(id, places, gateway, now)?;
        places.take(self.waiter(&turn).request.holder, now);
        Some(self.grant_turn(turn, gateway, now))
    }

    /// Whose turn it is for a free place of the gateway, if there is one: of those that need one, and to whom a deployment
    /// has a place to give, as `has_place` says, or need none.
    pub fn turn_at_gateway(
        &self,
        gateway: &Places,
        now: Instant,
        has_place: impl Fn(&Waiter<T>) -> bool,
    ) -> Option<WaiterTurn> {
        if gateway.is_full(false, now) && !gateway.have_floors() {
            return None;
        }
        let may = |waiter: &Waiter<T>| {
            let request = &waiter.request;
            let enters = !request.holder.reserved && !gateway.is_full_to(request.holder, now);
            enters && request.until > now && (request.unlimited || has_place(waiter))
        };
        self.next_of(gateway, may).map(WaiterTurn)
    }

    /// The request whose turn it is.
    pub fn waiter(&self, turn: &WaiterTurn) -> &Waiter<T> {
        let (policy, key, at) = turn.0;
        &self.policies[policy].keys[key].waiters[at]
    }

    /// Takes the request out of the queue whose turn it is, with a place of the gateway if it needs one; the place of a
    /// deployment is the caller's to take.
    pub fn grant_turn(&mut self, turn: WaiterTurn, gateway: &mut Places, now: Instant) -> Waiter<T> {
        let WaiterTurn(position) = turn;
        let pass = self.pass_of(&self.policies[position.0]);
        // A turn that came early, because its policy held least, takes nobody else back.
        self.pass = self.pass.max(pass);
        let policy = &mut self.policies[position.0];
        policy.pass = pass + policy.stride();
        let key = &mut policy.keys[position.1];
        policy.key_pass = policy.key_pass.max(key.pass);
        key.pass += 1;
        let waiter = self.remove(position);
        if waiter.request.needs_gateway(gateway) {
            gateway.take(waiter.request.holder, now);
        }
        waiter
    }

    /// Takes a request out that no longer waits; `None` where it was granted a place, or refused, meanwhile.
    pub fn withdraw(&mut self, id: WaiterId, holder: PlaceHolder) -> Option<Waiter<T>> {
        let policy = self.policies.iter().position(|policy| policy.policy == holder.policy)?;
        let key = self.policies[policy].keys.iter().position(|key| key.key == holder.key)?;
        let at = self.policies[policy].keys[key].waiters.iter().position(|waiter| waiter.id == id)?;
        Some(self.remove((policy, key, at)))
    }

    /// Every waiting request, in no order.
    pub fn waiters(&self) -> impl Iterator<Item = &Waiter<T>> {
        self.policies.iter().flat_map(|policy| &policy.keys).flat_map(|key| &key.waiters)
    }

    /// Whose turn it is at a deployment.
    fn turn(&self, id: PlacesId, places: &Places, gateway: &Places, now: Instant) -> Option<WaiterTurn> {
        let full = [places.is_full(true, now), places.is_full(false, now)];
        let may = |waiter: &Waiter<T>, reserved_only: bool| {
            let holder = waiter.request.holder;
            let free = match holder.reserved {
                true => !full[0],
                false => !full[1] && !reserved_only && !gateway.is_full_to(holder, now),
            };
            free && waiter.request.until > now && waiter.request.usable.contains(&id)
        };
        let first = places.puts_reserved_first().then(|| self.next_of(places, |waiter| may(waiter, true))).flatten();
        first.or_else(|| self.next_of(places, |waiter| may(waiter, false))).map(WaiterTurn)
    }

    /// Of those that `may`: one of the policy that holds least for its priority, and of its key that holds least.
    fn next_of(&self, places: &Places, may: impl Fn(&Waiter<T>) -> bool) -> Option<Position> {
        let of_key = |key: &KeyQueue<T>| key.waiters.iter().position(&may);
        let of_policy = |policy: &PolicyQueue<T>| {
            let keys = policy.keys.iter().enumerate();
            let heads = keys.filter_map(|(index, key)| {
                let at = of_key(key)?;
                Some(((places.of_key(key.key), key.pass, key.waiters[at].id), index, at))
            });
            heads.min_by_key(|(order, ..)| *order)
        };
        let heads = self.policies.iter().enumerate().filter_map(|(index, policy)| {
            let (order, key, at) = of_policy(policy)?;
            Some((index, policy, places.of_policy(policy.policy), order.2, (index, key, at)))
        });
        let next = heads.min_by(|one, other| {
            let share = |policy: &PolicyQueue<T>, held: u32| u64::from(held) * u64::from(policy.priority.max(1));
            // held ÷ priority, multiplied by both priorities.
            let held = share(other.1, one.2).cmp(&share(one.1, other.2));
            held.then(self.pass_of(one.1).cmp(&self.pass_of(other.1))).then(one.3.cmp(&other.3))
        });
        next.map(|(.., position)| position)
    }

    /// The pass of `policy`: one turn that it could not have, because the gateway was full to it, is kept for it, and no more.
    fn pass_of(&self, policy: &PolicyQueue<T>) -> u64 {
        policy.pass.max(self.pass.saturating_sub(policy.stride()))
    }

    fn push(&mut self, request: PlaceRequest, payload: T) -> WaiterId {
        let id = WaiterId(self.next);
        self.next += 1;
        self.waiting += 1;
        let holder = request.holder;
        let at = self.policies.iter().position(|policy| policy.policy == holder.policy);
        let at = at.unwrap_or_else(|| {
            let (pass, priority) = (self.pass, holder.priority);
            self.policies.push(PolicyQueue { policy: holder.policy, priority, pass, keys: Vec::new(), key_pass: 0 });
            self.policies.len() - 1
        });
        let policy = &mut self.policies[at];
        policy.priority = holder.priority;
        if policy.keys.is_empty() {
            // Turns that it did not want are not kept for it.
            policy.pass = policy.pass.max(self.pass);
        }
        let waiter = Waiter { id, request, payload };
        match policy.keys.iter_mut().find(|key| key.key == holder.key) {
            Some(key) => key.waiters.push_back(waiter),
            None => {
                let key = KeyQueue { key: holder.key, pass: policy.key_pass, waiters: VecDeque::from([waiter]) };
                policy.keys.push(key);
            }
        }
        id
    }

    fn remove(&mut self, (policy, key, at): Position) -> Waiter<T> {
        let keys = &mut self.policies[policy].keys;
        let waiter = keys[key].waiters.remove(at).expect("a position is of one that waits");
        if keys[key].waiters.is_empty() {
            keys.swap_remove(key);
        }
        self.waiting -= 1;
        waiter
    }
}

#[cfg(test)]
mod tests {
    use super::super::places::PlaceLimits;
    use super::*;
    use std::time::Duration;

    const PLACE: PlacesId = PlacesId(1);
    const PRO: (u32, u32) = (1, 8);
    const STANDARD: (u32, u32) = (2, 1);
    const MANY: f64 = 1e6;

    /// One deployment whose places are all taken, and those who wait for it, named by what they came with.
    struct Full {
        queue: WaitQueue<&'static str>,
        places: Places,
        gateway: Places,
        now: Instant,
    }

    impl Full {
        /// `held`: the policy's number and the key's of each place.
        fn of(held: &[(u32, u32)], lends: bool) -> Self {
            let (mut places, now) = (Places::default(), Instant::now());
            places.set_limits(PlaceLimits { most: Some(held.len() as u32), lends, floors: false });
            held.iter().for_each(|(policy, key)| places.take(holder(*policy, *key, false), now));
            Self { queue: WaitQueue::default(), places, gateway: Places::default(), now }
        }

        fn comes(&mut self, (policy, priority): (u32, u32), key: u32, name: &'static str, expected: f64) -> String {
            self.request(priority, holder(policy, key, false), name, (expected, expected))
        }

        fn request(
            &mut self,
            priority: u32,
            holder: PlaceHolder,
            name: &'static str,
            (in_queue_wait, in_own_time): (f64, f64),
        ) -> String {
            let until = self.now + Duration::from_secs(1);
            let at_gateway = !holder.reserved && self.gateway.is_full(false, self.now);
            let holder = PlaceHolder { priority, ..holder };
            let request = PlaceRequest { holder, usable: [PLACE].into(), unlimited: false, at_gateway, until };
            match self.queue.arrive(request, name, ExpectedPlaces { in_queue_wait, in_own_time }) {
                WaitDecision::Waits(_, None) => "waits".into(),
                WaitDecision::Waits(_, Some(shed)) => format!("waits, not {}", shed.payload),
                WaitDecision::Refused(name, why) => format!("{name} {why:?}"),
            }
        }

        /// Each place that is held becomes free, the first one first; who gets them.
        fn frees(&mut self, held: &[(u32, u32)]) -> Vec<&'static str> {
            let mut granted = Vec::new();
            for (policy, key) in held {
                self.places.give_back(holder(*policy, *key, false), self.now);
                while let Some(waiter) = self.queue.grant(PLACE, &mut self.places, &mut self.gateway, self.now) {
                    granted.push(waiter.payload);
                }
            }
            granted
        }
    }

    fn holder(policy: u32, key: u32, reserved: bool) -> PlaceHolder {
        PlaceHolder { policy: PolicyId(policy), key: KeyId(key), priority: 1, reserved }
    }

    #[test]
    fn places_are_shared_by_priority_as_they_become_free() {
        let held = [(STANDARD.0, 1); 9];
        let mut full = Full::of(&held, false);
        for _ in 0..9 {
            full.comes(STANDARD, 1, "standard", MANY);
            full.comes(PRO, 2, "pro", MANY);
        }
        let granted = full.frees(&held);
        assert_eq!(granted.iter().filter(|name| **name == "pro").count(), 8, "{granted:?}");
        assert_eq!(full.places.of_policy(PolicyId(STANDARD.0)), 1);
    }

    #[test]
    fn a_single_place_is_taken_in_turns_by_priority() {
        let mut full = Full::of(&[(3, 9)], false);
        for _ in 0..20 {
            full.comes(STANDARD, 1, "s", MANY);
            full.comes(PRO, 2, "p", MANY);
        }
        let mut turns = full.frees(&[(3, 9)]).concat();
        for _ in 0..18 {
            let last = if turns.ends_with('p') { (PRO.0, 2) } else { (STANDARD.0, 1) };
            turns += full.frees(&[last])[0];
        }
        assert_eq!(turns, "spppppppp".repeat(2) + "s");
    }

    #[test]
    fn inside_a_policy_the_key_that_holds_least_is_next() {
        let held = [(STANDARD.0, 1), (STANDARD.0, 1)];
        let mut full = Full::of(&held, false);
        for name in ["greedy 1", "greedy 2", "greedy 3"] {
            full.comes(STANDARD, 1, name, MANY);
        }
        full.comes(STANDARD, 2, "other 1", MANY);
        full.comes(STANDARD, 2, "other 2", MANY);
        assert_eq!(full.frees(&held), ["other 1", "greedy 1"], "one place each");
    }

    #[test]
    fn the_lowest_priority_is_shed_first_and_in_it_the_newest_of_the_key_that_waits_most() {
        let mut full = Full::of(&[(3, 9)], false);
        assert_eq!(full.comes(STANDARD, 1, "a1", 4.0), "waits");
        assert_eq!(full.comes(STANDARD, 1, "a2", 4.0), "waits");
        assert_eq!(full.comes(STANDARD, 1, "a3", 4.0), "waits");
        assert_eq!(full.comes(STANDARD, 2, "b1", 4.0), "waits");
        assert_eq!(full.comes(STANDARD, 1, "a4", 4.0), "a4 Full");
        assert_eq!(full.comes(STANDARD, 2, "b2", 4.0), "waits, not a3", "the key that waits most");
        assert_eq!(full.comes(STANDARD, 2, "b3", 4.0), "b3 Full", "as many as the other");
        assert_eq!(full.comes(PRO, 3, "p1", 4.0), "waits", "the first of a policy always");
        assert_eq!(full.comes(PRO, 3, "p2", 4.0), "waits, not b2");
        assert_eq!(full.comes(PRO, 3, "p3", 4.0), "waits, not a2");
        assert_eq!(full.comes(PRO, 3, "p4", 4.0), "waits, not b1");
        assert_eq!(full.comes(PRO, 3, "p5", 4.0), "p5 Full", "the oldest of a policy stays");
        assert_eq!(full.queue.waiting(), 5);
    }

    #[test]
    fn who_cannot_be_served_in_time_is_refused_at_once() {
        let mut full = Full::of(&[(3, 9)], false);
        assert_eq!(full.comes(STANDARD, 1, "first", 0.1), "waits", "it may have luck");
        assert_eq!(full.comes(STANDARD, 1, "second", 0.1), "second Full");
        assert_eq!(full.request(1, holder(STANDARD.0, 1, false), "hurried", (100.0, 1.5)), "hurried OwnTime");
        assert_eq!(full.request(1, holder(STANDARD.0, 2, false), "patient", (100.0, 2.0)), "waits");
        // Behind eight turns of the other policy for each of its own.
        for _ in 0..40 {
            full.comes(PRO, 3, "pro", MANY);
        }
        assert_eq!(full.comes(STANDARD, 2, "late", 26.0), "late Full");
    }

    #[test]
    fn a_request_waits_no_longer_than_it_may_and_leaves() {
        let mut full = Full::of(&[(3, 9)], false);
        full.comes(STANDARD, 1, "late", MANY);
        full.now += Duration::from_secs(1);
        full.comes(STANDARD, 2, "in time", MANY);
        assert_eq!(full.frees(&[(3, 9)]), ["in time"]);
        let waiter = full.queue.waiters().next().expect("one is left").id;
        let left = full.queue.withdraw(waiter, holder(STANDARD.0, 1, false));
        assert_eq!(left.map(|waiter| waiter.payload), Some("late"));
        assert!(full.queue.withdraw(waiter, holder(STANDARD.0, 1, false)).is_none());
        assert_eq!(full.queue.waiting(), 0);
    }

    #[test]
    fn what_is_lent_comes_back_to_reserved_requests_first() {
        let held = [(STANDARD.0, 1), (STANDARD.0, 1)];
        let mut full = Full::of(&held, true);
        full.comes(STANDARD, 1, "shared", MANY);
        full.request(1, holder(PRO.0, 2, true), "reserved", (MANY, MANY));
        assert_eq!(full.frees(&held[..1]), ["reserved"]);
        assert_eq!(full.frees(&held[1..]), ["shared"], "one is kept for reserved requests, and it is in use");
    }

    /// A deployment with places to spare behind a gateway that has none.
    fn full_gateway(held: &[(u32, u32)], of_deployment: u32) -> Full {
        let mut full = Full::of(held, false);
        full.gateway = std::mem::take(&mut full.places);
        full.places.set_limits(PlaceLimits { most: Some(of_deployment), lends: false, floors: false });
        held.iter().for_each(|(policy, key)| full.places.take(holder(*policy, *key, false), full.now));
        full
    }

    impl Full {
        /// The requests of `held` end, the first one first, each at its deployment and then at the gateway; who is next.
        fn ends(&mut self, held: &[(u32, u32)]) -> Vec<&'static str> {
            let mut granted = Vec::new();
            for (policy, key) in held {
                granted.extend(self.frees(&[(*policy, *key)]));
                self.gateway.give_back(holder(*policy, *key, false), self.now);
                while let Some(turn) = self.turn_at_gateway() {
                    self.places.take(self.queue.waiter(&turn).request.holder, self.now);
                    granted.push(self.queue.grant_turn(turn, &mut self.gateway, self.now).payload);
                }
            }
            granted
        }

        fn turn_at_gateway(&self) -> Option<WaiterTurn> {
            self.queue.turn_at_gateway(&self.gateway, self.now, |_| !self.places.is_full(false, self.now))
        }
    }

    #[test]
    fn places_of_the_gateway_are_shared_by_the_same_rules() {
        let held = [(STANDARD.0, 1); 9];
        let mut full = full_gateway(&held, 100);
        for _ in 0..9 {
            full.comes(STANDARD, 1, "standard", MANY);
            full.comes(PRO, 2, "pro", MANY);
        }
        let granted = full.ends(&held);
        assert_eq!(granted.iter().filter(|name| **name == "pro").count(), 8, "{granted:?}");
        assert_eq!(full.gateway.of_policy(PolicyId(PRO.0)), 8);
        assert_eq!(full.comes(STANDARD, 2, "other", 9.0), "waits, not standard", "the key that waits most");
    }

    #[test]
    fn a_request_waits_for_both_places_and_holds_neither() {
        let held = [(STANDARD.0, 1), (STANDARD.0, 1)];
        let mut full = full_gateway(&held, 2);
        full.comes(STANDARD, 1, "waits", MANY);
        assert!(full.frees(&held[..1]).is_empty(), "the gateway is full");
        full.gateway.give_back(holder(STANDARD.0, 1, false), full.now);
        full.places.take(holder(STANDARD.0, 1, false), full.now);
        assert!(full.turn_at_gateway().is_none(), "the deployment is full");
        assert_eq!(full.frees(&held[..1]), ["waits"]);
        assert!(full.gateway.is_full(false, full.now));
    }

    #[test]
    fn a_reserved_request_needs_no_place_of_the_gateway() {
        let held = [(STANDARD.0, 1)];
        let mut full = full_gateway(&held, 1);
        full.request(1, holder(PRO.0, 2, true), "reserved", (MANY, MANY));
        assert_eq!(full.frees(&held), ["reserved"]);
        assert_eq!(full.gateway.taken(), 1, "the one that it had");
    }
}
