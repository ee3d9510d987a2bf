//! `tierway backup`: a copy of the database, beside a running gateway.
//!
//! Start reading at [`backup`].

use super::print;
use super::store::{CommandError, StoreArgs};
use super::store_place::StorePlace;
use crate::clock::Clock;
use crate::store::sqlite::{backup as copy, unfinished};
use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// How often the progress is shown.
const SHOWN_EVERY: Duration = Duration::from_millis(500);

/// Arguments of `backup`.
#[derive(Args, Debug)]
pub(super) struct BackupArgs {
    /// The new file [default: tierway-DATE-TIME.db in the current directory]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Copies the database.
///
/// # Errors
/// Only if the output cannot be written.
pub(super) fn backup(args: &BackupArgs) -> anyhow::Result<ExitCode> {
    match copied(args) {
        Ok(output) => {
            print(&output)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => error.print(),
    }
}

fn copied(args: &BackupArgs) -> Result<String, CommandError> {
    let from = match args.store.place()? {
        StorePlace::File(path) => path,
        StorePlace::Postgres(_) => {
            let why = "the store is on a PostgreSQL server, and `backup` copies a SQLite file; `pg_dump --schema=tierway` \
                       copies it";
            return Err(CommandError::usage(why));
        }
    };
    let to = args.to.clone().unwrap_or_else(|| default_name(Clock.unix_ms()));
    let (ends, end) = channel();
    let showing = std::io::stderr().is_terminal().then(|| {
        let path = unfinished(&to);
        thread::spawn(move || show_progress(&path, &end))
    });
    let copied = copy(&from, &to).map_err(CommandError::failed);
    drop(ends);
    if let Some(showing) = showing {
        // It has nothing to say of the copy.
        let _ = showing.join();
    }
    let bytes = copied?;
    let shown = to.display().to_string();
    Ok(match args.json {
        true => format!("{}\n", json!({ "from": from.display().to_string(), "to": shown, "bytes": bytes })),
        false => format!("{}, {bytes} bytes\n", super::printable(&shown)),
    })
}

fn default_name(unix_ms: i64) -> PathBuf {
    let time = Timestamp::from_millisecond(unix_ms).unwrap_or_default();
    PathBuf::from(format!("tierway-{}.db", time.strftime("%Y%m%d-%H%M%S")))
}

/// Shows how much has been written to `path`, until the other side of `end` is dropped.
fn show_progress(path: &Path, end: &Receiver<()>) {
    let mut shown = false;
    while end.recv_timeout(SHOWN_EVERY) == Err(RecvTimeoutError::Timeout) {
        let written = path.metadata().map_or(0, |file| file.len());
        // A terminal that is gone does not stop a backup.
        let _ = write!(std::io::stderr(), "\r{} MiB written", written >> 20);
        shown = true;
    }
    if shown {
        let _ = writeln!(std::io::stderr());
    }
}
