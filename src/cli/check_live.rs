//! `tierway check --live`: asks every provider for its models, with each of its credentials, and whether it has the
//! endpoints that are configured for it.
//!
//! Neither costs anything. A list of models needs what every request needs: a base URL that is right, a name that resolves, a
//! certificate that is trusted, a credential that is accepted. It says nothing of quotas. It never shows a credential,
//! and what a provider says only masked.
//!
//! Start reading at [`check_live`].

use super::table::{NONE, table};
use crate::clock::Clock;
use crate::config::{ProviderSettings, ProviderTransport, Snapshot};
use crate::domain::call::Endpoint;
use crate::domain::id::ProviderId;
use crate::relay::provider_setup;
use crate::upstream::{ModelsReply, Upstreams};
use serde_json::{Value, json};
use std::fmt::Alignment;
use std::io::{self, Write};
use std::sync::Arc;
use tokio::task::JoinSet;

/// What one credential of a provider brought.
struct ProbeRow {
    provider: Arc<str>,
    /// Where it is written; `None` for a provider without credentials.
    credential: Option<Arc<str>>,
    result: ProbeResult,
}

enum ProbeResult {
    /// It has no network.
    Simulated,
    /// It could not be asked.
    NotAsked(String),
    /// It replied, or did not.
    Asked {
        reply: ModelsReply,
        /// The models that are configured for it and that it does not list.
        missing: Vec<Arc<str>>,
        /// How many are configured for it.
        configured: usize,
        /// The endpoints that are configured for it and that it says it does not have.
        endpoints_missing: Vec<Endpoint>,
    },
}

/// Asks every provider of `snapshot` and prints a row for each credential, or JSON. Returns whether all went well: every
/// provider listed its models, the configured ones among them.
///
/// # Errors
/// If the system refuses what it needs, or the result cannot be written.
pub(super) fn check_live(snapshot: &Snapshot, json: bool) -> io::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = runtime.block_on(probe(snapshot));
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    let is_good = rows.iter().all(ProbeRow::is_good);
    let mut out = anstream::stdout();
    if json {
        let rows: Vec<Value> = rows.iter().map(ProbeRow::json).collect();
        writeln!(out, "{:#}", json!({ "ok": is_good, "providers": rows }))?;
    } else {
        write!(out, "\n{}", text(&rows))?;
    }
    Ok(is_good)
}

/// Every provider at once, so that it takes as long as the slowest one.
async fn probe(snapshot: &Snapshot) -> Vec<ProbeRow> {
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
    fn of(reply: ModelsReply, models: &[Arc<str>], endpoints_missing: Vec<Endpoint>) -> Self {
        let lists = |model: &str| reply.models.iter().flatten().any(|listed| is_same(listed, model));
        let missing = models.iter().filter(|model| !lists(model)).cloned().collect();
        Self::Asked { missing, configured: models.len(), reply, endpoints_missing }
    }
}

impl ProbeRow {
    fn is_good(&self) -> bool {
        match &self.result {
            ProbeResult::Simulated => true,
            ProbeResult::NotAsked(_) => false,
            ProbeResult::Asked { reply, missing, endpoints_missing, .. } => {
                reply.models.is_some() && missing.is_empty() && endpoints_missing.is_empty()
            }
        }
    }

    fn credential(&self) -> &str {
        self.credential.as_deref().unwrap_or(NONE)
    }

    fn cells(&self) -> Vec<String> {
        let [status, time, models, said] = match &self.result {
            ProbeResult::Simulated => [NONE.to_owned(), NONE.to_owned(), NONE.to_owned(), "simulated".to_owned()],
            ProbeResult::NotAsked(why) => [NONE.to_owned(), NONE.to_owned(), NONE.to_owned(), why.clone()],
            ProbeResult::Asked { reply, missing, configured, endpoints_missing } => [
                reply.status.map_or_else(|| NONE.to_owned(), |status| status.to_string()),
                format!("{} ms", reply.elapsed.as_millis()),
                match &reply.models {
                    Some(_) => format!("{} of {configured}", configured - missing.len()),
                    None => NONE.to_owned(),
                },
                said(reply, missing, endpoints_missing),
            ],
        };
        vec![self.provider.to_string(), self.credential().to_owned(), status, time, models, said]
    }

    fn json(&self) -> Value {
        let (name, credential, ok) = (&*self.provider, self.credential.as_deref(), self.is_good());
        match &self.result {
            ProbeResult::Simulated => json!({ "provider": name, "ok": ok, "simulated": true }),
            ProbeResult::NotAsked(why) => {
                json!({ "provider": name, "credential": credential, "ok": ok, "simulated": false, "said": why })
            }
            ProbeResult::Asked { reply, missing, configured, endpoints_missing } => json!({
                "provider": name,
                "credential": credential,
                "ok": ok,
                "simulated": false,
                "status": reply.status,
                "elapsed_ms": u64::try_from(reply.elapsed.as_millis()).unwrap_or(u64::MAX),
                "models_configured": configured,
                "models_listed": reply.models.as_ref().map(Vec::len),
                "models_missing": reply.models.as_ref().map(|_| missing),
                "endpoints_missing": endpoints_missing.iter().map(|endpoint| endpoint.name()).collect::<Vec<_>>(),
                "said": Some(said(reply, missing, endpoints_missing)).filter(|said| !said.is_empty()),
            }),
        }
    }
}

/// What went wrong, in a sentence; empty where nothing did.
fn said(reply: &ModelsReply, missing: &[Arc<str>], endpoints_missing: &[Endpoint]) -> String {
    let of_models = said_of_models(reply, missing);
    let paths: Vec<&str> = endpoints_missing.iter().map(|endpoint| endpoint.path()).collect();
    match (of_models.is_empty(), paths.is_empty()) {
        (_, true) => of_models,
        (true, false) => format!("it has no {}", paths.join(", ")),
        (false, false) => format!("{of_models}; it has no {}", paths.join(", ")),
    }
}

fn said_of_models(reply: &ModelsReply, missing: &[Arc<str>]) -> String {
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

fn text(rows: &[ProbeRow]) -> String {
    const HEAD: [(&str, Alignment); 6] = [
        ("provider", Alignment::Left),
        ("credential", Alignment::Left),
        ("status", Alignment::Right),
        ("time", Alignment::Right),
        ("models", Alignment::Right),
        ("", Alignment::Left),
    ];
    table(&HEAD, &rows.iter().map(ProbeRow::cells).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn row(status: Option<u16>, models: Option<&[&str]>, said: Option<&str>, configured: &[&str]) -> ProbeRow {
        let models = models.map(|names| names.iter().map(ToString::to_string).collect());
        let reply = ModelsReply { status, models, said: said.map(Into::into), elapsed: Duration::from_millis(12) };
        let configured: Vec<Arc<str>> = configured.iter().map(|name| (*name).into()).collect();
        let result = ProbeResult::of(reply, &configured, Vec::new());
        ProbeRow { provider: "p".into(), credential: Some("KEY".into()), result }
    }

    #[test]
    fn a_row_says_what_is_wrong() {
        let check = |row: &ProbeRow, good: bool, expected: &str| {
            assert_eq!((row.is_good(), row.cells().join("|").as_str()), (good, expected));
        };
        check(&row(Some(200), Some(&["a", "b"]), None, &["a"]), true, "p|KEY|200|12 ms|1 of 1|");
        check(&row(Some(200), Some(&["models/a", "b:latest"]), None, &["a", "b"]), true, "p|KEY|200|12 ms|2 of 2|");
        check(&row(Some(200), Some(&["b"]), None, &["a", "b"]), false, "p|KEY|200|12 ms|1 of 2|not listed: a");
        check(&row(Some(401), None, Some("No."), &["a"]), false, "p|KEY|401|12 ms|-|No.");
        check(&row(Some(404), None, None, &["a"]), false, "p|KEY|404|12 ms|-|there is no /models below the base URL");
        check(&row(Some(403), None, None, &["a"]), false, "p|KEY|403|12 ms|-|it refuses the credential");
        check(&row(Some(500), None, None, &["a"]), false, "p|KEY|500|12 ms|-|it lists no models, and does not say why");
        assert!(row(Some(308), None, Some("<html>"), &["a"]).cells().concat().contains("it redirects"));
        check(&row(None, None, Some("refused"), &["a"]), false, "p|KEY|-|12 ms|-|refused");
        let mut lacking = row(Some(200), Some(&["a"]), None, &["a"]);
        if let ProbeResult::Asked { endpoints_missing, .. } = &mut lacking.result {
            *endpoints_missing = vec![Endpoint::Messages, Endpoint::Responses];
        }
        check(&lacking, false, "p|KEY|200|12 ms|1 of 1|it has no /messages, /responses");
    }
}
