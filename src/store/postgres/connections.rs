//! Connections to the database: a few for everything but the writer, which has one of its own.
//!
//! No statement is prepared, and nothing is kept in a session between transactions: a pooler may give every transaction
//! another one.
//!
//! Start reading in [`Connections::run`].

use super::error::{PostgresError, PostgresOpenError};
use super::location::PostgresLocation;
use super::tls::PostgresTls;
use crate::store::StoreFuture;
use crate::store::connection_runtime::ConnectionRuntime;
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::{CancelToken, Client};

/// How many there are at once.
const MOST: usize = 4;
/// How many of them reports may have: a viewer who asks for many leaves the others to what may not wait, such as keys that
/// were disabled.
const MOST_REPORTS: usize = 2;
/// How long a statement that is neither a report nor a commit may take, waiting for a connection included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The same for a report over many receipts.
const REPORT_TIMEOUT: Duration = Duration::from_secs(120);

/// What is done with a connection.
pub(super) type ConnectionFuture<'c, T> = Pin<Box<dyn Future<Output = Result<T, PostgresError>> + Send + 'c>>;

/// Connections to one database.
pub struct Connections {
    location: PostgresLocation,
    runtime: ConnectionRuntime,
    idle: Mutex<Vec<Client>>,
    permits: Semaphore,
    report_permits: Semaphore,
}

/// Ends a statement on the server, too, unless it was done: one that nobody waits for any more would go on there.
struct CancelOnDrop {
    token: Option<CancelToken>,
    tls: PostgresTls,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let (Some(token), Ok(runtime)) = (self.token.take(), Handle::try_current()) {
            let tls = self.tls.clone();
            // Where it does not arrive, the statement ends when it has something to write.
            runtime.spawn(async move { drop(token.cancel_query(tls).await) });
        }
    }
}

impl Connections {
    /// Connects to the database at `location`.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub(super) fn open(location: PostgresLocation) -> Result<Arc<Self>, PostgresOpenError> {
        let runtime = ConnectionRuntime::start("tierway-postgres").map_err(PostgresOpenError::NoThread)?;
        Ok(Arc::new(Self {
            location,
            runtime,
            idle: Mutex::default(),
            permits: Semaphore::new(MOST),
            report_permits: Semaphore::new(MOST_REPORTS),
        }))
    }

    /// Where the database is.
    pub(super) fn location(&self) -> &PostgresLocation {
        &self.location
    }

    /// Where tasks of its connections are spawned.
    pub(super) fn handle(&self) -> &Handle {
        self.runtime.handle()
    }

    /// A new connection. Only to be called on this runtime.
    pub(super) async fn connect(&self) -> Result<Client, PostgresError> {
        let (client, connection) = self.location.config().connect(self.location.tls()).await?;
        // It ends when the client is dropped or the connection is lost, and then the client says so.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(client)
    }

    /// Does `work` with a connection, to its end, even if the future is dropped.
    pub(super) fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl for<'c> FnOnce(&'c mut Client) -> ConnectionFuture<'c, T> + Send + 'static,
    ) -> StoreFuture<'static, Result<T, PostgresError>> {
        self.run_within(TIMEOUT, None, work)
    }

    /// The same for what may read many rows: so many at once that others still find a connection.
    pub(super) fn report<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl for<'c> FnOnce(&'c mut Client) -> ConnectionFuture<'c, T> + Send + 'static,
    ) -> StoreFuture<'static, Result<T, PostgresError>> {
        self.run_within(REPORT_TIMEOUT, Some(|connections| &connections.report_permits), work)
    }

    fn run_within<T: Send + 'static>(
        self: &Arc<Self>,
        timeout: Duration,
        before: Option<fn(&Self) -> &Semaphore>,
        work: impl for<'c> FnOnce(&'c mut Client) -> ConnectionFuture<'c, T> + Send + 'static,
    ) -> StoreFuture<'static, Result<T, PostgresError>> {
        let connections = self.clone();
        let task = self.handle().spawn(async move {
            let doing = async {
                let _permit = match before {
                    Some(permits) => Some(permitted(permits(&connections)).await?),
                    None => None,
                };
                connections.with_client(work).await
            };
            let done = tokio::time::timeout(timeout, doing).await;
            done.unwrap_or(Err(PostgresError::Late(timeout)))
        });
        Box::pin(async move {
            task.await.unwrap_or_else(|error| Err(PostgresError::NotConnected(format!("the task ended: {error}"))))
        })
    }

    async fn with_client<T>(
        &self,
        work: impl for<'c> FnOnce(&'c mut Client) -> ConnectionFuture<'c, T>,
    ) -> Result<T, PostgresError> {
        let _permit = permitted(&self.permits).await?;
        let idle = { self.idle.lock().pop() };
        let mut client = match idle.filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.connect().await?,
        };
        let mut cancel = CancelOnDrop { token: Some(client.cancel_token()), tls: self.location.tls() };
        let done = work(&mut client).await;
        cancel.token = None;
        // After a timeout this is not reached, so that a connection with a statement in it is closed.
        if !client.is_closed() {
            self.idle.lock().push(client);
        }
        done
    }

    /// Does `work` on a thread that no runtime drives, such as a command's.
    pub(super) fn wait<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl for<'c> FnOnce(&'c mut Client) -> ConnectionFuture<'c, T> + Send + 'static,
    ) -> Result<T, PostgresError> {
        let done = self.report(work);
        self.handle().block_on(done)
    }
}

async fn permitted(permits: &Semaphore) -> Result<SemaphorePermit<'_>, PostgresError> {
    permits.acquire().await.map_err(|error| PostgresError::NotConnected(error.to_string()))
}
