//! Dispatch: makes the attempts that the plan chooses, and records their failures in the plan.
//!
//! The plan never sends; this loop must never decide. It ends with an answer whose first good frame has
//! arrived (the commit point), or with the reason why there is none.
//!
//! Start reading in [`Dispatch::run`].

use super::active_config::ActiveConfig;
use super::estimator::TokenEstimator;
use super::guard::RequestGuard;
use super::health::Permit;
use super::{RelayContext, ServeError};
use crate::domain::call::Call;
use crate::domain::failure::{Failure, Rejection};
use crate::domain::hold::CostBound;
use crate::domain::id::{DeploymentId, ModelId};
use crate::domain::random::RandomValue;
use crate::domain::receipt::ServingDeployment;
use crate::domain::refusal::Refusal;
use crate::domain::routing::plan::{Attempt, FailedAttempt, GiveUpReason, PlanStep, RoutePlan};
use crate::upstream::{AttemptError, Timeouts, UpstreamAnswer, UpstreamRequest};
use http::HeaderMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An answer whose first good frame has arrived, and the permit of its attempt.
pub(super) struct CommittedAnswer {
    pub(super) answer: UpstreamAnswer,
    pub(super) permit: Permit,
    /// The token estimator of the model that answers.
    pub(super) estimator: Arc<TokenEstimator>,
}

/// What is the same for all attempts of one request.
pub(super) struct Dispatch<'a> {
    pub(super) context: &'a RelayContext,
    pub(super) active: &'a ActiveConfig,
    pub(super) call: &'a Call,
    /// The client's headers that are sent to the provider.
    pub(super) headers: &'a HeaderMap,
    pub(super) deadline: Instant,
}

impl Dispatch<'_> {
    /// Follows `plan` until an attempt is answered or the plan gives up.
    pub(super) async fn run(
        &self,
        plan: &mut RoutePlan,
        guard: &mut RequestGuard,
    ) -> Result<CommittedAnswer, ServeError> {
        let health = self.active.deployments.view_for(guard.state.key_id);
        let table = &self.active.snapshot.table;
        self.active.deployments.request(self.context.clock.now());
        let mut refused = FirstModelRejection::default();
        loop {
            match plan.next(table, &health, self.context.clock.now(), self.context.rng.draw()) {
                PlanStep::Try(attempt) => match self.attempt(plan, attempt, guard).await? {
                    Ok(answer) => return Ok(answer),
                    Err((model, rejection)) => refused.keep(model, rejection),
                },
                PlanStep::Wait(pause) => guard.wait(self.context.clock.sleep(pause)).await,
                PlanStep::GiveUp(reason) => return Err(self.give_up(reason, refused)),
            }
        }
    }

    /// Makes one attempt. If it fails, the failure is recorded in plan, guard and permit, and its model and the
    /// provider's refusal of the request, if it is one, are returned.
    ///
    /// # Errors
    /// When a budget has too little left for the attempt: nothing was sent.
    async fn attempt(
        &self,
        plan: &mut RoutePlan,
        attempt: Attempt<Permit>,
        guard: &mut RequestGuard,
    ) -> Result<Result<CommittedAnswer, (ModelId, Option<Rejection>)>, ServeError> {
        let table = &self.active.snapshot.table;
        let (number, deployment) = (attempt.number, attempt.deployment);
        let bound = CostBound::of(table, self.call, plan.priced_at_ms());
        guard.state.spend.before_attempt(self.context, number, bound, deployment).await?;
        guard.attempt_sent(number, self.place(&attempt));
        let mut permit = attempt.permit;
        let result = {
            // Pinned here: passed by value it would lie in this future twice, and futures are moved.
            let sending = std::pin::pin!(self.send(deployment, &permit));
            guard.wait(sending).await
        };
        let now = self.context.clock.now();
        let model = table.deployment(deployment).model;
        let error = match result {
            Ok(answer) => {
                permit.answered(now);
                guard.attempt_answered(number, now);
                guard.state.price = table.price(deployment, plan.priced_at_ms()).cloned();
                let estimator = self.active.deployments.estimator(model).clone();
                return Ok(Ok(CommittedAnswer { answer, permit, estimator }));
            }
            Err(error) => error,
        };
        let age = now.saturating_duration_since(permit.sent());
        let end = FailedAttempt { failure: error.failure, age, last_was_good: permit.last_was_good() };
        let failure = plan.record(table, number, end);
        log_failure(guard, &table.deployment(deployment).name, failure, &error);
        permit.failed(failure, now);
        guard.attempt_failed(number, failure, now);
        Ok(Err((model, error.rejection)))
    }

    async fn send(&self, deployment: DeploymentId, permit: &Permit) -> Result<UpstreamAnswer, AttemptError> {
        let table = &self.active.snapshot.table;
        let target = table.deployment(deployment);
        let model = table.model(target.model);
        let request = UpstreamRequest {
            provider: target.provider,
            credential: permit.credential(),
            model: &self.active.upstream_models[deployment.index()],
            call: self.call,
            headers: self.headers,
            timeouts: Timeouts {
                first_token: model.first_token,
                whole: model.whole,
                idle: table.settings.idle,
                deadline: self.deadline,
            },
            draw: self.context.rng.draw(),
        };
        self.active.upstreams.send(request).await
    }

    fn place(&self, attempt: &Attempt<Permit>) -> ServingDeployment {
        let table = &self.active.snapshot.table;
        let deployment = table.deployment(attempt.deployment);
        ServingDeployment {
            model: table.model(deployment.model).name.clone(),
            deployment: deployment.name.clone(),
            tier: attempt.tier.map(|tier| table.tier(tier).name.clone()),
            region: table.region(deployment.region).clone(),
        }
    }

    fn give_up(&self, reason: GiveUpReason, refused: FirstModelRejection) -> ServeError {
        match (reason, refused.rejection) {
            (GiveUpReason::Rejected, Some(rejection)) => ServeError::Rejected(rejection),
            (GiveUpReason::Rejected, None) => ServeError::Failed(Failure::Rejected),
            (GiveUpReason::Exhausted(failure), _) => ServeError::Failed(failure),
            (GiveUpReason::OutOfTime, _) => ServeError::Failed(Failure::Deadline),
            (GiveUpReason::Full, _) => {
                Refusal::SlowDown { retry_after: jittered(FULL_PAUSE, self.context.rng.draw()) }.into()
            }
            (GiveUpReason::Unavailable { until }, _) => {
                let retry_after = until.saturating_duration_since(self.context.clock.now());
                Refusal::NoDeployment { retry_after }.into()
            }
        }
    }
}

/// The Retry-After when every deployment is full, before jitter.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// ± 30 %, so that clients that were refused together do not return together.
fn jittered(pause: Duration, draw: RandomValue) -> Duration {
    pause.mul_f64(0.7 + 0.6 * draw.unit())
}

/// The latest refusal of the request by a provider of the first model: what the client gets if nothing else serves.
#[derive(Default)]
struct FirstModelRejection {
    first_model: Option<ModelId>,
    rejection: Option<Rejection>,
}

impl FirstModelRejection {
    fn keep(&mut self, model: ModelId, rejection: Option<Rejection>) {
        if *self.first_model.get_or_insert(model) == model && rejection.is_some() {
            self.rejection = rejection;
        }
    }
}

fn log_failure(guard: &RequestGuard, deployment: &str, failure: Failure, error: &AttemptError) {
    tracing::info!(
        request_id = %guard.state.id,
        deployment,
        reason = failure.reason().label(),
        detail = %error.detail,
        "an attempt failed"
    );
}
