//! Usage × price → money.
//!
//! It exists so that there is exactly one rounding per request, and that it goes up. Everything is
//! summed in pico-dollars (128 bits) and rounded once to [`NanoUsd`]. It must never see a float.

use super::money::{NanoUsd, PicoUsdPerToken};
use super::usage::Usage;

/// What a model or deployment costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Price {
    /// Per input token.
    pub input: PicoUsdPerToken,
    /// Per cached input token; `input` where the provider gives no discount.
    pub cached_input: PicoUsdPerToken,
    /// Per output token.
    pub output: PicoUsdPerToken,
    /// Per request, whatever its size.
    pub request: NanoUsd,
}

impl Price {
    /// The cost of `usage`, rounded up to the nano-dollar; `i64::MAX` nano-dollars where it would be more.
    pub fn cost(&self, usage: Usage) -> NanoUsd {
        let cached = usage.cached_input.min(usage.input);
        let fresh = usage.input - cached;
        let tokens = [(fresh, self.input), (cached, self.cached_input), (usage.output, self.output)];
        let parts = tokens.iter().map(|(count, price)| u128::from(*count) * u128::from(price.0));
        let pico = parts.fold(0, u128::saturating_add);
        let nano = pico.div_ceil(1000).saturating_add(u128::from(self.request.0.unsigned_abs()));
        NanoUsd(i64::try_from(nano).unwrap_or(i64::MAX))
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
    fn the_table_every_buyer_asks_for() {
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
}
