//! `tierway store copy`: moves a store between a SQLite file and a PostgreSQL server.
//!
//! Start reading at [`store`].

use super::print;
use super::store::CommandError;
use super::store_place::{StorePlace, postgres};
use crate::clock::Clock;
use crate::domain::money::NanoUsd;
use crate::store::copy::{CopiedStore, CopyError, CopyProgress, StoreCopy, copy_store};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const EXAMPLES: &str = "Examples:
  tierway store copy --from sqlite:tierway.db --to postgres://tierway@db.example/tierway
  tierway store copy --from postgres://tierway@db.example/tierway --to sqlite:tierway.db

The gateway must be stopped. With a large ledger, run it once with --online before: it copies the receipts while the
gateway serves, and the run after the stop takes those that are new, and the rest.";

/// How often the progress is shown.
const SHOWN_EVERY: Duration = Duration::from_millis(200);

/// Subcommands of `store`.
#[derive(Subcommand, Debug)]
pub(super) enum StoreCommand {
    /// Copy a whole store to another place, and compare both
    Copy(StoreCopyArgs),
}

/// Arguments of `store copy`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct StoreCopyArgs {
    /// The store to copy: sqlite:PATH or postgres://USER@HOST/DATABASE
    #[arg(long, value_name = "URL", value_parser = StorePlace::of_url)]
    from: StorePlace,
    /// Where there is no store yet: a database for a SQLite file, a new file for a database
    #[arg(long, value_name = "URL", value_parser = StorePlace::of_url)]
    to: StorePlace,
    /// Copy the receipts alone, while a gateway serves
    #[arg(long)]
    online: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs a subcommand of `store`.
///
/// # Errors
/// Only if the output cannot be written.
pub(super) fn store(command: &StoreCommand) -> anyhow::Result<ExitCode> {
    let StoreCommand::Copy(args) = command;
    match copied(args) {
        Ok(output) => {
            print(&output)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => error.print(),
    }
}

fn copied(args: &StoreCopyArgs) -> Result<String, CommandError> {
    let mut shown = ShownProgress::new();
    let copied = copy_store(direction(args)?, args.online, Clock.unix_ms(), &mut |progress| shown.show(progress));
    shown.end();
    let copied = copied.map_err(|error| match error {
        CopyError::Exists(..) => CommandError::usage(error),
        CopyError::Open(_) | CopyError::OpenPostgres(_) | CopyError::Served(_) => CommandError::store(error),
        error => CommandError::failed(error),
    })?;
    Ok(if args.json { as_json(&copied, args) } else { as_text(&copied, args) })
}

fn direction(args: &StoreCopyArgs) -> Result<StoreCopy, CommandError> {
    match (&args.from, &args.to) {
        (StorePlace::File(path), StorePlace::Postgres(url)) => {
            Ok(StoreCopy::ToPostgres(path.clone(), postgres(url).map_err(CommandError::store)?))
        }
        (StorePlace::Postgres(url), StorePlace::File(path)) => {
            Ok(StoreCopy::ToSqlite(postgres(url).map_err(CommandError::store)?, path.clone()))
        }
        (StorePlace::File(_), StorePlace::File(_)) => {
            Err(CommandError::usage("both are SQLite files; `tierway backup --to FILE` copies one"))
        }
        (StorePlace::Postgres(_), StorePlace::Postgres(_)) => {
            Err(CommandError::usage("both are on PostgreSQL; `pg_dump --schema=tierway … | psql …` copies one"))
        }
    }
}

fn as_json(copied: &CopiedStore, args: &StoreCopyArgs) -> String {
    let rows: Map<String, Value> = copied.tables.iter().map(|(name, rows)| (name.clone(), json!(rows))).collect();
    let receipts_nanousd = copied.receipts_nanousd.to_string();
    format!("{}\n", json!({ "complete": !args.online, "rows": rows, "receipts_nanousd": receipts_nanousd }))
}

fn as_text(copied: &CopiedStore, args: &StoreCopyArgs) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for (name, rows) in copied.tables.iter().filter(|(_, rows)| *rows > 0) {
        let _ = writeln!(text, "{name:20} {rows:>12}");
    }
    let cost = NanoUsd(i64::try_from(copied.receipts_nanousd).unwrap_or(i64::MAX));
    let _ = writeln!(text, "compared row by row: alike. Receipts of {cost} USD.\n");
    text.push_str(match args.online {
        true => {
            "Only receipts were copied, and the gateway still uses the store they come from. Stop it, run the same command\n\
             without --online, set [store] url to the new place, and start it.\n"
        }
        false => "Set [store] url to the new place and start the gateway. The store it was copied from is as it was.\n",
    });
    text
}

/// A line on a terminal that says how far the copy is; nothing elsewhere.
struct ShownProgress {
    last: Option<Instant>,
    terminal: bool,
    shown: bool,
}

impl ShownProgress {
    fn new() -> Self {
        Self { last: None, terminal: std::io::stderr().is_terminal(), shown: false }
    }

    fn show(&mut self, progress: &CopyProgress<'_>) {
        let now = Clock.now();
        if !self.terminal || self.last.is_some_and(|last| now - last < SHOWN_EVERY) {
            return;
        }
        let percent = (progress.done.min(progress.of) * 100).checked_div(progress.of).unwrap_or(100);
        let filled = usize::try_from(percent / 5).unwrap_or(20);
        let what = if progress.comparing { "comparing" } else { "copying" };
        // A terminal that is gone does not stop a copy.
        let _ = write!(
            std::io::stderr(),
            "\r\x1b[K{what} {:20} [{:20}] {percent:>3} %  {} of {}",
            progress.table,
            "#".repeat(filled),
            progress.done,
            progress.of
        );
        (self.last, self.shown) = (Some(now), true);
    }

    fn end(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
