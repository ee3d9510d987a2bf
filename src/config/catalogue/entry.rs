//! One entry of the price catalogue: a model's limits and prices, as written and as they are charged.
//!
//! An entry may know prices of things that Tierway does not count, such as searches. They are kept and shown, and
//! [`CatalogueEntry::uncharged`] names them: what is not charged must never be hidden.

use super::super::value::begins_unix_ms;
use super::CatalogueDay;
use super::pattern::{fits, is_exact};
use crate::domain::body_member::MemberPrice;
use crate::domain::money::{NanoUsd, PicoUsdPerToken};
use crate::domain::pricing::{Price, PriceVersion, Prices};
use crate::domain::routing::table::ImageTokens;
use crate::domain::usage::TokenClass;
use serde::Deserialize;

/// Amounts that are charged beside those of [`TokenClass`], in the order in which they are shown.
const CHARGED: [&str; 4] = ["input", "cached_input", "output", "request"];
/// Amounts that are known and not charged: the answers of chat completions do not say how many there were.
const UNCHARGED: [&str; 11] = [
    "cached_audio_input",
    "cached_image_input",
    "video_input",
    "video_output",
    "reasoning",
    "citation",
    "per_1000_searches",
    "per_1000_storage_searches",
    "per_1000_pages",
    "per_1000_annotated_pages",
    "per_1000_messages",
];
/// The same for endpoints that are not served.
const ELSEWHERE: [&str; 2] = ["per_audio_hour", "per_million_characters"];

#[derive(Clone, Copy, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct ImageTokensText {
    typical: u64,
    most: u64,
}

/// An entry as it is written.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryText {
    #[serde(default, rename = "match")]
    matches: Vec<String>,
    #[serde(default)]
    except: Vec<String>,
    context: Option<u64>,
    max_output: Option<u64>,
    image_tokens: Option<ImageTokensText>,
    #[serde(default)]
    price: Vec<toml::Table>,
    #[serde(default)]
    variants: Vec<toml::Table>,
}

/// What the catalogue knows of one model at one host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CatalogueEntry {
    /// The host's name.
    pub host: String,
    /// The entry's name.
    pub name: String,
    /// The day on which it was known to be right.
    pub as_of: CatalogueDay,
    /// The longest input and output together, in tokens.
    pub context: Option<u64>,
    /// The longest output, in tokens.
    pub max_output: Option<u64>,
    /// What an image takes.
    pub image_tokens: Option<ImageTokens>,
    /// What is charged; `None` where nothing that it has a price for is counted.
    pub prices: Option<Prices>,
    /// Every price that is written, in order.
    pub listed: Vec<ListedPrice>,
    /// Prices for requests of a kind.
    pub variants: Vec<PriceVariant>,
    /// Those of them that are charged: for requests with a certain member.
    pub member_prices: Vec<MemberPrice>,
}

/// Members of a body by which `when` tells requests apart.
const BODY_MEMBERS: [&str; 3] = ["service_tier", "speed", "search_type"];

/// One price as the catalogue writes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedPrice {
    /// The day from which it holds; `None` for the first.
    pub from: Option<String>,
    /// The input tokens above which it holds.
    pub above: Option<u64>,
    /// Whether the real price differs by the hour of the day, of which this is the highest.
    pub by_hour: bool,
    /// Names and US dollars: per million tokens, or per what the name says.
    pub amounts: Vec<(String, String)>,
}

/// A price for requests of a kind, such as those of a service tier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PriceVariant {
    /// Which requests: `service_tier=priority`.
    pub when: String,
    /// As in [`ListedPrice`].
    pub amounts: Vec<(String, String)>,
}

impl CatalogueEntry {
    /// What it has a price for and is not charged: names of amounts, and kinds of requests.
    pub fn uncharged(&self) -> Vec<&str> {
        let names = self.listed.iter().flat_map(|price| price.amounts.iter().map(|(name, _)| name.as_str()));
        let mut out: Vec<&str> = Vec::new();
        let is_charged_variant = |when: &str| {
            let is_it = |price: &MemberPrice| when.split_once('=') == Some((&*price.name, &*price.word));
            self.member_prices.iter().any(is_it)
        };
        let variants = self.variants.iter().map(|one| one.when.as_str()).filter(|when| !is_charged_variant(when));
        for name in names.filter(|name| !is_charged(name)).chain(variants) {
            if !out.contains(&name) {
                out.push(name);
            }
        }
        out
    }

    /// Whether its price differs by the hour, so that the highest is charged.
    pub fn differs_by_hour(&self) -> bool {
        self.listed.iter().any(|price| price.by_hour)
    }
}

fn is_charged(name: &str) -> bool {
    CHARGED.contains(&name) || TokenClass::named(name).is_some()
}

impl EntryText {
    /// Whether one of its names, or without `exact` one of its patterns, fits `name`, which is in lower case.
    pub(super) fn fits(&self, own: &str, name: &str, exact: bool) -> bool {
        let written = self.matches.iter().map(String::as_str);
        let own = self.matches.is_empty().then_some(own);
        let mut fitting = written.chain(own).filter(|pattern| is_exact(pattern) == exact);
        let excepted = || self.except.iter().any(|pattern| fits(&pattern.to_lowercase(), name));
        fitting.any(|pattern| fits(&pattern.to_lowercase(), name)) && !excepted()
    }

    /// A name that the entry has.
    #[cfg(test)]
    pub(super) fn sample(&self, own: &str) -> String {
        let pattern = self.matches.first().map_or(own, String::as_str);
        pattern.replace('#', "7").replace('*', "")
    }

    /// The entry, or what is wrong with it.
    pub(super) fn read(&self, host: &str, name: &str, as_of: &CatalogueDay) -> Result<CatalogueEntry, String> {
        let mut versions = Vec::new();
        let mut listed = Vec::new();
        let variants: Vec<PriceVariant> = self.variants.iter().map(variant).collect::<Result<_, _>>()?;
        for table in &self.price {
            let PriceText { first, above } = PriceText::of(table)?;
            versions.push((first.from.clone(), version(&first, &above)?));
            listed.push(first);
            listed.extend(above);
        }
        Ok(CatalogueEntry {
            host: host.to_owned(),
            name: name.to_owned(),
            as_of: as_of.clone(),
            context: self.context,
            max_output: self.max_output,
            image_tokens: self.image_tokens.map(|ImageTokensText { typical, most }| ImageTokens { typical, most }),
            prices: prices(versions)?.map(|prices| prices.of_catalogue(as_of.text.clone())),
            member_prices: member_prices(&listed, &variants),
            listed,
            variants,
        })
    }
}

/// A price with what holds above thresholds.
struct PriceText {
    first: ListedPrice,
    above: Vec<ListedPrice>,
}

impl PriceText {
    fn of(table: &toml::Table) -> Result<Self, String> {
        let mut first = ListedPrice { from: None, above: None, by_hour: false, amounts: Vec::new() };
        let mut above = Vec::new();
        for (name, value) in table {
            match (name.as_str(), value) {
                ("from", toml::Value::String(day)) => first.from = Some(day.clone()),
                ("by_hour", toml::Value::Boolean(by_hour)) => first.by_hour = *by_hour,
                ("above", toml::Value::Array(tiers)) => {
                    let tier = |value: &toml::Value| {
                        let table = value.as_table().ok_or("an element of `above` is no table")?;
                        let tokens = table.get("tokens").and_then(toml::Value::as_integer);
                        let tokens = tokens.and_then(|tokens| u64::try_from(tokens).ok());
                        let tokens = tokens.ok_or("an element of `above` has no `tokens`")?;
                        Ok::<_, String>((tokens, amounts(table.iter().filter(|(name, _)| *name != "tokens"))?))
                    };
                    above = tiers.iter().map(tier).collect::<Result<Vec<_>, _>>()?;
                }
                _ => {}
            }
        }
        first.amounts =
            amounts(table.iter().filter(|(name, _)| !["from", "by_hour", "above"].contains(&name.as_str())))?;
        let tier = |(tokens, own): (u64, Vec<(String, String)>)| {
            let mut all = first.amounts.clone();
            for (name, usd) in own {
                match all.iter_mut().find(|(known, _)| *known == name) {
                    Some(amount) => amount.1 = usd,
                    None => all.push((name, usd)),
                }
            }
            ListedPrice { above: Some(tokens), amounts: all, ..first.clone() }
        };
        Ok(Self { above: above.into_iter().map(tier).collect(), first })
    }
}

fn amounts<'t>(fields: impl Iterator<Item = (&'t String, &'t toml::Value)>) -> Result<Vec<(String, String)>, String> {
    let read = |(name, value): (&String, &toml::Value)| {
        let known = is_charged(name) || UNCHARGED.contains(&name.as_str()) || ELSEWHERE.contains(&name.as_str());
        match value {
            toml::Value::String(usd) if known && PicoUsdPerToken::parse_usd_per_mtok(usd).is_some() => {
                Ok((name.clone(), usd.clone()))
            }
            toml::Value::String(_) if known => Err(format!("{name} is no decimal amount of US dollars")),
            _ if known => Err(format!("{name} is no text: amounts are written as \"0.25\"")),
            _ => Err(format!("{name} is not known")),
        }
    };
    fields.map(read).collect()
}

fn variant(table: &toml::Table) -> Result<PriceVariant, String> {
    let when = table.get("when").and_then(toml::Value::as_str).ok_or("a variant has no `when`")?;
    let amounts = amounts(table.iter().filter(|(name, _)| *name != "when"))?;
    Ok(PriceVariant { when: when.to_owned(), amounts })
}

/// The prices of requests with a member, where one price holds at all times and for inputs of any length.
fn member_prices(listed: &[ListedPrice], variants: &[PriceVariant]) -> Vec<MemberPrice> {
    let [ListedPrice { by_hour: false, amounts, .. }] = listed else { return Vec::new() };
    let read = |variant: &PriceVariant| {
        let (name, word) = variant.when.split_once('=').filter(|(name, _)| BODY_MEMBERS.contains(name))?;
        let mut all = variant.amounts.clone();
        let is_own = |name: &str| variant.amounts.iter().any(|(own, _)| own == name);
        all.extend(amounts.iter().filter(|(name, _)| !is_own(name)).cloned());
        Some(MemberPrice { name: name.into(), word: word.into(), price: charged(&all)?.into() })
    };
    variants.iter().filter_map(read).collect()
}

/// The price that is charged, with its name; `None` if it says nothing of input tokens.
fn version(first: &ListedPrice, above: &[ListedPrice]) -> Result<Option<PriceVersion>, String> {
    let Some(price) = charged(&first.amounts) else { return Ok(None) };
    let above: Vec<(u64, Price)> = above.iter().filter_map(|one| Some((one.above?, charged(&one.amounts)?))).collect();
    let version = PriceVersion::with_above(price, above, None);
    version.map(Some).ok_or_else(|| "the thresholds of `above` do not ascend".to_owned())
}

fn charged(amounts: &[(String, String)]) -> Option<Price> {
    let usd = |wanted: &str| amounts.iter().find(|(name, _)| name == wanted).map(|(_, usd)| usd.as_str());
    let per_token = |name: &str| usd(name).and_then(PicoUsdPerToken::parse_usd_per_mtok);
    let input = per_token("input")?;
    let mut price = Price {
        input,
        cached_input: per_token("cached_input").unwrap_or(input),
        // Embeddings have no output.
        output: per_token("output").unwrap_or_default(),
        request: usd("request").and_then(NanoUsd::parse_usd).unwrap_or_default(),
        ..Price::default()
    };
    for class in TokenClass::ALL {
        price.apart.set(class, per_token(class.name()));
    }
    Some(price)
}

fn prices(versions: Vec<(Option<String>, Option<PriceVersion>)>) -> Result<Option<Prices>, String> {
    let mut versions = versions.into_iter();
    let Some((None, Some(first))) = versions.next() else { return Ok(None) };
    let mut later = Vec::new();
    for (from, version) in versions {
        let begins = from.as_deref().and_then(begins_unix_ms).ok_or("a second price has no day `from` on")?;
        let Some(version) = version else { return Ok(None) };
        later.push((begins, version));
    }
    Prices::new(first, later).map(Some).ok_or_else(|| "the days of the prices do not ascend".to_owned())
}
