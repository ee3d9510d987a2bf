//! What of a plan is left while budgeted requests are kept from some deployments.
//!
//! Start reading in [`RoutePlan::exclude`].

use super::RoutePlan;
use crate::domain::id::DeploymentId;
use std::time::Instant;

impl RoutePlan {
    /// Leaves out every deployment but those that `stays` names.
    pub fn retain(&mut self, stays: impl Fn(DeploymentId) -> bool) {
        for candidate in &mut self.candidate_models {
            candidate.deployments.retain(|id| stays(*id));
        }
        self.candidate_models.retain(|candidate| !candidate.deployments.is_empty());
    }

    /// Leaves out the deployments that `paused_until` names an instant for, while others are left. Where none is, the
    /// plan stays as it was, and nothing may be sent: returns the soonest of the instants.
    pub fn exclude(&mut self, paused_until: impl Fn(DeploymentId) -> Option<Instant>) -> Option<Instant> {
        let all = || self.candidate_models.iter().flat_map(|candidate| &candidate.deployments);
        if all().all(|id| paused_until(*id).is_some()) {
            return all().filter_map(|id| paused_until(*id)).min();
        }
        self.retain(|id| paused_until(id).is_none());
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::random::RandomValue;
    use crate::domain::routing::fixture::{authorized, chat, policy, table};
    use crate::domain::routing::plan::PlanTerms;
    use std::time::Duration;

    /// The deployments left of two models with two each, and when the first pause of all of them ends, in seconds.
    fn left(paused: &[(u32, u64)]) -> (Vec<Vec<u32>>, Option<u64>) {
        let now = Instant::now();
        let table = table(&[("a", &["us", "eu"]), ("b", &["us", "eu"])], &[("default", &["a", "b"], &[])]);
        let call = chat("default");
        let authorized = authorized(&table, policy(&table, &["*"]), &call);
        let terms = PlanTerms { no_fallback: false, deadline: now, answer_by: now, priced_at_ms: 0 };
        let mut plan = RoutePlan::build(&table, &authorized, &call, terms, RandomValue(0)).expect("a plan");
        let until = |id: DeploymentId| {
            let pause = paused.iter().find(|(paused, _)| *paused == id.0);
            pause.map(|(_, seconds)| now + Duration::from_secs(*seconds))
        };
        let soonest = plan.exclude(until).map(|at| (at - now).as_secs());
        let ids = plan.candidate_models().iter().map(|candidate| candidate.deployments.iter().map(|id| id.0).collect());
        (ids.collect(), soonest)
    }

    #[test]
    fn a_plan_that_is_bound_to_some_deployments_has_no_other_one() {
        let now = Instant::now();
        let table = table(&[("a", &["us", "eu"]), ("b", &["us", "eu"])], &[("default", &["a", "b"], &[])]);
        let call = chat("default");
        let authorized = authorized(&table, policy(&table, &["*"]), &call);
        let terms = PlanTerms { no_fallback: false, deadline: now, answer_by: now, priced_at_ms: 0 };
        for bound in 0_u32..16 {
            let mut plan = RoutePlan::build(&table, &authorized, &call, terms, RandomValue(0)).expect("a plan");
            plan.retain(|id| bound & 1 << id.0 != 0);
            let left = plan.candidate_models().iter().flat_map(|candidate| &candidate.deployments);
            assert_eq!(left.fold(0, |set, id| set | 1 << id.0), bound);
            assert!(plan.candidate_models().iter().all(|candidate| !candidate.deployments.is_empty()));
        }
    }

    #[test]
    fn what_is_paused_is_left_out_while_anything_else_is_left() {
        let check = |paused: &[(u32, u64)], expected: &[&[u32]], soonest| {
            let expected: Vec<Vec<u32>> = expected.iter().map(|ids| ids.to_vec()).collect();
            assert_eq!(left(paused), (expected, soonest), "{paused:?}");
        };
        check(&[], &[&[0, 1], &[2, 3]], None);
        check(&[(1, 9)], &[&[0], &[2, 3]], None);
        check(&[(0, 9), (1, 5)], &[&[2, 3]], None);
        check(&[(0, 9), (1, 5), (3, 7)], &[&[2]], None);
        check(&[(0, 9), (1, 5), (2, 6), (3, 7)], &[&[0, 1], &[2, 3]], Some(5));
    }
}
