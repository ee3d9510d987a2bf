//! A database that lies where relative paths of a configuration began before: in the working directory.

use crate::config::{StoreLocation, StoreSettings};

/// Refuses to begin anew beside the configuration where the database is still in the working directory.
///
/// # Errors
/// The sentence that says what to move.
pub(super) fn refuse_former_place(settings: &StoreSettings) -> Result<(), String> {
    let (StoreLocation::Sqlite(path), Some(former)) = (&settings.location, &settings.former_path) else {
        return Ok(());
    };
    if path.exists() || !former.is_file() {
        return Ok(());
    }
    let whole = std::path::absolute(former).unwrap_or_else(|_| former.clone());
    let (path, former, whole) = (path.display(), former.display(), whole.display());
    Err(format!(
        "the database {former} is in the working directory, and a relative path in [store] url now begins at the folder \
         of the configuration: stop the gateway and move {whole}, with {former}-wal and {former}-shm if they are there, \
         to {path}; or name it where it is, with url = \"sqlite:{whole}\""
    ))
}
