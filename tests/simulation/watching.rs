//! What is done about attempts while they are in flight: a second one beside the first, or another one instead.
//!
//! It imitates `relay/attempts.rs`, whose loop this is with events in place of futures, and must never do more than
//! that loop does.
//! Start reading in [`Simulation::due`].

use super::{
    ActiveRequest, CheckedHealth, Event, FRAME_EVERY, Running, SimulatedPermit, Simulation, TakenHealth,
    active_request_of,
};
use crate::invariants::CoverageEvent;
use crate::mutant::Mutant;
use crate::provider::{KEEP_ALIVE, ScriptedOutcome};
use std::cell::Cell;
use std::time::Duration;
use tierway::domain::failure::Failure;
use tierway::domain::routing::AnswerMode;
use tierway::domain::routing::plan::{Attempt, BesideReason, PendingAttempts};
use tierway::relay::health::Permit;
use tierway::upstream::AttemptWatch;

/// When a second attempt is due, apart from silence.
#[derive(Default)]
pub struct Schedule {
    share_over: Option<Duration>,
    not_before: Duration,
    /// The deployments that could have answered when the step's first attempt was sent.
    others: Vec<usize>,
    /// The number of the latest look that was planned.
    turn: u64,
}

/// How soon an attempt that nothing could be done about is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// A deployment is silent after the instant, not at it.
const TICK: Duration = Duration::from_millis(1);

impl Simulation<'_> {
    /// The step's first attempt was sent just now.
    pub fn begin_schedule(&mut self, request: usize, active_request: &mut ActiveRequest) {
        let active = &active_request.active;
        let health = active.deployments.view_for(self.team(request), None);
        let share =
            active_request.plan.share_of_time(&active.plan_table, &health, std::time::Duration::MAX, self.instant());
        let share = share.filter(|_| self.mutant != Some(Mutant::NeverSharesTime));
        let turn = active_request.schedule.turn;
        let is_heard = self.world.planned_requests[request].answer_by.is_some();
        let others = if is_heard { self.healthy(request, active_request) } else { Vec::new() };
        let checked = !others.is_empty();
        active_request.schedule =
            Schedule { share_over: share.map(|share| self.now + share), not_before: self.now, others, turn };
        if !checked {
            return;
        }
        let (left, sent) = (active_request.answer_by.saturating_sub(self.now), active_request.running[0].sent);
        let usual = active_request.running[0].usual(active_request.mode);
        // With one other deployment left a share is half of the time: the longest that any can be.
        let over = self.now + (left / 2).max(usual) + 2 * LOOK_AGAIN;
        self.later(over, Event::ShareOver(request, sent.id.1));
    }

    /// Plans the next look at the attempts in flight.
    pub fn watch(&mut self, request: usize) {
        let start = self.start;
        let Some(active_request) = &self.active_requests[request] else { return };
        let schedule = &active_request.schedule;
        let silent = active_request.running.iter().filter_map(|running| running.sim_permit.real()?.silent_at());
        let silent = silent.map(|at| at.saturating_duration_since(start));
        let overdue = active_request.running.iter().map(|running| running.overdue_at(active_request));
        let alone = active_request.running.len() == 1;
        let overdue = if alone { overdue.min() } else { overdue.max() };
        let share = schedule.share_over.filter(|_| alone);
        let at = silent.chain(share).chain(overdue).min().map(|at| at.max(schedule.not_before) + TICK);
        let turn = schedule.turn + 1;
        active_request_of(&mut self.active_requests, request).schedule.turn = turn;
        if let Some(at) = at {
            self.later(at.max(self.now), Event::Due(request, turn));
        }
    }

    /// Looks whether something is to be done about the attempts in flight, and does it.
    pub fn due(&mut self, request: usize, turn: u64) {
        let waits =
            |active: &ActiveRequest| active.schedule.turn == turn && !active.running.is_empty() && !active.committed;
        if !self.active_requests[request].as_ref().is_some_and(waits) {
            return;
        }
        let Some(mut active_request) = self.active_requests[request].take() else { return };
        let (found, taken, why_beside) = self.what_is_due(request, &mut active_request);
        match found {
            Some(attempt) => {
                self.active_requests[request] = Some(active_request);
                self.cancel_longest_silent(request);
                let Some(mut active_request) = self.active_requests[request].take() else { return };
                let (id, beside) = ((request, attempt.number), why_beside);
                match self.hold_again(id, &active_request.active, attempt.deployment) {
                    Some(cost) => {
                        let taken = taken.expect("what is tried was taken");
                        self.send(request, &mut active_request, attempt, cost, (taken, beside));
                    }
                    None => {
                        let budgets = active_request.active.clone();
                        let budgets = budgets.deployments.view_for(self.payer(request), None);
                        active_request.plan.withdraw(attempt.number, &budgets, self.instant());
                        active_request.schedule.not_before = active_request.deadline;
                        attempt.permit.abandoned(self.instant());
                    }
                }
                self.active_requests[request] = Some(active_request);
                self.watch(request);
            }
            None => {
                active_request.schedule.not_before = self.now + LOOK_AGAIN;
                self.active_requests[request] = Some(active_request);
                self.watch(request);
            }
        }
    }

    /// Where two are in flight, the one whose deployment was heard longest ago makes room.
    fn cancel_longest_silent(&mut self, request: usize) {
        let Some(active_request) = &self.active_requests[request] else { return };
        let heard = |running: &Running| running.sim_permit.real().and_then(Permit::last_heard);
        let [one, other] = &active_request.running[..] else { return };
        let kept = if heard(other) < heard(one) { one } else { other }.sent.id.1;
        self.checker.borrow_mut().coverage.see(CoverageEvent::Replaced);
        if self.mutant != Some(Mutant::KeepsTheSilent) {
            self.cancel_others(request, kept, Failure::Silent);
        }
    }

    /// The attempt to make, if any, how its deployment was when it was taken, and whether it is made beside another.
    fn what_is_due(
        &mut self,
        request: usize,
        active_request: &mut ActiveRequest,
    ) -> (Option<Attempt<SimulatedPermit>>, Option<TakenHealth>, bool) {
        let (now, draw) = (self.instant(), self.rng.draw());
        let active = active_request.active.clone();
        let running = &active_request.running;
        let silent =
            running.iter().all(|running| running.sim_permit.real().is_some_and(|permit| permit.is_silent(now)));
        let is_over = active_request.schedule.share_over.is_some_and(|at| self.now > at);
        let overdue = running.iter().any(|running| self.now > running.overdue_at(active_request));
        let overdue = overdue && self.mutant != Some(Mutant::NeverSharesTime);
        let late = is_over || overdue;
        let in_vain = running.iter().all(|running| {
            running.sim_permit.real().is_some_and(|permit| permit.is_silent(now))
                || running.knows_usual(active_request.mode) && self.now > running.overdue_at(active_request)
        });
        let in_flight = PendingAttempts { alone: running.len() == 1, silent, hedge: false, late, in_vain };
        let health = CheckedHealth {
            view: active.deployments.view_for(self.team(request), None),
            budgets: active.deployments.view_for(self.payer(request), None),
            active: &active,
            checker: &self.checker,
            mutant: self.mutant,
            first: false,
            taken: Cell::new(None),
        };
        let plan = &mut active_request.plan;
        let due = plan.due(&active.plan_table, &health, in_flight, now, draw);
        let why = due.as_ref().and_then(|(_, why)| *why);
        if let Some(why) = why {
            self.checker.borrow_mut().coverage.see(match why {
                BesideReason::Rescue => CoverageEvent::Rescue,
                _ => CoverageEvent::SharedTime,
            });
        }
        (due.map(|(attempt, _)| attempt), health.taken.get(), why.is_some())
    }

    /// Cancels what is still in flight.
    pub fn cancel(&mut self, request: usize, failure: Failure) {
        self.cancel_others(request, 0, failure);
    }

    /// Cancels what is still in flight but for attempt `number`.
    pub fn cancel_others(&mut self, request: usize, number: u32, failure: Failure) {
        let now = self.instant();
        loop {
            let Some(active_request) = &mut self.active_requests[request] else { return };
            let Some(index) = active_request.running.iter().position(|running| running.sent.id.1 != number) else {
                return;
            };
            let running = active_request.running.remove(index);
            if failure == Failure::Overtaken {
                self.checker.borrow_mut().coverage.see(CoverageEvent::Overtaken);
            }
            self.record(request, running, failure, now);
        }
    }

    /// Something comes for an attempt: a comment before its first token, or a frame after it.
    pub fn sign(&mut self, request: usize, number: u32) {
        let (now, at) = (self.instant(), self.now);
        let Some(running) = self.running(request, number) else { return };
        let sent = running.sent;
        let every = match (running.outcome, &mut running.sim_permit) {
            (ScriptedOutcome::Answers { first, .. }, SimulatedPermit::Real(permit)) if sent.at + first <= at => {
                permit.heard(now);
                FRAME_EVERY
            }
            _ => {
                if let Some(signs) = &mut running.signs {
                    signs.heard(now);
                }
                KEEP_ALIVE
            }
        };
        self.checker.borrow_mut().sign(&sent);
        self.later(self.now + every, Event::Sign(request, number));
    }

    /// A request that could be answered elsewhere is not left waiting for one attempt alone.
    pub fn share_is_over(&mut self, request: usize, number: u32) {
        let Some(active_request) = &self.active_requests[request] else { return };
        // Where another one was made beside it and failed, the next look decides; where there was no money for
        // another one, none does.
        let alone = active_request.running.len() == 1 && active_request.plan.attempts() == number;
        let alone = alone && active_request.schedule.not_before < active_request.deadline;
        let attempts_left = active_request.plan.attempts() < active_request.active.table.settings.max_attempts;
        if !alone || active_request.committed || !attempts_left || self.now >= active_request.deadline {
            return;
        }
        let left = self.has_retry_left(request, &active_request.active);
        let mut healthy = self.healthy(request, active_request);
        healthy.retain(|place| active_request.schedule.others.contains(place));
        self.checker.borrow_mut().share_is_over(request, number, left, &healthy);
    }
}

impl Running {
    /// When it has waited so much longer than is usual at its deployment that it may be lost there.
    fn overdue_at(&self, active_request: &ActiveRequest) -> Duration {
        let active = &active_request.active;
        let place = active.places.iter().position(|place| *place == self.sent.place);
        let deployment = &active.table.deployments[place.expect("it was chosen from there")];
        let model = active.table.model(deployment.model);
        self.sent.at + model.late_after(active_request.mode).max(self.usual(active_request.mode) * 4)
    }

    fn knows_usual(&self, mode: AnswerMode) -> bool {
        self.sim_permit.real().is_some_and(|permit| permit.usual_first_token(mode, 99).is_some())
    }

    fn usual(&self, mode: AnswerMode) -> Duration {
        let permit: Option<&Permit> = self.sim_permit.real();
        permit.and_then(|permit| permit.usual_first_token(mode, 99)).unwrap_or_default()
    }
}
