//! Opens and locks the database file.
//!
//! Every error says what to do. A new file is readable by its owner only, and its directory is never created: a
//! volume that is not mounted must not become an empty ledger somewhere else.
//!
//! Start reading in [`writable`].

use rusqlite::{Connection, OpenFlags};
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a statement waits for another process, such as a backup, to unlock the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The write-ahead log is truncated to this size after a long read let it grow.
const WAL_LIMIT_BYTES: i64 = 64 << 20;
/// The file mode: only the owner may read who spent what.
const OWNER_ONLY: u32 = 0o600;

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory does not exist.
    #[error(
        "the database {path} cannot be made: there is no directory {directory}; make it, writable for this user, or \
         name another place in store.url"
    )]
    NoDirectory {
        /// The path of the database.
        path: PathBuf,
        /// The missing directory.
        directory: PathBuf,
    },
    /// The directory exists, and no file can be made in it.
    #[error(
        "the database {path} cannot be made: nothing can be written in the directory {directory} ({error}); make it \
         writable for this user, or name another place in store.url"
    )]
    UnwritableDirectory {
        /// The path of the database.
        path: PathBuf,
        /// Its directory.
        directory: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
    /// There is no database to read.
    #[error("there is no database at {0}; `tierway serve` makes it, and `tierway migrate` does without serving")]
    Missing(PathBuf),
    /// Another process has locked it.
    #[error(
        "another tierway holds {0}; stop that one, take over from it with `serve --take-over`, or give each gateway a file of its own in store.url"
    )]
    Held(PathBuf),
    /// It has more than one name, of which its write-ahead log belongs to one.
    #[error(
        "{0} has other names (hard links), and what its last process committed may lie in the log of another one; \
         remove the names that are not in store.url, or copy the file"
    )]
    OtherNames(PathBuf),
    /// It belongs to another program.
    #[error("{0} is the database of another program; name another file in store.url")]
    Foreign(PathBuf),
    /// It was written by a newer version.
    #[error(
        "{path} was written by a newer tierway (it has migration {name}); run that version, or restore a backup that \
         was made before it"
    )]
    Newer {
        /// The path of the database.
        path: PathBuf,
        /// The first migration this program does not know.
        name: String,
    },
    /// It was written by another build.
    #[error(
        "migration {name} was applied to {path} with another content than this tierway has; run the build that made \
         it, or restore a backup"
    )]
    Changed {
        /// The path of the database.
        path: PathBuf,
        /// The name of the migration.
        name: String,
    },
    /// It lacks a migration, and may only be read.
    #[error("{path} lacks migration {name}; run `tierway migrate`, or start the gateway, which does it by itself")]
    Older {
        /// The path of the database.
        path: PathBuf,
        /// The first migration that is missing.
        name: &'static str,
    },
    /// It lacks a migration, and the process that is taken over from still writes to it.
    #[error(
        "{path} lacks migration {name}, which cannot be applied while the gateway that is taken over from writes to \
         it; stop that one, then start this one without --take-over"
    )]
    OlderInUse {
        /// The path of the database.
        path: PathBuf,
        /// The first migration that is missing.
        name: &'static str,
    },
    /// The file system does not support a write-ahead log.
    #[error("{0} cannot have a write-ahead log; it must lie on a local file system")]
    NoLog(PathBuf),
    /// An error of the operating system.
    #[error("{path}: {error}; the gateway must be able to read and write it and its directory")]
    Io {
        /// The path of the database.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
    /// An error of SQLite.
    #[error("the database {path}: {error}")]
    Sqlite {
        /// The path of the database.
        path: PathBuf,
        /// The error.
        error: rusqlite::Error,
    },
}

impl OpenError {
    pub(super) fn sqlite(path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        |error| Self::Sqlite { path: path.to_owned(), error }
    }

    fn unwritable(path: &Path, error: io::Error) -> Self {
        Self::UnwritableDirectory { path: path.to_owned(), directory: directory_of(path), error }
    }

    fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        |error| Self::Io { path: path.to_owned(), error }
    }
}

/// How many processes of one succession can write a database at once: each counts its commits in a place of its own.
pub(super) const WRITERS: u8 = 8;

/// The right to write a database, until it is dropped or the process ends. Only a successor shares it.
///
/// It is for the file and not for its path: the database itself is locked (by `flock`, which SQLite does not use), so
/// that it is the same lock by whatever name the file is opened. A file beside the path is locked as well: it refuses a
/// second gateway where the database was taken away meanwhile.
///
/// The database must not be closed by this process before SQLite has closed it: the system would release SQLite's own
/// locks. So nothing here opens it a second time, or duplicates what is open.
#[derive(Debug)]
pub struct StoreLock {
    beside: File,
    database: File,
    /// Where this process counts its commits; below [`WRITERS`].
    writer: u8,
}

impl StoreLock {
    /// How many descriptors [`StoreLock::for_successor`] returns.
    pub const DESCRIPTORS: usize = 2;

    /// The same right for the next process, which may have it longer than this one: the lock is never free between.
    pub fn for_successor(&self) -> ([BorrowedFd<'_>; Self::DESCRIPTORS], u8) {
        ([self.beside.as_fd(), self.database.as_fd()], (self.writer + 1) % WRITERS)
    }

    /// What [`StoreLock::for_successor`] of another process returned.
    pub fn of_predecessor([beside, database]: [OwnedFd; Self::DESCRIPTORS], writer: u8) -> Self {
        Self { beside: File::from(beside), database: File::from(database), writer: writer % WRITERS }
    }

    /// Where this process counts its commits.
    pub(super) fn writer(&self) -> u8 {
        self.writer
    }

    /// Whether the file at `path` is the locked database: it was neither removed nor replaced.
    pub(super) fn is_for(&self, path: &Path) -> bool {
        is_at(&self.database, path)
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    file.metadata().is_ok_and(|file| file_at(path) == Some(identity(&file)))
}

/// A file by device and number, whatever it is called.
pub(super) type FileId = (u64, u64);

fn identity(file: &Metadata) -> FileId {
    (file.dev(), file.ino())
}

/// Which file is at `path`.
pub(super) fn file_at(path: &Path) -> Option<FileId> {
    path.metadata().ok().map(|file| identity(&file))
}

fn lock_path(path: &Path) -> PathBuf {
    beside(path, ".lock")
}

/// Where SQLite has the write-ahead log of the database at `path`.
pub(super) fn log_path(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

/// The file whose name has `suffix` besides: beside the database, and not beside a symbolic link to it.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.canonicalize().unwrap_or_else(|_| path.to_owned()).into_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether a process holds the lock of the database at `path`.
pub fn is_held(path: &Path) -> bool {
    let locked = |file: File| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    File::open(lock_path(path)).is_ok_and(locked)
}

fn directory_of(path: &Path) -> PathBuf {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Refuses a database whose directory does not exist.
///
/// # Errors
/// [`OpenError::NoDirectory`].
pub fn require_directory(path: &Path) -> Result<(), OpenError> {
    let directory = directory_of(path);
    if directory.is_dir() { Ok(()) } else { Err(OpenError::NoDirectory { path: path.to_owned(), directory }) }
}

/// Locks the database at `path` for this process, and makes an empty file if there is none.
///
/// # Errors
/// When another process has locked it, it has other names, or it or its directory is missing or not accessible.
pub fn lock(path: &Path) -> Result<StoreLock, OpenError> {
    require_directory(path)?;
    let beside = locked(&lock_path(path), path)?;
    let mut database = locked(path, path)?;
    // Whoever put another file there meanwhile may have locked that one.
    while !is_at(&database, path) {
        database = locked(path, path)?;
    }
    refuse_other_names(path)?;
    Ok(StoreLock { beside, database, writer: 0 })
}

/// The `file` of the database at `path`, locked, and made if it does not exist.
fn locked(file: &Path, path: &Path) -> Result<File, OpenError> {
    let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(OWNER_ONLY).open(file);
    let opened = opened.map_err(|error| match file.exists() {
        true => OpenError::io(file)(error),
        false => OpenError::unwritable(path, error),
    })?;
    match opened.try_lock() {
        Ok(()) => Ok(opened),
        Err(TryLockError::WouldBlock) => Err(OpenError::Held(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(OpenError::io(file)(error)),
    }
}

/// Refuses a file with more than one name: each name would have a write-ahead log of its own.
pub(super) fn refuse_other_names(path: &Path) -> Result<(), OpenError> {
    match path.metadata() {
        Ok(file) if file.nlink() > 1 => Err(OpenError::OtherNames(path.to_owned())),
        _ => Ok(()),
    }
}

/// Opens the database for writing. The caller must hold its lock.
pub(super) fn writable(path: &Path) -> Result<Connection, OpenError> {
    let connection = existing(path).map_err(OpenError::sqlite(path))?;
    let mode: Result<String, _> = connection.pragma_query_value(None, "journal_mode", |row| row.get(0));
    if mode.map_err(OpenError::sqlite(path))? == "wal" {
        Ok(connection)
    } else {
        Err(OpenError::NoLog(path.to_owned()))
    }
}

/// Opens an existing database for writing. It is never created: one that is gone may come back.
pub(super) fn existing(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_LIMIT_BYTES, |_| Ok(()))?;
    Ok(connection)
}

/// Opens an existing database for reading, while others may write it.
pub(super) fn readable(path: &Path) -> Result<Connection, OpenError> {
    if !path.is_file() {
        return Err(OpenError::Missing(path.to_owned()));
    }
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(OpenError::sqlite(path))
}

fn connect(path: &Path, mode: OpenFlags) -> rusqlite::Result<Connection> {
    // SQLite would read a relative path that begins with `file:` as a URI.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}
