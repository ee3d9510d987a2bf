//! A configuration whose providers are simulated.
//!
//! Start reading at [`load`].

use super::latencies::first_tokens;
use crate::config::{
    ConfigSource, Environment, NetworkSettings, OnAbandon, OutputCeiling, Problems, ProcessEnvironment, ProtocolName,
    ProviderTransport, SimSettings, Snapshot,
};
use crate::domain::id::ProviderId;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What begins the names of variables that override settings.
const OVERRIDES: &str = "TIERWAY__";

/// How a provider answers that is simulated for a drill, where nothing is known of the real one: as a fast one does.
pub(super) const SIMULATED: SimSettings =
    SimSettings { first_token: Duration::from_millis(60), tokens_per_second: 100, error_rate_bp: 0 };

/// A configuration whose providers are simulated.
pub(super) struct SimulatedConfig {
    /// Its file, as messages name it.
    pub(super) source: String,
    pub(super) snapshot: Arc<Snapshot>,
    /// Providers that begin to answer as soon as the ledger says they do, with that time.
    pub(super) from_ledger: Vec<(Arc<str>, Duration)>,
}

/// Compiles `source` and replaces its providers. Those that are simulated already stay as they are, but for their error
/// rate. A credential that is not set here is not needed: nothing is sent anywhere. Blocks, where its ledger is read.
///
/// # Errors
/// Every problem of the configuration.
pub(super) fn load(source: &ConfigSource) -> Result<SimulatedConfig, Problems> {
    let mut snapshot = crate::config::load(source, &DrillEnvironment, &[])?;
    let first_tokens = first_tokens(&snapshot);
    let mut from_ledger = Vec::new();
    for (provider, id) in snapshot.providers.iter_mut().zip(0..) {
        let own = match (&provider.kind, first_tokens.get(&ProviderId(id))) {
            (ProviderTransport::Sim(own), _) => SimSettings { error_rate_bp: 0, ..*own },
            (ProviderTransport::Network(_), Some(first_token)) => {
                from_ledger.push((provider.name.clone(), *first_token));
                SimSettings { first_token: *first_token, ..SIMULATED }
            }
            (ProviderTransport::Network(_), None) => SIMULATED,
        };
        provider.kind = ProviderTransport::Sim(own);
    }
    // It is asked on loopback, by this process alone.
    snapshot.server.tls = None;
    Ok(SimulatedConfig { source: source.name().to_owned(), snapshot: Arc::new(snapshot), from_ledger })
}

/// As `snapshot`, but the providers in `region` are the host at `host`, over TLS.
pub(super) fn with_host(snapshot: &Snapshot, region: &str, host: SocketAddr) -> Snapshot {
    let mut snapshot = snapshot.clone();
    let table = &snapshot.table;
    let of_region = table.deployments.iter().filter(|deployment| **table.region(deployment.region) == *region);
    let providers: Vec<ProviderId> = of_region.map(|deployment| deployment.provider).collect();
    for provider in providers {
        snapshot.providers[provider.index()].kind = ProviderTransport::Network(NetworkSettings {
            protocol: ProtocolName::OpenAi,
            base_url: format!("https://{host}/v1"),
            credentials: Vec::new(),
            http2: false,
            ca: None,
            proxy: None,
            max_tokens_name: OutputCeiling::MaxTokens,
            stream_options: true,
            on_abandon: OnAbandon::default(),
            headers: Vec::new(),
            forward_headers: Vec::new(),
            forward_query: Vec::new(),
        });
    }
    snapshot
}

/// The environment of this process, in which every variable is set that a secret may be read from.
struct DrillEnvironment;

impl Environment for DrillEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        let made_up = || (!name.starts_with(OVERRIDES)).then(|| format!("drill-{name}"));
        ProcessEnvironment.variable(name).or_else(made_up)
    }

    fn variables(&self) -> Vec<(String, String)> {
        ProcessEnvironment.variables()
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        ProcessEnvironment.read(path)
    }
}
