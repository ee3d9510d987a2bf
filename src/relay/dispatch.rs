//! Be planned, be attempted: asks the plan what to do, does it, tells the plan how it went.
//!
//! The plan never sends; this loop never decides. It ends with an answer whose first good frame is
//! in hand (the commit point), or with the reason there is none.

use super::board::Permit;
use super::live::Live;
use super::ticket::Ticket;
use super::yardstick::Yardstick;
use super::{Desk, ServeError};
use crate::domain::call::Call;
use crate::domain::chance::Draw;
use crate::domain::failure::Failure;
use crate::domain::hold::Worst;
use crate::domain::id::{DeploymentId, ModelId};
use crate::domain::receipt::Served;
use crate::domain::refusal::Refusal;
use crate::domain::routing::plan::{Attempt, GiveUp, RoutePlan, Step};
use crate::upstream::{Answer, Missed, Order, Patience, Rejection};
use http::HeaderMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An answer whose first good frame is in hand, and the leave it runs under.
pub(super) struct Answered {
    pub(super) answer: Answer,
    pub(super) permit: Permit,
    /// Its model's.
    pub(super) yardstick: Arc<Yardstick>,
}

/// What stays the same over all attempts of one request.
pub(super) struct Errand<'a> {
    pub(super) desk: &'a Desk,
    pub(super) live: &'a Live,
    pub(super) call: &'a Call,
    /// The client's headers that travel on.
    pub(super) headers: &'a HeaderMap,
    pub(super) deadline: Instant,
}

impl Errand<'_> {
    /// Walks `plan` until something answers or nothing is left.
    pub(super) async fn run(&self, plan: &mut RoutePlan, ticket: &mut Ticket) -> Result<Answered, ServeError> {
        let key = ticket.entry.key.as_ref().map_or(crate::domain::id::KeyId(0), |key| key.id);
        let board = self.live.lineup.seen_by(key);
        let table = &self.live.snapshot.table;
        self.live.lineup.request(self.desk.clock.now());
        let mut refused = FirstRejection::default();
        loop {
            match plan.next(table, &board, self.desk.clock.now(), self.desk.dice.draw()) {
                Step::Try(attempt) => {
                    let worst = Worst::of(table, self.call, plan.priced_at_ms());
                    ticket.entry.purchase.before_attempt(self.desk, worst, attempt.deployment).await?;
                    ticket.attempt_sent(self.place(&attempt));
                    let (deployment, mut permit) = (attempt.deployment, attempt.permit);
                    let result = ticket.wait(self.send(deployment, &permit)).await;
                    let now = self.desk.clock.now();
                    match result {
                        Ok(answer) => {
                            permit.answered(now);
                            ticket.attempt_answered(now);
                            ticket.entry.price = table.price(deployment, plan.priced_at_ms()).cloned();
                            let yardstick = self.live.lineup.yardstick(table.deployment(deployment).model).clone();
                            return Ok(Answered { answer, permit, yardstick });
                        }
                        Err(missed) => {
                            let age = now.saturating_duration_since(permit.sent());
                            let failure = plan.record(table, missed.failure, age, permit.last_was_good());
                            log_failure(ticket, &table.deployment(deployment).name, failure, &missed);
                            permit.failed(failure, now);
                            ticket.attempt_failed(failure, now);
                            refused.keep(table.deployment(deployment).model, missed.rejection);
                        }
                    }
                }
                Step::Wait(pause) => ticket.wait(self.desk.clock.sleep(pause)).await,
                Step::GiveUp(reason) => return Err(self.give_up(reason, refused)),
            }
        }
    }

    async fn send(&self, deployment: DeploymentId, permit: &Permit) -> Result<Answer, Missed> {
        let table = &self.live.snapshot.table;
        let held = table.deployment(deployment);
        let model = table.model(held.model);
        let order = Order {
            provider: held.provider,
            credential: permit.credential(),
            model: &self.live.upstream_models[deployment.index()],
            call: self.call,
            headers: self.headers,
            patience: Patience {
                first_token: model.first_token,
                whole: model.whole,
                idle: table.settings.idle,
                deadline: self.deadline,
            },
            draw: self.desk.dice.draw(),
        };
        self.live.upstreams.send(order).await
    }

    fn place(&self, attempt: &Attempt<Permit>) -> Served {
        let table = &self.live.snapshot.table;
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
            (GiveUp::Full, _) => Refusal::SlowDown { retry_after: jittered(FULL_PAUSE, self.desk.dice.draw()) }.into(),
            (GiveUp::Unavailable { until }, _) => {
                let retry_after = until.saturating_duration_since(self.desk.clock.now());
                Refusal::NoDeployment { retry_after }.into()
            }
        }
    }
}

/// When every deployment is full, clients are told to come back after about this long.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// ± 30 %, so that those who were turned away together do not return together.
fn jittered(pause: Duration, draw: Draw) -> Duration {
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

fn log_failure(ticket: &Ticket, deployment: &str, failure: Failure, missed: &Missed) {
    tracing::info!(
        request_id = %ticket.entry.id,
        deployment,
        reason = failure.reason().label(),
        detail = %missed.detail,
        "an attempt failed"
    );
}
