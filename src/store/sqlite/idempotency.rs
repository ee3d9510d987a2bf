//! The secret that idempotency keys are bound to, which is the database's own.

use super::{OpenError, open};
use crate::domain::secret::IdempotencySecret;
use std::path::Path;

/// The secret of the database at `path`; `fresh` becomes it where there is none yet. It is the same for every process
/// that ever opens the database, so that a client may try again after a restart.
///
/// # Errors
/// When the database cannot be read or written.
pub fn idempotency_secret(path: &Path, fresh: &[u8; 32]) -> Result<IdempotencySecret, OpenError> {
    let read = || {
        let connection = open::existing(path)?;
        connection.execute("INSERT INTO idempotency VALUES (1, ?1) ON CONFLICT DO NOTHING", [fresh])?;
        connection.query_row("SELECT secret FROM idempotency", [], |row| row.get(0)).map(IdempotencySecret::new)
    };
    read().map_err(OpenError::sqlite(path))
}
