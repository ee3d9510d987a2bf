//! Which account made what, in the database: written behind receipts by the one writer, read by a request that refers to
//! something that is not in memory any more.

use super::operation::{SqliteWriter, WriteOperation};
use super::{WallClock, open};
use crate::domain::provider_state::{OwnedStateId, ProviderAccount};
use crate::store::state_accounts::{DurableStateAccounts, KEPT_SECONDS, MadeState};
use crate::store::{StoreFuture, StoreUnavailable};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// How many are looked up at once; each takes well under a millisecond.
const CONCURRENT_LOOKUPS: usize = 4;
/// Rows that one commit deletes at most, of those that providers no longer keep.
const DELETED_AT_ONCE: i64 = 64;

/// In the database of a gateway.
pub struct SqliteStateAccounts {
    path: PathBuf,
    pub(super) writer: SqliteWriter,
    unix_ms: WallClock,
    permits: Arc<Semaphore>,
}

impl SqliteStateAccounts {
    /// In the database at `path`, to which `writer` writes.
    pub fn of_gateway(path: &Path, writer: &SqliteWriter, unix_ms: WallClock) -> Self {
        let permits = Arc::new(Semaphore::new(CONCURRENT_LOOKUPS));
        Self { path: path.to_owned(), writer: writer.clone(), unix_ms, permits }
    }
}

impl DurableStateAccounts for SqliteStateAccounts {
    fn keep(&self, made: MadeState) {
        let forget_before = (self.unix_ms)() / 1000 - KEPT_SECONDS;
        if !self.writer.submit_unhurried(Box::new(KeepOperation { made, forget_before })) {
            tracing::error!("the store's queue is full: what an account made may not be found after a restart");
        }
    }

    fn forget(&self, id: OwnedStateId) {
        if !self.writer.submit_unhurried(Box::new(ForgetOperation { id })) {
            tracing::error!("the store's queue is full: what was deleted may be asked for again after a restart");
        }
    }

    fn find(&self, id: OwnedStateId) -> StoreFuture<'static, Result<Option<(ProviderAccount, i64)>, StoreUnavailable>> {
        let (path, permits) = (self.path.clone(), self.permits.clone());
        Box::pin(async move {
            let permit = permits.acquire_owned().await.map_err(|_| StoreUnavailable)?;
            let reading = tokio::task::spawn_blocking(move || {
                // Held by this thread: the caller may be cancelled while it still reads.
                let _permit = permit;
                let connection = open::readable(&path).map_err(|error| error.to_string())?;
                row(&connection, id).map_err(|error| error.to_string())
            });
            reading.await.map_err(|_| StoreUnavailable)?.map_err(|error| {
                tracing::error!(%error, "it cannot be read which account made what a request refers to");
                StoreUnavailable
            })
        })
    }
}

fn row(connection: &Connection, id: OwnedStateId) -> rusqlite::Result<Option<(ProviderAccount, i64)>> {
    let select = "SELECT provider, credential, made_unix_s FROM state_accounts WHERE id = ?1";
    let read = |row: &rusqlite::Row<'_>| {
        let provider: String = row.get(0)?;
        Ok((ProviderAccount { provider: provider.into(), credential: row.get(1)? }, row.get(2)?))
    };
    connection.query_row(select, [id.0], read).optional()
}

struct KeepOperation {
    made: MadeState,
    forget_before: i64,
}

impl WriteOperation for KeepOperation {
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let MadeState { ids, account, made_unix_s } = &self.made;
        let mut insert = transaction.prepare_cached(
            "INSERT INTO state_accounts VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (id) DO UPDATE SET provider = excluded.provider, credential = excluded.credential,
             made_unix_s = excluded.made_unix_s",
        )?;
        for id in ids {
            insert.execute(params![id.0, &*account.provider, account.credential, made_unix_s])?;
        }
        // More than are written, so that the table shrinks again.
        let mut delete = transaction.prepare_cached(
            "DELETE FROM state_accounts WHERE id IN
             (SELECT id FROM state_accounts WHERE made_unix_s <= ?1 LIMIT ?2)",
        )?;
        delete.execute(params![self.forget_before, DELETED_AT_ONCE])?;
        Ok(())
    }

    fn describe(&self) -> String {
        format!("which account of '{}' made something", self.made.account.provider)
    }

    fn committed(self: Box<Self>) {}
}

struct ForgetOperation {
    id: OwnedStateId,
}

impl WriteOperation for ForgetOperation {
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut delete = transaction.prepare_cached("DELETE FROM state_accounts WHERE id = ?1")?;
        delete.execute([self.id.0])?;
        Ok(())
    }

    fn describe(&self) -> String {
        "that something an account made is deleted".to_owned()
    }

    fn committed(self: Box<Self>) {}
}
