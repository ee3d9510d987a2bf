//! `tierway cost`: what tokens cost, and what they would cost with another split or price.
//!
//! Given a volume, it multiplies; from the ledger, it shows what was paid beside what the same traffic would have
//! cost with another split or price. All amounts are integers.
//!
//! Start reading at [`cost`].

use super::print;
use super::store::{CommandError, StoreArgs};
use super::table::{NONE, decimal, dollars, dollars_to, short, table};
use super::time_range::TimeRangeArgs;
use super::usage::total;
use crate::clock::Clock;
use crate::domain::money::PicoUsdPerToken;
use crate::domain::pricing::Price;
use crate::domain::report::{Dimension, UsageQuery, UsageSum};
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Alignment;
use std::process::ExitCode;

/// Arguments of `cost`.
#[derive(Args, Debug)]
pub(super) struct CostArgs {
    /// A volume instead of the ledger, such as 5M,50M,500M,5B
    #[arg(long, value_name = "COUNT", value_delimiter = ',', value_parser = volume, requires = "price")]
    tokens: Vec<TokenVolume>,
    /// What a million of these tokens costs, in USD
    #[arg(long, value_name = "USD", value_parser = price_per_mtok, requires = "tokens")]
    price: Option<PicoUsdPerToken>,
    /// What to compare with: a price in USD per million tokens, or a model of the configuration
    #[arg(long, value_name = "MODEL|USD")]
    against: Option<String>,
    /// Shares of the tiers to compare with, such as default=80,fallback=15,premium=5
    #[arg(long, value_name = "TIER=SHARE", value_delimiter = ',', value_parser = share, conflicts_with = "tokens")]
    split: Vec<TierShare>,
    #[command(flatten)]
    time_range: TimeRangeArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A number of tokens, and how it was written.
#[derive(Clone, Debug)]
struct TokenVolume {
    written: String,
    tokens: u64,
}

fn volume(text: &str) -> Result<TokenVolume, &'static str> {
    const WRONG: &str = "write a whole number of tokens, such as 500K, 5M or 5B";
    let factor = match text.chars().last() {
        Some('K' | 'k') => 1_000,
        Some('M') => 1_000_000,
        Some('B' | 'G') => 1_000_000_000,
        _ => 1,
    };
    let number = if factor == 1 { text } else { &text[..text.len() - 1] };
    let tokens = number.parse::<u64>().ok().filter(|_| number.bytes().all(|byte| byte.is_ascii_digit()));
    let tokens = tokens.and_then(|number| number.checked_mul(factor)).ok_or(WRONG)?;
    Ok(TokenVolume { written: text.to_owned(), tokens })
}

fn price_per_mtok(text: &str) -> Result<PicoUsdPerToken, &'static str> {
    PicoUsdPerToken::parse_usd_per_mtok(text).ok_or("write USD per million tokens, such as 0.25")
}

/// A tier and its share of the traffic.
#[derive(Clone, Debug)]
struct TierShare {
    tier: String,
    weight: u32,
}

fn share(text: &str) -> Result<TierShare, &'static str> {
    let parts = text.split_once('=').and_then(|(tier, weight)| Some((tier, weight.parse().ok()?)));
    let (tier, weight) = parts.ok_or("write TIER=SHARE, such as default=80")?;
    Ok(TierShare { tier: tier.to_owned(), weight })
}

/// Prints the comparison.
///
/// # Errors
/// Only if it cannot be written.
pub(super) fn cost(args: &CostArgs) -> anyhow::Result<ExitCode> {
    let rows = match args.price {
        Some(price) => of_volume(args, price),
        None => of_ledger(args),
    };
    match rows {
        Ok(rows) => {
            print(&rows)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => error.print(),
    }
}

/// The cost in nano-dollars, rounded up.
fn charge(tokens: u128, price: PicoUsdPerToken) -> i128 {
    let pico = tokens.saturating_mul(price.0.into());
    i128::try_from(pico.div_ceil(1_000)).unwrap_or(i128::MAX)
}

fn of_volume(args: &CostArgs, price: PicoUsdPerToken) -> Result<String, CommandError> {
    let against = args.against.as_deref().map(|text| {
        let wrong = "a volume is compared with a price: write --against in USD per million tokens, such as 10.00";
        PicoUsdPerToken::parse_usd_per_mtok(text).ok_or_else(|| CommandError::usage(wrong))
    });
    let against = against.transpose()?;
    let costs = |volume: &TokenVolume| {
        let tokens = u128::from(volume.tokens);
        (charge(tokens, price), against.map(|against| charge(tokens, against)))
    };
    if args.json {
        let row = |volume: &TokenVolume| {
            let (cost, other) = costs(volume);
            json!({ "tokens": volume.tokens, "cost_usd": decimal(cost), "against_usd": other.map(decimal) })
        };
        return Ok(format!("{:#}\n", json!({ "rows": args.tokens.iter().map(row).collect::<Vec<_>>() })));
    }
    let at = |price: PicoUsdPerToken| format!("at {}", dollars(charge(1_000_000, price)));
    let names = [Some(at(price)), against.map(at), against.map(|_| "saved".to_owned())];
    let mut head = vec![("tokens", Alignment::Right)];
    head.extend(names.iter().flatten().map(|name| (name.as_str(), Alignment::Right)));
    let rows = args.tokens.iter().map(|volume| {
        let (cost, other) = costs(volume);
        let mut row = vec![volume.written.clone(), dollars(cost)];
        row.extend(other.into_iter().flat_map(|other| [dollars(other), saved(cost, other)]));
        row
    });
    Ok(table(&head, &rows.collect::<Vec<_>>()))
}

/// How much `cost` is below `other`, in tenths of a percent; negative if it is above.
fn saved(cost: i128, other: i128) -> String {
    let less = other.saturating_sub(cost);
    let Some(mille) = less.checked_mul(1_000).and_then(|less| less.checked_div(other)) else { return NONE.to_owned() };
    let sign = if mille < 0 { "-" } else { "" };
    format!("{sign}{}.{} %", mille.unsigned_abs() / 10, mille.unsigned_abs() % 10)
}

/// The cost of one tier, and what it would have been.
struct CostLine {
    sum: UsageSum,
    split: Option<i128>,
    against: Option<i128>,
}

fn of_ledger(args: &CostArgs) -> Result<String, CommandError> {
    let against = args.against.as_deref().map(|text| other_price(args, text)).transpose()?;
    let now = Clock.unix_ms();
    let query = UsageQuery {
        by: vec![Dimension::Tier],
        since_unix_ms: args.time_range.since(now),
        until_unix_ms: args.time_range.until(now),
        only: Vec::new(),
    };
    let sums = args.store.book()?.usage(&query).map_err(CommandError::store)?;
    // Requests that reached no model cost nothing at any price.
    let sums: Vec<UsageSum> = sums.into_iter().filter(|sum| sum.metered > 0 || sum.cost_nanousd != 0).collect();
    if sums.is_empty() {
        return Ok(if args.json { "{\"rows\":[]}\n" } else { "nothing was spent\n" }.to_owned());
    }
    let split = if args.split.is_empty() { None } else { Some(divided(&sums, &args.split)?) };
    let lines: Vec<CostLine> = sums
        .into_iter()
        .enumerate()
        .map(|(at, sum)| CostLine {
            split: split.as_ref().and_then(|costs| costs.get(at).copied()),
            against: against.map(|price| charged(&sum, price)),
            sum,
        })
        .collect();
    Ok(if args.json { format!("{:#}\n", as_json(&lines)) } else { text(args, &lines) })
}

/// A price per million tokens of any kind, or the price of a model.
fn other_price(args: &CostArgs, text: &str) -> Result<Price, CommandError> {
    if let Some(each) = PicoUsdPerToken::parse_usd_per_mtok(text) {
        return Ok(Price { input: each, cached_input: each, output: each, ..Price::default() });
    }
    let snapshot = args.store.snapshot()?;
    let model = snapshot.table.models.iter().find(|model| *model.name == *text);
    let model = model
        .ok_or_else(|| CommandError::usage(format!("--against {text}: neither a price nor a configured model")))?;
    let prices = model.price.as_ref();
    let version = prices.map(|prices| prices.at(Clock.unix_ms()).price);
    version.ok_or_else(|| CommandError::usage(format!("--against {text}: the configuration has no price for it")))
}

/// The cost of the tokens of `sum` at `price`.
fn charged(sum: &UsageSum, price: Price) -> i128 {
    let cached = sum.cached_input.min(sum.input);
    let kinds = [(sum.input - cached, price.input), (cached, price.cached_input), (sum.output, price.output)];
    let pico =
        kinds.iter().fold(0_u128, |pico, (tokens, price)| pico.saturating_add(tokens.saturating_mul(price.0.into())));
    let requests = i128::from(sum.metered) * i128::from(price.request.0);
    i128::try_from(pico.div_ceil(1_000)).unwrap_or(i128::MAX).saturating_add(requests)
}

/// What each of `sums` would have cost if the tiers had shared all tokens by `shares`; rounded up. Traffic outside
/// every tier stays as it was.
fn divided(sums: &[UsageSum], shares: &[TierShare]) -> Result<Vec<i128>, CommandError> {
    let tokens = |sum: &UsageSum| sum.input.saturating_add(sum.output);
    let in_tiers = || sums.iter().filter_map(|sum| sum.by[0].as_deref().map(|tier| (tier, sum)));
    let all: u128 = in_tiers().map(|(_, sum)| tokens(sum)).sum();
    let parts: u128 = shares.iter().map(|share| u128::from(share.weight)).sum();
    for share in shares.iter().filter(|share| share.weight > 0) {
        if !in_tiers().any(|(tier, sum)| tier == share.tier && tokens(sum) > 0) {
            let known = in_tiers().map(|(tier, _)| tier).collect::<Vec<_>>().join(", ");
            let why =
                format!("tier `{}` served nothing in this time, so what a token of it costs is unknown", share.tier);
            return Err(CommandError::usage(format!("--split: {why}; there is traffic of: {known}")));
        }
    }
    if parts == 0 {
        return Err(CommandError::usage("--split: the shares are all zero"));
    }
    let divide = |sum: &UsageSum| {
        let Some(tier) = sum.by[0].as_deref() else { return Some(sum.cost_nanousd) };
        let weight: u128 = shares.iter().filter(|share| share.tier == tier).map(|share| u128::from(share.weight)).sum();
        if weight == 0 {
            return Some(0);
        }
        let cost = u128::try_from(sum.cost_nanousd).ok()?;
        let moved = all.checked_mul(weight)?.checked_mul(cost)?;
        i128::try_from(moved.div_ceil(parts.checked_mul(tokens(sum))?)).ok()
    };
    sums.iter()
        .map(|sum| divide(sum).ok_or_else(|| CommandError::usage("--split: the amounts are too large")))
        .collect()
}

fn sum_of(costs: impl Iterator<Item = Option<i128>>) -> Option<i128> {
    costs.sum::<Option<i128>>()
}

fn text(args: &CostArgs, lines: &[CostLine]) -> String {
    let sums: Vec<UsageSum> = lines.iter().map(|line| line.sum.clone()).collect();
    let whole = CostLine {
        sum: total(&sums),
        split: sum_of(lines.iter().map(|line| line.split)),
        against: sum_of(lines.iter().map(|line| line.against)),
    };
    let most = [Some(whole.sum.cost_nanousd), whole.split, whole.against].into_iter().flatten().max().unwrap_or(0);
    let places = if most >= 100_000_000_000 { 2 } else { 6 };
    let at = args.against.as_ref().map(|other| format!("at {other}"));
    let mut head = vec![("tier", Alignment::Left)];
    head.extend(["requests", "input", "output", "cost"].map(|name| (name, Alignment::Right)));
    head.extend(whole.split.map(|_| ("with the split", Alignment::Right)));
    head.extend(at.as_deref().map(|name| (name, Alignment::Right)));
    head.extend(at.as_ref().map(|_| ("saved", Alignment::Right)));
    let row = |name: &str, line: &CostLine| {
        let (sum, cost) = (&line.sum, line.sum.cost_nanousd);
        let mut row = vec![name.to_owned(), short(sum.requests.into()), short(sum.input), short(sum.output)];
        row.push(dollars_to(cost, places));
        row.extend(line.split.map(|split| dollars_to(split, places)));
        row.extend(line.against.into_iter().flat_map(|other| [dollars_to(other, places), saved(cost, other)]));
        row
    };
    let mut rows: Vec<_> = lines.iter().map(|line| row(line.sum.by[0].as_deref().unwrap_or(NONE), line)).collect();
    rows.push(row("total", &whole));
    format!("{}{}", table(&head, &rows), assumed(args))
}

/// The assumptions of a comparison.
fn assumed(args: &CostArgs) -> String {
    let split = "with the split: all tokens, shared by it, each at what one cost in its tier on average\n";
    let against = "at another price: the same tokens, as many in and out\n";
    match (args.split.is_empty(), args.against.is_none()) {
        (true, true) => String::new(),
        (false, true) => format!("\n{split}"),
        (true, false) => format!("\n{against}"),
        (false, false) => format!("\n{split}{against}"),
    }
}

fn as_json(lines: &[CostLine]) -> Value {
    let row = |line: &CostLine| {
        json!({
            "tier": line.sum.by[0],
            "requests": line.sum.requests,
            "input_tokens": line.sum.input.to_string(),
            "output_tokens": line.sum.output.to_string(),
            "cost_usd": decimal(line.sum.cost_nanousd),
            "split_usd": line.split.map(decimal),
            "against_usd": line.against.map(decimal),
        })
    };
    let cost = lines.iter().map(|line| line.sum.cost_nanousd).sum();
    json!({
        "rows": lines.iter().map(row).collect::<Vec<_>>(),
        "cost_usd": decimal(cost),
        "split_usd": sum_of(lines.iter().map(|line| line.split)).map(decimal),
        "against_usd": sum_of(lines.iter().map(|line| line.against)).map(decimal),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(tier: Option<&str>, tokens: u128, cost_nanousd: i128) -> UsageSum {
        UsageSum { by: vec![tier.map(str::to_owned)], metered: 1, input: tokens, cost_nanousd, ..UsageSum::default() }
    }

    fn shares(text: &[&str]) -> Vec<TierShare> {
        text.iter().map(|text| share(text).expect("a share")).collect()
    }

    #[test]
    fn a_split_moves_tokens_and_keeps_what_each_costs() {
        let sums = [sum(Some("premium"), 100, 1_000), sum(Some("default"), 300, 300), sum(None, 7, 9)];
        let check = |split: &[&str], expected: &[i128]| {
            let costs = divided(&sums, &shares(split)).unwrap_or_else(|error| panic!("{error:?}"));
            assert_eq!(costs, expected, "{split:?}");
        };
        check(&["default=75", "premium=25"], &[1_000, 300, 9]);
        check(&["default=1", "premium=1"], &[2_000, 200, 9]);
        check(&["default=1"], &[0, 400, 9]);
        check(&["default=2", "premium=1"], &[1_334, 267, 9]);
        assert!(divided(&sums, &shares(&["fallback=1", "default=1"])).is_err());
        assert!(divided(&sums, &shares(&["default=0"])).is_err());
    }

    #[test]
    fn volumes_are_whole_and_never_overflow() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(volume(text).ok().map(|volume| volume.tokens), expected, "{text}");
        };
        check("5M", Some(5_000_000));
        check("5B", Some(5_000_000_000));
        check("12", Some(12));
        for wrong in ["", "M", "1.5M", "-1", "+1M", "5 M", "5é", "99999999999999999999B"] {
            check(wrong, None);
        }
        assert_eq!(charge(1, PicoUsdPerToken(1)), 1);
    }

    #[test]
    fn what_is_saved_is_reported_in_tenths_of_a_percent() {
        assert_eq!(saved(25, 1_000), "97.5 %");
        assert_eq!(saved(1_500, 1_000), "-50.0 %");
        assert_eq!(saved(1, 0), NONE);
    }
}
