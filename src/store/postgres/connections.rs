//! Connections to the database: a few for everything but the writer, which has one of its own.
//!
//! No statement is prepared, and nothing is kept in a session between transactions: a pooler may give every transaction
//! another one.
//!
//! Start reading in [`Connections::run`].

use super::error::{PostgresError, PostgresOpenError};
use super::location::PostgresLocation;
use crate::store::StoreFuture;
use crate::store::connection_runtime::ConnectionRuntime;
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_postgres::Client;

/// How many there are at once.
const MOST: usize = 4;
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
}

impl Connections {
    /// Connects to the database at `location`.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub(super) fn open(location: PostgresLocation) -> Result<Arc<Self>, PostgresOpenError> {
        let runtime = ConnectionRuntime::start("tierway-postgres").map_err(PostgresOpenError::NoThread)?;
        Ok(Arc::new(Self { location, runtime, idle: Mutex::default(), permits: Semaphore::new(MOST) }))
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
        self.run_within(TIMEOUT, work)
    }

    /// The same for what may read many rows.
    pub(super) fn report<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl for<'c> FnOnce(&'c mut Client) -> ConnectionFuture<'c, T> + Send + 'static,
    ) -> StoreFuture<'static, Result<T, PostgresError>> {
        self.run_within(REPORT_TIMEOUT, work)
    }

    fn run_within<T: Send + 'static>(
        self: &Arc<Self>,
        timeout: Duration,
        work: impl for<'c> FnOnce(&'c mut Client) -> ConnectionFuture<'c, T> + Send + 'static,
    ) -> StoreFuture<'static, Result<T, PostgresError>> {
        let connections = self.clone();
        let task = self.handle().spawn(async move {
            let done = tokio::time::timeout(timeout, connections.with_client(work)).await;
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
        let _permit = self.permits.acquire().await.map_err(|error| PostgresError::NotConnected(error.to_string()))?;
        let idle = { self.idle.lock().pop() };
        let mut client = match idle.filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.connect().await?,
        };
        let done = work(&mut client).await;
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
