//! The small languages inside strings: durations, sizes, percentages, money, addresses, names.
//!
//! Each is a type of its own with one reader, so that no unit is ever guessed and no float is ever
//! money. The messages here never hold the value: it is underlined where it was written.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use toml::de::DeValue;

use super::reader::{Cell, Setting, Shown, Wrong};
use crate::domain::secret::{MASK, Secret};
use crate::domain::glob::Glob;
use crate::domain::money::{NanoUsd, PicoUsdPerToken};

/// Units of duration, the largest first so that a value is shown in the largest that divides it.
const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Units of size, the largest first.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Longest name we keep: names become labels and header values.
const NAME_MAX_BYTES: usize = 200;

/// A number and its unit, in the smallest unit of the table.
fn scaled(text: &str, units: &[(&str, u64)]) -> Result<u64, Wrong> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(Wrong::new("does not begin with a whole number"));
    }
    let names = || units.iter().rev().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    if unit.is_empty() {
        return Err(Wrong::new(format!("has no unit; units are {}", names())));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(Wrong::new(format!("has an unknown unit; units are {}", names())));
    };
    let number = number.parse::<u64>().ok();
    number.and_then(|n| n.checked_mul(*factor)).ok_or_else(|| Wrong::new("is too large"))
}

/// The shortest writing of `amount`, in the largest unit that divides it.
fn unscaled(amount: u64, units: &[(&str, u64)], smallest: &str) -> Shown {
    let fits = |(_, factor): &&(&str, u64)| amount != 0 && amount.is_multiple_of(*factor);
    let text = match units.iter().find(fits) {
        Some((name, factor)) => format!("{}{name}", amount / factor),
        None => format!("0{smallest}"),
    };
    Shown::Text(text)
}

/// The string of a cell, where a bare number would be a likely mistake.
fn quoted(cell: &Cell<'_>, what: &str) -> Result<String, Wrong> {
    match cell.value() {
        DeValue::Integer(_) | DeValue::Float(_) => {
            Err(Wrong::new(format!("{what} is written as a string, not as a number")))
        }
        _ => cell.text(),
    }
}

impl Setting for Duration {
    const EXPECTED: &'static str = "a duration such as \"250ms\", \"10s\" or \"5m\"";

    fn read(cell: &Cell<'_>) -> Result<Self, Wrong> {
        scaled(&quoted(cell, "a duration")?, &DURATION_UNITS).map(Duration::from_millis)
    }

    fn show(&self) -> Shown {
        let millis = u64::try_from(self.as_millis()).unwrap_or(u64::MAX);
        unscaled(millis, &DURATION_UNITS, "s")
    }
}

/// A duration that may not be zero: waiting no time at all would refuse everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait(pub(super) Duration);

impl Setting for Wait {
    const EXPECTED: &'static str = Duration::EXPECTED;

    fn read(cell: &Cell<'_>) -> Result<Self, Wrong> {
        let duration = Duration::read(cell)?;
        if duration.is_zero() {
            return Err(Wrong::new("is zero, which would leave no time at all"));
        }
        Ok(Self(duration))
    }

    fn show(&self) -> Shown {
        self.0.show()
    }
}

/// A number of bytes, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

impl Setting for Size {
    const EXPECTED: &'static str = "a size such as \"64KiB\", \"32MiB\" or \"1GiB\"";

    fn read(cell: &Cell<'_>) -> Result<Self, Wrong> {
        match scaled(&quoted(cell, "a size")?, &SIZE_UNITS)? {
            0 => Err(Wrong::new("is zero, which would leave no room at all")),
            bytes => Ok(Self(bytes)),
        }
    }

    fn show(&self) -> Shown {
        unscaled(self.0, &SIZE_UNITS, "B")
    }
}

/// A share of a whole in hundredths of a percent, from 0 to 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Percent {
    pub(super) basis_points: u32,
}

impl Percent {
    /// A whole number of percent.
    pub(super) const fn whole(percent: u32) -> Self {
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

impl Setting for Percent {
    const EXPECTED: &'static str = "a percentage such as \"20%\" or \"99.9%\"";

    fn read(cell: &Cell<'_>) -> Result<Self, Wrong> {
        let text = quoted(cell, "a percentage")?;
        Self::parse(&text).ok_or_else(|| Wrong::new("is not a percentage from 0% to 100% with at most two decimals"))
    }

    fn show(&self) -> Shown {
        let (whole, part) = (self.basis_points / 100, self.basis_points % 100);
        if part == 0 {
            return Shown::Text(format!("{whole}%"));
        }
        let text = format!("{whole}.{part:02}");
        Shown::Text(format!("{}%", text.trim_end_matches('0')))
    }
}

impl Setting for NanoUsd {
    const EXPECTED: &'static str = "an amount in USD as a string, such as \"500.00\"";

    fn read(cell: &Cell<'_>) -> Result<Self, Wrong> {
        let text = quoted(cell, "money")?;
        Self::parse_usd(&text)
            .ok_or_else(|| Wrong::new("is not a decimal amount of US dollars with at most nine decimals"))
    }

    fn show(&self) -> Shown {
        Shown::Text(self.to_string())
    }
}

impl Setting for PicoUsdPerToken {
    const EXPECTED: &'static str = "USD per million tokens as a string, such as \"0.25\"";

    fn read(cell: &Cell<'_>) -> Result<Self, Wrong> {
        let text = quoted(cell, "a price")?;
        Self::parse_usd_per_mtok(&text)
            .ok_or_else(|| Wrong::new("is not a price in USD per million tokens with at most six decimals"))
    }

    fn show(&self) -> Shown {
        Shown::Text(self.usd_per_mtok())
    }
}

impl Setting for SocketAddr {
    const EXPECTED: &'static str = "an address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"";

    fn read(cell: &Cell<'_>) -> Result<Self, Wrong> {
        let text = cell.text()?;
        text.parse().map_err(|_| Wrong::new("is not an IP address with a port"))
    }

    fn show(&self) -> Shown {
        Shown::Text(self.to_string())
    }
}

impl Setting for Secret {
    const EXPECTED: &'static str = "\"env:NAME\" or \"file:/path\"";
    const SECRET: bool = true;

    fn read(cell: &Cell<'_>) -> Result<Self, Wrong> {
        let text = cell.text()?;
        if !cell.points_elsewhere() && !cell.is_override() {
            return Err(Wrong::hinting(
                "a secret may not be written out in the file",
                "put it where the gateway starts and write \"env:NAME\" or \"file:/path\"",
            ));
        }
        // It travels in a header, or came in one.
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Wrong::hinting(
                "the secret is empty, or holds blanks or characters other than ASCII",
                "check for line ends and quotes around the secret",
            ));
        }
        Ok(Self::new(text))
    }

    fn show(&self) -> Shown {
        Shown::Masked
    }
}

/// The text of a file that is named, such as a certificate; may have many lines.
///
/// Nothing is kept of it: what it would be used for is not built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Document;

impl Setting for Document {
    const EXPECTED: &'static str = "\"file:/path\"";
    const SECRET: bool = true;

    fn read(cell: &Cell<'_>) -> Result<Self, Wrong> {
        cell.text()?;
        if !cell.points_elsewhere() {
            return Err(Wrong::new("the text of a file may not be written out here"));
        }
        Ok(Self)
    }

    fn show(&self) -> Shown {
        Shown::Masked
    }
}

/// Where a provider's API begins: scheme, host and path, without a slash at the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BaseUrl(pub(super) String);

impl Setting for BaseUrl {
    const EXPECTED: &'static str = "a URL such as \"https://api.example.com/v1\"";
    const SENSITIVE: bool = true;

    fn read(cell: &Cell<'_>) -> Result<Self, Wrong> {
        let text = cell.text()?;
        if text.contains(['@', '?', '#']) {
            cell.hide();
        }
        let url: http::Uri = text.parse().map_err(|_| Wrong::new("is not a URL"))?;
        let Some(authority) = url.authority() else {
            return Err(Wrong::new("has no host"));
        };
        if authority.as_str().contains('@') {
            cell.hide();
            return Err(Wrong::hinting("a URL may not hold a user or a password", "use `credential = \"env:NAME\"`"));
        }
        if !matches!(url.scheme_str(), Some("http" | "https")) || authority.host().is_empty() {
            return Err(Wrong::new("is not an http or https URL"));
        }
        if url.query().is_some() || text.contains('#') {
            return Err(Wrong::new("may not hold a query or a fragment"));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }

    fn show(&self) -> Shown {
        Shown::Text(self.0.clone())
    }
}

/// The URL of a store, which may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct StoreUrl(pub(super) String);

impl StoreUrl {
    const SCHEMES: [&str; 6] = ["memory:", "sqlite:", "postgres://", "postgresql://", "redis://", "rediss://"];

    /// The URL without what stands before an `@`.
    pub(super) fn masked(&self) -> String {
        match (self.0.find("://"), self.0.rfind('@')) {
            (Some(scheme), Some(at)) if scheme < at => {
                format!("{}{MASK}{}", &self.0[..scheme + 3], &self.0[at..])
            }
            _ => self.0.clone(),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl Setting for StoreUrl {
    const EXPECTED: &'static str = "\"memory:\", \"sqlite:PATH\", \"postgres://…\", or for `shared` \"redis://…\"";

    const SENSITIVE: bool = true;

    fn read(cell: &Cell<'_>) -> Result<Self, Wrong> {
        let text = cell.text()?;
        if text.contains('@') {
            cell.hide();
        }
        if !Self::SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
            return Err(Wrong::new("is not the URL of a store we know"));
        }
        Ok(Self(text))
    }

    fn show(&self) -> Shown {
        Shown::Text(self.masked())
    }
}

/// Which log lines are written: a level, or directives such as `info,tierway::relay=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogFilter(pub(super) String);

impl Setting for LogFilter {
    const EXPECTED: &'static str = "a level: error, warn, info, debug or trace";

    fn read(cell: &Cell<'_>) -> Result<Self, Wrong> {
        let text = cell.text()?;
        let level = text.split(['=', ',']).all(|part| !part.trim().is_empty());
        match tracing_subscriber::EnvFilter::try_new(&text) {
            Ok(_) if level && known_levels(&text) => Ok(Self(text)),
            _ => Err(Wrong::new("is not a log level")),
        }
    }

    fn show(&self) -> Shown {
        Shown::Text(self.0.clone())
    }
}

/// A directive without `=` is a level here, never the name of a module: `inof` would log nothing.
fn known_levels(text: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let level = |part: &str| part.rsplit('=').next().unwrap_or(part).trim().to_ascii_lowercase();
    text.split(',').all(|part| LEVELS.contains(&level(part).as_str()))
}

/// A name of the operator's choosing: printable ASCII without blanks, since it becomes a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name(pub(super) String);

impl Name {
    /// What is wrong with `text` as a name, if anything.
    pub(super) fn fault(text: &str) -> Option<Wrong> {
        if text.is_empty() {
            return Some(Wrong::hinting("a name may not be empty", Self::HINT));
        }
        if text.len() > NAME_MAX_BYTES {
            let message = format!("a name may not be longer than {NAME_MAX_BYTES} bytes");
            return Some(Wrong::hinting(message, Self::HINT));
        }
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\');
        if !text.bytes().all(plain) {
            return Some(Wrong::hinting("a name is ASCII without blanks, quotes and backslashes", Self::HINT));
        }
        None
    }

    const HINT: &'static str = "names become labels and header values: letters, digits and - _ . / :";
}

impl Setting for Name {
    const EXPECTED: &'static str = "a name in double quotes";

    fn read(cell: &Cell<'_>) -> Result<Self, Wrong> {
        let text = cell.text()?;
        match Self::fault(&text) {
            Some(wrong) => Err(wrong),
            None => Ok(Self(text)),
        }
    }

    fn show(&self) -> Shown {
        Shown::Text(self.0.clone())
    }
}

impl Setting for Glob {
    const EXPECTED: &'static str = "a name or a pattern such as \"eu-*\"";

    fn read(cell: &Cell<'_>) -> Result<Self, Wrong> {
        let Name(text) = Name::read(cell)?;
        Ok(Self::new(&text))
    }

    fn show(&self) -> Shown {
        Shown::Text(self.as_str().to_owned())
    }
}

/// The last day on which something works, or the instant it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expiry {
    written: toml::value::Datetime,
    /// From this Unix second on it no longer works.
    pub(super) ends_unix: i64,
}

impl Expiry {
    fn of(written: toml::value::Datetime) -> Option<Self> {
        let date = written.date?;
        let midnight = days_from_civil(&date)? * 86_400;
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

/// Days from 1970-01-01 to a date of the Gregorian calendar; `None` for a day that does not exist.
fn days_from_civil(date: &toml::value::Date) -> Option<i64> {
    let (year, month, day) = (i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let index = usize::try_from(month - 1).ok()?;
    if day < 1 || day > *lengths.get(index)? {
        return None;
    }
    let before: i64 = lengths[..index].iter().sum();
    let years = year - 1;
    let leap_days = years.div_euclid(4) - years.div_euclid(100) + years.div_euclid(400);
    // 719,162 days lie between 0001-01-01 and 1970-01-01.
    Some(years * 365 + leap_days + before + day - 1 - 719_162)
}

impl Setting for Expiry {
    const EXPECTED: &'static str = "a date such as \"2027-01-31\" or a time such as \"2027-01-31T12:00:00Z\"";

    fn read(cell: &Cell<'_>) -> Result<Self, Wrong> {
        let written = match cell.value() {
            DeValue::Datetime(written) => Some(*written),
            _ => cell.text()?.parse().ok(),
        };
        written.and_then(Self::of).ok_or_else(|| Wrong::new("is not a date, or a time with its offset"))
    }

    fn show(&self) -> Shown {
        Shown::Text(self.written.to_string())
    }
}

/// When a hedge starts: at a percentile of the usual first token, or after a fixed time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HedgeAfter(String);

impl Setting for HedgeAfter {
    const EXPECTED: &'static str = "a percentile such as \"p95\", or a duration";

    fn read(cell: &Cell<'_>) -> Result<Self, Wrong> {
        let text = cell.text()?;
        let percentile = text.strip_prefix('p').and_then(|digits| digits.parse::<u8>().ok());
        match percentile {
            Some(1..=99) => Ok(Self(text)),
            Some(_) => Err(Wrong::new("is not a percentile from p1 to p99")),
            None => Wait::read(cell).map(|_| Self(text)),
        }
    }

    fn show(&self) -> Shown {
        Shown::Text(self.0.clone())
    }
}

/// `sha256:` and 64 hex digits: what is kept of a key's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sha256(pub(super) [u8; 32]);

impl Sha256 {
    const PREFIX: &str = "sha256:";

    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(Self::PREFIX)?.as_bytes();
        let mut hash = [0_u8; 32];
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            *byte = u8::try_from(high * 16 + low).ok()?;
        }
        Some(Self(hash))
    }
}

impl Setting for Sha256 {
    const EXPECTED: &'static str = "\"sha256:\" and 64 hex digits";
    const SENSITIVE: bool = true;

    fn read(cell: &Cell<'_>) -> Result<Self, Wrong> {
        let text = cell.text()?;
        Self::parse(&text).ok_or_else(|| {
            // It may be the secret itself, in the wrong place.
            cell.hide();
            Wrong::hinting(
                "is not a SHA-256 hash",
                format!("write {}, as `printf %s \"$KEY\" | sha256sum` prints them", Self::EXPECTED),
            )
        })
    }

    fn show(&self) -> Shown {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        Shown::Text(format!("{}{digits}", Self::PREFIX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &impl Setting) -> String {
        match value.show() {
            Shown::Text(text) => text,
            other => panic!("not text: {other:?}"),
        }
    }

    #[test]
    fn numbers_carry_their_unit() {
        let check = |text: &str, expected: Result<u64, &str>| {
            let found = scaled(text, &DURATION_UNITS).map_err(|wrong| wrong.message);
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
        check(&|| shown(&Size(32 << 20)), "32MiB");
        check(&|| shown(&Size(1000)), "1000B");
        check(&|| shown(&Percent { basis_points: 9990 }), "99.9%");
        check(&|| shown(&Percent { basis_points: 5 }), "0.05%");
        check(&|| shown(&Percent::whole(20)), "20%");
        check(&|| shown(&StoreUrl("postgres://me:hush@db/x".to_owned())), "postgres://********@db/x");
        check(&|| shown(&StoreUrl("sqlite:a@b.db".to_owned())), "sqlite:a@b.db");
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

    #[test]
    fn hashes_are_64_hex_digits() {
        let zeros = "0".repeat(62);
        let check = |text: String, expected: Option<u8>| {
            assert_eq!(Sha256::parse(&text).map(|h| h.0[31]), expected, "{text}");
        };
        check(format!("sha256:{zeros}fF"), Some(255));
        check(format!("sha256:{zeros}f"), None);
        check(format!("sha256:{zeros}fg"), None);
        check(format!("sha256:{zeros}é"), None);
        check(format!("md5:{zeros}ff"), None);
    }

    #[test]
    fn a_misspelt_level_is_not_a_module() {
        let check = |text, expected| assert_eq!(known_levels(text), expected, "{text}");
        check("info", true);
        check("INFO", true);
        check("info,tierway::relay=debug", true);
        check("inof", false);
        check("tierway", false);
        check("tierway=loud", false);
    }
}
