//! `tierway keys edit`, `disable`, `enable`, `expire`, `delete`: changes of a key that give it no secret.
//!
//! Start reading at [`edit`].

use crate::admin::{KeyEdit, KeyView};
use crate::cli::context::{CliContext, KNOWN_SOON, note};
use crate::cli::store::{CommandError, StoreArgs};
use crate::cli::value_parsers::{self, ExpiryTime, budget, either};
use crate::cli::views;
use crate::clock::Clock;
use crate::domain::budget::BudgetSpec;
use clap::Args;

/// The key to change, and the output.
#[derive(Args, Debug)]
struct KeyChangeArgs {
    /// The key
    name: String,
    /// Only if this is its version, as `keys show` has it
    #[arg(long, value_name = "N")]
    if_version: Option<i64>,
    /// Print the key as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Arguments of `keys edit`.
#[derive(Args, Debug)]
pub(in crate::cli) struct KeysEditArgs {
    #[command(flatten)]
    change: KeyChangeArgs,
    #[command(flatten)]
    wanted: KeyEditArgs,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
struct KeyEditArgs {
    /// Another of the configuration's policies
    #[arg(long)]
    policy: Option<String>,
    /// Another team
    #[arg(long, conflicts_with = "no_team")]
    team: Option<String>,
    /// No team
    #[arg(long)]
    no_team: bool,
    /// Tighter than its policy's
    #[arg(long, value_name = "N", conflicts_with = "no_requests_per_minute",
        value_parser = clap::value_parser!(u64).range(1..))]
    requests_per_minute: Option<u64>,
    /// Its policy's alone
    #[arg(long)]
    no_requests_per_minute: bool,
    /// Tighter than its policy's
    #[arg(long, value_name = "N", conflicts_with = "no_tokens_per_minute",
        value_parser = clap::value_parser!(u64).range(1..))]
    tokens_per_minute: Option<u64>,
    /// Its policy's alone
    #[arg(long)]
    no_tokens_per_minute: bool,
    /// Requests at once, fewer than its policy's
    #[arg(long, value_name = "N", conflicts_with = "no_max_concurrent",
        value_parser = clap::value_parser!(u32).range(1..))]
    max_concurrent: Option<u32>,
    /// Its policy's alone
    #[arg(long)]
    no_max_concurrent: bool,
    /// What it may spend: 50.00/month, 5.00/day/Europe/Paris, or 50.00 once
    #[arg(long, value_name = "USD[/WINDOW[/ZONE]]", conflicts_with = "no_budget", value_parser = budget)]
    budget: Option<BudgetSpec>,
    /// Its policy's alone
    #[arg(long)]
    no_budget: bool,
}

impl KeyEditArgs {
    fn edit(&self) -> KeyEdit {
        KeyEdit {
            policy: self.policy.clone(),
            team: either(self.team.clone(), self.no_team),
            requests_per_minute: either(self.requests_per_minute, self.no_requests_per_minute),
            tokens_per_minute: either(self.tokens_per_minute, self.no_tokens_per_minute),
            max_concurrent: either(self.max_concurrent, self.no_max_concurrent),
            budget: either(self.budget.clone(), self.no_budget),
            ..KeyEdit::default()
        }
    }
}

/// Arguments of `keys disable` and `keys enable`.
#[derive(Args, Debug)]
pub(in crate::cli) struct KeysSwitchArgs {
    #[command(flatten)]
    change: KeyChangeArgs,
}

/// Arguments of `keys delete`.
#[derive(Args, Debug)]
pub(in crate::cli) struct KeysDeleteArgs {
    #[command(flatten)]
    change: KeyChangeArgs,
}

/// Arguments of `keys expire`.
#[derive(Args, Debug)]
pub(in crate::cli) struct KeysExpireArgs {
    #[command(flatten)]
    change: KeyChangeArgs,
    #[command(flatten)]
    end: KeyEndArgs,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct KeyEndArgs {
    /// Its last day (2027-01-31, in UTC), or an instant (2027-01-31T12:00:00Z)
    #[arg(long, value_name = "DATE", value_parser = ExpiryTime::parse_at)]
    at: Option<i64>,
    /// How much longer it works: 30d, 12h, 15m
    #[arg(long, value_name = "LENGTH", value_parser = value_parsers::length)]
    r#in: Option<i64>,
    /// It works until somebody takes it away
    #[arg(long)]
    never: bool,
}

/// Changes what a key may do.
pub(super) fn edit(args: &KeysEditArgs) -> Result<String, CommandError> {
    changed(&args.change, "keys edit", &args.wanted.edit(), |key| format!("changed the key {}", key.name()))
}

/// Disables or enables a key.
pub(super) fn switch(args: &KeysSwitchArgs, disabled: bool) -> Result<String, CommandError> {
    let edit = KeyEdit { disabled: Some(disabled), ..KeyEdit::default() };
    let (done, command) = if disabled { ("disabled", "keys disable") } else { ("enabled", "keys enable") };
    changed(&args.change, command, &edit, |key| format!("{done} the key {}", key.name()))
}

/// Sets when a key expires.
pub(super) fn expire(args: &KeysExpireArgs) -> Result<String, CommandError> {
    let KeyEndArgs { at, r#in, never } = &args.end;
    let end = at.or(r#in.map(|ms| ExpiryTime::In(ms).unix(Clock.unix_ms())));
    let edit = KeyEdit { expires: either(end, *never), ..KeyEdit::default() };
    changed(&args.change, "keys expire", &edit, |key| match key.record.expires {
        Some(end) => format!("the key {} expires: {}", key.name(), value_parsers::end(end)),
        None => format!("the key {} does not expire", key.name()),
    })
}

/// Deletes a key.
pub(super) fn delete(args: &KeysDeleteArgs) -> Result<String, CommandError> {
    let KeyChangeArgs { name, if_version, json, store } = &args.change;
    let context = CliContext::open(store, "keys delete")?;
    let key = context.run(context.admin.delete_key(&context.snapshot, name, *if_version))?;
    if *json {
        return Ok(format!("{:#}\n", views::key(&key)));
    }
    Ok(format!("deleted the key {name}; {KNOWN_SOON}, and its name stays in reports\n"))
}

fn changed(
    args: &KeyChangeArgs,
    command: &str,
    edit: &KeyEdit,
    message: impl FnOnce(&KeyView) -> String,
) -> Result<String, CommandError> {
    let context = CliContext::open(&args.store, command)?;
    let key = context.run(context.admin.edit_key(&context.snapshot, &args.name, args.if_version, edit))?;
    if let Some(Some(team)) = &edit.team {
        note(&format!("in the team {team}{}", super::unknown_team(&context, team)));
    }
    if args.json {
        return Ok(format!("{:#}\n", views::key(&key)));
    }
    Ok(format!("{} ({}); {KNOWN_SOON}\n", message(&key), key.state.label()))
}
