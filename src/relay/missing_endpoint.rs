//! Requests to an endpoint that none of the deployments that may serve them has, as their providers said.
//!
//! Start reading in [`Dispatch::lack_endpoint`].

use super::dispatch::Dispatch;
use super::health::TeamHealthView;
use crate::domain::refusal::Refusal;
use crate::domain::routing::builder::{CandidateModel, models_instead};
use crate::domain::routing::plan::RoutePlan;

impl Dispatch<'_> {
    /// Whether none of the deployments of `plan` has the request's endpoint, as far as is known.
    pub(super) fn lack_endpoint(&self, plan: &RoutePlan, health: &TeamHealthView<'_>) -> bool {
        let now = self.context.clock.now();
        plan.lacks_endpoint(|id| health.lacks_endpoint(id, now))
    }

    /// The refusal of such a request.
    #[cold]
    pub(super) fn no_endpoint(&self, plan: &RoutePlan, health: &TeamHealthView<'_>) -> Refusal {
        let now = self.context.clock.now();
        let table = &self.active.snapshot.table;
        let has = |candidate: &CandidateModel| {
            let is_of_plan = plan.candidate_models().iter().any(|lacking| lacking.model == candidate.model);
            !is_of_plan && !candidate.deployments.iter().all(|id| health.lacks_endpoint(*id, now))
        };
        Refusal::NoEndpoint {
            model: self.call.metadata().model.clone(),
            what: self.call.endpoint().words(),
            instead: models_instead(table, self.authorized, self.call, has),
        }
    }
}
