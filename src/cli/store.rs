//! The store on the command line: opened for writing by `serve`, read by the commands.
//!
//! Start reading at [`open`] for the gateway, and at [`StoreArgs`] for the commands.

use super::check::EXIT_CONFIGURATION;
use super::demo_store::{self, DemoError, DemoStore};
use super::former_place::refuse_former_place;
use super::secrets::random_bytes;
use super::store_place::{self, StorePlace};
use super::{ConfigArgs, EXIT_UNAVAILABLE, EXIT_USAGE, find_config};
use crate::clock::Clock;
use crate::config::{ProcessEnvironment, Snapshot, StoreLocation, StoreSettings, load};
use crate::store::divided::DividedCounters;
use crate::store::keyring::Keyring;
use crate::store::memory::MemoryCounters;
use crate::store::postgres::{
    PostgresLedger, PostgresOpenError, PostgresRegister, PostgresReports, PostgresStateAccounts, follow_replicas,
    shared_idempotency_secret, take_unbilled,
};
use crate::store::redis::{RedisCounters, RedisLocation, RedisOpenError, RedisOptions};
use crate::store::reports::LedgerSource;
use crate::store::reports::Reports;
use crate::store::sqlite::{
    OpenError, SqliteLedger, SqliteRegister, SqliteReports, SqliteStateAccounts, StoreLock, WallClock, WriterGuard,
    idempotency_secret,
};
use crate::store::state_accounts::StateAccounts;
use crate::store::{Counters, StoreUnavailable, Stores};
use crate::telemetry::Telemetry;
use clap::Args;
use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Weak};

/// The store of a gateway.
pub(super) struct OpenedStore {
    /// What the gateway is built with.
    pub(super) books: Stores,
    /// The handle of its writer: dropped last, it waits until everything is written.
    pub(super) writing: Option<WriterGuard>,
    /// The lock of its file, for a successor.
    pub(super) lock: Option<Weak<StoreLock>>,
}

/// Opens the store of `settings`, a temporary one in `demo`; with `lock`, beside the gateway that shares it.
///
/// # Errors
/// If the database cannot be opened or read.
pub(super) async fn open(
    settings: &StoreSettings,
    demo: Option<&DemoStore>,
    clock: Clock,
    lock: Option<StoreLock>,
) -> Result<OpenedStore, StoreOpenError> {
    let path = match (&settings.location, demo) {
        (StoreLocation::Sqlite(path), _) => path.clone(),
        (StoreLocation::Temporary, Some(demo)) => demo.path(),
        (StoreLocation::Postgres(url), _) => return open_postgres(url, settings, clock).await,
        (StoreLocation::Memory | StoreLocation::Temporary | StoreLocation::Redis(_), _) => {
            return Ok(OpenedStore { books: Stores::memory().await, writing: None, lock: None });
        }
    };
    refuse_former_place(settings).map_err(StoreOpenError::FormerPlace)?;
    let path = &path;
    let unix_ms: WallClock = Arc::new(move || clock.unix_ms());
    let (ledger, writing) = match lock {
        Some(lock) => SqliteLedger::succeed(path, settings.retention, unix_ms.clone(), lock)?,
        None => SqliteLedger::open(path, settings.retention, unix_ms.clone())?,
    };
    // A demo's store ends with the demo: its successor has one of its own.
    let lock = demo.is_none().then(|| ledger.lock());
    let keyring = Keyring::open(Arc::new(SqliteRegister::of_gateway(path, ledger.writer()))).await?;
    let ledger = Arc::new(ledger);
    let reports = Some(Arc::new(SqliteReports::of(path)) as Arc<dyn Reports>);
    let fresh = random_bytes::<32>().map_err(|_| StoreOpenError::NoRandomBytes)?;
    let idempotency = Some(idempotency_secret(path, &fresh)?);
    let state_accounts = SqliteStateAccounts::of_gateway(path, ledger.writer(), unix_ms);
    let unbilled = SqliteStateAccounts::unbilled(path)?;
    let state_accounts = Arc::new(StateAccounts::durable(Arc::new(state_accounts), unbilled));
    let (keyring, counters) = (Arc::new(keyring), Arc::new(MemoryCounters::default()));
    let division = Arc::default();
    let lease_store = ledger.clone();
    let books = Stores { lease_store, ledger, counters, keyring, reports, idempotency, state_accounts, division };
    Ok(OpenedStore { books, writing: Some(writing), lock })
}

/// Opens the store at `url` as one more of the gateways that share it.
async fn open_postgres(url: &str, settings: &StoreSettings, clock: Clock) -> Result<OpenedStore, StoreOpenError> {
    let (location, keep) = (store_place::postgres(url)?, settings.retention);
    let shared = settings.shared.as_deref().map(RedisLocation::of_url).transpose()?;
    let unix_ms: WallClock = Arc::new(move || clock.unix_ms());
    let (of_writer, start) = (unix_ms.clone(), clock.now());
    let open = move || PostgresLedger::open(location, keep, of_writer, Arc::new(move || clock.now() - start));
    let opened = tokio::task::spawn_blocking(open).await.map_err(|_| StoreOpenError::Read)?;
    let (ledger, writing) = opened?;
    let keyring = Keyring::open(Arc::new(PostgresRegister::of_gateway(&ledger))).await?;
    let reports = Some(Arc::new(PostgresReports::of_gateway(&ledger)) as Arc<dyn Reports>);
    let fresh = random_bytes::<32>().map_err(|_| StoreOpenError::NoRandomBytes)?;
    let idempotency = Some(shared_idempotency_secret(&ledger, *fresh).await?);
    let state_accounts = Arc::new(PostgresStateAccounts::of_gateway(&ledger, unix_ms));
    let state_accounts = Arc::new(StateAccounts::durable(state_accounts, take_unbilled(&ledger).await?));
    let division = follow_replicas(&ledger).await?;
    let counters: Arc<dyn Counters> = match shared {
        Some(shared) => {
            let replica = u64::from_le_bytes(*random_bytes().map_err(|_| StoreOpenError::NoRandomBytes)?);
            Arc::new(RedisCounters::open(shared, division.clone(), RedisOptions::of_gateway(replica)).await?)
        }
        None => {
            tracing::info!("each gateway on this store grants its part of every key's limits");
            Arc::new(DividedCounters::new(division.clone()))
        }
    };
    let (ledger, keyring) = (Arc::new(ledger), Arc::new(keyring));
    let lease_store = ledger.clone();
    let books = Stores { lease_store, ledger, counters, keyring, reports, idempotency, state_accounts, division };
    Ok(OpenedStore { books, writing: Some(writing), lock: None })
}

/// Why the store is not available.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreOpenError {
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database on the server cannot be opened.
    #[error(transparent)]
    Postgres(#[from] PostgresOpenError),
    /// The counters of several gateways cannot be opened.
    #[error(transparent)]
    Redis(#[from] RedisOpenError),
    /// It lies where relative paths were read before.
    #[error("{0}")]
    FormerPlace(String),
    /// A new store needs a secret of its own.
    #[error("the system gives no random bytes to make a secret of")]
    NoRandomBytes,
    /// The database was opened, and its register cannot be read.
    #[error("keys, teams and credit cannot be read from the store")]
    Read,
}

impl From<StoreUnavailable> for StoreOpenError {
    fn from(_: StoreUnavailable) -> Self {
        Self::Read
    }
}

/// Publishes the state of the ledger and of the counters in the metrics.
pub(super) fn watch(telemetry: &Telemetry, books: &Stores) {
    let counters = books.counters.clone();
    telemetry.metrics.watch_limits(move || counters.are_degraded());
    let [waiting, dropped, healthy] = std::array::from_fn(|_| books.ledger.clone());
    telemetry.metrics.watch_ledger(
        move || waiting.status().waiting,
        move || dropped.status().dropped,
        move || healthy.status().healthy,
    );
    let [alive, gone, reaped, lag] = std::array::from_fn(|_| books.ledger.clone());
    telemetry.metrics.watch_replicas(
        move || alive.sharing().gateways,
        move || gone.sharing().gone,
        move || reaped.sharing().leases_reaped,
        move || lag.sharing().lag.as_secs(),
    );
}

/// A note for first users on where receipts are kept; `demo` is whether a temporary file keeps them.
pub(super) fn note(settings: &StoreSettings, demo: bool) -> &'static str {
    match settings.location {
        StoreLocation::Sqlite(_) | StoreLocation::Postgres(_) => "",
        StoreLocation::Temporary if demo => {
            "Receipts are kept until this demo stops. From any folder:\n\n  tierway usage\n  tierway explain --request ID    # the answer's x-request-id\n\n"
        }
        StoreLocation::Memory | StoreLocation::Temporary | StoreLocation::Redis(_) => {
            "Receipts are kept in memory only, and so is what budgets have spent.\nTIERWAY__STORE__URL=sqlite:tierway.db keeps them in a file.\n"
        }
    }
}

/// The database of a command.
#[derive(Args, Debug)]
pub(super) struct StoreArgs {
    #[command(flatten)]
    config_args: ConfigArgs,
    /// The database, whatever the configuration says
    #[arg(long, value_name = "URL", value_parser = StorePlace::of_url)]
    store: Option<StorePlace>,
}

/// The exit code of a command that failed.
const EXIT_FAILURE: u8 = 1;

/// Why a command ends early: a message and an exit code.
#[derive(Debug)]
pub(super) struct CommandError {
    message: String,
    code: u8,
}

impl CommandError {
    /// What was asked for does not exist, or failed.
    pub(super) fn failed(why: impl Display) -> Self {
        Self::said(why, EXIT_FAILURE)
    }

    /// The database is not available.
    pub(super) fn store(why: impl Display) -> Self {
        Self::said(why, EXIT_UNAVAILABLE)
    }

    /// The configuration is not valid; `message` has its problems.
    pub(super) fn configuration(message: String) -> Self {
        Self { message, code: EXIT_CONFIGURATION }
    }

    /// The command line names something that does not exist.
    pub(super) fn usage(why: impl Display) -> Self {
        Self::said(why, EXIT_USAGE)
    }

    fn said(why: impl Display, code: u8) -> Self {
        Self { message: super::printable(&format!("error: {why}")).into_owned(), code }
    }

    /// The message.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Prints the message and returns the exit code.
    ///
    /// # Errors
    /// Only if it cannot be written.
    pub(super) fn print(&self) -> anyhow::Result<ExitCode> {
        writeln!(anstream::stderr(), "{}", self.message.trim_end())?;
        Ok(ExitCode::from(self.code))
    }
}

impl StoreArgs {
    /// The path of the configuration file, if it was given.
    pub(super) fn config(&self) -> Option<&Path> {
        self.config_args.config.as_deref()
    }

    /// Whether the database was named on the command line.
    pub(super) fn is_named(&self) -> bool {
        self.store.is_some()
    }

    /// The place of the store, from the command line or the configuration.
    pub(super) fn place(&self) -> Result<StorePlace, CommandError> {
        match &self.store {
            Some(place) => Ok(place.clone()),
            None => self.place_of(&self.snapshot()?),
        }
    }

    /// The place of the store, from the command line or `snapshot`.
    pub(super) fn place_of(&self, snapshot: &Snapshot) -> Result<StorePlace, CommandError> {
        match (&self.store, &snapshot.store.location) {
            (Some(place), _) => Ok(place.clone()),
            (None, StoreLocation::Sqlite(path)) => {
                refuse_former_place(&snapshot.store).map_err(CommandError::store)?;
                Ok(StorePlace::File(path.clone()))
            }
            (None, StoreLocation::Postgres(url)) => Ok(StorePlace::Postgres(url.clone())),
            (None, StoreLocation::Temporary) => {
                let found = demo_store::find(&snapshot.server.listen.to_string());
                found.map(StorePlace::File).map_err(|why| match why {
                    DemoError::None => CommandError::store(why),
                    DemoError::Several(_) => CommandError::usage(why),
                })
            }
            (None, StoreLocation::Memory) => Err(CommandError::usage(
                "the store is `memory:`, which keeps nothing; name a database with --store sqlite:PATH or postgres://…",
            )),
            (None, StoreLocation::Redis(_)) => Err(CommandError::usage(
                "the store is a Redis, which keeps nothing for good; name a database with --store",
            )),
        }
    }

    /// The ledger of the database.
    pub(super) fn book(&self) -> Result<Box<dyn LedgerSource>, CommandError> {
        self.place()?.source().map_err(CommandError::store)
    }

    /// The configuration, needed only for the path of the database.
    pub(super) fn snapshot(&self) -> Result<Snapshot, CommandError> {
        self.load("  help: --store sqlite:PATH (or postgres://…) names the database without a configuration")
    }

    /// The configuration, needed even if the command line names the database.
    pub(super) fn configuration(&self) -> Result<Snapshot, CommandError> {
        self.load("  help: run this where the gateway runs, with its configuration and its environment")
    }

    fn load(&self, help: &str) -> Result<Snapshot, CommandError> {
        let loaded = find_config(self.config()).and_then(|source| load(&source, &ProcessEnvironment, &[]));
        loaded.map_err(|problems| CommandError::configuration(format!("{}\n{help}", problems.render(true).trim_end())))
    }
}
