//! Who may wait for a place, and who is refused at once: a request that cannot be served in time is refused when it comes,
//! or another one in favour of it.
//!
//! The lowest priority goes first, and in it the newest request of the key that has most waiting. The oldest request of each
//! policy stays, so that none is starved. What is expected to become free is handed in.
//!
//! Start reading in [`WaitQueue::arrive`].

use super::{KeyQueue, PlaceRequest, Position, WaitQueue, Waiter, WaiterId};

/// No more requests wait than this, whatever is expected to become free: each holds its body.
pub const MOST_WAITING: usize = 4096;

/// How many places are expected to become free, of those that one request could use.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ExpectedPlaces {
    /// Within the longest time that any request waits.
    pub in_queue_wait: f64,
    /// Within the time that this request has.
    pub in_own_time: f64,
}

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

/// Those who wait for some of the places that one request could use.
struct Competition {
    /// All that do not come behind it whatever they hold.
    all: usize,
    /// Those of its policy, by the same kind of name.
    of_policy: usize,
    /// How many turns the request has to wait for, its own included.
    rank: f64,
}

impl<T> WaitQueue<T> {
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

    /// Of those that come behind `request`, the one to be refused in its place: of the lowest priority, of the key that has
    /// most waiting, the newest. `alike`: of those with its own priority too, unless the newest of them is itself.
    fn behind(&self, request: &PlaceRequest, alike: bool) -> Option<Position> {
        let mut last = None::<((u32, std::cmp::Reverse<usize>, std::cmp::Reverse<WaiterId>), Position)>;
        let mut own_key = 1;
        for (index, policy) in self.policies.iter().enumerate() {
            let count = |key: &KeyQueue<T>| key.waiters.iter().filter(|waiter| waiter.is_like(request)).count();
            let own = policy.policy == request.holder.policy;
            let all: usize = policy.keys.iter().map(count).sum::<usize>() + usize::from(own);
            let lower =
                policy.priority < request.holder.priority || (alike && policy.priority == request.holder.priority);
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
        (priority < request.holder.priority || waiting > own_key).then_some(position)
    }

    fn competition(&self, request: &PlaceRequest) -> Competition {
        let (mut all, mut of_policy, mut of_key, mut keys, mut priorities) =
            (0, 0, 0, 1, f64::from(request.holder.priority));
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
        let rank = (in_policy * priorities / f64::from(request.holder.priority.max(1))).min(all as f64 + 1.0);
        Competition { all: all + first, of_policy, rank: rank + first as f64 }
    }
}

impl<T> Waiter<T> {
    /// Whether it waits for some place that `request` could use.
    fn competes(&self, request: &PlaceRequest) -> bool {
        let gateway = self.request.at_gateway && request.at_gateway;
        gateway || self.request.usable.iter().any(|id| request.usable.contains(id))
    }

    /// The same, by the same kind of name: only one of those is refused in favour of `request`.
    fn is_like(&self, request: &PlaceRequest) -> bool {
        self.request.holder.reserved == request.holder.reserved && self.competes(request)
    }
}
