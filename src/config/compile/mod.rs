//! From the sections of the file to a snapshot: names become numbers, once.
//!
//! A name that does not exist is reported and left out; whether there is a snapshot is decided at the end, by
//! the problems in `Diagnostics`. Nothing here reads text or fills in a default.
//!
//! Start reading at [`compile`]; the order there is the order in which names become known.

mod access;
mod models;
mod tiers;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rustls::InconsistentKeys;
use rustls::sign::CertifiedKey;

use super::reader::{Diagnostics, Setting, nearest};
use super::sections::{
    ConfigFile, NetworkSection, ProviderSection, ServerSection, SimulationSection, StoreSection, TlsSection,
};
use super::settings::{NetworkSettings, ProtocolName, ProviderSettings, ProviderTransport, ServerSettings};
use super::settings::{SimSettings, StoreLocation, StoreSettings, TelemetrySettings, TlsSettings, TransportSettings};
use super::{ExtraKey, KeyHash};
use crate::domain::breaker::BreakerSettings;
use crate::domain::budget::BudgetSpec;
use crate::domain::id::RegionId;
use crate::domain::policy::{KeyRecord, Policy};
use crate::domain::routing::table::{RoutingSettings, RoutingTable};

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
}

/// Resolves every name. What could not be found is in `diagnostics` afterwards.
pub(super) fn compile(diagnostics: &Diagnostics<'_>, file: ConfigFile, extra_keys: &[ExtraKey]) -> CompiledConfig {
    let mut regions = RegionNumbers::default();
    for provider in &file.providers {
        regions.number(provider_region(provider));
    }
    // A region without a provider cannot be preferred.
    let home = file.routing.region.as_ref().and_then(|region| regions.find(&region.value.0));
    let (models, deployments) = models::models(diagnostics, &file, &regions);
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
        settings: routing_settings(&file, home),
    };
    let policies = access::policies(diagnostics, &file, &table);
    let keys = access::keys(diagnostics, &file, &table, &policies, extra_keys);
    access::require_ceilings(diagnostics, &file, &table, &policies);
    CompiledConfig {
        teams: access::teams(&file),
        table,
        policies,
        keys,
        transport: TransportSettings {
            connect_timeout: file.routing.connect_timeout.value.0,
            malformed_frame: file.routing.malformed_frame.value,
        },
        server: server_settings(diagnostics, file.server),
        store: store_settings(file.store),
        telemetry: TelemetrySettings {
            log: file.telemetry.log.value.0,
            metrics_token: file.telemetry.metrics_token.map(|token| token.value),
            failover_objective: file.routing.failover_objective.value.0,
        },
        providers: file.providers.into_iter().filter_map(provider_settings).collect(),
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
        same_region_retry_on_500: routing.same_region_retry_on_500.value == 1,
        silent_after: routing.silent_after.value.0,
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

fn server_settings(diagnostics: &Diagnostics<'_>, server: ServerSection) -> ServerSettings {
    ServerSettings {
        listen: server.listen.value,
        admin_listen: server.admin_listen.map(|address| address.value),
        admin_token: server.admin_token.map(|token| token.value),
        viewer_token: server.viewer_token.map(|token| token.value),
        max_body_bytes: server.max_body.value.0,
        max_in_flight_bytes: server.max_in_flight_bytes.value.0,
        lb_grace: server.lb_grace.value,
        drain: server.drain.value,
        tls: server.tls.and_then(|tls| tls_settings(diagnostics, tls)),
    }
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

fn store_settings(store: StoreSection) -> StoreSettings {
    StoreSettings {
        // A URL of no known kind was reported when it was read.
        location: StoreLocation::of_url(&store.url.value.0).unwrap_or(StoreLocation::Memory),
        retention: store.retention.map(|days| days.value.duration()),
        shared: store.shared.map(|url| url.value.0),
    }
}

/// `None` only where something is missing that was reported.
fn provider_settings(provider: ProviderSection) -> Option<ProviderSettings> {
    let kind = match provider.common.protocol?.value {
        ProtocolName::Sim => ProviderTransport::Sim(sim_settings(&provider.simulation?)),
        protocol => ProviderTransport::Network(network_settings(protocol, provider.network?)?),
    };
    Some(ProviderSettings {
        name: provider.name.value.into(),
        kind,
        finish_reason: provider.common.finish_reason.value,
    })
}

fn network_settings(protocol: ProtocolName, network: NetworkSection) -> Option<NetworkSettings> {
    Some(NetworkSettings {
        protocol,
        base_url: network.base_url?.value.0,
        credentials: network.credential.into_iter().flatten().map(|secret| secret.value).collect(),
        http2: network.http2.value,
    })
}

fn sim_settings(sim: &SimulationSection) -> SimSettings {
    SimSettings {
        first_token: sim.first_token.value,
        tokens_per_second: sim.tokens_per_second.value.get(),
        error_rate_bp: sim.error_rate.value.basis_points,
    }
}
