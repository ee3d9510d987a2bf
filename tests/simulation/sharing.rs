//! Bursts on full deployments for each seed: the real places and wait queue, under a clock that advances from event to
//! event, and the laws of sharing. Each law is shown to catch a mutant.
//!
//! Start reading in [`Burst::run`]; the laws are in [`Law`].

use crate::world::SimRng;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::{Duration, Instant};
use tierway::clock::Clock;
use tierway::domain::id::{KeyId, PlacesId, PolicyId};
use tierway::domain::routing::places::{PlaceHolder, PlaceLimits, Places};
use tierway::domain::routing::queue::{ExpectedPlaces, PlaceRequest, ShedReason, WaitDecision, WaitQueue, WaiterId};

const BURSTS: u64 = 1_500;
const MUTANT_BURSTS: u64 = 300;
const QUEUE_WAIT: Duration = Duration::from_secs(1);
const PEAK: Duration = Duration::from_secs(60);
/// Policies by number from 0: their priorities.
const PRIORITIES: [u32; 4] = [1, 1, 2, 8];

/// What holds at every step.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Law {
    /// Others never have what `Pro/` requests held lately, nor a place while one of those waits for it.
    ReservationFloor,
    /// Nobody is refused for want of places while several of a lower priority wait.
    ShedOrder,
    /// Nobody is given a place after its time to wait, which is never longer than `QUEUE_WAIT`.
    Deadline,
    /// A place goes to the policy that holds least for its priority, and in it to the key that holds least.
    FairShare,
    /// A policy that holds nothing has its turn.
    NoStarvation,
    /// No place is free while somebody waits who could have it.
    WorkConserving,
}

/// One wrong decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SharingMutant {
    LendsTheFloor,
    ShedsWhoeverComes,
    GrantsTheLate,
    FirstComeFirstServed,
    PrefersPriorityInATie,
    LeavesPlacesFree,
}

const MUTANTS: [(SharingMutant, Law); 6] = [
    (SharingMutant::LendsTheFloor, Law::ReservationFloor),
    (SharingMutant::ShedsWhoeverComes, Law::ShedOrder),
    (SharingMutant::GrantsTheLate, Law::Deadline),
    (SharingMutant::FirstComeFirstServed, Law::FairShare),
    (SharingMutant::PrefersPriorityInATie, Law::NoStarvation),
    (SharingMutant::LeavesPlacesFree, Law::WorkConserving),
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum SharingEvent {
    /// The attempt with this number ends.
    End(usize),
    /// The time of a waiting request is over, or its client leaves.
    Expire(usize),
    Arrive(usize),
}

struct SharedRequest {
    holder: PlaceHolder,
    usable: Box<[PlacesId]>,
    at: Duration,
    own_time: Duration,
    holds: Duration,
    waiter: Option<WaiterId>,
    place: Option<usize>,
}

struct Deployment {
    places: Places,
    limits: PlaceLimits,
    /// As the laws count: how many each holder has, by policy, key and whether it is reserved.
    held: BTreeMap<(u32, u32, bool), u32>,
    /// Each change of how many are reserved.
    reserved: Vec<(Duration, u32)>,
}

struct Burst {
    start: Instant,
    now: Duration,
    requests: Vec<SharedRequest>,
    deployments: Vec<Deployment>,
    queue: WaitQueue<usize>,
    events: BinaryHeap<Reverse<(Duration, SharingEvent)>>,
    /// By deployment and policy: how often it was passed over while it held nothing and waited.
    passed: BTreeMap<(usize, u32), u32>,
    broken: BTreeMap<Law, String>,
    waited: usize,
    shed: usize,
    trace: u64,
    mutant: Option<SharingMutant>,
}

impl Burst {
    fn of(seed: u64, mutant: Option<SharingMutant>) -> Self {
        let mut rng = SimRng::seeded(seed);
        // Places are held for so short a time that many turns pass within a request's wait.
        let busy = rng.random(20);
        let deployments: Vec<Deployment> = (0..1 + rng.below(3))
            .map(|_| {
                let most = if busy { 1 } else { 1 + rng.below(10) as u32 };
                let limits = PlaceLimits { most: Some(most), lends: !busy && rng.random(40) };
                let mut places = Places::default();
                let lends = limits.lends && mutant != Some(SharingMutant::LendsTheFloor);
                places.set_limits(PlaceLimits { lends, ..limits });
                Deployment { places, limits, held: BTreeMap::new(), reserved: Vec::new() }
            })
            .collect();
        let (policies, spread) = (1 + rng.below(4), if busy { 600 } else { 200 + rng.below(90_000) });
        let spread = Duration::from_millis(spread);
        let requests = (0..40 + rng.below(160)).map(|_| {
            let policy = rng.below(policies) as u32;
            let key = policy * 10 + rng.pick(&[0, 0, 0, 1, 2]);
            let chosen = rng.below(deployments.len() as u64) as usize;
            let reserved = deployments[chosen].limits.lends && rng.random(30);
            let all = (0..deployments.len()).filter(|at| *at == chosen || (!reserved && rng.random(40)));
            SharedRequest {
                usable: all.map(|at| PlacesId(at as u32)).collect(),
                holder: PlaceHolder { policy: PolicyId(policy), key: KeyId(key), reserved },
                at: if busy { spread.mul_f64(rng.draw().unit()) } else { rng.spread(Duration::from_millis(1), spread) },
                own_time: rng.pick(&[50, 300, 5_000, 5_000].map(Duration::from_millis)),
                holds: rng.spread(Duration::from_millis(5), Duration::from_millis(if busy { 20 } else { 4_000 })),
                waiter: None,
                place: None,
            }
        });
        let requests: Vec<SharedRequest> = requests.collect();
        let arrivals = requests.iter().enumerate();
        let events = arrivals.map(|(at, request)| Reverse((request.at, SharingEvent::Arrive(at)))).collect();
        Self {
            start: Clock.now(),
            now: Duration::ZERO,
            requests,
            deployments,
            queue: WaitQueue::default(),
            events,
            passed: BTreeMap::new(),
            broken: BTreeMap::new(),
            waited: 0,
            shed: 0,
            trace: seed,
            mutant,
        }
    }

    fn run(mut self) -> Self {
        while let Some(Reverse((at, event))) = self.events.pop() {
            self.now = at;
            match event {
                SharingEvent::Arrive(request) => self.arrive(request),
                SharingEvent::End(request) => self.end(request),
                SharingEvent::Expire(request) => self.withdraw(request),
            }
            self.no_place_is_free_in_vain();
        }
        self
    }

    fn instant(&self) -> Instant {
        self.start + self.now
    }

    fn breaks(&mut self, law: Law, what: String) {
        let at = self.now;
        self.broken.entry(law).or_insert_with(|| format!("{at:?}: {what}"));
    }

    fn note(&mut self, what: usize) {
        self.trace = (self.trace ^ what as u64 ^ self.now.as_nanos() as u64).wrapping_mul(0x0100_0000_01b3);
    }

    fn arrive(&mut self, request: usize) {
        let (now, holder) = (self.instant(), self.requests[request].holder);
        let usable = self.requests[request].usable.clone();
        let free = usable.iter().find(|id| !self.deployments[id.0 as usize].places.is_full(holder.reserved, now));
        if let Some(free) = free.copied() {
            self.deployments[free.0 as usize].places.take(holder, now);
            self.takes(request, free.0 as usize);
            return;
        }
        let patience = QUEUE_WAIT.min(self.requests[request].own_time);
        let freed = |span| usable.iter().map(|id| self.deployments[id.0 as usize].places.freed_within(span)).sum();
        let expected = ExpectedPlaces { in_queue_wait: freed(QUEUE_WAIT), in_own_time: freed(patience) };
        let priority = PRIORITIES[holder.policy.0 as usize];
        let asked = PlaceRequest { holder, priority, usable: usable.clone(), until: now + patience };
        match self.queue.arrive(asked, request, expected) {
            WaitDecision::Refused(_, ShedReason::OwnTime) => self.note(request),
            WaitDecision::Refused(_, ShedReason::Full) => self.sheds(request, request),
            WaitDecision::Waits(id, shed) => {
                self.requests[request].waiter = Some(id);
                self.waited += 1;
                self.events.push(Reverse((self.now + patience, SharingEvent::Expire(request))));
                if let Some(shed) = shed {
                    self.requests[shed.payload].waiter = None;
                    self.sheds(shed.payload, request);
                    if self.mutant == Some(SharingMutant::ShedsWhoeverComes) {
                        self.queue.withdraw(id, holder);
                        self.requests[request].waiter = None;
                        self.sheds(request, request);
                    }
                }
                usable.iter().for_each(|id| self.hand_on(id.0 as usize));
            }
        }
    }

    fn end(&mut self, request: usize) {
        let now = self.instant();
        let SharedRequest { holder, holds, place, .. } = &mut self.requests[request];
        let (holder, holds, place) = (*holder, *holds, place.take().expect("it held one"));
        let deployment = &mut self.deployments[place];
        deployment.places.give_back(holder, now);
        deployment.places.was_held_for(holds);
        deployment.counts(self.now, holder, -1);
        if self.mutant != Some(SharingMutant::LeavesPlacesFree) || !request.is_multiple_of(3) {
            self.hand_on(place);
        }
    }

    fn withdraw(&mut self, request: usize) {
        let late = self.mutant == Some(SharingMutant::GrantsTheLate);
        if let Some(id) = self.requests[request].waiter.filter(|_| !late) {
            self.requests[request].waiter = None;
            self.queue.withdraw(id, self.requests[request].holder).expect("it waits");
            self.note(request);
        }
    }

    /// Grants what is free at the deployment, as long as anybody waits for it.
    fn hand_on(&mut self, at: usize) {
        while let Some(request) = self.grant(at) {
            self.requests[request].waiter = None;
            self.is_granted_lawfully(request, at);
            self.takes(request, at);
        }
    }

    fn grant(&mut self, at: usize) -> Option<usize> {
        let (id, mut now) = (PlacesId(at as u32), self.instant());
        if self.mutant == Some(SharingMutant::GrantsTheLate) {
            now = now.checked_sub(Duration::from_secs(3))?;
        }
        let wrong = match self.mutant {
            Some(SharingMutant::FirstComeFirstServed) => self.waiting_for(at).min_by_key(|other| self.waiter(*other)),
            Some(SharingMutant::PrefersPriorityInATie) => self.waiting_for(at).min_by_key(|other| {
                let holder = self.requests[*other].holder;
                let priority = PRIORITIES[holder.policy.0 as usize];
                let deployment = &self.deployments[at];
                let held = deployment.of_policy(holder.policy) * 8 / priority;
                (!holder.reserved, held, Reverse(priority), deployment.of_key(holder.key), self.waiter(*other))
            }),
            _ => return Some(self.queue.grant(id, &mut self.deployments[at].places, now)?.payload),
        }?;
        let holder = self.requests[wrong].holder;
        self.queue.withdraw(self.waiter(wrong)?, holder);
        self.deployments[at].places.take(holder, now);
        Some(wrong)
    }

    fn waiter(&self, request: usize) -> Option<WaiterId> {
        self.requests[request].waiter
    }

    /// The requests that could have a place at the deployment now.
    fn waiting_for(&self, at: usize) -> impl Iterator<Item = usize> + use<> {
        let (deployment, now) = (&self.deployments[at], self.instant());
        let may = move |waiting: &&tierway::domain::routing::queue::Waiter<usize>| {
            let request = &waiting.request;
            let free = !deployment.places.is_full(request.holder.reserved, now);
            free && request.until > now && request.usable.contains(&PlacesId(at as u32))
        };
        self.queue.waiters().filter(may).map(|waiting| waiting.payload).collect::<Vec<_>>().into_iter()
    }

    /// The request has its place, which the deployment's own count has already.
    fn takes(&mut self, request: usize, at: usize) {
        let (holder, now) = (self.requests[request].holder, self.now);
        self.requests[request].place = Some(at);
        self.events.push(Reverse((now + self.requests[request].holds, SharingEvent::End(request))));
        self.note(request * 8 + at);
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

    /// Called before it is counted.
    fn is_granted_lawfully(&mut self, request: usize, at: usize) {
        let SharedRequest { holder, at: arrived, own_time, .. } = &self.requests[request];
        let (holder, until) = (*holder, *arrived + QUEUE_WAIT.min(*own_time));
        if self.now >= until {
            self.breaks(Law::Deadline, format!("request {request} was to wait until {until:?}"));
        }
        let lends = self.deployments[at].limits.lends;
        let others: Vec<PlaceHolder> = self.waiting_for_what_was_free(at, holder);
        if lends && !holder.reserved && others.iter().any(|other| other.reserved) {
            self.breaks(Law::ReservationFloor, format!("request {request} came before a reserved one"));
        }
        let deployment = &self.deployments[at];
        let share = |holder: PlaceHolder| f64::from(deployment.of_policy(holder.policy)) / priority_of(holder);
        let rivals = others.iter().copied().filter(|other| !lends || other.reserved == holder.reserved);
        let rivals: Vec<PlaceHolder> = rivals.collect();
        let less = rivals.iter().find(|other| match other.policy == holder.policy {
            true => deployment.of_key(other.key) < deployment.of_key(holder.key),
            false => share(**other) + 1e-9 < share(holder),
        });
        if let Some(less) = less.copied() {
            self.breaks(Law::FairShare, format!("{less:?} holds less than {holder:?} of deployment {at}"));
        }
        // A turn anywhere is a turn: the deployments share one queue.
        self.passed.retain(|(_, policy), _| *policy != holder.policy.0);
        let policies: BTreeSet<u32> =
            rivals.iter().map(|other| other.policy.0).filter(|p| *p != holder.policy.0).collect();
        self.passed.retain(|(of, policy), _| *of != at || policies.contains(policy));
        for policy in policies {
            if self.deployments[at].of_policy(PolicyId(policy)) > 0 {
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

    /// Who else could have had the place that `holder` was given.
    fn waiting_for_what_was_free(&self, at: usize, holder: PlaceHolder) -> Vec<PlaceHolder> {
        let now = self.instant();
        let mut places = self.deployments[at].places.clone();
        places.give_back(holder, now);
        let may = |request: &PlaceRequest| {
            let free = !places.is_full(request.holder.reserved, now);
            free && request.until > now && request.usable.contains(&PlacesId(at as u32))
        };
        self.queue.waiters().filter(|waiter| may(&waiter.request)).map(|waiter| waiter.request.holder).collect()
    }

    /// `request` is refused when `newcomer` comes.
    fn sheds(&mut self, request: usize, newcomer: usize) {
        self.note(request);
        self.shed += 1;
        let usable = self.requests[newcomer].usable.clone();
        let mut waiting: BTreeMap<u32, u32> = BTreeMap::new();
        let reserved = self.requests[newcomer].holder.reserved;
        let alike = |request: &PlaceRequest| request.holder.reserved == reserved;
        let competes = |request: &PlaceRequest| alike(request) && request.usable.iter().any(|id| usable.contains(id));
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

    fn no_place_is_free_in_vain(&mut self) {
        for at in 0..self.deployments.len() {
            if let Some(request) = self.waiting_for(at).next() {
                self.breaks(Law::WorkConserving, format!("request {request} waits for a place of {at} that is free"));
            }
        }
    }
}

impl Deployment {
    fn counts(&mut self, now: Duration, holder: PlaceHolder, change: i32) {
        let held = self.held.entry((holder.policy.0, holder.key.0, holder.reserved)).or_default();
        *held = held.checked_add_signed(change).expect("nobody holds less than nothing");
        let reserved = self.sum(|(.., reserved)| reserved);
        self.reserved.push((now, reserved));
    }

    fn sum(&self, of: impl Fn((u32, u32, bool)) -> bool) -> u32 {
        self.held.iter().filter(|(holder, _)| of(**holder)).map(|(_, held)| held).sum()
    }

    fn lent(&self) -> u32 {
        self.sum(|(.., reserved)| !reserved)
    }

    fn of_policy(&self, policy: PolicyId) -> u32 {
        self.sum(|(of, ..)| of == policy.0)
    }

    fn of_key(&self, key: KeyId) -> u32 {
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

#[test]
fn every_law_of_sharing_holds_in_every_burst() {
    let (mut waited, mut shed) = (0, 0);
    for seed in 0..BURSTS {
        let run = Burst::of(seed, None).run();
        assert!(run.broken.is_empty(), "seed {seed}: {:?}", run.broken);
        assert_eq!(run.queue.waiting(), 0, "seed {seed}");
        assert_eq!(run.trace, Burst::of(seed, None).run().trace, "seed {seed}: the same seed, the same trace");
        (waited, shed) = (waited + run.waited, shed + run.shed);
    }
    println!("{BURSTS} bursts: {waited} requests waited, {shed} were shed");
    assert!(waited > 10 * BURSTS as usize && shed > 10 * BURSTS as usize, "these bursts prove little");
}

#[test]
fn each_law_of_sharing_catches_its_mutant() {
    for (mutant, law) in MUTANTS {
        let caught = (0..MUTANT_BURSTS).filter(|seed| Burst::of(*seed, Some(mutant)).run().broken.contains_key(&law));
        let caught = caught.count();
        println!("{mutant:?} is caught by {law:?} in {caught} of {MUTANT_BURSTS} bursts");
        assert!(caught > 5, "{mutant:?} is not caught by {law:?}: {caught}");
    }
}
