//! Reads the ledger while another process or thread writes it.
//!
//! The database is opened read-only: a report must never migrate it, or lock out or delay a gateway.

use super::balances;
use super::{OpenError, audit, migrate, open, posture, receipt_row, register, sla};
use crate::domain::audit::{AuditChain, AuditQuery, AuditRow};
use crate::domain::id::RequestId;
use crate::domain::posture::{PostureQuery, PostureTally};
use crate::domain::receipt::Receipt;
use crate::domain::report::{ReceiptsQuery, UsageQuery, UsageSum};
use crate::domain::sla::tally::{SlaMonthTally, SlaQuery};
use crate::store::RegisterContents;
use crate::store::reports::{BudgetBalance, LedgerSource, LedgerSourceError, UnaccountedLease};
use rusqlite::{Connection, OptionalExtension};
use std::path::{Path, PathBuf};

/// A read-only connection to one database.
pub struct LedgerReader {
    path: PathBuf,
    connection: Connection,
}

/// Why the ledger cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerReadError {
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A query failed.
    #[error("the database {path} cannot be read: {error}")]
    Read {
        /// The path of the database.
        path: PathBuf,
        /// The error of SQLite.
        error: rusqlite::Error,
    },
}

impl LedgerReader {
    /// Opens the ledger in the database at `path`.
    ///
    /// # Errors
    /// When there is none, or its schema is not the current one.
    pub fn open(path: &Path) -> Result<Self, LedgerReadError> {
        let connection = open::readable(path)?;
        migrate::is_current(&connection, path)?;
        Ok(Self { path: path.to_owned(), connection })
    }

    /// The receipt of request `id`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn receipt(&self, id: RequestId) -> Result<Option<Receipt>, LedgerReadError> {
        let row = "SELECT * FROM receipts WHERE id = ?1";
        let found = self.connection.query_row(row, [id.0.to_be_bytes()], receipt_row::read).optional();
        found.map_err(|error| self.failed(error))
    }

    /// The receipts of `query`, summed by its dimensions: highest cost first, or in order of days if that is the
    /// first dimension.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageSum>, LedgerReadError> {
        self.usage_up_to(query, usize::MAX)
    }

    /// The same, but at most `most` sums; which ones is not specified.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn usage_up_to(&self, query: &UsageQuery, most: usize) -> Result<Vec<UsageSum>, LedgerReadError> {
        query.run(&self.connection, most).map_err(|error| self.failed(error))
    }

    /// The receipts of `query`, newest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn receipts(&self, query: &ReceiptsQuery) -> Result<Vec<Receipt>, LedgerReadError> {
        query.run(&self.connection).map_err(|error| self.failed(error))
    }

    /// Gives each receipt of `query` to `take`, the newest first; `None` stands for one that cannot be read. They are as one
    /// moment saw them, and not all in memory at once.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn each_receipt(
        &self,
        query: &ReceiptsQuery,
        mut take: impl FnMut(Option<Receipt>),
    ) -> Result<(), LedgerReadError> {
        let take = |receipt| {
            take(receipt);
            true
        };
        query.each(&self.connection, take).map_err(|error| self.failed(error))
    }

    /// The receipts of `query`, counted for the SLA of its policy as they are read.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn sla(&self, query: SlaQuery) -> Result<SlaMonthTally, LedgerReadError> {
        sla::tally(&self.connection, query).map_err(|error| self.failed(error))
    }

    /// The receipts of `query`, counted by how they were served as they are read.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn posture(&self, query: &PostureQuery) -> Result<PostureTally, LedgerReadError> {
        posture::tally(&self.connection, query).map_err(|error| self.failed(error))
    }

    /// How many receipts there are in the month of `query`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn sla_requests(&self, query: &SlaQuery) -> Result<u64, LedgerReadError> {
        sla::requests(&self.connection, query).map_err(|error| self.failed(error))
    }

    /// Every window of every budget, by scope, window and name.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn balances(&self) -> Result<Vec<BudgetBalance>, LedgerReadError> {
        balances::balances(&self.connection).map_err(|error| self.failed(error))
    }

    /// Leases that were open when their process ended.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn unaccounted(&self) -> Result<Vec<UnaccountedLease>, LedgerReadError> {
        balances::unaccounted(&self.connection).map_err(|error| self.failed(error))
    }

    /// The rows of the audit that `query` asks for, the newest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, LedgerReadError> {
        audit::rows(&self.connection, query).map_err(|error| self.failed(error))
    }

    /// What the whole audit is verified by.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn audit_chain(&self) -> Result<AuditChain, LedgerReadError> {
        audit::chain(&self.connection).map_err(|error| self.failed(error))
    }

    /// All keys, teams and credit.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn registered(&self) -> Result<RegisterContents, LedgerReadError> {
        register::read_since(&self.connection, 0).map_err(|error| self.failed(error))
    }

    /// When the oldest request in the ledger was received, in Unix milliseconds; `None` if the ledger is empty.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn begins_unix_ms(&self) -> Result<Option<i64>, LedgerReadError> {
        let oldest = "SELECT received_unix_ms FROM receipts ORDER BY id LIMIT 1";
        self.connection.query_row(oldest, [], |row| row.get(0)).optional().map_err(|error| self.failed(error))
    }

    fn failed(&self, error: rusqlite::Error) -> LedgerReadError {
        LedgerReadError::Read { path: self.path.clone(), error }
    }
}

impl From<LedgerReadError> for LedgerSourceError {
    fn from(error: LedgerReadError) -> Self {
        Self(error.to_string())
    }
}

impl LedgerSource for LedgerReader {
    fn receipt(&self, id: RequestId) -> Result<Option<Receipt>, LedgerSourceError> {
        Ok(Self::receipt(self, id)?)
    }

    fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageSum>, LedgerSourceError> {
        Ok(Self::usage(self, query)?)
    }

    fn receipts(&self, query: &ReceiptsQuery) -> Result<Vec<Receipt>, LedgerSourceError> {
        Ok(Self::receipts(self, query)?)
    }

    fn each_receipt(
        &self,
        query: &ReceiptsQuery,
        take: &mut (dyn FnMut(Option<Receipt>) + Send),
    ) -> Result<(), LedgerSourceError> {
        Ok(Self::each_receipt(self, query, take)?)
    }

    fn balances(&self) -> Result<Vec<BudgetBalance>, LedgerSourceError> {
        Ok(Self::balances(self)?)
    }

    fn unaccounted(&self) -> Result<Vec<UnaccountedLease>, LedgerSourceError> {
        Ok(Self::unaccounted(self)?)
    }

    fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, LedgerSourceError> {
        Ok(Self::audit(self, query)?)
    }

    fn audit_chain(&self) -> Result<AuditChain, LedgerSourceError> {
        Ok(Self::audit_chain(self)?)
    }

    fn registered(&self) -> Result<RegisterContents, LedgerSourceError> {
        Ok(Self::registered(self)?)
    }

    fn begins_unix_ms(&self) -> Result<Option<i64>, LedgerSourceError> {
        Ok(Self::begins_unix_ms(self)?)
    }
}
