//! `tierway migrate`: applies the migrations of the database without serving, or lists them.

use super::print;
use super::store::{CommandError, StoreArgs};
use crate::clock::Clock;
use crate::store::sqlite::{MigrationStatus, lock, migrate as forward, status};
use clap::Args;
use serde_json::json;
use std::process::ExitCode;

/// Arguments of `migrate`.
#[derive(Args, Debug)]
pub(super) struct MigrateArgs {
    /// Only say which migrations the database has; exits with 1 if one is missing
    #[arg(long)]
    status: bool,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Migrates the database, or lists its migrations.
///
/// # Errors
/// Only if the output cannot be written.
pub(super) fn migrate(args: &MigrateArgs) -> anyhow::Result<ExitCode> {
    match if args.status { status_of(args) } else { migrated(args) } {
        Ok((output, code)) => {
            print(&output)?;
            Ok(code)
        }
        Err(error) => error.print(),
    }
}

fn migrated(args: &MigrateArgs) -> Result<(String, ExitCode), CommandError> {
    let path = args.store.path()?;
    let _held = lock(&path).map_err(CommandError::store)?;
    let applied = forward(&path, Clock.unix_ms()).map_err(CommandError::store)?.applied;
    let output = match (args.json, applied.is_empty()) {
        (true, _) => format!("{}\n", json!({ "applied": applied })),
        (_, true) => "up to date\n".to_owned(),
        (_, false) => applied.iter().map(|name| format!("applied {name}\n")).collect(),
    };
    Ok((output, ExitCode::SUCCESS))
}

fn status_of(args: &MigrateArgs) -> Result<(String, ExitCode), CommandError> {
    let status = status(&args.store.path()?).map_err(CommandError::store)?;
    let missing = status.iter().any(|one| one.applied_unix_ms.is_none());
    let value = |one: &MigrationStatus| json!({ "name": one.name, "applied_unix_ms": one.applied_unix_ms });
    let line = |one: &MigrationStatus| {
        format!("{}  {}\n", one.name, if one.applied_unix_ms.is_some() { "applied" } else { "missing" })
    };
    let output = match args.json {
        true => format!("{}\n", json!({ "migrations": status.iter().map(value).collect::<Vec<_>>() })),
        false => status.iter().map(line).collect(),
    };
    Ok((output, if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS }))
}
