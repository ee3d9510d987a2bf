//! Spans of time on the command line: `30d`, `2026-11-01`.
//!
//! Days are days of UTC, as the ledger's own are.

use crate::admin::TimePoint;
use clap::Args;

/// From when to when receipts are read.
#[derive(Args, Debug)]
pub(super) struct TimeRangeArgs {
    /// Received since: a number of days, hours or minutes ago (30d, 12h, 15m), or a date (2026-11-01)
    #[arg(long, value_name = "WHEN", value_parser = TimePoint::parse)]
    since: Option<TimePoint>,
    /// Received before: the same
    #[arg(long, value_name = "WHEN", value_parser = TimePoint::parse)]
    until: Option<TimePoint>,
}

impl TimeRangeArgs {
    /// The first moment, in Unix milliseconds; `None`: the beginning.
    pub(super) fn since(&self, now_unix_ms: i64) -> Option<i64> {
        self.since.map(|when| when.unix_ms(now_unix_ms))
    }

    /// The moment after the last; `None`: now.
    pub(super) fn until(&self, now_unix_ms: i64) -> Option<i64> {
        self.until.map(|when| when.unix_ms(now_unix_ms))
    }
}
