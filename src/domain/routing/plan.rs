//! The plan of one request: returns what to do next, and records how each attempt failed.
//!
//! It exists so that retrying, falling back, waiting and giving up are decided in one place that can be
//! simulated without a network. It must never send, sleep or read a clock: [`RoutePlan::next`] returns `Try`,
//! `Wait` or `GiveUp`, [`RoutePlan::beside`] an attempt to make beside one that is waited for, and
//! [`RoutePlan::record`] records a failed attempt. Health and load come through [`HealthSource`].
//!
//! The order of preference, first to last: another credential of a deployment that refused or throttled the first;
//! a deployment in a region that has not failed in this request, in chain order; any untried deployment, in chain
//! order; the same one again, after a pause; a silent one; then, where nothing flows, a trial. An attempt is kept
//! for each model of the chain that was not tried. Start reading in [`RoutePlan::next`].

mod beside;
mod endpoint;
mod paused;
mod selection;
mod siblings;
mod waiting;

pub use beside::{BesideReason, PendingAttempts};

use crate::domain::authorize::AuthorizedRequest;
use crate::domain::breaker::Availability;
use crate::domain::call::Call;
use crate::domain::failure::{Failure, FailureAction, HealthSignal};
use crate::domain::id::{DeploymentId, RegionId, TierId};
use crate::domain::random::RandomValue;
use crate::domain::refusal::Refusal;
use crate::domain::routing::AnswerMode;
use crate::domain::routing::builder::{self, CandidateModel};
use crate::domain::routing::choice::Candidate;
use crate::domain::routing::health::{ExtraBudget, HealthSource, PermitKind};
use crate::domain::routing::table::RoutingTable;
use std::time::{Duration, Instant};

/// What to do next.
#[derive(Debug)]
pub enum PlanStep<P> {
    /// Make this attempt.
    Try(Attempt<P>),
    /// Ask again after this long.
    Wait(Duration),
    /// Make no further attempt, for this reason.
    GiveUp(GiveUpReason),
}

/// One attempt to make.
#[derive(Debug)]
pub struct Attempt<P> {
    /// Counted from 1.
    pub number: u32,
    /// The deployment to send it to.
    pub deployment: DeploymentId,
    /// The tier that the deployment is reached through, if any.
    pub tier: Option<TierId>,
    /// The permit to make it.
    pub permit: P,
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug)]
pub struct FailedAttempt {
    /// The failure, as `upstream` classified it.
    pub failure: Failure,
    /// From the attempt being sent to its end.
    pub age: Duration,
    /// Whether the last attempt at its deployment that had finished when it was sent was good.
    pub last_was_good: bool,
}

/// What a recorded failure says, now that the whole request is seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evidence {
    /// It counts for the deployment, until [`RoutePlan::is_to_blame`] says otherwise.
    Counts,
    /// It says nothing: the request failed there before, or nowhere else could have shown whose fault it is.
    Neutral,
}

/// A failure as it was recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordedFailure {
    /// A reset may turn out to be a stale pooled connection.
    pub failure: Failure,
    /// What it says.
    pub evidence: Evidence,
}

/// Why there is nothing more to try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GiveUpReason {
    /// Nothing was tried: every deployment is open or resting.
    Unavailable {
        /// When the first of them may be asked again.
        until: Instant,
    },
    /// Nothing was tried: every deployment that could serve is full.
    Full,
    /// The provider refused the request itself, at the first model tried.
    Rejected,
    /// Only throttled deployments are left.
    Throttled {
        /// When the first of them may be asked again.
        until: Instant,
    },
    /// Attempts were made; this is the last failure of the first model tried.
    Exhausted(Failure),
    /// The request's time is over.
    OutOfTime,
}

/// How soon a throttled deployment is asked again that named no time.
const THROTTLED_PAUSE: Duration = Duration::from_secs(1);
/// After a model failed in this many regions, the request goes on to the next model.
const REGIONS_OF_A_MODEL: usize = 2;
/// A reset within this time after the attempt was sent may be a stale pooled connection.
const STALE_WITHIN: Duration = Duration::from_millis(100);

/// The terms of a request that are fixed before its plan is built.
#[derive(Clone, Copy, Debug)]
pub struct PlanTerms {
    /// No other model than the requested one may answer.
    pub no_fallback: bool,
    /// The instant at which the request ends.
    pub deadline: Instant,
    /// When its client is expected to give up: its time is shared among attempts up to this instant.
    pub answer_by: Instant,
    /// The instant whose prices apply, in Unix milliseconds. Holds and charges use these prices only, also where
    /// another price begins during the request: so a hold covers the cost.
    pub priced_at_ms: i64,
}

/// The state of one request's routing.
#[derive(Debug)]
pub struct RoutePlan {
    candidate_models: Vec<CandidateModel>,
    mode: AnswerMode,
    terms: PlanTerms,
    tried: Vec<TrackedAttempt>,
    /// The deployment to try once more before any other, if an attempt can be spared for it: at once after a
    /// stale connection, else after a pause.
    retry_same: Option<(usize, DeploymentId)>,
    /// The pause before the same deployment is over; the next step may retry there.
    paused: bool,
    /// The latest instant to wait for a throttled deployment or a trial; set by the first such wait.
    wait_deadline: Option<Instant>,
    /// Only models with a larger context than this may be tried.
    larger_than: Option<u64>,
    /// An attempt was made beside another one.
    rescued: bool,
    gave_up: Option<GiveUpReason>,
}

#[derive(Clone, Copy, Debug)]
struct TrackedAttempt {
    model_index: usize,
    deployment: DeploymentId,
    region: RegionId,
    /// `None` while it runs.
    failure: Option<Failure>,
    /// After a throttle: when its deployment may be asked again, if its provider said so.
    asked_until: Option<Instant>,
    /// What it was paid from.
    paid: Option<ExtraBudget>,
    /// It is a further trial, and was paid from the budget of those too.
    further_trial: bool,
}

/// Where the next attempt goes, and what it needs.
#[derive(Clone, Copy, Debug)]
struct ChosenCandidate {
    candidate: Candidate,
    kind: PermitKind,
    /// What pays for it; the first attempt is free.
    budget: Option<ExtraBudget>,
}

impl RoutePlan {
    /// The plan of one request: only deployments within policy, residency, capacity and features are in it.
    ///
    /// # Errors
    /// A [`Refusal`] when there is no such deployment.
    pub fn build(
        table: &RoutingTable,
        authorized: &AuthorizedRequest,
        call: &Call,
        terms: PlanTerms,
        draw: RandomValue,
    ) -> Result<Self, Refusal> {
        let candidate_models = builder::candidate_models(table, authorized, call, terms.no_fallback, draw)?;
        Ok(Self {
            candidate_models,
            mode: AnswerMode::of(call.metadata().stream, table.settings.hold_streams),
            terms,
            tried: Vec::with_capacity(1),
            retry_same: None,
            paused: false,
            wait_deadline: None,
            larger_than: None,
            rescued: false,
            gave_up: None,
        })
    }

    /// The candidate models, in the order in which they are tried.
    pub fn candidate_models(&self) -> &[CandidateModel] {
        &self.candidate_models
    }

    /// The instant whose prices apply, in Unix milliseconds: [`PlanTerms::priced_at_ms`].
    pub fn priced_at_ms(&self) -> i64 {
        self.terms.priced_at_ms
    }

    /// Attempts made so far.
    pub fn attempts(&self) -> u32 {
        self.tried.len() as u32
    }

    /// What to do next, while no attempt is in flight.
    pub fn next<B: HealthSource>(
        &mut self,
        table: &RoutingTable,
        health: &B,
        now: Instant,
        draw: RandomValue,
    ) -> PlanStep<B::Permit> {
        if let Some(gave_up) = self.gave_up {
            return PlanStep::GiveUp(gave_up);
        }
        if now >= self.terms.deadline {
            return PlanStep::GiveUp(GiveUpReason::OutOfTime);
        }
        if self.attempts() >= self.most_attempts(table) {
            return PlanStep::GiveUp(self.exhausted(now));
        }
        if let Some(pause) = self.pause_before_retry_same(table, health, now, draw) {
            return PlanStep::Wait(pause);
        }
        // Another request can take a choice between view and take; each loss removes a candidate,
        // so the loop ends.
        let mut lost = Vec::new();
        while let Some(choice) = self.choose(table, health, &lost, now, draw) {
            let budget = self.needs_retry_budget(&choice).then_some(ExtraBudget::Retry);
            match self.take(
                table,
                health,
                ChosenCandidate { candidate: choice, kind: choice.permit_kind(), budget },
                now,
            ) {
                Some(attempt) => return PlanStep::Try(attempt),
                None => lost.push(choice.deployment),
            }
        }
        match self.trial(table, health, now) {
            Some(attempt) => PlanStep::Try(attempt),
            None => self.wait_or_give_up(table, health, now, draw),
        }
    }

    /// Whether it made its last attempt, whatever others in flight bring.
    pub fn has_given_up(&self) -> bool {
        self.gave_up.is_some()
    }

    /// Whether all attempts failed in the same way.
    pub fn failed_in_one_way(&self) -> bool {
        let mut failures = self.tried.iter().filter_map(|attempt| attempt.failure);
        let first = failures.next();
        failures.all(|failure| first.is_some_and(|first| first.is_alike(failure)))
    }

    /// Whether one deployment is all that may serve the request.
    pub fn has_one_deployment(&self) -> bool {
        self.deployments().nth(1).is_none()
    }

    /// Whether `deployment` serves the model that is first in order.
    pub fn is_first_model(&self, deployment: DeploymentId, table: &RoutingTable) -> bool {
        let model = table.deployment(deployment).model;
        self.candidate_models.first().is_some_and(|first| first.model == model)
    }

    /// Withdraws the latest attempt: it was not sent, and what it was paid from gets it back.
    pub fn withdraw<B: HealthSource>(&mut self, number: u32, health: &B, now: Instant) {
        debug_assert_eq!(number, self.attempts(), "only the latest attempt can be withdrawn");
        let Some(withdrawn) = self.tried.pop() else { return };
        let trial = withdrawn.further_trial.then_some(ExtraBudget::Trial);
        withdrawn.paid.into_iter().chain(trial).for_each(|budget| health.give_back_extra(budget, now));
    }

    /// Records how attempt `number` failed, and returns what that says.
    ///
    /// # Panics
    /// When no attempt of this plan has that number.
    pub fn record(&mut self, table: &RoutingTable, number: u32, end: FailedAttempt, now: Instant) -> RecordedFailure {
        let index = number as usize - 1;
        let current = self.tried[index];
        let same_before: Vec<Failure> = self.tried[..index]
            .iter()
            .filter(|t| t.deployment == current.deployment)
            .filter_map(|t| t.failure)
            .collect();
        let failure = match end.failure {
            Failure::Reset if end.age < STALE_WITHIN && end.last_was_good && !same_before.contains(&Failure::Stale) => {
                Failure::Stale
            }
            other => other,
        };
        let again_on_500 =
            table.settings.same_region_retry_on_500 && failure == Failure::Status(500) && same_before.is_empty();
        let evidence = self.evidence(failure, &same_before);
        self.tried[index].failure = Some(failure);
        if let Failure::Throttled { after: Some(after) } = failure {
            self.tried[index].asked_until = Some(now + after);
        }
        self.paused = false;
        self.retry_same = None;
        match failure.next_action() {
            FailureAction::Same => self.retry_same = Some((current.model_index, current.deployment)),
            FailureAction::Other if again_on_500 => self.retry_same = Some((current.model_index, current.deployment)),
            FailureAction::Other => {}
            FailureAction::Stop if failure == Failure::Deadline => self.gave_up = Some(GiveUpReason::OutOfTime),
            FailureAction::Stop => self.gave_up = Some(GiveUpReason::Exhausted(failure)),
            FailureAction::Reject if self.on_first_model(current.model_index) => {
                self.gave_up = Some(GiveUpReason::Rejected)
            }
            FailureAction::Reject => {}
            FailureAction::LargerContext => self.require_larger_context(table, current.model_index, now),
        }
        RecordedFailure { failure, evidence }
    }

    /// Whether the request, which nothing served, failed in the same way at two deployments: then it is to blame
    /// itself, and what was counted for its attempts is to be taken back.
    pub fn is_to_blame(&self) -> bool {
        self.tried.iter().enumerate().any(|(index, attempt)| {
            self.tried[..index].iter().any(|earlier| {
                let both = earlier.failure.zip(attempt.failure);
                earlier.deployment != attempt.deployment && both.is_some_and(|(one, other)| one.is_alike(other))
            })
        })
    }

    /// One failure of a request counts at each deployment. What speaks against our account or the model counts only if
    /// another deployment could have shown that it is not the request.
    fn evidence(&self, failure: Failure, same_before: &[Failure]) -> Evidence {
        let repeated = same_before.iter().any(|before| before.health_signal() != HealthSignal::Neutral);
        // A throttle or a refused credential was another credential's before.
        if (repeated && failure.counts_once()) || (self.has_one_deployment() && failure.speaks_of_the_request()) {
            return Evidence::Neutral;
        }
        Evidence::Counts
    }

    /// `max_attempts`, and one more after a stale connection: it was no attempt that could have answered.
    fn most_attempts(&self, table: &RoutingTable) -> u32 {
        let stale = self.tried.iter().any(|attempt| attempt.failure == Some(Failure::Stale));
        table.settings.max_attempts + u32::from(stale)
    }

    /// Takes the permit for what was chosen, and what pays for it.
    fn take<B: HealthSource>(
        &mut self,
        table: &RoutingTable,
        health: &B,
        chosen: ChosenCandidate,
        now: Instant,
    ) -> Option<Attempt<B::Permit>> {
        let ChosenCandidate { candidate: choice, kind, budget } = chosen;
        let permit = health.take(choice.deployment, self.mode, kind, now)?;
        if !budget.is_none_or(|budget| health.spend_extra(budget, now)) {
            return None;
        }
        let region = table.deployment(choice.deployment).region;
        self.tried.push(TrackedAttempt {
            model_index: choice.model_index,
            deployment: choice.deployment,
            region,
            failure: None,
            asked_until: None,
            paid: budget,
            further_trial: false,
        });
        self.retry_same = None;
        let tier = self.candidate_models[choice.model_index].tier;
        Some(Attempt { number: self.attempts(), deployment: choice.deployment, tier, permit })
    }

    fn has_tried(&self, deployment: DeploymentId) -> bool {
        self.tried.iter().any(|t| t.deployment == deployment)
    }

    /// Whether an attempt failed there for a reason that is not the request's own fault.
    fn region_failed(&self, region: RegionId) -> bool {
        let failures = self.tried.iter().filter(|t| t.region == region).filter_map(|t| t.failure);
        failures.map(Failure::next_action).any(|next| matches!(next, FailureAction::Other | FailureAction::Same))
    }

    /// Whether an attempt is in flight there.
    fn waits_in(&self, region: RegionId) -> bool {
        self.tried.iter().any(|t| t.region == region && t.failure.is_none())
    }

    fn last_failure_of(&self, deployment: DeploymentId) -> Option<Failure> {
        self.tried.iter().rev().find(|t| t.deployment == deployment)?.failure
    }

    /// Whether the same deployment could answer now: after a pause or the time that its provider named.
    fn may_try_again(&self, deployment: DeploymentId, now: Instant) -> bool {
        let last = self.tried.iter().rev().find(|t| t.deployment == deployment);
        last.is_some_and(|last| match last.failure {
            Some(Failure::Throttled { .. }) => last.asked_until.is_none_or(|until| until <= now),
            // With another credential; while none may be used there, the deployment is blocked.
            Some(Failure::CredentialRefused) => true,
            Some(other) => other.may_pass(),
            None => false,
        })
    }

    /// A stale connection says nothing about its deployment: there is nothing to wait for.
    fn needs_no_pause(&self) -> bool {
        self.tried.last().is_some_and(|t| t.failure == Some(Failure::Stale))
    }

    fn on_first_model(&self, model_index: usize) -> bool {
        self.first_tried().is_some_and(|first| {
            self.candidate_models[first.model_index].model == self.candidate_models[model_index].model
        })
    }

    fn require_larger_context(&mut self, table: &RoutingTable, model_index: usize, now: Instant) {
        let context = table.model(self.candidate_models[model_index].model).context;
        match context {
            Some(context) if self.larger_than.is_none() => self.larger_than = Some(context),
            _ => self.gave_up = Some(self.exhausted(now)),
        }
    }

    fn has_context(&self, table: &RoutingTable, candidate: &CandidateModel) -> bool {
        self.larger_than.is_none_or(|least| table.model(candidate.model).context.is_some_and(|context| context > least))
    }

    /// Where nothing flows: the untried deployment whose last trial is longest ago, and of those without one that is
    /// soonest to be asked again, is asked now, if its provider did not name a later time.
    fn trial<B: HealthSource>(&mut self, table: &RoutingTable, health: &B, now: Instant) -> Option<Attempt<B::Permit>> {
        let is_further = !self.tried.is_empty();
        if is_further && !(health.has_extra(ExtraBudget::Trial, now) && health.has_extra(ExtraBudget::Retry, now)) {
            return None;
        }
        let budget = is_further.then_some(ExtraBudget::Retry);
        let mut left = self.trial_candidates(table, health, now);
        left.retain(|(_, candidate)| candidate.view.trial_at <= now);
        // In turn: else all trials would go to the one that is soonest to reopen, and the others would stay unheard.
        left.sort_by_key(|(until, candidate)| (candidate.view.last_trial, *until));
        let mut left = left.into_iter();
        let taken = left.find_map(|(_, candidate)| {
            self.take(table, health, ChosenCandidate { candidate, kind: PermitKind::Trial, budget }, now)
        })?;
        if let Some(trial) = self.tried.last_mut().filter(|_| is_further) {
            trial.further_trial = health.spend_extra(ExtraBudget::Trial, now);
        }
        Some(taken)
    }

    fn wait_or_give_up<B: HealthSource>(
        &mut self,
        table: &RoutingTable,
        health: &B,
        now: Instant,
        draw: RandomValue,
    ) -> PlanStep<B::Permit> {
        // The last attempts are kept for regions that were not tried, where a trial may be made soon.
        let patient = now + table.settings.retry_after_wait_max;
        let spare = self.has_spare_attempt(table, health, now, |view| view.trial_at <= patient);
        let kept = if spare { None } else { self.pause_for_trial(table, health, now) };
        let pause = kept
            .or_else(|| self.pause_for_same(table, health, now, draw))
            .or_else(|| self.pause_for_throttled(table, health, now))
            .or_else(|| self.pause_for_trial(table, health, now))
            .or_else(|| self.pause_for_taken(table, health, now));
        match pause {
            Some(pause) => PlanStep::Wait(pause),
            None if self.tried.is_empty() => PlanStep::GiveUp(self.why_nothing_tried(health, now)),
            None => PlanStep::GiveUp(self.exhausted(now)),
        }
    }

    /// Why no deployment could even be tried.
    fn why_nothing_tried<B: HealthSource>(&self, health: &B, now: Instant) -> GiveUpReason {
        let mut soonest = None::<Instant>;
        for (_, deployment) in self.deployments() {
            let view = health.view(deployment, self.mode, now);
            match view.availability {
                Availability::Blocked { until } => soonest = Some(soonest.map_or(until, |s| s.min(until))),
                Availability::Flowing { .. } | Availability::ProbeDue if view.full => return GiveUpReason::Full,
                Availability::Flowing { .. } | Availability::ProbeDue => {}
            }
        }
        GiveUpReason::Unavailable { until: soonest.unwrap_or(now) }
    }

    fn deployments(&self) -> impl Iterator<Item = (usize, DeploymentId)> + '_ {
        self.candidate_models
            .iter()
            .enumerate()
            .flat_map(|(index, model)| model.deployments.iter().map(move |id| (index, *id)))
    }

    /// Where a provider throttled, waiting helps; otherwise the failure of the first model, because that is the one
    /// the client requested.
    fn exhausted(&self, now: Instant) -> GiveUpReason {
        let is_last = |index: usize, attempt: &TrackedAttempt| {
            !self.tried[index + 1..].iter().any(|later| later.deployment == attempt.deployment)
        };
        let last = self.tried.iter().enumerate().filter(|(index, attempt)| is_last(*index, attempt));
        let throttled = last.filter(|(_, attempt)| matches!(attempt.failure, Some(Failure::Throttled { .. })));
        let until = throttled.map(|(_, attempt)| attempt.asked_until.unwrap_or(now + THROTTLED_PAUSE)).min();
        let first = self.first_tried().or(self.tried.first());
        let of_first_model = self.tried.iter().filter(|t| self.on_first_model(t.model_index));
        let failure = of_first_model.filter_map(|t| t.failure).rfind(|f| *f != Failure::NoEndpoint);
        match (failure.or(first.and_then(|t| t.failure)), until) {
            (Some(Failure::Rejected | Failure::ContextTooLong), _) => GiveUpReason::Rejected,
            (Some(_), Some(until)) => GiveUpReason::Throttled { until: until.max(now) },
            (Some(failure), None) => GiveUpReason::Exhausted(failure),
            (None, _) => GiveUpReason::OutOfTime,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::money::{NanoUsd, PicoUsdPerToken};
    use crate::domain::pricing::Price;
    use crate::domain::routing::fixture::{authorized, chat, model_id, policy, table};
    use crate::domain::routing::health::HealthView;
    use crate::domain::routing::table::BalanceStrategy;
    use crate::domain::routing::table::RoutingSettings;
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    const DOWN: Failure = Failure::Unreachable;
    const BUSY: Failure = Failure::Status(503);
    const ERROR: Failure = Failure::Status(500);
    const THROTTLED: Failure = Failure::Throttled { after: Some(Duration::from_secs(3)) };

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// A health source whose views a test sets.
    struct FakeHealth {
        views: RefCell<Vec<HealthView>>,
        /// Deployments that another request takes between view and take.
        taken_by_others: RefCell<Vec<DeploymentId>>,
        retries: Cell<u32>,
        given_back: RefCell<Vec<ExtraBudget>>,
    }

    impl HealthSource for FakeHealth {
        type Permit = DeploymentId;

        fn view(&self, deployment: DeploymentId, _: AnswerMode, now: Instant) -> HealthView {
            let view = self.views.borrow()[deployment.index()];
            match view.availability {
                Availability::Blocked { until } if until <= now => {
                    HealthView { availability: Availability::ProbeDue, ..view }
                }
                _ => view,
            }
        }

        fn take(
            &self,
            deployment: DeploymentId,
            mode: AnswerMode,
            kind: PermitKind,
            now: Instant,
        ) -> Option<DeploymentId> {
            let view = self.view(deployment, mode, now);
            match kind {
                PermitKind::Trial => assert!(view.trial_at <= now, "a trial is due"),
                PermitKind::Usual => assert!(view.is_open_to_attempts() && !view.silent, "a blocked one is not taken"),
                PermitKind::AskSilent => assert!(view.is_open_to_attempts() && view.may_ask),
                PermitKind::DespiteSilence => assert!(view.is_open_to_attempts() && view.silent),
            }
            (!self.taken_by_others.borrow().contains(&deployment)).then_some(deployment)
        }

        fn has_extra(&self, budget: ExtraBudget, _: Instant) -> bool {
            budget != ExtraBudget::Retry || self.retries.get() > 0
        }

        fn spend_extra(&self, budget: ExtraBudget, now: Instant) -> bool {
            let had = self.has_extra(budget, now);
            if budget == ExtraBudget::Retry {
                self.retries.set(self.retries.get().saturating_sub(1));
            }
            had
        }

        fn give_back_extra(&self, budget: ExtraBudget, _: Instant) {
            self.given_back.borrow_mut().push(budget);
        }
    }

    type Change = Box<dyn Fn(&mut HealthView)>;

    /// One request, and everything that a test may change about it.
    struct Scenario {
        table: RoutingTable,
        health: FakeHealth,
        model: &'static str,
        now: Instant,
        deadline: Instant,
        /// How long each attempt takes to fail.
        took: Duration,
        last_was_good: bool,
        draw: RandomValue,
        /// A further effect of a failure on its deployment.
        once_failed: Option<Change>,
        pauses: Vec<Duration>,
    }

    impl Scenario {
        /// `a` in us and eu, then `b` in us and asia by the chain.
        fn new() -> Self {
            let models: &[(&str, &[&str])] = &[("a", &["us", "eu"]), ("b", &["us", "asia"])];
            Self::of(table(models, &[("one", &["a"], &["two"]), ("two", &["b"], &[])]))
        }

        fn of(table: RoutingTable) -> Self {
            let now = Instant::now();
            let well = HealthView {
                availability: Availability::Flowing { share: 1.0 },
                full: false,
                silent: false,
                may_ask: false,
                asked_last: false,
                fresh_credential: false,
                trial_at: now + Duration::from_secs(86_400),
                last_trial: None,
                load: 1.0,
                average: None,
                p99: None,
                last_good: Some(true),
            };
            Self {
                health: FakeHealth {
                    views: RefCell::new(vec![well; table.deployments.len()]),
                    taken_by_others: RefCell::default(),
                    retries: Cell::new(100),
                    given_back: RefCell::default(),
                },
                model: "a",
                deadline: now + table.settings.total,
                table,
                now,
                took: ms(5),
                last_was_good: false,
                draw: RandomValue(1 << 63),
                once_failed: None,
                pauses: Vec::new(),
            }
        }

        fn settings(mut self, change: impl Fn(&mut RoutingSettings)) -> Self {
            change(&mut self.table.settings);
            self
        }

        fn id(&self, name: &str) -> DeploymentId {
            let found = self.table.deployment_ids().find(|id| *self.table.deployment(*id).name == *name);
            found.expect("the test's table holds it")
        }

        fn view(self, name: &str, change: impl Fn(&mut HealthView)) -> Self {
            change(&mut self.health.views.borrow_mut()[self.id(name).index()]);
            self
        }

        fn availability(self, name: &str, availability: Availability) -> Self {
            self.view(name, |view| view.availability = availability)
        }

        /// Open or resting for that long.
        fn blocked(self, name: &str, wait: Duration) -> Self {
            let until = self.now + wait;
            self.availability(name, Availability::Blocked { until })
        }

        fn once_failed(self, change: impl Fn(&mut HealthView) + 'static) -> Self {
            Self { once_failed: Some(Box::new(change)), ..self }
        }

        fn plan(&self) -> RoutePlan {
            let call = chat(self.model);
            let authorized = authorized(&self.table, policy(&self.table, &["*"]), &call);
            let answer_by = self.deadline;
            let terms = PlanTerms { no_fallback: false, deadline: self.deadline, answer_by, priced_at_ms: 0 };
            RoutePlan::build(&self.table, &authorized, &call, terms, self.draw).expect("a plan")
        }

        /// Where the attempts of one request go when they fail in these ways and the next one answers,
        /// and how it ends.
        fn run(&mut self, failures: &[Failure]) -> String {
            let mut plan = self.plan();
            let mut failures = failures.iter();
            let mut trace: Vec<String> = Vec::new();
            loop {
                match plan.next(&self.table, &self.health, self.now, self.draw) {
                    PlanStep::Try(attempt) => {
                        assert_eq!((attempt.number, attempt.permit), (plan.attempts(), attempt.deployment));
                        trace.push(self.table.deployment(attempt.deployment).name.to_string());
                        let Some(failure) = failures.next() else { break };
                        self.now += self.took;
                        let recorded = plan.record(
                            &self.table,
                            attempt.number,
                            FailedAttempt { failure: *failure, age: self.took, last_was_good: self.last_was_good },
                            self.now,
                        );
                        self.record_failure(attempt.deployment, recorded.failure);
                    }
                    PlanStep::Wait(pause) => {
                        trace.push("wait".into());
                        self.now += pause;
                        self.pauses.push(pause);
                    }
                    PlanStep::GiveUp(reason) => {
                        trace.push(self.describe(reason));
                        let retry_same = plan.next(&self.table, &self.health, self.now, self.draw);
                        assert!(
                            matches!(retry_same, PlanStep::GiveUp(_)),
                            "a plan that gave up stays so: {retry_same:?}"
                        );
                        break;
                    }
                }
            }
            assert_eq!(failures.len(), 0, "the test's failures were all met: {trace:?}");
            trace.join(" ")
        }

        /// Like the real health registry: a bad end is visible, and a throttling deployment rests.
        fn record_failure(&self, deployment: DeploymentId, failure: Failure) {
            let view = &mut self.health.views.borrow_mut()[deployment.index()];
            view.last_good = Some(matches!(failure, Failure::Rejected | Failure::ContextTooLong));
            if let Failure::Throttled { after: Some(after) } = failure {
                view.availability = Availability::Blocked { until: self.now + after };
            }
            if let Some(change) = &self.once_failed {
                change(view);
            }
        }

        fn describe(&self, reason: GiveUpReason) -> String {
            match reason {
                GiveUpReason::Unavailable { until } => format!("unavailable for {:?}", until - self.now),
                GiveUpReason::Full => "full".into(),
                GiveUpReason::Rejected => "rejected".into(),
                GiveUpReason::Throttled { until } => format!("throttled for {:?}", until - self.now),
                GiveUpReason::Exhausted(failure) => format!("failed by {failure:?}"),
                GiveUpReason::OutOfTime => "out of time".into(),
            }
        }

        /// How often each deployment is the first choice, in hundredths, over 10,000 requests.
        fn first_choices(&mut self) -> BTreeMap<String, u32> {
            let mut hits = BTreeMap::new();
            for seed in 0..10_000 {
                self.draw = RandomValue(seed).salted(4);
                *hits.entry(self.run(&[])).or_insert(0) += 1;
            }
            hits.into_iter().map(|(name, hits)| (name, (f64::from(hits) / 100.0).round() as u32)).collect()
        }
    }

    fn check(mut scenario: Scenario, failures: &[Failure], expected: &str) {
        assert_eq!(scenario.run(failures), expected, "after {failures:?}");
    }

    fn five_attempts(scenario: Scenario) -> Scenario {
        scenario.settings(|settings| settings.max_attempts = 5)
    }

    #[test]
    fn a_region_that_failed_is_avoided_while_another_is_untried() {
        let scenario = || five_attempts(Scenario::new());
        check(scenario(), &[], "us/a");
        check(scenario(), &[BUSY], "us/a eu/a");
        check(scenario(), &[BUSY, BUSY], "us/a eu/a asia/b");
        check(scenario(), &[BUSY, BUSY, BUSY], "us/a eu/a asia/b us/b");
        check(scenario().blocked("asia/b", ms(900)), &[BUSY, BUSY], "us/a eu/a us/b");
        check(scenario().blocked("eu/a", ms(900)), &[BUSY], "us/a asia/b");
        check(scenario().view("eu/a", |view| view.full = true), &[BUSY], "us/a asia/b");
        // Two providers in one region fail together; in two regions they do not.
        let twins = table(&[("a", &["x@us", "y@us", "z@eu"])], &[("one", &["a"], &[])]);
        check(Scenario::of(twins), &[BUSY, BUSY], "x/a z/a y/a");
    }

    #[test]
    fn attempts_end_with_the_limit_and_the_first_models_failure() {
        check(Scenario::new(), &[BUSY, DOWN, ERROR], "us/a eu/a asia/b failed by Unreachable");
        let once = || Scenario::new().settings(|settings| settings.max_attempts = 1);
        check(once(), &[BUSY], "us/a failed by Status(503)");
        check(once(), &[THROTTLED], "us/a throttled for 3s");
        let last_of_a = "us/a eu/a asia/b us/b wait us/a failed by Status(500)";
        check(five_attempts(Scenario::new()), &[DOWN, BUSY, BUSY, BUSY, ERROR], last_of_a);
    }

    #[test]
    fn with_an_empty_retry_budget_only_a_fallback_to_a_good_deployment_follows() {
        let with_retries = |retries: u32| {
            let scenario = Scenario::new();
            scenario.health.retries.set(retries);
            scenario
        };
        let check = |mut scenario: Scenario, failures: &[Failure], expected: &str, left: u32| {
            assert_eq!(scenario.run(failures), expected);
            assert_eq!(scenario.health.retries.get(), left, "{expected}");
        };
        let bad = |view: &mut HealthView| view.last_good = Some(false);
        check(with_retries(0), &[BUSY, BUSY], "us/a eu/a asia/b", 0);
        check(with_retries(5), &[BUSY, BUSY], "us/a eu/a asia/b", 5);
        check(with_retries(0).view("eu/a", |view| view.last_good = None), &[BUSY], "us/a eu/a", 0);
        check(with_retries(0).view("eu/a", bad), &[BUSY], "us/a asia/b", 0);
        check(with_retries(1).view("eu/a", bad), &[BUSY], "us/a eu/a", 0);
        let all_bad = |scenario: Scenario| scenario.view("eu/a", bad).view("asia/b", bad).view("us/b", bad);
        check(all_bad(with_retries(0)), &[BUSY], "us/a failed by Status(503)", 0);
        check(all_bad(with_retries(1)), &[BUSY, BUSY], "us/a eu/a failed by Status(503)", 0);
        check(all_bad(with_retries(2)), &[BUSY, BUSY], "us/a eu/a asia/b", 0);
        // The first attempt is free, wherever it goes.
        check(all_bad(with_retries(0)).view("us/a", bad), &[], "us/a", 0);
        // The same deployment again always needs the budget, and does not wait without it.
        let alone = |retries: u32| {
            let scenario = alone();
            scenario.health.retries.set(retries);
            scenario
        };
        // Even where it went well for others in the meantime.
        let well = |view: &mut HealthView| view.last_good = Some(true);
        check(alone(0).once_failed(well), &[BUSY], "us/a failed by Status(503)", 0);
        check(alone(0), &[BUSY], "us/a failed by Status(503)", 0);
        check(alone(1), &[BUSY, BUSY], "us/a wait us/a failed by Status(503)", 0);
    }

    fn alone() -> Scenario {
        Scenario::of(table(&[("a", &["us"])], &[("one", &["a"], &[])]))
    }

    #[test]
    fn the_same_deployment_is_tried_again_only_after_a_jittered_pause() {
        let mut longest = [Duration::ZERO; 5];
        for seed in 0..500 {
            let mut scenario = alone().settings(|settings| settings.max_attempts = 6);
            scenario.draw = RandomValue(seed).salted(9);
            assert_eq!(
                scenario.run(&[BUSY; 6]),
                "us/a wait us/a wait us/a wait us/a wait us/a wait us/a failed by Status(503)"
            );
            for (most, pause) in longest.iter_mut().zip(&scenario.pauses) {
                *most = (*most).max(*pause);
            }
        }
        for (most, bound) in longest.iter().zip([25, 50, 100, 200, 250]) {
            assert!(*most <= ms(bound) && *most > ms(bound * 9 / 10), "{most:?} of {bound} ms");
        }
        // A failure that is not temporary is not retried.
        for failure in [THROTTLED, Failure::NotFound] {
            let mut scenario = alone();
            scenario.run(&[failure]);
            assert!(scenario.pauses.is_empty(), "{failure:?}");
        }
    }

    #[test]
    fn no_extra_attempt_starts_that_could_not_answer_in_time() {
        let slow = |average: u64, left: u64| {
            let mut scenario = Scenario::new().view("eu/a", |view| view.average = Some(ms(average)));
            scenario.deadline = scenario.now + scenario.took + ms(left);
            scenario
        };
        check(slow(400, 401), &[BUSY], "us/a eu/a");
        check(slow(400, 399), &[BUSY], "us/a asia/b");
        // A first attempt always starts.
        let mut first = Scenario::new().view("us/a", |view| view.average = Some(ms(5_000)));
        first.deadline = first.now + ms(100);
        check(first, &[], "us/a");
        let mut late = Scenario::new();
        late.deadline = late.now;
        check(late, &[], "out of time");
        let mut during = Scenario::new();
        during.deadline = during.now + during.took;
        check(during, &[BUSY], "us/a out of time");
        let mut no_time_to_pause = alone();
        no_time_to_pause.deadline = no_time_to_pause.now + no_time_to_pause.took + Duration::from_micros(1);
        check(no_time_to_pause, &[BUSY], "us/a failed by Status(503)");
        check(Scenario::new(), &[Failure::Deadline], "us/a out of time");
    }

    #[test]
    fn a_stale_connection_is_replaced_once_at_the_same_deployment() {
        let scenario = |last_was_good, took| Scenario { last_was_good, took, ..five_attempts(Scenario::new()) };
        check(scenario(true, ms(5)), &[Failure::Reset], "us/a us/a");
        check(scenario(true, ms(5)), &[Failure::Reset, Failure::Reset], "us/a us/a eu/a");
        check(scenario(true, ms(100)), &[Failure::Reset], "us/a eu/a");
        check(scenario(false, ms(5)), &[Failure::Reset], "us/a eu/a");
        check(scenario(true, ms(5)), &[DOWN], "us/a eu/a");
        // Where the same deployment cannot be used by now, another is tried.
        let tripped = scenario(true, ms(5)).once_failed(|view| view.full = true);
        check(tripped, &[Failure::Reset], "us/a eu/a");
        // Three regions and three attempts: the one that met a stale connection is not counted.
        let scarce = |max_attempts| scenario(true, ms(5)).settings(|settings| settings.max_attempts = max_attempts);
        check(scarce(3), &[Failure::Reset, BUSY, BUSY], "us/a us/a eu/a asia/b");
        check(scarce(4), &[Failure::Reset, BUSY], "us/a us/a eu/a");
        check(scarce(3).blocked("asia/b", ms(900)), &[Failure::Reset, BUSY], "us/a us/a eu/a");
        // It needs the retry budget.
        let empty = scenario(true, ms(5)).view("eu/a", |view| view.last_good = Some(false));
        empty.health.retries.set(0);
        check(empty, &[Failure::Reset], "us/a asia/b");
    }

    #[test]
    fn a_500_is_tried_once_more_in_its_region_where_that_is_wanted() {
        let wanted = || five_attempts(Scenario::new()).settings(|settings| settings.same_region_retry_on_500 = true);
        check(Scenario::new(), &[ERROR], "us/a eu/a");
        check(wanted(), &[ERROR], "us/a wait us/a");
        check(wanted(), &[ERROR, ERROR], "us/a wait us/a eu/a");
        check(wanted(), &[BUSY], "us/a eu/a");
        let full = |view: &mut HealthView| view.full = true;
        check(wanted().once_failed(full), &[ERROR], "us/a eu/a");
    }

    #[test]
    fn a_rejected_request_stops_at_the_first_model_and_continues_at_a_later_one() {
        let rejected = Failure::Rejected;
        check(Scenario::new(), &[rejected], "us/a rejected");
        check(Scenario::new(), &[BUSY, rejected], "us/a eu/a rejected");
        let scenario = || five_attempts(Scenario::new()).blocked("eu/a", ms(60_000));
        check(scenario(), &[BUSY, rejected], "us/a asia/b us/b");
        check(scenario(), &[BUSY, rejected, rejected], "us/a asia/b us/b wait us/a");
        check(scenario(), &[DOWN, rejected, rejected, BUSY], "us/a asia/b us/b wait us/a wait us/a");
        let three = Scenario::new().blocked("eu/a", ms(60_000));
        check(three, &[DOWN, rejected, rejected], "us/a asia/b us/b failed by Unreachable");
    }

    #[test]
    fn too_long_a_context_is_tried_once_at_a_larger_model() {
        let scenario = |contexts: [Option<u64>; 3]| {
            let models: &[(&str, &[&str])] = &[("a", &["us", "eu"]), ("b", &["us"]), ("c", &["eu"])];
            let mut table = table(models, &[("one", &["a", "b", "c"], &[])]);
            for (name, context) in ["a", "b", "c"].into_iter().zip(contexts) {
                let id = model_id(&table, name);
                table.models[id.index()].context = context;
            }
            Scenario::of(table)
        };
        let long = Failure::ContextTooLong;
        check(scenario([Some(8), Some(8), Some(32)]), &[long], "us/a eu/c");
        check(scenario([Some(8), Some(32), Some(32)]), &[long], "us/a us/b");
        check(scenario([Some(8), Some(32), Some(64)]), &[long, long], "us/a us/b rejected");
        check(scenario([Some(8), None, Some(4)]), &[long], "us/a rejected");
        check(scenario([None, Some(32), Some(32)]), &[long], "us/a rejected");
        check(scenario([Some(8), None, Some(32)]), &[long, BUSY], "us/a eu/c rejected");
    }

    #[test]
    fn a_throttled_deployment_is_waited_for_only_where_allowed_and_nothing_else_serves() {
        let waits = |most: u64| {
            let scenario = alone().settings(|settings| settings.retry_after_wait_max = Duration::from_secs(most));
            five_attempts(scenario)
        };
        check(waits(0), &[THROTTLED], "us/a throttled for 3s");
        check(waits(2), &[THROTTLED], "us/a throttled for 3s");
        let mut scenario = waits(3);
        assert_eq!(scenario.run(&[THROTTLED]), "us/a wait us/a");
        assert_eq!(scenario.pauses, [Duration::from_secs(3)]);
        // All waits together are no longer than one.
        check(waits(5), &[THROTTLED, THROTTLED], "us/a wait us/a throttled for 3s");
        check(waits(7), &[THROTTLED, THROTTLED], "us/a wait us/a wait us/a");
        let mut soon_over = waits(3);
        soon_over.deadline = soon_over.now + Duration::from_secs(2);
        check(soon_over, &[THROTTLED], "us/a throttled for 3s");
        let without_retries = waits(3);
        without_retries.health.retries.set(0);
        check(without_retries, &[THROTTLED], "us/a throttled for 3s");
        // Any other deployment goes first, and no request waits for a breaker.
        let patient =
            |scenario: Scenario| scenario.settings(|settings| settings.retry_after_wait_max = Duration::from_secs(9));
        check(patient(Scenario::new()), &[THROTTLED], "us/a eu/a");
        check(patient(alone()).blocked("us/a", ms(500)), &[], "unavailable for 500ms");
    }

    #[test]
    fn a_refused_credential_leads_elsewhere_and_back_only_with_another_credential() {
        let refused = Failure::CredentialRefused;
        check(Scenario::new(), &[refused], "us/a eu/a");
        check(alone(), &[refused], "us/a wait us/a");
        let until = Instant::now() + Duration::from_secs(3600);
        let resting = alone().once_failed(move |view| view.availability = Availability::Blocked { until });
        check(resting, &[refused], "us/a failed by CredentialRefused");
    }

    #[test]
    fn where_nothing_can_be_tried_the_reason_is_the_first_reopening_or_being_full() {
        let full = |view: &mut HealthView| view.full = true;
        let open =
            |scenario: Scenario| scenario.blocked("eu/a", ms(800)).blocked("us/b", ms(300)).blocked("asia/b", ms(900));
        check(open(Scenario::new()).blocked("us/a", ms(700)), &[], "unavailable for 300ms");
        check(open(Scenario::new()).view("us/a", full), &[], "full");
        check(alone().view("us/a", full), &[], "full");
    }

    #[test]
    fn a_choice_lost_to_another_request_leads_to_the_next() {
        let scenario = Scenario::new();
        scenario.health.taken_by_others.replace(vec![scenario.id("us/a"), scenario.id("eu/a")]);
        check(scenario, &[], "us/b");
        let scenario = Scenario::new();
        scenario.health.taken_by_others.replace(scenario.table.deployment_ids().collect());
        check(scenario, &[], "unavailable for 0ns");
    }

    #[test]
    fn a_due_probe_goes_first_with_a_first_attempt_and_last_with_an_extra_one() {
        let due = Availability::ProbeDue;
        check(Scenario::new().availability("eu/a", due), &[], "eu/a");
        check(Scenario::new().availability("us/b", due), &[], "us/a");
        check(Scenario::new().availability("eu/a", due).view("eu/a", |view| view.silent = true), &[], "us/a");
        // With an extra attempt only where nothing healthy is left in a region that has not failed.
        check(Scenario::new().availability("us/a", due).availability("eu/a", due), &[BUSY, BUSY], "us/a asia/b eu/a");
        let models: &[(&str, &[&str])] = &[("a", &["v@us", "w@us", "x@us", "y@us"])];
        let one_region = || Scenario::of(table(models, &[("one", &["a"], &[])])).availability("w/a", due);
        let flowing = Availability::Flowing { share: 1.0 };
        check(
            one_region().availability("v/a", due).availability("w/a", flowing).availability("x/a", due),
            &[BUSY],
            "v/a w/a",
        );
        check(one_region(), &[BUSY, BUSY], "w/a v/a x/a");
    }

    #[test]
    fn silent_deployments_and_those_in_slow_start_are_chosen_less() {
        let pair = |balance: BalanceStrategy| {
            let pair = table(&[("a", &["us", "eu"])], &[("one", &["a"], &[])]);
            Scenario::of(pair).settings(|settings| settings.balance = balance)
        };
        let silent = |view: &mut HealthView| view.silent = true;
        let shares = |mut scenario: Scenario, expected: &[(&str, u32)]| {
            let found = scenario.first_choices();
            for (name, share) in expected {
                let hits = found.get(*name).copied().unwrap_or(0);
                assert!(hits.abs_diff(*share) <= 2, "{name}: {hits} instead of {share} of 100");
            }
        };
        for balance in
            [BalanceStrategy::Ordered, BalanceStrategy::Weighted, BalanceStrategy::Latency, BalanceStrategy::Cost]
        {
            shares(pair(balance).view("us/a", silent), &[("us/a", 0), ("eu/a", 100)]);
        }
        check(pair(BalanceStrategy::Ordered).view("us/a", silent).view("eu/a", silent), &[], "us/a");
        let tenth = Availability::Flowing { share: 0.1 };
        shares(pair(BalanceStrategy::Ordered).availability("us/a", tenth), &[("us/a", 10), ("eu/a", 90)]);
        shares(pair(BalanceStrategy::Weighted).availability("us/a", tenth), &[("us/a", 5), ("eu/a", 95)]);
        shares(pair(BalanceStrategy::Latency).availability("us/a", tenth), &[("us/a", 5), ("eu/a", 95)]);
        check(alone().availability("us/a", tenth), &[], "us/a");
    }

    #[test]
    fn deployments_are_chosen_as_the_balance_says() {
        let three = |balance: BalanceStrategy| {
            let three = table(&[("a", &["us", "eu", "asia"])], &[("one", &["a"], &[])]);
            let mut scenario = Scenario::of(three).settings(|settings| settings.balance = balance);
            for (deployment, (weight, price)) in scenario.table.deployments.iter_mut().zip([(1, 30), (2, 10), (1, 20)])
            {
                deployment.weight = weight;
                let pico = PicoUsdPerToken(price);
                let request = NanoUsd::ZERO;
                deployment.price =
                    Some(Price { input: pico, cached_input: pico, output: pico, request, ..Price::default() }.into());
            }
            for (name, load) in [("us/a", 1.0), ("eu/a", 3.0), ("asia/a", 2.0)] {
                scenario = scenario.view(name, |view| view.load = load);
            }
            scenario
        };
        let check = |mut scenario: Scenario, expected: &[(&str, u32)]| {
            let found = scenario.first_choices();
            assert_eq!(found.values().sum::<u32>(), 100, "{found:?}");
            for (name, share) in expected {
                let hits = found.get(*name).copied().unwrap_or(0);
                assert!(hits.abs_diff(*share) <= 2, "{name}: {found:?}");
            }
        };
        check(three(BalanceStrategy::Ordered), &[("us/a", 100)]);
        check(three(BalanceStrategy::Weighted), &[("us/a", 25), ("eu/a", 50), ("asia/a", 25)]);
        // The better of two: the least loaded wins both its pairs, the most loaded none.
        check(three(BalanceStrategy::Latency), &[("us/a", 67), ("eu/a", 0), ("asia/a", 33)]);
        check(three(BalanceStrategy::Cost), &[("eu/a", 100)]);
        let in_home_region = |balance| {
            let mut scenario = three(balance);
            let region = scenario.table.deployment(scenario.id("asia/a")).region;
            scenario.table.settings.home = Some(region);
            scenario
        };
        for balance in
            [BalanceStrategy::Ordered, BalanceStrategy::Weighted, BalanceStrategy::Latency, BalanceStrategy::Cost]
        {
            check(in_home_region(balance), &[("asia/a", 100)]);
        }
        check(in_home_region(BalanceStrategy::Ordered).view("asia/a", |view| view.full = true), &[("us/a", 100)]);
    }

    /// Where trials may be made: those deployments are asked one after the other, soonest to reopen first.
    #[test]
    fn where_nothing_flows_each_deployment_is_tried_once_soonest_first() {
        let open = |scenario: Scenario, name: &str, wait: u64| {
            let now = scenario.now;
            scenario.blocked(name, ms(wait)).view(name, |view| view.trial_at = now)
        };
        let three = || Scenario::of(table(&[("a", &["us", "eu", "asia"])], &[("one", &["a"], &[])]));
        let all = open(open(open(three(), "us/a", 900), "eu/a", 300), "asia/a", 600);
        check(all, &[BUSY, DOWN, ERROR], "eu/a asia/a us/a failed by Status(500)");
        // One that fails is not tried again while others could be the one that is well.
        let first = open(open(three(), "eu/a", 300), "asia/a", 600);
        check(first, &[BUSY, DOWN], "us/a eu/a asia/a");
        // Not before its time: the request waits, as long as it may.
        let mut later = three().settings(|settings| settings.retry_after_wait_max = Duration::from_secs(2));
        for name in ["us/a", "eu/a", "asia/a"] {
            let at = later.now + ms(60);
            later = later.blocked(name, ms(60_000)).view(name, |view| view.trial_at = at);
        }
        check(later, &[], "wait wait wait us/a");
    }

    /// What `beside` gives while the first attempt is in flight.
    #[test]
    fn another_attempt_beside_the_first_goes_elsewhere_and_only_once() {
        let beside = |scenario: &Scenario, plan: &mut RoutePlan, why| {
            let attempt = plan.beside(&scenario.table, &scenario.health, why, scenario.now, scenario.draw);
            attempt.map(|attempt| scenario.table.deployment(attempt.deployment).name.to_string())
        };
        let started = |scenario: &Scenario| {
            let mut plan = scenario.plan();
            let step = plan.next(&scenario.table, &scenario.health, scenario.now, scenario.draw);
            assert!(matches!(step, PlanStep::Try(_)));
            plan
        };
        for why in [BesideReason::Rescue, BesideReason::ShareOfTime, BesideReason::Hedge] {
            let scenario = Scenario::new();
            let mut plan = started(&scenario);
            assert_eq!(beside(&scenario, &mut plan, why).as_deref(), Some("eu/a"), "{why:?}");
            assert_eq!(beside(&scenario, &mut plan, why), None, "{why:?}: once");
        }
        // It needs the retry budget, and a deployment that is neither open nor silent; only a rescue may be a trial.
        let scenario = Scenario::new();
        scenario.health.retries.set(0);
        assert_eq!(beside(&scenario, &mut started(&scenario), BesideReason::Rescue), None);
        let silent = |view: &mut HealthView| view.silent = true;
        let scenario = Scenario::new().view("eu/a", silent).blocked("us/b", ms(900));
        assert_eq!(beside(&scenario, &mut started(&scenario), BesideReason::Rescue).as_deref(), Some("asia/b"));
        let scenario = scenario.blocked("asia/b", ms(900));
        let now = scenario.now;
        let scenario = scenario.view("asia/b", |view| view.trial_at = now);
        assert_eq!(beside(&scenario, &mut started(&scenario), BesideReason::Hedge), None);
        let mut plan = started(&scenario);
        assert_eq!(beside(&scenario, &mut plan, BesideReason::Rescue).as_deref(), Some("asia/b"));
        // One that is not sent costs nothing, whatever it was paid from.
        plan.withdraw(2, &scenario.health, scenario.now);
        assert_eq!(
            (plan.attempts(), scenario.health.given_back.take()),
            (1, vec![ExtraBudget::Retry, ExtraBudget::Trial])
        );
        for (why, budget) in
            [(BesideReason::ShareOfTime, ExtraBudget::Retry), (BesideReason::Hedge, ExtraBudget::Hedge)]
        {
            let scenario = Scenario::new();
            let mut plan = started(&scenario);
            assert_eq!(beside(&scenario, &mut plan, why).as_deref(), Some("eu/a"));
            plan.withdraw(2, &scenario.health, scenario.now);
            assert_eq!(scenario.health.given_back.take(), [budget], "{why:?}");
        }
        let scenario = Scenario::new();
        started(&scenario).withdraw(1, &scenario.health, scenario.now);
        assert_eq!(scenario.health.given_back.take(), [], "the first one is free");
    }

    #[test]
    fn a_deployment_that_answers_again_is_asked_again_before_a_trial() {
        // The first attempt is lost in one region and the second beside it in another; the third is open, or to be probed.
        let third = |lost_is_well: bool, is_due: bool| {
            let scenario = Scenario::of(table(&[("a", &["us", "eu", "asia"])], &[("one", &["a"], &[])]))
                .blocked("asia/a", ms(900));
            let (now, draw) = (scenario.now, scenario.draw);
            let mut plan = scenario.plan();
            let PlanStep::Try(first) = plan.next(&scenario.table, &scenario.health, now, draw) else { panic!() };
            let rescue = plan.beside(&scenario.table, &scenario.health, BesideReason::Rescue, now, draw).expect("eu");
            let name = |id| scenario.table.deployment(id).name.to_string();
            let (first, rescue) = (name(first.deployment), name(rescue.deployment));
            let scenario = scenario.view(&rescue, |view| view.silent = true);
            let scenario = scenario.view(&first, |view| view.silent = !lost_is_well);
            let scenario = match is_due {
                true => scenario.availability("asia/a", Availability::ProbeDue),
                false => scenario.view("asia/a", |view| view.trial_at = now),
            };
            let vain = PendingAttempts { alone: false, silent: false, hedge: false, late: false, in_vain: true };
            let due = plan.due(&scenario.table, &scenario.health, vain, now, draw);
            let (attempt, _) = due.expect("an attempt is left");
            (scenario.table.deployment(attempt.deployment).name.to_string(), first)
        };
        for is_due in [false, true] {
            let (asked, lost) = third(true, is_due);
            assert_eq!(asked, lost);
            assert_eq!(third(false, is_due).0, "asia/a");
        }
    }

    #[test]
    fn a_rescue_probes_where_nothing_flows_and_a_probe_is_due() {
        let silent = |view: &mut HealthView| view.silent = true;
        let scenario = Scenario::new().view("eu/a", silent).view("us/b", silent);
        let scenario = scenario.availability("asia/b", Availability::ProbeDue);
        let beside = |why| {
            let mut plan = scenario.plan();
            let step = plan.next(&scenario.table, &scenario.health, scenario.now, scenario.draw);
            assert!(matches!(step, PlanStep::Try(_)));
            let attempt = plan.beside(&scenario.table, &scenario.health, why, scenario.now, scenario.draw);
            attempt.map(|attempt| scenario.table.deployment(attempt.deployment).name.to_string())
        };
        assert_eq!(beside(BesideReason::Rescue).as_deref(), Some("asia/b"));
        assert_eq!(beside(BesideReason::Hedge), None);
    }

    #[test]
    fn an_attempt_is_kept_for_each_model_of_the_chain() {
        let tiers: &[(&str, &[&str], &[&str])] =
            &[("one", &["a"], &["two", "three"]), ("two", &["b"], &[]), ("three", &["c"], &[])];
        let apart = || table(&[("a", &["us", "eu", "asia"]), ("b", &["north"]), ("c", &["south"])], tiers);
        check(Scenario::of(apart()), &[BUSY, DOWN], "us/a north/b south/c");
        // With attempts to spare a second region of the model comes first, and then the chain.
        check(five_attempts(Scenario::of(apart())), &[BUSY, DOWN, ERROR], "us/a eu/a north/b south/c");
        // What cannot be reached needs no attempt.
        let open = Scenario::of(apart()).blocked("north/b", ms(60_000)).blocked("south/c", ms(60_000));
        check(open, &[BUSY, DOWN], "us/a eu/a asia/a");
        // Where all regions serve all models, each attempt is at another model in another region.
        let all: &[&str] = &["us", "eu", "asia"];
        let together = table(&[("a", all), ("b", all), ("c", all)], tiers);
        check(Scenario::of(together), &[BUSY, DOWN], "us/a eu/b asia/c");
        // A model that is only in a region that failed does not keep an attempt from a region that did not.
        let beside = table(&[("a", all), ("b", &["us"])], &[("one", &["a"], &["two"]), ("two", &["b"], &[])]);
        check(Scenario::of(beside), &[DOWN, DOWN], "us/a eu/a asia/a");
    }

    #[test]
    fn another_credential_is_used_in_the_same_request() {
        let fresh = |view: &mut HealthView| view.fresh_credential = true;
        // The throttled one does not block the deployment.
        let flows = |view: &mut HealthView| view.availability = Availability::Flowing { share: 1.0 };
        check(alone().view("us/a", fresh).once_failed(flows), &[THROTTLED], "us/a us/a");
        check(five_attempts(Scenario::new()).view("us/a", fresh), &[Failure::CredentialRefused], "us/a us/a");
        let other = Scenario::new().view("us/a", fresh);
        check(other, &[BUSY], "us/a eu/a");
    }

    #[test]
    fn a_request_that_fails_alike_at_two_deployments_is_to_blame() {
        let blame = |failures: [Failure; 2]| {
            let scenario = Scenario::new();
            let mut plan = scenario.plan();
            for failure in failures {
                let step = plan.next(&scenario.table, &scenario.health, scenario.now, scenario.draw);
                let PlanStep::Try(attempt) = step else { panic!("{step:?}") };
                let end = FailedAttempt { failure, age: ms(5), last_was_good: false };
                plan.record(&scenario.table, attempt.number, end, scenario.now);
            }
            plan.is_to_blame()
        };
        assert!(blame([ERROR, ERROR]) && blame([ERROR, BUSY]) && blame([Failure::NotFound, Failure::NotFound]));
        assert!(!blame([DOWN, DOWN]) && !blame([ERROR, DOWN]) && !blame([ERROR, Failure::Garbage]));
    }
}
