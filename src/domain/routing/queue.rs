//! The weighted fair queue of requests that wait for a place, because every deployment that could serve them is full.
//!
//! It exists so that a burst of one key, or of many with a low priority, costs the others nothing. A place that becomes free
//! is given to the policy that holds least of the deployment, measured against its priority; inside a policy, to the key
//! that holds least. What holds alike takes turns, by stride scheduling. Who cannot be served in time is refused at once:
//! the lowest priority first, and in it the newest request of the key that has most waiting. The oldest request of each
//! policy stays, so that none is starved. Time is handed in; nothing here waits.
//!
//! Start reading in [`WaitQueue::grant`]; who may wait is decided in [`WaitQueue::arrive`].

use super::places::{PlaceHolder, Places};
use crate::domain::id::{KeyId, PlacesId, PolicyId};
use std::collections::VecDeque;
use std::time::Instant;

/// No more requests wait than this, whatever is expected to become free: each holds its body.
pub const MOST_WAITING: usize = 4096;
/// What a turn adds to the pass of a policy with priority 1.
const STRIDE: u64 = 1 << 32;

/// A request that waits for a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlaceRequest {
    /// Whose it is.
    pub holder: PlaceHolder,
    /// The priority of its policy, from 1.
    pub priority: u32,
    /// The deployments that could serve it, all of them full.
    pub usable: Box<[PlacesId]>,
    /// When it no longer waits.
    pub until: Instant,
}

/// How many places are expected to become free, of those that one request could use.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ExpectedPlaces {
    /// Within the longest time that any request waits.
    pub in_queue_wait: f64,
    /// Within the time that this request has.
    pub in_own_time: f64,
}

/// The number of a waiting request, in order of arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WaiterId(pub u64);

/// What became of a request that wants to wait.
#[derive(Debug)]
pub enum WaitDecision<T> {
    /// It waits; where it took the place of another one in the queue, that one is refused.
    Waits(WaiterId, Option<Waiter<T>>),
    /// It cannot be served in time; what it came with is given back.
    Refused(T, ShedReason),
}

/// Why a request is refused as soon as it comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShedReason {
    /// More wait than can be served, and none of them comes behind it.
    Full,
    /// Its own time is too short for its turn.
    OwnTime,
}

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

/// Those who wait for some of the places that one request could use.
struct Competition {
    /// All that do not come behind it whatever they hold.
    all: usize,
    /// Those of its policy, by the same kind of name.
    of_policy: usize,
    /// How many turns the request has to wait for, its own included.
    rank: f64,
}

/// Where a waiting request is: the index of its policy, of its key, and among the key's.
type Position = (usize, usize, usize);

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

    /// Lets `request` wait, unless it cannot be served in time; another one that comes behind it may have to go instead.
    /// The first of a policy may always wait.
    pub fn arrive(&mut self, request: PlaceRequest, payload: T, expected: ExpectedPlaces) -> WaitDecision<T> {
        let competition = self.competition(&request);
        if competition.of_policy == 0 && self.waiting < MOST_WAITING {
            return WaitDecision::Waits(self.push(request, payload), None);
        }
        let over = competition.all as f64 + 1.0 > expected.in_queue_wait || self.waiting >= MOST_WAITING;
        let late = competition.rank > expected.in_queue_wait;
        if over || late {
            return match self.behind(&request, over) {
                Some(position) => {
                    let shed = self.remove(position);
                    WaitDecision::Waits(self.push(request, payload), Some(shed))
                }
                None => WaitDecision::Refused(payload, ShedReason::Full),
            };
        }
        if competition.rank > expected.in_own_time {
            return WaitDecision::Refused(payload, ShedReason::OwnTime);
        }
        WaitDecision::Waits(self.push(request, payload), None)
    }

    /// Gives a free place of the deployment numbered `id` to the request whose turn it is, if there is one for it and any
    /// waits; `places` are the deployment's, and count it as taken afterwards.
    pub fn grant(&mut self, id: PlacesId, places: &mut Places, now: Instant) -> Option<Waiter<T>> {
        let position = self.turn(id, places, now)?;
        let policy = &mut self.policies[position.0];
        // A turn that came early, because its policy held least, takes nobody else back.
        self.pass = self.pass.max(policy.pass);
        policy.pass += STRIDE / u64::from(policy.priority.max(1));
        let key = &mut policy.keys[position.1];
        policy.key_pass = policy.key_pass.max(key.pass);
        key.pass += 1;
        let waiter = self.remove(position);
        places.take(waiter.request.holder, now);
        Some(waiter)
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
    fn turn(&self, id: PlacesId, places: &Places, now: Instant) -> Option<Position> {
        let free = [places.is_full(true, now), places.is_full(false, now)].map(|full| !full);
        let may = |waiter: &Waiter<T>, reserved_only: bool| {
            let reserved = waiter.request.holder.reserved;
            let free = if reserved { free[0] } else { free[1] && !reserved_only };
            free && waiter.request.until > now && waiter.request.usable.contains(&id)
        };
        let first = places.puts_reserved_first().then(|| self.next_of(places, |waiter| may(waiter, true))).flatten();
        first.or_else(|| self.next_of(places, |waiter| may(waiter, false)))
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
            held.then(one.1.pass.cmp(&other.1.pass)).then(one.3.cmp(&other.3))
        });
        next.map(|(.., position)| position)
    }

    /// Of those that come behind `request`, the one to be refused in its place: of the lowest priority, of the key that has
    /// most waiting, the newest. `alike`: of those with its own priority too, unless the newest of them is itself.
    fn behind(&self, request: &PlaceRequest, alike: bool) -> Option<Position> {
        let mut last = None::<((u32, std::cmp::Reverse<usize>, std::cmp::Reverse<WaiterId>), Position)>;
        let mut own_key = 1;
        for (index, policy) in self.policies.iter().enumerate() {
            let count = |key: &KeyQueue<T>| key.waiters.iter().filter(|waiter| waiter.is_like(request)).count();
            let own = policy.policy == request.holder.policy;
            let all: usize = policy.keys.iter().map(count).sum::<usize>() + usize::from(own);
            let lower = policy.priority < request.priority || (alike && policy.priority == request.priority);
            for (at, key) in policy.keys.iter().enumerate() {
                let waiting = count(key);
                if own && key.key == request.holder.key {
                    own_key += waiting;
                } else if lower && all > 1 && waiting > 0 {
                    let newest = key.waiters.iter().rposition(|waiter| waiter.is_like(request)).unwrap_or_default();
                    let order =
                        (policy.priority, std::cmp::Reverse(waiting), std::cmp::Reverse(key.waiters[newest].id));
                    if last.as_ref().is_none_or(|(known, _)| order < *known) {
                        last = Some((order, (index, at, newest)));
                    }
                }
            }
        }
        let ((priority, std::cmp::Reverse(waiting), _), position) = last?;
        // Among those of its own priority it is the newest, and goes itself where its key has as many.
        (priority < request.priority || waiting > own_key).then_some(position)
    }

    fn competition(&self, request: &PlaceRequest) -> Competition {
        let (mut all, mut of_policy, mut of_key, mut keys, mut priorities) = (0, 0, 0, 1, f64::from(request.priority));
        // A request by a plain name comes behind all by `Pro/` names; they do not wait for it.
        let first = self.waiters().filter(|waiter| waiter.competes(request) && !waiter.is_like(request)).count();
        let first = if request.holder.reserved { 0 } else { first };
        for policy in &self.policies {
            let own = policy.policy == request.holder.policy;
            let mut waiting = 0;
            for key in &policy.keys {
                let count = key.waiters.iter().filter(|waiter| waiter.is_like(request)).count();
                waiting += count;
                match own && key.key == request.holder.key {
                    true => of_key = count,
                    false if own && count > 0 => keys += 1,
                    false => {}
                }
            }
            all += waiting;
            match own {
                true => of_policy = waiting,
                false if waiting > 0 => priorities += f64::from(policy.priority),
                false => {}
            }
        }
        let in_policy = (of_policy + 1).min((of_key + 1) * keys) as f64;
        let rank = (in_policy * priorities / f64::from(request.priority.max(1))).min(all as f64 + 1.0);
        Competition { all: all + first, of_policy, rank: rank + first as f64 }
    }

    fn push(&mut self, request: PlaceRequest, payload: T) -> WaiterId {
        let id = WaiterId(self.next);
        self.next += 1;
        self.waiting += 1;
        let holder = request.holder;
        let at = self.policies.iter().position(|policy| policy.policy == holder.policy);
        let at = at.unwrap_or_else(|| {
            let (pass, priority) = (self.pass, request.priority);
            self.policies.push(PolicyQueue { policy: holder.policy, priority, pass, keys: Vec::new(), key_pass: 0 });
            self.policies.len() - 1
        });
        let policy = &mut self.policies[at];
        policy.priority = request.priority;
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

impl<T> Waiter<T> {
    /// Whether it waits for some place that `request` could use.
    fn competes(&self, request: &PlaceRequest) -> bool {
        self.request.usable.iter().any(|id| request.usable.contains(id))
    }

    /// The same, by the same kind of name: only one of those is refused in favour of `request`.
    fn is_like(&self, request: &PlaceRequest) -> bool {
        self.request.holder.reserved == request.holder.reserved && self.competes(request)
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
        now: Instant,
    }

    impl Full {
        /// `held`: the policy's number and the key's of each place.
        fn of(held: &[(u32, u32)], lends: bool) -> Self {
            let (mut places, now) = (Places::default(), Instant::now());
            places.set_limits(PlaceLimits { most: Some(held.len() as u32), lends });
            held.iter().for_each(|(policy, key)| places.take(holder(*policy, *key, false), now));
            Self { queue: WaitQueue::default(), places, now }
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
            let request = PlaceRequest { holder, priority, usable: [PLACE].into(), until };
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
                while let Some(waiter) = self.queue.grant(PLACE, &mut self.places, self.now) {
                    granted.push(waiter.payload);
                }
            }
            granted
        }
    }

    fn holder(policy: u32, key: u32, reserved: bool) -> PlaceHolder {
        PlaceHolder { policy: PolicyId(policy), key: KeyId(key), reserved }
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
}
