//! One snapshot with its moving parts resolved: the slots on the board, the upstreams, the names
//! ready to splice.
//!
//! A request keeps the `ActiveConfig` it arrived with for its whole life; a reload makes another and swaps
//! it in. Whatever does not change from request to request is made here, once.

use super::health::{DeploymentSet, HealthRegistry};
use crate::clock::Clock;
use crate::config::{self, FinishReason, KeyHash, MalformedFrame, ProviderSettings, Reach, Snapshot, WireSettings};
use crate::domain::authorize::{Asked, KeyRecord};
use crate::domain::budget::{Account, Scope};
use crate::domain::id::{DeploymentId, KeyId, ModelId, RegionId};
use crate::domain::pricing::Price;
use crate::domain::register::StoredKey;
use crate::domain::routing::table::Target;
use crate::domain::secret::Secret;
use crate::store::budget_pool::{BudgetAccount, BudgetPool};
use crate::store::keyring::{Keyring, Versions};
use crate::upstream::{
    self, ChatQuirks, OpenAiSetup, ProviderProtocol, ProviderSetup, SimSetup, UpstreamModel, Upstreams,
};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

/// A snapshot, ready to serve.
pub struct ActiveConfig {
    /// What was configured.
    pub snapshot: Arc<Snapshot>,
    pub(super) deployments: DeploymentSet,
    pub(super) upstreams: Arc<Upstreams>,
    /// By [`DeploymentId`].
    pub(super) upstream_models: Vec<UpstreamModel>,
    /// Of the file's keys that have a budget, in the order of their budgets.
    budget_accounts: HashMap<KeyId, Arc<[Arc<BudgetAccount>]>>,
    /// Of nobody.
    no_budget_accounts: Arc<[Arc<BudgetAccount>]>,
    /// Stored keys that were used: one entry for each, however often its secrets change.
    resolved: RwLock<HashMap<KeyId, ResolvedStoredKey>>,
    /// What of the register this was made with.
    pub(super) registered: Versions,
}

/// A key that may ask, with what its requests are held from beside credit.
#[derive(Clone)]
pub(super) struct ResolvedKey {
    pub(super) record: Arc<KeyRecord>,
    pub(super) budgets: Arc<[Arc<BudgetAccount>]>,
}

/// A stored key as this snapshot has it.
struct ResolvedStoredKey {
    stored: Arc<StoredKey>,
    resolve: ResolvedKey,
}

/// What the front door must know before a request is understood. Sizes in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BodyLimits {
    /// The largest body, as sent and as decoded.
    pub max_body: u64,
    /// All bodies held at once.
    pub max_in_flight_bytes: u64,
}

impl ActiveConfig {
    /// Resolves `snapshot`. The one before lends what it can, warm connections, and is replaced at a moment;
    /// `None` at the start.
    ///
    /// # Errors
    /// When a provider cannot be set up: a base URL that is none, a credential that is no header.
    pub fn new(
        snapshot: Arc<Snapshot>,
        health: &HealthRegistry,
        budget_pool: &BudgetPool,
        keyring: &Keyring,
        previous: Option<(&Self, Instant)>,
        clock: Clock,
    ) -> Result<Self, ActivateError> {
        let setups = snapshot.providers.iter().map(|provider| setup(provider, &snapshot.wire));
        let setups = setups.collect::<Result<Vec<_>, _>>()?;
        let upstreams = Upstreams::build(setups, previous.map(|(active, _)| &*active.upstreams), clock)?;
        let fingerprints = |provider: &ProviderSettings| {
            credentials(provider).iter().map(|secret| KeyHash::of(secret.expose()).0).collect()
        };
        let providers: Vec<_> =
            snapshot.providers.iter().map(|provider| (provider.name.clone(), fingerprints(provider))).collect();
        let names = snapshot.table.deployments.iter().map(|deployment| UpstreamModel::new(&deployment.upstream_model));
        // Last, because it cannot fail: from here on the new limits hold.
        let now_unix_ms = clock.unix_ms();
        // Read before the teams: what changes between the two is taken up once more.
        let registered = keyring.versions();
        let of_key = |key: &Arc<KeyRecord>| {
            let team = key.team.as_ref().filter(|team| !snapshot.teams.contains_key(*team));
            let shared = team.and_then(|team| Some(keyring.team(team)?.budget.as_ref()?.of(Scope::Team, team.clone())));
            let budgets =
                key.budgets.iter().chain(&shared).map(|budget| budget_pool.budget_account(budget, now_unix_ms));
            (key.id, budgets.collect::<Arc<[_]>>())
        };
        let budget_accounts =
            snapshot.keys.values().map(of_key).filter(|(_, budget_accounts)| !budget_accounts.is_empty()).collect();
        Ok(Self {
            budget_accounts,
            no_budget_accounts: Arc::default(),
            resolved: RwLock::default(),
            registered,
            deployments: health.deployment_set(&snapshot.table, &providers, previous.map(|(_, now)| now)),
            upstreams: Arc::new(upstreams),
            upstream_models: names.collect(),
            snapshot,
        })
    }

    /// What the front door must know.
    pub fn body_limits(&self) -> BodyLimits {
        let server = &self.snapshot.server;
        BodyLimits { max_body: server.max_body_bytes, max_in_flight_bytes: server.max_in_flight_bytes }
    }

    /// The key that a secret of this hash opens, the file's or a stored one.
    pub(super) fn resolve(
        &self,
        hash: &KeyHash,
        keyring: &Keyring,
        budget_pool: &BudgetPool,
        now_unix_ms: i64,
    ) -> Option<ResolvedKey> {
        if let Some(record) = self.snapshot.key(hash) {
            let budgets = self.budget_accounts.get(&record.id).unwrap_or(&self.no_budget_accounts).clone();
            return Some(ResolvedKey { record: record.clone(), budgets });
        }
        let stored = keyring.find(hash, now_unix_ms)?;
        let id = KeyId::of_name(&stored.name);
        let resolved = self.resolved.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(resolved) = resolved.get(&id).filter(|resolved| Arc::ptr_eq(&resolved.stored, &stored)) {
            return Some(resolved.resolve.clone());
        }
        drop(resolved);
        self.resolve_stored(stored, keyring, budget_pool, now_unix_ms)
    }

    /// Makes of a stored key what it is under this snapshot, once for each of its states.
    fn resolve_stored(
        &self,
        stored: Arc<StoredKey>,
        keyring: &Keyring,
        budget_pool: &BudgetPool,
        now_unix_ms: i64,
    ) -> Option<ResolvedKey> {
        let team = stored.team.as_ref().and_then(|team| keyring.team(team));
        let record = Arc::new(self.snapshot.record_of(&stored, team.as_deref())?);
        let budgets = record.budgets.iter().map(|budget| budget_pool.budget_account(budget, now_unix_ms)).collect();
        let resolve = ResolvedKey { record, budgets };
        let mut resolved = self.resolved.write().unwrap_or_else(PoisonError::into_inner);
        resolved.insert(resolve.record.id, ResolvedStoredKey { stored, resolve: resolve.clone() });
        Some(resolve)
    }

    /// What keys pay from.
    pub(super) fn accounts(&self) -> HashSet<Arc<Account>> {
        let resolved = self.resolved.read().unwrap_or_else(PoisonError::into_inner);
        let stored = resolved.values().map(|resolved| &resolved.resolve.budgets);
        self.budget_accounts
            .values()
            .chain(stored)
            .flat_map(|budget_accounts| budget_accounts.iter())
            .map(|budget_account| budget_account.account().clone())
            .collect()
    }

    /// A name a key may use, as `GET /v1/models` lists it, with the price in force at `now_ms` (Unix milliseconds).
    pub(super) fn listed(
        &self,
        name: Arc<str>,
        asked: Asked,
        now_ms: i64,
        allows_region: impl Fn(RegionId) -> bool,
    ) -> Listed {
        let table = &self.snapshot.table;
        let model = match asked {
            Asked::Reserved(model) | Asked::Plain(Target::Model(model)) => Some(table.model(model)),
            Asked::Plain(Target::Alias(_) | Target::Tier(_)) => None,
        };
        let mut deployments = Vec::new();
        self.deployments_of(asked, &mut deployments);
        let regions: BTreeSet<_> = deployments
            .into_iter()
            .map(|id| table.deployment(id).region)
            .filter(|region| allows_region(*region))
            .map(|region| table.region(region).clone())
            .collect();
        Listed {
            name,
            price: model.and_then(|model| model.price.as_ref()).map(|prices| prices.at(now_ms).price),
            context: model.and_then(|model| model.context),
            regions: regions.into_iter().collect(),
        }
    }

    fn deployments_of(&self, asked: Asked, into: &mut Vec<DeploymentId>) {
        let table = &self.snapshot.table;
        let shared = |model: ModelId| table.model(model).shared.iter().copied();
        match asked {
            Asked::Reserved(model) => into.extend(&table.model(model).dedicated),
            Asked::Plain(Target::Model(model)) => into.extend(shared(model)),
            Asked::Plain(Target::Tier(tier)) => {
                into.extend(table.tier(tier).models.iter().flat_map(|(model, _)| shared(*model)));
            }
            Asked::Plain(Target::Alias(alias)) => {
                for (part, _) in &table.aliases[alias].split {
                    self.deployments_of(Asked::Plain(*part), into);
                }
            }
        }
    }
}

/// A name a key may use.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What to write as `model`.
    pub name: Arc<str>,
    /// What it costs; `None` for aliases and tiers, and where no price is known.
    pub price: Option<Price>,
    /// The longest input and output together, in tokens, where known.
    pub context: Option<u64>,
    /// Where this key's requests for it may run, sorted.
    pub regions: Vec<Arc<str>>,
}

/// A snapshot that cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// A provider that cannot be sent to.
    #[error(transparent)]
    Upstream(#[from] upstream::BuildError),
    /// A protocol that is not built yet.
    #[error("providers.{provider}.protocol: not built yet")]
    Protocol {
        /// The provider's name.
        provider: Arc<str>,
    },
}

fn setup(provider: &ProviderSettings, wire: &WireSettings) -> Result<ProviderSetup, ActivateError> {
    let name = provider.name.clone();
    let protocol = match &provider.reach {
        Reach::Sim(sim) => ProviderProtocol::Sim(SimSetup {
            first_token: sim.first_token,
            tokens_per_second: sim.tokens_per_second,
            error_rate_bp: sim.error_rate_bp,
        }),
        Reach::Network(network) if network.protocol == config::Protocol::OpenAi => {
            ProviderProtocol::OpenAi(OpenAiSetup {
                base_url: network.base_url.clone(),
                credentials: network.credentials.clone(),
                http2: network.http2,
                quirks: ChatQuirks {
                    finish_reason_optional: provider.finish_reason == FinishReason::Optional,
                    skip_malformed_frames: wire.malformed_frame == MalformedFrame::Pass,
                },
            })
        }
        Reach::Network(_) => return Err(ActivateError::Protocol { provider: name }),
    };
    Ok(ProviderSetup { name, protocol, connect_timeout: wire.connect_timeout })
}

/// What we present to a provider; a simulated one asks for nothing.
fn credentials(provider: &ProviderSettings) -> &[Secret] {
    match &provider.reach {
        Reach::Network(network) => &network.credentials,
        Reach::Sim(_) => &[],
    }
}
