//! The database as the writer thread uses it: one connection, one commit at a time, and the term of this process.
//!
//! Each commit renews the term and takes a number in its row, so that one whose outcome is unknown, because the connection was
//! lost meanwhile, is looked up before it is sent again; and so that nothing is leased in a term that others have ended. It
//! waits for the database and never for another gateway longer than for its commit.
//!
//! Start reading in [`PostgresTarget::transact`].

use super::batch;
use super::connections::Connections;
use super::error::PostgresError;
use super::operation::{PostgresOperation, QueuedPostgresOperation};
use super::sharing::SharingState;
use super::term::{BEGIN, END, LeaseTermState, RENEW};
use crate::domain::budget::LeaseTerm;
use crate::store::receipt_row::lowest_id_at;
use crate::store::retention::{BATCH_ROWS, Retention};
use crate::store::writer::WriterTarget;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient};

/// How long a commit may take, connecting included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a commit is tried that met a transaction of another gateway, or whose term was over.
const TRIES: u32 = 5;
/// How often terms that are over are looked for.
const END_EVERY_MS: i64 = 5_000;

const EXPIRED: &str = "DELETE FROM tierway.receipts WHERE id IN (SELECT id FROM tierway.receipts
    WHERE id < $1::text::uuid AND received_unix_ms < $2 ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED)";

/// What the writer thread writes to.
pub(super) struct PostgresTarget {
    connections: Arc<Connections>,
    client: Option<Client>,
    term: Arc<LeaseTermState>,
    sharing: Arc<SharingState>,
    /// The number of the term in the database; `None` before the first one, and after one that others have ended.
    number: Option<LeaseTerm>,
    /// The number of the last commit that is known to have succeeded in the term.
    committed: i64,
    left_out: Vec<usize>,
    retention: Option<Retention>,
    look_unix_ms: i64,
}

impl WriterTarget for PostgresTarget {
    type Operation = PostgresOperation;
    type Error = PostgresError;

    fn commit(&mut self, batch: &[QueuedPostgresOperation]) -> Result<(), PostgresError> {
        self.with_client(async |target, client| target.transact(client, batch).await)
    }

    fn left_out(&self, at: usize) -> bool {
        self.left_out.contains(&at)
    }

    /// Renews the term: others see that this process is there.
    fn check(&mut self) -> Result<(), PostgresError> {
        self.with_client(async |target, client| target.renew(client).await)
    }

    fn next_upkeep(&self, now_unix_ms: i64) -> Option<Duration> {
        let look = self.look_unix_ms.saturating_sub(now_unix_ms).clamp(0, END_EVERY_MS);
        let look = Duration::from_millis(look.unsigned_abs());
        Some(self.retention.as_ref().map_or(look, |retention| retention.pause(now_unix_ms).min(look)))
    }

    fn upkeep(&mut self, now_unix_ms: i64) {
        // An error is not logged: the next commit fails as well, and logs it.
        if self.look_unix_ms <= now_unix_ms {
            self.look_unix_ms = now_unix_ms.saturating_add(END_EVERY_MS);
            let _ = self.end_terms(false);
        }
        let Some(mut retention) = self.retention.take() else { return };
        retention.delete_expired(now_unix_ms, |before| {
            let id = super::receipts::uuid(lowest_id_at(before));
            let deleted = self.with_client(async |_, client| {
                let expired = [(&id as _, Type::TEXT), (&before as _, Type::INT8), (&BATCH_ROWS as _, Type::INT8)];
                Ok(client.execute_typed(EXPIRED, &expired).await?)
            });
            deleted.ok()
        });
        self.retention = Some(retention);
    }

    /// What is still leased will not be settled any more.
    fn end(&mut self) {
        let _ = self.end_terms(true);
    }
}

impl PostgresTarget {
    /// Begins the first term.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub(super) fn begin(
        connections: Arc<Connections>,
        (term, sharing): (Arc<LeaseTermState>, Arc<SharingState>),
        keep: Option<Duration>,
    ) -> Result<Self, PostgresError> {
        let mut target = Self {
            connections,
            client: None,
            term,
            sharing,
            number: None,
            committed: 0,
            left_out: Vec::new(),
            retention: keep.map(Retention::new),
            look_unix_ms: i64::MIN,
        };
        target.check()?;
        Ok(target)
    }

    /// Does `work` with the connection, a new one if it was lost. After an error of anything but a statement it is given up.
    fn with_client<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Self, &mut Client) -> Result<T, PostgresError>,
    ) -> Result<T, PostgresError> {
        let connections = self.connections.clone();
        let done = connections
            .handle()
            .clone()
            .block_on(async { tokio::time::timeout(TIMEOUT, self.with_client_async(&connections, work)).await });
        // A connection with a statement in it was dropped, which closes it.
        done.unwrap_or(Err(PostgresError::Late(TIMEOUT)))
    }

    async fn with_client_async<T>(
        &mut self,
        connections: &Connections,
        work: impl AsyncFnOnce(&mut Self, &mut Client) -> Result<T, PostgresError>,
    ) -> Result<T, PostgresError> {
        let mut client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => connections.connect().await?,
        };
        let done = work(self, &mut client).await;
        if !client.is_closed() {
            self.client = Some(client);
        }
        done
    }

    async fn transact(&mut self, client: &mut Client, batch: &[QueuedPostgresOperation]) -> Result<(), PostgresError> {
        let (mut one_by_one, mut tries) = (false, TRIES);
        loop {
            self.left_out.clear();
            tries -= 1;
            match self.transact_with(client, batch, one_by_one).await {
                Err(error) if error.is_of_the_operation() && !one_by_one => one_by_one = true,
                Err(error) if tries > 0 && (error.is_a_race() || self.number.is_none()) => {}
                done => return done,
            }
        }
    }

    async fn transact_with(
        &mut self,
        client: &mut Client,
        batch: &[QueuedPostgresOperation],
        one_by_one: bool,
    ) -> Result<(), PostgresError> {
        let (asked, number) = (self.term.clock(), self.begun(client).await?);
        let transaction = client.transaction().await?;
        let next = self.committed + 1;
        let Some(last) = renew(&transaction, number, next).await? else {
            // The next try begins a new one.
            self.number = None;
            transaction.rollback().await?;
            return Err(ended());
        };
        if last < next {
            match one_by_one {
                false => batch::write(&transaction, batch, number).await?,
                true => batch::write_one_by_one(&transaction, batch, number, &mut self.left_out).await?,
            }
        }
        // Otherwise it was committed before, and only the answer was lost.
        transaction.commit().await?;
        self.committed = next;
        self.term.renewed(number, asked);
        Ok(())
    }

    /// Renews the term, or begins a new one.
    async fn renew(&mut self, client: &mut Client) -> Result<(), PostgresError> {
        let (asked, number) = (self.term.clock(), self.begun(client).await?);
        // The last number is taken again, which changes nothing.
        if renew(client, number, 0).await?.is_none() {
            self.number = None;
            let number = self.begun(client).await?;
            self.term.renewed(number, asked);
            return Ok(());
        }
        self.term.renewed(number, asked);
        Ok(())
    }

    /// The number of the term; a new one is begun if there is none.
    async fn begun(&mut self, client: &Client) -> Result<LeaseTerm, PostgresError> {
        if let Some(number) = self.number {
            return Ok(number);
        }
        let begun = client.query_typed_one(BEGIN, &[(&env!("CARGO_PKG_VERSION"), Type::TEXT)]).await?;
        let number = LeaseTerm(begun.try_get(0)?);
        (self.number, self.committed) = (Some(number), 0);
        Ok(number)
    }

    /// Ends the terms of processes that are gone, or this one's own.
    fn end_terms(&mut self, own: bool) -> Result<(), PostgresError> {
        let Some(LeaseTerm(number)) = self.number else { return Ok(()) };
        let (leases, ended) = self.with_client(async |_, client| {
            let row = client.query_typed_one(END, &[(&number, Type::INT8), (&own, Type::BOOL)]).await?;
            Ok((row.try_get::<_, i64>(0)?, row.try_get::<_, i64>(2)?))
        })?;
        if leases > 0 {
            tracing::warn!(leases, "a gateway ended without settling; its leases count as spent");
        }
        if !own && ended > 0 {
            tracing::warn!(gateways = ended, "a gateway was not seen for a minute and is gone");
            self.sharing.ended(ended.unsigned_abs(), leases.unsigned_abs());
        }
        Ok(())
    }
}

/// Renews the term `number` and takes `next`; returns the number of the last commit, nothing if the term is over.
async fn renew(client: &impl GenericClient, number: LeaseTerm, next: i64) -> Result<Option<i64>, PostgresError> {
    let row = client.query_typed_opt(RENEW, &[(&number.0, Type::INT8), (&next, Type::INT8)]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

fn ended() -> PostgresError {
    PostgresError::NotConnected("others have counted what this gateway leased as spent; it leases anew".to_owned())
}
