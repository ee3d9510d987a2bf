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
        all.all(|id| self.last_failure_of(id) == Some(Failure::NoEndpoint) || is_known(id))
    }

    /// The first attempt at a deployment that may have the endpoint.
    pub(super) fn first_tried(&self) -> Option<&TrackedAttempt> {
        self.tried.iter().find(|attempt| attempt.failure != Some(Failure::NoEndpoint))
    }
}
