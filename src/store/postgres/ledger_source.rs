//! Reads the store for a command, and the reports of a gateway.
//!
//! Start reading in [`PostgresSource`].

use super::connections::{ConnectionFuture, Connections};
use super::error::{PostgresError, PostgresOpenError};
use super::ledger::PostgresLedger;
use super::location::PostgresLocation;
use super::{audit, migrate, posture, register_rows, sla, usage};
use crate::domain::audit::{AuditChain, AuditQuery, AuditRow};
use crate::domain::id::RequestId;
use crate::domain::posture::{PostureQuery, PostureTally};
use crate::domain::receipt::Receipt;
use crate::domain::report::{ReceiptsQuery, UsageQuery, UsageSum};
use crate::domain::sla::tally::{SlaMonthTally, SlaQuery};
use crate::store::reports::{AccountLabels, BudgetBalance, LedgerSource, LedgerSourceError, Reports, UnaccountedLease};
use crate::store::{RegisterContents, StoreFuture, StoreUnavailable};
use std::sync::Arc;
use tokio_postgres::{Client, Row};

const BALANCES: &str =
    "SELECT scope, period, name, start_ms, end_ms, spent_nanousd, leased_nanousd FROM tierway.budgets
    ORDER BY scope, period, name, start_ms";
const UNACCOUNTED: &str =
    "SELECT scope, period, name, start_ms, amount_nanousd, booked_unix_ms FROM tierway.unaccounted
    WHERE amount_nanousd > 0 ORDER BY booked_unix_ms, scope, period, name";
const BEGINS: &str = "SELECT received_unix_ms FROM tierway.receipts ORDER BY id LIMIT 1";

/// The store of a command that only reads.
pub struct PostgresSource {
    connections: Arc<Connections>,
}

impl PostgresSource {
    /// The store at `location`. Not to be called by a task of a runtime: it blocks, like all that it answers.
    ///
    /// # Errors
    /// When there is none, or its schema is not the current one.
    pub fn open(location: PostgresLocation) -> Result<Self, PostgresOpenError> {
        let connections = Connections::open(location)?;
        migrate::require_current(&connections)?;
        Ok(Self { connections })
    }

    fn read<T: Send + 'static>(
        &self,
        work: impl for<'c> FnOnce(&'c mut Client) -> ConnectionFuture<'c, T> + Send + 'static,
    ) -> Result<T, LedgerSourceError> {
        let place = self.connections.location();
        self.connections.wait(work).map_err(|error| failed(&format!("{place} cannot be read"), &error))
    }
}

fn failed(what: &str, error: &PostgresError) -> LedgerSourceError {
    LedgerSourceError(format!("the database at {what}: {error}"))
}

impl LedgerSource for PostgresSource {
    fn receipt(&self, id: RequestId) -> Result<Option<Receipt>, LedgerSourceError> {
        self.read(move |client| Box::pin(async move { usage::receipt(client, id).await }))
    }

    fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageSum>, LedgerSourceError> {
        let query = query.clone();
        self.read(move |client| Box::pin(async move { usage::usage(client, &query, usize::MAX).await }))
    }

    fn receipts(&self, query: &ReceiptsQuery) -> Result<Vec<Receipt>, LedgerSourceError> {
        let query = query.clone();
        self.read(move |client| Box::pin(async move { usage::receipts(client, &query).await }))
    }

    fn each_receipt(
        &self,
        query: &ReceiptsQuery,
        take: &mut (dyn FnMut(Option<Receipt>) + Send),
    ) -> Result<(), LedgerSourceError> {
        // They come from a task of the connections, a few in advance.
        let (send, mut received) = tokio::sync::mpsc::channel(256);
        let query = query.clone();
        let reading =
            self.connections.report(move |client| Box::pin(async move { usage::each(client, &query, send).await }));
        while let Some(receipt) = received.blocking_recv() {
            take(receipt);
        }
        let done = self.connections.handle().block_on(reading);
        done.map_err(|error| failed(&format!("{} cannot be read", self.connections.location()), &error))
    }

    fn balances(&self) -> Result<Vec<BudgetBalance>, LedgerSourceError> {
        self.read(|client| {
            Box::pin(async {
                let rows = client.query_typed(BALANCES, &[]).await?;
                rows.iter().map(balance).collect()
            })
        })
    }

    fn unaccounted(&self) -> Result<Vec<UnaccountedLease>, LedgerSourceError> {
        self.read(|client| {
            Box::pin(async {
                let rows = client.query_typed(UNACCOUNTED, &[]).await?;
                rows.iter().map(unaccounted).collect()
            })
        })
    }

    fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, LedgerSourceError> {
        let query = query.clone();
        self.read(move |client| Box::pin(async move { audit::rows(client, &query).await }))
    }

    fn audit_chain(&self) -> Result<AuditChain, LedgerSourceError> {
        self.read(|client| Box::pin(audit::chain(client)))
    }

    fn registered(&self) -> Result<RegisterContents, LedgerSourceError> {
        self.read(|client| Box::pin(register_rows::read_since(client, 0)))
    }

    fn begins_unix_ms(&self) -> Result<Option<i64>, LedgerSourceError> {
        self.read(|client| {
            Box::pin(async {
                let row = client.query_typed_opt(BEGINS, &[]).await?;
                Ok(row.map(|row| row.try_get(0)).transpose()?)
            })
        })
    }
}

fn account(row: &Row) -> Result<AccountLabels, PostgresError> {
    Ok(AccountLabels { scope: row.try_get(0)?, window: row.try_get(1)?, name: row.try_get(2)? })
}

fn balance(row: &Row) -> Result<BudgetBalance, PostgresError> {
    Ok(BudgetBalance {
        account: account(row)?,
        start_ms: row.try_get(3)?,
        end_ms: row.try_get(4)?,
        spent_nanousd: row.try_get(5)?,
        leased_nanousd: row.try_get(6)?,
    })
}

fn unaccounted(row: &Row) -> Result<UnaccountedLease, PostgresError> {
    Ok(UnaccountedLease {
        account: account(row)?,
        start_ms: row.try_get(3)?,
        amount_nanousd: row.try_get(4)?,
        booked_unix_ms: row.try_get(5)?,
    })
}

/// Reports over the ledger that a gateway writes.
pub struct PostgresReports {
    connections: Arc<Connections>,
}

impl PostgresReports {
    /// Reports over the database that `ledger` writes.
    pub fn of_gateway(ledger: &PostgresLedger) -> Self {
        Self { connections: ledger.connections().clone() }
    }

    /// Reports for a command, over the store at `location`. It blocks.
    ///
    /// # Errors
    /// When there is none, or its schema is not the current one.
    pub fn of_command(location: PostgresLocation) -> Result<Self, PostgresOpenError> {
        Ok(Self { connections: PostgresSource::open(location)?.connections })
    }

    fn read<T: Send + 'static>(
        &self,
        work: impl for<'c> FnOnce(&'c mut Client) -> ConnectionFuture<'c, T> + Send + 'static,
    ) -> StoreFuture<'static, Result<T, StoreUnavailable>> {
        let reading = self.connections.report(work);
        Box::pin(async move {
            reading.await.map_err(|error| {
                tracing::error!(%error, "the ledger cannot be read");
                StoreUnavailable
            })
        })
    }
}

impl Reports for PostgresReports {
    fn usage(&self, query: UsageQuery, most: usize) -> StoreFuture<'static, Result<Vec<UsageSum>, StoreUnavailable>> {
        self.read(move |client| Box::pin(async move { usage::usage(client, &query, most).await }))
    }

    fn receipts(&self, query: ReceiptsQuery) -> StoreFuture<'static, Result<Vec<Receipt>, StoreUnavailable>> {
        self.read(move |client| Box::pin(async move { usage::receipts(client, &query).await }))
    }

    fn sla(&self, query: SlaQuery) -> StoreFuture<'static, Result<SlaMonthTally, StoreUnavailable>> {
        self.read(move |client| Box::pin(sla::tally(client, query)))
    }

    fn posture(&self, query: PostureQuery) -> StoreFuture<'static, Result<PostureTally, StoreUnavailable>> {
        self.read(move |client| Box::pin(posture::tally(client, query)))
    }

    fn sla_requests(&self, query: SlaQuery) -> StoreFuture<'static, Result<u64, StoreUnavailable>> {
        self.read(move |client| Box::pin(async move { sla::requests(client, &query).await }))
    }

    fn receipt(&self, id: RequestId) -> StoreFuture<'static, Result<Option<Receipt>, StoreUnavailable>> {
        self.read(move |client| Box::pin(async move { usage::receipt(client, id).await }))
    }
}
