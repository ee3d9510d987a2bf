//! The health of deployments as the plan of one request reads it, and where it takes permits.
//!
//! It answers with what the locks hold at that moment; nothing is decided here. A permit that was taken is in
//! `permit.rs`.
//!
//! Start reading in [`TeamHealthView`].

use super::permit::Permit;
use super::queue::HeldPlace;
use super::{DeploymentHealth, DeploymentSet, SetMember, TRIAL_EVERY};
use crate::domain::breaker::team::TeamBreakerPermit;
use crate::domain::breaker::{Availability, StateName};
use crate::domain::call::Endpoint;
use crate::domain::id::{DeploymentId, TeamId};
use crate::domain::receipt::PassedOverReason;
use crate::domain::retry::RetryBudget;
use crate::domain::routing::AnswerMode;
use crate::domain::routing::health::{ExtraBudget, HealthSource, HealthView, PermitKind};
use crate::domain::routing::places::PlaceHolder;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;

/// A [`DeploymentSet`] as the requests of one team see it.
#[derive(Clone)]
pub struct TeamHealthView<'a> {
    pub(super) deployments: &'a DeploymentSet,
    pub(super) team: TeamId,
    /// What its policy may spend on hedges.
    pub(super) hedge: Option<Arc<Mutex<RetryBudget>>>,
    /// The index of the one credential that may be used of each provider; `None`: any.
    pub(super) credential: Option<usize>,
    /// What the request is for.
    pub(super) endpoint: Endpoint,
    /// Whose places its attempts take.
    pub(super) holder: PlaceHolder,
    /// The place that it waited for.
    pub(in crate::relay) place: Option<Arc<HeldPlace>>,
}

impl TeamHealthView<'_> {
    /// The same, where the credential at this index alone may be used.
    pub fn with_credential(self, credential: Option<usize>) -> Self {
        Self { credential, ..self }
    }

    /// The same, for a request to `endpoint`.
    pub fn for_endpoint(self, endpoint: Endpoint) -> Self {
        Self { endpoint, ..self }
    }

    /// The same, where attempts take the places of `holder`.
    pub fn with_holder(self, holder: PlaceHolder) -> Self {
        Self { holder, ..self }
    }

    /// The team whose requests it is for.
    pub fn team(&self) -> TeamId {
        self.team
    }

    /// Whose places its attempts take.
    pub fn holder(&self) -> PlaceHolder {
        self.holder
    }

    /// Whether `deployment` is known not to have the endpoint.
    pub fn lacks_endpoint(&self, deployment: DeploymentId, now: Instant) -> bool {
        let health = self.member(deployment).state.health.lock();
        matches!(health.endpoints.availability(self.endpoint, self.team, now), Availability::Blocked { .. })
    }

    /// Counts a request towards the budgets of extra attempts.
    pub fn request(&self, now: Instant) {
        self.deployments.budgets.retry.lock().request(self.team, now);
        self.deployments.budgets.trial.lock().request(self.team, now);
        if let Some(hedge) = &self.hedge {
            hedge.lock().request(self.team, now);
        }
    }

    /// Why `deployment` would not be asked at `now`, and until when, as far as that is known.
    pub fn why_passed_over(
        &self,
        deployment: DeploymentId,
        now: Instant,
    ) -> Option<(PassedOverReason, Option<Instant>)> {
        let member = self.member(deployment);
        let credentials = member.credentials.view(self.credential, self.team, now);
        let mut health = member.state.health.lock();
        let until = |availability: Availability| match availability {
            Availability::Blocked { until } => Some(until),
            Availability::Flowing { .. } | Availability::ProbeDue => None,
        };
        if let Some(until) = until(health.breakers.availability(self.team, now)) {
            let half_open = health.breakers.name(now) == StateName::HalfOpen;
            let why = if half_open { PassedOverReason::HalfOpen } else { PassedOverReason::Open };
            return Some((why, Some(until)));
        }
        if let Some(until) = until(health.not_found.availability(self.team, now)) {
            return Some((PassedOverReason::Resting, Some(until)));
        }
        if let Some(until) = until(health.endpoints.availability(self.endpoint, self.team, now)) {
            return Some((PassedOverReason::NoEndpoint, Some(until)));
        }
        if let Some(until) = until(credentials.availability) {
            let throttled = member.credentials.are_throttled(self.credential, now);
            let why = if throttled { PassedOverReason::Throttled } else { PassedOverReason::Resting };
            return Some((why, Some(until)));
        }
        if health.gauge.is_silent(member.silence, now) {
            return Some((PassedOverReason::Silent, None));
        }
        self.is_full(member, &health, now).then_some((PassedOverReason::Full, None))
    }

    /// Whether it has no place for the request, which may have waited for one.
    fn is_full(&self, member: &SetMember, health: &DeploymentHealth, now: Instant) -> bool {
        let held = self.place.as_ref().is_some_and(|place| place.is_at(&member.state));
        // A request keeps the limit of its own configuration, where a reload raised it.
        let full = || member.limits.most.is_some_and(|most| health.places.taken() >= most);
        !held && (health.places.is_full(self.holder.reserved, now) || full())
    }

    fn member(&self, deployment: DeploymentId) -> &SetMember {
        &self.deployments.members[deployment.index()]
    }

    fn budget(&self, budget: ExtraBudget) -> Option<&Mutex<RetryBudget>> {
        match budget {
            ExtraBudget::Retry => Some(&self.deployments.budgets.retry),
            ExtraBudget::Trial => Some(&self.deployments.budgets.trial),
            ExtraBudget::Hedge => self.hedge.as_deref(),
        }
    }
}

impl HealthSource for TeamHealthView<'_> {
    type Permit = Permit;

    fn view(&self, deployment: DeploymentId, mode: AnswerMode, now: Instant) -> HealthView {
        let member = self.member(deployment);
        let credentials = member.credentials.view(self.credential, self.team, now);
        let mut health = member.state.health.lock();
        let rests = credentials.availability.stricter(health.not_found.availability(self.team, now));
        let rests = rests.stricter(health.endpoints.availability(self.endpoint, self.team, now));
        let silent = health.gauge.is_silent(member.silence, now);
        HealthView {
            availability: health.breakers.availability(self.team, now).stricter(rests),
            full: self.is_full(member, &health, now),
            silent,
            may_ask: silent && health.gauge.may_ask(self.team, now),
            asked_last: credentials.asked_last,
            fresh_credential: !credentials.asked_last,
            trial_at: health.trial_at(now).max(credentials.stated_until.unwrap_or(now)),
            last_trial: health.last_trial,
            load: health.gauge.load(mode, now),
            average: health.gauge.average(mode),
            p99: health.gauge.p99(mode),
            last_good: health.gauge.last_good(),
        }
    }

    fn take(&self, deployment: DeploymentId, mode: AnswerMode, kind: PermitKind, now: Instant) -> Option<Permit> {
        let member = self.member(deployment);
        let mut credential = match kind {
            PermitKind::Trial => member.credentials.take_for_trial(self.credential, self.team, now)?,
            PermitKind::Usual | PermitKind::AskSilent | PermitKind::DespiteSilence => {
                member.credentials.take(self.credential, self.team, now)?
            }
        };
        let mut health = member.state.health.lock();
        let full = self.is_full(member, &health, now);
        let admitted = if full { None } else { health.admit(member, (self.team, self.endpoint), kind, now) };
        let Some(admitted) = admitted else {
            drop(health);
            credential.undecided(now);
            return None;
        };
        let last_was_good = health.gauge.last_good() == Some(true);
        let attempt = health.gauge.sent(self.team, mode, now);
        let held = self.place.as_deref().filter(|place| place.is_at(&member.state));
        member.state.take_place(&mut health.places, held, self.holder, now);
        let ask_until = match kind {
            PermitKind::AskSilent if health.gauge.silent_since().is_some() => {
                health.gauge.asks(attempt, mode, member.silence, now)
            }
            _ => now + member.silence.silent_after,
        };
        drop(health);
        Some(Permit {
            state: member.state.clone(),
            telemetry: self.deployments.telemetry.clone(),
            rng: self.deployments.rng.clone(),
            clock: self.deployments.clock,
            team: self.team,
            holder: self.holder,
            silence: member.silence,
            sent: now,
            heard: None,
            last_was_good,
            ask_until,
            credential,
            permit: admitted.permit,
            not_found_trial: admitted.not_found_trial,
            endpoint: self.endpoint,
            endpoint_trial: admitted.endpoint_trial,
            attempt,
            answered: false,
            stalled: false,
            reported: false,
        })
    }

    fn has_extra(&self, budget: ExtraBudget, now: Instant) -> bool {
        self.budget(budget).is_some_and(|budget| budget.lock().has_left(self.team, now))
    }

    fn spend_extra(&self, budget: ExtraBudget, now: Instant) -> bool {
        self.budget(budget).is_some_and(|budget| budget.lock().spend(self.team, now))
    }

    fn give_back_extra(&self, budget: ExtraBudget, now: Instant) {
        if let Some(budget) = self.budget(budget) {
            budget.lock().give_back(self.team, now);
        }
    }
}

impl DeploymentHealth {
    fn trial_at(&self, now: Instant) -> Instant {
        self.last_trial.map_or(now, |last| (last + TRIAL_EVERY).max(now))
    }

    /// What lets an attempt of this kind pass.
    fn admit(
        &mut self,
        member: &SetMember,
        (team, endpoint): (TeamId, Endpoint),
        kind: PermitKind,
        now: Instant,
    ) -> Option<Admitted> {
        let silent = self.gauge.is_silent(member.silence, now);
        match kind {
            PermitKind::Usual if silent => return None,
            PermitKind::AskSilent if silent && !self.gauge.may_ask(team, now) => return None,
            PermitKind::Trial if self.trial_at(now) > now => return None,
            PermitKind::Trial => {
                self.last_trial = Some(now);
                let permit = self.breakers.admit_trial(team);
                return Some(Admitted { permit, not_found_trial: false, endpoint_trial: false });
            }
            PermitKind::Usual | PermitKind::AskSilent | PermitKind::DespiteSilence => {}
        }
        let not_found_trial = self.not_found.take(team, now)?;
        let asked = self.endpoints.of_mut(endpoint).take(team, now);
        let permit = asked.and_then(|_| self.breakers.admit(team, now));
        let endpoint_trial = asked == Some(true);
        match permit {
            Some(permit) => Some(Admitted { permit, not_found_trial, endpoint_trial }),
            None => {
                self.end_trials(not_found_trial, endpoint_trial.then_some(endpoint), now);
                None
            }
        }
    }

    /// Trials that brought no result: the next attempts are theirs.
    pub(super) fn end_trials(&mut self, of_model: bool, of_endpoint: Option<Endpoint>, now: Instant) {
        if of_model {
            self.not_found.undecided(now);
        }
        if let Some(endpoint) = of_endpoint {
            self.endpoints.of_mut(endpoint).undecided(now);
        }
    }
}

/// What lets an attempt pass.
struct Admitted {
    permit: TeamBreakerPermit,
    /// Whether it is the trial of a model that was not found.
    not_found_trial: bool,
    /// Whether it is the trial of an endpoint that was missing.
    endpoint_trial: bool,
}
