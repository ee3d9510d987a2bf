//! The deployments' health and load, as all requests share them.
//!
//! One small lock for each deployment and credential protects what the domain decides by: breaker, gauge and
//! credential health. States are found by names that stay over reloads; a [`DeploymentSet`] is the states of
//! one snapshot in the order of its table. No lock may be held across an await, and no decision may be made
//! here: this module only stores state, rotates credentials and counts.
//!
//! Start reading in [`Permit`]: what an attempt holds, and how its end is reported exactly once.

use super::estimator::{TokenEstimator, TokenEstimators};
use crate::domain::breaker::credential::CredentialHealth;
use crate::domain::breaker::{Availability, Breaker, BreakerPermit, StateName, Transition};
use crate::domain::failure::{Failure, HealthSignal};
use crate::domain::id::{DeploymentId, KeyId, ModelId};
use crate::domain::random::RandomValue;
use crate::domain::retry::RetryBudget;
use crate::domain::routing::gauge::{AnswerMode, Gauge, PendingAttempt};
use crate::domain::routing::plan::{self, HealthView};
use crate::domain::routing::table::{RoutingSettings, RoutingTable};
use crate::random::Rng;
use crate::telemetry::Telemetry;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The states of all deployments and credentials in the process.
pub struct HealthRegistry {
    /// By deployment name; locked at reloads only.
    deployments: Mutex<HashMap<Arc<str>, Arc<DeploymentState>>>,
    /// Locked at reloads only; by provider name and the hash of the credential: a new one starts accepted,
    /// whatever its position in the list.
    credentials: Mutex<HashMap<(Arc<str>, CredentialHash), SharedHealth>>,
    /// Shared by all deployment sets: the gateway has one retry budget.
    retries: Arc<Mutex<RetryBudget>>,
    estimators: TokenEstimators,
    telemetry: Arc<Telemetry>,
    rng: Arc<Rng>,
}

/// A credential's SHA-256.
pub type CredentialHash = [u8; 32];

type SharedHealth = Arc<Mutex<CredentialHealth>>;

/// One deployment's shared state, over all snapshots.
struct DeploymentState {
    name: Arc<str>,
    health: Mutex<DeploymentHealth>,
}

struct DeploymentHealth {
    breaker: Breaker,
    gauge: Gauge,
}

/// The deployments of one snapshot with their shared state.
pub struct DeploymentSet {
    /// By [`DeploymentId`].
    members: Vec<SetMember>,
    /// By [`ModelId`].
    estimators: Vec<Arc<TokenEstimator>>,
    silent_after: Duration,
    retries: Arc<Mutex<RetryBudget>>,
    telemetry: Arc<Telemetry>,
    rng: Arc<Rng>,
}

struct SetMember {
    state: Arc<DeploymentState>,
    max_concurrent: Option<u32>,
    credentials: Arc<Credentials>,
}

/// A provider's credentials, used in turn.
struct Credentials {
    turn: AtomicUsize,
    health: Vec<SharedHealth>,
}

impl HealthRegistry {
    /// A registry without deployments.
    pub fn new(settings: &RoutingSettings, telemetry: Arc<Telemetry>, rng: Arc<Rng>) -> Self {
        Self {
            deployments: Mutex::default(),
            credentials: Mutex::default(),
            retries: Arc::new(Mutex::new(RetryBudget::new(settings.retry_budget_bp))),
            estimators: TokenEstimators::default(),
            telemetry,
            rng,
        }
    }

    /// The set of `table`: deployments that are known by name keep their state, others are added. `providers` has
    /// each provider's name and the hashes of its credentials. Added deployments begin a slow start at
    /// `slow_start_at`; it is `None` when the gateway starts, when all are new.
    pub fn deployment_set(
        &self,
        table: &RoutingTable,
        providers: &[(Arc<str>, Vec<CredentialHash>)],
        slow_start_at: Option<Instant>,
    ) -> DeploymentSet {
        self.retries.lock().set_share(table.settings.retry_budget_bp);
        let credentials = self.credentials_of(providers);
        let mut deployments = self.deployments.lock();
        let members = table.deployments.iter().map(|deployment| {
            let state = deployments.entry(deployment.name.clone()).or_insert_with(|| {
                let settings = table.settings.breaker;
                let breaker =
                    slow_start_at.map_or_else(|| Breaker::new(settings), |at| Breaker::with_slow_start(settings, at));
                let health = Mutex::new(DeploymentHealth { breaker, gauge: Gauge::default() });
                Arc::new(DeploymentState { name: deployment.name.clone(), health })
            });
            state.health.lock().breaker.update_settings(table.settings.breaker);
            SetMember {
                state: state.clone(),
                max_concurrent: deployment.max_concurrent,
                credentials: credentials[deployment.provider.index()].clone(),
            }
        });
        let members: Vec<_> = members.collect();
        deployments.retain(|name, _| table.deployments.iter().any(|deployment| deployment.name == *name));
        DeploymentSet {
            members,
            estimators: self.estimators.of(table.models.iter().map(|model| &model.name)),
            silent_after: table.settings.silent_after,
            retries: self.retries.clone(),
            telemetry: self.telemetry.clone(),
            rng: self.rng.clone(),
        }
    }

    /// By [`ProviderId`](crate::domain::id::ProviderId).
    fn credentials_of(&self, providers: &[(Arc<str>, Vec<CredentialHash>)]) -> Vec<Arc<Credentials>> {
        let mut all = self.credentials.lock();
        let mut known = std::mem::take(&mut *all);
        let mut of = |(name, hashes): &(Arc<str>, Vec<CredentialHash>)| {
            let health = hashes.iter().map(|hash| {
                let place = (name.clone(), *hash);
                let health = known.remove(&place).unwrap_or_default();
                all.entry(place).or_insert(health).clone()
            });
            Arc::new(Credentials { turn: AtomicUsize::new(0), health: health.collect() })
        };
        providers.iter().map(&mut of).collect()
    }
}

impl DeploymentSet {
    /// The health source of a plan for a request of `key`.
    pub fn view_for(&self, key: KeyId) -> KeyHealthView<'_> {
        KeyHealthView { deployments: self, key }
    }

    /// The token estimator of `model`, for answers without usage.
    pub(super) fn estimator(&self, model: ModelId) -> &Arc<TokenEstimator> {
        &self.estimators[model.index()]
    }

    /// Counts a request towards the retry budget.
    pub fn request(&self, now: Instant) {
        self.retries.lock().request(now);
    }

    /// Every deployment's name and breaker state at `now`.
    pub fn states(&self, now: Instant) -> Vec<(Arc<str>, StateName)> {
        let state = |member: &SetMember| (member.state.name.clone(), member.state.health.lock().breaker.name(now));
        self.members.iter().map(state).collect()
    }

    /// Attempts in flight over all deployments.
    pub fn in_flight(&self) -> u32 {
        self.members.iter().map(|member| member.state.health.lock().gauge.in_flight()).sum()
    }
}

/// A [`DeploymentSet`] whose permits report their ends for one key.
#[derive(Clone, Copy)]
pub struct KeyHealthView<'a> {
    deployments: &'a DeploymentSet,
    key: KeyId,
}

impl plan::HealthSource for KeyHealthView<'_> {
    type Permit = Permit;

    fn view(&self, deployment: DeploymentId, mode: AnswerMode, now: Instant) -> HealthView {
        let member = &self.deployments.members[deployment.index()];
        let credentials = member.credentials.availability(now);
        let health = member.state.health.lock();
        HealthView {
            availability: stricter(health.breaker.availability(now), credentials),
            full: member.max_concurrent.is_some_and(|most| health.gauge.in_flight() >= most),
            silent: health.gauge.is_silent(self.deployments.silent_after, now),
            load: health.gauge.load(mode, now),
            average: health.gauge.average(mode),
            last_good: health.gauge.last_good(),
        }
    }

    fn take(&self, deployment: DeploymentId, mode: AnswerMode, now: Instant) -> Option<Permit> {
        let member = &self.deployments.members[deployment.index()];
        let credential = member.credentials.take(now)?;
        let mut health = member.state.health.lock();
        let full = member.max_concurrent.is_some_and(|most| health.gauge.in_flight() >= most);
        let permit = if full { None } else { health.breaker.admit(now) };
        let Some(permit) = permit else {
            drop(health);
            credential.undecided(now);
            return None;
        };
        let last_was_good = health.gauge.last_good() == Some(true);
        let pending = health.gauge.sent(mode, now);
        drop(health);
        Some(Permit {
            state: member.state.clone(),
            telemetry: self.deployments.telemetry.clone(),
            rng: self.deployments.rng.clone(),
            key: self.key,
            mode,
            sent: now,
            last_was_good,
            credential,
            permit,
            pending: Some(pending),
            reported: false,
        })
    }

    fn has_retry(&self, now: Instant) -> bool {
        self.deployments.retries.lock().has_left(now)
    }

    fn spend_retry(&self, now: Instant) -> bool {
        self.deployments.retries.lock().spend(now)
    }
}

/// Permission for one attempt, which is in flight until the last byte of its answer.
///
/// Its end is reported exactly once: [`failed`](Self::failed), [`ended`](Self::ended),
/// [`broke`](Self::broke), or, when it is dropped, as neutral for the deployment.
#[must_use]
pub struct Permit {
    state: Arc<DeploymentState>,
    telemetry: Arc<Telemetry>,
    rng: Arc<Rng>,
    key: KeyId,
    mode: AnswerMode,
    sent: Instant,
    last_was_good: bool,
    credential: CredentialPermit,
    permit: BreakerPermit,
    /// Some until its first token or its end.
    pending: Option<PendingAttempt>,
    reported: bool,
}

impl Permit {
    /// The index of the provider's credential to present.
    pub fn credential(&self) -> usize {
        self.credential.index
    }

    /// When it was taken, which is when the attempt is sent.
    pub fn sent(&self) -> Instant {
        self.sent
    }

    /// Whether the last attempt at the deployment that had finished by then was good.
    pub fn last_was_good(&self) -> bool {
        self.last_was_good
    }

    /// Reports the commit point: its first good token has arrived.
    pub fn answered(&mut self, now: Instant) {
        let mut health = self.state.health.lock();
        if let Some(pending) = self.pending.take() {
            health.gauge.answered(self.mode, pending, now);
        }
        let closed = health.breaker.answered(&mut self.permit, now);
        if closed.is_some() {
            // Its first-token time measured the outage, not the deployment.
            health.gauge.forget();
        }
        drop(health);
        self.credential.accepted();
        self.report_transition(closed);
    }

    /// Reports that it failed before its commit point.
    pub fn failed(mut self, failure: Failure, now: Instant) {
        let signal = failure.health_signal();
        match signal {
            HealthSignal::CredentialRefused => self.credential.refused(now, self.rng.draw()),
            // A provider that looked at the request had accepted the credential.
            HealthSignal::Good | HealthSignal::Throttled(_) | HealthSignal::NotFound => self.credential.accepted(),
            // A failing provider may have failed before it checked the credential.
            HealthSignal::Bad | HealthSignal::Down | HealthSignal::Neutral => self.credential.undecided(now),
        }
        self.report(signal, failure.remembered(), now);
    }

    /// Reports that its answer is complete.
    pub fn ended(mut self, now: Instant) {
        self.report(HealthSignal::Good, Some(true), now);
    }

    /// Reports that its answer broke off after the commit point.
    pub fn broke(mut self, failure: Failure, now: Instant) {
        let signal = failure.health_signal();
        self.report(signal, failure.remembered().map(|_| false), now);
    }

    fn report(&mut self, signal: HealthSignal, finished: Option<bool>, now: Instant) {
        self.reported = true;
        let mut health = self.state.health.lock();
        if let Some(pending) = self.pending.take() {
            health.gauge.ended_unanswered(self.mode, pending);
        }
        health.gauge.done();
        if let Some(good) = finished {
            health.gauge.finished(good);
        }
        let transition = health.breaker.report(self.permit, self.key, signal, now, self.rng.draw());
        drop(health);
        self.report_transition(transition);
    }

    fn report_transition(&self, transition: Option<Transition>) {
        if let Some(transition) = transition {
            let cause = transition.cause.map_or("recovered", |cause| cause.label());
            tracing::warn!(deployment = %self.state.name, to = transition.to.label(), cause, "a breaker changed state");
            self.telemetry.metrics.transition(&self.state.name, transition);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.reported {
            let sent = self.sent;
            self.credential.undecided(sent);
            self.report(HealthSignal::Neutral, None, sent);
        }
    }
}

/// One credential, taken for one attempt.
struct CredentialPermit {
    index: usize,
    health: Option<SharedHealth>,
    trial: bool,
}

impl CredentialPermit {
    fn accepted(&mut self) {
        if let (true, Some(health)) = (self.trial, &self.health) {
            health.lock().accepted();
        }
        self.trial = false;
    }

    fn refused(&mut self, now: Instant, draw: RandomValue) {
        if let Some(health) = &self.health
            && health.lock().refused(self.trial, now, draw)
        {
            tracing::error!(credential = self.index, "a provider refused our credential; it rests");
        }
        self.trial = false;
    }

    fn undecided(&self, now: Instant) {
        if let (true, Some(health)) = (self.trial, &self.health) {
            health.lock().undecided(now);
        }
    }
}

impl Credentials {
    /// The best availability among them; a provider without credentials always flows.
    fn availability(&self, now: Instant) -> Availability {
        let statuses = self.health.iter().map(|health| health.lock().availability(now));
        statuses.reduce(less_strict).unwrap_or(Availability::Flowing { share: 1.0 })
    }

    /// Takes the next one in rotation that may be used.
    fn take(&self, now: Instant) -> Option<CredentialPermit> {
        let count = self.health.len();
        if count == 0 {
            return Some(CredentialPermit { index: 0, health: None, trial: false });
        }
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        (0..count).map(|step| start.wrapping_add(step) % count).find_map(|index| {
            let health = &self.health[index];
            let trial = health.lock().take(now)?;
            Some(CredentialPermit { index, health: Some(health.clone()), trial })
        })
    }
}

fn rank(availability: Availability) -> (u8, Option<Instant>) {
    match availability {
        Availability::Flowing { .. } => (0, None),
        Availability::ProbeDue => (1, None),
        Availability::Blocked { until } => (2, Some(until)),
    }
}

fn less_strict(a: Availability, b: Availability) -> Availability {
    if rank(b) < rank(a) { b } else { a }
}

fn stricter(a: Availability, b: Availability) -> Availability {
    if rank(b) > rank(a) { b } else { a }
}
