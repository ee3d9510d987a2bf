//! `tierway residency`: from the ledger, whether any attempt left the regions that a policy allows.
//!
//! It only reads, beside a running gateway. The receipts say where each attempt was made; the configuration says where
//! requests may go, and the audit which configurations were active.
//!
//! Start reading at [`residency`].

use super::print;
use super::store::{CommandError, StoreArgs};
use super::table::{grouped, short, table};
use super::time_range::TimeRangeArgs;
use super::value_parsers::instant;
use crate::admin::changed_fields;
use crate::clock::Clock;
use crate::config::Snapshot;
use crate::domain::audit::{AuditQuery, AuditRow};
use crate::domain::glob::Glob;
use crate::domain::policy::Residency;
use crate::domain::report::{Condition, Dimension, ReceiptsQuery};
use crate::domain::residency::{OutsideAttempt, PolicyResidency, RegionTally, ResidencyTally};
use crate::store::reports::LedgerSource;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::fmt::Alignment;
use std::process::ExitCode;
use std::sync::Arc;

/// So many attempts that left are shown one by one; `--json` has more.
const MOST_SHOWN: usize = 20;

const REPORT_HELP: &str = "Exit code: 0 when every attempt is known to have stayed, 1 when one left or nothing is known of one.

A request is judged by the policy that its receipt names, as the configuration has it now; --regions judges by other patterns.
What is reported is the region that the configuration gives a deployment: where a provider computes, it cannot know.";

/// Subcommands of `residency`.
#[derive(Subcommand, Debug)]
pub(super) enum ResidencyCommand {
    /// Compare every attempt in the ledger with the residency of its policy: regions touched, attempts that left
    #[command(after_help = REPORT_HELP)]
    Report(ResidencyReportArgs),
}

/// Arguments of `residency report`.
#[derive(Args, Debug)]
pub(super) struct ResidencyReportArgs {
    /// Only requests of this key
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// Only requests under this policy
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    #[command(flatten)]
    time_range: TimeRangeArgs,
    /// Regions that requests may go to, in place of those of their policies: eu-*,ch
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    regions: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs `command`.
///
/// # Errors
/// Only if the output cannot be written.
pub(super) fn residency(command: &ResidencyCommand) -> anyhow::Result<ExitCode> {
    let ResidencyCommand::Report(args) = command;
    let report = match report(args) {
        Ok(report) => report,
        Err(error) => return error.print(),
    };
    print(&if args.json { format!("{:#}\n", report.json()) } else { report.text() })?;
    Ok(if report.tally.is_proved() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was found.
struct ResidencyReport {
    since_unix_ms: Option<i64>,
    until_unix_ms: i64,
    tally: ResidencyTally,
    /// The policies that bind requests, each with its patterns.
    policies: Vec<(Arc<str>, Vec<String>)>,
    /// The configurations that were active in the range, the oldest first.
    configurations: Vec<ActiveConfiguration>,
}

/// A configuration that was active.
struct ActiveConfiguration {
    since_unix_ms: i64,
    version: String,
    /// What it changed of residencies, as far as it is known.
    changes: Vec<String>,
}

fn report(args: &ResidencyReportArgs) -> Result<ResidencyReport, CommandError> {
    let now = Clock.unix_ms();
    let snapshot = args.store.configuration()?;
    if let Some(unknown) = args.policy.as_ref().filter(|name| snapshot.policy(name).is_none()) {
        return Err(CommandError::usage(format!("there is no policy '{unknown}' in the configuration")));
    }
    let reader = args.store.place_of(&snapshot)?.source().map_err(CommandError::store)?;
    let (since_unix_ms, until_unix_ms) = (args.time_range.since(now), args.time_range.until(now).unwrap_or(now));
    let of = |dimension, value: &Option<String>| value.clone().map(|value| Condition { dimension, value: Some(value) });
    let only = [of(Dimension::Key, &args.key), of(Dimension::Policy, &args.policy)].into_iter().flatten().collect();
    let query =
        ReceiptsQuery { since_unix_ms, until_unix_ms: Some(until_unix_ms), only, after: None, most: usize::MAX };
    let (mut tally, named) = (ResidencyTally::default(), named_regions(&args.regions));
    let region_of = |deployment: &str| region_of(&snapshot, deployment);
    let each = reader.each_receipt(&query, &mut |receipt| match receipt {
        Some(receipt) => tally.add(&receipt, judged_by(&snapshot, receipt.policy.as_deref(), &named), region_of),
        None => tally.unreadable += 1,
    });
    each.map_err(CommandError::store)?;
    Ok(ResidencyReport {
        since_unix_ms,
        until_unix_ms,
        tally,
        policies: binding(&snapshot, args.policy.as_deref(), &named),
        configurations: configurations(&*reader, since_unix_ms, until_unix_ms)?,
    })
}

fn named_regions(patterns: &[String]) -> Option<Vec<Glob>> {
    (!patterns.is_empty()).then(|| patterns.iter().map(|pattern| Glob::new(pattern)).collect())
}

/// The residency of requests under `policy`: the regions `named` on the command line, or those of the configuration.
fn judged_by<'a>(snapshot: &'a Snapshot, policy: Option<&str>, named: &'a Option<Vec<Glob>>) -> PolicyResidency<'a> {
    if let Some(named) = named {
        return PolicyResidency::Within(named);
    }
    match policy.and_then(|name| snapshot.policy(name)).map(|policy| &policy.residency) {
        None => PolicyResidency::Unknown,
        Some(None) => PolicyResidency::Anywhere,
        Some(Some(residency)) => PolicyResidency::Within(residency.globs()),
    }
}

/// The region of the deployment called `name`, if the configuration has one.
fn region_of(snapshot: &Snapshot, name: &str) -> Option<Arc<str>> {
    let table = &snapshot.table;
    let found = table.deployments.iter().find(|deployment| *deployment.name == *name)?;
    table.regions.get(found.region.index()).cloned()
}

fn binding(snapshot: &Snapshot, only: Option<&str>, named: &Option<Vec<Glob>>) -> Vec<(Arc<str>, Vec<String>)> {
    let texts = |globs: &[Glob]| globs.iter().map(|glob| glob.as_str().to_owned()).collect();
    if let Some(named) = named {
        return vec![("--regions".into(), texts(named))];
    }
    let wanted = snapshot.policies.iter().filter(|policy| only.is_none_or(|only| only == &*policy.name));
    let of = |residency: &Residency| texts(residency.globs());
    wanted.filter_map(|policy| Some((policy.name.clone(), policy.residency.as_ref().map(of)?))).collect()
}

/// The configurations that were active from `since` until `until`, as the audit has them.
fn configurations(
    reader: &dyn LedgerSource,
    since: Option<i64>,
    until: i64,
) -> Result<Vec<ActiveConfiguration>, CommandError> {
    let kind = Some("configuration".to_owned());
    let query = AuditQuery { until_unix_ms: Some(until), kind, most: usize::MAX, ..AuditQuery::default() };
    let rows = reader.audit(&query).map_err(CommandError::store)?;
    // The newest first: all within the range, and the one that was active when it began.
    let before = rows.iter().position(|row| since.is_some_and(|since| row.unix_ms < since));
    let within = before.map_or(rows.len(), |before| before + 1);
    Ok(rows[..within].iter().rev().map(active).collect())
}

fn active(row: &AuditRow) -> ActiveConfiguration {
    let changes = changed_fields(&row.changes);
    let version = changes.iter().find(|change| &*change.field == "version").and_then(|change| change.after.clone());
    let of_residency = |field: &str| {
        field.starts_with("policies.") && field.ends_with(".regions")
            || field.starts_with("providers.") && field.ends_with(".region")
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    let changed = changes.iter().filter(|change| of_residency(&change.field));
    ActiveConfiguration {
        since_unix_ms: row.unix_ms,
        version: version.unwrap_or_default(),
        changes: changed.map(|one| format!("{}: {} -> {}", one.field, text(&one.before), text(&one.after))).collect(),
    }
}

impl ResidencyReport {
    /// Why it is no proof; empty if it is one.
    fn reasons(&self) -> Vec<String> {
        let ResidencyTally { left_count, unknown, unreadable, .. } = self.tally;
        let counted = |count: u64, one: &str, more: &str| {
            let what = if count == 1 { one } else { more };
            (count > 0).then(|| format!("{} {what}", grouped(count.into())))
        };
        let unjudged = "cannot be judged: the region or the policy is not known any more";
        [
            counted(left_count, "attempt left the residency", "attempts left the residency"),
            counted(unknown, &format!("attempt {unjudged}"), &format!("attempts {unjudged}")),
            counted(unreadable, "receipt cannot be read", "receipts cannot be read"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn text(&self) -> String {
        let tally = &self.tally;
        let since = self.since_unix_ms.map_or_else(|| "the beginning".to_owned(), instant);
        let mut out = format!("from {since} to {}\n", instant(self.until_unix_ms));
        for (policy, patterns) in &self.policies {
            out.push_str(&format!("{policy} stays within {}\n", patterns.join(", ")));
        }
        if self.policies.is_empty() {
            out.push_str("no policy has a residency: requests may go anywhere\n");
        }
        let [requests, bound, attempts] = [tally.requests, tally.bound, tally.attempts].map(|n| grouped(n.into()));
        out.push_str(&format!("{requests} requests, {bound} of them bound by a residency, with {attempts} attempts\n"));
        if !tally.regions.is_empty() {
            out.push_str(&format!("\n{}", self.regions()));
        }
        out.push_str(&format!("\n{}", self.active()));
        for left in tally.left.iter().take(MOST_SHOWN) {
            out.push_str(&format!("{}\n", line(left)));
        }
        if tally.left_count > MOST_SHOWN as u64 {
            out.push_str("... and more; --json has up to 100\n");
        }
        match self.reasons() {
            reasons if reasons.is_empty() => out.push_str("0 attempts left the residency\n"),
            reasons => reasons.iter().for_each(|reason| out.push_str(&format!("FAIL: {reason}\n"))),
        }
        out
    }

    fn regions(&self) -> String {
        let head = [
            ("region", Alignment::Left),
            ("attempts", Alignment::Right),
            ("answered", Alignment::Right),
            ("input", Alignment::Right),
            ("output", Alignment::Right),
        ];
        let row = |(region, tally): (&Arc<str>, &RegionTally)| {
            let mut row = vec![region.to_string()];
            row.extend([tally.attempts, tally.served].map(|count| grouped(count.into())));
            row.extend([tally.input, tally.output].map(short));
            row
        };
        table(&head, &self.tally.regions.iter().map(row).collect::<Vec<_>>())
    }

    fn active(&self) -> String {
        if self.configurations.is_empty() {
            return "which configurations were active is not in the audit\n".to_owned();
        }
        let mut out = String::new();
        for one in &self.configurations {
            out.push_str(&format!("configuration {} active from {}\n", one.version, instant(one.since_unix_ms)));
            for change in &one.changes {
                out.push_str(&format!("  it changed {change}: requests before it are judged by what is now\n"));
            }
        }
        out
    }

    fn json(&self) -> Value {
        let tally = &self.tally;
        let region = |(region, tally): (&Arc<str>, &RegionTally)| {
            let RegionTally { attempts, served, input, output } = tally;
            json!({ "region": **region, "attempts": attempts, "answered": served, "input_tokens": input,
                "output_tokens": output })
        };
        let left = |one: &OutsideAttempt| {
            json!({ "request_id": one.request.to_string(), "received": instant(one.received_unix_ms), "key": one.key,
                "policy": one.policy, "attempt": one.attempt, "deployment": one.deployment, "region": one.region })
        };
        let active = |one: &ActiveConfiguration| json!({ "version": one.version, "since": instant(one.since_unix_ms), "residency_changes": one.changes });
        let policy = |(name, patterns): &(Arc<str>, Vec<String>)| json!({ "policy": **name, "regions": patterns });
        json!({
            "object": "residency_report",
            "since": self.since_unix_ms.map(instant),
            "until": instant(self.until_unix_ms),
            "policies": self.policies.iter().map(policy).collect::<Vec<_>>(),
            "requests": tally.requests,
            "bound": tally.bound,
            "attempts": tally.attempts,
            "regions": tally.regions.iter().map(region).collect::<Vec<_>>(),
            "left": tally.left_count,
            "left_attempts": tally.left.iter().map(left).collect::<Vec<_>>(),
            "unknown": tally.unknown,
            "unreadable": tally.unreadable,
            "configurations": self.configurations.iter().map(active).collect::<Vec<_>>(),
            "proved": tally.is_proved(),
            "reasons": self.reasons(),
        })
    }
}

fn line(left: &OutsideAttempt) -> String {
    let OutsideAttempt { request, received_unix_ms, key, policy, attempt, deployment, region } = left;
    let [key, policy] = [key, policy].map(|name| name.as_deref().unwrap_or("none"));
    format!(
        "left: {request} at {}: attempt {attempt} at {deployment} in {region} (key {key}, policy {policy})",
        instant(*received_unix_ms)
    )
}
