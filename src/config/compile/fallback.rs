//! What the price catalogue gives to models of whose price, context or longest output the file says nothing.
//!
//! Each setting is filled by itself, so that a file overrides one and keeps the others. It must never hide where a
//! value is from, nor what could not be filled: both are in [`CatalogueUse`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::catalogue::{
    CatalogueDay, CatalogueEntry, CatalogueError, CatalogueMatch, HostQuirks, PriceCatalogue,
};
use super::super::problem::ValueLocation;
use super::super::reader::{Diagnostics, ValueError};
use super::super::sections::{ConfigFile, NetworkSection, ProviderSection};
use super::super::settings::OutputCeiling;
use crate::domain::pricing::Prices;
use crate::domain::routing::table::{Deployment, ImageTokens, Model};

/// What a configuration has of the price catalogue.
#[derive(Clone, Debug)]
pub struct CatalogueUse {
    /// The catalogues that were asked, in this order: the day of each, and its file if it is an operator's.
    pub asked: Vec<(CatalogueDay, Option<PathBuf>)>,
    /// The earliest day of what was filled; where nothing was, that of the first catalogue.
    pub as_of: CatalogueDay,
    /// What was filled or could not be, by model.
    pub models: Vec<CatalogueFilledModel>,
    /// What was filled or may be wanted, by provider.
    pub providers: Vec<CatalogueFilledProvider>,
}

/// What the catalogue knows of one provider's host.
#[derive(Clone, Debug)]
pub struct CatalogueFilledProvider {
    /// The provider's name.
    pub provider: Arc<str>,
    /// The settings that are filled with something else than what holds everywhere, as they would be written.
    pub filled: Vec<String>,
    /// Headers that the host takes and the file does not send.
    pub headers: Vec<String>,
}

/// What the catalogue gave to one model.
#[derive(Clone, Debug)]
pub struct CatalogueFilledModel {
    /// The model's name.
    pub model: Arc<str>,
    /// The settings that were filled: `price`, `context`, `max_output`.
    pub filled: Vec<&'static str>,
    /// Of which entries, as `HOST NAME`; where they are not of the first catalogue, with their day.
    pub entries: Vec<String>,
    /// What these entries have a price for and is not charged.
    pub uncharged: Vec<String>,
    /// Whether their prices differ by the hour, so that the highest is charged.
    pub differs_by_hour: bool,
    /// Why a deployment has no price, as whole sentences.
    pub unpriced: Vec<String>,
}

impl CatalogueUse {
    /// Nothing yet of `catalogue`.
    pub(super) fn of(catalogue: &PriceCatalogue) -> Self {
        let asked = catalogue.layers().map(|layer| (layer.as_of().clone(), layer.file().map(Into::into)));
        Self { asked: asked.collect(), as_of: catalogue.as_of().clone(), models: Vec::new(), providers: Vec::new() }
    }

    /// Whether anything was filled.
    pub fn is_used(&self) -> bool {
        self.models.iter().any(|model| !model.filled.is_empty())
    }

    fn note(&mut self, filled: CatalogueFilledModel, entries: &[Option<Box<CatalogueEntry>>]) {
        let days = entries.iter().flatten().map(|entry| &entry.as_of).filter(|_| !filled.filled.is_empty());
        let used = self.is_used().then_some(&self.as_of);
        if let Some(earliest) = days.chain(used).min_by_key(|day| day.unix_ms) {
            self.as_of = earliest.clone();
        }
        if !filled.filled.is_empty() || !filled.unpriced.is_empty() {
            self.models.push(filled);
        }
    }

    /// Whole days from the day of what was filled to `now_unix_ms`; 0 where that is before it.
    pub fn age_days(&self, now_unix_ms: i64) -> u64 {
        const DAY_MS: u64 = 86_400_000;
        u64::try_from(now_unix_ms.saturating_sub(self.as_of.unix_ms)).unwrap_or(0) / DAY_MS
    }
}

/// Fills what `model` and its `deployments` lack, and records it in `used`.
///
/// # Errors
/// If the models of a host cannot be read.
pub(super) fn fill(
    catalogue: &PriceCatalogue,
    file: &ConfigFile,
    model: &mut Model,
    deployments: &mut [Deployment],
    used: &mut CatalogueUse,
) -> Result<(), CatalogueError> {
    let mut filled = CatalogueFilledModel {
        model: model.name.clone(),
        filled: Vec::new(),
        entries: Vec::new(),
        uncharged: Vec::new(),
        differs_by_hour: false,
        unpriced: Vec::new(),
    };
    let mut entries = Vec::new();
    for deployment in deployments {
        let provider = &file.providers[deployment.provider.index()];
        let entry = entry(catalogue, provider, deployment)?;
        if model.price.is_none() && deployment.price.is_none() {
            match priced(&entry, deployment) {
                Ok(prices) => deployment.price = Some(prices),
                Err(None) => {}
                Err(Some(why)) => filled.unpriced.push(why),
            }
            if deployment.price.is_some() {
                filled.note_price(&entry);
            }
            if let (Some(_), Some(CatalogueMatch::Found(entry))) = (&deployment.price, &entry) {
                deployment.member_prices.clone_from(&entry.member_prices);
            }
        }
        let entry = match entry {
            Some(CatalogueMatch::Found(entry)) => Some(entry),
            _ => None,
        };
        deployment.max_output = entry.as_ref().and_then(|entry| entry.max_output.or(entry.context));
        entries.push(entry);
    }
    fill_limits(model, &entries, &mut filled);
    if !filled.filled.is_empty() {
        filled.note_names(&entries, catalogue.as_of());
    }
    used.note(filled, &entries);
    Ok(())
}

/// Reports what is wrong with the operator's catalogue in `file`.
pub(in crate::config) fn report_catalogue(diagnostics: &Diagnostics<'_>, file: &Path, error: &CatalogueError) {
    let hint = "remove the file, or import another one: `tierway prices import FILE`";
    let wrong = ValueError::hinting(format!("{}: {error}", file.display()), hint);
    diagnostics.report("", ValueLocation::Unwritten, wrong);
}

/// What is known of the deployment's model; `None` where its host is not known.
fn entry(
    catalogue: &PriceCatalogue,
    provider: &ProviderSection,
    deployment: &Deployment,
) -> Result<Option<CatalogueMatch>, CatalogueError> {
    let base_url = provider.network.as_ref().and_then(|network| network.base_url.as_ref());
    base_url.map_or(Ok(None), |base_url| catalogue.find(&base_url.value.0, &deployment.upstream_model))
}

/// The prices, or why there are none; of a host that is not known there is nothing to say.
fn priced(found: &Option<CatalogueMatch>, deployment: &Deployment) -> Result<Prices, Option<String>> {
    let Some(found) = found else { return Err(None) };
    let (name, upstream) = (&deployment.name, &deployment.upstream_model);
    let why = match found {
        CatalogueMatch::Found(entry) => match &entry.prices {
            Some(prices) => return Ok(prices.clone()),
            None => format!("{name} has no price: nothing that the entry {} has a price for is counted", entry.name),
        },
        CatalogueMatch::Ambiguous(names) => {
            format!("{name} has no price: {upstream} may be any of {}", names.join(", "))
        }
        CatalogueMatch::Unknown => format!("{name} has no price: the catalogue does not know {upstream} there"),
    };
    Err(Some(why))
}

/// A model is as long as the longest of its deployments, so that a hold covers each of them.
fn fill_limits(model: &mut Model, entries: &[Option<Box<CatalogueEntry>>], filled: &mut CatalogueFilledModel) {
    let most = |limit: fn(&CatalogueEntry) -> Option<u64>| {
        let each: Option<Vec<u64>> = entries.iter().map(|entry| limit(entry.as_deref()?)).collect();
        each.and_then(|each| each.into_iter().max())
    };
    if model.context.is_none() {
        model.context = most(|entry| entry.context);
        filled.filled.extend(model.context.map(|_| "context"));
    }
    if model.max_output.is_none() {
        // An output is never longer than the context.
        let own = most(|entry| entry.max_output.or(entry.context));
        model.max_output = own.map(|own| model.context.map_or(own, |context| own.min(context)));
        filled.filled.extend(model.max_output.map(|_| "max_output"));
    }
    let typical = most(|entry| Some(entry.image_tokens?.typical));
    let most = most(|entry| Some(entry.image_tokens?.most));
    model.image_tokens = typical.zip(most).map(|(typical, most)| ImageTokens { typical, most });
}

impl CatalogueFilledProvider {
    /// What `quirks` give where `network` says nothing; `None` where that is nothing of note.
    pub(super) fn of(provider: &Arc<str>, network: &NetworkSection, quirks: &HostQuirks) -> Option<Self> {
        let mut filled = Vec::new();
        if network.max_tokens_name.is_none() && quirks.output_ceiling == Some(OutputCeiling::MaxCompletionTokens) {
            filled.push("max_tokens_name = \"max_completion_tokens\"".to_owned());
        }
        if network.stream_options.is_none() && quirks.stream_options == Some(false) {
            filled.push("stream_options = false".to_owned());
        }
        let is_sent = |wanted: &str| network.headers.iter().any(|(name, _)| name.as_str().eq_ignore_ascii_case(wanted));
        let headers: Vec<String> = quirks.headers.iter().filter(|name| !is_sent(name)).cloned().collect();
        (!filled.is_empty() || !headers.is_empty()).then(|| Self { provider: provider.clone(), filled, headers })
    }
}

impl CatalogueFilledModel {
    fn note_price(&mut self, found: &Option<CatalogueMatch>) {
        let Some(CatalogueMatch::Found(entry)) = found else { return };
        if !self.filled.contains(&"price") {
            self.filled.push("price");
        }
        self.differs_by_hour |= entry.differs_by_hour();
        for what in entry.uncharged() {
            if !self.uncharged.iter().any(|known| known == what) {
                self.uncharged.push(what.to_owned());
            }
        }
    }

    fn note_names(&mut self, entries: &[Option<Box<CatalogueEntry>>], first: &CatalogueDay) {
        for entry in entries.iter().flatten() {
            let day = if entry.as_of == *first { String::new() } else { format!(" of {}", entry.as_of.text) };
            let name = format!("{} {}{day}", entry.host, entry.name);
            if !self.entries.contains(&name) {
                self.entries.push(name);
            }
        }
    }
}
