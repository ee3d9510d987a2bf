//! The tables of the file: each setting is declared once, and read as it is declared.
//!
//! A setting is one entry of a `section!`: its sentence, its name, its type, and how it is read with which
//! default. From that entry come the field that mirrors it, its reading with every problem on the way, its
//! line in `config show`, its part of the JSON Schema and its row in `docs/configuration.md`.
//!
//! # How a setting is added
//!
//! 1. Declare it in its section here; a type that no setting has yet is a `SettingValue` in `value/`.
//! 2. Use its value: in [`compile`](super::compile), for whoever needs it. Until then the compiler reports a
//!    field that is never read; `#[unbuilt = "…"]` marks a feature that is not built; `optional`, `or`
//!    and `optional_table` warn where such a setting is used.
//! 3. Show it in `config/tierway.example.toml`, and renew `config/tierway.schema.json` and
//!    `docs/configuration.md`: tests name what is missing and the command that writes it.
//!
//! Nothing here looks a name up in another section: that is the task of [`compile`](super::compile). A required
//! field is an `Option`, `None` only after its absence was reported. Start reading at [`ConfigFile`].

mod keys;
mod language;
mod models;
mod prices;
mod providers;
mod routing;
mod server;
mod sla;

use std::num::NonZeroU32;
use std::ops::Range;

use toml::de::DeTable;

use super::problem::ValueLocation;
use super::reader::{Diagnostics, Setting, SettingCatalogue, Table, ValueError, section};
use super::value::Name;
pub(super) use keys::UnpricedModels;
pub(super) use keys::{
    BudgetPeriodKeyword, BudgetSection, HedgeSection, KeySection, LimitsSection, PolicySection, TeamSection,
};
use keys::{DrillSection, keys};
use language::{ConfigLanguage, other_language};
pub(super) use models::{DeploymentSection, ModelSection};
pub(super) use prices::{PriceAboveSection, PriceSection};
pub(super) use providers::{NetworkSection, ProviderSection, SimulationSection};
pub(super) use routing::{AliasSection, BrokenStream, RoutingSection, TierSection};
pub(super) use server::{ServerSection, StoreSection, TelemetrySection, TlsSection};
use sla::SlaProbeSection;
pub(super) use sla::{SlaCreditSection, SlaFirstTokenSection, SlaSection};

/// Settings whose value may be a secret: their lines are not shown when the file is not TOML.
const SECRET_NAMES: [&str; 8] =
    ["admin_token", "credential", "hash", "metrics_token", "secret", "shared", "url", "viewer_token"];

/// Tables without which no request can be served, each with the problem and the hint of its absence.
const REQUIRED: [(&str, &str, &str); 2] = [
    ("providers", "no provider is configured", "add a section [providers.NAME] with its `protocol`"),
    ("models", "no model is configured", "add a section [models.\"NAME\"] with its `deployments`"),
];

section! {
    /// The whole file.
    pub(super) struct ConfigFile {
        /// Addresses, tokens and limits of the HTTP server.
        server: ServerSection = overridable(ServerSection::checked),
        /// What keeps keys and receipts. A change needs a restart.
        store: StoreSection = overridable(StoreSection::read),
        /// Logs, metrics and traces.
        telemetry: TelemetrySection = overridable(TelemetrySection::read),
        /// Who serves, by name.
        providers: Vec<ProviderSection> =
            named("A wire protocol, a host, credentials and a region.", ProviderSection::read),
        /// What clients ask for, by name.
        models: Vec<ModelSection> = named("A model and who serves it.", ModelSection::checked),
        /// Lists of models to step down through, by name. The name of a tier is a model too.
        tiers: Vec<TierSection> = named("A list of models with a chain.", TierSection::checked),
        /// Model names of your own that split over tiers or models.
        aliases: Vec<AliasSection> = named("One such name.", AliasSection::checked),
        /// How a deployment is chosen, and for how long to wait.
        routing: RoutingSection = overridable(RoutingSection::checked),
        /// What keys may do, by name.
        policies: Vec<PolicySection> = named("Each limit and budget is each key's own.", PolicySection::checked),
        /// Who shares a budget and a report, by name; one that is not declared has no budget.
        teams: Vec<TeamSection> = named("A team.", TeamSection::checked),
        /// What clients present; more may live in the store.
        keys: Vec<KeySection> = read_by(keys),
        /// Probes of SLAs, of all policies that have one.
        sla: SlaProbeSection = table(SlaProbeSection::checked),
        /// Rehearsed outages.
        drill: DrillSection = table(DrillSection::read),
    }
}

/// Reads the text. What is wrong with it is in `diagnostics` afterwards.
pub(super) fn read(diagnostics: &Diagnostics<'_>, text: &str) -> ConfigFile {
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return read_document(diagnostics, document.get_ref());
    }
    if let Some(language) = other_language(text) {
        return read_nothing(diagnostics, text, language);
    }
    for error in &errors {
        report_syntax_error(diagnostics, error);
    }
    let spans: Vec<_> = errors.iter().filter_map(toml::de::Error::span).collect();
    hide_secrets_by_line(diagnostics, text, &spans);
    let file = read_document(diagnostics, document.get_ref());
    diagnostics.drop_follow_up_problems(&spans, errors.len());
    file
}

/// Reports a text of another language than TOML, of which nothing else can be said.
fn read_nothing(diagnostics: &Diagnostics<'_>, text: &str, language: ConfigLanguage) -> ConfigFile {
    let file = read_document(diagnostics, &DeTable::new());
    diagnostics.drop_all_problems();
    let (first, name) = (language.first_line, language.name);
    // Any value may be a secret: only what it begins with is shown.
    let shown = text[first.clone()].find([':', '{', '[']).map_or(first.end, |at| first.start + at + 1);
    for hidden in [shown..first.end, first.end..text.len()] {
        if !text[hidden.clone()].trim().is_empty() {
            diagnostics.hide(hidden);
        }
    }
    let message = format!("not TOML: the file looks like {name}");
    let hint = format!("the configuration is TOML, not {name}: {}", language.instead);
    diagnostics.report("", ValueLocation::File(first), ValueError::hinting(message, hint));
    file
}

/// Every setting that [`read`] would read.
pub(super) fn describe() -> SettingCatalogue {
    let diagnostics = Diagnostics::describing();
    read_document(&diagnostics, &DeTable::new());
    diagnostics.into_catalogue()
}

fn read_document(diagnostics: &Diagnostics<'_>, document: &DeTable<'_>) -> ConfigFile {
    Table::document(diagnostics, document, |file| {
        for (name, message, hint) in REQUIRED {
            file.require(name, message, hint);
        }
        ConfigFile::read(file)
    })
}

fn report_syntax_error(diagnostics: &Diagnostics<'_>, error: &toml::de::Error) {
    let hint = if error.message().starts_with("duplicate key") {
        "the same name is given above: keep one of the two"
    } else {
        "the file is TOML: strings in double quotes, tables in [brackets], one setting a line"
    };
    let location = error.span().map_or(ValueLocation::Unwritten, ValueLocation::File);
    let message = format!("not TOML: {}", error.message());
    diagnostics.report("", location, ValueError::hinting(message, hint));
}

/// Hides what follows the name of a secret on every line, and what follows a quote on the broken
/// ones: where a value ends, and whose it is, cannot be known there.
fn hide_secrets_by_line(diagnostics: &Diagnostics<'_>, text: &str, broken: &[Range<usize>]) {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end_matches(['\r', '\n']);
        let named = SECRET_NAMES.iter().filter_map(|name| content.find(name).map(|at| at + name.len()));
        let is_broken = broken.iter().any(|span| span.start <= start + line.len() && start <= span.end);
        let quoted = content.find(['"', '\'']).filter(|_| is_broken);
        if let Some(from) = named.chain(quoted).min() {
            diagnostics.hide(start + from..start + content.len());
        }
        start += line.len();
    }
}

/// Reports a name that could not be a label.
fn check_name(diagnostics: &Diagnostics<'_>, name: &Setting<String>) {
    if let Some(wrong) = Name::fault(&name.value) {
        diagnostics.report(&name.path, name.location.clone(), wrong);
    }
}

/// A default that is known not to be zero.
const fn nonzero(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("a default that may not be zero is not")
}
