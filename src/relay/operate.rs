//! What a [`Relay`] does beside serving requests: it is built, activates configurations, and reports its state.
//!
//! Nothing here runs for a request. A configuration is activated as a whole or not at all.
//!
//! Start reading at [`Relay::new`], then [`Relay::reload`].

use super::active_config::{ActivateError, ActiveConfig, ResolvedKey};
use super::background::DeferredCharges;
use super::health::{HealthRegistry, StatusClock};
use super::listed_model::{ListedModel, listed_model};
use super::read_on::StopEvent;
use super::{FaultRegistry, Relay, RelayContext, hash_of, identify};
use crate::clock::Clock;
use crate::config::Snapshot;
use crate::domain::budget::{AccountStatus, CREDIT};
use crate::domain::receipt::PlannedModel;
use crate::domain::refusal::Refusal;
use crate::domain::routing::table::Tier;
use crate::domain::secret::{IdempotencySecret, Secret};
use crate::domain::status::DeploymentStatus;
use crate::random::Rng;
use crate::store::budget_pool::BudgetPool;
use crate::store::keyring::Keyring;
use crate::store::state_accounts::StateAccounts;
use crate::store::{Counters, LeaseStore, Ledger};
use crate::telemetry::Telemetry;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What a [`Relay`] is built from.
pub struct RelayParts {
    /// The source of time.
    pub clock: Clock,
    /// The source of random values.
    pub rng: Arc<Rng>,
    /// Where receipts are written.
    pub ledger: Arc<dyn Ledger>,
    /// Where limits are counted.
    pub counters: Arc<dyn Counters>,
    /// Where budgets are stored.
    pub lease_store: Arc<dyn LeaseStore>,
    /// Stored keys, teams and credit.
    pub keyring: Arc<Keyring>,
    /// What idempotency keys are bound to; `None`: they are not passed on.
    pub idempotency: Option<IdempotencySecret>,
    /// Which account of a provider made what for which key.
    pub state_accounts: Arc<StateAccounts>,
    /// What the secrets of SLA probes are made of; `None`: nothing is probed.
    pub probe_secret: Option<Secret>,
    /// Metrics and the access log.
    pub telemetry: Arc<Telemetry>,
}

impl Relay {
    /// A relay that serves `snapshot`.
    ///
    /// # Errors
    /// When a provider of `snapshot` cannot be set up.
    pub fn new(snapshot: Arc<Snapshot>, parts: RelayParts) -> Result<Self, ActivateError> {
        let RelayParts { clock, rng, ledger, counters, lease_store, .. } = parts;
        let RelayParts { keyring, idempotency, state_accounts, probe_secret, telemetry, .. } = parts;
        let budget_pool = BudgetPool::new(lease_store.clone());
        budget_pool.set_credit(&keyring.credit(), clock.unix_ms());
        let health = HealthRegistry::new(&snapshot.table.settings, telemetry.clone(), rng.clone(), clock);
        let (key_ids, team_ids, policy_ids, in_flight_bytes, key_in_flight_bytes) = Default::default();
        let context = RelayContext {
            clock,
            rng,
            ledger,
            counters,
            lease_store,
            budget_pool,
            keyring,
            idempotency,
            state_accounts,
            deferred_charges: DeferredCharges::default(),
            key_ids,
            team_ids,
            policy_ids,
            in_flight_bytes,
            key_in_flight_bytes,
            telemetry,
            faults: FaultRegistry::new(clock),
            probe_secret,
            stop: StopEvent::default(),
        };
        let active = ActiveConfig::new(snapshot, &health, &context, None)?;
        publish(&context.telemetry, &active, clock.now());
        let (context, active) = (Arc::new(context), ArcSwap::from_pointee(active));
        Ok(Self { context, health, active, activation: Mutex::default(), entered: AtomicU64::new(0) })
    }

    /// Activates `snapshot`. Requests whose body has been read keep their configuration; breakers, limits and
    /// connections stay.
    ///
    /// # Errors
    /// When a provider of `snapshot` cannot be set up; then nothing changes.
    pub fn reload(&self, snapshot: Arc<Snapshot>) -> Result<(), ActivateError> {
        let _activation = self.activation.lock();
        self.activate(snapshot, &self.active.load_full())
    }

    /// Applies changes of stored teams and credit; stored keys are always looked up in their current version.
    pub fn apply_store_changes(&self) {
        let _activation = self.activation.lock();
        let (context, active) = (&*self.context, self.active.load_full());
        let versions = context.keyring.versions();
        if active.applied.credit != versions.credit {
            context.budget_pool.set_credit(&context.keyring.credit(), context.clock.unix_ms());
        }
        if active.applied != versions
            && let Err(error) = self.activate(active.snapshot.clone(), &active)
        {
            tracing::error!(%error, "changes of stored teams and credit are not applied");
        }
    }

    fn activate(&self, snapshot: Arc<Snapshot>, previous: &ActiveConfig) -> Result<(), ActivateError> {
        let context = &*self.context;
        let now = context.clock.now();
        let active = ActiveConfig::new(snapshot, &self.health, context, Some((previous, now)))?;
        publish(&context.telemetry, &active, now);
        if !active.snapshot.fault_api {
            context.faults.end_all();
        }
        self.active.store(Arc::new(active));
        Ok(())
    }

    /// The configuration that requests arriving now are served with.
    pub fn active_config(&self) -> Arc<ActiveConfig> {
        self.active.load_full()
    }

    /// Publishes the state of every deployment and every budget, and the age of the price catalogue, as metrics: a
    /// breaker becomes half-open, and a budget window ends, by time and not by an event.
    pub fn publish_states(&self) {
        let active = self.active.load();
        let now = self.context.clock.now();
        self.context.telemetry.metrics.deployments(&active.deployments.states(now));
        self.context.telemetry.metrics.budget_pauses(&active.deployments.pauses(now));
        self.context.telemetry.metrics.budgets(&self.budgets());
        let now_unix_ms = self.context.clock.unix_ms();
        self.context.telemetry.metrics.faults_active(self.context.faults.active().len());
        self.context.telemetry.metrics.price_age(active.snapshot.catalogue.age_days(now_unix_ms));
    }

    /// The status of every deployment, in the order of the file, and the Unix millisecond that it is of.
    pub fn deployment_statuses(&self) -> (i64, Vec<DeploymentStatus>) {
        let clock = StatusClock { now: self.context.clock.now(), unix_ms: self.context.clock.unix_ms() };
        (clock.unix_ms, self.active.load().deployment_statuses(clock))
    }

    /// The faults that are injected into attempts.
    pub fn faults(&self) -> &FaultRegistry {
        &self.context.faults
    }

    /// Lets requests with a budget or credit go to the deployment of this name again; `false` where there is none of it.
    pub fn resume(&self, deployment: &str) -> bool {
        self.active.load().deployments.end_pauses(deployment)
    }

    /// The status of every budget that is configured now, and of all credit.
    pub fn budgets(&self) -> Vec<AccountStatus> {
        let active = self.active.load();
        let mut all = self.context.budget_pool.statuses(self.context.clock.unix_ms());
        let accounts = active.accounts();
        all.retain(|status| &*status.account.window == CREDIT || accounts.contains(&status.account));
        all
    }

    /// Returns idle leases to their budgets. To be called from time to time.
    pub fn return_idle_leases(&self) {
        self.context.end_old_background_bills();
        self.context.budget_pool.return_idle_leases(self.context.clock.unix_ms());
    }

    /// Returns all leases that are not held to their budgets, when the gateway stops. What is read without a client ends
    /// first, so that its hold is charged.
    pub async fn close_budget_pool(&self) {
        self.context.stop.stop().await;
        self.context.end_background_bills();
        self.context.budget_pool.close().await;
    }

    /// Attempts in flight at providers.
    pub fn attempts_in_flight(&self) -> u32 {
        self.active.load().deployments.in_flight()
    }

    /// Whether receipts can be written.
    pub fn ledger_is_healthy(&self) -> bool {
        self.context.ledger.status().healthy
    }

    /// Whether limits that gateways count together are divided among them, because they cannot be counted.
    pub fn limits_are_degraded(&self) -> bool {
        self.context.counters.are_degraded()
    }

    /// Requests received so far; there are as many receipts once all have ended.
    pub fn entered(&self) -> u64 {
        self.entered.load(Ordering::Relaxed)
    }

    /// The models, aliases and tiers that a key may use, in file order. Writes no receipt.
    ///
    /// # Errors
    /// [`Refusal::InvalidKey`]; [`Refusal::OverLimit`] for a key that was refused too often lately.
    pub fn names(&self, key: Option<&Secret>) -> Result<Vec<ListedModel>, Refusal> {
        let active = self.active.load();
        let ResolvedKey { id, record: key, .. } = identify(&self.context, &active, hash_of(key))?;
        self.context.check_refused(id, &key)?;
        let now_ms = self.context.clock.unix_ms();
        let table = &active.snapshot.table;
        let allows = |region| key.policy.allows_region(region);
        let names = key.policy.usable_names(table).into_iter();
        let listed = |(name, asked)| listed_model(table, name, asked, now_ms, allows);
        Ok(names.map(listed).collect())
    }

    /// What a client with `key` reads that asked for no name of [`names`](Self::names): `refusal`, which counts like
    /// that of a call.
    pub fn count_refused(&self, key: Option<&Secret>, refusal: Refusal) -> Refusal {
        match identify(&self.context, &self.active.load(), hash_of(key)) {
            Ok(ResolvedKey { id, record, .. }) => self.context.count_refused(refusal, id, &record),
            Err(invalid) => invalid,
        }
    }
}

/// Publishes what is configured, and the state of every deployment, as metrics.
fn publish(telemetry: &Telemetry, active: &ActiveConfig, now: Instant) {
    let (snapshot, table) = (&active.snapshot, &active.snapshot.table);
    let of_tier = |tier: &Tier| {
        let models = tier.models.iter().map(|(model, _)| table.model(*model).name.clone());
        models.map(|model| PlannedModel { model, tier: Some(tier.name.clone()) }).collect::<Vec<_>>()
    };
    // Asked for by its name, a model may be outside every tier that the key may use.
    let alone = table.models.iter().map(|model| PlannedModel { model: model.name.clone(), tier: None });
    let models: Vec<PlannedModel> = table.tiers.iter().flat_map(of_tier).chain(alone).collect();
    telemetry.metrics.configured(snapshot.telemetry.failover_objective, &models, &table.regions);
    telemetry.metrics.policies(snapshot.policies.iter().map(|policy| &policy.name));
    let promised = snapshot.policies.iter().filter_map(|policy| Some((&policy.name, policy.sla.as_deref()?)));
    telemetry.metrics.slas(promised);
    telemetry.metrics.deployments(&active.deployments.states(now));
}
