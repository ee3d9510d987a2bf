//! Be planned, be attempted: asks the plan what to do, does it, tells the plan how it went.
//!
//! The plan never sends; this loop never decides. It ends with an answer whose first good frame is
//! in hand (the commit point), or with the reason there is none.

use super::active_config::ActiveConfig;
use super::estimator::TokenEstimator;
use super::guard::RequestGuard;
use super::health::Permit;
use super::{RelayContext, ServeError};
use crate::domain::call::Call;
use crate::domain::failure::Failure;
use crate::domain::hold::CostBound;
use crate::domain::id::{DeploymentId, ModelId};
use crate::domain::random::RandomValue;
use crate::domain::receipt::Served;
use crate::domain::refusal::Refusal;
use crate::domain::routing::plan::{Attempt, GiveUp, RoutePlan, Step};
use crate::upstream::{AttemptError, Rejection, Timeouts, UpstreamAnswer, UpstreamRequest};
use http::HeaderMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An answer whose first good frame is in hand, and the leave it runs under.
pub(super) struct CommittedAnswer {
    pub(super) answer: UpstreamAnswer,
    pub(super) permit: Permit,
    /// Its model's.
    pub(super) estimator: Arc<TokenEstimator>,
}

/// What stays the same over all attempts of one request.
pub(super) struct Dispatch<'a> {
    pub(super) context: &'a RelayContext,
    pub(super) active: &'a ActiveConfig,
    pub(super) call: &'a Call,
    /// The client's headers that travel on.
    pub(super) headers: &'a HeaderMap,
    pub(super) deadline: Instant,
}

impl Dispatch<'_> {
    /// Walks `plan` until something answers or nothing is left.
    pub(super) async fn run(
        &self,
        plan: &mut RoutePlan,
        guard: &mut RequestGuard,
    ) -> Result<CommittedAnswer, ServeError> {
        let key = guard.state.key.as_ref().map_or(crate::domain::id::KeyId(0), |key| key.id);
        let health = self.active.deployments.seen_by(key);
        let table = &self.active.snapshot.table;
        self.active.deployments.request(self.context.clock.now());
        let mut refused = FirstRejection::default();
        loop {
            match plan.next(table, &health, self.context.clock.now(), self.context.rng.draw()) {
                Step::Try(attempt) => {
                    let worst = CostBound::of(table, self.call, plan.priced_at_ms());
                    guard.state.spend.before_attempt(self.context, worst, attempt.deployment).await?;
                    guard.attempt_sent(self.place(&attempt));
                    let (deployment, mut permit) = (attempt.deployment, attempt.permit);
                    let result = guard.wait(self.send(deployment, &permit)).await;
                    let now = self.context.clock.now();
                    match result {
                        Ok(answer) => {
                            permit.answered(now);
                            guard.attempt_answered(now);
                            guard.state.price = table.price(deployment, plan.priced_at_ms()).cloned();
                            let estimator =
                                self.active.deployments.estimator(table.deployment(deployment).model).clone();
                            return Ok(CommittedAnswer { answer, permit, estimator });
                        }
                        Err(missed) => {
                            let age = now.saturating_duration_since(permit.sent());
                            let failure = plan.record(table, missed.failure, age, permit.last_was_good());
                            log_failure(guard, &table.deployment(deployment).name, failure, &missed);
                            permit.failed(failure, now);
                            guard.attempt_failed(failure, now);
                            refused.keep(table.deployment(deployment).model, missed.rejection);
                        }
                    }
                }
                Step::Wait(pause) => guard.wait(self.context.clock.sleep(pause)).await,
                Step::GiveUp(reason) => return Err(self.give_up(reason, refused)),
            }
        }
    }

    async fn send(&self, deployment: DeploymentId, permit: &Permit) -> Result<UpstreamAnswer, AttemptError> {
        let table = &self.active.snapshot.table;
        let held = table.deployment(deployment);
        let model = table.model(held.model);
        let order = UpstreamRequest {
            provider: held.provider,
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
        self.active.upstreams.send(order).await
    }

    fn place(&self, attempt: &Attempt<Permit>) -> Served {
        let table = &self.active.snapshot.table;
        let deployment = table.deployment(attempt.deployment);
        Served {
            model: table.model(deployment.model).name.clone(),
            deployment: deployment.name.clone(),
            tier: attempt.tier.map(|tier| table.tier(tier).name.clone()),
            region: table.region(deployment.region).clone(),
        }
    }

    fn give_up(&self, reason: GiveUp, refused: FirstRejection) -> ServeError {
        match (reason, refused.rejection) {
            (GiveUp::Rejected, Some(rejection)) => ServeError::Rejected(rejection),
            (GiveUp::Rejected, None) => ServeError::Failed(Failure::Rejected),
            (GiveUp::Exhausted(failure), _) => ServeError::Failed(failure),
            (GiveUp::OutOfTime, _) => ServeError::Failed(Failure::Deadline),
            (GiveUp::Full, _) => {
                Refusal::SlowDown { retry_after: jittered(FULL_PAUSE, self.context.rng.draw()) }.into()
            }
            (GiveUp::Unavailable { until }, _) => {
                let retry_after = until.saturating_duration_since(self.context.clock.now());
                Refusal::NoDeployment { retry_after }.into()
            }
        }
    }
}

/// When every deployment is full, clients are told to come back after about this long.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// ± 30 %, so that those who were turned away together do not return together.
fn jittered(pause: Duration, draw: RandomValue) -> Duration {
    pause.mul_f64(0.7 + 0.6 * draw.unit())
}

/// The first model's refusal of the request: what the client is given if nothing else serves.
#[derive(Default)]
struct FirstRejection {
    first_model: Option<ModelId>,
    rejection: Option<Rejection>,
}

impl FirstRejection {
    fn keep(&mut self, model: ModelId, rejection: Option<Rejection>) {
        if *self.first_model.get_or_insert(model) == model && rejection.is_some() {
            self.rejection = rejection;
        }
    }
}

fn log_failure(guard: &RequestGuard, deployment: &str, failure: Failure, missed: &AttemptError) {
    tracing::info!(
        request_id = %guard.state.id,
        deployment,
        reason = failure.reason().label(),
        detail = %missed.detail,
        "an attempt failed"
    );
}
