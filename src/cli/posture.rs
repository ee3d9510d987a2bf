//! `tierway posture`: the six questions that a buyer asks, answered from the ledger, the configuration and the store's reports of
//! drills.
//!
//! It only reads, beside a running gateway.
//!
//! Start reading at [`posture`].

use super::context::{CliContext, finish};
use super::page::{escaped, html_table, page, write_page};
use super::store::{CommandError, StoreArgs};
use super::value_parsers::{day, instant};
use crate::admin::posture::{Posture, PostureAnswer, PostureFact};
use crate::admin::views::{PostureObject, to_json};
use crate::clock::Clock;
use clap::Args;
use std::fmt::Alignment;
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str =
    "Each fact has its source and date. What was not measured says so, and how to measure it. Nothing is estimated.";

/// Arguments of `posture`.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct PostureArgs {
    /// Only about this policy
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Write a page as well: one file, to read and to print
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Prints the answers.
///
/// # Errors
/// Only if the output cannot be written.
pub(super) fn posture(args: &PostureArgs) -> anyhow::Result<ExitCode> {
    finish(answered(args))
}

fn answered(args: &PostureArgs) -> Result<String, CommandError> {
    let context = CliContext::open_to_read(&args.store)?;
    let admin = context.with_ledger(&args.store)?;
    let found = context.run(admin.posture(&context.snapshot, args.policy.as_deref(), Clock.unix_ms()))?;
    if let Some(file) = &args.html {
        write_page(file, &html(&found))?;
    }
    Ok(if args.json { format!("{:#}\n", to_json(&PostureObject::from(&found))) } else { text(&found) })
}

fn head(posture: &Posture) -> String {
    let whose = posture.policy.as_ref().map_or_else(|| "all policies".to_owned(), |policy| format!("policy {policy}"));
    format!("{whose}, {}; the ledger from {} on", instant(posture.until_unix_ms), day(posture.since_unix_ms))
}

fn text(posture: &Posture) -> String {
    let mut out = format!("Posture of {}\n", head(posture));
    for (number, answer) in (1..).zip(&posture.answers) {
        out.push_str(&format!("\n{number}. {}\n", answer.question));
        for fact in &answer.facts {
            let PostureFact { topic, value, source, .. } = fact;
            out.push_str(&format!("   {topic}: {value} ({source}, {})\n", date(fact)));
        }
        if let Some(how) = how(answer) {
            out.push_str(&format!("   {how}\n"));
        }
    }
    out
}

/// A date is at the right, where cells are not broken into lines.
const COLUMNS: [(&str, Alignment); 4] =
    [("", Alignment::Left), ("", Alignment::Left), ("source", Alignment::Left), ("date", Alignment::Right)];

fn row(fact: &PostureFact) -> Vec<String> {
    vec![fact.topic.clone(), fact.value.clone(), fact.source.clone(), date(fact)]
}

fn date(fact: &PostureFact) -> String {
    let at = day(fact.at_unix_ms);
    fact.since_unix_ms.map_or_else(|| at.clone(), |since| format!("{} to {at}", day(since)))
}

/// What is missing of an answer.
fn how(answer: &PostureAnswer) -> Option<String> {
    let what = if answer.measured { "not measured yet in part" } else { "not measured yet" };
    answer.how.as_ref().map(|how| format!("{what}: {how}"))
}

fn html(posture: &Posture) -> String {
    let mut body = format!("<h1>Posture</h1><p>{}. Each fact has its source and date.</p>", escaped(&head(posture)));
    for (number, answer) in (1..).zip(&posture.answers) {
        body.push_str(&format!("<h2>{number}. {}</h2>", escaped(answer.question)));
        if !answer.facts.is_empty() {
            let rows: Vec<Vec<String>> = answer.facts.iter().map(row).collect();
            body.push_str(&html_table(&COLUMNS, &rows));
        }
        if let Some(how) = how(answer) {
            body.push_str(&format!("<p><small>{}</small></p>", escaped(&how)));
        }
    }
    page("Posture", &body)
}
