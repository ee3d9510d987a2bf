//! `tierway usage`: requests, tokens and cost by key, model and more, from the ledger.
//!
//! It only reads, beside a running gateway. Tables are rounded; CSV and JSON are exact.
//!
//! Start reading at [`usage`].

use super::print;
use super::store::{CommandError, StoreArgs};
use super::table::{NONE, decimal, dollars_to, percent, quoted, short, table};
use super::time_range::TimeRangeArgs;
use crate::clock::Clock;
use crate::domain::report::{Condition, Dimension, UsageQuery, UsageSum};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::{Map, Value, json};
use std::fmt::Alignment;
use std::process::ExitCode;

/// From this total on, tables show cents and nothing smaller.
const CENTS_FROM_NANOUSD: i128 = 100_000_000_000;
/// The columns after the dimensions, in CSV and JSON.
const COLUMNS: [&str; 9] = [
    "requests",
    "failed",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "metered",
    "estimated",
    "cost_usd",
];

/// Arguments of `usage`.
#[derive(Args, Debug)]
pub(super) struct UsageArgs {
    /// What to sum by; several are separated by commas
    #[arg(long, value_name = "WHAT", value_delimiter = ',', default_value = "key", value_parser = dimension_parser())]
    by: Vec<Dimension>,
    #[command(flatten)]
    time_range: TimeRangeArgs,
    /// Only these, such as key=growth-app; `-` is none. May be repeated, and then all must hold
    #[arg(long = "where", value_name = "WHAT=VALUE", value_parser = condition)]
    only: Vec<Condition>,
    #[command(flatten)]
    store: StoreArgs,
    /// Print CSV
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn dimension_parser() -> impl TypedValueParser<Value = Dimension> {
    PossibleValuesParser::new(Dimension::ALL.map(Dimension::name))
        .try_map(|name| Dimension::of_name(&name).ok_or("no such"))
}

/// Reads a condition such as `key=growth-app`.
pub(super) fn condition(text: &str) -> Result<Condition, String> {
    let names = || Dimension::ALL.map(Dimension::name).join(", ");
    let (name, value) = text.split_once('=').ok_or("write WHAT=VALUE, such as key=growth-app")?;
    let dimension = Dimension::of_name(name).ok_or_else(|| format!("there is no `{name}`; there are {}", names()))?;
    Ok(Condition { dimension, value: (value != NONE).then(|| value.to_owned()) })
}

/// Prints the sums.
///
/// # Errors
/// Only if they cannot be written.
pub(super) fn usage(args: &UsageArgs) -> anyhow::Result<ExitCode> {
    let sums = match sums(args) {
        Ok(sums) => sums,
        Err(error) => return error.print(),
    };
    let total = total(&sums);
    print(&match (args.csv, args.json) {
        (true, _) => csv(&args.by, &sums),
        (_, true) => format!("{:#}\n", as_json(&args.by, &sums, &total)),
        _ => text(&args.by, &sums, &total),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn sums(args: &UsageArgs) -> Result<Vec<UsageSum>, CommandError> {
    let now = Clock.unix_ms();
    let query = UsageQuery {
        by: args.by.clone(),
        since_unix_ms: args.time_range.since(now),
        until_unix_ms: args.time_range.until(now),
        only: args.only.clone(),
    };
    args.store.book()?.usage(&query).map_err(CommandError::store)
}

/// The total of `sums`.
pub(super) fn total(sums: &[UsageSum]) -> UsageSum {
    let mut total = UsageSum::default();
    sums.iter().for_each(|sum| total.add(sum));
    total
}

fn text(by: &[Dimension], sums: &[UsageSum], total: &UsageSum) -> String {
    if sums.is_empty() {
        return "no requests\n".to_owned();
    }
    let mut head: Vec<(&str, Alignment)> = by.iter().map(|dimension| (dimension.name(), Alignment::Left)).collect();
    let numbers = ["requests", "failed", "input", "cached", "output", "reasoning", "estimated", "cost"];
    head.extend(numbers.map(|name| (name, Alignment::Right)));
    let places = if total.cost_nanousd >= CENTS_FROM_NANOUSD { 2 } else { 6 };
    let row = |names: Vec<String>, sum: &UsageSum| {
        let mut row = names;
        row.extend([u128::from(sum.requests), u128::from(sum.failed)].map(short));
        row.extend([sum.input, sum.cached_input, sum.output, sum.reasoning].map(short));
        row.push(percent(sum.estimated.into(), sum.metered.into()));
        row.push(dollars_to(sum.cost_nanousd, places));
        row
    };
    let named = |sum: &UsageSum| sum.by.iter().map(|name| name.as_deref().unwrap_or(NONE).to_owned()).collect();
    let mut rows: Vec<_> = sums.iter().map(|sum| row(named(sum), sum)).collect();
    let mut names = vec![String::new(); by.len()];
    if let Some(first) = names.first_mut() {
        "total".clone_into(first);
    }
    rows.push(row(names, total));
    table(&head, &rows)
}

fn csv(by: &[Dimension], sums: &[UsageSum]) -> String {
    let names = by.iter().map(|dimension| dimension.name()).chain(COLUMNS);
    let mut out = format!("{}\n", names.collect::<Vec<_>>().join(","));
    for sum in sums {
        let names = sum.by.iter().map(|name| quoted(name.as_deref().unwrap_or_default()));
        out.push_str(&names.chain(exact(sum)).collect::<Vec<_>>().join(","));
        out.push('\n');
    }
    out
}

/// In the order of [`COLUMNS`].
fn exact(sum: &UsageSum) -> [String; 9] {
    [
        sum.requests.to_string(),
        sum.failed.to_string(),
        sum.input.to_string(),
        sum.cached_input.to_string(),
        sum.output.to_string(),
        sum.reasoning.to_string(),
        sum.metered.to_string(),
        sum.estimated.to_string(),
        decimal(sum.cost_nanousd),
    ]
}

fn as_json(by: &[Dimension], sums: &[UsageSum], total: &UsageSum) -> Value {
    let row = |sum: &UsageSum| {
        let mut row: Map<String, Value> =
            by.iter().zip(&sum.by).map(|(dimension, name)| (dimension.name().to_owned(), json!(name))).collect();
        for (column, value) in COLUMNS.into_iter().zip(exact(sum)) {
            // Counts are numbers if every reader keeps them exact; money is always a string.
            let count = value.parse::<u64>().ok().filter(|_| column != "cost_usd");
            row.insert(column.to_owned(), count.map_or(Value::String(value), Value::from));
        }
        Value::Object(row)
    };
    json!({ "rows": sums.iter().map(row).collect::<Vec<_>>(), "total": row(total) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_names_what_can_be_summed_by() {
        let condition = |text| condition(text).map(|condition| (condition.dimension, condition.value));
        assert_eq!(condition("key=a=b"), Ok((Dimension::Key, Some("a=b".to_owned()))));
        assert_eq!(condition("team=-"), Ok((Dimension::Team, None)));
        assert!(condition("key").is_err());
        assert!(condition("id=1").is_err());
    }

    #[test]
    fn the_widest_usual_row_fits_a_hundred_columns() {
        let most = |cost_nanousd| UsageSum {
            by: vec![Some("a-key-of-some-length".to_owned())],
            requests: 999_999_999,
            failed: 99_999_999,
            metered: 3,
            estimated: 1,
            input: 999_999_999_999,
            cached_input: 999_999_999_999,
            output: 999_999_999_999,
            reasoning: 999_999_999_999,
            cost_nanousd,
        };
        for cost in [9_999_999_990_000_000, 99_999_999_999] {
            let sums = [most(cost)];
            for line in text(&[Dimension::Key], &sums, &total(&sums)).lines() {
                assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
            }
        }
    }
}
