//! How a day's requests pay: a hold before anything is sent, and what becomes of it.
//!
//! Must never be kinder than `relay/spend.rs`, whose rules these are, with numbers drawn in place of tokens.
//! Start reading in [`Day::hold_first`]; a request's last word is in [`Day::end`].

use super::{Day, Live, Running};
use crate::books::Breach;
use crate::laws::{End, Sent, Sight};
use crate::money::{self, Answer};
use crate::mutant::Mutant;
use crate::provider::Fate;
use tierway::domain::failure::Failure;
use tierway::domain::id::DeploymentId;
use tierway::domain::money::NanoUsd;
use tierway::domain::routing::plan::RoutePlan;

/// What an attempt can cost, and what its answer has.
#[derive(Clone, Copy)]
pub struct Worth {
    worst: NanoUsd,
    /// Its provider's output, in tokens, and whether it says how much that was.
    output: u64,
    is_reported: bool,
}

impl Day<'_> {
    /// The process is killed: all that is under way is gone, and nobody settles it.
    pub fn crash(&mut self) {
        let mut referee = self.referee.borrow_mut();
        referee.sights.see(Sight::Crash);
        self.trace.note(self.now, [8, 0, 0], || "the process is killed".to_owned());
        let mut gone = Vec::new();
        for (request, flight) in self.flights.iter_mut().enumerate() {
            let Some(flight) = flight.take() else { continue };
            gone.push(request);
            if let (Some(Running { sent, worth, .. }), Some(cash)) = (&flight.running, &mut self.cash) {
                referee.dropped(sent);
                cash.served(request, worth.worst);
            }
        }
        drop(referee);
        let kept = self.cash.as_mut().map(|cash| cash.crash(self.now));
        self.judge(kept.unwrap_or(Ok(())));
        gone.into_iter().for_each(|request| self.end(request, End::Abandoned));
    }

    /// Holds the dearest that the plan can come to.
    pub fn hold_first(&mut self, request: usize, plan: &RoutePlan, live: &Live) -> bool {
        let size = self.world.wishes[request].size;
        let ids = plan.candidate_models().iter().flat_map(|candidate| &candidate.deployments);
        let dearest = ids.map(|id| money::worst(live.model(*id), size)).max();
        if request.is_multiple_of(16)
            && let Some(cash) = &mut self.cash
        {
            cash.tidy(self.now);
        }
        self.hold(request, dearest.unwrap_or(NanoUsd::ZERO))
    }

    /// Before an attempt at `deployment`: what it can cost is held, again if it must be.
    pub fn hold_again(&mut self, request: usize, live: &Live, deployment: DeploymentId) -> Option<Worth> {
        let worst = money::worst(live.model(deployment), self.world.wishes[request].size);
        let Some(cash) = &mut self.cash else { return Some(Worth { worst, output: 0, is_reported: true }) };
        let (output, is_reported) = cash.writes();
        let suffices = match (self.mutant, cash.held(request)) {
            (Some(Mutant::SendsWithoutAHold), None) | (Some(Mutant::SendsUnderTooSmallAHold), Some(_)) => true,
            (_, held) => held.is_some_and(|held| held >= worst),
        };
        if !suffices {
            cash.release(request);
            self.referee.borrow_mut().sights.see(Sight::FurtherHold);
            if !self.hold(request, worst) {
                return None;
            }
        }
        let kept = self.cash.as_mut()?.sent(request, worst);
        self.judge(kept);
        Some(Worth { worst, output, is_reported })
    }

    fn hold(&mut self, request: usize, amount: NanoUsd) -> bool {
        let Some(cash) = &mut self.cash else { return true };
        let answer = cash.hold(request, amount, self.now).unwrap_or_else(|(law, reported)| {
            self.referee.borrow_mut().breach(law, reported);
            Answer::Held
        });
        self.referee.borrow_mut().sights.see(match answer {
            Answer::Held => Sight::Hold,
            Answer::Over => Sight::OverBudget,
            Answer::Unavailable => Sight::LeaseStoreGone,
        });
        self.trace.note(self.now, [9, request as u64, amount.0 as u64 ^ answer as u64], || {
            format!("request {request} asks to hold {amount}: {answer:?}")
        });
        answer == Answer::Held
    }

    /// An attempt failed. Where its provider may ask to be paid for it, it is charged as the worst.
    pub fn pay_failed(&mut self, request: usize, worth: Worth, failure: Failure) {
        let Some(cash) = &mut self.cash else { return };
        if failure.may_cost() {
            cash.served(request, worth.worst);
            let kept = cash.settle(request, worth.worst, self.now);
            self.judge(kept);
        } else {
            cash.unsent(request);
        }
    }

    /// An attempt ended before its answer did, for its client left.
    pub fn pay_unfinished(&mut self, request: usize, live: &Live, sent: &Sent, fate: Fate, worth: Worth) {
        if let Some(cash) = &mut self.cash {
            cash.forget(request);
        }
        match fate {
            Fate::Answers { first, end, .. } if self.now >= sent.at + first => {
                let seen = (self.now - sent.at - first).as_secs_f64() / (end - first).as_secs_f64().max(1e-9);
                self.pay(request, live, sent, Worth { is_reported: false, ..worth }, seen.min(1.0));
            }
            _ => self.pay_failed(request, worth, Failure::Deadline),
        }
    }

    /// An answer of which `seen` arrived is paid: as it was counted, or as it can have been at most.
    pub fn pay(&mut self, request: usize, live: &Live, sent: &Sent, worth: Worth, seen: f64) {
        let Some(cash) = &mut self.cash else { return };
        let place = live.places.iter().position(|place| *place == sent.place).expect("it was chosen from there");
        let (model, size) = (live.model(DeploymentId(place as u32)), self.world.wishes[request].size);
        let output = (worth.output as f64 * seen) as u64;
        let served = money::cost(model, size, output);
        let actual = match self.mutant {
            _ if worth.is_reported => served,
            Some(Mutant::TakesSilenceForFree) => NanoUsd::ZERO,
            _ => money::cost(model, money::input_bound(size), output).min(worth.worst),
        };
        cash.served(request, served);
        let kept = cash.settle(request, actual, self.now);
        self.judge(kept);
    }

    fn judge(&mut self, kept: Result<(), Breach>) {
        kept.unwrap_or_else(|(law, reported)| self.referee.borrow_mut().breach(law, reported));
    }
}
