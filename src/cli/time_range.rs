//! Ranges of time on the command line: `30d`, `2026-11-01`.
//!
//! Days are days of UTC, as those of the ledger are.

use crate::admin::ReportTime;
use clap::Args;

/// The range of time of what is read: receipts, or changes.
#[derive(Args, Debug)]
pub(super) struct TimeRangeArgs {
    /// From then on: a number of days, hours or minutes ago (30d, 12h, 15m), or a date (2026-11-01)
    #[arg(long, value_name = "WHEN", value_parser = ReportTime::parse)]
    since: Option<ReportTime>,
    /// Before then: the same
    #[arg(long, value_name = "WHEN", value_parser = ReportTime::parse)]
    until: Option<ReportTime>,
}

impl TimeRangeArgs {
    /// The first millisecond of the range, Unix time; `None`: no beginning.
    pub(super) fn since(&self, now_unix_ms: i64) -> Option<i64> {
        self.since.map(|when| when.unix_ms(now_unix_ms))
    }

    /// The millisecond after the last of the range, Unix time; `None`: no end.
    pub(super) fn until(&self, now_unix_ms: i64) -> Option<i64> {
        self.until.map(|when| when.unix_ms(now_unix_ms))
    }
}
