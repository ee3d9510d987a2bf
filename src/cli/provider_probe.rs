//! What providers answer when they are asked for their models, with each of their credentials, and whether they have the
//! endpoints that are configured for them.
//!
//! Neither costs anything. A list of models needs what every request needs: a base URL that is right, a name that resolves, a
//! certificate that is trusted, a credential that is accepted. It says nothing of quotas. `check --live` and `doctor` show
//! it.
//!
//! Start reading at [`probe`].

use crate::clock::Clock;
use crate::config::{ProviderSettings, ProviderTransport, Snapshot};
use crate::domain::call::Endpoint;
use crate::domain::id::ProviderId;
use crate::relay::provider_setup;
use crate::upstream::{ModelsReply, Upstreams};
use std::sync::Arc;
use tokio::task::JoinSet;

/// What one credential of a provider brought.
pub(super) struct ProbeRow {
    /// Who was asked.
    pub(super) provider: Arc<str>,
    /// Where it is written; `None` for a provider without credentials.
    pub(super) credential: Option<Arc<str>>,
    /// What came of it.
    pub(super) result: ProbeResult,
}

pub(super) enum ProbeResult {
    /// It has no network.
    Simulated,
    /// It could not be asked.
    NotAsked(String),
    /// It replied, or did not.
    Asked {
        /// What it said.
        reply: ModelsReply,
        /// The models that are configured for it and that it does not list.
        missing: Vec<Arc<str>>,
        /// How many are configured for it.
        configured: usize,
        /// The endpoints that are configured for it and that it says it does not have.
        endpoints_missing: Vec<Endpoint>,
    },
}

/// Every provider at once, so that it takes as long as the slowest one.
pub(super) async fn probe(snapshot: &Snapshot) -> Vec<ProbeRow> {
    let mut asking = JoinSet::new();
    for (at, provider) in snapshot.providers.iter().enumerate() {
        let (provider, models) = (provider.clone(), configured_models(snapshot, at));
        let endpoints = configured_endpoints(snapshot, at);
        let setup = provider_setup(&provider, &snapshot.transport).map_err(|error| error.to_string());
        // Each by itself: one that cannot be set up does not keep the others from being asked.
        let upstreams = setup.and_then(|setup| {
            Upstreams::build(vec![setup], None, Clock).map(Arc::new).map_err(|error| error.to_string())
        });
        for (credential, name) in credential_names(&provider).into_iter().enumerate() {
            let (upstreams, models, provider) = (upstreams.clone(), models.clone(), provider.name.clone());
            let endpoints = endpoints.clone();
            asking.spawn(async move {
                let result = match upstreams {
                    Ok(upstreams) => match upstreams.list_models(ProviderId(0), credential).await {
                        Some(reply) => {
                            let missing = missing_endpoints(&upstreams, &reply, &endpoints, credential).await;
                            ProbeResult::of(reply, &models, missing)
                        }
                        None => ProbeResult::Simulated,
                    },
                    Err(why) => ProbeResult::NotAsked(why),
                };
                ((at, credential), ProbeRow { provider, credential: name, result })
            });
        }
    }
    let mut rows = Vec::new();
    while let Some(row) = asking.join_next().await {
        rows.extend(row.ok());
    }
    rows.sort_by_key(|(order, _)| *order);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// One for each question that is asked: a provider without credentials is asked without one.
fn credential_names(provider: &ProviderSettings) -> Vec<Option<Arc<str>>> {
    match &provider.kind {
        ProviderTransport::Network(network) if !network.credentials.is_empty() => {
            network.credentials.iter().map(|credential| Some(credential.name.clone())).collect()
        }
        ProviderTransport::Network(_) | ProviderTransport::Sim(_) => vec![None],
    }
}

/// What the deployments at a provider are called there, each once.
fn configured_models(snapshot: &Snapshot, provider: usize) -> Vec<Arc<str>> {
    let here = snapshot.table.deployments.iter().filter(|deployment| deployment.provider.index() == provider);
    let mut models: Vec<Arc<str>> = here.map(|deployment| deployment.upstream_model.clone()).collect();
    models.sort();
    models.dedup();
    models
}

/// The endpoints that some model of a deployment at a provider serves there, but those that are a part of another one.
fn configured_endpoints(snapshot: &Snapshot, provider: usize) -> Vec<Endpoint> {
    let table = &snapshot.table;
    let is_served = |endpoint: &Endpoint| {
        let mut here = table.deployments.iter().filter(|deployment| deployment.provider.index() == provider);
        here.any(|one| one.endpoints.contains(*endpoint) && table.model(one.model).endpoints.contains(*endpoint))
    };
    Endpoint::ALL.into_iter().filter(|endpoint| endpoint.configured_as() == *endpoint).filter(is_served).collect()
}

/// Those of `endpoints` that a provider which replied to this credential does not have.
async fn missing_endpoints(
    upstreams: &Upstreams,
    reply: &ModelsReply,
    endpoints: &[Endpoint],
    credential: usize,
) -> Vec<Endpoint> {
    let mut missing = Vec::new();
    if matches!(reply.status, None | Some(401 | 403)) {
        return missing;
    }
    for endpoint in endpoints {
        if upstreams.lacks_endpoint(ProviderId(0), *endpoint, credential).await {
            missing.push(*endpoint);
        }
    }
    missing
}

/// Whether a provider that lists `listed` serves `model`: some list names with a folder or a tag that requests omit.
fn is_same(listed: &str, model: &str) -> bool {
    let listed = listed.strip_prefix("models/").unwrap_or(listed);
    let model = model.strip_prefix("models/").unwrap_or(model);
    listed == model || listed.strip_suffix(":latest") == Some(model)
}

impl ProbeResult {
    pub(super) fn of(reply: ModelsReply, models: &[Arc<str>], endpoints_missing: Vec<Endpoint>) -> Self {
        let lists = |model: &str| reply.models.iter().flatten().any(|listed| is_same(listed, model));
        let missing = models.iter().filter(|model| !lists(model)).cloned().collect();
        Self::Asked { missing, configured: models.len(), reply, endpoints_missing }
    }
}

impl ProbeRow {
    /// Whether it listed its models, the configured ones among them, and has the endpoints.
    pub(super) fn is_good(&self) -> bool {
        match &self.result {
            ProbeResult::Simulated => true,
            ProbeResult::NotAsked(_) => false,
            ProbeResult::Asked { reply, missing, endpoints_missing, .. } => {
                reply.models.is_some() && missing.is_empty() && endpoints_missing.is_empty()
            }
        }
    }
}

/// What went wrong, in a sentence; empty where nothing did.
pub(super) fn said(reply: &ModelsReply, missing: &[Arc<str>], endpoints_missing: &[Endpoint]) -> String {
    let of_models = said_of_models(reply, missing);
    let paths: Vec<&str> = endpoints_missing.iter().map(|endpoint| endpoint.path()).collect();
    match (of_models.is_empty(), paths.is_empty()) {
        (_, true) => of_models,
        (true, false) => format!("it has no {}", paths.join(", ")),
        (false, false) => format!("{of_models}; it has no {}", paths.join(", ")),
    }
}

pub(super) fn said_of_models(reply: &ModelsReply, missing: &[Arc<str>]) -> String {
    let said = reply.said.as_deref().unwrap_or_default();
    match (&reply.models, reply.status) {
        (Some(_), _) if missing.is_empty() => String::new(),
        (Some(_), _) => format!("not listed: {}", missing.join(", ")),
        (None, Some(404 | 405)) if said.is_empty() => "there is no /models below the base URL".to_owned(),
        (None, Some(404 | 405)) => format!("there is no /models below the base URL: {said}"),
        (None, Some(300..=399)) => {
            "it redirects, which is not followed: write where it leads to as base_url".to_owned()
        }
        (None, Some(401 | 403)) if said.is_empty() => "it refuses the credential".to_owned(),
        (None, Some(_)) if said.is_empty() => "it lists no models, and does not say why".to_owned(),
        (None, _) => said.to_owned(),
    }
}
