//! From the sections of the file to a snapshot: names become numbers, once.
//!
//! A name that does not exist is reported and left out; whether there is a snapshot is decided at the end, by
//! the problems in `Diagnostics`. Nothing here reads text or fills in a default.
//!
//! Start reading at [`compile`]; the order there is the order in which names become known.

mod access;
mod body_rules;
mod fallback;
mod models;
mod tiers;

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::InconsistentKeys;
use rustls::sign::CertifiedKey;

use super::catalogue::{HostQuirks, PriceCatalogue};
use super::problem::ValueLocation;
use super::reader::{Diagnostics, Setting, nearest};
use super::sections::{
    BrokenStream, ConfigFile, NetworkSection, ProviderSection, ServerSection, SimulationSection, StoreSection,
    TlsSection,
};
use super::settings::{
    ConnectionLimits, CorsSettings, NetworkSettings, OutputCeiling, ProtocolName, ProviderSettings, ProviderTransport,
    ServerSettings,
};
use super::settings::{SimSettings, StoreLocation, StoreSettings, TelemetrySettings, TlsSettings, TransportSettings};
use super::value::{InFlightSetting, WebOriginText};
use super::{ConfigSource, ExtraKey, KeyHash};
use crate::domain::body_member::{BodyRules, ListedMembers};
use crate::domain::breaker::BreakerSettings;
use crate::domain::budget::BudgetSpec;
use crate::domain::id::RegionId;
use crate::domain::policy::{KeyRecord, Policy};
use crate::domain::routing::adaptive::InFlightBounds;
use crate::domain::routing::table::{InFlightLimit, RoutingSettings, RoutingTable};

pub(super) use fallback::report_catalogue;
pub use fallback::{CatalogueFilledModel, CatalogueFilledProvider, CatalogueUse};

/// Everything a snapshot holds except what `Diagnostics` collected.
pub(super) struct CompiledConfig {
    pub(super) server: ServerSettings,
    pub(super) store: StoreSettings,
    pub(super) telemetry: TelemetrySettings,
    pub(super) transport: TransportSettings,
    pub(super) table: RoutingTable,
    pub(super) providers: Vec<ProviderSettings>,
    pub(super) policies: Vec<Arc<Policy>>,
    pub(super) teams: BTreeMap<Arc<str>, Option<BudgetSpec>>,
    pub(super) keys: HashMap<KeyHash, Arc<KeyRecord>>,
    pub(super) fault_api: bool,
    pub(super) sla_probe: Option<Duration>,
    pub(super) catalogue: CatalogueUse,
}

/// Resolves every name. What could not be found is in `diagnostics` afterwards.
pub(super) fn compile(
    diagnostics: &Diagnostics<'_>,
    file: ConfigFile,
    source: &ConfigSource,
    catalogue: &PriceCatalogue,
    extra_keys: &[ExtraKey],
) -> CompiledConfig {
    let mut regions = RegionNumbers::default();
    for provider in &file.providers {
        regions.number(provider_region(provider));
    }
    // A region without a provider cannot be preferred.
    let home = file.routing.region.as_ref().and_then(|region| regions.find(&region.value.0));
    let (models, mut deployments, mut used) = models::models(diagnostics, &file, catalogue, &regions);
    let rules: Vec<Arc<BodyRules>> =
        file.providers.iter().map(|provider| Arc::new(body_rules::body_rules(provider, catalogue))).collect();
    for deployment in &mut deployments {
        deployment.body_rules = rules[deployment.provider.index()].clone();
    }
    let tiers = tiers::tiers(diagnostics, &file, &models);
    let aliases = tiers::aliases(diagnostics, &file);
    let names = tiers::names(diagnostics, &file);
    let table = RoutingTable {
        models,
        deployments,
        tiers,
        aliases,
        regions: regions.names,
        names,
        listed_members: ListedMembers::of(
            rules.iter().flat_map(|rules| rules.denied.iter().chain(&rules.priced).cloned()),
        ),
        settings: routing_settings(&file, home),
    };
    let policies = access::policies(diagnostics, &file, &table);
    let keys = access::keys(diagnostics, &file, &table, &policies, extra_keys);
    access::require_ceilings(diagnostics, &file, &table, &policies);
    require_shared_store(diagnostics, &file.store);
    let store = store_settings(&file.store, source);
    access::require_receipts(diagnostics, &file, &store);
    let sla_probe = access::sla_probe(diagnostics, &file, &store);
    let teams = access::teams(&file);
    for network in file.providers.iter().filter_map(|provider| provider.network.as_ref()) {
        report_unreachable(diagnostics, network);
    }
    let provider = |provider| provider_settings(provider, catalogue, &mut used);
    let providers = file.providers.into_iter().filter_map(provider).collect();
    CompiledConfig {
        fault_api: file.drill.enabled.value,
        sla_probe,
        catalogue: used,
        teams,
        table,
        policies,
        keys,
        transport: TransportSettings {
            connect_timeout: file.routing.connect_timeout.value.0,
            malformed_frame: file.routing.malformed_frame.value,
        },
        server: server_settings(diagnostics, file.server),
        store,
        telemetry: TelemetrySettings {
            log: file.telemetry.log.value.0,
            metrics: file.telemetry.metrics.value,
            metrics_token: file.telemetry.metrics_token.map(|token| token.value),
            failover_objective: file.routing.failover_objective.value.0,
        },
        providers,
    }
}

/// Region names and their numbers, in order of first use.
#[derive(Default)]
struct RegionNumbers {
    names: Vec<Arc<str>>,
}

impl RegionNumbers {
    fn number(&mut self, name: &str) -> RegionId {
        self.find(name).unwrap_or_else(|| {
            self.names.push(name.into());
            number(self.names.len() - 1, RegionId)
        })
    }

    fn find(&self, name: &str) -> Option<RegionId> {
        let at = self.names.iter().position(|known| **known == *name)?;
        Some(number(at, RegionId))
    }
}

/// A provider without a region is a region of its own.
fn provider_region(provider: &ProviderSection) -> &str {
    match &provider.common.region {
        Some(region) => &region.value.0,
        None => &provider.name.value,
    }
}

/// An index as the number of a table row.
fn number<T>(index: usize, kind: impl FnOnce(u32) -> T) -> T {
    kind(u32::try_from(index).expect("a configuration file has fewer than 2³² tables"))
}

/// Reports a name that does not exist.
fn report_unknown<'n>(
    diagnostics: &Diagnostics<'_>,
    written: &Setting<impl Sized>,
    name: &str,
    kind: &str,
    known: impl Iterator<Item = &'n str>,
) {
    let known: Vec<&str> = known.collect();
    let hint = match nearest(name, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if known.is_empty() => format!("no {kind} is configured"),
        None => format!("known: {}", known.join(", ")),
    };
    diagnostics.report_at(written, format!("there is no {kind} of this name"), hint);
}

fn routing_settings(file: &ConfigFile, home: Option<RegionId>) -> RoutingSettings {
    let routing = &file.routing;
    let breaker = &routing.breaker;
    RoutingSettings {
        balance: routing.balance.value,
        home,
        max_attempts: routing.max_attempts.value.get(),
        retry_budget_bp: routing.retry_budget.value.basis_points,
        connect_timeout: routing.connect_timeout.value.0,
        idle: routing.idle.value.0,
        total: routing.total.value.0,
        retry_after_wait_max: routing.retry_after_wait_max.value,
        queue_wait: routing.queue_wait.value,
        max_in_flight: max_in_flight(&file.server),
        same_region_retry_on_500: routing.same_region_retry_on_500.value == 1,
        silent_after: routing.silent_after.value.0,
        beyond_hold_pause: routing.beyond_hold_pause.value,
        hold_streams: routing.stream.value == BrokenStream::Buffered,
        splice_streams: routing.stream.value == BrokenStream::Splice,
        breaker: BreakerSettings {
            failures: breaker.failures.value.get(),
            ratio_bp: breaker.ratio.value.basis_points,
            window: breaker.window.value.0,
            min_requests: breaker.min_requests.value.get(),
            open: breaker.open.value.0,
            open_max: breaker.open_max.value.0,
        },
    }
}

fn max_in_flight(server: &ServerSection) -> Option<InFlightLimit> {
    Some(match server.max_in_flight.as_ref()?.value {
        InFlightSetting::Fixed(most) => InFlightLimit::Fixed(most.get()),
        InFlightSetting::Adaptive => InFlightLimit::Adaptive(InFlightBounds {
            at_least: server.adaptive_at_least.value.get(),
            at_most: server.adaptive_at_most.value.get(),
        }),
    })
}

fn server_settings(diagnostics: &Diagnostics<'_>, server: ServerSection) -> ServerSettings {
    ServerSettings {
        listen: server.listen.value,
        admin_listen: server.admin_listen.map(|address| address.value),
        admin_token: server.admin_token.map(|token| token.value),
        viewer_token: server.viewer_token.map(|token| token.value),
        cors: cors_settings(server.cors_origins),
        max_body_bytes: server.max_body.value.0,
        max_in_flight_bytes: server.max_in_flight_bytes.value.0,
        connections: Arc::new(ConnectionLimits {
            max: server.max_connections.map(|max| max.value.get() as usize),
            keyless_per_address: server.max_keyless_per_address.value.get() as usize,
            trusted_proxies: server.trusted_proxies.into_iter().flatten().map(|network| network.value.0).collect(),
        }),
        worker_threads: server.worker_threads.and_then(|count| NonZeroUsize::try_from(count.value).ok()),
        lb_grace: server.lb_grace.value,
        drain: server.drain.value,
        half_close: server.half_close.value,
        tls: server.tls.and_then(|tls| tls_settings(diagnostics, tls)),
    }
}

fn cors_settings(written: Option<Vec<Setting<WebOriginText>>>) -> CorsSettings {
    let origins: Vec<String> = written.into_iter().flatten().map(|origin| origin.value.0).collect();
    CorsSettings { any: origins.iter().any(|origin| origin == WebOriginText::ANY), origins }
}

/// `None` only where something is missing, or does not fit, that was reported.
fn tls_settings(diagnostics: &Diagnostics<'_>, tls: TlsSection) -> Option<TlsSettings> {
    let (cert, key) = (tls.cert?.value, tls.key?);
    let certified = CertifiedKey::new(cert.certificates, key.value.0.clone());
    match certified.keys_match() {
        // A key that does not expose its public half cannot be compared.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
            Some(TlsSettings { certified: Arc::new(certified), expires_unix_s: cert.expires_unix_s })
        }
        Err(_) => {
            let hint = "point `cert` and `key` to the two files of one issue; is the first certificate of `cert` the \
                        server's own?";
            diagnostics.report_at(&key, "does not belong to the certificate".to_owned(), hint.to_owned());
            None
        }
    }
}

/// Reports counters of several gateways that share nothing else: none would know how many there are.
fn require_shared_store(diagnostics: &Diagnostics, store: &StoreSection) {
    let Some(shared) = &store.shared else { return };
    if !matches!(StoreLocation::of_url(&store.url.value.0), Some(StoreLocation::Postgres(_))) {
        let message = "counts limits for gateways that share a PostgreSQL store, and this one's store is its own";
        diagnostics.report_at(
            shared,
            message.to_owned(),
            "set `url = \"postgres://…\"`, or remove `shared`".to_owned(),
        );
    }
}

fn store_settings(store: &StoreSection, source: &ConfigSource) -> StoreSettings {
    // A URL of no known kind was reported when it was read.
    let written = StoreLocation::of_url(&store.url.value.0).unwrap_or(StoreLocation::Memory);
    // A variable is read where the process runs, like every path of a command line.
    let of_file = !matches!(store.url.location, ValueLocation::Variable { .. });
    let (location, former_path) = match (written, source) {
        (StoreLocation::Memory, ConfigSource::Demo) if of_file => (StoreLocation::Temporary, None),
        (StoreLocation::Sqlite(path), ConfigSource::File { path: file, .. }) if of_file => beside(file, path),
        (other, _) => (other, None),
    };
    StoreSettings {
        location,
        former_path,
        retention: store.retention.as_ref().map(|days| days.value.duration()),
        shared: store.shared.as_ref().map(|url| url.value.0.0.clone()),
    }
}

/// A relative `path` beside the configuration `file`, and what it was from the working directory if that differs.
fn beside(file: &Path, path: PathBuf) -> (StoreLocation, Option<PathBuf>) {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty() && *folder != Path::new("."));
    match folder {
        Some(folder) if path.is_relative() => (StoreLocation::Sqlite(folder.join(&path)), Some(path)),
        _ => (StoreLocation::Sqlite(path), None),
    }
}

/// Reports what `ca` and `proxy` cannot do for the base URL that they are written beside.
fn report_unreachable(diagnostics: &Diagnostics<'_>, network: &NetworkSection) {
    let Some(base_url) = &network.base_url else { return };
    if base_url.value.0.get(..6).is_none_or(|scheme| !scheme.eq_ignore_ascii_case("https:")) {
        if let Some(ca) = &network.ca {
            let why = "is for nothing: base_url is not encrypted, and no certificate is shown";
            diagnostics.report_at(ca, why.to_owned(), "write base_url with https://, or remove `ca`".to_owned());
        }
        if let Some(proxy) = network.proxy.as_ref().filter(|_| network.http2.value) {
            let why = "cannot pass HTTP/2 on that is not encrypted";
            diagnostics.report_at(proxy, why.to_owned(), "write base_url with https://, or remove `http2`".to_owned());
        }
    }
}

/// `None` only where something is missing that was reported.
fn provider_settings(
    provider: ProviderSection,
    catalogue: &PriceCatalogue,
    used: &mut CatalogueUse,
) -> Option<ProviderSettings> {
    let name: Arc<str> = provider.name.value.into();
    let kind = match provider.common.protocol?.value {
        ProtocolName::Sim => ProviderTransport::Sim(sim_settings(&provider.simulation?)),
        protocol => {
            let network = provider.network?;
            let quirks = network.base_url.as_ref().map(|base_url| catalogue.quirks_at(&base_url.value.0));
            let quirks = quirks.unwrap_or_default();
            used.providers.extend(CatalogueFilledProvider::of(&name, &network, &quirks));
            ProviderTransport::Network(network_settings(protocol, network, &quirks)?)
        }
    };
    Some(ProviderSettings { name, kind, finish_reason: provider.common.finish_reason.value })
}

fn network_settings(protocol: ProtocolName, network: NetworkSection, quirks: &HostQuirks) -> Option<NetworkSettings> {
    let max_tokens_name = network.max_tokens_name.map(|name| name.value).or(quirks.output_ceiling);
    let stream_options = network.stream_options.map(|may| may.value).or(quirks.stream_options);
    let mut forward_query: Vec<Arc<str>> =
        network.forward_query.into_iter().flatten().map(|name| name.value.0).collect();
    if protocol == ProtocolName::Anthropic {
        // The official clients send it with every request that uses what is not general yet.
        forward_query.push("beta".into());
    }
    Some(NetworkSettings {
        protocol,
        base_url: network.base_url?.value.0,
        credentials: network.credential.into_iter().flatten().map(|secret| secret.value).collect(),
        http2: network.http2.value,
        ca: network.ca.map(|ca| ca.value.0),
        proxy: network.proxy.map(|proxy| proxy.value.0),
        max_tokens_name: max_tokens_name.unwrap_or(OutputCeiling::MaxTokens),
        stream_options: stream_options.unwrap_or(true),
        on_abandon: network.on_abandon.value,
        headers: network.headers,
        forward_headers: network.forward_headers.into_iter().flatten().map(|header| header.value.0).collect(),
        forward_query,
    })
}

fn sim_settings(sim: &SimulationSection) -> SimSettings {
    SimSettings {
        first_token: sim.first_token.value,
        tokens_per_second: sim.tokens_per_second.value.get(),
        error_rate_bp: sim.error_rate.value.basis_points,
    }
}
