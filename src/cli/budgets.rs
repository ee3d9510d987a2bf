//! `tierway budgets`: the balance of every budget, and amounts left leased by processes that crashed.
//!
//! It only reads, beside a running gateway: what the gateway has leased counts against the limit and is shown
//! beside what is spent. Limits are those configured now. Sums are per scope and window: the same dollar counts
//! for a key, for its team and for its policy.
//!
//! Start reading at [`budgets`].

use super::print;
use super::store::{CommandError, StoreArgs};
use super::table::{NONE, decimal, dollars, percent, quoted, table};
use crate::clock::Clock;
use crate::config::Snapshot;
use crate::domain::budget::{self, Budget, Scope, WindowSpan};
use crate::store::RegisterContents;
use crate::store::reports::{AccountLabels, BudgetBalance, UnaccountedLease};
use crate::telemetry::rfc3339::Rfc3339Text;
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Alignment;
use std::process::ExitCode;
use std::sync::Arc;

/// Arguments of `budgets`.
#[derive(Args, Debug)]
pub(super) struct BudgetsArgs {
    /// Show windows that have ended, too
    #[arg(long, conflicts_with = "unaccounted")]
    past: bool,
    /// Show instead what processes had leased when they were killed: all of it counts as spent
    #[arg(long)]
    unaccounted: bool,
    #[command(flatten)]
    store: StoreArgs,
    /// Print CSV
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the budgets.
///
/// # Errors
/// Only that it could not be written.
pub(super) fn budgets(args: &BudgetsArgs) -> anyhow::Result<ExitCode> {
    let report = if args.unaccounted { unaccounted(args) } else { balances(args) };
    match report {
        Ok(report) => {
            print(&match (args.csv, args.json) {
                (true, _) => report.csv(),
                (_, true) => format!("{:#}\n", report.json()),
                _ => report.text(),
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => error.print(),
    }
}

fn balances(args: &BudgetsArgs) -> Result<BudgetReport, CommandError> {
    let now = Clock.unix_ms();
    // With --store, a database is read even if secrets of the configuration are not in the environment.
    let may_miss = args.store.is_named() && args.store.config().is_none();
    let book = args.store.book()?;
    let configured = match args.store.snapshot() {
        Ok(snapshot) => configured(&snapshot, &book.registered().map_err(CommandError::store)?),
        Err(_) if may_miss => BTreeMap::new(),
        Err(error) => return Err(error),
    };
    let mut balances = book.balances().map_err(CommandError::store)?;
    balances.retain(|balance| args.past || now < balance.end_ms);
    for (account, budget) in &configured {
        let is_running = |balance: &BudgetBalance| balance.account == *account && now < balance.end_ms;
        if !balances.iter().any(is_running) {
            let WindowSpan { start_ms, end_ms } = budget.window.at(now);
            balances.push(BudgetBalance {
                account: account.clone(),
                start_ms,
                end_ms,
                spent_nanousd: 0,
                leased_nanousd: 0,
            });
        }
    }
    balances.sort_by(|a, b| (&a.account, a.start_ms).cmp(&(&b.account, b.start_ms)));
    let line = |balance: &BudgetBalance| {
        let limit = configured.get(&balance.account).map(|budget| budget.limit.0);
        BudgetLine::of_balance(balance, limit)
    };
    Ok(BudgetReport { kind: &BALANCES, lines: balances.iter().map(line).collect() })
}

fn unaccounted(args: &BudgetsArgs) -> Result<BudgetReport, CommandError> {
    let left = args.store.book()?.unaccounted().map_err(CommandError::store)?;
    Ok(BudgetReport { kind: &UNACCOUNTED, lines: left.iter().map(BudgetLine::of_unaccounted).collect() })
}

/// Every budget of the configuration and of stored keys and teams, and all credit, by the labels of its account in
/// the database.
fn configured(snapshot: &Snapshot, stored: &RegisterContents) -> BTreeMap<AccountLabels, Budget> {
    let labels = |account: &budget::Account| AccountLabels {
        scope: account.scope.label().to_owned(),
        window: account.window.to_string(),
        name: account.name.to_string(),
    };
    let team = |name: &Arc<str>| stored.teams.iter().find(|team| team.name == *name);
    let records = stored.keys.iter().filter_map(|key| snapshot.record_of(key, key.team.as_ref().and_then(team)));
    let in_file = snapshot.keys.values().flat_map(|key| key.budgets.iter().cloned());
    let teams = stored.teams.iter().filter_map(|team| Some(team.budget.as_ref()?.of(Scope::Team, team.name.clone())));
    let credit = stored.credit.iter().map(|(holder, granted)| holder.credit(*granted));
    let of_records = records.flat_map(|record| record.budgets.to_vec());
    let budgets = in_file.chain(of_records).chain(teams).chain(credit);
    budgets.map(|budget| (labels(&budget.account), budget)).collect()
}

/// The columns of a report: each with its name in CSV and JSON, and its name in a table.
struct BudgetReportColumns {
    /// Times, before the columns of the account.
    before: &'static [(&'static str, &'static str)],
    /// Times, after the columns of the account.
    after: &'static [(&'static str, &'static str)],
    /// Amounts of money.
    amounts: &'static [(&'static str, &'static str)],
    /// Indexes of the amounts that are not summed.
    no_sum: &'static [usize],
    nothing: &'static str,
}

const BALANCES: BudgetReportColumns = BudgetReportColumns {
    before: &[],
    after: &[("from", "from"), ("to", "to")],
    amounts: &[("limit_usd", "limit"), ("spent_usd", "spent"), ("leased_usd", "leased")],
    no_sum: &[0],
    nothing: "no budgets\n",
};
const UNACCOUNTED: BudgetReportColumns = BudgetReportColumns {
    before: &[("booked", "booked")],
    after: &[("from", "of the window from")],
    amounts: &[("amount_usd", "amount")],
    no_sum: &[],
    nothing: "everything is accounted for\n",
};

/// One row of a report.
struct BudgetLine {
    account: AccountLabels,
    before: Vec<Option<i64>>,
    after: Vec<Option<i64>>,
    /// Billionths of a US dollar; `None` if unknown.
    amounts: Vec<Option<i64>>,
}

impl BudgetLine {
    fn of_balance(balance: &BudgetBalance, limit: Option<i64>) -> Self {
        let [start, end] = [balance.start_ms, balance.end_ms].map(bounded);
        let amounts = vec![limit, Some(balance.spent_nanousd), Some(balance.leased_nanousd)];
        Self { account: balance.account.clone(), before: Vec::new(), after: vec![start, end], amounts }
    }

    fn of_unaccounted(left: &UnaccountedLease) -> Self {
        Self {
            account: left.account.clone(),
            before: vec![Some(left.booked_unix_ms)],
            after: vec![bounded(left.start_ms)],
            amounts: vec![Some(left.amount_nanousd)],
        }
    }
}

/// `None` for a bound of a window that has none.
fn bounded(unix_ms: i64) -> Option<i64> {
    (unix_ms != i64::MIN && unix_ms != i64::MAX).then_some(unix_ms)
}

/// Rows and their columns.
struct BudgetReport {
    kind: &'static BudgetReportColumns,
    lines: Vec<BudgetLine>,
}

impl BudgetReport {
    /// The sum of each amount, by scope and window.
    fn totals(&self) -> BTreeMap<(&str, &str), Vec<i128>> {
        let mut totals = BTreeMap::new();
        for line in &self.lines {
            let group = (line.account.scope.as_str(), line.account.window.as_str());
            let total = totals.entry(group).or_insert_with(|| vec![0; self.kind.amounts.len()]);
            for (sum, amount) in total.iter_mut().zip(&line.amounts) {
                *sum += i128::from(amount.unwrap_or(0));
            }
        }
        totals
    }

    fn sums(&self, at: usize) -> bool {
        !self.kind.no_sum.contains(&at)
    }

    fn text(&self) -> String {
        if self.lines.is_empty() {
            return self.kind.nothing.to_owned();
        }
        let has_limit = !self.kind.no_sum.is_empty();
        let left = |names: &[(&'static str, &'static str)]| {
            names.iter().map(|(_, name)| (*name, Alignment::Left)).collect::<Vec<_>>()
        };
        let account = ["scope", "name", "window"].map(|name| (name, Alignment::Left));
        let mut head = [left(self.kind.before), account.to_vec(), left(self.kind.after)].concat();
        head.extend(self.kind.amounts.iter().map(|(_, name)| (*name, Alignment::Right)));
        head.extend(has_limit.then_some(("of the limit", Alignment::Right)));
        let mut rows: Vec<Vec<String>> = self.lines.iter().map(|line| row(line, has_limit)).collect();
        for ((scope, window), total) in self.totals() {
            let mut cells = vec![String::new(); self.kind.before.len()];
            cells.extend([format!("all {scope}"), String::new(), window.to_owned()]);
            cells.extend(vec![String::new(); self.kind.after.len()]);
            let sum = |(at, sum): (usize, &i128)| if self.sums(at) { dollars(*sum) } else { String::new() };
            cells.extend(total.iter().enumerate().map(sum));
            rows.push(cells);
        }
        table(&head, &rows)
    }

    fn csv(&self) -> String {
        let columns = |names: &[(&'static str, &'static str)]| names.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let kind = self.kind;
        let head = [columns(kind.before), vec!["scope", "name", "window"], columns(kind.after), columns(kind.amounts)];
        let mut out = format!("{}\n", head.concat().join(","));
        for BudgetLine { account: AccountLabels { scope, window, name }, before, after, amounts } in &self.lines {
            let moment = |unix_ms: &Option<i64>| unix_ms.map_or(String::new(), |ms| Rfc3339Text(ms).to_string());
            let amount = |amount: &Option<i64>| amount.map_or(String::new(), |amount| decimal(amount.into()));
            let cells = before.iter().map(moment);
            let cells = cells.chain([quoted(scope), quoted(name), quoted(window)]).chain(after.iter().map(moment));
            out.push_str(&cells.chain(amounts.iter().map(amount)).collect::<Vec<_>>().join(","));
            out.push('\n');
        }
        out
    }

    /// Money is a string, so that no reader makes a float of it.
    fn json(&self) -> Value {
        let row = |line: &BudgetLine| {
            let AccountLabels { scope, window, name } = &line.account;
            let mut row = json!({ "scope": scope, "name": name, "window": window });
            let moments = self.kind.before.iter().zip(&line.before).chain(self.kind.after.iter().zip(&line.after));
            for ((name, _), unix_ms) in moments {
                row[*name] = json!(unix_ms.map(|ms| Rfc3339Text(ms).to_string()));
            }
            for ((name, _), amount) in self.kind.amounts.iter().zip(&line.amounts) {
                row[*name] = json!(amount.map(|amount| decimal(amount.into())));
            }
            row
        };
        let total = |((scope, window), sums): ((&str, &str), Vec<i128>)| {
            let mut row = json!({ "scope": scope, "window": window });
            for (at, ((name, _), sum)) in self.kind.amounts.iter().zip(sums).enumerate() {
                if self.sums(at) {
                    row[*name] = json!(decimal(sum));
                }
            }
            row
        };
        let totals: Vec<_> = self.totals().into_iter().map(total).collect();
        json!({ "rows": self.lines.iter().map(row).collect::<Vec<_>>(), "totals": totals })
    }
}

fn row(line: &BudgetLine, has_limit: bool) -> Vec<String> {
    let BudgetLine { account: AccountLabels { scope, window, name }, before, after, amounts } = line;
    let mut cells: Vec<String> = before.iter().map(|unix_ms| minute(*unix_ms)).collect();
    cells.extend([scope.clone(), name.clone(), window.clone()]);
    cells.extend(after.iter().map(|unix_ms| minute(*unix_ms)));
    cells.extend(amounts.iter().map(|amount| amount.map_or(NONE.to_owned(), |amount| dollars(amount.into()))));
    if has_limit {
        let [limit, spent] = [0, 1].map(|at| amounts[at].map_or(0, |amount| u128::from(amount.max(0).unsigned_abs())));
        cells.push(percent(spent, limit));
    }
    cells
}

/// A time in UTC for people: only the day at midnight.
fn minute(unix_ms: Option<i64>) -> String {
    let Some(unix_ms) = unix_ms else { return NONE.to_owned() };
    let text = Rfc3339Text(unix_ms).to_string();
    match text.split_once('T') {
        Some((day, "00:00:00.000Z")) => day.to_owned(),
        Some((day, time)) => format!("{day} {}Z", &time[..5]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_reported_to_the_minute() {
        let check = |unix_ms: Option<i64>, expected: &str| assert_eq!(minute(unix_ms), expected);
        check(Some(1_795_305_600_000), "2026-11-22");
        check(Some(1_795_305_600_000 - 3_600_000), "2026-11-21 23:00Z");
        check(bounded(i64::MIN), "-");
    }
}
