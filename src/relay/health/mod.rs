//! The deployments' health and load, as all requests share them.
//!
//! One small lock for each deployment and credential protects what the domain decides by: breaker, gauge and
//! credential health. States are found by names that stay over reloads; a [`DeploymentSet`] is the states of
//! one snapshot in the order of its table. No lock may be held across an await, and no decision may be made
//! here: this module only stores state, rotates credentials and counts.
//!
//! Start reading at [`HealthRegistry`]; what an attempt holds, and how its end is reported, is in `permit.rs`.

mod permit;

pub use permit::{KeyHealthView, Permit};

use super::estimator::{TokenEstimator, TokenEstimators};
use crate::domain::breaker::credential::CredentialHealth;
use crate::domain::breaker::{Availability, Breaker, StateName};
use crate::domain::id::{KeyId, ModelId};
use crate::domain::retry::RetryBudget;
use crate::domain::routing::gauge::Gauge;
use crate::domain::routing::table::{RoutingSettings, RoutingTable};
use crate::random::Rng;
use crate::telemetry::Telemetry;
use parking_lot::Mutex;
use permit::CredentialPermit;
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
    /// By [`DeploymentId`](crate::domain::id::DeploymentId).
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
