//! `tierway audit`: what operators changed, and whether the record of it is as it was written.
//!
//! It only reads, beside a running gateway or without one.
//!
//! Start reading at [`audit`].

use super::context::finish;
use super::print;
use super::store::{CommandError, StoreArgs};
use super::table::{NONE, grouped, table};
use super::time_range::TimeRangeArgs;
use super::value_parsers::instant;
use crate::admin::views::{AuditRowObject, ListObject, to_json};
use crate::admin::{Page, changed_fields};
use crate::clock::Clock;
use crate::domain::audit::{
    AuditChain, AuditEnd, AuditFault, AuditHash, AuditQuery, AuditRow, ChangedField, chain_faults,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::fmt::Alignment;
use std::process::ExitCode;

const VERIFY_HELP: &str = "Exit code: 0 when every row is as it was written, 1 when one is not.

The rows are chained by SHA-256, so that a changed, removed, replaced or moved row is named. Whoever can write the database
can write the whole chain anew, or remove its newest rows together with the record of them: keep what `verify` prints as the
newest row somewhere else, and give it as --noted the next time.";

/// Subcommands of `audit`.
#[derive(Subcommand, Debug)]
pub(super) enum AuditCommand {
    /// List what operators changed, the newest first: who, from where, by what, before and after
    List(AuditListArgs),
    /// Find out whether a row was changed, removed, replaced or moved since it was written
    #[command(after_help = VERIFY_HELP)]
    Verify(AuditVerifyArgs),
}

/// Arguments of `audit list`.
#[derive(Args, Debug)]
pub(super) struct AuditListArgs {
    #[command(flatten)]
    time_range: TimeRangeArgs,
    /// Only changes of this kind of thing: key, team, deployment, configuration, sla
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only changes of what has this name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// No more than so many [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print JSON: every field, and the hashes of the chain
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Arguments of `audit verify`.
#[derive(Args, Debug)]
pub(super) struct AuditVerifyArgs {
    /// The newest row as an earlier `verify` printed it, or a line of the log had it: it must still be there
    #[arg(long, value_name = "NUMBER:HASH", value_parser = noted)]
    noted: Option<AuditEnd>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

fn noted(text: &str) -> Result<AuditEnd, &'static str> {
    const WRONG: &str = "write the number of a row, a colon and its hash of 64 hex digits";
    let (number, hash) = text.split_once(':').ok_or(WRONG)?;
    let number = number.parse().ok().filter(|number| *number >= 0).ok_or(WRONG)?;
    Ok(AuditEnd { number, hash: AuditHash::from_hex(hash).ok_or(WRONG)? })
}

/// Runs `command`.
///
/// # Errors
/// Only if the output cannot be written.
pub(super) fn audit(command: &AuditCommand) -> anyhow::Result<ExitCode> {
    match command {
        AuditCommand::List(args) => finish(list(args)),
        AuditCommand::Verify(args) => verify(args),
    }
}

fn list(args: &AuditListArgs) -> Result<String, CommandError> {
    let now = Clock.unix_ms();
    let query = AuditQuery {
        since_unix_ms: args.time_range.since(now),
        until_unix_ms: args.time_range.until(now),
        kind: args.kind.clone(),
        name: args.name.clone(),
        after: None,
        most: args.limit.unwrap_or(usize::MAX),
    };
    let rows = args.store.book()?.audit(&query).map_err(CommandError::store)?;
    if args.json {
        let page = Page { items: rows, next: None };
        return Ok(format!("{:#}\n", to_json(&ListObject::<AuditRowObject>::of(&page))));
    }
    Ok(text(&rows))
}

fn text(rows: &[AuditRow]) -> String {
    if rows.is_empty() {
        return "no changes\n".to_owned();
    }
    let head = [
        ("row", Alignment::Right),
        ("when", Alignment::Left),
        ("who", Alignment::Left),
        ("from", Alignment::Left),
        ("by", Alignment::Left),
        ("of", Alignment::Left),
        ("changes", Alignment::Left),
    ];
    let line = |row: &AuditRow| {
        vec![
            row.number.to_string(),
            instant(row.unix_ms),
            row.operator.who.to_string(),
            row.operator.origin.to_string(),
            row.operator.command.to_string(),
            format!("{} {}", row.kind, row.name),
            changed_fields(&row.changes).iter().map(change).collect::<Vec<_>>().join("; "),
        ]
    };
    table(&head, &rows.iter().map(line).collect::<Vec<_>>())
}

fn change(ChangedField { field, before, after }: &ChangedField) -> String {
    let [before, after] = [before, after].map(|value| value.as_deref().unwrap_or(NONE));
    format!("{field}: {before} -> {after}")
}

fn verify(args: &AuditVerifyArgs) -> anyhow::Result<ExitCode> {
    let chain = args.store.book().and_then(|book| book.audit_chain().map_err(CommandError::store));
    let chain = match chain {
        Ok(chain) => chain,
        Err(error) => return error.print(),
    };
    let faults = chain_faults(&chain, args.noted);
    print(&if args.json { format!("{:#}\n", verdict_json(&chain, &faults)) } else { verdict(&chain, &faults) })?;
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The newest of the rows that are there.
fn newest(chain: &AuditChain) -> AuditEnd {
    chain.links.last().map_or(AuditEnd::NONE, |link| AuditEnd { number: link.number, hash: link.hash })
}

fn verdict(chain: &AuditChain, faults: &[AuditFault]) -> String {
    let count = grouped(chain.links.len() as u128);
    let AuditEnd { number, hash } = newest(chain);
    if faults.is_empty() {
        return format!(
            "{count} rows, each as it was written and in its place\nnewest row: {number}:{hash}\n  keep that line somewhere \
             else, for `tierway audit verify --noted` the next time\n"
        );
    }
    let lines: String = faults.iter().map(|fault| format!("{fault}\n")).collect();
    format!("{lines}{count} rows, and the audit is not as it was written: {} faults\n", faults.len())
}

fn verdict_json(chain: &AuditChain, faults: &[AuditFault]) -> Value {
    let AuditEnd { number, hash } = newest(chain);
    let fault = |fault: &AuditFault| json!({ "row": fault.row(), "fault": fault.to_string() });
    json!({
        "object": "audit_verification",
        "rows": chain.links.len(),
        "newest": { "number": number, "hash": hash.to_string() },
        "intact": faults.is_empty(),
        "faults": faults.iter().map(fault).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_a_number_and_a_hash() {
        let hash = "0".repeat(63) + "a";
        let read = noted(&format!("12:{hash}")).map(|end| (end.number, end.hash.to_string()));
        assert_eq!(read, Ok((12, hash.clone())));
        for wrong in ["", "12", &hash, &format!("-1:{hash}"), &format!("12:{}", &hash[1..]), &format!("x:{hash}")] {
            assert!(noted(wrong).is_err(), "{wrong}");
        }
    }
}
