//! An instant in the format of RFC 3339, for logs and tools.
//!
//! It only formats: nothing here parses a date, and nothing asks what time it is.

use std::fmt;
use std::io::Write as _;

use jiff::civil::{DateTime, date};
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

const UNIX_EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// Unix milliseconds, shown as `2026-11-22T14:57:03.123Z`.
pub struct Rfc3339Text(pub i64);

impl Rfc3339Text {
    /// A civil time, not a `Timestamp`: that ends a day before the last of the year 9999.
    fn civil(&self) -> DateTime {
        UNIX_EPOCH.saturating_add(SignedDuration::from_millis(self.0))
    }

    /// Appends it to `out`, digit by digit: every line of the access log has one (`make instructions`: a quarter of
    /// what it costs through `Display`).
    pub fn put(&self, out: &mut Vec<u8>) {
        let at = Timestamp::from_millisecond(self.0).map(|at| Offset::UTC.to_datetime(at));
        let Some(at) = at.ok().filter(|at| at.year() >= 0) else {
            return write!(out, "{self}").expect("writing to a Vec cannot fail");
        };
        let [month, day, hour, minute, second] =
            [at.month(), at.day(), at.hour(), at.minute(), at.second()].map(i16::from);
        for (number, width, after) in [
            (at.year(), 4, b'-'),
            (month, 2, b'-'),
            (day, 2, b'T'),
            (hour, 2, b':'),
            (minute, 2, b':'),
            (second, 2, b'.'),
            (at.millisecond(), 3, b'Z'),
        ] {
            let digits = [number / 1000, number / 100, number / 10, number].map(|digits| b'0' + (digits % 10) as u8);
            out.extend_from_slice(&digits[digits.len() - width..]);
            out.push(after);
        }
    }
}

impl fmt::Display for Rfc3339Text {
    /// What lies outside the years -9999 to 9999 is shown as the nearest instant inside them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}Z", self.civil())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_shown_in_utc() {
        let check = |ms: i64, expected: &str| {
            let mut put = Vec::new();
            Rfc3339Text(ms).put(&mut put);
            assert_eq!((&*Rfc3339Text(ms).to_string(), &*put), (expected, expected.as_bytes()));
        };
        check(0, "1970-01-01T00:00:00.000Z");
        check(-1, "1969-12-31T23:59:59.999Z");
        check(951_782_399_999, "2000-02-28T23:59:59.999Z");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z");
        check(951_868_800_000, "2000-03-01T00:00:00.000Z");
        check(1_000_000_000_000, "2001-09-09T01:46:40.000Z");
        check(4_107_542_400_000, "2100-03-01T00:00:00.000Z");
        check(4_107_456_000_000, "2100-02-28T00:00:00.000Z");
        check(253_402_300_799_999, "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn what_is_no_date_is_shown_as_the_nearest() {
        assert_eq!(Rfc3339Text(i64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Rfc3339Text(i64::MIN).to_string(), "-009999-01-01T00:00:00.000Z");
        let mut put = Vec::new();
        Rfc3339Text(i64::MIN).put(&mut put);
        assert_eq!(put, b"-009999-01-01T00:00:00.000Z");
    }
}
