//! What operators are told of a provider that counts otherwise than it was asked to, and what follows for its budgets.
//!
//! Both are read off a request at its end. Nothing of the request itself is said.
//!
//! Start reading in [`report_overrun`].

use super::RelayContext;
use super::spend::RequestCost;
use super::state::RequestState;
use crate::domain::pause::PauseScope;
use std::time::Instant;

/// A provider that serves more than it was asked for is the one way for a budget to be overspent: budgeted requests are
/// kept from it.
pub(super) fn report_overrun(context: &RelayContext, state: &RequestState, cost: RequestCost, now: Instant) {
    let paused = state.pause.as_ref().zip(state.key.as_ref());
    let paused = paused.map_or(PauseScope::None, |(pause, key)| pause.begin(state.key_id, &key.name, now));
    tracing::error!(
        request_id = %state.id,
        deployment = state.deployment(),
        key = state.key.as_ref().map(|key| &*key.name),
        cost_usd = %cost.cost,
        beyond_usd = %cost.beyond,
        paused = paused.label(),
        "a provider served more than it was asked for: its budgets are charged in full, and budgeted requests of this \
         key, of a team with two such keys, or of all after a second team's, are kept from the deployment"
    );
    context.telemetry.metrics.beyond_hold();
}

/// A count that no answer can have is ignored and the answer estimated, so that no provider's error empties a budget.
pub(super) fn report_impossible_usage(context: &RelayContext, state: &RequestState) {
    tracing::error!(
        request_id = %state.id,
        deployment = state.deployment(),
        "a provider counted tokens as no answer has them: the answer is charged as estimated"
    );
    context.telemetry.metrics.impossible_usage();
}
