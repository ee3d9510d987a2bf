//! `price`: one, or several with the day each begins.
//!
//! The first holds from the beginning and has no date, so that at every instant some price is known.
//! What is out of order is reported here, at the date itself.

use super::super::reader::{ConfigValueRef, Diagnostics, Setting, SettingKey, Table, ValueError, section};
use super::super::value::{Name, UtcDay};
use crate::domain::money::{NanoUsd, PicoUsdPerToken};
use crate::domain::usage::TokenClass;
use std::num::NonZeroU64;

section! {
    /// `price = { … }`, or each of `price = [{ … }, …]`
    pub(in crate::config) struct PriceSection {
        /// The day it begins, at midnight UTC: each has one but the first, which holds until the next begins.
        from: Option<Setting<UtcDay>> = optional(),
        /// What receipts call it. Absent: what it costs, such as "0.07/0.25" for input and output.
        version: Option<Setting<Name>> = optional(),
        /// For a million input tokens.
        input: Option<Setting<PicoUsdPerToken>> = required(),
        /// For a million cached input tokens. Absent: as input.
        cached_input: Option<Setting<PicoUsdPerToken>> = optional(),
        /// For a million output tokens.
        output: Option<Setting<PicoUsdPerToken>> = required(),
        apart: PricesApartSection,
        /// For each request.
        // Only tokens cost something, as a rule.
        request: Setting<NanoUsd> = or(NanoUsd::ZERO),
        /// What all tokens of a request cost once its input is longer than so many tokens; what is not said stays as
        /// below.
        above: Vec<PriceAboveSection> = read_by(above),
    }
}

section! {
    /// Each of `above = [{ … }, …]` in a price.
    pub(in crate::config) struct PriceAboveSection {
        /// The input tokens above which it holds.
        tokens: Option<Setting<NonZeroU64>> = required(),
        /// For a million input tokens.
        input: Option<Setting<PicoUsdPerToken>> = optional(),
        /// For a million cached input tokens.
        cached_input: Option<Setting<PicoUsdPerToken>> = optional(),
        /// For a million output tokens.
        output: Option<Setting<PicoUsdPerToken>> = optional(),
        apart: PricesApartSection,
    }
}

section! {
    /// Prices of token classes, in a price and above a threshold.
    pub(in crate::config) struct PricesApartSection {
        /// For a million input tokens that the provider wrote to its cache. Absent: as input.
        cache_write: Option<Setting<PicoUsdPerToken>> = optional(),
        /// The same where it keeps them for an hour. Absent: as cache_write.
        cache_write_1h: Option<Setting<PicoUsdPerToken>> = optional(),
        /// For a million input tokens of sound. Absent: as input.
        audio_input: Option<Setting<PicoUsdPerToken>> = optional(),
        /// For a million input tokens of pictures. Absent: as input.
        image_input: Option<Setting<PicoUsdPerToken>> = optional(),
        /// For a million output tokens of sound. Absent: as output.
        audio_output: Option<Setting<PicoUsdPerToken>> = optional(),
        /// For a million output tokens of pictures. Absent: as output.
        image_output: Option<Setting<PicoUsdPerToken>> = optional(),
    }
}

impl PricesApartSection {
    /// The price of `class`, if it has one of its own.
    pub(in crate::config) fn of(&self, class: TokenClass) -> Option<PicoUsdPerToken> {
        let written = match class {
            TokenClass::CacheWrite => &self.cache_write,
            TokenClass::CacheWrite1h => &self.cache_write_1h,
            TokenClass::AudioInput => &self.audio_input,
            TokenClass::ImageInput => &self.image_input,
            TokenClass::AudioOutput => &self.audio_output,
            TokenClass::ImageOutput => &self.image_output,
        };
        written.as_ref().map(|price| price.value)
    }
}

/// The prices of a model or a deployment, in the order of their dates; where one is wrong, less.
pub(super) fn prices(key: SettingKey, table: &mut Table<'_>) -> Option<Vec<PriceSection>> {
    let elements = table.one_or_more(key)?;
    if elements.is_empty() {
        let hint = "write `price = { input = \"0.07\", output = \"0.25\" }`, or remove the setting";
        table.report(key.name, ValueError::hinting("a list without a price", hint));
    }
    let read = |(at, element): (usize, &ConfigValueRef<'_>)| element.table(|table| price(table, at == 0));
    let prices: Vec<PriceSection> = elements.iter().enumerate().filter_map(read).collect();
    check_order(table.diagnostics(), &prices);
    check_versions(table.diagnostics(), &prices);
    Some(prices)
}

fn price(table: &mut Table<'_>, is_first: bool) -> PriceSection {
    let price = PriceSection::read(table);
    match (is_first, table.has("from")) {
        (true, true) => {
            let hint = "remove its `from`: it holds until the next begins; or write before it what holds until then";
            table.report("from", ValueError::hinting("what holds before the first price is not said", hint));
        }
        (false, false) => {
            let hint = "add the day it begins, such as `from = \"2027-01-01\"`";
            table.report("from", ValueError::hinting("a second price without `from`", hint));
        }
        _ => {}
    }
    price
}

/// The thresholds of a price, in ascending order.
fn above(key: SettingKey, table: &mut Table<'_>) -> Vec<PriceAboveSection> {
    let elements = table.elements(key).unwrap_or_default();
    let above: Vec<_> = elements.iter().filter_map(|element| element.table(PriceAboveSection::read)).collect();
    for pair in above.windows(2) {
        if let [Some(before), Some(tokens)] = [&pair[0].tokens, &pair[1].tokens]
            && tokens.value <= before.value
        {
            let message = format!("is not more than {}, the threshold above", before.value);
            table.diagnostics().report_at(tokens, message, "write thresholds in ascending order".to_owned());
        }
    }
    above
}

fn check_order(diagnostics: &Diagnostics<'_>, prices: &[PriceSection]) {
    for pair in prices.windows(2) {
        let [Some(before), Some(from)] = [&pair[0].from, &pair[1].from] else { continue };
        let day = before.value.date();
        if from.value == before.value {
            let message = format!("a second price from {day} on");
            diagnostics.report_at(from, message, "keep one of the two, or give each its day".to_owned());
        } else if from.value < before.value {
            let message = format!("is before {day}, the day of the price above");
            diagnostics.report_at(from, message, "write prices in the order in which they begin".to_owned());
        }
    }
}

/// With one name for two prices, a receipt would not show which of them it was charged at.
fn check_versions(diagnostics: &Diagnostics<'_>, prices: &[PriceSection]) {
    for (at, price) in prices.iter().enumerate() {
        let Some(version) = &price.version else { continue };
        let earlier = prices[..at].iter().filter_map(|price| price.version.as_ref());
        if earlier.clone().any(|earlier| earlier.value.0 == version.value.0) {
            let hint = "give each its own; without `version` a price is named by what it costs";
            diagnostics.report_at(version, "the name of a price above".to_owned(), hint.to_owned());
        }
    }
}
