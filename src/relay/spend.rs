//! A request's money: what is held for it before anything is sent, and what it is charged at its end.
//!
//! Every attempt has a hold of its own that covers the most it can cost; nothing may be sent without it. An
//! answered attempt is settled at its counted usage, an attempt that was sent and never answered at the most it
//! can cost. A key without a budget holds nothing.
//!
//! Start reading in [`hold_first`]; the end is [`RequestSpend::end`].

mod broken;
mod deferred;

pub(super) use deferred::DeferredSpend;

use super::active_config::ActiveConfig;
use super::in_flight::{AttemptNumbered, InFlightAttempts};
use super::{RelayContext, ServeError};
use crate::domain::budget::{Charge, OverBudget};
use crate::domain::call::Call;
use crate::domain::estimate::UsageBasis;
use crate::domain::hold::CostBound;
use crate::domain::id::DeploymentId;
use crate::domain::money::NanoUsd;
use crate::domain::policy::KeyRecord;
use crate::domain::pricing::PriceVersion;
use crate::domain::refusal::Refusal;
use crate::domain::routing::plan::RoutePlan;
use crate::domain::usage::Usage;
use crate::store::ReceiptRoom;
use crate::store::budget_pool::{FundingSources, Hold, HoldError};

/// How often the output ceiling is lowered again because other requests took money in the meantime.
const CLAMPS: usize = 4;
/// The least cost of an attempt that was sent, however little is known of its usage.
const LEAST: NanoUsd = NanoUsd(1);

/// What a request holds, and what it was charged so far.
#[derive(Default)]
pub(super) struct RequestSpend {
    funding: FundingSources,
    /// Whether a model without a price is served, and costs nothing.
    unpriced: bool,
    /// Room for the receipt in the ledger: what the request is charged must not be lost.
    pub(super) room: Option<ReceiptRoom>,
    /// A hold that no attempt uses yet.
    spare: Option<Hold>,
    /// Attempts in flight that are paid for, and the one that answered until the request's end.
    running: InFlightAttempts<AttemptSpend>,
    /// The number of the attempt that answered.
    answered: Option<u32>,
    charges: Vec<Charge>,
    /// The estimated cost of attempts that were sent and not answered.
    unanswered: NanoUsd,
    /// The answer broke and is among what is charged, and no other attempt has answered.
    is_charged: bool,
    /// What answers is charged all that is held for it, unless its provider counted it to the end.
    whole_hold: bool,
    /// The lower output ceiling that was written into the request.
    pub(super) clamped: Option<u64>,
}

/// One attempt's money.
struct AttemptSpend {
    number: u32,
    hold: Hold,
    bounds: AttemptBounds,
}

/// The most that an attempt can cost, and the most input it can have.
#[derive(Clone, Copy)]
struct AttemptBounds {
    worst: NanoUsd,
    /// Input tokens.
    input: u64,
}

/// The cost of a request, and whether it is exact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RequestCost {
    pub(super) cost: NanoUsd,
    /// Whether a part of it was estimated.
    pub(super) estimated: bool,
    /// The amount by which it exceeds what was held.
    pub(super) beyond: NanoUsd,
}

/// Reserves room for the receipt, and holds the most that `call` can cost, before anything is sent. Returns the call,
/// with a lower output ceiling where its policy says so and the budget has too little left.
pub(super) async fn hold_first(
    context: &RelayContext,
    active: &ActiveConfig,
    key: &KeyRecord,
    mut call: Call,
    plan: &RoutePlan,
    spend: &mut RequestSpend,
) -> Result<Call, ServeError> {
    spend.room = Some(context.ledger.reserve().ok_or(Refusal::LedgerUnavailable)?);
    let mut clamps = if key.policy.clamp && call.endpoint().writes_text() { CLAMPS } else { 0 };
    loop {
        let bounds = CostBound::of(&active.snapshot.table, &call, plan.priced_at_ms()).serving_unpriced(spend.unpriced);
        let worst = bounds.dearest(plan.candidate_models());
        let over = match context.budget_pool.hold(&spend.funding, worst, context.clock.unix_ms()).await {
            Ok(hold) => {
                spend.spare = Some(hold);
                return Ok(call);
            }
            Err(HoldError::Unavailable) => return Err(Refusal::LedgerUnavailable.into()),
            Err(HoldError::Over(over)) => over,
        };
        let affordable = bounds.output_within(plan.candidate_models(), over.left);
        let Some(tokens) = affordable.filter(|_| clamps > 0) else { return Err(refused(over)) };
        clamps -= 1;
        call = call.with_ceiling(tokens);
        spend.clamped = Some(tokens);
    }
}

fn refused(over: OverBudget) -> ServeError {
    Refusal::OverBudget(Box::new(over)).into()
}

impl AttemptNumbered for AttemptSpend {
    fn number(&self) -> u32 {
        self.number
    }
}

impl RequestSpend {
    /// `funding` pays, and nothing is held yet. `unpriced`: whether a model without a price is served.
    pub(super) fn funded_by(funding: FundingSources, unpriced: bool) -> Self {
        Self { funding, unpriced, ..Self::default() }
    }

    /// Whether a budget or credit pays, so that money must be held.
    pub(super) fn is_paid(&self) -> bool {
        !self.funding.is_empty()
    }

    /// Makes sure that attempt `number`, at `deployment`, has a hold of its own, and records that it is sent.
    ///
    /// The hold of an attempt that is not charged is used for the next one; after an attempt that is charged,
    /// another is taken. Where it does not fit, the request ends with the budget's refusal, because that is the
    /// reason the client can act on.
    pub(super) async fn before_attempt(
        &mut self,
        context: &RelayContext,
        number: u32,
        bound: CostBound<'_>,
        deployment: DeploymentId,
    ) -> Result<(), ServeError> {
        if self.funding.is_empty() {
            return Ok(());
        }
        let bound = bound.serving_unpriced(self.unpriced);
        let bounds = AttemptBounds { worst: bound.at(deployment), input: bound.input(deployment) };
        // A hold left over from a cheaper deployment does not cover a more expensive one.
        if let Some(hold) = self.spare.take_if(|hold| hold.amount() < bounds.worst) {
            hold.release();
        }
        let mut hold = match self.spare.take() {
            Some(hold) => hold,
            None => {
                let held = context.budget_pool.hold(&self.funding, bounds.worst, context.clock.unix_ms()).await;
                held.map_err(|error| match error {
                    HoldError::Over(over) => refused(over),
                    HoldError::Unavailable => Refusal::LedgerUnavailable.into(),
                })?
            }
        };
        hold.sent();
        self.running.insert(AttemptSpend { number, hold, bounds });
        Ok(())
    }

    /// Records that attempt `number` failed, and whether its provider may be paid for it.
    pub(super) fn attempt_failed(&mut self, number: u32, may_cost: bool) {
        let Some(AttemptSpend { mut hold, bounds, .. }) = self.running.take(number) else { return };
        if may_cost {
            self.charge_unanswered(hold, bounds.worst);
            return;
        }
        hold.unsent();
        match &self.spare {
            Some(spare) if spare.amount() >= hold.amount() => hold.release(),
            _ => {
                if let Some(smaller) = self.spare.replace(hold) {
                    smaller.release();
                }
            }
        }
    }

    /// Records that attempt `number` answered: it is billed at the request's end.
    pub(super) fn attempt_answered(&mut self, number: u32) {
        (self.answered, self.is_charged) = (Some(number), false);
    }

    /// Charges the answer all that is held for it, unless its provider counted it to the end: it goes on unseen.
    pub(super) fn charge_whole_hold(&mut self) {
        self.whole_hold = true;
    }

    /// The cost of the answer and of all that was charged before it: the number in header, receipt and budgets.
    pub(super) fn bill(&self, price: Option<&PriceVersion>, usage: Option<Usage>, basis: UsageBasis) -> RequestCost {
        let (Some(price), Some(usage), false) = (price, usage, self.is_charged) else {
            return RequestCost {
                cost: self.unanswered,
                estimated: self.unanswered > NanoUsd::ZERO,
                beyond: NanoUsd::ZERO,
            };
        };
        let of_answer = self.answered.and_then(|number| self.running.find(number));
        let (cost, beyond) = match of_answer {
            Some(AttemptSpend { bounds, .. }) if basis.is_estimate() && self.whole_hold => {
                (bounds.worst, NanoUsd::ZERO)
            }
            Some(AttemptSpend { bounds, .. }) if basis.is_estimate() => {
                // With the most input that it can have had, even where an early count says less: a token is a byte
                // or more, and only that margin covers output that was not seen.
                let at_most = Usage { input: usage.input.max(bounds.input), ..usage };
                (price.for_input(at_most.input).cost(at_most).max(LEAST).min(bounds.worst), NanoUsd::ZERO)
            }
            Some(AttemptSpend { hold, .. }) => {
                let cost = price.for_input(usage.input).cost(usage);
                (cost, NanoUsd(cost.0.saturating_sub(hold.amount().0).max(0)))
            }
            None => (price.for_input(usage.input).cost(usage), NanoUsd::ZERO),
        };
        RequestCost {
            cost: NanoUsd(cost.0.saturating_add(self.unanswered.0)),
            estimated: basis.is_estimate() || self.unanswered > NanoUsd::ZERO,
            beyond,
        }
    }

    /// Settles or releases everything that is held, once.
    pub(super) fn end(
        &mut self,
        price: Option<&PriceVersion>,
        usage: Option<Usage>,
        basis: UsageBasis,
    ) -> (RequestCost, Vec<Charge>) {
        let answered = self.answered.filter(|_| usage.is_some());
        // Sent and not answered, or answered without any trace of its usage: charged the most it can have cost.
        while let Some(AttemptSpend { hold, bounds, .. }) = self.running.take_if(|one| Some(one.number) != answered) {
            self.charge_unanswered(hold, bounds.worst);
        }
        let bill = self.bill(price, usage, basis);
        if let Some(AttemptSpend { hold, .. }) = answered.and_then(|number| self.running.take(number)) {
            self.charges.extend(hold.settle(NanoUsd(bill.cost.0 - self.unanswered.0)));
        }
        if let Some(hold) = self.spare.take() {
            hold.release();
        }
        (bill, std::mem::take(&mut self.charges))
    }

    fn charge_unanswered(&mut self, hold: Hold, worst: NanoUsd) {
        self.unanswered = NanoUsd(self.unanswered.0.saturating_add(worst.0));
        self.charges.extend(hold.settle(worst));
    }
}
