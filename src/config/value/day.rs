//! Days of the calendar.

use jiff::civil;
use toml::de::DeValue;

use crate::config::reader::{ConfigValueRef, DisplayValue, SettingShape, SettingValue, ValueError};

const DAY_MS: i64 = 86_400_000;

/// A day of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::config) struct UtcDay {
    /// Days since 1970-01-01.
    number: i64,
    written: toml::value::Date,
}

impl UtcDay {
    fn of(written: toml::value::Datetime) -> Option<Self> {
        let toml::value::Datetime { date: Some(date), time: None, offset: None } = written else { return None };
        Some(Self { number: unix_day(date)?, written: date })
    }

    /// Its first instant, in Unix milliseconds.
    pub(in crate::config) fn begins_unix_ms(self) -> i64 {
        self.number * DAY_MS
    }

    /// As it was written: `2027-01-01`.
    pub(in crate::config) fn date(self) -> String {
        self.written.to_string()
    }
}

/// The first instant of a day written as `2027-01-01`, in Unix milliseconds; `None` if it is no such day.
pub(in crate::config) fn begins_unix_ms(day: &str) -> Option<i64> {
    UtcDay::of(day.parse().ok()?).map(UtcDay::begins_unix_ms)
}

/// Days from 1970-01-01 to a date; `None` for a day that does not exist.
pub(super) fn unix_day(date: toml::value::Date) -> Option<i64> {
    const UNIX_EPOCH: civil::Date = civil::date(1970, 1, 1);
    let (year, month, day) = (date.year.try_into().ok()?, date.month.try_into().ok()?, date.day.try_into().ok()?);
    Some(civil::Date::new(year, month, day).ok()?.duration_since(UNIX_EPOCH).as_secs() / 86_400)
}

impl SettingValue for UtcDay {
    const EXPECTED: &'static str = "a date such as \"2027-01-01\"";

    fn shape() -> SettingShape {
        SettingShape::Pattern("[0-9]{4}-[0-9]{2}-[0-9]{2}")
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let written = match value_ref.value() {
            DeValue::Datetime(written) => Some(*written),
            _ => value_ref.text()?.parse().ok(),
        };
        written.and_then(Self::of).ok_or_else(|| ValueError::new("is not a date"))
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Text(self.date())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_utc() {
        let check = |text: &str, expected: Option<i64>| {
            let found = text.parse().ok().and_then(UtcDay::of);
            assert_eq!(found.map(UtcDay::begins_unix_ms), expected, "{text}");
        };
        check("0000-01-01", Some(-62_167_219_200_000));
        check("1970-01-01", Some(0));
        check("2027-01-01", Some(1_798_761_600_000));
        check("2028-02-29", Some(1_835_395_200_000));
        check("9999-12-31", Some(253_402_214_400_000));
        check("2027-02-29", None);
        check("2027-01-01T00:00:00Z", None);
        check("00:00:00", None);
    }
}
