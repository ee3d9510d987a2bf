//! `price`: one, or several with the day each begins.
//!
//! The first holds from the beginning and has no date, so that at every instant some price is known.
//! What stands out of order is complained about here, beside the date itself.

use super::super::raw::Price;
use super::super::reader::{Diagnostics, Table, ValueError, ValueRef};
use crate::domain::money::NanoUsd;

/// Only tokens cost something, as a rule.
const REQUEST: NanoUsd = NanoUsd::ZERO;

/// The prices of the model or deployment in `table`.
pub(super) fn prices(table: &mut Table<'_>) -> Option<Vec<Price>> {
    let cells = table.one_or_more("price")?;
    if cells.is_empty() {
        let hint = "write `price = { input = \"0.07\", output = \"0.25\" }`, or remove the setting";
        table.report("price", ValueError::hinting("a list without a price", hint));
    }
    let read = |(at, value_ref): (usize, &ValueRef<'_>)| value_ref.table(|table| price(table, at == 0));
    let prices: Vec<Price> = cells.iter().enumerate().filter_map(read).collect();
    check_order(table.diagnostics(), &prices);
    check_versions(table.diagnostics(), &prices);
    Some(prices)
}

fn price(table: &mut Table<'_>, is_first: bool) -> Price {
    let price = Price {
        from: table.optional("from"),
        version: table.optional("version"),
        input: table.required("input"),
        cached_input: table.optional("cached_input"),
        output: table.required("output"),
        request: table.or("request", REQUEST),
    };
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

fn check_order(diagnostics: &Diagnostics<'_>, prices: &[Price]) {
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

/// One name for two prices would tell nobody which of them a receipt was charged at.
fn check_versions(diagnostics: &Diagnostics<'_>, prices: &[Price]) {
    for (at, price) in prices.iter().enumerate() {
        let Some(version) = &price.version else { continue };
        let earlier = prices[..at].iter().filter_map(|price| price.version.as_ref());
        if earlier.clone().any(|earlier| earlier.value.0 == version.value.0) {
            let hint = "give each its own; without `version` a price is named by what it costs";
            diagnostics.report_at(version, "the name of a price above".to_owned(), hint.to_owned());
        }
    }
}
