//! The price catalogue: prices and limits of the models of known hosts, for what the configuration does not say.
//!
//! One is built in (`config/prices.toml`, written by `config/prices.py`); the entries of a file `tierway.prices.toml`
//! beside the configuration take the place of its entries. It is read when a configuration is compiled, and never while
//! a request is served. To keep a start short, only the heads of hosts are read at once, and a host's models when one is
//! asked for.
//!
//! It must never guess: a name that several entries match has no price.
//!
//! Start reading in [`PriceCatalogue::find`]; the form of the file is described at the head of `config/prices.toml`.

mod entry;
mod pattern;

pub use entry::{CatalogueEntry, ListedPrice, PriceVariant};

use super::env::Environment;
use super::settings::OutputCeiling;
use super::value::begins_unix_ms;
use entry::EntryText;
use pattern::fits;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// The catalogue that is built in.
const BUILT_IN: &str = include_str!("../../../config/prices.toml");
/// The operator's catalogue, beside the configuration.
const FILE_NAME: &str = "tierway.prices.toml";
/// How the tables of a host begin: its own, and after it those of its models.
const HOST_HEADER: &str = "[hosts.";

/// Prices and limits of the models of known hosts.
#[derive(Debug)]
pub struct PriceCatalogue {
    /// The operator's file; `None`: it is built in.
    file: Option<PathBuf>,
    as_of: CatalogueDay,
    source: String,
    hosts: Vec<CatalogueHost>,
    /// What counts where this one knows nothing.
    beneath: Option<Box<PriceCatalogue>>,
}

/// The day on which the prices of a catalogue were known to be right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CatalogueDay {
    /// As in `2026-11-30`.
    pub text: Arc<str>,
    /// Its beginning, in Unix milliseconds.
    pub unix_ms: i64,
}

/// One host of the catalogue: where it is reached, its quirks and its models.
#[derive(Debug)]
pub struct CatalogueHost {
    /// Its name, such as `openai`.
    pub name: String,
    /// Its quirks.
    pub quirks: HostQuirks,
    as_of: CatalogueDay,
    addresses: Vec<String>,
    also: Vec<String>,
    /// The text of its models' table.
    text: Cow<'static, str>,
    models: OnceLock<Result<Vec<(String, EntryText)>, CatalogueError>>,
}

/// How a host differs from what its API promises. What is not said is as everywhere.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct HostQuirks {
    /// The member by which its models take the ceiling of the output.
    pub output_ceiling: Option<OutputCeiling>,
    /// Whether it accepts the member `stream_options`.
    pub stream_options: Option<bool>,
    /// Headers that it needs or honours beside a bearer token.
    pub headers: Vec<String>,
    /// Whether it passes requests on to other hosts, which a body may choose.
    pub passes_on: Option<bool>,
}

/// What the catalogue knows of a model's name at a host.
#[derive(Debug)]
pub enum CatalogueMatch {
    /// One entry.
    Found(Box<CatalogueEntry>),
    /// Several entries, by these names: which of them is meant is not known.
    Ambiguous(Vec<String>),
    /// The host has no entry for this name.
    Unknown,
}

/// Why a catalogue cannot be used.
#[derive(Clone, PartialEq, Eq, thiserror::Error, Debug)]
#[error("{place}: {fault}")]
pub struct CatalogueError {
    /// The table or the entry.
    place: String,
    fault: String,
}

impl CatalogueError {
    fn at(place: impl Into<String>, fault: impl std::fmt::Display) -> Self {
        Self { place: place.into(), fault: fault.to_string().trim_end().replace('\n', " ") }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadText {
    as_of: String,
    source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostText {
    address: Vec<String>,
    #[serde(default)]
    also: Vec<String>,
    output_ceiling: Option<OutputCeiling>,
    stream_options: Option<bool>,
    #[serde(default)]
    headers: Vec<String>,
    passes_on: Option<bool>,
}

#[derive(Deserialize)]
struct HostsText {
    hosts: BTreeMap<String, HostText>,
}

#[derive(Deserialize)]
struct ModelsText {
    hosts: BTreeMap<String, ModelsOfHostText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelsOfHostText {
    models: toml::Table,
}

impl PriceCatalogue {
    /// The built-in catalogue.
    pub fn built_in() -> Self {
        Self::parse(Cow::Borrowed(BUILT_IN), None).expect("a test reads all of it")
    }

    /// The operator's catalogue with this `text`, in `file`.
    ///
    /// # Errors
    /// If it has not the form of a catalogue. Its models are read when they are asked for; see [`check`](Self::check).
    pub fn of_file(text: String, file: &Path) -> Result<Self, CatalogueError> {
        Self::parse(Cow::Owned(text), Some(file.to_owned()))
    }

    /// The operator's catalogue in `file`, if there is such a file, over the built-in one.
    ///
    /// # Errors
    /// If it cannot be read, or has not the form of a catalogue.
    pub fn open(file: &Path, environment: &dyn Environment) -> Result<Self, CatalogueError> {
        match environment.read(file) {
            Ok(text) => Ok(Self::of_file(text, file)?.over(Self::built_in())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::built_in()),
            Err(error) => Err(CatalogueError::at("the file", error)),
        }
    }

    /// Where the operator's catalogue for the configuration at `configuration` is.
    pub fn path_beside(configuration: &Path) -> PathBuf {
        configuration.with_file_name(FILE_NAME)
    }

    fn parse(text: Cow<'static, str>, file: Option<PathBuf>) -> Result<Self, CatalogueError> {
        let mut tables = tables(&text).peekable();
        let head = tables.next().unwrap_or_default();
        let head: HeadText = toml::from_str(&text[head]).map_err(|error| CatalogueError::at("head", error))?;
        let unix_ms = begins_unix_ms(&head.as_of)
            .ok_or_else(|| CatalogueError::at("as_of", "is not a date such as \"2026-11-30\""))?;
        let as_of = CatalogueDay { text: head.as_of.into(), unix_ms };
        let mut hosts: Vec<CatalogueHost> = Vec::new();
        while let Some(own) = tables.next() {
            let header = text[own.clone()].lines().next().unwrap_or_default();
            let read: HostsText = toml::from_str(&text[own]).map_err(|error| CatalogueError::at(header, error))?;
            let read = read.hosts.into_iter().next();
            let (name, host) = read.ok_or_else(|| CatalogueError::at(header, "is no table of a host"))?;
            if hosts.iter().any(|known| known.name == name) {
                return Err(CatalogueError::at(header, "is there twice"));
            }
            let below = format!("{HOST_HEADER}{name}.");
            let mut models = 0..0;
            while let Some(table) = tables.next_if(|table| text[table.clone()].starts_with(&below)) {
                models = if models.is_empty() { table } else { models.start..table.end };
            }
            hosts.push(CatalogueHost::of(name, host, as_of.clone(), slice(&text, models)));
        }
        Ok(Self { file, as_of, source: head.source, hosts, beneath: None })
    }

    /// This catalogue, with `beneath` for all that it does not know.
    #[must_use]
    pub fn over(self, beneath: Self) -> Self {
        Self { beneath: Some(Box::new(beneath)), ..self }
    }

    /// This catalogue, then the one that counts where it knows nothing.
    pub fn layers(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |catalogue| catalogue.beneath.as_deref())
    }

    /// Reads every entry.
    ///
    /// # Errors
    /// The first entry that cannot be read.
    pub fn check(&self) -> Result<(), CatalogueError> {
        for host in &self.hosts {
            for name in host.model_names()? {
                host.entry(name)?;
            }
            if let Some(unknown) = host.also.iter().find(|name| self.named(name).next().is_none()) {
                return Err(CatalogueError::at(format!("hosts.{}.also", host.name), format!("no host {unknown}")));
            }
        }
        Ok(())
    }

    /// The operator's file; `None`: it is built in.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The day on which its prices were known to be right.
    pub fn as_of(&self) -> &CatalogueDay {
        &self.as_of
    }

    /// What it was made from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its own hosts.
    pub fn hosts(&self) -> &[CatalogueHost] {
        &self.hosts
    }

    /// The hosts called `name`, of each layer one at most.
    fn named(&self, name: &str) -> impl Iterator<Item = &CatalogueHost> {
        self.layers().filter_map(move |layer| layer.hosts.iter().find(|host| host.name == name))
    }

    /// The hosts that a provider's base URL leads to, of each layer one at most.
    pub fn hosts_at(&self, base_url: &str) -> Vec<&CatalogueHost> {
        let address = base_url.split_once("://").map_or(base_url, |(_, address)| address).to_lowercase();
        let is_there = |host: &&CatalogueHost| host.addresses.iter().any(|pattern| fits(pattern, &address));
        self.layers().filter_map(|layer| layer.hosts.iter().find(is_there)).collect()
    }

    /// The quirks of the host that `base_url` leads to, as far as they are known.
    pub fn quirks_at(&self, base_url: &str) -> HostQuirks {
        self.hosts_at(base_url).into_iter().fold(HostQuirks::default(), |known, host| known.or(&host.quirks))
    }

    /// What is known of `model` where `base_url` leads; `None` where its host is not known. An entry with exactly this
    /// name counts before one whose pattern fits it, both first with the name as it is and then with a date as the host
    /// writes it; at last those of the hosts whose models the host serves too.
    ///
    /// # Errors
    /// If the models of a host cannot be read.
    pub fn find(&self, base_url: &str, model: &str) -> Result<Option<CatalogueMatch>, CatalogueError> {
        let reached = self.hosts_at(base_url);
        for host in &reached {
            match self.find_at(host, model)? {
                CatalogueMatch::Unknown => {}
                found => return Ok(Some(found)),
            }
        }
        Ok((!reached.is_empty()).then_some(CatalogueMatch::Unknown))
    }

    /// The same at `host`.
    ///
    /// # Errors
    /// If the models of a host cannot be read.
    pub fn find_at(&self, host: &CatalogueHost, model: &str) -> Result<CatalogueMatch, CatalogueError> {
        for host in [host].into_iter().chain(host.also.iter().flat_map(|name| self.named(name))) {
            match host.find(model)? {
                CatalogueMatch::Unknown => {}
                found => return Ok(found),
            }
        }
        Ok(CatalogueMatch::Unknown)
    }
}

impl HostQuirks {
    /// These, and of `other` what these do not say.
    fn or(self, other: &Self) -> Self {
        Self {
            output_ceiling: self.output_ceiling.or(other.output_ceiling),
            stream_options: self.stream_options.or(other.stream_options),
            headers: if self.headers.is_empty() { other.headers.clone() } else { self.headers },
            passes_on: self.passes_on.or(other.passes_on),
        }
    }
}

impl CatalogueHost {
    fn of(name: String, text: HostText, as_of: CatalogueDay, models: Cow<'static, str>) -> Self {
        let HostText { address, also, output_ceiling, stream_options, headers, passes_on } = text;
        let addresses = address.iter().map(|pattern| pattern.to_lowercase()).collect();
        let quirks = HostQuirks { output_ceiling, stream_options, headers, passes_on };
        Self { name, quirks, as_of, addresses, also, text: models, models: OnceLock::new() }
    }

    /// Patterns of the addresses at which it is reached.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The names of its models' entries.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn model_names(&self) -> Result<impl Iterator<Item = &str>, CatalogueError> {
        Ok(self.models()?.iter().map(|(name, _)| name.as_str()))
    }

    /// The entry called `name`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn entry(&self, name: &str) -> Result<Option<CatalogueEntry>, CatalogueError> {
        let found = self.models()?.iter().find(|(known, _)| known == name);
        found.map(|(name, text)| self.read(name, text)).transpose()
    }

    fn read(&self, name: &str, text: &EntryText) -> Result<CatalogueEntry, CatalogueError> {
        text.read(&self.name, name, &self.as_of)
            .map_err(|fault| CatalogueError::at(format!("{}: {name}", self.name), fault))
    }

    fn find(&self, model: &str) -> Result<CatalogueMatch, CatalogueError> {
        let name = model.to_lowercase();
        let spellings = [Some(name.clone()), with_dashed_date(&name)];
        for spelling in spellings.iter().flatten() {
            let fitting = |exact: bool| -> Result<Vec<_>, CatalogueError> {
                Ok(self.models()?.iter().filter(|(own, text)| text.fits(own, spelling, exact)).collect())
            };
            let mut found = fitting(true)?;
            if found.is_empty() {
                found = fitting(false)?;
            }
            match found.as_slice() {
                [] => {}
                [(own, text)] => return Ok(CatalogueMatch::Found(Box::new(self.read(own, text)?))),
                several => return Ok(CatalogueMatch::Ambiguous(several.iter().map(|(own, _)| own.clone()).collect())),
            }
        }
        Ok(CatalogueMatch::Unknown)
    }

    fn models(&self) -> Result<&[(String, EntryText)], CatalogueError> {
        let read = || {
            let place = format!("hosts.{}.models", self.name);
            if self.text.is_empty() {
                return Ok(Vec::new());
            }
            let text: ModelsText = toml::from_str(&self.text).map_err(|error| CatalogueError::at(&place, error))?;
            let tables = text.hosts.into_values().flat_map(|host| host.models);
            let entry = |(name, value): (String, toml::Value)| match value.try_into() {
                Ok(entry) => Ok((name, entry)),
                Err(error) => Err(CatalogueError::at(format!("{place}.{name}"), error)),
            };
            tables.map(entry).collect()
        };
        self.models.get_or_init(read).as_deref().map_err(CatalogueError::clone)
    }
}

/// The head of the text, then each table of a host or its models.
fn tables(text: &str) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
    let mut starts = vec![0];
    if !text.starts_with(HOST_HEADER) {
        starts.extend(text.match_indices("\n[hosts.").map(|(at, _)| at + 1));
    }
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([text.len()]).collect();
    starts.into_iter().zip(ends).map(|(start, end)| start..end)
}

#[expect(clippy::ptr_arg, reason = "what is borrowed stays borrowed, and for ever")]
fn slice(text: &Cow<'static, str>, range: std::ops::Range<usize>) -> Cow<'static, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[range]),
        Cow::Owned(text) => Cow::Owned(text[range].to_owned()),
    }
}

/// `name-20260131` as `name-2026-01-31`: gateways write dates so, and some hosts do not. `None` without such an end.
fn with_dashed_date(name: &str) -> Option<String> {
    let start = name.len().checked_sub("-20260131".len()).filter(|at| name.is_char_boundary(*at))?;
    let digits = name[start..].strip_prefix("-20").filter(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some(format!("{}-20{}-{}-{}", &name[..start], &digits[..2], &digits[2..4], &digits[4..]))
}

#[cfg(test)]
mod tests;
