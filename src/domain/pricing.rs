//! Prices: the cost of usage, and which price applies at which time.
//!
//! It exists so that there is exactly one rounding per request, upwards. Everything is summed in pico-dollars
//! (128 bits) and rounded once to [`NanoUsd`]. It must never use a float or read the clock: the caller passes in the
//! time of the prices, once for a whole request.
//!
//! Start reading in [`Price::cost`], then [`Prices::at`].

use super::money::{NanoUsd, PicoUsdPerToken};
use super::usage::{ByTokenClass, TokenClass, Usage};
use std::fmt::Write;
use std::sync::Arc;

/// The price of a model or deployment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Price {
    /// Per input token.
    pub input: PicoUsdPerToken,
    /// Per cached input token; equal to `input` if the provider gives no discount.
    pub cached_input: PicoUsdPerToken,
    /// Per output token.
    pub output: PicoUsdPerToken,
    /// Per request, independent of its size.
    pub request: NanoUsd,
    /// Per token of a class that is priced apart; `None`: as other input or output.
    pub apart: ByTokenClass<Option<PicoUsdPerToken>>,
}

impl Price {
    /// The cost of `usage`, rounded up to the nano-dollar and saturating at `i64::MAX` nano-dollars.
    pub fn cost(&self, usage: Usage) -> NanoUsd {
        let of = |count: u64, price: PicoUsdPerToken| u128::from(count) * u128::from(price.0);
        let cached = usage.cached_input.min(usage.input);
        let mut pico = of(cached, self.cached_input);
        // What is left of input and output; a provider that reports more of a class than there is is not paid for it.
        let mut rest = [usage.input - cached, usage.output];
        for (class, price) in self.apart.iter() {
            // No cache keeps for an hour what it keeps for minutes at a higher price.
            let by_minutes = || self.apart.get(TokenClass::CacheWrite).filter(|_| class == TokenClass::CacheWrite1h);
            let Some(price) = price.or_else(by_minutes) else { continue };
            let rest = &mut rest[usize::from(class.is_output())];
            let count = usage.apart.get(class).min(*rest);
            *rest -= count;
            pico = pico.saturating_add(of(count, price));
        }
        let pico = pico.saturating_add(of(rest[0], self.input)).saturating_add(of(rest[1], self.output));
        let nano = pico.div_ceil(1000).saturating_add(u128::from(self.request.0.unsigned_abs()));
        NanoUsd(i64::try_from(nano).unwrap_or(i64::MAX))
    }

    /// What every token of input and of output costs at most: which of them are cached, sound or pictures is not known
    /// before a request is sent.
    fn flattened(&self) -> Self {
        let highest = |base: PicoUsdPerToken, output: bool| {
            let classes = self.apart.iter().filter(|(class, _)| class.is_output() == output);
            classes.filter_map(|(_, price)| price).fold(base, PicoUsdPerToken::max)
        };
        let input = highest(self.input.max(self.cached_input), false);
        Self {
            input,
            cached_input: input,
            output: highest(self.output, true),
            request: self.request,
            ..Self::default()
        }
    }

    /// Of each amount the higher one; both are [flattened](Self::flattened).
    fn max_of_each(self, other: Self) -> Self {
        Self {
            input: self.input.max(other.input),
            cached_input: self.cached_input.max(other.cached_input),
            output: self.output.max(other.output),
            request: self.request.max(other.request),
            ..Self::default()
        }
    }

    /// A name made of the price: `INPUT/OUTPUT` in USD per million tokens, with `:CACHED` and `+REQUEST` if they
    /// differ from the default, and `,CLASS=PRICE` for each class that is priced apart. Two prices are equal exactly
    /// if their names are.
    pub fn as_version(&self) -> String {
        let Self { input, cached_input, output, request, apart } = self;
        let cached = if cached_input == input { String::new() } else { format!(":{}", cached_input.usd_per_mtok()) };
        let request = if request.0 == 0 { String::new() } else { format!("+{request}") };
        let mut name = format!("{}{cached}/{}{request}", input.usd_per_mtok(), output.usd_per_mtok());
        for (class, price) in apart.iter() {
            if let Some(price) = price {
                // Writing to a string cannot fail.
                let _ = write!(name, ",{}={}", class.name(), price.usd_per_mtok());
            }
        }
        name
    }
}

/// A price and its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PriceVersion {
    /// The price, as long as the input is not above any of the thresholds.
    pub price: Price,
    /// The configured name, or else one made of its amounts.
    pub version: Arc<str>,
    /// Prices of all tokens of a request whose input has more tokens than the threshold, which ascend.
    above: Option<Arc<[(u64, Price)]>>,
}

impl PriceVersion {
    /// `price` with the name `version`, or with [`Price::as_version`].
    pub fn new(price: Price, version: Option<&str>) -> Self {
        Self { price, version: version.map_or_else(|| price.as_version().into(), Into::into), above: None }
    }

    /// The same with `above`: the prices of all tokens of a request whose input has more tokens than the threshold.
    /// `None` if the thresholds do not ascend.
    pub fn with_above(price: Price, above: Vec<(u64, Price)>, version: Option<&str>) -> Option<Self> {
        if above.is_empty() {
            return Some(Self::new(price, version));
        }
        let mut name = price.as_version();
        for (tokens, price) in &above {
            // Writing to a string cannot fail.
            let _ = write!(name, " >{tokens}={}", price.as_version());
        }
        let ascends = above.is_sorted_by(|(a, _), (b, _)| a < b);
        let version = version.map_or_else(|| name.into(), Into::into);
        ascends.then(|| Self { price, version, above: Some(above.into()) })
    }

    /// The price of all tokens of a request with so many input tokens.
    pub fn for_input(&self, tokens: u64) -> &Price {
        let reached = self.above().iter().rev().find(|(threshold, _)| tokens > *threshold);
        reached.map_or(&self.price, |(_, price)| price)
    }

    /// A price at which no request with at most so many input tokens costs less than at this one.
    pub fn most(&self, input_tokens: u64) -> Price {
        let reached = self.above().iter().filter(|(threshold, _)| input_tokens > *threshold);
        reached.fold(self.price.flattened(), |most, (_, price)| most.max_of_each(price.flattened()))
    }

    /// The thresholds, in input tokens, and the prices above them.
    pub fn above(&self) -> &[(u64, Price)] {
        self.above.as_deref().unwrap_or_default()
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
    /// Where they are from, if not from the configuration.
    catalogue: Option<Arc<str>>,
}

impl Prices {
    /// `first` from the beginning, then each of `later` from its Unix millisecond on. `None` if those are not in
    /// strictly ascending order.
    pub fn new(first: PriceVersion, later: Vec<(i64, PriceVersion)>) -> Option<Self> {
        later.is_sorted_by(|(a, _), (b, _)| a < b).then(|| Self { first, later: later.into(), catalogue: None })
    }

    /// The same, from the price catalogue of this day.
    pub fn of_catalogue(self, as_of: Arc<str>) -> Self {
        Self { catalogue: Some(as_of), ..self }
    }

    /// The day of the price catalogue that they are from; `None` if they are from the configuration.
    pub fn catalogue(&self) -> Option<&Arc<str>> {
        self.catalogue.as_ref()
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
        Self { first: price.into(), later: Box::default(), catalogue: None }
    }
}

#[cfg(test)]
mod tests {
    use super::super::usage::TokenClass;
    use super::*;

    fn price(input: &str, cached: &str, output: &str) -> Price {
        let parse = |text| PicoUsdPerToken::parse_usd_per_mtok(text).expect("a price");
        Price { input: parse(input), cached_input: parse(cached), output: parse(output), ..Price::default() }
    }

    #[test]
    fn what_a_cache_keeps_for_an_hour_costs_no_less_than_what_it_keeps_for_minutes() {
        let mut price = Price { input: PicoUsdPerToken(3_000_000), ..Price::default() };
        price.apart.set(TokenClass::CacheWrite, Some(PicoUsdPerToken(3_750_000)));
        let mut usage = Usage { input: 1_100, ..Usage::default() };
        usage.apart.set(TokenClass::CacheWrite, 600);
        usage.apart.set(TokenClass::CacheWrite1h, 400);
        assert_eq!(price.cost(usage), NanoUsd(100 * 3_000 + 1_000 * 3_750));
        price.apart.set(TokenClass::CacheWrite1h, Some(PicoUsdPerToken(6_000_000)));
        assert_eq!(price.cost(usage), NanoUsd(100 * 3_000 + 600 * 3_750 + 400 * 6_000));
    }

    #[test]
    fn a_cost_is_exact_and_rounded_up_once() {
        let check = |input, cached_input, output, expected| {
            let usage = Usage { input, cached_input, output, ..Usage::default() };
            assert_eq!(price("0.07", "0.01", "0.25").cost(usage).0, expected, "{usage:?}");
        };
        check(0, 0, 0, 0);
        check(1, 0, 0, 70);
        check(1_000_000, 0, 1_000_000, 320_000_000);
        check(1_000_000, 400_000, 0, 46_000_000);
        check(10, 99, 0, 100);
        check(u64::MAX, 0, u64::MAX, i64::MAX);
    }

    /// `price` with a price of its own for one class.
    fn apart(mut price: Price, class: TokenClass, usd: &str) -> Price {
        price.apart.set(class, PicoUsdPerToken::parse_usd_per_mtok(usd));
        price
    }

    #[test]
    fn what_is_priced_apart_is_no_other_input_or_output() {
        let price = apart(price("1", "0.1", "2"), TokenClass::CacheWrite, "1.25");
        let price = apart(apart(price, TokenClass::AudioInput, "40"), TokenClass::AudioOutput, "80");
        let check = |counts: [u64; 3], classes: &[(TokenClass, u64)], expected| {
            let [input, cached_input, output] = counts;
            let mut usage = Usage { input, cached_input, output, ..Usage::default() };
            classes.iter().for_each(|(class, count)| usage.apart.set(*class, *count));
            assert_eq!(price.cost(usage).0, expected, "{usage:?}");
        };
        check([1_000, 0, 0], &[(TokenClass::CacheWrite, 400)], 600_000 + 500_000);
        check([1_000, 500, 0], &[(TokenClass::CacheWrite, 400)], 50_000 + 500_000 + 100_000);
        check([100, 0, 10], &[(TokenClass::AudioInput, 60), (TokenClass::AudioOutput, 10)], 2_440_000 + 800_000);
        // More of a class than there is left of the input; a class without a price of its own.
        check([100, 90, 0], &[(TokenClass::AudioInput, 60)], 9_000 + 400_000);
        check([100, 0, 10], &[(TokenClass::ImageInput, 50), (TokenClass::ImageOutput, 10)], 100_000 + 20_000);
        assert_eq!(price.as_version(), "1:0.1/2,cache_write=1.25,audio_input=40,audio_output=80");
    }

    #[test]
    fn a_long_input_changes_the_price_of_every_token() {
        let long = PriceVersion::with_above(price("1", "0.1", "2"), vec![(200, price("2", "0.2", "3"))], None);
        let long = long.expect("one threshold ascends");
        let check = |input, expected| {
            let usage = Usage { input, output: 10, ..Usage::default() };
            assert_eq!(long.for_input(input).cost(usage).0, expected, "{input}");
        };
        check(0, 20_000);
        check(200, 220_000);
        check(201, 402_000 + 30_000);
        assert_eq!(&*long.version, "1:0.1/2 >200=2:0.2/3");
        assert!(PriceVersion::with_above(price("1", "1", "1"), vec![(2, long.price), (2, long.price)], None).is_none());
    }

    #[test]
    fn the_most_expensive_reading_counts_what_the_input_may_reach() {
        let dear = apart(price("1", "1.5", "2"), TokenClass::ImageOutput, "30");
        let above = vec![(200, apart(price("2", "0.2", "3"), TokenClass::AudioInput, "40"))];
        let version = PriceVersion::with_above(dear, above, None).expect("one threshold ascends");
        let most = |tokens| version.most(tokens);
        assert_eq!((most(200).input.usd_per_mtok(), most(200).output.usd_per_mtok()), ("1.5".into(), "30".into()));
        assert_eq!((most(201).input.usd_per_mtok(), most(201).output.usd_per_mtok()), ("40".into(), "30".into()));
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
