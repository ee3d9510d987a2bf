//! The register on SQLite: keys, teams and credit, and with each change its row of the audit.
//!
//! The gateway writes through its one writer; a command uses a connection of its own, and the gateway notices the
//! change by the version. Both run the same statements in one transaction, which first checks that the stored state
//! is what each change expects.
//!
//! Start reading in [`apply`], then [`read_since`].

use super::audit;
use super::credit::{self, holder};
use super::operation::{SqliteWriter, WriteOperation};
use super::{OpenError, drill_reports, migrate, open, sla, unreadable_value};
use crate::domain::audit::{AuditChain, AuditEntry, AuditQuery, AuditRow};
use crate::domain::budget::BudgetSpec;
use crate::domain::drill::report::DrillReport;
use crate::domain::limit::Limits;
use crate::domain::money::NanoUsd;
use crate::domain::register::{
    CreditBalance, Grant, Holder, KeyOverrides, QuarantinedRow, StoredKey, StoredSecret, StoredTeam,
};
use crate::domain::secret::KeyHash;
use crate::domain::sla::closing::SlaClosing;
use crate::domain::sla::month::SlaMonth;
use crate::store::column::unreadable;
use crate::store::name_set::NameSet;
use crate::store::{
    ChangeContext, PromisedMonth, Register, RegisterChange, RegisterConflict, RegisterContents, RegisterWriteError,
    SlaPresence, StoreFuture, StoreUnavailable,
};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, Rows, Transaction, TransactionBehavior, params};
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
/// Where the row with the version is missing, it is that of the last change that is there.
const VERSION: &str = "SELECT coalesce((SELECT max(version) FROM register), (SELECT max(version) FROM
    (SELECT version FROM keys UNION ALL SELECT version FROM teams UNION ALL SELECT id FROM grants)), 0)";
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
    writer: Option<SqliteWriter>,
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
    pub fn of_gateway(path: &Path, writer: &SqliteWriter) -> Self {
        Self { reader: Arc::new(RegisterReader::new(path)), writer: Some(writer.clone()) }
    }

    /// The register of a command, whether or not a gateway runs. The database is created or migrated if no gateway
    /// has locked it.
    ///
    /// # Errors
    /// When it cannot be created or opened, or needs a migration while a gateway has locked it.
    pub fn of_command(path: &Path, now_unix_ms: i64) -> Result<Self, OpenError> {
        let current = || migrate::is_current(&open::readable(path)?, path);
        open::refuse_other_names(path)?;
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

    /// Writes by `write`, which `describe` names: through the gateway's writer, or with a connection of a command's own,
    /// while others may write too. What is not to `keep` is rolled back by a command; the gateway's other operations in
    /// the transaction must not be.
    fn write_by<T: Send + 'static>(
        &self,
        describe: String,
        write: impl Fn(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
        keep: fn(&T) -> bool,
    ) -> StoreFuture<'static, Result<T, StoreUnavailable>> {
        if let Some(writer) = &self.writer {
            return Box::pin(write_queued(writer.clone(), describe, write));
        }
        let path = self.reader.path.clone();
        Box::pin(async move {
            let written = tokio::task::spawn_blocking(move || write_directly(&path, write, keep)).await;
            written.unwrap_or(Err(StoreUnavailable))
        })
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

    fn write(
        &self,
        changes: Vec<RegisterChange>,
        context: ChangeContext,
    ) -> StoreFuture<'static, Result<Vec<i64>, RegisterWriteError>> {
        let (describe, apply) = (describe(&changes), move |t: &Transaction<'_>| apply(t, &changes, &context));
        let written = self.write_by(describe, apply, |done| done.is_ok());
        Box::pin(async move { written.await.unwrap_or(Err(RegisterWriteError::Unavailable)) })
    }

    fn note(&self, entry: AuditEntry, context: ChangeContext) -> StoreFuture<'static, Result<(), StoreUnavailable>> {
        let describe = format!("the audit of the {} '{}'", entry.kind, entry.name);
        self.write_by(
            describe,
            move |transaction| audit::append(transaction, std::slice::from_ref(&entry), &context),
            |()| true,
        )
    }

    fn audit(&self, query: AuditQuery) -> StoreFuture<'static, Result<Vec<AuditRow>, StoreUnavailable>> {
        self.read(move |connection| audit::rows(connection, &query))
    }

    fn audit_chain(&self) -> StoreFuture<'static, Result<AuditChain, StoreUnavailable>> {
        self.read(audit::chain)
    }

    fn sla_closings(
        &self,
        policy: Arc<str>,
        month: SlaMonth,
    ) -> StoreFuture<'static, Result<Vec<SlaClosing>, StoreUnavailable>> {
        self.read(move |connection| sla::closings(connection, &policy, month))
    }

    fn sla_promised(&self) -> StoreFuture<'static, Result<Vec<PromisedMonth>, StoreUnavailable>> {
        self.read(sla::promised)
    }

    fn present(&self, presence: SlaPresence) {
        if let Some(writer) = &self.writer {
            // Where the queue is full, the next one is recorded a minute later, in the same interval.
            let _ = writer.submit_unhurried(Box::new(sla::PresenceOperation(presence)));
        }
    }

    fn keep_drill_report(&self, report: DrillReport) -> StoreFuture<'static, Result<(), StoreUnavailable>> {
        let describe = format!("the report of the drill {}", report.scenario);
        self.write_by(describe, move |transaction| drill_reports::put(transaction, &report), |()| true)
    }

    fn drill_reports(&self) -> StoreFuture<'static, Result<Vec<DrillReport>, StoreUnavailable>> {
        self.read(drill_reports::all)
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
        self.read(credit::balances)
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
            let mut rows = statement.query(params![after, scope, name.as_deref(), most])?;
            // A grant to nobody counts for nothing, and is named where the register is read.
            readable_rows(&mut rows, grant, |_, _| {})
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
    let now = transaction.query_row(VERSION, [], |row| row.get(0))?;
    if now == version {
        return Ok(RegisterContents { version, ..RegisterContents::default() });
    }
    let (keys, secrets) = if version == 0 { (ALL_KEYS, ALL_SECRETS) } else { (KEYS, SECRETS) };
    let (mut names, mut quarantined) = (NameSet::default(), Vec::new());
    let mut statement = transaction.prepare_cached(keys)?;
    let key = |row: &Row<'_>| key(row, &mut names);
    let mut keys = readable_rows(&mut statement.query([version])?, key, |row, why| {
        quarantined.push(quarantined_row("keys", row, 0, &why));
    })?;
    read_secrets(&transaction, secrets, version, &mut keys, &mut quarantined)?;
    let mut statement = transaction.prepare_cached(TEAMS)?;
    let mut spends_nothing = Vec::new();
    let mut teams = readable_rows(&mut statement.query([version])?, team, |row, why| {
        let quarantined_team = quarantined_row("teams", row, 0, &why);
        spends_nothing.push(StoredTeam::without_money(&quarantined_team.row, now));
        quarantined.push(quarantined_team);
    })?;
    // What its budget is cannot be known: its keys go on without any money, and not without a budget.
    teams.append(&mut spends_nothing);
    let credit = credit::credits_since(&transaction, version, &mut quarantined)?;
    Ok(RegisterContents { version: now, keys, teams, credit, quarantined })
}

/// What `read` reads of `rows`, but for those whose content it cannot read, which `unreadable` gets.
fn readable_rows<T>(
    rows: &mut Rows<'_>,
    mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    mut unreadable: impl FnMut(&Row<'_>, rusqlite::Error),
) -> rusqlite::Result<Vec<T>> {
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        match read(row) {
            Ok(one) => all.push(one),
            Err(error) if error.sqlite_error_code().is_none() => unreadable(row, error),
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// A row that cannot be read, because `why`, called what its column `at` holds.
fn quarantined_row(table: &'static str, row: &Row<'_>, at: usize, why: &rusqlite::Error) -> QuarantinedRow {
    let name = row.get_ref(at).ok().and_then(|value| value.as_bytes().ok()).unwrap_or_default();
    QuarantinedRow { table, row: String::from_utf8_lossy(name).into_owned(), why: why.to_string() }
}

/// Adds every secret that `query` finds to its key, oldest first. Both are sorted by the names of the keys.
fn read_secrets(
    connection: &Connection,
    query: &str,
    version: i64,
    keys: &mut [StoredKey],
    quarantined: &mut Vec<QuarantinedRow>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(query)?;
    let mut rows = statement.query([version])?;
    let mut keys = keys.iter_mut().peekable();
    let read = |row: &Row<'_>| {
        let name = row.get_ref(1)?.as_str()?;
        while keys.next_if(|key| *key.name < *name).is_some() {}
        if let Some(key) = keys.peek_mut().filter(|key| *key.name == *name) {
            key.secrets.push(secret(row)?);
        }
        Ok(())
    };
    readable_rows(&mut rows, read, |row, why| quarantined.push(quarantined_row("secrets", row, 1, &why))).map(drop)
}

fn key(row: &Row<'_>, names: &mut NameSet) -> rusqlite::Result<StoredKey> {
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

/// A limit and a window, in the columns `at` and `at + 1`.
fn budget_spec(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<BudgetSpec>> {
    let Some(limit) = row.get(at)? else { return Ok(None) };
    let text = row.get_ref(at + 1)?.as_str()?;
    let window = text.parse().map_err(|_| unreadable_value(unreadable(text)))?;
    Ok(Some(BudgetSpec { limit: NanoUsd(limit), window }))
}

fn unsigned(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(at)?.map(i64::cast_unsigned))
}

/// Writes all of `changes` in order with their rows of the audit, and returns their versions; or writes nothing if one of
/// them conflicts with the state it finds.
fn apply(
    transaction: &Transaction<'_>,
    changes: &[RegisterChange],
    context: &ChangeContext,
) -> rusqlite::Result<Result<Vec<i64>, RegisterWriteError>> {
    // A conflict must not roll back other operations of the transaction.
    transaction.execute_batch("SAVEPOINT changes")?;
    let next_versions = "UPDATE register SET version = version + ?1 RETURNING version";
    let count = i64::try_from(changes.len()).unwrap_or(i64::MAX);
    let last: i64 = transaction.query_row(next_versions, [count], |row| row.get(0))?;
    let versions = (last - count + 1..=last).collect::<Vec<_>>();
    let mut entries = Vec::with_capacity(changes.len());
    for (at, (change, version)) in changes.iter().zip(&versions).enumerate() {
        if let Some(why) = conflict(transaction, change)? {
            transaction.execute_batch("ROLLBACK TO changes; RELEASE changes")?;
            return Ok(Err(RegisterWriteError::Conflict { at, why }));
        }
        entries.push(entry(transaction, change)?);
        write_change(transaction, change, *version)?;
    }
    audit::append(transaction, &entries, context)?;
    transaction.execute_batch("RELEASE changes")?;
    Ok(Ok(versions))
}

/// What `change`, which is not written yet, changes.
fn entry(transaction: &Transaction<'_>, change: &RegisterChange) -> rusqlite::Result<AuditEntry> {
    Ok(match change {
        RegisterChange::Key { key, expected: 0 } => AuditEntry::of_key(None, key),
        RegisterChange::Key { key, .. } => AuditEntry::of_key(stored_key(transaction, &key.name)?.as_ref(), key),
        RegisterChange::Team { team, expected: 0 } => AuditEntry::of_team(None, team),
        RegisterChange::Team { team, .. } => {
            let mut statement = transaction.prepare_cached("SELECT * FROM teams WHERE name = ?1")?;
            let before = readable_rows(&mut statement.query([&team.name])?, self::team, |_, _| {})?;
            AuditEntry::of_team(before.first(), team)
        }
        RegisterChange::Grant(grant) => {
            let Holder { scope, name } = &grant.holder;
            AuditEntry::of_grant(credit::granted(transaction, *scope, name)?, grant)
        }
        RegisterChange::SlaClosing(closing) => AuditEntry::of_closing(closing),
    })
}

/// The key called `name`; `None` if there is none that can be read.
fn stored_key(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<Option<StoredKey>> {
    let mut names = NameSet::default();
    let mut statement = transaction.prepare_cached("SELECT * FROM keys WHERE name = ?1")?;
    let mut keys = readable_rows(&mut statement.query([name])?, |row| key(row, &mut names), |_, _| {})?;
    let Some(mut key) = keys.pop() else { return Ok(None) };
    let secrets = "SELECT * FROM secrets WHERE key = ?1 ORDER BY created_unix_ms, hash";
    let mut statement = transaction.prepare_cached(secrets)?;
    key.secrets = readable_rows(&mut statement.query([name])?, secret, |_, _| {})?;
    Ok(Some(key))
}

fn conflict(transaction: &Transaction<'_>, change: &RegisterChange) -> rusqlite::Result<Option<RegisterConflict>> {
    let (name, expected, table, secrets) = match change {
        RegisterChange::Key { key, expected } => (&key.name, *expected, "keys", &key.secrets[..]),
        RegisterChange::Team { team, expected } => (&team.name, *expected, "teams", &[][..]),
        RegisterChange::Grant(Grant { holder: Holder { scope, name }, amount, .. }) => {
            let fits = credit::granted(transaction, *scope, name)?.checked_add(*amount).is_some();
            return Ok((!fits).then_some(RegisterConflict::TooMuchCredit));
        }
        RegisterChange::SlaClosing(closing) => {
            return Ok((!sla::is_next(transaction, closing)?).then_some(RegisterConflict::Changed));
        }
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
        RegisterChange::SlaClosing(closing) => sla::insert_closing(transaction, closing),
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
fn write_directly<T>(
    path: &Path,
    write: impl Fn(&Transaction<'_>) -> rusqlite::Result<T>,
    keep: fn(&T) -> bool,
) -> Result<T, StoreUnavailable> {
    let write = || {
        let mut connection = open::existing(path)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let written = write(&transaction)?;
        if keep(&written) {
            transaction.commit()?;
        }
        Ok(written)
    };
    write().map_err(|error: rusqlite::Error| {
        tracing::error!(%error, "keys, teams and credit cannot be written");
        StoreUnavailable
    })
}

async fn write_queued<T: Send + 'static>(
    writer: SqliteWriter,
    describe: String,
    write: impl Fn(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, StoreUnavailable> {
    if !writer.status().healthy {
        return Err(StoreUnavailable);
    }
    let (result, written) = oneshot::channel();
    let operation = ChangeOperation { describe, write, written: Mutex::new(None), result };
    writer.submit(Box::new(operation)).map_err(|_| StoreUnavailable)?;
    match tokio::time::timeout(WRITE_TIMEOUT, written).await {
        Ok(Ok(written)) => Ok(written),
        _ => Err(StoreUnavailable),
    }
}

/// Writes changes to the register or the audit.
struct ChangeOperation<T, W> {
    describe: String,
    write: W,
    /// The result within the transaction, which may not be committed yet.
    written: Mutex<Option<T>>,
    result: oneshot::Sender<T>,
}

impl<T: Send, W: Fn(&Transaction<'_>) -> rusqlite::Result<T> + Send> WriteOperation for ChangeOperation<T, W> {
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        *self.written.lock() = Some((self.write)(transaction)?);
        Ok(())
    }

    fn describe(&self) -> String {
        self.describe.clone()
    }

    fn committed(self: Box<Self>) {
        // The caller may have timed out; the next refresh reads what was written.
        if let Some(written) = self.written.into_inner() {
            let _ = self.result.send(written);
        }
    }
}

/// What `changes` are about, as the log names them: the first ones of many.
fn describe(changes: &[RegisterChange]) -> String {
    const NAMED: usize = 10;
    let more = if changes.len() > NAMED { format!(" and {} more", changes.len() - NAMED) } else { String::new() };
    let named: Vec<String> = changes.iter().take(NAMED).map(described).collect();
    format!("the change of {}{more}", named.join(", "))
}

/// What a change is about, as the log names it.
fn described(change: &RegisterChange) -> String {
    match change {
        RegisterChange::Key { key, .. } => format!("the key '{}'", key.name),
        RegisterChange::Team { team, .. } => format!("the team '{}'", team.name),
        RegisterChange::Grant(Grant { holder: Holder { scope, name }, .. }) => {
            format!("the credit of the {} '{name}'", scope.label())
        }
        RegisterChange::SlaClosing(SlaClosing { policy, month, .. }) => {
            format!("the closing of {month} for the policy '{policy}'")
        }
    }
}

/// Records when secrets were last used.
struct SecretUseOperation(Vec<(KeyHash, i64)>);

impl WriteOperation for SecretUseOperation {
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut record = transaction.prepare_cached(RECORD_USE)?;
        self.0.iter().try_for_each(|(hash, unix_ms)| record.execute(params![hash.0, unix_ms]).map(drop))
    }

    fn describe(&self) -> String {
        format!("when {} secrets were last used", self.0.len())
    }

    fn committed(self: Box<Self>) {}
}
