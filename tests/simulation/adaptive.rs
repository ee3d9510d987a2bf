//! A burst on a provider of a capacity that nobody knows, for each seed: the real adaptive limit and the floors of policies,
//! under a clock that advances from event to event. The provider queues what it cannot carry.
//!
//! Start reading in [`UnknownProvider::run`]; each law is shown to catch a mutant.

use crate::world::SimRng;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};
use tierway::clock::Clock;
use tierway::domain::id::{KeyId, PolicyId};
use tierway::domain::routing::adaptive::{AdaptiveLimit, InFlightBounds, LongTermFirstToken};
use tierway::domain::routing::places::{PlaceHolder, PlaceLimits, Places};

const BURSTS: u64 = 40;
const BOUNDS: InFlightBounds = InFlightBounds { at_least: 32, at_most: 4_096 };
/// The provider answers so many requests at once, each in one to three seconds: 20 a second.
const SLOTS: usize = 40;
const CARRIED: f64 = 20.0;
const BURST_BEGINS: f64 = 60.0;
const BURST_ENDS: f64 = 120.0;
/// Requests a second of the policy with priority 8.
const PRO: f64 = 4.0;
/// Those of the policy with priority 1, usually and in the burst.
const STANDARD: f64 = 6.0;
const BURST: f64 = 96.0;

/// What holds of every burst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Law {
    /// Nobody of the high priority is refused.
    Admitted,
    /// At p99 it waits no more than half as long again as usual.
    Prompt,
    /// The others have four fifths of what is left of the provider.
    Used,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LimitMutant {
    IgnoresTheFloors,
    /// As if nothing had been measured when the burst begins.
    BeginsFarAbove,
    FallsToTheLeast,
}

const MUTANTS: [(LimitMutant, Law); 3] = [
    (LimitMutant::IgnoresTheFloors, Law::Admitted),
    (LimitMutant::BeginsFarAbove, Law::Prompt),
    (LimitMutant::FallsToTheLeast, Law::Used),
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    End(usize),
    Arrive(u32),
    BurstBegins,
}

struct SimRequest {
    holder: PlaceHolder,
    sent: Duration,
    holds: Duration,
}

struct UnknownProvider {
    start: Instant,
    now: Duration,
    rng: SimRng,
    events: BinaryHeap<Reverse<(Duration, Event)>>,
    requests: Vec<SimRequest>,
    answering: usize,
    queued: VecDeque<usize>,
    limit: AdaptiveLimit,
    places: Places,
    usual: LongTermFirstToken,
    mutant: Option<LimitMutant>,
    refused: u32,
    served: u32,
    /// How long answers of the high priority took, usually and in the burst.
    took: [Vec<Duration>; 2],
}

impl UnknownProvider {
    fn of(seed: u64, mutant: Option<LimitMutant>) -> Self {
        let mut sim = Self {
            start: Clock.now(),
            now: Duration::ZERO,
            rng: SimRng::seeded(seed),
            events: BinaryHeap::from([Reverse((Duration::from_secs_f64(BURST_BEGINS), Event::BurstBegins))]),
            requests: Vec::new(),
            answering: 0,
            queued: VecDeque::new(),
            limit: AdaptiveLimit::new(BOUNDS),
            places: Places::default(),
            usual: LongTermFirstToken::default(),
            mutant,
            refused: 0,
            served: 0,
            took: [Vec::new(), Vec::new()],
        };
        sim.limit_moved();
        for (priority, rate) in [(8, PRO), (1, STANDARD)] {
            sim.arrives_next(priority, rate);
        }
        sim
    }

    fn run(mut self) -> BTreeMap<Law, String> {
        while let Some(Reverse((at, event))) = self.events.pop() {
            self.now = at;
            match event {
                Event::Arrive(priority) => self.arrive(priority),
                Event::End(request) => self.end(request),
                Event::BurstBegins if self.mutant == Some(LimitMutant::BeginsFarAbove) => {
                    self.limit = AdaptiveLimit::new(BOUNDS);
                    self.limit_moved();
                }
                Event::BurstBegins => {}
            }
        }
        self.broken()
    }

    fn is_burst(&self, at: Duration) -> bool {
        (BURST_BEGINS..BURST_ENDS).contains(&at.as_secs_f64())
    }

    /// The next request comes after a time that varies by a half.
    fn arrives_next(&mut self, priority: u32, rate: f64) {
        let at = self.now + Duration::from_secs_f64((0.5 + self.rng.draw().unit()) / rate);
        if at.as_secs_f64() < BURST_ENDS {
            self.events.push(Reverse((at, Event::Arrive(priority))));
        }
    }

    fn limit_moved(&mut self) {
        let most = match self.mutant {
            Some(LimitMutant::FallsToTheLeast) => 12,
            _ => self.limit.limit(),
        };
        let floors = self.mutant != Some(LimitMutant::IgnoresTheFloors);
        self.places.set_limits(PlaceLimits { most: Some(most), lends: false, floors });
    }

    fn arrive(&mut self, priority: u32) {
        let rate = match priority {
            8 => PRO,
            _ if self.is_burst(self.now) => BURST,
            _ => STANDARD,
        };
        self.arrives_next(priority, rate);
        let (policy, key, now) = (PolicyId(priority), KeyId(priority), self.start + self.now);
        let holder = PlaceHolder { policy, key, priority, reserved: false };
        if self.places.is_full_to(holder, now) {
            self.refused += u32::from(priority == 8);
            return;
        }
        self.places.take(holder, now);
        let holds = Duration::from_secs_f64(1.0 + 2.0 * self.rng.draw().unit());
        self.requests.push(SimRequest { holder, sent: self.now, holds });
        self.queued.push_back(self.requests.len() - 1);
        self.answer();
    }

    fn answer(&mut self) {
        while self.answering < SLOTS
            && let Some(request) = self.queued.pop_front()
        {
            self.answering += 1;
            self.events.push(Reverse((self.now + self.requests[request].holds, Event::End(request))));
        }
    }

    fn end(&mut self, request: usize) {
        let (now, SimRequest { holder, sent, .. }) = (self.start + self.now, &self.requests[request]);
        let (holder, sent) = (*holder, *sent);
        self.answering -= 1;
        let (in_flight, took) = (self.places.taken(), self.now - sent);
        self.places.give_back(holder, now);
        if let Some(slowdown) = self.usual.slowdown(took, now)
            && self.limit.record(slowdown, self.start + sent, in_flight, now)
        {
            self.limit_moved();
        }
        if holder.priority == 8 {
            self.took[usize::from(self.is_burst(sent))].push(took);
        } else if self.is_burst(self.now) {
            self.served += 1;
        }
        self.answer();
    }

    fn broken(mut self) -> BTreeMap<Law, String> {
        let p99 = |took: &mut Vec<Duration>| {
            took.sort_unstable();
            took[took.len() * 99 / 100]
        };
        let [usual, burst] = self.took.each_mut().map(p99);
        let left = (CARRIED - PRO) * (BURST_ENDS - BURST_BEGINS);
        let mut broken = BTreeMap::new();
        let mut breaks = |law, is_broken: bool, what: String| drop(is_broken.then(|| broken.insert(law, what)));
        breaks(Law::Admitted, self.refused > 0, format!("{} refused", self.refused));
        breaks(Law::Prompt, burst > usual.mul_f64(1.5), format!("{burst:?} after {usual:?}"));
        breaks(Law::Used, f64::from(self.served) < 0.8 * left, format!("{} of {left}", self.served));
        broken
    }
}

#[test]
fn a_burst_costs_the_high_priority_little_where_nobody_knows_the_limit() {
    for seed in 0..BURSTS {
        let broken = UnknownProvider::of(seed, None).run();
        assert!(broken.is_empty(), "seed {seed}: {broken:?}");
    }
}

#[test]
fn each_law_of_the_adaptive_limit_catches_its_mutant() {
    for (mutant, law) in MUTANTS {
        for seed in 0..5 {
            let broken = UnknownProvider::of(seed, Some(mutant)).run();
            assert!(broken.contains_key(&law), "seed {seed}, {mutant:?} is not caught by {law:?}: {broken:?}");
        }
    }
}
