//! The attempts of one step of the plan: one, and at times a second one beside it, until one answers or all failed.
//!
//! An attempt whose deployment turns silent, that has used its share of the request's time, or that is late under a
//! policy that hedges, gets another one beside it. The first good frame wins; the other attempt is cancelled at once
//! and booked. Whether and where there is another one is the plan's to decide; this file watches and cancels.
//!
//! Start reading in [`Dispatch::attempts`].

// circle: dispatch.rs: the loop over the plan makes its attempts here, and what is the same for all of them is there.

use super::ServeError;
use super::dispatch::{CommittedAnswer, Dispatch, FailedAttempts};
use super::guard::RequestGuard;
use super::health::{AttemptSigns, FailureReport, Permit, TeamHealthView};
use super::read_on::{ClientState, ReadingHandle};
use super::state::{AnswerAccount, BackgroundCharge, deployment_of};
use crate::config::OnAbandon;
use crate::domain::failure::Failure;
use crate::domain::fault::FaultEffect;
use crate::domain::hold::CostBound;
use crate::domain::id::DeploymentId;
use crate::domain::policy::HedgeDelay;
use crate::domain::random::RandomValue;
use crate::domain::routing::AnswerMode;
use crate::domain::routing::plan::{Attempt, FailedAttempt, PendingAttempts, RoutePlan};
use crate::upstream::{AttemptError, Timeouts, UpstreamAnswer, UpstreamRequest};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

/// How soon an attempt that nothing could be done about is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What the attempts of one request write to.
pub(super) struct RequestAttempts<'r> {
    pub(super) plan: &'r mut RoutePlan,
    pub(super) guard: &'r mut RequestGuard,
    pub(super) failures: &'r mut FailedAttempts,
}

/// An attempt that was sent and has not ended; dropping it cancels it.
struct SentAttempt<'a> {
    number: u32,
    deployment: DeploymentId,
    permit: Permit,
    sending: Pin<Box<dyn Future<Output = Result<UpstreamAnswer, AttemptError>> + Send + 'a>>,
    /// Its provider goes on when its client leaves, and so does the request.
    _reading: Option<ReadingHandle<'a>>,
}

/// The end of the attempt at this place.
type EndedAttempt = (usize, Result<UpstreamAnswer, AttemptError>);

/// When a second attempt is due, apart from silence, which moves with every sign of life.
struct Schedule {
    share_over: Option<Instant>,
    hedge: Option<Instant>,
    /// Nothing is looked at before.
    not_before: Instant,
}

impl Dispatch<'_> {
    /// Makes `first`, and at times another one beside it, until one answers; `None` where all failed. Failures are
    /// recorded in plan, guard and permits.
    ///
    /// # Errors
    /// When a budget has too little left for `first`: nothing was sent.
    pub(super) async fn attempts(
        &self,
        progress: &mut RequestAttempts<'_>,
        health: &TeamHealthView<'_>,
        first: Attempt<Permit>,
    ) -> Result<Option<CommittedAnswer>, ServeError> {
        self.hold_and_record(progress, &first).await?;
        let mut schedule = self.schedule(progress.plan, health, &first);
        let mut running = [Some(self.sending(first, progress.guard)), None];
        loop {
            let event = progress.guard.wait(self.next_event(&schedule, &mut running)).await;
            let now = self.context.clock.now();
            if let Some((place, result)) = event {
                let ended = running[place].take().expect("an attempt ends once");
                let answered = match result {
                    Ok(answer) => Some(self.commit(progress, ended, answer, now)),
                    Err(error) => {
                        self.record(progress, ended, error, now);
                        None
                    }
                };
                if answered.is_some() || progress.plan.has_given_up() {
                    for cancelled in running.iter_mut().filter_map(Option::take) {
                        self.record(progress, cancelled, AttemptError::cancelled(Failure::Overtaken), now);
                    }
                }
                if running.iter().all(Option::is_none) {
                    return Ok(answered);
                }
                continue;
            }
            if self.client_left() {
                schedule.not_before = self.deadline;
                continue;
            }
            let Some(attempt) = self.due(progress.plan, health, &running, &mut schedule, now) else { continue };
            let place = free_place(&running);
            if let Some(silent) = running[place].take() {
                self.record(progress, silent, AttemptError::cancelled(Failure::Silent), now);
            }
            if self.hold_and_record(progress, &attempt).await.is_ok() {
                running[place] = Some(self.sending(attempt, progress.guard));
            } else {
                // Nothing is lost: what is in flight goes on, and no other attempt is asked for.
                progress.plan.withdraw(attempt.number, health, now);
                schedule.not_before = self.deadline;
            }
        }
    }

    /// Holds the attempt's money, and records that it is sent.
    ///
    /// # Errors
    /// When a budget has too little left for it: nothing was sent.
    async fn hold_and_record(
        &self,
        progress: &mut RequestAttempts<'_>,
        attempt: &Attempt<Permit>,
    ) -> Result<(), ServeError> {
        let RequestAttempts { plan, guard, .. } = progress;
        let bound = CostBound::of(&self.active.snapshot.table, self.call, plan.priced_at_ms());
        guard.state.spend.before_attempt(self.context, attempt.number, bound, attempt.deployment).await?;
        let place = deployment_of(&self.active.snapshot.table, attempt.deployment, attempt.tier);
        guard.attempt_sent(attempt.number, place);
        Ok(())
    }

    fn sending(&self, attempt: Attempt<Permit>, guard: &mut RequestGuard) -> SentAttempt<'_> {
        let Attempt { number, deployment, permit, .. } = attempt;
        let draw = self.context.rng.draw();
        let fault = guard.state.injected_fault(number, draw, &self.context.faults);
        let sending = self.send(deployment, permit.credential(), permit.signs_of_life(), draw, fault);
        // Boxed: it is large, and within the future of its request it would be moved with that.
        let sending = Box::pin(sending);
        let goes_on = self.active.on_abandon(deployment) == OnAbandon::ReadOn;
        let _reading = self.client.filter(|_| goes_on).map(ClientState::mark);
        SentAttempt { number, deployment, permit, sending, _reading }
    }

    /// Whichever comes first: the end of an attempt, or the instant at which something is due (`None`).
    async fn next_event(
        &self,
        schedule: &Schedule,
        running: &mut [Option<SentAttempt<'_>>; 2],
    ) -> Option<EndedAttempt> {
        let mut timer = pin!(None);
        poll_fn(|cx| {
            for (place, attempt) in running.iter_mut().enumerate() {
                if let Some(attempt) = attempt
                    && let Poll::Ready(result) = attempt.sending.as_mut().poll(cx)
                {
                    return Poll::Ready(Some((place, result)));
                }
            }
            if timer.is_none() {
                let Some(at) = self.due_at(schedule, running) else { return Poll::Pending };
                timer.set(Some(self.context.clock.sleep_until(at)));
            }
            let timer = timer.as_mut().as_pin_mut().expect("it was set");
            ready!(timer.poll(cx));
            Poll::Ready(None)
        })
        .await
    }

    async fn send(
        &self,
        deployment: DeploymentId,
        credential: usize,
        signs: AttemptSigns,
        draw: RandomValue,
        fault: Option<FaultEffect>,
    ) -> Result<UpstreamAnswer, AttemptError> {
        let table = &self.active.snapshot.table;
        let target = table.deployment(deployment);
        let model = table.model(target.model);
        let request = UpstreamRequest {
            provider: target.provider,
            credential,
            model: &self.active.upstream_models[deployment.index()],
            call: self.call,
            mode: self.mode(),
            headers: self.headers,
            fields: self.fields,
            ceiling: if self.paid { CostBound::of(table, self.call, 0).ceiling(deployment) } else { None },
            timeouts: Timeouts {
                first_token: model.first_token,
                whole: model.whole,
                idle: table.settings.idle,
                deadline: self.deadline,
            },
            fault,
            draw,
            allowance: self.allowance,
        };
        self.active.upstreams.send(request, &signs).await
    }

    fn commit(
        &self,
        progress: &mut RequestAttempts<'_>,
        answered: SentAttempt<'_>,
        mut answer: UpstreamAnswer,
        now: Instant,
    ) -> CommittedAnswer {
        let RequestAttempts { plan, guard, .. } = progress;
        let SentAttempt { number, deployment, mut permit, .. } = answered;
        let table = &self.active.snapshot.table;
        permit.answered(now);
        guard.attempt_answered(number, now);
        guard.state.provider_named(number, answer.provider_request_id.take());
        guard.state.price = table.price_of(deployment, self.call, plan.priced_at_ms()).cloned();
        if let Some(name) = answer.other_model.take() {
            let is_known = guard.state.answered_by(&name, table, deployment, self.call, plan.priced_at_ms());
            self.context.telemetry.metrics.other_model(is_known);
        }
        let estimator = self.active.deployments.estimator(table.deployment(deployment).model).clone();
        guard.state.provider = Some(self.active.labels(deployment).clone());
        if self.call.endpoint().keeps_state() {
            let account = self.active.account(deployment, permit.credential());
            guard.state.made_by = Some(AnswerAccount::new(self.call, account));
            guard.state.background = self.call.metadata().cost_facts.billed_later.then_some(BackgroundCharge::OfAnswer);
        }
        guard.state.on_abandon = self.active.on_abandon(deployment);
        guard.state.pause = self.paid.then(|| permit.pause_handle(table.settings.beyond_hold_pause));
        CommittedAnswer { answer, permit, estimator, splice: None }
    }

    /// Records the failure of an attempt in plan, guard and permit.
    fn record(
        &self,
        progress: &mut RequestAttempts<'_>,
        failed: SentAttempt<'_>,
        mut error: AttemptError,
        now: Instant,
    ) {
        let RequestAttempts { plan, guard, failures } = progress;
        let SentAttempt { number, deployment, permit, sending, _reading } = failed;
        // Its connection is closed here, if it was not over.
        drop(sending);
        let table = &self.active.snapshot.table;
        // What it refers to may be what was not found.
        if error.failure == Failure::NoEndpoint && !self.call.metadata().refers_to.is_empty() {
            error.failure = Failure::NotFound;
        }
        let age = now.saturating_duration_since(permit.sent());
        let end = FailedAttempt { failure: error.failure, age, last_was_good: permit.last_was_good() };
        let recorded = plan.record(table, number, end, now);
        let target = table.deployment(deployment);
        let labels = self.active.labels(deployment).attempt(&table.model(target.model).name, permit.credential());
        let status = error.provider_error.as_ref().map(|reply| reply.status);
        let report = FailureReport { failure: recorded.failure, status, detail: &error.detail, labels };
        log_failure(guard, &target.name, &report);
        failures.reported(permit.failed(&report, recorded.evidence, now));
        guard.attempt_failed(number, recorded.failure, status.is_some(), now);
        guard.state.provider_named(number, error.provider_request_id.take());
        failures.keep(target.model, error);
    }

    fn schedule(&self, plan: &RoutePlan, health: &TeamHealthView<'_>, first: &Attempt<Permit>) -> Schedule {
        let sent = first.permit.sent();
        // A share that is longer than what is called late anyway need not be known.
        let share = plan.share_of_time(&self.active.snapshot.table, health, self.late_after(first.deployment), sent);
        let late = self.policy().hedge.and_then(|rule| {
            let delay = match rule.after {
                HedgeDelay::Fixed(delay) => Some(delay),
                HedgeDelay::Percentile(percent) => first.permit.usual_first_token(self.mode(), percent),
            };
            delay.map(|delay| delay.max(rule.at_least))
        });
        Schedule { share_over: share.map(|share| sent + share), hedge: late.map(|late| sent + late), not_before: sent }
    }

    /// When something may be due, as far as is known now: every sign of life moves it.
    fn due_at(&self, schedule: &Schedule, running: &[Option<SentAttempt<'_>>; 2]) -> Option<Instant> {
        let silent = running.iter().flatten().filter_map(|attempt| attempt.permit.silent_at());
        let alone = running.iter().flatten().count() == 1;
        let overdue = running.iter().flatten().map(|attempt| self.overdue_at(attempt));
        let overdue = if alone { overdue.min() } else { overdue.max() };
        let beside = [schedule.share_over, schedule.hedge].into_iter().flatten().filter(|_| alone);
        // A deployment is silent after the instant, not at it.
        silent.chain(beside).chain(overdue).min().map(|at| at.max(schedule.not_before) + TICK)
    }

    /// When an attempt has waited so much longer than is usual at its deployment that it may be lost there, although
    /// others are answered.
    fn overdue_at(&self, attempt: &SentAttempt<'_>) -> Instant {
        let usual = attempt.permit.usual_p99(self.mode()).unwrap_or_default();
        attempt.permit.sent() + self.late_after(attempt.deployment).max(usual * 4)
    }

    /// Whether an attempt has waited so long that it is given up for another one, at a deployment that is known to be
    /// faster.
    fn seems_lost(&self, attempt: &SentAttempt<'_>, now: Instant) -> bool {
        attempt.permit.usual_p99(self.mode()).is_some() && now > self.overdue_at(attempt)
    }

    /// How long an answer is waited for at least before it is called late.
    fn late_after(&self, deployment: DeploymentId) -> Duration {
        let table = &self.active.snapshot.table;
        table.model(table.deployment(deployment).model).late_after(self.mode())
    }

    fn mode(&self) -> AnswerMode {
        AnswerMode::of(self.call.metadata().stream, self.active.snapshot.table.settings.hold_streams)
    }

    /// What is to be done about the attempts in flight, if anything.
    fn due(
        &self,
        plan: &mut RoutePlan,
        health: &TeamHealthView<'_>,
        running: &[Option<SentAttempt<'_>>; 2],
        schedule: &mut Schedule,
        now: Instant,
    ) -> Option<Attempt<Permit>> {
        let table = &self.active.snapshot.table;
        let in_flight: Vec<&SentAttempt<'_>> = running.iter().flatten().collect();
        let silent = in_flight.iter().all(|attempt| attempt.permit.is_silent(now));
        let is_over = |at: Option<Instant>| at.is_some_and(|at| now > at);
        let late = is_over(schedule.share_over) || in_flight.iter().any(|attempt| now > self.overdue_at(attempt));
        // Once rescued, one of two that nothing may come of makes room.
        let in_vain = in_flight.iter().all(|attempt| attempt.permit.is_silent(now) || self.seems_lost(attempt, now));
        let in_flight =
            PendingAttempts { alone: in_flight.len() == 1, silent, hedge: is_over(schedule.hedge), late, in_vain };
        let found = plan.due(table, health, in_flight, now, self.context.rng.draw()).map(|(attempt, _)| attempt);
        if found.is_none() {
            schedule.not_before = now + LOOK_AGAIN;
        }
        found
    }
}

/// The place of another attempt: the one beside the attempt in flight; else that of the one whose deployment was heard
/// longest ago, because the other's may just be slow.
fn free_place(running: &[Option<SentAttempt<'_>>; 2]) -> usize {
    let heard = |place: usize| running[place].as_ref().map(|attempt| attempt.permit.last_heard());
    match (heard(0), heard(1)) {
        (Some(_), None) => 1,
        (Some(first), Some(second)) if second < first => 1,
        _ => 0,
    }
}

/// The resolution of timers.
const TICK: Duration = Duration::from_millis(1);

pub(super) fn log_failure(guard: &RequestGuard, deployment: &str, report: &FailureReport<'_>) {
    let FailureReport { failure, status, detail, labels } = report;
    tracing::info!(
        request_id = %guard.state.id,
        provider = labels.provider,
        deployment,
        model = labels.model,
        credential = labels.credential,
        url = labels.url,
        reason = failure.reason().label(),
        status,
        detail,
        "an attempt failed"
    );
}
