//! Budgets: how much money an account may spend in which window of time.
//!
//! It exists so that a limit of money is arithmetic that can be tested: an account, a window with a start and an
//! end, and how much of it may be leased. A window is never reset; when it ends the next one begins, so nothing is
//! lost and no window opens twice. It must never read the clock or the system's time zones: the time is passed in
//! as Unix milliseconds, and the zones are built in.
//!
//! Start reading in [`Budget`], then [`BudgetPeriod::at`] and [`grant`].

use crate::domain::money::NanoUsd;
use jiff::civil::Date;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The most that is leased ahead of need, in nano-dollars: one dollar.
const LEASE_MAX: i64 = 1_000_000_000;
/// At most this fraction of the limit is leased ahead, so that several processes can share a small limit.
const LEASE_PART: i64 = 100;
/// At most this fraction of what is left is leased ahead, so that no process takes all of the last money.
const LEFT_PART: i64 = 4;

/// A limit on what an account may spend in each window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Budget {
    /// The account that is limited.
    pub account: Arc<Account>,
    /// The most that may be spent in each window.
    pub limit: NanoUsd,
    /// How long a window is.
    pub window: BudgetPeriod,
}

impl Budget {
    /// The budget of `name`.
    pub fn new(scope: Scope, name: Arc<str>, limit: NanoUsd, window: BudgetPeriod) -> Self {
        let account = Arc::new(Account { scope, name, window: window.to_string().into() });
        Self { account, limit, window }
    }
}

/// A budget that is not yet assigned to an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BudgetSpec {
    /// The most that may be spent in each window.
    pub limit: NanoUsd,
    /// How long a window is.
    pub window: BudgetPeriod,
}

impl BudgetSpec {
    /// This budget for the account of `name`.
    pub fn of(&self, scope: Scope, name: Arc<str>) -> Budget {
        Budget::new(scope, name, self.limit, self.window.clone())
    }
}

/// Whether credit is spent before budgets or instead of them; the rules are in [`funding`](super::funding).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum CreditUse {
    /// Credit is spent first: the key's, then its team's. Each budget holds what credit does not cover, and only
    /// that counts against the budgets.
    #[default]
    First,
    /// Only what credit covers is served, and all of it counts against each budget as well.
    Only,
}

/// What money is counted for. It outlives every configuration: equal names are the same account.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Account {
    /// What kind of thing `name` is.
    pub scope: Scope,
    /// The name of the key, team or policy.
    pub name: Arc<str>,
    /// The window as text, such as `month Europe/Paris`: days and months are counted separately.
    pub window: Arc<str>,
}

/// The kind of thing that has a budget.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Scope {
    /// One key.
    Key,
    /// All keys of a team together.
    Team,
    /// All keys of a policy together.
    Policy,
}

impl Scope {
    /// The label in metrics, messages and tables.
    pub fn label(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Team => "team",
            Self::Policy => "policy",
        }
    }

    /// The scope with this label.
    pub fn of_label(label: &str) -> Option<Self> {
        [Self::Key, Self::Team, Self::Policy].into_iter().find(|scope| scope.label() == label)
    }
}

/// A named time zone, from the built-in tables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zone(TimeZone);

impl Zone {
    /// The zone called `name`, such as `Europe/Paris`; `None` if there is none.
    pub fn named(name: &str) -> Option<Self> {
        TimeZoneDatabase::bundled().get(name).ok().map(Self)
    }

    /// The name of the zone.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }
}

/// When a window ends and the next one begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BudgetPeriod {
    /// Every midnight of the zone.
    Day(Zone),
    /// At the first midnight of every month in the zone.
    Month(Zone),
    /// Never: the limit is for ever.
    Ever,
    /// Never: it is prepaid, and the limit is the sum of all grants.
    Credit,
}

/// The time of one window: from `start_ms` to before `end_ms`, in Unix milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct WindowSpan {
    /// The first millisecond of the window.
    pub start_ms: i64,
    /// The first millisecond after the window.
    pub end_ms: i64,
}

impl WindowSpan {
    /// The one window of a budget without an end.
    pub const EVER: Self = Self { start_ms: i64::MIN, end_ms: i64::MAX };

    /// When the window ends, in Unix milliseconds; `None`: never.
    pub fn ends(self) -> Option<i64> {
        (self != Self::EVER).then_some(self.end_ms)
    }
}

impl BudgetPeriod {
    /// The window that contains `unix_ms`. Windows neither overlap nor leave a gap, even if the zone's clocks are set
    /// forward over midnight, back over it, or over a whole day.
    pub fn at(&self, unix_ms: i64) -> WindowSpan {
        let (zone, monthly) = match self {
            Self::Day(zone) => (zone, false),
            Self::Month(zone) => (zone, true),
            Self::Ever | Self::Credit => return WindowSpan::EVER,
        };
        let first = |date: Date| if monthly { date.first_of_month() } else { date };
        let next = |date: Date| date.saturating_add(if monthly { 1.month() } else { 1.day() });
        let unix_ms = unix_ms.clamp(YEARS.0, YEARS.1);
        let instant = Timestamp::from_millisecond(unix_ms).expect("these years are within the calendar");
        let mut begins = first(instant.to_zoned_datetime(zone.0.clone()).date());
        let mut span = WindowSpan { start_ms: midnight(begins, zone), end_ms: midnight(next(begins), zone) };
        // Clocks that are set back over midnight show the old date again after the new one has begun.
        while span.end_ms <= unix_ms {
            begins = next(begins);
            span = WindowSpan { start_ms: span.end_ms, end_ms: midnight(next(begins), zone) };
        }
        span
    }
}

/// Instants are clamped to the years 1 to 9000, in Unix milliseconds, which the calendar supports.
const YEARS: (i64, i64) = (-62_135_596_800_000, 221_845_392_000_000);

/// When `date` begins in `zone`: at the first midnight, or, if clocks skip midnight, at the first instant after it.
fn midnight(date: Date, zone: &Zone) -> i64 {
    let begins = date.to_zoned_datetime(zone.0.clone()).expect("the years are within the calendar");
    begins.timestamp().as_millisecond()
}

impl fmt::Display for BudgetPeriod {
    /// `day UTC`, `month Europe/Paris`, `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day(zone) => write!(f, "day {}", zone.name()),
            Self::Month(zone) => write!(f, "month {}", zone.name()),
            Self::Ever => f.write_str("none"),
            Self::Credit => f.write_str(CREDIT),
        }
    }
}

/// The text form of [`BudgetPeriod::Credit`].
pub const CREDIT: &str = "credit";

impl FromStr for BudgetPeriod {
    type Err = UnknownBudgetPeriod;

    /// The inverse of [`Display`](fmt::Display); a day or month without a zone is in UTC.
    fn from_str(text: &str) -> Result<Self, UnknownBudgetPeriod> {
        let (length, zone) = text.split_once(' ').unwrap_or((text, "UTC"));
        let zone = || Zone::named(zone).ok_or(UnknownBudgetPeriod);
        match length {
            "day" => zone().map(Self::Day),
            "month" => zone().map(Self::Month),
            "none" if text == length => Ok(Self::Ever),
            CREDIT if text == length => Ok(Self::Credit),
            _ => Err(UnknownBudgetPeriod),
        }
    }
}

/// A text that is no window, or names an unknown zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownBudgetPeriod;

/// A time in which a process may spend what it has leased; terms are numbered upwards. When one ends, what is still leased in
/// it counts as spent, and the process leases anew in the next one. Where nobody else leases, there is one for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct LeaseTerm(pub i64);

/// What one request is charged to one account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Charge {
    /// The account that pays.
    pub account: Arc<Account>,
    /// The window that pays: that in which the hold was made.
    pub span: WindowSpan,
    /// The amount spent.
    pub spent: NanoUsd,
    /// The part of it that had been leased: less than `spent` only if a provider served more than it was asked for.
    pub leased: NanoUsd,
    /// The term in which it was leased.
    pub term: LeaseTerm,
}

impl Charge {
    /// The return of `amount`, leased in `term` and not spent.
    pub fn returned(account: &Arc<Account>, span: WindowSpan, amount: NanoUsd, term: LeaseTerm) -> Self {
        Self { account: account.clone(), span, spent: NanoUsd::ZERO, leased: amount, term }
    }
}

/// The refusal of a request whose hold does not fit in an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OverBudget {
    /// The account that refuses.
    pub account: Arc<Account>,
    /// The limit of its window.
    pub limit: NanoUsd,
    /// What is neither spent nor held; negative if the limit was lowered below what is spent.
    pub left: NanoUsd,
    /// The amount that the request needs to hold.
    pub wanted: NanoUsd,
    /// When the window ends, in Unix milliseconds; `None`: never.
    pub ends_unix_ms: Option<i64>,
}

/// The status of an account, as this process sees it: what other processes have leased counts as spent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountStatus {
    /// The account.
    pub account: Arc<Account>,
    /// The limit of its window.
    pub limit: NanoUsd,
    /// Spent in its window.
    pub spent: NanoUsd,
    /// Held by running requests.
    pub held: NanoUsd,
}

/// The most that is leased ahead of need under `limit`.
pub fn lease_ahead(limit: NanoUsd) -> NanoUsd {
    NanoUsd((limit.0 / LEASE_PART).clamp(0, LEASE_MAX))
}

/// What a lease store grants of a window of which `taken` is spent or leased: `need` and a part of `ahead`, or all
/// that is left if that is less than `need`. Never negative, and never more than is left.
pub fn grant(limit: NanoUsd, taken: NanoUsd, need: NanoUsd, ahead: NanoUsd) -> NanoUsd {
    let left = limit.0.saturating_sub(taken.0).max(0);
    let spare = left.saturating_sub(need.0.max(0));
    NanoUsd(if spare <= 0 { left } else { need.0.max(0) + ahead.0.clamp(0, spare / LEFT_PART) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;

    fn zone(name: &str) -> Zone {
        Zone::named(name).unwrap_or_else(|| panic!("{name} is a built-in zone"))
    }

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap_or_else(|error| panic!("{text}: {error}")).as_millisecond()
    }

    fn check(window: &BudgetPeriod, at: &str, start: &str, end: &str) {
        let found = window.at(ms(at));
        assert_eq!(found, WindowSpan { start_ms: ms(start), end_ms: ms(end) }, "{window} at {at}");
    }

    #[test]
    fn days_are_as_long_as_the_zone_says() {
        let utc = BudgetPeriod::Day(zone("UTC"));
        check(&utc, "2026-12-31T23:59:59.999Z", "2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z");
        check(&utc, "2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z", "2027-01-02T00:00:00Z");
        let paris = BudgetPeriod::Day(zone("Europe/Paris"));
        check(&paris, "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        check(&paris, "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        check(&paris, "2026-12-31T23:00:00Z", "2026-12-31T23:00:00Z", "2027-01-01T23:00:00Z");
        // São Paulo set its clocks forward at midnight, so that day began at one; and back to eleven.
        let sao_paulo = BudgetPeriod::Day(zone("America/Sao_Paulo"));
        check(&sao_paulo, "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z");
        check(&sao_paulo, "2018-11-04T02:59:59Z", "2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z");
        check(&sao_paulo, "2018-02-18T02:30:00Z", "2018-02-17T02:00:00Z", "2018-02-18T03:00:00Z");
        check(&sao_paulo, "2018-02-18T03:00:00Z", "2018-02-18T03:00:00Z", "2018-02-19T03:00:00Z");
        // St John's set them back at one minute past midnight: the old day is shown twice, and counted once.
        let st_johns = BudgetPeriod::Day(zone("America/St_Johns"));
        check(&st_johns, "2010-11-07T02:30:30Z", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z");
        check(&st_johns, "2010-11-07T03:00:00Z", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z");
        // Apia skipped a whole day.
        let apia = BudgetPeriod::Day(zone("Pacific/Apia"));
        check(&apia, "2011-12-30T09:59:59Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z");
        check(&apia, "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z");
    }

    #[test]
    fn months_end_at_midnight_of_the_zone() {
        let utc = BudgetPeriod::Month(zone("UTC"));
        check(&utc, "2028-02-29T23:59:59Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z");
        check(&utc, "2026-12-15T00:00:00Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z");
        let paris = BudgetPeriod::Month(zone("Europe/Paris"));
        check(&paris, "2026-03-31T21:59:59Z", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z");
        check(&paris, "2026-03-31T22:00:00Z", "2026-03-31T22:00:00Z", "2026-04-30T22:00:00Z");
        check(&paris, "2026-12-31T22:59:59Z", "2026-11-30T23:00:00Z", "2026-12-31T23:00:00Z");
        let sao_paulo = BudgetPeriod::Month(zone("America/Sao_Paulo"));
        check(&sao_paulo, "2018-11-15T00:00:00Z", "2018-11-01T03:00:00Z", "2018-12-01T02:00:00Z");
        assert_eq!(BudgetPeriod::Ever.at(0), WindowSpan::EVER);
    }

    #[test]
    fn zones_are_known_without_the_system() {
        assert!(Zone::named("Mars/Olympus").is_none());
        assert_eq!(BudgetPeriod::Month(zone("europe/paris")).to_string(), "month Europe/Paris");
        assert_eq!(BudgetPeriod::Day(zone("UTC")).to_string(), "day UTC");
        for text in ["day UTC", "month Europe/Paris", "none", "credit"] {
            assert_eq!(text.parse::<BudgetPeriod>().map(|window| window.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("day".parse(), Ok(BudgetPeriod::Day(zone("UTC"))));
        for text in ["", "week", "none UTC", "day Mars/Olympus", "credit UTC", "month  UTC"] {
            assert_eq!(text.parse::<BudgetPeriod>(), Err(UnknownBudgetPeriod), "{text}");
        }
    }

    #[test]
    fn what_is_leased_shrinks_near_the_limit() {
        let check = |limit, taken, need, ahead, expected| {
            assert_eq!(grant(NanoUsd(limit), NanoUsd(taken), NanoUsd(need), NanoUsd(ahead)), NanoUsd(expected));
        };
        check(1000, 0, 10, 100, 110);
        check(1000, 900, 10, 100, 32);
        check(1000, 990, 10, 100, 10);
        check(1000, 995, 10, 100, 5);
        check(1000, 1000, 10, 100, 0);
        check(1000, 2000, 10, 100, 0);
        assert_eq!(lease_ahead(NanoUsd(50_000_000_000)), NanoUsd(500_000_000));
        assert_eq!(lease_ahead(NanoUsd(i64::MAX)), NanoUsd(LEASE_MAX));
        assert_eq!(lease_ahead(NanoUsd(99)), NanoUsd(0));
    }

    proptest! {
        #[test]
        fn windows_meet_without_gap_or_overlap(
            unix_ms in ms("1990-01-01T00:00:00Z")..ms("2037-01-01T00:00:00Z"),
            name in proptest::sample::select(vec![
                "UTC", "Europe/Paris", "America/Sao_Paulo", "America/St_Johns", "Pacific/Apia", "Asia/Kathmandu",
                "Australia/Lord_Howe", "America/Havana", "Asia/Beirut", "Africa/Cairo",
            ]),
        ) {
            for window in [BudgetPeriod::Day(zone(name)), BudgetPeriod::Month(zone(name))] {
                for unix_ms in [unix_ms - DAY, unix_ms, unix_ms + DAY] {
                    let span = window.at(unix_ms);
                    prop_assert!((span.start_ms..span.end_ms).contains(&unix_ms), "{window} at {unix_ms}: {span:?}");
                    prop_assert_eq!(window.at(span.start_ms), span);
                    prop_assert_eq!(window.at(span.end_ms - 1), span);
                    prop_assert_eq!(window.at(span.end_ms).start_ms, span.end_ms);
                }
            }
        }

        #[test]
        fn a_grant_never_passes_the_limit(limit in 0..i64::MAX, taken: i64, need in 0..i64::MAX, ahead in 0..i64::MAX) {
            let granted = i128::from(grant(NanoUsd(limit), NanoUsd(taken), NanoUsd(need), NanoUsd(ahead)).0);
            let left = (i128::from(limit) - i128::from(taken)).max(0);
            prop_assert!(granted >= 0 && granted <= left);
            prop_assert!(granted >= left.min(i128::from(need)).min(i128::from(i64::MAX)));
        }
    }
}
