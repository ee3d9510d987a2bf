//! Bursts on full deployments, and on a gateway that has a limit of its own, for each seed: the real places and wait queue,
//! under a clock that advances from event to event, and the laws of sharing. Each law is shown to catch a mutant.
//!
//! Start reading in [`Burst::run`]; the laws are in [`Law`], and checked in `sharing_laws.rs`.

#[path = "sharing_laws.rs"]
mod laws;

use crate::world::SimRng;
use laws::CountedPlaces;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};
use tierway::clock::Clock;
use tierway::domain::id::{KeyId, PlacesId, PolicyId};
use tierway::domain::routing::places::{PlaceHolder, PlaceLimits};
use tierway::domain::routing::queue::{
    ExpectedPlaces, PlaceRequest, ShedReason, WaitDecision, WaitQueue, Waiter, WaiterId,
};

/// With each kind of limit of the gateway.
const BURSTS: u64 = 1_000;
/// So many of so many bursts must catch a mutant by the right law.
const MUTANT_CAUGHT: usize = 6;
const MUTANT_BURSTS: u64 = 1_000;
const QUEUE_WAIT: Duration = Duration::from_secs(1);
const PEAK: Duration = Duration::from_secs(60);
/// Policies by number from 0: their priorities.
const PRIORITIES: [u32; 4] = [1, 1, 2, 8];
/// In place of a deployment's index.
const GATEWAY: usize = usize::MAX;

/// What holds at every step.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Law {
    /// Others never have what `Pro/` requests held lately, nor a place while one of those waits for it; and none of those
    /// waits while its deployment has a place, however full the gateway is.
    ReservationFloor,
    /// No more requests by plain names are in flight than the gateway may have, but for those below a floor of their policy.
    InFlight,
    /// Where policies have floors, no request of one that holds less waits for the gateway.
    PriorityFloor,
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
    HoldsReservedBack,
    IgnoresTheGateway,
    IgnoresTheFloors,
    ShedsWhoeverComes,
    GrantsTheLate,
    FirstComeFirstServed,
    PrefersPriorityInATie,
    LeavesPlacesFree,
}

const MUTANTS: [(SharingMutant, Law); 9] = [
    (SharingMutant::LendsTheFloor, Law::ReservationFloor),
    (SharingMutant::HoldsReservedBack, Law::ReservationFloor),
    (SharingMutant::IgnoresTheGateway, Law::InFlight),
    (SharingMutant::IgnoresTheFloors, Law::PriorityFloor),
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
    /// The gateway has so many places from now on.
    Limit(u32),
}

/// The limit of the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum GatewayLimit {
    Absent,
    /// At times less than its deployments have together.
    Fixed,
    /// The same, changed again and again, with a floor for each policy.
    Moving,
}

impl GatewayLimit {
    const ALL: [Self; 3] = [Self::Absent, Self::Fixed, Self::Moving];
}

struct SharedRequest {
    holder: PlaceHolder,
    usable: Box<[PlacesId]>,
    at: Duration,
    own_time: Duration,
    holds: Duration,
    /// The gateway was full when it came.
    at_gateway: bool,
    waiter: Option<WaiterId>,
    place: Option<usize>,
}

struct Burst {
    start: Instant,
    now: Duration,
    requests: Vec<SharedRequest>,
    deployments: Vec<CountedPlaces>,
    gateway: CountedPlaces,
    queue: WaitQueue<usize>,
    events: BinaryHeap<Reverse<(Duration, SharingEvent)>>,
    /// By deployment, or [`GATEWAY`], and policy: how often it was passed over while it held nothing and waited.
    passed: BTreeMap<(usize, u32), u32>,
    broken: BTreeMap<Law, String>,
    waited: usize,
    shed: usize,
    trace: u64,
    mutant: Option<SharingMutant>,
}

impl Burst {
    fn of(seed: u64, limit: GatewayLimit, mutant: Option<SharingMutant>) -> Self {
        let mut rng = SimRng::seeded(seed);
        // Places are held for so short a time that many turns pass within a request's wait.
        let busy = rng.random(20);
        let deployments: Vec<CountedPlaces> = (0..1 + rng.below(3))
            .map(|_| {
                let most = if busy { 1 } else { 1 + rng.below(10) as u32 };
                let limits = PlaceLimits { most: Some(most), lends: !busy && rng.random(40), floors: false };
                let lends = limits.lends && mutant != Some(SharingMutant::LendsTheFloor);
                CountedPlaces::of(limits, lends)
            })
            .collect();
        let carried: u32 = deployments.iter().filter_map(|deployment| deployment.limits.most).sum();
        let most = (limit != GatewayLimit::Absent).then(|| 1 + rng.below(u64::from(carried)) as u32);
        let floors = limit == GatewayLimit::Moving;
        let gateway = CountedPlaces::of(PlaceLimits { most, lends: false, floors }, false);
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
                holder: PlaceHolder {
                    policy: PolicyId(policy),
                    key: KeyId(key),
                    priority: PRIORITIES[policy as usize],
                    reserved,
                },
                at: if busy { spread.mul_f64(rng.draw().unit()) } else { rng.spread(Duration::from_millis(1), spread) },
                own_time: rng.pick(&[50, 300, 5_000, 5_000].map(Duration::from_millis)),
                holds: rng.spread(Duration::from_millis(5), Duration::from_millis(if busy { 20 } else { 4_000 })),
                at_gateway: false,
                waiter: None,
                place: None,
            }
        });
        let requests: Vec<SharedRequest> = requests.collect();
        let arrivals = requests.iter().enumerate();
        let mut events: BinaryHeap<_> =
            arrivals.map(|(at, request)| Reverse((request.at, SharingEvent::Arrive(at)))).collect();
        if floors {
            events.extend((0..1 + rng.below(8)).map(|_| {
                let most = 1 + rng.below(u64::from(carried)) as u32;
                Reverse((spread.mul_f64(rng.draw().unit()), SharingEvent::Limit(most)))
            }));
        }
        Self {
            start: Clock.now(),
            now: Duration::ZERO,
            requests,
            deployments,
            gateway,
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
                SharingEvent::Limit(most) => self.moves_limit(most),
            }
            self.no_place_is_free_in_vain();
        }
        self
    }

    fn moves_limit(&mut self, most: u32) {
        self.gateway.limits.most = Some(most);
        self.gateway.places.set_limits(self.gateway.limits);
        self.hand_gateway_on();
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

    fn needs_gateway(&self, holder: PlaceHolder) -> bool {
        self.gateway.limits.most.is_some() && !holder.reserved
    }

    fn arrive(&mut self, request: usize) {
        let (now, holder) = (self.instant(), self.requests[request].holder);
        let usable = self.requests[request].usable.clone();
        let free = usable.iter().find(|id| !self.deployments[id.0 as usize].places.is_full(holder.reserved, now));
        let at_gateway = match self.mutant {
            Some(SharingMutant::HoldsReservedBack) => self.gateway.places.is_full(false, now),
            Some(SharingMutant::IgnoresTheGateway) => false,
            Some(SharingMutant::IgnoresTheFloors) => {
                self.needs_gateway(holder) && self.gateway.places.is_full(false, now)
            }
            _ => self.needs_gateway(holder) && self.gateway.places.is_full_to(holder, now),
        };
        if at_gateway && !holder.reserved && self.gateway.is_below_floor(holder) {
            self.breaks(Law::PriorityFloor, format!("request {request} waits for the gateway below its floor"));
        }
        if let Some(free) = free.copied().filter(|_| !at_gateway) {
            self.deployments[free.0 as usize].places.take(holder, now);
            self.enter(holder);
            self.takes(request, free.0 as usize);
            return;
        }
        if free.is_some() && holder.reserved {
            self.breaks(Law::ReservationFloor, format!("request {request} waits for the gateway"));
        }
        self.requests[request].at_gateway = at_gateway;
        self.wait(request);
        usable.iter().for_each(|id| self.hand_on(id.0 as usize));
        self.hand_gateway_on();
    }

    fn wait(&mut self, request: usize) {
        let SharedRequest { holder, at_gateway, own_time, .. } = self.requests[request];
        let (now, usable) = (self.instant(), self.requests[request].usable.clone());
        let patience = QUEUE_WAIT.min(own_time);
        let freed = |span| {
            let of_deployments =
                usable.iter().map(|id| self.deployments[id.0 as usize].places.freed_within(span)).sum::<f64>();
            if at_gateway { of_deployments.min(self.gateway.places.freed_within(span)) } else { of_deployments }
        };
        let expected = ExpectedPlaces { in_queue_wait: freed(QUEUE_WAIT), in_own_time: freed(patience) };
        let asked = PlaceRequest { holder, usable, unlimited: false, at_gateway, until: now + patience };
        match self.queue.arrive(asked, request, expected) {
            WaitDecision::Refused(_, ShedReason::OwnTime) => self.note(request),
            WaitDecision::Refused(_, ShedReason::Full) => self.sheds(request, request),
            WaitDecision::Waits(id, shed) => {
                self.requests[request].waiter = Some(id);
                self.waited += 1;
                self.events.push(Reverse((self.now + patience, SharingEvent::Expire(request))));
                let Some(shed) = shed else { return };
                self.requests[shed.payload].waiter = None;
                self.sheds(shed.payload, request);
                if self.mutant == Some(SharingMutant::ShedsWhoeverComes) {
                    self.queue.withdraw(id, holder);
                    self.requests[request].waiter = None;
                    self.sheds(request, request);
                }
            }
        }
    }

    /// Takes a place of the gateway, where the request needs one.
    fn enter(&mut self, holder: PlaceHolder) {
        if self.needs_gateway(holder) {
            let now = self.instant();
            self.gateway.places.take(holder, now);
        }
    }

    fn end(&mut self, request: usize) {
        // Either may come first: the end of an answer and that of its attempt are noticed apart.
        let gateway_first = request.is_multiple_of(2);
        if gateway_first {
            self.leaves_gateway(request);
        }
        self.leaves_deployment(request);
        if !gateway_first {
            self.leaves_gateway(request);
        }
    }

    fn leaves_deployment(&mut self, request: usize) {
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

    fn leaves_gateway(&mut self, request: usize) {
        let SharedRequest { holder, holds, .. } = self.requests[request];
        if !self.needs_gateway(holder) {
            return;
        }
        let now = self.instant();
        self.gateway.places.give_back(holder, now);
        self.gateway.places.was_held_for(holds);
        self.gateway.counts(self.now, holder, -1);
        if self.mutant != Some(SharingMutant::LeavesPlacesFree) || !request.is_multiple_of(3) {
            self.hand_gateway_on();
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
            self.is_granted(request, at, at);
        }
    }

    /// The same for the gateway.
    fn hand_gateway_on(&mut self) {
        if self.gateway.limits.most.is_none() {
            return;
        }
        while let Some((request, at)) = self.grant_at_gateway() {
            self.is_granted(request, at, GATEWAY);
        }
    }

    fn is_granted(&mut self, request: usize, at: usize, of: usize) {
        self.requests[request].waiter = None;
        self.is_granted_lawfully(request, at, of);
        self.takes(request, at);
    }

    /// What the queue takes for now.
    fn time_of_the_queue(&self) -> Option<Instant> {
        let late =
            if self.mutant == Some(SharingMutant::GrantsTheLate) { Duration::from_secs(3) } else { Duration::ZERO };
        self.instant().checked_sub(late)
    }

    fn grant(&mut self, at: usize) -> Option<usize> {
        let (id, now) = (PlacesId(at as u32), self.time_of_the_queue()?);
        if !self.chooses_wrongly() {
            let places = &mut self.deployments[at].places;
            return Some(self.queue.grant(id, places, &mut self.gateway.places, now)?.payload);
        }
        let wrong = self.wrong_choice(self.waiting_for(at), at)?;
        self.takes_wrongly(wrong, at);
        Some(wrong)
    }

    fn grant_at_gateway(&mut self) -> Option<(usize, usize)> {
        let now = self.time_of_the_queue()?;
        if self.chooses_wrongly() {
            let all = (0..self.deployments.len()).flat_map(|at| self.waiting_for(at));
            let wrong =
                self.wrong_choice(all.filter(|waits| !self.requests[*waits].holder.reserved).collect(), GATEWAY)?;
            let at = self.free_at(&self.requests[wrong].usable, now)?;
            self.takes_wrongly(wrong, at);
            return Some((wrong, at));
        }
        let has_place = |waiter: &Waiter<usize>| self.free_at(&waiter.request.usable, now).is_some();
        let turn = self.queue.turn_at_gateway(&self.gateway.places, now, has_place)?;
        let request = &self.queue.waiter(&turn).request;
        let (holder, at) = (request.holder, self.free_at(&request.usable, now)?);
        self.deployments[at].places.take(holder, now);
        Some((self.queue.grant_turn(turn, &mut self.gateway.places, now).payload, at))
    }

    /// The first deployment of those that has a place for a request by a plain name.
    fn free_at(&self, usable: &[PlacesId], now: Instant) -> Option<usize> {
        let mut usable = usable.iter().map(|id| id.0 as usize);
        usable.find(|at| !self.deployments[*at].places.is_full(false, now))
    }

    fn chooses_wrongly(&self) -> bool {
        let wrong = [SharingMutant::FirstComeFirstServed, SharingMutant::PrefersPriorityInATie];
        self.mutant.is_some_and(|mutant| wrong.contains(&mutant))
    }

    fn wrong_choice(&self, among: Vec<usize>, of: usize) -> Option<usize> {
        let by_priority = self.mutant == Some(SharingMutant::PrefersPriorityInATie);
        among.into_iter().min_by_key(|other| {
            let holder = self.requests[*other].holder;
            let priority = PRIORITIES[holder.policy.0 as usize];
            let held = self.counted(of).of_policy(holder.policy) * 8 / priority;
            let order = (!holder.reserved, held, Reverse(priority), self.counted(of).of_key(holder.key));
            (by_priority.then_some(order), self.requests[*other].waiter)
        })
    }

    fn takes_wrongly(&mut self, request: usize, at: usize) {
        let (now, holder) = (self.instant(), self.requests[request].holder);
        let waiter = self.requests[request].waiter.expect("it waits");
        self.queue.withdraw(waiter, holder).expect("it waits");
        self.deployments[at].places.take(holder, now);
        self.enter(holder);
    }

    fn counted(&self, of: usize) -> &CountedPlaces {
        if of == GATEWAY { &self.gateway } else { &self.deployments[of] }
    }

    /// The requests that could have a place at the deployment now.
    fn waiting_for(&self, at: usize) -> Vec<usize> {
        let (places, gateway, now) = (&self.deployments[at].places, &self.gateway.places, self.instant());
        let may = |waiting: &&Waiter<usize>| {
            let (request, reserved) = (&waiting.request, waiting.request.holder.reserved);
            let free = !places.is_full(reserved, now) && (reserved || !gateway.is_full_to(request.holder, now));
            free && request.until > now && request.usable.contains(&PlacesId(at as u32))
        };
        self.queue.waiters().filter(may).map(|waiting| waiting.payload).collect()
    }
}

#[test]
fn every_law_of_sharing_holds_in_every_burst() {
    for limit in GatewayLimit::ALL {
        let (mut waited, mut shed) = (0, 0);
        for seed in 0..BURSTS {
            let run = Burst::of(seed, limit, None).run();
            assert!(run.broken.is_empty(), "seed {seed}, limit of the gateway: {limit:?}: {:?}", run.broken);
            assert_eq!(run.queue.waiting(), 0, "seed {seed}");
            assert_eq!((run.gateway.places.taken(), run.gateway.lent()), (0, 0), "seed {seed}");
            let again = Burst::of(seed, limit, None).run().trace;
            assert_eq!(run.trace, again, "seed {seed}: the same seed, the same trace");
            (waited, shed) = (waited + run.waited, shed + run.shed);
        }
        println!("{BURSTS} bursts, limit of the gateway: {limit:?}: {waited} requests waited, {shed} were shed");
        assert!(waited > 10 * BURSTS as usize && shed > 10 * BURSTS as usize, "these bursts prove little");
    }
}

#[test]
fn each_law_of_sharing_catches_its_mutant() {
    for (mutant, law) in MUTANTS {
        let limits: &[GatewayLimit] = match mutant {
            SharingMutant::HoldsReservedBack | SharingMutant::IgnoresTheGateway => {
                &[GatewayLimit::Fixed, GatewayLimit::Moving]
            }
            SharingMutant::IgnoresTheFloors => &[GatewayLimit::Moving],
            // A tie at a single place, which a limit of the gateway makes rarer.
            SharingMutant::PrefersPriorityInATie => &[GatewayLimit::Absent],
            _ => &GatewayLimit::ALL,
        };
        for limit in limits.iter().copied() {
            let broken = |seed: &u64| Burst::of(*seed, limit, Some(mutant)).run().broken.contains_key(&law);
            let caught: Vec<u64> = (0..MUTANT_BURSTS).filter(broken).take(MUTANT_CAUGHT).collect();
            println!("{mutant:?}, limit of the gateway: {limit:?}: {law:?} catches it in the bursts {caught:?}");
            assert!(
                caught.len() == MUTANT_CAUGHT,
                "{mutant:?} is not caught by {law:?} (limit of the gateway: {limit:?})"
            );
        }
    }
}
