//! A copy of the database, made while a gateway may write it.
//!
//! It is what was committed when it began, whatever is written meanwhile: SQLite reads one snapshot and writes a new file
//! from it. The copy appears under its name only once it is whole, checked and on disk, and can be read by its owner only.
//!
//! Start reading in [`backup`].

use super::migrate::status;
use super::open::{OpenError, readable};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file mode of a copy: it holds what the database holds.
const OWNER_ONLY: u32 = 0o600;

/// Why there is no copy; nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file is there already.
    #[error("{0} exists; name another file with --to, or remove it")]
    Exists(PathBuf),
    /// No file can be made there.
    #[error(
        "{path} cannot be written ({error}); name a file in a directory that this user may write to, with room for it"
    )]
    Unwritable {
        /// The path of the copy.
        path: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The copying failed.
    #[error("the copy {path} could not be made ({error}); see that there is room for it, and try again")]
    Failed {
        /// The path of the copy.
        path: PathBuf,
        /// The error of SQLite.
        error: rusqlite::Error,
    },
    /// What was copied is damaged.
    #[error("the database is damaged: {0}; nothing was kept of the copy. Restore an earlier backup")]
    Damaged(String),
}

/// Where a copy to `to` is while it is being made.
pub fn unfinished(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".unfinished");
    PathBuf::from(name)
}

/// Copies the database at `from` to the new file `to`. Returns its size in bytes.
///
/// # Errors
/// [`BackupError`]: then there is no file at `to`, or the one that was there is as it was.
pub fn backup(from: &Path, to: &Path) -> Result<u64, BackupError> {
    status(from)?;
    if to.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let path = unfinished(to);
    let unwritable = |error| BackupError::Unwritable { path: to.to_owned(), error };
    // One that was interrupted is of no use.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritable(error)),
        Ok(()) | Err(_) => {}
    }
    let file = OpenOptions::new().create_new(true).write(true).mode(OWNER_ONLY).open(&path).map_err(unwritable)?;
    let copied = copy(from, &path).and_then(|()| put_in_place(&file, &path, to).map_err(unwritable));
    if copied.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&path);
    }
    copied
}

/// SQLite writes into an empty file as into none, and keeps its mode.
fn copy(from: &Path, path: &Path) -> Result<(), BackupError> {
    let failed = |error| BackupError::Failed { path: path.to_owned(), error };
    let database = readable(from)?;
    database.execute("VACUUM INTO ?1", [path.to_string_lossy()]).map_err(failed)?;
    let checked: String = readable(path)?.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if checked == "ok" { Ok(()) } else { Err(BackupError::Damaged(checked)) }
}

/// Gives the file at `path`, once it is on disk, its name. Never over another one: a link is refused where one is.
pub(super) fn put_in_place(file: &File, path: &Path, to: &Path) -> io::Result<u64> {
    file.sync_all()?;
    fs::hard_link(path, to)?;
    fs::remove_file(path)?;
    if let Some(directory) = to.parent() {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        File::open(directory)?.sync_all()?;
    }
    Ok(file.metadata()?.len())
}
