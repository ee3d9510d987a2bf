//! Reading the ledger, beside whoever writes it.
//!
//! The file is opened read-only: a report never migrates, locks out or delays a gateway.

use super::balances::{self, Balance, Unaccounted};
use super::{OpenError, line, migrate, open, register};
use crate::domain::id::RequestId;
use crate::domain::receipt::Receipt;
use crate::domain::report::{ReceiptsQuery, UsageQuery, UsageSum};
use crate::store::Contents;
use rusqlite::{Connection, OptionalExtension};
use std::path::{Path, PathBuf};

/// The ledger of one database.
pub struct Book {
    path: PathBuf,
    connection: Connection,
}

/// Why it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Opened, and then not read.
    #[error("the database {path} cannot be read: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// As SQLite says it.
        error: rusqlite::Error,
    },
}

impl Book {
    /// Opens the ledger in the database at `path`.
    ///
    /// # Errors
    /// When there is none, or it is not in the form this program reads.
    pub fn open(path: &Path) -> Result<Self, BookError> {
        let connection = open::readable(path)?;
        migrate::is_current(&connection, path)?;
        Ok(Self { path: path.to_owned(), connection })
    }

    /// The receipt of request `id`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn receipt(&self, id: RequestId) -> Result<Option<Receipt>, BookError> {
        let row = "SELECT * FROM receipts WHERE id = ?1";
        let found = self.connection.query_row(row, [id.0.to_be_bytes()], line::read).optional();
        found.map_err(|error| self.failed(error))
    }

    /// The receipts of `query`, summed by its dimensions: the dearest first, or day by day where days come first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageSum>, BookError> {
        self.usage_up_to(query, usize::MAX)
    }

    /// The same, and no more than `most` sums, whichever those are.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn usage_up_to(&self, query: &UsageQuery, most: usize) -> Result<Vec<UsageSum>, BookError> {
        query.ask(&self.connection, most).map_err(|error| self.failed(error))
    }

    /// The receipts of `query`, the newest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn receipts(&self, query: &ReceiptsQuery) -> Result<Vec<Receipt>, BookError> {
        query.ask(&self.connection).map_err(|error| self.failed(error))
    }

    /// Every window of every budget, by scope, window and name.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn balances(&self) -> Result<Vec<Balance>, BookError> {
        balances::balances(&self.connection).map_err(|error| self.failed(error))
    }

    /// What processes had leased when they ended, and nobody can account for.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn unaccounted(&self) -> Result<Vec<Unaccounted>, BookError> {
        balances::unaccounted(&self.connection).map_err(|error| self.failed(error))
    }

    /// All keys, teams and credit.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn registered(&self) -> Result<Contents, BookError> {
        register::read_since(&self.connection, 0).map_err(|error| self.failed(error))
    }

    /// When the oldest request kept was received, in Unix milliseconds; `None` of an empty ledger.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn begins_unix_ms(&self) -> Result<Option<i64>, BookError> {
        let oldest = "SELECT received_unix_ms FROM receipts ORDER BY id LIMIT 1";
        self.connection.query_row(oldest, [], |row| row.get(0)).optional().map_err(|error| self.failed(error))
    }

    fn failed(&self, error: rusqlite::Error) -> BookError {
        BookError::Read { path: self.path.clone(), error }
    }
}
