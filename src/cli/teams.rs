//! `tierway teams`: teams, whose keys share a budget, created and changed whether or not a gateway runs.
//!
//! Start reading at [`teams`].

use super::context::{CliContext, KNOWN_SOON, command_error, finish};
use super::store::{CommandError, StoreArgs};
use super::table::{NONE, table};
use super::value_parsers::{budget, either, format_budget, instant};
use super::views;
use crate::admin::{TeamEdit, TeamView};
use crate::domain::budget::BudgetSpec;
use clap::{Args, Subcommand};
use std::fmt::Alignment;
use std::process::ExitCode;

const EXAMPLES: &str = "Examples:
  tierway teams create growth --budget 2000.00/month
  tierway keys create growth-app --policy standard --team growth";

/// Subcommands of `teams`.
#[derive(Subcommand, Debug)]
pub(super) enum TeamsCommand {
    /// Make a team
    #[command(after_help = EXAMPLES)]
    Create(TeamsCreateArgs),
    /// List teams, those of the configuration too
    List(TeamsListArgs),
    /// Show a team
    Show(TeamsShowArgs),
    /// Change a team's budget
    Edit(TeamsEditArgs),
}

/// Arguments of `teams create`.
#[derive(Args, Debug)]
pub(super) struct TeamsCreateArgs {
    /// What it is called, for ever: reports and budgets stand under its name
    name: String,
    /// What its keys may spend together: 2000.00/month, 50.00/day/Europe/Paris, or 50.00 once
    #[arg(long, value_name = "USD[/WINDOW[/ZONE]]", value_parser = budget)]
    budget: Option<BudgetSpec>,
    /// Print the team as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Arguments of `teams list`.
#[derive(Args, Debug)]
pub(super) struct TeamsListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Arguments of `teams show`.
#[derive(Args, Debug)]
pub(super) struct TeamsShowArgs {
    /// The team
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Arguments of `teams edit`.
#[derive(Args, Debug)]
pub(super) struct TeamsEditArgs {
    /// The team
    name: String,
    #[command(flatten)]
    wanted: TeamEditArgs,
    /// Only if this is its version, as `teams show` has it
    #[arg(long, value_name = "N")]
    if_version: Option<i64>,
    /// Print the team as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct TeamEditArgs {
    /// What its keys may spend together: 2000.00/month, 50.00/day/Europe/Paris, or 50.00 once
    #[arg(long, value_name = "USD[/WINDOW[/ZONE]]", value_parser = budget)]
    budget: Option<BudgetSpec>,
    /// No budget: its keys' own, and their policies', are all there is
    #[arg(long)]
    no_budget: bool,
}

/// Runs `command`.
///
/// # Errors
/// Only if the output cannot be written.
pub(super) fn teams(command: &TeamsCommand) -> anyhow::Result<ExitCode> {
    finish(match command {
        TeamsCommand::Create(args) => create(args),
        TeamsCommand::List(args) => list(args),
        TeamsCommand::Show(args) => show(args),
        TeamsCommand::Edit(args) => edit(args),
    })
}

fn create(args: &TeamsCreateArgs) -> Result<String, CommandError> {
    let context = CliContext::open(&args.store, "teams create")?;
    let team = context.run(context.admin.create_team(&context.snapshot, &args.name, args.budget.clone()))?;
    Ok(changed(&team, "created", args.json))
}

fn edit(args: &TeamsEditArgs) -> Result<String, CommandError> {
    let context = CliContext::open(&args.store, "teams edit")?;
    let edit = TeamEdit { budget: either(args.wanted.budget.clone(), args.wanted.no_budget) };
    let team = context.run(context.admin.edit_team(&context.snapshot, &args.name, args.if_version, &edit))?;
    Ok(changed(&team, "changed", args.json))
}

fn changed(team: &TeamView, done: &str, json: bool) -> String {
    if json {
        return format!("{:#}\n", views::team(team));
    }
    format!("{done} the team {}, budget: {}; {KNOWN_SOON}\n", team.name, budget_of(team))
}

fn list(args: &TeamsListArgs) -> Result<String, CommandError> {
    let context = CliContext::open_to_read(&args.store)?;
    let page = context.admin.teams(&context.snapshot, None, usize::MAX);
    if args.json {
        return Ok(format!("{:#}\n", views::teams(&page)));
    }
    let teams = page.items;
    if teams.is_empty() {
        return Ok("no teams\n".to_owned());
    }
    let head = ["name", "source", "budget"].map(|name| (name, Alignment::Left));
    let row = |team: &TeamView| vec![team.name.to_string(), team.source.label().to_owned(), budget_of(team)];
    Ok(table(&head, &teams.iter().map(row).collect::<Vec<_>>()))
}

fn show(args: &TeamsShowArgs) -> Result<String, CommandError> {
    let context = CliContext::open_to_read(&args.store)?;
    let team = context.admin.team(&context.snapshot, &args.name).map_err(command_error)?;
    if args.json {
        return Ok(format!("{:#}\n", views::team(&team)));
    }
    let mut text = format!("name     {}\nsource   {}\nbudget   {}\n", team.name, team.source.label(), budget_of(&team));
    if let Some(stored) = &team.stored {
        text.push_str(&format!("created  {}\nversion  {}\n", instant(stored.created_unix_ms), stored.version));
    }
    Ok(text)
}

fn budget_of(team: &TeamView) -> String {
    team.budget.as_ref().map_or_else(|| NONE.to_owned(), |budget| format_budget(budget.limit, &budget.window))
}
