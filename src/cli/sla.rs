//! `tierway sla`: how each SLA is kept, and the closing of a month.
//!
//! `report` only reads, beside a running gateway. `close` does what a gateway does by itself two days after the end of a
//! month; both may run at once, and credit is granted once.
//!
//! Start reading at [`sla`].

use super::context::{CliContext, KNOWN_SOON, finish, note};
use super::page::{escaped, html_table, page, write_page};
use super::store::{CommandError, StoreArgs};
use super::table::{NONE, decimal, grouped, table};
use super::value_parsers::instant;
use crate::admin::Page;
use crate::admin::views::{ListObject, SlaClosingObject, SlaReportObject, first_token_kept, to_json};
use crate::clock::Clock;
use crate::domain::sla::closing::{SlaClosing, SlaCredit};
use crate::domain::sla::month::SlaMonth;
use crate::domain::sla::percent_text;
use crate::domain::sla::report::{SlaFigures, SlaReport};
use crate::domain::sla::tally::{SlaTally, SlaUptime};
use clap::{Args, Subcommand};
use std::fmt::Alignment;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const CLOSE_HELP: &str =
    "A gateway closes a month by itself, 48 hours after its end. This closes one that no gateway closed, or
restates one at once for receipts that arrived later. Credit is granted once, and never taken back.";

/// Subcommands of `sla`.
#[derive(Subcommand, Debug)]
pub(super) enum SlaCommand {
    /// Show each SLA and how it is kept in a month: uptime, error budget, first tokens, causes, credit
    Report(SlaReportArgs),
    /// Close a month that is over, and grant the credit that is due
    #[command(after_help = CLOSE_HELP)]
    Close(SlaCloseArgs),
}

/// Arguments of `sla report`.
#[derive(Args, Debug)]
pub(super) struct SlaReportArgs {
    /// The calendar month in the policy's zone, such as 2026-11 [default: the one that is running]
    #[arg(long, value_name = "YYYY-MM", value_parser = month)]
    month: Option<SlaMonth>,
    /// Only this policy
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write a page for people as well, which needs nothing beside itself and prints well
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
}

/// Arguments of `sla close`.
#[derive(Args, Debug)]
pub(super) struct SlaCloseArgs {
    /// The calendar month in the policy's zone, such as 2026-11
    #[arg(long, value_name = "YYYY-MM", value_parser = month)]
    month: SlaMonth,
    /// The policy
    #[arg(long, value_name = "NAME")]
    policy: String,
    /// Print JSON: the statement, or null where nothing was to be done
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

fn month(text: &str) -> Result<SlaMonth, &'static str> {
    SlaMonth::parse(text).ok_or("write a month such as 2026-11")
}

/// Runs `command`.
///
/// # Errors
/// Only if the output cannot be written.
pub(super) fn sla(command: &SlaCommand) -> anyhow::Result<ExitCode> {
    finish(match command {
        SlaCommand::Report(args) => report(args),
        SlaCommand::Close(args) => close(args),
    })
}

fn report(args: &SlaReportArgs) -> Result<String, CommandError> {
    let context = CliContext::open_to_read(&args.store)?;
    let admin = context.with_ledger(&args.store)?;
    let policy = args.policy.as_deref();
    let items = context.run(admin.sla_reports(&context.snapshot, policy, args.month, Clock.unix_ms()))?;
    if let Some(file) = &args.html {
        write_page(file, &html(&items))?;
    }
    if args.json {
        return Ok(format!("{:#}\n", to_json(&ListObject::<SlaReportObject>::of(&Page { items, next: None }))));
    }
    if items.is_empty() {
        return Ok("no policy has an `sla`\n".to_owned());
    }
    Ok(items.iter().map(text).collect::<Vec<_>>().join("\n"))
}

fn close(args: &SlaCloseArgs) -> Result<String, CommandError> {
    let context = CliContext::open(&args.store, "sla close")?;
    let admin = context.with_ledger(&args.store)?;
    let closing = admin.close_month(&context.snapshot, &args.policy, args.month, Clock.unix_ms());
    let closing = context.run(closing)?;
    if args.json {
        return Ok(format!("{:#}\n", to_json(&closing.as_ref().map(SlaClosingObject::from))));
    }
    let Some(closing) = closing else {
        return Ok(format!("{} of {} is closed already, and no receipt arrived since\n", args.month, args.policy));
    };
    note(KNOWN_SOON);
    Ok(statement(&closing))
}

fn text(report: &SlaReport) -> String {
    let lines = |lines: Vec<String>| lines.into_iter().map(|line| line + "\n").collect::<String>();
    format!("{}{}{}{}", lines(heading(report)), table(&HEAD, &rows(report)), lines(notes(report)), credit(report))
}

/// The same for each of `reports`, as a page.
fn html(reports: &[SlaReport]) -> String {
    let mut body = "<h1>SLA</h1>".to_owned();
    if reports.is_empty() {
        body.push_str("<p>No policy has an <code>sla</code>.</p>");
    }
    for report in reports {
        let mut heading = heading(report).into_iter();
        body.push_str(&format!("<h2>{}</h2>", escaped(&heading.next().unwrap_or_default())));
        let paragraph = |line: &str| format!("<p>{}</p>", escaped(line));
        heading.for_each(|line| body.push_str(&paragraph(&line)));
        body.push_str(&html_table(&HEAD, &rows(report)));
        notes(report).iter().for_each(|line| body.push_str(&paragraph(line)));
        credit(report).lines().for_each(|line| body.push_str(&paragraph(line)));
    }
    page("SLA", &body)
}

/// What is promised, and the time that is counted.
fn heading(report: &SlaReport) -> Vec<String> {
    let query = &report.tally.query;
    let terms = &*query.terms;
    let mut lines = vec![format!(
        "policy {}, {}: {} promised, measured by {}",
        query.policy,
        report.month,
        percent_text(terms.uptime_bp, 2),
        terms.measure.label()
    )];
    if !report.is_over() {
        let closes = instant(report.month.closes_unix_ms(&terms.zone));
        let until = instant(query.until_unix_ms);
        lines.push(format!("month to date, until {until}; it is closed from {closes} on"));
    }
    lines
}

/// What the table does not say.
fn notes(report: &SlaReport) -> Vec<String> {
    let (tally, terms) = (&report.tally, &report.tally.query.terms);
    let mut lines = Vec::new();
    if tally.dead_intervals > 0 {
        lines.push(format!("{} intervals of five minutes without a gateway", grouped(tally.dead_intervals.into())));
    }
    if tally.unreadable > 0 {
        lines.push(format!("{} receipts cannot be read, and count for nothing", tally.unreadable));
    }
    lines.extend(worst_hour("worst hour", &tally.all));
    let sent = &tally.probes.sent;
    if sent.requests > 0 {
        let (probes, failed) = (grouped(sent.requests.into()), grouped(sent.count.failed.into()));
        let (cost, intervals) = (decimal(sent.spend_nanousd), grouped(tally.probed_intervals().into()));
        lines.push(format!("probes: {probes} sent, {failed} failed, {cost} USD; {intervals} intervals count by them"));
        lines.extend(worst_hour("worst hour of probes", sent));
    }
    if let Some(kept) = first_token_kept(terms, &tally.all.first_tokens)
        && let Some(objective) = terms.first_token
    {
        let (share, within) = (percent_text(objective.share_bp, 2), milliseconds(Some(objective.within)));
        lines.push(format!("first token: {kept} within {within}; the objective is {share}"));
    }
    lines
}

/// The hour in which most of `tally` failed, and why.
fn worst_hour(name: &str, tally: &SlaTally) -> Vec<String> {
    let Some(worst) = tally.worst_hour() else { return Vec::new() };
    let begins = instant(worst.begins_unix_ms);
    let mut lines = vec![format!("{name}: {} failed from {begins} on", grouped(worst.failed.into()))];
    for cause in &worst.causes {
        let failed = grouped(cause.failed.into());
        lines.push(format!("  {failed} {}, such as {}", cause.reason.label(), cause.example));
    }
    lines
}

const HEAD: [(&str, Alignment); 8] = [
    ("key", Alignment::Left),
    ("eligible", Alignment::Right),
    ("failed", Alignment::Right),
    ("uptime", Alignment::Right),
    ("budget left", Alignment::Right),
    ("burn 1h/6h/3d", Alignment::Right),
    ("first token p50/p95/p99", Alignment::Right),
    ("spent", Alignment::Right),
];

/// The policy, then each key.
fn rows(report: &SlaReport) -> Vec<Vec<String>> {
    let row = |name: &str, tally: &SlaTally, figures: &SlaFigures| {
        let quantiles = [50, 95, 99].map(|percent| milliseconds(tally.first_tokens.times.quantile(percent)));
        let burn = figures.burn_thousandths.map(|burn| burn.map_or_else(|| NONE.to_owned(), thousandths));
        let uptime = figures.uptime.map(SlaUptime::millionths).map(|uptime| percent_text(uptime, 4));
        vec![
            name.to_owned(),
            grouped(tally.count.eligible.into()),
            grouped(tally.count.failed.into()),
            uptime.unwrap_or_else(|| NONE.to_owned()),
            minutes(figures.budget_left_ms),
            burn.join("/"),
            quantiles.join("/"),
            decimal(tally.spend_nanousd),
        ]
    };
    let mut rows = vec![row("all", &report.tally.all, &report.all)];
    for (key, figures) in &report.keys {
        rows.extend(report.tally.keys.get(key).map(|tally| row(key, tally, figures)));
    }
    rows
}

fn credit(report: &SlaReport) -> String {
    if !report.closings.is_empty() {
        return report.closings.iter().map(statement).collect();
    }
    let terms = &report.tally.query.terms;
    match report.step {
        Some(step) => {
            let (below, share) = (percent_text(step.below_bp, 2), percent_text(step.credit_bp, 2));
            format!("not closed; as it is, below {below}: {share} of what was spent\n")
        }
        None if report.tally.all.count.eligible < terms.min_requests => {
            format!("not closed; no credit for fewer than {} eligible requests\n", terms.min_requests)
        }
        None => "not closed; as it is, no credit is due\n".to_owned(),
    }
}

/// A statement and what it grants to whom.
fn statement(closing: &SlaClosing) -> String {
    let SlaClosing { policy, month, statement, eligible, failed, .. } = closing;
    let verb = if *statement == 1 { "closed" } else { "restated" };
    let uptime = closing.uptime_millionths.map_or_else(|| NONE.to_owned(), |uptime| percent_text(uptime, 4));
    let step = closing.step.map_or_else(
        || "no credit is due".to_owned(),
        |step| {
            format!("below {}: {} of what was spent", percent_text(step.below_bp, 2), percent_text(step.credit_bp, 2))
        },
    );
    let mut out = format!(
        "{month} of {policy} {verb} {}: uptime {uptime}, {failed} of {eligible} failed; {step}\n",
        instant(closing.closed_unix_ms)
    );
    for SlaCredit { holder, spend, due, granted } in &closing.credits {
        let (scope, name) = (holder.scope.label(), &holder.name);
        out.push_str(&format!("  {scope} {name}: {spend} USD spent, {due} USD due, {granted} USD granted\n"));
    }
    out
}

fn minutes(ms: i64) -> String {
    let tenths = ms.div_euclid(6_000);
    format!("{}{}.{} min", if tenths < 0 { "-" } else { "" }, tenths.unsigned_abs() / 10, tenths.unsigned_abs() % 10)
}

fn thousandths(number: u64) -> String {
    format!("{}.{}", number / 1_000, number % 1_000 / 100)
}

fn milliseconds(time: Option<Duration>) -> String {
    time.map_or_else(|| NONE.to_owned(), |time| format!("{} ms", time.as_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_time_are_shown_in_tenths() {
        let check = |ms, expected: &str| assert_eq!(minutes(ms), expected);
        check(2_592_000, "43.2 min");
        check(0, "0.0 min");
        check(-777_600, "-13.0 min");
        check(-1, "-0.1 min");
        assert_eq!(thousandths(14_460), "14.4");
    }
}
