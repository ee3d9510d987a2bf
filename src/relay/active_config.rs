//! One configuration snapshot with everything that requests need resolved: deployment states, upstreams, keys
//! and model names.
//!
//! A request keeps the `ActiveConfig` that is active when its body has been read until its end; a reload builds another
//! and swaps it in. What is the same for all requests is built here, once. It must never change after a request has it,
//! except for the cache of stored keys.
//!
//! Start reading in [`ActiveConfig::new`].

use super::health::{DeploymentSet, HealthRegistry, ProviderLabels, StatusClock};
use super::{RelayContext, sla_probe};
use crate::config::{
    self, FinishReason, KeyHash, MalformedFrame, OnAbandon, OutputCeiling, ProviderCredential, ProviderSettings,
    ProviderTransport, Snapshot, TransportSettings,
};
use crate::domain::body_member::ListedMembers;
use crate::domain::budget::{Account, Scope};
use crate::domain::id::{DeploymentId, KeyId, PolicyId, ProviderId, TeamId};
use crate::domain::memory::InFlightBytes;
use crate::domain::policy::{KeyRecord, is_valid};
use crate::domain::provider_state::ProviderAccount;
use crate::domain::register::StoredKey;
use crate::domain::routing::plan::RoutePlan;
use crate::domain::secret::without_credentials;
use crate::domain::status::DeploymentStatus;
use crate::store::budget_pool::BudgetAccount;
use crate::store::keyring::KeyringVersions;
use crate::upstream::{
    self, ConnectionSetup, FieldSetup, HostProtocol, NetworkSetup, ProviderProtocol, ProviderSetup, SimSetup,
    UpstreamModel, Upstreams,
};
use foldhash::fast::FixedState;
use http::HeaderName;
use parking_lot::RwLock;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// A snapshot, ready to serve.
pub struct ActiveConfig {
    /// The configuration that it was built from.
    pub snapshot: Arc<Snapshot>,
    pub(super) deployments: DeploymentSet,
    pub(super) upstreams: Arc<Upstreams>,
    /// By [`DeploymentId`].
    pub(super) upstream_models: Vec<UpstreamModel>,
    /// By [`ProviderId`].
    provider_labels: Vec<Arc<ProviderLabels>>,
    /// By provider, then by credential; one for a provider without any.
    accounts: Vec<Vec<Arc<ProviderAccount>>>,
    /// The keys of the configuration file, by the hash of their secrets; a second, secret hash of that would keep nobody
    /// from anything.
    file_keys: HashMap<KeyHash, ResolvedKey, FixedState>,
    /// Stored keys that were used, by name: one entry for each key, however often its secrets change.
    stored_keys: RwLock<HashMap<Arc<str>, ResolvedStoredKey>>,
    forwarded: ForwardedNames,
    /// Some provider goes on when its client leaves, and is read to the end.
    may_read_on: bool,
    /// The versions of stored teams and credit that this was made with.
    pub(super) applied: KeyringVersions,
}

/// The one account that may serve a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PinnedAccount {
    pub(super) provider: ProviderId,
    /// Its index among the provider's credentials.
    pub(super) credential: usize,
}

/// A key, resolved for this snapshot.
#[derive(Clone)]
pub(super) struct ResolvedKey {
    pub(super) id: KeyId,
    pub(super) team: TeamId,
    pub(super) policy: PolicyId,
    pub(super) record: Arc<KeyRecord>,
    /// The accounts of its budgets, in the order of the record; credit is looked up for each request.
    pub(super) budgets: Arc<[Arc<BudgetAccount>]>,
    /// What its requests hold in memory.
    pub(super) in_flight_bytes: Arc<InFlightBytes>,
    /// It is the file's, which changes only with the configuration.
    of_file: bool,
}

impl ResolvedKey {
    /// Whether it is certain that it is still what the same configuration would resolve at `now_unix_ms`: nothing but its
    /// time can end a key of the file, while a stored one has to be looked up (`make instructions`: 800).
    pub(super) fn holds(&self, now_unix_ms: i64) -> bool {
        self.of_file && is_valid(&self.record, now_unix_ms / 1000)
    }
}

/// A stored key and what it resolved to.
struct ResolvedStoredKey {
    stored: Arc<StoredKey>,
    key: ResolvedKey,
}

/// What of a client's request some provider's configuration lists.
#[derive(Debug)]
pub struct ForwardedNames {
    /// The names of headers, each once.
    pub headers: Vec<HeaderName>,
    /// Whether there is any parameter of the query.
    pub query: bool,
}

impl ForwardedNames {
    fn of(providers: &[ProviderSettings]) -> Self {
        let mut all = Self { headers: Vec::new(), query: false };
        for provider in providers {
            let ProviderTransport::Network(network) = &provider.kind else { continue };
            all.query |= !network.forward_query.is_empty();
            for name in &network.forward_headers {
                if !all.headers.contains(name) {
                    all.headers.push(name.clone());
                }
            }
        }
        all
    }
}

impl ActiveConfig {
    /// Resolves `snapshot`. `previous` is the configuration that it replaces, and when; `None` at the start. Warm
    /// connections are kept where a provider is unchanged.
    ///
    /// # Errors
    /// When a provider cannot be set up: an invalid base URL, a credential that is no header value.
    pub(super) fn new(
        snapshot: Arc<Snapshot>,
        health: &HealthRegistry,
        context: &RelayContext,
        previous: Option<(&Self, Instant)>,
    ) -> Result<Self, ActivateError> {
        let setups = snapshot.providers.iter().map(|provider| provider_setup(provider, &snapshot.transport));
        let setups = setups.collect::<Result<Vec<_>, _>>()?;
        let upstreams = Upstreams::build(setups, previous.map(|(active, _)| &*active.upstreams), context.clock)?;
        let hashes = |provider: &ProviderSettings| {
            credentials(provider).iter().map(|credential| KeyHash::of(credential.secret.expose()).0).collect()
        };
        let providers: Vec<_> =
            snapshot.providers.iter().map(|provider| (provider.name.clone(), hashes(provider))).collect();
        let names = snapshot.table.deployments.iter().map(|deployment| UpstreamModel::new(&deployment.upstream_model));
        // Read before the teams: a change between the two reads is applied again later.
        let applied = context.keyring.versions();
        // Last, because it cannot fail: from here on the new limits apply.
        let file_keys = file_keys(&snapshot, context);
        let reads_on = |provider: &ProviderSettings| on_abandon(provider) == OnAbandon::ReadOn;
        Ok(Self {
            may_read_on: snapshot.providers.iter().any(reads_on),
            forwarded: ForwardedNames::of(&snapshot.providers),
            file_keys,
            stored_keys: RwLock::default(),
            applied,
            deployments: health.deployment_set(&snapshot.table, &providers, previous.map(|(_, now)| now)),
            upstreams: Arc::new(upstreams),
            upstream_models: names.collect(),
            provider_labels: snapshot.providers.iter().map(|provider| Arc::new(labels(provider))).collect(),
            accounts: snapshot.providers.iter().map(accounts_at).collect(),
            snapshot,
        })
    }

    /// How the provider of `deployment` is named to operators.
    pub(super) fn labels(&self, deployment: DeploymentId) -> &Arc<ProviderLabels> {
        &self.provider_labels[self.snapshot.table.deployment(deployment).provider.index()]
    }

    /// The account that the credential at this index is of.
    pub(super) fn account(&self, deployment: DeploymentId, credential: usize) -> Arc<ProviderAccount> {
        self.accounts[self.snapshot.table.deployment(deployment).provider.index()][credential].clone()
    }

    /// Where `account` is configured, if it still is. The one credential of a provider may have been renewed.
    pub(super) fn pinned(&self, account: &ProviderAccount) -> Option<PinnedAccount> {
        let provider = self.accounts.iter().position(|all| all.iter().any(|one| one.provider == account.provider))?;
        let credentials = &self.accounts[provider];
        let credential = credentials.iter().position(|one| one.credential == account.credential);
        let credential = credential.or_else(|| (credentials.len() == 1).then_some(0))?;
        Some(PinnedAccount { provider: ProviderId(u32::try_from(provider).ok()?), credential })
    }

    /// Whether all that `plan` may ask is one account.
    pub(super) fn has_one_account(&self, plan: &RoutePlan) -> bool {
        let table = &self.snapshot.table;
        let deployments = plan.candidate_models().iter().flat_map(|candidate| &candidate.deployments);
        let mut providers = deployments.map(|id| table.deployment(*id).provider);
        let first = providers.next();
        providers.all(|provider| Some(provider) == first)
            && first.is_none_or(|one| self.accounts[one.index()].len() == 1)
    }

    /// Whether an answer of any provider is read to its end although its client left.
    pub(super) fn may_read_on(&self) -> bool {
        self.may_read_on
    }

    /// What an answer of `deployment` costs that its client did not wait for.
    pub(super) fn on_abandon(&self, deployment: DeploymentId) -> OnAbandon {
        on_abandon(&self.snapshot.providers[self.snapshot.table.deployment(deployment).provider.index()])
    }

    /// The status of every deployment, in the order of the file.
    pub(super) fn deployment_statuses(&self, clock: StatusClock) -> Vec<DeploymentStatus> {
        let table = &self.snapshot.table;
        let status = |id| self.deployments.status(table, id, self.labels(id), clock);
        table.deployment_ids().map(status).collect()
    }

    /// What of a client's request some provider gets.
    pub fn forwarded(&self) -> &ForwardedNames {
        &self.forwarded
    }

    /// The members of a body that some provider has a rule for.
    pub fn listed_members(&self) -> &ListedMembers {
        &self.snapshot.table.listed_members
    }

    /// The key whose secret has this hash, the file's or a stored one.
    pub(super) fn resolve(&self, hash: &KeyHash, context: &RelayContext, now_unix_ms: i64) -> Option<ResolvedKey> {
        if let Some(key) = self.file_keys.get(hash) {
            return Some(key.clone());
        }
        let stored = context.keyring.find(hash, now_unix_ms)?;
        if let Some(known) = self.stored_keys.read().get(&stored.name)
            && Arc::ptr_eq(&known.stored, &stored)
        {
            return Some(known.key.clone());
        }
        self.resolve_stored(stored, context, now_unix_ms)
    }

    /// Resolves a stored key for this snapshot, once for each of its versions.
    fn resolve_stored(&self, stored: Arc<StoredKey>, context: &RelayContext, now_unix_ms: i64) -> Option<ResolvedKey> {
        let team = stored.team.as_ref().and_then(|team| context.keyring.team(team));
        let record = Arc::new(self.snapshot.record_of(&stored, team.as_deref())?);
        let account = |budget| context.budget_pool.budget_account(budget, now_unix_ms);
        let budgets = record.budgets.iter().map(account).collect();
        let key = ResolvedKey { of_file: false, ..resolved(record, budgets, context) };
        let entry = ResolvedStoredKey { stored, key: key.clone() };
        self.stored_keys.write().insert(key.record.name.clone(), entry);
        Some(key)
    }

    /// Every account that a key is charged to, except credit.
    pub(super) fn accounts(&self) -> HashSet<Arc<Account>> {
        let stored_keys = self.stored_keys.read();
        let keys = self.file_keys.values().chain(stored_keys.values().map(|stored| &stored.key));
        keys.flat_map(|key| key.budgets.iter()).map(|account| account.account().clone()).collect()
    }
}

/// The key of `record`, with its number, its policy's and that of its team, which is the key itself where it has none.
fn resolved(record: Arc<KeyRecord>, budgets: Arc<[Arc<BudgetAccount>]>, context: &RelayContext) -> ResolvedKey {
    let id = context.key_ids.lock().id_of(&record.name);
    let team = context.team_ids.lock().id_of(record.team.as_ref(), id);
    let policy = context.policy_ids.lock().id_of(&record.policy.name);
    let in_flight_bytes = context.key_in_flight_bytes.lock().entry(id).or_default().clone();
    ResolvedKey { id, team, policy, record, budgets, in_flight_bytes, of_file: true }
}

/// The file's keys, each with its accounts, and those of SLA probes, by the hash of their secrets.
fn file_keys(snapshot: &Snapshot, context: &RelayContext) -> HashMap<KeyHash, ResolvedKey, FixedState> {
    let now_unix_ms = context.clock.unix_ms();
    let no_budgets: Arc<[Arc<BudgetAccount>]> = Arc::default();
    let resolve = |record: &Arc<KeyRecord>| {
        let team = record.team.as_ref().filter(|team| !snapshot.teams.contains_key(*team));
        let team_budget = team.and_then(|team| {
            let stored = context.keyring.team(team)?;
            Some(stored.budget.as_ref()?.of(Scope::Team, team.clone()))
        });
        let mut accounts = record
            .budgets
            .iter()
            .chain(&team_budget)
            .map(|budget| context.budget_pool.budget_account(budget, now_unix_ms))
            .peekable();
        let budgets = if accounts.peek().is_none() { no_budgets.clone() } else { accounts.collect() };
        // Locked for each by itself: requests with stored keys need the lock meanwhile.
        resolved(record.clone(), budgets, context)
    };
    let probes = sla_probe::keys(snapshot, context);
    let all = snapshot.keys.iter().chain(probes.iter().map(|(hash, record)| (hash, record)));
    all.map(|(hash, record)| (*hash, resolve(record))).collect()
}

/// Why a snapshot cannot be activated.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// An upstream that cannot be built.
    #[error(transparent)]
    Upstream(#[from] upstream::BuildError),
    /// A protocol that is not built yet.
    #[error("providers.{provider}.protocol: not built yet")]
    Protocol {
        /// The provider's name.
        provider: Arc<str>,
    },
}

fn on_abandon(provider: &ProviderSettings) -> OnAbandon {
    match &provider.kind {
        ProviderTransport::Network(network) => network.on_abandon,
        ProviderTransport::Sim(_) => OnAbandon::Estimate,
    }
}

/// What `provider` is set up as.
///
/// # Errors
/// [`ActivateError::Protocol`], if what it speaks is not built.
pub fn provider_setup(
    provider: &ProviderSettings,
    transport: &TransportSettings,
) -> Result<ProviderSetup, ActivateError> {
    let name = provider.name.clone();
    let protocol = match &provider.kind {
        ProviderTransport::Sim(sim) => ProviderProtocol::Sim(SimSetup {
            first_token: sim.first_token,
            tokens_per_second: sim.tokens_per_second,
            error_rate_bp: sim.error_rate_bp,
        }),
        ProviderTransport::Network(network) => {
            let api = host_api(network.protocol).ok_or_else(|| ActivateError::Protocol { provider: name.clone() })?;
            ProviderProtocol::Network(NetworkSetup {
                api,
                base_url: network.base_url.clone(),
                credentials: network.credentials.iter().map(|credential| credential.secret.clone()).collect(),
                http2: network.http2,
                finish_reason_optional: provider.finish_reason == FinishReason::Optional,
                skip_malformed_frames: transport.malformed_frame == MalformedFrame::Pass,
                max_completion_tokens: network.max_tokens_name == OutputCeiling::MaxCompletionTokens,
                asks_usage: network.stream_options,
                fields: FieldSetup {
                    headers: network.headers.clone(),
                    forward_headers: network.forward_headers.clone(),
                    forward_query: network.forward_query.clone(),
                },
                connection: ConnectionSetup { authorities: network.ca.clone(), proxy: network.proxy.clone() },
            })
        }
    };
    Ok(ProviderSetup { name, protocol, connect_timeout: transport.connect_timeout })
}

/// The API of hosts that speak `protocol`; `None` where that is not built.
fn host_api(protocol: config::ProtocolName) -> Option<HostProtocol> {
    match protocol {
        config::ProtocolName::OpenAi => Some(HostProtocol::OpenAi),
        config::ProtocolName::Anthropic => Some(HostProtocol::Anthropic),
        config::ProtocolName::Azure
        | config::ProtocolName::Gemini
        | config::ProtocolName::Bedrock
        | config::ProtocolName::Sim => None,
    }
}

/// The credentials for a provider; a simulated one needs none.
fn credentials(provider: &ProviderSettings) -> &[ProviderCredential] {
    match &provider.kind {
        ProviderTransport::Network(network) => &network.credentials,
        ProviderTransport::Sim(_) => &[],
    }
}

/// The accounts at `provider`, by credential.
fn accounts_at(provider: &ProviderSettings) -> Vec<Arc<ProviderAccount>> {
    let account = |credential| Arc::new(ProviderAccount { provider: provider.name.clone(), credential });
    let of_secret = |hash: KeyHash| std::array::from_fn(|index| hash.0[index]);
    let all = credentials(provider).iter().map(|one| account(of_secret(KeyHash::of(one.secret.expose()))));
    let all: Vec<_> = all.collect();
    if all.is_empty() { vec![account([0; 8])] } else { all }
}

fn labels(provider: &ProviderSettings) -> ProviderLabels {
    let url = match &provider.kind {
        ProviderTransport::Network(network) => without_user_and_query(&network.base_url),
        ProviderTransport::Sim(_) => "sim".to_owned(),
    };
    let credentials = credentials(provider).iter().map(|credential| credential.name.clone()).collect();
    ProviderLabels { name: provider.name.clone(), url: without_credentials(&url).into(), credentials }
}

/// `url` without the parts that may be secret.
fn without_user_and_query(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        let check = |url: &str, expected: &str| assert_eq!(without_user_and_query(url), expected);
        check("https://api.example/v1", "https://api.example/v1");
        check("https://user:pass@api.example:8443/v1?key=s3cret#part", "https://api.example:8443/v1");
        check("http://127.0.0.1:9?x=/y@z", "http://127.0.0.1:9");
        check("https://api.example/a@b", "https://api.example/a@b");
    }
}
