//! The laws of sharing, checked at every step of a burst by a count of its own.
//!
//! Start reading in [`Burst::takes`](super::Burst).

use super::{Burst, GATEWAY, Law, PEAK, PRIORITIES, QUEUE_WAIT, SharedRequest, SharingEvent};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tierway::domain::id::{KeyId, PlacesId, PolicyId};
use tierway::domain::routing::places::{PlaceHolder, PlaceLimits, Places};
use tierway::domain::routing::queue::PlaceRequest;

/// The places of a deployment or of the gateway, and the laws' own count of them.
pub(super) struct CountedPlaces {
    pub(super) places: Places,
    pub(super) limits: PlaceLimits,
    /// How many each holder has, by policy, key and whether it is reserved.
    held: BTreeMap<(u32, u32, bool), u32>,
    /// Each change of how many are reserved.
    reserved: Vec<(Duration, u32)>,
}

impl Burst {
    /// The request has its place, which the deployment's own count has already.
    pub(super) fn takes(&mut self, request: usize, at: usize) {
        let (holder, now) = (self.requests[request].holder, self.now);
        self.requests[request].place = Some(at);
        self.events.push(Reverse((now + self.requests[request].holds, SharingEvent::End(request))));
        self.note(request * 8 + at);
        if self.needs_gateway(holder) {
            let below_floor = self.gateway.is_below_floor(holder);
            self.gateway.counts(now, holder, 1);
            let (lent, most) = (self.gateway.lent(), self.gateway.limits.most.expect("it is limited"));
            if lent > most && !below_floor {
                self.breaks(Law::InFlight, format!("{lent} are in flight, {most} may be"));
            }
        }
        let deployment = &mut self.deployments[at];
        deployment.counts(now, holder, 1);
        let (taken, lent) = (deployment.held.values().sum::<u32>(), deployment.lent());
        let most = deployment.limits.most.expect("all are limited");
        let kept = deployment.recent_peak(now).max(1);
        if taken > most {
            self.breaks(Law::ReservationFloor, format!("{taken} of {most} places are taken"));
        }
        if self.deployments[at].limits.lends && !holder.reserved && lent + kept > most {
            self.breaks(Law::ReservationFloor, format!("{lent} of {most} are lent, {kept} were in use"));
        }
    }

    /// Called before it is counted; `of`: what the place is of that became free, the deployment `at` or the gateway.
    pub(super) fn is_granted_lawfully(&mut self, request: usize, at: usize, of: usize) {
        let SharedRequest { holder, at: arrived, own_time, .. } = &self.requests[request];
        let (holder, until) = (*holder, *arrived + QUEUE_WAIT.min(*own_time));
        if self.now >= until {
            self.breaks(Law::Deadline, format!("request {request} was to wait until {until:?}"));
        }
        let lends = self.deployments[at].limits.lends;
        let others: Vec<PlaceHolder> = self.waiting_for_what_was_free(at, of, holder);
        if lends && !holder.reserved && others.iter().any(|other| other.reserved) {
            self.breaks(Law::ReservationFloor, format!("request {request} came before a reserved one"));
        }
        let shared = self.counted(of);
        let share = |holder: PlaceHolder| f64::from(shared.of_policy(holder.policy)) / priority_of(holder);
        let alike = lends || of == GATEWAY;
        let rivals = others.iter().copied().filter(|other| !alike || other.reserved == holder.reserved);
        let rivals: Vec<PlaceHolder> = rivals.collect();
        let less = rivals.iter().find(|other| match other.policy == holder.policy {
            true => shared.of_key(other.key) < shared.of_key(holder.key),
            false => share(**other) + 1e-9 < share(holder),
        });
        if let Some(less) = less.copied() {
            self.breaks(Law::FairShare, format!("{less:?} holds less than {holder:?} of {of}"));
        }
        self.is_no_other_starved(holder, &rivals, of);
    }

    /// A policy that holds nothing is not passed over more often than its priority explains.
    fn is_no_other_starved(&mut self, holder: PlaceHolder, rivals: &[PlaceHolder], at: usize) {
        // A turn anywhere is a turn: the deployments share one queue.
        self.passed.retain(|(_, policy), _| *policy != holder.policy.0);
        let policies: BTreeSet<u32> =
            rivals.iter().map(|other| other.policy.0).filter(|p| *p != holder.policy.0).collect();
        self.passed.retain(|(of, policy), _| *of != at || policies.contains(policy));
        for policy in policies {
            if self.counted(at).of_policy(PolicyId(policy)) > 0 {
                self.passed.remove(&(at, policy));
                continue;
            }
            let passed = self.passed.entry((at, policy)).or_default();
            *passed += 1;
            let turns = PRIORITIES.iter().sum::<u32>() / PRIORITIES[policy as usize] + PRIORITIES.len() as u32 + 1;
            if *passed > turns {
                self.breaks(Law::NoStarvation, format!("policy {policy} was passed over {turns} times at {at}"));
            }
        }
    }

    /// Who else could have had the places that `holder` was given, one of the deployment `at` and perhaps one of the
    /// gateway.
    fn waiting_for_what_was_free(&self, at: usize, of: usize, holder: PlaceHolder) -> Vec<PlaceHolder> {
        let now = self.instant();
        let (mut places, mut gateway) = (self.deployments[at].places.clone(), self.gateway.places.clone());
        places.give_back(holder, now);
        if self.needs_gateway(holder) {
            gateway.give_back(holder, now);
        }
        let may = |request: &PlaceRequest| {
            let reserved = request.holder.reserved;
            let free = |id: &PlacesId| match id.0 as usize {
                id if id == at => !places.is_full(reserved, now),
                id => of == GATEWAY && !self.deployments[id].places.is_full(reserved, now),
            };
            let entered = reserved || !gateway.is_full_to(request.holder, now);
            entered && request.until > now && request.usable.iter().any(free)
        };
        self.queue.waiters().filter(|waiter| may(&waiter.request)).map(|waiter| waiter.request.holder).collect()
    }

    /// `request` is refused when `newcomer` comes.
    pub(super) fn sheds(&mut self, request: usize, newcomer: usize) {
        self.note(request);
        self.shed += 1;
        let (usable, at_gateway) = (self.requests[newcomer].usable.clone(), self.requests[newcomer].at_gateway);
        let mut waiting: BTreeMap<u32, u32> = BTreeMap::new();
        let reserved = self.requests[newcomer].holder.reserved;
        let alike = |request: &PlaceRequest| request.holder.reserved == reserved;
        let meets = |request: &PlaceRequest| request.usable.iter().any(|id| usable.contains(id));
        let competes =
            |request: &PlaceRequest| alike(request) && (meets(request) || (at_gateway && request.at_gateway));
        for waiter in self.queue.waiters().filter(|waiter| competes(&waiter.request)) {
            *waiting.entry(waiter.request.holder.policy.0).or_default() += 1;
        }
        let priority = PRIORITIES[self.requests[request].holder.policy.0 as usize];
        let lower = waiting.iter().find(|(policy, count)| PRIORITIES[**policy as usize] < priority && **count > 1);
        if let Some((policy, count)) = lower {
            self.breaks(Law::ShedOrder, format!("{count} of policy {policy} wait, and {priority} was refused"));
        }
        if !waiting.contains_key(&self.requests[request].holder.policy.0) {
            self.breaks(Law::ShedOrder, format!("request {request} was the only one of its policy"));
        }
    }

    pub(super) fn no_place_is_free_in_vain(&mut self) {
        for at in 0..self.deployments.len() {
            if let Some(request) = self.waiting_for(at).first() {
                self.breaks(Law::WorkConserving, format!("request {request} waits for a place of {at} that is free"));
            }
        }
    }
}

impl CountedPlaces {
    /// Places within `limits`, which lend as `lends` says.
    pub(super) fn of(limits: PlaceLimits, lends: bool) -> Self {
        let mut places = Places::default();
        places.set_limits(PlaceLimits { lends, ..limits });
        Self { places, limits, held: BTreeMap::new(), reserved: Vec::new() }
    }

    pub(super) fn counts(&mut self, now: Duration, holder: PlaceHolder, change: i32) {
        let held = self.held.entry((holder.policy.0, holder.key.0, holder.reserved)).or_default();
        *held = held.checked_add_signed(change).expect("nobody holds less than nothing");
        let reserved = self.sum(|(.., reserved)| reserved);
        self.reserved.push((now, reserved));
    }

    fn sum(&self, of: impl Fn((u32, u32, bool)) -> bool) -> u32 {
        self.held.iter().filter(|(holder, _)| of(**holder)).map(|(_, held)| held).sum()
    }

    /// Whether the policy of `holder` holds less than its share of the places by priority, or none.
    pub(super) fn is_below_floor(&self, holder: PlaceHolder) -> bool {
        let Some(most) = self.limits.most.filter(|_| self.limits.floors) else { return false };
        let mut sharing: BTreeSet<u32> =
            self.held.iter().filter(|(_, held)| **held > 0).map(|((of, ..), _)| *of).collect();
        sharing.insert(holder.policy.0);
        let all: f64 = sharing.iter().map(|policy| f64::from(PRIORITIES[*policy as usize])).sum();
        let own = self.of_policy(holder.policy);
        own == 0 || f64::from(own) + 1.0 <= f64::from(most) * priority_of(holder) / all + 1e-9
    }

    pub(super) fn lent(&self) -> u32 {
        self.sum(|(.., reserved)| !reserved)
    }

    pub(super) fn of_policy(&self, policy: PolicyId) -> u32 {
        self.sum(|(of, ..)| of == policy.0)
    }

    pub(super) fn of_key(&self, key: KeyId) -> u32 {
        self.sum(|(_, of, _)| of == key.0)
    }

    /// The most reserved places at once within a minute before `now`.
    fn recent_peak(&self, now: Duration) -> u32 {
        let since = now.saturating_sub(PEAK);
        let before = self.reserved.iter().rev().find(|(at, _)| *at < since).map_or(0, |(_, count)| *count);
        self.reserved.iter().filter(|(at, _)| *at >= since).map(|(_, count)| *count).max().unwrap_or(0).max(before)
    }
}

fn priority_of(holder: PlaceHolder) -> f64 {
    f64::from(PRIORITIES[holder.policy.0 as usize])
}
