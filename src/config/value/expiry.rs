//! The expiry of a key.

use toml::de::DeValue;

use super::day::unix_day;
use crate::config::reader::{ConfigValueRef, DisplayValue, SettingValue, ValueError};

/// The last day on which something works, or the instant it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Expiry {
    written: toml::value::Datetime,
    /// From this Unix second on it no longer works.
    pub(in crate::config) ends_unix: i64,
}

impl Expiry {
    fn of(written: toml::value::Datetime) -> Option<Self> {
        let midnight = unix_day(written.date?)? * 86_400;
        let ends_unix = match (written.time, written.offset) {
            (None, None) => midnight + 86_400,
            (Some(time), Some(offset)) => {
                let minutes = match offset {
                    toml::value::Offset::Z => 0,
                    toml::value::Offset::Custom { minutes } => i64::from(minutes),
                };
                let second = i64::from(time.second.unwrap_or(0));
                let of_day = i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + second;
                midnight + of_day - minutes * 60
            }
            _ => return None,
        };
        Some(Self { written, ends_unix })
    }
}

impl SettingValue for Expiry {
    const EXPECTED: &'static str = "a date such as \"2027-01-31\" or a time such as \"2027-01-31T12:00:00Z\"";

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let written = match value_ref.value() {
            DeValue::Datetime(written) => Some(*written),
            _ => value_ref.text()?.parse().ok(),
        };
        written.and_then(Self::of).ok_or_else(|| ValueError::new("is not a date, or a time with its offset"))
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Text(self.written.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_works_to_the_end_of_its_last_day() {
        let check = |text: &str, expected: Option<i64>| {
            let found = text.parse().ok().and_then(Expiry::of);
            assert_eq!(found.map(|e| e.ends_unix), expected, "{text}");
        };
        check("1969-12-31", Some(0));
        check("1970-01-01", Some(86_400));
        check("2027-01-31", Some(1_801_440_000));
        check("2000-02-29T00:00:00Z", Some(951_782_400));
        check("2027-01-31T12:00:00+02:00", Some(1_801_389_600));
        check("2027-02-29", None);
        check("2027-01-31T12:00:00", None);
        check("12:00:00", None);
    }
}
