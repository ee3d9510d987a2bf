//! Money as integers.
//!
//! It exists so that money is exact. An amount is a [`NanoUsd`]: billionths of a US dollar, checked at every step. A
//! price is a [`PicoUsdPerToken`]: 0.01 USD per million tokens is 10,000 pico-dollars per token, so every price with
//! up to six decimals per million tokens is exact. A float must never become money: there is no `From<f64>`.

use std::fmt;

/// Billionths of a US dollar.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct NanoUsd(pub i64);

impl NanoUsd {
    /// No money.
    pub const ZERO: Self = Self(0);
    /// The longest written form: 19 digits of 64 bits, a sign, a point.
    pub const LONGEST: usize = 21;

    /// The sum; `None` beyond ± 9.2 billion dollars.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// Parses a decimal amount of dollars such as `"500.00"`: digits, at most nine after the point.
    pub fn parse_usd(text: &str) -> Option<Self> {
        parse_decimal(text, 9).map(Self)
    }

    /// Its written form, at the end of `text`: dollars as a plain decimal without trailing zeros, `0.0000213`.
    pub fn written(self, text: &mut [u8; Self::LONGEST]) -> &[u8] {
        let mut start = text.len();
        let mut put = |byte: u8| {
            start -= 1;
            text[start] = byte;
        };
        let mut left = self.0.unsigned_abs();
        let mut trailing = true;
        for _ in 0..9 {
            let digit = (left % 10) as u8;
            left /= 10;
            trailing &= digit == 0;
            if !trailing {
                put(b'0' + digit);
            }
        }
        if !trailing {
            put(b'.');
        }
        loop {
            put(b'0' + (left % 10) as u8);
            left /= 10;
            if left == 0 {
                break;
            }
        }
        if self.0 < 0 {
            put(b'-');
        }
        &text[start..]
    }
}

impl fmt::Display for NanoUsd {
    /// As [`NanoUsd::written`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; Self::LONGEST];
        f.pad(std::str::from_utf8(self.written(&mut text)).expect("digits are ASCII"))
    }
}

/// Trillionths of a US dollar per token, written in configuration as dollars per million tokens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct PicoUsdPerToken(pub u64);

impl PicoUsdPerToken {
    /// Parses dollars per million tokens, such as `"0.25"`: at most six digits after the point.
    pub fn parse_usd_per_mtok(text: &str) -> Option<Self> {
        parse_decimal(text, 6).map(|pico| Self(pico.unsigned_abs()))
    }

    /// The same price as dollars per million tokens, as a plain decimal.
    pub fn usd_per_mtok(self) -> String {
        NanoUsd((self.0.saturating_mul(1000)).min(i64::MAX as u64) as i64).to_string()
    }
}

/// An unsigned decimal with at most `places` digits after the point, scaled to an integer.
fn parse_decimal(text: &str, places: u32) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let missing = places.checked_sub(part.len().try_into().ok()?)?;
    if whole.is_empty() || !all_digits(whole) || !all_digits(part) || text.ends_with('.') {
        return None;
    }
    let whole: i64 = whole.parse().ok()?;
    let part: i64 = if part.is_empty() { 0 } else { part.parse().ok()? };
    whole.checked_mul(10_i64.checked_pow(places)?)?.checked_add(part.checked_mul(10_i64.checked_pow(missing)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_parsed_exactly_or_not_at_all() {
        let check = |text: &str, expected: Option<i64>| {
            assert_eq!(NanoUsd::parse_usd(text).map(|m| m.0), expected, "{text}");
        };
        check("500.00", Some(500_000_000_000));
        check("0.000000001", Some(1));
        check("0.0000000001", None);
        check("9223372036.854775807", Some(i64::MAX));
        check("9223372036.854775808", None);
        for bad in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,0", " 1", "0x1", "1.2.3"] {
            check(bad, None);
        }
    }

    #[test]
    fn prices_are_pico_dollars_per_token() {
        let check = |text: &str, expected: Option<u64>| {
            let price = PicoUsdPerToken::parse_usd_per_mtok(text);
            assert_eq!(price.map(|p| p.0), expected, "{text}");
        };
        check("0.25", Some(250_000));
        check("10.00", Some(10_000_000));
        check("0.000001", Some(1));
        check("0.0000001", None);
        assert_eq!(PicoUsdPerToken(250_000).usd_per_mtok(), "0.25");
    }

    #[test]
    fn amounts_print_as_plain_decimals() {
        assert_eq!(NanoUsd(21_300).to_string(), "0.0000213");
        assert_eq!(NanoUsd(-1_500_000_000).to_string(), "-1.5");
        assert_eq!(NanoUsd(0).to_string(), "0");
        assert_eq!(NanoUsd(i64::MIN).to_string(), "-9223372036.854775808");
    }
}
