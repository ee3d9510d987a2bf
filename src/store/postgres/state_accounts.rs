//! Which account made what, and the secret of idempotency keys: the same for every gateway of the database.

use super::connections::Connections;
use super::error::PostgresOpenError;
use super::ledger::PostgresLedger;
use super::operation::{PostgresOperation, PostgresWriter};
use crate::domain::budget::LeaseTerm;
use crate::domain::provider_state::{OwnedStateId, ProviderAccount};
use crate::domain::secret::IdempotencySecret;
use crate::store::state_accounts::{DurableStateAccounts, KEPT_SECONDS, MadeState};
use crate::store::unbilled_responses::{DurableUnbilledResponses, UnbilledResponse};
use crate::store::{LeaseStore, StoreFuture, StoreUnavailable, WallClock};
use std::sync::Arc;
use tokio_postgres::types::Type;

/// In the database of a gateway.
pub struct PostgresStateAccounts {
    connections: Arc<Connections>,
    writer: PostgresWriter,
    unix_ms: WallClock,
}

impl PostgresStateAccounts {
    /// In the database that `ledger` writes.
    pub fn of_gateway(ledger: &PostgresLedger, unix_ms: WallClock) -> Self {
        Self { connections: ledger.connections().clone(), writer: ledger.writer().clone(), unix_ms }
    }
}

impl DurableStateAccounts for PostgresStateAccounts {
    fn keep(&self, made: MadeState) {
        let forget_before = (self.unix_ms)() / 1000 - KEPT_SECONDS;
        if !self.writer.submit_unhurried(PostgresOperation::State(made, forget_before)) {
            tracing::error!("the store's queue is full: what an account made may not be found after a restart");
        }
    }

    fn forget(&self, id: OwnedStateId) {
        if !self.writer.submit_unhurried(PostgresOperation::Forget(id)) {
            tracing::error!("the store's queue is full: what was deleted may be asked for again after a restart");
        }
    }

    fn find(&self, id: OwnedStateId) -> StoreFuture<'static, Result<Option<(ProviderAccount, i64)>, StoreUnavailable>> {
        let reading = self.connections.run(move |client| {
            Box::pin(async move {
                let select = "SELECT provider, credential, made_unix_s FROM tierway.state_accounts WHERE id = $1";
                let id = &id.0[..];
                let Some(row) = client.query_typed_opt(select, &[(&id, Type::BYTEA)]).await? else { return Ok(None) };
                let (provider, credential) = (row.try_get::<_, &str>(0)?, row.try_get::<_, &[u8]>(1)?);
                let credential = credential.try_into().unwrap_or_default();
                Ok(Some((ProviderAccount { provider: provider.into(), credential }, row.try_get(2)?)))
            })
        });
        Box::pin(async {
            reading.await.map_err(|error| {
                tracing::error!(%error, "it cannot be read which account made what a request refers to");
                StoreUnavailable
            })
        })
    }
}

impl DurableUnbilledResponses for PostgresStateAccounts {
    fn keep_unbilled(&self, response: UnbilledResponse) {
        if !self.writer.submit_unhurried(PostgresOperation::Unbilled(response)) {
            tracing::error!("the store's queue is full: a background response may not be billed after a restart");
        }
    }

    fn delete_unbilled(&self, id: OwnedStateId) {
        if !self.writer.submit_unhurried(PostgresOperation::Billed(id)) {
            tracing::error!("the store's queue is full: a background response may be billed again after a restart");
        }
    }
}

/// Takes the unbilled responses of gateways whose terms have ended: no two gateways take the same ones.
///
/// # Errors
/// When the database cannot be written.
pub async fn take_unbilled(ledger: &PostgresLedger) -> Result<Vec<UnbilledResponse>, PostgresOpenError> {
    let Some(LeaseTerm(term)) = ledger.term() else { return Ok(Vec::new()) };
    let taken = ledger.connections().run(move |client| {
        Box::pin(async move {
            let take = "UPDATE tierway.unbilled_responses AS u SET replica = $1
                WHERE NOT EXISTS (SELECT FROM tierway.replicas AS r WHERE r.id = u.replica)
                RETURNING id, deployment, made_unix_ms";
            let mut taken = Vec::new();
            for row in client.query_typed(take, &[(&term, Type::INT8)]).await? {
                let id = OwnedStateId(row.try_get::<_, &[u8]>(0)?.try_into().unwrap_or_default());
                let deployment = row.try_get::<_, &str>(1)?.into();
                taken.push(UnbilledResponse { id, deployment, made_unix_ms: row.try_get(2)? });
            }
            Ok(taken)
        })
    });
    let place = || ledger.connections().location().to_string();
    taken.await.map_err(|why| PostgresOpenError::Failed { place: place(), why })
}

/// The secret of the database that `ledger` writes; `fresh` becomes it where there is none yet. It is the same for every
/// process that ever opens the database, so that a client may try again at another gateway.
///
/// # Errors
/// When the database cannot be read or written.
pub async fn shared_idempotency_secret(
    ledger: &PostgresLedger,
    fresh: [u8; 32],
) -> Result<IdempotencySecret, PostgresOpenError> {
    let read = ledger.connections().run(move |client| {
        Box::pin(async move {
            let fresh = &fresh[..];
            let insert = "INSERT INTO tierway.idempotency VALUES (1, $1) ON CONFLICT DO NOTHING";
            client.execute_typed(insert, &[(&fresh, Type::BYTEA)]).await?;
            let row = client.query_typed_one("SELECT secret FROM tierway.idempotency", &[]).await?;
            Ok(row.try_get::<_, Vec<u8>>(0)?)
        })
    });
    let place = || ledger.connections().location().to_string();
    let secret = read.await.map_err(|why| PostgresOpenError::Failed { place: place(), why })?;
    // The schema says that it has 32 bytes.
    Ok(IdempotencySecret::new(secret.try_into().unwrap_or(fresh)))
}
