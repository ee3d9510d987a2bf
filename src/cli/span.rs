//! Spans of time on the command line: `30d`, `2026-11-01`.
//!
//! Days are days of UTC, as the ledger's own are.

use clap::Args;

const DAY_MS: i64 = 86_400_000;

/// From when to when receipts are read.
#[derive(Args, Debug)]
pub(super) struct Span {
    /// Received since: a number of days, hours or minutes ago (30d, 12h, 15m), or a date (2026-11-01)
    #[arg(long, value_name = "WHEN", value_parser = When::parse)]
    since: Option<When>,
    /// Received before: the same
    #[arg(long, value_name = "WHEN", value_parser = When::parse)]
    until: Option<When>,
}

/// A moment: so many milliseconds ago, or in Unix milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    Ago(i64),
    At(i64),
}

impl Span {
    /// The first moment, in Unix milliseconds; `None`: the beginning.
    pub(super) fn since(&self, now_unix_ms: i64) -> Option<i64> {
        self.since.map(|when| when.unix_ms(now_unix_ms))
    }

    /// The moment after the last; `None`: now.
    pub(super) fn until(&self, now_unix_ms: i64) -> Option<i64> {
        self.until.map(|when| when.unix_ms(now_unix_ms))
    }
}

impl When {
    fn unix_ms(self, now_unix_ms: i64) -> i64 {
        match self {
            Self::Ago(ms) => now_unix_ms.saturating_sub(ms),
            Self::At(unix_ms) => unix_ms,
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "write how long ago, such as 30d, 12h or 15m, or a date such as 2026-11-01";
        if let Some(day) = day_of(text) {
            return Ok(Self::At(day * DAY_MS));
        }
        length(text).filter(|_| !text.ends_with('s')).map(Self::Ago).ok_or(WRONG)
    }
}

/// The milliseconds of a length such as `30d`, `12h`, `15m` or `90s`; `None` where it is none.
pub(super) fn length(text: &str) -> Option<i64> {
    let unit = match text.chars().last()? {
        'd' => DAY_MS,
        'h' => 3_600_000,
        'm' => 60_000,
        's' => 1_000,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse::<i64>().ok().filter(|_| digits)?.checked_mul(unit)
}

/// The day of `YYYY-MM-DD`, counted from 1970-01-01; `None` where it is no date.
fn day_of(text: &str) -> Option<i64> {
    let fields: Vec<&str> = text.split('-').collect();
    let [year, month, day] = fields[..] else { return None };
    if (year.len(), month.len(), day.len()) != (4, 2, 2) || !fields.concat().bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, month, day): (i64, i64, i64) = (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let index = usize::try_from(month.checked_sub(1)?).ok()?;
    if year < 1970 || !(1..=*days.get(index)?).contains(&day) {
        return None;
    }
    let before = year - 1;
    let leaps = before / 4 - before / 100 + before / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    Some((year - 1970) * 365 + leaps + days[..index].iter().sum::<i64>() + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_how_long_ago_or_a_date() {
        let check = |text: &str, expected: Option<When>| assert_eq!(When::parse(text).ok(), expected, "{text}");
        check("30d", Some(When::Ago(30 * DAY_MS)));
        check("12h", Some(When::Ago(43_200_000)));
        check("15m", Some(When::Ago(900_000)));
        check("1970-01-01", Some(When::At(0)));
        check("2000-02-29", Some(When::At(951_782_400_000)));
        check("2026-11-22", Some(When::At(1_795_305_600_000)));
        for wrong in [
            "",
            "d",
            "30",
            "-1d",
            "+1d",
            "1.5h",
            "é",
            "1é",
            "2026-11-31",
            "2025-02-29",
            "2026-1-1",
            "9999999999999999999d",
        ] {
            check(wrong, None);
        }
    }
}
