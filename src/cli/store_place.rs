//! Where the store of a command is, and how it is opened there.
//!
//! Start reading at [`StorePlace`].

use super::trusted_roots::trusted_roots;
use crate::clock::Clock;
use crate::config::StoreLocation;
use crate::store::Register;
use crate::store::memory_register::MemoryRegister;
use crate::store::postgres::{PostgresLocation, PostgresOpenError, PostgresRegister, PostgresReports, PostgresSource};
use crate::store::reports::{LedgerSource, Reports};
use crate::store::sqlite::{
    LedgerReadError, LedgerReader, OpenError, SqliteRegister, SqliteReports, require_directory,
};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long another command may take to create a database.
const MADE_WITHIN: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The place of a store that outlives processes.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum StorePlace {
    /// One SQLite file.
    File(PathBuf),
    /// A database on a PostgreSQL server, by its URL, which may hold a password.
    Postgres(String),
}

impl fmt::Debug for StorePlace {
    /// Without a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Postgres(_) => f.write_str("Postgres"),
        }
    }
}

/// Why a store cannot be opened, in a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum StorePlaceError {
    /// The file cannot be opened.
    #[error(transparent)]
    File(#[from] OpenError),
    /// The file cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerReadError),
    /// The database on the server cannot be opened.
    #[error(transparent)]
    Postgres(#[from] PostgresOpenError),
    /// The thread that opened it ended.
    #[error("the store could not be opened: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

/// The database that `url` names.
///
/// # Errors
/// When the URL cannot be read.
pub(super) fn postgres(url: &str) -> Result<PostgresLocation, PostgresOpenError> {
    PostgresLocation::of_url(url, trusted_roots())
}

impl StorePlace {
    /// The place that a URL on a command line names.
    pub(super) fn of_url(url: &str) -> Result<Self, &'static str> {
        match StoreLocation::of_url(url) {
            Some(StoreLocation::Sqlite(path)) => Ok(Self::File(path)),
            Some(StoreLocation::Postgres(url)) => Ok(Self::Postgres(url)),
            _ => Err("write sqlite:PATH or postgres://USER@HOST/DATABASE"),
        }
    }

    /// What a command reads there.
    pub(super) fn source(&self) -> Result<Box<dyn LedgerSource>, StorePlaceError> {
        match self {
            Self::File(path) => Ok(Box::new(LedgerReader::open(path)?)),
            Self::Postgres(url) => Ok(Box::new(postgres(url).and_then(PostgresSource::open)?)),
        }
    }

    /// The reports of what a command reads there.
    pub(super) fn reports(&self) -> Result<Arc<dyn Reports>, StorePlaceError> {
        match self {
            Self::File(path) => {
                LedgerReader::open(path)?;
                Ok(Arc::new(SqliteReports::of(path)))
            }
            Self::Postgres(url) => Ok(Arc::new(postgres(url).and_then(PostgresReports::of_command)?)),
        }
    }

    /// The register for a command that changes it. The store is made if it does not exist.
    pub(super) async fn register(&self, clock: Clock) -> Result<Arc<dyn Register>, StorePlaceError> {
        match self {
            Self::File(path) => {
                let made = || SqliteRegister::of_command(path, clock.unix_ms());
                Ok(Arc::new(made_meanwhile(made, clock).await?))
            }
            Self::Postgres(url) => {
                let location = postgres(url)?;
                let open = move || PostgresRegister::of_command(location, clock.unix_ms());
                Ok(Arc::new(blocking(open).await?))
            }
        }
    }

    /// The register for a command that only reads. A file that does not exist is read as empty if it `may_be_missing`.
    pub(super) async fn register_to_read(
        &self,
        may_be_missing: bool,
        clock: Clock,
    ) -> Result<Arc<dyn Register>, StorePlaceError> {
        match self {
            Self::File(path) => {
                require_directory(path)?;
                if !path.exists() && may_be_missing {
                    return Ok(Arc::new(MemoryRegister::new(Arc::default())));
                }
                let opened = made_meanwhile(|| SqliteRegister::of_reader(path), clock).await;
                Ok(Arc::new(opened?))
            }
            Self::Postgres(url) => {
                let location = postgres(url)?;
                Ok(Arc::new(blocking(|| PostgresRegister::of_reader(location)).await?))
            }
        }
    }
}

/// As a message names it.
impl fmt::Display for StorePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Postgres(_) => f.write_str("the PostgreSQL store"),
        }
    }
}

/// What `open` opens, on a thread that may block.
async fn blocking<T: Send + 'static>(
    open: impl FnOnce() -> Result<T, PostgresOpenError> + Send + 'static,
) -> Result<T, StorePlaceError> {
    Ok(tokio::task::spawn_blocking(open).await??)
}

/// The register that `open` opens. Another command may be creating the database; that is waited for.
async fn made_meanwhile(
    open: impl Fn() -> Result<SqliteRegister, OpenError>,
    clock: Clock,
) -> Result<SqliteRegister, OpenError> {
    let deadline = clock.now() + MADE_WITHIN;
    loop {
        match open() {
            Err(OpenError::Missing(_) | OpenError::Older { .. } | OpenError::Foreign(_)) if clock.now() < deadline => {
                clock.sleep(LOOK_EVERY).await;
            }
            opened => return opened,
        }
    }
}
