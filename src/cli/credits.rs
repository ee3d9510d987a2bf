//! `tierway credits`: prepaid money, granted to keys and teams, and its balances.
//!
//! A grant is never changed: a further grant, which may be negative, corrects it.
//!
//! Start reading at [`credits`].

use super::context::{CliContext, KNOWN_SOON, finish, note};
use super::store::{CommandError, StoreArgs};
use super::table::{NONE, dollars, quoted, table};
use super::value_parsers::{amount, instant, minute};
use crate::admin::views::{BalanceObject, GrantObject, ListObject, to_json};
use crate::admin::{KeyView, NewGrant, Page};
use crate::domain::budget::{CreditUse, Scope};
use crate::domain::money::NanoUsd;
use crate::domain::register::{CreditBalance, Grant, Holder};
use clap::{Args, Subcommand};
use std::fmt::Alignment;
use std::process::ExitCode;

/// Number of grants, or keys, read at once.
const PAGE: usize = 1_000;

const EXAMPLES: &str = "Examples:
  tierway credits grant --team growth 250.00 --reason \"invoice 2026-117\"
  tierway credits grant --key growth-app -5.00 --reason \"granted twice\"";

/// Subcommands of `credits`.
#[derive(Subcommand, Debug)]
pub(super) enum CreditsCommand {
    /// Grant credit to a key or a team; an amount below zero takes it back
    #[command(after_help = EXAMPLES)]
    Grant(CreditsGrantArgs),
    /// Show how credit stands: granted, spent, leased by a running gateway, left
    List(CreditsListArgs),
}

/// Arguments of `credits grant`.
#[derive(Args, Debug)]
pub(super) struct CreditsGrantArgs {
    #[command(flatten)]
    holder: HolderArgs,
    /// Dollars as a decimal, such as 25.00 or -5.00
    #[arg(value_name = "AMOUNT", allow_hyphen_values = true, value_parser = amount)]
    amount: NanoUsd,
    /// Why, for people
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Who says so, for people
    #[arg(long, value_name = "WHO", env = "USER", hide_env_values = true, default_value = "cli", value_parser = who)]
    by: String,
    /// Print the grant as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

fn who(text: &str) -> Result<String, &'static str> {
    let line = !text.chars().any(char::is_control) && text.len() <= 200;
    // The variable may be set and empty.
    let text = if text.is_empty() { "cli" } else { text };
    if line { Ok(text.to_owned()) } else { Err("write one line of up to 200 bytes") }
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct HolderArgs {
    /// To this key
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// To this team: its keys spend it together
    #[arg(long, value_name = "NAME")]
    team: Option<String>,
}

/// Arguments of `credits list`.
#[derive(Args, Debug)]
pub(super) struct CreditsListArgs {
    #[command(flatten)]
    only: HolderFilterArgs,
    /// List the grants, oldest first
    #[arg(long)]
    grants: bool,
    /// Print CSV
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Args, Debug)]
#[group(required = false, multiple = false)]
struct HolderFilterArgs {
    /// Of this key only
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// Of this team only
    #[arg(long, value_name = "NAME")]
    team: Option<String>,
}

fn holder(key: Option<&str>, team: Option<&str>) -> Option<Holder> {
    let of = |scope: Scope| move |name: &str| Holder { scope, name: name.into() };
    key.map(of(Scope::Key)).or_else(|| team.map(of(Scope::Team)))
}

/// Runs `command`.
///
/// # Errors
/// Only if the output cannot be written.
pub(super) fn credits(command: &CreditsCommand) -> anyhow::Result<ExitCode> {
    finish(match command {
        CreditsCommand::Grant(args) => grant(args),
        CreditsCommand::List(args) => list(args),
    })
}

fn grant(args: &CreditsGrantArgs) -> Result<String, CommandError> {
    let context = CliContext::open(&args.store, "credits grant")?;
    let holder = holder(args.holder.key.as_deref(), args.holder.team.as_deref());
    let holder = holder.ok_or_else(|| CommandError::usage("name a --key or a --team"))?;
    let new =
        NewGrant { holder: holder.clone(), amount: args.amount, reason: args.reason.clone(), by: args.by.clone() };
    let grant = context.run(context.admin.grant(&context.snapshot, new))?;
    let balance = context.run(context.admin.balances())?.into_iter().find(|balance| balance.holder == holder);
    if let Some(advice) = unpaid(&context, &holder) {
        note(&advice);
    }
    if args.json {
        return Ok(format!("{:#}\n", to_json(&GrantObject::from(&grant))));
    }
    let whose = format!("the {} {}", holder.scope.label(), holder.name);
    let done = if grant.amount < NanoUsd::ZERO { "took from" } else { "granted to" };
    let left = balance.map_or_else(|| NONE.to_owned(), |balance| format_usd(balance.left()));
    let amount = NanoUsd(grant.amount.0.saturating_abs());
    Ok(format!("{done} {whose}: {}; left: {left}; {KNOWN_SOON}\n", format_usd(amount)))
}

/// Advice for a grant whose holder goes on unpaid once the credit is spent.
fn unpaid(context: &CliContext, holder: &Holder) -> Option<String> {
    let goes_on = |key: &KeyView| key.record.budgets.is_empty() && key.record.policy.money.credit == CreditUse::First;
    let key = match holder.scope {
        Scope::Key => context.admin.key(&context.snapshot, &holder.name).ok().filter(goes_on),
        _ => first_of_team(context, &holder.name, goes_on),
    }?;
    Some(format!(
        "note: the key {} has no budget, and its policy {} takes credit = \"first\": once the credit is spent its \
         requests go on, paid by nobody. credit = \"only\" in the policy would refuse them then; a budget bounds them.",
        key.name(),
        key.record.policy.name
    ))
}

fn first_of_team(context: &CliContext, team: &str, wanted: impl Fn(&KeyView) -> bool) -> Option<KeyView> {
    let mut after = None;
    loop {
        let page = context.admin.keys(&context.snapshot, after.as_deref(), PAGE);
        let mut of_team = page.items.into_iter().filter(|key| key.record.team.as_deref() == Some(team));
        if let Some(key) = of_team.find(&wanted) {
            return Some(key);
        }
        after = Some(page.next?);
    }
}

fn list(args: &CreditsListArgs) -> Result<String, CommandError> {
    let context = CliContext::open_to_read(&args.store)?;
    let only = holder(args.only.key.as_deref(), args.only.team.as_deref());
    if args.grants {
        let grants = grants(&context, only.as_ref())?;
        return Ok(match (args.csv, args.json) {
            (true, _) => grants_csv(&grants),
            (_, true) => format!("{:#}\n", to_json(&ListObject::<GrantObject>::of(&whole(grants)))),
            _ => grants_table(&grants),
        });
    }
    let mut balances = context.run(context.admin.balances())?;
    balances.retain(|balance| only.as_ref().is_none_or(|only| *only == balance.holder));
    Ok(match (args.csv, args.json) {
        (true, _) => balances_csv(&balances),
        (_, true) => format!("{:#}\n", to_json(&ListObject::<BalanceObject>::of(&whole(balances)))),
        _ => balances_table(&balances),
    })
}

/// A page that is the whole list.
fn whole<T>(items: Vec<T>) -> Page<T> {
    Page { items, next: None }
}

fn grants(context: &CliContext, only: Option<&Holder>) -> Result<Vec<Grant>, CommandError> {
    let mut grants = Vec::<Grant>::new();
    loop {
        let after = grants.last().map_or(0, |grant| grant.id);
        let page = context.run(context.admin.grants(only.cloned(), after, PAGE))?;
        grants.extend(page.items);
        if page.next.is_none() {
            return Ok(grants);
        }
    }
}

fn format_usd(amount: NanoUsd) -> String {
    dollars(amount.0.into())
}

fn balances_table(balances: &[CreditBalance]) -> String {
    if balances.is_empty() {
        return "no credit\n".to_owned();
    }
    let head = [
        ("of", Alignment::Left),
        ("name", Alignment::Left),
        ("granted", Alignment::Right),
        ("spent", Alignment::Right),
        ("leased", Alignment::Right),
        ("left", Alignment::Right),
    ];
    let row = |balance: &CreditBalance| {
        let mut row = vec![balance.holder.scope.label().to_owned(), balance.holder.name.to_string()];
        row.extend(columns(balance).map(format_usd));
        row
    };
    table(&head, &balances.iter().map(row).collect::<Vec<_>>())
}

/// Granted, spent, leased, left.
fn columns(balance: &CreditBalance) -> [NanoUsd; 4] {
    [balance.granted, balance.spent, balance.leased, balance.left()]
}

fn balances_csv(balances: &[CreditBalance]) -> String {
    let row = |balance: &CreditBalance| {
        let amounts = columns(balance).map(|amount| amount.to_string()).join(",");
        format!("{},{},{amounts}\n", balance.holder.scope.label(), quoted(&balance.holder.name))
    };
    let head = "scope,name,granted_usd,spent_usd,leased_usd,left_usd\n".to_owned();
    std::iter::once(head).chain(balances.iter().map(row)).collect()
}

fn grants_table(grants: &[Grant]) -> String {
    if grants.is_empty() {
        return "no grants\n".to_owned();
    }
    let head = [
        ("id", Alignment::Right),
        ("when", Alignment::Left),
        ("to", Alignment::Left),
        ("amount", Alignment::Right),
        ("by", Alignment::Left),
        ("reason", Alignment::Left),
    ];
    let row = |grant: &Grant| {
        vec![
            grant.id.to_string(),
            minute(grant.granted_unix_ms),
            format!("{} {}", grant.holder.scope.label(), grant.holder.name),
            format_usd(grant.amount),
            grant.by.to_string(),
            grant.reason.to_string(),
        ]
    };
    table(&head, &grants.iter().map(row).collect::<Vec<_>>())
}

fn grants_csv(grants: &[Grant]) -> String {
    let row = |grant: &Grant| {
        format!(
            "{},{},{},{},{},{},{}\n",
            grant.id,
            instant(grant.granted_unix_ms),
            grant.holder.scope.label(),
            quoted(&grant.holder.name),
            grant.amount,
            quoted(&grant.by),
            quoted(&grant.reason)
        )
    };
    let head = "id,granted,scope,name,amount_usd,by,reason\n".to_owned();
    std::iter::once(head).chain(grants.iter().map(row)).collect()
}
