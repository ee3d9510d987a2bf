//! `tierway migrate`: brings the database up to date without serving, or says how it stands.

use super::print;
use super::store::{CommandError, StoreArgs};
use crate::clock::Clock;
use crate::store::sqlite::{MigrationStatus, lock, migrate as forward, status};
use clap::Args;
use serde_json::json;
use std::process::ExitCode;

/// What `migrate` takes.
#[derive(Args, Debug)]
pub(super) struct MigrateArgs {
    /// Only say which migrations the database has; exits with 1 if one is missing
    #[arg(long)]
    status: bool,
    #[command(flatten)]
    stored: StoreArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Migrates, or says how the database stands.
///
/// # Errors
/// Only that it could not be said.
pub(super) fn migrate(args: &MigrateArgs) -> anyhow::Result<ExitCode> {
    match if args.status { view(args) } else { done(args) } {
        Ok((said, code)) => {
            print(&said)?;
            Ok(code)
        }
        Err(stopped) => stopped.tell(),
    }
}

fn done(args: &MigrateArgs) -> Result<(String, ExitCode), CommandError> {
    let path = args.stored.path()?;
    let _held = lock(&path).map_err(CommandError::store)?;
    let applied = forward(&path, Clock.unix_ms()).map_err(CommandError::store)?.applied;
    let said = match (args.json, applied.is_empty()) {
        (true, _) => format!("{}\n", json!({ "applied": applied })),
        (_, true) => "up to date\n".to_owned(),
        (_, false) => applied.iter().map(|name| format!("applied {name}\n")).collect(),
    };
    Ok((said, ExitCode::SUCCESS))
}

fn view(args: &MigrateArgs) -> Result<(String, ExitCode), CommandError> {
    let status = status(&args.stored.path()?).map_err(CommandError::store)?;
    let missing = status.iter().any(|one| one.applied_unix_ms.is_none());
    let value = |one: &MigrationStatus| json!({ "name": one.name, "applied_unix_ms": one.applied_unix_ms });
    let line = |one: &MigrationStatus| {
        format!("{}  {}\n", one.name, if one.applied_unix_ms.is_some() { "applied" } else { "missing" })
    };
    let said = match args.json {
        true => format!("{}\n", json!({ "migrations": status.iter().map(value).collect::<Vec<_>>() })),
        false => status.iter().map(line).collect(),
    };
    Ok((said, if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS }))
}
