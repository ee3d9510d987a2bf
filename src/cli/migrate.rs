//! `tierway migrate`: applies the migrations of the database without serving, or lists them.

use super::print;
use super::store::{CommandError, StoreArgs};
use super::store_place::{StorePlace, postgres};
use crate::clock::Clock;
use crate::store::migration::MigrationStatus;
use crate::store::postgres::{migrate_store, migrations_of};
use crate::store::sqlite::{lock, migrate as forward, status};
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
    let migrated = match args.store.place()? {
        StorePlace::File(path) => {
            let _held = lock(&path).map_err(CommandError::store)?;
            forward(&path, Clock.unix_ms()).map_err(CommandError::store)?
        }
        StorePlace::Postgres(url) => {
            let migrated = postgres(&url).and_then(|location| migrate_store(location, Clock.unix_ms()));
            migrated.map_err(CommandError::store)?
        }
    };
    let applied = migrated.applied;
    let output = match (args.json, applied.is_empty()) {
        (true, _) => format!("{}\n", json!({ "applied": applied })),
        (_, true) => "up to date\n".to_owned(),
        (_, false) => applied.iter().map(|name| format!("applied {name}\n")).collect(),
    };
    Ok((output, ExitCode::SUCCESS))
}

fn status_of(args: &MigrateArgs) -> Result<(String, ExitCode), CommandError> {
    let status = match args.store.place()? {
        StorePlace::File(path) => status(&path).map_err(CommandError::store)?,
        StorePlace::Postgres(url) => postgres(&url).and_then(migrations_of).map_err(CommandError::store)?,
    };
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
