//! The end of every request: the receipt is priced and written, limits are corrected, slots freed.
//!
//! Ledger, metrics and the access log read the one [`Receipt`] made here, so they cannot disagree.
//! Only a [`Ticket`](super::ticket::Ticket) calls this, once.

use super::Desk;
use super::money::Bill;
use super::ticket::Entry;
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

/// Settles `entry` at `now`.
pub(super) fn settle(desk: &Desk, entry: &mut Entry, end: End, now: Instant) {
    if let Some(admission) = entry.admission.take() {
        // Nothing was sent to any model: the tokens go back. Sent and unknown: they stay as taken.
        let used = if entry.attempts.is_empty() { Some(0) } else { entry.usage.map(|usage| usage.total()) };
        desk.counters.settle(admission, used, now);
    }
    let duration = now.saturating_duration_since(entry.received);
    let (bill, charges) = entry.purchase.end(entry.price(), entry.usage, entry.basis);
    if bill.beyond > NanoUsd::ZERO {
        alarm(desk, entry, bill);
    }
    if entry.impossible_usage {
        alarm_of_usage(desk, entry);
    }
    let receipt = Arc::new(Receipt {
        id: entry.id,
        received_unix_ms: desk.clock.unix_ms() - i64::try_from(duration.as_millis()).unwrap_or(0),
        endpoint: entry.endpoint,
        key: entry.key.as_ref().map(|key| key.name.clone()),
        team: entry.key.as_ref().and_then(|key| key.team.clone()),
        policy: entry.key.as_ref().map(|key| key.policy.name.clone()),
        asked_model: entry.asked_model.take(),
        stream: entry.stream,
        served: entry.served.take(),
        attempts: std::mem::take(&mut entry.attempts),
        outcome: end.outcome,
        reason: end.reason,
        limit: entry.limit,
        status: end.status,
        usage: entry.usage,
        estimated: bill.estimated,
        price: entry.price(),
        price_version: entry.price.take().map(|version| version.version),
        cost: bill.cost,
        charges,
        first_token: entry.first_token,
        duration,
        overhead: entry.overhead.unwrap_or_default(),
    });
    desk.ledger.append(&receipt);
    if !receipt.charges.is_empty() {
        desk.bank.settle(&receipt);
    }
    desk.telemetry.record(&receipt);
}

/// A provider that serves more than it was asked for is the one way for a budget to be overspent.
fn alarm(desk: &Desk, entry: &Entry, bill: Bill) {
    let deployment = entry.served.as_ref().map_or("", |served| &served.deployment);
    tracing::error!(
        request_id = %entry.id,
        deployment,
        cost_usd = %bill.cost,
        beyond_usd = %bill.beyond,
        "a provider served more than it was asked for: its budgets are charged in full"
    );
    desk.telemetry.metrics.beyond_hold();
}

/// What cannot be a count is none: the answer is estimated, so that no provider's slip empties a budget.
fn alarm_of_usage(desk: &Desk, entry: &Entry) {
    let deployment = entry.served.as_ref().map_or("", |served| &served.deployment);
    tracing::error!(
        request_id = %entry.id,
        deployment,
        "a provider counted tokens as no answer has them: the answer is charged as estimated"
    );
    desk.telemetry.metrics.impossible_usage();
}
