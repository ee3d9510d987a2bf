//! `tierway keys`: keys created, listed, changed, rotated and imported, whether or not a gateway runs.
//!
//! The secret of a new key is the only output on stdout, once; messages go to stderr. The rules are those of
//! `admin`.
//!
//! Start reading at [`keys`].

mod change;
mod import;
mod rows;
mod show;

use super::context::{CliContext, exposed, finish, note, print_secret, what_next};
use super::store::{CommandError, StoreArgs};
use super::value_parsers::{self, ExpiryTime, budget};
use super::views;
use crate::admin::{IssuedKey, KeyView, NewKey, Page};
use crate::clock::Clock;
use crate::domain::budget::BudgetSpec;
use crate::domain::limit::Limits;
use crate::domain::register::{KeyOverrides, KeyState};
use clap::{Args, Subcommand};
use std::process::ExitCode;
use std::time::Duration;

/// Number of keys read at once.
const PAGE: usize = 1_000;

const CREATE_EXAMPLES: &str = "Examples:
  KEY=$(tierway keys create growth-app --policy standard --team growth)
  tierway keys create trial --policy standard --budget 5.00 --expires 30d --json
  tierway keys create batch --policy pro --budget 50.00/month/Europe/Paris";

const ROTATE_EXAMPLES: &str = "Examples:
  KEY=$(tierway keys rotate growth-app)            # the old one works for another 24 hours
  KEY=$(tierway keys rotate growth-app --overlap 0s)   # it leaked: the old one ends now";

/// Subcommands of `keys`.
#[derive(Subcommand, Debug)]
pub(super) enum KeysCommand {
    /// Make a key and print its secret, which is shown only now
    #[command(after_help = CREATE_EXAMPLES)]
    Create(KeysCreateArgs),
    /// List keys, those of the configuration too
    List(KeysListArgs),
    /// Show all of a key but its secrets, of which only the hash is kept
    Show(KeysShowArgs),
    /// Change what a key may do; what is not named stays as it is
    #[command(override_usage = "tierway keys edit [OPTIONS] <NAME>")]
    Edit(change::KeysEditArgs),
    /// Give a key a new secret and print it; the old ones work for a while longer
    #[command(after_help = ROTATE_EXAMPLES)]
    Rotate(KeysRotateArgs),
    /// Refuse a key until it is enabled again
    Disable(change::KeysSwitchArgs),
    /// Let a disabled key work again
    Enable(change::KeysSwitchArgs),
    /// Delete a key for good: its secrets end at once, its name stays in reports and is not free again
    Delete(change::KeysDeleteArgs),
    /// Say when a key ends
    Expire(change::KeysExpireArgs),
    /// Make many keys of secrets that exist, from CSV or JSON Lines: all, or none
    #[command(after_help = import::EXAMPLES)]
    Import(import::KeysImportArgs),
}

/// Arguments of `keys create`.
#[derive(Args, Debug)]
pub(super) struct KeysCreateArgs {
    /// What it is called, for ever: reports and budgets stand under its name
    name: String,
    /// One of the configuration's policies
    #[arg(long)]
    policy: String,
    /// Whom it shares a budget and reports with
    #[arg(long)]
    team: Option<String>,
    /// Tighter than its policy's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests_per_minute: Option<u64>,
    /// Tighter than its policy's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    tokens_per_minute: Option<u64>,
    /// Requests at once, fewer than its policy's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_concurrent: Option<u32>,
    /// What it may spend: 50.00/month, 5.00/day/Europe/Paris, or 50.00 once
    #[arg(long, value_name = "USD[/WINDOW[/ZONE]]", value_parser = budget)]
    budget: Option<BudgetSpec>,
    /// Its last day (2027-01-31, in UTC), an instant, or how long it lasts (30d, 12h)
    #[arg(long, value_name = "WHEN", value_parser = ExpiryTime::parse)]
    expires: Option<ExpiryTime>,
    /// Print one JSON object, with the secret in it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Arguments of `keys list`.
#[derive(Args, Debug)]
pub(super) struct KeysListArgs {
    /// No more than so many [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Those whose names follow this one
    #[arg(long, value_name = "NAME")]
    after: Option<String>,
    /// Those that were deleted, too
    #[arg(long)]
    all: bool,
    /// Print CSV
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Arguments of `keys show`.
#[derive(Args, Debug)]
pub(super) struct KeysShowArgs {
    /// The key
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Arguments of `keys rotate`.
#[derive(Args, Debug)]
pub(super) struct KeysRotateArgs {
    /// The key
    name: String,
    /// How much longer the old secret works; 0s: not at all
    #[arg(long, value_name = "LENGTH", default_value = "24h", value_parser = value_parsers::length)]
    overlap: i64,
    /// Only if this is its version, as `keys show` has it
    #[arg(long, value_name = "N")]
    if_version: Option<i64>,
    /// Print one JSON object, with the secret in it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs `command`.
///
/// # Errors
/// Only if the output cannot be written.
pub(super) fn keys(command: &KeysCommand) -> anyhow::Result<ExitCode> {
    match command {
        KeysCommand::Create(args) => issued(create(args), args.json),
        KeysCommand::Rotate(args) => issued(rotate(args), args.json),
        KeysCommand::List(args) => finish(list(args)),
        KeysCommand::Show(args) => finish(show(args)),
        KeysCommand::Edit(args) => finish(change::edit(args)),
        KeysCommand::Disable(args) => finish(change::switch(args, true)),
        KeysCommand::Enable(args) => finish(change::switch(args, false)),
        KeysCommand::Delete(args) => finish(change::delete(args)),
        KeysCommand::Expire(args) => finish(change::expire(args)),
        KeysCommand::Import(args) => finish(import::import(args)),
    }
}

/// A key with its new secret, and the message about it.
type IssuedWithNote = (IssuedKey, String);

fn create(args: &KeysCreateArgs) -> Result<IssuedWithNote, CommandError> {
    let context = CliContext::open(&args.store, "keys create")?;
    let limits = Limits {
        requests_per_minute: args.requests_per_minute,
        tokens_per_minute: args.tokens_per_minute,
        max_concurrent: args.max_concurrent,
    };
    let new = NewKey {
        name: args.name.clone(),
        policy: args.policy.clone(),
        team: args.team.clone(),
        own: KeyOverrides { limits, budget: args.budget.clone() },
        expires: args.expires.map(|end| end.unix(Clock.unix_ms())),
        hash: None,
    };
    let issued = context.run(context.admin.create_key(&context.snapshot, new))?;
    let mut message = format!("created the key {} with the policy {}", args.name, args.policy);
    if let Some(team) = &args.team {
        message.push_str(&format!(", in the team {team}{}", unknown_team(&context, team)));
    }
    message.push_str(&format!("\n{}", what_next(&context.snapshot)));
    Ok((issued, message))
}

/// A warning for a team without a budget: its name may be misspelt.
fn unknown_team(context: &CliContext, team: &str) -> String {
    match context.admin.team(&context.snapshot, team) {
        Ok(_) => String::new(),
        Err(_) => format!("; no team of that name has a budget, which `tierway teams create {team}` would give it"),
    }
}

fn rotate(args: &KeysRotateArgs) -> Result<IssuedWithNote, CommandError> {
    let context = CliContext::open(&args.store, "keys rotate")?;
    let overlap = Duration::from_millis(args.overlap.unsigned_abs());
    let issued = context.run(context.admin.rotate_key(&context.snapshot, &args.name, args.if_version, overlap))?;
    let old = issued.key.stored.iter().flat_map(|key| key.secrets.iter().rev().skip(1));
    let until = old.filter_map(|secret| secret.ends_unix_ms).max().filter(|_| args.overlap > 0);
    let old = match until {
        Some(end) => format!("the old secret works until {} UTC", value_parsers::minute(end)),
        None => "the old secret no longer works".to_owned(),
    };
    Ok((issued, format!("rotated the key {}; {old}\n{}", args.name, what_next(&context.snapshot))))
}

/// Prints the secret, alone or in one JSON object, to stdout, and the message to stderr.
fn issued(done: Result<IssuedWithNote, CommandError>, as_json: bool) -> anyhow::Result<ExitCode> {
    let (issued, message) = match done {
        Ok(done) => done,
        Err(error) => return error.print(),
    };
    let secret = exposed(issued.secret.as_ref());
    let answer = if as_json { format!("{:#}", views::issued_key(&issued)) } else { secret.to_owned() };
    let code = print_secret(issued.key.name(), &answer)?;
    note(&message);
    Ok(code)
}

fn list(args: &KeysListArgs) -> Result<String, CommandError> {
    let context = CliContext::open_to_read(&args.store)?;
    let page = listed(&context, args.after.clone(), args.limit.unwrap_or(usize::MAX), |key| {
        args.all || key.state != KeyState::Deleted
    });
    Ok(match (args.csv, args.json) {
        (true, _) => show::csv(&page.items),
        (_, true) => format!("{:#}\n", views::keys(&page)),
        _ => show::list(&page.items),
    })
}

/// Up to `most` keys after the one called `after` that are wanted, read page by page.
fn listed(
    context: &CliContext,
    mut after: Option<String>,
    most: usize,
    wanted: impl Fn(&KeyView) -> bool,
) -> Page<KeyView> {
    let mut items = Vec::new();
    loop {
        let page = context.admin.keys(&context.snapshot, after.as_deref(), PAGE.min(most - items.len()));
        items.extend(page.items.into_iter().filter(&wanted));
        if page.next.is_none() || items.len() >= most {
            return Page { items, next: page.next };
        }
        after = page.next;
    }
}

fn show(args: &KeysShowArgs) -> Result<String, CommandError> {
    let context = CliContext::open_to_read(&args.store)?;
    let key = context.admin.key(&context.snapshot, &args.name).map_err(super::context::command_error)?;
    Ok(if args.json { format!("{:#}\n", views::key(&key)) } else { show::one(&key, Clock.unix_ms()) })
}
