//! The one connection to the server: made, watched, and given up where it is late.
//!
//! While there is none, nobody waits for one: the gateway counts by itself. One that was given up is made anew, and used
//! once it has proved that it answers within the deadline of a decision.
//!
//! Start reading in [`RedisConnection::run`], then [`RedisConnection::keep`].

use super::error::RedisOpenError;
use super::location::RedisLocation;
use super::slots::{SLOT_LASTS, SlotId, SlotSet};
use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, RedisError, Script, ScriptInvocation};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long a decision may take. Beyond it the request is decided without the server.
pub(super) const DEADLINE: Duration = Duration::from_millis(25);
/// So many decisions in a row that were late or failed, and none is tried any more on this connection.
const GIVE_UP_AFTER: u32 = 3;
/// How long connecting may take, and how long what nobody waits for may.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long after a failure the server is looked for again.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// How often a connection in use is tried.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After so many looks slots are renewed: several times while they last.
const RENEW_EACH: u32 = 16;
/// Written to find out whether the server can be written, with how many milliseconds it lasts.
const PROBE: (&str, u64) = ("tierway:probe", 60_000);

/// The connection to the server, while there is one.
pub(super) struct RedisConnection {
    location: RedisLocation,
    current: ArcSwapOption<MultiplexedConnection>,
    /// Decisions in a row that were late or failed.
    failures: AtomicU32,
    given_up: Notify,
    deadline: Duration,
    renew: Script,
}

/// Why a connection cannot be used.
enum LostConnection {
    Late,
    Error(RedisError),
}

impl From<RedisError> for LostConnection {
    fn from(error: RedisError) -> Self {
        Self::Error(error)
    }
}

impl std::fmt::Display for LostConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Late => f.write_str("it does not answer in time"),
            Self::Error(error) => error.fmt(f),
        }
    }
}

impl RedisConnection {
    /// None yet. `deadline` is how long a decision may take.
    pub(super) fn new(location: RedisLocation, deadline: Duration) -> Self {
        Self {
            location,
            current: ArcSwapOption::empty(),
            failures: AtomicU32::new(0),
            given_up: Notify::new(),
            deadline,
            renew: Script::new(include_str!("renew.lua")),
        }
    }

    /// Whether the server is asked.
    pub(super) fn is_open(&self) -> bool {
        self.current.load().is_some()
    }

    /// Asks the server for a decision. `None`: it did not answer in time, or is not asked at the moment.
    pub(super) async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Option<T> {
        let mut connection = self.taken()?;
        match timeout(self.deadline, script.invoke_async(&mut connection)).await {
            Ok(Ok(answer)) => {
                self.failures.store(0, Ordering::Relaxed);
                Some(answer)
            }
            Ok(Err(_)) | Err(_) => {
                if self.failures.fetch_add(1, Ordering::Relaxed) + 1 == GIVE_UP_AFTER {
                    self.current.store(None);
                    self.given_up.notify_one();
                }
                None
            }
        }
    }

    /// Tells the server what nobody waits for.
    pub(super) async fn tell(&self, script: &ScriptInvocation<'_>) {
        if let Some(mut connection) = self.taken() {
            let _ = timeout(self.patience(), script.invoke_async::<()>(&mut connection)).await;
        }
    }

    /// How long what nobody waits for may take.
    fn patience(&self) -> Duration {
        self.deadline.max(PATIENCE)
    }

    fn taken(&self) -> Option<MultiplexedConnection> {
        self.current.load().as_deref().cloned()
    }

    /// Makes the first connection. A server that cannot be used yet is looked for by [`Self::keep`].
    ///
    /// # Errors
    /// When it will not let this gateway in.
    pub(super) async fn begin(&self, slots: &SlotSet) -> Result<(), RedisOpenError> {
        match self.connect(slots).await {
            Ok(connection) => self.open(connection),
            Err(LostConnection::Error(error)) if is_refusal(&error) => {
                return Err(RedisOpenError::Refused { place: self.location.to_string(), why: error.to_string() });
            }
            Err(why) => self.say_lost(&why),
        }
        Ok(())
    }

    /// Keeps a connection, until the task is dropped.
    pub(super) async fn keep(&self, slots: &SlotSet) {
        loop {
            if let Some(connection) = self.taken() {
                let why = self.watch(connection, slots).await;
                self.current.store(None);
                self.say_lost(&why);
            }
            tokio::time::sleep(RETRY_AFTER).await;
            if let Ok(connection) = self.connect(slots).await {
                self.open(connection);
                tracing::info!(server = %self.location, "limits are counted for all gateways together again");
            }
        }
    }

    fn open(&self, connection: MultiplexedConnection) {
        self.failures.store(0, Ordering::Relaxed);
        self.current.store(Some(Arc::new(connection)));
    }

    fn say_lost(&self, why: &LostConnection) {
        tracing::error!(
            server = %self.location, %why,
            "limits cannot be counted for all gateways together: each grants its part until the server answers"
        );
    }

    /// A connection that answers in time, at which all slots in use are known.
    async fn connect(&self, slots: &SlotSet) -> Result<MultiplexedConnection, LostConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(self.patience()));
        let made = self.location.client().get_multiplexed_async_connection_with_config(&config);
        let mut connection = timeout(PATIENCE, made).await.map_err(|_| LostConnection::Late)??;
        self.renew(&mut connection, slots).await?;
        // The first command of a connection may be slow.
        probe(&mut connection, self.patience()).await?;
        probe(&mut connection, self.deadline).await?;
        Ok(connection)
    }

    /// Returns why `connection` is given up, once it is.
    async fn watch(&self, mut connection: MultiplexedConnection, slots: &SlotSet) -> LostConnection {
        for look in 1_u32.. {
            tokio::select! {
                () = self.given_up.notified() => return LostConnection::Late,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Err(why) = probe(&mut connection, self.deadline.max(PATIENCE / 4)).await {
                return why;
            }
            if look.is_multiple_of(RENEW_EACH)
                && let Err(why) = self.renew(&mut connection, slots).await
            {
                return why;
            }
        }
        LostConnection::Late
    }

    async fn renew(&self, connection: &mut MultiplexedConnection, slots: &SlotSet) -> Result<(), LostConnection> {
        let names = |some: &[SlotId]| -> Vec<String> { some.iter().map(|slot| slots.name(*slot)).collect() };
        for (key, some) in slots.to_renew() {
            let mut renewal = self.renew.prepare_invoke();
            renewal.key(&key.slots).arg(SLOT_LASTS.as_micros() as u64).arg(names(&some));
            timeout(self.patience(), renewal.invoke_async::<()>(connection))
                .await
                .map_err(|_| LostConnection::Late)??;
            // Freed before it was renewed, it would stay taken for half a minute.
            let ended = slots.ended_among(&some);
            if !ended.is_empty() {
                let mut free = redis::cmd("ZREM");
                free.arg(&key.slots).arg(names(&ended));
                timeout(self.patience(), free.exec_async(connection)).await.map_err(|_| LostConnection::Late)??;
            }
        }
        Ok(())
    }
}

/// Writes something, within `most`.
async fn probe(connection: &mut MultiplexedConnection, most: Duration) -> Result<(), LostConnection> {
    let (name, lasts) = PROBE;
    let mut write = redis::cmd("SET");
    write.arg(name).arg(1).arg("PX").arg(lasts);
    timeout(most, write.exec_async(connection)).await.map_err(|_| LostConnection::Late)??;
    Ok(())
}

/// Whether it is about user and password, which time does not mend.
fn is_refusal(error: &RedisError) -> bool {
    let said = error.code().is_some_and(|code| ["NOAUTH", "WRONGPASS", "NOPERM"].contains(&code));
    said || error.kind() == redis::ErrorKind::AuthenticationFailed
}
