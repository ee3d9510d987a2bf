//! Prices: the cost of usage, and which price applies at which time.
//!
//! It exists so that there is exactly one rounding per request, upwards. Everything is summed in pico-dollars
//! (128 bits) and rounded once to [`NanoUsd`]. It must never use a float or read the clock: the caller passes in the
//! time of the prices, once for a whole request.
//!
//! Start reading in [`Price::cost`], then [`Prices::at`].

use super::money::{NanoUsd, PicoUsdPerToken};
use super::usage::Usage;
use std::sync::Arc;

/// The price of a model or deployment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Price {
    /// Per input token.
    pub input: PicoUsdPerToken,
    /// Per cached input token; equal to `input` if the provider gives no discount.
    pub cached_input: PicoUsdPerToken,
    /// Per output token.
    pub output: PicoUsdPerToken,
    /// Per request, independent of its size.
    pub request: NanoUsd,
}

impl Price {
    /// The cost of `usage`, rounded up to the nano-dollar and saturating at `i64::MAX` nano-dollars.
    pub fn cost(&self, usage: Usage) -> NanoUsd {
        let cached = usage.cached_input.min(usage.input);
        let fresh = usage.input - cached;
        let tokens = [(fresh, self.input), (cached, self.cached_input), (usage.output, self.output)];
        let parts = tokens.iter().map(|(count, price)| u128::from(*count) * u128::from(price.0));
        let pico = parts.fold(0, u128::saturating_add);
        let nano = pico.div_ceil(1000).saturating_add(u128::from(self.request.0.unsigned_abs()));
        NanoUsd(i64::try_from(nano).unwrap_or(i64::MAX))
    }

    /// A name made of the price: `INPUT/OUTPUT` in USD per million tokens, with `:CACHED` and `+REQUEST` if they
    /// differ from the default. Two prices are equal exactly if their names are.
    pub fn as_version(&self) -> String {
        let Self { input, cached_input, output, request } = self;
        let cached = if cached_input == input { String::new() } else { format!(":{}", cached_input.usd_per_mtok()) };
        let request = if request.0 == 0 { String::new() } else { format!("+{request}") };
        format!("{}{cached}/{}{request}", input.usd_per_mtok(), output.usd_per_mtok())
    }
}

/// A price and its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PriceVersion {
    /// The price.
    pub price: Price,
    /// The configured name, or else [`Price::as_version`].
    pub version: Arc<str>,
}

impl PriceVersion {
    /// `price` with the name `version`, or with [`Price::as_version`].
    pub fn new(price: Price, version: Option<&str>) -> Self {
        Self { price, version: version.map_or_else(|| price.as_version().into(), Into::into) }
    }
}

impl From<Price> for PriceVersion {
    fn from(price: Price) -> Self {
        Self::new(price, None)
    }
}

/// The prices of a model or deployment over time. At every instant exactly one applies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prices {
    first: PriceVersion,
    /// Each with the Unix millisecond from which it applies, in ascending order.
    later: Box<[(i64, PriceVersion)]>,
}

impl Prices {
    /// `first` from the beginning, then each of `later` from its Unix millisecond on. `None` if those are not in
    /// strictly ascending order.
    pub fn new(first: PriceVersion, later: Vec<(i64, PriceVersion)>) -> Option<Self> {
        later.is_sorted_by(|(a, _), (b, _)| a < b).then(|| Self { first, later: later.into() })
    }

    /// The price that applies at `unix_ms`.
    pub fn at(&self, unix_ms: i64) -> &PriceVersion {
        let begun = self.later.partition_point(|(from_unix_ms, _)| *from_unix_ms <= unix_ms);
        begun.checked_sub(1).map_or(&self.first, |last| &self.later[last].1)
    }

    /// The next price after `unix_ms`, and the Unix millisecond from which it applies.
    pub fn after(&self, unix_ms: i64) -> Option<(i64, &PriceVersion)> {
        let next = self.later.iter().find(|(from_unix_ms, _)| *from_unix_ms > unix_ms);
        next.map(|(from_unix_ms, version)| (*from_unix_ms, version))
    }
}

impl From<Price> for Prices {
    fn from(price: Price) -> Self {
        Self { first: price.into(), later: Box::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(input: &str, cached: &str, output: &str) -> Price {
        let parse = |text| PicoUsdPerToken::parse_usd_per_mtok(text).expect("a price");
        Price { input: parse(input), cached_input: parse(cached), output: parse(output), request: NanoUsd::ZERO }
    }

    #[test]
    fn a_cost_is_exact_and_rounded_up_once() {
        let check = |input, cached_input, output, expected| {
            let usage = Usage { input, cached_input, output, reasoning: 0 };
            assert_eq!(price("0.07", "0.01", "0.25").cost(usage).0, expected, "{usage:?}");
        };
        check(0, 0, 0, 0);
        check(1, 0, 0, 70);
        check(1_000_000, 0, 1_000_000, 320_000_000);
        check(1_000_000, 400_000, 0, 46_000_000);
        check(10, 99, 0, 100);
        check(u64::MAX, 0, u64::MAX, i64::MAX);
    }

    #[test]
    fn the_smallest_price_still_costs_something() {
        let usage = Usage { input: 1, ..Usage::default() };
        assert_eq!(price("0.000001", "0.000001", "1").cost(usage), NanoUsd(1));
    }

    #[test]
    fn large_volumes_cost_what_buyers_expect() {
        for (tokens, cheap, dear) in [
            (5_000_000, "1.25", "50"),
            (50_000_000, "12.5", "500"),
            (500_000_000, "125", "5000"),
            (5_000_000_000, "1250", "50000"),
        ] {
            let usage = Usage { output: tokens, ..Usage::default() };
            assert_eq!(price("0", "0", "0.25").cost(usage).to_string(), cheap);
            assert_eq!(price("0", "0", "10.00").cost(usage).to_string(), dear);
        }
    }

    #[test]
    fn a_price_has_a_name_made_of_itself() {
        let check = |price: Price, expected: &str| assert_eq!(price.as_version(), expected);
        check(price("0.07", "0.07", "0.25"), "0.07/0.25");
        check(price("0.070000", "0.02", "1"), "0.07:0.02/1");
        check(Price { request: NanoUsd(1_000_000), ..price("0", "0", "10") }, "0/10+0.001");
        assert_eq!(&*PriceVersion::new(price("1", "1", "1"), Some("2026-11")).version, "2026-11");
    }

    #[test]
    fn at_every_instant_one_price_applies() {
        let version = |input| PriceVersion::from(price(input, input, "1"));
        let prices = Prices::new(version("1"), vec![(1_000, version("2")), (2_000, version("3"))]).expect("in order");
        let check = |unix_ms, now: &str, then: Option<(i64, &str)>| {
            assert_eq!(&*prices.at(unix_ms).version, now, "at {unix_ms}");
            assert_eq!(prices.after(unix_ms).map(|(from, next)| (from, &*next.version)), then, "after {unix_ms}");
        };
        check(i64::MIN, "1/1", Some((1_000, "2/1")));
        check(999, "1/1", Some((1_000, "2/1")));
        check(1_000, "2/1", Some((2_000, "3/1")));
        check(1_999, "2/1", Some((2_000, "3/1")));
        check(2_000, "3/1", None);
        check(i64::MAX, "3/1", None);
        assert!(Prices::new(version("1"), vec![(2, version("2")), (1, version("3"))]).is_none());
        assert!(Prices::new(version("1"), vec![(2, version("2")), (2, version("3"))]).is_none());
    }
}
