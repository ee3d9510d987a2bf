//! The ledger and lease store on a PostgreSQL server: every write goes through the one writer thread of this process.
//!
//! A receipt and its charges are committed in one transaction. Start reading in [`PostgresLedger::open`].

use super::connections::Connections;
use super::error::PostgresOpenError;
use super::location::PostgresLocation;
use super::migrate;
use super::operation::{PostgresOperation, PostgresWriter, QueuedLease, submit_charges};
use super::sharing::SharingState;
use super::term::{LeaseTermState, MonotonicClock};
use super::writer_target::PostgresTarget;
use crate::domain::budget::{Account, Charge, LeaseTerm, WindowSpan};
use crate::domain::money::NanoUsd;
use crate::domain::receipt::Receipt;
use crate::store::writer::{Writer, WriterGuard};
use crate::store::{
    Lease, LeaseRequest, LeaseStore, Ledger, LedgerStatus, ReceiptRoom, StoreFuture, StoreSharing, StoreUnavailable,
    WallClock,
};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long to wait for a lease: much longer than a commit, much shorter than a client's timeout.
const LEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// The ledger and lease store of one of the gateways that share a database.
pub struct PostgresLedger {
    connections: Arc<Connections>,
    writer: PostgresWriter,
    term: Arc<LeaseTermState>,
    sharing: Arc<SharingState>,
}

impl PostgresLedger {
    /// Opens and migrates the store at `location`, and writes to it until the [`WriterGuard`] is dropped. Receipts older than
    /// `keep` are deleted; `None` keeps them all. Not to be called by a task of a runtime: it blocks.
    ///
    /// # Errors
    /// When it cannot be reached, made or migrated, or a newer version wrote it.
    pub fn open(
        location: PostgresLocation,
        keep: Option<Duration>,
        unix_ms: WallClock,
        clock: MonotonicClock,
    ) -> Result<(Self, WriterGuard), PostgresOpenError> {
        let connections = Connections::open(location)?;
        migrate::migrate(&connections, unix_ms())?;
        let term = Arc::new(LeaseTermState::new(clock));
        let sharing = Arc::new(SharingState::default());
        let target = PostgresTarget::begin(connections.clone(), (term.clone(), sharing.clone()), keep);
        let place = || connections.location().to_string();
        let target = target.map_err(|why| PostgresOpenError::Failed { place: place(), why })?;
        let (writer, guard) = Writer::start(target, unix_ms).map_err(PostgresOpenError::NoThread)?;
        Ok((Self { connections, writer, term, sharing }, guard))
    }

    /// The connections, for what reads the same database.
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// The term of this process.
    pub(super) fn term_state(&self) -> &Arc<LeaseTermState> {
        &self.term
    }

    /// Where what is known of other gateways is counted.
    pub(super) fn sharing_state(&self) -> &Arc<SharingState> {
        &self.sharing
    }

    /// The writer, for other operations on the same database.
    pub fn writer(&self) -> &PostgresWriter {
        &self.writer
    }
}

impl Ledger for PostgresLedger {
    fn reserve(&self) -> Option<ReceiptRoom> {
        self.writer.reserve()
    }

    fn append(&self, receipt: &Arc<Receipt>, room: Option<ReceiptRoom>) {
        self.writer.push(receipt.clone(), room);
    }

    fn status(&self) -> LedgerStatus {
        self.writer.status()
    }

    fn sharing(&self) -> StoreSharing {
        self.sharing.now(&self.term)
    }
}

impl LeaseStore for PostgresLedger {
    fn lease(&self, request: LeaseRequest) -> StoreFuture<'static, Result<Lease, StoreUnavailable>> {
        Box::pin(lease(self.writer.clone(), request))
    }

    fn give_back(&self, account: &Arc<Account>, span: WindowSpan, amount: NanoUsd, term: LeaseTerm) {
        submit_charges(&self.writer, vec![Charge::returned(account, span, amount, term)]);
    }

    /// Nothing to do: the receipt and its charges were appended in one transaction.
    fn settle(&self, _: &Arc<Receipt>) {}

    fn write_off(&self, charges: &[Charge]) {
        submit_charges(&self.writer, charges.to_vec());
    }

    fn term(&self) -> Option<LeaseTerm> {
        self.term.now()
    }
}

/// Requests a lease, and returns it once it is durable.
async fn lease(writer: PostgresWriter, request: LeaseRequest) -> Result<Lease, StoreUnavailable> {
    if !writer.status().healthy {
        return Err(StoreUnavailable);
    }
    let (result, leased) = oneshot::channel();
    let operation = QueuedLease { writer: writer.clone(), request, granted: Mutex::new(None), result };
    writer.submit(PostgresOperation::Lease(Box::new(operation))).map_err(|_| StoreUnavailable)?;
    match tokio::time::timeout(LEASE_TIMEOUT, leased).await {
        Ok(Ok(leased)) => Ok(leased),
        _ => Err(StoreUnavailable),
    }
}
