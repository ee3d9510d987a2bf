//! The end of every request: the receipt is priced and written, limits are corrected, slots freed.
//!
//! Ledger, metrics and the access log read the one [`Receipt`] made here, so they cannot disagree.
//! Only a [`RequestGuard`](super::ticket::Ticket) calls this, once.

use super::RelayContext;
use super::guard::RequestState;
use super::spend::Bill;
use crate::domain::money::NanoUsd;
use crate::domain::receipt::{Outcome, Reason, Receipt};
use std::sync::Arc;
use std::time::Instant;

/// How a request ended.
pub(super) struct End {
    pub(super) outcome: Outcome,
    pub(super) reason: Reason,
    /// What the client read as HTTP status.
    pub(super) status: u16,
}

/// Settles `state` at `now`.
pub(super) fn settle(context: &RelayContext, state: &mut RequestState, end: End, now: Instant) {
    if let Some(admission) = state.admission.take() {
        // Nothing was sent to any model: the tokens go back. Sent and unknown: they stay as taken.
        let used = if state.attempts.is_empty() { Some(0) } else { state.usage.map(|usage| usage.total()) };
        context.counters.settle(admission, used, now);
    }
    let duration = now.saturating_duration_since(state.received);
    let (bill, charges) = state.spend.end(state.price(), state.usage, state.basis);
    if bill.beyond > NanoUsd::ZERO {
        alarm(context, state, bill);
    }
    if state.impossible_usage {
        alarm_of_usage(context, state);
    }
    let receipt = Arc::new(Receipt {
        id: state.id,
        received_unix_ms: context.clock.unix_ms() - i64::try_from(duration.as_millis()).unwrap_or(0),
        endpoint: state.endpoint,
        key: state.key.as_ref().map(|key| key.name.clone()),
        team: state.key.as_ref().and_then(|key| key.team.clone()),
        policy: state.key.as_ref().map(|key| key.policy.name.clone()),
        asked_model: state.asked_model.take(),
        stream: state.stream,
        served: state.served.take(),
        attempts: std::mem::take(&mut state.attempts),
        outcome: end.outcome,
        reason: end.reason,
        limit: state.limit,
        status: end.status,
        usage: state.usage,
        estimated: bill.estimated,
        price: state.price(),
        price_version: state.price.take().map(|version| version.version),
        cost: bill.cost,
        charges,
        first_token: state.first_token,
        duration,
        overhead: state.overhead.unwrap_or_default(),
    });
    context.ledger.append(&receipt);
    if !receipt.charges.is_empty() {
        context.lease_store.settle(&receipt);
    }
    context.telemetry.record(&receipt);
}

/// A provider that serves more than it was asked for is the one way for a budget to be overspent.
fn alarm(context: &RelayContext, state: &RequestState, bill: Bill) {
    let deployment = state.served.as_ref().map_or("", |served| &served.deployment);
    tracing::error!(
        request_id = %state.id,
        deployment,
        cost_usd = %bill.cost,
        beyond_usd = %bill.beyond,
        "a provider served more than it was asked for: its budgets are charged in full"
    );
    context.telemetry.metrics.beyond_hold();
}

/// What cannot be a count is none: the answer is estimated, so that no provider's slip empties a budget.
fn alarm_of_usage(context: &RelayContext, state: &RequestState) {
    let deployment = state.served.as_ref().map_or("", |served| &served.deployment);
    tracing::error!(
        request_id = %state.id,
        deployment,
        "a provider counted tokens as no answer has them: the answer is charged as estimated"
    );
    context.telemetry.metrics.impossible_usage();
}
