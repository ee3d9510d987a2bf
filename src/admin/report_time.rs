//! Points in time as people write them: `30d`, `2026-11-01`, `2026-11-01T12:00:00Z`.
//!
//! Days are days of UTC, as those of the ledger are. The current time is an argument.
//!
//! Start reading at [`ReportTime::parse`] and [`parse_expiry`].

use jiff::Timestamp;
use jiff::civil::Date;

const DAY_MS: i64 = 86_400_000;

/// A point in time, relative to now or absolute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReportTime {
    /// Milliseconds before now.
    Ago(i64),
    /// Unix milliseconds.
    At(i64),
}

impl ReportTime {
    /// The Unix milliseconds of it.
    pub fn unix_ms(self, now_unix_ms: i64) -> i64 {
        match self {
            Self::Ago(ms) => now_unix_ms.saturating_sub(ms),
            Self::At(unix_ms) => unix_ms,
        }
    }

    /// Reads how long ago (`30d`, `12h`, `15m`), the beginning of a day (`2026-11-01`), or an instant with its offset.
    ///
    /// # Errors
    /// What to write instead, for people.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "write how long ago, such as 30d, 12h or 15m, or a date such as 2026-11-01";
        if let Some(day) = day_of(text) {
            return Ok(Self::At(day * DAY_MS));
        }
        if let Some(unix_ms) = instant(text) {
            return Ok(Self::At(unix_ms));
        }
        parse_duration_ms(text).filter(|_| !text.ends_with('s')).map(Self::Ago).ok_or(WRONG)
    }
}

/// The milliseconds of a duration such as `30d`, `12h`, `15m` or `90s`; `None` for any other text.
pub fn parse_duration_ms(text: &str) -> Option<i64> {
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

/// The Unix second at which something expires, given its last day or the instant of its end; `None` for any other
/// text.
pub fn parse_expiry(text: &str) -> Option<i64> {
    let day = day_of(text).map(|day| (day + 1) * DAY_MS);
    day.or_else(|| instant(text)).map(|unix_ms| unix_ms.div_euclid(1000))
}

/// The Unix milliseconds of an instant with its offset, such as `2026-11-01T12:00:00Z`, from 1970 to 9999.
fn instant(text: &str) -> Option<i64> {
    let plain = |byte: u8| byte.is_ascii_digit() || b"-:.TZ+".contains(&byte);
    if !text.bytes().all(plain) || text.as_bytes().get(10) != Some(&b'T') {
        return None;
    }
    day_of(&text[..10])?;
    text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond).filter(|unix_ms| *unix_ms >= 0)
}

/// The number of days from 1970-01-01 to the date `YYYY-MM-DD`; `None` for another form, or an earlier date.
fn day_of(text: &str) -> Option<i64> {
    let is_date = text.len() == 10
        && text
            .bytes()
            .enumerate()
            .all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() });
    let date: Date = text.parse().ok().filter(|_| is_date)?;
    let days = date.since(Date::constant(1970, 1, 1)).ok()?.get_days();
    u32::try_from(days).ok().map(i64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_how_long_ago_or_a_date() {
        let check =
            |text: &str, expected: Option<ReportTime>| assert_eq!(ReportTime::parse(text).ok(), expected, "{text}");
        check("30d", Some(ReportTime::Ago(30 * DAY_MS)));
        check("12h", Some(ReportTime::Ago(43_200_000)));
        check("15m", Some(ReportTime::Ago(900_000)));
        check("1970-01-01", Some(ReportTime::At(0)));
        check("2000-02-29", Some(ReportTime::At(951_782_400_000)));
        check("2026-11-22", Some(ReportTime::At(1_795_305_600_000)));
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

    #[test]
    fn a_time_has_an_offset() {
        let check =
            |text: &str, expected: Option<ReportTime>| assert_eq!(ReportTime::parse(text).ok(), expected, "{text}");
        check("2026-11-22T00:00:00Z", Some(ReportTime::At(1_795_305_600_000)));
        check("2026-11-22T01:00:00.250+01:00", Some(ReportTime::At(1_795_305_600_250)));
        for wrong in
            ["2026-11-22T00:00:00", "2026-11-22 00:00:00Z", "2026-11-22T00:00:00Z[UTC]", "1969-12-31T23:00:00Z"]
        {
            check(wrong, None);
        }
    }

    #[test]
    fn what_expires_works_to_the_end_of_its_last_day() {
        let check = |text: &str, expected: Option<i64>| assert_eq!(parse_expiry(text), expected, "{text}");
        check("1970-01-01", Some(86_400));
        check("2027-01-31", Some(1_801_440_000));
        check("2000-02-29T00:00:00Z", Some(951_782_400));
        check("2027-01-31T12:00:00+02:00", Some(1_801_389_600));
        for wrong in ["2027-02-29", "2027-01-31T12:00:00", "12:00:00", "30d", ""] {
            check(wrong, None);
        }
    }
}
