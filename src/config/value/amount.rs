//! Amounts: durations, sizes, percentages and money, each with its unit.

use std::num::NonZeroU32;
use std::time::Duration;

use toml::de::DeValue;

use crate::config::reader::{ConfigValueRef, DisplayValue, SettingShape, SettingValue, ValueError};
use crate::domain::money::{NanoUsd, PicoUsdPerToken};
use crate::domain::policy::HedgeDelay;

/// Units of duration, the largest first so that a value is shown in the largest that divides it.
const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Units of size, the largest first.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Stands for a number that the gateway finds itself.
const ADAPTIVE: &str = "adaptive";

/// A number and its unit, in the smallest unit of the table.
fn scaled(text: &str, units: &[(&str, u64)]) -> Result<u64, ValueError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(ValueError::new("does not begin with a whole number"));
    }
    let names = || units.iter().rev().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    if unit.is_empty() {
        return Err(ValueError::new(format!("has no unit; units are {}", names())));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(ValueError::new(format!("has an unknown unit; units are {}", names())));
    };
    let number = number.parse::<u64>().ok();
    number.and_then(|n| n.checked_mul(*factor)).ok_or_else(|| ValueError::new("is too large"))
}

/// The shortest writing of `amount`, in the largest unit that divides it.
fn unscaled(amount: u64, units: &[(&str, u64)], smallest: &str) -> DisplayValue {
    let fits = |(_, factor): &&(&str, u64)| amount != 0 && amount.is_multiple_of(*factor);
    let text = match units.iter().find(fits) {
        Some((name, factor)) => format!("{}{name}", amount / factor),
        None => format!("0{smallest}"),
    };
    DisplayValue::Text(text)
}

/// The string of a value, where a bare number would be a likely mistake.
fn quoted(value_ref: &ConfigValueRef<'_>, what: &str) -> Result<String, ValueError> {
    match value_ref.value() {
        DeValue::Integer(_) | DeValue::Float(_) => {
            Err(ValueError::new(format!("{what} is written as a string, not as a number")))
        }
        _ => value_ref.text(),
    }
}

impl SettingValue for Duration {
    const EXPECTED: &'static str = "a duration such as \"250ms\", \"10s\" or \"5m\"";

    fn shape() -> SettingShape {
        SettingShape::Pattern("[0-9]+(ms|s|m|h)")
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        scaled(&quoted(value_ref, "a duration")?, &DURATION_UNITS).map(Duration::from_millis)
    }

    fn show(&self) -> DisplayValue {
        let millis = u64::try_from(self.as_millis()).unwrap_or(u64::MAX);
        unscaled(millis, &DURATION_UNITS, "s")
    }
}

/// A duration that may not be zero: waiting no time at all would refuse everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct NonZeroDuration(pub(in crate::config) Duration);

impl SettingValue for NonZeroDuration {
    const EXPECTED: &'static str = Duration::EXPECTED;

    fn shape() -> SettingShape {
        SettingShape::Pattern("0*[1-9][0-9]*(ms|s|m|h)")
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let duration = Duration::read(value_ref)?;
        if duration.is_zero() {
            return Err(ValueError::new("is zero, which would leave no time at all"));
        }
        Ok(Self(duration))
    }

    fn show(&self) -> DisplayValue {
        self.0.show()
    }
}

/// A whole number of days, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct WholeDays(u32);

impl WholeDays {
    /// As a duration; days of 24 hours.
    pub(in crate::config) fn duration(self) -> Duration {
        Duration::from_secs(u64::from(self.0) * 86_400)
    }
}

impl SettingValue for WholeDays {
    const EXPECTED: &'static str = "a number of days such as \"400d\"";

    fn shape() -> SettingShape {
        SettingShape::Pattern("0*[1-9][0-9]{0,5}d")
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let text = quoted(value_ref, "a number of days")?;
        let days = text.strip_suffix('d').filter(|days| days.bytes().all(|byte| byte.is_ascii_digit()));
        match days.and_then(|days| days.parse().ok()) {
            Some(0) => Err(ValueError::new("is zero, which would keep nothing; that is `url = \"memory:\"`")),
            Some(days) if days < 1_000_000 => Ok(Self(days)),
            Some(_) => Err(ValueError::new("is too large")),
            None => Err(ValueError::new("is not a whole number of days")),
        }
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Text(format!("{}d", self.0))
    }
}

/// The number of bytes that a size such as `1GiB` is; `None` where it is none.
pub fn parse_size(text: &str) -> Option<u64> {
    scaled(text, &SIZE_UNITS).ok()
}

/// A number of bytes, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct ByteSize(pub(in crate::config) u64);

impl SettingValue for ByteSize {
    const EXPECTED: &'static str = "a size such as \"64KiB\", \"32MiB\" or \"1GiB\"";

    fn shape() -> SettingShape {
        SettingShape::Pattern("0*[1-9][0-9]*(B|KiB|MiB|GiB)")
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        match scaled(&quoted(value_ref, "a size")?, &SIZE_UNITS)? {
            0 => Err(ValueError::new("is zero, which would leave no room at all")),
            bytes => Ok(Self(bytes)),
        }
    }

    fn show(&self) -> DisplayValue {
        unscaled(self.0, &SIZE_UNITS, "B")
    }
}

/// A share of a whole in hundredths of a percent, from 0 to 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::config) struct Percent {
    pub(in crate::config) basis_points: u32,
}

impl Percent {
    /// A whole number of percent.
    pub(in crate::config) const fn whole(percent: u32) -> Self {
        Self { basis_points: percent * 100 }
    }

    fn parse(text: &str) -> Option<Self> {
        let number = text.strip_suffix('%')?;
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 2 || whole.len() > 3 {
            return None;
        }
        let part = format!("{part:0<2}").parse::<u32>().ok()?;
        let basis_points = whole.parse::<u32>().ok()? * 100 + part;
        (basis_points <= 10_000).then_some(Self { basis_points })
    }
}

impl SettingValue for Percent {
    const EXPECTED: &'static str = "a percentage such as \"20%\" or \"99.9%\"";

    fn shape() -> SettingShape {
        SettingShape::Pattern("[0-9]{1,3}(\\.[0-9]{1,2})?%")
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let text = quoted(value_ref, "a percentage")?;
        Self::parse(&text)
            .ok_or_else(|| ValueError::new("is not a percentage from 0% to 100% with at most two decimals"))
    }

    fn show(&self) -> DisplayValue {
        let (whole, part) = (self.basis_points / 100, self.basis_points % 100);
        if part == 0 {
            return DisplayValue::Text(format!("{whole}%"));
        }
        let text = format!("{whole}.{part:02}");
        DisplayValue::Text(format!("{}%", text.trim_end_matches('0')))
    }
}

impl SettingValue for NanoUsd {
    const EXPECTED: &'static str = "an amount in USD as a string, such as \"500.00\"";

    fn shape() -> SettingShape {
        SettingShape::Pattern("[0-9]+(\\.[0-9]{1,9})?")
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let text = quoted(value_ref, "money")?;
        Self::parse_usd(&text)
            .ok_or_else(|| ValueError::new("is not a decimal amount of US dollars with at most nine decimals"))
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Text(self.to_string())
    }
}

impl SettingValue for PicoUsdPerToken {
    const EXPECTED: &'static str = "USD per million tokens as a string, such as \"0.25\"";

    fn shape() -> SettingShape {
        SettingShape::Pattern("[0-9]+(\\.[0-9]{1,6})?")
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let text = quoted(value_ref, "a price")?;
        Self::parse_usd_per_mtok(&text)
            .ok_or_else(|| ValueError::new("is not a price in USD per million tokens with at most six decimals"))
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Text(self.usd_per_mtok())
    }
}

impl SettingValue for HedgeDelay {
    const EXPECTED: &'static str = "a percentile such as \"p95\", or a duration";

    fn shape() -> SettingShape {
        SettingShape::Pattern("p[1-9][0-9]?|0*[1-9][0-9]*(ms|s|m|h)")
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let text = value_ref.text()?;
        match text.strip_prefix('p').and_then(|digits| digits.parse::<u8>().ok()) {
            Some(percent @ 1..=99) => Ok(Self::Percentile(percent)),
            Some(_) => Err(ValueError::new("is not a percentile from p1 to p99")),
            None => NonZeroDuration::read(value_ref).map(|delay| Self::Fixed(delay.0)),
        }
    }

    fn show(&self) -> DisplayValue {
        match self {
            Self::Percentile(percent) => DisplayValue::Text(format!("p{percent}")),
            Self::Fixed(delay) => delay.show(),
        }
    }
}

/// How many requests may be in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InFlightSetting {
    Fixed(NonZeroU32),
    Adaptive,
}

impl SettingValue for InFlightSetting {
    const EXPECTED: &'static str = "a whole number from 1 on, without quotes, or \"adaptive\"";

    fn shape() -> SettingShape {
        SettingShape::IntegerOrWord { least: 1, most: u64::from(u32::MAX), word: ADAPTIVE }
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        match value_ref.value() {
            DeValue::Integer(_) => NonZeroU32::read(value_ref).map(Self::Fixed),
            _ if value_ref.text()? == ADAPTIVE => Ok(Self::Adaptive),
            _ => Err(ValueError::new("is neither a number nor \"adaptive\"")),
        }
    }

    fn show(&self) -> DisplayValue {
        match self {
            Self::Fixed(most) => most.show(),
            Self::Adaptive => DisplayValue::Text(ADAPTIVE.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &impl SettingValue) -> String {
        match value.show() {
            DisplayValue::Text(text) => text,
            other => panic!("not text: {other:?}"),
        }
    }

    #[test]
    fn numbers_carry_their_unit() {
        let check = |text: &str, expected: Result<u64, &str>| {
            let found = scaled(text, &DURATION_UNITS).map_err(|error| error.message);
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        };
        check("250ms", Ok(250));
        check("0s", Ok(0));
        check("2m", Ok(120_000));
        check("1h", Ok(3_600_000));
        check("10", Err("has no unit; units are ms, s, m, h"));
        check("10 s", Err("has an unknown unit; units are ms, s, m, h"));
        check("1.5s", Err("has an unknown unit; units are ms, s, m, h"));
        check("-1s", Err("does not begin with a whole number"));
        check("99999999999999999999s", Err("is too large"));
        check("18446744073709551615h", Err("is too large"));
    }

    #[test]
    fn values_are_shown_as_people_write_them() {
        let check = |value: &dyn Fn() -> String, expected: &str| assert_eq!(value(), expected);
        check(&|| shown(&Duration::from_millis(250)), "250ms");
        check(&|| shown(&Duration::from_secs(120)), "2m");
        check(&|| shown(&Duration::from_secs(90)), "90s");
        check(&|| shown(&Duration::ZERO), "0s");
        check(&|| shown(&ByteSize(32 << 20)), "32MiB");
        check(&|| shown(&ByteSize(1000)), "1000B");
        check(&|| shown(&Percent { basis_points: 9990 }), "99.9%");
        check(&|| shown(&Percent { basis_points: 5 }), "0.05%");
        check(&|| shown(&Percent::whole(20)), "20%");
    }

    #[test]
    fn percentages_are_exact() {
        let check = |text: &str, expected: Option<u32>| {
            assert_eq!(Percent::parse(text).map(|p| p.basis_points), expected, "{text}");
        };
        check("20%", Some(2000));
        check("99.9%", Some(9990));
        check("99.99%", Some(9999));
        check("100%", Some(10_000));
        check("0%", Some(0));
        for bad in ["", "%", "20", "100.01%", "101%", "99.999%", "-1%", ".5%", "5.%", "1e1%", "20 %"] {
            check(bad, None);
        }
    }
}
