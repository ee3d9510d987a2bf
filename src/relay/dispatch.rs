//! Dispatch: makes the attempts that the plan chooses, and records their failures in the plan.
//!
//! The plan never sends; this loop must never decide. It ends with an answer whose first good frame has
//! arrived (the commit point), or with the reason why there is none. How the attempts of one step are watched, one
//! or two at a time, is in [`attempts`](super::attempts).
//!
//! Start reading in [`Dispatch::run`].

use super::active_config::ActiveConfig;
use super::attempts::RequestAttempts;
use super::estimator::TokenEstimator;
use super::guard::RequestGuard;
use super::health::{Permit, ReportedFailure, TeamHealthView};
use super::read_on::ClientState;
use super::splice::SplicedStream;
use super::{RelayContext, ServeError, place};
use crate::domain::authorize::AuthorizedRequest;
use crate::domain::call::Call;
use crate::domain::failure::{Failure, ProviderError};
use crate::domain::id::ModelId;
use crate::domain::memory::InFlightAllowance;
use crate::domain::policy::Policy;
use crate::domain::receipt::{PassedOverDeployment, passed_over};
use crate::domain::refusal::Refusal;
use crate::domain::routing::plan::{GiveUpReason, PlanStep, RoutePlan};
use crate::upstream::{AttemptError, ForwardedFields, UpstreamAnswer};
use http::HeaderMap;
use std::sync::Arc;
use std::time::Instant;

/// An answer whose first good frame has arrived, and the permit of its attempt.
pub(super) struct CommittedAnswer {
    pub(super) answer: UpstreamAnswer,
    pub(super) permit: Permit,
    /// The token estimator of the model that answers.
    pub(super) estimator: Arc<TokenEstimator>,
    /// What it takes to go on with its stream where that breaks, if that may be.
    pub(super) splice: Option<Box<SplicedStream>>,
}

/// What is the same for all attempts of one request.
pub(super) struct Dispatch<'a> {
    pub(super) context: &'a RelayContext,
    pub(super) active: &'a Arc<ActiveConfig>,
    pub(super) call: &'a Call,
    /// Whether money is held for it: then the provider reads the ceiling that is held.
    pub(super) paid: bool,
    /// The client's headers that are sent to the provider.
    pub(super) headers: &'a HeaderMap,
    /// What of the client's request is sent to a provider that lists it.
    pub(super) fields: ForwardedFields<'a>,
    pub(super) deadline: Instant,
    /// How it sees deployments, with the place that it waited for, if it did.
    pub(super) health: TeamHealthView<'a>,
    /// The key, and what it may use.
    pub(super) authorized: &'a AuthorizedRequest,
    /// What the key's answers may hold in memory.
    pub(super) allowance: &'a InFlightAllowance,
    /// Whether its client still waits, where an answer may be read without one.
    pub(super) client: Option<&'a ClientState>,
}

impl Dispatch<'_> {
    /// Follows `plan` until an attempt is answered or the plan gives up.
    pub(super) async fn run(
        &self,
        plan: &mut RoutePlan,
        guard: &mut RequestGuard,
    ) -> Result<CommittedAnswer, ServeError> {
        let health = &self.health;
        let table = &self.active.snapshot.table;
        let mut failures = FailedAttempts::default();
        loop {
            if self.client_left() {
                // Nobody reads it: the request ends as abandoned.
                return Err(Failure::Deadline.into());
            }
            let step = plan.next(table, health, self.context.clock.now(), self.context.rng.draw());
            health.give_place_back();
            match &step {
                PlanStep::Try(attempt) if plan.attempts() == 1 && !plan.is_first_model(attempt.deployment, table) => {
                    self.note_passed_over(plan, health, guard);
                }
                PlanStep::GiveUp(
                    GiveUpReason::Unavailable { .. } | GiveUpReason::Full | GiveUpReason::Throttled { .. },
                ) => {
                    self.note_passed_over(plan, health, guard);
                }
                PlanStep::Try(_) | PlanStep::Wait(_) | PlanStep::GiveUp(_) => {}
            }
            match step {
                PlanStep::Try(attempt) => {
                    let mut progress = RequestAttempts { plan, guard, failures: &mut failures };
                    if let Some(answer) = self.attempts(&mut progress, health, attempt).await? {
                        return Ok(answer);
                    }
                    // Whoever lacks it says so again: nothing is waited for.
                    if self.lack_endpoint(plan, health) {
                        return Err(self.no_endpoint(plan, health).into());
                    }
                }
                PlanStep::Wait(_) if self.lack_endpoint(plan, health) => {
                    return Err(self.no_endpoint(plan, health).into());
                }
                PlanStep::Wait(pause) => guard.wait(self.context.clock.sleep(pause)).await,
                PlanStep::GiveUp(reason) => return Err(self.give_up(reason, plan, health, failures)),
            }
        }
    }

    /// Whether nobody waits for it any more, so that no further attempt is made.
    pub(super) fn client_left(&self) -> bool {
        self.client.is_some_and(ClientState::has_left)
    }

    /// The key's.
    pub(super) fn policy(&self) -> &Policy {
        &self.authorized.key().policy
    }

    /// Keeps on the receipt why deployments of the plan were not asked.
    fn note_passed_over(&self, plan: &RoutePlan, health: &TeamHealthView<'_>, guard: &mut RequestGuard) {
        let (table, now) = (&self.active.snapshot.table, self.context.clock.now());
        let received = guard.state.received;
        let models = plan.candidate_models().iter();
        let deployments = models.flat_map(|model| model.deployments.iter().map(move |id| (model.tier, *id)));
        let all = deployments.filter_map(|(tier, id)| {
            let (why, until) = health.why_passed_over(id, now)?;
            let deployment = table.deployment(id);
            Some(PassedOverDeployment {
                tier: tier.map(|tier| table.tier(tier).name.clone()),
                model: table.model(deployment.model).name.clone(),
                deployment: deployment.name.clone(),
                why,
                until: until.map(|until| until.saturating_duration_since(received)),
                injected: self.context.faults.may_explain(&deployment.name, table.region(deployment.region)),
            })
        });
        guard.state.passed_over = passed_over(all);
    }

    fn give_up(
        &self,
        reason: GiveUpReason,
        plan: &RoutePlan,
        health: &TeamHealthView<'_>,
        failures: FailedAttempts,
    ) -> ServeError {
        let FailedAttempts { provider_error, said, reported, .. } = failures;
        let now = self.context.clock.now();
        if plan.is_to_blame() {
            reported.into_iter().for_each(|failure| failure.take_back(now));
        }
        match reason {
            GiveUpReason::Unavailable { .. } if self.lack_endpoint(plan, health) => {
                self.no_endpoint(plan, health).into()
            }
            GiveUpReason::Rejected => match provider_error {
                Some(rejection) => ServeError::Rejected(*rejection),
                None => Failure::Rejected.into(),
            },
            GiveUpReason::Exhausted(failure) => {
                let alone = plan.is_to_blame() || plan.has_one_deployment();
                match provider_error.filter(|_| alone && failure.speaks_of_the_request()) {
                    Some(rejection) => ServeError::Rejected(*rejection),
                    None => {
                        // Where all failed in one way, a provider's word is what there is to say.
                        let to_blame = plan.is_to_blame() || (said.is_some() && plan.failed_in_one_way());
                        ServeError::Failed { failure, said, to_blame }
                    }
                }
            }
            GiveUpReason::OutOfTime => Failure::Deadline.into(),
            GiveUpReason::Throttled { until } => {
                ServeError::Throttled { retry_after: until.saturating_duration_since(now) }
            }
            GiveUpReason::Full => place::slow_down(self.context.rng.draw()).into(),
            GiveUpReason::Unavailable { until } => {
                Refusal::NoDeployment { retry_after: until.saturating_duration_since(now) }.into()
            }
        }
    }
}

/// What is kept of the failed attempts of one request.
#[derive(Default)]
pub(super) struct FailedAttempts {
    first_model: Option<ModelId>,
    /// The latest reply of a provider of the first model: what the client gets if nothing else serves.
    provider_error: Option<Box<ProviderError>>,
    /// What that provider said, for an error of ours.
    said: Option<Box<str>>,
    /// What was counted for deployments.
    reported: Vec<ReportedFailure>,
}

impl FailedAttempts {
    /// Keeps what the failure of an attempt at `model` says, if it is the first model tried.
    pub(super) fn keep(&mut self, model: ModelId, error: AttemptError) {
        // A host without the endpoint says nothing about the request.
        if error.failure == Failure::NoEndpoint {
            return;
        }
        if *self.first_model.get_or_insert(model) == model && error.provider_error.is_some() {
            (self.provider_error, self.said) = (error.provider_error, error.said);
        }
    }

    /// An attempt was counted for its deployment, or not.
    pub(super) fn reported(&mut self, failure: Option<ReportedFailure>) {
        self.reported.extend(failure);
    }
}
