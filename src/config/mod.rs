//! Loading the configuration: the file is read, checked and compiled once.
//!
//! The input is a file, the environment and a few generated keys; the output is one immutable [`Snapshot`], or
//! every [`Problem`] at once, each with its location and a hint. A snapshot is complete: no other module checks
//! whether a setting was given. [`ConfigWatcher`] loads again whenever the file, or one it refers to, changes.
//!
//! It must never log or show a secret: see [`Secret`], and the `Diagnostics` of `reader`, which keeps literal
//! secrets out of all output.
//!
//! Start reading at [`load`]: the text is read into its sections (`sections/`), and these are compiled
//! (`compile/`). How a setting is added is written in `sections/mod.rs`; each is declared in one place there.

mod catalogue;
mod compile;
mod effective;
mod env;
mod listen;
mod problem;
mod reader;
mod referenced_files;
mod reload;
mod schema;
mod sections;
mod settings;
mod source;
mod value;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use catalogue::{
    CatalogueDay, CatalogueEntry, CatalogueError, CatalogueHost, CatalogueMatch, HostQuirks, ListedPrice,
    PriceCatalogue, PriceVariant,
};
pub use compile::{CatalogueFilledModel, CatalogueFilledProvider, CatalogueUse};
pub use effective::EffectiveConfig;
pub use env::{Environment, OVERRIDE_PREFIX, ProcessEnvironment};
pub use listen::{ListenAddress, ListenAddressError};
pub use problem::{Problem, Problems, ValueLocation};
pub use reader::{DisplayValue, EffectiveSetting, SettingOrigin, UnenforcedSetting};
pub use reload::{ConfigChange, ConfigWatcher, RefusedConfig};
pub use schema::{SettingRow, schema, setting_rows};
pub use settings::{
    ConnectionLimits, CorsSettings, FinishReason, MalformedFrame, MetricsAccess, NetworkSettings, OnAbandon,
    OutputCeiling, ProtocolName, ProviderCredential, ProviderSettings, ProviderTransport, ServerSettings, SimSettings,
    StoreLocation, StoreSettings, TelemetrySettings, TlsSettings, TransportSettings,
};
pub use source::{ConfigSource, find};
pub use value::{certificate_expires_unix_s, parse_size};

pub use crate::domain::secret::{KeyHash, MASK, Secret};

use crate::domain::budget::BudgetSpec;
use crate::domain::id::ProviderId;
use crate::domain::policy::{KeyRecord, Policy};
use crate::domain::register::{StoredKey, StoredTeam};
use crate::domain::routing::table::RoutingTable;
use referenced_files::ReferencedFiles;

/// A key that is in no file, such as the one generated for the demo. It may use everything.
#[derive(Clone, Debug)]
pub struct ExtraKey {
    /// For people and metrics.
    pub name: String,
    /// What its secret hashes to.
    pub hash: KeyHash,
}

/// One immutable compiled configuration. A request keeps the one that is active when its body has been read.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Addresses, tokens and limits of the HTTP server.
    pub server: ServerSettings,
    /// What keeps keys and receipts.
    pub store: StoreSettings,
    /// Logs, metrics and traces.
    pub telemetry: TelemetrySettings,
    /// Connections to providers, and the frames read from them.
    pub transport: TransportSettings,
    /// Where requests can go.
    pub table: RoutingTable,
    /// By [`ProviderId`].
    pub providers: Vec<ProviderSettings>,
    /// In file order.
    pub policies: Vec<Arc<Policy>>,
    /// The file's teams, and what the keys of each may spend together.
    pub teams: BTreeMap<Arc<str>, Option<BudgetSpec>>,
    /// The file's keys and the generated ones, by the hash of their secrets.
    pub keys: HashMap<KeyHash, Arc<KeyRecord>>,
    /// Whether operators may inject faults.
    pub fault_api: bool,
    /// How often each SLA is probed; `None`: never.
    pub sla_probe: Option<Duration>,
    /// What the price catalogue gave where the file says nothing.
    pub catalogue: CatalogueUse,
    /// Every setting, its value and where that came from.
    pub effective: EffectiveConfig,
    /// Settings that are understood and whose feature is not built.
    pub unenforced: Vec<UnenforcedSetting>,
    /// The files it refers to.
    referenced_files: ReferencedFiles,
}

impl Snapshot {
    /// The provider numbered `id`.
    pub fn provider(&self, id: ProviderId) -> &ProviderSettings {
        &self.providers[id.index()]
    }

    /// The policy called `name`, for keys that live in the store.
    pub fn policy(&self, name: &str) -> Option<&Arc<Policy>> {
        self.policies.iter().find(|policy| *policy.name == *name)
    }

    /// What requests with the stored `key` are measured by; `team` is its team, where that is stored too.
    /// `None` where there is no such policy.
    pub fn record_of(&self, key: &StoredKey, team: Option<&StoredTeam>) -> Option<KeyRecord> {
        let policy = self.policy(&key.policy)?;
        let budget = |name: &Arc<str>| {
            let in_file = self.teams.get(name).cloned().flatten();
            in_file.or_else(|| team.and_then(|team| team.budget.clone()))
        };
        let team = key.team.as_ref().map(|name| (name.clone(), budget(name)));
        Some(KeyRecord::of(key.name.clone(), policy, team, &key.own, key.expires))
    }

    /// The files that it refers to, whether or not they are there.
    pub fn referenced_paths(&self) -> impl Iterator<Item = &Path> {
        self.referenced_files.paths()
    }

    /// The key whose secret has this hash.
    pub fn key(&self, hash: &KeyHash) -> Option<&Arc<KeyRecord>> {
        self.keys.get(hash)
    }
}

/// Compiles a configuration, or returns every problem in it.
///
/// # Errors
///
/// Every [`Problem`] of the text, of the environment that overrides it and of the files it refers to.
pub fn load(
    source: &ConfigSource,
    environment: &dyn Environment,
    extra_keys: &[ExtraKey],
) -> Result<Snapshot, Problems> {
    let diagnostics = reader::Diagnostics::new(source.text(), environment);
    let file = sections::read(&diagnostics, source.text());
    if !source.is_demo() {
        require_admin_token(&diagnostics, &file.server);
    }
    let catalogue = price_catalogue(&diagnostics, source, environment);
    let compiled = compile::compile(&diagnostics, file, source, &catalogue, extra_keys);
    let findings = diagnostics.finish();
    if !findings.problems.is_empty() {
        let (file, text) = (&source.name(), source.text());
        let problems = Problems::new(file, text, findings.hidden, findings.problems);
        return Err(problems.referring_to(findings.referenced_files));
    }
    Ok(Snapshot {
        server: compiled.server,
        store: compiled.store,
        telemetry: compiled.telemetry,
        transport: compiled.transport,
        table: compiled.table,
        providers: compiled.providers,
        policies: compiled.policies,
        teams: compiled.teams,
        keys: compiled.keys,
        fault_api: compiled.fault_api,
        sla_probe: compiled.sla_probe,
        catalogue: compiled.catalogue,
        effective: EffectiveConfig::new(source.name(), findings.entries),
        unenforced: findings.unenforced,
        referenced_files: findings.referenced_files,
    })
}

/// The operator's catalogue over the built-in one. That the first cannot be used is reported.
fn price_catalogue(
    diagnostics: &reader::Diagnostics<'_>,
    source: &ConfigSource,
    environment: &dyn Environment,
) -> PriceCatalogue {
    let Some(file) = source.path().map(PriceCatalogue::path_beside) else { return PriceCatalogue::built_in() };
    diagnostics.note_file(&file);
    PriceCatalogue::open(&file, environment).unwrap_or_else(|error| {
        compile::report_catalogue(diagnostics, &file, &error);
        PriceCatalogue::built_in()
    })
}

/// Off loopback a generated token would be printed into logs that others read.
fn require_admin_token(diagnostics: &reader::Diagnostics<'_>, server: &sections::ServerSection) {
    let reachable = server.admin_listen.as_ref().unwrap_or(&server.listen);
    if reachable.value.is_loopback() || server.admin_token.is_some() {
        return;
    }
    let message = "operators can be reached here, and there is no admin token".to_owned();
    let hint = "set `admin_token` in [server], or keep to a loopback address".to_owned();
    diagnostics.report_at(reachable, message, hint);
}
