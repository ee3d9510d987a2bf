//! A request's money: what is held for it before anything is sent, and what it is charged in the end.
//!
//! Every attempt runs under a hold that covers the worst it can cost. What was answered is settled as it
//! was counted; what was sent and never answered, as what its attempt could cost at most. A key without a
//! budget passes here without a trace.
//!
//! Start reading in [`hold_first`]; the end is [`RequestSpend::end`].

use super::active_config::ActiveConfig;
use super::{RelayContext, ServeError};
use crate::domain::authorize::KeyRecord;
use crate::domain::budget::{Charge, OverBudget};
use crate::domain::call::Call;
use crate::domain::estimate::Basis;
use crate::domain::failure::Failure;
use crate::domain::hold::CostBound;
use crate::domain::id::DeploymentId;
use crate::domain::money::NanoUsd;
use crate::domain::pricing::Price;
use crate::domain::refusal::Refusal;
use crate::domain::routing::plan::RoutePlan;
use crate::domain::usage::Usage;
use crate::store::budget_pool::{FundingSources, Hold, HoldError};

/// How often an answer is shortened anew because others were quicker.
const CLAMPS: usize = 4;
/// What was sent was not free, however little is known of it.
const LEAST: NanoUsd = NanoUsd(1);

/// What a request holds and was charged so far.
#[derive(Default)]
pub(super) struct RequestSpend {
    funding: FundingSources,
    unpriced: bool,
    hold: Option<Hold>,
    charges: Vec<Charge>,
    /// What attempts that were sent and not answered cost, as estimated.
    unanswered: NanoUsd,
    /// The attempt under way, where a budget pays for it.
    attempt: Option<Bounds>,
    /// The lower output ceiling that was written into the request.
    pub(super) clamped: Option<u64>,
}

/// What an attempt can cost and read at most.
#[derive(Clone, Copy)]
struct Bounds {
    worst: NanoUsd,
    input: u64,
}

/// What an answer cost, and how that is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bill {
    pub(super) cost: NanoUsd,
    /// Whether a part of it was estimated.
    pub(super) estimated: bool,
    /// By how much it is more than what was held.
    pub(super) beyond: NanoUsd,
}

/// Holds what `call` may cost at most before anything is sent. Gives the call back, with a lower output
/// ceiling where its policy says so and the budget leaves room for no more.
pub(super) async fn hold_first(
    context: &RelayContext,
    active: &ActiveConfig,
    key: &KeyRecord,
    mut call: Call,
    plan: &RoutePlan,
    spend: &mut RequestSpend,
) -> Result<Call, ServeError> {
    let mut clamps = if key.policy.clamp && call.endpoint().writes_text() { CLAMPS } else { 0 };
    loop {
        let bounds = CostBound::of(&active.snapshot.table, &call, plan.priced_at_ms()).serving_unpriced(spend.unpriced);
        let worst = bounds.dearest(plan.candidate_models());
        let over = match context.budget_pool.hold(&spend.funding, worst, context.clock.unix_ms()).await {
            Ok(hold) => {
                spend.hold = Some(hold);
                return Ok(call);
            }
            Err(HoldError::Unavailable) => return Err(Refusal::LedgerUnavailable.into()),
            Err(HoldError::Over(over)) => over,
        };
        let room = bounds.output_within(plan.candidate_models(), over.left);
        let Some(tokens) = room.filter(|_| clamps > 0) else { return Err(refused(over)) };
        clamps -= 1;
        call = call.with_ceiling(tokens);
        spend.clamped = Some(tokens);
    }
}

fn refused(over: OverBudget) -> ServeError {
    Refusal::OverBudget(Box::new(over)).into()
}

impl RequestSpend {
    /// Nothing is held yet; `funding` will pay. `unpriced`: whether what has no price is served all the same.
    pub(super) fn by(funding: FundingSources, unpriced: bool) -> Self {
        Self { funding, unpriced, ..Self::default() }
    }

    /// Whether anybody pays, so that money must be held.
    pub(super) fn is_paid(&self) -> bool {
        !self.funding.is_empty()
    }

    /// Makes sure that the next attempt, at `deployment`, runs under a hold, and notes that it is sent.
    ///
    /// A hold whose attempt will not be charged for serves the next one; after one that will be, another is
    /// taken, and where that does not fit the request ends with the budget's refusal: it is what the client
    /// can do something about.
    pub(super) async fn before_attempt(
        &mut self,
        context: &RelayContext,
        worst: CostBound<'_>,
        deployment: DeploymentId,
    ) -> Result<(), ServeError> {
        if self.funding.is_empty() {
            return Ok(());
        }
        let worst = worst.serving_unpriced(self.unpriced);
        let bounds = Bounds { worst: worst.at(deployment), input: worst.input(deployment) };
        // One left over from a cheaper place covers no dearer one.
        if let Some(hold) = self.hold.take_if(|hold| hold.amount() < bounds.worst) {
            hold.release();
        }
        if self.hold.is_none() {
            let held = context.budget_pool.hold(&self.funding, bounds.worst, context.clock.unix_ms()).await;
            self.hold = Some(held.map_err(|no| match no {
                HoldError::Over(over) => refused(over),
                HoldError::Unavailable => Refusal::LedgerUnavailable.into(),
            })?);
        }
        if let Some(hold) = &mut self.hold {
            hold.sent();
        }
        self.attempt = Some(bounds);
        Ok(())
    }

    /// Notes that the attempt under way failed.
    pub(super) fn attempt_failed(&mut self, failure: Failure) {
        let Some(bounds) = self.attempt.take() else { return };
        if failure.may_cost() {
            self.charge_unanswered(bounds.worst);
        } else if let Some(hold) = &mut self.hold {
            hold.unsent();
        }
    }

    /// What the answer costs, and what was charged before it: the number for header, receipt and budgets.
    pub(super) fn bill(&self, price: Option<Price>, usage: Option<Usage>, basis: Basis) -> Bill {
        let (Some(price), Some(usage)) = (price, usage) else {
            return Bill { cost: self.unanswered, estimated: self.unanswered > NanoUsd::ZERO, beyond: NanoUsd::ZERO };
        };
        let (cost, beyond) = match (self.attempt, &self.hold) {
            (Some(bounds), Some(_)) if basis.is_estimate() => {
                // All the input it can have been, also where a count that came too early says less: a token is a
                // byte or more, and that slack is all that stands against output that nobody saw.
                let at_most = Usage { input: usage.input.max(bounds.input), ..usage };
                (price.cost(at_most).max(LEAST).min(bounds.worst), NanoUsd::ZERO)
            }
            (_, Some(hold)) => {
                let cost = price.cost(usage);
                (cost, NanoUsd(cost.0.saturating_sub(hold.amount().0).max(0)))
            }
            (_, None) => (price.cost(usage), NanoUsd::ZERO),
        };
        Bill {
            cost: NanoUsd(cost.0.saturating_add(self.unanswered.0)),
            estimated: basis.is_estimate() || self.unanswered > NanoUsd::ZERO,
            beyond,
        }
    }

    /// Settles or releases what is held, once.
    pub(super) fn end(&mut self, price: Option<Price>, usage: Option<Usage>, basis: Basis) -> (Bill, Vec<Charge>) {
        if usage.is_none()
            && let Some(bounds) = self.attempt.take()
            && self.hold.as_ref().is_some_and(Hold::is_sent)
        {
            self.charge_unanswered(bounds.worst);
        }
        let bill = self.bill(price, usage, basis);
        if let Some(hold) = self.hold.take() {
            match usage {
                Some(_) => self.charges.extend(hold.settle(NanoUsd(bill.cost.0 - self.unanswered.0))),
                None => hold.release(),
            }
        }
        (bill, std::mem::take(&mut self.charges))
    }

    fn charge_unanswered(&mut self, worst: NanoUsd) {
        if let Some(hold) = self.hold.take() {
            self.unanswered = NanoUsd(self.unanswered.0.saturating_add(worst.0));
            self.charges.extend(hold.settle(worst));
        }
    }
}
