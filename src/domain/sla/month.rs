//! Calendar months, as an SLA counts them: written `2026-11`, and as long as their zone says.
//!
//! Start reading at [`SlaMonth::span`].

use crate::domain::budget::{BudgetPeriod, WindowSpan, Zone};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::fmt;

/// A month closes so long after its end: receipts that were delayed have arrived by then.
pub const CLOSES_AFTER_MS: i64 = 48 * 3_600_000;
/// A day in the middle of every month, in every zone.
const MIDDLE: i8 = 15;

/// A calendar month.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlaMonth {
    year: i16,
    month: i8,
}

impl SlaMonth {
    /// The month that is written as `2026-11`, of the years 1970 to 8999; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let (year, month) = text.split_once('-')?;
        let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
        let (year, month) =
            (digits(year, 4).then(|| year.parse().ok())??, digits(month, 2).then(|| month.parse().ok())??);
        (1970..9000).contains(&year).then_some(())?;
        Date::new(year, month, MIDDLE).ok().map(|_| Self { year, month })
    }

    /// The month of `zone` that `unix_ms` is in.
    pub fn at(unix_ms: i64, zone: &Zone) -> Self {
        let WindowSpan { start_ms, end_ms } = BudgetPeriod::Month(zone.clone()).at(unix_ms);
        let middle = Timestamp::from_millisecond(start_ms.midpoint(end_ms)).unwrap_or(Timestamp::UNIX_EPOCH);
        let date = middle.to_zoned_datetime(TimeZone::UTC).date();
        Self { year: date.year(), month: date.month() }
    }

    /// When it begins and ends in `zone`.
    pub fn span(self, zone: &Zone) -> WindowSpan {
        let middle = Date::new(self.year, self.month, MIDDLE).and_then(|date| date.to_zoned_datetime(TimeZone::UTC));
        let unix_ms = middle.map_or(0, |middle| middle.timestamp().as_millisecond());
        BudgetPeriod::Month(zone.clone()).at(unix_ms)
    }

    /// When it may be closed, in Unix milliseconds.
    pub fn closes_unix_ms(self, zone: &Zone) -> i64 {
        self.span(zone).end_ms.saturating_add(CLOSES_AFTER_MS)
    }
}

impl fmt::Display for SlaMonth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:04}-{:02}", self.year, self.month))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap_or_else(|error| panic!("{text}: {error}")).as_millisecond()
    }

    #[test]
    fn a_month_is_written_with_its_year() {
        assert_eq!(SlaMonth::parse("2026-11").map(|month| month.to_string()).as_deref(), Some("2026-11"));
        for wrong in
            ["", "2026", "2026-13", "2026-00", "2026-1", "26-11", "2026-11-01", "+026-11", "1969-12", "9000-01"]
        {
            assert_eq!(SlaMonth::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_month_begins_and_ends_in_its_zone() {
        let check = |month: &str, zone: &str, start: &str, end: &str| {
            let zone = Zone::named(zone).expect("a built-in zone");
            let month = SlaMonth::parse(month).expect("a month");
            assert_eq!(month.span(&zone), WindowSpan { start_ms: ms(start), end_ms: ms(end) }, "{month}");
            assert_eq!(SlaMonth::at(ms(start), &zone), month);
            assert_eq!(SlaMonth::at(ms(end) - 1, &zone), month);
            assert_ne!(SlaMonth::at(ms(end), &zone), month);
            assert_ne!(SlaMonth::at(ms(start) - 1, &zone), month);
        };
        check("2026-11", "UTC", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z");
        check("2026-10", "Europe/Paris", "2026-09-30T22:00:00Z", "2026-10-31T23:00:00Z");
        check("2026-12", "Pacific/Kiritimati", "2026-11-30T10:00:00Z", "2026-12-31T10:00:00Z");
        check("2026-12", "Pacific/Pago_Pago", "2026-12-01T11:00:00Z", "2027-01-01T11:00:00Z");
    }

    #[test]
    fn a_month_closes_two_days_after_its_end() {
        let utc = Zone::named("UTC").expect("UTC is built in");
        let month = SlaMonth::parse("2026-11").expect("a month");
        assert_eq!(month.closes_unix_ms(&utc), ms("2026-12-03T00:00:00Z"));
    }
}
