//! What a plan makes of hosts that do not have the request's endpoint.
//!
//! Such a host says nothing about the request and nothing about its model: what the client gets is what the others say.
//!
//! Start reading in [`RoutePlan::lacks_endpoint`].

use super::{RoutePlan, TrackedAttempt};
use crate::domain::failure::Failure;
use crate::domain::id::DeploymentId;

impl RoutePlan {
    /// Whether none of its deployments has the request's endpoint: each said so to this request, or `is_known` to lack it.
    pub fn lacks_endpoint(&self, is_known: impl Fn(DeploymentId) -> bool) -> bool {
        let mut all = self.deployments().map(|(_, id)| id);
        all.all(|id| match self.last_failure_of(id) {
            Some(said) => said == Failure::NoEndpoint,
            None => is_known(id),
        })
    }

    /// The first attempt at a deployment that may have the endpoint.
    pub(super) fn first_tried(&self) -> Option<&TrackedAttempt> {
        self.tried.iter().find(|attempt| attempt.failure != Some(Failure::NoEndpoint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::random::RandomValue;
    use crate::domain::routing::fixture::{authorized, chat, policy, table};
    use crate::domain::routing::plan::PlanTerms;
    use std::time::Instant;

    /// Whether a plan with two deployments lacks the endpoint, after these attempts at the first ones; some are known to.
    fn lacks(said: &[Failure], known: &[u32]) -> bool {
        let now = Instant::now();
        let table = table(&[("a", &["us", "eu"])], &[("default", &["a"], &[])]);
        let call = chat("a");
        let authorized = authorized(&table, policy(&table, &["*"]), &call);
        let terms = PlanTerms { no_fallback: false, deadline: now, answer_by: now, priced_at_ms: 0 };
        let mut plan = RoutePlan::build(&table, &authorized, &call, terms, RandomValue(0)).expect("a plan");
        let ids: Vec<DeploymentId> = plan.deployments().map(|(_, id)| id).collect();
        for (deployment, failure) in ids.into_iter().zip(said) {
            let region = table.deployment(deployment).region;
            plan.tried.push(TrackedAttempt {
                model_index: 0,
                deployment,
                region,
                failure: Some(*failure),
                asked_until: None,
                paid: None,
                further_trial: false,
            });
        }
        plan.lacks_endpoint(|id| known.contains(&id.0))
    }

    #[test]
    fn what_a_host_said_to_this_request_counts_before_what_is_known() {
        use Failure::{NoEndpoint, Status};
        assert!(!lacks(&[], &[]) && !lacks(&[], &[0]) && lacks(&[], &[0, 1]));
        assert!(lacks(&[NoEndpoint, NoEndpoint], &[]) && lacks(&[NoEndpoint], &[1]) && !lacks(&[NoEndpoint], &[]));
        assert!(!lacks(&[Status(503)], &[0, 1]), "it may have it after all");
    }
}
