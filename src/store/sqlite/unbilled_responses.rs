//! Responses that are not billed yet, in the database: written by the one writer, read at the start.

use super::operation::WriteOperation;
use super::{OpenError, SqliteStateAccounts, open};
use crate::domain::provider_state::OwnedStateId;
use crate::store::unbilled_responses::{DurableUnbilledResponses, UnbilledResponse};
use rusqlite::{Connection, Transaction, params};
use std::path::Path;

impl SqliteStateAccounts {
    /// Those that an earlier process left in the database at `path`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn unbilled(path: &Path) -> Result<Vec<UnbilledResponse>, OpenError> {
        rows(&open::readable(path)?).map_err(OpenError::sqlite(path))
    }
}

fn rows(connection: &Connection) -> rusqlite::Result<Vec<UnbilledResponse>> {
    let mut select = connection.prepare("SELECT id, deployment, made_unix_ms FROM unbilled_responses")?;
    let read = |row: &rusqlite::Row<'_>| {
        let deployment: String = row.get(1)?;
        let (id, made_unix_ms) = (OwnedStateId(row.get(0)?), row.get(2)?);
        Ok(UnbilledResponse { id, deployment: deployment.into(), made_unix_ms })
    };
    select.query_map([], read)?.collect()
}

impl DurableUnbilledResponses for SqliteStateAccounts {
    fn keep_unbilled(&self, response: UnbilledResponse) {
        if !self.writer.submit_unhurried(Box::new(KeepUnbilledOperation { response })) {
            tracing::error!("the store's queue is full: a background response may not be billed after a restart");
        }
    }

    fn delete_unbilled(&self, id: OwnedStateId) {
        if !self.writer.submit_unhurried(Box::new(DeleteUnbilledOperation { id })) {
            tracing::error!("the store's queue is full: a background response may be billed again after a restart");
        }
    }
}

struct KeepUnbilledOperation {
    response: UnbilledResponse,
}

impl WriteOperation for KeepUnbilledOperation {
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let UnbilledResponse { id, deployment, made_unix_ms } = &self.response;
        let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO unbilled_responses VALUES (?1, ?2, ?3)")?;
        insert.execute(params![id.0, &**deployment, made_unix_ms])?;
        Ok(())
    }

    fn describe(&self) -> String {
        format!("that a background response of '{}' is not billed yet", self.response.deployment)
    }

    fn committed(self: Box<Self>) {}
}

struct DeleteUnbilledOperation {
    id: OwnedStateId,
}

impl WriteOperation for DeleteUnbilledOperation {
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        transaction.prepare_cached("DELETE FROM unbilled_responses WHERE id = ?1")?.execute([self.id.0])?;
        Ok(())
    }

    fn describe(&self) -> String {
        "that a background response is billed".to_owned()
    }

    fn committed(self: Box<Self>) {}
}
