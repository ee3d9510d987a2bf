//! Lives one day: events in the order of their time, the real plan, the real board, a jumping clock.
//!
//! Must never decide anything that the gateway decides: like `relay/dispatch.rs` it asks the plan, does
//! what it says to scripted deployments, and reports how that went. The referee looks on.
//! Start reading in [`run`].

use crate::laws::{End, Made, Referee, Sent, Sight, Sights, Violation};
use crate::money::Cash;
use crate::mutant::Mutant;
use crate::provider::Fate;
use crate::world::{SimRng, World};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tierway::clock::Clock;
use tierway::domain::authorize::authorize;
use tierway::domain::breaker::{Availability, StateName};
use tierway::domain::call::{Bounds, Call, Endpoint, FeatureSet, RequestMetadata};
use tierway::domain::failure::Failure;
use tierway::domain::id::DeploymentId;
use tierway::domain::random::FNV_BASIS;
use tierway::domain::routing::gauge::ResponseMode;
use tierway::domain::routing::plan::{
    self, Attempt, FailedAttempt, GiveUpReason, HealthView, PlanStep, PlanTerms, RoutePlan,
};
use tierway::domain::routing::table::RoutingTable;
use tierway::random::Rng;
use tierway::relay::health::{DeploymentSet, HealthRegistry, KeyHealthView, Permit};
use tierway::telemetry::Telemetry;

#[path = "paying.rs"]
mod paying;

use paying::Worth;

/// What came of one day.
pub struct Run {
    /// Equal for equal traces.
    pub trace: u64,
    pub violation: Option<Violation>,
    pub sights: Sights,
    /// Where and when each attempt was made.
    pub attempts: Vec<(Arc<str>, Duration)>,
    /// Deployments that came back: which, when, and after how long.
    pub closings: Vec<(String, Duration, Duration)>,
}

/// Lives the day of `world`, with one decision broken on purpose if `mutant` says so. Prints every step
/// if `aloud`.
pub fn run(world: &World, telemetry: &Arc<Telemetry>, mutant: Option<Mutant>, aloud: bool) -> Run {
    let mut day = Day::new(world, telemetry, mutant, aloud);
    while let Some(Reverse((at, _, event))) = day.queue.pop() {
        day.now = at;
        day.referee.borrow_mut().now = at;
        day.happen(event);
        if day.referee.borrow().violation.is_some() {
            break;
        }
    }
    let in_flight = day.lives.iter().map(|live| live.deployments.in_flight()).sum();
    let blocked = day.blocked_a_day_later();
    let mut referee = day.referee.into_inner();
    if referee.violation.is_none() {
        referee.close_the_day(in_flight, &blocked);
        let closed = day.cash.map_or(Ok(()), Cash::close);
        closed.unwrap_or_else(|(law, reported)| referee.breach(law, reported));
    }
    let Referee { violation, sights, closings, .. } = referee;
    Run { trace: day.trace.hash, violation, sights, attempts: day.trace.attempts, closings }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    Reload(usize),
    Arrive(usize),
    /// A pause the plan asked for is over.
    Wake(usize),
    /// The attempt of this number fails, answers, or is over.
    Fail(usize, u32),
    Commit(usize, u32),
    Finish(usize, u32),
    /// The client is gone.
    ClientGone(usize),
    /// The process is killed.
    Crash,
}

/// One table and its lineup, as requests that arrive under it keep them.
struct Live {
    table: RoutingTable,
    /// As a mutant's plan walks it; the same otherwise.
    walked: RoutingTable,
    deployments: DeploymentSet,
    /// By deployment: the referee's number of it.
    places: Vec<usize>,
}

impl Live {
    fn model(&self, deployment: DeploymentId) -> &str {
        &self.table.model(self.table.deployment(deployment).model).name
    }
}

/// A request on its way.
struct Flight {
    plan: RoutePlan,
    live: Arc<Live>,
    mode: ResponseMode,
    deadline: Duration,
    running: Option<Running>,
}

struct Running {
    pass: Pass,
    sent: Sent,
    fate: Fate,
    /// The answer, or its failure, as the deadline leaves it.
    broken: Option<Failure>,
    worth: Worth,
}

/// Leave to make an attempt: real, or a mutant's forgery.
enum Pass {
    Real(Permit),
    Forged,
}

struct Trace {
    hash: u64,
    aloud: bool,
    attempts: Vec<(Arc<str>, Duration)>,
}

struct Day<'w> {
    world: &'w World,
    mutant: Option<Mutant>,
    start: Instant,
    now: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    events: u64,
    health: HealthRegistry,
    lives: Vec<Arc<Live>>,
    flights: Vec<Option<Flight>>,
    rng: Rng,
    /// What providers do by chance.
    luck: SimRng,
    /// On days with budgets.
    cash: Option<Cash<'w>>,
    referee: RefCell<Referee<'w>>,
    trace: Trace,
}

impl<'w> Day<'w> {
    fn new(world: &'w World, telemetry: &Arc<Telemetry>, mutant: Option<Mutant>, aloud: bool) -> Self {
        let seed = mutant.map_or(world.seed, |mutant| mutant.bend_seed(world.seed));
        let rng = Arc::new(Rng::seeded(seed));
        let mut day = Self {
            world,
            mutant,
            start: Clock.now(),
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            events: 0,
            health: HealthRegistry::new(&world.tables[0].1.settings, telemetry.clone(), rng),
            lives: Vec::new(),
            flights: world.wishes.iter().map(|_| None).collect(),
            rng: Rng::seeded(!seed),
            luck: SimRng::seeded(seed),
            cash: Cash::of(world, mutant),
            referee: RefCell::new(Referee::new(world)),
            trace: Trace { hash: FNV_BASIS, aloud, attempts: Vec::new() },
        };
        for (index, (at, _)) in world.tables.iter().enumerate() {
            day.later(*at, Event::Reload(index));
        }
        for (index, wish) in world.wishes.iter().enumerate() {
            day.later(wish.at, Event::Arrive(index));
        }
        for at in &world.money.crashes {
            day.later(*at, Event::Crash);
        }
        day
    }

    fn later(&mut self, at: Duration, event: Event) {
        self.events += 1;
        self.queue.push(Reverse((at, self.events, event)));
    }

    fn instant(&self) -> Instant {
        self.start + self.now
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Reload(index) => self.reload(index),
            Event::Arrive(request) => self.arrive(request),
            Event::Wake(request) => self.advance(request),
            Event::Fail(request, number) => self.fail(request, number),
            Event::Commit(request, number) => self.commit(request, number),
            Event::Finish(request, number) => self.finish(request, number),
            Event::ClientGone(request) => self.permit(request),
            Event::Crash => self.crash(),
        }
    }

    /// Breakers survive by name; what the new table does not name is gone.
    fn reload(&mut self, index: usize) {
        if let Some(cash) = &mut self.cash {
            cash.reload(index, self.now);
        }
        let table = self.world.tables[index].1.clone();
        let newcomers = (index > 0).then(|| self.instant());
        let deployments = self.health.deployment_set(&table, &self.world.providers, newcomers);
        let mut referee = self.referee.borrow_mut();
        let before = self.lives.last();
        let known = |name: &str| {
            let (ids, live) = before.map(|live| (live.table.deployment_ids(), live))?;
            let mut ids = ids.filter(|id| *live.table.deployment(*id).name == *name);
            ids.next().map(|id| live.places[id.index()])
        };
        let mut join = |id: DeploymentId| {
            let held = table.deployment(id);
            let dedicated = table.model(held.model).dedicated.contains(&id);
            let model = &*table.model(held.model).name;
            let (region, provider) = (held.region.index(), held.provider.index());
            known(&held.name).unwrap_or_else(|| referee.join(&held.name, model, region, provider, dedicated))
        };
        let places: Vec<usize> = table.deployment_ids().map(&mut join).collect();
        let gone = before.into_iter().flat_map(|live| &live.places).filter(|place| !places.contains(place));
        gone.for_each(|place| referee.permit(*place));
        drop(referee);
        let mut walked = table.clone();
        if let Some(mutant) = self.mutant {
            mutant.bend_walked(&mut walked);
        }
        self.trace.note(self.now, [1, index as u64, 0], || format!("reload {index}"));
        self.lives.push(Arc::new(Live { table, walked, deployments, places }));
    }

    fn arrive(&mut self, request: usize) {
        let live = self.lives.last().expect("the first table is there from the start").clone();
        let (world, wish) = (self.world, &self.world.wishes[request]);
        self.trace.note(self.now, [2, request as u64, wish.key as u64], || {
            let (who, stream) = (&world.clients[wish.key].key.name, wish.stream);
            format!("request {request} of {who} for {}, stream: {stream}", wish.model)
        });
        let Some(plan) = self.build(request, &live) else { return self.end(request, End::Refused) };
        if !self.hold_first(request, &plan, &live) {
            return self.end(request, End::Refused);
        }
        let deadline = wish.at + wish.deadline.min(live.table.settings.total);
        live.deployments.request(self.instant());
        self.referee.borrow_mut().request();
        if let Some(after) = wish.leaves {
            self.later(wish.at + after, Event::ClientGone(request));
        }
        let mode = ResponseMode::of(wish.stream);
        self.flights[request] = Some(Flight { plan, live, mode, deadline, running: None });
        self.advance(request);
    }

    fn build(&mut self, request: usize, live: &Live) -> Option<RoutePlan> {
        let wish = &self.world.wishes[request];
        let mut key = self.world.clients[wish.key].key.clone();
        let mut deadline = self.instant() + wish.deadline.min(live.table.settings.total);
        let mut no_fallback = wish.no_fallback;
        let mut table = std::borrow::Cow::Borrowed(&live.table);
        if let Some(mutant) = self.mutant {
            key = mutant.bend_key(&key);
            mutant.bend_drafted(table.to_mut());
            match mutant {
                Mutant::IgnoresTheDeadline => deadline += Duration::from_secs(3600),
                Mutant::IgnoresNoFallback => no_fallback = false,
                _ => {}
            }
        }
        let metadata = RequestMetadata {
            model: wish.model.into(),
            model_span: 0..0,
            stream: wish.stream,
            ask_usage: None,
            max_output: None,
            choices: 1,
            inputs: 1,
            user: None,
            features: FeatureSet::default(),
            bounds: Bounds::default(),
        };
        let call = Call::new(Endpoint::Chat, Bytes::new(), metadata);
        let authorized = authorize(&table, &key, &call).ok()?;
        RoutePlan::build(
            &table,
            &authorized,
            &call,
            PlanTerms { no_fallback, deadline, priced_at_ms: 0 },
            self.rng.draw(),
        )
        .ok()
    }

    /// Asks the plan what to do next, and does it.
    fn advance(&mut self, request: usize) {
        let Some(mut flight) = self.flights[request].take() else { return };
        let live = flight.live.clone();
        let draw = self.rng.draw();
        let health = Watched {
            view: live.deployments.view_for(self.world.clients[self.world.wishes[request].key].id),
            live: &live,
            referee: &self.referee,
            mutant: self.mutant,
            taken: Cell::new(None),
        };
        match flight.plan.next(&live.walked, &health, self.instant(), draw) {
            PlanStep::Try(attempt) => {
                let (availability, average, state) = health.taken.get().expect("what is tried was taken");
                let Some(worth) = self.hold_again(request, &live, attempt.deployment) else {
                    drop(attempt);
                    return self.end(request, End::Refused);
                };
                self.send(request, &mut flight, attempt, worth, (availability, average, state));
                self.flights[request] = Some(flight);
            }
            PlanStep::Wait(pause) => {
                self.referee.borrow_mut().sights.see(Sight::Pause);
                self.trace.note(self.now, [3, request as u64, pause.as_nanos() as u64], || {
                    format!("request {request} waits {pause:?}")
                });
                self.later(self.now + pause, Event::Wake(request));
                self.flights[request] = Some(flight);
            }
            PlanStep::GiveUp(reason) => {
                if matches!(reason, GiveUpReason::Unavailable { .. }) {
                    self.referee.borrow_mut().sights.see(Sight::Unavailable);
                }
                self.end(request, End::GaveUp);
            }
        }
    }

    fn send(
        &mut self,
        request: usize,
        flight: &mut Flight,
        attempt: Attempt<Pass>,
        worth: Worth,
        (availability, average, state): (Availability, Option<Duration>, StateName),
    ) {
        let Attempt { number, deployment, permit: pass, .. } = attempt;
        let live = &flight.live;
        let place = live.places[deployment.index()];
        let healthy = if number > 1 { self.healthy(flight) } else { Vec::new() };
        let model = live.table.model(live.table.deployment(deployment).model);
        let made = Made {
            id: (request, number),
            place,
            availability,
            state,
            average,
            max_attempts: live.table.settings.max_attempts,
            room: live.table.deployment(deployment).max_concurrent,
            spills: model.dedicated.iter().any(|id| live.table.deployment(*id).spill),
            deadline: flight.deadline,
            healthy: &healthy,
        };
        let sent = self.referee.borrow_mut().attempt(&made);
        let name = &live.table.deployment(deployment).name;
        self.trace.attempt(self.now, request, number, place, name);
        let wish = &self.world.wishes[request];
        let context = model.context.unwrap_or(u64::MAX);
        let fate = self.world.scripts[name].fate(self.now, wish, context, &mut self.luck);
        flight.running = Some(self.schedule(sent, pass, worth, fate, flight.deadline));
    }

    /// When what of the attempt will be seen, the deadline considered.
    fn schedule(&mut self, sent: Sent, pass: Pass, worth: Worth, fate: Fate, deadline: Duration) -> Running {
        let (request, number) = sent.id;
        let in_time = |after: Duration| self.now + after < deadline;
        let late = Fate::Fails { after: deadline.saturating_sub(self.now), failure: Failure::Deadline };
        let (fate, broken) = match fate {
            Fate::Fails { after, .. } if in_time(after) => (fate, None),
            Fate::Answers { end, broken, .. } if in_time(end) => (fate, broken),
            Fate::Answers { first, .. } if in_time(first) => {
                (Fate::Answers { first, end: deadline.saturating_sub(self.now), broken: None }, Some(Failure::Deadline))
            }
            _ => (late, None),
        };
        match fate {
            Fate::Fails { after, .. } => self.later(self.now + after, Event::Fail(request, number)),
            Fate::Answers { first, .. } => self.later(self.now + first, Event::Commit(request, number)),
        }
        Running { pass, sent, fate, broken, worth }
    }

    /// Where the plan's request would be well served now.
    fn healthy(&self, flight: &Flight) -> Vec<usize> {
        let live = &flight.live;
        let view = live.deployments.view_for(self.world.clients[0].id);
        let ids = flight.plan.candidate_models().iter().flat_map(|candidate| &candidate.deployments);
        let well = ids.filter(|id| {
            let view = plan::HealthSource::view(&view, **id, flight.mode, self.instant());
            let flows = matches!(view.availability, Availability::Flowing { .. });
            let in_time = view.average.is_none_or(|average| self.now + average < flight.deadline);
            flows && !view.full && in_time
        });
        well.map(|id| live.places[id.index()]).collect()
    }

    fn blocked_a_day_later(&self) -> Vec<Arc<str>> {
        let later = self.instant() + Duration::from_secs(24 * 3600);
        let Some(live) = self.lives.last() else { return Vec::new() };
        let view = live.deployments.view_for(self.world.clients[0].id);
        let availability =
            |id: &DeploymentId| plan::HealthSource::view(&view, *id, ResponseMode::Stream, later).availability;
        let blocked = |id: &DeploymentId| matches!(availability(id), Availability::Blocked { .. });
        live.table.deployment_ids().filter(blocked).map(|id| live.table.deployment(id).name.clone()).collect()
    }

    /// The running attempt, if it is still the one that an event is about.
    fn running(&mut self, request: usize, number: u32) -> Option<&mut Running> {
        let running = self.flights[request].as_mut()?.running.as_mut()?;
        (running.sent.id.1 == number).then_some(running)
    }

    fn fail(&mut self, request: usize, number: u32) {
        let now = self.instant();
        let Some(&mut Running { sent, fate: Fate::Fails { after, failure }, .. }) = self.running(request, number)
        else {
            return;
        };
        let flight = self.flights[request].as_mut().expect("it runs");
        let running = flight.running.take().expect("it runs");
        let last_was_good = match &running.pass {
            Pass::Real(permit) => permit.last_was_good(),
            Pass::Forged => false,
        };
        let failure =
            flight.plan.record(&flight.live.walked, number, FailedAttempt { failure, age: after, last_was_good });
        let live = flight.live.clone();
        if let Pass::Real(permit) = running.pass {
            permit.failed(failure, now);
        }
        self.finished(&live, &sent, Some(failure));
        self.pay_failed(request, running.worth, failure);
        self.advance(request);
    }

    fn commit(&mut self, request: usize, number: u32) {
        let now = self.instant();
        let Some(Running { pass, sent, fate: Fate::Answers { first, end, .. }, .. }) = self.running(request, number)
        else {
            return;
        };
        if let Pass::Real(permit) = pass {
            permit.answered(now);
        }
        let (sent, rest) = (*sent, *end - *first);
        self.referee.borrow_mut().answered(&sent);
        self.trace.note(self.now, [4, request as u64, u64::from(number)], || format!("request {request} is answered"));
        self.later(self.now + rest, Event::Finish(request, number));
    }

    fn finish(&mut self, request: usize, number: u32) {
        let now = self.instant();
        let Some(&mut Running { sent, broken, .. }) = self.running(request, number) else { return };
        let flight = self.flights[request].as_mut().expect("it runs");
        let running = flight.running.take().expect("it runs");
        let live = flight.live.clone();
        match (running.pass, broken) {
            (Pass::Real(permit), None) => permit.ended(now),
            (Pass::Real(permit), Some(failure)) => permit.broke(failure, now),
            (Pass::Forged, _) => {}
        }
        self.finished(&live, &sent, broken);
        self.pay(request, &live, &sent, running.worth, 1.0);
        match (self.mutant, broken) {
            (Some(Mutant::RetriesAfterTheCommit), Some(failure)) => {
                let end = FailedAttempt { failure, age: Duration::MAX, last_was_good: false };
                flight_of(&mut self.flights, request).plan.record(&live.walked, number, end);
                self.advance(request);
            }
            (_, None) => self.end(request, End::Served),
            (_, Some(_)) => self.end(request, End::Broken),
        }
    }

    fn permit(&mut self, request: usize) {
        let Some(flight) = self.flights[request].take() else { return };
        self.referee.borrow_mut().sights.see(Sight::ClientGone);
        if let Some(Running { pass, sent, fate, worth, .. }) = flight.running {
            self.referee.borrow_mut().dropped(&sent);
            self.pay_unfinished(request, &flight.live, &sent, fate, worth);
            if self.mutant == Some(Mutant::LeaksPermits) {
                std::mem::forget(pass);
            }
        }
        if self.mutant != Some(Mutant::NeverSettlesTheGone) {
            self.end(request, End::Abandoned);
        }
    }

    fn finished(&mut self, live: &Live, sent: &Sent, failure: Option<Failure>) {
        self.trace.note(self.now, [6, sent.id.0 as u64, u64::from(sent.id.1)], || {
            format!("attempt {}.{} ends: {failure:?}", sent.id.0, sent.id.1)
        });
        let index = live.places.iter().position(|place| *place == sent.place).expect("it was chosen from there");
        let state = live.deployments.states(self.instant())[index].1;
        let view = live.deployments.view_for(self.world.clients[0].id);
        let availability =
            plan::HealthSource::view(&view, DeploymentId(index as u32), ResponseMode::Stream, self.instant())
                .availability;
        let until = match availability {
            Availability::Blocked { until } => Some(until - self.start),
            Availability::Flowing { .. } | Availability::ProbeDue => None,
        };
        self.referee.borrow_mut().finished(sent, failure, state, until);
    }

    /// The one way out of every request.
    fn end(&mut self, request: usize, how: End) {
        self.trace.note(self.now, [5, request as u64, how as u64], || format!("request {request}: {how:?}"));
        self.flights[request] = None;
        if let Some(cash) = &mut self.cash {
            cash.release(request);
        }
        let mut referee = self.referee.borrow_mut();
        referee.end(request, how);
        if self.mutant == Some(Mutant::SettlesTwice) {
            referee.end(request, how);
        }
    }
}

fn flight_of(flights: &mut [Option<Flight>], request: usize) -> &mut Flight {
    flights[request].as_mut().expect("the request is on its way")
}

impl Trace {
    fn note(&mut self, now: Duration, words: [u64; 3], reported: impl FnOnce() -> String) {
        for word in [now.as_nanos() as u64].into_iter().chain(words) {
            self.hash = (self.hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
        if self.aloud {
            println!("{now:>16.3?}  {}", reported());
        }
    }

    fn attempt(&mut self, now: Duration, request: usize, number: u32, place: usize, name: &Arc<str>) {
        let words = [7, (request as u64) << 8 | u64::from(number), place as u64];
        self.note(now, words, || format!("attempt {request}.{number} at {name}"));
        self.attempts.push((name.clone(), now));
    }
}

/// The real board through one key's eyes, with the referee looking over its shoulder.
struct Watched<'a, 'w> {
    view: KeyHealthView<'a>,
    live: &'a Live,
    referee: &'a RefCell<Referee<'w>>,
    mutant: Option<Mutant>,
    /// How the deployment taken last stood just before.
    taken: Cell<Option<(Availability, Option<Duration>, StateName)>>,
}

impl Watched<'_, '_> {
    fn state(&self, deployment: DeploymentId, now: Instant) -> StateName {
        self.live.deployments.states(now)[deployment.index()].1
    }
}

impl plan::HealthSource for Watched<'_, '_> {
    type Permit = Pass;

    fn view(&self, deployment: DeploymentId, mode: ResponseMode, now: Instant) -> HealthView {
        let view = self.view.view(deployment, mode, now);
        let bent = self.mutant.map(|mutant| mutant.bend_glance(view, || self.state(deployment, now)));
        let view = bent.unwrap_or(view);
        self.referee.borrow_mut().view(self.live.places[deployment.index()], view.availability);
        view
    }

    fn take(&self, deployment: DeploymentId, mode: ResponseMode, now: Instant) -> Option<Pass> {
        let HealthView { availability, average, .. } = self.view.view(deployment, mode, now);
        let flows = matches!(availability, Availability::Flowing { .. });
        let state = if flows { StateName::Closed } else { self.state(deployment, now) };
        let forges = self.mutant.is_some_and(Mutant::forges_permits);
        let pass = match self.view.take(deployment, mode, now) {
            Some(permit) => Pass::Real(permit),
            None if forges => Pass::Forged,
            None => return None,
        };
        self.taken.set(Some((availability, average, state)));
        Some(pass)
    }

    fn has_retry(&self, now: Instant) -> bool {
        self.mutant == Some(Mutant::NeverCountsRetries) || self.view.has_retry(now)
    }

    fn spend_retry(&self, now: Instant) -> bool {
        self.mutant == Some(Mutant::NeverCountsRetries) || self.view.spend_retry(now)
    }
}
