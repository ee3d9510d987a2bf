//! The deployments' health and load, as all requests share them.
//!
//! One small lock for each deployment and credential protects what the domain decides by: breakers, gauge and
//! rests. States are found by names that stay over reloads; a [`DeploymentSet`] is the states of
//! one snapshot in the order of its table. No lock may be held across an await, and no decision may be made
//! here: this module only stores state, rotates credentials and counts.
//!
//! Start reading at [`HealthRegistry`]; what an attempt holds, and how its end is reported, is in `permit.rs`.

mod credential;
mod gateway;
mod lookup;
mod pauses;
mod permit;
mod queue;
mod resting;
mod status;
mod view;

pub use gateway::GatewayPlace;
pub use pauses::PauseHandle;
pub use permit::{AttemptSigns, Permit, ReportedFailure};
pub use queue::{GrantedPlaces, HeldPlace, WaitEnd};
pub use status::{AttemptLabels, FailureReport};
pub(super) use status::{ProviderLabels, StatusClock};
pub use view::TeamHealthView;

use super::estimator::{TokenEstimator, TokenEstimators};
use crate::clock::Clock;
use crate::domain::breaker::StateName;
use crate::domain::breaker::endpoints::EndpointRests;
use crate::domain::breaker::rest::{Rest, RestRule};
use crate::domain::breaker::team::TeamBreakers;
use crate::domain::call::Endpoint;
use crate::domain::id::{KeyId, ModelId, PlacesId, PolicyId, TeamId};
use crate::domain::policy::HedgeRule;
use crate::domain::retry::RetryBudget;
use crate::domain::routing::AnswerMode;
use crate::domain::routing::gauge::Gauge;
use crate::domain::routing::places::{PlaceHolder, PlaceLimits, Places};
use crate::domain::routing::silence::SilenceLimits;
use crate::domain::routing::table::{RoutingSettings, RoutingTable};
use crate::random::Rng;
use crate::telemetry::Telemetry;
use credential::{CredentialHash, CredentialSlot, Credentials};
use parking_lot::Mutex;
use pauses::DeploymentPauses;
use queue::{PlaceQueue, SharedPlaces};
use status::FailureNote;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Trials at one deployment that nothing else is left for are made no more often than this.
const TRIAL_EVERY: Duration = Duration::from_millis(100);

/// Further trials of one request, in hundredths of a percent of the traffic, and how many per second there may be
/// at least.
const TRIAL_SHARE_BP: u32 = 1_000;
const TRIALS_PER_SECOND: u64 = 1;

/// The states of all deployments and credentials in the process.
pub struct HealthRegistry {
    /// By deployment name; locked at reloads only.
    deployments: Mutex<HashMap<Arc<str>, Arc<DeploymentState>>>,
    /// Locked at reloads only; by provider name and the hash of the credential: a new one starts accepted,
    /// whatever its position in the list.
    credentials: Mutex<HashMap<(Arc<str>, CredentialHash), SharedRest>>,
    budgets: Arc<ExtraBudgets>,
    place_queue: Arc<PlaceQueue>,
    /// How many deployments were numbered.
    numbered: AtomicU32,
    estimators: TokenEstimators,
    telemetry: Arc<Telemetry>,
    rng: Arc<Rng>,
    clock: Clock,
}

/// What extra attempts are paid from; shared by all deployment sets.
struct ExtraBudgets {
    retry: Mutex<RetryBudget>,
    trial: Mutex<RetryBudget>,
    /// By policy name, for policies that hedge.
    hedge: Mutex<HashMap<Arc<str>, SharedBudget>>,
}

type SharedRest = Arc<Mutex<Rest>>;
type SharedBudget = Arc<Mutex<RetryBudget>>;

/// One deployment's shared state, over all snapshots.
struct DeploymentState {
    name: Arc<str>,
    health: Mutex<DeploymentHealth>,
    /// Locked at reloads only; by the hash of the credential: whether it is throttled for this deployment.
    throttles: Mutex<HashMap<CredentialHash, SharedRest>>,
    pauses: DeploymentPauses,
    places: SharedPlaces,
}

struct DeploymentHealth {
    breakers: TeamBreakers,
    /// Whether the provider knows the model.
    not_found: Rest,
    /// Which endpoints its host has.
    endpoints: EndpointRests,
    gauge: Gauge,
    places: Places,
    last_trial: Option<Instant>,
    /// The latest failure of an attempt that was not the request's own fault.
    last_failure: Option<FailureNote>,
}

/// The deployments of one snapshot with their shared state.
pub struct DeploymentSet {
    /// By [`DeploymentId`](crate::domain::id::DeploymentId).
    members: Vec<SetMember>,
    /// By [`ModelId`].
    estimators: Vec<Arc<TokenEstimator>>,
    budgets: Arc<ExtraBudgets>,
    place_queue: Arc<PlaceQueue>,
    /// How long a request may wait for a place.
    queue_wait: Duration,
    telemetry: Arc<Telemetry>,
    rng: Arc<Rng>,
    clock: Clock,
}

struct SetMember {
    state: Arc<DeploymentState>,
    limits: PlaceLimits,
    silence: SilenceLimits,
    credentials: Credentials,
}

impl HealthRegistry {
    /// A registry without deployments.
    pub fn new(settings: &RoutingSettings, telemetry: Arc<Telemetry>, rng: Arc<Rng>, clock: Clock) -> Self {
        let budgets = ExtraBudgets {
            retry: Mutex::new(RetryBudget::new(settings.retry_budget_bp)),
            trial: Mutex::new(RetryBudget::with_floor(TRIAL_SHARE_BP, TRIALS_PER_SECOND)),
            hedge: Mutex::default(),
        };
        Self {
            deployments: Mutex::default(),
            credentials: Mutex::default(),
            budgets: Arc::new(budgets),
            place_queue: PlaceQueue::new(telemetry.clone(), clock),
            numbered: AtomicU32::new(0),
            estimators: TokenEstimators::default(),
            telemetry,
            rng,
            clock,
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
        self.budgets.retry.lock().set_share(table.settings.retry_budget_bp);
        self.place_queue.limit_gateway(table.settings.max_in_flight, self.clock.now());
        let credentials = self.credentials_of(providers);
        let mut deployments = self.deployments.lock();
        let members = table.deployments.iter().map(|deployment| {
            let state = deployments.entry(deployment.name.clone()).or_insert_with(|| {
                let id = PlacesId(self.numbered.fetch_add(1, Ordering::Relaxed));
                let places = SharedPlaces::new(id, self.place_queue.clone());
                Arc::new(DeploymentState::new(deployment.name.clone(), &table.settings, slow_start_at, places))
            });
            let limits = PlaceLimits { most: deployment.max_concurrent, lends: deployment.lend, floors: false };
            let mut health = state.health.lock();
            health.breakers.update_settings(table.settings.breaker);
            // Whoever changed something is to see at once what it did.
            health.endpoints = EndpointRests::default();
            state.limit_places(&mut health.places, limits, self.clock.now());
            drop(health);
            state.hand_places_on(self.clock.now());
            let silence = SilenceLimits {
                silent_after: table.settings.silent_after,
                late_after: table.model(deployment.model).late_after(AnswerMode::Stream),
            };
            let credentials = Credentials::new(state.slots(&credentials[deployment.provider.index()]));
            SetMember { state: state.clone(), limits, silence, credentials }
        });
        let members: Vec<_> = members.collect();
        deployments.retain(|name, _| table.deployments.iter().any(|deployment| deployment.name == *name));
        DeploymentSet {
            members,
            estimators: self.estimators.of(table.models.iter().map(|model| &model.name)),
            budgets: self.budgets.clone(),
            place_queue: self.place_queue.clone(),
            queue_wait: table.settings.queue_wait,
            telemetry: self.telemetry.clone(),
            rng: self.rng.clone(),
            clock: self.clock,
        }
    }

    /// By [`ProviderId`](crate::domain::id::ProviderId): the credentials' hashes and health. A provider without
    /// credentials has one that presents nothing.
    fn credentials_of(&self, providers: &[(Arc<str>, Vec<CredentialHash>)]) -> Vec<Vec<(CredentialHash, SharedRest)>> {
        let mut all = self.credentials.lock();
        let mut known = std::mem::take(&mut *all);
        let mut of = |(name, hashes): &(Arc<str>, Vec<CredentialHash>)| {
            let nothing = [CredentialHash::default()];
            let hashes = if hashes.is_empty() { &nothing[..] } else { hashes };
            let slots = hashes.iter().map(|hash| {
                let place = (name.clone(), *hash);
                let health = known.remove(&place);
                let health = health.unwrap_or_else(|| Arc::new(Mutex::new(Rest::new(RestRule::credential()))));
                (*hash, all.entry(place).or_insert(health).clone())
            });
            slots.collect()
        };
        providers.iter().map(&mut of).collect()
    }
}

impl DeploymentState {
    fn new(name: Arc<str>, settings: &RoutingSettings, slow_start_at: Option<Instant>, places: SharedPlaces) -> Self {
        let settings = settings.breaker;
        let breakers =
            slow_start_at.map_or_else(|| TeamBreakers::new(settings), |at| TeamBreakers::with_slow_start(settings, at));
        let not_found = Rest::new(RestRule::not_found());
        let health = DeploymentHealth {
            breakers,
            not_found,
            endpoints: EndpointRests::default(),
            gauge: Gauge::default(),
            places: Places::default(),
            last_trial: None,
            last_failure: None,
        };
        let pauses = DeploymentPauses::default();
        Self { name, health: Mutex::new(health), throttles: Mutex::default(), pauses, places }
    }

    /// What is known of each of its provider's credentials, with whether it is throttled for this deployment.
    fn slots(&self, credentials: &[(CredentialHash, SharedRest)]) -> Vec<CredentialSlot> {
        let mut throttles = self.throttles.lock();
        throttles.retain(|hash, _| credentials.iter().any(|(known, _)| known == hash));
        let slot = |(hash, health): &(CredentialHash, SharedRest)| CredentialSlot {
            health: health.clone(),
            throttle: throttles
                .entry(*hash)
                .or_insert_with(|| Arc::new(Mutex::new(Rest::new(RestRule::throttled()))))
                .clone(),
        };
        credentials.iter().map(slot).collect()
    }
}

impl DeploymentSet {
    /// The health source of a plan for a request of `team`, under a policy that may hedge: one for chat, unless the view
    /// is told another endpoint.
    pub fn view_for(&self, team: TeamId, hedge: Option<(&Arc<str>, HedgeRule)>) -> TeamHealthView<'_> {
        let hedge = hedge.map(|(policy, rule)| self.budgets.hedge_of(policy, rule));
        let holder = PlaceHolder { policy: PolicyId(0), key: KeyId::NONE, priority: 1, reserved: false };
        TeamHealthView {
            deployments: self,
            team,
            hedge,
            credential: None,
            endpoint: Endpoint::Chat,
            holder,
            place: None,
        }
    }

    /// The token estimator of `model`, for answers without usage.
    pub(super) fn estimator(&self, model: ModelId) -> &Arc<TokenEstimator> {
        &self.estimators[model.index()]
    }

    /// Every deployment's name and state at `now`.
    pub fn states(&self, now: Instant) -> Vec<(Arc<str>, StateName)> {
        let state = |member: &SetMember| (member.state.name.clone(), member.state_name(now));
        self.members.iter().map(state).collect()
    }

    /// Attempts in flight over all deployments.
    pub fn in_flight(&self) -> u32 {
        self.members.iter().map(|member| member.state.health.lock().gauge.in_flight()).sum()
    }
}

impl SetMember {
    fn state_name(&self, now: Instant) -> StateName {
        let credentials_rest = self.credentials.all_rest(now);
        let health = self.state.health.lock();
        match health.breakers.name(now) {
            StateName::Closed if credentials_rest || health.not_found.resting_until(now).is_some() => {
                StateName::Resting
            }
            name => name,
        }
    }
}

impl ExtraBudgets {
    fn hedge_of(&self, policy: &Arc<str>, rule: HedgeRule) -> SharedBudget {
        let mut all = self.hedge.lock();
        let new = || Arc::new(Mutex::new(RetryBudget::of_a_minute(rule.extra_bp)));
        let budget = all.entry(policy.clone()).or_insert_with(new).clone();
        budget.lock().set_share(rule.extra_bp);
        budget
    }
}
