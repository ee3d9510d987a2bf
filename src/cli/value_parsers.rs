//! Parsers and formatters of argument values: budgets, amounts, times.
//!
//! Money is never a float, days are days of UTC, and what is shown can be typed again.
//!
//! Start reading at [`budget`] and [`ExpiryTime`].

use super::table::dollars;
use crate::admin::{self, parse_expiry};
use crate::domain::budget::{BudgetPeriod, BudgetSpec};
use crate::domain::money::NanoUsd;
use jiff::Timestamp;

/// Reads a budget such as `50.00/month` or `50.00/day/Europe/Paris`; without a window it is spent only once.
pub(super) fn budget(text: &str) -> Result<BudgetSpec, &'static str> {
    const WRONG: &str = "write dollars and a window: 50.00/month, 5.00/day/Europe/Paris, or 50.00 to be spent once, with a zone such as Europe/Paris";
    let (limit, window) = text.split_once('/').unwrap_or((text, "none"));
    let limit = NanoUsd::parse_usd(limit).ok_or(WRONG)?;
    match window.replacen('/', " ", 1).parse() {
        Ok(BudgetPeriod::Credit) | Err(_) => Err(WRONG),
        Ok(window) => Ok(BudgetSpec { limit, window }),
    }
}

/// A budget in the form that [`budget`] reads.
pub(super) fn budget_text(budget: &BudgetSpec) -> String {
    match budget.window {
        BudgetPeriod::Ever | BudgetPeriod::Credit => budget.limit.to_string(),
        _ => format!("{}/{}", budget.limit, budget.window.to_string().replacen(' ', "/", 1)),
    }
}

/// A budget for people.
pub(super) fn format_budget(limit: NanoUsd, window: &BudgetPeriod) -> String {
    match window {
        BudgetPeriod::Ever | BudgetPeriod::Credit => format!("{} in all", dollars(limit.0.into())),
        _ => format!("{} a {window}", dollars(limit.0.into())),
    }
}

/// Reads an amount of dollars, which may be negative.
pub(super) fn amount(text: &str) -> Result<NanoUsd, &'static str> {
    const WRONG: &str =
        "write dollars as a decimal such as 25, 25.00 or -5.00, with at most nine digits after the point";
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    NanoUsd::parse_usd(digits).map(|amount| NanoUsd(sign * amount.0)).ok_or(WRONG)
}

/// Reads a size such as `512MiB`, in bytes.
pub(super) fn size(text: &str) -> Result<u64, &'static str> {
    crate::config::parse_size(text).ok_or("write a whole number and B, KiB, MiB or GiB: 512MiB, 10GiB")
}

/// A size for people, rounded down: `1.5 GiB`.
pub(super) fn size_text(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let Some((unit, name)) = UNITS.into_iter().find(|(unit, _)| bytes >= *unit) else { return format!("{bytes} B") };
    match (bytes / unit, bytes % unit * 10 / unit) {
        (whole, 0) => format!("{whole} {name}"),
        (whole, tenth) => format!("{whole}.{tenth} {name}"),
    }
}

/// The change of a field: a new value, none, or (`None`) no change.
pub(super) fn either<T>(value: Option<T>, none: bool) -> Option<Option<T>> {
    if none { Some(None) } else { value.map(Some) }
}

/// When something ends: after a duration, or at an instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ExpiryTime {
    /// After this many milliseconds.
    In(i64),
    /// At this Unix second.
    At(i64),
}

impl ExpiryTime {
    /// Reads `30d`, `12h`, `15m`, `90s`, a last day or an instant.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str =
            "write a last day such as 2027-01-31, an instant such as 2027-01-31T12:00:00Z, or how long: 30d, 12h, 15m";
        let length = admin::parse_duration_ms(text).map(Self::In);
        length.or_else(|| parse_expiry(text).map(Self::At)).ok_or(WRONG)
    }

    /// The same, without durations.
    pub(super) fn parse_at(text: &str) -> Result<i64, &'static str> {
        parse_expiry(text).ok_or("write a last day such as 2027-01-31, or an instant such as 2027-01-31T12:00:00Z")
    }

    /// The Unix second of the end. The end of a duration is rounded up, so that it is never shorter than given.
    pub(super) fn unix(self, now_unix_ms: i64) -> i64 {
        match self {
            Self::In(ms) => {
                let end = now_unix_ms.saturating_add(ms);
                end.div_euclid(1000) + i64::from(end.rem_euclid(1000) > 0)
            }
            Self::At(unix) => unix,
        }
    }
}

/// Reads a duration; returns milliseconds.
pub(super) fn length(text: &str) -> Result<i64, &'static str> {
    admin::parse_duration_ms(text).ok_or("write a length such as 24h, 30d, 15m or 0s")
}

/// An instant in UTC to the minute, for people.
pub(super) fn minute(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms)
        .map_or_else(|_| unix_ms.to_string(), |instant| instant.strftime("%Y-%m-%d %H:%M").to_string())
}

/// The day of an instant, in UTC.
pub(super) fn day(unix_ms: i64) -> String {
    let minute = minute(unix_ms);
    minute.split(' ').next().unwrap_or(&minute).to_owned()
}

/// An instant as RFC 3339, for programs.
pub(super) fn instant(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms)
        .map_or_else(|_| unix_ms.to_string(), |instant| instant.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

/// The expiry of a key, for people: its last day if it expires at midnight UTC.
pub(super) fn end(unix: i64) -> String {
    const DAY: i64 = 86_400;
    if unix.rem_euclid(DAY) == 0 {
        format!("end of {}", day(unix.saturating_sub(DAY).saturating_mul(1000)))
    } else {
        minute(unix.saturating_mul(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_shown_as_it_is_typed() {
        let check = |text: &str, shown: Option<&str>| {
            assert_eq!(budget(text).ok().as_ref().map(budget_text).as_deref(), shown, "{text}");
        };
        check("50.00/month", Some("50/month/UTC"));
        check("0.5/day/Europe/Paris", Some("0.5/day/Europe/Paris"));
        check("0.5/day/America/Argentina/Ushuaia", Some("0.5/day/America/Argentina/Ushuaia"));
        check("7", Some("7"));
        check("7/none", Some("7"));
        for wrong in ["", "/month", "-1/month", "1/credit", "1/week", "1/month/Atlantis", "1,5/month", "month/1"] {
            check(wrong, None);
        }
        let paris = budget("1250/month/Europe/Paris").expect("it is one");
        assert_eq!(format_budget(paris.limit, &paris.window), "$1,250 a month Europe/Paris");
    }

    #[test]
    fn an_amount_may_be_taken_back() {
        let check = |text: &str, expected: Option<i64>| assert_eq!(amount(text).ok().map(|a| a.0), expected, "{text}");
        check("25", Some(25_000_000_000));
        check("-0.000000001", Some(-1));
        for wrong in ["", "-", "--1", "+1", "1e3", "$1", "1.0000000001"] {
            check(wrong, None);
        }
    }

    #[test]
    fn an_end_is_a_last_day_an_instant_or_a_while() {
        let check = |text: &str, expected: Option<i64>| {
            assert_eq!(ExpiryTime::parse(text).ok().map(|end| end.unix(1_500)), expected, "{text}");
        };
        check("2027-01-31", Some(1_801_440_000));
        check("2027-01-31T12:00:00+02:00", Some(1_801_389_600));
        check("2000-02-29T00:00:00Z", Some(951_782_400));
        check("1d", Some(86_402));
        check("0s", Some(2));
        for wrong in
            ["", "soon", "2027-02-29", "2027-01-31T12:00:00", "20270131", "-1d", "12:00", "9999999999999999999d"]
        {
            check(wrong, None);
        }
        assert_eq!(end(1_801_440_000), "end of 2027-01-31");
        assert_eq!(end(1_801_389_600), "2027-01-31 10:00");
        assert_eq!(instant(1_801_389_600_000), "2027-01-31T10:00:00.000Z");
    }
}
