//! The choice among deployments of one model that could all be tried now.
//!
//! It exists so that each strategy of `[routing] balance` is one line beside the others. It never changes who may be
//! chosen: candidates are what policy, residency, capacity and breakers left.
//!
//! Start reading in [`best`].

use crate::domain::breaker::Availability;
use crate::domain::id::DeploymentId;
use crate::domain::pricing::PriceVersion;
use crate::domain::random::RandomValue;
use crate::domain::routing::health::{HealthView, PermitKind};
use crate::domain::routing::split;
use crate::domain::routing::table::{BalanceStrategy, RoutingTable};

/// A deployment that could be tried now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) model_index: usize,
    pub(super) deployment: DeploymentId,
    pub(super) view: HealthView,
}

impl Candidate {
    /// Whether an attempt there is a probe, or asks a silent deployment.
    pub(super) fn is_probe(&self) -> bool {
        self.view.availability == Availability::ProbeDue || (self.view.silent && self.view.may_ask)
    }

    /// The kind of permit that an attempt there needs.
    pub(super) fn permit_kind(&self) -> PermitKind {
        match self.view {
            HealthView { silent: false, .. } => PermitKind::Usual,
            HealthView { may_ask: true, .. } => PermitKind::AskSilent,
            HealthView { .. } => PermitKind::DespiteSilence,
        }
    }
}

/// The best candidate of one model. A due probe goes first, or recovery would depend on chance; then deployments
/// whose credentials work and that are within their slow-start share; then, where there are none, the others.
pub(super) fn best(
    table: &RoutingTable,
    offered: &[Candidate],
    priced_at_ms: i64,
    draw: RandomValue,
) -> Option<Candidate> {
    if let Some(probe) = offered.iter().find(|candidate| candidate.is_probe()) {
        return Some(*probe);
    }
    let in_slow_start_share = |candidate: &Candidate| match candidate.view.availability {
        Availability::Flowing { share } => draw.salted(100 + u64::from(candidate.deployment.0)).unit() < share,
        Availability::ProbeDue | Availability::Blocked { .. } => true,
    };
    let narrowed = |keep: &dyn Fn(&Candidate) -> bool| -> Vec<Candidate> {
        offered.iter().copied().filter(|candidate| keep(candidate)).collect()
    };
    let mut pool = narrowed(&|candidate| !candidate.view.asked_last && in_slow_start_share(candidate));
    if pool.is_empty() {
        pool = narrowed(&|candidate| !candidate.view.asked_last);
    }
    if pool.is_empty() {
        pool = offered.to_vec();
    }
    let in_home_region = |c: &&Candidate| table.settings.home == Some(table.deployment(c.deployment).region);
    if pool.iter().any(|c| in_home_region(&c)) {
        pool.retain(|c| in_home_region(&c));
    }
    balance(table, &pool, priced_at_ms, draw)
}

fn balance(table: &RoutingTable, pool: &[Candidate], priced_at_ms: i64, draw: RandomValue) -> Option<Candidate> {
    let weight = |c: &Candidate| u64::from(table.deployment(c.deployment).weight);
    match table.settings.balance {
        BalanceStrategy::Ordered => pool.first().copied(),
        BalanceStrategy::Weighted => {
            let index = draw.weighted(pool.iter().map(weight));
            index.map_or(pool.first(), |index| pool.get(index)).copied()
        }
        BalanceStrategy::Latency => split::power_of_two(pool, draw, |c| c.view.load),
        BalanceStrategy::Cost => pool.iter().copied().min_by_key(|c| cost_of(table, c.deployment, priced_at_ms)),
    }
}

/// The value that `cost` compares: the price of one input and one output token; unknown prices come last.
fn cost_of(table: &RoutingTable, deployment: DeploymentId, priced_at_ms: i64) -> u64 {
    let version = table.price(deployment, priced_at_ms);
    version.map_or(u64::MAX, |PriceVersion { price, .. }| price.input.0.saturating_add(price.output.0))
}
