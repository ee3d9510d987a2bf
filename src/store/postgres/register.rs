//! The register on a PostgreSQL server: keys, teams and credit, for gateways and commands alike.
//!
//! Start reading in `register_write.rs`, then `register_rows.rs`.

use super::connections::Connections;
use super::error::{PostgresError, PostgresOpenError};
use super::ledger::PostgresLedger;
use super::location::PostgresLocation;
use super::operation::{PostgresOperation, PostgresWriter};
use super::{audit, credit, drill_reports, migrate, register_rows, register_write, sla};
use crate::domain::audit::{AuditChain, AuditEntry, AuditQuery, AuditRow};
use crate::domain::drill::report::DrillReport;
use crate::domain::register::{CreditBalance, Grant, Holder};
use crate::domain::secret::KeyHash;
use crate::domain::sla::closing::SlaClosing;
use crate::domain::sla::month::SlaMonth;
use crate::store::{
    ChangeContext, PromisedMonth, Register, RegisterChange, RegisterContents, RegisterWriteError, SlaPresence,
    StoreFuture, StoreUnavailable,
};
use std::sync::Arc;

/// How often a change is tried that met one of another process.
const TRIES: u32 = 5;

/// Keys, teams and credit in the database at a location.
pub struct PostgresRegister {
    connections: Arc<Connections>,
    /// `None` in a command, whether or not a gateway runs.
    writer: Option<PostgresWriter>,
}

impl PostgresRegister {
    /// The register of a gateway, in the database that it writes as `ledger`.
    pub fn of_gateway(ledger: &PostgresLedger) -> Self {
        Self { connections: ledger.connections().clone(), writer: Some(ledger.writer().clone()) }
    }

    /// The register of a command, whether or not gateways run. The store is made or migrated if it must be. Not to be called
    /// by a task of a runtime: it blocks.
    ///
    /// # Errors
    /// When it cannot be reached, made or migrated, or a newer version wrote it.
    pub fn of_command(location: PostgresLocation, now_unix_ms: i64) -> Result<Self, PostgresOpenError> {
        let connections = Connections::open(location)?;
        migrate::migrate(&connections, now_unix_ms)?;
        Ok(Self { connections, writer: None })
    }

    /// The register of a command that only reads. The store is neither made nor migrated.
    ///
    /// # Errors
    /// When there is none, or its schema is not the current one.
    pub fn of_reader(location: PostgresLocation) -> Result<Self, PostgresOpenError> {
        let connections = Connections::open(location)?;
        migrate::require_current(&connections)?;
        Ok(Self { connections, writer: None })
    }
}

fn unreadable(error: &PostgresError) -> StoreUnavailable {
    tracing::error!(%error, "keys, teams and credit cannot be read");
    StoreUnavailable
}

fn unwritable(error: &PostgresError) -> StoreUnavailable {
    tracing::error!(%error, "keys, teams and credit cannot be written");
    StoreUnavailable
}

impl Register for PostgresRegister {
    fn since(&self, version: i64) -> StoreFuture<'static, Result<RegisterContents, StoreUnavailable>> {
        let read = self.connections.run(move |client| Box::pin(register_rows::read_since(client, version)));
        Box::pin(async { read.await.map_err(|error| unreadable(&error)) })
    }

    fn write(
        &self,
        changes: Vec<RegisterChange>,
        context: ChangeContext,
    ) -> StoreFuture<'static, Result<Vec<i64>, RegisterWriteError>> {
        let written = self.connections.run(move |client| {
            Box::pin(async move {
                let mut tries = TRIES;
                loop {
                    tries -= 1;
                    match register_write::apply(client, &changes, &context).await {
                        Err(error) if tries > 0 && error.is_a_race() => {}
                        done => return done,
                    }
                }
            })
        });
        Box::pin(async {
            let written = written.await.map_err(|error| unwritable(&error));
            written.unwrap_or(Err(RegisterWriteError::Unavailable))
        })
    }

    fn note(&self, entry: AuditEntry, context: ChangeContext) -> StoreFuture<'static, Result<(), StoreUnavailable>> {
        let written = self
            .connections
            .run(move |client| Box::pin(async move { register_write::note(client, &entry, &context).await }));
        Box::pin(async { written.await.map_err(|error| unwritable(&error)) })
    }

    fn audit(&self, query: AuditQuery) -> StoreFuture<'static, Result<Vec<AuditRow>, StoreUnavailable>> {
        let read = self.connections.run(move |client| Box::pin(async move { audit::rows(client, &query).await }));
        Box::pin(async { read.await.map_err(|error| unreadable(&error)) })
    }

    fn audit_chain(&self) -> StoreFuture<'static, Result<AuditChain, StoreUnavailable>> {
        let read = self.connections.report(|client| Box::pin(audit::chain(client)));
        Box::pin(async { read.await.map_err(|error| unreadable(&error)) })
    }

    fn sla_closings(
        &self,
        policy: Arc<str>,
        month: SlaMonth,
    ) -> StoreFuture<'static, Result<Vec<SlaClosing>, StoreUnavailable>> {
        let read =
            self.connections.run(move |client| Box::pin(async move { sla::closings(client, &policy, month).await }));
        Box::pin(async { read.await.map_err(|error| unreadable(&error)) })
    }

    fn sla_promised(&self) -> StoreFuture<'static, Result<Vec<PromisedMonth>, StoreUnavailable>> {
        let read = self.connections.run(|client| Box::pin(async { sla::promised(client).await }));
        Box::pin(async { read.await.map_err(|error| unreadable(&error)) })
    }

    fn present(&self, presence: SlaPresence) {
        if let Some(writer) = &self.writer {
            // Where the queue is full, the next one is recorded a minute later, in the same interval.
            let _ = writer.submit_unhurried(PostgresOperation::Presence(presence));
        }
    }

    fn keep_drill_report(&self, report: DrillReport) -> StoreFuture<'static, Result<(), StoreUnavailable>> {
        let written =
            self.connections.run(move |client| Box::pin(async move { drill_reports::put(client, &report).await }));
        Box::pin(async { written.await.map_err(|error| unwritable(&error)) })
    }

    fn drill_reports(&self) -> StoreFuture<'static, Result<Vec<DrillReport>, StoreUnavailable>> {
        let read = self.connections.run(|client| Box::pin(async { drill_reports::all(client).await }));
        Box::pin(async { read.await.map_err(|error| unreadable(&error)) })
    }

    fn used(&self, uses: Vec<(KeyHash, i64)>) {
        if let Some(writer) = &self.writer
            && writer.submit(PostgresOperation::Uses(uses)).is_err()
        {
            tracing::warn!("when keys were last used could not be noted");
        }
    }

    fn balances(&self) -> StoreFuture<'static, Result<Vec<CreditBalance>, StoreUnavailable>> {
        let read = self.connections.run(|client| Box::pin(async { credit::balances(client).await }));
        Box::pin(async { read.await.map_err(|error| unreadable(&error)) })
    }

    fn grants(
        &self,
        holder: Option<Holder>,
        after: i64,
        most: usize,
    ) -> StoreFuture<'static, Result<Vec<Grant>, StoreUnavailable>> {
        let read = self
            .connections
            .run(move |client| Box::pin(async move { register_rows::grants(client, holder, after, most).await }));
        Box::pin(async { read.await.map_err(|error| unreadable(&error)) })
    }
}
