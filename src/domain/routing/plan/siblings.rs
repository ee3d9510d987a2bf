//! What of a plan is left once its answer broke after the commit point: other deployments of the same model.
//!
//! The client has a part of the answer. Only the same model may write the rest of it, so everything else is left out;
//! attempts, time and the retry budget stay those of the request.

use super::RoutePlan;
use crate::domain::failure::{Failure, FailureAction};

impl RoutePlan {
    /// Records that the answer of attempt `number` broke by `failure` after its commit point. From here on only other
    /// deployments of its model are tried. Returns whether any is in the plan and the failure lets another be asked.
    ///
    /// # Panics
    /// When no attempt of this plan has that number.
    pub fn retain_siblings(&mut self, number: u32, failure: Failure) -> bool {
        let broken = &mut self.tried[number as usize - 1];
        broken.failure = Some(failure);
        let (deployment, model) = (broken.deployment, self.candidate_models[broken.model_index].model);
        (self.retry_same, self.paused) = (None, false);
        // Attempts name their model by its place: none is taken out.
        for candidate in &mut self.candidate_models {
            candidate.deployments.retain(|id| candidate.model == model && *id != deployment);
        }
        failure.next_action() == FailureAction::Other && self.deployments().next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::DeploymentId;
    use crate::domain::random::RandomValue;
    use crate::domain::routing::builder::CandidateModel;
    use crate::domain::routing::fixture::{authorized, chat, policy, table};
    use crate::domain::routing::plan::{PlanTerms, TrackedAttempt};
    use std::time::Instant;

    /// Whether the answer of `tried`, the only attempt, may be replayed, and where: `a` is at 0 and 1, `b` at 2 and 3,
    /// and each is reached through two tiers.
    fn left(tried: u32, failure: Failure) -> (bool, Vec<u32>) {
        let now = Instant::now();
        let models: &[(&str, &[&str])] = &[("a", &["us", "eu"]), ("b", &["us", "eu"])];
        let table = table(models, &[("one", &["a", "b"], &["two"]), ("two", &["a"], &[])]);
        let call = chat("one");
        let authorized = authorized(&table, policy(&table, &["*"]), &call);
        let terms = PlanTerms { no_fallback: false, deadline: now, answer_by: now, priced_at_ms: 0 };
        let mut plan = RoutePlan::build(&table, &authorized, &call, terms, RandomValue(0)).expect("a plan");
        let deployment = DeploymentId(tried);
        let holds = |candidate: &CandidateModel| candidate.deployments.contains(&deployment);
        let model_index = plan.candidate_models.iter().position(holds).expect("it is in the plan");
        plan.tried.push(TrackedAttempt {
            model_index,
            deployment,
            region: table.deployment(deployment).region,
            failure: None,
            asked_until: None,
            paid: None,
            further_trial: false,
        });
        let may = plan.retain_siblings(1, failure);
        let mut ids: Vec<u32> = plan.deployments().map(|(_, id)| id.0).collect();
        ids.dedup();
        (may, ids)
    }

    #[test]
    fn only_other_deployments_of_the_model_are_left() {
        assert_eq!(left(0, Failure::Reset), (true, vec![1]));
        assert_eq!(left(1, Failure::Truncated), (true, vec![0]));
        assert_eq!(left(2, Failure::IdleTimeout), (true, vec![3]));
    }

    #[test]
    fn time_that_is_over_and_memory_that_is_used_up_end_the_answer() {
        assert!(!left(0, Failure::Deadline).0);
        assert!(!left(0, Failure::NotHeld).0);
    }
}
