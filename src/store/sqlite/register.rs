//! The register on SQLite: keys, teams and credit.
//!
//! The gateway writes through its one writer; a command uses a connection of its own, and the gateway notices the
//! change by the version. Both run the same statements in one transaction, which first checks that the stored state
//! is what each change expects.
//!
//! Start reading in [`apply`], then [`read_since`].

use super::operation::WriteOperation;
use super::writer::Writer;
use super::{OpenError, migrate, open};
use crate::domain::budget::{BudgetSpec, CREDIT, Scope};
use crate::domain::limit::Limits;
use crate::domain::money::NanoUsd;
use crate::domain::register::{CreditBalance, Grant, Holder, KeyOverrides, StoredKey, StoredSecret, StoredTeam};
use crate::domain::secret::KeyHash;
use crate::store::{
    Register, RegisterChange, RegisterConflict, RegisterContents, RegisterWriteError, StoreFuture, StoreUnavailable,
};
use parking_lot::Mutex;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long to wait until a change is durable: much longer than a commit, and short enough for an operator.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// At the start all rows are read in table order; later changes are found by the index on the version.
const ALL_KEYS: &str = "SELECT * FROM keys WHERE +version > ?1 ORDER BY name";
const ALL_SECRETS: &str = "SELECT * FROM secrets WHERE ?1 = 0 ORDER BY key, created_unix_ms, hash";
const KEYS: &str = "SELECT * FROM keys INDEXED BY keys_by_version WHERE version > ?1 ORDER BY name";
const SECRETS: &str =
    "SELECT secrets.* FROM keys INDEXED BY keys_by_version CROSS JOIN secrets ON secrets.key = keys.name
    WHERE keys.version > ?1 ORDER BY secrets.key, secrets.created_unix_ms, secrets.hash";
const TEAMS: &str = "SELECT * FROM teams WHERE version > ?1 ORDER BY name";
const CREDITS: &str = "SELECT scope, name, sum(amount_nanousd) FROM grants
    WHERE (scope, name) IN (SELECT scope, name FROM grants WHERE id > ?1) GROUP BY scope, name ORDER BY scope, name";
const BALANCES: &str = "SELECT grants.scope, grants.name, sum(amount_nanousd),
        coalesce(max(spent_nanousd), 0), coalesce(max(leased_nanousd), 0)
    FROM grants LEFT JOIN budgets ON budgets.scope = grants.scope AND budgets.name = grants.name AND window = ?1
    GROUP BY grants.scope, grants.name ORDER BY grants.scope, grants.name";
const GRANTS: &str = "SELECT id, scope, name, amount_nanousd, reason, granted_by, granted_unix_ms FROM grants
    WHERE id > ?1 AND (?2 IS NULL OR (scope = ?2 AND name = ?3)) ORDER BY id LIMIT ?4";
const PUT_KEY: &str = "INSERT INTO keys VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
    ON CONFLICT DO UPDATE SET policy = ?2, team = ?3, requests_per_minute = ?4, tokens_per_minute = ?5,
        max_concurrent = ?6, budget_nanousd = ?7, budget_window = ?8, expires_unix = ?9, disabled = ?10, version = ?12";
const PUT_SECRET: &str = "INSERT INTO secrets VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (hash) DO UPDATE SET ends_unix_ms = ?4 WHERE key = ?2";
const RECORD_USE: &str =
    "UPDATE secrets SET last_used_unix_ms = max(coalesce(last_used_unix_ms, ?2), ?2) WHERE hash = ?1";
const PUT_TEAM: &str = "INSERT INTO teams VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT DO UPDATE SET budget_nanousd = ?2, budget_window = ?3, version = ?5";
const PUT_GRANT: &str = "INSERT INTO grants VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// Keys, teams and credit in the database at a path.
pub struct SqliteRegister {
    reader: Arc<RegisterReader>,
    /// `None` in a command, whether or not a gateway runs.
    writer: Option<Writer>,
}

struct RegisterReader {
    path: PathBuf,
    connection: Mutex<ReadConnection>,
}

/// The connection of the reader, between two queries.
enum ReadConnection {
    /// There is no connection yet, or the last one failed.
    None,
    Open(Connection),
    /// The register is closed: no connection is opened any more.
    Closed,
}

impl SqliteRegister {
    /// The register of the gateway that writes the database at `path` with `writer`.
    pub fn of_gateway(path: &Path, writer: &Writer) -> Self {
        Self { reader: Arc::new(RegisterReader::new(path)), writer: Some(writer.clone()) }
    }

    /// The register of a command, whether or not a gateway runs. The database is created or migrated if no gateway
    /// has locked it.
    ///
    /// # Errors
    /// When it cannot be created or opened, or needs a migration while a gateway has locked it.
    pub fn of_command(path: &Path, now_unix_ms: i64) -> Result<Self, OpenError> {
        let current = || migrate::is_current(&open::readable(path)?, path);
        match current() {
            // Locked for the migration only: a gateway may start while the command runs.
            Err(OpenError::Missing(_) | OpenError::Older { .. }) => match open::lock(path) {
                Ok(_lock) => drop(migrate::migrate(path, now_unix_ms)?),
                Err(OpenError::Held(_)) => current()?,
                Err(other) => return Err(other),
            },
            other => other?,
        }
        Ok(Self { reader: Arc::new(RegisterReader::new(path)), writer: None })
    }

    /// The register of a command that only reads. The database is neither created nor migrated.
    ///
    /// # Errors
    /// When there is none, or its schema is not the current one.
    pub fn of_reader(path: &Path) -> Result<Self, OpenError> {
        migrate::is_current(&open::readable(path)?, path)?;
        Ok(Self { reader: Arc::new(RegisterReader::new(path)), writer: None })
    }

    /// Runs `query` on a read-only connection, on a blocking thread.
    fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> StoreFuture<'static, Result<T, StoreUnavailable>> {
        let reader = self.reader.clone();
        Box::pin(async move {
            let result = tokio::task::spawn_blocking(move || reader.query(query)).await;
            result.unwrap_or(Err(StoreUnavailable))
        })
    }
}

impl Register for SqliteRegister {
    fn since(&self, version: i64) -> StoreFuture<'static, Result<RegisterContents, StoreUnavailable>> {
        self.read(move |connection| read_since(connection, version))
    }

    fn write(&self, changes: Vec<RegisterChange>) -> StoreFuture<'static, Result<Vec<i64>, RegisterWriteError>> {
        match &self.writer {
            Some(writer) => Box::pin(write_queued(writer.clone(), changes)),
            None => {
                let path = self.reader.path.clone();
                Box::pin(async move {
                    let written = tokio::task::spawn_blocking(move || write_directly(&path, &changes)).await;
                    written.unwrap_or(Err(RegisterWriteError::Unavailable))
                })
            }
        }
    }

    fn used(&self, uses: Vec<(KeyHash, i64)>) {
        if let Some(writer) = &self.writer
            && writer.submit(Box::new(SecretUseOperation(uses))).is_err()
        {
            tracing::warn!("when keys were last used could not be noted");
        }
    }

    fn close(&self) {
        *self.reader.connection.lock() = ReadConnection::Closed;
    }

    fn balances(&self) -> StoreFuture<'static, Result<Vec<CreditBalance>, StoreUnavailable>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(BALANCES)?;
            let balance = |row: &Row<'_>| {
                let [granted, spent, leased] = [row.get(2)?, row.get(3)?, row.get(4)?].map(NanoUsd);
                Ok(CreditBalance { holder: holder(row, 0)?, granted, spent, leased })
            };
            statement.query_map([CREDIT], balance)?.collect()
        })
    }

    fn grants(
        &self,
        holder: Option<Holder>,
        after: i64,
        most: usize,
    ) -> StoreFuture<'static, Result<Vec<Grant>, StoreUnavailable>> {
        self.read(move |connection| {
            let (scope, name) = holder.map(|holder| (holder.scope.label(), holder.name)).unzip();
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let mut statement = connection.prepare_cached(GRANTS)?;
            statement.query_map(params![after, scope, name.as_deref(), most], grant)?.collect()
        })
    }
}

impl RegisterReader {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), connection: Mutex::new(ReadConnection::None) }
    }

    fn query<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreUnavailable> {
        let mut connection = self.connection.lock();
        let open = match std::mem::replace(&mut *connection, ReadConnection::None) {
            ReadConnection::Open(open) => open,
            ReadConnection::None => open::readable(&self.path).map_err(unavailable)?,
            ReadConnection::Closed => {
                *connection = ReadConnection::Closed;
                return Err(StoreUnavailable);
            }
        };
        let result = query(&open).map_err(unavailable)?;
        // Kept only after success: after an error a new connection is opened.
        *connection = ReadConnection::Open(open);
        Ok(result)
    }
}

fn unavailable(error: impl std::fmt::Display) -> StoreUnavailable {
    tracing::error!(%error, "keys, teams and credit cannot be read");
    StoreUnavailable
}

/// What was changed after `version`, read in one transaction.
pub(super) fn read_since(connection: &Connection, version: i64) -> rusqlite::Result<RegisterContents> {
    let transaction = connection.unchecked_transaction()?;
    let now = transaction.query_row("SELECT version FROM register", [], |row| row.get(0))?;
    if now == version {
        return Ok(RegisterContents { version, ..RegisterContents::default() });
    }
    let (keys, secrets) = if version == 0 { (ALL_KEYS, ALL_SECRETS) } else { (KEYS, SECRETS) };
    let mut names = NameInterner::default();
    let mut keys = all(&transaction, keys, version, |row| key(row, &mut names))?;
    read_secrets(&transaction, secrets, version, &mut keys)?;
    let teams = all(&transaction, TEAMS, version, team)?;
    let credit = all(&transaction, CREDITS, version, |row| Ok((holder(row, 0)?, NanoUsd(row.get(2)?))))?;
    Ok(RegisterContents { version: now, keys, teams, credit })
}

fn all<T>(
    connection: &Connection,
    query: &str,
    version: i64,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare_cached(query)?.query_map([version], read)?.collect()
}

/// Adds every secret that `query` finds to its key, oldest first. Both are sorted by the names of the keys.
fn read_secrets(connection: &Connection, query: &str, version: i64, keys: &mut [StoredKey]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(query)?;
    let mut rows = statement.query([version])?;
    let mut keys = keys.iter_mut().peekable();
    while let Some(row) = rows.next()? {
        let name = row.get_ref(1)?.as_str()?;
        while keys.next_if(|key| *key.name < *name).is_some() {}
        if let Some(key) = keys.peek_mut().filter(|key| *key.name == *name) {
            key.secrets.push(secret(row)?);
        }
    }
    Ok(())
}

/// Shares one allocation between equal names.
#[derive(Default)]
struct NameInterner(HashSet<Arc<str>>);

impl NameInterner {
    fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        let name = Arc::<str>::from(text);
        self.0.insert(name.clone());
        name
    }
}

fn key(row: &Row<'_>, names: &mut NameInterner) -> rusqlite::Result<StoredKey> {
    let limits = Limits {
        requests_per_minute: unsigned(row, 3)?,
        tokens_per_minute: unsigned(row, 4)?,
        max_concurrent: row.get(5)?,
    };
    Ok(StoredKey {
        name: row.get(0)?,
        policy: names.intern(row.get_ref(1)?.as_str()?),
        team: row.get_ref(2)?.as_str_or_null()?.map(|team| names.intern(team)),
        own: KeyOverrides { limits, budget: budget_spec(row, 6)? },
        expires: row.get(8)?,
        disabled: row.get(9)?,
        created_unix_ms: row.get(10)?,
        version: row.get(11)?,
        secrets: Vec::with_capacity(1),
    })
}

fn secret(row: &Row<'_>) -> rusqlite::Result<StoredSecret> {
    Ok(StoredSecret {
        hash: KeyHash(row.get(0)?),
        created_unix_ms: row.get(2)?,
        ends_unix_ms: row.get(3)?,
        last_used_unix_ms: row.get(4)?,
    })
}

fn team(row: &Row<'_>) -> rusqlite::Result<StoredTeam> {
    Ok(StoredTeam {
        name: row.get(0)?,
        budget: budget_spec(row, 1)?,
        created_unix_ms: row.get(3)?,
        version: row.get(4)?,
    })
}

fn grant(row: &Row<'_>) -> rusqlite::Result<Grant> {
    Ok(Grant {
        id: row.get(0)?,
        holder: holder(row, 1)?,
        amount: NanoUsd(row.get(3)?),
        reason: row.get(4)?,
        by: row.get(5)?,
        granted_unix_ms: row.get(6)?,
    })
}

fn holder(row: &Row<'_>, at: usize) -> rusqlite::Result<Holder> {
    let label = row.get_ref(at)?.as_str()?;
    let scope = Scope::of_label(label).ok_or_else(|| unreadable(at, label))?;
    Ok(Holder { scope, name: row.get(at + 1)? })
}

/// A limit and a window, in the columns `at` and `at + 1`.
fn budget_spec(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<BudgetSpec>> {
    let Some(limit) = row.get(at)? else { return Ok(None) };
    let text = row.get_ref(at + 1)?.as_str()?;
    let window = text.parse().map_err(|_| unreadable(at + 1, text))?;
    Ok(Some(BudgetSpec { limit: NanoUsd(limit), window }))
}

fn unsigned(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(at)?.map(i64::cast_unsigned))
}

fn unreadable(at: usize, text: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(at, Type::Text, format!("`{text}` is nothing this program wrote").into())
}

/// Writes all of `changes` in order and returns their versions, or writes nothing if one of them conflicts with the
/// state it finds.
fn apply(
    transaction: &Transaction<'_>,
    changes: &[RegisterChange],
) -> rusqlite::Result<Result<Vec<i64>, RegisterWriteError>> {
    // A conflict must not roll back other operations of the transaction.
    transaction.execute_batch("SAVEPOINT changes")?;
    let next_versions = "UPDATE register SET version = version + ?1 RETURNING version";
    let count = i64::try_from(changes.len()).unwrap_or(i64::MAX);
    let last: i64 = transaction.query_row(next_versions, [count], |row| row.get(0))?;
    let versions = (last - count + 1..=last).collect::<Vec<_>>();
    for (at, (change, version)) in changes.iter().zip(&versions).enumerate() {
        if let Some(why) = conflict(transaction, change)? {
            transaction.execute_batch("ROLLBACK TO changes; RELEASE changes")?;
            return Ok(Err(RegisterWriteError::Conflict { at, why }));
        }
        write_change(transaction, change, *version)?;
    }
    transaction.execute_batch("RELEASE changes")?;
    Ok(Ok(versions))
}

fn conflict(transaction: &Transaction<'_>, change: &RegisterChange) -> rusqlite::Result<Option<RegisterConflict>> {
    let (name, expected, table, secrets) = match change {
        RegisterChange::Key { key, expected } => (&key.name, *expected, "keys", &key.secrets[..]),
        RegisterChange::Team { team, expected } => (&team.name, *expected, "teams", &[][..]),
        RegisterChange::Grant(_) => return Ok(None),
    };
    let mut versions = transaction.prepare_cached(&format!("SELECT version FROM {table} WHERE name = ?1"))?;
    let found: Option<i64> = versions.query_row([name], |row| row.get(0)).optional()?;
    if found.unwrap_or(0) != expected {
        return Ok(Some(RegisterConflict::Changed));
    }
    let mut of_other_key = transaction.prepare_cached("SELECT 1 FROM secrets WHERE hash = ?1 AND key <> ?2")?;
    for secret in secrets {
        if of_other_key.exists(params![secret.hash.0, name])? {
            return Ok(Some(RegisterConflict::SecretTaken));
        }
    }
    Ok(None)
}

fn write_change(transaction: &Transaction<'_>, change: &RegisterChange, version: i64) -> rusqlite::Result<()> {
    match change {
        RegisterChange::Key { key, .. } => write_key(transaction, key, version),
        RegisterChange::Team { team, .. } => {
            let (limit, window) = columns(team.budget.as_ref());
            let row = params![team.name, limit, window, team.created_unix_ms, version];
            transaction.prepare_cached(PUT_TEAM)?.execute(row).map(drop)
        }
        RegisterChange::Grant(grant) => {
            let Holder { scope, name } = &grant.holder;
            let row =
                params![version, scope.label(), name, grant.amount.0, grant.reason, grant.by, grant.granted_unix_ms];
            transaction.prepare_cached(PUT_GRANT)?.execute(row).map(drop)
        }
    }
}

fn write_key(transaction: &Transaction<'_>, key: &StoredKey, version: i64) -> rusqlite::Result<()> {
    let (limit, window) = columns(key.own.budget.as_ref());
    let limits = &key.own.limits;
    transaction.prepare_cached(PUT_KEY)?.execute(params![
        key.name,
        key.policy,
        key.team,
        limits.requests_per_minute.map(u64::cast_signed),
        limits.tokens_per_minute.map(u64::cast_signed),
        limits.max_concurrent,
        limit,
        window,
        key.expires,
        key.disabled,
        key.created_unix_ms,
        version
    ])?;
    for secret in &key.secrets {
        let StoredSecret { hash, created_unix_ms, ends_unix_ms, last_used_unix_ms } = secret;
        let row = params![hash.0, key.name, created_unix_ms, ends_unix_ms, last_used_unix_ms];
        transaction.prepare_cached(PUT_SECRET)?.execute(row)?;
    }
    let mut stored = transaction.prepare_cached("SELECT hash FROM secrets WHERE key = ?1")?;
    let stored: Vec<[u8; 32]> = stored.query_map([&key.name], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    for hash in stored.into_iter().filter(|hash| key.secrets.iter().all(|secret| secret.hash.0 != *hash)) {
        transaction.prepare_cached("DELETE FROM secrets WHERE hash = ?1")?.execute([hash])?;
    }
    Ok(())
}

fn columns(budget: Option<&BudgetSpec>) -> (Option<i64>, Option<String>) {
    budget.map(|budget| (budget.limit.0, budget.window.to_string())).unzip()
}

/// Writes with a connection of its own, while others may write too.
fn write_directly(path: &Path, changes: &[RegisterChange]) -> Result<Vec<i64>, RegisterWriteError> {
    let write = || {
        let mut connection = open::existing(path)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let written = apply(&transaction, changes)?;
        if written.is_ok() {
            transaction.commit()?;
        }
        Ok(written)
    };
    write().unwrap_or_else(|error: rusqlite::Error| {
        tracing::error!(%error, "keys, teams and credit cannot be written");
        Err(RegisterWriteError::Unavailable)
    })
}

async fn write_queued(writer: Writer, changes: Vec<RegisterChange>) -> Result<Vec<i64>, RegisterWriteError> {
    if !writer.status().healthy {
        return Err(RegisterWriteError::Unavailable);
    }
    let (result, written) = oneshot::channel();
    let operation = ChangeOperation { changes, written: Mutex::new(Err(RegisterWriteError::Unavailable)), result };
    writer.submit(Box::new(operation)).map_err(|_| RegisterWriteError::Unavailable)?;
    match tokio::time::timeout(WRITE_TIMEOUT, written).await {
        Ok(Ok(written)) => written,
        _ => Err(RegisterWriteError::Unavailable),
    }
}

/// Writes changes to the register.
struct ChangeOperation {
    changes: Vec<RegisterChange>,
    /// The result within the transaction, which may not be committed yet.
    written: Mutex<Result<Vec<i64>, RegisterWriteError>>,
    result: oneshot::Sender<Result<Vec<i64>, RegisterWriteError>>,
}

impl WriteOperation for ChangeOperation {
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let written = apply(transaction, &self.changes)?;
        *self.written.lock() = written;
        Ok(())
    }

    fn committed(self: Box<Self>) {
        // The caller may have timed out; the next refresh reads what was written.
        let _ = self.result.send(self.written.into_inner());
    }
}

/// Records when secrets were last used.
struct SecretUseOperation(Vec<(KeyHash, i64)>);

impl WriteOperation for SecretUseOperation {
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut record = transaction.prepare_cached(RECORD_USE)?;
        self.0.iter().try_for_each(|(hash, unix_ms)| record.execute(params![hash.0, unix_ms]).map(drop))
    }

    fn committed(self: Box<Self>) {}
}
