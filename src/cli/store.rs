//! Where receipts and budgets are kept: what `serve` writes and the commands read.
//!
//! Start reading at [`open`] for the gateway, and at [`StoreArgs`] for the commands.

use super::check::EXIT_CONFIGURATION;
use super::{ConfigArgs, EXIT_UNAVAILABLE, EXIT_USAGE};
use crate::clock::Clock;
use crate::config::{Process, Snapshot, StorePlace, StoreSettings, find, load};
use crate::store::keyring::Keyring;
use crate::store::reports::Reports;
use crate::store::sqlite::{Book, OpenError, SqliteLedger, SqliteRegister, SqliteReports, WallClock, Writing};
use crate::store::{Books, Ledger, Unavailable};
use crate::telemetry::Telemetry;
use clap::Args;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// The books of `settings`, and what ends the writing of them: dropped last, it waits for what has gathered.
///
/// # Errors
/// When the database cannot be had.
pub(super) async fn open(settings: &StoreSettings, clock: Clock) -> Result<(Books, Option<Writing>), StoreUnavailable> {
    // Of a server there is no ledger yet: who allows what is not enforced is told so at the start.
    let StorePlace::Sqlite(path) = &settings.place else {
        return Ok((Books::memory().await, None));
    };
    let unix_ms: WallClock = Arc::new(move || clock.unix_ms());
    let (ledger, writing) = SqliteLedger::open(path, settings.retention, unix_ms)?;
    let keyring = Keyring::open(Arc::new(SqliteRegister::of_gateway(path, ledger.writer()))).await?;
    let ledger = Arc::new(ledger);
    let reports = Some(Arc::new(SqliteReports::of(path)) as Arc<dyn Reports>);
    Ok((Books { lease_store: ledger.clone(), ledger, keyring: Arc::new(keyring), reports }, Some(writing)))
}

/// Why what is kept cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreUnavailable {
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It was opened, and what is registered in it could not be read.
    #[error("keys, teams and credit cannot be read from the store")]
    Read,
}

impl From<Unavailable> for StoreUnavailable {
    fn from(_: Unavailable) -> Self {
        Self::Read
    }
}

/// Shows in the metrics how `ledger` stands.
pub(super) fn watch(telemetry: &Telemetry, ledger: &Arc<dyn Ledger>) {
    let [waiting, dropped, healthy] = std::array::from_fn(|_| ledger.clone());
    telemetry.metrics.watch_ledger(
        move || waiting.status().waiting,
        move || dropped.status().dropped,
        move || healthy.status().healthy,
    );
}

/// What somebody who tries it should know of where receipts go.
pub(super) fn note(settings: &StoreSettings) -> &'static str {
    match settings.place {
        StorePlace::Sqlite(_) => "",
        StorePlace::Memory | StorePlace::Server(_) => {
            "Receipts are kept in memory only, and so is what budgets have spent.\nTIERWAY__STORE__URL=sqlite:tierway.db keeps them in a file.\n"
        }
    }
}

/// Which database a command reads.
#[derive(Args, Debug)]
pub(super) struct StoreArgs {
    #[command(flatten)]
    named: ConfigArgs,
    /// The database, whatever the configuration says
    #[arg(long, value_name = "sqlite:PATH", value_parser = sqlite_path)]
    store: Option<PathBuf>,
}

fn sqlite_path(url: &str) -> Result<PathBuf, &'static str> {
    match StorePlace::of_url(url) {
        Some(StorePlace::Sqlite(path)) => Ok(path),
        _ => Err("write sqlite:PATH"),
    }
}

/// What a command exits with that found nothing.
const EXIT_FAILURE: u8 = 1;

/// Why a command cannot go on: what is said, and with what it exits.
#[derive(Debug)]
pub(super) struct CommandError {
    said: String,
    code: u8,
}

impl CommandError {
    /// What was asked for is not there.
    pub(super) fn failed(why: impl Display) -> Self {
        Self { said: format!("error: {why}"), code: EXIT_FAILURE }
    }

    /// The database cannot be had.
    pub(super) fn store(why: impl Display) -> Self {
        Self { said: format!("error: {why}"), code: EXIT_UNAVAILABLE }
    }

    /// The command line names what is not there.
    pub(super) fn usage(why: impl Display) -> Self {
        Self { said: format!("error: {why}"), code: EXIT_USAGE }
    }

    /// What is said.
    #[cfg(test)]
    pub(super) fn said(&self) -> &str {
        &self.said
    }

    /// Says it.
    ///
    /// # Errors
    /// Only that it could not be written.
    pub(super) fn tell(&self) -> anyhow::Result<ExitCode> {
        writeln!(anstream::stderr(), "{}", self.said.trim_end())?;
        Ok(ExitCode::from(self.code))
    }
}

impl StoreArgs {
    /// The configuration file that was named.
    pub(super) fn config(&self) -> Option<&Path> {
        self.named.config.as_deref()
    }

    /// Whether the database was named by itself.
    pub(super) fn is_named(&self) -> bool {
        self.store.is_some()
    }

    /// The database's path, named here or by the configuration.
    pub(super) fn path(&self) -> Result<PathBuf, CommandError> {
        match &self.store {
            Some(path) => Ok(path.clone()),
            None => self.path_of(&self.snapshot()?),
        }
    }

    /// The database's path, named here or by `snapshot`.
    pub(super) fn path_of(&self, snapshot: &Snapshot) -> Result<PathBuf, CommandError> {
        match (&self.store, &snapshot.store.place) {
            (Some(path), _) | (None, StorePlace::Sqlite(path)) => Ok(path.clone()),
            (None, StorePlace::Memory) => Err(CommandError::usage(
                "the store is `memory:`, which keeps nothing; name a database with --store sqlite:PATH",
            )),
            (None, StorePlace::Server(_)) => {
                Err(CommandError::usage("only `sqlite:PATH` can be read yet; name one with --store"))
            }
        }
    }

    /// The ledger in it.
    pub(super) fn book(&self) -> Result<Book, CommandError> {
        Book::open(&self.path()?).map_err(CommandError::store)
    }

    /// The configuration, of which nothing is needed but the database's path.
    pub(super) fn snapshot(&self) -> Result<Snapshot, CommandError> {
        self.load("  help: --store sqlite:PATH names the database without a configuration")
    }

    /// The configuration, which is needed whatever names the database.
    pub(super) fn configuration(&self) -> Result<Snapshot, CommandError> {
        self.load("  help: run this where the gateway runs, with its configuration and its environment")
    }

    fn load(&self, help: &str) -> Result<Snapshot, CommandError> {
        let loaded = find(self.config(), &Process).and_then(|source| load(&source, &Process, &[]));
        loaded.map_err(|problems| CommandError {
            said: format!("{}\n{help}", problems.render(true).trim_end()),
            code: EXIT_CONFIGURATION,
        })
    }
}
