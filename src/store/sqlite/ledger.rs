//! The ledger and lease store on SQLite: every write goes through the one writer thread.
//!
//! A receipt and its charges are committed in one transaction. Start reading in [`SqliteLedger::open`].

use super::database_file::DatabaseFile;
use super::operation::SqliteWriter;
use super::{OpenError, StoreLock, WallClock, WriterGuard, lease_store, migrate, open};
use crate::domain::budget::{Account, Charge, LeaseTerm, WindowSpan};
use crate::domain::money::NanoUsd;
use crate::domain::receipt::Receipt;
use crate::store::{Lease, LeaseRequest, LeaseStore, Ledger, LedgerStatus, ReceiptRoom, StoreFuture, StoreUnavailable};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The ledger and lease store of the gateway that writes a database.
pub struct SqliteLedger {
    writer: SqliteWriter,
    lock: Weak<StoreLock>,
}

impl SqliteLedger {
    /// Opens and migrates the database at `path`, and writes to it until the [`WriterGuard`] is dropped. Receipts
    /// older than `keep` are deleted; `None` keeps them all.
    ///
    /// # Errors
    /// When another gateway has locked it, or it cannot be created, opened, migrated or written.
    pub fn open(path: &Path, keep: Option<Duration>, unix_ms: WallClock) -> Result<(Self, WriterGuard), OpenError> {
        let lock = open::lock(path)?;
        migrate::migrate(path, unix_ms())?;
        let mut connection = open::existing(path).map_err(OpenError::sqlite(path))?;
        let left_open = lease_store::close_leases(&mut connection, unix_ms()).map_err(OpenError::sqlite(path))?;
        if left_open > 0 {
            tracing::warn!(leases = left_open, "the last process ended without settling; its leases count as spent");
        }
        drop(connection);
        Self::write(path, lock, keep, unix_ms)
    }

    /// The same as successor of the gateway that shares `lock`, which goes on writing until it has ended. What it has
    /// leased stays leased: it settles that itself. Another database than the one of `lock` is just opened.
    ///
    /// # Errors
    /// As [`SqliteLedger::open`], and when the database lacks a migration.
    pub fn succeed(
        path: &Path,
        keep: Option<Duration>,
        unix_ms: WallClock,
        lock: StoreLock,
    ) -> Result<(Self, WriterGuard), OpenError> {
        if !lock.is_for(path) {
            return Self::open(path, keep, unix_ms);
        }
        migrate::is_current(&open::readable(path)?, path).map_err(|error| match error {
            OpenError::Older { path, name } => OpenError::OlderInUse { path, name },
            other => other,
        })?;
        Self::write(path, lock, keep, unix_ms)
    }

    fn write(
        path: &Path,
        lock: StoreLock,
        keep: Option<Duration>,
        unix_ms: WallClock,
    ) -> Result<(Self, WriterGuard), OpenError> {
        let lock = Arc::new(lock);
        let shared = Arc::downgrade(&lock);
        let database = DatabaseFile::open(path, lock, keep).map_err(OpenError::sqlite(path))?;
        let started = SqliteWriter::start(database, unix_ms);
        let (writer, guard) = started.map_err(|error| OpenError::Io { path: path.to_owned(), error })?;
        Ok((Self { writer, lock: shared }, guard))
    }

    /// The lock of the database, for a successor; nothing once the writer has stopped.
    pub fn lock(&self) -> Weak<StoreLock> {
        self.lock.clone()
    }

    /// The writer, for other operations on the same database.
    pub fn writer(&self) -> &SqliteWriter {
        &self.writer
    }
}

impl Ledger for SqliteLedger {
    fn reserve(&self) -> Option<ReceiptRoom> {
        self.writer.reserve()
    }

    fn append(&self, receipt: &Arc<Receipt>, room: Option<ReceiptRoom>) {
        self.writer.push(receipt.clone(), room);
    }

    fn status(&self) -> LedgerStatus {
        self.writer.status()
    }
}

impl LeaseStore for SqliteLedger {
    fn lease(&self, request: LeaseRequest) -> StoreFuture<'static, Result<Lease, StoreUnavailable>> {
        Box::pin(lease_store::lease(self.writer.clone(), request))
    }

    fn give_back(&self, account: &Arc<Account>, span: WindowSpan, amount: NanoUsd, term: LeaseTerm) {
        lease_store::submit_charges(&self.writer, vec![Charge::returned(account, span, amount, term)]);
    }

    /// Nothing to do: the receipt and its charges were appended in one transaction.
    fn settle(&self, _: &Arc<Receipt>) {}

    fn write_off(&self, charges: &[Charge]) {
        lease_store::submit_charges(&self.writer, charges.to_vec());
    }
}
