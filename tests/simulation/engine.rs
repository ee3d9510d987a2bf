//! Runs one day: events in order of time, the real plan, the real health registry, a jumping clock.
//!
//! It must never decide what the gateway decides: like `relay/dispatch.rs` it asks the plan, makes its attempts
//! at scripted deployments, and reports how they ended. How attempts are watched while they run is in `watching.rs`,
//! how they are paid for in `paying.rs`. The checker gets every step.
//! Start reading in [`run`].

use crate::invariants::{AttemptId, AttemptStart, Checker, Coverage, CoverageEvent, End, SentAttempt, Violation};
use crate::money::BudgetSimulation;
use crate::mutant::Mutant;
use crate::provider::{Behaviour, KEEP_ALIVE, ScriptedOutcome};
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
use tierway::domain::call::{Call, CostFacts, Endpoint, FeatureSet, RequestMetadata};
use tierway::domain::failure::Failure;
use tierway::domain::id::{DeploymentId, TeamId};
use tierway::domain::random::FNV_BASIS;
use tierway::domain::routing::AnswerMode;
use tierway::domain::routing::health::{self, ExtraBudget, HealthSource, HealthView, PermitKind};
use tierway::domain::routing::plan::{Attempt, Evidence, FailedAttempt, GiveUpReason, PlanStep, PlanTerms, RoutePlan};
use tierway::domain::routing::table::RoutingTable;
use tierway::random::Rng;
use tierway::relay::health::{
    AttemptLabels, AttemptSigns, DeploymentSet, FailureReport, HealthRegistry, Permit, ReportedFailure, TeamHealthView,
};
use tierway::telemetry::Telemetry;
use tierway::upstream::AttemptWatch;

#[path = "paying.rs"]
mod paying;
#[path = "watching.rs"]
mod watching;

use paying::AttemptCost;
use watching::Schedule;

/// The result of one day.
pub struct Run {
    /// Equal for equal traces.
    pub trace: u64,
    pub violation: Option<Violation>,
    pub coverage: Coverage,
    /// Each attempt: its deployment and its time.
    pub attempts: Vec<(Arc<str>, Duration)>,
    /// Breakers that closed: of which deployment, when, and after how long.
    pub closings: Vec<(String, Duration, Duration)>,
}

/// Runs the day of `world`, with the one wrong decision of `mutant`, if any. Prints every step if `verbose`.
pub fn run(world: &World, telemetry: &Arc<Telemetry>, mutant: Option<Mutant>, verbose: bool) -> Run {
    let mut simulation = Simulation::new(world, telemetry, mutant, verbose);
    while let Some(Reverse((at, _, event))) = simulation.queue.pop() {
        simulation.now = at;
        simulation.checker.borrow_mut().now = at;
        simulation.handle(event);
        if simulation.checker.borrow().violation.is_some() {
            break;
        }
    }
    let in_flight = simulation.active_tables.iter().map(|active| active.deployments.in_flight()).sum();
    let blocked = simulation.blocked_a_day_later();
    let mut checker = simulation.checker.into_inner();
    if checker.violation.is_none() {
        checker.close_the_day(in_flight, &blocked);
        let closed = simulation.budgets.map_or(Ok(()), BudgetSimulation::close);
        closed.unwrap_or_else(|(invariant, message)| checker.violate(invariant, message));
    }
    let Checker { violation, coverage, closings, .. } = checker;
    Run { trace: simulation.trace.hash, violation, coverage, attempts: simulation.trace.attempts, closings }
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
    /// A sign of life of that attempt.
    Sign(usize, u32),
    /// It is time to look at the attempts of a request; the number is that of the latest look that was planned.
    Due(usize, u64),
    /// The attempt of this number has surely used its share of the time.
    ShareOver(usize, u32),
    /// The client disconnects.
    ClientGone(usize),
    /// The process is killed.
    Crash,
}

/// One table and its deployment set, which the requests that arrive under it keep.
struct ActiveTable {
    table: RoutingTable,
    /// The table that plans choose from: changed by a mutant, the same otherwise.
    plan_table: RoutingTable,
    deployments: DeploymentSet,
    /// By deployment: the checker's number of it.
    places: Vec<usize>,
}

impl ActiveTable {
    fn model(&self, deployment: DeploymentId) -> &str {
        &self.table.model(self.table.deployment(deployment).model).name
    }
}

/// A request that has not ended.
struct ActiveRequest {
    plan: RoutePlan,
    active: Arc<ActiveTable>,
    mode: AnswerMode,
    deadline: Duration,
    answer_by: Duration,
    /// One attempt, and at times a second one beside it.
    running: Vec<Running>,
    schedule: Schedule,
    /// What was counted for a deployment, by number of the attempt.
    reported: Vec<(u32, ReportedFailure)>,
    committed: bool,
}

struct Running {
    sim_permit: SimulatedPermit,
    signs: Option<AttemptSigns>,
    sent: SentAttempt,
    outcome: ScriptedOutcome,
    /// How the answer breaks off, if it does, with the deadline considered.
    broken: Option<Failure>,
    cost: AttemptCost,
}

/// A permit for an attempt: a real one, or forged by a mutant.
enum SimulatedPermit {
    Real(Permit),
    Forged,
}

impl SimulatedPermit {
    fn real(&self) -> Option<&Permit> {
        match self {
            Self::Real(permit) => Some(permit),
            Self::Forged => None,
        }
    }

    fn abandoned(self, now: Instant) {
        if let Self::Real(permit) = self {
            permit.abandoned(None, now);
        }
    }
}

/// The health of the deployment taken last, just before it was taken.
#[derive(Clone, Copy)]
struct TakenHealth {
    view: HealthView,
    state: StateName,
    kind: PermitKind,
}

struct Trace {
    hash: u64,
    verbose: bool,
    attempts: Vec<(Arc<str>, Duration)>,
}

struct Simulation<'w> {
    world: &'w World,
    mutant: Option<Mutant>,
    start: Instant,
    now: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    events: u64,
    health: HealthRegistry,
    active_tables: Vec<Arc<ActiveTable>>,
    active_requests: Vec<Option<ActiveRequest>>,
    rng: Rng,
    /// For random behaviour of providers.
    provider_rng: SimRng,
    /// On days with budgets.
    budgets: Option<BudgetSimulation<'w>>,
    checker: RefCell<Checker<'w>>,
    trace: Trace,
}

impl<'w> Simulation<'w> {
    fn new(world: &'w World, telemetry: &Arc<Telemetry>, mutant: Option<Mutant>, verbose: bool) -> Self {
        let seed = mutant.map_or(world.seed, |mutant| mutant.alter_seed(world.seed));
        let rng = Arc::new(Rng::seeded(seed));
        let mut simulation = Self {
            world,
            mutant,
            start: Clock.now(),
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            events: 0,
            health: HealthRegistry::new(&world.tables[0].1.settings, telemetry.clone(), rng, Clock),
            active_tables: Vec::new(),
            active_requests: world.planned_requests.iter().map(|_| None).collect(),
            rng: Rng::seeded(!seed),
            provider_rng: SimRng::seeded(seed),
            budgets: BudgetSimulation::of(world, mutant),
            checker: RefCell::new(Checker::new(world)),
            trace: Trace { hash: FNV_BASIS, verbose, attempts: Vec::new() },
        };
        for (index, (at, _)) in world.tables.iter().enumerate() {
            simulation.later(*at, Event::Reload(index));
        }
        for (index, planned) in world.planned_requests.iter().enumerate() {
            simulation.later(planned.at, Event::Arrive(index));
        }
        for at in &world.money.crashes {
            simulation.later(*at, Event::Crash);
        }
        simulation
    }

    fn later(&mut self, at: Duration, event: Event) {
        self.events += 1;
        self.queue.push(Reverse((at, self.events, event)));
    }

    fn instant(&self) -> Instant {
        self.start + self.now
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Reload(index) => self.reload(index),
            Event::Arrive(request) => self.arrive(request),
            Event::Wake(request) => self.advance(request),
            Event::Fail(request, number) => self.fail(request, number),
            Event::Commit(request, number) => self.commit(request, number),
            Event::Finish(request, number) => self.finish(request, number),
            Event::Sign(request, number) => self.sign(request, number),
            Event::Due(request, turn) => self.due(request, turn),
            Event::ShareOver(request, number) => self.share_is_over(request, number),
            Event::ClientGone(request) => self.client_leaves(request),
            Event::Crash => self.crash(),
        }
    }

    /// Deployments keep their breakers by name; those that the new table does not have are removed.
    fn reload(&mut self, index: usize) {
        if let Some(budgets) = &mut self.budgets {
            budgets.reload(index, self.now);
        }
        let table = self.world.tables[index].1.clone();
        let newcomers = (index > 0).then(|| self.instant());
        let deployments = self.health.deployment_set(&table, &self.world.providers, newcomers);
        let mut checker = self.checker.borrow_mut();
        let before = self.active_tables.last();
        let known = |name: &str| {
            let (ids, active) = before.map(|active| (active.table.deployment_ids(), active))?;
            let mut ids = ids.filter(|id| *active.table.deployment(*id).name == *name);
            ids.next().map(|id| active.places[id.index()])
        };
        let mut join = |id: DeploymentId| {
            let held = table.deployment(id);
            let dedicated = table.model(held.model).dedicated.contains(&id);
            let model = &*table.model(held.model).name;
            let (region, provider) = (held.region.index(), held.provider.index());
            known(&held.name).unwrap_or_else(|| checker.join(&held.name, model, region, provider, dedicated))
        };
        let places: Vec<usize> = table.deployment_ids().map(&mut join).collect();
        let gone = before.into_iter().flat_map(|active| &active.places).filter(|place| !places.contains(place));
        gone.for_each(|place| checker.remove(*place));
        drop(checker);
        let mut plan_table = table.clone();
        if let Some(mutant) = self.mutant {
            mutant.alter_plan_table(&mut plan_table);
        }
        self.trace.note(self.now, [1, index as u64, 0], || format!("reload {index}"));
        self.active_tables.push(Arc::new(ActiveTable { table, plan_table, deployments, places }));
    }

    fn arrive(&mut self, request: usize) {
        let active = self.active_tables.last().expect("the first table is there from the start").clone();
        let (world, planned) = (self.world, &self.world.planned_requests[request]);
        self.trace.note(self.now, [2, request as u64, planned.key as u64], || {
            let (who, stream) = (&world.clients[planned.key].key.name, planned.stream);
            format!("request {request} of {who} for {}, stream: {stream}", planned.model)
        });
        let Some(plan) = self.build(request, &active) else { return self.end(request, End::Refused) };
        if !self.hold_first(request, &plan, &active) {
            return self.end(request, End::Refused);
        }
        let deadline = planned.at + planned.deadline.min(active.table.settings.total);
        let answer_by = planned.answer_by.map_or(deadline, |answer_by| deadline.min(planned.at + answer_by));
        active.deployments.view_for(self.payer(request), None).request(self.instant());
        self.checker.borrow_mut().request(request);
        if let Some(after) = planned.leaves_after {
            self.later(planned.at + after, Event::ClientGone(request));
        }
        let mode = AnswerMode::of(planned.stream, false);
        self.active_requests[request] = Some(ActiveRequest {
            plan,
            active,
            mode,
            deadline,
            answer_by,
            running: Vec::new(),
            schedule: Schedule::default(),
            reported: Vec::new(),
            committed: false,
        });
        self.advance(request);
    }

    fn build(&mut self, request: usize, active: &ActiveTable) -> Option<RoutePlan> {
        let planned = &self.world.planned_requests[request];
        let mut key = self.world.clients[planned.key].key.clone();
        let mut deadline = self.instant() + planned.deadline.min(active.table.settings.total);
        let answer_by = planned.answer_by.map_or(deadline, |after| deadline.min(self.instant() + after));
        let mut no_fallback = planned.no_fallback;
        let mut table = std::borrow::Cow::Borrowed(&active.table);
        if let Some(mutant) = self.mutant {
            key = mutant.alter_key(&key);
            match mutant {
                Mutant::MixesCapacity => mutant.alter_build_table(table.to_mut()),
                Mutant::IgnoresTheDeadline => deadline += Duration::from_secs(3600),
                Mutant::IgnoresNoFallback => no_fallback = false,
                _ => {}
            }
        }
        let metadata = RequestMetadata {
            model: planned.model.into(),
            model_span: 0..0,
            stream: planned.stream,
            ask_usage: None,
            max_output: None,
            choices: 1,
            inputs: 1,
            user: None,
            features: FeatureSet::default(),
            cost_facts: CostFacts::default(),
            given: Vec::new(),
            refers_to: Vec::new(),
            is_stored: false,
        };
        let call = Call::new(Endpoint::Chat, Bytes::new(), metadata);
        let authorized = authorize(&table, &key, &call).ok()?;
        RoutePlan::build(
            &table,
            &authorized,
            &call,
            PlanTerms { no_fallback, deadline, answer_by, priced_at_ms: 0 },
            self.rng.draw(),
        )
        .ok()
    }

    /// The team as which the health registry knows the client of `request`.
    fn team(&self, request: usize) -> TeamId {
        if self.mutant == Some(Mutant::MixesTeams) { TeamId(100 + request as u32 % 50) } else { self.payer(request) }
    }

    /// The team whose share of the budgets pays for the extra attempts of `request`.
    fn payer(&self, request: usize) -> TeamId {
        self.world.clients[self.world.planned_requests[request].key].id
    }

    /// Asks the plan what to do next, and does it.
    fn advance(&mut self, request: usize) {
        let Some(mut active_request) = self.active_requests[request].take() else { return };
        let active = active_request.active.clone();
        let draw = self.rng.draw();
        let health = CheckedHealth {
            view: active.deployments.view_for(self.team(request), None),
            budgets: active.deployments.view_for(self.payer(request), None),
            active: &active,
            checker: &self.checker,
            mutant: self.mutant,
            first: active_request.plan.attempts() == 0,
            taken: Cell::new(None),
        };
        match active_request.plan.next(&active.plan_table, &health, self.instant(), draw) {
            PlanStep::Try(attempt) => {
                let taken = health.taken.get().expect("what is tried was taken");
                self.first_of_step(request, active_request, attempt, taken);
            }
            PlanStep::Wait(pause) => {
                self.checker.borrow_mut().coverage.see(CoverageEvent::Pause);
                self.trace.note(self.now, [3, request as u64, pause.as_nanos() as u64], || {
                    format!("request {request} waits {pause:?}")
                });
                self.later(self.now + pause, Event::Wake(request));
                self.active_requests[request] = Some(active_request);
            }
            PlanStep::GiveUp(reason) => {
                self.take_back_if_to_blame(request, active_request);
                if matches!(reason, GiveUpReason::Unavailable { .. }) {
                    self.checker.borrow_mut().coverage.see(CoverageEvent::Unavailable);
                }
                self.trace.note(self.now, [10, request as u64, 0], || format!("request {request}: {reason:?}"));
                self.end(request, End::GaveUp);
            }
        }
    }

    /// Makes the first attempt of a step of the plan, unless a budget has too little left for it.
    fn first_of_step(
        &mut self,
        request: usize,
        mut active_request: ActiveRequest,
        attempt: Attempt<SimulatedPermit>,
        taken: TakenHealth,
    ) {
        let id = (request, attempt.number);
        let Some(cost) = self.hold_again(id, &active_request.active, attempt.deployment) else {
            attempt.permit.abandoned(self.instant());
            return self.end(request, End::Refused);
        };
        self.send(request, &mut active_request, attempt, cost, (taken, false));
        self.begin_schedule(request, &mut active_request);
        self.active_requests[request] = Some(active_request);
        self.watch(request);
    }

    fn send(
        &mut self,
        request: usize,
        active_request: &mut ActiveRequest,
        attempt: Attempt<SimulatedPermit>,
        cost: AttemptCost,
        // Whether another one is in flight.
        (taken, beside): (TakenHealth, bool),
    ) {
        let Attempt { number, deployment, permit: sim_permit, .. } = attempt;
        let active = active_request.active.clone();
        let place = active.places[deployment.index()];
        let last_resort = matches!(taken.kind, PermitKind::Trial | PermitKind::DespiteSilence);
        let healthy = if number > 1 || last_resort { self.healthy(request, active_request) } else { Vec::new() };
        let retry_left = self.has_retry_left(request, &active);
        let model = active.table.model(active.table.deployment(deployment).model);
        let start = AttemptStart {
            id: (request, number),
            place,
            availability: taken.view.availability,
            silent: taken.view.silent,
            kind: taken.kind,
            state: taken.state,
            average: taken.view.average,
            fresh_credential: taken.view.fresh_credential,
            beside,
            retry_left,
            max_attempts: active.table.settings.max_attempts,
            max_concurrent: active.table.deployment(deployment).max_concurrent,
            spills: model.dedicated.iter().any(|id| active.table.deployment(*id).spill),
            deadline: active_request.deadline,
            healthy: &healthy,
        };
        let sent = self.checker.borrow_mut().attempt(&start);
        let name = &active.table.deployment(deployment).name;
        self.trace.attempt(self.now, (request, number), (place, name), taken.kind, beside);
        let planned = &self.world.planned_requests[request];
        let outcome = self.world.scripts[name].outcome(self.now, planned, model, &mut self.provider_rng);
        let signs = sim_permit.real().map(Permit::signs_of_life);
        let gives_signs = self.world.scripts[name].at(self.now) == Behaviour::SlowWithSigns;
        let (outcome, broken) = self.schedule(&sent, outcome, active_request.deadline, gives_signs);
        // Its first token is late: that ends it unless its deployment is at work.
        if matches!(outcome, ScriptedOutcome::Answers { first, .. } if planned.stream && first > model.first_token) {
            self.later(self.now + model.first_token, Event::Fail(request, number));
        }
        active_request.running.push(Running { sim_permit, signs, sent, outcome, broken, cost });
    }

    /// Schedules the events of an attempt, with the deadline considered.
    fn schedule(
        &mut self,
        sent: &SentAttempt,
        outcome: ScriptedOutcome,
        deadline: Duration,
        gives_signs: bool,
    ) -> (ScriptedOutcome, Option<Failure>) {
        let (request, number) = sent.id;
        let in_time = |after: Duration| self.now + after < deadline;
        let late = ScriptedOutcome::Fails { after: deadline.saturating_sub(self.now), failure: Failure::Deadline };
        let (outcome, broken) = match outcome {
            ScriptedOutcome::Fails { after, .. } if in_time(after) => (outcome, None),
            ScriptedOutcome::Answers { end, broken, .. } if in_time(end) => (outcome, broken),
            ScriptedOutcome::Answers { first, .. } if in_time(first) => (
                ScriptedOutcome::Answers { first, end: deadline.saturating_sub(self.now), broken: None },
                Some(Failure::Deadline),
            ),
            _ => (late, None),
        };
        match outcome {
            ScriptedOutcome::Fails { after, .. } => self.later(self.now + after, Event::Fail(request, number)),
            ScriptedOutcome::Answers { first, .. } => self.later(self.now + first, Event::Commit(request, number)),
        }
        if gives_signs {
            self.later(self.now + KEEP_ALIVE, Event::Sign(request, number));
        }
        (outcome, broken)
    }

    /// The deployments of the plan that were not tried, are healthy and would answer in time now.
    fn healthy(&self, request: usize, active_request: &ActiveRequest) -> Vec<usize> {
        let active = &active_request.active;
        let view = active.deployments.view_for(self.team(request), None);
        let ids = active_request.plan.candidate_models().iter().flat_map(|candidate| &candidate.deployments);
        let well = ids.filter(|id| {
            let view = view.view(**id, active_request.mode, self.instant());
            let flows = matches!(view.availability, Availability::Flowing { .. });
            let in_time = view.average.is_none_or(|average| self.now + average < active_request.deadline);
            flows && !view.full && !view.silent && in_time
        });
        well.map(|id| active.places[id.index()]).collect()
    }

    fn has_retry_left(&self, request: usize, active: &ActiveTable) -> bool {
        active.deployments.view_for(self.payer(request), None).has_extra(ExtraBudget::Retry, self.instant())
    }

    fn blocked_a_day_later(&self) -> Vec<Arc<str>> {
        let later = self.instant() + Duration::from_secs(24 * 3600);
        let Some(active) = self.active_tables.last() else { return Vec::new() };
        let view = active.deployments.view_for(self.world.clients[0].id, None);
        let availability =
            |id: &DeploymentId| health::HealthSource::view(&view, *id, AnswerMode::Stream, later).availability;
        let blocked = |id: &DeploymentId| matches!(availability(id), Availability::Blocked { .. });
        active.table.deployment_ids().filter(blocked).map(|id| active.table.deployment(id).name.clone()).collect()
    }

    /// The running attempt, if it is still in flight.
    fn running(&mut self, request: usize, number: u32) -> Option<&mut Running> {
        self.active_requests[request].as_mut()?.running.iter_mut().find(|running| running.sent.id.1 == number)
    }

    /// Takes the running attempt, if it is still in flight.
    fn take_running(&mut self, request: usize, number: u32) -> Option<Running> {
        let running = &mut self.active_requests[request].as_mut()?.running;
        let index = running.iter().position(|running| running.sent.id.1 == number)?;
        Some(running.remove(index))
    }

    fn fail(&mut self, request: usize, number: u32) {
        let now = self.instant();
        if self.is_waited_for(request, number) {
            return;
        }
        let Some(running) = self.take_running(request, number) else { return };
        let failure = match running.outcome {
            ScriptedOutcome::Fails { failure, .. } => failure,
            ScriptedOutcome::Answers { .. } => Failure::FirstTokenTimeout,
        };
        self.record(request, running, failure, now);
        let active_request = active_request_of(&mut self.active_requests, request);
        if active_request.plan.has_given_up() {
            self.cancel(request, Failure::Overtaken);
        }
        if active_request_of(&mut self.active_requests, request).running.is_empty() {
            self.advance(request);
        } else {
            self.watch(request);
        }
    }

    /// Whether the attempt has answered, or is given more time because its deployment is slow and not silent; like
    /// `upstream`, which looks again every second.
    fn is_waited_for(&mut self, request: usize, number: u32) -> bool {
        let (now, at) = (self.instant(), self.now);
        let Some(active_request) = &mut self.active_requests[request] else { return true };
        let (committed, deadline) = (active_request.committed, active_request.deadline);
        let Some(running) = active_request.running.iter_mut().find(|running| running.sent.id.1 == number) else {
            return true;
        };
        let late = match running.outcome {
            ScriptedOutcome::Fails { failure, .. } => failure == Failure::FirstTokenTimeout,
            ScriptedOutcome::Answers { .. } if committed => return true,
            ScriptedOutcome::Answers { .. } => true,
        };
        if !late || !running.signs.as_ref().is_some_and(|signs| signs.is_slow(now)) {
            return false;
        }
        let next = at + LATE_AGAIN;
        if next >= deadline {
            let after = deadline - running.sent.at;
            running.outcome = ScriptedOutcome::Fails { after, failure: Failure::Deadline };
        }
        self.later(next.min(deadline), Event::Fail(request, number));
        true
    }

    /// A request that failed alike at two deployments, and that nothing served, is no evidence.
    fn take_back_if_to_blame(&mut self, request: usize, given_up: ActiveRequest) {
        if given_up.plan.is_to_blame() {
            for (number, reported) in given_up.reported {
                reported.take_back(self.instant());
                self.checker.borrow_mut().taken_back((request, number));
            }
        }
    }

    /// Records a failed attempt in plan, permit and budgets, like `relay/attempts.rs`.
    fn record(&mut self, request: usize, mut running: Running, failure: Failure, now: Instant) {
        if ScriptedOutcome::is_heard(failure) {
            if let Some(signs) = &mut running.signs {
                signs.heard(now);
            }
            self.checker.borrow_mut().sign(&running.sent);
        }
        if ScriptedOutcome::is_whole(failure) {
            self.checker.borrow_mut().came_on(&running.sent);
        }
        let active_request = active_request_of(&mut self.active_requests, request);
        let last_was_good = running.sim_permit.real().is_some_and(Permit::last_was_good);
        let age = self.now - running.sent.at;
        let number = running.sent.id.1;
        let end = FailedAttempt { failure, age, last_was_good };
        let recorded = active_request.plan.record(&active_request.active.plan_table, number, end, now);
        if let SimulatedPermit::Real(permit) = running.sim_permit {
            let reported = permit.failed(&report_of(recorded.failure), recorded.evidence, now);
            active_request.reported.extend(reported.map(|reported| (number, reported)));
        }
        let active = active_request.active.clone();
        let counts = recorded.evidence == Evidence::Counts;
        self.finished(&active, &running.sent, Some(recorded.failure), counts);
        self.pay_failed((request, number), running.cost, recorded.failure);
    }

    fn commit(&mut self, request: usize, number: u32) {
        let (now, is_stream) = (self.instant(), self.world.planned_requests[request].stream);
        let Some(Running { sim_permit, signs, sent, outcome: ScriptedOutcome::Answers { first, end, .. }, .. }) =
            self.running(request, number)
        else {
            return;
        };
        // Head and first frame.
        signs.iter().for_each(|signs| (0..2).for_each(|_| signs.heard(now)));
        if let SimulatedPermit::Real(permit) = sim_permit {
            permit.answered(now);
        }
        let (sent, rest) = (*sent, *end - *first);
        (0..2).for_each(|_| self.checker.borrow_mut().sign(&sent));
        self.checker.borrow_mut().answered(&sent);
        self.trace.note(self.now, [4, request as u64, u64::from(number)], || {
            format!("request {request} is answered by {number}")
        });
        let active_request = active_request_of(&mut self.active_requests, request);
        active_request.committed = true;
        let active = active_request.active.clone();
        self.observe(&active, &sent);
        self.cancel_others(request, number, Failure::Overtaken);
        self.later(self.now + rest, Event::Finish(request, number));
        if is_stream {
            self.later(self.now + FRAME_EVERY, Event::Sign(request, number));
        }
    }

    fn finish(&mut self, request: usize, number: u32) {
        let now = self.instant();
        let Some(running) = self.take_running(request, number) else { return };
        let (sent, broken) = (running.sent, running.broken);
        let active = active_request_of(&mut self.active_requests, request).active.clone();
        match (running.sim_permit, broken) {
            (SimulatedPermit::Real(permit), None) => permit.ended(now),
            (SimulatedPermit::Real(permit), Some(failure)) => permit.broke(&report_of(failure), now),
            (SimulatedPermit::Forged, _) => {}
        }
        self.finished(&active, &sent, broken, true);
        self.pay(&active, &sent, running.cost, 1.0);
        match (self.mutant, broken) {
            (Some(Mutant::RetriesAfterTheCommit), Some(failure)) => {
                let end = FailedAttempt { failure, age: Duration::MAX, last_was_good: false };
                let active_request = active_request_of(&mut self.active_requests, request);
                active_request.plan.record(&active.plan_table, number, end, now);
                self.advance(request);
            }
            (_, None) => self.end(request, End::Served),
            (_, Some(_)) => self.end(request, End::Broken),
        }
    }

    fn client_leaves(&mut self, request: usize) {
        let Some(active_request) = self.active_requests[request].take() else { return };
        let now = self.instant();
        self.checker.borrow_mut().coverage.see(CoverageEvent::ClientGone);
        for Running { sim_permit, sent, outcome, cost, .. } in active_request.running {
            // What is leaked stays in flight, for the registry and so for the checker.
            if self.mutant != Some(Mutant::LeaksPermits) {
                self.checker.borrow_mut().dropped(&sent);
            }
            self.pay_unfinished(&active_request.active, &sent, outcome, cost);
            match self.mutant {
                Some(Mutant::LeaksPermits) => std::mem::forget(sim_permit),
                _ => sim_permit.abandoned(now),
            }
            self.observe(&active_request.active, &sent);
        }
        if self.mutant != Some(Mutant::NeverSettlesAbandoned) {
            self.end(request, End::Abandoned);
        }
    }

    /// Tells the checker the state of the deployment that `sent` was at.
    fn observe(&self, active: &ActiveTable, sent: &SentAttempt) {
        let index = active.places.iter().position(|place| *place == sent.place).expect("it was chosen from there");
        let state = active.deployments.states(self.instant())[index].1;
        let view = active.deployments.view_for(self.team(sent.id.0), None);
        let availability = view.view(DeploymentId(index as u32), AnswerMode::Stream, self.instant()).availability;
        let until = match availability {
            Availability::Blocked { until } => Some(until - self.start),
            Availability::Flowing { .. } | Availability::ProbeDue => None,
        };
        self.checker.borrow_mut().observe(sent, state, until);
    }

    fn finished(&mut self, active: &ActiveTable, sent: &SentAttempt, failure: Option<Failure>, counts: bool) {
        self.trace.note(self.now, [6, sent.id.0 as u64, u64::from(sent.id.1)], || {
            format!("attempt {}.{} ends: {failure:?}, counts: {counts}", sent.id.0, sent.id.1)
        });
        self.checker.borrow_mut().finished(sent, failure, counts);
        self.observe(active, sent);
    }

    /// Ends a request, however it ended.
    fn end(&mut self, request: usize, how: End) {
        self.trace.note(self.now, [5, request as u64, how as u64], || format!("request {request}: {how:?}"));
        self.active_requests[request] = None;
        if let Some(budgets) = &mut self.budgets {
            budgets.release(request);
        }
        let mut checker = self.checker.borrow_mut();
        checker.end(request, how);
        if self.mutant == Some(Mutant::SettlesTwice) {
            checker.end(request, how);
        }
    }
}

fn active_request_of(active_requests: &mut [Option<ActiveRequest>], request: usize) -> &mut ActiveRequest {
    active_requests[request].as_mut().expect("the request has not ended")
}

/// A failure as a permit is told it, without what is for people only.
fn report_of(failure: Failure) -> FailureReport<'static> {
    FailureReport { failure, status: None, detail: "", labels: AttemptLabels::default() }
}

impl Trace {
    fn note(&mut self, now: Duration, words: [u64; 3], message: impl FnOnce() -> String) {
        for word in [now.as_nanos() as u64].into_iter().chain(words) {
            self.hash = (self.hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
        if self.verbose {
            println!("{now:>16.3?}  {}", message());
        }
    }

    fn attempt(
        &mut self,
        now: Duration,
        (request, number): AttemptId,
        (place, name): (usize, &Arc<str>),
        kind: PermitKind,
        beside: bool,
    ) {
        let words = [7, (request as u64) << 8 | u64::from(number), place as u64];
        self.note(now, words, || {
            format!("attempt {request}.{number} at {name}, {kind:?}{}", if beside { ", beside" } else { "" })
        });
        self.attempts.push((name.clone(), now));
    }
}

/// The real health source of one team; the checker gets every view of it.
struct CheckedHealth<'a, 'w> {
    view: TeamHealthView<'a>,
    budgets: TeamHealthView<'a>,
    active: &'a ActiveTable,
    checker: &'a RefCell<Checker<'w>>,
    mutant: Option<Mutant>,
    /// The request has made no attempt yet.
    first: bool,
    taken: Cell<Option<TakenHealth>>,
}

impl CheckedHealth<'_, '_> {
    fn state(&self, deployment: DeploymentId, now: Instant) -> StateName {
        self.active.deployments.states(now)[deployment.index()].1
    }
}

impl health::HealthSource for CheckedHealth<'_, '_> {
    type Permit = SimulatedPermit;

    fn view(&self, deployment: DeploymentId, mode: AnswerMode, now: Instant) -> HealthView {
        let view = self.view.view(deployment, mode, now);
        let altered =
            self.mutant.map(|mutant| mutant.alter_view(view, self.first, now, || self.state(deployment, now)));
        let view = altered.unwrap_or(view);
        self.checker.borrow_mut().view(self.active.places[deployment.index()], &view);
        view
    }

    fn take(
        &self,
        deployment: DeploymentId,
        mode: AnswerMode,
        kind: PermitKind,
        now: Instant,
    ) -> Option<SimulatedPermit> {
        let view = self.view.view(deployment, mode, now);
        let flows = matches!(view.availability, Availability::Flowing { .. });
        let state = if flows { StateName::Closed } else { self.state(deployment, now) };
        let forges = self.mutant.is_some_and(Mutant::forges_permits);
        let sim_permit = match self.view.take(deployment, mode, kind, now) {
            Some(permit) => SimulatedPermit::Real(permit),
            None if forges => SimulatedPermit::Forged,
            None => return None,
        };
        self.taken.set(Some(TakenHealth { view, state, kind }));
        Some(sim_permit)
    }

    fn has_extra(&self, budget: ExtraBudget, now: Instant) -> bool {
        self.mutant.is_some_and(|mutant| mutant.never_counts(budget)) || self.budgets.has_extra(budget, now)
    }

    fn spend_extra(&self, budget: ExtraBudget, now: Instant) -> bool {
        self.mutant.is_some_and(|mutant| mutant.never_counts(budget)) || self.budgets.spend_extra(budget, now)
    }

    fn give_back_extra(&self, budget: ExtraBudget, now: Instant) {
        self.budgets.give_back_extra(budget, now);
    }
}

/// How often a stream that is answered gives a sign.
const FRAME_EVERY: Duration = Duration::from_millis(250);
/// How soon a late first token is looked at again.
const LATE_AGAIN: Duration = Duration::from_secs(1);
