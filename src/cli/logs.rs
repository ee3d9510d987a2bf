//! `tierway logs`: a line for each request in columns, as `serve` shows them in a terminal; from the ledger, so that it
//! needs no file of a log, and from any machine that reaches the store.
//!
//! A request has its line when it has ended. The ledger has those of known keys; what strangers tried is in the access log
//! alone. It only reads.
//!
//! Start reading at [`logs`].

use super::printable;
use super::store::{CommandError, StoreArgs};
use super::time_range::TimeRangeArgs;
use super::usage::condition;
use crate::admin::views::{ReceiptObject, to_json};
use crate::clock::Clock;
use crate::domain::id::RequestId;
use crate::domain::receipt::{Outcome, Receipt};
use crate::domain::report::{Condition, ReceiptsQuery};
use crate::store::reports::LedgerSource;
use crate::telemetry::TerminalWriter;
use crate::telemetry::rfc3339::Rfc3339Text;
use clap::Args;
use std::collections::{HashSet, VecDeque};
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

/// How often the ledger is looked at with --follow.
const EVERY: Duration = Duration::from_millis(500);
/// Requests may end this long after they were received, in milliseconds: as long as the default of `[routing] total`, and
/// a little more.
const LONGEST_MS: i64 = 11 * 60_000;
/// The most requests that one look reads: a person reads fewer.
const MOST_AT_ONCE: usize = 2_000;

const EXAMPLES: &str = "\
Examples:
  tierway logs                                # the last 20 requests
  tierway logs -f                             # and those that end from now on, until Ctrl-C
  tierway logs -f --failed --where key=app    # what went wrong for one key
  tierway logs -n 1000 --since 1h --json | jq -r .request_id";

/// Arguments of `logs`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct LogsArgs {
    /// Show further requests as they end
    #[arg(long, short, conflicts_with = "until")]
    follow: bool,
    /// The last so many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    lines: usize,
    #[command(flatten)]
    time_range: TimeRangeArgs,
    /// Only these, such as key=growth-app; `-` is none. May be repeated, and then all must hold
    #[arg(long = "where", value_name = "WHAT=VALUE", value_parser = condition)]
    only: Vec<Condition>,
    /// Only those that were not served
    #[arg(long)]
    failed: bool,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Shows the lines.
///
/// # Errors
/// Only if they cannot be written.
pub(super) fn logs(args: &LogsArgs) -> anyhow::Result<ExitCode> {
    let source = match args.store.book() {
        Ok(source) => source,
        Err(error) => return error.print(),
    };
    let mut lines = LogLines { args, day: None };
    match shown(&*source, &mut lines) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(LogsError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(LogsError::Output(error)) => Err(error.into()),
        Err(LogsError::Ledger(error)) => error.print(),
    }
}

enum LogsError {
    Output(io::Error),
    Ledger(CommandError),
}

impl From<io::Error> for LogsError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn shown(source: &dyn LedgerSource, lines: &mut LogLines<'_>) -> Result<(), LogsError> {
    let (args, now) = (lines.args, Clock.unix_ms());
    let query = ReceiptsQuery {
        since_unix_ms: args.time_range.since(now),
        until_unix_ms: args.time_range.until(now),
        only: args.only.clone(),
        after: None,
        most: usize::MAX,
    };
    // What has ended before the first look is not new.
    let mut seen = SeenReceipts::default();
    if args.follow {
        seen.new_in(recent(source, args)?);
    }
    for receipt in last(source, args, query)? {
        lines.show(&receipt)?;
    }
    if !args.follow {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    loop {
        runtime.block_on(Clock.sleep(EVERY));
        for receipt in seen.new_in(recent(source, args)?) {
            lines.show(&receipt)?;
        }
    }
}

/// The last that are asked for, the oldest first.
fn last(source: &dyn LedgerSource, args: &LogsArgs, query: ReceiptsQuery) -> Result<VecDeque<Receipt>, LogsError> {
    let mut found = VecDeque::new();
    if args.lines == 0 {
        return Ok(found);
    }
    // Those that are left out do not count: some more are read until there are enough.
    let mut query = ReceiptsQuery { most: args.lines.clamp(MOST_AT_ONCE / 10, MOST_AT_ONCE), ..query };
    loop {
        let read = source.receipts(&query).map_err(|error| LogsError::Ledger(CommandError::store(error)))?;
        let is_all = read.len() < query.most;
        query.after = read.last().map(|receipt| receipt.id);
        for receipt in read.into_iter().filter(|receipt| wants(args, receipt)) {
            found.push_front(receipt);
            if found.len() == args.lines {
                return Ok(found);
            }
        }
        if is_all {
            return Ok(found);
        }
    }
}

/// What was received lately and has ended, the newest first.
fn recent(source: &dyn LedgerSource, args: &LogsArgs) -> Result<Vec<Receipt>, LogsError> {
    let since_unix_ms = Some(Clock.unix_ms() - LONGEST_MS);
    let query =
        ReceiptsQuery { since_unix_ms, until_unix_ms: None, only: args.only.clone(), after: None, most: MOST_AT_ONCE };
    source.receipts(&query).map_err(|error| LogsError::Ledger(CommandError::store(error)))
}

fn wants(args: &LogsArgs, receipt: &Receipt) -> bool {
    !args.failed || receipt.outcome != Outcome::Served
}

/// What was found by the look before.
#[derive(Default)]
struct SeenReceipts(HashSet<RequestId>);

impl SeenReceipts {
    /// Those of `found`, the newest first, that the look before did not find; in the order of their ends.
    fn new_in(&mut self, found: Vec<Receipt>) -> Vec<Receipt> {
        let before = std::mem::replace(&mut self.0, found.iter().map(|receipt| receipt.id).collect());
        let mut new: Vec<Receipt> = found.into_iter().filter(|receipt| !before.contains(&receipt.id)).collect();
        new.sort_by_key(|receipt| {
            let lasted = i64::try_from(receipt.duration.as_millis()).unwrap_or(i64::MAX);
            receipt.received_unix_ms.saturating_add(lasted)
        });
        new
    }
}

/// Writes lines, and a day above the first of each.
struct LogLines<'a> {
    args: &'a LogsArgs,
    day: Option<String>,
}

impl LogLines<'_> {
    fn show(&mut self, receipt: &Receipt) -> io::Result<()> {
        if !wants(self.args, receipt) {
            return Ok(());
        }
        let mut out = anstream::stdout().lock();
        if self.args.json {
            let object = to_json(&ReceiptObject::from(receipt)).to_string();
            return writeln!(out, "{}", printable(&object)).and_then(|()| out.flush());
        }
        let day = Rfc3339Text(receipt.received_unix_ms).to_string();
        let day = day.split('T').next().unwrap_or_default();
        if self.day.as_deref() != Some(day) {
            writeln!(out, "{day} UTC")?;
            self.day = Some(day.to_owned());
        }
        // The stream strips colours where there is no terminal or NO_COLOR is set; what clients wrote is made readable.
        out.write_all(&TerminalWriter { colours: true }.line(receipt)).and_then(|()| out.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::samples;

    #[test]
    fn what_has_ended_since_the_look_before_is_new_once() {
        let of = |number: u128, received: i64, lasted: u64| Receipt {
            id: RequestId(number),
            received_unix_ms: received,
            duration: Duration::from_millis(lasted),
            ..samples::refused()
        };
        let ids = |new: Vec<Receipt>| new.iter().map(|receipt| receipt.id.0).collect::<Vec<_>>();
        let mut seen = SeenReceipts::default();
        assert_eq!(ids(seen.new_in(vec![of(2, 20, 5), of(1, 10, 5)])), [1, 2]);
        // One that was received first ended last.
        let found = vec![of(4, 40, 1), of(3, 30, 100), of(2, 20, 5), of(1, 10, 5)];
        assert_eq!(ids(seen.new_in(found.clone())), [4, 3]);
        assert!(seen.new_in(found).is_empty());
    }
}
