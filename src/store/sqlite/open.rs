//! Opening the file, and holding it.
//!
//! Every error says what to do. A file is made for its owner alone, and only where its directory is:
//! a volume that is not mounted must not become an empty ledger somewhere else.
//!
//! Start reading in [`writable`].

use rusqlite::{Connection, OpenFlags};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a statement waits for another process, such as a backup, to let go of the file.
const PATIENCE: Duration = Duration::from_secs(5);
/// The write-ahead log is cut back to this after a long reader let it grow.
const LOG_KEPT_BYTES: i64 = 64 << 20;
/// Nobody else may read who spent what.
const OWNER_ONLY: u32 = 0o600;

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its directory is missing.
    #[error(
        "the database {path} cannot be made: there is no directory {directory}; make it, writable for this user, or \
         name another place in store.url"
    )]
    NoDirectory {
        /// The file.
        path: PathBuf,
        /// Where it would lie.
        directory: PathBuf,
    },
    /// There is none to read.
    #[error("there is no database at {0}; `tierway serve` makes it, and `tierway migrate` does without serving")]
    Missing(PathBuf),
    /// Another process writes to it.
    #[error("another tierway holds {0}; stop that one, or give each gateway a file of its own in store.url")]
    Held(PathBuf),
    /// Made by something else.
    #[error("{0} is the database of another program; name another file in store.url")]
    Foreign(PathBuf),
    /// Written by a later version.
    #[error(
        "{path} was written by a newer tierway (it has migration {name}); run that version, or restore a backup that \
         was made before it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The first migration this program does not know.
        name: String,
    },
    /// Written by another build.
    #[error(
        "migration {name} was applied to {path} with another content than this tierway has; run the build that made \
         it, or restore a backup"
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// The migration.
        name: String,
    },
    /// Not yet migrated, and only to be read.
    #[error("{path} lacks migration {name}; run `tierway migrate`, or start the gateway, which does it by itself")]
    Older {
        /// The file.
        path: PathBuf,
        /// The first migration that is missing.
        name: &'static str,
    },
    /// The file system cannot carry it.
    #[error("{0} cannot have a write-ahead log; it must lie on a local file system")]
    NoLog(PathBuf),
    /// The system refuses.
    #[error("{path}: {error}; the gateway must be able to read and write it and its directory")]
    Io {
        /// The file.
        path: PathBuf,
        /// As the system says it.
        error: io::Error,
    },
    /// SQLite refuses.
    #[error("the database {path}: {error}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// As SQLite says it.
        error: rusqlite::Error,
    },
}

impl OpenError {
    pub(super) fn sqlite(path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        |error| Self::Sqlite { path: path.to_owned(), error }
    }

    fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        |error| Self::Io { path: path.to_owned(), error }
    }
}

/// Holds the database at `path` for this process, until the file is dropped or the process is gone.
///
/// # Errors
/// When another process holds it, or its directory is missing or not ours.
pub fn lock(path: &Path) -> Result<File, OpenError> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !directory.is_dir() {
        return Err(OpenError::NoDirectory { path: path.to_owned(), directory: directory.to_owned() });
    }
    // Beside the database, because closing any handle of the database itself would drop SQLite's own locks.
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(OWNER_ONLY).open(&beside);
    let file = file.map_err(OpenError::io(&beside))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Held(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(OpenError::io(&beside)(error)),
    }
}

/// Opens the database for writing, and makes it where there is none. Whoever calls this holds its lock.
pub(super) fn writable(path: &Path) -> Result<Connection, OpenError> {
    match OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(OpenError::io(path)(error)),
        _ => {}
    }
    let connection = existing(path).map_err(OpenError::sqlite(path))?;
    let mode: Result<String, _> = connection.pragma_query_value(None, "journal_mode", |row| row.get(0));
    if mode.map_err(OpenError::sqlite(path))? == "wal" {
        Ok(connection)
    } else {
        Err(OpenError::NoLog(path.to_owned()))
    }
}

/// Opens it for writing and never makes one: what was there may be out of reach for a while.
pub(super) fn existing(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_KEPT_BYTES, |_| Ok(()))?;
    Ok(connection)
}

/// Opens it for reading, beside whoever writes.
pub(super) fn readable(path: &Path) -> Result<Connection, OpenError> {
    if !path.is_file() {
        return Err(OpenError::Missing(path.to_owned()));
    }
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(OpenError::sqlite(path))
}

fn connect(path: &Path, mode: OpenFlags) -> rusqlite::Result<Connection> {
    // An absolute path can be mistaken for nothing else: one that begins with `file:` would be a URI.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(PATIENCE)?;
    Ok(connection)
}
