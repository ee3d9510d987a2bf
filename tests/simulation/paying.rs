//! The payment of simulated requests: a hold before anything is sent, and its settlement or release.
//!
//! It must never be less strict than `relay/spend.rs`, whose rules these are, with random numbers for tokens.
//! Start reading in [`Simulation::hold_first`]; the end of a request is [`Simulation::end`].

use super::{ActiveTable, Running, Simulation};
use crate::expected_balances::Violated;
use crate::invariants::{AttemptId, CoverageEvent, End, SentAttempt};
use crate::money::{self, Answer};
use crate::mutant::Mutant;
use crate::provider::ScriptedOutcome;
use tierway::domain::failure::Failure;
use tierway::domain::id::DeploymentId;
use tierway::domain::money::NanoUsd;
use tierway::domain::routing::plan::RoutePlan;

/// What an attempt can cost, and the length of its answer.
#[derive(Clone, Copy)]
pub struct AttemptCost {
    worst: NanoUsd,
    /// The provider's output, in tokens, and whether the provider reports it.
    output: u64,
    is_reported: bool,
}

impl Simulation<'_> {
    /// The process is killed: all requests in flight are lost, and none is settled.
    pub fn crash(&mut self) {
        let mut checker = self.checker.borrow_mut();
        checker.coverage.see(CoverageEvent::Crash);
        self.trace.note(self.now, [8, 0, 0], || "the process is killed".to_owned());
        let mut gone = Vec::new();
        for (request, active_request) in self.active_requests.iter_mut().enumerate() {
            let Some(active_request) = active_request.take() else { continue };
            gone.push(request);
            let now = self.start + self.now;
            for Running { sim_permit, sent, cost, .. } in active_request.running {
                checker.dropped(&sent);
                if let Some(budgets) = &mut self.budgets {
                    budgets.served(request, sent.id.1, cost.worst);
                }
                sim_permit.abandoned(now);
            }
        }
        drop(checker);
        let kept = self.budgets.as_mut().map(|budgets| budgets.crash(self.now));
        self.check(kept.unwrap_or(Ok(())));
        gone.into_iter().for_each(|request| self.end(request, End::Abandoned));
    }

    /// Holds the cost of the most expensive deployment in the plan.
    pub fn hold_first(&mut self, request: usize, plan: &RoutePlan, active: &ActiveTable) -> bool {
        let size = self.world.planned_requests[request].size;
        let ids = plan.candidate_models().iter().flat_map(|candidate| &candidate.deployments);
        let dearest = ids.map(|id| money::worst(active.model(*id), size)).max();
        if request.is_multiple_of(16)
            && let Some(budgets) = &mut self.budgets
        {
            budgets.tidy(self.now);
        }
        self.hold(request, dearest.unwrap_or(NanoUsd::ZERO))
    }

    /// Before attempt `number` at `deployment`: holds what it can cost, with a new hold if necessary.
    pub fn hold_again(
        &mut self,
        (request, number): AttemptId,
        active: &ActiveTable,
        deployment: DeploymentId,
    ) -> Option<AttemptCost> {
        let worst = money::worst(active.model(deployment), self.world.planned_requests[request].size);
        let Some(budgets) = &mut self.budgets else { return Some(AttemptCost { worst, output: 0, is_reported: true }) };
        let (output, is_reported) = budgets.writes();
        let suffices = match (self.mutant, budgets.spare(request)) {
            (Some(Mutant::SendsWithoutAHold), None) | (Some(Mutant::SendsUnderTooSmallAHold), Some(_)) => true,
            (_, held) => held.is_some_and(|held| held >= worst),
        };
        if !suffices {
            budgets.release(request);
            self.checker.borrow_mut().coverage.see(CoverageEvent::FurtherHold);
            if !self.hold(request, worst) {
                return None;
            }
        }
        let kept = self.budgets.as_mut()?.sent(request, number, worst);
        self.check(kept);
        Some(AttemptCost { worst, output, is_reported })
    }

    fn hold(&mut self, request: usize, amount: NanoUsd) -> bool {
        let Some(budgets) = &mut self.budgets else { return true };
        let answer = budgets.hold(request, amount, self.now).unwrap_or_else(|(invariant, message)| {
            self.checker.borrow_mut().violate(invariant, message);
            Answer::Held
        });
        self.checker.borrow_mut().coverage.see(match answer {
            Answer::Held => CoverageEvent::Hold,
            Answer::Over => CoverageEvent::OverBudget,
            Answer::Unavailable => CoverageEvent::LeaseStoreGone,
        });
        self.trace.note(self.now, [9, request as u64, amount.0 as u64 ^ answer as u64], || {
            format!("request {request} asks to hold {amount}: {answer:?}")
        });
        answer == Answer::Held
    }

    /// An attempt failed. Where its provider may charge for it, it costs the most that it can.
    pub fn pay_failed(&mut self, (request, number): AttemptId, cost: AttemptCost, failure: Failure) {
        let Some(budgets) = &mut self.budgets else { return };
        if failure.may_cost() {
            budgets.served(request, number, cost.worst);
            if self.mutant == Some(Mutant::NeverBooksTheLoser) && failure == Failure::Overtaken {
                return budgets.unsent(request, number);
            }
            let kept = budgets.settle(request, number, cost.worst, self.now);
            self.check(kept);
        } else {
            budgets.unsent(request, number);
        }
    }

    /// An attempt ended before its answer did, because its client disconnected.
    pub fn pay_unfinished(
        &mut self,
        active: &ActiveTable,
        sent: &SentAttempt,
        outcome: ScriptedOutcome,
        cost: AttemptCost,
    ) {
        if let Some(budgets) = &mut self.budgets {
            budgets.forget(sent.id.0);
        }
        match outcome {
            ScriptedOutcome::Answers { first, end, .. } if self.now >= sent.at + first => {
                let seen = (self.now - sent.at - first).as_secs_f64() / (end - first).as_secs_f64().max(1e-9);
                self.pay(active, sent, AttemptCost { is_reported: false, ..cost }, seen.min(1.0));
            }
            _ => self.pay_failed(sent.id, cost, Failure::Deadline),
        }
    }

    /// Pays for an answer of which the share `seen` arrived: what was reported, or the most that it can have been.
    pub fn pay(&mut self, active: &ActiveTable, sent: &SentAttempt, cost: AttemptCost, seen: f64) {
        let (request, number) = sent.id;
        let Some(budgets) = &mut self.budgets else { return };
        let place = active.places.iter().position(|place| *place == sent.place).expect("it was chosen from there");
        let (model, size) = (active.model(DeploymentId(place as u32)), self.world.planned_requests[request].size);
        let output = (cost.output as f64 * seen) as u64;
        let served = money::cost(model, size, output);
        let actual = match self.mutant {
            _ if cost.is_reported => served,
            Some(Mutant::ChargesNothingWithoutUsage) => NanoUsd::ZERO,
            _ => money::cost(model, money::input_bound(size), output).min(cost.worst),
        };
        budgets.served(request, number, served);
        let kept = budgets.settle(request, number, actual, self.now);
        self.check(kept);
    }

    fn check(&mut self, kept: Result<(), Violated>) {
        kept.unwrap_or_else(|(invariant, message)| self.checker.borrow_mut().violate(invariant, message));
    }
}
